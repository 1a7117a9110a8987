/* What the files of emit*.c share. */
#ifndef NY_EMIT_H
#define NY_EMIT_H
#include "family.h"

enum { NY_EMIT_DEPTH = 400 }; /* nested ops of one expression */
bool ny_coord_same(const ny_coord *p, const ny_coord *q);
bool ny_coord_quotient(const ny_coord *c);
bool ny_coord_scalar(const ny_coord *c); /* the same for every element of the tile */
ny_coord ny_coord_simplify(ny_emit *e,
                           ny_coord c); /* a quotient becomes affine where the tile provably stays inside one block */
ny_coord ny_coord_plain(ny_emit *e, ny_coord c);                         /* affine plus index tile, whatever it takes */
ny_coord ny_coord_scale(ny_emit *e, ny_coord c, ny_dim add, ny_dim mul); /* add + c*mul */
/* Tile ops for the elements of op's first result; NULL: no expression. A row per op kind that is one. */
typedef ny_value *ny_at_fn(ny_emit *e, ny_op *op, const ny_coord *at);
ny_at_fn *ny_at_row_of(ny_kind k);
#endif
