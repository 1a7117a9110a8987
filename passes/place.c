/* place: every buffer gets an offset in one arena. A buffer is a launch's result, an if's or loop's result, or a loop's
   iteration number; reshapes are other names of a buffer; a result may take over the buffer of an input that dies there
   when its kernel allows (knob inplace).
   1. One walk numbers the ops of all blocks in execution order and gives every buffer its life [first, last]: what a
   loop body reads of the outside lives until the loop ends, what a loop carries lives from before it.
   2. Larger buffers first, each goes to the lowest offset among 0 and the ends of the buffers that live at the same
   time, at which it provably overlaps none of them for all sizes of the symbols; above all of them if nothing lower can
   be proven. Where the offsets become too large to express, they are computed from bounds of the sizes instead
   (place_bound.c). A graph output made by a launch of the main block, whose buffer is not shared, is written straight
   to the caller's memory (offset -1). */
#include <stdlib.h>
#include <string.h>

#include "place.h"

typedef struct buffer {
  int first, last;
  ny_dim bytes, off, end;
  int64_t nominal, at;
  bool direct; /* the caller's memory */
} buffer;
typedef struct placer {
  ny_pass_cx *px;
  ny_graph *g;
  ny_arena *a;
  buffer *buf;
  int n, cap, clock;
  ny_bounds *bounds; /* sizes are bounds, see place_bound.c; NULL: exact */
  int *of;           /* by value id: buffer, or -1 */
  int *at;           /* by op id: its time */
  int *end;          /* by op id: the time its bodies end */
} placer;

static ny_dim rounded(ny_ctx *cx, ny_dim bytes) {
  return ny_dim_mul(cx, ny_dim_ceildiv(cx, bytes, NY_PLACE_ALIGN), NY_PLACE_ALIGN);
}

static int64_t nominal(placer *p, ny_dim d) {
  ny_name *sym = NULL;
  size_t n = 0, cap = 0;
  int64_t v = 0;
  ny_dim_symbols(p->g->cx, d, &sym, &n, &cap, p->a);
  ny_binding *env = NY_NEW_ARRAY(p->a, ny_binding, n + 1);
  for (size_t i = 0; i < n; i++) env[i] = (ny_binding){sym[i], NY_PLACE_NOMINAL};
  const int64_t most = INT64_C(1) << 44; /* so that sums of many do not overflow */
  return ny_dim_eval(p->g->cx, d, env, n, &v) && v < most ? v : most;
}

static int new_buffer(placer *p, const ny_type *t, int time) {
  NY_PUSH_ROOM(p->a, p->buf, p->n, p->cap);
  ny_dim bytes = rounded(p->g->cx, ny_type_bytes(p->g->cx, t));
  p->buf[p->n] = (buffer){.first = time, .last = time, .bytes = bytes, .nominal = nominal(p, bytes)};
  return p->n++;
}

static bool alias(const ny_op *op) { return op->kind == NY_reshape || op->kind == NY_bitcast; }

/* The time until which a value of block `home` lives when `user` reads it: the end of the outermost loop between them.
 */
static int read_time(const placer *p, const ny_block *home, const ny_op *user) {
  int t = p->at[user->id];
  for (const ny_op *op = user; op->parent != home && op->parent->parent; op = op->parent->parent)
    if (op->parent->parent->kind == NY_loop || op->parent->parent->kind == NY_if) {
      int e = p->end[op->parent->parent->id];
      if (op->parent->parent->kind == NY_loop && e > t) t = e;
    }
  return t;
}

static void number(placer *p, ny_block *b) {
  for (ny_op *op = b->first; op; op = op->next) {
    p->at[op->id] = p->clock++;
    if (op->kind == NY_group) continue;
    for (int i = 0; i < op->n_body; i++) number(p, op->body[i]);
    p->end[op->id] = p->clock++;
  }
}

static void touch(buffer *b, int time) {
  if (time > b->last) b->last = time;
  if (time < b->first) b->first = time;
}

static void read_by_uses(placer *p, const ny_value *v, const ny_block *home, int buf) {
  for (const ny_use *u = v->uses; u; u = u->next) {
    if (alias(u->user)) read_by_uses(p, u->user->out[0], home, buf);
    touch(&p->buf[buf], read_time(p, home, u->user));
  }
}

/* v starts its own buffer at `time`. */
static int own(placer *p, const ny_value *v, int time) {
  int b = new_buffer(p, v->type, time);
  p->of[v->id] = b;
  read_by_uses(p, v, v->def ? v->def->parent : v->arg_of, b);
  return b;
}

/* The input of this launch whose buffer its result may take over, or -1. */
static int takes_over(placer *p, const ny_op *op) {
  const ny_graph *k = ny_unit_find(p->g->unit, op->attr[NY_AT(launch, kernel)].s);
  int64_t i = k ? ny_knob(k, "inplace", -1) : -1;
  if (i < 0 || i >= op->n_in || op->n_out != 1) return -1;
  for (const ny_use *u = op->out[0]->uses; u; u = u->next)
    if (u->user->kind == NY_ret) return -1; /* the caller's memory is better */
  int b = p->of[ny_in(op, (int)i)->id];
  if (b < 0 || p->buf[b].last != p->at[op->id]) return -1;
  for (int j = 0; j < op->n_in; j++)
    if (j != i && p->of[ny_in(op, j)->id] == b) return -1;
  ny_dim need = rounded(p->g->cx, ny_type_bytes(p->g->cx, op->out[0]->type));
  return p->buf[b].bytes == need ? b : -1;
}

static void place_values(placer *p, ny_block *b);

static void loop_values(placer *p, ny_op *op) {
  int start = p->at[op->id], end = p->end[op->id];
  ny_block *body = op->body[0];
  int number_of = own(p, body->arg[0], start); /* not inside the index: own may move p->buf */
  touch(&p->buf[number_of], end);
  for (int i = 0; i < op->n_out; i++) {
    int b = own(p, op->out[i], start);
    touch(&p->buf[b], end);
    if (i < op->n_in) p->of[body->arg[i + 1]->id] = b;
  }
}

static void launch_values(placer *p, ny_op *op) {
  int b = takes_over(p, op);
  if (b < 0) {
    for (int i = 0; i < op->n_out; i++) own(p, op->out[i], p->at[op->id]);
    return;
  }
  p->of[op->out[0]->id] = b;
  read_by_uses(p, op->out[0], op->parent, b);
}

static void place_values(placer *p, ny_block *b) {
  for (ny_op *op = b->first; op; op = op->next) {
    if (alias(op)) p->of[op->out[0]->id] = p->of[ny_in(op, 0)->id];
    if (op->kind == NY_launch) launch_values(p, op);
    if (op->kind == NY_loop) loop_values(p, op);
    for (int i = 0; op->kind == NY_if && i < op->n_out; i++) {
      int result = own(p, op->out[i], p->at[op->id]);
      touch(&p->buf[result], p->end[op->id]);
    }
    if (op->kind == NY_group) continue;
    for (int i = 0; i < op->n_body; i++) place_values(p, op->body[i]);
  }
}

/* Writes straight to the caller: a launch's own buffer that is one output and nothing else's. */
static void direct_outputs(placer *p) {
  const ny_op *ret = p->g->body.last;
  if (!ret || ret->kind != NY_ret) return;
  int *count = NY_NEW_ARRAY(p->a, int, p->n + 1);
  for (int i = 0; i < ret->n_in; i++)
    if (p->of[ny_in(ret, i)->id] >= 0) count[p->of[ny_in(ret, i)->id]]++;
  for (int i = 0; i < ret->n_in; i++) {
    const ny_value *v = ny_in(ret, i);
    int b = p->of[v->id];
    while (v->def && alias(v->def)) v = ny_in(v->def, 0);
    if (b < 0 || count[b] != 1 || !v->def || v->def->kind != NY_launch || v->def->parent != &p->g->body) continue;
    if (p->buf[b].first == p->at[v->def->id])
      p->buf[b].direct = true; /* not taken over from something with another size or life */
  }
}

static bool both_live(const buffer *x, const buffer *y) { return x->first <= y->last && y->first <= x->last; }

/* d as coef * rest, where that can be seen at once. */
static ny_dim split(const ny_ctx *cx, ny_dim d, int64_t *coef) {
  const ny_dim_node *n = ny_dim_get(cx, d);
  *coef = 1;
  if (n->kind != NY_DIM_MUL || (n->a < 0) == (n->b < 0)) return d;
  *coef = n->a >= 0 ? n->a : n->b;
  return n->a >= 0 ? n->b : n->a;
}

/* a <= b for all sizes. Asked for every pair of buffers that live together, so what needs no algebra goes first. */
static bool at_most(ny_ctx *cx, ny_dim a, ny_dim b) {
  int64_t lo, hi, ka, kb;
  if (a == b || a == 0) return true; /* offsets are not negative */
  if (a >= 0 && b >= 0) return a <= b;
  if (a < 0 && b < 0 && a != NY_DIM_INVALID && b != NY_DIM_INVALID && split(cx, a, &ka) == split(cx, b, &kb))
    return ka <= kb;
  ny_dim d = ny_dim_sub(cx, b, a);
  if (d == NY_DIM_INVALID) return false;
  ny_dim_bounds(cx, d, &lo, &hi);
  return lo >= 0;
}

static ny_dim larger(const placer *p, ny_dim a, ny_dim b) {
  ny_ctx *cx = p->g->cx;
  if (a == NY_DIM_INVALID || b == NY_DIM_INVALID) return NY_DIM_INVALID;
  if (at_most(cx, a, b)) return b;
  if (at_most(cx, b, a)) return a;
  return p->bounds ? ny_place_max(cx, a, b) : ny_dim_max(cx, a, b);
}

/* `live`: the placed buffers that live at the same time as b, by nominal offset. */
static bool fits(placer *p, const buffer *b, ny_dim off, int64_t at, const int *live, int n) {
  ny_ctx *cx = p->g->cx;
  ny_dim end = ny_dim_add(cx, off, b->bytes);
  for (int i = 0; i < n; i++) {
    const buffer *q = &p->buf[live[i]];
    bool above = at + b->nominal <= q->at; /* what does not hold at nominal sizes cannot be proven for all */
    if (!(above ? at_most(cx, end, q->off) : at_most(cx, q->end, off))) return false;
  }
  return true;
}

static bool take(placer *p, buffer *b, ny_dim off, int64_t at, const int *live, int n) {
  if (off == NY_DIM_INVALID || !fits(p, b, off, at, live, n)) return false;
  b->off = off;
  b->at = at;
  return true;
}

/* Goes up through the gaps as the nominal sizes show them, until one holds b for all sizes; few are tried, since proof
 * is dear. */
static void choose(placer *p, buffer *b, const int *live, int n) {
  enum { TRIES = 6 };
  ny_dim off = 0, top = 0;
  int64_t at = 0;
  int tries = 0;
  for (int i = 0; i < n; i++) {
    const buffer *q = &p->buf[live[i]];
    if (q->at - at >= b->nominal && tries++ < TRIES && take(p, b, off, at, live, n)) return;
    if (q->at + q->nominal > at) at = q->at + q->nominal, off = q->end;
  }
  if (take(p, b, off, at, live, n)) return;
  for (int i = 0; i < n; i++) top = larger(p, top, p->buf[live[i]].end);
  b->off = top;
  b->at = nominal(p, top);
}

typedef struct ranked {
  int64_t size;
  int index;
} ranked;

static int by_rank(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  return x->size != y->size ? (x->size > y->size ? -1 : 1) : x->index - y->index;
}

static ranked *by_size(placer *p) {
  ranked *r = NY_NEW_ARRAY(p->a, ranked, p->n + 1);
  for (int i = 0; i < p->n; i++) r[i] = (ranked){p->buf[i].nominal, i};
  qsort(r, (size_t)p->n, sizeof *r, by_rank);
  return r;
}

/* Into the list of placed buffers, which is kept by nominal offset. */
static void insert(const placer *p, int *done, int n, int index) {
  for (; n > 0 && p->buf[done[n - 1]].at > p->buf[index].at; n--) done[n] = done[n - 1];
  done[n] = index;
}

/* False when an offset or the whole cannot be expressed: several independent symbols make maxima of sums of maxima. */
static bool assign(placer *p) {
  int *done = NY_NEW_ARRAY(p->a, int, p->n + 1), *live = NY_NEW_ARRAY(p->a, int, p->n + 1), n_done = 0;
  const ranked *order = by_size(p);
  ny_dim top = 0;
  for (int i = 0; i < p->n; i++) {
    buffer *b = &p->buf[order[i].index];
    if (b->direct) continue;
    if (p->bounds) b->bytes = ny_bounds_of(p->bounds, b->bytes);
    if (b->bytes == NY_DIM_INVALID) return false;
    int n = 0;
    for (int j = 0; j < n_done; j++)
      if (both_live(b, &p->buf[done[j]])) live[n++] = done[j];
    choose(p, b, live, n);
    insert(p, done, n_done++, order[i].index);
    if (b->off == NY_DIM_INVALID) return false;
    ny_dim end = b->end = ny_dim_add(p->g->cx, b->off, b->bytes);
    top = end == NY_DIM_INVALID ? end : larger(p, top, end);
    if (top == NY_DIM_INVALID) return false;
  }
  p->g->arena_bytes = top;
  return true;
}

static ny_dim offset_of(const placer *p, const ny_value *v) {
  const buffer *b = &p->buf[p->of[v->id]];
  return b->direct ? ny_dim_const(p->g->cx, -1) : b->off;
}

static nyb_status write_back(void *user, ny_op *op) {
  placer *p = user;
  int slot = op->kind == NY_launch ? NY_AT(launch, off)
             : op->kind == NY_if   ? NY_AT(if, off)
             : op->kind == NY_loop ? NY_AT(loop, off)
                                   : -1;
  if (slot < 0) return NYB_OK;
  int extra = op->kind == NY_loop, n = op->n_out + extra;
  ny_dim *off = NY_NEW_ARRAY(p->a, ny_dim, n + 1);
  if (extra) off[0] = offset_of(p, op->body[0]->arg[0]);
  for (int i = 0; i < op->n_out; i++) off[i + extra] = offset_of(p, op->out[i]);
  op->attr[slot] = ny_dims_attr(p->g, off, (size_t)n);
  return NYB_OK;
}

nyb_status ny_pass_place(ny_pass_cx *px, ny_graph *g, bool *changed) {
  placer p = {.px = px, .g = g, .a = &px->scratch};
  p.of = NY_NEW_ARRAY(p.a, int, g->next_value + 1);
  p.at = NY_NEW_ARRAY(p.a, int, g->next_op + 1);
  p.end = NY_NEW_ARRAY(p.a, int, g->next_op + 1);
  for (uint32_t i = 0; i < g->next_value; i++) p.of[i] = -1;
  number(&p, &g->body);
  place_values(&p, &g->body);
  direct_outputs(&p);
  if (!assign(&p)) {
    p.bounds = ny_bounds_new(g->cx, p.a);
    for (int i = 0; i < p.n; i++) ny_bounds_see(p.bounds, p.buf[i].bytes);
    if (!assign(&p))
      return ny_fail(&g->cx->diag, NYB_E_LIMIT, NULL,
                     "the activation memory of the graph cannot be expressed: its sizes overflow");
  }
  NY_TRY(ny_walk(&g->body, write_back, &p));
  *changed = true;
  return NYB_OK;
}
