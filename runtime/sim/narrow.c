/* One pair of integer routines for every format, driven by the rows of narrow.h. */
#include "narrow.h"
#include <math.h>

typedef struct layout {
  uint8_t exp, man;
  int16_t bias;
  uint32_t max, nan;
  bool inf;
} layout;
static const layout layouts[NY_N_NARROW] = {
#define ROW(name, exp, man, bias, max, nan, inf) {exp, man, bias, max, nan, inf},
    NY_NARROWS(ROW)
#undef ROW
};

static uint32_t sign_bit(const layout *l) { return 1u << (l->exp + l->man); }

static uint32_t overflow(const layout *l, bool negative, ny_round r, bool satfinite) {
  bool stays = r == NY_ROUND_Z || (r == NY_ROUND_M && !negative) || (r == NY_ROUND_P && negative);
  return (satfinite || !l->inf || stays ? l->max : l->max + 1) | (negative ? sign_bit(l) : 0);
}

static bool rounds_up(ny_round r, bool negative, uint64_t kept, uint64_t rest, uint64_t half) {
  switch (r) {
  case NY_ROUND_N: return rest > half || (rest == half && (kept & 1));
  case NY_ROUND_NA: return rest >= half;
  case NY_ROUND_M: return negative && rest;
  case NY_ROUND_P: return !negative && rest;
  default: return false;
  }
}

uint32_t ny_narrow_encode(ny_narrow f, double x, ny_round r, bool satfinite) {
  const layout *l = &layouts[f];
  uint64_t u = ny_f64_bits(x), man = u & 0xfffffffffffffu;
  bool negative = u >> 63;
  int exp = (int)(u >> 52 & 0x7ff);
  if (exp == 0x7ff) {
    if (man) return l->nan;
    return (satfinite || !l->inf ? l->max : l->max + 1) | (negative ? sign_bit(l) : 0);
  }
  if (exp)
    man |= (uint64_t)1 << 52;
  else
    exp = 1;
  exp -= 1023;
  /* Below the smallest normal exponent the quantum stays: those codes are the subnormals. */
  int lowest = 1 - l->bias, base = exp < lowest ? lowest : exp, drop = 52 - l->man + (base - exp);
  bool gone = drop > 54; /* all of it is less than half a quantum */
  uint64_t half = (uint64_t)1 << (gone ? 1 : drop - 1);
  uint64_t kept = gone ? 0 : man >> drop, rest = gone ? man != 0 : man & ((half << 1) - 1);
  /* The implicit bit of `kept` adds one to the exponent field, and so does a carry out of rounding. */
  uint64_t code = ((uint64_t)(base - lowest) << l->man) + kept;
  if (rounds_up(r, negative, kept, rest, half)) code++;
  if (code > l->max) return overflow(l, negative, r, satfinite);
  return (uint32_t)code | (negative ? sign_bit(l) : 0);
}

double ny_narrow_decode(ny_narrow f, uint32_t code) {
  const layout *l = &layouts[f];
  uint32_t magnitude = code & (sign_bit(l) - 1), exp = magnitude >> l->man, man = magnitude & ((1u << l->man) - 1);
  bool negative = code & sign_bit(l);
  if (l->inf && magnitude == l->max + 1) return negative ? -INFINITY : INFINITY;
  if (magnitude > l->max) return NAN;
  double x = ldexp(exp ? man | 1u << l->man : man, (exp ? (int)exp : 1) - l->bias - l->man);
  return negative ? -x : x;
}

uint32_t ny_narrow_relu(ny_narrow f, uint32_t code) {
  const layout *l = &layouts[f];
  if ((code & (sign_bit(l) - 1)) > l->max + l->inf) return l->nan;
  return code & sign_bit(l) ? 0 : code;
}

uint32_t ny_ue8m0_encode(double x, ny_round r, bool satfinite) {
  if (isnan(x)) return 0xff;
  if (isinf(x)) return satfinite ? 0xfe : 0xff;
  if (x == 0) return 0;
  int e;
  double m = frexp(fabs(x), &e); /* |x| = m * 2^e, m in [0.5, 1) */
  int code = e - 1 + 127 + (r == NY_ROUND_P && m != 0.5);
  if (code > 0xfe) return satfinite ? 0xfe : 0xff;
  return code < 0 ? 0 : (uint32_t)code;
}

double ny_ue8m0_decode(uint32_t code) { return code == 0xff ? (double)NAN : ldexp(1, (int)code - 127); }

double ny_add_odd(double a, double b) {
  double s = a + b, back = s - a, error = (a - (s - back)) + (b - back); /* exact: Knuth's two-sum */
  uint64_t u = ny_f64_bits(s);
  if (!(error != 0) || (u & 1) || isinf(s)) return s; /* a NaN error: an operand was infinite or NaN */
  /* s is the neighbour of the sum with an even last bit; the odd one lies on the error's side. */
  return ny_f64_of((error > 0) == (s > 0) ? u + 1 : u - 1);
}
