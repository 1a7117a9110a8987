/* The ABI between a compiled CPU kernel and the runtime. Includes nothing of ours, so a hand-written kernel can be built
   against it alone. */
#ifndef NYBBLE_KERNEL_H
#define NYBBLE_KERNEL_H
#include <stdint.h>

#define NYB_KERNEL_ABI 1

/* One cache line. Pointers are valid for the duration of the call.
   buffer: one pointer per kernel parameter, in declaration order: inputs, then outputs. At least element-aligned; arena
   and weight buffers 64-byte aligned.
   dim:    values of the kernel's symbols, in the order the kernel lists them.
   scratch: memory of this thread only, of the size the kernel declares, 64-byte aligned; NULL if it declares none. */
typedef struct nyb_dispatch {
  void *const *buffer;
  const int64_t *dim;
  void *scratch;
  int64_t thread;
  int64_t reserved[4];
} nyb_dispatch;

/* Computes grid points [begin, end) of the kernel's flattened grid. Calls nothing, allocates nothing, keeps nothing. */
typedef void nyb_kernel_fn(const nyb_dispatch *d, int64_t begin, int64_t end);
#endif
