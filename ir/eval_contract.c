/* Contractions. Matmul and convolution become one small register-blocked product over packed panels, floats in double
   (a float product is exact in it) and integers in 64 bits modulo 2^64, so that the wrapped result is right for any
   narrower format; each result element sums over k in order and is rounded once. That is more exact than the f32
   accumulation compiled code uses, and is what it is compared with. */
#include "eval.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { STRIP = 4, ROWS = 16 }; /* columns of a panel and rows of a group; rows packed at a time */

static void load(ny_fmt f, const void *p, int64_t at, int64_t n, ny_num *out) {
  if (ny_is_float(f))
    ny_load_f(f, p, (uint64_t)at, (size_t)n, &out->f);
  else
    ny_load_i(f, p, (uint64_t)at, (size_t)n, &out->i);
}

static void store(ny_fmt f, void *p, int64_t at, int64_t n, const ny_num *x) {
  if (ny_is_float(f))
    ny_store_f(f, p, (uint64_t)at, (size_t)n, &x->f);
  else
    ny_store_i(f, p, (uint64_t)at, (size_t)n, &x->i);
}

typedef double pair __attribute__((vector_size(16)));

/* c[4][4] = sum over k of a[k][4] x b[k][4] */
static void tile_f(int64_t k, const ny_num *a, const ny_num *b, ny_num *c) {
  pair s[STRIP][2] = {{{0}}};
  for (; k > 0; k--, a += STRIP, b += STRIP) {
    pair b0 = {b[0].f, b[1].f}, b1 = {b[2].f, b[3].f};
    for (int r = 0; r < STRIP; r++) {
      pair x = {a[r].f, a[r].f};
      s[r][0] += x * b0;
      s[r][1] += x * b1;
    }
  }
  for (int r = 0; r < STRIP; r++)
    for (int j = 0; j < STRIP; j++) c[r * STRIP + j].f = s[r][j / 2][j % 2];
}

static void tile_i(int64_t k, const ny_num *a, const ny_num *b, ny_num *c) {
  uint64_t s[STRIP * STRIP] = {0};
  for (; k > 0; k--, a += STRIP, b += STRIP)
    for (int r = 0; r < STRIP; r++)
      for (int j = 0; j < STRIP; j++) s[r * STRIP + j] += (uint64_t)a[r].i * (uint64_t)b[j].i;
  for (int j = 0; j < STRIP * STRIP; j++) c[j].i = (int64_t)s[j];
}

typedef struct product { /* out rows [0, m) of n columns each, `pitch` apart */
  int64_t m, n, k, pitch;
  bool is_float;
  ny_num *a, *b, *c, *row; /* [ROWS/4][k][4], [n/4][k][4], [ROWS][n], [max(n, k)] */
  ny_tensor *out;
} product;

static nyb_status product_room(ny_ev *ev, const ny_op *op, product *p) {
  uint64_t strips = ((uint64_t)p->n + STRIP - 1) / STRIP, panel = 0;
  if (__builtin_mul_overflow(strips * STRIP, (uint64_t)p->k, &panel)) panel = UINT64_MAX;
  p->a = ny_ev_tmp(ev, op, (uint64_t)p->k * ROWS, sizeof *p->a);
  p->b = p->a ? ny_ev_tmp(ev, op, panel, sizeof *p->b) : NULL;
  p->c = p->b ? ny_ev_tmp(ev, op, strips * STRIP * ROWS, sizeof *p->c) : NULL;
  p->row = p->c ? ny_ev_tmp(ev, op, (uint64_t)(p->n > p->k ? p->n : p->k), sizeof *p->row) : NULL;
  return p->row ? NYB_OK : ev->cx->diag.code;
}

/* Row r of the right-hand side, or of a group of left-hand rows, as [k][4] panels. */
static void pack_b_row(product *p, int64_t k, const ny_num *row) {
  for (int64_t j = 0; j < p->n; j++) p->b[(j / STRIP * p->k + k) * STRIP + j % STRIP] = row[j];
}

static void pack_a_row(product *p, int64_t r, const ny_num *row) {
  ny_num *a = p->a + r / STRIP * p->k * STRIP + r % STRIP;
  for (int64_t k = 0; k < p->k; k++) a[k * STRIP] = row[k];
}

static void clear_b_edge(product *p) {
  if (p->n % STRIP) memset(p->b + p->n / STRIP * p->k * STRIP, 0, (size_t)(p->k * STRIP) * sizeof *p->b);
}

/* `rows` packed rows times all of b, stored from row `at` of the result. */
static void multiply(product *p, int64_t rows, int64_t at, int64_t column) {
  int64_t strips = (p->n + STRIP - 1) / STRIP, width = strips * STRIP;
  ny_num c[STRIP * STRIP];
  for (int64_t s = 0; s < strips; s++)
    for (int64_t r = 0; r < rows; r += STRIP) {
      (p->is_float ? tile_f : tile_i)(p->k, p->a + r * p->k, p->b + s * p->k * STRIP, c);
      for (int i = 0; i < STRIP; i++) memcpy(p->c + (r + i) * width + s * STRIP, c + i * STRIP, STRIP * sizeof *c);
    }
  for (int64_t r = 0; r < rows; r++)
    store((ny_fmt)p->out->type->fmt, p->out->data, (at + r) * p->pitch + column, p->n, p->c + r * width);
}

static int64_t packed_at(int64_t k, int64_t j, int64_t depth, int64_t p) { return (j / p * depth + k) * p + j % p; }

static nyb_status same_class(ny_ev *ev, const ny_op *op, const ny_tensor *in, const ny_tensor *out, bool *is_float) {
  ny_fmt a = (ny_fmt)in[0].type->fmt, b = (ny_fmt)in[1].type->fmt, c = (ny_fmt)out->type->fmt;
  *is_float = ny_is_float(a);
  if (*is_float == ny_is_float(b) && *is_float == ny_is_float(c)) return NYB_OK;
  return NY_EV_FAIL(ev, op, NYB_E_TYPE, "%s of %s and %s giving %s", ny_kinds[op->kind].name, ny_fmts[a].name,
                    ny_fmts[b].name, ny_fmts[c].name);
}

static nyb_status matmul_sizes(ny_ev *ev, const ny_op *op, const ny_type *x, const ny_type *y, const ny_type *to,
                               int64_t packed, product *p) {
  int r = to->rank, xr = x->rank, yr = y->rank;
  bool turned = packed == -1, ok = xr >= 2 && yr >= 2 && r >= 2 && xr <= r && (turned ? yr == 2 : packed ? yr == 3 : yr <= r) && packed >= -1;
  if (ok) {
    p->m = to->dim[r - 2], p->n = p->pitch = to->dim[r - 1], p->k = x->dim[xr - 1];
    ok = x->dim[xr - 2] == p->m && (turned ? y->dim[1] == (p->k + 31) / 32 * 32 : y->dim[yr - 2] == p->k);
    ok = ok && (turned ? y->dim[0] == p->n : packed ? y->dim[2] == packed && y->dim[0] == (p->n + packed - 1) / packed : y->dim[yr - 1] == p->n);
  }
  for (int i = 0; ok && i < r - 2; i++) {
    int a = i - (r - xr), b = packed ? -1 : i - (r - yr);
    ok = (a < 0 || x->dim[a] == 1 || x->dim[a] == to->dim[i]) && (b < 0 || y->dim[b] == 1 || y->dim[b] == to->dim[i]);
  }
  return ok ? NYB_OK
            : NY_EV_FAIL(ev, op, NYB_E_SHAPE,
                         "matmul: the shapes do not fit together (ranks %d, %d, %d, packed %" PRId64 ")", xr, yr, r,
                         packed);
}

/* Strides of the batch dims of t in a result of `rank`; the last two dims are the matrix. */
static void batch_strides(const ny_type *t, int rank, int64_t *step) {
  int64_t all[NY_MAX_RANK];
  ny_bcast_strides(t, rank, all);
  memcpy(step, all, (size_t)(rank - 2) * sizeof *step);
}

static void matmul_pack_b(product *p, const ny_tensor *y, int64_t base, int64_t packed) {
  ny_fmt f = (ny_fmt)y->type->fmt;
  clear_b_edge(p);
  for (int64_t j = 0; packed == -1 && j < p->n; j++) {
    load(f, y->data, j * y->type->dim[1], p->k, p->row);
    for (int64_t k = 0; k < p->k; k++) p->b[(j / STRIP * p->k + k) * STRIP + j % STRIP] = p->row[k];
  }
  if (packed == -1) return;
  for (int64_t k = 0; k < p->k; k++) {
    if (!packed) load(f, y->data, base + k * p->n, p->n, p->row);
    for (int64_t j = 0; packed && j < p->n; j += packed)
      load(f, y->data, packed_at(k, j, p->k, packed), p->n - j < packed ? p->n - j : packed, p->row + j);
    pack_b_row(p, k, p->row);
  }
}

nyb_status ny_ev_matmul(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  product p = {.out = out};
  const ny_type *to = out->type;
  int64_t packed = op->attr[NY_AT(matmul, packed)].i, count = ny_count(to), b_base = -1;
  NY_TRY(same_class(ev, op, in, out, &p.is_float));
  NY_TRY(matmul_sizes(ev, op, in[0].type, in[1].type, to, packed, &p));
  if (!count) return NYB_OK;
  NY_TRY(product_room(ev, op, &p));
  ny_nd it;
  ny_nd_init(&it, to->rank - 2, to->dim, 2);
  batch_strides(in[0].type, to->rank, it.step[0]);
  if (!packed) batch_strides(in[1].type, to->rank, it.step[1]);
  for (int64_t row = 0; row < count / p.n; row += p.m, ny_nd_next(&it)) {
    if (it.at[1] != b_base) matmul_pack_b(&p, &in[1], b_base = it.at[1], packed);
    for (int64_t r = 0; r < p.m; r += ROWS) {
      int64_t rows = p.m - r < ROWS ? p.m - r : ROWS;
      memset(p.a, 0, (size_t)(p.k * ROWS) * sizeof *p.a);
      for (int64_t i = 0; i < rows; i++) {
        load((ny_fmt)in[0].type->fmt, in[0].data, it.at[0] + (r + i) * p.k, p.k, p.row);
        pack_a_row(&p, i, p.row);
      }
      multiply(&p, rows, row + r, 0);
    }
  }
  return NYB_OK;
}

typedef struct conv {
  int s; /* spatial dims */
  int64_t kernel[NY_MAX_RANK], stride[NY_MAX_RANK], dilation[NY_MAX_RANK], own[NY_MAX_RANK];
  int64_t group, packed, taps, c, m; /* taps of the kernel; channels of a group in and out */
  int64_t *tap;                      /* offset in x of each tap */
} conv;

static bool conv_dim_fits(const conv *v, int d, int64_t in, int64_t out) {
  int64_t reach = 0, go = 0;
  return v->kernel[d] > 0 && v->stride[d] > 0 && v->dilation[d] > 0 &&
         !__builtin_mul_overflow(v->kernel[d] - 1, v->dilation[d], &reach) &&
         !__builtin_mul_overflow(out - 1, v->stride[d], &go) && !__builtin_add_overflow(reach, go, &go) &&
         (out == 0 || go < in);
}

static bool conv_weight_fits(const conv *v, const ny_type *w, int64_t m) {
  int64_t k = v->taps * v->c, bytes = 0;
  if (v->packed)
    return !__builtin_mul_overflow(v->taps, v->c, &bytes) && w->rank == 4 && w->dim[0] == v->group &&
           w->dim[1] == (v->m + v->packed - 1) / v->packed && w->dim[2] == k && w->dim[3] == v->packed;
  bool ok = w->rank == v->s + 2 && w->dim[v->s] == v->c && w->dim[v->s + 1] == m;
  for (int d = 0; ok && d < v->s; d++) ok = w->dim[d] == v->kernel[d];
  return ok;
}

static nyb_status conv_read(ny_ev *ev, const ny_op *op, const ny_type *x, const ny_type *w, const ny_type *to,
                            conv *v) {
  v->s = x->rank - 2, v->group = op->attr[NY_AT(conv, group)].i, v->packed = op->attr[NY_AT(conv, packed)].i;
  bool ok = v->s >= 0 && to->rank == x->rank && v->group > 0 && v->packed >= 0 && x->dim[0] == to->dim[0];
  int64_t m = ok ? to->dim[to->rank - 1] : 0, c = ok ? x->dim[x->rank - 1] : 0;
  ok = ok && c % v->group == 0 && m % v->group == 0;
  if (ok) {
    NY_TRY(ny_ev_list(ev, op, NY_AT(conv, kernel), v->s, 1, v->kernel));
    NY_TRY(ny_ev_list(ev, op, NY_AT(conv, stride), v->s, 1, v->stride));
    NY_TRY(ny_ev_list(ev, op, NY_AT(conv, dilation), v->s, 1, v->dilation));
    /* unpacked weights carry the kernel's size themselves */
    for (int d = 0; !v->packed && !op->attr[NY_AT(conv, kernel)].dims.n && w->rank == x->rank && d < v->s; d++)
      v->kernel[d] = w->dim[d];
    v->c = c / v->group, v->m = m / v->group, v->taps = 1;
  }
  for (int d = 0; ok && d < v->s; d++)
    ok = conv_dim_fits(v, d, x->dim[d + 1], to->dim[d + 1]) && !__builtin_mul_overflow(v->taps, v->kernel[d], &v->taps);
  if (!ok || !conv_weight_fits(v, w, m))
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE,
                      "conv: input, weights (packed %" PRId64 ", group %" PRId64 ") and result do not fit together",
                      v->packed, v->group);
  v->tap = ny_ev_tmp(ev, op, (uint64_t)v->taps, sizeof *v->tap);
  if (!v->tap) return ev->cx->diag.code;
  ny_strides(x, v->own);
  ny_nd it;
  ny_nd_init(&it, v->s, v->kernel, 1);
  for (int d = 0; d < v->s; d++) it.step[0][d] = v->dilation[d] * v->own[d + 1];
  for (int64_t i = 0; i < v->taps; i++, ny_nd_next(&it)) v->tap[i] = it.at[0];
  return NYB_OK;
}

static void conv_pack_b(product *p, const conv *v, const ny_tensor *w, int64_t g) {
  int64_t strips = v->packed ? (v->m + v->packed - 1) / v->packed : 0;
  clear_b_edge(p);
  for (int64_t k = 0; k < p->k; k++) {
    if (!v->packed) load((ny_fmt)w->type->fmt, w->data, k * p->pitch + g * v->m, v->m, p->row);
    for (int64_t j = 0; v->packed && j < v->m; j += v->packed)
      load((ny_fmt)w->type->fmt, w->data, g * strips * p->k * v->packed + packed_at(k, j, p->k, v->packed),
           v->m - j < v->packed ? v->m - j : v->packed, p->row + j);
    pack_b_row(p, k, p->row);
  }
}

nyb_status ny_ev_conv(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  product p = {.out = out};
  conv v = {0};
  const ny_type *to = out->type;
  NY_TRY(same_class(ev, op, in, out, &p.is_float));
  if (!ny_count(to)) return NYB_OK;
  NY_TRY(conv_read(ev, op, in[0].type, in[1].type, to, &v));
  p.pitch = v.group * v.m, p.n = v.m, p.k = v.taps * v.c, p.m = ny_count(to) / p.pitch;
  NY_TRY(product_room(ev, op, &p));
  for (int64_t g = 0; g < v.group; g++) {
    conv_pack_b(&p, &v, &in[1], g);
    ny_nd it;
    ny_nd_init(&it, v.s + 1, to->dim, 1);
    for (int d = 0; d <= v.s; d++) it.step[0][d] = v.own[d] * (d ? v.stride[d - 1] : 1);
    for (int64_t r = 0; r < p.m; r += ROWS) {
      int64_t rows = p.m - r < ROWS ? p.m - r : ROWS;
      memset(p.a, 0, (size_t)(p.k * ROWS) * sizeof *p.a);
      for (int64_t i = 0; i < rows; i++, ny_nd_next(&it)) {
        for (int64_t t = 0; t < v.taps; t++)
          load((ny_fmt)in[0].type->fmt, in[0].data, it.at[0] + v.tap[t] + g * v.c, v.c, p.row + t * v.c);
        pack_a_row(&p, i, p.row);
      }
      multiply(&p, rows, r, g * v.m);
    }
  }
  return NYB_OK;
}

typedef struct heads {
  int64_t m, n, d, e;
  double *q, *k, *v, *p, *o; /* a row of q, all of k and v, a row of scores, a row of the result */
  double scale;
  bool causal;
} heads;

static void attend_row(const heads *h, int64_t i, const ny_tensor *mask, int64_t mask_at, int64_t mask_step) {
  double top = -HUGE_VAL, sum = 0;
  for (int64_t j = 0; j < h->n; j++) {
    double s = 0;
    for (int64_t t = 0; t < h->d; t++) s += h->q[t] * h->k[j * h->d + t];
    s *= h->scale;
    if (mask && mask->type->fmt == NY_bool)
      s = ny_get_i(NY_bool, mask->data, (uint64_t)(mask_at + j * mask_step)) ? s : -HUGE_VAL;
    else if (mask)
      s += ny_get_f((ny_fmt)mask->type->fmt, mask->data, (uint64_t)(mask_at + j * mask_step));
    if (h->causal && j > i) s = -HUGE_VAL;
    h->p[j] = s;
    top = ny_fold_f(NY_FOLD_max, top, s);
  }
  for (int64_t j = 0; j < h->n; j++) sum += h->p[j] = exp(h->p[j] - top);
  for (int64_t t = 0; t < h->e; t++) h->o[t] = 0;
  for (int64_t j = 0; j < h->n; j++) {
    double w = h->p[j] / sum;
    for (int64_t t = 0; t < h->e; t++) h->o[t] += w * h->v[j * h->e + t];
  }
}

static nyb_status attention_sizes(ny_ev *ev, const ny_op *op, const ny_tensor *in, const ny_type *to, heads *h) {
  const ny_type *q = in[0].type, *k = in[1].type, *v = in[2].type;
  bool ok = q->rank == 4 && k->rank == 4 && v->rank == 4 && to->rank == 4;
  for (int i = 0; ok && i < 2; i++) ok = q->dim[i] == k->dim[i] && q->dim[i] == v->dim[i] && q->dim[i] == to->dim[i];
  ok = ok && q->dim[3] == k->dim[3] && k->dim[2] == v->dim[2] && to->dim[2] == q->dim[2] && to->dim[3] == v->dim[3];
  if (!ok) return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "attention: q, k, v and the result do not fit together");
  h->m = q->dim[2], h->n = k->dim[2], h->d = q->dim[3], h->e = v->dim[3];
  if (op->n_in < 4) return NYB_OK;
  ny_type scores = *q;
  scores.dim[3] = h->n;
  if (ny_is_int((ny_fmt)in[3].type->fmt))
    return NY_EV_FAIL(ev, op, NYB_E_TYPE, "attention: a mask is bool or float, not %s", ny_fmts[in[3].type->fmt].name);
  return ny_ev_fits(ev, op, in[3].type, &scores);
}

/* The whole row in double, one rounding at the end. A row with every key hidden gives NaN, as softmax of -inf only
 * does. */
nyb_status ny_ev_attention(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  heads h = {.scale = op->attr[NY_AT(attention, scale)].f, .causal = op->attr[NY_AT(attention, causal)].i != 0};
  NY_TRY(attention_sizes(ev, op, in, out->type, &h));
  if (!ny_count(out->type)) return NYB_OK;
  h.q = ny_ev_tmp(ev, op, (uint64_t)h.d, sizeof *h.q);
  h.k = h.q ? ny_ev_tmp(ev, op, (uint64_t)(h.n * h.d), sizeof *h.k) : NULL;
  h.v = h.k ? ny_ev_tmp(ev, op, (uint64_t)(h.n * h.e), sizeof *h.v) : NULL;
  h.p = h.v ? ny_ev_tmp(ev, op, (uint64_t)h.n, sizeof *h.p) : NULL;
  h.o = h.p ? ny_ev_tmp(ev, op, (uint64_t)h.e, sizeof *h.o) : NULL;
  if (!h.o) return ev->cx->diag.code;
  const ny_type *q = in[0].type;
  const ny_tensor *mask = op->n_in > 3 ? &in[3] : NULL;
  int64_t ms[4] = {0}, heads_n = q->dim[1];
  if (mask) ny_bcast_strides(mask->type, 4, ms);
  for (int64_t bh = 0; bh < q->dim[0] * heads_n; bh++) {
    ny_load_f((ny_fmt)in[1].type->fmt, in[1].data, (uint64_t)(bh * h.n * h.d), (size_t)(h.n * h.d), h.k);
    ny_load_f((ny_fmt)in[2].type->fmt, in[2].data, (uint64_t)(bh * h.n * h.e), (size_t)(h.n * h.e), h.v);
    for (int64_t i = 0; i < h.m; i++) {
      ny_load_f((ny_fmt)q->fmt, in[0].data, (uint64_t)((bh * h.m + i) * h.d), (size_t)h.d, h.q);
      attend_row(&h, i, mask, bh / heads_n * ms[0] + bh % heads_n * ms[1] + i * ms[2], ms[3]);
      ny_store_f((ny_fmt)out->type->fmt, out->data, (uint64_t)((bh * h.m + i) * h.e), (size_t)h.e, h.o);
    }
  }
  return NYB_OK;
}
