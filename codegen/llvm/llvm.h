/* Inside the LLVM plug-in: what its files share. Nothing outside codegen/llvm sees LLVM.
   ny_lx builds IR for one module and knows nothing of graphs (build.c, math*.c, scalar.c, format.c); ny_low lowers one
   kernel with it. Values have the type of a scalar or of a vector of lanes; most helpers take either. */
#ifndef NY_LLVM_H
#define NY_LLVM_H
#include "codegen.h"
#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>

typedef LLVMValueRef val;
typedef LLVMTypeRef typ;
typedef LLVMBasicBlockRef blk;

typedef struct ny_lx {
  LLVMContextRef c;
  LLVMModuleRef m;
  LLVMBuilderRef b;
  LLVMTargetMachineRef tm;
  const ny_target *target;
  bool x86, avx512;
  typ i1, i8, i16, i32, i64, i128, f16, f32, f64, ptr, vd;
  val fn;    /* the function being built */
  blk entry; /* its first block: allocas only, closed when the function is done */
} ny_lx;

/* ---- build.c */
nyb_status ny_lx_open(ny_lx *x, const ny_target *t, int opt, const char *name, ny_diag *d);
void ny_lx_close(ny_lx *x);
val ny_lx_function(ny_lx *x, const char *name, const typ *args, int n, bool internal); /* positioned at its body */
void ny_lx_attr(ny_lx *x, val f, int index, const char *name, uint64_t v);
bool ny_lx_has(const ny_lx *x, const char *feature); /* the target's list names it */
static inline typ ny_vec(typ e, int n) { return n == 1 ? e : LLVMVectorType(e, (unsigned)n); }
int ny_lanes(val v);
typ ny_elem(typ t);
typ ny_like(val v, typ e);   /* e with the lanes of v */
val ny_ci(typ t, int64_t v); /* constants; a vector type gives a splat */
val ny_cf(typ t, double v);
val ny_splat(ny_lx *x, val s, int n);
val ny_call(ny_lx *x, const char *intrinsic, const typ *over, int n_over, const val *arg, int n);
val ny_un(ny_lx *x, const char *intrinsic, val a); /* overloaded on the type of a */
val ny_bin(ny_lx *x, const char *intrinsic, val a, val b);
val ny_fma(ny_lx *x, val a, val b, val c); /* a product and a sum where the target has no fma */
val ny_any(ny_lx *x, val mask);              /* i1: some lane is true */
val ny_part(ny_lx *x, val v, int at, int n); /* lanes at.. of a vector */
val ny_join(ny_lx *x, val a, val b);
val ny_lane(ny_lx *x, val v, int i);
val ny_with_lane(ny_lx *x, val v, int i, val s);
val ny_iota(typ t); /* 0, 1, 2 .. in a vector (or scalar) integer type */
val ny_gep(ny_lx *x, typ e, val p, val i);
val ny_gepc(ny_lx *x, typ e, val p, int64_t i);
val ny_ld(ny_lx *x, typ t, val p, unsigned align);
void ny_st(ny_lx *x, val v, val p, unsigned align);
val ny_slot(ny_lx *x, typ t, int64_t n, unsigned align); /* alloca in the entry block */
blk ny_block_new(ny_lx *x, const char *name);
#define NY_B(op, x, left, right) LLVMBuild##op((x)->b, (left), (right), "")
static inline val ny_sel(ny_lx *x, val c, val a, val b) { return LLVMBuildSelect(x->b, c, a, b, ""); }
static inline val ny_fc(ny_lx *x, LLVMRealPredicate p, val a, val b) { return LLVMBuildFCmp(x->b, p, a, b, ""); }
static inline val ny_ic(ny_lx *x, LLVMIntPredicate p, val a, val b) { return LLVMBuildICmp(x->b, p, a, b, ""); }
static inline val ny_bits(ny_lx *x, val v, typ t) { return LLVMBuildBitCast(x->b, v, t, ""); }
typedef struct ny_lloop {
  blk body, exit, latch;
  val iv, hi, step;
} ny_lloop;
/* do { } while: iv = lo, lo+step, .. < hi. `check` guards the first trip. */
void ny_loop_begin(ny_lx *x, ny_lloop *l, val lo, val hi, val step, bool check);
void ny_loop_end(ny_lx *x, ny_lloop *l);
/* if (c) { then part } else { else part }: begin, code, else, code, end -> phi of the two values (NULL: none). */
typedef struct ny_lif {
  blk then_end, other, end;
  val then_value;
} ny_lif;
void ny_if_begin(ny_lx *x, ny_lif *f, val c);
void ny_if_else(ny_lx *x, ny_lif *f, val then_value);
val ny_if_end(ny_lx *x, ny_lif *f, val else_value);

/* ---- math32.c, math64.c: vector functions of floats, no calls. Type of the argument selects the version (math.c). */
typedef val ny_math1(ny_lx *x, val a);
ny_math1 ny_m_exp, ny_m_log, ny_m_log1p, ny_m_sin, ny_m_cos, ny_m_asin, ny_m_acos, ny_m_atan, ny_m_sinh_small,
    ny_m_tanh, ny_m_erf, ny_m_erfc;
val ny_m_pow(ny_lx *x, val a, val b);
val ny_m_rem(ny_lx *x, val a, val b);
val ny_fma_exact(ny_lx *x, val a, val b, val c); /* fma on every target; of f64 only where c nearly cancels a*b */
val ny_copysign(ny_lx *x, val magnitude, val sign);
static inline val ny_fabs(ny_lx *x, val a) { return ny_un(x, "llvm.fabs", a); }
val ny_poly(ny_lx *x, val a, const double *c, int n); /* Horner, highest first */

/* ---- format.c: a value in registers has its storage bits (f16, bf16: i16; f8*, f4: i8; narrow integers: i8 holding
 * the value; bool: i1). */
typ ny_reg_type(const ny_lx *x, ny_fmt f);
typ ny_mem_type(const ny_lx *x, ny_fmt f); /* i8 for bool and sub-byte formats */
typ ny_num_type(const ny_lx *x,
                ny_fmt f); /* what arithmetic is done in: float or double for floats, else the register type */
val ny_decode(ny_lx *x, ny_fmt f, val reg);
val ny_encode(ny_lx *x, ny_fmt f, val num, bool saturate); /* num: float or double */
val ny_wrap(ny_lx *x, ny_fmt f, val reg);                  /* after integer arithmetic of a sub-byte format */
val ny_convert(ny_lx *x, ny_fmt from, ny_fmt to, val reg, bool saturate);
static inline bool ny_signed(ny_fmt f) { return ny_fmts[f].kind == 'I'; }

/* ---- scalar.c: elementwise rows and folds */
val ny_row(ny_lx *x, const ny_op *op, const val *in); /* operands and result in register form */
int ny_row_cost(ny_kind k);                           /* instructions a vector, roughly */
typedef enum ny_lfold { NY_LF_set, NY_LF_sum, NY_LF_prod, NY_LF_max, NY_LF_min } ny_lfold;
ny_lfold ny_lfold_of(const char *name);
val ny_lfold_first(ny_lx *x, ny_lfold o, ny_fmt f, int lanes);   /* in number form */
val ny_lfold_step(ny_lx *x, ny_lfold o, ny_fmt f, val a, val b); /* in number form */
val ny_lfold_lanes(ny_lx *x, ny_lfold o, ny_fmt f, val v);       /* to a scalar */

/* ---- One kernel */
typedef struct ny_lat { /* a piece of a tile: lanes adjacent columns of one row. drow, dcol: run-time parts, or NULL */
  int row, col, lanes;
  val drow, dcol;
} ny_lat;
typedef struct ny_lmemo {
  ny_lat at;
  val v;
  uint32_t id;
  int32_t next;
} ny_lmemo;
typedef enum ny_lstate {
  NY_L_NONE,  /* not a tile: a buffer */
  NY_L_LAZY,  /* computed piece by piece when asked for */
  NY_L_FIXED, /* every piece is in the memo, or in `array` */
  NY_L_SLOT,  /* mutable, a stack slot a piece, promoted to registers */
  NY_L_ARRAY  /* mutable, in `array` */
} ny_lstate;
typedef struct ny_linfo { /* of a value, by id */
  ny_value *v;
  int rows, cols, pieces; /* pieces of one row */
  ny_fmt fmt;
  ny_lstate state;
  uint64_t reads; /* buffers and mutable tiles its evaluation reads; for those themselves: their own bit */
  uint32_t last;  /* order of the last statement that needs it */
  int cost;       /* instructions for one piece, with everything lazy below it */
  bool mutated, by_mma;
  bool no_table; /* it is no table of codes (low_words.c) */
  ny_value *alias; /* a tile set once: the value it is set to, as far as reading goes */
  val base;        /* buffers: pointer; */
  val *slot;       /* [rows][pieces] */
  val array;       /* rows x cols in storage type, or NULL */
  int32_t memo;    /* newest entry, or -1 */
  uint32_t stamp;
} ny_linfo;
typedef struct ny_lvar { /* a symbol, grid or loop variable in scope */
  ny_name name;
  val v;
  int64_t lo, hi; /* inclusive; INT64_MIN, INT64_MAX: unknown */
  int depth;      /* loops around it */
  int64_t add;    /* constant part: the variable is v + add */
} ny_lvar;
typedef struct ny_lspan {
  uint32_t first, last;
} ny_lspan;
typedef struct ny_low { /* see low_kernel.c */
  ny_lx *x;
  const ny_graph *k;
  const ny_ctx *cx;
  ny_arena arena;
  ny_diag *diag;
  nyb_status failed;
  int W;           /* lanes of a full piece */
  ny_linfo *info;  /* by value id */
  ny_lspan *order; /* by op id: position in program order, and of the last op inside */
  ny_name *sym;    /* kernel symbols, in their order */
  size_t n_sym;
  ny_value **local;
  uint32_t n_local, cap_local;
  uint64_t aliased; /* buffers that may be the same memory (the kernel's `inplace`) */
  ny_lvar *var;
  uint32_t n_var, cap_var;
  int depth;
  ny_lmemo *memo;
  uint32_t n_memo, cap_memo;
  ny_value **pending; /* lazy values of the open blocks, in order */
  uint32_t n_pending, cap_pending;
  struct ny_ldim {
    ny_dim d;
    val v;
  } * dim; /* expressions already computed here */
  uint32_t n_dim, cap_dim;
  struct ny_lundo {
    uint32_t id;
    ny_lstate state;
    val array;
  } * undo; /* states to go back to */
  uint32_t n_undo, cap_undo;
  struct ny_lknown {
    ny_dim d;
    int64_t at_least;
  } * known; /* limits assumed in the version being emitted */
  uint32_t n_known, cap_known;
  uint32_t *tmp; /* mutable tiles that have a copy in an array during the statement being emitted */
  uint32_t n_tmp, cap_tmp;
  uint32_t stamp, next_stamp, next_bit;
  val zeros; /* what a load outside its limit reads */
  uint64_t stack_bytes;
} ny_low;
nyb_status ny_lower_kernel(ny_lx *x, const ny_graph *k, const char *symbol, ny_diag *d);

/* low_dim.c */
val ny_low_dim(ny_low *l, ny_dim d);
val ny_low_gep(ny_low *l, typ e, val p,
               ny_dim d); /* p + d elements, outer terms first so that they leave inner loops */
/* p + (d + more) / per elements, where per divides every term; *left: what it leaves of the constant one. NULL: not so. */
val ny_low_gep_part(ny_low *l, typ e, val p, ny_dim d, int64_t more, int64_t per, int64_t *left);
void ny_low_range(const ny_low *l, ny_dim d, int64_t *lo, int64_t *hi);
bool ny_low_at_least(const ny_low *l, ny_dim d, int64_t n); /* provably, or assumed */
void ny_low_var(ny_low *l, ny_name name, val v, int64_t lo, int64_t hi, int depth);
int ny_low_depth(const ny_low *l, ny_dim d);

/* low_memory.c */
val ny_low_load(ny_low *l, const ny_op *load, ny_lat at); /* one piece */
void ny_low_store(ny_low *l, const ny_op *store, ny_lat at, val v);
int ny_low_access_cost(const ny_low *l, const ny_op *op, const ny_value *tile);
val ny_low_index(ny_low *l, const ny_op *index, ny_lat at);
void ny_low_prefetch(ny_low *l, const ny_op *op);
/* n rows of one column as a vector, where rows are adjacent in memory and columns are not; at.lanes is 1. */
bool ny_low_columns_adjacent(const ny_low *l, const ny_op *op, const ny_value *tile);
val ny_low_load_column(ny_low *l, const ny_op *op, ny_lat at, int n);
void ny_low_store_column(ny_low *l, const ny_op *op, ny_lat at, int n, val v);
/* low_transpose.c: a block of such a tile, turned in registers. Load: the piece at `at`, and its neighbours into the
 * memo; NULL: not in a block. */
val ny_low_load_block(ny_low *l, const ny_op *op, ny_lat at);
int ny_low_store_block(ny_low *l, const ny_op *op, ny_value *from,
                       ny_lat at); /* rows it stored from at.row on, 0: none */
val ny_array_ptr(ny_low *l, const ny_linfo *f, ny_lat at);
val ny_array_load(ny_low *l, const ny_linfo *f, ny_lat at);
void ny_array_store(ny_low *l, const ny_linfo *f, ny_lat at, val v);
val ny_low_array(ny_low *l, const ny_linfo *f); /* stack room for a whole tile */

/* low_words.c: codes of a few bits, packed by words. NULL or false: it is nothing of the kind. */
val ny_low_load_words(ny_low *l, const ny_op *load, ny_lat at);
val ny_low_lookup(ny_low *l, ny_value *v, ny_lat at); /* what an expression makes of a code */
bool ny_low_dot(ny_low *l, const ny_op *mma);         /* by products of bytes */

/* low_eval.c */
typedef struct ny_lmark {
  uint32_t memo, dim, undo, pending, var;
} ny_lmark;
ny_lmark ny_low_enter(ny_low *l);
void ny_low_leave(ny_low *l, ny_lmark m);
val ny_eval(ny_low *l, ny_value *v, ny_lat at);             /* in register form; broadcasts */
val ny_eval_num(ny_low *l, ny_value *v, ny_lat at);         /* in number form */
void ny_low_keep(ny_low *l, ny_value *v, ny_lat at, val x); /* remembers a piece */
val ny_low_recall(const ny_low *l, const ny_value *v, ny_lat at);
void ny_low_state(ny_low *l, ny_value *v, ny_lstate s, val array);
int ny_piece_lanes(const ny_low *l, int cols, int col); /* width of the piece starting at col */
typedef void ny_piece_fn(ny_low *l, void *user, ny_lat at);
typedef struct ny_roll {
  bool rows, cols;
} ny_roll;
ny_roll ny_roll_of(const ny_low *l, int rows, int cols, int cost);
/* Makes what roots need readable at run-time positions of the kinds r says. `order`: the statement this is for. */
void ny_low_prepare(ny_low *l, ny_value *const *roots, int n, ny_roll r, uint32_t order);
void ny_each_row(ny_low *l, int rows, bool rolled, ny_piece_fn *fn, void *user);
void ny_each_col(ny_low *l, int cols, bool rolled, ny_lat at, ny_piece_fn *fn, void *user);
void ny_each_piece(ny_low *l, int rows, int cols, ny_roll r, ny_piece_fn *fn, void *user);
void ny_low_force(ny_low *l, ny_value *v, uint32_t order);
void ny_low_done(ny_low *l); /* the statement is emitted: copies of mutable tiles are stale */
void ny_low_hazard(ny_low *l, uint64_t effects, uint32_t order);

/* low_ops.c, low_fold.c, low_mma.c */
void ny_low_block(ny_low *l, const ny_block *b);
void ny_low_ops(ny_low *l, const ny_op *from, const ny_op *to); /* up to but not `to` */
void ny_low_reduce(ny_low *l, const ny_op *op);
void ny_low_mma(ny_low *l, const ny_op *op);
uint64_t ny_low_effects(const ny_low *l, const ny_op *op);
val ny_tile_get(ny_low *l, const ny_linfo *f, ny_lat at);
val ny_low_fill(ny_low *l, const ny_op *tile, ny_lat at); /* its initial value */
void ny_tile_put(ny_low *l, const ny_linfo *f, ny_lat at, val v);

/* ---- link.c: relocatable objects -> one image. Deterministic in the order given. */
typedef struct ny_object {
  const uint8_t *data;
  size_t bytes;
} ny_object;
/* entry[i]: offset of symbol[i] ("k<i>"). Undefined symbols fail with the name of the kernel that wants them. */
nyb_status ny_link(const ny_object *obj, size_t n_obj, const char *const *symbol, const char *const *label, size_t n,
                   ny_image *out, ny_diag *d);
#endif
