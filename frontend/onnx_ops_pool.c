/* Pools: a window over the padded input. MaxPool pads with the lowest value; AveragePool divides the sum by a count
   that is itself a windowed sum, over ones, so that every combination of ceil_mode, dilation and count_include_pad
   comes out of one rule (and folds to a constant). */
#include <math.h>
#include <string.h>
#include "onnx.h"
#include "onnx_conv.h"

static bool read_pool(ny_node *n, const ny_value *x, ny_window *w) {
  int count = 0;
  const int64_t *k = ny_attr_ints(n, "kernel_shape", &count);
  if (!k || count != ny_rank(x) - 2 || count > NY_MAX_RANK) {
    ny_node_fail(n, NYB_E_SHAPE, "kernel_shape has %d entries for an input of rank %d", count, ny_rank(x));
    return false;
  }
  for (int i = 0; i < count; i++) {
    w->kernel[i] = k[i];
    if (k[i] < 1 || k[i] > INT32_MAX) {
      ny_node_fail(n, NYB_E_SHAPE, "kernel_shape[%d] is %lld", i, (long long)k[i]);
      return false;
    }
  }
  return ny_window_read(n, x, w);
}

/* Extra padding at the end so that a last, partial window exists; a window that would start in it does not count. */
static void ceil_pads(ny_node *n, const ny_value *x, const ny_window *w, ny_dim *more) {
  ny_ctx *cx = n->cx;
  bool ceil_mode = ny_attr_int(n, "ceil_mode", 0) != 0 && !w->same;
  for (int i = 0; i < w->spatial; i++) {
    more[i] = 0;
    if (!ceil_mode) continue;
    int64_t reach = (w->kernel[i] - 1) * w->dilation[i] + 1;
    ny_dim stride = w->stride[i], in = ny_size(x, i + 2),
           padded = ny_dim_add(cx, in, ny_dim_add(cx, w->lo[i], w->hi[i]));
    ny_dim steps = ny_dim_ceildiv(cx, ny_dim_sub(cx, padded, reach), stride); /* windows less one */
    ny_dim fits = ny_dim_div(cx, ny_dim_sub(cx, ny_dim_add(cx, in, w->lo[i]), 1),
                             stride); /* the last that starts on input or left padding */
    ny_dim end = ny_dim_add(cx, ny_dim_mul(cx, ny_dim_min(cx, steps, fits), stride), reach);
    more[i] = ny_dim_max(cx, ny_dim_sub(cx, end, padded), 0);
  }
}

static ny_value *window(ny_node *n, const char *op_name, ny_value *x, const ny_window *w) { /* channels last, padded */
  ny_dim size[NY_MAX_RANK], stride[NY_MAX_RANK], dil[NY_MAX_RANK];
  ny_op *op = ny_op_of(n, NY_window, &x, 1);
  if (!op) return NULL;
  for (int i = 0; i < ny_rank(x); i++) {
    bool slides = i >= 1 && i <= w->spatial;
    size[i] = slides ? w->kernel[i - 1] : 1;
    stride[i] = slides ? w->stride[i - 1] : 1;
    dil[i] = slides ? w->dilation[i - 1] : 1;
  }
  op->attr[NY_AT(window, op)].s = ny_intern(&n->cx->names, op_name);
  op->attr[NY_AT(window, size)] = ny_dims_attr(n->b.g, size, (size_t)ny_rank(x));
  op->attr[NY_AT(window, stride)] = ny_dims_attr(n->b.g, stride, (size_t)ny_rank(x));
  op->attr[NY_AT(window, dilation)] = ny_dims_attr(n->b.g, dil, (size_t)ny_rank(x));
  return ny_infer(n, op);
}

static ny_value *lowest(ny_node *n, const ny_value *x) {
  ny_fmt f = ny_fmt_of(x);
  if (ny_is_float(f)) return ny_num(n, x, -INFINITY);
  return ny_num(n, x, ny_fmts[f].kind == 'I' ? -ldexp(1, ny_fmts[f].bits - 1) : 0);
}

static ny_value *padded(ny_node *n, ny_value *x, const ny_window *w, const ny_dim *more, ny_value *fill) {
  ny_dim hi[NY_MAX_RANK];
  for (int i = 0; i < w->spatial; i++) hi[i] = ny_dim_add(n->cx, w->hi[i], more[i]);
  return ny_pad_spatial(n, ny_channels_last(n, x), w->lo, hi, NULL, fill);
}

/* How many elements each window covers: [1, s.., 1]. */
static ny_value *counts(ny_node *n, const ny_value *x, const ny_window *w, const ny_dim *more, bool with_pads) {
  ny_dim shape[NY_MAX_RANK], lo[NY_MAX_RANK], hi[NY_MAX_RANK];
  bool all_inside = true;
  for (int i = 0; i < w->spatial; i++) {
    shape[i + 1] =
        with_pads ? ny_dim_add(n->cx, ny_size(x, i + 2), ny_dim_add(n->cx, w->lo[i], w->hi[i])) : ny_size(x, i + 2);
    lo[i] = with_pads ? 0 : w->lo[i];
    hi[i] = with_pads ? more[i] : ny_dim_add(n->cx, w->hi[i], more[i]);
    all_inside &= lo[i] == 0 && hi[i] == 0;
  }
  shape[0] = shape[w->spatial + 1] = 1;
  if (all_inside) {
    double k = 1;
    for (int i = 0; i < w->spatial; i++) k *= (double)w->kernel[i];
    return ny_num(n, x, k);
  }
  ny_value *ones = ny_full(n, ny_fmt_of(x), w->spatial + 2, shape, 1);
  return ny_fold(n, window(n, "sum", ny_pad_spatial(n, ones, lo, hi, NULL, NULL), w));
}

nyb_status ny_op_average_pool(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_window w = {0};
  ny_dim more[NY_MAX_RANK];
  if (!x || !read_pool(n, x, &w)) return ny_failed(n);
  ceil_pads(n, x, &w, more);
  ny_value *sum = window(n, "sum", padded(n, x, &w, more, NULL), &w);
  ny_value *count = counts(n, x, &w, more, ny_attr_int(n, "count_include_pad", 0) != 0);
  return ny_out(n, 0, ny_channels_first(n, ny_ew2(n, NY_div, sum, count)));
}

/* (sum |x|^p)^(1/p) */
nyb_status ny_op_lp_pool(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_window w = {0};
  ny_dim more[NY_MAX_RANK];
  if (!x || !read_pool(n, x, &w)) return ny_failed(n);
  double p = (double)ny_attr_int(n, "p", 2);
  ceil_pads(n, x, &w, more);
  ny_value *a = ny_ew1(n, NY_abs, x), *raised = p == 2   ? ny_ew2(n, NY_mul, x, x)
                                                : p == 1 ? a
                                                         : ny_ew2s(n, NY_pow, a, p);
  ny_value *sum = raised ? window(n, "sum", padded(n, raised, &w, more, NULL), &w) : NULL;
  return ny_out(n, 0,
                ny_channels_first(n, p == 1   ? sum
                                     : p == 2 ? ny_ew1(n, NY_sqrt, sum)
                                              : ny_ew2s(n, NY_pow, sum, 1 / p)));
}

nyb_status ny_op_global_lp_pool(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int axes[NY_MAX_RANK], count = 0;
  if (!x) return ny_failed(n);
  double p = (double)ny_attr_int(n, "p", 2);
  for (int i = 2; i < ny_rank(x); i++) axes[count++] = i;
  ny_value *raised = ny_ew2s(n, NY_pow, ny_ew1(n, NY_abs, x), p);
  ny_value *sum = raised ? ny_b_reduce(&n->b, "sum", raised, axes, count, true) : NULL;
  return ny_out(n, 0, ny_ew2s(n, NY_pow, sum, 1 / p));
}

/* ---- Positions of the maxima: every place of the window is a strided slice of the padded input; which of them wins
 * gives the position. */
enum { MAX_PLACES = 256 };

static ny_value *place(ny_node *n, ny_value *x, const ny_value *y, const ny_window *w, int64_t k) { /* channels first */
  ny_dim start[NY_MAX_RANK] = {0}, step[NY_MAX_RANK], count[NY_MAX_RANK];
  for (int i = 0; i < ny_rank(x); i++) step[i] = 1, count[i] = ny_size(y, i);
  for (int i = w->spatial - 1; i >= 0; i--) {
    start[i + 2] = k % w->kernel[i] * w->dilation[i];
    step[i + 2] = w->stride[i];
    k /= w->kernel[i];
  }
  return ny_unsqueeze_at(n, ny_b_slice(&n->b, x, start, step, count), 0);
}

static ny_value *iota_like(ny_node *n, const ny_value *y, int axis) {
  return ny_b_iota(&n->b, NY_i64, ny_rank(y), y->type->dim, axis);
}
static ny_value *times_dim(ny_node *n, ny_value *v, ny_dim d) {
  return ny_ew2(n, NY_mul, v, ny_b_dims(&n->b, &d, 1, true));
}

/* winner: which place of the window, i64 of the result's shape. */
static ny_value *positions(ny_node *n, const ny_value *x, const ny_value *y, const ny_window *w, ny_value *winner) {
  bool by_column = ny_attr_int(n, "storage_order", 0) != 0;
  ny_value *at = ny_ew2(n, NY_add, times_dim(n, iota_like(n, y, 0), ny_size(x, 1)), iota_like(n, y, 1)),
           *coord[NY_MAX_RANK];
  for (int i = w->spatial - 1; i >= 0; i--) {
    ny_value *k = ny_ew2s(n, NY_rem, winner, (double)w->kernel[i]);
    ny_value *from = ny_ew2s(n, NY_mul, iota_like(n, y, i + 2), (double)w->stride[i]);
    winner = ny_ew2s(n, NY_div, winner, (double)w->kernel[i]);
    coord[i] = ny_ew2(n, NY_add, from, ny_ew2s(n, NY_mul, k, (double)w->dilation[i]));
    coord[i] = ny_ew2(n, NY_sub, coord[i], ny_b_dims(&n->b, &w->lo[i], 1, true));
  }
  for (int j = 0; j < w->spatial; j++) {
    int i = by_column ? w->spatial - 1 - j : j;
    at = ny_ew2(n, NY_add, times_dim(n, at, ny_size(x, i + 2)), coord[i]);
  }
  return at;
}

static ny_value *max_indices(ny_node *n, ny_value *x, const ny_value *y, const ny_window *w, const ny_dim *more) {
  int64_t places = 1;
  ny_value *v[MAX_PLACES];
  for (int i = 0; i < w->spatial; i++) {
    places *= w->kernel[i];
    if (places > MAX_PLACES) {
      ny_node_fail(n, NYB_E_UNSUPPORTED, "indices of windows of more than %d elements", (int)MAX_PLACES);
      return NULL;
    }
  }
  ny_value *pad = ny_channels_first(n, padded(n, x, w, more, lowest(n, x)));
  for (int64_t k = 0; k < places; k++)
    if (!pad || !(v[k] = place(n, pad, y, w, k))) return NULL;
  ny_value *all = ny_b_concat(&n->b, v, (int)places, 0);
  ny_op *op = ny_op_of(n, NY_argreduce, &all, 1);
  if (!op) return NULL;
  op->attr[NY_AT(argreduce, axis)].i = 0;
  return positions(n, x, y, w, ny_infer(n, op));
}

nyb_status ny_op_max_pool(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_window w = {0};
  ny_dim more[NY_MAX_RANK];
  if (!x || !read_pool(n, x, &w)) return ny_failed(n);
  ceil_pads(n, x, &w, more);
  ny_value *y = ny_channels_first(n, window(n, "max", padded(n, x, &w, more, lowest(n, x)), &w));
  if (y && ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, max_indices(n, x, y, &w, more)));
  return ny_out(n, 0, y);
}
