/* attention on a GPU with the scores kept in registers (FlashAttention: Dao et al. 2022; online softmax: Milakov, Gimelshein 2018). A block takes a tile of
   queries and walks over tiles of keys, rescaling its sums whenever a row's maximum grows. For one query a block's rows are keys instead: each keeps a
   maximum and sums of its own, and they meet at the end. The running maximum starts at the lowest finite value, so that keys masked with -inf add nothing
   and only a query whose keys are all hidden is 0/0. Depths that do not fit in shared memory pass by in steps; wide values are cut into parts, each a
   block's, which computes the scores again. */
#include <float.h>
#include <math.h>

#include "gpu_block.h"

enum { PART = 256, STEP = 64 }; /* columns of values a block has at most; depths that pass by at a time where there are more than twice as many */
typedef struct attn {
  const ny_op *op;
  ny_value *q, *k, *v, *mask, *out;
  ny_fmt sum;
  int64_t d, e, step; /* step: of d, at a time */
  ny_dim m, n, first, column; /* first: query of row 0; column: of the values, where this block begins */
  int cols;                   /* of the values */
  ny_coord batch, head;
  int rows, keys;
  ny_value *max, *total, *acc;
} attn;

static ny_value *ew2(ny_emit *e, ny_kind k, ny_value *a, ny_value *b) { return a && b ? ny_b_ew2(&e->b, k, a, b) : NULL; }
static ny_value *ew1(ny_emit *e, ny_kind k, ny_value *a) { return a ? ny_b_ew1(&e->b, k, a) : NULL; }

static void shape(ny_emit *e, int64_t rows, int64_t cols, ny_dim lim_rows, ny_dim lim_cols) {
  e->rows = (int)rows, e->cols = (int)cols, e->lim[0] = lim_rows, e->lim[1] = lim_cols;
}

static ny_dim limit(ny_emit *e, ny_dim n, ny_dim first, int tile) {
  return ny_dim_divides(e->cx, n, tile) ? NY_ALL : ny_dim_sub(e->cx, n, first);
}

static ny_value *at4(ny_emit *e, const attn *s, ny_value *v, ny_coord row, ny_coord col) {
  return ny_emit_at(e, v, (ny_coord[4]){s->batch, s->head, row, col});
}

static ny_value *scaled(ny_emit *e, const attn *s, ny_value *t) {
  double scale = ny_attr_at(s->op, NY_AT(attention, scale))->f;
  return scale == 1 ? t : ew2(e, NY_mul, t, ny_emit_num(e, s->sum, scale));
}

/* Scores plus mask; keys that do not exist or come after the query are -inf. */
static ny_value *masked(ny_emit *e, const attn *s, ny_value *t, ny_coord query, ny_coord key, int key_axis) {
  ny_dim left = e->lim[key_axis];
  if (s->mask && t) {
    ny_coord full[4] = {s->batch, s->head, query, key}, to[4];
    ny_type scores = *s->out->type;
    scores.dim[3] = s->n;
    ny_coord_broadcast(&scores, full, s->mask->type, to);
    t = ew2(e, NY_add, t, ny_emit_cast(e, ny_emit_at(e, s->mask, to), s->sum));
  }
  ny_value *none = ny_emit_num(e, s->sum, -INFINITY), *hide = NULL;
  if (left != NY_ALL) {
    ny_value *end = ny_emit_int(e, left);
    hide = ew2(e, NY_ge, ny_emit_index(e, key_axis ? ny_at_col(0) : ny_at_row(0)), end);
  }
  if (ny_attr_at(s->op, NY_AT(attention, causal))->i) {
    ny_value *now = ny_emit_index(e, query), *later = ew2(e, NY_gt, ny_emit_index(e, key), now);
    hide = hide ? ew2(e, NY_or, hide, later) : later;
  }
  return hide && t ? ny_b_where(&e->b, hide, none, t) : t;
}

/* New maximum of the rows, given those of a tile of scores: the old sums shrink by what comes back. */
static ny_value *raise_max(ny_emit *e, attn *s, ny_value *tile_max) {
  ny_value *top = ew2(e, NY_max, s->max, tile_max), *by = ew1(e, NY_exp, ew2(e, NY_sub, s->max, top));
  ny_emit_set(e, s->max, top);
  ny_emit_set(e, s->total, ew2(e, NY_mul, s->total, by));
  ny_emit_set(e, s->acc, ew2(e, NY_mul, s->acc, by));
  return top;
}

static double lowest(const attn *s) { return s->sum == NY_f64 ? -DBL_MAX : -FLT_MAX; }

/* Sums begin at 0. With no keys at all the result is 0 (a product over nothing), not 0/0: then the total of exponentials begins at 1. */
static void open_sums(ny_emit *e, attn *s, int cols) {
  int64_t lo, hi;
  ny_dim_bounds(e->cx, s->n, &lo, &hi);
  s->max = ny_emit_tile(e, s->sum, s->rows, 1, lowest(s));
  s->total = ny_emit_tile(e, s->sum, s->rows, 1, 0);
  s->acc = ny_emit_tile(e, s->sum, s->rows, cols, 0);
  if (lo <= 0) ny_emit_set(e, s->total, ny_emit_cast(e, ny_emit_int(e, ny_dim_lt(e->cx, s->n, 1)), s->sum));
}

/* ---- tiles of queries */
static ny_value *query_tile(ny_emit *e, const attn *s, ny_dim d0, ny_dim left) {
  shape(e, s->rows, s->step, limit(e, s->m, s->first, s->rows), left);
  ny_value *q = at4(e, s, s->q, ny_at_row(s->first), ny_at_col(d0));
  return ny_emit_fill(e, ny_gpu_masked(e, q, 1), s->rows, (int)s->step);
}

/* q: the queries, or NULL when they pass by in steps. */
static ny_value *scores(ny_emit *e, const attn *s, ny_value *q, ny_dim n0, ny_dim keys_left) {
  ny_dim var = 0;
  ny_loop l = {0};
  ny_value *t = ny_emit_tile(e, s->sum, s->rows, s->keys, 0);
  if (!q) l = ny_emit_for(e, 0, ny_dim_ceildiv(e->cx, s->d, s->step), 1, 1, &var);
  ny_dim d0 = ny_dim_mul(e->cx, var, s->step), left = s->d % s->step ? ny_dim_sub(e->cx, s->d, d0) : NY_ALL;
  if (!q) q = query_tile(e, s, d0, left);
  shape(e, s->step, s->keys, left, keys_left);
  ny_value *k = ny_gpu_masked(e, at4(e, s, s->k, ny_at_col(n0), ny_at_row(d0)), 0);
  shape(e, s->rows, s->keys, NY_ALL, NY_ALL);
  if (k) ny_emit_mma(e, t, q, ny_emit_fill(e, k, (int)s->step, s->keys));
  ny_emit_end(e, l);
  return t;
}

static void key_tile(ny_emit *e, attn *s, ny_value *q, ny_dim tile) {
  ny_dim n0 = ny_dim_mul(e->cx, tile, s->keys), left = limit(e, s->n, n0, s->keys);
  ny_value *t = scores(e, s, q, n0, left);
  shape(e, s->rows, s->keys, limit(e, s->m, s->first, s->rows), left);
  t = masked(e, s, scaled(e, s, t), ny_at_row(s->first), ny_at_col(n0), 1);
  ny_value *top = raise_max(e, s, ny_emit_reduce(e, "max", t, 1));
  ny_value *p = ew1(e, NY_exp, ew2(e, NY_sub, t, top));
  ny_emit_set(e, s->total, ew2(e, NY_add, s->total, ny_emit_reduce(e, "sum", p, 1)));
  shape(e, s->keys, s->cols, left, limit(e, s->e, s->column, s->cols));
  ny_value *v = ny_gpu_masked(e, at4(e, s, s->v, ny_at_row(n0), ny_at_col(s->column)), 0);
  shape(e, s->rows, s->cols, NY_ALL, NY_ALL);
  ny_fmt narrow = (ny_fmt)s->v->type->fmt;
  if (v) v = ny_emit_fill(e, v, s->keys, s->cols);
  ny_emit_mma(e, s->acc, ny_knob(e->k, "wm", 0) ? ny_emit_cast(e, p, narrow) : p, v);
}

/* Tensor cores want exponentials as narrow as the values, which costs half a bit of the result: only where there is much to multiply. */
static bool large(const attn *s) { return (s->m < 0 || s->m > 32) && (s->n < 0 || s->n > 32); }

/* Rows and keys of a tile, and who holds what: enough queries to share keys, and all operands in shared memory at once. */
static void pick_tile(ny_emit *e, attn *s) {
  const ny_target *t = e->px->target;
  ny_fmt f = (ny_fmt)s->q->type->fmt;
  bool fast = t->sm >= 80 && large(s) && (f == NY_f16 || f == NY_bf16) && s->k->type->fmt == f && s->v->type->fmt == f;
  int64_t bytes = ny_fmts[f].bits / 8, wide = s->d > s->e ? s->d : s->e;
  s->cols = s->e > PART ? PART : (int)s->e;
  s->step = s->d > STEP * 2 ? STEP : s->d > 1 ? (s->d + 3) / 4 * 4 : 1; /* where d is 1 operands do not vary along it */
  s->rows = (int)ny_knob(e->k, "bm", s->m >= 0 && s->m <= 16 ? 16 : (fast || wide <= 128) && !(s->m >= 0 && s->m <= 32) ? 64 : 32);
  int64_t heads = ny_gpu_count(s->out->type, 0, 2, 8), tiles = s->m < 0 ? 4 : (s->m + s->rows - 1) / s->rows;
  while (!fast && s->rows > 32 && heads * tiles < ny_gpu_processors(t) && !ny_knob(e->k, "bm", 0)) s->rows /= 2, tiles *= 2;
  s->keys = (int)ny_knob(e->k, "bn", 64);
  while (s->keys > 16 && ((s->rows + s->keys) * s->step + s->keys * s->cols) * bytes + s->rows * s->keys * 4 > (int64_t)t->shared * 3 / 4) s->keys /= 2;
  if (s->rows == 16 && s->keys > 32) s->keys = 32;
  ny_knob_set(e->k, "bm", s->rows);
  ny_knob_set(e->k, "bn", s->keys);
  if (fast) {
    int wm = s->rows / 16, wn = wide > 128 || wm == 1 ? 2 : 1;
    ny_knob_set(e->k, "threads", NY_WARP * wm * wn);
    ny_knob_set(e->k, "wm", wm);
    ny_knob_set(e->k, "wn", wn);
    return;
  }
  int v = s->sum == NY_f64 ? 2 : 4, tc = s->cols <= 32 || s->keys <= 32 ? 8 : 16, tr = s->rows / (tc == 8 ? 2 : 4);
  if (tr * tc < 64) tr = 64 / tc;
  ny_knob_set(e->k, "threads", (int64_t)tr * tc);
  ny_knob_set(e->k, "tr", tr);
  ny_knob_set(e->k, "u", s->rows / tr < 4 ? s->rows / tr : 4);
  ny_knob_set(e->k, "v", v);
}

static void queries(ny_emit *e, attn *s) {
  ny_ctx *cx = e->cx;
  ny_dim tile, end = s->n;
  pick_tile(e, s);
  s->first = ny_dim_mul(cx, ny_emit_grid(e, ny_dim_ceildiv(cx, s->m, s->rows)), s->rows);
  s->column = s->cols < s->e ? ny_dim_mul(cx, ny_emit_grid(e, ny_dim_ceildiv(cx, s->e, s->cols)), s->cols) : 0;
  if (ny_attr_at(s->op, NY_AT(attention, causal))->i) end = ny_dim_min(cx, s->n, ny_dim_add(cx, s->first, s->rows));
  ny_value *q = s->step < s->d ? NULL : query_tile(e, s, 0, s->step > s->d ? s->d : NY_ALL);
  open_sums(e, s, s->cols);
  ny_loop l = ny_emit_for(e, 0, ny_dim_ceildiv(cx, end, s->keys), 1, 1, &tile);
  key_tile(e, s, q, tile);
  ny_emit_end(e, l);
  shape(e, s->rows, s->cols, limit(e, s->m, s->first, s->rows), limit(e, s->e, s->column, s->cols));
  ny_value *y = ew2(e, NY_div, s->acc, s->total);
  if (y) ny_emit_epilogue(e, s->out, (ny_coord[4]){s->batch, s->head, ny_at_row(s->first), ny_at_col(s->column)}, y);
}

/* ---- one query */
static void one_query(ny_emit *e, attn *s) {
  enum { THREADS = 256, EACH = 2 };
  ny_ctx *cx = e->cx;
  ny_dim tile;
  int v = ny_gpu_divides(cx, s->d, ny_gpu_divides(cx, s->e, ny_gpu_vector(e->group))), tc = 1;
  while (tc < NY_WARP && tc * v < s->d) tc *= 2;
  s->rows = THREADS / tc * EACH;
  ny_gpu_threads(e->k, THREADS, v);
  ny_knob_set(e->k, "tr", THREADS / tc);
  ny_knob_set(e->k, "u", 1);
  shape(e, 1, s->d, NY_ALL, NY_ALL);
  ny_value *q = scaled(e, s, ny_emit_cast(e, at4(e, s, s->q, ny_at_one(0), ny_at_col(0)), s->sum));
  open_sums(e, s, (int)s->e);
  ny_dim end = ny_attr_at(s->op, NY_AT(attention, causal))->i ? ny_dim_min(cx, s->n, 1) : s->n;
  ny_loop l = ny_emit_for(e, 0, ny_dim_ceildiv(cx, end, s->rows), 1, 1, &tile);
  ny_dim n0 = ny_dim_mul(cx, tile, s->rows), left = limit(e, s->n, n0, s->rows);
  shape(e, s->rows, s->d, left, NY_ALL);
  ny_value *k = ny_emit_cast(e, at4(e, s, s->k, ny_at_row(n0), ny_at_col(0)), s->sum);
  ny_value *t = ew2(e, NY_mul, k, q);
  if (t) t = ny_emit_reduce(e, "sum", ny_emit_fill(e, t, s->rows, (int)s->d), 1);
  shape(e, s->rows, 1, left, NY_ALL);
  t = masked(e, s, t, ny_at_one(0), ny_at_row(n0), 0);
  ny_value *p = ew1(e, NY_exp, ew2(e, NY_sub, t, raise_max(e, s, t)));
  ny_emit_set(e, s->total, ew2(e, NY_add, s->total, p));
  shape(e, s->rows, s->e, left, NY_ALL);
  ny_value *value = ny_emit_cast(e, at4(e, s, s->v, ny_at_row(n0), ny_at_col(0)), s->sum);
  ny_emit_set(e, s->acc, ew2(e, NY_add, s->acc, ew2(e, NY_mul, value, p)));
  ny_emit_end(e, l);
  ny_value *weight = ew1(e, NY_exp, ew2(e, NY_sub, s->max, ny_emit_reduce(e, "max", s->max, 0)));
  ny_value *total = ny_emit_reduce(e, "sum", ew2(e, NY_mul, s->total, weight), 0);
  ny_value *sum = ny_emit_reduce(e, "sum", ew2(e, NY_mul, s->acc, weight), 0);
  shape(e, 1, s->e, NY_ALL, NY_ALL);
  ny_value *y = ew2(e, NY_div, sum, total);
  if (y) ny_emit_epilogue(e, s->out, (ny_coord[4]){s->batch, s->head, ny_at_one(0), ny_at_col(0)}, y);
}

nyb_status ny_gpu_attention(ny_emit *e, const ny_op *op) {
  attn s = {.op = op, .q = ny_in(op, 0), .k = ny_in(op, 1), .v = ny_in(op, 2), .mask = op->n_in > 3 ? ny_in(op, 3) : NULL, .out = op->out[0]};
  const ny_type *out = s.out->type;
  s.sum = ny_sum_fmt((ny_fmt)out->fmt);
  s.d = s.q->type->dim[3], s.e = s.v->type->dim[3];
  s.m = s.q->type->dim[2], s.n = s.k->type->dim[2];
  if (s.d < 1 || s.e < 1) return NYB_E_UNSUPPORTED;
  s.batch = ny_at_one(out->dim[0] == 1 ? 0 : ny_emit_grid(e, out->dim[0]));
  s.head = ny_at_one(out->dim[1] == 1 ? 0 : ny_emit_grid(e, out->dim[1]));
  if (s.m == 1 && s.d <= PART && s.e <= PART) one_query(e, &s);
  else queries(e, &s);
  return ny_emit_finish(e);
}
