/* See sim_fidelity.h. A format is its exponent and mantissa widths; a code's value is a formula, and rounding is a
   search for the two codes around a number. Slow and short, nothing of it from the simulator. */
#include <math.h>
#include <string.h>

#include "sim_fidelity.h"

typedef struct format {
  const char *name;
  int exp, man, bias;
  uint64_t max, nan;
  bool inf;
} format;
static const format formats[] = {
    {"f16", 5, 10, 15, 0x7bff, 0x7fff, true},
    {"bf16", 8, 7, 127, 0x7f7f, 0x7fff, true},
    {"tf32", 8, 10, 127, 0x3fbff, 0x3ffff, true},
    {"f32", 8, 23, 127, 0x7f7fffff, 0x7fffffff, true},
    {"f64", 11, 52, 1023, 0x7fefffffffffffff, 0x7ff8000000000000, true},
    {"e4m3", 4, 3, 7, 0x7e, 0x7f, false},
    {"e5m2", 5, 2, 15, 0x7b, 0x7f, true},
    {"e2m3", 2, 3, 1, 0x1f, 0x1f, false},
    {"e3m2", 3, 2, 3, 0x1f, 0x1f, false},
    {"e2m1", 2, 1, 1, 0x7, 0x7, false},
};
static const format *format_of(const char *type) {
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
    if (!strcmp(formats[i].name, type)) return &formats[i];
  return NULL;
}
static uint64_t sign_of(const format *f) { return (uint64_t)1 << (f->exp + f->man); }
/* Goes on past the largest code as if the exponent had no end: ties at the border need the value after it. */
static wide magnitude(const format *f, uint64_t code) {
  uint64_t exp = code >> f->man, man = code & (((uint64_t)1 << f->man) - 1);
  double whole = (double)(exp ? man | (uint64_t)1 << f->man : man);
  int by = (exp ? (int)exp : 1) - f->bias - f->man;
  return by > 960 ? (wide)ldexp(whole, by - 64) * 18446744073709551616.0 : (wide)ldexp(whole, by); /* exact: 53 bits */
}
int ref_bits(const char *type) {
  const format *f = format_of(type);
  if (f) return 1 + f->exp + f->man;
  ny_ptx_type t = ny_ptx_type_by_name(type, strlen(type));
  return t ? ny_ptx_types[t].bits : 0;
}
bool ref_is_float(const char *type) { return format_of(type) != NULL; }
wide ref_value(const char *type, uint64_t code) {
  const format *f = format_of(type);
  bool negative = code & sign_of(f);
  code &= sign_of(f) - 1;
  wide x = code <= f->max ? magnitude(f, code) : f->inf && code == f->max + 1 ? (wide)INFINITY : (wide)NAN;
  return negative ? -x : x;
}
double ref_double(const char *type, uint64_t code) { return (double)ref_value(type, code); }
uint64_t ref_nan(const char *type) { return format_of(type)->nan; }
bool ref_is_nan(const char *type, uint64_t code) {
  wide x = ref_value(type, code);
  return x != x;
}
uint64_t ref_flush(const char *type, uint64_t code) {
  const format *f = format_of(type);
  return code & (sign_of(f) - 1) & ~(((uint64_t)1 << f->man) - 1) ? code : code & sign_of(f);
}

exact exact_sum(wide a, wide b) {
  wide s = a + b, back = s - a, e = (a - (s - back)) + (b - back);
  return (exact){s, e == e ? e : 0};
}
static int compare(exact x, wide v) {
  if (x.hi != v) return x.hi < v ? -1 : 1;
  return x.lo < 0 ? -1 : x.lo > 0;
}
uint64_t ref_round(const char *type, exact x, direction d, bool satfinite) {
  const format *f = format_of(type);
  if (x.hi != x.hi) return f->nan;
  bool negative = signbit((double)x.hi) || (x.hi < 0);
  if (negative) x.hi = -x.hi, x.lo = -x.lo;
  uint64_t sign = negative ? sign_of(f) : 0, low = 0, high = f->max + 1;
  bool saturates = satfinite || !f->inf;
  if (x.hi == (wide)INFINITY) return sign | (saturates ? f->max : f->max + 1);
  while (high - low > 1) { /* value(low) <= x < value(high), or high is past the end */
    uint64_t middle = low + (high - low) / 2;
    if (compare(x, magnitude(f, middle)) >= 0)
      low = middle;
    else
      high = middle;
  }
  bool overflows = low == f->max && compare(x, magnitude(f, f->max + 1)) >= 0;
  uint64_t code = low;
  if (overflows || compare(x, magnitude(f, low)) > 0) {
    int side = overflows ? 1 : compare(x, (magnitude(f, low) + magnitude(f, low + 1)) / 2);
    bool up = d == NEAREST ? side > 0 || (side == 0 && (low & 1))
              : d == AWAY  ? side >= 0
              : d == UP    ? !negative
                           : d == DOWN && negative;
    code = low + up;
  }
  return sign | (code > f->max && saturates ? f->max : code);
}
direction ref_direction(const ref_op *op) {
  if (ref_has(op, "rz")) return ZERO;
  if (ref_has(op, "rm")) return DOWN;
  if (ref_has(op, "rp")) return UP;
  return ref_has(op, "rna") ? AWAY : NEAREST;
}

/* The formulas against the codecs of runtime/base, which stored tensors go through: every code, and what rounds to it.
 */
void test_values(void) {
  static const struct {
    const char *type;
    ny_fmt fmt;
  } pairs[] = {{"f16", NY_f16}, {"bf16", NY_bf16}, {"e4m3", NY_f8e4m3}, {"e5m2", NY_f8e5m2}, {"e2m1", NY_f4e2m1}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    const format *f = format_of(pairs[i].type);
    int bad = 0;
    for (uint64_t code = 0; code < sign_of(f) << 1; code++) {
      uint16_t bits = (uint16_t)code, back = 0;
      double a = ref_double(f->name, code), b = ny_get_f(pairs[i].fmt, &bits, 0);
      bad += isnan(a) ? !isnan(b) : a != b || signbit(a) != signbit(b);
      if (isnan(a) || isinf(a)) continue;
      double next = ref_double(f->name, code + 1), between = isfinite(next) ? a + (next - a) * 0.5 : a;
      const double tries[] = {a, between, nextafter(between, 0), nextafter(between, 1e300), a * 1.03};
      for (int k = 0; k < 5; k++) {
        ny_put_f(pairs[i].fmt, &back, 0, tries[k], true);
        bad += ref_round(f->name, (exact){(wide)tries[k], 0}, NEAREST, true) != (back & ((sign_of(f) << 1) - 1));
      }
    }
    fidelity_check(!bad, "%s: %d codes differ from the codec of tensors", f->name, bad);
  }
}

/* ---- inputs */
uint64_t fidelity_random(void) { /* splitmix64 */
  static uint64_t state = 20250607;
  uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}
static const uint64_t int_special[] = {0,
                                       1,
                                       2,
                                       3,
                                       7,
                                       8,
                                       15,
                                       16,
                                       31,
                                       32,
                                       33,
                                       63,
                                       64,
                                       65,
                                       127,
                                       128,
                                       255,
                                       256,
                                       32767,
                                       32768,
                                       65535,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       0x7fffffffffffffff,
                                       0x8000000000000000,
                                       0xfffffffffffffffe,
                                       0xffffffffffffffff};
enum { INT_SPECIALS = sizeof int_special / sizeof *int_special, FLOAT_SPECIALS = 30 };
static uint64_t float_special(const format *f, uint32_t k) {
  uint64_t one = (uint64_t)f->bias << f->man, step = (uint64_t)1 << f->man;
  const uint64_t list[FLOAT_SPECIALS / 2] = {
      0,        one,  one + 1, one - 1,         one + step,          one + step / 2, 1,
      step - 1, step, f->max,  f->max + f->inf, f->max + 1 + f->inf, one - step,     one + 2 * step + step / 4,
      f->nan};
  uint64_t code = list[k / 2] & (sign_of(f) - 1);
  return k & 1 ? code | sign_of(f) : code;
}
static const format *single(const char *type) { /* the element of a packed type */
  char name[16];
  snprintf(name, sizeof name, "%s", type);
  size_t n = strlen(name);
  if (n > 2 && !strcmp(name + n - 2, "x2")) name[n - 2] = 0;
  return format_of(name);
}
uint32_t fidelity_specials(const char *type) { return single(type) ? FLOAT_SPECIALS : INT_SPECIALS; }
uint64_t fidelity_value(const char *type, uint32_t k) {
  const format *f = single(type);
  uint64_t r = fidelity_random();
  if (!f) return k < INT_SPECIALS ? int_special[k] : r >> (r >> 3 & 7) * 8;
  int bits = 1 + f->exp + f->man, all = ref_bits(type);
  uint64_t x = 0;
  for (int at = 0; at < all; at += bits) {
    uint64_t code = k < FLOAT_SPECIALS ? float_special(f, at ? (uint32_t)(fidelity_random() % FLOAT_SPECIALS) : k)
                                       : fidelity_random() & ((sign_of(f) << 1) - 1);
    /* Half of the random ones near 1, where sums and products round without leaving the range. */
    if (k >= FLOAT_SPECIALS && r >> at % 32 & 1) {
      uint64_t span = f->exp > 4 ? 8 : 2, exp = (uint64_t)f->bias - span / 2 + fidelity_random() % span;
      code = (code & (sign_of(f) | (((uint64_t)1 << f->man) - 1))) | exp << f->man;
    }
    x |= code << at;
  }
  return x;
}
