/* The runtime from a file to results: a hand-made module is written, refused, trusted, run at many sizes and damaged
 * byte by byte. */
#include "module_fixture.h"
#include "plan.h"
#include "test.h"
#include <dlpack/dlpack.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A nyb_tensor may be cast to a DLTensor and back. */
#define SAME_FIELD(ours, theirs)                                                                                       \
  _Static_assert(offsetof(nyb_tensor, ours) == offsetof(DLTensor, theirs) &&                                           \
                     sizeof((nyb_tensor *)0)->ours == sizeof((DLTensor *)0)->theirs,                                   \
                 #ours)
_Static_assert(sizeof(nyb_tensor) == sizeof(DLTensor), "size");
SAME_FIELD(data, data);
SAME_FIELD(ndim, ndim);
SAME_FIELD(dtype, dtype);
SAME_FIELD(shape, shape);
SAME_FIELD(strides, strides);
SAME_FIELD(byte_offset, byte_offset);
_Static_assert(offsetof(nyb_tensor, device) == offsetof(DLTensor, device) && sizeof(nyb_device_id) == sizeof(DLDevice),
               "device");
_Static_assert((int)NYB_INT == (int)kDLInt && (int)NYB_UINT == (int)kDLUInt && (int)NYB_FLOAT == (int)kDLFloat &&
                   (int)NYB_BFLOAT == (int)kDLBfloat && kDLCPU == 1,
               "codes");

static char folder[64] = "/tmp/nybble-runtime-XXXXXX", path[128];

static bool says(const nyb_context *cx, const char *part) {
  const nyb_error *e = nyb_last_error(cx);
  return e && strstr(e->message, part);
}

/* ---- running */
typedef struct call {
  nyb_tensor in[FX_N_IN], out[FX_N_OUT];
  int64_t n_a, n_b;
  float *a, *b;
  uint8_t flag;
} call;

static void call_free(call *c) {
  free(c->a);
  free(c->b);
}

static void call_make(call *c, int64_t n, uint8_t flag) {
  memset(c, 0, sizeof *c);
  c->n_a = c->n_b = n;
  c->flag = flag;
  c->a = calloc((size_t)n + 1, 4);
  c->b = calloc((size_t)n + 1, 4);
  for (int64_t i = 0; i < n; i++) c->a[i] = (float)(i % 1000), c->b[i] = (float)(i % 77) * 0.5f;
  nyb_dtype f32 = {NYB_FLOAT, 32, 1}, boolean = {NYB_BOOL, 8, 1};
  nyb_device_id cpu = {1, 0};
  c->in[FX_A] = (nyb_tensor){c->a, cpu, 1, f32, &c->n_a, NULL, 0};
  c->in[FX_B] = (nyb_tensor){c->b, cpu, 1, f32, &c->n_b, NULL, 0};
  c->in[FX_FLAG] = (nyb_tensor){&c->flag, cpu, 0, boolean, NULL, NULL, 0};
}

static nyb_status call_run(nyb_session *s, call *c) { return nyb_run(s, c->in, FX_N_IN, c->out, FX_N_OUT); }

static void call_check(const call *c) {
  int64_t n = c->n_a, bad = 0;
  const float *sum = c->out[FX_SUM].data, *twice = c->out[FX_TWICE].data, *chosen = c->out[FX_CHOSEN].data,
              *weight = c->out[FX_WEIGHT].data;
  const int64_t *count = c->out[FX_COUNT].data;
  for (int64_t i = 0; i < n; i++) {
    float want = c->a[i] + c->b[i];
    bad += sum[i] != want || twice[i] != want || twice[n + i] != want || count[i] != 3 + i ||
           chosen[i] != (c->flag ? c->a[i] : c->b[i]);
  }
  for (int i = 0; i < FX_WEIGHTS; i++) bad += weight[i] != 2 * (float)i;
  CHECK(!bad, "%lld of %lld elements are wrong", (long long)bad, (long long)n);
  CHECK(c->out[FX_TWICE].ndim == 1 && c->out[FX_TWICE].shape[0] == 2 * n && c->out[FX_COUNT].dtype.bits == 64,
        "shapes of results");
}

static void check_runs(nyb_context *cx, nyb_module *m) {
  static const int64_t sizes[] = {0, 1, 15, 16, 17, 1000, 65536, 300000};
  for (int threads = 1; threads <= 5; threads += 2) {
    nyb_dim most = {"N", 300000};
    nyb_session_options o = {
        .size = sizeof o, .threads = threads, .spin_us = threads == 3 ? -1 : 0, .dims = &most, .n_dims = 1};
    nyb_session *s;
    CHECK(!nyb_session_open(m, &o, &s), "%s", nyb_last_error(cx)->text);
    for (size_t i = 0; i < NY_COUNT(sizes); i++) {
      call c;
      call_make(&c, sizes[i], i % 2);
      CHECK(!call_run(s, &c), "%s", nyb_last_error(cx)->text);
      call_check(&c);
      struct mallinfo2 before = mallinfo2();
      CHECK(!call_run(s, &c), "tensors of the previous run");
      CHECK(mallinfo2().uordblks == before.uordblks, "a run must not allocate");
      call_check(&c);
      call_free(&c);
    }
    nyb_session_stats stats = {.size = sizeof stats};
    CHECK(!nyb_session_describe(s, &stats) && stats.threads == threads && stats.arena_bytes >= 300000 * 4 &&
              stats.scratch_bytes >= 4096,
          "stats");
    nyb_session_close(s);
  }
}

static void check_own_memory(nyb_context *cx, nyb_session *s) {
  call c;
  float sum[65];
  int64_t small = 10, room = 64;
  call_make(&c, 64, 1);
  c.out[FX_SUM] = (nyb_tensor){sum, {1, 0}, 1, {NYB_FLOAT, 32, 1}, &room, NULL, 4};
  CHECK(!call_run(s, &c) && c.out[FX_SUM].data == sum && sum[1 + 63] == c.a[63] + c.b[63],
        "the caller's memory is used");
  c.out[FX_SUM] = (nyb_tensor){sum, {1, 0}, 1, {NYB_FLOAT, 32, 1}, &small, NULL, 0};
  CHECK(call_run(s, &c) == NYB_E_SHAPE && says(cx, "needs 256 bytes, its tensor holds 40"), "too small an output");
  c.out[FX_SUM] = (nyb_tensor){sum, {1, 0}, 1, {NYB_INT, 32, 1}, &room, NULL, 0};
  CHECK(call_run(s, &c) == NYB_E_TYPE && says(cx, "\"sum\""), "output of another type");
  c.out[FX_SUM] = (nyb_tensor){(char *)sum + 1, {1, 0}, 0, {0, 0, 0}, NULL, NULL, 0};
  CHECK(call_run(s, &c) == NYB_E_ARGUMENT && says(cx, "not aligned"), "misaligned output");
  call_free(&c);
}

static void check_refusals(nyb_context *cx, nyb_module *m) {
  nyb_dim most = {"?N", 100}, unknown = {"M", 1}, negative = {"N", -1};
  nyb_session_options o = {.size = sizeof o, .threads = 2, .dims = &most, .n_dims = 1};
  nyb_session *s;
  CHECK(!nyb_session_open(m, &o, &s), "open");
  CHECK(nyb_session_prepare(s, &unknown, 1) == NYB_E_ARGUMENT && says(cx, "no dimension named M"), "unknown dimension");
  CHECK(nyb_session_prepare(s, &negative, 1) == NYB_E_ARGUMENT && says(cx, "-1"), "negative dimension");
  nyb_dim much = {"N", 400001};
  CHECK(nyb_session_prepare(s, &much, 1) == NYB_E_SHAPE && says(cx, "must be equal, here they are 400001 and 400000"),
        "%s", nyb_last_error(cx)->message);
  CHECK(!nyb_session_prepare(s, &most, 1), "back");
  check_own_memory(cx, s);
  call c;
  call_make(&c, 64, 1);
  CHECK(nyb_run(s, c.in, 2, c.out, FX_N_OUT) == NYB_E_ARGUMENT && says(cx, "takes 3 inputs"), "count of inputs");
  c.n_b = 63;
  CHECK(call_run(s, &c) == NYB_E_SHAPE && says(cx, "input \"b\": dimension 0 is 63, 64 is expected"), "%s",
        nyb_last_error(cx)->message);
  CHECK(says(cx, "?N is dimension 0 of input \"a\""), "%s", nyb_last_error(cx)->message);
  c.n_b = c.n_a = 50000;
  CHECK(call_run(s, &c) == NYB_E_SHAPE && says(cx, "prepare"), "beyond what was prepared");
  c.n_b = c.n_a = -5;
  CHECK(call_run(s, &c) == NYB_E_SHAPE && says(cx, "is -5"), "negative size");
  c.n_b = c.n_a = INT64_MAX / 2;
  CHECK(call_run(s, &c) == NYB_E_SHAPE, "overflowing size");
  c.n_b = c.n_a = 64;
  c.in[FX_A].dtype.bits = 64;
  CHECK(call_run(s, &c) == NYB_E_TYPE && says(cx, "input \"a\""), "type");
  c.in[FX_A].dtype.bits = 32;
  c.in[FX_A].ndim = 0;
  CHECK(call_run(s, &c) == NYB_E_SHAPE && says(cx, "0 dimensions, 1 are expected"), "rank");
  c.in[FX_A].ndim = 1;
  int64_t stride = 2;
  c.in[FX_A].strides = &stride;
  CHECK(call_run(s, &c) == NYB_E_ARGUMENT && says(cx, "strided"), "strides");
  stride = 1;
  CHECK(!call_run(s, &c), "dense strides");
  c.in[FX_A].device.type = 2;
  CHECK(call_run(s, &c) == NYB_E_DEVICE, "device");
  c.in[FX_A].device.type = 1;
  c.in[FX_A].data = (char *)c.a + 2;
  CHECK(call_run(s, &c) == NYB_E_ARGUMENT && says(cx, "not aligned"), "misaligned input");
  c.in[FX_A].data = NULL;
  CHECK(call_run(s, &c) == NYB_E_ARGUMENT && says(cx, "no data"), "missing input");
  c.in[FX_A].data = (char *)c.a - 4;
  c.in[FX_A].byte_offset = 4;
  CHECK(!call_run(s, &c), "byte offset, and a run after failures");
  call_check(&c);
  call_free(&c);
  nyb_dim larger = {"N", 50000};
  CHECK(!nyb_session_prepare(s, &larger, 1), "prepare");
  call_make(&c, 50000, 0);
  CHECK(!call_run(s, &c), "after prepare");
  call_check(&c);
  call_free(&c);
  nyb_session_close(s);
}

/* ---- sessions at once, in threads of their own; some runs fail, and report through the context they share */
static void *other_session(void *module) {
  nyb_dim most = {"N", 2000};
  nyb_session_options o = {.size = sizeof o, .threads = 2, .dims = &most, .n_dims = 1};
  nyb_session *s;
  intptr_t bad = nyb_session_open(module, &o, &s) != NYB_OK;
  for (int64_t i = 0; !bad && i < 300; i++) {
    call c;
    call_make(&c, 1 + i * 7 % 2000, (uint8_t)(i % 2));
    bad += call_run(s, &c) != NYB_OK ||
           ((float *)c.out[FX_SUM].data)[i * 7 % 2000] != c.a[i * 7 % 2000] + c.b[i * 7 % 2000];
    c.n_b++;
    bad += call_run(s, &c) != NYB_E_SHAPE;
    call_free(&c);
  }
  if (!bad) nyb_session_close(s);
  return (void *)bad;
}

static void check_concurrent(nyb_module *m) {
  pthread_t id[3];
  for (int i = 0; i < 3; i++) CHECK(!pthread_create(&id[i], NULL, other_session, m), "thread %d", i);
  for (int i = 0; i < 3; i++) {
    void *bad;
    pthread_join(id[i], &bad);
    CHECK(!bad, "session %d", i);
  }
}

/* ---- trust and targets */
static nyb_status load(nyb_context *cx, bool trust, nyb_module **out) {
  nyb_load_options o = {.size = sizeof o, .trust = trust};
  return nyb_load(cx, path, &o, out);
}

static void check_trust(nyb_context *cx, fx_module *f) {
  nyb_module *m;
  ny_diag d = {0};
  CHECK(load(cx, false, &m) == NYB_E_TRUST && !m, "a stranger's code");
  CHECK(nyb_last_error(cx)->code == NYB_E_TRUST && strstr(nyb_last_error(cx)->text, path), "%s",
        nyb_last_error(cx)->text);
  CHECK(!load(cx, true, &m), "on request");
  nyb_module_close(m);
  CHECK(!ny_trust_file(cx, path) && !load(cx, false, &m), "vouched for");
  nyb_module_close(m);
  f->expr[6].value = 192; /* the same code, another memory plan */
  f->m.arena = 6;
  CHECK(!fx_write(f, path, &d) && load(cx, false, &m) == NYB_E_TRUST, "trust covers the plan");
  fx_build(f);
  f->feature[0] = "no-such-feature";
  f->m.n_features = 1;
  CHECK(!fx_write(f, path, &d) && load(cx, true, &m) == NYB_E_TARGET && says(cx, "no-such-feature") &&
            says(cx, "test-target"),
        "features");
  fx_build(f);
  f->require[1].b = f->m.n_exprs;
  CHECK(!fx_write(f, path, &d) && load(cx, true, &m) == NYB_E_PARSE && says(cx, "requirement 1"), "requirements");
  fx_build(f);
  f->m.n_requires = 1;
  CHECK(!fx_write(f, path, &d) && load(cx, true, &m) == NYB_E_PARSE && says(cx, "requirement is 1"), "checks");
  fx_build(f);
  f->m.arch = "z80";
  CHECK(!fx_write(f, path, &d) && load(cx, true, &m) == NYB_E_TARGET && says(cx, "z80"), "architecture");
  fx_build(f);
  CHECK(!fx_write(f, path, &d), "%s", d.message);
}

static void check_info(const nyb_module *m) {
  nyb_module_info i = {.size = sizeof i};
  CHECK(!nyb_module_describe(m, &i) && i.n_inputs == 3 && i.n_outputs == 5 && i.n_kernels == 3 && i.n_symbols == 1,
        "counts");
  CHECK(!strcmp(i.inputs[0].name, "a") && i.inputs[0].shape[0] == -1 && !strcmp(i.inputs[0].symbols[0], "N") &&
            !strcmp(i.outputs[FX_TWICE].symbols[0], "?N*2"),
        "input");
  CHECK(i.outputs[FX_WEIGHT].shape[0] == FX_WEIGHTS && !i.outputs[FX_WEIGHT].symbols[0] && i.inputs[FX_FLAG].ndim == 0,
        "output");
  CHECK(i.weight_bytes == FX_WEIGHTS * 4 + 128 && !strcmp(i.target, "test-target") && !strcmp(i.symbols[0], "N"),
        "sizes");
}

/* ---- damage */
static uint8_t *read_file(size_t *n) {
  FILE *f = fopen(path, "rb");
  fseek(f, 0, SEEK_END);
  *n = (size_t)ftell(f);
  rewind(f);
  uint8_t *p = malloc(*n);
  CHECK(fread(p, 1, *n, f) == *n, "read back");
  fclose(f);
  return p;
}

static void write_bytes(const uint8_t *p, size_t n) {
  FILE *f = fopen(path, "wb");
  CHECK_EACH(fwrite(p, 1, n, f) == n, "write");
  fclose(f);
}

static void try_load(nyb_context *cx, size_t at) {
  nyb_module *m;
  nyb_status s = load(cx, true, &m);
  CHECK_EACH(s ? nyb_last_error(cx) != NULL : m != NULL, "byte %zu", at);
  if (!s) nyb_module_close(m);
}

/* Every byte of the description with several values: read (the digest is not in the way here) and planned at several
 * sizes. */
static void damage_description(const uint8_t *file, size_t n) {
  uint64_t at, bytes;
  memcpy(&at, file + 8, 8);
  memcpy(&bytes, file + 16, 8);
  uint64_t *fb = malloc((size_t)bytes + 8);
  static const int64_t sizes[] = {0, 1, 300, INT64_MAX};
  int survived = 0;
  for (uint64_t i = 0; i < bytes * 6; i++) {
    static const uint8_t flips[] = {1, 2, 4, 0x10, 0x80, 0xff};
    memcpy(fb, file + at, (size_t)bytes);
    ((uint8_t *)fb)[i / 6] ^= flips[i % 6];
    ny_arena a = {0};
    ny_diag d = {0};
    ny_mod *m = NULL;
    uint32_t n_programs;
    nyb_status s = ny_module_read(fb, at, bytes, n, &a, &m, &n_programs, &d);
    CHECK_EACH(!s || d.message[0], "byte %llu: an error without a message", (unsigned long long)(i / 6));
    for (size_t k = 0; !s && k < NY_COUNT(sizes); k++) {
      int64_t *sym = NY_NEW_ARRAY(&a, int64_t, m->n_symbols), *val = NY_NEW_ARRAY(&a, int64_t, m->n_exprs);
      for (uint32_t j = 0; j < m->n_symbols; j++) sym[j] = sizes[k];
      ny_diag_clear(&d);
      survived += !ny_plan_eval(m, sym, val, &d) && !ny_plan_check(m, val, &d);
    }
    ny_arena_free(&a);
  }
  CHECK(survived > 0, "some damage is harmless");
  free(fb);
}

/* Damage under a digest made for it: what the digest would have caught must be caught by what the bytes mean. Code is
 * not run: trusted code may do anything. */
static void damage_resealed(nyb_context *cx, const uint8_t *file, size_t n, uint8_t *copy) {
  uint64_t at, bytes;
  memcpy(&at, file + 8, 8);
  memcpy(&bytes, file + 16, 8);
  nyb_dim most = {"N", 1000};
  int opened = 0;
  for (uint64_t i = 0; i < bytes; i++) {
    memcpy(copy, file, n);
    copy[at + i] ^= (uint8_t)(0x80 >> i % 8 | 1);
    ny_sha256 h;
    ny_sha256_init(&h);
    ny_sha256_add(&h, copy + at, (size_t)bytes);
    ny_sha256_end(&h, copy + 32);
    write_bytes(copy, n);
    nyb_module *m;
    nyb_session *s = NULL;
    if (load(cx, true, &m)) continue;
    nyb_module_info info = {.size = sizeof info};
    nyb_session_options o = {.size = sizeof o, .threads = 1, .dims = &most, .n_dims = 1, .max_bytes = 64 << 20};
    CHECK(!nyb_module_describe(m, &info), "byte %llu", (unsigned long long)i);
    nyb_status st = nyb_session_open(m, &o, &s);
    CHECK(!st || nyb_last_error(cx) != NULL, "byte %llu: an error without a message", (unsigned long long)i);
    opened += !st;
    nyb_session_close(s);
    nyb_module_close(m);
  }
  CHECK(opened > 0, "some damage is harmless");
}

static void check_damage(nyb_context *cx) {
  size_t n;
  uint8_t *file = read_file(&n), *copy = malloc(n);
  damage_description(file, n);
  damage_resealed(cx, file, n, copy);
  for (size_t at = 0; at < n; at += at < 80 || at + 4096 > n ? 1 : 1021) {
    memcpy(copy, file, n);
    copy[at] ^= 0x41;
    write_bytes(copy, n);
    try_load(cx, at);
  }
  for (size_t len = 0; len < n; len += len < 100 ? 1 : 997) {
    write_bytes(file, len);
    nyb_module *m;
    CHECK(load(cx, true, &m) == NYB_E_PARSE, "truncated to %zu", len);
  }
  write_bytes(file, n);
  memcpy(copy, file, n);
  uint64_t code;
  nyb_module *m;
  ny_diag d = {0};
  CHECK(!ny_module_open(cx, path, &m, &d) && !ny_module_check_digests(m, &d), "%s", d.message);
  code = m->mod.code.offset;
  nyb_module_close(m);
  copy[code] ^= 1;
  write_bytes(copy, n);
  CHECK(load(cx, true, &m) == NYB_E_PARSE && says(cx, "code does not match"), "changed code");
  write_bytes(file, n);
  free(copy);
  free(file);
}

int main(void) {
  CHECK(mkdtemp(folder) != NULL, "%s", folder);
  snprintf(path, sizeof path, "%s/m.nyb", folder);
  char cache[128], command[160];
  snprintf(cache, sizeof cache, "%s/cache", folder);
  nyb_options o = {.size = sizeof o, .cache_dir = cache};
  nyb_context *cx;
  nyb_module *m;
  ny_diag d = {0};
  static fx_module f;
  fx_build(&f);
  CHECK(!nyb_open(&o, &cx) && !nyb_last_error(cx), "open");
  CHECK(!fx_write(&f, path, &d), "%s", d.message);
  check_trust(cx, &f);
  nyb_status s = load(cx, true, &m);
  CHECK(!s, "%s", nyb_last_error(cx)->text);
  if (!s) {
    check_info(m);
    check_runs(cx, m);
    check_refusals(cx, m);
    check_concurrent(m);
    nyb_module_close(m);
  }
  check_damage(cx);
  CHECK(nyb_load(cx, "/nonexistent.nyb", NULL, &m) == NYB_E_IO && says(cx, "/nonexistent.nyb"), "missing file");
  CHECK(ny_cpu_has("no") == false && strlen(nyb_status_text((nyb_status)99)), "unknown things");
  nyb_close(cx);
  snprintf(command, sizeof command, "rm -r %s", folder);
  CHECK(!system(command), "%s", command);
  return test_end("runtime");
}
