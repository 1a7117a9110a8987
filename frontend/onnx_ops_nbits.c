/* com.microsoft products and gathers with quantised weights. Each becomes codes, scales and one dequantize, whatever
   the operator packs where: the product itself is computed as an unquantised one. */
#include "onnx_quant.h"

#include <string.h>

/* attr N and K, or any other positive size. */
static bool size_attr(ny_node *n, const char *name, int64_t *out) {
  *out = ny_attr_int(n, name, 0);
  return (*out > 0 && *out <= INT64_C(1) << 40) ||
         ny_refuse(n, NYB_E_SHAPE, "attribute \"%s\" is %lld", name, (long long)*out);
}

static int64_t parts(int64_t n, int64_t of) { return n / of + (n % of != 0); }

static ny_value *cut(ny_node *n, ny_value *v, int axis, int64_t size) {
  return v ? ny_slice_axis(n, v, axis, 0, size) : NULL;
}

typedef struct nbits {
  int64_t n, k, block, blocks;
  ny_fmt f;
} nbits;

/* Zero points: packed like the codes, each row whole bytes; or numbers; or the middle of the range. */
static ny_value *nbits_zero(ny_node *n, const nbits *w) {
  ny_value *z = ny_opt(n, 3);
  int per = 8 / ny_fmts[w->f].bits;
  if (!z) return ny_splat(n, w->f, 2, (double)(1 << (ny_fmts[w->f].bits - 1)));
  if (ny_fmt_of(z) != NY_u8) return ny_shaped(n, 3, 2, (int64_t[]){w->n, w->blocks}, "zero points");
  z = ny_codes(n, 3, w->f, 2, (int64_t[]){w->n, parts(w->blocks, per) * per}, "zero points");
  return cut(n, z, 1, w->blocks);
}

/* g_idx[k]: the block whose scale element k has. Scales and zero points become one an element. */
static bool by_group(ny_node *n, nbits *w, ny_value **scale, ny_value **zero) {
  ny_value *g = ny_opt(n, 4);
  if (!g) return !n->cx->diag.code;
  if (ny_rank(g) != 1 || !ny_is_int(ny_fmt_of(g)) || !ny_unify(n, ny_size(g, 0), w->k, "group indices and K"))
    return ny_refuse(n, NYB_E_SHAPE, "group indices must be %lld integers", (long long)w->k);
  if (!ny_numbers_fit(n, 4, 0, w->blocks, "group index")) return false;
  if (*scale) *scale = ny_b_gather(&n->b, *scale, g, 1);
  if (*zero && ny_size(*zero, 1) != 1) *zero = ny_b_gather(&n->b, *zero, g, 1);
  w->block = 0;
  return *scale && *zero;
}

nyb_status ny_op_matmul_nbits(ny_node *n) {
  nbits w = {.f = ny_code_format(n, "bits", 4)};
  if (!w.f || !size_attr(n, "N", &w.n) || !size_attr(n, "K", &w.k) || !ny_block_size(n, 0, &w.block))
    return ny_failed(n);
  int64_t bits = ny_fmts[w.f].bits;
  if (ny_attr_int(n, "weight_prepacked", 0))
    return ny_node_fail(n, NYB_E_UNSUPPORTED,
                        "weight_prepacked is %lld: the weights are in the private layout of one kind of GPU; export "
                        "them with weight_prepacked=0",
                        (long long)ny_attr_int(n, "weight_prepacked", 0));
  if (w.block * bits % 8) return ny_node_fail(n, NYB_E_SHAPE, "blocks of %lld are not whole bytes", (long long)w.block);
  w.blocks = parts(w.k, w.block);
  ny_value *q = ny_codes(n, 1, w.f, 2, (int64_t[]){w.n, w.blocks * w.block}, "weights");
  ny_value *s = ny_shaped(n, 2, 2, (int64_t[]){w.n, w.blocks}, "scales"), *z = nbits_zero(n, &w);
  if (!by_group(n, &w, &s, &z)) return ny_failed(n);
  q = ny_b_dequantize(&n->b, ny_fmt_of(n->in[0]), cut(n, q, 1, w.k), s, z, 1, w.block);
  return ny_out(n, 0, ny_linear(n, n->in[0], q, ny_opt(n, 5)));
}

nyb_status ny_op_matmul_fp4_weight(ny_node *n) {
  int64_t rows, bytes, block, count;
  const ny_value *w = n->in[1];
  if (ny_rank(w) != 2) return ny_node_fail(n, NYB_E_SHAPE, "the weights have rank %d, not 2", ny_rank(w));
  if (!ny_block_size(n, 16, &block) || !ny_need_static(n, w, 0, "the number of rows", &rows) ||
      !ny_need_static(n, w, 1, "the bytes of a row", &bytes))
    return ny_failed(n);
  int64_t per = ny_fmt_of(w) == NY_f4e2m1 ? 1 : 2, k = bytes * per;
  if (!ny_type_static_count(n->cx, n->in[3]->type, &count) || count != 1)
    return ny_node_fail(n, NYB_E_SHAPE, "the scale of the whole weight is not one number");
  ny_value *q = ny_codes(n, 1, NY_f4e2m1, 2, (int64_t[]){rows, k}, "weights");
  ny_value *s = ny_codes(n, 2, NY_f8e4m3, 2, (int64_t[]){rows, parts(k, block)}, "scales");
  ny_value *all = ny_reshape_to(n, n->in[3], 2, (ny_dim[]){1, 1});
  if (!q || !s || !all) return ny_failed(n);
  s = ny_b_dequantize(&n->b, NY_f32, s, all, NULL, 0, 0);
  q = ny_b_dequantize(&n->b, ny_fmt_of(n->in[0]), q, s, NULL, 1, block);
  return ny_out(n, 0, ny_linear(n, n->in[0], q, ny_opt(n, 5)));
}

/* With a scale for the activations, they are rounded to e4m3 too. */
nyb_status ny_op_matmul_fp8_weight(ny_node *n) {
  int64_t rows, k, block;
  ny_value *x = n->in[0], *w = n->in[1], *xs = ny_opt(n, 3);
  if (ny_rank(w) != 2) return ny_node_fail(n, NYB_E_SHAPE, "the weights have rank %d, not 2", ny_rank(w));
  if (!ny_block_size(n, 128, &block) || !ny_need_static(n, w, 0, "the number of rows", &rows) ||
      !ny_need_static(n, w, 1, "the size of a row", &k))
    return ny_failed(n);
  ny_value *q = ny_reinterpret(n, w, NY_f8e4m3);
  ny_value *s = ny_shaped(n, 2, 2, (int64_t[]){rows, parts(k, block)}, "scales");
  if (!q || !s) return ny_failed(n);
  q = ny_b_dequantize(&n->b, ny_fmt_of(x), q, s, NULL, 1, block);
  if (xs) {
    xs = ny_reshape_to(n, xs, 0, NULL);
    ny_value *codes = ny_cast_to(n, ny_ew2(n, NY_div, ny_cast_to(n, x, NY_f32), xs), NY_f8e4m3);
    x = ny_cast_to(n, ny_ew2(n, NY_mul, ny_cast_to(n, codes, NY_f32), xs), ny_fmt_of(x));
  }
  return ny_out(n, 0, ny_linear(n, x, q, ny_opt(n, 4)));
}

/* Two codebooks of no number format; the code of an even element is the high half of its byte. */
nyb_status ny_op_matmul_bnb4(ny_node *n) {
  static const double books[2][16] = {
      {0, 5.208333333e-03, 0.66666667, 1, 0.33333333, 0.5, 0.16666667, 0.25, 0, -5.208333333e-03, -0.66666667, -1,
       -0.33333333, -0.5, -0.16666667, -0.25},
      {-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0}};
  int64_t rows, k, block, type = ny_attr_int(n, "quant_type", -1);
  if (!size_attr(n, "N", &rows) || !size_attr(n, "K", &k) || !ny_block_size(n, 0, &block)) return ny_failed(n);
  if (type != 0 && type != 1)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "attribute \"quant_type\" is %lld, not 0 or 1", (long long)type);
  int64_t all, sixteen = 16;
  if (__builtin_mul_overflow(rows, k, &all) || all > INT64_C(1) << 40)
    return ny_node_fail(n, NYB_E_LIMIT, "%lld x %lld weights", (long long)rows, (long long)k);
  ny_value *q = ny_codes(n, 1, NY_u4, 2, (int64_t[]){parts(all, 2), 2}, "weights");
  if (!q) return ny_failed(n);
  q = ny_b_slice(&n->b, q, (ny_dim[]){0, 1}, (ny_dim[]){1, ny_dim_const(n->cx, -1)}, q->type->dim);
  q = cut(n, ny_reshape_to(n, q, 1, (ny_dim[]){parts(all, 2) * 2}), 0, all);
  ny_value *book = ny_const_floats(n, NY_f32, 1, &sixteen, books[type]);
  ny_value *v = q && book ? ny_b_gather(&n->b, book, ny_cast_to(n, q, NY_i32), 0) : NULL;
  ny_value *s = ny_shaped(n, 2, 1, (int64_t[]){parts(all, block)}, "block maxima");
  if (!v || !s) return ny_failed(n);
  v = ny_b_dequantize(&n->b, ny_fmt_of(n->in[0]), v, s, NULL, 0, block);
  v = ny_reshape_to(n, v, 2, (ny_dim[]){rows, k});
  return ny_out(n, 0, ny_linear(n, n->in[0], ny_attr_int(n, "transB", 1) ? v : ny_matrix_transpose(n, v), NULL));
}

/* ---- Embeddings */
typedef struct table {
  ny_value *q, *scale, *zero;
  int axis, at; /* of the blocks, of the gather */
  int64_t block;
} table;

/* Bytes hold codes packed along the last dim. */
static ny_value *unpacked(ny_node *n, int i, ny_fmt f, int64_t last, const char *what) {
  ny_value *v = ny_need(n, i);
  int64_t d[NY_MAX_RANK] = {0};
  int per = 8 / ny_fmts[f].bits;
  if (!v || !ny_rank(v)) return ny_refuse_value(n, NYB_E_SHAPE, "input %d (%s) is a scalar", i, what);
  for (int k = 0; k < ny_rank(v); k++)
    if (!ny_need_static(n, v, k, what, &d[k])) return NULL;
  d[ny_rank(v) - 1] *= per;
  v = ny_codes(n, i, f, ny_rank(v), d, what);
  if (!v || last < 0 || last > d[ny_rank(v) - 1]) return v;
  return cut(n, v, ny_rank(v) - 1, last);
}

static bool read_table(ny_node *n, table *t) {
  ny_value *x = n->in[0];
  int rank = ny_rank(x), zeros = ny_opt(n, 3) != NULL;
  ny_fmt f = ny_fmt_of(x);
  int64_t last = 0;
  t->scale = n->in[2], t->q = x, t->zero = ny_opt(n, 3);
  t->block = ny_attr_int(n, "block_size", 128);
  if (!ny_axis(n, ny_attr_int(n, "quantize_axis", 1), rank, &t->axis) ||
      !ny_axis(n, ny_attr_int(n, "gather_axis", 0), rank, &t->at))
    return false;
  if (ny_rank(t->scale) != rank || t->block < 0 || t->block > 1 << 30)
    return ny_refuse(n, NYB_E_SHAPE, "scales of rank %d for data of rank %d in blocks of %lld", ny_rank(t->scale), rank,
                     (long long)t->block);
  if (ny_is_float(f))
    return !zeros || ny_refuse(n, NYB_E_PARSE, "zero points are given for data in %s", ny_fmts[f].name);
  if (!t->block) return ny_refuse(n, NYB_E_SHAPE, "blocks of 0 for integers");
  if (f != NY_u8) return true;
  f = ny_code_format(n, "bits", 4);
  if (!f || !ny_need_static(n, t->scale, rank - 1, "the number of blocks", &last)) return false;
  if (t->at != 0) return ny_refuse(n, NYB_E_UNSUPPORTED, "bytes are gathered along axis %d, not 0", t->at);
  t->q = f == NY_u8 ? x : unpacked(n, 0, f, -1, "data");
  if (zeros && f != NY_u8) t->zero = unpacked(n, 3, f, last, "zero points");
  if (!zeros) t->zero = ny_splat(n, f, rank, (double)(1 << (ny_fmts[f].bits - 1)));
  return t->q && t->zero;
}

nyb_status ny_op_gather_block_quantized(ny_node *n) {
  table t;
  ny_value *at = n->in[1];
  if (!read_table(n, &t)) return ny_failed(n);
  if (!ny_is_int(ny_fmt_of(at)))
    return ny_node_fail(n, NYB_E_TYPE, "indices are %s, not integers", ny_fmts[ny_fmt_of(at)].name);
  if (ny_rank(t.q) + ny_rank(at) - 1 > NY_MAX_RANK)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "the result has more than %d dimensions", (int)NY_MAX_RANK);
  if (!ny_indices_fit(n, 1, ny_size(t.q, t.at))) return ny_failed(n);
  ny_value *x = ny_b_dequantize(&n->b, ny_fmt_of(t.scale), t.q, t.scale, t.zero, t.axis, t.block);
  return ny_out(n, 0, x ? ny_b_gather(&n->b, x, at, t.at) : NULL);
}
