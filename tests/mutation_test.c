/* Bugs planted in generated CUDA kernels: each row of mutations.def edits the text that the code generator made, and
   the simulator has to find what it says, at the line it says, under every order of warps and both ways of copying;
   where nothing breaks a rule of the machine, the result must differ from the evaluator's. The texts as generated have
   no finding and the right results. An edit that no longer matches the generated text is a failure, not a skip.

   Which line: a site of a finding is an instruction's line, or one that it was inlined into. A bug that is an access is
   named by its own line; where the row gives no text, by one of the three lines before or behind it, because versions of
   NVRTC differ in whether a vector load belongs to the statement that makes its address, loads it or uses it first. One
   that leaves out or moves an ordering (barrier, wait, commit) is named by the two accesses
   that it was to order, `line` and `other`, in either order. usage: mutation_test [-v] [part of a bug's name] | dump
   CASE */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes.h"
#include "simulate.h"
#include "test.h"

enum { WRONG = NY_N_FIND }; /* no rule is broken, the numbers are */
typedef struct bug {
  const char *kernel, *what;
  const char *after;       /* the edits are made behind this text; NULL: anywhere */
  const char *from, *to;   /* first edit, within a line */
  const char *from2, *to2; /* second one, behind the first; NULL: none */
  int finds;
  const char *line, *other; /* texts of the lines to be named; NULL: the line of the first edit; nothing */
} bug;

#define BUG(kernel, what, ...) {kernel, what, __VA_ARGS__},
static const bug bugs[] = {
#include "mutations.def"
};
static bool verbose;
static const ny_target *target;

/* ---- a case, lowered and generated once */
enum { MAX_IN = 4, MAX_KERNELS = 8, MAX_OUT = 2 };
typedef struct kernel_case {
  const char *name;
  const ny_target *target;
  ny_ctx *cx;
  ny_arena a;
  ny_unit *unit;
  ny_binding env[4];
  size_t n_env, n_kernel, n_out;
  ny_tensor in[MAX_IN], want[MAX_OUT];
  exec reference;
  char *source[MAX_KERNELS];
  ny_cuda_facts facts[MAX_KERNELS];
} kernel_case;

static void read_sizes(kernel_case *c, const char *p, const char *end) {
  while (p < end && c->n_env < NY_COUNT(c->env)) {
    const char *eq = memchr(p, '=', (size_t)(end - p));
    char *stop;
    if (!eq) return;
    c->env[c->n_env].sym = ny_internn(&c->cx->names, p, (size_t)(eq - p));
    c->env[c->n_env++].value = strtoll(eq + 1, &stop, 10);
    for (p = stop; *p == ' ';) p++;
  }
}

/* What the evaluator makes of the kernels. */
static nyb_status evaluate(kernel_case *c) {
  ny_graph *g = c->unit->first;
  for (uint32_t i = 0; i < g->body.n_arg && i < MAX_IN; i++)
    c->in[i] = exec_random(c->cx, &c->a, g->body.arg[i]->type, c->env, c->n_env, i + 1);
  NY_TRY(exec_open(&c->reference, c->unit, NULL, c->env, c->n_env, c->in, g->body.n_arg, NULL));
  NY_TRY(exec_run(&c->reference));
  c->n_out = g->body.last->n_in;
  for (size_t i = 0; i < c->n_out; i++) c->want[i] = exec_result(&c->reference, i);
  return NYB_OK;
}

static nyb_status generate(kernel_case *c) {
  for (ny_graph *g = c->unit->first; g; g = g->next) {
    if (!g->kernel) continue;
    ny_text t = {0};
    if (c->n_kernel == MAX_KERNELS)
      return ny_fail(&c->cx->diag, NYB_E_LIMIT, NULL, "more than %d kernels", MAX_KERNELS);
    NY_TRY(ny_cuda_source(g, c->target, &t, &c->facts[c->n_kernel], &c->cx->diag));
    c->source[c->n_kernel++] = t.s;
  }
  return NYB_OK;
}

static bool open_case(kernel_case *c, const char *text, size_t n) {
  const char *nl = memchr(text, '\n', n), *body = nl + 1;
  *c = (kernel_case){.cx = ny_ctx_new(), .target = target};
  c->name = ny_strndup(&c->a, text, (size_t)(nl - text));
  if (!strncmp(body, ";; target ", 10)) {
    const char *end = strchr(body, '\n');
    ny_diag why = {0};
    CHECK(!ny_target_find(ny_strndup(&c->a, body + 10, (size_t)(end - body - 10)), &c->target, &why), "%s", why.message);
    body = end + 1;
  }
  ny_pass_options o = {.target = c->target, .opt = 1, .verify_each = true, .until = "tile"};
  if (!strncmp(body, ";; sizes ", 9)) {
    const char *end = strchr(body, '\n');
    read_sizes(c, body + 9, end);
    body = end + 1;
  }
  nyb_status s = ny_parse_unit(c->cx, body, (size_t)(text + n - body), NULL, &c->unit);
  bool lowered = !s && c->unit->first->next; /* it has kernels: a tile program */
  if (!s) s = lowered ? ny_verify_unit(c->unit) : ny_run_passes(c->unit, &o);
  if (!s) s = evaluate(c);
  if (!s) s = generate(c);
  CHECK(!s, "%s: line %d: %s", c->name, c->cx->diag.line, c->cx->diag.message);
  return !s;
}

static void close_case(kernel_case *c) {
  for (size_t i = 0; i < c->n_kernel; i++) free(c->source[i]);
  exec_close(&c->reference);
  if (c->unit) ny_unit_free(c->unit);
  ny_arena_free(&c->a);
  ny_ctx_free(c->cx);
}

/* ---- running */
typedef struct loaded {
  ny_sim_module *module[MAX_KERNELS];
} loaded;

/* `edited` in the place of kernel `at`; at = n_kernel: none. */
static bool load(const kernel_case *c, size_t at, const char *edited, loaded *l, ny_diag *d) {
  static const char *const options[] = {"--fmad=false", "--std=c++17", "-lineinfo", "-diag-suppress=177,550"};
  *l = (loaded){{NULL}};
  nyb_status s = NYB_OK;
  char arch[32];
  snprintf(arch, sizeof arch, "compute_%s", c->target->cpu + 3);
  for (size_t i = 0; i < c->n_kernel && !s; i++) {
    ny_nvrtc_result r;
    s = ny_nvrtc_compile(i == at ? edited : c->source[i], "kernel.cu", arch, options, NY_COUNT(options), &r,
                         d);
    if (!s) s = ny_sim_load(r.ptx, r.ptx_bytes, "kernel.ptx", &l->module[i], d);
    ny_nvrtc_free(&r);
  }
  return !s;
}

static void unload(loaded *l) {
  for (size_t i = 0; i < MAX_KERNELS; i++)
    if (l->module[i]) ny_sim_unload(l->module[i]);
}

enum { RUNS = 6 }; /* three orders of warps, copies that land at once and late */
typedef struct outcome {
  nyb_status status;
  ny_sim_result r;
  double error;
  const char *hit;
  ny_diag d;
} outcome;

static double tolerance_of(ny_fmt f) { return !ny_is_float(f) ? 0 : f == NY_f16 ? 4e-3 : f == NY_bf16 ? 3e-2 : 2e-5; }

static void run(kernel_case *c, const loaded *l, int number, outcome *o) {
  ny_sim_options options = {.order = (ny_sim_order)(number % 3),
                            .seed = 7,
                            .checks = NY_SIM_ALL,
                            .late_copies = number >= 3,
                            .max_findings = 4000,
                            .max_warp_ins = 20000000};
  exec x = {0};
  *o = (outcome){.status = exec_open(&x, c->unit, NULL, c->env, c->n_env, c->in, c->unit->first->body.n_arg, NULL)};
  for (size_t i = 0; i < x.n_step && !o->status; i++) {
    size_t k = 0;
    while (x.kernel[k] != x.step[i].kernel) k++;
    o->status = simulate_launch(&x.step[i], &c->facts[k], l->module[k], &options, &o->r, &o->d);
  }
  for (size_t i = 0; i < c->n_out && !o->status; i++) {
    double e = exec_error(exec_result(&x, i), c->want[i]) / (tolerance_of((ny_fmt)c->want[i].type->fmt) + 1e-300);
    if (!(e <= o->error)) o->error = e;
  }
  o->hit = o->status ? NULL : exec_guards(&x);
  exec_close(&x);
}

static void print_findings(const outcome *o) {
  ny_text t = {0};
  for (uint32_t i = 0; i < o->r.n_findings && i < 4; i++) ny_sim_print_finding(&o->r.finding[i], &t);
  if (t.n) fputs(t.s, stderr);
  ny_text_free(&t);
}

/* ---- the original */
static void test_original(kernel_case *c) {
  loaded l;
  ny_diag d = {0};
  bool ok = load(c, c->n_kernel, NULL, &l, &d);
  CHECK(ok, "%s: %s", c->name, d.message);
  for (int i = 0; i < RUNS && ok; i++) {
    outcome o;
    run(c, &l, i, &o);
    CHECK(!o.status && !o.r.n_findings, "%s, run %d: %u findings without a bug: %s", c->name, i, o.r.n_findings,
          o.r.n_findings ? o.r.finding[0].text : o.d.message);
    CHECK(o.error <= 1 && !o.hit, "%s, run %d: error of %g tolerances", c->name, i, o.error);
    if (o.r.n_findings) print_findings(&o);
    ny_sim_result_free(&o.r);
  }
  unload(&l);
}

/* ---- edits */
static int line_of(const char *text, const char *at) {
  int n = 1;
  for (const char *p = text; p < at; p++) n += *p == '\n';
  return n;
}

static char *replace(const char *text, const char *at, const char *from, const char *to) {
  ny_text t = {0};
  ny_text_addn(&t, text, (size_t)(at - text));
  ny_text_add(&t, to);
  ny_text_add(&t, at + strlen(from));
  return t.s;
}

/* The kernel that has the text, edited; NULL: none has. */
static char *edit(const kernel_case *c, const bug *b, size_t *kernel, int *line) {
  for (*kernel = 0; *kernel < c->n_kernel; ++*kernel) {
    const char *text = c->source[*kernel], *from = strstr(text, "extern \"C\""); /* not in the prelude */
    if (from && b->after) from = strstr(from, b->after);
    const char *at = from ? strstr(from, b->from) : NULL;
    if (!at) continue;
    *line = line_of(text, at);
    char *first = replace(text, at, b->from, b->to);
    if (!b->from2) return first;
    const char *next = strstr(first + (at - text) + strlen(b->to), b->from2);
    char *second = next ? replace(first, next, b->from2, b->to2) : NULL;
    free(first);
    if (second) return second;
  }
  return NULL;
}

/* ---- what was found */
static bool line_has(const char *text, int line, const char *part) {
  for (int i = 1; i < line && text; i++) text = strchr(text, '\n') ? strchr(text, '\n') + 1 : NULL;
  if (!text) return false;
  const char *found = strstr(text, part), *end = strchr(text, '\n');
  return found && (!end || found < end);
}

/* The site is at that line: about this number, or with this text. */
static bool names(const ny_sim_site *s, const char *source, int line, const char *part) {
  ny_sim_place at = {s->file, s->line, s->from};
  for (const ny_sim_place *p = &at; p && s->known; p = p->from)
    if (part ? line_has(source, p->line, part) : abs(p->line - line) <= 3) return true;
  return false;
}

static bool right_line(const bug *b, const ny_sim_finding *f, const char *source, int line) {
  bool at = names(&f->at, source, line, b->line), other = names(&f->other, source, line, b->line);
  if (!b->other) return at || other;
  return (at && names(&f->other, source, 0, b->other)) || (other && names(&f->at, source, 0, b->other));
}

static bool judge(const bug *b, int number, const outcome *o, const char *source, int line) {
  if (b->finds == WRONG) {
    CHECK(!o->status && !o->r.n_findings && o->error > 1, "%s: %s, run %d: %g of the tolerated error, %u findings",
          b->kernel, b->what, number, o->error, o->r.n_findings);
    return !o->status && o->error > 1;
  }
  const ny_sim_finding *first = NULL;
  bool named = false;
  for (uint32_t i = 0; i < o->r.n_findings; i++) {
    const ny_sim_finding *f = &o->r.finding[i];
    if ((int)f->kind != b->finds) continue;
    if (!first) first = f;
    named |= right_line(b, f, source, line);
  }
  CHECK(first, "%s: %s, run %d: no %s found (%u findings, %g of the tolerated error) %s", b->kernel, b->what, number,
        ny_sim_finding_text((ny_sim_finding_kind)b->finds), o->r.n_findings, o->error,
        o->r.n_findings ? o->r.finding[0].text : o->d.message);
  if (first)
    CHECK(named, "%s: %s, run %d: the finding does not name line %d (%s)", b->kernel, b->what, number, line,
          b->line ? b->line : b->to);
  if (!first || !named || (verbose && !number)) print_findings(o);
  return named;
}

static void test_bug(kernel_case *c, const bug *b) {
  size_t at;
  int line;
  char *source = edit(c, b, &at, &line);
  CHECK(source, "%s: %s: the generated kernel has no \"%s\"%s%s: the edit must follow the code generator", b->kernel,
        b->what, b->from, b->from2 ? " followed by " : "", b->from2 ? b->from2 : "");
  if (!source) return;
  loaded l;
  ny_diag d = {0};
  bool ok = load(c, at, source, &l, &d);
  CHECK(ok, "%s: %s: %s", b->kernel, b->what, d.message);
  if (verbose) fprintf(stderr, "---- %s: %s (line %d)\n", b->kernel, b->what, line);
  for (int i = 0; i < RUNS && ok; i++) {
    outcome o;
    run(c, &l, i, &o);
    ok = judge(b, i, &o, source, line); /* one run that fails tells enough */
    ny_sim_result_free(&o.r);
  }
  unload(&l);
  free(source);
}

static int n_bugs, n_wrong;
static void test_case(kernel_case *c, const char *only) {
  bool any = !only;
  for (size_t i = 0; i < NY_COUNT(bugs); i++)
    any |= !strcmp(bugs[i].kernel, c->name) && strstr(bugs[i].what, only ? only : "");
  if (any) test_original(c);
  for (size_t i = 0; i < NY_COUNT(bugs); i++) {
    if (strcmp(bugs[i].kernel, c->name) != 0 || (only && !strstr(bugs[i].what, only))) continue;
    n_bugs++;
    n_wrong += bugs[i].finds == WRONG;
    test_bug(c, &bugs[i]);
  }
}

static void test_file(const char *path, const char *dump, const char *only) {
  static const char mark[] = ";; case ";
  ny_arena a = {0};
  ny_diag d = {0};
  char *text;
  size_t n;
  if (ny_file_read(&a, path, 1 << 20, &text, &n, &d))
    CHECK(false, "%s: %s (run from the repository root)", path, d.message);
  else
    for (char *p = strstr(text, mark), *next; p; p = next) {
      kernel_case c;
      p += sizeof mark - 1;
      next = strstr(p, mark);
      bool ok = open_case(&c, p, next ? (size_t)(next - p) : strlen(p));
      for (size_t i = 0; ok && dump && !strcmp(dump, c.name) && i < c.n_kernel; i++) puts(c.source[i]);
      if (ok && !dump) test_case(&c, only);
      close_case(&c);
    }
  ny_arena_free(&a);
}

int main(int argc, char **argv) {
  ny_diag why = {0};
  if (argc > 1 && !strcmp(argv[1], "-v")) verbose = true, argc--, argv++;
  CHECK(!ny_target_find("sm_90a", &target, &why), "%s", why.message);
  if (!simulate_available(&why)) {
    printf("mutation_test: %zu bugs skipped: %s\n", NY_COUNT(bugs), why.message);
    return test_end("mutation_test");
  }
  bool dump = argc > 2 && !strcmp(argv[1], "dump");
  if (target) test_file("tests/kernels/mutations.nyt", dump ? argv[2] : NULL, dump || argc < 2 ? NULL : argv[1]);
  if (dump) return 0;
  if (argc < 2) CHECK(n_bugs == NY_COUNT(bugs), "%d of %zu bugs belong to a case", n_bugs, NY_COUNT(bugs));
  printf("mutation_test: %d bugs planted, %d found by the simulator's checks, %d by their results\n", n_bugs,
         n_bugs - n_wrong, n_wrong);
  return test_end("mutation_test");
}
