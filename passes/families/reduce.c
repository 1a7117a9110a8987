/* reduce: one reduction over any dims, with elementwise ops on its input and on its result. Where the last dim stays,
   its elements are lanes and the reduced dims are loops around them; where it goes, lanes run along it and meet at the
   end. */
#include "family.h"

typedef struct red {
  ny_op *op;
  const ny_type *x;
  bool gone[NY_MAX_RANK];
  int last; /* dim in lanes, -1 for a scalar input */
  int cols;
  ny_coord at[NY_MAX_RANK]; /* of the input */
  ny_fold_acc acc;
  const char *name;
} red;

/* Coordinates of the result from those of the input. */
static void result_at(const red *r, ny_coord *out) {
  bool keep = r->op->attr[NY_AT(reduce, keep)].i != 0;
  int n = 0;
  for (int i = 0; i < r->x->rank; i++)
    if (!r->gone[i] || keep) out[n++] = r->gone[i] ? ny_at_one(0) : r->at[i];
}

static void finish(ny_emit *e, const red *r, ny_value *v) {
  ny_coord at[NY_MAX_RANK];
  result_at(r, at);
  ny_emit_know(e, r->op->out[0], at, v);
  ny_emit_result(e, 0, at);
}

static int open_loops(ny_emit *e, red *r, ny_loop *loops) {
  int n = 0;
  for (int i = 0; i < r->x->rank; i++) {
    if (!r->gone[i] || i == r->last) continue;
    ny_dim var = 0;
    if (r->x->dim[i] != 1) loops[n++] = ny_emit_for(e, 0, r->x->dim[i], 1, 1, &var);
    r->at[i] = ny_at_one(var);
  }
  return n;
}

static void add_columns(ny_emit *e, void *user, ny_dim lo) {
  red *r = user;
  if (r->last >= 0) r->at[r->last] = ny_at_col(lo);
  ny_fold_add(e, &r->acc, ny_emit_at(e, ny_in(r->op, 0), r->at));
}

/* The last dim is reduced too. */
static void along(ny_emit *e, red *r) {
  ny_loop loops[NY_MAX_RANK];
  ny_dim count = r->last >= 0 ? r->x->dim[r->last] : 1;
  r->acc = ny_fold_open(e, r->name, (ny_fmt)r->x->fmt, count, r->cols);
  int n = open_loops(e, r, loops);
  ny_emit_columns(e, count, r->cols, add_columns, r);
  while (n > 0) ny_emit_end(e, loops[--n]);
  ny_value *v = ny_fold_close(e, &r->acc, (ny_fmt)r->op->out[0]->type->fmt);
  e->cols = 1;
  if (r->last >= 0) r->at[r->last] = ny_at_one(0);
  finish(e, r, v);
}

/* The last dim stays: a tile of its elements accumulates. */
static void across(ny_emit *e, void *user, ny_dim lo) {
  red *r = user;
  ny_loop loops[NY_MAX_RANK];
  ny_fmt f = ny_sum_fmt((ny_fmt)r->x->fmt);
  const char *op = ny_fold_name(r->name, (ny_fmt)r->x->fmt);
  ny_value *acc = ny_emit_identity(e, op, f, 1, e->cols);
  ny_coord column = r->at[r->last];
  r->at[r->last] = ny_at_col(ny_dim_add(e->cx, column.base, lo));
  int n = open_loops(e, r, loops);
  ny_value *v = ny_emit_cast(e, ny_emit_at(e, ny_in(r->op, 0), r->at), f);
  ny_emit_set(e, acc, ny_emit_fold2(e, op, acc, v));
  while (n > 0) ny_emit_end(e, loops[--n]);
  finish(e, r, ny_emit_cast(e, acc, (ny_fmt)r->op->out[0]->type->fmt));
  r->at[r->last] = column;
}

static int64_t reduced_size(const red *r) {
  int64_t n = 1;
  for (int i = 0; i < r->x->rank; i++)
    if (r->gone[i] && r->x->dim[i] > 0 && n < 1 << 20) n *= r->x->dim[i];
  return n;
}

nyb_status ny_lower_reduce(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  red r = {.op = ny_group_find(group, NY_reduce)};
  ny_emit e;
  if (!r.op || ny_group_yield(group)->n_in != 1) return NYB_E_UNSUPPORTED;
  r.x = ny_in(r.op, 0)->type;
  r.last = r.x->rank - 1;
  r.name = r.op->attr[NY_AT(reduce, op)].s;
  if (!ny_reduced_dims(k->cx, r.op, r.gone)) return NYB_E_UNSUPPORTED;
  ny_emit_begin(&e, px, group, k, &px->scratch);
  ny_fmt f = ny_sum_fmt((ny_fmt)r.x->fmt);
  r.cols = ny_vec_lanes(px, f) * 4;
  bool stays = r.last >= 0 && !r.gone[r.last];
  for (int i = 0; i < r.x->rank; i++)
    if (!r.gone[i] && i != r.last) r.at[i] = ny_at_one(r.x->dim[i] == 1 ? 0 : ny_emit_grid(&e, r.x->dim[i]));
  int64_t work = reduced_size(&r);
  if (stays) {
    ny_dim n = r.x->dim[r.last], lo = 0;
    if (n < 0 || n > r.cols) lo = ny_dim_mul(e.cx, ny_emit_grid(&e, ny_dim_ceildiv(e.cx, n, r.cols)), r.cols);
    r.at[r.last] = ny_at_one(lo);
    ny_dim left = ny_dim_sub(e.cx, n, lo);
    ny_emit_columns(
        &e, n >= 0 && (n <= r.cols || n % r.cols == 0) ? (n < r.cols ? n : r.cols) : ny_dim_min(e.cx, left, r.cols),
        r.cols, across, &r);
    work *= r.cols;
  } else {
    along(&e, &r);
  }
  ny_emit_grain(&e, work / ny_vec_lanes(px, f) + 8);
  return ny_emit_finish(&e);
}
