/* merge: on a GPU, launches that follow one another and whose work one block does in about the time a launch takes become one kernel that calls theirs. A model of many
   tiny ops is launches and little else.
   The kernel's arguments are what the called ones read from outside and then everything they write: each result keeps memory of its own, because the results of one launch
   live at the same time. So nothing a call reads or writes overlaps anything else, whatever sizes symbols have, and the order of calls is all that has to be kept.
   Sizes that are symbols decide at run time: `fits` is 0 where the work is too much for one block, and then the called kernels are launched as if this pass had not been. */
#include <string.h>

#include "merge.h"

typedef struct merged { /* a kernel and its text without the name */
  ny_graph *k;
  ny_text text;
  struct merged *next;
} merged;
typedef struct merger {
  ny_pass_cx *px;
  ny_graph *g;
  merged *made;
  ny_op *run[NY_MERGE_MEMBERS];
  int n;
  ny_dim cost; /* of the run */
  int ops;     /* of its kernels' texts */
  ny_value *outer[NY_MERGE_ARGS];
  int n_outer, n_result;
  bool changed;
} merger;


static ny_graph *kernel_of(const merger *m, const ny_op *launch) { return ny_unit_find(m->g->unit, launch->attr[NY_AT(launch, kernel)].s); }

/* ---- what may be a member */
static bool is_view(const ny_op *op) { return op->kind == NY_reshape || op->kind == NY_bitcast; }

/* The value whose memory v is. */
static ny_value *root(ny_value *v) {
  while (v->def && is_view(v->def)) v = ny_in(v->def, 0);
  return v;
}

static bool in_run(const merger *m, const ny_value *v) {
  for (int i = 0; i < m->n; i++)
    if (v->def == m->run[i]) return true;
  return false;
}

/* The arguments that the run would have with this launch. */
static int new_outer(const merger *m, const ny_op *op, ny_value **list) {
  int n = 0;
  for (int i = 0; i < op->n_in; i++) {
    ny_value *v = ny_in(op, i);
    bool known = in_run(m, root(v));
    for (int k = 0; k < m->n_outer; k++) known |= m->outer[k] == v;
    for (int k = 0; k < n; k++) known |= list[k] == v;
    if (!known) list[n++] = v;
  }
  return n;
}

/* A size of which nothing is known, and that decides what is worth a kernel: a batch is one, which is the first dimension of what has others too; else as merge.h says,
   and at least so large that this kernel has something to do. `fits` decides about the sizes that come. */
static bool is_batch(const merger *m, ny_name sym) {
  const ny_block *b = &m->g->body;
  for (uint32_t i = 0; i < b->n_arg; i++)
    if (b->arg[i]->type->rank > 1 && b->arg[i]->type->dim[0] == ny_dim_sym(m->g->cx, sym)) return true;
  return false;
}

static bool empty(const merger *m, const ny_graph *k, const ny_binding *env, size_t n) {
  int64_t points;
  return !ny_dim_eval(m->g->cx, ny_kernel_extent(k), env, n, &points) || points < 1;
}

static bool small_at_usual_sizes(const merger *m, const ny_graph *k, ny_dim cost) {
  ny_ctx *cx = m->g->cx;
  ny_name *sym = NULL;
  size_t n = 0, cap = 0;
  int64_t ns;
  if (cost == NY_DIM_INVALID) return false;
  ny_kernel_symbols(k, &m->px->scratch, &sym, &n);
  cap = n;
  ny_dim_symbols(cx, cost, &sym, &n, &cap, &m->px->scratch);
  ny_binding *env = NY_NEW_ARRAY(&m->px->scratch, ny_binding, n + 1);
  for (size_t i = 0; i < n; i++) env[i] = (ny_binding){sym[i], is_batch(m, sym[i]) ? 1 : NY_MERGE_USUAL};
  for (int64_t at = NY_MERGE_USUAL; at <= 1024 && empty(m, k, env, n); at *= 2)
    for (size_t i = 0; i < n; i++)
      if (env[i].value == at) env[i].value *= 2;
  return ny_dim_eval(cx, cost, env, n, &ns) && ns <= NY_MERGE_SMALL;
}

/* Indices of 64 bits are for buffers that are not small. */
static bool is_wide(const ny_ctx *cx, const ny_graph *k) {
  int64_t n;
  for (uint32_t i = 0; i < k->body.n_arg; i++)
    if (ny_type_static_count(cx, k->body.arg[i]->type, &n) && n >= ((int64_t)1 << 31) - (1 << 24)) return true;
  return false;
}

static bool may_join(const merger *m, const ny_op *op, ny_dim *cost) {
  ny_graph *k = kernel_of(m, op);
  *cost = NY_DIM_INVALID;
  if (!k || op->n_in + op->n_out > NY_MERGE_ARGS || ny_kernel_calls(k) || is_wide(m->g->cx, k)) return false;
  if (ny_knob(k, "threads", 1) > NY_MERGE_BLOCK || ny_merge_ops(k) > NY_MERGE_TEXT) return false;
  *cost = ny_merge_cost(k, &m->px->scratch);
  return small_at_usual_sizes(m, k, *cost);
}

static bool has_room(const merger *m, const ny_op *op) {
  ny_value *list[NY_MERGE_ARGS];
  return m->n < NY_MERGE_MEMBERS && m->ops + ny_merge_ops(kernel_of(m, op)) <= NY_MERGE_TEXT &&
         m->n_outer + new_outer(m, op, list) + m->n_result + op->n_out <= NY_MERGE_ARGS;
}

static void join(merger *m, ny_op *op, ny_dim cost) {
  ny_value *list[NY_MERGE_ARGS];
  int n = new_outer(m, op, list);
  memcpy(m->outer + m->n_outer, list, sizeof *list * (size_t)n);
  m->n_outer += n;
  m->n_result += op->n_out;
  m->run[m->n++] = op;
  m->cost = ny_dim_add(m->g->cx, m->cost, cost);
  m->ops += ny_merge_ops(kernel_of(m, op));
}

/* ---- the kernel */
static int argument_of(const merger *m, ny_value *v) {
  ny_value *r = root(v);
  int at = m->n_outer;
  for (int i = 0; i < m->n_outer; i++)
    if (m->outer[i] == v) return i;
  for (int i = 0; i < m->n; i++) {
    if (r->def == m->run[i]) return at + (int)r->index;
    at += m->run[i]->n_out;
  }
  return -1;
}

static void add_argument(merger *m, ny_graph *k, const ny_value *v) {
  ny_type t = *v->type;
  t.space = NY_GLOBAL;
  ny_block_arg(k, &k->body, ny_type_get(m->g->cx, t), NULL);
}

static void add_call(merger *m, ny_graph *k, ny_op *launch) {
  ny_value *arg[NY_MERGE_ARGS];
  int n = 0;
  for (int i = 0; i < launch->n_in; i++) arg[n++] = k->body.arg[argument_of(m, ny_in(launch, i))];
  for (int i = 0; i < launch->n_out; i++) arg[n++] = k->body.arg[argument_of(m, launch->out[i])];
  ny_op *call = ny_op_new(k, &k->body, NY_call, arg, n, NULL, 0);
  call->attr[NY_AT(call, kernel)].s = launch->attr[NY_AT(launch, kernel)].s;
}

/* Threads of the block: as many as the widest member finds work for. */
static int64_t block_of(const merger *m) {
  int64_t most = 64;
  for (int i = 0; i < m->n; i++) {
    const ny_graph *k = kernel_of(m, m->run[i]);
    int64_t points, t = ny_knob(k, "threads", 1), want = NY_MERGE_BLOCK;
    if (ny_dim_is_const(m->g->cx, ny_kernel_extent(k), &points) && points < NY_MERGE_BLOCK) want = points * t;
    while (most < want && most < NY_MERGE_BLOCK) most *= 2;
    while (most < t) most *= 2;
  }
  return most;
}

static ny_graph *make_kernel(merger *m) {
  ny_graph *k = ny_graph_new(m->g->unit, ny_intern(&m->g->cx->names, "k"), true);
  k->family = ny_intern(&m->g->cx->names, "merged");
  ny_knob_set(k, "tpb", block_of(m));
  for (int i = 0; i < m->n_outer; i++) add_argument(m, k, m->outer[i]);
  for (int i = 0; i < m->n; i++)
    for (int o = 0; o < m->run[i]->n_out; o++) add_argument(m, k, m->run[i]->out[o]);
  for (int i = 0; i < m->n; i++) add_call(m, k, m->run[i]);
  ny_op_new(k, &k->body, NY_ret, NULL, 0, NULL, 0);
  return k;
}

/* merged_5_map_relu_f32: how many, and the first. */
static ny_name name_of(const merger *m) {
  ny_text t = {0};
  ny_name name = NULL;
  for (int i = 1; !name || ny_unit_find(m->g->unit, name); i++) {
    t.n = 0;
    ny_text_addf(&t, "merged_%d_%.80s", m->n, kernel_of(m, m->run[0])->name);
    if (i > 1) ny_text_addf(&t, "_%d", i);
    name = ny_intern(&m->g->cx->names, t.s);
  }
  ny_text_free(&t);
  return name;
}

/* k, or an equal one. Where its ops come from stands in the first only, and after the comparison. */
static ny_graph *shared(merger *m, ny_graph *k) {
  ny_text t = {0};
  ny_print_graph(k, &t);
  for (merged *e = m->made; e; e = e->next)
    if (e->text.n == t.n && !memcmp(e->text.s, t.s, t.n)) {
      ny_text_free(&t);
      ny_graph_drop(k);
      return e->k;
    }
  merged *e = NY_NEW(&m->px->scratch, merged);
  *e = (merged){k, t, m->made};
  m->made = e;
  k->name = name_of(m);
  int i = 0;
  for (ny_op *op = k->body.first; op && i < m->n; op = op->next) op->loc = m->run[i++]->loc;
  return k;
}

/* ---- the launch */
/* Views of what the run makes go behind it. */
static void move_views(merger *m, ny_op *launch) {
  ny_op *last = launch;
  for (ny_op *op = m->run[0]->next, *next; op != launch; op = next) {
    next = op->next;
    if (!is_view(op) || !in_run(m, root(op->out[0]))) continue;
    ny_move(op, op->parent, last->next);
    last = op;
  }
}

static ny_op *make_launch(merger *m, const ny_graph *k, ny_dim fits) {
  const ny_type *type[NY_MERGE_ARGS];
  int n = 0;
  for (int i = 0; i < m->n; i++)
    for (int o = 0; o < m->run[i]->n_out; o++) type[n++] = m->run[i]->out[o]->type;
  ny_builder b = {.g = m->g, .block = m->run[0]->parent, .before = m->run[m->n - 1], .loc = m->run[m->n - 1]->loc};
  ny_op *l = ny_build(&b, NY_launch, m->outer, m->n_outer, type, n);
  if (!l) return NULL;
  ny_move(l, l->parent, m->run[m->n - 1]->next);
  l->attr[NY_AT(launch, kernel)].s = k->name;
  l->attr[NY_AT(launch, fits)].d = fits;
  return l;
}

static void replace_run(merger *m, ny_op *l) {
  int n = 0;
  move_views(m, l);
  for (int i = 0; i < m->n; i++)
    for (int o = 0; o < m->run[i]->n_out; o++, n++) {
      l->out[n]->name = m->run[i]->out[o]->name;
      ny_replace(m->run[i]->out[o], l->out[n]);
    }
  for (int i = m->n; i-- > 0;) ny_erase(m->run[i]);
}

static nyb_status flush(merger *m) {
  ny_ctx *cx = m->g->cx;
  ny_dim fits = m->n > 1 ? ny_dim_lt(cx, m->cost, (m->n - 1) * NY_MERGE_LAUNCH + 1) : NY_DIM_INVALID;
  if (fits != NY_DIM_INVALID && fits != 0) {
    ny_op *l = make_launch(m, shared(m, make_kernel(m)), fits);
    if (!l) return cx->diag.code;
    replace_run(m, l);
    m->changed = true;
  }
  m->n = m->n_outer = m->n_result = m->ops = 0;
  m->cost = 0;
  return cx->diag.code;
}

static bool passes_by(const ny_op *op) {
  return is_view(op) || op->kind == NY_const || op->kind == NY_require || op->kind == NY_precision || op->kind == NY_group;
}

static nyb_status merge_block(void *user, ny_block *b) {
  merger *m = user;
  if (b->parent && b->parent->kind == NY_group) return NYB_OK;
  for (ny_op *op = b->first, *next; op; op = next) {
    ny_dim cost;
    next = op->next;
    if (passes_by(op)) continue;
    bool joins = op->kind == NY_launch && may_join(m, op, &cost);
    if (m->n && (!joins || !has_room(m, op))) NY_TRY(flush(m));
    if (joins && has_room(m, op)) join(m, op, cost);
  }
  return flush(m);
}

nyb_status ny_pass_merge(ny_pass_cx *px, ny_graph *g, bool *changed) {
  if (!ny_on_gpu(px->target)) return NYB_OK;
  merger m = {.px = px, .g = g};
  nyb_status s = ny_each_block(&g->body, &m, merge_block);
  for (merged *e = m.made; e; e = e->next) ny_text_free(&e->text);
  if (m.changed) ny_drop_dead(&g->body);
  *changed = *changed || m.changed;
  return s;
}
