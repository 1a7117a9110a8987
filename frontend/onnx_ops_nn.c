/* Products, normalisations and reductions of ordinary networks. */
#include <math.h>
#include <string.h>
#include "onnx.h"

/* ---- MatMul, Gemm */
static bool unify_batch(ny_node *n, ny_value *x, ny_value *y) {
  for (int p = 3; p <= ny_rank(x) && p <= ny_rank(y); p++) {
    ny_dim a = ny_size(x, ny_rank(x) - p), b = ny_size(y, ny_rank(y) - p);
    if (a != 1 && b != 1 && !ny_unify(n, a, b, "batch sizes of a product")) return false;
  }
  return true;
}

/* numpy's rules: a vector on the left is a row, on the right a column, and its dim is dropped from the result. */
nyb_status ny_op_matmul(ny_node *n) {
  ny_value *x = ny_need(n, 0), *y = ny_need(n, 1);
  if (!x || !y) return ny_failed(n);
  if (ny_rank(x) < 1 || ny_rank(y) < 1)
    return ny_node_fail(n, NYB_E_SHAPE, "a scalar cannot be multiplied as a matrix");
  bool row = ny_rank(x) == 1, col = ny_rank(y) == 1;
  if (row) x = ny_unsqueeze_at(n, x, 0);
  if (col) y = ny_unsqueeze_at(n, y, 1);
  if (!x || !y || !ny_unify(n, ny_size(x, ny_rank(x) - 1), ny_size(y, ny_rank(y) - 2), "the inner sizes of a product"))
    return ny_failed(n);
  if (!unify_batch(n, x, y)) return ny_failed(n);
  ny_value *z = ny_b_matmul(&n->b, x, y);
  if (z && col) z = ny_squeeze_at(n, z, ny_rank(z) - 1);
  if (z && row) z = ny_squeeze_at(n, z, ny_rank(z) - (col ? 1 : 2));
  return ny_out(n, 0, z);
}

static ny_value *swapped(ny_node *n, ny_value *x, bool swap) {
  return swap ? ny_b_transpose(&n->b, x, (int[]){1, 0}) : x;
}

nyb_status ny_op_gemm(ny_node *n) {
  ny_value *a = ny_need(n, 0), *b = ny_need(n, 1), *c = ny_opt(n, 2);
  if (!a || !b) return ny_failed(n);
  if (ny_rank(a) != 2 || ny_rank(b) != 2)
    return ny_node_fail(n, NYB_E_SHAPE, "inputs have ranks %d and %d, not 2", ny_rank(a), ny_rank(b));
  a = swapped(n, a, ny_attr_int(n, "transA", 0) != 0);
  b = swapped(n, b, ny_attr_int(n, "transB", 0) != 0);
  double alpha = ny_attr_float(n, "alpha", 1), beta = ny_attr_float(n, "beta", 1);
  if (!a || !b || !ny_unify(n, ny_size(a, 1), ny_size(b, 0), "the inner sizes of a product")) return ny_failed(n);
  ny_value *y = ny_b_matmul(&n->b, a, b);
  if (alpha != 1) y = ny_ew2s(n, NY_mul, y, alpha);
  if (c && beta != 1) c = ny_ew2s(n, NY_mul, c, beta);
  if (n->cx->diag.code) return ny_failed(n);
  return ny_out(n, 0, c && beta != 0 ? ny_ew2(n, NY_add, y, c) : y);
}

/* ---- Softmax: over everything from axis on until opset 12, over the axis since. */
nyb_status ny_op_softmax(ny_node *n) {
  ny_value *x = ny_need(n, 0), *y = NULL;
  int axis;
  if (!x) return ny_failed(n);
  bool flat = n->version < 13;
  int64_t at = ny_attr_int(n, "axis", flat ? 1 : -1);
  if (flat && at == ny_rank(x))
    axis = (int)at;
  else if (!ny_axis(n, at, ny_rank(x), &axis))
    return ny_failed(n);
  bool last = axis == ny_rank(x) - 1;
  ny_value *in = flat && !last ? ny_flatten_at(n, x, axis) : x;
  ny_op *op = ny_op_of(n, NY_softmax, &in, 1);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(softmax, axis)].i = flat && !last ? 1 : last ? -1 : axis;
  y = ny_infer(n, op);
  return ny_out(n, 0, y ? ny_reshape_to(n, y, ny_rank(x), x->type->dim) : NULL);
}

/* ---- Reductions */
static ny_value *number_of(ny_node *n, ny_value *x, const int *axes, int count) {
  ny_dim d = 1;
  int64_t c;
  for (int i = 0; i < count; i++) d = ny_dim_mul(n->cx, d, ny_size(x, axes[i]));
  if (ny_dim_is_const(n->cx, d, &c)) return ny_num(n, x, (double)c);
  return ny_cast_to(n, ny_b_dims(&n->b, &d, 1, true), ny_fmt_of(x));
}

static ny_value *mean(ny_node *n, ny_value *x, const int *axes, int count, bool keep) {
  ny_value *sum = x ? ny_b_reduce(&n->b, "sum", x, axes, count, keep) : NULL;
  return sum ? ny_ew2(n, NY_div, sum, number_of(n, x, axes, count)) : NULL;
}

enum { SUM, MEAN, MAX, L2 };

static ny_value *reduced(ny_node *n, ny_value *x, const int *axes, int count, bool keep, bool nothing) {
  ny_value *y;
  if (n->arg == L2) x = ny_ew2(n, NY_mul, x, x);
  if (nothing)
    y = x;
  else if (n->arg == MEAN)
    y = mean(n, x, axes, count, keep);
  else
    y = ny_b_reduce(&n->b, n->arg == MAX ? "max" : "sum", x, axes, count, keep);
  if (n->arg != L2 || !y) return y;
  ny_fmt f = ny_fmt_of(y);
  return ny_is_float(f) ? ny_ew1(n, NY_sqrt, y) : ny_cast_to(n, ny_ew1(n, NY_sqrt, ny_cast_to(n, y, NY_f64)), f);
}

/* Axes: an attribute until opset 17 (ReduceSum: 12), an input since; an empty list means all of them or, when asked
 * for, none. */
nyb_status ny_op_reduce(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int axes[NY_MAX_RANK], count;
  int first_with_input = n->arg == SUM ? 13 : 18;
  if (!x || !ny_axes_or_attr(n, n->version < first_with_input ? -1 : 1, "axes", ny_rank(x), axes, &count))
    return ny_failed(n);
  bool keep = ny_attr_int(n, "keepdims", 1) != 0, nothing = false;
  if (count <= 0) {
    nothing = ny_attr_int(n, "noop_with_empty_axes", 0) != 0;
    for (count = 0; count < ny_rank(x); count++) axes[count] = count;
  }
  bool is_bool = ny_fmt_of(x) == NY_bool;
  ny_value *y = reduced(n, is_bool ? ny_cast_to(n, x, NY_u8) : x, axes, count, keep, nothing);
  return ny_out(n, 0, is_bool ? ny_cast_to(n, y, NY_bool) : y);
}

/* GlobalAveragePool, GlobalMaxPool: everything after batch and channel. */
nyb_status ny_op_global_pool(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int axes[NY_MAX_RANK], count = 0;
  if (!x) return ny_failed(n);
  for (int i = 2; i < ny_rank(x); i++) axes[count++] = i;
  if (!count) return ny_out(n, 0, x);
  return ny_out(n, 0, n->arg == MEAN ? mean(n, x, axes, count, true) : ny_b_reduce(&n->b, "max", x, axes, count, true));
}

/* ---- Normalisations */
static ny_value *per_channel(ny_node *n, ny_value *v, int rank) { /* [c] -> [c,1,1..] to meet dim 1 */
  ny_dim d[NY_MAX_RANK] = {0};
  if (!v || n->cx->diag.code) return NULL;
  if (rank < 2) return v;
  for (int i = 0; i < rank - 1; i++) d[i] = i ? 1 : ny_size(v, 0);
  return ny_reshape_to(n, v, rank - 1, d);
}

static ny_value *rsqrt_of(ny_node *n, ny_value *var, double eps) {
  return ny_ew1(n, NY_reciprocal, ny_ew1(n, NY_sqrt, ny_ew2s(n, NY_add, var, eps)));
}

typedef struct batch_stats {
  ny_value *mean, *var;
} batch_stats;

static batch_stats stats_of(ny_node *n, ny_value *x) {
  int axes[NY_MAX_RANK], count = 0;
  for (int i = 0; i < ny_rank(x); i++)
    if (i != 1) axes[count++] = i;
  batch_stats s = {.mean = mean(n, x, axes, count, false)};
  ny_value *off = ny_ew2(n, NY_sub, x, per_channel(n, s.mean, ny_rank(x)));
  s.var = mean(n, ny_ew2(n, NY_mul, off, off), axes, count, false);
  return s;
}

static ny_value *running(ny_node *n, ny_value *old, ny_value *now, double momentum) {
  ny_value *a = ny_ew2s(n, NY_mul, old, momentum),
           *b = ny_ew2s(n, NY_mul, ny_cast_to(n, now, ny_fmt_of(old)), 1 - momentum);
  return ny_ew2(n, NY_add, a, b);
}

/* x * a + b with a and b made of the four parameters: constants in every deployed network, folded into its convolution
 * later. */
nyb_status ny_op_batch_norm(ny_node *n) {
  ny_value *x = ny_need(n, 0), *scale = ny_need(n, 1), *bias = ny_need(n, 2), *mu = ny_need(n, 3), *var = ny_need(n, 4);
  if (!x || !scale || !bias || !mu || !var) return ny_failed(n);
  double eps = ny_attr_float(n, "epsilon", 1e-5f), momentum = ny_attr_float(n, "momentum", 0.9f);
  if (ny_rank(x) < 2) return ny_node_fail(n, NYB_E_SHAPE, "the input has rank %d, less than 2", ny_rank(x));
  if (n->version < 9 && !ny_attr_int(n, "spatial", 1))
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "spatial=0 is not supported");
  if (n->version >= 14 && ny_attr_int(n, "training_mode", 0)) {
    batch_stats s = stats_of(n, x);
    if (!s.var) return ny_failed(n);
    if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, running(n, mu, s.mean, momentum)));
    if (ny_wanted(n, 2)) NY_TRY(ny_out(n, 2, running(n, var, s.var, momentum)));
    mu = s.mean;
    var = s.var;
  }
  ny_fmt f = ny_fmt_of(x), wide = ny_fmt_of(var);
  ny_value *a = ny_ew2(n, NY_mul, ny_cast_to(n, scale, wide), rsqrt_of(n, var, eps));
  ny_value *b = ny_ew2(n, NY_sub, ny_cast_to(n, bias, wide), ny_ew2(n, NY_mul, ny_cast_to(n, mu, wide), a));
  ny_value *y = ny_ew2(n, NY_mul, ny_cast_to(n, x, wide), per_channel(n, a, ny_rank(x)));
  return ny_out(n, 0, ny_cast_to(n, ny_ew2(n, NY_add, y, per_channel(n, b, ny_rank(x))), f));
}

/* x / (k + alpha/size * sum of x^2 over neighbouring channels)^beta */
nyb_status ny_op_lrn(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int64_t size = ny_attr_int(n, "size", 1);
  if (!x) return ny_failed(n);
  if (size < 1 || size > 1 << 20 || ny_rank(x) < 2)
    return ny_node_fail(n, NYB_E_SHAPE, "size %lld of a tensor of rank %d", (long long)size, ny_rank(x));
  ny_dim lo[NY_MAX_RANK] = {0}, hi[NY_MAX_RANK] = {0}, one[NY_MAX_RANK], win[NY_MAX_RANK];
  for (int i = 0; i < NY_MAX_RANK; i++) one[i] = win[i] = 1;
  lo[1] = (size - 1) / 2;
  hi[1] = size - 1 - lo[1];
  win[1] = size;
  ny_value *sq = ny_ew2(n, NY_mul, x, x),
           *pad = sq && size > 1 ? ny_b_pad(&n->b, sq, NULL, lo, hi, NULL, "constant") : sq;
  ny_op *op = ny_op_of(n, NY_window, &pad, 1);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(window, op)].s = ny_intern(&n->cx->names, "sum");
  op->attr[NY_AT(window, size)] = ny_dims_attr(n->b.g, win, (size_t)ny_rank(x));
  op->attr[NY_AT(window, stride)] = ny_dims_attr(n->b.g, one, (size_t)ny_rank(x));
  op->attr[NY_AT(window, dilation)] = ny_dims_attr(n->b.g, one, (size_t)ny_rank(x));
  ny_value *sum = ny_ew2s(n, NY_mul, ny_infer(n, op), ny_attr_float(n, "alpha", 1e-4f) / (double)size);
  ny_value *base = ny_ew2s(n, NY_add, sum, ny_attr_float(n, "bias", 1));
  return ny_out(n, 0, ny_ew2(n, NY_div, x, ny_ew2s(n, NY_pow, base, ny_attr_float(n, "beta", 0.75f))));
}

/* Scale and bias of exactly the normalised shape go into the op; others are applied after it. */
static bool fits_tail(const ny_value *x, int axis, const ny_value *v) {
  if (!v || ny_rank(v) != ny_rank(x) - axis || ny_fmt_of(v) != ny_fmt_of(x)) return false;
  for (int i = axis; i < ny_rank(x); i++)
    if (ny_size(v, i - axis) != ny_size(x, i)) return false;
  return true;
}

static nyb_status norm_stats(ny_node *n, ny_value *x, int axis, double eps) {
  int axes[NY_MAX_RANK], count = 0;
  if (!ny_wanted(n, 1) && !ny_wanted(n, 2)) return NYB_OK;
  for (int i = axis; i < ny_rank(x); i++) axes[count++] = i;
  ny_value *wide = ny_cast_to(n, x, ny_fmts[ny_fmt_of(x)].bits < 32 ? NY_f32 : ny_fmt_of(x)),
           *m = mean(n, wide, axes, count, true);
  ny_value *off = ny_ew2(n, NY_sub, wide, m),
           *inv = rsqrt_of(n, mean(n, ny_ew2(n, NY_mul, off, off), axes, count, true), eps);
  if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, m));
  return ny_wanted(n, 2) ? ny_out(n, 2, inv) : NYB_OK;
}

nyb_status ny_op_layer_norm(ny_node *n) {
  ny_value *x = ny_need(n, 0), *scale = ny_need(n, 1), *bias = ny_opt(n, 2);
  int axis;
  if (!x || !scale || !ny_axis(n, ny_attr_int(n, "axis", -1), ny_rank(x), &axis)) return ny_failed(n);
  double eps = ny_attr_float(n, "epsilon", 1e-5f);
  ny_value *in[3] = {x, scale, bias};
  int inside = !fits_tail(x, axis, scale) ? 1 : fits_tail(x, axis, bias) ? 3 : 2;
  ny_op *op = ny_op_of(n, NY_layer_norm, in, inside);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(layer_norm, axis)].i = axis == ny_rank(x) - 1 ? -1 : axis;
  op->attr[NY_AT(layer_norm, eps)].f = eps;
  ny_value *y = ny_infer(n, op);
  if (inside < 2) y = ny_ew2(n, NY_mul, y, scale);
  if (inside < 3 && bias) y = ny_ew2(n, NY_add, y, bias);
  NY_TRY(norm_stats(n, x, axis, eps));
  return ny_out(n, 0, y);
}
