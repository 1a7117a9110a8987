/* Losses and optimiser steps: short composites. A target equal to ignore_index contributes nothing, to the weights of
 * the mean either. */
#include "onnx.h"

#include <string.h>

typedef struct loss {
  ny_value *target;  /* [N, d...], safe to gather with */
  ny_value *ignored; /* bool, or NULL */
  ny_value *weight;  /* per target, or NULL when all count 1 */
} loss;

static bool loss_of(ny_node *n, const ny_value *x, loss *l) {
  ny_value *t = ny_need(n, 1), *w = ny_opt(n, 2);
  if (!t) return false;
  if (ny_rank(x) < 2 || ny_rank(t) != ny_rank(x) - 1) {
    ny_node_fail(n, NYB_E_SHAPE, "scores of rank %d need a target of rank %d, not %d", ny_rank(x), ny_rank(x) - 1,
                 ny_rank(t));
    return false;
  }
  *l = (loss){.target = t};
  if (ny_attr_has(n, "ignore_index")) {
    ny_value *mark = ny_num(n, t, (double)ny_attr_int(n, "ignore_index", 0));
    l->ignored = mark ? ny_ew2(n, NY_eq, t, mark) : NULL;
    if (!l->ignored) return false;
    l->target = ny_ew(n, NY_where, (ny_value *[]){l->ignored, ny_num(n, t, 0), t}, 3);
  }
  if (!l->target) return false;
  ny_value *like = w ? ny_b_gather(&n->b, w, l->target, 0) : NULL;
  if (w && !like) return false;
  if (!like && l->ignored)
    like = ny_cast_to(n, ny_ew1(n, NY_not, l->ignored), ny_fmt_of(x));
  else if (l->ignored)
    like = ny_ew(n, NY_where, (ny_value *[]){l->ignored, ny_num(n, like, 0), like}, 3);
  l->weight = like;
  return like || (!w && !l->ignored);
}

static ny_value *reduce_all(ny_node *n, ny_value *x) {
  int axes[NY_MAX_RANK];
  if (!x) return NULL;
  for (int i = 0; i < ny_rank(x); i++) axes[i] = i;
  return ny_rank(x) ? ny_b_reduce(&n->b, "sum", x, axes, ny_rank(x), false) : x;
}

/* logp: [N, C, d...] log-probabilities. */
static ny_value *nll(ny_node *n, ny_value *logp) {
  const char *how = ny_attr_string(n, "reduction", "mean");
  loss l;
  if (!loss_of(n, logp, &l)) return NULL;
  ny_value *at = ny_unsqueeze_at(n, l.target, 1);
  if (!at) return NULL;
  const ny_type *t = ny_type_with_fmt(n->cx, at->type, ny_fmt_of(logp));
  ny_op *g = ny_build(&n->b, NY_gather_elements, (ny_value *[]){logp, at}, 2, &t, 1);
  if (!g) return NULL;
  g->attr[NY_AT(gather_elements, axis)].i = 1;
  ny_value *y = ny_ew1(n, NY_neg, ny_squeeze_at(n, ny_done(n, g), 1));
  if (y && l.ignored) y = ny_ew(n, NY_where, (ny_value *[]){l.ignored, ny_num(n, y, 0), y}, 3);
  if (y && l.weight) y = ny_ew2(n, NY_mul, y, l.weight);
  if (!y || !strcmp(how, "none")) return y;
  ny_value *sum = reduce_all(n, y);
  if (!sum || !strcmp(how, "sum")) return sum;
  if (strcmp(how, "mean")) {
    ny_node_fail(n, NYB_E_UNSUPPORTED, "reduction is \"%s\", not none, sum or mean", how);
    return NULL;
  }
  ny_value *many = NULL;
  if (l.weight) {
    many = reduce_all(n, l.weight);
  } else {
    ny_dim count = ny_type_count(n->cx, y->type);
    many = ny_b_dims(&n->b, &count, 1, true);
    many = many ? ny_cast_to(n, many, ny_fmt_of(y)) : NULL;
  }
  return many ? ny_ew2(n, NY_div, sum, many) : NULL;
}

nyb_status ny_op_nll_loss(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  return x ? ny_out(n, 0, nll(n, x)) : ny_failed(n);
}

nyb_status ny_op_softmax_loss(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  if (!x) return ny_failed(n);
  if (ny_rank(x) < 2)
    return ny_node_fail(n, NYB_E_SHAPE, "scores need a class dimension, their rank is %d", ny_rank(x));
  int axis = 1;
  ny_value *m = ny_b_reduce(&n->b, "max", x, &axis, 1, true);
  ny_value *d = m ? ny_ew2(n, NY_sub, x, m) : NULL;
  ny_value *s = d ? ny_b_reduce(&n->b, "sum", ny_ew1(n, NY_exp, d), &axis, 1, true) : NULL;
  ny_value *logp = s ? ny_ew2(n, NY_sub, d, ny_ew1(n, NY_log, s)) : NULL;
  if (!logp) return ny_failed(n);
  if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, logp));
  return ny_out(n, 0, nll(n, logp));
}

/* ---- ai.onnx.preview.training. Inputs: rate, step, then one group per kind of state; outputs grouped the same way
 * without gradients. */
static ny_value *fma_(ny_node *n, ny_value *x, double scale, ny_value *plus) { /* scale * x + plus */
  ny_value *s = x ? ny_ew2s(n, NY_mul, x, scale) : NULL;
  return s ? ny_ew2(n, NY_add, s, plus) : NULL;
}

/* How many tensors are optimised, from `groups` inputs each; fails unless it comes out even. */
static int tensors(ny_node *n, int groups) {
  int k = (n->n_in - 2) / groups;
  if (n->n_in > 2 && (n->n_in - 2) % groups == 0) return k;
  ny_node_fail(n, NYB_E_SHAPE, "%d inputs do not make a rate, a step and groups of %d", n->n_in, groups);
  return 0;
}

static ny_value *scalar_of(ny_node *n, int i, ny_fmt f) {
  ny_value *v = ny_need(n, i);
  if (v && ny_rank(v)) v = ny_reshape_to(n, v, 0, NULL);
  return v ? ny_cast_to(n, v, f) : NULL;
}

nyb_status ny_op_momentum(ny_node *n) {
  int k = tensors(n, 3);
  double norm = ny_attr_float(n, "norm_coefficient", 0), alpha = ny_attr_float(n, "alpha", 0),
         beta = ny_attr_float(n, "beta", 0);
  bool nesterov = !strcmp(ny_attr_string(n, "mode", "standard"), "nesterov");
  if (!k) return ny_failed(n);
  for (int i = 0; i < k; i++) {
    ny_value *x = ny_need(n, 2 + i), *g = ny_need(n, 2 + k + i), *v = ny_need(n, 2 + 2 * k + i);
    ny_value *r = x ? scalar_of(n, 0, ny_fmt_of(x)) : NULL, *t = ny_need(n, 1);
    if (!x || !g || !v || !r || !t) return ny_failed(n);
    ny_value *first = ny_ew2s(n, NY_le, t, 0); /* the first step takes the whole gradient */
    ny_value *b = ny_ew(n, NY_where, (ny_value *[]){first, ny_num(n, x, 1), ny_num(n, x, beta)}, 3);
    ny_value *reg = fma_(n, x, norm, g);
    ny_value *v_new = b && reg ? fma_(n, v, alpha, ny_ew2(n, NY_mul, reg, b)) : NULL;
    ny_value *step = nesterov ? fma_(n, v_new, alpha, reg) : v_new;
    ny_value *x_new = step ? ny_ew2(n, NY_sub, x, ny_ew2(n, NY_mul, step, r)) : NULL;
    if (!x_new) return ny_failed(n);
    NY_TRY(ny_out(n, i, x_new));
    NY_TRY(ny_out(n, k + i, v_new));
  }
  return NYB_OK;
}

nyb_status ny_op_adagrad(ny_node *n) {
  int k = tensors(n, 3);
  double norm = ny_attr_float(n, "norm_coefficient", 0), eps = ny_attr_float(n, "epsilon", 1e-6),
         decay = ny_attr_float(n, "decay_factor", 0);
  if (!k) return ny_failed(n);
  for (int i = 0; i < k; i++) {
    ny_value *x = ny_need(n, 2 + i), *g = ny_need(n, 2 + k + i), *h = ny_need(n, 2 + 2 * k + i);
    ny_value *r = x ? scalar_of(n, 0, ny_fmt_of(x)) : NULL, *t = x ? scalar_of(n, 1, ny_fmt_of(x)) : NULL;
    if (!x || !g || !h || !r || !t) return ny_failed(n);
    ny_value *slow = ny_ew2s(n, NY_add, ny_ew2s(n, NY_mul, t, decay), 1);
    ny_value *rate = slow ? ny_ew2(n, NY_div, r, slow) : NULL;
    ny_value *reg = fma_(n, x, norm, g);
    ny_value *h_new = reg ? ny_ew2(n, NY_add, h, ny_ew2(n, NY_mul, reg, reg)) : NULL;
    ny_value *den = h_new ? ny_ew2s(n, NY_add, ny_ew1(n, NY_sqrt, h_new), eps) : NULL;
    ny_value *x_new = den && rate ? ny_ew2(n, NY_sub, x, ny_ew2(n, NY_mul, rate, ny_ew2(n, NY_div, reg, den))) : NULL;
    if (!x_new) return ny_failed(n);
    NY_TRY(ny_out(n, i, x_new));
    NY_TRY(ny_out(n, k + i, h_new));
  }
  return NYB_OK;
}

/* r * sqrt(1 - beta^t) / (1 - alpha^t), or r at step 0. */
static ny_value *adam_rate(ny_node *n, ny_value *r, ny_value *t, double alpha, double beta) {
  ny_value *one = ny_num(n, r, 1);
  ny_value *b = ny_ew2(n, NY_pow, ny_num(n, r, beta), t), *a = ny_ew2(n, NY_pow, ny_num(n, r, alpha), t);
  if (!one || !a || !b) return NULL;
  ny_value *up = ny_ew2(n, NY_mul, r, ny_ew1(n, NY_sqrt, ny_ew2(n, NY_sub, one, b)));
  ny_value *rate = ny_ew2(n, NY_div, up, ny_ew2(n, NY_sub, one, a));
  return ny_ew(n, NY_where, (ny_value *[]){ny_ew2s(n, NY_gt, t, 0), rate, r}, 3);
}

nyb_status ny_op_adam(ny_node *n) {
  int k = tensors(n, 4);
  double norm = ny_attr_float(n, "norm_coefficient", 0), post = ny_attr_float(n, "norm_coefficient_post", 0);
  double alpha = ny_attr_float(n, "alpha", 0.9), beta = ny_attr_float(n, "beta", 0.999),
         eps = ny_attr_float(n, "epsilon", 1e-6);
  if (!k) return ny_failed(n);
  for (int i = 0; i < k; i++) {
    ny_value *x = ny_need(n, 2 + i), *g = ny_need(n, 2 + k + i), *v = ny_need(n, 2 + 2 * k + i),
             *h = ny_need(n, 2 + 3 * k + i);
    ny_value *r = x ? scalar_of(n, 0, ny_fmt_of(x)) : NULL, *t = x ? scalar_of(n, 1, ny_fmt_of(x)) : NULL;
    if (!x || !g || !v || !h || !r || !t) return ny_failed(n);
    ny_value *reg = fma_(n, x, norm, g);
    ny_value *v_new = reg ? fma_(n, v, alpha, ny_ew2s(n, NY_mul, reg, 1 - alpha)) : NULL;
    ny_value *h_new = reg ? fma_(n, h, beta, ny_ew2s(n, NY_mul, ny_ew2(n, NY_mul, reg, reg), 1 - beta)) : NULL;
    ny_value *den = h_new ? ny_ew2s(n, NY_add, ny_ew1(n, NY_sqrt, h_new), eps) : NULL;
    ny_value *rate = adam_rate(n, r, t, alpha, beta);
    ny_value *move = den && rate ? ny_ew2(n, NY_mul, rate, ny_ew2(n, NY_div, v_new, den)) : NULL;
    ny_value *x_new = move ? ny_ew2s(n, NY_mul, ny_ew2(n, NY_sub, x, move), 1 - post) : NULL;
    if (!x_new) return ny_failed(n);
    NY_TRY(ny_out(n, i, x_new));
    NY_TRY(ny_out(n, k + i, v_new));
    NY_TRY(ny_out(n, 2 * k + i, h_new));
  }
  return NYB_OK;
}
