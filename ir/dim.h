/* What the files of dim*.c share: an expression opened up as a sum of products, the form all arithmetic works on.
   Atoms are symbols and the nodes that do not distribute (div, mod, min, max, lt). */
#ifndef NY_DIM_H
#define NY_DIM_H
#include "ir.h"

enum {
  NY_DIM_MAX_TERMS = 96,
  NY_DIM_MAX_ATOMS = 12,
  NY_DIM_MAX_SIZE = 6000, /* nodes of one expression as a tree */
  NY_DIM_MAX_DEPTH = 40,  /* nested atoms */
  NY_DIM_MAX_PARSE = 160  /* nested brackets: an atom prints with at most three */
};
typedef struct ny_term {
  int64_t coef;
  uint32_t n;
  ny_dim atom[NY_DIM_MAX_ATOMS]; /* in ny_dim_order; none: the constant term */
} ny_term;
typedef struct ny_poly {
  uint32_t n;
  bool bad; /* overflow or too large: becomes NY_DIM_INVALID */
  ny_term t[NY_DIM_MAX_TERMS];
} ny_poly;

ny_dim ny_dim_node_new(ny_ctx *cx, ny_dim_kind kind, ny_dim a, ny_dim b, int64_t value, ny_name name);
/* A total order by structure, so that text does not depend on the order in which expressions were made. */
int ny_dim_order(const ny_ctx *cx, ny_dim a, ny_dim b);
void ny_poly_of(const ny_ctx *cx, ny_dim d, ny_poly *p);
void ny_poly_add(ny_poly *p, int64_t coef, const ny_dim *atom, uint32_t n); /* p += coef * atoms */
ny_dim ny_poly_dim(ny_ctx *cx, ny_poly *p);                                 /* canonical; sorts p */
/* t / u when u's coefficient and atoms all divide it. */
bool ny_term_divide(const ny_term *t, const ny_term *u, ny_term *out);
int64_t ny_floor_div(int64_t a, int64_t b); /* b != 0, not INT64_MIN / -1 */
int64_t ny_floor_mod(int64_t a, int64_t b);
#endif
