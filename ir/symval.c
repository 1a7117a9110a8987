/* Integer tensors as dimension expressions: models compute shapes with tensor ops (Shape, Gather, Mul, Concat,
   Reshape), and following those ops on expressions instead of numbers turns such a computation back into sizes. Works
   on tensors of up to 64 elements with known shapes. Each value is computed once per query; a bound on depth keeps
   hostile graphs harmless. */
#include <string.h>

#include "ir.h"

enum { MAX_ELEMENTS = 64, MAX_STEPS = 4096, MAX_NEST = 256 };
typedef struct known { /* the elements of one value, row-major */
  int n;
  int rank;
  int64_t shape[NY_MAX_RANK];
  ny_dim v[MAX_ELEMENTS];
} known;
typedef struct memo {
  const ny_value *value;
  known *result; /* NULL: not known */
  struct memo *next;
} memo;
typedef struct query {
  ny_graph *g;
  ny_ctx *cx;
  ny_arena scratch;
  memo *slot[64];
  int steps, nest;
} query;

static const known *values_of(query *q, ny_value *v);

static bool shape_of(const ny_ctx *cx, const ny_type *t, known *k) {
  k->n = 1;
  k->rank = t->rank;
  if (!ny_is_int((ny_fmt)t->fmt) && t->fmt != NY_bool) return false;
  for (int i = 0; i < t->rank; i++) {
    if (!ny_dim_is_const(cx, t->dim[i], &k->shape[i]) || k->shape[i] < 0 || k->shape[i] > MAX_ELEMENTS) return false;
    k->n *= (int)k->shape[i];
    if (k->n > MAX_ELEMENTS) return false;
  }
  return true;
}

/* Position of element i of a tensor, and back. */
static void unravel(const known *k, int i, int64_t at[NY_MAX_RANK]) {
  for (int d = k->rank; d-- > 0; i /= (int)k->shape[d]) at[d] = i % k->shape[d];
}
static int ravel(const known *k, const int64_t at[NY_MAX_RANK]) {
  int64_t i = 0;
  for (int d = 0; d < k->rank; d++) i = i * k->shape[d] + at[d];
  return (int)i;
}

static bool all_valid(const known *k) {
  for (int i = 0; i < k->n; i++)
    if (k->v[i] == NY_DIM_INVALID) return false;
  return true;
}

static bool of_const(query *q, const ny_op *op, known *out) {
  const ny_blob *b = op->attr[NY_AT(const, data)].blob;
  double splat = op->attr[NY_AT(const, splat)].f;
  ny_fmt f = (ny_fmt)op->out[0]->type->fmt;
  if (b && b->bytes < ny_fmt_bytes(f, (uint64_t)out->n)) return false;
  if (!b && !(splat > -0x1p62 && splat < 0x1p62)) return false;
  for (int i = 0; i < out->n; i++) {
    int64_t x = b ? ny_get_i(f, b->data, (uint64_t)i) : (int64_t)splat;
    if (f == NY_u64 && x < 0) return false;
    out->v[i] = ny_dim_const(q->cx, x);
  }
  return true;
}

static bool of_dims(query *q, const ny_op *op, known *out) {
  (void)q;
  const ny_attr *v = &op->attr[NY_AT(dims, v)];
  if (v->dims.n != (uint32_t)out->n) return false;
  if (out->n) memcpy(out->v, v->dims.v, sizeof *out->v * (size_t)out->n);
  return true;
}

static bool of_iota(query *q, const ny_op *op, known *out) {
  (void)q;
  int64_t axis = op->attr[NY_AT(iota, axis)].i, at[NY_MAX_RANK] = {0};
  if (axis < 0) axis += out->rank;
  for (int i = 0; i < out->n; i++) {
    unravel(out, i, at);
    out->v[i] = at[axis];
  }
  return true;
}

static bool of_copy(query *q, const ny_op *op, known *out) { /* same elements in the same order: reshape, cast */
  const known *x = values_of(q, ny_in(op, 0));
  if (!x || x->n != out->n) return false;
  memcpy(out->v, x->v, sizeof out->v);
  return true;
}

/* A cast keeps the value when the target holds it; a symbol is a size, so 32 bits and more are taken to hold it. */
static bool of_cast(query *q, const ny_op *op, known *out) {
  ny_fmt f = (ny_fmt)op->out[0]->type->fmt;
  if (!of_copy(q, op, out)) return false;
  for (int i = 0; i < out->n; i++) {
    int64_t x;
    bool constant = ny_dim_is_const(q->cx, out->v[i], &x);
    if (constant)
      out->v[i] = ny_dim_const(q->cx, f == NY_bool ? x != 0 : ny_wrap_to(f, x));
    else if (ny_fmts[f].bits < 32)
      return false;
  }
  return true;
}

static bool of_transpose(query *q, const ny_op *op, known *out) {
  const known *x = values_of(q, ny_in(op, 0));
  const ny_attr *perm = &op->attr[NY_AT(transpose, perm)];
  if (!x || perm->dims.n != (uint32_t)x->rank) return false;
  for (int i = 0; i < out->n; i++) {
    int64_t at[NY_MAX_RANK], from[NY_MAX_RANK] = {0};
    unravel(out, i, at);
    for (int d = 0; d < out->rank; d++) from[perm->dims.v[d]] = at[d];
    out->v[i] = x->v[ravel(x, from)];
  }
  return true;
}

/* Element of x that broadcasts to position `at` of a result of rank `rank`. */
static int stretched(const known *x, const int64_t *at, int rank) {
  int64_t from[NY_MAX_RANK] = {0};
  for (int d = 0; d < x->rank; d++) from[d] = x->shape[d] == 1 ? 0 : at[d + rank - x->rank];
  return ravel(x, from);
}

static bool stretches(const known *x, const known *out) {
  if (x->rank > out->rank) return false;
  for (int d = 0; d < x->rank; d++)
    if (x->shape[d] != 1 && x->shape[d] != out->shape[d + out->rank - x->rank]) return false;
  return true;
}

static bool of_broadcast(query *q, const ny_op *op, known *out) {
  const known *x = values_of(q, ny_in(op, 0));
  if (!x || !stretches(x, out)) return false;
  for (int i = 0; i < out->n; i++) {
    int64_t at[NY_MAX_RANK];
    unravel(out, i, at);
    out->v[i] = x->v[stretched(x, at, out->rank)];
  }
  return true;
}

static bool of_slice(query *q, const ny_op *op, known *out) {
  const known *x = values_of(q, ny_in(op, 0));
  const ny_attr *start = &op->attr[NY_AT(slice, start)], *step = &op->attr[NY_AT(slice, step)];
  if (!x || start->dims.n != (uint32_t)x->rank) return false;
  for (int i = 0; i < out->n; i++) {
    int64_t at[NY_MAX_RANK], s, by = 1;
    unravel(out, i, at);
    for (int d = 0; d < out->rank; d++) {
      if (!ny_dim_is_const(q->cx, start->dims.v[d], &s) ||
          (step->dims.n && !ny_dim_is_const(q->cx, step->dims.v[d], &by)))
        return false;
      if (s < 0 || s >= x->shape[d] || by < -MAX_ELEMENTS || by > MAX_ELEMENTS) return false;
      at[d] = s + at[d] * by;
      if (at[d] < 0 || at[d] >= x->shape[d]) return false;
    }
    out->v[i] = x->v[ravel(x, at)];
  }
  return true;
}

static bool of_concat(query *q, const ny_op *op, known *out) {
  int64_t axis = op->attr[NY_AT(concat, axis)].i, base = 0;
  if (axis < 0) axis += out->rank;
  for (int k = 0; k < op->n_in; k++) {
    const known *x = values_of(q, ny_in(op, k));
    if (!x || x->rank != out->rank) return false;
    for (int i = 0; i < x->n; i++) {
      int64_t at[NY_MAX_RANK];
      unravel(x, i, at);
      at[axis] += base;
      int to = ravel(out, at);
      if (at[axis] >= out->shape[axis] || to >= out->n) return false;
      out->v[to] = x->v[i];
    }
    base += x->shape[axis];
  }
  return base == out->shape[axis];
}

static bool of_gather(query *q, const ny_op *op, known *out) {
  const known *x = values_of(q, ny_in(op, 0)), *index = x ? values_of(q, ny_in(op, 1)) : NULL;
  int64_t axis = op->attr[NY_AT(gather, axis)].i;
  if (!index) return false;
  if (axis < 0) axis += x->rank;
  for (int i = 0; i < out->n; i++) {
    int64_t at[NY_MAX_RANK], from[NY_MAX_RANK], pick;
    unravel(out, i, at);
    if (!ny_dim_is_const(q->cx, index->v[ravel(index, at + axis)], &pick)) return false;
    if (pick < 0) pick += x->shape[axis];
    if (pick < 0 || pick >= x->shape[axis]) return false;
    for (int d = 0; d < x->rank; d++) from[d] = d < axis ? at[d] : d == axis ? pick : at[d + index->rank - 1];
    out->v[i] = x->v[ravel(x, from)];
  }
  return true;
}

static bool of_reduce(query *q, const ny_op *op, known *out) {
  const known *x = values_of(q, ny_in(op, 0));
  const ny_attr *axes = &op->attr[NY_AT(reduce, axes)];
  ny_name how = op->attr[NY_AT(reduce, op)].s;
  ny_dim (*join)(ny_ctx *, ny_dim, ny_dim) = !strcmp(how, "sum")    ? ny_dim_add
                                             : !strcmp(how, "prod") ? ny_dim_mul
                                             : !strcmp(how, "max")  ? ny_dim_max
                                                                    : ny_dim_min;
  bool keep = op->attr[NY_AT(reduce, keep)].i != 0, gone[NY_MAX_RANK] = {false}, seen[MAX_ELEMENTS] = {false};
  if (!x) return false;
  for (uint32_t i = 0; i < axes->dims.n; i++) {
    int64_t a;
    if (!ny_dim_is_const(q->cx, axes->dims.v[i], &a)) return false;
    gone[a < 0 ? a + x->rank : a] = true;
  }
  for (int i = 0; i < x->n; i++) {
    int64_t at[NY_MAX_RANK], to[NY_MAX_RANK] = {0};
    int n = 0;
    unravel(x, i, at);
    for (int d = 0; d < x->rank; d++)
      if (!gone[d] || keep) to[n++] = gone[d] ? 0 : at[d];
    int k = ravel(out, to);
    out->v[k] = seen[k] ? join(q->cx, out->v[k], x->v[i]) : x->v[i];
    seen[k] = true;
  }
  for (int i = 0; i < out->n; i++) {
    if (!seen[i] && strcmp(how, "sum") && strcmp(how, "prod")) return false;
    if (!seen[i]) out->v[i] = !strcmp(how, "prod");
  }
  return true;
}

/* ---- elementwise */
static ny_dim truncating_div(ny_ctx *cx, ny_dim a, ny_dim b) {
  int64_t x, y, alo, ahi, blo, bhi;
  if (ny_dim_is_const(cx, a, &x) && ny_dim_is_const(cx, b, &y))
    return y == 0 ? 0 : x == INT64_MIN && y == -1 ? NY_DIM_INVALID : ny_dim_const(cx, x / y);
  ny_dim_bounds(cx, a, &alo, &ahi);
  ny_dim_bounds(cx, b, &blo, &bhi);
  return alo >= 0 && blo >= 0 ? ny_dim_div(cx, a, b) : NY_DIM_INVALID; /* rounds down and toward zero alike */
}

static ny_dim remainder_like(ny_ctx *cx, ny_dim a, ny_dim b) {
  int64_t x, y, alo, ahi, blo, bhi;
  if (ny_dim_is_const(cx, a, &x) && ny_dim_is_const(cx, b, &y)) return y == 0 || y == -1 ? 0 : ny_dim_const(cx, x % y);
  ny_dim_bounds(cx, a, &alo, &ahi);
  ny_dim_bounds(cx, b, &blo, &bhi);
  return alo >= 0 && blo >= 0 ? ny_dim_mod(cx, a, b) : NY_DIM_INVALID;
}

static ny_dim floor_remainder(ny_ctx *cx, ny_dim a, ny_dim b) { return b == 0 ? 0 : ny_dim_mod(cx, a, b); }
static ny_dim greater(ny_ctx *cx, ny_dim a, ny_dim b) { return ny_dim_lt(cx, b, a); }
static ny_dim flip(ny_ctx *cx, ny_dim a) { return ny_dim_sub(cx, 1, a); }
static ny_dim greater_equal(ny_ctx *cx, ny_dim a, ny_dim b) { return flip(cx, ny_dim_lt(cx, a, b)); }
static ny_dim less_equal(ny_ctx *cx, ny_dim a, ny_dim b) { return flip(cx, ny_dim_lt(cx, b, a)); }
static ny_dim equal(ny_ctx *cx, ny_dim a, ny_dim b) {
  int64_t lo, hi;
  ny_dim d = ny_dim_sub(cx, a, b);
  if (d == 0) return 1;
  if (d == NY_DIM_INVALID) return d;
  ny_dim_bounds(cx, d, &lo, &hi);
  return lo > 0 || hi < 0 ? 0 : NY_DIM_INVALID;
}
static ny_dim not_equal(ny_ctx *cx, ny_dim a, ny_dim b) {
  ny_dim e = equal(cx, a, b);
  return e == NY_DIM_INVALID ? e : flip(cx, e);
}
static ny_dim negative(ny_ctx *cx, ny_dim a, ny_dim b) {
  (void)b;
  return ny_dim_sub(cx, 0, a);
}
static ny_dim magnitude(ny_ctx *cx, ny_dim a, ny_dim b) { return ny_dim_max(cx, a, negative(cx, a, b)); }
static ny_dim positive(ny_ctx *cx, ny_dim a, ny_dim b) {
  (void)b;
  return ny_dim_max(cx, a, 0);
}
static ny_dim logical_not(ny_ctx *cx, ny_dim a, ny_dim b) {
  (void)b;
  return flip(cx, a);
}

typedef ny_dim fold_fn(ny_ctx *cx, ny_dim a, ny_dim b);
static fold_fn *const folds[NY_N_KINDS] = {
    [NY_add] = ny_dim_add,     [NY_sub] = ny_dim_sub,     [NY_mul] = ny_dim_mul,
    [NY_div] = truncating_div, [NY_rem] = remainder_like, [NY_mod] = floor_remainder,
    [NY_max] = ny_dim_max,     [NY_min] = ny_dim_min,     [NY_lt] = ny_dim_lt,
    [NY_gt] = greater,         [NY_le] = less_equal,      [NY_ge] = greater_equal,
    [NY_eq] = equal,           [NY_ne] = not_equal,       [NY_neg] = negative,
    [NY_abs] = magnitude,      [NY_relu] = positive,      [NY_not] = logical_not,
    [NY_and] = ny_dim_mul,     [NY_or] = ny_dim_max, /* of truth values */
};

static bool of_map(query *q, const ny_op *op, known *out) {
  const known *x = values_of(q, ny_in(op, 0)), *y = x && op->n_in > 1 ? values_of(q, ny_in(op, 1)) : x;
  ny_fmt f = (ny_fmt)op->out[0]->type->fmt;
  if (!x || !y || !stretches(x, out) || !stretches(y, out)) return false;
  if ((op->kind == NY_and || op->kind == NY_or) && f != NY_bool) return false;
  for (int i = 0; i < out->n; i++) {
    int64_t at[NY_MAX_RANK];
    unravel(out, i, at);
    ny_dim d = folds[op->kind](q->cx, x->v[stretched(x, at, out->rank)], y->v[stretched(y, at, out->rank)]);
    int64_t c;
    out->v[i] = ny_dim_is_const(q->cx, d, &c) ? ny_dim_const(q->cx, ny_wrap_to(f, c)) : d;
  }
  return true;
}

static bool of_where(query *q, const ny_op *op, known *out) {
  const known *c = values_of(q, ny_in(op, 0)), *x = c ? values_of(q, ny_in(op, 1)) : NULL,
              *y = c ? values_of(q, ny_in(op, 2)) : NULL;
  if (!c || !stretches(c, out)) return false;
  for (int i = 0; i < out->n; i++) {
    int64_t at[NY_MAX_RANK], yes;
    unravel(out, i, at);
    if (!ny_dim_is_const(q->cx, c->v[stretched(c, at, out->rank)], &yes)) return false;
    const known *from = yes ? x : y;
    if (!from || !stretches(from, out)) return false;
    out->v[i] = from->v[stretched(from, at, out->rank)];
  }
  return true;
}

typedef bool of_fn(query *q, const ny_op *op, known *out);
static of_fn *const rules[NY_N_KINDS] = {
    [NY_const] = of_const,   [NY_dims] = of_dims,           [NY_iota] = of_iota,   [NY_reshape] = of_copy,
    [NY_cast] = of_cast,     [NY_transpose] = of_transpose, [NY_slice] = of_slice, [NY_broadcast] = of_broadcast,
    [NY_concat] = of_concat, [NY_gather] = of_gather,       [NY_where] = of_where, [NY_reduce] = of_reduce,
};

static const known *values_of(query *q, ny_value *v) {
  memo **slot = &q->slot[v->id % NY_COUNT(q->slot)];
  for (memo *m = *slot; m; m = m->next)
    if (m->value == v) return m->result;
  of_fn *rule = !v->def ? NULL : folds[v->def->kind] ? of_map : rules[v->def->kind];
  if (!rule || ++q->steps > MAX_STEPS || q->nest >= MAX_NEST) return NULL;
  memo *m = NY_NEW(&q->scratch, memo);
  known k = {.n = 0};
  q->nest++;
  if (shape_of(q->cx, v->type, &k) && rule(q, v->def, &k) && all_valid(&k)) {
    m->result = NY_NEW(&q->scratch, known);
    *m->result = k;
  }
  q->nest--;
  m->value = v;
  m->next = *slot;
  *slot = m;
  return m->result;
}

bool ny_symbolic_values(ny_graph *g, ny_value *v, ny_dim *out, int cap, int *n) {
  query q = {.g = g, .cx = g->cx};
  const known *k = values_of(&q, v);
  bool ok = k && k->n <= cap && (k->rank <= 1 || k->n == 1);
  if (ok) {
    for (int i = 0; i < k->n; i++) out[i] = k->v[i];
    *n = k->n;
  }
  ny_arena_free(&q.scratch);
  return ok;
}
