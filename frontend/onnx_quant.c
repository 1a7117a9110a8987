/* Codes and blocks. Exporters keep 4-bit codes as bytes of another format; here they get their true format without a
   copy, because a constant is a type over bytes that stay in the file. What is quantised at run time, or by import on
   behalf of the exporter, is spelled in the IR's ops: constants among it are evaluated when the module is written. */
#include "onnx_quant.h"

#include "onnx_import.h"

static const ny_blob *blob_of(const ny_value *v) {
  return v->def && v->def->kind == NY_const ? v->def->attr[NY_AT(const, data)].blob : NULL;
}

static int64_t elements(int rank, const int64_t *shape) {
  int64_t count = 1;
  for (int i = 0; i < rank; i++)
    if (__builtin_mul_overflow(count, shape[i], &count)) return -1;
  return count;
}

/* Another constant over the same bytes. */
static ny_value *same_bytes(ny_node *n, const ny_value *v, ny_fmt f, int rank, const int64_t *shape) {
  ny_dim d[NY_MAX_RANK];
  for (int i = 0; i < rank; i++) d[i] = ny_dim_const(n->cx, shape[i]);
  return ny_const_value(n->im, ny_tensor_type(n->cx, f, rank, d), blob_of(v), n->b.loc);
}

ny_value *ny_reinterpret(ny_node *n, ny_value *v, ny_fmt f) {
  if (!v || n->cx->diag.code || ny_fmt_of(v) == f) return v;
  if (ny_fmts[f].bits != ny_fmts[ny_fmt_of(v)].bits)
    return ny_refuse_value(n, NYB_E_TYPE, "%s where %s or bytes of it are needed", ny_fmts[ny_fmt_of(v)].name,
                           ny_fmts[f].name);
  if (blob_of(v)) {
    int64_t shape[NY_MAX_RANK] = {0};
    for (int i = 0; i < ny_rank(v); i++) ny_static_size(v, i, &shape[i]);
    return same_bytes(n, v, f, ny_rank(v), shape);
  }
  if (v->def && v->def->kind == NY_bitcast && ny_fmt_of(ny_in(v->def, 0)) == f) return ny_in(v->def, 0);
  const ny_type *t = ny_type_with_fmt(n->cx, v->type, f);
  return ny_infer(n, ny_build(&n->b, NY_bitcast, &v, 1, &t, 1));
}

ny_value *ny_codes(ny_node *n, int i, ny_fmt f, int rank, const int64_t *shape, const char *what) {
  ny_value *v = ny_need(n, i);
  ny_tensor t;
  int64_t have, count = elements(rank, shape);
  if (!v) return NULL;
  if (!ny_type_static_count(n->cx, v->type, &have) || count < 0 ||
      ny_fmt_bytes(ny_fmt_of(v), (uint64_t)have) != ny_fmt_bytes(f, (uint64_t)count))
    return ny_refuse_value(n, NYB_E_SHAPE, "input %d (%s) holds %lld elements of %s, which are not %lld codes of %s", i,
                           what, (long long)(have), ny_fmts[ny_fmt_of(v)].name, (long long)count, ny_fmts[f].name);
  if (blob_of(v)) return same_bytes(n, v, f, rank, shape);
  if (ny_value_const(n, v, &t)) return ny_const_data(n, f, rank, shape, t.data);
  return ny_refuse_value(n, NYB_E_UNSUPPORTED, "input %d (%s) must be constant", i, what);
}

ny_value *ny_shaped(ny_node *n, int i, int rank, const int64_t *shape, const char *what) {
  ny_value *v = ny_need(n, i);
  ny_dim d[NY_MAX_RANK];
  int64_t have, count = elements(rank, shape);
  if (!v) return NULL;
  if (!ny_type_static_count(n->cx, v->type, &have) || have != count)
    return ny_refuse_value(n, NYB_E_SHAPE, "input %d (%s) has %lld elements, not %lld", i, what, (long long)have,
                           (long long)count);
  if (blob_of(v)) return same_bytes(n, v, ny_fmt_of(v), rank, shape);
  for (int k = 0; k < rank; k++) d[k] = ny_dim_const(n->cx, shape[k]);
  return ny_reshape_to(n, v, rank, d);
}

ny_fmt ny_code_format(ny_node *n, const char *attr, int64_t def) {
  int64_t bits = ny_attr_int(n, attr, def);
  if (bits == 2 || bits == 4 || bits == 8) return bits == 2 ? NY_u2 : bits == 4 ? NY_u4 : NY_u8;
  ny_node_fail(n, NYB_E_UNSUPPORTED, "attribute \"%s\" is %lld, not 2, 4 or 8", attr, (long long)bits);
  return NY_none;
}

bool ny_block_size(ny_node *n, int64_t def, int64_t *out) {
  *out = ny_attr_int(n, "block_size", def);
  return (*out > 0 && *out <= 1 << 30) ||
         ny_refuse(n, NYB_E_SHAPE, "attribute \"block_size\" is %lld", (long long)*out);
}

ny_value *ny_splat(ny_node *n, ny_fmt f, int rank, double x) {
  ny_dim d[NY_MAX_RANK];
  for (int i = 0; i < rank; i++) d[i] = 1;
  return ny_full(n, f, rank, d, x);
}

ny_value *ny_linear(ny_node *n, ny_value *x, ny_value *w, ny_value *bias) {
  if (!x || !w || n->cx->diag.code) return NULL;
  bool row = ny_rank(x) == 1;
  if (!ny_rank(x)) return ny_refuse_value(n, NYB_E_SHAPE, "a scalar cannot be multiplied as a matrix");
  if (row) x = ny_unsqueeze_at(n, x, 0);
  if (!x || !ny_unify(n, ny_size(x, ny_rank(x) - 1), ny_size(w, 1), "the inner sizes of a product")) return NULL;
  ny_value *y = ny_b_matmul(&n->b, x, ny_matrix_transpose(n, w));
  if (y && row) y = ny_squeeze_at(n, y, 0);
  return bias ? ny_ew2(n, NY_add, y, bias) : y;
}

/* ---- Blocks */
bool ny_blocks_of(ny_node *n, ny_value *x, int axis, int64_t block, ny_blocks *out) {
  ny_dim zero[NY_MAX_RANK] = {0}, hi[NY_MAX_RANK] = {0}, d[NY_MAX_RANK];
  int rank = ny_rank(x);
  *out = (ny_blocks){.of = x, .axis = axis, .block = block};
  if (!rank) return ny_refuse(n, NYB_E_SHAPE, "a scalar has no blocks");
  if (!ny_need_static(n, x, axis, "the size split into blocks", &out->size)) return false;
  out->n = out->size / block + (out->size % block != 0);
  for (int i = 0; i < rank; i++) d[i] = ny_size(x, i);
  hi[axis] = out->n * block - out->size;
  x = ny_cast_to(n, x, NY_f32);
  if (hi[axis]) x = ny_b_pad(&n->b, x, NULL, zero, hi, NULL, "constant");
  ny_dim split[4] = {ny_product(n, d, axis), out->n, block, ny_product(n, d + axis + 1, rank - axis - 1)};
  out->x = ny_reshape_to(n, x, 4, split);
  return out->x != NULL;
}

ny_value *ny_blocks_amax(ny_node *n, const ny_blocks *b) {
  return ny_b_reduce(&n->b, "max", ny_ew1(n, NY_abs, b->x), (int[]){2}, 1, true);
}

/* Back to the shape of `of` but for `size` at the axis. */
static ny_value *rejoined(ny_node *n, const ny_blocks *b, ny_value *y, int64_t size) {
  ny_dim d[NY_MAX_RANK];
  for (int i = 0; i < ny_rank(b->of); i++) d[i] = i == b->axis ? size : ny_size(b->of, i);
  return ny_reshape_to(n, y, ny_rank(b->of), d);
}

ny_value *ny_blocks_scales(ny_node *n, const ny_blocks *b, ny_value *s) { return rejoined(n, b, s, b->n); }

ny_value *ny_blocks_join(ny_node *n, const ny_blocks *b, ny_value *y) {
  y = rejoined(n, b, y, b->n * b->block);
  return y ? ny_slice_axis(n, y, b->axis, 0, b->size) : NULL;
}

ny_value *ny_blocks_quantized(ny_node *n, const ny_blocks *b, ny_value *s, ny_fmt f) {
  ny_value *q = ny_where(n, ny_ew2(n, NY_eq, s, ny_num(n, s, 0)), ny_num(n, b->x, 0), ny_ew2(n, NY_div, b->x, s));
  return ny_blocks_join(n, b, ny_cast_to(n, q, f));
}

ny_value *ny_scale_of(ny_node *n, ny_value *x, int i, int axis, int64_t block) {
  ny_value *v = ny_opt(n, i);
  ny_dim one[NY_MAX_RANK];
  int64_t count;
  int rank = ny_rank(x);
  for (int d = 0; d < rank; d++) one[d] = 1;
  if (v && ny_type_static_count(n->cx, v->type, &count) && count == 1) return ny_reshape_to(n, v, rank, one);
  if (v && !block && ny_rank(v) == 1) return ny_along(n, v, axis, rank);
  if (!v || ny_rank(v) == rank) return v;
  return ny_refuse_value(n, NYB_E_SHAPE, "the %s has rank %d for an input of rank %d", i == 1 ? "scale" : "zero point",
                         ny_rank(v), rank);
}
