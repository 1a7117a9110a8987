/* PTX names a new register for every value; a kernel has thousands. Registers whose values are never needed at the same
   time share a place here, so that those of a warp stay in the cache: liveness by blocks, then a linear scan over the
   stretches of code in which each is alive. Lanes are threads of their own, so what is right for one thread is right
   for all. */
#include "decode.h"
#include <stdlib.h>
#include <string.h>

enum { UNIT = NY_LANES * 4 }; /* a register of 32 bits; one of 64 takes two */
typedef struct ny_block {
  uint32_t from, to; /* instructions */
} ny_block;
typedef struct ny_alloc_state {
  ny_ptx_ins *code;
  uint32_t entry, end, base, n_units, words;
  ny_block *block;
  uint32_t n_blocks, *block_of; /* by instruction */
  uint64_t *in, *gen, *kill;    /* [block][words] */
  uint32_t *first, *last;       /* by unit: the stretch; first > last: never */
  uint8_t *wide;
} ny_alloc_state;

static bool is_register(const ny_alloc_state *s, const ny_ptx_arg *a, uint32_t *unit) {
  if ((a->kind != NY_ARG_LANES && a->kind != NY_ARG_MEM) || a->bank != NY_BANK_REG || a->off < s->base) return false;
  *unit = (a->off - s->base) / UNIT;
  return *unit < s->n_units;
}

static const uint32_t *table_of(const ny_ptx_ins *i) { return (const uint32_t *)(uintptr_t)i->data; }

/* ---- blocks */
static void mark_leaders(const ny_alloc_state *s, uint8_t *leader) {
  leader[0] = 1;
  for (uint32_t pc = s->entry; pc < s->end; pc++) {
    const ny_ptx_ins *i = &s->code[pc];
    if (i->flow == NY_FLOW_NEXT) continue;
    if (pc + 1 < s->end) leader[pc + 1 - s->entry] = 1;
    if (i->flow == NY_FLOW_BRANCH) leader[i->target - s->entry] = 1;
    if (i->flow == NY_FLOW_TABLE)
      for (uint32_t t = 0; t < table_of(i)[0]; t++) leader[table_of(i)[t + 1] - s->entry] = 1;
  }
}

static bool make_blocks(ny_alloc_state *s) {
  uint32_t n = s->end - s->entry;
  uint8_t *leader = calloc(n, 1);
  s->block = calloc(n, sizeof *s->block);
  s->block_of = calloc(n, sizeof *s->block_of);
  if (leader && s->block && s->block_of) {
    mark_leaders(s, leader);
    for (uint32_t k = 0; k < n; k++) {
      if (leader[k]) s->block[s->n_blocks++].from = s->entry + k;
      s->block[s->n_blocks - 1].to = s->entry + k + 1;
      s->block_of[k] = s->n_blocks - 1;
    }
  }
  free(leader);
  return s->n_blocks > 0;
}

/* ---- liveness */
static uint64_t *row(const ny_alloc_state *s, uint64_t *set, uint32_t block) { return set + (size_t)block * s->words; }
static bool has(const uint64_t *set, uint32_t k) { return set[k / 64] >> (k % 64) & 1; }
static void put(uint64_t *set, uint32_t k) { set[k / 64] |= 1ull << (k % 64); }

/* What a block reads before it writes, and what it writes for certain: a guarded write may leave the old value. */
static void scan_block(const ny_alloc_state *s, uint32_t b) {
  uint64_t *gen = row(s, s->gen, b), *kill = row(s, s->kill, b);
  for (uint32_t pc = s->block[b].from; pc < s->block[b].to; pc++) {
    const ny_ptx_ins *i = &s->code[pc];
    uint32_t u;
    for (int k = 0; k < i->n_arg; k++) {
      if (!is_register(s, &i->arg[k], &u)) continue;
      s->wide[u] = s->wide[u] || i->arg[k].width == 8;
      if (!(i->arg[k].flags & NY_ARG_WRITTEN) && !has(kill, u)) put(gen, u);
    }
    for (int k = 0; k < i->n_arg; k++)
      if (is_register(s, &i->arg[k], &u) && i->arg[k].flags & NY_ARG_WRITTEN && i->guard == NY_PRED_TRUE) put(kill, u);
  }
}

static bool take_in(const ny_alloc_state *s, uint64_t *live, uint32_t pc) {
  const uint64_t *in = row(s, s->in, s->block_of[pc - s->entry]);
  bool changed = false;
  for (uint32_t w = 0; w < s->words; w++) {
    changed = changed || in[w] & ~live[w];
    live[w] |= in[w];
  }
  return changed;
}

static void live_out(const ny_alloc_state *s, uint32_t b, uint64_t *live) {
  const ny_ptx_ins *i = &s->code[s->block[b].to - 1];
  memset(live, 0, s->words * sizeof *live);
  bool falls = i->flow == NY_FLOW_NEXT || i->guard != NY_PRED_TRUE;
  if (falls && s->block[b].to < s->end) take_in(s, live, s->block[b].to);
  if (i->flow == NY_FLOW_BRANCH) take_in(s, live, i->target);
  if (i->flow == NY_FLOW_TABLE)
    for (uint32_t t = 0; t < table_of(i)[0]; t++) take_in(s, live, table_of(i)[t + 1]);
}

static void propagate(const ny_alloc_state *s, uint64_t *live) {
  for (bool changed = true; changed;) {
    changed = false;
    for (uint32_t b = s->n_blocks; b-- > 0;) {
      live_out(s, b, live);
      uint64_t *in = row(s, s->in, b), *gen = row(s, s->gen, b), *kill = row(s, s->kill, b);
      for (uint32_t w = 0; w < s->words; w++) {
        uint64_t v = gen[w] | (live[w] & ~kill[w]);
        changed = changed || v != in[w];
        in[w] = v;
      }
    }
  }
}

static void alive(const ny_alloc_state *s, uint32_t u, uint32_t pc) {
  if (pc < s->first[u]) s->first[u] = pc;
  if (pc > s->last[u] || s->last[u] == UINT32_MAX) s->last[u] = pc;
}

static void all_alive(const ny_alloc_state *s, const uint64_t *set, uint32_t pc) {
  for (uint32_t w = 0; w < s->words; w++)
    for (uint64_t v = set[w]; v; v &= v - 1) alive(s, w * 64 + (uint32_t)__builtin_ctzll(v), pc);
}

static void stretches(const ny_alloc_state *s, uint64_t *live) {
  for (uint32_t u = 0; u < s->n_units; u++) s->first[u] = s->last[u] = UINT32_MAX;
  for (uint32_t b = 0; b < s->n_blocks; b++) {
    live_out(s, b, live);
    all_alive(s, row(s, s->in, b), s->block[b].from);
    all_alive(s, live, s->block[b].to - 1);
    for (uint32_t pc = s->block[b].from, u; pc < s->block[b].to; pc++)
      for (int k = 0; k < s->code[pc].n_arg; k++)
        if (is_register(s, &s->code[pc].arg[k], &u)) alive(s, u, pc);
  }
}

/* ---- places */
typedef struct ny_places {
  uint32_t *free[2], n_free[2]; /* by width */
  uint32_t top;                 /* units in use */
} ny_places;

static int by_first(const void *a, const void *b) {
  const uint32_t *x = a, *y = b; /* {pc, unit} */
  return x[0] < y[0] ? -1 : x[0] > y[0];
}

/* place[u]: where unit u now is. A place is free again after the instruction that needed it last. */
static bool assign(const ny_alloc_state *s, uint32_t *place, uint32_t *n_out) {
  uint32_t n = 0;
  uint32_t(*start)[2] = calloc(s->n_units, sizeof *start), (*end)[2] = calloc(s->n_units, sizeof *end);
  ny_places p = {{calloc(s->n_units, 4), calloc(s->n_units, 4)}, {0, 0}, 0};
  bool ok = start && end && p.free[0] && p.free[1];
  for (uint32_t u = 0; ok && u < s->n_units; u++) {
    if (s->first[u] == UINT32_MAX) continue;
    start[n][0] = s->first[u], start[n][1] = u;
    end[n][0] = s->last[u], end[n++][1] = u;
  }
  if (ok && n) {
    qsort(start, n, sizeof *start, by_first);
    qsort(end, n, sizeof *end, by_first);
  }
  for (uint32_t k = 0, e = 0; ok && k < n; k++) {
    for (; e < n && end[e][0] < start[k][0]; e++) {
      uint32_t u = end[e][1], w = s->wide[u];
      p.free[w][p.n_free[w]++] = place[u];
    }
    uint32_t u = start[k][1], w = s->wide[u];
    if (p.n_free[w]) {
      place[u] = p.free[w][--p.n_free[w]];
    } else {
      place[u] = p.top;
      p.top += w ? 2 : 1;
    }
  }
  free(start);
  free(end);
  free(p.free[0]);
  free(p.free[1]);
  *n_out = p.top;
  return ok;
}

static void rename_all(const ny_alloc_state *s, const uint32_t *place) {
  for (uint32_t pc = s->entry; pc < s->end; pc++) {
    ny_ptx_arg *a = (ny_ptx_arg *)(uintptr_t)s->code[pc].arg;
    uint32_t u;
    for (int k = 0; k < s->code[pc].n_arg; k++)
      if (is_register(s, &a[k], &u)) a[k].off = s->base + place[u] * UNIT;
  }
}

uint32_t ny_decode_registers(ny_ptx_decoder *dc, uint32_t base, uint32_t bytes) {
  ny_alloc_state s = {.code = dc->k->code, .entry = dc->at->entry, .end = dc->k->n_code, .base = base};
  s.n_units = bytes / UNIT;
  s.words = (s.n_units + 63) / 64;
  uint32_t used = s.n_units;
  if (s.n_units && make_blocks(&s)) {
    size_t n = (size_t)s.n_blocks * s.words;
    uint64_t *live = calloc(s.words, sizeof *live);
    uint32_t *place = calloc(s.n_units, sizeof *place);
    s.in = calloc(n, sizeof *s.in);
    s.gen = calloc(n, sizeof *s.gen);
    s.kill = calloc(n, sizeof *s.kill);
    s.first = calloc(s.n_units, sizeof *s.first);
    s.last = calloc(s.n_units, sizeof *s.last);
    s.wide = calloc(s.n_units, 1);
    if (live && place && s.in && s.gen && s.kill && s.first && s.last && s.wide) {
      for (uint32_t b = 0; b < s.n_blocks; b++) scan_block(&s, b);
      propagate(&s, live);
      stretches(&s, live);
      uint32_t top;
      if (assign(&s, place, &top)) {
        rename_all(&s, place);
        used = top;
      }
    }
    free(live);
    free(place);
  }
  free(s.block);
  free(s.block_of);
  free(s.in);
  free(s.gen);
  free(s.kill);
  free(s.first);
  free(s.last);
  free(s.wide);
  return used * UNIT;
}
