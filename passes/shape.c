/* shape: infers every type again, in order, so that sizes bound since the import reach everything, and turns integer
   tensors that the model computes from shapes into `dims`, so that shape arithmetic is gone before anything else looks.
 */
#include "rewrite.h"

enum { MAX_VALUES = 64 };
static const int64_t MAX_ELEMENTS = INT64_C(1) << 40;

static bool worth(const ny_op *op) {
  return op->n_out == 1 && op->n_body == 0 && ny_is_pure(op) && op->kind != NY_const && op->kind != NY_dims &&
         op->n_in > 0 && op->out[0]->type->fmt == NY_i64 && op->out[0]->type->rank <= 1;
}

typedef struct state {
  ny_graph *g;
  bool changed;
} state;

static bool to_dims(ny_graph *g, ny_op *op) {
  ny_dim v[MAX_VALUES];
  int n;
  if (!worth(op) || !ny_symbolic_values(g, op->out[0], v, MAX_VALUES, &n)) return false;
  ny_builder b = ny_before(g, op);
  ny_value *d = ny_b_dims(&b, v, n, op->out[0]->type->rank == 0);
  if (!d || d->type != op->out[0]->type) return false;
  ny_replace_op(op, d);
  return true;
}

/* Even where nothing stores it, computing such a tensor would take hours. */
static nyb_status check_sizes(ny_graph *g, const ny_op *op) {
  int64_t n;
  for (int i = 0; i < op->n_out; i++)
    if (ny_type_static_count(g->cx, op->out[i]->type, &n) && n > MAX_ELEMENTS)
      return ny_fail(&g->cx->diag, NYB_E_LIMIT, op->loc, "a result of %lld elements", (long long)n);
  return NYB_OK;
}

static nyb_status visit(void *user, ny_op *op) {
  state *s = user;
  const ny_type *before[8];
  for (int i = 0; i < op->n_out && i < 8; i++) before[i] = op->out[i]->type;
  NY_TRY(ny_infer_op(s->g, op));
  NY_TRY(check_sizes(s->g, op));
  for (int i = 0; i < op->n_out && i < 8; i++) s->changed |= before[i] != op->out[i]->type;
  if (to_dims(s->g, op)) s->changed = true;
  return s->g->cx->diag.code;
}

nyb_status ny_pass_shape(ny_pass_cx *px, ny_graph *g, bool *changed) {
  (void)px;
  state s = {g, false};
  NY_TRY(ny_walk(&g->body, visit, &s));
  *changed |= s.changed;
  return NYB_OK;
}
