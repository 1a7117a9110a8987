/* The simulated CUDA driver as a program sees it: what works, what a real driver refuses, and what only this one finds.
 */
#include "driver.h"
#include "ptx_fixture.h"
#include "test.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = 1000 };

static const char *name_of(int r) {
  const char *s = NULL;
  cuGetErrorName(r, &s);
  return s ? s : "?";
}
#define OK(call)                                                                                                       \
  do {                                                                                                                 \
    int r_ = (call);                                                                                                   \
    CHECK(r_ == 0, "%s", name_of(r_));                                                                                 \
  } while (0)
#define GIVES(status, call)                                                                                            \
  do {                                                                                                                 \
    int r_ = (call);                                                                                                   \
    CHECK(r_ == (status), "%s, not %s", name_of(r_), name_of(status));                                                 \
  } while (0)

static nyb_cudasim_totals totals(void) {
  nyb_cudasim_totals t;
  nyb_cudasim_count(&t);
  return t;
}

static ny_cu_context open_context(int device) {
  ny_cu_context cx = NULL;
  OK(cuDevicePrimaryCtxRetain(&cx, device));
  OK(cuCtxSetCurrent(cx));
  return cx;
}

/* Nothing of the context may be left but what the caller says it left. */
static void close_context(int device, uint64_t left) {
  uint64_t before = totals().leaked;
  OK(cuDevicePrimaryCtxRelease_v2(device));
  CHECK(totals().leaked - before == left, "%llu leaked, not %llu", (unsigned long long)(totals().leaked - before),
        (unsigned long long)left);
}

/* ---- devices */
static void check_devices(void) {
  int n = -1, v = 0;
  char name[64];
  GIVES(DRV_NOT_INITIALIZED, cuDeviceGetCount(&n));
  OK(cuInit(0));
  OK(cuDeviceGetCount(&n));
  CHECK(n == 3, "%d devices", n);
  CHECK(nyb_cudasim_device("") == 0 && nyb_cudasim_device("h100") == 1 && nyb_cudasim_device("k80") == -1, "profiles");
  CHECK(!strcmp(nyb_cudasim_profile(2), "rtx5090") && !nyb_cudasim_profile(3), "profile names");
  static const struct {
    const char *profile;
    int attribute, value;
  } row[] = {{"gb10", NY_CU_MAJOR, 12},
             {"gb10", NY_CU_MINOR, 1},
             {"gb10", NY_CU_INTEGRATED, 1},
             {"gb10", NY_CU_PAGEABLE, 1},
             {"gb10", NY_CU_HOST_PAGE_TABLES, 1},
             {"gb10", NY_CU_PROCESSORS, 48},
             {"h100", NY_CU_MAJOR, 9},
             {"h100", NY_CU_INTEGRATED, 0},
             {"h100", NY_CU_HOST_PAGE_TABLES, 0},
             {"h100", NY_CU_SHARED_OPTIN, 232448},
             {"rtx5090", NY_CU_MAJOR, 12},
             {"rtx5090", NY_CU_MINOR, 0},
             {"rtx5090", NY_CU_PAGEABLE, 0}};
  for (size_t i = 0; i < NY_COUNT(row); i++) {
    OK(cuDeviceGetAttribute(&v, row[i].attribute, nyb_cudasim_device(row[i].profile)));
    CHECK(v == row[i].value, "%s: attribute %d is %d", row[i].profile, row[i].attribute, v);
  }
  OK(cuDeviceGetName(name, sizeof name, 0));
  CHECK(strstr(name, "GB10") && strstr(name, "simulated"), "%s", name);
  GIVES(DRV_INVALID_DEVICE, cuDeviceGetName(name, sizeof name, 3));
  GIVES(DRV_INVALID_DEVICE, cuDeviceGet(&v, -1));
  ny_cu_address p;
  GIVES(DRV_INVALID_CONTEXT, cuMemAlloc_v2(&p, 16));
}

static void check_names(void) {
  static const struct {
    const char *symbol;
    void (*is)(void);
  } row[] = {{"cuMemAlloc", (void (*)(void))cuMemAlloc_v2},
             {"cuMemAlloc_v2", (void (*)(void))cuMemAlloc_v2},
             {"cuLaunchKernel", (void (*)(void))cuLaunchKernel},
             {"cuStreamBeginCapture", (void (*)(void))cuStreamBeginCapture_v2},
             {"cuMemcpy", (void (*)(void))cuMemcpy}};
  for (size_t i = 0; i < NY_COUNT(row); i++) {
    void *p = NULL;
    int status = -1;
    OK(cuGetProcAddress_v2(row[i].symbol, &p, 12000, 0, &status));
    CHECK(!memcmp(&p, &row[i].is, sizeof p) && status == 0, "%s", row[i].symbol);
  }
  void *p;
  GIVES(DRV_NOT_FOUND, cuGetProcAddress_v2("cuMem", &p, 12000, 0, NULL));
  const char *s;
  OK(cuGetErrorString(DRV_ILLEGAL_ADDRESS, &s));
  CHECK(strstr(s, "illegal memory access") && !strcmp(name_of(700), "CUDA_ERROR_ILLEGAL_ADDRESS"), "%s", s);
  GIVES(DRV_INVALID_VALUE, cuGetErrorName(12345, &s));
}

/* The table that the runtime fills is the same library. */
static void check_table(void) {
  const ny_cuda *cu;
  ny_diag d = {0};
  CHECK(!ny_cuda_open(true, &cu, &d), "%s", d.message);
  if (d.code) return;
  CHECK(cu->simulated && cu->version == DRV_VERSION && cu->alloc == cuMemAlloc_v2, "%s", cu->path);
  CHECK(ny_cuda_fail(cu, DRV_ILLEGAL_ADDRESS, &d, "kernel %s", "k") == NYB_E_DEVICE &&
            strstr(d.message, "kernel k: CUDA_ERROR_ILLEGAL_ADDRESS (700), an illegal"),
        "%s", d.message);
}

/* ---- memory */
static bool crashes(void (*f)(void *), void *p) {
  fflush(stdout);
  fflush(stderr);
  pid_t child = fork();
  if (!child) {
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    f(p);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}
static void touch(void *p) { *(volatile char *)p = 1; }

static void check_memory(void) {
  open_context(1);
  ny_cu_address p = 0, base = 0;
  size_t bytes = 0, left = 0, total = 0;
  int8_t a[4000], b[4000];
  for (int i = 0; i < 4000; i++) a[i] = (int8_t)(i * 7);
  OK(cuMemAlloc_v2(&p, 4000));
  OK(cuMemGetInfo_v2(&left, &total));
  CHECK(total == (uint64_t)79 << 30 && left == total - 4000, "%zu of %zu", left, total);
  OK(cuMemcpyDtoH_v2(b, p, 4000));
  CHECK(b[0] == -1 && b[3999] == -1, "memory starts as ones");
  OK(cuMemcpyHtoD_v2(p, a, 4000));
  OK(cuMemcpyDtoH_v2(b, p + 1000, 3000));
  CHECK(!memcmp(a + 1000, b, 3000), "a copy there and back");
  OK(cuMemcpyDtoD_v2(p, p + 2000, 2000));
  OK(cuMemsetD32_v2(p + 2000, 0x01020304, 10));
  OK(cuMemcpyDtoH_v2(b, p, 4000));
  CHECK(!memcmp(b, a + 2000, 2000) && b[2000] == 4 && b[2039] == 1 && b[2040] == a[2040], "copies and fills inside");
  nyb_cudasim_set("report", "off");
  GIVES(DRV_INVALID_VALUE, cuMemcpyHtoD_v2(p + 1, a, 4000));
  GIVES(DRV_INVALID_VALUE, cuMemcpyDtoH_v2(b, p - 1, 4));
  GIVES(DRV_INVALID_VALUE, cuMemcpyDtoD_v2(p, p + 100, 101));
  GIVES(DRV_INVALID_VALUE, cuMemsetD32_v2(p + 2, 0, 1));
  GIVES(DRV_INVALID_VALUE, cuMemcpyHtoD_v2(p, (void *)(uintptr_t)p, 10));
  nyb_cudasim_set("report", "on");
  OK(cuMemGetAddressRange_v2(&base, &bytes, p + 17));
  CHECK(base == p && bytes == 4000, "range");
  unsigned type = 0;
  OK(cuPointerGetAttribute(&type, 2, p + 5));
  CHECK(type == 2, "memory of the device");
  CHECK(crashes(touch, (void *)(uintptr_t)p), "the host cannot touch device memory");
  CHECK(crashes(touch, (void *)(uintptr_t)(p - 1)), "nor what lies before it");
  GIVES(DRV_OUT_OF_MEMORY, cuMemAlloc_v2(&base, (size_t)100 << 30));
  GIVES(DRV_INVALID_VALUE, cuMemAlloc_v2(&base, 0));
  GIVES(DRV_INVALID_VALUE, cuMemFree_v2(p + 8));
  OK(cuMemFree_v2(p));
  GIVES(DRV_INVALID_VALUE, cuMemFree_v2(p));
  OK(cuMemFree_v2(0));
  OK(cuMemAlloc_v2(&p, 100));
  close_context(1, 1);
}

static void check_host_memory(void) {
  open_context(0);
  void *p = NULL;
  ny_cu_address at = 0;
  static char mine[256];
  OK(cuMemHostAlloc(&p, 5000, 3));
  touch((char *)p + 4999);
  CHECK(crashes(touch, (char *)p + 8192), "pages after an allocation");
  OK(cuMemHostGetDevicePointer_v2(&at, p, 0));
  CHECK(at == (uintptr_t)p, "one address space");
  unsigned type = 0;
  OK(cuPointerGetAttribute(&type, 2, at));
  CHECK(type == 1, "memory of the host");
  GIVES(DRV_INVALID_VALUE, cuMemFree_v2(at));
  OK(cuMemFreeHost(p));
  OK(cuMemHostRegister_v2(mine, sizeof mine, 0));
  GIVES(DRV_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister_v2(mine + 10, 5, 0));
  GIVES(DRV_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(mine + 10));
  OK(cuMemHostUnregister(mine));
  OK(cuMemAllocManaged(&at, 100, 1));
  touch((void *)(uintptr_t)at);
  OK(cuMemFree_v2(at));
  close_context(0, 0);
}

/* ---- code */
static void check_code(void) {
  static const char elf[64] = "\177ELF", newer[] = ".version 8.0\n.target sm_130\n.address_size 64\n" PTX_ADD,
                    other[] = ".version 8.0\n.target sm_90a\n.address_size 64\n" PTX_ADD;
  open_context(0);
  ny_cu_module m = NULL, never = NULL;
  ny_cu_function f = NULL;
  char log[512] = "x";
  int option[] = {NY_CU_JIT_ERROR_LOG, NY_CU_JIT_ERROR_LOG_BYTES}, v = 0;
  void *value[] = {log, (void *)(uintptr_t)sizeof log};
  nyb_cudasim_set("report", "off");
  GIVES(DRV_NO_BINARY_FOR_GPU, cuModuleLoadDataEx(&never, elf, 2, option, value));
  CHECK(strstr(log, "PTX"), "%s", log);
  GIVES(DRV_INVALID_PTX,
        cuModuleLoadDataEx(&never, PTX_HEADER ".visible .entry k() { .reg .b32 %r<2>; frobnicate.u32 %r1; }", 2, option,
                           value));
  CHECK(strstr(log, "frobnicate"), "%s", log);
  GIVES(DRV_NO_BINARY_FOR_GPU, cuModuleLoadDataEx(&never, newer, 2, option, value));
  CHECK(strstr(log, "130") && strstr(log, "12.1"), "%s", log);
  GIVES(DRV_NO_BINARY_FOR_GPU, cuModuleLoadData(&never, other));
  nyb_cudasim_set("report", "on");
  OK(cuModuleLoadDataEx(&m, PTX_ALL, 2, option, value));
  CHECK(!*log, "%s", log);
  OK(cuModuleGetFunction(&f, m, "add"));
  GIVES(DRV_NOT_FOUND, cuModuleGetFunction(&f, m, "subtract"));
  GIVES(DRV_INVALID_HANDLE, cuModuleGetFunction(&f, (ny_cu_module)(uintptr_t)0x1230, "add"));
  OK(cuFuncGetAttribute(&v, NY_CU_FUNCTION_MAX_THREADS, f));
  CHECK(v == 1024, "%d threads", v);
  size_t offset = 0, bytes = 0;
  OK(cuFuncGetParamInfo(f, 3, &offset, &bytes));
  CHECK(offset == 24 && bytes == 8, "parameter at %zu", offset);
  GIVES(DRV_INVALID_VALUE, cuFuncGetParamInfo(f, 4, &offset, &bytes));
  OK(cuModuleUnload(m));
  GIVES(DRV_INVALID_HANDLE, cuModuleUnload(m));
  GIVES(DRV_INVALID_HANDLE, cuFuncGetAttribute(&v, NY_CU_FUNCTION_MAX_THREADS, f));
  close_context(0, 0);
}

/* ---- launches */
typedef struct bench { /* a context with the kernels and three arrays */
  ny_cu_module module;
  ny_cu_stream stream;
  ny_cu_address a, b, c;
  float host[N];
  int64_t n;
  void *param[4];
} bench;

static ny_cu_function function(bench *t, const char *name) {
  ny_cu_function f = NULL;
  OK(cuModuleGetFunction(&f, t->module, name));
  return f;
}

static void bench_open(bench *t, int device) {
  open_context(device);
  memset(t, 0, sizeof *t);
  OK(cuModuleLoadData(&t->module, PTX_ALL));
  OK(cuStreamCreate(&t->stream, 1));
  OK(cuMemAlloc_v2(&t->a, N * 4));
  OK(cuMemAlloc_v2(&t->b, N * 4));
  OK(cuMemAlloc_v2(&t->c, N * 4));
  for (int i = 0; i < N; i++) t->host[i] = (float)i;
  OK(cuMemcpyHtoD_v2(t->a, t->host, sizeof t->host));
  for (int i = 0; i < N; i++) t->host[i] = (float)i * 0.5f;
  OK(cuMemcpyHtoD_v2(t->b, t->host, sizeof t->host));
  t->n = N;
  t->param[0] = &t->a, t->param[1] = &t->b, t->param[2] = &t->c, t->param[3] = &t->n;
}

static void bench_close(bench *t, int device) {
  OK(cuMemFree_v2(t->a));
  OK(cuMemFree_v2(t->b));
  OK(cuMemFree_v2(t->c));
  OK(cuStreamDestroy_v2(t->stream));
  OK(cuModuleUnload(t->module));
  close_context(device, 0);
}

static int launch(bench *t, const char *name) {
  return cuLaunchKernel(function(t, name), (N + 127) / 128, 1, 1, 128, 1, 1, 0, t->stream, t->param, NULL);
}

/* c = scale * a, as a + b gives it with b = a / 2. */
static void check_sum(bench *t, float scale) {
  int bad = 0;
  OK(cuMemcpyDtoH_v2(t->host, t->c, sizeof t->host));
  for (int i = 0; i < N; i++) bad += t->host[i] != (float)i * scale;
  CHECK(!bad, "%d sums are wrong", bad);
}

static void check_launch(void) {
  bench t;
  bench_open(&t, 0);
  OK(launch(&t, "add"));
  OK(cuStreamSynchronize(t.stream));
  check_sum(&t, 1.5f);
  struct {
    ny_cu_address a, b, c;
    int64_t n;
  } block = {t.b, t.b, t.c, N};
  size_t bytes = sizeof block;
  void *extra[] = {(void *)1, &block, (void *)2, &bytes, NULL};
  ny_cu_function add = function(&t, "add");
  OK(cuLaunchKernel(add, 8, 1, 1, 128, 1, 1, 0, t.stream, NULL, extra));
  check_sum(&t, 1.0f);
  GIVES(DRV_INVALID_VALUE, cuLaunchKernel(add, 0, 1, 1, 128, 1, 1, 0, t.stream, t.param, NULL));
  GIVES(DRV_INVALID_VALUE, cuLaunchKernel(add, 1, 1, 1, 1025, 1, 1, 0, t.stream, t.param, NULL));
  GIVES(DRV_INVALID_VALUE, cuLaunchKernel(add, 1, 65536, 1, 128, 1, 1, 0, t.stream, t.param, NULL));
  GIVES(DRV_INVALID_VALUE, cuLaunchKernel(add, 1, 1, 1, 128, 1, 1, 0, t.stream, NULL, NULL));
  GIVES(DRV_INVALID_HANDLE,
        cuLaunchKernel((ny_cu_function)(uintptr_t)t.module, 1, 1, 1, 128, 1, 1, 0, t.stream, t.param, NULL));
  GIVES(DRV_INVALID_HANDLE,
        cuLaunchKernel(add, 1, 1, 1, 128, 1, 1, 0, (ny_cu_stream)(uintptr_t)0x99990, t.param, NULL));
  const nyb_cudasim_kernel *k = NULL;
  unsigned n = nyb_cudasim_kernels(&k), found = 0;
  for (unsigned i = 0; i < n; i++)
    if (!strcmp(k[i].name, "add")) found = k[i].launches == 2 && k[i].counters.blocks == 16 && !k[i].findings;
  CHECK(found, "counters by kernel");
  bench_close(&t, 0);
}

static void check_shared(void) {
  bench t;
  bench_open(&t, 1);
  ny_cu_function share = function(&t, "share");
  void *param[] = {&t.c};
  OK(cuLaunchKernel(share, 1, 1, 1, 64, 1, 1, 64 * 4, t.stream, param, NULL));
  int got[64], bad = 0;
  OK(cuMemcpyDtoH_v2(got, t.c, sizeof got));
  for (int i = 0; i < 64; i++) bad += got[i] != (i ^ 1);
  CHECK(!bad, "%d neighbours are wrong", bad);
  nyb_cudasim_set("report", "off");
  GIVES(DRV_INVALID_VALUE, cuLaunchKernel(share, 1, 1, 1, 64, 1, 1, (48 << 10) + 16, t.stream, param, NULL));
  nyb_cudasim_set("report", "on");
  GIVES(DRV_INVALID_VALUE, cuFuncSetAttribute(share, NY_CU_FUNCTION_MAX_DYNAMIC_SHARED, 232449));
  OK(cuFuncSetAttribute(share, NY_CU_FUNCTION_MAX_DYNAMIC_SHARED, 232448));
  OK(cuLaunchKernel(share, 1, 1, 1, 64, 1, 1, 232448, t.stream, param, NULL));
  int blocks = 0;
  OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, share, 64, 100 << 10));
  CHECK(blocks == 2, "%d blocks", blocks);
  bench_close(&t, 1);
}

/* A failed launch ends the context: every later call says so, until it is made anew. */
static void expect_finding(bench *t, int status, const char *part) {
  static char text[4096];
  ny_cu_address p;
  GIVES(status, cuStreamSynchronize(t->stream));
  GIVES(status, cuMemAlloc_v2(&p, 16));
  nyb_cudasim_findings(text, sizeof text);
  CHECK(strstr(text, part), "\"%s\" is not in: %s", part, text);
  uint64_t before = totals().leaked;
  OK(cuDevicePrimaryCtxRelease_v2(1));
  CHECK(totals().leaked > before, "what a broken context held is gone");
  nyb_cudasim_reset();
}

static void check_findings(void) {
  bench t;
  nyb_cudasim_set("report", "off");
  nyb_cudasim_reset();
  bench_open(&t, 1);
  GIVES(DRV_ILLEGAL_ADDRESS, launch(&t, "over"));
  expect_finding(&t, DRV_ILLEGAL_ADDRESS, "out of bounds");

  bench_open(&t, 1); /* use after free */
  OK(cuMemFree_v2(t.b));
  GIVES(DRV_ILLEGAL_ADDRESS, launch(&t, "add"));
  expect_finding(&t, DRV_ILLEGAL_ADDRESS, "add");

  bench_open(&t, 1); /* inside the allocation, outside what the caller gave it */
  nyb_cudasim_range r[] = {
      {(void *)(uintptr_t)t.a, N * 4}, {(void *)(uintptr_t)t.b, N * 4 - 4}, {(void *)(uintptr_t)t.c, N * 4}};
  nyb_cudasim_expect(r, 3);
  GIVES(DRV_ILLEGAL_ADDRESS, launch(&t, "add"));
  expect_finding(&t, DRV_ILLEGAL_ADDRESS, "out of bounds");

  bench_open(&t, 1); /* the same ranges again, whole, and one of them twice */
  nyb_cudasim_range whole[] = {{(void *)(uintptr_t)t.c, N * 4},
                               {(void *)(uintptr_t)t.a, N * 4},
                               {(void *)(uintptr_t)t.b, N * 4},
                               {(void *)(uintptr_t)(t.a + 4), 8}};
  nyb_cudasim_expect(whole, 4);
  OK(launch(&t, "add"));
  check_sum(&t, 1.5f);
  nyb_cudasim_set("report", "on");
  bench_close(&t, 1);
}

/* GB10 follows pointers of the process; an RTX 5090 does not. */
static void check_pageable(void) {
  bench t;
  float *mine = calloc(N, 4);
  for (int i = 0; i < N; i++) mine[i] = (float)i;
  nyb_cudasim_set("report", "off");
  for (int device = 0; device <= 2; device += 2) {
    bench_open(&t, device);
    ny_cu_address p = (uintptr_t)mine;
    t.param[0] = &p;
    int r = launch(&t, "add");
    CHECK(r == (device ? (int)DRV_ILLEGAL_ADDRESS : 0), "device %d: %s", device, name_of(r));
    if (!r) check_sum(&t, 1.5f);
    if (!device) bench_close(&t, 0);
  }
  OK(cuDevicePrimaryCtxRelease_v2(2));
  nyb_cudasim_set("report", "on");
  free(mine);
}

/* ---- streams */
static void check_events(void) {
  bench t;
  ny_cu_event start, end, plain;
  float ms = -1;
  bench_open(&t, 0);
  OK(cuEventCreate(&start, 0));
  OK(cuEventCreate(&end, 0));
  OK(cuEventCreate(&plain, 2));
  GIVES(DRV_INVALID_HANDLE, cuEventElapsedTime(&ms, start, end));
  OK(cuEventRecord(start, t.stream));
  OK(launch(&t, "add"));
  OK(cuEventRecord(end, t.stream));
  OK(cuEventRecord(plain, t.stream));
  OK(cuEventSynchronize(end));
  OK(cuEventElapsedTime(&ms, start, end));
  CHECK(ms > 0 && ms < 10000, "%g ms", (double)ms);
  GIVES(DRV_INVALID_HANDLE, cuEventElapsedTime(&ms, start, plain));
  OK(cuEventDestroy_v2(start));
  OK(cuEventDestroy_v2(end));
  OK(cuEventDestroy_v2(plain));
  GIVES(DRV_INVALID_HANDLE, cuEventRecord(end, t.stream));
  bench_close(&t, 0);
}

static void count_call(void *user) { ++*(int *)user; }

/* With queue=late a host that does not wait reads what was there before. */
static void check_late(void) {
  bench t;
  float *pinned;
  int calls = 0;
  bench_open(&t, 1);
  OK(cuMemHostAlloc((void **)&pinned, N * 4, 0));
  CHECK(!nyb_cudasim_set("queue", "late") && nyb_cudasim_set("queue", "never"), "options");
  OK(launch(&t, "add"));
  OK(cuMemcpyDtoHAsync_v2(pinned, t.c, N * 4, t.stream));
  OK(cuLaunchHostFunc(t.stream, count_call, &calls));
  CHECK(pinned[10] == 0 && !calls, "nothing was waited for");
  OK(cuStreamSynchronize(t.stream));
  CHECK(pinned[10] == 15 && calls == 1, "%g", (double)pinned[10]);
  OK(cuMemcpyHtoDAsync_v2(t.c, t.host, N * 4, t.stream)); /* from ordinary memory: taken at once */
  memset(t.host, 0, sizeof t.host);
  OK(cuStreamSynchronize(t.stream));
  check_sum(&t, 0.5f);
  nyb_cudasim_set("queue", "now");
  OK(cuMemFreeHost(pinned));
  bench_close(&t, 1);
}

/* ---- graphs */
static void check_capture(void) {
  bench t;
  ny_cu_graph g = NULL, g2 = NULL;
  ny_cu_exec e = NULL;
  ny_cu_node nodes[4];
  ny_cu_kernel_params p;
  ny_cu_update u;
  size_t n = 4;
  int type = -1;
  bench_open(&t, 0);
  OK(cuMemsetD32_v2(t.c, 0, N));
  OK(cuStreamBeginCapture_v2(t.stream, 1));
  GIVES(DRV_INVALID_VALUE, cuStreamBeginCapture_v2(t.stream, 1));
  OK(launch(&t, "add"));
  OK(cuMemcpyDtoDAsync_v2(t.b, t.c, N * 4, t.stream));
  OK(cuStreamEndCapture(t.stream, &g));
  GIVES(DRV_INVALID_VALUE, cuStreamEndCapture(t.stream, &g2));
  check_sum(&t, 0); /* captured, not done */
  OK(cuGraphGetNodes(g, nodes, &n));
  OK(cuGraphNodeGetType(nodes[0], &type));
  CHECK(n == 2 && type == 0, "%zu nodes", n);
  OK(cuGraphInstantiateWithFlags(&e, g, 0));
  OK(cuGraphLaunch(e, t.stream));
  check_sum(&t, 1.5f);
  OK(cuGraphLaunch(e, t.stream)); /* b is now 1.5 a */
  check_sum(&t, 2.5f);
  OK(cuGraphKernelNodeGetParams_v2(nodes[0], &p));
  CHECK(p.grid[0] == 8 && p.block[0] == 128 && *(ny_cu_address *)p.param[1] == t.b, "parameters of a node");
  void *same[] = {&t.a, &t.a, &t.c, &t.n};
  p.param = same;
  OK(cuGraphExecKernelNodeSetParams_v2(e, nodes[0], &p));
  OK(cuGraphLaunch(e, t.stream));
  check_sum(&t, 2);
  OK(cuStreamBeginCapture_v2(t.stream, 1)); /* the same shape with other arguments, then another shape */
  OK(launch(&t, "add"));
  OK(cuMemcpyDtoDAsync_v2(t.a, t.c, N * 4, t.stream));
  OK(cuStreamEndCapture(t.stream, &g2));
  OK(cuGraphExecUpdate_v2(e, g2, &u));
  OK(cuGraphDestroy(g2));
  OK(cuGraphLaunch(e, t.stream)); /* 1 + 2 */
  check_sum(&t, 3);
  OK(cuStreamBeginCapture_v2(t.stream, 1));
  OK(launch(&t, "add"));
  OK(cuStreamEndCapture(t.stream, &g2));
  GIVES(DRV_GRAPH_EXEC_UPDATE_FAILURE, cuGraphExecUpdate_v2(e, g2, &u));
  CHECK(u.result == 2, "topology");
  OK(cuGraphDestroy(g2));
  OK(cuGraphExecDestroy(e));
  GIVES(DRV_INVALID_HANDLE, cuGraphLaunch(e, t.stream));
  OK(cuGraphDestroy(g));
  bench_close(&t, 0);
}

static void check_capture_rules(void) {
  bench t;
  ny_cu_graph g = NULL;
  ny_cu_stream side;
  ny_cu_event fork_event, join;
  ny_cu_address p;
  int status = -1;
  bench_open(&t, 0);
  GIVES(DRV_STREAM_CAPTURE_UNSUPPORTED, cuStreamBeginCapture_v2(NULL, 1));
  OK(cuStreamBeginCapture_v2(t.stream, 0));
  GIVES(DRV_STREAM_CAPTURE_UNSUPPORTED, cuMemAlloc_v2(&p, 16));
  OK(cuStreamIsCapturing(t.stream, &status));
  CHECK(status == 2, "invalidated");
  GIVES(DRV_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(t.stream, &g));
  CHECK(!g, "no graph");
  OK(cuStreamBeginCapture_v2(t.stream, 0));
  GIVES(DRV_STREAM_CAPTURE_UNSUPPORTED, cuStreamSynchronize(t.stream));
  GIVES(DRV_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(t.stream, &g));
  OK(cuStreamCreate(&side, 1)); /* another stream joins by an event, and leaves at the end */
  OK(cuEventCreate(&fork_event, 0));
  OK(cuEventCreate(&join, 0));
  OK(cuStreamBeginCapture_v2(t.stream, 0));
  OK(cuEventRecord(fork_event, t.stream));
  OK(cuStreamWaitEvent(side, fork_event, 0));
  OK(cuStreamIsCapturing(side, &status));
  CHECK(status == 1, "joined");
  OK(cuMemsetD32Async(t.c, 0, N, side));
  GIVES(DRV_STREAM_CAPTURE_UNMATCHED, cuStreamEndCapture(side, &g));
  OK(cuEventRecord(join, side));
  OK(cuStreamWaitEvent(t.stream, join, 0));
  OK(cuStreamEndCapture(t.stream, &g));
  OK(cuStreamIsCapturing(side, &status));
  size_t n = 0;
  OK(cuGraphGetNodes(g, NULL, &n));
  CHECK(status == 0 && n == 1, "%zu nodes", n);
  OK(cuGraphDestroy(g));
  OK(cuEventDestroy_v2(fork_event));
  OK(cuEventDestroy_v2(join));
  OK(cuStreamDestroy_v2(side));
  bench_close(&t, 0);
}

int main(void) {
  check_devices();
  check_names();
  check_table();
  check_memory();
  check_host_memory();
  check_code();
  check_launch();
  check_shared();
  check_findings();
  check_pageable();
  check_events();
  check_late();
  check_capture();
  check_capture_rules();
  CHECK(totals().objects == 0 && totals().allocated == 0, "%llu handles, %llu bytes are left",
        (unsigned long long)totals().objects, (unsigned long long)totals().allocated);
  return test_end("cuda_driver");
}
