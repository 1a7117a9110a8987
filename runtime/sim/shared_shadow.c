/* Shared memory under watch: for each cell who wrote it last and when each warp read it last. */
#include "launch.h"
#include <stdlib.h>
#include <string.h>

typedef struct ny_cell { /* the last write */
  uint32_t epoch, pc;
  uint8_t warp, lane, flags;
  uint64_t read[]; /* by warp, when races are looked for */
} ny_cell;
enum { IN_FLIGHT = 1, BY_ATOMIC = 2 };
/* A read: epoch in the upper half, then the instruction, whether several lanes did it, the lane. */
enum { MANY = 32, PC_SHIFT = 6 };

void ny_shadow_pages(ny_sim_block *b, ny_shadow *s) {
  s->n_pages = b->shared_bytes / NY_PAGE + 1;
  s->cell_bytes = (uint32_t)(sizeof(ny_cell) + (s->checks & NY_SIM_RACES ? b->n_warps * sizeof(uint64_t) : 0));
  s->page = calloc(s->n_pages, sizeof *s->page);
}

void ny_shadow_pages_free(ny_shadow *s) {
  for (uint32_t k = 0; s->page && k < s->n_pages; k++) free(s->page[k].at);
  free(s->page);
}

/* The cells of `bytes` from `at` on, which lie in one page. */
typedef struct ny_run {
  uint8_t *cell;
  uint32_t n;
} ny_run;
static ny_run run_at(ny_shadow *s, uint64_t at, uint64_t bytes, uint32_t grain) {
  ny_cells *p = &s->page[at / NY_PAGE];
  if (!p->at || p->grain > grain) {
    ny_cells fine = {calloc(NY_PAGE >> grain, s->cell_bytes), grain};
    if (!fine.at) return (ny_run){0};
    if (p->at) ny_cells_split(p, &fine, s->cell_bytes);
    free(p->at);
    *p = fine;
  }
  return (ny_run){p->at + (at % NY_PAGE >> p->grain) * s->cell_bytes, (uint32_t)(bytes >> p->grain)};
}
#define EACH_PART(from, bytes)                                                                                         \
  for (uint64_t at = (from), end = at + (bytes), part; at < end && (part = ny_cells_part(at, end), 1); at += part)

typedef struct ny_look { /* one access, for reports */
  ny_sim_warp *w;
  const ny_ptx_ins *i;
  uint32_t lane, bytes, how;
  uint64_t addr;
} ny_look;

static const char *verb(uint32_t how) {
  return how & NY_ASYNC ? "asynchronous copy" : how & NY_ATOMIC ? "atomic" : how & NY_WRITE ? "write" : "read";
}

static void race(const ny_look *k, uint32_t warp, uint32_t lane, uint32_t pc, const char *what) {
  const ny_sim_block *b = k->w->block;
  uint32_t by = warp < b->n_warps ? warp : 0;
  ny_sim_site other = ny_site_of(b->grid, b->linear, by * NY_LANES + lane, pc);
  ny_find_two(k->w, k->i, k->lane, &other, NY_FIND_race, k->addr, k->bytes,
              "%s of %u bytes at shared offset %llu, and no barrier since %s", verb(k->how), k->bytes,
              (unsigned long long)k->addr, what);
}

static bool check_write(const ny_look *k, const ny_cell *c) { /* against the last write */
  if (c->flags & IN_FLIGHT && c->epoch > k->w->block->shadow->base) {
    race(k, c->warp, c->lane, c->pc, "an asynchronous copy to there that has not been waited for");
    return false;
  }
  if (ny_shadow_knows(k->w, k->lane, c->warp, c->lane, c->epoch)) return true;
  if (k->how & NY_ATOMIC && c->flags & BY_ATOMIC) return true;
  race(k, c->warp, c->lane, c->pc, c->flags & BY_ATOMIC ? "an atomic by another thread" : "a write by another thread");
  return false;
}

static bool check_reads(const ny_look *k, const uint64_t *reads) {
  const ny_sim_block *b = k->w->block;
  const ny_shadow *s = b->shadow;
  const uint32_t *known = s->warp[k->w->index].known;
  for (uint32_t r = 0; r < b->n_warps; r++) {
    uint32_t epoch = (uint32_t)(reads[r] >> 32), lane = reads[r] & 31;
    if (epoch <= s->base || (r != k->w->index && epoch <= known[r])) continue;
    if (r == k->w->index) {
      bool several = reads[r] & MANY;
      if (several && lane == k->lane) lane = lane ? lane - 1 : 1; /* some other lane */
      if (ny_shadow_knows(k->w, k->lane, r, lane, epoch)) continue;
    }
    race(k, r, lane, (uint32_t)reads[r] >> PC_SHIFT, "a read by another thread");
    return false;
  }
  return true;
}

static void uninit(const ny_look *k) {
  ny_find(k->w, k->i, k->lane, NY_FIND_uninit, k->addr, k->bytes,
          "%u bytes at shared offset %llu of %u were never written", k->bytes, (unsigned long long)k->addr,
          k->w->block->shared_bytes);
}

static bool check_cell(const ny_look *k, const ny_shadow *s, const ny_cell *c) {
  if (k->how & NY_READ && s->checks & NY_SIM_UNINIT && c->epoch <= s->base) {
    uninit(k);
    return false;
  }
  if (!(s->checks & NY_SIM_RACES)) return true;
  return check_write(k, c) && (!(k->how & NY_WRITE) || check_reads(k, c->read));
}

static void check_lane(const ny_look *k, ny_shadow *s, uint32_t grain) {
  EACH_PART(k->addr, k->bytes) {
    ny_run r = run_at(s, at, part, grain);
    for (; r.n; r.n--, r.cell += s->cell_bytes)
      if (!check_cell(k, s, (const ny_cell *)r.cell)) return;
  }
}

static void note_read(ny_cell *c, const ny_cell *by) {
  uint64_t *r = &c->read[by->warp], old = *r;
  uint64_t many = old >> 32 == by->epoch && ((old & 31) != by->lane || old & MANY) ? MANY : 0;
  *r = (uint64_t)by->epoch << 32 | (uint64_t)by->pc << PC_SHIFT | many | by->lane;
}

static void note(ny_shadow *s, uint64_t addr, uint64_t bytes, uint32_t grain, const ny_cell *by, bool write) {
  if (!write && !(s->checks & NY_SIM_RACES)) return;
  EACH_PART(addr, bytes) {
    ny_run r = run_at(s, at, part, grain);
    for (; r.n; r.n--, r.cell += s->cell_bytes) {
      if (write)
        *(ny_cell *)r.cell = *by;
      else
        note_read((ny_cell *)r.cell, by);
    }
  }
}

/* All lanes are checked before any is noted: what one instruction does at once is no race with itself. */
void ny_shadow_shared(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, const uint64_t addr[NY_LANES], uint32_t bytes,
                      uint32_t how) {
  ny_shadow *s = w->block->shadow;
  if (!s->page || !bytes) return;
  uint32_t grain = ny_cells_grain(mask, addr, bytes);
  if (how & NY_ATOMIC) NY_EACH_ACTIVE(l) ny_shadow_strong(w, mask, addr[l], how & NY_READ);
  ny_look k = {.w = w, .i = i, .bytes = bytes, .how = how};
  NY_EACH_ACTIVE(l) {
    k.lane = l;
    k.addr = addr[l];
    check_lane(&k, s, grain);
  }
  ny_cell by = {.epoch = s->warp[w->index].epoch,
                .pc = ny_pc_of(w, i),
                .warp = (uint8_t)w->index,
                .flags = (uint8_t)((how & NY_ASYNC ? IN_FLIGHT : 0) | (how & NY_ATOMIC ? BY_ATOMIC : 0))};
  NY_EACH_ACTIVE(l) {
    by.lane = (uint8_t)l;
    note(s, addr[l], bytes, grain, &by, how & NY_WRITE);
  }
  if (how & NY_ATOMIC && how & NY_WRITE) NY_EACH_ACTIVE(l) ny_shadow_strong(w, mask, addr[l], NY_WRITE);
}

void ny_shadow_land(ny_sim_warp *w, uint32_t lane, const ny_ptx_ins *i, uint64_t offset, uint64_t bytes,
                    ny_sim_clock *c) {
  ny_shadow *s = w->block->shadow;
  if (!s || !s->page || !bytes) return;
  ny_cell by = {
      .epoch = s->warp[w->index].epoch, .pc = ny_pc_of(w, i), .warp = (uint8_t)w->index, .lane = (uint8_t)lane};
  if (c) {
    by.warp = (uint8_t)(s->n - 1);
    by.epoch = ++s->landed;
    ny_shadow_publish(s, c);
  }
  note(s, offset, bytes, (uint32_t)__builtin_ctzll(16 | offset | bytes), &by, true);
}
