/* Ops that take no values: constants, dimension values, positions, random numbers, and what sizes must be. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "eval.h"
#include "infer.h"

nyb_status ny_ev_const(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  (void)in;
  ny_fmt f = (ny_fmt)out->type->fmt;
  uint64_t n = (uint64_t)ny_count(out->type), bytes = ny_fmt_bytes(f, n);
  const ny_blob *blob = op->attr[NY_AT(const, data)].blob;
  if (blob) {
    if (blob->bytes < bytes)
      return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "a constant needs %" PRIu64 " bytes, its blob has %" PRIu64, bytes,
                        blob->bytes);
    memcpy(out->data, blob->data, bytes);
    return NYB_OK;
  }
  double x = op->attr[NY_AT(const, splat)].f;
  for (uint64_t i = 0; i < n; i++) {
    if (ny_is_float(f))
      ny_put_f(f, out->data, i, x, false);
    else
      ny_put_i(f, out->data, i, ny_f_to_i(f, x));
  }
  return NYB_OK;
}

nyb_status ny_ev_dims(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  (void)in;
  const ny_attr *a = &op->attr[NY_AT(dims, v)];
  if ((int64_t)a->dims.n != ny_count(out->type))
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "%u dimension values for %" PRId64 " elements", a->dims.n,
                      ny_count(out->type));
  for (uint32_t i = 0; i < a->dims.n; i++) {
    int64_t v = 0;
    NY_TRY(ny_ev_dim(ev, op, a->dims.v[i], &v));
    ny_put_i((ny_fmt)out->type->fmt, out->data, i, v);
  }
  return NYB_OK;
}

nyb_status ny_ev_iota(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  (void)in;
  int axis = 0;
  NY_TRY(ny_ev_axis(ev, op, op->attr[NY_AT(iota, axis)].i, out->type->rank, &axis));
  ny_fmt f = (ny_fmt)out->type->fmt;
  int64_t s[NY_MAX_RANK], n = ny_count(out->type);
  ny_strides(out->type, s);
  for (int64_t i = 0; i < n; i++) {
    int64_t v = i / s[axis] % out->type->dim[axis];
    if (ny_is_float(f))
      ny_put_f(f, out->data, (uint64_t)i, (double)v, false);
    else
      ny_put_i(f, out->data, (uint64_t)i, v);
  }
  return NYB_OK;
}

/* Philox4x32-10: ten rounds of two 32x32->64 bit products (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). */
void ny_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c[4], k0 = key[0], k1 = key[1];
  memcpy(c, counter, sizeof c);
  for (int round = 0; round < 10; round++, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
    uint64_t p0 = (uint64_t)0xd2511f53u * c[0], p1 = (uint64_t)0xcd9e8d57u * c[2];
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
    c[0] = n0, c[1] = (uint32_t)p1, c[2] = n2, c[3] = (uint32_t)p0;
  }
  memcpy(out, c, sizeof c);
}

/* The definition of `random`, for whoever compiles it. Word w(j) is word j % 4 of Philox with counter = (low 32 bits of
   j / 4, high 32 bits, 0, 0) and key = (low, high 32 bits of seed). The bits of element e, in row-major order: f64 B =
   53: ((w(2e) << 32 | w(2e + 1)) >> 11)          other floats   B = 24: w(e) >> 8 uniform: bits(e) * 2^-B, rounded to
   the format (so a 16-bit result can be 1). normal (Box and Muller 1958), for the pair p = e & ~1 with u = (bits(p) +
   1) * 2^-B and v = bits(p + 1) * 2^-B: sqrt(-2 ln u) * cos(2 pi v) for even e, sin for odd e; in double, then rounded.
 */
static double bits(uint64_t seed, bool wide, uint64_t e) {
  uint64_t j = wide ? 2 * e : e, block = j / 4;
  uint32_t w[4];
  ny_philox4x32((const uint32_t[4]){(uint32_t)block, (uint32_t)(block >> 32), 0, 0},
                (const uint32_t[2]){(uint32_t)seed, (uint32_t)(seed >> 32)}, w);
  if (!wide) return (double)(w[j % 4] >> 8);
  return (double)(((uint64_t)w[j % 4] << 32 | w[j % 4 + 1]) >> 11);
}

nyb_status ny_ev_random(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  (void)in;
  const double two_pi = 6.283185307179586476925286766559;
  ny_fmt f = (ny_fmt)out->type->fmt;
  ny_name dist = op->attr[NY_AT(random, dist)].s;
  bool normal = dist && !strcmp(dist, "normal"), wide = f == NY_f64;
  if (!ny_is_float(f) || !(normal || (dist && !strcmp(dist, "uniform"))))
    return NY_EV_FAIL(ev, op, NYB_E_TYPE, "random makes floats, uniform or normal; not %s %s", dist ? dist : "?",
                      ny_fmts[f].name);
  uint64_t seed = (uint64_t)op->attr[NY_AT(random, seed)].i, n = (uint64_t)ny_count(out->type);
  double unit = ldexp(1, wide ? -53 : -24);
  for (uint64_t e = 0; e < n; e++) {
    double x;
    if (normal) {
      double u = (bits(seed, wide, e & ~(uint64_t)1) + 1) * unit, v = bits(seed, wide, e | 1) * unit;
      x = sqrt(-2 * log(u)) * (e & 1 ? sin(two_pi * v) : cos(two_pi * v));
    } else {
      x = bits(seed, wide, e) * unit;
    }
    ny_put_f(f, out->data, e, x, false);
  }
  return NYB_OK;
}

nyb_status ny_ev_precision(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  return (void)ev, (void)op, (void)in, (void)out, NYB_OK;
}

nyb_status ny_ev_require(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  (void)in, (void)out;
  const ny_attr *at = op->attr;
  ny_dim a = at[NY_AT(require, a)].d, b = at[NY_AT(require, b)].d;
  ny_name text = at[NY_AT(require, text)].s;
  int64_t x = 0, y = 0;
  NY_TRY(ny_ev_dim(ev, op, a, &x));
  NY_TRY(ny_ev_dim(ev, op, b, &y));
  if (x == y) return NYB_OK;
  return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "%s: %s and %s must be equal, here they are %" PRId64 " and %" PRId64,
                    text ? text : "sizes", ny_dim_str(ev->g, a), ny_dim_str(ev->g, b), x, y);
}
