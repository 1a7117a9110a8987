/* The IR on one page: dimensions, types, values, ops, blocks, graphs.
   One container serves both levels. At graph level ops work on tensors; at tile level a graph is one kernel, its arguments are buffers and its ops
   work on small two-dimensional tiles. What an op is stands in ops.def, once. Semantics of every op: docs/ir.md and the evaluator (eval*.c). */
#ifndef NY_IR_H
#define NY_IR_H
#include "base.h"

typedef struct ny_ctx ny_ctx;
typedef struct ny_unit ny_unit;
typedef struct ny_graph ny_graph;
typedef struct ny_block ny_block;
typedef struct ny_op ny_op;
typedef struct ny_use ny_use;
typedef struct ny_value ny_value;
typedef struct ny_blob ny_blob;

/* ---- dim.c: sizes and indices. A ny_dim >= 0 is that constant; a negative one names an expression ~d in the context's table
   (a negative constant is such an expression too). Expressions are interned in one canonical form (a sorted sum of products), so d == e
   means equal, and print back as they parse: ?S, ?B*?S*4+1, (?S+3)/4, ?S%16, min(?S,8), ?i<8 (0 or 1). / rounds down, % takes the divisor's sign. */
typedef int64_t ny_dim;
#define NY_DIM_INVALID INT64_MIN /* overflow, or division by a constant zero */
typedef enum ny_dim_kind { NY_DIM_CONST, NY_DIM_SYM, NY_DIM_ADD, NY_DIM_MUL, NY_DIM_DIV, NY_DIM_MOD, NY_DIM_MIN, NY_DIM_MAX, NY_DIM_LT } ny_dim_kind;
typedef struct ny_dim_node {
  ny_dim_kind kind;
  ny_dim a, b;     /* operands */
  int64_t value;   /* NY_DIM_CONST */
  ny_name name;    /* NY_DIM_SYM */
  uint16_t size, depth; /* of the tree below, bounded: walks may recurse */
} ny_dim_node;
ny_dim ny_dim_const(ny_ctx *cx, int64_t v);
ny_dim ny_dim_sym(ny_ctx *cx, ny_name name);
ny_dim ny_dim_add(ny_ctx *cx, ny_dim a, ny_dim b);
ny_dim ny_dim_sub(ny_ctx *cx, ny_dim a, ny_dim b);
ny_dim ny_dim_mul(ny_ctx *cx, ny_dim a, ny_dim b);
ny_dim ny_dim_div(ny_ctx *cx, ny_dim a, ny_dim b); /* floor */
ny_dim ny_dim_ceildiv(ny_ctx *cx, ny_dim a, ny_dim b);
ny_dim ny_dim_mod(ny_ctx *cx, ny_dim a, ny_dim b);
ny_dim ny_dim_min(ny_ctx *cx, ny_dim a, ny_dim b);
ny_dim ny_dim_max(ny_ctx *cx, ny_dim a, ny_dim b);
ny_dim ny_dim_lt(ny_ctx *cx, ny_dim a, ny_dim b);
bool ny_dim_is_const(const ny_ctx *cx, ny_dim d, int64_t *out); /* out may be NULL */
const ny_dim_node *ny_dim_get(const ny_ctx *cx, ny_dim d);      /* of an expression (d < 0) */
ny_dim ny_dim_subst(ny_ctx *cx, ny_dim d, ny_name sym, ny_dim with);
bool ny_dim_uses(const ny_ctx *cx, ny_dim d, ny_name sym);
/* Appends the symbols of d not already in list. */
void ny_dim_symbols(const ny_ctx *cx, ny_dim d, ny_name **list, size_t *n, size_t *cap, ny_arena *a);
typedef struct ny_binding {
  ny_name sym;
  int64_t value;
} ny_binding;
/* False when a symbol is unbound, on overflow or on division by zero. */
bool ny_dim_eval(const ny_ctx *cx, ny_dim d, const ny_binding *env, size_t n_env, int64_t *out);
/* lo <= d <= hi for all symbol values (symbols are >= 0); INT64_MIN and INT64_MAX where no bound is known. */
void ny_dim_bounds(const ny_ctx *cx, ny_dim d, int64_t *lo, int64_t *hi);
typedef struct ny_dim_limit {
  ny_name sym;
  int64_t lo, hi; /* INT64_MIN, INT64_MAX: open */
} ny_dim_limit;
/* The same by intervals alone, where loop variables have bounds; of two entries for a symbol the later counts. */
void ny_dim_range(const ny_ctx *cx, ny_dim d, const ny_dim_limit *limit, size_t n, int64_t *lo, int64_t *hi);
bool ny_dim_divides(const ny_ctx *cx, ny_dim d, int64_t k); /* provably a multiple of k for all symbol values */
void ny_dim_print(const ny_ctx *cx, ny_dim d, ny_text *out);
/* Parses at *s, advances it. NY_DIM_INVALID on a syntax error. Depth is bounded. */
ny_dim ny_dim_parse(ny_ctx *cx, const char **s);

/* ---- type.c */
enum { NY_MAX_RANK = 8 };
typedef enum ny_space { NY_VALUE, NY_GLOBAL, NY_SHARED } ny_space; /* VALUE: tensors and register tiles; printed as @global, @shared */
typedef struct ny_type { /* interned per context: compare with == */
  uint8_t fmt, rank, space;
  ny_dim dim[NY_MAX_RANK];
} ny_type;
const ny_type *ny_type_get(ny_ctx *cx, ny_type t);
const ny_type *ny_tensor_type(ny_ctx *cx, ny_fmt fmt, int rank, const ny_dim *dims);
const ny_type *ny_type_with_fmt(ny_ctx *cx, const ny_type *t, ny_fmt fmt);
ny_dim ny_type_count(ny_ctx *cx, const ny_type *t);           /* elements */
ny_dim ny_type_bytes(ny_ctx *cx, const ny_type *t);           /* storage */
bool ny_type_static_count(const ny_ctx *cx, const ny_type *t, int64_t *out); /* false when symbolic or overflowing */
void ny_type_print(const ny_ctx *cx, const ny_type *t, ny_text *out);
/* numpy broadcasting of two shapes (size 1 stretches, missing leading dims count as 1). False when they cannot be shown compatible. */
bool ny_broadcast_shape(ny_ctx *cx, const ny_type *a, const ny_type *b, int *rank, ny_dim out[NY_MAX_RANK]);

/* ---- The op table */
typedef enum ny_kind {
#define OP(name, level, min_in, max_in, n_out, n_body, flags, infer, text) NY_##name,
#define EW(name, n_in, types, expr) NY_##name,
#define ATTR(op, name, kind, def)
#include "ops.def"
#undef OP
#undef EW
#undef ATTR
  NY_N_KINDS
} ny_kind;
enum { /* attribute slots: op->attr[NY_AT(softmax, axis)] */
#define OP(name, level, min_in, max_in, n_out, n_body, flags, infer, text) NY_AT0_##name, NY_AT0_##name##_back_ = NY_AT0_##name - 1,
#define EW(name, n_in, types, expr) NY_AT0_##name, NY_AT0_##name##_back_ = NY_AT0_##name - 1,
#define ATTR(op, name, kind, def) NY_ATG_##op##_##name,
#include "ops.def"
#undef OP
#undef EW
#undef ATTR
  NY_N_ATTRS
};
#define NY_AT(op, name) (NY_ATG_##op##_##name - NY_AT0_##op)
typedef enum ny_level { NY_GRAPH = 1, NY_TILE = 2, NY_BOTH = 3 } ny_level;
typedef enum ny_flags {
  NY_PURE = 1,  /* no effect but its results: may be merged, moved, dropped */
  NY_VIEW = 2,  /* results are input elements rearranged */
  NY_TERM = 4,  /* ends a block */
  NY_COMMUTES = 8,
  NY_MAP = 16   /* elementwise: an EW row */
} ny_flags;
typedef enum ny_attr_kind { NY_I64, NY_F64, NY_NAME, NY_NAMES, NY_DIM, NY_DIMS, NY_BLOB } ny_attr_kind;
typedef enum ny_ew_types { /* formats of an elementwise op */
  NY_EW_ARITH,  /* numbers of one format -> the same */
  NY_EW_FLOAT,  /* floats of one format -> the same */
  NY_EW_INT,    /* integers of one format -> the same */
  NY_EW_BITS,   /* integers or bool of one format -> the same */
  NY_EW_BOOL,   /* bool -> bool */
  NY_EW_CMP,    /* any one format -> bool */
  NY_EW_TEST,   /* float -> bool */
  NY_EW_SELECT  /* bool, T, T -> T */
} ny_ew_types;
typedef struct ny_attr_info {
  const char *name;
  ny_attr_kind kind;
  double def;           /* default of I64, F64, DIM */
  const char *def_name; /* default of NAME, or NULL */
} ny_attr_info;
typedef const ny_type *ny_infer_fn(ny_graph *g, ny_op *op, int out); /* the type output `out` must have, or NULL after ny_fail */
typedef struct ny_kind_info {
  const char *name, *text; /* text: an EW's expression, else one line of documentation */
  uint8_t level, min_in, max_in /* 255: any number */, n_out /* 255: any */, n_body;
  uint8_t flags, ew;
  uint16_t n_attr;
  const ny_attr_info *attr;
  ny_infer_fn *infer; /* NULL: types are as declared */
} ny_kind_info;
extern const ny_kind_info ny_kinds[NY_N_KINDS];
ny_kind ny_kind_by_name(const char *s, size_t n); /* NY_N_KINDS: none */

typedef union ny_attr {
  int64_t i;
  double f;
  ny_name s;
  ny_dim d;
  struct {
    ny_dim *v;
    uint32_t n;
  } dims;
  struct {
    ny_name *v;
    uint32_t n;
  } names;
  const ny_blob *blob;
} ny_attr;

/* ---- Values, ops, blocks. Use lists are intrusive and kept true by the mutators below. */
struct ny_use {
  ny_value *val;
  ny_op *user;
  ny_use *next, **link;
};
struct ny_value {
  const ny_type *type;
  ny_op *def;        /* NULL: a block argument */
  ny_block *arg_of;  /* the block, for an argument */
  ny_use *uses;
  ny_name name; /* may be NULL */
  uint32_t id;
  uint32_t index; /* which output or argument */
};
struct ny_block {
  ny_op *first, *last, *parent; /* parent: NULL for a graph's body */
  ny_value **arg;
  uint32_t n_arg, cap_arg;
};
struct ny_op {
  uint16_t kind, n_in, n_out, n_body;
  uint32_t id;
  ny_op *prev, *next;
  ny_block *parent, **body;
  ny_attr *attr;
  ny_value **out;
  const ny_loc *loc;
  ny_use *in; /* n_in slots */
};
/* Constant bytes: in the mapped model file, or in an arena. */
struct ny_blob {
  const uint8_t *data;
  uint64_t bytes;
  ny_name file;    /* NULL: not from a file */
  uint64_t offset; /* in that file */
  ny_blob *next;
  uint32_t id;
};
struct ny_ctx { /* outlives graphs */
  ny_arena arena;
  ny_names names;
  ny_dim_node *dims;
  uint32_t n_dims, cap_dims, *dim_slots, cap_dim_slots;
  const ny_type **types;
  uint32_t n_types, cap_types, *type_slots, cap_type_slots;
  ny_diag diag;
  void (*assumed)(void *user, ny_dim a, ny_dim b); /* hears of sizes that inference takes to be equal without proof; may be NULL */
  void *assumed_user;
};
struct ny_unit { /* what a .nyt file holds: the main graph first, then its kernels */
  ny_ctx *cx;
  ny_arena arena; /* blobs and whatever lives as long as the unit */
  ny_graph *first, *last;
  ny_blob *blobs;
  uint32_t n_blobs;
  ny_map *maps; /* model files kept open */
  ny_name *map_names;
  uint32_t n_maps, cap_maps;
  ny_name folder; /* where blobs' files lie, as it was named; NULL: names are as opened */
  const char *done; /* name of the last pass that ran, or NULL; printed in the header comment so that --from resumes */
};
struct ny_graph {
  ny_ctx *cx;
  ny_unit *unit;
  ny_arena arena;
  ny_name name;
  bool kernel;     /* tile level */
  ny_block body;
  ny_dim arena_bytes; /* after place: activation memory; 0 before */
  ny_name family;     /* of a kernel, or NULL */
  struct ny_knob {
    ny_name name;
    int64_t value;
  } *knob; /* of a kernel: its schedule and other named integers, printed in its header as [mr=8,nr=48] */
  uint32_t n_knob;
  uint32_t next_op, next_value;
  ny_graph *next;
};

ny_ctx *ny_ctx_new(void);
void ny_ctx_free(ny_ctx *cx);
ny_unit *ny_unit_new(ny_ctx *cx);
void ny_unit_free(ny_unit *u);
ny_graph *ny_graph_new(ny_unit *u, ny_name name, bool kernel); /* appended to the unit */
void ny_graph_drop(ny_graph *g);                               /* unlinked and freed */
ny_graph *ny_unit_find(ny_unit *u, ny_name name);
const ny_blob *ny_blob_new(ny_unit *u, const void *data, uint64_t bytes, ny_name file, uint64_t offset); /* data is not copied */
nyb_status ny_unit_map(ny_unit *u, const char *path, const ny_map **out); /* mapped once and kept; *out is valid until the next call */

/* ---- graph.c: the only ways a graph changes */
ny_value *ny_block_arg(ny_graph *g, ny_block *b, const ny_type *t, ny_name name);
/* Appended to b; attributes at their defaults; `bodies` empty blocks as the row says; outputs of the given types. */
ny_op *ny_op_new(ny_graph *g, ny_block *b, ny_kind k, ny_value *const *in, int n_in, const ny_type *const *out, int n_out);
void ny_set_in(ny_op *op, int i, ny_value *v);
void ny_replace(ny_value *old, ny_value *with); /* in every use */
void ny_erase(ny_op *op);                       /* with its bodies; its outputs have no uses */
void ny_move(ny_op *op, ny_block *b, ny_op *before); /* before NULL: to the end */
static inline ny_value *ny_in(const ny_op *op, int i) { return op->in[i].val; }
static inline bool ny_one_use(const ny_value *v) { return v->uses && !v->uses->next; }
static inline ny_attr *ny_attr_at(const ny_op *op, int slot) { return &op->attr[slot]; }
ny_attr ny_dims_attr(ny_graph *g, const ny_dim *v, size_t n); /* a copy in the graph's arena */
/* Walks a block and the bodies inside it; `next` is read before the callback, which may erase op. Stops on failure. */
nyb_status ny_walk(ny_block *b, nyb_status (*visit)(void *user, ny_op *op), void *user);

/* ---- build.c: one-line construction with inferred types. Each appends to b->block and returns the result, or NULL after ny_fail.
   An error already recorded makes every later call return NULL, so callers may check once at the end. */
typedef struct ny_builder {
  ny_graph *g;
  ny_block *block;
  ny_op *before;     /* NULL: append */
  const ny_loc *loc; /* given to every op built */
} ny_builder;
ny_op *ny_build(ny_builder *b, ny_kind k, ny_value *const *in, int n_in, const ny_type *const *out, int n_out); /* raw: types as given */
ny_value *ny_b_ew(ny_builder *b, ny_kind k, ny_value *const *in, int n_in); /* attributes default; set them on ->def */
ny_value *ny_b_ew1(ny_builder *b, ny_kind k, ny_value *x);
ny_value *ny_b_ew2(ny_builder *b, ny_kind k, ny_value *x, ny_value *y);
ny_value *ny_b_where(ny_builder *b, ny_value *c, ny_value *x, ny_value *y);
ny_value *ny_b_const(ny_builder *b, const ny_type *t, const ny_blob *blob);
ny_value *ny_b_scalar(ny_builder *b, ny_fmt f, double x);      /* rank 0 */
ny_value *ny_b_dims(ny_builder *b, const ny_dim *v, int n, bool scalar); /* i64[n] or i64[] */
ny_value *ny_b_cast(ny_builder *b, ny_value *x, ny_fmt f);
ny_value *ny_b_reshape(ny_builder *b, ny_value *x, int rank, const ny_dim *shape);
ny_value *ny_b_transpose(ny_builder *b, ny_value *x, const int *perm);
ny_value *ny_b_broadcast(ny_builder *b, ny_value *x, int rank, const ny_dim *shape);
ny_value *ny_b_slice(ny_builder *b, ny_value *x, const ny_dim *start, const ny_dim *step, const ny_dim *count); /* full rank lists; step NULL: 1 */
ny_value *ny_b_pad(ny_builder *b, ny_value *x, ny_value *fill /* NULL: 0 */, const ny_dim *lo, const ny_dim *hi, const ny_dim *interior /* NULL */, const char *mode);
ny_value *ny_b_concat(ny_builder *b, ny_value *const *in, int n, int axis);
ny_value *ny_b_gather(ny_builder *b, ny_value *x, ny_value *index, int axis);
ny_value *ny_b_reduce(ny_builder *b, const char *op, ny_value *x, const int *axes, int n, bool keep);
ny_value *ny_b_matmul(ny_builder *b, ny_value *x, ny_value *y);
ny_value *ny_b_dequantize(ny_builder *b, ny_fmt f, ny_value *x, ny_value *scale, ny_value *zero /* NULL: 0 */, int axis, int64_t block /* 0: none */);
ny_value *ny_b_iota(ny_builder *b, ny_fmt f, int rank, const ny_dim *shape, int axis);

/* ---- infer.c, verify.c: declared types must equal inferred ones; structure, arity, level, dominance, uses. */
nyb_status ny_infer_op(ny_graph *g, ny_op *op); /* sets the types of op's outputs from its inputs and attributes */
nyb_status ny_verify(ny_graph *g);
nyb_status ny_verify_unit(ny_unit *u);

/* ---- bind.c: replaces symbols by numbers everywhere, then verifies */
nyb_status ny_bind_unit(ny_unit *u, const ny_binding *env, size_t n);

/* ---- print.c, parse.c: exact inverses (docs/ir.md) */
void ny_print_graph(const ny_graph *g, ny_text *out);
void ny_print_unit(const ny_unit *u, ny_text *out);
/* Files that blobs name are mapped beside `path`, else as they are named; "." is the file at `path` itself, and a .nyb may name nothing else.
   path NULL: only blobs in the text itself. */
nyb_status ny_parse_unit(ny_ctx *cx, const char *text, size_t n, const char *path, ny_unit **out);
/* Reads what u printed: blobs in files are u's own, so nothing is opened, and u must outlive the result. */
nyb_status ny_parse_like(const ny_unit *u, const char *text, size_t n, ny_unit **out);
nyb_status ny_unit_copy(const ny_unit *u, ny_unit **out); /* through text, sharing all blobs with u, which must outlive the copy */

/* ---- kernel.c: facts of a tile-level graph that the back ends and the module writer must agree on */
/* Symbols the kernel reads at run time (those of its types, offsets, limits and extents that are not its own loop variables), in order of first appearance. */
void ny_kernel_symbols(const ny_graph *k, ny_arena *a, ny_name **out, size_t *n);
ny_dim ny_kernel_extent(const ny_graph *k);          /* grid points: the product of the extents */
bool ny_kernel_calls(const ny_graph *k);             /* it consists of calls of other kernels */
ny_graph *ny_callee(const ny_graph *k, const ny_op *call); /* NULL: the unit has no such kernel */
bool ny_kernel_stores(const ny_graph *k, uint32_t arg);    /* to this argument, itself or by a call */
/* Kernels that need code, as they stand in the unit: not those that are only called. */
void ny_unit_kernels(const ny_unit *u, ny_arena *a, ny_graph ***out, size_t *n);
uint64_t ny_kernel_local_bytes(const ny_graph *k);   /* all `local` buffers, each rounded up to 64 */

/* ---- scalar.c: an EW row's expression as a DAG of scalar ops (scalars.def), shared by the evaluator and the back ends. */
typedef enum ny_scalar {
#define SCALAR(name, arity, kinds, text) NY_S_##name,
#include "scalars.def"
#undef SCALAR
  NY_N_SCALARS
} ny_scalar;
typedef struct ny_snode {
  uint8_t op;         /* ny_scalar; NY_S_param: operand number `a`; NY_S_attr: attribute slot `a`; NY_S_num: the literal x */
  uint16_t a, b, c;   /* earlier nodes */
  double x;
} ny_snode;
typedef struct ny_expr { /* nodes in evaluation order, the last is the result */
  const ny_snode *node;
  uint16_t n;
} ny_expr;
const ny_expr *ny_expr_of(ny_kind k); /* parsed once, thread-safe; a malformed row aborts (a test covers every row) */

/* ---- symval.c: integer tensors known as dimension expressions: shapes computed by the model itself.
   True when every element of v (rank <= 1 and at most 64 elements, or any rank of one element) is known; out has one entry an element. */
bool ny_symbolic_values(ny_graph *g, ny_value *v, ny_dim *out, int cap, int *n);

/* ---- eval.c: the reference evaluator. Slow, obvious, and the definition of every op. */
typedef struct ny_tensor {
  const ny_type *type; /* static */
  void *data;          /* packed storage of ny_type_bytes */
} ny_tensor;
/* Evaluates g (graph level) with `in` for its inputs; symbols are bound from the input shapes. Results live in `a`. Fails rather than exceed `limit` bytes. */
nyb_status ny_eval_graph(ny_graph *g, const ny_tensor *in, size_t n_in, ny_arena *a, uint64_t limit, ny_tensor *out, size_t n_out);
/* One op on concrete inputs; output types must be static. */
nyb_status ny_eval_op(ny_graph *g, ny_op *op, const ny_tensor *in, ny_arena *a, ny_tensor *out);
/* A kernel (tile level) over concrete buffers, one per argument. */
nyb_status ny_eval_kernel(ny_graph *k, const ny_tensor *buffer, size_t n, const ny_binding *env, size_t n_env);
#endif
