/* Number formats: exact decoding, and encoding with one rounding to nearest even. Every narrow float is described by a
   row (exponent and mantissa bits, bias, what its top codes mean) and goes through one pair of integer routines; f64
   and f32 have a path of their own because nearly all tensors are those. */
#include "base.h"
#include <assert.h>
#include <math.h>
#include <string.h>

typedef enum specials {
  IEEE,      /* top exponent: inf and NaNs */
  TOP_NAN,   /* no inf; all ones is NaN */
  MINUS_NAN, /* no inf, no -0; its code is NaN */
  NO_SIGN,   /* powers of two only; all ones is NaN */
  NONE       /* every code is a number */
} specials;
typedef struct layout {
  uint8_t exp, man, bits;
  int16_t bias;
  specials special;
  uint16_t max; /* code of the largest finite value */
  uint16_t nan; /* code of the NaN (positive where there are two) */
} layout;

static const layout layouts[NY_N_FMT] = {
    [NY_f16] = {5, 10, 16, 15, IEEE, 0x7bff, 0x7e00},  [NY_bf16] = {8, 7, 16, 127, IEEE, 0x7f7f, 0x7fc0},
    [NY_f8e4m3] = {4, 3, 8, 7, TOP_NAN, 0x7e, 0x7f},   [NY_f8e4m3fnuz] = {4, 3, 8, 8, MINUS_NAN, 0x7f, 0x80},
    [NY_f8e5m2] = {5, 2, 8, 15, IEEE, 0x7b, 0x7e},     [NY_f8e5m2fnuz] = {5, 2, 8, 16, MINUS_NAN, 0x7f, 0x80},
    [NY_f8e8m0] = {8, 0, 8, 127, NO_SIGN, 0xfe, 0xff}, [NY_f4e2m1] = {2, 1, 4, 1, NONE, 7, 0},
};

static uint64_t bits_of(double x) {
  uint64_t u;
  memcpy(&u, &x, 8);
  return u;
}

static double double_of(uint64_t u) {
  double x;
  memcpy(&x, &u, 8);
  return x;
}

static double power_of_two(int e) { return double_of((uint64_t)(e + 1023) << 52); } /* -1022 <= e <= 1023 */

/* ---- decoding */
static double decode(const layout *l, unsigned code) {
  if (l->special == NO_SIGN) return code == l->nan ? (double)NAN : power_of_two((int)code - l->bias);
  unsigned sign = code >> (l->bits - 1), magnitude = code & ((1u << (l->bits - 1)) - 1);
  unsigned exp = magnitude >> l->man, man = magnitude & ((1u << l->man) - 1);
  if (l->special == MINUS_NAN && code == l->nan) return (double)NAN;
  if (magnitude > l->max) {
    bool inf = l->special == IEEE && !man;
    return double_of((uint64_t)sign << 63 | (inf ? 0x7ff0000000000000u : 0x7ff8000000000000u));
  }
  double x = (double)(exp ? man | 1u << l->man : man) * power_of_two((exp ? (int)exp : 1) - l->bias - l->man);
  return sign ? -x : x;
}

/* ---- encoding */
static unsigned special_code(const layout *l, bool negative, bool nan, bool saturate) {
  unsigned sign = negative && l->special != NO_SIGN ? 1u << (l->bits - 1) : 0;
  if (nan) {
    if (l->special == NONE) return (1u << (l->bits - 1)) ^ sign; /* no NaN here: a zero, as other libraries have it */
    return l->special == IEEE || l->special == TOP_NAN ? sign | l->nan : l->nan;
  }
  if (negative && l->special == NO_SIGN) return l->nan;
  if (saturate || l->special == NONE) return sign | l->max;
  if (l->special == IEEE) return sign | (((1u << l->exp) - 1) << l->man);
  return l->special == TOP_NAN ? sign | l->nan : l->nan;
}

static unsigned encode(const layout *l, double x, bool saturate) {
  uint64_t u = bits_of(x);
  bool negative = u >> 63;
  int exp = (int)(u >> 52 & 0x7ff);
  uint64_t man = u & 0xfffffffffffffu;
  if (exp == 0x7ff) return special_code(l, negative, man != 0, saturate);
  if (l->special == NO_SIGN) {
    if (negative && (exp || man)) return l->nan;
    if (!exp && !man) return saturate ? 0 : l->nan;
  }
  if (exp)
    man |= (uint64_t)1 << 52;
  else
    exp = 1;
  exp -= 1023;
  /* Below the smallest normal exponent the quantum stays: those codes are the subnormals (e8m0: its lowest power of
   * two). */
  int lowest = l->special == NO_SIGN ? -l->bias : 1 - l->bias, base = exp < lowest ? lowest : exp;
  int drop = 52 - l->man + (base - exp);
  uint64_t kept = drop < 64 ? man >> drop : 0, rest = drop < 64 ? man & (((uint64_t)1 << drop) - 1) : 1;
  uint64_t half = drop <= 64 ? (uint64_t)1 << (drop - 1) : 0;
  /* The implicit bit of `kept` adds one to the exponent field, and so does a carry out of rounding. */
  uint64_t code = ((uint64_t)(base - lowest) << l->man) + kept;
  if (l->special == NO_SIGN) {
    if (!kept) return 0;
    code--;
  }
  if (half && (rest > half || (rest == half && (kept & 1)))) code++;
  if (code > l->max) return special_code(l, negative, false, saturate);
  if (l->special == NO_SIGN || (l->special == MINUS_NAN && !code)) return (unsigned)code;
  return (unsigned)code | (negative ? 1u << (l->bits - 1) : 0);
}

/* ---- packed storage */
static unsigned load_code(const ny_fmt_info *i, const void *p, uint64_t at) {
  const uint8_t *b = p;
  if (i->bits == 8) return b[at];
  if (i->bits == 16) return b[2 * at] | (unsigned)b[2 * at + 1] << 8;
  unsigned per = 8u / i->bits;
  return b[at / per] >> at % per * i->bits & ((1u << i->bits) - 1);
}

static void store_code(const ny_fmt_info *i, void *p, uint64_t at, unsigned code) {
  uint8_t *b = p;
  if (i->bits == 8) {
    b[at] = (uint8_t)code;
  } else if (i->bits == 16) {
    b[2 * at] = (uint8_t)code;
    b[2 * at + 1] = (uint8_t)(code >> 8);
  } else {
    unsigned per = 8u / i->bits, shift = (unsigned)(at % per) * i->bits, mask = ((1u << i->bits) - 1) << shift;
    b[at / per] = (uint8_t)((b[at / per] & ~mask) | (code << shift & mask));
  }
}

double ny_get_f(ny_fmt f, const void *p, uint64_t i) {
  float x;
  double y;
  switch (f) {
  case NY_f32: return memcpy(&x, (const char *)p + 4 * i, 4), (double)x;
  case NY_f64: return memcpy(&y, (const char *)p + 8 * i, 8), y;
  default: break;
  }
  assert(layouts[f].bits);
  return decode(&layouts[f], load_code(&ny_fmts[f], p, i));
}

void ny_put_f(ny_fmt f, void *p, uint64_t i, double x, bool saturate) {
  if (f == NY_f64) {
    memcpy((char *)p + 8 * i, &x, 8);
  } else if (f == NY_f32) {
    float y = (float)x;
    if (saturate && isinf(y)) y = copysignf(3.40282346638528859812e38f, y);
    memcpy((char *)p + 4 * i, &y, 4);
  } else {
    assert(layouts[f].bits);
    store_code(&ny_fmts[f], p, i, encode(&layouts[f], x, saturate));
  }
}

double ny_round_to(ny_fmt f, double x) {
  if (f == NY_f64) return x;
  if (f == NY_f32) return (double)(float)x;
  assert(layouts[f].bits);
  return decode(&layouts[f], encode(&layouts[f], x, false));
}

int64_t ny_wrap_to(ny_fmt f, int64_t x) {
  const ny_fmt_info *i = &ny_fmts[f];
  if (i->kind == 'B') return x != 0;
  assert(i->kind == 'I' || i->kind == 'U');
  if (i->bits == 64) return x;
  uint64_t low = (uint64_t)x & (((uint64_t)1 << i->bits) - 1), top = (uint64_t)1 << (i->bits - 1);
  return i->kind == 'U' ? (int64_t)low : (int64_t)(low ^ top) - (int64_t)top;
}

int64_t ny_get_i(ny_fmt f, const void *p, uint64_t i) {
  const ny_fmt_info *info = &ny_fmts[f];
  if (info->bits == 64) {
    int64_t x;
    memcpy(&x, (const char *)p + 8 * i, 8);
    return x;
  }
  if (info->bits == 32) {
    uint32_t x;
    memcpy(&x, (const char *)p + 4 * i, 4);
    return info->kind == 'U' ? (int64_t)x : (int64_t)(int32_t)x;
  }
  return ny_wrap_to(f, (int64_t)load_code(info, p, i));
}

void ny_put_i(ny_fmt f, void *p, uint64_t i, int64_t x) {
  const ny_fmt_info *info = &ny_fmts[f];
  assert(info->kind == 'I' || info->kind == 'U' || info->kind == 'B');
  if (info->bits == 64)
    memcpy((char *)p + 8 * i, &x, 8);
  else if (info->bits == 32)
    memcpy((char *)p + 4 * i, &(uint32_t){(uint32_t)x}, 4);
  else
    store_code(info, p, i, info->kind == 'B' ? x != 0 : (unsigned)((uint64_t)x & ((1u << info->bits) - 1)));
}
