/* The register rule of contraction tiles is measured, not proven: a code generator that runs out of registers still gives right results, slowly. Here
   the assembly of a few tiles is read, for every kind of target, and the innermost loops that multiply must not touch the stack. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exec.h"
#include "family.h"
#include "test.h"

static const struct {
  const char *name, *text; /* %s: the weights' type and the packing attribute */
  bool conv;
  int64_t k, n;
} cases[] = {
    {"matmul", "graph g(%%x: f32[128,384], %%w: %s) {\n  %%y = matmul %%x, %%w%s : f32[128,384]\n  ret %%y\n}\n", false, 384, 384},
    {"matmul_wide", "graph g(%%x: f32[200,64], %%w: %s) {\n  %%y = matmul %%x, %%w%s : f32[200,64]\n  ret %%y\n}\n", false, 64, 64},
    {"matmul_rows", "graph g(%%x: f32[?M,96], %%w: %s) {\n  %%y = matmul %%x, %%w%s : f32[?M,100]\n  ret %%y\n}\n", false, 96, 100},
    {"conv",
     "graph g(%%x: f32[1,16,16,64], %%w: %s) {\n  %%y = conv %%x, %%w kernel=[3,3] stride=[1,1] dilation=[1,1]%s : f32[1,14,14,64]\n  ret %%y\n}\n", true, 576, 64},
};

static int fit(const ny_target *t, int i, ny_ctx *cx) { /* the panel width this target would use */
  char text[512], w[64];
  ny_unit *u;
  int64_t pack = 0;
  if (cases[i].conv) snprintf(w, sizeof w, "f32[3,3,64,%lld]", (long long)cases[i].n);
  else snprintf(w, sizeof w, "f32[%lld,%lld]", (long long)cases[i].k, (long long)cases[i].n);
  snprintf(text, sizeof text, cases[i].text, w, "");
  if (ny_parse_unit(cx, text, strlen(text), NULL, &u)) return 0;
  for (const ny_op *op = u->first->body.first; op; op = op->next)
    if (op->kind == NY_matmul || op->kind == NY_conv) pack = ny_pack_width(t, op);
  ny_unit_free(u);
  return (int)pack;
}

static nyb_status assemble(const ny_target *t, int i, ny_ctx *cx, const char *dir) {
  char text[512], w[64], attr[32];
  ny_unit *u;
  int pack = fit(t, i, cx);
  if (!pack) return ny_fail(&cx->diag, NYB_E_VERIFY, NULL, "no panels for %s on %s", cases[i].name, t->name);
  long long panels = (cases[i].n + pack - 1) / pack, k = cases[i].k;
  snprintf(w, sizeof w, cases[i].conv ? "f32[1,%lld,%lld,%d]" : "f32[%lld,%lld,%d]", panels, k, pack);
  snprintf(attr, sizeof attr, " packed=%d", pack);
  snprintf(text, sizeof text, cases[i].text, w, attr);
  NY_TRY(ny_parse_unit(cx, text, strlen(text), NULL, &u));
  ny_pass_options o = {.target = t, .opt = 2, .until = "tile"};
  const ny_codegen *cg;
  ny_image im = {0};
  nyb_status s = ny_run_passes(u, &o);
  if (!s) s = ny_codegen_open(&cg, &cx->diag);
  ny_graph *kernel = u->first->next;
  if (!s && kernel) {
    kernel->name = ny_intern(&cx->names, cases[i].name);
    ny_codegen_request r = {.kernel = &kernel, .n = 1, .target = t, .opt = 2, .threads = 1, .dump_dir = dir};
    s = cg->compile(&r, &im, &cx->diag);
    ny_image_free(&im);
  }
  ny_unit_free(u);
  return s;
}

/* From the line after a label to the jump back to it; NULL when another label or the end comes first. */
static const char *loop_end(const char *from, const char *label, size_t n) {
  for (const char *p = from; *p; p = strchr(p, '\n') + 1) {
    size_t len = strcspn(p, "\n");
    if (*p == '.' && !strncmp(p, ".LBB", 4)) return NULL;
    if (*p == '\t' && len > n && !strncmp(p + len - n, label, n) && strchr("\t ", p[len - n - 1])) return p;
    if (!p[len]) return NULL;
  }
  return NULL;
}

static int count(const char *from, const char *end, const char *what) {
  int n = 0;
  for (const char *p = from; (p = strstr(p, what)) && p < end; p++) n++;
  return n;
}

static void check_loops(const char *text, const char *name, const ny_target *t) {
  int hot = 0;
  for (const char *p = strstr(text, "\n.LBB"); p; p = strstr(p + 1, "\n.LBB")) {
    size_t n = strcspn(p + 1, ":");
    const char *body = strchr(p + 1, '\n');
    const char *end = body ? loop_end(body + 1, p + 1, n) : NULL;
    if (!end || count(body, end, t->no_fma ? "mulps" : "vfmadd") + count(body, end, "fmla") < 8) continue;
    hot++;
    CHECK(count(body, end, "(%rsp") + count(body, end, "[sp") == 0, "%s for %s: the loop at %.*s spills", name, t->name, (int)n, p + 1);
  }
  CHECK(hot > 0, "%s for %s: no loop multiplies", name, t->name);
}

static void run(const char *target, const char *dir) {
  for (int i = 0; i < (int)NY_COUNT(cases); i++) {
    ny_ctx *cx = ny_ctx_new();
    ny_arena a = {0};
    const ny_target *t;
    char *text = NULL;
    size_t n;
    nyb_status s = ny_target_find(target, &t, &cx->diag);
    if (!s) s = assemble(t, i, cx, dir);
    if (!s) s = ny_file_read(&a, ny_strf(&a, "%s/%s.s", dir, cases[i].name), 1 << 24, &text, &n, &cx->diag);
    CHECK(!s, "%s for %s: %s", cases[i].name, target, cx->diag.message);
    if (!s) check_loops(text, cases[i].name, t);
    ny_arena_free(&a);
    ny_ctx_free(cx);
  }
}

int main(void) {
  char dir[] = "/tmp/nybble-spill-XXXXXX";
  CHECK(mkdtemp(dir), "no temporary folder");
  static const char *const targets[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"};
  for (size_t i = 0; i < NY_COUNT(targets); i++) run(targets[i], dir);
  for (size_t i = 0; i < NY_COUNT(cases); i++) {
    char path[96];
    static const char *const kinds[] = {"s", "ll"};
    for (int k = 0; k < 2; k++) {
      snprintf(path, sizeof path, "%s/%s.%s", dir, cases[i].name, kinds[k]);
      unlink(path);
    }
  }
  rmdir(dir);
  return test_end("spill_test");
}
