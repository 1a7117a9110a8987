/* Rows of schemes.def, and the numbers their codes stand for. Every code format here is a set of steps that double at
   powers of two (an integer format has one step), so one rule rounds to all of them: adding and subtracting 1.5 * 2^23
   steps leaves a multiple of the step, ties to even. */
#include <math.h>
#include <string.h>

#include "quant.h"

#define GRID_f4e2m1                                                                                                    \
  { 1.5f * 0x1p22f, 1, 6 }
#define GRID_f8e4m3                                                                                                    \
  { 1.5f * 0x1p20f, 0x1p-6f, 448 }
#define GRID_i4                                                                                                        \
  { 1.5f * 0x1p21f, 4, 7 }
#define GRID_i8                                                                                                        \
  { 1.5f * 0x1p17f, 64, 127 }

const ny_scheme ny_schemes[] = {
#define SCHEME(name, code, block, scale, tensor, text) {#name, text, NY_##code, NY_##scale, block, tensor, GRID_##code},
#include "schemes.def"
#undef SCHEME
};
const int ny_n_schemes = (int)NY_COUNT(ny_schemes);

const ny_scheme *ny_scheme_by_name(const char *name) {
  for (int i = 0; i < ny_n_schemes; i++)
    if (!strcmp(ny_schemes[i].name, name)) return &ny_schemes[i];
  return NULL;
}

double ny_scheme_bits(const ny_scheme *s, int64_t k) {
  double per = s->block ? s->block : k > 0 ? (double)k : 1;
  return ny_fmts[s->code].bits + ny_fmts[s->scale].bits / per;
}

float ny_snap(const ny_grid *g, float x) {
  float a = fminf(fabsf(x), g->max), p = a < g->floor ? g->floor : ldexpf(1, ilogbf(a)), m = p * g->unit;
  return copysignf((a + m) - m, x);
}

static float bits_float(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}
static uint32_t float_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

/* Positive e4m3 numbers by code, 1 to 126. */
static float e4m3(int code) {
  return code < 8 ? (float)code * 0x1p-9f : bits_float((uint32_t)(code + (120 << 3)) << 20);
}

static int e4m3_floor(float x) { /* the largest code whose number is at most x, from 0 */
  return x >= 448 ? 126 : x < 0x1p-6f ? (int)(x * 512) : (int)(float_bits(x) >> 20) - (120 << 3);
}

static int e4m3_round(float x) {
  static const ny_grid g = GRID_f8e4m3;
  return e4m3_floor(ny_snap(&g, fmaxf(x, 0x1p-9f)));
}

static int clamp(int x, int lo, int hi) { return x < lo ? lo : x > hi ? hi : x; }

static int of_e4m3(const ny_scheme *s, ny_candidates how, float ts, float amax, float *out) {
  if (how != NY_CAND_SWEEP) {
    out[0] = e4m3(e4m3_round(amax / (s->grid.max * ts))) * ts;
    out[1] = e4m3(e4m3_round(amax / (4 * ts))) * ts;
    return how == NY_CAND_FOUR ? 2 : 1;
  }
  int first = e4m3_floor(amax / (s->grid.max * ts)) - 4;
  for (int c = 0; c < 13; c++) out[c] = e4m3(clamp(first + c, 1, 126)) * ts;
  return 13;
}

static int of_e8m0(const ny_scheme *s, ny_candidates how, float amax, float *out) {
  int e = clamp(ilogbf(amax) - ilogbf(s->grid.max), -126, 126);
  out[0] = ldexpf(1, e), out[1] = ldexpf(1, e + 1), out[2] = ldexpf(1, clamp(e - 1, -126, 126));
  return how == NY_CAND_RTN ? 1 : how == NY_CAND_FOUR ? 2 : 3;
}

static int of_numbers(const ny_scheme *s, ny_candidates how, float amax, float *out) {
  int n = how == NY_CAND_RTN ? 1 : how == NY_CAND_FOUR ? 2 : 12;
  for (int c = 0; c < n; c++) {
    float part = how == NY_CAND_FOUR && c ? 1.5f : 1 - 0.04f * (float)c;
    float x = amax / s->grid.max * part;
    out[c] = (float)ny_round_to(s->scale, (double)(s->scale == NY_f16 ? fminf(x, 65504) : x));
    if (!(out[c] > 0)) out[c] = s->scale == NY_f16 ? 0x1p-24f : 0x1p-126f;
  }
  return n;
}

int ny_candidates_of(const ny_scheme *s, ny_candidates how, float ts, const float amax[NY_LANES],
                     float (*out)[NY_LANES]) {
  float one[NY_MAX_CANDIDATES];
  int n = 0;
  for (int l = 0; l < NY_LANES; l++) {
    if (s->scale == NY_f8e4m3)
      n = of_e4m3(s, how, ts, amax[l], one);
    else
      n = s->scale == NY_f8e8m0 ? of_e8m0(s, how, fmaxf(amax[l], 0x1p-126f), one) : of_numbers(s, how, amax[l], one);
    /* A block of zeros: any scale does, 1 is what other tools write. */
    for (int c = 0; c < n; c++) out[c][l] = amax[l] > 0 ? one[c] : s->tensor ? ts : 1;
  }
  return n;
}
