/* Statements of a kernel in program order: tiles, assignments, stores and loops; what they change, and what must be
 * computed before they do. */
#include "llvm.h"

#include <string.h>

/* ---- mutable tiles */
static typ slot_type(const ny_low *l, const ny_linfo *f, int lanes) { return ny_vec(ny_reg_type(l->x, f->fmt), lanes); }

static unsigned slot_align(const ny_linfo *f, int lanes) {
  unsigned n = (f->fmt == NY_bool ? 1u : (ny_fmts[f->fmt].bits + 7u) / 8u) * (unsigned)lanes;
  return n > 64 ? 64 : n;
}

/* The piece that column `at` lies in: its number and first column. */
static int piece_of(const ny_low *l, const ny_linfo *f, int at, int *start) {
  int i = 0, lanes;
  for (*start = 0; *start + (lanes = ny_piece_lanes(l, f->cols, *start)) <= at; i++) *start += lanes;
  return i;
}

val ny_tile_get(ny_low *l, const ny_linfo *f, ny_lat at) {
  if (!f->slot) return ny_array_load(l, f, at);
  int start, i = piece_of(l, f, at.col, &start), lanes = ny_piece_lanes(l, f->cols, start);
  val v = ny_ld(l->x, slot_type(l, f, lanes), f->slot[at.row * f->pieces + i], slot_align(f, lanes));
  return at.lanes == lanes ? v : ny_lane(l->x, v, at.col - start);
}

void ny_tile_put(ny_low *l, const ny_linfo *f, ny_lat at, val v) {
  int start;
  if (f->slot)
    ny_st(l->x, v, f->slot[at.row * f->pieces + piece_of(l, f, at.col, &start)], slot_align(f, at.lanes));
  else
    ny_array_store(l, f, at, v);
}

typedef struct filling {
  ny_linfo to; /* as it was before the statement prepared anything */
  ny_value *from;
  val *piece; /* computed, not yet put; NULL: put at once */
  int n;
} filling;

static void fill_piece(ny_low *l, void *user, ny_lat at) {
  filling *f = user;
  ny_tile_put(l, &f->to, at, ny_low_fill(l, f->to.v->def, at));
}

static void lower_tile(ny_low *l, const ny_op *op) {
  filling f = {.to = l->info[op->out[0]->id]};
  if (f.to.state == NY_L_LAZY) return;
  ny_each_piece(l, f.to.rows, f.to.cols, f.to.slot ? (ny_roll){false, false} : ny_roll_of(l, f.to.rows, f.to.cols, 1),
                fill_piece, &f);
}

/* ---- assignment */
static void compute_piece(ny_low *l, void *user, ny_lat at) {
  filling *f = user;
  val v = ny_eval(l, f->from, at);
  if (f->piece)
    f->piece[f->n++] = v;
  else
    ny_array_store(l, &f->to, at, v);
}

static void put_piece(ny_low *l, void *user, ny_lat at) {
  filling *f = user;
  ny_tile_put(l, &f->to, at, f->piece ? f->piece[f->n++] : ny_eval(l, f->from, at));
}

static void lower_set(ny_low *l, const ny_op *op) {
  ny_value *to = ny_in(op, 0), *from = ny_in(op, 1);
  ny_linfo *t = &l->info[to->id];
  uint32_t order = l->order[op->id].first;
  if (t->alias) { /* set once: from here on it reads as what it is set to */
    NY_PUSH_ROOM(&l->arena, l->pending, l->n_pending, l->cap_pending);
    l->pending[l->n_pending++] = to;
    return;
  }
  ny_low_hazard(l, ny_low_effects(l, op), order);
  filling f = {.to = *t, .from = from};
  ny_roll r = ny_roll_of(l, t->rows, t->cols, l->info[from->id].cost + 1);
  ny_low_prepare(l, &from, 1, r, order);
  if (!r.rows && !r.cols) {
    f.piece = NY_NEW_ARRAY(&l->arena, val, t->rows * t->pieces);
    ny_each_piece(l, t->rows, t->cols, r, compute_piece, &f);
    f.n = 0;
    ny_each_piece(l, t->rows, t->cols, r, put_piece, &f);
  } else if (!f.to.slot) {
    ny_each_piece(l, t->rows, t->cols, r, compute_piece, &f);
  } else { /* computed in a loop through an array, then taken up again */
    filling array = f;
    array.to.slot = NULL;
    array.to.array = ny_low_array(l, &f.to);
    ny_each_piece(l, t->rows, t->cols, r, compute_piece, &array);
    for (int row = 0; row < t->rows; row++)
      for (int c = 0; c < t->cols;) {
        ny_lat at = {.row = row, .col = c, .lanes = ny_piece_lanes(l, t->cols, c)};
        ny_tile_put(l, &f.to, at, ny_array_load(l, &array.to, at));
        c += at.lanes;
      }
  }
}

/* ---- stores */
typedef struct storing {
  const ny_op *op;
  ny_value *from;
} storing;
static void store_piece(ny_low *l, void *user, ny_lat at) {
  storing *s = user;
  ny_low_store(l, s->op, at, ny_eval(l, s->from, at));
}

/* All rows of the columns at.col.., in blocks turned in registers where rows are what is adjacent in memory. */
static void store_columns(ny_low *l, void *user, ny_lat at) {
  storing *s = user;
  for (int n; at.row < l->info[s->from->id].rows; at.row += n) {
    n = ny_low_store_block(l, s->op, s->from, at);
    if (n) continue;
    store_piece(l, s, at);
    n = 1;
  }
}

static void lower_store(ny_low *l, const ny_op *op) {
  storing s = {op, ny_in(op, 1)};
  const ny_linfo *f = &l->info[s.from->id];
  uint32_t order = l->order[op->id].first;
  ny_low_hazard(l, ny_low_effects(l, op), order);
  uint64_t own = l->info[ny_in(op, 0)->id].reads;
  for (int i = 1; i < op->n_in; i++) /* reads of the buffer itself come before any of its elements changes */
    if (l->info[ny_in(op, i)->id].reads & own) ny_low_force(l, ny_in(op, i), order);
  ny_value *in[2] = {s.from, op->n_in > 2 ? ny_in(op, 2) : NULL};
  ny_roll r =
      ny_roll_of(l, f->rows, f->cols, (f->state == NY_L_LAZY ? f->cost : 1) + ny_low_access_cost(l, op, s.from));
  bool turn = f->rows <= 2 * l->W && ny_low_columns_adjacent(l, op, s.from);
  if (turn) r.rows = false;
  ny_low_prepare(l, in, op->n_in - 1, r, order);
  if (turn)
    ny_each_col(l, f->cols, r.cols, (ny_lat){0}, store_columns, &s);
  else
    ny_each_piece(l, f->rows, f->cols, r, store_piece, &s);
}

/* ---- effects */
uint64_t ny_low_effects(const ny_low *l, const ny_op *op) {
  uint64_t e = 0;
  switch (op->kind) {
  case NY_store: e = l->info[ny_in(op, 0)->id].reads; return e & l->aliased ? e | l->aliased : e;
  case NY_set:
  case NY_mma: return l->info[ny_in(op, 0)->id].alias ? 0 : l->info[ny_in(op, 0)->id].reads;
  case NY_tile: return l->info[op->out[0]->id].state == NY_L_LAZY ? 0 : l->info[op->out[0]->id].reads;
  case NY_for:
    for (const ny_op *o = op->body[0]->first; o; o = o->next) e |= ny_low_effects(l, o);
    return e;
  default: return 0;
  }
}

/* ---- loops */
static bool used_inside(const ny_low *l, const ny_value *v, ny_lspan s) {
  for (const ny_use *u = v->uses; u; u = u->next) {
    uint32_t at = l->order[u->user->id].first;
    if (at > s.first && at <= s.last) return true;
  }
  return false;
}

/* What is computed outside and used inside is computed once, unless that is no work. */
static void lift(ny_low *l, const ny_op *op) {
  ny_lspan s = l->order[op->id];
  for (uint32_t i = l->n_pending; i-- > 0;) {
    ny_value *v = l->pending[i];
    const ny_linfo *f = &l->info[v->id];
    if (f->state != NY_L_LAZY || !used_inside(l, v, s)) continue;
    bool few = f->rows * f->pieces <= l->x->target->n_vregs / 2,
         free = v->def->kind == NY_tile || v->def->kind == NY_index;
    if (f->alias ? f->cost > 0 : !free && (few || f->cost > 4)) ny_low_force(l, v, s.first);
  }
}

typedef struct trip {
  const ny_op *op;
  ny_name var;
  int64_t step; /* 0: symbolic */
  val step_v;
  int64_t lo, hi; /* range of the variable */
} trip;

static void body(ny_low *l, const trip *t, val iv, int copies) {
  ny_lx *x = l->x;
  for (int i = 0; i < copies; i++) {
    ny_lmark m = ny_low_enter(l);
    l->depth++;
    val v = iv;
    int64_t add = i * t->step;
    if (i && !t->step) v = LLVMBuildNSWAdd(x->b, iv, LLVMBuildNSWMul(x->b, t->step_v, ny_ci(x->i64, i), ""), "");
    ny_low_var(l, t->var, v, t->lo, t->hi, l->depth);
    l->var[l->n_var - 1].add = add;
    ny_low_block(l, t->op->body[0]);
    l->depth--;
    ny_low_leave(l, m);
  }
}

static void loop(ny_low *l, const trip *t, val lo, val hi, int copies, bool check) {
  ny_lx *x = l->x;
  ny_lloop f;
  val step = copies == 1 ? t->step_v : LLVMBuildNSWMul(x->b, t->step_v, ny_ci(x->i64, copies), "");
  ny_loop_begin(x, &f, lo, hi, step, check);
  body(l, t, f.iv, copies);
  ny_loop_end(x, &f);
}

static void constant_trips(ny_low *l, const trip *t, int64_t lo, int64_t n, int unroll) {
  ny_lx *x = l->x;
  int64_t main = n / unroll * unroll;
  if (n <= unroll) {
    body(l, t, ny_ci(x->i64, lo), (int)n);
    return;
  }
  loop(l, t, ny_ci(x->i64, lo), ny_ci(x->i64, lo + main * t->step), unroll, false);
  body(l, t, ny_ci(x->i64, lo + main * t->step), (int)(n - main));
}

static void lower_for(ny_low *l, const ny_op *op) {
  ny_lx *x = l->x;
  const ny_attr *a = op->attr;
  ny_dim lo_d = a[NY_AT(for, lo)].d, hi_d = a[NY_AT(for, hi)].d, step_d = a[NY_AT(for, step)].d;
  int64_t lo, hi, none, unroll = a[NY_AT(for, unroll)].i;
  if (unroll < 1 || unroll > 64) unroll = unroll < 1 ? 1 : 64;
  trip t = {.op = op, .var = a[NY_AT(for, var)].s};
  ny_low_hazard(l, ny_low_effects(l, op), l->order[op->id].first);
  lift(l, op);
  ny_low_range(l, lo_d, &t.lo, &none);
  ny_low_range(l, hi_d, &none, &t.hi);
  if (t.hi != INT64_MAX && t.hi != INT64_MIN) t.hi--;
  if (!ny_dim_is_const(l->cx, step_d, &t.step))
    t.step = 0;
  else if (t.step < 1) {
    l->failed = ny_fail(l->diag, NYB_E_VERIFY, op->loc, "kernel %s: loop over ?%s has step %lld, not a positive number",
                        l->k->name, t.var, (long long)t.step);
    return;
  }
  t.step_v = ny_low_dim(l, step_d);
  if (t.step && ny_dim_is_const(l->cx, lo_d, &lo) && ny_dim_is_const(l->cx, hi_d, &hi)) {
    if (lo < hi) constant_trips(l, &t, lo, (hi - lo - 1) / t.step + 1, (int)unroll);
    return;
  }
  val lo_v = ny_low_dim(l, lo_d), hi_v = ny_low_dim(l, hi_d);
  if (unroll > 1) {
    val span = ny_bin(x, "llvm.smax", LLVMBuildNSWSub(x->b, hi_v, lo_v, ""), ny_ci(x->i64, 0));
    val by = LLVMBuildNSWMul(x->b, t.step_v, ny_ci(x->i64, unroll), "");
    val main = LLVMBuildNSWMul(x->b, NY_B(UDiv, x, span, by), by, ""), mid = LLVMBuildNSWAdd(x->b, lo_v, main, "");
    loop(l, &t, lo_v, mid, (int)unroll, true);
    lo_v = mid;
  }
  loop(l, &t, lo_v, hi_v, 1, true);
}

static void statement(ny_low *l, const ny_op *op) {
  switch (op->kind) {
  case NY_tile: lower_tile(l, op); break;
  case NY_set: lower_set(l, op); break;
  case NY_store: lower_store(l, op); break;
  case NY_mma:
    ny_low_hazard(l, ny_low_effects(l, op), l->order[op->id].first);
    ny_low_mma(l, op);
    break;
  case NY_reduce: ny_low_reduce(l, op); break;
  case NY_for: lower_for(l, op); break;
  case NY_prefetch: ny_low_prefetch(l, op); break;
  case NY_grid:
  case NY_local:
  case NY_barrier: /* a grid point is one thread here */
  case NY_yield:
  case NY_ret: break;
  default: /* computed when a statement asks for it */
    NY_PUSH_ROOM(&l->arena, l->pending, l->n_pending, l->cap_pending);
    l->pending[l->n_pending++] = op->out[0];
  }
  ny_low_done(l);
}

void ny_low_ops(ny_low *l, const ny_op *from, const ny_op *to) {
  for (const ny_op *op = from; op && op != to && !l->failed; op = op->next) statement(l, op);
}
void ny_low_block(ny_low *l, const ny_block *b) { ny_low_ops(l, b->first, NULL); }
