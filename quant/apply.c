/* A quantised weight in the graph: its codes and scales as constants under dequantize, in place of the numbers it was
 * made of. */
#include <string.h>

#include "qmodel.h"

/* Dim of the weight that blocks run along. */
static int block_axis(const ny_layer *l) { return l->op->kind == NY_gather ? 1 : l->w->type->rank - 2; }

void ny_layer_codes(const ny_layer *l, ny_arena *a, ny_plain *out) {
  *out = (ny_plain){.fmt = l->q.scheme->code, .rank = l->w->type->rank, .axis = block_axis(l)};
  memcpy(out->dim, l->w->type->dim, sizeof out->dim);
  out->data = ny_alloc(a, ny_fmt_bytes(out->fmt, (uint64_t)(l->q.n * l->q.k)) + 1);
  ny_quantized_codes(&l->q, &l->weight, out->data);
}

void ny_layer_scales(const ny_layer *l, ny_arena *a, ny_plain *out) {
  const ny_quantized *q = &l->q;
  int rank = l->w->type->rank;
  *out = (ny_plain){.fmt = q->scheme->scale, .rank = rank, .axis = block_axis(l)};
  memcpy(out->dim, l->w->type->dim, sizeof out->dim);
  if (q->scheme->block)
    out->dim[out->axis] = (l->weight.run + q->scheme->block - 1) / q->scheme->block;
  else
    for (int i = 0; i < rank; i++)
      if (l->weight.n_stride == 1 ? i + 1 < rank : i > 0) out->dim[i] = 1;
  out->data = ny_alloc(a, ny_fmt_bytes(out->fmt, (uint64_t)(q->n_blocks * q->n)) + 1);
  ny_quantized_scales(q, &l->weight, out->data);
}

static ny_value *constant(ny_builder *b, const ny_plain *p, const char *name, const char *what) {
  ny_unit *u = b->g->unit;
  uint64_t n = 1;
  for (int i = 0; i < p->rank; i++) n *= (uint64_t)p->dim[i];
  const ny_type *t = ny_tensor_type(b->g->cx, p->fmt, p->rank, p->dim);
  ny_value *v = ny_b_const(b, t, ny_blob_new(u, p->data, ny_fmt_bytes(p->fmt, n), NULL, 0));
  if (v) v->name = ny_intern(&b->g->cx->names, ny_strf(&u->arena, "%s.%s", name, what));
  return v;
}

static ny_value *scales(ny_builder *b, const ny_layer *l) {
  ny_arena *a = &b->g->unit->arena;
  ny_plain p, whole = {.fmt = NY_f32, .rank = l->w->type->rank, .data = ny_alloc(a, 4)};
  ny_layer_scales(l, a, &p);
  ny_value *v = constant(b, &p, l->name, "scale");
  if (!l->q.scheme->tensor) return v;
  for (int i = 0; i < whole.rank; i++) whole.dim[i] = 1;
  memcpy(whole.data, &l->q.ts, 4);
  return ny_b_dequantize(b, NY_f32, v, constant(b, &whole, l->name, "tensor_scale"), NULL, 0, 0);
}

/* A bias of its own: the one the model has already is found by the passes. */
static void add_bias(ny_graph *g, const ny_layer *l) {
  ny_plain p = {.fmt = NY_f32, .rank = 1, .dim = {l->weight.n}};
  p.data = ny_alloc(&g->unit->arena, (size_t)l->weight.n * 4);
  memcpy(p.data, l->q.bias, (size_t)l->weight.n * 4);
  ny_builder b = {.g = g, .block = l->op->parent, .before = l->op->next, .loc = l->op->loc};
  ny_value *y = l->op->out[0], *sum = ny_b_ew2(&b, NY_add, y, constant(&b, &p, l->name, "correction"));
  if (!sum) return;
  ny_replace(y, sum);
  ny_set_in(sum->def, 0, y);
}

static nyb_status apply(ny_graph *g, const ny_layer *l) {
  ny_builder b = {.g = g, .block = l->w->def->parent, .before = l->w->def, .loc = l->w->def->loc};
  ny_plain p;
  ny_layer_codes(l, &g->unit->arena, &p);
  ny_value *codes = constant(&b, &p, l->name, "codes"),
           *y = ny_b_dequantize(&b, NY_f32, codes, scales(&b, l), NULL, p.axis, l->q.scheme->block);
  if (!y) return g->cx->diag.code;
  if (l->q.bias) add_bias(g, l);
  ny_replace(l->w, y);
  return g->cx->diag.code;
}

nyb_status ny_quantized_apply(nyb_model *m, ny_layers *ls) {
  nyb_status s = NYB_OK;
  for (size_t i = 0; i < ls->n && !s; i++)
    if (ls->v[i].q.r) s = apply(ls->g, &ls->v[i]);
  if (!s) ny_drop_dead(&ls->g->body);
  if (!s) s = ny_verify(ls->g);
  return ny_model_hand_over(m->cx, m->ir, NULL, s);
}
