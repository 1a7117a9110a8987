/* What a builder of an ONNX operator sees. A builder is `nyb_status ny_op_conv(ny_node *n)` plus a row in onnx_ops.def:
   it reads n->in and the attributes, appends IR through &n->b, and puts results with ny_out. Nodes arrive in
   topological order, so every input has its final type; the inputs that the row requires are there. Integer inputs that
   are shapes, axes or sizes are resolved here and now: see ny_node_dims and ny_onnx_const. Failures: ny_node_fail once,
   where the fault is. Helpers have already failed when they return false or NULL: pass it on with ny_failed(n). What
   makes values takes NULL for a value that failed and gives NULL, as ny_out does: chains of calls are checked once, at
   the end. */
#ifndef NY_ONNX_H
#define NY_ONNX_H
#include "frontend.h"

typedef struct ny_import ny_import;
typedef struct ny_onnx_node ny_onnx_node;
typedef struct ny_onnx_graph ny_onnx_graph;
typedef struct ny_scope ny_scope;

/* An ONNX sequence is a list known at import; an optional is a thing that may be empty. Neither exists in the IR. */
typedef struct ny_thing {
  ny_value *v; /* a tensor, or NULL */
  struct ny_list *list;
  bool is_none; /* an empty optional */
} ny_thing;
typedef struct ny_list {
  ny_thing *item;
  int n;
  ny_fmt fmt; /* of the elements, NY_none when not known */
} ny_list;

typedef struct ny_node {
  ny_import *im;
  ny_ctx *cx;
  ny_unit *unit;
  ny_builder b; /* b.loc is this node */
  ny_name name, op_type, domain;
  int version; /* of the domain, as the model (or function) imports it */
  int arg;     /* of the row: builders that serve several operators tell them apart by it */
  int n_in, n_out;
  ny_value **in;      /* NULL: absent, or not a tensor */
  ny_thing *in_thing; /* the same with lists and optionals */
  ny_thing *out;      /* fill with ny_out or ny_out_thing */
  const ny_onnx_node *src;
  ny_scope *scope;
  ny_arena *tmp; /* lives as long as the import */
} ny_node;
typedef nyb_status ny_onnx_fn(ny_node *n);

/* ---- Results and failures */
nyb_status ny_out(ny_node *n, int i, ny_value *v); /* v NULL: something failed before; returns that failure */
nyb_status ny_out_thing(ny_node *n, int i, ny_thing t);
bool ny_wanted(const ny_node *n, int i); /* output i exists and is named */
/* One diagnostic with node name, operator, index and byte offset. */
nyb_status ny_node_fail(ny_node *n, nyb_status code, const char *fmt, ...) NY_PRINTF(3, 4);
/* The same where a bool or a value is returned: false, NULL. */
bool ny_refuse(ny_node *n, nyb_status code, const char *fmt, ...) NY_PRINTF(3, 4);
void *ny_refuse_value(ny_node *n, nyb_status code, const char *fmt, ...) NY_PRINTF(3, 4);
nyb_status ny_failed(ny_node *n); /* the failure already recorded (an internal error when there is none) */
/* Input i, which must be a tensor; NULL after failing. For inputs beyond those that the row requires. ny_opt gives NULL
   for an absent input without failing. */
ny_value *ny_need(ny_node *n, int i);
static inline ny_value *ny_opt(const ny_node *n, int i) { return i < n->n_in ? n->in[i] : NULL; }

/* ---- Attributes: the value, or `def` when absent. A wrong type fails; the importer looks after every builder. */
bool ny_attr_has(ny_node *n, const char *name);
int64_t ny_attr_int(ny_node *n, const char *name, int64_t def);
double ny_attr_float(ny_node *n, const char *name, double def);
const char *ny_attr_string(ny_node *n, const char *name, const char *def);
const int64_t *ny_attr_ints(ny_node *n, const char *name, int *count); /* NULL and 0 when absent or empty */
const double *ny_attr_floats(ny_node *n, const char *name, int *count);
const char *const *ny_attr_strings(ny_node *n, const char *name, int *count);
/* Which of the words in `choices`, "zeros|border", the attribute is; -1 after failing. */
int ny_attr_choice(ny_node *n, const char *name, const char *def, const char *choices);
/* A list of exactly `count` integers, NULL when absent. False after failing. */
bool ny_attr_list(ny_node *n, const char *name, int64_t count, const int64_t **out);
ny_value *ny_attr_tensor(ny_node *n, const char *name); /* as a constant of the IR; NULL when absent */
const ny_onnx_graph *ny_attr_graph(ny_node *n, const char *name);
/* A TensorProto.DataType; false after failing. */
bool ny_attr_fmt(ny_node *n, const char *name, ny_fmt def, ny_fmt *out);

/* ---- Types */
static inline int ny_rank(const ny_value *v) { return v->type->rank; }
static inline ny_fmt ny_fmt_of(const ny_value *v) { return (ny_fmt)v->type->fmt; }
static inline ny_dim ny_size(const ny_value *v, int axis) { return v->type->dim[axis]; }
bool ny_static_size(const ny_value *v, int axis, int64_t *out); /* false: symbolic */
/* The constant size, or failure with a sentence that names the symbols to bind. */
bool ny_need_static(ny_node *n, const ny_value *v, int axis, const char *what, int64_t *out);
bool ny_axis(ny_node *n, int64_t axis, int rank, int *out);     /* -rank..rank-1 -> 0..rank-1 */
bool ny_attr_axis(ny_node *n, int64_t def, int rank, int *out); /* attribute "axis" */
/* A set of axes, filled one by one: fails when one is outside the rank or there already. */
bool ny_axis_once(ny_node *n, int64_t axis, int rank, uint32_t *seen, int *out);
ny_dim ny_product(ny_node *n, const ny_dim *d, int count);
static inline ny_fmt ny_wide(ny_fmt f) { return ny_is_float(f) && ny_fmts[f].bits < 32 ? NY_f32 : f; }

/* ---- Integers from inputs */
/* Input i as a constant, when it can be computed from constants alone; any format; false without failing otherwise.
   The bytes live as long as the import. */
bool ny_onnx_const(ny_node *n, int i, ny_tensor *out);
bool ny_value_const(ny_node *n, ny_value *v, ny_tensor *out);
/* Input i (rank 0 or 1, integers) as dimension expressions; fails with "depends on data ..." when it is not known. */
bool ny_node_dims(ny_node *n, int i, ny_dim *out, int cap, int *count);
bool ny_try_dims(ny_node *n, int i, ny_dim *out, int cap, int *count);    /* the same without failing */
bool ny_node_ints(ny_node *n, int i, int64_t *out, int cap, int *count);  /* constants only */
bool ny_node_int(ny_node *n, int i, int64_t def, int64_t *out);           /* one constant; def when absent */
bool ny_node_dim(ny_node *n, int i, ny_dim *out);                         /* one size */
bool ny_node_scalar(ny_node *n, int i, double def, double *out);          /* constant number; def when absent */
bool ny_node_floats(ny_node *n, int i, double *out, int cap, int *count); /* constants only; none when absent */
double ny_number(const ny_tensor *t, int64_t i);                          /* element i of a constant */
/* The first that is present: input i (pass -1 for never) as constants, or the attribute. *count is -1 when neither is
 * there. */
bool ny_ints_or_attr(ny_node *n, int i, const char *attr, int64_t *out, int cap, int *count);
/* The same as axes of a tensor of `rank`: normalised, without repeats, in ascending order. */
bool ny_axes_or_attr(ny_node *n, int i, const char *attr, int rank, int *axes, int *count);

/* ---- Values */
/* A new constant from `count` elements in packed storage, copied. */
ny_value *ny_const_data(ny_node *n, ny_fmt f, int rank, const int64_t *shape, const void *data);
ny_value *ny_const_floats(ny_node *n, ny_fmt f, int rank, const int64_t *shape,
                          const double *data); /* rounded into f */
ny_value *ny_const_ints(ny_node *n, ny_fmt f, int rank, const int64_t *shape, const int64_t *data);
ny_value *ny_num(ny_node *n, const ny_value *like, double x); /* rank-0 constant in like's format */
/* Elementwise with numpy broadcasting; sizes that are not equal but must be are unified (see ny_unify). */
ny_value *ny_ew(ny_node *n, ny_kind k, ny_value *const *in, int n_in);
ny_value *ny_ew1(ny_node *n, ny_kind k, ny_value *x);
ny_value *ny_ew2(ny_node *n, ny_kind k, ny_value *x, ny_value *y);
ny_value *ny_ew2s(ny_node *n, ny_kind k, ny_value *x, double y); /* with a scalar constant of x's format */
ny_value *ny_where(ny_node *n, ny_value *cond, ny_value *x, ny_value *y);
/* Makes inputs fit one shape (but for dim `except`, -1: none): unifies sizes, or cuts those that cannot be unified to
 * the smaller. Size 1 fits all. */
bool ny_fit(ny_node *n, ny_value **v, int count, int except);
/* Two sizes that ONNX says are equal. True when they are. When a symbol can be replaced by the other side, remembers
   that and fails so that the import starts again with the symbol replaced; otherwise fails naming `what` and both
   sizes. */
bool ny_unify(ny_node *n, ny_dim a, ny_dim b, const char *what);
/* The same, but false without failing when nothing can be replaced. */
bool ny_try_unify(ny_node *n, ny_dim a, ny_dim b);
/* The run fails unless a equals b; `what` they are is for the message. Nothing is emitted when that can be proven; true
   but when the opposite can, which fails here. */
bool ny_require(ny_node *n, ny_dim a, ny_dim b, const char *what);
bool ny_require_least(ny_node *n, ny_dim d, ny_dim least, const char *what); /* d >= least */
ny_value *ny_cast_to(ny_node *n, ny_value *x, ny_fmt f);                     /* x itself when it has the format */
ny_value *ny_reshape_to(ny_node *n, ny_value *x, int rank, const ny_dim *shape);
ny_value *ny_unsqueeze_at(ny_node *n, ny_value *x, int axis); /* a new dim of size 1 */
ny_value *ny_squeeze_at(ny_node *n, ny_value *x, int axis);
ny_value *ny_expand_like(ny_node *n, ny_value *x, const ny_value *like); /* broadcast to like's shape */
ny_value *ny_flatten_at(ny_node *n, ny_value *x, int axis);              /* 2-D: dims before axis, dims from axis */
ny_value *ny_slice_axis(ny_node *n, ny_value *x, int axis, ny_dim start, ny_dim count);
ny_value *ny_move_axis(ny_node *n, ny_value *x, int from, int to);
ny_value *ny_along(ny_node *n, ny_value *v, int axis, int rank); /* a vector, to meet dim `axis` of `rank` dims */
ny_value *ny_full(ny_node *n, ny_fmt f, int rank, const ny_dim *shape, double x); /* broadcast scalar */
ny_value *ny_dim_value(ny_node *n, ny_dim d);                                     /* i64[] */
ny_value *ny_matrix_transpose(ny_node *n, ny_value *x);                           /* the last two dims */

/* Constant integers of input i within bounds; what is not constant passes. False after failing. onnx_check.c. */
bool ny_numbers_fit(ny_node *n, int i, int64_t lo, ny_dim hi, const char *what); /* lo <= number < hi */
bool ny_indices_fit(ny_node *n, int i, ny_dim size); /* -size <= index < size; onnx_ops_shape.c */
/* The last dim of input i holds `width` coordinates into x from dim `axis` on. */
bool ny_coordinates_fit(ny_node *n, int i, const ny_value *x, int axis, int64_t width);

/* An op of one result with its attributes still to be set; NULL when something failed. Finish with ny_infer. */
ny_op *ny_op_of(ny_node *n, ny_kind k, ny_value *const *in, int n_in);
/* Its attributes are set: infers its type, which also checks the inputs, and gives its first result. */
ny_value *ny_infer(ny_node *n, ny_op *op);
/* A node-made value computed from constants becomes a constant. */
ny_value *ny_fold(ny_node *n, ny_value *v);

/* ---- Composites that several operators are made of (onnx_compose.c) */
ny_value *ny_gather_elements(ny_node *n, ny_value *x, ny_value *at, int axis);
ny_value *ny_scatter_elements(ny_node *n, ny_value *x, ny_value *at, ny_value *with, int axis, const char *op);
ny_value *ny_arg_reduce(ny_node *n, ny_value *x, const char *op, int axis, bool last); /* the axis is dropped */
ny_value *ny_mean(ny_node *n, ny_value *x, const int *axes, int count, bool keep);
ny_value *ny_softmax(ny_node *n, ny_value *x, int axis);
ny_value *ny_log_softmax(ny_node *n, ny_value *x, int axis);
ny_value *ny_split_heads(ny_node *n, ny_value *x, int64_t heads); /* [b, s, heads*d] -> [b, s, heads, d] */
/* A loop over i = 0..trip-1: what is built until ny_loop_end is its body, which sees `i` and the carried values. */
typedef struct ny_loop {
  ny_op *op;
  ny_builder outer;
  ny_value *i;
} ny_loop;
bool ny_loop_begin(ny_node *n, ny_dim trip, ny_value *const *init, int n_carried, int n_stacked, ny_loop *l,
                   ny_value **carried);
/* next: the new carried values, then what is stacked. The results are l->op->out. */
bool ny_loop_end(ny_node *n, ny_loop *l, ny_value *const *next);

/* ---- Subgraphs (onnx_control.c, and operators with bodies such as SequenceMap) */
int ny_graph_n_inputs(const ny_onnx_graph *g);
int ny_graph_n_outputs(const ny_onnx_graph *g);
/* Imports the nodes of g at n->b with these things for its inputs; outer names are seen. */
nyb_status ny_inline_graph(ny_node *n, const ny_onnx_graph *g, const ny_thing *in, int n_in, ny_thing *out, int n_out);

/* ---- Rows: ONNX(domain, operator, first opset, last opset, required inputs, builder, arg). The ai.onnx domain is "".
   A model's opset picks the row, so an operator whose meaning changed has one row per meaning. */
enum { NY_OPSET_MAX = 28 };
typedef struct ny_onnx_row {
  const char *domain, *op;
  int first, last;
  int n_required; /* the first inputs, which must be tensors */
  ny_onnx_fn *build;
  int arg;
} ny_onnx_row;
enum { /* arg of the reductions */
       NY_RED_SUM,
       NY_RED_MEAN,
       NY_RED_MAX,
       NY_RED_MIN,
       NY_RED_PROD,
       NY_RED_L1,
       NY_RED_L2,
       NY_RED_SUM_SQUARE,
       NY_RED_LOG_SUM
};
#define ONNX(domain, op, first, last, required, builder, arg) ny_onnx_fn ny_op_##builder;
#include "onnx_ops.def"
#undef ONNX
#endif
