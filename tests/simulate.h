/* Runs a lowered unit's kernels as CUDA: generated, compiled by NVRTC, and run in the simulator under all its checks, with every buffer mapped for itself so that one
   byte too far is a finding. */
#ifndef NY_SIMULATE_H
#define NY_SIMULATE_H
#include "cuda_code.h"
#include "exec.h"
#include "sim.h"

bool simulate_available(ny_diag *why);
typedef struct simulate_schedule { /* knobs that every kernel gets; threads 0: as they are */
  const char *name;
  int threads, tr, u, v, wm, wn;
} simulate_schedule;
/* x: opened without a target (its buffers laid out, nothing run). compile_only: nothing is run. NYB_E_DEVICE: the simulator found something, described in d. */
nyb_status simulate_run(exec *x, const ny_target *target, const simulate_schedule *how, bool compile_only, ny_diag *d);
/* One launch of a compiled kernel, as `options` say; findings are added to r. */
nyb_status simulate_launch(const exec_step *s, const ny_cuda_facts *f, const ny_sim_module *module, const ny_sim_options *options, ny_sim_result *r, ny_diag *d);
#endif
