/* scatter_elements and scatter_nd: a copy of x, then the updates in order, because a later one may fall on an earlier
   one. scatter_elements works apart on each position of the dims before its axis where index and x have the same size:
   those are the grid. On a GPU every element of the result looks through the updates for its own, in order; only where
   that is too much work a block copies and then updates. */
#include <string.h>

#include "gpu.h"

typedef struct scat {
  ny_op *op;
  ny_value *x, *index, *updates;
  const char *how;
  int axis, outer;          /* outer: dims that are the grid */
  ny_coord at[NY_MAX_RANK]; /* of what is copied, or of the updates */
  ny_coord to[NY_MAX_RANK];
  int64_t width; /* of a coordinate of scatter_nd */
} scat;

/* Loops over dims [from, to) of t into at. */
static int open_loops(ny_emit *e, const ny_type *t, int from, int to, ny_coord *at, ny_loop *loops) {
  int n = 0;
  for (int i = from; i < to; i++) {
    ny_dim var = 0;
    if (t->dim[i] != 1) loops[n++] = ny_emit_for(e, 0, t->dim[i], 1, 1, &var);
    at[i] = ny_at_one(var);
  }
  return n;
}
static void close_loops(ny_emit *e, ny_loop *loops, int n) {
  while (n > 0) ny_emit_end(e, loops[--n]);
}

static void copy_columns(ny_emit *e, void *user, ny_dim lo) {
  scat *s = user;
  int rank = s->x->type->rank;
  if (rank) ny_coord_split(e, ny_at_col(lo), s->x->type->dim + s->outer, rank - s->outer, s->at + s->outer);
  ny_emit_out(e, 0, s->at, ny_emit_at(e, s->x, s->at));
}

static void copy(ny_emit *e, scat *s, int cols) {
  ny_dim n = 1;
  for (int i = s->outer; i < s->x->type->rank; i++) n = ny_dim_mul(e->cx, n, s->x->type->dim[i]);
  ny_emit_columns(e, n, cols, copy_columns, s);
  e->cols = 1;
  ny_emit_forget(e);
}

static ny_coord wrapped(ny_emit *e, ny_value *i, ny_dim n) {
  i = ny_emit_cast(e, i, NY_i64);
  ny_value *negative = ny_b_ew2(&e->b, NY_lt, i, ny_emit_int(e, 0));
  i = ny_b_where(&e->b, negative, ny_b_ew2(&e->b, NY_add, i, ny_emit_int(e, n)), i);
  ny_value *top = ny_emit_int(e, ny_dim_sub(e->cx, n, 1));
  ny_value *zero = ny_emit_int(e, 0);
  ny_coord c = ny_at_one(0);
  c.index = ny_b_ew2(&e->b, NY_max, ny_b_ew2(&e->b, NY_min, i, top), zero);
  return c;
}

/* x[to] (how)= v. Narrow formats are not stored to by combination: the old element is read first. */
static void put(ny_emit *e, scat *s, ny_value *v) {
  ny_value *buffer = ny_kernel_out(e, 0);
  ny_coord flat = ny_coord_flat(e, s->x->type, s->to);
  if (v && strcmp(s->how, "set") != 0) {
    const char *how = ny_fold_name(s->how, (ny_fmt)v->type->fmt);
    ny_fmt f = (ny_fmt)v->type->fmt, wide = ny_sum_fmt(f);
    ny_value *old = ny_emit_cast(e, ny_emit_load(e, buffer, flat), wide);
    v = ny_emit_cast(e, ny_emit_fold2(e, how, old, ny_emit_cast(e, v, wide)), f);
  }
  ny_emit_store(e, buffer, flat, v, NULL);
}

static bool begin(ny_pass_cx *px, ny_op *group, ny_graph *k, ny_op *op, ny_emit *e, scat *s) {
  const ny_op *yield = ny_group_yield(group);
  if (yield->n_in != 1 || ny_in(yield, 0) != op->out[0]) return false;
  *s = (scat){.op = op, .x = ny_in(op, 0), .index = ny_in(op, 1), .updates = ny_in(op, 2)};
  ny_emit_begin(e, px, group, k, &px->scratch);
  return true;
}

/* ---- every element looks for its updates */
static int64_t work_of(const scat *s) {
  const ny_type *it = s->index->type;
  bool nd = s->op->kind == NY_scatter_nd;
  int64_t updates = nd ? ny_gpu_count(it, 0, it->rank - 1, 256) : ny_gpu_count(it, s->axis, s->axis + 1, 256);
  return ny_work(ny_gpu_count(s->x->type, 0, s->x->type->rank, 256), updates);
}

/* The value so far where the update is another element's, else the update or its combination with it. */
static void offer(ny_emit *e, const scat *s, ny_value *acc, ny_value *hit, ny_value *u) {
  ny_fmt wide = (ny_fmt)acc->type->fmt;
  if (!u || !hit) return;
  u = ny_emit_cast(e, u, wide);
  if (strcmp(s->how, "set") != 0) u = ny_emit_fold2(e, ny_fold_name(s->how, (ny_fmt)s->x->type->fmt), acc, u);
  ny_emit_set(e, acc, ny_b_where(&e->b, hit, u, acc));
}

/* s->to is the element's own place. */
static void search_slices(ny_emit *e, scat *s, ny_value *acc) {
  const ny_type *it = s->index->type, *xt = s->x->type;
  ny_loop loops[NY_MAX_RANK];
  ny_value *hit = NULL;
  int n = open_loops(e, it, 0, it->rank - 1, s->at, loops), k = (int)s->width;
  for (int i = 0; i < k; i++) {
    ny_coord c[NY_MAX_RANK];
    memcpy(c, s->at, sizeof c);
    c[it->rank - 1] = ny_at_one(i);
    ny_value *v = ny_emit_at(e, s->index, c);
    if (!v) return;
    ny_value *here = ny_emit_index(e, s->to[i]);
    ny_value *same = ny_b_ew2(&e->b, NY_eq, wrapped(e, v, xt->dim[i]).index, here);
    hit = hit ? ny_b_ew2(&e->b, NY_and, hit, same) : same;
  }
  if (!hit) hit = ny_emit_num(e, NY_bool, 1);
  memcpy(s->at + it->rank - 1, s->to + k, sizeof *s->at * (size_t)(xt->rank - k));
  offer(e, s, acc, hit, ny_emit_at(e, s->updates, s->at));
  while (n > 0) ny_emit_end(e, loops[--n]);
}

static void search_elements(ny_emit *e, scat *s, ny_value *acc) {
  const ny_type *it = s->index->type, *xt = s->x->type;
  ny_dim holds = 1, var;
  memcpy(s->at, s->to, sizeof s->at);
  for (int i = 0; i < xt->rank; i++)
    if (i != s->axis && it->dim[i] != xt->dim[i]) holds = ny_dim_mul(e->cx, holds, ny_dim_lt(e->cx, s->to[i].base, it->dim[i]));
  ny_loop inside = {0}, l;
  if (holds != 1) inside = ny_gpu_if(e, holds);
  l = ny_emit_for(e, 0, it->dim[s->axis], 1, 4, &var);
  s->at[s->axis] = ny_at_one(var);
  ny_value *i = ny_emit_at(e, s->index, s->at);
  if (!i) return;
  ny_value *here = ny_emit_index(e, s->to[s->axis]);
  ny_value *hit = ny_b_ew2(&e->b, NY_eq, wrapped(e, i, xt->dim[s->axis]).index, here);
  offer(e, s, acc, hit, ny_emit_at(e, s->updates, s->at));
  ny_emit_end(e, l);
  ny_emit_end(e, inside);
}

static void search_columns(ny_emit *e, void *user, ny_dim lo) {
  scat *s = user;
  ny_fmt f = (ny_fmt)s->x->type->fmt;
  if (s->x->type->rank) s->to[s->x->type->rank - 1] = ny_at_col(lo);
  ny_value *v = ny_emit_at(e, s->x, s->to);
  if (!v) return;
  ny_value *acc = ny_emit_tile(e, strcmp(s->how, "set") ? ny_sum_fmt(f) : f, 1, e->cols, 0);
  ny_emit_set(e, acc, ny_emit_cast(e, v, (ny_fmt)acc->type->fmt));
  if (s->op->kind == NY_scatter_nd)
    search_slices(e, s, acc);
  else
    search_elements(e, s, acc);
  ny_emit_out(e, 0, s->to, ny_emit_cast(e, acc, f));
}

static nyb_status search(ny_emit *e, scat *s) {
  const ny_type *it = s->index->type, *xt = s->x->type;
  int last = xt->rank - 1, v = 1;
  bool whole = s->op->kind == NY_scatter_nd || s->axis == last || it->dim[last] == xt->dim[last];
  for (int i = 0; i < last; i++) s->to[i] = ny_at_one(xt->dim[i] == 1 ? 0 : ny_emit_grid(e, xt->dim[i]));
  if (last >= 0 && whole) v = ny_gpu_divides(e->cx, xt->dim[last], ny_gpu_vector(e->group));
  ny_gpu_columns(e, last < 0 ? 1 : xt->dim[last], v, search_columns, s);
  return ny_emit_finish(e);
}

static bool searches(ny_emit *e, const scat *s) {
  return ny_on_gpu(e->px->target) && ny_fmts[s->x->type->fmt].bits >= 8 && work_of(s) <= INT64_C(1) << 32;
}

/* The columns of a block's tile, or of a vector register. */
static int copy_cols(ny_emit *e, const scat *s) {
  enum { THREADS = 256 };
  if (!ny_on_gpu(e->px->target)) return 2 * ny_vec_lanes(e->px, (ny_fmt)s->x->type->fmt);
  if (ny_fmts[s->x->type->fmt].bits < 8) return 32; /* one thread: several must not share a byte */
  int v = ny_gpu_divides(e->cx, ny_type_count(e->cx, s->x->type), ny_gpu_vector(e->group));
  ny_gpu_threads(e->k, THREADS, v);
  return THREADS * v;
}

static nyb_status elements(ny_pass_cx *px, ny_op *group, ny_graph *k, ny_op *op) {
  scat s;
  ny_emit e;
  ny_loop loops[NY_MAX_RANK];
  if (!begin(px, group, k, op, &e, &s)) return NYB_E_UNSUPPORTED;
  const ny_type *it = s.index->type, *xt = s.x->type;
  s.how = op->attr[NY_AT(scatter_elements, op)].s;
  s.axis = ny_axis(op->attr[NY_AT(scatter_elements, axis)].i, xt->rank);
  if (searches(&e, &s)) return search(&e, &s);
  int64_t point = 1;
  bool whole_bytes = ny_fmts[xt->fmt].bits >= 8;
  while (whole_bytes && s.outer < s.axis && it->dim[s.outer] == xt->dim[s.outer]) s.outer++;
  for (int i = 0; i < s.outer; i++) s.at[i] = ny_at_one(xt->dim[i] == 1 ? 0 : ny_emit_grid(&e, xt->dim[i]));
  for (int i = s.outer; i < xt->rank; i++)
    if (xt->dim[i] > 0 && point < 1 << 24) point *= xt->dim[i];
  copy(&e, &s, copy_cols(&e, &s));
  int n = open_loops(&e, it, s.outer, it->rank, s.at, loops);
  memcpy(s.to, s.at, sizeof s.to);
  ny_value *i = ny_emit_at(&e, s.index, s.at);
  if (i) s.to[s.axis] = wrapped(&e, i, xt->dim[s.axis]);
  put(&e, &s, ny_emit_at(&e, s.updates, s.at));
  close_loops(&e, loops, n);
  ny_emit_grain(&e, point);
  return ny_emit_finish(&e);
}

static void update_columns(ny_emit *e, void *user, ny_dim lo) {
  scat *s = user;
  int rank = s->x->type->rank, lead = s->index->type->rank - 1, k = (int)s->width;
  ny_coord_split(e, ny_at_col(lo), s->x->type->dim + k, rank - k, s->to + k);
  memcpy(s->at + lead, s->to + k, sizeof *s->at * (size_t)(rank - k));
  put(e, s, ny_emit_at(e, s->updates, s->at));
}

static nyb_status slices(ny_pass_cx *px, ny_op *group, ny_graph *k, ny_op *op) {
  scat s;
  ny_emit e;
  ny_loop loops[NY_MAX_RANK];
  if (!begin(px, group, k, op, &e, &s)) return NYB_E_UNSUPPORTED;
  const ny_type *it = s.index->type, *xt = s.x->type;
  s.how = op->attr[NY_AT(scatter_nd, op)].s;
  if (!ny_dim_is_const(e.cx, it->dim[it->rank - 1], &s.width) || s.width > xt->rank) return NYB_E_UNSUPPORTED;
  if (searches(&e, &s)) return search(&e, &s);
  int cols = copy_cols(&e, &s);
  copy(&e, &s, cols);
  int n = open_loops(&e, it, 0, it->rank - 1, s.at, loops);
  for (int i = 0; i < s.width; i++) {
    ny_coord c[NY_MAX_RANK];
    memcpy(c, s.at, sizeof c);
    c[it->rank - 1] = ny_at_one(i);
    ny_value *v = ny_emit_at(&e, s.index, c);
    if (v) s.to[i] = wrapped(&e, v, xt->dim[i]);
  }
  ny_dim run = 1;
  for (int i = (int)s.width; i < xt->rank; i++) run = ny_dim_mul(e.cx, run, xt->dim[i]);
  ny_emit_columns(&e, run, run > 0 && run < cols ? (int)run : cols, update_columns, &s);
  close_loops(&e, loops, n);
  return ny_emit_finish(&e);
}

nyb_status ny_lower_scatter(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  ny_op *op = ny_group_find(group, NY_scatter_elements);
  if (op) return elements(px, group, k, op);
  op = ny_group_find(group, NY_scatter_nd);
  return op ? slices(px, group, k, op) : NYB_E_UNSUPPORTED;
}
