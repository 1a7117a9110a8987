/* What the files of place share. */
#ifndef NY_PLACE_H
#define NY_PLACE_H
#include "rewrite.h"

enum { NY_PLACE_ALIGN = 64, NY_PLACE_NOMINAL = 128 /* what a symbol counts as where sizes must be compared */ };
typedef struct ny_bounds ny_bounds;
ny_bounds *ny_bounds_new(ny_ctx *cx, ny_arena *a);
void ny_bounds_see(ny_bounds *b, ny_dim d);          /* every size first */
ny_dim ny_bounds_of(ny_bounds *b, ny_dim d);         /* a sum that is at least d, a multiple of the alignment */
ny_dim ny_place_max(ny_ctx *cx, ny_dim a, ny_dim b); /* of two such: at least the larger */
#endif
