/* Both models run on the same samples with the inputs and results of their layers as further results. The second one also runs with every layer on the inputs that the
   first one has there: what is left then is the layer's own error. */
#include "compare.h"

#include <math.h>
#include <string.h>

#include "compare_weights.h"
#include "module.h"
#include "segment.h"

typedef struct side { /* a model, and the modules that are made of it */
  nyb_model *m;
  ny_layers ls;
  ny_op **layer; /* products and convolutions of its main block, in order */
  size_t n;
  ny_runner *runner;
  ny_piece piece, local; /* local: layers read inputs of their own */
} side;
typedef struct sums { /* squares */
  double value, all, own, inputs;
} sums;

/* ---- layers that belong together */
static bool is_layer(const ny_layers *ls, const ny_op *op) {
  if (op->kind != NY_matmul && op->kind != NY_conv) return false;
  const ny_value *x = ny_in(op, 0), *w = ny_in(op, 1);
  return ls->constant[w->id] && !ls->constant[x->id] && x->type->fmt == NY_f32 && op->out[0]->type->fmt == NY_f32;
}

static nyb_status open_side(side *s, nyb_context *cx, nyb_model *m, const ny_samples *samples, int threads, ny_arena *a) {
  s->m = m;
  NY_TRY(ny_layers_find(m->unit->first, a, &s->ls));
  s->layer = NY_NEW_ARRAY(a, ny_op *, s->ls.n_op + 1);
  for (uint32_t i = 0; i < s->ls.n_op; i++)
    if (is_layer(&s->ls, s->ls.op[i])) s->layer[s->n++] = s->ls.op[i];
  return ny_runner_new(cx, &s->ls, samples, threads, &s->runner);
}

static const char *node_of(const ny_op *op) { return op->loc && op->loc->node && *op->loc->node ? op->loc->node : NULL; }

static bool alike(const ny_op *p, const ny_op *q) {
  const char *a = node_of(p), *b = node_of(q);
  return p->kind == q->kind && p->out[0]->type->rank == q->out[0]->type->rank && (!a || !b || !strcmp(a, b));
}

/* Keeps the layers that have a partner: the next one alike. */
static size_t pair_up(side *one, side *other) {
  size_t n = 0, at = 0, lost = one->n + other->n;
  for (size_t i = 0; i < one->n; i++)
    for (size_t j = at; j < other->n; j++) {
      if (!alike(one->layer[i], other->layer[j])) continue;
      one->layer[n] = one->layer[i], other->layer[n++] = other->layer[j];
      at = j + 1;
      break;
    }
  one->n = other->n = n;
  return lost - 2 * n;
}

/* ---- the modules */
static void add_result(ny_piece *p, ny_value **v, ny_name *name, size_t *n, ny_value *what) {
  ny_graph *g = p->copy->first;
  v[*n] = what;
  name[*n] = ny_intern(&g->cx->names, ny_strf(&p->a, "result_%zu", *n));
  (*n)++;
}

/* The model's own results, then those of its layers, then (inputs) what its layers read. */
static nyb_status make(side *s, ny_piece *p, bool layers, bool inputs, bool local) {
  p->r = s->runner;
  NY_TRY(ny_unit_copy(s->m->unit, &p->copy));
  ny_graph *g = p->copy->first;
  ny_op **op = NY_NEW_ARRAY(&p->a, ny_op *, s->ls.n_op + 1), *ret = g->body.last;
  uint32_t n_op = 0;
  for (ny_op *o = g->body.first; o; o = o->next) op[n_op++] = o;
  size_t n = 0, room = ret->n_in + 2 * s->n + 1;
  ny_value **v = NY_NEW_ARRAY(&p->a, ny_value *, room);
  ny_name *name = NY_NEW_ARRAY(&g->arena, ny_name, room);
  for (int i = 0; i < ret->n_in; i++) add_result(p, v, name, &n, ny_in(ret, i));
  for (size_t i = 0; layers && i < s->n; i++) {
    ny_op *o = op[s->ls.place[s->layer[i]->id]];
    if (local) ny_set_in(o, 0, ny_block_arg(g, &g->body, ny_in(o, 0)->type, ny_intern(&g->cx->names, ny_strf(&p->a, "layer_%zu", i))));
    add_result(p, v, name, &n, o->out[0]);
  }
  for (size_t i = 0; inputs && i < s->n; i++) add_result(p, v, name, &n, ny_in(op[s->ls.place[s->layer[i]->id]], 0));
  ny_erase(ret);
  ny_op *end = ny_op_new(g, &g->body, NY_ret, v, (int)n, NULL, 0);
  end->attr[NY_AT(ret, names)].names.v = name;
  end->attr[NY_AT(ret, names)].names.n = (uint32_t)n;
  p->n_out = n;
  NY_TRY(ny_verify(g));
  return ny_piece_compile(p);
}

/* ---- sums over samples */
static double number(const nyb_tensor *t, int64_t i) {
  ny_fmt f = ny_module_format(t->dtype);
  const char *data = (const char *)t->data + t->byte_offset;
  return ny_is_float(f) ? ny_get_f(f, data, (uint64_t)i) : (double)ny_get_i(f, data, (uint64_t)i);
}

static int64_t elements(const nyb_tensor *t) {
  int64_t n = 1;
  for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
  return n;
}

/* False where the two differ in shape. */
static bool add(sums *s, const nyb_tensor *a, const nyb_tensor *b, const nyb_tensor *local) {
  int64_t n = elements(a);
  if (elements(b) != n) return false;
  for (int64_t i = 0; i < n; i++) {
    double x = number(a, i), y = number(b, i);
    s->value += x * x, s->all += (y - x) * (y - x);
    if (!local) continue;
    double z = number(local, i);
    s->own += (z - x) * (z - x), s->inputs += (y - z) * (y - z);
  }
  return true;
}

static nyb_status run(const ny_piece *p, const ny_samples *s, size_t i, const nyb_tensor *more, size_t n_more, ny_arena *a, nyb_tensor *out) {
  nyb_tensor *in = NY_NEW_ARRAY(a, nyb_tensor, s->n_in + n_more + 1);
  for (size_t j = 0; j < s->n_in; j++) in[j] = s->in[i * s->n_in + j];
  for (size_t j = 0; j < n_more; j++) in[s->n_in + j] = more[j];
  memset(out, 0, sizeof *out * p->n_out);
  return nyb_run(p->session, in, s->n_in + n_more, out, p->n_out);
}

static nyb_status one_sample(side *s, size_t i, const ny_samples *data, size_t n_result, bool layers, sums *sum, ny_diag *d) {
  ny_arena a = {0};
  size_t n = n_result + (layers ? s[0].n : 0);
  nyb_tensor *x = NY_NEW_ARRAY(&a, nyb_tensor, s[0].piece.n_out + 1), *y = NY_NEW_ARRAY(&a, nyb_tensor, n + 1), *z = NY_NEW_ARRAY(&a, nyb_tensor, n + 1);
  nyb_status st = run(&s[0].piece, data, i, NULL, 0, &a, x);
  if (!st) st = run(&s[1].piece, data, i, NULL, 0, &a, y);
  if (!st && layers) st = run(&s[1].local, data, i, x + n, s[0].n, &a, z);
  for (size_t k = 0; !st && k < n; k++)
    if (!add(&sum[k], &x[k], &y[k], k >= n_result ? &z[k] : NULL))
      st = ny_fail(d, NYB_E_SHAPE, NULL, "result %zu has %lld elements in the first model and %lld in the second", k, (long long)elements(&x[k]), (long long)elements(&y[k]));
  ny_arena_free(&a);
  return st;
}

static ny_error relative(const sums *s, bool layer) {
  double v = s->value > 0 ? s->value : 1;
  ny_error none = {s->all / v, -1, -1, -1, -1};
  return layer ? (ny_error){s->all / v, s->own / v, s->inputs / v, -1, -1} : none;
}

/* ---- the whole */
static nyb_status compare(side *s, const ny_samples *data, bool layers, ny_arena *a, ny_comparison *out, nyb_context *cx) {
  const ny_op *ret = s[0].m->unit->first->body.last;
  size_t n_result = ret->n_in, n = n_result + (layers ? s[0].n : 0);
  if (n_result != s[1].m->unit->first->body.last->n_in)
    return ny_fail(&cx->diag, NYB_E_ARGUMENT, NULL, "the first model has %zu results, the second %u", n_result, s[1].m->unit->first->body.last->n_in);
  NY_TRY(ny_model_hand_over(cx, s[0].m->ir, NULL, make(&s[0], &s[0].piece, layers, layers, false)));
  NY_TRY(ny_model_hand_over(cx, s[1].m->ir, NULL, make(&s[1], &s[1].piece, layers, false, false)));
  if (layers) NY_TRY(ny_model_hand_over(cx, s[1].m->ir, NULL, make(&s[1], &s[1].local, true, false, true)));
  sums *sum = NY_NEW_ARRAY(a, sums, n + 1);
  for (size_t i = 0; i < data->n; i++) {
    if (cx->options.progress) cx->options.progress(cx->options.user, "compare", (double)i / (double)data->n);
    NY_TRY(one_sample(s, i, data, n_result, layers, sum, &cx->diag));
  }
  out->result = NY_NEW_ARRAY(a, ny_pair, n_result + 1), out->n_result = n_result;
  out->layer = NY_NEW_ARRAY(a, ny_pair, s[0].n + 1), out->n_layer = layers ? s[0].n : 0;
  const ny_attr *names = &ret->attr[NY_AT(ret, names)];
  for (size_t i = 0; i < n_result; i++)
    out->result[i] = (ny_pair){.name = i < names->names.n ? names->names.v[i] : "", .kind = "result", .error = relative(&sum[i], false)};
  for (size_t i = 0; i < out->n_layer; i++) {
    const char *node = node_of(s[0].layer[i]);
    ny_pair *p = &out->layer[i];
    *p = (ny_pair){.name = node ? node : ny_strf(a, "%s %zu", ny_kinds[s[0].layer[i]->kind].name, i), .kind = ny_kinds[s[0].layer[i]->kind].name, .error = relative(&sum[n_result + i], true)};
    NY_TRY(ny_compare_weights(&s[0].ls, s[0].layer[i], &s[1].ls, s[1].layer[i], a, p));
  }
  return NYB_OK;
}

nyb_status ny_compare(nyb_model *one, nyb_model *other, const ny_samples *data, bool layers, int threads, ny_arena *a, ny_comparison *out) {
  nyb_context *cx = one->cx;
  side s[2] = {0};
  *out = (ny_comparison){0};
  nyb_status st = open_side(&s[0], cx, one, data, threads, a);
  if (!st) st = open_side(&s[1], cx, other, data, threads, a);
  if (!st) out->unmatched = pair_up(&s[0], &s[1]);
  if (!st) st = compare(s, data, layers, a, out, cx);
  for (int i = 0; i < 2; i++) {
    ny_piece_free(&s[i].piece);
    ny_piece_free(&s[i].local);
    ny_runner_free(s[i].runner);
  }
  return st;
}
