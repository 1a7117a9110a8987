/* tile[m,n] += a[m,k] * b[k,n] as an unrolled outer product: for every k, the vectors of b's row once, then a's
   elements one by one, each spread over the lanes and multiplied in. Operands that are loads stay loads, so nothing but
   the accumulators, one row of b and one element of a is live; a large k becomes a loop around the same code. */
#include "llvm.h"

enum { UNROLL = 768 }; /* multiply-adds written out before k becomes a loop */

typedef struct mma {
  ny_low *l;
  ny_value *acc, *a, *b;
  ny_fmt fmt; /* of the accumulator */
  val *sum;   /* accumulators taken out of their slots for the time being, [rows][pieces], or NULL */
} mma;

static val operand(const mma *m, ny_value *v, ny_lat at) {
  ny_lx *x = m->l->x;
  val r = ny_eval(m->l, v, at);
  if (ny_is_float(m->fmt)) {
    r = ny_decode(x, (ny_fmt)v->type->fmt, r);
    typ want = ny_like(r, ny_num_type(x, m->fmt));
    if (LLVMTypeOf(r) == want) return r;
    return m->fmt == NY_f64 ? LLVMBuildFPExt(x->b, r, want, "") : LLVMBuildFPTrunc(x->b, r, want, "");
  }
  return ny_convert(x, (ny_fmt)v->type->fmt, m->fmt, r, false);
}

static val multiply_add(const mma *m, val a, val b, val c) {
  ny_lx *x = m->l->x;
  return ny_is_float(m->fmt) ? ny_fma(x, a, b, c) : NY_B(Add, x, NY_B(Mul, x, a, b), c);
}

/* One k: constant at `k`, plus `dk` at run time. */
static void one_k(const mma *m, int k, val dk) {
  ny_low *l = m->l;
  const ny_linfo *acc = &l->info[m->acc->id];
  int rows = acc->rows, cols = acc->cols;
  val b[64];
  int lanes[64], n = 0;
  for (int c0 = 0; c0 < cols; c0 += 64 * l->W) {
    n = 0;
    for (int c = c0; c < cols && n < 64; c += lanes[n++]) {
      lanes[n] = ny_piece_lanes(l, cols, c);
      b[n] = operand(m, m->b, (ny_lat){k, c, lanes[n], dk, NULL});
    }
    for (int r = 0; r < rows; r++) {
      val a = operand(m, m->a, (ny_lat){r, k, 1, NULL, dk});
      for (int i = 0, c = c0; i < n; c += lanes[i++]) {
        ny_lat at = {.row = r, .col = c, .lanes = lanes[i]};
        val *s = m->sum ? &m->sum[r * acc->pieces + i] : NULL;
        val t = multiply_add(m, ny_splat(l->x, a, lanes[i]), b[i], s ? *s : ny_tile_get(l, acc, at));
        if (s)
          *s = t;
        else
          ny_tile_put(l, acc, at, t);
      }
    }
  }
}

static void sums(const mma *m, bool take) {
  const ny_linfo *acc = &m->l->info[m->acc->id];
  for (int r = 0, i = 0; m->sum && r < acc->rows; r++)
    for (int c = 0; c < acc->cols; i++) {
      ny_lat at = {.row = r, .col = c, .lanes = ny_piece_lanes(m->l, acc->cols, c)};
      if (take)
        m->sum[i] = ny_tile_get(m->l, acc, at);
      else
        ny_tile_put(m->l, acc, at, m->sum[i]);
      c += at.lanes;
    }
}

static void some_k(const mma *m, int from, int n, val dk) {
  sums(m, true);
  for (int k = 0; k < n; k++) one_k(m, from + k, dk);
  sums(m, false);
}

void ny_low_mma(ny_low *l, const ny_op *op) {
  ny_lx *x = l->x;
  if (ny_low_dot(l, op)) return;
  mma m = {.l = l, .acc = ny_in(op, 0), .a = ny_in(op, 1), .b = ny_in(op, 2)};
  m.fmt = (ny_fmt)m.acc->type->fmt;
  const ny_linfo *acc = &l->info[m.acc->id];
  int depth = l->info[m.a->id].cols, each = acc->rows * acc->pieces, by = depth;
  uint32_t order = l->order[op->id].first;
  if (acc->state == NY_L_SLOT && acc->pieces <= 64) m.sum = NY_NEW_ARRAY(&l->arena, val, each);
  if (each * depth > UNROLL && depth > 4) by = each * 4 > UNROLL ? 1 : 4;
  bool loop = by < depth;
  ny_low_prepare(l, &m.a, 1, (ny_roll){false, loop}, order);
  ny_low_prepare(l, &m.b, 1, (ny_roll){loop, false}, order);
  if (!loop) {
    some_k(&m, 0, depth, NULL);
    return;
  }
  ny_lloop k;
  int main = depth / by * by;
  ny_loop_begin(x, &k, ny_ci(x->i64, 0), ny_ci(x->i64, main), ny_ci(x->i64, by), false);
  ny_lmark mark = ny_low_enter(l);
  some_k(&m, 0, by, k.iv);
  ny_low_leave(l, mark);
  ny_loop_end(x, &k);
  if (main < depth) some_k(&m, main, depth - main, NULL);
}
