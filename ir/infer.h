/* The inference functions that the `infer` column of ops.def names, and what they share. Each returns the type output
   `out` must have, or NULL after ny_fail; where a row's result is "as declared" it starts from the type the output has.
   Ops without outputs are checked by one call with out 0, which returns any type. */
#ifndef NY_INFER_H
#define NY_INFER_H
#include "ir.h"

#define OP(name, level, min_in, max_in, n_out, n_body, flags, infer, text) ny_infer_fn ny_infer_##infer;
#define EW(name, n_in, types, expr)
#define ATTR(op, name, kind, def)
#include "ops.def"
#undef OP
#undef EW
#undef ATTR
ny_infer_fn ny_infer_ew;

#define NY_NAME_OF(op) (ny_kinds[(op)->kind].name)
/* Records "<op>: ..." and gives NULL. */
const ny_type *ny_bad_type(ny_graph *g, const ny_op *op, const char *fmt, ...) NY_PRINTF(3, 4);
/* An axis attribute, counted from the end when negative, brought into 0..rank-1; -1 after ny_bad_type. */
int ny_axis_of(ny_graph *g, const ny_op *op, int64_t axis, int rank);
/* Could a and b be equal? False only when they provably differ. */
bool ny_may_equal(ny_ctx *cx, ny_dim a, ny_dim b);
bool ny_is_choice(ny_graph *g, const ny_op *op, ny_name value, const char *const *choices, int n);
extern const char *const ny_reduce_ops[4];  /* sum, prod, max, min */
extern const char *const ny_scatter_ops[5]; /* set and those */
const ny_type *ny_result(ny_graph *g, const ny_op *op, ny_fmt fmt, int rank,
                         const ny_dim *dims); /* ranks and sizes checked */
/* The text of a dim or type for a message, in the context's arena. */
const char *ny_dim_str(ny_graph *g, ny_dim d);
const char *ny_type_str(ny_graph *g, const ny_type *t);
#endif
