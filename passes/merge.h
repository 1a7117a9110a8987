/* What the files of merge share. */
#ifndef NY_MERGE_H
#define NY_MERGE_H
#include "rewrite.h"

/* What is won and lost. A launch of a captured graph takes 1.5 to 3 us from one kernel's end to the next one's first result; inside a block the next kernel begins at a
   barrier. One multiprocessor now does what many would do beside one another: it draws about 50 bytes a nanosecond from L2 (of 64 bytes a clock) and executes 128 elementary
   operations a clock at 1.7 GHz, of which some wait for issue. But a few warps leave it idle most of the time: a thread's operations follow one another at about 4 clocks
   each whatever other warps do, and memory is waited for. So a kernel of few grid points takes as long in one block as in many, and one of many takes as long as its
   turns: the points that do not fit the block at once come after those that do. */
enum {
  NY_MERGE_BLOCK = 512,      /* threads; 128 registers each */
  NY_MERGE_LAUNCH = 1500,    /* nanoseconds that a launch less saves */
  NY_MERGE_SMALL = 750,      /* that a member may take longer in one block: two that lose this much win as much */
  NY_MERGE_BYTES = 50,       /* bytes a nanosecond */
  NY_MERGE_OPS = 150,        /* elementary operations a nanosecond, of all threads */
  NY_MERGE_ISSUE = 2,        /* nanoseconds an operation of one thread */
  NY_MERGE_TURN = 400,       /* nanoseconds from a point's loads to its stores */
  NY_MERGE_STEP = 40,        /* of one more iteration of a loop in it */
  NY_MERGE_USUAL = 64,       /* what a size that is a symbol counts as, when members are chosen */
  NY_MERGE_MEMBERS = 16,     /* of a merged kernel, and what bounds its text, so that NVRTC's time is that of some kernels: */
  NY_MERGE_TEXT = 400,       /* ops of its members */
  NY_MERGE_ARGS = 64
};

/* Nanoseconds that kernel k takes longer when one block runs it, as an expression of the symbols; NY_DIM_INVALID: that cannot be said. */
ny_dim ny_merge_cost(ny_graph *k, ny_arena *a);
int ny_merge_ops(const ny_graph *k); /* ops of its text */
#endif
