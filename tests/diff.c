/* Random graphs: what is printed reads back to a graph that prints and evaluates the same, and the passes keep every
   result within the bound that legal reordering allows. Usage: diff [first seed [number [1: print each graph]]]. */
#include <stdlib.h>
#include <string.h>

#include "diff_gen.h"
#include "test.h"
#include "passes.h"

enum { LIMIT = 1 << 28 };
static int n_refused;

typedef struct results {
  ny_tensor in[DIFF_MAX_IN], out[DIFF_MAX_OUT];
} results;

static bool compare(const diff_case *c, const results *want, const results *got, bool exact, uint64_t seed,
                    const char *what) {
  for (int i = 0; i < c->n_out; i++) {
    char why[200] = "";
    bool same = diff_same(&want->out[i], &got->out[i], exact ? 0 : c->err[i], why);
    CHECK_EACH(same, "seed %llu, %s: output %d: %s", (unsigned long long)seed, what, i, why);
    if (!same) return false;
  }
  return true;
}

static bool reads_back(ny_ctx *cx, const diff_case *c, const results *want, ny_arena *a, uint64_t seed) {
  ny_text once = {0}, twice = {0};
  ny_unit *u = NULL;
  results r = *want;
  ny_print_unit(c->u, &once);
  nyb_status s = ny_parse_unit(cx, once.s, once.n, NULL, &u);
  if (!s) ny_print_unit(u, &twice);
  bool ok = !s && once.n == twice.n && !memcmp(once.s, twice.s, once.n);
  CHECK(ok, "seed %llu does not read back: line %d: %s", (unsigned long long)seed, cx->diag.line, cx->diag.message);
  if (ok) {
    s = ny_eval_graph(u->first, r.in, (size_t)c->n_in, a, LIMIT, r.out, (size_t)c->n_out);
    CHECK(!s, "seed %llu after reading back: %s", (unsigned long long)seed, cx->diag.message);
    ok = !s && compare(c, want, &r, true, seed, "read back");
  }
  if (u) ny_unit_free(u);
  ny_text_free(&once);
  ny_text_free(&twice);
  ny_diag_clear(&cx->diag);
  return ok;
}

/* The graph after every prefix of the pipeline must still evaluate to the same. */
static bool survives_passes(ny_ctx *cx, diff_case *c, const results *want, ny_arena *a, uint64_t seed) {
  static const ny_target target = {
      .name = "test", .vec_bytes = 32, .n_vregs = 16, .masked = false, .l1d = 32 << 10, .l2 = 1 << 20, .threads = 2};
  int opt = (int)(seed % 3);
  for (int p = 0; p < ny_n_passes; p++) {
    ny_pass_options o = {.target = &target, .opt = opt, .until = ny_passes[p].name, .verify_each = true};
    results r = *want;
    nyb_status s = ny_run_passes(c->u, &o);
    if (s == NYB_E_UNSUPPORTED) { /* an honest refusal; main says how many */
      n_refused++;
      if (n_refused < 4) fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, cx->diag.message);
      return true;
    }
    if (!s) s = ny_eval_graph(c->u->first, r.in, (size_t)c->n_in, a, LIMIT, r.out, (size_t)c->n_out);
    CHECK_EACH(!s, "seed %llu, -O%d, %s: %s", (unsigned long long)seed, opt, ny_passes[p].name, cx->diag.message);
    if (s || !compare(c, want, &r, false, seed, ny_passes[p].name)) return false;
  }
  return true;
}

/* The same for kernels of a GPU: all passes at once. */
static bool survives_gpu(ny_ctx *cx, diff_case *c, const results *want, ny_arena *a, uint64_t seed) {
  static const ny_target target = {.name = "gpu", .vec_bytes = 16, .n_vregs = 64, .masked = true, .l1d = 100 << 10, .l2 = 4 << 20, .sm = 80, .shared = 99 << 10};
  ny_unit *u = NULL;
  ny_pass_options o = {.target = &target, .opt = (int)(seed % 3), .verify_each = true};
  results r = *want;
  nyb_status s = ny_unit_copy(c->u, &u);
  if (!s) s = ny_run_passes(u, &o);
  bool refused = s == NYB_E_UNSUPPORTED;
  n_refused += refused;
  if (!s) s = ny_eval_graph(u->first, r.in, (size_t)c->n_in, a, LIMIT, r.out, (size_t)c->n_out);
  CHECK_EACH(!s || refused, "seed %llu, -O%d for a GPU: %s", (unsigned long long)seed, o.opt, cx->diag.message);
  bool ok = refused || (!s && compare(c, want, &r, false, seed, "for a GPU"));
  if (refused) ny_diag_clear(&cx->diag);
  if (u) ny_unit_free(u);
  return ok;
}

static bool one(uint64_t seed, bool show) {
  ny_ctx *cx = ny_ctx_new();
  ny_arena a = {0};
  diff_case c;
  results r = {0};
  diff_options o = {.seed = seed,
                    .ops = 4 + (int)(seed % 97),
                    .symbols = seed % 3 == 1,
                    .control = seed % 5 == 2,
                    .wide = seed % 2 == 0};
  bool ok = diff_generate(cx, &o, &c);
  CHECK(ok, "seed %llu makes no graph: %s", (unsigned long long)seed, cx->diag.message);
  if (show) {
    ny_text t = {0};
    ny_print_unit(c.u, &t);
    puts(t.s);
    ny_text_free(&t);
  }
  if (ok) {
    diff_inputs(&c, seed, &a, r.in);
    ok = !ny_eval_graph(c.g, r.in, (size_t)c.n_in, &a, LIMIT, r.out, (size_t)c.n_out);
    CHECK(ok, "seed %llu: %s", (unsigned long long)seed, cx->diag.message);
  }
  ok = ok && reads_back(cx, &c, &r, &a, seed);
  ok = ok && survives_gpu(cx, &c, &r, &a, seed);
  ok = ok && survives_passes(cx, &c, &r, &a, seed);
  CHECK(ok, "graph of seed %llu", (unsigned long long)seed);
  ny_unit_free(c.u);
  ny_arena_free(&a);
  ny_ctx_free(cx);
  return ok;
}

int main(int argc, char **argv) {
  uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, n = argc > 2 ? strtoull(argv[2], NULL, 10) : 300;
  for (uint64_t seed = first; seed < first + n; seed++) one(seed, argc > 3);
  if (n_refused) printf("diff: %d graphs hold an op that no kernel family takes\n", n_refused);
  return test_end("diff");
}
