/* What the families make for a GPU, against the reference evaluator: each case of the files below is evaluated as it stands, then lowered
   for a GPU and its tile programs are run by the evaluator. A case may name the family that has to take it and least values of its kernel's knobs:
   `;; kernel family threads=32`. NYBBLE_TEST_DUMP=case prints its kernels. With `cuda TARGET` the kernels are compiled
   and run in the simulator under all its checks instead. Usage: gpu_test [cuda TARGET] [part of a case's name]. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "simulate.h"
#include "test.h"

enum { MAX_IN = 8, MAX_OUT = 4, MAX_SIZES = 8 };
typedef struct tc {
  const char *name, *text, *kernel;
  const char *sizes[MAX_SIZES];
} tc;

static const ny_target targets[] = {
    {.name = "sm_80", .vec_bytes = 16, .n_vregs = 64, .masked = true, .l1d = 163 << 10, .l2 = 40 << 20, .threads = 1, .sm = 80, .shared = 163 << 10},
    {.name = "sm_120f", .vec_bytes = 16, .n_vregs = 64, .masked = true, .l1d = 99 << 10, .l2 = 96 << 20, .threads = 1, .sm = 120, .shared = 99 << 10, .fp4 = true},
};

static const ny_target *device; /* NULL: tile programs are evaluated */

static size_t read_sizes(ny_ctx *cx, const char *text, ny_binding *env) {
  size_t n = 0;
  for (const char *p = text; p && *p;) {
    const char *eq = strchr(p, '=');
    char *end;
    env[n].sym = ny_internn(&cx->names, p, (size_t)(eq - p));
    env[n++].value = strtoll(eq + 1, &end, 10);
    for (p = end; *p == ' ';) p++;
  }
  return n;
}

static double uniform(uint32_t *s) { return (double)((*s = *s * 1664525u + 1013904223u) >> 8) / (1 << 24); }

static ny_tensor random_input(ny_ctx *cx, ny_arena *a, const ny_type *t, const ny_binding *env, size_t n_env, uint32_t seed) {
  ny_type s = *t;
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) {
    if (!ny_dim_eval(cx, t->dim[i], env, n_env, &s.dim[i])) s.dim[i] = 1;
    n *= s.dim[i];
  }
  ny_tensor x = {ny_type_get(cx, s), ny_alloc(a, ny_fmt_bytes((ny_fmt)t->fmt, (uint64_t)n) + 16)};
  uint32_t state = seed * 2654435761u + 1;
  for (int64_t i = 0; i < n; i++) {
    double v = uniform(&state) + uniform(&state) + uniform(&state) + uniform(&state) - 2;
    if (ny_is_float((ny_fmt)t->fmt)) ny_put_f((ny_fmt)t->fmt, x.data, (uint64_t)i, v * 1.7, false);
    else ny_put_i((ny_fmt)t->fmt, x.data, (uint64_t)i, (int64_t)(v * 20));
  }
  return x;
}

static double get(ny_fmt f, const void *p, uint64_t i) { return ny_is_float(f) ? ny_get_f(f, p, i) : (double)ny_get_i(f, p, i); }

/* The largest difference, relative to the largest element. */
static double error_of(ny_tensor a, ny_tensor b) {
  ny_fmt f = (ny_fmt)a.type->fmt;
  uint64_t n = 1;
  double top = 0, worst = 0;
  if (a.type != b.type) return 1;
  for (int i = 0; i < a.type->rank; i++) n *= (uint64_t)a.type->dim[i];
  for (uint64_t i = 0; i < n; i++) {
    double x = get(f, a.data, i), y = get(f, b.data, i);
    if (isnan(x) != isnan(y) || (isinf(y) && x != y)) return 1;
    if (!isfinite(y)) continue;
    if (fabs(y) > top) top = fabs(y);
    if (!(fabs(x - y) <= worst)) worst = fabs(x - y);
  }
  return worst > 0 ? worst / (top > 0 ? top : 1) : 0;
}

static double tolerance_of(ny_fmt f) {
  if (!ny_is_float(f)) return 0;
  return f == NY_f64 ? 1e-12 : f == NY_f16 ? 4e-3 : f == NY_bf16 ? 3e-2 : 2e-5;
}

/* Some kernel of the unit is of the family and has the knobs at least at the values named. */
static bool has_kernel(const ny_unit *u, const char *want) {
  char text[200];
  for (const ny_graph *k = u->first->next; k; k = k->next) {
    snprintf(text, sizeof text, "%s", want);
    bool fits = true;
    for (char *w = strtok(text, " "); w; w = strtok(NULL, " ")) {
      char *eq = strchr(w, '=');
      if (eq) *eq = 0;
      if (eq) fits &= ny_knob(k, w, 0) >= strtoll(eq + 1, NULL, 10);
      else fits &= !strcmp(k->family, w);
    }
    if (fits) return true;
  }
  return false;
}

static void show(const ny_unit *u) {
  ny_text t = {0};
  ny_print_unit(u, &t);
  puts(t.s);
  ny_text_free(&t);
}

static void compare(const tc *c, const char *sizes, const char *target, size_t i, ny_tensor got, ny_tensor want) {
  double err = error_of(got, want), most = tolerance_of((ny_fmt)got.type->fmt);
  CHECK(err <= most, "%s [%s] for %s: result %zu: error %g, allowed %g", c->name, sizes ? sizes : "", target, i, err, most);
}

/* In the simulator, with every buffer between guard bytes. */
static void simulated(ny_ctx *cx, const tc *c, const char *sizes, ny_unit *u, const ny_tensor *in, const ny_tensor *want, const ny_binding *env, size_t n_env) {
  exec x = {0};
  ny_diag d = {0};
  size_t n = u->first->body.last->n_in;
  nyb_status s = exec_open(&x, u, NULL, env, n_env, in, u->first->body.n_arg, NULL);
  CHECK(!s, "%s [%s]: %s", c->name, sizes ? sizes : "", cx->diag.message);
  if (!s) s = simulate_run(&x, device, &(simulate_schedule){.name = "as lowered"}, false, &d);
  CHECK(!s, "%s [%s] on %s: %s", c->name, sizes ? sizes : "", device->name, d.message);
  for (size_t i = 0; i < n && !s; i++) compare(c, sizes, device->name, i, exec_result(&x, i), want[i]);
  const char *hit = s ? NULL : exec_guards(&x);
  CHECK(!hit, "%s [%s]: %s was written outside its bounds", c->name, sizes ? sizes : "", hit);
  exec_close(&x);
}

static void lowered(ny_ctx *cx, const tc *c, const char *sizes, const ny_target *target, const ny_tensor *in, const ny_tensor *want, const ny_binding *env,
                    size_t n_env, ny_arena *a) {
  ny_unit *u = NULL;
  ny_tensor got[MAX_OUT];
  ny_pass_options o = {.target = target, .opt = 1, .verify_each = true, .until = "tile"};
  nyb_status s = ny_parse_unit(cx, c->text, strlen(c->text), NULL, &u);
  if (!s) s = ny_run_passes(u, &o);
  const char *dump = getenv("NYBBLE_TEST_DUMP");
  if (!s && dump && !strcmp(dump, c->name)) show(u);
  if (!s && c->kernel) CHECK(has_kernel(u, c->kernel), "%s for %s: no kernel is %s", c->name, target->name, c->kernel);
  size_t n = s || device ? 0 : u->first->body.last->n_in;
  if (!s && device) simulated(cx, c, sizes, u, in, want, env, n_env);
  if (!s && !device) s = ny_eval_graph(u->first, in, u->first->body.n_arg, a, 1ull << 30, got, n);
  CHECK(!s, "%s [%s] for %s: %s", c->name, sizes ? sizes : "", target->name, cx->diag.message);
  for (size_t i = 0; i < n && !s; i++) compare(c, sizes, target->name, i, got[i], want[i]);
  ny_diag_clear(&cx->diag);
  if (u) ny_unit_free(u);
}

static void one(const tc *c, const char *sizes) {
  ny_ctx *cx = ny_ctx_new();
  ny_arena a = {0};
  ny_unit *u = NULL;
  ny_binding env[MAX_SIZES];
  ny_tensor in[MAX_IN], want[MAX_OUT];
  size_t n_env = read_sizes(cx, sizes, env);
  nyb_status s = ny_parse_unit(cx, c->text, strlen(c->text), NULL, &u);
  if (!s) s = ny_verify_unit(u);
  CHECK(!s, "%s: line %d: %s", c->name, cx->diag.line, cx->diag.message);
  if (!s) {
    ny_graph *g = u->first;
    for (uint32_t i = 0; i < g->body.n_arg; i++) in[i] = random_input(cx, &a, g->body.arg[i]->type, env, n_env, i + 1);
    s = ny_eval_graph(g, in, g->body.n_arg, &a, 1ull << 30, want, g->body.last->n_in);
    CHECK(!s, "%s [%s]: %s", c->name, sizes ? sizes : "", cx->diag.message);
  }
  for (size_t i = 0; i < NY_COUNT(targets) && !s && !device; i++) lowered(cx, c, sizes, &targets[i], in, want, env, n_env, &a);
  if (device && !s) lowered(cx, c, sizes, device, in, want, env, n_env, &a);
  if (u) ny_unit_free(u);
  ny_arena_free(&a);
  ny_ctx_free(cx);
}

/* `;; sizes A | B` and `;; kernel ...` between the case's name and its graph. */
static char *read_header(char *line, tc *c) {
  while (!strncmp(line, ";; ", 3)) {
    char *end = strchr(line, '\n');
    *end = 0;
    if (!strncmp(line, ";; kernel ", 10)) c->kernel = line + 10;
    size_t k = 0;
    for (char *p = strncmp(line, ";; sizes ", 9) != 0 ? NULL : line + 9; p && k + 1 < NY_COUNT(c->sizes);) {
      char *bar = strchr(p, '|');
      if (bar) *bar = 0;
      c->sizes[k++] = p + (*p == ' ');
      p = bar ? bar + 1 : NULL;
    }
    line = end + 1;
  }
  return line;
}

static size_t run_file(char *text, const char *only) {
  size_t n = 0;
  for (char *next = strstr(text, ";; case "); next; n++) {
    char *at = next, *line_end = strchr(at, '\n');
    next = strstr(at + 1, ";; case ");
    if (next) next[-1] = 0;
    *line_end = 0;
    tc c = {.name = at + 8};
    c.text = read_header(line_end + 1, &c);
    if (only && !strstr(c.name, only)) continue;
    for (int s = 0; s == 0 || c.sizes[s]; s++) one(&c, c.sizes[s]);
  }
  return n;
}

int main(int argc, char **argv) {
  static const char *const files[] = {"tests/kernels/contractions.nyt", "tests/gpu/families.nyt", "tests/gpu/contractions.nyt", "tests/gpu/codes.nyt"};
  size_t n = 0;
  ny_diag why = {0};
  if (argc > 2 && !strcmp(argv[1], "cuda")) {
    if (!simulate_available(&why)) {
      printf("gpu_test: skipped for %s: %s\n", argv[2], why.message);
      return test_end("gpu_test");
    }
    CHECK(!ny_target_find(argv[2], &device, &why), "%s", why.message);
    argc -= 2, argv += 2;
  }
  for (size_t i = 0; i < NY_COUNT(files); i++) {
    ny_arena a = {0};
    ny_diag d = {0};
    char *text = NULL;
    size_t bytes;
    if (ny_file_read(&a, files[i], 1 << 20, &text, &bytes, &d)) CHECK(false, "%s", d.message);
    else n += run_file(text, argc > 1 ? argv[1] : NULL);
    ny_arena_free(&a);
  }
  CHECK(n > 80, "%zu cases", n);
  return test_end("gpu_test");
}
