/* attention in one kernel: softmax(scale*q k^T + mask) v without the scores ever leaving the first cache. Columns of every tile are queries (m) and rows
   are keys (n) or depth: q is transposed once per grid point, after that k and v are only read as single elements that multiply whole vectors,
   the softmax runs down the rows (no sideways reduction), and the tail of m is the limit of one store. Keys come in blocks; from the second block on
   the sums so far are rescaled (online softmax: Milakov, Gimelshein 2018). The running maximum starts at the lowest finite value, so that a block
   masked with -inf everywhere adds nothing and only a row masked everywhere is 0/0. */
#include <float.h>
#include <math.h>

#include "gpu.h"

enum { STRIP = 4, TURN = 16 };
typedef struct attn {
  const ny_op *op;
  ny_value *q, *k, *v, *mask, *out;
  ny_fmt sum;
  int64_t d, e, block;
  ny_dim m, n, end; /* end: keys that count for this tile */
  int cols, n_rows, e_rows;
  bool one_block;
  ny_coord batch, head;
  ny_dim first;                          /* query of column 0 */
  ny_value *qt, *st, *ot;                /* scratch: [d][cols], [block][cols], [e][cols] */
  ny_value *max, *total, *block_max, *correction; /* [1, cols] */
  ny_value *strip;                                /* [STRIP, cols]: partial maxima, then partial sums, of every STRIP-th row */
  ny_dim n0, count;                      /* the block */
} attn;

static ny_value *ew2(ny_emit *e, ny_kind k, ny_value *a, ny_value *b) { return a && b ? ny_b_ew2(&e->b, k, a, b) : NULL; }

static ny_dim column_limit(ny_emit *e, const attn *s) {
  return ny_dim_divides(e->cx, s->m, s->cols) ? NY_ALL : ny_dim_sub(e->cx, s->m, s->first);
}

static void shape(ny_emit *e, const attn *s, int rows) {
  e->rows = rows, e->cols = s->cols, e->lim[0] = e->lim[1] = NY_ALL;
}

/* Rows of a scratch buffer from `row`. */
static ny_coord at_scratch(ny_emit *e, const attn *s, ny_dim row, bool one) {
  return ny_at(ny_dim_mul(e->cx, row, s->cols), one ? 0 : s->cols, 1);
}

/* Runs body over [0, count) in tiles of `rows`, then single rows. */
typedef void rows_fn(ny_emit *e, attn *s, int rows, ny_dim row);
static void each_row_tile(ny_emit *e, attn *s, ny_dim count, int rows, rows_fn *body) {
  ny_dim row, tiles = ny_dim_div(e->cx, count, rows), full = ny_dim_mul(e->cx, tiles, rows);
  if (tiles == 1) body(e, s, rows, 0);
  else if (tiles != 0) {
    ny_loop l = ny_emit_for(e, 0, tiles, 1, 1, &row);
    body(e, s, rows, ny_dim_mul(e->cx, row, rows));
    ny_emit_end(e, l);
  }
  if (ny_dim_divides(e->cx, count, rows)) return;
  ny_loop l = ny_emit_for(e, full, count, 1, 1, &row);
  body(e, s, 1, row);
  ny_emit_end(e, l);
}

/* qt = scale * q^T */
static void turn_q(ny_emit *e, attn *s) {
  ny_dim row;
  int64_t step = s->d < TURN ? s->d : TURN;
  s->qt = ny_emit_local(e, s->sum, s->d * s->cols);
  for (int64_t part = 0; part < 2; part++) { /* whole steps, then what is left */
    int64_t lo = part ? s->d / step * step : 0, hi = part ? s->d : s->d / step * step;
    if (lo >= hi) continue;
    ny_loop l = ny_emit_for(e, lo, hi, part ? hi - lo : step, 1, &row);
    shape(e, s, (int)(part ? hi - lo : step));
    e->lim[1] = column_limit(e, s);
    ny_coord at[4] = {s->batch, s->head, ny_at_col(s->first), ny_at_row(row)};
    ny_value *t = ny_emit_cast(e, ny_emit_at(e, s->q, at), s->sum);
    double scale = ny_attr_at(s->op, NY_AT(attention, scale))->f;
    if (scale != 1) t = ew2(e, NY_mul, t, ny_emit_num(e, s->sum, scale));
    e->lim[1] = NY_ALL;
    ny_emit_store(e, s->qt, at_scratch(e, s, row, false), t, NULL);
    ny_emit_end(e, l);
  }
  ny_emit_forget(e);
}

static ny_value *hide_later(ny_emit *e, attn *s, ny_value *t, int rows, ny_dim row) {
  ny_value *key = ny_emit_index(e, rows > 1 ? ny_at_row(row) : ny_at_one(row)), *query = ny_emit_index(e, ny_at_col(s->first));
  ny_value *later = ew2(e, NY_gt, key, query);
  return later && t ? ny_b_where(&e->b, later, ny_emit_num(e, s->sum, -INFINITY), t) : NULL;
}

static void score_rows(ny_emit *e, attn *s, int rows, ny_dim row) {
  ny_dim d, key = ny_dim_add(e->cx, s->n0, row);
  shape(e, s, rows);
  ny_value *t = ny_emit_tile(e, s->sum, rows, s->cols, 0);
  ny_loop l = ny_emit_for(e, 0, s->d, 1, 1, &d);
  ny_coord at[4] = {s->batch, s->head, ny_at_row(key), ny_at_one(d)};
  ny_value *q = ny_emit_load(e, s->qt, at_scratch(e, s, d, true));
  ny_emit_mma(e, t, ny_emit_at(e, s->k, at), q);
  ny_emit_end(e, l);
  if (s->mask) {
    ny_coord full[4] = {s->batch, s->head, ny_at_col(s->first), ny_at_row(key)}, to[4];
    ny_type scores = *s->out->type;
    scores.dim[3] = s->n;
    e->lim[1] = column_limit(e, s);
    ny_coord_broadcast(&scores, full, s->mask->type, to);
    t = ew2(e, NY_add, t, ny_emit_cast(e, ny_emit_at(e, s->mask, to), s->sum));
    e->lim[1] = NY_ALL;
  }
  if (ny_attr_at(s->op, NY_AT(attention, causal))->i) t = hide_later(e, s, t, rows, key);
  ny_emit_store(e, s->st, at_scratch(e, s, row, false), t, NULL);
}

/* The larger of two where a NaN may be lost: a NaN score comes back as exp(NaN - max). */
static ny_value *larger(ny_emit *e, ny_value *a, ny_value *b) {
  ny_value *c = ew2(e, NY_gt, a, b);
  return c ? ny_b_where(&e->b, c, a, b) : NULL;
}

static void max_rows(ny_emit *e, attn *s, int rows, ny_dim row) {
  ny_value *to = rows == STRIP ? s->strip : s->block_max;
  shape(e, s, rows);
  ny_emit_set(e, to, larger(e, ny_emit_load(e, s->st, at_scratch(e, s, row, false)), to));
}

static void exp_rows(ny_emit *e, attn *s, int rows, ny_dim row) {
  shape(e, s, rows);
  ny_value *t = ew2(e, NY_sub, ny_emit_load(e, s->st, at_scratch(e, s, row, false)), s->max);
  t = t ? ny_b_ew1(&e->b, NY_exp, t) : NULL;
  ny_emit_store(e, s->st, at_scratch(e, s, row, false), t, NULL);
  ny_value *to = rows == STRIP ? s->strip : s->total;
  ny_emit_set(e, to, ew2(e, NY_add, to, t));
}

static void finish_rows(ny_emit *e, attn *s, int rows, ny_dim row, ny_value *t) {
  shape(e, s, rows);
  ny_value *y = ew2(e, NY_div, t, s->total);
  ny_coord at[4] = {s->batch, s->head, ny_at_col(s->first), rows > 1 ? ny_at_row(row) : ny_at_one(row)};
  e->lim[1] = column_limit(e, s);
  if (y) ny_emit_epilogue(e, s->out, at, y);
}

/* One tile of the result, depth down: adds the block's p v, or the whole of it when there is only one block. */
static void value_rows(ny_emit *e, attn *s, int rows, ny_dim row) {
  ny_dim r;
  shape(e, s, rows);
  ny_value *t = ny_emit_tile(e, s->sum, rows, s->cols, 0);
  if (!s->one_block) ny_emit_set(e, t, ew2(e, NY_mul, ny_emit_load(e, s->ot, at_scratch(e, s, row, false)), s->correction));
  ny_loop l = ny_emit_for(e, 0, s->count, 1, 1, &r);
  ny_coord at[4] = {s->batch, s->head, ny_at_one(ny_dim_add(e->cx, s->n0, r)), rows > 1 ? ny_at_row(row) : ny_at_one(row)};
  ny_value *weight = ny_emit_load(e, s->st, at_scratch(e, s, r, true));
  ny_emit_mma(e, t, ny_emit_at(e, s->v, at), weight);
  ny_emit_end(e, l);
  if (s->one_block) finish_rows(e, s, rows, row, t);
  else ny_emit_store(e, s->ot, at_scratch(e, s, row, false), t, NULL);
}

static void clear_rows(ny_emit *e, attn *s, int rows, ny_dim row) {
  shape(e, s, rows);
  ny_emit_store(e, s->ot, at_scratch(e, s, row, false), ny_emit_tile(e, s->sum, rows, s->cols, 0), NULL);
}

static void end_rows(ny_emit *e, attn *s, int rows, ny_dim row) {
  shape(e, s, rows);
  finish_rows(e, s, rows, row, ny_emit_load(e, s->ot, at_scratch(e, s, row, false)));
}

/* Runs body over the block's rows a strip at a time, the strip starting from `first`; then folds the strip. */
static void in_strips(ny_emit *e, attn *s, ny_value *first, rows_fn *body, const char *how, ny_value *to) {
  shape(e, s, STRIP);
  ny_emit_set(e, s->strip, first);
  each_row_tile(e, s, s->count, STRIP, body);
  shape(e, s, 1);
  ny_emit_set(e, to, ew2(e, ny_reduce_kind(how), to, ny_emit_reduce(e, how, s->strip, 0)));
  ny_emit_forget(e);
}

static void one_block(ny_emit *e, attn *s) {
  each_row_tile(e, s, s->count, s->n_rows, score_rows);
  ny_emit_forget(e);
  ny_emit_set(e, s->block_max, s->max);
  in_strips(e, s, s->max, max_rows, "max", s->block_max);
  if (!s->one_block) {
    ny_value *by = ew2(e, NY_sub, s->max, s->block_max);
    ny_emit_set(e, s->correction, by ? ny_b_ew1(&e->b, NY_exp, by) : NULL);
    ny_emit_set(e, s->total, ew2(e, NY_mul, s->total, s->correction));
  }
  ny_emit_set(e, s->max, s->block_max);
  in_strips(e, s, ny_emit_num(e, s->sum, 0), exp_rows, "sum", s->total);
  each_row_tile(e, s, s->e, s->e_rows, value_rows);
}

static bool read_facts(ny_emit *e, ny_op *op, attn *s) {
  *s = (attn){.op = op, .q = ny_in(op, 0), .k = ny_in(op, 1), .v = ny_in(op, 2), .mask = op->n_in > 3 ? ny_in(op, 3) : NULL, .out = op->out[0]};
  s->sum = ny_sum_fmt((ny_fmt)s->out->type->fmt);
  s->d = s->q->type->dim[3], s->e = s->v->type->dim[3];
  s->m = s->q->type->dim[2], s->n = s->k->type->dim[2];
  if (s->d < 1 || s->e < 1 || s->d > 4096 || s->e > 4096) return false;
  const ny_target *t = e->px->target;
  int lanes = ny_vec_lanes(e->px, s->sum), vectors = s->m >= 0 && s->m <= lanes ? 1 : 2;
  s->cols = (int)ny_knob(e->k, "nr", vectors * lanes);
  vectors = (s->cols + lanes - 1) / lanes;
  int most = ny_rows_max(t, vectors);
  s->n_rows = (int)ny_knob(e->k, "mr", most >= 8 ? 8 : most);
  s->e_rows = (int)ny_knob(e->k, "er", ny_rows_pick(t, s->e, vectors, 0));
  int64_t block = (int64_t)(t->l1d / 2) / (s->cols * (ny_fmts[s->sum].bits / 8)) / s->n_rows * s->n_rows;
  if (block < 4 * s->n_rows) block = 4 * s->n_rows;
  s->one_block = s->n >= 0 && s->n <= block;
  s->block = ny_knob(e->k, "nb", s->one_block && s->n > 0 ? s->n : block);
  s->one_block = s->n >= 0 && s->n <= s->block;
  ny_knob_set(e->k, "nr", s->cols);
  ny_knob_set(e->k, "mr", s->n_rows);
  ny_knob_set(e->k, "er", s->e_rows);
  ny_knob_set(e->k, "nb", s->block);
  return true;
}

static void emit_blocks(ny_emit *e, attn *s) {
  s->end = s->n;
  if (ny_attr_at(s->op, NY_AT(attention, causal))->i) s->end = ny_dim_min(e->cx, s->n, ny_dim_add(e->cx, s->first, s->cols));
  if (s->one_block) {
    s->n0 = 0, s->count = s->end;
    one_block(e, s);
    return;
  }
  s->ot = ny_emit_local(e, s->sum, s->e * s->cols);
  each_row_tile(e, s, s->e, s->e_rows, clear_rows);
  ny_loop l = ny_emit_for(e, 0, s->end, s->block, 1, &s->n0);
  s->count = ny_dim_min(e->cx, s->block, ny_dim_sub(e->cx, s->end, s->n0));
  one_block(e, s);
  ny_emit_end(e, l);
  ny_emit_forget(e);
  each_row_tile(e, s, s->e, s->e_rows, end_rows);
}

nyb_status ny_lower_attention(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  ny_op *op = ny_group_find(group, NY_attention);
  if (!op) return NYB_E_UNSUPPORTED;
  ny_emit e;
  attn s;
  ny_emit_begin(&e, px, group, k, &px->scratch);
  if (ny_on_gpu(px->target)) {
    nyb_status st = ny_gpu_attention(&e, op);
    if (st != NYB_E_UNSUPPORTED || e.failed) return st;
  }
  if (!read_facts(&e, op, &s)) return NYB_E_UNSUPPORTED;
  const ny_type *out = s.out->type;
  s.batch = ny_at_one(out->dim[0] == 1 ? 0 : ny_emit_grid(&e, out->dim[0]));
  s.head = ny_at_one(out->dim[1] == 1 ? 0 : ny_emit_grid(&e, out->dim[1]));
  s.first = ny_dim_mul(e.cx, ny_emit_grid(&e, ny_dim_ceildiv(e.cx, s.m, s.cols)), s.cols);
  turn_q(&e, &s);
  double lowest = s.sum == NY_f64 ? -DBL_MAX : -FLT_MAX;
  s.st = ny_emit_local(&e, s.sum, s.block * s.cols);
  s.max = ny_emit_tile(&e, s.sum, 1, s.cols, lowest);
  s.block_max = ny_emit_tile(&e, s.sum, 1, s.cols, lowest);
  s.total = ny_emit_tile(&e, s.sum, 1, s.cols, 0);
  s.strip = ny_emit_tile(&e, s.sum, STRIP, s.cols, 0);
  s.correction = ny_emit_tile(&e, s.sum, 1, s.cols, 1);
  emit_blocks(&e, &s);
  int64_t keys = s.n >= 0 && s.n < INT32_MAX ? s.n : 256;
  ny_emit_grain(&e, ny_work(keys, (s.d + s.e + 16) * s.cols) / 16);
  return ny_emit_finish(&e);
}
