/* Result types of pad, concat, indexing and reductions. */
#include <string.h>

#include "infer.h"

static const ny_type *in_type(const ny_op *op, int i) { return ny_in(op, i)->type; }

const ny_type *ny_infer_pad(ny_graph *g, ny_op *op, int out) {
  (void)out;
  static const char *const modes[] = {"constant", "edge", "reflect", "wrap"};
  ny_ctx *cx = g->cx;
  const ny_type *x = in_type(op, 0);
  const ny_attr *lo = &op->attr[NY_AT(pad, lo)], *hi = &op->attr[NY_AT(pad, hi)], *in = &op->attr[NY_AT(pad, interior)];
  if (!ny_is_choice(g, op, op->attr[NY_AT(pad, mode)].s, modes, 4)) return NULL;
  if (lo->dims.n != x->rank || hi->dims.n != x->rank || (in->dims.n && in->dims.n != x->rank))
    return ny_bad_type(g, op, "lo has %u, hi %u and interior %u entries for rank %d", lo->dims.n, hi->dims.n,
                       in->dims.n, x->rank);
  if (op->n_in > 1 && (in_type(op, 1)->rank || in_type(op, 1)->fmt != x->fmt))
    return ny_bad_type(g, op, "the fill is %s for %s", ny_type_str(g, in_type(op, 1)), ny_type_str(g, x));
  bool plain = !strcmp(op->attr[NY_AT(pad, mode)].s, "constant");
  ny_dim d[NY_MAX_RANK];
  for (int i = 0; i < x->rank; i++) {
    ny_dim gap = in->dims.n ? in->dims.v[i] : 0, l = lo->dims.v[i], h = hi->dims.v[i];
    if (!plain && gap) return ny_bad_type(g, op, "interior padding needs mode constant");
    if (!ny_may_equal(cx, ny_dim_max(cx, l, 0), l) || !ny_may_equal(cx, ny_dim_max(cx, h, 0), h) ||
        !ny_may_equal(cx, ny_dim_max(cx, gap, 0), gap))
      return ny_bad_type(g, op, "negative padding in dimension %d: slice instead", i);
    ny_dim between = ny_dim_mul(cx, gap, ny_dim_sub(cx, x->dim[i], 1));
    d[i] = ny_dim_add(cx, ny_dim_add(cx, x->dim[i], between), ny_dim_add(cx, l, h));
  }
  return ny_result(g, op, (ny_fmt)x->fmt, x->rank, d);
}

const ny_type *ny_infer_concat(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *first = in_type(op, 0);
  int axis = ny_axis_of(g, op, op->attr[NY_AT(concat, axis)].i, first->rank);
  if (axis < 0) return NULL;
  ny_type t = *first;
  for (int i = 1; i < op->n_in; i++) {
    const ny_type *x = in_type(op, i);
    bool same = x->fmt == t.fmt && x->rank == t.rank;
    for (int k = 0; same && k < t.rank; k++) {
      if (k == axis) continue;
      same = ny_may_equal(g->cx, x->dim[k], t.dim[k]);
      if (ny_dim_is_const(g->cx, x->dim[k], NULL)) t.dim[k] = x->dim[k];
    }
    if (!same)
      return ny_bad_type(g, op, "%s and %s differ outside axis %d", ny_type_str(g, first), ny_type_str(g, x), axis);
    t.dim[axis] = ny_dim_add(g->cx, t.dim[axis], x->dim[axis]);
  }
  return ny_result(g, op, (ny_fmt)t.fmt, t.rank, t.dim);
}

static bool is_index(ny_graph *g, const ny_op *op, int i) {
  if (ny_is_int((ny_fmt)in_type(op, i)->fmt)) return true;
  ny_bad_type(g, op, "the index is %s, not integers", ny_type_str(g, in_type(op, i)));
  return false;
}

const ny_type *ny_infer_gather(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0), *index = in_type(op, 1);
  int axis = ny_axis_of(g, op, op->attr[NY_AT(gather, axis)].i, x->rank), n = 0;
  if (axis < 0 || !is_index(g, op, 1)) return NULL;
  ny_dim d[2 * NY_MAX_RANK];
  for (int i = 0; i < axis; i++) d[n++] = x->dim[i];
  for (int i = 0; i < index->rank; i++) d[n++] = index->dim[i];
  for (int i = axis + 1; i < x->rank; i++) d[n++] = x->dim[i];
  return ny_result(g, op, (ny_fmt)x->fmt, n, d);
}

/* index may be smaller than x except along axis; never larger. */
static bool fits(ny_graph *g, const ny_op *op, int axis) {
  const ny_type *x = in_type(op, 0), *index = in_type(op, 1);
  bool ok = x->rank == index->rank;
  for (int i = 0; ok && i < x->rank; i++) {
    ny_dim d = ny_dim_sub(g->cx, x->dim[i], index->dim[i]);
    int64_t lo, hi = 0;
    if (i != axis && d != NY_DIM_INVALID) ny_dim_bounds(g->cx, d, &lo, &hi);
    ok = hi >= 0;
  }
  if (!ok) ny_bad_type(g, op, "index %s does not fit %s", ny_type_str(g, index), ny_type_str(g, x));
  return ok && is_index(g, op, 1);
}

const ny_type *ny_infer_gather_elements(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0), *index = in_type(op, 1);
  int axis = ny_axis_of(g, op, op->attr[NY_AT(gather_elements, axis)].i, x->rank);
  if (axis < 0 || !fits(g, op, axis)) return NULL;
  return ny_result(g, op, (ny_fmt)x->fmt, index->rank, index->dim);
}

/* The length of a coordinate, the last dim of index; -1 after ny_bad_type. */
static int coordinate(ny_graph *g, const ny_op *op, int batch) {
  const ny_type *x = in_type(op, 0), *index = in_type(op, 1);
  int64_t k;
  if (!is_index(g, op, 1)) return -1;
  if (!index->rank || !ny_dim_is_const(g->cx, index->dim[index->rank - 1], &k) || k < 0 || k > x->rank - batch) {
    ny_bad_type(g, op, "index %s does not end in a coordinate of %s", ny_type_str(g, index), ny_type_str(g, x));
    return -1;
  }
  return (int)k;
}

const ny_type *ny_infer_gather_nd(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0), *index = in_type(op, 1);
  int64_t batch = op->attr[NY_AT(gather_nd, batch)].i;
  if (batch < 0 || batch >= index->rank || batch > x->rank)
    return ny_bad_type(g, op, "%lld shared dimensions of ranks %d and %d", (long long)batch, x->rank, index->rank);
  int k = coordinate(g, op, (int)batch), n = 0;
  if (k < 0) return NULL;
  for (int i = 0; i < batch; i++)
    if (!ny_may_equal(g->cx, x->dim[i], index->dim[i]))
      return ny_bad_type(g, op, "shared dimension %d is %s and %s", i, ny_dim_str(g, x->dim[i]),
                         ny_dim_str(g, index->dim[i]));
  ny_dim d[2 * NY_MAX_RANK];
  for (int i = 0; i < index->rank - 1; i++) d[n++] = index->dim[i];
  for (int i = (int)batch + k; i < x->rank; i++) d[n++] = x->dim[i];
  return ny_result(g, op, (ny_fmt)x->fmt, n, d);
}

static bool same_shape(ny_graph *g, const ny_type *a, int rank, const ny_dim *dims) {
  bool same = a->rank == rank;
  for (int i = 0; same && i < rank; i++) same = ny_may_equal(g->cx, a->dim[i], dims[i]);
  return same;
}

static bool good_updates(ny_graph *g, const ny_op *op, int rank, const ny_dim *dims) {
  const ny_type *x = in_type(op, 0), *u = in_type(op, 2);
  if (rank <= NY_MAX_RANK && u->fmt == x->fmt && same_shape(g, u, rank, dims)) return true;
  ny_bad_type(g, op, "updates %s do not match index %s into %s", ny_type_str(g, u), ny_type_str(g, in_type(op, 1)),
              ny_type_str(g, x));
  return false;
}

const ny_type *ny_infer_scatter_elements(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0), *index = in_type(op, 1);
  int axis = ny_axis_of(g, op, op->attr[NY_AT(scatter_elements, axis)].i, x->rank);
  if (axis < 0 || !ny_is_choice(g, op, op->attr[NY_AT(scatter_elements, op)].s, ny_scatter_ops, 5)) return NULL;
  return fits(g, op, axis) && good_updates(g, op, index->rank, index->dim) ? x : NULL;
}

const ny_type *ny_infer_scatter_nd(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0), *index = in_type(op, 1);
  if (!ny_is_choice(g, op, op->attr[NY_AT(scatter_nd, op)].s, ny_scatter_ops, 5)) return NULL;
  int k = coordinate(g, op, 0), n = 0;
  if (k < 0) return NULL;
  ny_dim d[2 * NY_MAX_RANK];
  for (int i = 0; i < index->rank - 1; i++) d[n++] = index->dim[i];
  for (int i = k; i < x->rank; i++) d[n++] = x->dim[i];
  return good_updates(g, op, n, d) ? x : NULL;
}

static bool is_number(ny_graph *g, const ny_op *op) {
  ny_fmt f = (ny_fmt)in_type(op, 0)->fmt;
  if (ny_is_float(f) || ny_is_int(f)) return true;
  ny_bad_type(g, op, "%s is not a numeric format", ny_fmts[f].name);
  return false;
}

const ny_type *ny_infer_reduce(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0);
  const ny_attr *axes = &op->attr[NY_AT(reduce, axes)];
  bool keep = op->attr[NY_AT(reduce, keep)].i != 0, gone[NY_MAX_RANK] = {false};
  if (!is_number(g, op) || !ny_is_choice(g, op, op->attr[NY_AT(reduce, op)].s, ny_reduce_ops, 4)) return NULL;
  for (uint32_t i = 0; i < axes->dims.n; i++) {
    int64_t a;
    if (!ny_dim_is_const(g->cx, axes->dims.v[i], &a)) return ny_bad_type(g, op, "an axis is not a number");
    int axis = ny_axis_of(g, op, a, x->rank);
    if (axis < 0) return NULL;
    if (gone[axis]) return ny_bad_type(g, op, "axis %d is named twice", axis);
    gone[axis] = true;
  }
  if (g->kernel && !keep) return ny_bad_type(g, op, "a tile stays two-dimensional: keep=1");
  ny_dim d[NY_MAX_RANK];
  int n = 0;
  for (int i = 0; i < x->rank; i++)
    if (!gone[i] || keep) d[n++] = gone[i] ? 1 : x->dim[i];
  return ny_result(g, op, (ny_fmt)x->fmt, n, d);
}

const ny_type *ny_infer_argreduce(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0);
  int axis = ny_axis_of(g, op, op->attr[NY_AT(argreduce, axis)].i, x->rank), n = 0;
  if (axis < 0 || !is_number(g, op) || !ny_is_choice(g, op, op->attr[NY_AT(argreduce, op)].s, ny_reduce_ops + 2, 2))
    return NULL;
  ny_dim d[NY_MAX_RANK];
  for (int i = 0; i < x->rank; i++)
    if (i != axis) d[n++] = x->dim[i];
  return ny_result(g, op, NY_i64, n, d);
}

const ny_type *ny_infer_scan(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0);
  if (!is_number(g, op) || !ny_is_choice(g, op, op->attr[NY_AT(scan, op)].s, ny_reduce_ops, 4)) return NULL;
  return ny_axis_of(g, op, op->attr[NY_AT(scan, axis)].i, x->rank) < 0 ? NULL : x;
}

const ny_type *ny_infer_topk(ny_graph *g, ny_op *op, int out) {
  const ny_type *x = in_type(op, 0), *t = op->out[out]->type;
  int axis = ny_axis_of(g, op, op->attr[NY_AT(topk, axis)].i, x->rank);
  if (axis < 0 || !is_number(g, op)) return NULL;
  if (!t || t->rank != x->rank) return ny_bad_type(g, op, "%s for an input %s", ny_type_str(g, t), ny_type_str(g, x));
  ny_type r = *x;
  r.dim[axis] = t->dim[axis];
  int64_t lo, hi;
  ny_dim_bounds(g->cx, ny_dim_sub(g->cx, x->dim[axis], r.dim[axis]), &lo, &hi);
  if (hi < 0) return ny_bad_type(g, op, "%s of %s elements", ny_dim_str(g, r.dim[axis]), ny_dim_str(g, x->dim[axis]));
  return ny_result(g, op, out ? NY_i64 : (ny_fmt)x->fmt, x->rank, r.dim);
}

static bool is_float_input(ny_graph *g, const ny_op *op) {
  if (ny_is_float((ny_fmt)in_type(op, 0)->fmt)) return true;
  ny_bad_type(g, op, "%s is not a float format", ny_fmts[in_type(op, 0)->fmt].name);
  return false;
}

const ny_type *ny_infer_softmax(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0);
  return is_float_input(g, op) && ny_axis_of(g, op, op->attr[NY_AT(softmax, axis)].i, x->rank) >= 0 ? x : NULL;
}

static const ny_type *norm(ny_graph *g, ny_op *op, int64_t from) {
  const ny_type *x = in_type(op, 0);
  int axis = ny_axis_of(g, op, from, x->rank);
  if (axis < 0 || !is_float_input(g, op)) return NULL;
  for (int i = 1; i < op->n_in; i++) {
    const ny_type *s = in_type(op, i);
    bool fits_x = ny_is_float((ny_fmt)s->fmt) && s->rank <= x->rank;
    for (int k = 0; fits_x && k < s->rank; k++)
      fits_x = s->dim[k] == 1 || ny_may_equal(g->cx, s->dim[k], x->dim[x->rank - s->rank + k]);
    if (!fits_x) return ny_bad_type(g, op, "input %d is %s for %s", i, ny_type_str(g, s), ny_type_str(g, x));
  }
  return x;
}

const ny_type *ny_infer_layer_norm(ny_graph *g, ny_op *op, int out) {
  (void)out;
  return norm(g, op, op->attr[NY_AT(layer_norm, axis)].i);
}

const ny_type *ny_infer_rms_norm(ny_graph *g, ny_op *op, int out) {
  (void)out;
  return norm(g, op, op->attr[NY_AT(rms_norm, axis)].i);
}

/* Scale or zero point `s`, in words `what`: x's rank; every dim x's size, 1, or the number of blocks along axis. */
static bool fits_blocks(ny_graph *g, const ny_op *op, const char *what, const ny_type *s, int axis, int64_t block) {
  const ny_type *x = in_type(op, 0);
  if (s->rank != x->rank) return ny_bad_type(g, op, "the %s is %s for %s", what, ny_type_str(g, s), ny_type_str(g, x));
  for (int i = 0; i < x->rank; i++) {
    bool blocks = block && i == axis;
    ny_dim want = blocks ? ny_dim_ceildiv(g->cx, x->dim[i], block) : x->dim[i];
    if (s->dim[i] == 1 || ny_may_equal(g->cx, s->dim[i], want)) continue;
    const char *in_blocks = blocks ? ny_strf(&g->arena, " in blocks of %lld", (long long)block) : "";
    return ny_bad_type(g, op, "dimension %d of the %s is %s for %s elements%s", i, what, ny_dim_str(g, s->dim[i]),
                       ny_dim_str(g, x->dim[i]), in_blocks);
  }
  return true;
}

const ny_type *ny_infer_dequantize(ny_graph *g, ny_op *op, int out) {
  const ny_type *x = in_type(op, 0), *s = in_type(op, 1), *t = op->out[out]->type;
  int64_t block = op->attr[NY_AT(dequantize, block)].i;
  if (block < 0 || block > 1 << 30) return ny_bad_type(g, op, "blocks of %lld", (long long)block);
  int axis = block ? ny_axis_of(g, op, op->attr[NY_AT(dequantize, axis)].i, x->rank) : 0;
  if (axis < 0) return NULL;
  for (int i = 0; i < op->n_in; i++) {
    ny_fmt f = (ny_fmt)in_type(op, i)->fmt;
    if (!ny_is_float(f) && (i == 1 || !ny_is_int(f)))
      return ny_bad_type(g, op, "the %s is %s", i == 1 ? "scale" : "input", ny_type_str(g, in_type(op, i)));
  }
  if (!t || !ny_is_float((ny_fmt)t->fmt)) return ny_bad_type(g, op, "gives %s, not floats", ny_type_str(g, t));
  if (!fits_blocks(g, op, "scale", s, axis, block)) return NULL;
  if (op->n_in > 2 && !fits_blocks(g, op, "zero point", in_type(op, 2), axis, block)) return NULL;
  return ny_type_with_fmt(g->cx, x, (ny_fmt)t->fmt);
}
