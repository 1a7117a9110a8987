/* The reference evaluator: walks a graph op by op over concrete tensors. Slow, obvious, and the definition of every op;
   this file holds the walk, memory and control flow, the eval_*.c beside it hold the ops. A value's storage is freed
   after its last use, so a large model needs little more than its largest step; everything that is alive counts against
   the caller's limit. Sizes come from the inputs: a symbol is bound by the first input dim that is that symbol alone,
   and every other size is checked against what the bindings say. */
#include "eval.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

static ny_eval_fn *const eval_fn[NY_N_KINDS] = {
#define OP(name, level, min_in, max_in, n_out, n_body, flags, infer, text)
#define EW(name, n_in, types, expr) [NY_##name] = ny_ev_map,
#define ATTR(op, name, kind, def)
#include "ops.def"
#undef OP
#undef EW
#undef ATTR
    [NY_const] = ny_ev_const,
    [NY_dims] = ny_ev_dims,
    [NY_require] = ny_ev_require,
    [NY_precision] = ny_ev_precision,
    [NY_launch] = ny_ev_launch,
    [NY_reshape] = ny_ev_reshape,
    [NY_transpose] = ny_ev_transpose,
    [NY_broadcast] = ny_ev_broadcast,
    [NY_slice] = ny_ev_slice,
    [NY_pad] = ny_ev_pad,
    [NY_concat] = ny_ev_concat,
    [NY_bitcast] = ny_ev_reshape,
    [NY_gather] = ny_ev_gather,
    [NY_gather_elements] = ny_ev_gather_elements,
    [NY_gather_nd] = ny_ev_gather_nd,
    [NY_scatter_elements] = ny_ev_scatter_elements,
    [NY_scatter_nd] = ny_ev_scatter_nd,
    [NY_iota] = ny_ev_iota,
    [NY_random] = ny_ev_random,
    [NY_cast] = ny_ev_cast,
    [NY_dequantize] = ny_ev_dequantize,
    [NY_reduce] = ny_ev_reduce,
    [NY_argreduce] = ny_ev_argreduce,
    [NY_scan] = ny_ev_scan,
    [NY_topk] = ny_ev_topk,
    [NY_window] = ny_ev_window,
    [NY_softmax] = ny_ev_softmax,
    [NY_layer_norm] = ny_ev_layer_norm,
    [NY_rms_norm] = ny_ev_rms_norm,
    [NY_matmul] = ny_ev_matmul,
    [NY_conv] = ny_ev_conv,
    [NY_attention] = ny_ev_attention,
};

/* ---- Sizes */
static const char *dim_text(ny_ev *ev, ny_dim d) {
  ny_text t = {0};
  ny_dim_print(ev->cx, d, &t);
  const char *s = ny_strdup(&ev->scratch, t.s ? t.s : "?");
  ny_text_free(&t);
  return s;
}

nyb_status ny_ev_dim(ny_ev *ev, const ny_op *op, ny_dim d, int64_t *out) {
  if (d >= 0) return *out = d, NYB_OK;
  if (d != NY_DIM_INVALID && ny_dim_eval(ev->cx, d, ev->env, ev->n_env, out)) return NYB_OK;
  return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "%s: the size %s has no value here", ny_kinds[op->kind].name,
                    d == NY_DIM_INVALID ? "(invalid)" : dim_text(ev, d));
}

nyb_status ny_ev_list(ny_ev *ev, const ny_op *op, int slot, int n, int64_t def, int64_t *out) {
  const ny_attr *a = &op->attr[slot];
  if (a->dims.n && a->dims.n != (uint32_t)n)
    return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "%s: %u entries in %s, for %d dims", ny_kinds[op->kind].name, a->dims.n,
                      ny_kinds[op->kind].attr[slot].name, n);
  for (int i = 0; i < n; i++) {
    out[i] = def;
    if (a->dims.n) NY_TRY(ny_ev_dim(ev, op, a->dims.v[i], &out[i]));
  }
  return NYB_OK;
}

nyb_status ny_ev_axis(ny_ev *ev, const ny_op *op, int64_t axis, int rank, int *out) {
  if (axis < -rank || axis >= rank)
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "%s: axis %" PRId64 " of rank %d", ny_kinds[op->kind].name, axis, rank);
  *out = (int)(axis < 0 ? axis + rank : axis);
  return NYB_OK;
}

nyb_status ny_ev_fits(ny_ev *ev, const ny_op *op, const ny_type *from, const ny_type *to) {
  for (int i = 0; i < from->rank; i++) {
    int j = i + to->rank - from->rank;
    int64_t n = j < 0 ? -1 : to->dim[j];
    if (j < 0 || (from->dim[i] != n && from->dim[i] != 1))
      return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "%s: dim %d of size %" PRId64 " does not stretch to %" PRId64,
                        ny_kinds[op->kind].name, i, from->dim[i], n);
  }
  return NYB_OK;
}

static bool is_unbound(ny_ev *ev, ny_dim d) {
  if (d >= 0) return false;
  const ny_dim_node *n = ny_dim_get(ev->cx, d);
  for (size_t i = 0; n->kind == NY_DIM_SYM && i < ev->n_env; i++)
    if (ev->env[i].sym == n->name) return false;
  return n->kind == NY_DIM_SYM;
}

static void bind(ny_ev *ev, ny_name sym, int64_t value) {
  NY_PUSH_ROOM(&ev->scratch, ev->env, ev->n_env, ev->cap_env);
  ev->env[ev->n_env++] = (ny_binding){sym, value};
}

/* Plain symbols that have no value yet. */
static void bind_type(ny_ev *ev, const ny_type *declared, const ny_type *actual) {
  for (int i = 0; i < declared->rank && declared->rank == actual->rank; i++)
    if (is_unbound(ev, declared->dim[i])) bind(ev, ny_dim_get(ev->cx, declared->dim[i])->name, actual->dim[i]);
}

/* Checks an actual type against a declared one. Sizes that still have no value are accepted: only results of a body can
 * have such. */
static nyb_status match(ny_ev *ev, const ny_loc *loc, const char *what, const char *name, const ny_type *declared,
                        const ny_type *actual) {
  if (declared->fmt != actual->fmt || declared->rank != actual->rank)
    return ny_fail(&ev->cx->diag, NYB_E_TYPE, loc, "%s %s is %s of rank %d, not %s of rank %d", what, name,
                   ny_fmts[declared->fmt].name, declared->rank, ny_fmts[actual->fmt].name, actual->rank);
  for (int i = 0; i < declared->rank; i++) {
    int64_t want = declared->dim[i];
    if (want < 0 && !ny_dim_eval(ev->cx, want, ev->env, ev->n_env, &want)) continue;
    if (want != actual->dim[i])
      return ny_fail(&ev->cx->diag, NYB_E_SHAPE, loc, "%s %s has %" PRId64 " in dim %d, where %s is %" PRId64, what,
                     name, actual->dim[i], i, dim_text(ev, declared->dim[i]), want);
  }
  return NYB_OK;
}

static nyb_status concrete(ny_ev *ev, const ny_op *op, const ny_type *t, const ny_type **out) {
  ny_type c = *t;
  bool same = true;
  for (int i = 0; i < c.rank; i++) {
    NY_TRY(ny_ev_dim(ev, op, t->dim[i], &c.dim[i]));
    if (c.dim[i] < 0)
      return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "%s: result dim %d (%s) is %" PRId64, ny_kinds[op->kind].name, i,
                        dim_text(ev, t->dim[i]), c.dim[i]);
    same = same && c.dim[i] == t->dim[i];
  }
  *out = same ? t : ny_type_get(ev->cx, c);
  return NYB_OK;
}

/* ---- Memory */
static void *data_of(ny_buf *b) { return b + 1; }

static ny_buf *buf_new(ny_ev *ev, const ny_loc *loc, const char *what, uint64_t bytes, ny_buf **list) {
  if (bytes > ev->limit || ev->live > ev->limit - bytes) {
    ny_fail(&ev->cx->diag, NYB_E_LIMIT, loc,
            "%s needs %" PRIu64 " bytes beside %" PRIu64 " in use; the limit is %" PRIu64, what, bytes, ev->live,
            ev->limit);
    return NULL;
  }
  ny_buf *b = bytes < SIZE_MAX - sizeof *b ? malloc(sizeof *b + (bytes ? bytes : 1)) : NULL;
  if (!b) {
    ny_fail(&ev->cx->diag, NYB_E_NOMEM, loc, "%s needs %" PRIu64 " bytes, which the system does not give", what, bytes);
    return NULL;
  }
  *b = (ny_buf){.next = *list, .link = list, .bytes = bytes, .refs = 1};
  if (*list) (*list)->link = &b->next;
  *list = b;
  ev->live += bytes;
  return b;
}

static void unref(ny_ev *ev, ny_buf *b) {
  if (!b || --b->refs) return;
  ev->live -= b->bytes;
  *b->link = b->next;
  if (b->next) b->next->link = b->link;
  free(b);
}

void *ny_ev_tmp(ny_ev *ev, const ny_op *op, uint64_t n, size_t item) {
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(n, item, &bytes)) bytes = UINT64_MAX;
  ny_buf *b = buf_new(ev, op->loc, ny_kinds[op->kind].name, bytes, &ev->tmps);
  return b ? data_of(b) : NULL;
}

static void free_tmps(ny_ev *ev, ny_buf *until) {
  while (ev->tmps != until) unref(ev, ev->tmps);
}

/* Storage of a static type; overflowing sizes fail as ones beyond any limit. */
static nyb_status storage(ny_ev *ev, const ny_loc *loc, const char *what, const ny_type *t, uint64_t *bytes) {
  uint64_t n = 1;
  bool empty = false;
  for (int i = 0; i < t->rank; i++) empty = empty || t->dim[i] == 0;
  for (int i = 0; i < t->rank; i++)
    if (t->dim[i] < 0 || (!empty && (__builtin_mul_overflow(n, (uint64_t)t->dim[i], &n) || n > INT64_MAX)))
      return ny_fail(&ev->cx->diag, NYB_E_LIMIT, loc, "%s: dim %d of %" PRId64 " makes the tensor too large to address",
                     what, i, t->dim[i]);
  if (!ny_fmts[t->fmt].bits)
    return ny_fail(&ev->cx->diag, NYB_E_UNSUPPORTED, loc, "%s: the evaluator has no arithmetic on %s", what,
                   ny_fmts[t->fmt].name);
  *bytes = ny_fmt_bytes((ny_fmt)t->fmt, empty ? 0 : n);
  if (*bytes == UINT64_MAX)
    return ny_fail(&ev->cx->diag, NYB_E_LIMIT, loc, "%s: the tensor is too large to address", what);
  return NYB_OK;
}

static nyb_status slot_new(ny_ev *ev, const ny_op *op, const ny_type *t, ny_slot *out) {
  uint64_t bytes = 0;
  NY_TRY(storage(ev, op->loc, ny_kinds[op->kind].name, t, &bytes));
  ny_buf *b = buf_new(ev, op->loc, ny_kinds[op->kind].name, bytes, &ev->bufs);
  if (!b) return ev->cx->diag.code;
  *out = (ny_slot){{t, data_of(b)}, b};
  return NYB_OK;
}

static ny_slot share(ny_slot s) {
  if (s.buf) s.buf->refs++;
  return s;
}

static void drop(ny_ev *ev, ny_slot *s) {
  unref(ev, s->buf);
  *s = (ny_slot){0};
}

static void give(ny_ev *ev, const ny_value *v, ny_slot s) {
  drop(ev, &ev->slot[v->id]);
  ev->slot[v->id] = s;
}

static nyb_status holds(ny_ev *ev, const ny_op *op, const ny_value *v) {
  if (v && ev->slot[v->id].t.type) return NYB_OK;
  return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "%s uses a value that nothing has computed", ny_kinds[op->kind].name);
}

/* ---- Plan: after which op each value is dead. A use inside a body counts as one of the op that holds the body. */
static const ny_op *user_in(const ny_block *b, const ny_op *user) {
  for (int depth = 0; user && user->parent != b && depth <= MAX_DEPTH; depth++)
    user = user->parent ? user->parent->parent : NULL;
  return user && user->parent == b ? user : NULL;
}

static void plan_value(ny_ev *ev, const ny_block *b, ny_value *v, const ny_op *last, const uint32_t *order) {
  for (const ny_use *u = v->uses; u; u = u->next) {
    const ny_op *user = user_in(b, u->user);
    if (user && (!last || order[user->id] > order[last->id])) last = user;
  }
  if (!last) return;
  ev->dies_next[v->id] = ev->dies_first[last->id];
  ev->dies_first[last->id] = v;
}

static nyb_status plan_block(ny_ev *ev, ny_block *b, uint32_t *order, int depth) {
  uint32_t n = 0;
  if (depth > MAX_DEPTH)
    return ny_fail(&ev->cx->diag, NYB_E_LIMIT, NULL, "bodies are nested more than %d deep", MAX_DEPTH);
  for (ny_op *op = b->first; op; op = op->next) {
    order[op->id] = n++;
    for (int i = 0; i < op->n_body; i++) NY_TRY(plan_block(ev, op->body[i], order, depth + 1));
  }
  for (uint32_t i = 0; i < b->n_arg; i++) plan_value(ev, b, b->arg[i], b->first, order);
  for (ny_op *op = b->first; op; op = op->next)
    for (int i = 0; i < op->n_out; i++) plan_value(ev, b, op->out[i], op, order);
  return NYB_OK;
}

static nyb_status plan(ny_ev *ev, ny_block *b) {
  ny_graph *g = ev->g;
  ev->slot = NY_NEW_ARRAY(&ev->scratch, ny_slot, g->next_value + 1);
  ev->dies_first = NY_NEW_ARRAY(&ev->scratch, ny_value *, g->next_op + 1);
  ev->dies_next = NY_NEW_ARRAY(&ev->scratch, ny_value *, g->next_value + 1);
  return plan_block(ev, b, NY_NEW_ARRAY(&ev->scratch, uint32_t, g->next_op + 1), 0);
}

/* ---- The walk */
static nyb_status run_op(ny_ev *ev, ny_op *op);

/* Runs a block and moves what its terminator names into res. */
static nyb_status run_block(ny_ev *ev, ny_block *b, ny_slot *res, int n_res) {
  for (ny_op *op = b->first; op; op = op->next) {
    bool end = (ny_kinds[op->kind].flags & NY_TERM) != 0;
    if (!end) NY_TRY(run_op(ev, op));
    if (end && op->n_in != n_res)
      return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "a body gives %d results, %d are wanted", op->n_in, n_res);
    for (int i = 0; end && i < n_res; i++) {
      NY_TRY(holds(ev, op, ny_in(op, i)));
      res[i] = share(ev->slot[ny_in(op, i)->id]);
    }
    for (ny_value *v = ev->dies_first[op->id]; v; v = ev->dies_next[v->id]) drop(ev, &ev->slot[v->id]);
    if (end) return NYB_OK;
  }
  return ny_fail(&ev->cx->diag, NYB_E_VERIFY, b->parent ? b->parent->loc : NULL,
                 "a block does not end in ret or yield");
}

/* Runs body i of op on arguments, whose references it takes over. */
static nyb_status run_body(ny_ev *ev, ny_op *op, int i, ny_slot *arg, uint32_t n_arg, ny_slot *res, int n_res) {
  if (i >= op->n_body || op->body[i]->n_arg != n_arg || ev->depth >= MAX_DEPTH)
    return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "%s: body %d takes other than %u arguments, or is nested too deeply",
                      ny_kinds[op->kind].name, i, n_arg);
  ny_block *b = op->body[i];
  for (uint32_t k = 0; k < n_arg; k++) {
    bind_type(ev, b->arg[k]->type, arg[k].t.type);
    NY_TRY(match(ev, op->loc, "a body's argument", b->arg[k]->name ? b->arg[k]->name : "", b->arg[k]->type,
                 arg[k].t.type));
    give(ev, b->arg[k], arg[k]);
    arg[k] = (ny_slot){0};
  }
  ev->depth++;
  nyb_status s = run_block(ev, b, res, n_res);
  ev->depth--;
  return s;
}

/* Results of a body become those of op; sizes nobody knew before are known now. */
static nyb_status adopt(ny_ev *ev, ny_op *op, ny_slot *res) {
  for (int i = 0; i < op->n_out; i++) {
    bind_type(ev, op->out[i]->type, res[i].t.type);
    NY_TRY(match(ev, op->loc, "result of", ny_kinds[op->kind].name, op->out[i]->type, res[i].t.type));
    give(ev, op->out[i], res[i]);
  }
  return NYB_OK;
}

static nyb_status run_if(ny_ev *ev, ny_op *op) {
  const ny_tensor *c = &ev->slot[ny_in(op, 0)->id].t;
  if (c->type->fmt != NY_bool || ny_count(c->type) != 1)
    return NY_EV_FAIL(ev, op, NYB_E_TYPE, "if: the condition is not one bool");
  ny_slot *res = ny_ev_tmp(ev, op, op->n_out, sizeof *res);
  if (!res) return ev->cx->diag.code;
  NY_TRY(run_body(ev, op, ny_get_i(NY_bool, c->data, 0) ? 0 : 1, NULL, 0, res, op->n_out));
  return adopt(ev, op, res);
}

static nyb_status run_group(ny_ev *ev, ny_op *op) {
  ny_slot *res = ny_ev_tmp(ev, op, op->n_out, sizeof *res), *arg = ny_ev_tmp(ev, op, op->n_in, sizeof *arg);
  if (!res || !arg) return ev->cx->diag.code;
  for (int i = 0; i < op->n_in; i++) arg[i] = share(ev->slot[ny_in(op, i)->id]);
  NY_TRY(run_body(ev, op, 0, arg, op->n_in, res, op->n_out));
  return adopt(ev, op, res);
}

/* Puts the slice of iteration i into a stacked result, which is made when the first slice shows its shape. */
static nyb_status stack_slice(ny_ev *ev, const ny_op *op, ny_slot *to, const ny_slot *slice, int64_t i, int64_t trip) {
  const ny_type *s = slice->t.type;
  if (!to->t.type) {
    ny_type t = *s;
    if (t.rank == NY_MAX_RANK)
      return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "loop: stacking slices of rank %d exceeds the greatest rank", t.rank);
    memmove(t.dim + 1, t.dim, sizeof t.dim - sizeof *t.dim);
    t.dim[0] = trip, t.rank++;
    NY_TRY(slot_new(ev, op, ny_type_get(ev->cx, t), to));
  }
  const ny_type *t = to->t.type;
  if (t->rank != s->rank + 1 || t->fmt != s->fmt || memcmp(t->dim + 1, s->dim, s->rank * sizeof *s->dim))
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "loop: the slice of iteration %" PRId64 " is not shaped like the first", i);
  uint64_t n = (uint64_t)ny_count(s);
  ny_copy_elems((ny_fmt)s->fmt, to->t.data, (uint64_t)i * n, slice->t.data, 0, n);
  return NYB_OK;
}

static nyb_status run_iteration(ny_ev *ev, ny_op *op, int64_t i, int64_t trip, ny_slot *res, ny_slot *arg) {
  int carried = op->n_in, n = op->n_out;
  NY_TRY(slot_new(ev, op, ny_tensor_type(ev->cx, NY_i64, 0, NULL), &arg[0]));
  ny_put_i(NY_i64, arg[0].t.data, 0, i);
  for (int k = 0; k < carried; k++) arg[k + 1] = res[k], res[k] = (ny_slot){0};
  ny_slot *got = arg + carried + 1;
  NY_TRY(run_body(ev, op, 0, arg, (uint32_t)carried + 1, got, n));
  for (int k = 0; k < carried; k++) res[k] = got[k];
  for (int k = carried; k < n; k++) {
    NY_TRY(stack_slice(ev, op, &res[k], &got[k], i, trip));
    drop(ev, &got[k]);
  }
  return NYB_OK;
}

static nyb_status run_loop(ny_ev *ev, ny_op *op) {
  int carried = op->n_in, n = op->n_out;
  bool cond = op->attr[NY_AT(loop, cond)].i != 0;
  int64_t trip = 0;
  NY_TRY(ny_ev_dim(ev, op, op->attr[NY_AT(loop, trip)].d, &trip));
  if (n < carried || (cond && (!carried || n > carried)))
    return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "loop: %d results of %d carried values", n, carried);
  ny_slot *res = ny_ev_tmp(ev, op, (uint64_t)n, sizeof *res),
          *arg = ny_ev_tmp(ev, op, (uint64_t)(n + carried + 1), sizeof *arg);
  if (!res || !arg) return ev->cx->diag.code;
  memset(res, 0, (size_t)n * sizeof *res);
  memset(arg, 0, (size_t)(n + carried + 1) * sizeof *arg);
  for (int k = 0; k < carried; k++) res[k] = share(ev->slot[ny_in(op, k)->id]);
  for (int64_t i = 0; i < trip; i++) {
    if (cond && (res[0].t.type->fmt != NY_bool || ny_count(res[0].t.type) != 1))
      return NY_EV_FAIL(ev, op, NYB_E_TYPE, "loop: the first carried value is not one bool");
    if (cond && !ny_get_i(NY_bool, res[0].t.data, 0)) break;
    NY_TRY(run_iteration(ev, op, i, trip, res, arg));
  }
  for (int k = carried; k < n; k++) {
    const ny_type *t = NULL;
    if (res[k].t.type) continue;
    NY_TRY(concrete(ev, op, op->out[k]->type, &t));
    NY_TRY(slot_new(ev, op, t, &res[k]));
    if (ny_count(t))
      return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "loop: no iteration, but a stacked result of %" PRId64 " elements",
                        ny_count(t));
  }
  return adopt(ev, op, res);
}

/* Where a result can be its operand's memory (or a model's), nothing is copied. */
static bool aliases(const ny_op *op, const ny_tensor *in, const ny_type *to, ny_slot *out) {
  uint64_t bytes = ny_fmt_bytes((ny_fmt)to->fmt, (uint64_t)ny_count(to));
  if (op->kind == NY_const) {
    const ny_blob *b = op->attr[NY_AT(const, data)].blob;
    if (!b || b->bytes < bytes) return false;
    /* evaluation never writes to a borrowed slot */
    *out = (ny_slot){{to, (void *)(uintptr_t)b->data}, NULL};
    return true;
  }
  return op->kind == NY_reshape && ny_count(in->type) == ny_count(to) && in->type->fmt == to->fmt;
}

static nyb_status run_leaf(ny_ev *ev, ny_op *op) {
  ny_tensor *in = ny_ev_tmp(ev, op, op->n_in, sizeof *in), *out = ny_ev_tmp(ev, op, op->n_out, sizeof *out);
  if (!in || !out) return ev->cx->diag.code;
  for (int i = 0; i < op->n_in; i++) in[i] = ev->slot[ny_in(op, i)->id].t;
  for (int i = 0; i < op->n_out; i++) {
    const ny_type *t = NULL;
    uint64_t bytes = 0;
    ny_slot s = {0};
    NY_TRY(concrete(ev, op, op->out[i]->type, &t));
    NY_TRY(storage(ev, op->loc, ny_kinds[op->kind].name, t, &bytes));
    if (aliases(op, in, t, &s)) {
      if (op->kind == NY_reshape) s = share(ev->slot[ny_in(op, 0)->id]), s.t.type = t;
      give(ev, op->out[i], s);
      return NYB_OK;
    }
    NY_TRY(slot_new(ev, op, t, &s));
    give(ev, op->out[i], s);
    out[i] = s.t;
  }
  return eval_fn[op->kind](ev, op, in, out);
}

static nyb_status run_op(ny_ev *ev, ny_op *op) {
  ny_buf *mark = ev->tmps;
  nyb_status s = NYB_OK;
  for (int i = 0; i < op->n_in && !s; i++) s = holds(ev, op, ny_in(op, i));
  if (s) return s;
  if (op->kind == NY_if)
    s = run_if(ev, op);
  else if (op->kind == NY_loop)
    s = run_loop(ev, op);
  else if (op->kind == NY_group)
    s = run_group(ev, op);
  else if (eval_fn[op->kind])
    s = run_leaf(ev, op);
  else
    s = NY_EV_FAIL(ev, op, NYB_E_VERIFY, "%s does not stand at graph level", ny_kinds[op->kind].name);
  free_tmps(ev, mark);
  return s;
}

/* ---- Entries */
static void ev_begin(ny_ev *ev, ny_graph *g, uint64_t limit) { *ev = (ny_ev){.g = g, .cx = g->cx, .limit = limit}; }

static void ev_end(ny_ev *ev) {
  while (ev->tmps) ev->tmps->refs = 1, unref(ev, ev->tmps);
  while (ev->bufs) ev->bufs->refs = 1, unref(ev, ev->bufs);
  ny_arena_free(&ev->scratch);
}

static nyb_status keep(ny_ev *ev, const ny_slot *s, ny_arena *a, ny_tensor *out) {
  uint64_t bytes = 0;
  NY_TRY(storage(ev, NULL, "a result", s->t.type, &bytes));
  if (bytes > ev->limit || ev->live > ev->limit - bytes)
    return ny_fail(&ev->cx->diag, NYB_E_LIMIT, NULL,
                   "a result needs %" PRIu64 " bytes beside %" PRIu64 " in use; the limit is %" PRIu64, bytes, ev->live,
                   ev->limit);
  ev->live += bytes; /* held by the caller's arena from here on */
  *out = (ny_tensor){s->t.type, ny_alloc(a, bytes ? bytes : 1)};
  memcpy(out->data, s->t.data, bytes);
  return NYB_OK;
}

static nyb_status take_inputs(ny_ev *ev, const ny_tensor *in, size_t n_in) {
  ny_block *b = &ev->g->body;
  if (n_in != b->n_arg)
    return ny_fail(&ev->cx->diag, NYB_E_ARGUMENT, NULL, "%zu inputs given, the graph has %u", n_in, b->n_arg);
  for (size_t i = 0; i < n_in; i++) bind_type(ev, b->arg[i]->type, in[i].type);
  for (size_t i = 0; i < n_in; i++) {
    uint64_t bytes = 0;
    char number[32];
    snprintf(number, sizeof number, "%zu", i);
    const char *name = b->arg[i]->name ? b->arg[i]->name : number;
    NY_TRY(match(ev, NULL, "input", name, b->arg[i]->type, in[i].type));
    NY_TRY(storage(ev, NULL, name, in[i].type, &bytes));
    ev->slot[b->arg[i]->id] = (ny_slot){in[i], NULL};
  }
  return NYB_OK;
}

static nyb_status eval_graph(ny_ev *ev, const ny_tensor *in, size_t n_in, ny_arena *a, ny_tensor *out, size_t n_out) {
  ny_slot *res = NY_NEW_ARRAY(&ev->scratch, ny_slot, n_out + 1);
  if (n_out > INT32_MAX) return ny_fail(&ev->cx->diag, NYB_E_ARGUMENT, NULL, "%zu outputs wanted", n_out);
  NY_TRY(plan(ev, &ev->g->body));
  NY_TRY(take_inputs(ev, in, n_in));
  NY_TRY(run_block(ev, &ev->g->body, res, (int)n_out));
  for (size_t i = 0; i < n_out; i++) {
    NY_TRY(keep(ev, &res[i], a, &out[i]));
    drop(ev, &res[i]);
  }
  return NYB_OK;
}

nyb_status ny_eval_graph(ny_graph *g, const ny_tensor *in, size_t n_in, ny_arena *a, uint64_t limit, ny_tensor *out,
                         size_t n_out) {
  ny_ev ev;
  ev_begin(&ev, g, limit);
  nyb_status s = eval_graph(&ev, in, n_in, a, out, n_out);
  ev_end(&ev);
  return s;
}

/* An op with bodies runs as in a graph; any other needs no plan and writes straight into the caller's arena. */
static nyb_status eval_op(ny_ev *ev, ny_op *op, const ny_tensor *in, ny_arena *a, ny_tensor *out) {
  for (int i = 0; i < op->n_in; i++) bind_type(ev, ny_in(op, i)->type, in[i].type);
  for (int i = 0; i < op->n_in; i++)
    NY_TRY(match(ev, op->loc, "operand of", ny_kinds[op->kind].name, ny_in(op, i)->type, in[i].type));
  if (op->n_body) {
    NY_TRY(plan(ev, op->parent));
    for (int i = 0; i < op->n_in; i++) ev->slot[ny_in(op, i)->id] = (ny_slot){in[i], NULL};
    NY_TRY(run_op(ev, op));
    for (int i = 0; i < op->n_out; i++) NY_TRY(keep(ev, &ev->slot[op->out[i]->id], a, &out[i]));
    return NYB_OK;
  }
  if (!eval_fn[op->kind]) return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "%s has no value by itself", ny_kinds[op->kind].name);
  for (int i = 0; i < op->n_out; i++) {
    uint64_t bytes = 0;
    NY_TRY(concrete(ev, op, op->out[i]->type, &out[i].type));
    NY_TRY(storage(ev, op->loc, ny_kinds[op->kind].name, out[i].type, &bytes));
    out[i].data = ny_alloc(a, bytes ? bytes : 1);
  }
  return eval_fn[op->kind](ev, op, in, out);
}

nyb_status ny_eval_op(ny_graph *g, ny_op *op, const ny_tensor *in, ny_arena *a, ny_tensor *out) {
  ny_ev ev;
  ev_begin(&ev, g, UINT64_MAX);
  nyb_status s = eval_op(&ev, op, in, a, out);
  ev_end(&ev);
  return s;
}

nyb_status ny_eval_kernel(ny_graph *k, const ny_tensor *buffer, size_t n, const ny_binding *env, size_t n_env) {
  ny_ev ev;
  ev_begin(&ev, k, UINT64_MAX);
  for (size_t i = 0; i < n_env; i++) bind(&ev, env[i].sym, env[i].value);
  nyb_status s = ny_kernel_run(&ev, k, buffer, n, 0, NULL);
  ev_end(&ev);
  return s;
}
