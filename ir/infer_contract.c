/* Result types of windows and contractions, and of elementwise ops at both levels. */
#include <string.h>

#include "infer.h"

static const ny_type *in_type(const ny_op *op, int i) { return ny_in(op, i)->type; }
static ny_dim entry(const ny_attr *list, int i) { return list->dims.n ? list->dims.v[i] : 1; }

/* (in - (dilation*(k-1) + 1)) / stride + 1; NY_DIM_INVALID after ny_bad_type. */
static ny_dim window_size(ny_graph *g, const ny_op *op, ny_dim in, ny_dim k, ny_dim stride, ny_dim dilation) {
  ny_ctx *cx = g->cx;
  int64_t kv, sv, dv, lo, hi;
  if (!ny_dim_is_const(cx, k, &kv) || !ny_dim_is_const(cx, stride, &sv) || !ny_dim_is_const(cx, dilation, &dv) ||
      kv < 1 || sv < 1 || dv < 1) {
    ny_bad_type(g, op, "window %s, stride %s and dilation %s must be numbers from 1", ny_dim_str(g, k),
                ny_dim_str(g, stride), ny_dim_str(g, dilation));
    return NY_DIM_INVALID;
  }
  ny_dim span = ny_dim_add(cx, ny_dim_mul(cx, dilation, ny_dim_sub(cx, k, 1)), 1), room = ny_dim_sub(cx, in, span);
  if (room != NY_DIM_INVALID) {
    ny_dim_bounds(cx, room, &lo, &hi);
    if (hi < 0) room = NY_DIM_INVALID;
  }
  if (room == NY_DIM_INVALID) {
    ny_bad_type(g, op, "a window of %s does not fit size %s", ny_dim_str(g, span), ny_dim_str(g, in));
    return room;
  }
  return ny_dim_add(cx, ny_dim_div(cx, room, stride), 1);
}

const ny_type *ny_infer_window(ny_graph *g, ny_op *op, int out) {
  (void)out;
  static const char *const kinds[] = {"max", "sum"};
  const ny_type *x = in_type(op, 0);
  const ny_attr *size = &op->attr[NY_AT(window, size)], *stride = &op->attr[NY_AT(window, stride)],
                *dilation = &op->attr[NY_AT(window, dilation)];
  if (!ny_is_choice(g, op, op->attr[NY_AT(window, op)].s, kinds, 2)) return NULL;
  if (!ny_is_float((ny_fmt)x->fmt) && !ny_is_int((ny_fmt)x->fmt))
    return ny_bad_type(g, op, "%s is not a numeric format", ny_fmts[x->fmt].name);
  if (size->dims.n != x->rank || (stride->dims.n && stride->dims.n != x->rank) ||
      (dilation->dims.n && dilation->dims.n != x->rank))
    return ny_bad_type(g, op, "size, stride and dilation have %u, %u and %u entries for rank %d", size->dims.n,
                       stride->dims.n, dilation->dims.n, x->rank);
  ny_dim d[NY_MAX_RANK];
  for (int i = 0; i < x->rank; i++) {
    d[i] = window_size(g, op, x->dim[i], entry(size, i), entry(stride, i), entry(dilation, i));
    if (d[i] == NY_DIM_INVALID) return NULL;
  }
  return ny_result(g, op, (ny_fmt)x->fmt, x->rank, d);
}

/* Floats contract to a float format (as declared, else the left operand's), integers to 32 or 64
 * bits. */
static ny_fmt contract_format(ny_graph *g, const ny_op *op, const ny_type *x, const ny_type *y,
                              const ny_type *declared) {
  ny_fmt a = (ny_fmt)x->fmt, b = (ny_fmt)y->fmt, d = declared ? (ny_fmt)declared->fmt : NY_none;
  bool floats = ny_is_float(a) && ny_is_float(b), ints = ny_is_int(a) && ny_is_int(b);
  if (!floats && !ints) {
    ny_bad_type(g, op, "%s and %s do not multiply", ny_type_str(g, x), ny_type_str(g, y));
    return NY_none;
  }
  if (floats) return ny_is_float(d) ? d : a;
  if (ny_is_int(d) && ny_fmts[d].bits >= 32) return d;
  return ny_fmts[a].bits >= 32 ? a : NY_i32;
}

static bool equal_or_fail(ny_graph *g, const ny_op *op, const char *what, ny_dim a, ny_dim b) {
  if (ny_may_equal(g->cx, a, b)) return true;
  ny_bad_type(g, op, "%s are %s and %s", what, ny_dim_str(g, a), ny_dim_str(g, b));
  return false;
}

/* The width of a packed panel, or 0; -1 after ny_bad_type. */
static int64_t panel(ny_graph *g, const ny_op *op, int64_t p) {
  if (p >= 0 && p <= 1 << 20) return p;
  ny_bad_type(g, op, "packed=%lld is not a panel width", (long long)p);
  return -1;
}

/* y by rows: [n, k filled up]. */
static const ny_type *turned_matmul(ny_graph *g, ny_op *op, const ny_type *x, const ny_type *y, ny_fmt f) {
  if (x->rank < 2 || y->rank != 2)
    return ny_bad_type(g, op, "operands %s and %s with packed=-1", ny_type_str(g, x), ny_type_str(g, y));
  ny_dim up = ny_dim_mul(g->cx, ny_dim_ceildiv(g->cx, x->dim[x->rank - 1], 32), 32);
  if (!equal_or_fail(g, op, "filled up inner dimensions", up, y->dim[1])) return NULL;
  ny_dim d[NY_MAX_RANK];
  memcpy(d, x->dim, sizeof d);
  d[x->rank - 1] = y->dim[0];
  return ny_result(g, op, f, x->rank, d);
}

static const ny_type *packed_matmul(ny_graph *g, ny_op *op, const ny_type *x, const ny_type *y, int64_t p, ny_fmt f) {
  const ny_type *t = op->out[0]->type;
  if (x->rank < 2 || y->rank != 3 || !t || t->rank != x->rank)
    return ny_bad_type(g, op, "packed operands %s and %s", ny_type_str(g, x), ny_type_str(g, y));
  ny_dim n = t->dim[t->rank - 1];
  if (!equal_or_fail(g, op, "inner dimensions", x->dim[x->rank - 1], y->dim[1]) ||
      !equal_or_fail(g, op, "panel widths", y->dim[2], p) ||
      !equal_or_fail(g, op, "panel counts", y->dim[0], ny_dim_ceildiv(g->cx, n, p)))
    return NULL;
  ny_dim d[NY_MAX_RANK];
  memcpy(d, x->dim, sizeof d);
  d[x->rank - 1] = n;
  return ny_result(g, op, f, x->rank, d);
}

const ny_type *ny_infer_matmul(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0), *y = in_type(op, 1);
  ny_fmt f = contract_format(g, op, x, y, op->out[0]->type);
  bool turned = op->attr[NY_AT(matmul, packed)].i == -1;
  int64_t p = turned ? 0 : panel(g, op, op->attr[NY_AT(matmul, packed)].i);
  if (f == NY_none || p < 0) return NULL;
  if (turned) return turned_matmul(g, op, x, y, f);
  if (p) return packed_matmul(g, op, x, y, p, f);
  if (x->rank < 2 || y->rank < 2) return ny_bad_type(g, op, "operands of rank %d and %d", x->rank, y->rank);
  if (!equal_or_fail(g, op, "inner dimensions", x->dim[x->rank - 1], y->dim[y->rank - 2])) return NULL;
  ny_type bx = *x, by = *y;
  bx.rank = (uint8_t)(x->rank - 2);
  by.rank = (uint8_t)(y->rank - 2);
  ny_dim d[NY_MAX_RANK];
  int rank;
  if (!ny_broadcast_shape(g->cx, &bx, &by, &rank, d))
    return ny_bad_type(g, op, "batch dimensions of %s and %s do not match", ny_type_str(g, x), ny_type_str(g, y));
  d[rank] = x->dim[x->rank - 2];
  d[rank + 1] = y->dim[y->rank - 1];
  return ny_result(g, op, f, rank + 2, d);
}

/* Checks w of a conv against x and gives the number of result channels; NY_DIM_INVALID after ny_bad_type. */
static ny_dim conv_channels(ny_graph *g, ny_op *op, const ny_attr *kernel, int64_t group, int64_t p) {
  ny_ctx *cx = g->cx;
  const ny_type *x = in_type(op, 0), *w = in_type(op, 1), *t = op->out[0]->type;
  int spatial = x->rank - 2;
  ny_dim c = ny_dim_div(cx, x->dim[x->rank - 1], group), taps = c, m;
  for (int i = 0; i < spatial; i++) taps = ny_dim_mul(cx, taps, kernel->dims.v[i]);
  bool ok = ny_may_equal(cx, ny_dim_mul(cx, c, group), x->dim[x->rank - 1]);
  if (p) {
    m = t && t->rank == x->rank ? t->dim[x->rank - 1] : NY_DIM_INVALID;
    ok = ok && w->rank == 4 && m != NY_DIM_INVALID && ny_may_equal(cx, w->dim[0], group) &&
         ny_may_equal(cx, w->dim[3], p) && ny_may_equal(cx, w->dim[2], taps) &&
         ny_may_equal(cx, w->dim[1], ny_dim_ceildiv(cx, ny_dim_div(cx, m, group), p));
  } else {
    ok = ok && w->rank == x->rank && ny_may_equal(cx, w->dim[spatial], c);
    m = ok ? w->dim[spatial + 1] : NY_DIM_INVALID;
    for (int i = 0; ok && i < spatial; i++) ok = ny_may_equal(cx, w->dim[i], kernel->dims.v[i]);
  }
  ok = ok && ny_may_equal(cx, ny_dim_mul(cx, ny_dim_div(cx, m, group), group), m);
  if (ok) return m;
  ny_bad_type(g, op, "weights %s do not fit %s in %lld groups", ny_type_str(g, w), ny_type_str(g, x), (long long)group);
  return NY_DIM_INVALID;
}

const ny_type *ny_infer_conv(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *x = in_type(op, 0), *w = in_type(op, 1);
  const ny_attr *kernel = &op->attr[NY_AT(conv, kernel)], *stride = &op->attr[NY_AT(conv, stride)],
                *dilation = &op->attr[NY_AT(conv, dilation)];
  int64_t p = panel(g, op, op->attr[NY_AT(conv, packed)].i), group = op->attr[NY_AT(conv, group)].i;
  ny_fmt f = contract_format(g, op, x, w, op->out[0]->type);
  uint32_t spatial = x->rank >= 2 ? x->rank - 2u : 0;
  if (p < 0 || f == NY_none) return NULL;
  if (x->rank < 2 || kernel->dims.n != spatial || (stride->dims.n && stride->dims.n != spatial) ||
      (dilation->dims.n && dilation->dims.n != spatial))
    return ny_bad_type(g, op, "kernel, stride and dilation have %u, %u and %u entries for input %s", kernel->dims.n,
                       stride->dims.n, dilation->dims.n, ny_type_str(g, x));
  if (group < 1) return ny_bad_type(g, op, "group is %lld", (long long)group);
  ny_dim m = conv_channels(g, op, kernel, group, p), d[NY_MAX_RANK] = {x->dim[0]};
  if (m == NY_DIM_INVALID) return NULL;
  for (uint32_t i = 0; i < spatial; i++) {
    d[i + 1] = window_size(g, op, x->dim[i + 1], kernel->dims.v[i], entry(stride, (int)i), entry(dilation, (int)i));
    if (d[i + 1] == NY_DIM_INVALID) return NULL;
  }
  d[spatial + 1] = m;
  return ny_result(g, op, f, x->rank, d);
}

const ny_type *ny_infer_attention(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *q = in_type(op, 0), *k = in_type(op, 1), *v = in_type(op, 2);
  if (q->rank != 4 || k->rank != 4 || v->rank != 4 || !ny_is_float((ny_fmt)q->fmt) || k->fmt != q->fmt ||
      v->fmt != q->fmt)
    return ny_bad_type(g, op, "q, k and v are %s, %s and %s", ny_type_str(g, q), ny_type_str(g, k), ny_type_str(g, v));
  for (int i = 0; i < 2; i++)
    if (!equal_or_fail(g, op, "leading dimensions of q and k", q->dim[i], k->dim[i]) ||
        !equal_or_fail(g, op, "leading dimensions of k and v", k->dim[i], v->dim[i]))
      return NULL;
  if (!equal_or_fail(g, op, "depths of q and k", q->dim[3], k->dim[3]) ||
      !equal_or_fail(g, op, "lengths of k and v", k->dim[2], v->dim[2]))
    return NULL;
  if (op->n_in > 3) {
    const ny_type *mask = in_type(op, 3);
    const ny_dim scores[4] = {q->dim[0], q->dim[1], q->dim[2], k->dim[2]};
    bool ok = mask->rank <= 4 && ny_is_float((ny_fmt)mask->fmt);
    for (int i = 0; ok && i < mask->rank; i++)
      ok = mask->dim[i] == 1 || ny_may_equal(g->cx, mask->dim[i], scores[4 - mask->rank + i]);
    if (!ok) return ny_bad_type(g, op, "mask %s does not broadcast to the scores", ny_type_str(g, mask));
  }
  const ny_dim d[4] = {q->dim[0], q->dim[1], q->dim[2], v->dim[3]};
  return ny_result(g, op, (ny_fmt)q->fmt, 4, d);
}

static bool ew_takes(ny_ew_types types, ny_fmt f) {
  bool fl = ny_is_float(f), in = ny_is_int(f), bo = ny_fmts[f].kind == 'B';
  static const uint8_t takes[] = {[NY_EW_ARITH] = 3, [NY_EW_FLOAT] = 1, [NY_EW_INT] = 2,  [NY_EW_BITS] = 6,
                                  [NY_EW_BOOL] = 4,  [NY_EW_CMP] = 7,   [NY_EW_TEST] = 1, [NY_EW_SELECT] = 7};
  return takes[types] & (fl * 1 | in * 2 | bo * 4);
}

const ny_type *ny_infer_ew(ny_graph *g, ny_op *op, int out) {
  (void)out;
  ny_ew_types types = (ny_ew_types)ny_kinds[op->kind].ew;
  int first = types == NY_EW_SELECT;
  ny_fmt f = (ny_fmt)in_type(op, first)->fmt;
  if (first && in_type(op, 0)->fmt != NY_bool)
    return ny_bad_type(g, op, "the condition is %s, not bool", ny_type_str(g, in_type(op, 0)));
  if (!ew_takes(types, f)) return ny_bad_type(g, op, "not defined for %s", ny_type_str(g, in_type(op, first)));
  ny_type t = *in_type(op, 0);
  for (int i = 0; i < op->n_in; i++) {
    const ny_type *x = in_type(op, i);
    ny_dim d[NY_MAX_RANK];
    int rank;
    if (x->space != NY_VALUE) return ny_bad_type(g, op, "input %d is the buffer %s: load it", i, ny_type_str(g, x));
    if (i >= first && x->fmt != f)
      return ny_bad_type(g, op, "operands are %s and %s", ny_fmts[f].name, ny_fmts[x->fmt].name);
    if (!ny_broadcast_shape(g->cx, &t, x, &rank, d))
      return ny_bad_type(g, op, "shapes %s and %s cannot be shown to match", ny_type_str(g, in_type(op, 0)),
                         ny_type_str(g, x));
    t.rank = (uint8_t)rank;
    memcpy(t.dim, d, sizeof *d * (size_t)rank);
  }
  bool test = types == NY_EW_CMP || types == NY_EW_TEST;
  return ny_result(g, op, test ? NY_bool : f, t.rank, t.dim);
}
