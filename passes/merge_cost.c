/* How much longer one block takes for a kernel that many could run: from what its grid points load, store and compute, counted in the tile program, and how often the
   block's threads have to come again. See merge.h for the numbers. */
#include "merge.h"

#include <string.h>

typedef struct count {
  ny_graph *k;
  ny_ctx *cx;
  ny_arena *a;
  ny_dim bytes, ops, steps; /* of a grid point; steps: iterations of its loops */
  ny_dim_limit *limit;      /* variables of grid and loops */
  uint32_t n_limit, cap_limit;
  bool unknown;
} count;

static int64_t tile_count(const count *c, const ny_value *v) {
  int64_t n = 1;
  return ny_type_static_count(c->cx, v->type, &n) && n < 1 << 20 ? n : 1 << 20;
}

static void add(count *c, ny_dim *to, ny_dim times, int64_t n) { *to = ny_dim_add(c->cx, *to, ny_dim_mul(c->cx, times, n)); }

static void push(count *c, ny_name var, int64_t lo, int64_t hi) {
  NY_PUSH_ROOM(c->a, c->limit, c->n_limit, c->cap_limit);
  c->limit[c->n_limit++] = (ny_dim_limit){var, lo, hi};
}

static bool of_symbols(const count *c, ny_dim d) {
  for (uint32_t i = 0; i < c->n_limit; i++)
    if (ny_dim_uses(c->cx, d, c->limit[i].sym)) return false;
  return true;
}

/* Iterations, at most. Bounds that depend on a variable are taken at their extremes, which must be numbers. */
static ny_dim trips(count *c, const ny_op *op) {
  const ny_attr *at = op->attr;
  ny_dim lo = at[NY_AT(for, lo)].d, hi = at[NY_AT(for, hi)].d;
  int64_t step, first, last, unused;
  if (!ny_dim_is_const(c->cx, at[NY_AT(for, step)].d, &step) || step < 1) return NY_DIM_INVALID;
  ny_dim n = ny_dim_sub(c->cx, hi, lo);
  ny_dim_range(c->cx, lo, c->limit, c->n_limit, &first, &unused);
  ny_dim_range(c->cx, hi, c->limit, c->n_limit, &unused, &last);
  push(c, at[NY_AT(for, var)].s, first, last == INT64_MAX ? last : last - 1);
  if (n != NY_DIM_INVALID && of_symbols(c, n)) return ny_dim_max(c->cx, ny_dim_ceildiv(c->cx, n, step), 0);
  if (first == INT64_MIN || last == INT64_MAX || last - first > 1 << 20) return NY_DIM_INVALID;
  return last <= first ? 0 : ny_dim_const(c->cx, (last - first + step - 1) / step);
}

static int64_t work_of(const count *c, const ny_op *op) {
  if (op->kind == NY_mma) return tile_count(c, ny_in(op, 0)) * ny_in(op, 1)->type->dim[1];
  int64_t n = op->n_out ? tile_count(c, op->out[0]) : op->n_in > 1 ? tile_count(c, ny_in(op, 1)) : 0;
  if (op->kind == NY_reduce) n = tile_count(c, ny_in(op, 0));
  return ny_is_map(op) ? n * ny_expr_of((ny_kind)op->kind)->n : n;
}

static void block(count *c, const ny_block *b, ny_dim times) {
  for (const ny_op *op = b->first; op && !c->unknown; op = op->next) {
    if (op->kind == NY_local) continue;
    add(c, &c->ops, times, work_of(c, op));
    const ny_value *tile = op->kind == NY_load ? op->out[0] : op->kind == NY_store ? ny_in(op, 1) : NULL;
    if (tile && ny_in(op, 0)->type->space == NY_GLOBAL)
      add(c, &c->bytes, times, (tile_count(c, tile) * ny_fmts[ny_in(op, 0)->type->fmt].bits + 7) / 8);
    if (op->kind != NY_for) continue;
    uint32_t outer = c->n_limit;
    ny_dim n = trips(c, op), inner = n == NY_DIM_INVALID ? n : ny_dim_mul(c->cx, times, n);
    c->unknown |= inner == NY_DIM_INVALID;
    add(c, &c->steps, inner, 1);
    if (!c->unknown) block(c, op->body[0], inner);
    c->n_limit = outer;
  }
}

static void grid(count *c) {
  for (const ny_op *op = c->k->body.first; op; op = op->next) {
    int64_t lo, hi;
    if (op->kind != NY_grid) continue;
    ny_dim_range(c->cx, op->attr[NY_AT(grid, extent)].d, NULL, 0, &lo, &hi);
    push(c, op->attr[NY_AT(grid, var)].s, 0, hi == INT64_MAX ? hi : hi - 1);
  }
}

/* Of `points` in `turns`: what they wait for, or what the multiprocessor can do. */
static ny_dim time_of(const count *c, ny_dim points, ny_dim turns, ny_dim turn) {
  ny_ctx *cx = c->cx;
  ny_dim memory = ny_dim_ceildiv(cx, ny_dim_mul(cx, points, c->bytes), NY_MERGE_BYTES);
  ny_dim arithmetic = ny_dim_ceildiv(cx, ny_dim_mul(cx, points, c->ops), NY_MERGE_OPS);
  return ny_dim_max(cx, ny_dim_mul(cx, turns, turn), ny_dim_max(cx, memory, arithmetic));
}

ny_dim ny_merge_cost(ny_graph *k, ny_arena *a) {
  count c = {.k = k, .cx = k->cx, .a = a};
  ny_ctx *cx = k->cx;
  int64_t threads = ny_knob(k, "threads", 1), alone = threads > 32 ? 1 : 256 / threads; /* points of a block that is launched */
  int64_t at_once = threads < NY_MERGE_BLOCK ? NY_MERGE_BLOCK / threads : 1;
  grid(&c);
  block(&c, &k->body, 1);
  ny_dim points = ny_dim_max(cx, ny_kernel_extent(k), 0);
  if (c.unknown || points == NY_DIM_INVALID || !of_symbols(&c, points)) return NY_DIM_INVALID;
  ny_dim turn = ny_dim_add(cx, NY_MERGE_TURN, ny_dim_mul(cx, c.steps, NY_MERGE_STEP));
  turn = ny_dim_add(cx, turn, ny_dim_ceildiv(cx, ny_dim_mul(cx, c.ops, NY_MERGE_ISSUE), threads));
  ny_dim merged = time_of(&c, points, ny_dim_ceildiv(cx, points, at_once), turn);
  ny_dim launched = time_of(&c, ny_dim_min(cx, points, alone), 1, turn);
  return ny_dim_max(cx, ny_dim_sub(cx, merged, launched), 0);
}

static int ops(const ny_block *b) {
  int n = 0;
  for (const ny_op *op = b->first; op; op = op->next, n++)
    for (int i = 0; i < op->n_body; i++) n += ops(op->body[i]);
  return n;
}

int ny_merge_ops(const ny_graph *k) { return ops(&k->body); }
