/* matmul: one grid point is one register tile of the result, summed over all of k. Rows of x are flattened over the batch when y has none.
   Order of the grid: batch, row blocks (as much of x as half the second cache holds), column panels, row tiles; so a panel of y stays in the first or
   second cache while the rows of a block pass by. A y whose columns are not adjacent (a transposed activation) is first copied, panel by panel, to
   scratch; then one grid point is a whole panel. */
#include "gpu.h"

typedef struct mm {
  ny_value *x, *y, *out;
  ny_fmt sum;
  int rank, vectors, cols; /* cols: width of a tile */
  int64_t packed;
  bool flat;               /* y has no batch dims: all leading dims of x are rows */
  ny_dim m, n, k;
  ny_coord lead[NY_MAX_RANK]; /* of the result's batch dims */
  ny_dim panel;               /* first column / cols */
  ny_value *local;            /* copied panel, or NULL */
} mm;

static void read_facts(ny_emit *e, const ny_op *op, mm *s) {
  *s = (mm){.x = ny_in(op, 0), .y = ny_in(op, 1), .out = op->out[0], .packed = ny_attr_at(op, NY_AT(matmul, packed))->i};
  const ny_type *x = s->x->type, *y = s->y->type, *out = s->out->type;
  s->rank = out->rank;
  s->sum = ny_sum_fmt((ny_fmt)out->fmt);
  s->k = x->dim[x->rank - 1];
  s->n = out->dim[out->rank - 1];
  s->m = out->dim[out->rank - 2];
  s->flat = s->packed > 0;
  if (!s->flat) {
    s->flat = true;
    for (int i = 0; i < y->rank - 2; i++) s->flat = s->flat && y->dim[i] == 1;
    s->flat = s->flat && x->rank == out->rank;
  }
  if (s->flat)
    for (int i = 0; i < out->rank - 2; i++) s->m = ny_dim_mul(e->cx, s->m, out->dim[i]);
}

static void pick_tile(ny_emit *e, mm *s, int *rows) {
  int lanes = ny_vec_lanes(e->px, s->sum);
  const ny_target *t = e->px->target;
  if (s->packed) s->cols = (int)s->packed;
  else s->cols = lanes * ny_vectors_pick(t, s->m, s->n, lanes);
  s->cols = (int)ny_knob(e->k, "nr", s->cols);
  if (s->packed) s->cols = (int)s->packed;
  s->vectors = (s->cols + lanes - 1) / lanes;
  int64_t stride = s->k > 0 && s->k < INT32_MAX ? s->k * ny_fmts[s->x->type->fmt].bits / 8 : 0;
  *rows = (int)ny_knob(e->k, "mr", ny_rows_pick(t, s->m, s->vectors, stride));
  ny_knob_set(e->k, "mr", *rows);
  ny_knob_set(e->k, "nr", s->cols);
}

/* Coordinates of the batch dims of an operand from those of the result. */
static void batch_at(const mm *s, const ny_type *t, ny_coord *at) {
  for (int i = 0; i < t->rank - 2; i++)
    at[i] = t->dim[i] == 1 ? ny_at_one(0) : s->lead[s->rank - t->rank + i];
}

static void y_at(const mm *s, ny_dim panel, ny_coord k, ny_coord *at) {
  const ny_type *y = s->y->type;
  if (s->packed) {
    at[0] = ny_at_one(panel), at[1] = k, at[2] = ny_at_col(0);
    return;
  }
  batch_at(s, y, at);
  at[y->rank - 2] = k;
}

static void columns(ny_emit *e, const mm *s, ny_coord *at, int dim) {
  at[dim] = ny_at_col(ny_dim_mul(e->cx, s->panel, s->cols));
}

static ny_dim column_limit(ny_emit *e, const mm *s) {
  if (ny_dim_divides(e->cx, s->n, s->cols)) return NY_ALL;
  return ny_dim_sub(e->cx, s->n, ny_dim_mul(e->cx, s->panel, s->cols));
}

static void flat_rows(ny_emit *e, const mm *s, const ny_type *t, ny_dim row, ny_coord *at) {
  if (s->flat) ny_coord_split(e, ny_at_row(row), t->dim, t->rank - 1, at);
  else batch_at(s, t, at), at[t->rank - 2] = ny_at_row(row);
}

static ny_value *y_tile(ny_emit *e, const mm *s, ny_coord k) {
  ny_coord at[NY_MAX_RANK];
  if (s->local) {
    e->lim[1] = NY_ALL;
    return ny_emit_load(e, s->local, ny_at(ny_dim_mul(e->cx, k.base, s->cols), ny_dim_mul(e->cx, k.rs, s->cols), 1));
  }
  e->lim[1] = s->packed ? NY_ALL : column_limit(e, s);
  y_at(s, s->panel, k, at);
  if (!s->packed) columns(e, s, at, s->y->type->rank - 1);
  return ny_emit_at(e, s->y, at);
}

static void tile(ny_emit *e, void *user, int rows, ny_dim row) {
  mm *s = user;
  ny_coord at[NY_MAX_RANK];
  ny_dim k;
  e->rows = rows, e->cols = s->cols, e->lim[0] = e->lim[1] = NY_ALL;
  ny_value *sum = ny_emit_tile(e, s->sum, rows, s->cols, 0);
  ny_loop l = ny_emit_for(e, 0, s->k, 1, (int)ny_knob(e->k, "ku", 1), &k);
  const ny_type *x = s->x->type;
  flat_rows(e, s, x, row, at);
  at[x->rank - 1] = ny_at_one(k);
  ny_value *a = ny_emit_at(e, s->x, at);
  ny_emit_mma(e, sum, a, y_tile(e, s, ny_at_one(k)));
  ny_emit_end(e, l);
  e->lim[1] = column_limit(e, s);
  flat_rows(e, s, s->out->type, row, at);
  columns(e, s, at, s->rank - 1);
  ny_emit_epilogue(e, s->out, at, sum);
}

/* Copies panel of y to scratch, sixteen rows at a time: k down, columns across. */
static void copy_panel(ny_emit *e, mm *s) {
  enum { STEP = 16 };
  ny_dim k, step = s->k >= 0 && s->k < STEP ? s->k : STEP;
  ny_value *to = ny_emit_local(e, s->sum, ny_dim_mul(e->cx, s->k, s->cols));
  ny_loop l = ny_emit_for(e, 0, s->k, step, 1, &k);
  ny_coord at[NY_MAX_RANK];
  e->rows = (int)step, e->cols = s->cols;
  e->lim[0] = ny_dim_divides(e->cx, s->k, step) ? NY_ALL : ny_dim_sub(e->cx, s->k, k);
  e->lim[1] = column_limit(e, s);
  y_at(s, s->panel, ny_at_row(k), at);
  columns(e, s, at, s->y->type->rank - 1);
  ny_value *t = ny_emit_at(e, s->y, at);
  if (t) t = ny_emit_fill(e, ny_emit_cast(e, t, s->sum), e->rows, e->cols);
  e->lim[1] = NY_ALL;
  if (t) ny_emit_store(e, to, ny_at(ny_dim_mul(e->cx, k, s->cols), s->cols, 1), t, NULL);
  ny_emit_end(e, l);
  ny_emit_forget(e);
  s->local = to;
}

/* Worth a copy: y would be read element by element, more than once, and a panel fits in half the second cache. */
static bool wants_copy(ny_emit *e, const mm *s, int rows) {
  int64_t bytes;
  if (s->packed || s->k <= 0 || s->k > INT32_MAX || (s->m >= 0 && s->m <= rows)) return false;
  bytes = s->k * s->cols * (ny_fmts[s->sum].bits / 8);
  if (bytes > (int64_t)(e->px->target->l2 / 2)) return false;
  ny_coord at[NY_MAX_RANK];
  mm zero = *s;
  for (int i = 0; i < s->rank; i++) zero.lead[i] = ny_at_one(0);
  y_at(&zero, 0, ny_at_one(0), at);
  at[s->y->type->rank - 1] = ny_at_col(0);
  return ny_emit_is_strided(e, s->y, at, 1, s->cols);
}

/* Row tiles a block holds, so that its part of x fits in half the second cache. */
static int64_t block_tiles(const ny_emit *e, const mm *s, const ny_rows *r) {
  if (r->tiles < 0 || s->k <= 0 || s->k > INT32_MAX) return INT64_MAX;
  int64_t bytes = s->k * r->rows * ny_fmts[s->x->type->fmt].bits / 8, room = (int64_t)(e->px->target->l2 / 2);
  int64_t fit = bytes > 0 ? room / bytes : 1;
  if (fit < 4) fit = 4;
  int64_t blocks = (r->tiles + fit - 1) / fit;
  return blocks > 1 ? (r->tiles + blocks - 1) / blocks : INT64_MAX;
}

static void emit_direct(ny_emit *e, mm *s, const ny_rows *r, ny_dim panels) {
  int64_t in_block = ny_knob(e->k, "block", block_tiles(e, s, r));
  ny_dim index;
  if (r->tiles >= 0 && in_block > 0 && in_block < r->tiles) {
    ny_dim block = ny_emit_grid(e, (r->tiles + in_block - 1) / in_block);
    s->panel = ny_emit_grid(e, panels);
    index = ny_dim_add(e->cx, ny_dim_mul(e->cx, block, in_block), ny_emit_grid(e, in_block));
    if (r->tiles % in_block) index = ny_dim_min(e->cx, index, r->tiles - 1);
    ny_knob_set(e->k, "block", in_block);
  } else {
    s->panel = ny_emit_grid(e, panels);
    index = ny_emit_grid(e, r->tiles);
  }
  ny_rows_emit(e, r, index, tile, s);
}

static void emit_copied(ny_emit *e, mm *s, const ny_rows *r, ny_dim panels) {
  ny_dim index;
  s->panel = ny_emit_grid(e, panels);
  copy_panel(e, s);
  ny_loop l = ny_emit_for(e, 0, r->tiles, 1, 1, &index);
  ny_rows_emit(e, r, index, tile, s);
  ny_emit_end(e, l);
}

nyb_status ny_lower_matmul(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  ny_op *op = ny_group_find(group, NY_matmul);
  if (!op) return NYB_E_UNSUPPORTED;
  ny_emit e;
  mm s;
  int rows;
  ny_emit_begin(&e, px, group, k, &px->scratch);
  if (ny_on_gpu(px->target)) return ny_gpu_matmul(&e, op);
  nyb_status codes = ny_codes_matmul(&e, op);
  if (codes != NYB_E_UNSUPPORTED) return codes;
  read_facts(&e, op, &s);
  pick_tile(&e, &s, &rows);
  ny_rows r = ny_rows_of(e.cx, s.m, rows);
  bool copy = ny_knob(k, "copy", wants_copy(&e, &s, rows)) != 0 && s.k > 0 && !s.packed;
  if (copy) ny_knob_set(k, "copy", 1);
  if (!s.flat)
    for (int i = 0; i < s.rank - 2; i++) s.lead[i] = ny_at_one(s.out->type->dim[i] == 1 ? 0 : ny_emit_grid(&e, s.out->type->dim[i]));
  ny_dim panels = ny_dim_ceildiv(e.cx, s.n, s.cols);
  if (copy) emit_copied(&e, &s, &r, panels);
  else emit_direct(&e, &s, &r, panels);
  int64_t depth = s.k >= 0 && s.k < INT32_MAX ? s.k : 256;
  int64_t tall = copy ? (s.m >= 0 && s.m < INT32_MAX ? s.m : 128) : r.rows;
  ny_emit_grain(&e, ny_work(tall * s.cols, depth) / 16); /* a grain counts scalar work; here a vector register does it */
  return ny_emit_finish(&e);
}
