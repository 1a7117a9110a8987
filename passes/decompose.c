/* decompose: softmax, the norms and attention (where no family takes it) as reductions and elementwise ops, which the
   row family makes one kernel of. Narrow floats are computed in f32 and rounded once at the end, as the evaluator does.
   The reduced dims are made the last ones by their order in `axes`, not by moving data. */
#include <math.h>
#include <string.h>

#include "rewrite.h"

static ny_fmt wide(ny_fmt f) { return ny_fmts[f].bits < 32 ? NY_f32 : f; }

static ny_value *softmax(ny_builder *b, ny_value *x, int axis) {
  ny_value *top = ny_b_reduce(b, "max", x, &axis, 1, true);
  ny_value *e = ny_b_ew1(b, NY_exp, ny_b_ew2(b, NY_sub, x, top));
  ny_value *sum = ny_b_reduce(b, "sum", e, &axis, 1, true);
  return ny_b_ew2(b, NY_mul, e, ny_b_ew1(b, NY_reciprocal, sum));
}

static ny_value *lower_softmax(ny_builder *b, ny_op *op) {
  ny_value *x = ny_in(op, 0);
  ny_fmt f = (ny_fmt)x->type->fmt;
  int64_t axis = op->attr[NY_AT(softmax, axis)].i;
  if (axis < 0) axis += x->type->rank;
  return ny_b_cast(b, softmax(b, ny_b_cast(b, x, wide(f)), (int)axis), f);
}

typedef struct norm {
  ny_value *x, *count; /* widened; rank 0 */
  int axes[NY_MAX_RANK], n;
  ny_fmt f;
} norm;

static norm norm_of(ny_builder *b, ny_op *op, int64_t axis) {
  ny_value *x = ny_in(op, 0);
  norm s = {.f = (ny_fmt)x->type->fmt};
  ny_dim size = 1;
  for (int i = (int)(axis < 0 ? axis + x->type->rank : axis); i < x->type->rank; i++) {
    s.axes[s.n++] = i;
    size = ny_dim_mul(b->g->cx, size, x->type->dim[i]);
  }
  s.x = ny_b_cast(b, x, wide(s.f));
  int64_t k;
  if (ny_dim_is_const(b->g->cx, size, &k))
    s.count = ny_b_scalar(b, wide(s.f), (double)k);
  else
    s.count = ny_b_cast(b, ny_b_dims(b, &size, 1, true), wide(s.f));
  return s;
}

static ny_value *mean(ny_builder *b, const norm *s, ny_value *x) {
  return ny_b_ew2(b, NY_div, ny_b_reduce(b, "sum", x, s->axes, s->n, true), s->count);
}

static ny_value *inverse_root(ny_builder *b, const norm *s, ny_value *v, double eps) {
  ny_value *shifted = ny_b_ew2(b, NY_add, v, ny_b_scalar(b, wide(s->f), eps));
  return ny_b_ew1(b, NY_reciprocal, ny_b_ew1(b, NY_sqrt, shifted));
}

static ny_value *scale_shift(ny_builder *b, ny_op *op, const norm *s, ny_value *y) {
  if (op->n_in > 1) y = ny_b_ew2(b, NY_mul, y, ny_b_cast(b, ny_in(op, 1), wide(s->f)));
  if (op->n_in > 2) y = ny_b_ew2(b, NY_add, y, ny_b_cast(b, ny_in(op, 2), wide(s->f)));
  return ny_b_cast(b, y, s->f);
}

static ny_value *lower_layer_norm(ny_builder *b, ny_op *op) {
  norm s = norm_of(b, op, op->attr[NY_AT(layer_norm, axis)].i);
  ny_value *d = ny_b_ew2(b, NY_sub, s.x, mean(b, &s, s.x));
  ny_value *var = mean(b, &s, ny_b_ew2(b, NY_mul, d, d));
  return scale_shift(b, op, &s, ny_b_ew2(b, NY_mul, d, inverse_root(b, &s, var, op->attr[NY_AT(layer_norm, eps)].f)));
}

static ny_value *lower_rms_norm(ny_builder *b, ny_op *op) {
  norm s = norm_of(b, op, op->attr[NY_AT(rms_norm, axis)].i);
  ny_value *ms = mean(b, &s, ny_b_ew2(b, NY_mul, s.x, s.x));
  return scale_shift(b, op, &s, ny_b_ew2(b, NY_mul, s.x, inverse_root(b, &s, ms, op->attr[NY_AT(rms_norm, eps)].f)));
}

static ny_value *swap_last(ny_builder *b, ny_value *x) {
  int perm[NY_MAX_RANK], r = x->type->rank;
  for (int i = 0; i < r; i++) perm[i] = i < r - 2 ? i : r - 1 - (i - (r - 2));
  return ny_b_transpose(b, x, perm);
}

/* -inf where the key lies after the query. */
static ny_value *hide_later(ny_builder *b, ny_value *s) {
  const ny_type *t = s->type;
  ny_dim d[2] = {t->dim[t->rank - 2], t->dim[t->rank - 1]};
  ny_value *row = ny_b_iota(b, NY_i64, 2, d, 0), *col = ny_b_iota(b, NY_i64, 2, d, 1);
  ny_value *nothing = ny_b_scalar(b, (ny_fmt)t->fmt, -INFINITY);
  return ny_b_where(b, ny_b_ew2(b, NY_gt, col, row), nothing, s);
}

static ny_value *lower_attention(ny_builder *b, ny_op *op) {
  ny_value *q = ny_in(op, 0), *k = ny_in(op, 1), *v = ny_in(op, 2);
  ny_fmt f = (ny_fmt)q->type->fmt, w = wide(f);
  ny_value *keys = swap_last(b, ny_b_cast(b, k, w)), *s = ny_b_matmul(b, ny_b_cast(b, q, w), keys);
  s = ny_b_ew2(b, NY_mul, s, ny_b_scalar(b, w, op->attr[NY_AT(attention, scale)].f));
  if (op->n_in > 3) s = ny_b_ew2(b, NY_add, s, ny_b_cast(b, ny_in(op, 3), w));
  if (s && op->attr[NY_AT(attention, causal)].i) s = hide_later(b, s);
  if (!s) return NULL;
  ny_value *values = ny_b_cast(b, v, w);
  return ny_b_cast(b, ny_b_matmul(b, softmax(b, s, s->type->rank - 1), values), f);
}

static ny_value *lower_dequantize(ny_builder *b, ny_op *op) {
  ny_value *in[3];
  for (int i = 0; i < op->n_in; i++) in[i] = ny_b_cast(b, ny_in(op, i), NY_f32);
  ny_value *x = op->n_in > 2 ? ny_b_ew2(b, NY_sub, in[0], in[2]) : in[0];
  return ny_b_cast(b, ny_b_ew2(b, NY_mul, x, in[1]), (ny_fmt)op->out[0]->type->fmt);
}

static bool keeps_codes(const ny_op *op);

/* Weights of a contraction stay codes: its kernel decodes them. So does a scale that is a product itself. */
static bool reads_codes(const ny_use *u) {
  const ny_op *op = u->user;
  bool contracts = op->kind == NY_matmul || op->kind == NY_conv;
  if (contracts && u == &op->in[1]) return true;
  return op->kind == NY_dequantize && u == &op->in[1] && keeps_codes(op);
}

static bool keeps_codes(const ny_op *op) {
  for (int i = 0; i < op->n_in; i++)
    if (!ny_is_constant(ny_in(op, i)) && !(i == 1 && ny_def(ny_in(op, i), NY_dequantize))) return false;
  for (const ny_use *u = op->out[0]->uses; u; u = u->next)
    if (!reads_codes(u)) return false;
  return true;
}

/* Without blocks it is arithmetic like any other. */
static bool has_blocks_or_reader(const ny_op *op) { return op->attr[NY_AT(dequantize, block)].i || keeps_codes(op); }

/* conv over pad(interior = k-1, lo = hi = k-1), a transposed convolution whose windows do not overlap: every input
   pixel becomes its own block of k x k results, so it is a matrix product and a rearrangement. */
static bool is_block_deconv(const ny_op *op) {
  const ny_op *pad = ny_def(ny_in(op, 0), NY_pad);
  const ny_value *w = ny_in(op, 1);
  if (!pad || op->attr[NY_AT(conv, packed)].i || op->attr[NY_AT(conv, group)].i != 1 || !ny_one_use(pad->out[0]))
    return false;
  if (pad->n_in > 1 || strcmp(pad->attr[NY_AT(pad, mode)].s, "constant") != 0 ||
      !pad->attr[NY_AT(pad, interior)].dims.n)
    return false;
  int spatial = w->type->rank - 2;
  for (int i = 0; i < spatial + 2; i++) {
    ny_dim k = i > 0 && i <= spatial ? w->type->dim[i - 1] : 1;
    const ny_attr *stride = &op->attr[NY_AT(conv, stride)], *dilation = &op->attr[NY_AT(conv, dilation)];
    if (k < 1 || pad->attr[NY_AT(pad, lo)].dims.v[i] != k - 1 || pad->attr[NY_AT(pad, hi)].dims.v[i] != k - 1)
      return false;
    if (pad->attr[NY_AT(pad, interior)].dims.v[i] != k - 1) return false;
    if (i < spatial && ((stride->dims.n && stride->dims.v[i] != 1) || (dilation->dims.n && dilation->dims.v[i] != 1)))
      return false;
  }
  return 2 * spatial + 2 <= NY_MAX_RANK;
}

static ny_value *lower_block_deconv(ny_builder *b, ny_op *op) {
  ny_value *x = ny_in(ny_in(op, 0)->def, 0), *w = ny_in(op, 1);
  int n = w->type->rank - 2, perm[NY_MAX_RANK];
  ny_dim start[NY_MAX_RANK] = {0}, step[NY_MAX_RANK], d[NY_MAX_RANK], c = w->type->dim[n], m = w->type->dim[n + 1],
         all = m;
  for (int i = 0; i < n + 2; i++) step[i] = 1;
  for (int i = 0; i < n; i++) {
    start[i] = w->type->dim[i] - 1, step[i] = ny_dim_const(b->g->cx, -1);
    all = ny_dim_mul(b->g->cx, all, w->type->dim[i]);
    perm[1 + i] = i;
  }
  perm[0] = n, perm[n + 1] = n + 1;
  ny_value *k = ny_b_transpose(b, ny_b_slice(b, w, start, step, w->type->dim), perm);
  ny_value *y = ny_b_matmul(b, x, ny_b_reshape(b, k, 2, (ny_dim[]){c, all}));
  for (int i = 0; i <= n; i++) d[i] = x->type->dim[i]; /* batch, pixels, block, channels */
  for (int i = 0; i < n; i++) d[1 + n + i] = w->type->dim[i];
  d[2 * n + 1] = m;
  y = ny_b_reshape(b, y, 2 * n + 2, d);
  perm[0] = 0, perm[2 * n + 1] = 2 * n + 1;
  for (int i = 0; i < n; i++) perm[1 + 2 * i] = 1 + i, perm[2 + 2 * i] = 1 + n + i;
  return ny_b_reshape(b, ny_b_transpose(b, y, perm), op->out[0]->type->rank, op->out[0]->type->dim);
}

/* The attention family keeps a head's scores in scratch, whose size must be known. */
static bool known_heads(const ny_op *op) {
  enum { MAX_DEPTH = 4096 };
  ny_dim d = ny_in(op, 0)->type->dim[3], e = ny_in(op, 2)->type->dim[3];
  return d >= 1 && d <= MAX_DEPTH && e >= 1 && e <= MAX_DEPTH;
}

/* A kernel grows with the number of its inputs, and what a compiler does with it faster than that. */
enum { MAX_PIECES = 32 };
static bool few_pieces(const ny_op *op) { return op->n_in <= MAX_PIECES; }

static ny_value *lower_concat(ny_builder *b, ny_op *op) {
  int n = op->n_in, axis = (int)op->attr[NY_AT(concat, axis)].i;
  ny_value **v = NY_NEW_ARRAY(&b->g->arena, ny_value *, n);
  for (int i = 0; i < n; i++) v[i] = ny_in(op, i);
  while (n > 1) {
    int made = 0;
    for (int i = 0; i < n; i += MAX_PIECES) {
      int part = n - i < MAX_PIECES ? n - i : MAX_PIECES;
      ny_value *joined = part > 1 ? ny_b_concat(b, v + i, part, axis) : v[i];
      if (!joined) return NULL;
      v[made++] = joined;
    }
    n = made;
  }
  return v[0];
}

static bool overlaps(const ny_op *op) { return !is_block_deconv(op); }

typedef struct row {
  ny_kind kind;
  ny_value *(*lower)(ny_builder *b, ny_op *op);
  bool (*has_family)(const ny_op *op); /* NULL: never */
} row;
static const row rows[] = {
    {NY_softmax, lower_softmax, NULL},       {NY_layer_norm, lower_layer_norm, NULL},
    {NY_rms_norm, lower_rms_norm, NULL},     {NY_attention, lower_attention, known_heads},
    {NY_conv, lower_block_deconv, overlaps}, {NY_concat, lower_concat, few_pieces},
    {NY_dequantize, lower_dequantize, has_blocks_or_reader},
};

typedef struct state {
  ny_pass_cx *px;
  ny_graph *g;
  bool changed;
} state;

/* A kernel decodes what it reads, so every reader gets an op of its own. */
static void one_each(state *s, ny_op *op) {
  for (ny_use *u = op->out[0]->uses, *next; u; u = next) {
    next = u->next;
    ny_value *in[3];
    for (int i = 0; i < op->n_in; i++) in[i] = ny_in(op, i);
    if (next) ny_set_in(u->user, (int)(u - u->user->in), ny_clone(s->g, op->parent, op, op, in)->out[0]);
  }
}

static nyb_status visit(void *user, ny_op *op) {
  state *s = user;
  if (op->kind == NY_dequantize && keeps_codes(op)) one_each(s, op);
  for (size_t i = 0; i < NY_COUNT(rows); i++) {
    if (rows[i].kind != op->kind || (rows[i].has_family && rows[i].has_family(op))) continue;
    ny_builder b = ny_before(s->g, op);
    ny_value *v = rows[i].lower(&b, op);
    if (!v) return s->g->cx->diag.code;
    ny_replace_op(op, v);
    s->changed = true;
    return NYB_OK;
  }
  return NYB_OK;
}

nyb_status ny_pass_decompose(ny_pass_cx *px, ny_graph *g, bool *changed) {
  state s = {px, g, false};
  NY_TRY(ny_walk(&g->body, visit, &s));
  *changed |= s.changed;
  return NYB_OK;
}
