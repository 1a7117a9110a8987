/* scan: running sums, products, maxima and minima. The scanned dim is a sequential loop; where the last dim is another
   one its elements are lanes. On a GPU a row that is scanned along is a warp's or a block's: tiles of it are scanned in
   shared memory by doubling distances (Hillis, Steele 1986), and a carry goes from tile to tile. */
#include "gpu.h"

typedef struct run {
  ny_op *op;
  ny_value *x;
  int axis;
  bool exclusive, reverse;
  ny_coord at[NY_MAX_RANK];
} run;

static void columns(ny_emit *e, void *user, ny_dim lo) {
  run *r = user;
  ny_fmt f = (ny_fmt)r->x->type->fmt, sum = ny_sum_fmt(f);
  const char *op = ny_fold_name(r->op->attr[NY_AT(scan, op)].s, f);
  int last = r->x->type->rank - 1;
  ny_coord first = r->at[last];
  ny_dim n = r->x->type->dim[r->axis], var;
  if (last != r->axis) r->at[last] = ny_at_col(ny_dim_add(e->cx, first.base, lo));
  ny_value *acc = ny_emit_identity(e, op, sum, 1, e->cols);
  ny_loop l = ny_emit_for(e, 0, n, 1, ny_gpu_unroll(e, 4), &var);
  r->at[r->axis] = ny_at_one(r->reverse ? ny_dim_sub(e->cx, ny_dim_sub(e->cx, n, 1), var) : var);
  ny_value *next = ny_emit_fold2(e, op, acc, ny_emit_cast(e, ny_emit_at(e, r->x, r->at), sum));
  if (r->exclusive) ny_emit_out(e, 0, r->at, ny_emit_cast(e, acc, f));
  ny_emit_set(e, acc, next);
  if (!r->exclusive) ny_emit_out(e, 0, r->at, ny_emit_cast(e, acc, f));
  ny_emit_end(e, l);
  r->at[last] = first;
}

/* ---- a row by many threads */
typedef struct wide {
  run *r;
  ny_fmt sum;
  const char *op;
  ny_dim n;
  int cols;
  ny_value *carry, *buffer[2]; /* [1,1]; each: identities, as many as columns, then the tile */
} wide;

static ny_value *from_left(ny_emit *e, const wide *w, int which, int distance) {
  return ny_emit_load(e, w->buffer[which], ny_at_col(w->cols - distance));
}

/* Element i of the row, counted in the direction of the scan. */
static ny_coord in_order(ny_emit *e, const wide *w, ny_dim lo) {
  if (!w->r->reverse) return ny_at_col(lo);
  return ny_at(ny_dim_sub(e->cx, ny_dim_sub(e->cx, w->n, 1), lo), 0, ny_dim_const(e->cx, -1));
}

static ny_value *masked(ny_emit *e, const wide *w, ny_value *v) {
  if (e->lim[1] == NY_ALL) return v;
  ny_value *exists = ny_emit_below(e, ny_at_col(0), e->lim[1]);
  return ny_b_where(&e->b, exists, v, ny_emit_identity(e, w->op, w->sum, 1, 1));
}

static void scan_tile(ny_emit *e, void *user, ny_dim lo) {
  wide *w = user;
  run *r = w->r;
  ny_fmt f = (ny_fmt)r->x->type->fmt;
  int which = 0, narrow = e->cols;
  ny_dim left = e->lim[1];
  e->cols = w->cols;
  if (narrow < w->cols) left = e->lim[1] = narrow;
  r->at[r->axis] = in_order(e, w, lo);
  ny_value *v = ny_emit_cast(e, ny_emit_at(e, r->x, r->at), w->sum);
  if (!v) return;
  v = ny_emit_fill(e, masked(e, w, v), 1, w->cols);
  e->lim[1] = NY_ALL;
  for (int d = 1;; d *= 2, which ^= 1) {
    ny_emit_store(e, w->buffer[which], ny_at_col(w->cols), v, NULL);
    if (d >= w->cols) break;
    v = ny_emit_fold2(e, w->op, from_left(e, w, which, d), v);
  }
  ny_value *out = ny_emit_fold2(e, w->op, w->carry, r->exclusive ? from_left(e, w, which, 1) : v);
  e->lim[1] = left;
  ny_emit_out(e, 0, r->at, ny_emit_cast(e, out, f));
  e->lim[1] = NY_ALL;
  ny_value *last = ny_emit_load(e, w->buffer[which], ny_at_one(2 * w->cols - 1));
  ny_emit_set(e, w->carry, ny_emit_fold2(e, w->op, w->carry, last));
  e->lim[1] = left == narrow ? NY_ALL : left;
  e->cols = narrow;
}

static bool row_by_threads(ny_emit *e, run *r) {
  enum { EACH = 4 };
  ny_fmt f = (ny_fmt)r->x->type->fmt;
  wide w = {.r = r, .sum = ny_sum_fmt(f), .op = ny_fold_name(r->op->attr[NY_AT(scan, op)].s, f), .n = r->x->type->dim[r->axis]};
  int64_t rows = ny_gpu_count(r->x->type, 0, r->axis, 64);
  int t = (int)ny_knob(e->k, "threads", ny_gpu_row_threads(w.n, rows, EACH, 1));
  if (t > 256) t = 256;
  if (t == 1 || ny_fmts[w.sum].bits < 8) return false;
  w.cols = w.n >= 0 && w.n < t * EACH ? (int)w.n : t * EACH;
  ny_gpu_threads(e->k, t, 1);
  for (int i = 0; i < 2; i++) {
    w.buffer[i] = ny_emit_local(e, w.sum, 2 * w.cols);
    e->cols = w.cols;
    ny_emit_store(e, w.buffer[i], ny_at_col(0), ny_emit_identity(e, w.op, w.sum, 1, w.cols), NULL);
  }
  w.carry = ny_emit_identity(e, w.op, w.sum, 1, 1);
  ny_emit_columns(e, w.n, w.cols, scan_tile, &w);
  return true;
}

static nyb_status lower_gpu(ny_emit *e, run *r) {
  int last = r->x->type->rank - 1;
  if (r->axis != last) {
    r->at[last] = ny_at_one(0);
    ny_gpu_columns(e, r->x->type->dim[last], ny_gpu_divides(e->cx, r->x->type->dim[last], ny_gpu_vector(e->group)), columns, r);
  } else if (!row_by_threads(e, r)) {
    e->cols = 1;
    columns(e, r, 0);
  }
  return ny_emit_finish(e);
}

nyb_status ny_lower_scan(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  run r = {.op = ny_group_find(group, NY_scan)};
  ny_emit e;
  if (!r.op || ny_group_yield(group)->n_in != 1 || ny_in(ny_group_yield(group), 0) != r.op->out[0])
    return NYB_E_UNSUPPORTED;
  r.x = ny_in(r.op, 0);
  const ny_type *t = r.x->type;
  int last = t->rank - 1;
  if (t->rank == 0) return NYB_E_UNSUPPORTED;
  r.axis = ny_axis(r.op->attr[NY_AT(scan, axis)].i, t->rank);
  r.exclusive = r.op->attr[NY_AT(scan, exclusive)].i != 0;
  r.reverse = r.op->attr[NY_AT(scan, reverse)].i != 0;
  ny_emit_begin(&e, px, group, k, &px->scratch);
  int cols = 2 * ny_vec_lanes(px, ny_sum_fmt((ny_fmt)t->fmt));
  for (int i = 0; i < t->rank; i++)
    if (i != r.axis && i != last) r.at[i] = ny_at_one(t->dim[i] == 1 ? 0 : ny_emit_grid(&e, t->dim[i]));
  if (ny_on_gpu(px->target)) return lower_gpu(&e, &r);
  if (last == r.axis) {
    e.cols = 1;
    columns(&e, &r, 0);
  } else {
    ny_dim n = t->dim[last], lo = 0, count = n;
    if (n < 0 || n > cols) {
      lo = ny_dim_mul(e.cx, ny_emit_grid(&e, ny_dim_ceildiv(e.cx, n, cols)), cols);
      count = n > 0 && n % cols == 0 ? cols : ny_dim_min(e.cx, ny_dim_sub(e.cx, n, lo), cols);
    }
    r.at[last] = ny_at_one(lo);
    ny_emit_columns(&e, count, n > 0 && n < cols ? (int)n : cols, columns, &r);
  }
  ny_emit_grain(&e, t->dim[r.axis] > 0 ? t->dim[r.axis] * 2 + 8 : 256);
  return ny_emit_finish(&e);
}
