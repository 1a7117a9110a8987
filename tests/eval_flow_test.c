/* The evaluator on graphs given as text: control flow, symbols, tile programs and launches, and the errors bad data
 * must give. */
#include "graph_fixture.h"

typedef struct unit { /* a parsed text and what evaluation needs */
  ny_ctx *cx;
  ny_unit *u;
  ny_arena a;
  ny_tensor in[4], out[4];
  size_t n_in;
} unit;

static unit parse(const char *text) {
  unit t = {.cx = ny_ctx_new()};
  if (ny_parse_unit(t.cx, text, strlen(text), NULL, &t.u)) t.u = NULL;
  CHECK(t.u, "line %d: %s in\n%s", t.cx->diag.line, t.cx->diag.message, text);
  return t;
}

static void close_unit(unit *t) {
  ny_arena_free(&t->a);
  if (t->u) ny_unit_free(t->u);
  ny_ctx_free(t->cx);
}

/* The next input: elements x, or 0, 1, 2, .. */
#define IN(t, fmt, x, ...) add_in((t), (fmt), (int)NY_COUNT(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__}, (x))
static void add_in(unit *t, ny_fmt f, int rank, const int64_t *shape, const double *x) {
  const ny_type *type = ny_tensor_type(t->cx, f, rank, shape);
  int64_t n = fx_count(type);
  ny_tensor *in = &t->in[t->n_in++];
  *in = (ny_tensor){type, ny_alloc(&t->a, ny_fmt_bytes(f, (uint64_t)n) + 1)};
  for (int64_t i = 0; i < n; i++) {
    double v = x ? x[i] : (double)i;
    if (ny_is_float(f))
      ny_put_f(f, in->data, (uint64_t)i, v, false);
    else
      ny_put_i(f, in->data, (uint64_t)i, (int64_t)v);
  }
}

static nyb_status run(unit *t, size_t n_out, uint64_t limit) {
  if (!t->u) return NYB_E_PARSE;
  return ny_eval_graph(t->u->first, t->in, t->n_in, &t->a, limit, t->out, n_out);
}

static void check_values(unit *t, size_t n_out, int which, const double *want, int64_t n, const char *what) {
  nyb_status s = run(t, n_out, 1 << 20);
  CHECK(!s && fx_count(t->out[which].type) == n, "%s: %s", what, t->cx->diag.message);
  for (int64_t i = 0; !s && i < n; i++)
    CHECK_EACH(fx_get(&t->out[which], i) == want[i], "%s: element %d is %g", what, (int)i, fx_get(&t->out[which], i));
  close_unit(t);
}

static void check_error(unit *t, size_t n_out, uint64_t limit, nyb_status code, const char *has) {
  nyb_status s = run(t, n_out, limit);
  CHECK(s == code && strstr(t->cx->diag.message, has), "gave %d: %s; not \"%s\"", s, t->cx->diag.message, has);
  close_unit(t);
}

static void test_if(void) {
  const char *text = "graph main(%c: bool[], %x: f32[3]) {\n"
                     "  %y = neg %x : f32[3]\n"
                     "  %r = if %c : f32[3] {\n"
                     "    %s = add %x, %y : f32[3]\n"
                     "    yield %s\n"
                     "  } else {\n"
                     "    yield %y\n"
                     "  }\n"
                     "  ret %r\n"
                     "}\n";
  for (int c = 0; c < 2; c++) {
    unit t = parse(text);
    add_in(&t, NY_bool, 0, NULL, (double[]){c});
    IN(&t, NY_f32, NULL, 3);
    check_values(&t, 1, 0, c ? (double[]){0, 0, 0} : (double[]){0, -1, -2}, 3, "if");
  }
}

static void test_require(void) {
  const char *text = "graph main(%c: bool[], %x: f32[?N]) {\n"
                     "  require a=?N/2*2 b=?N text=halves\n"
                     "  %r = if %c : f32[?N] {\n"
                     "    require a=?N%4 text=\"four parts\" loc(\"cut\",\"Split\",3,99)\n"
                     "    yield %x\n"
                     "  } else {\n"
                     "    yield %x\n"
                     "  }\n"
                     "  ret %r\n"
                     "}\n";
  static const struct {
    int64_t n;
    int c;
    const char *says; /* NULL: it runs */
  } cases[] = {{4, 1, NULL},
               {2, 0, NULL},
               {2, 1, "four parts: ?N%4 and 0 must be equal, here they are 2 and 0"},
               {3, 0, "halves: (?N/2)*2 and ?N must be equal, here they are 2 and 3"}};
  for (size_t i = 0; i < NY_COUNT(cases); i++) {
    unit t = parse(text);
    add_in(&t, NY_bool, 0, NULL, (double[]){cases[i].c});
    IN(&t, NY_f32, NULL, cases[i].n);
    if (!cases[i].says) {
      check_values(&t, 1, 0, (double[]){0, 1, 2, 3}, cases[i].n, "require");
      continue;
    }
    nyb_status s = run(&t, 1, 1 << 20);
    CHECK(s == NYB_E_SHAPE && strstr(t.cx->diag.message, cases[i].says), "%d: %s", s, t.cx->diag.message);
    CHECK(i != 2 || (t.cx->diag.has_loc && !strcmp(t.cx->diag.loc.node, "cut")), "it names the node");
    close_unit(&t);
  }
}

static void test_loop(void) {
  unit t = parse("graph main(%x: f32[2]) {\n"
                 "  %a, %b = loop %x trip=3 : f32[2], f32[3,2] (%i: i64[], %v: f32[2]) {\n"
                 "    %f = cast %i : f32[]\n"
                 "    %w = add %v, %f : f32[2]\n"
                 "    yield %w, %v\n"
                 "  }\n"
                 "  ret %a, %b\n"
                 "}\n");
  IN(&t, NY_f32, NULL, 2);
  CHECK(!run(&t, 2, 1 << 20), "loop: %s", t.cx->diag.message);
  CHECK(t.out[0].type && fx_get(&t.out[0], 0) == 3 && fx_get(&t.out[0], 1) == 4, "carried value");
  check_values(&t, 2, 1, (double[]){0, 1, 0, 1, 1, 2}, 6, "stacked slices");

  t = parse("graph main(%go: bool[], %n: i32[]) {\n"
            "  %zero = const splat=0 : i32[]\n"
            "  %one = const splat=1 : i32[]\n"
            "  %c, %left, %steps = loop %go, %n, %zero trip=100 cond=1 : bool[], i32[], i32[] (%i: i64[], %g: bool[], "
            "%k: i32[], %s: i32[]) {\n"
            "    %k1 = sub %k, %one : i32[]\n"
            "    %s1 = add %s, %k : i32[]\n"
            "    %g1 = gt %k1, %zero : bool[]\n"
            "    yield %g1, %k1, %s1\n"
            "  }\n"
            "  ret %steps\n"
            "}\n");
  add_in(&t, NY_bool, 0, NULL, (double[]){1});
  add_in(&t, NY_i32, 0, NULL, (double[]){10});
  check_values(&t, 1, 0, (double[]){55}, 1, "loop with a condition");
}

static const char *const symbols = "graph main(%x: f32[?B,4], %y: f32[?B,?N], %z: f32[?B*?N]) {\n"
                                   "  %d = dims v=[?B,?N,?B*?N+1] : i64[3]\n"
                                   "  %g = group %x : f32[?B*4] (%v: f32[?B,4]) {\n"
                                   "    %r = reshape %v : f32[?B*4]\n"
                                   "    yield %r\n"
                                   "  }\n"
                                   "  ret %d, %g\n"
                                   "}\n";
static void test_symbols(void) {
  unit t = parse(symbols);
  IN(&t, NY_f32, NULL, 2, 4);
  IN(&t, NY_f32, NULL, 2, 3);
  IN(&t, NY_f32, NULL, 6);
  check_values(&t, 2, 0, (double[]){2, 3, 7}, 3, "symbols");
  t = parse(symbols);
  IN(&t, NY_f32, NULL, 2, 4);
  IN(&t, NY_f32, NULL, 5, 3);
  IN(&t, NY_f32, NULL, 6);
  check_error(&t, 2, 1 << 20, NYB_E_SHAPE, "input y has 5 in dim 0, where ?B is 2");
  t = parse(symbols);
  IN(&t, NY_f32, NULL, 2, 4);
  IN(&t, NY_f32, NULL, 2, 3);
  IN(&t, NY_f32, NULL, 7);
  check_error(&t, 2, 1 << 20, NYB_E_SHAPE, "input z has 7 in dim 0");
  t = parse(symbols);
  IN(&t, NY_f32, NULL, 2, 4);
  check_error(&t, 2, 1 << 20, NYB_E_ARGUMENT, "1 inputs given, the graph has 3");
}

static void test_errors(void) {
  unit t = parse("graph main(%x: f32[1000]) {\n  %y = neg %x : f32[1000]\n  %z = neg %y : f32[1000]\n  ret %z\n}\n");
  IN(&t, NY_f32, NULL, 1000);
  check_error(&t, 1, 6000, NYB_E_LIMIT, "the limit is 6000");
  t = parse("graph main(%x: f32[?A], %i: i64[2]) {\n  %y = gather %x, %i : f32[2]\n  ret %y\n}\n");
  IN(&t, NY_f32, NULL, 0);
  IN(&t, NY_i64, NULL, 2);
  check_error(&t, 1, 1 << 20, NYB_E_SHAPE, "empty");
  t = parse("graph main(%x: f32[?A]) {\n  %y = slice %x start=[2] : f32[3]\n  ret %y\n}\n");
  IN(&t, NY_f32, NULL, 4);
  check_error(&t, 1, 1 << 20, NYB_E_SHAPE, "slice");
  t = parse("graph main(%x: f32[?A], %y: f32[?A,?A*4]) {\n  %r = reshape %x : f32[?A/2,2]\n  ret %r\n}\n");
  IN(&t, NY_f32, NULL, 3);
  IN(&t, NY_f32, NULL, 3, 12);
  check_error(&t, 1, 1 << 20, NYB_E_SHAPE, "3 elements become 2");
}

/* C[?M,?N] = A[?M,7] B[7,?N], 4x8 tiles with limits at both edges; sums of rows by reduce into R with store op=sum. */
static const char *const kernel_text =
    "graph main(%a: f32[?M,7], %b: f32[7,?N]) {\n"
    "  %c = launch %a, %b kernel=mm : f32[?M,?N]\n"
    "  ret %c\n"
    "}\n"
    "\n"
    "kernel mm(%a: f32[?M,7]@global, %b: f32[7,?N]@global, %c: f32[?M,?N]@global) {\n"
    "  grid var=p extent=(?M+3)/4\n"
    "  grid var=q extent=(?N+7)/8\n"
    "  %s = local : f32[32]@shared\n"
    "  %t = tile : f32[4,8]\n"
    "  for var=k hi=7 {\n"
    "    %x = load %a off=?p*28+?k stride=[7,0] lim=[?M-?p*4,1] : f32[4,1]\n"
    "    %y = load %b off=?k*?N+?q*8 stride=[0,1] lim=[1,?N-?q*8] : f32[1,8]\n"
    "    mma %t, %x, %y\n"
    "  }\n"
    "  %n = neg %t : f32[4,8]\n"
    "  store %s, %n stride=[8,1]\n"
    "  barrier\n"
    "  %u = load %s stride=[8,1] : f32[4,8]\n"
    "  %v = neg %u : f32[4,8]\n"
    "  store %c, %v off=?p*4*?N+?q*8 stride=[?N,1] lim=[?M-?p*4,?N-?q*8]\n"
    "  ret\n"
    "}\n";

static void test_kernel(void) {
  for (int64_t m = 1; m < 10; m += 4)
    for (int64_t n = 3; n < 20; n += 5) {
      unit t = parse(kernel_text);
      IN(&t, NY_f32, NULL, m, 7);
      IN(&t, NY_f32, NULL, 7, n);
      double want[200];
      for (int64_t i = 0; i < m * n; i++) {
        want[i] = 0;
        for (int64_t k = 0; k < 7; k++) want[i] += (double)(i / n * 7 + k) * (double)(k * n + i % n);
      }
      check_values(&t, 1, 0, want, m * n, "matmul kernel");
    }
}

static void kernel_error(const char *body, nyb_status code, const char *has) {
  char text[1000];
  snprintf(text, sizeof text,
           "graph main(%%a: f32[10]) {\n  %%c = launch %%a kernel=k : f32[10]\n  ret %%c\n}\n\nkernel k(%%a: "
           "f32[10]@global, %%c: f32[10]@global) {\n%s  ret\n}\n",
           body);
  unit t = parse(text);
  IN(&t, NY_f32, NULL, 10);
  check_error(&t, 1, 1 << 20, code, has);
}

static void test_kernel_errors(void) {
  kernel_error("  %x = load %a off=6 stride=[0,1] : f32[1,5]\n", NYB_E_INTERNAL,
               "offset 10 of buffer a, which has 10 elements");
  kernel_error("  %x = load %a stride=[-1,1] : f32[2,2]\n", NYB_E_INTERNAL, "offset -1 of buffer a");
  kernel_error("  %x = load %a stride=[0,9223372036854775807] : f32[1,5]\n", NYB_E_INTERNAL, "buffer a");
  kernel_error("  %x = load %a stride=[0,1] : f32[1,5]\n  store %a, %x stride=[0,1]\n", NYB_E_INTERNAL,
               "operand, not a result");
  kernel_error("  %i = index off=8 stride=[0,1] : i64[1,3]\n  %x = load %a, %i stride=[0,0] : f32[1,3]\n",
               NYB_E_INTERNAL, "offset 10 of");
  kernel_error("  %x = load %a off=?zz stride=[0,1] : f32[1,5]\n", NYB_E_INTERNAL, "?zz has no value");
  kernel_error("  for var=i hi=4 step=0 {\n    barrier\n  }\n", NYB_E_VERIFY, "step 0");
}

static void kernel_values(const char *body, const double *want, const char *what) {
  char text[1500];
  snprintf(text, sizeof text,
           "graph main(%%a: f32[4], %%i: i64[2]) {\n  %%c = launch %%a, %%i kernel=k : f32[4]\n  ret %%c\n}\n\nkernel "
           "k(%%a: f32[4]@global, %%i: i64[2]@global, %%c: f32[4]@global) {\n%s  ret\n}\n",
           body);
  unit t = parse(text);
  static const double a[] = {5, 6, 7, 8}, i[] = {3, 1};
  IN(&t, NY_f32, a, 4);
  IN(&t, NY_i64, i, 2);
  check_values(&t, 1, 0, want, 4, what);
}

static void test_kernel_ops(void) {
  kernel_values("  %j = load %i stride=[0,1] : i64[1,2]\n  %x = load %a, %j stride=[0,0] : f32[1,2]\n  %z = tile "
                "fill=1 : f32[1,4]\n  store %c, %z stride=[0,1]\n"
                "  store %c, %x, %j stride=[0,0] op=sum\n",
                (double[]){1, 7, 1, 9}, "indexed load and store");
  kernel_values("  %x = load %a stride=[2,1] : f32[2,2]\n  %r = reduce %x op=max axes=[1] keep=1 : f32[2,1]\n  %s = "
                "reduce %x axes=[0] keep=1 : f32[1,2]\n"
                "  %y = add %r, %s : f32[2,2]\n  store %c, %y stride=[2,1]\n",
                (double[]){18, 20, 20, 22}, "reduce and broadcast");
  kernel_values("  %t = tile fill=2 : f32[1,4]\n  for var=n lo=1 hi=6 step=2 {\n    %x = load %a stride=[0,1] "
                "lim=[1,?n] : f32[1,4]\n    %y = add %t, %x : f32[1,4]\n    set %t, %y\n  }\n"
                "  store %c, %t stride=[0,1]\n",
                (double[]){17, 14, 16, 10}, "for, limits and set");
  kernel_values("  %x = load %a stride=[0,1] : f32[1,4]\n  %b = bitcast %x : i32[1,4]\n  %f = cast %b : f32[1,4]\n  %z "
                "= tile : i32[1,1]\n  %p = gt %b, %z : bool[1,4]\n"
                "  %n = index off=10 stride=[0,-1] : i64[1,4]\n  %g = cast %n : f32[1,4]\n  %w = where %p, %g, %f : "
                "f32[1,4]\n  store %c, %w stride=[0,1]\n",
                (double[]){10, 9, 8, 7}, "bitcast, index, where");
}

int main(void) {
  test_if();
  test_require();
  test_loop();
  test_symbols();
  test_errors();
  test_kernel();
  test_kernel_errors();
  test_kernel_ops();
  return test_end("eval_flow_test");
}
