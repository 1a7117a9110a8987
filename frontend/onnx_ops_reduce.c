/* What looks along an axis: reductions, running sums, arg-reductions, TopK and the softmax family. Every reduction is a
   row: what happens to the elements, how they are put together, what happens to the result. Sums of functions of narrow
   floats are taken in f32. */
#include "onnx.h"

static const struct reduction {
  const char *op;
  ny_kind before, after; /* NY_N_KINDS: nothing; NY_mul: the square */
  bool mean, wide;
} reductions[] = {
    [NY_RED_SUM] = {"sum", NY_N_KINDS, NY_N_KINDS, false, false},
    [NY_RED_MEAN] = {"sum", NY_N_KINDS, NY_N_KINDS, true, false},
    [NY_RED_MAX] = {"max", NY_N_KINDS, NY_N_KINDS, false, false},
    [NY_RED_MIN] = {"min", NY_N_KINDS, NY_N_KINDS, false, false},
    [NY_RED_PROD] = {"prod", NY_N_KINDS, NY_N_KINDS, false, false},
    [NY_RED_L1] = {"sum", NY_abs, NY_N_KINDS, false, false},
    [NY_RED_L2] = {"sum", NY_mul, NY_sqrt, false, true},
    [NY_RED_SUM_SQUARE] = {"sum", NY_mul, NY_N_KINDS, false, true},
    [NY_RED_LOG_SUM] = {"sum", NY_N_KINDS, NY_log, false, true},
};

typedef struct axes {
  int n, at[NY_MAX_RANK];
  bool keep, none; /* none: noop_with_empty_axes; what is done to elements and results still applies */
} axes;

/* An attribute until opset 17 (ReduceSum: 12), an input since. */
static bool axes_of(ny_node *n, axes *a) {
  int rank = ny_rank(n->in[0]), input = n->version < (n->arg == NY_RED_SUM ? 13 : 18) ? -1 : 1;
  a->keep = ny_attr_int(n, "keepdims", 1) != 0;
  if (!ny_axes_or_attr(n, input, "axes", rank, a->at, &a->n)) return false;
  a->none = a->n <= 0 && ny_attr_int(n, "noop_with_empty_axes", 0);
  if (a->n > 0) return true;
  for (a->n = 0; a->n < rank; a->n++) a->at[a->n] = a->n;
  return true;
}

static ny_value *reduced(ny_node *n, ny_value *x, const struct reduction *r, const axes *a) {
  if (a->none || !a->n) return x;
  if (r->mean) return ny_mean(n, x, a->at, a->n, a->keep);
  return ny_b_reduce(&n->b, r->op, x, a->at, a->n, a->keep);
}

nyb_status ny_op_reduce(ny_node *n) {
  const struct reduction *r = &reductions[n->arg];
  ny_value *x = n->in[0];
  ny_fmt f = ny_fmt_of(x), work = f == NY_bool ? NY_u8 : r->wide ? ny_wide(f) : f;
  axes a;
  if (!axes_of(n, &a)) return ny_failed(n);
  if (r->after != NY_N_KINDS && !ny_is_float(f)) work = NY_f64;
  x = ny_cast_to(n, x, work);
  if (r->before == NY_mul)
    x = ny_ew2(n, NY_mul, x, x);
  else if (r->before != NY_N_KINDS)
    x = ny_ew1(n, r->before, x);
  ny_value *y = reduced(n, x, r, &a);
  if (r->after != NY_N_KINDS) y = ny_ew1(n, r->after, y);
  if (f == NY_bool && n->arg == NY_RED_MIN) y = ny_ew2s(n, NY_min, y, 1); /* of no elements: true */
  return ny_out(n, 0, ny_cast_to(n, y, f));
}

/* The maximum is taken out so that exp cannot overflow; an infinite one is left in, which gives the limit. */
nyb_status ny_op_reduce_log_sum_exp(ny_node *n) {
  static const struct reduction max = {.op = "max"}, sum = {.op = "sum"};
  ny_fmt f = ny_fmt_of(n->in[0]);
  axes a;
  if (!axes_of(n, &a)) return ny_failed(n);
  if (!ny_is_float(f)) return ny_node_fail(n, NYB_E_UNSUPPORTED, "the exponential of %s has no rule", ny_fmts[f].name);
  bool keep = a.keep;
  a.keep = true;
  ny_value *x = ny_cast_to(n, n->in[0], ny_wide(f)), *m = reduced(n, x, &max, &a);
  m = ny_where(n, ny_ew1(n, NY_isinf, m), ny_num(n, m, 0), m);
  ny_value *s = reduced(n, ny_ew1(n, NY_exp, ny_ew2(n, NY_sub, x, m)), &sum, &a);
  ny_value *y = ny_ew2(n, NY_add, ny_ew1(n, NY_log, s), m);
  for (int i = a.n - 1; i >= 0 && !keep && !a.none; i--) y = ny_squeeze_at(n, y, a.at[i]);
  return ny_out(n, 0, ny_cast_to(n, y, f));
}

/* ---- One axis. arg: 1 for ArgMax. */
nyb_status ny_op_arg(ny_node *n) {
  int axis;
  if (!ny_attr_axis(n, 0, ny_rank(n->in[0]), &axis)) return ny_failed(n);
  bool last = ny_attr_int(n, "select_last_index", 0) != 0;
  ny_value *y = ny_arg_reduce(n, n->in[0], n->arg ? "max" : "min", axis, last);
  return ny_out(n, 0, ny_attr_int(n, "keepdims", 1) ? ny_unsqueeze_at(n, y, axis) : y);
}

/* arg: 1 for CumProd. */
nyb_status ny_op_cumulative(ny_node *n) {
  int64_t at;
  int axis;
  if (!ny_node_int(n, 1, 0, &at) || !ny_axis(n, at, ny_rank(n->in[0]), &axis)) return ny_failed(n);
  ny_op *op = ny_op_of(n, NY_scan, n->in, 1);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(scan, op)].s = ny_intern(&n->cx->names, n->arg ? "prod" : "sum");
  op->attr[NY_AT(scan, axis)].i = axis;
  op->attr[NY_AT(scan, exclusive)].i = ny_attr_int(n, "exclusive", 0) != 0;
  op->attr[NY_AT(scan, reverse)].i = ny_attr_int(n, "reverse", 0) != 0;
  return ny_out(n, 0, ny_infer(n, op));
}

/* k was an attribute until opset 9. */
nyb_status ny_op_topk(ny_node *n) {
  ny_value *x = n->in[0];
  int64_t known, size = 0;
  int axis;
  ny_dim k = ny_dim_const(n->cx, n->version < 10 ? ny_attr_int(n, "k", -1) : 0);
  if (!ny_attr_axis(n, -1, ny_rank(x), &axis) || (n->version >= 10 && !ny_node_dim(n, 1, &k))) return ny_failed(n);
  if (ny_dim_is_const(n->cx, k, &known) && (known < 0 || (ny_static_size(x, axis, &size) && known > size)))
    return ny_node_fail(n, NYB_E_SHAPE, "k is %lld, the axis has %lld elements", (long long)known, (long long)size);
  ny_type t = *x->type;
  t.dim[axis] = k;
  const ny_type *vt = ny_type_get(n->cx, t), *out[2] = {vt, ny_type_with_fmt(n->cx, vt, NY_i64)};
  ny_op *op = ny_build(&n->b, NY_topk, &x, 1, out, 2);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(topk, axis)].i = axis;
  op->attr[NY_AT(topk, largest)].i = ny_attr_int(n, "largest", 1) != 0;
  NY_TRY(ny_out(n, 0, op->out[0]));
  return ny_out(n, 1, op->out[1]);
}

/* ---- The softmax family: before opset 13 over the dims from `axis` (default 1) flattened into one, since then along
   `axis` (default -1). */
static ny_value *hardmax(ny_node *n, ny_value *x, int axis) {
  ny_value *at = ny_unsqueeze_at(n, ny_arg_reduce(n, x, "max", axis, false), axis);
  if (!at) return NULL;
  ny_dim shape[NY_MAX_RANK];
  for (int i = 0; i < ny_rank(x); i++) shape[i] = i == axis ? ny_size(x, i) : 1;
  ny_value *hit = ny_ew2(n, NY_eq, at, ny_b_iota(&n->b, NY_i64, ny_rank(x), shape, axis));
  return ny_cast_to(n, hit, ny_fmt_of(x));
}

nyb_status ny_op_softmax(ny_node *n) {
  static ny_value *(*const build[])(ny_node *, ny_value *, int) = {ny_softmax, ny_log_softmax, hardmax};
  ny_value *x = n->in[0], *view = x;
  int rank = ny_rank(x), axis = rank;
  bool flat = n->version < 13;
  int64_t at = ny_attr_int(n, "axis", flat ? 1 : -1);
  if (!(flat && at == rank) && !ny_axis(n, at, rank, &axis)) return ny_failed(n);
  if (flat && axis != rank - 1) view = ny_flatten_at(n, x, axis), axis = 1;
  return ny_out(n, 0, ny_reshape_to(n, build[n->arg](n, view, axis), rank, x->type->dim));
}
