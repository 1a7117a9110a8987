/* Elementwise rows: the expression of ops.def node by node. Narrow floats compute in f32 and round once at the end; a
   few rows whose formula loses figures in f32 compute in f64. No instruction may be fused or reassociated unless
   written so here, so results follow the formula. */
#include "vmath.h"

#include <assert.h>
#include <string.h>

static const uint8_t costs[NY_N_SCALARS] = {
    [NY_S_add] = 1,   [NY_S_sub] = 1,   [NY_S_mul] = 1,         [NY_S_div] = 4,    [NY_S_rem] = 30, [NY_S_neg] = 1,
    [NY_S_lt] = 1,    [NY_S_le] = 1,    [NY_S_gt] = 1,          [NY_S_ge] = 1,     [NY_S_eq] = 1,   [NY_S_ne] = 1,
    [NY_S_land] = 1,  [NY_S_lor] = 1,   [NY_S_lnot] = 1,        [NY_S_and] = 1,    [NY_S_or] = 1,   [NY_S_xor] = 1,
    [NY_S_inv] = 1,   [NY_S_shl] = 3,   [NY_S_shr] = 3,         [NY_S_select] = 1, [NY_S_abs] = 1,  [NY_S_sqrt] = 6,
    [NY_S_exp] = 16,  [NY_S_log] = 22,  [NY_S_log1p] = 30,      [NY_S_sin] = 60,   [NY_S_cos] = 60, [NY_S_asin] = 25,
    [NY_S_acos] = 25, [NY_S_atan] = 20, [NY_S_sinh_small] = 10, [NY_S_tanh] = 30,  [NY_S_erf] = 35, [NY_S_erfc] = 50,
    [NY_S_pow] = 120, [NY_S_floor] = 1, [NY_S_ceil] = 1,        [NY_S_trunc] = 1,  [NY_S_rint] = 1,
};

/* Rows that cancel or overflow on the way: 1 + small, exp near the top of the range. */
static bool needs_f64(ny_kind k) {
  return k == NY_asinh || k == NY_acosh || k == NY_atanh || k == NY_sinh || k == NY_cosh;
}

int ny_row_cost(ny_kind k) {
  if (k == NY_max || k == NY_min) return 3;
  const ny_expr *e = ny_expr_of(k);
  int n = 0;
  for (int i = 0; i < e->n; i++) n += costs[e->node[i].op];
  return needs_f64(k) ? 3 * n : n ? n : 1;
}

/* ---- integers */
static val nonzero(ny_lx *x, val b) { return ny_ic(x, LLVMIntNE, b, ny_ci(LLVMTypeOf(b), 0)); }

/* x/0 is 0; the lowest over -1 wraps to itself: as no machine agrees, the divisor is 1 there, and the result put right.
 */
static val int_div(ny_lx *x, ny_fmt f, val a, val b, bool rem) {
  typ t = LLVMTypeOf(a);
  val zero = ny_ci(t, 0), one = ny_ci(t, 1), some = nonzero(x, b);
  if (!ny_signed(f)) {
    val d = ny_sel(x, some, b, one);
    val r = rem ? NY_B(URem, x, a, d) : NY_B(UDiv, x, a, d);
    return ny_sel(x, some, r, zero);
  }
  val minus = ny_ic(x, LLVMIntEQ, b, ny_ci(t, -1)),
      d = ny_sel(x, NY_B(Or, x, LLVMBuildNot(x->b, some, ""), minus), one, b);
  val r = rem ? NY_B(SRem, x, a, d) : ny_sel(x, minus, LLVMBuildNeg(x->b, a, ""), NY_B(SDiv, x, a, d));
  return ny_sel(x, some, r, zero);
}

static val shift(ny_lx *x, ny_fmt f, val a, val b, bool left) {
  typ t = LLVMTypeOf(a);
  int width = ny_fmts[f].bits;
  val near = ny_ic(x, LLVMIntULT, b, ny_ci(t, width)), most = ny_ci(t, width - 1);
  val n = ny_sel(x, near, b, most);
  if (!left && ny_signed(f)) return NY_B(AShr, x, a, n);
  return ny_sel(x, near, left ? NY_B(Shl, x, a, n) : NY_B(LShr, x, a, n), ny_ci(t, 0));
}

static val int_op(ny_lx *x, ny_fmt f, int op, val a, val b) {
  switch (op) {
  case NY_S_add: return NY_B(Add, x, a, b);
  case NY_S_sub: return NY_B(Sub, x, a, b);
  case NY_S_mul: return NY_B(Mul, x, a, b);
  case NY_S_div: return int_div(x, f, a, b, false);
  case NY_S_rem: return int_div(x, f, a, b, true);
  case NY_S_neg: return LLVMBuildNeg(x->b, a, "");
  case NY_S_abs:
    return ny_signed(f) ? ny_sel(x, ny_ic(x, LLVMIntSLT, a, ny_ci(LLVMTypeOf(a), 0)), LLVMBuildNeg(x->b, a, ""), a) : a;
  case NY_S_and: return NY_B(And, x, a, b);
  case NY_S_or: return NY_B(Or, x, a, b);
  case NY_S_xor: return NY_B(Xor, x, a, b);
  case NY_S_inv: return LLVMBuildNot(x->b, a, "");
  case NY_S_shl: return shift(x, f, a, b, true);
  case NY_S_shr: return shift(x, f, a, b, false);
  default: assert(false && "an integer scalar"); return a;
  }
}

/* ---- floats */
static val float_op(ny_lx *x, int op, val a, val b) {
  static ny_math1 *const functions[NY_N_SCALARS] = {
      [NY_S_exp] = ny_m_exp,   [NY_S_log] = ny_m_log,   [NY_S_log1p] = ny_m_log1p, [NY_S_sin] = ny_m_sin,
      [NY_S_cos] = ny_m_cos,   [NY_S_asin] = ny_m_asin, [NY_S_acos] = ny_m_acos,   [NY_S_atan] = ny_m_atan,
      [NY_S_tanh] = ny_m_tanh, [NY_S_erf] = ny_m_erf,   [NY_S_erfc] = ny_m_erfc,   [NY_S_sinh_small] = ny_m_sinh_small,
  };
  static const char *const intrinsics[NY_N_SCALARS] = {
      [NY_S_abs] = "llvm.fabs",  [NY_S_sqrt] = "llvm.sqrt",   [NY_S_floor] = "llvm.floor",
      [NY_S_ceil] = "llvm.ceil", [NY_S_trunc] = "llvm.trunc", [NY_S_rint] = "llvm.roundeven",
  };
  if (functions[op]) return functions[op](x, a);
  if (intrinsics[op]) return ny_un(x, intrinsics[op], a);
  switch (op) {
  case NY_S_add: return NY_B(FAdd, x, a, b);
  case NY_S_sub: return NY_B(FSub, x, a, b);
  case NY_S_mul: return NY_B(FMul, x, a, b);
  case NY_S_div: return NY_B(FDiv, x, a, b);
  case NY_S_rem: return ny_m_rem(x, a, b);
  case NY_S_neg: return LLVMBuildFNeg(x->b, a, "");
  case NY_S_pow: return ny_m_pow(x, a, b);
  default: assert(false && "a float scalar"); return a;
  }
}

static val compare(ny_lx *x, ny_fmt f, int op, val a, val b) {
  static const LLVMRealPredicate real[] = {LLVMRealOLT, LLVMRealOLE, LLVMRealOGT,
                                           LLVMRealOGE, LLVMRealOEQ, LLVMRealUNE};
  static const LLVMIntPredicate sint[] = {LLVMIntSLT, LLVMIntSLE, LLVMIntSGT, LLVMIntSGE, LLVMIntEQ, LLVMIntNE};
  static const LLVMIntPredicate uint[] = {LLVMIntULT, LLVMIntULE, LLVMIntUGT, LLVMIntUGE, LLVMIntEQ, LLVMIntNE};
  int i = op - NY_S_lt;
  if (ny_elem(LLVMTypeOf(a)) == x->i1) return ny_ic(x, uint[i], a, b); /* results of comparisons compared */
  if (ny_is_float(f)) return ny_fc(x, real[i], a, b);
  return ny_ic(x, ny_signed(f) ? sint[i] : uint[i], a, b);
}

/* ---- rows */
static val attribute(const ny_op *op, int slot, typ t, bool real) {
  bool is_int = ny_kinds[op->kind].attr[slot].kind == NY_I64;
  const ny_attr *a = &op->attr[slot];
  if (real) return ny_cf(t, is_int ? (double)a->i : a->f);
  return ny_ci(t, is_int ? a->i : (int64_t)a->f);
}

static val truth(ny_lx *x, val v) { /* a condition written as a number */
  return ny_elem(LLVMTypeOf(v)) == x->i1 ? v : ny_ic(x, LLVMIntNE, v, ny_ci(LLVMTypeOf(v), 0));
}

/* f: the format the arithmetic is in; t: its type with the lanes of the operands. */
static val expression(ny_lx *x, const ny_op *op, ny_fmt f, typ t, const val *in) {
  const ny_expr *e = ny_expr_of((ny_kind)op->kind);
  val v[128] = {NULL};
  bool real = ny_is_float(f);
  for (int i = 0; i < e->n; i++) {
    const ny_snode *s = &e->node[i];
    val a = v[s->a], b = v[s->b];
    switch (s->op) {
    case NY_S_param: v[i] = in[s->a]; break;
    case NY_S_attr: v[i] = attribute(op, s->a, t, real); break;
    case NY_S_num: v[i] = real ? ny_cf(t, s->x) : ny_ci(t, (int64_t)s->x); break;
    case NY_S_lt:
    case NY_S_le:
    case NY_S_gt:
    case NY_S_ge:
    case NY_S_eq:
    case NY_S_ne: v[i] = compare(x, f, s->op, a, b); break;
    case NY_S_land: v[i] = NY_B(And, x, truth(x, a), truth(x, b)); break;
    case NY_S_lor: v[i] = NY_B(Or, x, truth(x, a), truth(x, b)); break;
    case NY_S_lnot: v[i] = LLVMBuildNot(x->b, truth(x, a), ""); break;
    case NY_S_select: v[i] = ny_sel(x, truth(x, a), b, v[s->c]); break;
    default: v[i] = real ? float_op(x, s->op, a, b) : ny_wrap(x, f, int_op(x, f, s->op, a, b));
    }
  }
  return v[e->n - 1];
}

/* NaN wins, the first if both: a plain machine maximum and one correction. */
static val max_min(ny_lx *x, ny_fmt f, val a, val b, bool max) {
  if (!ny_is_float(f)) {
    if (f == NY_bool) return max ? NY_B(Or, x, a, b) : NY_B(And, x, a, b);
    return ny_bin(x, ny_signed(f) ? (max ? "llvm.smax" : "llvm.smin") : max ? "llvm.umax" : "llvm.umin", a, b);
  }
  val m = ny_sel(x, max ? ny_fc(x, LLVMRealOLT, a, b) : ny_fc(x, LLVMRealOLT, b, a), b, a);
  return ny_sel(x, ny_fc(x, LLVMRealUNO, b, b), b, m);
}

/* Rows with a function of their own in f32, faster and closer than their formula in f32 steps. */
static ny_math1 *whole_row(ny_kind k) {
  static const struct {
    ny_kind k;
    ny_math1 *f;
  } rows[] = {
      {NY_gelu, ny_m32_gelu}, {NY_gelu_tanh, ny_m32_gelu_tanh}, {NY_softplus, ny_m32_softplus}, {NY_mish, ny_m32_mish}};
  for (size_t i = 0; i < NY_COUNT(rows); i++)
    if (rows[i].k == k) return rows[i].f;
  return NULL;
}

val ny_row(ny_lx *x, const ny_op *op, const val *in) {
  ny_ew_types types = (ny_ew_types)ny_kinds[op->kind].ew;
  if (types == NY_EW_SELECT) return ny_sel(x, in[0], in[1], in[2]); /* bits move, nothing rounds */
  ny_fmt f = (ny_fmt)ny_in(op, 0)->type->fmt, to = (ny_fmt)op->out[0]->type->fmt;
  val num[3] = {NULL};
  for (int i = 0; i < op->n_in; i++) num[i] = ny_decode(x, f, in[i]);
  typ t = LLVMTypeOf(num[0]);
  if (ny_is_float(f) && f != NY_f64 && needs_f64((ny_kind)op->kind)) {
    t = ny_like(num[0], x->f64);
    for (int i = 0; i < op->n_in; i++) num[i] = LLVMBuildFPExt(x->b, num[i], t, "");
  }
  bool max = op->kind == NY_max;
  ny_math1 *whole = f == NY_f64 ? NULL : whole_row((ny_kind)op->kind);
  val r = max || op->kind == NY_min ? max_min(x, f, num[0], num[1], max)
          : whole                   ? whole(x, num[0])
                                    : expression(x, op, f, t, num);
  return ny_is_float(to) ? ny_encode(x, to, r, false) : r;
}

/* ---- folds */
ny_lfold ny_lfold_of(const char *name) {
  static const char *const names[] = {"set", "sum", "prod", "max", "min"};
  for (int i = 0; name && i < (int)NY_COUNT(names); i++)
    if (!strcmp(name, names[i])) return (ny_lfold)i;
  return NY_LF_set;
}

val ny_lfold_first(ny_lx *x, ny_lfold o, ny_fmt f, int lanes) {
  typ t = ny_vec(ny_num_type(x, f), lanes);
  if (ny_is_float(f))
    return ny_cf(t, o == NY_LF_prod ? 1 : o == NY_LF_max ? -__builtin_inf() : o == NY_LF_min ? __builtin_inf() : 0);
  int bits = ny_fmts[f].bits;
  if (o == NY_LF_sum || o == NY_LF_prod || f == NY_bool)
    return ny_ci(t, o == NY_LF_prod || (f == NY_bool && o == NY_LF_min));
  bool top = o == NY_LF_min;
  if (!ny_signed(f)) return ny_ci(t, top ? (int64_t)(UINT64_MAX >> (64 - bits)) : 0);
  int64_t lowest = (int64_t)(UINT64_MAX << (bits - 1));
  return ny_ci(t, top ? ~lowest : lowest);
}

val ny_lfold_step(ny_lx *x, ny_lfold o, ny_fmt f, val a, val b) {
  bool real = ny_is_float(f);
  switch (o) {
  case NY_LF_sum:
    if (f == NY_bool) return NY_B(Or, x, a, b);
    return real ? NY_B(FAdd, x, a, b) : ny_wrap(x, f, NY_B(Add, x, a, b));
  case NY_LF_prod:
    if (f == NY_bool) return NY_B(And, x, a, b);
    return real ? NY_B(FMul, x, a, b) : ny_wrap(x, f, NY_B(Mul, x, a, b));
  case NY_LF_max: return max_min(x, f, a, b, true);
  case NY_LF_min: return max_min(x, f, a, b, false);
  default: return b;
  }
}

val ny_lfold_lanes(ny_lx *x, ny_lfold o, ny_fmt f, val v) {
  for (int n = ny_lanes(v); n > 1; n /= 2)
    v = ny_lfold_step(x, o, f, ny_part(x, v, 0, n / 2), ny_part(x, v, n / 2, n / 2));
  return v;
}
