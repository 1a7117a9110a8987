/* attend: matmul(softmax(scale * matmul(q, k^T) + mask), v) becomes attention, whose kernel never writes the scores to
   memory. The scale may stand before or after the mask's place in either order of operands; k^T may be a transpose of
   any kind, since what is undone of it only moves a view. */
#include <math.h>

#include "rewrite.h"

typedef struct found {
  ny_value *q, *kt, *v, *mask;
  double scale;
} found;

static bool number(const ny_value *v, double *x) { return ny_uniform(v, x) && isfinite(*x); }

/* v = *x * number (or / number): the factor goes to *scale. */
static bool scaled(ny_value *v, ny_value **x, double *scale) {
  ny_op *op = v->def;
  double c;
  if (!op || !ny_one_use(v) || (op->kind != NY_mul && op->kind != NY_div)) return false;
  int i = number(ny_in(op, 1), &c) ? 1 : op->kind == NY_mul && number(ny_in(op, 0), &c) ? 0 : -1;
  if (i < 0 || (op->kind == NY_div && c == 0) || ny_in(op, 1 - i)->type != v->type) return false;
  *x = ny_in(op, 1 - i);
  *scale *= op->kind == NY_div ? 1 / c : c;
  return true;
}

static ny_op *scores(ny_value *v) {
  ny_op *mm = ny_def(v, NY_matmul);
  return mm && ny_one_use(v) && !mm->attr[NY_AT(matmul, packed)].i ? mm : NULL;
}

/* Follows the scores up from the softmax. */
static ny_op *match_scores(ny_value *s, found *f) {
  ny_op *mm = scores(s), *add = ny_def(s, NY_add);
  ny_value *x = s;
  if (mm) return mm;
  if (add && ny_one_use(s))
    for (int i = 0; i < 2; i++) {
      double scale = 1;
      x = ny_in(add, i);
      f->mask = ny_in(add, 1 - i);
      if (x->type != s->type || (f->mask->type->fmt != s->type->fmt)) continue;
      while (scaled(x, &x, &scale)) {}
      if ((mm = scores(x)) && x->type == s->type) {
        f->scale = scale;
        return mm;
      }
    }
  f->mask = NULL;
  x = s;
  while (scaled(x, &x, &f->scale)) {}
  return x->type == s->type ? scores(x) : NULL;
}

static bool same_lead(const ny_type *a, const ny_type *b, int n) {
  for (int i = 0; i < n; i++)
    if (a->dim[i] != b->dim[i]) return false;
  return true;
}

static bool match(ny_op *op, found *f) {
  *f = (found){.scale = 1};
  if (op->kind != NY_matmul || op->attr[NY_AT(matmul, packed)].i) return false;
  ny_op *soft = ny_def(ny_in(op, 0), NY_softmax);
  int rank = op->out[0]->type->rank;
  if (!soft || !ny_one_use(soft->out[0]) || (rank != 3 && rank != 4)) return false;
  int64_t axis = soft->attr[NY_AT(softmax, axis)].i;
  if (axis != -1 && axis != rank - 1) return false;
  ny_op *mm = match_scores(ny_in(soft, 0), f);
  if (!mm) return false;
  f->q = ny_in(mm, 0), f->kt = ny_in(mm, 1), f->v = ny_in(op, 1);
  const ny_type *q = f->q->type, *kt = f->kt->type, *v = f->v->type;
  if (q->rank != rank || kt->rank != rank || v->rank != rank || (f->mask && f->mask->type->rank > rank)) return false;
  return ny_is_float((ny_fmt)q->fmt) && same_lead(q, kt, rank - 2) && same_lead(q, v, rank - 2);
}

/* Rank 3 gets one head. */
static ny_value *with_heads(ny_builder *b, ny_value *x) {
  const ny_type *t = x->type;
  if (t->rank != 3) return x;
  return ny_b_reshape(b, x, 4, (ny_dim[]){t->dim[0], 1, t->dim[1], t->dim[2]});
}

static ny_value *build(ny_builder *b, ny_op *op, found *f) {
  int perm[NY_MAX_RANK], rank = f->kt->type->rank;
  for (int i = 0; i < rank; i++) perm[i] = i < rank - 2 ? i : rank - 1 - (i - (rank - 2));
  ny_value *k = ny_b_transpose(b, f->kt, perm);
  ny_value *in[4] = {f->q, k, f->v, f->mask};
  for (int i = 0; i < 4 && rank == 3; i++) in[i] = in[i] ? with_heads(b, in[i]) : NULL;
  const ny_type *t = NULL;
  ny_op *a = ny_build(b, NY_attention, in, f->mask ? 4 : 3, &t, 1);
  if (!a) return NULL;
  a->attr[NY_AT(attention, scale)].f = f->scale;
  if (ny_infer_op(b->g, a)) return NULL;
  return ny_b_reshape(b, a->out[0], op->out[0]->type->rank, op->out[0]->type->dim);
}

typedef struct state {
  ny_graph *g;
  bool changed;
} state;

static nyb_status visit(void *user, ny_op *op) {
  state *s = user;
  found f;
  if (!match(op, &f)) return NYB_OK;
  ny_builder b = ny_before(s->g, op);
  ny_value *v = build(&b, op, &f);
  if (!v) return s->g->cx->diag.code;
  ny_replace_op(op, v);
  s->changed = true;
  return NYB_OK;
}

nyb_status ny_pass_attend(ny_pass_cx *px, ny_graph *g, bool *changed) {
  (void)px;
  state s = {g, false};
  NY_TRY(ny_walk(&g->body, visit, &s));
  if (s.changed) ny_drop_dead(&g->body);
  *changed |= s.changed;
  return NYB_OK;
}
