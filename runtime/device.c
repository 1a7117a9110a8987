/* Opens devices by name, reads what they can do, and decides from that how memory is used. The decision follows the
   attributes a driver reports, never the name of a product: "unified" memory alone does not say that any pointer works
   on both sides. */
#include "cuda_device.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static ny_device *devices;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- names */
typedef int profile_fn(const char *profile);

static nyb_status bad_name(const char *name, ny_diag *d) {
  return ny_fail(d, NYB_E_ARGUMENT, NULL, "no device is called \"%.64s\": cpu, cuda, cuda:N, sim, sim:PROFILE", name);
}

/* The ordinal a name stands for. */
static nyb_status parse(const char *name, const ny_cuda *cu, int *ordinal, ny_diag *d) {
  const char *colon = strchr(name, ':');
  *ordinal = 0;
  if (cu->simulated) {
    profile_fn *find = NULL;
    *(void **)&find = ny_cuda_symbol(cu, "nyb_cudasim_device");
    *ordinal = find ? find(colon ? colon + 1 : "") : colon ? -1 : 0;
    if (*ordinal >= 0) return NYB_OK;
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "the simulator has no profile \"%.64s\"", colon ? colon + 1 : "");
  }
  if (!colon) return NYB_OK;
  char *end;
  long n = strtol(colon + 1, &end, 10);
  if (!colon[1] || *end || n < 0 || n > 1023) return bad_name(name, d);
  *ordinal = (int)n;
  return NYB_OK;
}

static bool starts(const char *name, const char *kind) {
  size_t n = strlen(kind);
  return !strncmp(name, kind, n) && (!name[n] || name[n] == ':');
}

/* ---- facts */
static int attribute(const ny_cuda *cu, ny_cu_device device, int which) {
  int value = 0;
  return cu->device_attribute(&value, which, device) ? -1 : value;
}

int ny_device_attribute(const ny_device *dev, int which) { return attribute(dev->cu, dev->device, which); }

void *ny_device_symbol(const ny_device *dev, const char *name) { return ny_cuda_symbol(dev->cu, name); }

static void decide(ny_device_facts *f) {
  f->mapped = f->integrated;
  f->direct = f->integrated && f->pageable && f->host_page_tables;
  f->policy = f->direct   ? "inputs are read and results written where the host has them: the device shares the host's "
                            "memory and follows its page tables; weights and activations are device allocations"
              : f->mapped ? "inputs and results pass through pinned host memory that kernels use in place: the device "
                            "shares the host's memory, but does not follow its page tables; weights and activations "
                            "are device allocations"
                          : "inputs and results are copied: the device has memory of its own";
}

static void read_facts(const ny_cuda *cu, ny_cu_device device, int ordinal, ny_device_facts *f) {
  if (cu->device_name(f->name, (int)sizeof f->name, device)) snprintf(f->name, sizeof f->name, "CUDA device");
  f->id = (nyb_device_id){2, ordinal}; /* kDLCUDA */
  int major = attribute(cu, device, NY_CU_MAJOR), minor = attribute(cu, device, NY_CU_MINOR);
  f->sm = major > 0 && minor >= 0 ? (uint32_t)(major * 10 + minor) : 0;
  f->processors = attribute(cu, device, NY_CU_PROCESSORS);
  int l2 = attribute(cu, device, NY_CU_L2), shared = attribute(cu, device, NY_CU_SHARED_OPTIN);
  f->l2 = l2 > 0 ? (uint64_t)l2 : 0;
  f->shared = shared > 0 ? (uint64_t)shared : 48 << 10;
  f->simulated = cu->simulated;
  f->integrated = attribute(cu, device, NY_CU_INTEGRATED) > 0;
  f->pageable = attribute(cu, device, NY_CU_PAGEABLE) > 0;
  f->host_page_tables = attribute(cu, device, NY_CU_HOST_PAGE_TABLES) > 0;
  decide(f);
}

/* sim:gb10 for what was asked for as sim. */
static void spell(const ny_cuda *cu, int ordinal, char out[32]) {
  const char *(*profile)(int) = NULL;
  if (cu->simulated) *(void **)&profile = ny_cuda_symbol(cu, "nyb_cudasim_profile");
  if (profile && profile(ordinal))
    snprintf(out, 32, "sim:%.20s", profile(ordinal));
  else
    snprintf(out, 32, "%s:%d", cu->simulated ? "sim" : "cuda", ordinal);
}

const ny_device_facts *ny_device_describe(const ny_device *dev) { return &dev->facts; }

ny_device_needs ny_device_wants(const ny_device *dev) {
  if (!dev) return (ny_device_needs){0};
  return (ny_device_needs){.sm = dev->facts.sm,
                           .cubin = !dev->facts.simulated,
                           .ptx = true,
                           .shared = dev->facts.shared,
                           .name = dev->facts.name};
}

/* ---- opening */
static nyb_status open_new(const ny_cuda *cu, int ordinal, ny_device **out, ny_diag *d) {
  int n = 0;
  NY_CU_TRY(cu, d, device_count(&n), "the CUDA driver cannot count its devices");
  if (ordinal >= n) return ny_fail(d, NYB_E_DEVICE, NULL, "there is no CUDA device %d: the driver has %d", ordinal, n);
  ny_device *dev = calloc(1, sizeof *dev);
  if (!dev) return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for a device");
  dev->cu = cu;
  ny_cu_result r = cu->device_get(&dev->device, ordinal);
  if (!r) r = cu->context_retain(&dev->context, dev->device);
  if (r) {
    free(dev);
    return ny_cuda_fail(cu, r, d, "CUDA device %d does not open", ordinal);
  }
  read_facts(cu, dev->device, ordinal, &dev->facts);
  spell(cu, ordinal, dev->facts.spelled);
  if (cu->simulated) *(void **)&dev->expect = ny_cuda_symbol(cu, "nyb_cudasim_expect");
  dev->uses = 1;
  dev->next = devices;
  devices = dev;
  *out = dev;
  return NYB_OK;
}

nyb_status ny_device_open(const char *name, ny_device **out, ny_diag *d) {
  *out = NULL;
  if (!name || !*name || !strcmp(name, "cpu")) return NYB_OK;
  bool simulated = starts(name, "sim");
  if (!simulated && !starts(name, "cuda")) return bad_name(name, d);
  const ny_cuda *cu;
  int ordinal;
  NY_TRY(ny_cuda_open(simulated, &cu, d));
  NY_TRY(parse(name, cu, &ordinal, d));
  nyb_status s = NYB_OK;
  pthread_mutex_lock(&lock);
  ny_device *dev = devices;
  while (dev && (dev->cu != cu || dev->facts.id.id != ordinal)) dev = dev->next;
  if (dev)
    dev->uses++, *out = dev;
  else
    s = open_new(cu, ordinal, out, d);
  pthread_mutex_unlock(&lock);
  return s;
}

void ny_device_close(ny_device *dev) {
  if (!dev) return;
  pthread_mutex_lock(&lock);
  bool last = --dev->uses == 0;
  ny_device **at = &devices;
  while (last && *at != dev) at = &(*at)->next;
  if (last) *at = dev->next;
  pthread_mutex_unlock(&lock);
  if (!last) return;
  dev->cu->context_release(dev->device);
  free(dev);
}

nyb_status ny_device_enter(const ny_device *dev, ny_device_scope *s, ny_diag *d) {
  *s = (ny_device_scope){0};
  ny_cu_context now = NULL;
  NY_CU_TRY(dev->cu, d, context_now(&now), "the context of this thread");
  if (now == dev->context) return NYB_OK;
  NY_CU_TRY(dev->cu, d, context_use(dev->context), "the context of %s", dev->facts.name);
  *s = (ny_device_scope){dev->cu, now};
  return NYB_OK;
}

void ny_device_leave(ny_device_scope *s) {
  if (s->cu) s->cu->context_use(s->before);
  s->cu = NULL;
}

nyb_status ny_device_find(bool simulated, ny_device_list *out, ny_diag *d) {
  const ny_cuda *cu;
  *out = (ny_device_list){0};
  NY_TRY(ny_cuda_open(simulated, &cu, d));
  int n = 0;
  NY_CU_TRY(cu, d, device_count(&n), "the CUDA driver cannot count its devices");
  out->n = n < (int)NY_COUNT(out->spelled) ? n : (int)NY_COUNT(out->spelled);
  out->driver_version = cu->version;
  snprintf(out->library, sizeof out->library, "%s", cu->path);
  for (int i = 0; i < out->n; i++) spell(cu, i, out->spelled[i]);
  return NYB_OK;
}

/* ---- memory */
static uint64_t mem_available(void) {
  FILE *f = fopen("/proc/meminfo", "re");
  char line[128];
  unsigned long long kb = 0;
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "MemAvailable: %llu", &kb) == 1) break;
  if (f) fclose(f);
  return (uint64_t)kb << 10;
}

/* A device that shares the host's memory counts the page cache as used, although it gives way: the kernel's own number
   is the true one. */
nyb_status ny_device_room(ny_device *dev, uint64_t *free_bytes, const char **source, ny_diag *d) {
  size_t left = 0, total = 0;
  ny_device_scope scope;
  NY_TRY(ny_device_enter(dev, &scope, d));
  ny_cu_result r = dev->cu->memory_info(&left, &total);
  ny_device_leave(&scope);
  if (r) return ny_cuda_fail(dev->cu, r, d, "free memory of %s", dev->facts.name);
  *free_bytes = left;
  *source = "cuMemGetInfo";
  uint64_t host = dev->facts.integrated || dev->facts.simulated ? mem_available() : 0;
  if (host && (dev->facts.integrated || host < left)) *free_bytes = host, *source = "MemAvailable";
  return NYB_OK;
}

nyb_status ny_device_alloc(ny_device *dev, uint64_t bytes, const char *what, void **out, ny_diag *d) {
  uint64_t room;
  const char *source;
  NY_TRY(ny_device_room(dev, &room, &source, d));
  if (bytes > room)
    return ny_fail(d, NYB_E_NOMEM, NULL, "%s needs %llu MB on %s, %llu MB are free (%s)", what,
                   (unsigned long long)(bytes >> 20), dev->facts.name, (unsigned long long)(room >> 20), source);
  ny_cu_address at = 0;
  ny_device_scope scope;
  NY_TRY(ny_device_enter(dev, &scope, d));
  ny_cu_result r = dev->cu->alloc(&at, (size_t)(bytes ? bytes : 1));
  ny_device_leave(&scope);
  if (r)
    return ny_cuda_fail(dev->cu, r, d, "no memory for %llu bytes of %s on %s", (unsigned long long)bytes, what,
                        dev->facts.name);
  *out = (void *)(uintptr_t)at;
  return NYB_OK;
}

void ny_device_free(ny_device *dev, void *p) {
  ny_diag d = {0};
  ny_device_scope scope;
  if (!p || ny_device_enter(dev, &scope, &d)) return;
  dev->cu->free(ny_cu_at(p));
  ny_device_leave(&scope);
}

nyb_status ny_device_host_alloc(ny_device *dev, uint64_t bytes, const char *what, void **out, ny_diag *d) {
  ny_device_scope scope;
  NY_TRY(ny_device_enter(dev, &scope, d));
  ny_cu_result r = dev->cu->host_alloc(out, (size_t)(bytes ? bytes : 1), NY_CU_HOST_PORTABLE_MAPPED);
  ny_device_leave(&scope);
  return r ? ny_cuda_fail(dev->cu, r, d, "no memory for %llu bytes of %s beside %s", (unsigned long long)bytes, what,
                          dev->facts.name)
           : NYB_OK;
}

void ny_device_host_free(ny_device *dev, void *p) {
  ny_diag d = {0};
  ny_device_scope scope;
  if (!p || ny_device_enter(dev, &scope, &d)) return;
  dev->cu->host_free(p);
  ny_device_leave(&scope);
}
