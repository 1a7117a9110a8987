/* Random graphs through the whole of nybble: written as text, imported, compiled to a module, loaded and run, then
   compared with the evaluator on the graph as it was generated. Usage: diff_run [first seed [number]]. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "diff_gen.h"
#include "test.h"

enum { LIMIT = 1 << 28 };
static char dir[] = "/tmp/nybble-diff-XXXXXX";
static int n_refused;

typedef struct run {
  uint64_t seed;
  diff_case c;
  ny_tensor in[DIFF_MAX_IN], want[DIFF_MAX_OUT];
  nyb_context *api;
  char nyt[64], nyb[64];
} run;

static bool ok(run *r, nyb_status s, const char *step) {
  const nyb_error *e = s ? nyb_last_error(r->api) : NULL;
  if (s == NYB_E_UNSUPPORTED) {
    n_refused++;
    return false;
  }
  CHECK(!s, "seed %llu, %s: %s", (unsigned long long)r->seed, step, e ? e->text : "no message");
  return !s;
}

static bool write_text(run *r) {
  ny_text t = {0};
  ny_print_unit(r->c.u, &t);
  FILE *f = fopen(r->nyt, "w");
  bool done = f && fwrite(t.s, 1, t.n, f) == t.n && !fclose(f);
  ny_text_free(&t);
  return done;
}

static bool compile(run *r) {
  nyb_model *m = NULL;
  nyb_compile_options o = {.size = sizeof o, .optimize = 1 + (int)(r->seed % 3)};
  bool done = ok(r, nyb_import(r->api, r->nyt, NULL, &m), "import") && ok(r, nyb_compile(m, &o, r->nyb), "compile");
  nyb_model_close(m);
  return done;
}

static nyb_dtype dtype_of(ny_fmt f) {
  nyb_dtype d = {.bits = ny_fmts[f].bits, .lanes = 1};
  d.code = f == NY_bf16             ? NYB_BFLOAT
           : f == NY_bool           ? NYB_BOOL
           : ny_is_float(f)         ? NYB_FLOAT
           : ny_fmts[f].kind == 'U' ? NYB_UINT
                                    : NYB_INT;
  return d;
}

static void compare(run *r, const nyb_tensor *out) {
  for (int i = 0; i < r->c.n_out; i++) {
    char why[200] = "";
    ny_type t = *r->want[i].type;
    bool shape = out[i].ndim == t.rank;
    for (int d = 0; shape && d < t.rank; d++) shape = out[i].shape[d] == t.dim[d];
    ny_tensor got = {r->want[i].type, (char *)out[i].data + out[i].byte_offset};
    bool same = shape && diff_same(&r->want[i], &got, r->c.err[i], why);
    CHECK_EACH(same, "seed %llu, -O%d: output %d: %s", (unsigned long long)r->seed, (int)(r->seed % 3), i,
          shape ? why : "another shape");
    if (!same) return;
  }
}

/* Sizes of the symbols that the module still has. */
static size_t sizes(const run *r, const nyb_module *m, nyb_dim *out) {
  nyb_module_info info = {.size = sizeof info};
  size_t n = 0;
  if (nyb_module_describe(m, &info)) return 0;
  for (size_t i = 0; i < r->c.n_env; i++)
    for (size_t k = 0; k < info.n_symbols; k++)
      if (!strcmp(info.symbols[k], r->c.env[i].sym)) out[n++] = (nyb_dim){r->c.env[i].sym, r->c.env[i].value};
  return n;
}

static bool open_session(run *r, nyb_module *m, nyb_session **s) {
  nyb_dim dims[2];
  nyb_session_options o = {
      .size = sizeof o, .threads = 1 + (int)(r->seed % 2), .dims = dims, .n_dims = sizes(r, m, dims)};
  return ok(r, nyb_session_open(m, &o, s), "session");
}

static void execute(run *r) {
  nyb_module *m = NULL;
  nyb_session *s = NULL;
  nyb_load_options lo = {.size = sizeof lo, .trust = 1};
  nyb_tensor in[DIFF_MAX_IN], out[DIFF_MAX_OUT] = {0};
  int64_t shape[DIFF_MAX_IN][NY_MAX_RANK];
  for (int i = 0; i < r->c.n_in; i++) {
    const ny_type *t = r->in[i].type;
    memcpy(shape[i], t->dim, sizeof t->dim);
    in[i] = (nyb_tensor){
        .data = r->in[i].data, .device = {1, 0}, .ndim = t->rank, .dtype = dtype_of((ny_fmt)t->fmt), .shape = shape[i]};
  }
  if (ok(r, nyb_load(r->api, r->nyb, &lo, &m), "load") && open_session(r, m, &s))
    for (int again = 0; again < 2; again++) /* the second run meets an arena full of the first one's values */
      if (ok(r, nyb_run(s, in, (size_t)r->c.n_in, out, (size_t)r->c.n_out), "run")) compare(r, out);
  nyb_session_close(s);
  nyb_module_close(m);
}

static void one(uint64_t seed) {
  run r = {.seed = seed};
  ny_ctx *cx = ny_ctx_new();
  ny_arena a = {0};
  diff_options o = {.seed = seed,
                    .ops = 4 + (int)(seed % 97),
                    .symbols = seed % 3 == 1,
                    .control = seed % 5 == 2,
                    .wide = seed % 2 == 0};
  snprintf(r.nyt, sizeof r.nyt, "%s/g.nyt", dir);
  snprintf(r.nyb, sizeof r.nyb, "%s/g.nyb", dir);
  nyb_options no = {.size = sizeof no, .cache_dir = ""};
  bool good = !nyb_open(&no, &r.api) && diff_generate(cx, &o, &r.c) && write_text(&r);
  if (good) diff_inputs(&r.c, seed, &a, r.in);
  good = good && !ny_eval_graph(r.c.g, r.in, (size_t)r.c.n_in, &a, LIMIT, r.want, (size_t)r.c.n_out);
  CHECK(good, "seed %llu: %s", (unsigned long long)seed, cx->diag.message);
  if (good && compile(&r)) execute(&r);
  nyb_close(r.api);
  ny_unit_free(r.c.u);
  ny_arena_free(&a);
  ny_ctx_free(cx);
  unlink(r.nyt);
  unlink(r.nyb);
}

int main(int argc, char **argv) {
  uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, n = argc > 2 ? strtoull(argv[2], NULL, 10) : 60;
  if (!mkdtemp(dir)) return 2;
  for (uint64_t seed = first; seed < first + n; seed++) one(seed);
  rmdir(dir);
  if (n_refused) printf("diff_run: %d graphs hold an op that no kernel family takes\n", n_refused);
  return test_end("diff_run");
}
