/* Normalisations: composites around layer_norm and rms_norm. Each computes in f32 where the input is narrower, as
 * ONNX's stash_type says. */
#include "onnx.h"

#include <string.h>

static bool half(ny_fmt f) { return ny_is_float(f) && ny_fmts[f].bits < 32; }

/* (x - mean) / sqrt(var + eps) over the dims from axis. */
static ny_value *normalised(ny_node *n, ny_value *x, int axis, double eps) {
  ny_op *op = ny_build(&n->b, NY_layer_norm, &x, 1, &x->type, 1);
  if (!op) return NULL;
  op->attr[NY_AT(layer_norm, axis)].i = axis;
  op->attr[NY_AT(layer_norm, eps)].f = eps;
  return ny_done(n, op);
}

/* A vector along dim 1 of a tensor of `rank`. */
static ny_value *along_channels(ny_node *n, ny_value *v, int rank) {
  if (ny_rank(v) != 1) {
    ny_node_fail(n, NYB_E_SHAPE, "scale and bias must be vectors, not of rank %d", ny_rank(v));
    return NULL;
  }
  ny_dim shape[NY_MAX_RANK];
  for (int i = 0; i < rank - 1; i++) shape[i] = i == 0 ? ny_size(v, 0) : 1;
  return ny_reshape_to(n, v, rank - 1, shape);
}

static ny_value *scale_bias(ny_node *n, ny_value *x, ny_value *scale, ny_value *bias) {
  if (!x) return NULL;
  scale = along_channels(n, scale, ny_rank(x));
  bias = scale ? along_channels(n, bias, ny_rank(x)) : NULL;
  if (!bias) return NULL;
  ny_value *y = ny_ew2(n, NY_mul, x, ny_cast_to(n, scale, ny_fmt_of(x)));
  return y ? ny_ew2(n, NY_add, y, ny_cast_to(n, bias, ny_fmt_of(x))) : NULL;
}

nyb_status ny_op_instance_norm(ny_node *n) {
  ny_value *x = ny_need(n, 0), *scale = ny_need(n, 1), *bias = ny_need(n, 2);
  if (!x || !scale || !bias) return ny_failed(n);
  ny_fmt f = ny_fmt_of(x);
  if (ny_rank(x) < 3)
    return ny_node_fail(n, NYB_E_SHAPE, "the input needs at least one dimension after N and C, its rank is %d",
                        ny_rank(x));
  ny_value *w = ny_cast_to(n, x, half(f) ? NY_f32 : f);
  ny_value *y = w ? scale_bias(n, normalised(n, w, 2, ny_attr_float(n, "epsilon", 1e-5)), scale, bias) : NULL;
  return y ? ny_out(n, 0, ny_cast_to(n, y, f)) : ny_failed(n);
}

/* Opset 18 scales groups, later ones channels. */
nyb_status ny_op_group_norm(ny_node *n) {
  ny_value *x = ny_need(n, 0), *scale = ny_need(n, 1), *bias = ny_need(n, 2);
  int64_t groups = ny_attr_int(n, "num_groups", 0), channels;
  if (!x || !scale || !bias) return ny_failed(n);
  int rank = ny_rank(x);
  if (rank < 2) return ny_node_fail(n, NYB_E_SHAPE, "the input has rank %d", rank);
  if (!ny_need_static(n, x, 1, "the number of channels", &channels)) return ny_failed(n);
  if (groups <= 0 || channels % groups)
    return ny_node_fail(n, NYB_E_SHAPE, "%lld channels do not split into %lld groups", (long long)channels,
                        (long long)groups);
  ny_fmt f = ny_fmt_of(x), wide = half(f) ? NY_f32 : f;
  ny_dim shape[3] = {ny_size(x, 0), groups, channels / groups};
  for (int i = 2; i < rank; i++) shape[2] = ny_dim_mul(n->cx, shape[2], ny_size(x, i));
  ny_value *w = ny_cast_to(n, x, wide);
  w = w ? ny_reshape_to(n, w, 3, shape) : NULL;
  ny_value *y = w ? normalised(n, w, 2, ny_attr_float(n, "epsilon", 1e-5)) : NULL;
  if (n->version < 21) y = scale_bias(n, y, scale, bias);
  y = y ? ny_reshape_to(n, y, rank, x->type->dim) : NULL;
  if (n->version >= 21) y = scale_bias(n, y, scale, bias);
  return y ? ny_out(n, 0, ny_cast_to(n, y, f)) : ny_failed(n);
}

nyb_status ny_op_rms_norm(ny_node *n) {
  ny_value *x = ny_need(n, 0), *scale = ny_need(n, 1);
  int axis;
  if (!x || !scale || !ny_axis(n, ny_attr_int(n, "axis", -1), ny_rank(x), &axis)) return ny_failed(n);
  int tail = ny_rank(x) - axis;
  bool direct = ny_rank(scale) == tail && ny_fmt_of(scale) == ny_fmt_of(x) &&
                !memcmp(scale->type->dim, x->type->dim + axis, sizeof(ny_dim) * (size_t)tail);
  ny_op *op = ny_build(&n->b, NY_rms_norm, (ny_value *[]){x, scale}, direct ? 2 : 1, &x->type, 1);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(rms_norm, axis)].i = axis;
  op->attr[NY_AT(rms_norm, eps)].f = ny_attr_float(n, "epsilon", 1e-5);
  ny_value *y = ny_done(n, op);
  if (direct) return ny_out(n, 0, y);
  y = ny_cast_to(n, y, ny_fmt_of(scale));
  return y ? ny_out(n, 0, ny_ew2(n, NY_mul, y, scale)) : ny_failed(n);
}

/* x / |x|_p along axis, 0 where the norm is 0. */
nyb_status ny_op_lp_norm(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int axis;
  int64_t p = ny_attr_int(n, "p", 2);
  if (!x || !ny_axis(n, ny_attr_int(n, "axis", -1), ny_rank(x), &axis)) return ny_failed(n);
  if (p != 1 && p != 2) return ny_node_fail(n, NYB_E_UNSUPPORTED, "p is %lld, not 1 or 2", (long long)p);
  ny_fmt f = ny_fmt_of(x);
  ny_value *w = ny_cast_to(n, x, half(f) ? NY_f32 : f);
  ny_value *e = !w ? NULL : p == 1 ? ny_ew1(n, NY_abs, w) : ny_ew2(n, NY_mul, w, w);
  ny_value *norm = e ? ny_b_reduce(&n->b, "sum", e, &axis, 1, true) : NULL;
  if (norm && p == 2) norm = ny_ew1(n, NY_sqrt, norm);
  if (!norm) return ny_failed(n);
  ny_value *zero = ny_num(n, norm, 0), *none = zero ? ny_ew2(n, NY_eq, norm, zero) : NULL;
  ny_value *y = none ? ny_ew(n, NY_where, (ny_value *[]){none, zero, ny_ew2(n, NY_div, w, norm)}, 3) : NULL;
  return y ? ny_out(n, 0, ny_cast_to(n, y, f)) : ny_failed(n);
}

nyb_status ny_op_mvn(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int axes[NY_MAX_RANK] = {0, 2, 3}, count;
  if (!x || !ny_axes_or_attr(n, -1, "axes", ny_rank(x), axes, &count)) return ny_failed(n);
  if (count < 0) {
    count = 3;
    if (ny_rank(x) != 4) return ny_node_fail(n, NYB_E_SHAPE, "default axes need rank 4, not %d", ny_rank(x));
    axes[0] = 0, axes[1] = 2, axes[2] = 3;
  }
  ny_fmt f = ny_fmt_of(x);
  ny_value *w = ny_cast_to(n, x, half(f) ? NY_f32 : f);
  ny_dim many = 1;
  for (int i = 0; i < count; i++) many = ny_dim_mul(n->cx, many, ny_size(x, axes[i]));
  ny_value *size = ny_b_dims(&n->b, &many, 1, true);
  if (!w || !size) return ny_failed(n);
  size = ny_cast_to(n, size, ny_fmt_of(w));
  ny_value *mean = ny_ew2(n, NY_div, ny_b_reduce(&n->b, "sum", w, axes, count, true), size);
  ny_value *d = mean ? ny_ew2(n, NY_sub, w, mean) : NULL;
  ny_value *sq = d ? ny_b_reduce(&n->b, "sum", ny_ew2(n, NY_mul, d, d), axes, count, true) : NULL;
  ny_value *std = sq ? ny_ew1(n, NY_sqrt, ny_ew2(n, NY_div, sq, size)) : NULL;
  std = std ? ny_ew2s(n, NY_add, std, 1e-9) : NULL;
  ny_value *y = std ? ny_ew2(n, NY_div, d, std) : NULL;
  return y ? ny_out(n, 0, ny_cast_to(n, y, f)) : ny_failed(n);
}
