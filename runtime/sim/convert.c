/* cvt between integers, f32 and f64. The common pairs are loops of their own; all others, and every modifier, go
   through one general path that reads a lane as integer or double and writes it as the destination wants it. */
#include "lanes.h"

#define TYPES "u8 u16 u32 u64 s8 s16 s32 s64 f32 f64"
enum { U8, U16, U32, U64, S8, S16, S32, S64, F32, F64 };
static const uint8_t bits_of[] = {8, 16, 32, 64, 8, 16, 32, 64, 32, 64};
static bool is_float(int t) { return t >= F32; }
static bool is_signed(int t) { return t >= S8 && t <= S64; }
enum {
  RN = 1,
  RZ,
  RM,
  RP,
  RNI,
  RZI,
  RMI,
  RPI
}; /* opt[0]; opt[1] ftz, opt[2] sat, opt[3] source type + 1; sub: destination */

static uint64_t read_bits(const ny_sim_warp *w, const ny_ptx_arg *a, uint32_t l) {
  return a->width == 8 ? ((const uint64_t *)ny_lanes(w, a))[l] : ((const uint32_t *)ny_lanes(w, a))[l];
}
static uint64_t extend(uint64_t v, int t) {
  uint32_t up = 64u - bits_of[t];
  return is_signed(t) ? (uint64_t)((int64_t)(v << up) >> up) : v << up >> up;
}
static double read_float(uint64_t v, int t, bool ftz) {
  double d;
  float f;
  if (t == F64) {
    memcpy(&d, &v, sizeof d);
    return d;
  }
  uint32_t u = (uint32_t)v;
  memcpy(&f, &u, sizeof f);
  if (ftz && fabsf(f) < 0x1p-126f) f = copysignf(0, f);
  return (double)f;
}
/* A destination register may be wider than the type: it is then extended. */
static void write_int(const ny_sim_warp *w, const ny_ptx_arg *a, uint32_t l, uint64_t v, int t) {
  v = extend(v, t);
  if (a->width == 8)
    ((uint64_t *)ny_lanes(w, a))[l] = v;
  else
    ((uint32_t *)ny_lanes(w, a))[l] = (uint32_t)(a->flags & NY_ARG_HALF ? v & 0xffff : v);
}

static double round_whole(double v, int how) {
  switch (how) {
  case RNI:
  case RN: return rint(v);
  case RZI:
  case RZ: return trunc(v);
  case RMI:
  case RM: return floor(v);
  case RPI:
  case RP: return ceil(v);
  default: return v;
  }
}

/* Always saturates, as the machine does; a NaN is 0, for 64 bits the value of the highest bit. */
static uint64_t float_to_int(double v, int t, bool from_f64) {
  uint32_t bits = bits_of[t];
  if (v != v) return bits < 64 && !(bits == 32 && from_f64) ? 0 : 1ull << (bits - 1);
  double top = ldexp(1.0, (int)(is_signed(t) ? bits - 1 : bits));
  if (v >= top) return is_signed(t) ? (1ull << (bits - 1)) - 1 : bits == 64 ? UINT64_MAX : (1ull << bits) - 1;
  if (is_signed(t)) return v <= -top ? 0 - (1ull << (bits - 1)) : (uint64_t)(int64_t)v;
  return v <= 0 ? 0 : (uint64_t)v;
}

static uint64_t clamp_int(uint64_t v, int from, int to) {
  uint32_t bits = bits_of[to];
  bool negative = is_signed(from) && (int64_t)v < 0;
  if (!is_signed(to)) {
    uint64_t top = bits == 64 ? UINT64_MAX : (1ull << bits) - 1;
    return negative ? 0 : v > top ? top : v;
  }
  uint64_t top = (1ull << (bits - 1)) - 1;
  if (negative) return (int64_t)v < -(int64_t)top - 1 ? 0 - top - 1 : v;
  return v > top ? top : v;
}

/* Nearest first, then a step to the neighbour where the rounding asks for it. long double holds 64-bit integers. */
static float to_f32(long double exact, int how) {
  float f = (float)exact; /* nearest even */
  long double back = (long double)f;
  if (back == exact || f != f || how <= RN || how == RNI) return f;
  bool up = how == RP || (how == RZ && exact < 0), down = how == RM || (how == RZ && exact > 0);
  if (up && back < exact) return nextafterf(f, INFINITY);
  if (down && back > exact) return nextafterf(f, -INFINITY);
  return f;
}
static double to_f64(long double exact, int how) {
  double f = (double)exact;
  long double back = (long double)f;
  if (back == exact || f != f || how <= RN) return f;
  bool up = how == RP || (how == RZ && exact < 0), down = how == RM || (how == RZ && exact > 0);
  if (up && back < exact) return nextafter(f, (double)INFINITY);
  if (down && back > exact) return nextafter(f, -(double)INFINITY);
  return f;
}
static void write_float(const ny_sim_warp *w, const ny_ptx_ins *i, uint32_t l, long double v) {
  if (i->sub == F64) {
    double d = to_f64(v, i->opt[0]);
    if (i->opt[2]) d = d > 0 ? (d < 1 ? d : 1) : 0;
    NY_F64(0)[l] = d;
    return;
  }
  float f = to_f32(v, i->opt[0]);
  if (i->opt[2]) f = f > 0 ? (f < 1 ? f : 1) : 0;
  if (i->opt[1] && fabsf(f) < 0x1p-126f) f = copysignf(0, f);
  static const uint32_t nan = 0x7fffffff;
  if (f != f)
    NY_U32(0)[l] = nan;
  else
    NY_F32(0)[l] = f;
}

static void cvt(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  int from = i->opt[3] - 1, to = i->sub;
  NY_EACH_ACTIVE(l) {
    uint64_t v = read_bits(w, &i->arg[1], l);
    if (is_float(from)) {
      double x = read_float(v, from, i->opt[1]);
      if (!is_float(to)) {
        write_int(w, &i->arg[0], l, float_to_int(round_whole(x, i->opt[0]), to, from == F64), to);
      } else {
        write_float(w, i, l, i->opt[0] >= RNI || from == to ? (long double)round_whole(x, i->opt[0]) : (long double)x);
      }
    } else {
      v = extend(v, from);
      if (is_float(to))
        write_float(w, i, l, is_signed(from) ? (long double)(int64_t)v : (long double)v);
      else
        write_int(w, &i->arg[0], l, i->opt[2] ? clamp_int(v, from, to) : v, to);
    }
  }
}

/* ---- common pairs without modifiers that matter */
#define DIRECT(name, TS, LS, TD, LD)                                                                                   \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const LS *a = NY_LANES_OF(LS, 1);                                                                                  \
    NY_MAP(LD, NY_LANES_OF(LD, 0), NY_NARROW(TD, LD, (TD)(TS)a[l]));                                                   \
  }
DIRECT(u32_u64, uint32_t, uint32_t, uint64_t, uint64_t)
DIRECT(s32_s64, int32_t, uint32_t, int64_t, uint64_t)
DIRECT(low_u32, uint64_t, uint64_t, uint32_t, uint32_t)
DIRECT(u16_u32, uint16_t, uint32_t, uint32_t, uint32_t)
DIRECT(s16_s32, int16_t, uint32_t, int32_t, uint32_t)
DIRECT(low_u16, uint32_t, uint32_t, uint16_t, uint32_t)
#define SIMPLE(name, TS, TD, e)                                                                                        \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const TS *a = NY_LANES_OF(TS, 1);                                                                                  \
    NY_MAP(TD, NY_LANES_OF(TD, 0), e);                                                                                 \
  }
SIMPLE(s32_f32, int32_t, float, a[l])
SIMPLE(f32_f64, float, double, a[l])
static inline int32_t whole(float v) {
  return v != v ? 0 : v >= 0x1p31f ? INT32_MAX : v < -0x1p31f ? INT32_MIN : (int32_t)v;
}
SIMPLE(f32_s32, float, int32_t, whole(a[l]))

static const struct ny_pair {
  uint8_t to, from, round;
  ny_ptx_exec *exec;
} quick[] = {{U64, U32, 0, u32_u64},  {S64, U32, 0, u32_u64}, {S64, S32, 0, s32_s64},  {U64, S32, 0, s32_s64},
             {U32, U64, 0, low_u32},  {S32, S64, 0, low_u32}, {U32, S64, 0, low_u32},  {S32, U64, 0, low_u32},
             {U32, U16, 0, u16_u32},  {S32, U16, 0, u16_u32}, {S32, S16, 0, s16_s32},  {U32, S16, 0, s16_s32},
             {U16, U32, 0, low_u16},  {U16, S32, 0, low_u16}, {F32, S32, RN, s32_f32}, {F64, F32, 0, f32_f64},
             {S32, F32, RZI, f32_s32}};

/* cvt.pack: two integers saturated; bytes go below what c had. sub: unsigned, signed */
static inline uint32_t pack_one(int32_t v, int bits, bool sign) {
  int32_t low = sign ? -(1 << (bits - 1)) : 0, high = sign ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
  return (uint32_t)(v < low ? low : v > high ? high : v) & ((1u << bits) - 1);
}
static void pack_16(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const int32_t *a = NY_S32(1), *b = NY_S32(2);
  NY_MAP(uint32_t, NY_U32(0), pack_one(a[l], 16, i->sub) << 16 | pack_one(b[l], 16, i->sub));
}
static void pack_8(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const int32_t *a = NY_S32(1), *b = NY_S32(2);
  const uint32_t *c = NY_U32(3);
  NY_MAP(uint32_t, NY_U32(0), c[l] << 16 | pack_one(a[l], 8, i->sub) << 8 | pack_one(b[l], 8, i->sub));
}

static bool fix_cvt(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  int to = i->sub, from = i->opt[3] - 1, round = i->opt[0];
  uint32_t width = bits_of[to] == 64 ? 8 : 4, source = bits_of[from] == 64 ? 8 : 4;
  if (is_float(to) && i->arg[0].width != width) return ny_ptx_bad(dc, "the destination has not %u bits", bits_of[to]);
  if (i->arg[0].width < width || i->arg[1].width < source) return ny_ptx_bad(dc, "a register is too narrow");
  if (is_float(from) && i->arg[1].width != source) return ny_ptx_bad(dc, "the source has not %u bits", bits_of[from]);
  if (is_float(from) && !is_float(to) && round < RNI)
    return ny_ptx_bad(dc, "float to integer needs .rni, .rzi, .rmi or .rpi");
  if (!is_float(from) && is_float(to) && (!round || round >= RNI))
    return ny_ptx_bad(dc, "integer to float needs .rn, .rz, .rm or .rp");
  for (size_t k = 0; k < NY_COUNT(quick); k++)
    if (quick[k].to == to && quick[k].from == from && quick[k].round == round && !i->opt[1] && !i->opt[2] &&
        i->arg[0].width == width && i->arg[1].width == source && !(i->arg[0].flags & NY_ARG_HALF && to != U16))
      i->exec = quick[k].exec;
  return true;
}

#define TEN cvt, cvt, cvt, cvt, cvt, cvt, cvt, cvt, cvt, cvt
const ny_ptx_row ny_rows_convert[] = {
    {"cvt.(rn rz rm rp rni rzi rmi rpi)?.(ftz)?.(sat)?.[" TYPES "].(" TYPES ")", "X x", NY_CLS_convert, fix_cvt, {TEN}},
    {"cvt.pack.sat.[u16 s16].s32", "B b b", NY_CLS_convert, NULL, {pack_16, pack_16}},
    {"cvt.pack.sat.[u8 s8].s32.b32", "B b b b", NY_CLS_convert, NULL, {pack_8, pack_8}},
};
const size_t ny_n_rows_convert = NY_COUNT(ny_rows_convert);
