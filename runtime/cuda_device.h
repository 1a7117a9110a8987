/* What device.c, program.c and queue.c know of each other. */
#ifndef NY_CUDA_DEVICE_H
#define NY_CUDA_DEVICE_H
#include "cuda.h"
#include "device.h"

/* What the simulator exports of its own: the next launch of this thread may touch these ranges and nothing else. */
typedef struct ny_sim_expected {
  const void *p;
  uint64_t bytes;
} ny_sim_expected;
typedef ny_cu_result ny_sim_expect_fn(const ny_sim_expected *range, unsigned n);

struct ny_device {
  const ny_cuda *cu;
  ny_cu_device device;
  ny_cu_context context;
  ny_device_facts facts;
  ny_sim_expect_fn *expect; /* NULL: not simulated */
  int uses;
  ny_device *next;
};

typedef struct ny_device_kernel {
  ny_cu_function function;
  const ny_mod_kernel *row;
} ny_device_kernel;
struct ny_program {
  ny_device *dev;
  ny_arena rows;
  ny_cu_module *unit;
  uint32_t n_units, n_kernels, most_args;
  ny_device_kernel *kernel;
  void *weights; /* one allocation */
  uint64_t *offset;
  bool *wanted; /* per segment: another target's weights stay in the file */
  uint64_t weight_bytes;
};

/* Between the two the device's context is this thread's; then the one that was before is again, because the thread and
   what it had current are the caller's. leave without a successful enter does nothing. */
typedef struct ny_device_scope {
  const ny_cuda *cu; /* NULL: nothing to put back */
  ny_cu_context before;
} ny_device_scope;
nyb_status ny_device_enter(const ny_device *dev, ny_device_scope *s, ny_diag *d);
void ny_device_leave(ny_device_scope *s);
static inline ny_cu_address ny_cu_at(const void *p) { return (ny_cu_address)(uintptr_t)p; }
#endif
