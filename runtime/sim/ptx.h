/* Inside the simulator: what an instruction is once decoded, what a warp is while it runs, and how one adds an
   instruction.

   A handler executes one instruction for the lanes of a mask at once. A register is 32 lanes lying next to each other,
   so that a handler is a loop over [32] arrays which the compiler makes vector code of; immediates and special
   registers are such arrays too, filled beforehand, and no handler asks what kind of operand it has.

   TO ADD AN INSTRUCTION: write `static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask)` in a file of its
   topic, and a row in that file's table `const ny_ptx_row ny_rows_<topic>[]` (after it `const size_t ny_n_rows_<topic> =
   NY_COUNT(ny_rows_<topic>);`); a new topic is one line in ptx_ops.def. Nothing else: parser, decoder, dispatcher and
   counters read the rows.
   A row: {pattern, operands, class, fix, {handlers}}.
   - pattern: the mnemonic and its modifiers in their written order: "mul.hi.[u32 s32 u64 s64]".
       word      must be there          (a b c)   one of these must be: i->opt[k] = 1, 2, 3 for the k-th such group
       (a b)?    may be: opt 0 if not   [a b c]   one of these must be: i->sub = 0, 1, 2, the handler is handlers[sub]
     Modifiers may hold "::" (shared::cta). Of rows with the same mnemonic the first that fits is taken. The alternatives
     of [] that name a type also give the type of the operands `t`, `T`, `w`, `W` below.
   - operands, separated by blanks; capitals are written by the instruction, small letters read:
       t T   of the type of []         w W   twice as wide         h H b B l L   16, 32, 64 bits of any kind
       f F   f32                       p P   a predicate           x X   a register of any width
       q     a predicate or 32 bits    i     an immediate: its value is in arg.imm
       m     an address: [reg+imm], [reg], [symbol+imm], [imm]     n     the name of a label (i->target)
     followed by `4`: a vector {a,b,c,d} of that many (1: braces may be missing); `+`: a register or a vector of any
     length; `?`: may be missing (then an arg of kind NY_ARG_NONE); `|` before it: joined to the one before: "P |P?" is
     p|q. All operands stand one after another in i->arg[], vectors as their elements.
   - class: what it counts as.
   - fix: NULL, or called once an instruction after its operands are known; may refuse it by ny_ptx_bad, replace i->exec,
     precompute i->data. Of an access of memory, i->bytes * i->vec is what one lane accesses.
   A register `_` as a destination is a scratch register. 8 and 16-bit values live zero-extended in 32-bit lanes. */
#ifndef NY_PTX_H
#define NY_PTX_H
#include "sim.h"

enum { NY_LANES = 32 };
#define NY_ALL_LANES 0xffffffffu

typedef struct ny_sim_warp ny_sim_warp;
typedef struct ny_sim_block ny_sim_block;
typedef struct ny_sim_grid ny_sim_grid;
typedef struct ny_ptx_ins ny_ptx_ins;
typedef struct ny_ptx_decoder ny_ptx_decoder;
typedef void ny_ptx_exec(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask);

/* ---- types */
/* clang-format off */
#define NY_PTX_TYPES(T)                                                                                                \
  T(b8, 8, 'b') T(u8, 8, 'u') T(s8, 8, 's') T(b16, 16, 'b') T(u16, 16, 'u') T(s16, 16, 's') T(b32, 32, 'b')            \
  T(u32, 32, 'u') T(s32, 32, 's') T(b64, 64, 'b') T(u64, 64, 'u') T(s64, 64, 's') T(b128, 128, 'b') T(u16x2, 32, 'b')  \
  T(s16x2, 32, 'b') T(pred, 1, 'p') T(f32, 32, 'f') T(f64, 64, 'f') T(f16, 16, 'h') T(bf16, 16, 'h')                   \
  T(f16x2, 32, 'h') T(bf16x2, 32, 'h') T(tf32, 32, 'b') T(f32x2, 64, 'h') T(e4m3, 8, 'h') T(e5m2, 8, 'h')              \
  T(e4m3x2, 16, 'h') T(e5m2x2, 16, 'h') T(e2m1x2, 8, 'h') T(ue8m0x2, 16, 'h') T(e2m3x2, 16, 'h') T(e3m2x2, 16, 'h')
/* clang-format on */
typedef enum ny_ptx_type {
  NY_T_none,
#define NY_PTX_TYPE_(name, bits, kind) NY_T_##name,
  NY_PTX_TYPES(NY_PTX_TYPE_)
#undef NY_PTX_TYPE_
      NY_N_T
} ny_ptx_type;
typedef struct ny_ptx_type_info {
  const char *name;
  uint16_t bits;
  char kind; /* b u s integers, f: literals are floats, h: other formats, literals are bits, p */
} ny_ptx_type_info;
extern const ny_ptx_type_info ny_ptx_types[NY_N_T];
ny_ptx_type ny_ptx_type_by_name(const char *s, size_t n); /* NY_T_none: it is not a type */

/* ---- rows */
enum { NY_MAX_HANDLERS = 20, NY_MAX_OPT = 12 };
typedef struct ny_ptx_row {
  const char *pattern, *operands;
  ny_sim_class cls;
  bool (*fix)(ny_ptx_decoder *dc, ny_ptx_ins *i);
  ny_ptx_exec *exec[NY_MAX_HANDLERS];
} ny_ptx_row;
typedef struct ny_ptx_table {
  const char *topic;
  const ny_ptx_row *row;
  const size_t *n;
} ny_ptx_table;
extern const ny_ptx_table ny_ptx_tables[];
extern const size_t ny_ptx_n_tables;

/* ---- decoded instructions */
typedef enum ny_ptx_space { NY_GENERIC, NY_GLOBAL, NY_SHARED, NY_LOCAL, NY_CONST, NY_PARAM, NY_N_SPACE } ny_ptx_space;
typedef enum ny_ptx_kind { NY_ARG_NONE, NY_ARG_LANES, NY_ARG_PRED, NY_ARG_MEM, NY_ARG_IMM } ny_ptx_kind;
typedef enum ny_ptx_bank { NY_BANK_REG, NY_BANK_CONST, NY_BANK_SPECIAL, NY_N_BANK } ny_ptx_bank;
typedef struct ny_ptx_arg {
  int64_t imm;  /* MEM: added to the address; IMM: the value; LANES that were an immediate: its value */
  uint32_t off; /* LANES, MEM (its base register or symbol): byte offset of the lanes in the bank; PRED: its number */
  uint8_t kind, bank;
  uint8_t width; /* bytes of a lane: 4 or 8 */
  uint8_t flags; /* NY_ARG_NOT... */
} ny_ptx_arg;
enum {
  NY_ARG_NOT = 1,     /* !p */
  NY_ARG_UNIFORM = 2, /* all lanes hold the same value: an immediate or a symbol */
  NY_ARG_VECTOR = 4,  /* an element of a vector operand */
  NY_ARG_FRAME = 8,   /* MEM: a parameter of a device function, in the frame of each thread */
  NY_ARG_HALF = 16,   /* a 16-bit register */
  NY_ARG_WRITTEN = 32 /* a destination */
};
/* What runs after an instruction, where its guard holds. */
typedef enum ny_ptx_flow { NY_FLOW_NEXT, NY_FLOW_BRANCH, NY_FLOW_TABLE, NY_FLOW_END } ny_ptx_flow;
struct ny_ptx_ins {
  ny_ptx_exec *exec;
  const ny_ptx_arg *arg;
  uint64_t data;        /* for the fix hook of the row */
  uint32_t guard, flip; /* it runs on the lanes of w->pred[guard] ^ flip */
  uint32_t target;      /* n operand: index of an instruction; a call: of a function */
  uint32_t stmt;        /* index in the module's statements: lines and text */
  uint8_t n_arg, sub, cls, space;
  uint8_t flow;  /* ny_ptx_flow */
  uint8_t vec;   /* elements of the first operand written `+` */
  uint8_t bytes; /* loads and stores: of one element */
  uint8_t opt[NY_MAX_OPT];
};
typedef struct ny_ptx_stmt { /* where an instruction came from */
  const char *text;          /* as written, without the semicolon */
  const ny_sim_place *place; /* .loc; NULL: unknown */
  int ptx_line;
} ny_ptx_stmt;

/* ---- for fix hooks (decode.c) */
/* Refuses the instruction: NYB_E_UNSUPPORTED, with its text and line before the sentence. Always false. */
bool ny_ptx_bad(ny_ptx_decoder *dc, const char *fmt, ...) NY_PRINTF(2, 3);
const ny_ptx_row *ny_ptx_row_of(const ny_ptx_decoder *dc);
/* Word k of `(a b c)?` group `g` (0-based) that the instruction has; "" when it is absent. */
const char *ny_ptx_word(const ny_ptx_decoder *dc, int g);
void *ny_ptx_alloc(ny_ptx_decoder *dc, size_t bytes); /* lives as long as the module */

/* ---- running state */
enum { NY_PRED_TRUE, NY_PRED_SCRATCH, NY_N_PRED_FIXED };
typedef enum ny_wait { /* what a path waits for */
                       NY_WAIT_NONE,
                       NY_WAIT_BARRIER, /* at a barrier: for the other lanes of its warp */
                       NY_WAIT_ARRIVED, /* at a barrier, counted: for the other warps */
                       NY_WAIT_WARP     /* at a collective: for the other lanes of its mask */
} ny_wait;
typedef struct ny_sim_path { /* lanes of a warp that are at the same instruction */
  uint32_t pc, mask;
  uint8_t wait;    /* ny_wait */
  uint8_t barrier; /* its number */
  uint32_t want;   /* WAIT_WARP: the lanes it waits for */
} ny_sim_path;
struct ny_sim_warp {
  uint8_t *bank[NY_N_BANK]; /* registers, the kernel's constants, special registers */
  uint32_t *pred;           /* one mask a predicate register; [NY_PRED_TRUE] is all ones */
  uint32_t pc, active;      /* of the path that runs: pc is already that of the next instruction */
  uint32_t limit;           /* the path runs while pc < limit: there another path waits */
  int32_t fuel;             /* instructions until others have their turn */
  int32_t budget;           /* what is left of its turn after that */
  uint32_t live;            /* lanes that have not exited */
  uint32_t index;           /* in its block */
  uint32_t init;            /* lanes that exist: the last warp of a block may be partial */
  uint32_t carry;           /* the flag of add.cc */
  uint32_t polls;           /* strong accesses of global memory in this turn */
  ny_sim_block *block;
  uint8_t *local; /* 32 frames of local_bytes one after another */
  ny_sim_path path[NY_LANES + 2];
  uint8_t n_paths;       /* the others */
  uint8_t state;         /* warp.c */
  uint8_t wait, barrier; /* why the path that ran has stopped, at which barrier, for which lanes */
  uint32_t want;
  bool forced;  /* a collective runs with the lanes that are there */
  bool yielded; /* ny_yield ended its turn */
};
enum { NY_EXT_ASYNC, NY_EXT_MBARRIER, NY_EXT_2, NY_N_EXT };
/* State of a block that belongs to an instruction family; a handler sets it up on first use. Both calls may be NULL.
   poll: no warp can go on; make something happen, false: nothing to do. end: the block is done, or the launch is cut
   short: check and free. */
typedef struct ny_sim_ext {
  void *p;
  bool (*poll)(ny_sim_block *b, void *p);
  void (*end)(ny_sim_block *b, void *p);
} ny_sim_ext;
struct ny_sim_block {
  ny_sim_grid *grid;
  uint32_t index[3]; /* %ctaid */
  uint64_t linear;
  uint32_t n_threads, n_warps;
  uint8_t *shared;
  uint32_t shared_bytes, static_shared;
  ny_sim_warp *warp;
  ny_sim_ext ext[NY_N_EXT];
  struct ny_shadow *shadow;   /* NULL: no check needs it */
  struct ny_barrier *barrier; /* 16 */
  int last_warp;              /* that had a turn */
  bool used, running;         /* launch.c */
};
struct ny_sim_grid { /* one launch */
  const ny_sim_launch *launch;
  const ny_sim_module *module;
  const struct ny_ptx_kernel *kernel;
  ny_sim_counters count;
  uint64_t rng, fuel;            /* fuel: warp instructions left */
  bool stop;                     /* cut short: a trap, a limit, too many findings */
  struct ny_sim_range *range;    /* the mapped memory, by address */
  uint32_t n_ranges, last_range; /* last_range: where the last access was */
  struct ny_sim_findings *findings;
  struct ny_shadow_global *global_shadow;
  struct ny_hit {
    uint64_t warps, threads;
  } * hit;         /* how often each instruction ran */
  uint64_t clocks; /* instructions run so far: the time */
};

/* ---- lanes */
static inline void *ny_lanes(const ny_sim_warp *w, const ny_ptx_arg *a) { return w->bank[a->bank] + a->off; }
#define NY_LANES_OF(type, k) ((type *)ny_lanes(w, &i->arg[k]))
#define NY_U32(k) NY_LANES_OF(uint32_t, k)
#define NY_S32(k) NY_LANES_OF(int32_t, k)
#define NY_F32(k) NY_LANES_OF(float, k)
#define NY_U64(k) NY_LANES_OF(uint64_t, k)
#define NY_S64(k) NY_LANES_OF(int64_t, k)
#define NY_F64(k) NY_LANES_OF(double, k)
static inline uint32_t ny_pred(const ny_sim_warp *w, const ny_ptx_arg *a) {
  return w->pred[a->off] ^ (a->flags & NY_ARG_NOT ? NY_ALL_LANES : 0);
}
static inline void ny_set_pred(ny_sim_warp *w, const ny_ptx_arg *a, uint32_t mask, uint32_t value) {
  w->pred[a->off] = (w->pred[a->off] & ~mask) | (value & mask);
}
extern const uint32_t ny_lane_bit[NY_LANES]; /* 1 << lane, for loops without variable shifts */
/* A destination's lanes either are those of a source or do not touch them, so the loops have no hidden dependence. */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* some bodies call functions: then it is a plain loop */
#define NY_EACH_LANE(l) _Pragma("clang loop vectorize(assume_safety)") for (int l = 0; l < NY_LANES; l++)
#else
#define NY_EACH_LANE(l) _Pragma("GCC ivdep") for (int l = 0; l < NY_LANES; l++)
#endif
/* d[l] = e for the lanes of mask. `e` uses l and is computed for all lanes: it must not fault on any value. */
#define NY_MAP(T, d, e)                                                                                                \
  do {                                                                                                                 \
    T *d_ = (d), tmp_[NY_LANES];                                                                                       \
    T *o_ = mask == NY_ALL_LANES ? d_ : tmp_;                                                                          \
    NY_EACH_LANE(l) o_[l] = (T)(e);                                                                                    \
    if (mask != NY_ALL_LANES) NY_EACH_LANE(l) d_[l] = mask & ny_lane_bit[l] ? tmp_[l] : d_[l];                         \
  } while (0)
#define NY_EACH_ACTIVE(l) /* for what must not run for other lanes: in order of lanes */                               \
  for (uint32_t rest_ = mask, l; rest_ && (l = (uint32_t)__builtin_ctz(rest_), 1); rest_ &= rest_ - 1)

/* ---- memory (access.c): every access of every handler goes through here: bounds, alignment, shadow, counters. */
#define NY_SHARED_WINDOW                                                                                               \
  0x0100000000000000u /* generic addresses of shared and local memory; no host pointer is there */
#define NY_LOCAL_WINDOW 0x0200000000000000u
#define NY_PARAM_WINDOW 0x0300000000000000u
#define NY_WINDOW_MASK 0xff00000000000000u
enum { NY_READ = 1, NY_WRITE = 2, NY_ATOMIC = 4, NY_ASYNC = 8 /* the write lands later: ny_shadow_land */ };
/* The addresses of operand k, imm added. */
void ny_addresses(const ny_sim_warp *w, const ny_ptx_ins *i, int k, uint64_t addr[NY_LANES]);
/* Host pointers for the lanes of mask, each to `bytes` valid bytes; returns the lanes that may access (others have had
   a finding: loads give 0, stores vanish). `space` may be NY_GENERIC. align: 0 = bytes. */
uint32_t ny_access(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, ny_ptx_space space,
                   const uint64_t addr[NY_LANES], uint32_t bytes, uint32_t align, uint32_t how, uint8_t *out[NY_LANES]);
/* One lane, any length (bulk copies); NULL after a finding. */
uint8_t *ny_access_one(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, ny_ptx_space space, uint64_t addr,
                       uint64_t bytes, uint32_t align, uint32_t how);

/* ---- findings (report.c) */
void ny_find(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, ny_sim_finding_kind kind, uint64_t address,
             uint32_t bytes, const char *fmt, ...) NY_PRINTF(7, 8);

/* ---- scheduling (warp.c) */
void ny_yield(ny_sim_warp *w); /* after this instruction other warps have their turn: for waits that poll */
/* For .sync instructions over the lanes of `want`: true when all of them that live are in `mask`; else the path now
   waits before this instruction, and the handler must return at once with nothing done. */
bool ny_converged(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, uint32_t want);

/* ---- happens-before (shadow.c); all do nothing when no check is on. */
typedef struct ny_sim_clock ny_sim_clock; /* what an object (mbarrier, flag) knows of the past */
ny_sim_clock *ny_shadow_clock(ny_sim_block *b,
                              uint64_t key); /* of the object at this shared address; NULL: checks off */
void ny_shadow_release(ny_sim_warp *w, uint32_t mask, ny_sim_clock *c); /* what w did so far is known to c ... */
void ny_shadow_acquire(ny_sim_warp *w, uint32_t mask, ny_sim_clock *c); /* ... and now to w */
void ny_shadow_warp_sync(ny_sim_warp *w, uint32_t mask);                /* an edge between these lanes */
/* The asynchronous write that lane began at shared `offset` (ny_access with NY_ASYNC) has landed: seen by that thread
   (c NULL: cp.async after its wait), or by whoever acquires c (bulk copies). */
void ny_shadow_land(ny_sim_warp *w, uint32_t lane, const ny_ptx_ins *i, uint64_t offset, uint64_t bytes,
                    ny_sim_clock *c);
#endif
