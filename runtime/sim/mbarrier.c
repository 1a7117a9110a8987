/* mbarrier objects: arrivals and transaction bytes that end a phase, and waits for it. The object is the 64-bit word in
   shared memory itself: pending arrivals in bits 0-19, arrivals a phase expects in 20-39, bytes under way in 40-61
   (two's complement), 62 "initialised", 63 the phase. So whatever a kernel does to that memory, it does to the object.
 */
#include "async.h"
#include <stdlib.h>
#include <string.h>

#define COUNT_MASK 0xfffffu
#define TX_BITS 22
#define VALID ((uint64_t)1 << 62)
#define PHASE ((uint64_t)1 << 63)
enum { MAX_TX = (1 << 20) - 1, MAX_POLLS = 1 << 15 };

typedef struct fields {
  uint32_t pending, expected;
  int32_t tx;
  bool phase;
} fields;
static fields read_word(const uint8_t *p) {
  uint64_t u;
  memcpy(&u, p, 8);
  return (fields){(uint32_t)(u & COUNT_MASK), (uint32_t)(u >> 20 & COUNT_MASK),
                  (int32_t)(uint32_t)(u >> 40 << (32 - TX_BITS)) >> (32 - TX_BITS), u >> 63};
}
static void write_word(uint8_t *p, fields f) {
  if (!f.pending && !f.tx) { /* the phase is complete and the next one begins */
    f.phase = !f.phase;
    f.pending = f.expected;
  }
  uint64_t tx = (uint32_t)f.tx & ((1u << TX_BITS) - 1);
  uint64_t u = f.pending | (uint64_t)f.expected << 20 | tx << 40 | VALID | (f.phase ? PHASE : 0);
  memcpy(p, &u, 8);
}

/* ---- waits that go round in circles: the same word seen again and again by the same warp */
typedef struct spin {
  uint64_t word;
  uint32_t offset, polls;
} spin;
static void end(ny_sim_block *b, void *p) {
  free(p);
  b->ext[NY_EXT_MBARRIER] = (ny_sim_ext){0};
}
static spin *spin_of(ny_sim_warp *w) {
  ny_sim_ext *ext = &w->block->ext[NY_EXT_MBARRIER];
  if (!ext->p) *ext = (ny_sim_ext){.p = calloc(w->block->n_warps, sizeof(spin)), .end = end};
  if (!ext->p) {
    fprintf(stderr, "nybble: out of memory for the waits of a simulated block\n");
    abort();
  }
  return (spin *)ext->p + w->index;
}
static void waited(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, const uint8_t *p) {
  spin *s = spin_of(w);
  uint64_t word;
  memcpy(&word, p, 8);
  uint32_t offset = (uint32_t)(p - w->block->shared);
  if (s->word != word || s->offset != offset) *s = (spin){word, offset, 0};
  if (++s->polls < MAX_POLLS) {
    ny_yield(w);
    return;
  }
  fields f = read_word(p);
  ny_find(w, i, lane, NY_FIND_deadlock, offset, 8,
          "the mbarrier still misses %u of %u arrivals and %d bytes after %u waits", f.pending, f.expected, f.tx,
          s->polls);
  w->block->grid->stop = true;
}

/* ---- access */
static uint8_t *object(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, uint64_t addr, uint32_t how) {
  ny_ptx_space space = (ny_ptx_space)i->space;
  if (space == NY_GENERIC && (addr & NY_WINDOW_MASK) != NY_SHARED_WINDOW) {
    ny_find(w, i, lane, NY_FIND_invalid, addr, 8, "an mbarrier lies in shared memory");
    return NULL;
  }
  uint8_t *p = ny_access_one(w, i, lane, space, addr, 8, 8, how);
  uint64_t word = 0;
  if (p) memcpy(&word, p, 8);
  if (p && (how & NY_READ) && !(word & VALID)) {
    ny_find(w, i, lane, NY_FIND_invalid, addr, 8, "there is no initialised mbarrier");
    return NULL;
  }
  return p;
}
uint32_t ny_mbarrier_at(ny_sim_warp *w, const ny_ptx_ins *i, int k, uint32_t lane) {
  uint64_t addr[NY_LANES];
  ny_addresses(w, i, k, addr);
  /* cp.async.bulk has 32-bit shared addresses here, cp.async.mbarrier.arrive may have generic ones. */
  uint64_t a = addr[lane];
  bool window = (a & NY_WINDOW_MASK) == NY_SHARED_WINDOW;
  uint8_t *p = ny_access_one(w, i, lane, window ? NY_GENERIC : NY_SHARED, a, 8, 8, NY_READ);
  uint64_t word = 0;
  if (p) memcpy(&word, p, 8);
  if (p && word & VALID) return (uint32_t)(p - w->block->shared);
  if (p) ny_find(w, i, lane, NY_FIND_invalid, a, 8, "there is no initialised mbarrier");
  return UINT32_MAX;
}
void ny_mbarrier_arrive(ny_sim_block *b, uint32_t offset) {
  fields f = read_word(b->shared + offset);
  if (f.pending) f.pending--;
  write_word(b->shared + offset, f);
}
void ny_mbarrier_complete_tx(ny_sim_block *b, uint32_t offset, uint32_t bytes) {
  fields f = read_word(b->shared + offset);
  f.tx -= (int32_t)bytes;
  write_word(b->shared + offset, f);
}

/* ---- instructions. For the race check init and inval write the object and everything else reads it: without a barrier
   after init that is a race, and what orders threads is a phase that ends, not the look at it. */
enum { UPDATE = NY_READ };
static bool fix_space(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  i->space = NY_GENERIC;
  for (int g = 0; g < NY_MAX_OPT; g++)
    if (!strncmp(ny_ptx_word(dc, g), "shared", 6)) i->space = NY_SHARED;
  i->bytes = 8;
  return true;
}

static void init(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t addr[NY_LANES];
  ny_addresses(w, i, 0, addr);
  NY_EACH_ACTIVE(l) {
    uint32_t count = NY_U32(1)[l];
    if (!count || count > COUNT_MASK) {
      ny_find(w, i, l, NY_FIND_invalid, addr[l], 8, "an mbarrier for %u arrivals", count);
      continue;
    }
    uint8_t *p = object(w, i, l, addr[l], NY_WRITE);
    if (p) write_word(p, (fields){.pending = count, .expected = count});
  }
}
static void inval(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t addr[NY_LANES];
  ny_addresses(w, i, 0, addr);
  NY_EACH_ACTIVE(l) {
    uint8_t *p = object(w, i, l, addr[l], UPDATE);
    if (p) p = object(w, i, l, addr[l], NY_WRITE);
    if (p) memset(p, 0, 8);
  }
}

static bool add_tx(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t l, fields *f, int64_t bytes) {
  int64_t tx = f->tx + bytes;
  if (tx < -MAX_TX || tx > MAX_TX) {
    ny_find(w, i, l, NY_FIND_invalid, 0, 8, "%lld bytes under way: an mbarrier counts to %d", (long long)tx, MAX_TX);
    return false;
  }
  f->tx = (int32_t)tx;
  return true;
}
/* state, [addr], count or bytes: opt 0 is expect_tx or noComplete, data 1 for arrive_drop. */
enum { PLAIN, EXPECT_TX, NO_COMPLETE };
static void arrive(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t addr[NY_LANES];
  ny_addresses(w, i, 1, addr);
  NY_EACH_ACTIVE(l) {
    uint8_t *p = object(w, i, l, addr[l], UPDATE);
    if (!p) continue;
    uint32_t operand = i->arg[2].kind == NY_ARG_NONE ? 1 : NY_U32(2)[l];
    uint32_t count = i->opt[0] == EXPECT_TX ? 1 : operand;
    fields f = read_word(p);
    if (i->opt[0] == EXPECT_TX && !add_tx(w, i, l, &f, operand)) continue;
    if (!count || count > f.pending || (i->opt[0] == NO_COMPLETE && count == f.pending)) {
      ny_find(w, i, l, NY_FIND_invalid, addr[l], 8, "%u arrivals where the phase waits for %u", count, f.pending);
      continue;
    }
    uint64_t state;
    memcpy(&state, p, 8);
    NY_U64(0)[l] = state;
    if (i->opt[1] != 1) ny_shadow_release(w, 1u << l, ny_shadow_clock(w->block, (uint64_t)(p - w->block->shared)));
    f.pending -= count;
    if (i->data) f.expected -= count < f.expected ? count : f.expected;
    write_word(p, f);
  }
}
static bool fix_drop(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  i->data = 1;
  return fix_space(dc, i);
}
static void expect_tx(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t addr[NY_LANES];
  ny_addresses(w, i, 0, addr);
  NY_EACH_ACTIVE(l) {
    uint8_t *p = object(w, i, l, addr[l], UPDATE);
    if (!p) continue;
    fields f = read_word(p);
    if (!add_tx(w, i, l, &f, (int64_t)NY_U32(1)[l])) continue;
    write_word(p, f);
  }
}
static void complete_tx(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t addr[NY_LANES];
  ny_addresses(w, i, 0, addr);
  NY_EACH_ACTIVE(l) {
    uint8_t *p = object(w, i, l, addr[l], UPDATE);
    if (!p) continue;
    fields f = read_word(p);
    if (add_tx(w, i, l, &f, -(int64_t)NY_U32(1)[l])) write_word(p, f);
  }
}

/* p, [addr], state or parity {, time}: a phase that is over has the other parity. What is under way lands first: a wait
   is what it was for. */
static void wait(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t addr[NY_LANES];
  ny_addresses(w, i, 1, addr);
  uint32_t done = 0;
  bool parity = i->data;
  uint8_t *blocked = NULL;
  uint32_t blocked_lane = 0;
  NY_EACH_ACTIVE(l) {
    uint8_t *p = object(w, i, l, addr[l], UPDATE);
    if (!p) { /* reported: going on is better than a wait for ever */
      done |= 1u << l;
      continue;
    }
    uint32_t offset = (uint32_t)(p - w->block->shared);
    ny_async_settle(w->block, offset);
    bool phase = parity ? NY_U32(2)[l] & 1 : NY_U64(2)[l] >> 63;
    if (read_word(p).phase == phase) {
      blocked = p;
      blocked_lane = l;
      continue;
    }
    done |= 1u << l;
    if (i->opt[0] != 1) ny_shadow_acquire(w, 1u << l, ny_shadow_clock(w->block, offset));
  }
  ny_set_pred(w, &i->arg[0], mask, done);
  if (blocked) waited(w, i, blocked_lane, blocked);
}
static bool fix_parity(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  i->data = 1;
  return fix_space(dc, i);
}
static void pending_count(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint64_t *state = NY_U64(1);
  uint32_t *d = NY_U32(0);
  NY_MAP(uint32_t, d, (uint32_t)(state[l] & COUNT_MASK));
}

#define TO "(shared shared::cta shared::cluster)?.b64"
#define ARRIVE_SEM "(relaxed release)?.(cta cluster)?."
#define WAIT_SEM "(relaxed acquire)?.(cta cluster)?."
#define SYNC(pattern, operands, fix, fn)                                                                               \
  {                                                                                                                    \
    pattern, operands, NY_CLS_sync, fix, { fn }                                                                        \
  }
const ny_ptx_row ny_rows_mbarrier[] = {
    SYNC("mbarrier.init." TO, "m b", fix_space, init),
    SYNC("mbarrier.inval." TO, "m", fix_space, inval),
    SYNC("mbarrier.arrive.(expect_tx noComplete)?." ARRIVE_SEM TO, "L m b?", fix_space, arrive),
    SYNC("mbarrier.arrive_drop.(expect_tx noComplete)?." ARRIVE_SEM TO, "L m b?", fix_drop, arrive),
    SYNC("mbarrier.expect_tx.(relaxed)?.(cta cluster)?." TO, "m b", fix_space, expect_tx),
    SYNC("mbarrier.complete_tx.(relaxed)?.(cta cluster)?." TO, "m b", fix_space, complete_tx),
    SYNC("mbarrier.test_wait." WAIT_SEM TO, "P m l", fix_space, wait),
    SYNC("mbarrier.try_wait." WAIT_SEM TO, "P m l b?", fix_space, wait),
    SYNC("mbarrier.test_wait.parity." WAIT_SEM TO, "P m b", fix_parity, wait),
    SYNC("mbarrier.try_wait.parity." WAIT_SEM TO, "P m b b?", fix_parity, wait),
    SYNC("mbarrier.pending_count.b64", "B l", NULL, pending_count),
};
const size_t ny_n_rows_mbarrier = NY_COUNT(ny_rows_mbarrier);
