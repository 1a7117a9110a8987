/* Replaces symbols by numbers everywhere in a unit: types, attributes, arena size. */
#include "ir.h"

typedef struct bind_cx {
  ny_ctx *cx;
  const ny_binding *env;
  size_t n;
} bind_cx;

static ny_dim bind_dim(const bind_cx *b, ny_dim d) {
  for (size_t i = 0; i < b->n && d < 0 && d != NY_DIM_INVALID; i++)
    d = ny_dim_subst(b->cx, d, b->env[i].sym, ny_dim_const(b->cx, b->env[i].value));
  return d;
}

static const ny_type *bind_type(const bind_cx *b, const ny_type *t) {
  ny_type n = *t;
  for (int i = 0; i < n.rank; i++) n.dim[i] = bind_dim(b, n.dim[i]);
  return ny_type_get(b->cx, n);
}

static void bind_args(const bind_cx *b, ny_block *block) {
  for (uint32_t i = 0; i < block->n_arg; i++) block->arg[i]->type = bind_type(b, block->arg[i]->type);
}

static nyb_status bind_op(void *user, ny_op *op) {
  const bind_cx *b = user;
  const ny_kind_info *k = &ny_kinds[op->kind];
  for (int i = 0; i < op->n_out; i++) op->out[i]->type = bind_type(b, op->out[i]->type);
  for (int i = 0; i < op->n_body; i++) bind_args(b, op->body[i]);
  for (int i = 0; i < k->n_attr; i++) {
    if (k->attr[i].kind == NY_DIM) op->attr[i].d = bind_dim(b, op->attr[i].d);
    if (k->attr[i].kind == NY_DIMS)
      for (uint32_t j = 0; j < op->attr[i].dims.n; j++) op->attr[i].dims.v[j] = bind_dim(b, op->attr[i].dims.v[j]);
  }
  return NYB_OK;
}

nyb_status ny_bind_unit(ny_unit *u, const ny_binding *env, size_t n) {
  bind_cx b = {u->cx, env, n};
  for (ny_graph *g = u->first; g; g = g->next) {
    bind_args(&b, &g->body);
    g->arena_bytes = bind_dim(&b, g->arena_bytes);
    NY_TRY(ny_walk(&g->body, bind_op, &b));
    NY_TRY(ny_verify(g));
  }
  return NYB_OK;
}
