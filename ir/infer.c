/* Result types: shared helpers, structure, views, generators and conversions. What can be proven wrong is rejected;
   sizes that are symbols and cannot be shown unequal are accepted, and evaluation checks them. */
#include <stdarg.h>
#include <string.h>

#include "infer.h"

const char *const ny_reduce_ops[4] = {"sum", "prod", "max", "min"};
const char *const ny_scatter_ops[5] = {"set", "sum", "prod", "max", "min"};

const ny_type *ny_bad_type(ny_graph *g, const ny_op *op, const char *fmt, ...) {
  char s[900];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(s, sizeof s, fmt, ap);
  va_end(ap);
  ny_fail(&g->cx->diag, NYB_E_TYPE, op->loc, "%s: %s", NY_NAME_OF(op), s);
  return NULL;
}

static const char *keep(ny_graph *g, ny_text *t) {
  const char *s = ny_strndup(&g->arena, t->s ? t->s : "", t->n < 200 ? t->n : 200);
  ny_text_free(t);
  return s;
}

const char *ny_dim_str(ny_graph *g, ny_dim d) {
  ny_text t = {0};
  ny_dim_print(g->cx, d, &t);
  return keep(g, &t);
}

const char *ny_type_str(ny_graph *g, const ny_type *ty) {
  ny_text t = {0};
  if (ty)
    ny_type_print(g->cx, ty, &t);
  else
    ny_text_add(&t, "no type");
  return keep(g, &t);
}

int ny_axis_of(ny_graph *g, const ny_op *op, int64_t axis, int rank) {
  if (axis >= -rank && axis < rank) return (int)(axis < 0 ? axis + rank : axis);
  ny_bad_type(g, op, "axis %lld is outside a tensor of rank %d", (long long)axis, rank);
  return -1;
}

bool ny_may_equal(ny_ctx *cx, ny_dim a, ny_dim b) {
  if (a == b) return true;
  ny_dim d = ny_dim_sub(cx, a, b);
  int64_t lo = -1, hi = 1;
  if (d != NY_DIM_INVALID) ny_dim_bounds(cx, d, &lo, &hi);
  bool may = lo <= 0 && hi >= 0;
  if (may && lo < hi && cx->assumed) cx->assumed(cx->assumed_user, a, b);
  return may;
}

bool ny_is_choice(ny_graph *g, const ny_op *op, ny_name value, const char *const *choices, int n) {
  for (int i = 0; i < n; i++)
    if (value && !strcmp(value, choices[i])) return true;
  ny_bad_type(g, op, "\"%s\" is not one of its modes", value ? value : "");
  return false;
}

const ny_type *ny_result(ny_graph *g, const ny_op *op, ny_fmt fmt, int rank, const ny_dim *dims) {
  if (rank > NY_MAX_RANK)
    return ny_bad_type(g, op, "the result has %d dimensions; at most %d are supported", rank, NY_MAX_RANK);
  for (int i = 0; i < rank; i++) {
    int64_t lo, hi;
    if (dims[i] == NY_DIM_INVALID) return ny_bad_type(g, op, "the size of result dimension %d overflows", i);
    ny_dim_bounds(g->cx, dims[i], &lo, &hi);
    if (hi < 0) return ny_bad_type(g, op, "result dimension %d has the negative size %s", i, ny_dim_str(g, dims[i]));
  }
  return ny_tensor_type(g->cx, fmt, rank, dims);
}

static const ny_type *declared(const ny_op *op, int out) { return op->out[out]->type; }

static const ny_type *need_declared(ny_graph *g, const ny_op *op, int out) {
  const ny_type *t = declared(op, out);
  return t ? ny_result(g, op, (ny_fmt)t->fmt, t->rank, t->dim) : ny_bad_type(g, op, "the result type must be declared");
}

const ny_type *ny_infer_const(ny_graph *g, ny_op *op, int out) {
  const ny_type *t = declared(op, out);
  const ny_blob *b = op->attr[NY_AT(const, data)].blob;
  int64_t n;
  if (!t || !ny_type_static_count(g->cx, t, &n) || n < 0 || t->space != NY_VALUE)
    return ny_bad_type(g, op, "%s is not the type of a constant", ny_type_str(g, t));
  if (ny_fmts[t->fmt].kind == 'S') return ny_bad_type(g, op, "string constants are not supported");
  uint64_t bytes = ny_fmt_bytes((ny_fmt)t->fmt, (uint64_t)n);
  if (bytes > INT64_MAX) return ny_bad_type(g, op, "%s is too large", ny_type_str(g, t));
  if (b && b->bytes != bytes)
    return ny_bad_type(g, op, "%s needs %llu bytes, the data has %llu", ny_type_str(g, t), (unsigned long long)bytes,
                       (unsigned long long)b->bytes);
  return t;
}

const ny_type *ny_infer_dims(ny_graph *g, ny_op *op, int out) {
  ny_attr *v = &op->attr[NY_AT(dims, v)];
  bool scalar = declared(op, out) && declared(op, out)->rank == 0;
  if (scalar && v->dims.n != 1) return ny_bad_type(g, op, "rank 0 holds one expression, not %u", v->dims.n);
  ny_dim n = v->dims.n;
  return ny_tensor_type(g->cx, NY_i64, scalar ? 0 : 1, &n);
}

static const ny_op *yield_of(const ny_op *op, int body) {
  const ny_op *last = op->body[body]->last;
  return last && last->kind == NY_yield ? last : NULL;
}

static const ny_type *yielded(ny_graph *g, const ny_op *op, int body, int i) {
  const ny_op *y = yield_of(op, body);
  if (!y) return ny_bad_type(g, op, "body %d does not end in yield", body);
  if (i >= y->n_in) return ny_bad_type(g, op, "body %d yields %d values, result %d needs one more", body, y->n_in, i);
  return ny_in(y, i)->type;
}

static bool is_type(const ny_type *t, ny_fmt fmt, int rank) {
  return t->fmt == fmt && t->rank == rank && t->space == NY_VALUE;
}

const ny_type *ny_infer_if(ny_graph *g, ny_op *op, int out) {
  if (!is_type(ny_in(op, 0)->type, NY_bool, 0))
    return ny_bad_type(g, op, "the condition is %s, not bool[]", ny_type_str(g, ny_in(op, 0)->type));
  if (op->body[0]->n_arg || op->body[1]->n_arg) return ny_bad_type(g, op, "its bodies take no arguments");
  const ny_type *a = yielded(g, op, 0, out), *b = a ? yielded(g, op, 1, out) : NULL;
  if (b && a != b)
    return ny_bad_type(g, op, "result %d is %s in one body and %s in the other", out, ny_type_str(g, a),
                       ny_type_str(g, b));
  return b;
}

static const ny_type *check_loop(ny_graph *g, ny_op *op) {
  const ny_block *b = op->body[0];
  bool cond = op->attr[NY_AT(loop, cond)].i != 0;
  if (b->n_arg != op->n_in + 1u || !is_type(b->arg[0]->type, NY_i64, 0))
    return ny_bad_type(g, op, "the body has %u arguments; it takes the iteration as i64[] and %d carried values",
                       b->n_arg, op->n_in);
  for (int i = 0; i < op->n_in; i++)
    if (b->arg[i + 1]->type != ny_in(op, i)->type)
      return ny_bad_type(g, op, "carried value %d is %s outside and %s in the body", i,
                         ny_type_str(g, ny_in(op, i)->type), ny_type_str(g, b->arg[i + 1]->type));
  if (op->n_out < op->n_in) return ny_bad_type(g, op, "%d results for %d carried values", op->n_out, op->n_in);
  if (cond && (!op->n_in || !is_type(ny_in(op, 0)->type, NY_bool, 0)))
    return ny_bad_type(g, op, "with cond=1 the first carried value is bool[]");
  if (cond && op->n_out != op->n_in) return ny_bad_type(g, op, "with cond=1 there are no stacked results");
  return b->arg[0]->type;
}

const ny_type *ny_infer_loop(ny_graph *g, ny_op *op, int out) {
  if (!check_loop(g, op)) return NULL;
  const ny_type *t = yielded(g, op, 0, out);
  if (!t) return NULL;
  if (out < op->n_in) {
    const ny_type *in = ny_in(op, out)->type;
    if (t == in) return t;
    return ny_bad_type(g, op, "carried value %d starts as %s and is yielded as %s", out, ny_type_str(g, in),
                       ny_type_str(g, t));
  }
  ny_dim d[NY_MAX_RANK + 1] = {op->attr[NY_AT(loop, trip)].d};
  for (int i = 0; i < t->rank; i++) d[i + 1] = t->dim[i];
  return ny_result(g, op, (ny_fmt)t->fmt, t->rank + 1, d);
}

const ny_type *ny_infer_group(ny_graph *g, ny_op *op, int out) {
  const ny_block *b = op->body[0];
  if (b->n_arg != op->n_in) return ny_bad_type(g, op, "%d inputs for %u body arguments", op->n_in, b->n_arg);
  for (int i = 0; i < op->n_in; i++)
    if (b->arg[i]->type != ny_in(op, i)->type)
      return ny_bad_type(g, op, "input %d is %s outside and %s in the body", i, ny_type_str(g, ny_in(op, i)->type),
                         ny_type_str(g, b->arg[i]->type));
  return yielded(g, op, 0, out);
}

const ny_type *ny_infer_reshape(ny_graph *g, ny_op *op, int out) {
  const ny_type *x = ny_in(op, 0)->type, *t = need_declared(g, op, out);
  if (!t) return NULL;
  ny_dim a = ny_type_count(g->cx, x), b = ny_type_count(g->cx, t);
  if (!ny_may_equal(g->cx, a, b))
    return ny_bad_type(g, op, "%s elements do not fit %s", ny_dim_str(g, a), ny_type_str(g, t));
  return ny_type_with_fmt(g->cx, t, (ny_fmt)x->fmt);
}

const ny_type *ny_infer_transpose(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = ny_in(op, 0)->type;
  const ny_attr *perm = &op->attr[NY_AT(transpose, perm)];
  ny_type t = *x;
  unsigned seen = 0;
  if (perm->dims.n != x->rank) return ny_bad_type(g, op, "perm has %u entries for rank %d", perm->dims.n, x->rank);
  for (int i = 0; i < x->rank; i++) {
    int64_t p;
    if (!ny_dim_is_const(g->cx, perm->dims.v[i], &p) || p < 0 || p >= x->rank || (seen >> p & 1))
      return ny_bad_type(g, op, "perm is not a permutation of 0..%d", x->rank - 1);
    seen |= 1u << p;
    t.dim[i] = x->dim[p];
  }
  return ny_type_get(g->cx, t);
}

const ny_type *ny_infer_broadcast(ny_graph *g, ny_op *op, int out) {
  const ny_type *x = ny_in(op, 0)->type, *t = need_declared(g, op, out);
  if (!t) return NULL;
  int shift = t->rank - x->rank;
  if (shift < 0) return ny_bad_type(g, op, "%s does not broadcast to rank %d", ny_type_str(g, x), t->rank);
  for (int i = 0; i < x->rank; i++)
    if (x->dim[i] != 1 && !ny_may_equal(g->cx, x->dim[i], t->dim[i + shift]))
      return ny_bad_type(g, op, "%s does not broadcast to %s", ny_type_str(g, x), ny_type_str(g, t));
  return ny_type_with_fmt(g->cx, t, (ny_fmt)x->fmt);
}

/* Provably below lo or provably above hi. */
static bool out_of(ny_ctx *cx, ny_dim v, ny_dim lo, ny_dim hi) {
  int64_t a, b, c, e;
  ny_dim below = ny_dim_sub(cx, v, lo), above = ny_dim_sub(cx, hi, v);
  if (below == NY_DIM_INVALID || above == NY_DIM_INVALID) return true;
  ny_dim_bounds(cx, below, &a, &b);
  ny_dim_bounds(cx, above, &c, &e);
  return b < 0 || e < 0;
}

const ny_type *ny_infer_slice(ny_graph *g, ny_op *op, int out) {
  ny_ctx *cx = g->cx;
  const ny_type *x = ny_in(op, 0)->type, *t = need_declared(g, op, out);
  const ny_attr *start = &op->attr[NY_AT(slice, start)], *step = &op->attr[NY_AT(slice, step)];
  if (!t) return NULL;
  if (t->rank != x->rank || start->dims.n != x->rank || (step->dims.n && step->dims.n != x->rank))
    return ny_bad_type(g, op, "rank %d, %u starts and %u steps for rank %d", t->rank, start->dims.n, step->dims.n,
                       x->rank);
  for (int i = 0; i < x->rank; i++) {
    ny_dim s = start->dims.v[i], by = step->dims.n ? step->dims.v[i] : 1, n = t->dim[i];
    if (by == 0) return ny_bad_type(g, op, "step %d is 0", i);
    int64_t lo, hi;
    ny_dim_bounds(cx, n, &lo, &hi);
    if (lo < 1) continue; /* may be empty: nothing is read */
    ny_dim last = ny_dim_add(cx, s, ny_dim_mul(cx, ny_dim_sub(cx, n, 1), by)), end = ny_dim_sub(cx, x->dim[i], 1);
    if (out_of(cx, s, 0, end) || out_of(cx, last, 0, end))
      return ny_bad_type(g, op, "dimension %d of size %s is read from %s to %s", i, ny_dim_str(g, x->dim[i]),
                         ny_dim_str(g, s), ny_dim_str(g, last));
  }
  return ny_type_with_fmt(cx, t, (ny_fmt)x->fmt);
}

const ny_type *ny_infer_cast(ny_graph *g, ny_op *op, int out) {
  const ny_type *x = ny_in(op, 0)->type, *t = declared(op, out);
  ny_fmt to = t ? (ny_fmt)t->fmt : NY_none;
  if (to == NY_none || ny_fmts[to].kind == 'S' || ny_fmts[x->fmt].kind == 'S')
    return ny_bad_type(g, op, "%s does not convert to %s", ny_type_str(g, x), ny_type_str(g, t));
  return ny_type_with_fmt(g->cx, x, to);
}

const ny_type *ny_infer_bitcast(ny_graph *g, ny_op *op, int out) {
  const ny_type *x = ny_in(op, 0)->type, *t = declared(op, out);
  if (!t || ny_fmts[t->fmt].bits != ny_fmts[x->fmt].bits || !ny_fmts[t->fmt].bits)
    return ny_bad_type(g, op, "%s and %s differ in width", ny_type_str(g, x), ny_type_str(g, t));
  return ny_type_with_fmt(g->cx, x, (ny_fmt)t->fmt);
}

const ny_type *ny_infer_iota(ny_graph *g, ny_op *op, int out) {
  const ny_type *t = need_declared(g, op, out);
  if (!t || ny_axis_of(g, op, op->attr[NY_AT(iota, axis)].i, t->rank) < 0) return NULL;
  if (!ny_is_float((ny_fmt)t->fmt) && !ny_is_int((ny_fmt)t->fmt))
    return ny_bad_type(g, op, "%s is not a numeric format", ny_fmts[t->fmt].name);
  return t;
}

const ny_type *ny_infer_random(ny_graph *g, ny_op *op, int out) {
  static const char *const kinds[] = {"uniform", "normal"};
  const ny_type *t = need_declared(g, op, out);
  if (!t || !ny_is_choice(g, op, op->attr[NY_AT(random, dist)].s, kinds, 2)) return NULL;
  return ny_is_float((ny_fmt)t->fmt) ? t : ny_bad_type(g, op, "%s is not a float format", ny_fmts[t->fmt].name);
}

/* A body may never be reached: what is wrong there is for evaluation to find. */
const ny_type *ny_infer_require(ny_graph *g, ny_op *op, int out) {
  (void)out;
  ny_dim a = op->attr[NY_AT(require, a)].d, b = op->attr[NY_AT(require, b)].d;
  if (op->parent->parent || ny_may_equal(g->cx, a, b)) return ny_tensor_type(g->cx, NY_bool, 0, NULL);
  ny_name text = op->attr[NY_AT(require, text)].s;
  ny_fail(&g->cx->diag, NYB_E_SHAPE, op->loc, "%s: %s and %s must be equal", text ? text : "sizes", ny_dim_str(g, a),
          ny_dim_str(g, b));
  return NULL;
}

nyb_status ny_infer_op(ny_graph *g, ny_op *op) {
  ny_infer_fn *infer = ny_kinds[op->kind].infer;
  if (!infer) return NYB_OK;
  if (!op->n_out) return infer(g, op, 0) ? NYB_OK : g->cx->diag.code;
  for (int i = 0; i < op->n_out; i++) {
    const ny_type *t = infer(g, op, i);
    if (!t) return g->cx->diag.code;
    op->out[i]->type = t;
  }
  return NYB_OK;
}
