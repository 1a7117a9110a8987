/* Contractions and windows against the reference evaluator over odd sizes: each case is evaluated as it stands, then lowered for several register files;
   the tile programs are run by the evaluator and, for targets this machine runs, as compiled code between guard bytes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exec.h"
#include "rewrite.h"
#include "test.h"

typedef struct tc {
  const char *name, *text; /* of one graph */
  const char *sizes[8];    /* "B=2 S=3", each a run; NULL ends; none: one run without symbols */
} tc;

static const ny_target shapes[] = {
    {.name = "wide", .triple = "", .cpu = "", .features = "", .vec_bytes = 64, .n_vregs = 32, .masked = true, .l1d = 32768, .l2 = 1 << 20, .threads = 4},
    {.name = "mid", .triple = "", .cpu = "", .features = "", .vec_bytes = 32, .n_vregs = 16, .masked = true, .l1d = 32768, .l2 = 1 << 18, .threads = 4},
    {.name = "narrow", .triple = "", .cpu = "", .features = "", .vec_bytes = 16, .n_vregs = 32, .l1d = 65536, .l2 = 1 << 19, .threads = 4},
    {.name = "gpu", .triple = "", .cpu = "", .features = "", .vec_bytes = 16, .n_vregs = 64, .masked = true, .l1d = 101376, .l2 = 4 << 20, .threads = 1, .sm = 80, .shared = 101376},
};

static double tolerance_of(ny_fmt f) {
  if (!ny_is_float(f)) return 0;
  return f == NY_f64 ? 1e-12 : f == NY_f16 ? 4e-3 : f == NY_bf16 ? 3e-2 : 2e-5;
}

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

typedef struct run {
  const tc *c;
  const char *sizes;
  ny_ctx *cx;
  ny_arena a;
  ny_binding env[8];
  size_t n_env, n_in, n_out;
  ny_tensor in[8], want[4];
} run;

static void explain(const run *r, const char *what) {
  ny_text t = {0};
  if (r->cx->diag.code) ny_diag_print(&r->cx->diag, &t);
  CHECK(false, "%s [%s] %s: %s", r->c->name, r->sizes ? r->sizes : "", what, t.s ? t.s : "");
  ny_text_free(&t);
}

static ny_unit *parse(run *r) {
  ny_unit *u = NULL;
  if (ny_parse_unit(r->cx, r->c->text, strlen(r->c->text), NULL, &u) || ny_verify_unit(u)) explain(r, "does not parse");
  return r->cx->diag.code ? NULL : u;
}

static bool reference(run *r) {
  ny_unit *u = parse(r);
  if (!u) return false;
  ny_graph *g = u->first;
  r->n_in = g->body.n_arg, r->n_out = g->body.last->n_in;
  for (size_t i = 0; i < r->n_in; i++) r->in[i] = exec_random(r->cx, &r->a, g->body.arg[i]->type, r->env, r->n_env, (uint32_t)i + 1);
  nyb_status s = ny_eval_graph(g, r->in, r->n_in, &r->a, 1ull << 30, r->want, r->n_out);
  if (s) explain(r, "reference");
  ny_unit_free(u);
  return !s;
}

static void compare(run *r, const exec *x, const char *what) {
  for (size_t i = 0; i < r->n_out; i++) {
    ny_tensor got = exec_result(x, i);
    double err = exec_error(got, r->want[i]), most = tolerance_of((ny_fmt)got.type->fmt);
    CHECK(err <= most, "%s [%s] %s: result %zu: error %g, allowed %g", r->c->name, r->sizes ? r->sizes : "", what, i, err, most);
  }
  const char *hit = exec_guards(x);
  CHECK(!hit, "%s [%s] %s: %s was written outside its bounds", r->c->name, r->sizes ? r->sizes : "", what, hit);
}

static bool all_launches(const ny_unit *u) {
  for (const ny_op *op = u->first->body.first; op; op = op->next)
    if (op->kind != NY_launch && op->kind != NY_ret && op->kind != NY_const && op->kind != NY_reshape &&
        op->kind != NY_precision && !ny_is_const_group(op))
      return false;
  return true;
}

static void lowered(run *r, const ny_target *t, bool code) {
  ny_unit *u = parse(r);
  if (!u) return;
  char what[64];
  snprintf(what, sizeof what, "%s %s", t->name, code ? "compiled" : "evaluated");
  ny_pass_options o = {.target = t, .opt = 1, .until = "tile", .verify_each = true};
  exec x = {0};
  const char *dump = getenv("NYBBLE_TEST_DUMP");
  if (dump && !strcmp(dump, r->c->name)) o.dump_dir = "/tmp/nybble-contract";
  if (ny_run_passes(u, &o)) explain(r, what);
  else {
    CHECK(all_launches(u), "%s: not every op became a kernel", r->c->name);
    if (exec_open(&x, u, code ? t : NULL, r->env, r->n_env, r->in, r->n_in, o.dump_dir) || exec_run(&x)) explain(r, what);
    else compare(r, &x, what);
    exec_close(&x);
  }
  ny_diag_clear(&r->cx->diag);
  ny_unit_free(u);
}

static void one(const tc *c, const char *sizes, const ny_target *const *native, size_t n_native) {
  run r = {.c = c, .sizes = sizes, .cx = ny_ctx_new()};
  r.n_env = read_sizes(r.cx, sizes, r.env);
  if (reference(&r)) {
    for (size_t i = 0; i < NY_COUNT(shapes); i++) lowered(&r, &shapes[i], false);
    for (size_t i = 0; i < n_native; i++) lowered(&r, native[i], true);
  }
  ny_arena_free(&r.a);
  ny_ctx_free(r.cx);
}

/* Cuts the case file in place: `;; case NAME`, `;; sizes A | B`, then the graph. */
static size_t read_cases(char *text, tc *out, size_t cap) {
  size_t n = 0;
  char *next = strstr(text, ";; case ");
  while (next && n < cap) {
    char *at = next, *line_end = strchr(at, '\n');
    next = strstr(at + 1, ";; case ");
    if (next) next[-1] = 0;
    *line_end = 0;
    out[n] = (tc){.name = at + 8, .text = line_end + 1};
    if (!strncmp(line_end + 1, ";; sizes ", 9)) {
      char *list = line_end + 10, *end = strchr(list, '\n');
      *end = 0;
      out[n].text = end + 1;
      size_t k = 0;
      for (char *p = strtok(list, "|"); p && k + 1 < NY_COUNT(out[n].sizes); p = strtok(NULL, "|")) out[n].sizes[k++] = p + (*p == ' ');
    }
    n++;
  }
  return n;
}

int main(int argc, char **argv) {
  const ny_target *native[3];
  size_t n_native = 0;
  ny_diag d = {0};
  if (!getenv("NYBBLE_TEST_NO_CODE")) {
    if (!ny_target_find("host", &native[n_native], &d)) n_native++;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2") && !ny_target_find("x86-64-v2", &native[n_native], &d)) n_native++;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && !ny_target_find("x86-64-v3", &native[n_native], &d)) n_native++;
#endif
    CHECK(n_native > 0, "no target can be compiled for: %s", d.message);
  }
  static tc cases[256];
  static const char *const files[] = {"tests/kernels/contractions.nyt", "tests/kernels/codes.nyt"};
  ny_arena a = {0};
  size_t n = 0;
  for (size_t i = 0; i < NY_COUNT(files); i++) {
    char *text = NULL;
    size_t bytes;
    if (ny_file_read(&a, files[i], 1 << 20, &text, &bytes, &d)) CHECK(false, "%s", d.message);
    else n += read_cases(text, cases + n, NY_COUNT(cases) - n);
  }
  CHECK(n > 40, "%zu cases", n);
  for (size_t i = 0; i < n; i++) {
    if (argc > 1 && !strstr(cases[i].name, argv[1])) continue;
    for (int s = 0; s == 0 || cases[i].sizes[s]; s++) one(&cases[i], cases[i].sizes[s], native, n_native);
  }
  ny_arena_free(&a);
  return test_end("contract_test");
}
