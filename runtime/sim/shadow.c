/* Happens-before between the warps of a block, and between the lanes of a warp: vector clocks. Barriers, mbarriers
   and atomics are edges; what has no edge between it is a race, whichever order it happened to run in. */
#include "launch.h"
#include <stdlib.h>
#include <string.h>

struct ny_sim_clock {
  uint64_t key; /* 0: free */
  uint32_t *known;
};

ny_shadow *ny_shadow_new(ny_sim_block *b, uint32_t checks) {
  ny_shadow *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->n = b->n_warps + 1;
  s->checks = checks;
  s->warp = calloc(b->n_warps, sizeof *s->warp);
  for (uint32_t k = 0; s->warp && k < b->n_warps; k++) s->warp[k].known = calloc(s->n, sizeof(uint32_t));
  if (checks & (NY_SIM_RACES | NY_SIM_UNINIT)) ny_shadow_pages(b, s);
  return s;
}

static void free_clocks(ny_shadow *s) {
  for (uint32_t k = 0; k < s->cap_clocks; k++) free(s->clock[k].known);
  free(s->clock);
  s->clock = NULL;
  s->n_clocks = s->cap_clocks = 0;
}

void ny_shadow_free(ny_shadow *s) {
  if (!s) return;
  free_clocks(s);
  for (uint32_t k = 0; k + 1 < s->n; k++) {
    free(s->warp[k].known);
    free(s->warp[k].lane);
  }
  free(s->warp);
  ny_shadow_pages_free(s);
  free(s);
}

/* Epochs only grow, so that nothing need be cleared: what an earlier block did is at or below base. */
void ny_shadow_begin(ny_sim_block *b) {
  ny_shadow *s = b->shadow;
  for (uint32_t k = 0; k + 1 < s->n; k++)
    if (s->warp[k].epoch > s->base) s->base = s->warp[k].epoch;
  if (s->landed > s->base) s->base = s->landed;
  s->landed = s->base;
  for (uint32_t k = 0; k + 1 < s->n; k++) {
    s->warp[k].epoch = s->base + 1;
    s->warp[k].full = s->base;
    for (uint32_t j = 0; j < s->n; j++) s->warp[k].known[j] = s->base;
    free(s->warp[k].lane);
    s->warp[k].lane = NULL;
  }
  free_clocks(s);
  s->n_seen = 0;
}

static bool grow(ny_shadow *s) {
  uint32_t cap = s->cap_clocks ? s->cap_clocks * 2 : 64;
  struct ny_sim_clock *old = s->clock, *c = calloc(cap, sizeof *c);
  if (!c) return false;
  for (uint32_t k = 0; k < s->cap_clocks; k++) {
    if (!old[k].known) continue;
    uint64_t h = old[k].key * 0x9e3779b97f4a7c15u >> 40;
    while (c[h & (cap - 1)].known) h++;
    c[h & (cap - 1)] = old[k];
  }
  free(old);
  s->clock = c;
  s->cap_clocks = cap;
  return true;
}

ny_sim_clock *ny_shadow_clock(ny_sim_block *b, uint64_t key) {
  ny_shadow *s = b->shadow;
  if (!s) return NULL;
  if (s->n_clocks * 2 >= s->cap_clocks && !grow(s)) return NULL;
  uint64_t h = key * 0x9e3779b97f4a7c15u >> 40;
  for (;; h++) {
    struct ny_sim_clock *c = &s->clock[h & (s->cap_clocks - 1)];
    if (c->known && c->key == key) return c;
    if (c->known) continue;
    c->key = key;
    c->known = malloc(s->n * sizeof *c->known);
    if (!c->known) return NULL;
    for (uint32_t k = 0; k < s->n; k++) c->known[k] = s->base;
    s->n_clocks++;
    return c;
  }
}

static void join(uint32_t *into, const uint32_t *from, uint32_t n) {
  for (uint32_t k = 0; k < n; k++) into[k] = from[k] > into[k] ? from[k] : into[k];
}

void ny_shadow_release(ny_sim_warp *w, uint32_t mask, ny_sim_clock *c) {
  (void)mask;
  if (!c) return;
  ny_shadow *s = w->block->shadow;
  ny_warp_clock *k = &s->warp[w->index];
  join(c->known, k->known, s->n);
  if (k->epoch > c->known[w->index]) c->known[w->index] = k->epoch;
  k->epoch++;
}

/* What the whole warp may know: where only some lanes acquire, the others are taken to follow them. At a block barrier
   lanes also come to know of each other. */
void ny_shadow_acquire(ny_sim_warp *w, uint32_t mask, ny_sim_clock *c) {
  if (!c) return;
  ny_shadow *s = w->block->shadow;
  ny_warp_clock *k = &s->warp[w->index];
  join(k->known, c->known, s->n);
  if (mask == NY_ALL_LANES && c->known[w->index] > k->full) k->full = c->known[w->index];
}

void ny_shadow_warp_sync(ny_sim_warp *w, uint32_t mask) {
  ny_shadow *s = w->block->shadow;
  if (!s) return;
  ny_warp_clock *k = &s->warp[w->index];
  if (!(w->live & ~mask)) {
    k->full = k->epoch++;
    return;
  }
  if (!k->lane) {
    k->lane = malloc(NY_LANES * sizeof *k->lane);
    if (!k->lane) return;
    for (int b = 0; b < NY_LANES; b++)
      for (int a = 0; a < NY_LANES; a++) k->lane[b][a] = k->full;
  }
  uint32_t all[NY_LANES] = {0};
  NY_EACH_ACTIVE(l) {
    join(all, k->lane[l], NY_LANES);
    all[l] = k->epoch;
  }
  NY_EACH_ACTIVE(l) memcpy(k->lane[l], all, sizeof all);
  k->epoch++;
}

void ny_shadow_publish(const ny_shadow *s, ny_sim_clock *c) {
  if (s->landed > c->known[s->n - 1]) c->known[s->n - 1] = s->landed;
}

/* Atomics order what their threads did around them. That is more than a relaxed one promises: code that forgets the
   fence beside its atomic is not found. */
void ny_shadow_strong(ny_sim_warp *w, uint32_t mask, uint64_t key, uint32_t how) {
  ny_sim_clock *c = ny_shadow_clock(w->block, key);
  if (how & NY_READ) ny_shadow_acquire(w, 0, c);
  if (how & NY_WRITE) ny_shadow_release(w, mask, c);
}
