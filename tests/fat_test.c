/* Modules with several programs: what is written is read back, what a hostile file may say is refused, and which
   program and image a device gets, as a table. No device is needed. */
#include "module_fixture.h"
#include "plan.h"
#include "test.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64] = "/tmp/nybble-fat-XXXXXX", path[96];
static nyb_context *cx;

/* ---- architectures */
static void check_parse(void) {
  static const struct {
    const char *s;
    uint32_t sm;
    char suffix;
    bool real;
  } good[] = {{"sm_80", 80, 0, true},
              {"sm_90a", 90, 'a', true},
              {"sm_120f", 120, 'f', true},
              {"compute_80", 80, 0, false},
              {"compute_121a", 121, 'a', false}};
  for (size_t i = 0; i < NY_COUNT(good); i++) {
    ny_cuda_arch a;
    CHECK(ny_cuda_arch_parse(good[i].s, &a) && a.sm == good[i].sm && a.suffix == good[i].suffix &&
              a.real == good[i].real,
          "%s", good[i].s);
  }
  static const char *const bad[] = {"",      "sm_",      "sm_8",      "sm80",     "sm_80b", "sm_80aa", "sm_80 ",
                                    "SM_80", "compute_", "compute_x", "sm_99999", "sm_-80", "lto_80"};
  for (size_t i = 0; i < NY_COUNT(bad); i++) {
    ny_cuda_arch a;
    CHECK(!ny_cuda_arch_parse(bad[i], &a), "\"%s\" is no architecture", bad[i]);
  }
}

/* The first of `better` that runs beats the later ones; none of `never` runs. */
static void check_fit(void) {
  static const struct {
    uint32_t sm;
    const char *better[6], *never[6];
  } row[] = {
      {80, {"sm_80", "compute_80"}, {"sm_86", "compute_86", "sm_90", "compute_90a"}},
      {86, {"sm_86", "sm_80", "compute_86", "compute_80"}, {"sm_89", "sm_90a"}},
      {89, {"sm_89", "sm_86", "sm_80", "compute_89", "compute_80"}, {"sm_90", "compute_90"}},
      {90,
       {"sm_90a", "sm_90", "compute_90a", "compute_90", "compute_80"},
       {"sm_80", "sm_89", "sm_100f", "compute_100"}},
      {100,
       {"sm_100a", "sm_100f", "compute_100f", "compute_100", "compute_90"},
       {"sm_90a", "sm_90", "compute_90a", "sm_120f"}},
      {103, {"sm_103a", "sm_100f", "compute_100f", "compute_100"}, {"sm_100a", "compute_100a", "sm_120f", "sm_90a"}},
      {120,
       {"sm_120a", "sm_120f", "compute_120f", "compute_120", "compute_80"},
       {"sm_121f", "sm_121a", "sm_100f", "sm_90"}},
      {121,
       {"sm_121a", "sm_121f", "sm_120f", "compute_121f", "compute_120f", "compute_120"},
       {"sm_120a", "compute_120a", "sm_100f"}},
      {130, {"compute_120", "compute_80"}, {"sm_120f", "sm_80", "compute_120f", "compute_90a"}},
  };
  for (size_t i = 0; i < NY_COUNT(row); i++) {
    int before = INT32_MAX;
    ny_cuda_arch a;
    for (int k = 0; k < 6 && row[i].better[k]; k++) {
      int fit = ny_cuda_arch_parse(row[i].better[k], &a) ? ny_cuda_arch_fit(&a, row[i].sm) : 0;
      CHECK(fit > 0 && fit < before, "%u: %s has %d after %d", row[i].sm, row[i].better[k], fit, before);
      before = fit;
    }
    for (int k = 0; k < 6 && row[i].never[k]; k++)
      CHECK(ny_cuda_arch_parse(row[i].never[k], &a) && !ny_cuda_arch_fit(&a, row[i].sm), "%u: %s", row[i].sm,
            row[i].never[k]);
  }
}

/* ---- a choice among programs */
typedef struct fat { /* up to 6 programs of one kernel each */
  struct nyb_module m;
  ny_mod program[6];
  ny_mod_image image[6][3];
  ny_mod_kernel kernel[6];
  const char *feature[6][1];
} fat;

/* "sm_80:cubin+ptx,sm_90a:cubin,x86-64-v3" */
static void make(fat *f, const char *spec) {
  char text[256], *save = NULL;
  snprintf(text, sizeof text, "%s", spec);
  memset(f, 0, sizeof *f);
  f->m.program = f->program;
  for (char *s = strtok_r(text, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
    uint32_t i = f->m.n_programs++;
    ny_mod *q = &f->program[i];
    ny_arena *a = &f->m.arena;
    char *colon = strchr(s, ':'), *name = ny_strndup(a, s, colon ? (size_t)(colon - s) : strlen(s));
    ny_cuda_arch arch;
    q->target = name;
    q->kernel = &f->kernel[i];
    q->n_kernels = 1;
    if (!ny_cuda_arch_parse(name, &arch)) {
      q->arch = strncmp(name, "aarch64", 7) ? "x86_64" : "aarch64";
      f->feature[i][0] = strncmp(name, "host", 4) ? name : "x86-64";
      q->feature = f->feature[i];
      q->n_features = 1;
      continue;
    }
    q->sm = arch.sm;
    q->arch = "nvptx64";
    q->image = f->image[i];
    q->n_units = 1;
    if (colon && strstr(colon, "cubin")) q->image[q->n_images++] = (ny_mod_image){.kind = NY_MI_CUBIN, .arch = name};
    const char *ptx = colon ? strstr(colon, "ptx") : NULL;
    if (ptx)
      q->image[q->n_images++] = (ny_mod_image){
          .kind = NY_MI_PTX, .arch = ny_strf(a, "compute_%s", ptx[3] == '=' ? ptx + 4 : name + 3)};
    q->image[q->n_images++] = (ny_mod_image){.kind = NY_MI_SOURCE, .arch = "compute_80"};
  }
}

static void check_choice(const char *spec, uint32_t sm, bool cubin, const char *target, const char *arch) {
  fat f;
  make(&f, spec);
  ny_device_needs needs = {.sm = sm, .cubin = cubin, .ptx = true, .shared = 100 << 10, .name = "Device X"};
  ny_diag d = {0};
  nyb_status s = ny_module_select(&f.m, &needs, &d);
  if (!target) {
    CHECK(s == NYB_E_TARGET && strstr(d.message, f.program[0].target) && strstr(d.message, "Device X"),
          "%s on %u: %d %s", spec, sm, (int)s, d.message);
  } else {
    CHECK(!s && !strcmp(f.m.mod.target, target), "%s on %u: %s", spec, sm, s ? d.message : f.m.mod.target);
    if (!s && arch)
      CHECK(!strcmp(f.m.mod.image[f.m.image[0]].arch, arch) && strstr(f.m.why, arch), "%s on %u: %s", spec, sm,
            f.m.why);
  }
  ny_arena_free(&f.m.arena);
}

static void check_choices(void) {
  static const char all[] = "x86-64-v3,sm_80:cubin+ptx,sm_90a:cubin+ptx,sm_100f:cubin+ptx,sm_120f:cubin+ptx=120";
  static const struct {
    const char *spec;
    uint32_t sm;
    bool cubin;
    const char *target, *arch;
  } row[] = {
      {all, 80, true, "sm_80", "sm_80"},          {all, 86, true, "sm_80", "sm_80"},
      {all, 90, true, "sm_90a", "sm_90a"},        {all, 90, false, "sm_90a", "compute_90a"},
      {all, 100, true, "sm_100f", "sm_100f"},     {all, 103, true, "sm_100f", "sm_100f"},
      {all, 110, true, "sm_80", "compute_80"},    {all, 120, true, "sm_120f", "sm_120f"},
      {all, 121, true, "sm_120f", "sm_120f"},     {all, 121, false, "sm_120f", "compute_120"},
      {all, 130, true, "sm_120f", "compute_120"}, {all, 75, true, NULL, NULL},
      {"sm_90a:cubin", 90, false, NULL, NULL}, /* the simulator takes PTX */
      {"sm_90a:cubin", 100, true, NULL, NULL},    {"sm_120f:cubin+ptx", 100, true, NULL, NULL},
      {"sm_80:cubin", 90, true, NULL, NULL},      {"sm_80:", 80, true, NULL, NULL}, /* source alone is not run */
      {"x86-64-v3", 80, true, NULL, NULL},
  };
  for (size_t i = 0; i < NY_COUNT(row); i++)
    check_choice(row[i].spec, row[i].sm, row[i].cubin, row[i].target, row[i].arch);
  if (!strcmp(ny_cpu_arch(), "x86_64")) {
    check_choice("sm_80:cubin+ptx,x86-64", 0, false, "x86-64", NULL);
    check_choice("x86-64,host,x86-64-v2", 0, false, "host", NULL);
    check_choice("sm_80:cubin,aarch64", 0, false, NULL, NULL);
    if (ny_cpu_has("x86-64-v3")) check_choice("x86-64,x86-64-v2,x86-64-v3", 0, false, "x86-64-v3", NULL);
    if (ny_cpu_has("x86-64-v3")) check_choice("x86-64-v3,x86-64-v2", 0, false, "x86-64-v3", NULL);
    check_choice("x86-64-v9,x86-64-v2", 0, false, ny_cpu_has("x86-64-v2") ? "x86-64-v2" : NULL, NULL);
  }
}

/* Kernels that need more shared memory than a block may have are not for this device. */
static void check_shared(void) {
  fat f;
  ny_diag d = {0};
  make(&f, "sm_80:cubin+ptx,sm_90a:cubin");
  f.kernel[1].shared = 200 << 10;
  ny_device_needs needs = {.sm = 90, .cubin = true, .ptx = true, .shared = 100 << 10, .name = "Device X"};
  CHECK(!ny_module_select(&f.m, &needs, &d) && !strcmp(f.m.mod.target, "sm_80"), "%s", d.message);
  f.kernel[0].shared = 101 << 10;
  CHECK(ny_module_select(&f.m, &needs, &d) == NYB_E_TARGET, "no program is left");
  ny_arena_free(&f.m.arena);
}

/* ---- files */
typedef struct written { /* the fixture's program for this CPU, and the same rows for a device */
  fx_module cpu;
  ny_mod both[2];
  ny_mod_kernel kernel[3];
  ny_mod_image image[3];
} written;

static const char cubin[] = "\x7f"
                            "ELF, or so it says",
                  ptx[] = ".version 8.0\n.target sm_80\n.address_size 64\n";

static void build(written *w) {
  fx_build(&w->cpu);
  memcpy(w->kernel, w->cpu.kernel, sizeof w->kernel);
  static const char *const symbol[] = {"add", "count", "less"};
  for (uint32_t i = 0; i < 3; i++) {
    ny_mod_kernel *k = &w->kernel[i];
    k->entry = k->scratch = 0;
    k->symbol = symbol[i];
    k->bits = fx_bits[i];
    k->n_bits = k->n_buffers;
    k->unit = i / 2;
    k->block = 256;
    k->points = 256 >> i;
    k->shared = 48 * i;
    k->wide = i == 1;
  }
  w->image[0] = (ny_mod_image){.kind = NY_MI_CUBIN, .arch = "sm_80", .unit = 0};
  w->image[1] = (ny_mod_image){.kind = NY_MI_PTX, .arch = "compute_80", .unit = 0};
  w->image[2] = (ny_mod_image){.kind = NY_MI_PTX, .arch = "compute_80", .unit = 1};
}

/* `change` has the last word about the rows of the device's program. */
static nyb_status write_file(written *w, void (*change)(ny_mod *gpu, written *w), ny_diag *d) {
  static float weights[FX_WEIGHTS];
  ny_module_file file;
  ny_weight_place at;
  uint32_t small;
  int64_t numbers[2] = {7, 0};
  NY_TRY(ny_module_file_begin(path, &file, d));
  NY_TRY(ny_module_file_weight(&file, weights, sizeof weights, &at));
  for (int i = 0; i < 2; i++) NY_TRY(ny_module_file_weight(&file, &numbers[i], 8, &at));
  NY_TRY(ny_module_file_weights_end(&file, &small));
  NY_TRY(ny_module_file_segment(&file, fx_code, (uint64_t)(fx_code_end - fx_code), &w->cpu.m.code));
  for (int i = 0; i < 3; i++)
    NY_TRY(ny_module_file_segment(&file, i ? ptx : cubin, i ? sizeof ptx : sizeof cubin, &w->image[i].code));
  w->both[0] = w->both[1] = w->cpu.m;
  ny_mod *gpu = &w->both[1];
  gpu->target = "sm_80", gpu->arch = "nvptx64", gpu->sm = 80;
  gpu->kernel = w->kernel, gpu->image = w->image;
  gpu->n_images = 3, gpu->n_features = 0;
  gpu->code = (ny_mod_segment){0};
  if (change) change(gpu, w);
  return ny_module_file_end(&file, w->both, 2);
}

static void check_round_trip(void) {
  written w;
  nyb_module *m = NULL;
  ny_diag d = {0};
  const void *code;
  build(&w);
  nyb_status s = write_file(&w, NULL, &d);
  if (!s) s = ny_module_open(cx, path, &m, &d);
  CHECK(!s && m->n_programs == 2 && !ny_module_check_digests(m, &d), "%s", d.message);
  if (s) return;
  const ny_mod *gpu = &m->program[1];
  CHECK(m->program[0].sm == 0 && gpu->sm == 80 && gpu->n_images == 3 && gpu->n_units == 2, "programs");
  CHECK(gpu->n_exprs == m->program[0].n_exprs && gpu->input == m->program[0].input, "signature");
  for (uint32_t i = 0; i < gpu->n_exprs; i++)
    CHECK(!memcmp(&gpu->expr[i].value, &w.cpu.expr[i].value, 8) && gpu->expr[i].op == w.cpu.expr[i].op, "expression %u",
          i);
  for (uint32_t i = 0; i < 3; i++) {
    const ny_mod_kernel *a = &gpu->kernel[i], *b = &w.kernel[i];
    CHECK(!strcmp(a->symbol, b->symbol) && a->unit == b->unit && a->block == b->block && a->points == b->points &&
              a->shared == b->shared && a->wide == b->wide && a->n_buffers == b->n_buffers && a->n_dims == b->n_dims &&
              a->n_bits == b->n_buffers && !memcmp(a->bits, b->bits, a->n_bits),
          "kernel %u", i);
  }
  ny_device_needs needs = {.sm = 86, .cubin = true, .ptx = true, .shared = 99 << 10, .name = "X"};
  CHECK(!ny_module_select(m, &needs, &d) && m->mod.sm == 80, "%s", d.message);
  CHECK(m->image[0] == 0 && m->image[1] == 2, "unit 0 as a cubin, unit 1 has PTX only");
  CHECK(!ny_module_image(m, &m->mod.image[0], &code, &d) && !memcmp(code, cubin, sizeof cubin), "%s", d.message);
  CHECK(!ny_module_image(m, &m->mod.image[2], &code, &d) && !strcmp(code, ptx), "%s", d.message);
  nyb_module_close(m);
  /* the CPU's half is what it was */
  nyb_load_options trust = {.size = sizeof trust, .trust = 1};
  nyb_session *session = NULL;
  CHECK(!nyb_load(cx, path, &trust, &m) && !strcmp(m->info.target, "test-target") && !strcmp(m->info.device, "cpu"),
        "load");
  CHECK(!nyb_session_open(m, NULL, &session), "%s", nyb_last_error(cx)->text);
  nyb_session_close(session);
  nyb_module_close(m);
  CHECK(nyb_load(cx, path, NULL, &m) == NYB_E_TRUST, "nobody vouches for it");
  trust.device = "tpu:0";
  CHECK(nyb_load(cx, path, &trust, &m) != NYB_OK && strstr(nyb_last_error(cx)->message, "tpu"), "no such device");
}

static void check_one(void) {
  static fx_module f;
  nyb_module *m = NULL;
  ny_diag d = {0};
  fx_build(&f);
  CHECK(!fx_write(&f, path, &d) && !ny_module_open(cx, path, &m, &d) && m->n_programs == 1, "%s", d.message);
  nyb_module_close(m);
}

/* ---- hostile rows */
static void outside(ny_mod *gpu, written *w) { (void)gpu, w->image[1].code.offset = UINT64_C(1) << 40; }
static void huge(ny_mod *gpu, written *w) { (void)gpu, w->image[1].code.bytes = UINT64_MAX - 4095; }
static void unaligned(ny_mod *gpu, written *w) { (void)gpu, w->image[0].code.offset += 64; }
static void empty(ny_mod *gpu, written *w) { (void)gpu, w->image[2].code.bytes = 0; }
static void kind(ny_mod *gpu, written *w) { (void)gpu, w->image[0].kind = NY_MI_COUNT; }
static void arch(ny_mod *gpu, written *w) { (void)gpu, w->image[0].arch = "compute_80"; }
static void no_arch(ny_mod *gpu, written *w) { (void)gpu, w->image[1].arch = "../../etc"; }
static void gap(ny_mod *gpu, written *w) { (void)gpu, w->image[2].unit = 2; }
static void first_gap(ny_mod *gpu, written *w) { (void)gpu, w->image[0].unit = w->image[1].unit = 1; }
static void last_unit(ny_mod *gpu, written *w) { (void)gpu, w->image[2].unit = UINT32_MAX; }
static void no_images(ny_mod *gpu, written *w) { (void)w, gpu->n_images = 0; }
static void no_unit(ny_mod *gpu, written *w) { (void)gpu, w->kernel[2].unit = 2; }
static void no_symbol(ny_mod *gpu, written *w) { (void)gpu, w->kernel[0].symbol = ""; }
static void bad_symbol(ny_mod *gpu, written *w) { (void)gpu, w->kernel[0].symbol = "add; ret"; }
static void no_block(ny_mod *gpu, written *w) { (void)gpu, w->kernel[1].block = 0; }
static void big_block(ny_mod *gpu, written *w) { (void)gpu, w->kernel[1].block = 1025; }
static void no_points(ny_mod *gpu, written *w) { (void)gpu, w->kernel[1].points = 0; }
static void points(ny_mod *gpu, written *w) { (void)gpu, w->kernel[1].points = 257; }
static void shared(ny_mod *gpu, written *w) { (void)gpu, w->kernel[1].shared = UINT32_MAX; }
static void no_bits(ny_mod *gpu, written *w) { (void)gpu, w->kernel[0].n_bits = 0; }
static void few_bits(ny_mod *gpu, written *w) { (void)gpu, w->kernel[0].n_bits = 2; }
static void bad_bits(ny_mod *gpu, written *w) {
  static const uint8_t bits[] = {32, 0, 32};
  (void)gpu, w->kernel[0].bits = bits;
}
static void native(ny_mod *gpu, written *w) { gpu->code = w->cpu.m.code; }
static void cpu_images(ny_mod *gpu, written *w) { w->both[0].image = gpu->image, w->both[0].n_images = 1; }
static void no_expr(ny_mod *gpu, written *w) { (void)w, gpu->arena = 1000; }

static void no_condition(ny_mod *gpu, written *w) { (void)gpu, w->cpu.command[0].extent = 1000; }
static void long_branch(ny_mod *gpu, written *w) { (void)gpu, w->cpu.command[0].n_else = 1000; }
static void longest_branch(ny_mod *gpu, written *w) { (void)gpu, w->cpu.command[0].n_then = UINT32_MAX; }

static void check_hostile(void) {
  static const struct {
    const char *name, *says;
    void (*change)(ny_mod *, written *);
  } row[] = {
      {"a choice by a size that is not there", "condition is 1000", no_condition},
      {"a choice longer than the program", "bodies of 1 and 1000", long_branch},
      {"a choice longer than anything", "bodies of 4294967295", longest_branch},
      {"image out of the file", "do not lie", outside},
      {"image larger than the file", "do not lie", huge},
      {"image not at a page", "do not lie", unaligned},
      {"empty image", "empty", empty},
      {"kind of image", "kind", kind},
      {"cubin for a virtual architecture", "architecture", arch},
      {"architecture of an image", "architecture", no_arch},
      {"a unit without images", "not next", gap},
      {"no unit 0", "not next", first_gap},
      {"last unit", "not next", last_unit},
      {"no images", "unit", no_images},
      {"kernel of no unit", "unit", no_unit},
      {"kernel without a name", "name of a function", no_symbol},
      {"kernel named like code", "name of a function", bad_symbol},
      {"no threads", "block", no_block},
      {"too many threads", "block", big_block},
      {"no points", "points", no_points},
      {"more points than threads", "points", points},
      {"shared memory", "shared memory", shared},
      {"elements without a size", "elements", no_bits},
      {"fewer sizes than buffers", "elements", few_bits},
      {"elements of no bits", "elements of 0 bits", bad_bits},
      {"CPU code in a CUDA program", "another kind", native},
      {"images in a CPU program", "another kind", cpu_images},
      {"expression of the second program", "arena", no_expr},
  };
  for (size_t i = 0; i < NY_COUNT(row); i++) {
    written w;
    nyb_module *m = NULL;
    ny_diag d = {0};
    build(&w);
    CHECK(!write_file(&w, row[i].change, &d), "%s: %s", row[i].name, d.message);
    nyb_status s = ny_module_open(cx, path, &m, &d);
    CHECK(s == NYB_E_PARSE && strstr(d.message, row[i].says), "%s: %d %s", row[i].name, (int)s, d.message);
    nyb_module_close(m);
  }
}

static void other_shape(ny_mod *gpu, written *w) {
  static ny_mod_value in[FX_N_IN];
  (void)w;
  memcpy(in, gpu->input, sizeof in);
  in[0].rank = 0;
  gpu->input = in;
}
static void other_expr(ny_mod *gpu, written *w) {
  static ny_mod_expr expr[64];
  memcpy(expr, w->cpu.expr, sizeof expr);
  expr[0].op = NY_MX_CONST;
  gpu->expr = expr;
}

/* Programs of a file have one signature: the writer does not lie about it. */
static void check_writer(void) {
  void (*const change[])(ny_mod *, written *) = {other_shape, other_expr};
  for (size_t i = 0; i < NY_COUNT(change); i++) {
    written w;
    ny_diag d = {0};
    build(&w);
    CHECK(write_file(&w, change[i], &d) == NYB_E_INTERNAL && strstr(d.message, "different inputs"), "%zu: %s", i,
          d.message);
  }
}

/* Text that does not end would be read past its image; changed code does not match its digest. */
static void check_images(void) {
  static const char unended[] = {'.', 'v'};
  written w;
  nyb_module *m = NULL;
  ny_diag d = {0};
  const void *code;
  build(&w);
  CHECK(!write_file(&w, NULL, &d) && !ny_module_open(cx, path, &m, &d), "%s", d.message);
  ny_mod_image o = m->program[1].image[1];
  m->mod = m->program[1];
  o.code.bytes--;
  CHECK(ny_module_image(m, &o, &code, &d) == NYB_E_PARSE, "shorter than its digest says");
  ny_sha256 h;
  ny_sha256_init(&h);
  ny_sha256_add(&h, ptx, sizeof unended);
  ny_sha256_end(&h, o.code.digest);
  o.code.bytes = sizeof unended;
  ny_diag_clear(&d);
  CHECK(ny_module_image(m, &o, &code, &d) == NYB_E_PARSE && strstr(d.message, "does not end"), "%s", d.message);
  nyb_module_close(m);
}

/* Every byte of the description damaged: read, planned for both programs, chosen from; never a crash. */
static void check_damage(void) {
  written w;
  ny_diag d = {0};
  ny_arena files = {0};
  char *file = NULL;
  size_t n = 0;
  uint64_t at, bytes;
  int read = 0;
  build(&w);
  CHECK(!write_file(&w, NULL, &d) && !ny_file_read(&files, path, 1 << 20, &file, &n, &d), "%s", d.message);
  memcpy(&at, file + 8, 8);
  memcpy(&bytes, file + 16, 8);
  uint64_t *fb = malloc((size_t)bytes + 8);
  for (uint64_t i = 0; i < bytes * 4; i++) {
    static const uint8_t flips[] = {1, 4, 0x80, 0xff};
    memcpy(fb, file + at, (size_t)bytes);
    ((uint8_t *)fb)[i / 4] ^= flips[i % 4];
    fat f = {0};
    ny_diag_clear(&d);
    if (ny_module_read(fb, at, bytes, n, &f.m.arena, &f.m.program, &f.m.n_programs, &d)) {
      CHECK_EACH(d.message[0], "byte %llu: an error without a message", (unsigned long long)(i / 4));
      ny_arena_free(&f.m.arena);
      continue;
    }
    read++;
    for (uint32_t sm = 0; sm <= 80; sm += 80) {
      ny_device_needs needs = {.sm = sm, .cubin = true, .ptx = true, .shared = 99 << 10, .name = "X"};
      if (ny_module_select(&f.m, &needs, &d) || !sm) continue;
      for (uint32_t u = 0; u < f.m.mod.n_units; u++)
        CHECK_EACH(f.m.image[u] < f.m.mod.n_images && f.m.mod.image[f.m.image[u]].unit == u, "unit %u", u);
    }
    ny_arena_free(&f.m.arena);
  }
  CHECK(read > 0, "some damage is harmless");
  free(fb);
  ny_arena_free(&files);
}

int main(void) {
  CHECK(mkdtemp(folder) != NULL, "%s", folder);
  snprintf(path, sizeof path, "%s/m.nyb", folder);
  nyb_options o = {.size = sizeof o, .cache_dir = ""};
  CHECK(!nyb_open(&o, &cx), "open");
  check_parse();
  check_fit();
  check_choices();
  check_shared();
  check_one();
  check_round_trip();
  check_hostile();
  check_writer();
  check_images();
  check_damage();
  nyb_close(cx);
  unlink(path);
  rmdir(folder);
  return test_end("fat");
}
