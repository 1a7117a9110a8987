/* Operators that compare or compute with positions: Range, EyeLike, Trilu, OneHot, ReverseSequence. Positions are an
   iota along one axis, which broadcasts against the rest. */
#include "onnx.h"
#include <math.h>

/* Positions along `axis` of a tensor of these sizes: i64, 1 in the other dims. */
static ny_value *positions(ny_node *n, int rank, ny_dim size, int axis) {
  ny_dim shape[NY_MAX_RANK];
  for (int i = 0; i < rank; i++) shape[i] = i == axis ? size : 1;
  return ny_b_iota(&n->b, NY_i64, rank, shape, axis);
}

/* column - row */
static ny_value *diagonals(ny_node *n, ny_dim rows, ny_dim cols) {
  return ny_ew2(n, NY_sub, positions(n, 2, cols, 1), positions(n, 2, rows, 0));
}

nyb_status ny_op_trilu(ny_node *n) {
  ny_value *x = n->in[0], *k = ny_opt(n, 1);
  int rank = ny_rank(x);
  if (rank < 2) return ny_node_fail(n, NYB_E_SHAPE, "Trilu needs at least two dimensions, not %d", rank);
  ny_value *d = diagonals(n, ny_size(x, rank - 2), ny_size(x, rank - 1));
  k = k ? ny_reshape_to(n, k, 0, NULL) : ny_num(n, d, 0);
  ny_value *keep = ny_ew2(n, ny_attr_int(n, "upper", 1) ? NY_ge : NY_le, d, k);
  return ny_out(n, 0, ny_where(n, keep, x, ny_num(n, x, 0)));
}

nyb_status ny_op_eye_like(ny_node *n) {
  ny_value *x = n->in[0];
  ny_fmt f;
  if (!ny_attr_fmt(n, "dtype", ny_fmt_of(x), &f)) return ny_failed(n);
  if (ny_rank(x) != 2) return ny_node_fail(n, NYB_E_SHAPE, "EyeLike needs a matrix, not rank %d", ny_rank(x));
  ny_value *d = diagonals(n, ny_size(x, 0), ny_size(x, 1));
  return ny_out(n, 0, ny_cast_to(n, ny_ew2s(n, NY_eq, d, (double)ny_attr_int(n, "k", 0)), f));
}

/* depth x ... one-hot: position along the new axis equals the index, where a negative index counts from the end. */
nyb_status ny_op_one_hot(ny_node *n) {
  ny_value *at = n->in[0], *values = n->in[2];
  ny_dim depth;
  double d;
  int count, axis, rank = ny_rank(at) + 1;
  if (!ny_try_dims(n, 1, &depth, 1, &count)) { /* any number format is allowed here */
    if (!ny_node_scalar(n, 1, 0, &d)) return ny_failed(n);
    if (!(d >= 0 && d < 2147483648.0)) return ny_node_fail(n, NYB_E_SHAPE, "depth is %g", d);
    depth = ny_dim_const(n->cx, (int64_t)d);
  } else if (count != 1) {
    return ny_node_fail(n, NYB_E_SHAPE, "depth has %d elements, not 1", count);
  }
  if (!ny_attr_axis(n, -1, rank, &axis)) return ny_failed(n);
  if (ny_rank(values) != 1) return ny_node_fail(n, NYB_E_SHAPE, "values have rank %d, not 1", ny_rank(values));
  ny_value *i = ny_unsqueeze_at(n, ny_cast_to(n, at, NY_i64), axis);
  i = ny_where(n, ny_ew2s(n, NY_lt, i, 0), ny_ew2(n, NY_add, i, ny_dim_value(n, depth)), i);
  ny_value *hit = i ? ny_ew2(n, NY_eq, i, positions(n, rank, depth, axis)) : NULL;
  ny_value *off = ny_squeeze_at(n, ny_slice_axis(n, values, 0, 0, 1), 0);
  ny_value *on = ny_squeeze_at(n, ny_slice_axis(n, values, 0, 1, 1), 0);
  return ny_out(n, 0, ny_where(n, hit, on, off));
}

nyb_status ny_op_reverse_sequence(ny_node *n) {
  ny_value *x = n->in[0], *len = n->in[1];
  int64_t batch = ny_attr_int(n, "batch_axis", 1), time = ny_attr_int(n, "time_axis", 0);
  int rank = ny_rank(x);
  if (rank < 2 || batch < 0 || batch > 1 || time != 1 - batch)
    return ny_node_fail(n, NYB_E_SHAPE, "batch_axis %lld and time_axis %lld of rank %d", (long long)batch,
                        (long long)time, rank);
  if (!ny_numbers_fit(n, 1, 0, ny_dim_add(n->cx, ny_size(x, (int)time), 1), "length")) return ny_failed(n);
  ny_value *t = positions(n, rank, ny_size(x, (int)time), (int)time);
  ny_value *l = ny_along(n, ny_cast_to(n, len, NY_i64), (int)batch, rank);
  ny_value *back = ny_ew2(n, NY_sub, ny_ew2s(n, NY_sub, l, 1), t);
  ny_value *at = ny_where(n, ny_ew2(n, NY_lt, t, l), back, t);
  return ny_out(n, 0, ny_gather_elements(n, x, ny_expand_like(n, at, x), (int)time));
}

/* ---- Range: integers may be sizes of other tensors; floats must be constants because their ratio is the length. */
static nyb_status range_ints(ny_node *n, ny_fmt f) {
  ny_dim v[3];
  int64_t step, fixed;
  for (int i = 0; i < 3; i++)
    if (!ny_node_dim(n, i, &v[i])) return ny_failed(n);
  if (!ny_dim_is_const(n->cx, v[2], &step) || step == 0 || step == INT64_MIN)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "the step of Range must be a constant other than 0");
  ny_dim span = step > 0 ? ny_dim_sub(n->cx, v[1], v[0]) : ny_dim_sub(n->cx, v[0], v[1]);
  ny_dim count = ny_dim_ceildiv(n->cx, span, ny_dim_const(n->cx, step > 0 ? step : -step));
  if (ny_dim_is_const(n->cx, count, &fixed))
    count = fixed > 0 ? fixed : 0;
  else if (v[0] != 0 || step != 1)
    count = ny_dim_max(n->cx, count, 0);
  ny_value *i = ny_b_iota(&n->b, NY_i64, 1, &count, 0);
  if (step != 1) i = ny_ew2s(n, NY_mul, i, (double)step);
  if (v[0] != 0) i = ny_ew2(n, NY_add, i, ny_dim_value(n, v[0]));
  return ny_out(n, 0, ny_cast_to(n, i, f));
}

nyb_status ny_op_range(ny_node *n) {
  double v[3];
  ny_fmt f = ny_fmt_of(n->in[0]);
  if (ny_is_int(f)) return range_ints(n, f);
  for (int i = 0; i < 3; i++)
    if (!ny_node_scalar(n, i, 0, &v[i])) return ny_failed(n);
  double len = v[2] != 0 ? ceil((v[1] - v[0]) / v[2]) : INFINITY;
  if (!(len < 1e9))
    return ny_node_fail(n, NYB_E_SHAPE, "Range from %g to %g by %g has no usable length", v[0], v[1], v[2]);
  ny_dim count = len > 0 ? (ny_dim)len : 0;
  ny_value *i = ny_b_iota(&n->b, NY_f64, 1, &count, 0);
  return ny_out(n, 0, ny_cast_to(n, ny_ew2s(n, NY_add, ny_ew2s(n, NY_mul, i, v[2]), v[0]), f));
}
