/* The two versions of every vector function. */
#ifndef NY_LLVM_VMATH_H
#define NY_LLVM_VMATH_H
#include "llvm.h"

#define NY_MATH_ROWS(X)                                                                                                \
  X(exp) X(log) X(log1p) X(sin) X(cos) X(asin) X(acos) X(atan) X(sinh_small) X(tanh) X(erf) X(erfc)
#define NY_MATH_DECLARE(name) ny_math1 ny_m32_##name, ny_m64_##name;
NY_MATH_ROWS(NY_MATH_DECLARE)
val ny_m32_pow(ny_lx *x, val a, val b);
val ny_m64_pow(ny_lx *x, val a, val b);
ny_math1 ny_m32_gelu, ny_m32_gelu_tanh, ny_m32_softplus, ny_m32_mish; /* whole rows, better than their formula in f32 */
#define NY_POLY(x, a, ...)                                                                                             \
  ny_poly((x), (a), (const double[]){__VA_ARGS__}, (int)(sizeof((const double[]){__VA_ARGS__}) / sizeof(double)))

/* Arguments too large for the usual reduction: a = n*pi/2 + r with |r| <= pi/4, one lane at a time with 192 bits of
 * 2/pi. q gets n mod 4 as i32. */
val ny_reduce_huge(ny_lx *x, val a, val *q);
#endif
