/* Shapes and views: what only rearranges elements, and the integers that say how. */
#include "onnx.h"
#include <string.h>

enum { MAX_LIST = 64 };

nyb_status ny_op_shape(ny_node *n) {
  ny_value *x = n->in[0];
  int64_t rank = ny_rank(x), start = ny_attr_int(n, "start", 0), end = ny_attr_int(n, "end", rank);
  start = start < 0 ? start + rank : start;
  end = end < 0 ? end + rank : end;
  start = start < 0 ? 0 : start > rank ? rank : start;
  end = end > rank ? rank : end < start ? start : end;
  return ny_out(n, 0, ny_b_dims(&n->b, x->type->dim + start, (int)(end - start), false));
}

nyb_status ny_op_size(ny_node *n) { return ny_out(n, 0, ny_dim_value(n, ny_type_count(n->cx, n->in[0]->type))); }

/* The tensor an attribute "value" or one of its short forms holds. */
nyb_status ny_op_constant(ny_node *n) {
  int64_t len;
  int count;
  if (ny_attr_has(n, "value")) return ny_out(n, 0, ny_attr_tensor(n, "value"));
  if (ny_attr_has(n, "sparse_value")) return ny_out(n, 0, ny_attr_tensor(n, "sparse_value"));
  if (ny_attr_has(n, "value_int")) {
    int64_t v = ny_attr_int(n, "value_int", 0);
    return ny_out(n, 0, ny_const_ints(n, NY_i64, 0, NULL, &v));
  }
  if (ny_attr_has(n, "value_float")) {
    double v = ny_attr_float(n, "value_float", 0);
    return ny_out(n, 0, ny_const_floats(n, NY_f32, 0, NULL, &v));
  }
  if (ny_attr_has(n, "value_ints")) {
    const int64_t *v = ny_attr_ints(n, "value_ints", &count);
    len = count;
    return ny_out(n, 0, ny_const_ints(n, NY_i64, 1, &len, v));
  }
  if (ny_attr_has(n, "value_floats")) {
    const double *v = ny_attr_floats(n, "value_floats", &count);
    len = count;
    return ny_out(n, 0, ny_const_floats(n, NY_f32, 1, &len, v));
  }
  return ny_node_fail(n, NYB_E_UNSUPPORTED, "a constant must have a numeric value");
}

nyb_status ny_op_constant_of_shape(ny_node *n) {
  ny_dim d[NY_MAX_RANK];
  int rank;
  if (!ny_node_dims(n, 0, d, NY_MAX_RANK, &rank)) return ny_failed(n);
  ny_value *x = ny_attr_tensor(n, "value");
  if (n->cx->diag.code) return ny_failed(n);
  if (!x) x = ny_b_scalar(&n->b, NY_f32, 0);
  for (int i = 0; i < rank; i++) {
    int64_t c;
    if (ny_dim_is_const(n->cx, d[i], &c) && c < 0)
      return ny_node_fail(n, NYB_E_SHAPE, "size %lld of dim %d is negative", (long long)c, i);
  }
  return ny_out(n, 0, ny_b_broadcast(&n->b, ny_reshape_to(n, x, 0, NULL), rank, d));
}

/* total / rest, cancelling factors both have: sizes are positive where a quotient is asked for. */
static ny_dim quotient(ny_node *n, ny_value *x, const ny_dim *d, int rank, int skip) {
  ny_dim mine[NY_MAX_RANK], other = 1;
  int left = ny_rank(x);
  memcpy(mine, x->type->dim, sizeof mine);
  for (int i = 0; i < rank; i++) {
    if (i == skip) continue;
    int k = 0;
    while (k < left && mine[k] != d[i]) k++;
    if (k < left)
      mine[k] = mine[--left];
    else
      other = ny_dim_mul(n->cx, other, d[i]);
  }
  ny_dim total = ny_product(n, mine, left);
  return other == 1 ? total : ny_dim_div(n->cx, total, other);
}

static bool fill_reshape(ny_node *n, ny_value *x, ny_dim *d, int rank, bool allow_zero) {
  int infer = -1;
  for (int i = 0; i < rank; i++) {
    int64_t c;
    if (!ny_dim_is_const(n->cx, d[i], &c)) continue;
    if (c == 0 && !allow_zero) {
      if (i >= ny_rank(x))
        return ny_refuse(n, NYB_E_SHAPE, "size 0 at %d copies a dim that the input of rank %d does not have", i,
                         ny_rank(x));
      d[i] = ny_size(x, i);
    } else if (c == -1 && infer < 0) {
      infer = i;
    } else if (c < 0) {
      return ny_refuse(n, NYB_E_SHAPE, "size %lld at %d is not valid in a reshape", (long long)c, i);
    }
  }
  if (infer < 0) return true;
  d[infer] = 1;
  if (ny_product(n, d, rank) == 0)
    return ny_refuse(n, NYB_E_SHAPE, "the size at %d cannot be inferred from an empty tensor", infer);
  d[infer] = quotient(n, x, d, rank, infer);
  return true;
}

nyb_status ny_op_reshape(ny_node *n) {
  ny_value *x = n->in[0];
  ny_dim d[NY_MAX_RANK];
  int rank;
  if (!ny_node_dims(n, 1, d, NY_MAX_RANK, &rank)) return ny_failed(n);
  if (!fill_reshape(n, x, d, rank, ny_attr_int(n, "allowzero", 0) != 0)) return ny_failed(n);
  return ny_out(n, 0, ny_reshape_to(n, x, rank, d));
}

nyb_status ny_op_squeeze(ny_node *n) {
  ny_value *x = n->in[0];
  int axes[NY_MAX_RANK], count;
  if (!ny_axes_or_attr(n, n->version < 13 ? -1 : 1, "axes", ny_rank(x), axes, &count)) return ny_failed(n);
  if (count < 0) {
    count = 0;
    for (int i = 0; i < ny_rank(x); i++)
      if (ny_size(x, i) == 1) axes[count++] = i;
  }
  for (int i = count - 1; i >= 0; i--) x = ny_squeeze_at(n, x, axes[i]);
  return ny_out(n, 0, x);
}

nyb_status ny_op_unsqueeze(ny_node *n) {
  ny_value *x = n->in[0];
  int64_t list[NY_MAX_RANK];
  int axis, count = 0;
  if (!ny_ints_or_attr(n, n->version < 13 ? -1 : 1, "axes", list, NY_MAX_RANK, &count)) return ny_failed(n);
  int rank = ny_rank(x) + (count > 0 ? count : 0);
  if (rank > NY_MAX_RANK)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "the result has %d dimensions, more than %d", rank, (int)NY_MAX_RANK);
  uint32_t added = 0;
  for (int i = 0; i < count; i++)
    if (!ny_axis_once(n, list[i], rank, &added, &axis)) return ny_failed(n);
  ny_dim d[NY_MAX_RANK];
  for (int i = 0, k = 0; i < rank; i++) d[i] = added >> i & 1 ? 1 : ny_size(x, k++);
  return ny_out(n, 0, ny_reshape_to(n, x, rank, d));
}

nyb_status ny_op_transpose(ny_node *n) {
  ny_value *x = n->in[0];
  const int64_t *p;
  int rank = ny_rank(x), perm[NY_MAX_RANK];
  if (!ny_attr_list(n, "perm", rank, &p)) return ny_failed(n);
  uint32_t seen = 0;
  for (int i = 0; i < rank; i++) {
    if (p && p[i] < 0) return ny_node_fail(n, NYB_E_SHAPE, "perm has an entry %lld", (long long)p[i]);
    if (!ny_axis_once(n, p ? p[i] : rank - 1 - i, rank, &seen, &perm[i])) return ny_failed(n);
  }
  return ny_out(n, 0, ny_b_transpose(&n->b, x, perm));
}

/* Sizes do not stretch in a concatenation: where one input has size 1, the others must, and those whose size is an
 * expression are made to. */
static bool no_stretch(ny_node *n, ny_value **v, int axis) {
  bool any = false;
  for (int i = 0; i < n->n_in; i++) any |= ny_size(v[i], axis) == 1;
  for (int i = 0; i < n->n_in && any; i++) {
    if (ny_size(v[i], axis) >= 0 && !ny_unify(n, ny_size(v[i], axis), 1, "inputs of a concatenation")) return false;
    if (ny_size(v[i], axis) != 1) v[i] = ny_unsqueeze_at(n, ny_squeeze_at(n, v[i], axis), axis);
    if (!v[i]) return false;
  }
  return true;
}

nyb_status ny_op_concat(ny_node *n) {
  int axis;
  ny_value *first = n->in[0];
  if (!ny_attr_has(n, "axis")) return ny_node_fail(n, NYB_E_PARSE, "attribute \"axis\" is missing");
  if (!ny_attr_axis(n, 0, ny_rank(first), &axis)) return ny_failed(n);
  ny_value **v = NY_NEW_ARRAY(n->tmp, ny_value *, n->n_in);
  for (int i = 0; i < n->n_in; i++) {
    if (!(v[i] = ny_need(n, i))) return ny_failed(n);
    if (ny_rank(v[i]) != ny_rank(first))
      return ny_node_fail(n, NYB_E_SHAPE, "input %d has rank %d, input 0 has %d", i, ny_rank(v[i]), ny_rank(first));
  }
  for (int d = 0; d < ny_rank(first); d++)
    if (d != axis && !no_stretch(n, v, d)) return ny_failed(n);
  if (!ny_fit(n, v, n->n_in, axis)) return ny_failed(n);
  return ny_out(n, 0, n->n_in == 1 ? v[0] : ny_b_concat(&n->b, v, n->n_in, axis));
}

/* Sizes of the pieces: a list, or equal parts with a smaller last one. */
static bool split_sizes(ny_node *n, ny_value *x, int axis, ny_dim *size, int parts) {
  int count = -1;
  int64_t list[MAX_LIST];
  if (n->version >= 13 && ny_opt(n, 1)) {
    if (!ny_node_dims(n, 1, size, MAX_LIST, &count)) return false;
  } else if (ny_attr_has(n, "split")) {
    if (!ny_ints_or_attr(n, -1, "split", list, MAX_LIST, &count)) return false;
    for (int i = 0; i < count; i++) size[i] = ny_dim_const(n->cx, list[i]);
  }
  if (count >= 0) {
    ny_dim sum = 0;
    for (int i = 0; i < count; i++) sum = ny_dim_add(n->cx, sum, size[i]);
    if (count != parts) ny_node_fail(n, NYB_E_SHAPE, "%d sizes for %d outputs", count, parts);
    return !n->cx->diag.code && ny_unify(n, sum, ny_size(x, axis), "the sum of the pieces");
  }
  ny_dim total = ny_size(x, axis), each = ny_dim_ceildiv(n->cx, total, ny_dim_const(n->cx, parts)), left = total;
  for (int i = 0; i < parts; i++) {
    size[i] = i == parts - 1 ? left : each;
    left = ny_dim_sub(n->cx, left, each);
  }
  int64_t c;
  if (ny_dim_is_const(n->cx, size[parts - 1], &c) && c < 0)
    ny_node_fail(n, NYB_E_SHAPE, "the axis is too short for %d pieces", parts);
  if (n->version >= 18) return ny_require_least(n, size[parts - 1], 0, "the last piece");
  return ny_require(n, ny_dim_mul(n->cx, each, ny_dim_const(n->cx, parts)), total, "equal pieces and the whole");
}

nyb_status ny_op_split(ny_node *n) {
  ny_value *x = n->in[0];
  ny_dim size[MAX_LIST], at = 0;
  int axis, parts = n->n_out;
  if (!ny_attr_axis(n, 0, ny_rank(x), &axis)) return ny_failed(n);
  if (n->version >= 18) parts = (int)ny_attr_int(n, "num_outputs", n->n_out);
  if (parts != n->n_out) return ny_node_fail(n, NYB_E_PARSE, "num_outputs is %d but the node has %d", parts, n->n_out);
  if (parts < 1 || parts > MAX_LIST)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "%d pieces (1 to %d are supported)", parts, (int)MAX_LIST);
  if (!split_sizes(n, x, axis, size, parts)) return ny_failed(n);
  for (int i = 0; i < parts; i++) {
    if (ny_wanted(n, i)) NY_TRY(ny_out(n, i, ny_slice_axis(n, x, axis, at, size[i])));
    at = ny_dim_add(n->cx, at, size[i]);
  }
  return NYB_OK;
}

nyb_status ny_op_expand(ny_node *n) {
  ny_value *x = n->in[0];
  ny_dim d[NY_MAX_RANK];
  int count;
  if (!ny_node_dims(n, 1, d, NY_MAX_RANK, &count)) return ny_failed(n);
  int rank = count > ny_rank(x) ? count : ny_rank(x);
  ny_dim out[NY_MAX_RANK];
  for (int i = 0; i < rank; i++) {
    int xi = i - (rank - ny_rank(x)), di = i - (rank - count);
    ny_dim a = xi >= 0 ? ny_size(x, xi) : 1, b = di >= 0 ? d[di] : 1;
    if (a != 1 && b != 1 && !ny_unify(n, a, b, "expand")) return ny_failed(n);
    out[i] = b == 1 ? a : b;
  }
  return ny_out(n, 0, ny_b_broadcast(&n->b, x, rank, out));
}

/* Positions that a model counts out (a range, moved by a size): the least and greatest, each of which occurs. */
static bool counted(ny_node *n, const ny_value *v, int depth, ny_dim *lo, ny_dim *hi) {
  const ny_op *op = v->def;
  ny_dim l, h;
  if (!op || depth > 16) return false;
  if (op->kind == NY_iota) {
    *lo = 0;
    *hi = ny_dim_sub(n->cx, ny_size(v, (int)op->attr[NY_AT(iota, axis)].i), 1);
    return true;
  }
  if (op->kind == NY_dims && op->attr[NY_AT(dims, v)].dims.n == 1) {
    *lo = *hi = op->attr[NY_AT(dims, v)].dims.v[0];
    return true;
  }
  if (op->kind == NY_add && counted(n, ny_in(op, 0), depth + 1, lo, hi) &&
      counted(n, ny_in(op, 1), depth + 1, &l, &h)) {
    *lo = ny_dim_add(n->cx, *lo, l);
    *hi = ny_dim_add(n->cx, *hi, h);
    return true;
  }
  bool same = op->kind == NY_reshape || op->kind == NY_transpose || op->kind == NY_broadcast || op->kind == NY_cast;
  return same && ny_is_int(ny_fmt_of(ny_in(op, 0))) && counted(n, ny_in(op, 0), depth + 1, lo, hi);
}

static bool counted_fit(ny_node *n, const ny_value *at, ny_dim size) {
  ny_dim lo, hi;
  if (!counted(n, at, 0, &lo, &hi)) return true;
  return ny_require_least(n, size, ny_dim_add(n->cx, hi, 1), "a size that holds the positions") &&
         ny_require_least(n, size, ny_dim_sub(n->cx, 0, lo), "a size that holds the positions");
}

/* Constant indices are checked here, or where the size is known; the others are clamped when they are used. */
bool ny_indices_fit(ny_node *n, int input, ny_dim size) {
  ny_tensor t;
  int64_t count, limit, least = 0;
  bool known = ny_dim_is_const(n->cx, size, &limit);
  if (!ny_onnx_const(n, input, &t)) return counted_fit(n, ny_opt(n, input), size);
  if (!ny_type_static_count(n->cx, t.type, &count)) return true;
  for (int64_t i = 0; i < count; i++) {
    int64_t k = ny_get_i((ny_fmt)t.type->fmt, t.data, (uint64_t)i), need = k < 0 ? k == INT64_MIN ? k : -k : k;
    need += k >= 0 && k < INT64_MAX;
    if (known && (need < 0 || need > limit))
      return ny_refuse(n, NYB_E_SHAPE, "index %lld is outside a size of %lld", (long long)k, (long long)limit);
    least = need < 0 ? INT64_MAX : need > least ? need : least;
  }
  return known || ny_require_least(n, size, least, "a size that holds the indices");
}

nyb_status ny_op_gather(ny_node *n) {
  ny_value *x = n->in[0], *at = n->in[1];
  int axis;
  if (!ny_attr_axis(n, 0, ny_rank(x), &axis)) return ny_failed(n);
  if (!ny_is_int(ny_fmt_of(at)))
    return ny_node_fail(n, NYB_E_TYPE, "indices are %s, not integers", ny_fmts[ny_fmt_of(at)].name);
  if (!ny_indices_fit(n, 1, ny_size(x, axis))) return ny_failed(n);
  int rank = ny_rank(x) + ny_rank(at) - 1;
  if (rank > NY_MAX_RANK)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "the result has %d dimensions, more than %d", rank, (int)NY_MAX_RANK);
  return ny_out(n, 0, ny_b_gather(&n->b, x, at, axis));
}

nyb_status ny_op_flatten(ny_node *n) {
  int64_t axis = ny_attr_int(n, "axis", 1);
  int rank = ny_rank(n->in[0]);
  if (axis < -rank || axis > rank)
    return ny_node_fail(n, NYB_E_SHAPE, "axis %lld is outside a tensor of rank %d", (long long)axis, rank);
  return ny_out(n, 0, ny_flatten_at(n, n->in[0], (int)(axis < 0 ? axis + rank : axis)));
}
