/* Matrix products: MatMul, Gemm, Einsum; Det. Einsum takes diagonals, then joins the operands from left to right, each
   pair as one batched matmul; labels that nothing needs any more are summed first. */
#include "onnx.h"

#include <string.h>

static bool unify_batch(ny_node *n, const ny_value *x, const ny_value *y) {
  for (int p = 3; p <= ny_rank(x) && p <= ny_rank(y); p++) {
    ny_dim a = ny_size(x, ny_rank(x) - p), b = ny_size(y, ny_rank(y) - p);
    if (a != 1 && b != 1 && !ny_unify(n, a, b, "batch sizes of a product")) return false;
  }
  return ny_unify(n, ny_size(x, ny_rank(x) - 1), ny_size(y, ny_rank(y) - 2), "the inner sizes of a product");
}

/* numpy's rules: a vector on the left is a row, on the right a column, and its dim is dropped from the result. */
nyb_status ny_op_matmul(ny_node *n) {
  ny_value *x = n->in[0], *y = n->in[1];
  if (ny_rank(x) < 1 || ny_rank(y) < 1)
    return ny_node_fail(n, NYB_E_SHAPE, "a scalar cannot be multiplied as a matrix");
  bool row = ny_rank(x) == 1, col = ny_rank(y) == 1;
  if (row) x = ny_unsqueeze_at(n, x, 0);
  if (col) y = ny_unsqueeze_at(n, y, 1);
  if (!x || !y || !unify_batch(n, x, y)) return ny_failed(n);
  ny_value *z = ny_b_matmul(&n->b, x, y);
  if (z && col) z = ny_squeeze_at(n, z, ny_rank(z) - 1);
  if (z && row) z = ny_squeeze_at(n, z, ny_rank(z) - (col ? 1 : 2));
  return ny_out(n, 0, z);
}

nyb_status ny_op_gemm(ny_node *n) {
  ny_value *a = n->in[0], *b = n->in[1], *c = ny_opt(n, 2);
  if (ny_rank(a) != 2 || ny_rank(b) != 2)
    return ny_node_fail(n, NYB_E_SHAPE, "inputs have ranks %d and %d, not 2", ny_rank(a), ny_rank(b));
  if (ny_attr_int(n, "transA", 0)) a = ny_matrix_transpose(n, a);
  if (ny_attr_int(n, "transB", 0)) b = ny_matrix_transpose(n, b);
  double alpha = ny_attr_float(n, "alpha", 1), beta = ny_attr_float(n, "beta", 1);
  if (!a || !b || !unify_batch(n, a, b)) return ny_failed(n);
  ny_value *y = ny_b_matmul(&n->b, a, b);
  if (alpha != 1) y = ny_ew2s(n, NY_mul, y, alpha);
  if (c && beta != 1) c = ny_ew2s(n, NY_mul, c, beta);
  return ny_out(n, 0, c && beta != 0 ? ny_ew2(n, NY_add, y, c) : y);
}

/* ---- Einsum */
enum { MAX_TERMS = 16, ELLIPSIS = 128 }; /* labels: letters, and ELLIPSIS + k for the dims of "...", from the right */
typedef struct term {
  int n, label[NY_MAX_RANK];
  ny_value *v;
} term;
typedef struct equation {
  term in[MAX_TERMS], out;
  int n_in;
} equation;

static int find(const term *t, int label) {
  for (int i = 0; i < t->n; i++)
    if (t->label[i] == label) return i;
  return -1;
}

/* Labels of s..e; rank < 0: an output, whose ellipsis has `dots` dims. */
static bool labels(ny_node *n, const char *s, const char *e, int rank, int dots, term *t) {
  int letters = 0;
  bool seen = false;
  for (const char *p = s; p < e; p++) letters += (*p | 32) >= 'a' && (*p | 32) <= 'z';
  if (rank >= 0) dots = rank - letters;
  for (const char *p = s; p < e; p++) {
    int add = 1;
    if (*p == ' ') continue;
    if (e - p >= 3 && !seen && !strncmp(p, "...", 3))
      add = dots, p += 2, seen = true;
    else if (!((*p | 32) >= 'a' && (*p | 32) <= 'z'))
      add = -1;
    if (add < 0 || t->n + add > NY_MAX_RANK)
      return ny_refuse(n, NYB_E_SHAPE, "the equation does not fit the operands at \"%.20s\"", p);
    for (int i = 0; i < add; i++) t->label[t->n++] = p[0] == '.' ? ELLIPSIS + dots - 1 - i : *p;
  }
  if (rank >= 0 && t->n != rank) return ny_refuse(n, NYB_E_SHAPE, "%d labels for an operand of rank %d", t->n, rank);
  return true;
}

/* Without "->": the ellipsis, then every label that occurs once, in alphabetical order. */
static void implicit_output(equation *q, int dots) {
  for (int i = 0; i < dots; i++) q->out.label[q->out.n++] = ELLIPSIS + dots - 1 - i;
  for (int c = 'A'; c <= 'z'; c++) {
    int count = 0;
    for (int i = 0; i < q->n_in; i++)
      for (int k = 0; k < q->in[i].n; k++) count += q->in[i].label[k] == c;
    if (count == 1 && q->out.n < NY_MAX_RANK) q->out.label[q->out.n++] = c;
  }
}

static bool parse(ny_node *n, const char *s, equation *q) {
  const char *arrow = strstr(s, "->"), *end = arrow ? arrow : s + strlen(s);
  int dots = 0;
  for (const char *p = s;; p++) {
    const char *stop = memchr(p, ',', (size_t)(end - p));
    if (!stop) stop = end;
    if (q->n_in >= MAX_TERMS || q->n_in >= n->n_in)
      return ny_refuse(n, NYB_E_SHAPE, "more terms in the equation than the %d operands", n->n_in);
    term *t = &q->in[q->n_in];
    if (!(t->v = ny_need(n, q->n_in)) || !labels(n, p, stop, ny_rank(t->v), 0, t)) return false;
    q->n_in++;
    for (int i = 0; i < t->n; i++)
      if (t->label[i] - ELLIPSIS >= dots) dots = t->label[i] - ELLIPSIS + 1;
    if (stop == end) break;
    p = stop;
  }
  if (q->n_in != n->n_in) return ny_refuse(n, NYB_E_SHAPE, "%d terms for %d operands", q->n_in, n->n_in);
  if (arrow) return labels(n, arrow + 2, arrow + strlen(arrow), -1, dots, &q->out);
  implicit_output(q, dots);
  return true;
}

static void drop(term *t, int at) {
  memmove(t->label + at, t->label + at + 1, sizeof(int) * (size_t)(t->n - at - 1));
  t->n--;
}

/* Keeps the elements where two equal labels have equal positions. */
static bool diagonal(ny_node *n, term *t, int p, int q) {
  int last = t->n - 1;
  ny_value *v = ny_move_axis(n, t->v, q, last);
  v = ny_move_axis(n, v, p, last - 1);
  if (!v || !ny_unify(n, ny_size(v, last - 1), ny_size(v, last), "dims of one label")) return false;
  ny_dim shape[NY_MAX_RANK], start[NY_MAX_RANK] = {0}, step[NY_MAX_RANK], d = ny_size(v, last);
  for (int i = 0; i < last; i++) shape[i] = ny_size(v, i), step[i] = 1;
  shape[last - 1] = ny_dim_mul(n->cx, d, d);
  step[last - 1] = ny_dim_add(n->cx, d, 1);
  v = ny_reshape_to(n, v, last, shape);
  shape[last - 1] = d;
  t->v = v ? ny_b_slice(&n->b, v, start, step, shape) : NULL;
  int label = t->label[p];
  drop(t, q);
  drop(t, p);
  t->label[t->n++] = label;
  return t->v != NULL;
}

/* Sums out the labels that neither `other` nor `more` has. */
static bool sum_out(ny_node *n, term *t, const term *other, const bool *needed) {
  int axes[NY_MAX_RANK], count = 0;
  for (int i = t->n - 1; i >= 0; i--)
    if (!needed[t->label[i]] && (!other || find(other, t->label[i]) < 0)) axes[count++] = i, drop(t, i);
  for (int i = 0; i < count / 2; i++) {
    int swap = axes[i];
    axes[i] = axes[count - 1 - i], axes[count - 1 - i] = swap;
  }
  if (count) t->v = ny_b_reduce(&n->b, "sum", t->v, axes, count, false);
  return t->v != NULL;
}

/* t with its dims in the order of `order`, 1 where it lacks a label. */
static ny_value *aligned(ny_node *n, const term *t, const int *order, int count) {
  int perm[NY_MAX_RANK], k = 0;
  ny_dim shape[NY_MAX_RANK];
  for (int i = 0; i < count; i++) {
    int at = find(t, order[i]);
    shape[i] = at < 0 ? 1 : ny_size(t->v, at);
    if (at >= 0) perm[k++] = at;
  }
  ny_value *v = ny_b_transpose(&n->b, t->v, perm);
  return ny_reshape_to(n, v, count, shape);
}

typedef struct label_list {
  int n, at[2 * NY_MAX_RANK];
} label_list;
static void add(label_list *l, const label_list *more) {
  for (int i = 0; i < more->n; i++) l->at[l->n++] = more->at[i];
}

/* [batch..., rows, cols] with the labels of each kind flattened. */
static ny_value *as_matrix(ny_node *n, const term *t, const label_list *batch, const label_list *row,
                           const label_list *col) {
  label_list order = *batch;
  add(&order, row);
  add(&order, col);
  ny_value *v = aligned(n, t, order.at, order.n);
  ny_dim shape[NY_MAX_RANK];
  int nb = batch->n;
  if (!v) return NULL;
  for (int i = 0; i < nb; i++) shape[i] = ny_size(v, i);
  shape[nb] = ny_product(n, v->type->dim + nb, row->n);
  shape[nb + 1] = ny_product(n, v->type->dim + nb + row->n, col->n);
  return ny_reshape_to(n, v, nb + 2, shape);
}

/* a and b as one term. */
static bool join(ny_node *n, term *a, const term *b, const bool *needed) {
  label_list batch = {0}, inner = {0}, left = {0}, right = {0}, all = {0};
  for (int i = 0; i < a->n; i++) {
    label_list *l = find(b, a->label[i]) < 0 ? &left : needed[a->label[i]] ? &batch : &inner;
    l->at[l->n++] = a->label[i];
  }
  for (int i = 0; i < b->n; i++)
    if (find(a, b->label[i]) < 0) right.at[right.n++] = b->label[i];
  add(&all, &batch);
  add(&all, &left);
  add(&all, &right);
  int wider = left.n > right.n ? left.n : right.n;
  if (all.n > NY_MAX_RANK || batch.n + 2 > NY_MAX_RANK || batch.n + wider + inner.n > NY_MAX_RANK)
    return ny_refuse(n, NYB_E_UNSUPPORTED, "a product of %d dimensions", all.n);
  ny_value *v;
  if (!inner.n) {
    v = ny_ew2(n, NY_mul, aligned(n, a, all.at, all.n), aligned(n, b, all.at, all.n));
  } else {
    ny_dim shape[NY_MAX_RANK];
    for (int i = 0; i < inner.n; i++) {
      ny_dim p = ny_size(a->v, find(a, inner.at[i])), q = ny_size(b->v, find(b, inner.at[i]));
      if (!ny_unify(n, p, q, "dims of one label")) return false;
    }
    v = ny_b_matmul(&n->b, as_matrix(n, a, &batch, &left, &inner), as_matrix(n, b, &batch, &inner, &right));
    for (int i = 0; i < batch.n && v; i++) shape[i] = ny_size(v, i);
    for (int i = batch.n; i < all.n; i++) {
      int at = find(a, all.at[i]);
      shape[i] = at >= 0 ? ny_size(a->v, at) : ny_size(b->v, find(b, all.at[i]));
    }
    v = ny_reshape_to(n, v, all.n, shape);
  }
  a->v = v, a->n = all.n;
  memcpy(a->label, all.at, sizeof(int) * (size_t)all.n);
  return v != NULL;
}

nyb_status ny_op_einsum(ny_node *n) {
  equation q = {0};
  if (!parse(n, ny_attr_string(n, "equation", ""), &q)) return ny_failed(n);
  for (int i = 0; i < q.n_in; i++)
    for (int p = 0; p < q.in[i].n; p++)
      for (int k = p + 1; k < q.in[i].n; k++)
        if (q.in[i].label[p] == q.in[i].label[k]) {
          if (!diagonal(n, &q.in[i], p, k)) return ny_failed(n);
          p = -1;
          break;
        }
  term acc = q.in[0];
  for (int i = 1; i <= q.n_in; i++) {
    bool needed[256] = {false};
    for (int k = 0; k < q.out.n; k++) needed[q.out.label[k]] = true;
    for (int j = i + 1; j < q.n_in; j++)
      for (int k = 0; k < q.in[j].n; k++) needed[q.in[j].label[k]] = true;
    if (!sum_out(n, &acc, i < q.n_in ? &q.in[i] : NULL, needed)) return ny_failed(n);
    if (i == q.n_in) break;
    if (!sum_out(n, &q.in[i], &acc, needed) || !join(n, &acc, &q.in[i], needed)) return ny_failed(n);
  }
  int perm[NY_MAX_RANK];
  for (int i = 0; i < q.out.n; i++)
    if ((perm[i] = find(&acc, q.out.label[i])) < 0 || q.out.n != acc.n)
      return ny_node_fail(n, NYB_E_SHAPE, "the output of the equation has a label that no operand has, or one twice");
  return ny_out(n, 0, ny_b_transpose(&n->b, acc.v, perm));
}

/* ---- Det: Gaussian elimination with row exchanges, unrolled. a: [b, m, m]; one step gives [b, m-1, m-1] and a factor
   of the result [b, 1, 1]. */
static ny_value *eliminate(ny_node *n, ny_value *a, int64_t m, ny_value **factor) {
  ny_dim b = ny_size(a, 0);
  ny_value *mag = ny_ew1(n, NY_abs, ny_squeeze_at(n, ny_slice_axis(n, a, 2, 0, 1), 2));
  ny_value *at = ny_reshape_to(n, ny_arg_reduce(n, mag, "max", 1, false), 3, (ny_dim[]){b, 1, 1});
  ny_value *hit = ny_ew2(n, NY_eq, ny_b_iota(&n->b, NY_i64, 3, (ny_dim[]){1, m, 1}, 1), at);
  ny_value *pivots = ny_gather_elements(n, a, ny_b_broadcast(&n->b, at, 3, (ny_dim[]){b, 1, m}), 1);
  ny_value *pivot = ny_slice_axis(n, pivots, 2, 0, 1), *one = ny_num(n, pivot, 1);
  ny_value *rest = ny_slice_axis(n, ny_where(n, hit, ny_slice_axis(n, a, 1, 0, 1), a), 1, 1, m - 1);
  ny_value *sign = ny_where(n, ny_ew2s(n, NY_eq, at, 0), one, ny_num(n, pivot, -1));
  *factor = ny_ew2(n, NY_mul, pivot, sign);
  ny_value *by = ny_where(n, ny_ew2s(n, NY_eq, pivot, 0), one, pivot);
  ny_value *scale = ny_ew2(n, NY_div, ny_slice_axis(n, rest, 2, 0, 1), by);
  return ny_ew2(n, NY_sub, ny_slice_axis(n, rest, 2, 1, m - 1),
                ny_ew2(n, NY_mul, scale, ny_slice_axis(n, pivots, 2, 1, m - 1)));
}

nyb_status ny_op_det(ny_node *n) {
  ny_value *x = n->in[0];
  int64_t m;
  int rank = ny_rank(x);
  if (rank < 2 || ny_size(x, rank - 1) != ny_size(x, rank - 2))
    return ny_node_fail(n, NYB_E_SHAPE, "Det needs square matrices");
  if (!ny_need_static(n, x, rank - 1, "the size of the matrix", &m)) return ny_failed(n);
  if (m < 1 || m > 32)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "matrices of %lld x %lld (1 to 32 are supported)", (long long)m,
                        (long long)m);
  ny_fmt f = ny_fmt_of(x);
  ny_dim many = ny_product(n, x->type->dim, rank - 2);
  ny_value *a = ny_reshape_to(n, ny_cast_to(n, x, f == NY_f64 ? f : NY_f32), 3, (ny_dim[]){many, m, m}), *det = NULL;
  for (int64_t k = m; k > 1 && a; k--) {
    ny_value *factor = NULL;
    a = eliminate(n, a, k, &factor);
    det = det ? ny_ew2(n, NY_mul, det, factor) : factor;
  }
  det = det ? ny_ew2(n, NY_mul, det, a) : a;
  return ny_out(n, 0, ny_cast_to(n, ny_reshape_to(n, det, rank - 2, x->type->dim), f));
}
