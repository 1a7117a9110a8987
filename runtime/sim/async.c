/* Asynchronous copies: cp.async with groups or mbarriers, and 1D bulk copies. Each warp has a list of what its lanes
   issued, in order; a wait takes from it what it covers. */
#include "async.h"
#include <stdlib.h>
#include <string.h>

typedef enum step_kind {
  COPY,    /* cp.async: done for the lane that waits */
  ARRIVE,  /* cp.async.mbarrier.arrive: after this lane's copies before it, an arrival */
  BULK,    /* into shared memory: done with an mbarrier */
  BULK_OUT /* from shared memory: done with a bulk group */
} step_kind;
typedef struct step {
  const ny_ptx_ins *ins;
  uint8_t *to;
  const uint8_t *from;
  uint32_t bytes, source_bytes; /* what the source does not have is zero */
  uint32_t offset;              /* in shared memory: of the destination, of the mbarrier for ARRIVE */
  uint32_t barrier;             /* BULK: offset of the mbarrier */
  uint32_t group;
  uint8_t lane;
  step_kind kind : 8;
  bool moved; /* the bytes have been copied */
} step;
typedef struct warp_async {
  step *list;
  uint32_t n, cap;
  uint32_t group[NY_LANES], bulk_group[NY_LANES]; /* how many each lane has committed */
} warp_async;
typedef struct async {
  warp_async *warp;
  uint32_t n_warps;
} async;

static void end(ny_sim_block *b, void *p);
static async *state_of(ny_sim_block *b) {
  if (b->ext[NY_EXT_ASYNC].p) return b->ext[NY_EXT_ASYNC].p;
  async *a = malloc(sizeof *a);
  if (a) *a = (async){.warp = calloc(b->n_warps, sizeof *a->warp), .n_warps = b->n_warps};
  if (!a || !a->warp) {
    fprintf(stderr, "nybble: out of memory for the copies of a simulated block\n");
    abort();
  }
  b->ext[NY_EXT_ASYNC] = (ny_sim_ext){.p = a, .end = end};
  return a;
}
static warp_async *warp_of(ny_sim_warp *w) { return &state_of(w->block)->warp[w->index]; }
static bool late(const ny_sim_block *b) { return b->grid->launch->options.late_copies; }

static void move(step *s) {
  if (s->moved) return;
  if (s->source_bytes) memcpy(s->to, s->from, s->source_bytes);
  memset(s->to + s->source_bytes, 0, s->bytes - s->source_bytes);
  s->moved = true;
}

static void add(ny_sim_warp *w, const step *s) {
  if (s->kind == COPY && !late(w->block) && !w->block->shadow) { /* nobody could tell whether it was waited for */
    step now = *s;
    move(&now);
    return;
  }
  warp_async *a = warp_of(w);
  if (a->n == a->cap) {
    a->cap = a->cap ? a->cap * 2 : 128;
    step *list = realloc(a->list, a->cap * sizeof *list);
    if (!list) {
      fprintf(stderr, "nybble: out of memory for %u simulated copies\n", a->cap);
      abort();
    }
    a->list = list;
  }
  a->list[a->n] = *s;
  if (!late(w->block)) move(&a->list[a->n]);
  a->n++;
}

/* ---- landing */
/* `by`: the mbarrier that took a COPY along, NO_BARRIER: its own lane waited for it. */
#define NO_BARRIER UINT32_MAX
static void land(ny_sim_block *b, ny_sim_warp *w, step *s, uint32_t by) {
  move(s);
  switch (s->kind) {
  case COPY:
    ny_shadow_land(w, s->lane, s->ins, s->offset, s->bytes, by == NO_BARRIER ? NULL : ny_shadow_clock(b, by));
    break;
  case BULK:
    ny_shadow_land(w, s->lane, s->ins, s->offset, s->bytes, ny_shadow_clock(b, s->barrier));
    ny_mbarrier_complete_tx(b, s->barrier, s->bytes);
    break;
  case ARRIVE:
    ny_shadow_release(w, 1u << s->lane, ny_shadow_clock(b, s->offset));
    ny_mbarrier_arrive(b, s->offset);
    break;
  default: break;
  }
}

/* Lands the steps of `kind` of the lanes of mask whose group is older than their limit; the others stay in order. */
static void land_groups(ny_sim_warp *w, uint32_t mask, step_kind kind, const uint32_t limit[NY_LANES]) {
  warp_async *a = warp_of(w);
  uint32_t kept = 0;
  for (uint32_t k = 0; k < a->n; k++) {
    step *s = &a->list[k];
    if (s->kind == kind && mask >> s->lane & 1 && s->group < limit[s->lane])
      land(w->block, w, s, NO_BARRIER);
    else
      a->list[kept++] = *s;
  }
  a->n = kept;
}

/* A lane's ARRIVE at `offset` takes all cp.async of that lane before it along. */
static void settle_warp(ny_sim_block *b, ny_sim_warp *w, warp_async *a, uint32_t offset) {
  uint32_t last[NY_LANES] = {0}, arrives = 0, kept = 0; /* one past the last arrival of each lane */
  for (uint32_t k = 0; k < a->n; k++)
    if (a->list[k].kind == ARRIVE && a->list[k].offset == offset) {
      last[a->list[k].lane] = k + 1;
      arrives |= 1u << a->list[k].lane;
    }
  for (uint32_t k = 0; k < a->n; k++) {
    step *s = &a->list[k];
    bool before = arrives >> s->lane & 1 && k < last[s->lane];
    if (before && (s->kind == COPY || (s->kind == ARRIVE && s->offset == offset)))
      land(b, w, s, offset);
    else if (s->kind == BULK && s->barrier == offset)
      land(b, w, s, NO_BARRIER);
    else
      a->list[kept++] = *s;
  }
  a->n = kept;
}
void ny_async_settle(ny_sim_block *b, uint32_t offset) {
  const async *a = b->ext[NY_EXT_ASYNC].p;
  for (uint32_t k = 0; a && k < a->n_warps; k++)
    if (a->warp[k].n) settle_warp(b, &b->warp[k], &a->warp[k], offset);
}

static void end(ny_sim_block *b, void *p) {
  async *a = p;
  for (uint32_t k = 0; k < a->n_warps; k++) {
    for (uint32_t s = 0; s < a->warp[k].n; s++) {
      step *x = &a->warp[k].list[s];
      if (x->kind != BULK_OUT) continue;
      move(x);
      if (!b->grid->stop)
        ny_find(&b->warp[k], x->ins, x->lane, NY_FIND_invalid, x->offset, x->bytes,
                "the block ended before anybody waited for this copy out of its shared memory");
    }
    free(a->warp[k].list);
  }
  free(a->warp);
  free(a);
  b->ext[NY_EXT_ASYNC] = (ny_sim_ext){0};
}

/* ---- cp.async */
static uint32_t shared_offset(const ny_sim_warp *w, const uint8_t *p) { return (uint32_t)(p - w->block->shared); }

/* cp.async [dst], [src], size {, src-size | ignore-src} {, policy} */
static void cp_async(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t to[NY_LANES], from[NY_LANES];
  uint8_t *p[NY_LANES], *q[NY_LANES];
  uint32_t size = i->bytes, have[NY_LANES], reads = 0;
  const ny_ptx_arg *limit = &i->arg[3];
  for (int l = 0; l < NY_LANES; l++) {
    have[l] = size;
    if (limit->kind == NY_ARG_PRED) have[l] = ny_pred(w, limit) & ny_lane_bit[l] ? 0 : size;
    if (limit->kind == NY_ARG_LANES) have[l] = limit->width == 8 ? (uint32_t)NY_U64(3)[l] : NY_U32(3)[l];
  }
  ny_addresses(w, i, 0, to);
  ny_addresses(w, i, 1, from);
  NY_EACH_ACTIVE(l) {
    if (have[l] > size) {
      ny_find(w, i, l, NY_FIND_invalid, to[l], size, "a source of %u bytes for a copy of %u", have[l], size);
      have[l] = size;
    }
    if (have[l]) reads |= ny_lane_bit[l];
  }
  uint32_t whole = 0;
  NY_EACH_ACTIVE(l) whole |= have[l] == size ? ny_lane_bit[l] : 0;
  uint32_t ok = ny_access(w, i, mask, NY_SHARED, to, size, size, NY_WRITE | NY_ASYNC, p);
  uint32_t can = whole ? ny_access(w, i, whole, NY_GLOBAL, from, size, size, NY_READ, q) : 0;
  uint32_t parts = reads & ~whole; /* sources that end early, one by one: they are the last of a row */
  for (uint32_t rest = parts; rest; rest &= rest - 1) {
    uint32_t l = (uint32_t)__builtin_ctz(rest);
    q[l] = ny_access_one(w, i, l, NY_GLOBAL, from[l], have[l], size, NY_READ);
    if (q[l]) can |= ny_lane_bit[l];
  }
  warp_async *a = warp_of(w);
  mask &= ok;
  NY_EACH_ACTIVE(l) {
    uint32_t n = can & ny_lane_bit[l] ? have[l] : 0;
    add(w, &(step){.ins = i,
                   .kind = COPY,
                   .lane = (uint8_t)l,
                   .to = p[l],
                   .from = n ? q[l] : NULL,
                   .bytes = size,
                   .source_bytes = n,
                   .offset = shared_offset(w, p[l]),
                   .group = a->group[l]});
  }
}
static bool fix_cp_async(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  int64_t size = i->arg[2].imm;
  if (size != 4 && size != 8 && size != 16) return ny_ptx_bad(dc, "cp.async copies 4, 8 or 16 bytes");
  if (i->opt[0] == 2 && size != 16) return ny_ptx_bad(dc, "cp.async.cg copies 16 bytes");
  i->bytes = (uint8_t)size;
  i->space = NY_GENERIC; /* one side is shared, the other global */
  return true;
}
/* With a cache policy the last operand is that. */
static bool fix_cp_async_hint(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  if (i->arg[3].kind == NY_ARG_NONE) return ny_ptx_bad(dc, "L2::cache_hint without a policy");
  if (i->arg[4].kind == NY_ARG_NONE) ((ny_ptx_arg *)i->arg)[3].kind = NY_ARG_NONE;
  return fix_cp_async(dc, i);
}

static void commit_group(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  (void)i;
  warp_async *a = warp_of(w);
  NY_EACH_ACTIVE(l) a->group[l]++;
}
static void wait_group(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  warp_async *a = warp_of(w);
  uint32_t n = i->arg[0].imm > UINT32_MAX ? UINT32_MAX : (uint32_t)i->arg[0].imm, limit[NY_LANES];
  for (int l = 0; l < NY_LANES; l++) limit[l] = a->group[l] > n ? a->group[l] - n : 0;
  land_groups(w, mask, COPY, limit);
}
static void wait_all(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  (void)i;
  uint32_t limit[NY_LANES];
  memset(limit, 0xff, sizeof limit);
  land_groups(w, mask, COPY, limit);
}
static bool fix_wait(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  return i->arg[0].imm >= 0 || ny_ptx_bad(dc, "waiting for all but %lld groups", (long long)i->arg[0].imm);
}

/* cp.async.mbarrier.arrive: without .noinc the phase expects this arrival on top of its count, so that nothing changes
   in the end; either way the phase cannot end before it. */
static void cp_async_arrive(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  NY_EACH_ACTIVE(l) {
    uint32_t offset = ny_mbarrier_at(w, i, 0, l);
    if (offset == UINT32_MAX) continue;
    if (!i->opt[0]) { /* the pending count is in the low 20 bits of the word: mbarrier.c */
      uint64_t word;
      memcpy(&word, w->block->shared + offset, 8);
      word++;
      memcpy(w->block->shared + offset, &word, 8);
    }
    add(w, &(step){.ins = i, .kind = ARRIVE, .lane = (uint8_t)l, .offset = offset, .moved = true});
    if (!late(w->block)) settle_warp(w->block, w, warp_of(w), offset);
  }
}

/* ---- bulk copies: any multiple of 16 bytes, each lane its own */
static bool bulk_size(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t l, uint32_t bytes) {
  if (bytes && bytes % 16 == 0) return true;
  ny_find(w, i, l, NY_FIND_misaligned, 0, bytes, "a bulk copy of %u bytes: they come in sixteens", bytes);
  return false;
}
/* [shared dst], [global src], size, [mbar] */
static void bulk_in(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t to[NY_LANES], from[NY_LANES];
  ny_addresses(w, i, 0, to);
  ny_addresses(w, i, 1, from);
  NY_EACH_ACTIVE(l) {
    uint32_t bytes = NY_U32(2)[l], barrier = ny_mbarrier_at(w, i, 3, l);
    if (barrier == UINT32_MAX || !bulk_size(w, i, l, bytes)) continue;
    uint8_t *p = ny_access_one(w, i, l, NY_SHARED, to[l], bytes, 16, NY_WRITE | NY_ASYNC);
    const uint8_t *q = ny_access_one(w, i, l, NY_GLOBAL, from[l], bytes, 16, NY_READ);
    if (!p || !q) continue;
    add(w, &(step){.ins = i,
                   .kind = BULK,
                   .lane = (uint8_t)l,
                   .to = p,
                   .from = q,
                   .bytes = bytes,
                   .source_bytes = bytes,
                   .offset = shared_offset(w, p),
                   .barrier = barrier});
    if (!late(w->block)) {
      warp_async *a = warp_of(w);
      land(w->block, w, &a->list[--a->n], NO_BARRIER);
    }
  }
}
/* [global dst], [shared src], size */
static void bulk_out(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t to[NY_LANES], from[NY_LANES];
  ny_addresses(w, i, 0, to);
  ny_addresses(w, i, 1, from);
  NY_EACH_ACTIVE(l) {
    uint32_t bytes = NY_U32(2)[l];
    if (!bulk_size(w, i, l, bytes)) continue;
    uint8_t *p = ny_access_one(w, i, l, NY_GLOBAL, to[l], bytes, 16, NY_WRITE);
    const uint8_t *q = ny_access_one(w, i, l, NY_SHARED, from[l], bytes, 16, NY_READ);
    if (!p || !q) continue;
    add(w, &(step){.ins = i,
                   .kind = BULK_OUT,
                   .lane = (uint8_t)l,
                   .to = p,
                   .from = q,
                   .bytes = bytes,
                   .source_bytes = bytes,
                   .offset = shared_offset(w, q),
                   .group = warp_of(w)->bulk_group[l]});
  }
}
static void bulk_commit(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  (void)i;
  warp_async *a = warp_of(w);
  NY_EACH_ACTIVE(l) a->bulk_group[l]++;
}
/* .read, which waits for the reads of shared memory alone, moves the bytes as well: nobody may look at them yet. */
static void bulk_wait(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  warp_async *a = warp_of(w);
  uint32_t n = i->arg[0].imm > UINT32_MAX ? UINT32_MAX : (uint32_t)i->arg[0].imm, limit[NY_LANES];
  for (int l = 0; l < NY_LANES; l++) limit[l] = a->bulk_group[l] > n ? a->bulk_group[l] - n : 0;
  land_groups(w, mask, BULK_OUT, limit);
}

static void nothing(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) { (void)w, (void)i, (void)mask; }
static void policy(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t *d = NY_U64(0);
  NY_MAP(uint64_t, d, (uint64_t)0);
}

#define TO_SHARED "(shared shared::cta)"
#define PREFETCH "(L2::64B L2::128B L2::256B)?"
#define BULK_SHARED "(shared::cluster shared::cta)"
const ny_ptx_row ny_rows_async[] = {
    {"cp.async.(ca cg)." TO_SHARED ".global." PREFETCH, "m m i q?", NY_CLS_copy, fix_cp_async, {cp_async}},
    {"cp.async.(ca cg)." TO_SHARED ".global.(L2::cache_hint)." PREFETCH,
     "m m i x? l?",
     NY_CLS_copy,
     fix_cp_async_hint,
     {cp_async}},
    {"cp.async.commit_group", "", NY_CLS_copy, NULL, {commit_group}},
    {"cp.async.wait_group", "i", NY_CLS_sync, fix_wait, {wait_group}},
    {"cp.async.wait_all", "", NY_CLS_sync, NULL, {wait_all}},
    {"cp.async.mbarrier.arrive.(noinc)?.(shared shared::cta)?.b64", "m", NY_CLS_sync, NULL, {cp_async_arrive}},
    {"cp.async.bulk." BULK_SHARED ".global.mbarrier::complete_tx::bytes.(L2::cache_hint)?",
     "m m b m l?",
     NY_CLS_copy,
     NULL,
     {bulk_in}},
    {"cp.async.bulk.global.shared::cta.bulk_group.(L2::cache_hint)?", "m m b l?", NY_CLS_copy, NULL, {bulk_out}},
    {"cp.async.bulk.commit_group", "", NY_CLS_copy, NULL, {bulk_commit}},
    {"cp.async.bulk.wait_group.(read)?", "i", NY_CLS_sync, fix_wait, {bulk_wait}},
    {"cp.async.bulk.prefetch.L2.global.(L2::cache_hint)?", "m b l?", NY_CLS_copy, NULL, {nothing}},
    {"createpolicy.fractional.(L2::evict_last L2::evict_normal L2::evict_first L2::evict_unchanged).(L2::evict_first "
     "L2::evict_unchanged)?.b64",
     "L f?",
     NY_CLS_copy,
     NULL,
     {policy}},
};
const size_t ny_n_rows_async = NY_COUNT(ny_rows_async);
