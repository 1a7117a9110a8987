/* What the files of merge share. */
#ifndef NY_MERGE_H
#define NY_MERGE_H
#include "rewrite.h"

/* What one block costs, and what a launch does. A launch of a captured graph takes 1.5 to 3 us from one kernel's end to the next one's first result; inside a block the
   next kernel begins at a barrier. What is lost: one multiprocessor does what many would do beside one another. It draws about 50 bytes a nanosecond from L2 (half of its 64
   bytes a clock), and executes 128 elementary operations a clock at 1.7 GHz, of which loads, addresses and waiting leave a half. Grid points that do not fit the block
   at once come in turns, each of which waits for memory again. */
enum {
  NY_MERGE_BLOCK = 512,      /* threads; 128 registers each */
  NY_MERGE_LAUNCH = 1500,    /* nanoseconds that a launch less saves */
  NY_MERGE_SMALL = 750,      /* of its own that a member may cost: two members that cost this much save as much */
  NY_MERGE_BYTES = 50,       /* bytes a nanosecond */
  NY_MERGE_OPS = 100,        /* elementary operations a nanosecond */
  NY_MERGE_TURN = 400,       /* nanoseconds from loads to stores */
  NY_MERGE_STEP = 40,        /* of one more iteration of a loop in a grid point */
  NY_MERGE_USUAL = 64,       /* what a size that is a symbol counts as, when members are chosen */
  NY_MERGE_MEMBERS = 16,     /* of a merged kernel, and what bounds its text, so that NVRTC's time is that of some kernels: */
  NY_MERGE_TEXT = 400,       /* ops of its members */
  NY_MERGE_ARGS = 64
};

/* Nanoseconds that kernel k takes longer when one block runs it, as an expression of the symbols; NY_DIM_INVALID: unknown or far too long. */
ny_dim ny_merge_cost(ny_graph *k, ny_arena *a);
int ny_merge_ops(const ny_graph *k); /* ops of its text */
#endif
