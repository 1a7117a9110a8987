/* nybble sim: somebody's own CUDA kernel, compiled by NVRTC and run on the simulated device under every check, in
   several orders of its warps. What the orders disagree about is reported like any other finding. */
#include "sim.h"
#include "cuda_code.h"
#include "launch_file.h"
#include "verbs.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_OPTIONS = 24, MAX_FINDINGS = 64 };
typedef struct sim_run {
  const char *path, *arch;
  cli_pairs defines;
  const char *include;
  cli_launch launch;
  ny_nvrtc_result made; /* of a .cu; empty for PTX text */
  ny_arena arena;
  ny_sim_module *module;
  const ny_sim_kernel_info *kernel;
  int index;
  ny_sim_memory *memory;
  ny_sim_counters counters;             /* of one order */
  ny_sim_finding finding[MAX_FINDINGS]; /* of all, each once */
  uint32_t n_findings;
  uint64_t *digest; /* of every array after the first order */
  int n_orders, n_differ, limit;
  double seconds;
} sim_run;

/* ---- code */
static nyb_status compile(sim_run *s, const char *text, ny_diag *d) {
  const char *option[MAX_OPTIONS] = {"-lineinfo", "--std=c++17"};
  int n = 2;
  const char *slash = strrchr(s->path, '/');
  option[n++] = slash ? ny_strf(&s->arena, "-I%.*s", (int)(slash - s->path), s->path) : "-I.";
  if (s->include) option[n++] = ny_strf(&s->arena, "-I%s", s->include);
  for (size_t i = 0; i < s->defines.n; i++) {
    if (n == MAX_OPTIONS) return ny_fail(d, NYB_E_ARGUMENT, NULL, "more than %d definitions", MAX_OPTIONS - 4);
    option[n++] = ny_strf(&s->arena, "-D%s=%s", s->defines.name[i], s->defines.value[i]);
  }
  return ny_nvrtc_compile(text, slash ? slash + 1 : s->path, s->arch, option, n, &s->made, d);
}

/* The kernel of that name, or the only one whose C++ name is made of it: _Z<length><name><parameters>. */
static int find_kernel(const sim_run *s, const char *name) {
  int found = ny_sim_kernel_index(s->module, name), n = ny_sim_kernel_count(s->module), hits = 0;
  char mangled[300];
  if (found >= 0 || snprintf(mangled, sizeof mangled, "_Z%zu%s", strlen(name), name) >= (int)sizeof mangled)
    return found;
  for (int i = 0; i < n; i++)
    if (!strncmp(ny_sim_kernel(s->module, i)->name, mangled, strlen(mangled))) found = i, hits++;
  return hits == 1 ? found : -1;
}

static nyb_status load(sim_run *s, ny_diag *d) {
  char *text;
  size_t n;
  NY_TRY(ny_file_read(&s->arena, s->path, 64 << 20, &text, &n, d));
  if (!ny_ends_with(s->path, ".ptx")) {
    NY_TRY(compile(s, text, d));
    text = s->made.ptx;
    n = s->made.ptx_bytes;
  }
  NY_TRY(ny_sim_load(text, n, s->path, &s->module, d));
  int count = ny_sim_kernel_count(s->module);
  const char *name = s->launch.kernel;
  if (!count) return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s has no kernel", s->path);
  if (!name && count > 1)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s has %d kernels: name one with a line `kernel NAME`", s->path, count);
  s->index = name ? find_kernel(s, name) : 0;
  if (s->index < 0)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s has no kernel %s; extern \"C\" gives a C++ kernel a name to call it by",
                   s->path, name);
  s->kernel = ny_sim_kernel(s->module, s->index);
  return NYB_OK;
}

/* ---- arguments */
static nyb_status pack(const sim_run *s, uint8_t *block, ny_diag *d) {
  const cli_launch *l = &s->launch;
  if (s->kernel->n_params != l->n_arg)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s takes %u arguments, %s gives %u", s->kernel->name, s->kernel->n_params,
                   l->path, l->n_arg);
  for (uint32_t i = 0; i < l->n_arg; i++) {
    const ny_sim_param *p = &s->kernel->param[i];
    const cli_launch_arg *a = &l->arg[i];
    bool value = a->kind == CLI_ARG_VALUE;
    uint32_t bytes = value ? ny_fmts[a->fmt].bits / 8u : 8;
    if (p->bytes != bytes)
      return ny_fail(d, NYB_E_ARGUMENT, NULL, "argument %u of %s has %u bytes, %s gives %u", i, s->kernel->name,
                     p->bytes, l->path, bytes);
    memcpy(block + p->offset, value ? (const void *)a->value : (const void *)&l->arg[a->same].now.memory, bytes);
  }
  return NYB_OK;
}

/* Kernels of models may read up to the next multiple of 4 bytes; anyone else's are held to their arrays. */
static nyb_status map_arrays(const sim_run *s, ny_diag *d) {
  for (uint32_t i = 0; i < s->launch.n_arg; i++) {
    const cli_launch_arg *a = &s->launch.arg[i];
    uint64_t bytes = cli_arg_has_array(a) ? cli_tensor_bytes(&a->now.t) : 0;
    if (s->launch.points) bytes = (bytes + 3) & ~(uint64_t)3;
    if (bytes) NY_TRY(ny_sim_map(s->memory, a->now.memory, bytes, a->name, a->kind == CLI_ARG_IN, d));
  }
  return NYB_OK;
}

/* ---- running */
static uint64_t digest_of(const cli_launch_arg *a) {
  uint8_t out[32];
  uint64_t v;
  ny_sha256 h;
  ny_sha256_init(&h);
  ny_sha256_add(&h, a->now.memory, cli_tensor_bytes(&a->now.t));
  ny_sha256_end(&h, out);
  memcpy(&v, out, sizeof v);
  return v;
}

static const char *order_name(int order) { return order == 0 ? "forward" : order == 1 ? "reverse" : "random"; }

/* Results of the order that runs first are kept; later ones are compared with them bit by bit. */
static void compare(sim_run *s, int order) {
  bool first = order == s->n_orders - 1;
  for (uint32_t i = 0; i < s->launch.n_arg; i++) {
    const cli_launch_arg *a = &s->launch.arg[i];
    if (!cli_arg_is_result(a)) continue;
    uint64_t v = digest_of(a);
    if (first) s->digest[i] = v;
    if (s->digest[i] == v) continue;
    s->n_differ++;
    cli_fail("%s depends on the order in which warps run: %s and %s differ", a->name, order_name(s->n_orders - 1),
             order_name(order));
  }
}

static bool same_site(const ny_sim_site *a, const ny_sim_site *b) {
  if (a->known != b->known) return false;
  bool lines = a->file && b->file && a->line && b->line;
  return lines ? a->line == b->line && !strcmp(a->file, b->file) : a->ptx_line == b->ptx_line;
}

/* The same pair of lines is one finding, however often it was unrolled, however many orders show it, and whichever of
   the two came first. */
static void keep(sim_run *s, const ny_sim_finding *f) {
  for (uint32_t i = 0; i < s->n_findings; i++) {
    ny_sim_finding *g = &s->finding[i];
    bool straight = same_site(&f->at, &g->at) && same_site(&f->other, &g->other);
    bool crossed = same_site(&f->at, &g->other) && same_site(&f->other, &g->at);
    bool verb = !strncmp(f->text, g->text, strcspn(f->text, " ")); /* a read, a write: two things that are wrong */
    if (f->kind != g->kind || !verb || (!straight && !crossed)) continue;
    g->count += f->count;
    return;
  }
  if (s->n_findings < MAX_FINDINGS) s->finding[s->n_findings++] = *f;
}

static void no_print(void *user, const char *text, size_t n) { (void)user, (void)text, (void)n; }

static nyb_status run_order(sim_run *s, int order, uint64_t seed, const uint8_t *block, ny_diag *d) {
  ny_sim_launch l = {.module = s->module,
                     .kernel = s->index,
                     .dynamic_shared = s->launch.shared,
                     .params = block,
                     .memory = s->memory,
                     .options = {.order = order == 0   ? NY_SIM_FORWARD
                                          : order == 1 ? NY_SIM_REVERSE
                                                       : NY_SIM_RANDOM,
                                 .seed = seed + (uint64_t)order,
                                 .checks = NY_SIM_ALL,
                                 .max_warp_ins = (uint64_t)s->limit * 1000000,
                                 .late_copies = order % 2,
                                 .print = order ? no_print : NULL}};
  memcpy(l.grid, s->launch.grid, sizeof l.grid);
  memcpy(l.block, s->launch.block, sizeof l.block);
  ny_sim_result r = {0};
  cli_launch_reset(&s->launch);
  nyb_status e = ny_sim_run(&l, &r, d);
  for (uint32_t i = 0; i < r.n_findings; i++) keep(s, &r.finding[i]);
  s->counters = r.counters;
  s->seconds += r.seconds;
  ny_sim_result_free(&r);
  return e;
}

/* Forward comes last: its results, counters and prints are those that are shown. */
static nyb_status run_orders(sim_run *s, uint64_t seed, ny_diag *d) {
  uint8_t *block = ny_alloc(&s->arena, s->kernel->param_bytes + 8u);
  NY_TRY(pack(s, block, d));
  NY_TRY(map_arrays(s, d));
  s->digest = NY_NEW_ARRAY(&s->arena, uint64_t, s->launch.n_arg + 1);
  for (int order = s->n_orders; order-- > 0;) {
    nyb_status e = run_order(s, order, seed, block, d);
    if (e && e != NYB_E_DEVICE) return e;
    if (!s->n_findings) compare(s, order);
  }
  return NYB_OK;
}

/* ---- report */
/* Sources are known to NVRTC as /nybble/NAME, so that what it makes does not depend on where they lie. */
static const char *real_file(const char *file) {
  static const char prefix[] = "/nybble/";
  return file && !strncmp(file, prefix, sizeof prefix - 1) ? file + sizeof prefix - 1 : file;
}

static void print_findings(sim_run *s) {
  ny_text t = {0};
  for (uint32_t i = 0; i < s->n_findings; i++) {
    s->finding[i].at.file = real_file(s->finding[i].at.file);
    s->finding[i].other.file = real_file(s->finding[i].other.file);
    ny_sim_print_finding(&s->finding[i], &t);
  }
  if (t.s) fputs(t.s, stdout);
  ny_text_free(&t);
}

static double ratio(uint64_t a, uint64_t b) { return b ? (double)a / (double)b : 0; }
typedef unsigned long long ull;

static void print_counters(const ny_sim_counters *c) {
  printf("%-28s %14s %14s\n", "instructions", "warps", "threads");
  for (int i = 0; i < NY_N_CLS; i++)
    if (c->warp_ins[i])
      printf("  %-26s %14llu %14llu\n", ny_sim_class_text((ny_sim_class)i), (ull)c->warp_ins[i], (ull)c->thread_ins[i]);
  printf("shared memory   %llu accesses, %llu wavefronts (%.2f each; 1 for 128 bytes is without bank conflicts)\n",
         (ull)c->shared_ops, (ull)c->shared_waves, ratio(c->shared_waves, c->shared_ops));
  printf("global memory   %llu accesses, %llu sectors of 32 bytes (%.2f each), %.0f %% of their bytes asked for\n",
         (ull)c->global_ops, (ull)c->global_sectors, ratio(c->global_sectors, c->global_ops),
         100 * ratio(c->global_read_bytes + c->global_write_bytes, 32 * c->global_sectors));
  printf("blocks %llu, warps %llu, block barriers %llu\n", (ull)c->blocks, (ull)c->warps, (ull)c->barriers);
}

static void json_site(const char *name, const ny_sim_site *s, ny_text *t) {
  ny_text_addf(t, ",\"%s\":{\"file\":", name);
  ny_text_json(t, s->file ? real_file(s->file) : "");
  ny_text_addf(t, ",\"line\":%d,\"ptx_line\":%d,\"block\":[%u,%u,%u],\"thread\":[%u,%u,%u]}", s->line, s->ptx_line,
               s->block[0], s->block[1], s->block[2], s->thread[0], s->thread[1], s->thread[2]);
}

static void json_finding(const ny_sim_finding *f, ny_text *t) {
  ny_text_add(t, "{\"kind\":");
  ny_text_json(t, ny_sim_finding_text(f->kind));
  ny_text_add(t, ",\"text\":");
  ny_text_json(t, f->text);
  json_site("at", &f->at, t);
  if (f->other.known) json_site("other", &f->other, t);
  ny_text_addf(t, ",\"count\":%llu}", (ull)f->count);
}

static void print_json(const sim_run *s) {
  const ny_sim_counters *c = &s->counters;
  ny_text t = {0};
  ny_text_addf(&t, "{\"orders\":%d,\"differ\":%d,\"seconds\":%.6f,\"findings\":[", s->n_orders, s->n_differ,
               s->seconds);
  for (uint32_t i = 0; i < s->n_findings; i++) {
    if (i) ny_text_add(&t, ",");
    json_finding(&s->finding[i], &t);
  }
  ny_text_add(&t, "],\"instructions\":{");
  for (int i = 0; i < NY_N_CLS; i++)
    ny_text_addf(&t, "%s\"%s\":%llu", i ? "," : "", ny_sim_class_text((ny_sim_class)i), (ull)c->warp_ins[i]);
  ny_text_addf(&t,
               "},\"shared_accesses\":%llu,\"shared_wavefronts\":%llu,\"global_accesses\":%llu,\"global_sectors\":%llu,"
               "\"barriers\":%llu,\"results\":[",
               (ull)c->shared_ops, (ull)c->shared_waves, (ull)c->global_ops, (ull)c->global_sectors, (ull)c->barriers);
  const char *comma = "";
  for (uint32_t i = 0; i < s->launch.n_arg; i++) {
    const cli_launch_arg *a = &s->launch.arg[i];
    if (!a->expect.memory) continue;
    ny_text_addf(&t, "%s{\"name\":", comma);
    ny_text_json(&t, a->name);
    double e = cli_launch_error(a);
    isfinite(e) ? ny_text_addf(&t, ",\"error\":%.6g}", e) : ny_text_add(&t, ",\"error\":null}");
    comma = ",";
  }
  ny_text_add(&t, "]}");
  puts(t.s);
  ny_text_free(&t);
}

/* ---- results */
static int write_result(const cli_launch_arg *a, const char *dir) {
  const char *slash = strrchr(a->name, '/');
  char path[4096];
  ny_diag d = {0};
  if (snprintf(path, sizeof path, "%s/%s", dir, slash ? slash + 1 : a->name) >= (int)sizeof path)
    return cli_fail("%s: the path is too long", dir);
  return cli_npy_write(path, &a->now.t, &d) ? cli_diag(&d) : CLI_OK;
}

static int results(const sim_run *s, const char *dir, bool quiet) {
  int bad = CLI_OK;
  if (dir && mkdir(dir, 0777) && errno != EEXIST) return cli_fail("%s: cannot create it: %s", dir, strerror(errno));
  for (uint32_t i = 0; i < s->launch.n_arg; i++) {
    const cli_launch_arg *a = &s->launch.arg[i];
    double e = a->expect.memory ? cli_launch_error(a) : 0;
    if (!(e <= a->tolerance))
      bad = cli_fail("%s: relative error %.3g, at most %.3g is expected", a->name, e, a->tolerance);
    else if (!quiet && a->expect.memory)
      printf("%s: relative error %.3g\n", a->name, e);
    if (dir && cli_arg_is_result(a) && write_result(a, dir)) bad = CLI_FAILED;
  }
  return bad;
}

static int report(sim_run *s, const char *dir, bool json) {
  if (json)
    print_json(s);
  else
    print_findings(s);
  int bad = results(s, dir, json);
  if (!json) {
    print_counters(&s->counters);
    printf("%u findings in %d orders, %.3f s\n", s->n_findings + (uint32_t)s->n_differ, s->n_orders, s->seconds);
  }
  return bad || s->n_findings || s->n_differ ? CLI_FAILED : CLI_OK;
}

static void close_run(sim_run *s) {
  ny_sim_unload(s->module);
  ny_sim_memory_free(s->memory);
  ny_nvrtc_free(&s->made);
  cli_launch_free(&s->launch);
  ny_arena_free(&s->arena);
  free(s);
}

int verb_sim(int argc, char **argv) {
  sim_run *s = calloc(1, sizeof *s);
  if (!s) return cli_fail("out of memory");
  const char *file[2], *dir = NULL;
  int json = 0, seed = 0;
  s->arch = "compute_90";
  s->n_orders = 3;
  s->limit = 1000;
  const cli_option opt[] = {
      {"--arch", CLI_STRING, &s->arch, "ARCH", "for NVRTC: compute_90 (default), compute_120f, ..."},
      {"--define", CLI_PAIR, &s->defines, "NAME=V", "a macro, for NVRTC"},
      {"--include", CLI_STRING, &s->include, "DIR", "where headers lie, beside the kernel's own folder"},
      {"--orders", CLI_COUNT, &s->n_orders, "N", "forward, reverse, then random orders of warps (default 3)"},
      {"--seed", CLI_COUNT, &seed, "N", "of the random orders"},
      {"--limit", CLI_COUNT, &s->limit, "N", "stop after N million instructions of warps (default 1000)"},
      {"--output-dir", CLI_STRING, &dir, "DIR", "write the results as .npy"},
      {"--json", CLI_FLAG, &json, NULL, "findings and counters as JSON"}};
  if (cli_parse("sim", opt, NY_COUNT(opt), argc, argv, file, 1, 2) != 2)
    cli_usage("sim", "wants a kernel and its launch description");
  if (s->n_orders < 1 || s->limit < 1) cli_usage("sim", "--orders and --limit start at 1");
  ny_diag d = {0};
  s->path = file[0];
  s->memory = ny_sim_memory_new();
  nyb_status r = cli_launch_read(file[1], &s->launch, &d);
  if (!r) r = load(s, &d);
  if (!r) r = run_orders(s, (uint64_t)seed, &d);
  int bad = r ? cli_diag(&d) : report(s, dir, json);
  close_run(s);
  return bad;
}
