/* Reductions, running sums, arg-reductions and the softmax relatives. Axes are an attribute in old opsets and an input
 * in new ones. */
#include "onnx.h"

typedef struct axes {
  int n, at[NY_MAX_RANK];
  bool keep;
} axes;

/* Without axes everything is reduced, or nothing where noop_with_empty_axes says so (elementwise parts still apply). */
static bool axes_of(ny_node *n, const ny_value *x, axes *a) {
  int rank = ny_rank(x);
  a->keep = ny_attr_int(n, "keepdims", 1) != 0;
  if (!ny_axes_or_attr(n, 1, "axes", rank, a->at, &a->n)) return false;
  if (a->n > 0) return true;
  a->n = ny_attr_int(n, "noop_with_empty_axes", 0) ? 0 : rank;
  for (int i = 0; i < a->n; i++) a->at[i] = i;
  return true;
}

static ny_value *fold(ny_node *n, const char *op, ny_value *x, const axes *a, bool keep) {
  if (!x || !a->n) return x;
  return ny_b_reduce(&n->b, op, x, a->at, a->n, keep);
}

static bool half(ny_fmt f) { return ny_is_float(f) && ny_fmts[f].bits < 32; }

nyb_status ny_op_reduce_l1(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  axes a;
  if (!x || !axes_of(n, x, &a)) return ny_failed(n);
  return ny_out(n, 0, fold(n, "sum", ny_ew1(n, NY_abs, x), &a, a.keep));
}

nyb_status ny_op_reduce_prod(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  axes a;
  if (!x || !axes_of(n, x, &a)) return ny_failed(n);
  return ny_out(n, 0, fold(n, "prod", x, &a, a.keep));
}

nyb_status ny_op_reduce_min(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  axes a;
  if (!x || !axes_of(n, x, &a)) return ny_failed(n);
  if (ny_fmt_of(x) != NY_bool) return ny_out(n, 0, fold(n, "min", x, &a, a.keep));
  ny_value *y = fold(n, "min", ny_cast_to(n, x, NY_u8), &a, a.keep);
  if (y && a.n) { /* an empty set has the minimum true, whatever u8 says */
    ny_value *one = ny_num(n, y, 1);
    y = one ? ny_ew2(n, NY_min, y, one) : NULL;
  }
  return y ? ny_out(n, 0, ny_cast_to(n, y, NY_bool)) : ny_failed(n);
}

nyb_status ny_op_reduce_sum_square(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  axes a;
  if (!x || !axes_of(n, x, &a)) return ny_failed(n);
  ny_fmt f = ny_fmt_of(x);
  ny_value *w = half(f) ? ny_cast_to(n, x, NY_f32) : x;
  ny_value *y = w ? fold(n, "sum", ny_ew2(n, NY_mul, w, w), &a, a.keep) : NULL;
  return y ? ny_out(n, 0, ny_cast_to(n, y, f)) : ny_failed(n);
}

nyb_status ny_op_reduce_log_sum(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  axes a;
  if (!x || !axes_of(n, x, &a)) return ny_failed(n);
  ny_fmt f = ny_fmt_of(x);
  if (!ny_is_float(f))
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "the logarithm of %s sums has no rule", ny_fmts[f].name);
  ny_value *y = fold(n, "sum", half(f) ? ny_cast_to(n, x, NY_f32) : x, &a, a.keep);
  if (y) y = ny_ew1(n, NY_log, y);
  return y ? ny_out(n, 0, ny_cast_to(n, y, f)) : ny_failed(n);
}

/* The maximum is taken out so that exp cannot overflow; an infinite one is left in, which gives the limit. */
nyb_status ny_op_reduce_log_sum_exp(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  axes a;
  if (!x || !axes_of(n, x, &a)) return ny_failed(n);
  ny_fmt f = ny_fmt_of(x);
  if (!ny_is_float(f)) return ny_node_fail(n, NYB_E_UNSUPPORTED, "the exponential of %s has no rule", ny_fmts[f].name);
  ny_value *w = half(f) ? ny_cast_to(n, x, NY_f32) : x;
  ny_value *m = fold(n, "max", w, &a, true);
  if (!m) return ny_failed(n);
  m = ny_ew(n, NY_where, (ny_value *[]){ny_ew1(n, NY_isinf, m), ny_num(n, m, 0), m}, 3);
  ny_value *d = m ? ny_ew2(n, NY_sub, w, m) : NULL;
  ny_value *s = d ? fold(n, "sum", ny_ew1(n, NY_exp, d), &a, true) : NULL;
  ny_value *y = s ? ny_ew2(n, NY_add, ny_ew1(n, NY_log, s), m) : NULL;
  if (!y) return ny_failed(n);
  if (!a.keep)
    for (int i = a.n - 1; i >= 0 && y; i--) y = ny_squeeze_at(n, y, a.at[i]);
  return y ? ny_out(n, 0, ny_cast_to(n, y, f)) : ny_failed(n);
}

/* i64 position of the largest or smallest element, the axis dropped. */
static ny_value *arg_reduce(ny_node *n, ny_value *x, bool max, int axis, bool last) {
  ny_dim shape[NY_MAX_RANK];
  int rank = 0;
  for (int i = 0; i < ny_rank(x); i++)
    if (i != axis) shape[rank++] = ny_size(x, i);
  const ny_type *t = ny_tensor_type(n->cx, NY_i64, rank, shape);
  ny_op *op = ny_build(&n->b, NY_argreduce, &x, 1, &t, 1);
  if (!op) return NULL;
  op->attr[NY_AT(argreduce, op)].s = ny_intern(&n->cx->names, max ? "max" : "min");
  op->attr[NY_AT(argreduce, axis)].i = axis;
  op->attr[NY_AT(argreduce, last)].i = last;
  return ny_done(n, op);
}

/* arg: 1 for ArgMax. */
nyb_status ny_op_arg(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int axis;
  if (!x || !ny_axis(n, ny_attr_int(n, "axis", 0), ny_rank(x), &axis)) return ny_failed(n);
  ny_value *y = arg_reduce(n, x, n->arg != 0, axis, ny_attr_int(n, "select_last_index", 0) != 0);
  if (y && ny_attr_int(n, "keepdims", 1)) y = ny_unsqueeze_at(n, y, axis);
  return ny_out(n, 0, y);
}

/* arg: 1 for CumProd. */
nyb_status ny_op_cumulative(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int64_t at[1];
  int count, axis;
  if (!x || !ny_node_ints(n, 1, at, 1, &count)) return ny_failed(n);
  if (count != 1) return ny_node_fail(n, NYB_E_SHAPE, "the axis has %d elements, not 1", count);
  if (!ny_axis(n, at[0], ny_rank(x), &axis)) return ny_failed(n);
  ny_op *op = ny_build(&n->b, NY_scan, &x, 1, &x->type, 1);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(scan, op)].s = ny_intern(&n->cx->names, n->arg ? "prod" : "sum");
  op->attr[NY_AT(scan, axis)].i = axis;
  op->attr[NY_AT(scan, exclusive)].i = ny_attr_int(n, "exclusive", 0) != 0;
  op->attr[NY_AT(scan, reverse)].i = ny_attr_int(n, "reverse", 0) != 0;
  return ny_out(n, 0, ny_done(n, op));
}

/* Before opset 13 the softmax family works on the dims from `axis` (default 1) flattened into one; after it, along
   `axis` (default -1). Gives the tensor to work on and the axis in it. */
static ny_value *softmax_view(ny_node *n, ny_value *x, int *axis) {
  bool old = n->version < 13;
  int64_t at = ny_attr_int(n, "axis", old ? 1 : -1);
  if (old && at == ny_rank(x)) {
    *axis = 1;
    return ny_flatten_at(n, x, ny_rank(x));
  }
  if (!ny_axis(n, at, ny_rank(x), axis)) return NULL;
  if (!old) return x;
  ny_value *y = ny_flatten_at(n, x, *axis);
  *axis = 1;
  return y;
}

static ny_value *view_back(ny_node *n, ny_value *y, const ny_value *x) {
  return y && y->type->rank != x->type->rank ? ny_reshape_to(n, y, ny_rank(x), x->type->dim)
         : y && n->version < 13              ? ny_reshape_to(n, y, ny_rank(x), x->type->dim)
                                             : y;
}

nyb_status ny_op_hardmax(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int axis;
  ny_value *v = x ? softmax_view(n, x, &axis) : NULL;
  ny_value *at = v ? arg_reduce(n, v, true, axis, false) : NULL;
  at = at ? ny_unsqueeze_at(n, at, axis) : NULL;
  if (!at) return ny_failed(n);
  ny_dim shape[NY_MAX_RANK];
  for (int i = 0; i < ny_rank(v); i++) shape[i] = i == axis ? ny_size(v, i) : 1;
  ny_value *pos = ny_b_iota(&n->b, NY_i64, ny_rank(v), shape, axis);
  ny_value *hit = pos ? ny_ew2(n, NY_eq, at, pos) : NULL;
  return hit ? ny_out(n, 0, view_back(n, ny_cast_to(n, hit, ny_fmt_of(x)), x)) : ny_failed(n);
}

static ny_value *log_softmax(ny_node *n, ny_value *x, int axis) {
  ny_fmt f = ny_fmt_of(x);
  if (half(f)) x = ny_cast_to(n, x, NY_f32);
  ny_value *m = x ? ny_b_reduce(&n->b, "max", x, &axis, 1, true) : NULL;
  ny_value *d = m ? ny_ew2(n, NY_sub, x, m) : NULL;
  ny_value *s = d ? ny_b_reduce(&n->b, "sum", ny_ew1(n, NY_exp, d), &axis, 1, true) : NULL;
  ny_value *y = s ? ny_ew2(n, NY_sub, d, ny_ew1(n, NY_log, s)) : NULL;
  return y ? ny_cast_to(n, y, f) : NULL;
}

nyb_status ny_op_log_softmax(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int axis;
  ny_value *v = x ? softmax_view(n, x, &axis) : NULL;
  return v ? ny_out(n, 0, view_back(n, log_softmax(n, v, axis), x)) : ny_failed(n);
}

nyb_status ny_op_topk(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_dim k;
  int count, axis;
  if (!x || !ny_axis(n, ny_attr_int(n, "axis", -1), ny_rank(x), &axis)) return ny_failed(n);
  if (n->version < 10) {
    int64_t kv = ny_attr_int(n, "k", -1);
    if (kv < 0) return ny_node_fail(n, NYB_E_SHAPE, "k is %lld", (long long)kv);
    k = ny_dim_const(n->cx, kv);
  } else {
    if (!ny_node_dims(n, 1, &k, 1, &count)) return ny_failed(n);
    if (count != 1) return ny_node_fail(n, NYB_E_SHAPE, "k has %d elements, not 1", count);
  }
  int64_t kc, size = 0;
  bool known = ny_dim_is_const(n->cx, k, &kc);
  if (known && (kc < 0 || (ny_static_size(x, axis, &size) && kc > size)))
    return ny_node_fail(n, NYB_E_SHAPE, "k is %lld, the axis has %lld elements", (long long)kc, (long long)size);
  ny_type t = *x->type;
  t.dim[axis] = k;
  const ny_type *vt = ny_type_get(n->cx, t);
  const ny_type *out[2] = {vt, ny_type_with_fmt(n->cx, vt, NY_i64)};
  ny_op *op = ny_build(&n->b, NY_topk, &x, 1, out, 2);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(topk, axis)].i = axis;
  op->attr[NY_AT(topk, largest)].i = ny_attr_int(n, "largest", 1) != 0;
  NY_TRY(ny_out(n, 0, op->out[0]));
  return ny_out(n, 1, op->out[1]);
}

nyb_status ny_op_flatten(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  if (!x) return ny_failed(n);
  int64_t axis = ny_attr_int(n, "axis", 1);
  int rank = ny_rank(x);
  if (axis < -rank || axis > rank)
    return ny_node_fail(n, NYB_E_SHAPE, "axis %lld is outside a tensor of rank %d", (long long)axis, rank);
  return ny_out(n, 0, ny_flatten_at(n, x, (int)(axis < 0 ? axis + rank : axis)));
}
