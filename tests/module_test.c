/* The module writer end to end: graphs with every kind of command and place are compiled, loaded and run at several
   sizes against the evaluator; the portable graph in the file, imported again, must mean the same. Needs the LLVM
   plug-in. */
#include "cuda_code.h"
#include "module.h"
#include "test.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct sample {
  const char *name, *text;
} sample;
static const sample samples[] = {
    {"branch", "graph g(%c: bool[], %x: f32[?N]) {\n"
               "  %y, %z = if %c : f32[?N], f32[?N] {\n    %t = add %x, %x : f32[?N]\n    yield %t, %x\n  } else {\n"
               "    %e = neg %x : f32[?N]\n    %w = if %c : f32[?N] {\n      yield %x\n    } else {\n      %q = mul "
               "%x, %x : f32[?N]\n      yield %q\n    }\n"
               "    yield %w, %e\n  }\n  %s = sub %y, %z : f32[?N]\n  ret %y, %z, %s names=[y,z,s]\n}\n"},
    {"swap",
     "graph g(%a: f32[?N], %b: f32[?N]) {\n"
     "  %fa, %fb, %all = loop %a, %b trip=5 : f32[?N], f32[?N], f32[5,?N] (%0: i64[], %1: f32[?N], %2: f32[?N]) {\n"
     "    %s = add %1, %2 : f32[?N]\n    %i = cast %0 : f32[]\n    %m = mul %s, %i : f32[?N]\n    yield %2, %1, %m\n  "
     "}\n"
     "  ret %fa, %fb, %all names=[fa,fb,all]\n}\n"},
    {"until", "graph g(%a: f32[?N]) {\n  %yes = const data=[1] : bool[]\n  %one = const data=[1] : f32[]\n  %lim = "
              "const data=[40.5] : f32[]\n"
              "  %ok, %fa = loop %yes, %a trip=1000 cond=1 : bool[], f32[?N] (%1: i64[], %2: bool[], %3: f32[?N]) {\n"
              "    %4 = add %3, %one : f32[?N]\n    %5 = reduce %4 op=max axes=[0] : f32[]\n    %6 = lt %5, %lim : "
              "bool[]\n    yield %6, %4\n  }\n"
              "  ret %fa, %ok names=[fa,ok]\n}\n"},
    {"nested",
     "graph g(%a: f32[?N,3]) {\n  %r, %rows = loop %a trip=?N : f32[?N,3], f32[?N,2,3] (%i: i64[], %c: f32[?N,3]) {\n"
     "    %d, %two = loop %c trip=2 : f32[?N,3], f32[2,3] (%j: i64[], %e: f32[?N,3]) {\n"
     "      %f = add %e, %a : f32[?N,3]\n      %row = gather %f, %i axis=0 : f32[3]\n      yield %f, %row\n    }\n"
     "    yield %d, %two\n  }\n  ret %r, %rows names=[r,rows]\n}\n"},
    {"places",
     "graph g(%x: f32[?N,6]) {\n  %k = const data=[1,2,3,4,5,6] : f32[6]\n  %z = reshape %x : f32[?N*2,3]\n  %w = add "
     "%x, %k : f32[?N,6]\n"
     "  %t = transpose %k perm=[0] : f32[6]\n  %u = reshape %w : f32[?N*6]\n  %n = dims v=[?N,?N*6] : i64[2]\n"
     "  ret %x, %k, %z, %w, %w, %u, %n, %t names=[x,k,z,w,w2,u,n,t]\n}\n"},
    {"weights", "graph g(%x: f32[?B,40]) {\n  %i = iota axis=1 : f32[40,70]\n  %j = iota axis=0 : f32[40,70]\n  %v = "
                "mul %i, %j : f32[40,70]\n  %w = sin %v : f32[40,70]\n"
                "  %y = matmul %x, %w : f32[?B,70]\n  %t = transpose %w perm=[1,0] : f32[70,40]\n  %q = matmul %y, %t "
                ": f32[?B,40]\n"
                "  %s = softmax %q : f32[?B,40]\n  ret %s, %y names=[s,y]\n}\n"},
};

static char folder[64] = "/tmp/nybble-module-XXXXXX";
static nyb_context *cx;

static const char *in_folder(char room[128], const char *name, const char *suffix) {
  snprintf(room, 128, "%s/%s%s", folder, name, suffix);
  return room;
}

static void write_text(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  CHECK(f && fputs(text, f) >= 0, "%s", path);
  if (f) fclose(f);
}

/* ---- tensors */
enum { MOST = 8 };
typedef struct tensors {
  nyb_tensor t[MOST];
  int64_t shape[MOST][8];
} tensors;

static uint64_t bytes_of(const nyb_tensor *t) {
  uint64_t n = (t->dtype.bits + 7u) / 8;
  for (int k = 0; k < t->ndim; k++) n *= (uint64_t)t->shape[k];
  return n;
}

/* Every symbol of an input's plain dimensions gets the size n. */
static void make_inputs(const nyb_module_info *m, int64_t n, bool truth, tensors *out) {
  for (size_t i = 0; i < m->n_inputs; i++) {
    const nyb_value_info *v = &m->inputs[i];
    for (int k = 0; k < v->ndim; k++) out->shape[i][k] = v->shape[k] < 0 ? n : v->shape[k];
    out->t[i] = (nyb_tensor){.device = {1, 0}, .ndim = v->ndim, .dtype = v->dtype, .shape = out->shape[i]};
    uint64_t bytes = bytes_of(&out->t[i]);
    float *p = out->t[i].data = calloc(1, bytes + 4);
    if (v->dtype.code == NYB_BOOL)
      *(uint8_t *)p = truth;
    else
      for (uint64_t k = 0; k < bytes / 4; k++) p[k] = (float)((k * 37 + i * 11) % 23) - 11;
  }
}

static bool close_to(const nyb_tensor *a, const nyb_tensor *b) {
  if (a->ndim != b->ndim || a->dtype.code != b->dtype.code || a->dtype.bits != b->dtype.bits) return false;
  for (int k = 0; k < a->ndim; k++)
    if (a->shape[k] != b->shape[k]) return false;
  if (a->dtype.code != NYB_FLOAT) return !memcmp(a->data, b->data, bytes_of(a));
  for (uint64_t k = 0; k < bytes_of(a) / 4; k++) {
    double x = (double)((float *)a->data)[k], y = (double)((float *)b->data)[k];
    if (!(fabs(x - y) <= 1e-5 * (1 + fabs(y)))) return false;
  }
  return true;
}

/* ---- one graph */
typedef struct subject {
  const char *name;
  nyb_model *model, *portable;
  nyb_module *module;
  nyb_module_info info;
} subject;

static void check_at(const subject *s, nyb_session *session, int64_t n, bool truth) {
  tensors in = {0};
  nyb_tensor out[MOST] = {0}, want[MOST] = {0}, again[MOST] = {0};
  size_t n_in = s->info.n_inputs, n_out = s->info.n_outputs;
  make_inputs(&s->info, n, truth, &in);
  for (int round = 0; round < 2; round++)
    CHECK(!nyb_run(session, in.t, n_in, out, n_out), "%s n=%d: %s", s->name, (int)n, nyb_last_error(cx)->text);
  CHECK(!nyb_evaluate(s->model, in.t, n_in, want, n_out), "%s: %s", s->name, nyb_last_error(cx)->text);
  CHECK(!nyb_evaluate(s->portable, in.t, n_in, again, n_out), "%s: %s", s->name, nyb_last_error(cx)->text);
  for (size_t i = 0; i < n_out; i++) {
    CHECK(close_to(&out[i], &want[i]), "%s n=%d: output %s differs from the evaluator", s->name, (int)n,
          s->info.outputs[i].name);
    CHECK(close_to(&again[i], &want[i]), "%s n=%d: output %s of the portable graph", s->name, (int)n,
          s->info.outputs[i].name);
  }
  for (size_t i = 0; i < n_in; i++) free(in.t[i].data);
}

static void check_runs(const subject *s, int threads) {
  nyb_dim dims[MOST];
  for (size_t i = 0; i < s->info.n_symbols; i++) dims[i] = (nyb_dim){s->info.symbols[i], 40};
  nyb_session_options o = {.size = sizeof o, .threads = threads, .dims = dims, .n_dims = s->info.n_symbols};
  nyb_session *session;
  nyb_status st = nyb_session_open(s->module, &o, &session);
  CHECK(!st, "%s: %s", s->name, nyb_last_error(cx)->text);
  static const int64_t sizes[] = {1, 7, 16, 40, 3};
  for (size_t k = 0; !st && k < NY_COUNT(sizes); k++) check_at(s, session, sizes[k], k % 2);
  if (!st) nyb_session_close(session);
}

static void check_sample(const sample *q, int optimize) {
  char text[128], file[128];
  subject s = {.name = q->name, .info = {.size = sizeof s.info}};
  nyb_load_options trust = {.size = sizeof trust, .trust = 1};
  nyb_compile_options how = {.size = sizeof how, .optimize = optimize + 1, .verify_each = 1};
  nyb_model *compiled = NULL;
  ny_diag d = {0};
  write_text(in_folder(text, q->name, ".nyt"), q->text);
  nyb_status st = nyb_import(cx, text, NULL, &s.model);
  if (!st) st = nyb_import(cx, text, NULL, &compiled);
  if (!st) st = nyb_compile(compiled, &how, in_folder(file, q->name, ".nyb"));
  if (!st) st = nyb_load(cx, file, &trust, &s.module);
  if (!st) st = nyb_import(cx, file, NULL, &s.portable);
  CHECK(!st, "%s -O%d: %s", q->name, optimize, nyb_last_error(cx) ? nyb_last_error(cx)->text : nyb_status_text(st));
  if (!st && !nyb_module_describe(s.module, &s.info)) {
    CHECK(!ny_module_check_digests(s.module, &d), "%s: %s", q->name, d.message);
    for (int threads = 1; threads <= 3; threads += 2) check_runs(&s, threads);
  }
  nyb_module_close(s.module);
  nyb_model_close(s.portable);
  nyb_model_close(compiled);
  nyb_model_close(s.model);
}

/* Equal constants are stored once, small ones share a segment, large ones are in both graphs of the file by reference.
 */
static void check_sharing(void) {
  ny_text t = {0};
  char text[128], file[128];
  ny_text_add(&t, "graph g(%x: f32[3000]) {\n");
  for (int i = 0; i < 4; i++) { /* not uniform, so that they need memory: 0.1, 1.1, ... */
    ny_text_addf(
        &t, "  %%i%d = iota : f32[3000]\n  %%h%d = const data=[0.5] : f32[]\n  %%c%d = mul %%i%d, %%h%d : f32[3000]\n",
        i, i, i, i, i);
    ny_text_addf(&t, "  %%s%d = const data=[%d,2,3] : f32[3]\n", i, i / 2);
  }
  ny_text_add(&t, "  %y = add %x, %c0 : f32[3000]\n  ret %y, %c0, %c1, %c2, %c3, %s0, %s1, %s2, %s3 "
                  "names=[y,a,b,c,d,e,f,g,h]\n}\n");
  write_text(in_folder(text, "sharing", ".nyt"), t.s);
  ny_text_free(&t);
  nyb_model *m;
  nyb_module *module = NULL;
  ny_diag d = {0};
  nyb_status st = nyb_import(cx, text, NULL, &m);
  if (!st) st = nyb_compile(m, NULL, in_folder(file, "sharing", ".nyb"));
  CHECK(!st && !ny_module_open(cx, file, &module, &d), "%s", st ? nyb_last_error(cx)->text : d.message);
  if (module) {
    CHECK(module->mod.n_segments == 2 && module->info.weight_bytes == 12000 + 128, "%u segments, %d bytes",
          module->mod.n_segments, (int)module->info.weight_bytes);
    CHECK(module->mod.graph.bytes < 4000, "the portable graph refers to the weights: %d bytes",
          (int)module->mod.graph.bytes);
  }
  nyb_module_close(module);
  nyb_model_close(m);
}

/* A module for another CPU says what it needs: it loads where that is there, and is refused by name elsewhere. */
static void check_targets(void) {
  char text[128], file[128];
  nyb_load_options trust = {.size = sizeof trust, .trust = 1};
  for (int i = 0; i < ny_n_targets; i++) {
    if (ny_targets[i].sm) continue;
    nyb_compile_options how = {.size = sizeof how, .target = ny_targets[i].name};
    nyb_model *m = NULL;
    nyb_module *module;
    ny_diag d = {0};
    nyb_status st = nyb_import(cx, in_folder(text, "weights", ".nyt"), NULL, &m);
    if (!st) st = nyb_compile(m, &how, in_folder(file, ny_targets[i].name, ".nyb"));
    CHECK(!st && !ny_module_open(cx, file, &module, &d), "%s: %s", ny_targets[i].name,
          st ? nyb_last_error(cx)->text : d.message);
    nyb_model_close(m);
    if (st) continue;
    bool fits = !strcmp(module->mod.arch, ny_cpu_arch());
    CHECK(module->mod.n_features > 0, "%s lists no feature", ny_targets[i].name);
    for (uint32_t k = 0; k < module->mod.n_features; k++) fits = fits && ny_cpu_has(module->mod.feature[k]);
    nyb_module_close(module);
    st = nyb_load(cx, file, &trust, &module);
    CHECK(st == (fits ? NYB_OK : NYB_E_TARGET), "%s: %s", ny_targets[i].name, nyb_status_text(st));
    CHECK(fits || strstr(nyb_last_error(cx)->message, ny_targets[i].name), "the target is named");
    nyb_module_close(module);
  }
  CHECK(!strcmp(ny_cpu_arch(), "x86_64") == ny_cpu_has("x86-64") &&
            (!ny_cpu_has("x86-64-v4") || ny_cpu_has("x86-64-v3")),
        "levels");
}

/* One file for this CPU's kind and for GPUs, made without one: each program has its code, weights are stored once, and
   whoever finds nothing that fits compiles the portable graph. */
static void check_fat(void) {
  static const char *const bad[] = {"sm_120", "sm_121", "sm_100", "cpu,sm_120", "sm_80,,cpu", "sm_80,sm_81"};
  char text[128], file[128];
  const ny_nvrtc *nvrtc;
  ny_diag d = {0};
  nyb_model *m = NULL;
  nyb_module *module = NULL;
  for (size_t i = 0; i < NY_COUNT(bad); i++) {
    const ny_target *const *list;
    ny_arena a = {0};
    size_t n;
    ny_diag_clear(&d);
    CHECK(ny_target_list(bad[i], &a, &list, &n, &d) == NYB_E_TARGET &&
              strstr(d.message, i < 4 ? "which runs on the whole family" : "known are"),
          "%s: %s", bad[i], d.message);
    ny_arena_free(&a);
  }
  ny_diag_clear(&d);
  if (ny_nvrtc_open(&nvrtc, &d)) {
    printf("module: without NVRTC no CUDA targets are compiled: %s\n", d.message);
    return;
  }
  nyb_compile_options how = {.size = sizeof how, .target = "sm_120f,cpu,sm_80,cpu,sm_90a", .with_source = 1};
  nyb_status st = nyb_import(cx, in_folder(text, "weights", ".nyt"), NULL, &m);
  if (!st) st = nyb_compile(m, &how, in_folder(file, "fat", ".nyb"));
  CHECK(!st && !ny_module_open(cx, file, &module, &d) && !ny_module_check_digests(module, &d), "%s",
        st ? nyb_last_error(cx)->text : d.message);
  nyb_model_close(m);
  if (st || !module) return;
  CHECK(module->n_programs == 4, "%u programs: each target once", module->n_programs);
  for (uint32_t i = 0; i < module->n_programs; i++) {
    const ny_mod *q = &module->program[i];
    bool later = false;
    for (uint32_t k = 0; k < q->n_images; k++) later |= !strcmp(q->image[k].arch, "compute_120");
    CHECK(q->n_kernels > 0 && (q->sm ? q->n_images == 3 * q->n_units : q->code.bytes > 0), "%s: %u images", q->target,
          q->n_images);
    CHECK(later == (q->sm == 120), "the newest target's PTX is for all later devices");
  }
  ny_device_needs gpu = {.sm = 121, .cubin = true, .ptx = true, .shared = 99 << 10, .name = "X"};
  CHECK(!ny_module_select(module, &gpu, &d) && !strcmp(module->mod.target, "sm_120f"), "%s", d.message);
  nyb_module_close(module);
  how.target = "sm_80", how.no_ptx = 1, how.with_source = 0;
  st = nyb_import(cx, text, NULL, &m);
  if (!st) st = nyb_compile(m, &how, file);
  nyb_load_options trust = {.size = sizeof trust, .trust = 1};
  CHECK(!st && nyb_load(cx, file, &trust, &module) == NYB_E_TARGET && strstr(nyb_last_error(cx)->message, "sm_80"),
        "%s", nyb_last_error(cx)->text);
  nyb_model_close(m);
  how = (nyb_compile_options){.size = sizeof how};
  CHECK(!nyb_open_model(cx, file, NULL, &how, &module) && module->mod.code.bytes, "%s", nyb_last_error(cx)->text);
  nyb_module_close(module);
}

int main(void) {
  CHECK(mkdtemp(folder) != NULL, "%s", folder);
  nyb_options o = {.size = sizeof o, .cache_dir = ""};
  CHECK(!nyb_open(&o, &cx), "open");
  for (size_t i = 0; i < NY_COUNT(samples); i++)
    for (int optimize = 0; optimize <= 2; optimize += 2) check_sample(&samples[i], optimize);
  check_sharing();
  check_targets();
  check_fat();
  nyb_close(cx);
  char command[128];
  snprintf(command, sizeof command, "rm -r %s", folder);
  CHECK(!system(command), "%s", command);
  return test_end("module");
}
