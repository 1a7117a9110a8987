/* narrow: on request (--precision bf16 or f16) products of f32 take their operands in that format; sums, and all else, stay f32. Constant weights are
   narrowed when the module is written, so they take half the memory; other operands are narrowed by whatever makes them. */
#include "rewrite.h"

typedef struct state {
  ny_graph *g;
  ny_fmt to;
  bool changed;
} state;

static int operands(const ny_op *op) { return op->kind == NY_attention ? 3 : op->kind == NY_matmul || op->kind == NY_conv ? 2 : 0; }

/* Attention gives what it takes; the others say what they give. */
static nyb_status widen_attention(state *s, ny_op *op, ny_value *const *in) {
  ny_op *narrow = ny_clone(s->g, op->parent, op, op, in);
  NY_TRY(ny_infer_op(s->g, narrow));
  ny_builder b = ny_before(s->g, op);
  ny_value *v = ny_b_cast(&b, narrow->out[0], NY_f32);
  if (!v) return s->g->cx->diag.code;
  ny_replace_op(op, v);
  return NYB_OK;
}

static nyb_status visit(void *user, ny_op *op) {
  state *s = user;
  int n = operands(op);
  ny_value *in[4];
  for (int i = 0; i < n; i++)
    if (ny_in(op, i)->type->fmt != NY_f32) return NYB_OK;
  if (!n || op->out[0]->type->fmt != NY_f32) return NYB_OK;
  ny_builder b = ny_before(s->g, op);
  for (int i = 0; i < op->n_in; i++)
    if (!(in[i] = i < n ? ny_b_cast(&b, ny_in(op, i), s->to) : ny_in(op, i))) return s->g->cx->diag.code;
  s->changed = true;
  if (op->kind == NY_attention) return widen_attention(s, op, in);
  for (int i = 0; i < n; i++) ny_set_in(op, i, in[i]);
  return NYB_OK;
}

nyb_status ny_pass_narrow(ny_pass_cx *px, ny_graph *g, bool *changed) {
  ny_precision p = px->opt->precision;
  state s = {g, p == NY_PRECISION_bf16 ? NY_bf16 : NY_f16, false};
  if (p != NY_PRECISION_bf16 && p != NY_PRECISION_f16) return NYB_OK;
  NY_TRY(ny_walk(&g->body, visit, &s));
  *changed |= s.changed;
  return NYB_OK;
}
