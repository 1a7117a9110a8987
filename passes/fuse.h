/* What the files of fuse share: one block's ops by position and the cluster each belongs to. */
#ifndef NY_FUSE_H
#define NY_FUSE_H
#include "rewrite.h"

typedef struct ny_cluster {
  const char *family;
  const ny_op *seed;
  ny_op **member, **clone; /* clones: cheap producers copied in, used elsewhere too */
  size_t n, cap, n_clone, cap_clone;
} ny_cluster;
typedef struct ny_fuse {
  ny_pass_cx *px;
  ny_graph *g;
  ny_op **op; /* of the block, in order */
  int n;
  int *pos;              /* by op id: position, or -1 for ops elsewhere */
  int *cluster;          /* by position: index into list, or -1 */
  uint8_t *taint;        /* scratch by position */
  uint8_t *read_by_copy; /* by position: an op copied into some cluster reads it from outside */
  ny_cluster *list;
  size_t n_list, cap_list;
} ny_fuse;
int ny_fuse_pos(const ny_fuse *f, const ny_value *v); /* of the op that makes v, -1 outside this block */
ny_cluster *ny_fuse_open(ny_fuse *f, ny_op *seed, const char *family);
void ny_fuse_add(ny_fuse *f, ny_cluster *c, ny_op *op);
bool ny_fuse_free(const ny_fuse *f, const ny_op *op); /* in no cluster yet */
bool ny_fuse_has(const ny_fuse *f, const ny_cluster *c, const ny_op *op);
bool ny_fuse_all_uses_in(const ny_fuse *f, const ny_cluster *c, const ny_op *op);

typedef bool ny_accept_fn(const ny_fuse *f, const ny_cluster *c, const ny_op *op);
/* Ops after the seed that depend on the cluster and on nothing that depends on it outside join, up to the last point
 * where one value leaves it. */
void ny_fuse_forward(ny_fuse *f, ny_cluster *c, ny_accept_fn *accept);
/* Producers all of whose uses are inside join. */
void ny_fuse_backward(ny_fuse *f, ny_cluster *c, ny_accept_fn *accept);

/* Rules: fuse_rules.c. */
int ny_op_cost(const ny_op *op);        /* scalar work an element: 0 views, 1 simple arithmetic, more for functions */
bool ny_is_expression(const ny_op *op); /* what ny_emit_at can turn into tile ops */
ny_accept_fn ny_accept_epilogue, ny_accept_operand, ny_accept_row, ny_accept_row_input, ny_accept_map;
bool ny_row_axes(const ny_ctx *cx, const ny_op *reduce); /* it reduces the trailing dims */
void ny_fuse_cheap(ny_fuse *f, ny_cluster *c);           /* copies in cheap producers that others use as well */
#endif
