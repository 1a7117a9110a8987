/* scan: running sums, products, maxima and minima. The scanned dim is a sequential loop; where the last dim is another
 * one its elements are lanes. */
#include "family.h"

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
  ny_loop l = ny_emit_for(e, 0, n, 1, 1, &var);
  r->at[r->axis] = ny_at_one(r->reverse ? ny_dim_sub(e->cx, ny_dim_sub(e->cx, n, 1), var) : var);
  ny_value *next = ny_emit_fold2(e, op, acc, ny_emit_cast(e, ny_emit_at(e, r->x, r->at), sum));
  if (r->exclusive) ny_emit_out(e, 0, r->at, ny_emit_cast(e, acc, f));
  ny_emit_set(e, acc, next);
  if (!r->exclusive) ny_emit_out(e, 0, r->at, ny_emit_cast(e, acc, f));
  ny_emit_end(e, l);
  r->at[last] = first;
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
