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

val ny_copysign(ny_lx *x, val magnitude, val sign) { return ny_bin(x, "llvm.copysign", magnitude, sign); }

#define BOTH(name)                                                                                                     \
  val ny_m_##name(ny_lx *x, val a) {                                                                                   \
    return ny_elem(LLVMTypeOf(a)) == x->f64 ? ny_m64_##name(x, a) : ny_m32_##name(x, a);                               \
  }
NY_MATH_ROWS(BOTH)

val ny_m_pow(ny_lx *x, val a, val b) {
  return ny_elem(LLVMTypeOf(a)) == x->f64 ? ny_m64_pow(x, a, b) : ny_m32_pow(x, a, b);
}
