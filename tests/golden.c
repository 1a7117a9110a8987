/* Golden cases of passes: the .nyt files of tests/passes. A file holds cases:
     ;; case what it shows
     ;; passes canon dce        (none: only reading, verifying and printing)
     ;; target gpu              (kernels for a GPU; else for a CPU)
     ;; precision bf16          (of the operands of products)
     ;; dims S=3 B=2            (sizes to evaluate with; other symbols count up from 2)
     <text>
     ;; gives                   (or: ;; fails a part of the message; or: ;; holds, when only the numbers matter)
     <text>
   The text after the passes must be exactly the one given; NYB_BLESS=1 rewrites it. Every case is grounded: the graph
   is evaluated on seeded inputs before and after, and a numeric difference fails even under bless. After each pass the
   pipeline verifies, prints and re-reads. */
#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "passes.h"
#include "test.h"

typedef struct golden {
  const char *name, *passes, *dims, *target, *precision, *fails, *holds; /* copies; neither: gives */
  const char *before, *after;
  size_t n_before, n_after;
} golden;

static const ny_target target = {.name = "golden",
                                 .triple = "",
                                 .cpu = "",
                                 .features = "",
                                 .vec_bytes = 32,
                                 .n_vregs = 16,
                                 .masked = false,
                                 .l1d = 32768,
                                 .l2 = 1 << 20,
                                 .threads = 4};
static const ny_target gpu = {.name = "golden-gpu", .triple = "", .cpu = "", .features = "", .vec_bytes = 16, .n_vregs = 64, .masked = true, .l1d = 99 << 10,
                              .l2 = 4 << 20, .threads = 1, .sm = 90, .shared = 99 << 10, .fp4 = true};

/* ---- evaluation on seeded inputs */
static uint64_t draw(uint64_t *seed) { /* splitmix64 */
  uint64_t z = *seed += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

typedef struct sizes {
  ny_binding v[32];
  size_t n;
} sizes;

static void bind_sizes(ny_graph *g, const char *dims, sizes *env, ny_arena *a) {
  for (const char *p = dims; p && *p;) {
    size_t n = strcspn(p, "= ");
    char *end = NULL;
    env->v[env->n++] = (ny_binding){ny_internn(&g->cx->names, p, n), strtoll(p + n + 1, &end, 10)};
    p = end + strspn(end, " ");
  }
  ny_name *sym = NULL;
  size_t n_sym = 0, cap = 0;
  for (uint32_t i = 0; i < g->body.n_arg; i++)
    for (int d = 0; d < g->body.arg[i]->type->rank; d++)
      ny_dim_symbols(g->cx, g->body.arg[i]->type->dim[d], &sym, &n_sym, &cap, a);
  for (size_t i = 0; i < n_sym && env->n < NY_COUNT(env->v); i++) {
    bool known = false;
    for (size_t j = 0; j < env->n; j++) known |= env->v[j].sym == sym[i];
    if (!known) env->v[env->n++] = (ny_binding){sym[i], (int64_t)i + 2};
  }
}

static ny_tensor make_input(ny_ctx *cx, const ny_type *t, const sizes *env, uint64_t *seed, ny_arena *a) {
  ny_type s = *t;
  for (int d = 0; d < t->rank; d++)
    if (!ny_dim_eval(cx, t->dim[d], env->v, env->n, &s.dim[d])) s.dim[d] = 1;
  const ny_type *type = ny_type_get(cx, s);
  int64_t n = 0;
  ny_type_static_count(cx, type, &n);
  ny_fmt f = (ny_fmt)t->fmt;
  ny_tensor x = {type, ny_alloc(a, ny_fmt_bytes(f, (uint64_t)n) + 16)};
  for (int64_t i = 0; i < n; i++) {
    uint64_t r = draw(seed);
    if (ny_is_float(f))
      ny_put_f(f, x.data, (uint64_t)i, (double)(r >> 11) * 0x1p-51 - 2, false);
    else
      ny_put_i(f, x.data, (uint64_t)i, (int64_t)(r % 7) - 3);
  }
  return x;
}

/* Results of the unit's main graph, or a status; *n of them. */
static nyb_status evaluate(ny_unit *u, const char *dims, ny_arena *a, ny_tensor *out, size_t *n) {
  ny_graph *g = u->first;
  sizes env = {.n = 0};
  uint64_t seed = 1;
  bind_sizes(g, dims, &env, a);
  ny_tensor *in = NY_NEW_ARRAY(a, ny_tensor, g->body.n_arg + 1);
  for (uint32_t i = 0; i < g->body.n_arg; i++) in[i] = make_input(g->cx, g->body.arg[i]->type, &env, &seed, a);
  *n = g->body.last->n_in;
  return ny_eval_graph(g, in, g->body.n_arg, a, 1 << 28, out, *n);
}

static double tolerance(ny_fmt f, const golden *c) { return c->precision ? 2e-2 : f == NY_f64 ? 1e-12 : f == NY_f32 ? 2e-5 : 4e-2; }

static bool same_tensor(const ny_tensor *x, const ny_tensor *y, const golden *c) {
  int64_t n = 1;
  if (x->type != y->type) return false;
  ny_fmt f = (ny_fmt)x->type->fmt;
  for (int d = 0; d < x->type->rank; d++) n *= x->type->dim[d];
  for (int64_t i = 0; i < n; i++) {
    if (!ny_is_float(f)) {
      if (ny_get_i(f, x->data, (uint64_t)i) != ny_get_i(f, y->data, (uint64_t)i)) return false;
      continue;
    }
    double a = ny_get_f(f, x->data, (uint64_t)i), b = ny_get_f(f, y->data, (uint64_t)i);
    if (a != b && !(isnan(a) && isnan(b)) && !(fabs(a - b) <= tolerance(f, c) * (1 + fabs(a)))) return false;
  }
  return true;
}

enum { MAX_OUT = 16 };

/* ---- one case */
static nyb_status run_passes(ny_unit *u, const golden *c) {
  if (!c->passes) return NYB_OK;
  char only[256];
  snprintf(only, sizeof only, "%s", c->passes);
  for (char *p = only; *p; p++)
    if (*p == ' ') *p = ',';
  ny_pass_options o = {.target = c->target && !strcmp(c->target, "gpu") ? &gpu : &target, .opt = 3, .only = only, .verify_each = true};
  NY_TRY(ny_precision_find(c->precision, &o.precision, &u->cx->diag));
  return ny_run_passes(u, &o);
}

static void explain(const ny_ctx *cx, ny_text *out) {
  out->n = 0;
  ny_text_add(out, "");
  ny_diag_print(&cx->diag, out);
}

/* Runs the case; the text it gives in *out. False: *out says what went wrong. */
static bool run_case(const golden *c, ny_ctx *cx, ny_text *out) {
  ny_unit *u;
  ny_arena a = {0};
  ny_tensor before[MAX_OUT], after[MAX_OUT];
  size_t n = 0, m = 0;
  bool ok = false;
  if (ny_parse_unit(cx, c->before, c->n_before, NULL, &u)) {
    explain(cx, out);
    return false;
  }
  if (evaluate(u, c->dims, &a, before, &n) || run_passes(u, c))
    explain(cx, out);
  else if (evaluate(u, c->dims, &a, after, &m))
    explain(cx, out);
  else {
    ok = n == m;
    for (size_t i = 0; ok && i < n; i++) ok = same_tensor(&before[i], &after[i], c);
    u->done = NULL;
    if (ok)
      ny_print_unit(u, out);
    else
      ny_text_add(out, "the results differ from those of the graph as written");
  }
  ny_arena_free(&a);
  ny_unit_free(u);
  return ok;
}

static void check_case(const golden *c, const char *file, ny_text *blessed) {
  ny_ctx *cx = ny_ctx_new();
  ny_text got = {0};
  bool ok = run_case(c, cx, &got), bless = getenv("NYB_BLESS") != NULL;
  if (c->fails) {
    CHECK(!ok && strstr(got.s, c->fails), "%s: %s: %s", file, c->name, ok ? "does not fail" : got.s);
    ny_text_addf(blessed, ";; fails %s\n\n", c->fails);
  } else if (c->holds) {
    CHECK(ok, "%s: %s: %s", file, c->name, got.s);
    ny_text_add(blessed, ";; holds\n\n");
  } else {
    bool same = ok && got.n == c->n_after && !memcmp(got.s, c->after, got.n);
    CHECK(ok, "%s: %s: %s", file, c->name, got.s);
    if (ok && !bless) CHECK(same, "%s: %s gives\n%s", file, c->name, got.s);
    ny_text_add(blessed, ";; gives\n");
    if (ok)
      ny_text_addn(blessed, got.s, got.n);
    else
      ny_text_addn(blessed, c->after, c->n_after);
    ny_text_add(blessed, "\n");
  }
  ny_text_free(&got);
  ny_ctx_free(cx);
}

/* ---- files */
static const char *next_line(const char *s) {
  s += strcspn(s, "\n");
  return *s ? s + 1 : s;
}

/* The text up to the next ";; " line, without empty lines at its end. */
static const char *take_text(const char *s, const char **begin, size_t *n) {
  *begin = s;
  while (*s && strncmp(s, ";; ", 3)) s = next_line(s);
  *n = (size_t)(s - *begin);
  while (*n > 1 && (*begin)[*n - 1] == '\n' && (*begin)[*n - 2] == '\n') --*n;
  return s;
}

static bool take_directive(const char **s, const char *word, const char **out, ny_arena *a) {
  size_t n = strlen(word);
  if (strncmp(*s, ";; ", 3) || strncmp(*s + 3, word, n)) return false;
  const char *begin = *s + 3 + n;
  size_t length = strcspn(begin, "\n");
  *out = ny_strndup(a, begin + (*begin == ' '), length - (*begin == ' '));
  *s = next_line(*s);
  return true;
}

static void run_file(const char *file) {
  ny_arena a = {0};
  ny_diag d = {0};
  char *text;
  size_t n;
  ny_text blessed = {0};
  nyb_status st = ny_file_read(&a, file, 1 << 20, &text, &n, &d);
  CHECK(!st, "%s", d.message);
  const char *s = st ? "" : text, *head;
  s = take_text(s, &head, &n);
  ny_text_addn(&blessed, head, n);
  if (n) ny_text_add(&blessed, "\n");
  while (*s) {
    golden c = {0};
    const char *gives;
    bool good = take_directive(&s, "case", &c.name, &a);
    take_directive(&s, "passes", &c.passes, &a);
    take_directive(&s, "target", &c.target, &a);
    take_directive(&s, "precision", &c.precision, &a);
    take_directive(&s, "dims", &c.dims, &a);
    if (good) s = take_text(s, &c.before, &c.n_before);
    good = good && (take_directive(&s, "fails", &c.fails, &a) || take_directive(&s, "holds", &c.holds, &a) ||
                    take_directive(&s, "gives", &gives, &a));
    CHECK(good, "%s: expected case, passes, dims, a text, then gives or fails, at: %.40s", file, s);
    if (!good) break;
    s = take_text(s, &c.after, &c.n_after);
    ny_text_addf(&blessed, ";; case %s\n", c.name);
    if (c.passes) ny_text_addf(&blessed, ";; passes %s\n", c.passes);
    if (c.target) ny_text_addf(&blessed, ";; target %s\n", c.target);
    if (c.precision) ny_text_addf(&blessed, ";; precision %s\n", c.precision);
    if (c.dims) ny_text_addf(&blessed, ";; dims %s\n", c.dims);
    ny_text_addn(&blessed, c.before, c.n_before);
    check_case(&c, file, &blessed);
  }
  while (blessed.n > 1 && blessed.s[blessed.n - 1] == '\n' && blessed.s[blessed.n - 2] == '\n')
    blessed.s[--blessed.n] = 0;
  if (getenv("NYB_BLESS") && !*s) {
    ny_new_file f;
    st = ny_file_begin(file, &f, &d);
    if (!st) {
      fwrite(blessed.s, 1, blessed.n, f.f);
      st = ny_file_commit(&f, &d);
    }
    CHECK(!st, "%s", d.message);
  }
  ny_text_free(&blessed);
  ny_arena_free(&a);
}

int main(int argc, char **argv) {
  glob_t g = {0};
  for (int i = 1; i < argc; i++) run_file(argv[i]);
  if (argc == 1) {
    CHECK(!glob("tests/passes/*.nyt", 0, NULL, &g) && g.gl_pathc > 0, "%s", "no cases in tests/passes");
    for (size_t i = 0; i < g.gl_pathc; i++) run_file(g.gl_pathv[i]);
    globfree(&g);
  }
  return test_end("golden");
}
