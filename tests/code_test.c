/* What the code generator promises of its output: every row of targets.def compiles, the image is the same whatever the
   number of compiler threads, the hottest loop does not spill, and a wrong target name is refused with the names there
   are. */
#include <stdlib.h>
#include <string.h>

#include "codegen.h"
#include "test.h"

/* ---- the inner loop of a register tile as large as the rule allows holds no stack access, and multiplies and adds in
 * one */
static void test_spills(void) {
  static const char text[] =
      "graph main(%a: f32[8,64], %b: f32[64,48]) {\n  %c = launch %a, %b kernel=k : f32[8,48]\n  ret %c\n}\n\n"
      "kernel k(%a: f32[8,64]@global, %b: f32[64,48]@global, %c: f32[8,48]@global) {\n  %t = tile : f32[8,48]\n"
      "  for var=k hi=64 {\n    %x = load %a off=?k stride=[64,1] : f32[8,1]\n"
      "    %y = load %b off=?k*48 stride=[48,1] : f32[1,48]\n    mma %t, %x, %y\n  }\n"
      "  store %c, %t stride=[48,1]\n  ret\n}\n";
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = NULL;
  ny_arena a = {0};
  ny_diag d = {0};
  const ny_codegen *cg;
  const ny_target *target;
  char dir[] = "/tmp/nybble-spills-XXXXXX", *code = NULL;
  size_t n;
  ny_image im;
  bool ok = !ny_parse_unit(cx, text, sizeof text - 1, NULL, &u) && mkdtemp(dir) && !ny_codegen_open(&cg, &d) &&
            !ny_target_find("x86-64-v4", &target, &d);
  ny_codegen_request r = {.kernel = (ny_graph *[]){ok ? u->first->next : NULL},
                          .n = 1,
                          .target = ok ? target : NULL,
                          .opt = 2,
                          .threads = 1,
                          .dump_dir = dir};
  ok = ok && !cg->compile(&r, &im, &d) && !ny_file_read(&a, ny_strf(&a, "%s/k.s", dir), 1 << 20, &code, &n, &d);
  CHECK(ok, "no assembly of a kernel: %s", d.message);
  char *loop = ok ? strstr(code, "vfmadd231ps") : NULL,
       *end = loop ? strstr(loop, ".LBB") : NULL; /* to the jump back */
  if (end) *end = 0;
  int fused = 0;
  for (char *p = loop; p && (p = strstr(p, "vfmadd231ps")); p++) fused++;
  CHECK(fused == 24 && !strstr(loop, "%rsp"), "%d multiply-adds, not 24, or stack accesses, in the inner loop:\n%s",
        fused, loop ? loop : "");
  for (int i = 0; i < 2; i++) remove(ny_strf(&a, "%s/k.%s", dir, i ? "s" : "ll"));
  remove(dir);
  if (ok) ny_image_free(&im);
  ny_arena_free(&a);
  if (u) ny_unit_free(u);
  ny_ctx_free(cx);
}

/* Ten kernels, so that there are several modules. */
static ny_unit *ten_kernels(ny_ctx *cx) {
  ny_text s = {0};
  ny_text_add(&s, "graph main(%a: f32[64]) {\n  ret %a\n}\n");
  static const char *const ops[] = {"exp", "log", "tanh", "erf", "gelu", "sin", "sqrt", "mish", "asinh", "floor"};
  for (size_t i = 0; i < NY_COUNT(ops); i++)
    ny_text_addf(&s,
                 "\nkernel k%zu(%%a: f32[64]@global, %%c: f32[64]@global) {\n  %%x = load %%a stride=[0,1] : "
                 "f32[1,64]\n  %%y = %s %%x : f32[1,64]\n"
                 "  store %%c, %%y stride=[0,1]\n  ret\n}\n",
                 i, ops[i]);
  ny_unit *u = NULL;
  if (ny_parse_unit(cx, s.s, s.n, NULL, &u)) u = NULL;
  ny_text_free(&s);
  return u;
}

static nyb_status compile(ny_unit *u, const ny_target *t, int threads, ny_image *im, ny_diag *d) {
  ny_graph *k[16];
  size_t n = 0;
  for (ny_graph *g = u->first; g && n < 16; g = g->next)
    if (g->kernel) k[n++] = g;
  const ny_codegen *cg;
  NY_TRY(ny_codegen_open(&cg, d));
  return cg->compile(&(ny_codegen_request){.kernel = k, .n = n, .target = t, .opt = 2, .threads = threads}, im, d);
}

static void test_targets(void) {
  static const char *const names[] = {
      "host",
#define TARGET(n, ...) #n,
#define CUDA_TARGET(...)
#include "targets.def"
#undef TARGET
#undef CUDA_TARGET
  };
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = ten_kernels(cx);
  CHECK(u, "the kernels do not parse: %s", cx->diag.message);
  for (size_t i = 0; u && i < NY_COUNT(names); i++) {
    const ny_target *t;
    ny_diag d = {0};
    ny_image one = {0}, four = {0};
    bool ok = !ny_target_find(names[i], &t, &d) && !compile(u, t, 1, &one, &d) && !compile(u, t, 4, &four, &d);
    CHECK(ok, "%s: %s", names[i], d.message);
    CHECK(ok && one.n == 10 && one.bytes == four.bytes && !memcmp(one.data, four.data, one.bytes) &&
              !memcmp(one.entry, four.entry, 10 * sizeof *one.entry),
          "%s: four threads make another image than one", names[i]);
    ny_image_free(&one);
    ny_image_free(&four);
  }
  if (u) ny_unit_free(u);
  ny_ctx_free(cx);
  const ny_target *t;
  ny_diag d = {0};
  CHECK(ny_target_find("vax", &t, &d) == NYB_E_TARGET && strstr(d.message, "vax") && strstr(d.message, "x86-64-v3"),
        "unknown target: %s", d.message);
}

static void test_errors(void) {
  static const char *const text[][2] = {
      {"  for var=i hi=4 step=-1 {\n  }\n", "step -1"},
      {"  %t = tile : f32[300,300]\n  store %c, %t stride=[300,1]\n", "65536 elements"},
      {"  %x = load %c off=?nowhere stride=[0,1] : f32[1,4]\n  store %c, %x stride=[0,1]\n",
       NULL}, /* a symbol like any other: its value comes at run time */
  };
  const ny_target *t;
  ny_diag d = {0};
  if (ny_target_find("x86-64-v3", &t, &d)) return;
  for (size_t i = 0; i < NY_COUNT(text); i++) {
    ny_ctx *cx = ny_ctx_new();
    ny_unit *u = NULL;
    ny_text s = {0};
    ny_text_addf(&s, "graph main(%%a: f32[64]) {\n  ret %%a\n}\n\nkernel bad(%%c: f32[100000]@global) {\n%s  ret\n}\n",
                 text[i][0]);
    ny_image im = {0};
    ny_diag e = {0};
    nyb_status st = ny_parse_unit(cx, s.s, s.n, NULL, &u);
    CHECK(!st, "case %zu does not parse: %s", i, cx->diag.message);
    if (!st) st = compile(u, t, 1, &im, &e);
    if (text[i][1])
      CHECK(st && strstr(e.message, "kernel bad") && strstr(e.message, text[i][1]), "case %zu: %s", i, e.message);
    else
      CHECK(!st, "case %zu: %s", i, e.message);
    ny_image_free(&im);
    ny_text_free(&s);
    if (u) ny_unit_free(u);
    ny_ctx_free(cx);
  }
}

int main(void) {
  test_spills();
  test_targets();
  test_errors();
  return test_end("code_test");
}
