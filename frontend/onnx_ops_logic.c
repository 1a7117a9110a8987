/* Elementwise operators beyond the common ones: activations with attributes, legacy broadcasting, bit operators,
   comparisons against positions (Trilu, EyeLike), Range. */
#include "onnx.h"

/* An EW row whose attributes carry the ONNX names and defaults. */
nyb_status ny_op_activation(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_value *y = x ? ny_ew1(n, (ny_kind)n->arg, x) : NULL;
  if (!y) return ny_failed(n);
  const ny_kind_info *k = &ny_kinds[n->arg];
  for (int i = 0; i < k->n_attr; i++) y->def->attr[i].f = ny_attr_float(n, k->attr[i].name, k->attr[i].def);
  return ny_out(n, 0, y);
}

nyb_status ny_op_isinf(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_value *y = x ? ny_ew1(n, NY_isinf, x) : NULL;
  if (!y) return ny_failed(n);
  y->def->attr[NY_AT(isinf, pos)].i = ny_attr_int(n, "detect_positive", 1);
  y->def->attr[NY_AT(isinf, neg)].i = ny_attr_int(n, "detect_negative", 1);
  return ny_out(n, 0, y);
}

/* Before opset 7 the second operand broadcast only when `broadcast` was set: its dims match those of the first from
 * `axis` on. */
nyb_status ny_op_binary_old(ny_node *n) {
  ny_value *x = ny_need(n, 0), *y = ny_need(n, 1);
  if (!x || !y) return ny_failed(n);
  int rank = ny_rank(x), yr = ny_rank(y);
  if (ny_attr_int(n, "broadcast", 0) && yr < rank) {
    int64_t axis = ny_attr_int(n, "axis", rank - yr);
    if (axis < 0) axis += rank;
    if (axis < 0 || axis + yr > rank)
      return ny_node_fail(n, NYB_E_SHAPE, "axis %lld leaves no room for a second operand of rank %d in rank %d",
                          (long long)axis, yr, rank);
    ny_dim shape[NY_MAX_RANK];
    int r = 0;
    for (int i = 0; i < yr; i++) shape[r++] = ny_size(y, i);
    for (int i = (int)axis + yr; i < rank; i++) shape[r++] = 1;
    y = ny_reshape_to(n, y, r, shape);
  }
  return y ? ny_out(n, 0, ny_ew2(n, (ny_kind)n->arg, x, y)) : ny_failed(n);
}

/* Min, Mean and friends: any number of inputs. */
nyb_status ny_op_fold(ny_node *n) {
  ny_value *acc = ny_need(n, 0);
  if (!acc) return ny_failed(n);
  for (int i = 1; i < n->n_in && acc; i++) {
    ny_value *x = ny_need(n, i);
    acc = x ? ny_ew2(n, (ny_kind)n->arg, acc, x) : NULL;
  }
  return ny_out(n, 0, acc);
}

nyb_status ny_op_mean(ny_node *n) {
  ny_value *acc = ny_need(n, 0);
  if (!acc) return ny_failed(n);
  for (int i = 1; i < n->n_in && acc; i++) {
    ny_value *x = ny_need(n, i);
    acc = x ? ny_ew2(n, NY_add, acc, x) : NULL;
  }
  return acc ? ny_out(n, 0, ny_ew2s(n, NY_div, acc, n->n_in)) : ny_failed(n);
}

nyb_status ny_op_mod(ny_node *n) {
  ny_value *x = ny_need(n, 0), *y = ny_need(n, 1);
  if (!x || !y) return ny_failed(n);
  return ny_out(n, 0, ny_ew2(n, ny_attr_int(n, "fmod", 0) ? NY_rem : NY_mod, x, y));
}

/* Amounts outside 0..width-1 shift everything out: zero, or the sign when a signed number goes right. */
nyb_status ny_op_bitshift(ny_node *n) {
  ny_value *x = ny_need(n, 0), *y = ny_need(n, 1);
  const char *dir = ny_attr_string(n, "direction", "");
  if (!x || !y) return ny_failed(n);
  bool right = dir[0] == 'R';
  if (!right && dir[0] != 'L') return ny_node_fail(n, NYB_E_UNSUPPORTED, "direction is \"%s\", not LEFT or RIGHT", dir);
  ny_value *r = ny_ew2(n, right ? NY_shr : NY_shl, x, y);
  const ny_fmt_info *f = &ny_fmts[ny_fmt_of(x)];
  if (!r || f->kind != 'I') return ny_out(n, 0, r);
  ny_value *zero = ny_num(n, x, 0);
  ny_value *lost = ny_ew2(n, NY_or, ny_ew2(n, NY_lt, y, zero), ny_ew2s(n, NY_ge, y, f->bits));
  ny_value *gone = zero;
  if (right) gone = ny_ew(n, NY_where, (ny_value *[]){ny_ew2(n, NY_lt, x, zero), ny_num(n, x, -1), zero}, 3);
  return ny_out(n, 0, ny_ew(n, NY_where, (ny_value *[]){lost, gone, r}, 3));
}

nyb_status ny_op_where(ny_node *n) {
  ny_value *c = ny_need(n, 0), *x = ny_need(n, 1), *y = ny_need(n, 2);
  return c && x && y ? ny_out(n, 0, ny_ew(n, NY_where, (ny_value *[]){c, x, y}, 3)) : ny_failed(n);
}

/* column - row of a matrix shaped like the last two dims of x, as i64. */
static ny_value *diagonals(ny_node *n, ny_dim rows, ny_dim cols) {
  ny_value *r = ny_b_iota(&n->b, NY_i64, 2, (ny_dim[]){rows, 1}, 0);
  ny_value *c = ny_b_iota(&n->b, NY_i64, 2, (ny_dim[]){1, cols}, 1);
  return r && c ? ny_ew2(n, NY_sub, c, r) : NULL;
}

nyb_status ny_op_trilu(ny_node *n) {
  ny_value *x = ny_need(n, 0), *k = ny_opt(n, 1);
  if (!x) return ny_failed(n);
  int rank = ny_rank(x);
  if (rank < 2) return ny_node_fail(n, NYB_E_SHAPE, "Trilu needs at least two dimensions, not %d", rank);
  ny_value *d = diagonals(n, ny_size(x, rank - 2), ny_size(x, rank - 1));
  if (k && ny_rank(k)) k = ny_reshape_to(n, k, 0, NULL);
  if (!k) k = d ? ny_num(n, d, 0) : NULL;
  if (!d || !k) return ny_failed(n);
  ny_value *keep = ny_ew2(n, ny_attr_int(n, "upper", 1) ? NY_ge : NY_le, d, k);
  return keep ? ny_out(n, 0, ny_ew(n, NY_where, (ny_value *[]){keep, x, ny_num(n, x, 0)}, 3)) : ny_failed(n);
}

nyb_status ny_op_eye_like(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_fmt f;
  if (!x || !ny_attr_fmt(n, "dtype", ny_fmt_of(x), &f)) return ny_failed(n);
  if (ny_rank(x) != 2) return ny_node_fail(n, NYB_E_SHAPE, "EyeLike needs a matrix, not rank %d", ny_rank(x));
  ny_value *d = diagonals(n, ny_size(x, 0), ny_size(x, 1));
  ny_value *on = d ? ny_ew2s(n, NY_eq, d, (double)ny_attr_int(n, "k", 0)) : NULL;
  return on ? ny_out(n, 0, ny_cast_to(n, on, f)) : ny_failed(n);
}

/* Before opset 7 a slope vector lies along the channels. */
nyb_status ny_op_prelu(ny_node *n) {
  ny_value *x = ny_need(n, 0), *slope = ny_need(n, 1);
  if (!x || !slope) return ny_failed(n);
  if (n->version < 7 && ny_rank(slope) == 1 && ny_rank(x) >= 2 && ny_size(slope, 0) != 1) {
    ny_dim shape[NY_MAX_RANK];
    int rank = ny_rank(x);
    for (int i = 0; i < rank - 1; i++) shape[i] = i == 0 ? ny_size(slope, 0) : 1;
    slope = ny_reshape_to(n, slope, rank - 1, shape);
  }
  ny_value *scaled = slope ? ny_ew2(n, NY_mul, x, slope) : NULL;
  ny_value *low = ny_ew2s(n, NY_lt, x, 0);
  return scaled && low ? ny_out(n, 0, ny_ew(n, NY_where, (ny_value *[]){low, scaled, x}, 3)) : ny_failed(n);
}

static ny_value *swish(ny_node *n, ny_value *x, double alpha) {
  if (alpha == 1) return ny_ew1(n, NY_silu, x);
  ny_value *s = ny_ew2s(n, NY_mul, x, alpha);
  return s ? ny_ew2(n, NY_mul, x, ny_ew1(n, NY_sigmoid, s)) : NULL;
}

nyb_status ny_op_swish(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  return x ? ny_out(n, 0, swish(n, x, ny_attr_float(n, "alpha", 1))) : ny_failed(n);
}

nyb_status ny_op_swiglu(ny_node *n) {
  ny_value *a = ny_need(n, 0), *b = ny_need(n, 1);
  if (!a || !b) return ny_failed(n);
  ny_value *s = swish(n, a, ny_attr_float(n, "alpha", 1));
  return s ? ny_out(n, 0, ny_ew2(n, NY_mul, s, b)) : ny_failed(n);
}

/* Range: integers may be sizes of other tensors; floats must be constants because their ratio is the length. */
static nyb_status range_ints(ny_node *n, ny_fmt f) {
  ny_dim v[3];
  int64_t step;
  for (int i = 0; i < 3; i++) {
    int count;
    if (!ny_node_dims(n, i, &v[i], 1, &count)) return ny_failed(n);
    if (count != 1) return ny_node_fail(n, NYB_E_SHAPE, "input %d of Range has %d elements, not 1", i, count);
  }
  if (!ny_dim_is_const(n->cx, v[2], &step) || step == 0 || step == INT64_MIN)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "the step of Range must be a constant other than 0");
  ny_dim span = step > 0 ? ny_dim_sub(n->cx, v[1], v[0]) : ny_dim_sub(n->cx, v[0], v[1]);
  ny_dim count = ny_dim_ceildiv(n->cx, span, ny_dim_const(n->cx, step > 0 ? step : -step));
  int64_t fixed;
  if (ny_dim_is_const(n->cx, count, &fixed))
    count = fixed > 0 ? fixed : 0;
  else if (v[0] != 0 || step != 1)
    count = ny_dim_max(n->cx, count, 0);
  ny_value *i = ny_b_iota(&n->b, NY_i64, 1, &count, 0);
  if (i && step != 1) i = ny_ew2s(n, NY_mul, i, (double)step);
  if (i && v[0] != 0) i = ny_ew2(n, NY_add, i, ny_b_dims(&n->b, &v[0], 1, true));
  return i ? ny_out(n, 0, ny_cast_to(n, i, f)) : ny_failed(n);
}

nyb_status ny_op_range(ny_node *n) {
  ny_value *start = ny_need(n, 0);
  double v[3];
  if (!start) return ny_failed(n);
  ny_fmt f = ny_fmt_of(start);
  if (ny_is_int(f)) return range_ints(n, f);
  for (int i = 0; i < 3; i++)
    if (!ny_node_scalar(n, i, 0, &v[i])) return ny_failed(n);
  double len = v[2] != 0 ? (v[1] - v[0]) / v[2] : 0;
  if (!(len < 1e9) || v[2] == 0)
    return ny_node_fail(n, NYB_E_SHAPE, "Range from %g to %g by %g has no usable length", v[0], v[1], v[2]);
  ny_dim count = len > 0 ? (ny_dim)len + ((double)(int64_t)len < len) : 0;
  ny_value *i = ny_b_iota(&n->b, NY_f64, 1, &count, 0);
  if (i) i = ny_ew2s(n, NY_mul, i, v[2]);
  if (i) i = ny_ew2s(n, NY_add, i, v[0]);
  return i ? ny_out(n, 0, ny_cast_to(n, i, f)) : ny_failed(n);
}
