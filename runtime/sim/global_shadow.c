/* Global memory under watch, for races inside of a block and conflicts between blocks. Cells come in pages that are
   made when first touched. Two readers are remembered: the last one, and the last one of another warp or block. */
#include "launch.h"
#include <stdlib.h>
#include <string.h>

typedef struct ny_who {
  uint32_t block; /* + 1, modulo 2^32; 0: nobody */
  uint32_t epoch, pc;
  uint8_t warp, lane, many, atomic;
} ny_who;
typedef struct ny_gcell {
  ny_who write, read[2];
} ny_gcell;
enum { PAGE_CELLS = 1024 };
struct ny_shadow_global {
  ny_sim_grid *g;
  uint32_t grain;
  ny_gcell ***page; /* [range][page] */
  ny_published *sync;
  uint64_t n_sync, cap_sync;
};

struct ny_shadow_global *ny_shadow_global_new(ny_sim_grid *g) {
  struct ny_shadow_global *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->g = g;
  s->grain = g->kernel->grain_global;
  s->page = calloc(g->n_ranges + 1, sizeof *s->page);
  return s;
}

static uint64_t pages_of(const struct ny_shadow_global *s, const ny_sim_range *r) {
  return ((r->bytes + (r->base & 15)) >> s->grain) / PAGE_CELLS + 1;
}

void ny_shadow_global_free(struct ny_shadow_global *s) {
  if (!s) return;
  for (uint32_t r = 0; s->page && r < s->g->n_ranges; r++) {
    if (!s->page[r]) continue;
    for (uint64_t k = 0; k < pages_of(s, &s->g->range[r]); k++) free(s->page[r][k]);
    free(s->page[r]);
  }
  free(s->page);
  free(s->sync);
  free(s);
}

static ny_gcell *cell_of(struct ny_shadow_global *s, uint64_t addr) {
  const ny_sim_range *r = ny_range_of(s->g, addr, 1);
  if (!r || !s->page) return NULL;
  uint64_t n = r - s->g->range, c = (addr - (r->base & ~15ull)) >> s->grain;
  if (!s->page[n] && !(s->page[n] = calloc(pages_of(s, r), sizeof **s->page))) return NULL;
  ny_gcell **p = &s->page[n][c / PAGE_CELLS];
  if (!*p && !(*p = calloc(PAGE_CELLS, sizeof **p))) return NULL;
  return *p + c % PAGE_CELLS;
}

/* ---- blocks that know of each other through atomics */
static ny_published *published(struct ny_shadow_global *s, uint64_t key, bool make) {
  if (s->n_sync * 2 >= s->cap_sync) {
    uint64_t cap = s->cap_sync ? s->cap_sync * 2 : 256;
    ny_published *t = calloc(cap, sizeof *t);
    if (!t) return NULL;
    for (uint64_t k = 0; k < s->cap_sync; k++) {
      if (!s->sync[k].key) continue;
      uint64_t h = s->sync[k].key * 0x9e3779b97f4a7c15u >> 20;
      while (t[h & (cap - 1)].key) h++;
      t[h & (cap - 1)] = s->sync[k];
    }
    free(s->sync);
    s->sync = t;
    s->cap_sync = cap;
  }
  uint64_t h = key * 0x9e3779b97f4a7c15u >> 20;
  for (;; h++) {
    ny_published *p = &s->sync[h & (s->cap_sync - 1)];
    if (p->key == key) return p;
    if (p->key) continue;
    if (!make) return NULL;
    *p = (ny_published){key, UINT64_MAX, 0};
    s->n_sync++;
    return p;
  }
}

static void exchange(struct ny_shadow_global *s, ny_shadow *own, uint64_t addr, uint64_t block, uint32_t how) {
  ny_published *p = published(s, addr, true);
  if (!p) return;
  if (how & NY_READ && p->first <= p->last) {
    uint32_t k = 0;
    while (k < own->n_seen && own->seen[k].key != addr) k++;
    if (k == NY_COUNT(own->seen)) k = 0;
    own->seen[k] = *p;
    if (k == own->n_seen) own->n_seen++;
  }
  if (how & NY_WRITE) {
    if (block < p->first) p->first = block;
    if (block > p->last) p->last = block;
  }
}

static bool block_known(const ny_shadow *s, uint64_t block) {
  for (uint32_t k = 0; k < s->n_seen; k++)
    if (block >= s->seen[k].first && block <= s->seen[k].last) return true;
  return false;
}

/* ---- checks */
typedef struct ny_look {
  ny_sim_warp *w;
  const ny_ptx_ins *i;
  uint32_t lane, bytes, how;
  uint64_t addr, block;
} ny_look;

static const char *verb(uint32_t how) { return how & NY_ATOMIC ? "atomic" : how & NY_WRITE ? "write" : "read"; }

static bool report(const ny_look *k, const ny_who *o, const char *what, bool across) {
  char near[120];
  ny_sim_grid *g = k->w->block->grid;
  ny_nearest(g, k->addr, near, sizeof near);
  ny_sim_site other = ny_site_of(g, o->block - 1, o->warp * (uint32_t)NY_LANES + o->lane, o->pc);
  ny_find_two(k->w, k->i, k->lane, &other, across ? NY_FIND_cross : NY_FIND_race, k->addr, k->bytes,
              across ? "%s of %u bytes at %s, which another block %s: blocks have no order"
                     : "%s of %u bytes at %s, which another thread of the block %s, and no barrier between",
              verb(k->how), k->bytes, near, what);
  return false;
}

static bool check(const struct ny_shadow_global *s, const ny_look *k, const ny_who *o, const char *what) {
  if (!o->block) return true;
  if (o->atomic && k->how & NY_ATOMIC) return true;
  uint32_t checks = s->g->launch->options.checks;
  if (o->block != (uint32_t)(k->block + 1)) {
    if (!(checks & NY_SIM_CROSS_BLOCK) || block_known(k->w->block->shadow, o->block - 1)) return true;
    return report(k, o, what, true);
  }
  if (!(checks & NY_SIM_RACES)) return true;
  uint32_t lane = o->lane;
  if (o->many && lane == k->lane) lane = lane ? lane - 1 : 1;
  return ny_shadow_knows(k->w, k->lane, o->warp, lane, o->epoch) || report(k, o, what, false);
}

static void check_lane(struct ny_shadow_global *s, const ny_look *k) {
  uint64_t step = 1ull << s->grain;
  for (uint64_t a = k->addr & ~(step - 1); a < k->addr + k->bytes; a += step) {
    const ny_gcell *c = cell_of(s, a < k->addr ? k->addr : a);
    if (!c) return;
    if (!check(s, k, &c->write, "wrote")) return;
    if (!(k->how & NY_WRITE)) continue;
    if (!check(s, k, &c->read[0], "read") || !check(s, k, &c->read[1], "read")) return;
  }
}

static void note_read(ny_gcell *c, ny_who by) {
  for (int k = 0; k < 2; k++) {
    ny_who *r = &c->read[k];
    if (r->block != by.block || r->warp != by.warp) continue;
    by.many = r->epoch == by.epoch && (r->many || r->lane != by.lane);
    *r = by;
    return;
  }
  c->read[1] = c->read[0];
  c->read[0] = by;
}

void ny_shadow_global(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, const uint64_t addr[NY_LANES], uint32_t bytes,
                      uint32_t how) {
  struct ny_shadow_global *s = w->block->grid->global_shadow;
  uint32_t all = mask;
  uint64_t step = 1ull << s->grain;
  if (!bytes || !w->block->shadow) return;
  if (how & NY_ATOMIC) {
    NY_EACH_ACTIVE(l) {
      ny_shadow_strong(w, mask, addr[l], how & NY_READ);
      exchange(s, w->block->shadow, addr[l], w->block->linear, how);
    }
    mask = all;
  }
  NY_EACH_ACTIVE(l) {
    ny_look k = {w, i, l, bytes, how, addr[l], w->block->linear};
    check_lane(s, &k);
  }
  mask = all;
  ny_who note = {
      (uint32_t)(w->block->linear + 1), w->block->shadow->warp[w->index].epoch, ny_pc_of(w, i), (uint8_t)w->index, 0, 0,
      how & NY_ATOMIC ? 1 : 0};
  NY_EACH_ACTIVE(l) {
    note.lane = (uint8_t)l;
    for (uint64_t a = addr[l] & ~(step - 1); a < addr[l] + bytes; a += step) {
      ny_gcell *c = cell_of(s, a < addr[l] ? addr[l] : a);
      if (!c) break;
      if (how & NY_WRITE)
        c->write = note;
      else
        note_read(c, note);
    }
  }
  mask = all;
  if (how & NY_ATOMIC && how & NY_WRITE) NY_EACH_ACTIVE(l) ny_shadow_strong(w, mask, addr[l], NY_WRITE);
}
