/* conv, channels last: a matmul whose rows are neighbouring output columns and whose sum axis is (kernel..., channel). With a kernel and strides
   of one it is exactly a matmul over flattened pixels. Where the last dilation is one and there is one group, (last kernel dim, channel) is
   contiguous in x and becomes one long loop. Grid: panels outermost when the weights exceed half the second cache, else innermost but one, so that
   either the weights or the rows of x are re-read from near memory. Depthwise convolution has its channels in lanes and lives in depthwise.c. */
#include "gpu.h"

enum { MAX_SPATIAL = NY_MAX_RANK - 2 };
typedef struct cv {
  ny_value *x, *w, *out;
  ny_fmt sum;
  int spatial, row, cols; /* row: the spatial dim along which a tile has its rows */
  int64_t packed, group, in_group, out_group; /* channels of a group */
  int64_t kernel[MAX_SPATIAL], stride[MAX_SPATIAL], dilation[MAX_SPATIAL];
  bool flat, merged;      /* pixels are plain rows; (last kernel dim, channel) is one loop */
  ny_dim rows_extent;     /* pixels, or columns of an output row */
  ny_coord image, at_group, pos[MAX_SPATIAL]; /* of the grid point */
  ny_dim panel;
} cv;

static bool read_list(const ny_op *op, int slot, int n, int64_t def, int64_t *out) {
  const ny_attr *a = ny_attr_at(op, slot);
  for (int i = 0; i < n; i++) {
    out[i] = a->dims.n ? a->dims.v[i] : def;
    if (out[i] < 1) return false;
  }
  return true;
}

static bool read_facts(ny_emit *e, const ny_op *op, cv *s) {
  *s = (cv){.x = ny_in(op, 0), .w = ny_in(op, 1), .out = op->out[0], .packed = ny_attr_at(op, NY_AT(conv, packed))->i,
            .group = ny_attr_at(op, NY_AT(conv, group))->i};
  const ny_type *x = s->x->type, *out = s->out->type;
  s->spatial = x->rank - 2;
  s->sum = ny_sum_fmt((ny_fmt)out->fmt);
  if (s->spatial < 1 || s->spatial > MAX_SPATIAL || s->group < 1) return false;
  ny_dim c = x->dim[x->rank - 1], m = out->dim[out->rank - 1];
  if (c < 0 || m < 0 || ny_attr_at(op, NY_AT(conv, kernel))->dims.n != (uint32_t)s->spatial) return false;
  s->in_group = c / s->group, s->out_group = m / s->group;
  if (!read_list(op, NY_AT(conv, kernel), s->spatial, 1, s->kernel)) return false;
  if (!read_list(op, NY_AT(conv, stride), s->spatial, 1, s->stride)) return false;
  if (!read_list(op, NY_AT(conv, dilation), s->spatial, 1, s->dilation)) return false;
  s->flat = true;
  for (int i = 0; i < s->spatial; i++) s->flat = s->flat && s->kernel[i] == 1 && s->stride[i] == 1;
  s->row = ny_row_dim(out) - 1;
  s->rows_extent = out->dim[1 + s->row];
  if (s->flat)
    for (int i = 0; i < out->rank - 2; i++) s->rows_extent = ny_dim_mul(e->cx, s->rows_extent, out->dim[i]);
  int last = s->spatial - 1;
  s->merged = s->group == 1 && s->dilation[last] == 1 && s->kernel[last] > 1;
  return true;
}

static ny_dim column_limit(ny_emit *e, const cv *s) {
  if (s->out_group % s->cols == 0) return NY_ALL;
  return ny_dim_sub(e->cx, s->out_group, ny_dim_mul(e->cx, s->panel, s->cols));
}

/* Where the tile starting at `row` lies in the result. */
static void out_at(ny_emit *e, const cv *s, ny_dim row, ny_coord *at) {
  const ny_type *out = s->out->type;
  if (s->flat) ny_coord_split(e, ny_at_row(row), out->dim, out->rank - 1, at);
  else {
    at[0] = s->image;
    for (int i = 0; i < s->spatial; i++) at[1 + i] = i == s->row ? ny_at_row(row) : s->pos[i];
  }
  ny_dim first = ny_dim_add(e->cx, ny_dim_mul(e->cx, s->at_group.base, s->out_group), ny_dim_mul(e->cx, s->panel, s->cols));
  at[out->rank - 1] = ny_at_col(first);
}

typedef struct step { /* of the sum: one coordinate a kernel dim, then the channel; merged: q runs over (last kernel dim, channel) */
  ny_dim k[MAX_SPATIAL], c, q;
} step;

static void x_at(ny_emit *e, const cv *s, ny_dim row, const step *t, ny_coord *at) {
  ny_ctx *cx = e->cx;
  const ny_type *x = s->x->type;
  int last = s->spatial - 1;
  if (s->flat) ny_coord_split(e, ny_at_row(row), x->dim, x->rank - 1, at);
  else at[0] = s->image;
  for (int i = 0; i <= last && !s->flat; i++) {
    ny_dim from = ny_dim_mul(cx, i == s->row ? row : s->pos[i].base, s->stride[i]), across = i == s->row ? s->stride[i] : 0;
    if (i < last || !s->merged) {
      at[1 + i] = ny_at(ny_dim_add(cx, from, ny_dim_mul(cx, t->k[i], s->dilation[i])), across, 0);
      continue;
    }
    ny_coord flat = ny_at(ny_dim_add(cx, ny_dim_mul(cx, from, s->in_group), t->q), ny_dim_mul(cx, across, s->in_group), 0);
    ny_coord_split(e, flat, x->dim + x->rank - 2, 2, at + x->rank - 2);
    return;
  }
  at[x->rank - 1] = ny_at_one(ny_dim_add(cx, ny_dim_mul(cx, s->at_group.base, s->in_group), t->c));
}

static void w_at(ny_emit *e, const cv *s, const step *t, ny_coord *at) {
  ny_ctx *cx = e->cx;
  int last = s->spatial - 1;
  ny_dim flat = 0; /* of the kernel dims and the channel */
  for (int i = 0; i < (s->merged ? last : s->spatial); i++) flat = ny_dim_add(cx, ny_dim_mul(cx, flat, s->kernel[i]), t->k[i]);
  if (s->merged) flat = ny_dim_add(cx, ny_dim_mul(cx, flat, s->kernel[last] * s->in_group), t->q);
  else flat = ny_dim_add(cx, ny_dim_mul(cx, flat, s->in_group), t->c);
  if (s->packed) {
    at[0] = s->at_group, at[1] = ny_at_one(s->panel), at[2] = ny_at_one(flat), at[3] = ny_at_col(0);
    return;
  }
  ny_dim first = ny_dim_add(cx, ny_dim_mul(cx, s->at_group.base, s->out_group), ny_dim_mul(cx, s->panel, s->cols));
  ny_coord_split(e, ny_at_one(flat), s->w->type->dim, s->spatial + 1, at);
  at[s->spatial + 1] = ny_at_col(first);
}

static void multiply(ny_emit *e, const cv *s, ny_value *sum, ny_dim row, const step *t) {
  ny_coord at[NY_MAX_RANK];
  x_at(e, s, row, t, at);
  e->lim[1] = NY_ALL;
  ny_value *a = ny_emit_at(e, s->x, at);
  w_at(e, s, t, at);
  e->lim[1] = s->packed ? NY_ALL : column_limit(e, s);
  ny_emit_mma(e, sum, a, ny_emit_at(e, s->w, at));
}

static void tile(ny_emit *e, void *user, int rows, ny_dim row) {
  cv *s = user;
  ny_loop loops[MAX_SPATIAL + 1];
  int n = 0, last = s->spatial - 1;
  step t = {{0}, 0, 0};
  e->rows = rows, e->cols = s->cols, e->lim[0] = e->lim[1] = NY_ALL;
  ny_value *sum = ny_emit_tile(e, s->sum, rows, s->cols, 0);
  for (int i = 0; i < s->spatial; i++)
    if (s->kernel[i] > 1 && !(i == last && s->merged)) loops[n++] = ny_emit_for(e, 0, s->kernel[i], 1, 1, &t.k[i]);
  int unroll = (int)ny_knob(e->k, "ku", 1);
  if (s->merged) loops[n++] = ny_emit_for(e, 0, s->kernel[last] * s->in_group, 1, unroll, &t.q);
  else loops[n++] = ny_emit_for(e, 0, s->in_group, 1, unroll, &t.c);
  multiply(e, s, sum, row, &t);
  while (n > 0) ny_emit_end(e, loops[--n]);
  ny_coord at[NY_MAX_RANK];
  out_at(e, s, row, at);
  e->lim[1] = column_limit(e, s);
  ny_emit_epilogue(e, s->out, at, sum);
}

static int64_t sum_length(const cv *s) {
  int64_t n = s->in_group;
  for (int i = 0; i < s->spatial; i++) n = ny_work(n, s->kernel[i]);
  return n;
}

static int pick_tile(ny_emit *e, cv *s) {
  const ny_target *t = e->px->target;
  int lanes = ny_vec_lanes(e->px, s->sum);
  s->cols = s->packed ? (int)s->packed : (int)ny_knob(e->k, "nr", lanes * ny_vectors_pick(t, s->rows_extent, s->out_group, lanes));
  int vectors = (s->cols + lanes - 1) / lanes;
  int64_t stride = ny_work(s->stride[s->row], ny_work(s->in_group * s->group, ny_fmts[s->x->type->fmt].bits / 8));
  for (int i = s->row + 1; i < s->spatial; i++) stride = s->x->type->dim[1 + i] < 0 ? 0 : ny_work(stride, s->x->type->dim[1 + i]);
  int rows = (int)ny_knob(e->k, "mr", ny_rows_pick(t, s->rows_extent, vectors, stride));
  ny_knob_set(e->k, "mr", rows);
  ny_knob_set(e->k, "nr", s->cols);
  return rows;
}

/* A merged loop pays only while x is addressed as it lies. */
static void check_merge(ny_emit *e, cv *s, int rows) {
  ny_coord at[NY_MAX_RANK];
  step t = {{0}, 0, 0};
  if (!s->merged) return;
  s->image = s->at_group = ny_at_one(0);
  for (int i = 0; i < s->spatial; i++) s->pos[i] = ny_at_one(0);
  x_at(e, s, 0, &t, at);
  if (ny_emit_is_strided(e, s->x, at, rows, 1)) s->merged = false;
}

static ny_coord grid_or_zero(ny_emit *e, ny_dim extent) { return ny_at_one(extent == 1 ? 0 : ny_emit_grid(e, extent)); }

nyb_status ny_lower_conv(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  ny_op *op = ny_group_find(group, NY_conv);
  ny_emit e;
  cv s;
  if (!op) return NYB_E_UNSUPPORTED;
  ny_emit_begin(&e, px, group, k, &px->scratch);
  if (ny_on_gpu(px->target)) {
    nyb_status st = ny_gpu_conv(&e, op);
    if (st != NYB_E_UNSUPPORTED || e.failed) return st;
  }
  if (!read_facts(&e, op, &s)) return NYB_E_UNSUPPORTED;
  int rows = pick_tile(&e, &s);
  check_merge(&e, &s, rows);
  ny_rows r = ny_rows_of(e.cx, s.rows_extent, rows);
  const ny_type *out = s.out->type;
  ny_dim panels = ny_dim_ceildiv(e.cx, s.out_group, s.cols);
  int64_t length = sum_length(&s), weights = ny_work(length, ny_work(s.out_group, ny_fmts[s.sum].bits / 8));
  bool first = ny_knob(k, "panels_first", weights > (int64_t)(px->target->l2 / 2)) != 0;
  ny_knob_set(k, "panels_first", first);
  s.at_group = grid_or_zero(&e, s.group);
  if (first) s.panel = ny_emit_grid(&e, panels);
  if (!s.flat) s.image = grid_or_zero(&e, out->dim[0]);
  for (int i = 0; i < s.spatial && !s.flat; i++)
    if (i != s.row) s.pos[i] = grid_or_zero(&e, out->dim[1 + i]);
  if (!first) s.panel = ny_emit_grid(&e, panels);
  ny_rows_emit(&e, &r, ny_emit_grid(&e, r.tiles), tile, &s);
  ny_emit_grain(&e, ny_work((int64_t)r.rows * s.cols, length) / 16);
  return ny_emit_finish(&e);
}
