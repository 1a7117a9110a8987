/* nybble run: one run, outputs as a table, as JSON or as .npy files. */
#include "cli.h"
#include "verbs.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

static void shape_text(const nyb_tensor *t, char *buf, size_t n) {
  size_t k = (size_t)snprintf(buf, n, "[");
  for (int i = 0; i < t->ndim && k < n; i++)
    k += (size_t)snprintf(buf + k, n - k, "%s%lld", i ? "," : "", (long long)t->shape[i]);
  if (k < n) snprintf(buf + k, n - k, "]");
}

typedef struct summary {
  double min, max, mean;
  int64_t nan;
} summary;

static summary summarise(const nyb_tensor *t) {
  ny_fmt f = ny_module_format(t->dtype);
  summary s = {INFINITY, -INFINITY, 0, 0};
  int64_t n = cli_count(t);
  for (int64_t i = 0; i < n; i++) {
    double x = ny_is_float(f) ? ny_get_f(f, t->data, (uint64_t)i) : (double)ny_get_i(f, t->data, (uint64_t)i);
    if (isnan(x))
      s.nan++;
    else {
      s.min = fmin(s.min, x), s.max = fmax(s.max, x);
      s.mean += x;
    }
  }
  if (n > s.nan) s.mean /= (double)(n - s.nan);
  return s;
}

static int write_outputs(const cli_model *m, const char *dir) {
  if (mkdir(dir, 0777) && errno != EEXIST) return cli_fail("%s: cannot create it: %s", dir, strerror(errno));
  for (size_t i = 0; i < m->info.n_outputs; i++) {
    char path[4096];
    int base = snprintf(path, sizeof path, "%s/", dir);
    int n = snprintf(path + base, sizeof path - (size_t)base, "%s.npy", m->info.outputs[i].name);
    if (n < 0 || (size_t)(base + n) >= sizeof path) return cli_fail("%s: the path is too long", dir);
    for (char *p = path + base; *p; p++)
      if (*p == '/') *p = '_';
    ny_diag d = {0};
    if (cli_npy_write(path, &m->out_t[i], &d)) return cli_diag(&d);
  }
  return CLI_OK;
}

static void table(const cli_model *m, double run_s, bool json) {
  ny_text t = {0};
  if (json)
    ny_text_addf(&t, "{\"device\":\"%s\",\"open_s\":%.6f,\"run_s\":%.6f,\"outputs\":[", cli_device(m), m->open_s,
                 run_s);
  else
    printf("%-24s %-6s %-20s %12s %12s %12s\n", "output", "dtype", "shape", "min", "max", "mean");
  for (size_t i = 0; i < m->info.n_outputs; i++) {
    const nyb_tensor *o = &m->out_t[i];
    char shape[160];
    shape_text(o, shape, sizeof shape);
    summary s = summarise(o);
    if (json) {
      ny_text_add(&t, i ? ",{\"name\":" : "{\"name\":");
      ny_text_json(&t, m->info.outputs[i].name);
      ny_text_addf(&t, ",\"dtype\":\"%s\",\"shape\":%s,\"nan\":%lld", ny_fmts[ny_module_format(o->dtype)].name, shape,
                   (long long)s.nan);
      if (isfinite(s.min) && isfinite(s.max))
        ny_text_addf(&t, ",\"min\":%.9g,\"max\":%.9g,\"mean\":%.9g", s.min, s.max, s.mean);
      ny_text_add(&t, "}");
    } else
      printf("%-24s %-6s %-20s %12.6g %12.6g %12.6g%s\n", m->info.outputs[i].name,
             ny_fmts[ny_module_format(o->dtype)].name, shape, s.min, s.max, s.mean, s.nan ? "  has NaN" : "");
  }
  if (json)
    puts((ny_text_add(&t, "]}"), t.s));
  else
    printf("\nopened in %.1f ms, ran in %.3f ms%s%s\n", m->open_s * 1e3, run_s * 1e3,
           strcmp(cli_device(m), "cpu") ? " on " : "", strcmp(cli_device(m), "cpu") ? cli_device(m) : "");
  ny_text_free(&t);
}

int verb_run(int argc, char **argv) {
  cli_model_options o = {.careful = true};
  const char *file, *out_dir = NULL;
  int json = 0;
  const cli_option opt[] = {
      CLI_MODEL_OPTIONS(o),
      {"--output-dir", CLI_STRING, &out_dir, "DIR", "write NAME.npy per output ('/' becomes '_')"},
      {"--dump", CLI_STRING, &o.dump, "DIR", "write every stage and the generated code"},
      {"--json", CLI_FLAG, &json, NULL, "the table as JSON"}};
  cli_parse("run", opt, NY_COUNT(opt), argc, argv, &file, 1, 1);
  cli_model m;
  int bad = cli_model_open(file, &o, &m);
  if (!bad) {
    double t0 = ny_now();
    nyb_status s = cli_model_run(&m);
    double run_s = ny_now() - t0;
    if (s)
      bad = cli_error(m.cx, s);
    else {
      table(&m, run_s, json);
      if (out_dir) bad = write_outputs(&m, out_dir);
    }
  }
  cli_model_close(&m);
  return bad;
}
