/* Quantisation. Scales are one number, one per slice of an axis, or one per block of an axis. Integer results are
   exact: sums in i32, the rescaling of QLinear operators in f64, as the operator definitions compute it. */
#include "onnx_conv.h"
#include "onnx_quant.h"
#include <math.h>

/* A scale or zero point that is one number, or a vector along `axis` of a tensor of `rank`. */
static ny_value *broadcast_along(ny_node *n, ny_value *v, int axis, int rank) {
  int64_t count;
  if (v && ny_type_static_count(n->cx, v->type, &count) && count == 1) return ny_reshape_to(n, v, 0, NULL);
  return v && ny_rank(v) == 1 ? ny_along(n, v, axis, rank) : v;
}

/* Scale or zero point i of QuantizeLinear and its inverse, to broadcast with x; NULL when it is absent or fails. */
static ny_value *spread(ny_node *n, int i) {
  ny_value *x = n->in[0], *v = ny_opt(n, i);
  int64_t count, size, block = ny_attr_int(n, "block_size", 0);
  int axis, rank = ny_rank(x);
  if (!v || !ny_rank(v)) return v;
  if (ny_type_static_count(n->cx, v->type, &count) && count == 1) return ny_reshape_to(n, v, 0, NULL);
  if (!ny_attr_axis(n, 1, rank, &axis)) return NULL;
  if (!block) return ny_along(n, v, axis, rank);
  if (ny_rank(v) != rank || block < 0)
    return ny_refuse_value(n, NYB_E_SHAPE, "blocks of %lld with a scale of rank %d", (long long)block, ny_rank(v));
  if (!ny_need_static(n, v, axis, "the number of blocks", &count) ||
      !ny_need_static(n, x, axis, "the size split into blocks", &size))
    return NULL;
  if (count != (size + block - 1) / block)
    return ny_refuse_value(n, NYB_E_SHAPE, "%lld scales for %lld elements in blocks of %lld", (long long)count,
                           (long long)size, (long long)block);
  int64_t *at = NY_NEW_ARRAY(n->tmp, int64_t, size + 1);
  for (int64_t k = 0; k < size; k++) at[k] = k / block;
  return ny_b_gather(&n->b, v, ny_const_ints(n, NY_i64, 1, &size, at), axis);
}

static bool narrow_float(ny_fmt f) { return ny_is_float(f) && ny_fmts[f].bits < 16; }

/* Rounds half to even, adds the zero point and clamps to the range of integer format f; x in f32 or wider. */
static ny_value *to_int(ny_node *n, ny_value *x, ny_value *zero, ny_fmt f) {
  const ny_fmt_info *i = &ny_fmts[f];
  bool is_signed = i->kind == 'I';
  double lo = is_signed ? -ldexp(1, i->bits - 1) : 0, hi = ldexp(1, i->bits - is_signed) - 1;
  x = ny_ew1(n, NY_round, x);
  if (x && zero) x = ny_ew2(n, NY_add, x, ny_cast_to(n, zero, ny_fmt_of(x)));
  return ny_cast_to(n, ny_ew2s(n, NY_min, ny_ew2s(n, NY_max, x, lo), hi), f);
}

nyb_status ny_op_quantize(ny_node *n) {
  ny_value *x = n->in[0], *zero = ny_opt(n, 2);
  ny_fmt f, precision, natural = ny_is_float(ny_fmt_of(x)) ? ny_fmt_of(x) : ny_fmt_of(n->in[1]);
  if (!ny_attr_fmt(n, "output_dtype", (ny_fmt)n->arg, &f) || !ny_attr_fmt(n, "precision", natural, &precision))
    return ny_failed(n);
  if (zero) f = ny_fmt_of(zero);
  zero = spread(n, 2);
  ny_value *q = ny_ew2(n, NY_div, ny_cast_to(n, x, precision), ny_cast_to(n, spread(n, 1), precision));
  if (!q) return ny_failed(n);
  q = ny_cast_to(n, q, ny_wide(ny_fmt_of(q)));
  if (ny_is_int(f) && ny_fmts[f].bits <= 16) return ny_out(n, 0, to_int(n, q, zero, f));
  if (!narrow_float(f)) return ny_node_fail(n, NYB_E_UNSUPPORTED, "quantising to %s is not supported", ny_fmts[f].name);
  if (f == NY_f4e2m1 && zero) q = ny_ew2(n, NY_add, q, ny_cast_to(n, zero, ny_fmt_of(q)));
  ny_value *y = ny_cast_to(n, q, f);
  if (y && y->def && y->def->kind == NY_cast)
    y->def->attr[NY_AT(cast, saturate)].i = ny_attr_int(n, "saturate", 1) != 0;
  return ny_out(n, 0, y);
}

/* Weights and what is quantised by blocks keep their codes: passes and kernels know what to do with them. */
static nyb_status keep_codes(ny_node *n, ny_fmt f) {
  ny_value *x = n->in[0];
  int64_t block = ny_attr_int(n, "block_size", 0);
  int axis = 0;
  if (ny_rank(x) && !ny_attr_axis(n, 1, ny_rank(x), &axis)) return ny_failed(n);
  ny_value *scale = ny_scale_of(n, x, 1, axis, block);
  ny_value *zero = narrow_float(ny_fmt_of(x)) ? NULL : ny_scale_of(n, x, 2, axis, block);
  return ny_out(n, 0, scale ? ny_b_dequantize(&n->b, f, x, scale, zero, axis, block) : NULL);
}

nyb_status ny_op_dequantize(ny_node *n) {
  ny_value *x = n->in[0];
  bool weights = x->def && x->def->kind == NY_const && ny_fmts[ny_fmt_of(x)].bits <= 8;
  ny_fmt f;
  if (!ny_attr_fmt(n, "output_dtype", ny_fmt_of(n->in[1]), &f)) return ny_failed(n);
  if (weights || ny_attr_int(n, "block_size", 0)) return keep_codes(n, f);
  ny_value *scale = spread(n, 1);
  ny_value *zero = narrow_float(ny_fmt_of(x)) ? NULL : spread(n, 2); /* the zero point of a float format is 0 */
  bool whole = ny_fmt_of(x) == NY_i32 && zero; /* 32-bit differences need not fit f32 before they are taken */
  ny_value *y = whole ? ny_cast_to(n, ny_ew2(n, NY_sub, x, zero), NY_f32) : ny_cast_to(n, x, NY_f32);
  if (zero && !whole) y = ny_ew2(n, NY_sub, y, ny_cast_to(n, zero, NY_f32));
  return ny_out(n, 0, ny_cast_to(n, ny_ew2(n, NY_mul, y, ny_cast_to(n, scale, NY_f32)), f));
}

nyb_status ny_op_dynamic_quantize(ny_node *n) {
  ny_value *x = n->in[0], *zero = ny_num(n, x, 0);
  int axes[NY_MAX_RANK], rank = ny_rank(x);
  for (int i = 0; i < rank; i++) axes[i] = i;
  ny_value *hi = ny_ew2(n, NY_max, rank ? ny_b_reduce(&n->b, "max", x, axes, rank, false) : x, zero);
  ny_value *lo = ny_ew2(n, NY_min, rank ? ny_b_reduce(&n->b, "min", x, axes, rank, false) : x, zero);
  ny_value *range = ny_ew2(n, NY_sub, hi, lo), *flat = ny_ew2(n, NY_eq, hi, lo);
  ny_value *scale = ny_ew2s(n, NY_div, ny_where(n, flat, ny_num(n, range, 1), range), 255);
  ny_value *zp = to_int(n, ny_ew2(n, NY_sub, zero, ny_ew2(n, NY_div, lo, scale)), NULL, NY_u8);
  NY_TRY(ny_out(n, 0, to_int(n, ny_ew2(n, NY_div, x, scale), zp, NY_u8)));
  NY_TRY(ny_out(n, 1, scale));
  return ny_out(n, 2, zp);
}

/* ---- Integer contractions */
/* i32 of x minus its zero point; a vector of zero points lies along `axis` of x. */
static ny_value *centred(ny_node *n, ny_value *x, ny_value *zero, int axis) {
  ny_value *y = ny_cast_to(n, x, NY_i32);
  if (!zero) return y;
  return ny_ew2(n, NY_sub, y, broadcast_along(n, ny_cast_to(n, zero, NY_i32), axis, ny_rank(x)));
}

static ny_value *product(ny_node *n, int a, int b, ny_value *a_zero, ny_value *b_zero) {
  ny_value *x = n->in[a], *y = n->in[b];
  return ny_b_matmul(&n->b, centred(n, x, a_zero, ny_rank(x) - 2), centred(n, y, b_zero, ny_rank(y) - 1));
}

nyb_status ny_op_matmul_integer(ny_node *n) { return ny_out(n, 0, product(n, 0, 1, ny_opt(n, 2), ny_opt(n, 3))); }

/* sum * (sa * sb / sy) rounded + zero, clamped; the factor in the format of the scales, the product in f64. */
static ny_value *requantised(ny_node *n, ny_value *sum, ny_value *sa, ny_value *sb, ny_value *sy, ny_value *zero) {
  ny_value *m = ny_ew2(n, NY_div, ny_ew2(n, NY_mul, sa, sb), sy);
  ny_value *y = ny_ew2(n, NY_mul, ny_cast_to(n, sum, NY_f64), ny_cast_to(n, m, NY_f64));
  y = ny_ew2(n, NY_add, y, ny_cast_to(n, zero, NY_f64));
  return y ? to_int(n, y, NULL, ny_fmt_of(zero)) : NULL;
}

/* Scales of the left operand and the result go by row, those of the right operand by column. */
nyb_status ny_op_qlinear_matmul(ny_node *n) {
  ny_value **in = n->in, *sum = product(n, 0, 3, in[2], in[5]);
  ny_value *sa = broadcast_along(n, in[1], 0, 2), *sb = broadcast_along(n, in[4], 1, 2);
  ny_value *sy = broadcast_along(n, in[6], 0, 2), *zero = broadcast_along(n, in[7], 0, 2);
  return ny_out(n, 0, requantised(n, sum, sa, sb, sy, zero));
}

nyb_status ny_op_conv_integer(ny_node *n) {
  ny_value *x = centred(n, n->in[0], ny_opt(n, 2), 1), *w = centred(n, n->in[1], ny_opt(n, 3), 0);
  return ny_out(n, 0, ny_conv(n, x, w, NULL));
}

nyb_status ny_op_qlinear_conv(ny_node *n) {
  ny_value **in = n->in;
  int rank = ny_rank(in[0]);
  ny_value *x = centred(n, in[0], in[2], 1), *w = centred(n, in[3], in[5], 0), *bias = ny_opt(n, 8);
  ny_value *sum = ny_conv(n, x, w, bias);
  return ny_out(n, 0, requantised(n, sum, in[1], broadcast_along(n, in[4], 1, rank), in[6], in[7]));
}
