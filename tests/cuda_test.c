/* The CUDA emitter's promises that no run shows: where barriers are, what knobs and kernels are refused, what a launcher is told, that a text depends on nothing but
   the kernel, how NVRTC's errors read, and the cache on disk. That kernels compute the right thing is kernel_test's part. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cuda_code.h"
#include "test.h"

static const ny_target *target;
static bool have_nvrtc;

typedef struct made {
  ny_ctx *cx;
  ny_unit *unit;
  ny_text text;
  ny_cuda_facts facts;
  ny_diag diag;
  nyb_status status;
} made;

static made make(const char *kernels) {
  made m = {.cx = ny_ctx_new()};
  ny_text t = {0};
  ny_text_add(&t, "graph main(%a: f32[4]) {\n  ret %a\n}\n\n");
  ny_text_add(&t, kernels);
  m.status = ny_parse_unit(m.cx, t.s, t.n, NULL, &m.unit);
  CHECK(!m.status, "a kernel of this test does not parse: %s", m.cx->diag.message);
  if (!m.status) m.status = ny_cuda_source(m.unit->first->next, target, &m.text, &m.facts, &m.diag);
  ny_text_free(&t);
  return m;
}

static void drop(made *m) {
  ny_text_free(&m->text);
  if (m->unit) ny_unit_free(m->unit);
  ny_ctx_free(m->cx);
}

static int count(const char *s, const char *what) {
  int n = 0;
  for (const char *p = s ? strstr(s, what) : NULL; p; p = strstr(p + strlen(what), what)) n++;
  return n;
}

/* ---- barriers */
static int barriers(const char *body) {
  ny_text t = {0};
  ny_text_addf(&t, "kernel k(%%a: f32[4096]@global, %%c: f32[4096]@global) [threads=128,v=1] {\n%s  ret\n}\n", body);
  made m = make(t.s);
  CHECK(!m.status, "%s", m.diag.message);
  int n = count(m.text.s, "NY_SYNC;");
  drop(&m);
  ny_text_free(&t);
  return n;
}

static void test_barriers(void) {
  static const struct {
    const char *what, *body;
    int n;
  } rows[] = {
      {"stores to an output nobody reads", "  %x = load %a stride=[0,1] : f32[1,256]\n  store %c, %x stride=[0,1]\n  store %c, %x off=256 stride=[0,1]\n", 0},
      {"what a thread stored itself", "  %x = load %a stride=[0,1] : f32[1,256]\n  store %c, %x stride=[0,1]\n  %y = load %c stride=[0,1] : f32[1,256]\n"
                                      "  %z = exp %y : f32[1,256]\n  store %c, %z stride=[0,1]\n", 0},
      {"what another thread stored", "  %x = load %a stride=[0,1] : f32[1,256]\n  store %c, %x stride=[0,1]\n  %y = load %c off=1 stride=[0,1] : f32[1,255]\n"
                                     "  store %c, %y off=1024 stride=[0,1]\n", 1},
      {"over what another thread reads", "  %x = load %c off=1 stride=[0,1] : f32[1,255]\n  store %c, %x stride=[0,1]\n", 1},
      {"one shared value for all", "  %p = local : f32[1]@shared\n  %x = load %a stride=[0,0] : f32[1,1]\n  store %p, %x stride=[0,0]\n"
                                   "  %y = load %p stride=[0,0] : f32[1,1]\n  store %c, %y stride=[0,0]\n", 1},
      {"a loop that passes a buffer on", "  %p = local : f32[256]@shared\n  for var=i hi=8 {\n    %x = load %a off=?i*256 stride=[0,1] : f32[1,256]\n"
                                         "    store %p, %x stride=[0,1]\n    %y = load %p off=1 stride=[0,1] : f32[1,255]\n"
                                         "    store %c, %y off=?i*256 stride=[0,1]\n  }\n", 2},
      {"a loop over chunks of a row, twice", "  for var=i hi=1024 step=256 {\n    %x = load %a off=?i stride=[0,1] : f32[1,256]\n    store %c, %x off=?i stride=[0,1]\n  }\n"
                                             "  for var=j hi=1024 step=128 {\n    %y = load %c off=?j stride=[0,1] : f32[1,128]\n    %z = exp %y : f32[1,128]\n"
                                             "    store %c, %z off=?j stride=[0,1]\n  }\n", 0},
      {"a loop that shifts", "  for var=i hi=1024 step=256 {\n    %x = load %c off=?i+1 stride=[0,1] : f32[1,256]\n    store %c, %x off=?i stride=[0,1]\n  }\n", 2},
      {"a reduction over four warps", "  %x = load %a stride=[0,1] : f32[1,256]\n  %s = reduce %x op=sum axes=[1] keep=1 : f32[1,1]\n  store %c, %s stride=[0,0]\n", 1},
      {"two reductions", "  %x = load %a stride=[0,1] : f32[1,256]\n  %s = reduce %x op=sum axes=[1] keep=1 : f32[1,1]\n  %d = sub %x, %s : f32[1,256]\n"
                         "  %t = reduce %d op=max axes=[1] keep=1 : f32[1,1]\n  store %c, %t stride=[0,0]\n", 3},
      {"as the program says", "  %x = load %a stride=[0,1] : f32[1,256]\n  barrier\n  store %c, %x stride=[0,1]\n", 1},
  };
  for (size_t i = 0; i < NY_COUNT(rows); i++) {
    int n = barriers(rows[i].body);
    CHECK(n == rows[i].n, "%s: %d barriers, not %d", rows[i].what, n, rows[i].n);
  }
}

/* ---- facts and refusals */
#define COPY(head) head " {\n  grid var=i extent=16\n  %x = load %a off=?i*4 stride=[0,1] : f32[1,4]\n  store %c, %x off=?i*4 stride=[0,1]\n  ret\n}\n"
#define ARGS "(%a: f32[64]@global, %c: f32[64]@global)"

static void test_facts(void) {
  made m = make(COPY("kernel copy_it" ARGS));
  CHECK(m.facts.block == 256 && m.facts.points == 256 && !m.facts.shared && m.facts.index == 32 && m.facts.n_symbol == 0 && !m.facts.inplace, "a thread a point");
  CHECK(!strcmp(m.facts.symbol, "copy_it"), "symbol %s", m.facts.symbol);
  CHECK(count(m.text.s, "__restrict__") == 2 && count(m.text.s, "ny_load<4>") == 1, "two pointers that do not alias, one vector");
  drop(&m);
  m = make(COPY("kernel expf" ARGS " [threads=32,tpb=64]"));
  CHECK(m.facts.block == 64 && m.facts.points == 2 && !strcmp(m.facts.symbol, "k_expf"), "a warp a point: %d %d %s", m.facts.block, m.facts.points, m.facts.symbol);
  drop(&m);
  m = make(COPY("kernel in_place" ARGS " [inplace=0]"));
  CHECK(m.facts.inplace == 1 && !count(m.text.s, "__restrict__"), "buffers that may be one");
  drop(&m);
  m = make(COPY("kernel wide_one(%a: f32[3000000000]@global, %c: f32[64]@global)"));
  CHECK(m.facts.index == 64 && count(m.text.s, "#define ix i64"), "64-bit indices");
  drop(&m);
  m = make("kernel with_local(%a: f32[?N]@global) [threads=64] {\n  %p = local : f32[100]@shared\n  %x = load %a stride=[0,1] : f32[1,64]\n  store %p, %x stride=[0,1]\n"
           "  %y = load %p off=1 stride=[0,1] : f32[1,32]\n  store %a, %y off=?N-32 stride=[0,1]\n  ret\n}\n");
  CHECK(m.facts.shared == 512 && m.facts.n_symbol == 1 && m.facts.block == 64, "shared %u", m.facts.shared);
  drop(&m);
}

static void refused(const char *kernel, const char *why) {
  made m = make(kernel);
  CHECK(m.status && strstr(m.diag.message, why), "\"%s\" should say %s", m.diag.message, why);
  drop(&m);
}

static void test_refusals(void) {
  refused(COPY("kernel k" ARGS " [threads=48]"), "threads=48");
  refused(COPY("kernel k" ARGS " [threads=64,v=3]"), "v=3");
  refused(COPY("kernel k" ARGS " [threads=128,wm=3,wn=1]"), "wm=3");
  refused("kernel k" ARGS " [threads=64] {\n  %p = local : f32[1000000]@shared\n  %x = load %a stride=[0,1] : f32[1,4]\n  store %p, %x stride=[0,1]\n  ret\n}\n", "shared memory");
}

static void test_same_text(void) {
  made a = make(COPY("kernel k" ARGS " [threads=32]")), b = make(COPY("kernel k" ARGS " [threads=32]"));
  CHECK(a.text.n && a.text.n == b.text.n && !memcmp(a.text.s, b.text.s, a.text.n), "the same kernel gives the same text");
  drop(&a);
  drop(&b);
}

/* ---- NVRTC */
static void test_errors(void) {
  ny_nvrtc_result r;
  ny_diag d = {0};
  nyb_status s = ny_nvrtc_compile("extern \"C\" __global__ void f(float *x) {\n  x[0] = unheard_of;\n}\n", "bad.cu", "sm_80", NULL, 0, &r, &d);
  CHECK(s && strstr(d.message, "bad.cu(2)") && strstr(d.message, "x[0] = unheard_of;") && d.line == 2, "%s", d.message);
  CHECK(r.log && strstr(r.log, "unheard_of"), "the whole log is kept");
  ny_nvrtc_free(&r);
  ny_diag_clear(&d);
  s = ny_nvrtc_compile("extern \"C\" __global__ void f() {}\n", "good.cu", "sm_12345", NULL, 0, &r, &d);
  CHECK(s && d.message[0], "an architecture nobody knows");
  ny_nvrtc_free(&r);
  ny_diag_clear(&d);
  s = ny_nvrtc_compile("extern \"C\" __global__ void f() {}\n", "good.cu", "compute_90", NULL, 0, &r, &d);
  CHECK(!s && r.ptx && strstr(r.ptx, ".entry f") && !r.cubin, "PTX alone: %s", d.message);
  ny_nvrtc_free(&r);
}

static void test_cache(void) {
  char dir[] = "/tmp/nybble-cuda-XXXXXX", path[512] = "";
  CHECK(mkdtemp(dir) != NULL, "no folder");
  const char *before = getenv("NYBBLE_CACHE");
  char *saved = before ? strdup(before) : NULL;
  setenv("NYBBLE_CACHE", dir, 1);
  const char *source = "extern \"C\" __global__ void once(float *x) { x[threadIdx.x] += 1; }\n";
  ny_cuda_image im[4] = {{0}};
  ny_diag d = {0};
  CHECK(!ny_cuda_compile_source(source, "once.cu", "sm_80", &im[0], &d) && !im[0].cached && im[0].cubin, "%s", d.message);
  CHECK(!ny_cuda_compile_source(source, "once.cu", "sm_80", &im[1], &d) && im[1].cached, "the second time it is there");
  CHECK(im[1].seconds < 0.03, "reading it took %g s", im[1].seconds);
  CHECK(im[0].ptx_bytes == im[1].ptx_bytes && im[0].cubin_bytes == im[1].cubin_bytes && !memcmp(im[0].cubin, im[1].cubin, im[0].cubin_bytes), "the same code");
  CHECK(!ny_cuda_compile_source(source, "once.cu", "sm_90a", &im[2], &d) && !im[2].cached, "another architecture is another entry");
  char folder[64];
  snprintf(folder, sizeof folder, "%s/cuda", dir);
  DIR *open = opendir(folder);
  for (struct dirent *e; open && (e = readdir(open));) { /* a damaged entry is not believed */
    if (e->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    FILE *f = fopen(path, "r+b");
    if (f && !fseek(f, 100, SEEK_SET)) fputc('!', f);
    if (f) fclose(f);
  }
  if (open) closedir(open);
  CHECK(!ny_cuda_compile_source(source, "once.cu", "sm_80", &im[3], &d) && !im[3].cached && im[3].cubin_bytes == im[0].cubin_bytes, "compiled again");
  for (int i = 0; i < 4; i++) ny_cuda_image_free(&im[i]);
  if (saved)
    setenv("NYBBLE_CACHE", saved, 1);
  else
    unsetenv("NYBBLE_CACHE");
  free(saved);
}

/* Twenty kernels, and two whose names become one: units, threads, progress. */
static void hear(void *user, const char *stage, double done) {
  (void)stage;
  double *last = user;
  CHECK(done >= *last && done <= 1, "progress %g after %g", done, *last);
  *last = done;
}

static void test_pool(void) {
  ny_text t = {0};
  for (int i = 0; i < 20; i++)
    ny_text_addf(&t,
                 "kernel k_%d(%%a: f32[64]@global, %%c: f32[64]@global) {\n  %%x = load %%a stride=[0,1] : f32[1,4]\n  %%y = sigmoid %%x : f32[1,4]\n"
                 "  store %%c, %%y off=%d stride=[0,1]\n  ret\n}\n\n",
                 i, i * 2);
  ny_text_add(&t, COPY("kernel \"k.1\"" ARGS) "\n" COPY("kernel \"k-1\"" ARGS));
  made m = make(t.s);
  const ny_graph *kernel[32];
  size_t n = 0;
  for (const ny_graph *g = m.unit->first->next; g; g = g->next) kernel[n++] = g;
  double last = 0;
  ny_cuda_code one, four;
  ny_codegen_request r = {.kernel = (ny_graph *const *)kernel, .n = n, .target = target, .threads = 1, .progress = hear, .user = &last};
  CHECK(!ny_cuda_compile(&r, &one, &m.diag), "%s", m.diag.message);
  r.threads = 4, r.progress = NULL;
  CHECK(!ny_cuda_compile(&r, &four, &m.diag), "%s", m.diag.message);
  CHECK(last == 1 && one.n == n && one.n_image > 2 && one.n_image < n / 2 && one.n_image == four.n_image, "%zu kernels in %zu units", one.n, one.n_image);
  for (size_t i = 0; i < one.n && i < four.n; i++) {
    const ny_cuda_image *a = &one.image[one.kernel[i].image];
    char entry[NY_CUDA_SYMBOL + 16];
    snprintf(entry, sizeof entry, ".entry %s(", one.kernel[i].facts.symbol);
    CHECK(count(a->ptx, entry) == 1, "%s is not once in its unit", entry);
    CHECK(one.kernel[i].image == four.kernel[i].image && !strcmp(a->ptx, four.image[four.kernel[i].image].ptx), "another number of threads, another result");
  }
  ny_cuda_code_free(&one);
  ny_cuda_code_free(&four);
  drop(&m);
  ny_text_free(&t);
}

int main(void) {
  ny_diag d = {0};
  const ny_nvrtc *n;
  CHECK(!ny_target_find("sm_80", &target, &d), "%s", d.message);
  test_barriers();
  test_facts();
  test_refusals();
  test_same_text();
  have_nvrtc = !ny_nvrtc_open(&n, &d);
  if (!have_nvrtc) {
    printf("cuda_test: NVRTC's part is skipped: %s\n", d.message);
    return test_end("cuda_test");
  }
  test_errors();
  test_cache();
  test_pool();
  return test_end("cuda_test");
}
