/* Logic, shifts, bit fields, permutes. */
#include "lanes.h"

#define LOGIC(op, e)                                                                                                   \
  NY_BINARY(op##_b16, uint16_t, uint32_t, uint32_t, e)                                                                 \
  NY_BINARY(op##_b32, uint32_t, uint32_t, uint32_t, e)                                                                 \
  NY_BINARY(op##_b64, uint64_t, uint64_t, uint64_t, e)
LOGIC(and, a &b)
LOGIC(or, a | b)
LOGIC(xor, a ^ b)
#define ONE(op, e)                                                                                                     \
  NY_UNARY(op##_b16, uint16_t, uint32_t, uint32_t, e)                                                                  \
  NY_UNARY(op##_b32, uint32_t, uint32_t, uint32_t, e)                                                                  \
  NY_UNARY(op##_b64, uint64_t, uint64_t, uint64_t, e)
ONE(not, ~(C)a)
ONE(cnot, a == 0)

#define PREDICATES(name, e)                                                                                            \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    uint32_t a = ny_pred(w, &i->arg[1]), b = i->n_arg > 2 ? ny_pred(w, &i->arg[2]) : 0;                                \
    (void)b;                                                                                                           \
    ny_set_pred(w, &i->arg[0], mask, e);                                                                               \
  }
PREDICATES(and_pred, a &b)
PREDICATES(or_pred, a | b)
PREDICATES(xor_pred, a ^ b)
PREDICATES(not_pred, ~a)

/* The amount is 32 bits whatever is shifted; one beyond the width leaves nothing, or the sign. */
#define SHIFT(name, T, L, bits, in, beyond)                                                                            \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const L *pa = NY_LANES_OF(L, 1);                                                                                   \
    const uint32_t *pb = NY_U32(2);                                                                                    \
    NY_MAP(L, NY_LANES_OF(L, 0), NY_NARROW(T, L, pb[l] < bits ? (L)((T)pa[l] in(pb[l] & (bits - 1))) : (L)(beyond)));  \
  }
SHIFT(shl_16, uint16_t, uint32_t, 16, <<, 0)
SHIFT(shl_32, uint32_t, uint32_t, 32, <<, 0)
SHIFT(shl_64, uint64_t, uint64_t, 64, <<, 0)
SHIFT(shr_u16, uint16_t, uint32_t, 16, >>, 0)
SHIFT(shr_u32, uint32_t, uint32_t, 32, >>, 0)
SHIFT(shr_u64, uint64_t, uint64_t, 64, >>, 0)
SHIFT(shr_s16, int16_t, uint32_t, 16, >>, (int16_t)pa[l] < 0 ? -1 : 0)
SHIFT(shr_s32, int32_t, uint32_t, 32, >>, (int32_t)pa[l] < 0 ? -1 : 0)
SHIFT(shr_s64, int64_t, uint64_t, 64, >>, (int64_t)pa[l] < 0 ? -1 : 0)

static inline uint64_t joined(uint32_t lo, uint32_t hi) { return (uint64_t)hi << 32 | lo; }
static inline uint32_t at_most_32(uint32_t n) { return n < 32 ? n : 32; }
NY_TERNARY(shf_l_clamp, uint32_t, uint64_t, uint32_t, joined(a, b) << at_most_32(c) >> 32)
NY_TERNARY(shf_l_wrap, uint32_t, uint64_t, uint32_t, joined(a, b) << (c & 31) >> 32)
NY_TERNARY(shf_r_clamp, uint32_t, uint64_t, uint32_t, joined(a, b) >> at_most_32(c))
NY_TERNARY(shf_r_wrap, uint32_t, uint64_t, uint32_t, joined(a, b) >> (c & 31))

/* lop3: the table has one bit for each value of (a, b, c). */
static void lop3(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1), *b = NY_U32(2), *c = NY_U32(3);
  uint32_t f[8];
  for (int k = 0; k < 8; k++) f[k] = i->arg[4].imm >> k & 1 ? NY_ALL_LANES : 0;
  NY_MAP(uint32_t, NY_U32(0),
         (~a[l] & ((~b[l] & ((~c[l] & f[0]) | (c[l] & f[1]))) | (b[l] & ((~c[l] & f[2]) | (c[l] & f[3]))))) |
             (a[l] & ((~b[l] & ((~c[l] & f[4]) | (c[l] & f[5]))) | (b[l] & ((~c[l] & f[6]) | (c[l] & f[7]))))));
}

/* lop3.and/or.b32 d|p, a, b, c, table, q: p is whether the result is not 0, combined with q */
static void lop3_pred(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(2), *b = NY_U32(3), *c = NY_U32(4);
  uint32_t v[NY_LANES], some = 0, q = ny_pred(w, &i->arg[6]);
  for (int l = 0; l < NY_LANES; l++) {
    v[l] = 0;
    for (int k = 0; k < 8; k++)
      if (i->arg[5].imm >> k & 1) v[l] |= (k & 4 ? a[l] : ~a[l]) & (k & 2 ? b[l] : ~b[l]) & (k & 1 ? c[l] : ~c[l]);
    some |= v[l] ? 1u << l : 0;
  }
  NY_MAP(uint32_t, NY_U32(0), v[l]);
  ny_set_pred(w, &i->arg[1], mask, i->sub ? some | q : some & q);
}

/* ---- bytes of two words, chosen by 4-bit selectors; bit 3 of one repeats the sign */
static inline uint32_t pick(uint64_t ab, uint32_t sel, int k) {
  uint32_t s = sel >> (4 * k) & 15, v = (uint32_t)(ab >> (8 * (s & 7))) & 255;
  return (s & 8 ? (v & 128 ? 255u : 0) : v) << (8 * k);
}
NY_TERNARY(prmt, uint32_t, uint32_t, uint32_t,
           pick(joined(a, b), c, 0) | pick(joined(a, b), c, 1) | pick(joined(a, b), c, 2) | pick(joined(a, b), c, 3))
/* The modes f4e b4e rc8 ecl ecr rc16 as selectors, by the low two bits of c. */
static const uint16_t prmt_select[6][4] = {{0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
                                           {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
                                           {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
static void prmt_mode(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1), *b = NY_U32(2), *c = NY_U32(3);
  const uint16_t *sel = prmt_select[i->opt[0] - 1];
  NY_MAP(uint32_t, NY_U32(0), f_prmt(a[l], b[l], sel[c[l] & 3]));
}

/* ---- fields */
#define BFE(name, T, U, L, bits, is_signed)                                                                            \
  static inline L f_##name(T a, uint32_t at, uint32_t n) {                                                             \
    at &= 255;                                                                                                         \
    n &= 255;                                                                                                          \
    if (!n) return 0;                                                                                                  \
    uint32_t top = at + n - 1 < bits - 1 ? at + n - 1 : bits - 1; /* where the sign is */                              \
    L fill = is_signed && (U)a >> top & 1 ? (L)-1 : 0;                                                                 \
    L v = at < bits ? (L)((U)a >> at) : fill;                                                                          \
    uint32_t have = at < bits ? (n < bits - at ? n : bits - at) : 0;                                                   \
    if (have >= bits) return v;                                                                                        \
    L low = ((L)1 << have) - 1;                                                                                        \
    return (v & low) | (fill & ~low);                                                                                  \
  }                                                                                                                    \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const L *pa = NY_LANES_OF(L, 1);                                                                                   \
    const uint32_t *pb = NY_U32(2), *pc = NY_U32(3);                                                                   \
    NY_MAP(L, NY_LANES_OF(L, 0), f_##name((T)pa[l], pb[l], pc[l]));                                                    \
  }
BFE(bfe_u32, uint32_t, uint32_t, uint32_t, 32u, false)
BFE(bfe_s32, int32_t, uint32_t, uint32_t, 32u, true)
BFE(bfe_u64, uint64_t, uint64_t, uint64_t, 64u, false)
BFE(bfe_s64, int64_t, uint64_t, uint64_t, 64u, true)

#define BFI(name, T, bits)                                                                                             \
  static inline T f_##name(T a, T b, uint32_t at, uint32_t n) {                                                        \
    at &= 255;                                                                                                         \
    n &= 255;                                                                                                          \
    if (!n || at >= bits) return b;                                                                                    \
    T field = (n >= bits ? (T)-1 : ((T)1 << n) - 1) << at;                                                             \
    return (b & ~field) | (a << at & field);                                                                           \
  }                                                                                                                    \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const T *pa = NY_LANES_OF(T, 1), *pb = NY_LANES_OF(T, 2);                                                          \
    const uint32_t *pc = NY_U32(3), *pd = NY_U32(4);                                                                   \
    NY_MAP(T, NY_LANES_OF(T, 0), f_##name(pa[l], pb[l], pc[l], pd[l]));                                                \
  }
BFI(bfi_32, uint32_t, 32)
BFI(bfi_64, uint64_t, 64)

NY_BINARY(bmsk_clamp, uint32_t, uint64_t, uint32_t, a > 31 || !b ? 0 : ((((C)1 << at_most_32(b)) - 1) << a))
NY_BINARY(bmsk_wrap, uint32_t, uint64_t, uint32_t, (((C)1 << (b & 31)) - 1) << (a & 31))
NY_BINARY(szext_u, uint32_t, uint64_t, uint32_t, b >= 32 ? a : a & (((C)1 << b) - 1))
NY_BINARY(szext_s, uint32_t, uint64_t, uint32_t,
          b >= 32 ? a
          : !b    ? 0
                  : (uint32_t)((int32_t)(a << (32 - b)) >> (32 - b)))
NY_BINARY(szext_u_wrap, uint32_t, uint64_t, uint32_t, a &(((C)1 << (b & 31)) - 1))
NY_BINARY(szext_s_wrap, uint32_t, uint64_t, uint32_t,
          !(b & 31) ? 0 : (uint32_t)((int32_t)(a << (32 - (b & 31))) >> (32 - (b & 31))))

/* ---- counts: 32 bits of result whatever the operand */
static inline uint32_t reversed(uint32_t v) {
  v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1;
  v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2;
  v = (v >> 4 & 0x0f0f0f0f) | (v & 0x0f0f0f0f) << 4;
  return __builtin_bswap32(v);
}
NY_UNARY(brev_32, uint32_t, uint32_t, uint32_t, reversed(a))
NY_UNARY(brev_64, uint64_t, uint64_t, uint64_t, joined(reversed((uint32_t)(a >> 32)), reversed((uint32_t)a)))

#define COUNT(name, L, e)                                                                                              \
  static inline uint32_t f_##name(L a) { return (uint32_t)(e); }                                                       \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const L *pa = NY_LANES_OF(L, 1);                                                                                   \
    NY_MAP(uint32_t, NY_U32(0), f_##name(pa[l]));                                                                      \
  }
COUNT(popc_32, uint32_t, __builtin_popcount(a))
COUNT(popc_64, uint64_t, __builtin_popcountll(a))
COUNT(clz_32, uint32_t, a ? __builtin_clz(a) : 32)
COUNT(clz_64, uint64_t, a ? __builtin_clzll(a) : 64)
static inline uint32_t top_bit(uint64_t v) { return v ? 63u - (uint32_t)__builtin_clzll(v) : NY_ALL_LANES; }
/* bfind: the highest bit that is not the sign; .shiftamt counts from the top. */
static inline uint32_t plain32(uint32_t v) { return v; }
static inline uint64_t plain64(uint64_t v) { return v; }
static inline uint32_t unsign32(uint32_t v) { return v >> 31 ? ~v : v; }
static inline uint64_t unsign64(uint64_t v) { return v >> 63 ? ~v : v; }
#define BFIND(name, L, magnitude, bits)                                                                                \
  COUNT(name, L, top_bit(magnitude(a)))                                                                                \
  COUNT(name##_shift, L, magnitude(a) ? bits - 1 - top_bit(magnitude(a)) : NY_ALL_LANES)
BFIND(bfind_u32, uint32_t, plain32, 32)
BFIND(bfind_s32, uint32_t, unsign32, 32)
BFIND(bfind_u64, uint64_t, plain64, 64)
BFIND(bfind_s64, uint64_t, unsign64, 64)

/* fns: the n-th set bit from base on; n negative: downwards; 0: base itself if it is set */
static inline uint32_t f_fns(uint32_t v, uint32_t base, int32_t n) {
  if (base > 31) return NY_ALL_LANES;
  if (n == 0) return v >> base & 1 ? base : NY_ALL_LANES;
  int step = n > 0 ? 1 : -1;
  int64_t left = n > 0 ? n : -(int64_t)n;
  for (int k = (int)base; k >= 0 && k < 32; k += step)
    if (v >> k & 1 && --left == 0) return (uint32_t)k;
  return NY_ALL_LANES;
}
static void fns(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1), *b = NY_U32(2), *c = NY_U32(3);
  NY_MAP(uint32_t, NY_U32(0), f_fns(a[l], b[l], (int32_t)c[l]));
}

#define B3 "[b16 b32 b64]"
const ny_ptx_row ny_rows_bits[] = {
    {"and.[b16 b32 b64 pred]", "T t t", NY_CLS_int, NULL, {and_b16, and_b32, and_b64, and_pred}},
    {"or.[b16 b32 b64 pred]", "T t t", NY_CLS_int, NULL, {or_b16, or_b32, or_b64, or_pred}},
    {"xor.[b16 b32 b64 pred]", "T t t", NY_CLS_int, NULL, {xor_b16, xor_b32, xor_b64, xor_pred}},
    {"not.[b16 b32 b64 pred]", "T t", NY_CLS_int, NULL, {not_b16, not_b32, not_b64, not_pred}},
    {"cnot." B3, "T t", NY_CLS_int, NULL, {cnot_b16, cnot_b32, cnot_b64}},
    {"shl." B3, "T t b", NY_CLS_int, NULL, {shl_16, shl_32, shl_64}},
    {"shr.[b16 b32 b64 u16 u32 u64 s16 s32 s64]",
     "T t b",
     NY_CLS_int,
     NULL,
     {shr_u16, shr_u32, shr_u64, shr_u16, shr_u32, shr_u64, shr_s16, shr_s32, shr_s64}},
    {"shf.l.[clamp wrap].b32", "B b b b", NY_CLS_int, NULL, {shf_l_clamp, shf_l_wrap}},
    {"shf.r.[clamp wrap].b32", "B b b b", NY_CLS_int, NULL, {shf_r_clamp, shf_r_wrap}},
    {"lop3.b32", "B b b b i", NY_CLS_int, NULL, {lop3}},
    {"lop3.[and or].b32", "B |P b b b i p", NY_CLS_int, NULL, {lop3_pred, lop3_pred}},
    {"prmt.b32", "B b b b", NY_CLS_int, NULL, {prmt}},
    {"prmt.b32.(f4e b4e rc8 ecl ecr rc16)", "B b b b", NY_CLS_int, NULL, {prmt_mode}},
    {"bfe.[u32 s32 u64 s64]", "T t b b", NY_CLS_int, NULL, {bfe_u32, bfe_s32, bfe_u64, bfe_s64}},
    {"bfi.[b32 b64]", "T t t b b", NY_CLS_int, NULL, {bfi_32, bfi_64}},
    {"bmsk.[clamp wrap].b32", "B b b", NY_CLS_int, NULL, {bmsk_clamp, bmsk_wrap}},
    {"szext.clamp.[u32 s32]", "T t b", NY_CLS_int, NULL, {szext_u, szext_s}},
    {"szext.wrap.[u32 s32]", "T t b", NY_CLS_int, NULL, {szext_u_wrap, szext_s_wrap}},
    {"brev.[b32 b64]", "T t", NY_CLS_int, NULL, {brev_32, brev_64}},
    {"popc.[b32 b64]", "B t", NY_CLS_int, NULL, {popc_32, popc_64}},
    {"clz.[b32 b64]", "B t", NY_CLS_int, NULL, {clz_32, clz_64}},
    {"bfind.[u32 s32 u64 s64]", "B t", NY_CLS_int, NULL, {bfind_u32, bfind_s32, bfind_u64, bfind_s64}},
    {"bfind.shiftamt.[u32 s32 u64 s64]",
     "B t",
     NY_CLS_int,
     NULL,
     {bfind_u32_shift, bfind_s32_shift, bfind_u64_shift, bfind_s64_shift}},
    {"fns.b32", "B b b b", NY_CLS_int, NULL, {fns}},
};
const size_t ny_n_rows_bits = NY_COUNT(ny_rows_bits);
