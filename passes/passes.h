/* Passes: text to text, one function each, in the order of passes.def. A pass sees one graph, may rewrite it, and says whether it did. */
#ifndef NY_PASSES_H
#define NY_PASSES_H
#include "ir.h"

/* Four products of bytes, added to the i32 lane they lie in: how a machine does it. */
typedef enum ny_dot8 {
  NY_DOT8_none,
  NY_DOT8_pairs, /* u8 * i8, two products to an i16 that saturates (pmaddubsw): u8 up to 127 only */
  NY_DOT8_mixed, /* u8 * i8 in one instruction (vpdpbusd) */
  NY_DOT8_long,  /* i8 * i8 through i16 (smull) */
  NY_DOT8_signed /* i8 * i8 in one instruction (sdot) */
} ny_dot8;
/* The format of the weights in such products; activations are i8. */
static inline bool ny_dot8_unsigned(ny_dot8 d) { return d == NY_DOT8_pairs || d == NY_DOT8_mixed; }

/* What families need to know of a machine: a row of codegen/targets.def, or the host. */
typedef struct ny_target {
  const char *name, *triple, *cpu, *features; /* LLVM spellings; features: "+avx2,+fma" */
  int vec_bytes;   /* widest vector register worth using */
  int n_vregs;     /* of them */
  bool masked;     /* masked loads and stores cost the same as plain ones */
  bool no_fma;     /* x86 before AVX2: multiply-adds take two instructions and a register, f16 is converted by integer arithmetic */
  ny_dot8 dot8;
  uint64_t l1d, l2;
  int threads;     /* expected at run time; a hint for grains */
  int sm;          /* CUDA compute capability times ten: 80, 90, 120; 0: a CPU. cpu is then what NVRTC is asked for: "sm_90a" */
  uint64_t shared; /* CUDA: bytes of shared memory that a block may use */
  bool fp4;        /* CUDA: tensor cores multiply codes of 4 bits with scales of blocks, by mma.sync */
} ny_target;
static inline bool ny_on_gpu(const ny_target *t) { return t && t->sm; }

/* What products of f32 operands round their operands to; sums stay f32. tf32 exists on tensor cores only, elsewhere it is f32. */
typedef enum ny_precision { NY_PRECISION_f32, NY_PRECISION_tf32, NY_PRECISION_bf16, NY_PRECISION_f16 } ny_precision;
nyb_status ny_precision_find(const char *name, ny_precision *out, ny_diag *d); /* NULL: f32 */

typedef struct ny_pass_options {
  const ny_target *target;
  int opt;                         /* -O level, 0 to 3 */
  bool fast;                       /* rules that change float results may run */
  bool strict;                     /* an operand that is less than the model asks for is an error */
  ny_precision precision;
  const char *only, *until, *off;  /* comma-separated names, or NULL */
  const char *dump_dir;            /* NN-pass.nyt of every stage; an unchanged one says so */
  bool verify_each;                /* verify, print, parse, print, compare after every pass */
  void (*progress)(void *user, const char *stage, double done);
  void *user;
} ny_pass_options;

typedef struct ny_pass_cx {
  ny_unit *unit;
  const ny_pass_options *opt;
  const ny_target *target;
  ny_arena scratch; /* of one pass */
} ny_pass_cx;
typedef nyb_status ny_pass_fn(ny_pass_cx *px, ny_graph *g, bool *changed);

typedef struct ny_pass_info {
  const char *name, *text;
  ny_level before, after;
  int opt; /* runs from this -O level */
  ny_pass_fn *run;
} ny_pass_info;
extern const ny_pass_info ny_passes[];
extern const int ny_n_passes;
int ny_pass_index(const char *name); /* -1: none */

/* Runs the passes after unit->done that the options select; sets unit->done. */
nyb_status ny_run_passes(ny_unit *u, const ny_pass_options *options);

/* ---- families: a fused group becomes a kernel (tile program). families/families.def has a row each.
   `k` is empty but for its arguments: one @global buffer per body argument of the group, then one per output, row-major and dense.
   ny_lower_<family> fills k->body and its knobs. NYB_E_UNSUPPORTED without a diagnostic: the group is not for this family. */
typedef nyb_status ny_lower_fn(ny_pass_cx *px, ny_op *group, ny_graph *k);
typedef struct ny_family {
  const char *name, *text;
  ny_lower_fn *lower;
} ny_family;
extern const ny_family ny_families[];
extern const int ny_n_families;
const ny_family *ny_family_by_name(const char *name); /* NULL: none */
const char *ny_family_led_by(ny_kind k, int i);       /* the i-th family to try for groups this op leads, or NULL: no more (or it is part of a map) */

/* On a GPU the knob `threads` says how many threads run one grid point (default 1). With 1, every tile lives in one thread, and a
   thread needs nobody; with 32 a warp, with more a block of its own run a point, and tiles are spread over them. `unroll`, `stages`
   and the like are the family's own. */
/* A kernel's named integers: what `tune` may change and a person may set. Printed in its header; reads back. */
void ny_knob_set(ny_graph *k, const char *name, int64_t value);
int64_t ny_knob(const ny_graph *k, const char *name, int64_t def);
#endif
