/* What families build kernels with. A kernel computes its outputs tile by tile; a tile covers `rows` x `cols` points of
   an iteration space, and each dimension of a value is addressed by a coordinate that is affine in the tile's row and
   column, or the quotient and remainder of such an expression where several dimensions were flattened into one, or an
   i64 tile where it is neither. ny_emit_at turns any expression of the group's body (views, elementwise ops,
   generators, gathers over the group's inputs) into tile ops. */
#ifndef NY_FAMILY_H
#define NY_FAMILY_H
#include "passes.h"

/* x = base + r*rs + c*cs (+ index(r,c)); the coordinate is x / div % mod (div 1, mod 0: x itself). */
typedef struct ny_coord {
  ny_dim base, rs, cs;
  ny_value *index; /* i64 tile [rows or 1, cols or 1], or NULL */
  ny_dim div, mod;
} ny_coord;
static inline ny_coord ny_at(ny_dim base, ny_dim rs, ny_dim cs) { return (ny_coord){base, rs, cs, NULL, 1, 0}; }
static inline ny_coord ny_at_row(ny_dim base) { return ny_at(base, 1, 0); }
static inline ny_coord ny_at_col(ny_dim base) { return ny_at(base, 0, 1); }
static inline ny_coord ny_at_one(ny_dim base) { return ny_at(base, 0, 0); }

#define NY_ALL NY_DIM_INVALID /* a limit: every row or column of the tile exists */
typedef struct ny_known ny_known;
typedef struct ny_emit {
  ny_pass_cx *px;
  ny_ctx *cx;
  ny_op *group;
  ny_graph *k;
  ny_builder b;   /* where tile ops go */
  int rows, cols; /* shape of the tiles asked for; a result that does not vary along rows or columns is 1 there */
  ny_dim lim[2];  /* rows and columns of the tile that exist, or NY_ALL; loads and stores outside are not made */
  ny_arena *a;    /* scratch of this emit */
  ny_known **known;
  uint32_t n_known_slots;
  ny_name *used; /* symbols that a loop variable must not be named as */
  size_t n_used, cap_used;
  int depth, next_var;
  uint32_t n_index, n_strided; /* loads so far that go through an index tile, or whose columns are not adjacent: the
                                  price of a schedule */
  uint32_t n_turned;           /* of n_strided: their rows are adjacent */
  bool stage_turned;           /* what is read along the rows of a tile goes through a scratch buffer (see ny_emit_load) */
  bool failed;                 /* a value was asked for that no expression gives (see ny_emit_at) */
} ny_emit;

/* The kernel's arguments must exist (tile makes them). */
void ny_emit_begin(ny_emit *e, ny_pass_cx *px, ny_op *group, ny_graph *k, ny_arena *scratch);
/* Ends the kernel with its ret. NYB_E_UNSUPPORTED without a diagnostic when e->failed. */
nyb_status ny_emit_finish(ny_emit *e);

/* ---- structure */
ny_dim ny_emit_grid(ny_emit *e, ny_dim extent); /* a new parallel index; all before anything else */
typedef struct ny_loop {
  ny_op *op;
  ny_block *outer;
} ny_loop;
/* Opens a sequential loop: ops go into its body until ny_emit_end. A loop from 0 to a 0-or-1 expression is an `if`. */
ny_loop ny_emit_for(ny_emit *e, ny_dim lo, ny_dim hi, ny_dim step, int unroll, ny_dim *var);
void ny_emit_end(ny_emit *e, ny_loop l);

/* ---- values. C evaluates the arguments of a call in any order: where two of them would make ops, one is made before
   the call, so that every compiler builds the same kernels. */
const ny_type *ny_tile_type(ny_ctx *cx, ny_fmt f, ny_dim rows, ny_dim cols);
static inline int ny_tile_rows(const ny_value *t) { return (int)t->type->dim[0]; }
static inline int ny_tile_cols(const ny_value *t) { return (int)t->type->dim[1]; }
ny_value *ny_emit_tile(ny_emit *e, ny_fmt f, int rows, int cols, double fill); /* mutable */
void ny_emit_set(ny_emit *e, ny_value *tile, ny_value *v);
ny_value *ny_emit_num(ny_emit *e, ny_fmt f, double x);                       /* [1,1] */
ny_value *ny_emit_int(ny_emit *e, ny_dim d);                                 /* i64[1,1] */
ny_value *ny_emit_index(ny_emit *e, ny_coord at);                            /* i64 tile of the coordinate itself */
ny_value *ny_emit_below(ny_emit *e, ny_coord at, ny_dim n);                  /* bool tile: the coordinate is less than n */
ny_value *ny_emit_cast(ny_emit *e, ny_value *t, ny_fmt f);                   /* t itself when it has that format */
ny_value *ny_emit_reduce(ny_emit *e, const char *op, ny_value *t, int axis); /* keeps the axis as 1 */
ny_value *ny_emit_fill(ny_emit *e, ny_value *t, int rows, int cols);         /* t stretched to that shape */
ny_value *ny_emit_local(ny_emit *e, ny_fmt f, ny_dim n);                     /* scratch buffer of n elements */
/* From and to any buffer; at: one flat element coordinate. */
ny_value *ny_emit_load(ny_emit *e, ny_value *buffer, ny_coord at);
void ny_emit_store(ny_emit *e, ny_value *buffer, ny_coord at, ny_value *t, const char *op /* NULL: set */);

/* Tile ops for the elements of v, a value of the group's body, at `at` (one coordinate a dimension of v). Broadcast
   results are 1 wide. Sets e->failed and returns NULL when v needs an op that is no expression (matmul, reduce, ...)
   and was not made known at exactly these coordinates. */
ny_value *ny_emit_at(ny_emit *e, ny_value *v, const ny_coord *at);
/* From here on, in this block and those inside it, v at these coordinates is this tile (rows, cols and limits as they
 * are set now do not matter). */
void ny_emit_know(ny_emit *e, ny_value *v, const ny_coord *at, ny_value *tile);
/* Forgets every loaded or computed tile (not what was made known): after stores to buffers that are read again. */
void ny_emit_forget(ny_emit *e);
/* The i-th result of the group at coordinates of its own dims. */
void ny_emit_out(ny_emit *e, int i, const ny_coord *at, ny_value *t);
/* Computes and stores result i at these coordinates. */
void ny_emit_result(ny_emit *e, int i, const ny_coord *at);

/* Calls body for columns [0, count): whole tiles of `cols` in a loop, then what is left: a narrower tile when its width
   is known, else one with a limit. e->cols and e->lim[1] are set for it; lo is the first column. */
typedef void ny_columns_fn(ny_emit *e, void *user, ny_dim lo);
void ny_emit_columns(ny_emit *e, ny_dim count, int cols, ny_columns_fn *body, void *user);
/* An accumulator of a reduction over columns: lanes of its own, folded to one number at the end. */
typedef struct ny_fold_acc {
  const char *op;
  ny_fmt fmt;             /* it accumulates in */
  ny_value *lanes, *rest; /* [1, cols], and [1,1] of narrower tiles */
} ny_fold_acc;
const char *ny_fold_name(const char *op, ny_fmt of); /* what to fold with: a bool sum is "any" */
ny_fold_acc ny_fold_open(ny_emit *e, const char *op, ny_fmt f, ny_dim count, int cols);
ny_fold_acc ny_fold_once(const char *op, ny_fmt f); /* for rows of one tile: nothing accumulates */
void ny_fold_add(ny_emit *e, ny_fold_acc *acc, ny_value *v); /* columns outside e->lim do not count */
ny_value *ny_fold_close(ny_emit *e, ny_fold_acc *acc, ny_fmt to);
/* Mutable tile of the identity of op; op of two tiles, also on bool (converted to the format sums of it are kept in).
 */
ny_value *ny_emit_identity(ny_emit *e, const char *op, ny_fmt f, int rows, int cols);
ny_value *ny_emit_fold2(ny_emit *e, const char *op, ny_value *a, ny_value *b);

/* ---- coordinates */
/* Row-major flat coordinate of a buffer of type t. Merges quotients and remainders of one flattened index back where it
 * can. */
ny_coord ny_coord_flat(ny_emit *e, const ny_type *t, const ny_coord *at);
/* Coordinates of dims sizes[0..n) of a flat coordinate: x / stride % size each. */
void ny_coord_split(ny_emit *e, ny_coord flat, const ny_dim *sizes, int n, ny_coord *out);
/* Of an elementwise operand or the input of a broadcast, from those of the result. */
void ny_coord_broadcast(const ny_type *from, const ny_coord *at, const ny_type *to, ny_coord *out);
/* Of the input of a reshape (to) from those of the result (from): same flat position. */
void ny_coord_reshape(ny_emit *e, const ny_type *from, const ny_coord *at, const ny_type *to, ny_coord *out);
/* From coordinates of `from` to those of `to`, a value computed from it through elementwise ops of the same shape,
   casts, transposes and reshapes (what may follow a contraction). False when there is no such way. */
bool ny_coord_forward(ny_emit *e, ny_value *from, const ny_coord *at, ny_value *to, ny_coord *out);

/* ---- groups */
ny_op *ny_group_find(const ny_op *group, ny_kind k); /* the first op of that kind in the body, or NULL */
static inline ny_op *ny_group_yield(const ny_op *group) { return group->body[0]->last; }
/* The input's kernel argument, or the output's (i counts the group's results). */
static inline ny_value *ny_kernel_in(const ny_graph *k, int i) { return k->body.arg[i]; }
static inline ny_value *ny_kernel_out(const ny_emit *e, int i) {
  return e->k->body.arg[e->group->body[0]->n_arg + (uint32_t)i];
}
/* The dims a reduce op reduces; false when its axes are not constants in range. */
bool ny_reduced_dims(const ny_ctx *cx, const ny_op *reduce, bool gone[NY_MAX_RANK]);
static inline int ny_axis(int64_t axis, int rank) { return (int)(axis < 0 ? axis + rank : axis); }
/* Number format sums of f are kept in: f32 for narrower floats, i32 for narrower integers, else f. */
ny_fmt ny_sum_fmt(ny_fmt f);
/* Identity of a reduction in format f: 0, 1, lowest, highest. */
double ny_reduce_identity(const char *op, ny_fmt f);
bool ny_const_uniform(const ny_op *op);           /* one number, of at least a byte, everywhere */
ny_kind ny_reduce_kind(const char *op);           /* add, mul, max, min */
int ny_vec_lanes(const ny_pass_cx *px, ny_fmt f); /* elements of f in a vector register, at least 1 */
/* Panel width for the weights (input 1) of an unpacked matmul or conv on this machine, or 0: leave them as they are
   (not two-dimensional, symbolic, depthwise). A property of the op's types and the target only, so that equal weights
   used alike are packed alike. */
int64_t ny_pack_width(const ny_target *t, const ny_op *op);
/* Are the weights of this unpacked matmul codes that codes.c multiplies as integers? Then they are packed by words. */
bool ny_codes_fit(const ny_target *t, const ny_op *matmul);
/* Scales of a dequantize's blocks in 8 bits, and the one number that all of them are times, or NULL; NULL: others. */
ny_value *ny_block_scales(const ny_op *q, ny_value **factor);
/* A matmul of codes by codes that tensor cores multiply as they are: packed=-1, x a dequantize by blocks along k like y. */
bool ny_scaled_takes(const ny_target *t, const ny_op *matmul);
bool ny_depthwise_takes(const ny_op *conv);
/* Records grain (grid points worth a task) from the element operations of one grid point. */
void ny_emit_grain(ny_emit *e, int64_t ops_per_point);
/* Records `inplace` when some input of the same type is read only at the very element that output 0 stores. */
void ny_emit_inplace(ny_emit *e);
#endif
