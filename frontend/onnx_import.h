/* Inside the importer: the state of one import and the names in scope. Builders see onnx.h only. */
#ifndef NY_ONNX_IMPORT_H
#define NY_ONNX_IMPORT_H
#include "onnx.h"
#include "onnx_model.h"

enum { NY_MAX_NESTING = 64, NY_MAX_NODES = 250000, NY_MAX_RESTARTS = 64 };

/* Names of one graph or function body. Bodies see outward through `outer`; a function sees only itself. */
struct ny_scope {
  ny_scope *outer;
  ny_name_map names; /* -> index of thing */
  ny_thing *thing;
  uint32_t n_thing, cap_thing;
  const ny_opset *opset;
  uint32_t n_opset;
  const ny_onnx_function *fn; /* being inlined, or NULL */
  ny_node *call;              /* the node that called it */
  int depth;
};

typedef struct ny_cached { /* a tensor of the file, by the address of its message */
  ny_onnx_tensor t;
  const ny_blob *blob;
  ny_value *v; /* of this attempt */
} ny_cached;

/* Found while importing: `sym` (or the expression `from`, a minimum) always equals `to`. */
typedef struct ny_equation {
  ny_name sym;
  ny_dim from, to;
  const ny_loc *loc; /* the node that needs it */
} ny_equation;

struct ny_import {
  ny_ctx *cx;
  ny_unit *unit;
  ny_graph *g;
  ny_arena a; /* lives as long as the import */
  ny_onnx_files files;
  uint64_t budget;
  ny_onnx_model model;
  const ny_binding *dims;
  size_t n_dims;
  ny_name_map symbols;   /* every symbol of an input; value 1: named by us, not by the model */
  ny_name_map sanitised; /* name in the model -> 0; its symbol is sym_of[value] */
  ny_name *sym_of;
  uint32_t n_sym_of, cap_sym_of;
  ny_equation *eq;
  uint32_t n_eq, cap_eq, n_restarts;
  bool restart;
  ny_name_map fn_names;
  const ny_onnx_row **rows; /* hash table by operator name */
  ny_name_map tensors;      /* address of a TensorProto -> index of cached */
  ny_cached *cached;
  uint32_t n_cached, cap_cached;
  uint64_t work; /* done to evaluate constants */
  /* of one attempt */
  ny_op *last_const; /* constants stand together at the top of the graph, so that every body sees them */
  uint32_t n_nodes;
  ny_name_map used_names; /* of values */
  ny_tensor *known;       /* by value id: computed from constants alone */
  uint8_t *known_state;   /* 0: not tried, 1: known, 2: depends on data */
  uint32_t cap_known;
  int const_depth;
};

/* onnx_graph.c */
nyb_status ny_import_nodes(ny_import *im, ny_builder b, ny_scope *sc, ny_onnx_graph *g);
ny_thing *ny_scope_find(ny_scope *sc, ny_name name); /* outward; NULL: not defined */
nyb_status ny_scope_define(ny_import *im, ny_scope *sc, ny_name name, ny_thing t);
ny_scope *ny_scope_new(ny_import *im, ny_scope *outer);
void ny_name_value(ny_import *im, ny_value *v, ny_name name); /* when neither is taken */
nyb_status ny_load_initializers(ny_import *im, ny_scope *sc, ny_onnx_graph *g);

/* onnx_const.c */
ny_value *ny_file_tensor(ny_import *im, ny_bytes proto, bool sparse, const ny_loc *loc);
ny_value *ny_const_value(ny_import *im, const ny_type *t, const ny_blob *blob, const ny_loc *loc);
ny_value *ny_settle(ny_import *im, ny_builder *b,
                    ny_value *v); /* a small integer result as a constant or dims where that is known */

/* onnx_types.c */
typedef struct ny_onnx_type {
  ny_fmt fmt;
  int rank; /* -1: not given */
  ny_dim dim[NY_MAX_RANK];
  bool sequence, optional, other;
} ny_onnx_type;
/* `stem` names dims without a name: stem_axis. */
nyb_status ny_onnx_type_read(ny_import *im, ny_bytes proto, ny_name stem, ny_onnx_type *out);
ny_fmt ny_onnx_elem_type(ny_bytes proto);                 /* of a tensor type; NY_none when it says none */
ny_dim ny_assumed(const ny_import *im, ny_dim d);         /* d, or what an earlier attempt found it equal to */
/* Where d was replaced by ny_assumed: the run fails unless that was right. Names the node that needs it. */
bool ny_require_assumed(ny_node *n, ny_dim d);
/* Gives every op of the graph the requirements without which its type would be a guess. */
nyb_status ny_require_types(ny_import *im);
nyb_status ny_assume(ny_node *n, ny_dim from, ny_dim to); /* starts the import again with from equal to `to` */
const ny_onnx_attr *ny_find_attr(ny_node *n, const char *name, ny_onnx_attr_type type); /* NULL: absent or wrong */

/* onnx_check.c: no more inputs, outputs and attributes than the operator has */
nyb_status ny_check_signature(ny_node *n);

/* onnx_rows.c */
const ny_onnx_row *ny_find_row(const ny_import *im, const char *domain, const char *op, int64_t version);
void ny_rows_open(ny_import *im);
#endif
