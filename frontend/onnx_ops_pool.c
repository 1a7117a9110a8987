/* Pools: a window over the padded input, and MaxUnpool. MaxPool pads with the lowest value; AveragePool divides the sum
   by a count that is itself a windowed sum, over ones, so that every combination of ceil_mode, dilation and
   count_include_pad comes out of one rule (and folds to a constant). */
#include <math.h>
#include <string.h>
#include "onnx.h"
#include "onnx_conv.h"

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
  for (int i = 0; x && i < ny_rank(x); i++) {
    bool slides = i >= 1 && i <= w->spatial;
    size[i] = slides ? w->kernel[i - 1] : 1;
    stride[i] = slides ? w->stride[i - 1] : 1;
    dil[i] = slides ? w->dilation[i - 1] : 1;
  }
  return ny_window_op(n, op_name, x, size, stride, dil);
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

/* What every pool begins with; more: padding beyond w->hi. */
static bool read_pool(ny_node *n, ny_window *w, ny_dim *more) {
  if (!ny_window_of_shape(n, n->in[0], w)) return false;
  ceil_pads(n, n->in[0], w, more);
  return true;
}

nyb_status ny_op_average_pool(ny_node *n) {
  ny_value *x = n->in[0];
  ny_window w = {0};
  ny_dim more[NY_MAX_RANK];
  if (!read_pool(n, &w, more)) return ny_failed(n);
  ny_value *sum = window(n, "sum", padded(n, x, &w, more, NULL), &w);
  ny_value *count = counts(n, x, &w, more, ny_attr_int(n, "count_include_pad", 0) != 0);
  return ny_out(n, 0, ny_channels_first(n, ny_ew2(n, NY_div, sum, count)));
}

/* ---- Lp: (sum |x|^p)^(1/p) */
static ny_value *raised(ny_node *n, double p) {
  ny_value *x = n->in[0];
  if (p == 2) return ny_ew2(n, NY_mul, x, x);
  return p == 1 ? ny_ew1(n, NY_abs, x) : ny_ew2s(n, NY_pow, ny_ew1(n, NY_abs, x), p);
}
static ny_value *root(ny_node *n, ny_value *sum, double p) {
  return p == 1 ? sum : p == 2 ? ny_ew1(n, NY_sqrt, sum) : ny_ew2s(n, NY_pow, sum, 1 / p);
}

nyb_status ny_op_lp_pool(ny_node *n) {
  ny_window w = {0};
  ny_dim more[NY_MAX_RANK];
  double p = (double)ny_attr_int(n, "p", 2);
  if (!read_pool(n, &w, more)) return ny_failed(n);
  ny_value *sum = window(n, "sum", padded(n, raised(n, p), &w, more, NULL), &w);
  return ny_out(n, 0, ny_channels_first(n, root(n, sum, p)));
}

/* ---- Everything after batch and channel */
nyb_status ny_op_global_pool(ny_node *n) {
  enum { AVERAGE, MAX, LP }; /* arg */
  ny_value *x = n->in[0];
  int axes[NY_MAX_RANK], count = 0;
  double p = (double)ny_attr_int(n, "p", 2);
  for (int i = 2; i < ny_rank(x); i++) axes[count++] = i;
  if (n->arg == LP) return ny_out(n, 0, root(n, ny_b_reduce(&n->b, "sum", raised(n, p), axes, count, true), p));
  if (!count) return ny_out(n, 0, x);
  return ny_out(n, 0,
                n->arg == MAX ? ny_b_reduce(&n->b, "max", x, axes, count, true) : ny_mean(n, x, axes, count, true));
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
static ny_value *times_dim(ny_node *n, ny_value *v, ny_dim d) { return ny_ew2(n, NY_mul, v, ny_dim_value(n, d)); }

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
    coord[i] = ny_ew2(n, NY_sub, coord[i], ny_dim_value(n, w->lo[i]));
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
    if (places > MAX_PLACES)
      return ny_refuse_value(n, NYB_E_UNSUPPORTED, "indices of windows of more than %d elements", (int)MAX_PLACES);
  }
  ny_value *pad = ny_channels_first(n, padded(n, x, w, more, lowest(n, x)));
  for (int64_t k = 0; k < places; k++)
    if (!pad || !(v[k] = place(n, pad, y, w, k))) return NULL;
  return positions(n, x, y, w, ny_arg_reduce(n, ny_b_concat(&n->b, v, (int)places, 0), "max", 0, false));
}

nyb_status ny_op_max_pool(ny_node *n) {
  ny_value *x = n->in[0];
  ny_window w = {0};
  ny_dim more[NY_MAX_RANK];
  if (!read_pool(n, &w, more)) return ny_failed(n);
  ny_value *y = ny_channels_first(n, window(n, "max", padded(n, x, &w, more, lowest(n, x)), &w));
  if (y && ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, max_indices(n, x, y, &w, more)));
  return ny_out(n, 0, y);
}

/* Values go to flat positions of the tensor that the pooling window implies; output_shape may pad it at the end. */
nyb_status ny_op_max_unpool(ny_node *n) {
  ny_value *x = n->in[0];
  int rank = ny_rank(x), count;
  ny_window w = {0};
  ny_dim shape[NY_MAX_RANK], want[NY_MAX_RANK], lo[NY_MAX_RANK] = {0}, hi[NY_MAX_RANK];
  if (!ny_window_of_shape(n, x, &w)) return ny_failed(n);
  shape[0] = ny_size(x, 0), shape[1] = ny_size(x, 1);
  for (int i = 0; i < w.spatial; i++) {
    ny_dim span = ny_dim_mul(n->cx, ny_dim_sub(n->cx, ny_size(x, i + 2), 1), w.stride[i]);
    shape[i + 2] = ny_dim_add(n->cx, span, ny_dim_const(n->cx, w.kernel[i] - w.lo[i] - w.hi[i]));
  }
  ny_dim total = ny_product(n, shape, rank), flat = ny_type_count(n->cx, x->type);
  if (!ny_opt(n, 2) && !ny_numbers_fit(n, 1, 0, total, "index")) return ny_failed(n);
  ny_value *y = ny_full(n, ny_fmt_of(x), 1, &total, 0);
  y = ny_scatter_elements(n, y, ny_reshape_to(n, n->in[1], 1, &flat), ny_reshape_to(n, x, 1, &flat), 0, "set");
  y = ny_reshape_to(n, y, rank, shape);
  if (!y || !ny_opt(n, 2)) return ny_out(n, 0, y);
  if (!ny_node_dims(n, 2, want, NY_MAX_RANK, &count)) return ny_failed(n);
  if (count != rank) return ny_node_fail(n, NYB_E_SHAPE, "output_shape has %d numbers for rank %d", count, rank);
  for (int i = 0; i < rank; i++) hi[i] = ny_dim_sub(n->cx, want[i], shape[i]);
  return ny_out(n, 0, ny_b_pad(&n->b, y, NULL, lo, hi, NULL, "constant"));
}
