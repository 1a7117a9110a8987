/* f64 functions: the plan of math32.c with longer polynomials (fits good to 2^-57 and better). Errors stay below 4
 * units in the last place. */
#include "vmath.h"

static val k(val like, double v) { return ny_cf(LLVMTypeOf(like), v); }
static val ki(ny_lx *x, val like, int64_t v) { return ny_ci(ny_like(like, x->i64), v); }
static val as_int(ny_lx *x, val a) { return ny_bits(x, a, ny_like(a, x->i64)); }
static val as_float(ny_lx *x, val a) { return ny_bits(x, a, ny_like(a, x->f64)); }
static val mul(ny_lx *x, val a, val b) { return NY_B(FMul, x, a, b); }
static val add(ny_lx *x, val a, val b) { return NY_B(FAdd, x, a, b); }
static val sub(ny_lx *x, val a, val b) { return NY_B(FSub, x, a, b); }
static val neg(ny_lx *x, val a) { return LLVMBuildFNeg(x->b, a, ""); }
static val lt(ny_lx *x, val a, double b) { return ny_fc(x, LLVMRealOLT, a, k(a, b)); }
static val gt(ny_lx *x, val a, double b) { return ny_fc(x, LLVMRealOGT, a, k(a, b)); }
static val eq(ny_lx *x, val a, double b) { return ny_fc(x, LLVMRealOEQ, a, k(a, b)); }
static val both(ny_lx *x, val a, val b) { return NY_B(And, x, a, b); }

#define LN2_HI 0.693147180369123816490 /* 33 bits: products with exponents are exact */
#define LN2_LO 1.90821492927058770002e-10

static val exp_with(ny_lx *x, val a, val low) {
  a = ny_sel(x, gt(x, a, 711), k(a, 711), a);
  a = ny_sel(x, lt(x, a, -747), k(a, -747), a);
  val magic = k(a, 6755399441055744.0), t = ny_fma(x, a, k(a, 1.44269504088896338700), magic), n = sub(x, t, magic);
  val r = ny_fma(x, n, k(a, -LN2_HI), a);
  if (low) r = add(x, r, low);
  r = ny_fma(x, n, k(a, -LN2_LO), r);
  val p =
      NY_POLY(x, r, 2.0920780332273149396e-9, 2.5113557021126078584e-8, 2.7557253045926419182e-7,
              2.755723047502746798e-6, 0.000024801587350834535709, 0.0001984126990080166005, 0.0013888888888870171003,
              0.0083333333333152388197, 0.041666666666666699629, 0.16666666666666685805, 0.49999999999999999981);
  p = add(x, ny_fma(x, p, mul(x, r, r), r), k(a, 1));
  val i = NY_B(Sub, x, as_int(x, t), as_int(x, magic)), half = NY_B(AShr, x, i, ki(x, a, 1)),
      rest = NY_B(Sub, x, i, half);
  val bias = ki(x, a, 1023), by = ki(x, a, 52);
  p = mul(x, p, as_float(x, NY_B(Shl, x, NY_B(Add, x, half, bias), by)));
  return mul(x, p, as_float(x, NY_B(Shl, x, NY_B(Add, x, rest, bias), by)));
}

val ny_m64_exp(ny_lx *x, val a) { return exp_with(x, a, NULL); }

/* a = m * 2^n with m in [sqrt(1/2), sqrt(2)), for positive a; subnormal ones are scaled first. */
static val split(ny_lx *x, val a, val *n) {
  val tiny = lt(x, a, 2.2250738585072014e-308), i = as_int(x, ny_sel(x, tiny, mul(x, a, k(a, 18014398509481984.0)), a));
  val e = NY_B(AShr, x, NY_B(Sub, x, i, ki(x, a, 0x3fe6a09e00000000)), ki(x, a, 52));
  val m = as_float(x, NY_B(Sub, x, i, NY_B(Shl, x, e, ki(x, a, 52))));
  e = NY_B(Sub, x, e, ny_sel(x, tiny, ki(x, a, 54), ki(x, a, 0)));
  /* an exponent to double without a conversion instruction, which many machines lack for i64 */
  val magic = k(a, 6755399441055744.0);
  *n = sub(x, as_float(x, NY_B(Add, x, e, as_int(x, magic))), magic);
  return m;
}

#define LOG_TAIL                                                                                                       \
  0.13266129647347411912, 0.13248969129444173971, 0.15387113600694560139, 0.18181776003558112772,                      \
      0.22222222627982860732, 0.28571428569344544094, 0.40000000000004848926

val ny_m64_log(ny_lx *x, val a) {
  val n, f = sub(x, split(x, a, &n), k(a, 1)), s = NY_B(FDiv, x, f, add(x, f, k(a, 2))), z = mul(x, s, s);
  val r = mul(x, NY_POLY(x, z, LOG_TAIL, 0.66666666666666663338), z), h = mul(x, mul(x, f, f), k(a, 0.5));
  val t = ny_fma(x, s, add(x, h, r), mul(x, n, k(a, LN2_LO)));
  val y = sub(x, mul(x, n, k(a, LN2_HI)), sub(x, sub(x, h, t), f));
  y = ny_sel(x, ny_fc(x, LLVMRealUGE, a, k(a, __builtin_inf())), a, y);
  y = ny_sel(x, eq(x, a, 0), k(a, -__builtin_inf()), y);
  return ny_sel(x, lt(x, a, 0), k(a, __builtin_nan("")), y);
}

val ny_m64_log1p(ny_lx *x, val a) {
  val one = k(a, 1), u = add(x, a, one), rest = sub(x, a, sub(x, u, one));
  val r = add(x, ny_m64_log(x, u), NY_B(FDiv, x, rest, u));
  r = ny_sel(x, eq(x, u, __builtin_inf()), a, r);
  r = ny_sel(x, eq(x, u, 0), k(a, -__builtin_inf()), r);
  return ny_sel(x, lt(x, ny_fabs(x, a), 1e-9), ny_fma(x, mul(x, a, a), k(a, -0.5), a), r);
}

/* ---- circular functions */
static val sin_poly(ny_lx *x, val r, val s) {
  val p =
      NY_POLY(x, s, -7.5774043900706649527e-13, 1.6058345379616948669e-10, -2.5052104796867744791e-8,
              2.7557319214027554522e-6, -0.00019841269841255511408, 0.0083333333333333241278, -0.16666666666666666649);
  return ny_fma(x, mul(x, p, s), r, r);
}

static val cos_poly(ny_lx *x, val s) {
  val p = NY_POLY(x, s, 4.7407052293359836582e-14, -1.1470357340421727366e-11, 2.0876754992914545899e-9,
                  -2.7557319218449636352e-7, 0.000024801587301579334795, -0.0013888888888888883771,
                  0.041666666666666666657);
  val h = mul(x, s, k(s, 0.5)), w = sub(x, k(s, 1), h), low = sub(x, sub(x, k(s, 1), w), h);
  return add(x, w, ny_fma(x, mul(x, p, s), s, low));
}

/* a + b, and what rounding lost of it. */
static val two_sum(ny_lx *x, val a, val b, val *lost) {
  val s = add(x, a, b), of_b = sub(x, s, a);
  *lost = add(x, sub(x, a, sub(x, s, of_b)), sub(x, b, of_b));
  return s;
}

/* a - n*pi/2 for |n| < 2^20. Without fma pi/2 is in parts of 33 bits, whose products are exact; where two parts nearly
   cancel their sum is exact too, so that what is lost is small against the result however close a is to a multiple. */
static val reduce(ny_lx *x, val a, val n) {
  if (!x->target->no_fma) {
    val r = ny_fma(x, n, k(a, -1.57079632679489655800), a);
    r = ny_fma(x, n, k(a, -6.12323399573676603587e-17), r);
    return ny_fma(x, n, k(a, 1.49738490485918338e-33), r);
  }
  val lost, lost2, r = sub(x, a, mul(x, n, k(a, 1.57079632673412561417e+00)));
  r = two_sum(x, r, mul(x, n, k(a, -6.07710050630396597660e-11)), &lost);
  r = two_sum(x, r, mul(x, n, k(a, -2.02226624871116645580e-21)), &lost2);
  return add(x, r, add(x, add(x, lost, lost2), mul(x, n, k(a, -8.47842766036889956997e-32))));
}

static val circular(ny_lx *x, val a, bool cosine) {
  val magic = k(a, 6755399441055744.0), t = ny_fma(x, a, k(a, 0.63661977236758134308), magic), n = sub(x, t, magic);
  val r = reduce(x, a, n);
  typ it = ny_like(a, x->i32);
  val q = LLVMBuildTrunc(x->b, NY_B(Sub, x, as_int(x, t), as_int(x, magic)), it, "");
  val huge = ny_fc(x, LLVMRealUGT, ny_fabs(x, a), k(a, 1048576));
  ny_lif f;
  ny_if_begin(x, &f, ny_any(x, huge));
  val hq, hr = ny_reduce_huge(x, a, &hq);
  hr = ny_sel(x, huge, hr, r);
  hq = ny_sel(x, huge, hq, q);
  blk then = LLVMGetInsertBlock(x->b);
  ny_if_else(x, &f, hr);
  blk other = LLVMGetInsertBlock(x->b);
  r = ny_if_end(x, &f, r);
  val phi = LLVMBuildPhi(x->b, it, "");
  LLVMAddIncoming(phi, &hq, &then, 1);
  LLVMAddIncoming(phi, &q, &other, 1);
  q = cosine ? NY_B(Add, x, phi, ny_ci(it, 1)) : phi;
  val s = mul(x, r, r), odd = LLVMBuildTrunc(x->b, q, ny_like(q, x->i1), "");
  val y = as_int(x, ny_sel(x, odd, cos_poly(x, s), sin_poly(x, r, s)));
  val sign = NY_B(Shl, x, LLVMBuildZExt(x->b, NY_B(And, x, q, ny_ci(it, 2)), ny_like(a, x->i64), ""), ki(x, a, 62));
  return as_float(x, NY_B(Xor, x, y, sign));
}

val ny_m64_sin(ny_lx *x, val a) { return circular(x, a, false); }
val ny_m64_cos(ny_lx *x, val a) { return circular(x, a, true); }

/* Three ranges around 0, 1 and infinity: atan(t) = at + atan(z). */
val ny_m64_atan(ny_lx *x, val a) {
  val t = ny_fabs(x, a), big = gt(x, t, 2.414213562373095), mid = gt(x, t, 0.41421356237309503);
  val top = ny_sel(x, big, k(a, -1), ny_sel(x, mid, sub(x, t, k(a, 1)), t));
  val low = ny_sel(x, big, t, ny_sel(x, mid, add(x, t, k(a, 1)), k(a, 1)));
  val z = NY_B(FDiv, x, top, low), s = mul(x, z, z);
  val p = NY_POLY(x, s, -0.012916069365515832755, 0.029559498447804723825, -0.040535775149984211484,
                  0.047054885584296012957, -0.052556082953565742451, 0.058816407591622208679, -0.066666194874951174333,
                  0.076923055361860529382, -0.09090909025258879782, 0.11111111109856224536, -0.14285714285700684732,
                  0.19999999999999930914, -0.33333333333333333228);
  val hi = ny_sel(x, big, k(a, 1.5707963267948965580), ny_sel(x, mid, k(a, 0.78539816339744827900), k(a, 0)));
  val lo = ny_sel(x, big, k(a, 6.12323399573676603587e-17), ny_sel(x, mid, k(a, 3.06161699786838301793e-17), k(a, 0)));
  val r = add(x, hi, add(x, z, ny_fma(x, mul(x, p, s), z, lo)));
  return ny_copysign(x, r, a);
}

static val asin_poly(ny_lx *x, val z, val s) {
  val p = NY_POLY(x, s, 0.032741483343121278076, -0.021060057156431638295, 0.021656878063982008422,
                  0.0037700246043162747867, 0.01075076062508552004, 0.011406698314348672588, 0.013979523138275511608,
                  0.017351752625159346498, 0.022372205133785169427, 0.030381943138356604271, 0.044642857163743787361,
                  0.074999999999844247517, 0.16666666666666701209);
  return ny_fma(x, mul(x, p, s), z, z);
}

val ny_m64_asin(ny_lx *x, val a) {
  val t = ny_fabs(x, a), big = gt(x, t, 0.5), h = mul(x, sub(x, k(a, 1), t), k(a, 0.5));
  val z = ny_sel(x, big, ny_un(x, "llvm.sqrt", h), t), r = asin_poly(x, z, ny_sel(x, big, h, mul(x, t, t)));
  val hi = add(x, ny_fma(x, r, k(a, -2), k(a, 1.5707963267948965580)), k(a, 6.12323399573676603587e-17));
  return ny_copysign(x, ny_sel(x, big, hi, r), a);
}

val ny_m64_acos(ny_lx *x, val a) {
  val t = ny_fabs(x, a), big = gt(x, t, 0.5), h = mul(x, sub(x, k(a, 1), t), k(a, 0.5));
  val z = ny_sel(x, big, ny_un(x, "llvm.sqrt", h), a), r = asin_poly(x, z, ny_sel(x, big, h, mul(x, a, a)));
  val two = add(x, r, r), low = add(x, sub(x, k(a, 3.1415926535897931160), two), k(a, 1.22464679914735320717e-16));
  val mid = add(x, sub(x, k(a, 1.5707963267948965580), r), k(a, 6.12323399573676603587e-17));
  return ny_sel(x, big, ny_sel(x, lt(x, a, 0), low, two), mid);
}

/* ---- hyperbolic and error functions */
val ny_m64_sinh_small(ny_lx *x, val a) {
  val s = mul(x, a, a);
  val p = NY_POLY(x, s, 2.8486834749951428601e-15, 7.6464694781619082179e-13, 1.6059050734494832154e-10,
                  2.5052108346198192744e-8, 2.7557319224113396821e-6, 0.00019841269841269619787,
                  0.0083333333333333335078, 0.16666666666666666666);
  return ny_fma(x, mul(x, p, s), a, a);
}

val ny_m64_tanh(ny_lx *x, val a) {
  val t = ny_fabs(x, a), s = mul(x, a, a);
  val q = NY_POLY(x, s, -2.2660453876146609738e-6, 0.000011787460691688745756, -0.000036626525169173467993,
                  0.000095758118234309257437, -0.00023877671766321160399, 0.00058995180789704192474,
                  -0.0014558229886806360607, 0.0035921268515931746641, -0.0088632354478292653735,
                  0.021869488532586743988, -0.05396825396816599556, 0.13333333333333231695, -0.33333333333333332982);
  q = ny_fma(x, mul(x, q, s), a, a);
  val cut = ny_sel(x, gt(x, t, 20), k(a, 20), t), e = ny_m64_exp(x, add(x, cut, cut));
  val b = sub(x, k(a, 1), NY_B(FDiv, x, k(a, 2), add(x, e, k(a, 1))));
  return ny_sel(x, gt(x, t, 0.625), ny_copysign(x, b, a), q);
}

val ny_m64_erfc(ny_lx *x, val a) {
  val t = ny_fabs(x, a), cut = ny_sel(x, gt(x, t, 28), k(a, 28), t), hi = mul(x, cut, cut),
      lo = ny_fma_exact(x, cut, cut, neg(x, hi));
  val r = NY_B(FDiv, x, k(a, 1), add(x, cut, k(a, 3))), q = mul(x, sub(x, cut, k(a, 3)), r);
  val p =
      NY_POLY(x, q, 3.6881105489625186319e-10, 1.0610493222304305232e-9, -1.9368448842512259633e-9,
              -9.8679215570035096607e-9, 9.9974239927866467684e-10, 5.3597908489158192259e-8, 4.368363718383163481e-8,
              -2.3670604375154883807e-7, -4.0613565625941282171e-7, 1.0009456784283422727e-6, 2.7644636648282894923e-6,
              -4.7500700356240718278e-6, -0.000017470260394675868533, 0.000030398387456702287049,
              0.00010756142289867921163, -0.00027677788385137401308, -0.00054830968378019433946,
              0.003034062004955412559, -0.001212416627760810551, -0.026827234624682529528, 0.1195277612873086794,
              -0.3104672619005625427, 0.59022835710410161185, -0.88339445316988366146, 1.0740069070883397025);
  val c = mul(x, mul(x, p, r), exp_with(x, neg(x, hi), neg(x, lo)));
  return ny_sel(x, lt(x, a, 0), sub(x, k(a, 2), c), c);
}

val ny_m64_erf(ny_lx *x, val a) {
  val t = ny_fabs(x, a), s = mul(x, a, a);
  val q = NY_POLY(x, s, 6.7616008712952281818e-11, -1.176992934893913159e-9, 1.4746119400611828435e-8,
                  -1.6361168734293493179e-7, 1.6461871309756320118e-6, -0.000014925641658748514632,
                  0.00012055332768297286668, -0.00085483270199366179802, 0.0052239776254050342949,
                  -0.02686617064512891325, 0.1128379167095511809, -0.37612638903183752365, 0.12837916709551257389);
  val big = ny_copysign(x, sub(x, k(a, 1), ny_m64_erfc(x, t)), a);
  return ny_sel(x, gt(x, t, 0.84375), big, ny_fma(x, q, a, a));
}

/* ---- pow: b * log|a| to about 64 bits, then exp. log m = 2s + 2/3 s^3 + .., s = (m-1)/(m+1); the first two terms and
 * the sum are carried in pairs. */
static val log_pair(ny_lx *x, val a, val *low) {
  val n, m = split(x, a, &n), f = sub(x, m, k(a, 1)), u = add(x, m, k(a, 1)), u_lo = sub(x, m, sub(x, u, k(a, 1)));
  val s = NY_B(FDiv, x, f, u), s_lo = NY_B(FDiv, x, ny_fma(x, neg(x, s), u_lo, ny_fma_exact(x, neg(x, s), u, f)), u);
  val z = mul(x, s, s), z_lo = ny_fma(x, add(x, s, s), s_lo, ny_fma_exact(x, s, s, neg(x, z)));
  val w = mul(x, s, z), w_lo = add(x, ny_fma_exact(x, s, z, neg(x, w)), ny_fma(x, s, z_lo, mul(x, s_lo, z)));
  val third = k(a, 0.66666666666666662966), c = mul(x, w, third);
  val c_lo = add(x, ny_fma_exact(x, w, third, neg(x, c)), ny_fma(x, w, k(a, 3.70074341541718826e-17), mul(x, w_lo, third)));
  val rest = mul(x, mul(x, w, z), NY_POLY(x, z, LOG_TAIL));
  val e = mul(x, n, k(a, LN2_HI)), two = add(x, s, s), sum = add(x, e, two), err = sub(x, two, sub(x, sum, e));
  /* n = 0: the sum is 2s, no smaller than what is lost; else n*ln2 is the larger one: either way `err` is exact */
  val tail = add(x, add(x, err, ny_fma(x, n, k(a, LN2_LO), add(x, s_lo, s_lo))), add(x, add(x, c_lo, rest), k(a, 0)));
  val top = add(x, sum, c), err2 = sub(x, c, sub(x, top, sum));
  *low = add(x, err2, tail);
  return top;
}

val ny_m64_pow(ny_lx *x, val a, val b) {
  val t = ny_fabs(x, a), cut = ny_sel(x, gt(x, b, 1e30), k(b, 1e30), b);
  cut = ny_sel(x, lt(x, cut, -1e30), k(b, -1e30),
               cut); /* infinite and huge exponents: beyond every range, unless |a| is 1 */
  val low, high = log_pair(x, t, &low), p = mul(x, cut, high),
           p_lo = ny_fma(x, cut, low, ny_fma_exact(x, cut, high, neg(x, p)));
  val limit = gt(x, ny_fabs(x, p), 800);
  val r = exp_with(x, p, ny_sel(x, limit, k(a, 0), p_lo));
  val down = lt(x, b, 0), inf = k(a, __builtin_inf()), zero = k(a, 0);
  r = ny_sel(x, eq(x, t, 0), ny_sel(x, down, inf, zero), r);
  r = ny_sel(x, eq(x, t, __builtin_inf()), ny_sel(x, down, zero, inf), r);
  val whole = ny_fc(x, LLVMRealOEQ, ny_un(x, "llvm.trunc", b), b), half = mul(x, b, k(b, 0.5));
  val odd = both(x, whole, ny_fc(x, LLVMRealONE, ny_un(x, "llvm.trunc", half), half));
  val negative = ny_ic(x, LLVMIntSLT, as_int(x, a), ki(x, a, 0));
  r = ny_sel(x, both(x, odd, negative), neg(x, r), r);
  val bad = both(x, both(x, lt(x, a, 0), gt(x, a, -__builtin_inf())), LLVMBuildNot(x->b, whole, ""));
  r = ny_sel(x, bad, k(a, __builtin_nan("")), r);
  val nan = ny_fc(x, LLVMRealUNO, a, b);
  r = ny_sel(x, nan, add(x, a, b), r);
  return ny_sel(x, NY_B(Or, x, eq(x, b, 0), eq(x, a, 1)), k(a, 1), r);
}
