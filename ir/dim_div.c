/* Dimension expressions: division, remainder, minimum, maximum and comparison. Each first simplifies as far as exact
   integer reasoning goes (common factors, whole quotients, known bounds) and keeps the rest as an atom. Divisors that
   are symbols are taken to be non-zero, as sizes that divide something are. */
#include <stdlib.h>

#include "dim.h"

int64_t ny_floor_div(int64_t a, int64_t b) {
  int64_t q = a / b;
  return a % b && (a % b < 0) != (b < 0) ? q - 1 : q;
}

int64_t ny_floor_mod(int64_t a, int64_t b) {
  int64_t r = b == -1 ? 0 : a % b;
  return r && (r < 0) != (b < 0) ? r + b : r;
}

static uint64_t magnitude(int64_t v) { return v < 0 ? 0 - (uint64_t)v : (uint64_t)v; }

static int64_t gcd(int64_t a, int64_t b) { /* b > 0 */
  uint64_t x = magnitude(a), y = (uint64_t)b;
  while (x) {
    uint64_t r = y % x;
    y = x;
    x = r;
  }
  return (int64_t)y;
}

/* The greatest common divisor of k and the coefficients of the non-constant terms; k when there are none. */
static int64_t common_factor(const ny_poly *p, int64_t k) {
  for (uint32_t i = 0; i < p->n; i++)
    if (p->t[i].n) k = gcd(p->t[i].coef, k);
  return k;
}

static bool has_symbols(const ny_poly *p) { return p->n > 1 || (p->n == 1 && p->t[0].n); }
static int64_t constant_term(const ny_poly *p) {
  for (uint32_t i = 0; i < p->n; i++)
    if (!p->t[i].n) return p->t[i].coef;
  return 0;
}

/* p = q * k + r with |coefficients of r| < k and its constant in 0..k-1. */
static void split_by(const ny_poly *p, int64_t k, ny_poly *q, ny_poly *r) {
  q->n = r->n = 0;
  q->bad = r->bad = p->bad;
  for (uint32_t i = 0; i < p->n; i++) {
    const ny_term *t = &p->t[i];
    int64_t whole = t->n ? t->coef / k : ny_floor_div(t->coef, k);
    ny_poly_add(q, whole, t->atom, t->n);
    ny_poly_add(r, t->coef - whole * k, t->atom, t->n);
  }
}

static void scale_down(ny_poly *p, int64_t g) {
  ny_poly out = {.n = 0, .bad = p->bad};
  for (uint32_t i = 0; i < p->n; i++) {
    const ny_term *t = &p->t[i];
    ny_poly_add(&out, t->n ? t->coef / g : ny_floor_div(t->coef, g), t->atom, t->n);
  }
  *p = out;
}

/* True when d is x/m + c for a constant m > 0: then d/k is (x + c*m) / (m*k). */
static bool nested_div(ny_ctx *cx, const ny_poly *p, int64_t k, ny_dim *num, int64_t *den) {
  const ny_term *t = NULL;
  for (uint32_t i = 0; i < p->n; i++) {
    if (!p->t[i].n) continue;
    if (t || p->t[i].n != 1 || p->t[i].coef != 1) return false;
    t = &p->t[i];
  }
  const ny_dim_node *n = t ? ny_dim_get(cx, t->atom[0]) : NULL;
  int64_t m, add;
  if (!n || n->kind != NY_DIM_DIV || !ny_dim_is_const(cx, n->b, &m) || m <= 0) return false;
  if (__builtin_mul_overflow(m, k, den) || __builtin_mul_overflow(m, constant_term(p), &add)) return false;
  *num = ny_dim_add(cx, n->a, ny_dim_const(cx, add));
  return *num != NY_DIM_INVALID;
}

static ny_dim div_const(ny_ctx *cx, ny_dim a, int64_t k) { /* k > 1 */
  ny_poly p, q, r;
  ny_poly_of(cx, a, &p);
  split_by(&p, k, &q, &r);
  ny_dim whole = ny_poly_dim(cx, &q);
  if (!has_symbols(&r)) return whole;
  int64_t g = common_factor(&r, k), lo, hi, den;
  if (g > 1) scale_down(&r, g);
  k /= g;
  ny_dim rest = ny_poly_dim(cx, &r), num;
  if (rest == NY_DIM_INVALID) return rest;
  ny_dim_bounds(cx, rest, &lo, &hi);
  if (lo != INT64_MIN && hi != INT64_MAX && ny_floor_div(lo, k) == ny_floor_div(hi, k))
    return ny_dim_add(cx, whole, ny_dim_const(cx, ny_floor_div(lo, k)));
  if (nested_div(cx, &r, k, &num, &den)) return ny_dim_add(cx, whole, ny_dim_div(cx, num, ny_dim_const(cx, den)));
  return ny_dim_add(cx, whole, ny_dim_node_new(cx, NY_DIM_DIV, rest, ny_dim_const(cx, k), 0, NULL));
}

/* The terms of a that the single term u divides go to q (divided), the others stay in r. */
static void split_by_term(const ny_poly *p, const ny_term *u, ny_poly *q, ny_poly *r) {
  q->n = r->n = 0;
  q->bad = r->bad = p->bad;
  for (uint32_t i = 0; i < p->n; i++) {
    ny_term t;
    if (ny_term_divide(&p->t[i], u, &t))
      ny_poly_add(q, t.coef, t.atom, t.n);
    else
      ny_poly_add(r, p->t[i].coef, p->t[i].atom, p->t[i].n);
  }
}

/* What every term of p and u share. */
static void shared_factor(const ny_poly *p, const ny_term *u, ny_term *out) {
  *out = *u;
  out->coef = u->coef < 0 ? -u->coef : u->coef;
  for (uint32_t i = 0; i < p->n; i++) {
    const ny_term *t = &p->t[i];
    out->coef = gcd(t->coef, out->coef);
    uint32_t n = 0, j = 0;
    for (uint32_t e = 0; e < out->n; e++) { /* atoms of both, counted: t's may be in any position */
      for (j = 0; j < t->n && t->atom[j] != out->atom[e]; j++) {}
      uint32_t have = 0, used = 0;
      for (uint32_t x = 0; x < t->n; x++) have += t->atom[x] == out->atom[e];
      for (uint32_t x = 0; x < n; x++) used += out->atom[x] == out->atom[e];
      if (used < have) out->atom[n++] = out->atom[e];
    }
    out->n = n;
  }
}

static void divide_all(ny_poly *p, const ny_term *u) {
  ny_poly q, r;
  split_by_term(p, u, &q, &r);
  q.bad |= r.n != 0;
  *p = q;
}

static ny_dim div_term(ny_ctx *cx, ny_dim a, ny_dim b, const ny_term *u) {
  ny_poly p, q, r;
  ny_poly_of(cx, a, &p);
  split_by_term(&p, u, &q, &r);
  ny_dim whole = ny_poly_dim(cx, &q);
  if (!r.n || whole == NY_DIM_INVALID) return whole;
  ny_term g;
  shared_factor(&r, u, &g);
  if (g.n || g.coef > 1) {
    ny_poly den = {.n = 1, .bad = false};
    den.t[0] = *u;
    divide_all(&r, &g);
    divide_all(&den, &g);
    return ny_dim_add(cx, whole, ny_dim_div(cx, ny_poly_dim(cx, &r), ny_poly_dim(cx, &den)));
  }
  return ny_dim_add(cx, whole, ny_dim_node_new(cx, NY_DIM_DIV, ny_poly_dim(cx, &r), b, 0, NULL));
}

/* a / b when it leaves nothing over: leading terms are divided until a is used up. */
static bool exact_quotient(ny_ctx *cx, ny_dim a, ny_dim b, ny_dim *out) {
  ny_dim sum = 0;
  for (int step = 0; step < 16 && a != NY_DIM_INVALID; step++) {
    if (a == 0) {
      *out = sum;
      return sum != NY_DIM_INVALID;
    }
    ny_poly p, d, q = {.n = 0, .bad = false};
    ny_poly_of(cx, a, &p);
    ny_poly_of(cx, b, &d);
    /* ny_poly_of lists terms from the last to the first */
    ny_term t;
    if (p.n < 1 || !ny_term_divide(&p.t[p.n - 1], &d.t[d.n - 1], &t)) return false;
    ny_poly_add(&q, t.coef, t.atom, t.n);
    ny_dim part = ny_poly_dim(cx, &q);
    sum = ny_dim_add(cx, sum, part);
    a = ny_dim_sub(cx, a, ny_dim_mul(cx, part, b));
  }
  return false;
}

static bool below(ny_ctx *cx, ny_dim a, ny_dim b) { /* provably 0 <= a < b */
  int64_t lo, hi, gap;
  ny_dim_bounds(cx, a, &lo, &hi);
  ny_dim d = ny_dim_sub(cx, b, a);
  if (lo < 0 || d == NY_DIM_INVALID) return false;
  ny_dim_bounds(cx, d, &gap, &hi);
  return gap > 0;
}

ny_dim ny_dim_div(ny_ctx *cx, ny_dim a, ny_dim b) {
  int64_t x, k;
  if (a == NY_DIM_INVALID || b == NY_DIM_INVALID || b == 0) return NY_DIM_INVALID;
  bool known = ny_dim_is_const(cx, b, &k);
  if (known && ny_dim_is_const(cx, a, &x))
    return x == INT64_MIN && k == -1 ? NY_DIM_INVALID : ny_dim_const(cx, ny_floor_div(x, k));
  if (b == 1 || a == 0) return a;
  if (a == b) return 1;
  ny_dim minus = ny_dim_const(cx, -1), q;
  if (known && k < 0) return ny_dim_div(cx, ny_dim_mul(cx, a, minus), ny_dim_mul(cx, b, minus));
  if (known) return div_const(cx, a, k);
  if (below(cx, a, b)) return 0;
  ny_poly d;
  ny_poly_of(cx, b, &d);
  if (d.n == 1) return div_term(cx, a, b, &d.t[0]);
  if (exact_quotient(cx, a, b, &q)) return q;
  return ny_dim_node_new(cx, NY_DIM_DIV, a, b, 0, NULL);
}

ny_dim ny_dim_ceildiv(ny_ctx *cx, ny_dim a, ny_dim b) {
  return ny_dim_div(cx, ny_dim_add(cx, a, ny_dim_sub(cx, b, 1)), b);
}

/* Inside a remainder by k, x % (k*j) may be replaced by x. */
static ny_dim strip_mods(ny_ctx *cx, ny_dim a, int64_t k) {
  ny_poly p;
  ny_poly_of(cx, a, &p);
  for (uint32_t i = 0; i < p.n; i++) {
    if (p.t[i].n != 1) continue;
    const ny_dim_node n = *ny_dim_get(cx, p.t[i].atom[0]);
    int64_t big;
    if (n.kind != NY_DIM_MOD || !ny_dim_is_const(cx, n.b, &big) || big <= 0 || big % k) continue;
    ny_dim change = ny_dim_mul(cx, ny_dim_sub(cx, n.a, p.t[i].atom[0]), ny_dim_const(cx, p.t[i].coef));
    return ny_dim_add(cx, a, change);
  }
  return a;
}

static ny_dim mod_const(ny_ctx *cx, ny_dim a, int64_t k) { /* k > 1 */
  for (int i = 0; i < NY_DIM_MAX_TERMS; i++) {
    ny_dim b = strip_mods(cx, a, k);
    if (b == a) break;
    if (b == NY_DIM_INVALID) return b;
    a = b;
  }
  ny_poly p, q, r;
  ny_poly_of(cx, a, &p);
  split_by(&p, k, &q, &r);
  int64_t g = common_factor(&r, k), lo, hi, over = ny_floor_mod(constant_term(&r), g);
  if (!has_symbols(&r)) return ny_poly_dim(cx, &r);
  if (g > 1) { /* (g*x + c) % (g*m) = g * ((x + c/g) % m) + c%g */
    scale_down(&r, g);
    ny_dim m = ny_dim_mod(cx, ny_poly_dim(cx, &r), ny_dim_const(cx, k / g));
    return ny_dim_add(cx, ny_dim_mul(cx, m, ny_dim_const(cx, g)), ny_dim_const(cx, over));
  }
  ny_dim rest = ny_poly_dim(cx, &r);
  if (rest == NY_DIM_INVALID) return rest;
  ny_dim_bounds(cx, rest, &lo, &hi);
  int64_t base;
  if (lo != INT64_MIN && hi != INT64_MAX && ny_floor_div(lo, k) == ny_floor_div(hi, k) &&
      !__builtin_mul_overflow(ny_floor_div(lo, k), k, &base))
    return ny_dim_sub(cx, rest, ny_dim_const(cx, base));
  return ny_dim_node_new(cx, NY_DIM_MOD, rest, ny_dim_const(cx, k), 0, NULL);
}

ny_dim ny_dim_mod(ny_ctx *cx, ny_dim a, ny_dim b) {
  int64_t x, k;
  if (a == NY_DIM_INVALID || b == NY_DIM_INVALID || b == 0) return NY_DIM_INVALID;
  bool known = ny_dim_is_const(cx, b, &k);
  if (known && ny_dim_is_const(cx, a, &x)) return ny_dim_const(cx, ny_floor_mod(x, k));
  if (b == 1 || a == 0 || a == b) return 0;
  ny_dim minus = ny_dim_const(cx, -1), q;
  if (known && k < 0) return ny_dim_mul(cx, minus, ny_dim_mod(cx, ny_dim_mul(cx, a, minus), ny_dim_mul(cx, b, minus)));
  if (known) return mod_const(cx, a, k);
  if (below(cx, a, b)) return a;
  ny_poly d, p, whole, r;
  ny_poly_of(cx, b, &d);
  if (d.n == 1) {
    ny_poly_of(cx, a, &p);
    split_by_term(&p, &d.t[0], &whole, &r);
    a = ny_poly_dim(cx, &r);
    if (a == 0) return 0;
    if (below(cx, a, b)) return a;
  } else if (exact_quotient(cx, a, b, &q)) {
    return 0;
  }
  return ny_dim_node_new(cx, NY_DIM_MOD, a, b, 0, NULL);
}

enum { MAX_CHAIN = 32 };
typedef struct chain {
  ny_dim v[MAX_CHAIN];
  int n;
} chain;

/* Adds x unless an operand already there decides against it; drops those it decides against. */
static bool chain_add(ny_ctx *cx, chain *c, ny_dim x, bool want_max) {
  for (int i = 0; i < c->n; i++) {
    int64_t lo, hi;
    ny_dim d = ny_dim_sub(cx, x, c->v[i]);
    if (d == NY_DIM_INVALID) continue;
    ny_dim_bounds(cx, d, &lo, &hi);
    if (want_max ? hi <= 0 : lo >= 0) return true;
    if (want_max ? lo >= 0 : hi <= 0) c->v[i--] = c->v[--c->n];
  }
  if (c->n == MAX_CHAIN) return false;
  c->v[c->n++] = x;
  return true;
}

static bool chain_open(ny_ctx *cx, chain *c, ny_dim d, ny_dim_kind kind) {
  for (; d < 0 && ny_dim_get(cx, d)->kind == kind; d = ny_dim_get(cx, d)->a)
    if (!chain_add(cx, c, ny_dim_get(cx, d)->b, kind == NY_DIM_MAX)) return false;
  return chain_add(cx, c, d, kind == NY_DIM_MAX);
}

static ny_dim extreme(ny_ctx *cx, ny_dim a, ny_dim b, ny_dim_kind kind) {
  if (a == NY_DIM_INVALID || b == NY_DIM_INVALID) return NY_DIM_INVALID;
  chain c = {.n = 0};
  if (!chain_open(cx, &c, a, kind) || !chain_open(cx, &c, b, kind)) return NY_DIM_INVALID;
  for (int i = 1; i < c.n; i++) {
    ny_dim x = c.v[i];
    int j = i;
    for (; j && ny_dim_order(cx, x, c.v[j - 1]) < 0; j--) c.v[j] = c.v[j - 1];
    c.v[j] = x;
  }
  ny_dim d = c.v[0];
  for (int i = 1; i < c.n; i++) d = ny_dim_node_new(cx, kind, d, c.v[i], 0, NULL);
  return d;
}

ny_dim ny_dim_min(ny_ctx *cx, ny_dim a, ny_dim b) { return extreme(cx, a, b, NY_DIM_MIN); }
ny_dim ny_dim_max(ny_ctx *cx, ny_dim a, ny_dim b) { return extreme(cx, a, b, NY_DIM_MAX); }

/* Terms move so that both sides are sums with positive coefficients. */
ny_dim ny_dim_lt(ny_ctx *cx, ny_dim a, ny_dim b) {
  ny_dim d = ny_dim_sub(cx, b, a);
  if (d == NY_DIM_INVALID) return d;
  int64_t lo, hi;
  ny_dim_bounds(cx, d, &lo, &hi);
  if (lo > 0) return 1;
  if (hi <= 0) return 0;
  ny_poly p, left = {.n = 0, .bad = false}, right = {.n = 0, .bad = false};
  ny_poly_of(cx, d, &p);
  for (uint32_t i = 0; i < p.n; i++) {
    const ny_term *t = &p.t[i];
    if (t->coef == INT64_MIN) return NY_DIM_INVALID;
    if (t->coef < 0)
      ny_poly_add(&left, -t->coef, t->atom, t->n);
    else
      ny_poly_add(&right, t->coef, t->atom, t->n);
  }
  return ny_dim_node_new(cx, NY_DIM_LT, ny_poly_dim(cx, &left), ny_poly_dim(cx, &right), 0, NULL);
}
