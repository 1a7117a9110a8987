/* cts DEVICE: does a device behave as the API promises? Results of every family of kernels, then what the API says of
   tensors, sessions, sizes, limits and errors: the same cases on every device.
   usage: cts DEVICE [--modules DIR] [CASE...]     cpu, cuda[:N], sim[:PROFILE]; without a compiler, modules of --make
          cts --make DIR [--target LIST]           modules for several devices, with the results they have to give; the
   list has cpu in it, or what the simulator runs cts --list */
#include "cts.h"
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

nyb_context *cts_cx;
const char *cts_device;
static atomic_int n_wrong; /* of the running case */
static int n_passed, n_failed;

bool cts_fail(const char *file, int line, const char *condition, const char *fmt, ...) {
  if (atomic_fetch_add(&n_wrong, 1) >= 5) return false;
  char text[1400];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  const char *slash = strrchr(file, '/');
  fprintf(stderr, "%s:%d: %s: %s\n", slash ? slash + 1 : file, line, condition, text);
  return false;
}

const char *cts_why(void) {
  const nyb_error *e = nyb_last_error(cts_cx);
  return e ? e->text : "no error";
}

bool cts_refused(nyb_status got, nyb_status want, const char *part) {
  const nyb_error *e = nyb_last_error(cts_cx);
  return CHECK(got == want, "%s instead of %s: %s", nyb_status_text(got), nyb_status_text(want),
               got ? cts_why() : "") &&
         CHECK(e && e->code == want, "the last error is another") &&
         CHECK(strstr(e->message, part), "%s does not say %s", e->message, part);
}

bool cts_on_cpu(void) { return !strcmp(cts_device, "cpu"); }

/* ---- results: in memory of the session and of the caller, again and again, and with sizes that come back */
nyb_session *cts_open(nyb_module *m, const nyb_dim *dims, size_t n, const nyb_session_options *more) {
  nyb_session_options o = {.size = sizeof o, .threads = 2};
  if (more) o = *more;
  o.size = sizeof o;
  o.dims = dims;
  o.n_dims = n;
  nyb_session *s = NULL;
  CHECK(!nyb_session_open(m, &o, &s), "%s", cts_why());
  return s;
}

nyb_status cts_run(nyb_session *s, const cts_record *r, nyb_tensor *out) {
  nyb_tensor in[CTS_VALUES];
  for (size_t i = 0; i < r->n_in; i++) {
    in[i] = r->in[i].t;
    in[i].shape = (int64_t *)r->in[i].shape;
  }
  return nyb_run(s, in, r->n_in, out, r->n_out);
}

bool cts_results(const cts_model *m, const cts_record *r, const nyb_tensor *out) {
  bool good = true;
  for (size_t i = 0; i < r->n_out; i++) {
    char what[200];
    int n = snprintf(what, sizeof what, "%s: output %zu", m->name, i);
    for (size_t d = 0; d < r->n_dims; d++)
      n += snprintf(what + n, sizeof what - (size_t)n, "%s%s=%lld", d ? " " : " with ", r->names[d],
                    (long long)r->dims[d].size);
    good &= cts_value_same(&out[i], &r->out[i], m->exact, what);
  }
  return good;
}

static bool run_own(nyb_session *s, const cts_model *m, const cts_record *r, cts_value *first) {
  nyb_tensor out[CTS_VALUES] = {{0}};
  if (!CHECK(!cts_run(s, r, out), "%s: %s", m->name, cts_why())) return false;
  if (!first->t.data) {
    for (size_t i = 0; i < r->n_out; i++) {
      cts_value_make(&first[i], r->out[i].t.dtype, r->out[i].t.ndim, r->out[i].shape, 0);
      if (first[i].bytes) memcpy(first[i].t.data, out[i].data, first[i].bytes);
    }
    return cts_results(m, r, out);
  }
  for (size_t i = 0; i < r->n_out; i++)
    if (!CHECK(!first[i].bytes || !memcmp(out[i].data, first[i].t.data, first[i].bytes),
               "%s: output %zu has other bits in a later run", m->name, i))
      return false;
  return true;
}

static bool run_mine(nyb_session *s, const cts_model *m, const cts_record *r) {
  cts_value mine[CTS_VALUES];
  nyb_tensor out[CTS_VALUES];
  for (size_t i = 0; i < r->n_out; i++) {
    cts_value_make(&mine[i], r->out[i].t.dtype, r->out[i].t.ndim, r->out[i].shape, i % 2 * 8);
    out[i] = mine[i].t;
    out[i].shape = mine[i].shape;
  }
  bool good = CHECK(!cts_run(s, r, out), "%s: %s", m->name, cts_why()) && cts_results(m, r, out);
  for (size_t i = 0; i < r->n_out; i++) {
    good &= !good || CHECK(out[i].data == mine[i].t.data, "%s: output %zu went elsewhere", m->name, i);
    good &= CHECK(cts_value_guarded(&mine[i]), "%s: output %zu: something is written outside of it", m->name, i);
    cts_value_free(&mine[i]);
  }
  return good;
}

static bool run_record(nyb_session *s, const cts_model *m, const cts_record *r) {
  cts_value first[CTS_VALUES] = {{.bytes = 0}};
  bool good = true;
  for (int again = 0; good && again < 3; again++) good = run_own(s, m, r, first);
  for (int again = 0; good && again < 2; again++) good = run_mine(s, m, r);
  good = good && run_own(s, m, r, first);
  for (size_t i = 0; i < r->n_out; i++) cts_value_free(&first[i]);
  return good;
}

static void results(cts_model *m) {
  nyb_module *module = cts_model_expect(m) ? cts_load(m->name) : NULL;
  if (!module) return;
  nyb_session *s = cts_open(module, m->record->dims, m->record->n_dims, NULL);
  bool good = s != NULL;
  for (size_t k = 0; good && k < m->n_records; k++)
    good = CHECK(!nyb_session_prepare(s, m->record[k].dims, m->record[k].n_dims), "%s: %s", m->name, cts_why()) &&
           run_record(s, m, &m->record[k]);
  for (size_t k = m->n_records; good && k-- > 0;) { /* memory only grows: what was prepared stays so */
    nyb_tensor out[CTS_VALUES] = {{0}};
    good = CHECK(!cts_run(s, &m->record[k], out), "%s: %s", m->name, cts_why()) && cts_results(m, &m->record[k], out);
  }
  nyb_session_close(s);
  nyb_module_close(module);
}

/* ---- the table */
static const cts_case *const tables[] = {cts_tensors, cts_sessions, cts_flow, cts_resources};

static void end_case(const char *name) {
  int wrong = atomic_load(&n_wrong);
  if (wrong) fprintf(stderr, "cts %s: %s failed (%d)\n", cts_device, name, wrong);
  *(wrong ? &n_failed : &n_passed) += 1;
}

static bool wanted(const char *name, char **names, int n) {
  for (int i = 0; i < n; i++)
    if (!strcmp(names[i], name)) return true;
  return !n;
}

static void run_cases(char **names, int n) {
  for (size_t i = 0; i < cts_n_models; i++) {
    if (!wanted(cts_models[i].name, names, n)) continue;
    n_wrong = 0;
    results(&cts_models[i]);
    end_case(cts_models[i].name);
  }
  for (size_t t = 0; t < COUNT(tables); t++)
    for (const cts_case *c = tables[t]; c->name; c++) {
      if (!wanted(c->name, names, n)) continue;
      n_wrong = 0;
      c->run();
      end_case(c->name);
    }
}

static void list(void) {
  for (size_t i = 0; i < cts_n_models; i++) printf("%s\n", cts_models[i].name);
  for (size_t t = 0; t < COUNT(tables); t++)
    for (const cts_case *c = tables[t]; c->name; c++) printf("%s\n", c->name);
}

static bool all_known(char **names, int n) {
  for (int i = 0; i < n; i++) {
    bool known = false;
    for (size_t k = 0; k < cts_n_models; k++) known |= !strcmp(cts_models[k].name, names[i]);
    for (size_t t = 0; t < COUNT(tables); t++)
      for (const cts_case *c = tables[t]; c->name; c++) known |= !strcmp(c->name, names[i]);
    if (!CHECK(known, "there is no case %s", names[i])) return false;
  }
  return true;
}

static int usage(void) {
  fputs("usage: cts DEVICE [--modules DIR] [CASE...] | cts --make DIR [--target LIST] | cts --list\n", stderr);
  return 2;
}

int main(int argc, char **argv) {
  const char *make = NULL, *target = "cpu,sm_80,sm_90a,sm_100f,sm_120f";
  char *rest[64];
  int n = 0;
  bool only_list = false;
  for (int i = 1; i < argc; i++) {
    const char **value = !strcmp(argv[i], "--make")      ? &make
                         : !strcmp(argv[i], "--target")  ? &target
                         : !strcmp(argv[i], "--modules") ? &cts_modules
                                                         : NULL;
    if (value && i + 1 < argc)
      *value = argv[++i];
    else if (!strcmp(argv[i], "--list"))
      only_list = true;
    else if (argv[i][0] == '-' || n == (int)COUNT(rest))
      return usage();
    else
      rest[n++] = argv[i];
  }
  if (!n && !make && !only_list) return usage();
  nyb_options o = {.size = sizeof o};
  if (nyb_open(&o, &cts_cx)) return 2;
  cts_models_read();
  cts_device = n ? rest[0] : make && !strstr(target, "cpu") ? "sim" : "cpu";
  if (n && !all_known(rest + 1, n - 1)) return usage();
  bool compiler = false;
  const char *missing = n && !make ? cts_missing(&compiler) : NULL;
  if (missing) printf("cts %s: nothing is tested, %s\n", cts_device, missing);
  n_failed = missing && !compiler;
  if (only_list)
    list();
  else if (make)
    n_failed = !cts_make(make, target);
  else if (!missing)
    run_cases(rest + 1, n - 1);
  cts_driver_close();
  cts_models_free();
  nyb_close(cts_cx);
  if (!only_list && !make) printf("cts %s: %d passed, %d failed\n", cts_device, n_passed, n_failed);
  return n_failed != 0;
}
