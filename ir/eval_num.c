/* Numbers and shapes of the evaluator: packed storage to and from double and int64 a run at a time (the common formats
   without a call per element), the folds that reductions, scans, scatters and stores share, and a walker over
   n-dimensional shapes. */
#include "eval.h"

#include <math.h>
#include <string.h>

#define GET(T)                                                                                                         \
  for (size_t i = 0; i < n; i++) {                                                                                     \
    T v;                                                                                                               \
    memcpy(&v, (const char *)p + (at + i) * sizeof v, sizeof v);                                                       \
    out[i] = v;                                                                                                        \
  }                                                                                                                    \
  return
#define PUT(T)                                                                                                         \
  for (size_t i = 0; i < n; i++) {                                                                                     \
    T v = (T)x[i];                                                                                                     \
    memcpy((char *)p + (at + i) * sizeof v, &v, sizeof v);                                                             \
  }                                                                                                                    \
  return

void ny_load_f(ny_fmt f, const void *p, uint64_t at, size_t n, double *out) {
  if (f == NY_f32) { GET(float); }
  if (f == NY_f64) { GET(double); }
  for (size_t i = 0; i < n; i++) out[i] = ny_get_f(f, p, at + i);
}

void ny_load_i(ny_fmt f, const void *p, uint64_t at, size_t n, int64_t *out) {
  switch (f) {
  case NY_i64:
  case NY_u64: GET(int64_t);
  case NY_i32: GET(int32_t);
  case NY_i8: GET(int8_t);
  case NY_u8: GET(uint8_t);
  default: break;
  }
  for (size_t i = 0; i < n; i++) out[i] = ny_get_i(f, p, at + i);
}

void ny_store_f(ny_fmt f, void *p, uint64_t at, size_t n, const double *x) {
  if (f == NY_f32) { PUT(float); }
  if (f == NY_f64) { PUT(double); }
  for (size_t i = 0; i < n; i++) ny_put_f(f, p, at + i, x[i], false);
}

void ny_store_i(ny_fmt f, void *p, uint64_t at, size_t n, const int64_t *x) {
  switch (f) {
  case NY_i64:
  case NY_u64: PUT(int64_t);
  case NY_i32: PUT(int32_t);
  case NY_i8: PUT(int8_t);
  case NY_u8: PUT(uint8_t);
  default: break;
  }
  for (size_t i = 0; i < n; i++) ny_put_i(f, p, at + i, x[i]);
}

void ny_round_n(ny_fmt f, double *x, size_t n) {
  if (f == NY_f64) return;
  if (f == NY_f32)
    for (size_t i = 0; i < n; i++) x[i] = (double)(float)x[i];
  else
    for (size_t i = 0; i < n; i++) x[i] = ny_round_to(f, x[i]);
}

void ny_wrap_n(ny_fmt f, int64_t *x, size_t n) {
  unsigned spare = 64u - ny_fmts[f].bits;
  if (ny_fmts[f].kind == 'I')
    for (size_t i = 0; i < n; i++) x[i] = (int64_t)((uint64_t)x[i] << spare) >> spare;
  else if (ny_fmts[f].kind == 'U')
    for (size_t i = 0; i < n; i++) x[i] = (int64_t)((uint64_t)x[i] << spare >> spare);
  else
    for (size_t i = 0; i < n; i++) x[i] = x[i] != 0;
}

void ny_copy_elems(ny_fmt f, void *to, uint64_t to_at, const void *from, uint64_t from_at, uint64_t n) {
  unsigned bits = ny_fmts[f].bits;
  if (bits >= 8) {
    size_t size = bits / 8;
    memcpy((char *)to + to_at * size, (const char *)from + from_at * size, n * size);
    return;
  }
  unsigned per = 8 / bits, mask = (1u << bits) - 1;
  uint8_t *t = to;
  const uint8_t *s = from;
  for (uint64_t i = 0; i < n; i++) {
    uint64_t a = from_at + i, b = to_at + i;
    unsigned v = (unsigned)(s[a / per] >> (a % per * bits)) & mask, shift = (unsigned)(b % per) * bits;
    t[b / per] = (uint8_t)((t[b / per] & ~(mask << shift)) | (v << shift));
  }
}

static double lowest_f(ny_fmt f) {
  /* formats without an infinity end at their largest finite value; those without a sign at their smallest */
  switch (f) {
  case NY_f8e4m3: return -448;
  case NY_f8e4m3fnuz: return -240;
  case NY_f8e5m2fnuz: return -57344;
  case NY_f4e2m1: return -6;
  case NY_f8e8m0: return ldexp(1, -127);
  default: return -HUGE_VAL;
  }
}

static double highest_f(ny_fmt f) { return f == NY_f8e8m0 ? ldexp(1, 127) : -lowest_f(f); }

static int64_t lowest_i(ny_fmt f) {
  return ny_fmts[f].kind == 'I' ? (int64_t)(UINT64_MAX << (ny_fmts[f].bits - 1)) : 0;
}

static int64_t highest_i(ny_fmt f) {
  if (ny_fmts[f].kind == 'B') return 1;
  return ny_fmts[f].kind == 'I' ? ~lowest_i(f) : (int64_t)(UINT64_MAX >> (64 - ny_fmts[f].bits));
}

int64_t ny_f_to_i(ny_fmt f, double x) {
  if (ny_fmts[f].kind == 'B') return x != 0; /* NaN is true */
  if (isnan(x)) return 0;
  double top = ldexp(1, ny_fmts[f].bits - (ny_fmts[f].kind == 'I'));
  if (x >= top) return highest_i(f);
  if (ny_fmts[f].kind == 'U') return x <= 0 ? 0 : (int64_t)(uint64_t)x;
  return x < -top ? lowest_i(f) : (int64_t)x;
}

double ny_i_to_f(ny_fmt from, int64_t x, ny_fmt to) {
  bool negative = from != NY_u64 && x < 0;
  uint64_t u = negative ? 0 - (uint64_t)x : (uint64_t)x;
  /* A double holds 53 bits. For a narrower target, round to odd first, so that the second rounding sees whether
   * anything was lost. */
  if (u >> 53 && to != NY_f64) u = (u & ~(uint64_t)0x7ff) | ((u & 0x7ff) ? 0x800 : 0);
  return negative ? -(double)u : (double)u;
}

int64_t ny_count(const ny_type *t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= t->dim[i];
  return n;
}

void ny_strides(const ny_type *t, int64_t *s) {
  int64_t n = 1;
  for (int i = t->rank - 1; i >= 0; n *= t->dim[i--]) s[i] = n;
}

void ny_bcast_strides(const ny_type *from, int rank, int64_t *s) {
  int64_t own[NY_MAX_RANK];
  ny_strides(from, own);
  for (int i = 0; i < rank; i++) {
    int j = i - (rank - from->rank);
    s[i] = j < 0 || from->dim[j] == 1 ? 0 : own[j];
  }
}

void ny_nd_init(ny_nd *it, int rank, const ny_dim *n, int n_ops) {
  memset(it, 0, sizeof *it);
  it->rank = rank, it->n_ops = n_ops;
  memcpy(it->n, n, (size_t)rank * sizeof *n);
}

bool ny_nd_next(ny_nd *it) {
  for (int d = it->rank - 1; d >= 0; d--) {
    if (++it->i[d] < it->n[d]) {
      for (int k = 0; k < it->n_ops; k++) it->at[k] += it->step[k][d];
      return true;
    }
    for (int k = 0; k < it->n_ops; k++) it->at[k] -= it->step[k][d] * (it->n[d] - 1);
    it->i[d] = 0;
  }
  return false;
}

ny_fold ny_fold_of(const char *name) {
  static const char *const names[] = {"set", "sum", "prod", "max", "min"};
  int o = 0;
  while (o < NY_FOLD_none && (!name || strcmp(name, names[o]))) o++;
  return (ny_fold)o;
}

double ny_fold_f(ny_fold o, double a, double b) {
  switch (o) {
  case NY_FOLD_sum: return a + b;
  case NY_FOLD_prod: return a * b;
  case NY_FOLD_max: return a != a ? a : b != b ? b : a < b ? b : a;
  case NY_FOLD_min: return a != a ? a : b != b ? b : b < a ? b : a;
  default: return b;
  }
}

int64_t ny_fold_i(ny_fold o, ny_fmt f, int64_t a, int64_t b) {
  bool less = f == NY_u64 ? (uint64_t)a < (uint64_t)b : a < b;
  switch (o) {
  case NY_FOLD_sum: return ny_wrap_to(f, (int64_t)((uint64_t)a + (uint64_t)b));
  case NY_FOLD_prod: return ny_wrap_to(f, (int64_t)((uint64_t)a * (uint64_t)b));
  case NY_FOLD_max: return less ? b : a;
  case NY_FOLD_min: return less ? a : b;
  default: return b;
  }
}

double ny_fold_first_f(ny_fold o, ny_fmt f) {
  return o == NY_FOLD_prod ? 1 : o == NY_FOLD_max ? lowest_f(f) : o == NY_FOLD_min ? highest_f(f) : 0;
}

int64_t ny_fold_first_i(ny_fold o, ny_fmt f) {
  return o == NY_FOLD_prod ? 1 : o == NY_FOLD_max ? lowest_i(f) : o == NY_FOLD_min ? highest_i(f) : 0;
}
