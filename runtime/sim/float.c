/* f32 and f64 arithmetic. Without modifiers a handler is a plain loop; with a directed rounding, .ftz or .sat the same
   scalar function runs lane by lane under that rounding mode, called through a pointer so that nothing is moved across
   the change of mode. The .approx forms are computed exactly and rounded: within the error that PTX states for them. */
#include "lanes.h"
#include <fenv.h>

static inline float flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }
static inline float from_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}
/* Every NaN that the machine makes in f32 is this one. */
static inline float canon(float x) { return x != x ? from_bits(0x7fffffff) : x; }
static inline float clamp01(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
static inline double clamp01d(double x) { return x > 0.0 ? (x < 1.0 ? x : 1.0) : 0.0; }

/* data of an instruction with modifiers */
enum { ROUND_UP = 1, ROUND_DOWN = 2, ROUND_ZERO = 3, FTZ = 4, SAT = 8 };
static int set_rounding(uint64_t data) {
  static const int mode[4] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
  int old = fegetround();
  fesetround(mode[data & 3]);
  return old;
}

typedef float fun_f32(float a, float b, float c);
typedef double fun_f64(double a, double b, double c);
static void slow_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, fun_f32 *volatile f) {
  bool ftz = i->data & FTZ;
  float v[3] = {0}, *d = NY_F32(0);
  int old = set_rounding(i->data);
  NY_EACH_ACTIVE(l) {
    for (int k = 1; k < i->n_arg; k++) v[k - 1] = ftz ? flush(NY_F32(k)[l]) : NY_F32(k)[l];
    float r = f(v[0], v[1], v[2]);
    if (ftz) r = flush(r);
    d[l] = i->data & SAT ? clamp01(r) : canon(r);
  }
  fesetround(old);
}
static void slow_f64(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, fun_f64 *volatile f) {
  double v[3] = {0}, *d = NY_F64(0);
  int old = set_rounding(i->data);
  NY_EACH_ACTIVE(l) {
    for (int k = 1; k < i->n_arg; k++) v[k - 1] = NY_F64(k)[l];
    double r = f(v[0], v[1], v[2]);
    d[l] = i->data & SAT ? clamp01d(r) : r;
  }
  fesetround(old);
}

#define OP(name, e32, e64)                                                                                             \
  static float s32_##name(float a, float b, float c) { return (void)b, (void)c, e32; }                                 \
  static double s64_##name(double a, double b, double c) { return (void)b, (void)c, e64; }                             \
  static void name##_f32_slow(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                    \
    slow_f32(w, i, mask, s32_##name);                                                                                  \
  }                                                                                                                    \
  static void name##_f64_slow(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) { slow_f64(w, i, mask, s64_##name); }
#define FAST2(name)                                                                                                    \
  static void name##_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                         \
    const float *pa = NY_F32(1), *pb = NY_F32(2);                                                                      \
    NY_MAP(float, NY_F32(0), canon(s32_##name(pa[l], pb[l], 0)));                                                      \
  }                                                                                                                    \
  static void name##_f64(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                         \
    const double *pa = NY_F64(1), *pb = NY_F64(2);                                                                     \
    NY_MAP(double, NY_F64(0), s64_##name(pa[l], pb[l], 0));                                                            \
  }
#define FAST1(name)                                                                                                    \
  static void name##_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                         \
    const float *pa = NY_F32(1);                                                                                       \
    NY_MAP(float, NY_F32(0), canon(s32_##name(pa[l], 0, 0)));                                                          \
  }                                                                                                                    \
  static void name##_f64(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                         \
    const double *pa = NY_F64(1);                                                                                      \
    NY_MAP(double, NY_F64(0), s64_##name(pa[l], 0, 0));                                                                \
  }
OP(add, a + b, a + b)
FAST2(add)
OP(sub, a - b, a - b)
FAST2(sub)
OP(mul, a *b, a *b)
FAST2(mul)
OP(div, a / b, a / b)
FAST2(div)
OP(sqrt, sqrtf(a), sqrt(a))
FAST1(sqrt)
OP(rcp, 1.0f / a, 1.0 / a)
FAST1(rcp)
OP(fma, fmaf(a, b, c), fma(a, b, c))

/* fma is one instruction on machines that have it, but a call of the library where the build cannot rely on that. */
static void fma_f32_plain(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const float *pa = NY_F32(1), *pb = NY_F32(2), *pc = NY_F32(3);
  NY_MAP(float, NY_F32(0), canon(fmaf(pa[l], pb[l], pc[l])));
}
static void fma_f64_plain(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const double *pa = NY_F64(1), *pb = NY_F64(2), *pc = NY_F64(3);
  NY_MAP(double, NY_F64(0), fma(pa[l], pb[l], pc[l]));
}
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void fma_f32_fast(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const float *pa = NY_F32(1), *pb = NY_F32(2), *pc = NY_F32(3);
  NY_MAP(float, NY_F32(0), __builtin_fmaf(pa[l], pb[l], pc[l]));
  float *d = NY_F32(0);
  NY_MAP(float, d, d[l] != d[l] ? from_bits(0x7fffffff) : d[l]);
}
__attribute__((target("avx2,fma"))) static void fma_f64_fast(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const double *pa = NY_F64(1), *pb = NY_F64(2), *pc = NY_F64(3);
  NY_MAP(double, NY_F64(0), __builtin_fma(pa[l], pb[l], pc[l]));
}
static bool has_fma(void) { return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2"); }
#else
#define fma_f32_fast fma_f32_plain
#define fma_f64_fast fma_f64_plain
static bool has_fma(void) { return true; }
#endif

/* ---- sign */
static inline uint32_t flush_bits(uint32_t u) { return u & 0x7f800000 ? u : u & 0x80000000; }
static void neg_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  uint32_t keep = i->opt[0] ? 1 : 0;
  NY_MAP(uint32_t, NY_U32(0), (keep ? flush_bits(a[l]) : a[l]) ^ 0x80000000);
}
static void abs_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  uint32_t keep = i->opt[0] ? 1 : 0;
  NY_MAP(uint32_t, NY_U32(0), (keep ? flush_bits(a[l]) : a[l]) & 0x7fffffff);
}
NY_UNARY(neg_f64, uint64_t, uint64_t, uint64_t, a ^ (C)1 << 63)
NY_UNARY(abs_f64, uint64_t, uint64_t, uint64_t, a & ~((C)1 << 63))
NY_BINARY(copysign_f32, uint32_t, uint32_t, uint32_t, (a & 0x80000000) | (b & 0x7fffffff))
NY_BINARY(copysign_f64, uint64_t, uint64_t, uint64_t, (a & (C)1 << 63) | (b & ~((C)1 << 63)))

/* ---- minimum and maximum: a NaN loses unless .NaN, -0 is less than 0 */
static inline float min_num(float a, float b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return signbit(a) ? a : b;
  return a < b ? a : b;
}
static inline float max_num(float a, float b) { return -min_num(-a, -b); }
static inline double min_numd(double a, double b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return signbit(a) ? a : b;
  return a < b ? a : b;
}
static inline double max_numd(double a, double b) { return -min_numd(-a, -b); }
/* opt: ftz, NaN, xorsign.abs; sub: min, max are rows of their own (data bit 0); a third operand may follow */
static float min_max(const ny_ptx_ins *i, float a, float b) {
  if (i->opt[0]) a = flush(a), b = flush(b);
  bool sign = i->opt[2] && signbit(a) != signbit(b);
  if (i->opt[2]) a = fabsf(a), b = fabsf(b);
  float r = i->opt[1] && (a != a || b != b) ? from_bits(0x7fffffff) : i->data ? max_num(a, b) : min_num(a, b);
  return r != r ? from_bits(0x7fffffff) : sign ? -r : r;
}
static void min_max_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const float *a = NY_F32(1), *b = NY_F32(2);
  const float *c = i->arg[3].kind == NY_ARG_NONE ? NULL : NY_F32(3);
  float v[NY_LANES];
  for (int l = 0; l < NY_LANES; l++) {
    v[l] = min_max(i, a[l], b[l]);
    if (c) v[l] = min_max(i, v[l], c[l]);
  }
  NY_MAP(float, NY_F32(0), v[l]);
}
static void min_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const float *a = NY_F32(1), *b = NY_F32(2);
  NY_MAP(float, NY_F32(0), canon(a[l] != a[l] ? b[l] : a[l] > b[l] || (a[l] == b[l] && signbit(b[l])) ? b[l] : a[l]));
}
static void max_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const float *a = NY_F32(1), *b = NY_F32(2);
  NY_MAP(float, NY_F32(0), canon(a[l] != a[l] ? b[l] : a[l] < b[l] || (a[l] == b[l] && !signbit(b[l])) ? b[l] : a[l]));
}
static void min_f64(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const double *a = NY_F64(1), *b = NY_F64(2);
  NY_MAP(double, NY_F64(0), min_numd(a[l], b[l]));
}
static void max_f64(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const double *a = NY_F64(1), *b = NY_F64(2);
  NY_MAP(double, NY_F64(0), max_numd(a[l], b[l]));
}

/* ---- functions; opt[0]: ftz */
#define APPROX(name, e)                                                                                                \
  static float s_##name(float a) { return e; }                                                                         \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const float *pa = NY_F32(1);                                                                                       \
    float *d = NY_F32(0);                                                                                              \
    bool ftz = i->opt[0];                                                                                              \
    NY_EACH_ACTIVE(l) {                                                                                                \
      float r = canon(s_##name(ftz ? flush(pa[l]) : pa[l]));                                                           \
      d[l] = ftz ? flush(r) : r;                                                                                       \
    }                                                                                                                  \
  }
APPROX(rcp_approx, 1.0f / a)
APPROX(sqrt_approx, sqrtf(a))
APPROX(rsqrt_approx, (float)(1.0 / sqrt((double)a)))
APPROX(sin_approx, sinf(a))
APPROX(cos_approx, cosf(a))
APPROX(ex2_approx, exp2f(a))
APPROX(lg2_approx, log2f(a))
APPROX(tanh_approx, tanhf(a))
static void div_approx(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const float *a = NY_F32(1), *b = NY_F32(2);
  float *d = NY_F32(0);
  bool ftz = i->opt[1];
  NY_EACH_ACTIVE(l) {
    float r = canon(ftz ? flush(a[l]) / flush(b[l]) : a[l] / b[l]);
    d[l] = ftz ? flush(r) : r;
  }
}
/* The f64 approximations give the upper word only. */
static inline double upper(double v) {
  uint64_t u;
  memcpy(&u, &v, sizeof u);
  u &= ~0xffffffffull;
  memcpy(&v, &u, sizeof u);
  return v;
}
static inline double flushd(double x) { return fabs(x) < 0x1p-1022 ? copysign(0.0, x) : x; }
static void rcp_upper(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const double *a = NY_F64(1);
  NY_MAP(double, NY_F64(0), flushd(upper(1.0 / flushd(a[l]))));
}
static void rsqrt_upper(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const double *a = NY_F64(1);
  NY_MAP(double, NY_F64(0), flushd(upper(1.0 / sqrt(i->opt[0] ? flushd(a[l]) : a[l]))));
}

/* opt[0]: finite infinite number notanumber normal subnormal; zero counts as normal */
#define TESTP(name, T, smallest)                                                                                       \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const T *a = NY_LANES_OF(T, 1);                                                                                    \
    uint32_t r = 0;                                                                                                    \
    for (int l = 0; l < NY_LANES; l++) {                                                                               \
      T m = a[l] < 0 ? -a[l] : a[l];                                                                                   \
      bool nan = m != m, finite = m < (T)INFINITY, normal = m == 0 || (finite && m >= smallest);                       \
      const bool is[6] = {finite, !finite && !nan, !nan, nan, normal, finite && !normal};                              \
      r |= is[i->opt[0] - 1] ? 1u << l : 0;                                                                            \
    }                                                                                                                  \
    ny_set_pred(w, &i->arg[0], mask, r);                                                                               \
  }
TESTP(testp_f32, float, 0x1p-126f)
TESTP(testp_f64, double, 0x1p-1022)

/* ---- pairs of f32 in 64 bits */
#define PAIR(name, n, e)                                                                                               \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const float *pa = NY_F32(1), *pb = NY_F32(2), *pc = n == 3 ? NY_F32(3) : pb;                                       \
    float *d = NY_F32(0);                                                                                              \
    NY_EACH_ACTIVE(l) for (uint32_t k = 2 * l; k < 2 * l + 2; k++) {                                                   \
      float a = pa[k], b = pb[k], c = pc[k];                                                                           \
      if (i->opt[0]) a = flush(a), b = flush(b), c = flush(c);                                                         \
      (void)c;                                                                                                         \
      float r = canon(e);                                                                                              \
      d[k] = i->opt[0] ? flush(r) : r;                                                                                 \
    }                                                                                                                  \
  }
PAIR(add_f32x2, 2, a + b)
PAIR(sub_f32x2, 2, a - b)
PAIR(mul_f32x2, 2, a *b)
PAIR(fma_f32x2, 3, fmaf(a, b, c))

/* ---- rows: (rounding)(ftz)(sat); handlers: f32, f64, then the slow ones in the same order */
static bool fix_rounded(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  static const uint8_t round[5] = {0, 0, ROUND_ZERO, ROUND_DOWN, ROUND_UP}; /* -, rn rz rm rp */
  i->data = round[i->opt[0]] | (i->opt[1] ? FTZ : 0u) | (i->opt[2] ? SAT : 0u);
  bool is_f64 = i->sub == 1;
  if (is_f64 && i->opt[1]) return ny_ptx_bad(dc, ".ftz of f64");
  if (is_f64) i->cls = NY_CLS_f64;
  if (i->data) i->exec = ny_ptx_row_of(dc)->exec[2 + i->sub];
  if (i->exec == fma_f32_plain && has_fma()) i->exec = fma_f32_fast;
  if (i->exec == fma_f64_plain && has_fma()) i->exec = fma_f64_fast;
  return true;
}
static bool fix_max(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  i->data = 1;
  if (!i->opt[0] && !i->opt[1] && !i->opt[2] && i->arg[3].kind == NY_ARG_NONE) i->exec = max_f32;
  return (void)dc, true;
}
static bool fix_min(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  if (!i->opt[0] && !i->opt[1] && !i->opt[2] && i->arg[3].kind == NY_ARG_NONE) i->exec = min_f32;
  return (void)dc, true;
}

#define MODES "(rn rz rm rp)?.(ftz)?.(sat)?.[f32 f64]"
#define SLOW(op)                                                                                                       \
  { op##_f32, op##_f64, op##_f32_slow, op##_f64_slow }
const ny_ptx_row ny_rows_float[] = {
    {"add." MODES, "T t t", NY_CLS_float, fix_rounded, SLOW(add)},
    {"sub." MODES, "T t t", NY_CLS_float, fix_rounded, SLOW(sub)},
    {"mul." MODES, "T t t", NY_CLS_float, fix_rounded, SLOW(mul)},
    {"fma." MODES, "T t t t", NY_CLS_float, fix_rounded, {fma_f32_plain, fma_f64_plain, fma_f32_slow, fma_f64_slow}},
    {"mad." MODES, "T t t t", NY_CLS_float, fix_rounded, {fma_f32_plain, fma_f64_plain, fma_f32_slow, fma_f64_slow}},
    {"div." MODES, "T t t", NY_CLS_float, fix_rounded, SLOW(div)},
    {"div.(approx full).(ftz)?.[f32]", "T t t", NY_CLS_float, NULL, {div_approx}},
    {"sqrt." MODES, "T t", NY_CLS_special, fix_rounded, SLOW(sqrt)},
    {"rcp." MODES, "T t", NY_CLS_special, fix_rounded, SLOW(rcp)},
    {"neg.(ftz)?.[f32]", "T t", NY_CLS_float, NULL, {neg_f32}},
    {"neg.[f64]", "T t", NY_CLS_f64, NULL, {neg_f64}},
    {"abs.(ftz)?.[f32]", "T t", NY_CLS_float, NULL, {abs_f32}},
    {"abs.[f64]", "T t", NY_CLS_f64, NULL, {abs_f64}},
    {"copysign.[f32 f64]", "T t t", NY_CLS_float, NULL, {copysign_f32, copysign_f64}},
    {"min.(ftz)?.(NaN)?.(xorsign)?.(abs)?.[f32]", "T t t t?", NY_CLS_float, fix_min, {min_max_f32}},
    {"max.(ftz)?.(NaN)?.(xorsign)?.(abs)?.[f32]", "T t t t?", NY_CLS_float, fix_max, {min_max_f32}},
    {"min.[f64]", "T t t", NY_CLS_f64, NULL, {min_f64}},
    {"max.[f64]", "T t t", NY_CLS_f64, NULL, {max_f64}},
    {"rcp.approx.(ftz)?.[f32]", "T t", NY_CLS_special, NULL, {rcp_approx}},
    {"sqrt.approx.(ftz)?.[f32]", "T t", NY_CLS_special, NULL, {sqrt_approx}},
    {"rsqrt.approx.(ftz)?.[f32]", "T t", NY_CLS_special, NULL, {rsqrt_approx}},
    {"sin.approx.(ftz)?.[f32]", "T t", NY_CLS_special, NULL, {sin_approx}},
    {"cos.approx.(ftz)?.[f32]", "T t", NY_CLS_special, NULL, {cos_approx}},
    {"ex2.approx.(ftz)?.[f32]", "T t", NY_CLS_special, NULL, {ex2_approx}},
    {"lg2.approx.(ftz)?.[f32]", "T t", NY_CLS_special, NULL, {lg2_approx}},
    {"tanh.approx.(ftz)?.[f32]", "T t", NY_CLS_special, NULL, {tanh_approx}},
    {"rcp.approx.ftz.[f64]", "T t", NY_CLS_special, NULL, {rcp_upper}},
    {"rsqrt.approx.(ftz)?.[f64]", "T t", NY_CLS_special, NULL, {rsqrt_upper}},
    {"testp.(finite infinite number notanumber normal subnormal).[f32 f64]",
     "P t",
     NY_CLS_float,
     NULL,
     {testp_f32, testp_f64}},
    {"add.(ftz)?.[f32x2]", "T t t", NY_CLS_float, NULL, {add_f32x2}},
    {"add.rn.(ftz)?.[f32x2]", "T t t", NY_CLS_float, NULL, {add_f32x2}},
    {"sub.rn.(ftz)?.[f32x2]", "T t t", NY_CLS_float, NULL, {sub_f32x2}},
    {"mul.rn.(ftz)?.[f32x2]", "T t t", NY_CLS_float, NULL, {mul_f32x2}},
    {"fma.rn.(ftz)?.[f32x2]", "T t t t", NY_CLS_float, NULL, {fma_f32x2}},
};
const size_t ny_n_rows_float = NY_COUNT(ny_rows_float);
