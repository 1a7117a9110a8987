/* Dimension expressions as text. The parser builds with the same constructors as everyone, so what the printer writes
   of a canonical expression reads back as that very expression. */
#include <string.h>

#include "dim.h"
#include "text.h"

static void put(const ny_ctx *cx, ny_dim d, ny_text *out);

static void put_chain(const ny_ctx *cx, ny_dim d, ny_dim_kind kind, ny_text *out) {
  const ny_dim_node *x = ny_dim_get(cx, d);
  if (x->a < 0 && ny_dim_get(cx, x->a)->kind == kind)
    put_chain(cx, x->a, kind, out);
  else
    put(cx, x->a, out);
  ny_text_add(out, ",");
  put(cx, x->b, out);
}

/* An operand of * / %: bracketed unless it is a number >= 0, a symbol, or min and max. */
static void put_factor(const ny_ctx *cx, ny_dim d, ny_text *out) {
  ny_dim_kind k = d >= 0 ? NY_DIM_SYM : ny_dim_get(cx, d)->kind;
  bool bare = k == NY_DIM_SYM || k == NY_DIM_MIN || k == NY_DIM_MAX;
  ny_text_add(out, bare ? "" : "(");
  put(cx, d, out);
  ny_text_add(out, bare ? "" : ")");
}

static void put_atom(const ny_ctx *cx, ny_dim d, ny_text *out) {
  const ny_dim_node *x = ny_dim_get(cx, d);
  if (x->kind == NY_DIM_SYM) {
    ny_text_add(out, "?");
    ny_put_name(out, x->name);
  } else if (x->kind == NY_DIM_MIN || x->kind == NY_DIM_MAX) {
    ny_text_add(out, x->kind == NY_DIM_MIN ? "min(" : "max(");
    put_chain(cx, d, x->kind, out);
    ny_text_add(out, ")");
  } else {
    put_factor(cx, x->a, out);
    ny_text_add(out, x->kind == NY_DIM_DIV ? "/" : "%");
    put_factor(cx, x->b, out);
  }
}

static bool is_lt(const ny_ctx *cx, ny_dim d) { return d < 0 && ny_dim_get(cx, d)->kind == NY_DIM_LT; }

/* One product with its sign; an atom among others is a factor, alone it needs no brackets unless it is a comparison in
 * a sum. */
static void put_term(const ny_ctx *cx, const ny_term *t, bool first, ny_text *out) {
  ny_text_add(out, t->coef < 0 ? "-" : first ? "" : "+");
  uint64_t size = t->coef < 0 ? 0 - (uint64_t)t->coef : (uint64_t)t->coef;
  for (uint32_t i = 0; i < t->n; i++) {
    if (i) ny_text_add(out, "*");
    if (t->n > 1 || t->coef != 1 || is_lt(cx, t->atom[i]))
      put_factor(cx, t->atom[i], out);
    else
      put_atom(cx, t->atom[i], out);
  }
  if (t->n && size != 1) ny_text_addf(out, "*%llu", (unsigned long long)size);
  if (!t->n) ny_text_addf(out, "%llu", (unsigned long long)size);
}

static void put_side(const ny_ctx *cx, ny_dim d, ny_text *out) {
  if (is_lt(cx, d))
    put_factor(cx, d, out);
  else
    put(cx, d, out);
}

static void put(const ny_ctx *cx, ny_dim d, ny_text *out) {
  if (is_lt(cx, d)) {
    const ny_dim_node *x = ny_dim_get(cx, d);
    put_side(cx, x->a, out);
    ny_text_add(out, "<");
    put_side(cx, x->b, out);
    return;
  }
  ny_poly p;
  ny_poly_of(cx, d, &p);
  if (!p.n) ny_text_add(out, "0");
  for (uint32_t i = p.n; i-- > 0;) put_term(cx, &p.t[i], i == p.n - 1, out);
}

void ny_dim_print(const ny_ctx *cx, ny_dim d, ny_text *out) {
  if (d == NY_DIM_INVALID)
    ny_text_add(out, "invalid");
  else
    put(cx, d, out);
}

typedef struct parser {
  ny_ctx *cx;
  const char *s;
  int depth;
} parser;

static ny_dim parse_lt(parser *p);

static bool take(parser *p, char c) {
  const char *s = p->s;
  while (*s == ' ') s++;
  if (*s != c) return false;
  p->s = s + 1;
  return true;
}

static ny_dim parse_number(parser *p, bool minus) {
  int64_t v = 0;
  if (*p->s < '0' || *p->s > '9') return NY_DIM_INVALID;
  for (; *p->s >= '0' && *p->s <= '9'; p->s++) {
    int digit = *p->s - '0';
    if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, minus ? -digit : digit, &v))
      return NY_DIM_INVALID;
  }
  return ny_dim_const(p->cx, v);
}

static ny_dim parse_symbol(parser *p) {
  ny_name name = NULL;
  if (*p->s == '"') {
    name = ny_take_quoted(p->cx, &p->s);
  } else {
    size_t n = ny_word_length(p->s);
    if (n) name = ny_internn(&p->cx->names, p->s, n);
    p->s += n;
  }
  return name ? ny_dim_sym(p->cx, name) : NY_DIM_INVALID;
}

static ny_dim parse_extreme(parser *p, bool want_max) {
  ny_dim d = parse_lt(p);
  while (d != NY_DIM_INVALID && take(p, ',')) {
    ny_dim e = parse_lt(p);
    d = want_max ? ny_dim_max(p->cx, d, e) : ny_dim_min(p->cx, d, e);
  }
  return take(p, ')') ? d : NY_DIM_INVALID;
}

static ny_dim parse_primary(parser *p, bool minus) {
  while (*p->s == ' ') p->s++;
  if (*p->s >= '0' && *p->s <= '9') return parse_number(p, minus);
  ny_dim d = NY_DIM_INVALID;
  bool low = !strncmp(p->s, "min(", 4), high = !strncmp(p->s, "max(", 4);
  if (low || high) {
    p->s += 4;
    d = parse_extreme(p, high);
  } else if (take(p, '?')) {
    d = parse_symbol(p);
  } else if (take(p, '(')) {
    d = parse_lt(p);
    if (!take(p, ')')) d = NY_DIM_INVALID;
  }
  return minus ? ny_dim_mul(p->cx, d, ny_dim_const(p->cx, -1)) : d;
}

static ny_dim parse_term(parser *p, bool minus) {
  if (take(p, '-')) minus = !minus;
  ny_dim d = parse_primary(p, minus);
  while (d != NY_DIM_INVALID) {
    if (take(p, '*'))
      d = ny_dim_mul(p->cx, d, parse_primary(p, false));
    else if (take(p, '/'))
      d = ny_dim_div(p->cx, d, parse_primary(p, false));
    else if (take(p, '%'))
      d = ny_dim_mod(p->cx, d, parse_primary(p, false));
    else
      break;
  }
  return d;
}

static ny_dim parse_sum(parser *p) {
  ny_dim d = parse_term(p, false);
  while (d != NY_DIM_INVALID) {
    bool plus = take(p, '+');
    if (!plus && !take(p, '-')) break;
    d = ny_dim_add(p->cx, d, parse_term(p, !plus));
  }
  return d;
}

static ny_dim parse_lt(parser *p) {
  if (++p->depth > NY_DIM_MAX_PARSE) return NY_DIM_INVALID;
  ny_dim d = parse_sum(p);
  if (d != NY_DIM_INVALID && take(p, '<')) d = ny_dim_lt(p->cx, d, parse_sum(p));
  p->depth--;
  return d;
}

ny_dim ny_dim_parse(ny_ctx *cx, const char **s) {
  parser p = {.cx = cx, .s = *s, .depth = 0};
  ny_dim d = parse_lt(&p);
  *s = p.s;
  return d;
}
