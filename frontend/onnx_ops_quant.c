/* Quantisation. Scales are one number, one per slice of an axis, or one per block of an axis. Integer results are
   exact: sums in i32, the rescaling of QLinear operators in f64, as the operator definitions compute it. */
#include "onnx.h"

/* scale or zero point, shaped to broadcast with x. */
static ny_value *spread(ny_node *n, ny_value *v, const ny_value *x, int64_t axis, int64_t block) {
  int64_t count, size;
  int rank = ny_rank(x), a;
  if (!ny_rank(v)) return v;
  if (ny_type_static_count(n->cx, v->type, &count) && count == 1) return ny_reshape_to(n, v, 0, NULL);
  if (!ny_axis(n, axis, rank, &a)) return NULL;
  if (!block) {
    if (ny_rank(v) != 1)
      return ny_node_fail(n, NYB_E_SHAPE, "scale and zero point have rank %d without a block size", ny_rank(v)), NULL;
    ny_dim shape[NY_MAX_RANK];
    for (int i = 0; i < rank; i++) shape[i] = i == a ? ny_size(v, 0) : 1;
    return ny_reshape_to(n, v, rank, shape);
  }
  if (ny_rank(v) != rank || block < 0)
    return ny_node_fail(n, NYB_E_SHAPE, "blocks of %lld with a scale of rank %d", (long long)block, ny_rank(v)), NULL;
  if (!ny_need_static(n, v, a, "the number of blocks", &count) ||
      !ny_need_static(n, x, a, "the size split into blocks", &size))
    return NULL;
  if (count != (size + block - 1) / block)
    return ny_node_fail(n, NYB_E_SHAPE, "%lld scales for %lld elements in blocks of %lld", (long long)count,
                        (long long)size, (long long)block),
           NULL;
  int64_t *at = NY_NEW_ARRAY(n->tmp, int64_t, size + 1);
  for (int64_t i = 0; i < size; i++) at[i] = i / block;
  ny_value *index = ny_const_ints(n, NY_i64, 1, &size, at);
  return index ? ny_b_gather(&n->b, v, index, a) : NULL;
}

static bool narrow_float(ny_fmt f) { return ny_is_float(f) && ny_fmts[f].bits < 16; }

/* Rounds half to even, adds the zero point and clamps to the range of integer format f; x in f32 or wider. */
static ny_value *to_int(ny_node *n, ny_value *x, ny_value *zero, ny_fmt f) {
  const ny_fmt_info *i = &ny_fmts[f];
  double lo = i->kind == 'I' ? -(double)(1LL << (i->bits - 1)) : 0,
         hi = i->kind == 'I' ? (double)(1LL << (i->bits - 1)) - 1 : (double)(1LL << i->bits) - 1;
  x = x ? ny_ew1(n, NY_round, x) : NULL;
  if (x && zero) x = ny_ew2(n, NY_add, x, ny_cast_to(n, zero, ny_fmt_of(x)));
  x = x ? ny_ew2(n, NY_max, x, ny_num(n, x, lo)) : NULL;
  x = x ? ny_ew2(n, NY_min, x, ny_num(n, x, hi)) : NULL;
  return x ? ny_cast_to(n, x, f) : NULL;
}

static ny_value *wide(ny_node *n, ny_value *x) {
  return x && ny_fmts[ny_fmt_of(x)].bits < 32 ? ny_cast_to(n, x, NY_f32) : x;
}

nyb_status ny_op_quantize(ny_node *n) {
  ny_value *x = ny_need(n, 0), *scale = ny_need(n, 1), *zero = ny_opt(n, 2);
  int64_t axis = ny_attr_int(n, "axis", 1), block = ny_attr_int(n, "block_size", 0);
  ny_fmt f, precision, natural = !x || !scale ? NY_f32 : ny_is_float(ny_fmt_of(x)) ? ny_fmt_of(x) : ny_fmt_of(scale);
  if (!x || !scale || !ny_attr_fmt(n, "output_dtype", NY_u8, &f) || !ny_attr_fmt(n, "precision", natural, &precision))
    return ny_failed(n);
  if (zero) f = ny_fmt_of(zero);
  scale = spread(n, scale, x, axis, block);
  zero = zero && scale ? spread(n, zero, x, axis, block) : NULL;
  if (!scale || (ny_opt(n, 2) && !zero)) return ny_failed(n);
  ny_value *xs = ny_cast_to(n, x, precision), *ss = ny_cast_to(n, scale, precision);
  ny_value *q = xs && ss ? wide(n, ny_ew2(n, NY_div, xs, ss)) : NULL;
  if (!q) return ny_failed(n);
  if (ny_is_int(f) && ny_fmts[f].bits <= 16) return ny_out(n, 0, to_int(n, q, zero, f));
  if (!narrow_float(f)) return ny_node_fail(n, NYB_E_UNSUPPORTED, "quantising to %s is not supported", ny_fmts[f].name);
  if (f == NY_f4e2m1 && zero) q = ny_ew2(n, NY_add, q, ny_cast_to(n, zero, ny_fmt_of(q)));
  ny_value *y = q ? ny_cast_to(n, q, f) : NULL;
  if (y && y->def && y->def->kind == NY_cast)
    y->def->attr[NY_AT(cast, saturate)].i = ny_attr_int(n, "saturate", 1) != 0;
  return ny_out(n, 0, y);
}

nyb_status ny_op_dequantize(ny_node *n) {
  ny_value *x = ny_need(n, 0), *scale = ny_need(n, 1), *zero = ny_opt(n, 2);
  int64_t axis = ny_attr_int(n, "axis", 1), block = ny_attr_int(n, "block_size", 0);
  ny_fmt f;
  if (!x || !scale || !ny_attr_fmt(n, "output_dtype", ny_fmt_of(scale), &f)) return ny_failed(n);
  scale = spread(n, scale, x, axis, block);
  bool shifted = zero && !narrow_float(ny_fmt_of(x)); /* the zero point of a float format is 0 */
  if (shifted && scale) zero = spread(n, zero, x, axis, block);
  if (!scale || (shifted && !zero)) return ny_failed(n);
  ny_value *y;
  if (ny_fmt_of(x) == NY_i32 && shifted) { /* 32-bit differences need not fit f32 before they are taken */
    y = ny_ew2(n, NY_sub, x, zero);
    y = y ? ny_cast_to(n, y, NY_f32) : NULL;
  } else {
    y = ny_cast_to(n, x, NY_f32);
    if (y && shifted) y = ny_ew2(n, NY_sub, y, ny_cast_to(n, zero, NY_f32));
  }
  y = y ? ny_ew2(n, NY_mul, y, ny_cast_to(n, scale, NY_f32)) : NULL;
  return y ? ny_out(n, 0, ny_cast_to(n, y, f)) : ny_failed(n);
}

nyb_status ny_op_dynamic_quantize(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  if (!x) return ny_failed(n);
  int axes[NY_MAX_RANK];
  for (int i = 0; i < ny_rank(x); i++) axes[i] = i;
  ny_value *zero = ny_num(n, x, 0);
  ny_value *hi = ny_rank(x) ? ny_b_reduce(&n->b, "max", x, axes, ny_rank(x), false) : x;
  ny_value *lo = ny_rank(x) ? ny_b_reduce(&n->b, "min", x, axes, ny_rank(x), false) : x;
  if (!zero || !hi || !lo) return ny_failed(n);
  hi = ny_ew2(n, NY_max, hi, zero), lo = ny_ew2(n, NY_min, lo, zero);
  ny_value *range = hi && lo ? ny_ew2(n, NY_sub, hi, lo) : NULL;
  ny_value *flat = range ? ny_ew2(n, NY_eq, hi, lo) : NULL;
  ny_value *scale =
      flat ? ny_ew2s(n, NY_div, ny_ew(n, NY_where, (ny_value *[]){flat, ny_num(n, range, 1), range}, 3), 255) : NULL;
  ny_value *zp = scale ? ny_ew2(n, NY_sub, zero, ny_ew2(n, NY_div, lo, scale)) : NULL;
  zp = zp ? to_int(n, zp, NULL, NY_u8) : NULL;
  ny_value *q = zp ? ny_ew2(n, NY_div, x, scale) : NULL;
  if (!q) return ny_failed(n);
  NY_TRY(ny_out(n, 0, to_int(n, q, zp, NY_u8)));
  NY_TRY(ny_out(n, 1, scale));
  return ny_out(n, 2, zp);
}

/* ---- Integer contractions */
/* i32 of x minus its zero point; a vector of zero points lies along `axis` of x. */
static ny_value *centred(ny_node *n, ny_value *x, ny_value *zero, int axis) {
  ny_value *y = ny_cast_to(n, x, NY_i32);
  int64_t count;
  if (!y || !zero) return y;
  zero = ny_cast_to(n, zero, NY_i32);
  if (!zero) return NULL;
  if (ny_type_static_count(n->cx, zero->type, &count) && count == 1)
    zero = ny_reshape_to(n, zero, 0, NULL);
  else if (ny_rank(zero) == 1) {
    ny_dim shape[NY_MAX_RANK];
    for (int i = 0; i < ny_rank(x); i++) shape[i] = i == axis ? ny_size(zero, 0) : 1;
    zero = ny_reshape_to(n, zero, ny_rank(x), shape);
  }
  return zero ? ny_ew2(n, NY_sub, y, zero) : NULL;
}

nyb_status ny_op_matmul_integer(ny_node *n) {
  ny_value *a = ny_need(n, 0), *b = ny_need(n, 1);
  if (!a || !b) return ny_failed(n);
  a = centred(n, a, ny_opt(n, 2), ny_rank(a) - 2);
  b = a ? centred(n, b, ny_opt(n, 3), ny_rank(b) - 1) : NULL;
  return b ? ny_out(n, 0, ny_b_matmul(&n->b, a, b)) : ny_failed(n);
}

/* round(sum * (sa*sb/sy)) + zero, clamped; the factor in the format of the scales, the product in f64. */
static ny_value *requantised(ny_node *n, ny_value *sum, ny_value *sa, ny_value *sb, ny_value *sy, ny_value *zero) {
  ny_value *m = sum && sa && sb && sy ? ny_ew2(n, NY_div, ny_ew2(n, NY_mul, sa, sb), sy) : NULL;
  ny_value *y = m ? ny_ew2(n, NY_mul, ny_cast_to(n, sum, NY_f64), ny_cast_to(n, m, NY_f64)) : NULL;
  if (y) y = ny_ew2(n, NY_add, y, ny_cast_to(n, zero, NY_f64));
  return y ? to_int(n, y, NULL, ny_fmt_of(zero)) : NULL;
}

/* A scale vector of a matmul operand lies along `axis` of it, counted from the end of the result. */
static ny_value *matrix_scale(ny_node *n, ny_value *s, bool rows) {
  int64_t count;
  if (!s || !ny_rank(s)) return s;
  if (ny_type_static_count(n->cx, s->type, &count) && count == 1) return ny_reshape_to(n, s, 0, NULL);
  if (ny_rank(s) == 1 && rows) return ny_unsqueeze_at(n, s, 1);
  return s;
}

nyb_status ny_op_qlinear_matmul(ny_node *n) {
  ny_value *in[8];
  for (int i = 0; i < 8; i++)
    if (!(in[i] = ny_need(n, i))) return ny_failed(n);
  ny_value *a = centred(n, in[0], in[2], ny_rank(in[0]) - 2), *b = centred(n, in[3], in[5], ny_rank(in[3]) - 1);
  ny_value *sum = a && b ? ny_b_matmul(&n->b, a, b) : NULL;
  ny_value *sa = matrix_scale(n, in[1], true), *sb = matrix_scale(n, in[4], false), *sy = matrix_scale(n, in[6], true);
  return sum ? ny_out(n, 0, requantised(n, sum, sa, sb, sy, matrix_scale(n, in[7], true))) : ny_failed(n);
}

/* conv of i32 tensors in ONNX layout: x[n,c,s..] padded here, w[m,c/group,k..]. */
static ny_value *conv_i32(ny_node *n, ny_value *x, ny_value *w) {
  int rank = ny_rank(x), sp = rank - 2, np, ns, nd;
  const int64_t *p = ny_attr_ints(n, "pads", &np), *st = ny_attr_ints(n, "strides", &ns),
                *di = ny_attr_ints(n, "dilations", &nd);
  const char *automatic = ny_attr_string(n, "auto_pad", "NOTSET");
  int64_t group = ny_attr_int(n, "group", 1), m, c;
  if (sp < 1 || ny_rank(w) != rank || (np && np != 2 * sp) || (ns && ns != sp) || (nd && nd != sp))
    return ny_node_fail(n, NYB_E_SHAPE, "input of rank %d, weight of rank %d, %d pads", rank, ny_rank(w), np), NULL;
  if (automatic[0] != 'N' && automatic[0] != 'V')
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "auto_pad is \"%s\"", automatic), NULL;
  if (!ny_need_static(n, w, 0, "the number of output channels", &m) ||
      !ny_need_static(n, x, 1, "the number of channels", &c))
    return NULL;
  if (group < 1 || c % group || m % group)
    return ny_node_fail(n, NYB_E_SHAPE, "%lld and %lld channels in %lld groups", (long long)c, (long long)m,
                        (long long)group),
           NULL;
  ny_dim lo[NY_MAX_RANK] = {0}, hi[NY_MAX_RANK] = {0}, k[NY_MAX_RANK], stride[NY_MAX_RANK], dil[NY_MAX_RANK],
         shape[NY_MAX_RANK];
  int xp[NY_MAX_RANK] = {0}, wp[NY_MAX_RANK], back[NY_MAX_RANK] = {0, rank - 1};
  for (int i = 0; i < sp; i++) {
    int64_t kc;
    if (!ny_need_static(n, w, i + 2, "a kernel size", &kc)) return NULL;
    lo[i + 2] = np && automatic[0] == 'N' ? p[i] : 0, hi[i + 2] = np && automatic[0] == 'N' ? p[sp + i] : 0;
    k[i] = kc, stride[i] = ns ? st[i] : 1, dil[i] = nd ? di[i] : 1;
    if (lo[i + 2] < 0 || hi[i + 2] < 0 || stride[i] < 1 || dil[i] < 1)
      return ny_node_fail(n, NYB_E_SHAPE, "pads, strides or dilations of axis %d", i), NULL;
    xp[i + 1] = i + 2, wp[i] = i + 2, back[i + 2] = i + 1;
  }
  xp[rank - 1] = 1, wp[sp] = 1, wp[sp + 1] = 0;
  x = ny_b_pad(&n->b, x, NULL, lo, hi, NULL, "constant");
  x = x ? ny_b_transpose(&n->b, x, xp) : NULL;
  w = x ? ny_b_transpose(&n->b, w, wp) : NULL;
  if (!w) return NULL;
  shape[0] = ny_size(x, 0), shape[rank - 1] = m;
  for (int i = 0; i < sp; i++) {
    ny_dim reach = ny_dim_sub(n->cx, ny_size(x, i + 1), ny_dim_const(n->cx, dil[i] * (k[i] - 1) + 1));
    shape[i + 1] = ny_dim_add(n->cx, ny_dim_div(n->cx, reach, stride[i]), 1);
  }
  const ny_type *t = ny_tensor_type(n->cx, NY_i32, rank, shape);
  ny_op *op = ny_build(&n->b, NY_conv, (ny_value *[]){x, w}, 2, &t, 1);
  if (!op) return NULL;
  op->attr[NY_AT(conv, kernel)] = ny_dims_attr(n->b.g, k, (size_t)sp);
  op->attr[NY_AT(conv, stride)] = ny_dims_attr(n->b.g, stride, (size_t)sp);
  op->attr[NY_AT(conv, dilation)] = ny_dims_attr(n->b.g, dil, (size_t)sp);
  op->attr[NY_AT(conv, group)].i = group;
  return ny_b_transpose(&n->b, ny_done(n, op), back);
}

nyb_status ny_op_conv_integer(ny_node *n) {
  ny_value *x = ny_need(n, 0), *w = ny_need(n, 1);
  if (!x || !w) return ny_failed(n);
  x = centred(n, x, ny_opt(n, 2), 1);
  w = x ? centred(n, w, ny_opt(n, 3), 0) : NULL;
  return w ? ny_out(n, 0, conv_i32(n, x, w)) : ny_failed(n);
}

static ny_value *channel_vector(ny_node *n, ny_value *v, int rank) {
  int64_t count;
  if (!v || !ny_rank(v)) return v;
  if (ny_type_static_count(n->cx, v->type, &count) && count == 1) return ny_reshape_to(n, v, 0, NULL);
  ny_dim shape[NY_MAX_RANK];
  for (int i = 0; i < rank - 1; i++) shape[i] = i ? 1 : ny_size(v, 0);
  return ny_reshape_to(n, v, rank - 1, shape);
}

nyb_status ny_op_qlinear_conv(ny_node *n) {
  ny_value *in[8];
  for (int i = 0; i < 8; i++)
    if (!(in[i] = ny_need(n, i))) return ny_failed(n);
  int rank = ny_rank(in[0]);
  ny_value *x = centred(n, in[0], in[2], 1), *w = centred(n, in[3], in[5], 0);
  ny_value *sum = x && w ? conv_i32(n, x, w) : NULL;
  if (sum && ny_opt(n, 8)) sum = ny_ew2(n, NY_add, sum, channel_vector(n, ny_opt(n, 8), rank));
  return sum ? ny_out(n, 0, requantised(n, sum, in[1], channel_vector(n, in[4], rank), in[6], in[7])) : ny_failed(n);
}
