/* If, Loop and Scan. A condition known at import leaves only the branch taken. A loop that counts becomes the IR's
   loop; one whose state changes shape or holds sequences is unrolled when its count is known. */
#include <string.h>
#include "onnx_import.h"

enum { MAX_UNROLL = 1024, MAX_CARRIED = 64, SMALL_TRIP = 4 };

static ny_value *scalar_bool(ny_node *n, ny_value *v) { return ny_reshape_to(n, ny_cast_to(n, v, NY_bool), 0, NULL); }

static bool known_bool(ny_node *n, ny_value *v, bool *out) {
  ny_tensor t;
  int64_t count;
  if (!ny_value_const(n, v, &t) || !ny_type_static_count(n->cx, t.type, &count) || count != 1) return false;
  *out = ny_get_i(NY_bool, t.data, 0) != 0;
  return true;
}

/* Makes a's and b's types equal by replacing symbols; fails when they cannot be. */
static bool same_types(ny_node *n, const ny_value *a, const ny_value *b, const char *what, int i) {
  bool alike = ny_rank(a) == ny_rank(b) && ny_fmt_of(a) == ny_fmt_of(b);
  for (int d = 0; alike && d < ny_rank(a); d++) alike = ny_try_unify(n, ny_size(a, d), ny_size(b, d));
  if (alike || n->cx->diag.code) return alike;
  ny_text t = {0};
  ny_type_print(n->cx, a->type, &t);
  ny_text_add(&t, " and ");
  ny_type_print(n->cx, b->type, &t);
  ny_node_fail(n, NYB_E_UNSUPPORTED,
               "%s %d is %s; giving sizes (--dim NAME=N) so that the condition is known at import may help", what, i,
               t.s);
  ny_text_free(&t);
  return false;
}

/* ---- If */
/* Exporters write "squeeze unless the size is not 1" as an If whose branches differ in rank. Where the condition
   compares a symbolic size with 1 and the branches cannot be reconciled, the size is taken to be 1 and the import
   starts again. */
static bool size_is_one(ny_node *n, ny_value *cond, ny_dim *size) {
  ny_dim a, b;
  int k;
  while (cond->def && cond->def->kind == NY_reshape) cond = ny_in(cond->def, 0);
  if (!cond->def || cond->def->kind != NY_eq) return false;
  if (!ny_symbolic_values(n->b.g, ny_in(cond->def, 0), &a, 1, &k) || k != 1) return false;
  if (!ny_symbolic_values(n->b.g, ny_in(cond->def, 1), &b, 1, &k) || k != 1) return false;
  *size = b == 1 ? a : b;
  return a == 1 || b == 1;
}

static nyb_status branch(ny_node *n, const ny_onnx_graph *g, ny_block *into, ny_value **res) {
  ny_builder outer = n->b;
  ny_thing out[MAX_CARRIED];
  n->b.block = into;
  n->b.before = NULL;
  nyb_status s = ny_inline_graph(n, g, NULL, 0, out, n->n_out);
  n->b = outer;
  if (s) return s;
  for (int i = 0; i < n->n_out; i++) {
    if (!out[i].v)
      return ny_node_fail(n, NYB_E_UNSUPPORTED,
                          "result %d is a sequence or optional, and the condition depends on data", i);
    res[i] = out[i].v;
  }
  return NYB_OK;
}

static bool yield_to(ny_node *n, ny_block *into, ny_value *const *v, int count) {
  ny_builder b = n->b;
  b.block = into;
  b.before = NULL;
  return ny_build(&b, NY_yield, v, count, NULL, 0) != NULL;
}

static nyb_status both_branches(ny_node *n, ny_value *cond, const ny_onnx_graph *yes, const ny_onnx_graph *no) {
  const ny_type *types[MAX_CARRIED];
  ny_value *a[MAX_CARRIED], *b[MAX_CARRIED];
  if (n->n_out > MAX_CARRIED)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "%d results, more than %d", n->n_out, (int)MAX_CARRIED);
  for (int i = 0; i < n->n_out; i++) types[i] = cond->type;
  ny_op *op = ny_build(&n->b, NY_if, &cond, 1, types, n->n_out);
  if (!op) return ny_failed(n);
  NY_TRY(branch(n, yes, op->body[0], a));
  NY_TRY(branch(n, no, op->body[1], b));
  ny_dim size;
  for (int i = 0; i < n->n_out; i++) {
    if (ny_rank(a[i]) != ny_rank(b[i]) && size_is_one(n, cond, &size)) return ny_assume(n, size, 1);
    if (!same_types(n, a[i], b[i], "the branches differ: result", i)) return ny_failed(n);
  }
  if (!yield_to(n, op->body[0], a, n->n_out) || !yield_to(n, op->body[1], b, n->n_out)) return ny_failed(n);
  NY_TRY(ny_infer_op(n->b.g, op));
  for (int i = 0; i < n->n_out; i++) NY_TRY(ny_out(n, i, op->out[i]));
  return NYB_OK;
}

nyb_status ny_op_if(ny_node *n) {
  const ny_onnx_graph *yes = ny_attr_graph(n, "then_branch"), *no = ny_attr_graph(n, "else_branch");
  bool taken = false;
  if (n->cx->diag.code) return ny_failed(n);
  if (!yes || !no) return ny_node_fail(n, NYB_E_PARSE, "a branch is missing");
  ny_value *cond = scalar_bool(n, n->in[0]);
  if (!cond) return ny_failed(n);
  ny_dim size;
  bool assumed = size_is_one(n, cond, &size) && ny_assumed(n->im, size) == 1;
  if (!known_bool(n, cond, &taken) && !assumed) return both_branches(n, cond, yes, no);
  if (assumed && !taken && !ny_require(n, size, 1, "a size that decides the rank")) return ny_failed(n);
  taken |= assumed;
  return ny_inline_graph(n, taken ? yes : no, NULL, 0, n->out, n->n_out);
}

/* ---- Loop */
typedef struct loop_node {
  const ny_onnx_graph *body;
  ny_dim trip;
  int64_t n_trip; /* the constant trip count, or -1 */
  ny_value *cond; /* NULL: no condition, that is true */
  bool cond_known, cond_value;
  ny_thing init[MAX_CARRIED];
  int n_carried, n_stack;
} loop_node;

static bool read_loop(ny_node *n, loop_node *l) {
  l->body = ny_attr_graph(n, "body");
  if (!l->body) return ny_refuse(n, NYB_E_PARSE, "the body is missing");
  l->n_carried = n->n_in - 2;
  l->n_stack = ny_graph_n_outputs(l->body) - 1 - l->n_carried;
  if (l->n_carried < 0 || l->n_stack < 0 || ny_graph_n_outputs(l->body) > MAX_CARRIED ||
      ny_graph_n_inputs(l->body) != l->n_carried + 2)
    return ny_refuse(n, NYB_E_PARSE, "the body has %d inputs and %d outputs for %d carried values",
                     ny_graph_n_inputs(l->body), ny_graph_n_outputs(l->body), l->n_carried);
  l->trip = ny_dim_const(n->cx, INT64_MAX);
  if (ny_opt(n, 0) && !ny_node_dim(n, 0, &l->trip)) return false;
  if (!ny_dim_is_const(n->cx, l->trip, &l->n_trip))
    l->n_trip = -1;
  else if (l->n_trip < 0)
    l->n_trip = 0, l->trip = 0;
  l->cond_known = l->cond_value = true;
  if (ny_opt(n, 1)) {
    if (!(l->cond = scalar_bool(n, n->in[1]))) return false;
    l->cond_known = known_bool(n, l->cond, &l->cond_value);
  }
  for (int i = 0; i < l->n_carried; i++) l->init[i] = n->in_thing[i + 2];
  return true;
}

/* Iterations one after the other. *done is false when the condition came to depend on data: what was built is dead and
 * will be dropped. */
static nyb_status unroll(ny_node *n, const loop_node *l, bool *done) {
  ny_thing in[MAX_CARRIED + 2], out[MAX_CARRIED];
  ny_value **stack = NY_NEW_ARRAY(n->tmp, ny_value *, (size_t)l->n_stack * MAX_UNROLL + 1);
  int64_t i = 0;
  bool go = l->cond_value;
  memcpy(in + 2, l->init, sizeof l->init);
  for (; go && i < l->n_trip; i++) {
    if (i == MAX_UNROLL)
      return ny_node_fail(n, NYB_E_LIMIT, "a loop that must be unrolled has more than %d iterations", (int)MAX_UNROLL);
    in[0] = (ny_thing){.v = ny_const_ints(n, NY_i64, 0, NULL, &i)};
    in[1] = (ny_thing){.v = ny_const_ints(n, NY_bool, 0, NULL, (int64_t[]){1})};
    NY_TRY(ny_inline_graph(n, l->body, in, l->n_carried + 2, out, l->n_carried + 1 + l->n_stack));
    *done = out[0].v && known_bool(n, out[0].v, &go);
    if (!*done) return NYB_OK;
    memcpy(in + 2, out + 1, (size_t)l->n_carried * sizeof *in);
    for (int k = 0; k < l->n_stack; k++) {
      ny_value *v = ny_unsqueeze_at(n, out[1 + l->n_carried + k].v, 0);
      if (!v) return ny_failed(n);
      stack[k * MAX_UNROLL + i] = v;
    }
  }
  *done = true;
  for (int k = 0; k < l->n_carried; k++)
    if (k < n->n_out && ny_wanted(n, k)) NY_TRY(ny_out_thing(n, k, in[k + 2]));
  for (int k = 0; k < l->n_stack; k++) {
    if (!ny_wanted(n, l->n_carried + k)) continue;
    if (!i) return ny_node_fail(n, NYB_E_UNSUPPORTED, "a loop of no iteration has a stacked result of unknown shape");
    NY_TRY(ny_out(n, l->n_carried + k, ny_b_concat(&n->b, &stack[k * MAX_UNROLL], (int)i, 0)));
  }
  return NYB_OK;
}

typedef struct built_loop {
  ny_loop loop;
  ny_value *cond_out;
  ny_value *out[MAX_CARRIED];
} built_loop;

/* The op with its body imported but not yet yielding; with_cond: the condition is the first carried value. */
static nyb_status open_loop(ny_node *n, const loop_node *l, bool with_cond, built_loop *bl) {
  ny_value *in[MAX_CARRIED + 1], *inside[MAX_CARRIED + 1], *yes = NULL;
  ny_thing arg[MAX_CARRIED + 2], out[MAX_CARRIED];
  int n_out = l->n_carried + l->n_stack;
  if (!with_cond || !l->cond) yes = ny_const_ints(n, NY_bool, 0, NULL, (int64_t[]){1});
  in[0] = l->cond ? l->cond : yes;
  for (int i = 0; i < l->n_carried; i++) in[i + with_cond] = l->init[i].v;
  if (!ny_loop_begin(n, l->trip, in, l->n_carried + with_cond, l->n_stack, &bl->loop, inside)) return ny_failed(n);
  bl->loop.op->attr[NY_AT(loop, cond)].i = with_cond;
  arg[0] = (ny_thing){.v = bl->loop.i};
  arg[1] = (ny_thing){.v = with_cond ? inside[0] : yes};
  for (int i = 0; i < l->n_carried; i++) arg[i + 2] = (ny_thing){.v = inside[i + with_cond]};
  nyb_status s = ny_inline_graph(n, l->body, arg, l->n_carried + 2, out, n_out + 1);
  if (!s && out[0].v) bl->cond_out = scalar_bool(n, out[0].v);
  n->b = bl->loop.outer;
  if (s) return s;
  for (int i = 0; i < n_out; i++)
    if (!(bl->out[i] = out[i + 1].v))
      return ny_node_fail(n, NYB_E_UNSUPPORTED, "value %d of the body is a sequence or optional", i);
  return bl->cond_out ? NYB_OK : ny_failed(n);
}

static nyb_status close_loop(ny_node *n, const loop_node *l, bool with_cond, built_loop *bl) {
  ny_value *y[MAX_CARRIED + 1] = {bl->cond_out};
  memcpy(y + with_cond, bl->out, sizeof bl->out);
  n->b.block = bl->loop.op->body[0], n->b.before = NULL;
  if (!ny_loop_end(n, &bl->loop, y)) return ny_failed(n);
  for (int i = 0; i < l->n_carried + l->n_stack; i++)
    if (ny_wanted(n, i)) NY_TRY(ny_out(n, i, bl->loop.op->out[i + with_cond]));
  return NYB_OK;
}

static bool keeps_types(const loop_node *l, const built_loop *bl) {
  for (int i = 0; i < l->n_carried; i++)
    if (bl->out[i]->type != l->init[i].v->type) return false;
  return true;
}

static nyb_status as_ir_loop(ny_node *n, const loop_node *l) {
  built_loop bl = {0};
  bool go, with_cond = !l->cond_known;
  NY_TRY(open_loop(n, l, with_cond, &bl));
  if (!with_cond && !(known_bool(n, bl.cond_out, &go) && go)) {
    with_cond = true;
    NY_TRY(open_loop(n, l, true, &bl));
  }
  if (with_cond && l->n_stack)
    return ny_node_fail(n, NYB_E_UNSUPPORTED,
                        "the loop ends by a condition on data, so the size of its stacked results is not known");
  if (!keeps_types(l, &bl)) {
    bool done = false;
    if (l->n_trip >= 0 && l->n_trip <= MAX_UNROLL && l->cond_known) NY_TRY(unroll(n, l, &done));
    if (done) return NYB_OK;
    for (int i = 0; i < l->n_carried; i++)
      if (!same_types(n, l->init[i].v, bl.out[i], "the loop changes the type of carried value", i)) return ny_failed(n);
  }
  return close_loop(n, l, with_cond, &bl);
}

nyb_status ny_op_loop(ny_node *n) {
  loop_node l = {0};
  if (n->n_in > MAX_CARRIED || n->n_out > MAX_CARRIED)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "more than %d values", (int)MAX_CARRIED);
  if (!read_loop(n, &l)) return ny_failed(n);
  bool lists = false, done = false;
  for (int i = 0; i < l.n_carried; i++) lists |= !l.init[i].v;
  bool few = l.n_trip >= 0 && l.n_trip <= SMALL_TRIP;
  if (l.cond_known && (lists || few || !l.cond_value)) NY_TRY(unroll(n, &l, &done));
  if (done) return NYB_OK;
  if (lists) return ny_node_fail(n, NYB_E_UNSUPPORTED, "the loop carries a sequence and its condition depends on data");
  return as_ir_loop(n, &l);
}

/* ---- Scan (opset 9 on; before, every tensor had a batch dim in front, taken one by one) */
typedef struct scan_node {
  const ny_onnx_graph *body;
  int n_state, n_scan, n_stack;
  int axis[MAX_CARRIED], out_axis[MAX_CARRIED];
  bool back[MAX_CARRIED], out_back[MAX_CARRIED];
  ny_dim trip;
} scan_node;

static bool flags_of(ny_node *n, const char *name, int count, bool *out) {
  int k;
  const int64_t *v = ny_attr_ints(n, name, &k);
  if (v && k != count) return ny_refuse(n, NYB_E_PARSE, "%s has %d entries, not %d", name, k, count);
  for (int i = 0; i < count; i++) out[i] = v && v[i];
  return true;
}

static bool read_scan(ny_node *n, ny_value *const *in, int n_in, scan_node *s) {
  int k, ko;
  s->body = ny_attr_graph(n, "body");
  s->n_scan = (int)ny_attr_int(n, "num_scan_inputs", -1);
  s->n_state = n_in - s->n_scan;
  if (!s->body || s->n_scan < 1 || s->n_state < 0 || n_in > MAX_CARRIED || ny_graph_n_outputs(s->body) > MAX_CARRIED)
    return ny_refuse(n, NYB_E_PARSE, "%d scan inputs of %d inputs", s->n_scan, n_in);
  s->n_stack = ny_graph_n_outputs(s->body) - s->n_state;
  if (s->n_stack < 0) return ny_refuse(n, NYB_E_PARSE, "the body has fewer outputs than states");
  bool old = n->version < 9;
  const int64_t *ax = ny_attr_ints(n, "scan_input_axes", &k), *oax = ny_attr_ints(n, "scan_output_axes", &ko);
  if ((ax && k != s->n_scan) || (oax && ko != s->n_stack)) return ny_refuse(n, NYB_E_PARSE, "%d and %d axes", k, ko);
  if (!flags_of(n, old ? "directions" : "scan_input_directions", s->n_scan, s->back)) return false;
  if (!flags_of(n, "scan_output_directions", s->n_stack, s->out_back)) return false;
  for (int i = 0; i < s->n_scan; i++) {
    ny_value *x = in[s->n_state + i];
    if (!ny_axis(n, ax ? ax[i] : 0, ny_rank(x), &s->axis[i])) return false;
    if (i == 0)
      s->trip = ny_size(x, s->axis[i]);
    else if (!ny_unify(n, ny_size(x, s->axis[i]), s->trip, "lengths of the scanned inputs"))
      return false;
  }
  for (int i = 0; i < s->n_stack; i++)
    s->out_axis[i] = oax && oax[i] > -NY_MAX_RANK && oax[i] < NY_MAX_RANK ? (int)oax[i] : 0;
  return !n->cx->diag.code;
}

static ny_value *element(ny_node *n, const scan_node *s, ny_value *x, int i, ny_value *t) {
  ny_dim last = ny_dim_sub(n->cx, s->trip, 1);
  if (s->back[i]) t = ny_ew2(n, NY_sub, ny_dim_value(n, last), t);
  return ny_b_gather(&n->b, x, t, s->axis[i]);
}

static ny_value *stacked(ny_node *n, const scan_node *s, ny_value *y, int i) {
  ny_dim start[NY_MAX_RANK] = {0}, step[NY_MAX_RANK];
  int to;
  for (int d = 0; d < NY_MAX_RANK; d++) step[d] = 1;
  start[0] = ny_dim_sub(n->cx, s->trip, 1);
  step[0] = ny_dim_const(n->cx, -1);
  if (s->out_back[i]) y = ny_b_slice(&n->b, y, start, step, y->type->dim);
  return y && ny_axis(n, s->out_axis[i], ny_rank(y), &to) ? ny_move_axis(n, y, 0, to) : NULL;
}

static nyb_status run_scan(ny_node *n, ny_value *const *in, int n_in, ny_value **out) {
  scan_node s = {0};
  ny_loop loop;
  ny_thing arg[MAX_CARRIED], res[MAX_CARRIED];
  ny_value *state[MAX_CARRIED], *y[MAX_CARRIED];
  if (!read_scan(n, in, n_in, &s)) return ny_failed(n);
  int n_out = s.n_state + s.n_stack;
  if (!ny_loop_begin(n, s.trip, in, s.n_state, s.n_stack, &loop, state)) return ny_failed(n);
  for (int i = 0; i < s.n_state; i++) arg[i] = (ny_thing){.v = state[i]};
  for (int i = 0; i < s.n_scan; i++) {
    ny_value *v = element(n, &s, in[s.n_state + i], i, loop.i);
    if (!v) return ny_failed(n);
    arg[s.n_state + i] = (ny_thing){.v = v};
  }
  NY_TRY(ny_inline_graph(n, s.body, arg, s.n_state + s.n_scan, res, n_out));
  for (int i = 0; i < n_out; i++) {
    if (!(y[i] = res[i].v))
      return ny_node_fail(n, NYB_E_UNSUPPORTED, "value %d of the body is a sequence or optional", i);
    if (i < s.n_state && !same_types(n, in[i], y[i], "the body changes the type of state", i)) return ny_failed(n);
  }
  if (!ny_loop_end(n, &loop, y)) return ny_failed(n);
  for (int i = 0; i < n_out; i++)
    if (!(out[i] = i < s.n_state ? loop.op->out[i] : stacked(n, &s, loop.op->out[i], i - s.n_state)))
      return ny_failed(n);
  return NYB_OK;
}

/* Opset 8: input 0 is sequence_lens; each item of the batch is scanned by itself. */
static nyb_status batched_scan(ny_node *n) {
  ny_value *in[MAX_CARRIED], *out[MAX_CARRIED], *part[MAX_CARRIED][MAX_CARRIED];
  int64_t batch;
  if (ny_opt(n, 0)) return ny_node_fail(n, NYB_E_UNSUPPORTED, "sequence_lens is not supported");
  ny_value *first = ny_need(n, 1);
  if (!first || !ny_need_static(n, first, 0, "the batch size", &batch)) return ny_failed(n);
  if (batch < 1 || batch > MAX_CARRIED)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "a batch of %lld (1 to %d are supported)", (long long)batch,
                        (int)MAX_CARRIED);
  for (int64_t b = 0; b < batch; b++) {
    for (int i = 1; i < n->n_in; i++)
      if (!ny_need(n, i) || ny_rank(n->in[i]) < 1 ||
          !(in[i - 1] = ny_squeeze_at(n, ny_slice_axis(n, n->in[i], 0, ny_dim_const(n->cx, b), 1), 0)))
        return ny_failed(n);
    NY_TRY(run_scan(n, in, n->n_in - 1, out));
    for (int i = 0; i < n->n_out; i++)
      if (!(part[i][b] = ny_unsqueeze_at(n, out[i], 0))) return ny_failed(n);
  }
  for (int i = 0; i < n->n_out; i++) NY_TRY(ny_out(n, i, ny_b_concat(&n->b, part[i], (int)batch, 0)));
  return NYB_OK;
}

nyb_status ny_op_scan(ny_node *n) {
  ny_value *out[MAX_CARRIED] = {NULL};
  if (n->n_in > MAX_CARRIED || n->n_out > MAX_CARRIED)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "more than %d values", (int)MAX_CARRIED);
  if (n->version < 9) return batched_scan(n);
  for (int i = 0; i < n->n_in; i++)
    if (!ny_need(n, i)) return ny_failed(n);
  NY_TRY(run_scan(n, n->in, n->n_in, out));
  for (int i = 0; i < n->n_out; i++)
    if (ny_wanted(n, i)) NY_TRY(ny_out(n, i, out[i]));
  return NYB_OK;
}
