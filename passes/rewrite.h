/* What passes share: recognising constants, replacing and erasing, cloning, walking. */
#ifndef NY_REWRITE_H
#define NY_REWRITE_H
#include "passes.h"

/* A builder that inserts before op and gives its location to what it builds. */
ny_builder ny_before(ny_graph *g, ny_op *op);
static inline ny_op *ny_def(const ny_value *v, ny_kind k) { return v->def && v->def->kind == k ? v->def : NULL; }
static inline bool ny_is_map(const ny_op *op) { return (ny_kinds[op->kind].flags & NY_MAP) != 0; }
static inline bool ny_is_pure(const ny_op *op) { return (ny_kinds[op->kind].flags & NY_PURE) != 0; }
static inline bool ny_is_ew(const ny_op *op) { return ny_is_map(op) || op->kind == NY_cast; }

/* v is one number everywhere. */
bool ny_uniform(const ny_value *v, double *x); /* not for 64-bit integers beyond 2^53 */
bool ny_is_uniform(const ny_value *v);
/* A const of the number x everywhere, or NULL when the format cannot hold it exactly or the shape is symbolic. */
ny_value *ny_b_splat(ny_builder *b, const ny_type *t, double x);
/* Computed from constants alone (const, and pure ops over such; bounded depth). */
bool ny_is_constant(const ny_value *v);
bool ny_same_shape(const ny_type *a, const ny_type *b);

/* All uses of op's first result move to v, which takes over its name if it has none; op is erased. */
void ny_replace_op(ny_op *op, ny_value *v);
/* Copies op to the end of b (or before `before`) with these inputs; attributes are shared. No bodies. */
ny_op *ny_clone(ny_graph *g, ny_block *b, ny_op *before, const ny_op *op, ny_value *const *in);
/* True when a and b are the same op on the same inputs (no bodies). */
bool ny_same_op(const ny_op *a, const ny_op *b);
uint64_t ny_op_hash(const ny_op *op);
bool ny_same_attrs(const ny_op *a, const ny_op *b);

/* ---- group.c */
/* Wraps ops of one block, in order, in a group at the place of the last one; results used outside become its results.
   Numbers everywhere, dims and iota are copied into every group that reads them. `clone` ops (may be NULL) are copied
   in rather than moved. */
ny_op *ny_group_new(ny_graph *g, ny_op *const *ops, int n, ny_op *const *clone, int n_clone, const char *family,
                    const ny_loc *loc);
bool ny_is_const_group(const ny_op *op); /* family const: evaluated when the module is written */
/* The ops of a group move back before it, the group goes. */
void ny_group_open(ny_graph *g, ny_op *group);
/* Is v's op copied into every group that reads it? */
bool ny_travels(const ny_value *v);
/* Wraps what is computed from constants alone and is read by anything else in groups of family const, in the main
 * block; at -O0 constants only. */
nyb_status ny_group_constants(ny_pass_cx *px, ny_graph *g, bool *changed);
/* A constant as bytes in memory from here on: what is done to it later is no part of the expression it is. */
ny_value *ny_hold_constant(ny_pass_cx *px, ny_graph *g, ny_value *v);
const char *ny_family_of_op(const ny_op *op); /* of a group of this op alone */

/* Every block of a graph, outer before inner. */
typedef nyb_status ny_block_fn(void *user, ny_block *b);
nyb_status ny_each_block(ny_block *b, void *user, ny_block_fn *fn);
/* Drops pure ops nothing uses, inside out. */
bool ny_drop_dead(ny_block *b);

/* ---- precision.c: called before a group becomes a launch of k */
nyb_status ny_note_precision(ny_pass_cx *px, const ny_op *group, const ny_graph *k);
#endif
