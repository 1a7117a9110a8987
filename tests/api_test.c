/* The public API as an embedder uses it: import, compile, load, sessions, errors. Models are .nyt text written here. */
#include "test.h"

#include <math.h>
#include <nybble/nybble.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/nybble-api-XXXXXX";

static const char *write_file(const char *name, const char *text) {
  static char path[256];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "w");
  if (!f || fputs(text, f) < 0 || fclose(f)) exit(2);
  return path;
}

static const char model[] = "graph m(%x: f32[?N,6], %b: f32[6]) {\n"
                            "  %s = add %x, %b : f32[?N,6]\n"
                            "  %y = relu %s : f32[?N,6]\n"
                            "  ret %y names=[y]\n"
                            "}\n";

typedef struct io {
  int64_t shape_x[2], shape_b[1], shape_y[2];
  float x[64 * 6 + 1], b[6], y[64 * 6 + 1];
  nyb_tensor in[2], out[1];
} io;

static void fill(io *v, int64_t n) {
  *v = (io){.shape_x = {n, 6}, .shape_b = {6}};
  for (int i = 0; i < n * 6; i++) v->x[i] = (float)(i % 7) - 3;
  for (int i = 0; i < 6; i++) v->b[i] = (float)i * 0.5f - 1;
  nyb_dtype f32 = {NYB_FLOAT, 32, 1};
  v->in[0] = (nyb_tensor){v->x, {1, 0}, 2, f32, v->shape_x, NULL, 0};
  v->in[1] = (nyb_tensor){v->b, {1, 0}, 1, f32, v->shape_b, NULL, 0};
}

static bool right(const io *v, int64_t n, const float *y) {
  for (int64_t i = 0; i < n * 6; i++)
    if (fabsf(y[i] - fmaxf(0, v->x[i] + v->b[i % 6])) > 1e-6f) return false;
  return true;
}

static nyb_session *open_session(nyb_module *m, int64_t n, int threads) {
  nyb_dim dims[] = {{"N", n}};
  nyb_session_options o = {.size = sizeof o, .threads = threads, .dims = dims, .n_dims = 1};
  nyb_session *s = NULL;
  CHECK(!nyb_session_open(m, &o, &s), "session");
  return s;
}

static void test_run(nyb_context *cx, nyb_module *m) {
  io *v = malloc(sizeof *v);
  nyb_session *s = open_session(m, 20, 2);
  for (int64_t n = 1; n <= 20;
       n += 3) { /* any size up to what was prepared, session's memory and ours, odd alignment */
    fill(v, n);
    v->out[0] = (nyb_tensor){0};
    CHECK(!nyb_run(s, v->in, 2, v->out, 1), "run of %lld", (long long)n);
    CHECK(v->out[0].ndim == 2 && v->out[0].shape[0] == n && right(v, n, v->out[0].data), "result of %lld",
          (long long)n);
    memmove(v->x + 1, v->x, sizeof(float) * (size_t)n * 6);
    v->in[0].data = v->x + 1;
    v->out[0] = (nyb_tensor){.data = v->y + 1};
    CHECK(!nyb_run(s, v->in, 2, v->out, 1), "run of %lld into our memory", (long long)n);
    memmove(v->x, v->x + 1, sizeof(float) * (size_t)n * 6);
    CHECK(right(v, n, v->y + 1), "result of %lld in our memory", (long long)n);
  }
  fill(v, 21);
  v->out[0] = (nyb_tensor){0};
  CHECK(nyb_run(s, v->in, 2, v->out, 1) == NYB_E_SHAPE, "more than prepared must be refused");
  CHECK(nyb_last_error(cx) && strlen(nyb_last_error(cx)->message) > 10, "and say why");
  nyb_dim more[] = {{"N", 40}};
  CHECK(!nyb_session_prepare(s, more, 1), "prepare");
  CHECK(!nyb_run(s, v->in, 2, v->out, 1) && right(v, 21, v->out[0].data), "after prepare it runs");
  nyb_session_close(s);
  free(v);
}

static void test_bad_inputs(nyb_context *cx, nyb_module *m) {
  io *v = malloc(sizeof *v);
  nyb_session *s = open_session(m, 8, 1);
  fill(v, 4);
  v->in[1].shape[0] = 5;
  CHECK(nyb_run(s, v->in, 2, v->out, 1) == NYB_E_SHAPE && strstr(nyb_last_error(cx)->message, "b"),
        "wrong size names the input");
  fill(v, 4);
  v->in[0].dtype.bits = 64;
  CHECK(nyb_run(s, v->in, 2, v->out, 1) != NYB_OK && strstr(nyb_last_error(cx)->message, "x"),
        "wrong dtype names the input");
  fill(v, 4);
  v->in[0].ndim = 1;
  CHECK(nyb_run(s, v->in, 2, v->out, 1) != NYB_OK, "wrong rank");
  fill(v, 4);
  int64_t strides[2] = {12, 2};
  v->in[0].strides = strides;
  CHECK(nyb_run(s, v->in, 2, v->out, 1) != NYB_OK, "strided");
  fill(v, 4);
  v->in[0].shape[0] = -4;
  CHECK(nyb_run(s, v->in, 2, v->out, 1) != NYB_OK, "negative size");
  fill(v, 4);
  v->in[0].data = NULL;
  CHECK(nyb_run(s, v->in, 2, v->out, 1) != NYB_OK, "no data");
  CHECK(nyb_run(s, v->in, 1, v->out, 1) != NYB_OK, "too few inputs");
  fill(v, 4);
  CHECK(!nyb_run(s, v->in, 2, v->out, 1) && right(v, 4, v->out[0].data), "a session survives its errors");
  nyb_session_close(s);
  free(v);
}

typedef struct worker {
  nyb_module *m;
  int bad;
} worker;

static void *work(void *p) {
  worker *w = p;
  io *v = malloc(sizeof *v);
  nyb_dim dims[] = {{"N", 32}};
  nyb_session_options o = {.size = sizeof o, .threads = 2, .dims = dims, .n_dims = 1};
  nyb_session *s;
  if (nyb_session_open(w->m, &o, &s)) return w->bad = 1, NULL;
  for (int i = 0; i < 300; i++) {
    fill(v, 1 + i % 32);
    w->bad |= nyb_run(s, v->in, 2, v->out, 1) || !right(v, 1 + i % 32, v->out[0].data);
  }
  nyb_session_close(s);
  return free(v), NULL;
}

static void test_concurrent(nyb_module *m) {
  pthread_t t[3];
  worker w[3] = {{m, 0}, {m, 0}, {m, 0}};
  for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, work, &w[i]);
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
  for (int i = 0; i < 3; i++) CHECK(!w[i].bad, "session %d beside others", i);
}

static void test_text_and_evaluate(nyb_context *cx, const char *path) {
  nyb_model *m, *again = NULL;
  char *text, *text2 = NULL;
  CHECK(!nyb_import(cx, path, NULL, &m), "import");
  CHECK(!nyb_print(m, &text), "print");
  const char *copy = write_file("copy.nyt", text);
  CHECK(!nyb_import(cx, copy, NULL, &again) && !nyb_print(again, &text2), "re-read");
  CHECK(text2 && !strcmp(text, text2), "text is stable");
  io *v = malloc(sizeof *v);
  fill(v, 5);
  CHECK(!nyb_evaluate(m, v->in, 2, v->out, 1) && right(v, 5, v->out[0].data), "evaluate");
  free(v);
  nyb_free(text);
  nyb_free(text2);
  nyb_model_close(m);
  nyb_model_close(again);
}

static void test_errors(nyb_context *cx) {
  nyb_model *m = NULL;
  nyb_module *mod = NULL;
  CHECK(nyb_import(cx, "/nonexistent/m.onnx", NULL, &m) == NYB_E_IO && strstr(nyb_last_error(cx)->text, "nonexistent"),
        "no such file");
  const char *bad = write_file("bad.nyt", "graph m(%x: f32[4]) {\n  %y = add %x, %z : f32[4]\n  ret %y\n}\n");
  CHECK(nyb_import(cx, bad, NULL, &m) != NYB_OK && strstr(nyb_last_error(cx)->text, ":2"),
        "an error in text has its line: %s", nyb_last_error(cx)->text);
  CHECK(nyb_load(cx, bad, NULL, &mod) != NYB_OK, "text is no module");
  CHECK(nyb_import_memory(cx, "\xff\xff", 2, NULL, &m) != NYB_OK, "two bytes are no model");
  CHECK(nyb_open(NULL, NULL) == NYB_E_ARGUMENT && nyb_import(NULL, "x", NULL, &m) == NYB_E_ARGUMENT, "null arguments");
  nyb_close(NULL);
  nyb_module_close(NULL);
  nyb_session_close(NULL);
  nyb_model_close(NULL);
  for (int s = 0; s < NYB_STATUS_COUNT; s++)
    CHECK(strlen(nyb_status_text((nyb_status)s)) > 3, "status %d has a text", s);
}

static void test_trust(const char *cache, const char *nyb) {
  nyb_options o = {.size = sizeof o, .cache_dir = cache};
  nyb_context *cx;
  nyb_module *m = NULL;
  CHECK(!nyb_open(&o, &cx), "open");
  CHECK(nyb_load(cx, nyb, NULL, &m) == NYB_E_TRUST, "a stranger's code is not run");
  CHECK(!nyb_open_model(cx, nyb, NULL, NULL, &m), "but its graph is compiled: %s",
        nyb_last_error(cx) ? nyb_last_error(cx)->text : "");
  io *v = malloc(sizeof *v);
  fill(v, 3);
  nyb_session *s = m ? open_session(m, 3, 1) : NULL;
  CHECK(s && !nyb_run(s, v->in, 2, v->out, 1) && right(v, 3, v->out[0].data), "and runs");
  nyb_session_close(s);
  nyb_module_close(m);
  free(v);
  nyb_close(cx);
}

static const char particular[] = "graph m(%x: f32[?N,6], %c: bool[]) {\n"
                                 "  require a=?N/2*2 b=?N text=halves loc(\"cut\",\"Split\",3,99)\n"
                                 "  %y = if %c : f32[?N,6] {\n"
                                 "    require a=?N%4 text=quarters loc(\"cut 4\",\"Split\",4,99)\n"
                                 "    %t = relu %x : f32[?N,6]\n"
                                 "    yield %t\n"
                                 "  } else {\n"
                                 "    %u = neg %x : f32[?N,6]\n"
                                 "    yield %u\n"
                                 "  }\n"
                                 "  ret %y names=[y]\n"
                                 "}\n";

static nyb_status run_of(nyb_session *s, io *v, int64_t n, bool c) {
  fill(v, n);
  v->in[1] = (nyb_tensor){&c, {1, 0}, 0, {NYB_BOOL, 8, 1}, NULL, NULL, 0};
  v->out[0] = (nyb_tensor){0};
  return nyb_run(s, v->in, 2, v->out, 1);
}

static void test_requirements(nyb_context *cx) {
  const char *halves = "node \"cut\" (Split): halves: (?N/2)*2 and ?N must be equal, here they are 6 and 7";
  const char *quarters = "node \"cut 4\" (Split): quarters: ?N%4 and 0 must be equal, here they are 2 and 0";
  nyb_module *m = NULL;
  nyb_session *s = NULL;
  nyb_dim dims[] = {{"N", 7}};
  nyb_session_options o = {.size = sizeof o, .threads = 1};
  io *v = malloc(sizeof *v);
  CHECK(!nyb_open_model(cx, write_file("r.nyt", particular), NULL, NULL, &m), "%s", nyb_last_error(cx)->text);
  CHECK(m && !nyb_session_open(m, &o, &s), "without sizes nothing is wrong yet: %s", nyb_last_error(cx)->text);
  CHECK(nyb_session_prepare(s, dims, 1) == NYB_E_SHAPE && strstr(nyb_last_error(cx)->message, halves), "prepare: %s",
        nyb_last_error(cx)->message);
  dims[0].size = 8;
  CHECK(!nyb_session_prepare(s, dims, 1) && !run_of(s, v, 8, true), "sizes that are right: %s",
        nyb_last_error(cx)->text);
  CHECK(run_of(s, v, 7, false) == NYB_E_SHAPE && strstr(nyb_last_error(cx)->message, halves), "run");
  CHECK(run_of(s, v, 7, false) == NYB_E_SHAPE, "and again");
  CHECK(!run_of(s, v, 6, false) && ((float *)v->out[0].data)[0] == -v->x[0],
        "the branch with a requirement is not taken");
  CHECK(run_of(s, v, 6, true) == NYB_E_SHAPE && strstr(nyb_last_error(cx)->message, quarters), "%s",
        nyb_last_error(cx)->message);
  CHECK(!run_of(s, v, 4, true), "a session survives its errors");
  nyb_session_close(s);
  o.dims = dims;
  o.n_dims = 1;
  dims[0].size = 7;
  CHECK(nyb_session_open(m, &o, &s) == NYB_E_SHAPE && strstr(nyb_last_error(cx)->message, halves), "open");
  nyb_module_close(m);
  free(v);
}

/* What a device decides, as far as that can be seen without one. */
static void test_devices(nyb_context *cx, const char *path, const char *nyb) {
  nyb_module *m = NULL;
  nyb_model *handle;
  nyb_compile_options how = {.size = sizeof how, .device = "cpu"};
  nyb_load_options where = {.size = sizeof where, .trust = 1, .device = "tpu:3"};
  nyb_module_info info = {.size = sizeof info};
  CHECK(!nyb_open_model(cx, path, NULL, &how, &m) && !nyb_module_describe(m, &info) && !strcmp(info.device, "cpu") &&
            !strncmp(info.choice, "code for host", 13),
        "%s", info.choice);
  nyb_module_close(m);
  CHECK(nyb_load(cx, nyb, &where, &m) != NYB_OK && !m && strstr(nyb_last_error(cx)->message, "tpu:3"), "load");
  how.device = where.device;
  CHECK(nyb_open_model(cx, nyb, NULL, &how, &m) != NYB_OK && !m && strstr(nyb_last_error(cx)->message, "tpu:3"),
        "open");
  CHECK(nyb_open_model(cx, path, NULL, &how, &m) != NYB_OK && !m && strstr(nyb_last_error(cx)->message, "tpu:3"),
        "JIT");
  how = (nyb_compile_options){.size = sizeof how, .target = "cpu,host"};
  CHECK(!nyb_import(cx, path, NULL, &handle) && nyb_optimize(handle, &how) == NYB_E_ARGUMENT &&
            strstr(nyb_last_error(cx)->message, "one target"),
        "a graph has one target");
  nyb_model_close(handle);
  how.size = offsetof(nyb_compile_options, device); /* of a caller from before there were devices */
  how.target = NULL, how.device = "tpu:3";
  CHECK(!nyb_open_model(cx, path, NULL, &how, &m), "an older caller");
  nyb_module_close(m);
  where.size = offsetof(nyb_load_options, device);
  CHECK(!nyb_load(cx, nyb, &where, &m), "an older caller");
  nyb_module_close(m);
}

int main(void) {
  if (!mkdtemp(dir)) return 2;
  char cache[64], path[256], out[300];
  snprintf(cache, sizeof cache, "%s/cache", dir);
  snprintf(path, sizeof path, "%s", write_file("m.nyt", model));
  snprintf(out, sizeof out, "%s/m.nyb", dir);
  nyb_options o = {.size = sizeof o, .cache_dir = cache};
  nyb_context *cx;
  nyb_module *m = NULL;
  CHECK(!nyb_open(&o, &cx), "open");
  test_errors(cx);
  test_text_and_evaluate(cx, path);
  test_requirements(cx);
  CHECK(!nyb_open_model(cx, path, NULL, NULL, &m), "compile at load: %s",
        nyb_last_error(cx) ? nyb_last_error(cx)->text : "");
  if (m) {
    test_run(cx, m);
    test_bad_inputs(cx, m);
    test_concurrent(m);
    nyb_model *model_handle;
    CHECK(!nyb_import(cx, path, NULL, &model_handle) && !nyb_compile(model_handle, NULL, out), "compile to a file");
    nyb_model_close(model_handle);
    char other[80];
    snprintf(other, sizeof other, "%s/other", dir);
    test_trust(other, out);
    test_devices(cx, path, out);
  }
  nyb_module_close(m);
  nyb_close(cx);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  if (system(command)) return 2;
  return test_end("api_test");
}
