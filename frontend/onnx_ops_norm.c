/* Normalisations: composites around layer_norm and rms_norm. Each computes in f32 where the input is narrower, as
   ONNX's stash_type says. */
#include "onnx.h"
#include "onnx_conv.h"

#include <string.h>

/* y * scale + bias with vectors along dim 1. */
static ny_value *scale_bias(ny_node *n, ny_value *y, ny_value *scale, ny_value *bias) {
  if (!y) return NULL;
  scale = ny_cast_to(n, ny_along(n, scale, 1, ny_rank(y)), ny_fmt_of(y));
  bias = ny_cast_to(n, ny_along(n, bias, 1, ny_rank(y)), ny_fmt_of(y));
  return ny_ew2(n, NY_add, ny_ew2(n, NY_mul, y, scale), bias);
}

/* (x - mean) / sqrt(var + eps) over the dims from axis; scale and bias are those of the op and may be absent. */
static ny_value *normalised(ny_node *n, ny_value *const *in, int n_in, int axis) {
  ny_op *op = ny_op_of(n, NY_layer_norm, in, n_in);
  if (!op) return NULL;
  op->attr[NY_AT(layer_norm, axis)].i = axis == ny_rank(in[0]) - 1 ? -1 : axis;
  op->attr[NY_AT(layer_norm, eps)].f = ny_attr_float(n, "epsilon", 1e-5f);
  return ny_infer(n, op);
}

/* Mean and variance over some axes, which stay as dims of size 1. */
static ny_value *moments(ny_node *n, ny_value *x, const int *axes, int count, ny_value **var) {
  ny_value *mean = ny_mean(n, x, axes, count, true), *off = ny_ew2(n, NY_sub, x, mean);
  *var = ny_mean(n, ny_ew2(n, NY_mul, off, off), axes, count, true);
  return mean;
}

static ny_value *rsqrt_of(ny_node *n, ny_value *var, double eps) {
  return ny_ew1(n, NY_reciprocal, ny_ew1(n, NY_sqrt, ny_ew2s(n, NY_add, var, eps)));
}

static ny_value *running(ny_node *n, ny_value *old, ny_value *now, double momentum) {
  ny_value *part = ny_ew2s(n, NY_mul, ny_cast_to(n, now, ny_fmt_of(old)), 1 - momentum);
  return ny_ew2(n, NY_add, ny_ew2s(n, NY_mul, old, momentum), part);
}

/* x * a + b with a and b made of the four parameters: constants in every deployed network, folded into its convolution
   later. */
nyb_status ny_op_batch_norm(ny_node *n) {
  ny_value *x = n->in[0], *scale = n->in[1], *bias = n->in[2], *mean = n->in[3], *var = n->in[4];
  double momentum = ny_attr_float(n, "momentum", 0.9f);
  if (ny_rank(x) < 2) return ny_node_fail(n, NYB_E_SHAPE, "the input has rank %d, less than 2", ny_rank(x));
  if (n->version < 9 && !ny_attr_int(n, "spatial", 1))
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "spatial=0 is not supported");
  if (n->version >= 14 && ny_attr_int(n, "training_mode", 0)) {
    int axes[NY_MAX_RANK], count = 0;
    for (int i = 0; i < ny_rank(x); i++)
      if (i != 1) axes[count++] = i;
    ny_value *old_mean = mean, *old_var = var;
    mean = ny_reshape_to(n, moments(n, x, axes, count, &var), 1, &x->type->dim[1]);
    var = ny_reshape_to(n, var, 1, &x->type->dim[1]);
    if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, running(n, old_mean, mean, momentum)));
    if (ny_wanted(n, 2)) NY_TRY(ny_out(n, 2, running(n, old_var, var, momentum)));
  }
  if (!var) return ny_failed(n);
  ny_fmt wide = ny_fmt_of(var);
  ny_value *a = ny_ew2(n, NY_mul, ny_cast_to(n, scale, wide), rsqrt_of(n, var, ny_attr_float(n, "epsilon", 1e-5f)));
  ny_value *b = ny_ew2(n, NY_sub, ny_cast_to(n, bias, wide), ny_ew2(n, NY_mul, ny_cast_to(n, mean, wide), a));
  return ny_out(n, 0, ny_cast_to(n, scale_bias(n, ny_cast_to(n, x, wide), a, b), ny_fmt_of(x)));
}

nyb_status ny_op_instance_norm(ny_node *n) {
  ny_value *x = n->in[0];
  ny_fmt f = ny_fmt_of(x);
  if (ny_rank(x) < 3)
    return ny_node_fail(n, NYB_E_SHAPE, "the input needs at least one dimension after N and C, its rank is %d",
                        ny_rank(x));
  ny_value *w = ny_cast_to(n, x, ny_wide(f));
  return ny_out(n, 0, ny_cast_to(n, scale_bias(n, normalised(n, &w, 1, 2), n->in[1], n->in[2]), f));
}

/* Opset 18 scales groups, later ones channels. */
nyb_status ny_op_group_norm(ny_node *n) {
  ny_value *x = n->in[0], *scale = n->in[1], *bias = n->in[2];
  int64_t groups = ny_attr_int(n, "num_groups", 0), channels;
  int rank = ny_rank(x);
  if (rank < 2) return ny_node_fail(n, NYB_E_SHAPE, "the input has rank %d", rank);
  if (!ny_need_static(n, x, 1, "the number of channels", &channels)) return ny_failed(n);
  if (groups <= 0 || channels % groups)
    return ny_node_fail(n, NYB_E_SHAPE, "%lld channels do not split into %lld groups", (long long)channels,
                        (long long)groups);
  ny_dim rest = ny_dim_mul(n->cx, channels / groups, ny_product(n, x->type->dim + 2, rank - 2));
  ny_value *w = ny_cast_to(n, x, ny_wide(ny_fmt_of(x)));
  w = ny_reshape_to(n, w, 3, (ny_dim[]){ny_size(x, 0), groups, rest});
  ny_value *y = normalised(n, &w, 1, 2);
  if (n->version < 21) y = scale_bias(n, y, scale, bias);
  y = ny_reshape_to(n, y, rank, x->type->dim);
  if (n->version >= 21) y = scale_bias(n, y, scale, bias);
  return ny_out(n, 0, ny_cast_to(n, y, ny_fmt_of(x)));
}

/* Scale and bias of exactly the normalised shape go into the op; others are applied after it. */
static bool fits_tail(const ny_value *x, int axis, const ny_value *v) {
  return v && ny_rank(v) == ny_rank(x) - axis && ny_fmt_of(v) == ny_fmt_of(x) &&
         !memcmp(v->type->dim, x->type->dim + axis, sizeof(ny_dim) * (size_t)ny_rank(v));
}

static nyb_status norm_stats(ny_node *n, ny_value *x, int axis) {
  int axes[NY_MAX_RANK], count = 0;
  ny_value *var;
  if (!ny_wanted(n, 1) && !ny_wanted(n, 2)) return NYB_OK;
  for (int i = axis; i < ny_rank(x); i++) axes[count++] = i;
  ny_value *mean = moments(n, ny_cast_to(n, x, ny_wide(ny_fmt_of(x))), axes, count, &var);
  if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, mean));
  return ny_wanted(n, 2) ? ny_out(n, 2, rsqrt_of(n, var, ny_attr_float(n, "epsilon", 1e-5f))) : NYB_OK;
}

nyb_status ny_op_layer_norm(ny_node *n) {
  ny_value *x = n->in[0], *scale = n->in[1], *bias = ny_opt(n, 2);
  int axis;
  if (!ny_attr_axis(n, -1, ny_rank(x), &axis)) return ny_failed(n);
  int inside = !fits_tail(x, axis, scale) ? 1 : fits_tail(x, axis, bias) ? 3 : 2;
  ny_value *y = normalised(n, (ny_value *[]){x, scale, bias}, inside, axis);
  if (inside < 2) y = ny_ew2(n, NY_mul, y, scale);
  if (inside < 3 && bias) y = ny_ew2(n, NY_add, y, bias);
  NY_TRY(norm_stats(n, x, axis));
  return ny_out(n, 0, y);
}

nyb_status ny_op_rms_norm(ny_node *n) {
  ny_value *x = n->in[0], *scale = n->in[1];
  int axis;
  if (!ny_attr_axis(n, -1, ny_rank(x), &axis)) return ny_failed(n);
  bool inside = fits_tail(x, axis, scale);
  ny_op *op = ny_op_of(n, NY_rms_norm, n->in, inside ? 2 : 1);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(rms_norm, axis)].i = axis;
  op->attr[NY_AT(rms_norm, eps)].f = ny_attr_float(n, "epsilon", 1e-5);
  ny_value *y = ny_infer(n, op);
  return ny_out(n, 0, inside ? y : ny_ew2(n, NY_mul, ny_cast_to(n, y, ny_fmt_of(scale)), scale));
}

/* x / |x|_p along an axis; where the norm is 0, so is the result. p 0: the largest element instead of a norm. */
static ny_value *over_norm(ny_node *n, ny_value *x, int axis, int p) {
  ny_value *each = p == 0 ? x : p == 1 ? ny_ew1(n, NY_abs, x) : ny_ew2(n, NY_mul, x, x);
  ny_value *norm = ny_b_reduce(&n->b, p ? "sum" : "max", each, &axis, 1, true);
  if (p == 2) norm = ny_ew1(n, NY_sqrt, norm);
  return ny_ew2(n, NY_div, x, ny_where(n, ny_ew2s(n, NY_eq, norm, 0), ny_num(n, norm, 1), norm));
}

nyb_status ny_op_lp_norm(ny_node *n) {
  int axis;
  int64_t p = ny_attr_int(n, "p", 2);
  ny_fmt f = ny_fmt_of(n->in[0]);
  if (!ny_attr_axis(n, -1, ny_rank(n->in[0]), &axis)) return ny_failed(n);
  if (p != 1 && p != 2) return ny_node_fail(n, NYB_E_UNSUPPORTED, "p is %lld, not 1 or 2", (long long)p);
  return ny_out(n, 0, ny_cast_to(n, over_norm(n, ny_cast_to(n, n->in[0], ny_wide(f)), axis, (int)p), f));
}

/* ai.onnx.ml: rows divided by their largest element, sum of magnitudes or length. */
nyb_status ny_op_normalizer(ny_node *n) {
  ny_value *x = n->in[0];
  int p = ny_attr_choice(n, "norm", "MAX", "MAX|L1|L2");
  if (!ny_rank(x)) return ny_node_fail(n, NYB_E_SHAPE, "a scalar has no rows");
  if (!ny_is_float(ny_fmt_of(x))) x = ny_cast_to(n, x, NY_f32);
  return ny_out(n, 0, p < 0 || !x ? NULL : ny_cast_to(n, over_norm(n, x, ny_rank(x) - 1, p), NY_f32));
}

nyb_status ny_op_mvn(ny_node *n) {
  ny_value *x = n->in[0], *var;
  int axes[NY_MAX_RANK] = {0, 2, 3}, count;
  ny_fmt f = ny_fmt_of(x);
  if (!ny_axes_or_attr(n, -1, "axes", ny_rank(x), axes, &count)) return ny_failed(n);
  if (count < 0) {
    count = 3;
    if (ny_rank(x) != 4) return ny_node_fail(n, NYB_E_SHAPE, "default axes need rank 4, not %d", ny_rank(x));
  }
  x = ny_cast_to(n, x, ny_wide(f));
  ny_value *d = ny_ew2(n, NY_sub, x, moments(n, x, axes, count, &var));
  return ny_out(n, 0, ny_cast_to(n, ny_ew2(n, NY_div, d, ny_ew2s(n, NY_add, ny_ew1(n, NY_sqrt, var), 1e-9)), f));
}

/* x / (k + alpha/size * sum of x^2 over neighbouring channels)^beta */
nyb_status ny_op_lrn(ny_node *n) {
  ny_value *x = n->in[0];
  int64_t size = ny_attr_int(n, "size", 1);
  if (size < 1 || size > 1 << 20 || ny_rank(x) < 2)
    return ny_node_fail(n, NYB_E_SHAPE, "size %lld of a tensor of rank %d", (long long)size, ny_rank(x));
  ny_dim lo[NY_MAX_RANK] = {0}, hi[NY_MAX_RANK] = {0}, one[NY_MAX_RANK], win[NY_MAX_RANK];
  for (int i = 0; i < NY_MAX_RANK; i++) one[i] = win[i] = 1;
  lo[1] = (size - 1) / 2;
  hi[1] = size - 1 - lo[1];
  win[1] = size;
  ny_value *sq = ny_ew2(n, NY_mul, x, x);
  if (size > 1) sq = ny_b_pad(&n->b, sq, NULL, lo, hi, NULL, "constant");
  ny_value *sum = ny_window_op(n, "sum", sq, win, one, one);
  ny_value *base = ny_ew2s(n, NY_mul, sum, ny_attr_float(n, "alpha", 1e-4f) / (double)size);
  base = ny_ew2s(n, NY_add, base, ny_attr_float(n, "bias", 1));
  return ny_out(n, 0, ny_ew2(n, NY_div, x, ny_ew2s(n, NY_pow, base, ny_attr_float(n, "beta", 0.75f))));
}
