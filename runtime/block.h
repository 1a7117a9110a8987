/* Blocks of memory of a session: pages of the host, memory of a device, or host memory pinned for one. */
#ifndef NY_BLOCK_H
#define NY_BLOCK_H
#include "device.h"

typedef enum ny_block_kind { NY_BLOCK_HOST, NY_BLOCK_DEVICE, NY_BLOCK_PINNED } ny_block_kind;
typedef struct ny_block_of_memory { /* page-aligned, grows only by being replaced; what was in it is lost */
  void *p;
  uint64_t bytes; /* asked for: what fits must not depend on the size of a page */
  uint64_t mapped;
  ny_device *device; /* NULL: of the host */
  uint8_t kind;
} ny_block_of_memory;
nyb_status ny_block_grow(ny_block_of_memory *b, uint64_t bytes, const char *what, ny_diag *d);
void ny_block_free(ny_block_of_memory *b); /* its kind stays */
#endif
