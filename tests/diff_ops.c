/* Productions of tensor ops: views, movement, reductions, rows and contractions, with the bounds of their results. */
#include "diff_gen.h"

#include <math.h>
#include <string.h>

static ny_op *make(diff_gen *g, ny_kind k, ny_value *const *in, int n, const ny_type *t) {
  return ny_build(&g->b, k, in, n, &t, 1);
}
static ny_value *typed(diff_gen *g, ny_op *op) { return op && !ny_infer_op(g->b.g, op) ? op->out[0] : NULL; }
static void list(diff_gen *g, ny_op *op, int slot, const ny_dim *v, int n) {
  op->attr[slot] = ny_dims_attr(g->b.g, v, (size_t)n);
}
static void view(diff_gen *g, const diff_val *x, ny_value *v) { diff_keep(g, v, x->mag, x->err, x->exact); }
static int axis_of(diff_gen *g, const diff_val *x) { return (int)diff_rand(g, x->v->type->rank); }

static void transpose(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_ANY, 2, false);
  int perm[NY_MAX_RANK];
  for (int i = 0; x && i < x->v->type->rank; i++) {
    int j = (int)diff_rand(g, (uint64_t)i + 1);
    perm[i] = perm[j], perm[j] = i;
  }
  if (x) view(g, x, ny_b_transpose(&g->b, x->v, perm));
}

static void reshape(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_ANY, 1, false);
  if (!x) return;
  const ny_type *t = x->v->type;
  ny_dim d[NY_MAX_RANK + 1];
  int at = axis_of(g, x), n = 0;
  if (diff_one_in(g, 2) && t->dim[at] > 1 && t->rank < 6) { /* split one dim */
    int64_t by = t->dim[at] % 2 ? t->dim[at] : 2;
    for (int i = 0; i < t->rank; i++) {
      d[n++] = i == at ? by : t->dim[i];
      if (i == at) d[n++] = t->dim[at] / by;
    }
  } else { /* merge with the next, or add a 1 */
    for (int i = 0; i < t->rank; i++) {
      bool merge = i == at && i + 1 < t->rank;
      d[n++] = merge ? ny_dim_mul(g->cx, t->dim[i], t->dim[i + 1]) : t->dim[i];
      i += merge;
    }
    if (n < 5 && diff_one_in(g, 3)) d[n++] = 1;
  }
  view(g, x, ny_b_reshape(&g->b, x->v, n, d));
}

static void broadcast(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_ANY, 0, false);
  if (!x || x->v->type->rank > 4) return;
  ny_dim d[NY_MAX_RANK] = {(ny_dim)diff_rand(g, 3) + 1};
  for (int i = 0; i < x->v->type->rank; i++)
    d[i + 1] = x->v->type->dim[i] == 1 ? (ny_dim)diff_rand(g, 5) + 1 : x->v->type->dim[i];
  view(g, x, ny_b_broadcast(&g->b, x->v, x->v->type->rank + 1, d));
}

static void slice(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_ANY, 1, false);
  if (!x) return;
  ny_dim start[NY_MAX_RANK], step[NY_MAX_RANK], count[NY_MAX_RANK];
  for (int i = 0; i < x->v->type->rank; i++) {
    int64_t n = x->v->type->dim[i];
    start[i] = 0, step[i] = 1, count[i] = n;
    if (n < 2 || diff_one_in(g, 2)) continue;
    int64_t s = (int64_t)diff_rand(g, 3) + 1, from = (int64_t)diff_rand(g, (uint64_t)n);
    bool back = diff_one_in(g, 3);
    int64_t room = back ? from / s + 1 : (n - 1 - from) / s + 1;
    start[i] = from, step[i] = ny_dim_const(g->cx, back ? -s : s), count[i] = (int64_t)diff_rand(g, (uint64_t)room) + 1;
  }
  view(g, x, ny_b_slice(&g->b, x->v, start, step, count));
}

static void pad(diff_gen *g) {
  static const char *const modes[] = {"constant", "constant", "edge", "reflect", "wrap"};
  const diff_val *x = diff_pick(g, DIFF_NUMBER, 1, false);
  if (!x) return;
  int m = (int)diff_rand(g, 5);
  ny_dim lo[NY_MAX_RANK], hi[NY_MAX_RANK], gap[NY_MAX_RANK];
  for (int i = 0; i < x->v->type->rank; i++) {
    int64_t n = x->v->type->dim[i], most = n < 0 ? 1 : m < 2 ? 3 : n < 3 ? n : 3;
    if (m && n < 0) most = 1;
    lo[i] = (ny_dim)diff_rand(g, (uint64_t)most), hi[i] = (ny_dim)diff_rand(g, (uint64_t)most);
    gap[i] = m == 0 && n > 0 && diff_one_in(g, 4) ? 1 : 0;
  }
  ny_value *fill = diff_one_in(g, 2) ? ny_b_scalar(&g->b, (ny_fmt)x->v->type->fmt, 1) : NULL;
  diff_keep(g, ny_b_pad(&g->b, x->v, m < 2 ? fill : NULL, lo, hi, m ? NULL : gap, modes[m]), fmax(x->mag, 1), x->err,
            x->exact);
}

static void concat(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_ANY, 1, false);
  if (!x) return;
  int axis = axis_of(g, x);
  diff_val y = *x;
  for (int tries = 0; tries < 10; tries++) {
    const diff_val *p = &g->pool[diff_rand(g, (uint64_t)g->n)];
    bool fits = p->v->type->fmt == x->v->type->fmt && p->v->type->rank == x->v->type->rank;
    for (int i = 0; fits && i < x->v->type->rank; i++) fits = i == axis || p->v->type->dim[i] == x->v->type->dim[i];
    if (fits) y = *p;
  }
  ny_value *in[3] = {x->v, y.v, x->v};
  diff_keep(g, ny_b_concat(&g->b, in, diff_one_in(g, 4) ? 3 : 2, axis), fmax(x->mag, y.mag), fmax(x->err, y.err),
            x->exact && y.exact);
}

/* Any integers will do as indices: they are brought into range. */
static ny_value *indices(diff_gen *g, int rank, const ny_dim *shape) {
  const diff_val *x = diff_pick(g, DIFF_INT, 0, true);
  if (x && diff_one_in(g, 2) && x->v->type->rank == rank &&
      !memcmp(x->v->type->dim, shape, (size_t)rank * sizeof *shape))
    return x->v;
  return diff_const(g, diff_one_in(g, 2) ? NY_i64 : NY_i32, rank, shape, 9).v;
}

static void gather(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_ANY, 1, false), *i = diff_pick(g, DIFF_INT, 0, true);
  if (!x) return;
  int rank = (int)diff_rand(g, 3);
  ny_dim shape[2] = {(ny_dim)diff_rand(g, 5) + 1, (ny_dim)diff_rand(g, 3) + 1};
  ny_value *index = i && diff_one_in(g, 3) && i->v->type->rank < 3 ? i->v : indices(g, rank, shape);
  if (x->v->type->rank + index->type->rank < 7) view(g, x, ny_b_gather(&g->b, x->v, index, axis_of(g, x)));
}

static void by_element(diff_gen *g) {
  static const char *const how[] = {"set", "sum", "max", "min"};
  const diff_val *x = diff_pick(g, DIFF_NUMBER, 1, false);
  if (!x || !diff_static(x->v->type, 0)) return;
  int axis = axis_of(g, x), rank = x->v->type->rank;
  ny_dim shape[NY_MAX_RANK];
  for (int i = 0; i < rank; i++)
    shape[i] = i == axis ? (ny_dim)diff_rand(g, 5) + 1 : (ny_dim)diff_rand(g, (uint64_t)x->v->type->dim[i]) + 1;
  ny_value *index = indices(g, rank, shape);
  if (diff_one_in(g, 2)) {
    ny_op *op = make(g, NY_gather_elements, (ny_value *[]){x->v, index}, 2, NULL);
    if (op) op->attr[NY_AT(gather_elements, axis)].i = axis;
    view(g, x, typed(g, op));
    return;
  }
  diff_val u = diff_const(g, (ny_fmt)x->v->type->fmt, rank, shape, 2);
  ny_op *op = make(g, NY_scatter_elements, (ny_value *[]){x->v, index, u.v}, 3, NULL);
  int o = (int)diff_rand(g, 4);
  if (op)
    op->attr[NY_AT(scatter_elements, axis)].i = axis,
                                     op->attr[NY_AT(scatter_elements, op)].s = ny_intern(&g->cx->names, how[o]);
  diff_keep(g, typed(g, op), o == 1 ? x->mag + 20 : fmax(x->mag, 2), x->err, x->exact && o != 1);
}

static void by_coordinate(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_ANY, 2, false);
  if (!x || !diff_static(x->v->type, 0) || x->v->type->rank > 4) return;
  int64_t k = (int64_t)diff_rand(g, x->v->type->rank) + 1, n = (int64_t)diff_rand(g, 4) + 1;
  ny_value *index = diff_const(g, NY_i64, 2, (ny_dim[]){n, k}, 9).v;
  if (diff_one_in(g, 2)) {
    view(g, x, typed(g, make(g, NY_gather_nd, (ny_value *[]){x->v, index}, 2, NULL)));
    return;
  }
  ny_dim shape[NY_MAX_RANK + 1] = {n};
  for (int i = (int)k; i < x->v->type->rank; i++) shape[i - (int)k + 1] = x->v->type->dim[i];
  diff_val u = diff_const(g, (ny_fmt)x->v->type->fmt, x->v->type->rank - (int)k + 1, shape, 2);
  ny_op *op = make(g, NY_scatter_nd, (ny_value *[]){x->v, index, u.v}, 3, NULL);
  diff_keep(g, typed(g, op), fmax(x->mag, 2), x->err, x->exact);
}

static void generate(diff_gen *g) {
  ny_dim shape[2] = {(ny_dim)diff_rand(g, 9) + 1, (ny_dim)diff_rand(g, 9) + 1};
  diff_keep(g, ny_b_iota(&g->b, diff_one_in(g, 2) ? NY_f32 : NY_i64, 2, shape, (int)diff_rand(g, 2)), 9, 0, true);
}

/* ---- Reductions. A sum's error grows with the sum of magnitudes, whatever its order. */
static void reduce(diff_gen *g) {
  static const char *const how[] = {"sum", "sum", "max", "min", "prod"};
  const diff_val *x = diff_pick(g, DIFF_NUMBER, 1, false);
  if (!x) return;
  int axes[NY_MAX_RANK], n = 0, o = (int)diff_rand(g, 5);
  double over = 1;
  for (int i = 0; i < x->v->type->rank; i++)
    if (diff_one_in(g, 2) || (!n && i == x->v->type->rank - 1))
      axes[n++] = i, over *= (double)diff_size(g, x->v->type->dim[i]);
  double eps = diff_eps((ny_fmt)x->v->type->fmt), mag = x->mag, err = x->err;
  if (o < 2) mag *= over, err = over * err + eps * mag;
  if (o == 4 && (over > 8 || x->mag > 3)) return;
  if (o == 4) mag = pow(fmax(x->mag, 1), over), err = over * mag * (x->err + 2 * eps);
  bool exact = x->exact && (o == 2 || o == 3);
  diff_keep(g, ny_b_reduce(&g->b, how[o], x->v, axes, n, diff_one_in(g, 2)), mag, err, exact);
}

static void scan(diff_gen *g) {
  static const char *const how[] = {"sum", "max", "min"};
  const diff_val *x = diff_pick(g, DIFF_NUMBER, 1, false);
  if (!x) return;
  int axis = axis_of(g, x), o = (int)diff_rand(g, 3);
  double n = (double)diff_size(g, x->v->type->dim[axis]), eps = diff_eps((ny_fmt)x->v->type->fmt);
  ny_op *op = make(g, NY_scan, &(ny_value *){x->v}, 1, NULL);
  if (!op) return;
  op->attr[NY_AT(scan, op)].s = ny_intern(&g->cx->names, how[o]);
  op->attr[NY_AT(scan, axis)].i = axis;
  op->attr[NY_AT(scan, exclusive)].i = o == 0 && diff_one_in(g, 2); /* an exclusive max starts at -inf */
  op->attr[NY_AT(scan, reverse)].i = (int64_t)diff_rand(g, 2);
  diff_keep(g, typed(g, op), o ? x->mag : x->mag * n, o ? x->err : n * x->err + n * eps * x->mag, x->exact && o);
}

static void positions(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_NUMBER, 1, true);
  if (!x) return;
  int axis = axis_of(g, x);
  ny_dim n = x->v->type->dim[axis];
  if (n > 0 && diff_one_in(g, 2)) {
    ny_type t = *x->v->type;
    t.dim[axis] = (ny_dim)diff_rand(g, (uint64_t)n) + 1;
    const ny_type *out[2] = {ny_type_get(g->cx, t), ny_tensor_type(g->cx, NY_i64, t.rank, t.dim)};
    ny_op *op = ny_build(&g->b, NY_topk, &(ny_value *){x->v}, 1, out, 2);
    if (!op) return;
    op->attr[NY_AT(topk, axis)].i = axis;
    op->attr[NY_AT(topk, largest)].i = (int64_t)diff_rand(g, 2);
    diff_keep(g, op->out[0], x->mag, 0, true);
    diff_keep(g, op->out[1], 1, 0, true);
    return;
  }
  ny_op *op = make(g, NY_argreduce, &(ny_value *){x->v}, 1, NULL);
  if (!op) return;
  op->attr[NY_AT(argreduce, op)].s = ny_intern(&g->cx->names, diff_one_in(g, 2) ? "max" : "min");
  op->attr[NY_AT(argreduce, axis)].i = axis;
  op->attr[NY_AT(argreduce, last)].i = (int64_t)diff_rand(g, 2);
  diff_keep(g, typed(g, op), 1, 0, true);
}

static void window(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_FLOAT, 2, false);
  if (!x || !diff_static(x->v->type, 0)) return;
  int rank = x->v->type->rank;
  ny_dim size[NY_MAX_RANK], stride[NY_MAX_RANK], dilation[NY_MAX_RANK];
  double taps = 1;
  for (int i = 0; i < rank; i++) {
    size[i] = stride[i] = dilation[i] = 1;
    if (i == 0 || i == rank - 1 || x->v->type->dim[i] < 2) continue;
    size[i] = (ny_dim)diff_rand(g, x->v->type->dim[i] < 3 ? 2 : 3) + 1;
    stride[i] = (ny_dim)diff_rand(g, 2) + 1;
    dilation[i] = (size[i] - 1) * 2 < x->v->type->dim[i] && diff_one_in(g, 3) ? 2 : 1;
    taps *= (double)size[i];
  }
  bool sum = diff_one_in(g, 2);
  ny_op *op = make(g, NY_window, &(ny_value *){x->v}, 1, NULL);
  if (!op) return;
  op->attr[NY_AT(window, op)].s = ny_intern(&g->cx->names, sum ? "sum" : "max");
  list(g, op, NY_AT(window, size), size, rank);
  list(g, op, NY_AT(window, stride), stride, rank);
  list(g, op, NY_AT(window, dilation), dilation, rank);
  double eps = diff_eps((ny_fmt)x->v->type->fmt);
  diff_keep(g, typed(g, op), sum ? taps * x->mag : x->mag, sum ? taps * (x->err + eps * x->mag) : x->err,
            x->exact && !sum);
}

static void softmax(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_FLOAT, 1, false);
  if (!x) return;
  int axis = axis_of(g, x);
  double eps = diff_eps((ny_fmt)x->v->type->fmt);
  ny_op *op = make(g, NY_softmax, &(ny_value *){x->v}, 1, NULL);
  if (op) op->attr[NY_AT(softmax, axis)].i = axis - (diff_one_in(g, 2) ? x->v->type->rank : 0);
  /* d softmax <= dx, and x - max is rounded at the size of x */
  diff_keep(g, typed(g, op), 1, 2 * x->err + eps * (8 + 2 * x->mag), false);
}

/* eps is large, so that a row of almost equal numbers does not blow its rounding up: |d norm / dx| <= 2 / sqrt(eps). */
static void norm(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_FLOAT, 1, false);
  if (!x) return;
  const ny_type *t = x->v->type;
  int axis = axis_of(g, x);
  ny_fmt f = (ny_fmt)t->fmt;
  bool layer = diff_one_in(g, 2), scale = diff_static(t, axis) && diff_one_in(g, 2);
  diff_val s = {0}, b = {0};
  if (scale)
    s = diff_const(g, f, t->rank - axis, t->dim + axis, 2), b = diff_const(g, f, t->rank - axis, t->dim + axis, 2);
  ny_op *op =
      make(g, layer ? NY_layer_norm : NY_rms_norm, (ny_value *[]){x->v, s.v, b.v}, scale ? (layer ? 3 : 2) : 1, NULL);
  if (!op) return;
  op->attr[layer ? NY_AT(layer_norm, axis) : NY_AT(rms_norm, axis)].i = axis;
  op->attr[layer ? NY_AT(layer_norm, eps) : NY_AT(rms_norm, eps)].f = 0.25;
  double n = 1;
  for (int i = axis; i < t->rank; i++) n *= (double)diff_size(g, t->dim[i]);
  double mag = (scale ? 2 : 1) * sqrt(n) + 2,
         err = (scale ? 2 : 1) * (8 * x->err + diff_eps(f) * (16 * x->mag + 16)) + 4 * diff_eps(f) * mag;
  diff_keep(g, typed(g, op), mag, err, false);
}

/* ---- Contractions. Accumulation is at least in f32; k * mag is what may be rounded. */
static void product(diff_gen *g, ny_value *v, const diff_val *x, const diff_val *y, double k) {
  if (!v) return;
  double mag = k * x->mag * y->mag;
  diff_keep(g, v, mag,
            k * (x->err * y->mag + y->err * x->mag) +
                2 * diff_eps(NY_f32) * (ny_is_float((ny_fmt)v->type->fmt) ? mag : 0),
            false);
}

/* Leading dims equal or 1: inference would also accept a symbol against a number, but then evaluation decides. */
static bool batch_fits(const ny_type *a, const ny_type *b) {
  for (int i = 3; i <= a->rank && i <= b->rank; i++) {
    ny_dim x = a->dim[a->rank - i], y = b->dim[b->rank - i];
    if (x != y && x != 1 && y != 1) return false;
  }
  return true;
}

static void matmul(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_NUMBER, 2, false);
  if (!x) return;
  const ny_type *t = x->v->type;
  ny_dim k = t->dim[t->rank - 1], shape[NY_MAX_RANK];
  static const int64_t widths[] = {1, 3, 8, 16, 17, 33};
  int rank = diff_one_in(g, 3) ? t->rank : 2;
  for (int i = 0; i < rank - 2; i++) shape[i] = diff_one_in(g, 3) ? 1 : t->dim[i];
  shape[rank - 2] = k, shape[rank - 1] = widths[diff_rand(g, NY_COUNT(widths))];
  diff_val y = diff_const(g, (ny_fmt)t->fmt, rank, shape, 1);
  const diff_val *p = diff_pick(g, DIFF_NUMBER, 2, false);
  if (p && diff_one_in(g, 2) && batch_fits(t, p->v->type)) { /* an activation on the right, transposed when that fits */
    int perm[NY_MAX_RANK], r = p->v->type->rank;
    for (int i = 0; i < r; i++) perm[i] = i < r - 2 ? i : 2 * r - 3 - i;
    if (p->v->type->fmt == t->fmt && p->v->type->dim[r - 2] == k)
      y = *p;
    else if (p->v->type->fmt == t->fmt && p->v->type->dim[r - 1] == k)
      y = *p, y.v = ny_b_transpose(&g->b, p->v, perm);
  }
  product(g, typed(g, make(g, NY_matmul, (ny_value *[]){x->v, y.v}, 2, NULL)), x, &y, (double)diff_size(g, k));
}

static void conv(diff_gen *g) {
  const diff_val *x = diff_pick(g, DIFF_FLOAT, 3, false);
  if (!x || !diff_static(x->v->type, 1) || x->v->type->rank > 5) return;
  const ny_type *t = x->v->type;
  int s = t->rank - 2;
  int64_t c = t->dim[t->rank - 1], group = diff_one_in(g, 3) ? c : c % 2 == 0 && diff_one_in(g, 2) ? 2 : 1;
  ny_dim kernel[NY_MAX_RANK], stride[NY_MAX_RANK], dilation[NY_MAX_RANK], w[NY_MAX_RANK];
  double k = (double)(c / group);
  for (int i = 0; i < s; i++) {
    int64_t n = t->dim[i + 1];
    kernel[i] = n < 2 ? 1 : (ny_dim)diff_rand(g, n < 3 ? 2 : 3) + 1;
    stride[i] = (ny_dim)diff_rand(g, 2) + 1;
    dilation[i] = (kernel[i] - 1) * 2 < n && diff_one_in(g, 3) ? 2 : 1;
    w[i] = kernel[i], k *= (double)kernel[i];
  }
  w[s] = c / group, w[s + 1] = group * ((ny_dim)diff_rand(g, group > 2 ? 2 : 9) + 1);
  diff_val weight = diff_const(g, (ny_fmt)t->fmt, s + 2, w, 1);
  ny_op *op = make(g, NY_conv, (ny_value *[]){x->v, weight.v}, 2, NULL);
  if (!op) return;
  list(g, op, NY_AT(conv, kernel), kernel, s);
  list(g, op, NY_AT(conv, stride), stride, s);
  list(g, op, NY_AT(conv, dilation), dilation, s);
  op->attr[NY_AT(conv, group)].i = group;
  product(g, typed(g, op), x, &weight, k);
}

/* A convex combination of values, with weights that move by 2 ds when scores move by ds. */
static void attention(diff_gen *g) {
  const diff_val *q = diff_pick(g, DIFF_FLOAT, 3, false);
  if (!q || q->v->type->fmt == NY_f64) return;
  ny_type t = *q->v->type;
  ny_fmt f = (ny_fmt)t.fmt;
  ny_value *x = q->v;
  if (t.rank == 3) x = ny_b_reshape(&g->b, x, 4, (ny_dim[]){1, t.dim[0], t.dim[1], t.dim[2]});
  if (!x || x->type->rank != 4) return;
  const ny_dim *d = x->type->dim;
  ny_dim n = diff_one_in(g, 2) ? d[2] : (ny_dim)diff_rand(g, 12) + 1, e = (ny_dim)diff_rand(g, 9) + 1;
  diff_val k = {x, q->mag, q->err, q->exact}, v = diff_const(g, f, 4, (ny_dim[]){d[0], d[1], n, e}, 2);
  if (n != d[2] || diff_one_in(g, 2)) k = diff_const(g, f, 4, (ny_dim[]){d[0], d[1], n, d[3]}, 1);
  diff_val mask = diff_const(g, f, 2, (ny_dim[]){1, n}, 3);
  ny_op *op = make(g, NY_attention, (ny_value *[]){x, k.v, v.v, mask.v}, diff_one_in(g, 2) ? 4 : 3, NULL);
  if (!op) return;
  double depth = (double)diff_size(g, d[3]), score = depth * q->mag * k.mag * 0.25 + 3;
  op->attr[NY_AT(attention, scale)].f = 0.25;
  op->attr[NY_AT(attention, causal)].i = (int64_t)diff_rand(g, 2);
  double ds = 0.25 * depth * (q->err * k.mag + k.err * q->mag) + 2 * diff_eps(f) * score;
  diff_keep(g, typed(g, op), 2, 4 * ds + 8 * diff_eps(f), false);
}

diff_production *const diff_tensor_ops[] = {transpose, reshape,    broadcast,     slice,     pad,    concat,
                                            gather,    by_element, by_coordinate, generate,  reduce, reduce,
                                            scan,      positions,  window,        softmax,   norm,   matmul,
                                            matmul,    conv,       conv,          attention, NULL};
