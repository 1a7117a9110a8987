/* All kernels of a module: texts first (one thread, because the IR's context is shared), then units of a few kernels each, compiled by a pool of threads. What goes into
   a unit depends on the kernels alone, so the result does not depend on the number of threads. A unit's digest names it in the cache; a file there is checked against
   a digest of its own before it is believed. */
#include "cuda_code.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { UNIT_KERNELS = 8, UNIT_BYTES = 12000, MAX_THREADS = 64, MAX_IMAGE = 1 << 28 };

/* Products and sums stay apart, as the formulas say and as the CPU's code has them: fused where it is written so, which mma is. */
static const char *const options[] = {"--fmad=false", "--std=c++17", "-lineinfo", "-diag-suppress=177,550"};

typedef struct unit {
  size_t turn; /* the unit that is compiled as this many-eth */
  ny_text source;
  char *name;
  ny_diag diag;
} unit;
typedef struct job {
  const ny_codegen_request *r;
  const char *arch;
  ny_cuda_code *out;
  unit *unit;
  atomic_size_t next, done;
  atomic_bool failed;
  pthread_mutex_t progress;
} job;

/* ---- the cache */
typedef struct header {
  char magic[8];
  uint64_t ptx, cubin;
  uint8_t digest[32]; /* of what follows */
} header;
static const char magic[8] = "NYCUDA1";

static const char *cache_path(ny_arena *a, const char *source, const char *arch) {
  const ny_nvrtc *n;
  ny_diag quiet = {0};
  ny_sha256 h;
  uint8_t digest[32];
  char hex[65];
  const char *dir = ny_cache_dir(a);
  if (!dir || ny_nvrtc_open(&n, &quiet)) return NULL;
  dir = ny_strf(a, "%s/cuda", dir);
  if (mkdir(dir, 0700) && errno != EEXIST) return NULL;
  ny_sha256_init(&h);
  const char *what = ny_strf(a, "nvrtc %d.%d %s", n->major, n->minor, arch);
  ny_sha256_add(&h, what, strlen(what) + 1);
  for (size_t i = 0; i < NY_COUNT(options); i++) ny_sha256_add(&h, options[i], strlen(options[i]) + 1);
  ny_sha256_add(&h, source, strlen(source));
  ny_sha256_end(&h, digest);
  ny_sha256_hex(digest, hex);
  return ny_strf(a, "%s/%s", dir, hex);
}

static void digest_of(const void *p, size_t n, uint8_t out[32]) {
  ny_sha256 h;
  ny_sha256_init(&h);
  ny_sha256_add(&h, p, n);
  ny_sha256_end(&h, out);
}

static void *duplicate(const void *p, size_t n) {
  char *q = malloc(n + 1);
  if (!q) abort();
  memcpy(q, p, n);
  q[n] = 0;
  return q;
}

static bool from_cache(ny_arena *a, const char *path, ny_cuda_image *out) {
  char *data;
  size_t n;
  header h;
  uint8_t digest[32];
  ny_diag quiet = {0};
  if (!path || ny_file_read(a, path, MAX_IMAGE, &data, &n, &quiet) || n < sizeof h) return false;
  memcpy(&h, data, sizeof h);
  if (memcmp(h.magic, magic, sizeof magic) || h.ptx > n || h.cubin > n || sizeof h + h.ptx + h.cubin != n) return false;
  digest_of(data + sizeof h, n - sizeof h, digest);
  if (memcmp(digest, h.digest, sizeof digest)) return false;
  out->ptx = duplicate(data + sizeof h, h.ptx);
  out->ptx_bytes = h.ptx;
  out->cubin = h.cubin ? duplicate(data + sizeof h + h.ptx, h.cubin) : NULL;
  out->cubin_bytes = h.cubin;
  return out->cached = true;
}

/* A cache that cannot be written costs time later and is no error. */
static void to_cache(ny_arena *a, const char *path, const ny_cuda_image *im) {
  header h = {.ptx = im->ptx_bytes, .cubin = im->cubin_bytes};
  ny_new_file f;
  ny_diag quiet = {0};
  if (!path || ny_file_begin(path, &f, &quiet)) return;
  char *all = ny_alloc(a, im->ptx_bytes + im->cubin_bytes + 1);
  memcpy(all, im->ptx, im->ptx_bytes);
  if (im->cubin) memcpy(all + im->ptx_bytes, im->cubin, im->cubin_bytes);
  memcpy(h.magic, magic, sizeof magic);
  digest_of(all, im->ptx_bytes + im->cubin_bytes, h.digest);
  fwrite(&h, sizeof h, 1, f.f);
  fwrite(all, 1, im->ptx_bytes + im->cubin_bytes, f.f);
  ny_file_commit(&f, &quiet);
}

nyb_status ny_cuda_compile_source(const char *source, const char *name, const char *arch, ny_cuda_image *out, ny_diag *d) {
  ny_arena a = {0};
  double start = ny_now();
  *out = (ny_cuda_image){.source = duplicate(source, strlen(source)), .source_bytes = strlen(source)};
  const char *path = cache_path(&a, source, arch);
  nyb_status s = NYB_OK;
  if (!from_cache(&a, path, out)) {
    ny_nvrtc_result r;
    s = ny_nvrtc_compile(source, name, arch, options, (int)NY_COUNT(options), &r, d);
    if (!s) {
      out->ptx = r.ptx, out->ptx_bytes = r.ptx_bytes, r.ptx = NULL;
      out->cubin = r.cubin, out->cubin_bytes = r.cubin_bytes, r.cubin = NULL;
      to_cache(&a, path, out);
    }
    ny_nvrtc_free(&r);
  }
  out->seconds = ny_now() - start;
  ny_arena_free(&a);
  if (s) ny_cuda_image_free(out);
  return s;
}

/* ---- texts */
static nyb_status write_text(ny_arena *a, const char *dir, const char *name, const char *suffix, const char *p, size_t n, ny_diag *d) {
  char *safe = ny_strdup(a, name);
  for (char *c = safe; *c; c++)
    if (*c == '/' || *c == '\\') *c = '_';
  ny_new_file f;
  NY_TRY(ny_file_begin(ny_strf(a, "%s/%s.%s", dir, safe, suffix), &f, d));
  fwrite(p, 1, n, f.f);
  return ny_file_commit(&f, d);
}

static nyb_status dump(ny_arena *a, const ny_codegen_request *r, size_t k, uint32_t uses, const ny_text *body, ny_diag *d) {
  ny_text t = {0};
  ny_cuda_prelude(uses, &t);
  ny_text_addn(&t, body->s, body->n);
  nyb_status s = write_text(a, r->dump_dir, r->kernel[k]->name, "cu", t.s, t.n, d);
  ny_text_free(&t);
  return s;
}

typedef struct building { /* the unit at hand */
  ny_text body;
  uint32_t uses;
  size_t first, n;
} building;

static void close_unit(job *j, ny_arena *a, building *b) {
  if (!b->n) return;
  unit *u = &j->unit[j->out->n_image++];
  const char *symbol = j->out->kernel[b->first].facts.symbol;
  u->name = b->n > 1 ? ny_strf(a, "%s_and_%zu_more.cu", symbol, b->n - 1) : ny_strf(a, "%s.cu", symbol);
  ny_cuda_prelude(b->uses, &u->source);
  ny_text_addn(&u->source, b->body.s, b->body.n);
  ny_text_free(&b->body);
  *b = (building){.first = b->first + b->n};
}

static bool name_taken(const job *j, const building *b, size_t k) {
  for (size_t i = b->first; i < k; i++)
    if (!strcmp(j->out->kernel[i].facts.symbol, j->out->kernel[k].facts.symbol)) return true;
  return false;
}

static const ny_codegen_pin *pin_of(const ny_codegen_request *r, const ny_graph *k) {
  for (size_t i = 0; i < r->n_pin; i++)
    if (k->name && !strcmp(r->pin[i].kernel, k->name)) return &r->pin[i];
  return NULL;
}

/* A unit of its own: its text is whole. */
static nyb_status add_pinned(job *j, ny_arena *a, building *b, size_t k, const ny_codegen_pin *pin, const char *generated, ny_diag *d) {
  ny_cuda_kernel *out = &j->out->kernel[k];
  NY_TRY(ny_cuda_pin_check(pin, generated, out->facts.symbol, d));
  close_unit(j, a, b);
  out->image = (uint32_t)j->out->n_image;
  out->pinned = true;
  out->facts.block = pin->block;
  out->facts.points = pin->points;
  out->facts.shared = pin->shared;
  unit *u = &j->unit[j->out->n_image++];
  u->name = ny_strf(a, "%s.cu", out->facts.symbol);
  ny_text_add(&u->source, pin->source);
  b->first = k + 1;
  return NYB_OK;
}

static nyb_status check_pins(const job *j, ny_diag *d) {
  const ny_codegen_request *r = j->r;
  for (size_t i = 0; i < r->n_pin; i++) {
    bool found = false;
    for (size_t k = 0; k < r->n; k++) found |= pin_of(r, r->kernel[k]) == &r->pin[i];
    for (size_t k = 0; k < r->n && !found; k++)
      for (const ny_op *op = r->kernel[k]->body.first; op; op = op->next)
        if (op->kind == NY_call && !strcmp(op->attr[NY_AT(call, kernel)].s, r->pin[i].kernel))
          return ny_fail(d, NYB_E_ARGUMENT, NULL, "for %s kernel %s is part of %s: edit that one, or compile with --off merge", r->target->name, r->pin[i].kernel, r->kernel[k]->name);
    if (!found)
      return ny_fail(d, NYB_E_ARGUMENT, NULL, "for %s the model has no kernel %s (another target, other sizes or another version of nybble named it so)",
                     r->target->name, r->pin[i].kernel);
  }
  return NYB_OK;
}

static nyb_status texts(job *j, ny_arena *a, ny_diag *d) {
  const ny_codegen_request *r = j->r;
  building b = {.n = 0};
  nyb_status s = NYB_OK;
  for (size_t k = 0; k < r->n && !s; k++) {
    ny_text body = {0};
    uint32_t uses = 0;
    s = ny_cuda_body(r->kernel[k], r->target, &body, &uses, &j->out->kernel[k].facts, d);
    if (!s && r->dump_dir) s = dump(a, r, k, uses, &body, d);
    const ny_codegen_pin *pin = pin_of(r, r->kernel[k]);
    if (!s && pin) {
      s = add_pinned(j, a, &b, k, pin, body.s, d);
      ny_text_free(&body);
      continue;
    }
    if (!s && (b.n == UNIT_KERNELS || (b.n && b.body.n + body.n > UNIT_BYTES) || name_taken(j, &b, k))) close_unit(j, a, &b);
    if (!s) {
      ny_text_addn(&b.body, body.s, body.n);
      b.uses |= uses;
      b.n++;
      j->out->kernel[k].image = (uint32_t)j->out->n_image;
    }
    ny_text_free(&body);
  }
  if (!s) close_unit(j, a, &b);
  ny_text_free(&b.body);
  return s;
}

/* ---- threads */
static void *work(void *user) {
  job *j = user;
  for (size_t turn; (turn = atomic_fetch_add(&j->next, 1)) < j->out->n_image;) {
    if (atomic_load(&j->failed)) break;
    size_t i = j->unit[turn].turn;
    unit *u = &j->unit[i];
    if (ny_cuda_compile_source(u->source.s, u->name, j->arch, &j->out->image[i], &u->diag)) atomic_store(&j->failed, true);
    size_t done = atomic_fetch_add(&j->done, 1) + 1;
    if (!j->r->progress) continue;
    pthread_mutex_lock(&j->progress);
    j->r->progress(j->r->user, "code", (double)done / (double)j->out->n_image);
    pthread_mutex_unlock(&j->progress);
  }
  return NULL;
}

/* Long ones first, so that none is waited for at the end. */
static void order(const job *j) {
  for (size_t i = 0; i < j->out->n_image; i++) {
    size_t at = i;
    for (; at > 0 && j->unit[j->unit[at - 1].turn].source.n < j->unit[i].source.n; at--) j->unit[at].turn = j->unit[at - 1].turn;
    j->unit[at].turn = i;
  }
}

static void run(job *j) {
  pthread_t thread[MAX_THREADS];
  int want = j->r->threads, n = 0;
  order(j);
  if (want < 1) {
    ny_host_facts h;
    ny_host_read(&h);
    want = h.n_cpu;
  }
  if (want > MAX_THREADS) want = MAX_THREADS;
  if ((size_t)want > j->out->n_image) want = (int)j->out->n_image;
  for (; n < want - 1; n++)
    if (pthread_create(&thread[n], NULL, work, j)) break;
  work(j);
  while (n > 0) pthread_join(thread[--n], NULL);
}

static nyb_status dump_ptx(const job *j, ny_arena *a, ny_diag *d) {
  for (size_t k = 0; k < j->out->n; k++) {
    const ny_cuda_image *im = &j->out->image[j->out->kernel[k].image];
    NY_TRY(write_text(a, j->r->dump_dir, j->r->kernel[k]->name, "ptx", im->ptx, im->ptx_bytes, d));
  }
  return NYB_OK;
}

/* The file the failing line can be seen in. */
static nyb_status report(const job *j, ny_diag *d) {
  for (size_t i = 0; i < j->out->n_image; i++)
    if (j->unit[i].diag.code) {
      *d = j->unit[i].diag;
      return d->code;
    }
  return NYB_OK;
}

nyb_status ny_cuda_compile(const ny_codegen_request *r, ny_cuda_code *out, ny_diag *d) {
  *out = (ny_cuda_code){.n = r->n};
  ny_arena a = {0};
  job j = {.r = r, .arch = r->target->cpu, .out = out, .progress = PTHREAD_MUTEX_INITIALIZER};
  const ny_nvrtc *n;
  nyb_status s = r->n ? ny_nvrtc_open(&n, d) : NYB_OK;
  if (!s && r->n && !ny_nvrtc_supports(r->target->sm))
    s = ny_fail(d, NYB_E_TARGET, NULL, "NVRTC %d.%d (%s) makes no code for %s: a newer one does", n->major, n->minor, n->path, r->target->name);
  out->kernel = calloc(r->n + 1, sizeof *out->kernel);
  out->image = calloc(r->n + 1, sizeof *out->image);
  j.unit = NY_NEW_ARRAY(&a, unit, r->n + 1);
  if (!out->kernel || !out->image) s = ny_fail(d, NYB_E_NOMEM, NULL, "no memory for %zu kernels", r->n);
  if (!s) s = check_pins(&j, d);
  if (!s) s = texts(&j, &a, d);
  if (!s) {
    run(&j);
    s = report(&j, d);
  }
  if (!s && r->dump_dir) s = dump_ptx(&j, &a, d);
  for (size_t i = 0; i < out->n_image; i++) {
    out->n_cached += out->image[i].cached;
    ny_text_free(&j.unit[i].source);
  }
  ny_arena_free(&a);
  if (s) ny_cuda_code_free(out);
  return s;
}

void ny_cuda_image_free(ny_cuda_image *im) {
  free(im->source);
  free(im->ptx);
  free(im->cubin);
  *im = (ny_cuda_image){0};
}

void ny_cuda_code_free(ny_cuda_code *c) {
  for (size_t i = 0; c->image && i < c->n_image; i++) ny_cuda_image_free(&c->image[i]);
  free(c->image);
  free(c->kernel);
  *c = (ny_cuda_code){0};
}
