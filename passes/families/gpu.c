/* Facts and grids that the schedules for GPUs share. */
#include "gpu.h"

static int bits_of(const ny_value *v) { return ny_fmts[v->type->fmt].bits; }

int ny_gpu_vector(const ny_op *group) {
  const ny_block *body = group->body[0];
  int widest = 1, narrowest = 64;
  for (uint32_t i = 0; i < body->n_arg; i++)
    if (body->arg[i]->type->rank && bits_of(body->arg[i]) > widest) widest = bits_of(body->arg[i]);
  for (int i = 0; i < body->last->n_in; i++) {
    int b = bits_of(ny_in(body->last, i));
    if (b > widest) widest = b;
    if (b < narrowest) narrowest = b;
  }
  int v = 128 / widest;
  if (v < 1) v = 1;
  return narrowest < 8 && v < 32 / narrowest ? 32 / narrowest : v;
}

int ny_gpu_divides(ny_ctx *cx, ny_dim n, int most) {
  int v = most;
  while (v > 1 && !ny_dim_divides(cx, n, v)) v /= 2;
  return v;
}

ny_value *ny_gpu_masked(ny_emit *e, ny_value *v, int axis) {
  if (!v || e->lim[axis] == NY_ALL) return v;
  const ny_op *op = v->def;
  while (op->kind == NY_cast) op = ny_in(op, 0)->def;
  if (op->kind == NY_load) return v;
  ny_value *exists = ny_emit_below(e, axis ? ny_at_col(0) : ny_at_row(0), e->lim[axis]);
  return ny_b_where(&e->b, exists, v, ny_emit_num(e, (ny_fmt)v->type->fmt, 0));
}

ny_loop ny_gpu_if(ny_emit *e, ny_dim holds) {
  ny_dim unused;
  return ny_emit_for(e, 0, holds, 1, 1, &unused);
}

void ny_gpu_columns(ny_emit *e, ny_dim n, int cols, ny_columns_fn *body, void *user) {
  ny_ctx *cx = e->cx;
  e->cols = cols;
  if (n >= 0 && n <= cols) {
    e->cols = n > 0 ? (int)n : 1;
    ny_loop none = {0};
    if (n == 0) none = ny_gpu_if(e, 0);
    body(e, user, 0);
    ny_emit_end(e, none);
    return;
  }
  ny_dim first = ny_dim_mul(cx, ny_emit_grid(e, ny_dim_ceildiv(cx, n, cols)), cols);
  bool many = ny_knob(e->k, "threads", 1) > 1; /* threads check their own columns anyway */
  if (ny_dim_divides(cx, n, cols) || many) {
    if (!ny_dim_divides(cx, n, cols)) e->lim[1] = ny_dim_sub(cx, n, first);
    body(e, user, first);
    e->lim[1] = NY_ALL;
    return;
  }
  ny_dim part = ny_dim_lt(cx, ny_dim_sub(cx, n, cols), first); /* the tile is not whole */
  ny_loop l = ny_gpu_if(e, ny_dim_sub(cx, 1, part));
  body(e, user, first);
  ny_emit_end(e, l);
  l = ny_gpu_if(e, part);
  e->lim[1] = ny_dim_sub(cx, n, first);
  body(e, user, first);
  e->lim[1] = NY_ALL;
  ny_emit_end(e, l);
}

void ny_gpu_threads(ny_graph *k, int64_t threads, int64_t vector) {
  ny_knob_set(k, "threads", threads);
  ny_knob_set(k, "v", vector);
}

int ny_gpu_processors(const ny_target *t) {
  static const struct {
    int sm, n;
  } rows[] = {{80, 108}, {86, 84}, {89, 128}, {90, 132}, {100, 148}, {120, 170}, {121, 48}};
  for (size_t i = 0; i < NY_COUNT(rows); i++)
    if (rows[i].sm == t->sm) return rows[i].n;
  return 100;
}

int64_t ny_gpu_count(const ny_type *t, int from, int to, int64_t symbolic) {
  int64_t n = 1;
  for (int i = from; i < to; i++) n = ny_work(n, t->dim[i] < 0 ? symbolic : t->dim[i]);
  return n;
}

int ny_gpu_row_threads(ny_dim n, int64_t rows, int each, int vector) {
  enum { SHORT = 16, ENOUGH = 16384 }; /* warps that fill a device */
  if (n >= 0 && n <= SHORT) return 1;
  if (n < 0) return rows > 256 ? NY_WARP : 128;
  int t = NY_WARP;
  while (t < NY_GPU_BLOCK / 2 && (int64_t)t * each < n) t *= 2;
  while (t < NY_GPU_BLOCK / 2 && (int64_t)t * 8 <= n && rows * (t / NY_WARP) < ENOUGH / 8) t *= 2;
  for (int less = t; less >= NY_WARP && less * 4 >= t; less /= 2) /* no thread idle in a last round */
    if ((int64_t)less * each >= n && n % ((int64_t)less * vector) == 0) return less;
  return t;
}
