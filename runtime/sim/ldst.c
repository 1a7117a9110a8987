/* ld, st, ldu in all spaces, scalar and vector. The general form takes the pointers of ny_access one lane after
   another; parameters of the kernel are the same for all lanes and are read once. */
#include "lanes.h"
#include "decode.h"
#include "launch.h"

/* ---- one element of every lane */
#define LOAD(T, TD, LD)                                                                                                \
  static void load_##T##_##LD(void *d, uint8_t *const *p, uint32_t off, uint32_t mask) {                               \
    LD *to = d;                                                                                                        \
    if (mask == NY_ALL_LANES) {                                                                                        \
      for (int l = 0; l < NY_LANES; l++) {                                                                             \
        TD v;                                                                                                          \
        memcpy(&v, p[l] + off, sizeof v);                                                                              \
        to[l] = (LD)v;                                                                                                 \
      }                                                                                                                \
      return;                                                                                                          \
    }                                                                                                                  \
    NY_EACH_ACTIVE(l) {                                                                                                \
      TD v;                                                                                                            \
      memcpy(&v, p[l] + off, sizeof v);                                                                                \
      to[l] = (LD)v;                                                                                                   \
    }                                                                                                                  \
  }
LOAD(u8, uint8_t, uint32_t)
LOAD(u16, uint16_t, uint32_t)
LOAD(u32, uint32_t, uint32_t)
LOAD(s8, int8_t, uint32_t)
LOAD(s16, int16_t, uint32_t)
LOAD(u8, uint8_t, uint64_t)
LOAD(u16, uint16_t, uint64_t)
LOAD(u32, uint32_t, uint64_t)
LOAD(u64, uint64_t, uint64_t)
LOAD(s8, int8_t, uint64_t)
LOAD(s16, int16_t, uint64_t)
LOAD(s32, int32_t, uint64_t)
typedef void load_fn(void *d, uint8_t *const *p, uint32_t off, uint32_t mask);
/* by log2 of the bytes, signed, register of 64 bits */
static load_fn *const loads[4][2][2] = {
    {{load_u8_uint32_t, load_u8_uint64_t}, {load_s8_uint32_t, load_s8_uint64_t}},
    {{load_u16_uint32_t, load_u16_uint64_t}, {load_s16_uint32_t, load_s16_uint64_t}},
    {{load_u32_uint32_t, load_u32_uint64_t}, {load_u32_uint32_t, load_s32_uint64_t}},
    {{NULL, load_u64_uint64_t}, {NULL, load_u64_uint64_t}}};

#define STORE(T, LD)                                                                                                   \
  static void store_##T##_##LD(const void *s, uint8_t *const *p, uint32_t off, uint32_t mask) {                        \
    const LD *from = s;                                                                                                \
    NY_EACH_ACTIVE(l) {                                                                                                \
      T v = (T)from[l];                                                                                                \
      memcpy(p[l] + off, &v, sizeof v);                                                                                \
    }                                                                                                                  \
  }
STORE(uint8_t, uint32_t)
STORE(uint16_t, uint32_t)
STORE(uint32_t, uint32_t)
STORE(uint8_t, uint64_t)
STORE(uint16_t, uint64_t)
STORE(uint32_t, uint64_t)
STORE(uint64_t, uint64_t)
typedef void store_fn(const void *s, uint8_t *const *p, uint32_t off, uint32_t mask);
static store_fn *const stores[4][2] = {{store_uint8_t_uint32_t, store_uint8_t_uint64_t},
                                       {store_uint16_t_uint32_t, store_uint16_t_uint64_t},
                                       {store_uint32_t_uint32_t, store_uint32_t_uint64_t},
                                       {NULL, store_uint64_t_uint64_t}};

enum { IS_SIGNED = 1, IS_STRONG = 2 }; /* data; strong: volatile, relaxed and up, no race with its like */
static uint32_t log2_of(uint32_t bytes) { return bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : 3; }

static void mask_half(ny_sim_warp *w, const ny_ptx_arg *a, uint32_t mask) {
  uint32_t *d = ny_lanes(w, a);
  NY_MAP(uint32_t, d, d[l] & 0xffff);
}

static void give(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, uint8_t *const *p) {
  for (uint32_t k = 0; k < i->vec; k++) {
    const ny_ptx_arg *a = &i->arg[k];
    loads[log2_of(i->bytes)][i->data & IS_SIGNED][a->width == 8](ny_lanes(w, a), p, k * i->bytes, mask);
    if (a->flags & NY_ARG_HALF && i->bytes == 1 && i->data & IS_SIGNED) mask_half(w, a, mask);
  }
}

static void ld(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  static const uint8_t zero[64];
  uint64_t addr[NY_LANES];
  uint8_t *p[NY_LANES];
  ny_addresses(w, i, i->vec, addr);
  uint32_t ok = ny_access(w, i, mask, (ny_ptx_space)i->space, addr, (uint32_t)i->bytes * i->vec, 0,
                          NY_READ | (i->data & IS_STRONG ? NY_ATOMIC : 0u), p);
  if (ok == mask) {
    give(w, i, mask, p);
    return;
  }
  NY_EACH_ACTIVE(l) if (!(ok >> l & 1)) p[l] = (uint8_t *)(uintptr_t)zero;
  give(w, i, mask, p);
}

/* A load that was made wider than what is wanted of it: only elements with wanted bytes (data, from bit 32) are
 * touched. */
static void ld_wanted(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t addr[NY_LANES];
  uint8_t *p[NY_LANES];
  ny_addresses(w, i, i->vec, addr);
  for (uint32_t k = 0; k < i->vec; k++) {
    const ny_ptx_arg *a = &i->arg[k];
    uint32_t element = (1u << i->bytes) - 1;
    if (i->data >> 32 >> k * i->bytes & element) {
      uint32_t ok = ny_access(w, i, mask, (ny_ptx_space)i->space, addr, i->bytes, 0, NY_READ, p);
      loads[log2_of(i->bytes)][i->data & IS_SIGNED][a->width == 8](ny_lanes(w, a), p, 0, ok);
    }
    for (uint32_t l = 0; l < NY_LANES; l++) addr[l] += i->bytes;
  }
}

/* Of lanes that store different values to one place in one instruction, one wins, and nothing says which: a lane that
   does not find its own value there has lost. Lanes that store the same value are left in peace. */
static void check_overwritten(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, const uint64_t addr[NY_LANES],
                              uint8_t *const *p) {
  uint32_t bytes = i->bytes, all = mask;
  for (uint32_t k = 0; k < i->vec; k++) {
    const ny_ptx_arg *a = &i->arg[1 + k];
    mask = all;
    NY_EACH_ACTIVE(l) {
      const uint8_t *own = (const uint8_t *)ny_lanes(w, a) + l * a->width;
      if (!memcmp(p[l] + k * bytes, own, bytes)) continue;
      uint32_t by = 31 - (uint32_t)__builtin_clz(all);
      for (uint32_t o = 0; o < NY_LANES; o++)
        if (all >> o & 1 && o != l && p[o] < p[l] + (k + 1) * bytes && p[l] + k * bytes < p[o] + bytes * i->vec) by = o;
      ny_sim_site other = ny_site(w, i, by);
      ny_find_two(w, i, l, &other, NY_FIND_race, addr[l], bytes * i->vec,
                  "lanes %u and %u store different values to one place in one instruction", l, by);
      return;
    }
  }
}

static void st(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t addr[NY_LANES];
  uint8_t *p[NY_LANES];
  ny_addresses(w, i, 0, addr);
  mask = ny_access(w, i, mask, (ny_ptx_space)i->space, addr, (uint32_t)i->bytes * i->vec, 0,
                   NY_WRITE | (i->data & IS_STRONG ? NY_ATOMIC : 0u), p);
  for (uint32_t k = 0; k < i->vec && mask; k++) {
    const ny_ptx_arg *a = &i->arg[1 + k];
    stores[log2_of(i->bytes)][a->width == 8](ny_lanes(w, a), p, k * i->bytes, mask);
  }
  if (w->block->grid->launch->options.checks & NY_SIM_RACES && !(i->data & IS_STRONG))
    check_overwritten(w, i, mask, addr, p);
}

/* A parameter of the kernel: bounds were checked when decoding. */
static void ld_param(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint8_t *at = (const uint8_t *)w->block->grid->launch->params + i->arg[i->vec].imm;
  uint8_t *p[NY_LANES];
  for (int l = 0; l < NY_LANES; l++) p[l] = (uint8_t *)(uintptr_t)at;
  give(w, i, mask, p);
}

/* ---- decoding */
#define LD_TYPES "[b8 b16 b32 b64 u8 u16 u32 u64 s8 s16 s32 s64 f32 f64]"
static const uint8_t type_bytes[] = {1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8};

/* group: which of the row is the space */
static bool set_space(ny_ptx_decoder *dc, ny_ptx_ins *i, int group, const ny_ptx_arg *m) {
  static const struct {
    const char *name;
    uint8_t space;
  } spaces[] = {{"", NY_GENERIC},
                {"global", NY_GLOBAL},
                {"shared", NY_SHARED},
                {"shared::cta", NY_SHARED},
                {"shared::cluster", NY_SHARED},
                {"local", NY_LOCAL},
                {"const", NY_CONST},
                {"param", NY_PARAM},
                {"param::entry", NY_PARAM},
                {"param::func", NY_PARAM}};
  const char *word = ny_ptx_word(dc, group);
  for (size_t k = 0; k < NY_COUNT(spaces); k++)
    if (!strcmp(spaces[k].name, word)) i->space = spaces[k].space;
  if (i->space == NY_PARAM && m->flags & NY_ARG_FRAME) i->space = NY_LOCAL;
  return true;
}

static bool set_elements(ny_ptx_decoder *dc, ny_ptx_ins *i, int vec_group, int first) {
  static const uint8_t counts[] = {1, 2, 4, 8};
  uint32_t n = counts[i->opt[vec_group]];
  i->bytes = type_bytes[i->sub];
  i->data = i->sub >= 8 && i->sub < 12 ? IS_SIGNED : 0;
  if (i->vec != n) return ny_ptx_bad(dc, "%u registers for a vector of %u", i->vec, n);
  if (n * i->bytes > 32) return ny_ptx_bad(dc, "an access of %u bytes", n * i->bytes);
  for (uint32_t k = 0; k < n; k++)
    if (i->bytes == 8 && i->arg[(uint32_t)first + k].width != 8) return ny_ptx_bad(dc, "a register has not 64 bits");
  return true;
}

static bool known_param(ny_ptx_decoder *dc, const ny_ptx_ins *i, const ny_ptx_arg *m) {
  uint64_t at = (uint64_t)m->imm, bytes = (uint64_t)i->vec * i->bytes, all = dc->k->info.param_bytes;
  if (at <= all && bytes <= all - at) return true;
  return ny_ptx_bad(dc, "bytes %llu to %llu of %llu bytes of parameters", (unsigned long long)at,
                    (unsigned long long)(at + bytes), (unsigned long long)all);
}

static bool finish_load(ny_ptx_decoder *dc, ny_ptx_ins *i, int space_group, int vec_group) {
  static const uint8_t classes[NY_N_SPACE] = {
      [NY_GENERIC] = NY_CLS_ld_global, [NY_GLOBAL] = NY_CLS_ld_global, [NY_SHARED] = NY_CLS_ld_shared,
      [NY_LOCAL] = NY_CLS_ld_local,    [NY_CONST] = NY_CLS_ld_const,   [NY_PARAM] = NY_CLS_ld_const};
  if (!set_elements(dc, i, vec_group, 0)) return false;
  const ny_ptx_arg *m = &i->arg[i->vec];
  if (!set_space(dc, i, space_group, m)) return false;
  i->cls = classes[i->space];
  if (i->space == NY_PARAM && m->flags & NY_ARG_UNIFORM) {
    if (!known_param(dc, i, m)) return false;
    i->exec = ld_param;
  }
  return true;
}

static bool finish_store(ny_ptx_decoder *dc, ny_ptx_ins *i, int space_group, int vec_group) {
  static const uint8_t classes[NY_N_SPACE] = {[NY_GENERIC] = NY_CLS_st_global,
                                              [NY_GLOBAL] = NY_CLS_st_global,
                                              [NY_SHARED] = NY_CLS_st_shared,
                                              [NY_LOCAL] = NY_CLS_st_local};
  if (!set_elements(dc, i, vec_group, 1) || !set_space(dc, i, space_group, &i->arg[0])) return false;
  if (i->space == NY_PARAM || i->space == NY_CONST) return ny_ptx_bad(dc, "a store to read-only memory");
  i->cls = classes[i->space];
  return true;
}
/* Rows: 0 semantics, 1 scope, 2 space, then how to cache, which makes no difference here, and the vector. */
static bool fix_ld(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  if (!finish_load(dc, i, 2, 9)) return false;
  i->data |= i->opt[0] > 1 ? IS_STRONG : 0;
  if (dc->raw->used && i->exec != ld_param && i->vec > 1 && i->vec * i->bytes <= 32) {
    i->data |= (uint64_t)dc->raw->used << 32;
    i->exec = ld_wanted;
  }
  return true;
}
static bool fix_st(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  if (!finish_store(dc, i, 2, 7)) return false;
  i->data = i->opt[0] > 1 ? IS_STRONG : 0;
  return true;
}
static bool fix_ldu(ny_ptx_decoder *dc, ny_ptx_ins *i) { return finish_load(dc, i, 0, 1); }

#define SCOPE "(cta cluster gpu sys)?"
#define L1_EVICT "(L1::evict_normal L1::evict_unchanged L1::evict_first L1::evict_last L1::no_allocate)?"
#define L2_EVICT "(L2::evict_normal L2::evict_first L2::evict_last)?"
#define ALL14(f) f, f, f, f, f, f, f, f, f, f, f, f, f, f
const ny_ptx_row ny_rows_ldst[] = {
    {"ld.(weak relaxed acquire volatile mmio)?." SCOPE ".(const global local param param::entry param::func shared "
     "shared::cta shared::cluster)?.(ca cg cs lu cv)?.(nc)?." L1_EVICT "." L2_EVICT
     ".(L2::cache_hint)?.(L2::64B L2::128B L2::256B)?.(v2 v4 v8)?." LD_TYPES,
     "X+ m l?",
     NY_CLS_ld_global,
     fix_ld,
     {ALL14(ld)}},
    {"st.(weak relaxed release volatile mmio)?." SCOPE
     ".(global local param param::func shared shared::cta shared::cluster)?.(wb cg cs wt)?." L1_EVICT "." L2_EVICT
     ".(L2::cache_hint)?.(v2 v4 v8)?." LD_TYPES,
     "m x+ l?",
     NY_CLS_st_global,
     fix_st,
     {ALL14(st)}},
    {"ldu.(global)?.(v2 v4)?." LD_TYPES, "X+ m", NY_CLS_ld_global, fix_ldu, {ALL14(ld)}},
};
const size_t ny_n_rows_ldst = NY_COUNT(ny_rows_ldst);
