/* Any bytes as an ONNX model: imported and verified, or refused with a diagnostic. */
#include "frontend.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = NULL;
  nyb_status s = ny_import_onnx_memory(cx, data, n, "fuzz", NULL, 0, &u);
  if (s && !cx->diag.message[0]) abort(); /* an error without its story */
  if (!s && ny_verify_unit(u)) abort();   /* an import that is not well-formed */
  if (!s) ny_unit_free(u);
  ny_ctx_free(cx);
  return 0;
}
