/* Functions that need integer arithmetic of many bits: the reduction of huge arguments of sin and cos, and the exact
   remainder. Each is one scalar function in the module, called lane by lane from a path that ordinary arguments never
   take. */
#include "vmath.h"

#include <assert.h>

static val c64(ny_lx *x, int64_t v) { return ny_ci(x->i64, v); }
static val c128(ny_lx *x, int64_t v) { return ny_ci(x->i128, v); }

typedef struct outer { /* the function being built, put aside */
  val fn;
  blk entry, at;
} outer;
static outer leave(ny_lx *x) { return (outer){x->fn, x->entry, LLVMGetInsertBlock(x->b)}; }
static void back(ny_lx *x, outer o) {
  LLVMPositionBuilderAtEnd(x->b, x->entry);
  LLVMBuildBr(x->b, LLVMGetNextBasicBlock(x->entry));
  x->fn = o.fn, x->entry = o.entry;
  LLVMPositionBuilderAtEnd(x->b, o.at);
}

/* ---- 2/pi */
static const uint64_t two_over_pi[] = {/* the binary point is after the first word */
                                       0x0000000000000000u, 0xa2f9836e4e441529u, 0xfc2757d1f534ddc0u,
                                       0xdb6295993c439041u, 0xfe5163abdebbc561u, 0xb7246e3a424dd2e0u,
                                       0x06492eea09d1921cu, 0xfe1deb1cb129a73eu, 0xe88235f52ebb4484u,
                                       0xe99c7026b45f7e41u, 0x3991d639835339f4u, 0x9c845f8bbdf9283bu,
                                       0x1ff897ffde05980fu, 0xef2f118b5a0a6d1fu, 0x6d367ecf27cb09b7u,
                                       0x4f463f669e5fea2du, 0x7527bac7ebe5f17bu, 0x3d0739f78a5292eau,
                                       0x6bfb5fb11f8d5d08u, 0x56033046fc7b6babu, 0xf0cfbc209af4361du,
                                       0xa9e391615ee61b08u};

static val table(ny_lx *x) {
  val g = LLVMGetNamedGlobal(x->m, "two_over_pi");
  if (g) return g;
  val word[NY_COUNT(two_over_pi)];
  for (size_t i = 0; i < NY_COUNT(word); i++) word[i] = c64(x, (int64_t)two_over_pi[i]);
  val init = LLVMConstArray2(x->i64, word, NY_COUNT(word));
  g = LLVMAddGlobal(x->m, LLVMTypeOf(init), "two_over_pi");
  LLVMSetInitializer(g, init);
  LLVMSetGlobalConstant(g, 1);
  LLVMSetLinkage(g, LLVMInternalLinkage);
  LLVMSetAlignment(g, 8);
  return g;
}

/* a = M * 2^E with 53-bit M. Of a * 2/pi modulo 4 only the bits of 2/pi from weight 2^(1-E) down matter: 192 of them
   leave at least 60 good bits however close a is to a multiple of pi/2. */
static val reduce_function(ny_lx *x) {
  val f = LLVMGetNamedFunction(x->m, "reduce");
  if (f) return f;
  outer o = leave(x);
  f = ny_lx_function(x, "reduce", (typ[]){x->i64, x->ptr, x->ptr}, 3, true);
  ny_lx_attr(x, f, (int)LLVMAttributeFunctionIndex, "noinline", 0);
  val bits = LLVMGetParam(f, 0), exp = NY_B(And, x, NY_B(LShr, x, bits, c64(x, 52)), c64(x, 0x7ff));
  val man = NY_B(Or, x, NY_B(And, x, bits, c64(x, 0xfffffffffffff)), c64(x, (int64_t)1 << 52));
  val from = NY_B(Add, x, exp, c64(x, 62 - 1075)), word = NY_B(LShr, x, from, c64(x, 6)),
      shift = NY_B(And, x, from, c64(x, 63));
  val w[4], m = LLVMBuildZExt(x->b, man, x->i128, "");
  for (int i = 0; i < 4; i++) w[i] = ny_ld(x, x->i64, ny_gep(x, x->i64, table(x), NY_B(Add, x, word, c64(x, i))), 8);
  val sum = NULL;
  for (int i = 0; i < 3; i++) {
    val s = ny_call(x, "llvm.fshl", &x->i64, 1, (val[]){w[i], w[i + 1], shift}, 3);
    val p = NY_B(Mul, x, m, LLVMBuildZExt(x->b, s, x->i128, ""));
    p = i == 0 ? NY_B(Shl, x, p, c128(x, 64)) : i == 2 ? NY_B(LShr, x, p, c128(x, 64)) : p;
    sum = sum ? NY_B(Add, x, sum, p) : p;
  }
  /* sum: two integer bits, then the fraction; as a signed number the fraction is the nearest one */
  val half = NY_B(Shl, x, c128(x, 1), c128(x, 125));
  val q = LLVMBuildTrunc(x->b, NY_B(LShr, x, NY_B(Add, x, sum, half), c128(x, 126)), x->i32, "");
  val frac = NY_B(Shl, x, sum, c128(x, 2)), minus = ny_ic(x, LLVMIntSLT, frac, c128(x, 0));
  val mag = ny_sel(x, minus, LLVMBuildNeg(x->b, frac, ""), frac);
  val zeros = ny_call(x, "llvm.ctlz", &x->i128, 1, (val[]){mag, ny_ci(x->i1, 0)}, 2),
      lz = LLVMBuildTrunc(x->b, zeros, x->i64, "");
  val top = LLVMBuildTrunc(x->b, NY_B(LShr, x, NY_B(Shl, x, mag, NY_B(And, x, zeros, c128(x, 127))), c128(x, 64)),
                           x->i64, "");
  val unit = ny_bits(x, NY_B(Shl, x, NY_B(Sub, x, c64(x, 1023 - 64), lz), c64(x, 52)), x->f64);
  val r =
      NY_B(FMul, x, LLVMBuildUIToFP(x->b, top, x->f64, ""), NY_B(FMul, x, unit, ny_cf(x->f64, 1.57079632679489661923)));
  val negative = ny_ic(x, LLVMIntSLT, bits, c64(x, 0)), flip = NY_B(Xor, x, minus, negative);
  r = ny_sel(x, flip, LLVMBuildFNeg(x->b, r, ""), r);
  q = ny_sel(x, negative, LLVMBuildNeg(x->b, q, ""), q);
  r = ny_sel(x, ny_ic(x, LLVMIntEQ, exp, c64(x, 0x7ff)), ny_cf(x->f64, __builtin_nan("")), r);
  ny_st(x, r, LLVMGetParam(f, 1), 8);
  ny_st(x, q, LLVMGetParam(f, 2), 4);
  LLVMBuildRetVoid(x->b);
  back(x, o);
  return f;
}

val ny_reduce_huge(ny_lx *x, val a, val *q) {
  int n = ny_lanes(a);
  val f = reduce_function(x), in = ny_slot(x, x->f64, n, 64), r = ny_slot(x, x->f64, n, 64),
      k = ny_slot(x, x->i32, n, 64);
  ny_st(x, a, in, 64);
  ny_lloop l;
  ny_loop_begin(x, &l, c64(x, 0), c64(x, n), c64(x, 1), false);
  /* small lanes come along with a fixed argument: their exponent would point before the table */
  val v = ny_ld(x, x->f64, ny_gep(x, x->f64, in, l.iv), 8),
      small = ny_fc(x, LLVMRealOLT, ny_fabs(x, v), ny_cf(x->f64, 65536));
  val arg[3] = {ny_bits(x, ny_sel(x, small, ny_cf(x->f64, 65536), v), x->i64), ny_gep(x, x->f64, r, l.iv),
                ny_gep(x, x->i32, k, l.iv)};
  LLVMBuildCall2(x->b, LLVMGlobalGetValueType(f), f, arg, 3, "");
  ny_loop_end(x, &l);
  *q = ny_ld(x, ny_vec(x->i32, n), k, 64);
  return ny_ld(x, ny_vec(x->f64, n), r, 64);
}

/* ---- remainder */
static val
normal_mantissa(ny_lx *x, val bits,
                val *exp) { /* magnitude bits -> 53-bit mantissa and its exponent; subnormals are shifted up */
  val e = NY_B(LShr, x, bits, c64(x, 52)), man = NY_B(And, x, bits, c64(x, 0xfffffffffffff));
  val low = ny_ic(x, LLVMIntEQ, e, c64(x, 0)), safe = NY_B(Or, x, man, c64(x, 1));
  val up = NY_B(Sub, x, ny_call(x, "llvm.ctlz", &x->i64, 1, (val[]){safe, ny_ci(x->i1, 0)}, 2), c64(x, 11));
  *exp = ny_sel(x, low, NY_B(Sub, x, c64(x, 1), up), e);
  return ny_sel(x, low, NY_B(Shl, x, man, up), NY_B(Or, x, man, c64(x, (int64_t)1 << 52)));
}

/* |a| mod |b| for finite a, b with |a| >= |b| > 0: long division, a bit at a time. */
static val rem_function(ny_lx *x) {
  val f = LLVMGetNamedFunction(x->m, "rem");
  if (f) return f;
  outer o = leave(x);
  f = ny_lx_function(x, "rem", (typ[]){x->i64, x->i64, x->ptr}, 3, true);
  ny_lx_attr(x, f, (int)LLVMAttributeFunctionIndex, "noinline", 0);
  val ea, eb, ma = normal_mantissa(x, LLVMGetParam(f, 0), &ea), mb = normal_mantissa(x, LLVMGetParam(f, 1), &eb);
  val m = ny_slot(x, x->i64, 1, 8);
  ny_st(x, ma, m, 8);
  ny_lloop l;
  ny_loop_begin(x, &l, eb, ea, c64(x, 1), true);
  val v = ny_ld(x, x->i64, m, 8), d = NY_B(Sub, x, v, mb);
  v = ny_sel(x, ny_ic(x, LLVMIntSGE, d, c64(x, 0)), d, v);
  ny_st(x, NY_B(Shl, x, v, c64(x, 1)), m, 8);
  ny_loop_end(x, &l);
  val r = ny_ld(x, x->i64, m, 8), last = NY_B(Sub, x, r, mb);
  r = ny_sel(x, ny_ic(x, LLVMIntSGE, last, c64(x, 0)), last, r);
  /* r * 2^(eb-1075): shifted up to 53 bits as far as the exponent allows */
  val some = NY_B(Or, x, r, c64(x, 1)),
      up = NY_B(Sub, x, ny_call(x, "llvm.ctlz", &x->i64, 1, (val[]){some, ny_ci(x->i1, 0)}, 2), c64(x, 11));
  val e = NY_B(Sub, x, eb, up), normal = ny_ic(x, LLVMIntSGT, e, c64(x, 0));
  val as_normal = NY_B(Add, x, NY_B(Shl, x, r, up), NY_B(Shl, x, NY_B(Sub, x, e, c64(x, 1)), c64(x, 52)));
  val room = NY_B(Sub, x, eb, c64(x, 1)), down = ny_ic(x, LLVMIntSLT, room, c64(x, 0));
  val sub = ny_sel(x, down, NY_B(LShr, x, r, NY_B(And, x, LLVMBuildNeg(x->b, room, ""), c64(x, 63))),
                   NY_B(Shl, x, r, NY_B(And, x, room, c64(x, 63))));
  r = ny_sel(x, ny_ic(x, LLVMIntEQ, r, c64(x, 0)), c64(x, 0), ny_sel(x, normal, as_normal, sub));
  ny_st(x, r, LLVMGetParam(f, 2), 8);
  LLVMBuildRetVoid(x->b);
  back(x, o);
  return f;
}

/* Lane by lane; lanes outside the domain of rem_function are given 1 mod 1. */
static val rem_lanes(ny_lx *x, val a, val b, val ok) {
  int n = ny_lanes(a);
  val f = rem_function(x), in = ny_slot(x, x->f64, n, 64), by = ny_slot(x, x->f64, n, 64),
      r = ny_slot(x, x->f64, n, 64);
  val one = ny_cf(LLVMTypeOf(a), 1);
  ny_st(x, ny_sel(x, ok, a, one), in, 64);
  ny_st(x, ny_sel(x, ok, b, one), by, 64);
  ny_lloop l;
  ny_loop_begin(x, &l, c64(x, 0), c64(x, n), c64(x, 1), false);
  val arg[3] = {ny_ld(x, x->i64, ny_gep(x, x->i64, in, l.iv), 8), ny_ld(x, x->i64, ny_gep(x, x->i64, by, l.iv), 8),
                ny_gep(x, x->f64, r, l.iv)};
  LLVMBuildCall2(x->b, LLVMGlobalGetValueType(f), f, arg, 3, "");
  ny_loop_end(x, &l);
  return ny_ld(x, LLVMTypeOf(a), r, 64);
}

/* C fmod. Floats are widened, and where the quotient is below 2^28 (so that its product with 24 bits is exact, with
 * fma or without) the remainder is a multiply-add and a correction. */
val ny_m_rem(ny_lx *x, val a, val b) {
  typ t = LLVMTypeOf(a), wide = ny_like(a, x->f64);
  bool narrow = ny_elem(t) != x->f64;
  if (narrow) a = LLVMBuildFPExt(x->b, a, wide, ""), b = LLVMBuildFPExt(x->b, b, wide, "");
  val p = ny_fabs(x, a), q = ny_fabs(x, b), inf = ny_cf(wide, __builtin_inf());
  val in = NY_B(And, x, ny_fc(x, LLVMRealOLT, p, inf),
                ny_fc(x, LLVMRealOGT, q, ny_cf(wide, 0))); /* a finite, b not 0 or NaN */
  val long_way = NY_B(And, x, in, ny_fc(x, LLVMRealOGE, p, q)), r;
  if (narrow) {
    val n = ny_un(x, "llvm.trunc", NY_B(FDiv, x, p, q)),
        far = NY_B(And, x, long_way, ny_fc(x, LLVMRealOGE, n, ny_cf(wide, 268435456)));
    val d = ny_fma(x, LLVMBuildFNeg(x->b, n, ""), q, p);
    d = ny_sel(x, ny_fc(x, LLVMRealOLT, d, ny_cf(wide, 0)), NY_B(FAdd, x, d, q), d);
    d = ny_sel(x, ny_fc(x, LLVMRealOGE, d, q), NY_B(FSub, x, d, q), d);
    ny_lif f;
    ny_if_begin(x, &f, ny_any(x, far));
    val slow = ny_sel(x, far, rem_lanes(x, p, q, far), d);
    ny_if_else(x, &f, slow);
    r = ny_if_end(x, &f, d);
  } else {
    r = rem_lanes(x, p, q, long_way);
  }
  r = ny_sel(x, long_way, r, ny_sel(x, in, p, ny_cf(wide, __builtin_nan(""))));
  r = ny_copysign(x, r, a);
  return narrow ? LLVMBuildFPTrunc(x->b, r, t, "") : r;
}
