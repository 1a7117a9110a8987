/* Rules of canon on quantised tensors. Other spellings of one become a dequantize: products of narrow constants with
   scales, and indices into a table of the sixteen E2M1 values. What rearranges one rearranges its codes and scales. */
#include "canon.h"

#include <string.h>

enum { FEW = 64 }; /* elements below which it is not worth keeping codes */

static bool may_move_codes(const ny_op *q) { return ny_one_use(q->out[0]) || ny_is_constant(ny_in(q, 0)); }

static int block_axis(const ny_op *q) {
  int64_t axis = q->attr[NY_AT(dequantize, axis)].i;
  return (int)(axis < 0 ? axis + q->out[0]->type->rank : axis);
}

static ny_value *put_together(ny_builder *b, const ny_op *q, ny_fmt f, ny_value *const *in, int axis) {
  return ny_b_dequantize(b, f, in[0], in[1], q->n_in > 2 ? in[2] : NULL, axis, q->attr[NY_AT(dequantize, block)].i);
}

/* What rearranges a dequantised tensor rearranges its codes and scales. */
static ny_value *transpose_codes(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  const ny_op *q = ny_in(op, 0)->def;
  int perm[NY_MAX_RANK], axis = 0;
  if (!may_move_codes(q)) return NULL;
  for (int i = 0; i < op->out[0]->type->rank; i++) {
    perm[i] = (int)op->attr[NY_AT(transpose, perm)].dims.v[i];
    if (perm[i] == block_axis(q)) axis = i;
  }
  ny_value *in[3];
  for (int i = 0; i < q->n_in; i++) in[i] = ny_b_transpose(b, ny_in(q, i), perm);
  return put_together(b, q, (ny_fmt)op->out[0]->type->fmt, in, axis);
}

/* Rows of a quantised table are looked up as codes. */
static ny_value *gather_codes(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  const ny_op *q = ny_in(op, 0)->def;
  ny_value *index = ny_in(op, 1), *in[3];
  int rank = q->out[0]->type->rank, more = index->type->rank - 1, along = block_axis(q);
  int64_t axis = op->attr[NY_AT(gather, axis)].i;
  if (axis < 0) axis += rank;
  if (!may_move_codes(q) || (q->attr[NY_AT(dequantize, block)].i && axis == along)) return NULL;
  for (int i = 0; i < q->n_in; i++) {
    const ny_type *t = ny_in(q, i)->type;
    ny_dim d[NY_MAX_RANK];
    for (int k = 0; k < rank + more; k++)
      d[k] = k < axis ? t->dim[k] : k <= axis + more ? 1 : t->dim[k - more];
    bool shared = i && t->dim[axis] == 1;
    in[i] = shared ? ny_b_reshape(b, ny_in(q, i), rank + more, d) : ny_b_gather(b, ny_in(q, i), index, (int)axis);
  }
  return put_together(b, q, (ny_fmt)op->out[0]->type->fmt, in, along < axis ? along : along + more);
}

static ny_value *cast_codes(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  const ny_op *q = ny_in(op, 0)->def;
  ny_fmt to = (ny_fmt)op->out[0]->type->fmt;
  ny_value *in[3] = {ny_in(q, 0), ny_in(q, 1), q->n_in > 2 ? ny_in(q, 2) : NULL};
  if (q->out[0]->type->fmt != NY_f32 || (to != NY_f16 && to != NY_bf16) || !may_move_codes(q)) return NULL;
  return put_together(b, q, to, in, block_axis(q));
}


/* ---- other spellings */
/* The narrow constant that v holds the numbers of, perhaps in another shape, in v's shape; or NULL. */
static ny_value *narrow_codes(ny_builder *b, ny_value *v) {
  const ny_type *t = v->type;
  int64_t n;
  if (ny_def(v, NY_reshape)) v = ny_in(v->def, 0);
  if (!ny_def(v, NY_cast)) return NULL;
  v = ny_in(v->def, 0);
  ny_fmt f = (ny_fmt)v->type->fmt;
  if (ny_fmts[f].bits > 8 || (!ny_is_float(f) && !ny_is_int(f)) || t->rank < 2 || !ny_is_constant(v)) return NULL;
  return ny_type_static_count(b->g->cx, t, &n) && n >= FEW ? ny_b_reshape(b, v, t->rank, t->dim) : NULL;
}

/* A scale or zero point with as many dims as the codes; NULL when it is none. */
static ny_value *of_rank(ny_builder *b, ny_value *s, const ny_type *x) {
  ny_dim d[NY_MAX_RANK];
  int lead = x->rank - s->type->rank;
  if (!ny_is_constant(s) || lead < 0) return NULL;
  for (int i = 0; i < x->rank; i++) {
    d[i] = i < lead ? 1 : s->type->dim[i - lead];
    if (d[i] != 1 && d[i] != x->dim[i]) return NULL;
  }
  return ny_b_reshape(b, s, x->rank, d);
}

static ny_value *times_scale(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  ny_value *x = NULL, *scale = NULL, *zero = NULL;
  for (int i = 0; i < 2 && !x; i++) {
    ny_value *v = ny_in(op, i);
    ny_op *sub = ny_def(v, NY_sub);
    x = narrow_codes(b, sub ? ny_in(sub, 0) : v);
    zero = x && sub ? ny_in(sub, 1) : NULL;
    scale = ny_in(op, 1 - i);
  }
  if (!x || op->out[0]->type->fmt != NY_f32 || !ny_same_shape(op->out[0]->type, x->type)) return NULL;
  if (zero && ny_def(zero, NY_cast)) zero = ny_in(zero->def, 0);
  scale = of_rank(b, scale, x->type);
  if (zero) zero = of_rank(b, zero, x->type);
  bool subtracts = ny_def(ny_in(op, 0), NY_sub) || ny_def(ny_in(op, 1), NY_sub);
  if (!scale || (subtracts && !zero)) return NULL;
  return ny_b_dequantize(b, NY_f32, x, scale, zero, 0, 0);
}

/* [.., n, block] codes with [.., n, 1] scales, seen as [.., n * block]: blocks. */
static ny_value *join_blocks(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  const ny_op *q = ny_in(op, 0)->def;
  const ny_type *from = q->out[0]->type, *to = op->out[0]->type;
  int last = from->rank - 1;
  if (q->attr[NY_AT(dequantize, block)].i || to->rank != last || last < 1 || !may_move_codes(q)) return NULL;
  ny_dim n = from->dim[last - 1], block = from->dim[last];
  if (memcmp(from->dim, to->dim, sizeof n * (size_t)(last - 1)) != 0 || block < 2 || n < 1 || block > INT32_MAX) return NULL;
  ny_value *in[3] = {ny_b_reshape(b, ny_in(q, 0), last, to->dim)};
  for (int i = 1; i < q->n_in; i++) {
    const ny_type *t = ny_in(q, i)->type;
    if (t->dim[last] != 1) return NULL;
    in[i] = ny_b_reshape(b, ny_in(q, i), last, t->dim);
  }
  return ny_b_dequantize(b, (ny_fmt)to->fmt, in[0], in[1], q->n_in > 2 ? in[2] : NULL, last - 1, block);
}

static bool is_e2m1(const ny_op *table) {
  const ny_type *t = table->out[0]->type;
  const ny_blob *blob = table->attr[NY_AT(const, data)].blob;
  if (t->rank != 1 || t->dim[0] != 16 || !blob || !ny_is_float((ny_fmt)t->fmt) || ny_fmts[t->fmt].bits < 16) return false;
  for (uint8_t i = 0; i < 16; i++)
    if (ny_get_f((ny_fmt)t->fmt, blob->data, i) != ny_get_f(NY_f4e2m1, &i, 0)) return false;
  return true;
}

/* Every index names an entry: then its low four bits are the code. */
static bool all_in_table(ny_graph *g, const ny_value *v) {
  while (v->def && (v->def->kind == NY_cast || v->def->kind == NY_reshape || v->def->kind == NY_transpose)) v = ny_in(v->def, 0);
  const ny_blob *blob = ny_def(v, NY_const) ? v->def->attr[NY_AT(const, data)].blob : NULL;
  int64_t n;
  if (!blob || !ny_is_int((ny_fmt)v->type->fmt) || !ny_type_static_count(g->cx, v->type, &n)) return false;
  for (int64_t i = 0; i < n; i++) {
    int64_t x = ny_get_i((ny_fmt)v->type->fmt, blob->data, (uint64_t)i);
    if (x < -16 || x > 15) return false;
  }
  return true;
}

static ny_value *codes_of_table(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  ny_value *index = ny_in(op, 1);
  if (!is_e2m1(ny_in(op, 0)->def) || !ny_is_constant(index) || !all_in_table(b->g, index)) return NULL;
  ny_value *u = ny_b_cast(b, index, NY_u4);
  const ny_type *t = u ? ny_type_with_fmt(b->g->cx, u->type, NY_f4e2m1) : NULL;
  ny_op *codes = u ? ny_build(b, NY_bitcast, &u, 1, &t, 1) : NULL;
  return codes ? ny_b_cast(b, codes->out[0], (ny_fmt)op->out[0]->type->fmt) : NULL;
}

#define ANY NY_ANY_OP
const ny_rule ny_code_rules[] = {
    {NY_transpose, NY_dequantize, ANY, transpose_codes, false},
    {NY_gather, NY_dequantize, ANY, gather_codes, false},
    {NY_gather, NY_const, ANY, codes_of_table, false},
    {NY_cast, NY_dequantize, ANY, cast_codes, false},
    {NY_reshape, NY_dequantize, ANY, join_blocks, false},
    {NY_mul, ANY, ANY, times_scale, false},
};
const int ny_n_code_rules = NY_COUNT(ny_code_rules);
