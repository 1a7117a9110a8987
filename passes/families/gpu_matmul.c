/* matmul on a GPU. Three forms: a block tile over steps of k (gpu_block.c); for few rows of x, which only read y, a block that takes some columns and
   spreads over k, each thread keeping sums of its own until the end, y read in vectors along its columns; and the same for a y that lies the other way
   round, whose columns are then rows of a tile. Rows of x are flattened over the batch when y has none. A convolution that looks at single pixels is a
   matmul whose leading dims of y are 1. */
#include "gpu_block.h"

typedef struct mm {
  ny_value *x, *y, *out;
  ny_fmt sum;
  int rank;
  int64_t packed;
  bool flat; /* y has no batch dims: all leading dims of x are rows */
  ny_dim m, n, k;
  ny_coord lead[NY_MAX_RANK]; /* of the result's batch dims */
  ny_block_sum block;
} mm;

static void read_facts(ny_emit *e, const ny_op *op, mm *s) {
  *s = (mm){.x = ny_in(op, 0), .y = ny_in(op, 1), .out = op->out[0], .flat = true};
  if (op->kind == NY_matmul) s->packed = ny_attr_at(op, NY_AT(matmul, packed))->i;
  const ny_type *x = s->x->type, *y = s->y->type, *out = s->out->type;
  s->rank = out->rank;
  s->sum = ny_sum_fmt((ny_fmt)out->fmt);
  s->k = x->dim[x->rank - 1];
  if (s->k < 0) s->k = y->dim[s->packed ? 1 : y->rank - 2]; /* a number where one of them is */
  s->n = out->dim[out->rank - 1];
  s->m = out->dim[out->rank - 2];
  for (int i = 0; i < y->rank - 2 && !s->packed; i++) s->flat = s->flat && y->dim[i] == 1;
  s->flat = s->flat && (s->packed || x->rank == out->rank);
  for (int i = 0; i < out->rank - 2 && s->flat; i++) s->m = ny_dim_mul(e->cx, s->m, out->dim[i]);
}

/* Coordinates of the batch dims of an operand from those of the result. */
static void batch_at(const mm *s, const ny_type *t, ny_coord *at) {
  for (int i = 0; i < t->rank - 2; i++) at[i] = t->dim[i] == 1 ? ny_at_one(0) : s->lead[s->rank - t->rank + i];
}

/* Of x or the result: all dims but the last from the coordinate of a row. */
static void rows_at(ny_emit *e, const mm *s, const ny_type *t, ny_coord row, ny_coord *at) {
  if (s->flat) {
    ny_coord_split(e, row, t->dim, t->rank - 1, at);
    return;
  }
  batch_at(s, t, at);
  at[t->rank - 2] = row;
}

static ny_value *x_tile(ny_emit *e, const mm *s, ny_coord row, ny_coord k) {
  ny_coord at[NY_MAX_RANK];
  rows_at(e, s, s->x->type, row, at);
  at[s->x->type->rank - 1] = k;
  return ny_emit_at(e, s->x, at);
}

static ny_value *y_tile(ny_emit *e, const mm *s, ny_coord k, ny_coord column) {
  ny_coord at[NY_MAX_RANK];
  int rank = s->y->type->rank;
  if (s->packed) {
    ny_coord part[2];
    ny_coord_split(e, column, (ny_dim[]){s->y->type->dim[0], s->packed}, 2, part);
    at[0] = part[0], at[1] = k, at[2] = part[1];
  } else {
    batch_at(s, s->y->type, at);
    at[rank - 2] = k, at[rank - 1] = column;
  }
  return ny_emit_at(e, s->y, at);
}

static void finish(ny_emit *e, const mm *s, ny_coord row, ny_coord column, ny_value *sum) {
  ny_coord at[NY_MAX_RANK];
  rows_at(e, s, s->out->type, row, at);
  at[s->rank - 1] = column;
  ny_emit_epilogue(e, s->out, at, sum);
}

/* ---- block tiles */
static ny_value *block_a(ny_emit *e, void *user, ny_dim run, ny_dim k0) {
  const mm *s = user;
  (void)run;
  return x_tile(e, s, ny_at_row(s->block.row), ny_at_col(k0));
}
static ny_value *block_b(ny_emit *e, void *user, ny_dim run, ny_dim k0) {
  const mm *s = user;
  (void)run;
  return y_tile(e, s, ny_at_row(k0), ny_at_col(s->block.column));
}

static void block(ny_emit *e, mm *s, int64_t batches) {
  s->block = (ny_block_sum){.k = s->k, .runs = 1, .a = block_a, .b = block_b, .user = s};
  s->block.t = ny_block_pick(e, s->m, s->n, s->k, batches, (ny_fmt)s->x->type->fmt, (ny_fmt)s->y->type->fmt, s->sum);
  ny_block_grid(e, &s->block, s->m, s->n);
  ny_value *sum = ny_block_sums(e, &s->block, s->sum);
  finish(e, s, ny_at_row(s->block.row), ny_at_col(s->block.column), sum);
}

/* ---- packed codes */
enum { CODE_STEP = 128 /* codes along k of a warp's step */, CODE_COLUMNS = 32 /* of a warp */, CODE_ROWS = 16 /* up to which warps share k */ };
typedef struct codes { /* y = codes * scales (* one number), by rows of k */
  ny_value *codes, *scale, *factor;
  int64_t block;
  ny_value *x, *x_scale, *x_factor; /* x: codes of it that are multiplied as they are, or NULL */
  int terms; /* that an element of x is cut into */
  int wm, wn, wk;
} codes;

static codes read_codes(const ny_emit *e, const mm *s) {
  const ny_op *q = s->y->def;
  codes c = {.codes = ny_in(q, 0), .block = q->attr[NY_AT(dequantize, block)].i, .wm = 1, .wn = 1, .wk = 1};
  c.scale = ny_block_scales(q, &c.factor);
  if (ny_scaled_takes(e->px->target, s->out->def)) c.x = ny_in(s->x->def, 0), c.x_scale = ny_block_scales(s->x->def, &c.x_factor);
  c.terms = s->x->type->fmt == NY_bf16 ? 1 : s->x->type->fmt == NY_f16 ? 2 : 3;
  return c;
}

/* Codes by codes: both go through shared memory, 256 along k at a time. */
static void pick_scaled(const ny_emit *e, const mm *s, codes *c, ny_block_tile *t) {
  static const int rows[] = {128, 64, 32};
  int64_t busy = ny_gpu_processors(e->px->target), m = s->m > 0 ? s->m : 256;
  t->m = m <= 16 && s->m > 0 ? (int)m : 32;
  for (size_t i = 0; i < NY_COUNT(rows) && t->m == 32; i++)
    if (m > rows[i] / 2 && (m + rows[i] - 1) / rows[i] * (s->n / 128) >= busy) t->m = rows[i];
  c->wm = t->m > 32 ? 2 : 1;
  c->wn = (m + t->m - 1) / t->m * (s->n / 128) < busy ? 2 : 4;
}

/* Few rows: warps side by side along k, so that every block has much to read at once. Many: as a product of bf16, x read as often as there are tiles of columns. */
static void pick_codes(ny_emit *e, const mm *s, codes *c, ny_block_tile *t) {
  int64_t busy = ny_gpu_processors(e->px->target), row = (int64_t)c->terms * CODE_STEP * 2 * 2, room = (int64_t)e->px->target->shared - 8192;
  bool few = s->m > 0 && s->m <= CODE_ROWS;
  int runs = 1; /* of 128 along k that a warp takes a step */
  if (c->x) {
    pick_scaled(e, s, c, t);
  } else if (few) {
    if (room > 64 << 10) room = 64 << 10;
    for (c->wk = 8; c->wk > 1 && (c->wk * row * s->m > room || c->wk / 2 * CODE_STEP >= s->k);) c->wk /= 2;
    while (c->wk * c->wn < 8 && s->n / (2 * c->wn * CODE_COLUMNS) >= 2 * busy) c->wn *= 2;
    if (c->wk * c->wn == 1) c->wn = 2;
    /* a processor that has one block alone asks for as much as with two */
    if (s->m <= 4 && s->n / (c->wn * CODE_COLUMNS) <= busy && s->k >= 4 * c->wk * CODE_STEP) runs = 2;
    t->m = (int)s->m;
  } else {
    t->m = (s->m > 0 && s->m <= 32) || row * 64 > room ? 32 : 64;
    c->wm = t->m / 32;
    for (c->wn = 4; c->wn > 2 && s->m > 0 && (s->m + t->m - 1) / t->m * (s->n / (c->wn * CODE_COLUMNS)) < busy;) c->wn /= 2;
  }
  t->n = CODE_COLUMNS * c->wn, t->k = c->x ? 2 * CODE_STEP : CODE_STEP * c->wk * runs, t->threads = NY_WARP * c->wm * c->wn * c->wk, t->wm = c->wm, t->wn = c->wn;
  const struct {
    const char *name;
    int value;
  } knob[] = {{"bm", t->m}, {"bn", t->n}, {"bk", t->k}, {"threads", t->threads}, {"wm", c->wm}, {"wn", c->wn}, {"wk", c->wk}, {"stages", c->x ? 3 : 2}};
  for (size_t i = 0; i < NY_COUNT(knob); i++) ny_knob_set(e->k, knob[i].name, knob[i].value);
}

/* The left operand of a step, and with codes its scales. */
static ny_value *left_codes(ny_emit *e, const mm *s, const codes *c, ny_dim k0, ny_value **scale) {
  const ny_block_tile *t = &s->block.t;
  ny_coord row = ny_at_row(s->block.row), at[NY_MAX_RANK];
  ny_dim left = ny_dim_divides(e->cx, s->k, t->k) ? NY_ALL : ny_dim_sub(e->cx, s->k, k0);
  e->rows = t->m, e->cols = t->k, e->lim[0] = s->block.lim_m, e->lim[1] = left;
  if (!c->x) return ny_emit_fill(e, ny_gpu_masked(e, x_tile(e, s, row, ny_at_col(k0)), 1), t->m, t->k);
  rows_at(e, s, c->x->type, row, at);
  at[c->x->type->rank - 1] = ny_at_col(k0);
  ny_value *x = ny_emit_at(e, c->x, at);
  e->cols = t->k / (int)c->block, e->lim[1] = left == NY_ALL ? left : ny_dim_ceildiv(e->cx, left, c->block);
  rows_at(e, s, c->x_scale->type, row, at);
  at[c->x->type->rank - 1] = ny_at_col(ny_dim_div(e->cx, k0, c->block));
  *scale = ny_emit_at(e, c->x_scale, at);
  return *scale ? x : NULL;
}

static ny_value *times_number(ny_emit *e, ny_value *sum, ny_value *factor) {
  ny_coord one[NY_MAX_RANK];
  for (int i = 0; i < NY_MAX_RANK; i++) one[i] = ny_at_one(0);
  ny_value *f = factor ? ny_emit_at(e, factor, one) : NULL;
  return f ? ny_b_ew2(&e->b, NY_mul, sum, ny_emit_cast(e, f, NY_f32)) : sum;
}

static void by_codes(ny_emit *e, mm *s) {
  ny_ctx *cx = e->cx;
  codes c = read_codes(e, s);
  s->block = (ny_block_sum){.k = s->k, .runs = 1};
  ny_block_tile *t = &s->block.t;
  pick_codes(e, s, &c, t);
  ny_block_grid(e, &s->block, s->m, s->n);
  ny_value *sum = ny_emit_tile(e, NY_f32, t->m, t->n, 0);
  ny_dim var, filled = s->y->type->dim[1], column = s->block.column;
  ny_loop l = ny_emit_for(e, 0, ny_dim_ceildiv(cx, s->k, t->k), 1, 1, &var);
  ny_dim k0 = ny_dim_mul(cx, var, t->k), first = ny_dim_mul(cx, var, t->k / c.block), left = ny_dim_divides(cx, filled, t->k) ? NY_ALL : ny_dim_sub(cx, filled, k0);
  ny_value *x_scale = NULL, *x = left_codes(e, s, &c, k0, &x_scale);
  e->rows = t->k, e->cols = t->n, e->lim[0] = left, e->lim[1] = s->block.lim_n;
  ny_value *q = ny_emit_at(e, c.codes, (ny_coord[]){ny_at_col(column), ny_at_row(k0)});
  e->rows = t->k / (int)c.block, e->lim[0] = left == NY_ALL ? left : ny_dim_div(cx, left, c.block);
  ny_value *scale = ny_emit_at(e, c.scale, (ny_coord[]){ny_at_col(column), ny_at_row(first)});
  ny_op *mma = x && q && scale ? ny_build(&e->b, NY_mma, (ny_value *[]){sum, x, q, scale, x_scale}, x_scale ? 5 : 4, NULL, 0) : NULL;
  if (mma) mma->attr[NY_AT(mma, block)].i = c.block;
  ny_emit_end(e, l);
  e->rows = t->m, e->cols = t->n, e->lim[0] = s->block.lim_m, e->lim[1] = s->block.lim_n;
  sum = times_number(e, times_number(e, sum, c.factor), c.x_factor);
  finish(e, s, ny_at_row(s->block.row), ny_at_col(column), sum);
}

/* ---- few rows */
enum { FEW = 16, THREADS = 256 };

static ny_value *product(ny_emit *e, ny_value *a, ny_value *b, ny_fmt sum) {
  a = ny_emit_cast(e, a, sum), b = ny_emit_cast(e, b, sum);
  return a && b ? ny_b_ew2(&e->b, NY_mul, a, b) : NULL;
}

typedef struct thin { /* sums over k of few rows: in a tile whose rows (turned: whose columns) are positions of k */
  mm *s;
  bool turned;
  int64_t batches;
  int rows, cols;
  ny_value *acc[FEW];
} thin;

static ny_value *one_row(ny_emit *e, const thin *t, int64_t i, ny_coord k) { return x_tile(e, t->s, ny_at_one(i), k); }

static void thin_columns(ny_emit *e, void *user, ny_dim lo) {
  thin *t = user;
  mm *s = t->s;
  ny_ctx *cx = e->cx;
  int step = t->turned ? t->cols : t->rows, rows = t->turned ? e->rows : t->rows, cols = t->turned ? t->cols : e->cols;
  ny_dim var, lim = e->lim[!t->turned], limits[2] = {e->lim[0], e->lim[1]};
  for (int64_t i = 0; i < s->m; i++) t->acc[i] = ny_emit_tile(e, s->sum, rows, cols, 0);
  ny_loop l = ny_emit_for(e, 0, ny_dim_ceildiv(cx, s->k, step), 1, 2, &var);
  ny_dim k0 = ny_dim_mul(cx, var, step), left = ny_dim_divides(cx, s->k, step) ? NY_ALL : ny_dim_sub(cx, s->k, k0);
  ny_coord k = t->turned ? ny_at_col(k0) : ny_at_row(k0), column = t->turned ? ny_at_row(lo) : ny_at_col(lo);
  e->rows = rows, e->cols = cols, e->lim[t->turned] = left, e->lim[!t->turned] = lim;
  ny_value *y = ny_gpu_masked(e, y_tile(e, s, k, column), t->turned);
  e->lim[!t->turned] = NY_ALL;
  for (int64_t i = 0; i < s->m; i++) {
    ny_value *p = product(e, ny_gpu_masked(e, one_row(e, t, i, k), t->turned), y, s->sum);
    if (p) ny_emit_set(e, t->acc[i], ny_b_ew2(&e->b, NY_add, t->acc[i], p));
  }
  ny_emit_end(e, l);
  e->rows = t->turned ? rows : 1, e->cols = t->turned ? 1 : cols;
  e->lim[0] = limits[0], e->lim[1] = limits[1];
  for (int64_t i = 0; i < s->m; i++) finish(e, s, ny_at_one(i), column, ny_emit_reduce(e, "sum", t->acc[i], t->turned));
  e->rows = t->turned ? rows : 1, e->cols = t->turned ? t->cols : cols;
}

/* Columns of y as rows of the tile. */
static void thin_turned(ny_emit *e, thin *t) {
  mm *s = t->s;
  int columns = s->n >= 0 && s->n / 16 * t->batches < ny_gpu_processors(e->px->target) ? 8 : 16; /* of y, a block */
  int v = ny_gpu_divides(e->cx, s->k, ny_gpu_vector(e->group));
  int tc = NY_WARP;
  while (tc > 4 && s->k > 0 && s->k <= tc / 2 * v) tc /= 2;
  t->rows = s->n >= 0 && s->n < columns ? (int)s->n : columns, t->cols = tc * v;
  if (t->rows < 1) t->rows = 1;
  ny_gpu_threads(e->k, THREADS, v);
  ny_knob_set(e->k, "tr", THREADS / tc);
  ny_knob_set(e->k, "u", 1);
  ny_dim first = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, s->n, t->rows)), t->rows);
  e->rows = t->rows;
  if (!ny_dim_divides(e->cx, s->n, t->rows)) e->lim[0] = ny_dim_sub(e->cx, s->n, first);
  thin_columns(e, t, first);
}

static void thin_straight(ny_emit *e, thin *t) {
  mm *s = t->s;
  int v = ny_gpu_divides(e->cx, s->n, ny_gpu_vector(e->group)), tc = 1, bytes = ny_fmts[s->y->type->fmt].bits / 8;
  int64_t blocks = ny_gpu_processors(e->px->target);
  while (tc < NY_WARP && tc * v * bytes < 64) tc *= 2; /* a row's part is never less than two sectors */
  if (s->n < 0 || s->n / (2 * tc * v) * t->batches >= blocks) tc *= 2;
  while (tc > 1 && s->n > 0 && s->n <= tc / 2 * v) tc /= 2;
  int tr = THREADS / tc, each = s->m <= 2 ? 4 : s->m <= 4 ? 2 : 1; /* loads of y in flight: as far as registers go */
  while (each > 1 && s->k > 0 && s->k <= tr * each / 2) each /= 2;
  t->rows = tr * each, t->cols = tc * v;
  ny_gpu_threads(e->k, THREADS, v);
  ny_knob_set(e->k, "tr", tr);
  ny_knob_set(e->k, "u", 1);
  ny_gpu_columns(e, s->n, t->cols, thin_columns, t);
}

static bool y_is_turned(ny_emit *e, mm *s) {
  ny_coord at[NY_MAX_RANK];
  if (s->packed) return false;
  for (int i = 0; i < s->rank; i++) s->lead[i] = ny_at_one(0);
  batch_at(s, s->y->type, at);
  at[s->y->type->rank - 2] = ny_at_row(0), at[s->y->type->rank - 1] = ny_at_col(0);
  uint32_t before = e->n_turned;
  bool strided = ny_emit_is_strided(e, s->y, at, NY_WARP, NY_WARP), turned = e->n_turned > before;
  e->n_turned = before;
  return strided && turned;
}

nyb_status ny_gpu_matmul(ny_emit *e, const ny_op *op) {
  mm s;
  read_facts(e, op, &s);
  if (s.packed < 0) {
    by_codes(e, &s);
    return ny_emit_finish(e);
  }
  bool is_thin = s.m > 0 && s.m <= (ny_fmts[s.x->type->fmt].bits < 32 ? FEW / 2 : FEW) && s.k != 1;
  int64_t batches = s.flat ? 1 : ny_gpu_count(s.out->type, 0, s.rank - 2, 8);
  thin t = {.s = &s, .turned = is_thin && y_is_turned(e, &s), .batches = batches};
  for (int i = 0; i < s.rank - 2 && !s.flat; i++) s.lead[i] = ny_at_one(s.out->type->dim[i] == 1 ? 0 : ny_emit_grid(e, s.out->type->dim[i]));
  if (!is_thin) block(e, &s, batches);
  else if (t.turned) thin_turned(e, &t);
  else thin_straight(e, &t);
  return ny_emit_finish(e);
}
