/* pack: a contraction whose weights are constant reads them as panels: `packed` columns wide, zero-padded, each panel
   contiguous from the first to the last row of the sum. What makes the panels is an expression of the weights; fuse
   puts it in a const group, so it runs once, when the module is written. */
#include "family.h"
#include "rewrite.h"

static ny_value *padded_to(ny_builder *b, ny_value *w, int axis, ny_dim n) {
  ny_dim lo[NY_MAX_RANK] = {0}, hi[NY_MAX_RANK] = {0};
  hi[axis] = n - w->type->dim[axis];
  return hi[axis] ? ny_b_pad(b, w, NULL, lo, hi, NULL, "constant") : w;
}

static ny_value *matmul_panels(ny_builder *b, ny_value *w, int64_t p) {
  ny_dim k = w->type->dim[0], panels = (w->type->dim[1] + p - 1) / p;
  w = padded_to(b, w, 1, panels * p);
  w = ny_b_reshape(b, w, 3, (ny_dim[]){k, panels, p});
  return ny_b_transpose(b, w, (int[]){1, 0, 2});
}

typedef struct state {
  ny_pass_cx *px;
  ny_graph *g;
  bool changed;
} state;

/* Codes of a panel by words of 32 bits: the codes of 8 (or 4) neighbours along k of one column, columns side by side. In a word of 4-bit codes the
   even ones are the first four neighbours, so that a mask or a shift leaves four of them in the bytes of the word. What is read are views of that. */
static ny_value *code_words(state *s, ny_builder *b, ny_value *w, int64_t p) {
  int64_t per = 32 / ny_fmts[w->type->fmt].bits;
  ny_dim k = w->type->dim[0], words = (k + per - 1) / per, panels = (w->type->dim[1] + p - 1) / p;
  w = padded_to(b, padded_to(b, w, 0, words * per), 1, panels * p);
  if (per == 8) {
    w = ny_b_reshape(b, w, 5, (ny_dim[]){words, 2, 4, panels, p});
    w = ny_b_transpose(b, ny_hold_constant(s->px, s->g, ny_b_transpose(b, w, (int[]){3, 0, 4, 2, 1})), (int[]){0, 1, 4, 3, 2});
  } else {
    w = ny_b_reshape(b, w, 4, (ny_dim[]){words, 4, panels, p});
    w = ny_b_transpose(b, ny_hold_constant(s->px, s->g, ny_b_transpose(b, w, (int[]){2, 0, 3, 1})), (int[]){0, 1, 3, 2});
  }
  w = ny_b_reshape(b, w, 3, (ny_dim[]){panels, words * per, p});
  return words * per == k ? w : ny_b_slice(b, w, (ny_dim[]){0, 0, 0}, NULL, (ny_dim[]){panels, k, p});
}

/* Of a dequantised weight panels of its codes, and of scales that columns do not share; one number everywhere stays one. */
static ny_value *code_panels(state *s, ny_builder *b, const ny_op *q, ny_dim n, int64_t p, bool words) {
  ny_value *in[3] = {0};
  int64_t axis = q->attr[NY_AT(dequantize, axis)].i;
  for (int i = 0; i < q->n_in; i++) {
    ny_value *v = ny_in(q, i);
    double same;
    if (ny_def(v, NY_dequantize))
      in[i] = code_panels(s, b, v->def, n, p, false);
    else if (i && ny_uniform(v, &same))
      in[i] = ny_b_splat(b, ny_tensor_type(s->g->cx, (ny_fmt)v->type->fmt, 3, (ny_dim[]){1, 1, 1}), same);
    else if (words && !i)
      in[i] = code_words(s, b, v, p);
    else
      in[i] = v->type->dim[1] == n ? matmul_panels(b, v, p) : ny_b_reshape(b, v, 3, (ny_dim[]){1, v->type->dim[0], 1});
    if (!in[i]) return NULL;
  }
  return ny_b_dequantize(b, (ny_fmt)q->out[0]->type->fmt, in[0], in[1], in[2], axis < 0 ? (int)axis : (int)axis + 1,
                         q->attr[NY_AT(dequantize, block)].i);
}

static ny_value *weight_panels(state *s, ny_builder *b, const ny_op *op, int64_t p) {
  ny_value *w = ny_in(op, 1);
  if (!ny_def(w, NY_dequantize)) return matmul_panels(b, w, p);
  return code_panels(s, b, w->def, w->type->dim[1], p, ny_codes_fit(s->px->target, op));
}

static ny_value *conv_panels(ny_builder *b, ny_value *w, int64_t group, int64_t p) {
  const ny_type *t = w->type;
  ny_dim k = 1, m = t->dim[t->rank - 1] / group, panels = (m + p - 1) / p;
  for (int i = 0; i < t->rank - 1; i++) k *= t->dim[i];
  w = ny_b_reshape(b, w, 3, (ny_dim[]){k, group, m});
  w = padded_to(b, w, 2, panels * p);
  w = ny_b_reshape(b, w, 4, (ny_dim[]){k, group, panels, p});
  return ny_b_transpose(b, w, (int[]){1, 2, 0, 3});
}

/* ---- on a GPU */
/* Codes of 4 bits go to tensor cores as they lie in most files: rows of k. Filled up so that rows begin at multiples of 16 bytes. */
static const ny_op *tensor_scale(const ny_value *scale) {
  const ny_op *q = ny_def(scale, NY_dequantize);
  if (!q || q->n_in > 2) return NULL;
  const ny_type *t = ny_in(q, 1)->type;
  return t->dim[0] == 1 && t->dim[1] == 1 ? q : NULL;
}

static bool is_narrow(const ny_value *v) { return v->type->fmt == NY_f32 || v->type->fmt == NY_f16 || v->type->fmt == NY_bf16; }

static bool by_rows(const ny_target *t, const ny_op *op) {
  const ny_op *q = op->kind == NY_matmul ? ny_def(ny_in(op, 1), NY_dequantize) : NULL;
  if (!ny_on_gpu(t) || t->sm < 80 || !q || q->n_in > 2 || op->attr[NY_AT(matmul, packed)].i || !is_narrow(ny_in(op, 0)) || !is_narrow(op->out[0])) return false;
  const ny_op *nested = tensor_scale(ny_in(q, 1));
  const ny_value *codes = ny_in(q, 0), *scale = nested ? ny_in(nested, 0) : ny_in(q, 1);
  const ny_type *w = codes->type, *x = ny_in(op, 0)->type;
  int64_t block = q->attr[NY_AT(dequantize, block)].i, axis = q->attr[NY_AT(dequantize, axis)].i;
  bool pair = (block == 16 && scale->type->fmt == NY_f8e4m3) || (block == 32 && scale->type->fmt == NY_f8e8m0);
  if (!pair || w->fmt != NY_f4e2m1 || w->rank != 2 || (axis != 0 && axis != -2) || w->dim[0] < 1 || w->dim[1] < 1 || w->dim[0] > INT32_MAX || w->dim[1] > INT32_MAX) return false;
  if (!ny_is_constant(codes) || !ny_is_constant(scale) || ny_is_uniform(codes) || ny_is_uniform(scale)) return false;
  return x->dim[x->rank - 1] == w->dim[0] && scale->type->dim[0] == (w->dim[0] + block - 1) / block && scale->type->dim[1] == w->dim[1];
}

static ny_value *turned(ny_builder *b, ny_value *v, ny_dim columns) {
  return padded_to(b, ny_b_transpose(b, v, (int[]){1, 0}), 1, columns);
}

static ny_value *code_rows(ny_builder *b, const ny_op *q) {
  const ny_op *nested = tensor_scale(ny_in(q, 1));
  int64_t block = q->attr[NY_AT(dequantize, block)].i;
  ny_dim k = (ny_in(q, 0)->type->dim[0] + 31) / 32 * 32;
  ny_value *codes = turned(b, ny_in(q, 0), k), *scale = turned(b, nested ? ny_in(nested, 0) : ny_in(q, 1), k / block);
  if (nested) scale = ny_b_dequantize(b, NY_f32, scale, ny_in(nested, 1), NULL, 0, 0);
  return ny_b_dequantize(b, (ny_fmt)q->out[0]->type->fmt, codes, scale, NULL, 1, block);
}

/* Scales of x as a model spells them: of 8 bits, widened and times one number. */
static ny_value *narrow_scales(ny_ctx *cx, ny_value *s, ny_value **factor) {
  int64_t n;
  const ny_op *mul = ny_def(s, NY_mul);
  for (int i = 0; mul && i < 2; i++) {
    const ny_op *cast = ny_def(ny_in(mul, i), NY_cast);
    if (!cast || !ny_type_static_count(cx, ny_in(mul, 1 - i)->type, &n) || n != 1) continue;
    *factor = ny_in(mul, 1 - i);
    return ny_in(cast, 0);
  }
  return ny_def(s, NY_cast) ? ny_in(s->def, 0) : s;
}

/* Tensor cores do not look at the sign of a scale; those of activations are made of largest magnitudes. */
static bool has_negative(const ny_value *v) {
  if (v->type->fmt != NY_f8e4m3) return false;
  while (v->def && (v->def->kind == NY_transpose || v->def->kind == NY_pad || v->def->kind == NY_reshape)) v = ny_in(v->def, 0);
  const ny_blob *b = ny_def(v, NY_const) ? v->def->attr[NY_AT(const, data)].blob : NULL;
  for (uint64_t i = 0; b && i < b->bytes; i++)
    if (b->data[i] & 0x80) return true;
  return false;
}

/* x as codes that the kernel multiplies; stays what it is where it cannot. */
static nyb_status use_codes(ny_builder *b, const ny_target *t, ny_op *op) {
  ny_value *x = ny_in(op, 0), *was = x, *factor = NULL;
  const ny_op *q = ny_def(ny_def(x, NY_cast) ? ny_in(x->def, 0) : x, NY_dequantize);
  if (!t->fp4 || !q || q->n_in != 2 || ny_is_constant(ny_in(q, 0))) return NYB_OK;
  ny_value *s = ny_block_scales(ny_in(op, 1)->def, &factor);
  if (!s || has_negative(s)) return NYB_OK;
  s = ny_block_scales(q, &factor);
  if (!s) s = narrow_scales(b->g->cx, ny_in(q, 1), &factor);
  if (s->type->rank != x->type->rank) return NYB_OK;
  ny_dim one[NY_MAX_RANK];
  for (int i = 0; i < x->type->rank; i++) one[i] = 1;
  if (factor) s = ny_b_dequantize(b, NY_f32, s, ny_b_reshape(b, factor, x->type->rank, one), NULL, 0, 0);
  x = s ? ny_b_dequantize(b, (ny_fmt)x->type->fmt, ny_in(q, 0), s, NULL, (int)q->attr[NY_AT(dequantize, axis)].i, q->attr[NY_AT(dequantize, block)].i) : NULL;
  if (!x) return b->g->cx->diag.code;
  ny_set_in(op, 0, x);
  if (!ny_scaled_takes(t, op)) ny_set_in(op, 0, was);
  return NYB_OK;
}

/* Blocks of codes go down the panels, as the sum does. */
static bool is_weight(const ny_op *op) {
  const ny_value *w = ny_in(op, 1);
  const ny_op *q = op->kind == NY_matmul && w->type->rank == 2 ? ny_def(w, NY_dequantize) : NULL;
  if (!q) return ny_is_constant(w);
  int64_t axis = q->attr[NY_AT(dequantize, axis)].i;
  return !q->attr[NY_AT(dequantize, block)].i || axis == 0 || axis == -2;
}

static nyb_status visit(void *user, ny_op *op) {
  state *s = user;
  if ((op->kind != NY_matmul && op->kind != NY_conv) || !is_weight(op)) return NYB_OK;
  bool rows = by_rows(s->px->target, op);
  int64_t p = rows ? 1 : ny_pack_width(s->px->target, op);
  if (p <= 0) return NYB_OK;
  ny_builder b = ny_before(s->g, op);
  bool conv = op->kind == NY_conv;
  ny_value *w =
      rows ? code_rows(&b, ny_in(op, 1)->def) : conv ? conv_panels(&b, ny_in(op, 1), op->attr[NY_AT(conv, group)].i, p) : weight_panels(s, &b, op, p);
  if (!w) return s->g->cx->diag.code;
  ny_set_in(op, 1, w);
  op->attr[conv ? NY_AT(conv, packed) : NY_AT(matmul, packed)].i = rows ? -1 : p;
  if (rows) NY_TRY(use_codes(&b, s->px->target, op));
  s->changed = true;
  return NYB_OK;
}

nyb_status ny_pass_pack(ny_pass_cx *px, ny_graph *g, bool *changed) {
  state s = {px, g, false};
  NY_TRY(ny_walk(&g->body, visit, &s));
  *changed |= s.changed;
  return NYB_OK;
}
