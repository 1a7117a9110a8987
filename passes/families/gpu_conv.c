/* conv on a GPU, channels last: a matmul whose rows are pixels of the result and whose sum runs over (kernel position, channel). Pixels of all images are
   rows of one tile; where each begins in x is an index tile, computed once, unless pixels follow each other at one distance. The sum is one loop: w lies
   in its order, and of x (last kernel dim, channel) is one run where the last dilation is 1 and there is one group. */
#include "gpu_block.h"

enum { MAX_SPATIAL = NY_MAX_RANK - 2 };
typedef struct cv {
  ny_value *x, *w, *out;
  ny_fmt sum;
  int spatial, runs; /* runs: leading kernel dims that are not part of a run */
  int64_t packed, group, in_group, out_group;
  int64_t kernel[MAX_SPATIAL], stride[MAX_SPATIAL], dilation[MAX_SPATIAL];
  bool plain; /* kernel and strides of one: x has the result's pixels */
  ny_dim at_group;
  ny_value *first; /* index tile: the pixel of x where a row begins */
  ny_block_sum block;
} cv;

static bool read_list(const ny_op *op, int slot, int n, int64_t *out) {
  const ny_attr *a = ny_attr_at(op, slot);
  for (int i = 0; i < n; i++) {
    out[i] = a->dims.n ? a->dims.v[i] : 1;
    if (out[i] < 1) return false;
  }
  return true;
}

static bool read_facts(const ny_op *op, cv *s) {
  *s = (cv){.x = ny_in(op, 0), .w = ny_in(op, 1), .out = op->out[0], .packed = ny_attr_at(op, NY_AT(conv, packed))->i,
            .group = ny_attr_at(op, NY_AT(conv, group))->i};
  const ny_type *x = s->x->type, *out = s->out->type;
  s->spatial = x->rank - 2;
  s->sum = ny_sum_fmt((ny_fmt)out->fmt);
  if (s->spatial < 1 || s->spatial > MAX_SPATIAL || s->group < 1 || s->x->def) return false;
  ny_dim c = x->dim[x->rank - 1], m = out->dim[out->rank - 1];
  if (c < 0 || m < 0 || ny_attr_at(op, NY_AT(conv, kernel))->dims.n != (uint32_t)s->spatial) return false;
  s->in_group = c / s->group, s->out_group = m / s->group;
  if (!read_list(op, NY_AT(conv, kernel), s->spatial, s->kernel)) return false;
  if (!read_list(op, NY_AT(conv, stride), s->spatial, s->stride)) return false;
  if (!read_list(op, NY_AT(conv, dilation), s->spatial, s->dilation)) return false;
  s->plain = true;
  for (int i = 0; i < s->spatial; i++) s->plain = s->plain && s->kernel[i] == 1 && s->stride[i] == 1;
  int last = s->spatial - 1;
  s->runs = s->group == 1 && s->dilation[last] == 1 ? last : s->spatial;
  return s->in_group > 0 && s->out_group > 0;
}

/* Pixels of x before coordinates c of (image, spatial dims). */
static ny_dim pixel_at(ny_emit *e, const cv *s, const ny_dim *c) {
  ny_dim p = c[0];
  for (int i = 0; i < s->spatial; i++) p = ny_dim_add(e->cx, ny_dim_mul(e->cx, p, s->x->type->dim[1 + i]), c[1 + i]);
  return p;
}

/* Made where the loop has not begun yet, of ops that nothing else uses: so it is computed once, by the threads that load those rows. */
static void find_first_pixels(ny_emit *e, cv *s) {
  const ny_type *out = s->out->type;
  ny_coord at[NY_MAX_RANK], sum = ny_at_one(0);
  e->rows = s->block.t.m, e->cols = 1, e->lim[0] = e->lim[1] = NY_ALL;
  ny_coord_split(e, ny_at_row(s->block.row), out->dim, out->rank - 1, at);
  for (int i = 0; i <= s->spatial; i++) {
    ny_dim pitch = 1;
    for (int j = i; j < s->spatial; j++) pitch = ny_dim_mul(e->cx, pitch, s->x->type->dim[1 + j]);
    if (out->dim[i] == 1) continue;
    ny_value *v = ny_emit_index(e, at[i]);
    if (i > 0) pitch = ny_dim_mul(e->cx, pitch, s->stride[i - 1]);
    if (pitch != 1 && v) v = ny_b_ew2(&e->b, NY_mul, v, ny_emit_int(e, pitch));
    sum.index = sum.index ? ny_b_ew2(&e->b, NY_add, sum.index, v) : v;
  }
  s->first = sum.index ? sum.index : ny_emit_index(e, ny_at_row(0));
}

/* Kernel position of a run: run counts the positions of the leading kernel dims. */
static ny_dim run_pixel(ny_emit *e, const cv *s, ny_dim run) {
  ny_dim c[NY_MAX_RANK] = {0};
  for (int i = s->runs - 1; i >= 0; i--) {
    ny_dim k = i ? ny_dim_mod(e->cx, run, s->kernel[i]) : run;
    c[1 + i] = ny_dim_mul(e->cx, k, s->dilation[i]);
    run = ny_dim_div(e->cx, run, s->kernel[i]);
  }
  return pixel_at(e, s, c);
}

static ny_value *block_a(ny_emit *e, void *user, ny_dim run, ny_dim k0) {
  const cv *s = user;
  ny_ctx *cx = e->cx;
  int64_t c = s->in_group * s->group;
  ny_value *x = ny_kernel_in(e->k, (int)s->x->index);
  ny_dim base = ny_dim_add(cx, ny_dim_mul(cx, s->at_group, s->in_group), k0);
  if (s->plain) return ny_emit_load(e, x, ny_at(ny_dim_add(cx, ny_dim_mul(cx, s->block.row, c), base), c, 1));
  ny_coord at = ny_at_col(ny_dim_add(cx, ny_dim_mul(cx, run_pixel(e, s, run), c), base));
  at.index = s->first;
  ny_value *t = ny_emit_load(e, x, at);
  if (t) t->def->attr[NY_AT(load, istride)].d = c;
  return t;
}

static ny_value *block_b(ny_emit *e, void *user, ny_dim run, ny_dim k0) {
  const cv *s = user;
  ny_ctx *cx = e->cx;
  ny_coord at[NY_MAX_RANK];
  ny_dim flat = ny_dim_add(cx, ny_dim_mul(cx, run, s->block.k), k0);
  if (s->packed) {
    ny_coord part[2];
    ny_coord_split(e, ny_at_col(s->block.column), (ny_dim[]){s->w->type->dim[1], s->packed}, 2, part);
    at[0] = ny_at_one(s->at_group), at[1] = part[0], at[2] = ny_at_row(flat), at[3] = part[1];
    return ny_emit_at(e, s->w, at);
  }
  ny_dim column = ny_dim_add(cx, ny_dim_mul(cx, s->at_group, s->out_group), s->block.column);
  ny_coord_split(e, ny_at_row(flat), s->w->type->dim, s->spatial + 1, at);
  at[s->spatial + 1] = ny_at_col(column);
  return ny_emit_at(e, s->w, at);
}

nyb_status ny_gpu_conv(ny_emit *e, const ny_op *op) {
  cv s;
  if (!read_facts(op, &s)) return NYB_E_UNSUPPORTED;
  if (s.plain && s.group == 1 && !s.packed) return ny_gpu_matmul(e, op);
  const ny_type *out = s.out->type;
  ny_ctx *cx = e->cx;
  ny_dim pixels = 1;
  for (int i = 0; i < out->rank - 1; i++) pixels = ny_dim_mul(cx, pixels, out->dim[i]);
  s.block = (ny_block_sum){.k = s.in_group, .runs = 1, .a = block_a, .b = block_b, .user = &s};
  for (int i = 0; i < s.spatial; i++) *(i < s.runs ? &s.block.runs : &s.block.k) = ny_dim_mul(cx, i < s.runs ? s.block.runs : s.block.k, s.kernel[i]);
  s.block.t = ny_block_pick(e, pixels, s.out_group, s.block.k, s.group, (ny_fmt)s.x->type->fmt, (ny_fmt)s.w->type->fmt, s.sum);
  s.at_group = s.group == 1 ? 0 : ny_emit_grid(e, s.group);
  ny_block_grid(e, &s.block, pixels, s.out_group);
  if (!s.plain) find_first_pixels(e, &s);
  ny_value *sum = ny_block_sums(e, &s.block, s.sum);
  ny_coord at[NY_MAX_RANK];
  ny_coord_split(e, ny_at_row(s.block.row), out->dim, out->rank - 1, at);
  at[out->rank - 1] = ny_at_col(ny_dim_add(cx, ny_dim_mul(cx, s.at_group, s.out_group), s.block.column));
  ny_emit_epilogue(e, s.out, at, sum);
  return ny_emit_finish(e);
}
