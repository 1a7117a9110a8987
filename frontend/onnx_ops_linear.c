/* Building blocks of state-space and linear-attention models: RotaryEmbedding, LinearAttention (a loop over time that
   carries the state), CausalConvWithState (a depthwise convolution over the past and the input). */
#include "onnx.h"
#include "onnx_conv.h"

#include <math.h>
#include <string.h>

/* cos or sin as [b or 1, s, 1, half], from a table by position where positions are given. */
static ny_value *angle(ny_node *n, int input, ny_value *ids) {
  ny_value *t = n->in[input];
  if (ids) t = ny_b_gather(&n->b, t, ids, 0);
  if (!t) return NULL;
  if (ny_rank(t) != 3)
    return ny_refuse_value(n, NYB_E_SHAPE, "the cache of angles has rank %d after taking positions", ny_rank(t));
  return ny_unsqueeze_at(n, t, 2);
}

/* Every second element of the last dim, starting at `first`; or a half of it. */
static ny_value *half_of(ny_node *n, ny_value *x, int64_t half, bool interleaved, int first) {
  if (!interleaved) return ny_slice_axis(n, x, 3, first ? half : 0, half);
  ny_dim count[4] = {ny_size(x, 0), ny_size(x, 1), ny_size(x, 2), half};
  return ny_b_slice(&n->b, x, (ny_dim[]){0, 0, 0, first}, (ny_dim[]){1, 1, 1, 2}, count);
}

static ny_value *rotated(ny_node *n, ny_value *x, int64_t half, bool interleaved, ny_value *c, ny_value *s) {
  ny_value *x1 = half_of(n, x, half, interleaved, 0), *x2 = half_of(n, x, half, interleaved, 1);
  ny_value *re = ny_ew2(n, NY_sub, ny_ew2(n, NY_mul, c, x1), ny_ew2(n, NY_mul, s, x2));
  ny_value *im = ny_ew2(n, NY_add, ny_ew2(n, NY_mul, s, x1), ny_ew2(n, NY_mul, c, x2));
  if (!interleaved) return ny_b_concat(&n->b, (ny_value *[]){re, im}, 2, 3);
  re = ny_unsqueeze_at(n, re, 4), im = ny_unsqueeze_at(n, im, 4);
  return ny_reshape_to(n, ny_b_concat(&n->b, (ny_value *[]){re, im}, 2, 4), 4, x->type->dim);
}

nyb_status ny_op_rotary(ny_node *n) {
  ny_value *x = n->in[0];
  int64_t d, rot = ny_attr_int(n, "rotary_embedding_dim", 0);
  const ny_type *given = x->type;
  if (ny_rank(x) == 4)
    x = ny_b_transpose(&n->b, x, (int[]){0, 2, 1, 3});
  else if (ny_rank(x) == 3)
    x = ny_split_heads(n, x, ny_attr_int(n, "num_heads", 0));
  else
    return ny_node_fail(n, NYB_E_SHAPE, "the input has rank %d, not 3 or 4", ny_rank(x));
  if (!x || !ny_need_static(n, x, 3, "the head size", &d)) return ny_failed(n);
  if (!rot) rot = d;
  if (rot < 0 || rot > d || rot % 2)
    return ny_node_fail(n, NYB_E_SHAPE, "rotary_embedding_dim %lld of a head size of %lld", (long long)rot,
                        (long long)d);
  ny_value *c = angle(n, 1, ny_opt(n, 3)), *s = angle(n, 2, ny_opt(n, 3));
  ny_value *part = ny_slice_axis(n, x, 3, 0, rot);
  if (!c || !s || !part) return ny_failed(n);
  ny_value *y = rotated(n, part, rot / 2, ny_attr_int(n, "interleaved", 0) != 0, c, s);
  if (rot < d) y = ny_b_concat(&n->b, (ny_value *[]){y, ny_slice_axis(n, x, 3, rot, d - rot)}, 2, 3);
  if (given->rank == 4) return ny_out(n, 0, ny_b_transpose(&n->b, y, (int[]){0, 2, 1, 3}));
  return ny_out(n, 0, ny_reshape_to(n, y, 3, given->dim));
}

/* ---- LinearAttention */
typedef struct linear {
  ny_value *q, *k, *v, *decay, *beta; /* [b, t, heads, d] in f32; decay and beta may be NULL */
  ny_dim batch, t;
  int64_t q_heads, kv_heads, dk, dv;
  double scale;
} linear;

/* x[:, i] as [b, kv heads, 1 or group, d] */
static ny_value *at_time(ny_node *n, const linear *l, ny_value *x, ny_value *i, int64_t rows) {
  x = ny_b_gather(&n->b, x, i, 1);
  if (!x) return NULL;
  int64_t heads = 0;
  ny_dim_is_const(n->cx, ny_size(x, 1), &heads);
  return ny_reshape_to(n, x, 4, (ny_dim[]){l->batch, heads / rows, rows, ny_size(x, 2)});
}

/* One step: the new state, and what the queries read from it. */
static void linear_step(ny_node *n, const linear *l, ny_value *i, ny_value *state, ny_value **next) {
  ny_value *q = at_time(n, l, l->q, i, l->q_heads / l->kv_heads), *k = at_time(n, l, l->k, i, 1),
           *v = at_time(n, l, l->v, i, 1);
  if (l->decay) { /* [b, heads, dk or 1, 1] */
    ny_value *g = ny_matrix_transpose(n, at_time(n, l, l->decay, i, 1));
    state = ny_ew2(n, NY_mul, state, ny_ew1(n, NY_exp, g));
  }
  if (l->beta) {
    ny_value *b = at_time(n, l, l->beta, i, 1), *old = ny_b_matmul(&n->b, k, state);
    v = ny_ew2(n, NY_mul, b, ny_ew2(n, NY_sub, v, old));
  }
  next[0] = ny_ew2(n, NY_add, state, ny_ew2(n, NY_mul, ny_matrix_transpose(n, k), v));
  next[1] = ny_ew2s(n, NY_mul, ny_b_matmul(&n->b, q, next[0]), l->scale);
}

static ny_value *wide_heads(ny_node *n, ny_value *x, int64_t heads) {
  return ny_cast_to(n, ny_split_heads(n, x, heads), NY_f32);
}

static bool linear_of(ny_node *n, linear *l) {
  enum { GATED = 1, DELTA = 2 };
  int rule = ny_attr_choice(n, "update_rule", "gated_delta", "linear|gated|delta|gated_delta");
  ny_value *decay = ny_opt(n, 4), *beta = ny_opt(n, 5);
  if (rule < 0) return false;
  if (!(rule & GATED) != !decay || !(rule & DELTA) != !beta)
    return ny_refuse(n, NYB_E_SHAPE, "update_rule does not go with the decay and beta inputs given");
  l->q_heads = ny_attr_int(n, "q_num_heads", 0), l->kv_heads = ny_attr_int(n, "kv_num_heads", 0);
  if (l->kv_heads <= 0 || l->q_heads <= 0 || l->q_heads % l->kv_heads)
    return ny_refuse(n, NYB_E_SHAPE, "%lld query heads and %lld key heads", (long long)l->q_heads,
                     (long long)l->kv_heads);
  l->q = wide_heads(n, n->in[0], l->q_heads);
  l->k = wide_heads(n, n->in[1], l->kv_heads);
  l->v = wide_heads(n, n->in[2], l->kv_heads);
  if (!l->q || !l->k || !l->v) return false;
  l->batch = ny_size(l->q, 0), l->t = ny_size(l->q, 1);
  ny_dim_is_const(n->cx, ny_size(l->k, 3), &l->dk);
  ny_dim_is_const(n->cx, ny_size(l->v, 3), &l->dv);
  if (decay && !(l->decay = wide_heads(n, decay, l->kv_heads))) return false;
  if (beta) {
    int64_t width;
    if (ny_rank(beta) != 3) return ny_refuse(n, NYB_E_SHAPE, "beta has rank %d, not 3", ny_rank(beta));
    if (!ny_need_static(n, beta, 2, "the width of beta", &width)) return false;
    if (width != 1 && width != l->kv_heads) return ny_refuse(n, NYB_E_SHAPE, "beta is %lld wide", (long long)width);
    if (!(l->beta = wide_heads(n, beta, width))) return false;
  }
  l->scale = ny_attr_float(n, "scale", 0);
  if (l->scale == 0) l->scale = 1 / sqrt((double)(l->dk > 0 ? l->dk : 1));
  return true;
}

nyb_status ny_op_linear_attention(ny_node *n) {
  linear l = {0};
  ny_loop loop;
  ny_value *past = ny_opt(n, 3), *state, *next[2];
  if (!linear_of(n, &l)) return ny_failed(n);
  ny_fmt f = ny_fmt_of(n->in[0]);
  ny_dim shape[4] = {l.batch, l.kv_heads, l.dk, l.dv};
  ny_value *first = past ? ny_cast_to(n, past, NY_f32) : ny_full(n, NY_f32, 4, shape, 0);
  if (!ny_loop_begin(n, l.t, &first, 1, 1, &loop, &state)) return ny_failed(n);
  linear_step(n, &l, loop.i, state, next);
  if (!ny_loop_end(n, &loop, next)) return ny_failed(n);
  if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, ny_cast_to(n, loop.op->out[0], past ? ny_fmt_of(past) : f)));
  ny_value *all = ny_b_transpose(&n->b, loop.op->out[1], (int[]){1, 0, 2, 3, 4});
  all = ny_reshape_to(n, all, 3, (ny_dim[]){l.batch, l.t, l.q_heads * l.dv});
  return ny_out(n, 0, ny_cast_to(n, all, f));
}

/* ---- CausalConvWithState */
nyb_status ny_op_causal_conv(ny_node *n) {
  ny_value *x = n->in[0], *w = n->in[1], *bias = ny_opt(n, 2), *past = ny_opt(n, 3);
  int64_t k, channels;
  int act = ny_attr_choice(n, "activation", "none", "none|silu|swish");
  if (ny_rank(x) != 3 || ny_rank(w) != 3)
    return ny_node_fail(n, NYB_E_SHAPE, "input and weight have ranks %d and %d, not 3", ny_rank(x), ny_rank(w));
  if (!ny_need_static(n, w, 2, "the kernel size", &k) || !ny_need_static(n, w, 0, "the number of channels", &channels))
    return ny_failed(n);
  if (k < 1) return ny_node_fail(n, NYB_E_SHAPE, "the kernel size is %lld", (long long)k);
  ny_fmt f = ny_fmt_of(x), wide = ny_wide(f);
  ny_value *all = x;
  if (past)
    all = ny_b_concat(&n->b, (ny_value *[]){past, x}, 2, 2);
  else if (k > 1)
    all = ny_b_pad(&n->b, x, NULL, (ny_dim[]){0, 0, k - 1}, (ny_dim[]){0, 0, 0}, NULL, "constant");
  if (!all) return ny_failed(n);
  ny_dim extra = ny_dim_sub(n->cx, ny_size(all, 2), ny_dim_const(n->cx, k - 1));
  if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, ny_slice_axis(n, all, 2, extra, k - 1)));
  ny_value *xs = ny_b_transpose(&n->b, ny_cast_to(n, all, wide), (int[]){0, 2, 1});
  ny_value *ws = ny_b_transpose(&n->b, ny_cast_to(n, w, wide), (int[]){2, 1, 0});
  ny_window win = {.spatial = 1, .kernel = {k}, .stride = {1}, .dilation = {1}};
  ny_value *y = ny_conv_op(n, xs, ws, &win, win.stride, channels);
  if (bias) y = ny_ew2(n, NY_add, y, ny_cast_to(n, bias, wide));
  y = ny_cast_to(n, ny_b_transpose(&n->b, y, (int[]){0, 2, 1}), f);
  return ny_out(n, 0, act ? ny_ew1(n, NY_silu, y) : y);
}
