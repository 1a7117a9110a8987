/* Quantisers of exporters that are no standard operators: the trt domain (TensorRT, Model Optimizer) and Brevitas'
   DynamicScale. Weights that an exporter left in floats for its own tool to quantise are quantised here, by that tool's
   rule; the expressions are of constants alone, so codes and scales are what the module holds. */
#include "onnx_quant.h"

enum { MAX_E2M1 = 6, MAX_E4M3 = 448 };

static bool is_wide(const ny_value *v) { return ny_is_float(ny_fmt_of(v)) && ny_fmts[ny_fmt_of(v)].bits >= 16; }

static bool axis_and_block(ny_node *n, int64_t def, int *axis, int64_t *block) {
  return ny_attr_axis(n, -1, ny_rank(n->in[0]), axis) && ny_block_size(n, def, block);
}

/* amax / 6 / global in e4m3, as the kernels of the exporter compute it. */
static ny_value *nvfp4_scales(ny_node *n, const ny_blocks *b, ny_value *global) {
  ny_value *s = ny_ew2(n, NY_div, ny_ew2s(n, NY_div, ny_blocks_amax(n, b), MAX_E2M1), global);
  return ny_cast_to(n, s, NY_f8e4m3);
}

nyb_status ny_op_trt_fp4_dynamic(ny_node *n) {
  ny_value *x = n->in[0], *global = n->in[1];
  ny_fmt type;
  ny_blocks b;
  int axis;
  int64_t block, count;
  if (!ny_attr_fmt(n, "scale_type", NY_f8e4m3, &type) || !axis_and_block(n, 16, &axis, &block)) return ny_failed(n);
  if (type != NY_f8e4m3)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "block scales in %s are not supported", ny_fmts[type].name);
  if (!ny_type_static_count(n->cx, global->type, &count) || count != 1)
    return ny_node_fail(n, NYB_E_SHAPE, "the scale of the whole tensor is not one number");
  global = ny_cast_to(n, ny_reshape_to(n, global, 0, NULL), NY_f32);
  if (!ny_blocks_of(n, x, axis, block, &b)) return ny_failed(n);
  ny_value *s = nvfp4_scales(n, &b, global);
  ny_value *whole = ny_ew2(n, NY_mul, ny_cast_to(n, s, NY_f32), global);
  NY_TRY(ny_out(n, 0, ny_blocks_quantized(n, &b, whole, NY_f4e2m1)));
  return ny_out(n, 1, ny_blocks_scales(n, &b, s));
}

/* 1 where x is 0: what a scale is where there is nothing to scale. */
static ny_value *or_one(ny_node *n, ny_value *x, ny_value *when_zero) {
  return ny_where(n, ny_ew2(n, NY_eq, when_zero, ny_num(n, when_zero, 0)), ny_num(n, x, 1), x);
}

/* A weight in floats: its codes, block scales and tensor scale by the exporter's rule. */
nyb_status ny_op_trt_fp4_qdq(ny_node *n) {
  ny_value *x = n->in[0];
  ny_blocks b;
  int axis, all[4] = {0, 1, 2, 3};
  int64_t block;
  ny_tensor unused;
  if (!axis_and_block(n, 16, &axis, &block) || !ny_blocks_of(n, x, axis, block, &b)) return ny_failed(n);
  if (!(x->def && x->def->kind == NY_const) && !ny_value_const(n, x, &unused))
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "the weight is not constant");
  ny_value *amax = ny_blocks_amax(n, &b), *top = ny_b_reduce(&n->b, "max", amax, all, 4, false);
  ny_value *global = or_one(n, ny_ew2s(n, NY_div, top, MAX_E2M1 * MAX_E4M3), top);
  ny_value *s = ny_ew2(n, NY_div, ny_ew2s(n, NY_div, amax, MAX_E2M1), global);
  s = ny_cast_to(n, or_one(n, s, amax), NY_f8e4m3);
  ny_value *q = ny_blocks_quantized(n, &b, ny_ew2(n, NY_mul, ny_cast_to(n, s, NY_f32), global), NY_f4e2m1);
  ny_dim one[NY_MAX_RANK];
  for (int i = 0; i < ny_rank(x); i++) one[i] = 1;
  ny_value *scale =
      ny_b_dequantize(&n->b, NY_f32, ny_blocks_scales(n, &b, s), ny_reshape_to(n, global, ny_rank(x), one), NULL, 0, 0);
  return ny_out(n, 0, ny_b_dequantize(&n->b, ny_fmt_of(x), q, scale, NULL, axis, block));
}

/* The float rounded to 4-bit integers by its block's scale: -8..7. */
static ny_value *int4_of(ny_node *n, ny_value *x, int axis, int64_t block) {
  ny_blocks b;
  ny_value *s = ny_cast_to(n, ny_scale_of(n, x, 1, axis, block), NY_f32);
  if (!s || !block || ny_size(s, axis) == 1) {
    s = ny_ew2(n, NY_div, ny_cast_to(n, x, NY_f32), s);
  } else {
    if (!ny_blocks_of(n, x, axis, block, &b)) return NULL;
    ny_dim d[4] = {ny_size(b.x, 0), b.n, 1, ny_size(b.x, 3)};
    s = ny_blocks_join(n, &b, ny_ew2(n, NY_div, b.x, ny_reshape_to(n, s, 4, d)));
  }
  return ny_cast_to(n, ny_ew2s(n, NY_min, ny_ew2s(n, NY_max, ny_ew1(n, NY_round, s), -8), 7), NY_i4);
}

/* Bytes stand for codes of the row's format; a weight left in floats is quantised first. */
nyb_status ny_op_trt_dequantize(ny_node *n) {
  ny_value *x = n->in[0];
  int axis = 0;
  int64_t block = ny_attr_int(n, "block_size", 0);
  if (ny_rank(x) && !ny_attr_axis(n, 1, ny_rank(x), &axis)) return ny_failed(n);
  if (ny_fmt_of(x) == NY_u8 && n->arg == NY_f8e4m3) x = ny_reinterpret(n, x, NY_f8e4m3);
  if (x && is_wide(x)) {
    if (block < 0) return ny_node_fail(n, NYB_E_SHAPE, "blocks of %lld", (long long)block);
    if (n->arg == NY_f8e4m3)
      return ny_node_fail(n, NYB_E_TYPE, "the input is %s, not codes", ny_fmts[ny_fmt_of(x)].name);
    x = int4_of(n, x, axis, block);
    ny_value *s = x ? ny_scale_of(n, x, 1, axis, block) : NULL;
    return ny_out(n, 0, s ? ny_b_dequantize(&n->b, ny_fmt_of(n->in[1]), x, s, NULL, axis, block) : NULL);
  }
  if (!x) return ny_failed(n);
  n->in[0] = x;
  return ny_op_dequantize(n);
}

/* ---- MXFP8: e4m3 codes, a power of two for each block */
static ny_value *mxfp8_scales(ny_node *n, const ny_blocks *b) {
  return ny_to_e8m0(n, ny_ew2s(n, NY_div, ny_blocks_amax(n, b), MAX_E4M3), 0, true);
}

static ny_value *mxfp8_codes(ny_node *n, const ny_blocks *b, ny_value *s) {
  return ny_blocks_quantized(n, b, ny_cast_to(n, s, NY_f32), NY_f8e4m3);
}

nyb_status ny_op_trt_mxfp8_dynamic(ny_node *n) {
  ny_blocks b;
  ny_fmt type;
  int axis;
  int64_t block;
  if (!ny_attr_fmt(n, "output_dtype", NY_f8e4m3, &type) || !axis_and_block(n, 32, &axis, &block) ||
      !ny_blocks_of(n, n->in[0], axis, block, &b))
    return ny_failed(n);
  if (type != NY_f8e4m3) return ny_node_fail(n, NYB_E_UNSUPPORTED, "codes in %s are not supported", ny_fmts[type].name);
  ny_value *s = mxfp8_scales(n, &b);
  NY_TRY(ny_out(n, 0, mxfp8_codes(n, &b, s)));
  return ny_out(n, 1, ny_reinterpret(n, ny_blocks_scales(n, &b, s), NY_u8));
}

nyb_status ny_op_trt_mxfp8_dequantize(ny_node *n) {
  ny_value *x = n->in[0], *s = n->in[1];
  ny_blocks b;
  ny_fmt f;
  int axis;
  int64_t block;
  if (!ny_attr_fmt(n, "output_dtype", is_wide(x) ? ny_fmt_of(x) : NY_f32, &f) || !axis_and_block(n, 32, &axis, &block))
    return ny_failed(n);
  if (is_wide(x)) { /* before the exporter's last step: the scale is a place holder */
    if (!ny_blocks_of(n, x, axis, block, &b)) return ny_failed(n);
    ny_value *scale = mxfp8_scales(n, &b);
    x = mxfp8_codes(n, &b, scale);
    return ny_out(n, 0, ny_b_dequantize(&n->b, f, x, ny_blocks_scales(n, &b, scale), NULL, axis, block));
  }
  x = ny_reinterpret(n, x, NY_f8e4m3), s = ny_reinterpret(n, s, NY_f8e8m0);
  if (s && ny_rank(s) != ny_rank(x))
    return ny_node_fail(n, NYB_E_SHAPE, "a scale of rank %d for an input of rank %d", ny_rank(s), ny_rank(x));
  return ny_out(n, 0, s ? ny_b_dequantize(&n->b, f, x, s, NULL, axis, block) : NULL);
}

/* The power of two below each block's largest magnitude, over the largest power of two of the element format. */
nyb_status ny_op_dynamic_scale(ny_node *n) {
  ny_value *x = n->in[0];
  ny_blocks b;
  ny_fmt f;
  int axis;
  int64_t block = ny_attr_int(n, "group_size", 32);
  if (!ny_axis(n, ny_attr_int(n, "group_dim", -1), ny_rank(x), &axis) ||
      !ny_attr_fmt(n, "output_dtype", NY_f4e2m1, &f) ||
      ny_attr_choice(n, "scale_selection_method", "floor", "floor") < 0 ||
      (ny_attr_has(n, "zero_point_selection_method") &&
       ny_attr_choice(n, "zero_point_selection_method", "None", "None") < 0))
    return ny_failed(n);
  double top = f == NY_f4e2m1 ? 4 : f == NY_f8e4m3 ? 256 : f == NY_f8e5m2 ? 32768 : 0;
  if (top == 0) return ny_node_fail(n, NYB_E_UNSUPPORTED, "scales for %s are not supported", ny_fmts[f].name);
  if (block < 1 || block > 1 << 30) return ny_node_fail(n, NYB_E_SHAPE, "groups of %lld", (long long)block);
  if (!ny_blocks_of(n, x, axis, block, &b)) return ny_failed(n);
  ny_value *exponent = ny_ew2s(n, NY_and, ny_reinterpret(n, ny_blocks_amax(n, &b), NY_u32), 0x7f800000);
  ny_value *s = ny_ew2s(n, NY_div, ny_reinterpret(n, exponent, NY_f32), top);
  s = ny_ew2s(n, NY_max, s, 0x1p-126); /* a block of zeros */
  return ny_out(n, 0, ny_cast_to(n, ny_blocks_scales(n, &b, s), ny_fmt_of(x)));
}
