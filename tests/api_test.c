/* The public API as an embedder uses it: import, text, evaluation, compilation, trust, errors. Models are .nyt text
   written here. What sessions do is in tests/cts, for every device. */
#include "test.h"

#include <math.h>
#include <nybble/nybble.h>
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
  CHECK(!nyb_open_model(cx, path, NULL, NULL, &m), "compile at load: %s",
        nyb_last_error(cx) ? nyb_last_error(cx)->text : "");
  if (m) {
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
