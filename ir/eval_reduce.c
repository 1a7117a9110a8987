/* Reductions, running folds, sliding windows, positions of extremes and top-k. Floats accumulate in double in row-major
   order and are rounded once; integers wrap at every step. A sum of bools is "any", a product "all". */
#include "eval.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static ny_num get(ny_fmt f, const void *p, int64_t at) {
  ny_num x;
  if (ny_is_float(f))
    ny_load_f(f, p, (uint64_t)at, 1, &x.f);
  else
    ny_load_i(f, p, (uint64_t)at, 1, &x.i);
  return x;
}

static void put(ny_fmt f, void *p, int64_t at, ny_num x) {
  if (ny_is_float(f))
    ny_store_f(f, p, (uint64_t)at, 1, &x.f);
  else
    ny_store_i(f, p, (uint64_t)at, 1, &x.i);
}

static ny_num fold(ny_fold o, ny_fmt f, ny_num a, ny_num b) {
  return ny_is_float(f) ? (ny_num){.f = ny_fold_f(o, a.f, b.f)} : (ny_num){.i = ny_fold_i(o, f, a.i, b.i)};
}

static ny_num first_of(ny_fold o, ny_fmt f) {
  return ny_is_float(f) ? (ny_num){.f = ny_fold_first_f(o, f)} : (ny_num){.i = ny_fold_first_i(o, f)};
}

static nyb_status fold_of(ny_ev *ev, const ny_op *op, ny_name name, ny_fold *o) {
  *o = ny_fold_of(name);
  if (*o != NY_FOLD_none && *o != NY_FOLD_set) return NYB_OK;
  return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "%s cannot be %s", ny_kinds[op->kind].name, name ? name : "?");
}

/* Strides into the result for each input dim, 0 where it is reduced. */
static nyb_status kept_strides(ny_ev *ev, const ny_op *op, const ny_type *x, const ny_type *to, int64_t *step) {
  const ny_attr *axes = &op->attr[NY_AT(reduce, axes)];
  bool gone[NY_MAX_RANK] = {false};
  for (uint32_t i = 0; i < axes->dims.n; i++) {
    int64_t a = 0;
    int axis = 0;
    NY_TRY(ny_ev_dim(ev, op, axes->dims.v[i], &a));
    NY_TRY(ny_ev_axis(ev, op, a, x->rank, &axis));
    gone[axis] = true;
  }
  int64_t n = 1;
  for (int d = x->rank - 1; d >= 0; d--) {
    step[d] = gone[d] ? 0 : n;
    if (!gone[d]) n *= x->dim[d];
  }
  if (n == ny_count(to)) return NYB_OK;
  return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "reduce: %" PRId64 " results for %" PRId64 " declared", n, ny_count(to));
}

nyb_status ny_ev_reduce(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  const ny_type *x = in->type;
  ny_fmt f = (ny_fmt)x->fmt;
  ny_fold o = NY_FOLD_none;
  int64_t step[NY_MAX_RANK], n = ny_count(out->type), count = ny_count(x);
  NY_TRY(fold_of(ev, op, op->attr[NY_AT(reduce, op)].s, &o));
  NY_TRY(kept_strides(ev, op, x, out->type, step));
  ny_num *acc = ny_ev_tmp(ev, op, (uint64_t)n, sizeof *acc), row[NY_EW_CHUNK];
  if (!acc) return ev->cx->diag.code;
  for (int64_t i = 0; i < n; i++) acc[i] = first_of(o, f);
  int last = x->rank - 1;
  int64_t width = last < 0 ? 1 : x->dim[last], inner = last < 0 ? 0 : step[last];
  ny_nd it;
  ny_nd_init(&it, last < 0 ? 0 : last, x->dim, 1);
  if (last > 0) memcpy(it.step[0], step, (size_t)last * sizeof *step);
  for (int64_t at = 0; at < count; at += width, ny_nd_next(&it))
    for (int64_t c = 0; c < width; c += NY_EW_CHUNK) {
      size_t m = width - c < NY_EW_CHUNK ? (size_t)(width - c) : NY_EW_CHUNK;
      if (ny_is_float(f))
        ny_load_f(f, in->data, (uint64_t)(at + c), m, &row->f);
      else
        ny_load_i(f, in->data, (uint64_t)(at + c), m, &row->i);
      ny_num *a = acc + it.at[0] + c * inner;
      for (size_t i = 0; i < m; i++, a += inner) *a = fold(o, f, *a, row[i]);
    }
  for (int64_t i = 0; i < n; i++) put(f, out->data, i, acc[i]);
  return NYB_OK;
}

/* A shape around one axis: [outer][n][inner]. */
typedef struct around {
  int64_t outer, n, inner;
} around;

static nyb_status around_axis(ny_ev *ev, const ny_op *op, const ny_type *t, int64_t axis_attr, around *r) {
  int axis = 0;
  NY_TRY(ny_ev_axis(ev, op, axis_attr, t->rank, &axis));
  *r = (around){1, t->dim[axis], 1};
  for (int i = 0; i < axis; i++) r->outer *= t->dim[i];
  for (int i = axis + 1; i < t->rank; i++) r->inner *= t->dim[i];
  return NYB_OK;
}

/* A key that orders values as unsigned integers: -0 equals 0, a NaN is greater than all. */
static uint64_t order_key(ny_fmt f, ny_num x) {
  if (!ny_is_float(f)) return f == NY_u64 ? (uint64_t)x.i : (uint64_t)x.i ^ (uint64_t)1 << 63;
  if (isnan(x.f)) return UINT64_MAX;
  x.f += 0.0;
  uint64_t b = (uint64_t)x.i;
  return b >> 63 ? ~b : b | (uint64_t)1 << 63;
}

/* A NaN is the extreme of both directions, as it wins max and min. */
nyb_status ny_ev_argreduce(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  around r;
  ny_fold o = NY_FOLD_none;
  ny_fmt f = (ny_fmt)in->type->fmt;
  bool last = op->attr[NY_AT(argreduce, last)].i != 0;
  NY_TRY(around_axis(ev, op, in->type, op->attr[NY_AT(argreduce, axis)].i, &r));
  NY_TRY(fold_of(ev, op, op->attr[NY_AT(argreduce, op)].s, &o));
  if (o < NY_FOLD_max) return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "argreduce finds max or min");
  if (ny_count(out->type) != r.outer * r.inner || (!r.n && r.outer && r.inner))
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "argreduce: %" PRId64 " results from %" PRId64 " elements each",
                      ny_count(out->type), r.n);
  for (int64_t a = 0; a < r.outer; a++)
    for (int64_t b = 0; b < r.inner; b++) {
      uint64_t best = 0;
      int64_t where = -1;
      for (int64_t j = 0; j < r.n; j++) {
        ny_num x = get(f, in->data, (a * r.n + j) * r.inner + b);
        uint64_t k = order_key(f, x);
        if (o == NY_FOLD_min && !(ny_is_float(f) && isnan(x.f))) k = ~k;
        if (where < 0 || k > best || (last && k == best)) best = k, where = j;
      }
      ny_put_i((ny_fmt)out->type->fmt, out->data, (uint64_t)(a * r.inner + b), where);
    }
  return NYB_OK;
}

nyb_status ny_ev_scan(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  around r;
  ny_fold o = NY_FOLD_none;
  ny_fmt f = (ny_fmt)in->type->fmt;
  bool exclusive = op->attr[NY_AT(scan, exclusive)].i != 0, reverse = op->attr[NY_AT(scan, reverse)].i != 0;
  NY_TRY(around_axis(ev, op, in->type, op->attr[NY_AT(scan, axis)].i, &r));
  NY_TRY(fold_of(ev, op, op->attr[NY_AT(scan, op)].s, &o));
  for (int64_t a = 0; a < r.outer; a++)
    for (int64_t b = 0; b < r.inner; b++) {
      ny_num acc = first_of(o, f);
      for (int64_t j = 0; j < r.n; j++) {
        int64_t at = (a * r.n + (reverse ? r.n - 1 - j : j)) * r.inner + b;
        ny_num x = get(f, in->data, at);
        if (exclusive) put(f, out->data, at, acc);
        acc = fold(o, f, acc, x);
        if (!exclusive) put(f, out->data, at, acc);
      }
    }
  return NYB_OK;
}

typedef struct ranked {
  uint64_t key;
  int64_t at;
} ranked;

static int by_rank(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  if (x->key != y->key) return x->key > y->key ? -1 : 1;
  return x->at < y->at ? -1 : x->at > y->at;
}

/* A NaN counts as greater than every number: first among the largest, last among the smallest. */
nyb_status ny_ev_topk(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  around r, ro, ri;
  ny_fmt f = (ny_fmt)in->type->fmt;
  int64_t axis = op->attr[NY_AT(topk, axis)].i;
  bool largest = op->attr[NY_AT(topk, largest)].i != 0;
  NY_TRY(around_axis(ev, op, in->type, axis, &r));
  NY_TRY(around_axis(ev, op, out[0].type, axis, &ro));
  NY_TRY(around_axis(ev, op, out[1].type, axis, &ri));
  if (memcmp(&ro, &ri, sizeof ro) || ro.outer != r.outer || ro.inner != r.inner || ro.n > r.n || out[0].type->fmt != f)
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "topk: %" PRId64 " of %" PRId64 " elements", ro.n, r.n);
  ranked *list = ny_ev_tmp(ev, op, (uint64_t)r.n, sizeof *list);
  if (!list) return ev->cx->diag.code;
  for (int64_t a = 0; a < r.outer; a++)
    for (int64_t b = 0; b < r.inner; b++) {
      for (int64_t j = 0; j < r.n; j++) {
        uint64_t k = order_key(f, get(f, in->data, (a * r.n + j) * r.inner + b));
        list[j] = (ranked){largest ? k : ~k, j};
      }
      qsort(list, (size_t)r.n, sizeof *list, by_rank);
      for (int64_t j = 0; j < ro.n; j++) {
        uint64_t to = (uint64_t)((a * ro.n + j) * r.inner + b);
        ny_copy_elems(f, out[0].data, to, in->data, (uint64_t)((a * r.n + list[j].at) * r.inner + b), 1);
        ny_put_i((ny_fmt)out[1].type->fmt, out[1].data, to, list[j].at);
      }
    }
  return NYB_OK;
}

typedef struct sliding {
  int64_t size[NY_MAX_RANK], stride[NY_MAX_RANK], dilation[NY_MAX_RANK], own[NY_MAX_RANK];
  int64_t *offset, n; /* of the elements of one window from its first */
} sliding;

static nyb_status window_read(ny_ev *ev, const ny_op *op, const ny_type *x, const ny_type *to, sliding *w) {
  NY_TRY(ny_ev_list(ev, op, NY_AT(window, size), x->rank, 1, w->size));
  NY_TRY(ny_ev_list(ev, op, NY_AT(window, stride), x->rank, 1, w->stride));
  NY_TRY(ny_ev_list(ev, op, NY_AT(window, dilation), x->rank, 1, w->dilation));
  ny_strides(x, w->own);
  w->n = 1;
  for (int d = 0; d < x->rank; d++) {
    int64_t reach = 0, go = 0;
    bool ok = to->rank == x->rank && w->size[d] > 0 && w->stride[d] > 0 && w->dilation[d] > 0 &&
              !__builtin_mul_overflow(w->size[d] - 1, w->dilation[d], &reach) &&
              !__builtin_mul_overflow(to->dim[d] - 1, w->stride[d], &go) && !__builtin_add_overflow(reach, go, &go) &&
              (to->dim[d] == 0 || go < x->dim[d]) && !__builtin_mul_overflow(w->n, w->size[d], &w->n);
    if (!ok)
      return NY_EV_FAIL(ev, op, NYB_E_SHAPE,
                        "window: size %" PRId64 ", stride %" PRId64 ", dilation %" PRId64
                        " does not fit dim %d of %" PRId64,
                        w->size[d], w->stride[d], w->dilation[d], d, x->dim[d]);
  }
  w->offset = ny_ev_tmp(ev, op, (uint64_t)w->n, sizeof *w->offset);
  if (!w->offset) return ev->cx->diag.code;
  ny_nd it;
  ny_nd_init(&it, x->rank, w->size, 1);
  for (int d = 0; d < x->rank; d++) it.step[0][d] = w->dilation[d] * w->own[d];
  for (int64_t i = 0; i < w->n; i++, ny_nd_next(&it)) w->offset[i] = it.at[0];
  return NYB_OK;
}

nyb_status ny_ev_window(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  sliding w;
  ny_fold o = NY_FOLD_none;
  ny_fmt f = (ny_fmt)in->type->fmt;
  int64_t count = ny_count(out->type);
  NY_TRY(fold_of(ev, op, op->attr[NY_AT(window, op)].s, &o));
  if (!count) return NYB_OK;
  NY_TRY(window_read(ev, op, in->type, out->type, &w));
  ny_nd it;
  ny_nd_init(&it, out->type->rank, out->type->dim, 1);
  for (int d = 0; d < out->type->rank; d++) it.step[0][d] = w.stride[d] * w.own[d];
  for (int64_t i = 0; i < count; i++, ny_nd_next(&it)) {
    ny_num acc = first_of(o, f);
    for (int64_t k = 0; k < w.n; k++) acc = fold(o, f, acc, get(f, in->data, it.at[0] + w.offset[k]));
    put(f, out->data, i, acc);
  }
  return NYB_OK;
}
