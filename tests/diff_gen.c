/* The generator's core and its elementwise productions; diff_ops.c has the tensor ops. A production builds on random
   values of the pool; what cannot be typed or would grow out of bounds is taken back, so productions need not know the
   rules of inference. */
#include "diff_gen.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

uint64_t diff_rand(diff_gen *g, uint64_t n) { /* splitmix64 */
  uint64_t z = g->seed += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z ^ (z >> 31)) % n;
}

static double uniform(diff_gen *g, double mag) { return mag * ((double)diff_rand(g, (uint64_t)1 << 53) * 0x1p-52 - 1); }

int64_t diff_size(const diff_gen *g, ny_dim d) {
  int64_t n = d;
  if (d < 0 && !ny_dim_eval(g->cx, d, g->c->env, g->c->n_env, &n)) return -1;
  return n;
}

int64_t diff_count(const diff_gen *g, const ny_type *t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= diff_size(g, t->dim[i]);
  return n;
}

bool diff_static(const ny_type *t, int from) {
  for (int i = from; i < t->rank; i++)
    if (t->dim[i] < 0) return false;
  return true;
}

double diff_eps(ny_fmt f) {
  switch (f) {
  case NY_f64: return 0x1p-50; /* compiled functions of doubles may be a few units off */
  case NY_f32: return 0x1p-22;
  case NY_f16: return 0x1p-10;
  case NY_bf16: return 0x1p-7;
  default: return 0;
  }
}

static diff_class class_of(const ny_value *v) {
  ny_fmt f = (ny_fmt)v->type->fmt;
  return ny_is_float(f) ? DIFF_FLOAT : ny_is_int(f) ? DIFF_INT : DIFF_BOOL;
}

const diff_val *diff_pick(diff_gen *g, diff_class c, int min_rank, bool exact) {
  for (int tries = 0; tries < 24; tries++) {
    /* younger values twice as often, so that graphs get deep */
    uint64_t a = diff_rand(g, (uint64_t)g->n), b = diff_rand(g, (uint64_t)g->n);
    const diff_val *v = &g->pool[a > b ? a : b];
    if ((class_of(v->v) & c) && v->v->type->rank >= min_rank && (v->exact || !exact)) return v;
  }
  return NULL;
}

diff_val diff_const(diff_gen *g, ny_fmt f, int rank, const ny_dim *shape, double mag) {
  const ny_type *t = ny_tensor_type(g->cx, f, rank, shape);
  int64_t n = diff_count(g, t);
  uint8_t *p = ny_alloc(&g->c->u->arena, ny_fmt_bytes(f, (uint64_t)n) + 1);
  double top = 0;
  for (int64_t i = 0; i < n; i++) {
    if (ny_is_float(f))
      ny_put_f(f, p, (uint64_t)i, uniform(g, mag), false);
    else
      ny_put_i(f, p, (uint64_t)i, (int64_t)uniform(g, mag + 1));
    double x = ny_is_float(f) ? fabs(ny_get_f(f, p, (uint64_t)i)) : fabs((double)ny_get_i(f, p, (uint64_t)i));
    top = x > top ? x : top;
  }
  const ny_blob *blob = ny_blob_new(g->c->u, p, ny_fmt_bytes(f, (uint64_t)n), NULL, 0);
  return (diff_val){ny_b_const(&g->b, t, blob), top, 0, true};
}

static const diff_val *same_type(diff_gen *g, const ny_type *t, bool exact) {
  for (int tries = 0; tries < 8; tries++) {
    const diff_val *v = &g->pool[diff_rand(g, (uint64_t)g->n)];
    if (v->v->type == t && (v->exact || !exact)) return v;
  }
  return NULL;
}

diff_val diff_partner(diff_gen *g, const diff_val *x, bool exact) {
  const ny_type *t = x->v->type;
  const diff_val *other = same_type(g, t, exact);
  uint64_t how = diff_rand(g, 5);
  if (other && how < 3) return *other;
  if (how == 3 && t->rank && t->dim[t->rank - 1] >= 0) return diff_const(g, (ny_fmt)t->fmt, 1, &t->dim[t->rank - 1], 3);
  if (how == 4 && t->rank && class_of(x->v) != DIFF_BOOL && (x->exact || !exact)) {
    int axis = (int)diff_rand(g, t->rank);
    return (diff_val){ny_b_reduce(&g->b, "max", x->v, &axis, 1, true), x->mag, x->err, x->exact};
  }
  return diff_const(g, (ny_fmt)t->fmt, 0, NULL, 3);
}

void diff_keep(diff_gen *g, ny_value *v, double mag, double err, bool exact) {
  if (!v || g->n == DIFF_POOL) return;
  ny_fmt f = (ny_fmt)v->type->fmt;
  int64_t n = diff_count(g, v->type);
  double most = f == NY_f16 ? 2000 : 30000;
  if (n < 0 || n > 20000) return;
  if (ny_is_float(f)) {
    if (!exact) err += 2 * diff_eps(f) * mag;
    if (!(mag < most) || !(err < 0.05 * (mag + 1))) return;
  }
  g->pool[g->n++] = (diff_val){v, mag, ny_is_float(f) ? err : 0, exact || !ny_is_float(f)};
}

/* ---- Elementwise */
enum {
  JUMPS = 1,
  KEEPS = 2,
  POSITIVE = 4,
  UNIT = 8,
  SMALL = 16
}; /* exact operands only; exact stays exact; of |x|+0.5; of x in -0.9 .. 0.9; |x| <= 6 */
static const struct {
  ny_kind k;
  double mag, lip; /* |f| <= mag, or |x| * -mag where that is negative; |f'| <= lip */
  int flags;
} unary[] = {
    {NY_neg, -1, 1, KEEPS},
    {NY_abs, -1, 1, KEEPS},
    {NY_relu, -1, 1, KEEPS},
    {NY_sign, 1, 0, JUMPS | KEEPS},
    {NY_floor, -2, 0, JUMPS | KEEPS},
    {NY_ceil, -2, 0, JUMPS | KEEPS},
    {NY_trunc, -1, 0, JUMPS | KEEPS},
    {NY_round, -2, 0, JUMPS | KEEPS},
    {NY_tanh, 1, 1, 0},
    {NY_sigmoid, 1, 0.25, 0},
    {NY_erf, 1, 1.13, 0},
    {NY_sin, 1, 1, 0},
    {NY_cos, 1, 1, 0},
    {NY_atan, 1.6, 1, 0},
    {NY_gelu, -1, 1.13, 0},
    {NY_gelu_tanh, -1, 1.13, 0},
    {NY_silu, -1, 1.1, 0},
    {NY_softplus, -2, 1, 0},
    {NY_softsign, 1, 1, 0},
    {NY_mish, -1, 1.1, 0},
    {NY_hard_swish, -1, 1.5, 0},
    {NY_hard_sigmoid, 1, 0.2, 0},
    {NY_elu, -1, 1, 0},
    {NY_selu, -1.76, 1.76, 0},
    {NY_celu, -1, 1, 0},
    {NY_leaky_relu, -1, 1, 0},
    {NY_asinh, -1, 1, 0},
    {NY_exp, 404, 404, SMALL},
    {NY_cosh, 203, 203, SMALL},
    {NY_sinh, 203, 203, SMALL},
    {NY_sqrt, -2, 0.71, POSITIVE},
    {NY_log, -3, 2, POSITIVE},
    {NY_reciprocal, 2, 4, POSITIVE},
    {NY_asin, 1.6, 2.3, UNIT},
    {NY_acos, 3.2, 2.3, UNIT},
    {NY_atanh, 1.5, 5.3, UNIT},
    {NY_tan, 1.3, 2.6, UNIT},
    {NY_thresholded_relu, -1, 1, JUMPS | KEEPS},
    {NY_shrink, -1, 1, JUMPS | KEEPS},
};

static diff_val away_from_zero(diff_gen *g, const diff_val *x) {
  ny_fmt f = (ny_fmt)x->v->type->fmt;
  ny_value *v = ny_b_ew2(&g->b, NY_add, ny_b_ew1(&g->b, NY_abs, x->v), ny_b_scalar(&g->b, f, 0.5));
  return (diff_val){v, x->mag + 0.5, x->err + diff_eps(f) * (x->mag + 0.5), false};
}

static diff_val scaled(diff_gen *g, const diff_val *x, double mag) {
  ny_fmt f = (ny_fmt)x->v->type->fmt;
  double by = mag / (x->mag + 0.01);
  return (diff_val){ny_b_ew2(&g->b, NY_mul, x->v, ny_b_scalar(&g->b, f, by)), mag, x->err * by + 2 * diff_eps(f) * mag,
                    false};
}

static void float_unary(diff_gen *g) {
  uint64_t i = diff_rand(g, NY_COUNT(unary));
  int flags = unary[i].flags;
  const diff_val *p = diff_pick(g, DIFF_FLOAT, 0, (flags & JUMPS) != 0);
  if (!p) return;
  diff_val x = *p;
  if (flags & POSITIVE) x = away_from_zero(g, p);
  if ((flags & UNIT) || ((flags & SMALL) && x.mag > 6)) x = scaled(g, p, flags & UNIT ? 0.9 : 6);
  if (!x.v) return;
  double mag = unary[i].mag < 0 ? (x.mag + (unary[i].mag < -1)) * -unary[i].mag : unary[i].mag;
  bool exact = x.exact && (flags & KEEPS);
  /* what happens inside the formula is rounded at the size of its parts */
  double inside = exact ? 0 : 4 * diff_eps((ny_fmt)x.v->type->fmt) * (mag + x.mag * unary[i].lip);
  diff_keep(g, ny_b_ew1(&g->b, unary[i].k, x.v), mag, x.err * unary[i].lip + inside, exact);
}

static void float_binary(diff_gen *g) {
  static const ny_kind kinds[] = {NY_add, NY_sub, NY_mul, NY_max, NY_min, NY_div,
                                  NY_pow, NY_rem, NY_mod, NY_add, NY_mul};
  ny_kind k = kinds[diff_rand(g, NY_COUNT(kinds))];
  bool jumps = k == NY_rem || k == NY_mod;
  const diff_val *x = diff_pick(g, DIFF_FLOAT, 0, jumps);
  if (!x) return;
  diff_val a = *x, b = diff_partner(g, x, jumps);
  ny_fmt f = (ny_fmt)a.v->type->fmt;
  if (!b.v || (jumps && b.mag == 0)) return;
  if (k == NY_div) b = away_from_zero(g, &b);
  if (k == NY_pow) a = scaled(g, x, 1), a = away_from_zero(g, &a), b = scaled(g, &b, 2);
  double mag = a.mag + b.mag, err = a.err + b.err;
  if (k == NY_mul) mag = a.mag * b.mag, err = a.err * b.mag + b.err * a.mag;
  if (k == NY_div) mag = 2 * a.mag, err = 2 * a.err + 4 * a.mag * b.err;
  if (k == NY_pow) mag = 4.1, err = 17 * a.err + 3 * b.err + 16 * diff_eps(f);
  if (k == NY_max || k == NY_min) mag = fmax(a.mag, b.mag);
  bool exact = a.exact && b.exact && (k == NY_max || k == NY_min);
  if (jumps) mag = b.mag, err = 0;
  diff_keep(g, ny_b_ew2(&g->b, k, a.v, b.v), mag, err, exact);
}

static void int_op(diff_gen *g) {
  static const ny_kind two[] = {NY_add, NY_sub, NY_mul, NY_div, NY_rem, NY_mod, NY_max,
                                NY_min, NY_and, NY_or,  NY_xor, NY_shl, NY_shr},
                       one[] = {NY_neg, NY_abs, NY_sign, NY_inv, NY_relu};
  const diff_val *x = diff_pick(g, DIFF_INT, 0, false);
  if (!x) return;
  if (diff_one_in(g, 4)) {
    diff_keep(g, ny_b_ew1(&g->b, one[diff_rand(g, NY_COUNT(one))], x->v), 1e18, 0, true);
  } else {
    ny_value *y = diff_partner(g, x, true).v;
    if (y) diff_keep(g, ny_b_ew2(&g->b, two[diff_rand(g, NY_COUNT(two))], x->v, y), 1e18, 0, true);
  }
}

static ny_value *compare(diff_gen *g, const diff_val *x) {
  static const ny_kind kinds[] = {NY_eq, NY_ne, NY_lt, NY_le, NY_gt, NY_ge};
  ny_value *y = diff_partner(g, x, true).v;
  return y ? ny_b_ew2(&g->b, kinds[diff_rand(g, NY_COUNT(kinds))], x->v, y) : NULL;
}

static void logic(diff_gen *g) {
  static const ny_kind two[] = {NY_and, NY_or, NY_xor};
  const diff_val *b = diff_pick(g, DIFF_BOOL, 0, true), *x = diff_pick(g, DIFF_NUMBER, 0, true);
  if (b && diff_one_in(g, 2)) {
    ny_value *y = diff_partner(g, b, true).v;
    if (diff_one_in(g, 3))
      diff_keep(g, ny_b_ew1(&g->b, NY_not, b->v), 1, 0, true);
    else if (y)
      diff_keep(g, ny_b_ew2(&g->b, two[diff_rand(g, 3)], b->v, y), 1, 0, true);
  } else if (x) {
    diff_keep(g, compare(g, x), 1, 0, true);
  }
}

static void select_one(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_NUMBER, 0, true);
  ny_value *c = x ? compare(g, x) : NULL;
  const diff_val *p = c ? same_type(g, x->v->type, false) : NULL;
  diff_val a = p ? *p : x ? *x : (diff_val){0};
  if (!c) return;
  diff_val b = diff_partner(g, &a, false);
  if (b.v) diff_keep(g, ny_b_where(&g->b, c, a.v, b.v), fmax(a.mag, b.mag), fmax(a.err, b.err), a.exact && b.exact);
}

static ny_fmt random_fmt(diff_gen *g) {
  static const ny_fmt narrow[] = {NY_f32, NY_f32, NY_f32, NY_f32, NY_i64, NY_i32},
                      wide[] = {NY_f32, NY_f32, NY_f32, NY_f64, NY_f16, NY_bf16,
                                NY_i64, NY_i32, NY_i8,  NY_u8,  NY_i16, NY_u32};
  return g->o->wide ? wide[diff_rand(g, NY_COUNT(wide))] : narrow[diff_rand(g, NY_COUNT(narrow))];
}

static void cast(diff_gen *g) {
  ny_fmt to = diff_one_in(g, 6) ? NY_bool : random_fmt(g);
  const diff_val *x = diff_pick(g, DIFF_ANY, 0, !ny_is_float(to));
  if (!x || x->v->type->fmt == to) return;
  double mag = class_of(x->v) == DIFF_INT ? 1e18 : x->mag;
  if (class_of(x->v) == DIFF_INT && ny_fmts[x->v->type->fmt].bits == 8) mag = 255;
  if (class_of(x->v) == DIFF_INT && ny_fmts[x->v->type->fmt].bits > 8 &&
      ny_is_float(to)) { /* bring wide integers down first */
    ny_fmt f = (ny_fmt)x->v->type->fmt;
    ny_value *small = ny_b_ew2(&g->b, NY_rem, x->v, ny_b_scalar(&g->b, f, 7));
    if (small) diff_keep(g, ny_b_cast(&g->b, small, to), 7, 0, true);
    return;
  }
  /* one rounding, the same everywhere: exact stays exact */
  diff_keep(g, ny_b_cast(&g->b, x->v, to), mag * 1.01, x->err, x->exact);
}

/* ---- Inputs, control flow, the whole */
static void new_input(diff_gen *g) {
  static const int64_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17};
  static const char *const names[] = {"N", "M"};
  if (g->c->n_in == DIFF_MAX_IN || g->n == DIFF_POOL) return;
  int rank = (int)diff_rand(g, 5);
  ny_dim d[5];
  for (int i = 0; i < rank; i++) {
    d[i] = sizes[diff_rand(g, rank > 3 ? 6 : NY_COUNT(sizes))];
    if (g->o->symbols && diff_one_in(g, 3)) d[i] = ny_dim_sym(g->cx, ny_intern(&g->cx->names, names[diff_rand(g, 2)]));
  }
  ny_fmt f = random_fmt(g);
  double mag = diff_one_in(g, 3) ? 10 : 2;
  char name[16];
  snprintf(name, sizeof name, "x%d", g->c->n_in);
  ny_value *v = ny_block_arg(g->b.g, &g->b.g->body, ny_tensor_type(g->cx, f, rank, d), ny_intern(&g->cx->names, name));
  g->c->in_mag[g->c->n_in++] = mag;
  g->pool[g->n++] = (diff_val){v, mag, 0, true};
}

/* Both branches give the same type; the condition is one element of an exact value. */
static void if_op(diff_gen *g) {
  const diff_val *c = diff_pick(g, DIFF_NUMBER, 1, true), *x = diff_pick(g, DIFF_FLOAT, 0, false);
  if (!c || !x) return;
  int axes[NY_MAX_RANK];
  for (int i = 0; i < c->v->type->rank; i++) axes[i] = i;
  ny_value *top = ny_b_reduce(&g->b, "max", c->v, axes, c->v->type->rank, false),
           *zero = ny_b_scalar(&g->b, (ny_fmt)c->v->type->fmt, 1);
  ny_value *cond = ny_b_ew2(&g->b, NY_gt, top, zero);
  if (!cond) return;
  ny_op *op = ny_build(&g->b, NY_if, &cond, 1, &x->v->type, 1);
  ny_builder save = g->b;
  for (int i = 0; op && i < 2; i++) {
    g->b.block = op->body[i];
    ny_value *r = ny_b_ew1(&g->b, i ? NY_tanh : NY_neg, x->v);
    if (r) ny_build(&g->b, NY_yield, &r, 1, NULL, 0);
  }
  g->b = save;
  diff_keep(g, op ? op->out[0] : NULL, x->mag + 1, x->err + 4 * diff_eps((ny_fmt)x->v->type->fmt) * (x->mag + 1),
            false);
}

/* A few damped steps, carrying a value and stacking it. */
static void loop_op(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_FLOAT, 0, false);
  int64_t trip = (int64_t)diff_rand(g, 4);
  if (!x || x->v->type->rank >= 6) return;
  ny_type stacked = *x->v->type;
  memmove(stacked.dim + 1, stacked.dim, sizeof stacked.dim - sizeof *stacked.dim);
  stacked.dim[0] = trip, stacked.rank++;
  const ny_type *out[2] = {x->v->type, ny_type_get(g->cx, stacked)};
  ny_op *op = ny_build(&g->b, NY_loop, (ny_value *[]){x->v}, 1, out, 2);
  if (!op) return;
  op->attr[NY_AT(loop, trip)].d = ny_dim_const(g->cx, trip);
  ny_builder save = g->b;
  g->b.block = op->body[0];
  ny_value *i = ny_block_arg(g->b.g, op->body[0], ny_tensor_type(g->cx, NY_i64, 0, NULL), NULL),
           *v = ny_block_arg(g->b.g, op->body[0], out[0], NULL);
  ny_value *next = ny_b_ew2(&g->b, NY_add, ny_b_ew1(&g->b, NY_tanh, v), ny_b_cast(&g->b, i, (ny_fmt)x->v->type->fmt));
  if (next) ny_build(&g->b, NY_yield, (ny_value *[]){next, v}, 2, NULL, 0);
  g->b = save;
  double mag = x->mag + 5, err = x->err + 20 * diff_eps((ny_fmt)x->v->type->fmt) * mag;
  diff_keep(g, op->out[0], mag, err, false);
  if (trip) diff_keep(g, op->out[1], mag, err, false);
}

/* Takes back what a production built when it kept nothing, or when inference refused a part of it. */
static void take_back(diff_gen *g, const ny_op *mark, int n) {
  if (g->cx->diag.code) g->n = n;
  ny_diag_clear(&g->cx->diag);
  while (g->n == n && g->b.g->body.last != mark) ny_erase(g->b.g->body.last);
}

static void step(diff_gen *g) {
  static diff_production *const elementwise[] = {float_unary, float_unary, float_binary, float_binary,
                                                 int_op,      logic,       select_one,   cast};
  size_t n_tensor = 0;
  while (diff_tensor_ops[n_tensor]) n_tensor++;
  const ny_op *mark = g->b.g->body.last;
  int n = g->n;
  if (diff_one_in(g, 12))
    new_input(g);
  else if (g->o->control && diff_one_in(g, 15))
    (diff_one_in(g, 2) ? if_op : loop_op)(g);
  else if (diff_one_in(g, 2))
    elementwise[diff_rand(g, NY_COUNT(elementwise))](g);
  else
    diff_tensor_ops[diff_rand(g, n_tensor)](g);
  take_back(g, mark, n);
}

static void finish(diff_gen *g) {
  ny_value *out[DIFF_MAX_OUT];
  int n = 0;
  for (int i = g->n - 1; i >= 0 && n < DIFF_MAX_OUT; i--)
    if (!g->pool[i].v->uses || diff_one_in(g, 20)) {
      g->c->err[n] = g->pool[i].exact ? 0 : g->pool[i].err * 4;
      out[n++] = g->pool[i].v;
    }
  g->c->n_out = n;
  ny_build(&g->b, NY_ret, out, n, NULL, 0);
}

bool diff_generate(ny_ctx *cx, const diff_options *o, diff_case *out) {
  *out = (diff_case){.u = ny_unit_new(cx)};
  out->g = ny_graph_new(out->u, ny_intern(&cx->names, "main"), false);
  diff_gen g = {.c = out,
                .o = o,
                .cx = cx,
                .seed = o->seed * 0x2545f4914f6cdd1du + 1,
                .b = {.g = out->g, .block = &out->g->body}};
  static const char *const names[] = {"N", "M"};
  for (int i = 0; i < 2 && o->symbols; i++)
    out->env[out->n_env++] = (ny_binding){ny_intern(&cx->names, names[i]), 1 + (int64_t)diff_rand(&g, 9)};
  for (int i = 0; i < 3; i++) new_input(&g);
  for (int tries = 0; tries < 20 * o->ops && g.n < o->ops + out->n_in && g.n < DIFF_POOL; tries++) step(&g);
  finish(&g);
  return !cx->diag.code && !ny_verify_unit(out->u);
}

void diff_inputs(const diff_case *c, uint64_t seed, ny_arena *a, ny_tensor *in) {
  diff_gen g = {.c = (diff_case *)c, .cx = c->g->cx, .seed = seed};
  for (int i = 0; i < c->n_in; i++) {
    ny_type t = *c->g->body.arg[i]->type;
    for (int d = 0; d < t.rank; d++) t.dim[d] = diff_size(&g, t.dim[d]);
    ny_fmt f = (ny_fmt)t.fmt;
    int64_t n = diff_count(&g, &t);
    in[i] = (ny_tensor){ny_type_get(g.cx, t), ny_alloc(a, ny_fmt_bytes(f, (uint64_t)n) + 64)};
    for (int64_t k = 0; k < n; k++) {
      double x = uniform(&g, c->in_mag[i]);
      if (ny_is_float(f))
        ny_put_f(f, in[i].data, (uint64_t)k, x, false);
      else
        ny_put_i(f, in[i].data, (uint64_t)k, (int64_t)x);
    }
  }
}

bool diff_same(const ny_tensor *want, const ny_tensor *got, double err, char why[200]) {
  const ny_type *t = want->type;
  int64_t n = 1;
  for (int d = 0; d < t->rank; d++) n *= t->dim[d];
  if (t->fmt != got->type->fmt || t->rank != got->type->rank ||
      memcmp(t->dim, got->type->dim, t->rank * sizeof *t->dim)) {
    snprintf(why, 200, "the types differ");
    return false;
  }
  for (int64_t i = 0; i < n; i++) {
    if (!ny_is_float((ny_fmt)t->fmt)) {
      int64_t a = ny_get_i((ny_fmt)t->fmt, want->data, (uint64_t)i),
              b = ny_get_i((ny_fmt)t->fmt, got->data, (uint64_t)i);
      if (a == b) continue;
      snprintf(why, 200, "element %lld of %lld is %lld, not %lld", (long long)i, (long long)n, (long long)b,
               (long long)a);
      return false;
    }
    double a = ny_get_f((ny_fmt)t->fmt, want->data, (uint64_t)i), b = ny_get_f((ny_fmt)t->fmt, got->data, (uint64_t)i);
    if ((a != a && b != b) || a == b || fabs(a - b) <= err) continue;
    snprintf(why, 200, "element %lld of %lld is %.9g, not %.9g (%s, allowed %g)", (long long)i, (long long)n, b, a,
             ny_fmts[t->fmt].name, err);
    return false;
  }
  return true;
}
