/* Rules of canon on views: what changes nothing goes, chains become one, a transpose that moves no data becomes a
 * reshape (which costs nothing). */
#include "canon.h"

#include <string.h>

static ny_value *same_type(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  return ny_in(op, 0)->type == op->out[0]->type ? ny_in(op, 0) : NULL;
}

/* A number everywhere stays one whatever its shape. */
static ny_value *of_number(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  double x;
  return ny_uniform(ny_in(op, 0), &x) ? ny_b_splat(b, op->out[0]->type, x) : NULL;
}

static ny_value *of_same_view(ny_builder *b, ny_op *op, bool fast) { /* reshape of reshape, broadcast of broadcast */
  (void)fast;
  ny_value *x = ny_in(ny_in(op, 0)->def, 0);
  const ny_type *t = op->out[0]->type;
  return op->kind == NY_reshape ? ny_b_reshape(b, x, t->rank, t->dim) : ny_b_broadcast(b, x, t->rank, t->dim);
}

static int perm_at(const ny_op *op, int i) { return (int)op->attr[NY_AT(transpose, perm)].dims.v[i]; }

static ny_value *transpose_transpose(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  ny_op *inner = ny_in(op, 0)->def;
  int perm[NY_MAX_RANK];
  for (int i = 0; i < op->out[0]->type->rank; i++) perm[i] = perm_at(inner, perm_at(op, i));
  return ny_b_transpose(b, ny_in(inner, 0), perm);
}

static ny_value *transpose_still(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  const ny_type *x = ny_in(op, 0)->type, *t = op->out[0]->type;
  int last = -1;
  for (int i = 0; i < t->rank; i++) {
    int p = perm_at(op, i);
    if (x->dim[p] == 1) continue;
    if (p < last) return NULL;
    last = p;
  }
  return ny_b_reshape(b, ny_in(op, 0), t->rank, t->dim);
}

static ny_dim step_at(const ny_op *slice, int i) {
  const ny_attr *step = &slice->attr[NY_AT(slice, step)];
  return step->dims.n ? step->dims.v[i] : 1;
}

static ny_value *slice_whole(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  ny_value *x = ny_in(op, 0);
  if (x->type != op->out[0]->type) return NULL;
  for (int i = 0; i < x->type->rank; i++)
    if (op->attr[NY_AT(slice, start)].dims.v[i] != 0 || step_at(op, i) != 1) return NULL;
  return x;
}

static ny_value *slice_slice(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  ny_op *inner = ny_in(op, 0)->def;
  ny_ctx *cx = b->g->cx;
  ny_dim start[NY_MAX_RANK], step[NY_MAX_RANK];
  for (int i = 0; i < op->out[0]->type->rank; i++) {
    ny_dim by = step_at(inner, i);
    start[i] = ny_dim_add(cx, inner->attr[NY_AT(slice, start)].dims.v[i],
                          ny_dim_mul(cx, by, op->attr[NY_AT(slice, start)].dims.v[i]));
    step[i] = ny_dim_mul(cx, by, step_at(op, i));
    if (start[i] == NY_DIM_INVALID || step[i] == NY_DIM_INVALID) return NULL;
  }
  return ny_b_slice(b, ny_in(inner, 0), start, step, op->out[0]->type->dim);
}

/* A slice of a concat along its axis that lies in one input. */
static ny_value *slice_concat(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  ny_op *cat = ny_in(op, 0)->def;
  int axis = (int)cat->attr[NY_AT(concat, axis)].i, rank = op->out[0]->type->rank;
  int64_t start, n, lo = 0, size;
  if (axis < 0) axis += rank;
  if (step_at(op, axis) != 1 || !ny_dim_is_const(b->g->cx, op->attr[NY_AT(slice, start)].dims.v[axis], &start))
    return NULL;
  if (!ny_dim_is_const(b->g->cx, op->out[0]->type->dim[axis], &n)) return NULL;
  for (int i = 0; i < cat->n_in; i++, lo += size) {
    if (!ny_dim_is_const(b->g->cx, ny_in(cat, i)->type->dim[axis], &size)) return NULL;
    if (start < lo || start + n > lo + size) continue;
    ny_dim from[NY_MAX_RANK], step[NY_MAX_RANK];
    for (int d = 0; d < rank; d++) from[d] = op->attr[NY_AT(slice, start)].dims.v[d], step[d] = step_at(op, d);
    from[axis] = start - lo;
    return ny_b_slice(b, ny_in(cat, i), from, step, op->out[0]->type->dim);
  }
  return NULL;
}

static ny_value *pad_nothing(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  static const int slots[] = {NY_AT(pad, lo), NY_AT(pad, hi), NY_AT(pad, interior)};
  for (size_t s = 0; s < NY_COUNT(slots); s++)
    for (uint32_t i = 0; i < op->attr[slots[s]].dims.n; i++)
      if (op->attr[slots[s]].dims.v[i] != 0) return NULL;
  return ny_in(op, 0);
}

/* Empty inputs go, a concat along the same axis opens up. */
static ny_value *concat_parts(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  enum { MAX_PARTS = 32 }; /* decompose splits what is longer */
  int64_t axis = op->attr[NY_AT(concat, axis)].i;
  int n = 0, total = 0;
  if (axis < 0) axis += op->out[0]->type->rank;
  for (int i = 0; i < op->n_in; i++) total += ny_def(ny_in(op, i), NY_concat) ? ny_in(op, i)->def->n_in : 1;
  if (total > MAX_PARTS) return NULL;
  ny_value **part = NY_NEW_ARRAY(&b->g->arena, ny_value *, total);
  for (int i = 0; i < op->n_in; i++) {
    ny_value *v = ny_in(op, i);
    ny_op *inner = ny_def(v, NY_concat);
    bool open = inner && ny_one_use(v) && (inner->attr[NY_AT(concat, axis)].i + v->type->rank) % v->type->rank == axis;
    if (open)
      for (int j = 0; j < inner->n_in; j++) part[n++] = ny_in(inner, j);
    else if (v->type->dim[axis] != 0)
      part[n++] = v;
  }
  if (n == 0) part[n++] = ny_in(op, 0);
  bool same = n == op->n_in && n > 1;
  for (int i = 0; i < n && same; i++) same = part[i] == ny_in(op, i);
  if (same) return NULL;
  return n == 1 ? part[0] : ny_b_concat(b, part, n, (int)axis);
}

/* Taking one known row is a slice. */
static ny_value *gather_one(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  ny_value *x = ny_in(op, 0), *index = ny_in(op, 1);
  double at;
  int64_t size, n;
  int64_t axis = op->attr[NY_AT(gather, axis)].i;
  if (axis < 0) axis += x->type->rank;
  if (!ny_type_static_count(b->g->cx, index->type, &n) || n != 1 || !ny_uniform(index, &at)) return NULL;
  ny_dim start[NY_MAX_RANK] = {0}, count[NY_MAX_RANK];
  memcpy(count, x->type->dim, sizeof count);
  count[axis] = 1;
  start[axis] = (ny_dim)at;
  if (at < 0) start[axis] = ny_dim_add(b->g->cx, x->type->dim[axis], ny_dim_const(b->g->cx, (int64_t)at));
  if (!ny_dim_is_const(b->g->cx, x->type->dim[axis], &size)) return NULL; /* nor can it be clamped */
  if (start[axis] < 0 || start[axis] >= size) return NULL;
  return ny_b_reshape(b, ny_b_slice(b, x, start, NULL, count), op->out[0]->type->rank, op->out[0]->type->dim);
}

/* Taking rows 0, 1, 2, .. is a slice, or nothing. */
static ny_value *gather_rising(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  ny_value *x = ny_in(op, 0), *index = ny_in(op, 1);
  int64_t lo, hi, axis = op->attr[NY_AT(gather, axis)].i;
  ny_dim start[NY_MAX_RANK] = {0}, count[NY_MAX_RANK];
  if (axis < 0) axis += x->type->rank;
  if (index->type->rank != 1 || !ny_is_int((ny_fmt)index->type->fmt)) return NULL;
  memcpy(count, x->type->dim, sizeof count);
  count[axis] = index->type->dim[0];
  ny_dim_bounds(b->g->cx, ny_dim_sub(b->g->cx, x->type->dim[axis], count[axis]), &lo, &hi);
  return lo >= 0 ? ny_b_slice(b, x, start, NULL, count) : NULL;
}

/* A spatial dim of size 1 under a kernel of 1 is no dim: what is left are longer rows. */
static ny_value *conv_thin(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  static const int slot[] = {NY_AT(conv, kernel), NY_AT(conv, stride), NY_AT(conv, dilation)};
  ny_value *x = ny_in(op, 0), *w = ny_in(op, 1);
  const ny_attr *kernel = &op->attr[NY_AT(conv, kernel)];
  int spatial = x->type->rank - 2, thin = -1;
  ny_dim xd[NY_MAX_RANK], wd[NY_MAX_RANK];
  if (op->attr[NY_AT(conv, packed)].i || spatial < 2 || kernel->dims.n != (uint32_t)spatial) return NULL;
  for (int i = 0; i < spatial; i++)
    if (x->type->dim[1 + i] == 1 && kernel->dims.v[i] == 1) thin = i;
  if (thin < 0) return NULL;
  for (int i = 0; i < spatial + 1; i++)
    xd[i] = x->type->dim[i < 1 + thin ? i : i + 1], wd[i] = w->type->dim[i < thin ? i : i + 1];
  ny_value *in[2] = {ny_b_reshape(b, x, spatial + 1, xd), ny_b_reshape(b, w, spatial + 1, wd)};
  const ny_type *t = NULL;
  ny_op *c = ny_build(b, NY_conv, in, 2, &t, 1);
  if (!c) return NULL;
  memcpy(c->attr, op->attr, sizeof *op->attr * ny_kinds[NY_conv].n_attr);
  for (size_t s = 0; s < NY_COUNT(slot); s++) {
    const ny_attr *a = &op->attr[slot[s]];
    ny_dim v[NY_MAX_RANK];
    for (int i = 0; i < spatial - 1 && a->dims.n; i++) v[i] = a->dims.v[i < thin ? i : i + 1];
    if (a->dims.n) c->attr[slot[s]] = ny_dims_attr(b->g, v, (size_t)spatial - 1);
  }
  return ny_infer_op(b->g, c) ? NULL : ny_b_reshape(b, c->out[0], op->out[0]->type->rank, op->out[0]->type->dim);
}

/* Over dims of size 1 every reduction is the element itself. */
static ny_value *reduce_ones(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  ny_value *x = ny_in(op, 0);
  const ny_attr *axes = &op->attr[NY_AT(reduce, axes)];
  for (uint32_t i = 0; i < axes->dims.n; i++) {
    int64_t a = 0;
    if (!ny_dim_is_const(b->g->cx, axes->dims.v[i], &a)) return NULL;
    if (x->type->dim[a < 0 ? a + x->type->rank : a] != 1) return NULL;
  }
  return ny_b_reshape(b, x, op->out[0]->type->rank, op->out[0]->type->dim);
}

#define ANY NY_ANY_OP
#define NUM NY_CONST_OP
const ny_rule ny_view_rules[] = {
    {NY_reshape, ANY, ANY, same_type, false},
    {NY_broadcast, ANY, ANY, same_type, false},
    {NY_bitcast, ANY, ANY, same_type, false},
    {NY_reshape, NUM, ANY, of_number, false},
    {NY_transpose, NUM, ANY, of_number, false},
    {NY_slice, NUM, ANY, of_number, false},
    {NY_reshape, NY_reshape, ANY, of_same_view, false},
    {NY_broadcast, NY_broadcast, ANY, of_same_view, false},
    {NY_transpose, NY_transpose, ANY, transpose_transpose, false},
    {NY_transpose, ANY, ANY, transpose_still, false},
    {NY_slice, ANY, ANY, slice_whole, false},
    {NY_slice, NY_slice, ANY, slice_slice, false},
    {NY_slice, NY_concat, ANY, slice_concat, false},
    {NY_pad, ANY, ANY, pad_nothing, false},
    {NY_concat, ANY, ANY, concat_parts, false},
    {NY_gather, ANY, NUM, gather_one, false},
    {NY_gather, ANY, NY_iota, gather_rising, false},
    {NY_conv, ANY, ANY, conv_thin, false},
    {NY_reduce, ANY, ANY, reduce_ones, false},
};
const int ny_n_view_rules = NY_COUNT(ny_view_rules);
