/* Elementwise operators: each is one EW row of the IR or a short composite of them. */
#include "onnx.h"
#include <math.h>
#include <string.h>

nyb_status ny_op_unary(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  return x ? ny_out(n, 0, ny_ew1(n, (ny_kind)n->arg, x)) : ny_failed(n);
}

nyb_status ny_op_binary(ny_node *n) {
  ny_value *x = ny_need(n, 0), *y = ny_need(n, 1);
  return x && y ? ny_out(n, 0, ny_ew2(n, (ny_kind)n->arg, x, y)) : ny_failed(n);
}

/* Max, Min, Sum of one or more tensors. */
nyb_status ny_op_variadic(ny_node *n) {
  ny_value *acc = ny_need(n, 0);
  for (int i = 1; i < n->n_in && acc; i++) {
    ny_value *x = ny_need(n, i);
    acc = x ? ny_ew2(n, (ny_kind)n->arg, acc, x) : NULL;
  }
  return ny_out(n, 0, acc);
}

/* The exponent may have another type; the result has the base's. Integers go through f64, which holds what they usually
 * need. */
nyb_status ny_op_pow(ny_node *n) {
  ny_value *x = ny_need(n, 0), *y = ny_need(n, 1);
  if (!x || !y) return ny_failed(n);
  ny_fmt f = ny_fmt_of(x);
  if (ny_is_float(f)) {
    double e;
    bool widen = ny_fmts[f].bits < 32 && ny_is_float(ny_fmt_of(y)) && ny_fmts[ny_fmt_of(y)].bits >= 32;
    if (widen) return ny_out(n, 0, ny_cast_to(n, ny_ew2(n, NY_pow, ny_cast_to(n, x, ny_fmt_of(y)), y), f));
    ny_tensor t;
    bool square = ny_rank(y) == 0 && ny_onnx_const(n, 1, &t);
    if (square) {
      e = ny_is_float(ny_fmt_of(y)) ? ny_get_f(ny_fmt_of(y), t.data, 0) : (double)ny_get_i(ny_fmt_of(y), t.data, 0);
      if (e == 2.0)
        return ny_out(n, 0, ny_ew2(n, NY_mul, x, x)); /* exact where pow is: one multiplication, rounded once */
    }
    return ny_out(n, 0, ny_ew2(n, NY_pow, x, ny_cast_to(n, y, f)));
  }
  ny_value *p = ny_ew2(n, NY_pow, ny_cast_to(n, x, NY_f64), ny_cast_to(n, y, NY_f64));
  return ny_out(n, 0, ny_cast_to(n, p, f));
}

/* Bounds were attributes until opset 11 and are inputs, either of which may be absent, since. NaN stays NaN. */
nyb_status ny_op_clip(ny_node *n) {
  ny_value *x = ny_need(n, 0), *lo = ny_opt(n, 1), *hi = ny_opt(n, 2);
  if (!x) return ny_failed(n);
  if (n->version < 11) {
    if (ny_attr_has(n, "min")) lo = ny_num(n, x, ny_attr_float(n, "min", 0));
    if (ny_attr_has(n, "max")) hi = ny_num(n, x, ny_attr_float(n, "max", 0));
  }
  if (lo) x = ny_ew2(n, NY_max, x, lo);
  if (hi) x = ny_ew2(n, NY_min, x, hi);
  return ny_out(n, 0, x);
}

nyb_status ny_op_hard_sigmoid(ny_node *n) {
  ny_value *x = ny_need(n, 0), *y = x ? ny_ew1(n, NY_hard_sigmoid, x) : NULL;
  if (!y) return ny_failed(n);
  y->def->attr[NY_AT(hard_sigmoid, alpha)].f = ny_attr_float(n, "alpha", 0.2f);
  y->def->attr[NY_AT(hard_sigmoid, beta)].f = ny_attr_float(n, "beta", 0.5f);
  return ny_out(n, 0, y);
}

nyb_status ny_op_gelu(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  const char *how = ny_attr_string(n, "approximate", "none");
  if (!x) return ny_failed(n);
  bool tanh_form = !strcmp(how, "tanh");
  if (!tanh_form && strcmp(how, "none"))
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "approximate \"%s\" is neither none nor tanh", how);
  return ny_out(n, 0, ny_ew1(n, tanh_form ? NY_gelu_tanh : NY_gelu, x));
}

nyb_status ny_op_identity(ny_node *n) {
  if (n->n_in < 1 || (!n->in[0] && !n->in_thing[0].list && !n->in_thing[0].is_none))
    return ny_need(n, 0) ? NYB_OK : ny_failed(n);
  return ny_out_thing(n, 0, n->in_thing[0]);
}

/* At inference a dropout does nothing, and its mask (when asked for) keeps everything. */
nyb_status ny_op_dropout(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  double training = 0, ratio = 0.5;
  if (!x || !ny_node_scalar(n, 2, 0, &training) || !ny_node_scalar(n, 1, 0.5, &ratio)) return ny_failed(n);
  if (training != 0 && ratio != 0)
    return ny_node_fail(n, NYB_E_UNSUPPORTED,
                        "training mode with ratio %g drops at random; only inference is supported", ratio);
  if (ny_wanted(n, 1)) {
    ny_fmt f = n->version < 10 ? ny_fmt_of(x) : NY_bool;
    if (ny_out(n, 1, ny_full(n, f, ny_rank(x), x->type->dim, 1))) return ny_failed(n);
  }
  return ny_out(n, 0, x);
}
