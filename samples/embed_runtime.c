/* Runs a compiled module with the runtime library alone: no compiler, no LLVM, no ONNX in the process.
   usage: embed_runtime MODEL.nyb [NAME=SIZE ...]     float inputs are 0.5, integers 1 */
#include <nybble/nybble.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX = 16 };

static void fill(nyb_tensor *t, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (t->dtype.code == NYB_FLOAT && t->dtype.bits == 32) ((float *)t->data)[i] = 0.5f;
    else ((unsigned char *)t->data)[i * (t->dtype.bits / 8u)] = 1; /* little-endian one */
  }
}

int main(int argc, char **argv) {
  if (argc < 2) return fprintf(stderr, "usage: embed_runtime MODEL.nyb [NAME=SIZE ...]\n"), 2;
  nyb_dim dims[MAX];
  size_t n_dims = 0;
  for (int i = 2; i < argc && n_dims < MAX; i++) {
    char *eq = strchr(argv[i], '=');
    if (!eq) return fprintf(stderr, "%s: expected NAME=SIZE\n", argv[i]), 2;
    *eq = 0;
    dims[n_dims++] = (nyb_dim){argv[i], atoll(eq + 1)};
  }
  nyb_context *cx = NULL;
  nyb_module *module = NULL;
  nyb_session *session = NULL;
  nyb_module_info info = {.size = sizeof info};
  nyb_load_options trust = {.size = sizeof trust, .trust = 1}; /* this file is ours */
  nyb_session_options so = {.size = sizeof so, .dims = dims, .n_dims = n_dims};
  if (nyb_open(NULL, &cx)) return 1;
  nyb_status s = nyb_load(cx, argv[1], &trust, &module);
  if (!s) s = nyb_module_describe(module, &info);
  if (!s) s = nyb_session_open(module, &so, &session);
  nyb_tensor in[MAX] = {0}, out[MAX] = {0};
  int64_t shape[MAX][MAX];
  for (size_t i = 0; !s && i < info.n_inputs && i < MAX; i++) {
    const nyb_value_info *v = &info.inputs[i];
    size_t n = 1;
    for (int d = 0; d < v->ndim; d++) {
      shape[i][d] = v->shape[d] < 0 ? 1 : v->shape[d];
      for (size_t k = 0; v->shape[d] < 0 && k < n_dims; k++)
        if (!strcmp(dims[k].name, v->symbols[d])) shape[i][d] = dims[k].size;
      n *= (size_t)shape[i][d];
    }
    in[i] = (nyb_tensor){calloc(n + 1, v->dtype.bits / 8u), {1, 0}, v->ndim, v->dtype, shape[i], NULL, 0};
    fill(&in[i], n);
  }
  if (!s) s = nyb_run(session, in, info.n_inputs, out, info.n_outputs);
  if (s) fprintf(stderr, "%s\n", nyb_last_error(cx) ? nyb_last_error(cx)->text : nyb_status_text(s));
  for (size_t i = 0; !s && i < info.n_outputs; i++) {
    printf("%s:", info.outputs[i].name);
    for (int d = 0; d < out[i].ndim; d++) printf(" %lld", (long long)out[i].shape[d]);
    if (out[i].dtype.code == NYB_FLOAT && out[i].dtype.bits == 32) printf("   first %g", (double)((float *)out[i].data)[0]);
    putchar('\n');
  }
  for (size_t i = 0; i < MAX; i++) free(in[i].data);
  nyb_session_close(session);
  nyb_module_close(module);
  nyb_close(cx);
  return s ? 1 : 0;
}
