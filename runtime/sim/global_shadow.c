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

/* The page of addr, with cells no larger than grain. */
static const ny_cells *page_at(struct ny_shadow_global *s, uint64_t addr, uint32_t grain) {
  const ny_sim_range *r = ny_range_of(s->g, addr, 1);
  if (!r || !s->page) return NULL;
  uint64_t n = (uint64_t)(r - s->g->range), first = r->base / NY_PAGE;
  if (!s->page[n] && !(s->page[n] = calloc((r->base + r->bytes) / NY_PAGE - first + 1, sizeof **s->page))) return NULL;
  ny_cells *p = &s->page[n][addr / NY_PAGE - first];
  if (p->at && p->grain <= grain) return p;
  ny_cells fine = {(uint8_t *)take(s, (uint32_t)NY_PAGE >> grain), grain};
  if (!fine.at) return NULL;
  if (p->at) ny_cells_split(p, &fine, sizeof(ny_gcell));
  *p = fine;
  return p;
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
  const struct ny_shadow_global *s;
  ny_sim_warp *w;
  const ny_ptx_ins *i;
  uint32_t lane, bytes, how, block;
  uint64_t addr;
} ny_look;

static const char *verb(uint32_t how) { return how & NY_ATOMIC ? "atomic" : how & NY_WRITE ? "write" : "read"; }

static bool report(const ny_look *k, const ny_who *o, const char *what) {
  char near[120];
  ny_sim_grid *g = k->w->block->grid;
  bool across = o->block != k->block;
  ny_nearest(g, k->addr, near, sizeof near);
  ny_sim_site other = ny_site_of(g, o->block - k->s->base - 1, o->warp * (uint32_t)NY_LANES + o->lane, o->pc);
  ny_find_two(k->w, k->i, k->lane, &other, across ? NY_FIND_cross : NY_FIND_race, k->addr, k->bytes,
              across ? "%s of %u bytes at %s, which another block %s: blocks have no order"
                     : "%s of %u bytes at %s, which another thread of the block %s, and no barrier between",
              verb(k->how), k->bytes, near, what);
  return false;
}

/* Whether what o did is no matter to this access. */
static bool orderly(const ny_look *k, const ny_who *o) {
  if (o->block <= k->s->base || (o->atomic && k->how & NY_ATOMIC)) return true;
  const ny_shadow *own = k->w->block->shadow;
  if (o->block != k->block) return !(own->checks & NY_SIM_CROSS_BLOCK) || block_known(own, o->block - k->s->base - 1);
  if (!(own->checks & NY_SIM_RACES)) return true;
  uint32_t lane = o->lane;
  if (o->many && lane == k->lane) lane = lane ? lane - 1 : 1; /* some other lane */
  return ny_shadow_knows(k->w, k->lane, o->warp, lane, o->epoch);
}

static bool check_cell(const ny_look *k, const ny_gcell *c) {
  if (!orderly(k, &c->write)) return report(k, &c->write, "wrote");
  for (int r = 0; r < 2 && k->how & NY_WRITE; r++)
    if (!orderly(k, &c->read[r])) return report(k, &c->read[r], "read");
  return true;
}

static void check_lane(const ny_look *k, struct ny_shadow_global *s) {
  for (uint64_t at = k->addr, end = at + k->bytes; at < end;) {
    const ny_cells *p = page_at(s, at, 4);
    if (!p || !check_cell(k, (const ny_gcell *)p->at + (at % NY_PAGE >> p->grain))) return;
    at += 1ull << p->grain;
  }
}

/* Whether there is nothing to be found in a part of a strip. */
static bool clean(ny_look *k, const ny_strip *x, ny_run r) {
  const ny_gcell *cell = r.cell;
  bool write = k->how & NY_WRITE;
  for (uint32_t c = 0; c < r.n; c++) {
    k->lane = ny_run_lane(x, r, c);
    if (!orderly(k, &cell[c].write)) return false;
    if (write && (!orderly(k, &cell[c].read[0]) || !orderly(k, &cell[c].read[1]))) return false;
  }
  return true;
}

static void check_strip(const ny_touch *t, const ny_strip *x, ny_look *k, struct ny_shadow_global *s) {
  bool ok = true;
  for (uint64_t done = 0; done < x->bytes; done += ny_strip_part(x, done)) {
    const ny_cells *p = page_at(s, x->addr + done, t->grain);
    ok = ok && p && clean(k, x, ny_strip_run(x, done, p, sizeof(ny_gcell)));
  }
  for (uint32_t l = x->lane; !ok && l < x->lane + x->n; l++) {
    k->lane = l;
    k->addr = t->addr[l];
    check_lane(k, s);
  }
}

static void note_write(ny_gcell *c, const ny_who *by, uint32_t lane) {
  c->write = *by;
  c->write.lane = (uint8_t)lane;
}
static void note_read(ny_gcell *c, const ny_who *by, uint32_t lane, bool several) {
  ny_who *r = &c->read[0];
  bool many = several;
  if (r->block != by->block || r->warp != by->warp) r++;
  if (r->block == by->block && r->warp == by->warp) {
    many = several || (r->epoch == by->epoch && (r->many || r->lane != lane));
  } else {
    c->read[1] = c->read[0];
    r = &c->read[0];
  }
  *r = *by;
  r->lane = (uint8_t)lane;
  r->many = many;
}

static void note(const ny_touch *t, const ny_strip *x, const ny_who *by, struct ny_shadow_global *s) {
  for (uint64_t done = 0; done < x->bytes; done += ny_strip_part(x, done)) {
    const ny_cells *p = page_at(s, x->addr + done, t->grain);
    if (!p) return;
    ny_run r = ny_strip_run(x, done, p, sizeof(ny_gcell));
    if (x->same) r.lane += x->n - 1; /* the last one */
    ny_gcell *cell = r.cell;
    for (uint32_t c = 0; c < r.n; c++) {
      if (t->how & NY_WRITE)
        note_write(&cell[c], by, r.lane + (c >> r.per_lane));
      else
        note_read(&cell[c], by, r.lane + (c >> r.per_lane), x->same);
    }
  }
}

void ny_shadow_global(const ny_touch *t) {
  ny_sim_warp *w = t->w;
  struct ny_shadow_global *s = w->block->grid->global_shadow;
  ny_shadow *own = w->block->shadow;
  uint32_t mask = t->mask;
  if (!own) return;
  if (t->how & NY_ATOMIC) {
    NY_EACH_ACTIVE(l) {
      ny_shadow_strong(w, mask, t->addr[l], t->how & NY_READ);
      exchange(s, own, t->addr[l], w->block->linear, t->how);
    }
  }
  ny_look k = {s, w, t->i, 0, t->bytes, t->how, s->base + 1 + (uint32_t)w->block->linear, 0};
  for (uint32_t x = 0; x < t->n_strips; x++) check_strip(t, &t->strip[x], &k, s);
  ny_who by = {.block = k.block,
               .epoch = own->warp[w->index].epoch,
               .pc = ny_pc_of(w, t->i),
               .warp = (uint8_t)w->index,
               .atomic = t->how & NY_ATOMIC ? 1 : 0};
  for (uint32_t x = 0; x < t->n_strips; x++) note(t, &t->strip[x], &by, s);
  if (t->how & NY_ATOMIC && t->how & NY_WRITE) NY_EACH_ACTIVE(l) ny_shadow_strong(w, mask, t->addr[l], NY_WRITE);
}
