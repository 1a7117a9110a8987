/* Inside the module writer: what its files share.
   module_build.c  the call, values and segments in order       module_rows.c   expressions, buffers, commands
   module_weights.c constants and const groups into the file    module_graph.c  the portable graph
   module_code.c    machine code, entries, names of targets
   module_file.c   the container                                module_write.cc rows as a flatbuffer */
#ifndef NY_MODULE_BUILD_H
#define NY_MODULE_BUILD_H
#include <string.h>

#include "codegen.h"
#include "module_file.h"
#include "rewrite.h"

typedef struct ny_weight { /* a constant of the unit or of the portable graph */
  ny_op *op;               /* const, or group of family const */
  ny_weight_place at;
} ny_weight;
typedef struct ny_weight_key { /* equal keys, equal bytes: nothing is evaluated twice */
  uint8_t digest[32];
  ny_weight_place at;
} ny_weight_key;
typedef struct ny_module_store { /* of the file: what its programs share */
  ny_module_file file;
  ny_weight_key *key;
  uint32_t n_keys, cap_keys;
  uint32_t small; /* segment of the small constants */
  ny_arena a;
} ny_module_store;
typedef struct ny_module_builder { /* of a program */
  const ny_compiled *p;
  ny_module_store *store;
  ny_unit *u;
  ny_graph *g; /* the main graph of u */
  ny_ctx *cx;
  ny_diag *d;
  ny_arena a;
  ny_weight *weight;
  size_t n_weights, cap_weights;
  /* rows */
  ny_mod m;
  uint32_t cap_exprs, cap_symbols, cap_buffers, cap_commands, cap_requires, cap_precision;
  struct ny_dim_slot {
    ny_dim d;
    uint32_t row; /* one more than the expression; 0: free */
  } * dim;
  uint32_t n_dims, cap_dims;
  uint32_t *buffer_of; /* by value id: one more than the buffer; 0: none */
  int *output_of;      /* by value id of the main graph: which output's memory a launch writes it to, or -1 */
  ny_graph **kernel;
} ny_module_builder;

/* module_weights.c */
nyb_status ny_weight_store(ny_module_builder *b, ny_graph *g, ny_op *op, ny_weight_place *out);
/* Where the bytes lie in the file; after the weights have ended. */
uint64_t ny_weight_offset(const ny_module_builder *b, ny_weight_place at);

/* module_graph.c: before the weights end, then after. */
nyb_status ny_portable_store(ny_module_builder *b, ny_unit *portable, ny_weight **out, size_t *n);
nyb_status ny_portable_text(ny_module_builder *b, ny_unit *portable, const ny_weight *w, size_t n, ny_text *out);

/* module_rows.c */
uint32_t ny_row_expr(ny_module_builder *b, ny_dim d); /* UINT32_MAX after a failure */
uint32_t ny_row_number(ny_module_builder *b, int64_t v);
uint32_t ny_row_buffer(ny_module_builder *b, ny_mod_place place, uint32_t index, ny_dim offset, const ny_type *t);
nyb_status ny_rows_build(ny_module_builder *b);

/* module_code.c: the program's code into the file; then target, kernels and images as rows. */
nyb_status ny_code_store(ny_module_builder *b);
nyb_status ny_code_rows(ny_module_builder *b);
#endif
