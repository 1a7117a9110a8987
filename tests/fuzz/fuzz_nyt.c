/* Any bytes as .nyt text: what parses prints, and prints the same after it is read again. */
#include "ir.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = NULL, *again = NULL;
  ny_text t = {0}, t2 = {0};
  nyb_status s = ny_parse_unit(cx, (const char *)data, n, NULL, &u);
  if (s && !cx->diag.message[0]) abort();
  if (!s) {
    ny_print_unit(u, &t);
    if (ny_parse_unit(cx, t.s, t.n, NULL, &again)) abort();
    ny_print_unit(again, &t2);
    if (strcmp(t.s, t2.s)) abort();
    ny_unit_free(again);
    ny_unit_free(u);
  }
  ny_text_free(&t);
  ny_text_free(&t2);
  ny_ctx_free(cx);
  return 0;
}
