/* To standard ONNX, and to the form TensorRT's exporter gives it. Products and gathers with quantised weights become
   DequantizeLinear in front of the plain operator. */
#include "onnx_convert.h"
#include "onnx_import.h"

#include <string.h>

nyb_status ny_convert_refuse(ny_edit *e, const ny_edit_node *n, const char *fmt, ...) {
  char why[400];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  return ny_fail(&e->cx->diag, NYB_E_UNSUPPORTED, NULL, "node \"%s\" (%s) cannot be converted: %s",
                 *n->name || !n->n_out ? n->name : n->out[0], n->op_type, why);
}

nyb_status ny_convert_init(ny_edit *e, const ny_edit_node *n, uint32_t i, ny_edit_tensor *out) {
  const ny_edit_init *in = ny_convert_has(n, i) ? ny_edit_find_init(e, n->in[i]) : NULL;
  if (!in) return ny_convert_refuse(e, n, "input %u is not an initializer", i);
  return ny_edit_tensor_of(e, in, out);
}

int64_t ny_convert_count(const ny_edit_tensor *t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= t->dim[i];
  return n;
}

ny_edit_tensor ny_convert_codes(ny_edit *e, const ny_edit_tensor *t, int64_t have, int64_t keep, ny_fmt f,
                                int64_t add) {
  int64_t rows = have ? ny_convert_count(t) / have : 0;
  ny_edit_tensor out = {.fmt = f, .rank = 2, .dim = {rows, keep}};
  void *p = ny_alloc(&e->a, ny_fmt_bytes(f, (uint64_t)(rows * keep)) + 8);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < keep; k++)
      ny_put_i(f, p, (uint64_t)(r * keep + k), ny_get_i(t->fmt, t->data, (uint64_t)(r * have + k)) + add);
  out.data = p;
  return out;
}

ny_edit_tensor ny_convert_as(const ny_edit_tensor *t, ny_fmt f, int rank, const int64_t *dim) {
  ny_edit_tensor out = {.fmt = f, .rank = rank, .data = t->data};
  if (rank) memcpy(out.dim, dim, (size_t)rank * sizeof *dim);
  return out;
}

/* An initializer's type is changed over the same bytes: of one reader only, so under a name of its own. */
static nyb_status retype(ny_edit *e, ny_edit_node *n, uint32_t i, ny_fmt f) {
  ny_edit_tensor t;
  NY_TRY(ny_convert_init(e, n, i, &t));
  if (t.fmt == f) return NYB_OK;
  if (ny_fmts[t.fmt].bits != ny_fmts[f].bits)
    return ny_convert_refuse(e, n, "input %u holds %s, not %s", i, ny_fmts[t.fmt].name, ny_fmts[f].name);
  t.fmt = f;
  ny_name old = n->in[i], name = ny_edit_fresh(e, ny_strf(&e->a, "%s_%s", old, ny_fmts[f].name));
  ny_edit_set_init(e, NULL, name, &t);
  ny_edit_set_in(e, n, i, name);
  ny_edit_drop_unread(e, old);
  return NYB_OK;
}

static void become(ny_edit *e, ny_edit_node *n, const char *op) {
  n->op_type = ny_intern(&e->cx->names, op);
  n->domain = ny_intern(&e->cx->names, "");
  n->changed = true;
}

/* The expression of q as a value of the main graph; its name. */
static nyb_status expression(ny_edit *e, const ny_edit_node *n, const ny_edit_quant *q, ny_name *out) {
  ny_edit_tensor place = {.fmt = NY_u8, .rank = 1, .dim = {0}, .data = ""};
  *out = ny_edit_fresh(e, ny_strf(&e->a, "%s_weight", *n->name ? n->name : n->out[0]));
  ny_edit_set_init(e, NULL, *out, &place);
  return ny_edit_quantize(e, *out, q);
}

/* n becomes MatMul(A, w) and, with a bias, an Add behind it. What its other inputs held is dropped. */
static void become_matmul(ny_edit *e, ny_edit_node *n, ny_name w, const char *bias) {
  ny_name old[16];
  uint32_t n_old = 0;
  for (uint32_t i = 1; i < n->n_in && n_old < NY_COUNT(old); i++)
    if (*n->in[i] && strcmp(n->in[i], bias)) old[n_old++] = n->in[i];
  n->n_in = 1, n->n_attr = 0;
  become(e, n, "MatMul");
  ny_edit_set_in(e, n, 1, w);
  if (*bias) {
    const char *in[2] = {ny_edit_fresh(e, ny_strf(&e->a, "%s_product", n->out[0])), bias}, *out[1] = {n->out[0]};
    ny_edit_add_node(e, n->graph, n->next, "", "Add", ny_strf(&e->a, "%s_bias", n->out[0]), in, 2, out, 1);
    n->out[0] = ny_intern(&e->cx->names, in[0]);
  }
  for (uint32_t i = 0; i < n_old; i++) ny_edit_drop_unread(e, old[i]);
}

static int last_first[] = {1, 0};

static nyb_status nbits(ny_edit *e, ny_edit_node *n) {
  int64_t k = ny_edit_attr_int(n, "K", 0), rows = ny_edit_attr_int(n, "N", 0),
          block = ny_edit_attr_int(n, "block_size", 0), bits = ny_edit_attr_int(n, "bits", 4);
  ny_edit_tensor b, s, z;
  if (ny_edit_attr_int(n, "weight_prepacked", 0)) return ny_convert_refuse(e, n, "weight_prepacked is not 0");
  if (ny_convert_has(n, 4)) return ny_convert_refuse(e, n, "it has group indices");
  if ((bits != 2 && bits != 4 && bits != 8) || k < 1 || rows < 1 || block < 1 || block * bits % 8)
    return ny_convert_refuse(e, n, "%lld x %lld codes of %lld bits in blocks of %lld", (long long)rows, (long long)k,
                             (long long)bits, (long long)block);
  int64_t blocks = (k + block - 1) / block, wide = blocks * block, per = 8 / bits;
  NY_TRY(ny_convert_init(e, n, 1, &b));
  NY_TRY(ny_convert_init(e, n, 2, &s));
  ny_fmt u = bits == 2 ? NY_u2 : bits == 4 ? NY_u4 : NY_u8, i = bits == 2 ? NY_i2 : bits == 4 ? NY_i4 : NY_i8;
  if (b.fmt != NY_u8 || ny_convert_count(&b) * per != rows * wide || ny_convert_count(&s) != rows * blocks)
    return ny_convert_refuse(e, n, "its tensors do not have the sizes its attributes say");
  b = ny_convert_as(&b, u, 2, (int64_t[]){rows, wide});
  ny_edit_quant q = {.axis = 1, .block = block, .fmt = s.fmt, .rank = -1, .perm = last_first};
  q.scale = ny_convert_as(&s, s.fmt, 2, (int64_t[]){rows, blocks});
  if (ny_convert_has(n, 3)) {
    NY_TRY(ny_convert_init(e, n, 3, &z));
    int64_t padded = (blocks + per - 1) / per * per;
    if (z.fmt != NY_u8) return ny_convert_refuse(e, n, "its zero points are %s", ny_fmts[z.fmt].name);
    if (ny_convert_count(&z) * per != rows * padded)
      return ny_convert_refuse(e, n, "its zero points have another size");
    z = ny_convert_as(&z, u, 2, (int64_t[]){rows, padded});
    q.codes = ny_convert_codes(e, &b, wide, k, u, 0), q.zero = ny_convert_codes(e, &z, padded, blocks, u, 0);
  } else {
    q.codes = ny_convert_codes(e, &b, wide, k, i, -(INT64_C(1) << (bits - 1)));
  }
  ny_name w, bias = ny_convert_has(n, 5) ? n->in[5] : "";
  NY_TRY(expression(e, n, &q, &w));
  become_matmul(e, n, w, bias);
  return NYB_OK;
}

/* The format of a value, as far as the model says; NY_none when it does not. */
static ny_fmt format_of(ny_edit *e, const char *name) {
  const ny_edit_init *in = ny_edit_find_init(e, name);
  const ny_edit_node *from = ny_edit_producer(e, name);
  ny_edit_tensor t;
  if (in) return ny_edit_tensor_of(e, in, &t) ? NY_none : t.fmt;
  if (from && !strcmp(from->op_type, "Cast")) return ny_fmt_by_onnx((int)ny_edit_attr_int(from, "to", 0));
  for (uint32_t i = 0; i < e->graph->n_in; i++)
    if (!strcmp(e->graph->in[i].name, name)) return ny_onnx_elem_type(e->graph->in[i].type);
  ny_pb r = ny_pb_over(e->graph->proto);
  while (ny_pb_next(&r)) {
    ny_bytes label = {0}, type = {0};
    ny_pb v = ny_pb_over(r.field == 12 || r.field == 13 ? r.bytes : label);
    while (ny_pb_next(&v)) {
      if (v.field == 1) label = v.bytes;
      if (v.field == 2) type = v.bytes;
    }
    if (type.n && label.n == strlen(name) && !memcmp(label.p, name, label.n)) return ny_onnx_elem_type(type);
  }
  return NY_none;
}

static nyb_status fp4_weight(ny_edit *e, ny_edit_node *n) {
  ny_edit_tensor b, s, all;
  int64_t block = ny_edit_attr_int(n, "block_size", 16);
  ny_fmt f = ny_convert_has(n, 5) ? format_of(e, n->in[5]) : NY_none;
  if (!f && n->n_in) f = format_of(e, n->in[0]);
  if (!f && n->n_out) f = format_of(e, n->out[0]);
  if (!f) return ny_convert_refuse(e, n, "the model does not say whether its activations are f16 or bf16");
  NY_TRY(ny_convert_init(e, n, 1, &b));
  NY_TRY(ny_convert_init(e, n, 2, &s));
  NY_TRY(ny_convert_init(e, n, 3, &all));
  if (b.rank != 2 || b.fmt != NY_u8 || s.rank != 2 || ny_convert_count(&all) != 1 || block < 1)
    return ny_convert_refuse(e, n, "its tensors do not have the shapes of this operator");
  ny_edit_quant q = {.axis = 1, .block = block, .fmt = f, .rank = -1, .perm = last_first};
  q.codes = ny_convert_as(&b, NY_f4e2m1, 2, (int64_t[]){b.dim[0], b.dim[1] * 2});
  q.scale = ny_convert_as(&s, NY_f8e4m3, 2, s.dim);
  q.tensor_scale = ny_convert_as(&all, NY_f32, 0, NULL);
  ny_name w, bias = ny_convert_has(n, 5) ? n->in[5] : "";
  NY_TRY(expression(e, n, &q, &w));
  become_matmul(e, n, w, bias);
  return NYB_OK;
}

static nyb_status fp8_weight(ny_edit *e, ny_edit_node *n) {
  ny_edit_tensor b, s;
  ny_fmt f = ny_convert_has(n, 4) ? format_of(e, n->in[4]) : n->n_in ? format_of(e, n->in[0]) : NY_none;
  if (ny_convert_has(n, 3)) return ny_convert_refuse(e, n, "it quantises its activations");
  if (!f) return ny_convert_refuse(e, n, "the model does not say whether its activations are f16 or bf16");
  NY_TRY(ny_convert_init(e, n, 1, &b));
  NY_TRY(ny_convert_init(e, n, 2, &s));
  ny_edit_quant q = {.axis = 1,
                     .block = ny_edit_attr_int(n, "block_size", 128),
                     .fmt = f,
                     .rank = -1,
                     .perm = last_first,
                     .codes = b,
                     .scale = s};
  ny_name w, bias = ny_convert_has(n, 4) ? n->in[4] : "";
  NY_TRY(expression(e, n, &q, &w));
  become_matmul(e, n, w, bias);
  return NYB_OK;
}

static nyb_status gather(ny_edit *e, ny_edit_node *n) {
  ny_edit_tensor x, s, z = {0};
  int64_t bits = ny_edit_attr_int(n, "bits", 4), block = ny_edit_attr_int(n, "block_size", 128);
  int64_t axis = ny_edit_attr_int(n, "quantize_axis", 1), at = ny_edit_attr_int(n, "gather_axis", 0);
  NY_TRY(ny_convert_init(e, n, 0, &x));
  NY_TRY(ny_convert_init(e, n, 2, &s));
  if (ny_convert_has(n, 3)) NY_TRY(ny_convert_init(e, n, 3, &z));
  if (axis < 0) axis += x.rank;
  if (x.rank < 1 || axis < 0 || axis >= x.rank || s.rank != x.rank || (bits != 2 && bits != 4 && bits != 8))
    return ny_convert_refuse(e, n, "its tensors do not have the shapes of this operator");
  if (x.fmt == NY_u8 && bits < 8) {
    int64_t per = 8 / bits, wide = x.dim[x.rank - 1] * per;
    ny_fmt u = bits == 2 ? NY_u2 : NY_u4, i = bits == 2 ? NY_i2 : NY_i4;
    ny_edit_tensor c = ny_convert_as(&x, u, x.rank, x.dim);
    c.dim[x.rank - 1] = wide;
    x = z.fmt ? ny_convert_codes(e, &c, wide, wide, u, 0)
              : ny_convert_codes(e, &c, wide, wide, i, -(INT64_C(1) << (bits - 1)));
    x = ny_convert_as(&x, x.fmt, c.rank, c.dim);
    if (z.fmt) {
      ny_edit_tensor zu = ny_convert_as(&z, u, s.rank, z.dim);
      zu.dim[s.rank - 1] *= per;
      zu = ny_convert_codes(e, &zu, zu.dim[s.rank - 1], s.dim[s.rank - 1], u, 0);
      z = ny_convert_as(&zu, u, s.rank, s.dim);
    }
  } else if (x.fmt == NY_u8 && !z.fmt) {
    int64_t all = ny_convert_count(&x);
    ny_edit_tensor c = ny_convert_codes(e, &x, all, all, NY_i8, -128);
    x = ny_convert_as(&c, NY_i8, x.rank, x.dim);
  }
  if (!block) block = x.dim[axis];
  ny_edit_quant q = {.axis = (int)axis, .block = block, .fmt = s.fmt, .rank = -1, .codes = x, .scale = s, .zero = z};
  ny_name w, old[3] = {n->in[0], n->in[2], ny_convert_has(n, 3) ? n->in[3] : ""};
  NY_TRY(expression(e, n, &q, &w));
  become(e, n, "Gather");
  n->n_in = 2, n->n_attr = 0;
  ny_edit_set_in(e, n, 0, w);
  ny_edit_set_int(e, n, "axis", at);
  for (int i = 0; i < 3; i++) ny_edit_drop_unread(e, old[i]);
  return NYB_OK;
}

/* ---- Operators of the trt domain that differ from standard ones in name and type only */
static nyb_status trt_dq(ny_edit *e, ny_edit_node *n) {
  ny_edit_tensor x = {0}, s = {0};
  const ny_edit_init *in = n->n_in > 1 ? ny_edit_find_init(e, n->in[0]) : NULL,
                     *scale = in ? ny_edit_find_init(e, n->in[1]) : NULL;
  if (in) NY_TRY(ny_edit_tensor_of(e, in, &x));
  if (scale) NY_TRY(ny_edit_tensor_of(e, scale, &s));
  if (in && ny_is_float(x.fmt) && ny_fmts[x.fmt].bits > 8)
    return ny_convert_refuse(e, n, "its weight is not quantised yet");
  bool f4 = x.fmt == NY_f4e2m1, blocks = ny_edit_find_attr(n, "block_size") != NULL;
  NY_TRY(ny_edit_raise_opset(e, s.fmt == NY_f8e8m0 ? 24 : f4 || !in ? 23 : blocks ? 21 : 19));
  become(e, n, "DequantizeLinear");
  return NYB_OK;
}

static nyb_status trt_fp8_dq(ny_edit *e, ny_edit_node *n) {
  if (n->n_in && ny_edit_find_init(e, n->in[0])) NY_TRY(retype(e, n, 0, NY_f8e4m3));
  return trt_dq(e, n);
}

static nyb_status trt_mxfp8_dq(ny_edit *e, ny_edit_node *n) {
  NY_TRY(retype(e, n, 0, NY_f8e4m3));
  NY_TRY(retype(e, n, 1, NY_f8e8m0));
  NY_TRY(ny_edit_raise_opset(e, 24));
  if (!ny_edit_find_attr(n, "axis")) ny_edit_set_int(e, n, "axis", -1);
  if (!ny_edit_find_attr(n, "block_size")) ny_edit_set_int(e, n, "block_size", 32);
  if (!ny_edit_find_attr(n, "output_dtype")) ny_edit_set_int(e, n, "output_dtype", 1);
  become(e, n, "DequantizeLinear");
  return NYB_OK;
}

static nyb_status trt_q(ny_edit *e, ny_edit_node *n) {
  bool int4 = !strcmp(n->op_type, "TRT_INT4QuantizeLinear");
  NY_TRY(ny_edit_raise_opset(e, 21));
  if (!ny_convert_has(n, 2)) ny_edit_set_int(e, n, "output_dtype", ny_fmts[int4 ? NY_i4 : NY_f8e4m3].onnx);
  become(e, n, "QuantizeLinear");
  return NYB_OK;
}

static const struct row {
  const char *domain, *op;
  nyb_status (*fn)(ny_edit *e, ny_edit_node *n);
} rows[] = {
    {"trt", "DequantizeLinear", trt_dq},
    {"trt", "TRT_FP8DequantizeLinear", trt_fp8_dq},
    {"trt", "TRT_FP8QuantizeLinear", trt_q},
    {"trt", "TRT_INT4DequantizeLinear", trt_dq},
    {"trt", "TRT_INT4QuantizeLinear", trt_q},
    {"trt", "TRT_MXFP8DequantizeLinear", trt_mxfp8_dq},
    {"com.microsoft", "GatherBlockQuantized", gather},
    {"com.microsoft", "MatMulBlockQuantizedFp4Weight", fp4_weight},
    {"com.microsoft", "MatMulBlockQuantizedFp8Weight", fp8_weight},
    {"com.microsoft", "MatMulNBits", nbits},
};

nyb_status ny_convert_standard(ny_edit *e, uint32_t *changed) {
  for (ny_edit_node *n = e->graph->first, *next; n; n = next) {
    next = n->next;
    for (size_t i = 0; i < NY_COUNT(rows); i++) {
      if (strcmp(rows[i].op, n->op_type) || strcmp(rows[i].domain, n->domain)) continue;
      NY_TRY(rows[i].fn(e, n));
      ++*changed;
      break;
    }
  }
  return NYB_OK;
}

/* Weights by blocks, and their block scales, in the domain that TensorRT's exporter gives them. */
nyb_status ny_convert_trt(ny_edit *e, uint32_t *changed) {
  ny_edit_tensor x;
  NY_TRY(ny_convert_standard(e, changed));
  for (ny_edit_node *n = e->graph->first; n; n = n->next) {
    const ny_edit_init *in = n->n_in ? ny_edit_find_init(e, n->in[0]) : NULL;
    if (strcmp(n->op_type, "DequantizeLinear") || *n->domain || !in) continue;
    NY_TRY(ny_edit_tensor_of(e, in, &x));
    bool scales = x.fmt == NY_f8e4m3 && !ny_edit_find_attr(n, "axis");
    if (x.fmt != NY_f4e2m1 && x.fmt != NY_i4 && !scales) continue;
    n->domain = ny_intern(&e->cx->names, "trt");
    n->changed = true;
    ++*changed;
    ny_edit_import_domain(e, "trt", 1);
  }
  return NYB_OK;
}

const ny_dialect ny_dialects[] = {
    {"standard", "DequantizeLinear of the ai.onnx domain in front of plain operators", ny_convert_standard},
    {"trt", "the same with weights' DequantizeLinear in the trt domain", ny_convert_trt},
    {"microsoft", "MatMulNBits, MatMulBlockQuantizedFp4Weight and GatherBlockQuantized of com.microsoft",
     ny_convert_microsoft},
};
const int ny_n_dialects = (int)NY_COUNT(ny_dialects);

const ny_dialect *ny_dialect_by_name(const char *name) {
  for (int i = 0; i < ny_n_dialects; i++)
    if (!strcmp(ny_dialects[i].name, name)) return &ny_dialects[i];
  return NULL;
}
