/* fuse: decides what becomes one kernel. At -O0 every op is a group of its own. From -O1, in this order:
   1. a contraction takes the elementwise ops that follow it on values of its result's shape (bias, activation, residual
   sum, casts), and the transposes of its operands that it reads as cheaply as anything else (see ny_accept_operand);
   2. a reduction over trailing dims takes the reductions and elementwise ops over the same rows after it, then the
   elementwise ops before it; a reduction over other dims takes what is elementwise on its result, and its elementwise
   input;
   3. what is left are expressions (elementwise ops, views, gathers): from the last op backwards each takes the
   producers that nothing else uses, and copies of those that are cheap to compute again. No cluster may depend on
   something that depends on it: forward growth keeps a taint of what depends on the cluster from outside, backward
   growth takes only ops whose every use is inside. reshape and bitcast between groups stay outside: they cost nothing
   there. */
#include "fuse.h"

#include <string.h>

enum { MAX_MEMBERS = 96, MAX_INPUTS = 24, WINDOW = 160 };

int ny_fuse_pos(const ny_fuse *f, const ny_value *v) { return v->def ? f->pos[v->def->id] : -1; }

ny_cluster *ny_fuse_open(ny_fuse *f, ny_op *seed, const char *family) {
  NY_PUSH_ROOM(&f->px->scratch, f->list, f->n_list, f->cap_list);
  ny_cluster *c = &f->list[f->n_list++];
  *c = (ny_cluster){.family = family, .seed = seed};
  ny_fuse_add(f, c, seed);
  return c;
}

void ny_fuse_add(ny_fuse *f, ny_cluster *c, ny_op *op) {
  NY_PUSH_ROOM(&f->px->scratch, c->member, c->n, c->cap);
  c->member[c->n++] = op;
  f->cluster[f->pos[op->id]] = (int)(c - f->list);
}

bool ny_fuse_free(const ny_fuse *f, const ny_op *op) { return f->pos[op->id] >= 0 && f->cluster[f->pos[op->id]] < 0; }
bool ny_fuse_has(const ny_fuse *f, const ny_cluster *c, const ny_op *op) {
  int p = f->pos[op->id];
  return p >= 0 && f->cluster[p] == (int)(c - f->list);
}

bool ny_fuse_all_uses_in(const ny_fuse *f, const ny_cluster *c, const ny_op *op) {
  for (int i = 0; i < op->n_out; i++)
    for (const ny_use *u = op->out[i]->uses; u; u = u->next)
      if (!ny_fuse_has(f, c, u->user)) return false;
  return true;
}

typedef struct reads {
  const ny_fuse *f;
  const ny_cluster *c;
  bool member, tainted;
} reads;

static void look(reads *r, const ny_op *op) {
  for (int i = 0; i < op->n_in; i++) {
    int p = ny_fuse_pos(r->f, ny_in(op, i));
    if (p < 0) continue;
    r->member |= ny_fuse_has(r->f, r->c, r->f->op[p]);
    r->tainted |= r->f->taint[p] != 0;
  }
  for (int b = 0; b < op->n_body; b++)
    for (const ny_op *in = op->body[b]->first; in; in = in->next) look(r, in);
}

static int live_outs(const ny_fuse *f, const ny_cluster *c) {
  int n = 0;
  for (size_t i = 0; i < c->n; i++) n += !ny_fuse_all_uses_in(f, c, c->member[i]);
  return n;
}

/* Codes and their scales are two results of one kernel. The group stands at position `at`, so nobody may read either before. */
static bool gives_codes(const ny_fuse *f, const ny_cluster *c, const ny_op *op, int at) {
  if (c->seed->kind != NY_reduce || op->kind != NY_cast) return false;
  for (size_t i = 0; i < c->n; i++) {
    if (ny_fuse_all_uses_in(f, c, c->member[i])) continue;
    const ny_value *v = c->member[i]->out[0];
    if (!ny_is_float((ny_fmt)v->type->fmt) || ny_fmts[v->type->fmt].bits > 8) return false;
    for (const ny_use *u = v->uses; u; u = u->next)
      if (!ny_fuse_has(f, c, u->user) && f->pos[u->user->id] < at) return false;
  }
  return live_outs(f, c) == 2;
}

void ny_fuse_forward(ny_fuse *f, ny_cluster *c, ny_accept_fn *accept) {
  int start = f->pos[c->seed->id], last = start, p = start + 1;
  size_t best = 1;
  for (; p < f->n && p - last < WINDOW && c->n < MAX_MEMBERS; p++) {
    ny_op *op = f->op[p];
    reads r = {.f = f, .c = c};
    look(&r, op);
    if (!r.member && !r.tainted) continue;
    if (r.tainted || !ny_fuse_free(f, op) || op->n_body || !accept(f, c, op)) {
      f->taint[p] = 1;
      continue;
    }
    ny_fuse_add(f, c, op);
    if (live_outs(f, c) == 1 || gives_codes(f, c, op, p)) best = c->n, last = p;
  }
  while (c->n > best) f->cluster[f->pos[c->member[--c->n]->id]] = -1;
  memset(f->taint + start, 0, (size_t)(p - start));
}

static int inputs(const ny_fuse *f, const ny_cluster *c) {
  int n = 0;
  for (size_t i = 0; i < c->n; i++)
    for (int j = 0; j < c->member[i]->n_in; j++) {
      const ny_value *v = ny_in(c->member[i], j);
      n += !ny_travels(v) && !(v->def && ny_fuse_has(f, c, v->def));
    }
  return n;
}

void ny_fuse_backward(ny_fuse *f, ny_cluster *c, ny_accept_fn *accept) {
  for (bool again = true; again;) {
    again = false;
    for (size_t i = 0; i < c->n && c->n < MAX_MEMBERS; i++)
      for (int j = 0; j < c->member[i]->n_in; j++) {
        ny_op *p = ny_in(c->member[i], j)->def;
        if (!p || !ny_fuse_free(f, p) || p->n_body || ny_travels(p->out[0])) continue;
        if (!ny_fuse_all_uses_in(f, c, p) || inputs(f, c) + p->n_in > MAX_INPUTS || !accept(f, c, p)) continue;
        ny_fuse_add(f, c, p);
        again = true;
      }
  }
}

static bool groupable(const ny_op *op) {
  if (op->n_body || !op->n_out || op->kind == NY_const || op->kind == NY_launch) return false;
  if (op->kind == NY_reshape || op->kind == NY_bitcast) return false;
  return true;
}

static void contractions(ny_fuse *f) {
  static const ny_kind kinds[] = {NY_matmul, NY_conv, NY_attention};
  for (int p = 0; p < f->n; p++)
    for (size_t k = 0; k < NY_COUNT(kinds); k++)
      if (f->op[p]->kind == kinds[k] && f->cluster[p] < 0) {
        ny_cluster *c = ny_fuse_open(f, f->op[p], ny_family_of_op(f->op[p]));
        ny_fuse_forward(f, c, ny_accept_epilogue);
        ny_fuse_backward(f, c, ny_accept_operand);
      }
}

static void reductions(ny_fuse *f) {
  for (int p = 0; p < f->n; p++) {
    ny_op *op = f->op[p];
    if (op->kind != NY_reduce || f->cluster[p] >= 0) continue;
    bool row = ny_row_axes(f->g->cx, op);
    ny_cluster *c = ny_fuse_open(f, op, row ? "row" : "reduce");
    ny_fuse_forward(f, c, row ? ny_accept_row : ny_accept_epilogue);
    ny_fuse_backward(f, c, row ? ny_accept_row_input : ny_accept_row_input);
  }
}

static bool dead(const ny_fuse *f, const ny_op *op) { /* copied into every cluster that has a use of it */
  if (f->read_by_copy[f->pos[op->id]]) return false;
  for (int i = 0; i < op->n_out; i++)
    for (const ny_use *u = op->out[i]->uses; u; u = u->next) {
      int p = f->pos[u->user->id], in = p < 0 ? -1 : f->cluster[p];
      bool copied = false;
      for (size_t k = 0; in >= 0 && k < f->list[in].n_clone; k++) copied |= f->list[in].clone[k] == op;
      if (!copied) return false;
    }
  return true;
}

/* A copy may read what its original's cluster holds a copy of, and this cluster does not. */
static void mark_reads_of_copies(ny_fuse *f, const ny_cluster *c) {
  for (size_t i = 0; i < c->n_clone; i++)
    for (int j = 0; j < c->clone[i]->n_in; j++) {
      int p = ny_fuse_pos(f, ny_in(c->clone[i], j));
      bool inside = p < 0 || ny_fuse_has(f, c, f->op[p]);
      for (size_t k = 0; !inside && k < c->n_clone; k++) inside = c->clone[k] == f->op[p];
      if (!inside) f->read_by_copy[p] = 1;
    }
}

static void expressions(ny_fuse *f, bool grow) {
  for (int p = f->n - 1; p >= 0; p--) {
    ny_op *op = f->op[p];
    if (f->cluster[p] >= 0 || !groupable(op)) continue;
    bool map = ny_is_expression(op);
    if (map && ny_travels(op->out[0]) && !op->out[0]->uses) continue;
    if (grow && dead(f, op)) continue;
    ny_cluster *c = ny_fuse_open(f, op, ny_family_of_op(op));
    if (!grow || !map) continue;
    ny_fuse_backward(f, c, ny_accept_map);
    ny_fuse_cheap(f, c);
    ny_fuse_backward(f, c, ny_accept_map);
    mark_reads_of_copies(f, c);
  }
}

static void sort(const ny_fuse *f, ny_op **op, size_t n) {
  for (size_t i = 1; i < n; i++)
    for (size_t j = i; j > 0 && f->pos[op[j]->id] < f->pos[op[j - 1]->id]; j--) {
      ny_op *t = op[j];
      op[j] = op[j - 1], op[j - 1] = t;
    }
}

/* dims and iota that only groups read travel with them. */
static bool only_travels(const ny_op *op) {
  if (!ny_travels(op->out[0])) return false;
  for (const ny_use *u = op->out[0]->uses; u; u = u->next)
    if (u->user->n_body || !u->user->n_out || u->user->kind == NY_reshape || u->user->kind == NY_bitcast) return false;
  return true;
}

static void make_groups(ny_fuse *f) {
  for (size_t i = 0; i < f->n_list; i++) {
    ny_cluster *c = &f->list[i];
    if (c->n == 1 && only_travels(c->member[0])) continue;
    sort(f, c->member, c->n);
    sort(f, c->clone, c->n_clone);
    ny_group_new(f->g, c->member, (int)c->n, c->clone, (int)c->n_clone, c->family, c->seed->loc);
  }
}

static nyb_status fuse_block(void *user, ny_block *b) {
  ny_fuse f = *(ny_fuse *)user;
  if (b->parent && b->parent->kind == NY_group) return NYB_OK;
  ny_arena *a = &f.px->scratch;
  f.pos = NY_NEW_ARRAY(a, int, f.g->next_op);
  for (uint32_t i = 0; i < f.g->next_op; i++) f.pos[i] = -1;
  f.n = 0;
  for (ny_op *op = b->first; op; op = op->next) f.n++;
  f.op = NY_NEW_ARRAY(a, ny_op *, f.n + 1);
  f.cluster = NY_NEW_ARRAY(a, int, f.n + 1);
  f.taint = NY_NEW_ARRAY(a, uint8_t, f.n + 1);
  f.read_by_copy = NY_NEW_ARRAY(a, uint8_t, f.n + 1);
  int p = 0;
  for (ny_op *op = b->first; op; op = op->next, p++) f.op[p] = op, f.pos[op->id] = p, f.cluster[p] = -1;
  bool grow = f.px->opt->opt >= 1;
  if (grow) contractions(&f);
  if (grow) reductions(&f);
  expressions(&f, grow);
  make_groups(&f);
  return f.g->cx->diag.code;
}

/* A loop body's results are copied over its arguments one by one, so none may be another argument's memory. */
static nyb_status separate_yields(void *user, ny_block *b) {
  ny_fuse *f = user;
  if (!b->parent || b->parent->kind != NY_loop || !b->last) return NYB_OK;
  for (int i = 0; i < b->last->n_in; i++) {
    ny_value *v = ny_in(b->last, i), *root = v;
    while (root->def && (root->def->kind == NY_reshape || root->def->kind == NY_bitcast)) root = ny_in(root->def, 0);
    if (root->arg_of != b || root->index == (uint32_t)i + 1u) continue;
    ny_builder nb = ny_before(f->g, b->last);
    ny_op *copy = ny_build(&nb, NY_slice, &v, 1, &v->type, 1);
    if (!copy) return f->g->cx->diag.code;
    ny_dim zero[NY_MAX_RANK] = {0};
    copy->attr[NY_AT(slice, start)] = ny_dims_attr(f->g, zero, v->type->rank);
    ny_set_in(b->last, i, copy->out[0]);
  }
  return NYB_OK;
}

nyb_status ny_pass_fuse(ny_pass_cx *px, ny_graph *g, bool *changed) {
  ny_fuse f = {.px = px, .g = g};
  NY_TRY(ny_each_block(&g->body, &f, separate_yields));
  NY_TRY(ny_group_constants(px, g, changed));
  NY_TRY(ny_each_block(&g->body, &f, fuse_block));
  ny_drop_dead(&g->body);
  *changed = true;
  return NYB_OK;
}
