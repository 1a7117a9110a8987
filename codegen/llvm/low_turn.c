/* Loads and stores of tiles that lie in memory the other way round: rows adjacent, columns apart. Element by element
   that is a gather or a scatter; here square blocks are read or written along the rows and turned in registers, log2
   steps that exchange ever smaller off-diagonal blocks (Eklundh 1972). A load is done where it stands and kept in an
   array; a store takes its pieces from the value as any other does. */
#include "llvm.h"

#include <string.h>

enum { MOST = 64 }; /* pieces of a tile worth writing out */

static int64_t constant_or(const ny_low *l, ny_dim d, int64_t none) {
  int64_t v;
  return ny_dim_is_const(l->cx, d, &v) ? v : none;
}

static int block_of(const ny_low *l, const ny_value *tile) { /* rows and columns of a block, or 0 */
  int64_t rows = tile->type->dim[0], cols = tile->type->dim[1];
  int n = l->W;
  while (n > 1 && (rows % n || cols % n)) n /= 2;
  return n >= 4 ? n : 0;
}

bool ny_low_turns(const ny_low *l, const ny_op *op) {
  bool load = op->kind == NY_load;
  const ny_attr *a = op->attr, *stride = &a[load ? NY_AT(load, stride) : NY_AT(store, stride)],
                *lim = &a[load ? NY_AT(load, lim) : NY_AT(store, lim)];
  const ny_value *tile = load ? op->out[0] : ny_in(op, 1);
  ny_fmt f = (ny_fmt)tile->type->fmt;
  if (op->n_in > (load ? 1 : 2) || ny_fmts[f].bits < 8 || f == NY_bool || !block_of(l, tile)) return false;
  if (!load && (strcmp(a[NY_AT(store, op)].s, "set") != 0 || tile->type->dim[1] % l->W)) return false;
  if (constant_or(l, stride->dims.v[0], 0) != 1 || constant_or(l, stride->dims.v[1], 2) < 2) return false;
  if (lim->dims.n && !ny_low_at_least(l, lim->dims.v[0], tile->type->dim[0])) return false;
  return tile->type->dim[0] * ((tile->type->dim[1] + l->W - 1) / l->W) <= MOST;
}

static void turn(ny_lx *x, val *row, int n) {
  val low[64], high[64];
  for (int h = n / 2; h; h /= 2) {
    for (int k = 0; k < n; k++) {
      low[k] = ny_ci(x->i32, k & h ? n + k - h : k);
      high[k] = ny_ci(x->i32, k & h ? n + k : k + h);
    }
    val to_low = LLVMConstVector(low, (unsigned)n), to_high = LLVMConstVector(high, (unsigned)n);
    for (int i = 0; i < n; i++) {
      if (i & h) continue;
      val a = row[i], b = row[i + h];
      row[i] = LLVMBuildShuffleVector(x->b, a, b, to_low, "");
      row[i + h] = LLVMBuildShuffleVector(x->b, a, b, to_high, "");
    }
  }
}

/* Does this column exist? NULL: yes. */
static val exists(ny_low *l, const ny_attr *lim, int col) {
  if (!lim->dims.n || ny_low_at_least(l, lim->dims.v[1], col + 1)) return NULL;
  return ny_ic(l->x, LLVMIntSGT, ny_low_dim(l, lim->dims.v[1]), ny_ci(l->x->i64, col));
}

static val zeros(ny_low *l, typ t) {
  val p = ny_slot(l->x, t, 1, 64);
  ny_st(l->x, LLVMConstNull(t), p, 64);
  return p;
}

void ny_low_turn_load(ny_low *l, const ny_op *op) {
  ny_lx *x = l->x;
  const ny_value *tile = op->out[0];
  const ny_attr *lim = &op->attr[NY_AT(load, lim)];
  ny_linfo to = l->info[tile->id];
  int n = block_of(l, tile);
  unsigned align = ny_fmts[to.fmt].bits / 8u;
  typ t = ny_vec(ny_mem_type(x, to.fmt), n);
  val none = lim->dims.n ? zeros(l, t) : NULL, row[64];
  to.array = ny_low_array(l, &to);
  for (int r = 0; r < to.rows; r += n)
    for (int c = 0; c < to.cols; c += n) {
      for (int i = 0; i < n; i++) {
        val p = ny_low_element(l, op, (ny_lat){.row = r, .col = c + i, .lanes = 1}), in = exists(l, lim, c + i);
        row[i] = ny_ld(x, t, in ? ny_sel(x, in, p, none) : p, align);
      }
      turn(x, row, n);
      for (int i = 0; i < n; i++) ny_array_store(l, &to, (ny_lat){.row = r + i, .col = c, .lanes = n}, row[i]);
    }
  ny_low_state(l, (ny_value *)tile, NY_L_FIXED, to.array);
}

static void put_column(ny_low *l, const ny_op *op, ny_lat at, val v) {
  val in = exists(l, &op->attr[NY_AT(store, lim)], at.col), p = ny_low_element(l, op, at);
  unsigned align = ny_fmts[ny_in(op, 1)->type->fmt].bits / 8u;
  ny_lif f;
  if (in) ny_if_begin(l->x, &f, in);
  ny_st(l->x, v, p, align);
  if (!in) return;
  ny_if_else(l->x, &f, NULL);
  ny_if_end(l->x, &f, NULL);
}

void ny_low_turn_store(ny_low *l, const ny_op *op) {
  ny_value *tile = ny_in(op, 1);
  const ny_linfo *from = &l->info[tile->id];
  int n = block_of(l, tile);
  val piece[64], row[64];
  for (int r = 0; r < from->rows; r += n)
    for (int c = 0; c < from->cols; c += l->W) {
      for (int i = 0; i < n; i++) piece[i] = ny_eval(l, tile, (ny_lat){.row = r + i, .col = c, .lanes = l->W});
      for (int part = 0; part < l->W; part += n) {
        for (int i = 0; i < n; i++) row[i] = n == l->W ? piece[i] : ny_part(l->x, piece[i], part, n);
        turn(l->x, row, n);
        for (int i = 0; i < n; i++) put_column(l, op, (ny_lat){.row = r, .col = c + part + i, .lanes = 1}, row[i]);
      }
    }
}
