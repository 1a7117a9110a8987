/* Kernel benchmark: each case is lowered as a model would be, checked against the reference evaluator, and only then timed. One thread. The machine's
   multiply-add peak is measured in the same rounds, so that a busy machine slows both; medians are printed, the best round in brackets.
   nybble-bench-kernels [--target NAME] [--rounds N] [--dump DIR] [case substring] */
#include <stdlib.h>
#include <string.h>

#include "exec.h"
#include "family.h"
#include "peak.h"

enum { MAX_ROUNDS = 101, LONG = 4096 };
typedef struct bench {
  const char *name;
  double flops, bytes; /* bytes: of weights, for cases bound by memory; else 0 */
  int (*text)(char *s, size_t n, const int64_t *p, int64_t pack);
  int64_t p[8];
} bench;

/* x[m,k] w[k,n] + bias: p = m, k, n */
static int matmul_text(char *s, size_t n, const int64_t *p, int64_t pack) {
  char w[96], attr[32] = "";
  snprintf(w, sizeof w, "f32[%lld,%lld]", (long long)p[1], (long long)p[2]);
  if (pack) {
    snprintf(w, sizeof w, "f32[%lld,%lld,%lld]", (long long)((p[2] + pack - 1) / pack), (long long)p[1], (long long)pack);
    snprintf(attr, sizeof attr, " packed=%lld", (long long)pack);
  }
  const char *gelu = p[3] ? "  %y = gelu %z : " : "  %y = relu %z : ";
  char o[64];
  snprintf(o, sizeof o, "f32[%lld,%lld]", (long long)p[0], (long long)p[2]);
  return snprintf(s, n, "graph g(%%x: f32[%lld,%lld], %%w: %s, %%b: f32[%lld]) {\n  %%t = matmul %%x, %%w%s : %s\n  %%z = add %%t, %%b : %s\n%s%s\n  ret %%y\n}\n",
                  (long long)p[0], (long long)p[1], w, (long long)p[2], attr, o, o, gelu, o);
}

/* x[1,h,h,c] w[k,k,c,m], stride s: p = output size, c, m, k, s */
static int conv_text(char *s, size_t n, const int64_t *p, int64_t pack) {
  char w[128], attr[32] = "", o[96];
  int64_t in = (p[0] - 1) * p[4] + p[3];
  snprintf(w, sizeof w, "f32[%lld,%lld,%lld,%lld]", (long long)p[3], (long long)p[3], (long long)p[1], (long long)p[2]);
  if (pack) {
    snprintf(w, sizeof w, "f32[1,%lld,%lld,%lld]", (long long)((p[2] + pack - 1) / pack), (long long)(p[3] * p[3] * p[1]), (long long)pack);
    snprintf(attr, sizeof attr, " packed=%lld", (long long)pack);
  }
  snprintf(o, sizeof o, "f32[1,%lld,%lld,%lld]", (long long)p[0], (long long)p[0], (long long)p[2]);
  return snprintf(s, n, "graph g(%%x: f32[1,%lld,%lld,%lld], %%w: %s, %%b: f32[%lld]) {\n  %%t = conv %%x, %%w kernel=[%lld,%lld] stride=[%lld,%lld] dilation=[1,1]%s : %s\n"
                  "  %%z = add %%t, %%b : %s\n  %%y = relu %%z : %s\n  ret %%y\n}\n",
                  (long long)in, (long long)in, (long long)p[1], w, (long long)p[2], (long long)p[3], (long long)p[3], (long long)p[4], (long long)p[4], attr, o, o, o);
}

/* heads of a [rows, heads*d] matrix each: p = heads, queries, keys, d */
static int attention_text(char *s, size_t n, const int64_t *p, int64_t pack) {
  (void)pack;
  long long h = p[0], m = p[1], k = p[2], d = p[3];
  return snprintf(s, n,
                  "graph g(%%a: f32[1,%lld,%lld], %%b: f32[1,%lld,%lld], %%c: f32[1,%lld,%lld], %%m: f32[1,1,1,%lld]) {\n"
                  "  %%q0 = reshape %%a : f32[1,%lld,%lld,%lld]\n  %%q = transpose %%q0 perm=[0,2,1,3] : f32[1,%lld,%lld,%lld]\n"
                  "  %%k0 = reshape %%b : f32[1,%lld,%lld,%lld]\n  %%k = transpose %%k0 perm=[0,2,1,3] : f32[1,%lld,%lld,%lld]\n"
                  "  %%v0 = reshape %%c : f32[1,%lld,%lld,%lld]\n  %%v = transpose %%v0 perm=[0,2,1,3] : f32[1,%lld,%lld,%lld]\n"
                  "  %%y = attention %%q, %%k, %%v, %%m scale=0.125 : f32[1,%lld,%lld,%lld]\n"
                  "  %%t = transpose %%y perm=[0,2,1,3] : f32[1,%lld,%lld,%lld]\n  %%r = reshape %%t : f32[1,%lld,%lld]\n  ret %%r\n}\n",
                  m, h * d, k, h * d, k, h * d, k, m, h, d, h, m, d, k, h, d, h, k, d, k, h, d, h, k, d, h, m, d, m, h, d, m, h * d);
}

#define MM(m, k, n, act) {"matmul " #m "x" #k "x" #n #act, 2.0 * m * k * n, 0, matmul_text, {m, k, n, sizeof(#act) > 1}}
#define GEMV(k, n) {"gemv " #k "x" #n, 2.0 * k * n, 4.0 * k * n, matmul_text, {1, k, n}}
#define CONV(k, s, o, c, m) {"conv" #k "x" #k " " #o "x" #o " " #c "->" #m " /" #s, 2.0 * o * o * c * m * k * k, 0, conv_text, {o, c, m, k, s}}
#define ATT(h, m, n, d) {"attention " #h "x" #m "x" #n "x" #d, 4.0 * h * m * n * d, 0, attention_text, {h, m, n, d}}
static const bench cases[] = {
    MM(128, 384, 384, ),      MM(128, 384, 1536, ),    MM(128, 1536, 384, ),    MM(128, 768, 3072, ),     MM(512, 512, 512, ), MM(1024, 1024, 1024, ),
    MM(128, 384, 1536, gelu), MM(8, 768, 3072, ),      GEMV(768, 3072),         GEMV(3072, 768),          GEMV(4096, 4096),
    CONV(3, 1, 56, 64, 64),   CONV(3, 1, 28, 128, 128), CONV(3, 1, 14, 256, 256), CONV(3, 1, 7, 512, 512),
    CONV(1, 1, 56, 64, 256),  CONV(1, 1, 56, 256, 64), CONV(1, 1, 14, 1024, 256), CONV(1, 2, 28, 256, 512), CONV(7, 2, 112, 3, 64),
    ATT(12, 128, 128, 32),    ATT(8, 512, 512, 64),
};

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
static double median(double *v, int n) {
  qsort(v, (size_t)n, sizeof *v, by_value);
  return v[n / 2];
}

typedef struct options {
  const ny_target *target;
  int rounds;
  const char *dump, *only;
} options;

static nyb_status parse(ny_ctx *cx, const bench *c, const ny_target *t, ny_unit **out) {
  char text[LONG];
  int n = c->text(text, sizeof text, c->p, 0);
  NY_TRY(ny_parse_unit(cx, text, (size_t)n, NULL, out));
  int64_t pack = 0;
  for (const ny_op *op = (*out)->first->body.first; op; op = op->next)
    if (op->kind == NY_matmul || op->kind == NY_conv) pack = ny_pack_width(t, op);
  if (!pack) return NYB_OK;
  ny_unit_free(*out);
  n = c->text(text, sizeof text, c->p, pack);
  return ny_parse_unit(cx, text, (size_t)n, NULL, out);
}

static void print_knobs(const ny_unit *u) {
  for (const ny_graph *k = u->first; k; k = k->next) {
    if (!k->kernel) continue;
    printf("  %s", k->family ? k->family : "?");
    for (uint32_t i = 0; i < k->n_knob; i++) printf(" %s=%lld", k->knob[i].name, (long long)k->knob[i].value);
  }
}

static void time_it(const bench *c, const exec *x, const options *o, double err, const ny_unit *u) {
  double rate[MAX_ROUNDS], peak[MAX_ROUNDS], part[MAX_ROUNDS], best = 0;
  int reps = 1;
  for (;;) { /* a batch of about two milliseconds */
    double t = ny_now();
    for (int i = 0; i < reps; i++) exec_fast((exec *)x);
    if (ny_now() - t > 2e-3 || reps > 1 << 20) break;
    reps *= 2;
  }
  for (int r = 0; r < o->rounds; r++) {
    double t = ny_now();
    for (int i = 0; i < reps; i++) exec_fast((exec *)x);
    rate[r] = c->flops * reps / (ny_now() - t) * 1e-9;
    peak[r] = fma_peak(o->target->vec_bytes) * 1e-9;
    part[r] = rate[r] / peak[r];
    if (rate[r] > best) best = rate[r];
  }
  double med = median(rate, o->rounds), of = median(part, o->rounds);
  printf("%-34s %8.1f (%6.1f) GF/s %4.0f %% of %5.0f %9.1f us  error %.1e", c->name, med, best, 100 * of, median(peak, o->rounds), c->flops / med * 1e-3, err);
  if (c->bytes > 0) printf("  %.1f GB/s", c->bytes / c->flops * med);
  print_knobs(u);
  printf("\n");
  fflush(stdout);
}

static nyb_status run_case(ny_ctx *cx, const bench *c, const options *o) {
  ny_unit *u;
  ny_arena a = {0};
  exec x = {0};
  ny_tensor in[8], want;
  NY_TRY(parse(cx, c, o->target, &u));
  size_t n_in = u->first->body.n_arg;
  for (size_t i = 0; i < n_in; i++) in[i] = exec_random(cx, &a, u->first->body.arg[i]->type, NULL, 0, (uint32_t)i + 1);
  nyb_status s = ny_eval_graph(u->first, in, n_in, &a, 1ull << 32, &want, 1);
  ny_pass_options po = {.target = o->target, .opt = 2, .until = "tile", .dump_dir = o->dump};
  if (!s) s = ny_run_passes(u, &po);
  if (!s) s = exec_open(&x, u, o->target, NULL, 0, in, n_in, o->dump);
  if (!s) s = exec_run(&x);
  if (!s) {
    double err = exec_error(exec_result(&x, 0), want);
    if (err > 1e-5 || exec_guards(&x)) s = ny_fail(&cx->diag, NYB_E_VERIFY, NULL, "%s gives wrong results: error %g", c->name, err);
    else time_it(c, &x, o, err, u);
  }
  exec_close(&x);
  ny_arena_free(&a);
  ny_unit_free(u);
  return s;
}

static nyb_status read_options(int argc, char **argv, options *o, ny_diag *d) {
  const char *target = "host";
  o->rounds = 21;
  for (int i = 1; i < argc; i++) {
    bool more = i + 1 < argc;
    if (!strcmp(argv[i], "--target") && more) target = argv[++i];
    else if (!strcmp(argv[i], "--rounds") && more) o->rounds = atoi(argv[++i]);
    else if (!strcmp(argv[i], "--dump") && more) o->dump = argv[++i];
    else if (argv[i][0] == '-') return ny_fail(d, NYB_E_ARGUMENT, NULL, "usage: nybble-bench-kernels [--target NAME] [--rounds N] [--dump DIR] [case substring]");
    else o->only = argv[i];
  }
  if (o->rounds < 1) o->rounds = 1;
  if (o->rounds > MAX_ROUNDS) o->rounds = MAX_ROUNDS;
  return ny_target_find(target, &o->target, d);
}

int main(int argc, char **argv) {
  ny_ctx *cx = ny_ctx_new();
  options o = {0};
  int failed = 0;
  if (read_options(argc, argv, &o, &cx->diag)) {
    fprintf(stderr, "%s\n", cx->diag.message);
    return 2;
  }
  printf("target %s (%s), %d rounds, one thread\n", o.target->name, o.target->cpu, o.rounds);
  for (size_t i = 0; i < NY_COUNT(cases); i++) {
    if (o.only && !strstr(cases[i].name, o.only)) continue;
    if (!run_case(cx, &cases[i], &o)) continue;
    ny_text t = {0};
    ny_diag_print(&cx->diag, &t);
    fprintf(stderr, "%s: %s\n", cases[i].name, t.s);
    ny_text_free(&t);
    ny_diag_clear(&cx->diag);
    failed = 1;
  }
  ny_ctx_free(cx);
  return failed;
}
