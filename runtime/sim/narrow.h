/* The narrow floats of PTX: exact decoding, and encoding with one rounding in any of its directions. runtime/base has
   codecs for the formats of tensors, to nearest even only and one element at a time; the interpreter needs the other
   directions, PTX's own NaN and saturation rules and inline paths for what kernels do most. The two are independent of
   each other, and the fidelity test compares them. */
#ifndef NY_SIM_NARROW_H
#define NY_SIM_NARROW_H
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* NARROW(name, exponent bits, mantissa bits, bias, largest finite code, canonical NaN code, has infinities)
   A format without NaN gives its largest value for one, as cvt.satfinite does. */
#define NY_NARROWS(NARROW)                                                                                             \
  NARROW(f16, 5, 10, 15, 0x7bff, 0x7fff, true)                                                                         \
  NARROW(bf16, 8, 7, 127, 0x7f7f, 0x7fff, true)                                                                        \
  NARROW(tf32, 8, 10, 127, 0x3fbff, 0x3ffff, true)                                                                     \
  NARROW(f32, 8, 23, 127, 0x7f7fffff, 0x7fffffff, true)                                                                \
  NARROW(e4m3, 4, 3, 7, 0x7e, 0x7f, false)                                                                             \
  NARROW(e5m2, 5, 2, 15, 0x7b, 0x7f, true)                                                                             \
  NARROW(e2m3, 2, 3, 1, 0x1f, 0x1f, false)                                                                             \
  NARROW(e3m2, 3, 2, 3, 0x1f, 0x1f, false)                                                                             \
  NARROW(e2m1, 2, 1, 1, 0x7, 0x7, false)
typedef enum ny_narrow {
#define NY_NARROW_(name, exp, man, bias, max, nan, inf) NY_NARROW_##name,
  NY_NARROWS(NY_NARROW_)
#undef NY_NARROW_
      NY_N_NARROW
} ny_narrow;
typedef enum ny_round {
  NY_ROUND_N,
  NY_ROUND_Z,
  NY_ROUND_M,
  NY_ROUND_P,
  NY_ROUND_NA
} ny_round; /* .rn .rz .rm .rp .rna */

/* Exact but for the one rounding; out of range is an infinity or the largest value as the direction says, and always
   the largest value with `satfinite` or where there are no infinities. tf32 is its 19 bits, not a register. */
uint32_t ny_narrow_encode(ny_narrow f, double x, ny_round r, bool satfinite);
double ny_narrow_decode(ny_narrow f, uint32_t code); /* any NaN: the quiet NaN of the host */
uint32_t ny_narrow_relu(ny_narrow f, uint32_t code); /* negative and -0: 0; NaN: the canonical one */

/* ue8m0 of |x|, .rz or .rp: 2^(code - 127), 255 NaN. Zero and what lies below 2^-127 towards zero is code 0. */
uint32_t ny_ue8m0_encode(double x, ny_round r, bool satfinite);
double ny_ue8m0_decode(uint32_t code);

/* a + b, the error kept as a sticky last bit ("round to odd"): rounding the result again to any format with at most 51
   bits of precision gives the correctly rounded sum, whatever the direction. Neither may be near the range's ends. */
double ny_add_odd(double a, double b);

static inline float ny_f32_of(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}
static inline uint32_t ny_f32_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
static inline double ny_f64_of(uint64_t u) {
  double x;
  memcpy(&x, &u, 8);
  return x;
}
static inline uint64_t ny_f64_bits(double x) {
  uint64_t u;
  memcpy(&u, &x, 8);
  return u;
}

/* A code as float, for formats of at most f16's range: its fields put where f32 has them, the bias corrected by an
   integer addition. Subnormals get an implicit bit that they do not have, and it is subtracted again: exact, and never
   a subnormal f32, which a multiplication would crawl over. Without branches, so that loops of these vectorise. `top`:
   magnitudes from here on are infinity (the first, where `inf`) and NaN. */
static inline uint32_t ny_blend(bool which, uint32_t yes, uint32_t no) {
  uint32_t mask = 0u - which;
  return (yes & mask) | (no & ~mask);
}
static inline float ny_widen(uint32_t code, int bits, int man, int bias, int32_t top, bool inf) {
  int32_t magnitude = (int32_t)(code & ((1u << (bits - 1)) - 1)); /* signed: SSE2 has no other comparison */
  uint32_t normal = ((uint32_t)magnitude << (23 - man)) + ((uint32_t)(127 - bias) << 23);
  float one_more = ny_f32_of(normal + (1u << 23)) - ny_f32_of((uint32_t)(128 - bias) << 23);
  uint32_t u = ny_blend(magnitude < 1 << man, ny_f32_bits(one_more), normal), sign = (code >> (bits - 1) & 1) << 31;
  if (inf) u = ny_blend(magnitude == top, 0x7f800000, u);
  return ny_f32_of(ny_blend(inf ? magnitude > top : magnitude >= top, 0x7fffffff, u | sign));
}
static inline float ny_widen_f16(uint32_t code) { return ny_widen(code, 16, 10, 15, 0x7c00, true); }
static inline float ny_widen_e4m3(uint32_t code) { return ny_widen(code, 8, 3, 7, 0x7f, false); }
static inline float ny_widen_e5m2(uint32_t code) { return ny_widen(code, 8, 2, 15, 0x7c, true); }
static inline float ny_widen_e2m3(uint32_t code) { return ny_widen(code, 6, 3, 1, 0x20, false); }
static inline float ny_widen_e3m2(uint32_t code) { return ny_widen(code, 6, 2, 3, 0x20, false); }
static inline float ny_widen_e2m1(uint32_t code) { return ny_widen(code, 4, 1, 1, 0x8, false); }
static inline float ny_widen_bf16(uint32_t code) { return ny_f32_of(code << 16); }

/* f32 to bf16 and f16, to nearest even: what nearly every kernel does. */
static inline uint32_t ny_narrow_bf16(float x) {
  uint32_t u = ny_f32_bits(x);
  return (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
static inline uint32_t ny_narrow_f16(float x) {
  uint32_t u = ny_f32_bits(x), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
  /* The last bit of a float in [0.5, 1) is worth 2^-24, as is that of f16's subnormals: the addition rounds. */
  uint32_t small = ny_f32_bits(ny_f32_of(magnitude) + 0.5f) - 0x3f000000;
  uint32_t normal = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  uint32_t code = magnitude < 0x38800000 ? small : magnitude >= 0x477ff000 ? 0x7c00 : normal;
  return magnitude > 0x7f800000 ? 0x7fff : code | sign;
}
#endif
