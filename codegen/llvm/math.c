/* Vector functions: which version, and what both share. No library calls: a kernel depends on nothing. Polynomials are
   minimax fits over the stated range; errors stand at each function. NaN goes through, and infinities and signed zeros
   come out as C defines them. */
#include "vmath.h"

val ny_poly(ny_lx *x, val a, const double *c, int n) {
  typ t = LLVMTypeOf(a);
  val r = ny_cf(t, c[0]);
  for (int i = 1; i < n; i++) r = ny_fma(x, r, a, ny_cf(t, c[i]));
  return r;
}

/* A double in two of at most 26 bits each, whose products are exact. */
static val high_half(ny_lx *x, val a) {
  val t = NY_B(FMul, x, a, ny_cf(LLVMTypeOf(a), 134217729));
  return NY_B(FSub, x, t, NY_B(FSub, x, t, a));
}

/* a*b - p, exactly, for p = a*b rounded (Dekker). */
static val product_rest(ny_lx *x, val a, val b, val p) {
  val ah = high_half(x, a), al = NY_B(FSub, x, a, ah), bh = high_half(x, b), bl = NY_B(FSub, x, b, bh);
  val r = NY_B(FSub, x, NY_B(FMul, x, ah, bh), p);
  r = NY_B(FAdd, x, NY_B(FAdd, x, r, NY_B(FMul, x, ah, bl)), NY_B(FMul, x, al, bh));
  return NY_B(FAdd, x, r, NY_B(FMul, x, al, bl));
}

val ny_fma_exact(ny_lx *x, val a, val b, val c) {
  if (!x->target->no_fma) return ny_fma(x, a, b, c);
  typ t = LLVMTypeOf(a), wide = ny_like(a, x->f64);
  if (t == wide) {
    val p = NY_B(FMul, x, a, b);
    return NY_B(FAdd, x, NY_B(FAdd, x, c, p), product_rest(x, a, b, p));
  }
  val p = NY_B(FMul, x, LLVMBuildFPExt(x->b, a, wide, ""), LLVMBuildFPExt(x->b, b, wide, "")); /* exact */
  return LLVMBuildFPTrunc(x->b, NY_B(FAdd, x, p, LLVMBuildFPExt(x->b, c, wide, "")), t, "");
}

val ny_copysign(ny_lx *x, val magnitude, val sign) { return ny_bin(x, "llvm.copysign", magnitude, sign); }

#define BOTH(name)                                                                                                     \
  val ny_m_##name(ny_lx *x, val a) {                                                                                   \
    return ny_elem(LLVMTypeOf(a)) == x->f64 ? ny_m64_##name(x, a) : ny_m32_##name(x, a);                               \
  }
NY_MATH_ROWS(BOTH)

val ny_m_pow(ny_lx *x, val a, val b) {
  return ny_elem(LLVMTypeOf(a)) == x->f64 ? ny_m64_pow(x, a, b) : ny_m32_pow(x, a, b);
}
