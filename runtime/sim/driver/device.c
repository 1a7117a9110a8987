/* Devices are the columns of profiles.def, each with a primary context. NYB_CUDASIM=gb10 in the environment leaves one.
 */
#include "driver.h"
#include <stdlib.h>
#include <string.h>

enum {
#define PROFILE(name, product, gib) PROFILE_##name,
#define ATTRIBUTE(number, gb10, h100, rtx5090)
#include "profiles.def"
#undef PROFILE
#undef ATTRIBUTE
  N_PROFILES
};
static const struct {
  const char *name, *product;
  uint64_t memory;
} profiles[] = {
#define PROFILE(name, product, gib) {#name, product " (simulated)", (uint64_t)gib << 30},
#define ATTRIBUTE(number, gb10, h100, rtx5090)
#include "profiles.def"
#undef PROFILE
#undef ATTRIBUTE
};
static const struct {
  int number, value[N_PROFILES];
} attributes[] = {
#define PROFILE(name, product, gib)
#define ATTRIBUTE(number, gb10, h100, rtx5090) {number, {gb10, h100, rtx5090}},
#include "profiles.def"
#undef PROFILE
#undef ATTRIBUTE
};
static struct CUctx_st *primary[N_PROFILES];
static unsigned primary_flags[N_PROFILES];

/* ---- which */
static int find_profile(const char *name) {
  for (int i = 0; i < N_PROFILES; i++)
    if (!strcmp(profiles[i].name, name)) return i;
  return -1;
}

/* The only profile there is, or -1: all. */
static int only(void) {
  const char *v = getenv("NYB_CUDASIM");
  return v && *v ? find_profile(v) : -1;
}
static int count(void) { return only() < 0 ? N_PROFILES : 1; }
static int profile_of(int device) { return only() < 0 ? device : only(); }
static bool exists(int device) { return device >= 0 && device < count(); }

int nyb_cudasim_device(const char *profile) {
  if (!profile || !*profile) return 0;
  int i = find_profile(profile);
  return only() < 0 ? i : i == only() ? 0 : -1;
}
const char *nyb_cudasim_profile(int ordinal) { return exists(ordinal) ? profiles[profile_of(ordinal)].name : NULL; }

uint64_t drv_memory_of(int device) { return profiles[profile_of(device)].memory; }

int drv_attribute_of(int device, int attribute) {
  for (size_t i = 0; i < NY_COUNT(attributes); i++)
    if (attributes[i].number == attribute) return attributes[i].value[profile_of(device)];
  return -1;
}

bool drv_follows_any_pointer(int device) { return drv_attribute_of(device, NY_CU_PAGEABLE) > 0; }

/* ---- devices */
#define NEED_DEVICE(device)                                                                                            \
  do {                                                                                                                 \
    if (!drv_started) return DRV_NOT_INITIALIZED;                                                                      \
    if (!exists(device)) return DRV_INVALID_DEVICE;                                                                    \
  } while (0)

ny_cu_result cuDriverGetVersion(int *version) {
  if (!version) return DRV_INVALID_VALUE;
  *version = DRV_VERSION;
  return DRV_SUCCESS;
}

ny_cu_result cuDeviceGetCount(int *n) {
  if (!drv_started) return DRV_NOT_INITIALIZED;
  if (!n) return DRV_INVALID_VALUE;
  *n = count();
  return DRV_SUCCESS;
}

ny_cu_result cuDeviceGet(ny_cu_device *device, int ordinal) {
  NEED_DEVICE(ordinal);
  if (!device) return DRV_INVALID_VALUE;
  *device = ordinal;
  return DRV_SUCCESS;
}

ny_cu_result cuDeviceGetName(char *name, int room, ny_cu_device device) {
  NEED_DEVICE(device);
  if (!name || room < 1) return DRV_INVALID_VALUE;
  snprintf(name, (size_t)room, "%s", profiles[profile_of(device)].product);
  return DRV_SUCCESS;
}

ny_cu_result cuDeviceGetAttribute(int *value, int attribute, ny_cu_device device) {
  NEED_DEVICE(device);
  int v = drv_attribute_of(device, attribute);
  if (!value || attribute < 1 || attribute > 160) return DRV_INVALID_VALUE;
  *value = v < 0 ? 0 : v;
  return DRV_SUCCESS;
}

ny_cu_result cuDeviceComputeCapability(int *major, int *minor, ny_cu_device device) {
  ny_cu_result r = cuDeviceGetAttribute(major, NY_CU_MAJOR, device);
  return r ? r : cuDeviceGetAttribute(minor, NY_CU_MINOR, device);
}

ny_cu_result cuDeviceTotalMem_v2(size_t *bytes, ny_cu_device device) {
  NEED_DEVICE(device);
  if (!bytes) return DRV_INVALID_VALUE;
  *bytes = (size_t)drv_memory_of(device);
  return DRV_SUCCESS;
}

ny_cu_result cuDeviceGetUuid_v2(unsigned char *uuid, ny_cu_device device) {
  NEED_DEVICE(device);
  if (!uuid) return DRV_INVALID_VALUE;
  memset(uuid, 0, 16);
  snprintf((char *)uuid, 16, "nyb %.10s", profiles[profile_of(device)].name);
  return DRV_SUCCESS;
}

ny_cu_result cuDeviceGetPCIBusId(char *text, int room, ny_cu_device device) {
  NEED_DEVICE(device);
  if (!text || room < 13) return DRV_INVALID_VALUE;
  snprintf(text, (size_t)room, "0000:%02x:00.0", device + 1);
  return DRV_SUCCESS;
}

ny_cu_result cuDeviceCanAccessPeer(int *can, ny_cu_device device, ny_cu_device peer) {
  NEED_DEVICE(device);
  NEED_DEVICE(peer);
  if (!can) return DRV_INVALID_VALUE;
  *can = 0;
  return DRV_SUCCESS;
}

/* ---- contexts */
/* What lives in a context ends with it. What a program should have freed itself is counted as leaked. */
static void end_context(ny_cu_context cx) {
  uint64_t before = drv_total.objects;
  void *p;
  drv_flush();
  while ((p = drv_object_of(cx, DRV_EXEC))) drv_exec_delete(p);
  while ((p = drv_object_of(cx, DRV_GRAPH))) drv_graph_delete(p);
  while ((p = drv_object_of(cx, DRV_MODULE))) drv_module_delete(p);
  while ((p = drv_object_of(cx, DRV_EVENT))) drv_object_free(p);
  while ((p = drv_object_of(cx, DRV_STREAM))) drv_object_free(p);
  drv_total.leaked += before - drv_total.objects;
  drv_memory_end(cx);
  drv_object_free(cx);
}

static ny_cu_context new_context(int device, bool is_primary, unsigned flags) {
  ny_cu_context cx = drv_object_new(sizeof *cx, DRV_CONTEXT, NULL);
  cx->device = device;
  cx->primary = is_primary;
  cx->flags = flags;
  return cx;
}

ny_cu_result cuDevicePrimaryCtxRetain(ny_cu_context *context, ny_cu_device device) {
  DRV_HOLD;
  NEED_DEVICE(device);
  if (!context) return DRV_INVALID_VALUE;
  if (!primary[device]) primary[device] = new_context(device, true, primary_flags[device]);
  primary[device]->uses++;
  *context = primary[device];
  return DRV_SUCCESS;
}

static void end_primary(int device) {
  ny_cu_context cx = primary[device];
  primary[device] = NULL;
  end_context(cx);
}

ny_cu_result cuDevicePrimaryCtxRelease_v2(ny_cu_device device) {
  DRV_HOLD;
  NEED_DEVICE(device);
  if (!primary[device]) return DRV_INVALID_CONTEXT;
  if (--primary[device]->uses == 0) end_primary(device);
  return DRV_SUCCESS;
}

ny_cu_result cuDevicePrimaryCtxReset_v2(ny_cu_device device) {
  DRV_HOLD;
  NEED_DEVICE(device);
  if (primary[device]) end_primary(device);
  return DRV_SUCCESS;
}

ny_cu_result cuDevicePrimaryCtxGetState(ny_cu_device device, unsigned *flags, int *active) {
  DRV_HOLD;
  NEED_DEVICE(device);
  if (!flags || !active) return DRV_INVALID_VALUE;
  *flags = primary_flags[device];
  *active = primary[device] != NULL;
  return DRV_SUCCESS;
}

ny_cu_result cuDevicePrimaryCtxSetFlags_v2(ny_cu_device device, unsigned flags) {
  DRV_HOLD;
  NEED_DEVICE(device);
  primary_flags[device] = flags;
  return DRV_SUCCESS;
}

ny_cu_result cuCtxCreate_v2(ny_cu_context *out, unsigned flags, ny_cu_device device) {
  DRV_HOLD;
  NEED_DEVICE(device);
  if (!out) return DRV_INVALID_VALUE;
  *out = new_context(device, false, flags);
  return cuCtxPushCurrent_v2(*out);
}

ny_cu_result cuCtxDestroy_v2(ny_cu_context context) {
  DRV_HOLD;
  if (!drv_is(context, DRV_CONTEXT) || context->primary) return DRV_INVALID_CONTEXT;
  if (*drv_current() == context) cuCtxPopCurrent_v2(NULL);
  end_context(context);
  return DRV_SUCCESS;
}

/* Each thread has a stack of contexts, of which the top is current. */
enum { MAX_STACK = 64 };
static _Thread_local ny_cu_context below[MAX_STACK];
static _Thread_local int n_below;

ny_cu_result cuCtxSetCurrent(ny_cu_context context) {
  DRV_HOLD;
  if (!drv_started) return DRV_NOT_INITIALIZED;
  if (context && !drv_is(context, DRV_CONTEXT)) return DRV_INVALID_CONTEXT;
  *drv_current() = context;
  return DRV_SUCCESS;
}

ny_cu_result cuCtxGetCurrent(ny_cu_context *out) {
  DRV_HOLD;
  if (!drv_started) return DRV_NOT_INITIALIZED;
  if (!out) return DRV_INVALID_VALUE;
  *out = *drv_current();
  return DRV_SUCCESS;
}

ny_cu_result cuCtxPushCurrent_v2(ny_cu_context context) {
  DRV_HOLD;
  if (!drv_is(context, DRV_CONTEXT) || n_below == MAX_STACK) return DRV_INVALID_CONTEXT;
  below[n_below++] = *drv_current();
  *drv_current() = context;
  return DRV_SUCCESS;
}

ny_cu_result cuCtxPopCurrent_v2(ny_cu_context *out) {
  DRV_HOLD;
  ny_cu_context *top = drv_current();
  if (!*top) return DRV_INVALID_CONTEXT;
  if (out) *out = *top;
  *top = n_below ? below[--n_below] : NULL;
  return DRV_SUCCESS;
}

ny_cu_result cuCtxGetDevice(ny_cu_device *out) {
  DRV_ENTER;
  if (!out) return DRV_INVALID_VALUE;
  *out = cx->device;
  return DRV_SUCCESS;
}

ny_cu_result cuCtxGetFlags(unsigned *flags) {
  DRV_ENTER;
  if (!flags) return DRV_INVALID_VALUE;
  *flags = cx->flags;
  return DRV_SUCCESS;
}

ny_cu_result cuCtxGetApiVersion(ny_cu_context context, unsigned *version) {
  DRV_HOLD;
  if (!version || (context && !drv_is(context, DRV_CONTEXT))) return DRV_INVALID_VALUE;
  *version = 3020;
  return DRV_SUCCESS;
}

ny_cu_result cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  DRV_ENTER;
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return DRV_SUCCESS;
}

ny_cu_result cuCtxGetLimit(size_t *value, int limit) {
  static const size_t usual[] = {1024, 1 << 20, 8 << 20, 2, 2048, 128};
  DRV_ENTER;
  if (!value || limit < 0 || limit >= (int)NY_COUNT(usual)) return DRV_INVALID_VALUE;
  *value = usual[limit];
  return DRV_SUCCESS;
}

ny_cu_result cuCtxSetLimit(int limit, size_t value) {
  (void)value;
  DRV_ENTER;
  return limit < 0 || limit > 16 ? DRV_INVALID_VALUE : DRV_SUCCESS;
}

ny_cu_result cuCtxSetCacheConfig(int config) {
  (void)config;
  DRV_ENTER;
  return DRV_SUCCESS;
}
