/* Einsum and Det. Einsum takes diagonals, then joins the operands from left to right, each pair as one
   batched matmul; labels that nothing needs any more are summed first. */
#include "onnx.h"

#include <string.h>

enum {
  MAX_TERMS = 16,
  ELLIPSIS = 128
}; /* labels: letters, and ELLIPSIS + k for the dims of "...", counted from the right */
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
      return ny_node_fail(n, NYB_E_SHAPE, "the equation does not fit the operands at \"%.20s\"", p), false;
    for (int i = 0; i < add; i++) t->label[t->n++] = p[0] == '.' ? ELLIPSIS + dots - 1 - i : *p;
  }
  if (rank >= 0 && t->n != rank)
    return ny_node_fail(n, NYB_E_SHAPE, "%d labels for an operand of rank %d", t->n, rank), false;
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
      return ny_node_fail(n, NYB_E_SHAPE, "more terms in the equation than the %d operands", n->n_in), false;
    term *t = &q->in[q->n_in];
    if (!(t->v = ny_need(n, q->n_in)) || !labels(n, p, stop, ny_rank(t->v), 0, t)) return false;
    q->n_in++;
    for (int i = 0; i < t->n; i++)
      if (t->label[i] - ELLIPSIS >= dots) dots = t->label[i] - ELLIPSIS + 1;
    if (stop == end) break;
    p = stop;
  }
  if (q->n_in != n->n_in) return ny_node_fail(n, NYB_E_SHAPE, "%d terms for %d operands", q->n_in, n->n_in), false;
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

/* [batch..., rows, cols] with the labels of each kind flattened. */
static ny_value *as_matrix(ny_node *n, const term *t, const int *batch, int nb, const int *row, int nr, const int *col,
                           int nc) {
  int order[3 * NY_MAX_RANK], k = 0;
  for (int i = 0; i < nb; i++) order[k++] = batch[i];
  for (int i = 0; i < nr; i++) order[k++] = row[i];
  for (int i = 0; i < nc; i++) order[k++] = col[i];
  ny_value *v = aligned(n, t, order, k);
  ny_dim shape[NY_MAX_RANK], r = 1, c = 1;
  if (!v) return NULL;
  for (int i = 0; i < nb; i++) shape[i] = ny_size(v, i);
  for (int i = 0; i < nr; i++) r = ny_dim_mul(n->cx, r, ny_size(v, nb + i));
  for (int i = 0; i < nc; i++) c = ny_dim_mul(n->cx, c, ny_size(v, nb + nr + i));
  shape[nb] = r, shape[nb + 1] = c;
  return ny_reshape_to(n, v, nb + 2, shape);
}

/* a and b as one term. */
static bool join(ny_node *n, term *a, const term *b, const bool *needed) {
  int batch[NY_MAX_RANK], inner[NY_MAX_RANK], left[NY_MAX_RANK], right[NY_MAX_RANK], nb = 0, ni = 0, nl = 0, nr = 0;
  for (int i = 0; i < a->n; i++) {
    int label = a->label[i];
    if (find(b, label) < 0)
      left[nl++] = label;
    else if (needed[label])
      batch[nb++] = label;
    else
      inner[ni++] = label;
  }
  for (int i = 0; i < b->n; i++)
    if (find(a, b->label[i]) < 0) right[nr++] = b->label[i];
  int all[2 * NY_MAX_RANK], count = 0;
  for (int i = 0; i < nb; i++) all[count++] = batch[i];
  for (int i = 0; i < nl; i++) all[count++] = left[i];
  for (int i = 0; i < nr; i++) all[count++] = right[i];
  if (count > NY_MAX_RANK || nb + 2 > NY_MAX_RANK || nb + nl + ni > NY_MAX_RANK || nb + nr + ni > NY_MAX_RANK)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "a product of %d dimensions", count), false;
  ny_value *v;
  if (!ni) {
    v = ny_ew2(n, NY_mul, aligned(n, a, all, count), aligned(n, b, all, count));
  } else {
    for (int i = 0; i < ni; i++)
      if (!ny_unify(n, ny_size(a->v, find(a, inner[i])), ny_size(b->v, find(b, inner[i])), "dims of one label"))
        return false;
    ny_value *x = as_matrix(n, a, batch, nb, left, nl, inner, ni),
             *y = as_matrix(n, b, batch, nb, inner, ni, right, nr);
    v = x && y ? ny_b_matmul(&n->b, x, y) : NULL;
    ny_dim shape[2 * NY_MAX_RANK];
    for (int i = 0; i < nb && v; i++) shape[i] = ny_size(v, i);
    for (int i = 0; i < nl; i++) shape[nb + i] = ny_size(a->v, find(a, left[i]));
    for (int i = 0; i < nr; i++) shape[nb + nl + i] = ny_size(b->v, find(b, right[i]));
    v = ny_reshape_to(n, v, count, shape);
  }
  a->v = v, a->n = count;
  memcpy(a->label, all, sizeof(int) * (size_t)count);
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
 * of the result [b, 1, 1]. */
static ny_value *eliminate(ny_node *n, ny_value *a, int64_t m, ny_value **factor) {
  ny_dim b = ny_size(a, 0);
  ny_value *col = ny_squeeze_at(n, ny_slice_axis(n, a, 2, 0, 1), 2);
  ny_value *mag = ny_ew1(n, NY_abs, col);
  const ny_type *t = ny_tensor_type(n->cx, NY_i64, 1, &b);
  ny_op *arg = ny_build(&n->b, NY_argreduce, &mag, 1, &t, 1);
  if (!arg) return NULL;
  arg->attr[NY_AT(argreduce, axis)].i = 1;
  ny_value *at = ny_reshape_to(n, ny_done(n, arg), 3, (ny_dim[]){b, 1, 1}), *first = ny_slice_axis(n, a, 1, 0, 1);
  ny_value *row = ny_b_iota(&n->b, NY_i64, 3, (ny_dim[]){1, m, 1}, 1), *hit = ny_ew2(n, NY_eq, row, at);
  ny_value *wide = ny_b_broadcast(&n->b, at, 3, (ny_dim[]){b, 1, m});
  const ny_type *rt = first ? first->type : NULL;
  ny_op *pick = ny_build(&n->b, NY_gather_elements, (ny_value *[]){a, wide}, 2, &rt, 1);
  if (!pick) return NULL;
  pick->attr[NY_AT(gather_elements, axis)].i = 1;
  ny_value *pivots = ny_done(n, pick), *pivot = ny_slice_axis(n, pivots, 2, 0, 1);
  ny_value *rest = ny_slice_axis(n, ny_ew(n, NY_where, (ny_value *[]){hit, first, a}, 3), 1, 1, m - 1);
  if (!pivot || !rest) return NULL;
  ny_value *zero = ny_num(n, pivot, 0), *one = ny_num(n, pivot, 1);
  ny_value *sign = ny_ew(n, NY_where, (ny_value *[]){ny_ew2s(n, NY_eq, at, 0), one, ny_num(n, pivot, -1)}, 3);
  *factor = ny_ew2(n, NY_mul, pivot, sign);
  ny_value *by = ny_ew(n, NY_where, (ny_value *[]){ny_ew2(n, NY_eq, pivot, zero), one, pivot}, 3);
  ny_value *scale = ny_ew2(n, NY_div, ny_slice_axis(n, rest, 2, 0, 1), by);
  return ny_ew2(n, NY_sub, ny_slice_axis(n, rest, 2, 1, m - 1),
                ny_ew2(n, NY_mul, scale, ny_slice_axis(n, pivots, 2, 1, m - 1)));
}

nyb_status ny_op_det(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int64_t m;
  if (!x) return ny_failed(n);
  int rank = ny_rank(x);
  if (rank < 2 || ny_size(x, rank - 1) != ny_size(x, rank - 2))
    return ny_node_fail(n, NYB_E_SHAPE, "Det needs square matrices");
  if (!ny_need_static(n, x, rank - 1, "the size of the matrix", &m)) return ny_failed(n);
  if (m < 1 || m > 32)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "matrices of %lld x %lld (1 to 32 are supported)", (long long)m,
                        (long long)m);
  ny_dim many = 1;
  for (int i = 0; i < rank - 2; i++) many = ny_dim_mul(n->cx, many, ny_size(x, i));
  ny_fmt f = ny_fmt_of(x);
  ny_value *a = ny_reshape_to(n, ny_cast_to(n, x, f == NY_f64 ? f : NY_f32), 3, (ny_dim[]){many, m, m}), *det = NULL;
  for (int64_t k = m; k > 1 && a; k--) {
    ny_value *factor = NULL;
    a = eliminate(n, a, k, &factor);
    det = det ? ny_ew2(n, NY_mul, det, factor) : factor;
  }
  det = a && det ? ny_ew2(n, NY_mul, det, a) : a;
  det = ny_reshape_to(n, det, rank - 2, x->type->dim);
  return ny_out(n, 0, ny_cast_to(n, det, f));
}
