/* Modules, libraries and functions. Only PTX is run: an image of machine code is refused as a driver refuses one for
   another device, so that a loader which has PTX too goes on to that. */
#include "driver.h"
#include <stdlib.h>
#include <string.h>

/* ---- is this PTX for the device */
typedef struct jit_log {
  char *text;
  size_t room;
} jit_log;

static jit_log find_log(unsigned n, const int *option, void *const *value) {
  jit_log log = {0};
  for (unsigned i = 0; i < n; i++) {
    if (option[i] == NY_CU_JIT_ERROR_LOG) log.text = value[i];
    if (option[i] == NY_CU_JIT_ERROR_LOG_BYTES) log.room = (size_t)(uintptr_t)value[i];
  }
  if (log.text && log.room) log.text[0] = 0;
  return log;
}

static ny_cu_result refuse(jit_log log, ny_cu_result r, const char *text) {
  if (log.text && log.room) snprintf(log.text, log.room, "%s", text);
  return r;
}

/* sm_90a: this capability only; sm_120f: later ones of its family too; else all later ones. */
static bool runs_on(const char *ptx, int sm, int device) {
  int have = drv_attribute_of(device, NY_CU_MAJOR) * 10 + drv_attribute_of(device, NY_CU_MINOR);
  const char *target = strstr(ptx, ".target");
  const char *at = target ? strstr(target, "sm_") : NULL;
  char suffix = 0;
  if (at) {
    at += 3;
    at += strspn(at, "0123456789");
    suffix = *at;
  }
  if (suffix == 'a') return have == sm;
  return have >= sm && (suffix != 'f' || have / 10 == sm / 10);
}

static bool is_machine_code(const unsigned char *p) {
  static const unsigned char fatbin[4] = {0x50, 0xed, 0x55, 0xba}, wrapper[4] = {0xb1, 0x43, 0x62, 0x46};
  return !memcmp(p, "\177ELF", 4) || !memcmp(p, fatbin, 4) || !memcmp(p, wrapper, 4);
}

static void make_functions(ny_cu_module m, ny_cu_context cx) {
  m->n = ny_sim_kernel_count(m->sim);
  m->function = drv_need(calloc((size_t)m->n + 1, sizeof *m->function));
  for (int i = 0; i < m->n; i++) {
    m->function[i] =
        (struct CUfunc_st){.o = {DRV_FUNCTION, cx}, .module = m, .index = i, .info = ny_sim_kernel(m->sim, i)};
    drv_object_adopt(&m->function[i]);
  }
}

static ny_cu_result load(ny_cu_context cx, const char *image, jit_log log, ny_cu_module *out) {
  ny_diag d = {0};
  char text[1200];
  ny_sim_module *sim = NULL;
  if (!out || !image) return DRV_INVALID_VALUE;
  if (drv_capture_forbids(cx)) return DRV_STREAM_CAPTURE_UNSUPPORTED;
  if (image[0] && is_machine_code((const unsigned char *)image))
    return refuse(log, DRV_NO_BINARY_FOR_GPU, "machine code cannot be simulated: give PTX");
  if (!image[0]) return DRV_INVALID_IMAGE;
  if (ny_sim_load(image, strlen(image), "ptx", &sim, &d)) {
    snprintf(text, sizeof text, "line %d: %s", d.line, d.message);
    if (!drv_opt.quiet) fprintf(stderr, "libnyb_cudasim: error: PTX %s\n", text);
    return refuse(log, DRV_INVALID_PTX, text);
  }
  if (!runs_on(image, ny_sim_target(sim), cx->device)) {
    snprintf(text, sizeof text, "the PTX is for sm_%d, the device has capability %d.%d", ny_sim_target(sim),
             drv_attribute_of(cx->device, NY_CU_MAJOR), drv_attribute_of(cx->device, NY_CU_MINOR));
    ny_sim_unload(sim);
    return refuse(log, DRV_NO_BINARY_FOR_GPU, text);
  }
  ny_cu_module m = drv_object_new(sizeof *m, DRV_MODULE, cx);
  m->sim = sim;
  make_functions(m, cx);
  *out = m;
  return DRV_SUCCESS;
}

void drv_module_delete(ny_cu_module m) {
  for (int i = 0; i < m->n; i++) drv_object_forget(&m->function[i]);
  free(m->function);
  ny_sim_unload(m->sim);
  drv_object_free(m);
}

/* ---- modules */
ny_cu_result cuModuleLoadDataEx(ny_cu_module *out, const void *image, unsigned n, const int *option,
                                void *const *value) {
  DRV_ENTER;
  if (n && (!option || !value)) return DRV_INVALID_VALUE;
  return load(cx, image, find_log(n, option, value), out);
}
ny_cu_result cuModuleLoadData(ny_cu_module *out, const void *image) {
  return cuModuleLoadDataEx(out, image, 0, NULL, NULL);
}
ny_cu_result cuModuleLoadFatBinary(ny_cu_module *out, const void *image) { return cuModuleLoadData(out, image); }

ny_cu_result cuModuleLoad(ny_cu_module *out, const char *path) {
  DRV_ENTER;
  ny_arena a = {0};
  ny_diag d = {0};
  char *text;
  size_t n;
  if (!path) return DRV_INVALID_VALUE;
  if (ny_file_read(&a, path, (size_t)1 << 30, &text, &n, &d)) return DRV_FILE_NOT_FOUND;
  ny_cu_result r = load(cx, ny_strndup(&a, text, n), (jit_log){0}, out);
  ny_arena_free(&a);
  return r;
}

ny_cu_result cuModuleUnload(ny_cu_module module) {
  DRV_ENTER;
  DRV_CHECK(module, DRV_MODULE);
  if (drv_capture_forbids(cx)) return DRV_STREAM_CAPTURE_UNSUPPORTED;
  ny_cu_result r = drv_flush();
  drv_module_delete(module);
  return r;
}

ny_cu_result cuModuleGetFunction(ny_cu_function *out, ny_cu_module module, const char *name) {
  DRV_ENTER;
  DRV_CHECK(module, DRV_MODULE);
  if (!out || !name) return DRV_INVALID_VALUE;
  int i = ny_sim_kernel_index(module->sim, name);
  if (i < 0) return DRV_NOT_FOUND;
  *out = &module->function[i];
  return DRV_SUCCESS;
}

ny_cu_result cuModuleGetGlobal_v2(ny_cu_address *out, size_t *bytes, ny_cu_module module, const char *name) {
  DRV_ENTER;
  DRV_CHECK(module, DRV_MODULE);
  if (!name) return DRV_INVALID_VALUE;
  for (int i = 0; i < ny_sim_variable_count(module->sim); i++) {
    const ny_sim_variable *v = ny_sim_variable_at(module->sim, i);
    if (strcmp(v->name, name)) continue;
    if (out) *out = (ny_cu_address)(uintptr_t)v->p;
    if (bytes) *bytes = (size_t)v->bytes;
    return DRV_SUCCESS;
  }
  return DRV_NOT_FOUND;
}

ny_cu_result cuModuleGetFunctionCount(unsigned *n, ny_cu_module module) {
  DRV_ENTER;
  DRV_CHECK(module, DRV_MODULE);
  if (!n) return DRV_INVALID_VALUE;
  *n = (unsigned)module->n;
  return DRV_SUCCESS;
}

ny_cu_result cuModuleGetLoadingMode(int *mode) {
  if (!mode) return DRV_INVALID_VALUE;
  *mode = 1; /* eager */
  return DRV_SUCCESS;
}

/* ---- libraries and kernels: modules and functions of the current context */
ny_cu_result cuLibraryLoadData(ny_cu_module *out, const void *image, const int *option, void *const *value, unsigned n,
                               const int *library_option, void *const *library_value, unsigned n_library) {
  (void)library_option;
  (void)library_value;
  (void)n_library;
  return cuModuleLoadDataEx(out, image, n, option, value);
}
ny_cu_result cuLibraryUnload(ny_cu_module library) { return cuModuleUnload(library); }
ny_cu_result cuLibraryGetKernel(ny_cu_function *out, ny_cu_module library, const char *name) {
  return cuModuleGetFunction(out, library, name);
}
ny_cu_result cuLibraryGetModule(ny_cu_module *out, ny_cu_module library) {
  DRV_ENTER;
  DRV_CHECK(library, DRV_MODULE);
  if (!out) return DRV_INVALID_VALUE;
  *out = library;
  return DRV_SUCCESS;
}
ny_cu_result cuLibraryGetGlobal(ny_cu_address *out, size_t *bytes, ny_cu_module library, const char *name) {
  return cuModuleGetGlobal_v2(out, bytes, library, name);
}
ny_cu_result cuKernelGetFunction(ny_cu_function *out, ny_cu_function kernel) {
  DRV_ENTER;
  DRV_CHECK(kernel, DRV_FUNCTION);
  if (!out) return DRV_INVALID_VALUE;
  *out = kernel;
  return DRV_SUCCESS;
}

/* ---- functions */
static int most_dynamic(const struct CUfunc_st *f, int device) {
  return drv_attribute_of(device, NY_CU_SHARED_OPTIN) - (int)f->info->static_shared;
}

ny_cu_result cuFuncSetAttribute(ny_cu_function f, int attribute, int value) {
  DRV_ENTER;
  DRV_CHECK(f, DRV_FUNCTION);
  if (attribute == 9) return value < -1 || value > 100 ? DRV_INVALID_VALUE : DRV_SUCCESS; /* carve-out, a hint */
  if (attribute != NY_CU_FUNCTION_MAX_DYNAMIC_SHARED) return DRV_INVALID_VALUE;
  if (value < 0 || value > most_dynamic(f, cx->device)) return DRV_INVALID_VALUE;
  f->dynamic = value;
  return DRV_SUCCESS;
}

static int max_threads(const struct CUfunc_st *f) {
  uint64_t n = 1;
  for (int i = 0; i < 3; i++) n *= f->info->max_threads[i] ? f->info->max_threads[i] : 1;
  return f->info->max_threads[0] && n < DRV_MAX_THREADS ? (int)n : DRV_MAX_THREADS;
}

ny_cu_result cuFuncGetAttribute(int *value, int attribute, ny_cu_function f) {
  DRV_ENTER;
  DRV_CHECK(f, DRV_FUNCTION);
  if (!value) return DRV_INVALID_VALUE;
  int plain = DRV_PLAIN_SHARED - (int)f->info->static_shared;
  int capability = drv_attribute_of(cx->device, NY_CU_MAJOR) * 10 + drv_attribute_of(cx->device, NY_CU_MINOR);
  switch (attribute) {
  case NY_CU_FUNCTION_MAX_THREADS: *value = max_threads(f); break;
  case NY_CU_FUNCTION_SHARED: *value = (int)f->info->static_shared; break;
  case 2: *value = 0; break; /* constant memory of its own */
  case NY_CU_FUNCTION_LOCAL: *value = (int)f->info->local_bytes; break;
  case NY_CU_FUNCTION_REGISTERS: *value = f->info->n_regs < 255 ? (int)f->info->n_regs : 255; break;
  case 5: *value = ny_sim_target(f->module->sim); break;
  case 6: *value = capability; break;
  case 7: *value = 0; break;
  case NY_CU_FUNCTION_MAX_DYNAMIC_SHARED: *value = f->dynamic ? f->dynamic : plain > 0 ? plain : 0; break;
  case 9: *value = -1; break;
  default: return DRV_INVALID_VALUE;
  }
  return DRV_SUCCESS;
}

ny_cu_result cuKernelSetAttribute(int attribute, int value, ny_cu_function kernel, ny_cu_device device) {
  (void)device;
  return cuFuncSetAttribute(kernel, attribute, value);
}
ny_cu_result cuKernelGetAttribute(int *value, int attribute, ny_cu_function kernel, ny_cu_device device) {
  (void)device;
  return cuFuncGetAttribute(value, attribute, kernel);
}

ny_cu_result cuFuncGetName(const char **name, ny_cu_function f) {
  DRV_ENTER;
  DRV_CHECK(f, DRV_FUNCTION);
  if (!name) return DRV_INVALID_VALUE;
  *name = f->info->name;
  return DRV_SUCCESS;
}
ny_cu_result cuKernelGetName(const char **name, ny_cu_function kernel) { return cuFuncGetName(name, kernel); }

ny_cu_result cuFuncGetModule(ny_cu_module *out, ny_cu_function f) {
  DRV_ENTER;
  DRV_CHECK(f, DRV_FUNCTION);
  if (!out) return DRV_INVALID_VALUE;
  *out = f->module;
  return DRV_SUCCESS;
}

ny_cu_result cuFuncGetParamInfo(ny_cu_function f, size_t i, size_t *offset, size_t *bytes) {
  DRV_ENTER;
  DRV_CHECK(f, DRV_FUNCTION);
  if (i >= f->info->n_params) return DRV_INVALID_VALUE;
  if (offset) *offset = f->info->param[i].offset;
  if (bytes) *bytes = f->info->param[i].bytes;
  return DRV_SUCCESS;
}

ny_cu_result cuFuncSetCacheConfig(ny_cu_function f, int config) {
  (void)config;
  DRV_ENTER;
  DRV_CHECK(f, DRV_FUNCTION);
  return DRV_SUCCESS;
}

/* By threads and shared memory; registers of real code are not known here. */
ny_cu_result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, ny_cu_function f, int threads,
                                                                  size_t dynamic, unsigned flags) {
  DRV_ENTER;
  DRV_CHECK(f, DRV_FUNCTION);
  if (!blocks || threads < 1 || flags > 1) return DRV_INVALID_VALUE;
  int warps = (threads + 31) / 32, n = drv_attribute_of(cx->device, 39) / 32 / warps;
  size_t shared = f->info->static_shared + dynamic + (size_t)drv_attribute_of(cx->device, 111);
  int by_shared = (int)((size_t)drv_attribute_of(cx->device, NY_CU_SHARED_PROCESSOR) / shared);
  int most = drv_attribute_of(cx->device, 106);
  if (n > by_shared) n = by_shared;
  *blocks = threads > max_threads(f) ? 0 : n < most ? n : most;
  return DRV_SUCCESS;
}
ny_cu_result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, ny_cu_function f, int threads, size_t dynamic) {
  return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, f, threads, dynamic, 0);
}
