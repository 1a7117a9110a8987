/* f16 and bf16 arithmetic, scalar and packed, each result rounded once.
   Why the short ways are exact: a float holds 24 bits, at least 2 p + 2 of a format with p = 11 or 8, so that rounding
   an f32 sum, difference or product again changes nothing (f16 products are above 2^-48; a bf16 product that needs more
   than f32's 2^-149 is below half of bf16's smallest step). A fused multiply-add has no such bound: its sum keeps the
   lost bits as a sticky last bit (ny_add_odd), which survives further roundings. Modifiers (.ftz .sat .relu) are rare
   and go over the operands and the result in loops of their own. */
#include "narrow.h"
#include "ptx.h"
#include <math.h>

typedef enum half_flag { FTZ = 1, SAT = 2, RELU = 4, NANS = 8, XORSIGN_ABS = 16 } half_flag;
enum { F16, F16X2, BF16, BF16X2 }; /* the order of [] in all rows of this file */

/* The flags are the words that the instruction has, wherever its row has them. */
static bool fix_flags(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  for (int g = 0; g < NY_MAX_OPT; g++) {
    const char *word = ny_ptx_word(dc, g);
    if (!word || !*word) continue;
    if (!strcmp(word, "ftz")) i->data |= FTZ;
    if (!strcmp(word, "sat")) i->data |= SAT;
    if (!strcmp(word, "relu")) i->data |= RELU;
    if (!strcmp(word, "NaN")) i->data |= NANS;
    if (!strcmp(word, "xorsign")) i->data |= XORSIGN_ABS;
  }
  return true;
}

/* ---- single codes */
static inline uint32_t flush(uint32_t code, uint32_t exponent) { return code & exponent ? code : code & 0x8000; }
static inline bool nan16(uint32_t code, uint32_t exponent) { return (code & 0x7fff) > exponent; }
static uint32_t finish1(uint32_t code, uint32_t exponent, uint64_t flags, uint32_t one) {
  if (flags & FTZ) code = flush(code, exponent);
  if (flags & SAT) code = nan16(code, exponent) || code & 0x8000 ? 0 : code > one ? one : code;
  if (flags & RELU) code = nan16(code, exponent) ? 0x7fff : code & 0x8000 ? 0 : code;
  return code;
}
static void finish(uint32_t d[NY_LANES], bool packed, bool bf, uint64_t flags) {
  uint32_t exponent = bf ? 0x7f80 : 0x7c00, one = bf ? 0x3f80 : 0x3c00;
  for (int l = 0; l < NY_LANES; l++) {
    uint32_t low = finish1(d[l] & 0xffff, exponent, flags, one);
    d[l] = packed ? low | finish1(d[l] >> 16, exponent, flags, one) << 16 : low;
  }
}
static const uint32_t *flushed(const uint32_t *a, uint32_t out[NY_LANES], bool packed, bool bf, uint64_t flags) {
  if (!(flags & FTZ)) return a;
  uint32_t exponent = bf ? 0x7f80 : 0x7c00;
  for (int l = 0; l < NY_LANES; l++)
    out[l] = flush(a[l] & 0xffff, exponent) | (packed ? flush(a[l] >> 16, exponent) << 16 : 0);
  return out;
}
static void put(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, uint32_t d[NY_LANES], bool packed, bool bf) {
  if (i->data & (FTZ | SAT | RELU)) finish(d, packed, bf, i->data);
  uint32_t *to = NY_U32(0);
  NY_MAP(uint32_t, to, d[l]);
}

/* A sum in f32, or f64, with a sticky last bit and back: the last step of a fused multiply-add. */
static inline float odd_f32(double s) {
  float x = (float)s;
  uint32_t u = ny_f32_bits(x);
  uint32_t step = (double)x != s && !(u & 1) ? ((s > (double)x) == (s > 0) ? 1u : ~0u) : 0;
  return ny_f32_of(u + step);
}
static inline double odd_sum(double a, double b) { /* ny_add_odd without branches or infinities */
  double s = a + b, back = s - a, error = (a - (s - back)) + (b - back);
  uint64_t u = ny_f64_bits(s);
  bool finite = (u << 1) < 0xffe0000000000000u;
  uint64_t step = finite && error != 0 && !(u & 1) ? ((error > 0) == (s > 0) ? 1u : ~(uint64_t)0) : 0;
  return ny_f64_of(u + step);
}
static inline uint32_t fma_f16(uint32_t a, uint32_t b, uint32_t c) {
  return ny_narrow_f16(odd_f32(odd_sum((double)ny_widen_f16(a) * (double)ny_widen_f16(b), (double)ny_widen_f16(c))));
}
static inline uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
  return ny_narrow_bf16(
      odd_f32(odd_sum((double)ny_widen_bf16(a) * (double)ny_widen_bf16(b), (double)ny_widen_bf16(c))));
}
static inline uint32_t add_f16(uint32_t a, uint32_t b) { return ny_narrow_f16(ny_widen_f16(a) + ny_widen_f16(b)); }
static inline uint32_t add_bf16(uint32_t a, uint32_t b) { return ny_narrow_bf16(ny_widen_bf16(a) + ny_widen_bf16(b)); }
static inline uint32_t sub_f16(uint32_t a, uint32_t b) { return ny_narrow_f16(ny_widen_f16(a) - ny_widen_f16(b)); }
static inline uint32_t sub_bf16(uint32_t a, uint32_t b) { return ny_narrow_bf16(ny_widen_bf16(a) - ny_widen_bf16(b)); }
static inline uint32_t mul_f16(uint32_t a, uint32_t b) { return ny_narrow_f16(ny_widen_f16(a) * ny_widen_f16(b)); }
static inline uint32_t mul_bf16(uint32_t a, uint32_t b) { return ny_narrow_bf16(ny_widen_bf16(a) * ny_widen_bf16(b)); }

/* Codes as integers in the order of their values, -0 below +0. */
static inline int32_t ordered(uint32_t code) { return code & 0x8000 ? -(int32_t)(code & 0x7fff) - 1 : (int32_t)code; }
static inline uint32_t extreme(uint32_t a, uint32_t b, uint32_t exponent, uint64_t flags, bool max) {
  bool nan_a = nan16(a, exponent), nan_b = nan16(b, exponent);
  if ((nan_a && nan_b) || (flags & NANS && (nan_a || nan_b))) return 0x7fff;
  uint32_t sign = flags & XORSIGN_ABS ? (a ^ b) & 0x8000 : 0;
  if (flags & XORSIGN_ABS) a &= 0x7fff, b &= 0x7fff;
  uint32_t r = nan_a ? b : nan_b ? a : (ordered(a) < ordered(b)) == max ? b : a;
  return flags & XORSIGN_ABS ? (r & 0x7fff) | sign : r;
}

/* ---- handlers: for each operation one of each of the four types */
#define LOW(x) ((x)&0xffff)
#define PAIR(low, high) ((low) | (high) << 16)
#define BINARY(op, F, type, bf)                                                                                        \
  static void op##_##type##_lanes(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                \
    uint32_t d[NY_LANES], fa[NY_LANES], fb[NY_LANES];                                                                  \
    const uint32_t *a = flushed(NY_U32(1), fa, false, bf, i->data), *b = flushed(NY_U32(2), fb, false, bf, i->data);   \
    NY_EACH_LANE(l) d[l] = F(a[l], b[l]);                                                                              \
    put(w, i, mask, d, false, bf);                                                                                     \
  }                                                                                                                    \
  static void op##_##type##x2_lanes(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                              \
    uint32_t d[NY_LANES], fa[NY_LANES], fb[NY_LANES];                                                                  \
    const uint32_t *a = flushed(NY_U32(1), fa, true, bf, i->data), *b = flushed(NY_U32(2), fb, true, bf, i->data);     \
    NY_EACH_LANE(l) d[l] = PAIR(F(LOW(a[l]), LOW(b[l])), F(a[l] >> 16, b[l] >> 16));                                   \
    put(w, i, mask, d, true, bf);                                                                                      \
  }
#define TERNARY(op, F, type, bf)                                                                                       \
  static void op##_##type##_lanes(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                \
    uint32_t d[NY_LANES], fa[NY_LANES], fb[NY_LANES], fc[NY_LANES];                                                    \
    const uint32_t *a = flushed(NY_U32(1), fa, false, bf, i->data), *b = flushed(NY_U32(2), fb, false, bf, i->data);   \
    const uint32_t *c = flushed(NY_U32(3), fc, false, bf, i->data);                                                    \
    NY_EACH_LANE(l) d[l] = F(a[l], b[l], c[l]);                                                                        \
    put(w, i, mask, d, false, bf);                                                                                     \
  }                                                                                                                    \
  static void op##_##type##x2_lanes(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                              \
    uint32_t d[NY_LANES], fa[NY_LANES], fb[NY_LANES], fc[NY_LANES];                                                    \
    const uint32_t *a = flushed(NY_U32(1), fa, true, bf, i->data), *b = flushed(NY_U32(2), fb, true, bf, i->data);     \
    const uint32_t *c = flushed(NY_U32(3), fc, true, bf, i->data);                                                     \
    NY_EACH_LANE(l)                                                                                                    \
    d[l] = PAIR(F(LOW(a[l]), LOW(b[l]), LOW(c[l])), F(a[l] >> 16, b[l] >> 16, c[l] >> 16));                            \
    put(w, i, mask, d, true, bf);                                                                                      \
  }
#define UNARY(op, F, type, bf)                                                                                         \
  static void op##_##type##_lanes(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                \
    uint32_t d[NY_LANES], fa[NY_LANES];                                                                                \
    const uint32_t *a = flushed(NY_U32(1), fa, false, bf, i->data);                                                    \
    NY_EACH_LANE(l) d[l] = F(a[l]);                                                                                    \
    put(w, i, mask, d, false, bf);                                                                                     \
  }                                                                                                                    \
  static void op##_##type##x2_lanes(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                              \
    uint32_t d[NY_LANES], fa[NY_LANES];                                                                                \
    const uint32_t *a = flushed(NY_U32(1), fa, true, bf, i->data);                                                     \
    NY_EACH_LANE(l) d[l] = PAIR(F(LOW(a[l])), F(a[l] >> 16));                                                          \
    put(w, i, mask, d, true, bf);                                                                                      \
  }
#define FOUR(op)                                                                                                       \
  { op##_f16_lanes, op##_f16x2_lanes, op##_bf16_lanes, op##_bf16x2_lanes }

BINARY(add, add_f16, f16, false)
BINARY(add, add_bf16, bf16, true)
BINARY(sub, sub_f16, f16, false)
BINARY(sub, sub_bf16, bf16, true)
BINARY(mul, mul_f16, f16, false)
BINARY(mul, mul_bf16, bf16, true)
TERNARY(fma, fma_f16, f16, false)
TERNARY(fma, fma_bf16, bf16, true)
#define MIN_F16(a, b) extreme(a, b, 0x7c00, i->data, false)
#define MAX_F16(a, b) extreme(a, b, 0x7c00, i->data, true)
#define MIN_BF16(a, b) extreme(a, b, 0x7f80, i->data, false)
#define MAX_BF16(a, b) extreme(a, b, 0x7f80, i->data, true)
BINARY(min, MIN_F16, f16, false)
BINARY(min, MIN_BF16, bf16, true)
BINARY(max, MAX_F16, f16, false)
BINARY(max, MAX_BF16, bf16, true)
#define NEG(a) ((a) ^ 0x8000)
#define ABS(a) ((a)&0x7fff)
UNARY(neg, NEG, f16, false)
UNARY(neg, NEG, bf16, true)
UNARY(abs, ABS, f16, false)
UNARY(abs, ABS, bf16, true)
/* The approximations of the device are within 2^-9.9 (f16) or half a last place and a little (bf16); these are within
   half a last place of the result. */
#define EX2_F16(a) ny_narrow_f16(exp2f(ny_widen_f16(a)))
#define EX2_BF16(a) ny_narrow_bf16(exp2f(ny_widen_bf16(a)))
#define TANH_F16(a) ny_narrow_f16(tanhf(ny_widen_f16(a)))
#define TANH_BF16(a) ny_narrow_bf16(tanhf(ny_widen_bf16(a)))
UNARY(ex2, EX2_F16, f16, false)
UNARY(ex2, EX2_BF16, bf16, true)
UNARY(tanh, TANH_F16, f16, false)
UNARY(tanh, TANH_BF16, bf16, true)

/* ---- comparisons */
#define COMPARISONS "(eq ne lt le gt ge equ neu ltu leu gtu geu num nan)"
static bool compare(int op, float a, float b) {
  bool unordered = isnan(a) || isnan(b);
  switch (op) {
  case 0: return a == b;
  case 1: return !unordered && a != b;
  case 2: return a < b;
  case 3: return a <= b;
  case 4: return a > b;
  case 5: return a >= b;
  case 6: return unordered || a == b;
  case 7: return unordered || a != b;
  case 8: return unordered || a < b;
  case 9: return unordered || a <= b;
  case 10: return unordered || a > b;
  case 11: return unordered || a >= b;
  case 12: return !unordered;
  default: return unordered;
  }
}
/* Masks of the lanes where the comparison holds, for both halves; the high one only of packed types. */
static void compare_lanes(const ny_ptx_ins *i, const uint32_t *a, const uint32_t *b, uint32_t out[2]) {
  bool bf = i->sub == BF16 || i->sub == BF16X2, packed = i->sub == F16X2 || i->sub == BF16X2;
  uint32_t fa[NY_LANES], fb[NY_LANES];
  a = flushed(a, fa, packed, bf, i->data);
  b = flushed(b, fb, packed, bf, i->data);
  out[0] = out[1] = 0;
  for (int half = 0; half < 1 + packed; half++)
    for (int l = 0; l < NY_LANES; l++) {
      uint32_t x = a[l] >> 16 * half & 0xffff, y = b[l] >> 16 * half & 0xffff;
      bool is =
          compare(i->opt[0] - 1, bf ? ny_widen_bf16(x) : ny_widen_f16(x), bf ? ny_widen_bf16(y) : ny_widen_f16(y));
      out[half] |= is ? ny_lane_bit[l] : 0;
    }
}
static uint32_t combine(const ny_ptx_ins *i, uint32_t is, uint32_t p) {
  return i->opt[1] == 1 ? is & p : i->opt[1] == 2 ? is | p : i->opt[1] == 3 ? is ^ p : is;
}

/* setp.CmpOp{.BoolOp} p|q, a, b {, c}: q is of the high half for packed types, else of the inverse comparison. */
static void setp(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint32_t is[2], p = i->arg[4].kind == NY_ARG_PRED ? ny_pred(w, &i->arg[4]) : 0;
  compare_lanes(i, NY_U32(2), NY_U32(3), is);
  bool packed = i->sub == F16X2 || i->sub == BF16X2;
  if (i->arg[1].kind == NY_ARG_PRED) ny_set_pred(w, &i->arg[1], mask, combine(i, packed ? is[1] : ~is[0], p));
  ny_set_pred(w, &i->arg[0], mask, combine(i, is[0], p));
}

/* set.CmpOp{.BoolOp}.dtype.stype d, a, b {, c}: 1.0 or all ones. A packed integer result has a half for each half. */
static void set(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  static const uint32_t yes_of[] = {0, 0x3c00, 0x3c003c00, 0x3f80, 0x3f803f80, 0x3f800000, 0xffff, 0xffff, ~0u, ~0u};
  uint32_t is[2], p = i->arg[3].kind == NY_ARG_PRED ? ny_pred(w, &i->arg[3]) : 0, yes = yes_of[i->opt[3]];
  compare_lanes(i, NY_U32(1), NY_U32(2), is);
  bool packed = i->sub == F16X2 || i->sub == BF16X2;
  uint32_t low = combine(i, is[0], p), high = combine(i, packed ? is[1] : is[0], p), *d = NY_U32(0);
  NY_MAP(uint32_t, d, (low & ny_lane_bit[l] ? yes & 0xffff : 0) | (high & ny_lane_bit[l] ? yes & 0xffff0000 : 0));
}
/* arg[last] is the predicate that .and and the like combine with. */
static bool fix_combined(ny_ptx_decoder *dc, ny_ptx_ins *i, int last) {
  if ((i->opt[1] != 0) != (i->arg[last].kind == NY_ARG_PRED))
    return ny_ptx_bad(dc, "a combination and its predicate go together");
  return fix_flags(dc, i);
}
static bool fix_setp(ny_ptx_decoder *dc, ny_ptx_ins *i) { return fix_combined(dc, i, 4); }
static bool fix_set(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  bool packed = i->sub == F16X2 || i->sub == BF16X2, wide = i->opt[3] == 2 || i->opt[3] == 4;
  if (wide != packed && (wide || (i->opt[3] != 8 && i->opt[3] != 9)))
    return ny_ptx_bad(dc, "a packed comparison has a packed or 32-bit integer result, and only it");
  return fix_combined(dc, i, 3);
}

/* ---- mixed: an f16 or bf16 operand widened, the rest in f32 */
static const ny_round rounds[] = {NY_ROUND_N, NY_ROUND_N, NY_ROUND_Z, NY_ROUND_M, NY_ROUND_P};
#define ROUNDS "(rn rz rm rp)"
static double wide_half(const ny_ptx_ins *i, uint32_t code) {
  return (double)(i->sub ? ny_widen_bf16(code) : ny_widen_f16(code));
}
static float round_f32(const ny_ptx_ins *i, double a, double b) {
  uint32_t code = ny_narrow_encode(NY_NARROW_f32, ny_add_odd(a, b), rounds[i->opt[0]], false);
  float x = ny_f32_of(code);
  return i->data & SAT ? (x > 0 ? fminf(x, 1) : 0) : x;
}
static void mixed_add(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  const float *c = NY_F32(2);
  float *d = NY_F32(0);
  NY_MAP(float, d, round_f32(i, wide_half(i, a[l]), (double)c[l]));
}
static void mixed_sub(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  const float *c = NY_F32(2);
  float *d = NY_F32(0);
  NY_MAP(float, d, round_f32(i, wide_half(i, a[l]), -(double)c[l]));
}
static void mixed_fma(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1), *b = NY_U32(2);
  const float *c = NY_F32(3);
  float *d = NY_F32(0);
  NY_MAP(float, d, round_f32(i, wide_half(i, a[l]) * wide_half(i, b[l]), (double)c[l]));
}

#define TYPES "[f16 f16x2 bf16 bf16x2]"
#define ALL4(f)                                                                                                        \
  { f, f, f, f }
const ny_ptx_row ny_rows_half[] = {
    {"add.(rn)?.(ftz)?.(sat)?." TYPES, "T t t", NY_CLS_float, fix_flags, FOUR(add)},
    {"sub.(rn)?.(ftz)?.(sat)?." TYPES, "T t t", NY_CLS_float, fix_flags, FOUR(sub)},
    {"mul.(rn)?.(ftz)?.(sat)?." TYPES, "T t t", NY_CLS_float, fix_flags, FOUR(mul)},
    {"fma.rn.(ftz)?.(sat relu)?." TYPES, "T t t t", NY_CLS_float, fix_flags, FOUR(fma)},
    {"min.(ftz)?.(NaN)?.(xorsign)?.(abs)?." TYPES, "T t t", NY_CLS_float, fix_flags, FOUR(min)},
    {"max.(ftz)?.(NaN)?.(xorsign)?.(abs)?." TYPES, "T t t", NY_CLS_float, fix_flags, FOUR(max)},
    {"neg.(ftz)?." TYPES, "T t", NY_CLS_float, fix_flags, FOUR(neg)},
    {"abs.(ftz)?." TYPES, "T t", NY_CLS_float, fix_flags, FOUR(abs)},
    {"ex2.approx.(ftz)?." TYPES, "T t", NY_CLS_special, fix_flags, FOUR(ex2)},
    {"tanh.approx." TYPES, "T t", NY_CLS_special, NULL, FOUR(tanh)},
    {"setp." COMPARISONS ".(and or xor)?.(ftz)?." TYPES, "P |P? t t p?", NY_CLS_float, fix_setp, ALL4(setp)},
    {"set." COMPARISONS ".(and or xor)?.(ftz)?.(f16 f16x2 bf16 bf16x2 f32 u16 s16 u32 s32)." TYPES, "X t t p?",
     NY_CLS_float, fix_set, ALL4(set)},
    {"add." ROUNDS "?.(sat)?.f32.[f16 bf16]", "B t f", NY_CLS_float, fix_flags, {mixed_add, mixed_add}},
    {"sub." ROUNDS "?.(sat)?.f32.[f16 bf16]", "B t f", NY_CLS_float, fix_flags, {mixed_sub, mixed_sub}},
    {"fma." ROUNDS ".(sat)?.f32.[f16 bf16]", "B t t f", NY_CLS_float, fix_flags, {mixed_fma, mixed_fma}},
};
const size_t ny_n_rows_half = NY_COUNT(ny_rows_half);
