/* The host's side of emulate.h. Buffers that launches share are written once, with their guards, so that a stray store
 * is still seen. */
#include "emulate.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef EMULATE_DRIVER
#define EMULATE_DRIVER ""
#define EMULATE_PROGRAM ""
#endif
enum { PAGE = 4096 };

bool emulate_available(void) { return EMULATE_DRIVER[0] && !access(EMULATE_DRIVER, X_OK); }

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Where the guarded block that holds p lies in the data. */
static int64_t place(const exec *x, const int64_t *at, const void *p) {
  for (size_t g = 0; g < x->n_guard; g++) {
    const uint8_t *b = x->guard[g].base, *q = p;
    if (q >= b && q < b + x->guard[g].bytes + 512) return at[g] + (q - b);
  }
  return -1;
}

static nyb_status write_job(exec *x, const ny_image *im, const int64_t *at, int64_t data, const char *path) {
  ny_diag *d = &x->unit->cx->diag;
  ny_arena a = {0};
  emulate_head h = {.n_step = (int64_t)x->n_step, .step_at = sizeof h};
  int64_t words = 0, scratch = 0;
  for (size_t i = 0; i < x->n_step; i++) words += (int64_t)x->step[i].n_buffer + 64;
  for (size_t k = 0; k < im->n; k++) scratch = (int64_t)im->scratch[k] > scratch ? (int64_t)im->scratch[k] : scratch;
  int64_t table = (int64_t)(sizeof h + x->n_step * sizeof(emulate_step));
  h.image_at = round_up(table + words * 8, PAGE), h.image_bytes = round_up((int64_t)im->bytes, PAGE);
  h.data_at = h.image_at + h.image_bytes, h.data_bytes = round_up(data + scratch, PAGE);
  size_t bytes = (size_t)(h.data_at + h.data_bytes);
  uint8_t *f = ny_alloc(&a, bytes);
  memcpy(f, &h, sizeof h);
  emulate_step *step = (void *)(f + h.step_at);
  int64_t *next = (void *)(f + table);
  for (size_t i = 0; i < x->n_step; i++) {
    const exec_step *s = &x->step[i];
    size_t k = 0;
    while (k < x->n_kernel && x->kernel[k] != s->kernel) k++;
    ny_name *symbol;
    size_t n_symbol;
    ny_kernel_symbols(s->kernel, &a, &symbol, &n_symbol);
    step[i] = (emulate_step){.entry = (int64_t)im->entry[k], .extent = s->extent, .n_buffer = (int64_t)s->n_buffer};
    step[i].scratch = im->scratch[k] ? data : -1;
    step[i].buffer_at = (uint8_t *)next - f;
    for (size_t b = 0; b < s->n_buffer; b++) *next++ = place(x, at, s->buffer[b]);
    step[i].dim_at = (uint8_t *)next - f;
    for (size_t b = 0; b < n_symbol && b < 64; b++) *next++ = s->dim[b];
  }
  memcpy(f + h.image_at, im->data, im->bytes);
  for (size_t g = 0; g < x->n_guard; g++) memcpy(f + h.data_at + at[g], x->guard[g].base, x->guard[g].bytes + 512);
  FILE *out = fopen(path, "wb");
  bool ok = out && fwrite(f, 1, bytes, out) == bytes;
  if (out && fclose(out)) ok = false;
  ny_arena_free(&a);
  return ok ? NYB_OK : ny_fail(d, NYB_E_IO, NULL, "%s cannot be written", path);
}

static nyb_status read_back(exec *x, const int64_t *at, const char *path) {
  ny_diag *d = &x->unit->cx->diag;
  ny_map m;
  NY_TRY(ny_map_open(path, &m, d));
  emulate_head h;
  memcpy(&h, m.data, sizeof h);
  for (size_t g = 0; g < x->n_guard; g++) memcpy(x->guard[g].base, m.data + h.data_at + at[g], x->guard[g].bytes + 512);
  ny_map_close(&m);
  return NYB_OK;
}

nyb_status emulate_run(exec *x, const ny_target *target) {
  ny_diag *d = &x->unit->cx->diag;
  const ny_codegen *cg;
  ny_image im;
  NY_TRY(ny_codegen_open(&cg, d));
  ny_codegen_request r = {.kernel = x->kernel, .n = x->n_kernel, .target = target, .opt = 2, .threads = 2};
  NY_TRY(cg->compile(&r, &im, d));
  int64_t *at = NY_NEW_ARRAY(&x->arena, int64_t, x->n_guard + 1), data = 0;
  for (size_t g = 0; g < x->n_guard; g++) { /* buffers begin 256 bytes in, and keep their alignment */
    at[g] = data;
    data = round_up(data + (int64_t)x->guard[g].bytes + 512, 64);
  }
  char path[] = "/tmp/nybble-emulate-XXXXXX";
  int fd = mkstemp(path);
  if (fd < 0) return ny_fail(d, NYB_E_IO, NULL, "no temporary file");
  close(fd);
  nyb_status s = write_job(x, &im, at, data, path);
  char command[512];
  snprintf(command, sizeof command, "%s %s %s", EMULATE_PROGRAM, EMULATE_DRIVER, path);
  int rc = s ? 0 : system(command);
  if (!s && rc) s = ny_fail(d, NYB_E_DEVICE, NULL, "the emulated kernels of %s end with status %d", target->name, rc);
  if (!s) s = read_back(x, at, path);
  unlink(path);
  ny_image_free(&im);
  return s;
}
