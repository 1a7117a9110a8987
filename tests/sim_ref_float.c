/* References of f32 and f64 arithmetic: exact sums and products rounded by search; quotients and roots rounded by
   comparing what they would have been the quotient or root of. Approximations are compared with libm within the error
   that the PTX ISA states for them. */
#include <math.h>
#include <string.h>

#include "sim_fidelity.h"

static bool is(const ref_op *op, const char *name) { return !strcmp(op->word[0], name); }
static uint64_t in_of(const ref_op *op, const char *type, uint64_t code) {
  return ref_has(op, "ftz") ? ref_flush(type, code) : code;
}
static uint64_t finish(const ref_op *op, const char *type, uint64_t code) {
  if (ref_has(op, "ftz")) code = ref_flush(type, code);
  if (!ref_has(op, "sat")) return code;
  wide x = ref_value(type, code);
  return !(x > 0) ? 0 : x > 1 ? ref_round(type, (exact){1, 0}, NEAREST, false) : code;
}
static bool modes(const ref_op *op) {
  return ref_has(op, "rn") || ref_has(op, "rz") || ref_has(op, "rm") || ref_has(op, "rp");
}

/* A quotient to 113 bits and, as its low part, the sign of what is left: more than two times 53 bits are enough to tell
   where a quotient lies between two codes and their middle. */
static exact quotient(wide a, wide b) {
  wide q = a / b;
  if (q - q != 0 || q == 0) return (exact){q, 0};
  /* Half of q's bits at a time make the products exact. */
  wide big = q * (((wide)1) * 144115188075855873.0), high = big - (big - q), low = q - high; /* 2^57 + 1 */
  wide left = (a - high * b) - low * b, side = (left < 0) != (b < 0) ? -1 : 1;
  return (exact){q, left == 0 ? 0 : side * (q < 0 ? -q : q) * (wide)0x1p-116};
}
static exact root(wide a) {
  if (!(a > 0) || a - a != 0) return (exact){a < 0 ? (wide)NAN : a, 0};
  int e = 0;
  wide m = a;
  for (; m >= 4; m /= 4) e++;
  for (; m < 1; m *= 4) e--;
  wide s = (wide)sqrt((double)m);
  for (int i = 0; i < 3; i++) s = (s + m / s) / 2;
  /* Codes have at most 53 bits and a root of one is never close to a middle unless it is exact. */
  wide near = (wide)(double)s;
  if (near * near == m) s = near;
  for (; e > 0; e--) s *= 2;
  for (; e < 0; e++) s /= 2;
  return (exact){s, 0};
}
static ref_status arithmetic(const ref_op *op, ref_io *io) {
  const char *t = op->type;
  bool f64 = !strcmp(t, "f64");
  if (f64 && (ref_has(op, "ftz") || ref_has(op, "sat"))) return REF_UNKNOWN;
  if ((is(op, "fma") || is(op, "mad") || is(op, "div") || is(op, "sqrt") || is(op, "rcp")) && !modes(op))
    return REF_UNKNOWN;
  if ((is(op, "sqrt") || is(op, "rcp")) && ref_has(op, "sat")) return REF_UNKNOWN;
  wide a = ref_value(t, in_of(op, t, io->in[0])), b = ref_value(t, in_of(op, t, io->in[1])),
       c = ref_value(t, in_of(op, t, io->in[2]));
  direction d = ref_direction(op);
  exact r;
  if (is(op, "add"))
    r = exact_sum(a, b);
  else if (is(op, "sub"))
    r = exact_sum(a, -b);
  else if (is(op, "mul"))
    r = (exact){a * b, 0};
  else if (is(op, "div"))
    r = quotient(a, b);
  else if (is(op, "rcp"))
    r = quotient(1, a);
  else if (is(op, "sqrt"))
    r = root(a);
  else
    r = exact_sum(a * b, c);
  uint64_t code = ref_round(t, r, d, false);
  /* An exact zero sum of two numbers that are not zero is -0 when rounding down. */
  bool sum = is(op, "add") || is(op, "sub") || is(op, "fma") || is(op, "mad");
  if (sum && r.hi == 0 && d == DOWN) {
    wide x = is(op, "add") || is(op, "sub") ? a : a * b, y = is(op, "add") ? b : is(op, "sub") ? -b : c;
    if (x != 0 || signbit((double)x) != signbit((double)y)) code = ref_round(t, (exact){-(wide)0.0, 0}, NEAREST, false);
  }
  if (is(op, "sqrt") && a == 0) code = in_of(op, t, io->in[0]);
  io->out[0] = finish(op, t, code);
  return REF_OK;
}
static ref_status signs(const ref_op *op, ref_io *io) {
  const char *t = op->type;
  uint64_t top = (uint64_t)1 << (ref_bits(t) - 1), a = in_of(op, t, io->in[0]), b = io->in[1];
  if (is(op, "copysign")) {
    io->out[0] = (a & top) | (b & ~top); /* the sign of the first on the second */
    return REF_OK;
  }
  if (ref_is_nan(t, a)) return REF_SKIP;
  io->out[0] = is(op, "neg") ? a ^ top : a & ~top;
  return REF_OK;
}
static uint64_t extreme(const ref_op *op, uint64_t a, uint64_t b) {
  const char *t = op->type;
  bool max = is(op, "max"), na = ref_is_nan(t, a), nb = ref_is_nan(t, b);
  if ((na && nb) || (ref_has(op, "NaN") && (na || nb))) return ref_nan(t);
  wide x = ref_value(t, a), y = ref_value(t, b);
  if (na || nb) return na ? b : a;
  if (x == y) return max ? a & b : a | b; /* equal but for the sign of zero */
  return (x < y) != max ? a : b;
}
static ref_status minmax(const ref_op *op, ref_io *io) {
  const char *t = op->type;
  if (ref_has(op, "xorsign") != ref_has(op, "abs")) return REF_UNKNOWN;
  uint64_t a = in_of(op, t, io->in[0]), b = in_of(op, t, io->in[1]), top = (uint64_t)1 << (ref_bits(t) - 1);
  bool three = op->n_in == 3;
  uint64_t c = in_of(op, t, io->in[2]), sign = (a ^ b ^ (three ? c : 0)) & top;
  if (ref_has(op, "xorsign")) {
    if (ref_is_nan(t, a) || ref_is_nan(t, b) || (three && ref_is_nan(t, c))) return REF_SKIP;
    a &= ~top, b &= ~top, c &= ~top;
  }
  uint64_t r = extreme(op, a, b);
  if (three) r = extreme(op, r, c);
  io->out[0] = ref_has(op, "xorsign") ? (r & ~top) | sign : r;
  return REF_OK;
}
static ref_status approximate(const ref_op *op, ref_io *io) {
  const char *t = op->type;
  uint64_t in = in_of(op, t, io->in[0]);
  if (!ref_has(op, "approx") && !ref_has(op, "full")) return REF_UNKNOWN;
  double x = ref_double(t, in), y = ref_double(t, in_of(op, t, io->in[1])), r;
  if (is(op, "div")) {
    if (ref_has(op, "sat")) return REF_UNKNOWN;
    if (fabs(y) > 0x1p126 || fabs(y) < 0x1p-126) return REF_SKIP; /* its stated range */
    r = x / y;
    if (isnan(r)) return REF_SKIP;
  } else if (is(op, "sin") || is(op, "cos")) {
    if (!(fabs(x) <= 2 * 3.14159)) return REF_SKIP; /* the stated range */
    r = is(op, "sin") ? sin(x) : cos(x);
  } else {
    r = is(op, "rcp")     ? 1 / x
        : is(op, "sqrt")  ? sqrt(x)
        : is(op, "rsqrt") ? 1 / sqrt(x)
        : is(op, "ex2")   ? exp2(x)
        : is(op, "lg2")   ? log2(x)
                          : tanh(x);
  }
  if (!strcmp(t, "f64")) { /* the high half alone counts */
    if (fabs(x) < 0x1p-1000 || fabs(x) > 0x1p1000) return REF_SKIP;
    io->out[0] = ref_round(t, (exact){(wide)r, 0}, NEAREST, false);
    return REF_OK;
  }
  io->out[0] = finish(op, t, ref_round(t, (exact){(wide)r, 0}, NEAREST, false));
  return REF_OK;
}
static ref_status arithmetic_or_not(const ref_op *op, ref_io *io) {
  return ref_has(op, "approx") || ref_has(op, "full") ? REF_UNKNOWN : arithmetic(op, io);
}

/* ---- comparisons */
static bool holds(const char *c, wide x, wide y) {
  bool unordered = x != x || y != y;
  if (!strcmp(c, "num")) return !unordered;
  if (!strcmp(c, "nan")) return unordered;
  if (unordered) return c[2] == 'u';
  if (!strncmp(c, "eq", 2)) return x == y;
  if (!strncmp(c, "ne", 2)) return x != y;
  if (!strncmp(c, "lt", 2)) return x < y;
  if (!strncmp(c, "le", 2)) return x <= y;
  return !strncmp(c, "gt", 2) ? x > y : x >= y;
}
static ref_status compare(const ref_op *op, ref_io *io) {
  const char *c = op->word[1], *t = op->type;
  if (!strcmp(c, "lo") || !strcmp(c, "ls") || !strcmp(c, "hi") || !strcmp(c, "hs")) return REF_UNKNOWN;
  if (ref_has(op, "ftz") && strcmp(t, "f32")) return REF_UNKNOWN;
  bool r = holds(c, ref_value(t, in_of(op, t, io->in[0])), ref_value(t, in_of(op, t, io->in[1])));
  bool p = (uint32_t)io->in[2] != 0, n = !r;
  if (ref_has(op, "and")) r = r && p, n = n && p;
  if (ref_has(op, "or")) r = r || p, n = n || p;
  if (ref_has(op, "xor")) r = r != p, n = n != p;
  io->out[0] = r;
  io->out[1] = n;
  if (is(op, "set")) io->out[0] = !r ? 0 : !strcmp(op->type2, "f32") ? 0x3f800000 : 0xffffffff;
  return REF_OK;
}
static ref_status test(const ref_op *op, ref_io *io) {
  const char *t = op->type, *what = op->word[1];
  uint64_t a = io->in[0];
  wide x = ref_value(t, a);
  bool nan = x != x, inf = !nan && x - x != 0, sub = x != 0 && ref_flush(t, a) != a;
  io->out[0] = !strcmp(what, "finite")       ? !nan && !inf
               : !strcmp(what, "infinite")   ? inf
               : !strcmp(what, "number")     ? !nan
               : !strcmp(what, "notanumber") ? nan
               : !strcmp(what, "normal")     ? !nan && !inf && !sub
                                             : sub;
  return REF_OK;
}

/* ---- two f32 in one register */
static ref_status both(const ref_op *op, ref_io *io) {
  ref_op one = *op;
  one.type = "f32";
  ref_status s = REF_OK;
  io->out[0] = 0;
  for (int h = 0; h < 2 && s == REF_OK; h++) {
    ref_io half = {
        {io->in[0] >> 32 * h & 0xffffffff, io->in[1] >> 32 * h & 0xffffffff, io->in[2] >> 32 * h & 0xffffffff}, {0}};
    s = arithmetic(&one, &half);
    io->out[0] |= half.out[0] << 32 * h;
  }
  return s;
}

const ref_entry ref_float[] = {
    {"add|sub|mul|fma|mad", " f32 f64 ", arithmetic_or_not, 0, 0},
    {"neg|abs|copysign", " f32 f64 ", signs, 0, 0},
    {"min|max", " f32 f64 ", minmax, 0, 0},
    {"setp|set", " f32 f64 ", compare, 0, 0},
    {"testp", NULL, test, 0, 0},
    {"add|sub|mul|fma", " f32x2 ", both, 0, 0},
    {"div|rcp|sqrt", " f32 f64 ", arithmetic_or_not, 0, 0},
    {"div", " f32 ", approximate, 0x1p-21, 0x1p-126},
    {"rcp|sqrt|rsqrt", " f32 ", approximate, 0x1p-22, 0x1p-126},
    {"rcp|rsqrt", " f64 ", approximate, 0x1p-19, 0},
    {"ex2", " f32 ", approximate, 0x1p-21, 0x1p-126},
    {"lg2", " f32 ", approximate, 0x1p-21, 0x1p-21},
    {"sin|cos", " f32 ", approximate, 0, 0x1p-20},
    {"tanh", " f32 ", approximate, 0x1p-10, 0x1p-126},
    {0},
};
