/* Lowered units, one a target, become a module file: constants are streamed, then code and the portable graph, then the
 * rows that say how to run it. Equal constants of different programs are stored once. */
#include <string.h>

#include "module_build.h"

/* ---- constants of the graph */
static nyb_status collect(void *user, ny_op *op) {
  ny_module_builder *b = user;
  bool in_group = op->parent->parent && op->parent->parent->kind == NY_group;
  if (in_group || (op->kind != NY_const && !ny_is_const_group(op)) || !op->out[0]->uses) return NYB_OK;
  NY_PUSH_ROOM(&b->a, b->weight, b->n_weights, b->cap_weights);
  b->weight[b->n_weights].op = op;
  return ny_weight_store(b, b->g, op, &b->weight[b->n_weights++].at);
}

/* ---- the call */
static nyb_status begin(ny_module_builder *b, const ny_compiled *p, ny_module_store *store, ny_diag *d) {
  if (!p->u->first || p->u->first->kernel) return ny_fail(d, NYB_E_ARGUMENT, NULL, "the unit has no graph to compile");
  *b = (ny_module_builder){.p = p, .store = store, .u = p->u, .g = p->u->first, .cx = p->u->cx, .d = d};
  b->m.name = b->g->name ? b->g->name : "";
  b->m.producer = "nybble " NYB_VERSION;
  return ny_walk(&b->g->body, collect, b);
}

static nyb_status write_graph(ny_module_builder *b, ny_unit *portable, const ny_weight *w, size_t n) {
  ny_text t = {0};
  nyb_status s = ny_portable_text(b, portable, w, n, &t);
  if (!s) s = ny_module_file_segment(&b->store->file, t.s, t.n, &b->m.graph);
  ny_text_free(&t);
  return s;
}

static nyb_status build(ny_module_builder *b, const ny_compiled *p, size_t n, ny_unit *portable, ny_module_store *store,
                        ny_diag *d) {
  ny_weight *kept = NULL;
  size_t n_kept = 0;
  for (size_t i = 0; i < n; i++) NY_TRY(begin(&b[i], &p[i], store, d));
  if (portable) NY_TRY(ny_portable_store(b, portable, &kept, &n_kept));
  NY_TRY(ny_module_file_weights_end(&store->file, &store->small));
  for (size_t i = 0; i < n; i++) NY_TRY(ny_code_store(&b[i]));
  if (portable) NY_TRY(write_graph(b, portable, kept, n_kept));
  for (size_t i = 0; i < n; i++) {
    NY_TRY(ny_code_rows(&b[i]));
    NY_TRY(ny_rows_build(&b[i]));
  }
  return NYB_OK;
}

nyb_status ny_module_write(const ny_compiled *part, size_t n, ny_unit *portable, const char *path, ny_diag *d) {
  ny_arena a = {0};
  ny_module_store store = {0};
  NY_TRY(ny_module_file_begin(path, &store.file, d));
  ny_module_builder *b = NY_NEW_ARRAY(&a, ny_module_builder, n);
  ny_mod *m = NY_NEW_ARRAY(&a, ny_mod, n);
  nyb_status s = build(b, part, n, portable, &store, d);
  for (size_t i = 0; i < n; i++) m[i] = b[i].m;
  if (s)
    ny_module_file_abort(&store.file);
  else
    s = ny_module_file_end(&store.file, m, (uint32_t)n);
  for (size_t i = 0; i < n; i++) ny_arena_free(&b[i].a);
  ny_arena_free(&store.a);
  ny_arena_free(&a);
  return s;
}
