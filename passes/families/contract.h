/* What the contraction templates share: register tile shapes by rule, and the two loops every one of them has: tiles of rows, and the sum. */
#ifndef NY_CONTRACT_H
#define NY_CONTRACT_H
#include "family.h"

/* Registers of a tile of r rows x v vectors: r*v sums, v vectors of the right operand, one broadcast element. */
int ny_rows_max(const ny_target *t, int vectors);
/* Tile height for `extent` rows (negative: symbolic) of `stride` bytes each: the least wasted work, at most what the registers hold. */
int ny_rows_pick(const ny_target *t, ny_dim extent, int vectors, int64_t stride);
/* Vectors across the columns of a right operand that is read in place. */
int ny_vectors_pick(const ny_target *t, ny_dim rows, ny_dim cols, int lanes);

/* Which dim of a channels-last result gives a tile its rows: the last one before the channels that is not 1. */
int ny_row_dim(const ny_type *out);

/* Tiles of rows over a symbolic or static extent. Where extent >= rows the last tile is shifted back and overlaps its neighbour; a smaller
   symbolic extent takes single rows. `tiles` is the number of grid points. */
typedef struct ny_rows {
  ny_dim extent, tiles;
  int rows;
  bool both; /* not known which case it is: two bodies, each behind a condition */
} ny_rows;
ny_rows ny_rows_of(ny_ctx *cx, ny_dim extent, int rows);
/* Emits body for each tile height; `row` is the first row of tile `index`. */
typedef void ny_rows_body(ny_emit *e, void *user, int rows, ny_dim row);
void ny_rows_emit(ny_emit *e, const ny_rows *r, ny_dim index, ny_rows_body *body, void *user);

/* a * b, at most 2^40: for estimates of work, where sizes come from a file. */
static inline int64_t ny_work(int64_t a, int64_t b) {
  const int64_t most = INT64_C(1) << 40;
  return a > 0 && b > 0 && a > most / b ? most : a * b;
}

/* A matmul whose packed weights are codes; the emit has begun. NYB_E_UNSUPPORTED: not packed by words. */
nyb_status ny_codes_matmul(ny_emit *e, const ny_op *op);

/* sum += a * b, operands stretched to the sum's rows and columns. NULL operands (a failed emit) are ignored. */
void ny_emit_mma(ny_emit *e, ny_value *sum, ny_value *a, ny_value *b);
/* The contraction's value at `at` is `sum`; stores every result of the group. Sets e->failed when one does not follow from it elementwise. */
void ny_emit_epilogue(ny_emit *e, ny_value *of, const ny_coord *at, ny_value *sum);
/* True when reading a [rows, cols] tile of v at these coordinates needs an index tile or columns that are not adjacent. */
bool ny_emit_is_strided(ny_emit *e, ny_value *v, const ny_coord *at, int rows, int cols);
#endif
