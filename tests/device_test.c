/* Sessions on simulated devices: a hand-made module with PTX runs on each profile, captured and not, and with what goes
   wrong. What is true of every device is in tests/cts. */
#include "cuda.h"
#include "cudasim.h"
#include "device.h"
#include "module_fixture.h"
#include "ptx_fixture.h"
#include "test.h"
#include <stdlib.h>
#include <unistd.h>

static char folder[64] = "/tmp/nybble-device-XXXXXX", path[2][128];
static nyb_context *cx;
static const ny_cuda *cu;
static const char *const profiles[] = {"sim:gb10", "sim:h100", "sim:rtx5090"};

static bool says(const char *part) {
  const nyb_error *e = nyb_last_error(cx);
  return e && strstr(e->message, part);
}
static const char *why(void) {
  const nyb_error *e = nyb_last_error(cx);
  return e ? e->message : "no error";
}

/* ---- the simulator's own functions */
static nyb_cudasim_totals totals(void) {
  void (*count)(nyb_cudasim_totals *) = NULL;
  nyb_cudasim_totals t = {0};
  *(void **)&count = ny_cuda_symbol(cu, "nyb_cudasim_count");
  count(&t);
  return t;
}
static void set(const char *name, const char *value) {
  int (*f)(const char *, const char *) = NULL;
  *(void **)&f = ny_cuda_symbol(cu, "nyb_cudasim_set");
  CHECK(!f(name, value), "%s=%s", name, value);
}

/* ---- the module. straight: without the branch and the loop. */
static void to_cuda(fx_module *f, ny_mod_image *image, const char *add) {
  static const char *const symbol[] = {"add", "count", "less"};
  for (int i = 0; i < 3; i++) {
    ny_mod_kernel *k = &f->kernel[i];
    k->symbol = i ? symbol[i] : add;
    k->bits = fx_bits[i];
    k->n_bits = k->n_buffers;
    k->entry = k->scratch = 0;
    k->block = 128;
    k->points = 128;
  }
  f->m.target = "sm_80";
  f->m.arch = "nvptx64";
  f->m.sm = 80;
  f->m.image = image;
  f->m.n_images = f->m.n_units = 1;
}

static nyb_status make(const char *to, bool straight, const char *add, ny_diag *d) {
  static fx_module f;
  static ny_mod_image image;
  static const char ptx[] = PTX_ALL;
  ny_module_file file;
  image = (ny_mod_image){.kind = NY_MI_PTX, .arch = "compute_80"};
  fx_build(&f);
  to_cuda(&f, &image, add);
  if (straight) f.m.n_commands = 6; /* with the choice, which is captured */
  NY_TRY(ny_module_file_begin(to, &file, d));
  NY_TRY(fx_write_weights(&file, d));
  NY_TRY(ny_module_file_segment(&file, ptx, sizeof ptx, &image.code));
  return ny_module_file_end(&file, &f.m, 1);
}

static nyb_module *load(const char *file, const char *device) {
  nyb_load_options o = {.size = sizeof o, .trust = 1, .device = device};
  nyb_module *m = NULL;
  CHECK(!nyb_load(cx, file, &o, &m), "%s on %s: %s", file, device, why());
  return m;
}

static nyb_session *open_session(nyb_module *m, int64_t n, int profile) {
  nyb_dim most = {"N", n};
  nyb_session_options o = {.size = sizeof o, .dims = &most, .n_dims = 1, .profile = profile};
  nyb_session *s = NULL;
  CHECK(!nyb_session_open(m, &o, &s), "%s", why());
  return s;
}

/* ---- a run */
typedef struct call {
  nyb_tensor in[FX_N_IN], out[FX_N_OUT];
  int64_t n;
  float *a, *b;
  uint8_t *flag;
} call;

static void call_make(call *c, int64_t n, uint8_t flag, int shift) {
  memset(c, 0, sizeof *c);
  c->n = n;
  c->a = (float *)((char *)aligned_alloc(64, (size_t)(n * 4 + 191) & ~(size_t)63) + shift);
  c->b = aligned_alloc(64, (size_t)(n * 4 + 127) & ~(size_t)63);
  c->flag = malloc(1);
  *c->flag = flag;
  for (int64_t i = 0; i < n; i++) c->a[i] = (float)(i % 1000), c->b[i] = (float)(i % 77) * 0.5f;
  nyb_dtype f32 = {NYB_FLOAT, 32, 1}, boolean = {NYB_BOOL, 8, 1};
  nyb_device_id cpu = {1, 0};
  c->in[FX_A] = (nyb_tensor){c->a, cpu, 1, f32, &c->n, NULL, 0};
  c->in[FX_B] = (nyb_tensor){c->b, cpu, 1, f32, &c->n, NULL, 0};
  c->in[FX_FLAG] = (nyb_tensor){c->flag, cpu, 0, boolean, NULL, NULL, 0};
}
static void call_free(call *c, int shift) {
  free((char *)c->a - shift);
  free(c->b);
  free(c->flag);
}
static nyb_status call_run(nyb_session *s, call *c) { return nyb_run(s, c->in, FX_N_IN, c->out, FX_N_OUT); }

static void call_check(const call *c, bool straight) {
  int64_t n = c->n, bad = 0;
  const float *sum = c->out[FX_SUM].data, *twice = c->out[FX_TWICE].data, *chosen = c->out[FX_CHOSEN].data,
              *weight = c->out[FX_WEIGHT].data;
  const int64_t *count = c->out[FX_COUNT].data;
  for (int64_t i = 0; i < n; i++) {
    float want = c->a[i] + c->b[i];
    bad += sum[i] != want || count[i] != 3 + i;
    if (!straight) bad += twice[i] != want || twice[n + i] != want || chosen[i] != (*c->flag ? c->a[i] : c->b[i]);
  }
  for (int i = 0; i < FX_WEIGHTS; i++) bad += weight[i] != 2 * (float)i;
  CHECK(!bad, "%lld of %lld elements are wrong", (long long)bad, (long long)n);
}

/* Sizes in turn, each twice and more: done, captured, replayed, and with control flow never captured. */
static void check_runs(const char *device, bool straight) {
  static const int64_t sizes[] = {1, 127, 129, 1000, 20000, 129, 0, 1000};
  nyb_module *m = load(path[straight], device);
  if (!m) return;
  nyb_session *s = open_session(m, 20000, 0);
  for (int round = 0; s && round < 3; round++)
    for (size_t i = 0; i < NY_COUNT(sizes); i++) {
      call c;
      int shift = round == 2 ? 4 : 0; /* an input that kernels cannot read in place */
      call_make(&c, sizes[i], (uint8_t)(i % 2), shift);
      for (int again = 0; again < 3; again++) {
        CHECK(!call_run(s, &c), "%s: %s", device, why());
        call_check(&c, straight);
        if (sizes[i]) c.a[0] += 1; /* a replay reads what is there now */
      }
      call_free(&c, shift);
    }
  nyb_session_stats stats = {.size = sizeof stats};
  CHECK(!nyb_session_describe(s, &stats) && stats.arena_bytes >= 20000 * 4 && stats.threads == 1, "stats");
  nyb_session_close(s);
  nyb_module_close(m);
}

static void check_captures(void) {
  nyb_module *m = load(path[1], "sim:h100");
  if (!m) return;
  nyb_session *s = open_session(m, 4000, 0);
  nyb_cudasim_totals t = totals();
  call c[12];
  for (int i = 0; i < 12; i++) call_make(&c[i], 100 + i, 1, 0);
  for (int again = 0; again < 5; again++) CHECK(!call_run(s, &c[0]), "%s", why());
  nyb_cudasim_totals u = totals();
  CHECK(u.captures - t.captures == 1 && u.graph_launches - t.graph_launches == 4, "%llu captures, %llu replays",
        (unsigned long long)(u.captures - t.captures), (unsigned long long)(u.graph_launches - t.graph_launches));
  for (int again = 0; again < 3; again++)
    for (int i = 0; i < 4; i++) CHECK(!call_run(s, &c[i]), "%s", why());
  t = totals();
  CHECK(t.captures - u.captures == 3, "a few sizes in turn are all kept: %llu",
        (unsigned long long)(t.captures - u.captures));
  for (int again = 0; again < 2; again++)
    for (int i = 0; i < 12; i++) CHECK(!call_run(s, &c[i]), "%s", why());
  for (int i = 4; i < 12; i++)
    for (int again = 0; again < 2; again++) CHECK(!call_run(s, &c[i]), "%s", why());
  CHECK(totals().exec_updates > t.exec_updates, "a graph that was kept is changed for another size");
  call_check(&c[11], true);
  for (int i = 0; i < 12; i++) call_free(&c[i], 0);
  nyb_session_close(s);
  nyb_module_close(m);
}

/* ---- limits, sharing */
static void check_memory(void) {
  nyb_module *m = load(path[1], "sim:h100");
  if (!m) return;
  uint64_t weights = totals().allocated;
  CHECK(weights >= FX_WEIGHTS * 4, "weights are on the device: %llu", (unsigned long long)weights);
  nyb_session *s = open_session(m, 1000, 0), *s2 = open_session(m, 1000, 0);
  uint64_t two = totals().allocated - weights;
  CHECK(two >= 2 * 1000 * 4 && two < 2 * (128 << 10), "two sessions share them: %llu", (unsigned long long)two);
  nyb_session_close(s2);
  nyb_dim more = {"N", 5000};
  void *never;
  ny_diag d = {0};
  CHECK(ny_device_alloc(m->device, 1ull << 40, "activation memory", &never, &d) == NYB_E_NOMEM &&
            strstr(d.message, "activation memory needs 1048576 MB") && strstr(d.message, "MB are free"),
        "%s", d.message);
  CHECK(!nyb_session_prepare(s, &more, 1), "%s", why());
  call c;
  call_make(&c, 5000, 0, 0);
  CHECK(!call_run(s, &c), "%s", why());
  call_check(&c, true);
  call_free(&c, 0);
  call_make(&c, 5001, 0, 0);
  CHECK(call_run(s, &c) == NYB_E_SHAPE && says("prepare"), "%s", why());
  call_free(&c, 0);
  nyb_session_close(s);
  nyb_session_options o = {.size = sizeof o, .max_bytes = 1000};
  CHECK(nyb_session_open(m, &o, &s) == NYB_E_LIMIT, "%s", why());
  nyb_module_close(m);
  CHECK(!totals().allocated && !totals().objects && !totals().leaked, "%llu bytes, %llu objects are left",
        (unsigned long long)totals().allocated, (unsigned long long)totals().objects);
}

/* ---- what goes wrong */
static void check_names(void) {
  static const struct {
    const char *device;
    nyb_status status;
    const char *part;
  } row[] = {{"gpu", NYB_E_ARGUMENT, "gpu"},
             {"simulator", NYB_E_ARGUMENT, "simulator"},
             {"sim:k80", NYB_E_ARGUMENT, "k80"},
             {"cuda:x", NYB_E_ARGUMENT, NULL},
             {"cuda:", NYB_E_ARGUMENT, NULL}};
  bool gpu = !access("/dev/nvidiactl", F_OK);
  for (size_t i = 0; i < NY_COUNT(row); i++) {
    nyb_load_options o = {.size = sizeof o, .trust = 1, .device = row[i].device};
    nyb_module *m = NULL;
    nyb_status s = nyb_load(cx, path[0], &o, &m);
    bool right =
        row[i].part ? s == row[i].status && says(row[i].part) : s == row[i].status || (!gpu && s == NYB_E_DEVICE);
    CHECK(right, "%s: %s", row[i].device, why());
  }
  nyb_load_options o = {.size = sizeof o, .device = "sim"};
  nyb_module *m = NULL;
  CHECK(nyb_load(cx, path[0], &o, &m) == NYB_E_TRUST, "code for a GPU is not run unasked: %s", why());
  o.device = NULL;
  o.trust = 1;
  CHECK(nyb_load(cx, path[0], &o, &m) == NYB_E_TARGET, "nothing of it is for the CPU: %s", why());
  if (!gpu) {
    o.device = "cuda";
    CHECK(nyb_load(cx, path[0], &o, &m) == NYB_E_DEVICE && says("no CUDA driver"), "%s", why());
  }
}

/* A module for CPUs has nothing for a device. */
static void check_wrong_module(void) {
  static fx_module f;
  char file[128];
  ny_diag d = {0};
  nyb_module *m = NULL;
  nyb_load_options o = {.size = sizeof o, .trust = 1, .device = "sim"};
  snprintf(file, sizeof file, "%s/cpu.nyb", folder);
  fx_build(&f);
  CHECK(!fx_write(&f, file, &d), "%s", d.message);
  CHECK(nyb_load(cx, file, &o, &m) == NYB_E_TARGET && says("GB10"), "%s", why());
  CHECK(!totals().objects, "a module that is refused leaves nothing");
  unlink(file);
}

/* A kernel that runs past its buffer: the run says which, and another load has a device that works. */
static void check_fault(void) {
  char bad[128];
  ny_diag d = {0};
  snprintf(bad, sizeof bad, "%s/over.nyb", folder);
  CHECK(!make(bad, true, "over", &d), "%s", d.message);
  set("report", "off");
  nyb_module *m = load(bad, "sim:h100");
  nyb_session *s = m ? open_session(m, 100, 0) : NULL;
  call c;
  call_make(&c, 100, 1, 0);
  CHECK(s && call_run(s, &c) == NYB_E_DEVICE && says("kernel add") && says("ILLEGAL_ADDRESS"), "%s", why());
  CHECK(s && call_run(s, &c) == NYB_E_DEVICE, "a device that failed stays failed");
  nyb_session_close(s);
  nyb_module_close(m);
  set("report", "on");
  call_free(&c, 0);
  check_runs("sim:h100", true);
  unlink(bad);
}

/* A kernel whose addresses have 32 bits counts elements, whatever their size. */
static nyb_status launch_large(ny_device *dev, uint8_t bits, uint64_t bytes, bool wide, ny_diag *d) {
  static const char ptx[] = PTX_ALL;
  uint8_t all[3] = {bits, bits, bits};
  ny_mod_kernel row = {.name = "add",
                       .symbol = "add",
                       .n_buffers = 3,
                       .block = 128,
                       .points = 128,
                       .wide = wide,
                       .bits = all,
                       .n_bits = 3};
  void *buffer[3] = {NULL};
  uint64_t size[3] = {16, bytes, 16};
  ny_launch l = {.n_buffers = 3, .buffer = buffer, .bytes = size, .extent = 1};
  ny_program *p;
  ny_queue *q = NULL;
  nyb_status s = ny_program_of_image(dev, ptx, &row, &p, d);
  if (!s) s = ny_queue_open(p, &q, d);
  if (!s) s = ny_queue_begin(q, d);
  if (!s) s = ny_queue_launch(q, p, &l, d);
  ny_queue_close(q);
  ny_program_close(p);
  return s;
}
static void check_width(void) {
  const uint64_t limit = (UINT64_C(1) << 31) - (1 << 24);
  static const uint8_t bits[] = {2, 4, 8, 16, 32, 64, 128};
  ny_device *dev;
  ny_diag d = {0};
  CHECK(!ny_device_open("sim:rtx5090", &dev, &d), "%s", d.message);
  for (size_t i = 0; i < NY_COUNT(bits); i++) {
    nyb_status s = launch_large(dev, bits[i], limit * bits[i] / 8, false, &d);
    CHECK(s == NYB_E_LIMIT && strstr(d.message, "a buffer of 2130706432, at most 2130706431"), "%u bits: %s", bits[i],
          d.message);
    ny_diag_clear(&d);
  }
  ny_device_close(dev);
  set("report", "off"); /* nothing is mapped: what is not refused fails */
  for (int wide = 0; wide < 2; wide++) {
    CHECK(!ny_device_open("sim:rtx5090", &dev, &d), "%s", d.message);
    nyb_status s = launch_large(dev, wide ? 8 : 64, limit * 8 - 8, wide, &d);
    CHECK(s && s != NYB_E_LIMIT, "one element less, or 64-bit addresses: %s", d.message);
    ny_diag_clear(&d);
    ny_device_close(dev);
  }
  set("report", "on");
}

/* What the calling thread has current stays so. */
static void check_context(void) {
  ny_cu_result (*make_context)(ny_cu_context *, unsigned, ny_cu_device) = NULL;
  ny_cu_result (*free_context)(ny_cu_context) = NULL;
  ny_cu_device device;
  ny_cu_context own, now = NULL;
  *(void **)&make_context = ny_cuda_symbol(cu, "cuCtxCreate_v2");
  *(void **)&free_context = ny_cuda_symbol(cu, "cuCtxDestroy_v2");
  for (int mine = 0; mine < 2; mine++) { /* none, one of the caller's */
    if (mine) CHECK(!cu->device_get(&device, 1) && !make_context(&own, 0, device), "a context");
    ny_cu_context before = mine ? own : NULL;
    cu->context_use(before);
#define SAME(what) CHECK(!cu->context_now(&now) && now == before, "%s leaves another context", what)
    nyb_module *m = load(path[1], "sim:h100");
    SAME("loading");
    nyb_session *s = open_session(m, 1000, 0);
    SAME("a session");
    call c;
    call_make(&c, 1000, 1, 0);
    for (int i = 0; i < 3; i++) {
      CHECK(!call_run(s, &c), "%s", why());
      SAME("a run");
    }
    c.n = 2000; /* not planned for */
    CHECK(call_run(s, &c) != NYB_OK, "a larger run");
    SAME("a run that is refused");
    c.n = 1000;
    nyb_session_close(s);
    SAME("closing a session");
    nyb_module_close(m);
    SAME("closing a module");
    call_free(&c, 0);
    if (mine) CHECK(!free_context(own), "its end");
  }
}

int main(void) {
  ny_diag d = {0};
  if (!mkdtemp(folder)) return 1;
  for (int i = 0; i < 2; i++) snprintf(path[i], sizeof path[i], "%s/%d.nyb", folder, i);
  nyb_options options = {.size = sizeof options, .cache_dir = ""};
  CHECK(!nyb_open(&options, &cx), "a context");
  CHECK(!make(path[0], false, "add", &d) && !make(path[1], true, "add", &d), "%s", d.message);
  CHECK(!ny_cuda_open(true, &cu, &d), "%s", d.message);
  if (n_failed) return test_end("device");
  check_names();
  check_wrong_module();
  for (size_t i = 0; i < NY_COUNT(profiles); i++) {
    check_runs(profiles[i], false);
    check_runs(profiles[i], true);
  }
  set("queue", "late"); /* a run that did not wait would read nothing */
  for (size_t i = 0; i < NY_COUNT(profiles); i++) check_runs(profiles[i], i % 2), check_runs(profiles[i], !(i % 2));
  set("queue", "now");
  check_captures();
  check_memory();
  check_fault();
  check_width();
  check_context();
  nyb_close(cx);
  for (int i = 0; i < 2; i++) unlink(path[i]);
  rmdir(folder);
  return test_end("device");
}
