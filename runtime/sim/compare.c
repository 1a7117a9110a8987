/* setp, set, selp, slct: comparisons give a mask with a bit a lane. */
#include "lanes.h"

/* In the order of the words of CMP. For integers lo, ls, hi, hs are lt, le, gt, ge; the unsigned-or-unordered forms are
   for floats: true when an operand is NaN. */
#define CMP "(eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan)"
enum { EQ = 1, NE, LT, LE, GT, GE, LO, LS, HI, HS, EQU, NEU, LTU, LEU, GTU, GEU, NUM, NAN_ };

#define LOOP(e)                                                                                                        \
  for (int l = 0; l < NY_LANES; l++) r |= (e) ? ny_lane_bit[l] : 0;                                                    \
  break
#define COMPARE(name, T, L)                                                                                            \
  static uint32_t name(const void *va, const void *vb, int cmp) {                                                      \
    const L *pa = va, *pb = vb;                                                                                        \
    uint32_t r = 0;                                                                                                    \
    switch (cmp) {                                                                                                     \
    case EQ: LOOP((T)pa[l] == (T)pb[l]);                                                                               \
    case NE: LOOP((T)pa[l] != (T)pb[l]);                                                                               \
    case LT:                                                                                                           \
    case LO: LOOP((T)pa[l] < (T)pb[l]);                                                                                \
    case LE:                                                                                                           \
    case LS: LOOP((T)pa[l] <= (T)pb[l]);                                                                               \
    case GT:                                                                                                           \
    case HI: LOOP((T)pa[l] > (T)pb[l]);                                                                                \
    default: LOOP((T)pa[l] >= (T)pb[l]);                                                                               \
    }                                                                                                                  \
    return r;                                                                                                          \
  }
COMPARE(cmp_u16, uint16_t, uint32_t)
COMPARE(cmp_u32, uint32_t, uint32_t)
COMPARE(cmp_u64, uint64_t, uint64_t)
COMPARE(cmp_s16, int16_t, uint32_t)
COMPARE(cmp_s32, int32_t, uint32_t)
COMPARE(cmp_s64, int64_t, uint64_t)

#define COMPARE_FLOAT(name, T)                                                                                         \
  static uint32_t name(const void *va, const void *vb, int cmp) {                                                      \
    const T *pa = va, *pb = vb;                                                                                        \
    uint32_t r = 0;                                                                                                    \
    switch (cmp) {                                                                                                     \
    case EQ: LOOP(pa[l] == pb[l]);                                                                                     \
    case NE: LOOP(pa[l]<pb[l] || pa[l]> pb[l]);                                                                        \
    case LT: LOOP(pa[l] < pb[l]);                                                                                      \
    case LE: LOOP(pa[l] <= pb[l]);                                                                                     \
    case GT: LOOP(pa[l] > pb[l]);                                                                                      \
    case GE: LOOP(pa[l] >= pb[l]);                                                                                     \
    case EQU: LOOP(!(pa[l] < pb[l] || pa[l] > pb[l]));                                                                 \
    case NEU: LOOP(pa[l] != pb[l]);                                                                                    \
    case LTU: LOOP(!(pa[l] >= pb[l]));                                                                                 \
    case LEU: LOOP(!(pa[l] > pb[l]));                                                                                  \
    case GTU: LOOP(!(pa[l] <= pb[l]));                                                                                 \
    case GEU: LOOP(!(pa[l] < pb[l]));                                                                                  \
    case NUM: LOOP(pa[l] == pa[l] && pb[l] == pb[l]);                                                                  \
    default: LOOP(pa[l] != pa[l] || pb[l] != pb[l]);                                                                   \
    }                                                                                                                  \
    return r;                                                                                                          \
  }
COMPARE_FLOAT(cmp_f32, float)
COMPARE_FLOAT(cmp_f64, double)

#define FLUSHED(name, from)                                                                                            \
  float name[NY_LANES];                                                                                                \
  for (int l = 0; l < NY_LANES; l++) name[l] = fabsf((from)[l]) < 0x1p-126f ? 0.0f : (from)[l]
static uint32_t cmp_f32_ftz(const void *va, const void *vb, int cmp) {
  const float *pa = va, *pb = vb;
  FLUSHED(a, pa);
  FLUSHED(b, pb);
  return cmp_f32(a, b, cmp);
}

/* opt: comparison, combination (and or xor), ftz. arg: p, q, a, b, c. */
static void finish(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, uint32_t r) {
  uint32_t p = r, q = ~r;
  if (i->opt[1]) {
    uint32_t c = ny_pred(w, &i->arg[4]);
    p = i->opt[1] == 1 ? p & c : i->opt[1] == 2 ? p | c : p ^ c;
    q = i->opt[1] == 1 ? q & c : i->opt[1] == 2 ? q | c : q ^ c;
  }
  ny_set_pred(w, &i->arg[0], mask, p);
  if (i->arg[1].kind == NY_ARG_PRED) ny_set_pred(w, &i->arg[1], mask, q);
}
#define SETP(type)                                                                                                     \
  static void setp_##type(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                        \
    finish(w, i, mask, cmp_##type(ny_lanes(w, &i->arg[2]), ny_lanes(w, &i->arg[3]), i->opt[0]));                       \
  }
SETP(u16)
SETP(u32)
SETP(u64)
SETP(s16)
SETP(s32)
SETP(s64)
SETP(f32)
SETP(f64)
SETP(f32_ftz)

/* set d, a, b, c: opt[3] is the type of d: u32 s32: all ones, f32: 1.0 */
static void give(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, uint32_t r) {
  if (i->opt[1]) {
    uint32_t c = ny_pred(w, &i->arg[3]);
    r = i->opt[1] == 1 ? r & c : i->opt[1] == 2 ? r | c : r ^ c;
  }
  uint32_t yes = i->opt[3] == 3 ? 0x3f800000 : NY_ALL_LANES;
  NY_MAP(uint32_t, NY_U32(0), r & ny_lane_bit[l] ? yes : 0);
}
#define SET(type)                                                                                                      \
  static void set_##type(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                         \
    give(w, i, mask, cmp_##type(ny_lanes(w, &i->arg[1]), ny_lanes(w, &i->arg[2]), i->opt[0]));                         \
  }
SET(u16)
SET(u32)
SET(u64)
SET(s16)
SET(s32)
SET(s64)
SET(f32)
SET(f64)
SET(f32_ftz)

/* Comparisons that a type does not have. */
static bool comparison_ok(ny_ptx_decoder *dc, const ny_ptx_ins *i) {
  static const char kind[] = {'b', 'b', 'b', 'u', 'u', 'u', 's', 's', 's', 'f', 'f'}; /* as in TYPES */
  int c = i->opt[0];
  char k = kind[i->sub];
  bool ok = k == 'f' ? c <= GE || c >= EQU : k == 'b' ? c <= NE : k == 's' ? c <= GE : c <= HS;
  if (i->opt[2] && i->sub != 9) return ny_ptx_bad(dc, ".ftz is for f32");
  return ok || ny_ptx_bad(dc, "this type has no such comparison");
}
static bool combined(ny_ptx_decoder *dc, const ny_ptx_ins *i, int last) {
  bool there = i->arg[last].kind == NY_ARG_PRED;
  return there == (i->opt[1] != 0) || ny_ptx_bad(dc, "a combination and its predicate go together");
}
static bool fix_setp(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  if (i->opt[2]) i->exec = setp_f32_ftz;
  return comparison_ok(dc, i) && combined(dc, i, 4);
}
static bool fix_set(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  if (i->opt[2]) i->exec = set_f32_ftz;
  return comparison_ok(dc, i) && combined(dc, i, 3);
}

/* ---- select */
static void selp_32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1), *b = NY_U32(2);
  uint32_t p = ny_pred(w, &i->arg[3]);
  NY_MAP(uint32_t, NY_U32(0), p & ny_lane_bit[l] ? a[l] : b[l]);
}
static void selp_64(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint64_t *a = NY_U64(1), *b = NY_U64(2);
  uint32_t p = ny_pred(w, &i->arg[3]);
  NY_MAP(uint64_t, NY_U64(0), p & ny_lane_bit[l] ? a[l] : b[l]);
}
/* slct: a where c >= 0; a NaN selects b */
#define SLCT(name, L)                                                                                                  \
  static void name##_s32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                         \
    const L *a = NY_LANES_OF(L, 1), *b = NY_LANES_OF(L, 2);                                                            \
    const int32_t *c = NY_S32(3);                                                                                      \
    NY_MAP(L, NY_LANES_OF(L, 0), c[l] >= 0 ? a[l] : b[l]);                                                             \
  }                                                                                                                    \
  static void name##_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                         \
    const L *a = NY_LANES_OF(L, 1), *b = NY_LANES_OF(L, 2);                                                            \
    const float *c = NY_F32(3);                                                                                        \
    bool ftz = i->opt[0];                                                                                              \
    NY_MAP(L, NY_LANES_OF(L, 0), (ftz && fabsf(c[l]) < 0x1p-126f) || c[l] >= 0 ? a[l] : b[l]);                         \
  }
SLCT(slct_32, uint32_t)
SLCT(slct_64, uint64_t)

#define TYPES "[b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64]"
#define HANDLERS(op)                                                                                                   \
  { op##_u16, op##_u32, op##_u64, op##_u16, op##_u32, op##_u64, op##_s16, op##_s32, op##_s64, op##_f32, op##_f64 }
#define WIDTHS(op)                                                                                                     \
  { op##_32, op##_32, op##_64, op##_32, op##_32, op##_64, op##_32, op##_32, op##_64, op##_32, op##_64 }
const ny_ptx_row ny_rows_compare[] = {
    {"setp." CMP ".(and or xor)?.(ftz)?." TYPES, "P |P? t t p?", NY_CLS_int, fix_setp, HANDLERS(setp)},
    {"set." CMP ".(and or xor)?.(ftz)?.(u32 s32 f32)." TYPES, "B t t p?", NY_CLS_int, fix_set, HANDLERS(set)},
    {"selp." TYPES, "T t t p", NY_CLS_move, NULL, WIDTHS(selp)},
    {"slct.[b32 u32 s32 f32 b64 u64 s64 f64].s32",
     "T t t b",
     NY_CLS_move,
     NULL,
     {slct_32_s32, slct_32_s32, slct_32_s32, slct_32_s32, slct_64_s32, slct_64_s32, slct_64_s32, slct_64_s32}},
    {"slct.(ftz)?.[b32 u32 s32 f32 b64 u64 s64 f64].f32",
     "T t t f",
     NY_CLS_move,
     NULL,
     {slct_32_f32, slct_32_f32, slct_32_f32, slct_32_f32, slct_64_f32, slct_64_f32, slct_64_f32, slct_64_f32}},
};
const size_t ny_n_rows_compare = NY_COUNT(ny_rows_compare);
