/* One element: formats, casts, elementwise rows and folds as C expressions. A value keeps its storage bits; arithmetic decodes to float (double for f64 and where a
   row's formula would cancel), computes, and rounds once. Nothing is fused (--fmad=false), so results follow the formulas of ops.def; rows that CUDA has a closer
   function for are calls of it. */
#include "emit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_signed(ny_fmt f) { return ny_fmts[f].kind == 'I'; }
static bool narrow_int(ny_fmt f) { return ny_is_int(f) && ny_fmts[f].bits < 8; }

const char *cu_mem(ny_fmt f) {
  if (f == NY_f64) return "double";
  if (f == NY_f32) return "float";
  bool sign = is_signed(f);
  switch (ny_fmts[f].bits) {
  case 64: return sign ? "i64" : "u64";
  case 32: return sign ? "i32" : "u32";
  case 16: return sign ? "i16" : "u16";
  case 8: return sign ? "i8" : "u8";
  default: return "u8"; /* packed */
  }
}

const char *cu_reg(ny_fmt f) { return f == NY_bool ? "bool" : narrow_int(f) && is_signed(f) ? "i8" : cu_mem(f); }
const char *cu_num(ny_fmt f) { return ny_is_float(f) ? f == NY_f64 ? "double" : "float" : cu_reg(f); }

static void use_format(cu *c, ny_fmt f) {
  if (ny_is_float(f) && ny_fmts[f].bits <= 16) c->uses |= CU_P_HALF | (ny_fmts[f].bits < 16 ? CU_P_NARROW : 0);
}

const char *cu_decode(cu *c, ny_fmt f, const char *x) {
  if (!ny_is_float(f) || f == NY_f64 || f == NY_f32) return x;
  use_format(c, f);
  return CU_F(c, "ny_%s(%s)", ny_fmts[f].name, x);
}

const char *cu_encode(cu *c, ny_fmt f, const char *x, bool saturate) {
  if (!ny_is_float(f) || f == NY_f64 || f == NY_f32) return x;
  use_format(c, f);
  return CU_F(c, "ny_to_%s%s(%s)", ny_fmts[f].name, saturate && ny_fmts[f].bits <= 8 ? "_sat" : "", x);
}

/* ---- literals */
static const char *literal_float(cu *c, double x) {
  char s[48];
  float f = (float)x;
  if (isnan(f)) return "NY_NAN";
  if (isinf(f)) return f < 0 ? "-NY_INF" : "NY_INF";
  for (int digits = 1; digits <= 9; digits++) {
    snprintf(s, sizeof s, "%.*g", digits, (double)f);
    if (strtof(s, NULL) == f) break;
  }
  return CU_F(c, signbit(f) ? "(%s%sf)" : "%s%sf", s, strpbrk(s, ".e") ? "" : ".0");
}

static const char *literal_double(cu *c, double x) {
  if (isnan(x)) return "NY_NAN64";
  if (isinf(x)) return x < 0 ? "-NY_INF64" : "NY_INF64";
  ny_text t = {0};
  ny_text_double(&t, x);
  const char *s = CU_F(c, signbit(x) ? "(%s%s)" : "%s%s", t.s, strpbrk(t.s, ".e") ? "" : ".0");
  ny_text_free(&t);
  return s;
}

static const char *literal_int(cu *c, ny_fmt f, int64_t v) {
  if (f == NY_bool) return v ? "true" : "false";
  if (f == NY_u64) return CU_F(c, "%lluull", (unsigned long long)v);
  if (f == NY_i64) return v == INT64_MIN ? "(-9223372036854775807ll - 1)" : CU_F(c, v < 0 ? "(%lldll)" : "%lldll", (long long)v);
  if (f == NY_i32) return v == INT32_MIN ? "(-2147483647 - 1)" : CU_F(c, v < 0 ? "(%lld)" : "%lld", (long long)v);
  if (f == NY_u32) return CU_F(c, "%lluu", (unsigned long long)v);
  return CU_F(c, "(%s)%lld", cu_reg(f), (long long)v);
}

const char *cu_fill(cu *c, ny_fmt f, double x) {
  if (f == NY_f64) return literal_double(c, x);
  if (f == NY_f32) return literal_float(c, x);
  if (f == NY_bool) return x != 0 ? "true" : "false"; /* NaN is true */
  uint64_t raw = 0;
  if (ny_is_float(f)) {
    ny_put_f(f, &raw, 0, x, false);
    return CU_F(c, "(%s)0x%llx", cu_reg(f), (unsigned long long)raw);
  }
  double top = ldexp(1, ny_fmts[f].bits - is_signed(f));
  int64_t v = isnan(x)         ? 0
              : x >= top       ? (int64_t)(UINT64_MAX >> (64 - ny_fmts[f].bits + is_signed(f)))
              : !is_signed(f)  ? x <= 0 ? 0 : (int64_t)(uint64_t)x
              : x < -top       ? (int64_t)(UINT64_MAX << (ny_fmts[f].bits - 1))
                               : (int64_t)x;
  return literal_int(c, f, v);
}

/* ---- casts */
static const char *wrapped(cu *c, ny_fmt f, const char *x) { /* of an int */
  c->uses |= CU_P_INT;
  return narrow_int(f) ? CU_F(c, "ny_%s((i32)(%s))", ny_fmts[f].name, x) : CU_F(c, "(%s)(%s)", cu_reg(f), x);
}

static const char *float_to_int(cu *c, ny_fmt to, const char *num) {
  c->uses |= CU_P_INT;
  int bits = ny_fmts[to].bits;
  if (to == NY_bool) return CU_F(c, "(%s != 0)", num);
  if (bits >= 32) return CU_F(c, "ny_to_%s(%s)", ny_fmts[to].name, num);
  int hi = is_signed(to) ? (1 << (bits - 1)) - 1 : (1 << bits) - 1, lo = is_signed(to) ? -hi - 1 : 0;
  return CU_F(c, "ny_to_int<%s, %d, %d>(%s)", cu_reg(to), lo, hi, num);
}

const char *cu_cast(cu *c, ny_fmt from, ny_fmt to, const char *x, bool saturate) {
  bool a = ny_is_float(from), b = ny_is_float(to);
  if (from == to) return x;
  if (a && !b) return float_to_int(c, to, cu_decode(c, from, x));
  if (!a && !b) return to == NY_bool ? CU_F(c, "(%s != 0)", x) : wrapped(c, to, x);
  if (to == NY_f64) return CU_F(c, "(double)%s", cu_decode(c, from, x));
  if (to == NY_f32) return CU_F(c, "(float)%s", cu_decode(c, from, x));
  bool wide = from == NY_f64 || (!a && ny_fmts[from].bits >= 32);
  const char *num = a ? cu_decode(c, from, x) : CU_F(c, "(float)%s", x);
  if (wide) num = CU_F(c, "ny_odd(%s)", x);
  if (from == NY_f16 && to == NY_f4e2m1) num = CU_F(c, "ny_f16_signed(%s)", x); /* whose zero has the sign of a NaN */
  return cu_encode(c, to, num, saturate);
}

const char *cu_bitcast(cu *c, ny_fmt from, ny_fmt to, const char *x) {
  int bits = ny_fmts[to].bits;
  if (from == to) return x;
  if (to == NY_bool) return CU_F(c, "(%s != 0)", x);
  if (bits < 8) return ny_is_float(to) ? CU_F(c, "(u8)(%s & 15)", x) : wrapped(c, to, x);
  if (from == NY_f32) return CU_F(c, "(%s)__float_as_uint(%s)", cu_reg(to), x);
  if (to == NY_f32) return CU_F(c, "__uint_as_float((u32)%s)", x);
  if (from == NY_f64) return CU_F(c, "(%s)__double_as_longlong(%s)", cu_reg(to), x);
  if (to == NY_f64) return CU_F(c, "__longlong_as_double((i64)%s)", x);
  return CU_F(c, "(%s)%s", cu_reg(to), x);
}

/* ---- elementwise rows */
typedef struct spelling {
  const char *f32, *f64; /* of a function; a printf format of an operator otherwise */
} spelling;
static const spelling float_ops[NY_N_SCALARS] = {
    [NY_S_add] = {"(%s + %s)", NULL},
    [NY_S_sub] = {"(%s - %s)", NULL},
    [NY_S_mul] = {"(%s * %s)", NULL},
    [NY_S_div] = {"(%s / %s)", NULL},
    [NY_S_rem] = {"fmodf(%s, %s)", "fmod(%s, %s)"},
    [NY_S_neg] = {"(-%s)", NULL},
    [NY_S_abs] = {"fabsf(%s)", "fabs(%s)"},
    [NY_S_sqrt] = {"sqrtf(%s)", "sqrt(%s)"},
    [NY_S_exp] = {"expf(%s)", "exp(%s)"},
    [NY_S_log] = {"logf(%s)", "log(%s)"},
    [NY_S_log1p] = {"log1pf(%s)", "log1p(%s)"},
    [NY_S_sin] = {"sinf(%s)", "sin(%s)"},
    [NY_S_cos] = {"cosf(%s)", "cos(%s)"},
    [NY_S_asin] = {"asinf(%s)", "asin(%s)"},
    [NY_S_acos] = {"acosf(%s)", "acos(%s)"},
    [NY_S_atan] = {"atanf(%s)", "atan(%s)"},
    [NY_S_sinh_small] = {"sinhf(%s)", "sinh(%s)"},
    [NY_S_tanh] = {"tanhf(%s)", "tanh(%s)"},
    [NY_S_erf] = {"erff(%s)", "erf(%s)"},
    [NY_S_erfc] = {"erfcf(%s)", "erfc(%s)"},
    [NY_S_pow] = {"ny_pow(%s, %s)", "pow(%s, %s)"},
    [NY_S_floor] = {"floorf(%s)", "floor(%s)"},
    [NY_S_ceil] = {"ceilf(%s)", "ceil(%s)"},
    [NY_S_trunc] = {"truncf(%s)", "trunc(%s)"},
    [NY_S_rint] = {"rintf(%s)", "rint(%s)"},
};
static const char *const int_ops[NY_N_SCALARS] = {
    [NY_S_add] = "ny_add(%s, %s)", [NY_S_sub] = "ny_sub(%s, %s)",  [NY_S_mul] = "ny_mul(%s, %s)", [NY_S_div] = "ny_idiv(%s, %s)",
    [NY_S_rem] = "ny_irem(%s, %s)", [NY_S_neg] = "ny_neg(%s)",     [NY_S_abs] = "ny_abs(%s)",     [NY_S_and] = "(%s & %s)",
    [NY_S_or] = "(%s | %s)",        [NY_S_xor] = "(%s ^ %s)",      [NY_S_inv] = "(~%s)",
};
static const char *const compares[] = {"<", "<=", ">", ">=", "==", "!="};

/* Rows with a function of their own in f32: CUDA's, at most 4 units off, or the prelude's. */
static const struct {
  ny_kind k;
  const char *f32;
} whole_rows[] = {
    {NY_sinh, "sinhf"},   {NY_cosh, "coshf"},       {NY_asinh, "asinhf"}, {NY_acosh, "ny_acosh"},         {NY_atanh, "atanhf"},       {NY_tan, "tanf"},
    {NY_gelu, "ny_gelu"}, {NY_gelu_tanh, "ny_gelu_tanh"}, {NY_mish, "ny_mish"}, {NY_softplus, "ny_softplus"},
};

static const char *attribute(cu *c, const ny_op *op, int slot, ny_fmt f) {
  bool is_int = ny_kinds[op->kind].attr[slot].kind == NY_I64;
  double x = is_int ? (double)op->attr[slot].i : op->attr[slot].f;
  if (f == NY_f64) return literal_double(c, x);
  if (ny_is_float(f)) return literal_float(c, x);
  return literal_int(c, f, is_int ? op->attr[slot].i : (int64_t)x);
}

static const char *formatted(cu *c, const char *format, const char *a, const char *b) {
  ny_text t = {0};
  const char *arg[2] = {a, b};
  int n = 0;
  for (; *format; format++) {
    if (format[0] == '%' && format[1] == 's')
      ny_text_add(&t, arg[n++ & 1]), format++;
    else
      ny_text_addn(&t, format, 1);
  }
  const char *s = ny_strdup(&c->arena, t.s);
  ny_text_free(&t);
  return s;
}

static const char *int_node(cu *c, ny_fmt f, int op, const char *a, const char *b) {
  c->uses |= CU_P_INT;
  const char *s = NULL;
  if (op == NY_S_shl || op == NY_S_shr)
    s = CU_F(c, "ny_%s<%d>(%s, %s)", op == NY_S_shl ? "shl" : "shr", ny_fmts[f].bits, a, b);
  else
    s = formatted(c, int_ops[op] ? int_ops[op] : "0", a, b);
  if (f == NY_bool) return CU_F(c, "(bool)%s", s);
  return narrow_int(f) || op == NY_S_and || op == NY_S_or || op == NY_S_xor || op == NY_S_inv ? wrapped(c, f, s) : s;
}

static const char *node_text(cu *c, const ny_op *op, ny_fmt f, const ny_snode *s, const char *const *v, const char *const *in) {
  const char *a = v[s->a], *b = v[s->b];
  bool real = ny_is_float(f);
  switch (s->op) {
  case NY_S_param: return in[s->a];
  case NY_S_attr: return attribute(c, op, s->a, f);
  case NY_S_num: return f == NY_f64 ? literal_double(c, s->x) : real ? literal_float(c, s->x) : literal_int(c, f, (int64_t)s->x);
  case NY_S_land: return CU_F(c, "(%s && %s)", a, b);
  case NY_S_lor: return CU_F(c, "(%s || %s)", a, b);
  case NY_S_lnot: return CU_F(c, "(!%s)", a);
  case NY_S_select: return CU_F(c, "(%s ? %s : %s)", a, b, v[s->c]);
  default: break;
  }
  if (s->op >= NY_S_lt && s->op <= NY_S_ne) return CU_F(c, "(%s %s %s)", a, compares[s->op - NY_S_lt], b);
  if (!real) return int_node(c, f, s->op, a, b);
  const spelling *p = &float_ops[s->op];
  if (s->op == NY_S_pow && f != NY_f64) c->uses |= CU_P_MATH;
  return formatted(c, f == NY_f64 && p->f64 ? p->f64 : p->f32, a, b);
}

static bool yields_bool(const ny_snode *node, int i) {
  return node[i].op >= NY_S_lt && node[i].op <= NY_S_lnot;
}

/* Long or sharing expressions are functions of their own, defined before the kernel; the others stand where they are used. */
static bool small(const ny_expr *e) {
  int real = 0;
  for (int i = 0; i < e->n; i++) {
    int o = e->node[i].op;
    real += o != NY_S_param && o != NY_S_attr && o != NY_S_num;
  }
  return real <= 1;
}

static const char *row_function(cu *c, const ny_op *op, ny_fmt f, const ny_expr *e) {
  const ny_kind_info *row = &ny_kinds[op->kind];
  for (int i = 0; i < c->n_function; i++) {
    const struct cu_function *g = &c->function[i];
    if (g->kind == op->kind && g->fmt == f && (g->op == op || !row->n_attr)) return g->name;
  }
  static const char *const names[] = {"a", "b", "c"};
  const char *v[128], *name = cu_name(c, "row_", row->name, 0), *num = cu_num(f);
  bool test = row->ew == NY_EW_CMP || row->ew == NY_EW_TEST;
  ny_text *t = &c->functions;
  ny_text_addf(t, "// %s = %s\nNY_DEV %s %s(", row->name, row->text, test ? "bool" : num, name);
  for (int i = 0; i < op->n_in; i++) ny_text_addf(t, "%s%s %s", i ? ", " : "", num, names[i]);
  ny_text_add(t, ") {\n");
  for (int i = 0; i < e->n; i++) {
    v[i] = node_text(c, op, f, &e->node[i], v, names);
    int o = e->node[i].op;
    if (o == NY_S_param || o == NY_S_attr || o == NY_S_num || i == e->n - 1) continue;
    int users = 0;
    for (int k = i + 1; k < e->n; k++) {
      const ny_snode *s = &e->node[k];
      if (s->op != NY_S_param && s->op != NY_S_attr && s->op != NY_S_num) users += (s->a == i) + (s->b == i && s->b != s->a) + (s->op == NY_S_select && s->c == i);
    }
    if (users < 2) continue;
    ny_text_addf(t, "  const %s t%d = %s;\n", yields_bool(e->node, i) ? "bool" : num, i, v[i]);
    v[i] = CU_F(c, "t%d", i);
  }
  ny_text_addf(t, "  return %s;\n}\n", v[e->n - 1]);
  NY_PUSH_ROOM(&c->arena, c->function, c->n_function, c->cap_function);
  c->function[c->n_function++] = (struct cu_function){(ny_kind)op->kind, f, op, name};
  return name;
}

static const char *extreme(cu *c, ny_fmt f, bool max, const char *a, const char *b) {
  if (f == NY_bool) return CU_F(c, "(%s %s %s)", a, max ? "||" : "&&", b);
  if (!ny_is_float(f)) c->uses |= CU_P_INT;
  return CU_F(c, "ny_%s%s(%s, %s)", ny_is_float(f) ? "" : "i", max ? "max" : "min", a, b);
}

static const char *computed(cu *c, const ny_op *op, ny_fmt f, const char *const *num) {
  bool real = ny_is_float(f);
  if (op->kind == NY_max || op->kind == NY_min) return extreme(c, f, op->kind == NY_max, num[0], num[1]);
  for (size_t i = 0; i < NY_COUNT(whole_rows) && real && f != NY_f64; i++) {
    if (whole_rows[i].k != op->kind) continue;
    c->uses |= CU_P_MATH;
    return CU_F(c, "%s(%s)", whole_rows[i].f32, num[0]);
  }
  const ny_expr *e = ny_expr_of((ny_kind)op->kind);
  if (!small(e)) {
    const char *name = row_function(c, op, f == NY_f64 || !real ? f : NY_f32, e), *s = CU_F(c, "%s(%s", name, num[0]);
    for (int i = 1; i < op->n_in; i++) s = CU_F(c, "%s, %s", s, num[i]);
    return CU_F(c, "%s)", s);
  }
  const char *v[128];
  for (int i = 0; i < e->n; i++) v[i] = node_text(c, op, f, &e->node[i], v, num);
  return v[e->n - 1];
}

const char *cu_row(cu *c, const ny_op *op, const char *const *in) {
  if (ny_kinds[op->kind].ew == NY_EW_SELECT) return CU_F(c, "(%s ? %s : %s)", in[0], in[1], in[2]);
  ny_fmt f = (ny_fmt)ny_in(op, 0)->type->fmt, to = (ny_fmt)op->out[0]->type->fmt;
  const char *num[3] = {NULL};
  for (int i = 0; i < op->n_in; i++) num[i] = cu_decode(c, f, in[i]);
  const char *r = computed(c, op, f, num);
  return ny_is_float(to) ? cu_encode(c, to, r, false) : r;
}

int cu_row_cost(const ny_op *op) {
  const ny_expr *e = ny_expr_of((ny_kind)op->kind);
  int n = 0;
  for (int i = 0; i < e->n; i++) {
    int o = e->node[i].op;
    n += o == NY_S_param || o == NY_S_attr || o == NY_S_num ? 0 : float_ops[o].f64 ? 20 : 1;
  }
  return n ? n : 1;
}

/* ---- folds */
const char *cu_fold(cu *c, const char *op, ny_fmt f, const char *a, const char *b) {
  bool real = ny_is_float(f);
  if (!strcmp(op, "max") || !strcmp(op, "min")) return extreme(c, f, op[1] == 'a', a, b);
  bool sum = !strcmp(op, "sum");
  if (!sum && strcmp(op, "prod")) return b;
  if (f == NY_bool) return CU_F(c, "(%s %s %s)", a, sum ? "||" : "&&", b);
  if (real) return CU_F(c, "%s %s %s", a, sum ? "+" : "*", b);
  return int_node(c, f, sum ? NY_S_add : NY_S_mul, a, b);
}

const char *cu_fold_first(cu *c, const char *op, ny_fmt f) {
  bool max = !strcmp(op, "max"), min = !strcmp(op, "min");
  if (ny_is_float(f)) {
    double x = max ? -HUGE_VAL : min ? HUGE_VAL : !strcmp(op, "prod") ? 1 : 0;
    return f == NY_f64 ? literal_double(c, x) : literal_float(c, x);
  }
  if (f == NY_bool) return min || !strcmp(op, "prod") ? "true" : "false";
  if (!max && !min) return literal_int(c, f, !strcmp(op, "prod"));
  return cu_fill(c, f, max ? -HUGE_VAL : HUGE_VAL);
}
