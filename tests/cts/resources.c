/* Memory, time and handles: limits hold, what a session says it has is what it takes, and nothing is left behind. */
#include "cts.h"
#include <dirent.h>
#include <malloc.h>
#include <math.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static nyb_session_stats stats_of(const nyb_session *s) {
  nyb_session_stats t = {.size = sizeof t};
  CHECK(!nyb_session_describe(s, &t), "describe");
  return t;
}

/* ---- limits */
static void memory_limit(void) {
  nyb_module *m = cts_load("bias");
  nyb_session *s = NULL;
  MUST(m, "no module");
  nyb_dim n = {"N", 100000};
  nyb_session_options o = {.size = sizeof o, .threads = 1, .dims = &n, .n_dims = 1, .max_bytes = 1000};
  cts_refused(nyb_session_open(m, &o, &s), NYB_E_LIMIT, "max");
  CHECK(!s, "there is no session");
  o.max_bytes = 4 << 20;
  MUST(!nyb_session_open(m, &o, &s), "%s", cts_why());
  n.size = 10000000;
  cts_refused(nyb_session_prepare(s, &n, 1), NYB_E_LIMIT, "max");
  cts_bias v;
  cts_bias_make(&v, 99999, 0);
  CHECK(!cts_bias_run(s, &v) && cts_bias_right(&v), "what was prepared before still runs: %s", cts_why());
  cts_bias_free(&v);
  nyb_session_close(s);
  n.size = INT64_C(1) << 45; /* more than any machine has, and nothing that overflows */
  o.max_bytes = 0;
  s = NULL;
  cts_refused(nyb_session_open(m, &o, &s), NYB_E_LIMIT, "");
  nyb_module_close(m);
}

static nyb_status run_endless(nyb_session *s, float until, float *last) {
  float x = -1;
  int64_t n = 1;
  nyb_dtype f32 = {NYB_FLOAT, 32, 1};
  nyb_tensor in[2] = {{&x, {1, 0}, 1, f32, &n, NULL, 0}, {&until, {1, 0}, 0, f32, NULL, NULL, 0}}, out[1] = {{0}};
  nyb_status e = nyb_run(s, in, 2, out, 1);
  *last = e ? 0 : *(float *)out[0].data;
  return e;
}

static void time_limit(void) {
  nyb_module *m = cts_load("endless");
  nyb_session_options o = {.size = sizeof o, .threads = 1, .max_seconds = 0.25};
  nyb_session *s = m ? cts_open(m, NULL, 0, &o) : NULL;
  MUST(s, "no session");
  float last;
  CHECK(!run_endless(s, 2, &last) && last == 2, "a short loop ends by itself, at %g: %s", (double)last, cts_why());
  for (int i = 0; i < 2; i++) {
    double start = now();
    cts_refused(run_endless(s, INFINITY, &last), NYB_E_LIMIT, "seconds");
    CHECK(now() - start >= 0.25 && now() - start < 30, "it took %g seconds", now() - start);
  }
  CHECK(!run_endless(s, 1, &last) && last == 1, "a session survives its errors: %s", cts_why());
  nyb_session_close(s);
  nyb_module_close(m);
}

/* A loop that nothing would end is refused before it begins. */
static void loop_limit(void) {
  nyb_module *m = cts_load("forever");
  nyb_session *s = m ? cts_open(m, NULL, 0, &(nyb_session_options){.threads = 1, .max_seconds = 0.05}) : NULL;
  nyb_dim n = {"N", INT64_C(1) << 30};
  MUST(s, "no session");
  cts_refused(nyb_session_prepare(s, &n, 1), NYB_E_LIMIT, "loop");
  n.size = 50;
  CHECK(!nyb_session_prepare(s, &n, 1), "%s", cts_why());
  int64_t x[4] = {0}, four = 4, count = 50;
  int8_t t[50] = {0};
  nyb_tensor in[2] = {{x, {1, 0}, 1, {NYB_INT, 64, 1}, &four, NULL, 0},
                      {t, {1, 0}, 1, {NYB_INT, 8, 1}, &count, NULL, 0}};
  nyb_tensor out[2] = {{0}};
  cts_refused(nyb_run(s, in, 2, out, 2), NYB_E_LIMIT, "seconds");
  count = 0;
  CHECK(!nyb_run(s, in, 2, out, 2) && *(int64_t *)out[0].data == 0, "%s", cts_why());
  nyb_session_close(s);
  nyb_module_close(m);
}

/* ---- profiles */
static void profile_of(const char *name, bool straight) {
  cts_model *m = cts_model_find(name);
  nyb_module *module = cts_model_expect(m) ? cts_load(name) : NULL;
  nyb_module_info info = {.size = sizeof info};
  nyb_session_options o = {.threads = 2, .profile = 1};
  const cts_record *r = &m->record[1];
  nyb_session *s = module ? cts_open(module, r->dims, r->n_dims, &o) : NULL;
  const nyb_kernel_time *t;
  size_t n = 0;
  nyb_tensor out[CTS_VALUES] = {{0}};
  MUST(s && !nyb_module_describe(module, &info), "no session");
  MUST(!nyb_session_profile(s, &t, &n) && n == info.n_kernels, "%zu rows of %zu kernels", n, info.n_kernels);
  for (size_t i = 0; i < n; i++) CHECK(t[i].calls == 0 && t[i].seconds == 0, "before the first run");
  for (int i = 0; i < 3; i++) CHECK(!cts_run(s, r, out) && cts_results(m, r, out), "%s", cts_why());
  const nyb_kernel_time *later;
  CHECK(!nyb_session_profile(s, &later, &n) && later == t, "the rows stay where they are");
  uint64_t calls = 0;
  bool two_ways = false; /* launches that sizes may merge: the kernels of one way are not called */
  for (size_t i = 0; i < n; i++) two_ways |= !strcmp(t[i].family, "merged");
  for (size_t i = 0; i < n; i++) {
    calls += t[i].calls;
    CHECK(t[i].name && *t[i].name && t[i].family && *t[i].family, "row %zu has no name", i);
    CHECK(t[i].calls % 3 == 0 && (t[i].seconds > 0) == (t[i].calls > 0) && t[i].seconds < 60, "%s: %llu calls, %g s",
          t[i].name, (unsigned long long)t[i].calls, t[i].seconds);
    CHECK(!straight || two_ways || t[i].calls >= 3, "%s was called %llu times", t[i].name, (unsigned long long)t[i].calls);
  }
  CHECK(calls >= 3, "%llu calls", (unsigned long long)calls);
  nyb_session_close(s);
  s = cts_open(module, r->dims, r->n_dims, NULL);
  CHECK(s && !nyb_session_profile(s, &t, &n) && n == 0, "no rows without the option");
  CHECK(nyb_session_profile(NULL, &t, &n) == NYB_E_ARGUMENT && nyb_session_profile(s, NULL, &n) == NYB_E_ARGUMENT,
        "null arguments");
  nyb_session_close(s);
  nyb_module_close(module);
}

static void profile(void) {
  profile_of("network", true);
  profile_of("loop", false);
}

/* ---- what a session takes */
static uint64_t mapped(void) {
  unsigned long long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f || fscanf(f, "%llu", &pages) != 1) pages = 0;
  if (f) fclose(f);
  return pages * 4096;
}

static uint64_t taken(void) { return cts_on_cpu() ? mapped() : cts_driver_used(); }

static void memory(void) {
  nyb_module *m = cts_load("network");
  nyb_module_info info = {.size = sizeof info};
  nyb_device_id id;
  nyb_dim dims[] = {{"B", 8}, {"S", 256}};
  nyb_session_options o = {.threads = 1};
  MUST(m && !nyb_module_describe(m, &info), "no module");
  bool counted = cts_on_cpu() || (cts_driver_open(&id) && cts_driver_simulated());
  nyb_session *s = cts_open(m, dims, 2, &o);
  nyb_session_close(s);
  uint64_t before = counted ? taken() : 0;
  s = cts_open(m, dims, 2, &o);
  MUST(s, "no session");
  uint64_t took = counted ? taken() - before : 0;
  nyb_session_stats t = stats_of(s), u;
  uint64_t said = t.arena_bytes + t.scratch_bytes, results = 8 * (32 + 256 * 32) * 4;
  CHECK(t.threads == 1 && t.weight_bytes == info.weight_bytes && t.weight_bytes >= 32 * 96 * 4,
        "%d threads, %llu bytes", t.threads, (unsigned long long)t.weight_bytes);
  CHECK(t.arena_bytes >= results, "%llu bytes for %llu of results", (unsigned long long)t.arena_bytes,
        (unsigned long long)results);
  CHECK(!counted || took <= said + (64 << 10), "it took %llu bytes and says %llu", (unsigned long long)took,
        (unsigned long long)said);
  CHECK(!counted || !cts_on_cpu() || took >= said, "it took %llu bytes and says %llu", (unsigned long long)took,
        (unsigned long long)said);
  dims[1].size = 300;
  CHECK(!nyb_session_prepare(s, dims, 2), "%s", cts_why());
  u = stats_of(s);
  CHECK(u.arena_bytes > t.arena_bytes, "more room after prepare");
  dims[1].size = 10;
  CHECK(!nyb_session_prepare(s, dims, 2) && stats_of(s).arena_bytes == u.arena_bytes, "memory only grows");
  nyb_session_close(s);
  o.max_bytes = u.arena_bytes + u.scratch_bytes; /* what it says is enough */
  dims[1].size = 300;
  s = cts_open(m, dims, 2, &o);
  nyb_session_stats old = {.size = sizeof old.size + sizeof old.arena_bytes, .threads = 77};
  CHECK(s && !nyb_session_describe(s, &old) && old.threads == 77 && old.arena_bytes, "an older caller's struct");
  CHECK(nyb_session_describe(NULL, &t) == NYB_E_ARGUMENT && nyb_session_describe(s, NULL) == NYB_E_ARGUMENT,
        "null arguments");
  nyb_session_close(s);
  nyb_module_close(m);
}

/* Runs take nothing: not on the device, and not on the heap. */
static void runs_take_nothing(void) {
  cts_model *m = cts_model_find("loop");
  nyb_module *module = cts_model_expect(m) ? cts_load("loop") : NULL;
  nyb_session *s = module ? cts_open(module, m->record[1].dims, m->record[1].n_dims, NULL) : NULL;
  nyb_device_id id;
  nyb_tensor out[CTS_VALUES] = {{0}};
  MUST(s, "no session");
  for (int i = 0; i < 3; i++) CHECK(!cts_run(s, &m->record[1], out), "%s", cts_why());
  nyb_session_stats t = stats_of(s), u;
  bool device = cts_driver_open(&id) && cts_driver_simulated();
  uint64_t there = device ? cts_driver_used() : 0;
  size_t heap = cts_on_cpu() ? mallinfo2().uordblks : 0;
  for (int i = 0; i < 20; i++) CHECK(!cts_run(s, &m->record[1], out), "%s", cts_why());
  size_t after = cts_on_cpu() ? mallinfo2().uordblks : 0;
  CHECK(after == heap, "twenty runs took %zd bytes of the heap", (ssize_t)(after - heap));
  CHECK(!device || cts_driver_used() == there, "and memory of the device");
  u = stats_of(s);
  CHECK(u.arena_bytes == t.arena_bytes && u.scratch_bytes == t.scratch_bytes, "and of the session");
  nyb_session_close(s);
  nyb_module_close(module);
}

/* ---- what is left */
#if defined(__SANITIZE_ADDRESS__)
enum { KEEPS_FREED = 1 }; /* address space that was freed is not given back */
#elif defined(__has_feature)
enum { KEEPS_FREED = __has_feature(address_sanitizer) };
#else
enum { KEEPS_FREED = 0 };
#endif

static int entries(const char *folder) {
  DIR *d = opendir(folder);
  int n = 0;
  while (d && readdir(d)) n++;
  if (d) closedir(d);
  return n;
}

static void cycle(void) {
  static const char *const names[] = {"weights", "branch", "loop"};
  for (size_t i = 0; i < COUNT(names); i++) {
    cts_model *m = cts_model_find(names[i]);
    nyb_module *module = cts_model_expect(m) ? cts_load(names[i]) : NULL;
    const cts_record *r = &m->record[1];
    nyb_session *s[2] = {0};
    nyb_tensor out[CTS_VALUES] = {{0}};
    if (!module) return;
    for (int k = 0; k < 2; k++) s[k] = cts_open(module, r->dims, r->n_dims, NULL);
    for (int k = 0; k < 4; k++) CHECK(!cts_run(s[k % 2], r, out), "%s", cts_why());
    out[0] = (nyb_tensor){.dtype = {NYB_UINT, 2, 1}, .data = out};
    CHECK(cts_run(s[0], r, out) == NYB_E_TYPE, "a run that fails leaves nothing either: %s", cts_why());
    for (int k = 0; k < 2; k++) nyb_session_close(s[k]);
    nyb_module_close(module);
  }
}

static void nothing_left(void) {
  nyb_device_id id;
  nyb_module *m = cts_load("bias");
  bool device = cts_driver_open(&id); /* keeps the context alive */
  nyb_module_close(m);
  cycle();
  cycle();
  int files = entries("/proc/self/fd"), tasks = entries("/proc/self/task");
  uint64_t used = device ? cts_driver_used() : 0, objects = cts_driver_objects(), pages = mapped();
  size_t heap = mallinfo2().uordblks;
  for (int i = 0; i < 8; i++) cycle();
  CHECK(entries("/proc/self/fd") == files, "%d files more", entries("/proc/self/fd") - files);
  CHECK(entries("/proc/self/task") == tasks, "%d threads more", entries("/proc/self/task") - tasks);
  bool pools = device && !cts_driver_simulated(); /* a real driver keeps memory for itself */
  bool loose = pools || KEEPS_FREED;
  uint64_t slack = pools ? 32 << 20 : 0;
  CHECK(!device || cts_driver_used() <= used + slack, "%llu bytes of the device",
        (unsigned long long)(cts_driver_used() - used));
  CHECK(cts_driver_objects() == objects, "%llu handles of the driver",
        (unsigned long long)(cts_driver_objects() - objects));
  CHECK(loose || mapped() <= pages + (8 << 20), "%llu bytes of address space", (unsigned long long)(mapped() - pages));
  CHECK(pools || mallinfo2().uordblks <= heap + 4096, "%zd bytes of the heap", (ssize_t)(mallinfo2().uordblks - heap));
}

const cts_case cts_resources[] = {{"memory_limit", memory_limit},
                                  {"time_limit", time_limit},
                                  {"loop_limit", loop_limit},
                                  {"profile", profile},
                                  {"memory", memory},
                                  {"runs_take_nothing", runs_take_nothing},
                                  {"nothing_left", nothing_left},
                                  {NULL, NULL}};
