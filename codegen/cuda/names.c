/* Sizes and indices as C, and what is known of them: intervals of loop variables, and what divides an offset. Index arithmetic is in `ix`, which wraps
   like the machine; only what is divided has to be in range, and that is a size or an index of the program. */
#include "emit.h"

#include <ctype.h>
#include <string.h>

static bool taken(const cu *c, const char *s) {
  for (uint32_t i = 0; i < c->n_names; i++)
    if (!strcmp(c->names[i], s)) return true;
  return false;
}

/* The prefix keeps it apart from keywords, built-in functions and the prelude. */
const char *cu_name(cu *c, const char *prefix, const char *name, int64_t id) {
  ny_text t = {0};
  ny_text_add(&t, prefix);
  for (const char *s = name ? name : ""; *s && t.n < 48; s++)
    ny_text_addn(&t, isalnum((unsigned char)*s) && !(*s & 0x80) ? s : "_", 1);
  if (!name) ny_text_addf(&t, "%lld", (long long)id);
  char *base = ny_strdup(&c->arena, t.s), *s = base;
  ny_text_free(&t);
  for (int n = 2; taken(c, s); n++) s = CU_F(c, "%s_%d", base, n);
  NY_PUSH_ROOM(&c->arena, c->names, c->n_names, c->cap_names);
  return c->names[c->n_names++] = s;
}

/* A symbol or loop variable keeps one name through the kernel: where it is bound again, C's scopes do the same. */
const char *cu_var(cu *c, ny_name sym) {
  for (int i = 0; i < c->n_var; i++)
    if (c->var[i].sym == sym) return c->var[i].name;
  NY_PUSH_ROOM(&c->arena, c->var, c->n_var, c->cap_var);
  c->var[c->n_var] = (struct cu_variable){sym, cu_name(c, "i_", sym, 0)};
  return c->var[c->n_var++].name;
}

bool cu_const(const cu *c, ny_dim d, int64_t *out) { return ny_dim_is_const(c->cx, d, out); }

void cu_range(const cu *c, ny_dim d, int64_t *lo, int64_t *hi) { ny_dim_range(c->cx, d, c->limit, c->n_limit, lo, hi); }

bool cu_at_least(const cu *c, ny_dim d, int64_t n) {
  int64_t lo, hi;
  cu_range(c, d, &lo, &hi);
  return lo != INT64_MIN && lo >= n;
}

/* A loop variable is a multiple of its step: as if it were step * another. */
bool cu_divides(cu *c, ny_dim d, int64_t k) {
  if (k <= 1) return true;
  for (uint32_t i = 0; i < c->n_limit; i++)
    if (c->step[i] > 1 && ny_dim_uses(c->cx, d, c->limit[i].sym)) {
      ny_dim with = ny_dim_mul(c->cx, ny_dim_const(c->cx, c->step[i]), ny_dim_sym(c->cx, c->limit[i].sym));
      ny_dim e = ny_dim_subst(c->cx, d, c->limit[i].sym, with);
      if (e != NY_DIM_INVALID) d = e;
    }
  return ny_dim_divides(c->cx, d, k);
}

static const char *quotient(cu *c, const ny_dim_node *n) {
  const char *a = cu_dim_text(c, n->a), *b = cu_dim_text(c, n->b);
  bool plain = cu_at_least(c, n->a, 0) && cu_at_least(c, n->b, 0), mod = n->kind == NY_DIM_MOD;
  return CU_F(c, "NY_%s%s(%s, %s)", plain ? "" : "FLOOR_", mod ? "MOD" : "DIV", a, b);
}

/* In parentheses unless it is one word or one call. */
const char *cu_paren(cu *c, const char *s) {
  int depth = 0;
  for (const char *p = s; *p; p++) {
    depth += (*p == '(') - (*p == ')');
    if (*p == ' ' && !depth) return CU_F(c, "(%s)", s);
  }
  return s;
}

const char *cu_plus(cu *c, const char *a, const char *b) {
  if (!strcmp(a, "0")) return b;
  return !strcmp(b, "0") ? a : CU_F(c, "%s + %s", a, b);
}

const char *cu_times(cu *c, const char *a, ny_dim by) {
  int64_t v;
  if (!strcmp(a, "0") || (cu_const(c, by, &v) && v == 0)) return "0";
  if (cu_const(c, by, &v) && v == 1) return a;
  return CU_F(c, "%s * %s", cu_paren(c, a), cu_paren(c, cu_dim_text(c, by)));
}

const char *cu_dim_text(cu *c, ny_dim d) {
  int64_t v;
  if (cu_const(c, d, &v)) return v < 0 ? CU_F(c, "(%lld)", (long long)v) : CU_F(c, "%lld", (long long)v);
  if (d == NY_DIM_INVALID) {
    cu_fail(c, NULL, NYB_E_VERIFY, "a size is invalid");
    return "0";
  }
  const ny_dim_node n = *ny_dim_get(c->cx, d);
  switch (n.kind) {
  case NY_DIM_SYM: return cu_var(c, n.name);
  case NY_DIM_ADD: return CU_F(c, "%s + %s", cu_dim_text(c, n.a), cu_dim_text(c, n.b));
  case NY_DIM_MUL: return CU_F(c, "%s * %s", cu_paren(c, cu_dim_text(c, n.a)), cu_paren(c, cu_dim_text(c, n.b)));
  case NY_DIM_DIV:
  case NY_DIM_MOD: return quotient(c, &n);
  case NY_DIM_MIN: return CU_F(c, "NY_MIN(%s, %s)", cu_dim_text(c, n.a), cu_dim_text(c, n.b));
  case NY_DIM_MAX: return CU_F(c, "NY_MAX(%s, %s)", cu_dim_text(c, n.a), cu_dim_text(c, n.b));
  default: return CU_F(c, "(ix)(%s < %s)", cu_dim_text(c, n.a), cu_dim_text(c, n.b));
  }
}

void cu_push(cu *c, ny_name var, int64_t lo, int64_t hi, int64_t step) {
  NY_PUSH_ROOM(&c->arena, c->limit, c->n_limit, c->cap_limit);
  if (c->cap_step < c->cap_limit) {
    c->step = ny_grow(&c->arena, c->step, c->cap_step * sizeof *c->step, c->cap_limit * sizeof *c->step);
    c->cap_step = c->cap_limit;
  }
  c->step[c->n_limit] = step;
  c->limit[c->n_limit++] = (ny_dim_limit){var, lo, hi};
}
