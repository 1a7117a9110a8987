/* window: max or sum over a sliding window. A tile covers the last dim of the result and the last one before it that is not 1; every position of the window is one load of shifted (and,
   where it slides with a stride, strided) elements, combined into the tile. Channels last, the columns are channels and nothing is strided. On a GPU a
   tile is one vector of columns, or one element where columns are no whole vectors or slide with a stride. */
#include <string.h>

#include "gpu.h"

typedef struct win {
  ny_value *x, *out;
  const char *op;
  ny_fmt sum;
  int rank, row, cols; /* row: the dim along which a tile has its rows, or -1 */
  int64_t size[NY_MAX_RANK], stride[NY_MAX_RANK], dilation[NY_MAX_RANK];
  ny_dim pos[NY_MAX_RANK], column;
} win;

static bool read_facts(const ny_op *op, win *s) {
  *s = (win){.x = ny_in(op, 0), .out = op->out[0], .op = ny_attr_at(op, NY_AT(window, op))->s};
  const ny_attr *size = ny_attr_at(op, NY_AT(window, size)), *stride = ny_attr_at(op, NY_AT(window, stride));
  const ny_attr *dilation = ny_attr_at(op, NY_AT(window, dilation));
  ny_fmt f = (ny_fmt)s->out->type->fmt;
  s->rank = s->out->type->rank;
  s->row = s->rank > 1 ? s->rank - 2 : -1;
  while (s->row > 0 && s->out->type->dim[s->row] == 1) s->row--;
  s->sum = strcmp(s->op, "sum") == 0 ? ny_sum_fmt(f) : f;
  if (s->rank < 1 || size->dims.n != (uint32_t)s->rank) return false;
  for (int i = 0; i < s->rank; i++) {
    s->size[i] = size->dims.v[i];
    s->stride[i] = stride->dims.n ? stride->dims.v[i] : 1;
    s->dilation[i] = dilation->dims.n ? dilation->dims.v[i] : 1;
    if (s->size[i] < 1 || s->stride[i] < 1 || s->dilation[i] < 1) return false;
  }
  return true;
}

static ny_coord shifted(ny_emit *e, const win *s, int i, ny_coord o, ny_dim k) {
  return ny_at(ny_dim_add(e->cx, ny_dim_mul(e->cx, o.base, s->stride[i]), ny_dim_mul(e->cx, k, s->dilation[i])),
               ny_dim_mul(e->cx, o.rs, s->stride[i]), ny_dim_mul(e->cx, o.cs, s->stride[i]));
}

static void tile(ny_emit *e, void *user, int rows, ny_dim row) {
  win *s = user;
  int last = s->rank - 1, n = 0;
  ny_loop loops[NY_MAX_RANK];
  ny_coord out[NY_MAX_RANK], at[NY_MAX_RANK];
  ny_dim width = s->out->type->dim[last];
  for (int i = 0; i < last; i++) out[i] = i == s->row ? ny_at_row(row) : ny_at_one(s->pos[i]);
  out[last] = ny_at_col(s->column);
  e->rows = rows, e->cols = s->cols, e->lim[0] = NY_ALL;
  e->lim[1] = ny_dim_divides(e->cx, width, s->cols) ? NY_ALL : ny_dim_sub(e->cx, width, s->column);
  ny_value *sum = ny_emit_tile(e, s->sum, rows, s->cols, ny_reduce_identity(s->op, s->sum));
  for (int i = 0; i < s->rank; i++) {
    ny_dim k = 0;
    if (s->size[i] > 1) loops[n++] = ny_emit_for(e, 0, s->size[i], 1, ny_gpu_unroll(e, 5), &k);
    at[i] = shifted(e, s, i, out[i], k);
  }
  ny_value *x = ny_emit_cast(e, ny_emit_at(e, s->x, at), s->sum);
  if (x) ny_emit_set(e, sum, ny_b_ew2(&e->b, ny_reduce_kind(s->op), sum, x));
  while (n > 0) ny_emit_end(e, loops[--n]);
  ny_emit_epilogue(e, s->out, out, sum);
}

static nyb_status lower_gpu(ny_emit *e, win *s) {
  const ny_type *out = s->out->type;
  int last = s->rank - 1;
  ny_dim row = 0;
  s->cols = s->stride[last] > 1 ? 1 : ny_gpu_divides(e->cx, out->dim[last], ny_gpu_vector(e->group));
  for (int i = 0; i < last; i++) {
    ny_dim at = out->dim[i] == 1 ? 0 : ny_emit_grid(e, out->dim[i]);
    *(i == s->row ? &row : &s->pos[i]) = at;
  }
  s->column = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, out->dim[last], s->cols)), s->cols);
  tile(e, s, 1, row);
  return ny_emit_finish(e);
}

nyb_status ny_lower_window(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  ny_op *op = ny_group_find(group, NY_window);
  ny_emit e;
  win s;
  if (!op || !read_facts(op, &s)) return NYB_E_UNSUPPORTED;
  ny_emit_begin(&e, px, group, k, &px->scratch);
  if (ny_on_gpu(px->target)) return lower_gpu(&e, &s);
  const ny_type *out = s.out->type;
  int lanes = ny_vec_lanes(px, s.sum);
  ny_dim width = out->dim[s.rank - 1], height = s.row >= 0 ? out->dim[s.row] : 1;
  int vectors = width < 0 || width > lanes ? 2 : 1;
  s.cols = (int)ny_knob(k, "nr", (int64_t)lanes * vectors);
  int rows = (int)ny_knob(k, "mr", height < 0 || height >= 4 ? 4 : height < 1 ? 1 : height);
  ny_rows r = ny_rows_of(e.cx, height, rows);
  ny_knob_set(k, "mr", rows);
  ny_knob_set(k, "nr", s.cols);
  for (int i = 0; i < s.rank - 1; i++)
    if (i != s.row && out->dim[i] != 1) s.pos[i] = ny_emit_grid(&e, out->dim[i]);
  s.column = ny_dim_mul(e.cx, ny_emit_grid(&e, ny_dim_ceildiv(e.cx, width, s.cols)), s.cols);
  ny_rows_emit(&e, &r, ny_emit_grid(&e, r.tiles), tile, &s);
  int64_t ops = (int64_t)r.rows * s.cols;
  for (int i = 0; i < s.rank; i++) ops = ny_work(ops, s.size[i]);
  ny_emit_grain(&e, ops / 4);
  return ny_emit_finish(&e);
}
