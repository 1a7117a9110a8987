/* Dimension expressions: everything that walks one without changing it, and substitution. Walks recurse:
 * ny_dim_node_new bounds size. */
#include "dim.h"

void ny_dim_symbols(const ny_ctx *cx, ny_dim d, ny_name **list, size_t *n, size_t *cap, ny_arena *a) {
  if (d >= 0 || d == NY_DIM_INVALID) return;
  const ny_dim_node *x = ny_dim_get(cx, d);
  if (x->kind == NY_DIM_SYM) {
    for (size_t i = 0; i < *n; i++)
      if ((*list)[i] == x->name) return;
    NY_PUSH_ROOM(a, *list, *n, *cap);
    (*list)[(*n)++] = x->name;
  } else if (x->kind != NY_DIM_CONST) {
    ny_dim_symbols(cx, x->a, list, n, cap, a);
    ny_dim_symbols(cx, x->b, list, n, cap, a);
  }
}

bool ny_dim_uses(const ny_ctx *cx, ny_dim d, ny_name sym) {
  if (d >= 0 || d == NY_DIM_INVALID) return false;
  const ny_dim_node *x = ny_dim_get(cx, d);
  if (x->kind == NY_DIM_SYM) return x->name == sym;
  return x->kind != NY_DIM_CONST && (ny_dim_uses(cx, x->a, sym) || ny_dim_uses(cx, x->b, sym));
}

static ny_dim combine(ny_ctx *cx, ny_dim_kind kind, ny_dim a, ny_dim b) {
  switch (kind) {
  case NY_DIM_ADD: return ny_dim_add(cx, a, b);
  case NY_DIM_MUL: return ny_dim_mul(cx, a, b);
  case NY_DIM_DIV: return ny_dim_div(cx, a, b);
  case NY_DIM_MOD: return ny_dim_mod(cx, a, b);
  case NY_DIM_MIN: return ny_dim_min(cx, a, b);
  case NY_DIM_MAX: return ny_dim_max(cx, a, b);
  case NY_DIM_LT: return ny_dim_lt(cx, a, b);
  default: return NY_DIM_INVALID;
  }
}

ny_dim ny_dim_subst(ny_ctx *cx, ny_dim d, ny_name sym, ny_dim with) {
  if (!ny_dim_uses(cx, d, sym)) return d;
  const ny_dim_node x = *ny_dim_get(cx, d); /* a copy: the table may move */
  if (x.kind == NY_DIM_SYM) return with;
  ny_dim a = ny_dim_subst(cx, x.a, sym, with), b = ny_dim_subst(cx, x.b, sym, with);
  return combine(cx, x.kind, a, b);
}

static bool eval_div(ny_dim_kind kind, int64_t a, int64_t b, int64_t *out) {
  if (b == 0 || (a == INT64_MIN && b == -1)) return false;
  *out = kind == NY_DIM_DIV ? ny_floor_div(a, b) : ny_floor_mod(a, b);
  return true;
}

bool ny_dim_eval(const ny_ctx *cx, ny_dim d, const ny_binding *env, size_t n_env, int64_t *out) {
  if (d == NY_DIM_INVALID) return false;
  if (ny_dim_is_const(cx, d, out)) return true;
  const ny_dim_node *x = ny_dim_get(cx, d);
  if (x->kind == NY_DIM_SYM) {
    for (size_t i = 0; i < n_env; i++) {
      if (env[i].sym != x->name) continue;
      *out = env[i].value;
      return true;
    }
    return false;
  }
  int64_t a, b;
  if (!ny_dim_eval(cx, x->a, env, n_env, &a) || !ny_dim_eval(cx, x->b, env, n_env, &b)) return false;
  switch (x->kind) {
  case NY_DIM_ADD: return !__builtin_add_overflow(a, b, out);
  case NY_DIM_MUL: return !__builtin_mul_overflow(a, b, out);
  case NY_DIM_MIN: *out = a < b ? a : b; return true;
  case NY_DIM_MAX: *out = a > b ? a : b; return true;
  case NY_DIM_LT: *out = a < b; return true;
  default: return eval_div(x->kind, a, b, out);
  }
}

typedef struct range {
  int64_t lo, hi; /* INT64_MIN and INT64_MAX: unbounded */
} range;

static bool infinite(int64_t v) { return v == INT64_MIN || v == INT64_MAX; }

static int64_t sat_add(int64_t a,
                       int64_t b) { /* infinite ends never meet their opposites: both are lows or both highs */
  int64_t v;
  if (infinite(a)) return a;
  if (infinite(b)) return b;
  if (__builtin_add_overflow(a, b, &v)) return a < 0 ? INT64_MIN : INT64_MAX;
  return v;
}

static int64_t sat_mul(int64_t a, int64_t b) {
  int64_t v;
  if (a == 0 || b == 0) return 0;
  if (infinite(a) || infinite(b) || __builtin_mul_overflow(a, b, &v)) return (a < 0) != (b < 0) ? INT64_MIN : INT64_MAX;
  return v;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static range mul_range(range a, range b) {
  int64_t p = sat_mul(a.lo, b.lo), q = sat_mul(a.lo, b.hi), r = sat_mul(a.hi, b.lo), s = sat_mul(a.hi, b.hi);
  return (range){least(least(p, q), least(r, s)), most(most(p, q), most(r, s))};
}

static range div_range(range a, range b) {
  if (b.lo < 0) return (range){INT64_MIN, INT64_MAX};
  int64_t k = b.lo > 0 ? b.lo : 1; /* a divisor is not zero */
  range r = {a.lo, a.hi};
  if (!infinite(a.hi)) r.hi = a.hi >= 0 ? a.hi / k : b.hi == INT64_MAX ? -1 : ny_floor_div(a.hi, b.hi ? b.hi : 1);
  if (!infinite(a.lo)) r.lo = a.lo < 0 ? ny_floor_div(a.lo, k) : infinite(b.hi) || !b.hi ? 0 : a.lo / b.hi;
  return r;
}

static range mod_range(range a, range b) {
  if (b.lo < 0) return (range){INT64_MIN, INT64_MAX};
  int64_t top = infinite(b.hi) ? INT64_MAX : most(b.hi - 1, 0);
  return (range){0, a.lo >= 0 ? least(top, a.hi) : top};
}

typedef struct known { /* symbols of which more is known than that they are not negative */
  const ny_dim_limit *at;
  size_t n;
} known;

static range limit_of(const known *k, ny_name sym) {
  for (size_t i = k->n; i-- > 0;)
    if (k->at[i].sym == sym) return (range){k->at[i].lo, k->at[i].hi};
  return (range){0, INT64_MAX};
}

static range range_with(const ny_ctx *cx, ny_dim d, const known *k) {
  int64_t v;
  if (d == NY_DIM_INVALID) return (range){INT64_MIN, INT64_MAX};
  if (ny_dim_is_const(cx, d, &v)) return (range){v, v};
  const ny_dim_node *x = ny_dim_get(cx, d);
  if (x->kind == NY_DIM_SYM) return limit_of(k, x->name);
  if (x->kind == NY_DIM_LT) return (range){0, 1};
  range a = range_with(cx, x->a, k), b = range_with(cx, x->b, k);
  switch (x->kind) {
  case NY_DIM_ADD: return (range){sat_add(a.lo, b.lo), sat_add(a.hi, b.hi)};
  case NY_DIM_MUL: return mul_range(a, b);
  case NY_DIM_MIN: return (range){least(a.lo, b.lo), least(a.hi, b.hi)};
  case NY_DIM_MAX: return (range){most(a.lo, b.lo), most(a.hi, b.hi)};
  case NY_DIM_DIV: return div_range(a, b);
  default: return mod_range(a, b);
  }
}

static range range_of(const ny_ctx *cx, ny_dim d) { return range_with(cx, d, &(known){NULL, 0}); }

void ny_dim_range(const ny_ctx *cx, ny_dim d, const ny_dim_limit *limit, size_t n, int64_t *lo, int64_t *hi) {
  range r = range_with(cx, d, &(known){limit, n});
  *lo = r.lo, *hi = r.hi;
}

/* p := p * k, then k*c*(x/k) becomes the least it can be, which is linear in x: k*(x/k) lies in x-(k-1) .. x. False:
 * too large. */
static bool open_div(const ny_ctx *cx, ny_poly *p, uint32_t i, int64_t k) {
  int64_t c = p->t[i].coef, low = 0;
  ny_dim atom = p->t[i].atom[0];
  ny_poly x;
  ny_poly_of(cx, ny_dim_get(cx, atom)->a, &x);
  ny_poly_add(p, -c, &atom, 1);
  for (uint32_t j = 0; j < p->n; j++) p->bad |= __builtin_mul_overflow(p->t[j].coef, k, &p->t[j].coef);
  for (uint32_t j = 0; j < x.n && !p->bad; j++) {
    int64_t f;
    if (__builtin_mul_overflow(x.t[j].coef, c, &f))
      p->bad = true;
    else
      ny_poly_add(p, f, x.t[j].atom, x.t[j].n);
  }
  if (c > 0) p->bad |= __builtin_mul_overflow(c, 1 - k, &low);
  ny_poly_add(p, low, NULL, 0);
  return !p->bad;
}

static int64_t least_of(const ny_ctx *cx, const ny_poly *p) {
  int64_t sum = 0;
  for (uint32_t i = 0; i < p->n; i++) {
    range r = {p->t[i].coef, p->t[i].coef};
    for (uint32_t j = 0; j < p->t[i].n; j++) r = mul_range(r, range_of(cx, p->t[i].atom[j]));
    sum = sat_add(sum, r.lo);
  }
  return sum;
}

/* A lower bound that sees through quotients, so that they cancel: ((n+31)/32)*2 - (n+15)/16 >= 0. INT64_MIN: none
 * found. */
static int64_t linear_low(const ny_ctx *cx, ny_poly *p) {
  enum { MAX_QUOTIENTS = 16 };
  int64_t scale = 1, k, low;
  int opened = 0;
  for (uint32_t i = 0; i < p->n;) {
    const ny_dim_node *n = p->t[i].n == 1 ? ny_dim_get(cx, p->t[i].atom[0]) : NULL;
    if (!n || n->kind != NY_DIM_DIV || !ny_dim_is_const(cx, n->b, &k) || k <= 0) {
      i++;
      continue;
    }
    if (++opened > MAX_QUOTIENTS || __builtin_mul_overflow(scale, k, &scale) || !open_div(cx, p, i, k))
      return INT64_MIN;
    i = 0;
  }
  low = opened && !p->bad ? least_of(cx, p) : INT64_MIN;
  if (infinite(low)) return INT64_MIN;
  return -ny_floor_div(-low, scale);
}

void ny_dim_bounds(const ny_ctx *cx, ny_dim d, int64_t *lo, int64_t *hi) {
  range r = range_of(cx, d);
  if (d < 0 && d != NY_DIM_INVALID && ny_dim_get(cx, d)->kind == NY_DIM_ADD) {
    ny_poly p, minus;
    ny_poly_of(cx, d, &p);
    minus = p;
    for (uint32_t i = 0; i < p.n; i++) minus.bad |= __builtin_mul_overflow(p.t[i].coef, -1, &minus.t[i].coef);
    int64_t a = minus.bad ? INT64_MIN : linear_low(cx, &p), b = minus.bad ? INT64_MIN : linear_low(cx, &minus);
    r.lo = most(r.lo, a);
    if (b != INT64_MIN) r.hi = least(r.hi, -b);
  }
  *lo = r.lo;
  *hi = r.hi;
}

/* A product is a multiple of k when the coefficient and its atoms supply all of k's factors. */
static bool divides(const ny_ctx *cx, ny_dim d, int64_t k) {
  int64_t v;
  if (k == 1 || d == 0) return true;
  if (ny_dim_is_const(cx, d, &v)) return v % k == 0;
  const ny_dim_node *x = ny_dim_get(cx, d);
  switch (x->kind) {
  case NY_DIM_ADD:
  case NY_DIM_MIN:
  case NY_DIM_MAX: return divides(cx, x->a, k) && divides(cx, x->b, k);
  case NY_DIM_MOD: return divides(cx, x->a, k) && divides(cx, x->b, k);
  case NY_DIM_MUL:
    if (divides(cx, x->a, k)) return true;
    if (!ny_dim_is_const(cx, x->b, &v)) return divides(cx, x->b, k);
    if (v == INT64_MIN) return false;
    for (int64_t a = v < 0 ? -v : v, b = k;;) { /* k / gcd(v, k) must divide the rest */
      int64_t r = b % a;
      if (!r) return divides(cx, x->a, k / a);
      b = a;
      a = r;
    }
  default: return false;
  }
}

bool ny_dim_divides(const ny_ctx *cx, ny_dim d, int64_t k) { return d != NY_DIM_INVALID && k > 0 && divides(cx, d, k); }
