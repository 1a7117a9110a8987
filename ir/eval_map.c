/* Elementwise ops and casts. An elementwise row is walked node by node over chunks of 256 elements, each node a loop
   over its lane, so that the walk costs little beside the arithmetic and needs no generated code. Attributes and
   literals take the class (float or integer) of the arithmetic. Division by zero, the quotient of the lowest integer
   and -1, and shifts of the width or more are defined here: see int_op. */
#include "eval.h"

#include <math.h>
#include <string.h>

static bool is_logic(int op) { return op >= NY_S_lt && op <= NY_S_lnot; }

uint64_t ny_ew_room(const ny_op *op) {
  return (uint64_t)ny_expr_of((ny_kind)op->kind)->n * (NY_EW_CHUNK * sizeof(ny_num) + 1);
}

static void splat(ny_num *lane, ny_num v) {
  for (int i = 0; i < NY_EW_CHUNK; i++) lane[i] = v;
}

static ny_num attr_value(const ny_op *op, int slot, ny_ew_class c) {
  bool is_int = ny_kinds[op->kind].attr[slot].kind == NY_I64;
  const ny_attr *a = &op->attr[slot];
  if (c == NY_CLS_F) return (ny_num){.f = is_int ? (double)a->i : a->f};
  return (ny_num){.i = is_int ? a->i : ny_f_to_i(NY_i64, a->f)};
}

static ny_ew_class class_of(ny_fmt f) { return ny_is_float(f) ? NY_CLS_F : f == NY_u64 ? NY_CLS_U : NY_CLS_I; }

void ny_ew_init(ny_ew *w, const ny_op *op, const ny_fmt *fmt, void *room) {
  const ny_kind_info *row = &ny_kinds[op->kind];
  w->x = ny_expr_of((ny_kind)op->kind);
  w->lane = room;
  w->cls = (uint8_t *)room + (size_t)w->x->n * NY_EW_CHUNK * sizeof(ny_num);
  memcpy(w->fmt, fmt, row->min_in * sizeof *fmt);
  w->t = fmt[row->ew == NY_EW_SELECT ? 1 : 0];
  ny_ew_class t = class_of(w->t);
  for (int i = 0; i < w->x->n; i++) {
    const ny_snode *s = &w->x->node[i];
    ny_num *lane = w->lane + (size_t)i * NY_EW_CHUNK;
    if (s->op == NY_S_param)
      w->cls[i] = (uint8_t)class_of(fmt[s->a]);
    else if (s->op == NY_S_attr)
      splat(lane, attr_value(op, s->a, t)), w->cls[i] = (uint8_t)t;
    else if (s->op == NY_S_num)
      splat(lane, t == NY_CLS_F ? (ny_num){.f = s->x} : (ny_num){.i = (int64_t)s->x}), w->cls[i] = (uint8_t)t;
    else if (is_logic(s->op))
      w->cls[i] = NY_CLS_I;
    else
      w->cls[i] = w->cls[s->op == NY_S_select ? s->b : s->a];
  }
}

#define EACH(e)                                                                                                        \
  for (size_t i = 0; i < n; i++) e;                                                                                    \
  return
#define F1(name, e)                                                                                                    \
  case NY_S_##name: EACH(r[i].f = e)
static void float_op(int op, ny_num *r, const ny_num *a, const ny_num *b, size_t n) {
  switch (op) {
    F1(add, a[i].f + b[i].f);
    F1(sub, a[i].f - b[i].f);
    F1(mul, a[i].f * b[i].f);
    F1(div, a[i].f / b[i].f);
    F1(rem, fmod(a[i].f, b[i].f));
    F1(neg, -a[i].f);
    F1(abs, fabs(a[i].f));
    F1(sqrt, sqrt(a[i].f));
    F1(exp, exp(a[i].f));
    F1(log, log(a[i].f));
    F1(log1p, log1p(a[i].f));
    F1(sin, sin(a[i].f));
    F1(cos, cos(a[i].f));
    F1(asin, asin(a[i].f));
    F1(acos, acos(a[i].f));
    F1(atan, atan(a[i].f));
    F1(sinh_small, sinh(a[i].f));
    F1(tanh, tanh(a[i].f));
    F1(erf, erf(a[i].f));
    F1(erfc, erfc(a[i].f));
    F1(pow, pow(a[i].f, b[i].f));
    F1(floor, floor(a[i].f));
    F1(ceil, ceil(a[i].f));
    F1(trunc, trunc(a[i].f));
    F1(rint, nearbyint(a[i].f));       /* half to even: the default rounding mode */
  default: EACH(r[i].f = (double)NAN); /* a row whose node has no float meaning: caught by the test of every row */
  }
}
#undef F1

static int64_t int_div(int64_t a, int64_t b, bool u) {
  if (!b) return 0;
  if (u) return (int64_t)((uint64_t)a / (uint64_t)b);
  return b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b; /* the lowest integer over -1 wraps to itself */
}

static int64_t int_rem(int64_t a, int64_t b, bool u) {
  if (!b || b == -1) return u && b ? (int64_t)((uint64_t)a % (uint64_t)b) : 0;
  return u ? (int64_t)((uint64_t)a % (uint64_t)b) : a % b;
}

/* A shift count is taken as unsigned, so a negative one is also "the width or more": 0, or copies of the sign for >> of
 * a signed format. */
static int64_t shift_right(int64_t a, int64_t b, unsigned width, bool u) {
  bool far = (uint64_t)b >= width;
  if (u) return far ? 0 : (int64_t)((uint64_t)a >> b);
  return a >> (far ? 63 : b);
}

#define I1(name, e)                                                                                                    \
  case NY_S_##name:                                                                                                    \
    EACH(r[i].i = (int64_t)(e))
#define UN(x) ((uint64_t)(x)[i].i)
static void int_op(int op, ny_num *r, const ny_num *a, const ny_num *b, size_t n, unsigned width, bool u) {
  switch (op) {
    I1(add, UN(a) + UN(b));
    I1(sub, UN(a) - UN(b));
    I1(mul, UN(a) * UN(b));
    I1(div, int_div(a[i].i, b[i].i, u));
    I1(rem, int_rem(a[i].i, b[i].i, u));
    I1(neg, 0 - UN(a));
    I1(abs, !u && a[i].i < 0 ? 0 - UN(a) : UN(a));
    I1(and, UN(a) & UN(b));
    I1(or, UN(a) | UN(b));
    I1(xor, UN(a) ^ UN(b));
    I1(inv, ~UN(a));
    I1(shl, UN(b) < width ? UN(a) << UN(b) : 0);
    I1(shr, shift_right(a[i].i, b[i].i, width, u));
  default: EACH(r[i].i = 0);
  }
}
#undef I1

#define CMP(name, op)                                                                                                  \
  case NY_S_##name:                                                                                                    \
    if (c == NY_CLS_F) { EACH(r[i].i = a[i].f op b[i].f); }                                                            \
    if (c == NY_CLS_U) { EACH(r[i].i = UN(a) op UN(b)); }                                                              \
    EACH(r[i].i = a[i].i op b[i].i)
static void logic_op(int op, ny_num *r, const ny_num *a, const ny_num *b, size_t n, int c) {
  switch (op) {
    CMP(lt, <);
    CMP(le, <=);
    CMP(gt, >);
    CMP(ge, >=);
    CMP(eq, ==);
    CMP(ne, !=);
  case NY_S_land: EACH(r[i].i = a[i].i && b[i].i);
  case NY_S_lor: EACH(r[i].i = a[i].i || b[i].i);
  default: EACH(r[i].i = !a[i].i);
  }
}
#undef CMP

const ny_num *ny_ew_run(ny_ew *w, const ny_num *const *in, size_t n) {
  const ny_num *lane[128] = {0}; /* scalar.c bounds the nodes of a row */
  for (int k = 0; k < w->x->n; k++) {
    const ny_snode *s = &w->x->node[k];
    ny_num *r = w->lane + (size_t)k * NY_EW_CHUNK;
    lane[k] = s->op == NY_S_param ? in[s->a] : r;
    if (s->op == NY_S_param || s->op == NY_S_attr || s->op == NY_S_num) continue;
    const ny_num *a = lane[s->a], *b = lane[s->b], *c = lane[s->c];
    int cls = w->cls[s->a];
    if (s->op == NY_S_select) {
      for (size_t i = 0; i < n; i++) r[i] = a[i].i ? b[i] : c[i];
    } else if (is_logic(s->op)) {
      logic_op(s->op, r, a, b, n, cls);
    } else if (cls == NY_CLS_F) {
      float_op(s->op, r, a, b, n);
    } else {
      int_op(s->op, r, a, b, n, ny_fmts[w->t].bits, ny_fmts[w->t].kind == 'U');
      if (ny_fmts[w->t].bits < 64 && ny_fmts[w->t].kind != 'B') ny_wrap_n(w->t, &r->i, n);
    }
  }
  return lane[w->x->n - 1];
}

typedef struct operand {
  ny_fmt fmt;
  const void *data;
  enum { SAME, SPLAT, WALK } how;
  ny_nd it;
  ny_num lane[NY_EW_CHUNK];
} operand;

static void load(ny_fmt f, const void *p, uint64_t at, size_t n, ny_num *out) {
  if (ny_is_float(f))
    ny_load_f(f, p, at, n, &out->f);
  else
    ny_load_i(f, p, at, n, &out->i);
}

static void operand_init(operand *o, const ny_tensor *in, const ny_type *to) {
  o->fmt = (ny_fmt)in->type->fmt, o->data = in->data;
  ny_nd_init(&o->it, to->rank, to->dim, 1);
  ny_bcast_strides(in->type, to->rank, o->it.step[0]);
  int64_t n = ny_count(in->type);
  o->how = n == ny_count(to) ? SAME : n == 1 ? SPLAT : WALK;
  if (o->how == SPLAT) {
    load(o->fmt, o->data, 0, 1, o->lane);
    splat(o->lane, o->lane[0]);
  }
}

static void operand_fill(operand *o, int64_t at, size_t n) {
  if (o->how == SAME) load(o->fmt, o->data, (uint64_t)at, n, o->lane);
  if (o->how != WALK) return;
  for (size_t i = 0; i < n; i++, ny_nd_next(&o->it)) load(o->fmt, o->data, (uint64_t)o->it.at[0], 1, &o->lane[i]);
}

nyb_status ny_ev_map(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  const ny_type *to = out->type;
  int64_t count = ny_count(to);
  if (!count) return NYB_OK;
  operand *o = ny_ev_tmp(ev, op, op->n_in, sizeof *o);
  void *room = ny_ev_tmp(ev, op, ny_ew_room(op), 1);
  if (!o || !room) return ev->cx->diag.code;
  const ny_num *lane[3] = {0};
  ny_fmt fmt[3] = {NY_none, NY_none, NY_none};
  for (int i = 0; i < op->n_in; i++) {
    NY_TRY(ny_ev_fits(ev, op, in[i].type, to));
    operand_init(&o[i], &in[i], to);
    lane[i] = o[i].lane;
    fmt[i] = o[i].fmt;
  }
  ny_ew w;
  ny_ew_init(&w, op, fmt, room);
  for (int64_t at = 0; at < count; at += NY_EW_CHUNK) {
    size_t n = count - at < NY_EW_CHUNK ? (size_t)(count - at) : NY_EW_CHUNK;
    for (int i = 0; i < op->n_in; i++) operand_fill(&o[i], at, n);
    const ny_num *r = ny_ew_run(&w, lane, n);
    if (ny_is_float((ny_fmt)to->fmt))
      ny_store_f((ny_fmt)to->fmt, out->data, (uint64_t)at, n, &r->f);
    else
      ny_store_i((ny_fmt)to->fmt, out->data, (uint64_t)at, n, &r->i);
  }
  return NYB_OK;
}

/* Integers reach a float in one rounding even from 64 bits; see ny_i_to_f and ny_f_to_i. */
nyb_status ny_ev_cast(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  (void)ev;
  ny_fmt from = (ny_fmt)in->type->fmt, to = (ny_fmt)out->type->fmt;
  bool saturate =
      op->attr[NY_AT(cast, saturate)].i != 0 && ny_fmts[to].bits <= 8; /* wider formats overflow to infinity */
  int64_t count = ny_count(out->type);
  for (int64_t at = 0; at < count; at += NY_EW_CHUNK) {
    ny_num x[NY_EW_CHUNK];
    size_t n = count - at < NY_EW_CHUNK ? (size_t)(count - at) : NY_EW_CHUNK;
    load(from, in->data, (uint64_t)at, n, x);
    for (size_t i = 0; i < n; i++) {
      if (ny_is_float(to))
        ny_put_f(to, out->data, (uint64_t)at + i, ny_is_float(from) ? x[i].f : ny_i_to_f(from, x[i].i, to), saturate);
      else
        ny_put_i(to, out->data, (uint64_t)at + i,
                 ny_is_float(from) ? ny_f_to_i(to, x[i].f)
                 : to == NY_bool   ? x[i].i != 0
                                   : x[i].i);
    }
  }
  return NYB_OK;
}
