/* Allocations: pages of their own between pages nobody may touch, so that a copy or a host function that runs over an
   end is stopped as a kernel is. Device memory starts as ones, which are NaN in every float format, so that a value
   nobody wrote shows. Memory of the device is out of the host's reach while nothing is running. */
#include "driver.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, FILL_LIMIT = 256 << 20 };

static drv_memory *memory; /* by address */
static size_t n_memory, cap_memory;
static bool closed; /* device memory is out of reach */

/* ---- the table */
static size_t after(uint64_t p) {
  size_t lo = 0, n = n_memory;
  while (lo < n) {
    size_t mid = lo + (n - lo) / 2;
    if (memory[mid].at <= p)
      lo = mid + 1;
    else
      n = mid;
  }
  return lo;
}

const drv_memory *drv_memory_find(uint64_t p) {
  size_t i = after(p);
  return i && p - memory[i - 1].at < memory[i - 1].bytes ? &memory[i - 1] : NULL;
}

bool drv_memory_holds(uint64_t p, uint64_t bytes) {
  const drv_memory *m = drv_memory_find(p);
  return m && bytes <= m->bytes - (p - m->at);
}

bool drv_memory_at(size_t i, drv_memory *out) {
  if (i >= n_memory) return false;
  *out = memory[i];
  return true;
}

static void insert(drv_memory m) {
  if (n_memory == cap_memory) {
    cap_memory = cap_memory ? 2 * cap_memory : 64;
    memory = drv_need(realloc(memory, cap_memory * sizeof *memory));
  }
  size_t i = after(m.at);
  memmove(memory + i + 1, memory + i, (n_memory - i) * sizeof *memory);
  memory[i] = m;
  n_memory++;
  if (m.kind != DRV_DEVICE_MEMORY && m.kind != DRV_MANAGED_MEMORY) return;
  drv_total.allocated += m.bytes;
  if (drv_total.allocated > drv_total.most_allocated) drv_total.most_allocated = drv_total.allocated;
}

static void drop(size_t i) {
  drv_memory m = memory[i];
  memmove(memory + i, memory + i + 1, (n_memory - i - 1) * sizeof *memory);
  n_memory--;
  if (m.kind == DRV_DEVICE_MEMORY || m.kind == DRV_MANAGED_MEMORY) drv_total.allocated -= m.bytes;
  if (m.kind != DRV_REGISTERED_MEMORY) munmap((void *)(uintptr_t)(m.at - PAGE), m.mapped);
}

void drv_memory_end(ny_cu_context cx) {
  for (size_t i = n_memory; i-- > 0;) {
    if (memory[i].context != cx) continue;
    drv_total.leaked++;
    drop(i);
  }
}

/* ---- reach */
static void reach(int protection) {
  for (size_t i = 0; i < n_memory; i++)
    if (memory[i].kind == DRV_DEVICE_MEMORY)
      mprotect((void *)(uintptr_t)memory[i].at, memory[i].mapped - 2 * PAGE, protection);
}

void drv_memory_open(void) {
  if (closed) reach(PROT_READ | PROT_WRITE);
  closed = false;
}

void drv_memory_close(void) {
  if (closed || !drv_opt.protect) return;
  reach(PROT_NONE);
  closed = true;
}

/* ---- allocation */
static uint64_t used_by(int device) {
  uint64_t n = 0;
  for (size_t i = 0; i < n_memory; i++)
    if (memory[i].kind == DRV_DEVICE_MEMORY && memory[i].context->device == device) n += memory[i].bytes;
  return n;
}

static ny_cu_result allocate(ny_cu_context cx, uint64_t bytes, drv_memory_kind kind, unsigned flags, uint64_t *out) {
  uint64_t total = drv_memory_of(cx->device);
  if (!out || !bytes) return DRV_INVALID_VALUE;
  if (drv_capture_forbids(cx)) return DRV_STREAM_CAPTURE_UNSUPPORTED;
  if (bytes > total || (kind == DRV_DEVICE_MEMORY && used_by(cx->device) > total - bytes)) return DRV_OUT_OF_MEMORY;
  uint64_t pages = (bytes + PAGE - 1) & ~(uint64_t)(PAGE - 1), mapped = pages + 2 * PAGE;
  char *p = mmap(NULL, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return DRV_OUT_OF_MEMORY;
  mprotect(p + PAGE, pages, PROT_READ | PROT_WRITE);
  if (kind == DRV_DEVICE_MEMORY && bytes <= FILL_LIMIT) memset(p + PAGE, 0xff, bytes);
  if (kind == DRV_DEVICE_MEMORY && closed) mprotect(p + PAGE, pages, PROT_NONE);
  *out = (uint64_t)(uintptr_t)p + PAGE;
  insert((drv_memory){*out, bytes, mapped, kind, cx, flags});
  return DRV_SUCCESS;
}

static ny_cu_result release(ny_cu_context cx, uint64_t p, bool host) {
  if (!p) return DRV_SUCCESS;
  if (drv_capture_forbids(cx)) return DRV_STREAM_CAPTURE_UNSUPPORTED;
  ny_cu_result r = drv_flush(); /* the driver waits for what still uses it */
  const drv_memory *m = drv_memory_find(p);
  bool of_host = m && m->kind == DRV_HOST_MEMORY;
  if (!m || m->at != p || of_host != host || m->kind == DRV_REGISTERED_MEMORY) return DRV_INVALID_VALUE;
  drop((size_t)(m - memory));
  return r;
}

ny_cu_result cuMemAlloc_v2(ny_cu_address *out, size_t bytes) {
  DRV_ENTER;
  return allocate(cx, bytes, DRV_DEVICE_MEMORY, 0, out);
}

ny_cu_result cuMemAllocManaged(ny_cu_address *out, size_t bytes, unsigned flags) {
  DRV_ENTER;
  if (flags != 1 && flags != 2) return DRV_INVALID_VALUE; /* attach: global, host */
  return allocate(cx, bytes, DRV_MANAGED_MEMORY, flags, out);
}

ny_cu_result cuMemAllocAsync(ny_cu_address *out, size_t bytes, ny_cu_stream stream) {
  DRV_ENTER;
  if (!drv_stream_ok(stream)) return DRV_INVALID_HANDLE;
  if (drv_capturing(stream)) return DRV_NOT_SUPPORTED;
  return allocate(cx, bytes, DRV_DEVICE_MEMORY, 0, out);
}

ny_cu_result cuMemFreeAsync(ny_cu_address p, ny_cu_stream stream) {
  DRV_ENTER;
  if (!drv_stream_ok(stream)) return DRV_INVALID_HANDLE;
  if (drv_capturing(stream)) return DRV_NOT_SUPPORTED;
  return release(cx, p, false);
}

ny_cu_result cuMemFree_v2(ny_cu_address p) {
  DRV_ENTER;
  return release(cx, p, false);
}

ny_cu_result cuMemHostAlloc(void **out, size_t bytes, unsigned flags) {
  uint64_t at = 0;
  DRV_ENTER;
  if (!out || flags > 7) return DRV_INVALID_VALUE;
  ny_cu_result r = allocate(cx, bytes, DRV_HOST_MEMORY, flags, &at);
  *out = (void *)(uintptr_t)at;
  return r;
}

ny_cu_result cuMemAllocHost_v2(void **out, size_t bytes) { return cuMemHostAlloc(out, bytes, 0); }

ny_cu_result cuMemFreeHost(void *p) {
  DRV_ENTER;
  return release(cx, (uint64_t)(uintptr_t)p, true);
}

ny_cu_result cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags) {
  DRV_ENTER;
  uint64_t at = (uint64_t)(uintptr_t)p;
  if (!p || !bytes || at + bytes < at || flags > 15) return DRV_INVALID_VALUE;
  size_t i = after(at);
  if ((i && at - memory[i - 1].at < memory[i - 1].bytes) || (i < n_memory && memory[i].at - at < bytes))
    return DRV_HOST_MEMORY_ALREADY_REGISTERED;
  insert((drv_memory){at, bytes, 0, DRV_REGISTERED_MEMORY, cx, flags});
  return DRV_SUCCESS;
}

ny_cu_result cuMemHostUnregister(void *p) {
  DRV_ENTER;
  ny_cu_result r = drv_flush();
  const drv_memory *m = drv_memory_find((uint64_t)(uintptr_t)p);
  if (!m || m->kind != DRV_REGISTERED_MEMORY || m->at != (uint64_t)(uintptr_t)p) return DRV_HOST_MEMORY_NOT_REGISTERED;
  drop((size_t)(m - memory));
  return r;
}

/* ---- questions */
ny_cu_result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  DRV_ENTER;
  if (!free_bytes || !total) return DRV_INVALID_VALUE;
  *total = (size_t)drv_memory_of(cx->device);
  *free_bytes = *total - (size_t)used_by(cx->device);
  return DRV_SUCCESS;
}

ny_cu_result cuMemHostGetDevicePointer_v2(ny_cu_address *out, void *p, unsigned flags) {
  DRV_ENTER;
  const drv_memory *m = drv_memory_find((uint64_t)(uintptr_t)p);
  if (!out || flags || !m || m->kind == DRV_DEVICE_MEMORY) return DRV_INVALID_VALUE;
  *out = (ny_cu_address)(uintptr_t)p;
  return DRV_SUCCESS;
}

ny_cu_result cuMemHostGetFlags(unsigned *flags, void *p) {
  DRV_ENTER;
  const drv_memory *m = drv_memory_find((uint64_t)(uintptr_t)p);
  if (!flags || !m || m->kind != DRV_HOST_MEMORY) return DRV_INVALID_VALUE;
  *flags = m->flags;
  return DRV_SUCCESS;
}

ny_cu_result cuMemGetAddressRange_v2(ny_cu_address *base, size_t *bytes, ny_cu_address p) {
  DRV_ENTER;
  const drv_memory *m = drv_memory_find(p);
  if (!m) return DRV_NOT_FOUND;
  if (base) *base = m->at;
  if (bytes) *bytes = (size_t)m->bytes;
  return DRV_SUCCESS;
}

ny_cu_result cuPointerGetAttribute(void *value, int attribute, ny_cu_address p) {
  DRV_ENTER;
  const drv_memory *m = drv_memory_find(p);
  if (!value || !m) return DRV_INVALID_VALUE;
  bool host = m->kind == DRV_HOST_MEMORY || m->kind == DRV_REGISTERED_MEMORY;
  uint64_t bytes = m->bytes, at = m->at;
  switch (attribute) {
  case 1: memcpy(value, &m->context, sizeof m->context); break;
  case 2: *(unsigned *)value = host ? 1 : 2; break;
  case 3: memcpy(value, &p, sizeof p); break;
  case 4:
    if (m->kind == DRV_DEVICE_MEMORY) return DRV_INVALID_VALUE;
    memcpy(value, &p, sizeof p);
    break;
  case 8: *(unsigned *)value = m->kind == DRV_MANAGED_MEMORY; break;
  case 9: *(int *)value = m->context->device; break;
  case 11: memcpy(value, &at, sizeof at); break;
  case 12: memcpy(value, &bytes, sizeof bytes); break;
  case 13: *(unsigned *)value = 1; break;
  default: return DRV_NOT_SUPPORTED;
  }
  return DRV_SUCCESS;
}

/* Advice changes nothing here, but it must be about managed memory, or about any on a device that follows any pointer.
 */
static ny_cu_result advised(ny_cu_context cx, uint64_t p, uint64_t bytes) {
  const drv_memory *m = drv_memory_find(p);
  if (!bytes || (m && !drv_memory_holds(p, bytes))) return DRV_INVALID_VALUE;
  bool any = drv_follows_any_pointer(cx->device);
  return m     ? m->kind == DRV_MANAGED_MEMORY || any ? DRV_SUCCESS : DRV_INVALID_VALUE
         : any ? DRV_SUCCESS
               : DRV_INVALID_VALUE;
}

ny_cu_result cuMemPrefetchAsync(ny_cu_address p, size_t bytes, ny_cu_device device, ny_cu_stream stream) {
  (void)device;
  DRV_ENTER;
  return drv_stream_ok(stream) ? advised(cx, p, bytes) : DRV_INVALID_HANDLE;
}
ny_cu_result cuMemPrefetchAsync_v2(ny_cu_address p, size_t bytes, int64_t where, unsigned flags, ny_cu_stream stream) {
  (void)where;
  DRV_ENTER;
  if (flags) return DRV_INVALID_VALUE;
  return drv_stream_ok(stream) ? advised(cx, p, bytes) : DRV_INVALID_HANDLE;
}
ny_cu_result cuMemAdvise(ny_cu_address p, size_t bytes, int advice, ny_cu_device device) {
  (void)advice;
  (void)device;
  DRV_ENTER;
  return advised(cx, p, bytes);
}
ny_cu_result cuMemAdvise_v2(ny_cu_address p, size_t bytes, int advice, int64_t where) {
  (void)advice;
  (void)where;
  DRV_ENTER;
  return advised(cx, p, bytes);
}
