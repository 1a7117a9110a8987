/* cvt where one side is a narrow float. Each result is the exact value rounded once. The forms that fill kernels (f32
   to and from f16 and bf16, to nearest even) are loops that vectorise; the others go over narrow.c element by element.
 */
#include "narrow.h"
#include "ptx.h"
#include <math.h>

enum { RELU = 1, SATFINITE = 2, SAT = 4, FTZ = 8 };
typedef struct conversion {
  ny_ptx_type to, from;
  ny_round round; /* of a float result */
  char integer;   /* n z m p: to an integral value; 0: not */
  uint8_t flags;
} conversion;

static const ny_narrow narrow_of[NY_N_T] = {
    [NY_T_f16] = NY_NARROW_f16,     [NY_T_bf16] = NY_NARROW_bf16,   [NY_T_f16x2] = NY_NARROW_f16,
    [NY_T_bf16x2] = NY_NARROW_bf16, [NY_T_e4m3x2] = NY_NARROW_e4m3, [NY_T_e5m2x2] = NY_NARROW_e5m2,
    [NY_T_e2m1x2] = NY_NARROW_e2m1, [NY_T_e2m3x2] = NY_NARROW_e2m3, [NY_T_e3m2x2] = NY_NARROW_e3m2,
    [NY_T_tf32] = NY_NARROW_tf32,   [NY_T_f32] = NY_NARROW_f32,
};

/* Words of the row: a rounding, modifiers in any order, then two types, the result's first. */
static bool fix_cvt(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  conversion *c = ny_ptx_alloc(dc, sizeof *c);
  for (int g = 0; g < NY_MAX_OPT; g++) {
    const char *word = ny_ptx_word(dc, g);
    if (!word || !*word) continue;
    ny_ptx_type t = ny_ptx_type_by_name(word, strlen(word));
    if (t) *(c->to ? &c->from : &c->to) = t;
    if (!strcmp(word, "rna")) c->round = NY_ROUND_NA;
    if (word[0] == 'r' && !word[2]) c->round = (ny_round)(strchr("nzmp", word[1]) - "nzmp");
    if (word[0] == 'r' && word[1] && word[2] == 'i') c->integer = word[1];
    if (!strcmp(word, "relu")) c->flags |= RELU;
    if (!strcmp(word, "satfinite")) c->flags |= SATFINITE;
    if (!strcmp(word, "sat")) c->flags |= SAT;
    if (!strcmp(word, "ftz")) c->flags |= FTZ;
  }
  i->data = (uint64_t)(uintptr_t)c;
  return true;
}
static const conversion *conversion_of(const ny_ptx_ins *i) { return (const conversion *)(uintptr_t)i->data; }

/* ---- f32 to f16 and bf16 */
static uint32_t encode(const conversion *c, double x) {
  ny_narrow f = narrow_of[c->to];
  uint32_t code = ny_narrow_encode(f, x, c->round, c->flags & SATFINITE);
  return c->flags & RELU ? ny_narrow_relu(f, code) : code;
}
static bool plain(const conversion *c) { return c->round == NY_ROUND_N && !c->flags; }

static void half_from_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const float *a = NY_F32(1);
  uint32_t *d = NY_U32(0);
  const conversion *c = conversion_of(i);
  if (!plain(c))
    NY_MAP(uint32_t, d, encode(c, (double)a[l]));
  else if (c->to == NY_T_bf16)
    NY_MAP(uint32_t, d, ny_narrow_bf16(a[l]));
  else
    NY_MAP(uint32_t, d, ny_narrow_f16(a[l]));
}
static void pair_from_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) { /* the first operand in the high half */
  const float *a = NY_F32(1), *b = NY_F32(2);
  uint32_t *d = NY_U32(0);
  const conversion *c = conversion_of(i);
  if (!plain(c))
    NY_MAP(uint32_t, d, encode(c, (double)b[l]) | encode(c, (double)a[l]) << 16);
  else if (c->to == NY_T_bf16x2)
    NY_MAP(uint32_t, d, ny_narrow_bf16(b[l]) | ny_narrow_bf16(a[l]) << 16);
  else
    NY_MAP(uint32_t, d, ny_narrow_f16(b[l]) | ny_narrow_f16(a[l]) << 16);
}
static void f32_from_f16(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  float *d = NY_F32(0);
  NY_MAP(float, d, ny_widen_f16(a[l] & 0xffff));
}
static void f32_from_bf16(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  float *d = NY_F32(0);
  NY_MAP(float, d, ny_widen_bf16(a[l]));
}
static void tf32_from_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const float *a = NY_F32(1);
  uint32_t *d = NY_U32(0);
  const conversion *c = conversion_of(i);
  NY_MAP(uint32_t, d, isnan(a[l]) ? 0x7fffffff : encode(c, (double)a[l]) << 13);
}

/* ---- pairs of 8 bits and less */
static int bits_of(const conversion *c) { return c->to == NY_T_e2m1x2 ? 4 : 8; }
static void small_from_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const float *a = NY_F32(1), *b = NY_F32(2);
  uint32_t *d = NY_U32(0);
  const conversion *c = conversion_of(i);
  NY_MAP(uint32_t, d, encode(c, (double)b[l]) | encode(c, (double)a[l]) << bits_of(c));
}
static double widen(ny_ptx_type t, uint32_t code) {
  return (double)(t == NY_T_f16x2 ? ny_widen_f16(code) : ny_widen_bf16(code));
}
static void small_from_pair(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  uint32_t *d = NY_U32(0);
  const conversion *c = conversion_of(i);
  NY_MAP(uint32_t, d, encode(c, widen(c->from, a[l] & 0xffff)) | encode(c, widen(c->from, a[l] >> 16)) << bits_of(c));
}
/* Every 8-bit value but a NaN is an f16 value, so the narrowing only moves bits. */
#define SMALL_TO_F16(from, WIDEN, bits)                                                                                \
  static void f16x2_from_##from(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                  \
    const uint32_t *a = NY_U32(1);                                                                                     \
    uint32_t *d = NY_U32(0), v[NY_LANES];                                                                              \
    NY_EACH_LANE(l)                                                                                                    \
    v[l] = ny_narrow_f16(WIDEN(a[l] & ((1u << (bits)) - 1))) |                                                         \
           ny_narrow_f16(WIDEN(a[l] >> (bits) & ((1u << (bits)) - 1))) << 16;                                          \
    if (conversion_of(i)->flags & RELU) NY_EACH_LANE(l)                                                                \
    v[l] = ny_narrow_relu(NY_NARROW_f16, v[l] & 0xffff) | ny_narrow_relu(NY_NARROW_f16, v[l] >> 16) << 16;             \
    NY_MAP(uint32_t, d, v[l]);                                                                                         \
  }
SMALL_TO_F16(e4m3, ny_widen_e4m3, 8)
SMALL_TO_F16(e5m2, ny_widen_e5m2, 8)
SMALL_TO_F16(e2m3, ny_widen_e2m3, 8)
SMALL_TO_F16(e3m2, ny_widen_e3m2, 8)
SMALL_TO_F16(e2m1, ny_widen_e2m1, 4)

static void ue8m0_from_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const float *a = NY_F32(1), *b = NY_F32(2);
  uint32_t *d = NY_U32(0);
  const conversion *c = conversion_of(i);
  bool sat = c->flags & SATFINITE;
  NY_MAP(uint32_t, d, ny_ue8m0_encode((double)b[l], c->round, sat) | ny_ue8m0_encode((double)a[l], c->round, sat) << 8);
}
static void ue8m0_from_bf16x2(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  uint32_t *d = NY_U32(0);
  const conversion *c = conversion_of(i);
  bool sat = c->flags & SATFINITE;
  NY_MAP(uint32_t, d,
         ny_ue8m0_encode((double)ny_widen_bf16(a[l] & 0xffff), c->round, sat) |
             ny_ue8m0_encode((double)ny_widen_bf16(a[l] >> 16), c->round, sat) << 8);
}
static void bf16x2_from_ue8m0(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  uint32_t *d = NY_U32(0);
  NY_MAP(uint32_t, d,
         ny_narrow_bf16((float)ny_ue8m0_decode(a[l] & 0xff)) | ny_narrow_bf16((float)ny_ue8m0_decode(a[l] >> 8 & 0xff))
                                                                   << 16);
}

/* ---- f16 or bf16 on one side, any scalar on the other */
static uint64_t lane_of(const ny_sim_warp *w, const ny_ptx_ins *i, int k, uint32_t l) {
  return i->arg[k].width == 8 ? NY_U64(k)[l] : NY_U32(k)[l];
}
static double to_odd(uint64_t x) { /* a double with a sticky last bit */
  int extra = x >> 53 ? 64 - __builtin_clzll(x) - 53 : 0;
  uint64_t kept = x >> extra;
  if (kept << extra != x) kept |= 1;
  return ldexp((double)kept, extra);
}
/* The value of a lane, exact or with a sticky last bit. */
static double value(ny_ptx_type t, uint64_t u) {
  const ny_ptx_type_info *info = &ny_ptx_types[t];
  switch (t) {
  case NY_T_f16: return (double)ny_widen_f16(u & 0xffff);
  case NY_T_bf16: return (double)ny_widen_bf16(u & 0xffff);
  case NY_T_f32: return (double)ny_f32_of((uint32_t)u);
  case NY_T_f64: return ny_f64_of(u);
  default: break;
  }
  int unused = 64 - info->bits;
  if (info->kind != 's') return to_odd(u << unused >> unused);
  int64_t x = (int64_t)(u << unused) >> unused;
  return x < 0 ? -to_odd(0 - (uint64_t)x) : to_odd((uint64_t)x);
}
static double integral(char how, double x) {
  return how == 'n' ? nearbyint(x) : how == 'z' ? trunc(x) : how == 'm' ? floor(x) : how == 'p' ? ceil(x) : x;
}
static uint64_t to_integer(ny_ptx_type t, double x) { /* clamps; NaN is 0, of 64 bits only the top one */
  int bits = ny_ptx_types[t].bits;
  bool is_signed = ny_ptx_types[t].kind == 's';
  double top = ldexp(1, bits - is_signed), bottom = is_signed ? -top : 0;
  uint64_t max = is_signed ? ((uint64_t)1 << (bits - 1)) - 1 : ~(uint64_t)0 >> (64 - bits);
  if (isnan(x)) return bits == 64 ? (uint64_t)1 << 63 : 0;
  if (x >= top) return max;
  if (x < bottom) return is_signed ? max + 1 : 0;
  return (is_signed ? (uint64_t)(int64_t)x : (uint64_t)x) & (~(uint64_t)0 >> (64 - bits));
}
static bool subnormal(ny_ptx_type t, double x) { return t == NY_T_f32 && fabs(x) < 0x1p-126; } /* .ftz is of f32 alone */
static uint64_t convert(const conversion *c, uint64_t u) {
  double x = value(c->from, u);
  if (c->flags & FTZ && subnormal(c->from, x)) x = copysign(0, x);
  x = integral(c->integer, x);
  if (c->flags & SAT) x = x > 0 ? fmin(x, 1) : 0; /* NaN is 0 */
  if (ny_ptx_types[c->to].kind == 's' || ny_ptx_types[c->to].kind == 'u') return to_integer(c->to, x);
  if (c->from == NY_T_bf16 && c->to == NY_T_f32 && isnan(x)) return (u & 0xffff) << 16; /* bits are moved */
  if (c->to == NY_T_f64) return isnan(x) ? 0x7ff8000000000000 : ny_f64_bits(x);
  uint32_t code = encode(c, x);
  if (c->flags & FTZ && subnormal(c->to, ny_narrow_decode(narrow_of[c->to], code))) code &= 0x80000000;
  return code;
}
static void scalar(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const conversion *c = conversion_of(i);
  NY_EACH_ACTIVE(l) {
    uint64_t x = convert(c, lane_of(w, i, 1, l));
    if (i->arg[0].width == 8)
      NY_U64(0)[l] = x;
    else
      NY_U32(0)[l] = (uint32_t)x;
  }
}

/* An integer result of a 32-bit lane may be narrower than the register it lands in: it is extended by its sign. */
static bool fix_scalar(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  if (!fix_cvt(dc, i)) return false;
  const conversion *c = conversion_of(i);
  char kind = ny_ptx_types[c->to].kind, from = ny_ptx_types[c->from].kind;
  bool to_int = kind == 's' || kind == 'u', from_int = from == 's' || from == 'u';
  if (to_int && !c->integer) return ny_ptx_bad(dc, "a conversion to an integer says how it rounds: .rni and the like");
  if (from_int && c->integer) return ny_ptx_bad(dc, "an integer is not rounded to an integer");
  return true;
}

#define SCALARS "(u8 s8 u16 s16 u32 s32 u64 s64 f16 bf16 f32 f64)"
#define CVT(pattern, operands, fn)                                                                                     \
  {                                                                                                                    \
    pattern, operands, NY_CLS_convert, fix_cvt, { fn }                                                                 \
  }
const ny_ptx_row ny_rows_narrow[] = {
    CVT("cvt.(rn rz).(relu)?.(satfinite)?.(f16 bf16).(f32)", "X f", half_from_f32),
    CVT("cvt.(rn rz).(relu)?.(satfinite)?.(f16x2 bf16x2).(f32)", "B f f", pair_from_f32),
    CVT("cvt.(f32).(f16)", "B h", f32_from_f16),
    CVT("cvt.(f32).(bf16)", "B h", f32_from_bf16),
    CVT("cvt.(rn rz rna).(relu)?.(satfinite)?.(relu)?.(tf32).(f32)", "B f", tf32_from_f32),
    CVT("cvt.(rn).(relu)?.(satfinite).(relu)?.(e4m3x2 e5m2x2 e2m3x2 e3m2x2 e2m1x2).(f32)", "X f f", small_from_f32),
    CVT("cvt.(rn).(relu)?.(satfinite).(relu)?.(e4m3x2 e5m2x2 e2m3x2 e3m2x2 e2m1x2).(f16x2 bf16x2)", "X b",
        small_from_pair),
    CVT("cvt.(rn).(relu)?.(f16x2).(e4m3x2)", "B x", f16x2_from_e4m3),
    CVT("cvt.(rn).(relu)?.(f16x2).(e5m2x2)", "B x", f16x2_from_e5m2),
    CVT("cvt.(rn).(relu)?.(f16x2).(e2m3x2)", "B x", f16x2_from_e2m3),
    CVT("cvt.(rn).(relu)?.(f16x2).(e3m2x2)", "B x", f16x2_from_e3m2),
    CVT("cvt.(rn).(relu)?.(f16x2).(e2m1x2)", "B x", f16x2_from_e2m1),
    CVT("cvt.(rz rp).(satfinite)?.(ue8m0x2).(f32)", "X f f", ue8m0_from_f32),
    CVT("cvt.(rz rp).(satfinite)?.(ue8m0x2).(bf16x2)", "X b", ue8m0_from_bf16x2),
    CVT("cvt.(rn).(bf16x2).(ue8m0x2)", "B x", bf16x2_from_ue8m0),
    {"cvt.(rni rzi rmi rpi rn rz rm rp)?.(ftz)?.(sat)?.(f16 bf16)." SCALARS,
     "X x",
     NY_CLS_convert,
     fix_scalar,
     {scalar}},
    {"cvt.(rni rzi rmi rpi rn rz rm rp)?.(ftz)?.(sat)?." SCALARS ".(f16 bf16)",
     "X x",
     NY_CLS_convert,
     fix_scalar,
     {scalar}},
};
const size_t ny_n_rows_narrow = NY_COUNT(ny_rows_narrow);
