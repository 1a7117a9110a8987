/* Columns and folds: the loop over the columns of a row, and reductions along it. Lanes accumulate on their own and
   meet once at the end, so a sum is associated differently from the evaluator's; narrow floats sum in f32, bool and
   narrow integers in 32 bits. */
#include <string.h>

#include "emit.h"

void ny_emit_columns(ny_emit *e, ny_dim count, int cols, ny_columns_fn *body, void *user) {
  ny_dim var, whole = ny_dim_mul(e->cx, ny_dim_div(e->cx, count, cols), cols), rest = ny_dim_sub(e->cx, count, whole);
  e->cols = cols;
  if (whole == cols) {
    body(e, user, 0);
  } else if (whole != 0) {
    ny_loop l = ny_emit_for(e, 0, ny_dim_div(e->cx, count, cols), 1, 1, &var); /* steps of one: a multiple of cols is known as such */
    body(e, user, ny_dim_mul(e->cx, var, cols));
    ny_emit_end(e, l);
  }
  if (rest > 0) {
    e->cols = (int)rest;
    body(e, user, whole);
  } else if (rest != 0) {
    ny_loop l = ny_emit_for(e, 0, ny_dim_lt(e->cx, 0, rest), 1, 1, &var);
    e->lim[1] = rest;
    body(e, user, whole);
    e->lim[1] = NY_ALL;
    ny_emit_end(e, l);
  }
}

/* A bool sum is "any" and a product "all": in integers that is the larger and the smaller. */
const char *ny_fold_name(const char *op, ny_fmt from) {
  if (from != NY_bool) return op;
  return !strcmp(op, "sum") || !strcmp(op, "max") ? "max" : "min";
}

ny_value *ny_emit_identity(ny_emit *e, const char *op, ny_fmt f, int rows, int cols) {
  ny_value *t = ny_emit_tile(e, f, rows, cols, f == NY_i64 || f == NY_u64 ? 0 : ny_reduce_identity(op, f));
  if (f != NY_i64 && f != NY_u64) return t;
  bool least = !strcmp(op, "max"), most = !strcmp(op, "min");
  int64_t x = !strcmp(op, "prod");
  if (least) x = f == NY_i64 ? INT64_MIN : 0;
  if (most) x = f == NY_i64 ? INT64_MAX : -1;
  if (x) ny_emit_set(e, t, ny_emit_cast(e, ny_emit_int(e, ny_dim_const(e->cx, x)), f));
  return t;
}

ny_value *ny_emit_fold2(ny_emit *e, const char *op, ny_value *a, ny_value *b) {
  return ny_b_ew2(&e->b, ny_reduce_kind(op), a, b);
}

ny_fold_acc ny_fold_open(ny_emit *e, const char *op, ny_fmt f, ny_dim count, int cols) {
  ny_fold_acc acc = {.op = ny_fold_name(op, f), .fmt = ny_sum_fmt(f)};
  if (count < 0 || count >= cols) acc.lanes = ny_emit_identity(e, acc.op, acc.fmt, 1, cols);
  if (count >= 0 && count % cols) acc.rest = ny_emit_identity(e, acc.op, acc.fmt, 1, 1);
  if (!acc.lanes && !acc.rest) acc.rest = ny_emit_identity(e, acc.op, acc.fmt, 1, 1);
  return acc;
}

ny_fold_acc ny_fold_once(const char *op, ny_fmt f) {
  return (ny_fold_acc){.op = ny_fold_name(op, f), .fmt = ny_sum_fmt(f)};
}

/* Only columns that exist count. */
static ny_value *masked(ny_emit *e, const ny_fold_acc *acc, ny_value *v) {
  if (e->lim[1] == NY_ALL) return v;
  ny_value *exists = ny_emit_below(e, ny_at_col(0), e->lim[1]);
  return ny_b_where(&e->b, exists, v, ny_emit_identity(e, acc->op, acc->fmt, 1, 1));
}

void ny_fold_add(ny_emit *e, ny_fold_acc *acc, ny_value *v) {
  if (!v) return;
  v = masked(e, acc, ny_emit_cast(e, v, acc->fmt));
  v = ny_emit_fill(e, v, 1, e->cols);
  if (!acc->lanes && !acc->rest)
    acc->rest = ny_emit_reduce(e, acc->op, v, 1);
  else if (acc->lanes && e->cols == ny_tile_cols(acc->lanes))
    ny_emit_set(e, acc->lanes, ny_emit_fold2(e, acc->op, acc->lanes, v));
  else
    ny_emit_set(e, acc->rest, ny_emit_fold2(e, acc->op, acc->rest, ny_emit_reduce(e, acc->op, v, 1)));
}

ny_value *ny_fold_close(ny_emit *e, ny_fold_acc *acc, ny_fmt to) {
  ny_value *v = acc->lanes ? ny_emit_reduce(e, acc->op, acc->lanes, 1) : acc->rest;
  if (acc->lanes && acc->rest) v = ny_emit_fold2(e, acc->op, v, acc->rest);
  return ny_emit_cast(e, v, to);
}
