/* To ONNX Runtime's own operators: a product or a gather and the DequantizeLinear that gives its weight become one
   node. What they do not fit stays as it is, which is standard ONNX. */
#include "onnx_convert.h"

#include <string.h>

typedef struct weight { /* [rows, width], blocks along width */
  ny_edit_node *dq;
  ny_edit_tensor codes, scale, tensor_scale, zero;
  int axis;
  int64_t block;
  ny_fmt fmt; /* the product's */
} weight;

static bool is(const ny_edit_node *n, const char *op) {
  return n && !strcmp(n->op_type, op) && (!*n->domain || !strcmp(n->domain, "trt"));
}

static bool init(ny_edit *e, const char *name, ny_edit_tensor *out) {
  const ny_edit_init *in = ny_edit_find_init(e, name);
  if (!in || ny_edit_tensor_of(e, in, out)) {
    ny_diag_clear(&e->cx->diag);
    return false;
  }
  return true;
}

/* Whether `name` is the result of a blocked DequantizeLinear of initializers. */
static bool read_weight(ny_edit *e, const char *name, weight *w) {
  ny_edit_node *n = ny_edit_producer(e, name), *inner;
  *w = (weight){.dq = n};
  if (!is(n, "DequantizeLinear") || n->n_in < 2 || !init(e, n->in[0], &w->codes) || w->codes.rank != 2) return false;
  int64_t axis = ny_edit_attr_int(n, "axis", 1);
  w->block = ny_edit_attr_int(n, "block_size", 0);
  w->axis = (int)(axis < 0 ? axis + 2 : axis);
  if (w->block < 16 || (w->block & (w->block - 1)) || w->axis < 0 || w->axis > 1) return false;
  if (ny_convert_has(n, 2) && !init(e, n->in[2], &w->zero)) return false;
  inner = ny_edit_producer(e, n->in[1]);
  bool nested = is(inner, "DequantizeLinear") && inner->n_in >= 2;
  if (!init(e, nested ? inner->in[0] : n->in[1], &w->scale) || w->scale.rank != 2) return false;
  if (nested && (!init(e, inner->in[1], &w->tensor_scale) || ny_convert_count(&w->tensor_scale) != 1)) return false;
  w->fmt = ny_fmt_by_onnx((int)ny_edit_attr_int(n, "output_dtype", ny_fmts[nested ? NY_f32 : w->scale.fmt].onnx));
  return true;
}

/* The weight of a product: behind a Transpose and a Cast, or read as it is. */
static bool product_weight(ny_edit *e, const ny_edit_node *n, weight *w) {
  int64_t perm[2] = {1, 0};
  ny_name name = n->in[1];
  bool gemm = is(n, "Gemm"), turned = gemm && ny_edit_attr_int(n, "transB", 0) != 0;
  ny_fmt cast = NY_none;
  if (gemm && (ny_edit_attr_int(n, "transA", 0) || ny_edit_attr_float(n, "alpha", 1) != 1 ||
               ny_edit_attr_float(n, "beta", 1) != 1))
    return false;
  for (int i = 0; i < 4; i++) {
    const ny_edit_node *from = ny_edit_producer(e, name);
    if (is(from, "Transpose")) {
      int k = ny_edit_attr_ints(from, "perm", perm, 2);
      if (k > 0 && (k != 2 || perm[0] != 1 || perm[1] != 0)) return false;
      turned = !turned;
    } else if (is(from, "Cast")) {
      if (!cast) cast = ny_fmt_by_onnx((int)ny_edit_attr_int(from, "to", 0));
    } else {
      break;
    }
    name = from->in[0];
  }
  return read_weight(e, name, w) && (cast ? (w->fmt = cast) : w->fmt) && w->axis == (turned ? 1 : 0);
}

/* [width, rows] -> [rows, width] element by element; what lies the right way is left where it is. */
static ny_edit_tensor upright(ny_edit *e, const ny_edit_tensor *t, int axis) {
  if (axis == 1) return *t;
  ny_edit_tensor out = {.fmt = t->fmt, .rank = 2, .dim = {t->dim[1], t->dim[0]}};
  uint8_t *p = ny_alloc(&e->a, ny_fmt_bytes(t->fmt, (uint64_t)ny_convert_count(t)) + 8);
  ny_fmt raw = ny_fmts[t->fmt].bits == 4    ? NY_u4
               : ny_fmts[t->fmt].bits == 2  ? NY_u2
               : ny_fmts[t->fmt].bits == 8  ? NY_u8
               : ny_fmts[t->fmt].bits == 16 ? NY_u16
                                            : NY_u32;
  for (int64_t r = 0; r < out.dim[0]; r++)
    for (int64_t k = 0; k < out.dim[1]; k++) {
      int64_t code = ny_get_i(raw, t->data, (uint64_t)(k * out.dim[0] + r));
      ny_put_i(raw, p, (uint64_t)(r * out.dim[1] + k), code);
    }
  out.data = p;
  return out;
}

/* Rows of codes padded to whole blocks, as bytes. */
static ny_edit_tensor packed(ny_edit *e, const ny_edit_tensor *t, int64_t wide, int64_t add, ny_fmt u) {
  int64_t rows = t->dim[0], width = t->dim[1], bits = ny_fmts[u].bits, row_bytes = (wide * bits + 7) / 8;
  uint8_t *p = ny_alloc(&e->a, (size_t)(rows * row_bytes) + 8);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < width; k++)
      ny_put_i(u, p + r * row_bytes, (uint64_t)k, ny_get_i(t->fmt, t->data, (uint64_t)(r * width + k)) + add);
  return (ny_edit_tensor){.fmt = NY_u8, .rank = 2, .dim = {rows, row_bytes}, .data = p};
}

static ny_name put(ny_edit *e, const char *stem, const char *suffix, const ny_edit_tensor *t) {
  ny_name s = ny_edit_fresh(e, ny_strf(&e->a, "%s_%s", stem, suffix));
  ny_edit_set_init(e, NULL, s, t);
  return s;
}

/* Whatever n read before, and nothing reads now, goes: nodes first, then their initializers. */
static void sweep(ny_edit *e, const char *name, int depth) {
  ny_edit_use *use;
  ny_edit_node *n = ny_edit_producer(e, name);
  if (depth > 6 || ny_edit_is_output(e, name) || ny_edit_uses(e, name, &use)) return;
  if (!n) {
    ny_edit_drop_unread(e, name);
    return;
  }
  if (n->n_out != 1) return;
  ny_edit_drop_node(n);
  for (uint32_t i = 0; i < n->n_in; i++) sweep(e, n->in[i], depth + 1);
}

static void replace(ny_edit *e, ny_edit_node *n, const char *op, const char *const *in, uint32_t n_in) {
  ny_name old[2] = {n->in[0], n->in[1]};
  n->op_type = ny_intern(&e->cx->names, op), n->domain = ny_intern(&e->cx->names, "com.microsoft");
  n->n_attr = 0, n->n_in = 0;
  for (uint32_t i = 0; i < n_in; i++) ny_edit_set_in(e, n, i, in[i]);
  ny_edit_import_domain(e, "com.microsoft", 1);
  for (int i = 0; i < 2; i++) sweep(e, old[i], 0);
}

static void to_nbits(ny_edit *e, ny_edit_node *n, weight *w, const char *bias) {
  ny_edit_tensor q = upright(e, &w->codes, w->axis), s = upright(e, &w->scale, w->axis), z;
  int64_t bits = ny_fmts[q.fmt].bits, blocks = s.dim[1], wide = blocks * w->block, rows = q.dim[0], k = q.dim[1];
  bool is_signed = ny_fmts[q.fmt].kind == 'I';
  int64_t add = is_signed ? INT64_C(1) << (bits - 1) : 0;
  ny_fmt u = bits == 4 ? NY_u4 : bits == 2 ? NY_u2 : NY_u8;
  ny_edit_tensor b = packed(e, &q, wide, add, u);
  b = ny_convert_as(&b, NY_u8, 3, (int64_t[]){rows, blocks, w->block * bits / 8});
  const char *stem = n->out[0],
             *in[6] = {n->in[0], put(e, stem, "codes", &b), put(e, stem, "scales", &s), "", "", bias};
  if (w->zero.fmt || !is_signed) {
    z = w->zero.fmt ? upright(e, &w->zero, w->axis) : (ny_edit_tensor){.fmt = u, .rank = 2, .dim = {rows, blocks}};
    if (!z.data) z.data = ny_alloc(&e->a, (size_t)(rows * blocks) + 8);
    z = packed(e, &z, blocks, w->zero.fmt ? add : 0, u);
    in[3] = put(e, stem, "zero_points", &z);
  }
  replace(e, n, "MatMulNBits", in, *bias ? 6 : *in[3] ? 4 : 3);
  ny_edit_set_int(e, n, "K", k);
  ny_edit_set_int(e, n, "N", rows);
  ny_edit_set_int(e, n, "bits", bits);
  ny_edit_set_int(e, n, "block_size", w->block);
}

static void to_fp4(ny_edit *e, ny_edit_node *n, weight *w, const char *bias) {
  ny_edit_tensor q = upright(e, &w->codes, w->axis), s = upright(e, &w->scale, w->axis);
  q = ny_convert_as(&q, NY_u8, 2, (int64_t[]){q.dim[0], q.dim[1] / 2});
  s.fmt = NY_u8;
  ny_edit_tensor all = ny_convert_as(&w->tensor_scale, NY_f32, 0, NULL);
  const char *stem = n->out[0],
             *in[6] = {n->in[0], put(e, stem, "codes", &q), put(e, stem, "scales", &s), put(e, stem, "scale", &all), "",
                       bias};
  replace(e, n, "MatMulBlockQuantizedFp4Weight", in, *bias ? 6 : 4);
  ny_edit_set_int(e, n, "block_size", w->block);
}

static bool convert_product(ny_edit *e, ny_edit_node *n) {
  weight w;
  ny_edit_tensor b;
  if (n->n_in < 2 || !product_weight(e, n, &w)) return false;
  int64_t width = w.codes.dim[w.axis];
  bool half = w.fmt == NY_f16 || w.fmt == NY_bf16;
  const char *bias = is(n, "Gemm") && ny_convert_has(n, 2) ? n->in[2] : "";
  if (*bias && (!init(e, bias, &b) || b.rank != 1)) return false;
  if (ny_is_int(w.codes.fmt) && !w.tensor_scale.fmt && w.scale.fmt == w.fmt)
    to_nbits(e, n, &w, bias);
  else if (w.codes.fmt == NY_f4e2m1 && w.scale.fmt == NY_f8e4m3 && w.tensor_scale.fmt == NY_f32 && half &&
           width % 2 == 0)
    to_fp4(e, n, &w, bias);
  else
    return false;
  return true;
}

/* Scales of the operator are one tensor: those of NVFP4 are multiplied here, as DequantizeLinear would. */
static bool convert_gather(ny_edit *e, ny_edit_node *n) {
  weight w;
  ny_edit_tensor s;
  if (n->n_in != 2 || !read_weight(e, n->in[0], &w) || w.zero.fmt || w.axis != 1) return false;
  bool int4 = w.codes.fmt == NY_i4, f4 = w.codes.fmt == NY_f4e2m1;
  if (!(int4 || f4) || ny_edit_attr_int(n, "axis", 0) != 0 || w.fmt == NY_none) return false;
  s = w.scale;
  if (s.fmt != w.fmt) {
    int64_t count = ny_convert_count(&s);
    double all = w.tensor_scale.fmt ? ny_get_f(w.tensor_scale.fmt, w.tensor_scale.data, 0) : 1;
    void *p = ny_alloc(&e->a, (size_t)count * 4 + 8);
    if (w.fmt != NY_f32) return false;
    for (int64_t i = 0; i < count; i++)
      ny_put_f(NY_f32, p, (uint64_t)i, (double)(float)(ny_get_f(s.fmt, s.data, (uint64_t)i) * all), false);
    s.fmt = NY_f32, s.data = p;
  }
  const char *stem = n->out[0], *in[3] = {put(e, stem, "codes", &w.codes), n->in[1], put(e, stem, "scales", &s)};
  replace(e, n, "GatherBlockQuantized", in, 3);
  ny_edit_set_int(e, n, "block_size", w.block);
  ny_edit_set_int(e, n, "quantize_axis", 1);
  ny_edit_set_int(e, n, "gather_axis", 0);
  return true;
}

nyb_status ny_convert_microsoft(ny_edit *e, uint32_t *changed) {
  ny_edit_node **list = NULL;
  uint32_t n = 0, cap = 0;
  for (ny_edit_node *nd = e->graph->first; nd; nd = nd->next) { /* rewriting drops nodes */
    if (!is(nd, "MatMul") && !is(nd, "Gemm") && !is(nd, "Gather")) continue;
    NY_PUSH_ROOM(&e->a, list, n, cap);
    list[n++] = nd;
  }
  for (uint32_t i = 0; i < n; i++)
    *changed += is(list[i], "Gather") ? convert_gather(e, list[i]) : convert_product(e, list[i]);
  return e->cx->diag.code;
}
