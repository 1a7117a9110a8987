/* A quantised weight in the graph: its codes and scales as constants under dequantize, in place of the numbers it was
 * made of. */
#include <string.h>

#include "qmodel.h"

static ny_value *constant(ny_builder *b, ny_fmt f, int rank, const ny_dim *dim, uint64_t bytes, uint8_t **data,
                          const char *name, const char *what) {
  ny_unit *u = b->g->unit;
  *data = ny_alloc(&u->arena, bytes + 1);
  ny_value *v = ny_b_const(b, ny_tensor_type(b->g->cx, f, rank, dim), ny_blob_new(u, *data, bytes, NULL, 0));
  if (v) v->name = ny_intern(&b->g->cx->names, ny_strf(&u->arena, "%s.%s", name, what));
  return v;
}

/* Dim of the weight that blocks run along. */
static int block_axis(const ny_layer *l) { return l->op->kind == NY_gather ? 1 : l->w->type->rank - 2; }

static ny_value *scales(ny_builder *b, ny_layer *l) {
  const ny_quantized *q = &l->q;
  ny_dim dim[NY_MAX_RANK];
  int rank = l->w->type->rank, axis = block_axis(l);
  uint8_t *data;
  memcpy(dim, l->w->type->dim, sizeof dim);
  if (q->scheme->block)
    dim[axis] = (l->weight.run + q->scheme->block - 1) / q->scheme->block;
  else
    for (int i = 0; i < rank; i++)
      if (l->weight.n_stride == 1 ? i + 1 < rank : i > 0) dim[i] = 1;
  uint64_t bytes = ny_fmt_bytes(q->scheme->scale, (uint64_t)(q->n_blocks * q->n));
  ny_value *v = constant(b, q->scheme->scale, rank, dim, bytes, &data, l->name, "scale");
  ny_quantized_scales(q, &l->weight, data);
  if (!q->scheme->tensor || !v) return v;
  uint8_t *ts;
  for (int i = 0; i < rank; i++) dim[i] = 1;
  ny_value *t = constant(b, NY_f32, rank, dim, 4, &ts, l->name, "tensor_scale");
  memcpy(ts, &q->ts, 4);
  return ny_b_dequantize(b, NY_f32, v, t, NULL, 0, 0);
}

/* A bias of its own: the one the model has already is found by the passes. */
static void add_bias(ny_graph *g, ny_layer *l) {
  ny_dim n = l->weight.n;
  uint8_t *data;
  ny_builder b = {.g = g, .block = l->op->parent, .before = l->op->next, .loc = l->op->loc};
  ny_value *y = l->op->out[0], *v = constant(&b, NY_f32, 1, &n, (uint64_t)n * 4, &data, l->name, "correction");
  memcpy(data, l->q.bias, (size_t)n * 4);
  ny_value *sum = ny_b_ew2(&b, NY_add, y, v);
  if (!sum) return;
  ny_replace(y, sum);
  ny_set_in(sum->def, 0, y);
}

nyb_status ny_layer_apply(ny_graph *g, ny_layer *l) {
  ny_builder b = {.g = g, .block = &g->body, .before = l->w->def, .loc = l->w->def->loc};
  if (l->w->def->parent != &g->body) b.block = l->w->def->parent;
  const ny_type *t = l->w->type;
  uint8_t *data;
  uint64_t bytes = ny_fmt_bytes(l->q.scheme->code, (uint64_t)(l->q.n * l->q.k));
  ny_value *codes = constant(&b, l->q.scheme->code, t->rank, t->dim, bytes, &data, l->name, "codes");
  ny_quantized_codes(&l->q, &l->weight, data);
  ny_value *y = ny_b_dequantize(&b, NY_f32, codes, scales(&b, l), NULL, block_axis(l), l->q.scheme->block);
  if (!y) return g->cx->diag.code;
  if (l->q.bias) add_bias(g, l);
  ny_replace(l->w, y);
  return g->cx->diag.code;
}
