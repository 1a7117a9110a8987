/* Number formats in IR. A tile value keeps its storage bits in registers, so that what only moves or selects elements
   never touches them; arithmetic decodes to float (double for f64), computes, and encodes with one rounding to nearest
   even. Encoding agrees with ny_put_f bit for bit; `saturate` concerns formats of 8 bits and less, wider ones overflow
   to infinity. Everything is integer arithmetic on f32 bits: no half-precision library calls, no dependence on
   flush-to-zero. */
#include "llvm.h"

#include <assert.h>

typedef enum specials { IEEE, TOP_NAN, MINUS_NAN, NO_SIGN, NONE } specials;
typedef struct layout { /* of the formats below 16 bits, and f16 */
  uint8_t exp, man, bits;
  int16_t bias;
  uint8_t special; /* see `specials`: what the top codes mean */
  uint16_t max, nan;
} layout;
static const layout layouts[NY_N_FMT] = {
    [NY_f16] = {5, 10, 16, 15, IEEE, 0x7bff, 0x7e00},  [NY_bf16] = {8, 7, 16, 127, IEEE, 0x7f7f, 0x7fc0},
    [NY_f8e4m3] = {4, 3, 8, 7, TOP_NAN, 0x7e, 0x7f},   [NY_f8e4m3fnuz] = {4, 3, 8, 8, MINUS_NAN, 0x7f, 0x80},
    [NY_f8e5m2] = {5, 2, 8, 15, IEEE, 0x7b, 0x7e},     [NY_f8e5m2fnuz] = {5, 2, 8, 16, MINUS_NAN, 0x7f, 0x80},
    [NY_f8e8m0] = {8, 0, 8, 127, NO_SIGN, 0xfe, 0xff}, [NY_f4e2m1] = {2, 1, 4, 1, NONE, 7, 0},
};

static typ int_of_bits(const ny_lx *x, int bits) {
  return bits == 64 ? x->i64 : bits == 32 ? x->i32 : bits == 16 ? x->i16 : x->i8;
}

typ ny_mem_type(const ny_lx *x, ny_fmt f) {
  if (f == NY_f64) return x->f64;
  if (f == NY_f32) return x->f32;
  return int_of_bits(x, ny_fmts[f].bits);
}

typ ny_reg_type(const ny_lx *x, ny_fmt f) { return f == NY_bool ? x->i1 : ny_mem_type(x, f); }

typ ny_num_type(const ny_lx *x, ny_fmt f) {
  if (!ny_is_float(f)) return ny_reg_type(x, f);
  return f == NY_f64 ? x->f64 : x->f32;
}

static val shl(ny_lx *x, val a, int n) { return n ? NY_B(Shl, x, a, ny_ci(LLVMTypeOf(a), n)) : a; }
static val shr(ny_lx *x, val a, int n) { return n ? NY_B(LShr, x, a, ny_ci(LLVMTypeOf(a), n)) : a; }
static val and_c(ny_lx *x, val a, int64_t m) { return NY_B(And, x, a, ny_ci(LLVMTypeOf(a), m)); }

/* ---- decoding */
static val decode_narrow(ny_lx *x, const layout *l, val reg) {
  typ it = ny_like(reg, x->i32), ft = ny_like(reg, x->f32);
  val u = LLVMBuildZExt(x->b, reg, it, "");
  if (l->special == NO_SIGN) { /* 2^(u-127): the exponent field; code 0 is 2^-127, a subnormal; 255 is NaN */
    val low = ny_ic(x, LLVMIntEQ, u, ny_ci(it, 0)), top = ny_ic(x, LLVMIntEQ, u, ny_ci(it, 255));
    val b = ny_sel(x, low, ny_ci(it, 0x400000), ny_sel(x, top, ny_ci(it, 0x7fc00000), shl(x, u, 23)));
    return ny_bits(x, b, ft);
  }
  int top = l->bits - 1;
  val mag = and_c(x, u, (1 << top) - 1), sign = shl(x, and_c(x, u, 1 << top), 31 - top);
  val normal = NY_B(Add, x, shl(x, mag, 23 - l->man), ny_ci(it, (int64_t)(127 - l->bias) << 23));
  /* subnormal codes: man * 2^(1-bias-man), exact in f32 */
  double quantum = 1;
  for (int i = 0; i < l->bias - 1 + l->man; i++) quantum /= 2;
  val small = NY_B(FMul, x, LLVMBuildSIToFP(x->b, mag, ft, ""), ny_cf(ft, quantum));
  val b = ny_sel(x, ny_ic(x, LLVMIntULT, mag, ny_ci(it, 1 << l->man)), ny_bits(x, small, it), normal);
  if (l->special == IEEE) {
    val inf = ny_ic(x, LLVMIntEQ, mag, ny_ci(it, l->max + 1));
    val nan = ny_ic(x, LLVMIntUGT, mag, ny_ci(it, l->max + 1));
    b = ny_sel(x, nan, ny_ci(it, 0x7fc00000), ny_sel(x, inf, ny_ci(it, 0x7f800000), b));
  } else if (l->special == TOP_NAN) {
    b = ny_sel(x, ny_ic(x, LLVMIntEQ, mag, ny_ci(it, l->nan)), ny_ci(it, 0x7fc00000), b);
  }
  b = NY_B(Or, x, b, sign);
  if (l->special == MINUS_NAN) b = ny_sel(x, ny_ic(x, LLVMIntEQ, u, ny_ci(it, l->nan)), ny_ci(it, 0x7fc00000), b);
  return ny_bits(x, b, ft);
}

/* Its bits are those of an f16 of 2^-8 times the value, subnormal numbers included; only NaN, whose sign is
   kept, is a number there. */
static val decode_e4m3(ny_lx *x, val reg) {
  typ it = ny_like(reg, x->i16), wt = ny_like(reg, x->i32), ft = ny_like(reg, x->f32), bt = LLVMTypeOf(reg);
  val h = and_c(x, shl(x, LLVMBuildSExt(x->b, reg, it, ""), 7), 0xbfff);
  val v = LLVMBuildFPExt(x->b, ny_bits(x, h, ny_like(reg, x->f16)), ft, "");
  val nan = ny_ic(x, LLVMIntEQ, shl(x, reg, 1), ny_ci(bt, 0xfe));
  v = NY_B(FMul, x, v, ny_cf(ft, 256));
  val signed_nan = NY_B(Or, x, ny_bits(x, v, wt), ny_ci(wt, 0x7fc00000));
  return ny_sel(x, nan, ny_bits(x, signed_nan, ft), v);
}

val ny_decode(ny_lx *x, ny_fmt f, val reg) {
  switch (f) {
  case NY_f8e4m3: return x->target->no_fma ? decode_narrow(x, &layouts[f], reg) : decode_e4m3(x, reg);
  case NY_f16:
    if (x->target->no_fma) return decode_narrow(x, &layouts[f], reg);
    return LLVMBuildFPExt(x->b, ny_bits(x, reg, ny_like(reg, x->f16)), ny_like(reg, x->f32), "");
  case NY_bf16: return ny_bits(x, shl(x, LLVMBuildZExt(x->b, reg, ny_like(reg, x->i32), ""), 16), ny_like(reg, x->f32));
  default: return layouts[f].bits ? decode_narrow(x, &layouts[f], reg) : reg;
  }
}

/* ---- encoding */
/* A double to float such that a later rounding to fewer bits is as if done at once: truncate, and set the last bit when
 * anything was lost. */
static val round_to_odd(ny_lx *x, val d) {
  typ ft = ny_like(d, x->f32), it = ny_like(d, x->i32), dt = LLVMTypeOf(d);
  val t = LLVMBuildFPTrunc(x->b, d, ft, ""), back = LLVMBuildFPExt(x->b, t, dt, ""), b = ny_bits(x, t, it);
  val over = ny_fc(x, LLVMRealOGT, ny_fabs(x, back), ny_fabs(x, d)), lost = ny_fc(x, LLVMRealONE, back, d);
  b = NY_B(Sub, x, b, LLVMBuildZExt(x->b, over, it, ""));
  return ny_bits(x, NY_B(Or, x, b, LLVMBuildZExt(x->b, lost, it, "")), ft);
}

static val encode_bf16(ny_lx *x, val f) {
  typ it = ny_like(f, x->i32);
  val u = ny_bits(x, f, it), a = and_c(x, u, 0x7fffffff), sign = and_c(x, shr(x, u, 16), 0x8000);
  val r = shr(x, NY_B(Add, x, NY_B(Add, x, u, ny_ci(it, 0x7fff)), and_c(x, shr(x, u, 16), 1)), 16);
  r = ny_sel(x, ny_ic(x, LLVMIntUGT, a, ny_ci(it, 0x7f800000)), NY_B(Or, x, sign, ny_ci(it, 0x7fc0)), r);
  return LLVMBuildTrunc(x->b, r, ny_like(f, x->i16), "");
}

static val encode_f16(ny_lx *x, val f) {
  typ it = ny_like(f, x->i16);
  val h = ny_bits(x, LLVMBuildFPTrunc(x->b, f, ny_like(f, x->f16), ""), it);
  val a = and_c(x, h, 0x7fff), sign = and_c(x, h, 0x8000);
  return ny_sel(x, ny_ic(x, LLVMIntUGT, a, ny_ci(it, 0x7c00)), NY_B(Or, x, sign, ny_ci(it, 0x7e00)), h);
}

static val encode_e8m0(ny_lx *x, const layout *l, val f, bool saturate) {
  typ it = ny_like(f, x->i32);
  val u = ny_bits(x, f, it), a = and_c(x, u, 0x7fffffff);
  /* the exponent, plus one when the mantissa is at least a half (the significand of every code is 1, odd: ties go up);
     below 2^-126 floats are subnormal: 2^-127 up to 1.5 times it */
  val e = shr(x, a, 23), m = and_c(x, a, 0x7fffff);
  val up = ny_ic(x, LLVMIntUGE, m, ny_ci(it, 0x400000));
  val code = NY_B(Add, x, e, LLVMBuildZExt(x->b, up, it, ""));
  val tiny = ny_ic(x, LLVMIntUGE, a, ny_ci(it, 0x600000));
  code = ny_sel(x, ny_ic(x, LLVMIntEQ, e, ny_ci(it, 0)), LLVMBuildZExt(x->b, tiny, it, ""), code);
  val over = ny_ic(x, LLVMIntUGE, code, ny_ci(it, 255));
  code = ny_sel(x, over, ny_ci(it, saturate ? l->max : l->nan), code);
  if (!saturate) code = ny_sel(x, ny_ic(x, LLVMIntEQ, a, ny_ci(it, 0)), ny_ci(it, l->nan), code);
  val bad = NY_B(Or, x, NY_B(And, x, ny_ic(x, LLVMIntSLT, u, ny_ci(it, 0)), ny_ic(x, LLVMIntNE, a, ny_ci(it, 0))),
                 ny_ic(x, LLVMIntUGT, a, ny_ci(it, 0x7f800000)));
  return LLVMBuildTrunc(x->b, ny_sel(x, bad, ny_ci(it, l->nan), code), ny_like(f, x->i8), "");
}

static val encode_narrow(ny_lx *x, const layout *l, val f, bool saturate) {
  typ it = ny_like(f, x->i32), ft = LLVMTypeOf(f);
  int drop = 23 - l->man, top = 1 << (l->bits - 1);
  val u = ny_bits(x, f, it), a = and_c(x, u, 0x7fffffff), sign = shr(x, and_c(x, u, (int64_t)1 << 31), 32 - l->bits);
  val even = and_c(x, shr(x, a, drop), 1);
  val code = NY_B(Add, x, NY_B(Add, x, a, ny_ci(it, (1 << (drop - 1)) - 1)), even);
  code = NY_B(Sub, x, shr(x, code, drop), ny_ci(it, (int64_t)(127 - l->bias) << l->man));
  /* subnormal results: adding a power of two whose last place is the quantum rounds, and leaves the code in the low
   * bits */
  int magic_exp = 1 - l->bias - l->man + 23;
  val magic = ny_ci(it, (int64_t)(magic_exp + 127) << 23);
  val sum = NY_B(FAdd, x, ny_bits(x, a, ft), ny_bits(x, magic, ft));
  val small = NY_B(Sub, x, ny_bits(x, sum, it), magic);
  code = ny_sel(x, ny_ic(x, LLVMIntULT, a, ny_ci(it, (int64_t)(1 - l->bias + 127) << 23)), small, code);
  int over_code = saturate || l->special == NONE ? l->max : l->special == IEEE ? l->max + 1 : l->nan;
  val over = ny_ic(x, LLVMIntSGT, code, ny_ci(it, l->max));
  val huge = ny_ic(x, LLVMIntUGE, a, ny_ci(it, 0x7f800000)); /* the shifted code of inf may have wrapped */
  code = ny_sel(x, NY_B(Or, x, over, huge), ny_ci(it, over_code), code);
  if (l->special == MINUS_NAN) { /* no -0, and NaN has no sign */
    val bare = ny_ic(x, LLVMIntEQ, code, ny_ci(it, 0));
    bare = NY_B(Or, x, bare, ny_ic(x, LLVMIntEQ, code, ny_ci(it, l->nan)));
    sign = ny_sel(x, bare, ny_ci(it, 0), sign);
  }
  code = NY_B(Or, x, code, sign);
  val nan = l->special == MINUS_NAN ? ny_ci(it, l->nan)
            : l->special == NONE    ? NY_B(Xor, x, sign, ny_ci(it, top))
                                    : NY_B(Or, x, sign, ny_ci(it, l->nan));
  code = ny_sel(x, ny_ic(x, LLVMIntUGT, a, ny_ci(it, 0x7f800000)), nan, code);
  return LLVMBuildTrunc(x->b, code, ny_like(f, int_of_bits(x, l->bits)), "");
}

val ny_encode(ny_lx *x, ny_fmt f, val num, bool saturate) {
  bool wide = ny_elem(LLVMTypeOf(num)) == x->f64;
  if (f == NY_f64) return wide ? num : LLVMBuildFPExt(x->b, num, ny_like(num, x->f64), "");
  if (f == NY_f32) return wide ? LLVMBuildFPTrunc(x->b, num, ny_like(num, x->f32), "") : num;
  if (wide) num = round_to_odd(x, num);
  const layout *l = &layouts[f];
  assert(l->bits);
  if (f == NY_f16) return x->target->no_fma ? encode_narrow(x, l, num, false) : encode_f16(x, num);
  if (f == NY_bf16) return encode_bf16(x, num);
  return l->special == NO_SIGN ? encode_e8m0(x, l, num, saturate) : encode_narrow(x, l, num, saturate);
}

/* ---- integers and conversions */
val ny_wrap(ny_lx *x, ny_fmt f, val reg) {
  int bits = ny_fmts[f].bits;
  if (bits >= 8 || f == NY_f4e2m1) return reg;
  typ t = LLVMTypeOf(reg);
  val up = shl(x, reg, 8 - bits);
  return ny_signed(f) ? NY_B(AShr, x, up, ny_ci(t, 8 - bits)) : NY_B(LShr, x, up, ny_ci(t, 8 - bits));
}

/* To integers of up to 32 bits, a whole vector at a time: LLVM would take x86's lanes one by one to saturate. */
static val float_to_word(ny_lx *x, ny_fmt to, val num) {
  typ ft = LLVMTypeOf(num), it = ny_like(num, x->i32);
  int bits = ny_fmts[to].bits;
  double top = ny_signed(to) ? (double)((int64_t)1 << (bits - 1)) : (double)((int64_t)1 << bits), low = ny_signed(to) ? -top : 0;
  val most = ny_cf(ft, bits == 32 ? 2147483520.0 : top - 1), least = ny_cf(ft, low), v = num;
  v = ny_sel(x, ny_fc(x, LLVMRealOLT, v, most), v, most);
  v = ny_sel(x, ny_fc(x, LLVMRealOGT, v, least), v, least);
  v = ny_sel(x, ny_fc(x, LLVMRealUNO, num, num), ny_cf(ft, 0), v);
  val r = LLVMBuildFPToSI(x->b, v, it, "");
  if (bits == 32) return ny_sel(x, ny_fc(x, LLVMRealOGE, num, ny_cf(ft, top)), ny_ci(it, INT32_MAX), r);
  return LLVMBuildTrunc(x->b, r, ny_like(num, ny_reg_type(x, to)), "");
}

static val float_to_int(ny_lx *x, ny_fmt to, val num) {
  typ nt = LLVMTypeOf(num), rt = ny_like(num, ny_reg_type(x, to));
  bool word = ny_elem(nt) == x->f32 && ny_lanes(num) > 1 && to != NY_bool && (ny_fmts[to].bits < 32 || to == NY_i32);
  if (x->x86 && word) return float_to_word(x, to, num);
  if (to == NY_bool) return ny_fc(x, LLVMRealUNE, num, ny_cf(nt, 0));
  typ over[2] = {rt, nt};
  val r = ny_call(x, ny_signed(to) ? "llvm.fptosi.sat" : "llvm.fptoui.sat", over, 2, &num, 1);
  int bits = ny_fmts[to].bits;
  if (bits >= 8) return r;
  if (!ny_signed(to)) return ny_bin(x, "llvm.umin", r, ny_ci(rt, (1 << bits) - 1));
  r = ny_bin(x, "llvm.smin", r, ny_ci(rt, (1 << (bits - 1)) - 1));
  return ny_bin(x, "llvm.smax", r, ny_ci(rt, -(1 << (bits - 1))));
}

static val int_to_float(ny_lx *x, ny_fmt from, ny_fmt to, val reg, bool saturate) {
  typ nt = ny_like(reg, ny_num_type(x, to));
  /* beyond 24 bits an f32 on the way to a narrower format would round twice */
  if (ny_fmts[from].bits >= 32 && ny_fmts[to].bits < 32) nt = ny_like(reg, x->f64);
  bool plain = ny_signed(from);
  val n = plain ? LLVMBuildSIToFP(x->b, reg, nt, "") : LLVMBuildUIToFP(x->b, reg, nt, "");
  return ny_encode(x, to, n, saturate);
}

static val int_to_int(ny_lx *x, ny_fmt from, ny_fmt to, val reg) {
  typ rt = ny_like(reg, ny_reg_type(x, to));
  if (to == NY_bool) return ny_ic(x, LLVMIntNE, reg, ny_ci(LLVMTypeOf(reg), 0));
  unsigned a = LLVMGetIntTypeWidth(ny_elem(LLVMTypeOf(reg))), b = LLVMGetIntTypeWidth(ny_elem(rt));
  val r = a == b            ? reg
          : a > b           ? LLVMBuildTrunc(x->b, reg, rt, "")
          : ny_signed(from) ? LLVMBuildSExt(x->b, reg, rt, "")
                            : LLVMBuildZExt(x->b, reg, rt, "");
  return ny_wrap(x, to, r);
}

val ny_convert(ny_lx *x, ny_fmt from, ny_fmt to, val reg, bool saturate) {
  if (from == to) return reg;
  bool a = ny_is_float(from), b = ny_is_float(to);
  if (a && b) return ny_encode(x, to, ny_decode(x, from, reg), saturate);
  if (a) return float_to_int(x, to, ny_decode(x, from, reg));
  return b ? int_to_float(x, from, to, reg, saturate) : int_to_int(x, from, to, reg);
}
