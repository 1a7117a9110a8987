/* A module on a device: the selected image of every unit is loaded, entries are looked up once, and the weights that
   this program uses are uploaded once. They are read into two pinned buffers in turn instead of through the map: on
   machines where device and host share memory, pages of the file would otherwise stay beside the copy. */
#include "cuda_device.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 8 << 20, LOG_BYTES = 1 << 14, WEIGHT_ALIGN = 256, PLAIN_SHARED = 48 << 10 };

/* ---- code */
/* What does not load is described by the driver's log. */
static nyb_status load_bytes(ny_program *p, uint32_t unit, const void *image, const char *what, ny_diag *d) {
  char *log = calloc(1, LOG_BYTES);
  if (!log) return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for an image");
  int option[] = {NY_CU_JIT_ERROR_LOG, NY_CU_JIT_ERROR_LOG_BYTES};
  void *value[] = {log, (void *)(uintptr_t)LOG_BYTES};
  ny_cu_result r = p->dev->cu->module_load(&p->unit[unit], image, 2, option, value);
  size_t n = strcspn(log, "\n");
  nyb_status s = r ? ny_cuda_fail(p->dev->cu, r, d, "%s does not load on %s%s%.*s", what, p->dev->facts.name,
                                  n ? ": " : "", (int)(n < 600 ? n : 600), log)
                   : NYB_OK;
  free(log);
  return s;
}

/* What is compared with its digest is what is loaded: the file may change under the map. */
static bool right(const char *copy, const ny_mod_segment *s) {
  ny_sha256 h;
  uint8_t got[32];
  ny_sha256_init(&h);
  ny_sha256_add(&h, copy, (size_t)s->bytes);
  ny_sha256_end(&h, got);
  return !memcmp(got, s->digest, sizeof got);
}

/* The driver wants PTX to end with a NUL, which a segment of the file need not have. */
static nyb_status load_image(ny_program *p, nyb_module *m, const ny_mod_image *im, ny_diag *d) {
  static const char *const kind[] = {"cubin", "PTX", "source"};
  char what[80];
  if (im->kind == NY_MI_SOURCE)
    return ny_fail(d, NYB_E_TARGET, NULL, "unit %u is there as source only, which must be compiled first", im->unit);
  char *copy = malloc((size_t)im->code.bytes + 1);
  if (!copy) return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for an image");
  memcpy(copy, m->map.data + im->code.offset, (size_t)im->code.bytes);
  copy[im->code.bytes] = 0;
  if (!right(copy, &im->code)) {
    free(copy);
    return ny_fail(d, NYB_E_PARSE, NULL, "image %u does not match its digest", (uint32_t)(im - m->mod.image));
  }
  snprintf(what, sizeof what, "unit %u (%s %.40s)", im->unit, kind[im->kind], im->arch);
  nyb_status s = load_bytes(p, im->unit, copy, what, d);
  free(copy);
  return s;
}

static nyb_status find_kernel(ny_program *p, const ny_mod_kernel *k, ny_device_kernel *out, ny_diag *d) {
  const ny_cuda *cu = p->dev->cu;
  const char *name = k->symbol ? k->symbol : k->name;
  int most = 0;
  *out = (ny_device_kernel){.row = k};
  NY_CU_TRY(cu, d, module_function(&out->function, p->unit[k->unit], name), "kernel %.100s", name);
  if (k->shared > p->dev->facts.shared)
    return ny_fail(d, NYB_E_TARGET, NULL, "kernel %.100s needs %u bytes of shared memory a block, %s has %llu", name,
                   k->shared, p->dev->facts.name, (unsigned long long)p->dev->facts.shared);
  if (k->shared > PLAIN_SHARED)
    NY_CU_TRY(cu, d, function_set(out->function, NY_CU_FUNCTION_MAX_DYNAMIC_SHARED, (int)k->shared),
              "%u bytes of shared memory for kernel %.100s", k->shared, name);
  NY_CU_TRY(cu, d, function_get(&most, NY_CU_FUNCTION_MAX_THREADS, out->function), "kernel %.100s", name);
  if (k->block > (uint32_t)most)
    return ny_fail(d, NYB_E_TARGET, NULL, "kernel %.100s wants blocks of %u threads, %s runs it with at most %d", name,
                   k->block, p->dev->facts.name, most);
  uint32_t args = k->n_buffers + k->n_dims + 1;
  if (args > p->most_args) p->most_args = args;
  return NYB_OK;
}

static void make_rows(ny_program *p, uint32_t n_units, uint32_t n_kernels) {
  p->n_units = n_units;
  p->n_kernels = n_kernels;
  p->unit = NY_NEW_ARRAY(&p->rows, ny_cu_module, n_units);
  p->kernel = NY_NEW_ARRAY(&p->rows, ny_device_kernel, n_kernels);
}

static nyb_status load_code(ny_program *p, nyb_module *m, ny_diag *d) {
  const ny_mod *q = &m->mod;
  make_rows(p, q->n_units, q->n_kernels);
  for (uint32_t u = 0; u < q->n_units; u++) NY_TRY(load_image(p, m, &q->image[m->image[u]], d));
  for (uint32_t i = 0; i < q->n_kernels; i++) NY_TRY(find_kernel(p, &q->kernel[i], &p->kernel[i], d));
  return NYB_OK;
}

/* ---- weights */
static nyb_status read_piece(const nyb_module *m, void *to, uint64_t bytes, uint64_t at, ny_diag *d) {
  for (uint64_t done = 0; done < bytes;) {
    ssize_t n = pread(m->map.fd, (char *)to + done, (size_t)(bytes - done), (off_t)(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return ny_fail(d, NYB_E_IO, NULL, "cannot read weights: %s", n ? strerror(errno) : "the file became shorter");
    done += (uint64_t)n;
  }
  return NYB_OK;
}

typedef struct upload {
  ny_program *p;
  const nyb_module *m;
  ny_cu_stream stream;
  char *pinned[2];
  int turn;
} upload;

static nyb_status upload_segment(upload *u, uint32_t i, ny_diag *d) {
  const ny_cuda *cu = u->p->dev->cu;
  const ny_mod_segment *s = &u->m->mod.segment[i];
  ny_cu_address to = ny_cu_at(u->p->weights) + u->p->offset[i];
  for (uint64_t at = 0; at < s->bytes; at += PIECE, u->turn ^= 1) {
    uint64_t n = s->bytes - at < PIECE ? s->bytes - at : PIECE;
    char *pinned = u->pinned[u->turn];
    NY_TRY(read_piece(u->m, pinned, n, s->offset + at, d));
    NY_CU_TRY(cu, d, stream_wait(u->stream), "uploading weights"); /* of the other buffer */
    NY_CU_TRY(cu, d, upload(to + at, pinned, (size_t)n, u->stream), "uploading weights");
  }
  return NYB_OK;
}

static nyb_status upload_all(upload *u, ny_diag *d) {
  const ny_mod *q = &u->m->mod;
  const ny_cuda *cu = u->p->dev->cu;
  for (int k = 0; k < 2; k++) NY_TRY(ny_device_host_alloc(u->p->dev, PIECE, "buffers", (void **)&u->pinned[k], d));
  NY_CU_TRY(cu, d, stream_new(&u->stream, NY_CU_STREAM_NON_BLOCKING), "a stream for weights");
  for (uint32_t i = 0; i < q->n_segments; i++)
    if (u->p->wanted[i]) NY_TRY(upload_segment(u, i, d));
  NY_CU_TRY(cu, d, stream_wait(u->stream), "uploading weights");
  for (uint32_t i = 0; u->p->dev->facts.integrated && i < q->n_segments; i++)
    posix_fadvise(u->m->map.fd, (off_t)q->segment[i].offset, (off_t)q->segment[i].bytes, POSIX_FADV_DONTNEED);
  return NYB_OK;
}

static nyb_status load_weights(ny_program *p, nyb_module *m, ny_diag *d) {
  const ny_mod *q = &m->mod;
  uint64_t total = 0;
  p->offset = NY_NEW_ARRAY(&p->rows, uint64_t, q->n_segments);
  p->wanted = NY_NEW_ARRAY(&p->rows, bool, q->n_segments);
  for (uint32_t i = 0; i < q->n_buffers; i++)
    if (q->buffer[i].place == NY_MP_WEIGHT) p->wanted[q->buffer[i].index] = true;
  for (uint32_t i = 0; i < q->n_segments; i++) { /* each lies in the file, so the sum of 2^20 does not overflow */
    p->offset[i] = total;
    if (p->wanted[i]) total += (q->segment[i].bytes + WEIGHT_ALIGN - 1) & ~(uint64_t)(WEIGHT_ALIGN - 1);
  }
  p->weight_bytes = total;
  if (!total) return NYB_OK;
  NY_TRY(ny_device_alloc(p->dev, total, "weight memory", &p->weights, d));
  upload u = {.p = p, .m = m};
  nyb_status s = upload_all(&u, d);
  if (u.stream) p->dev->cu->stream_free(u.stream);
  for (int k = 0; k < 2; k++) ny_device_host_free(p->dev, u.pinned[k]);
  return s;
}

nyb_status ny_program_open(ny_device *dev, nyb_module *m, ny_program **out, ny_diag *d) {
  *out = NULL;
  ny_program *p = calloc(1, sizeof *p);
  if (!p) return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for a program");
  p->dev = dev;
  ny_device_scope scope;
  nyb_status s = ny_device_enter(dev, &scope, d);
  if (!s) s = load_code(p, m, d);
  if (!s) s = load_weights(p, m, d);
  ny_device_leave(&scope);
  if (s)
    ny_program_close(p);
  else
    *out = p;
  return s;
}

nyb_status ny_program_of_image(ny_device *dev, const void *image, const ny_mod_kernel *row, ny_program **out,
                               ny_diag *d) {
  *out = NULL;
  ny_program *p = calloc(1, sizeof *p);
  if (!p) return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for a program");
  p->dev = dev;
  make_rows(p, 1, 1);
  ny_device_scope scope;
  nyb_status s = ny_device_enter(dev, &scope, d);
  if (!s) s = load_bytes(p, 0, image, row->name, d);
  if (!s) s = find_kernel(p, row, &p->kernel[0], d);
  ny_device_leave(&scope);
  if (s)
    ny_program_close(p);
  else
    *out = p;
  return s;
}

void ny_program_close(ny_program *p) {
  if (!p) return;
  ny_diag d = {0};
  ny_device_scope scope;
  if (!ny_device_enter(p->dev, &scope, &d))
    for (uint32_t u = 0; u < p->n_units; u++)
      if (p->unit[u]) p->dev->cu->module_unload(p->unit[u]);
  ny_device_leave(&scope);
  ny_device_free(p->dev, p->weights);
  ny_arena_free(&p->rows);
  free(p);
}

void *ny_program_weights(const ny_program *p, uint32_t segment) { return (char *)p->weights + p->offset[segment]; }
uint64_t ny_program_weight_bytes(const ny_program *p) { return p->weight_bytes; }
