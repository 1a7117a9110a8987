/* Which tile a block takes, and the loop of its sum. The shapes are few and all known to be worth something; which one is taken follows from how much of
   the device its blocks keep busy and how much of its sums exist. */
#include "gpu_block.h"

typedef struct shape {
  ny_block_tile t;
  double speed; /* of the multiplications, once a processor is full */
} shape;

static const shape plain[] = {
    {{128, 128, 16, 256, 16, 4, 4, 0, 0}, 1.0}, {{128, 64, 16, 128, 16, 4, 4, 0, 0}, 0.9}, {{64, 64, 16, 128, 8, 4, 4, 0, 0}, 0.8},
    {{32, 64, 32, 128, 8, 4, 4, 0, 0}, 0.6},    {{64, 32, 32, 128, 16, 4, 4, 0, 0}, 0.6},  {{32, 32, 32, 64, 8, 4, 4, 0, 0}, 0.5},
    {{16, 64, 32, 64, 4, 4, 4, 0, 0}, 0.45},    {{64, 16, 32, 64, 16, 4, 4, 0, 0}, 0.45},  {{16, 32, 32, 64, 8, 2, 4, 0, 0}, 0.35},
    {{16, 128, 16, 128, 4, 4, 4, 0, 0}, 0.5},
};
/* k in bytes here */
static const shape tensor[] = {
    {{128, 128, 64, 256, 0, 0, 0, 2, 4}, 1.0}, {{128, 64, 64, 128, 0, 0, 0, 2, 2}, 0.85}, {{64, 128, 64, 128, 0, 0, 0, 2, 2}, 0.85},
    {{64, 64, 64, 128, 0, 0, 0, 2, 2}, 0.7},   {{32, 64, 128, 64, 0, 0, 0, 1, 2}, 0.5},   {{64, 32, 128, 64, 0, 0, 0, 2, 1}, 0.45},
    {{16, 64, 128, 64, 0, 0, 0, 1, 2}, 0.35},  {{16, 128, 128, 128, 0, 0, 0, 1, 4}, 0.4}, {{16, 32, 128, 64, 0, 0, 0, 1, 2}, 0.25},
};

static bool byte_int(ny_fmt f) { return f == NY_i8 || f == NY_u8; }

static bool on_tensor_cores(const ny_pass_cx *px, ny_fmt a, ny_fmt b, ny_fmt sum) {
  if (px->target->sm < 80) return false;
  if (px->opt->precision == NY_PRECISION_tf32 && a == NY_f32 && b == NY_f32) return sum == NY_f32;
  if (byte_int(a) && byte_int(b)) return sum == NY_i32;
  return a == b && (a == NY_f16 || a == NY_bf16) && sum == NY_f32;
}

static int64_t tiles(ny_dim n, int tile, int64_t symbolic) {
  int64_t x = n < 0 ? symbolic : n;
  return x < 1 ? 1 : (x + tile - 1) / tile;
}

/* Time in units that only compare: rounds of blocks over the processors, each as long as its tile takes. */
static double cost(const shape *s, ny_dim m, ny_dim n, int64_t batches, int processors) {
  enum { SYMBOLIC = 256 };
  double blocks = (double)tiles(m, s->t.m, SYMBOLIC) * (double)tiles(n, s->t.n, SYMBOLIC) * (double)batches;
  double rounds = blocks / processors, area = (double)s->t.m * s->t.n;
  double full = rounds <= 1 ? 1 : rounds < 8 ? (double)(int64_t)(rounds + 0.999999) : rounds;
  return full * (area / s->speed + 1000); /* and what a block costs besides */
}

static void set_knobs(ny_emit *e, const ny_block_tile *t) {
  ny_knob_set(e->k, "bm", t->m);
  ny_knob_set(e->k, "bn", t->n);
  ny_knob_set(e->k, "bk", t->k);
  ny_knob_set(e->k, "threads", t->threads);
  if (t->wm) {
    ny_knob_set(e->k, "wm", t->wm);
    ny_knob_set(e->k, "wn", t->wn);
  } else {
    ny_knob_set(e->k, "tr", t->tr);
    ny_knob_set(e->k, "u", t->u);
    ny_knob_set(e->k, "v", t->v);
  }
  ny_knob_set(e->k, "stages", ny_knob(e->k, "stages", 3));
}

ny_block_tile ny_block_pick(ny_emit *e, ny_dim m, ny_dim n, ny_dim k, int64_t batches, ny_fmt a, ny_fmt b, ny_fmt sum) {
  bool fast = on_tensor_cores(e->px, a, b, sum);
  const shape *row = fast ? tensor : plain, *best = NULL;
  size_t count = fast ? NY_COUNT(tensor) : NY_COUNT(plain);
  double least = 0;
  int64_t bm = ny_knob(e->k, "bm", 0), bn = ny_knob(e->k, "bn", 0);
  for (size_t i = 0; i < count; i++) {
    double c = cost(&row[i], m, n, batches, ny_gpu_processors(e->px->target));
    bool named = row[i].t.m == bm && row[i].t.n == bn;
    if (!best || named || (c < least && !(bm && bn))) best = &row[i], least = c;
    if (named) break;
  }
  ny_block_tile t = best->t;
  if (fast) t.k /= ny_fmts[a].bits / 8;
  else if (ny_fmts[sum].bits > 32) t.k = 8;
  t.k = (int)ny_knob(e->k, "bk", t.k);
  if (!fast && k > 0 && k < t.k) t.k = (int)(k + 3) / 4 * 4;
  if (k == 1) t.k = 1; /* operands do not vary along it */
  set_knobs(e, &t);
  if (fast && a == NY_f32) ny_knob_set(e->k, "tf32", 1);
  return t;
}

/* ---- the grid */
void ny_block_place(ny_emit *e, ny_block_sum *s, ny_dim tile_m, ny_dim tile_n, ny_dim m, ny_dim n) {
  ny_ctx *cx = e->cx;
  s->row = ny_dim_mul(cx, tile_m, s->t.m), s->column = ny_dim_mul(cx, tile_n, s->t.n);
  s->lim_m = ny_dim_divides(cx, m, s->t.m) ? NY_ALL : ny_dim_sub(cx, m, s->row);
  s->lim_n = ny_dim_divides(cx, n, s->t.n) ? NY_ALL : ny_dim_sub(cx, n, s->column);
}

void ny_block_grid(ny_emit *e, ny_block_sum *s, ny_dim m, ny_dim n) {
  enum { GROUP = 8 }; /* rows of tiles that take turns, so that a wave of blocks reads a square of both operands */
  ny_ctx *cx = e->cx;
  ny_dim rows = ny_dim_ceildiv(cx, m, s->t.m), cols = ny_dim_ceildiv(cx, n, s->t.n), tm, tn;
  if (rows > GROUP && rows % GROUP == 0 && cols > GROUP) {
    ny_dim group = ny_emit_grid(e, rows / GROUP);
    tn = ny_emit_grid(e, cols);
    tm = ny_dim_add(cx, ny_dim_mul(cx, group, GROUP), ny_emit_grid(e, GROUP));
  } else {
    tm = rows == 1 ? 0 : ny_emit_grid(e, rows);
    tn = cols == 1 ? 0 : ny_emit_grid(e, cols);
  }
  ny_block_place(e, s, tm, tn, m, n);
}

/* ---- the sum */
ny_value *ny_block_sums(ny_emit *e, const ny_block_sum *s, ny_fmt fmt) {
  ny_ctx *cx = e->cx;
  ny_value *sum = ny_emit_tile(e, fmt, s->t.m, s->t.n, 0);
  ny_dim steps = ny_dim_ceildiv(cx, s->k, s->t.k), all = ny_dim_mul(cx, steps, s->runs), var = 0, run = 0, at = 0;
  ny_loop l = {0};
  if (all != 1) l = ny_emit_for(e, 0, all, 1, 1, &var);
  if (s->runs == 1) at = var;
  else if (steps == 1) run = var;
  else run = ny_dim_div(cx, var, steps), at = ny_dim_mod(cx, var, steps);
  ny_dim k0 = ny_dim_mul(cx, at, s->t.k);
  ny_dim left = ny_dim_divides(cx, s->k, s->t.k) ? NY_ALL : ny_dim_sub(cx, s->k, k0);
  e->rows = s->t.m, e->cols = s->t.k, e->lim[0] = s->lim_m, e->lim[1] = left;
  ny_value *a = ny_emit_fill(e, ny_gpu_masked(e, s->a(e, s->user, run, k0), 1), s->t.m, s->t.k);
  e->rows = s->t.k, e->cols = s->t.n, e->lim[0] = left, e->lim[1] = s->lim_n;
  ny_value *b = ny_emit_fill(e, ny_gpu_masked(e, s->b(e, s->user, run, k0), 0), s->t.k, s->t.n);
  ny_emit_mma(e, sum, a, b);
  ny_emit_end(e, l);
  e->rows = s->t.m, e->cols = s->t.n, e->lim[0] = s->lim_m, e->lim[1] = s->lim_n;
  return sum;
}
