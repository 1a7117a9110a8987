/* Copies and fills. The device side of each must lie in one allocation, whole; the host side must not be device memory.
   From ordinary host memory the driver copies at once into memory of its own, so the caller may change it: so do we. */
#include "driver.h"
#include <stdlib.h>
#include <string.h>

static bool is_device(uint64_t p) {
  const drv_memory *m = drv_memory_find(p);
  return m && (m->kind == DRV_DEVICE_MEMORY || m->kind == DRV_MANAGED_MEMORY);
}

/* Memory the driver knows: allocated by it, or registered. That kernels follow other pointers does not help a copy. */
static bool device_side(uint64_t p, uint64_t bytes) { return drv_memory_holds(p, bytes); }

static bool host_side(uint64_t p, uint64_t bytes) {
  const drv_memory *m = drv_memory_find(p);
  if (!m) return p != 0;
  return m->kind != DRV_DEVICE_MEMORY && drv_memory_holds(p, bytes);
}

static ny_cu_result bad_copy(const char *what, uint64_t to, uint64_t from, uint64_t bytes) {
  if (!drv_opt.quiet)
    fprintf(stderr, "libnyb_cudasim: error: %s of %llu bytes from 0x%llx to 0x%llx is not inside one allocation\n",
            what, (unsigned long long)bytes, (unsigned long long)from, (unsigned long long)to);
  return DRV_INVALID_VALUE;
}

static ny_cu_result copy(ny_cu_context cx, uint64_t to, uint64_t from, uint64_t bytes, ny_cu_stream stream) {
  bool pageable = !drv_memory_find(from), back = !drv_memory_find(to);
  ny_cu_node n = drv_node_new(DRV_COPY, cx);
  n->to = to;
  n->from = from;
  n->bytes = bytes;
  n->to_ours = !back;
  n->from_ours = !pageable;
  if (pageable && !drv_capturing(stream)) {
    n->staged = drv_need(malloc(bytes ? bytes : 1));
    memcpy(n->staged, (void *)(uintptr_t)from, bytes);
  }
  bool captured = drv_capturing(stream);
  ny_cu_result r = drv_submit(stream, n, cx);
  return r || !back || captured ? r : drv_flush(); /* into ordinary memory: done when the call returns */
}

static ny_cu_result upload(ny_cu_context cx, uint64_t to, const void *from, uint64_t bytes, ny_cu_stream stream) {
  uint64_t f = (uint64_t)(uintptr_t)from;
  if (!bytes) return DRV_SUCCESS;
  if (!device_side(to, bytes) || !host_side(f, bytes)) return bad_copy("copy to the device", to, f, bytes);
  return copy(cx, to, f, bytes, stream);
}
static ny_cu_result download(ny_cu_context cx, void *to, uint64_t from, uint64_t bytes, ny_cu_stream stream) {
  uint64_t t = (uint64_t)(uintptr_t)to;
  if (!bytes) return DRV_SUCCESS;
  if (!device_side(from, bytes) || !host_side(t, bytes)) return bad_copy("copy from the device", t, from, bytes);
  return copy(cx, t, from, bytes, stream);
}
static ny_cu_result inside(ny_cu_context cx, uint64_t to, uint64_t from, uint64_t bytes, ny_cu_stream stream) {
  if (!bytes) return DRV_SUCCESS;
  if (!device_side(to, bytes) || !device_side(from, bytes)) return bad_copy("copy on the device", to, from, bytes);
  bool apart = to + bytes <= from || from + bytes <= to;
  if (!apart) return bad_copy("overlapping copy", to, from, bytes);
  return copy(cx, to, from, bytes, stream);
}
static ny_cu_result anywhere(ny_cu_context cx, uint64_t to, uint64_t from, uint64_t bytes, ny_cu_stream stream) {
  if (is_device(to))
    return is_device(from) ? inside(cx, to, from, bytes, stream)
                           : upload(cx, to, (void *)(uintptr_t)from, bytes, stream);
  if (is_device(from)) return download(cx, (void *)(uintptr_t)to, from, bytes, stream);
  if (!host_side(to, bytes) || !host_side(from, bytes)) return bad_copy("copy", to, from, bytes);
  return copy(cx, to, from, bytes, stream);
}

static ny_cu_result fill(ny_cu_context cx, uint64_t to, unsigned value, unsigned width, uint64_t n,
                         ny_cu_stream stream) {
  if (!n) return DRV_SUCCESS;
  if (to % width || n > UINT64_MAX / width) return DRV_INVALID_VALUE;
  if (!device_side(to, n * width)) return bad_copy("fill", to, to, n * width);
  ny_cu_node node = drv_node_new(DRV_FILL, cx);
  node->to = to;
  node->to_ours = true;
  node->value = value;
  node->width = width;
  node->bytes = n * width;
  return drv_submit(stream, node, cx);
}

/* On a stream: STREAM(call). At once: NOW(call). */
#define STREAM(call)                                                                                                   \
  DRV_ENTER;                                                                                                           \
  if (!drv_stream_ok(stream)) return DRV_INVALID_HANDLE;                                                               \
  return call
#define NOW(call)                                                                                                      \
  DRV_ENTER;                                                                                                           \
  if (drv_capture_forbids(cx)) return DRV_STREAM_CAPTURE_UNSUPPORTED;                                                  \
  ny_cu_stream stream = NULL;                                                                                          \
  ny_cu_result r_ = call;                                                                                              \
  if (!r_) r_ = drv_flush();                                                                                           \
  drv_memory_close();                                                                                                  \
  return r_

ny_cu_result cuMemcpyHtoDAsync_v2(ny_cu_address to, const void *from, size_t bytes, ny_cu_stream stream) {
  STREAM(upload(cx, to, from, bytes, stream));
}
ny_cu_result cuMemcpyDtoHAsync_v2(void *to, ny_cu_address from, size_t bytes, ny_cu_stream stream) {
  STREAM(download(cx, to, from, bytes, stream));
}
ny_cu_result cuMemcpyDtoDAsync_v2(ny_cu_address to, ny_cu_address from, size_t bytes, ny_cu_stream stream) {
  STREAM(inside(cx, to, from, bytes, stream));
}
ny_cu_result cuMemcpyAsync(ny_cu_address to, ny_cu_address from, size_t bytes, ny_cu_stream stream) {
  STREAM(anywhere(cx, to, from, bytes, stream));
}
ny_cu_result cuMemcpyHtoD_v2(ny_cu_address to, const void *from, size_t bytes) {
  NOW(upload(cx, to, from, bytes, stream));
}
ny_cu_result cuMemcpyDtoH_v2(void *to, ny_cu_address from, size_t bytes) { NOW(download(cx, to, from, bytes, stream)); }
ny_cu_result cuMemcpyDtoD_v2(ny_cu_address to, ny_cu_address from, size_t bytes) {
  NOW(inside(cx, to, from, bytes, stream));
}
ny_cu_result cuMemcpy(ny_cu_address to, ny_cu_address from, size_t bytes) {
  NOW(anywhere(cx, to, from, bytes, stream));
}
ny_cu_result cuMemsetD8Async(ny_cu_address to, unsigned char value, size_t n, ny_cu_stream stream) {
  STREAM(fill(cx, to, value, 1, n, stream));
}
ny_cu_result cuMemsetD16Async(ny_cu_address to, unsigned short value, size_t n, ny_cu_stream stream) {
  STREAM(fill(cx, to, value, 2, n, stream));
}
ny_cu_result cuMemsetD32Async(ny_cu_address to, unsigned value, size_t n, ny_cu_stream stream) {
  STREAM(fill(cx, to, value, 4, n, stream));
}
ny_cu_result cuMemsetD8_v2(ny_cu_address to, unsigned char value, size_t n) { NOW(fill(cx, to, value, 1, n, stream)); }
ny_cu_result cuMemsetD16_v2(ny_cu_address to, unsigned short value, size_t n) {
  NOW(fill(cx, to, value, 2, n, stream));
}
ny_cu_result cuMemsetD32_v2(ny_cu_address to, unsigned value, size_t n) { NOW(fill(cx, to, value, 4, n, stream)); }
