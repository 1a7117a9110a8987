/* Compiled kernels against the evaluator: the tile programs of kernels/tiles.nyt over odd sizes, every elementwise row
   in every format over special and random values, and every cast. Buffers lie between guard bytes; grids are run whole
   and in uneven ranges. Elementwise rows are compiled for this machine and for one without fma; tile programs, random programs, rows of f32 and, in a long
   run, all rows for every target whose code can be run here.
   With `cuda TARGET` the same programs run as CUDA kernels in the simulator, with `compile TARGET` they are compiled only.
   usage: kernel_test [-v] [long] [cuda|compile TARGET] [tiles|random|rows|casts [first seed [seeds]]]    -v prints the largest error of every row */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "emulate.h"
#include "exec.h"
#include "kernel_gen.h"
#include "simulate.h"
#include "test.h"

#include "nybble/kernel.h"

static bool verbose, long_run;
static const ny_target *targets[6];
static int n_targets;
static const ny_target *emulated; /* one of them, run by an emulator */

/* In a run for CUDA there are schedules instead: the first for all, the others for tile programs. */
static const simulate_schedule schedules[] = {
    {"as it says", 0, 0, 0, 0, 0, 0},
    {"one thread", 1, 0, 0, 0, 0, 0},    {"a warp", 32, 0, 0, 0, 0, 0},         {"128 threads", 128, 0, 0, 0, 0, 0},
    {"8 x 8", 64, 8, 2, 4, 0, 0},        {"fragments", 128, 0, 0, 0, 2, 2},
};
static const ny_target *device; /* NULL: not a run for CUDA */
static bool compile_only;

/* ---- numbers */
static uint32_t state = 12345;
static uint32_t next(void) {
  state ^= state << 13, state ^= state >> 17, state ^= state << 5;
  return state;
}

/* Distance of two results in units in the last place of their format; NaN equals NaN, 0 equals -0. */
static double distance(ny_fmt f, const void *a, const void *b, uint64_t i) {
  if (!ny_is_float(f)) return ny_get_i(f, a, i) == ny_get_i(f, b, i) ? 0 : HUGE_VAL;
  double x = ny_get_f(f, a, i), y = ny_get_f(f, b, i);
  if (isnan(x) || isnan(y)) return isnan(x) && isnan(y) ? 0 : HUGE_VAL;
  if (x == y) return 0;
  if (isinf(x) || isinf(y)) { /* one rounding step past the largest number */
    double big = isinf(x) ? y : x, top = f == NY_f64   ? 1.7976931348623157e308
                                         : f == NY_f32 ? 3.4028234663852886e38
                                         : f == NY_f16 ? 65504
                                                       : 3.3895313892515355e38;
    return (isinf(x) && isinf(y)) || (x > 0) != (y > 0) || fabs(big) < top * (1 - 1e-6) ? HUGE_VAL : 1;
  }
  int man = f == NY_f64 ? 52 : f == NY_f32 ? 23 : f == NY_f16 ? 10 : f == NY_bf16 ? 7 : 3;
  int lowest = f == NY_f64 ? -1022 : f == NY_f16 ? -14 : -126, e;
  frexp(y == 0 ? x : y, &e);
  if (e - 1 < lowest) e = lowest + 1;
  return fabs(x - y) / ldexp(1, e - 1 - man);
}

/* ---- one unit of text, run by the evaluator and by every target */
typedef struct result {
  ny_tensor t;
} result;

static void explain(ny_ctx *cx, const char *name, const char *what) {
  ny_text t = {0};
  if (cx->diag.code) ny_diag_print(&cx->diag, &t);
  CHECK(false, "%s: %s: %s", name, what, t.s ? t.s : "");
  ny_text_free(&t);
}

static void run_step(const exec_step *s, int64_t pieces) {
  nyb_dispatch d = {.buffer = s->buffer, .dim = s->dim, .scratch = s->scratch};
  int64_t at = 0;
  for (int64_t i = 1; i <= pieces; i++) {
    int64_t to = i == pieces ? s->extent : s->extent * i / pieces + (i & 1);
    if (to > s->extent) to = s->extent;
    if (to < at) to = at;
    s->fn(&d, at, to);
    at = to;
  }
}

typedef struct unit_run {
  const char *name, *text;
  ny_binding env[8];
  size_t n_env;
  const ny_tensor *in; /* NULL: random */
  int64_t cuts;        /* ranges that the grid is run in; 0: one, three, five, with the same results */
  double tolerance;
  void (*judge)(struct unit_run *r, size_t out, ny_tensor got, ny_tensor want, const char *target);
  void *user;
  bool all_targets, own_schedule;
  ny_ctx *cx;
} unit_run;

static void judge_all(unit_run *r, size_t out, ny_tensor got, ny_tensor want, const char *target) {
  int64_t n = 0;
  ny_type_static_count(r->cx, got.type, &n);
  double worst = 0, scale = 0;
  ny_fmt f = (ny_fmt)got.type->fmt;
  int64_t at = 0;
  for (int64_t i = 0; i < n && ny_is_float(f); i++) {
    double y = fabs(ny_get_f(f, want.data, (uint64_t)i));
    if (y > scale && isfinite(y)) scale = y;
  }
  for (int64_t i = 0; i < n; i++) {
    double d = distance(f, got.data, want.data, (uint64_t)i);
    if (d > r->tolerance && d < HUGE_VAL && r->tolerance > 0) { /* sums: small against the largest result */
      double x = ny_get_f(f, got.data, (uint64_t)i), y = ny_get_f(f, want.data, (uint64_t)i);
      if (fabs(x - y) <= scale * (f == NY_f64 ? 1e-14 : f == NY_f32 ? 4e-6 : 0.02)) d = 0;
    }
    if (d > worst) worst = d, at = i;
  }
  CHECK(worst <= r->tolerance, "%s [%s]: result %zu element %lld is %.9g, not %.9g", r->name, target, out,
        (long long)at,
        ny_is_float(f) ? ny_get_f(f, got.data, (uint64_t)at) : (double)ny_get_i(f, got.data, (uint64_t)at),
        ny_is_float(f) ? ny_get_f(f, want.data, (uint64_t)at) : (double)ny_get_i(f, want.data, (uint64_t)at));
}

static ny_unit *parse(unit_run *r) {
  ny_unit *u = NULL;
  if (ny_parse_unit(r->cx, r->text, strlen(r->text), NULL, &u) || ny_verify_unit(u)) {
    explain(r->cx, r->name, "does not parse");
    return NULL;
  }
  return u;
}

static void judge_results(unit_run *r, const exec *got, const exec *want, size_t n, const char *target) {
  for (size_t i = 0; i < n; i++) r->judge(r, i, exec_result(got, i), exec_result(want, i), target);
  const char *hit = exec_guards(got);
  CHECK(!hit, "%s [%s]: %s was written outside its bounds", r->name, target, hit);
}

static void run_cuda(unit_run *r, ny_unit *u, const ny_tensor *in, size_t n_in, const exec *want) {
  size_t first = r->own_schedule ? 0 : 1, last = r->own_schedule ? 0 : r->all_targets ? NY_COUNT(schedules) - 1 : 1, n_out = u->first->body.last->n_in;
  for (size_t i = first; i <= last; i++) {
    exec got;
    ny_diag d = {0};
    const char *name = schedules[i].name;
    if (exec_open(&got, u, NULL, r->env, r->n_env, in, n_in, NULL)) {
      explain(r->cx, r->name, name);
      return;
    }
    bool ran = !simulate_run(&got, device, &schedules[i], compile_only, &d);
    CHECK(ran || d.code == NYB_E_LIMIT, "%s [%s, %s]: %s", r->name, device->name, name, d.message);
    if (ran && !compile_only) judge_results(r, &got, want, n_out, name);
    exec_close(&got);
  }
}

static void run_unit(unit_run *r) {
  ny_unit *u = parse(r);
  if (!u) return;
  ny_arena a = {0};
  ny_graph *g = u->first;
  size_t n_in = g->body.n_arg, n_out = g->body.last->n_in;
  ny_tensor *in = NY_NEW_ARRAY(&a, ny_tensor, n_in + 1);
  for (size_t i = 0; i < n_in; i++)
    in[i] = r->in ? r->in[i] : exec_random(r->cx, &a, g->body.arg[i]->type, r->env, r->n_env, (uint32_t)i + 1);
  exec want;
  if (exec_open(&want, u, NULL, r->env, r->n_env, in, n_in, NULL) || exec_run(&want)) {
    explain(r->cx, r->name, "evaluator");
    return;
  }
  if (device) run_cuda(r, u, in, n_in, &want);
  for (int t = 0; t < n_targets; t++) {
    exec got;
    if (t && !r->all_targets && !targets[t]->no_fma) continue;
    if (targets[t] == emulated) {
      if (exec_open(&got, u, NULL, r->env, r->n_env, in, n_in, NULL) || emulate_run(&got, targets[t])) {
        explain(r->cx, r->name, targets[t]->name);
        return;
      }
      judge_results(r, &got, &want, n_out, targets[t]->name);
      exec_close(&got);
      continue;
    }
    if (exec_open(&got, u, targets[t], r->env, r->n_env, in, n_in, verbose ? getenv("DUMP") : NULL)) {
      explain(r->cx, r->name, targets[t]->name);
      return;
    }
    for (int64_t pieces = r->cuts ? r->cuts : 1; pieces <= 5; pieces += 2) {
      for (size_t s = 0; s < got.n_step; s++) run_step(&got.step[s], pieces);
      for (size_t i = 0; i < n_out; i++) r->judge(r, i, exec_result(&got, i), exec_result(&want, i), targets[t]->name);
      if (r->cuts) break;
    }
    const char *hit = exec_guards(&got);
    CHECK(!hit, "%s [%s]: %s was written outside its bounds", r->name, targets[t]->name, hit);
    exec_close(&got);
  }
  exec_close(&want);
  ny_arena_free(&a);
  ny_unit_free(u);
}

/* ---- tile programs */
static size_t read_sizes(ny_ctx *cx, const char *text, const char *end, ny_binding *env) {
  size_t n = 0;
  for (const char *p = text; p < end && n < 8;) {
    const char *eq = memchr(p, '=', (size_t)(end - p));
    if (!eq) break;
    char *stop;
    env[n].sym = ny_internn(&cx->names, p, (size_t)(eq - p));
    env[n++].value = strtoll(eq + 1, &stop, 10);
    for (p = stop; p < end && *p == ' ';) p++;
  }
  return n;
}

/* `;; case NAME`, then `;; sizes A=1 B=2 | A=3 B=4`, then a unit. */
static void run_case(const char *text, size_t n, bool own_schedule, ny_arena *a) {
  const char *nl = memchr(text, '\n', n), *sizes = "", *sizes_end = sizes, *body = nl + 1;
  char *name = ny_strndup(a, text, (size_t)(nl - text));
  if (!strncmp(body, ";; sizes ", 9)) {
    sizes = body + 9;
    sizes_end = strchr(sizes, '\n');
    body = sizes_end + 1;
  }
  do {
    const char *bar = sizes_end > sizes ? memchr(sizes, '|', (size_t)(sizes_end - sizes)) : NULL,
               *stop = bar ? bar : sizes_end;
    unit_run r = {.name = name,
                  .text = ny_strndup(a, body, (size_t)(text + n - body)),
                  .tolerance = 16,
                  .all_targets = true,
                  .own_schedule = own_schedule,
                  .judge = judge_all,
                  .cx = ny_ctx_new()};
    r.n_env = read_sizes(r.cx, sizes, stop, r.env);
    run_unit(&r);
    ny_ctx_free(r.cx);
    sizes = bar ? bar + 1 : sizes_end;
    while (*sizes == ' ') sizes++;
  } while (sizes < sizes_end);
}

static void test_tiles(const char *path, bool own_schedule) {
  ny_arena a = {0};
  ny_diag d = {0};
  char *text;
  size_t n;
  if (ny_file_read(&a, path, 1 << 20, &text, &n, &d)) {
    CHECK(false, "%s: %s (run from the repository root)", path, d.message);
    return;
  }
  static const char mark[] = ";; case ";
  for (char *p = strstr(text, mark); p;) {
    char *next_case = strstr(p + sizeof mark, mark);
    p += sizeof mark - 1;
    run_case(p, next_case ? (size_t)(next_case - p) : strlen(p), own_schedule, &a);
    p = next_case;
  }
  ny_arena_free(&a);
}

/* ---- elementwise rows */
enum { N = 20000 };

static double special_f(int i) {
  static const double v[] = {0,
                             -0.0,
                             1,
                             -1,
                             0.5,
                             -0.5,
                             2,
                             -2,
                             3,
                             -3,
                             HUGE_VAL,
                             -HUGE_VAL,
                             NAN,
                             1e-3,
                             -1e-3,
                             0.25,
                             -0.75,
                             1.5,
                             -2.5,
                             10,
                             -10,
                             88.5,
                             88.8,
                             -87.5,
                             -103,
                             -104.5,
                             100,
                             -100,
                             1e-30,
                             -1e-30,
                             1e-40,
                             -1e-40,
                             3.4e38,
                             -3.4e38,
                             1e10,
                             -1e10,
                             65504,
                             65520,
                             6e-8,
                             4096,
                             12345.5,
                             0.999999,
                             709.5,
                             -745,
                             720,
                             1e300,
                             1e-300,
                             4.7123889803846898,
                             3.141592653589793,
                             1e22,
                             -1e22,
                             7,
                             -7,
                             255,
                             256,
                             127.5};
  return v[(unsigned)i % NY_COUNT(v)];
}

static double random_f(ny_fmt f, int i) {
  if (i % 3 == 0) return special_f((int)(next() >> 8));
  double u = (double)next() / 4294967296.0, s = next() & 1 ? -1 : 1;
  if (i % 24 == 4) return s * rint(u * (f == NY_f64 ? 6e5 : 4e4)) * 1.5707963267948966; /* near multiples: reductions cancel */
  if (i % 3 == 1) return s * u * (next() % 4 == 0 ? 100 : next() % 4 == 1 ? 10 : 2);
  int span = f == NY_f64 ? 600 : f == NY_f16 ? 24 : 250;
  return s * ldexp(1 + u, (int)(next() % (unsigned)span) - span / 2);
}

static void fill(ny_fmt f, void *p, int which, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    if (ny_is_float(f)) {
      double x = which == 0 && i < 3600   ? special_f((int)(i / 60))
                 : which == 1 && i < 3600 ? special_f((int)(i % 60))
                                          : random_f(f, (int)i);
      ny_put_f(f, p, (uint64_t)i, x, false);
    } else {
      static const int64_t edge[] = {0,         1,         -1,        2,   -2,    3,      7,     8,
                                     127,       128,       -128,      255, 32767, -32768, 65535, INT32_MAX,
                                     INT32_MIN, INT64_MAX, INT64_MIN, 31,  32,    63,     64,    15};
      int64_t x = i % 2 ? edge[next() % NY_COUNT(edge)] : (int64_t)((uint64_t)next() << 32 | next()) >> (next() % 64);
      ny_put_i(f, p, (uint64_t)i, x);
    }
  }
}

/* Units in the last place of f32 (f64: the same number) that a row may be off; rows not named follow the formula
   exactly. `near`: absolute error that is always allowed, for formulas that subtract nearly equal numbers as written.
 */
static const struct {
  ny_kind k;
  double ulp, near;
} allowed[] = {
    {NY_exp, 2, 0},          {NY_log, 2, 0},         {NY_sin, 2, 0},           {NY_cos, 2, 0},
    {NY_tan, 5, 0},          {NY_asin, 2.5, 0},      {NY_acos, 2.5, 0},        {NY_atan, 2.5, 0},
    {NY_sinh, 4, 0},         {NY_cosh, 4, 0},        {NY_tanh, 2, 0},          {NY_asinh, 4, 1e-15},
    {NY_acosh, 4, 1e-15},    {NY_atanh, 4, 1e-15},   {NY_erf, 2, 0},           {NY_pow, 2, 0},
    {NY_elu, 4, 2e-7},       {NY_selu, 4, 4e-7},     {NY_celu, 4, 2e-7},       {NY_gelu, 6, 0},
    {NY_gelu_tanh, 6, 2e-6}, {NY_sigmoid, 4, 3e-38}, {NY_silu, 5, 4e-37},      {NY_softplus, 4, 0},
    {NY_softsign, 2, 0},     {NY_mish, 6, 1e-37},    {NY_hard_swish, 3, 3e-7}, {NY_hard_sigmoid, 2, 2e-7},
    {NY_leaky_relu, 1, 0},   {NY_rem, 0, 0},         {NY_mod, 1, 0},           {NY_shrink, 1, 0},
};

typedef struct row_test {
  ny_kind kind[NY_N_KINDS];
  int n;
  ny_fmt f;
  ny_tensor in[3];
} row_test;

static void judge_row(unit_run *r, size_t out, ny_tensor got, ny_tensor want, const char *target) {
  row_test *t = r->user;
  ny_kind k = t->kind[out];
  ny_fmt f = (ny_fmt)got.type->fmt;
  double ulp = 0, near = 0, worst = 0;
  for (size_t i = 0; i < NY_COUNT(allowed); i++)
    if (allowed[i].k == k) ulp = allowed[i].ulp, near = allowed[i].near;
  if (t->f == NY_f64) ulp *= 2, near *= 1e-8;
  if (ny_is_float(t->f) && t->f != NY_f64 && t->f != NY_f32)
    ulp = ulp > 0 ? 1 : 0; /* a near tie may round the other way */
  int64_t at = 0;
  for (int64_t i = 0; i < N; i++) {
    double d = distance(f, got.data, want.data, (uint64_t)i);
    if (d > worst && near > 0 && d < HUGE_VAL &&
        fabs(ny_get_f(f, got.data, (uint64_t)i) - ny_get_f(f, want.data, (uint64_t)i)) <= near)
      continue;
    if (d > worst) worst = d, at = i;
  }
  if (verbose) printf("%-6s %-16s %-10s %g\n", ny_fmts[t->f].name, ny_kinds[k].name, target, worst);
  double in[3] = {0},
         g = ny_is_float(f) ? ny_get_f(f, got.data, (uint64_t)at) : (double)ny_get_i(f, got.data, (uint64_t)at),
         w = ny_is_float(f) ? ny_get_f(f, want.data, (uint64_t)at) : (double)ny_get_i(f, want.data, (uint64_t)at);
  for (int i = 0; i < 3; i++)
    in[i] = ny_is_float(t->f) ? ny_get_f(t->f, t->in[i].data, (uint64_t)at)
                              : (double)ny_get_i(t->f, t->in[i].data, (uint64_t)at);
  CHECK(worst <= ulp, "%s of %s [%s]: (%.9g, %.9g, %.9g) gives %.9g, not %.9g: %g ulp", ny_kinds[k].name,
        ny_fmts[t->f].name, target, in[0], in[1], in[2], g, w, worst);
}

static bool takes(ny_kind k, ny_fmt f) {
  bool fl = ny_is_float(f), in = ny_is_int(f), bo = f == NY_bool;
  switch ((ny_ew_types)ny_kinds[k].ew) {
  case NY_EW_ARITH: return fl || in;
  case NY_EW_FLOAT:
  case NY_EW_TEST: return fl;
  case NY_EW_INT: return in;
  case NY_EW_BITS: return in || bo;
  case NY_EW_BOOL: return bo;
  default: return true;
  }
}

/* All rows of one format in one unit: o = op(a, b, c) over [N]; where reads its condition from the sign of a. */
static void rows_text(row_test *t, ny_text *s) {
  const char *f = ny_fmts[t->f].name;
  ny_text_addf(s, "graph main(%%a: %s[%d], %%b: %s[%d], %%c: %s[%d]) {\n", f, N, f, N, f, N);
  for (int i = 0; i < t->n; i++) {
    bool test = ny_kinds[t->kind[i]].ew == NY_EW_CMP || ny_kinds[t->kind[i]].ew == NY_EW_TEST;
    ny_text_addf(s, "  %%o%d = launch %%a, %%b, %%c kernel=k%d : %s[%d]\n", i, i, test ? "bool" : f, N);
  }
  ny_text_add(s, "  ret ");
  for (int i = 0; i < t->n; i++) ny_text_addf(s, "%s%%o%d", i ? ", " : "", i);
  ny_text_add(s, "\n}\n");
  for (int i = 0; i < t->n; i++) {
    ny_kind k = t->kind[i];
    bool test = ny_kinds[k].ew == NY_EW_CMP || ny_kinds[k].ew == NY_EW_TEST;
    const char *o = test ? "bool" : f;
    ny_text_addf(s, "\nkernel k%d(%%a: %s[%d]@global, %%b: %s[%d]@global, %%c: %s[%d]@global, %%o: %s[%d]@global) {\n",
                 i, f, N, f, N, f, N, o, N);
    ny_text_addf(s, "  grid var=i extent=%d\n", N / 50);
    const char *names[] = {"a", "b", "c"};
    for (int q = 0; q < 3; q++)
      ny_text_addf(s, "  %%x%d = load %%%s off=?i*50 stride=[0,1] : %s[1,50]\n", q, names[q], f);
    if (ny_kinds[k].ew == NY_EW_SELECT)
      ny_text_addf(s, "  %%m = lt %%x0, %%x1 : bool[1,50]\n  %%y = %s %%m, %%x1, %%x2 : %s[1,50]\n", ny_kinds[k].name,
                   f);
    else
      ny_text_addf(s, "  %%y = %s %%x0%s%s : %s[1,50]\n", ny_kinds[k].name, ny_kinds[k].min_in > 1 ? ", %x1" : "",
                   ny_kinds[k].min_in > 2 ? ", %x2" : "", o);
    ny_text_add(s, "  store %o, %y off=?i*50 stride=[0,1]\n  ret\n}\n");
  }
}

/* strided: operand a walks all of f32, bit pattern by bit pattern, in steps; the others as ever. */
static void test_rows(ny_fmt f, bool strided) {
  row_test t = {.f = f};
  for (ny_kind k = 0; k < NY_N_KINDS; k++)
    if ((ny_kinds[k].flags & NY_MAP) && takes(k, f)) t.kind[t.n++] = k;
  ny_text s = {0};
  rows_text(&t, &s);
  ny_arena a = {0};
  unit_run r = {
      .name = ny_fmts[f].name, .text = s.s, .judge = judge_row, .user = &t, .in = t.in, .cuts = 1, .all_targets = long_run || f == NY_f32, .cx = ny_ctx_new()};
  const ny_type *type = ny_tensor_type(r.cx, f, 1, (ny_dim[]){N});
  for (int i = 0; i < 3; i++) {
    t.in[i] = (ny_tensor){type, ny_alloc(&a, (size_t)N * 8)};
    fill(f, t.in[i].data, i, N);
  }
  for (uint32_t i = 0; i < N && strided; i++) ((uint32_t *)t.in[0].data)[i] = i * (uint32_t)(0x100000000 / N) + 77;
  run_unit(&r);
  ny_ctx_free(r.cx);
  ny_arena_free(&a);
  ny_text_free(&s);
}

/* ---- casts */
typedef struct cast_test {
  ny_fmt from, to[64];
  bool saturate[64];
  int n;
  ny_tensor in;
} cast_test;

static void judge_cast(unit_run *r, size_t out, ny_tensor got, ny_tensor want, const char *target) {
  cast_test *t = r->user;
  ny_fmt f = (ny_fmt)got.type->fmt;
  int64_t bad = -1;
  for (int64_t i = 0; i < N && bad < 0; i++) {
    if (!ny_is_float(f) && ny_get_i(f, got.data, (uint64_t)i) != ny_get_i(f, want.data, (uint64_t)i)) bad = i;
    if (ny_is_float(f)) {
      double x = ny_get_f(f, got.data, (uint64_t)i), y = ny_get_f(f, want.data, (uint64_t)i);
      if (!(x == y && signbit(x) == signbit(y)) && !(isnan(x) && isnan(y))) bad = i;
    }
  }
  double in = bad < 0                ? 0
              : ny_is_float(t->from) ? ny_get_f(t->from, t->in.data, (uint64_t)bad)
                                     : (double)ny_get_i(t->from, t->in.data, (uint64_t)bad);
  CHECK(bad < 0, "cast %s to %s saturate=%d [%s]: %.17g gives %.9g, not %.9g", ny_fmts[t->from].name,
        ny_fmts[t->to[out]].name, t->saturate[out], target, in,
        ny_is_float(f) ? ny_get_f(f, got.data, (uint64_t)bad) : (double)ny_get_i(f, got.data, (uint64_t)bad),
        ny_is_float(f) ? ny_get_f(f, want.data, (uint64_t)bad) : (double)ny_get_i(f, want.data, (uint64_t)bad));
}

static bool dense(ny_fmt f) { return ny_is_float(f) || ny_is_int(f) || f == NY_bool; }

static void test_casts(ny_fmt from) {
  cast_test t = {.from = from};
  ny_text s = {0};
  const char *f = ny_fmts[from].name;
  for (ny_fmt to = 1; to < NY_N_FMT; to++)
    for (int sat = 0; sat < 2; sat++)
      if (dense(to) && to != from && (sat || (ny_is_float(to) && ny_fmts[to].bits <= 8)))
        t.to[t.n] = to, t.saturate[t.n++] = sat;
  ny_text_addf(&s, "graph main(%%a: %s[%d]) {\n", f, N);
  for (int i = 0; i < t.n; i++)
    ny_text_addf(&s, "  %%o%d = launch %%a kernel=k%d : %s[%d]\n", i, i, ny_fmts[t.to[i]].name, N);
  ny_text_add(&s, "  ret ");
  for (int i = 0; i < t.n; i++) ny_text_addf(&s, "%s%%o%d", i ? ", " : "", i);
  ny_text_add(&s, "\n}\n");
  for (int i = 0; i < t.n; i++)
    ny_text_addf(&s,
                 "\nkernel k%d(%%a: %s[%d]@global, %%o: %s[%d]@global) {\n  grid var=i extent=%d\n  %%x = load %%a "
                 "off=?i*40 stride=[0,1] : %s[1,40]\n"
                 "  %%y = cast %%x%s : %s[1,40]\n  store %%o, %%y off=?i*40 stride=[0,1]\n  ret\n}\n",
                 i, f, N, ny_fmts[t.to[i]].name, N, N / 40, f, t.saturate[i] ? "" : " saturate=0",
                 ny_fmts[t.to[i]].name);
  ny_arena a = {0};
  unit_run r = {.name = f, .text = s.s, .judge = judge_cast, .user = &t, .in = &t.in, .cuts = 1, .all_targets = long_run, .cx = ny_ctx_new()};
  t.in = (ny_tensor){ny_tensor_type(r.cx, from, 1, (ny_dim[]){N}), ny_alloc(&a, (size_t)N * 8)};
  fill(from, t.in.data, 2, N);
  for (int i = 0; i < N && ny_fmts[from].bits == 16; i++) ((uint16_t *)t.in.data)[i] = (uint16_t)(i * 13);
  run_unit(&r);
  ny_ctx_free(r.cx);
  ny_arena_free(&a);
  ny_text_free(&s);
}

/* ---- random programs */
static void test_random(uint32_t first, uint32_t n) {
  for (uint32_t seed = first; seed < first + n; seed++) {
    char name[32];
    snprintf(name, sizeof name, "random %u", seed);
    ny_text s = {0};
    kernel_gen(&s, seed);
    int before = n_failed;
    unit_run r = {.name = name, .text = s.s, .cuts = 1 + seed % 3, .all_targets = true, .judge = judge_all, .cx = ny_ctx_new()};
    run_unit(&r);
    if (verbose && n_failed > before) puts(s.s);
    ny_ctx_free(r.cx);
    ny_text_free(&s);
  }
}

static bool find_device(const char *name) {
  ny_diag d = {0};
  if (!simulate_available(&d)) {
    printf("kernel_test: skipped for %s: %s\n", name, d.message);
    return false;
  }
  CHECK(!ny_target_find(name, &device, &d), "%s", d.message);
  return device != NULL;
}

static bool find_targets(void) {
  ny_diag d = {0};
  static const char *const names[] = {"host", "x86-64-v2", "x86-64-v3", "x86-64-v4"};
  const ny_target *host;
  if (ny_target_find("host", &host, &d)) {
    CHECK(false, "%s", d.message);
    return false;
  }
  targets[n_targets++] = host;
  for (int i = 1; i < 4 && !strncmp(host->triple, "x86_64", 6); i++)
    if (!ny_target_find(names[i], &targets[n_targets], &d) && targets[n_targets]->vec_bytes <= host->vec_bytes)
      n_targets++;
  if (!emulate_available())
    printf("kernel_test: no emulator of AArch64 here: its code is not run\n");
  else if (!ny_target_find("aarch64", &emulated, &d))
    targets[n_targets++] = emulated;
  return true;
}

int main(int argc, char **argv) {
  for (; argc > 1 && (!strcmp(argv[1], "-v") || !strcmp(argv[1], "long")); argc--, argv++)
    if (argv[1][0] == '-') verbose = true;
    else long_run = true;
  bool cuda = argc > 2 && (!strcmp(argv[1], "cuda") || (compile_only = !strcmp(argv[1], "compile")));
  if (!(cuda ? find_device(argv[2]) : find_targets())) return test_end("kernel_test");
  if (cuda) argc -= 2, argv += 2;
  const char *only = argc > 1 ? argv[1] : "";
  if (!*only || strstr(only, "tiles")) test_tiles("tests/kernels/tiles.nyt", false);
  if (device && (!*only || strstr(only, "tiles") || strstr(only, "own"))) test_tiles("tests/kernels/cuda.nyt", true);
  if (!*only || strstr(only, "random"))
    test_random(argc > 2 ? (uint32_t)atoi(argv[2]) : 1, argc > 3 ? (uint32_t)atoi(argv[3]) : long_run ? 200 : 12);
  static const ny_fmt formats[] = {NY_f32, NY_f64, NY_f16, NY_bf16, NY_f8e4m3, NY_i8, NY_u8, NY_i16, NY_u16,
                                   NY_i32, NY_u32, NY_i64, NY_u64,  NY_i4,     NY_u4, NY_i2, NY_u2,  NY_bool};
  for (size_t i = 0; i < NY_COUNT(formats); i++)
    if (!*only || strstr(only, "rows") || strstr(only, ny_fmts[formats[i]].name)) test_rows(formats[i], false);
  if (!*only || strstr(only, "strided")) test_rows(NY_f32, true);
  for (ny_fmt f = 1; f < NY_N_FMT; f++)
    if (dense(f) && (!*only || strstr(only, "casts"))) test_casts(f);
  return test_end("kernel_test");
}
