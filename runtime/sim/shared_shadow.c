/* Shared memory under watch: for each cell who wrote it last and when each warp read it last. A cell is as large as the
   smallest access of the kernel, so a GEMM that only moves 16 bytes at a time pays for few. */
#include "launch.h"
#include <stdlib.h>
#include <string.h>

typedef struct ny_cell { /* the last write */
  uint32_t epoch, pc;
  uint8_t warp, lane, flags;
} ny_cell;
enum { IN_FLIGHT = 1, BY_ATOMIC = 2 };
/* A read: epoch in the upper half, then the instruction, whether several lanes did it, the lane. */
enum { MANY = 32, PC_SHIFT = 6 };

void ny_shadow_cells(ny_sim_block *b, ny_shadow *s) {
  size_t n = ((size_t)b->shared_bytes >> s->grain) + 1;
  s->cell = calloc(n, sizeof *s->cell);
  if (s->checks & NY_SIM_RACES) s->reads = calloc(n * b->n_warps, sizeof *s->reads);
  if (!s->reads && s->checks & NY_SIM_RACES) s->checks &= ~(uint32_t)NY_SIM_RACES;
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

static void check_lane(const ny_look *k, const ny_shadow *s, uint64_t first, uint64_t last) {
  uint32_t n = s->n - 1;
  for (uint64_t c = first; c <= last; c++) {
    const ny_cell *cell = &s->cell[c];
    if (k->how & NY_READ && s->checks & NY_SIM_UNINIT && cell->epoch <= s->base) {
      uninit(k);
      return;
    }
    if (!(s->checks & NY_SIM_RACES)) continue;
    if (!check_write(k, cell) || (k->how & NY_WRITE && !check_reads(k, s->reads + c * n))) return;
  }
}

static void note_read(const ny_shadow *s, uint64_t cell, uint32_t warp, uint32_t epoch, uint32_t pc, uint32_t lane) {
  uint64_t *r = &s->reads[cell * (s->n - 1) + warp], old = *r;
  uint64_t many = old >> 32 == epoch && ((old & 31) != lane || old & MANY) ? MANY : 0;
  *r = (uint64_t)epoch << 32 | (uint64_t)pc << PC_SHIFT | many | lane;
}

/* All lanes are checked before any is noted: what one instruction does at once is no race with itself. */
void ny_shadow_shared(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, const uint64_t addr[NY_LANES], uint32_t bytes,
                      uint32_t how) {
  ny_shadow *s = w->block->shadow;
  if (!s->cell || !bytes) return;
  uint32_t epoch = s->warp[w->index].epoch, pc = ny_pc_of(w, i), all = mask;
  if (how & NY_ATOMIC) NY_EACH_ACTIVE(l) ny_shadow_strong(w, mask, addr[l], how & NY_READ);
  NY_EACH_ACTIVE(l) {
    ny_look k = {w, i, l, bytes, how, addr[l]};
    check_lane(&k, s, addr[l] >> s->grain, (addr[l] + bytes - 1) >> s->grain);
  }
  mask = all;
  ny_cell note = {epoch, pc, (uint8_t)w->index, 0,
                  (uint8_t)((how & NY_ASYNC ? IN_FLIGHT : 0) | (how & NY_ATOMIC ? BY_ATOMIC : 0))};
  NY_EACH_ACTIVE(l) {
    note.lane = (uint8_t)l;
    for (uint64_t c = addr[l] >> s->grain; c <= (addr[l] + bytes - 1) >> s->grain; c++) {
      if (how & NY_WRITE)
        s->cell[c] = note;
      else if (s->reads)
        note_read(s, c, w->index, epoch, pc, l);
    }
  }
  mask = all;
  if (how & NY_ATOMIC && how & NY_WRITE) NY_EACH_ACTIVE(l) ny_shadow_strong(w, mask, addr[l], NY_WRITE);
}

void ny_shadow_land(ny_sim_warp *w, uint32_t lane, const ny_ptx_ins *i, uint64_t offset, uint64_t bytes,
                    ny_sim_clock *c) {
  ny_shadow *s = w->block->shadow;
  if (!s || !s->cell || !bytes) return;
  ny_cell note = {s->warp[w->index].epoch, ny_pc_of(w, i), (uint8_t)w->index, (uint8_t)lane, 0};
  if (c) {
    note.warp = (uint8_t)(s->n - 1);
    note.epoch = ++s->landed;
    ny_shadow_publish(s, c);
  }
  for (uint64_t k = offset >> s->grain; k <= (offset + bytes - 1) >> s->grain; k++) s->cell[k] = note;
}
