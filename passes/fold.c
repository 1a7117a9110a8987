/* fold: evaluates pure ops whose inputs are constants, with the evaluator. A result over 64 KB stays an expression of
   the weights (it becomes a const group later), so that a model's weights are never copied while it is compiled. */
#include <string.h>

#include "rewrite.h"

enum { MAX_BYTES = 65536, MAX_INPUT_BYTES = 64 << 20 };

static bool foldable(ny_graph *g, const ny_op *op) {
  if (!ny_is_pure(op) || op->n_body || !op->n_out || op->kind == NY_const || op->kind == NY_launch) return false;
  if (op->kind == NY_dequantize) return false; /* quantised weights stay codes */
  int64_t n;
  for (int i = 0; i < op->n_out; i++) {
    const ny_type *t = op->out[i]->type;
    if (!ny_type_static_count(g->cx, t, &n) || ny_fmts[t->fmt].kind == 'S' ||
        ny_fmt_bytes((ny_fmt)t->fmt, (uint64_t)n) > MAX_BYTES)
      return false;
  }
  uint64_t total = 0;
  for (int i = 0; i < op->n_in; i++) {
    const ny_type *t = ny_in(op, i)->type;
    if (!ny_def(ny_in(op, i), NY_const) || !ny_type_static_count(g->cx, t, &n)) return false;
    total += ny_fmt_bytes((ny_fmt)t->fmt, (uint64_t)n);
  }
  if (op->kind == NY_dims)
    for (uint32_t i = 0; i < op->attr[NY_AT(dims, v)].dims.n; i++)
      if (!ny_dim_is_const(g->cx, op->attr[NY_AT(dims, v)].dims.v[i], NULL)) return false;
  return total <= MAX_INPUT_BYTES;
}

/* The bytes of a const; a splat's are made. NULL: out of range. */
static void *bytes_of(ny_pass_cx *px, ny_graph *g, const ny_value *v) {
  const ny_op *c = v->def;
  const ny_blob *b = c->attr[NY_AT(const, data)].blob;
  int64_t n;
  if (b) return (void *)(uintptr_t)b->data;
  if (!ny_type_static_count(g->cx, v->type, &n)) return NULL;
  ny_fmt f = (ny_fmt)v->type->fmt;
  double x = c->attr[NY_AT(const, splat)].f;
  void *p = ny_alloc(&px->scratch, (size_t)ny_fmt_bytes(f, (uint64_t)n) + 16);
  for (int64_t i = 0; i < n; i++) {
    if (ny_is_float(f))
      ny_put_f(f, p, (uint64_t)i, x, false);
    else
      ny_put_i(f, p, (uint64_t)i, (int64_t)x);
  }
  return p;
}

static nyb_status fold_op(ny_pass_cx *px, ny_graph *g, ny_op *op, bool *folded) {
  ny_tensor *in = NY_NEW_ARRAY(&px->scratch, ny_tensor, op->n_in + 1),
            *out = NY_NEW_ARRAY(&px->scratch, ny_tensor, op->n_out);
  for (int i = 0; i < op->n_in; i++) {
    in[i] = (ny_tensor){ny_in(op, i)->type, bytes_of(px, g, ny_in(op, i))};
    if (!in[i].data) return NYB_OK;
  }
  for (int i = 0; i < op->n_out; i++) out[i].type = op->out[i]->type;
  NY_TRY(ny_eval_op(g, op, in, &px->scratch, out));
  ny_builder b = ny_before(g, op);
  for (int i = 0; i < op->n_out; i++) {
    int64_t n = 0;
    ny_type_static_count(g->cx, out[i].type, &n);
    size_t bytes = (size_t)ny_fmt_bytes((ny_fmt)out[i].type->fmt, (uint64_t)n);
    void *copy = ny_alloc(&g->unit->arena, bytes ? bytes : 1);
    if (bytes) memcpy(copy, out[i].data, bytes);
    ny_value *c = ny_b_const(&b, op->out[i]->type, ny_blob_new(g->unit, copy, bytes, NULL, 0));
    if (!c) return g->cx->diag.code;
    c->name = op->out[i]->name;
    ny_replace(op->out[i], c);
  }
  ny_erase(op);
  *folded = true;
  return NYB_OK;
}

typedef struct state {
  ny_pass_cx *px;
  ny_graph *g;
  bool changed;
} state;

static nyb_status visit(void *user, ny_op *op) {
  state *s = user;
  return foldable(s->g, op) ? fold_op(s->px, s->g, op, &s->changed) : NYB_OK;
}

nyb_status ny_pass_fold(ny_pass_cx *px, ny_graph *g, bool *changed) {
  state s = {px, g, false};
  NY_TRY(ny_walk(&g->body, visit, &s));
  *changed |= s.changed;
  return NYB_OK;
}
