/* Runs compiled kernels of another machine under its user-mode emulator: a job file holds the image and every buffer, a
   freestanding driver for that machine (emulate_driver.c) maps it, runs the launches in order and leaves the results in
   the file. */
#ifndef NY_EMULATE_H
#define NY_EMULATE_H
#include "exec.h"

/* The file, in 64-bit words: this header, then steps, then tables; image and data lie page-aligned behind. Offsets are
   from the start of the file, those of buffers from the start of the data. */
typedef struct emulate_head {
  int64_t image_at, image_bytes, data_at, data_bytes, step_at, n_step;
} emulate_head;
typedef struct emulate_step {
  int64_t entry, extent, buffer_at, n_buffer, dim_at, scratch; /* scratch: offset in the data, or -1 */
} emulate_step;

bool emulate_available(void);
/* x: opened without a target (its buffers laid out, nothing run). Compiles for `target`, runs every launch, and copies
 * the buffers back. */
nyb_status emulate_run(exec *x, const ny_target *target);
#endif
