/* nybble test: ONNX backend test cases through the whole path: import, passes, machine code, module file, session. */
#include "cli.h"
#include "verbs.h"

#include "device.h"
#include "model.h"
#include "suite.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Hands the case's failure to the diagnostic the suite reports. */
static void hand_over(nyb_context *cx, ny_ctx *ir, nyb_status s) {
  const nyb_error *e = nyb_last_error(cx);
  ny_fail(&ir->diag, s, NULL, "%s", e ? e->message : nyb_status_text(s));
}

static nyb_tensor borrow(const ny_tensor *t) {
  return (nyb_tensor){.data = t->data,
                      .device = {1, 0},
                      .ndim = t->type->rank,
                      .dtype = ny_module_dtype((ny_fmt)t->type->fmt),
                      .shape = (int64_t *)t->type->dim};
}

static nyb_status run_module(nyb_module *m, ny_ctx *ir, const ny_tensor *in, size_t n_in, ny_arena *a, ny_tensor *out,
                             size_t n_out) {
  nyb_module_info info = {.size = sizeof info};
  NY_TRY(nyb_module_describe(m, &info));
  nyb_tensor *ti = NY_NEW_ARRAY(a, nyb_tensor, n_in + 1), *to = NY_NEW_ARRAY(a, nyb_tensor, n_out + 1);
  nyb_dim *dims = NY_NEW_ARRAY(a, nyb_dim, n_in * NY_MAX_RANK + 1);
  size_t n_dims = 0;
  for (size_t i = 0; i < n_in && i < info.n_inputs; i++) {
    ti[i] = borrow(&in[i]);
    for (int k = 0; k < info.inputs[i].ndim && k < in[i].type->rank; k++)
      if (info.inputs[i].symbols[k]) dims[n_dims++] = (nyb_dim){info.inputs[i].symbols[k], in[i].type->dim[k]};
  }
  nyb_session_options so = {.size = sizeof so, .threads = 2, .dims = dims, .n_dims = n_dims};
  nyb_session *session;
  NY_TRY(nyb_session_open(m, &so, &session));
  nyb_status s = nyb_run(session, ti, n_in, to, n_out);
  for (size_t i = 0; !s && i < n_out; i++) {
    out[i].type = ny_tensor_type(ir, ny_module_format(to[i].dtype), to[i].ndim, to[i].shape);
    out[i].data = ny_alloc(a, cli_tensor_bytes(&to[i]) + 16);
    memcpy(out[i].data, to[i].data, cli_tensor_bytes(&to[i]));
  }
  nyb_session_close(session);
  return s;
}

typedef struct how {
  ny_pass_options passes;
  const char *targets; /* NULL: the device's own */
  const char *device;  /* NULL: this CPU */
} how;

/* In the process of the case: a driver does not survive a fork. */
static nyb_status find_targets(const how *h, ny_target *room, ny_arena *a, ny_compile_targets *t, ny_diag *d) {
  ny_device *dev = NULL;
  if (h->targets || !h->device) return ny_target_list(h->targets ? h->targets : "host", a, &t->target, &t->n, d);
  const ny_target **own = NY_NEW(a, const ny_target *);
  NY_TRY(ny_device_open(h->device, &dev, d));
  nyb_status s = ny_target_of_device(dev, NULL, a, room, d);
  ny_device_close(dev);
  *own = room;
  t->target = own, t->n = 1;
  return s;
}

static nyb_status run_compiled(void *user, ny_unit *u, const ny_tensor *in, size_t n_in, ny_arena *a, ny_tensor *out,
                               size_t n_out) {
  const how *h = user;
  ny_compile_targets targets = {.one_device = true};
  ny_target room;
  nyb_options no_cache = {.size = sizeof no_cache, .cache_dir = ""};
  nyb_load_options trust = {.size = sizeof trust, .trust = 1, .device = h->device};
  nyb_context *cx;
  nyb_module *m = NULL;
  char path[] = "/tmp/nybble-test-XXXXXX";
  int fd = mkstemp(path);
  if (fd < 0 || nyb_open(&no_cache, &cx))
    return ny_fail(&u->cx->diag, NYB_E_IO, NULL, "no room for a temporary module");
  close(fd);
  nyb_status s = find_targets(h, &room, a, &targets, &u->cx->diag);
  if (!s) s = ny_compile_for(u, &h->passes, &targets, 1, path);
  if (s) {
    unlink(path);
    nyb_close(cx);
    return s;
  }
  s = nyb_load(cx, path, &trust, &m);
  unlink(path);
  if (!s) s = run_module(m, u->cx, in, n_in, a, out, n_out);
  if (s) hand_over(cx, u->cx, s);
  nyb_module_close(m);
  nyb_close(cx);
  return s;
}

int verb_test(int argc, char **argv) {
  static const char *file[CLI_MAX_ARGS];
  const char *device = NULL, *skip = NULL;
  how h = {0};
  int jobs = (int)sysconf(_SC_NPROCESSORS_ONLN), seconds = 60, evaluate = 0, json = 0, level = 2 + 1, verify = 0;
  const cli_option opt[] = {
      {"--jobs", CLI_COUNT, &jobs, "N", "cases at a time (default: all processors)"},
      {"--seconds", CLI_COUNT, &seconds, "N", "time limit of a case (default 60)"},
      {"--evaluate", CLI_FLAG, &evaluate, NULL, "run the reference evaluator instead of compiled code"},
      {"--optimize", CLI_LEVEL, &level, "N", "optimisation level 0 to 3 (default 2)"},
      {"--device", CLI_STRING, &device, "D", "cpu (default), cuda[:N], sim[:gb10|h100|rtx5090]"},
      {"--target", CLI_STRING, &h.targets, "T,U", "compile for these, run the best the device takes (default: its own)"},
      {"--verify", CLI_FLAG, &verify, NULL, "verify, print, re-read and compare after every pass"},
      {"--skip", CLI_STRING, &skip, "FILE", "lines CASE: reason: these must not pass, all others must"},
      {"--json", CLI_FLAG, &json, NULL, "print the counts as JSON"}};
  int n_file = cli_parse("test", opt, NY_COUNT(opt), argc, argv, file, 1, CLI_MAX_ARGS);
  h.passes = (ny_pass_options){.opt = level - 1, .verify_each = verify};
  if (device && strcmp(device, "cpu")) h.device = device;
  if (h.targets) { /* a misspelt one is said once, not by every case */
    ny_diag d = {0};
    ny_arena a = {0};
    ny_compile_targets t;
    nyb_status s = ny_target_list(h.targets, &a, &t.target, &t.n, &d);
    ny_arena_free(&a);
    if (s) return cli_diag(&d);
  }
  suite_options o = {
      .run = evaluate ? suite_evaluate : run_compiled, .user = &h, .jobs = jobs, .seconds = seconds, .skip = skip};
  suite_count count = {0};
  for (int i = 0; i < n_file; i++) suite_folder(file[i], &o, &count);
  if (json)
    printf("{\"passed\":%d,\"failed\":%d,\"skipped\":%d}\n", count.passed, count.failed, count.skipped);
  else
    printf("%d passed, %d failed, %d skipped\n", count.passed, count.failed, count.skipped);
  return count.failed ? CLI_FAILED : CLI_OK;
}
