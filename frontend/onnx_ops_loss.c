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
  ny_value *t = n->in[1], *w = ny_opt(n, 2);
  if (ny_rank(x) < 2 || ny_rank(t) != ny_rank(x) - 1)
    return ny_refuse(n, NYB_E_SHAPE, "scores of rank %d need a target of rank %d, not %d", ny_rank(x), ny_rank(x) - 1,
                     ny_rank(t));
  *l = (loss){.target = t};
  if (ny_attr_has(n, "ignore_index")) {
    l->ignored = ny_ew2s(n, NY_eq, t, (double)ny_attr_int(n, "ignore_index", 0));
    l->target = ny_where(n, l->ignored, ny_num(n, t, 0), t);
  }
  if (w) l->weight = ny_b_gather(&n->b, w, l->target, 0);
  if (w && l->ignored) l->weight = ny_where(n, l->ignored, ny_num(n, l->weight, 0), l->weight);
  if (!w && l->ignored) l->weight = ny_cast_to(n, ny_ew1(n, NY_not, l->ignored), ny_fmt_of(x));
  return !n->cx->diag.code;
}

static ny_value *sum_all(ny_node *n, ny_value *x) {
  int axes[NY_MAX_RANK] = {0, 1, 2, 3, 4, 5, 6, 7};
  return x && ny_rank(x) ? ny_b_reduce(&n->b, "sum", x, axes, ny_rank(x), false) : x;
}

/* logp: [N, C, d...] log-probabilities. */
static ny_value *nll(ny_node *n, ny_value *logp) {
  enum { MEAN, SUM, NONE };
  int how = ny_attr_choice(n, "reduction", "mean", "mean|sum|none");
  loss l = {0};
  if (how < 0 || !logp || !loss_of(n, logp, &l)) return NULL;
  ny_value *picked = ny_gather_elements(n, logp, ny_unsqueeze_at(n, l.target, 1), 1);
  ny_value *y = ny_ew1(n, NY_neg, ny_squeeze_at(n, picked, 1));
  if (l.ignored) y = ny_where(n, l.ignored, ny_num(n, y, 0), y);
  if (l.weight) y = ny_ew2(n, NY_mul, y, l.weight);
  if (how == NONE || !y) return y;
  ny_value *sum = sum_all(n, y);
  if (how == SUM) return sum;
  ny_value *many =
      l.weight ? sum_all(n, l.weight) : ny_cast_to(n, ny_dim_value(n, ny_type_count(n->cx, y->type)), ny_fmt_of(y));
  return ny_ew2(n, NY_div, sum, many);
}

nyb_status ny_op_nll_loss(ny_node *n) { return ny_out(n, 0, nll(n, n->in[0])); }

nyb_status ny_op_softmax_loss(ny_node *n) {
  if (ny_rank(n->in[0]) < 2)
    return ny_node_fail(n, NYB_E_SHAPE, "scores need a class dimension, their rank is %d", ny_rank(n->in[0]));
  ny_value *logp = ny_log_softmax(n, n->in[0], 1);
  if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, logp));
  return ny_out(n, 0, nll(n, logp));
}

/* ---- ai.onnx.preview.training. Inputs: rate, step, then one group per kind of state; outputs grouped the same way
   without gradients. */
static ny_value *fma_(ny_node *n, ny_value *x, double scale, ny_value *plus) { /* scale * x + plus */
  return ny_ew2(n, NY_add, ny_ew2s(n, NY_mul, x, scale), plus);
}

typedef struct step {
  ny_value *x, *g, *v, *h; /* the tensor, its gradient and state; g with the regularisation of x */
  ny_value *rate, *t;      /* scalars in the format of x; t: how many steps there were */
  ny_value *x_new, *v_new, *h_new;
} step;
typedef void step_fn(ny_node *n, step *s);

/* `groups` of n_state + 2: x, g, then the state. */
static nyb_status optimise(ny_node *n, int n_state, step_fn *fn) {
  int groups = n_state + 2, k = (n->n_in - 2) / groups;
  double norm = ny_attr_float(n, "norm_coefficient", 0);
  if (k < 1 || (n->n_in - 2) % groups)
    return ny_node_fail(n, NYB_E_SHAPE, "%d inputs do not make a rate, a step and groups of %d", n->n_in, groups);
  for (int i = 0; i < k; i++) {
    for (int j = 0; j < groups; j++)
      if (!ny_need(n, 2 + j * k + i)) return ny_failed(n);
    step s = {.x = n->in[2 + i], .v = n->in[2 + 2 * k + i], .h = n_state > 1 ? n->in[2 + 3 * k + i] : NULL};
    s.g = fma_(n, s.x, norm, n->in[2 + k + i]);
    s.rate = ny_cast_to(n, ny_reshape_to(n, n->in[0], 0, NULL), ny_fmt_of(s.x));
    s.t = ny_cast_to(n, ny_reshape_to(n, n->in[1], 0, NULL), ny_fmt_of(s.x));
    fn(n, &s);
    NY_TRY(ny_out(n, i, s.x_new));
    NY_TRY(ny_out(n, k + i, s.v_new));
    if (n_state > 1) NY_TRY(ny_out(n, 2 * k + i, s.h_new));
  }
  return NYB_OK;
}

static void momentum(ny_node *n, step *s) {
  double alpha = ny_attr_float(n, "alpha", 0), beta = ny_attr_float(n, "beta", 0);
  bool nesterov = ny_attr_choice(n, "mode", "standard", "standard|nesterov") == 1;
  ny_value *first = ny_ew2s(n, NY_le, s->t, 0); /* the first step takes the whole gradient */
  ny_value *b = ny_where(n, first, ny_num(n, s->x, 1), ny_num(n, s->x, beta));
  s->v_new = fma_(n, s->v, alpha, ny_ew2(n, NY_mul, s->g, b));
  ny_value *move = nesterov ? fma_(n, s->v_new, alpha, s->g) : s->v_new;
  s->x_new = ny_ew2(n, NY_sub, s->x, ny_ew2(n, NY_mul, move, s->rate));
}

static void adagrad(ny_node *n, step *s) {
  double eps = ny_attr_float(n, "epsilon", 1e-6), decay = ny_attr_float(n, "decay_factor", 0);
  ny_value *rate = ny_ew2(n, NY_div, s->rate, ny_ew2s(n, NY_add, ny_ew2s(n, NY_mul, s->t, decay), 1));
  s->v_new = ny_ew2(n, NY_add, s->v, ny_ew2(n, NY_mul, s->g, s->g));
  ny_value *den = ny_ew2s(n, NY_add, ny_ew1(n, NY_sqrt, s->v_new), eps);
  s->x_new = ny_ew2(n, NY_sub, s->x, ny_ew2(n, NY_mul, rate, ny_ew2(n, NY_div, s->g, den)));
}

/* 1 - b^t */
static ny_value *unbias(ny_node *n, const step *s, double b) {
  return ny_ew2(n, NY_sub, ny_num(n, s->x, 1), ny_ew2(n, NY_pow, ny_num(n, s->x, b), s->t));
}

static void adam(ny_node *n, step *s) {
  double post = ny_attr_float(n, "norm_coefficient_post", 0), eps = ny_attr_float(n, "epsilon", 1e-6);
  double alpha = ny_attr_float(n, "alpha", 0.9), beta = ny_attr_float(n, "beta", 0.999);
  s->v_new = fma_(n, s->v, alpha, ny_ew2s(n, NY_mul, s->g, 1 - alpha));
  s->h_new = fma_(n, s->h, beta, ny_ew2s(n, NY_mul, ny_ew2(n, NY_mul, s->g, s->g), 1 - beta));
  ny_value *den = ny_ew2s(n, NY_add, ny_ew1(n, NY_sqrt, s->h_new), eps);
  /* rate * sqrt(1 - beta^t) / (1 - alpha^t), or the rate itself at step 0 */
  ny_value *up = ny_ew2(n, NY_mul, s->rate, ny_ew1(n, NY_sqrt, unbias(n, s, beta)));
  ny_value *rate = ny_ew2(n, NY_div, up, unbias(n, s, alpha));
  rate = ny_where(n, ny_ew2s(n, NY_gt, s->t, 0), rate, s->rate);
  ny_value *move = ny_ew2(n, NY_mul, rate, ny_ew2(n, NY_div, s->v_new, den));
  s->x_new = ny_ew2s(n, NY_mul, ny_ew2(n, NY_sub, s->x, move), 1 - post);
}

nyb_status ny_op_momentum(ny_node *n) { return optimise(n, 1, momentum); }
nyb_status ny_op_adagrad(ny_node *n) { return optimise(n, 1, adagrad); }
nyb_status ny_op_adam(ny_node *n) { return optimise(n, 2, adam); }
