/* Convolutions. The IR's conv is channels last and does not pad, so ONNX's becomes transpose, pad, conv, add,
   transpose; the transposes meet their neighbours' and vanish in the layout pass. A transposed convolution is an
   ordinary one over the input spread out by its strides. */
#include <string.h>
#include "onnx.h"
#include "onnx_conv.h"

enum { MAX_SPATIAL = NY_MAX_RANK - 2 };

static bool one_list(ny_node *n, const char *name, int count, int64_t least, int64_t def, int64_t *out) {
  const int64_t *v;
  if (!ny_attr_list(n, name, count, &v)) return false;
  for (int i = 0; i < count; i++) {
    out[i] = v ? v[i] : def;
    if (out[i] < least || out[i] > INT32_MAX)
      return ny_refuse(n, NYB_E_SHAPE, "%s[%d] is %lld", name, i, (long long)out[i]);
  }
  return true;
}

/* SAME: enough padding for ceil(size / stride) results, the odd element at the end (upper) or the start (lower). */
static void same_pads(ny_node *n, const ny_value *x, ny_window *w, bool lower) {
  for (int i = 0; i < w->spatial; i++) {
    ny_dim in = ny_size(x, i + 2), stride = w->stride[i], reach = (w->kernel[i] - 1) * w->dilation[i] + 1;
    ny_dim last = ny_dim_mul(n->cx, ny_dim_sub(n->cx, ny_dim_ceildiv(n->cx, in, stride), 1), stride);
    ny_dim total = ny_dim_max(n->cx, ny_dim_sub(n->cx, ny_dim_add(n->cx, last, reach), in), 0);
    ny_dim half = ny_dim_div(n->cx, total, 2), rest = ny_dim_sub(n->cx, total, half);
    w->lo[i] = lower ? rest : half;
    w->hi[i] = lower ? half : rest;
  }
}

bool ny_window_lists(ny_node *n, ny_window *w) {
  int64_t pads[2 * NY_MAX_RANK];
  int s = w->spatial;
  if (!one_list(n, "strides", s, 1, 1, w->stride) || !one_list(n, "dilations", s, 1, 1, w->dilation) ||
      !one_list(n, "pads", 2 * s, 0, 0, pads))
    return false;
  for (int i = 0; i < s; i++) {
    if (w->kernel[i] > INT32_MAX / w->dilation[i])
      return ny_refuse(n, NYB_E_SHAPE, "a kernel of %lld with dilation %lld is too wide", (long long)w->kernel[i],
                       (long long)w->dilation[i]);
    w->lo[i] = pads[i];
    w->hi[i] = pads[i + s];
  }
  return true;
}

bool ny_window_read(ny_node *n, const ny_value *x, ny_window *w) {
  enum { NOTSET, VALID, SAME_UPPER, SAME_LOWER };
  w->spatial = ny_rank(x) - 2;
  if (w->spatial < 1 || w->spatial > MAX_SPATIAL)
    return ny_refuse(n, NYB_E_SHAPE, "the input has rank %d, not 3 to %d", ny_rank(x), (int)NY_MAX_RANK);
  int mode = ny_attr_choice(n, "auto_pad", "NOTSET", "NOTSET|VALID|SAME_UPPER|SAME_LOWER");
  if (mode < 0 || !ny_window_lists(n, w)) return false;
  w->same = mode == SAME_UPPER || mode == SAME_LOWER;
  if (w->same) same_pads(n, x, w, mode == SAME_LOWER);
  if (mode == VALID) memset(w->lo, 0, sizeof w->lo), memset(w->hi, 0, sizeof w->hi);
  return true;
}

bool ny_window_of_shape(ny_node *n, const ny_value *x, ny_window *w) {
  int spatial = ny_rank(x) - 2;
  if (spatial < 1 || !ny_attr_has(n, "kernel_shape"))
    return ny_refuse(n, NYB_E_SHAPE, spatial < 1 ? "the input has rank %d, less than 3" : "kernel_shape is missing",
                     ny_rank(x));
  return one_list(n, "kernel_shape", spatial, 1, 1, w->kernel) && ny_window_read(n, x, w);
}

ny_value *ny_channels_last(ny_node *n, ny_value *x) { return x ? ny_move_axis(n, x, 1, ny_rank(x) - 1) : NULL; }
ny_value *ny_channels_first(ny_node *n, ny_value *x) { return x ? ny_move_axis(n, x, ny_rank(x) - 1, 1) : NULL; }

ny_value *ny_pad_spatial(ny_node *n, ny_value *x, const ny_dim *lo, const ny_dim *hi, const ny_dim *interior,
                         ny_value *fill) {
  ny_dim l[NY_MAX_RANK] = {0}, h[NY_MAX_RANK] = {0}, in[NY_MAX_RANK] = {0};
  bool any = false;
  if (!x) return NULL;
  for (int i = 0; i < ny_rank(x) - 2; i++) {
    l[i + 1] = lo[i];
    h[i + 1] = hi[i];
    in[i + 1] = interior ? interior[i] : 0;
    any |= lo[i] != 0 || hi[i] != 0 || in[i + 1] != 0;
  }
  return any ? ny_b_pad(&n->b, x, fill, l, h, interior ? in : NULL, "constant") : x;
}

static ny_attr spatial_attr(ny_node *n, const int64_t *v, int spatial) {
  ny_dim d[MAX_SPATIAL];
  for (int i = 0; i < spatial; i++) d[i] = ny_dim_const(n->cx, v[i]);
  return ny_dims_attr(n->b.g, d, (size_t)spatial);
}

ny_value *ny_conv_op(ny_node *n, ny_value *x, ny_value *w, const ny_window *win, const int64_t *stride, int64_t group) {
  ny_op *op = ny_op_of(n, NY_conv, (ny_value *[]){x, w}, 2);
  if (!op) return NULL;
  op->attr[NY_AT(conv, kernel)] = spatial_attr(n, win->kernel, win->spatial);
  op->attr[NY_AT(conv, stride)] = spatial_attr(n, stride, win->spatial);
  op->attr[NY_AT(conv, dilation)] = spatial_attr(n, win->dilation, win->spatial);
  op->attr[NY_AT(conv, group)].i = group;
  return ny_infer(n, op);
}

ny_value *ny_window_op(ny_node *n, const char *how, ny_value *x, const ny_dim *size, const ny_dim *stride,
                       const ny_dim *dilation) {
  ny_op *op = ny_op_of(n, NY_window, &x, 1);
  if (!op) return NULL;
  op->attr[NY_AT(window, op)].s = ny_intern(&n->cx->names, how);
  op->attr[NY_AT(window, size)] = ny_dims_attr(n->b.g, size, (size_t)ny_rank(x));
  op->attr[NY_AT(window, stride)] = ny_dims_attr(n->b.g, stride, (size_t)ny_rank(x));
  op->attr[NY_AT(window, dilation)] = ny_dims_attr(n->b.g, dilation, (size_t)ny_rank(x));
  return ny_infer(n, op);
}

static bool kernel_of(ny_node *n, const ny_value *x, const ny_value *w, ny_window *win) {
  const int64_t *said;
  int spatial = ny_rank(x) - 2;
  if (ny_rank(x) != ny_rank(w) || spatial < 1)
    return ny_refuse(n, NYB_E_SHAPE, "input of rank %d and weights of rank %d", ny_rank(x), ny_rank(w));
  if (!ny_attr_list(n, "kernel_shape", spatial, &said)) return false;
  for (int i = 0; i < spatial; i++) {
    int64_t *k = &win->kernel[i];
    if (!ny_need_static(n, w, i + 2, "the kernel size", k)) return false;
    if (*k < 1 || *k > INT32_MAX) return ny_refuse(n, NYB_E_SHAPE, "the kernel has size %lld", (long long)*k);
    if (said && said[i] != *k)
      return ny_refuse(n, NYB_E_SHAPE, "kernel_shape[%d] is %lld, but the weights have %lld", i, (long long)said[i],
                       (long long)*k);
  }
  return ny_window_read(n, x, win);
}

static bool check_group(ny_node *n, int64_t channels, int64_t results, int64_t group) {
  if (group >= 1 && channels % group == 0 && results % group == 0) return true;
  return ny_refuse(n, NYB_E_SHAPE, "%lld groups do not divide %lld input and %lld output channels", (long long)group,
                   (long long)channels, (long long)results);
}

static ny_value *add_bias(ny_node *n, ny_value *y, ny_value *bias) { /* y channels last */
  if (!y || !bias) return y;
  if (ny_rank(bias) != 1) return ny_refuse_value(n, NYB_E_SHAPE, "the bias has rank %d, not 1", ny_rank(bias));
  if (!ny_unify(n, ny_size(bias, 0), ny_size(y, ny_rank(y) - 1), "bias and results")) return NULL;
  return ny_ew2(n, NY_add, y, bias);
}

ny_value *ny_conv(ny_node *n, ny_value *x, ny_value *w, ny_value *bias) {
  ny_window win = {0};
  int64_t group = ny_attr_int(n, "group", 1), m;
  if (!x || !w || !kernel_of(n, x, w, &win) || !ny_need_static(n, w, 0, "the number of results", &m)) return NULL;
  int64_t per_group;
  if (!ny_need_static(n, w, 1, "the number of channels", &per_group)) return NULL;
  if (group < 1 || group > INT32_MAX || per_group > INT32_MAX || !check_group(n, per_group * group, m, group))
    return NULL;
  if (!ny_unify(n, ny_size(x, 1), ny_dim_const(n->cx, per_group * group), "channels of input and weights")) return NULL;
  int perm[NY_MAX_RANK];
  for (int i = 0; i < win.spatial; i++) perm[i] = i + 2;
  perm[win.spatial] = 1;
  perm[win.spatial + 1] = 0;
  ny_value *y = ny_pad_spatial(n, ny_channels_last(n, x), win.lo, win.hi, NULL, NULL);
  ny_value *k = ny_b_transpose(&n->b, w, perm);
  y = ny_conv_op(n, y, k, &win, win.stride, group);
  return ny_channels_first(n, add_bias(n, y, bias));
}

nyb_status ny_op_conv(ny_node *n) { return ny_out(n, 0, ny_conv(n, n->in[0], n->in[1], ny_opt(n, 2))); }

/* ---- ConvTranspose. Output i gets x[j] * w[i - j*stride + pad]: an ordinary convolution of x spread out by stride,
 * over the kernel flipped. */
static ny_value *flip_weights(ny_node *n, ny_value *w, const ny_window *win, int64_t c, int64_t m, int64_t group) {
  /* [c, m, k..] -> [group, c/group, m, k..] -> [k.., c/group, group, m] -> [k.., c/group, group*m], then reversed along
   * k */
  ny_dim d[NY_MAX_RANK], start[NY_MAX_RANK], step[NY_MAX_RANK];
  int perm[NY_MAX_RANK], s = win->spatial;
  if (s + 3 > NY_MAX_RANK) return ny_refuse_value(n, NYB_E_UNSUPPORTED, "%d spatial dims", s);
  d[0] = group, d[1] = c / group, d[2] = m;
  for (int i = 0; i < s; i++) d[i + 3] = win->kernel[i], perm[i] = i + 3;
  perm[s] = 1, perm[s + 1] = 0, perm[s + 2] = 2;
  ny_value *v = ny_b_transpose(&n->b, ny_reshape_to(n, w, s + 3, d), perm);
  for (int i = 0; i < s; i++) {
    d[i] = win->kernel[i];
    start[i] = win->kernel[i] - 1;
    step[i] = ny_dim_const(n->cx, -1);
  }
  d[s] = c / group, d[s + 1] = group * m;
  start[s] = start[s + 1] = 0;
  step[s] = step[s + 1] = 1;
  v = ny_reshape_to(n, v, s + 2, d);
  return ny_b_slice(&n->b, v, start, step, d);
}

/* Pads that give the asked for size: output_shape, or SAME (size * stride). */
static bool output_pads(ny_node *n, const ny_value *x, ny_window *w, const int64_t *extra) {
  int64_t shape[2 * NY_MAX_RANK];
  int count = -1;
  if (!ny_ints_or_attr(n, -1, "output_shape", shape, 2 * NY_MAX_RANK, &count)) return false;
  if (count >= 0 && count != w->spatial && count != w->spatial + 2)
    return ny_refuse(n, NYB_E_SHAPE, "output_shape has %d entries for %d spatial dims", count, w->spatial);
  if (count < 0 && !w->same) return true;
  bool upper = !strcmp(ny_attr_string(n, "auto_pad", ""), "SAME_UPPER");
  for (int i = 0; i < w->spatial; i++) {
    ny_dim in = ny_size(x, i + 2), stride = w->stride[i];
    ny_dim want = count < 0 ? ny_dim_mul(n->cx, in, stride) : ny_dim_const(n->cx, shape[count - w->spatial + i]);
    ny_dim full = ny_dim_mul(n->cx, stride, ny_dim_sub(n->cx, in, 1));
    full = ny_dim_add(n->cx, full, extra[i] + (w->kernel[i] - 1) * w->dilation[i] + 1);
    ny_dim total = ny_dim_sub(n->cx, full, want), half = ny_dim_div(n->cx, total, 2),
           rest = ny_dim_sub(n->cx, total, half);
    int64_t t;
    bool longer = ny_dim_is_const(n->cx, total, &t) && t < 0; /* than the kernel reaches: zeros at the end */
    w->lo[i] = longer ? 0 : upper ? half : rest;
    w->hi[i] = longer ? total : upper ? rest : half;
  }
  return true;
}

static ny_value *spread_conv(ny_node *n, ny_value *x, ny_value *w, const ny_window *win, const int64_t *extra,
                             int64_t group) {
  static const int64_t ones[MAX_SPATIAL] = {1, 1, 1, 1, 1, 1};
  ny_dim full_lo[MAX_SPATIAL], full_hi[MAX_SPATIAL], gaps[MAX_SPATIAL], start[NY_MAX_RANK] = {0}, count[NY_MAX_RANK];
  for (int i = 0; i < win->spatial; i++) {
    int64_t reach = (win->kernel[i] - 1) * win->dilation[i], lo = 0;
    bool known = ny_dim_is_const(n->cx, win->lo[i], &lo);
    int64_t inside = known && lo <= reach ? lo : 0; /* padding less the crop, as far as it is not negative */
    full_lo[i] = reach - inside;
    full_hi[i] = reach + extra[i];
    gaps[i] = win->stride[i] - 1;
    start[i + 1] = ny_dim_sub(n->cx, win->lo[i], inside);
  }
  x = ny_pad_spatial(n, ny_channels_last(n, x), full_lo, full_hi, gaps, NULL);
  ny_value *y = ny_conv_op(n, x, w, win, ones, group);
  if (!y) return NULL;
  for (int i = 0; i < ny_rank(y); i++) count[i] = ny_size(y, i);
  for (int i = 0; i < win->spatial; i++) {
    count[i + 1] = ny_dim_sub(n->cx, ny_dim_sub(n->cx, count[i + 1], start[i + 1]), win->hi[i]);
    int64_t c;
    if (ny_dim_is_const(n->cx, count[i + 1], &c) && c < 0)
      return ny_refuse_value(n, NYB_E_SHAPE, "the result would have size %lld", (long long)c);
  }
  return ny_b_slice(&n->b, y, start, NULL, count);
}

nyb_status ny_op_conv_transpose(ny_node *n) {
  ny_value *x = n->in[0], *w = n->in[1], *bias = ny_opt(n, 2);
  ny_window win = {0};
  int64_t c, m, group = ny_attr_int(n, "group", 1), extra[MAX_SPATIAL];
  if (!kernel_of(n, x, w, &win) || !one_list(n, "output_padding", win.spatial, 0, 0, extra)) return ny_failed(n);
  if (!ny_need_static(n, w, 0, "the number of channels", &c) || !ny_need_static(n, w, 1, "the number of results", &m))
    return ny_failed(n);
  if (!check_group(n, c, group, group) || m > INT32_MAX || group > INT32_MAX) return ny_failed(n);
  if (!ny_unify(n, ny_size(x, 1), ny_dim_const(n->cx, c), "channels of input and weights") ||
      !output_pads(n, x, &win, extra))
    return ny_failed(n);
  for (int i = 0; i < win.spatial; i++) { /* a negative end crop asks for more at the end */
    int64_t h;
    if (ny_dim_is_const(n->cx, win.hi[i], &h) && h < 0) extra[i] -= h, win.hi[i] = 0;
  }
  ny_value *y = spread_conv(n, x, flip_weights(n, w, &win, c, m, group), &win, extra, group);
  return ny_out(n, 0, ny_channels_first(n, add_bias(n, y, bias)));
}
