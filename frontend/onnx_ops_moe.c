/* com.microsoft QMoE: a mixture of experts with quantised weights. Each pair of a token and one of its experts is one
   step of a loop, which reads only that expert's codes and scales: work and memory traffic follow what is routed, not
   how many experts there are. Everything between input and output is f32. */
#include "onnx_quant.h"

#include <math.h>

enum { INT, FP4, NVFP4, FP8 };

typedef struct layer { /* of all experts: codes [experts, rows, width] or, `by_width`, [experts, width, rows] */
  int64_t rows, width, block;
  bool by_width;
  ny_value *q, *scale, *global, *zero, *bias;
  ny_value *rows_of; /* of a scale for square blocks: the block of each row */
} layer;

typedef struct moe {
  ny_node *n;
  int type;
  int64_t experts, hidden, k;
  layer fc[3];
} moe;

static int64_t parts(int64_t n, int64_t of) { return n / of + (n % of != 0); }
static bool static_dims(ny_node *n, const ny_value *v, int rank, const char *what, int64_t *d) {
  if (ny_rank(v) != rank) return ny_refuse(n, NYB_E_SHAPE, "%s have rank %d, not %d", what, ny_rank(v), rank);
  for (int i = 0; i < rank; i++)
    if (!ny_need_static(n, v, i, what, &d[i])) return false;
  return true;
}
static bool one_of(ny_node *n, const char *what, int64_t have, int64_t want) {
  return have == want ||
         ny_refuse(n, NYB_E_SHAPE, "%s: %lld where %lld is needed", what, (long long)have, (long long)want);
}

/* ---- Reading a layer. `at` is the input with its weights. */
static bool int_zero(moe *m, layer *l, int at, int64_t blocks) {
  ny_node *n = m->n;
  ny_value *z = ny_opt(n, at);
  ny_fmt f = ny_fmt_of(l->q);
  int64_t per = 8 / ny_fmts[f].bits, e = m->experts;
  if (!z) {
    l->zero = ny_splat(n, f, 2, (double)(1 << (ny_fmts[f].bits - 1)));
  } else if (ny_rank(z) == 2) {
    z = ny_codes(n, at, f, 2, (int64_t[]){e, parts(l->rows, per) * per}, "zero points");
    z = z ? ny_slice_axis(n, z, 1, 0, l->rows) : NULL;
    l->zero = ny_reshape_to(n, z, 3, (ny_dim[]){e, l->rows, 1});
  } else {
    z = ny_codes(n, at, f, 3, (int64_t[]){e, l->rows, parts(blocks, per) * per}, "zero points");
    l->zero = z ? ny_slice_axis(n, z, 2, 0, blocks) : NULL;
  }
  return l->zero != NULL;
}

static bool int_layer(moe *m, layer *l, int at, const char *bits_name, int zero_at) {
  ny_node *n = m->n;
  int64_t d[3], s[3] = {0, 0, 1};
  ny_fmt f = ny_code_format(n, ny_attr_has(n, bits_name) ? bits_name : "expert_weight_bits", 4);
  ny_value *scale = ny_need(n, at + 1);
  if (!f || !scale || !static_dims(n, n->in[at], 3, "expert weights", d)) return false;
  int64_t per = 8 / ny_fmts[f].bits;
  l->rows = d[1];
  if (!one_of(n, "experts of a layer", d[0], m->experts) ||
      !one_of(n, "input features of a layer", d[2] * per, l->width))
    return false;
  l->q = ny_codes(n, at, f, 3, (int64_t[]){d[0], d[1], d[2] * per}, "expert weights");
  if (!l->q || !static_dims(n, scale, ny_rank(scale) == 2 ? 2 : 3, "scales", s)) return false;
  l->block = ny_rank(scale) == 3 && s[2] > 1 ? ny_attr_int(n, "block_size", 0) : 0;
  if (l->block < 0 || (l->block == 0 && s[2] != 1) ||
      (l->block && !one_of(n, "blocks of a row", s[2], parts(l->width, l->block))))
    return ny_refuse(n, NYB_E_SHAPE, "%lld scales a row of %lld elements do not fit block_size %lld", (long long)s[2],
                     (long long)l->width, (long long)l->block);
  if (!one_of(n, "rows of scales", s[1], l->rows)) return false;
  l->scale = ny_reshape_to(n, scale, 3, (ny_dim[]){s[0], s[1], s[2]});
  return l->scale && int_zero(m, l, zero_at, s[2]);
}

static bool global_of(moe *m, layer *l, int at) {
  int64_t d[1];
  ny_value *g = ny_need(m->n, at);
  if (!g || !static_dims(m->n, g, 1, "global scales", d) || !one_of(m->n, "global scales", d[0], m->experts))
    return false;
  l->global = g;
  return true;
}

/* Pairs of codes lie along the rows, [experts, width, rows / 2], unless the sizes or weights_prepacked say otherwise.
 */
static bool fp4_layer(moe *m, layer *l, int at, int global_at) {
  ny_node *n = m->n;
  int64_t d[3], s[3];
  ny_value *scale = ny_need(n, at + 1);
  l->block = m->type == FP4 ? 32 : 16;
  if (!scale || !static_dims(n, n->in[at], 3, "expert weights", d) || !static_dims(n, scale, 3, "scales", s))
    return false;
  int64_t nib = ny_fmt_of(n->in[at]) == NY_f4e2m1 ? 1 : 2;
  l->rows = s[1];
  bool across = d[1] == l->width && d[2] * nib == l->rows, along = d[1] == l->rows && d[2] * nib == l->width;
  if (!one_of(n, "experts of a layer", d[0], m->experts) ||
      !one_of(n, "blocks of a row", s[2], parts(l->width, l->block)))
    return false;
  if (!across && !along)
    return ny_refuse(n, NYB_E_SHAPE, "expert weights of %lld x %lld bytes are not %lld x %lld codes", (long long)d[1],
                     (long long)d[2], (long long)l->rows, (long long)l->width);
  l->by_width = across && !(m->type == NVFP4 && ny_attr_int(n, "weights_prepacked", -1) == 1);
  int64_t shape[3] = {d[0], l->by_width ? l->width : l->rows, l->by_width ? l->rows : l->width};
  l->q = ny_codes(n, at, NY_f4e2m1, 3, shape, "expert weights");
  l->scale = ny_reinterpret(n, scale, m->type == FP4 ? NY_f8e8m0 : NY_f8e4m3);
  if (l->by_width && l->scale) l->scale = ny_b_transpose(&n->b, l->scale, (int[]){0, 2, 1});
  return l->q && l->scale && global_of(m, l, global_at);
}

static bool fp8_layer(moe *m, layer *l, int at, int global_at) {
  ny_node *n = m->n;
  int64_t d[3], s[3], block = ny_attr_int(n, "block_size", 0);
  if (!static_dims(n, n->in[at], 3, "expert weights", d) || !one_of(n, "input features of a layer", d[2], l->width) ||
      !one_of(n, "experts of a layer", d[0], m->experts))
    return false;
  l->rows = d[1];
  l->q = ny_reinterpret(n, n->in[at], NY_f8e4m3);
  if (block <= 0) return l->q && global_of(m, l, global_at);
  ny_value *scale = ny_need(n, at + 1);
  if (!l->q || !scale || !static_dims(n, scale, 3, "scales", s) ||
      !one_of(n, "blocks of rows", s[1], parts(l->rows, block)) ||
      !one_of(n, "blocks of a row", s[2], parts(l->width, block)))
    return false;
  int64_t *of = NY_NEW_ARRAY(n->tmp, int64_t, l->rows + 1);
  for (int64_t i = 0; i < l->rows; i++) of[i] = i / block;
  l->scale = scale, l->block = block;
  l->rows_of = ny_const_ints(n, NY_i64, 1, &l->rows, of);
  return l->rows_of != NULL;
}

static bool read_layer(moe *m, int i, int64_t width) {
  static const char *const bits[] = {"fc1_expert_weight_bits", "fc2_expert_weight_bits", "fc3_expert_weight_bits"};
  layer *l = &m->fc[i];
  int at = 2 + 3 * i, global = 15 + i;
  int64_t d[2];
  l->width = width;
  if (!ny_need(m->n, at)) return false;
  bool ok = m->type == INT   ? int_layer(m, l, at, bits[i], 11 + i)
            : m->type == FP8 ? fp8_layer(m, l, at, global)
                             : fp4_layer(m, l, at, global);
  l->bias = ny_opt(m->n, at + 2);
  return ok &&
         (!l->bias || (static_dims(m->n, l->bias, 2, "biases", d) && one_of(m->n, "biases of a layer", d[1], l->rows)));
}

/* ---- One expert */
static ny_value *pick(moe *m, ny_value *v, ny_value *e) { return v ? ny_b_gather(&m->n->b, v, e, 0) : NULL; }

/* x [1, width] times the weights of expert e. */
static ny_value *apply(moe *m, const layer *l, ny_value *x, ny_value *e) {
  ny_node *n = m->n;
  ny_value *scale = pick(m, l->scale, e), *zero = l->zero && ny_rank(l->zero) == 3 ? pick(m, l->zero, e) : l->zero;
  if (l->rows_of) scale = ny_b_gather(&n->b, scale, l->rows_of, 0);
  if (l->global) {
    ny_value *g = ny_reshape_to(n, pick(m, l->global, e), 2, (ny_dim[]){1, 1});
    scale = scale ? ny_b_dequantize(&n->b, NY_f32, scale, g, NULL, 0, 0) : g;
  }
  ny_value *w = ny_b_dequantize(&n->b, NY_f32, pick(m, l->q, e), scale, zero, l->by_width ? 0 : 1, l->block);
  ny_value *y = ny_b_matmul(&n->b, x, l->by_width ? w : ny_matrix_transpose(n, w));
  return l->bias ? ny_ew2(n, NY_add, y, ny_cast_to(n, pick(m, l->bias, e), NY_f32)) : y;
}

static ny_value *swiglu(ny_node *n, ny_value *g, ny_value *l) {
  double limit = ny_attr_float(n, "swiglu_limit", INFINITY), alpha = ny_attr_float(n, "activation_alpha", 1);
  bool after = ny_attr_int(n, "swiglu_limit_after_activation", 0) != 0, limited = limit < INFINITY;
  if (limited) l = ny_ew2s(n, NY_min, ny_ew2s(n, NY_max, l, -limit), limit);
  if (limited && !after) g = ny_ew2s(n, NY_min, g, limit);
  g = ny_ew2(n, NY_mul, g, ny_ew1(n, NY_sigmoid, ny_ew2s(n, NY_mul, g, alpha)));
  if (limited && after) g = ny_ew2s(n, NY_min, g, limit);
  return ny_ew2(n, NY_mul, g, ny_ew2s(n, NY_add, l, ny_attr_float(n, "activation_beta", 0)));
}

/* Gate and linear part of [1, 2 * size]: by turns, or one after the other. */
static void halves(ny_node *n, ny_value *h, int64_t size, bool by_turns, ny_value **gate, ny_value **linear) {
  ny_dim pairs[3] = {1, by_turns ? size : 2, by_turns ? 2 : size}, half[2] = {1, size};
  int axis = by_turns ? 2 : 1;
  h = ny_reshape_to(n, h, 3, pairs);
  *gate = ny_reshape_to(n, ny_slice_axis(n, h, axis, 0, 1), 2, half);
  *linear = ny_reshape_to(n, ny_slice_axis(n, h, axis, 1, 1), 2, half);
}

enum { RELU, GELU, SILU, SWIGLU, IDENTITY, RELU2, GEGLU };
static const char activations[] = "relu|gelu|silu|swiglu|identity|relu2|geglu";

static ny_value *activate(ny_node *n, int how, ny_value *h) {
  switch (how) {
  case RELU: return ny_ew1(n, NY_relu, h);
  case GELU: return ny_ew1(n, NY_gelu_tanh, h);
  case SILU: return ny_ew1(n, NY_silu, h);
  case RELU2: h = ny_ew1(n, NY_relu, h); return ny_ew2(n, NY_mul, h, h);
  default: return h;
  }
}

static ny_value *expert(moe *m, int how, int64_t fusion, ny_value *x, ny_value *e) {
  ny_node *n = m->n;
  ny_value *h = apply(m, &m->fc[0], x, e), *gate = h, *linear = m->fc[2].q ? apply(m, &m->fc[2], x, e) : NULL;
  if (fusion && h) halves(n, h, m->fc[1].width, fusion == 1, &gate, &linear);
  if (how == SWIGLU)
    h = swiglu(n, gate, linear);
  else if (how == GEGLU)
    h = ny_ew2(n, NY_mul, ny_ew1(n, NY_gelu_tanh, gate), linear);
  else
    h = linear ? ny_ew2(n, NY_mul, activate(n, how, h), linear) : activate(n, how, h);
  return h ? apply(m, &m->fc[1], h, e) : NULL;
}

/* ---- Routing: experts [tokens, k] and their shares */
static bool route(moe *m, ny_value **experts, ny_value **share) {
  ny_node *n = m->n;
  ny_value *logits = ny_cast_to(n, n->in[1], NY_f32), *given = ny_opt(n, 14);
  ny_type t = *logits->type;
  t.dim[1] = m->k;
  const ny_type *vt = ny_type_get(n->cx, t), *out[2] = {vt, ny_type_with_fmt(n->cx, vt, NY_i64)};
  ny_op *top = ny_build(&n->b, NY_topk, &logits, 1, out, 2);
  if (!top) return false;
  top->attr[NY_AT(topk, axis)].i = 1;
  *experts = top->out[1];
  if (given && ny_rank(given) != 2) return ny_refuse(n, NYB_E_SHAPE, "router weights of rank %d", ny_rank(given));
  ny_value *all = given ? ny_cast_to(n, given, NY_f32) : ny_softmax(n, logits, 1);
  *share = ny_gather_elements(n, all, *experts, 1);
  if (!ny_attr_int(n, "normalize_routing_weights", 0)) return *share != NULL;
  ny_value *sum = *share ? ny_b_reduce(&n->b, "sum", *share, (int[]){1}, 1, true) : NULL;
  if (!sum) return false;
  sum = ny_where(n, ny_ew2(n, NY_eq, sum, ny_num(n, sum, 0)), ny_num(n, sum, 1), sum);
  return (*share = ny_ew2(n, NY_div, *share, sum)) != NULL;
}

static bool read_moe(moe *m, int how, int64_t fusion) {
  ny_node *n = m->n;
  const ny_value *x = n->in[0], *router = n->in[1];
  int rank = ny_rank(x);
  if (rank < 2 || ny_rank(router) != 2)
    return ny_refuse(n, NYB_E_SHAPE, "inputs of rank %d and %d", rank, ny_rank(router));
  if (!ny_need_static(n, x, rank - 1, "the hidden size", &m->hidden) ||
      !ny_need_static(n, router, 1, "the number of experts", &m->experts))
    return false;
  if (m->k < 1 || m->k > m->experts)
    return ny_refuse(n, NYB_E_SHAPE, "k is %lld of %lld experts", (long long)m->k, (long long)m->experts);
  if (!read_layer(m, 0, m->hidden)) return false;
  int64_t inner = m->fc[0].rows;
  if (fusion && inner % 2) return ny_refuse(n, NYB_E_SHAPE, "%lld fused rows are not two halves", (long long)inner);
  if (!read_layer(m, 1, fusion ? inner / 2 : inner) ||
      !one_of(n, "results of the second layer", m->fc[1].rows, m->hidden))
    return false;
  bool third = ny_opt(n, 8) != NULL;
  if (third && fusion) return ny_refuse(n, NYB_E_PARSE, "a third layer beside a fused first one");
  if (!third && !fusion && (how == SWIGLU || how == GEGLU))
    return ny_refuse(n, NYB_E_PARSE, "the gated activation needs a third layer or swiglu_fusion 1 or 2");
  return !third || (read_layer(m, 2, m->hidden) && one_of(n, "results of the third layer", m->fc[2].rows, inner));
}

static bool supported(ny_node *n, int type) {
  if (ny_attr_int(n, "use_sparse_mixer", 0))
    return ny_refuse(n, NYB_E_UNSUPPORTED, "use_sparse_mixer is not supported");
  for (int i = 17; i <= 20; i++)
    if (ny_opt(n, i)) return ny_refuse(n, NYB_E_UNSUPPORTED, "input %d: scales of activations are not supported", i);
  if (type == INT && ny_attr_int(n, "weights_prepacked", 0))
    return ny_refuse(n, NYB_E_UNSUPPORTED,
                     "weights_prepacked is %lld: the weights are in the private layout of one kind of GPU; export them "
                     "with weights_prepacked=0",
                     (long long)ny_attr_int(n, "weights_prepacked", 0));
  return true;
}

nyb_status ny_op_qmoe(ny_node *n) {
  moe m = {.n = n, .k = ny_attr_int(n, "k", 1)};
  ny_value *x = n->in[0], *e = NULL, *share = NULL, *y;
  int how = ny_attr_choice(n, "activation_type", "relu", activations);
  int64_t fusion = ny_attr_int(n, "swiglu_fusion", 0);
  ny_loop l;
  m.type = ny_attr_choice(n, "quant_type", "int", "int|fp4|nvfp4|fp8");
  if (how < 0 || m.type < 0 || !supported(n, m.type)) return ny_failed(n);
  if (fusion < 0 || fusion > 2) return ny_node_fail(n, NYB_E_PARSE, "swiglu_fusion is %lld", (long long)fusion);
  if (how != SWIGLU && how != GEGLU) fusion = 0;
  if (!read_moe(&m, how, fusion)) return ny_failed(n);
  ny_dim tokens = ny_product(n, x->type->dim, ny_rank(x) - 1), routes = ny_dim_mul(n->cx, tokens, m.k);
  ny_value *rows = ny_reshape_to(n, ny_cast_to(n, x, NY_f32), 2, (ny_dim[]){tokens, m.hidden});
  if (!rows || !ny_unify(n, tokens, ny_size(n->in[1], 0), "tokens and rows of the router") || !route(&m, &e, &share))
    return ny_failed(n);
  e = ny_reshape_to(n, e, 1, &routes);
  if (!e || !ny_loop_begin(n, routes, NULL, 0, 1, &l, NULL)) return ny_failed(n);
  ny_value *row = ny_b_gather(&n->b, rows, ny_ew2s(n, NY_div, l.i, (double)m.k), 0);
  y = expert(&m, how, fusion, ny_reshape_to(n, row, 2, (ny_dim[]){1, m.hidden}), ny_b_gather(&n->b, e, l.i, 0));
  y = ny_reshape_to(n, y, 1, &m.hidden);
  if (!y || !ny_loop_end(n, &l, &y)) return ny_failed(n);
  y = ny_reshape_to(n, l.op->out[0], 3, (ny_dim[]){tokens, m.k, m.hidden});
  y = ny_ew2(n, NY_mul, y, ny_unsqueeze_at(n, share, 2));
  y = y ? ny_b_reduce(&n->b, "sum", y, (int[]){1}, 1, false) : NULL;
  return ny_out(n, 0, ny_reshape_to(n, ny_cast_to(n, y, ny_fmt_of(x)), ny_rank(x), x->type->dim));
}
