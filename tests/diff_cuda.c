/* Random graphs as CUDA kernels in the simulator, under all its checks, against the evaluator: what families and code generator make of shapes nobody thought
   of. Graphs with control flow are left to diff. Usage: diff_cuda [first seed [number [target]]]. */
#include <stdlib.h>
#include <string.h>

#include "diff_gen.h"
#include "simulate.h"
#include "test.h"

enum { LIMIT = 1 << 28 };
static const ny_target *target;
static int n_refused;

static void compare(const diff_case *c, const exec *x, const ny_tensor *want, uint64_t seed) {
  for (int i = 0; i < c->n_out; i++) {
    char why[200] = "";
    ny_tensor got = exec_result(x, (size_t)i);
    CHECK_EACH(diff_same(&want[i], &got, c->err[i], why), "seed %llu: output %d: %s", (unsigned long long)seed, i, why);
  }
  const char *hit = exec_guards(x);
  CHECK_EACH(!hit, "seed %llu: %s was written outside its bounds", (unsigned long long)seed, hit);
}

static void simulate(ny_ctx *cx, diff_case *c, const ny_tensor *in, const ny_tensor *want, uint64_t seed) {
  ny_pass_options o = {.target = target, .opt = (int)(seed % 3), .until = "tile"};
  exec x = {0};
  ny_diag d = {0};
  nyb_status s = ny_run_passes(c->u, &o);
  n_refused += s == NYB_E_UNSUPPORTED;
  CHECK_EACH(!s || s == NYB_E_UNSUPPORTED, "seed %llu, passes: %s", (unsigned long long)seed, cx->diag.message);
  if (s) return;
  s = exec_open(&x, c->u, NULL, c->env, c->n_env, in, (size_t)c->n_in, NULL);
  CHECK_EACH(!s, "seed %llu: %s", (unsigned long long)seed, cx->diag.message);
  if (!s) s = simulate_run(&x, target, &(simulate_schedule){.name = "as lowered"}, false, &d);
  CHECK(!s, "seed %llu: %s", (unsigned long long)seed, d.code ? d.message : cx->diag.message);
  if (!s) compare(c, &x, want, seed);
  exec_close(&x);
}

static void one(uint64_t seed) {
  ny_ctx *cx = ny_ctx_new();
  ny_arena a = {0};
  diff_case c;
  ny_tensor in[DIFF_MAX_IN], out[DIFF_MAX_OUT];
  diff_options o = {.seed = seed, .ops = 4 + (int)(seed % 37), .symbols = seed % 3 == 1, .control = false, .wide = seed % 2 == 0};
  bool ok = diff_generate(cx, &o, &c);
  CHECK(ok, "seed %llu makes no graph: %s", (unsigned long long)seed, cx->diag.message);
  if (ok) {
    diff_inputs(&c, seed, &a, in);
    ok = !ny_eval_graph(c.g, in, (size_t)c.n_in, &a, LIMIT, out, (size_t)c.n_out);
    CHECK(ok, "seed %llu: %s", (unsigned long long)seed, cx->diag.message);
  }
  if (ok) simulate(cx, &c, in, out, seed);
  ny_unit_free(c.u);
  ny_arena_free(&a);
  ny_ctx_free(cx);
}

int main(int argc, char **argv) {
  uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, n = argc > 2 ? strtoull(argv[2], NULL, 10) : 12;
  ny_diag d = {0};
  if (!simulate_available(&d)) printf("diff_cuda: skipped: %s\n", d.message);
  else CHECK(!ny_target_find(argc > 3 ? argv[3] : "sm_90a", &target, &d), "%s", d.message);
  for (uint64_t seed = first; target && seed < first + n; seed++) one(seed);
  if (n_refused) printf("diff_cuda: %d graphs hold an op that no kernel family takes\n", n_refused);
  return test_end("diff_cuda");
}
