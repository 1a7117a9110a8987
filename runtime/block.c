/* What a session keeps, wherever it runs. Growing takes the new block before it gives the old one back: a failure
   leaves the session as it was. */
#include "block.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

void ny_block_free(ny_block_of_memory *b) {
  switch ((ny_block_kind)b->kind) {
  case NY_BLOCK_HOST:
    if (b->p) munmap(b->p, (size_t)b->mapped);
    break;
  case NY_BLOCK_DEVICE: ny_device_free(b->device, b->p); break;
  case NY_BLOCK_PINNED: ny_device_host_free(b->device, b->p); break;
  }
  *b = (ny_block_of_memory){.kind = b->kind, .device = b->device};
}

static nyb_status host_pages(uint64_t bytes, const char *what, void **out, ny_diag *d) {
  void *p = bytes > SIZE_MAX ? MAP_FAILED
                             : mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for %llu bytes of %s: %s", (unsigned long long)bytes, what,
                   strerror(errno));
  if (bytes >= 4 << 20) madvise(p, (size_t)bytes, MADV_HUGEPAGE);
  *out = p;
  return NYB_OK;
}

nyb_status ny_block_grow(ny_block_of_memory *b, uint64_t bytes, const char *what, ny_diag *d) {
  if (bytes <= b->mapped) {
    if (bytes > b->bytes) b->bytes = bytes;
    return NYB_OK;
  }
  uint64_t rounded = (bytes + 4095) & ~(uint64_t)4095;
  void *p = NULL;
  if (rounded < bytes) rounded = UINT64_MAX;
  switch ((ny_block_kind)b->kind) {
  case NY_BLOCK_HOST: NY_TRY(host_pages(rounded, what, &p, d)); break;
  case NY_BLOCK_DEVICE: NY_TRY(ny_device_alloc(b->device, rounded, what, &p, d)); break;
  case NY_BLOCK_PINNED: NY_TRY(ny_device_host_alloc(b->device, rounded, what, &p, d)); break;
  }
  ny_block_free(b);
  b->p = p;
  b->bytes = bytes;
  b->mapped = rounded;
  return NYB_OK;
}
