/* LSTM, GRU and RNN. The input product of all time steps is one matrix product outside the loop; the loop carries the
   state, takes its row of that product by a gather, and stacks its outputs. A sequence of one step needs no loop.
   Reverse direction counts time downwards; a sequence's padding steps leave the state as it is, which is right in both
   directions. */
#include <string.h>
#include <strings.h>
#include "onnx.h"

enum { LSTM, GRU, RNN };
typedef struct activation {
  ny_kind kind;
  double alpha, beta;
  bool affine, scaled_tanh;
} activation;
typedef struct rnn { /* one direction */
  ny_node *n;
  int cell, gates;
  int64_t hidden;
  ny_dim steps, batch;
  ny_value *x;    /* [s, b, gates*h]: input product with all biases that do not wait for the state */
  ny_value *r;    /* [h, gates*h] */
  ny_value *rb_h; /* GRU: recurrence bias of the hidden gate, [h], or NULL */
  ny_value *p;    /* LSTM: peepholes [3h], or NULL */
  ny_value *lens; /* [b] i64, or NULL */
  ny_value *state[2];
  int n_state;
  activation act[3];
  double clip;
  bool reverse, input_forget, linear_before_reset;
} rnn;

/* ---- Activations */
static const struct {
  const char *name;
  ny_kind kind;
  double alpha, beta;
  uint8_t takes; /* 1: alpha, 2: beta as well */
} known[] = {
    {"Relu", NY_relu, 0, 0, 0},
    {"Tanh", NY_tanh, 0, 0, 0},
    {"Sigmoid", NY_sigmoid, 0, 0, 0},
    {"Affine", NY_mul, 1, 0, 2},
    {"LeakyRelu", NY_leaky_relu, 0.01f, 0, 1},
    {"ThresholdedRelu", NY_thresholded_relu, 1, 0, 1},
    {"ScaledTanh", NY_tanh, 1, 1, 2},
    {"HardSigmoid", NY_hard_sigmoid, 0.2f, 0.5f, 2},
    {"Elu", NY_elu, 1, 0, 1},
    {"Softsign", NY_softsign, 0, 0, 0},
    {"Softplus", NY_softplus, 0, 0, 0},
};

typedef struct act_lists {
  const char *const *name;
  const double *alpha, *beta;
  int n_name, n_alpha, n_beta, at_alpha, at_beta;
} act_lists;

static bool one_activation(ny_node *n, const char *name, act_lists *l, activation *out) {
  for (size_t i = 0; i < NY_COUNT(known); i++) {
    if (strcasecmp(known[i].name, name)) continue;
    *out = (activation){.kind = known[i].kind, .alpha = known[i].alpha, .beta = known[i].beta};
    if (known[i].takes >= 1 && l->at_alpha < l->n_alpha) out->alpha = l->alpha[l->at_alpha++];
    if (known[i].takes >= 2 && l->at_beta < l->n_beta) out->beta = l->beta[l->at_beta++];
    out->affine = !strcmp(known[i].name, "Affine");
    out->scaled_tanh = !strcmp(known[i].name, "ScaledTanh");
    return true;
  }
  return ny_refuse(n, NYB_E_UNSUPPORTED, "activation \"%s\" is not known", name);
}

static bool activations(ny_node *n, int cell, int dirs, activation act[2][3]) {
  static const char *const def[3][3] = {{"Sigmoid", "Tanh", "Tanh"}, {"Sigmoid", "Tanh", NULL}, {"Tanh", NULL, NULL}};
  static const int count[3] = {3, 2, 1};
  act_lists l = {0};
  l.name = ny_attr_strings(n, "activations", &l.n_name);
  l.alpha = ny_attr_floats(n, "activation_alpha", &l.n_alpha);
  l.beta = ny_attr_floats(n, "activation_beta", &l.n_beta);
  if (l.n_name && l.n_name != dirs * count[cell])
    return ny_refuse(n, NYB_E_PARSE, "%d activations, not %d", l.n_name, dirs * count[cell]);
  for (int d = 0; d < dirs; d++)
    for (int i = 0; i < count[cell]; i++)
      if (!one_activation(n, l.n_name ? l.name[d * count[cell] + i] : def[cell][i], &l, &act[d][i])) return false;
  return true;
}

static ny_value *activate(const rnn *r, int which, ny_value *x) {
  ny_node *n = r->n;
  const activation *a = &r->act[which];
  if (r->clip > 0) x = ny_ew2s(n, NY_min, ny_ew2s(n, NY_max, x, -r->clip), r->clip);
  if (a->affine) return ny_ew2s(n, NY_add, ny_ew2s(n, NY_mul, x, a->alpha), a->beta);
  if (a->scaled_tanh) return ny_ew2s(n, NY_mul, ny_ew1(n, NY_tanh, ny_ew2s(n, NY_mul, x, a->beta)), a->alpha);
  ny_value *y = ny_ew1(n, a->kind, x);
  const ny_kind_info *k = &ny_kinds[a->kind];
  for (int i = 0; y && i < k->n_attr; i++) y->def->attr[i].f = strcmp(k->attr[i].name, "alpha") ? a->beta : a->alpha;
  return y;
}

/* ---- One step: state (and peepholes) in, state out. Gates in ONNX's order. */
/* Gates from.. of a tensor whose dim `axis` holds gates side by side. */
static ny_value *gates(const rnn *r, ny_value *all, int axis, int from, int count) {
  return ny_slice_axis(r->n, all, axis, ny_dim_const(r->n->cx, from * r->hidden),
                       ny_dim_const(r->n->cx, count * r->hidden));
}
static ny_value *gate(const rnn *r, ny_value *all, int i) { return all ? gates(r, all, ny_rank(all) - 1, i, 1) : NULL; }

static ny_value *peep(const rnn *r, ny_value *g, int i, ny_value *c) {
  return r->p ? ny_ew2(r->n, NY_add, g, ny_ew2(r->n, NY_mul, gate(r, r->p, i), c)) : g;
}

static bool lstm_step(const rnn *r, ny_value *xt, ny_value *const *old, ny_value **fresh) {
  ny_node *n = r->n;
  ny_value *h = old[0], *c = old[1], *all = ny_ew2(n, NY_add, xt, ny_b_matmul(&n->b, h, r->r));
  ny_value *i = activate(r, 0, peep(r, gate(r, all, 0), 0, c));
  ny_value *f =
      r->input_forget ? ny_ew2(n, NY_sub, ny_num(n, all, 1), i) : activate(r, 0, peep(r, gate(r, all, 2), 2, c));
  ny_value *g = activate(r, 1, gate(r, all, 3));
  ny_value *next = ny_ew2(n, NY_add, ny_ew2(n, NY_mul, f, c), ny_ew2(n, NY_mul, i, g));
  ny_value *o = activate(r, 0, peep(r, gate(r, all, 1), 1, next));
  rnn unclipped = *r;
  unclipped.clip = 0;
  fresh[0] = ny_ew2(n, NY_mul, o, activate(&unclipped, 2, next));
  fresh[1] = next;
  return fresh[0] && fresh[1];
}

static bool gru_step(const rnn *r, ny_value *xt, ny_value *const *old, ny_value **fresh) {
  ny_node *n = r->n;
  ny_value *h = old[0], *zr = ny_b_matmul(&n->b, h, gates(r, r->r, 1, 0, 2)), *rh = gates(r, r->r, 1, 2, 1);
  ny_value *z = activate(r, 0, ny_ew2(n, NY_add, gate(r, xt, 0), gate(r, zr, 0)));
  ny_value *reset = activate(r, 0, ny_ew2(n, NY_add, gate(r, xt, 1), gate(r, zr, 1)));
  ny_value *part = ny_b_matmul(&n->b, r->linear_before_reset ? h : ny_ew2(n, NY_mul, reset, h), rh);
  if (r->rb_h) part = ny_ew2(n, NY_add, part, r->rb_h);
  if (r->linear_before_reset) part = ny_ew2(n, NY_mul, reset, part);
  ny_value *g = activate(r, 1, ny_ew2(n, NY_add, gate(r, xt, 2), part));
  ny_value *keep = ny_ew2(n, NY_mul, z, h), *take = ny_ew2(n, NY_mul, ny_ew2(n, NY_sub, ny_num(n, h, 1), z), g);
  fresh[0] = ny_ew2(n, NY_add, take, keep);
  return fresh[0] != NULL;
}

static bool rnn_step(const rnn *r, ny_value *xt, ny_value *const *old, ny_value **fresh) {
  fresh[0] = activate(r, 0, ny_ew2(r->n, NY_add, xt, ny_b_matmul(&r->n->b, old[0], r->r)));
  return fresh[0] != NULL;
}

/* t: i64[]. Leaves new states in fresh and the step's output in fresh[2]. */
static bool step(const rnn *r, ny_value *xt, ny_value *t, ny_value *const *old, ny_value **fresh) {
  ny_node *n = r->n;
  bool ok = r->cell == LSTM  ? lstm_step(r, xt, old, fresh)
            : r->cell == GRU ? gru_step(r, xt, old, fresh)
                             : rnn_step(r, xt, old, fresh);
  if (!ok) return false;
  fresh[2] = fresh[0];
  if (!r->lens) return true;
  ny_value *in_time = ny_unsqueeze_at(n, ny_ew2(n, NY_lt, t, r->lens), 1);
  fresh[2] = ny_where(n, in_time, fresh[0], ny_num(n, fresh[0], 0));
  for (int i = 0; i < r->n_state; i++) fresh[i] = ny_where(n, in_time, fresh[i], old[i]);
  return fresh[0] && fresh[2];
}

static ny_value *time_of(const rnn *r, ny_value *i) {
  if (!r->reverse) return i;
  return ny_ew2(r->n, NY_sub, ny_dim_value(r->n, ny_dim_sub(r->n->cx, r->steps, 1)), i);
}

/* Runs one direction; y [s, b, h]; the final states replace r->state. */
static ny_value *run(rnn *r) {
  ny_node *n = r->n;
  ny_value *fresh[3] = {NULL, NULL, NULL}, *old[2] = {NULL, NULL};
  ny_loop loop;
  if (r->steps == 1) {
    ny_value *xt = ny_squeeze_at(n, r->x, 0), *zero = r->lens ? ny_b_scalar(&n->b, NY_i64, 0) : NULL;
    if (!xt || !step(r, xt, zero, r->state, fresh)) return NULL;
    memcpy(r->state, fresh, sizeof r->state);
    return ny_unsqueeze_at(n, fresh[2], 0);
  }
  if (!ny_loop_begin(n, r->steps, r->state, r->n_state, 1, &loop, old)) return NULL;
  ny_value *t = time_of(r, loop.i), *xt = ny_b_gather(&n->b, r->x, t, 0);
  if (!xt || !step(r, xt, t, old, fresh)) return NULL;
  fresh[r->n_state] = fresh[2];
  if (!ny_loop_end(n, &loop, fresh)) return NULL;
  for (int k = 0; k < r->n_state; k++) r->state[k] = loop.op->out[k];
  ny_value *y = loop.op->out[r->n_state];
  if (!r->reverse) return y;
  ny_dim start[3] = {ny_dim_sub(n->cx, r->steps, 1), 0, 0}, back[3] = {ny_dim_const(n->cx, -1), 1, 1};
  return ny_b_slice(&n->b, y, start, back, y->type->dim);
}

/* ---- Setting a direction up */
static ny_value *of_direction(ny_node *n, ny_value *v, int d) {
  return v ? ny_squeeze_at(n, ny_slice_axis(n, v, 0, d, 1), 0) : NULL;
}

static bool biases(rnn *r, ny_value *b) {
  ny_node *n = r->n;
  int64_t wide = r->gates * r->hidden;
  ny_value *wb = ny_slice_axis(n, b, 0, 0, wide), *rb = ny_slice_axis(n, b, 0, wide, wide);
  if (r->cell == GRU && rb) { /* the hidden gate's waits until the reset gate has acted */
    ny_dim zero = 0, h = r->hidden;
    r->rb_h = ny_slice_axis(n, rb, 0, 2 * r->hidden, r->hidden);
    ny_value *zr = ny_slice_axis(n, rb, 0, 0, 2 * r->hidden);
    rb = zr ? ny_b_pad(&n->b, zr, NULL, &zero, &h, NULL, "constant") : NULL;
  }
  r->x = ny_ew2(n, NY_add, r->x, ny_ew2(n, NY_add, wb, rb));
  return r->x != NULL;
}

static ny_value *first_state(rnn *r, ny_value *given, int d) {
  if (given) return of_direction(r->n, given, d);
  return ny_full(r->n, ny_fmt_of(r->x), 2, (ny_dim[]){r->batch, r->hidden}, 0);
}

static bool check_sizes(ny_node *n, ny_value *x, ny_value *w, ny_value *rw, int n_gates, int dirs, int64_t *hidden) {
  if (ny_rank(x) != 3 || ny_rank(w) != 3 || ny_rank(rw) != 3)
    return ny_refuse(n, NYB_E_SHAPE, "X, W and R have ranks %d, %d and %d, not 3", ny_rank(x), ny_rank(w), ny_rank(rw));
  if (!ny_need_static(n, rw, 2, "the hidden size", hidden)) return false;
  if (*hidden < 1 || *hidden > INT32_MAX) ny_node_fail(n, NYB_E_SHAPE, "the hidden size is %lld", (long long)*hidden);
  if (ny_attr_int(n, "hidden_size", *hidden) != *hidden)
    ny_node_fail(n, NYB_E_SHAPE, "hidden_size is %lld, R has %lld", (long long)ny_attr_int(n, "hidden_size", 0),
                 (long long)*hidden);
  ny_dim wide = ny_dim_const(n->cx, n_gates * *hidden);
  return !n->cx->diag.code && ny_unify(n, ny_size(w, 1), wide, "rows of W") &&
         ny_unify(n, ny_size(rw, 1), wide, "rows of R") && ny_unify(n, ny_size(w, 0), dirs, "directions of W") &&
         ny_unify(n, ny_size(rw, 0), dirs, "directions of R") &&
         ny_unify(n, ny_size(w, 2), ny_size(x, 2), "columns of W and inputs");
}

/* A state with layout 1 is [b, d, h]. */
static ny_value *state_in(ny_node *n, int i, bool batch_first) {
  ny_value *v = ny_opt(n, i);
  return v && batch_first && ny_rank(v) == 3 ? ny_b_transpose(&n->b, v, (int[]){1, 0, 2}) : v;
}

static bool direction(rnn *r, int d, ny_value *x) {
  ny_node *n = r->n;
  ny_value *w = of_direction(n, n->in[1], d), *b = of_direction(n, ny_opt(n, 3), d);
  bool batch_first = ny_attr_int(n, "layout", 0) != 0;
  w = ny_matrix_transpose(n, w);
  r->r = ny_matrix_transpose(n, of_direction(n, n->in[2], d));
  r->x = ny_b_matmul(&n->b, x, w);
  if (!r->x || !r->r || (b && !biases(r, b))) return false;
  r->state[0] = first_state(r, state_in(n, 5, batch_first), d);
  if (r->cell == LSTM) r->state[1] = first_state(r, state_in(n, 6, batch_first), d);
  for (int i = 0; i < r->n_state; i++) {
    if (!r->state[i]) return false;
    if (ny_rank(r->state[i]) != 2 || !ny_unify(n, ny_size(r->state[i], 0), r->batch, "batch of input and state") ||
        !ny_unify(n, ny_size(r->state[i], 1), r->hidden, "hidden size of weights and state"))
      return ny_failed(n) == NYB_OK;
  }
  if (r->cell == LSTM) r->p = of_direction(n, ny_opt(n, 7), d);
  if (!ny_numbers_fit(n, 4, 0, ny_dim_add(n->cx, r->steps, 1), "length")) return false;
  r->lens = ny_opt(n, 4) ? ny_cast_to(n, n->in[4], NY_i64) : NULL;
  return !n->cx->diag.code;
}

static nyb_status results(ny_node *n, ny_value *const *y, ny_value *(*state)[2], int dirs, bool batch_first) {
  ny_value *part[2];
  if (ny_wanted(n, 0)) {
    for (int d = 0; d < dirs; d++) part[d] = ny_unsqueeze_at(n, y[d], 1);
    ny_value *all = ny_b_concat(&n->b, part, dirs, 1); /* [s, d, b, h] */
    NY_TRY(ny_out(n, 0, batch_first ? ny_b_transpose(&n->b, all, (int[]){2, 0, 1, 3}) : all));
  }
  for (int k = 0; k < 2; k++) {
    if (!ny_wanted(n, k + 1)) continue;
    for (int d = 0; d < dirs; d++) part[d] = ny_unsqueeze_at(n, state[d][k], 0);
    ny_value *all = ny_b_concat(&n->b, part, dirs, 0); /* [d, b, h] */
    NY_TRY(ny_out(n, k + 1, batch_first ? ny_b_transpose(&n->b, all, (int[]){1, 0, 2}) : all));
  }
  return NYB_OK;
}

nyb_status ny_op_rnn(ny_node *n) {
  static const int gates_of[3] = {4, 3, 1};
  enum { FORWARD, REVERSE, BIDIRECTIONAL };
  ny_value *x = n->in[0], *y[2] = {NULL, NULL}, *state[2][2] = {{NULL, NULL}, {NULL, NULL}};
  int dir = ny_attr_choice(n, "direction", "forward", "forward|reverse|bidirectional");
  bool batch_first = ny_attr_int(n, "layout", 0) != 0;
  int dirs = dir == BIDIRECTIONAL ? 2 : 1, n_gates = gates_of[n->arg];
  activation act[2][3];
  int64_t hidden;
  if (dir < 0 || !check_sizes(n, x, n->in[1], n->in[2], n_gates, dirs, &hidden) || !activations(n, n->arg, dirs, act))
    return ny_failed(n);
  if (batch_first) x = ny_b_transpose(&n->b, x, (int[]){1, 0, 2});
  for (int d = 0; d < dirs && x; d++) {
    rnn r = {
        .n = n, .cell = n->arg, .gates = n_gates, .hidden = hidden, .steps = ny_size(x, 0), .batch = ny_size(x, 1)};
    r.n_state = n->arg == LSTM ? 2 : 1;
    r.reverse = d == 1 || dir == REVERSE;
    r.clip = ny_attr_float(n, "clip", 0);
    r.input_forget = ny_attr_int(n, "input_forget", 0) != 0;
    r.linear_before_reset = ny_attr_int(n, "linear_before_reset", 0) != 0;
    memcpy(r.act, act[d], sizeof r.act);
    if (!direction(&r, d, x) || !(y[d] = run(&r))) return ny_failed(n);
    memcpy(state[d], r.state, sizeof r.state);
  }
  return x ? results(n, y, state, dirs, batch_first) : ny_failed(n);
}
