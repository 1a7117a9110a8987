/* Depthwise convolution, channels last: every channel has its own kernel, so there is no matmul in it. Channels are the columns of a tile,
   neighbouring output columns its rows; each kernel position is one multiply-add of a tile of x with a row of weights. On a GPU a thread has a vector of
   channels, of several output columns where there are enough of them to go round and no frame around x has to be checked for. */
#include "gpu.h"

enum { MAX_SPATIAL = NY_MAX_RANK - 2 };
typedef struct dw {
  ny_value *x, *w, *out;
  ny_fmt sum;
  int spatial, row, cols; /* row: the spatial dim along which a tile has its rows */
  int64_t kernel[MAX_SPATIAL], stride[MAX_SPATIAL], dilation[MAX_SPATIAL];
  ny_dim image, pos[MAX_SPATIAL], panel, channels;
} dw;

static int64_t entry(const ny_op *op, int slot, int i) {
  const ny_attr *a = ny_attr_at(op, slot);
  return (uint32_t)i < a->dims.n ? a->dims.v[i] : 1;
}

static bool read_facts(const ny_op *op, dw *s) {
  *s = (dw){.x = ny_in(op, 0), .w = ny_in(op, 1), .out = op->out[0]};
  const ny_type *x = s->x->type, *out = s->out->type;
  s->spatial = x->rank - 2;
  s->channels = x->dim[x->rank - 1];
  s->row = ny_row_dim(out) - 1;
  s->sum = ny_sum_fmt((ny_fmt)out->fmt);
  int64_t group = ny_attr_at(op, NY_AT(conv, group))->i;
  if (ny_attr_at(op, NY_AT(conv, packed))->i || group < 2 || s->channels != group || out->dim[out->rank - 1] != group) return false;
  if (s->spatial < 1 || s->spatial > MAX_SPATIAL || ny_attr_at(op, NY_AT(conv, kernel))->dims.n != (uint32_t)s->spatial) return false;
  for (int i = 0; i < s->spatial; i++) {
    s->kernel[i] = entry(op, NY_AT(conv, kernel), i);
    s->stride[i] = entry(op, NY_AT(conv, stride), i);
    s->dilation[i] = entry(op, NY_AT(conv, dilation), i);
    if (s->kernel[i] < 1 || s->stride[i] < 1 || s->dilation[i] < 1) return false;
  }
  return true;
}

bool ny_depthwise_takes(const ny_op *conv) {
  dw s;
  return read_facts(conv, &s);
}

static ny_dim affine(ny_ctx *cx, ny_dim o, int64_t stride, ny_dim k, int64_t dilation) {
  return ny_dim_add(cx, ny_dim_mul(cx, o, stride), ny_dim_mul(cx, k, dilation));
}

static void tile(ny_emit *e, void *user, int rows, ny_dim row) {
  dw *s = user;
  int last = s->spatial - 1, n = 0;
  ny_loop loops[MAX_SPATIAL];
  ny_dim k[MAX_SPATIAL] = {0};
  ny_coord at[NY_MAX_RANK], wat[NY_MAX_RANK], column = ny_at_col(ny_dim_mul(e->cx, s->panel, s->cols));
  e->rows = rows, e->cols = s->cols, e->lim[0] = NY_ALL;
  e->lim[1] = ny_dim_divides(e->cx, s->channels, s->cols) ? NY_ALL : ny_dim_sub(e->cx, s->channels, column.base);
  ny_value *sum = ny_emit_tile(e, s->sum, rows, s->cols, 0);
  for (int i = 0; i < s->spatial; i++)
    if (s->kernel[i] > 1) loops[n++] = ny_emit_for(e, 0, s->kernel[i], 1, ny_gpu_unroll(e, 5), &k[i]);
  at[0] = ny_at_one(s->image);
  for (int i = 0; i < s->spatial; i++)
    at[1 + i] = ny_at(affine(e->cx, i == s->row ? row : s->pos[i], s->stride[i], k[i], s->dilation[i]), i == s->row ? s->stride[i] : 0, 0);
  at[2 + last] = column;
  for (int i = 0; i < s->spatial; i++) wat[i] = ny_at_one(k[i]);
  wat[s->spatial] = ny_at_one(0);
  wat[s->spatial + 1] = column;
  ny_value *x = ny_emit_cast(e, ny_emit_at(e, s->x, at), s->sum), *w = ny_emit_cast(e, ny_emit_at(e, s->w, wat), s->sum);
  if (x && w) ny_emit_set(e, sum, ny_b_ew2(&e->b, NY_add, sum, ny_b_ew2(&e->b, NY_mul, x, w)));
  while (n > 0) ny_emit_end(e, loops[--n]);
  at[0] = ny_at_one(s->image);
  for (int i = 0; i < s->spatial; i++) at[1 + i] = i == s->row ? ny_at_row(row) : ny_at_one(s->pos[i]);
  at[2 + last] = column;
  ny_emit_epilogue(e, s->out, at, sum);
}

static ny_dim grid_or_zero(ny_emit *e, ny_dim extent) { return extent == 1 ? 0 : ny_emit_grid(e, extent); }

static nyb_status lower_gpu(ny_emit *e, dw *s) {
  enum { ENOUGH = 1 << 18 };
  const ny_type *out = s->out->type;
  s->cols = ny_gpu_divides(e->cx, s->channels, ny_gpu_vector(e->group));
  bool many = ny_gpu_count(out, 0, out->rank, 64) / s->cols > ENOUGH;
  ny_rows r = ny_rows_of(e->cx, out->dim[1 + s->row], (int)ny_knob(e->k, "mr", many && !s->x->def ? 4 : 1));
  ny_knob_set(e->k, "mr", r.rows);
  s->image = grid_or_zero(e, out->dim[0]);
  for (int i = 0; i < s->spatial; i++)
    if (i != s->row) s->pos[i] = grid_or_zero(e, out->dim[1 + i]);
  ny_dim index = ny_emit_grid(e, r.tiles);
  s->panel = ny_emit_grid(e, ny_dim_ceildiv(e->cx, s->channels, s->cols));
  ny_rows_emit(e, &r, index, tile, s);
  return ny_emit_finish(e);
}

nyb_status ny_lower_depthwise(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  ny_op *op = ny_group_find(group, NY_conv);
  ny_emit e;
  dw s;
  if (!op || !read_facts(op, &s)) return NYB_E_UNSUPPORTED;
  ny_emit_begin(&e, px, group, k, &px->scratch);
  if (ny_on_gpu(px->target)) return lower_gpu(&e, &s);
  const ny_type *out = s.out->type;
  int lanes = ny_vec_lanes(px, s.sum);
  int vectors = s.channels > lanes ? 2 : 1;
  s.cols = (int)ny_knob(k, "nr", (int64_t)lanes * vectors);
  ny_dim width = out->dim[1 + s.row];
  int rows = (int)ny_knob(k, "mr", ny_rows_pick(px->target, width, vectors + 1, 0));
  ny_rows r = ny_rows_of(e.cx, width, rows);
  ny_knob_set(k, "mr", rows);
  ny_knob_set(k, "nr", s.cols);
  s.image = grid_or_zero(&e, out->dim[0]);
  for (int i = 0; i < s.spatial; i++)
    if (i != s.row) s.pos[i] = grid_or_zero(&e, out->dim[1 + i]);
  s.panel = ny_emit_grid(&e, ny_dim_ceildiv(e.cx, s.channels, s.cols));
  ny_rows_emit(&e, &r, ny_emit_grid(&e, r.tiles), tile, &s);
  int64_t ops = (int64_t)r.rows * s.cols;
  for (int i = 0; i < s.spatial; i++) ops = ny_work(ops, s.kernel[i]);
  ny_emit_grain(&e, ops / 4);
  return ny_emit_finish(&e);
}
