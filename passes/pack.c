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

/* Of what a dequantised weight is made of: [k or 1 or blocks of k, n or 1]. */
static ny_value *matmul_codes(state *s, ny_builder *b, const ny_op *q, int64_t p, bool words);
static ny_value *panels_of(state *s, ny_builder *b, ny_value *v, int64_t p) {
  if (ny_def(v, NY_dequantize)) return matmul_codes(s, b, v->def, p, false);
  double same;
  if (ny_uniform(v, &same)) v = ny_b_splat(b, ny_tensor_type(s->g->cx, (ny_fmt)v->type->fmt, 2, (ny_dim[]){1, 1}), same);
  if (!v) return NULL;
  return v->type->dim[1] == 1 ? ny_b_reshape(b, v, 3, (ny_dim[]){1, v->type->dim[0], 1}) : matmul_panels(b, v, p);
}

static ny_value *matmul_codes(state *s, ny_builder *b, const ny_op *q, int64_t p, bool words) {
  ny_value *in[3] = {0};
  int64_t axis = q->attr[NY_AT(dequantize, axis)].i;
  for (int i = 0; i < q->n_in; i++) in[i] = words && !i ? code_words(s, b, ny_in(q, i), p) : panels_of(s, b, ny_in(q, i), p);
  return ny_b_dequantize(b, (ny_fmt)q->out[0]->type->fmt, in[0], in[1], in[2], axis < 0 ? (int)axis : (int)axis + 1,
                         q->attr[NY_AT(dequantize, block)].i);
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
  int64_t p = ny_pack_width(s->px->target, op);
  if (p <= 0) return NYB_OK;
  ny_builder b = ny_before(s->g, op);
  bool conv = op->kind == NY_conv;
  ny_value *y = ny_in(op, 1), *w = conv                              ? conv_panels(&b, y, op->attr[NY_AT(conv, group)].i, p)
                                   : ny_codes_fit(s->px->target, op) ? matmul_codes(s, &b, y->def, p, true)
                                                                     : panels_of(s, &b, y, p);
  if (!w) return s->g->cx->diag.code;
  ny_set_in(op, 1, w);
  op->attr[conv ? NY_AT(conv, packed) : NY_AT(matmul, packed)].i = p;
  s->changed = true;
  return NYB_OK;
}

nyb_status ny_pass_pack(ny_pass_cx *px, ny_graph *g, bool *changed) {
  state s = {px, g, false};
  NY_TRY(ny_walk(&g->body, visit, &s));
  *changed |= s.changed;
  return NYB_OK;
}
