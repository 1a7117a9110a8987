/* Runs a lowered unit kernel by kernel, without a module or the runtime: what kernel tests and kernel benchmarks stand on.
   Every buffer lies between guard bytes and starts as NaN bits, so that a stray or a missing store shows. */
#ifndef NY_EXEC_H
#define NY_EXEC_H
#include "codegen.h"

typedef struct exec_step { /* one launch */
  const ny_graph *kernel;
  void (*fn)(const void *dispatch, int64_t begin, int64_t end); /* NULL: evaluate */
  void **buffer;
  ny_tensor *tensor; /* the same buffers, typed */
  size_t n_buffer;
  int64_t *dim, extent;
  void *scratch;
} exec_step;
typedef struct exec {
  ny_unit *unit;
  ny_arena arena;
  ny_image image;
  void *code;
  size_t code_bytes;
  ny_graph **kernel;
  size_t n_kernel;
  const ny_binding *env;
  size_t n_env;
  ny_tensor *value; /* by value id of the main graph */
  exec_step *step;
  size_t n_step;
  struct exec_guard {
    uint8_t *base;
    size_t bytes;
    const char *name;
  } *guard;
  size_t n_guard, cap_guard;
} exec;

/* Compiles the unit's kernels (target NULL: they are evaluated instead), lays out buffers for these symbol values, and evaluates what is no launch. */
nyb_status exec_open(exec *x, ny_unit *u, const ny_target *target, const ny_binding *env, size_t n_env, const ny_tensor *in, size_t n_in, const char *dump);
nyb_status exec_run(exec *x); /* all launches; grids are cut in two so that a range that does not start at 0 is used */
void exec_fast(exec *x);      /* compiled launches only, each grid in one call: for timing */
ny_tensor exec_result(const exec *x, size_t i);
const char *exec_guards(const exec *x); /* the first buffer written outside its bounds, or NULL */
void exec_close(exec *x);
/* A tensor of random numbers from a normal distribution (integers: small), the same for the same seed. */
ny_tensor exec_random(ny_ctx *cx, ny_arena *a, const ny_type *t, const ny_binding *env, size_t n_env, uint32_t seed);
const ny_type *exec_static(ny_ctx *cx, const ny_type *t, const ny_binding *env, size_t n_env);
/* The largest |a-b| divided by the largest |b| (1 when a NaN stands where none should or the reverse). */
double exec_error(ny_tensor a, ny_tensor b);
#endif
