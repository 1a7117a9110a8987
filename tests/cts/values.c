/* Tensors in every format that crosses the API. Elements are made and read bit by bit, so that no conversion of the
   library under test has a say in what is right. */
#include "cts.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct format {
  uint8_t code, bits, exponent, mantissa;
  int bias;
  bool sign, ieee; /* ieee: all ones in the exponent are infinities and NaN */
  uint64_t nan;    /* where it is one code: without the sign bit, or with it where that is part of the code */
} format;
static const format floats[] = {
    {NYB_FLOAT, 64, 11, 52, 1023, true, true, 0},
    {NYB_FLOAT, 32, 8, 23, 127, true, true, 0},
    {NYB_FLOAT, 16, 5, 10, 15, true, true, 0},
    {NYB_BFLOAT, 16, 8, 7, 127, true, true, 0},
    {NYB_FLOAT8_E4M3FN, 8, 4, 3, 7, true, false, 0x7f},
    {NYB_FLOAT8_E4M3FNUZ, 8, 4, 3, 8, true, false, 0x80},
    {NYB_FLOAT8_E5M2, 8, 5, 2, 15, true, true, 0},
    {NYB_FLOAT8_E5M2FNUZ, 8, 5, 2, 16, true, false, 0x80},
    {NYB_FLOAT8_E8M0FNU, 8, 8, 0, 127, false, false, 0xff},
    {NYB_FLOAT4_E2M1FN, 4, 2, 1, 1, true, false, 0x10},
};

static const format *float_format(nyb_dtype t) {
  for (size_t i = 0; i < COUNT(floats); i++)
    if (floats[i].code == t.code && floats[i].bits == t.bits) return &floats[i];
  return NULL;
}

bool cts_known(nyb_dtype t) {
  if (t.lanes != 1) return false;
  if (t.code == NYB_BOOL) return t.bits == 8;
  if (t.code <= NYB_UINT) return t.bits >= 2 && t.bits <= 64 && !(t.bits & (t.bits - 1));
  return float_format(t) != NULL;
}

/* ---- bits */
static uint64_t get(const void *p, int bits, uint64_t i) {
  uint64_t x = 0;
  if (bits < 8) return (((const uint8_t *)p)[i * (unsigned)bits / 8] >> (i * (unsigned)bits % 8)) & ((1u << bits) - 1);
  memcpy(&x, (const char *)p + i * (unsigned)bits / 8, (size_t)bits / 8);
  return x;
}

static void put(void *p, int bits, uint64_t i, uint64_t x) {
  if (bits >= 8) {
    memcpy((char *)p + i * (unsigned)bits / 8, &x, (size_t)bits / 8);
    return;
  }
  uint8_t *at = (uint8_t *)p + i * (unsigned)bits / 8, low = (uint8_t)(i * (unsigned)bits % 8);
  uint8_t mask = (uint8_t)(((1u << bits) - 1) << low);
  *at = (uint8_t)((*at & ~mask) | ((unsigned)(x << low) & mask));
}

static double decode(const format *f, uint64_t x) {
  uint64_t field = (x >> f->mantissa) & ((UINT64_C(1) << f->exponent) - 1),
           fraction = x & ((UINT64_C(1) << f->mantissa) - 1);
  bool negative = f->sign && (x >> (f->bits - 1) & 1);
  double sign = negative ? -1 : 1, one = ldexp(1, -f->mantissa);
  if (f->ieee && field == (UINT64_C(1) << f->exponent) - 1) return fraction ? (double)NAN : sign * (double)INFINITY;
  if (!f->ieee && (x == f->nan || (f->nan == 0x7f && (x & 0x7f) == 0x7f))) return (double)NAN;
  if (!field && f->mantissa) return sign * ldexp((double)fraction * one, 1 - f->bias);
  return sign * ldexp(1 + (double)fraction * one, (int)field - f->bias);
}

static int64_t decode_integer(nyb_dtype t, uint64_t x) {
  int unused = 64 - t.bits;
  return t.code == NYB_INT ? (int64_t)(x << unused) >> unused : (int64_t)x;
}

/* ---- tensors */
static uint64_t count(const int64_t *shape, int32_t ndim) {
  uint64_t n = 1;
  for (int32_t k = 0; k < ndim; k++) n *= (uint64_t)shape[k];
  return n;
}

uint64_t cts_bytes(nyb_dtype t, const int64_t *shape, int32_t ndim) { return (count(shape, ndim) * t.bits + 7) / 8; }

void cts_value_make(cts_value *v, nyb_dtype t, int32_t ndim, const int64_t *shape, size_t shift) {
  *v = (cts_value){.t = {.device = {1, 0}, .ndim = ndim, .dtype = t}};
  for (int32_t k = 0; k < ndim; k++) v->shape[k] = shape[k];
  v->bytes = cts_bytes(t, shape, ndim);
  v->t.byte_offset = shift;
  v->t.data = aligned_alloc(64, (v->bytes + shift + CTS_GUARD + 63) & ~(size_t)63);
  if (!v->t.data) abort();
  memset(v->t.data, 0xa5, v->bytes + shift + CTS_GUARD);
}

void cts_value_free(cts_value *v) {
  free(v->t.data);
  *v = (cts_value){0};
}

bool cts_value_guarded(const cts_value *v) {
  const uint8_t *p = v->t.data;
  for (size_t i = 0; i < v->t.byte_offset; i++)
    if (p[i] != 0xa5) return false;
  for (size_t i = 0; i < CTS_GUARD; i++)
    if (p[v->t.byte_offset + v->bytes + i] != 0xa5) return false;
  return true;
}

/* ---- numbers. Philox and its like are under test themselves: a multiplicative generator will do. */
static uint64_t next(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  uint64_t x = *state ^ (*state >> 33);
  return x * UINT64_C(0xff51afd7ed558ccd) >> 16;
}

static uint64_t special_number(const format *f, uint64_t r) {
  uint64_t inf = ((UINT64_C(1) << f->exponent) - 1) << f->mantissa, sign = UINT64_C(1) << (f->bits - 1);
  uint64_t one = (uint64_t)f->bias << f->mantissa;
  const uint64_t row[] = {0,       sign,          inf,     inf | sign, inf | (UINT64_C(1) << (f->mantissa - 1)),
                          1,       sign | 1,      inf - 1, one,        one | sign,
                          one + 1, one | sign | 1};
  return row[r % COUNT(row)];
}

/* From an eighth to nearly four, of both signs. */
static uint64_t float_number(const format *f, uint64_t r, bool special) {
  uint64_t low = f->bias > 3 ? (uint64_t)f->bias - 3 : 0, high = (uint64_t)f->bias + 1;
  uint64_t x = (low + (r >> 4) % (high - low + 1)) << f->mantissa;
  if (special && f->ieee && r % 3 == 0) return special_number(f, r >> 4);
  if (r % 16 == 0) return 0;
  x |= (r >> 9) * 0x9e3779b97f4a7c15 >> (64 - f->mantissa - 1) >> 1;
  return x | (f->sign && r >> 2 & 1 ? UINT64_C(1) << (f->bits - 1) : 0);
}

void cts_value_fill(cts_value *v, uint64_t seed, bool special) {
  nyb_dtype t = v->t.dtype;
  const format *f = float_format(t);
  uint64_t state = seed * 0x9e3779b97f4a7c15 + 12345, n = count(v->shape, v->t.ndim);
  char *p = (char *)v->t.data + v->t.byte_offset;
  if (v->bytes) p[v->bytes - 1] = 0; /* the unused bits of the last byte */
  for (uint64_t i = 0; i < n; i++) {
    uint64_t r = next(&state);
    uint64_t whole = t.code == NYB_BOOL ? r & 1 : t.code == NYB_UINT ? r % 19 : (uint64_t)((int64_t)(r % 19) - 9);
    put(p, t.bits, i, f ? float_number(f, r, special) : whole);
  }
}

/* ---- comparing. A float may be 64 units in the last place off where it has many digits, one where it has few; sums
   that cancel are held to the largest result of the tensor. */
static bool near(const format *f, double got, double want, double scale) {
  if (got != got || want != want) return got != got && want != want;
  if (got == want) return true;
  double unit = ldexp(f->mantissa > 20 ? 64 : 1, -f->mantissa);
  return fabs(got - want) <= unit * (fabs(want) + scale / 4);
}

static double largest(const format *f, const void *p, uint64_t n) {
  double most = 0;
  for (uint64_t i = 0; i < n; i++) {
    double x = fabs(decode(f, get(p, f->bits, i)));
    if (isfinite(x) && x > most) most = x;
  }
  return most;
}

static bool same_shape(const nyb_tensor *got, const cts_value *want, const char *what) {
  const nyb_tensor *w = &want->t;
  if (!CHECK(got->dtype.code == w->dtype.code && got->dtype.bits == w->dtype.bits && got->dtype.lanes == 1,
             "%s: format %d/%d instead of %d/%d", what, got->dtype.code, got->dtype.bits, w->dtype.code, w->dtype.bits))
    return false;
  if (!CHECK(got->ndim == w->ndim, "%s: rank %d instead of %d", what, got->ndim, w->ndim)) return false;
  for (int32_t k = 0; k < w->ndim; k++)
    if (!CHECK(got->shape[k] == want->shape[k], "%s: dimension %d is %lld instead of %lld", what, k,
               (long long)got->shape[k], (long long)want->shape[k]))
      return false;
  return true;
}

static bool same_element(const format *f, nyb_dtype t, uint64_t g, uint64_t w, bool exact, double scale) {
  if (g == w) return true;
  if (!f) return false;
  double x = decode(f, g), y = decode(f, w);
  if (x != x && y != y && t.code != NYB_FLOAT8_E8M0FNU) return true; /* NaN is NaN */
  return !exact && near(f, x, y, scale);
}

bool cts_value_same(const nyb_tensor *got, const cts_value *want, bool exact, const char *what) {
  if (!same_shape(got, want, what)) return false;
  nyb_dtype t = want->t.dtype;
  const format *f = float_format(t);
  uint64_t n = count(want->shape, want->t.ndim), bad = 0, first = 0;
  const char *g = (const char *)got->data + got->byte_offset, *w = (const char *)want->t.data + want->t.byte_offset;
  double scale = f ? largest(f, w, n) : 0;
  for (uint64_t i = 0; i < n; i++)
    if (!same_element(f, t, get(g, t.bits, i), get(w, t.bits, i), exact, scale) && !bad++) first = i;
  if (!bad) return true;
  uint64_t a = get(g, t.bits, first), b = get(w, t.bits, first);
  return f ? CHECK(!bad, "%s: %llu of %llu elements are wrong, element %llu is %.9g instead of %.9g", what,
                   (unsigned long long)bad, (unsigned long long)n, (unsigned long long)first, decode(f, a),
                   decode(f, b))
           : CHECK(!bad, "%s: %llu of %llu elements are wrong, element %llu is %lld instead of %lld", what,
                   (unsigned long long)bad, (unsigned long long)n, (unsigned long long)first,
                   (long long)decode_integer(t, a), (long long)decode_integer(t, b));
}
