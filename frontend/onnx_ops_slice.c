/* Slice and Pad: the operators whose integers need arithmetic. Bounds that are symbolic are clamped as expressions. A
   size that an earlier attempt assumed (say min(?S,512) where everything else has ?S) is read through a gather, whose
   indices are clamped: right where the assumption holds, which is required, in bounds where it does not. */
#include <string.h>
#include "onnx.h"
#include "onnx_import.h"

typedef struct cut {          /* one axis */
  ny_dim start, count, exact; /* exact: before an assumption replaced it */
  int64_t step;
} cut;

/* A bound counted from the end: a negative constant, or an expression that is negative for sizes of one and of a
 * thousand. */
static bool from_end(ny_node *n, ny_dim v) {
  int64_t c, lo, hi;
  if (ny_dim_is_const(n->cx, v, &c)) return c < 0;
  ny_name *sym = NULL;
  size_t k = 0, cap = 0;
  ny_dim_symbols(n->cx, v, &sym, &k, &cap, n->tmp);
  ny_binding *env = NY_NEW_ARRAY(n->tmp, ny_binding, k + 1);
  for (size_t i = 0; i < k; i++) env[i] = (ny_binding){sym[i], 1};
  bool one = ny_dim_eval(n->cx, v, env, k, &lo);
  for (size_t i = 0; i < k; i++) env[i].value = 1000;
  return one && ny_dim_eval(n->cx, v, env, k, &hi) && lo < 0 && hi < 0;
}

static ny_dim absolute(ny_node *n, ny_dim v, ny_dim size, int64_t least) {
  int64_t c;
  if (!from_end(n, v)) {
    ny_require_least(n, v, 0, "a bound that does not count from the end");
    return v;
  }
  ny_require_least(n, ny_dim_sub(n->cx, ny_dim_const(n->cx, -1), v), 0, "a bound that counts from the end");
  if (ny_dim_is_const(n->cx, v, &c) && c < -(INT64_C(1) << 40)) return ny_dim_const(n->cx, least);
  return ny_dim_max(n->cx, ny_dim_add(n->cx, v, size), ny_dim_const(n->cx, least));
}

static ny_dim upper(ny_node *n, ny_dim v, ny_dim limit) {
  int64_t c;
  if (ny_dim_is_const(n->cx, v, &c) && c > (INT64_C(1) << 40)) return limit;
  return ny_dim_min(n->cx, v, limit);
}

static cut cut_axis(ny_node *n, ny_dim size, ny_dim start, ny_dim end, int64_t step) {
  ny_ctx *cx = n->cx;
  cut c = {.step = step};
  if (step > 0) {
    int64_t last;
    ny_dim e = upper(n, absolute(n, end, size, 0), size);
    if (e == size && step == 1 && ny_dim_is_const(cx, start, &last) && last < 0 && last > -(INT64_C(1) << 40)) {
      c.count =
          ny_dim_min(cx, size, -last); /* the last so many: the same numbers, spelled so that they can be assumed */
      c.start = ny_dim_sub(cx, size, ny_assumed(n->im, c.count));
    } else {
      c.start = absolute(n, start, size, 0);
      c.count = ny_dim_ceildiv(cx, ny_dim_max(cx, ny_dim_sub(cx, e, c.start), 0), ny_dim_const(cx, step));
      int64_t s, whole;
      if (ny_dim_is_const(cx, c.start, &s) && ny_dim_is_const(cx, size, &whole) && s > whole) c.start = size;
    }
  } else {
    ny_dim top = ny_dim_sub(cx, size, 1);
    c.start = upper(n, absolute(n, start, size, -1), top);
    ny_dim e = upper(n, absolute(n, end, size, -1), top);
    c.count = ny_dim_ceildiv(cx, ny_dim_max(cx, ny_dim_sub(cx, c.start, e), 0), ny_dim_const(cx, -step));
  }
  c.exact = c.count;
  c.count = ny_assumed(n->im, c.count);
  return c;
}

static ny_value *gather_cut(ny_node *n, ny_value *x, int axis, const cut *c) {
  ny_value *at = ny_b_iota(&n->b, NY_i64, 1, &c->count, 0);
  if (c->step != 1) at = ny_ew2s(n, NY_mul, at, (double)c->step);
  if (c->start != 0) at = ny_ew2(n, NY_add, at, ny_dim_value(n, c->start));
  return ny_b_gather(&n->b, x, at, axis);
}

static ny_value *apply(ny_node *n, ny_value *x, const cut *c) {
  ny_dim start[NY_MAX_RANK], step[NY_MAX_RANK], count[NY_MAX_RANK];
  bool any = false, strides = false;
  for (int i = 0; i < ny_rank(x); i++) {
    bool plain = c[i].count == c[i].exact;
    start[i] = plain ? c[i].start : 0;
    step[i] = ny_dim_const(n->cx, plain ? c[i].step : 1);
    count[i] = plain ? c[i].count : ny_size(x, i);
    any |= start[i] != 0 || step[i] != 1 || count[i] != ny_size(x, i);
    strides |= step[i] != 1;
  }
  ny_value *y = any ? ny_b_slice(&n->b, x, start, strides ? step : NULL, count) : x;
  for (int i = 0; i < ny_rank(x) && y; i++)
    if (c[i].count != c[i].exact) y = ny_require_assumed(n, c[i].exact) ? gather_cut(n, y, i, &c[i]) : NULL;
  return y;
}

typedef struct bounds {
  ny_dim start[NY_MAX_RANK], end[NY_MAX_RANK];
  int64_t step[NY_MAX_RANK], axes[NY_MAX_RANK];
  int n;
} bounds;

/* Attributes until opset 9, inputs since. */
static bool read_bounds(ny_node *n, bounds *b) {
  int n_end, n_step = -1, n_axes = -1;
  if (n->version < 10) {
    int64_t s[NY_MAX_RANK], e[NY_MAX_RANK];
    if (!ny_ints_or_attr(n, -1, "starts", s, NY_MAX_RANK, &b->n) ||
        !ny_ints_or_attr(n, -1, "ends", e, NY_MAX_RANK, &n_end) ||
        !ny_ints_or_attr(n, -1, "axes", b->axes, NY_MAX_RANK, &n_axes))
      return false;
    for (int i = 0; i < b->n; i++) b->start[i] = ny_dim_const(n->cx, s[i]);
    for (int i = 0; i < n_end; i++) b->end[i] = ny_dim_const(n->cx, e[i]);
  } else {
    if (!ny_node_dims(n, 1, b->start, NY_MAX_RANK, &b->n) || !ny_node_dims(n, 2, b->end, NY_MAX_RANK, &n_end))
      return false;
    if (ny_opt(n, 3) && !ny_node_ints(n, 3, b->axes, NY_MAX_RANK, &n_axes)) return false;
    if (ny_opt(n, 4) && !ny_node_ints(n, 4, b->step, NY_MAX_RANK, &n_step)) return false;
  }
  if (b->n < 0 || n_end != b->n || (n_axes >= 0 && n_axes != b->n) || (n_step >= 0 && n_step != b->n))
    return ny_refuse(n, NYB_E_SHAPE, "%d starts, %d ends, %d axes and %d steps", b->n, n_end, n_axes, n_step);
  for (int i = 0; i < b->n; i++) {
    if (n_axes < 0) b->axes[i] = i;
    if (n_step < 0) b->step[i] = 1;
  }
  return true;
}

nyb_status ny_op_slice(ny_node *n) {
  ny_value *x = n->in[0];
  bounds b;
  cut c[NY_MAX_RANK];
  uint32_t seen = 0;
  if (!read_bounds(n, &b)) return ny_failed(n);
  for (int i = 0; i < ny_rank(x); i++) c[i] = (cut){.count = ny_size(x, i), .exact = ny_size(x, i), .step = 1};
  for (int i = 0; i < b.n; i++) {
    int axis;
    if (!ny_axis_once(n, b.axes[i], ny_rank(x), &seen, &axis)) return ny_failed(n);
    int64_t step = b.step[i];
    if (step == 0) return ny_node_fail(n, NYB_E_SHAPE, "the step of axis %d is 0", axis);
    if (step > INT32_MAX) step = INT32_MAX;
    if (step < -INT32_MAX) step = -INT32_MAX;
    c[axis] = cut_axis(n, ny_size(x, axis), b.start[i], b.end[i], step);
  }
  return ny_out(n, 0, apply(n, x, c));
}

/* ---- Pad */
typedef struct padding {
  ny_dim lo[NY_MAX_RANK], hi[NY_MAX_RANK];
  bool any;
} padding;

static bool read_pads(ny_node *n, int rank, padding *p) {
  ny_dim list[2 * NY_MAX_RANK];
  int64_t axes[NY_MAX_RANK];
  int count = 0, n_axes = -1;
  if (n->version < 11) {
    int64_t v[2 * NY_MAX_RANK];
    if (!ny_ints_or_attr(n, -1, ny_attr_has(n, "pads") ? "pads" : "paddings", v, 2 * NY_MAX_RANK, &count)) return false;
    for (int i = 0; i < count; i++) list[i] = ny_dim_const(n->cx, v[i]);
  } else if (!ny_node_dims(n, 1, list, 2 * NY_MAX_RANK, &count)) {
    return false;
  }
  if (n->version >= 18 && ny_opt(n, 3) && !ny_node_ints(n, 3, axes, NY_MAX_RANK, &n_axes)) return false;
  int each = n_axes >= 0 ? n_axes : rank;
  if (count != 2 * each) return ny_refuse(n, NYB_E_SHAPE, "%d pads for %d axes", count, each);
  for (int i = 0; i < each; i++) {
    int axis = i;
    if (n_axes >= 0 && !ny_axis(n, axes[i], rank, &axis)) return false;
    p->lo[axis] = list[i];
    p->hi[axis] = list[i + each];
    p->any |= list[i] != 0 || list[i + each] != 0;
  }
  return true;
}

/* Negative pads crop; what is left for the pad op is not negative. */
static ny_value *crop(ny_node *n, ny_value *x, padding *p) {
  for (int i = 0; i < ny_rank(x) && x; i++) {
    ny_dim from = 0, to = 0;
    int64_t c;
    if (ny_dim_is_const(n->cx, p->lo[i], &c) && c < 0) from = ny_dim_const(n->cx, -c), p->lo[i] = 0;
    if (ny_dim_is_const(n->cx, p->hi[i], &c) && c < 0) to = ny_dim_const(n->cx, -c), p->hi[i] = 0;
    if (from == 0 && to == 0) continue;
    ny_dim left = ny_dim_sub(n->cx, ny_size(x, i), ny_dim_add(n->cx, from, to));
    if (ny_dim_is_const(n->cx, left, &c) && c < 0)
      return ny_refuse_value(n, NYB_E_SHAPE, "more is cropped from axis %d than there is", i);
    x = ny_slice_axis(n, x, i, from, left);
  }
  return x;
}

nyb_status ny_op_pad(ny_node *n) {
  ny_value *x = n->in[0], *fill = NULL;
  padding p = {.any = false};
  const char *mode = ny_attr_string(n, "mode", "constant");
  int kind = ny_attr_choice(n, "mode", "constant", "constant|reflect|edge|wrap");
  if (kind < 0 || !read_pads(n, ny_rank(x), &p)) return ny_failed(n);
  if (!p.any) return ny_out(n, 0, x);
  if (kind == 0) {
    if (n->version < 11 && ny_attr_has(n, "value")) fill = ny_num(n, x, ny_attr_float(n, "value", 0));
    if (n->version >= 11 && ny_opt(n, 2)) fill = ny_reshape_to(n, ny_cast_to(n, n->in[2], ny_fmt_of(x)), 0, NULL);
  }
  return ny_out(n, 0, ny_b_pad(&n->b, crop(n, x, &p), fill, p.lo, p.hi, NULL, mode));
}
