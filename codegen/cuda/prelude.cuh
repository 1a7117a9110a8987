//@ 0
// Prelude of nybble's CUDA kernels: numbers, memory, tensor cores. No CUDA headers; the only place with inline PTX.
typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define NY_DEV static __device__ __forceinline__
#define EACH(k, n) _Pragma("unroll") for (int k = 0; k < (n); k++)
#define NY_INF __uint_as_float(0x7f800000u)
#define NY_NAN __uint_as_float(0x7fc00000u)
#define NY_INF64 __longlong_as_double(0x7ff0000000000000ll)
#define NY_NAN64 __longlong_as_double(0x7ff8000000000000ll)
// Division of indices that are not negative, and of any: rounded down.
#define NY_DIV(a, b) ((ix)((ux)(a) / (ux)(b)))
#define NY_MOD(a, b) ((ix)((ux)(a) % (ux)(b)))
#define NY_MIN(a, b) ny_least<ix>(a, b)
#define NY_MAX(a, b) ny_most<ix>(a, b)
#define NY_FLOOR_DIV(a, b) ny_floor_div<ix>(a, b)
#define NY_FLOOR_MOD(a, b) ny_floor_mod<ix>(a, b)
template <class T> NY_DEV T ny_least(T a, T b) { return a < b ? a : b; }
template <class T> NY_DEV T ny_most(T a, T b) { return a < b ? b : a; }
template <class T> NY_DEV T ny_floor_mod(T a, T b) { T r = a % b; return r != 0 && (r ^ b) < 0 ? r + b : r; }
template <class T> NY_DEV T ny_floor_div(T a, T b) { T q = a / b; return q * b != a && (a ^ b) < 0 ? q - 1 : q; }
// NaN wins.
NY_DEV float ny_max(float a, float b) { float r; asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
NY_DEV float ny_min(float a, float b) { float r; asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
NY_DEV double ny_max(double a, double b) { return a != a ? a : b != b ? b : a < b ? b : a; }
NY_DEV double ny_min(double a, double b) { return a != a ? a : b != b ? b : b < a ? b : a; }
NY_DEV float ny_fma(float a, float b, float c) { return fmaf(a, b, c); }
NY_DEV double ny_fma(double a, double b, double c) { return fma(a, b, c); }
template <class T> NY_DEV T ny_fma(T a, T b, T c) { return (T)((u64)a * (u64)b + (u64)c); }

//@ 1
// To float so that a later rounding to fewer bits is as if done at once: truncated, and odd where anything was lost.
NY_DEV float ny_odd(float x) { return x; }
NY_DEV float ny_odd(double x) {
  float t = __double2float_rz(x);
  return (double)t != x && x == x ? __uint_as_float(__float_as_uint(t) | 1) : t;
}
NY_DEV float ny_odd(i64 x) {
  float t = __ll2float_rz(x);
  return __float2ll_rz(t) != x ? __uint_as_float(__float_as_uint(t) | 1) : t;
}
NY_DEV float ny_odd(u64 x) {
  float t = __ull2float_rz(x);
  return __float2ull_rz(t) != x ? __uint_as_float(__float_as_uint(t) | 1) : t;
}
NY_DEV float ny_odd(i32 x) { return ny_odd((i64)x); }
NY_DEV float ny_odd(u32 x) { return ny_odd((i64)x); }
NY_DEV float ny_odd(i16 x) { return (float)x; }
NY_DEV float ny_odd(u16 x) { return (float)x; }
NY_DEV float ny_odd(i8 x) { return (float)x; }
NY_DEV float ny_odd(u8 x) { return (float)x; }
NY_DEV float ny_odd(bool x) { return x ? 1.0f : 0.0f; }
NY_DEV float ny_f16(u16 x) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x)); return r; }
NY_DEV float ny_f16_signed(u16 x) { return __uint_as_float((__float_as_uint(ny_f16(x)) & 0x7fffffffu) | (u32)(x >> 15) << 31); } // of NaN too
NY_DEV u16 ny_to_f16(float x) { u16 r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x)); return r; }
NY_DEV float ny_bf16(u16 x) { return __uint_as_float((u32)x << 16); }
NY_DEV u16 ny_to_bf16(float x) { u16 r; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x)); return r; }

//@ 2
// Formats of 8 and 4 bits: M mantissa bits; KIND 0: as IEEE, 1: all ones is NaN, 2: minus zero is NaN, 3: every code is a number.
template <int BITS, int M, int BIAS, int KIND, int MAX, int NANC> NY_DEV float ny_small(u32 u) {
  u32 mag = u & ((1u << (BITS - 1)) - 1), b = (mag << (23 - M)) + ((u32)(127 - BIAS) << 23);
  if (mag < (1u << M)) b = __float_as_uint((float)(i32)mag * __uint_as_float((u32)(128 - BIAS - M) << 23));
  if (KIND == 0 && mag == MAX + 1) b = 0x7f800000u;
  if (KIND == 0 && mag > MAX + 1) b = 0x7fc00000u;
  if (KIND == 1 && mag == NANC) b = 0x7fc00000u;
  b |= (u >> (BITS - 1)) << 31;
  return __uint_as_float(KIND == 2 && u == NANC ? 0x7fc00000u : b);
}
template <int BITS, int M, int BIAS, int KIND, int MAX, int NANC, bool SAT> NY_DEV u8 ny_to_small(float f) {
  const int drop = 23 - M;
  u32 u = __float_as_uint(f), a = u & 0x7fffffffu, sign = (u & 0x80000000u) >> (32 - BITS);
  u32 code = ((a + (1u << (drop - 1)) - 1 + (a >> drop & 1)) >> drop) - ((u32)(127 - BIAS) << M);
  // below the smallest normal: adding a power of two whose last place is the quantum rounds
  const u32 magic = (u32)(1 - BIAS - M + 23 + 127) << 23;
  if (a < (u32)(128 - BIAS) << 23) code = __float_as_uint(__uint_as_float(a) + __uint_as_float(magic)) - magic;
  if ((i32)code > MAX || a >= 0x7f800000u) code = SAT || KIND == 3 ? MAX : KIND == 0 ? MAX + 1 : NANC;
  if (KIND == 2 && (code == 0 || code == NANC)) sign = 0;
  if (a > 0x7f800000u) return (u8)(KIND == 2 ? NANC : KIND == 3 ? sign ^ (1u << (BITS - 1)) : sign | NANC);
  return (u8)(code | sign);
}
#define NY_SMALL(name, ...) \
  NY_DEV float ny_##name(u8 x) { return ny_small<__VA_ARGS__>(x); } \
  NY_DEV u8 ny_to_##name(float x) { return ny_to_small<__VA_ARGS__, false>(x); } \
  NY_DEV u8 ny_to_##name##_sat(float x) { return ny_to_small<__VA_ARGS__, true>(x); }
NY_SMALL(f8e4m3, 8, 3, 7, 1, 0x7e, 0x7f)
NY_SMALL(f8e4m3fnuz, 8, 3, 8, 2, 0x7f, 0x80)
NY_SMALL(f8e5m2, 8, 2, 15, 0, 0x7b, 0x7e)
NY_SMALL(f8e5m2fnuz, 8, 2, 16, 2, 0x7f, 0x80)
NY_SMALL(f4e2m1, 4, 1, 1, 3, 7, 0)
NY_DEV float ny_f8e8m0(u8 x) { return __uint_as_float(x == 0 ? 0x400000u : x == 255 ? 0x7fc00000u : (u32)x << 23); }
template <bool SAT> NY_DEV u8 ny_to_e8m0(float f) {
  u32 u = __float_as_uint(f), a = u & 0x7fffffffu, e = a >> 23, code = e + ((a & 0x7fffff) >= 0x400000);
  if (e == 0) code = a >= 0x600000;
  if (code >= 255) code = SAT ? 254 : 255;
  if (!SAT && a == 0) code = 255;
  return (u8)((u >> 31 && a) || a > 0x7f800000u ? 255 : code);
}
NY_DEV u8 ny_to_f8e8m0(float x) { return ny_to_e8m0<false>(x); }
NY_DEV u8 ny_to_f8e8m0_sat(float x) { return ny_to_e8m0<true>(x); }

//@ 4
// Memory: W elements at once where the address allows it.
template <int N> struct ny_word;
template <> struct ny_word<1> { typedef u8 t; };
template <> struct ny_word<2> { typedef u16 t; };
template <> struct ny_word<4> { typedef u32 t; };
template <> struct ny_word<8> { typedef uint2 t; };
template <> struct ny_word<16> { typedef uint4 t; };
template <int W, class T> NY_DEV void ny_load(T *r, const T *p) {
  const int all = W * sizeof(T), n = all < 16 ? all : 16;
  typedef typename ny_word<n>::t word;
  EACH(k, all / n) {
    word x = ((const word *)p)[k];
    memcpy((u8 *)r + k * n, &x, n);
  }
}
template <int W, class T> NY_DEV void ny_store(T *p, const T *r) {
  const int all = W * sizeof(T), n = all < 16 ? all : 16;
  typedef typename ny_word<n>::t word;
  EACH(k, all / n) {
    word x;
    memcpy(&x, (const u8 *)r + k * n, n);
    ((word *)p)[k] = x;
  }
}
template <int W, class T> NY_DEV bool ny_fits(const T *p) { return ((u64)p & (W * sizeof(T) < 16 ? W * sizeof(T) - 1 : 15)) == 0; }
// The first n of W; the others are 0, or stay. KNOWN: the address is known to be aligned.
template <int W, bool KNOWN, class T, class N> NY_DEV void ny_load_some(T *r, const T *p, N n) {
  if (n >= W && (KNOWN || ny_fits<W>(p)))
    ny_load<W>(r, p);
  else
    EACH(k, W) r[k] = k < n ? p[k] : (T)0;
}
// All of W or none.
template <int W, bool KNOWN, class T> NY_DEV void ny_load_if(T *r, const T *p, bool some) {
  if (!some)
    EACH(k, W) r[k] = (T)0;
  else if (KNOWN || ny_fits<W>(p))
    ny_load<W>(r, p);
  else
    EACH(k, W) r[k] = p[k];
}
template <int W, bool KNOWN, class T, class N> NY_DEV void ny_store_some(T *p, const T *r, N n) {
  if (n >= W && (KNOWN || ny_fits<W>(p)))
    ny_store<W>(p, r);
  else
    EACH(k, W) if (k < n) p[k] = r[k];
}

//@ 8
// Elements of 4 and 2 bits, the first in the low bits of a byte. Two threads may write elements of one byte.
template <int BITS, class I> NY_DEV u8 ny_get(const u8 *p, I i) {
  const int per = 8 / BITS;
  return p[(u64)i / per] >> ((u32)i % per * BITS) & ((1 << BITS) - 1);
}
template <int BITS, class I> NY_DEV void ny_put(u8 *p, I i, u8 code) {
  const int per = 8 / BITS;
  u8 *b = p + (u64)i / per;
  u32 *word = (u32 *)((u64)b & ~3ull), shift = ((u32)(u64)b & 3) * 8 + (u32)i % per * BITS, mask = (1u << BITS) - 1;
  atomicAnd(word, ~(mask << shift));
  atomicOr(word, ((u32)code & mask) << shift);
}
template <int BITS, class I> NY_DEV void ny_put_own(u8 *p, I i, u8 code) { // no other thread sees p
  const int per = 8 / BITS;
  u8 *b = p + (u64)i / per, shift = (u32)i % per * BITS, mask = (1 << BITS) - 1;
  *b = (*b & ~(mask << shift)) | (code & mask) << shift;
}
template <int BITS, int W> NY_DEV void ny_unpack(u8 *r, const u8 *p) {
  u8 b[W * BITS / 8];
  ny_load<W * BITS / 8>(b, p);
  EACH(k, W) r[k] = b[k * BITS / 8] >> (k * BITS % 8) & ((1 << BITS) - 1);
}
template <int BITS, int W> NY_DEV void ny_pack(u8 *p, const u8 *r) {
  u8 b[W * BITS / 8];
  EACH(n, W * BITS / 8) b[n] = 0;
  EACH(k, W) b[k * BITS / 8] |= (u8)((r[k] & ((1 << BITS) - 1)) << (k * BITS % 8));
  ny_store<W * BITS / 8>(p, b);
}

//@ 16
// Integers modulo their width; x/0 and x%0 are 0; a shift of the width or more leaves no bit of the number.
NY_DEV i8 ny_i4(i32 x) { return (i8)((i32)((u32)x << 28) >> 28); }
NY_DEV i8 ny_i2(i32 x) { return (i8)((i32)((u32)x << 30) >> 30); }
NY_DEV u8 ny_u4(i32 x) { return (u8)(x & 15); }
NY_DEV u8 ny_u2(i32 x) { return (u8)(x & 3); }
template <class T> NY_DEV T ny_add(T a, T b) { return (T)((u64)a + (u64)b); }
template <class T> NY_DEV T ny_sub(T a, T b) { return (T)((u64)a - (u64)b); }
template <class T> NY_DEV T ny_mul(T a, T b) { return (T)((u64)a * (u64)b); }
template <class T> NY_DEV T ny_neg(T a) { return (T)(0 - (u64)a); }
template <class T> NY_DEV T ny_abs(T a) { return a < (T)0 ? ny_neg(a) : a; }
template <class T> NY_DEV T ny_idiv(T a, T b) {
  if (b == (T)0) return (T)0;
  if ((T)-1 < (T)0 && b == (T)-1) return ny_neg(a);
  return (T)(a / b);
}
template <class T> NY_DEV T ny_irem(T a, T b) {
  if (b == (T)0 || ((T)-1 < (T)0 && b == (T)-1)) return (T)0;
  return (T)(a % b);
}
template <int BITS, class T> NY_DEV T ny_shl(T a, T b) { return (u64)b < BITS ? (T)((u64)a << (u32)b) : (T)0; }
template <int BITS, class T> NY_DEV T ny_shr(T a, T b) {
  bool near = (u64)b < BITS;
  if ((T)-1 < (T)0) return (T)(a >> (near ? (i32)b : BITS - 1));
  return near ? (T)((u64)a >> (u32)b) : (T)0;
}
template <class T> NY_DEV T ny_imax(T a, T b) { return a < b ? b : a; }
template <class T> NY_DEV T ny_imin(T a, T b) { return a < b ? a : b; }
// Floats to integers truncate and saturate; NaN gives 0.
NY_DEV i32 ny_to_i32(float x) { return x != x ? 0 : __float2int_rz(x); }
NY_DEV i32 ny_to_i32(double x) { return x != x ? 0 : __double2int_rz(x); }
NY_DEV u32 ny_to_u32(float x) { return x != x ? 0 : __float2uint_rz(x); }
NY_DEV u32 ny_to_u32(double x) { return x != x ? 0 : __double2uint_rz(x); }
NY_DEV i64 ny_to_i64(float x) { return x != x ? 0 : __float2ll_rz(x); }
NY_DEV i64 ny_to_i64(double x) { return x != x ? 0 : __double2ll_rz(x); }
NY_DEV u64 ny_to_u64(float x) { return x != x ? 0 : __float2ull_rz(x); }
NY_DEV u64 ny_to_u64(double x) { return x != x ? 0 : __double2ull_rz(x); }
template <class R, int LO, int HI, class T> NY_DEV R ny_to_int(T x) {
  i32 n = ny_to_i32(x);
  return (R)(n < LO ? LO : n > HI ? HI : n);
}

//@ 32
// Functions of f32 that are closer to their formula than its own steps.
// e^-(hi + lo) erfcx(w / sqrt 2): the exponent in two parts, because the tail lives on it; 0 beyond w = 14.6.
NY_DEV float ny_erfc_core(float w, float hi, float lo) {
  float r = 1.0f / (w + 4.0f), q = (w - 4.0f) * r, e = expf(-hi);
  float p = fmaf(-0.000264861885869f, q, 0.0003567503556f);
  p = fmaf(p, q, 0.00313917626498f);
  p = fmaf(p, q, -0.00702416473538f);
  p = fmaf(p, q, -0.015050008378f);
  p = fmaf(p, q, 0.120807532565f);
  p = fmaf(p, q, -0.37304697133f);
  p = fmaf(p, q, 0.774273807418f);
  p = fmaf(p, q, -1.21579317172f);
  p = fmaf(p, q, 1.51057027073f);
  return p * r * fmaf(e, -lo, e);
}
// a/2 erfc(-a / sqrt 2): the square of a is exact in two parts, which -a / sqrt 2 would not be.
NY_DEV float ny_gelu(float a) {
  float t = fabsf(a), cut = t > 16.0f ? 16.0f : t, h = cut * 0.5f, hi = h * cut, lo = fmaf(h, cut, -hi), c = ny_erfc_core(cut, hi, lo);
  return a * 0.5f * (a < 0.0f ? c : 2.0f - c);
}
NY_DEV float ny_gelu_tanh(float a) { // (1 + tanh u)/2 is 1/(1 + e^-2u)
  float u = a * fmaf(a * a, -0.071354816272600248f, -1.5957691216057308f);
  return a / (expf(u) + 1.0f);
}
NY_DEV float ny_softplus(float a) { return (a > 0.0f ? a : a != a ? a : 0.0f) + log1pf(expf(-fabsf(a))); }
NY_DEV float ny_mish(float a) { // tanh(softplus a) is n/(n+2) with n = e^a (e^a + 2)
  float e = expf(a > 20.0f ? 20.0f : a), n = e * (e + 2.0f);
  return a * (n / (n + 2.0f));
}
NY_DEV float ny_acosh(float a) { // below 0 the formula cancels to log(0) from some number on, as it does in f64
  double x = a;
  return a < 0.0f ? (float)log(x + sqrt(x * x - 1.0)) : acoshf(a);
}
NY_DEV float ny_pow(float a, float b) { return (float)pow((double)a, (double)b); }

//@ 64
// From the lane whose number differs in the bits of m.
NY_DEV float ny_shuffle(float x, int m) { return __shfl_xor_sync(0xffffffffu, x, m); }
NY_DEV double ny_shuffle(double x, int m) { return __shfl_xor_sync(0xffffffffu, x, m); }
NY_DEV i64 ny_shuffle(i64 x, int m) { return __shfl_xor_sync(0xffffffffu, x, m); }
NY_DEV u64 ny_shuffle(u64 x, int m) { return __shfl_xor_sync(0xffffffffu, x, m); }
template <class T> NY_DEV T ny_shuffle(T x, int m) { return (T)__shfl_xor_sync(0xffffffffu, (i32)x, m); }

//@ 128
// Copies to shared memory that do not pass through registers. The first n of W elements; the others become 0.
NY_DEV u32 ny_shared(const void *p) { return (u32)__cvta_generic_to_shared(p); }
NY_DEV void ny_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> NY_DEV void ny_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
template <int W, bool KNOWN, class T, class N> NY_DEV void ny_copy(T *to, const T *from, N n) {
  const int bytes = W * sizeof(T);
  if (KNOWN || ny_fits<W>(from)) {
    int have = n >= W ? bytes : n <= 0 ? 0 : (int)n * (int)sizeof(T);
    if (bytes == 16)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ny_shared(to)), "l"(from), "r"(have) : "memory");
    else
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(ny_shared(to)), "l"(from), "n"(bytes < 4 ? 4 : bytes > 16 ? 16 : bytes), "r"(have) : "memory");
  } else {
#pragma unroll 1
    for (int k = 0; k < W; k++) to[k] = k < n ? from[k] : (T)0;
  }
}

//@ 256
// Tensor cores: fragments of 8 x 8 pieces of 16-byte rows, and products of 16 x 8 accumulators.
NY_DEV u32 ny_shared_at(const void *p) { return (u32)__cvta_generic_to_shared(p); }
NY_DEV void ny_fragment4(u32 *r, const void *p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(ny_shared_at(p)) : "memory");
}
NY_DEV void ny_fragment4_turned(u32 *r, const void *p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(ny_shared_at(p)) : "memory");
}
NY_DEV void ny_fragment2(u32 *r, const void *p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(ny_shared_at(p)) : "memory");
}
NY_DEV void ny_fragment2_turned(u32 *r, const void *p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(ny_shared_at(p)) : "memory");
}
#define NY_TENSOR(name, acc, c, shape) \
  NY_DEV void ny_mma_##name(acc &c0, acc &c1, acc &c2, acc &c3, const u32 *a, const u32 *b) { \
    asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+" c(c0), "+" c(c1), "+" c(c2), "+" c(c3) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])); \
  }
NY_TENSOR(bf16, float, "f", "m16n8k16.row.col.f32.bf16.bf16.f32")
NY_TENSOR(f16, float, "f", "m16n8k16.row.col.f32.f16.f16.f32")
NY_TENSOR(tf32, float, "f", "m16n8k8.row.col.f32.tf32.tf32.f32")
NY_TENSOR(i8i8, i32, "r", "m16n8k32.row.col.s32.s8.s8.s32")
NY_TENSOR(i8u8, i32, "r", "m16n8k32.row.col.s32.s8.u8.s32")
NY_TENSOR(u8i8, i32, "r", "m16n8k32.row.col.s32.u8.s8.s32")
NY_TENSOR(u8u8, i32, "r", "m16n8k32.row.col.s32.u8.u8.s32")
NY_DEV u32 ny_tf32(u32 x) { u32 r; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(__uint_as_float(x))); return r; }

//@ 512
// Some warps of a block wait for one another, all `threads` of them at barrier `id`, which is theirs.
NY_DEV void ny_sync_part(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

//@ 1024
// Codes of 4 bits as operands of tensor cores. Eight of a word, low bits first, become four pairs of bf16: (0,4) (1,5) (2,6) (3,7), here times 2^-126: the bits of
// a small number are those of a smaller one.
NY_DEV u32 ny_product2(u32 a, u32 b) { u32 r; asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(0x80008000u)); return r; }
template <int MASK> NY_DEV u32 ny_join(u32 a, u32 sign) { u32 r; asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(a), "n"(MASK), "r"(sign)); return r; }
NY_DEV void ny_codes(u32 *b, u32 w) {
  b[0] = ny_join<0x01c001c0>(w << 6, w << 12 & 0x80008000u);
  b[1] = ny_join<0x01c001c0>(w << 2, w << 8 & 0x80008000u);
  b[2] = ny_join<0x01c001c0>(w >> 2, w << 4 & 0x80008000u);
  b[3] = ny_join<0x01c001c0>(w >> 6, w & 0x80008000u);
}
// Times 2^-8: 2^126 times an e4m3 does not fit bf16.
NY_DEV void ny_decode_e4m3(u32 *b, u32 w, u32 scale) {
  ny_codes(b, w);
  EACH(k, 4) b[k] = ny_product2(b[k], scale);
}
NY_DEV void ny_decode_e8m0(u32 *b, u32 w, u32 scale) {
  ny_codes(b, w);
  EACH(k, 4) b[k] = ny_product2(ny_product2(b[k], 0x7e807e80u), scale);
}
// Scales of two adjacent blocks, each twice, times 2^118; of one block.
NY_DEV void ny_scales_e4m3(u32 *s, u32 two) {
  float x[2];
#if __CUDA_ARCH__ >= 890
  asm("{.reg .b32 r; .reg .b16 l, h; cvt.rn.f16x2.e4m3x2 r, %2; mov.b32 {l, h}, r; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}" : "=f"(x[0]), "=f"(x[1]) : "h"((u16)two));
#else
  EACH(k, 2) x[k] = ny_f8e4m3((u8)(two >> 8 * k));
#endif
  EACH(k, 2) {
    const u32 u = __float_as_uint(x[k] * __uint_as_float(0x7a800000u));
    s[k] = __byte_perm(u, u, 0x3232);
  }
}
NY_DEV void ny_scales_e8m0(u32 *s, u32 x) { s[0] = s[1] = (x == 0 ? 0x40u : x == 255 ? 0x7fc0u : x << 7) * 0x10001u; }
// Numbers of bf16, two or more, that add up to x. Infinity is the first alone; NaN is the second at least.
template <int N> NY_DEV void ny_terms(u16 *t, float x) {
  EACH(k, N) {
    const float top = __uint_as_float(__float_as_uint(x) & 0xffff0000u);
    t[k] = (u16)(__float_as_uint(top) >> 16);
    x = x == top ? 0.0f : x - top;
  }
}

//@ 2048
// Products of codes of 4 bits: 64 along k, scales of 16 or 32 of them.
#define NY_SCALED(name, kind, scale) \
  NY_DEV void ny_mma_##name(float &c0, float &c1, float &c2, float &c3, const u32 *a, const u32 *b, u32 sa, u32 sb) { \
    asm volatile("mma.sync.aligned.m16n8k64.row.col." kind ".f32.e2m1.e2m1.f32." scale " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, %10, {0, 0}, %11, {0, 0};" \
                 : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(sa), "r"(sb)); \
  }
NY_SCALED(nvf4, "kind::mxf4nvf4.block_scale.scale_vec::4X", "ue4m3")
NY_SCALED(mxf4, "kind::mxf4.block_scale.scale_vec::2X", "ue8m0")
