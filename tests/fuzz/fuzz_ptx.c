/* PTX text, loaded and run: no text may make the simulator touch memory that it was not given. */
#include "sim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  static uint64_t buffer[512];
  const uint64_t params[512] = {(uint64_t)(uintptr_t)buffer, (uint64_t)(uintptr_t)buffer, (uint64_t)(uintptr_t)buffer, 64};
  ny_diag d = {0};
  ny_sim_module *m;
  if (ny_sim_load((const char *)data, n, "fuzz.ptx", &m, &d)) return 0;
  ny_sim_memory *mem = ny_sim_memory_new();
  ny_sim_map(mem, buffer, sizeof buffer, "buffer", false, &d);
  for (int k = 0; k < ny_sim_kernel_count(m); k++) {
    const ny_sim_kernel_info *i = ny_sim_kernel(m, k);
    if (i->param_bytes > sizeof params || i->static_shared > 1 << 16 || i->local_bytes > 1 << 16) continue;
    ny_sim_launch l = {m, k, {2, 1, 1}, {48, 1, 1}, 256, params, mem, {.order = NY_SIM_RANDOM, .checks = NY_SIM_ALL}};
    l.options.max_warp_ins = 20000;
    ny_sim_result r = {0};
    ny_sim_run(&l, &r, &d);
    ny_sim_result_free(&r);
  }
  ny_sim_memory_free(mem);
  ny_sim_unload(m);
  return 0;
}
