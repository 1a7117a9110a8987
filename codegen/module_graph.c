/* The portable graph: the model as it was before kernels were made, its constants in the segments of this very file.
   Whoever cannot run the native code, or will not, compiles this. */
#include <string.h>

#include "module_build.h"
#include "rewrite.h"
#include "text.h"

typedef struct collector {
  ny_module_builder *b;
  ny_graph *g;
  ny_weight *w;
  size_t n, cap;
} collector;

static nyb_status collect(void *user, ny_op *op) {
  collector *c = user;
  int64_t elements;
  bool in_group = op->parent->parent && op->parent->parent->kind == NY_group;
  bool blob = op->kind == NY_const && op->attr[NY_AT(const, data)].blob && !ny_type_inline(op->out[0]->type, &elements);
  if (in_group || (!blob && !ny_is_const_group(op))) return NYB_OK;
  NY_PUSH_ROOM(&c->b->a, c->w, c->n, c->cap);
  c->w[c->n].op = op;
  return ny_weight_store(c->b, c->g, op, &c->w[c->n++].at);
}

nyb_status ny_portable_store(ny_module_builder *b, ny_unit *portable, ny_weight **out, size_t *n) {
  ny_graph *g = portable->first;
  ny_pass_options opt = {.target = b->p->target, .opt = 1};
  ny_pass_cx px = {.unit = portable, .opt = &opt, .target = b->p->target};
  bool changed;
  nyb_status s = ny_group_constants(&px, g, &changed);
  ny_arena_free(&px.scratch);
  collector c = {.b = b, .g = g};
  if (!s) s = ny_walk(&g->body, collect, &c);
  *out = c.w;
  *n = c.n;
  return s;
}

/* A group becomes a const; either reads its bytes from this file. */
static nyb_status refer(ny_module_builder *b, ny_graph *g, const ny_weight *w) {
  ny_op *op = w->op;
  int64_t bytes;
  const ny_type *t = op->out[0]->type;
  if (!ny_dim_is_const(g->cx, ny_type_bytes(g->cx, t), &bytes)) return NYB_E_INTERNAL;
  ny_name here = ny_intern(&g->cx->names, ".");
  const uint8_t *data =
      NULL; /* printing large ones does not read them; small ones are printed in full and need the bytes */
  uint64_t at = ny_weight_offset(b, w->at);
  if (w->at.segment == UINT32_MAX) data = b->store->file.small + w->at.offset;
  if (op->kind == NY_group) {
    ny_builder nb = ny_before(g, op);
    ny_op *c = ny_build(&nb, NY_const, NULL, 0, &t, 1);
    if (!c) return g->cx->diag.code;
    ny_replace_op(op, c->out[0]);
    op = c;
  }
  op->attr[NY_AT(const, data)].blob = ny_blob_new(g->unit, data, (uint64_t)bytes, here, at);
  return NYB_OK;
}

nyb_status ny_portable_text(ny_module_builder *b, ny_unit *portable, const ny_weight *w, size_t n, ny_text *out) {
  for (size_t i = 0; i < n; i++) NY_TRY(refer(b, portable->first, &w[i]));
  ny_print_unit(portable, out);
  return NYB_OK;
}
