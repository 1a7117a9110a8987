/* argreduce and topk. Values are compared as integer keys in which -0 equals 0 and a NaN comes after every number, so
   that ties and NaN come out the same on every machine. Where the last dim is searched, lanes search their own part and
   meet at the end; else each lane searches its own column. topk selects: every result is the best key after the one
   before it, so it needs no scratch. On a GPU the lanes of a searched row are the threads of a warp or a block. */
#include <string.h>

#include "gpu.h"

typedef struct search {
  ny_op *op;
  ny_value *x;
  int axis, last;     /* last: the dim in lanes, or -1 */
  bool along;         /* the lanes are the searched dim */
  bool up, nan_first; /* larger keys first; a NaN is first either way */
  bool late;          /* ties: the later position */
  ny_fmt key;
  ny_coord at[NY_MAX_RANK];       /* of x */
  ny_value *best, *where;         /* mutable: key and i64 position per lane; position -1: none yet */
  ny_value *after_key, *after_at; /* only what comes after these, or NULL */
} search;

static ny_value *op2(ny_emit *e, ny_kind k, ny_value *a, ny_value *b) { return ny_b_ew2(&e->b, k, a, b); }
static ny_value *number(ny_emit *e, ny_fmt f, int64_t x) {
  return ny_emit_cast(e, ny_emit_int(e, ny_dim_const(e->cx, x)), f);
}
static ny_value *bitcast(ny_emit *e, ny_value *v, ny_fmt f) {
  const ny_type *t = v ? ny_type_with_fmt(e->cx, v->type, f) : NULL;
  ny_op *op = ny_build(&e->b, NY_bitcast, &v, 1, &t, 1);
  return op ? op->out[0] : NULL;
}

static ny_fmt key_fmt(ny_fmt f) {
  const ny_fmt_info *i = &ny_fmts[f];
  if (i->bits == 64 || f == NY_u32) return NY_i64;
  return NY_i32;
}

/* Signed integer that orders as the values do. */
static ny_value *key_of(ny_emit *e, const search *s, ny_value *v) {
  ny_fmt f = (ny_fmt)s->x->type->fmt;
  bool wide = s->key == NY_i64;
  int64_t most = wide ? INT64_MAX : INT32_MAX;
  if (!ny_is_float(f)) {
    v = ny_emit_cast(e, v, s->key);
    if (f == NY_u64) v = op2(e, NY_xor, v, number(e, NY_i64, INT64_MIN));
    return s->up ? v : ny_b_ew1(&e->b, NY_inv, v);
  }
  v = ny_emit_cast(e, v, wide ? NY_f64 : NY_f32);
  ny_value *nan = ny_b_ew1(&e->b, NY_isnan, v);
  ny_value *bits = bitcast(e, op2(e, NY_add, v, ny_emit_num(e, wide ? NY_f64 : NY_f32, 0)), s->key);
  ny_value *all = number(e, s->key, most);
  ny_value *flip = op2(e, NY_and, op2(e, NY_shr, bits, number(e, s->key, wide ? 63 : 31)), all);
  ny_value *k = op2(e, NY_xor, bits, flip);
  if (!s->up) k = ny_b_ew1(&e->b, NY_inv, k);
  bool top = s->up || s->nan_first;
  return ny_b_where(&e->b, nan, number(e, s->key, top ? most : wide ? INT64_MIN : INT32_MIN), k);
}

static int64_t least(const search *s) { return s->key == NY_i64 ? INT64_MIN : INT32_MIN; }

/* Offers x at the coordinates, found at `pos` along the axis. */
static void offer(ny_emit *e, search *s, ny_value *pos) {
  ny_value *k = key_of(e, s, ny_emit_at(e, s->x, s->at));
  ny_value *none = op2(e, NY_lt, s->where, ny_emit_int(e, 0));
  ny_value *better = op2(e, NY_or, op2(e, s->late ? NY_ge : NY_gt, k, s->best), none);
  if (s->after_key) {
    ny_value *later = op2(e, NY_gt, pos, s->after_at);
    ny_value *tie = op2(e, NY_and, op2(e, NY_eq, k, s->after_key), later);
    better = op2(e, NY_and, better, op2(e, NY_or, op2(e, NY_lt, k, s->after_key), tie));
  }
  if (e->lim[1] != NY_ALL && s->along)
    better = op2(e, NY_and, better, ny_emit_below(e, ny_at_col(0), e->lim[1]));
  ny_emit_set(e, s->where, ny_b_where(&e->b, better, pos, s->where));
  ny_emit_set(e, s->best, ny_b_where(&e->b, better, k, s->best));
}

static void offer_columns(ny_emit *e, void *user, ny_dim lo) {
  search *s = user;
  int full = ny_tile_cols(s->where), cols = e->cols;
  s->at[s->axis] = ny_at_col(lo);
  if (cols < full) { /* a narrower tile at the end: the same lanes, fewer of them */
    e->cols = full;
    e->lim[1] = cols;
  }
  offer(e, s, ny_emit_index(e, ny_at_col(lo)));
  if (cols < full) e->lim[1] = NY_ALL;
  e->cols = cols;
}

/* Searches the whole axis; afterwards best and where are [1,1] when the lanes ran along it. */
static void find(ny_emit *e, search *s, int cols) {
  ny_dim n = s->x->type->dim[s->axis], var;
  s->best = ny_emit_tile(e, s->key, 1, cols, 0);
  s->where = ny_emit_tile(e, NY_i64, 1, cols, -1);
  ny_emit_set(e, s->best, number(e, s->key, least(s)));
  if (!s->along) {
    ny_loop l = ny_emit_for(e, 0, n, 1, ny_gpu_unroll(e, 4), &var);
    s->at[s->axis] = ny_at_one(var);
    offer(e, s, ny_emit_int(e, var));
    ny_emit_end(e, l);
    return;
  }
  ny_emit_columns(e, n, cols, offer_columns, s);
  e->cols = 1;
  if (cols == 1) return;
  ny_value *top = ny_emit_reduce(e, "max", s->best, 1);
  ny_value *found = op2(e, NY_ge, s->where, ny_emit_int(e, 0));
  ny_value *here = op2(e, NY_and, op2(e, NY_eq, s->best, top), found);
  ny_value *pos = ny_b_where(&e->b, here, s->where,
                             s->late ? ny_emit_int(e, ny_dim_const(e->cx, -1)) : number(e, NY_i64, INT64_MAX));
  s->where = ny_emit_reduce(e, s->late ? "max" : "min", pos, 1);
  s->best = top;
}

/* A grid point for each row of the other dims; the last dim, when it is not searched, is cut into tiles. False: no
 * lanes to choose. */
static void open_grid(ny_emit *e, search *s) {
  const ny_type *t = s->x->type;
  for (int i = 0; i < t->rank; i++)
    if (i != s->axis && (i != t->rank - 1 || s->along))
      s->at[i] = ny_at_one(t->dim[i] == 1 ? 0 : ny_emit_grid(e, t->dim[i]));
}

static bool begin(ny_pass_cx *px, ny_op *group, ny_graph *k, ny_kind kind, int axis_slot, ny_emit *e, search *s) {
  *s = (search){.op = ny_group_find(group, kind)};
  if (!s->op || ny_group_yield(group)->n_in > 2) return false;
  for (int i = 0; i < ny_group_yield(group)->n_in; i++)
    if (ny_in(ny_group_yield(group), i)->def != s->op) return false;
  s->x = ny_in(s->op, 0);
  s->axis = ny_axis(s->op->attr[axis_slot].i, s->x->type->rank);
  s->along = s->axis == s->x->type->rank - 1;
  s->key = key_fmt((ny_fmt)s->x->type->fmt);
  ny_emit_begin(e, px, group, k, &px->scratch);
  return true;
}

static void drop_axis(const search *s, ny_coord *out) {
  int n = 0;
  for (int i = 0; i < s->x->type->rank; i++)
    if (i != s->axis) out[n++] = s->at[i];
}

static void argreduce_columns(ny_emit *e, void *user, ny_dim lo) {
  search *s = user;
  ny_coord out[NY_MAX_RANK], *last = &s->at[s->x->type->rank - 1], first = *last;
  *last = ny_at_col(ny_dim_add(e->cx, first.base, lo));
  find(e, s, e->cols);
  drop_axis(s, out);
  ny_emit_out(e, 0, out, s->where);
  *last = first;
}

/* The last dim, not searched, in tiles: a grid point each. */
static void over_columns(ny_emit *e, search *s, int cols, ny_columns_fn *body) {
  ny_dim n = s->x->type->dim[s->x->type->rank - 1], lo = 0, count = n;
  if (ny_on_gpu(e->px->target)) {
    s->at[s->x->type->rank - 1] = ny_at_one(0);
    ny_gpu_columns(e, n, ny_gpu_divides(e->cx, n, ny_gpu_vector(e->group)), body, s);
    return;
  }
  if (n < 0 || n > cols) {
    lo = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, n, cols)), cols);
    count = n > 0 && n % cols == 0 ? cols : ny_dim_min(e->cx, ny_dim_sub(e->cx, n, lo), cols);
  }
  s->at[s->x->type->rank - 1] = ny_at_one(lo);
  ny_emit_columns(e, count, n > 0 && n < cols ? (int)n : cols, body, s);
}

/* Lanes of a row that is searched along: 1 where it is too short to share. */
static int row_lanes(ny_emit *e, const search *s, int lanes) {
  ny_dim n = s->x->type->dim[s->axis];
  if (!ny_on_gpu(e->px->target)) return n >= 0 && n < lanes ? 1 : lanes;
  int64_t rows = ny_gpu_count(s->x->type, 0, s->axis, 64);
  int t = (int)ny_knob(e->k, "threads", ny_gpu_row_threads(n, rows, NY_WARP, 1));
  if (t == 1) return 1;
  ny_gpu_threads(e->k, t, 1);
  return t;
}

static int64_t size_or(ny_dim d, int64_t symbolic) { return d >= 0 && d < 1 << 24 ? d : symbolic; }

nyb_status ny_lower_argreduce(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  search s;
  ny_emit e;
  if (!begin(px, group, k, NY_argreduce, NY_AT(argreduce, axis), &e, &s)) return NYB_E_UNSUPPORTED;
  s.up = !strcmp(s.op->attr[NY_AT(argreduce, op)].s, "max");
  s.nan_first = true;
  s.late = s.op->attr[NY_AT(argreduce, last)].i != 0;
  int lanes = ny_vec_lanes(px, NY_i64);
  ny_dim n = s.x->type->dim[s.axis];
  open_grid(&e, &s);
  if (s.along) {
    ny_coord out[NY_MAX_RANK];
    find(&e, &s, row_lanes(&e, &s, lanes));
    drop_axis(&s, out);
    ny_emit_out(&e, 0, out, s.where);
  } else {
    over_columns(&e, &s, lanes, argreduce_columns);
  }
  ny_emit_grain(&e, size_or(n, 256) * 4 + 8);
  return ny_emit_finish(&e);
}

/* The best `k` one after the other. */
static void select_all(ny_emit *e, search *s, int cols) {
  ny_coord out[NY_MAX_RANK];
  ny_dim var, k = s->op->out[0]->type->dim[s->axis];
  int lanes = s->along ? 1 : cols;
  ny_value *after_key = ny_emit_tile(e, s->key, 1, lanes, 0), *after_at = ny_emit_tile(e, NY_i64, 1, lanes, -1);
  ny_emit_set(e, after_key, number(e, s->key, s->key == NY_i64 ? INT64_MAX : INT32_MAX));
  ny_loop l = ny_emit_for(e, 0, k, 1, 1, &var);
  s->after_key = after_key, s->after_at = after_at;
  if (s->along) e->cols = cols;
  find(e, s, cols);
  ny_emit_set(e, after_key, s->best);
  ny_emit_set(e, after_at, s->where);
  memcpy(out, s->at, sizeof out);
  s->at[s->axis] = ny_at_one(0);
  s->at[s->axis].index = op2(e, NY_max, s->where, ny_emit_int(e, 0)); /* -1 only in lanes that are not stored */
  ny_value *v = ny_emit_at(e, s->x, s->at);
  out[s->axis] = ny_at_one(var);
  const ny_op *yield = ny_group_yield(e->group);
  for (int i = 0; i < yield->n_in; i++) ny_emit_out(e, i, out, ny_in(yield, i)->index == 0 ? v : s->where);
  ny_emit_end(e, l);
  s->after_key = s->after_at = NULL;
}

static void topk_columns(ny_emit *e, void *user, ny_dim lo) {
  search *s = user;
  ny_coord *last = &s->at[s->x->type->rank - 1], first = *last;
  *last = ny_at_col(ny_dim_add(e->cx, first.base, lo));
  select_all(e, s, e->cols);
  *last = first;
}

nyb_status ny_lower_topk(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  search s;
  ny_emit e;
  if (!begin(px, group, k, NY_topk, NY_AT(topk, axis), &e, &s)) return NYB_E_UNSUPPORTED;
  s.up = s.op->attr[NY_AT(topk, largest)].i != 0;
  int lanes = ny_vec_lanes(px, NY_i64);
  ny_dim n = s.x->type->dim[s.axis];
  open_grid(&e, &s);
  if (s.along)
    select_all(&e, &s, row_lanes(&e, &s, lanes));
  else
    over_columns(&e, &s, lanes, topk_columns);
  ny_emit_grain(&e, size_or(n, 256) * size_or(s.op->out[0]->type->dim[s.axis], 16) * 4 + 8);
  return ny_emit_finish(&e);
}
