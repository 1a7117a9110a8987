/* nybble kernels replay: every kernel of a folder is compiled for the device (or its recorded code is loaded), checked
   against the recorded results, timed, and checked again: a time of something that computes another thing is no time.
 */
#include "cudasim.h"
#include "kernels.h"
#include "device.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_NAMES = 256, ROUNDS = 21, MAX_BATCH = 1000, COPY_BYTES = 256 << 20, MAX_CODE = 64 << 20 };

typedef struct kernel {
  const char *name;
  cli_launch launch;
  const char *source, *origin; /* where its code is from: NVRTC, a file */
  bool edited;
  const void *code;
  ny_mod_kernel row;
  ny_diag diag;
  bool ok;
  double error, seconds; /* -1: nothing is expected; 0: not timed */
  ny_sim_counters counters;
} kernel;
typedef struct replay {
  const char *dir, *device_name;
  int ms;
  ny_arena arena;
  ny_device *device;
  const ny_device_facts *facts;
  kernel *k;
  size_t n;
  double copy; /* bytes a second that a copy on the device reads and writes; 0: not measured */
} replay;

/* ---- what there is */
static int by_name(const void *a, const void *b) {
  return strcmp(((const kernel *)a)->name, ((const kernel *)b)->name);
}

static int find_kernels(replay *r, const char *const *name, int n_names) {
  struct dirent *e;
  size_t cap = 0;
  DIR *d = opendir(r->dir);
  if (!d) return cli_fail("%s: cannot read the folder", r->dir);
  while ((e = readdir(d))) {
    if (!ny_ends_with(e->d_name, ".launch")) continue;
    const char *base = ny_strndup(&r->arena, e->d_name, strlen(e->d_name) - strlen(".launch"));
    bool wanted = !n_names;
    for (int i = 0; i < n_names; i++) wanted |= !strcmp(name[i], base);
    if (!wanted) continue;
    NY_PUSH_ROOM(&r->arena, r->k, r->n, cap);
    r->k[r->n++] = (kernel){.name = base};
  }
  closedir(d);
  if (r->n < (size_t)n_names || !r->n) return cli_fail("%s: no such kernels (NAME.launch)", r->dir);
  qsort(r->k, r->n, sizeof *r->k, by_name);
  return CLI_OK;
}

static nyb_status read_kernel(replay *r, kernel *k) {
  char *text, hex[65];
  size_t n;
  NY_TRY(cli_launch_read(kernels_path(&r->arena, r->dir, k->name, "launch"), &k->launch, &k->diag));
  if (!k->launch.kernel)
    return ny_fail(&k->diag, NYB_E_PARSE, NULL, "%s.launch does not name the kernel (a line `kernel NAME`)", k->name);
  k->row = (ny_mod_kernel){.name = k->launch.kernel,
                           .symbol = k->launch.kernel,
                           .n_buffers = k->launch.n_arg,
                           .block = k->launch.block[0] * k->launch.block[1] * k->launch.block[2],
                           .points = 1,
                           .shared = k->launch.shared};
  NY_TRY(
      ny_file_read(&r->arena, kernels_path(&r->arena, r->dir, k->name, "cu"), KERNELS_MAX_SOURCE, &text, &n, &k->diag));
  k->source = text;
  kernels_digest(text, hex);
  k->edited = k->launch.text && strcmp(k->launch.text, hex) != 0;
  return NYB_OK;
}

/* ---- code */
static nyb_status compile_all(replay *r, ny_diag *d) {
  ny_target target;
  kernels_job *job = NY_NEW_ARRAY(&r->arena, kernels_job, r->n);
  NY_TRY(ny_target_of_device(r->device, NULL, &r->arena, &target, d));
  size_t n = 0;
  for (size_t i = 0; i < r->n; i++)
    if (!r->k[i].diag.code)
      job[n++] = (kernels_job){
          .source = r->k[i].source, .name = ny_strf(&r->arena, "%s.cu", r->k[i].name), .arch = target.cpu};
  kernels_compile(job, n);
  n = 0;
  for (size_t i = 0; i < r->n; i++) {
    kernel *k = &r->k[i];
    if (k->diag.code) continue;
    const ny_cuda_image *im = &job[n].image;
    size_t bytes = im->cubin ? im->cubin_bytes : im->ptx ? im->ptx_bytes : 0;
    char *code = ny_alloc(&r->arena, bytes + 1);
    if (bytes) memcpy(code, im->cubin ? (const char *)im->cubin : im->ptx, bytes);
    k->code = code;
    k->origin = target.cpu;
    k->diag = job[n].diag;
    ny_cuda_image_free(&job[n++].image);
  }
  return NYB_OK;
}

/* The file of a kernel whose code suits the device best: NAME.<arch>.cubin, else NAME.ptx. */
static const char *best_file(replay *r, const kernel *k) {
  static const char *const suffixes[] = {"a", "f", ""};
  const char *best = NULL;
  int most = 0;
  for (int sm = 80; sm <= 129 && !r->facts->simulated; sm++)
    for (size_t s = 0; s < NY_COUNT(suffixes); s++) {
      const char *suffix = ny_strf(&r->arena, "sm_%d%s.cubin", sm, suffixes[s]);
      ny_cuda_arch arch;
      char name[32];
      snprintf(name, sizeof name, "sm_%d%s", sm, suffixes[s]);
      const char *path = kernels_path(&r->arena, r->dir, k->name, suffix);
      int fit = ny_cuda_arch_parse(name, &arch) ? ny_cuda_arch_fit(&arch, r->facts->sm) : 0;
      if (fit > most && !access(path, R_OK)) best = path, most = fit;
    }
  return best ? best : kernels_path(&r->arena, r->dir, k->name, "ptx");
}

static void load_file(replay *r, kernel *k) {
  char *code;
  size_t n;
  if (k->edited) {
    ny_fail(&k->diag, NYB_E_UNSUPPORTED, NULL, "%s.cu was edited, and there is no NVRTC here to compile it", k->name);
    return;
  }
  const char *path = best_file(r, k);
  if (ny_file_read(&r->arena, path, MAX_CODE, &code, &n, &k->diag)) return;
  k->code = code; /* ends in a zero byte beyond n */
  k->origin = strrchr(path, '/') + 1;
}

static int get_code(replay *r) {
  const ny_nvrtc *nvrtc;
  ny_diag d = {0}, none = {0};
  for (size_t i = 0; i < r->n; i++) read_kernel(r, &r->k[i]);
  bool have = !ny_nvrtc_open(&nvrtc, &none) && ny_nvrtc_supports((int)r->facts->sm);
  if (have && compile_all(r, &d)) return cli_diag(&d);
  for (size_t i = 0; i < r->n && !have; i++)
    if (!r->k[i].diag.code) load_file(r, &r->k[i]);
  return CLI_OK;
}

/* ---- one kernel on the device */
typedef struct bench {
  replay *r;
  kernel *k;
  ny_program *program;
  ny_queue *queue;
  void **memory, **param; /* per argument */
  uint64_t *bytes;
  void **range; /* of the arrays */
  ny_raw_launch launch;
} bench;

static nyb_status make_arguments(bench *b, ny_diag *d) {
  const cli_launch *l = &b->k->launch;
  for (uint32_t i = 0; i < l->n_arg; i++) {
    cli_launch_arg *a = &l->arg[i];
    if (cli_arg_has_array(a)) {
      uint64_t bytes = (cli_tensor_bytes(&a->now.t) + 3) & ~(uint64_t)3;
      NY_TRY(ny_device_alloc(b->r->device, bytes, "an argument", &b->memory[i], d));
      b->bytes[b->launch.n_ranges] = bytes;
      b->range[b->launch.n_ranges++] = b->memory[i];
    }
    b->param[i] = a->kind == CLI_ARG_VALUE ? (void *)a->value : &b->memory[a->same];
  }
  return NYB_OK;
}

static nyb_status open_bench(bench *b, ny_diag *d) {
  ny_arena *a = &b->r->arena;
  const cli_launch *l = &b->k->launch;
  b->memory = NY_NEW_ARRAY(a, void *, l->n_arg + 1);
  b->param = NY_NEW_ARRAY(a, void *, l->n_arg + 1);
  b->range = NY_NEW_ARRAY(a, void *, l->n_arg + 1);
  b->bytes = NY_NEW_ARRAY(a, uint64_t, l->n_arg + 1);
  b->launch = (ny_raw_launch){.shared = l->shared, .param = b->param, .range = b->range, .bytes = b->bytes};
  memcpy(b->launch.grid, l->grid, sizeof l->grid);
  memcpy(b->launch.block, l->block, sizeof l->block);
  NY_TRY(ny_program_of_image(b->r->device, b->k->code, &b->k->row, &b->program, d));
  NY_TRY(ny_queue_open(b->program, &b->queue, d));
  NY_TRY(ny_queue_begin(b->queue, d));
  return make_arguments(b, d);
}

static void close_bench(bench *b) {
  for (uint32_t i = 0; b->memory && i < b->k->launch.n_arg; i++) ny_device_free(b->r->device, b->memory[i]);
  ny_queue_close(b->queue);
  ny_program_close(b->program);
}

static nyb_status put_arguments(bench *b, ny_diag *d) {
  const cli_launch *l = &b->k->launch;
  for (uint32_t i = 0; i < l->n_arg; i++)
    if (cli_arg_has_array(&l->arg[i])) /* rounded up: an array's memory is */
      NY_TRY(ny_queue_upload(b->queue, b->memory[i], l->arg[i].first.memory,
                             (cli_tensor_bytes(&l->arg[i].first.t) + 3) & ~(uint64_t)3, d));
  return ny_queue_wait(b->queue, d);
}

static nyb_status launch(bench *b, ny_diag *d) { return ny_queue_launch_raw(b->queue, b->program, &b->launch, d); }

static nyb_status check(bench *b, const char *when, ny_diag *d) {
  const cli_launch *l = &b->k->launch;
  bool ok;
  NY_TRY(put_arguments(b, d));
  NY_TRY(launch(b, d));
  NY_TRY(ny_queue_wait(b->queue, d));
  for (uint32_t i = 0; i < l->n_arg; i++)
    if (cli_arg_is_result(&l->arg[i]))
      NY_TRY(ny_queue_download(b->queue, l->arg[i].now.memory, b->memory[i], cli_tensor_bytes(&l->arg[i].now.t), d));
  NY_TRY(ny_queue_wait(b->queue, d));
  double e = cli_launch_verify(l, &ok);
  b->k->error = fmax(b->k->error, e);
  return ok ? NYB_OK : ny_fail(d, NYB_E_DEVICE, NULL, "results differ %s: relative error %.3g", when, e);
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* Seconds of what `enqueue` queues, `batch` times between two marks. */
typedef nyb_status enqueue_fn(void *user, ny_diag *d);
static nyb_status timed(ny_queue *q, enqueue_fn *enqueue, void *user, int batch, double *out, ny_diag *d) {
  NY_TRY(ny_queue_mark(q, 0, d));
  for (int i = 0; i < batch; i++) NY_TRY(enqueue(user, d));
  NY_TRY(ny_queue_mark(q, 1, d));
  NY_TRY(ny_queue_seconds(q, out, d));
  *out /= batch;
  return NYB_OK;
}

/* Median of rounds; each round long enough for the clock. */
static nyb_status measure(ny_queue *q, int ms, enqueue_fn *enqueue, void *user, double *out, ny_diag *d) {
  double t[ROUNDS], once;
  NY_TRY(timed(q, enqueue, user, 3, &once, d));
  double fits = fmin(ms * 1e-3 / (int)ROUNDS / fmax(once, 1e-7), (int)MAX_BATCH);
  int batch = fits < 1 ? 1 : (int)fits;
  for (int i = 0; i < ROUNDS; i++) NY_TRY(timed(q, enqueue, user, batch, &t[i], d));
  qsort(t, ROUNDS, sizeof *t, ascending);
  *out = t[ROUNDS / 2];
  return NYB_OK;
}

static nyb_status enqueue_launch(void *user, ny_diag *d) { return launch(user, d); }

static void count_before(replay *r) {
  void (*reset)(void) = NULL;
  *(void **)&reset = ny_device_symbol(r->device, "nyb_cudasim_reset");
  if (reset) reset();
}

static void count_after(replay *r, kernel *k) {
  unsigned (*kernels)(const nyb_cudasim_kernel **) = NULL;
  const nyb_cudasim_kernel *all;
  *(void **)&kernels = ny_device_symbol(r->device, "nyb_cudasim_kernels");
  unsigned n = kernels ? kernels(&all) : 0;
  for (unsigned i = 0; i < n; i++)
    if (!strcmp(all[i].name, k->row.symbol)) k->counters = all[i].counters;
}

static nyb_status run_checks(bench *b, ny_diag *d) {
  replay *r = b->r;
  NY_TRY(open_bench(b, d));
  if (r->facts->simulated) {
    count_before(r);
    NY_TRY(check(b, "", d));
    count_after(r, b->k);
    if (!r->ms) return NYB_OK;
  } else
    NY_TRY(check(b, "before timing", d));
  NY_TRY(measure(b->queue, r->ms, enqueue_launch, b, &b->k->seconds, d));
  return check(b, "after timing", d);
}

/* A launch that failed takes its context with it: the next kernel gets a new one. */
static int run_kernel(replay *r, kernel *k) {
  bench b = {.r = r, .k = k};
  ny_diag d = {0};
  k->error = -1;
  if (k->diag.code) return CLI_OK;
  k->ok = !run_checks(&b, &k->diag);
  close_bench(&b);
  if (k->ok) return CLI_OK;
  ny_device_close(r->device);
  if (ny_device_open(r->device_name, &r->device, &d)) return cli_diag(&d);
  r->facts = ny_device_describe(r->device);
  return CLI_OK;
}

/* ---- what a copy reaches */
typedef struct copy {
  ny_queue *q;
  void *to, *from;
  uint64_t bytes;
} copy;
static nyb_status enqueue_copy(void *user, ny_diag *d) {
  copy *c = user;
  return ny_queue_copy(c->q, c->to, c->from, c->bytes, d);
}

static nyb_status measure_copy(replay *r, const kernel *k, ny_diag *d) {
  ny_program *p = NULL;
  copy c = {.bytes = COPY_BYTES};
  double seconds = 0;
  nyb_status e = ny_program_of_image(r->device, k->code, &k->row, &p, d);
  if (!e) e = ny_queue_open(p, &c.q, d);
  if (!e) e = ny_queue_begin(c.q, d);
  if (!e) e = ny_device_alloc(r->device, c.bytes, "a copy", &c.to, d);
  if (!e) e = ny_device_alloc(r->device, c.bytes, "a copy", &c.from, d);
  if (!e) e = measure(c.q, 4 * r->ms, enqueue_copy, &c, &seconds, d);
  if (!e && seconds > 0 && !r->facts->simulated) r->copy = 2 * (double)c.bytes / seconds;
  ny_device_free(r->device, c.to);
  ny_device_free(r->device, c.from);
  ny_queue_close(c.q);
  ny_program_close(p);
  return e;
}

/* ---- the table */
/* Arrays once read, and those that are written once more; a kernel that uses part of an array moves less. */
static double bytes_of(const cli_launch *l) {
  double n = 0;
  for (uint32_t i = 0; i < l->n_arg; i++) {
    const cli_launch_arg *a = &l->arg[i];
    if (cli_arg_has_array(a)) n += (double)cli_tensor_bytes(&a->now.t);
  }
  return n;
}

static uint64_t total(const uint64_t *v) {
  uint64_t n = 0;
  for (int i = 0; i < NY_N_CLS; i++) n += v[i];
  return n;
}

static const char *state(const kernel *k) { return k->ok ? k->edited ? "edited, ok" : "ok" : "FAILED"; }

static void row_text(const replay *r, const kernel *k) {
  char error[32] = "-", bytes[32];
  if (k->error >= 0) snprintf(error, sizeof error, "%.1e", k->error);
  const ny_sim_counters *c = &k->counters;
  if (!k->ok)
    printf("%-44s %-10s %9s  %s\n", k->name, state(k), error, k->diag.message);
  else if (r->facts->simulated)
    printf("%-44s %-10s %9s %12llu %12llu %12llu %7llu\n", k->name, state(k), error,
           (unsigned long long)total(c->warp_ins), (unsigned long long)c->shared_waves,
           (unsigned long long)c->global_sectors, (unsigned long long)c->barriers);
  else
    printf("%-44s %-10s %9s %10.2f %10s %7.1f\n", k->name, state(k), error, k->seconds * 1e6,
           cli_bytes(bytes_of(&k->launch), bytes),
           r->copy > 0 ? 100 * bytes_of(&k->launch) / k->seconds / r->copy : 0.0);
}

static void row_json(const replay *r, const kernel *k, ny_text *t) {
  const ny_sim_counters *c = &k->counters;
  ny_text_add(t, "{\"kernel\":");
  ny_text_json(t, k->name);
  ny_text_addf(t, ",\"ok\":%s,\"edited\":%s,\"code\":", k->ok ? "true" : "false", k->edited ? "true" : "false");
  ny_text_json(t, k->origin ? k->origin : "");
  if (k->error >= 0 && isfinite(k->error)) ny_text_addf(t, ",\"error\":%.6g", k->error);
  if (!k->ok) {
    ny_text_add(t, ",\"message\":");
    ny_text_json(t, k->diag.message);
  } else if (r->facts->simulated)
    ny_text_addf(t,
                 ",\"instructions\":%llu,\"shared_accesses\":%llu,\"shared_wavefronts\":%llu,\"global_sectors\":%llu,"
                 "\"barriers\":%llu",
                 (unsigned long long)total(c->warp_ins), (unsigned long long)c->shared_ops,
                 (unsigned long long)c->shared_waves, (unsigned long long)c->global_sectors,
                 (unsigned long long)c->barriers);
  else
    ny_text_addf(t, ",\"us\":%.4f,\"bytes\":%.0f,\"of_copy\":%.4f", k->seconds * 1e6, bytes_of(&k->launch),
                 r->copy > 0 ? bytes_of(&k->launch) / k->seconds / r->copy : 0.0);
  ny_text_add(t, "}");
}

static int report(const replay *r, bool json) {
  size_t failed = 0;
  ny_text t = {0};
  for (size_t i = 0; i < r->n; i++) failed += !r->k[i].ok;
  if (json) {
    ny_text_add(&t, "{\"device\":");
    ny_text_json(&t, r->facts->name);
    ny_text_addf(&t, ",\"simulated\":%s,\"copy_gbs\":%.3f,\"kernels\":[", r->facts->simulated ? "true" : "false",
                 r->copy * 1e-9);
    for (size_t i = 0; i < r->n; i++) {
      if (i) ny_text_add(&t, ",");
      row_json(r, &r->k[i], &t);
    }
    ny_text_add(&t, "]}");
    puts(t.s);
    ny_text_free(&t);
    return failed ? CLI_FAILED : CLI_OK;
  }
  if (r->facts->simulated)
    printf("%-44s %-10s %9s %12s %12s %12s %7s\n", "kernel", "", "error", "instructions", "wavefronts", "sectors",
           "barrier");
  else
    printf("%-44s %-10s %9s %10s %10s %7s\n", "kernel", "", "error", "us", "bytes", "% copy");
  for (size_t i = 0; i < r->n; i++) row_text(r, &r->k[i]);
  printf("%zu kernels on %s, %zu failed", r->n, r->facts->name, failed);
  if (r->copy > 0) printf("; a copy of %d MiB reaches %.0f GB/s", COPY_BYTES >> 20, r->copy * 1e-9);
  puts("");
  return failed ? CLI_FAILED : CLI_OK;
}

static int work(replay *r, const char *const *name, int n_names, bool json) {
  ny_diag d = {0};
  int bad = find_kernels(r, name, n_names);
  if (bad) return bad;
  if (ny_device_open(r->device_name, &r->device, &d)) return cli_diag(&d);
  if (!r->device) cli_usage("kernels", "replay runs on cuda or sim");
  r->facts = ny_device_describe(r->device);
  if (r->ms < 0) r->ms = r->facts->simulated ? 0 : 50;
  if ((bad = get_code(r))) return bad;
  size_t good = 0;
  while (good < r->n && r->k[good].diag.code) good++;
  if (good < r->n && r->ms && measure_copy(r, &r->k[good], &d)) return cli_diag(&d);
  for (size_t i = 0; i < r->n && !bad; i++) bad = run_kernel(r, &r->k[i]);
  return bad ? bad : report(r, json);
}

int kernels_replay(int argc, char **argv) {
  replay r = {.device_name = "sim", .ms = -1};
  const char *file[MAX_NAMES + 1];
  int json = 0;
  const cli_option opt[] = {
      {"--device", CLI_STRING, &r.device_name, "D", "sim[:gb10|h100|rtx5090] (default), cuda[:N]"},
      {"--ms", CLI_COUNT, &r.ms, "N",
       "time each for this many milliseconds (default 50; of the simulator 0: not at all)"},
      {"--json", CLI_FLAG, &json, NULL, "the table as JSON"}};
  int n = cli_parse("kernels", opt, NY_COUNT(opt), argc, argv, file, 1, MAX_NAMES + 1);
  r.dir = file[0];
  int bad = work(&r, file + 1, n - 1, json);
  for (size_t i = 0; i < r.n; i++) cli_launch_free(&r.k[i].launch);
  ny_device_close(r.device);
  ny_arena_free(&r.arena);
  return bad;
}
