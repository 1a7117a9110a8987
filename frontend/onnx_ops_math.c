/* Elementwise operators: each is one EW row of the IR or a short composite of them. Cast, CastLike and BitCast too: the
   IR's cast saturates where ONNX leaves the result open; two targets need more: integers of 2 and 4 bits keep the low
   bits of a wider integer, and e8m0 has rounding modes of its own. */
#include "onnx_quant.h"
#include <math.h>
#include <string.h>

nyb_status ny_op_unary(ny_node *n) { return ny_out(n, 0, ny_ew1(n, (ny_kind)n->arg, n->in[0])); }

nyb_status ny_op_binary(ny_node *n) { return ny_out(n, 0, ny_ew2(n, (ny_kind)n->arg, n->in[0], n->in[1])); }

nyb_status ny_op_where(ny_node *n) { return ny_out(n, 0, ny_where(n, n->in[0], n->in[1], n->in[2])); }

/* Before opset 7 the second operand broadcast only when `broadcast` was set: its dims match those of the first from
   `axis` on. */
nyb_status ny_op_binary_old(ny_node *n) {
  ny_value *x = n->in[0], *y = n->in[1];
  int rank = ny_rank(x), yr = ny_rank(y);
  if (ny_attr_int(n, "broadcast", 0) && yr < rank) {
    int64_t axis = ny_attr_int(n, "axis", rank - yr);
    if (axis < 0) axis += rank;
    if (axis < 0 || axis + yr > rank)
      return ny_node_fail(n, NYB_E_SHAPE, "axis %lld leaves no room for a second operand of rank %d in rank %d",
                          (long long)axis, yr, rank);
    ny_dim shape[NY_MAX_RANK];
    int r = 0;
    for (int i = 0; i < yr; i++) shape[r++] = ny_size(y, i);
    for (int i = (int)axis + yr; i < rank; i++) shape[r++] = 1;
    y = ny_reshape_to(n, y, r, shape);
  }
  return ny_out(n, 0, ny_ew2(n, (ny_kind)n->arg, x, y));
}

static ny_value *all_inputs(ny_node *n, ny_kind k) {
  ny_value *acc = n->in[0];
  for (int i = 1; i < n->n_in; i++) acc = ny_ew2(n, k, acc, ny_need(n, i));
  return acc;
}

/* Max, Min, Sum of one or more tensors. */
nyb_status ny_op_variadic(ny_node *n) { return ny_out(n, 0, all_inputs(n, (ny_kind)n->arg)); }

nyb_status ny_op_mean(ny_node *n) { return ny_out(n, 0, ny_ew2s(n, NY_div, all_inputs(n, NY_add), n->n_in)); }

/* The exponent may have another type; the result has the base's. Integers go through f64, which holds what they usually
   need. */
nyb_status ny_op_pow(ny_node *n) {
  ny_value *x = n->in[0], *y = n->in[1];
  ny_fmt f = ny_fmt_of(x), work = f;
  ny_tensor e;
  if (!ny_is_float(f))
    work = NY_f64;
  else if (ny_is_float(ny_fmt_of(y)) && ny_fmts[f].bits < 32 && ny_fmts[ny_fmt_of(y)].bits >= 32)
    work = ny_fmt_of(y);
  else if (ny_rank(y) == 0 && ny_onnx_const(n, 1, &e) && ny_number(&e, 0) == 2)
    return ny_out(n, 0, ny_ew2(n, NY_mul, x, x)); /* exact where pow is: one multiplication, rounded once */
  return ny_out(n, 0, ny_cast_to(n, ny_ew2(n, NY_pow, ny_cast_to(n, x, work), ny_cast_to(n, y, work)), f));
}

/* Bounds were attributes until opset 11 and are inputs, either of which may be absent, since. NaN stays NaN. */
nyb_status ny_op_clip(ny_node *n) {
  ny_value *x = n->in[0], *lo = ny_opt(n, 1), *hi = ny_opt(n, 2);
  if (n->version < 11) {
    if (ny_attr_has(n, "min")) lo = ny_num(n, x, ny_attr_float(n, "min", 0));
    if (ny_attr_has(n, "max")) hi = ny_num(n, x, ny_attr_float(n, "max", 0));
  }
  if (lo) x = ny_ew2(n, NY_max, x, lo);
  if (hi) x = ny_ew2(n, NY_min, x, hi);
  return ny_out(n, 0, x);
}

nyb_status ny_op_mod(ny_node *n) {
  return ny_out(n, 0, ny_ew2(n, ny_attr_int(n, "fmod", 0) ? NY_rem : NY_mod, n->in[0], n->in[1]));
}

/* Amounts outside 0..width-1 shift everything out: zero, or the sign when a signed number goes right. */
nyb_status ny_op_bitshift(ny_node *n) {
  ny_value *x = n->in[0], *y = n->in[1];
  int right = ny_attr_choice(n, "direction", "", "LEFT|RIGHT");
  if (right < 0) return ny_failed(n);
  ny_value *r = ny_ew2(n, right ? NY_shr : NY_shl, x, y);
  const ny_fmt_info *f = &ny_fmts[ny_fmt_of(x)];
  if (f->kind != 'I') return ny_out(n, 0, r);
  ny_value *zero = ny_num(n, x, 0);
  ny_value *lost = ny_ew2(n, NY_or, ny_ew2(n, NY_lt, y, zero), ny_ew2s(n, NY_ge, y, f->bits));
  ny_value *gone = right ? ny_where(n, ny_ew2(n, NY_lt, x, zero), ny_num(n, x, -1), zero) : zero;
  return ny_out(n, 0, ny_where(n, lost, gone, r));
}

/* ---- Activations. An EW row whose float attributes carry the ONNX names and defaults. */
nyb_status ny_op_activation(ny_node *n) {
  ny_value *y = ny_ew1(n, (ny_kind)n->arg, n->in[0]);
  if (!y) return ny_failed(n);
  const ny_kind_info *k = &ny_kinds[n->arg];
  for (int i = 0; i < k->n_attr; i++) y->def->attr[i].f = ny_attr_float(n, k->attr[i].name, k->attr[i].def);
  return ny_out(n, 0, y);
}

nyb_status ny_op_isinf(ny_node *n) {
  ny_value *y = ny_ew1(n, NY_isinf, n->in[0]);
  if (!y) return ny_failed(n);
  y->def->attr[NY_AT(isinf, pos)].i = ny_attr_int(n, "detect_positive", 1);
  y->def->attr[NY_AT(isinf, neg)].i = ny_attr_int(n, "detect_negative", 1);
  return ny_out(n, 0, y);
}

nyb_status ny_op_gelu(ny_node *n) {
  int tanh_form = ny_attr_choice(n, "approximate", "none", "none|tanh");
  return ny_out(n, 0, ny_ew1(n, tanh_form ? NY_gelu_tanh : NY_gelu, n->in[0]));
}

/* Before opset 7 a slope vector lies along the channels. */
nyb_status ny_op_prelu(ny_node *n) {
  ny_value *x = n->in[0], *slope = n->in[1];
  if (n->version < 7 && ny_rank(slope) == 1 && ny_rank(x) >= 2 && ny_size(slope, 0) != 1)
    slope = ny_along(n, slope, 1, ny_rank(x));
  return ny_out(n, 0, ny_where(n, ny_ew2s(n, NY_lt, x, 0), ny_ew2(n, NY_mul, x, slope), x));
}

static ny_value *swish(ny_node *n) {
  ny_value *x = n->in[0];
  double alpha = ny_attr_float(n, "alpha", 1);
  if (alpha == 1) return ny_ew1(n, NY_silu, x);
  return ny_ew2(n, NY_mul, x, ny_ew1(n, NY_sigmoid, ny_ew2s(n, NY_mul, x, alpha)));
}
nyb_status ny_op_swish(ny_node *n) { return ny_out(n, 0, swish(n)); }
nyb_status ny_op_swiglu(ny_node *n) { return ny_out(n, 0, ny_ew2(n, NY_mul, swish(n), n->in[1])); }

/* ---- Nothing to compute */
nyb_status ny_op_identity(ny_node *n) {
  bool tensor = n->n_in < 1 || (!n->in_thing[0].list && !n->in_thing[0].is_none);
  return tensor && !ny_need(n, 0) ? ny_failed(n) : ny_out_thing(n, 0, n->in_thing[0]);
}

/* At inference a dropout does nothing, and its mask (when asked for) keeps everything. */
nyb_status ny_op_dropout(ny_node *n) {
  ny_value *x = n->in[0];
  double training, ratio;
  if (!ny_node_scalar(n, 2, 0, &training) || !ny_node_scalar(n, 1, 0.5, &ratio)) return ny_failed(n);
  if (training != 0 && ratio != 0)
    return ny_node_fail(n, NYB_E_UNSUPPORTED,
                        "training mode with ratio %g drops at random; only inference is supported", ratio);
  ny_fmt f = n->version < 10 ? ny_fmt_of(x) : NY_bool;
  if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, ny_full(n, f, ny_rank(x), x->type->dim, 1)));
  return ny_out(n, 0, x);
}

/* ---- Casts */
static ny_value *same_bits(ny_node *n, ny_value *x, ny_fmt f) {
  if (!x) return NULL;
  const ny_type *t = ny_type_with_fmt(n->cx, x->type, f);
  return ny_infer(n, ny_build(&n->b, NY_bitcast, &x, 1, &t, 1));
}

/* Exponents only: f32 bits, rounded as the mode says, sign dropped. Infinity and NaN are NaN. */
ny_value *ny_to_e8m0(ny_node *n, ny_value *x, int mode, bool saturate) {
  enum { UP, NEAREST, DOWN };
  ny_value *raw = same_bits(n, ny_cast_to(n, x, NY_f32), NY_u32);
  ny_value *e = ny_ew2s(n, NY_and, ny_ew2s(n, NY_shr, raw, 23), 255), *frac = ny_ew2s(n, NY_and, raw, 0x7fffff);
  ny_value *more = ny_ew2s(n, NY_gt, frac, mode == NEAREST ? 0x400000 : 0);
  if (mode == NEAREST) { /* a tie goes up, except to the smallest normal number */
    ny_value *tie = ny_ew2(n, NY_and, ny_ew2s(n, NY_eq, frac, 0x400000), ny_ew2s(n, NY_gt, e, 0));
    more = ny_ew2(n, NY_or, more, tie);
  }
  if (mode != DOWN) {
    ny_value *room = ny_ew2s(n, NY_lt, e, saturate ? 254 : 255);
    e = ny_ew2(n, NY_add, e, ny_cast_to(n, ny_ew2(n, NY_and, more, room), NY_u32));
  }
  return same_bits(n, ny_cast_to(n, e, NY_u8), NY_f8e8m0);
}

static nyb_status cast(ny_node *n, ny_fmt f) {
  ny_value *x = n->in[0];
  bool saturate = ny_attr_int(n, "saturate", 1) != 0, from_float = ny_is_float(ny_fmt_of(x));
  if (f == ny_fmt_of(x)) return ny_out(n, 0, x);
  if (f == NY_f8e8m0)
    return ny_out(n, 0, ny_to_e8m0(n, x, ny_attr_choice(n, "round_mode", "up", "up|nearest|down"), saturate));
  if (from_float && ny_is_int(f) && ny_fmts[f].bits < 8) x = ny_cast_to(n, x, NY_i32);
  ny_value *y = ny_cast_to(n, x, f);
  if (y && !saturate && ny_is_float(f) && ny_fmts[f].bits <= 8) y->def->attr[NY_AT(cast, saturate)].i = 0;
  return ny_out(n, 0, y);
}

nyb_status ny_op_cast(ny_node *n) {
  ny_fmt f;
  return ny_attr_fmt(n, "to", NY_none, &f) ? cast(n, f) : ny_failed(n);
}

nyb_status ny_op_cast_like(ny_node *n) { return cast(n, ny_fmt_of(n->in[1])); }

nyb_status ny_op_bitcast(ny_node *n) {
  ny_fmt from = ny_fmt_of(n->in[0]), f;
  if (!ny_attr_fmt(n, "to", NY_none, &f)) return ny_failed(n);
  if (ny_fmts[f].bits != ny_fmts[from].bits)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "BitCast from %s to %s changes the width", ny_fmts[from].name,
                        ny_fmts[f].name);
  return ny_out(n, 0, f == from ? n->in[0] : same_bits(n, n->in[0], f));
}
