/* Inside of the CUDA emitter: one kernel on its way from a tile program to C.
   Ops are collected into groups: ops over tiles of one shape whose elements do not depend on one another become one loop over the elements a
   thread holds, so that a chain from loads to stores runs through scalars. See group.c. */
#ifndef NY_CUDA_EMIT_H
#define NY_CUDA_EMIT_H
#include "cuda_code.h"

struct cu_mma_plan;
enum { NY_CU_MAX_TILE = 1 << 16 };

/* How one dimension of a tile is spread over threads: element i of a thread lies at base + (i/v)*period + (i%v)*inner. */
typedef struct cu_dim {
  int threads, v, inner, period;
  const char *base; /* C name of the thread's first position; NULL when threads is 1 */
} cu_dim;
typedef struct cu_layout {
  cu_dim d[2];
  int id;
  bool turned; /* chunks run along rows */
} cu_layout;

typedef struct cu_value {
  ny_value *v;
  ny_fmt fmt;
  const char *name;
  int64_t dim[2];
  const cu_layout *lay;
  int64_t held[2]; /* elements a thread holds */
  bool mutated;
  bool dead;    /* nobody needs it */
  bool narrow;  /* an index that is only compared, cast or indexed with: kept as `ix` */
  bool literal; /* a tile that never changes: its fill, written where it is used */
  bool reduced; /* by a reduce: known after its group only */
  bool array;   /* declared outside of the group that computes it */
  int group;    /* of the batch at hand that defines it, or -1: an earlier one */
  uint32_t batch;
  int buffer; /* index into cu.buffer, or -1 */
} cu_value;

typedef struct cu_buffer {
  ny_value *v; /* NULL: scratch of the emitter's own */
  ny_fmt fmt;
  const char *name;
  int alias;       /* buffers with equal numbers may overlap */
  bool shared;     /* dynamic shared memory */
  bool global, written;
  uint32_t offset; /* in a point's shared memory */
} cu_buffer;

typedef enum cu_what { CU_OP, CU_STAGE } cu_what;
typedef struct cu_member {
  const ny_op *op;
  cu_what what;
  cu_value *value;   /* CU_STAGE: what is put into shared memory */
  int area;          /* CU_STAGE: buffer */
  const char *place; /* CU_STAGE: format of the element's place, of row and column */
  const ny_op *user; /* CU_STAGE: the mma */
  ny_fmt as;         /* CU_STAGE: format it is kept in */
  int terms;         /* CU_STAGE: as a sum of so many numbers, one below the other by the tile's rows; 0: as one */
} cu_member;
typedef struct cu_group {
  int64_t dim[2];
  const cu_layout *lay;
  cu_member *member;
  int n, cap;
} cu_group;

/* An access to a buffer, for ordering inside a batch and for barriers. */
typedef struct cu_access {
  int buffer;
  bool store;
  const ny_op *op; /* load or store; NULL: an area of the emitter's own */
  const cu_layout *lay;
  ny_dim base, moves; /* its offset without and from the variables of loops */
  bool steady;        /* those move it by multiples of the layout's period of columns */
  int group;
} cu_access;
typedef struct cu_pending { /* what other threads may not have seen yet */
  cu_access *at;
  int n, cap;
} cu_pending;

typedef struct cu {
  const ny_graph *k;
  ny_ctx *cx;
  const ny_target *target;
  ny_diag *diag;
  nyb_status failed;
  ny_arena arena;
  ny_text body, functions;
  int indent;
  uint32_t uses;
  ny_cuda_facts *facts;
  int threads;
  int part_of; /* threads of the block when this is a function that a kernel of calls calls; 0: a kernel */
  cu_layout *layout; /* of the kernel */
  const cu_layout *others[64]; /* of operands that are only staged */
  int n_others;
  bool wide; /* 64-bit indices */
  cu_value *value; /* by id */
  cu_buffer *buffer;
  int n_buffer, cap_buffer;
  ny_name *sym;
  size_t n_sym;
  struct cu_variable {
    ny_name sym;
    const char *name;
  } *var;
  int n_var, cap_var;
  const char **names;
  uint32_t n_names, cap_names;
  struct cu_head { /* names of an access's address and limits, by op id */
    const char *at, *left[2];
  } *head;
  struct cu_mma_plan **plan; /* by op id */
  uint32_t n_grid; /* of the limits: variables of the grid */
  ny_dim_limit *limit; /* of loop variables in scope */
  uint32_t n_limit, cap_limit;
  int64_t *step;       /* of them: a multiple of this; 0: unknown */
  uint32_t cap_step;
  cu_group *group;
  int n_group, cap_group;
  cu_access *access; /* of the batch */
  int n_access, cap_access;
  uint32_t batch;
  cu_pending pending;
  uint32_t shared; /* bytes of a point so far */
  int scratch;     /* buffer that reductions go through, or -1 */
  uint32_t scratch_bytes;
  struct cu_function { /* rows that became functions */
    ny_kind kind;
    ny_fmt fmt;
    const ny_op *op;
    const char *name;
  } *function;
  int n_function, cap_function;
} cu;

/* source.c */
nyb_status cu_fail(cu *c, const ny_op *op, nyb_status s, const char *fmt, ...) NY_PRINTF(4, 5);
void cu_line(cu *c, const char *fmt, ...) NY_PRINTF(2, 3); /* indented, with a newline */
#define CU_F(c, ...) ny_strf(&(c)->arena, __VA_ARGS__)
const char *cu_name(cu *c, const char *prefix, const char *name, int64_t id); /* a C identifier nobody has yet */
int cu_new_buffer(cu *c, ny_value *v, ny_fmt f, const char *name);
void cu_block(cu *c, const ny_block *b);
void cu_header(cu *c, ny_text *t);    /* the comment above it */
void cu_signature(cu *c, ny_text *t); /* its #defines, up to the brace */
void cu_close(ny_text *t);
const char *cu_sync_text(cu *c); /* how the threads of a grid point wait for one another */
/* `kernel` as a function `symbol` for one grid point, in a namespace of_<symbol>, for a block of the caller's threads. facts->shared: of a point. */
nyb_status cu_part(const cu *caller, const ny_graph *kernel, const char *symbol, ny_text *out, uint32_t *uses, ny_cuda_facts *facts);

/* calls.c: a kernel of calls, prepared */
void cu_calls(cu *c, ny_text *out);

/* names.c: dims as C, and what is known of them */
const char *cu_dim_text(cu *c, ny_dim d);
const char *cu_paren(cu *c, const char *s);
const char *cu_plus(cu *c, const char *a, const char *b);   /* without what is 0 */
const char *cu_times(cu *c, const char *a, ny_dim by);
const char *cu_var(cu *c, ny_name sym);
void cu_range(const cu *c, ny_dim d, int64_t *lo, int64_t *hi);
bool cu_at_least(const cu *c, ny_dim d, int64_t n);
bool cu_divides(cu *c, ny_dim d, int64_t k); /* loop variables are multiples of their steps */
void cu_push(cu *c, ny_name var, int64_t lo, int64_t hi, int64_t step); /* a variable in scope until n_limit is put back */
bool cu_const(const cu *c, ny_dim d, int64_t *out);

/* layout.c */
void cu_choose_layout(cu *c);
int64_t cu_held(const cu_dim *d, int64_t size);
const char *cu_one_of_groups(cu *c, const cu_layout *l); /* C: a test of the threads that are one of those that hold the same; NULL: all are */
bool cu_exact(const cu_dim *d, int64_t size); /* no element of a thread is outside the tile */
const char *cu_place(cu *c, const cu_dim *d, const char *i); /* of element i, without the base */
const char *cu_base(const cu_dim *d); /* "0" or the base's name */
const cu_layout *cu_stage_layout(cu *c, int64_t rows, int64_t cols, int vec, bool turned);
void cu_layout_lines(cu *c, const cu_layout *l, const char *tid);

/* group.c */
void cu_add(cu *c, const ny_op *op);
void cu_add_stage(cu *c, cu_value *v, int area, const char *place, const ny_op *user, ny_fmt as, int terms);
void cu_flush(cu *c);
typedef struct cu_at { /* where in its loop an op is emitted */
  const cu_group *g;
  int index;
  const char *i, *j; /* C: element along rows and columns of the chunk's first */
  int w;             /* columns (turned: rows) of the chunk */
} cu_at;
const char *cu_ref(cu *c, const cu_at *at, const cu_value *v); /* element k of the chunk */
const char *cu_index(cu *c, const cu_at *at, const cu_value *v); /* of that element in v's array */

/* access.c */
void cu_load_head(cu *c, const cu_at *at, const ny_op *op);  /* before the loop: base pointer and what is left of limits */
void cu_load_body(cu *c, const cu_at *at, const ny_op *op);
void cu_store_body(cu *c, const cu_at *at, const ny_op *op);
int cu_access_width(cu *c, const cu_layout *lay, const ny_op *op); /* elements worth moving at once; 1: no vector */
/* A chunk of a load copied to shared memory at `to`; outside: a test of the threads that do, or NULL. */
void cu_copy_line(cu *c, const cu_at *at, const ny_op *op, const char *to, const char *outside);
bool cu_same_access(const cu *c, const cu_access *a, const cu_access *b);
bool cu_same_thread(cu *c, const cu_access *a, const cu_access *b);
bool cu_apart(cu *c, const cu_access *a, const cu_access *b); /* surely of different elements */
const ny_value *cu_access_tile(const ny_op *op);

/* sync.c */
void cu_touch(cu *c, const cu_access *a); /* emits the barrier an access needs first, and remembers it */
void cu_touch_all(cu *c, cu_access *a, int n);
void cu_barrier(cu *c);
void cu_loop(cu *c, const ny_op *op);
void cu_bind(cu *c, const ny_op *op); /* its variable is in scope until n_limit is put back */
int cu_area(cu *c, const char *name, ny_fmt f, uint32_t bytes); /* shared memory of the emitter's own */

/* rows.c: elements */
const char *cu_reg(ny_fmt f);  /* C type of a value in registers: its storage bits */
const char *cu_num(ny_fmt f);  /* C type of arithmetic on it */
const char *cu_mem(ny_fmt f);  /* C type in memory */
const char *cu_decode(cu *c, ny_fmt f, const char *x);
const char *cu_encode(cu *c, ny_fmt f, const char *x, bool saturate);
const char *cu_row(cu *c, const ny_op *op, const char *const *in);
const char *cu_cast(cu *c, ny_fmt from, ny_fmt to, const char *x, bool saturate);
const char *cu_bitcast(cu *c, ny_fmt from, ny_fmt to, const char *x);
const char *cu_fill(cu *c, ny_fmt f, double x);
const char *cu_fold(cu *c, const char *op, ny_fmt f, const char *a, const char *b); /* of numbers, not storage */
const char *cu_fold_first(cu *c, const char *op, ny_fmt f);
int cu_row_cost(const ny_op *op);

/* reduce.c, mma.c */
void cu_reduce_head(cu *c, const cu_at *at, const ny_op *op);
void cu_reduce_body(cu *c, const cu_at *at, const ny_op *op);
void cu_reduce_tail(cu *c, const cu_at *at, const ny_op *op);
void cu_mma(cu *c, const ny_op *op);

/* prelude.c: parts of prelude.cuh, in its order */
enum { CU_P_HALF = 1, CU_P_NARROW = 2, CU_P_VECTOR = 4, CU_P_BITS = 8, CU_P_INT = 16, CU_P_MATH = 32, CU_P_SHUFFLE = 64, CU_P_ASYNC = 128, CU_P_MMA = 256, CU_P_PART = 512, CU_P_CODES = 1024, CU_P_SCALED = 2048 };
#endif
