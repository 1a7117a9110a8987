/* Every access of memory: which bytes of this process it means, whether it may touch them, and what it costs. The case
   that all lanes lie in one range is found with one look at the lowest and the highest address. */
#include "launch.h"
#include <string.h>

void ny_addresses(const ny_sim_warp *w, const ny_ptx_ins *i, int k, uint64_t addr[NY_LANES]) {
  const ny_ptx_arg *a = &i->arg[k];
  uint64_t imm = (uint64_t)a->imm;
  if (a->width == 8) {
    const uint64_t *base = NY_U64(k);
    for (int l = 0; l < NY_LANES; l++) addr[l] = base[l] + imm;
  } else {
    const uint32_t *base = NY_U32(k);
    for (int l = 0; l < NY_LANES; l++) addr[l] = (uint32_t)(base[l] + (uint32_t)imm);
  }
}

const ny_sim_range *ny_range_find(ny_sim_grid *g, uint64_t addr, uint64_t bytes) {
  uint32_t lo = 0, hi = g->n_ranges;
  while (lo < hi) {
    uint32_t mid = (lo + hi) / 2;
    if (g->range[mid].base <= addr)
      lo = mid + 1;
    else
      hi = mid;
  }
  if (!lo) return NULL;
  const ny_sim_range *r = &g->range[lo - 1];
  if (addr - r->base >= r->bytes || bytes > r->bytes - (addr - r->base)) return NULL;
  g->last_range = lo - 1;
  return r;
}

static const char *verb(uint32_t how) { return how & NY_ATOMIC ? "atomic access" : how & NY_WRITE ? "store" : "load"; }

/* ---- bounds of each space; false after a finding */
static bool global_ok(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, uint64_t addr, uint64_t bytes, uint32_t how) {
  const ny_sim_range *r = ny_range_of(w->block->grid, addr, bytes);
  if (r && !(r->read_only && how & NY_WRITE)) return true;
  char near[120];
  ny_nearest(w->block->grid, addr, near, sizeof near);
  if (r)
    ny_find(w, i, lane, NY_FIND_bounds, addr, (uint32_t)bytes, "%s of %llu bytes to read-only memory, %s", verb(how),
            (unsigned long long)bytes, near);
  else
    ny_find(w, i, lane, NY_FIND_bounds, addr, (uint32_t)bytes, "%s of %llu bytes at 0x%llx, %s", verb(how),
            (unsigned long long)bytes, (unsigned long long)addr, near);
  return false;
}

static bool inside(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, uint64_t addr, uint64_t bytes, uint32_t how,
                   uint64_t size, const char *space) {
  if (addr < size && bytes <= size - addr) return true;
  ny_find(w, i, lane, NY_FIND_bounds, addr, (uint32_t)bytes,
          "%s of %llu bytes at offset %llu of the %llu bytes of %s memory", verb(how), (unsigned long long)bytes,
          (unsigned long long)addr, (unsigned long long)size, space);
  return false;
}

static uint8_t *lane_frame(const ny_sim_warp *w, uint32_t lane) {
  return w->local + (size_t)lane * w->block->grid->kernel->frame_bytes;
}

/* The space a generic address is in, and the address there. */
static ny_ptx_space window(uint64_t *addr) {
  uint64_t top = *addr & NY_WINDOW_MASK;
  if (!top) return NY_GLOBAL;
  ny_ptx_space s = top == NY_SHARED_WINDOW  ? NY_SHARED
                   : top == NY_LOCAL_WINDOW ? NY_LOCAL
                   : top == NY_PARAM_WINDOW ? NY_PARAM
                                            : NY_GLOBAL;
  if (s != NY_GLOBAL) *addr &= ~NY_WINDOW_MASK;
  return s;
}

static uint8_t *pointer(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, ny_ptx_space space, uint64_t addr,
                        uint64_t bytes, uint32_t how) {
  ny_sim_grid *g = w->block->grid;
  switch (space) {
  case NY_SHARED:
    return inside(w, i, lane, addr, bytes, how, w->block->shared_bytes, "shared") ? w->block->shared + addr : NULL;
  case NY_LOCAL:
    return inside(w, i, lane, addr, bytes, how, g->kernel->frame_bytes, "local") ? lane_frame(w, lane) + addr : NULL;
  case NY_PARAM:
    if (!inside(w, i, lane, addr, bytes, how, g->kernel->info.param_bytes, "parameter")) return NULL;
    return (uint8_t *)(uintptr_t)g->launch->params + addr; /* stores are refused when decoding */
  default: return global_ok(w, i, lane, addr, bytes, how) ? (uint8_t *)(uintptr_t)addr : NULL;
  }
}

/* ---- costs */
/* 32-byte sectors that the lanes touch. */
static uint32_t sectors(const ny_touch *t) {
  uint64_t first = UINT64_MAX, seen = 0;
  for (uint32_t k = 0; k < t->n_strips; k++)
    first = t->strip[k].addr / 32 < first ? t->strip[k].addr / 32 : first;
  uint32_t n = 0;
  uint64_t far[NY_LANES * 2];
  uint32_t n_far = 0;
  for (uint32_t k = 0; k < t->n_strips; k++) {
    const ny_strip *x = &t->strip[k];
    for (uint64_t s = x->addr / 32; s <= (x->addr + x->bytes - 1) / 32; s++) {
      if (s - first < 64) {
        n += !(seen >> (s - first) & 1);
        seen |= 1ull << (s - first);
        continue;
      }
      uint32_t f = 0;
      while (f < n_far && far[f] != s) f++;
      if (f == n_far && n_far < NY_COUNT(far)) far[n_far++] = s;
    }
  }
  return n + n_far;
}

/* Wavefronts of a shared access: 32 banks of 4 bytes; lanes go in groups of 128 bytes; different words of one bank take
   turns, the same word is one. A unit is what a lane asks of neighbouring banks at once. */
static uint32_t wavefronts(const ny_touch *t) {
  uint32_t log = t->bytes >= 16 ? 4 : t->bytes >= 8 ? 3 : 2, banks = 128u >> log, group = banks, waves = 0;
  if (t->n_strips == 1 && t->mask == NY_ALL_LANES && t->bytes <= 16) return NY_LANES / group;
  uint32_t units = t->bytes >> log ? t->bytes >> log : 1;
  for (uint32_t from = 0; from < NY_LANES; from += group) {
    uint64_t at[NY_LANES][NY_LANES]; /* by bank; a group asks a bank for at most one unit a lane */
    uint8_t depth[NY_LANES] = {0}, most = 0;
    for (uint32_t l = from; l < from + group; l++) {
      if (!(t->mask >> l & 1)) continue;
      for (uint32_t k = 0; k < units; k++) {
        uint64_t x = (t->addr[l] >> log) + k;
        uint32_t bank = (uint32_t)x & (banks - 1), d = 0;
        while (d < depth[bank] && at[bank][d] != x) d++;
        if (d < depth[bank]) continue;
        at[bank][depth[bank]++] = x;
        if (depth[bank] > most) most = depth[bank];
      }
    }
    waves += most;
  }
  return waves;
}

static void cost(const ny_touch *t, ny_ptx_space space) {
  ny_sim_counters *c = &t->w->block->grid->count;
  if (space == NY_SHARED) {
    c->shared_ops++;
    c->shared_waves += wavefronts(t);
  } else {
    uint64_t all = (uint64_t)t->bytes * (uint32_t)__builtin_popcount(t->mask);
    c->global_ops++;
    c->global_sectors += sectors(t);
    if (t->how & NY_WRITE) c->global_write_bytes += all;
    if (t->how & NY_READ) c->global_read_bytes += all;
  }
}

/* What the checks want to know of an access that is within bounds. */
static void watch(const ny_touch *t, ny_ptx_space space) {
  const ny_sim_block *b = t->w->block;
  if (space == NY_SHARED && b->shadow) ny_shadow_shared(t);
  if (space == NY_GLOBAL && b->grid->global_shadow) ny_shadow_global(t);
}

/* ---- all lanes */
static uint32_t aligned(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, const uint64_t addr[NY_LANES],
                        uint32_t bytes, uint32_t align, uint32_t how) {
  uint64_t any = 0;
  NY_EACH_ACTIVE(l) any |= addr[l];
  if (!(any & (align - 1))) return mask;
  uint32_t ok = 0;
  NY_EACH_ACTIVE(l) {
    if (!(addr[l] & (align - 1)))
      ok |= 1u << l;
    else
      ny_find(w, i, l, NY_FIND_misaligned, addr[l], bytes, "%s at 0x%llx, which is not a multiple of %u", verb(how),
              (unsigned long long)addr[l], align);
  }
  return ok;
}

/* All lanes in one place at once: the base that turns addresses into pointers. */
static bool quick(ny_sim_warp *w, ny_ptx_space space, uint64_t low, uint64_t high, uint32_t bytes, uint32_t how,
                  uint64_t *base) {
  ny_sim_grid *g = w->block->grid;
  if (space == NY_SHARED) {
    *base = (uint64_t)(uintptr_t)w->block->shared;
    return high < w->block->shared_bytes && bytes <= w->block->shared_bytes - high;
  }
  if (space != NY_GLOBAL && space != NY_CONST) return false;
  if (high - low >= 1ull << 56) return false;
  const ny_sim_range *r = ny_range_of(g, low, high - low + bytes);
  *base = 0;
  return r && !(r->read_only && how & NY_WRITE);
}

static uint32_t access_space(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, ny_ptx_space space,
                             const uint64_t addr[NY_LANES], uint32_t bytes, uint32_t align, uint32_t how,
                             uint8_t *out[NY_LANES]) {
  uint64_t low = UINT64_MAX, high = 0, base;
  mask = aligned(w, i, mask, addr, bytes, align ? align : bytes, how);
  if (mask == NY_ALL_LANES) {
    for (int l = 0; l < NY_LANES; l++) {
      low = addr[l] < low ? addr[l] : low;
      high = addr[l] > high ? addr[l] : high;
    }
  } else {
    NY_EACH_ACTIVE(l) {
      low = addr[l] < low ? addr[l] : low;
      high = addr[l] > high ? addr[l] : high;
    }
  }
  if (mask && quick(w, space, low, high, bytes, how, &base)) {
    for (int l = 0; l < NY_LANES; l++) out[l] = (uint8_t *)(uintptr_t)(base + addr[l]);
  } else {
    uint32_t ok = 0;
    NY_EACH_ACTIVE(l) {
      out[l] = pointer(w, i, l, space, addr[l], bytes, how);
      if (out[l]) ok |= 1u << l;
    }
    mask = ok;
  }
  uint32_t checks = w->block->grid->launch->options.checks;
  if (!mask) return 0;
  if (how & NY_ATOMIC && space == NY_GLOBAL && ++w->polls == NY_POLLS) ny_yield(w);
  if (!checks || (space != NY_SHARED && space != NY_GLOBAL && space != NY_CONST)) return mask;
  ny_touch t;
  t.w = w, t.i = i, t.addr = addr, t.mask = mask, t.bytes = bytes, t.how = how;
  ny_touch_strips(&t);
  if (checks & NY_SIM_COUNT_MEMORY) cost(&t, space);
  watch(&t, space);
  return mask;
}

uint32_t ny_access(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, ny_ptx_space space,
                   const uint64_t addr[NY_LANES], uint32_t bytes, uint32_t align, uint32_t how,
                   uint8_t *out[NY_LANES]) {
  if (space != NY_GENERIC) return access_space(w, i, mask, space, addr, bytes, align, how, out);
  uint32_t ok = 0;
  while (mask) { /* the lanes of one space together */
    uint64_t at[NY_LANES];
    uint32_t same = 0;
    ny_ptx_space first = NY_GENERIC;
    NY_EACH_ACTIVE(l) {
      uint64_t a = addr[l];
      ny_ptx_space s = window(&a);
      if (first == NY_GENERIC) first = s;
      if (s == first) same |= 1u << l;
      at[l] = a;
    }
    uint8_t *p[NY_LANES];
    for (uint32_t l = 0; l < NY_LANES; l++)
      if (!(same >> l & 1)) at[l] = 0;
    uint32_t good = access_space(w, i, same, first, at, bytes, align, how, p);
    ok |= good;
    for (uint32_t l = 0; l < NY_LANES; l++)
      if (good >> l & 1) out[l] = p[l];
    mask &= ~same;
  }
  return ok;
}

/* A long access of one lane: in pieces for the shadow, so that any length is checked. */
uint8_t *ny_access_one(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, ny_ptx_space space, uint64_t addr,
                       uint64_t bytes, uint32_t align, uint32_t how) {
  if (space == NY_GENERIC) space = window(&addr);
  uint64_t at[NY_LANES] = {0};
  at[lane] = addr;
  if (align > 1 && !aligned(w, i, 1u << lane, at, (uint32_t)bytes, align, how)) return NULL;
  uint8_t *p = pointer(w, i, lane, space, addr, bytes, how);
  if (!p || !w->block->grid->launch->options.checks) return p;
  for (uint64_t done = 0; done < bytes; done += 1 << 20) {
    uint64_t left = bytes - done;
    at[lane] = addr + done;
    ny_touch t = {.w = w, .i = i, .addr = at, .mask = 1u << lane, .how = how};
    t.bytes = left < 1 << 20 ? (uint32_t)left : 1 << 20;
    ny_touch_strips(&t);
    watch(&t, space);
  }
  return p;
}
