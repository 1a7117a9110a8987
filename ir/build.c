/* One-line construction: each function makes an op, infers its type and gives the result. A view that changes nothing
   gives its input. After a failure everything gives NULL, so a caller checks once. */
#include <string.h>

#include "ir.h"

static bool ready(const ny_builder *b, ny_value *const *in, int n) {
  if (b->g->cx->diag.code) return false;
  for (int i = 0; i < n; i++)
    if (!in[i]) return false;
  return true;
}

ny_op *ny_build(ny_builder *b, ny_kind k, ny_value *const *in, int n_in, const ny_type *const *out, int n_out) {
  if (!ready(b, in, n_in)) return NULL;
  if (n_in > UINT16_MAX || n_out > UINT16_MAX) {
    ny_fail(&b->g->cx->diag, NYB_E_LIMIT, b->loc, "%s: %d inputs and %d results are too many", ny_kinds[k].name, n_in,
            n_out);
    return NULL;
  }
  ny_op *op = ny_op_new(b->g, b->block, k, in, n_in, out, n_out);
  op->loc = b->loc;
  if (b->before) ny_move(op, b->block, b->before);
  return op;
}

static ny_op *start(ny_builder *b, ny_kind k, ny_value *const *in, int n_in, const ny_type *t) {
  return ny_build(b, k, in, n_in, &t, 1);
}

static ny_value *finish(ny_builder *b, ny_op *op) { return op && !ny_infer_op(b->g, op) ? op->out[0] : NULL; }

ny_value *ny_b_ew(ny_builder *b, ny_kind k, ny_value *const *in, int n_in) {
  return finish(b, start(b, k, in, n_in, NULL));
}
ny_value *ny_b_ew1(ny_builder *b, ny_kind k, ny_value *x) { return ny_b_ew(b, k, &x, 1); }
ny_value *ny_b_ew2(ny_builder *b, ny_kind k, ny_value *x, ny_value *y) {
  return ny_b_ew(b, k, (ny_value *[]){x, y}, 2);
}
ny_value *ny_b_where(ny_builder *b, ny_value *c, ny_value *x, ny_value *y) {
  return ny_b_ew(b, NY_where, (ny_value *[]){c, x, y}, 3);
}

ny_value *ny_b_const(ny_builder *b, const ny_type *t, const ny_blob *blob) {
  ny_op *op = start(b, NY_const, NULL, 0, t);
  if (op) op->attr[NY_AT(const, data)].blob = blob;
  return finish(b, op);
}

ny_value *ny_b_scalar(ny_builder *b, ny_fmt f, double x) {
  ny_op *op = start(b, NY_const, NULL, 0, ny_tensor_type(b->g->cx, f, 0, NULL));
  if (op) op->attr[NY_AT(const, splat)].f = ny_is_float(f) ? ny_round_to(f, x) : x;
  return finish(b, op);
}

ny_value *ny_b_dims(ny_builder *b, const ny_dim *v, int n, bool scalar) {
  ny_dim size = n;
  ny_op *op = start(b, NY_dims, NULL, 0, ny_tensor_type(b->g->cx, NY_i64, scalar ? 0 : 1, &size));
  if (op) op->attr[NY_AT(dims, v)] = ny_dims_attr(b->g, v, (size_t)n);
  return finish(b, op);
}

ny_value *ny_b_cast(ny_builder *b, ny_value *x, ny_fmt f) {
  if (!ready(b, &x, 1) || x->type->fmt == f) return b->g->cx->diag.code ? NULL : x;
  return finish(b, start(b, NY_cast, &x, 1, ny_type_with_fmt(b->g->cx, x->type, f)));
}

static const ny_type *shaped(ny_builder *b, const ny_value *x, int rank, const ny_dim *shape) {
  if (rank >= 0 && rank <= NY_MAX_RANK) return ny_tensor_type(b->g->cx, (ny_fmt)x->type->fmt, rank, shape);
  ny_fail(&b->g->cx->diag, NYB_E_UNSUPPORTED, b->loc, "rank %d; at most %d dimensions are supported", rank,
          NY_MAX_RANK);
  return NULL;
}

/* An op that declares its result's shape. */
static ny_value *to_shape(ny_builder *b, ny_kind k, ny_value *x, int rank, const ny_dim *shape) {
  if (!ready(b, &x, 1)) return NULL;
  const ny_type *t = shaped(b, x, rank, shape);
  return t == x->type ? x : t ? finish(b, start(b, k, &x, 1, t)) : NULL;
}

ny_value *ny_b_reshape(ny_builder *b, ny_value *x, int rank, const ny_dim *shape) {
  return to_shape(b, NY_reshape, x, rank, shape);
}
ny_value *ny_b_broadcast(ny_builder *b, ny_value *x, int rank, const ny_dim *shape) {
  return to_shape(b, NY_broadcast, x, rank, shape);
}

ny_value *ny_b_transpose(ny_builder *b, ny_value *x, const int *perm) {
  if (!ready(b, &x, 1)) return NULL;
  ny_dim p[NY_MAX_RANK];
  bool same = true;
  for (int i = 0; i < x->type->rank; i++) {
    p[i] = ny_dim_const(b->g->cx, perm[i]);
    same = same && perm[i] == i;
  }
  if (same) return x;
  ny_op *op = start(b, NY_transpose, &x, 1, NULL);
  op->attr[NY_AT(transpose, perm)] = ny_dims_attr(b->g, p, x->type->rank);
  return finish(b, op);
}

ny_value *ny_b_slice(ny_builder *b, ny_value *x, const ny_dim *from, const ny_dim *step, const ny_dim *count) {
  if (!ready(b, &x, 1)) return NULL;
  size_t n = x->type->rank;
  bool same = true, ones = true;
  for (size_t i = 0; i < n; i++) {
    ones = ones && (!step || step[i] == 1);
    same = same && from[i] == 0 && count[i] == x->type->dim[i];
  }
  if (same && ones) return x;
  ny_op *op = start(b, NY_slice, &x, 1, shaped(b, x, x->type->rank, count));
  op->attr[NY_AT(slice, start)] = ny_dims_attr(b->g, from, n);
  if (!ones) op->attr[NY_AT(slice, step)] = ny_dims_attr(b->g, step, n);
  return finish(b, op);
}

ny_value *ny_b_pad(ny_builder *b, ny_value *x, ny_value *fill, const ny_dim *lo, const ny_dim *hi,
                   const ny_dim *interior, const char *mode) {
  if (!ready(b, &x, 1)) return NULL;
  size_t n = x->type->rank;
  ny_op *op = start(b, NY_pad, (ny_value *[]){x, fill}, fill ? 2 : 1, NULL);
  if (!op) return NULL;
  op->attr[NY_AT(pad, lo)] = ny_dims_attr(b->g, lo, n);
  op->attr[NY_AT(pad, hi)] = ny_dims_attr(b->g, hi, n);
  bool gaps = false;
  for (size_t i = 0; interior && i < n; i++) gaps = gaps || interior[i];
  if (gaps) op->attr[NY_AT(pad, interior)] = ny_dims_attr(b->g, interior, n);
  if (mode) op->attr[NY_AT(pad, mode)].s = ny_intern(&b->g->cx->names, mode);
  return finish(b, op);
}

ny_value *ny_b_concat(ny_builder *b, ny_value *const *in, int n, int axis) {
  if (n == 1 && ready(b, in, 1)) return in[0];
  ny_op *op = start(b, NY_concat, in, n, NULL);
  if (op) op->attr[NY_AT(concat, axis)].i = axis;
  return finish(b, op);
}

ny_value *ny_b_gather(ny_builder *b, ny_value *x, ny_value *index, int axis) {
  ny_op *op = start(b, NY_gather, (ny_value *[]){x, index}, 2, NULL);
  if (op) op->attr[NY_AT(gather, axis)].i = axis;
  return finish(b, op);
}

ny_value *ny_b_reduce(ny_builder *b, const char *how, ny_value *x, const int *axes, int n, bool keep) {
  ny_dim a[NY_MAX_RANK];
  if (n > NY_MAX_RANK) {
    ny_fail(&b->g->cx->diag, NYB_E_TYPE, b->loc, "reduce: %d axes; at most %d dimensions are supported", n,
            NY_MAX_RANK);
    return NULL;
  }
  for (int i = 0; i < n; i++) a[i] = ny_dim_const(b->g->cx, axes[i]);
  ny_op *op = start(b, NY_reduce, &x, 1, NULL);
  if (!op) return NULL;
  op->attr[NY_AT(reduce, op)].s = ny_intern(&b->g->cx->names, how);
  op->attr[NY_AT(reduce, axes)] = ny_dims_attr(b->g, a, (size_t)n);
  op->attr[NY_AT(reduce, keep)].i = keep;
  return finish(b, op);
}

ny_value *ny_b_matmul(ny_builder *b, ny_value *x, ny_value *y) {
  return finish(b, start(b, NY_matmul, (ny_value *[]){x, y}, 2, NULL));
}

ny_value *ny_b_dequantize(ny_builder *b, ny_fmt f, ny_value *x, ny_value *scale, ny_value *zero, int axis,
                          int64_t block) {
  ny_value *in[] = {x, scale, zero};
  if (!ready(b, in, zero ? 3 : 2)) return NULL;
  ny_op *op = start(b, NY_dequantize, in, zero ? 3 : 2, ny_type_with_fmt(b->g->cx, x->type, f));
  if (op && block) op->attr[NY_AT(dequantize, axis)].i = axis, op->attr[NY_AT(dequantize, block)].i = block;
  return finish(b, op);
}

ny_value *ny_b_iota(ny_builder *b, ny_fmt f, int rank, const ny_dim *shape, int axis) {
  if (!ready(b, NULL, 0)) return NULL;
  ny_op *op = start(b, NY_iota, NULL, 0, ny_tensor_type(b->g->cx, f, rank, shape));
  if (op) op->attr[NY_AT(iota, axis)].i = axis;
  return finish(b, op);
}
