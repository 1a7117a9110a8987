/* Upper bounds of sizes as sums of products of symbols, with coefficients that are multiples of the alignment. Sizes of
   a network of convolutions over a symbolic image are nested quotients that no two of compare; their bounds compare
   coefficient by coefficient, and the larger of two is never more than the coefficient-wise maximum. place falls back
   on them when exact offsets cannot be expressed; the price is a few per cent of memory. */
#include "place.h"

#include <math.h>
#include <string.h>

enum { MAX_TERMS = 40, MAX_FACTORS = 8, MAX_DEPTH = 60 };
typedef struct term {
  double c;
  int n;
  ny_dim sym[MAX_FACTORS]; /* sorted */
} term;
typedef struct poly {
  term t[MAX_TERMS];
  int n;
  bool bad;
} poly;

static bool same_factors(const term *a, const term *b) {
  return a->n == b->n && !memcmp(a->sym, b->sym, sizeof a->sym[0] * (size_t)a->n);
}

static void put(poly *p, const term *t, bool larger) {
  for (int i = 0; i < p->n; i++)
    if (same_factors(&p->t[i], t)) {
      p->t[i].c = larger ? fmax(p->t[i].c, t->c) : p->t[i].c + t->c;
      return;
    }
  if (p->n == MAX_TERMS)
    p->bad = true;
  else
    p->t[p->n++] = *t;
}

static void put_all(poly *p, const poly *q, bool larger) {
  p->bad |= q->bad;
  for (int i = 0; i < q->n; i++) put(p, &q->t[i], larger);
}

static void scale(poly *p, double c) {
  for (int i = 0; i < p->n; i++) p->t[i].c *= c;
}

static void multiply(const poly *a, const poly *b, poly *out) {
  *out = (poly){.bad = a->bad || b->bad};
  for (int i = 0; i < a->n; i++)
    for (int j = 0; j < b->n; j++) {
      term t = a->t[i];
      t.c *= b->t[j].c;
      if (t.n + b->t[j].n > MAX_FACTORS) {
        out->bad = true;
        return;
      }
      for (int k = 0; k < b->t[j].n; k++) {
        int at = t.n++;
        for (; at > 0 && t.sym[at - 1] > b->t[j].sym[k]; at--) t.sym[at] = t.sym[at - 1];
        t.sym[at] = b->t[j].sym[k];
      }
      put(out, &t, false);
    }
}

static void constant(double c, poly *out) {
  *out = (poly){.n = 0};
  if (c > 0) put(out, &(term){.c = c}, false);
}

static double at_nominal(const poly *p) {
  double x = 0;
  for (int i = 0; i < p->n; i++) x += p->t[i].c * pow(NY_PLACE_NOMINAL, p->t[i].n);
  return x;
}

/* An upper bound of d, at least 0; symbols are >= 0. What is subtracted is left out. */
static void bound(ny_ctx *cx, ny_dim d, int depth, poly *out) {
  int64_t v;
  poly a, b;
  if (ny_dim_is_const(cx, d, &v)) {
    constant((double)v, out);
    return;
  }
  const ny_dim_node *n = ny_dim_get(cx, d);
  *out = (poly){.bad = depth > MAX_DEPTH};
  if (out->bad) return;
  if (n->kind == NY_DIM_SYM) {
    put(out, &(term){.c = 1, .n = 1, .sym = {d}}, false);
    return;
  }
  if (n->kind == NY_DIM_LT) {
    constant(1, out);
    return;
  }
  bound(cx, n->a, depth + 1, &a);
  bound(cx, n->b, depth + 1, &b);
  switch (n->kind) {
  case NY_DIM_ADD:
    *out = a;
    put_all(out, &b, false);
    return;
  case NY_DIM_MUL: multiply(&a, &b, out); return;
  case NY_DIM_MAX:
    *out = a;
    put_all(out, &b, true);
    return;
  case NY_DIM_MIN: *out = at_nominal(&a) <= at_nominal(&b) ? a : b; return;
  case NY_DIM_MOD: *out = b; return;
  case NY_DIM_DIV:
    *out = a;
    if (ny_dim_is_const(cx, n->b, &v) && v > 0) scale(out, 1 / (double)v);
    return;
  default: out->bad = true;
  }
}

struct ny_bounds {
  ny_ctx *cx;
  poly most; /* the largest coefficient of each product */
};

ny_bounds *ny_bounds_new(ny_ctx *cx, ny_arena *a) {
  ny_bounds *b = NY_NEW(a, ny_bounds);
  b->cx = cx;
  return b;
}

void ny_bounds_see(ny_bounds *b, ny_dim d) {
  poly p = {.bad = true};
  if (d != NY_DIM_INVALID) bound(b->cx, d, 0, &p);
  put_all(&b->most, &p, true);
}

/* A product m counts in steps of `grain`, ceil(m / grain), so that a fraction of a byte a pixel is not rounded up to
   the alignment: the same grain for every buffer, or their sizes would not compare, and such that the alignment is
   little beside the largest. */
static int64_t grain_of(const ny_bounds *b, const term *t) {
  enum { MOST = 1024 };
  const double little = 16.0 * (double)NY_PLACE_ALIGN;
  int64_t g = 1;
  for (int i = 0; i < b->most.n && t->n; i++)
    if (same_factors(&b->most.t[i], t))
      while (g < MOST && b->most.t[i].c * (double)g < little) g *= 2;
  return g;
}

ny_dim ny_bounds_of(ny_bounds *b, ny_dim d) {
  ny_ctx *cx = b->cx;
  poly p;
  ny_dim sum = 0;
  if (d == NY_DIM_INVALID || b->most.bad) return NY_DIM_INVALID;
  bound(cx, d, 0, &p);
  if (p.bad) return NY_DIM_INVALID;
  for (int i = 0; i < p.n; i++) {
    const term *t = &p.t[i];
    int64_t grain = grain_of(b, t);
    double align = NY_PLACE_ALIGN, c = ceil(t->c * (double)grain * (1 + 1e-9) / align) * align;
    if (!(c < 9e15)) return NY_DIM_INVALID;
    ny_dim m = 1;
    for (int k = 0; k < t->n; k++) m = ny_dim_mul(cx, m, t->sym[k]);
    sum = ny_dim_add(cx, sum, ny_dim_mul(cx, ny_dim_ceildiv(cx, m, grain), ny_dim_const(cx, (int64_t)c)));
  }
  return sum;
}

/* Opens a sum of such terms: what is divided is one factor. */
static void open_sum(ny_ctx *cx, ny_dim d, poly *p) {
  int64_t c = 1;
  for (; d < 0 && ny_dim_get(cx, d)->kind == NY_DIM_ADD; d = ny_dim_get(cx, d)->a)
    open_sum(cx, ny_dim_get(cx, d)->b, p);
  if (ny_dim_is_const(cx, d, &c)) {
    put(p, &(term){.c = (double)c}, false);
    return;
  }
  const ny_dim_node *n = ny_dim_get(cx, d);
  if (n->kind == NY_DIM_MUL && ny_dim_is_const(cx, n->b, &c))
    d = n->a; /* the coefficient stands last */
  else
    c = 1;
  put(p, &(term){.c = (double)c, .n = 1, .sym = {d}}, false);
}

ny_dim ny_place_max(ny_ctx *cx, ny_dim a, ny_dim b) {
  poly p = {.n = 0}, q = {.n = 0};
  ny_dim sum = 0;
  open_sum(cx, a, &p);
  open_sum(cx, b, &q);
  put_all(&p, &q, true);
  for (int i = 0; i < p.n; i++)
    sum = ny_dim_add(cx, sum, ny_dim_mul(cx, p.t[i].n ? p.t[i].sym[0] : 1, ny_dim_const(cx, (int64_t)p.t[i].c)));
  return p.bad ? NY_DIM_INVALID : sum;
}
