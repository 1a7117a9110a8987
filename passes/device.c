/* device: what a graph should look like for a GPU, where starting a kernel costs as much as a small product and one block cannot keep the device busy.
   Products of one input by constant weights that one attention reads stand side by side: one matmul, whose parts are slices of heads, which attention reads
   in place. A long sum of few results is taken in two steps. */
#include "family.h"
#include "rewrite.h"

enum { MAX_CHAIN = 4 };
typedef struct projection { /* operand = transposes(reshape(matmul(x, w) (+ bias))) */
  ny_value *x, *w, *bias; /* bias: [n], or NULL */
  ny_op *product, *heads; /* the matmul, the reshape that splits n into heads */
  ny_op *turn[MAX_CHAIN];  /* from the reshape on */
  int n_turn;
} projection;

static ny_op *alone(ny_value *v, ny_kind k) { return ny_one_use(v) ? ny_def(v, k) : NULL; }

static bool is_vector(const ny_value *v, ny_dim n) { return v->type->rank == 1 && v->type->dim[0] == n && ny_is_constant(v); }

static bool read_product(ny_value *v, projection *p) {
  ny_op *add = alone(v, NY_add);
  ny_dim n = v->type->dim[v->type->rank - 1];
  for (int i = 0; add && i < 2 && !p->bias; i++)
    if (is_vector(ny_in(add, i), n)) p->bias = ny_in(add, i), v = ny_in(add, 1 - i);
  ny_op *mm = alone(v, NY_matmul);
  if (!mm || mm->attr[NY_AT(matmul, packed)].i) return false;
  p->product = mm, p->x = ny_in(mm, 0), p->w = ny_in(mm, 1);
  return p->w->type->rank == 2 && ny_is_constant(p->w) && p->w->type->dim[1] == n && n > 0;
}

static bool read_projection(ny_value *v, projection *p) {
  *p = (projection){0};
  for (ny_op *t; p->n_turn < MAX_CHAIN && (t = alone(v, NY_transpose)); v = ny_in(t, 0)) p->turn[p->n_turn++] = t;
  p->heads = alone(v, NY_reshape);
  if (!p->heads) return false;
  const ny_type *t = p->heads->out[0]->type, *from = ny_in(p->heads, 0)->type;
  if (t->rank != from->rank + 1 || t->rank < 3 || t->dim[t->rank - 1] < 1 || t->dim[t->rank - 2] < 1) return false;
  for (int i = 0; i < from->rank - 1; i++)
    if (t->dim[i] != from->dim[i]) return false;
  return read_product(ny_in(p->heads, 0), p);
}

/* The same input, sums and head size, so that one product can be cut by heads. */
static bool match(const projection *a, const projection *b) {
  const ny_type *s = a->heads->out[0]->type, *t = b->heads->out[0]->type;
  return a->x == b->x && !a->bias == !b->bias && a->w->type->fmt == b->w->type->fmt && s->fmt == t->fmt && s->rank == t->rank &&
         s->dim[s->rank - 1] == t->dim[t->rank - 1];
}

static ny_value *join(ny_builder *b, projection *const *p, int n) {
  ny_value *w[3], *bias[3];
  ny_type t = *p[0]->product->out[0]->type, h = *p[0]->heads->out[0]->type;
  ny_dim columns = 0;
  for (int i = 0; i < n; i++) w[i] = p[i]->w, bias[i] = p[i]->bias, columns += w[i]->type->dim[1];
  t.dim[t.rank - 1] = columns;
  h.dim[h.rank - 2] = columns / h.dim[h.rank - 1];
  const ny_type *type = ny_type_get(b->g->cx, t);
  ny_op *mm = ny_build(b, NY_matmul, (ny_value *[]){p[0]->x, ny_b_concat(b, w, n, 1)}, 2, &type, 1);
  if (!mm) return NULL;
  ny_value *v = mm->out[0];
  if (bias[0]) v = ny_b_ew2(b, NY_add, v, ny_b_concat(b, bias, n, 0));
  return ny_b_reshape(b, v, h.rank, h.dim);
}

static nyb_status join_projections(ny_graph *g, ny_op *attention, bool *changed) {
  projection p[3], *same[3];
  int which[3], n = 0;
  for (int first = 0; first < 2 && n < 2; first++) {
    n = 0;
    if (!read_projection(ny_in(attention, first), &p[first])) continue;
    for (int i = first; i < 3; i++)
      if (i == first || (read_projection(ny_in(attention, i), &p[i]) && match(&p[first], &p[i]))) which[n] = i, same[n++] = &p[i];
  }
  if (n < 2) return NYB_OK;
  ny_builder b = ny_before(g, attention);
  ny_value *all = join(&b, same, n);
  ny_dim start[NY_MAX_RANK] = {0};
  for (int i = 0; i < n && all; i++) {
    const ny_type *t = same[i]->heads->out[0]->type;
    ny_value *v = ny_b_slice(&b, all, start, NULL, t->dim);
    start[t->rank - 2] += t->dim[t->rank - 2];
    for (int k = same[i]->n_turn - 1; k >= 0 && v; k--) {
      int perm[NY_MAX_RANK];
      for (int d = 0; d < t->rank; d++) perm[d] = (int)same[i]->turn[k]->attr[NY_AT(transpose, perm)].dims.v[d];
      v = ny_b_transpose(&b, v, perm);
    }
    if (v) ny_set_in(attention, which[i], v);
  }
  *changed = true;
  return g->cx->diag.code;
}

/* ---- long sums */
enum { FEW = 64, PARTS = 256, LONG = 1 << 16 };

/* Elements of a result, and how many results, where both are numbers and all dims from some axis on are reduced. */
static bool is_long(const ny_ctx *cx, const ny_op *op, int64_t *rows, int64_t *n) {
  const ny_type *x = ny_in(op, 0)->type;
  bool gone[NY_MAX_RANK], tail = false;
  if (!ny_reduced_dims(cx, op, gone)) return false;
  *rows = *n = 1;
  for (int i = 0; i < x->rank; i++) {
    if (x->dim[i] < 1 || x->dim[i] > 1 << 30 || (tail && !gone[i])) return false;
    tail = gone[i];
    int64_t *to = gone[i] ? n : rows;
    if (*to > (INT64_C(1) << 40) / x->dim[i]) return false;
    *to *= x->dim[i];
  }
  return *rows <= FEW && *n >= LONG;
}

static nyb_status split_reduce(ny_graph *g, ny_op *op, bool *changed) {
  int64_t rows, n, parts = PARTS;
  if (!is_long(g->cx, op, &rows, &n)) return NYB_OK;
  while (parts > 1 && n % parts) parts /= 2;
  if (parts < PARTS / 8) return NYB_OK;
  ny_builder b = ny_before(g, op);
  const ny_type *to = op->out[0]->type;
  const char *how = op->attr[NY_AT(reduce, op)].s;
  ny_fmt f = (ny_fmt)to->fmt;
  ny_value *v = ny_b_reshape(&b, ny_in(op, 0), 3, (ny_dim[]){rows, parts, n / parts});
  if (v && ny_is_float(f) && ny_fmts[f].bits < 32) v = ny_b_cast(&b, v, NY_f32); /* so that the parts are not rounded */
  v = v ? ny_b_reduce(&b, how, v, (int[]){2}, 1, false) : NULL;
  v = v ? ny_b_reduce(&b, how, v, (int[]){1}, 1, false) : NULL;
  if (v && v->type->fmt != f) v = ny_b_cast(&b, v, f);
  if (v) v = ny_b_reshape(&b, v, to->rank, to->dim);
  if (v) ny_replace_op(op, v);
  *changed = true;
  return g->cx->diag.code;
}

typedef struct state {
  ny_graph *g;
  bool changed;
} state;

static nyb_status visit(void *user, ny_op *op) {
  state *s = user;
  if (op->kind == NY_attention) return join_projections(s->g, op, &s->changed);
  return op->kind == NY_reduce ? split_reduce(s->g, op, &s->changed) : NYB_OK;
}

nyb_status ny_pass_device(ny_pass_cx *px, ny_graph *g, bool *changed) {
  state s = {g, false};
  if (!ny_on_gpu(px->target)) return NYB_OK;
  NY_TRY(ny_walk(&g->body, visit, &s));
  if (s.changed) ny_drop_dead(&g->body);
  *changed |= s.changed;
  return NYB_OK;
}
