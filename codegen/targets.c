/* The machines of targets.def, and this one. */
#include "codegen.h"

#include <pthread.h>
#include <string.h>

const ny_target ny_targets[] = {
#define TARGET(name, triple, cpu, features, vec, regs, masked, l1, l2) {name, triple, cpu, features, vec, regs, masked, l1, l2, 4},
#include "targets.def"
#undef TARGET
};
const int ny_n_targets = (int)NY_COUNT(ny_targets);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static ny_target host;
static nyb_status host_status;
static ny_diag host_diag;

static void find_host(void) {
  const ny_codegen *cg;
  host_status = ny_codegen_open(&cg, &host_diag);
  if (!host_status) cg->host(&host);
}

nyb_status ny_target_find(const char *name, const ny_target **out, ny_diag *d) {
  for (int i = 0; i < ny_n_targets; i++)
    if (!strcmp(name, ny_targets[i].name)) return *out = &ny_targets[i], NYB_OK;
  if (strcmp(name, "host")) return ny_fail(d, NYB_E_ARGUMENT, NULL, "no target is named %s; nybble ops --targets lists them", name);
  pthread_once(&once, find_host);
  if (host_status) return ny_fail(d, host_status, NULL, "%s", host_diag.message);
  *out = &host;
  return NYB_OK;
}
