/* A CUDA device without the device: PTX text, as NVRTC makes it, runs on the CPU warp by warp, under checks that no
   silicon offers. The simulated driver, `nybble sim` and the tests use this page; what is inside is in ptx.h.
   A kernel sees host memory: a device pointer is a host pointer into a range that was mapped. */
#ifndef NY_SIM_H
#define NY_SIM_H
#include "base.h"

/* ---- memory.c: the address space. Any thread may map and unmap; a launch works on the ranges mapped when it began,
   and what it uses must stay mapped until it returns. */
typedef struct ny_sim_memory ny_sim_memory;
typedef struct ny_sim_range {
  uint64_t base, bytes;
  char name[47]; /* for findings: "x", "arena" */
  bool read_only;
} ny_sim_range;
ny_sim_memory *ny_sim_memory_new(void);
void ny_sim_memory_free(ny_sim_memory *m);
/* NYB_E_ARGUMENT when it overlaps a mapped range or is empty. `name` is copied (its first 46 bytes), NULL: none. */
nyb_status ny_sim_map(ny_sim_memory *m, const void *p, uint64_t bytes, const char *name, bool read_only, ny_diag *d);
bool ny_sim_unmap(ny_sim_memory *m, const void *p); /* the range that starts at p; false: there is none */
/* The range that holds p; false: none does. */
bool ny_sim_find(ny_sim_memory *m, const void *p, ny_sim_range *out);

/* ---- module.c: PTX text, parsed, checked and decoded as a whole. */
typedef struct ny_sim_module ny_sim_module;
typedef struct ny_sim_param {
  uint32_t offset, bytes, align; /* in the packed parameter block */
} ny_sim_param;
typedef struct ny_sim_kernel_info {
  const char *name;
  const ny_sim_param *param;
  uint32_t n_params, param_bytes;
  uint32_t static_shared, local_bytes; /* shared bytes without the dynamic part; local memory of one thread */
  uint32_t max_threads[3];             /* .maxntid; 0: not given */
  uint32_t n_ins, n_regs;
} ny_sim_kernel_info;
typedef struct ny_sim_variable { /* .global or .const of the module: cuModuleGetGlobal */
  const char *name;
  void *p;
  uint64_t bytes;
  bool is_const;
} ny_sim_variable;
/* `file` names the text in messages. NYB_E_PARSE with d->line for bad text, NYB_E_UNSUPPORTED naming the instruction.
 */
nyb_status ny_sim_load(const char *ptx, size_t n, const char *file, ny_sim_module **out, ny_diag *d);
void ny_sim_unload(ny_sim_module *m);
int ny_sim_kernel_count(const ny_sim_module *m);
int ny_sim_kernel_index(const ny_sim_module *m, const char *name); /* -1: no such kernel */
const ny_sim_kernel_info *ny_sim_kernel(const ny_sim_module *m, int kernel);
int ny_sim_variable_count(const ny_sim_module *m);
const ny_sim_variable *ny_sim_variable_at(const ny_sim_module *m, int i);
int ny_sim_target(const ny_sim_module *m); /* 90 for sm_90a */

/* ---- launch.c */
typedef enum ny_sim_order { NY_SIM_FORWARD, NY_SIM_REVERSE, NY_SIM_RANDOM } ny_sim_order;
/* Bounds, alignment, divergent barriers and traps are always checked. */
enum {
  NY_SIM_RACES = 1,        /* two threads of a block, shared or global memory, no barrier between */
  NY_SIM_UNINIT = 2,       /* shared memory read before this block wrote it */
  NY_SIM_CROSS_BLOCK = 4,  /* two blocks on the same global bytes, one of them writing, not both atomic */
  NY_SIM_COUNT_MEMORY = 8, /* bank-conflict wavefronts and sectors */
  NY_SIM_ALL = 15
};
typedef struct ny_sim_options {
  ny_sim_order order;
  uint64_t seed;         /* of random orders */
  uint32_t checks;       /* NY_SIM_* */
  uint32_t max_findings; /* 0: 32; the launch ends when there are more */
  uint64_t max_warp_ins; /* 0: 2^34; more is a finding, not a hang */
  bool late_copies;      /* asynchronous copies land when waited for instead of at once */
  void (*print)(void *user, const char *text, size_t n); /* printf of kernels; NULL: stdout */
  void *print_user;
} ny_sim_options;

/* What an instruction is counted as. */
#define NY_SIM_CLASSES(C)                                                                                              \
  C(int, "integer")                                                                                                    \
  C(float, "f16, bf16, f32")                                                                                           \
  C(f64, "f64")                                                                                                        \
  C(convert, "conversion")                                                                                             \
  C(move, "move and select")                                                                                           \
  C(tensor, "tensor core") C(ld_global, "global load") C(st_global, "global store") C(ld_shared, "shared load")        \
      C(st_shared, "shared store") C(ld_local, "local load") C(st_local, "local store")                                \
          C(ld_const, "constant and parameter load") C(atomic, "atomic") C(copy, "asynchronous copy")                  \
              C(shuffle, "shuffle and vote") C(control, "branch") C(sync, "barrier and fence")                         \
                  C(special, "special function")
typedef enum ny_sim_class {
#define NY_SIM_CLASS_(name, text) NY_CLS_##name,
  NY_SIM_CLASSES(NY_SIM_CLASS_)
#undef NY_SIM_CLASS_
      NY_N_CLS
} ny_sim_class;
const char *ny_sim_class_text(ny_sim_class c);
typedef struct ny_sim_counters {
  uint64_t warp_ins[NY_N_CLS], thread_ins[NY_N_CLS];
  uint64_t shared_ops, shared_waves;   /* warp accesses of shared memory; the wavefronts they take (ops: no conflict) */
  uint64_t global_ops, global_sectors; /* warp accesses of global memory; the 32-byte sectors they touch */
  uint64_t global_read_bytes, global_write_bytes; /* what the lanes asked for */
  uint64_t barriers;                              /* block barriers completed */
  uint64_t blocks, warps;
} ny_sim_counters;

#define NY_SIM_FINDINGS(F)                                                                                             \
  F(race, "data race")                                                                                                 \
  F(bounds, "out of bounds")                                                                                           \
  F(misaligned, "misaligned access")                                                                                   \
  F(uninit, "read of uninitialised shared memory")                                                                     \
  F(divergent, "divergent barrier")                                                                                    \
  F(cross, "cross-block conflict") F(deadlock, "deadlock") F(trap, "trap") F(limit, "instruction limit")               \
      F(invalid, "invalid use")
typedef enum ny_sim_finding_kind {
#define NY_SIM_FINDING_(name, text) NY_FIND_##name,
  NY_SIM_FINDINGS(NY_SIM_FINDING_)
#undef NY_SIM_FINDING_
      NY_N_FIND
} ny_sim_finding_kind;
typedef struct ny_sim_place { /* in the source, by .loc; lives as long as the module */
  const char *file; /* NULL: the text does not name it */
  int line;
  const struct ny_sim_place *from; /* the call that it was inlined for; NULL: none */
} ny_sim_place;
typedef struct ny_sim_site { /* one thread at one instruction */
  bool known;
  uint32_t block[3], thread[3];
  int ptx_line;
  const char *file; /* of the instruction itself, as in ny_sim_place */
  int line;
  const ny_sim_place *from;
} ny_sim_site;
typedef struct ny_sim_finding {
  ny_sim_finding_kind kind;
  const char *kernel;    /* lives as long as the module */
  ny_sim_site at, other; /* other: the earlier access of a race or conflict, the other barrier */
  uint64_t address;      /* as the kernel sees it: shared offset or global pointer */
  uint32_t bytes;
  uint64_t count; /* how often this pair of instructions was found */
  char text[256]; /* one sentence */
} ny_sim_finding;
const char *ny_sim_finding_text(ny_sim_finding_kind k);

typedef struct ny_sim_launch {
  const ny_sim_module *module;
  int kernel;
  uint32_t grid[3], block[3], dynamic_shared;
  const void *params; /* the packed block, param_bytes long */
  ny_sim_memory *memory;
  ny_sim_options options;
} ny_sim_launch;
typedef struct ny_sim_result { /* of one launch; zero it before the first use, it adds up over launches */
  ny_sim_counters counters;
  ny_sim_finding *finding; /* one a pair of instructions; malloc'ed */
  uint32_t n_findings;
  double seconds;
} ny_sim_result;
/* NYB_OK: ran to its end with no finding. NYB_E_DEVICE: there are findings (the launch may have been cut short).
   NYB_E_ARGUMENT and others: it never started, see d. */
nyb_status ny_sim_run(const ny_sim_launch *l, ny_sim_result *r, ny_diag *d);
void ny_sim_result_free(ny_sim_result *r);
/* "error: data race ...\n  at kernel.cu:12 (PTX line 80), block (0,0,0) thread (1,0,0)\n ..." */
void ny_sim_print_finding(const ny_sim_finding *f, ny_text *out);
#endif
