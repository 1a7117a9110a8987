/* An ONNX model that is changed and written again. What is not touched is written as it was read, byte for byte, fields
   this reader does not know included; weights stay where they are mapped until the new file is written, so editing a
   model costs memory for its structure and for what is put into it. Names tie an ONNX graph together: a new value that
   takes over a name takes over all its readers, also those in bodies of If, Loop and Scan, without touching them.
   Functions that return a status have told the context's diagnostic; those that return a pointer give NULL then. */
#ifndef NY_ONNX_EDIT_H
#define NY_ONNX_EDIT_H
#include "onnx_model.h"

typedef struct ny_edit ny_edit;
typedef struct ny_edit_graph ny_edit_graph;

/* A tensor to be put into a model. The bytes are borrowed until ny_edit_write returns, whether a caller's or a file's.
 */
typedef struct ny_edit_tensor {
  ny_fmt fmt;
  int rank;
  int64_t dim[NY_MAX_RANK];
  const void *data; /* packed storage, as ny_fmt_bytes counts it */
} ny_edit_tensor;

/* An attribute: its name, and its whole AttributeProto as bytes unless it holds graphs. */
typedef struct ny_edit_attr {
  ny_name name;
  ny_onnx_attr_type type;
  ny_bytes proto;
  ny_edit_graph **graph;
  uint32_t n_graph;
  ny_name ref; /* of a function's own attribute, or NULL */
} ny_edit_attr;

/* A node. Inputs, outputs, operator and attributes may be changed in place: set `changed` then. "" is an input left
 * out. */
typedef struct ny_edit_node {
  ny_name name, op_type, domain;
  ny_name *in, *out;
  uint32_t n_in, n_out, n_attr;
  ny_edit_attr *attr;
  ny_bytes proto, field; /* as read, without and with its tag; p NULL: made here */
  bool changed;
  ny_edit_graph *graph; /* the one it stands in */
  struct ny_edit_node *prev, *next;
} ny_edit_node;

typedef struct ny_edit_init {
  ny_name name;
  ny_bytes proto, field; /* as read; p NULL: `tensor` is new */
  bool sparse, dropped;
  ny_edit_tensor tensor;
  struct ny_edit_init *next;
} ny_edit_init;

struct ny_edit_graph { /* of the model, of an attribute, of a function (that has no initializers) */
  ny_bytes proto;
  bool is_function;
  ny_name name;
  ny_edit_node *first, *last;
  ny_edit_init *init, *last_init;
  ny_onnx_value *in, *out;
  uint32_t n_in, n_out;
  ny_name *dropped_in; /* inputs that are not written any more: an initializer's name that a node took over */
  uint32_t n_dropped_in, cap_dropped_in;
  ny_edit_node *owner; /* whose body it is, or NULL */
};

struct ny_edit {
  ny_ctx *cx;
  ny_arena a;
  ny_unit *unit; /* keeps the files mapped */
  ny_onnx_files files;
  uint64_t budget;
  int64_t ir_version;
  ny_opset *opset;
  uint32_t n_opset, cap_opset;
  ny_edit_graph *graph;
  struct ny_edit_function {
    ny_bytes proto;
    ny_name domain, name;
    ny_opset *opset;
    uint32_t n_opset, cap_opset;
    ny_edit_graph *body;
  } * function;
  uint32_t n_function;
  ny_name_map names; /* of every value, node and initializer: for ny_edit_fresh */
  bool new_opset;
};

/* ---- Reading and writing */
nyb_status ny_edit_open(ny_ctx *cx, const char *path, ny_edit **out);
/* The same from memory that outlives the edit; external data is refused. */
nyb_status ny_edit_open_memory(ny_ctx *cx, const void *data, size_t bytes, const char *name, ny_edit **out);
void ny_edit_close(ny_edit *e);
/* Writes `path` (and PATH.data for what is external or would make the file larger than `inline_limit` bytes; 0: the 2
   GiB that protobuf can hold), each complete or not at all. Nodes are sorted if they are not. `path` may be the file
   that was read. */
nyb_status ny_edit_write(ny_edit *e, const char *path, uint64_t inline_limit);

/* Every node of the main graph after what it needs; nodes that are in order keep it. onnx_edit_sort.c. */
nyb_status ny_edit_sort(ny_edit *e);

/* ---- Looking */
int64_t ny_edit_version(const ny_edit *e, const char *domain);       /* 0: not imported */
ny_edit_init *ny_edit_find_init(const ny_edit *e, const char *name); /* of the main graph; NULL without failing */
/* Its element type, shape and bytes, where they lie. */
nyb_status ny_edit_tensor_of(ny_edit *e, const ny_edit_init *in, ny_edit_tensor *out);
bool ny_edit_graph_reads(const ny_edit_graph *g, const char *name); /* its nodes, their bodies, its results */
bool ny_edit_body_reads(const ny_edit_node *n, const char *name);   /* whether a graph in its attributes does */
ny_edit_node *ny_edit_producer(const ny_edit *e,
                               const char *value); /* in the main graph; NULL: an input or initializer */
/* Readers in the main graph, one entry a use; bodies that read it count as reads of the node that owns them, input -1.
 */
typedef struct ny_edit_use {
  ny_edit_node *node;
  int input;
} ny_edit_use;
uint32_t ny_edit_uses(ny_edit *e, const char *value, ny_edit_use **out);
bool ny_edit_is_output(const ny_edit *e, const char *value); /* of the model */
const ny_edit_attr *ny_edit_find_attr(const ny_edit_node *n, const char *name);
/* Values of an attribute of this type; the default when it is absent (or refers to a function's attribute). */
int64_t ny_edit_attr_int(const ny_edit_node *n, const char *name, int64_t def);
double ny_edit_attr_float(const ny_edit_node *n, const char *name, double def);
const char *ny_edit_attr_string(ny_edit *e, const ny_edit_node *n, const char *name, const char *def);
/* -1: absent. At most `cap` values are stored. */
int ny_edit_attr_ints(const ny_edit_node *n, const char *name, int64_t *out, int cap);

/* ---- Changing */
ny_name ny_edit_fresh(ny_edit *e, const char *stem); /* a name nothing has: the stem itself, else stem_1, stem_2 .. */
/* A node before `before` (NULL: the end) of g. Names are comma-free NUL-terminated strings; "" leaves an input out. */
ny_edit_node *ny_edit_add_node(ny_edit *e, ny_edit_graph *g, ny_edit_node *before, const char *domain, const char *op,
                               const char *name, const char *const *in, uint32_t n_in, const char *const *out,
                               uint32_t n_out);
void ny_edit_drop_node(ny_edit_node *n);
void ny_edit_set_in(ny_edit *e, ny_edit_node *n, uint32_t i,
                    const char *name); /* inputs up to i that are missing become "" */
void ny_edit_drop_attr(ny_edit_node *n, const char *name);
void ny_edit_set_int(ny_edit *e, ny_edit_node *n, const char *name, int64_t v); /* set: replace or add */
void ny_edit_set_ints(ny_edit *e, ny_edit_node *n, const char *name, const int64_t *v, uint32_t count);
void ny_edit_set_float(ny_edit *e, ny_edit_node *n, const char *name, double v);
void ny_edit_set_string(ny_edit *e, ny_edit_node *n, const char *name, const char *v);
void ny_edit_set_tensor(ny_edit *e, ny_edit_node *n, const char *name, const ny_edit_tensor *t); /* copied */
/* A new initializer of g (NULL: the main graph), or new contents for the one of this name. */
void ny_edit_set_init(ny_edit *e, ny_edit_graph *g, const char *name, const ny_edit_tensor *t);
/* A copy of `count` numbers as a new initializer; gives its name, made of `stem`. */
ny_name ny_edit_add_ints(ny_edit *e, ny_edit_graph *g, const char *stem, int rank, const int64_t *v, int64_t count);
void ny_edit_drop_init(ny_edit *e, ny_edit_graph *g, const char *name);
void ny_edit_drop_unread(ny_edit *e,
                         const char *name); /* an initializer of the main graph, unless something reads it */

/* ---- Operator sets (onnx_upgrade.c). Every operator whose definition changed on the way is carried over by its rule:
   attributes that became inputs, defaults that changed. One that cannot be is refused by name, and then the
   edit is only good for closing. Also raises the IR version to what the operator set needs. Never lowers. */
nyb_status ny_edit_raise_opset(ny_edit *e, int64_t version);
void ny_edit_import_domain(ny_edit *e, const char *domain, int64_t version); /* unless it is imported already */

/* ---- Quantised tensors (onnx_edit_quant.c) */
typedef struct ny_edit_quant {
  ny_edit_tensor codes; /* f4e2m1, f8e4m3, integers of 2, 4 and 8 bits */
  ny_edit_tensor scale; /* f32, f16, bf16, f8e4m3, f8e8m0: codes' shape with ceil(n/block) on axis; or, without blocks,
                           [n] or [] */
  ny_edit_tensor
      tensor_scale;    /* f32[]; fmt NY_none: none. What f8e4m3 scales are multiplied with (required for them) */
  ny_edit_tensor zero; /* in the codes' format and the scale's shape; fmt NY_none: none */
  int axis;
  int64_t block; /* 0: per tensor or per slice of axis */
  ny_fmt fmt;    /* of the result: f32, f16, bf16 */
  /* How the original comes out of what is stored: reshaped (rank >= 0), then transposed (perm not NULL). */
  int rank;
  int64_t dim[NY_MAX_RANK];
  const int *perm;
} ny_edit_quant;
/* In place of the initializer `name`: its codes and scales as new initializers, and DequantizeLinear nodes (one, or two
   for NVFP4), then Reshape and Transpose if asked for, whose result takes over the name. Raises the operator set to
   what these need: 23 for f4e2m1, 24 for f8e8m0, 25 for 2 bits, 21 for blocks of integers. */
nyb_status ny_edit_quantize(ny_edit *e, const char *name, const ny_edit_quant *q);
/* What reads `value` reads op(value, t) instead: "Mul" by channel scales, "Add" of a correction. The new node takes
   over the name, so results of the model keep theirs. For an input of the model, its readers are changed (refused when
   a body reads it). */
nyb_status ny_edit_insert(ny_edit *e, const char *value, const char *op, const char *stem, const ny_edit_tensor *t);
/* The same for one reader only. */
nyb_status ny_edit_insert_at(ny_edit *e, ny_edit_node *reader, int input, const char *op, const char *stem,
                             const ny_edit_tensor *t);
#endif
