/* f32 functions. Errors are the largest seen over every 331st float, in units in the last place of the exact result. */
#include "vmath.h"

static val k(val like, double v) { return ny_cf(LLVMTypeOf(like), v); }
static val ki(ny_lx *x, val like, int64_t v) { return ny_ci(ny_like(like, x->i32), v); }
static val as_int(ny_lx *x, val a) { return ny_bits(x, a, ny_like(a, x->i32)); }
static val as_float(ny_lx *x, val a) { return ny_bits(x, a, ny_like(a, x->f32)); }
static val mul(ny_lx *x, val a, val b) { return NY_B(FMul, x, a, b); }
static val add(ny_lx *x, val a, val b) { return NY_B(FAdd, x, a, b); }
static val sub(ny_lx *x, val a, val b) { return NY_B(FSub, x, a, b); }
static val lt(ny_lx *x, val a, double b) { return ny_fc(x, LLVMRealOLT, a, k(a, b)); }
static val gt(ny_lx *x, val a, double b) { return ny_fc(x, LLVMRealOGT, a, k(a, b)); }

/* p * 2^n, n = n_int = n_float in [-150, 128]: exact where the result is normal, rounded once where it is not. */
static val scale(ny_lx *x, val p, val n_float, val n_int) {
  if (x->avx512 && ny_lanes(p) == 16) {
    val a[5] = {p, n_float, p, ny_ci(x->i16, -1), ny_ci(x->i32, 4)};
    return ny_call(x, "llvm.x86.avx512.mask.scalef.ps.512", NULL, 0, a, 5);
  }
  val half = NY_B(AShr, x, n_int, ki(x, p, 1)), rest = NY_B(Sub, x, n_int, half), bias = ki(x, p, 127),
      by = ki(x, p, 23);
  val a = as_float(x, NY_B(Shl, x, NY_B(Add, x, half, bias), by)),
      b = as_float(x, NY_B(Shl, x, NY_B(Add, x, rest, bias), by));
  return mul(x, mul(x, p, a), b);
}

/* e^(a + low), low small or NULL (then a may be positive). a beyond the range of results is cut, so that 0 and inf come
   out of the scaling. Adding 1.5*2^23 rounds to an integer and leaves it in the low bits, which also keeps NaN away
   from float-to-integer conversions. */
static val exp_with(ny_lx *x, val a, val low) {
  if (!low) a = ny_sel(x, gt(x, a, 89), k(a, 89), a);
  a = ny_sel(x, lt(x, a, -104), k(a, -104), a);
  val magic = k(a, 12582912), t = ny_fma(x, a, k(a, 1.44269504088896341), magic), n = sub(x, t, magic);
  val r = ny_fma(x, n, k(a, -0.693359375), a);
  if (low) r = add(x, r, low);
  r = ny_fma(x, n, k(a, 2.12194440e-4), r);
  val p = NY_POLY(x, r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
                  5.0000001201e-1);
  p = add(x, ny_fma(x, p, mul(x, r, r), r), k(a, 1));
  return scale(x, p, n, NY_B(Sub, x, as_int(x, t), as_int(x, magic)));
}

val ny_m32_exp(ny_lx *x, val a) { return exp_with(x, a, NULL); } /* 0.98 */

/* log of a positive normal number times 2^shift (an integer vector). */
static val log_normal(ny_lx *x, val a, val shift) {
  val i = as_int(x, a), e = NY_B(AShr, x, NY_B(Sub, x, i, ki(x, a, 0x3f2aaaab)), ki(x, a, 23));
  val m = as_float(x, NY_B(Sub, x, i, NY_B(Shl, x, e, ki(x, a, 23)))); /* 2/3 to 4/3 */
  val n = LLVMBuildSIToFP(x->b, NY_B(Add, x, e, shift), LLVMTypeOf(a), ""), f = sub(x, m, k(a, 1)), s = mul(x, f, f);
  static const double c[] = {-0.130187988, 0.140889585,  -0.121489584, 0.139809534, -0.166845024,
                             0.200121149,  -0.249996364, 0.333331943,  -0.5};
  val r = ny_fma(x, k(a, c[0]), f, k(a, c[1])), t = ny_fma(x, k(a, c[2]), f, k(a, c[3]));
  r = ny_fma(x, r, s, t);
  for (int j = 4; j < 9; j++) r = ny_fma(x, r, f, k(a, c[j]));
  return ny_fma(x, n, k(a, 0.693147182), ny_fma(x, r, s, f));
}

val ny_m32_log(ny_lx *x, val a) { /* 0.84 */
  val tiny = lt(x, a, 1.17549435e-38), up = ny_sel(x, tiny, mul(x, a, k(a, 8388608)), a);
  val r = log_normal(x, up, ny_sel(x, tiny, ki(x, a, -23), ki(x, a, 0)));
  val inf = k(a, __builtin_inf());
  r = ny_sel(x, ny_fc(x, LLVMRealUGE, a, inf), a, r); /* inf, NaN */
  r = ny_sel(x, ny_fc(x, LLVMRealOEQ, a, k(a, 0)), k(a, -__builtin_inf()), r);
  return ny_sel(x, lt(x, a, 0), k(a, __builtin_nan("")), r);
}

/* log(1+a) = log(u) + (a - (u-1))/u with u = 1+a rounded. */
val ny_m32_log1p(ny_lx *x, val a) {
  val one = k(a, 1), u = add(x, a, one), rest = sub(x, a, sub(x, u, one));
  val r = add(x, ny_m32_log(x, u), NY_B(FDiv, x, rest, u));
  val inf = ny_fc(x, LLVMRealOEQ, u, k(a, __builtin_inf())), bottom = ny_fc(x, LLVMRealOEQ, u, k(a, 0));
  r = ny_sel(x, inf, a, r);
  r = ny_sel(x, bottom, k(a, -__builtin_inf()), r);
  return ny_sel(x, lt(x, ny_fabs(x, a), 1e-5), ny_fma(x, mul(x, a, a), k(a, -0.5), a),
                r); /* keeps -0, and saves the last place */
}

/* ---- circular functions */
static val sin_poly(ny_lx *x, val r, val s) {
  val p = NY_POLY(x, s, 2.71696816484e-6, -0.000198392213632, 0.00833332920816, -0.166666666433);
  return ny_fma(x, mul(x, p, s), r, r);
}

static val cos_poly(ny_lx *x, val s) {
  val p = NY_POLY(x, s, -2.72339836803e-7, 2.47998781111e-5, -0.00138888854465, 0.0416666666472);
  return ny_fma(x, mul(x, p, s), s, ny_fma(x, s, k(s, -0.5), k(s, 1)));
}

/* pi/2 in three parts: the first product is exact for |n| < 2^16. */
static val circular(ny_lx *x, val a, bool cosine) {
  val magic = k(a, 12582912), t = ny_fma(x, a, k(a, 0.636619772367581343), magic), n = sub(x, t, magic);
  val r = ny_fma_exact(x, n, k(a, -1.5707963705062866), a);
  r = ny_fma_exact(x, n, k(a, 4.37113900018624283e-8), r);
  r = ny_fma(x, n, k(a, 1.71512449009300e-15), r);
  val q = NY_B(Sub, x, as_int(x, t), as_int(x, magic));
  val huge = ny_fc(x, LLVMRealUGT, ny_fabs(x, a), k(a, 65536));
  ny_lif f;
  ny_if_begin(x, &f, ny_any(x, huge));
  val hq, hr = LLVMBuildFPTrunc(x->b, ny_reduce_huge(x, LLVMBuildFPExt(x->b, a, ny_like(a, x->f64), ""), &hq),
                                LLVMTypeOf(a), "");
  hr = ny_sel(x, huge, hr, r);
  hq = ny_sel(x, huge, hq, q);
  blk then = LLVMGetInsertBlock(x->b);
  ny_if_else(x, &f, hr);
  blk other = LLVMGetInsertBlock(x->b);
  r = ny_if_end(x, &f, r);
  val both = LLVMBuildPhi(x->b, LLVMTypeOf(q), "");
  LLVMAddIncoming(both, &hq, &then, 1);
  LLVMAddIncoming(both, &q, &other, 1);
  q = cosine ? NY_B(Add, x, both, ki(x, a, 1)) : both;
  val s = mul(x, r, r), odd = LLVMBuildTrunc(x->b, q, ny_like(q, x->i1), "");
  val y = as_int(x, ny_sel(x, odd, cos_poly(x, s), sin_poly(x, r, s)));
  val sign = NY_B(Shl, x, NY_B(And, x, q, ki(x, a, 2)), ki(x, a, 30));
  return as_float(x, NY_B(Xor, x, y, sign));
}

val ny_m32_sin(ny_lx *x, val a) { return circular(x, a, false); }
val ny_m32_cos(ny_lx *x, val a) { return circular(x, a, true); }

val ny_m32_atan(ny_lx *x, val a) {
  val t = ny_fabs(x, a), big = gt(x, t, 1), z = ny_sel(x, big, NY_B(FDiv, x, k(a, -1), t), t), s = mul(x, z, z);
  val p = NY_POLY(x, s, 0.00283406432833, -0.0161140119395, 0.0429732785709, -0.0754918022263, 0.106739855426,
                  -0.142158653707, 0.199947571439, -0.333332138494);
  val r = ny_fma(x, mul(x, p, s), z, z);
  r = ny_sel(x, big, add(x, k(a, 1.57079632679489662), r), r);
  return ny_copysign(x, r, a);
}

static val asin_poly(ny_lx *x, val z, val s) { /* |z| <= 1/2 */
  val p = NY_POLY(x, s, 0.0378063612622, 0.0143350534985, 0.0317995068602, 0.0445236161027, 0.0750042908386,
                  0.166666622198);
  return ny_fma(x, mul(x, p, s), z, z);
}

/* Near the ends asin(t) = pi/2 - 2 asin(sqrt((1-t)/2)). */
val ny_m32_asin(ny_lx *x, val a) {
  val t = ny_fabs(x, a), big = gt(x, t, 0.5), h = mul(x, sub(x, k(a, 1), t), k(a, 0.5));
  val z = ny_sel(x, big, ny_un(x, "llvm.sqrt", h), t), r = asin_poly(x, z, ny_sel(x, big, h, mul(x, t, t)));
  val hi = add(x, ny_fma(x, r, k(a, -2), k(a, 1.57079637050628662)), k(a, -4.37113900018624283e-8));
  return ny_copysign(x, ny_sel(x, big, hi, r), a);
}

val ny_m32_acos(ny_lx *x, val a) {
  val t = ny_fabs(x, a), big = gt(x, t, 0.5), h = mul(x, sub(x, k(a, 1), t), k(a, 0.5));
  val z = ny_sel(x, big, ny_un(x, "llvm.sqrt", h), a), r = asin_poly(x, z, ny_sel(x, big, h, mul(x, a, a)));
  val two = add(x, r, r),
      low = ny_sel(x, lt(x, a, 0), add(x, sub(x, k(a, 3.14159274101257324), two), k(a, -8.74227800037248566e-8)), two);
  val mid = add(x, sub(x, k(a, 1.57079637050628662), r), k(a, -4.37113900018624283e-8));
  return ny_sel(x, big, low, mid);
}

/* ---- hyperbolic and error functions */
val ny_m32_sinh_small(ny_lx *x, val a) {
  val s = mul(x, a, a);
  return ny_fma(
      x, mul(x, NY_POLY(x, s, 2.55382537226e-8, 2.7551935695e-6, 0.00019841296287, 0.00833333327926, 0.16666666667), s),
      a, a);
}

val ny_m32_tanh(ny_lx *x, val a) { /* 1.3 */
  val t = ny_fabs(x, a), s = mul(x, a, a);
  val q = NY_POLY(x, s, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1);
  q = ny_fma(x, mul(x, q, s), a, a);
  val cut = ny_sel(x, gt(x, t, 10), k(a, 10), t), e = ny_m32_exp(x, add(x, cut, cut));
  val b = sub(x, k(a, 1), NY_B(FDiv, x, k(a, 2), add(x, e, k(a, 1))));
  return ny_sel(x, gt(x, t, 0.625), ny_copysign(x, b, a), q);
}

val ny_m32_erf(ny_lx *x, val a) { /* 0.96; above 0.92: 1 - e^p(|a|) */
  val t = ny_fabs(x, a), s = mul(x, a, a);
  val r = ny_fma(x, k(a, -1.72853470e-5), t, k(a, 3.83197126e-4)),
      u = ny_fma(x, k(a, -3.88396438e-3), t, k(a, 2.42546219e-2));
  r = ny_fma(x, r, s, u);
  r = ny_fma(x, r, t, k(a, -1.06777877e-1));
  r = ny_fma(x, r, t, k(a, -6.34846687e-1));
  r = ny_fma(x, r, t, k(a, -1.28717512e-1));
  r = ny_fma(x, r, t, LLVMBuildFNeg(x->b, t, ""));
  val big = ny_copysign(x, sub(x, k(a, 1), ny_m32_exp(x, r)), a);
  val q = NY_POLY(x, s, -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1);
  return ny_sel(x, gt(x, t, 0.921875), big, ny_fma(x, q, a, a));
}

/* erfc(w/sqrt 2) = e^-square * erfcx(w/sqrt 2) for w >= 0, where square = w*w/2 is given as high + low, so that the
   exponent, which is what the tail lives on, is good to more than 24 bits. erfcx is r * polynomial in (w-4)*r, with r =
   1/(w+4), for w to 14.6; beyond it the exponential is 0. */
static val erfc_core(ny_lx *x, val w, val high, val low) {
  val r = NY_B(FDiv, x, k(w, 1), add(x, w, k(w, 4))), q = mul(x, sub(x, w, k(w, 4)), r);
  val p = NY_POLY(x, q, -0.000264861885869, 0.0003567503556, 0.00313917626498, -0.00702416473538, -0.015050008378,
                  0.120807532565, -0.37304697133, 0.774273807418, -1.21579317172, 1.51057027073);
  return mul(x, mul(x, p, r), exp_with(x, LLVMBuildFNeg(x->b, high, ""), LLVMBuildFNeg(x->b, low, "")));
}

val ny_m32_erfc(ny_lx *x, val a) {
  val t = ny_fabs(x, a), cut = ny_sel(x, gt(x, t, 11), k(a, 11), t);
  val hi = mul(x, cut, cut), lo = ny_fma_exact(x, cut, cut, LLVMBuildFNeg(x->b, hi, ""));
  val c = erfc_core(x, mul(x, cut, k(a, 1.41421356237309505)), hi, lo);
  return ny_sel(x, lt(x, a, 0), sub(x, k(a, 2), c), c);
}

/* a/2 * erfc(-a/sqrt 2): the square of a is exact in two parts, which -a/sqrt 2 would not be. */
val ny_m32_gelu(ny_lx *x, val a) {
  val t = ny_fabs(x, a), cut = ny_sel(x, gt(x, t, 16), k(a, 16), t), h = mul(x, cut, k(a, 0.5));
  val hi = mul(x, h, cut), lo = ny_fma_exact(x, h, cut, LLVMBuildFNeg(x->b, hi, ""));
  val c = erfc_core(x, cut, hi, lo);
  return mul(x, mul(x, a, k(a, 0.5)), ny_sel(x, lt(x, a, 0), c, sub(x, k(a, 2), c)));
}

/* log(1 + e^a) = max(a, 0) + log(1 + z) with z = e^-|a| in [0, 1]: twice the atanh of z/(2+z). */
val ny_m32_softplus(ny_lx *x, val a) {
  val z = ny_m32_exp(x, LLVMBuildFNeg(x->b, ny_fabs(x, a), "")), s = NY_B(FDiv, x, z, add(x, z, k(a, 2))),
      w = mul(x, s, s);
  val p = NY_POLY(x, w, 0.244094033657, 0.21411146336, 0.286168844913, 0.399989533048, 0.66666673547, 2);
  return ny_fma(x, p, s, ny_sel(x, gt(x, a, 0), a, k(a, 0)));
}

/* a * tanh(softplus a), which is a * n/(n+2) with n = e^a (e^a + 2): nothing cancels. */
val ny_m32_mish(ny_lx *x, val a) {
  val e = ny_m32_exp(x, ny_sel(x, gt(x, a, 20), k(a, 20), a)), n = mul(x, e, add(x, e, k(a, 2)));
  return mul(x, a, NY_B(FDiv, x, n, add(x, n, k(a, 2))));
}

/* (1 + tanh u)/2 is 1/(1 + e^-2u): one exponential and one division, and no cancellation for negative a. */
val ny_m32_gelu_tanh(ny_lx *x, val a) {
  val s = mul(x, a, a), u = mul(x, a, ny_fma(x, s, k(a, -0.071354816272600248), k(a, -1.5957691216057308)));
  return NY_B(FDiv, x, a, add(x, ny_m32_exp(x, u), k(a, 1)));
}

/* By f64: its 53 bits leave the f32 result good to the last place. */
val ny_m32_pow(ny_lx *x, val a, val b) {
  typ wide = ny_like(a, x->f64);
  val r = ny_m64_pow(x, LLVMBuildFPExt(x->b, a, wide, ""), LLVMBuildFPExt(x->b, b, wide, ""));
  return LLVMBuildFPTrunc(x->b, r, LLVMTypeOf(a), "");
}
