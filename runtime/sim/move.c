/* mov with its packing and unpacking, special registers, and the conversions between address spaces. */
#include "lanes.h"
#include "parse.h"

static void mov_32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  NY_MAP(uint32_t, NY_U32(0), a[l]);
}
static void mov_16(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(1);
  NY_MAP(uint32_t, NY_U32(0), a[l] & 0xffff);
}
static void mov_64(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint64_t *a = NY_U64(1);
  NY_MAP(uint64_t, NY_U64(0), a[l]);
}
static void mov_pred(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  ny_set_pred(w, &i->arg[0], mask, ny_pred(w, &i->arg[1]));
}
static void mov_pair(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) { /* 64 bits of two registers */
  const uint32_t *a = NY_U32(1), *b = NY_U32(2);
  NY_MAP(uint64_t, NY_U64(0), (uint64_t)b[l] << 32 | a[l]);
}
static void mov_halves(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint64_t *a = NY_U64(2);
  uint64_t v[NY_LANES]; /* a destination may be written before the source is read again */
  for (int l = 0; l < NY_LANES; l++) v[l] = a[l];
  NY_MAP(uint32_t, NY_U32(0), v[l]);
  NY_MAP(uint32_t, NY_U32(1), v[l] >> 32);
}

static uint64_t get(const ny_sim_warp *w, const ny_ptx_arg *a, uint32_t l) {
  return a->width == 8 ? ((const uint64_t *)ny_lanes(w, a))[l] : ((const uint32_t *)ny_lanes(w, a))[l];
}
static void put(const ny_sim_warp *w, const ny_ptx_arg *a, uint32_t l, uint64_t v) {
  if (a->width == 8)
    ((uint64_t *)ny_lanes(w, a))[l] = v;
  else
    ((uint32_t *)ny_lanes(w, a))[l] = (uint32_t)v;
}
/* Any number of elements; data: bits of one. */
static void mov_pack(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint32_t bits = (uint32_t)i->data;
  NY_EACH_ACTIVE(l) {
    uint64_t v = 0;
    for (int k = 1; k < i->n_arg; k++)
      v |= (get(w, &i->arg[k], l) & ((1ull << bits) - 1)) << (bits * (uint32_t)(k - 1));
    put(w, &i->arg[0], l, v);
  }
}
static void mov_unpack(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint32_t bits = (uint32_t)i->data;
  NY_EACH_ACTIVE(l) {
    uint64_t v = get(w, &i->arg[i->n_arg - 1], l);
    for (int k = 0; k < i->n_arg - 1; k++, v >>= bits) put(w, &i->arg[k], l, v & ((1ull << bits) - 1));
  }
}
static void mov_special(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const ny_special *s = &ny_specials[i->data];
  NY_EACH_ACTIVE(l) put(w, &i->arg[0], l, s->value(w, l));
}

static const uint8_t mov_bits[] = {16, 32, 64, 16, 32, 64, 16, 32, 64, 32, 64};
#define MOV_TYPES "[b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64]"

static bool fix_mov(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  uint32_t bits = mov_bits[i->sub];
  const ny_ptx_arg *d = &i->arg[0], *s = &i->arg[i->n_arg - 1];
  bool unpack = d->flags & NY_ARG_VECTOR, pack = s->flags & NY_ARG_VECTOR;
  uint32_t n = i->n_arg - 1u, bytes = bits == 64 ? 8 : 4;
  const ny_ptx_arg *whole = unpack ? s : d;
  if (pack && unpack) return ny_ptx_bad(dc, "moves between vectors");
  if (whole->width != bytes || (!pack && !unpack && s->width != bytes))
    return ny_ptx_bad(dc, "an operand has not %u bits", bits);
  if (s->bank == NY_BANK_SPECIAL && ny_specials[s->off / NY_SPECIAL_BYTES].dynamic) {
    i->exec = mov_special;
    i->data = s->off / NY_SPECIAL_BYTES;
    return true;
  }
  if (!pack && !unpack) return true;
  if (n > bits / 8 || bits % n) return ny_ptx_bad(dc, "%u elements in %u bits", n, bits);
  i->data = bits / n;
  for (uint32_t k = 0; k < n; k++)
    if (i->arg[pack ? k + 1 : k].width != 4 && !(i->arg[pack ? k + 1 : k].flags & NY_ARG_UNIFORM) && i->arg[k].off != 0)
      return ny_ptx_bad(dc, "an element has not %u bits", bits / n);
  bool whole_words = bits == 64 && n == 2;
  for (uint32_t k = 0; k < n; k++) whole_words = whole_words && i->arg[pack ? k + 1 : k].width == 4;
  i->exec = pack ? whole_words ? mov_pair : mov_pack : whole_words ? mov_halves : mov_unpack;
  return true;
}

/* ---- address spaces: a generic address is the address there plus the window's base; global and const are their own.
 */
static const uint64_t window_of[] = {
    0, 0, 0, NY_SHARED_WINDOW, NY_SHARED_WINDOW, NY_SHARED_WINDOW, NY_LOCAL_WINDOW, NY_PARAM_WINDOW, NY_PARAM_WINDOW};
#define SPACES "(global const shared shared::cta shared::cluster local param param::entry)"
static void cvta(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint64_t *a = NY_U64(1);
  uint64_t base = window_of[i->opt[0]];
  NY_MAP(uint64_t, NY_U64(0), a[l] + base);
}
static void cvta_to(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint64_t *a = NY_U64(1);
  uint64_t base = window_of[i->opt[0]];
  NY_MAP(uint64_t, NY_U64(0), a[l] - base);
}
static void isspacep(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint64_t *a = NY_U64(1);
  uint64_t base = window_of[i->opt[0]];
  uint32_t r = 0;
  for (int l = 0; l < NY_LANES; l++) r |= (a[l] & NY_WINDOW_MASK) == base ? 1u << l : 0;
  ny_set_pred(w, &i->arg[0], mask, r);
}
/* Blocks stand alone in their cluster: only rank 0 is there to be mapped. */
static void mapa(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *rank = NY_U32(2);
  NY_EACH_ACTIVE(l) {
    if (rank[l]) ny_find(w, i, l, NY_FIND_invalid, rank[l], 0, "block %u of a cluster of one block", rank[l]);
    put(w, &i->arg[0], l, get(w, &i->arg[1], l));
  }
}

const ny_ptx_row ny_rows_move[] = {
    {"mov.pred", "P p", NY_CLS_move, NULL, {mov_pred}},
    {"mov." MOV_TYPES,
     "X+ x+",
     NY_CLS_move,
     fix_mov,
     {mov_16, mov_32, mov_64, mov_16, mov_32, mov_64, mov_16, mov_32, mov_64, mov_32, mov_64}},
    {"cvta." SPACES ".u64", "L l", NY_CLS_int, NULL, {cvta}},
    {"cvta.to." SPACES ".u64", "L l", NY_CLS_int, NULL, {cvta_to}},
    {"isspacep." SPACES, "P l", NY_CLS_int, NULL, {isspacep}},
    {"mapa.(shared::cluster)?.[u32 u64]", "T x b", NY_CLS_int, NULL, {mapa, mapa}},
};
const size_t ny_n_rows_move = NY_COUNT(ny_rows_move);
