/* Integer arithmetic: add, mul, mad, div, min, carries and the small-vector forms. */
#include "lanes.h"

__extension__ typedef unsigned __int128 u128;
__extension__ typedef __int128 s128;

NY_INTS(NY_BINARY, add, (C)a + (C)b)
NY_INTS(NY_BINARY, sub, (C)a - (C)b)
NY_INTS(NY_BINARY, mul, (C)a *(C)b)
NY_INTS(NY_BINARY, imin, a < b ? a : b)
NY_INTS(NY_BINARY, imax, a > b ? a : b)
NY_INTS(NY_TERNARY, mad, (C)a *(C)b + (C)c)
/* Division by zero gives all ones and a remainder of a, as the machine does; PTX leaves both open. */
#define UNSIGNED_DIV(M, op, e)                                                                                         \
  M(op##_u16, uint16_t, uint32_t, uint32_t, e)                                                                         \
  M(op##_u32, uint32_t, uint32_t, uint32_t, e) M(op##_u64, uint64_t, uint64_t, uint64_t, e)
#define SIGNED_DIV(M, op, e)                                                                                           \
  M(op##_s16, int16_t, uint32_t, uint32_t, e)                                                                          \
  M(op##_s32, int32_t, uint32_t, uint32_t, e) M(op##_s64, int64_t, uint64_t, uint64_t, e)
UNSIGNED_DIV(NY_BINARY, div, b ? (C)(a / b) : (C)-1)
SIGNED_DIV(NY_BINARY, div, b == 0 ? (C)-1 : b == -1 ? (C)0 - (C)a : (C)(a / b))
UNSIGNED_DIV(NY_BINARY, rem, b ? a % b : a)
SIGNED_DIV(NY_BINARY, rem, b == 0 ? a : b == -1 ? 0 : a % b)
NY_UNARY(neg_s16, int16_t, uint32_t, uint32_t, (C)0 - (C)a)
NY_UNARY(neg_s32, int32_t, uint32_t, uint32_t, (C)0 - (C)a)
NY_UNARY(neg_s64, int64_t, uint64_t, uint64_t, (C)0 - (C)a)
NY_UNARY(abs_s16, int16_t, uint32_t, uint32_t, a < 0 ? (C)0 - (C)a : (C)a)
NY_UNARY(abs_s32, int32_t, uint32_t, uint32_t, a < 0 ? (C)0 - (C)a : (C)a)
NY_UNARY(abs_s64, int64_t, uint64_t, uint64_t, a < 0 ? (C)0 - (C)a : (C)a)

static inline int32_t relu32(int32_t v) { return v < 0 ? 0 : v; }
NY_BINARY(min_relu, int32_t, uint32_t, uint32_t, relu32(a < b ? a : b))
NY_BINARY(max_relu, int32_t, uint32_t, uint32_t, relu32(a > b ? a : b))
static inline int32_t clamp32(int64_t v) { return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v; }
NY_BINARY(add_sat, int32_t, int64_t, uint32_t, clamp32((C)a + b))
NY_BINARY(sub_sat, int32_t, int64_t, uint32_t, clamp32((C)a - b))

/* ---- high halves */
#define HIGH_U(n, T, W, L)                                                                                             \
  NY_BINARY(mulhi_u##n, T, W, L, (C)a *(C)b >> n) NY_TERNARY(madhi_u##n, T, W, L, ((C)a * (C)b >> n) + c)
#define HIGH_S(n, T, W, L)                                                                                             \
  NY_BINARY(mulhi_s##n, T, W, L, (C)a *(C)b >> n)                                                                      \
  NY_TERNARY(madhi_s##n, T, W, L, (uint64_t)((C)a * (C)b >> n) + (uint64_t)c)
HIGH_U(16, uint16_t, uint32_t, uint32_t)
HIGH_U(32, uint32_t, uint64_t, uint32_t)
HIGH_U(64, uint64_t, u128, uint64_t)
HIGH_S(16, int16_t, int32_t, uint32_t)
HIGH_S(32, int32_t, int64_t, uint32_t)
HIGH_S(64, int64_t, s128, uint64_t)
NY_TERNARY(madhi_sat, int32_t, int64_t, uint32_t, clamp32(((C)a * b >> 32) + c))

/* ---- wide: the result has twice the bits */
#define WIDE(name, T, W, LD)                                                                                           \
  static void mulw_##name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                        \
    const uint32_t *pa = NY_U32(1), *pb = NY_U32(2);                                                                   \
    NY_MAP(LD, NY_LANES_OF(LD, 0), (W)(T)pa[l] * (W)(T)pb[l]);                                                         \
  }                                                                                                                    \
  static void madw_##name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                        \
    const uint32_t *pa = NY_U32(1), *pb = NY_U32(2);                                                                   \
    const LD *pc = NY_LANES_OF(LD, 3);                                                                                 \
    NY_MAP(LD, NY_LANES_OF(LD, 0), (LD)((W)(T)pa[l] * (W)(T)pb[l]) + pc[l]);                                           \
  }
WIDE(u16, uint16_t, uint32_t, uint32_t)
WIDE(s16, int16_t, int32_t, uint32_t)
WIDE(u32, uint32_t, uint64_t, uint64_t)
WIDE(s32, int32_t, int64_t, uint64_t)

/* ---- 24 bits */
static inline int32_t low24(int32_t v) { return (int32_t)((uint32_t)v << 8) >> 8; }
NY_BINARY(mul24_u, uint32_t, uint64_t, uint32_t, (C)(a & 0xffffff) * (b & 0xffffff))
NY_BINARY(mul24_s, int32_t, int64_t, uint32_t, (C)low24(a) * low24(b))
NY_BINARY(mul24hi_u, uint32_t, uint64_t, uint32_t, (C)(a & 0xffffff) * (b & 0xffffff) >> 16)
NY_BINARY(mul24hi_s, int32_t, int64_t, uint32_t, (C)low24(a) * low24(b) >> 16)
NY_TERNARY(mad24_u, uint32_t, uint64_t, uint32_t, (C)(a & 0xffffff) * (b & 0xffffff) + c)
NY_TERNARY(mad24_s, int32_t, int64_t, uint32_t, (C)low24(a) * low24(b) + c)
NY_TERNARY(mad24hi_u, uint32_t, uint64_t, uint32_t, ((C)(a & 0xffffff) * (b & 0xffffff) >> 16) + c)
NY_TERNARY(mad24hi_s, int32_t, int64_t, uint32_t, ((C)low24(a) * low24(b) >> 16) + c)

NY_INTS(NY_TERNARY, sad, (C)c + (a < b ? (C)b - (C)a : (C)a - (C)b))

/* ---- carry: one flag a lane, which nothing else can see */
#define CARRY(name, T, is_sub)                                                                                         \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const T *pa = NY_LANES_OF(T, 1), *pb = NY_LANES_OF(T, 2);                                                          \
    T *d = NY_LANES_OF(T, 0);                                                                                          \
    bool use = i->data & 1, set = i->data & 2;                                                                         \
    uint32_t in = use ? w->carry : 0, out = w->carry;                                                                  \
    NY_EACH_ACTIVE(l) {                                                                                                \
      T a = pa[l], b = pb[l], c = in >> l & 1, v = is_sub ? (T)(a - b - c) : (T)(a + b + c);                           \
      bool carry = is_sub ? a < b || (a == b && c) : v < a || (v == a && c);                                           \
      d[l] = v;                                                                                                        \
      out = (out & ~(1u << l)) | (uint32_t)carry << l;                                                                 \
    }                                                                                                                  \
    if (set) w->carry = out;                                                                                           \
  }
CARRY(addc_32, uint32_t, false)
CARRY(addc_64, uint64_t, false)
CARRY(subc_32, uint32_t, true)
CARRY(subc_64, uint64_t, true)

#define MADC(name, T, W, product)                                                                                      \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const T *pa = NY_LANES_OF(T, 1), *pb = NY_LANES_OF(T, 2), *pc = NY_LANES_OF(T, 3);                                 \
    T *d = NY_LANES_OF(T, 0);                                                                                          \
    bool use = i->data & 1, set = i->data & 2;                                                                         \
    uint32_t in = use ? w->carry : 0, out = w->carry;                                                                  \
    NY_EACH_ACTIVE(l) {                                                                                                \
      u128 v = (u128)(T)(product) + pc[l] + (in >> l & 1);                                                             \
      d[l] = (T)v;                                                                                                     \
      out = (out & ~(1u << l)) | (uint32_t)(v >> (sizeof(T) * 8) & 1) << l;                                            \
    }                                                                                                                  \
    if (set) w->carry = out;                                                                                           \
  }
MADC(madc_lo_32, uint32_t, uint64_t, pa[l] * pb[l])
MADC(madc_lo_64, uint64_t, u128, pa[l] * pb[l])
MADC(madc_hi_u32, uint32_t, uint64_t, (uint64_t)pa[l] * pb[l] >> 32)
MADC(madc_hi_s32, uint32_t, int64_t, (uint64_t)((int64_t)(int32_t)pa[l] * (int32_t)pb[l]) >> 32)
MADC(madc_hi_u64, uint64_t, u128, (u128)pa[l] * pb[l] >> 64)
MADC(madc_hi_s64, uint64_t, s128, (u128)((s128)(int64_t)pa[l] * (int64_t)pb[l]) >> 64)

/* data bit 0: takes the carry, bit 1: leaves one. The first word of the pattern says which. */
static bool fix_carry(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  const char *p = ny_ptx_row_of(dc)->pattern;
  bool use = !strncmp(p, "addc", 4) || !strncmp(p, "subc", 4) || !strncmp(p, "madc", 4);
  i->data = (use ? 1u : 0u) | (i->opt[0] || strstr(p, ".cc.") ? 2u : 0u);
  return true;
}

/* ---- dot products of bytes */
static inline int32_t byte_of(uint32_t v, int k, bool is_signed) {
  uint32_t b = v >> (8 * k) & 255;
  return is_signed ? (int8_t)b : (int32_t)b;
}
static inline int32_t half_of(uint32_t v, int k, bool is_signed) {
  uint32_t h = v >> (16 * k) & 65535;
  return is_signed ? (int16_t)h : (int32_t)h;
}
/* opt[0], opt[1] of the types of a and b: 1 unsigned, 2 signed; sub of dp2a: lo, hi */
static void dp4a(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1), *b = NY_U32(2), *c = NY_U32(3);
  bool sa = i->opt[0] == 2, sb = i->opt[1] == 2;
  uint32_t v[NY_LANES];
  for (int l = 0; l < NY_LANES; l++) {
    v[l] = c[l];
    for (int k = 0; k < 4; k++) v[l] += (uint32_t)(byte_of(a[l], k, sa) * byte_of(b[l], k, sb));
  }
  NY_MAP(uint32_t, NY_U32(0), v[l]);
}
static void dp2a(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1), *b = NY_U32(2), *c = NY_U32(3);
  bool sa = i->opt[0] == 2, sb = i->opt[1] == 2;
  uint32_t v[NY_LANES];
  for (int l = 0; l < NY_LANES; l++) {
    v[l] = c[l];
    for (int k = 0; k < 2; k++) v[l] += (uint32_t)(half_of(a[l], k, sa) * byte_of(b[l], k + 2 * i->sub, sb));
  }
  NY_MAP(uint32_t, NY_U32(0), v[l]);
}

/* ---- pairs of 16 bits */
#define PAIR(name, T, e)                                                                                               \
  static inline uint32_t f_##name(uint32_t x, uint32_t y) {                                                            \
    uint32_t r = 0;                                                                                                    \
    for (int k = 0; k < 32; k += 16) {                                                                                 \
      T a = (T)(x >> k), b = (T)(y >> k);                                                                              \
      r |= (uint32_t)(uint16_t)(e) << k;                                                                               \
    }                                                                                                                  \
    return r;                                                                                                          \
  }                                                                                                                    \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const uint32_t *pa = NY_U32(1), *pb = NY_U32(2);                                                                   \
    NY_MAP(uint32_t, NY_U32(0), f_##name(pa[l], pb[l]));                                                               \
  }
PAIR(add_x2, uint16_t, a + b)
PAIR(min_u16x2, uint16_t, a < b ? a : b)
PAIR(min_s16x2, int16_t, a < b ? a : b)
PAIR(max_u16x2, uint16_t, a > b ? a : b)
PAIR(max_s16x2, int16_t, a > b ? a : b)
PAIR(min_relu_x2, int16_t, a < 0 || b < 0 ? 0 : a < b ? a : b)
PAIR(max_relu_x2, int16_t, a < 0 && b < 0 ? 0 : a > b ? a : b)

const ny_ptx_row ny_rows_int[] = {
    {"add." NY_SIX_TYPES, "T t t", NY_CLS_int, NULL, NY_SIX(add)},
    {"sub." NY_SIX_TYPES, "T t t", NY_CLS_int, NULL, NY_SIX(sub)},
    {"add.sat.[s32]", "T t t", NY_CLS_int, NULL, {add_sat}},
    {"sub.sat.[s32]", "T t t", NY_CLS_int, NULL, {sub_sat}},
    {"mul.lo." NY_SIX_TYPES, "T t t", NY_CLS_int, NULL, NY_SIX(mul)},
    {"mul.hi." NY_SIX_TYPES, "T t t", NY_CLS_int, NULL, NY_SIX(mulhi)},
    {"mul.wide.[u16 s16 u32 s32]", "W t t", NY_CLS_int, NULL, {mulw_u16, mulw_s16, mulw_u32, mulw_s32}},
    {"mad.lo." NY_SIX_TYPES, "T t t t", NY_CLS_int, NULL, NY_SIX(mad)},
    {"mad.hi." NY_SIX_TYPES, "T t t t", NY_CLS_int, NULL, NY_SIX(madhi)},
    {"mad.hi.sat.[s32]", "T t t t", NY_CLS_int, NULL, {madhi_sat}},
    {"mad.wide.[u16 s16 u32 s32]", "W t t w", NY_CLS_int, NULL, {madw_u16, madw_s16, madw_u32, madw_s32}},
    {"mul24.lo.[u32 s32]", "T t t", NY_CLS_int, NULL, {mul24_u, mul24_s}},
    {"mul24.hi.[u32 s32]", "T t t", NY_CLS_int, NULL, {mul24hi_u, mul24hi_s}},
    {"mad24.lo.[u32 s32]", "T t t t", NY_CLS_int, NULL, {mad24_u, mad24_s}},
    {"mad24.hi.[u32 s32]", "T t t t", NY_CLS_int, NULL, {mad24hi_u, mad24hi_s}},
    {"div." NY_SIX_TYPES, "T t t", NY_CLS_int, NULL, NY_SIX(div)},
    {"rem." NY_SIX_TYPES, "T t t", NY_CLS_int, NULL, NY_SIX(rem)},
    {"min." NY_SIX_TYPES, "T t t", NY_CLS_int, NULL, NY_SIX(imin)},
    {"max." NY_SIX_TYPES, "T t t", NY_CLS_int, NULL, NY_SIX(imax)},
    {"add.[u16x2 s16x2]", "T t t", NY_CLS_int, NULL, {add_x2, add_x2}},
    {"min.[u16x2 s16x2]", "T t t", NY_CLS_int, NULL, {min_u16x2, min_s16x2}},
    {"max.[u16x2 s16x2]", "T t t", NY_CLS_int, NULL, {max_u16x2, max_s16x2}},
    {"min.relu.[s32 s16x2]", "T t t", NY_CLS_int, NULL, {min_relu, min_relu_x2}},
    {"max.relu.[s32 s16x2]", "T t t", NY_CLS_int, NULL, {max_relu, max_relu_x2}},
    {"neg.[s16 s32 s64]", "T t", NY_CLS_int, NULL, {neg_s16, neg_s32, neg_s64}},
    {"abs.[s16 s32 s64]", "T t", NY_CLS_int, NULL, {abs_s16, abs_s32, abs_s64}},
    {"sad." NY_SIX_TYPES, "T t t t", NY_CLS_int, NULL, NY_SIX(sad)},
    {"add.cc.[u32 s32 u64 s64 b32 b64]",
     "T t t",
     NY_CLS_int,
     fix_carry,
     {addc_32, addc_32, addc_64, addc_64, addc_32, addc_64}},
    {"addc.(cc)?.[u32 s32 u64 s64 b32 b64]",
     "T t t",
     NY_CLS_int,
     fix_carry,
     {addc_32, addc_32, addc_64, addc_64, addc_32, addc_64}},
    {"sub.cc.[u32 s32 u64 s64 b32 b64]",
     "T t t",
     NY_CLS_int,
     fix_carry,
     {subc_32, subc_32, subc_64, subc_64, subc_32, subc_64}},
    {"subc.(cc)?.[u32 s32 u64 s64 b32 b64]",
     "T t t",
     NY_CLS_int,
     fix_carry,
     {subc_32, subc_32, subc_64, subc_64, subc_32, subc_64}},
    {"mad.lo.cc.[u32 s32 u64 s64]", "T t t t", NY_CLS_int, fix_carry, {madc_lo_32, madc_lo_32, madc_lo_64, madc_lo_64}},
    {"mad.hi.cc.[u32 s32 u64 s64]",
     "T t t t",
     NY_CLS_int,
     fix_carry,
     {madc_hi_u32, madc_hi_s32, madc_hi_u64, madc_hi_s64}},
    {"madc.lo.(cc)?.[u32 s32 u64 s64]",
     "T t t t",
     NY_CLS_int,
     fix_carry,
     {madc_lo_32, madc_lo_32, madc_lo_64, madc_lo_64}},
    {"madc.hi.(cc)?.[u32 s32 u64 s64]",
     "T t t t",
     NY_CLS_int,
     fix_carry,
     {madc_hi_u32, madc_hi_s32, madc_hi_u64, madc_hi_s64}},
    {"dp4a.(u32 s32).(u32 s32)", "B b b b", NY_CLS_int, NULL, {dp4a}},
    {"dp2a.[lo hi].(u32 s32).(u32 s32)", "B b b b", NY_CLS_int, NULL, {dp2a, dp2a}},
};
const size_t ny_n_rows_int = NY_COUNT(ny_rows_int);
