/* A ModelProto as structs: names interned, lists counted, everything else still a range of the file. Internal to the
 * importer. */
#ifndef NY_ONNX_MODEL_H
#define NY_ONNX_MODEL_H
#include "ir.h"
#include "pb.h"

typedef enum ny_onnx_attr_type { /* AttributeProto.AttributeType */
                                 NY_ATTR_NONE,
                                 NY_ATTR_FLOAT,
                                 NY_ATTR_INT,
                                 NY_ATTR_STRING,
                                 NY_ATTR_TENSOR,
                                 NY_ATTR_GRAPH,
                                 NY_ATTR_FLOATS,
                                 NY_ATTR_INTS,
                                 NY_ATTR_STRINGS,
                                 NY_ATTR_TENSORS,
                                 NY_ATTR_GRAPHS,
                                 NY_ATTR_SPARSE_TENSOR,
                                 NY_ATTR_SPARSE_TENSORS,
                                 NY_ATTR_TYPE_PROTO,
                                 NY_ATTR_TYPE_PROTOS
} ny_onnx_attr_type;

typedef struct ny_onnx_graph ny_onnx_graph;
typedef struct ny_onnx_attr {
  ny_name name, ref; /* ref: the attribute of the enclosing function that this stands for, or NULL */
  ny_onnx_attr_type type;
  int64_t i;
  double f;
  const char *s;  /* STRING, NUL-terminated copy */
  ny_bytes bytes; /* STRING, TENSOR, SPARSE_TENSOR, TYPE_PROTO: as in the file */
  ny_onnx_graph *g;
  int64_t *ints;
  double *floats;
  const char **strings;
  uint32_t n; /* of the list */
} ny_onnx_attr;

typedef struct ny_onnx_node {
  ny_name name, op_type, domain, overload;
  ny_name *in, *out; /* NULL: left out */
  ny_onnx_attr *attr;
  uint32_t n_in, n_out, n_attr, index;
  uint64_t offset;
} ny_onnx_node;

typedef struct ny_onnx_init {
  ny_name name;
  ny_bytes proto;
  bool sparse;
} ny_onnx_init;
typedef struct ny_onnx_value { /* a graph input or output */
  ny_name name;
  ny_bytes type; /* TypeProto; n == 0: not given */
} ny_onnx_value;

struct ny_onnx_graph {
  ny_name name;
  ny_onnx_node *node;
  ny_onnx_init *init;
  ny_onnx_value *in, *out;
  uint32_t n_node, n_init, n_in, n_out;
  ny_name *free; /* names it uses and does not define */
  uint32_t n_free;
  bool free_known;
  uint32_t *order; /* nodes to import, each after what it needs; those nothing needs left out. NULL: not computed yet */
  uint32_t n_order;
};

typedef struct ny_opset {
  ny_name domain;
  int64_t version;
} ny_opset;
typedef struct ny_onnx_function {
  ny_name domain, name, overload;
  ny_onnx_graph body;
  ny_name *attr_name; /* without default */
  ny_onnx_attr *attr_default;
  ny_opset *opset;
  uint32_t n_attr_name, n_attr_default, n_opset;
} ny_onnx_function;
typedef struct ny_onnx_model {
  int64_t ir_version;
  ny_name producer;
  ny_onnx_graph *graph;
  ny_opset *opset;
  ny_onnx_function *function;
  uint32_t n_opset, n_function;
} ny_onnx_model;

/* Reads a whole file. Memory is bounded by a multiple of its size (NYB_E_LIMIT beyond). */
nyb_status ny_onnx_read(ny_ctx *cx, ny_arena *a, ny_bytes file, ny_onnx_model *out);
/* Fills g->order; fails when names form a cycle, are defined twice or not at all are left to import. */
nyb_status ny_onnx_order(ny_ctx *cx, ny_arena *a, ny_onnx_graph *g);

/* A map from interned names to numbers, for graphs of any size. */
typedef struct ny_name_map {
  ny_name *key;
  uint32_t *val;
  uint32_t n, cap;
} ny_name_map;
uint32_t *ny_name_find(const ny_name_map *m, ny_name key); /* NULL: absent */
uint32_t *ny_name_put(ny_name_map *m, ny_arena *a, ny_name key,
                      uint32_t val); /* the old value stays when there is one */

/* ---- onnx_tensor.c */
typedef struct ny_onnx_tensor {
  ny_name name;
  ny_fmt fmt;
  int rank;
  int64_t dim[NY_MAX_RANK];
  uint64_t count;
  const uint8_t *data; /* packed storage */
  uint64_t bytes;
  ny_name file; /* NULL: decoded into an arena */
  uint64_t offset;
} ny_onnx_tensor;
typedef struct ny_onnx_files { /* where raw bytes may lie */
  ny_unit *unit;
  ny_bytes file;
  ny_name file_name;  /* last component; NULL: from memory */
  const char *folder; /* of the model; NULL: external data is refused */
  uint64_t *budget;   /* bytes that decoding may still allocate */
} ny_onnx_files;
nyb_status ny_onnx_tensor_read(ny_ctx *cx, ny_onnx_files *f, ny_bytes proto, ny_onnx_tensor *out);
nyb_status ny_onnx_sparse_read(ny_ctx *cx, ny_onnx_files *f, ny_bytes proto, ny_onnx_tensor *out);
/* onnx_external.c: maps FOLDER/location[offset, offset + length) into the unit. length < 0: to the end of the file. */
nyb_status ny_onnx_external(ny_ctx *cx, ny_onnx_files *f, const char *location, int64_t offset, int64_t length,
                            const ny_loc *loc, const uint8_t **data, uint64_t *bytes);
#endif
