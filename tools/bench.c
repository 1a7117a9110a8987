/* nybble bench: latency of a model. Runs once and checks that a second run gives the same bytes before it times. */
#include "cli.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double at(const double *sorted, int n, double q) { return sorted[(int)(q * (n - 1) + 0.5)]; }

/* A model whose second run differs from its first has a race or reads memory it did not write. */
static int repeatable(cli_model *m) {
  uint8_t first[32], again[32];
  for (int pass = 0; pass < 2; pass++) {
    ny_sha256 h;
    ny_sha256_init(&h);
    nyb_status s = cli_model_run(m);
    if (s) return cli_error(m->cx, s);
    for (size_t i = 0; i < m->info.n_outputs; i++) ny_sha256_add(&h, m->out_t[i].data, cli_tensor_bytes(&m->out_t[i]));
    ny_sha256_end(&h, pass ? again : first);
  }
  return memcmp(first, again, 32) ? cli_fail("two runs on the same inputs gave different bytes") : CLI_OK;
}

/* Of this program alone: what getrusage says starts with what the parent held when it forked us. */
static double peak_resident(void) {
  char line[256];
  double kb = 0;
  FILE *f = fopen("/proc/self/status", "r");
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "VmHWM: %lf", &kb) == 1) break;
  if (f) fclose(f);
  return kb * 1024;
}

static int measure(cli_model *m, double seconds, int json) {
  int cap = 100000, n = 0;
  double *t = malloc(sizeof *t * (size_t)cap), start = ny_now();
  if (!t) return cli_fail("out of memory");
  while (n < cap && (n < 5 || ny_now() - start < seconds)) {
    double t0 = ny_now();
    nyb_status s = cli_model_run(m);
    t[n++] = ny_now() - t0;
    if (s) return free(t), cli_error(m->cx, s);
  }
  qsort(t, (size_t)n, sizeof *t, ascending);
  nyb_session_stats st = {.size = sizeof st};
  if (m->session) nyb_session_describe(m->session, &st);
  double rss = peak_resident();
  if (json)
    printf("{\"device\":\"%s\",\"runs\":%d,\"threads\":%d,\"median_ms\":%.6f,\"p10_ms\":%.6f,\"p90_ms\":%.6f,\"open_"
           "ms\":%.3f,\"arena_"
           "bytes\":%llu,\"scratch_bytes\":%llu,\"weight_bytes\":%llu,\"peak_rss_bytes\":%.0f}\n",
           cli_device(m), n, st.threads, at(t, n, .5) * 1e3, at(t, n, .1) * 1e3, at(t, n, .9) * 1e3, m->open_s * 1e3,
           (unsigned long long)st.arena_bytes, (unsigned long long)st.scratch_bytes,
           (unsigned long long)st.weight_bytes, rss);
  else {
    char a[32], w[32], r[32];
    printf("latency   median %.3f ms   p10 %.3f   p90 %.3f   (%d runs, %d threads)\n", at(t, n, .5) * 1e3,
           at(t, n, .1) * 1e3, at(t, n, .9) * 1e3, n, st.threads);
    printf("memory    arena %s   weights %s   peak RSS %s\n", cli_bytes((double)(st.arena_bytes + st.scratch_bytes), a),
           cli_bytes((double)st.weight_bytes, w), cli_bytes(rss, r));
    printf("opened in %.1f ms", m->open_s * 1e3);
    puts(m->module && m->module->device ? (printf(" on %s", m->info.device), "") : "");
  }
  free(t);
  return CLI_OK;
}

static int slowest_first(const void *a, const void *b) {
  double x = (*(const nyb_kernel_time *const *)a)->seconds, y = (*(const nyb_kernel_time *const *)b)->seconds;
  return x < y ? 1 : x > y ? -1 : 0;
}

static void kernel_row(const nyb_kernel_time *k, double total, uint64_t runs, int json, bool first) {
  double per_run = k->seconds / (double)runs * 1e3;
  if (!json) {
    printf("%9.4f %6.1f %7llu  %-10s %s\n", per_run, 100 * k->seconds / total, (unsigned long long)(k->calls / runs),
           k->family, k->name);
    return;
  }
  ny_text t = {0};
  ny_text_json(&t, k->name);
  printf("%s{\"kernel\":%s,\"family\":\"%s\",\"ms\":%.6f,\"calls\":%llu}", first ? "" : ",", t.s, k->family, per_run,
         (unsigned long long)(k->calls / runs));
  ny_text_free(&t);
}

/* Where the time of a run goes, from a session that keeps it; timing costs a little itself, so the latency above is
   measured without. */
static int kernels(cli_model *m, int json) {
  enum { RUNS = 20 };
  int bad = cli_model_session(m, true);
  for (int i = 0; i < RUNS && !bad; i++) {
    nyb_status s = cli_model_run(m);
    if (s) bad = cli_error(m->cx, s);
  }
  const nyb_kernel_time *t;
  size_t n;
  if (bad || nyb_session_profile(m->session, &t, &n)) return CLI_FAILED;
  const nyb_kernel_time **row = calloc(n + 1, sizeof *row);
  if (!row) return cli_fail("out of memory");
  double total = 0;
  for (size_t i = 0; i < n; i++) row[i] = &t[i], total += t[i].seconds;
  qsort(row, n, sizeof *row, slowest_first);
  fputs(json ? "[" : "\n       ms      %   calls  family     kernel\n", stdout);
  for (size_t i = 0; i < n; i++) kernel_row(row[i], total, RUNS, json, !i);
  if (json) puts("]");
  free(row);
  return CLI_OK;
}

int verb_bench(int argc, char **argv) {
  cli_model_options o = {0};
  const char *file;
  int json = 0, ms = 2000, each = 0;
  const cli_option opt[] = {CLI_MODEL_OPTIONS(o),
                            {"--ms", CLI_COUNT, &ms, "N", "measure for this many milliseconds (default 2000)"},
                            {"--kernels", CLI_FLAG, &each, NULL, "then the time of each kernel"},
                            {"--json", CLI_FLAG, &json, NULL, "the table as JSON (with --kernels a second line)"}};
  cli_parse("bench", opt, NY_COUNT(opt), argc, argv, &file, 1, 1);
  if (each && o.evaluate) cli_usage("bench", "--kernels: the evaluator has none");
  cli_model m;
  int bad = cli_model_open(file, &o, &m);
  if (!bad) bad = repeatable(&m);
  if (!bad) bad = measure(&m, ms / 1e3, json);
  if (!bad && each) bad = kernels(&m, json);
  cli_model_close(&m);
  return bad;
}
