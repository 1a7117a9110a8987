/* Inside the comparison of models: compare.c runs them, this looks at their weights. */
#ifndef NY_COMPARE_WEIGHTS_H
#define NY_COMPARE_WEIGHTS_H
#include "compare.h"

/* Fills scheme, error.weights and error.scales of a pair of layers. */
nyb_status ny_compare_weights(ny_layers *one, const ny_op *p, ny_layers *other, const ny_op *q, ny_arena *a, ny_pair *out);
#endif
