/* The emulated machine's side of emulate.h: freestanding, AArch64 Linux system calls only. Grids are run in two uneven
 * ranges. */
#include "nybble/kernel.h"

typedef struct head {
  int64_t image_at, image_bytes, data_at, data_bytes, step_at, n_step;
} head;
typedef struct step {
  int64_t entry, extent, buffer_at, n_buffer, dim_at, scratch;
} step;
enum { OPENAT = 56, EXIT = 93, MMAP = 222 };

static int64_t call(int64_t n, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f) {
  register int64_t x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
                      x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}

static uint8_t *map(int64_t fd, int64_t bytes, int64_t prot, int64_t flags, int64_t at) {
  return (uint8_t *)call(MMAP, 0, bytes, prot, flags, fd, at);
}

__attribute__((used)) static void run(int64_t *stack) {
  int64_t fd = call(OPENAT, -100, stack[2], 2, 0, 0, 0);
  if (fd < 0) call(EXIT, 2, 0, 0, 0, 0, 0);
  uint8_t *file = map(fd, 4096, 1, 2, 0);
  head h = *(head *)file;
  file = map(fd, h.image_at, 1, 2, 0);
  uint8_t *image = map(fd, h.image_bytes, 1 | 4, 2, h.image_at), *data = map(fd, h.data_bytes, 1 | 2, 1, h.data_at);
  for (int64_t i = 0; i < h.n_step; i++) {
    const step *s = (const step *)(file + h.step_at) + i;
    const int64_t *at = (const int64_t *)(file + s->buffer_at);
    void *buffer[256];
    for (int64_t b = 0; b < s->n_buffer; b++) buffer[b] = data + at[b];
    nyb_dispatch d = {.buffer = buffer,
                      .dim = (const int64_t *)(file + s->dim_at),
                      .scratch = s->scratch < 0 ? 0 : data + s->scratch};
    nyb_kernel_fn *k = (nyb_kernel_fn *)(image + s->entry);
    k(&d, 0, s->extent / 3);
    k(&d, s->extent / 3, s->extent);
  }
  call(EXIT, 0, 0, 0, 0, 0, 0);
}

__attribute__((naked, noreturn)) void _start(void) { __asm__("mov x0, sp\n\tb run"); }
