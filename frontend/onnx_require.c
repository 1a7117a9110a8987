/* What has to be taken for granted about symbolic sizes becomes an op of the graph, so that inputs for which it is not
   so are refused instead of giving numbers that mean nothing. Builders ask with ny_require; whatever else inference
   accepts without proof is collected once the graph stands. */
#include "onnx_import.h"

static bool proven(ny_ctx *cx, ny_dim a, ny_dim b) {
  int64_t lo, hi;
  if (a == b) return true;
  ny_dim_bounds(cx, ny_dim_sub(cx, a, b), &lo, &hi);
  return lo == 0 && hi == 0;
}

/* Also checks it: at the top of a graph what is provably wrong fails. */
static bool emit(ny_ctx *cx, ny_builder *b, ny_dim x, ny_dim y, const char *what) {
  if (cx->diag.code) return false;
  if (x == NY_DIM_INVALID || y == NY_DIM_INVALID)
    return ny_fail(&cx->diag, NYB_E_LIMIT, b->loc, "%s: a size cannot be expressed", what) == NYB_OK;
  if (proven(cx, x, y)) return true;
  ny_op *op = ny_build(b, NY_require, NULL, 0, NULL, 0);
  if (!op) return false;
  op->attr[NY_AT(require, a)].d = x;
  op->attr[NY_AT(require, b)].d = y;
  op->attr[NY_AT(require, text)].s = ny_intern(&cx->names, what);
  return !ny_infer_op(b->g, op);
}

bool ny_require(ny_node *n, ny_dim a, ny_dim b, const char *what) { return emit(n->cx, &n->b, a, b, what); }

bool ny_require_least(ny_node *n, ny_dim d, ny_dim least, const char *what) {
  return ny_require(n, d, ny_dim_max(n->cx, d, least), what);
}

bool ny_require_assumed(ny_node *n, ny_dim d) {
  const ny_import *im = n->im;
  ny_builder b = n->b;
  for (uint32_t i = 0; i < im->n_eq; i++)
    if (!im->eq[i].sym && im->eq[i].from == d) {
      if (im->eq[i].loc) b.loc = im->eq[i].loc;
      break;
    }
  return emit(n->cx, &b, d, ny_assumed(im, d), "sizes that have to fit");
}

/* ---- inference */
typedef struct listener {
  ny_ctx *cx;
  ny_graph *g;
  ny_op *op;
} listener;

static void heard(void *user, ny_dim a, ny_dim b) {
  listener *l = user;
  void (*fn)(void *, ny_dim, ny_dim) = l->cx->assumed;
  ny_builder at = {.g = l->g, .block = l->op->parent, .before = l->op, .loc = l->op->loc};
  l->cx->assumed = NULL;
  emit(l->cx, &at, a, b, "sizes of what it works on");
  l->cx->assumed = fn;
}

static nyb_status listen(void *user, ny_op *op) {
  listener *l = user;
  if (op->kind == NY_require) return NYB_OK;
  l->op = op;
  NY_TRY(ny_infer_op(l->g, op));
  return l->cx->diag.code;
}

nyb_status ny_require_types(ny_import *im) {
  listener l = {.cx = im->cx, .g = im->g};
  im->cx->assumed = heard;
  im->cx->assumed_user = &l;
  nyb_status s = ny_walk(&im->g->body, listen, &l);
  im->cx->assumed = NULL;
  im->cx->assumed_user = NULL;
  return s;
}
