/* Weights of two layers as matrices, whatever views, panels and codes they are made of. How much of their difference
   the scales are to blame for is told by what is left when every block of codes gets the scale that suits it best. */
#include "compare_weights.h"

#include <math.h>
#include <string.h>

/* The weight of an op as [k, n]. */
typedef struct matrix {
  int64_t k, n, packed, rows; /* rows: k as stored */
  const ny_type *type;
  const void *data;
} matrix;

static bool shape_of(const ny_op *op, matrix *m) {
  const ny_type *w = ny_in(op, 1)->type, *y = op->out[0]->type;
  bool conv = op->kind == NY_conv;
  if (conv && op->attr[NY_AT(conv, group)].i != 1) return false;
  if (!conv && !op->attr[NY_AT(matmul, packed)].i && w->rank != 2) return false;
  *m = (matrix){.packed = op->attr[conv ? NY_AT(conv, packed) : NY_AT(matmul, packed)].i, .type = w, .k = 1};
  for (int i = 0; i < w->rank; i++)
    if (w->dim[i] < 0) return false;
  m->n = y->dim[y->rank - 1];
  if (m->packed > 0)
    m->k = w->dim[w->rank - 2];
  else if (m->packed < 0)
    m->k = ny_in(op, 0)->type->dim[ny_in(op, 0)->type->rank - 1], m->rows = w->dim[1];
  else
    for (int i = 0; i + 1 < w->rank; i++) m->k *= w->dim[i];
  return m->k > 0 && m->n > 0;
}

static int64_t at(const matrix *m, int64_t k, int64_t n) {
  if (m->packed > 0) return ((n / m->packed) * m->k + k) * m->packed + n % m->packed;
  return m->packed < 0 ? n * m->rows + k : k * m->n + n;
}

static double number(const matrix *m, int64_t k, int64_t n) {
  ny_fmt f = (ny_fmt)m->type->fmt;
  return ny_is_float(f) ? ny_get_f(f, m->data, (uint64_t)at(m, k, n)) : (double)ny_get_i(f, m->data, (uint64_t)at(m, k, n));
}

/* ---- codes */
/* The dequantize that v is, through views; NULL: none. */
static ny_op *codes_of(const ny_value *v) {
  for (int depth = 0; v->def && depth < 32; depth++) {
    if (v->def->kind == NY_dequantize) return v->def;
    if (v->def->n_in != 1) return NULL;
    v = ny_in(v->def, 0);
  }
  return NULL;
}

/* v as it would be if q's result were `data`: views move numbers of any meaning. */
static nyb_status instead(ny_layers *ls, ny_value *v, const ny_op *q, const ny_tensor *data, ny_arena *a, ny_tensor *out) {
  if (v->def == q) return *out = *data, NYB_OK;
  ny_tensor in;
  NY_TRY(instead(ls, ny_in(v->def, 0), q, data, a, &in));
  return ny_eval_op(ls->g, v->def, &in, a, out);
}

static const char *scheme_name(const ny_op *q, const ny_value *w, ny_arena *a) {
  if (!q) return ny_fmts[w->type->fmt].name;
  int64_t block = q->attr[NY_AT(dequantize, block)].i;
  const char *code = ny_fmts[ny_in(q, 0)->type->fmt].name;
  return block ? ny_strf(a, "%s/%lld", code, (long long)block) : code;
}

/* Codes as numbers, and the number of the scale that each shares, both as f32 tensors of q's result. */
static void expand(const ny_op *q, const ny_tensor *codes, ny_tensor *value, ny_tensor *scale, int64_t *n_scales) {
  const ny_type *t = q->out[0]->type, *s = ny_in(q, 1)->type;
  int64_t block = q->attr[NY_AT(dequantize, block)].i, i[NY_MAX_RANK] = {0}, n = 1, stride[NY_MAX_RANK];
  int axis = (int)q->attr[NY_AT(dequantize, axis)].i;
  if (axis < 0) axis += t->rank;
  *n_scales = 1;
  for (int d = t->rank - 1; d >= 0; d--) stride[d] = s->dim[d] == 1 ? 0 : *n_scales, *n_scales *= s->dim[d];
  for (int d = 0; d < t->rank; d++) n *= t->dim[d];
  ny_fmt f = (ny_fmt)codes->type->fmt;
  for (int64_t k = 0; k < n; k++) {
    int64_t which = 0;
    for (int d = 0; d < t->rank; d++) which += stride[d] * (block && d == axis ? i[d] / block : i[d]);
    ((float *)value->data)[k] = (float)(ny_is_float(f) ? ny_get_f(f, codes->data, (uint64_t)k) : (double)ny_get_i(f, codes->data, (uint64_t)k));
    ((float *)scale->data)[k] = (float)which;
    for (int d = t->rank - 1; d >= 0 && ++i[d] == t->dim[d]; d--) i[d] = 0;
  }
}

/* Squares left of w when each scale is the best for its codes: sum w^2 - (sum wc)^2 / sum c^2 a block. */
static double best_scales(const matrix *w, const matrix *code, const matrix *scale, int64_t n_scales, ny_arena *a) {
  double *cross = NY_NEW_ARRAY(a, double, n_scales), *square = NY_NEW_ARRAY(a, double, n_scales), left = 0;
  for (int64_t k = 0; k < w->k; k++)
    for (int64_t n = 0; n < w->n; n++) {
      double x = number(w, k, n), c = number(code, k, n);
      int64_t s = (int64_t)number(scale, k, n);
      cross[s] += x * c, square[s] += c * c, left += x * x;
    }
  for (int64_t s = 0; s < n_scales; s++)
    if (square[s] > 0) left -= cross[s] * cross[s] / square[s];
  return fmax(left, 0);
}

static nyb_status blame_scales(ny_layers *ls, const ny_op *op, const ny_op *q, const matrix *w, double total, double square, ny_arena *a, ny_pair *out) {
  enum { EXACT = 1 << 24 }; /* numbers of scales are f32 on their way */
  int64_t count, n_scales;
  ny_tensor codes, moved[2], t[2];
  if (q->n_in > 2 || !ny_type_static_count(ls->g->cx, q->out[0]->type, &count) || count >= (int64_t)EXACT * 16) return NYB_OK;
  NY_TRY(ny_layer_compute(ls, ny_in(q, 0), a, &codes));
  for (int i = 0; i < 2; i++) t[i] = (ny_tensor){ny_type_with_fmt(ls->g->cx, q->out[0]->type, NY_f32), ny_alloc(a, (size_t)count * sizeof(float))};
  expand(q, &codes, &t[0], &t[1], &n_scales);
  if (n_scales > EXACT) return NYB_OK;
  for (int i = 0; i < 2; i++) NY_TRY(instead(ls, ny_in(op, 1), q, &t[i], a, &moved[i]));
  matrix m[2];
  for (int i = 0; i < 2; i++) shape_of(op, &m[i]), m[i].type = moved[i].type, m[i].data = moved[i].data;
  out->error.scales = fmax(total - best_scales(w, &m[0], &m[1], n_scales, a), 0) / square;
  return NYB_OK;
}

static nyb_status weights(ny_layers *one, const ny_op *p, ny_layers *other, const ny_op *q, const ny_op *codes, ny_arena *a, ny_pair *out) {
  matrix m[2];
  ny_tensor t[2];
  if (!shape_of(p, &m[0]) || !shape_of(q, &m[1]) || m[0].k != m[1].k || m[0].n != m[1].n) return NYB_OK;
  NY_TRY(ny_layer_compute(one, ny_in(p, 1), a, &t[0]));
  NY_TRY(ny_layer_compute(other, ny_in(q, 1), a, &t[1]));
  m[0].data = t[0].data, m[1].data = t[1].data;
  double square = 0, total = 0;
  for (int64_t k = 0; k < m[0].k; k++)
    for (int64_t n = 0; n < m[0].n; n++) {
      double x = number(&m[0], k, n), e = number(&m[1], k, n) - x;
      square += x * x, total += e * e;
    }
  if (!(square > 0)) return NYB_OK;
  out->error.weights = total / square;
  return codes && total > 0 ? blame_scales(other, q, codes, &m[0], total, square, a, out) : NYB_OK;
}

nyb_status ny_compare_weights(ny_layers *one, const ny_op *p, ny_layers *other, const ny_op *q, ny_arena *a, ny_pair *out) {
  const ny_op *codes = codes_of(ny_in(q, 1));
  out->scheme[0] = scheme_name(codes_of(ny_in(p, 1)), ny_in(p, 1), a);
  out->scheme[1] = scheme_name(codes, ny_in(q, 1), a);
  ny_arena room = {0};
  nyb_status s = weights(one, p, other, q, codes, &room, out);
  ny_arena_free(&room);
  return s;
}
