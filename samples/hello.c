/* Hello: compile a model at load, run it once. usage: hello MODEL.onnx */
#include <nybble/nybble.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(nyb_context *cx) { return fprintf(stderr, "%s\n", nyb_last_error(cx)->text), 1; }

int main(int argc, char **argv) {
  nyb_context *cx;
  nyb_module *module;
  nyb_session *session;
  nyb_module_info info = {.size = sizeof info};
  if (argc != 2 || nyb_open(NULL, &cx)) return 2;
  if (nyb_open_model(cx, argv[1], NULL, NULL, &module) || nyb_session_open(module, NULL, &session)) return failed(cx);
  if (nyb_module_describe(module, &info)) return failed(cx);
  nyb_tensor in[8] = {0}, out[8] = {0};
  int64_t shape[8][8];
  for (size_t i = 0; i < info.n_inputs && i < 8; i++) { /* zeros, and 1 for every symbolic dimension */
    size_t bytes = info.inputs[i].dtype.bits / 8;
    for (int d = 0; d < info.inputs[i].ndim; d++) bytes *= (size_t)(shape[i][d] = info.inputs[i].shape[d] < 0 ? 1 : info.inputs[i].shape[d]);
    in[i] = (nyb_tensor){calloc(1, bytes), {1, 0}, info.inputs[i].ndim, info.inputs[i].dtype, shape[i], NULL, 0};
  }
  if (info.n_inputs > 8 || info.n_outputs > 8 || nyb_run(session, in, info.n_inputs, out, info.n_outputs)) return failed(cx);
  for (size_t i = 0; i < info.n_outputs; i++) printf("%s: %d dimensions at %p\n", info.outputs[i].name, out[i].ndim, out[i].data);
  return nyb_session_close(session), nyb_module_close(module), nyb_close(cx), 0;
}
