/* Small composites that builders share. Elementwise inputs are made to fit first: equal sizes that are spelled
   differently are unified, and where nothing can be replaced they are required to be equal and both cut to the smaller,
   so that reads are in bounds whatever the sizes are. */
#include "onnx_import.h"

/* Builders check the ranks their operator states; where one of many inputs slips through, it ends here. */
static bool has_axis(ny_node *n, const ny_value *x, int axis, int more) {
  if (!x || n->cx->diag.code) return false;
  if (axis >= 0 && axis < ny_rank(x) + more) return true;
  return ny_refuse(n, NYB_E_SHAPE, "an input of rank %d has no axis %d", ny_rank(x), axis);
}

ny_value *ny_slice_axis(ny_node *n, ny_value *x, int axis, ny_dim start, ny_dim count) {
  if (!has_axis(n, x, axis, 0)) return NULL;
  ny_dim s[NY_MAX_RANK] = {0}, c[NY_MAX_RANK];
  for (int i = 0; i < ny_rank(x); i++) c[i] = ny_size(x, i);
  s[axis] = start;
  c[axis] = count;
  if (start == 0 && count == ny_size(x, axis)) return x;
  return ny_b_slice(&n->b, x, s, NULL, c);
}

/* The size that input dims `d` at one position agree on, or NY_DIM_INVALID: cut them. */
static bool agree(ny_node *n, ny_dim d, ny_dim *common) {
  if (d == 1 || d == *common) return true;
  if (*common == 1) {
    *common = d;
    return true;
  }
  if (ny_try_unify(n, d, *common)) return true;
  if (n->cx->diag.code) return false;
  if (d >= 0 && *common >= 0)
    return ny_refuse(n, NYB_E_SHAPE, "sizes %lld and %lld do not broadcast", (long long)*common, (long long)d);
  if (!ny_require(n, *common, d, "sizes that have to fit")) return false;
  *common = ny_dim_min(n->cx, *common, d);
  return true;
}

bool ny_fit(ny_node *n, ny_value **v, int count, int except) {
  int rank = 0;
  for (int i = 0; i < count; i++) rank = ny_rank(v[i]) > rank ? ny_rank(v[i]) : rank;
  for (int p = 1; p <= rank; p++) { /* from the last dim */
    if (rank - p == except) continue;
    ny_dim common = 1;
    for (int i = 0; i < count; i++)
      if (p <= ny_rank(v[i]) && !agree(n, ny_size(v[i], ny_rank(v[i]) - p), &common)) return false;
    for (int i = 0; i < count; i++) {
      if (p > ny_rank(v[i])) continue;
      ny_dim d = ny_size(v[i], ny_rank(v[i]) - p);
      if (d != 1 && d != common) v[i] = ny_slice_axis(n, v[i], ny_rank(v[i]) - p, 0, common);
      if (!v[i]) return false;
    }
  }
  return true;
}

ny_value *ny_ew(ny_node *n, ny_kind k, ny_value *const *in, int n_in) {
  ny_value *v[3];
  for (int i = 0; i < n_in; i++) {
    if (!in[i] || n->cx->diag.code) return NULL;
    v[i] = in[i];
  }
  return n_in > 1 && !ny_fit(n, v, n_in, -1) ? NULL : ny_b_ew(&n->b, k, v, n_in);
}
ny_value *ny_ew1(ny_node *n, ny_kind k, ny_value *x) { return ny_ew(n, k, (ny_value *[]){x}, 1); }
ny_value *ny_ew2(ny_node *n, ny_kind k, ny_value *x, ny_value *y) { return ny_ew(n, k, (ny_value *[]){x, y}, 2); }
ny_value *ny_ew2s(ny_node *n, ny_kind k, ny_value *x, double y) { return x ? ny_ew2(n, k, x, ny_num(n, x, y)) : NULL; }
ny_value *ny_where(ny_node *n, ny_value *cond, ny_value *x, ny_value *y) {
  return ny_ew(n, NY_where, (ny_value *[]){cond, x, y}, 3);
}
ny_value *ny_num(ny_node *n, const ny_value *like, double x) {
  return like ? ny_b_scalar(&n->b, ny_fmt_of(like), x) : NULL;
}
ny_value *ny_dim_value(ny_node *n, ny_dim d) { return ny_b_dims(&n->b, &d, 1, true); }
ny_value *ny_cast_to(ny_node *n, ny_value *x, ny_fmt f) { return !x || ny_fmt_of(x) == f ? x : ny_b_cast(&n->b, x, f); }

/* A reshape whose counts are equal for the inputs ONNX accepts, which cannot be shown: read through a gather, whose
 * indices are clamped. */
static ny_value *reread(ny_node *n, ny_value *x, ny_dim have, ny_dim want, int rank, const ny_dim *shape) {
  if (have >= 0 && want >= 0) {
    ny_unify(n, have, want, "elements before and after a reshape");
    return NULL;
  }
  if (!ny_require(n, have, want, "elements before and after a reshape")) return NULL;
  ny_value *flat = ny_b_reshape(&n->b, x, 1, &have), *at = ny_b_iota(&n->b, NY_i64, 1, &want, 0);
  return ny_b_reshape(&n->b, ny_b_gather(&n->b, flat, at, 0), rank, shape);
}

ny_value *ny_reshape_to(ny_node *n, ny_value *x, int rank, const ny_dim *shape) {
  if (!x || n->cx->diag.code) return NULL;
  bool same = rank == ny_rank(x);
  for (int i = 0; i < rank && same; i++) same = shape[i] == ny_size(x, i);
  if (same) return x;
  ny_dim have = ny_product(n, x->type->dim, ny_rank(x)), want = ny_product(n, shape, rank);
  if (ny_try_unify(n, have, want)) return ny_b_reshape(&n->b, x, rank, shape);
  return n->cx->diag.code ? NULL : reread(n, x, have, want, rank, shape);
}

ny_value *ny_unsqueeze_at(ny_node *n, ny_value *x, int axis) {
  ny_dim d[NY_MAX_RANK];
  if (!has_axis(n, x, axis, 1)) return NULL;
  if (ny_rank(x) >= NY_MAX_RANK)
    return ny_refuse_value(n, NYB_E_UNSUPPORTED, "more than %d dimensions", (int)NY_MAX_RANK);
  for (int i = 0; i <= ny_rank(x); i++) d[i] = i < axis ? ny_size(x, i) : i == axis ? 1 : ny_size(x, i - 1);
  return ny_b_reshape(&n->b, x, ny_rank(x) + 1, d);
}

/* A size that is 1 for every input ONNX accepts, which cannot be shown: the maximum over it is that one element. */
static ny_value *squeeze_unknown(ny_node *n, ny_value *x, int axis) {
  int64_t size;
  bool is_bool = ny_fmt_of(x) == NY_bool;
  if (ny_static_size(x, axis, &size)) {
    ny_unify(n, ny_size(x, axis), 1, "a dimension to be squeezed");
    return NULL;
  }
  if (!ny_require(n, ny_size(x, axis), 1, "a dimension to be squeezed")) return NULL;
  ny_value *y = ny_b_reduce(&n->b, "max", is_bool ? ny_cast_to(n, x, NY_u8) : x, &axis, 1, false);
  return is_bool ? ny_cast_to(n, y, NY_bool) : y;
}

ny_value *ny_squeeze_at(ny_node *n, ny_value *x, int axis) {
  ny_dim d[NY_MAX_RANK];
  if (!has_axis(n, x, axis, 0)) return NULL;
  if (!ny_try_unify(n, ny_size(x, axis), 1)) return n->cx->diag.code ? NULL : squeeze_unknown(n, x, axis);
  for (int i = 0, k = 0; i < ny_rank(x); i++)
    if (i != axis) d[k++] = ny_size(x, i);
  return ny_b_reshape(&n->b, x, ny_rank(x) - 1, d);
}

ny_value *ny_expand_like(ny_node *n, ny_value *x, const ny_value *like) {
  if (!x || n->cx->diag.code || x->type == ny_type_with_fmt(n->cx, like->type, ny_fmt_of(x))) return x;
  return ny_b_broadcast(&n->b, x, ny_rank(like), like->type->dim);
}

ny_value *ny_flatten_at(ny_node *n, ny_value *x, int axis) {
  if (!has_axis(n, x, axis, 1)) return NULL;
  ny_dim d[2] = {ny_product(n, x->type->dim, axis), ny_product(n, x->type->dim + axis, ny_rank(x) - axis)};
  return ny_reshape_to(n, x, 2, d);
}

ny_value *ny_move_axis(ny_node *n, ny_value *x, int from, int to) {
  int perm[NY_MAX_RANK], k = 0;
  if (!x || n->cx->diag.code || from == to) return x;
  if (!has_axis(n, x, from, 0) || !has_axis(n, x, to, 0)) return NULL;
  for (int i = 0; i < ny_rank(x); i++) {
    if (k == to) perm[k++] = from;
    if (i != from) perm[k++] = i;
  }
  if (k == to) perm[k] = from;
  return ny_b_transpose(&n->b, x, perm);
}

ny_value *ny_along(ny_node *n, ny_value *v, int axis, int rank) {
  ny_dim d[NY_MAX_RANK] = {0};
  if (!v || n->cx->diag.code) return NULL;
  if (ny_rank(v) != 1)
    return ny_refuse_value(n, NYB_E_SHAPE, "a tensor of rank %d where a vector is needed", ny_rank(v));
  for (int i = 0; i < rank - axis; i++) d[i] = i ? 1 : ny_size(v, 0);
  return ny_reshape_to(n, v, rank - axis, d);
}

ny_value *ny_matrix_transpose(ny_node *n, ny_value *x) {
  return x ? ny_move_axis(n, x, ny_rank(x) - 1, ny_rank(x) - 2) : NULL;
}

ny_value *ny_full(ny_node *n, ny_fmt f, int rank, const ny_dim *shape, double x) {
  ny_value *s = ny_b_scalar(&n->b, f, x);
  return ny_b_broadcast(&n->b, s, rank, shape);
}

ny_op *ny_op_of(ny_node *n, ny_kind k, ny_value *const *in, int n_in) {
  if (n->cx->diag.code) return NULL;
  for (int i = 0; i < n_in; i++)
    if (!in[i]) return NULL;
  const ny_type *t = n_in ? in[0]->type : ny_tensor_type(n->cx, NY_i64, 0, NULL);
  return ny_build(&n->b, k, in, n_in, &t, 1);
}

ny_value *ny_infer(ny_node *n, ny_op *op) {
  if (!op || ny_infer_op(n->b.g, op)) return NULL;
  return op->out[0];
}

ny_value *ny_fold(ny_node *n, ny_value *v) {
  ny_tensor t;
  if (!v || !ny_value_const(n, v, &t)) return v;
  int64_t shape[NY_MAX_RANK];
  for (int i = 0; i < ny_rank(v); i++) ny_static_size(v, i, &shape[i]);
  return ny_const_data(n, ny_fmt_of(v), ny_rank(v), shape, t.data);
}
