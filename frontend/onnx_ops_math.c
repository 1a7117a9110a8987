/* Elementwise operators: each is one EW row of the IR or a short composite of them. */
#include "onnx.h"

nyb_status ny_op_unary(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  return x ? ny_out(n, 0, ny_ew1(n, (ny_kind)n->arg, x)) : ny_failed(n);
}

nyb_status ny_op_binary(ny_node *n) {
  ny_value *x = ny_need(n, 0), *y = ny_need(n, 1);
  return x && y ? ny_out(n, 0, ny_ew2(n, (ny_kind)n->arg, x, y)) : ny_failed(n);
}
