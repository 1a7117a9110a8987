/* Quantised tensors: codes, and scales that blocks of them share. */
#include "eval.h"

/* Position in a scale or zero point of the element the walk stands at. */
static int64_t at_block(const ny_nd *it, const int64_t *stride, int axis, int64_t block) {
  int64_t at = 0;
  for (int i = 0; i < it->rank; i++) at += stride[i] * (block && i == axis ? it->i[i] / block : it->i[i]);
  return at;
}

static double number(const ny_tensor *t, int64_t at) {
  ny_fmt f = (ny_fmt)t->type->fmt;
  return ny_is_float(f) ? ny_get_f(f, t->data, (uint64_t)at) : (double)ny_get_i(f, t->data, (uint64_t)at);
}

/* As ONNX's DequantizeLinear: the difference and the product are f32, then the result is rounded to its format. */
nyb_status ny_ev_dequantize(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  const ny_type *t = in->type;
  int64_t count = ny_count(t), block = op->attr[NY_AT(dequantize, block)].i, stride[2][NY_MAX_RANK];
  int axis = 0;
  if (block) NY_TRY(ny_ev_axis(ev, op, op->attr[NY_AT(dequantize, axis)].i, t->rank, &axis));
  for (int k = 1; k < op->n_in; k++) {
    ny_strides(in[k].type, stride[k - 1]);
    for (int i = 0; i < t->rank; i++) {
      int64_t n = t->dim[i], want = block && i == axis ? (n + block - 1) / block : n, have = in[k].type->dim[i];
      if (have != 1 && have != want)
        return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "dequantize: dimension %d has %lld scales for %lld elements", i,
                          (long long)have, (long long)n);
      if (have == 1) stride[k - 1][i] = 0;
    }
  }
  if (!count) return NYB_OK;
  ny_nd it;
  ny_nd_init(&it, t->rank, t->dim, 0);
  for (int64_t at = 0; at < count; at++, ny_nd_next(&it)) {
    double x = number(&in[0], at), zero = op->n_in > 2 ? number(&in[2], at_block(&it, stride[1], axis, block)) : 0;
    float d = (float)x - (float)zero;
    double y = (double)d * (double)(float)number(&in[1], at_block(&it, stride[0], axis, block));
    ny_put_f((ny_fmt)out->type->fmt, out->data, (uint64_t)at, (float)y, false);
  }
  return NYB_OK;
}
