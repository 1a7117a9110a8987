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

static const ny_cells *page_at(ny_shadow *s, uint64_t at, uint32_t grain) {
  ny_cells *p = &s->page[at / NY_PAGE];
  if (p->at && p->grain <= grain) return p;
  ny_cells fine = {calloc((uint32_t)NY_PAGE >> grain, s->cell_bytes), grain};
  if (!fine.at) return NULL;
  if (p->at) ny_cells_split(p, &fine, s->cell_bytes);
  free(p->at);
  *p = fine;
  return p;
}
static ny_cell *cell_of(const ny_shadow *s, ny_run r, uint32_t k) {
  return (ny_cell *)((uint8_t *)r.cell + (size_t)k * s->cell_bytes);
}

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

static bool in_flight(const ny_cell *c, const ny_shadow *s) { return c->flags & IN_FLIGHT && c->epoch > s->base; }

static bool knows_write(const ny_sim_warp *w, uint32_t lane, uint32_t how, const ny_cell *c) {
  if (in_flight(c, w->block->shadow)) return false;
  return ny_shadow_knows(w, lane, c->warp, c->lane, c->epoch) || (how & NY_ATOMIC && c->flags & BY_ATOMIC);
}

/* Another reader that this lane knows nothing of, as lane number in the block; -1: none. */
static int unknown_reader(const ny_sim_warp *w, uint32_t lane, const ny_cell *c) {
  const ny_sim_block *b = w->block;
  for (uint32_t r = 0; r < b->n_warps; r++) {
    uint32_t epoch = (uint32_t)(c->read[r] >> 32), by = c->read[r] & 31;
    if (r == w->index && c->read[r] & MANY && by == lane) by = by ? by - 1 : 1; /* some other lane */
    if (!ny_shadow_knows(w, lane, r, by, epoch)) return (int)(r * NY_LANES + by);
  }
  return -1;
}

static bool check_write(const ny_look *k, const ny_cell *c) { /* against the last write */
  if (knows_write(k->w, k->lane, k->how, c)) return true;
  race(k, c->warp, c->lane, c->pc,
       in_flight(c, k->w->block->shadow) ? "an asynchronous copy to there that has not been waited for"
       : c->flags & BY_ATOMIC            ? "an atomic by another thread"
                                         : "a write by another thread");
  return false;
}

static bool check_reads(const ny_look *k, const ny_cell *c) {
  int by = unknown_reader(k->w, k->lane, c);
  if (by < 0) return true;
  uint32_t warp = (uint32_t)by / NY_LANES;
  race(k, warp, (uint32_t)by % NY_LANES, (uint32_t)c->read[warp] >> PC_SHIFT, "a read by another thread");
  return false;
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
  return check_write(k, c) && (!(k->how & NY_WRITE) || check_reads(k, c));
}

static void check_lane(const ny_look *k, const ny_shadow *s, uint64_t addr) {
  for (uint64_t at = addr, end = at + k->bytes; at < end;) {
    const ny_cells *p = &s->page[at / NY_PAGE];
    if (!p->at || !check_cell(k, s, cell_of(s, (ny_run){.cell = p->at}, (uint32_t)(at % NY_PAGE >> p->grain)))) return;
    at += 1ull << p->grain;
  }
}

/* Whether there is nothing to be found in a part of a strip. */
static bool clean(const ny_touch *t, const ny_strip *x, const ny_shadow *s, ny_run r) {
  for (uint32_t k = 0; k < r.n; k++) {
    const ny_cell *c = cell_of(s, r, k);
    uint32_t lane = ny_run_lane(x, r, k);
    if (t->how & NY_READ && s->checks & NY_SIM_UNINIT && c->epoch <= s->base) return false;
    if (!(s->checks & NY_SIM_RACES)) continue;
    if (!knows_write(t->w, lane, t->how, c)) return false;
    if (t->how & NY_WRITE && unknown_reader(t->w, lane, c) >= 0) return false;
  }
  return true;
}

static void check_strip(const ny_touch *t, const ny_strip *x, ny_shadow *s) {
  bool ok = true;
  for (uint64_t done = 0; done < x->bytes; done += ny_strip_part(x, done)) {
    const ny_cells *p = page_at(s, x->addr + done, t->grain);
    ok = ok && p && clean(t, x, s, ny_strip_run(x, done, p, s->cell_bytes));
  }
  for (uint32_t l = x->lane; !ok && l < x->lane + x->n; l++) {
    ny_look k = {t->w, t->i, l, t->bytes, t->how, t->addr[l]};
    check_lane(&k, s, k.addr);
  }
}

/* `by` is a constant of the loops around these, which the compiler keeps in a register; its lane is set apart. */
static void note_read(ny_cell *c, const ny_cell *by, uint32_t lane, bool several) {
  uint64_t *r = &c->read[by->warp], old = *r;
  uint64_t many = several || (old >> 32 == by->epoch && ((old & 31) != lane || old & MANY)) ? MANY : 0;
  *r = (uint64_t)by->epoch << 32 | (uint64_t)by->pc << PC_SHIFT | many | lane;
}
static void note_write(ny_cell *c, const ny_cell *by, uint32_t lane) {
  *c = *by;
  c->lane = (uint8_t)lane;
}

static void note(const ny_strip *x, uint32_t grain, bool write, ny_shadow *s, const ny_cell *by) {
  for (uint64_t done = 0; done < x->bytes; done += ny_strip_part(x, done)) {
    const ny_cells *p = page_at(s, x->addr + done, grain);
    if (!p) return;
    ny_run r = ny_strip_run(x, done, p, s->cell_bytes);
    if (x->same) r.lane += x->n - 1; /* the last one */
    for (uint32_t k = 0; k < r.n; k++) {
      if (write)
        note_write(cell_of(s, r, k), by, r.lane + (k >> r.per_lane));
      else
        note_read(cell_of(s, r, k), by, r.lane + (k >> r.per_lane), x->same);
    }
  }
}

/* All lanes are checked before any is noted: what one instruction does at once is no race with itself. */
void ny_shadow_shared(const ny_touch *t) {
  ny_sim_warp *w = t->w;
  ny_shadow *s = w->block->shadow;
  uint32_t mask = t->mask;
  if (!s->page) return;
  if (t->how & NY_ATOMIC) NY_EACH_ACTIVE(l) ny_shadow_strong(w, mask, t->addr[l], t->how & NY_READ);
  for (uint32_t k = 0; k < t->n_strips; k++) check_strip(t, &t->strip[k], s);
  ny_cell by = {.epoch = s->warp[w->index].epoch,
                .pc = ny_pc_of(w, t->i),
                .warp = (uint8_t)w->index,
                .flags = (uint8_t)((t->how & NY_ASYNC ? IN_FLIGHT : 0) | (t->how & NY_ATOMIC ? BY_ATOMIC : 0))};
  if (t->how & NY_WRITE || s->checks & NY_SIM_RACES)
    for (uint32_t k = 0; k < t->n_strips; k++) note(&t->strip[k], t->grain, t->how & NY_WRITE, s, &by);
  if (t->how & NY_ATOMIC && t->how & NY_WRITE) NY_EACH_ACTIVE(l) ny_shadow_strong(w, mask, t->addr[l], NY_WRITE);
}

void ny_shadow_land(ny_sim_warp *w, uint32_t lane, const ny_ptx_ins *i, uint64_t offset, uint64_t bytes,
                    ny_sim_clock *c) {
  ny_shadow *s = w->block->shadow;
  if (!s || !s->page || !bytes) return;
  ny_cell by = {.epoch = s->warp[w->index].epoch, .pc = ny_pc_of(w, i), .warp = (uint8_t)w->index};
  if (c) {
    by.warp = (uint8_t)(s->n - 1);
    by.epoch = ++s->landed;
    ny_shadow_publish(s, c);
  }
  ny_strip x = {.addr = offset, .bytes = bytes, .lane = lane, .n = 1};
  note(&x, (uint32_t)__builtin_ctzll(16 | offset | bytes), true, s, &by);
}
