/* A launch: its shape is held to what a device accepts, its memory to what is allocated (or to what the caller said the
   kernel may touch), and what the interpreter finds is reported and becomes the status a device would have given. */
#include "driver.h"
#include <stdlib.h>
#include <string.h>

static _Thread_local nyb_cudasim_range *expected;
static _Thread_local unsigned n_expected;
static nyb_cudasim_kernel *kernels;
static unsigned n_kernels, cap_kernels;
static ny_text findings;

/* ---- what the kernel may touch */
int nyb_cudasim_expect(const nyb_cudasim_range *range, unsigned n) {
  free(expected);
  expected = drv_need(malloc(sizeof *range * (n + 1)));
  if (n) memcpy(expected, range, sizeof *range * n);
  n_expected = n;
  return 0;
}

void drv_expect_take(ny_cu_node node) {
  node->range = expected;
  node->n_ranges = n_expected;
  expected = NULL;
  n_expected = 0;
}

static int by_address(const void *a, const void *b) {
  uintptr_t x = (uintptr_t)((const nyb_cudasim_range *)a)->p, y = (uintptr_t)((const nyb_cudasim_range *)b)->p;
  return x < y ? -1 : x > y;
}

/* Buffers may be the same, or views of one another: what overlaps is one range. */
static bool map_expected(ny_cu_node n, ny_sim_memory *m, ny_diag *d) {
  nyb_cudasim_range *r = n->range;
  qsort(r, n->n_ranges, sizeof *r, by_address);
  for (unsigned i = 0; i < n->n_ranges;) {
    uint64_t at = (uint64_t)(uintptr_t)r[i].p, end = at + r[i].bytes;
    for (i++; i < n->n_ranges && (uint64_t)(uintptr_t)r[i].p < end; i++) {
      uint64_t e = (uint64_t)(uintptr_t)r[i].p + r[i].bytes;
      if (e > end) end = e;
    }
    if (end == at) continue;
    bool there =
        drv_memory_holds(at, end - at) || (!drv_memory_find(at) && drv_follows_any_pointer(n->o.context->device));
    if (!there) {
      ny_fail(d, NYB_E_DEVICE, NULL, "a buffer of %llu bytes at 0x%llx is not memory the device has",
              (unsigned long long)(end - at), (unsigned long long)at);
      return false;
    }
    if (ny_sim_map(m, (void *)(uintptr_t)at, end - at, "buffer", false, d)) return false;
  }
  return true;
}

static bool map_all(ny_sim_memory *m, ny_diag *d) {
  static const char *const name[] = {"device memory", "pinned memory", "managed memory", "registered memory"};
  drv_memory a;
  for (size_t i = 0; drv_memory_at(i, &a); i++)
    if (ny_sim_map(m, (void *)(uintptr_t)a.at, a.bytes, name[a.kind], false, d)) return false;
  return true;
}

/* The mapping of the process that holds p, cut at allocations of ours. */
static bool find_mapping(uint64_t p, uint64_t *begin, uint64_t *end) {
  FILE *f = fopen("/proc/self/maps", "re");
  char line[512], mode[8];
  unsigned long long a, b;
  bool found = false;
  while (f && !found && fgets(line, sizeof line, f))
    found = sscanf(line, "%llx-%llx %7s", &a, &b, mode) == 3 && p >= a && p < b && mode[0] == 'r';
  if (f) fclose(f);
  *begin = a;
  *end = b;
  return found;
}

/* Where the device follows any pointer, an argument that points into memory of the process brings its mapping along. */
static void map_pageable(ny_cu_node n, ny_sim_memory *m) {
  const ny_sim_kernel_info *k = n->function->info;
  for (uint32_t i = 0; i < k->n_params; i++) {
    uint64_t p, a, b;
    ny_sim_range known;
    ny_diag ignored = {0};
    if (k->param[i].bytes != 8) continue;
    memcpy(&p, n->param + k->param[i].offset, 8);
    if (p < 4096 || ny_sim_find(m, (void *)(uintptr_t)p, &known) || !find_mapping(p, &a, &b)) continue;
    if (ny_sim_map(m, (void *)(uintptr_t)a, b - a, "host memory", false, &ignored))
      ny_sim_map(m, (void *)(uintptr_t)p, b - p, "host memory", false, &ignored);
  }
}

/* ---- what came of it */
static nyb_cudasim_kernel *stats_of(const char *name) {
  for (unsigned i = 0; i < n_kernels; i++)
    if (!strcmp(kernels[i].name, name)) return &kernels[i];
  if (n_kernels == cap_kernels) {
    cap_kernels = cap_kernels ? 2 * cap_kernels : 64;
    kernels = drv_need(realloc(kernels, cap_kernels * sizeof *kernels));
  }
  kernels[n_kernels] = (nyb_cudasim_kernel){.name = drv_need(strdup(name))};
  return &kernels[n_kernels++];
}

/* Every counter is a uint64_t. */
static void add_counters(ny_sim_counters *to, const ny_sim_counters *from) {
  uint64_t a[sizeof *to / 8], b[sizeof *to / 8];
  _Static_assert(sizeof a == sizeof *to, "");
  memcpy(a, to, sizeof a);
  memcpy(b, from, sizeof b);
  for (size_t i = 0; i < NY_COUNT(a); i++) a[i] += b[i];
  memcpy(to, a, sizeof a);
}

static void report(const char *text) {
  if (findings.n < (size_t)4 << 20) ny_text_add(&findings, text);
  if (!drv_opt.quiet) fputs(text, stderr);
}

static ny_cu_result status_of(const ny_sim_result *r) {
  ny_cu_result worst = DRV_LAUNCH_FAILED;
  for (uint32_t i = 0; i < r->n_findings; i++) {
    if (r->finding[i].kind == NY_FIND_bounds) return DRV_ILLEGAL_ADDRESS;
    if (r->finding[i].kind == NY_FIND_misaligned) worst = DRV_MISALIGNED_ADDRESS;
    if (r->finding[i].kind == NY_FIND_limit) worst = DRV_LAUNCH_TIMEOUT;
  }
  return worst;
}

static void print_findings(const ny_sim_result *r) {
  ny_text t = {0};
  for (uint32_t i = 0; i < r->n_findings; i++) ny_sim_print_finding(&r->finding[i], &t);
  if (t.n) report(t.s);
  ny_text_free(&t);
}

static ny_cu_result run(ny_cu_node n, ny_sim_memory *m, ny_diag *d) {
  ny_sim_launch l = {.module = n->function->module->sim,
                     .kernel = n->function->index,
                     .dynamic_shared = n->shared,
                     .params = n->param,
                     .memory = m,
                     .options = drv_opt.sim};
  memcpy(l.grid, n->grid, sizeof l.grid);
  memcpy(l.block, n->block, sizeof l.block);
  ny_sim_result r = {0};
  nyb_status s = ny_sim_run(&l, &r, d);
  nyb_cudasim_kernel *k = stats_of(n->function->info->name);
  k->launches++;
  k->findings += r.n_findings;
  k->seconds += r.seconds;
  add_counters(&k->counters, &r.counters);
  drv_total.launches++;
  drv_total.findings += r.n_findings;
  print_findings(&r);
  ny_cu_result e = r.n_findings             ? status_of(&r)
                   : !s                     ? DRV_SUCCESS
                   : s == NYB_E_ARGUMENT    ? DRV_INVALID_VALUE
                   : s == NYB_E_UNSUPPORTED ? DRV_NOT_SUPPORTED
                                            : DRV_LAUNCH_FAILED;
  ny_sim_result_free(&r);
  return e;
}

ny_cu_result drv_launch_run(ny_cu_node n) {
  ny_diag d = {0};
  ny_cu_result r = DRV_ILLEGAL_ADDRESS;
  ny_sim_memory *m = ny_sim_memory_new();
  if (n->range ? map_expected(n, m, &d) : map_all(m, &d)) {
    if (!n->range && drv_follows_any_pointer(n->o.context->device)) map_pageable(n, m);
    r = run(n, m, &d);
  }
  ny_sim_memory_free(m);
  if (d.code) {
    char line[1200];
    snprintf(line, sizeof line, "error: kernel %s: %s\n", n->function->info->name, d.message);
    drv_total.findings += r == DRV_ILLEGAL_ADDRESS;
    report(line);
  }
  return r;
}

/* ---- shape and arguments */
static ny_cu_result check_shape(const ny_cu_kernel_params *p, const struct CUfunc_st *f, int device) {
  uint64_t threads = 1;
  for (int i = 0; i < 3; i++) {
    if (!p->grid[i] || !p->block[i]) return DRV_INVALID_VALUE;
    if (p->grid[i] > (unsigned)drv_attribute_of(device, 5 + i)) return DRV_INVALID_VALUE;
    if (p->block[i] > (unsigned)drv_attribute_of(device, 2 + i)) return DRV_INVALID_VALUE;
    threads *= p->block[i];
  }
  int most = 0;
  cuFuncGetAttribute(&most, NY_CU_FUNCTION_MAX_THREADS, (ny_cu_function)(uintptr_t)f);
  if (threads > DRV_MAX_THREADS || threads > (uint64_t)most) return DRV_INVALID_VALUE;
  int allowed = f->dynamic ? f->dynamic : DRV_PLAIN_SHARED - (int)f->info->static_shared;
  if (allowed >= 0 && p->shared <= (unsigned)allowed) return DRV_SUCCESS;
  if (!drv_opt.quiet)
    fprintf(
        stderr,
        "libnyb_cudasim: error: kernel %s: %u bytes of dynamic shared memory, %d are allowed (cuFuncSetAttribute)\n",
        f->info->name, p->shared, allowed);
  return DRV_INVALID_VALUE;
}

/* CU_LAUNCH_PARAM_BUFFER_POINTER, its address, CU_LAUNCH_PARAM_BUFFER_SIZE, pointer to the size, CU_LAUNCH_PARAM_END.
 */
static const void *packed_block(void **extra, size_t *bytes) {
  const void *p = NULL;
  *bytes = 0;
  for (; extra && *extra; extra += 2) {
    if (*extra == (void *)1) p = extra[1];
    if (*extra == (void *)2) *bytes = *(const size_t *)extra[1];
  }
  return p;
}

ny_cu_result drv_launch_fill(ny_cu_node n, const ny_cu_kernel_params *p) {
  ny_cu_function f = p->function ? p->function : p->kernel;
  DRV_CHECK(f, DRV_FUNCTION);
  const ny_sim_kernel_info *k = f->info;
  size_t bytes;
  const void *block = packed_block(p->extra, &bytes);
  ny_cu_result r = check_shape(p, f, n->o.context->device);
  if (r) return r;
  if (k->n_params && !p->param && (!block || bytes < k->param_bytes)) return DRV_INVALID_VALUE;
  if (p->param && p->extra) return DRV_INVALID_VALUE;
  n->function = f;
  n->shared = p->shared;
  memcpy(n->grid, p->grid, sizeof n->grid);
  memcpy(n->block, p->block, sizeof n->block);
  n->param = drv_need(calloc(1, k->param_bytes + 1u));
  n->pointers = drv_need(calloc(k->n_params + 1, sizeof *n->pointers));
  for (uint32_t i = 0; i < k->n_params; i++) {
    n->pointers[i] = n->param + k->param[i].offset;
    if (p->param) memcpy(n->pointers[i], p->param[i], k->param[i].bytes);
  }
  if (block) memcpy(n->param, block, k->param_bytes);
  return DRV_SUCCESS;
}

static ny_cu_result launch(ny_cu_context cx, const ny_cu_kernel_params *p, ny_cu_stream stream) {
  if (!drv_stream_ok(stream)) return DRV_INVALID_HANDLE;
  ny_cu_node n = drv_node_new(DRV_LAUNCH, cx);
  drv_expect_take(n);
  ny_cu_result r = drv_launch_fill(n, p);
  if (!r) return drv_submit(stream, n, cx);
  drv_node_free(n);
  return r;
}

ny_cu_result cuLaunchKernel(ny_cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                            unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared, ny_cu_stream stream,
                            void **param, void **extra) {
  DRV_ENTER;
  ny_cu_kernel_params p = {.function = function,
                           .grid = {grid_x, grid_y, grid_z},
                           .block = {block_x, block_y, block_z},
                           .shared = shared,
                           .param = param,
                           .extra = extra};
  return launch(cx, &p, stream);
}

/* Attributes are hints here (programmatic launches, priorities), except those that change what a kernel means. */
ny_cu_result cuLaunchKernelEx(const ny_cu_launch_config *c, ny_cu_function function, void **param, void **extra) {
  DRV_ENTER;
  if (!c || (c->n_attributes && !c->attribute)) return DRV_INVALID_VALUE;
  for (unsigned i = 0; i < c->n_attributes; i++) { /* CUlaunchAttribute: id, padding to 8, 64 bytes of value */
    int id;
    unsigned cluster[3];
    memcpy(&id, (const char *)c->attribute + 72u * i, sizeof id);
    memcpy(cluster, (const char *)c->attribute + 72u * i + 8, sizeof cluster);
    if (id == 2) return DRV_NOT_SUPPORTED; /* cooperative */
    if (id == 4 && cluster[0] * cluster[1] * cluster[2] > 1) return DRV_NOT_SUPPORTED;
  }
  ny_cu_kernel_params p = {.function = function, .shared = c->shared, .param = param, .extra = extra};
  memcpy(p.grid, c->grid, sizeof p.grid);
  memcpy(p.block, c->block, sizeof p.block);
  return launch(cx, &p, c->stream);
}

/* ---- for tests and tools */
unsigned nyb_cudasim_kernels(const nyb_cudasim_kernel **out) {
  DRV_HOLD;
  *out = kernels;
  return n_kernels;
}

size_t nyb_cudasim_findings(char *text, size_t room) {
  DRV_HOLD;
  if (text && room) snprintf(text, room, "%s", findings.s ? findings.s : "");
  return findings.n;
}

void nyb_cudasim_reset(void) {
  DRV_HOLD;
  for (unsigned i = 0; i < n_kernels; i++) free((void *)(uintptr_t)kernels[i].name);
  n_kernels = 0;
  ny_text_free(&findings);
  drv_total = (nyb_cudasim_totals){
      .allocated = drv_total.allocated, .most_allocated = drv_total.allocated, .objects = drv_total.objects};
}
