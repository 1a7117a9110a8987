/* Merged launches against launches one by one: random graphs and the tile programs of kernels/merged.nyt run both ways in the simulator, under all its checks and
   in three orders of warps, and every bit of the results must be the same; the evaluator runs the merged text too. And when launches are merged, how many are left, and
   what a kernel of calls may be. Usage: merge_test [first seed [number [target]]]. */
#include <stdlib.h>
#include <string.h>

#include "diff_gen.h"
#include "simulate.h"
#include "test.h"

enum { ORDERS = 3, MAX_RESULTS = 16 };
static const ny_target *target;
static bool simulated;
static int n_before, n_after, n_members;

typedef struct subject { /* a unit, lowered, and what it is run on */
  const char *name;
  ny_unit *unit;
  const ny_binding *env;
  size_t n_env;
  const ny_tensor *in;
  size_t n_in;
  bool pairs; /* results 0 and 1, 2 and 3, .. are equal */
} subject;

static nyb_status count_launch(void *user, ny_op *op) {
  *(int *)user += op->kind == NY_launch;
  return NYB_OK;
}

static int launches(const ny_unit *u) {
  int n = 0;
  ny_walk(&u->first->body, count_launch, &n);
  return n;
}

/* ---- running */
static bool step_runs(const exec_step *s, const ny_cuda_code *code, const exec *x, ny_sim_module *const *module, int order, ny_diag *d) {
  const ny_sim_options options = {.order = (ny_sim_order)order, .seed = 3, .checks = NY_SIM_ALL, .late_copies = order > 0, .max_findings = 10};
  ny_sim_result r = {0};
  size_t k = 0;
  while (x->kernel[k] != s->kernel) k++;
  nyb_status e = simulate_launch(s, &code->kernel[k].facts, module[code->kernel[k].image], &options, &r, d);
  if (r.n_findings) {
    ny_text t = {0};
    ny_sim_print_finding(&r.finding[0], &t);
    e = ny_fail(d, NYB_E_DEVICE, NULL, "%u findings in %s, the first: %s", r.n_findings, s->kernel->name, t.s);
    ny_text_free(&t);
  }
  ny_sim_result_free(&r);
  return !e;
}

static bool keep(const exec *x, const subject *s, ny_arena *a, ny_tensor *out) {
  const char *hit = exec_guards(x);
  CHECK_EACH(!hit, "%s: %s was written outside its bounds", s->name, hit);
  size_t n = x->unit->first->body.last->n_in;
  for (size_t i = 0; i < n && i < MAX_RESULTS; i++) {
    ny_tensor t = exec_result(x, i);
    int64_t count = 0;
    ny_type_static_count(x->unit->cx, t.type, &count);
    uint64_t bytes = ny_fmt_bytes((ny_fmt)t.type->fmt, (uint64_t)count);
    out[i] = (ny_tensor){t.type, ny_alloc(a, bytes + 1)};
    memcpy(out[i].data, t.data, bytes);
  }
  return !hit;
}

static bool run(const subject *s, int order, const ny_cuda_code *code, ny_sim_module *const *module, ny_arena *a, ny_tensor *out) {
  exec x = {0};
  ny_diag d = {0};
  bool ok = !exec_open(&x, s->unit, NULL, s->env, s->n_env, s->in, s->n_in, NULL);
  if (!code) ok = ok && !exec_run(&x);
  for (size_t i = 0; code && ok && i < x.n_step; i++) ok = step_runs(&x.step[i], code, &x, module, order, &d);
  CHECK_EACH(ok, "%s, order %d: %s", s->name, order, d.code ? d.message : s->unit->cx->diag.message);
  ok = ok && keep(&x, s, a, out);
  exec_close(&x);
  return ok;
}

static void same(const subject *s, int order, const ny_tensor *got, const ny_tensor *want) {
  for (int i = 0; i < s->unit->first->body.last->n_in && i < MAX_RESULTS; i++) {
    int64_t count = 0;
    const ny_tensor *other = s->pairs ? &got[i ^ 1] : &want[i];
    bool type = got[i].type == other->type && ny_type_static_count(s->unit->cx, other->type, &count);
    uint64_t bytes = ny_fmt_bytes((ny_fmt)other->type->fmt, (uint64_t)count);
    CHECK_EACH(type && !memcmp(got[i].data, other->data, bytes), "%s, order %d: result %d is not what launches one by one give", s->name, order, i);
  }
}

/* ---- a unit's code */
typedef struct built {
  ny_arena a;
  ny_cuda_code code;
  ny_sim_module **module;
} built;

static bool build(const subject *s, built *b) {
  ny_graph **kernel = NY_NEW_ARRAY(&b->a, ny_graph *, 512);
  ny_diag d = {0};
  size_t n = 0;
  for (ny_graph *g = s->unit->first; g && n < 512; g = g->next)
    if (g->kernel) kernel[n++] = g;
  ny_codegen_request r = {.kernel = kernel, .n = n, .target = target, .opt = 2, .threads = 2};
  bool ok = !ny_cuda_compile(&r, &b->code, &d);
  b->module = NY_NEW_ARRAY(&b->a, ny_sim_module *, b->code.n_image + 1);
  for (size_t i = 0; ok && i < b->code.n_image; i++) ok = !ny_sim_load(b->code.image[i].ptx, b->code.image[i].ptx_bytes, "kernel.ptx", &b->module[i], &d);
  CHECK(ok, "%s: %s", s->name, d.message);
  return ok;
}

static void drop(built *b) {
  for (size_t i = 0; b->module && i < b->code.n_image; i++)
    if (b->module[i]) ny_sim_unload(b->module[i]);
  ny_cuda_code_free(&b->code);
  ny_arena_free(&b->a);
}

/* What a merged kernel passes on must not be read as if nobody wrote it: no such load, but of what the kernel only reads. */
static void check_read_only(const subject *s, const built *b) {
  size_t k = 0;
  for (ny_graph *g = s->unit->first->next; g; g = g->next, k++) {
    if (!ny_kernel_calls(g)) continue;
    const char *text = b->code.image[b->code.kernel[k].image].source, *at = strstr(text, ny_strf((ny_arena *)&b->a, " %s(", b->code.kernel[k].facts.symbol));
    const char *end = at ? strchr(at, ')') : NULL;
    for (uint32_t i = 0; at && at < end && i < g->body.n_arg; i++, at = strchr(at + 1, ',')) {
      const char *restricted = strstr(at, "__restrict__"), *next = strchr(at + 1, ',');
      if (ny_kernel_stores(g, i)) CHECK(!restricted || restricted > next, "%s: argument %u of %s is written and said to be read only", s->name, i, g->name);
    }
  }
}

/* ---- both ways */
static void compare(const subject *plain, const subject *merged) {
  ny_arena a = {0};
  ny_tensor want[MAX_RESULTS], got[MAX_RESULTS], text[MAX_RESULTS];
  built p = {.module = NULL}, m = {.module = NULL};
  bool ok = run(plain, 0, NULL, NULL, &a, want) && run(merged, 0, NULL, NULL, &a, text);
  if (ok) same(merged, 0, text, want);
  ok = ok && simulated && build(plain, &p) && build(merged, &m);
  if (ok) check_read_only(merged, &m);
  ok = ok && run(plain, 0, &p.code, p.module, &a, want);
  for (int order = 0; ok && order < ORDERS; order++)
    if ((ok = run(merged, order, &m.code, m.module, &a, got))) same(merged, order, got, want);
  drop(&p);
  drop(&m);
  ny_arena_free(&a);
}

static void count(const ny_unit *plain, const ny_unit *merged) {
  n_before += launches(plain);
  n_after += launches(merged);
  for (const ny_graph *k = merged->first->next; k; k = k->next)
    for (const ny_op *op = ny_kernel_calls(k) ? k->body.first : NULL; op; op = op->next) n_members += op->kind == NY_call;
}

static nyb_status merge(ny_unit *u) {
  ny_pass_options o = {.target = target, .opt = 1, .verify_each = true, .only = "merge", .until = "merge"};
  return ny_run_passes(u, &o);
}

/* ---- random graphs */
static void random_graph(uint64_t seed) {
  ny_ctx *cx = ny_ctx_new();
  ny_arena a = {0};
  diff_case c;
  ny_tensor in[DIFF_MAX_IN];
  ny_unit *plain = NULL, *merged = NULL;
  diff_options o = {.seed = seed, .ops = 4 + (int)(seed % 37), .symbols = seed % 3 == 1, .wide = seed % 2 == 0};
  ny_pass_options po = {.target = target, .opt = (int)(seed % 3), .until = "tile"};
  bool ok = diff_generate(cx, &o, &c);
  CHECK(ok, "seed %llu makes no graph: %s", (unsigned long long)seed, cx->diag.message);
  nyb_status s = ok ? ny_run_passes(c.u, &po) : NYB_E_INTERNAL;
  CHECK(!s || s == NYB_E_UNSUPPORTED, "seed %llu: %s", (unsigned long long)seed, cx->diag.message);
  if (!s) s = ny_unit_copy(c.u, &plain);
  if (!s) s = ny_unit_copy(c.u, &merged); /* both through text, which has one NaN only */
  if (!s && (s = merge(merged))) CHECK(false, "seed %llu: %s", (unsigned long long)seed, cx->diag.message);
  if (!s) {
    char name[32];
    snprintf(name, sizeof name, "seed %llu", (unsigned long long)seed);
    diff_inputs(&c, seed, &a, in);
    count(plain, merged);
    subject p = {name, plain, c.env, c.n_env, in, (size_t)c.n_in, false}, m = {name, merged, c.env, c.n_env, in, (size_t)c.n_in, false};
    compare(&p, &m);
  }
  if (plain) ny_unit_free(plain);
  if (merged) ny_unit_free(merged);
  ny_unit_free(c.u);
  ny_arena_free(&a);
  ny_ctx_free(cx);
}

/* ---- cases: a unit of launches; `;; left N` says how many there are after, `;; sizes` what symbols are, `;; pairs` that results are equal two by two */
static size_t read_sizes(ny_ctx *cx, const char *p, const char *end, ny_binding *env, size_t cap) {
  size_t n = 0;
  for (; p < end && n < cap; n++) {
    const char *eq = memchr(p, '=', (size_t)(end - p));
    char *stop;
    if (!eq) break;
    env[n] = (ny_binding){ny_internn(&cx->names, p, (size_t)(eq - p)), strtoll(eq + 1, &stop, 10)};
    for (p = stop; *p == ' ';) p++;
  }
  return n;
}

static void one_case(const char *text, size_t n) {
  ny_ctx *cx = ny_ctx_new();
  ny_arena a = {0};
  const char *body = memchr(text, '\n', n), *name = ny_strndup(&a, text, (size_t)(body - text));
  ny_binding env[4];
  size_t n_env = 0;
  int left = -1;
  bool pairs = false;
  for (body++; !strncmp(body, ";; ", 3); body = strchr(body, '\n') + 1) {
    if (!strncmp(body, ";; left ", 8)) left = atoi(body + 8);
    pairs |= !strncmp(body, ";; pairs", 8);
    if (!strncmp(body, ";; sizes ", 9)) n_env = read_sizes(cx, body + 9, strchr(body, '\n'), env, NY_COUNT(env));
  }
  ny_unit *plain = NULL, *merged = NULL;
  nyb_status s = ny_parse_unit(cx, body, (size_t)(text + n - body), NULL, &plain);
  ny_pass_options lower = {.target = target, .opt = 2, .until = "tile"};
  if (!s && !plain->first->next) s = ny_run_passes(plain, &lower);
  if (!s) s = ny_verify_unit(plain);
  if (!s) s = ny_unit_copy(plain, &merged);
  if (!s) s = merge(merged);
  CHECK(!s, "%s: line %d: %s", name, cx->diag.line, cx->diag.message);
  if (!s) {
    ny_tensor in[8];
    ny_block *b = &plain->first->body;
    for (uint32_t i = 0; i < b->n_arg && i < NY_COUNT(in); i++) in[i] = exec_random(cx, &a, b->arg[i]->type, env, n_env, i + 1);
    subject p = {name, plain, env, n_env, in, b->n_arg, pairs}, m = {name, merged, env, n_env, in, b->n_arg, pairs};
    CHECK(left < 0 || launches(merged) == left, "%s: %d of %d launches are left, not %d", name, launches(merged), launches(plain), left);
    compare(&p, &m);
  }
  if (merged) ny_unit_free(merged);
  if (plain) ny_unit_free(plain);
  ny_arena_free(&a);
  ny_ctx_free(cx);
}

static void cases(const char *path) {
  static const char mark[] = ";; case ";
  ny_arena a = {0};
  ny_diag d = {0};
  char *text;
  size_t n;
  if (ny_file_read(&a, path, 1 << 20, &text, &n, &d))
    CHECK(false, "%s (run from the repository root)", d.message);
  else
    for (char *p = strstr(text, mark), *next; p; p = next) {
      p += sizeof mark - 1;
      next = strstr(p, mark);
      one_case(p, next ? (size_t)(next - p) : strlen(p));
    }
  ny_arena_free(&a);
}

/* ---- what a kernel of calls may be */
#define UNIT(body)                                                                                                                                             \
  "graph main(%a: f32[64]) {\n  %b = launch %a kernel=both : f32[64]\n  ret %b\n}\n"                                                                           \
  "kernel one(%a: f32[64]@global, %c: f32[64]@global) {\n  grid var=i extent=64\n  %x = load %a off=?i stride=[0,0] : f32[1,1]\n"                           \
  "  store %c, %x off=?i stride=[0,0]\n  ret\n}\n"                                                                                                             \
  "kernel both(%a: f32[64]@global, %c: f32[64]@global) {\n" body "  ret\n}\n"

static void refused(const char *text, const char *why) {
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = NULL;
  nyb_status s = ny_parse_unit(cx, text, strlen(text), NULL, &u);
  if (!s) s = ny_verify_unit(u);
  CHECK(why ? s && strstr(cx->diag.message, why) : !s, "\"%s\" should say %s", cx->diag.message, why ? why : "nothing");
  if (u) ny_unit_free(u);
  ny_ctx_free(cx);
}

static void test_verify(void) {
  refused(UNIT("  call %a, %c kernel=one\n"), NULL);
  refused(UNIT("  call %a, %c kernel=none\n"), "there is no kernel none");
  refused(UNIT("  call %a kernel=one\n"), "1 buffers for the 2 arguments of one");
  refused(UNIT("  call %a, %c kernel=both\n"), "calls others itself");
  refused(UNIT("  call %a, %c kernel=one\n  barrier\n"), "can hold nothing else");
  refused(UNIT("  barrier\n  call %a, %c kernel=one\n"), "does other things too");
  refused("graph main(%a: f32[64]) {\n  call %a kernel=one\n  ret %a\n}\n", "call");
  refused("graph main(%a: f32[64]) {\n  %b = launch %a kernel=one fits=0 : f32[64]\n  ret %b\n}\n"
          "kernel one(%a: f32[64]@global, %c: f32[64]@global) {\n  %x = load %a stride=[0,1] : f32[1,64]\n  store %c, %x stride=[0,1]\n  ret\n}\n",
          "fits is for kernels of calls");
}

/* Kernels that only calls need have no code of their own; where sizes decide they have. */
static size_t kernels_with_code(const char *text, size_t *all) {
  ny_ctx *cx = ny_ctx_new();
  ny_arena a = {0};
  ny_unit *u = NULL;
  ny_graph **kernel;
  size_t n = 0;
  ny_pass_options o = {.target = target, .opt = 2};
  nyb_status s = ny_parse_unit(cx, text, strlen(text), NULL, &u);
  if (!s) s = ny_run_passes(u, &o);
  CHECK(!s, "%s", cx->diag.message);
  if (!s) ny_unit_kernels(u, &a, &kernel, &n);
  *all = 0;
  for (const ny_graph *g = u ? u->first : NULL; g; g = g->next) *all += g->kernel;
  if (u) ny_unit_free(u);
  ny_arena_free(&a);
  ny_ctx_free(cx);
  return n;
}

static void test_code(void) {
  size_t all;
#define TWO(n) "graph g(%x: f32[" n ",8]) {\n  %s = scan %x axis=1 : f32[" n ",8]\n  %t = scan %s axis=0 : f32[" n ",8]\n  ret %t\n}\n"
  size_t n = kernels_with_code(TWO("8"), &all);
  CHECK(n == 1 && all == 3, "one merged kernel needs code, of %zu %zu do", all, n);
  n = kernels_with_code(TWO("?N"), &all);
  CHECK(n == 3 && all == 3, "with a symbol all need code, of %zu %zu do", all, n);
  n = kernels_with_code(TWO("100000"), &all);
  CHECK(n == 2 && all == 2, "large launches stay as they are: %zu of %zu", n, all);
}

int main(int argc, char **argv) {
  uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, n = argc > 2 ? strtoull(argv[2], NULL, 10) : 16;
  ny_diag d = {0};
  CHECK(!ny_target_find(argc > 3 ? argv[3] : "sm_90a", &target, &d), "%s", d.message);
  simulated = simulate_available(&d);
  if (!simulated) printf("merge_test: nothing is simulated: %s\n", d.message);
  test_verify();
  if (target) test_code();
  if (target) cases("tests/kernels/merged.nyt");
  for (uint64_t seed = first; target && seed < first + n; seed++) random_graph(seed);
  CHECK(n_members >= n_before - n_after && (n < 16 || n_after * 2 < n_before), "%d launches of random graphs became %d", n_before, n_after);
  printf("merge_test: %d launches of random graphs became %d\n", n_before, n_after);
  return test_end("merge_test");
}
