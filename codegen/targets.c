/* The rows of targets.def, and this machine. */
#include "codegen.h"

#include <string.h>
#include <threads.h>

const ny_target ny_targets[] = {
#define TARGET(n, t, c, f, vec, regs, mask, two, l1, l2k)                                                              \
  {.name = #n,                                                                                                         \
   .triple = t,                                                                                                        \
   .cpu = c,                                                                                                           \
   .features = f,                                                                                                      \
   .vec_bytes = vec,                                                                                                   \
   .n_vregs = regs,                                                                                                    \
   .masked = mask,                                                                                                     \
   .no_fma = two,                                                                                                      \
   .l1d = (l1)*1024,                                                                                                   \
   .l2 = (l2k)*1024,                                                                                                   \
   .threads = 4},
#define CUDA_TARGET(n, cc, shared_k, l2k)                                                                              \
  {.name = #n,                                                                                                         \
   .triple = "nvptx64-nvidia-cuda",                                                                                    \
   .cpu = #n,                                                                                                          \
   .features = "",                                                                                                     \
   .vec_bytes = 16,                                                                                                    \
   .n_vregs = 64,                                                                                                      \
   .masked = true,                                                                                                     \
   .l1d = (shared_k)*1024,                                                                                             \
   .l2 = (l2k)*1024,                                                                                                   \
   .threads = 1,                                                                                                       \
   .sm = cc,                                                                                                           \
   .shared = (shared_k)*1024},
#include "targets.def"
#undef TARGET
#undef CUDA_TARGET
};
const int ny_n_targets = (int)NY_COUNT(ny_targets);

static ny_target host;
static nyb_status host_status;
static ny_diag host_diag;
static once_flag host_once = ONCE_FLAG_INIT;

static void read_host(void) {
  const ny_codegen *cg;
  host_status = ny_codegen_open(&cg, &host_diag);
  if (!host_status) cg->host(&host);
  /* without it LLVM would call functions for floor and round */
  if (!host_status && host.no_fma && !strstr(host.features, "+sse4.2"))
    host_status = ny_fail(&host_diag, NYB_E_TARGET, NULL, "this CPU (%s) lacks SSE4.2, which compiled kernels use",
                          host.cpu);
}

nyb_status ny_target_find(const char *name, const ny_target **out, ny_diag *d) {
  if (!name || !strcmp(name, "host")) {
    call_once(&host_once, read_host);
    if (host_status) return ny_fail(d, host_status, NULL, "%s", host_diag.message);
    *out = &host;
    return NYB_OK;
  }
  char known[512] = "host";
  for (size_t i = 0; i < NY_COUNT(ny_targets); i++) {
    if (!strcmp(ny_targets[i].name, name)) {
      *out = &ny_targets[i];
      return NYB_OK;
    }
    size_t n = strlen(known);
    snprintf(known + n, sizeof known - n, ", %s", ny_targets[i].name);
  }
  return ny_fail(d, NYB_E_TARGET, NULL, "unknown target \"%s\"; known are: %s", name, known);
}
