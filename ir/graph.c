/* The only ways a graph changes. Use lists stay true here and nowhere else; ny_verify checks that they did. */
#include <assert.h>
#include <string.h>

#include "ir.h"

static void use_link(ny_use *u, ny_value *v) {
  u->val = v;
  u->next = v ? v->uses : NULL;
  u->link = v ? &v->uses : NULL;
  if (!v) return;
  if (v->uses) v->uses->link = &u->next;
  v->uses = u;
}

static void use_unlink(ny_use *u) {
  if (!u->val) return;
  *u->link = u->next;
  if (u->next) u->next->link = u->link;
  u->val = NULL;
}

static ny_value *value_new(ny_graph *g, const ny_type *t, uint32_t index) {
  ny_value *v = NY_NEW(&g->arena, ny_value);
  v->type = t;
  v->index = index;
  v->id = g->next_value++;
  return v;
}

ny_value *ny_block_arg(ny_graph *g, ny_block *b, const ny_type *t, ny_name name) {
  NY_PUSH_ROOM(&g->arena, b->arg, b->n_arg, b->cap_arg);
  ny_value *v = value_new(g, t, b->n_arg);
  v->arg_of = b;
  v->name = name;
  b->arg[b->n_arg++] = v;
  return v;
}

static void set_defaults(ny_graph *g, ny_op *op) {
  const ny_kind_info *k = &ny_kinds[op->kind];
  op->attr = k->n_attr ? NY_NEW_ARRAY(&g->arena, ny_attr, k->n_attr) : NULL;
  for (int i = 0; i < k->n_attr; i++) {
    const ny_attr_info *a = &k->attr[i];
    if (a->kind == NY_I64)
      op->attr[i].i = (int64_t)a->def;
    else if (a->kind == NY_F64)
      op->attr[i].f = a->def;
    else if (a->kind == NY_DIM)
      op->attr[i].d = ny_dim_const(g->cx, (int64_t)a->def);
    else if (a->kind == NY_NAME && a->def_name)
      op->attr[i].s = ny_intern(&g->cx->names, a->def_name);
  }
}

static void put_in(ny_op *op, ny_block *b, ny_op *before) {
  op->parent = b;
  op->next = before;
  op->prev = before ? before->prev : b->last;
  if (op->prev)
    op->prev->next = op;
  else
    b->first = op;
  if (before)
    before->prev = op;
  else
    b->last = op;
}

static void take_out(ny_op *op) {
  if (op->prev)
    op->prev->next = op->next;
  else
    op->parent->first = op->next;
  if (op->next)
    op->next->prev = op->prev;
  else
    op->parent->last = op->prev;
  op->prev = op->next = NULL;
  op->parent = NULL;
}

ny_op *ny_op_new(ny_graph *g, ny_block *b, ny_kind k, ny_value *const *in, int n_in, const ny_type *const *out,
                 int n_out) {
  assert(n_in <= UINT16_MAX && n_out <= UINT16_MAX);
  ny_op *op = NY_NEW(&g->arena, ny_op);
  op->kind = (uint16_t)k;
  op->id = g->next_op++;
  op->n_in = (uint16_t)n_in;
  op->n_out = (uint16_t)n_out;
  op->n_body = ny_kinds[k].n_body;
  op->in = n_in ? NY_NEW_ARRAY(&g->arena, ny_use, n_in) : NULL;
  for (int i = 0; i < n_in; i++) {
    op->in[i].user = op;
    use_link(&op->in[i], in[i]);
  }
  op->out = n_out ? NY_NEW_ARRAY(&g->arena, ny_value *, n_out) : NULL;
  for (int i = 0; i < n_out; i++) {
    op->out[i] = value_new(g, out ? out[i] : NULL, (uint32_t)i);
    op->out[i]->def = op;
  }
  op->body = op->n_body ? NY_NEW_ARRAY(&g->arena, ny_block *, op->n_body) : NULL;
  for (int i = 0; i < op->n_body; i++) {
    op->body[i] = NY_NEW(&g->arena, ny_block);
    op->body[i]->parent = op;
  }
  set_defaults(g, op);
  put_in(op, b, NULL);
  return op;
}

void ny_set_in(ny_op *op, int i, ny_value *v) {
  use_unlink(&op->in[i]);
  use_link(&op->in[i], v);
}

void ny_replace(ny_value *old, ny_value *with) {
  if (old == with) return;
  while (old->uses) {
    ny_use *u = old->uses;
    use_unlink(u);
    use_link(u, with);
  }
}

void ny_erase(ny_op *op) {
  for (int i = 0; i < op->n_out; i++) assert(!op->out[i]->uses);
  for (int i = 0; i < op->n_body; i++)
    while (op->body[i]->last) ny_erase(op->body[i]->last);
  for (int i = 0; i < op->n_in; i++) use_unlink(&op->in[i]);
  take_out(op);
}

void ny_move(ny_op *op, ny_block *b, ny_op *before) {
  if (op == before) return;
  take_out(op);
  put_in(op, b, before);
}

ny_attr ny_dims_attr(ny_graph *g, const ny_dim *v, size_t n) {
  ny_attr a = {.dims = {.v = n ? NY_NEW_ARRAY(&g->arena, ny_dim, n) : NULL, .n = (uint32_t)n}};
  if (n) memcpy(a.dims.v, v, n * sizeof *v);
  return a;
}

nyb_status ny_walk(ny_block *b, nyb_status (*visit)(void *user, ny_op *op), void *user) {
  for (ny_op *op = b->first, *next; op; op = next) {
    next = op->next;
    for (int i = 0; i < op->n_body; i++) NY_TRY(ny_walk(op->body[i], visit, user));
    NY_TRY(visit(user, op));
  }
  return NYB_OK;
}
