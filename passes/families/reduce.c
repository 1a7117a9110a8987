/* reduce: one reduction over any dims, with elementwise ops on its input and on its result. Where the last dim stays,
   its elements are lanes and the reduced dims are loops around them; where it goes, lanes run along it and meet at the
   end. On a GPU lanes are threads: one a vector of results, or a block that shares a reduced dim where results are few;
   reduced dims at the end are one run. */
#include "gpu.h"

typedef struct red {
  ny_op *op;
  const ny_type *x;
  bool gone[NY_MAX_RANK];
  int last; /* dim in lanes, -1 for a scalar input */
  int run;  /* the first of the dims that are columns together, up to the last; elsewhere than on a GPU that is the last itself */
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
    if (!r->gone[i] || i >= r->run) continue;
    ny_dim var = 0;
    if (r->x->dim[i] != 1) loops[n++] = ny_emit_for(e, 0, r->x->dim[i], 1, ny_gpu_unroll(e, 8), &var);
    r->at[i] = ny_at_one(var);
  }
  return n;
}

static void add_columns(ny_emit *e, void *user, ny_dim lo) {
  red *r = user;
  if (r->last >= 0) ny_coord_split(e, ny_at_col(lo), r->x->dim + r->run, r->x->rank - r->run, r->at + r->run);
  ny_fold_add(e, &r->acc, ny_emit_at(e, ny_in(r->op, 0), r->at));
}

/* The last dim is reduced too. */
static void along(ny_emit *e, red *r) {
  ny_loop loops[NY_MAX_RANK];
  ny_dim count = 1;
  for (int i = r->run; r->last >= 0 && i <= r->last; i++) count = ny_dim_mul(e->cx, count, r->x->dim[i]);
  r->acc = ny_fold_open(e, r->name, (ny_fmt)r->x->fmt, count, r->cols);
  int n = open_loops(e, r, loops);
  ny_emit_columns(e, count, r->cols, add_columns, r);
  while (n > 0) ny_emit_end(e, loops[--n]);
  ny_value *v = ny_fold_close(e, &r->acc, (ny_fmt)r->op->out[0]->type->fmt);
  e->cols = 1;
  for (int i = r->run; r->last >= 0 && i <= r->last; i++) r->at[i] = ny_at_one(0);
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

/* ---- on a GPU */
static void gpu_along(ny_emit *e, red *r, int64_t results) {
  while (r->run > 0 && r->gone[r->run - 1]) r->run--;
  ny_dim count = 1;
  for (int i = r->run; r->last >= 0 && i <= r->last; i++) count = ny_dim_mul(e->cx, count, r->x->dim[i]);
  int v = ny_gpu_divides(e->cx, count, ny_gpu_vector(e->group));
  int t = (int)ny_knob(e->k, "threads", ny_gpu_row_threads(count, results, 32, v));
  int64_t tile = t > 1 ? (int64_t)t * 8 : 16;
  r->cols = (int)(count > 0 && count < tile ? count : tile);
  if (t > 1) ny_gpu_threads(e->k, t, v);
  along(e, r);
}

/* A block shares the reduced dim `by`: a tile of its elements by columns accumulates, and is folded at the end. */
typedef struct shared_dim {
  red *r;
  int by, rows;
} shared_dim;

static void across_rows(ny_emit *e, void *user, ny_dim lo) {
  shared_dim *s = user;
  red *r = s->r;
  ny_loop loops[NY_MAX_RANK];
  ny_fmt f = ny_sum_fmt((ny_fmt)r->x->fmt);
  const char *op = ny_fold_name(r->name, (ny_fmt)r->x->fmt);
  ny_dim n = r->x->dim[s->by], var;
  r->at[r->last] = ny_at_col(lo);
  ny_value *acc = ny_emit_identity(e, op, f, s->rows, e->cols);
  r->gone[s->by] = false;
  int depth = open_loops(e, r, loops);
  r->gone[s->by] = true;
  ny_loop l = ny_emit_for(e, 0, ny_dim_ceildiv(e->cx, n, s->rows), 1, 2, &var);
  ny_dim first = ny_dim_mul(e->cx, var, s->rows);
  r->at[s->by] = ny_at_row(first);
  e->rows = s->rows;
  bool part = !ny_dim_divides(e->cx, n, s->rows);
  if (part) e->lim[0] = ny_dim_sub(e->cx, n, first);
  ny_value *v = ny_emit_cast(e, ny_emit_at(e, ny_in(r->op, 0), r->at), f);
  if (v && part) {
    ny_value *exists = ny_emit_below(e, ny_at_row(0), e->lim[0]);
    v = ny_b_where(&e->b, exists, v, ny_emit_identity(e, op, f, 1, 1));
  }
  ny_emit_set(e, acc, ny_emit_fold2(e, op, acc, v));
  ny_emit_end(e, l);
  e->rows = 1, e->lim[0] = NY_ALL;
  while (depth > 0) ny_emit_end(e, loops[--depth]);
  r->at[s->by] = ny_at_one(0);
  finish(e, r, ny_emit_cast(e, ny_emit_reduce(e, op, acc, 0), (ny_fmt)r->op->out[0]->type->fmt));
}

/* The longest reduced dim. */
static int longest(const red *r) {
  int best = -1;
  for (int i = 0; i < r->last; i++)
    if (r->gone[i] && (best < 0 || ny_gpu_count(r->x, i, i + 1, 1 << 12) >= ny_gpu_count(r->x, best, best + 1, 1 << 12)))
      best = i;
  return best;
}

static void gpu_across(ny_emit *e, red *r, int64_t results) {
  enum { FULL = 32768, LONG = 64, THREADS = 256 };
  ny_dim n = r->x->dim[r->last];
  int v = ny_gpu_divides(e->cx, n, ny_gpu_vector(e->group)), by = longest(r);
  int64_t deep = by < 0 ? 1 : ny_gpu_count(r->x, by, by + 1, 256), wide = n < 0 ? 256 : n;
  bool share = ny_knob(e->k, "share", results / v < FULL && deep >= LONG) != 0 && by >= 0;
  if (!share) {
    r->at[r->last] = ny_at_one(0);
    ny_gpu_columns(e, n, v, across, r);
    return;
  }
  int tc = 4;
  int64_t blocks = ny_gpu_processors(e->px->target) / 2; /* that a wide row is cut into: a short piece is still a line of memory */
  while (tc < NY_WARP && (int64_t)tc * v < wide && (tc < 8 || wide / ((int64_t)tc * 2 * v) * (results / wide + 1) >= blocks)) tc *= 2;
  shared_dim s = {r, by, THREADS / tc * 4};
  while (s.rows > THREADS / tc && s.rows / 2 >= deep) s.rows /= 2;
  ny_knob_set(e->k, "share", 1);
  ny_gpu_threads(e->k, THREADS, v);
  ny_knob_set(e->k, "tr", THREADS / tc);
  ny_knob_set(e->k, "u", 1);
  ny_gpu_columns(e, n, tc * v, across_rows, &s);
}

static void lower_gpu(ny_emit *e, red *r) {
  int64_t results = 1;
  for (int i = 0; i < r->x->rank; i++)
    if (!r->gone[i]) results = ny_work(results, ny_gpu_count(r->x, i, i + 1, 64));
  if (r->last >= 0 && !r->gone[r->last])
    gpu_across(e, r, results);
  else
    gpu_along(e, r, results);
}

nyb_status ny_lower_reduce(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  red r = {.op = ny_group_find(group, NY_reduce)};
  ny_emit e;
  if (!r.op || ny_group_yield(group)->n_in != 1) return NYB_E_UNSUPPORTED;
  r.x = ny_in(r.op, 0)->type;
  r.last = r.run = r.x->rank - 1;
  r.name = r.op->attr[NY_AT(reduce, op)].s;
  if (!ny_reduced_dims(k->cx, r.op, r.gone)) return NYB_E_UNSUPPORTED;
  ny_emit_begin(&e, px, group, k, &px->scratch);
  ny_fmt f = ny_sum_fmt((ny_fmt)r.x->fmt);
  r.cols = ny_vec_lanes(px, f) * 4;
  bool stays = r.last >= 0 && !r.gone[r.last];
  for (int i = 0; i < r.x->rank; i++)
    if (!r.gone[i] && i != r.last) r.at[i] = ny_at_one(r.x->dim[i] == 1 ? 0 : ny_emit_grid(&e, r.x->dim[i]));
  int64_t work = reduced_size(&r);
  if (ny_on_gpu(px->target)) {
    lower_gpu(&e, &r);
    return ny_emit_finish(&e);
  }
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
