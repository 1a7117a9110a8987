/* Dimension expressions: random ones against direct evaluation, the text form across contexts, and the simplifications
 * others rely on. */
#include <stdlib.h>
#include <string.h>

#include "ir.h"
#include "test.h"

static uint64_t seed = 7;
static uint64_t draw(uint64_t n) { /* splitmix64 */
  uint64_t z = seed += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z ^ (z >> 31)) % n;
}

enum { N_SYM = 4, N_ENV = 6 };
static const char *const names[N_SYM] = {"A", "B", "odd name", "i"};
typedef struct sample { /* an expression and its values under every environment; ok: no overflow and no zero divisor in
                           it */
  ny_dim d;
  int64_t v[N_ENV];
  bool ok[N_ENV];
} sample;
static int64_t bound[N_ENV][N_SYM];

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b && (a % b < 0) != (b < 0)); }

static void apply(ny_dim_kind k, sample *s, const sample *a, const sample *b) {
  for (int e = 0; e < N_ENV; e++) {
    int64_t x = a->v[e], y = b->v[e];
    s->ok[e] = a->ok[e] && b->ok[e];
    if (!s->ok[e]) continue;
    if (k == NY_DIM_ADD)
      s->ok[e] = !__builtin_add_overflow(x, y, &s->v[e]);
    else if (k == NY_DIM_MUL)
      s->ok[e] = !__builtin_mul_overflow(x, y, &s->v[e]);
    else if (k == NY_DIM_MIN)
      s->v[e] = x < y ? x : y;
    else if (k == NY_DIM_MAX)
      s->v[e] = x > y ? x : y;
    else if (k == NY_DIM_LT)
      s->v[e] = x < y;
    else if (y == 0)
      s->ok[e] = false;
    else
      s->v[e] = k == NY_DIM_DIV ? floor_div(x, y) : x - floor_div(x, y) * y;
  }
}

static ny_dim build(ny_ctx *cx, ny_dim_kind k, ny_dim a, ny_dim b) {
  switch (k) {
  case NY_DIM_ADD: return ny_dim_add(cx, a, b);
  case NY_DIM_MUL: return ny_dim_mul(cx, a, b);
  case NY_DIM_DIV: return ny_dim_div(cx, a, b);
  case NY_DIM_MOD: return ny_dim_mod(cx, a, b);
  case NY_DIM_MIN: return ny_dim_min(cx, a, b);
  case NY_DIM_MAX: return ny_dim_max(cx, a, b);
  default: return ny_dim_lt(cx, a, b);
  }
}

static sample random_expr(ny_ctx *cx, int depth) {
  sample s = {.d = 0};
  if (!depth || draw(6) == 0) {
    bool sym = draw(3) != 0;
    uint64_t which = draw(N_SYM);
    int64_t c = draw(8) ? (int64_t)draw(17) - 4 : (int64_t)draw(100000) - 50000;
    for (int e = 0; e < N_ENV; e++) {
      s.v[e] = sym ? bound[e][which] : c;
      s.ok[e] = true;
    }
    s.d = sym ? ny_dim_sym(cx, ny_intern(&cx->names, names[which])) : ny_dim_const(cx, c);
    return s;
  }
  static const ny_dim_kind kinds[] = {NY_DIM_ADD, NY_DIM_ADD, NY_DIM_ADD, NY_DIM_MUL, NY_DIM_MUL,
                                      NY_DIM_DIV, NY_DIM_MOD, NY_DIM_MIN, NY_DIM_MAX, NY_DIM_LT};
  ny_dim_kind k = kinds[draw(NY_COUNT(kinds))];
  sample a = random_expr(cx, depth - 1),
         b = random_expr(cx, (k == NY_DIM_DIV || k == NY_DIM_MOD) && draw(3) ? 0 : depth - 1);
  apply(k, &s, &a, &b);
  s.d = build(cx, k, a.d, b.d);
  return s;
}

static const char *show(const ny_ctx *cx, ny_dim d) {
  static ny_text t[4];
  static int next;
  ny_text *x = &t[next++ % 4];
  x->n = 0;
  ny_text_add(x, "");
  ny_dim_print(cx, d, x);
  return x->s;
}

static void check_values(ny_ctx *cx, const sample *s) {
  int64_t lo, hi;
  ny_dim_bounds(cx, s->d, &lo, &hi);
  for (int e = 0; e < N_ENV; e++) {
    ny_binding env[N_SYM];
    for (int i = 0; i < N_SYM; i++) env[i] = (ny_binding){ny_intern(&cx->names, names[i]), bound[e][i]};
    int64_t v;
    if (!s->ok[e] || s->d == NY_DIM_INVALID || !ny_dim_eval(cx, s->d, env, N_SYM, &v)) continue;
    CHECK_EACH(v == s->v[e], "%s is %lld, not %lld, for A=%lld B=%lld o=%lld i=%lld", show(cx, s->d), (long long)v,
          (long long)s->v[e], (long long)bound[e][0], (long long)bound[e][1], (long long)bound[e][2],
          (long long)bound[e][3]);
    CHECK_EACH(lo <= v && v <= hi, "%s is %lld outside %lld..%lld", show(cx, s->d), (long long)v, (long long)lo,
          (long long)hi);
    for (int64_t k = 2; k < 9; k++)
      if (v % k)
        CHECK_EACH(!ny_dim_divides(cx, s->d, k), "%s = %lld is no multiple of %lld", show(cx, s->d), (long long)v,
              (long long)k);
  }
}

static void check_text(ny_ctx *cx, ny_dim d) {
  const char *text = show(cx, d), *s = text;
  CHECK_EACH(ny_dim_parse(cx, &s) == d && !*s, "%s reads back as something else", text);
  ny_ctx *other = ny_ctx_new();
  ny_dim_parse(other, &(const char *){"?i*?B%3+(?B+?A)/7"}); /* another order of interning */
  s = text;
  ny_dim e = ny_dim_parse(other, &s);
  CHECK_EACH(e != NY_DIM_INVALID && !*s && !strcmp(text, show(other, e)), "%s prints as %s in a new context", text,
        show(other, e));
  ny_ctx_free(other);
}

static void random_dims(void) {
  ny_ctx *cx = ny_ctx_new();
  int invalid = 0, total = 20000;
  for (int n = 0; n < total; n++) {
    for (int e = 0; e < N_ENV; e++)
      for (int i = 0; i < N_SYM; i++) bound[e][i] = e ? (int64_t)draw((uint64_t)e * 9) + (e > 2) : 0;
    sample s = random_expr(cx, 1 + n % 5);
    if (s.d == NY_DIM_INVALID) invalid++;
    check_values(cx, &s);
    if (s.d != NY_DIM_INVALID && n % 4 == 0) check_text(cx, s.d);
  }
  CHECK(invalid < total / 5, "%d of %d expressions are invalid", invalid, total);
  ny_ctx_free(cx);
}

/* Both texts name one expression, which prints as the second. */
static void same(ny_ctx *cx, const char *a, const char *b) {
  const char *s = a, *t = b;
  ny_dim x = ny_dim_parse(cx, &s), y = ny_dim_parse(cx, &t);
  CHECK(x == y && !*s && !*t, "%s is %s, not %s", a, show(cx, x), b);
  CHECK(!strcmp(show(cx, y), b), "%s prints as %s", b, show(cx, y));
}

static void known_forms(void) {
  static const char *const pairs[][2] = {
      {"?S+0", "?S"},
      {"1+?B*?S*4", "?B*?S*4+1"},
      {"?S*?B", "?B*?S"},
      {"?S-?S", "0"},
      {"4*?S/4", "?S"},
      {"(?S*4+3)/4", "?S"},
      {"(?S*4+5)/4", "?S+1"},
      {"?S*8%4", "0"},
      {"(?S*8+3)%4", "3"},
      {"(?S+3)/4", "(?S+3)/4"},
      {"?S%16", "?S%16"},
      {"(?S-1)/4+1", "(?S+3)/4"},
      {"((?S+1)/2+1)/2", "(?S+3)/4"},
      {"?S%4/4", "0"},
      {"?S%16%4", "?S%4"},
      {"?i/4*4+?i%4", "?i"},
      {"?B*?S*64/(?B*64)", "?S"},
      {"(?B+1)*?S/(?B+1)", "?S"},
      {"min(8,?S)", "min(?S,8)"},
      {"min(?S,?S+3)", "?S"},
      {"max(?S,0)", "?S"},
      {"max(?S,?T,?S+1,3)", "max(?T,?S+1,3)"},
      {"min((?H+31)/32*2,(?H+15)/16)", "(?H+15)/16"},
      {"max((?H+31)/32*2,(?H+15)/16)", "((?H+31)/32)*2"},
      {"?H/4<?H/2+1", "1"},
      {"min(3,min(?S,5))", "min(?S,3)"},
      {"?i<8", "?i<8"},
      {"?i+2<?S+9", "?i<?S+7"},
      {"?S<0", "0"},
      {"-1<?S", "1"},
      {"?S<?S", "0"},
      {"-?S", "-?S"},
      {"3-?S*2", "-?S*2+3"},
      {"7/(-2)", "-4"},
      {"-7%4", "1"},
      {"-7%(-4)", "-3"},
      {"?\"a b\\\"\"+1", "?\"a b\\\"\"+1"},
      {"(?i<8)*?S", "?S*(?i<8)"},
      {"9223372036854775807", "9223372036854775807"},
      {"-9223372036854775808", "-9223372036854775808"},
  };
  static const char *const bad[] = {"",
                                    "?",
                                    "?S/0",
                                    "?S%0",
                                    "9223372036854775808",
                                    "9223372036854775807+1",
                                    "(?S",
                                    "min(?S",
                                    "?S+",
                                    "9223372036854775807*?S*2",
                                    "?\"open",
                                    "*3",
                                    "min()"};
  ny_ctx *cx = ny_ctx_new();
  for (size_t i = 0; i < NY_COUNT(pairs); i++) same(cx, pairs[i][0], pairs[i][1]);
  for (size_t i = 0; i < NY_COUNT(bad); i++) {
    const char *s = bad[i];
    ny_dim d = ny_dim_parse(cx, &s);
    CHECK(d == NY_DIM_INVALID, "\"%s\" is %s", bad[i], show(cx, d));
  }
  ny_ctx_free(cx);
}

static void bounds_hold(void) { /* what grows without end becomes invalid and stays so; nothing recurses without end */
  ny_ctx *cx = ny_ctx_new();
  ny_dim s = ny_dim_sym(cx, ny_intern(&cx->names, "S")), d = s, e = s;
  for (int i = 0; i < 300; i++) {
    d = ny_dim_div(cx, ny_dim_add(cx, ny_dim_mul(cx, d, d), s), ny_dim_add(cx, s, i + 2));
    e = ny_dim_min(cx, ny_dim_mul(cx, e, s), ny_dim_add(cx, ny_dim_sym(cx, ny_intern(&cx->names, names[i % 4])), i));
  }
  CHECK(d == NY_DIM_INVALID && e == NY_DIM_INVALID, "%s", "unbounded growth");
  CHECK(ny_dim_add(cx, d, 1) == NY_DIM_INVALID && ny_dim_max(cx, 1, d) == NY_DIM_INVALID, "%s",
        "invalid must propagate");
  char deep[4001];
  memset(deep, '(', sizeof deep - 1);
  deep[sizeof deep - 1] = 0;
  CHECK(ny_dim_parse(cx, &(const char *){deep}) == NY_DIM_INVALID, "%s", "unbounded nesting");
  ny_dim f = ny_dim_sym(cx, ny_intern(&cx->names, "f"));
  ny_dim h = ny_dim_subst(cx, ny_dim_ceildiv(cx, ny_dim_mul(cx, s, f), 4), ny_dim_get(cx, f)->name, 8);
  CHECK(h == ny_dim_mul(cx, s, 2), "substitution gives %s", show(cx, h));
  ny_ctx_free(cx);
}

int main(void) {
  random_dims();
  known_forms();
  bounds_hold();
  return test_end("dim_test");
}
