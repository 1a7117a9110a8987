/* Scalar expressions, elementwise ops, casts and random numbers of the evaluator, against formulas written here: every
   row over special values and formats, 8-bit integers over all pairs, published vectors. */
#include "eval.h"
#include "graph_fixture.h"

static const double special[] = {0.0,
                                 -0.0,
                                 1,
                                 -1,
                                 0.5,
                                 -0.5,
                                 2,
                                 -3,
                                 1e-3,
                                 -1e-3,
                                 0.3,
                                 7.25,
                                 20,
                                 -20,
                                 88.5,
                                 -104,
                                 1e30,
                                 -1e30,
                                 3.4e38,
                                 -3.4e38,
                                 1e-45,
                                 -1e-45,
                                 1.1754944e-38,
                                 (double)INFINITY,
                                 (double)-INFINITY,
                                 (double)NAN};
enum { N_SPECIAL = NY_COUNT(special) };

static bool close_to(double got, double want, double rel) {
  if (want != want) return got != got;
  if (isinf(want) || want == 0) return got == want && (want != 0 || !signbit(got) == !signbit(want));
  return fabs(got - want) <= rel * fabs(want) + 1.5e-45;
}

/* ---- scalar.c */
static void test_expressions(void) {
  for (int k = 0; k < NY_N_KINDS; k++) {
    if (!(ny_kinds[k].flags & NY_MAP)) continue;
    const ny_expr *x = ny_expr_of((ny_kind)k);
    CHECK(x->n > 0, "%s has no nodes", ny_kinds[k].name);
    for (int i = 0; i < x->n; i++) {
      const ny_snode *s = &x->node[i];
      bool leaf = s->op <= NY_S_num;
      CHECK(leaf || (s->a < i && (s->b < i || !s->b) && (s->c < i || !s->c)), "%s: node %d comes before its operands",
            ny_kinds[k].name, i);
      CHECK(s->op != NY_S_param || s->a < ny_kinds[k].min_in, "%s: parameter %d", ny_kinds[k].name, s->a);
      CHECK(s->op != NY_S_attr || s->a < ny_kinds[k].n_attr, "%s: attribute %d", ny_kinds[k].name, s->a);
      for (int j = 0; j < i; j++)
        CHECK(memcmp(&x->node[j], s, sizeof *s) || leaf, "%s: nodes %d and %d are the same", ny_kinds[k].name, j, i);
    }
  }
  int rems = 0, exps = 0;
  for (int i = 0; i < ny_expr_of(NY_mod)->n; i++) rems += ny_expr_of(NY_mod)->node[i].op == NY_S_rem;
  for (int i = 0; i < ny_expr_of(NY_sinh)->n; i++) exps += ny_expr_of(NY_sinh)->node[i].op == NY_S_exp;
  CHECK(rems == 1, "mod computes its remainder %d times", rems);
  CHECK(exps == 2, "sinh has %d exps", exps);
}

/* ---- elementwise, floats: independent formulas */
static double f_relu(double a) { return a != a ? a : a < 0 ? 0 : a; }
static double f_sigmoid(double a) { return a > 0 ? 1 / (1 + exp(-a)) : exp(a) / (1 + exp(a)); }
static double f_gelu(double a) { return a < -2 ? 0.5 * a * erfc(-a / sqrt(2)) : a * (0.5 + 0.5 * erf(a / sqrt(2))); }
static double f_softplus(double a) { return a > 30 ? a + exp(-a) : a < -30 ? exp(a) : log1p(exp(a)); }
static double f_elu(double a) { return a < 0 ? expm1(a) : a; }
static double f_sign(double a) { return a != a || a == 0 ? a : a < 0 ? -1 : 1; }
static double f_round(double a) {
  return !(fabs(a) < 0x1p52) ? a : fabs(a) <= 0.5 ? copysign(0, a) : a - remainder(a, 1);
}
static double f_hard_sigmoid(double a) { return a != a ? a : fmax(0, fmin(1, 0.2 * a + 0.5)); }
static double f_hard_swish(double a) { return a != a ? a : a <= -3 ? a * 0.0 : a >= 3 ? a : a * (a + 3) / 6; }
static double f_isnan(double a) { return isnan(a); }
static double f_isinf(double a) { return isinf(a) != 0; }
static double f_recip(double a) { return 1 / a; }
static double f_neg(double a) { return -a; }
static double f_leaky(double a) { return a != a ? a : fmax(a, 0) + 0.01 * fmin(a, 0); }
static double f_silu(double a) { return a < -80 && !isinf(a) ? a * exp(a) : a / (1 + exp(-a)); }
static double f_softsign(double a) { return a / (1 + fabs(a)); }
static double f_shrink(double a) { return a != a ? a : fabs(a) > 0.5 ? a : 0; }

static const struct {
  ny_kind k;
  double (*f)(double);
  double rel;
} unary[] = {
    {NY_neg, f_neg, 0},
    {NY_abs, fabs, 0},
    {NY_sign, f_sign, 0},
    {NY_reciprocal, f_recip, 0},
    {NY_sqrt, sqrt, 0},
    {NY_exp, exp, 0},
    {NY_log, log, 0},
    {NY_sin, sin, 0},
    {NY_cos, cos, 0},
    {NY_tan, tan, 1e-6},
    {NY_asin, asin, 0},
    {NY_acos, acos, 0},
    {NY_atan, atan, 0},
    {NY_sinh, sinh, 1e-6},
    {NY_cosh, cosh, 1e-6},
    {NY_tanh, tanh, 0},
    {NY_erf, erf, 0},
    {NY_floor, floor, 0},
    {NY_ceil, ceil, 0},
    {NY_trunc, trunc, 0},
    {NY_round, f_round, 0},
    {NY_relu, f_relu, 0},
    {NY_elu, f_elu, 1e-6},
    {NY_gelu, f_gelu, 1e-6},
    {NY_sigmoid, f_sigmoid, 1e-6},
    {NY_silu, f_silu, 1e-6},
    {NY_softplus, f_softplus, 1e-6},
    {NY_softsign, f_softsign, 1e-6},
    {NY_hard_sigmoid, f_hard_sigmoid, 1e-6},
    {NY_hard_swish, f_hard_swish, 1e-6},
    {NY_leaky_relu, f_leaky, 1e-6},
    {NY_shrink, f_shrink, 0},
    {NY_isnan, f_isnan, 0},
    {NY_isinf, f_isinf, 0},
};

static void test_unary(void) {
  for (size_t k = 0; k < NY_COUNT(unary); k++) {
    fx f = fx_new();
    const char *name = ny_kinds[unary[k].k].name;
    ny_value *x = FX_IN(&f, NY_f32, special, N_SPECIAL);
    const ny_tensor *t = fx_result(&f, ny_b_ew1(&f.b, unary[k].k, x), name);
    for (int i = 0; t && i < N_SPECIAL; i++) {
      double a = (double)(float)special[i], want = (double)(float)unary[k].f(a), got = fx_get(t, i);
      /* exact formulas differ from the row's at overflow and in the sign of a zero that the row does not promise */
      bool edge =
          unary[k].rel > 0 && (fabs(a) > 88 || want == 0) &&
          (fabs(got) < 1e-30 || isinf(got) || got != got) == (fabs(want) < 1e-30 || isinf(want) || want != want);
      CHECK_EACH(edge || close_to(got, want, unary[k].rel), "%s(%a) = %a, not %a", name, a, got, want);
    }
    fx_free(&f);
  }
}

static double f_max(double a, double b) { return a != a || b != b ? (double)NAN : a < b ? b : a; }
static double f_min(double a, double b) { return a != a || b != b ? (double)NAN : b < a ? b : a; }
static double f_mod(double a, double b) {
  double r = fmod(a, b);
  return r != 0 && signbit(r) != signbit(b) ? r + b : r;
}

static double apply(ny_kind k, double a, double b) {
  switch (k) {
  case NY_add: return a + b;
  case NY_sub: return a - b;
  case NY_mul: return a * b;
  case NY_div: return a / b;
  case NY_rem: return fmod(a, b);
  case NY_mod: return f_mod(a, b);
  case NY_pow: return pow(a, b);
  case NY_max: return f_max(a, b);
  case NY_min: return f_min(a, b);
  case NY_eq: return a == b;
  case NY_ne: return a != b;
  case NY_lt: return a < b;
  case NY_le: return a <= b;
  case NY_gt: return a > b;
  default: return a >= b;
  }
}

static void test_binary(void) {
  static const ny_kind kinds[] = {NY_add, NY_sub, NY_mul, NY_div, NY_rem, NY_mod, NY_pow, NY_max,
                                  NY_min, NY_eq,  NY_ne,  NY_lt,  NY_le,  NY_gt,  NY_ge};
  for (size_t k = 0; k < NY_COUNT(kinds); k++) {
    fx f = fx_new();
    ny_value *x = FX_IN(&f, NY_f32, special, N_SPECIAL, 1), *y = FX_IN(&f, NY_f32, special, N_SPECIAL);
    const ny_tensor *t = fx_result(&f, ny_b_ew2(&f.b, kinds[k], x, y), ny_kinds[kinds[k]].name);
    for (int i = 0; t && i < N_SPECIAL * N_SPECIAL; i++) {
      double a = (double)(float)special[i / N_SPECIAL], b = (double)(float)special[i % N_SPECIAL],
             want = (double)(float)apply(kinds[k], a, b);
      CHECK_EACH(close_to(fx_get(t, i), want, 0), "%s(%a, %a) = %a, not %a", ny_kinds[kinds[k]].name, a, b, fx_get(t, i),
            want);
    }
    fx_free(&f);
  }
}

/* Every row takes every format its class allows, without failing and with values of the format. */
static void test_all_rows(void) {
  static const ny_fmt fmts[] = {NY_f64, NY_f32, NY_f16, NY_bf16, NY_f8e4m3, NY_i64, NY_i32,
                                NY_i8,  NY_i4,  NY_u64, NY_u32,  NY_u8,     NY_u2,  NY_bool};
  int n = 0;
  for (int k = 0; k < NY_N_KINDS; k++)
    for (size_t j = 0; j < NY_COUNT(fmts) && (ny_kinds[k].flags & NY_MAP); j++) {
      fx f = fx_new();
      ny_value *in[3];
      for (int i = 0; i < ny_kinds[k].min_in; i++)
        in[i] = FX_IN(&f, ny_kinds[k].ew == NY_EW_SELECT && !i ? NY_bool : fmts[j],
                      ny_is_float(fmts[j]) ? special : NULL, 26);
      ny_value *v = ny_b_ew(&f.b, (ny_kind)k, in, ny_kinds[k].min_in);
      if (!v) { /* not of this class */
        fx_free(&f);
        continue;
      }
      n++;
      const ny_tensor *t = fx_result(&f, v, ny_kinds[k].name);
      for (int i = 0; t && i < 26; i++) {
        double x = fx_get(t, i);
        CHECK_EACH(ny_is_float((ny_fmt)t->type->fmt) || ny_wrap_to((ny_fmt)t->type->fmt, (int64_t)x) == (int64_t)x ||
                  t->type->fmt == NY_u64,
              "%s of %s", ny_kinds[k].name, ny_fmts[fmts[j]].name);
      }
      fx_free(&f);
    }
  CHECK(n > 300, "only %d combinations of row and format", n);
}

/* ---- elementwise, integers: all pairs of 8-bit values, and the extremes of 64 bits */
static int64_t wrap8(int64_t x, bool u) { return u ? (uint8_t)x : (int8_t)x; }

static int64_t int_apply(ny_kind k, int64_t a, int64_t b, bool u) {
  int64_t m = b ? a % b : 0;
  bool far = (uint64_t)b >= 8;
  switch (k) {
  case NY_add: return wrap8(a + b, u);
  case NY_sub: return wrap8(a - b, u);
  case NY_mul: return wrap8(a * b, u);
  case NY_div: return b ? wrap8(a / b, u) : 0;
  case NY_rem: return m;
  case NY_mod: return m && (m < 0) != (b < 0) ? m + b : m;
  case NY_max: return a > b ? a : b;
  case NY_min: return a < b ? a : b;
  case NY_and: return a & b;
  case NY_or: return a | b;
  case NY_xor: return wrap8(a ^ b, u);
  case NY_shl: return far ? 0 : wrap8((int64_t)((uint64_t)a << b), u);
  case NY_shr: return far ? (a < 0 ? -1 : 0) : a >> b;
  case NY_lt: return a < b;
  default: return a == b;
  }
}

static void test_integers(void) {
  static const ny_kind kinds[] = {NY_add, NY_sub, NY_mul, NY_div, NY_rem, NY_mod, NY_max, NY_min,
                                  NY_and, NY_or,  NY_xor, NY_shl, NY_shr, NY_lt,  NY_eq};
  double all[2][256];
  for (int i = 0; i < 256; i++) all[0][i] = i - 128, all[1][i] = i;
  for (size_t k = 0; k < NY_COUNT(kinds); k++)
    for (int u = 0; u < 2; u++) {
      fx f = fx_new();
      ny_fmt fmt = u ? NY_u8 : NY_i8;
      ny_value *x = FX_IN(&f, fmt, all[u], 256, 1), *y = FX_IN(&f, fmt, all[u], 256);
      const ny_tensor *t = fx_result(&f, ny_b_ew2(&f.b, kinds[k], x, y), ny_kinds[kinds[k]].name);
      int wrong = 0;
      for (int i = 0; t && i < 65536; i++)
        wrong += (int64_t)fx_get(t, i) != int_apply(kinds[k], (int64_t)all[u][i / 256], (int64_t)all[u][i % 256], u);
      CHECK(!wrong, "%s of %s: %d of 65536 pairs", ny_kinds[kinds[k]].name, ny_fmts[fmt].name, wrong);
      fx_free(&f);
    }
}

static int64_t one_int(ny_kind k, ny_fmt fmt, int64_t a, int64_t b) {
  fx f = fx_new();
  ny_value *x = FX_IN(&f, fmt, NULL, 1), *y = FX_IN(&f, fmt, NULL, 1);
  ny_put_i(fmt, f.in[0].data, 0, a);
  ny_put_i(fmt, f.in[1].data, 0, b);
  const ny_tensor *t = fx_result(&f, ny_b_ew2(&f.b, k, x, y), ny_kinds[k].name);
  int64_t r = t ? ny_get_i((ny_fmt)t->type->fmt, t->data, 0) : 0;
  fx_free(&f);
  return r;
}

static void test_extremes(void) {
  int64_t top = (int64_t)((uint64_t)1 << 63);
  CHECK(one_int(NY_div, NY_i64, INT64_MIN, -1) == INT64_MIN, "i64 lowest / -1");
  CHECK(one_int(NY_rem, NY_i64, INT64_MIN, -1) == 0, "i64 lowest %% -1");
  CHECK(one_int(NY_mul, NY_i64, INT64_MAX, 2) == -2, "i64 mul wraps");
  CHECK(one_int(NY_div, NY_u64, top, 2) == (int64_t)1 << 62, "u64 divides as unsigned");
  CHECK(one_int(NY_div, NY_u64, -1, -1) == 1, "u64 greatest over itself");
  CHECK(one_int(NY_rem, NY_u64, -1, 10) == 5, "u64 remainder");
  CHECK(one_int(NY_lt, NY_u64, 1, top) == 1, "u64 compares as unsigned");
  CHECK(one_int(NY_max, NY_u64, 1, top) == top, "u64 max");
  CHECK(one_int(NY_shr, NY_u64, top, 63) == 1, "u64 shifts as unsigned");
  CHECK(one_int(NY_shr, NY_i64, top, 64) == -1, "i64 far shift keeps the sign");
  CHECK(one_int(NY_shl, NY_i64, 1, 64) == 0, "i64 far shift left");
}

static void test_casts(void) {
  static const double x[] = {1.9, -1.9, 300, -300, 1e20, -1e20, (double)NAN, (double)INFINITY, 0.5, -0.0};
  static const struct {
    ny_fmt to;
    double want[NY_COUNT(x)];
  } rows[] = {
      {NY_i8, {1, -1, 127, -128, 127, -128, 0, 127, 0, 0}},
      {NY_u8, {1, 0, 255, 0, 255, 0, 0, 255, 0, 0}},
      {NY_bool, {1, 1, 1, 1, 1, 1, 1, 1, 1, 0}},
      {NY_i4, {1, -1, 7, -8, 7, -8, 0, 7, 0, 0}},
      {NY_f8e4m3, {1.875, -1.875, 288, -288, 448, -448, (double)NAN, 448, 0.5, -0.0}},
      {NY_f16,
       {1.900390625, -1.900390625, 300, -300, (double)INFINITY, (double)-INFINITY, (double)NAN, (double)INFINITY, 0.5,
        -0.0}},
  };
  for (size_t r = 0; r < NY_COUNT(rows); r++) {
    fx f = fx_new();
    ny_value *in = FX_IN(&f, NY_f64, x, NY_COUNT(x));
    const ny_tensor *t = fx_result(&f, ny_b_cast(&f.b, in, rows[r].to), "cast");
    for (size_t i = 0; t && i < NY_COUNT(x); i++)
      CHECK(close_to(fx_get(t, (int64_t)i), rows[r].want[i], 0) || (rows[r].want[i] == 0 && fx_get(t, (int64_t)i) == 0),
            "%a to %s is %a, not %a", x[i], ny_fmts[rows[r].to].name, fx_get(t, (int64_t)i), rows[r].want[i]);
    fx_free(&f);
  }
  /* 2^60 + 2^36 + 1 lies just above the middle of two f32: a detour through double would round it down */
  int64_t big = ((int64_t)1 << 60) + ((int64_t)1 << 36) + 1;
  fx f = fx_new();
  ny_value *in = FX_IN(&f, NY_i64, NULL, 1);
  ny_put_i(NY_i64, f.in[0].data, 0, big);
  const ny_tensor *t = fx_result(&f, ny_b_cast(&f.b, in, NY_f32), "cast");
  CHECK(t && fx_get(t, 0) == (double)(float)big, "i64 to f32 rounds once");
  fx_free(&f);
}

static void test_random(void) {
  static const struct {
    uint32_t counter[4], key[2], want[4];
  } kat[] = {/* tests/kat_vectors of the Random123 library, philox4x32 10 */
             {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
             {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
              {0xffffffff, 0xffffffff},
              {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
             {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
              {0xa4093822, 0x299f31d0},
              {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
  for (size_t i = 0; i < NY_COUNT(kat); i++) {
    uint32_t got[4];
    ny_philox4x32(kat[i].counter, kat[i].key, got);
    CHECK(!memcmp(got, kat[i].want, sizeof got), "Philox vector %zu: %08x", i, got[0]);
  }
  for (int normal = 0; normal < 2; normal++) {
    fx f = fx_new();
    int64_t n = 10001;
    ny_op *op = fx_op(&f, NY_random, NULL, 0, ny_tensor_type(f.cx, NY_f32, 1, &n));
    if (normal) op->attr[NY_AT(random, dist)].s = ny_intern(&f.cx->names, "normal");
    const ny_tensor *t = fx_result(&f, op->out[0], "random");
    double sum = 0, square = 0;
    for (int64_t i = 0; t && i < n; i++) sum += fx_get(t, i), square += fx_get(t, i) * fx_get(t, i);
    double mean = sum / (double)n, var = square / (double)n - mean * mean;
    CHECK(fabs(mean - (normal ? 0 : 0.5)) < 0.03 && fabs(var - (normal ? 1 : 1.0 / 12)) < 0.05, "mean %g, variance %g",
          mean, var);
    CHECK(!t || normal || fx_get(t, 1) == (0xe169c58du >> 8) * 0x1p-24, "element 1 is word 1 of block 0");
    fx_free(&f);
  }
}

int main(void) {
  test_expressions();
  test_unary();
  test_binary();
  test_all_rows();
  test_integers();
  test_extremes();
  test_casts();
  test_random();
  return test_end("eval_test");
}
