/* Reductions of a tile. Sums run in number form (f32 for narrower floats) over several partial results, so that
   additions do not wait for each other, then over the lanes as a tree. The accumulators are stack slots, promoted to
   registers. */
#include "llvm.h"

enum { PARTS = 4 };

typedef struct fold {
  ny_low *l;
  const ny_op *op;
  ny_value *in;
  ny_lfold how;
  ny_fmt fmt;
  val part[PARTS], narrow[16]; /* full pieces, in turn; narrower ones by log2 of their lanes */
  int turn;
  bool rolled_cols;
  ny_linfo sums; /* of columns: an array, or */
  val *col;      /* a slot per piece */
  val result;    /* array of row results when rows are a loop */
} fold;

static val finish(fold *f, val number) {
  return ny_is_float(f->fmt) ? ny_encode(f->l->x, f->fmt, number, false) : number;
}

static void step(fold *f, val slot, val v) {
  ny_lx *x = f->l->x;
  val old = ny_ld(x, LLVMTypeOf(v), slot, 1);
  ny_st(x, ny_lfold_step(x, f->how, f->fmt, old, v), slot, 1);
}

static val new_slot(fold *f, int lanes) {
  ny_lx *x = f->l->x;
  val first = ny_lfold_first(x, f->how, f->fmt, lanes), p = ny_slot(x, LLVMTypeOf(first), 1, 64);
  ny_st(x, first, p, 1);
  return p;
}

static int log2_of(int n) { return n < 2 ? 0 : 1 + log2_of(n / 2); }

static void add_piece(ny_low *l, void *user, ny_lat at) {
  fold *f = user;
  val v = ny_eval_num(l, f->in, at);
  if (at.lanes == l->W && at.lanes > 1)
    step(f, f->part[f->turn++ % PARTS], v);
  else
    step(f, f->narrow[log2_of(at.lanes)], v);
}

static void begin(fold *f, int cols, int pieces) {
  int full = cols / f->l->W * (f->l->W > 1);
  for (int i = 0; i < PARTS; i++) f->part[i] = i < full * pieces ? new_slot(f, f->l->W) : NULL;
  for (int i = 0; i < 16; i++) f->narrow[i] = (cols - full * f->l->W) >> i & 1 ? new_slot(f, 1 << i) : NULL;
  f->turn = 0;
}

static val end(fold *f) {
  ny_lx *x = f->l->x;
  val all = NULL, sum = NULL;
  typ e = ny_num_type(x, f->fmt);
  for (int i = 0; i < PARTS && f->part[i]; i++) {
    val p = ny_ld(x, ny_vec(e, f->l->W), f->part[i], 1);
    all = all ? ny_lfold_step(x, f->how, f->fmt, all, p) : p;
  }
  if (all) sum = ny_lfold_lanes(x, f->how, f->fmt, all);
  for (int i = 15; i >= 0; i--) {
    if (!f->narrow[i]) continue;
    val p = ny_lfold_lanes(x, f->how, f->fmt, ny_ld(x, ny_vec(e, 1 << i), f->narrow[i], 1));
    sum = sum ? ny_lfold_step(x, f->how, f->fmt, sum, p) : p;
  }
  return finish(f, sum);
}

static void row(ny_low *l, void *user, ny_lat at) {
  fold *f = user;
  const ny_linfo *in = &l->info[f->in->id];
  begin(f, in->cols, 1);
  ny_each_col(l, in->cols, f->rolled_cols, at, add_piece, f);
  val v = end(f);
  ny_lat to = {.row = at.row, .lanes = 1, .drow = at.drow};
  if (f->result) {
    ny_linfo t = l->info[f->op->out[0]->id];
    t.array = f->result;
    ny_array_store(l, &t, to, v);
  } else {
    ny_low_keep(l, f->op->out[0], to, v);
  }
}

static void add_column(ny_low *l, void *user, ny_lat at) {
  fold *f = user;
  val v = ny_eval_num(l, f->in, at);
  if (!f->col) {
    at.row = 0, at.drow = NULL;
    val p = ny_array_ptr(l, &f->sums, at);
    step(f, p, v);
    return;
  }
  int i = 0;
  for (int c = 0; c < at.col; i++) c += ny_piece_lanes(l, f->sums.cols, c);
  if (!f->col[i]) f->col[i] = new_slot(f, at.lanes);
  step(f, f->col[i], v);
}

static void first_column(ny_low *l, void *user, ny_lat at) {
  fold *f = user;
  ny_st(l->x, ny_lfold_first(l->x, f->how, f->fmt, at.lanes), ny_array_ptr(l, &f->sums, at), 1);
}

static void last_column(ny_low *l, void *user, ny_lat at) {
  fold *f = user;
  typ t = ny_vec(ny_num_type(l->x, f->fmt), at.lanes);
  ny_linfo out = l->info[f->op->out[0]->id];
  out.array = f->result;
  ny_array_store(l, &out, at, finish(f, ny_ld(l->x, t, ny_array_ptr(l, &f->sums, at), 1)));
}

static ny_fmt number_format(ny_fmt f) { return ny_is_float(f) ? (f == NY_f64 ? NY_f64 : NY_f32) : f; }

/* Over rows: a slot a column piece where they are few, else an array that every row is added to. */
static void over_rows(fold *f, ny_roll r) {
  ny_low *l = f->l;
  const ny_linfo *in = &l->info[f->in->id];
  ny_value *out = f->op->out[0];
  f->sums = *in;
  f->sums.rows = 1;
  f->sums.fmt = number_format(f->fmt);
  if (!r.cols && in->pieces <= l->x->target->n_vregs) {
    f->col = NY_NEW_ARRAY(&l->arena, val, in->pieces);
    for (int i = 0, c = 0; c < in->cols; i++) {
      int lanes = ny_piece_lanes(l, in->cols, c);
      f->col[i] = new_slot(f, lanes);
      c += lanes;
    }
    ny_each_piece(l, in->rows, in->cols, r, add_column, f);
    for (int i = 0, c = 0; c < in->cols; i++) {
      int lanes = ny_piece_lanes(l, in->cols, c);
      val v = ny_ld(l->x, ny_vec(ny_num_type(l->x, f->fmt), lanes), f->col[i], 1);
      ny_low_keep(l, out, (ny_lat){.col = c, .lanes = lanes}, finish(f, v));
      c += lanes;
    }
    ny_low_state(l, out, NY_L_FIXED, NULL);
    return;
  }
  f->sums.array = ny_low_array(l, &f->sums);
  ny_linfo o = l->info[out->id];
  f->result = ny_low_array(l, &o);
  ny_each_col(l, in->cols, r.cols, (ny_lat){0}, first_column, f);
  ny_each_piece(l, in->rows, in->cols, r, add_column, f);
  ny_each_col(l, in->cols, r.cols, (ny_lat){0}, last_column, f);
  ny_low_state(l, out, NY_L_FIXED, f->result);
}

void ny_low_reduce(ny_low *l, const ny_op *op) {
  ny_value *in = ny_in(op, 0), *out = op->out[0];
  const ny_linfo *i = &l->info[in->id], *o = &l->info[out->id];
  fold f = {.l = l, .op = op, .in = in, .how = ny_lfold_of(op->attr[NY_AT(reduce, op)].s), .fmt = i->fmt};
  ny_roll r = ny_roll_of(l, i->rows, i->cols, i->cost + 1);
  uint32_t order = l->order[op->id].first;
  ny_low_prepare(l, &in, 1, r, order);
  f.rolled_cols = r.cols;
  if (o->rows == 1 && o->cols == 1 && i->rows > 1) { /* everything */
    begin(&f, i->cols, i->rows);
    ny_each_piece(l, i->rows, i->cols, r, add_piece, &f);
    ny_low_keep(l, out, (ny_lat){.lanes = 1}, end(&f));
    ny_low_state(l, out, NY_L_FIXED, NULL);
  } else if (o->cols == 1 && o->rows == i->rows && i->cols > 1) {
    if (r.rows) f.result = ny_low_array(l, o);
    ny_each_row(l, i->rows, r.rows, row, &f);
    ny_low_state(l, out, NY_L_FIXED, f.result);
  } else if (o->rows == 1 && i->rows > 1) {
    over_rows(&f, r);
  } else { /* an axis of one element: the value itself, as of now */
    ny_linfo *w = &l->info[out->id];
    w->alias = in;
    ny_low_state(l, out, NY_L_LAZY, NULL);
    ny_low_force(l, out, order);
  }
}
