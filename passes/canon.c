/* canon: a table of local rules, applied until none matches. Laws of a rule: it keeps the result's type; it never makes
   worse code; it terminates, because it lowers (number of ops, number of elements computed, depth of views) in that
   order; it gives the same bits, NaN and -0 included, unless its row says fast. A rule looks at an op and the ops of
   its first two inputs. */
#include "canon.h"

#include <math.h>

static ny_value *in0(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  return ny_in(op, 0);
}
static ny_value *in0_of_in0(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  return ny_in(ny_in(op, 0)->def, 0);
}

static bool is_number(const ny_value *v, double x) {
  double c;
  return ny_uniform(v, &c) && c == x && signbit(c) == signbit(x);
}

/* x (op) number = x */
static ny_value *unit(ny_op *op, double float_unit, double int_unit) {
  double u = ny_is_float((ny_fmt)op->out[0]->type->fmt) ? float_unit : int_unit;
  return is_number(ny_in(op, 1), u) ? ny_in(op, 0) : NULL;
}
static ny_value *add_zero(ny_builder *b, ny_op *op, bool fast) {
  (void)b;
  ny_value *v = unit(op, -0.0, 0);
  return v || !fast ? v : unit(op, 0.0, 0);
}
static ny_value *sub_zero(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  return unit(op, 0.0, 0);
}
static ny_value *times_one(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  return unit(op, 1, 1);
}

/* Constants to the right, so that rules look on one side only. */
static ny_value *swap(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  if (!(ny_kinds[op->kind].flags & NY_COMMUTES) && op->kind != NY_add && op->kind != NY_mul) return NULL;
  if (ny_is_uniform(ny_in(op, 1)) || !ny_is_uniform(ny_in(op, 0))) return NULL;
  return ny_b_ew2(b, (ny_kind)op->kind, ny_in(op, 1), ny_in(op, 0));
}

static ny_value *power(ny_builder *b, ny_op *op, bool fast) {
  ny_value *x = ny_in(op, 0);
  double e;
  if (!ny_uniform(ny_in(op, 1), &e)) return NULL;
  bool narrow = ny_fmts[x->type->fmt].bits <= 32; /* the square of one is exact in the evaluator's double */
  if (e == 1) return x;
  if (e == 2 && (narrow || fast)) return ny_b_ew2(b, NY_mul, x, x);
  if (e == -1) return ny_b_ew1(b, NY_reciprocal, x);
  if (!fast) return NULL;
  if (e == 0.5) return ny_b_ew1(b, NY_sqrt, x);
  if (e == 3) return ny_b_ew2(b, NY_mul, ny_b_ew2(b, NY_mul, x, x), x);
  return NULL;
}

/* Division by a power of two is exact multiplication. */
static ny_value *div_power_of_two(ny_builder *b, ny_op *op, bool fast) {
  ny_value *y = ny_in(op, 1);
  double d;
  int e;
  if (!ny_is_float((ny_fmt)y->type->fmt) || !ny_uniform(y, &d) || d == 0 || !isfinite(d)) return NULL;
  if (fabs(frexp(d, &e)) != 0.5 && !fast) return NULL;
  if (e > 100 || e < -100 || ny_fmts[y->type->fmt].bits < 32) return NULL;
  ny_value *r = ny_b_splat(b, y->type, 1 / d);
  return r ? ny_b_ew2(b, NY_mul, ny_in(op, 0), r) : NULL;
}

/* Is every value of `from` exactly a value of `to`? */
static bool lossless(ny_fmt from, ny_fmt to) {
  const ny_fmt_info *a = &ny_fmts[from], *b = &ny_fmts[to];
  if (from == to) return true;
  if (a->kind == 'B') return b->kind != 'B' && b->bits >= 8;
  if (a->kind == 'F' && b->kind == 'F') return (b->bits >= 32 && a->bits < b->bits);
  if ((a->kind == 'I' && b->kind == 'I') || (a->kind == 'U' && b->kind == 'U')) return a->bits < b->bits;
  return false;
}

static ny_value *cast_same(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  return ny_in(op, 0)->type == op->out[0]->type ? ny_in(op, 0) : NULL;
}

static ny_value *cast_cast(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  ny_value *x = ny_in(ny_in(op, 0)->def, 0);
  ny_fmt from = (ny_fmt)x->type->fmt, mid = (ny_fmt)ny_in(op, 0)->type->fmt, to = (ny_fmt)op->out[0]->type->fmt;
  if (!lossless(from, mid))
    return NULL;
  if (from == to) return x;
  ny_value *v = ny_b_cast(b, x, to);
  if (v && v->def != x->def) v->def->attr[NY_AT(cast, saturate)] = op->attr[NY_AT(cast, saturate)];
  return v;
}

static ny_value *where_known(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  double c;
  if (!ny_uniform(ny_in(op, 0), &c)) return NULL;
  ny_value *v = ny_in(op, c != 0 ? 1 : 2);
  return v->type == op->out[0]->type ? v : NULL;
}

static ny_value *where_not(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  return ny_b_where(b, ny_in(ny_in(op, 0)->def, 0), ny_in(op, 2), ny_in(op, 1));
}

static ny_value *where_same(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  return ny_in(op, 1) == ny_in(op, 2) ? ny_in(op, 1) : NULL;
}

static ny_value *same_operands(ny_builder *b, ny_op *op, bool fast) {
  (void)b, (void)fast;
  return ny_in(op, 0) == ny_in(op, 1) ? ny_in(op, 0) : NULL;
}

/* An operand need not be stretched when another one brings the size. */
static ny_value *drop_broadcast(ny_builder *b, ny_op *op, bool fast) {
  (void)fast;
  for (int i = 0; i < op->n_in; i++) {
    ny_op *bc = ny_def(ny_in(op, i), NY_broadcast);
    if (!bc) continue;
    const ny_type *t = ny_in(bc, 0)->type;
    ny_dim d[NY_MAX_RANK];
    int rank = t->rank;
    bool fits = true;
    for (int j = 0; j < op->n_in && fits; j++) {
      if (j == i) continue;
      fits = ny_broadcast_shape(b->g->cx, t, ny_in(op, j)->type, &rank, d);
      if (fits) t = ny_tensor_type(b->g->cx, (ny_fmt)op->out[0]->type->fmt, rank, d);
    }
    if (!fits || !ny_same_shape(t, op->out[0]->type)) continue;
    ny_set_in(op, i, ny_in(bc, 0));
    return op->out[0];
  }
  return NULL;
}

#define ANY NY_ANY_OP
#define NUM NY_CONST_OP
static const ny_rule rules[] = {
    {NY_MAP_OP, NUM, ANY, swap, false},       {NY_add, ANY, NUM, add_zero, false},
    {NY_sub, ANY, NUM, sub_zero, false},      {NY_mul, ANY, NUM, times_one, false},
    {NY_div, ANY, NUM, times_one, false},     {NY_div, ANY, NUM, div_power_of_two, false},
    {NY_pow, ANY, NUM, power, false},         {NY_neg, NY_neg, ANY, in0_of_in0, false},
    {NY_not, NY_not, ANY, in0_of_in0, false}, {NY_inv, NY_inv, ANY, in0_of_in0, false},
    {NY_abs, NY_abs, ANY, in0, false},        {NY_relu, NY_relu, ANY, in0, false},
    {NY_max, ANY, ANY, same_operands, false}, {NY_min, ANY, ANY, same_operands, false},
    {NY_and, ANY, ANY, same_operands, false}, {NY_or, ANY, ANY, same_operands, false},
    {NY_cast, ANY, ANY, cast_same, false},    {NY_cast, NY_cast, ANY, cast_cast, false},
    {NY_where, NUM, ANY, where_known, false}, {NY_where, NY_not, ANY, where_not, false},
    {NY_where, ANY, ANY, where_same, false},  {NY_MAP_OP, ANY, ANY, drop_broadcast, false},
};
#undef ANY
#undef NUM

static bool kind_fits(int want, const ny_op *op, int i) {
  if (want == NY_ANY_OP) return true;
  if (i >= op->n_in) return false;
  const ny_value *v = ny_in(op, i);
  return want == NY_CONST_OP ? ny_is_uniform(v) : v->def && v->def->kind == want;
}

static bool apply(ny_graph *g, ny_op *op, const ny_rule *r, bool fast, bool *gone) {
  if (r->kind != op->kind && !(r->kind == NY_MAP_OP && ny_is_map(op))) return false;
  if ((r->fast && !fast) || !kind_fits(r->in0, op, 0) || !kind_fits(r->in1, op, 1)) return false;
  ny_builder b = ny_before(g, op);
  ny_value *v = r->rewrite(&b, op, fast);
  if (!v || v == op->out[0]) return v != NULL;
  if (v->type != op->out[0]->type) return false;
  ny_replace_op(op, v);
  *gone = true;
  return true;
}

static bool apply_rows(ny_graph *g, ny_op *op, const ny_rule *r, size_t n, bool fast, bool *gone) {
  bool changed = false;
  for (size_t i = 0; i < n && !*gone; i++) changed |= apply(g, op, &r[i], fast, gone);
  return changed;
}

/* A condition known when compiling: the body's ops move out. */
static bool if_known(ny_op *op) {
  double c;
  if (op->kind != NY_if || !ny_uniform(ny_in(op, 0), &c)) return false;
  ny_block *body = op->body[c != 0 ? 0 : 1];
  while (body->first && body->first->kind != NY_yield) ny_move(body->first, op->parent, op);
  for (int i = 0; i < op->n_out; i++) ny_replace(op->out[i], ny_in(body->last, i));
  ny_erase(op);
  return true;
}

/* A requirement that holds goes. One in a loop that surely runs moves out, where sizes are compared before the run;
   the body of an if stays its own place, for it may never be reached. */
static bool require_known(ny_graph *g, ny_op *op) {
  int64_t lo, hi;
  ny_dim a = op->attr[NY_AT(require, a)].d, b = op->attr[NY_AT(require, b)].d, d = ny_dim_sub(g->cx, a, b);
  ny_op *around = op->parent->parent;
  ny_dim_bounds(g->cx, d, &lo, &hi);
  if (a == b || (lo == 0 && hi == 0)) return ny_erase(op), true;
  if (!around || around->kind != NY_loop || around->attr[NY_AT(loop, cond)].i) return false;
  ny_dim_bounds(g->cx, around->attr[NY_AT(loop, trip)].d, &lo, &hi);
  if (lo < 1) return false;
  ny_move(op, around->parent, around);
  return true;
}

typedef struct state {
  ny_pass_cx *px;
  ny_graph *g;
  bool changed;
} state;

/* Results without elements need neither work nor kernel. */
static bool empty_results(state *s, ny_op *op) {
  int64_t n;
  bool used = false;
  if (op->kind == NY_const || op->n_body || !ny_is_pure(op)) return false;
  for (int i = 0; i < op->n_out; i++) used |= op->out[i]->uses != NULL;
  if (!used) return false;
  for (int i = 0; i < op->n_out; i++)
    if (!ny_type_static_count(s->g->cx, op->out[i]->type, &n) || n) return false;
  ny_builder b = ny_before(s->g, op);
  for (int i = 0; i < op->n_out; i++)
    ny_replace(op->out[i], ny_b_const(&b, op->out[i]->type, ny_blob_new(s->g->unit, "", 0, NULL, 0)));
  return true;
}

static nyb_status visit(void *user, ny_op *op) {
  state *s = user;
  bool gone = false, fast = s->px->opt->fast;
  if (op->kind == NY_require) {
    s->changed |= require_known(s->g, op);
    return NYB_OK;
  }
  if (if_known(op) || empty_results(s, op)) {
    s->changed = true;
    return NYB_OK;
  }
  if (op->n_out != 1 || op->n_body || !ny_is_pure(op)) return NYB_OK;
  s->changed |= apply_rows(s->g, op, rules, NY_COUNT(rules), fast, &gone);
  if (!gone) s->changed |= apply_rows(s->g, op, ny_view_rules, (size_t)ny_n_view_rules, fast, &gone);
  if (!gone) s->changed |= apply_rows(s->g, op, ny_code_rules, (size_t)ny_n_code_rules, fast, &gone);
  return s->g->cx->diag.code;
}

nyb_status ny_pass_canon(ny_pass_cx *px, ny_graph *g, bool *changed) {
  enum { ROUNDS = 32 };
  for (int i = 0; i < ROUNDS; i++) {
    state s = {px, g, false};
    NY_TRY(ny_walk(&g->body, visit, &s));
    s.changed |= ny_drop_dead(&g->body);
    *changed |= s.changed;
    if (!s.changed) break;
  }
  return NYB_OK;
}
