/* Gathers, scatters and what is built from them: Compress, TensorScatter. */
#include "onnx.h"

#include <string.h>

nyb_status ny_op_gather_elements(ny_node *n) {
  ny_value *x = n->in[0], *at = n->in[1];
  int axis;
  if (!ny_attr_axis(n, 0, ny_rank(x), &axis)) return ny_failed(n);
  if (ny_rank(at) != ny_rank(x))
    return ny_node_fail(n, NYB_E_SHAPE, "indices of rank %d into rank %d", ny_rank(at), ny_rank(x));
  if (!ny_indices_fit(n, 1, ny_size(x, axis))) return ny_failed(n);
  return ny_out(n, 0, ny_gather_elements(n, x, at, axis));
}

nyb_status ny_op_gather_nd(ny_node *n) {
  int64_t batch = ny_attr_int(n, "batch_dims", 0), width;
  int r = ny_rank(n->in[0]), q = ny_rank(n->in[1]);
  if (q < 1 || batch < 0 || batch >= q || batch >= r)
    return ny_node_fail(n, NYB_E_SHAPE, "indices of rank %d into rank %d with %lld batch dims", q, r, (long long)batch);
  if (!ny_need_static(n, n->in[1], q - 1, "the last size of the indices", &width)) return ny_failed(n);
  if (width < 1 || width > r - batch)
    return ny_node_fail(n, NYB_E_SHAPE, "coordinates of %lld numbers into rank %d after %lld batch dims",
                        (long long)width, r, (long long)batch);
  if (!ny_coordinates_fit(n, 1, n->in[0], (int)batch, width)) return ny_failed(n);
  ny_op *op = ny_op_of(n, NY_gather_nd, n->in, 2);
  if (op) op->attr[NY_AT(gather_nd, batch)].i = batch;
  return ny_out(n, 0, ny_infer(n, op));
}

/* The reduction in the IR's spelling; NULL after failing. */
static const char *reduction(ny_node *n) {
  static const char *const ir[] = {"set", "sum", "prod", "max", "min"};
  int i = ny_attr_choice(n, "reduction", "none", "none|add|mul|max|min");
  return i < 0 ? NULL : ir[i];
}

nyb_status ny_op_scatter_elements(ny_node *n) {
  ny_value *x = n->in[0], *at = n->in[1], *with = n->in[2];
  const char *how = reduction(n);
  int axis;
  if (!how || !ny_attr_axis(n, 0, ny_rank(x), &axis)) return ny_failed(n);
  if (ny_rank(at) != ny_rank(x) || ny_rank(with) != ny_rank(x))
    return ny_node_fail(n, NYB_E_SHAPE, "indices and updates of ranks %d and %d into rank %d", ny_rank(at),
                        ny_rank(with), ny_rank(x));
  if (!ny_indices_fit(n, 1, ny_size(x, axis))) return ny_failed(n);
  return ny_out(n, 0, ny_scatter_elements(n, x, at, with, axis, how));
}

nyb_status ny_op_scatter_nd(ny_node *n) {
  ny_value *at = n->in[1];
  const char *how = reduction(n);
  int64_t width;
  if (!ny_rank(at)) return ny_node_fail(n, NYB_E_SHAPE, "the indices are a scalar");
  if (!how || !ny_need_static(n, at, ny_rank(at) - 1, "the last size of the indices", &width)) return ny_failed(n);
  if (!ny_coordinates_fit(n, 1, n->in[0], 0, width)) return ny_failed(n);
  ny_op *op = ny_op_of(n, NY_scatter_nd, n->in, 3);
  if (op) op->attr[NY_AT(scatter_nd, op)].s = ny_intern(&n->cx->names, how);
  return ny_out(n, 0, ny_infer(n, op));
}

/* The condition decides the size of the result, so it must be known. */
nyb_status ny_op_compress(ny_node *n) {
  ny_value *x = n->in[0];
  ny_tensor c;
  int64_t count = 0, kept = 0;
  int axis = 0;
  if (!ny_onnx_const(n, 1, &c) || !ny_type_static_count(n->cx, c.type, &count))
    return ny_node_fail(n, NYB_E_UNSUPPORTED,
                        "the condition is not a constant: the size of the result depends on data");
  if (!ny_attr_has(n, "axis"))
    x = ny_reshape_to(n, x, 1, (ny_dim[]){ny_type_count(n->cx, x->type)});
  else if (!ny_attr_axis(n, 0, ny_rank(x), &axis))
    return ny_failed(n);
  int64_t *at = NY_NEW_ARRAY(n->tmp, int64_t, count + 1);
  for (int64_t i = 0; i < count; i++)
    if (ny_get_i((ny_fmt)c.type->fmt, c.data, (uint64_t)i)) at[kept++] = i;
  return ny_out(n, 0, ny_b_gather(&n->b, x, ny_const_ints(n, NY_i64, 1, &kept, at), axis));
}

/* A cache with an update written from write_indices[batch] on along axis; positions beyond the end wrap when circular.
 */
nyb_status ny_op_tensor_scatter(ny_node *n) {
  ny_value *cache = n->in[0], *update = n->in[1], *start = ny_opt(n, 2);
  int axis, rank = ny_rank(cache), circular = ny_attr_choice(n, "mode", "linear", "linear|circular");
  if (circular < 0 || !ny_attr_axis(n, -2, rank, &axis)) return ny_failed(n);
  if (ny_rank(update) != rank || axis == 0)
    return ny_node_fail(n, NYB_E_SHAPE, "update of rank %d into rank %d at axis %d", ny_rank(update), rank, axis);
  ny_dim shape[NY_MAX_RANK];
  for (int i = 0; i < rank; i++) shape[i] = i == axis ? ny_size(update, i) : 1;
  ny_value *at = ny_b_iota(&n->b, NY_i64, rank, shape, axis);
  if (start) at = ny_ew2(n, NY_add, at, ny_along(n, ny_cast_to(n, start, NY_i64), 0, rank));
  if (circular) at = ny_ew2(n, NY_mod, at, ny_dim_value(n, ny_size(cache, axis)));
  return ny_out(n, 0, ny_scatter_elements(n, cache, ny_expand_like(n, at, update), update, axis, "set"));
}
