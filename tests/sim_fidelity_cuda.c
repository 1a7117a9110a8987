/* The same kernels on a CUDA driver: a device's, or the simulated one, which is how this file is tested without a
 * device. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_fidelity.h"

typedef uint64_t device_pointer;
#define DRIVER(F)                                                                                                      \
  F(cuInit, (unsigned flags))                                                                                          \
  F(cuDriverGetVersion, (int *version))                                                                                \
  F(cuDeviceGet, (int *device, int ordinal))                                                                           \
  F(cuDeviceGetAttribute, (int *value, int attribute, int device))                                                     \
  F(cuDevicePrimaryCtxRetain, (void **context, int device))                                                            \
  F(cuCtxSetCurrent, (void *context))                                                                                  \
  F(cuCtxSynchronize, (void))                                                                                          \
  F(cuModuleLoadDataEx, (void **module, const void *image, unsigned n, int *options, void **values))                   \
  F(cuModuleUnload, (void *module))                                                                                    \
  F(cuModuleGetFunction, (void **function, void *module, const char *name))                                            \
  F(cuMemAlloc_v2, (device_pointer * p, size_t bytes))                                                                 \
  F(cuMemFree_v2, (device_pointer p))                                                                                  \
  F(cuMemcpyHtoD_v2, (device_pointer to, const void *from, size_t bytes))                                              \
  F(cuMemcpyDtoH_v2, (void *to, device_pointer from, size_t bytes))                                                    \
  F(cuLaunchKernel, (void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,            \
                     unsigned shared, void *stream, void **params, void **extra))
static struct driver {
#define FIELD(name, args) int(*name) args;
  DRIVER(FIELD)
#undef FIELD
  char target[16], version[8];
  int skipped;
} cuda;

bool fidelity_driver_open(const char *library) {
  void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!lib) {
    fprintf(stderr, "sim_fidelity: %s\n", dlerror());
    return false;
  }
#define LOAD(name, args)                                                                                               \
  {                                                                                                                    \
    void *p = dlsym(lib, #name);                                                                                       \
    if (!p) {                                                                                                          \
      fprintf(stderr, "sim_fidelity: %s has no " #name "\n", library);                                                 \
      return false;                                                                                                    \
    }                                                                                                                  \
    memcpy(&cuda.name, &p, sizeof p);                                                                                  \
  }
  DRIVER(LOAD)
#undef LOAD
  int device, major, minor, version;
  void *context;
  if (cuda.cuInit(0) || cuda.cuDeviceGet(&device, 0) || cuda.cuDevicePrimaryCtxRetain(&context, device) ||
      cuda.cuCtxSetCurrent(context) || cuda.cuDriverGetVersion(&version) ||
      cuda.cuDeviceGetAttribute(&major, 75, device) || cuda.cuDeviceGetAttribute(&minor, 76, device)) {
    fprintf(stderr, "sim_fidelity: %s has no device\n", library);
    return false;
  }
  snprintf(cuda.target, sizeof cuda.target, "sm_%d%d%s", major, minor, major >= 9 ? "a" : "");
  /* The newest PTX that this driver takes, up to what the kernels are written in. */
  int minor_ptx = version >= 13000 || version / 10 % 100 > 7 ? 7 : version / 10 % 100;
  snprintf(cuda.version, sizeof cuda.version, "8.%d", minor_ptx);
  return true;
}

/* The text for this device; the caller frees it. */
static char *retarget(const char *ptx) {
  ny_text t = {0};
  const char *target = strstr(ptx, "sm_120a");
  ny_text_addf(&t, ".version %s\n.target %s%s", cuda.version, cuda.target, target ? target + strlen("sm_120a") : "");
  return t.s;
}
static int launch(void *f, const fidelity_buffer *buffer, int n, uint32_t blocks, uint32_t threads) {
  device_pointer p[8] = {0};
  void *params[8];
  int e = 0;
  for (int i = 0; i < n && !e; i++) {
    params[i] = &p[i];
    e = cuda.cuMemAlloc_v2(&p[i], buffer[i].bytes);
    if (!e) e = cuda.cuMemcpyHtoD_v2(p[i], buffer[i].data, buffer[i].bytes);
  }
  if (!e) e = cuda.cuLaunchKernel(f, blocks, 1, 1, threads, 1, 1, 0, NULL, params, NULL);
  if (!e) e = cuda.cuCtxSynchronize();
  for (int i = 0; i < n; i++) {
    if (!e) e = cuda.cuMemcpyDtoH_v2(buffer[i].data, p[i], buffer[i].bytes);
    if (p[i]) cuda.cuMemFree_v2(p[i]);
  }
  return e;
}
/* What this device's assembler does not take is an instruction that it lacks. */
static fidelity_status run(void *self, const char *ptx, const fidelity_buffer *buffer, int n, uint32_t blocks,
                           uint32_t threads, char *why) {
  (void)self;
  char log[400] = "", *text = retarget(ptx);
  int options[] = {5 /* error log */, 6 /* its size */};
  void *values[] = {log, (void *)(uintptr_t)sizeof log}, *module, *f;
  int e = cuda.cuModuleLoadDataEx(&module, text, 2, options, values);
  free(text);
  if (e) {
    cuda.skipped++;
    snprintf(why, 512, "error %d: %.400s", e, log);
    return REFUSED;
  }
  e = cuda.cuModuleGetFunction(&f, module, "k");
  if (!e) e = launch(f, buffer, n, blocks, threads);
  if (e) snprintf(why, 512, "error %d", e);
  cuda.cuModuleUnload(module);
  return e ? FAILED : RAN;
}
int fidelity_driver_skipped(void) { return cuda.skipped; }
const fidelity_runner fidelity_driver = {NULL, run};
