/* Memory of the device from outside of nybble: the driver that the library has opened, in the primary context, which is
   where other libraries of a process have their tensors too. */
#include "cts.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static struct {
  void *library;
  int ordinal, device;
  void *context;
  int (*device_get)(int *, int);
  int (*retain)(void **, int);
  int (*release)(int);
  int (*use)(void *);
  int (*alloc)(uint64_t *, size_t);
  int (*free)(uint64_t);
  int (*upload)(uint64_t, const void *, size_t);
  int (*download)(void *, uint64_t, size_t);
  int (*info)(size_t *, size_t *);
} driver;
static const struct {
  const char *symbol;
  void *at;
} symbols[] = {
    {"cuDeviceGet", &driver.device_get},
    {"cuDevicePrimaryCtxRetain", &driver.retain},
    {"cuDevicePrimaryCtxRelease_v2", &driver.release},
    {"cuCtxSetCurrent", &driver.use},
    {"cuMemAlloc_v2", &driver.alloc},
    {"cuMemFree_v2", &driver.free},
    {"cuMemcpyHtoD_v2", &driver.upload},
    {"cuMemcpyDtoH_v2", &driver.download},
    {"cuMemGetInfo_v2", &driver.info},
};
/* What libnyb_cudasim.so counts; the order is its header's. */
typedef struct totals {
  uint64_t launches, findings, copies, copied_bytes, fills, graph_launches, captures, exec_updates, allocated,
      most_allocated, objects, leaked;
} totals;

bool cts_driver_simulated(void) { return !strncmp(cts_device, "sim", 3); }

static int ordinal(void) {
  const char *colon = strchr(cts_device, ':');
  int (*find)(const char *) = NULL;
  if (!cts_driver_simulated()) return colon ? atoi(colon + 1) : 0;
  *(void **)&find = dlsym(driver.library, "nyb_cudasim_device");
  return find ? find(colon ? colon + 1 : "") : -1;
}

static bool open_driver(void) {
  driver.library = dlopen(cts_driver_simulated() ? "libnyb_cudasim.so" : "libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (!CHECK(driver.library, "the driver is not loaded: %s", dlerror())) return false;
  for (size_t i = 0; i < COUNT(symbols); i++) {
    void *f = dlsym(driver.library, symbols[i].symbol);
    if (!CHECK(f, "no %s", symbols[i].symbol)) return false;
    memcpy(symbols[i].at, &f, sizeof f);
  }
  driver.ordinal = ordinal();
  return CHECK(!driver.device_get(&driver.device, driver.ordinal) && !driver.retain(&driver.context, driver.device),
               "%s does not open", cts_device);
}

bool cts_driver_open(nyb_device_id *id) {
  if (cts_on_cpu()) return false;
  if (!driver.context && !open_driver()) return false;
  *id = (nyb_device_id){2, driver.ordinal};
  return CHECK(!driver.use(driver.context), "a context");
}

void cts_driver_close(void) {
  if (driver.context) driver.release(driver.device);
  driver.context = NULL;
}

void *cts_driver_alloc(size_t bytes) {
  uint64_t p = 0;
  CHECK(!driver.alloc(&p, bytes), "no %zu bytes on the device", bytes);
  return (void *)(uintptr_t)p;
}
void cts_driver_free(void *p) { CHECK(!driver.free((uintptr_t)p), "free"); }
void cts_driver_upload(void *to, const void *from, size_t bytes) {
  CHECK(!driver.upload((uintptr_t)to, from, bytes), "upload");
}
void cts_driver_download(void *to, const void *from, size_t bytes) {
  CHECK(!driver.download(to, (uintptr_t)from, bytes), "download");
}

static totals count(void) {
  totals t = {0};
  void (*f)(totals *) = NULL;
  if (driver.library) *(void **)&f = dlsym(driver.library, "nyb_cudasim_count");
  if (f) f(&t);
  return t;
}

uint64_t cts_driver_used(void) {
  size_t left = 0, total = 0;
  if (cts_driver_simulated()) return count().allocated;
  CHECK(!driver.info(&left, &total), "free memory");
  return total - left;
}
uint64_t cts_driver_objects(void) { return count().objects + count().leaked; }
