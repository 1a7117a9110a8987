/* What must hold of every graph between passes. A violation found here is a pass's bug or a damaged text, so it is an
   error, never an assert: structure (links, counts, levels, terminators), use lists, dominance (a value is defined
   before it is used, in the same block or one around it, and a group sees only its arguments), attributes, and types,
   which must be what inference says. */
#include <string.h>

#include "infer.h"

typedef struct verifier {
  ny_graph *g;
  uint32_t *order; /* by op id: position in the walk, from 1; 0: not in the graph */
  uint32_t next;
  uint8_t *defined; /* by value id */
  int depth;
} verifier;
enum { MAX_DEPTH = 64 };

static nyb_status bad(const verifier *v, const ny_op *op, const char *what) {
  return ny_fail(&v->g->cx->diag, NYB_E_VERIFY, op ? op->loc : NULL, "%s: %s%s%s", v->g->name ? v->g->name : "",
                 op ? NY_NAME_OF(op) : "", op ? ": " : "", what);
}

static nyb_status check_counts(const verifier *v, const ny_op *op) {
  const ny_kind_info *k = &ny_kinds[op->kind];
  if (op->n_in < k->min_in || (k->max_in != 255 && op->n_in > k->max_in)) return bad(v, op, "wrong number of operands");
  if (k->n_out != 255 && op->n_out != k->n_out) return bad(v, op, "wrong number of results");
  if (op->n_body != k->n_body) return bad(v, op, "wrong number of bodies");
  if (!(k->level & (v->g->kernel ? NY_TILE : NY_GRAPH)))
    return bad(v, op, v->g->kernel ? "does not stand in a kernel" : "does not stand in a graph");
  if ((k->flags & NY_TERM) && op->next) return bad(v, op, "is not the last op of its block");
  return NYB_OK;
}

static bool good_dim(ny_dim d) { return d != NY_DIM_INVALID; }

static nyb_status check_attrs(const verifier *v, const ny_op *op) {
  const ny_kind_info *k = &ny_kinds[op->kind];
  for (int i = 0; i < k->n_attr; i++) {
    const ny_attr *a = &op->attr[i];
    bool ok = true;
    if (k->attr[i].kind == NY_DIM) ok = good_dim(a->d);
    if (k->attr[i].kind == NY_NAME) ok = a->s || !k->attr[i].def_name;
    if (k->attr[i].kind == NY_DIMS)
      for (uint32_t j = 0; ok && j < a->dims.n; j++) ok = good_dim(a->dims.v[j]);
    if (!ok)
      return ny_fail(&v->g->cx->diag, NYB_E_VERIFY, op->loc, "%s: attribute %s has no valid value", k->name,
                     k->attr[i].name);
  }
  return NYB_OK;
}

static bool good_type(const ny_ctx *cx, const ny_type *t) {
  if (!t || t->fmt == NY_none || t->fmt >= NY_N_FMT || t->rank > NY_MAX_RANK || t->space > NY_SHARED) return false;
  for (int i = 0; i < t->rank; i++) {
    int64_t lo, hi;
    if (!good_dim(t->dim[i])) return false;
    ny_dim_bounds(cx, t->dim[i], &lo, &hi);
    if (hi < 0) return false;
  }
  return true;
}

static nyb_status check_types(const verifier *v, ny_op *op) {
  ny_infer_fn *infer = ny_kinds[op->kind].infer;
  for (int i = 0; i < op->n_out; i++)
    if (!good_type(v->g->cx, op->out[i]->type)) return bad(v, op, "a result has no valid type");
  if (infer && !op->n_out && !infer(v->g, op, 0)) return v->g->cx->diag.code;
  for (int i = 0; infer && i < op->n_out; i++) {
    const ny_type *t = infer(v->g, op, i);
    if (!t) return v->g->cx->diag.code;
    if (t != op->out[i]->type)
      return ny_fail(&v->g->cx->diag, NYB_E_VERIFY, op->loc, "%s: result %d is declared %s but is %s", NY_NAME_OF(op),
                     i, ny_type_str(v->g, op->out[i]->type), ny_type_str(v->g, t));
  }
  return NYB_OK;
}

/* ---- values */
static nyb_status define(verifier *v, const ny_op *op, const ny_value *x, uint32_t index) {
  if (x->id >= v->g->next_value || v->defined[x->id] || x->index != index)
    return bad(v, op, "a value has a wrong id or position");
  v->defined[x->id] = 1;
  return NYB_OK;
}

/* Seen from block b, stopping at the group that b belongs to. */
static bool visible(const ny_value *x, const ny_block *b) {
  const ny_block *home = x->def ? x->def->parent : x->arg_of;
  for (int i = 0; i <= MAX_DEPTH; i++, b = b->parent->parent) {
    if (b == home) return true;
    if (!b->parent || b->parent->kind == NY_group) return false;
  }
  return false;
}

static nyb_status check_operands(const verifier *v, ny_op *op) {
  for (int i = 0; i < op->n_in; i++) {
    const ny_use *u = &op->in[i];
    if (!u->val) return bad(v, op, "an operand is missing");
    if (u->user != op || !u->link || *u->link != u || (u->next && u->next->link != &u->next))
      return bad(v, op, "a use list is broken");
    const ny_value *x = u->val;
    if (x->id >= v->g->next_value || !v->defined[x->id]) return bad(v, op, "an operand is used before it is defined");
    if (!visible(x, op->parent)) return bad(v, op, "an operand is not visible from its block");
  }
  return NYB_OK;
}

static nyb_status check_uses(const verifier *v, const ny_op *op, const ny_value *x) {
  uint64_t n = 0;
  for (const ny_use *u = x->uses; u; u = u->next)
    if (u->val != x || u->user->id >= v->g->next_op || !v->order[u->user->id] || ++n > (1u << 30))
      return bad(v, op, "a use list names an op that is not in the graph");
  return NYB_OK;
}

/* ---- blocks */
static nyb_status check_block(verifier *v, ny_block *b, ny_op *parent, ny_kind terminator);

/* What ends a body of this op: `for` runs for its effects, other bodies yield. */
static ny_kind terminator_of(const ny_op *op) {
  return op->n_out || !(ny_kinds[op->kind].level & NY_TILE) ? NY_yield : NY_N_KINDS;
}

static nyb_status check_op(verifier *v, ny_op *op, ny_block *b) {
  if (op->kind >= NY_N_KINDS || op->parent != b || op->id >= v->g->next_op || v->order[op->id])
    return bad(v, NULL, "an op is linked wrongly");
  v->order[op->id] = ++v->next;
  NY_TRY(check_counts(v, op));
  NY_TRY(check_operands(v, op));
  NY_TRY(check_attrs(v, op));
  for (int i = 0; i < op->n_body; i++) NY_TRY(check_block(v, op->body[i], op, terminator_of(op)));
  for (int i = 0; i < op->n_out; i++) {
    if (op->out[i]->def != op) return bad(v, op, "a result belongs to another op");
    NY_TRY(define(v, op, op->out[i], (uint32_t)i));
  }
  if (op->n_body && terminator_of(op) == NY_yield)
    for (int i = 0; i < op->n_body; i++)
      if (op->body[i]->last->n_in != op->n_out)
        return bad(v, op, "a body yields another number of values than it has results");
  return check_types(v, op);
}

static nyb_status check_block(verifier *v, ny_block *b, ny_op *parent, ny_kind terminator) {
  if (b->parent != parent) return bad(v, parent, "a body belongs to another op");
  if (++v->depth > MAX_DEPTH) return bad(v, parent, "bodies are nested too deeply");
  for (uint32_t i = 0; i < b->n_arg; i++) {
    if (b->arg[i]->arg_of != b || !good_type(v->g->cx, b->arg[i]->type))
      return bad(v, parent, "an argument is not valid");
    NY_TRY(define(v, parent, b->arg[i], i));
  }
  const ny_op *before = NULL;
  for (ny_op *op = b->first; op; before = op, op = op->next) {
    if (op->prev != before) return bad(v, op, "is linked wrongly");
    NY_TRY(check_op(v, op, b));
  }
  if (b->last != before) return bad(v, parent, "a block's last op is not its last");
  v->depth--;
  bool ended = before && (ny_kinds[before->kind].flags & NY_TERM);
  if (terminator == NY_N_KINDS) return ended ? bad(v, before, "does not end this body") : NYB_OK;
  return ended && before->kind == terminator
             ? NYB_OK
             : bad(v, parent, terminator == NY_ret ? "does not end in ret" : "a body does not end in yield");
}

static nyb_status check_all_uses(const verifier *v, const ny_block *b) {
  for (uint32_t i = 0; i < b->n_arg; i++) NY_TRY(check_uses(v, b->parent, b->arg[i]));
  for (const ny_op *op = b->first; op; op = op->next) {
    for (int i = 0; i < op->n_out; i++) NY_TRY(check_uses(v, op, op->out[i]));
    for (int i = 0; i < op->n_body; i++) NY_TRY(check_all_uses(v, op->body[i]));
  }
  return NYB_OK;
}

/* Grid ops stand at the top of a kernel, and every variable has its own name there. */
static nyb_status check_kernel(const verifier *v, const ny_block *b, bool top) {
  bool body = false;
  for (const ny_op *op = b->first; op; op = op->next) {
    bool grid = op->kind == NY_grid, loop = op->kind == NY_for;
    if (grid && (body || !top)) return bad(v, op, "stands behind other ops");
    body = body || !grid;
    ny_name var = grid ? op->attr[NY_AT(grid, var)].s : loop ? op->attr[NY_AT(for, var)].s : "";
    if (!var) return bad(v, op, "has no variable");
    for (int i = 0; i < op->n_body; i++) NY_TRY(check_kernel(v, op->body[i], false));
  }
  return NYB_OK;
}

nyb_status ny_verify(ny_graph *g) {
  ny_arena scratch = {0};
  verifier v = {.g = g};
  v.order = NY_NEW_ARRAY(&scratch, uint32_t, g->next_op + 1);
  v.defined = NY_NEW_ARRAY(&scratch, uint8_t, g->next_value + 1);
  nyb_status s = check_block(&v, &g->body, NULL, NY_ret);
  if (!s) s = check_all_uses(&v, &g->body);
  if (!s && g->kernel) s = check_kernel(&v, &g->body, true);
  if (!s && !good_dim(g->arena_bytes)) s = bad(&v, NULL, "the arena size is not valid");
  ny_arena_free(&scratch);
  return s;
}

static nyb_status check_launch(void *user, ny_op *op) {
  ny_graph *g = user;
  if (op->kind != NY_launch) return NYB_OK;
  ny_name name = op->attr[NY_AT(launch, kernel)].s;
  ny_graph *k = name ? ny_unit_find(g->unit, name) : NULL;
  if (!k || !k->kernel)
    return ny_fail(&g->cx->diag, NYB_E_VERIFY, op->loc, "launch: there is no kernel %s", name ? name : "");
  if (k->body.n_arg != (uint32_t)op->n_in + op->n_out)
    return ny_fail(&g->cx->diag, NYB_E_VERIFY, op->loc, "launch: %d inputs and %d results for the %u arguments of %s",
                   op->n_in, op->n_out, k->body.n_arg, name);
  if (op->attr[NY_AT(launch, fits)].d != 1 && !ny_kernel_calls(k))
    return ny_fail(&g->cx->diag, NYB_E_VERIFY, op->loc, "launch: fits is for kernels of calls, %s is none", name);
  uint32_t n_off = op->attr[NY_AT(launch, off)].dims.n;
  if (n_off && n_off != op->n_out)
    return ny_fail(&g->cx->diag, NYB_E_VERIFY, op->loc, "launch: %u offsets for %d results", n_off, op->n_out);
  return NYB_OK;
}

/* One level of calls, of whole buffers: so nothing recurses, and what a call touches is what its operands are. */
static nyb_status check_call(const ny_graph *g, const ny_op *op) {
  ny_name name = op->attr[NY_AT(call, kernel)].s;
  ny_diag *d = &g->cx->diag;
  const ny_graph *k = ny_callee(g, op);
  if (!k) return ny_fail(d, NYB_E_VERIFY, op->loc, "call: there is no kernel %s", name ? name : "");
  if (ny_kernel_calls(k)) return ny_fail(d, NYB_E_VERIFY, op->loc, "call: kernel %s calls others itself", name);
  if (k->body.n_arg != op->n_in)
    return ny_fail(d, NYB_E_VERIFY, op->loc, "call: %d buffers for the %u arguments of %s", op->n_in, k->body.n_arg,
                   name);
  for (int i = 0; i < op->n_in; i++) {
    const ny_value *v = ny_in(op, i);
    int64_t have, want;
    if (v->type->space != NY_GLOBAL)
      return ny_fail(d, NYB_E_VERIFY, op->loc, "call: operand %d is no buffer of the caller", i);
    if (ny_dim_is_const(g->cx, ny_type_bytes(g->cx, v->type), &have) &&
        ny_dim_is_const(g->cx, ny_type_bytes(g->cx, k->body.arg[i]->type), &want) && have != want)
      return ny_fail(d, NYB_E_VERIFY, op->loc, "call: operand %d has %lld bytes, %s takes %lld", i, (long long)have,
                     name, (long long)want);
  }
  return NYB_OK;
}

static nyb_status check_calls(const ny_graph *g) {
  for (const ny_op *op = g->body.first; op; op = op->next) {
    if (op->kind == NY_call)
      NY_TRY(check_call(g, op));
    else if (ny_kernel_calls(g) && op->kind != NY_ret)
      return ny_fail(&g->cx->diag, NYB_E_VERIFY, op->loc, "%s: kernel %s calls others, so it can hold nothing else",
                     ny_kinds[op->kind].name, g->name ? g->name : "?");
  }
  return NYB_OK;
}

/* A call behind something else, or in a loop, is found here. */
static nyb_status first_call(void *user, ny_op *op) {
  const ny_graph *g = user;
  if (op->kind != NY_call || (g->kernel && op->parent == &g->body && ny_kernel_calls(g))) return NYB_OK;
  return ny_fail(&g->cx->diag, NYB_E_VERIFY, op->loc, "call: kernel %s does other things too", g->name ? g->name : "?");
}

nyb_status ny_verify_unit(ny_unit *u) {
  for (ny_graph *g = u->first; g; g = g->next) {
    NY_TRY(ny_verify(g));
    NY_TRY(ny_walk(&g->body, check_launch, g));
    NY_TRY(ny_walk(&g->body, first_call, g));
    if (g->kernel) NY_TRY(check_calls(g));
  }
  return NYB_OK;
}
