/* Small operators of ai.onnx.ml over numbers: Binarizer, Scaler, ArrayFeatureExtractor, LabelEncoder, LinearRegressor.
 */
#include "onnx.h"

#include <string.h>

static ny_value *as_float(ny_node *n, ny_value *x) {
  return x && !ny_is_float(ny_fmt_of(x)) ? ny_cast_to(n, x, NY_f32) : x;
}

nyb_status ny_op_binarizer(ny_node *n) {
  ny_value *on = ny_ew2s(n, NY_gt, as_float(n, n->in[0]), ny_attr_float(n, "threshold", 0));
  return ny_out(n, 0, ny_cast_to(n, on, ny_fmt_of(n->in[0])));
}

/* An attribute of floats as a vector in the format of x; NULL when it is absent. */
static ny_value *attr_vector(ny_node *n, const char *name, const ny_value *x) {
  int count;
  const double *v = ny_attr_floats(n, name, &count);
  return v && x ? ny_const_floats(n, ny_fmt_of(x), 1, (int64_t[]){count}, v) : NULL;
}

/* (x - offset) * scale, per feature or for all */
nyb_status ny_op_scaler(ny_node *n) {
  ny_value *x = as_float(n, n->in[0]), *offset = attr_vector(n, "offset", x), *scale = attr_vector(n, "scale", x);
  if (offset) x = ny_ew2(n, NY_sub, x, offset);
  if (scale) x = ny_ew2(n, NY_mul, x, scale);
  return ny_out(n, 0, ny_cast_to(n, x, NY_f32));
}

nyb_status ny_op_feature_extractor(ny_node *n) {
  ny_value *x = n->in[0], *at = ny_reshape_to(n, n->in[1], 1, (ny_dim[]){ny_type_count(n->cx, n->in[1]->type)});
  if (!ny_rank(x)) return ny_node_fail(n, NYB_E_SHAPE, "a scalar has no features");
  if (ny_rank(x) == 1) x = ny_unsqueeze_at(n, x, 0);
  return ny_out(n, 0, x ? ny_b_gather(&n->b, x, at, ny_rank(x) - 1) : NULL);
}

nyb_status ny_op_linear_regressor(ny_node *n) {
  ny_value *x = as_float(n, n->in[0]), *bias = attr_vector(n, "intercepts", x);
  int n_coef;
  const double *coef = ny_attr_floats(n, "coefficients", &n_coef);
  int64_t targets = ny_attr_int(n, "targets", 1);
  if (!x || ny_attr_choice(n, "post_transform", "NONE", "NONE")) return ny_failed(n);
  if (ny_rank(x) == 1) x = ny_unsqueeze_at(n, x, 0);
  if (targets < 1 || n_coef % targets || (bias && ny_size(bias, 0) != targets))
    return ny_node_fail(n, NYB_E_SHAPE, "%d coefficients for %lld targets", n_coef, (long long)targets);
  int64_t shape[2] = {targets, n_coef / targets};
  ny_value *w = x ? ny_const_floats(n, ny_fmt_of(x), 2, shape, coef) : NULL;
  ny_value *y = ny_b_matmul(&n->b, x, ny_matrix_transpose(n, w));
  if (bias) y = ny_ew2(n, NY_add, y, bias);
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
  ny_value *x = n->in[0], *keys = labels(n, "keys"), *values = labels(n, "values");
  if (n->cx->diag.code) return ny_failed(n);
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
  if (n->version >= 4 && ny_is_float(ny_fmt_of(x)))
    hit = ny_ew2(n, NY_or, hit, ny_ew2(n, NY_and, ny_ew1(n, NY_isnan, wide), ny_ew1(n, NY_isnan, keys)));
  hit = ny_cast_to(n, hit, NY_u8);
  ny_value *y = ny_b_gather(&n->b, values, ny_arg_reduce(n, hit, "max", last, false), 0);
  ny_value *any = ny_cast_to(n, ny_b_reduce(&n->b, "max", hit, &last, 1, false), NY_bool);
  return ny_out(n, 0, ny_where(n, any, y, ny_cast_to(n, def, f)));
}
