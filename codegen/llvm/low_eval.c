/* Pieces on demand. A tile value is computed one piece (a vector of adjacent columns of a row) at a time, when a
   statement wants it, so that a chain from loads to a store runs through registers. Pieces already computed are
   remembered in a memo that is unwound with the block or loop they were computed in. Where a statement has many
   expensive pieces it becomes a loop over rows or columns: then a piece has a position known only at run time, and what
   it reads must be computable there (a load) or lie in an array on the stack. A value whose operands are about to
   change (a store to its buffer, a set of its tile) is computed first: see ny_low_hazard. */
#include "llvm.h"

#include <string.h>

enum { UNROLL_COST = 400, UNROLL_PIECES = 8 };

/* ---- scopes */
ny_lmark ny_low_enter(ny_low *l) { return (ny_lmark){l->n_memo, l->n_dim, l->n_undo, l->n_pending, l->n_var}; }

void ny_low_leave(ny_low *l, ny_lmark m) {
  while (l->n_memo > m.memo) {
    ny_lmemo *e = &l->memo[--l->n_memo];
    l->info[e->id].memo = e->next;
  }
  while (l->n_undo > m.undo) {
    struct ny_lundo *u = &l->undo[--l->n_undo];
    l->info[u->id].state = u->state;
    l->info[u->id].array = u->array;
  }
  l->n_dim = m.dim;
  l->n_pending = m.pending;
  l->n_var = m.var;
}

void ny_low_state(ny_low *l, ny_value *v, ny_lstate s, val array) {
  ny_linfo *f = &l->info[v->id];
  NY_PUSH_ROOM(&l->arena, l->undo, l->n_undo, l->cap_undo);
  l->undo[l->n_undo].id = v->id;
  l->undo[l->n_undo].state = f->state;
  l->undo[l->n_undo++].array = f->array;
  f->state = s;
  f->array = array;
}

void ny_low_keep(ny_low *l, ny_value *v, ny_lat at, val x) {
  NY_PUSH_ROOM(&l->arena, l->memo, l->n_memo, l->cap_memo);
  l->memo[l->n_memo] = (ny_lmemo){at, x, v->id, l->info[v->id].memo};
  l->info[v->id].memo = (int32_t)l->n_memo++;
}

static val recall(const ny_low *l, const ny_linfo *f, ny_lat at) {
  for (int32_t i = f->memo; i >= 0; i = l->memo[i].next) {
    const ny_lat *m = &l->memo[i].at;
    if (m->row == at.row && m->col == at.col && m->lanes == at.lanes && m->drow == at.drow && m->dcol == at.dcol)
      return l->memo[i].v;
  }
  return NULL;
}

val ny_low_recall(const ny_low *l, const ny_value *v, ny_lat at) { return recall(l, &l->info[v->id], at); }

/* One element out of a remembered piece. */
static val recall_lane(ny_low *l, const ny_linfo *f, ny_lat at) {
  if (at.dcol) return NULL;
  for (int32_t i = f->memo; i >= 0; i = l->memo[i].next) {
    const ny_lat *m = &l->memo[i].at;
    if (m->row == at.row && m->col <= at.col && at.col < m->col + m->lanes && m->drow == at.drow && !m->dcol)
      return ny_lane(l->x, l->memo[i].v, at.col - m->col);
  }
  return NULL;
}

int ny_piece_lanes(const ny_low *l, int cols, int col) {
  int n = l->W;
  while (col + n > cols) n /= 2;
  return n;
}

/* ---- evaluation */
static val eval_map(ny_low *l, const ny_op *op, ny_lat at) {
  val in[3];
  for (int i = 0; i < op->n_in; i++) in[i] = ny_eval(l, ny_in(op, i), at);
  return ny_row(l->x, op, in);
}

static val eval_cast(ny_low *l, const ny_op *op, ny_lat at) {
  ny_value *a = ny_in(op, 0);
  ny_fmt to = (ny_fmt)op->out[0]->type->fmt;
  return ny_convert(l->x, (ny_fmt)a->type->fmt, to, ny_eval(l, a, at),
                    op->attr[NY_AT(cast, saturate)].i && ny_fmts[to].bits <= 8);
}

static val eval_bitcast(ny_low *l, const ny_op *op, ny_lat at) {
  ny_lx *x = l->x;
  ny_value *a = ny_in(op, 0);
  ny_fmt from = (ny_fmt)a->type->fmt, to = (ny_fmt)op->out[0]->type->fmt;
  val v = ny_eval(l, a, at);
  if (from == NY_bool) v = LLVMBuildZExt(x->b, v, ny_like(v, x->i8), "");
  if (to == NY_bool) return ny_ic(x, LLVMIntNE, v, ny_ci(LLVMTypeOf(v), 0));
  if (ny_fmts[from].bits < 8) { /* a code of few bits: a signed integer's register form is its value, not its code */
    if (to == NY_f4e2m1) return NY_B(And, x, v, ny_ci(LLVMTypeOf(v), 15));
    return ny_wrap(x, to, v);
  }
  return ny_bits(x, v, ny_like(v, ny_reg_type(x, to)));
}

val ny_low_fill(ny_low *l, const ny_op *op, ny_lat at) {
  ny_lx *x = l->x;
  ny_fmt f = (ny_fmt)op->out[0]->type->fmt;
  double fill = op->attr[NY_AT(tile, fill)].f;
  if (f == NY_bool) return ny_ci(ny_vec(x->i1, at.lanes), fill != 0);
  uint64_t raw = 0;
  if (ny_is_float(f)) {
    if (f == NY_f64 || f == NY_f32) return ny_cf(ny_vec(ny_reg_type(x, f), at.lanes), fill);
    ny_put_f(f, &raw, 0, fill, false);
    return ny_ci(ny_vec(ny_reg_type(x, f), at.lanes), (int64_t)raw);
  }
  double top = ny_fmts[f].kind == 'U' ? 18446744073709551616.0 : 9223372036854775808.0;
  int64_t n = fill >= top                      ? (ny_fmts[f].kind == 'U' ? -1 : INT64_MAX)
              : fill >= 9223372036854775808.0  ? (int64_t)(uint64_t)fill
              : fill <= -9223372036854775808.0 ? INT64_MIN
              : fill != fill                   ? 0
                                               : (int64_t)fill;
  return ny_ci(ny_vec(ny_reg_type(x, f), at.lanes), ny_wrap_to(f, n));
}

static bool by_element(const ny_low *l, const ny_value *v) { /* one element costs no more than a vector */
  return l->info[v->id].cost <= 6 || !v->def || v->def->kind == NY_load || v->def->kind == NY_index ||
         v->def->kind == NY_tile;
}

static val compute(ny_low *l, ny_value *v, ny_lat at) {
  const ny_op *op = v->def;
  ny_linfo *f = &l->info[v->id];
  if (at.lanes == 1 && f->cols > 1 && !at.dcol && !by_element(l, v)) {
    ny_lat whole = at;
    for (whole.col = 0; whole.col + (whole.lanes = ny_piece_lanes(l, f->cols, whole.col)) <= at.col;)
      whole.col += whole.lanes;
    if (whole.lanes > 1) return ny_lane(l->x, ny_eval(l, v, whole), at.col - whole.col);
  }
  if (f->alias) return ny_eval(l, f->alias, at);
  val found = at.lanes > 1 ? ny_low_lookup(l, v, at) : NULL;
  if (found) return found;
  switch (op->kind) {
  case NY_load: {
    val block = ny_low_load_block(l, op, at);
    return block ? block : ny_low_load(l, op, at);
  }
  case NY_index: return ny_low_index(l, op, at);
  case NY_tile: return ny_low_fill(l, op, at);
  case NY_cast: return eval_cast(l, op, at);
  case NY_bitcast: return eval_bitcast(l, op, at);
  default: return eval_map(l, op, at);
  }
}

static val piece(ny_low *l, ny_value *v, ny_lat at) {
  ny_linfo *f = &l->info[v->id];
  if (f->state == NY_L_SLOT || (f->state == NY_L_ARRAY && f->array)) return ny_tile_get(l, f, at);
  val x = recall(l, f, at);
  if (!x && at.lanes == 1 && f->cols > 1) x = recall_lane(l, f, at);
  if (x) return x;
  if (f->array) return ny_array_load(l, f, at);
  x = compute(l, v, at);
  ny_low_keep(l, v, at, x);
  return x;
}

val ny_eval(ny_low *l, ny_value *v, ny_lat at) {
  const ny_linfo *f = &l->info[v->id];
  if (f->rows == 1) at.row = 0, at.drow = NULL;
  if (f->cols > 1 || at.lanes == 1) {
    if (f->cols == 1) at.col = 0, at.dcol = NULL;
    return piece(l, v, at);
  }
  ny_lat one = {at.row, 0, 1, at.drow, NULL};
  return ny_splat(l->x, piece(l, v, one), at.lanes);
}

val ny_eval_num(ny_low *l, ny_value *v, ny_lat at) {
  val r = ny_eval(l, v, at);
  return ny_decode(l->x, (ny_fmt)v->type->fmt, r);
}

/* ---- all pieces of a tile */
ny_roll ny_roll_of(const ny_low *l, int rows, int cols, int cost) {
  int64_t full = cols / l->W, pieces = full + (cols % l->W != 0), all = pieces * rows;
  ny_roll r = {false, false};
  if (all <= UNROLL_PIECES || all * cost <= UNROLL_COST) return r;
  r.cols = full > 2 && (pieces > UNROLL_PIECES || pieces * cost > UNROLL_COST);
  r.rows = rows > 1;
  return r;
}

void ny_each_row(ny_low *l, int rows, bool rolled, ny_piece_fn *fn, void *user) {
  ny_lx *x = l->x;
  if (!rolled) {
    for (int r = 0; r < rows; r++) fn(l, user, (ny_lat){.row = r});
    return;
  }
  ny_lloop loop;
  ny_loop_begin(x, &loop, ny_ci(x->i64, 0), ny_ci(x->i64, rows), ny_ci(x->i64, 1), false);
  ny_lmark m = ny_low_enter(l);
  fn(l, user, (ny_lat){.drow = loop.iv});
  ny_low_leave(l, m);
  ny_loop_end(x, &loop);
}

void ny_each_col(ny_low *l, int cols, bool rolled, ny_lat at, ny_piece_fn *fn, void *user) {
  ny_lx *x = l->x;
  int done = 0;
  if (rolled) {
    int full = cols / l->W;
    int by = full % 4 == 0 ? 4 : full % 2 == 0 ? 2 : 1;
    ny_lloop loop;
    ny_loop_begin(x, &loop, ny_ci(x->i64, 0), ny_ci(x->i64, (int64_t)full * l->W), ny_ci(x->i64, (int64_t)by * l->W),
                  false);
    ny_lmark m = ny_low_enter(l);
    for (int i = 0; i < by; i++) fn(l, user, (ny_lat){at.row, i * l->W, l->W, at.drow, loop.iv});
    ny_low_leave(l, m);
    ny_loop_end(x, &loop);
    done = full * l->W;
  }
  for (; done < cols; done += at.lanes) {
    at.col = done;
    at.lanes = ny_piece_lanes(l, cols, done);
    fn(l, user, at);
  }
}

typedef struct both {
  int cols;
  bool rolled;
  ny_piece_fn *fn;
  void *user;
} both;
static void row_of_pieces(ny_low *l, void *user, ny_lat at) {
  both *b = user;
  ny_each_col(l, b->cols, b->rolled, at, b->fn, b->user);
}

void ny_each_piece(ny_low *l, int rows, int cols, ny_roll r, ny_piece_fn *fn, void *user) {
  both b = {cols, r.cols, fn, user};
  ny_each_row(l, rows, r.rows, row_of_pieces, &b);
}

/* ---- values that must exist now */
static void keep_piece(ny_low *l, void *user, ny_lat at) { ny_eval(l, user, at); }

typedef struct filling {
  ny_value *v;
  ny_linfo to;
} filling;
static void fill_piece(ny_low *l, void *user, ny_lat at) {
  filling *f = user;
  ny_array_store(l, &f->to, at, ny_eval(l, f->v, at));
}

/* Computes v into a new stack array. */
static val into_array(ny_low *l, ny_value *v, uint32_t order) {
  ny_linfo *f = &l->info[v->id];
  filling fill = {v, *f};
  fill.to.array = ny_low_array(l, f);
  ny_roll r = {false, false};
  if (f->state == NY_L_LAZY || f->state == NY_L_ARRAY) {
    r = ny_roll_of(l, f->rows, f->cols, f->cost + 1);
    if (f->state == NY_L_LAZY && f->alias) ny_low_prepare(l, &f->alias, 1, r, order);
    for (int i = 0; f->state == NY_L_LAZY && !f->alias && i < v->def->n_in; i++) {
      ny_value *in = ny_in(v->def, i);
      ny_low_prepare(l, &in, 1, r, order);
    }
  }
  ny_lmark m = ny_low_enter(l);
  ny_each_piece(l, f->rows, f->cols, r, fill_piece, &fill);
  m.pending = l->n_pending;
  ny_low_leave(l, m);
  return fill.to.array;
}

static bool fits_registers(const ny_low *l, const ny_linfo *f) {
  return f->rows * f->pieces <= l->x->target->n_vregs / 2;
}

void ny_low_force(ny_low *l, ny_value *v, uint32_t order) {
  ny_linfo *f = &l->info[v->id];
  if (f->state != NY_L_LAZY) return;
  ny_roll r = ny_roll_of(l, f->rows, f->cols, f->cost);
  if (fits_registers(l, f) && !r.rows && !r.cols) {
    ny_each_piece(l, f->rows, f->cols, r, keep_piece, v);
    ny_low_state(l, v, NY_L_FIXED, NULL);
  } else {
    val array = into_array(l, v, order);
    ny_low_state(l, v, NY_L_FIXED, array);
  }
}

/* ---- what a statement needs before it becomes a loop */
static bool needed_after(const ny_low *l, const ny_linfo *f, uint32_t order) {
  if (f->last <= order) return false;
  for (const ny_use *u = f->v->uses; u; u = u->next) {
    if (l->order[u->user->id].first > order) return true;
    if (u->user->n_out && l->info[u->user->out[0]->id].state == NY_L_LAZY && l->info[u->user->out[0]->id].last > order)
      return true;
  }
  return false;
}

static void prepare(ny_low *l, ny_value *v, ny_roll r, uint32_t order) {
  ny_linfo *f = &l->info[v->id];
  if (f->stamp == l->stamp) return;
  f->stamp = l->stamp;
  bool moving = (r.rows && f->rows > 1) || (r.cols && f->cols > 1);
  if (f->state == NY_L_SLOT && moving) { /* a copy for this statement only: ny_low_done gives the slots back */
    NY_PUSH_ROOM(&l->arena, l->tmp, l->n_tmp, l->cap_tmp);
    l->tmp[l->n_tmp++] = v->id;
    f->array = into_array(l, v, order);
    f->state = NY_L_FIXED;
  } else if (f->state == NY_L_FIXED && moving && !f->array) {
    ny_low_state(l, v, NY_L_FIXED, into_array(l, v, order));
  }
  if (f->state != NY_L_LAZY) return;
  if (f->alias) {
    prepare(l, f->alias, r, order);
    return;
  }
  bool again = needed_after(l, f, order), dear = f->cost > 12;
  if ((!moving && (r.rows || r.cols) && fits_registers(l, f)) || (again && dear && (moving || !fits_registers(l, f)))) {
    ny_low_force(l, v, order);
    if (moving && !l->info[v->id].array) ny_low_state(l, v, NY_L_FIXED, into_array(l, v, order));
    return;
  }
  for (int i = 0; i < v->def->n_in; i++) prepare(l, ny_in(v->def, i), r, order);
}

void ny_low_prepare(ny_low *l, ny_value *const *roots, int n, ny_roll r, uint32_t order) {
  uint32_t outer = l->stamp;
  l->stamp = ++l->next_stamp;
  for (int i = 0; i < n; i++) prepare(l, roots[i], r, order);
  l->stamp = outer;
}

void ny_low_done(ny_low *l) {
  while (l->n_tmp) {
    ny_linfo *f = &l->info[l->tmp[--l->n_tmp]];
    f->state = NY_L_SLOT;
    f->array = NULL;
  }
}

/* ---- order of effects */
void ny_low_hazard(ny_low *l, uint64_t effects, uint32_t order) {
  for (uint32_t i = l->n_pending; i-- > 0;) {
    ny_value *v = l->pending[i];
    ny_linfo *f = &l->info[v->id];
    if (f->state == NY_L_LAZY && (f->reads & effects) && needed_after(l, f, order)) ny_low_force(l, v, order);
  }
}
