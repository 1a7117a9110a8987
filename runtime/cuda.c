/* Loads the driver. Every symbol of the table must be there: a driver too old for one of them is refused as a whole,
   rather than in the middle of a run. */
#include "cuda.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

#define SIM_NAME "libnyb_cudasim.so"
#define DRIVER_NAME "libcuda.so.1"

static ny_cuda drivers[2];
static ny_diag failures[2];
static once_flag opened[2] = {ONCE_FLAG_INIT, ONCE_FLAG_INIT};

static const struct {
  const char *symbol;
  size_t offset;
} symbols[] = {
#define CU(name, symbol, parameters) {#symbol, offsetof(ny_cuda, name)},
#include "cuda_syms.def"
#undef CU
};

/* ---- finding */
static bool try_file(ny_cuda *cu, ny_diag *d, const char *folder, const char *below, const char *name) {
  if (!folder) return false;
  snprintf(cu->path, sizeof cu->path, "%s%s%s%s", folder, *folder ? "/" : "", below, name);
  cu->library = dlopen(cu->path, RTLD_NOW | RTLD_LOCAL);
  const char *why = cu->library ? NULL : dlerror();
  if (why && !strstr(why, "No such file")) ny_fail(d, NYB_E_DEVICE, NULL, "%s does not load: %.600s", name, why);
  return cu->library != NULL;
}

static bool find_simulator(ny_cuda *cu, ny_diag *d) {
  Dl_info info;
  char folder[480] = "";
  bool known = dladdr((const void *)drivers, &info) && info.dli_fname;
  char *real = known ? realpath(info.dli_fname, NULL) : NULL, *slash = real ? strrchr(real, '/') : NULL;
  if (slash) snprintf(folder, sizeof folder, "%.*s", (int)(slash - real), real);
  free(real);
  const char *env = getenv("NYBBLE_PLUGIN_DIR"), *own = *folder ? folder : NULL;
  return (env && *env && try_file(cu, d, env, "", SIM_NAME)) || try_file(cu, d, own, "", SIM_NAME) ||
         try_file(cu, d, own, "../", SIM_NAME) || /* a test program in its folder of the build tree */
         try_file(cu, d, own, "../lib/", SIM_NAME);
}

static void fill(ny_cuda *cu, ny_diag *d) {
  for (size_t i = 0; i < NY_COUNT(symbols); i++) {
    void *p = dlsym(cu->library, symbols[i].symbol);
    if (!p) {
      ny_fail(d, NYB_E_DEVICE, NULL, "%s has no %s: a driver of CUDA 12.0 or later is needed", cu->path,
              symbols[i].symbol);
      return;
    }
    memcpy((char *)cu + symbols[i].offset, &p, sizeof p);
  }
  ny_cu_result r = cu->init(0);
  if (!r) r = cu->driver_version(&cu->version);
  if (r) ny_cuda_fail(cu, r, d, "the CUDA driver does not start");
}

static void open_driver(int simulated) {
  ny_cuda *cu = &drivers[simulated];
  ny_diag *d = &failures[simulated];
  cu->simulated = simulated;
  if (simulated ? find_simulator(cu, d) : try_file(cu, d, "", "", DRIVER_NAME)) {
    ny_diag_clear(d);
    fill(cu, d);
  } else if (simulated) {
    ny_fail(d, NYB_E_DEVICE, NULL, SIM_NAME " is neither beside this program nor in $NYBBLE_PLUGIN_DIR");
  } else {
    ny_fail(d, NYB_E_DEVICE, NULL, "there is no CUDA driver on this machine (" DRIVER_NAME ")");
  }
}

static void open_real(void) { open_driver(0); }
static void open_simulator(void) { open_driver(1); }

nyb_status ny_cuda_open(bool simulated, const ny_cuda **out, ny_diag *d) {
  call_once(&opened[simulated], simulated ? open_simulator : open_real);
  const ny_diag *failure = &failures[simulated];
  if (failure->code) return ny_fail(d, failure->code, NULL, "%s", failure->message);
  *out = &drivers[simulated];
  return NYB_OK;
}

void *ny_cuda_symbol(const ny_cuda *cu, const char *name) { return dlsym(cu->library, name); }

nyb_status ny_cuda_fail(const ny_cuda *cu, ny_cu_result r, ny_diag *d, const char *what, ...) {
  char head[512];
  va_list ap;
  va_start(ap, what);
  vsnprintf(head, sizeof head, what, ap);
  va_end(ap);
  const char *name = NULL, *text = NULL;
  if (cu->error_name(r, &name) || !name) name = "unknown CUDA error";
  if (cu->error_text(r, &text) || !text) text = "";
  return ny_fail(d, r == NY_CU_OUT_OF_MEMORY ? NYB_E_NOMEM : NYB_E_DEVICE, NULL, "%s: %s (%d)%s%s", head, name, r,
                 *text ? ", " : "", text);
}
