/* Tiles whose rows are adjacent in memory and whose columns are not. Element by element that is one scalar access a
   lane; here a block of rows is read or written as column vectors and turned in registers: log2(n) shuffles a vector.
 */
#include "llvm.h"

enum { LANES = 64 };

/* One step of turning an n x n block: vectors i and i+h exchange every other run of h lanes. */
static void exchange(ny_lx *x, val *v, int n, int h) {
  for (int i = 0; i < n; i++) {
    if (i & h) continue;
    val low[LANES], high[LANES];
    for (int k = 0; k < n; k++) {
      low[k] = ny_ci(x->i32, k & h ? n + k - h : k);
      high[k] = ny_ci(x->i32, k & h ? n + k : k + h);
    }
    val a = v[i], b = v[i + h];
    v[i] = LLVMBuildShuffleVector(x->b, a, b, LLVMConstVector(low, (unsigned)n), "");
    v[i + h] = LLVMBuildShuffleVector(x->b, a, b, LLVMConstVector(high, (unsigned)n), "");
  }
}

static void turn(ny_lx *x, val *v, int n) {
  for (int h = n / 2; h; h /= 2) exchange(x, v, n, h);
}

/* Rows in the block at `row`: a power of two, no more than the lanes of a piece. */
static int block_rows(int rows, int row, int lanes) {
  int n = lanes;
  while (n > rows || row / n * n + n > rows) n /= 2;
  return n;
}

/* The `count` parts p[0], p[step], p[2*step] .. side by side. */
static val whole_row(ny_lx *x, const val *p, int step, int count) {
  if (count == 1) return p[0];
  return ny_join(x, whole_row(x, p, step, count / 2), whole_row(x, p + step * (count / 2), step, count / 2));
}

val ny_low_load_block(ny_low *l, const ny_op *op, ny_lat at) {
  ny_value *v = op->out[0];
  const ny_linfo *f = &l->info[v->id];
  if (at.drow || at.dcol || at.lanes < 4 || at.lanes > LANES || !ny_low_columns_adjacent(l, op, v)) return NULL;
  int n = block_rows(f->rows, at.row, at.lanes), row = at.row / n * n;
  if (n < 4) return NULL;
  val part[LANES], mine = NULL; /* part[c]: after turning, row c % n of the n columns from c / n * n on */
  for (int c = 0; c < at.lanes; c++)
    part[c] = ny_low_load_column(l, op, (ny_lat){.row = row, .col = at.col + c, .lanes = 1}, n);
  for (int g = 0; g < at.lanes; g += n) turn(l->x, part + g, n);
  for (int i = 0; i < n; i++) {
    val out = whole_row(l->x, part + i, n, at.lanes / n);
    if (row + i == at.row)
      mine = out;
    else
      ny_low_keep(l, v, (ny_lat){.row = row + i, .col = at.col, .lanes = at.lanes}, out);
  }
  return mine;
}

int ny_low_store_block(ny_low *l, const ny_op *op, ny_value *from, ny_lat at) {
  const ny_linfo *f = &l->info[from->id];
  if (ny_lfold_of(op->attr[NY_AT(store, op)].s) != NY_LF_set || at.lanes < 4 || at.lanes > LANES) return 0;
  int n = at.lanes;
  while (at.row + n > f->rows) n /= 2;
  if (n < 4) return 0;
  val row[LANES], part[LANES];
  for (int i = 0; i < n; i++) {
    ny_lat piece = at;
    piece.row += i;
    row[i] = ny_eval(l, from, piece);
  }
  for (int g = 0; g < at.lanes; g += n) {
    for (int i = 0; i < n; i++) part[i] = ny_part(l->x, row[i], g, n);
    turn(l->x, part, n);
    for (int i = 0; i < n; i++) {
      ny_lat one = {.row = at.row, .col = at.col + g + i, .lanes = 1, .dcol = at.dcol};
      ny_low_store_column(l, op, one, n, part[i]);
    }
  }
  return n;
}
