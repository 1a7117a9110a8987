/* Global memory under watch, for races inside of a block and conflicts between blocks. Two readers are remembered: the
   last one, and the last one of another warp or block. The memory of the cells stays for the launches that follow:
   blocks are numbered on from launch to launch, so that nothing need be cleared. */
#include "launch.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct ny_who {
  uint32_t block; /* its number; up to base: of an earlier launch, nobody */
  uint32_t epoch, pc;
  uint8_t warp, lane, many, atomic;
} ny_who;
typedef struct ny_gcell {
  ny_who write, read[2];
} ny_gcell;
enum { SLAB_CELLS = 1 << 14, KEPT_SLABS = 64 };
struct ny_shadow_global {
  ny_sim_grid *g;
  ny_cells **page;     /* [range][page] */
  uint32_t base, last; /* blocks of this launch are numbered base + 1 to last */
  ny_gcell **slab;
  uint32_t n_slabs, cap_slabs, full, used; /* full: slabs given out whole; used: cells of the next one */
  ny_published *sync;
  uint64_t n_sync, cap_sync;
};

/* ---- memory that waits for the next launch */
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ny_shadow_global *spare;
static struct ny_shadow_global *exchange_spare(struct ny_shadow_global *s) {
  pthread_mutex_lock(&spare_lock);
  struct ny_shadow_global *before = spare;
  spare = s;
  pthread_mutex_unlock(&spare_lock);
  return before;
}

static void drop(struct ny_shadow_global *s) {
  for (uint32_t k = 0; s && k < s->n_slabs; k++) free(s->slab[k]);
  if (s) free(s->slab);
  free(s);
}
__attribute__((destructor)) static void drop_spare(void) { drop(exchange_spare(NULL)); }

struct ny_shadow_global *ny_shadow_global_new(ny_sim_grid *g) {
  struct ny_shadow_global *s = exchange_spare(NULL);
  if (!s && !(s = calloc(1, sizeof *s))) return NULL;
  const uint32_t *grid = g->launch->grid;
  uint64_t blocks = (uint64_t)grid[0] * grid[1] * grid[2];
  if (blocks > UINT32_MAX - s->last) { /* no numbers left */
    for (uint32_t k = 0; k < s->n_slabs; k++) memset(s->slab[k], 0, SLAB_CELLS * sizeof **s->slab);
    s->last = 0;
  }
  s->g = g;
  s->base = s->last;
  s->last = blocks > UINT32_MAX ? UINT32_MAX : s->base + (uint32_t)blocks;
  s->page = calloc(g->n_ranges + 1, sizeof *s->page);
  return s;
}

void ny_shadow_global_free(struct ny_shadow_global *s) {
  if (!s) return;
  for (uint32_t r = 0; s->page && r < s->g->n_ranges; r++) free(s->page[r]);
  free(s->page);
  free(s->sync);
  while (s->n_slabs > KEPT_SLABS) free(s->slab[--s->n_slabs]);
  s->page = NULL;
  s->sync = NULL;
  s->n_sync = s->cap_sync = s->full = s->used = 0;
  drop(exchange_spare(s));
}

/* ---- cells */
static ny_gcell *take(struct ny_shadow_global *s, uint32_t n) {
  if (s->used + n > SLAB_CELLS) {
    s->full++;
    s->used = 0;
  }
  if (s->full == s->n_slabs) {
    if (s->n_slabs == s->cap_slabs) {
      uint32_t cap = s->cap_slabs ? s->cap_slabs * 2 : 16;
      ny_gcell **slab = realloc(s->slab, cap * sizeof *slab);
      if (!slab) return NULL;
      s->slab = slab;
      s->cap_slabs = cap;
    }
    if (!(s->slab[s->n_slabs] = calloc(SLAB_CELLS, sizeof **s->slab))) return NULL;
    s->n_slabs++;
  }
  s->used += n;
  return s->slab[s->full] + s->used - n;
}

typedef struct ny_run {
  ny_gcell *cell;
  uint32_t n;
} ny_run;
/* The cells of `bytes` from addr on, which lie in one page. */
static ny_run run_at(struct ny_shadow_global *s, uint64_t addr, uint64_t bytes, uint32_t grain) {
  const ny_sim_range *r = ny_range_of(s->g, addr, bytes);
  if (!r || !s->page) return (ny_run){0};
  uint64_t n = (uint64_t)(r - s->g->range), first = r->base / NY_PAGE;
  if (!s->page[n] && !(s->page[n] = calloc((r->base + r->bytes) / NY_PAGE - first + 1, sizeof **s->page)))
    return (ny_run){0};
  ny_cells *p = &s->page[n][addr / NY_PAGE - first];
  if (!p->at || p->grain > grain) {
    ny_cells fine = {(uint8_t *)take(s, NY_PAGE >> grain), grain};
    if (!fine.at) return (ny_run){0};
    if (p->at) ny_cells_split(p, &fine, sizeof(ny_gcell));
    *p = fine;
  }
  return (ny_run){(ny_gcell *)p->at + (addr % NY_PAGE >> p->grain), (uint32_t)(bytes >> p->grain)};
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
  uint32_t lane, bytes, how, block;
  uint64_t addr;
} ny_look;

static const char *verb(uint32_t how) { return how & NY_ATOMIC ? "atomic" : how & NY_WRITE ? "write" : "read"; }

static bool report(const ny_look *k, const ny_who *o, const char *what, bool across) {
  char near[120];
  ny_sim_grid *g = k->w->block->grid;
  ny_nearest(g, k->addr, near, sizeof near);
  ny_sim_site other =
      ny_site_of(g, o->block - g->global_shadow->base - 1, o->warp * (uint32_t)NY_LANES + o->lane, o->pc);
  ny_find_two(k->w, k->i, k->lane, &other, across ? NY_FIND_cross : NY_FIND_race, k->addr, k->bytes,
              across ? "%s of %u bytes at %s, which another block %s: blocks have no order"
                     : "%s of %u bytes at %s, which another thread of the block %s, and no barrier between",
              verb(k->how), k->bytes, near, what);
  return false;
}

static bool check(const struct ny_shadow_global *s, const ny_look *k, const ny_who *o, const char *what) {
  if (o->block <= s->base) return true;
  if (o->atomic && k->how & NY_ATOMIC) return true;
  uint32_t checks = s->g->launch->options.checks;
  if (o->block != k->block) {
    if (!(checks & NY_SIM_CROSS_BLOCK) || block_known(k->w->block->shadow, o->block - s->base - 1)) return true;
    return report(k, o, what, true);
  }
  if (!(checks & NY_SIM_RACES)) return true;
  uint32_t lane = o->lane;
  if (o->many && lane == k->lane) lane = lane ? lane - 1 : 1;
  return ny_shadow_knows(k->w, k->lane, o->warp, lane, o->epoch) || report(k, o, what, false);
}

static bool check_cell(const struct ny_shadow_global *s, const ny_look *k, const ny_gcell *c) {
  if (!check(s, k, &c->write, "wrote")) return false;
  return !(k->how & NY_WRITE) || (check(s, k, &c->read[0], "read") && check(s, k, &c->read[1], "read"));
}

static void check_lane(struct ny_shadow_global *s, const ny_look *k, uint32_t grain) {
  for (uint64_t at = k->addr, end = at + k->bytes, part; at < end; at += part) {
    part = ny_cells_part(at, end);
    ny_run r = run_at(s, at, part, grain);
    for (; r.n; r.n--, r.cell++)
      if (!check_cell(s, k, r.cell)) return;
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

static void note(struct ny_shadow_global *s, const ny_look *k, uint32_t grain, ny_who by) {
  for (uint64_t at = k->addr, end = at + k->bytes, part; at < end; at += part) {
    part = ny_cells_part(at, end);
    ny_run r = run_at(s, at, part, grain);
    for (; r.n; r.n--, r.cell++) {
      if (k->how & NY_WRITE)
        r.cell->write = by;
      else
        note_read(r.cell, by);
    }
  }
}

void ny_shadow_global(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, const uint64_t addr[NY_LANES], uint32_t bytes,
                      uint32_t how) {
  struct ny_shadow_global *s = w->block->grid->global_shadow;
  ny_shadow *own = w->block->shadow;
  if (!bytes || !own) return;
  if (how & NY_ATOMIC) {
    NY_EACH_ACTIVE(l) {
      ny_shadow_strong(w, mask, addr[l], how & NY_READ);
      exchange(s, own, addr[l], w->block->linear, how);
    }
  }
  uint32_t grain = ny_cells_grain(mask, addr, bytes);
  ny_look k = {.w = w, .i = i, .bytes = bytes, .how = how, .block = s->base + 1 + (uint32_t)w->block->linear};
  NY_EACH_ACTIVE(l) {
    k.lane = l;
    k.addr = addr[l];
    check_lane(s, &k, grain);
  }
  ny_who by = {k.block, own->warp[w->index].epoch, ny_pc_of(w, i), (uint8_t)w->index, 0, 0, how & NY_ATOMIC ? 1 : 0};
  NY_EACH_ACTIVE(l) {
    by.lane = (uint8_t)l;
    k.addr = addr[l];
    note(s, &k, grain, by);
  }
  if (how & NY_ATOMIC && how & NY_WRITE) NY_EACH_ACTIVE(l) ny_shadow_strong(w, mask, addr[l], NY_WRITE);
}
