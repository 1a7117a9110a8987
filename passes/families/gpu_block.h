/* Block tiles of contractions on a GPU: the sums [m,n] of a block stay in registers, its operands pass by k at a time through shared memory (the code
   generator stages what an mma reads). What differs between matmul and conv is where operands lie. */
#ifndef NY_GPU_BLOCK_H
#define NY_GPU_BLOCK_H
#include "gpu.h"

typedef struct ny_block_tile {
  int m, n, k; /* of the sums, and the depth of a step */
  int threads, tr, u, v; /* layout of the sums without tensor cores */
  int wm, wn;            /* with them: warps along rows and columns; else 0 */
} ny_block_tile;

/* The shape for sums of m x n (negative: symbolic) in `batches` of them, over products of formats a and b; set as knobs, and those set before win. */
ny_block_tile ny_block_pick(ny_emit *e, ny_dim m, ny_dim n, ny_dim k, int64_t batches, ny_fmt a, ny_fmt b, ny_fmt sum);

/* Operand tiles of a step: a [m,k] and b [k,n]; e->rows, cols and lim are theirs. `step` counts steps; k0 is the first position. */
typedef struct ny_block_sum {
  ny_block_tile t;
  ny_dim k;           /* length of the sum, or of a run of it */
  ny_dim row, column; /* of the block's first sum */
  ny_dim lim_m, lim_n; /* sums that exist, or NY_ALL */
  ny_value *(*a)(ny_emit *e, void *user, ny_dim run, ny_dim k0);
  ny_value *(*b)(ny_emit *e, void *user, ny_dim run, ny_dim k0);
  void *user;
  ny_dim runs; /* of k elements each: the positions of a convolution's kernel; else 1 */
} ny_block_sum;
/* Sets row, column and the limits from grid variables counting tiles. */
void ny_block_place(ny_emit *e, ny_block_sum *s, ny_dim tile_m, ny_dim tile_n, ny_dim m, ny_dim n);
/* Opens the grid over tiles of m x n, neighbours in squares where they share what they read, and places the block. */
void ny_block_grid(ny_emit *e, ny_block_sum *s, ny_dim m, ny_dim n);
/* Emits the loop; the result is the tile of sums, and e->rows, cols and lim are its own. */
ny_value *ny_block_sums(ny_emit *e, const ny_block_sum *s, ny_fmt sum);
#endif
