/* Attention (opsets 23 to 28) and FlexAttention. The plain case is one attention op; masks, caches, soft caps and the
   optional score output are composites around softmax. Masks become one additive bias: -inf hides a key, and a row with
   every key hidden gives 0, not NaN. */
#include "onnx.h"

#include <math.h>

typedef struct attn {
  ny_value *q, *k, *v;      /* [batch, heads, length, head size]; k and v with the past in front */
  ny_value *past, *nonpad;  /* past key; i64[batch] count of keys that are not padding */
  ny_value *mask, *allowed; /* additive, and bool; each may be NULL */
  ny_dim batch, n_q, n_kv;
  bool rows_may_be_hidden;
} attn;

/* [b, s, heads*d] -> [b, heads, s, d]; 4-D tensors pass. */
static ny_value *by_head(ny_node *n, ny_value *x, int64_t heads) {
  return ny_rank(x) == 4 ? x : ny_b_transpose(&n->b, ny_split_heads(n, x, heads), (int[]){0, 2, 1, 3});
}

/* Every head `times` times in a row. */
static ny_value *repeat_heads(ny_node *n, ny_value *x, int64_t times) {
  if (!x || times == 1) return x;
  ny_dim b = ny_size(x, 0), h = ny_size(x, 1), s = ny_size(x, 2), d = ny_size(x, 3);
  x = ny_b_broadcast(&n->b, ny_unsqueeze_at(n, x, 2), 5, (ny_dim[]){b, h, times, s, d});
  return ny_reshape_to(n, x, 4, (ny_dim[]){b, ny_dim_mul(n->cx, h, times), s, d});
}

/* Query heads per key head; 0 after failing. */
static int64_t group_size(ny_node *n, const ny_value *q, const ny_value *k) {
  int64_t qh, kh;
  if (!ny_need_static(n, q, 1, "the number of query heads", &qh) ||
      !ny_need_static(n, k, 1, "the number of key heads", &kh))
    return 0;
  if (kh > 0 && qh > 0 && qh % kh == 0) return qh / kh;
  ny_node_fail(n, NYB_E_SHAPE, "%lld query heads cannot share %lld key heads", (long long)qh, (long long)kh);
  return 0;
}

static void allow(ny_node *n, attn *a, ny_value *where) {
  a->allowed = a->allowed ? ny_ew2(n, NY_and, a->allowed, where) : where;
}

/* Position of each query minus position of each key: [q, kv], or [b, 1, q, kv] where the cache length differs by batch
 * entry. */
static ny_value *distance(ny_node *n, const attn *a) {
  ny_value *i = ny_b_iota(&n->b, NY_i64, 2, (ny_dim[]){a->n_q, 1}, 0);
  ny_value *d = ny_ew2(n, NY_sub, i, ny_b_iota(&n->b, NY_i64, 2, (ny_dim[]){1, a->n_kv}, 1));
  if (a->past) return ny_ew2(n, NY_add, d, ny_dim_value(n, ny_size(a->past, 2)));
  if (!a->nonpad) return d;
  ny_value *offset = ny_ew2(n, NY_sub, a->nonpad, ny_dim_value(n, a->n_q));
  return ny_ew2(n, NY_add, d, ny_reshape_to(n, offset, 4, (ny_dim[]){a->batch, 1, 1, 1}));
}

/* The mask input, padded to all keys, as `mask` or `allowed`. */
static bool read_mask(ny_node *n, attn *a) {
  ny_value *m = ny_opt(n, 3);
  if (!m) return true;
  int r = ny_rank(m);
  if (r < 1 || r > 4) return ny_refuse(n, NYB_E_SHAPE, "the mask has rank %d", r);
  bool logical = ny_fmt_of(m) == NY_bool;
  int64_t have, want;
  if (ny_static_size(m, r - 1, &have) && ny_dim_is_const(n->cx, a->n_kv, &want) && have < want) {
    ny_dim lo[4] = {0}, hi[4] = {0};
    hi[r - 1] = want - have;
    ny_value *fill = logical ? NULL : ny_num(n, m, -INFINITY);
    m = ny_b_pad(&n->b, m, fill, lo, hi, NULL, "constant");
    if (!m) return false;
  }
  a->rows_may_be_hidden = true;
  if (logical)
    a->allowed = m;
  else
    a->mask = m;
  return true;
}

static bool hide(ny_node *n, attn *a) {
  int64_t left = ny_attr_int(n, "left_window_size", -1), right = ny_attr_int(n, "right_window_size", -1);
  bool causal = ny_attr_int(n, "is_causal", 0) != 0;
  if (left < -1 || right < -1)
    return ny_refuse(n, NYB_E_SHAPE, "window sizes %lld and %lld", (long long)left, (long long)right);
  if (causal || left >= 0 || right >= 0) {
    ny_value *d = distance(n, a);
    if (causal) allow(n, a, ny_ew2s(n, NY_ge, d, 0));
    if (left >= 0) allow(n, a, ny_ew2s(n, NY_le, d, (double)left));
    if (right >= 0) allow(n, a, ny_ew2s(n, NY_ge, d, -(double)right));
    a->rows_may_be_hidden |= left >= 0 || right >= 0 || a->nonpad;
  }
  if (!a->nonpad) return !n->cx->diag.code;
  ny_value *j = ny_b_iota(&n->b, NY_i64, 4, (ny_dim[]){1, 1, 1, a->n_kv}, 3);
  ny_value *len = ny_reshape_to(n, a->nonpad, 4, (ny_dim[]){a->batch, 1, 1, 1});
  allow(n, a, ny_ew2(n, NY_lt, j, len));
  a->rows_may_be_hidden = true;
  return a->allowed != NULL;
}

/* mask + (allowed ? 0 : -inf), or NULL for no bias at all. */
static bool bias_of(ny_node *n, const attn *a, ny_value **out) {
  *out = a->mask ? ny_cast_to(n, a->mask, ny_fmt_of(a->q)) : NULL;
  if (!a->allowed) return *out || !a->mask;
  *out = ny_where(n, a->allowed, *out ? *out : ny_num(n, a->q, 0), ny_num(n, a->q, -INFINITY));
  return *out != NULL;
}

/* softmax over keys in format f, rows without keys 0, back in the format of the scores. */
static ny_value *weights(ny_node *n, ny_value *scores, ny_value *bias, bool rows_may_be_hidden, ny_fmt f, ny_fmt back) {
  ny_value *p = scores ? ny_softmax(n, ny_cast_to(n, scores, f), 3) : NULL;
  if (bias && rows_may_be_hidden) {
    int last = ny_rank(bias) - 1;
    ny_value *none = ny_ew2s(n, NY_eq, ny_b_reduce(&n->b, "max", bias, &last, 1, true), -INFINITY);
    p = ny_where(n, none, ny_num(n, p, 0), p);
  }
  return ny_cast_to(n, p, back);
}

static ny_value *scaled_scores(ny_node *n, ny_value *q, ny_value *k, double scale) {
  ny_value *kt = ny_matrix_transpose(n, k);
  return ny_b_matmul(&n->b, ny_ew2s(n, NY_mul, q, sqrt(scale)), ny_ew2s(n, NY_mul, kt, sqrt(scale)));
}

static double scale_of(ny_node *n, int64_t head_size) {
  return ny_attr_float(n, "scale", 1 / sqrt((double)(head_size > 0 ? head_size : 1)));
}

static ny_value *plain(ny_node *n, const attn *a, double scale, bool causal) {
  ny_op *op = ny_op_of(n, NY_attention, (ny_value *[]){a->q, a->k, a->v}, 3);
  if (!op) return NULL;
  op->attr[NY_AT(attention, scale)].f = scale;
  op->attr[NY_AT(attention, causal)].i = causal;
  return ny_infer(n, op);
}

static ny_value *general(ny_node *n, const attn *a, double scale) {
  double cap = ny_attr_float(n, "softcap", 0);
  int64_t mode = ny_attr_int(n, "qk_matmul_output_mode", 0);
  ny_fmt f = ny_fmt_of(a->q), soft;
  ny_value *bias, *shown[4] = {NULL};
  if (!ny_attr_fmt(n, "softmax_precision", f, &soft) || !bias_of(n, a, &bias)) return NULL;
  if (mode < 0 || mode > 3)
    return ny_refuse_value(n, NYB_E_UNSUPPORTED, "qk_matmul_output_mode is %lld", (long long)mode);
  ny_value *s = scaled_scores(n, a->q, a->k, scale);
  shown[0] = s;
  if (cap > 0) s = ny_ew2s(n, NY_mul, ny_ew1(n, NY_tanh, ny_ew2s(n, NY_div, s, cap)), cap);
  shown[1] = s;
  if (bias) s = ny_ew2(n, NY_add, s, bias);
  shown[2] = s;
  ny_value *p = weights(n, s, bias, a->rows_may_be_hidden, soft, f);
  shown[3] = p;
  if (ny_wanted(n, 3) && ny_out(n, 3, shown[mode])) return NULL;
  return ny_b_matmul(&n->b, p, a->v);
}

static ny_value *with_past(ny_node *n, ny_value *past, ny_value *x) {
  return past ? ny_b_concat(&n->b, (ny_value *[]){past, x}, 2, 2) : x;
}

nyb_status ny_op_attention(ny_node *n) {
  ny_value *k, *v;
  int64_t kh = ny_attr_int(n, "kv_num_heads", 0), d;
  attn a = {.past = ny_opt(n, 4), .nonpad = ny_opt(n, 6)};
  bool flat = ny_rank(n->in[0]) == 3;
  if (!a.past != !ny_opt(n, 5)) return ny_node_fail(n, NYB_E_SHAPE, "past_key and past_value come together");
  if (a.past && a.nonpad) return ny_node_fail(n, NYB_E_SHAPE, "nonpad_kv_seqlen cannot be combined with a past");
  a.q = by_head(n, n->in[0], ny_attr_int(n, "q_num_heads", 0));
  k = with_past(n, a.past, by_head(n, n->in[1], kh));
  v = with_past(n, ny_opt(n, 5), by_head(n, n->in[2], kh));
  if (!a.q || !k || !v) return ny_failed(n);
  if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, k));
  if (ny_wanted(n, 2)) NY_TRY(ny_out(n, 2, v));
  int64_t times = group_size(n, a.q, k);
  if (!times || !ny_need_static(n, a.q, 3, "the head size", &d)) return ny_failed(n);
  a.k = repeat_heads(n, k, times);
  a.v = repeat_heads(n, v, times);
  if (!a.k || !a.v) return ny_failed(n);
  a.batch = ny_size(a.q, 0), a.n_q = ny_size(a.q, 2), a.n_kv = ny_size(a.k, 2);
  double scale = scale_of(n, d);
  bool window = ny_attr_int(n, "left_window_size", -1) >= 0 || ny_attr_int(n, "right_window_size", -1) >= 0;
  bool simple = !ny_opt(n, 3) && !a.nonpad && !window && !ny_wanted(n, 3) && !(ny_attr_float(n, "softcap", 0) > 0) &&
                !ny_attr_has(n, "softmax_precision");
  bool causal = ny_attr_int(n, "is_causal", 0) != 0;
  ny_value *y = NULL;
  if (simple && !(causal && a.past))
    y = plain(n, &a, scale, causal);
  else if (read_mask(n, &a) && hide(n, &a))
    y = general(n, &a, scale);
  if (y && flat) {
    y = ny_b_transpose(&n->b, y, (int[]){0, 2, 1, 3});
    y = y ? ny_reshape_to(n, y, 3, (ny_dim[]){ny_size(y, 0), ny_size(y, 1), ny_product(n, y->type->dim + 2, 2)}) : NULL;
  }
  return ny_out(n, 0, y);
}

/* A graph attribute that maps one tensor to one of the same type. */
static ny_value *modify(ny_node *n, const char *name, ny_value *x) {
  const ny_onnx_graph *g = x ? ny_attr_graph(n, name) : NULL;
  if (!g) return x;
  ny_fmt f = ny_fmt_of(x);
  if (ny_graph_n_inputs(g) != 1 || ny_graph_n_outputs(g) != 1)
    return ny_refuse_value(n, NYB_E_UNSUPPORTED, "%s must have one input and one output", name);
  ny_thing in = {.v = x}, out = {0};
  if (ny_inline_graph(n, g, &in, 1, &out, 1)) return NULL;
  if (!out.v) return ny_refuse_value(n, NYB_E_UNSUPPORTED, "%s does not give a tensor", name);
  return ny_cast_to(n, out.v, f);
}

nyb_status ny_op_flex_attention(ny_node *n) {
  ny_value *q = n->in[0], *k = n->in[1], *v = n->in[2];
  int64_t d, times;
  if (ny_rank(q) != 4 || ny_rank(k) != 4 || ny_rank(v) != 4)
    return ny_node_fail(n, NYB_E_SHAPE, "inputs must have rank 4");
  ny_fmt wide = ny_wide(ny_fmt_of(q));
  if (!ny_attr_fmt(n, "softmax_precision", wide, &wide) || !ny_need_static(n, q, 3, "the head size", &d) ||
      !(times = group_size(n, q, k)))
    return ny_failed(n);
  k = repeat_heads(n, k, times);
  ny_value *s = modify(n, "score_mod", ny_cast_to(n, scaled_scores(n, q, k, scale_of(n, d)), wide));
  ny_value *p = modify(n, "prob_mod", weights(n, s, NULL, false, wide, wide));
  ny_value *y = ny_b_matmul(&n->b, p, ny_cast_to(n, repeat_heads(n, v, times), wide));
  return ny_out(n, 0, ny_cast_to(n, y, ny_fmt_of(v)));
}
