/* Small operators of ai.onnx.ml over numbers: Binarizer, Scaler, Normalizer, ArrayFeatureExtractor, LabelEncoder,
 * LinearRegressor. */
#include "onnx.h"

#include <string.h>

static ny_value *as_float(ny_node *n, ny_value *x) {
  return x && !ny_is_float(ny_fmt_of(x)) ? ny_cast_to(n, x, NY_f32) : x;
}

nyb_status ny_op_binarizer(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_value *on = x ? ny_ew2s(n, NY_gt, as_float(n, x), ny_attr_float(n, "threshold", 0)) : NULL;
  return on ? ny_out(n, 0, ny_cast_to(n, on, ny_fmt_of(x))) : ny_failed(n);
}

/* (x - offset) * scale, per feature or for all */
nyb_status ny_op_scaler(ny_node *n) {
  ny_value *x = as_float(n, ny_need(n, 0));
  int n_offset, n_scale;
  const double *offset = ny_attr_floats(n, "offset", &n_offset), *scale = ny_attr_floats(n, "scale", &n_scale);
  int64_t a = n_offset, b = n_scale;
  if (n_offset) x = ny_ew2(n, NY_sub, x, x ? ny_const_floats(n, ny_fmt_of(x), 1, &a, offset) : NULL);
  if (n_scale) x = ny_ew2(n, NY_mul, x, x ? ny_const_floats(n, ny_fmt_of(x), 1, &b, scale) : NULL);
  return x ? ny_out(n, 0, ny_cast_to(n, x, NY_f32)) : ny_failed(n);
}

/* Rows divided by their largest element, sum of magnitudes or length; a row of zeros stays. */
nyb_status ny_op_normalizer(ny_node *n) {
  ny_value *x = as_float(n, ny_need(n, 0));
  const char *norm = ny_attr_string(n, "norm", "MAX");
  if (!x) return ny_failed(n);
  int last = ny_rank(x) - 1;
  if (last < 0) return ny_node_fail(n, NYB_E_SHAPE, "a scalar has no rows");
  bool l2 = !strcmp(norm, "L2"), l1 = !strcmp(norm, "L1");
  if (!l1 && !l2 && strcmp(norm, "MAX")) return ny_node_fail(n, NYB_E_UNSUPPORTED, "norm is \"%s\"", norm);
  ny_value *d = ny_b_reduce(&n->b, l1 || l2 ? "sum" : "max",
                            l2   ? ny_ew2(n, NY_mul, x, x)
                            : l1 ? ny_ew1(n, NY_abs, x)
                                 : x,
                            &last, 1, true);
  if (l2) d = ny_ew1(n, NY_sqrt, d);
  if (!d) return ny_failed(n);
  d = ny_ew(n, NY_where, (ny_value *[]){ny_ew2s(n, NY_eq, d, 0), ny_num(n, d, 1), d}, 3);
  return ny_out(n, 0, ny_cast_to(n, ny_ew2(n, NY_div, x, d), NY_f32));
}

nyb_status ny_op_feature_extractor(ny_node *n) {
  ny_value *x = ny_need(n, 0), *at = ny_need(n, 1);
  if (!x || !at) return ny_failed(n);
  if (!ny_rank(x)) return ny_node_fail(n, NYB_E_SHAPE, "a scalar has no features");
  ny_dim count = ny_type_count(n->cx, at->type);
  at = ny_reshape_to(n, at, 1, &count);
  if (ny_rank(x) == 1) x = ny_unsqueeze_at(n, x, 0);
  return at && x ? ny_out(n, 0, ny_b_gather(&n->b, x, at, ny_rank(x) - 1)) : ny_failed(n);
}

nyb_status ny_op_linear_regressor(ny_node *n) {
  ny_value *x = as_float(n, ny_need(n, 0));
  int n_coef, n_bias;
  const double *coef = ny_attr_floats(n, "coefficients", &n_coef), *bias = ny_attr_floats(n, "intercepts", &n_bias);
  int64_t targets = ny_attr_int(n, "targets", 1);
  if (!x) return ny_failed(n);
  if (strcmp(ny_attr_string(n, "post_transform", "NONE"), "NONE"))
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "a post_transform is not supported");
  if (ny_rank(x) == 1) x = ny_unsqueeze_at(n, x, 0);
  if (targets < 1 || n_coef % targets || (n_bias && n_bias != targets))
    return ny_node_fail(n, NYB_E_SHAPE, "%d coefficients for %lld targets", n_coef, (long long)targets);
  int64_t shape[2] = {targets, n_coef / targets};
  ny_value *w = x ? ny_const_floats(n, ny_fmt_of(x), 2, shape, coef) : NULL;
  w = w ? ny_b_transpose(&n->b, w, (int[]){1, 0}) : NULL;
  ny_value *y = w ? ny_b_matmul(&n->b, x, w) : NULL;
  if (y && n_bias) y = ny_ew2(n, NY_add, y, ny_const_floats(n, ny_fmt_of(y), 1, &targets, bias));
  return ny_out(n, 0, ny_cast_to(n, y, NY_f32));
}

/* keys or values of a LabelEncoder as a constant vector; NULL when they are not numbers or not there. */
static ny_value *labels(ny_node *n, const char *stem) {
  char name[64];
  int count;
  snprintf(name, sizeof name, "%s_tensor", stem);
  if (ny_attr_has(n, name)) return ny_attr_tensor(n, name);
  snprintf(name, sizeof name, "%s_int64s", stem);
  const int64_t *i = ny_attr_ints(n, name, &count);
  int64_t size = count;
  if (i) return ny_const_ints(n, NY_i64, 1, &size, i);
  snprintf(name, sizeof name, "%s_floats", stem);
  const double *f = ny_attr_floats(n, name, &count);
  size = count;
  return f ? ny_const_floats(n, NY_f32, 1, &size, f) : NULL;
}

/* The value of the first key that equals the input, or the default. From version 4 on NaN equals NaN. */
nyb_status ny_op_label_encoder(ny_node *n) {
  ny_value *x = ny_need(n, 0), *keys = labels(n, "keys"), *values = labels(n, "values");
  if (!x || n->cx->diag.code) return ny_failed(n);
  if (!keys || !values) return ny_node_fail(n, NYB_E_UNSUPPORTED, "labels that are strings are not supported");
  ny_fmt f = ny_fmt_of(values);
  if (ny_rank(keys) != 1 || ny_rank(values) != 1 || ny_size(keys, 0) != ny_size(values, 0) ||
      ny_fmt_of(keys) != ny_fmt_of(x) || ny_rank(x) >= NY_MAX_RANK)
    return ny_node_fail(n, NYB_E_SHAPE, "keys and values of a LabelEncoder do not match each other or the input");
  ny_value *def = ny_attr_has(n, "default_tensor") ? ny_reshape_to(n, ny_attr_tensor(n, "default_tensor"), 0, NULL)
                  : ny_is_float(f)                 ? ny_num(n, values, ny_attr_float(n, "default_float", 0))
                                                   : ny_num(n, values, (double)ny_attr_int(n, "default_int64", -1));
  int last = ny_rank(x);
  ny_value *wide = ny_unsqueeze_at(n, x, last), *hit = ny_ew2(n, NY_eq, wide, keys);
  if (hit && n->version >= 4 && ny_is_float(ny_fmt_of(x)))
    hit = ny_ew2(n, NY_or, hit, ny_ew2(n, NY_and, ny_ew1(n, NY_isnan, wide), ny_ew1(n, NY_isnan, keys)));
  hit = ny_cast_to(n, hit, NY_u8);
  if (!hit) return ny_failed(n);
  const ny_type *t = ny_type_with_fmt(n->cx, x->type, NY_i64);
  ny_op *first = ny_build(&n->b, NY_argreduce, &hit, 1, &t, 1);
  if (!first) return ny_failed(n);
  first->attr[NY_AT(argreduce, axis)].i = last;
  ny_value *y = ny_b_gather(&n->b, values, ny_done(n, first), 0);
  ny_value *any = ny_cast_to(n, ny_b_reduce(&n->b, "max", hit, &last, 1, false), NY_bool);
  return ny_out(n, 0, ny_ew(n, NY_where, (ny_value *[]){any, y, ny_cast_to(n, def, f)}, 3));
}
