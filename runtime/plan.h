/* From a module and the values of its symbols to concrete sizes. Works in arrays the session allocated, so a run with
   new sizes that fit allocates nothing. */
#ifndef NY_PLAN_H
#define NY_PLAN_H
#include "module.h"

/* Evaluates every expression into val[n_exprs]. Overflow and division by zero are errors that name the expression's
 * symbols. */
nyb_status ny_plan_eval(const ny_mod *m, const int64_t *sym, int64_t *val, ny_diag *d);
/* Checks everything that depends on sizes: buffers inside the arena and their segments, bodies of copies, sizes of
 * conditions. */
nyb_status ny_plan_check(const ny_mod *m, const int64_t *val, ny_diag *d);
/* Fails unless the sizes of requirement i are equal. */
nyb_status ny_plan_require(const ny_mod *m, uint32_t i, const int64_t *val, ny_diag *d);
/* The same for those that hold for every run. */
nyb_status ny_plan_requires(const ny_mod *m, const int64_t *val, ny_diag *d);
/* Bytes of a value of the module; false on overflow or a negative dimension. */
bool ny_plan_value_bytes(const ny_mod_value *v, const int64_t *val, uint64_t *out);
#endif
