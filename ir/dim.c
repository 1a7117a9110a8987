/* Dimension expressions: interning and the ring operations.
   Every expression has one canonical form, a sum of products of atoms with integer coefficients, sorted by structure
   (degree first, the constant last), so equality is ==. Arithmetic opens its operands into that form, works on terms,
   and interns the result. Whatever overflows or grows past fixed bounds becomes NY_DIM_INVALID, which every operation
   passes on. */
#include <stdlib.h>
#include <string.h>

#include "dim.h"

bool ny_dim_is_const(const ny_ctx *cx, ny_dim d, int64_t *out) {
  int64_t v = d;
  if (d < 0) {
    if (d == NY_DIM_INVALID || cx->dims[~d].kind != NY_DIM_CONST) return false;
    v = cx->dims[~d].value;
  }
  if (out) *out = v;
  return true;
}

const ny_dim_node *ny_dim_get(const ny_ctx *cx, ny_dim d) { return &cx->dims[~d]; }

static uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * 0x9e3779b97f4a7c15u;
  return h ^ (h >> 29);
}

static uint64_t node_hash(const ny_dim_node *n) {
  uint64_t h = mix(mix(mix((uint64_t)n->kind, (uint64_t)n->a), (uint64_t)n->b), (uint64_t)n->value);
  return mix(h, (uint64_t)(uintptr_t)n->name);
}

static bool node_same(const ny_dim_node *x, const ny_dim_node *y) {
  return x->kind == y->kind && x->a == y->a && x->b == y->b && x->value == y->value && x->name == y->name;
}

static void grow_slots(ny_ctx *cx) {
  uint32_t cap = cx->cap_dim_slots ? cx->cap_dim_slots * 2 : 256;
  cx->dim_slots = NY_NEW_ARRAY(&cx->arena, uint32_t, cap);
  cx->cap_dim_slots = cap;
  for (uint32_t i = 0; i < cx->n_dims; i++) {
    uint64_t s = node_hash(&cx->dims[i]) & (cap - 1);
    while (cx->dim_slots[s]) s = (s + 1) & (cap - 1);
    cx->dim_slots[s] = i + 1;
  }
}

static uint32_t size_of(const ny_ctx *cx, ny_dim d) { return d >= 0 ? 1 : cx->dims[~d].size; }
static uint32_t depth_of(const ny_ctx *cx, ny_dim d) { return d >= 0 ? 0 : cx->dims[~d].depth; }

ny_dim ny_dim_node_new(ny_ctx *cx, ny_dim_kind kind, ny_dim a, ny_dim b, int64_t value, ny_name name) {
  if (a == NY_DIM_INVALID || b == NY_DIM_INVALID) return NY_DIM_INVALID;
  ny_dim_node n = {.kind = kind, .a = a, .b = b, .value = value, .name = name};
  if (cx->n_dims * 2 >= cx->cap_dim_slots) grow_slots(cx);
  uint64_t mask = cx->cap_dim_slots - 1, s = node_hash(&n) & mask;
  for (; cx->dim_slots[s]; s = (s + 1) & mask)
    if (node_same(&cx->dims[cx->dim_slots[s] - 1], &n)) return ~(ny_dim)(cx->dim_slots[s] - 1);
  bool leaf = kind == NY_DIM_CONST || kind == NY_DIM_SYM, atom = kind > NY_DIM_MUL;
  uint32_t da = depth_of(cx, a), db = depth_of(cx, b);
  uint32_t size = leaf ? 1 : 1 + size_of(cx, a) + size_of(cx, b), depth = leaf ? 0 : (da > db ? da : db) + atom;
  if (size > NY_DIM_MAX_SIZE || depth > NY_DIM_MAX_DEPTH) return NY_DIM_INVALID;
  n.size = (uint16_t)size;
  n.depth = (uint16_t)depth;
  NY_PUSH_ROOM(&cx->arena, cx->dims, cx->n_dims, cx->cap_dims);
  cx->dims[cx->n_dims++] = n;
  cx->dim_slots[s] = cx->n_dims;
  return ~(ny_dim)(cx->n_dims - 1);
}

ny_dim ny_dim_const(ny_ctx *cx, int64_t v) { return v >= 0 ? v : ny_dim_node_new(cx, NY_DIM_CONST, 0, 0, v, NULL); }
ny_dim ny_dim_sym(ny_ctx *cx, ny_name name) { return ny_dim_node_new(cx, NY_DIM_SYM, 0, 0, 0, name); }

/* Constants sort after everything else: ?S+1, min(?S,8). */
static int kind_rank(const ny_ctx *cx, ny_dim d) { return ny_dim_is_const(cx, d, NULL) ? 100 : (int)cx->dims[~d].kind; }

int ny_dim_order(const ny_ctx *cx, ny_dim a, ny_dim b) {
  if (a == b) return 0;
  int ka = kind_rank(cx, a), kb = kind_rank(cx, b);
  if (ka != kb) return ka < kb ? -1 : 1;
  int64_t x = 0, y = 0;
  if (ny_dim_is_const(cx, a, &x) && ny_dim_is_const(cx, b, &y)) return x < y ? -1 : 1;
  const ny_dim_node *m = ny_dim_get(cx, a), *n = ny_dim_get(cx, b);
  if (m->kind == NY_DIM_SYM) return strcmp(m->name, n->name);
  int c = ny_dim_order(cx, m->a, n->a);
  return c ? c : ny_dim_order(cx, m->b, n->b);
}

static bool same_atoms(const ny_term *t, const ny_dim *atom, uint32_t n) {
  return t->n == n && (!n || !memcmp(t->atom, atom, n * sizeof *atom));
}

void ny_poly_add(ny_poly *p, int64_t coef, const ny_dim *atom, uint32_t n) {
  if (!coef) return;
  for (uint32_t i = 0; i < p->n; i++) {
    if (!same_atoms(&p->t[i], atom, n)) continue;
    if (__builtin_add_overflow(p->t[i].coef, coef, &p->t[i].coef)) p->bad = true;
    if (!p->t[i].coef) p->t[i] = p->t[--p->n];
    return;
  }
  if (p->n == NY_DIM_MAX_TERMS || n > NY_DIM_MAX_ATOMS) {
    p->bad = true;
    return;
  }
  ny_term *t = &p->t[p->n++];
  t->coef = coef;
  t->n = n;
  if (n) memcpy(t->atom, atom, n * sizeof *atom);
}

/* One product: atoms in a left-leaning chain, the coefficient last. */
static void open_term(const ny_ctx *cx, ny_dim d, ny_poly *p) {
  ny_dim atom[NY_DIM_MAX_ATOMS];
  uint32_t n = 0;
  int64_t coef = 1;
  for (bool more = true; more;) {
    more = d < 0 && cx->dims[~d].kind == NY_DIM_MUL;
    ny_dim f = more ? cx->dims[~d].b : d;
    int64_t c;
    if (ny_dim_is_const(cx, f, &c))
      coef = c;
    else
      atom[n++] = f;
    if (more) d = cx->dims[~d].a;
  }
  for (uint32_t i = 0; i < n / 2; i++) {
    ny_dim x = atom[i];
    atom[i] = atom[n - 1 - i];
    atom[n - 1 - i] = x;
  }
  ny_poly_add(p, coef, atom, n);
}

void ny_poly_of(const ny_ctx *cx, ny_dim d, ny_poly *p) {
  p->n = 0;
  p->bad = d == NY_DIM_INVALID;
  if (p->bad) return;
  for (; d < 0 && cx->dims[~d].kind == NY_DIM_ADD; d = cx->dims[~d].a) open_term(cx, cx->dims[~d].b, p);
  open_term(cx, d, p);
}

static int term_order(const ny_ctx *cx, const ny_term *a, const ny_term *b) {
  if (a->n != b->n) return a->n > b->n ? -1 : 1;
  for (uint32_t i = 0; i < a->n; i++) {
    int c = ny_dim_order(cx, a->atom[i], b->atom[i]);
    if (c) return c;
  }
  return 0;
}

static void sort_terms(const ny_ctx *cx, ny_poly *p) {
  for (uint32_t i = 1; i < p->n; i++) {
    ny_term t = p->t[i];
    uint32_t j = i;
    for (; j && term_order(cx, &t, &p->t[j - 1]) < 0; j--) p->t[j] = p->t[j - 1];
    p->t[j] = t;
  }
}

static ny_dim close_term(ny_ctx *cx, const ny_term *t) {
  if (t->coef == INT64_MIN && t->n) return NY_DIM_INVALID; /* could not be printed as a difference */
  if (!t->n) return ny_dim_const(cx, t->coef);
  ny_dim d = t->atom[0];
  for (uint32_t i = 1; i < t->n; i++) d = ny_dim_node_new(cx, NY_DIM_MUL, d, t->atom[i], 0, NULL);
  return t->coef == 1 ? d : ny_dim_node_new(cx, NY_DIM_MUL, d, ny_dim_const(cx, t->coef), 0, NULL);
}

/* c*k*(x/k) + c*(x%k) is c*x: index arithmetic that splits and joins again must come back to where it was. */
static bool join_div_mod(const ny_ctx *cx, ny_poly *p) {
  for (uint32_t i = 0; i < p->n; i++) {
    const ny_term *m = &p->t[i];
    if (m->n != 1 || cx->dims[~m->atom[0]].kind != NY_DIM_MOD) continue;
    ny_dim x = cx->dims[~m->atom[0]].a, k = cx->dims[~m->atom[0]].b;
    int64_t kv, c = m->coef, ck;
    if (!ny_dim_is_const(cx, k, &kv) || __builtin_mul_overflow(c, kv, &ck)) continue;
    for (uint32_t j = 0; j < p->n; j++) {
      const ny_dim_node *q = p->t[j].n == 1 ? &cx->dims[~p->t[j].atom[0]] : NULL;
      if (!q || q->kind != NY_DIM_DIV || q->a != x || q->b != k || p->t[j].coef != ck) continue;
      ny_dim mod = m->atom[0], div = p->t[j].atom[0];
      ny_poly_add(p, -c, &mod, 1);
      ny_poly_add(p, -ck, &div, 1);
      ny_poly inner;
      ny_poly_of(cx, x, &inner);
      for (uint32_t e = 0; e < inner.n; e++) {
        int64_t f;
        if (__builtin_mul_overflow(inner.t[e].coef, c, &f))
          p->bad = true;
        else
          ny_poly_add(p, f, inner.t[e].atom, inner.t[e].n);
      }
      return true;
    }
  }
  return false;
}

ny_dim ny_poly_dim(ny_ctx *cx, ny_poly *p) {
  while (!p->bad && join_div_mod(cx, p)) {}
  if (p->bad) return NY_DIM_INVALID;
  if (!p->n) return 0;
  sort_terms(cx, p);
  ny_dim d = close_term(cx, &p->t[0]);
  for (uint32_t i = 1; i < p->n; i++) d = ny_dim_node_new(cx, NY_DIM_ADD, d, close_term(cx, &p->t[i]), 0, NULL);
  return d;
}

bool ny_term_divide(const ny_term *t, const ny_term *u, ny_term *out) {
  if (!u->coef || t->coef % u->coef || t->n < u->n || (t->coef == INT64_MIN && u->coef == -1)) return false;
  out->coef = t->coef / u->coef;
  out->n = 0;
  uint32_t j = 0;
  for (uint32_t i = 0; i < t->n; i++) {
    if (j < u->n && t->atom[i] == u->atom[j])
      j++;
    else
      out->atom[out->n++] = t->atom[i];
  }
  return j == u->n;
}

ny_dim ny_dim_add(ny_ctx *cx, ny_dim a, ny_dim b) {
  int64_t x, y, v;
  if (a == NY_DIM_INVALID || b == NY_DIM_INVALID) return NY_DIM_INVALID;
  if (b == 0) return a;
  if (a == 0) return b;
  if (ny_dim_is_const(cx, a, &x) && ny_dim_is_const(cx, b, &y))
    return __builtin_add_overflow(x, y, &v) ? NY_DIM_INVALID : ny_dim_const(cx, v);
  ny_poly p, q;
  ny_poly_of(cx, a, &p);
  ny_poly_of(cx, b, &q);
  for (uint32_t i = 0; i < q.n; i++) ny_poly_add(&p, q.t[i].coef, q.t[i].atom, q.t[i].n);
  return ny_poly_dim(cx, &p);
}

ny_dim ny_dim_sub(ny_ctx *cx, ny_dim a, ny_dim b) {
  if (b == 0) return a;
  return a == b && a != NY_DIM_INVALID ? 0 : ny_dim_add(cx, a, ny_dim_mul(cx, b, ny_dim_const(cx, -1)));
}

static void mul_terms(const ny_ctx *cx, const ny_term *x, const ny_term *y, ny_poly *out) {
  ny_dim atom[2 * NY_DIM_MAX_ATOMS];
  uint32_t i = 0, j = 0, n = 0;
  while (i < x->n || j < y->n) {
    bool left = j == y->n || (i < x->n && ny_dim_order(cx, x->atom[i], y->atom[j]) <= 0);
    atom[n++] = left ? x->atom[i++] : y->atom[j++];
  }
  int64_t c;
  if (__builtin_mul_overflow(x->coef, y->coef, &c))
    out->bad = true;
  else
    ny_poly_add(out, c, atom, n);
}

ny_dim ny_dim_mul(ny_ctx *cx, ny_dim a, ny_dim b) {
  int64_t x, y, v;
  if (a == NY_DIM_INVALID || b == NY_DIM_INVALID) return NY_DIM_INVALID;
  if (a == 1) return b;
  if (b == 1) return a;
  if (a == 0 || b == 0) return 0;
  if (ny_dim_is_const(cx, a, &x) && ny_dim_is_const(cx, b, &y))
    return __builtin_mul_overflow(x, y, &v) ? NY_DIM_INVALID : ny_dim_const(cx, v);
  ny_poly p, q, out = {.n = 0, .bad = false};
  ny_poly_of(cx, a, &p);
  ny_poly_of(cx, b, &q);
  for (uint32_t i = 0; i < p.n; i++)
    for (uint32_t j = 0; j < q.n && !out.bad; j++) mul_terms(cx, &p.t[i], &q.t[j], &out);
  return ny_poly_dim(cx, &out);
}
