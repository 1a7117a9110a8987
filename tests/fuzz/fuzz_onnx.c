/* Any bytes as an ONNX model: imported and verified, or refused with a diagnostic; opened for editing, raised to a newer
   operator set and written. */
#include "frontend.h"
#include "onnx_edit.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void edit(const uint8_t *data, size_t n) {
  ny_ctx *cx = ny_ctx_new();
  ny_edit *e = NULL;
  nyb_status s = ny_edit_open_memory(cx, data, n, "fuzz", &e);
  const char *outer = !s && e->graph->n_in ? e->graph->in[0].name : "";
  ny_edit_tensor one = {.fmt = NY_u8, .data = "1"};
  if (!s) s = ny_edit_raise_opset(e, 23);
  if (!s && *outer) s = ny_edit_insert(e, outer, "Mul", "factor", &one);
  if (!s) s = ny_edit_write(e, "/dev/null", 0);
  if (s && !cx->diag.message[0]) abort();
  ny_edit_close(e);
  ny_ctx_free(cx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  edit(data, n);
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = NULL;
  nyb_status s = ny_import_onnx_memory(cx, data, n, "fuzz", NULL, 0, &u);
  if (s && !cx->diag.message[0]) abort(); /* an error without its story */
  if (!s && ny_verify_unit(u)) abort();   /* an import that is not well-formed */
  if (!s) ny_unit_free(u);
  ny_ctx_free(cx);
  return 0;
}
