/* Block barriers: bar.sync, barrier.sync, bar.arrive, bar.red with their numbers and thread counts. A warp arrives once
   its lanes have all come; lanes of one warp that stand at different barriers are a finding, and arrive all the same.
 */
#include "launch.h"

static uint32_t live_warps(const ny_sim_block *b) {
  uint32_t n = 0;
  for (uint32_t k = 0; k < b->n_warps; k++) n += b->warp[k].state != NY_WARP_DONE;
  return n;
}

static uint64_t clock_key(const ny_sim_block *b, const ny_barrier *r) {
  return UINT64_MAX - (uint64_t)(r - b->barrier);
}

/* sub of the rows with a predicate: and, or, popc */
static void give_result(ny_sim_warp *w, const ny_ptx_ins *i, const ny_barrier *r, uint32_t mask) {
  if (!i->data) return;
  if (i->data == 3) {
    uint32_t *d = NY_U32(0), n = r->count;
    NY_MAP(uint32_t, d, n);
  } else {
    ny_set_pred(w, &i->arg[0], mask, (i->data == 1 ? r->and_all : r->or_any) ? NY_ALL_LANES : 0);
  }
}

static void release(ny_sim_block *b, ny_barrier *r) {
  uint32_t id = (uint32_t)(r - b->barrier);
  ny_sim_clock *c = ny_shadow_clock(b, clock_key(b, r));
  for (uint32_t k = 0; k < b->n_warps; k++) {
    ny_sim_warp *w = &b->warp[k];
    if (!(r->waiting >> k & 1)) continue;
    for (int p = 0; p < w->n_paths; p++) {
      ny_sim_path *q = &w->path[p];
      if (q->wait != NY_WAIT_ARRIVED || q->barrier != id) continue;
      give_result(w, &b->grid->kernel->code[q->pc], r, q->mask);
      q->wait = NY_WAIT_NONE;
      q->barrier = 0;
      q->pc++;
    }
    if (w->state == NY_WARP_WAITING) w->state = NY_WARP_READY;
    ny_shadow_acquire(w, NY_ALL_LANES, c);
  }
  *r = (ny_barrier){0};
  b->grid->count.barriers++;
}

static void check(ny_sim_block *b, ny_barrier *r) {
  uint32_t expected = r->expected ? r->expected : live_warps(b) * NY_LANES;
  if (r->arrived && r->arrived >= expected) release(b, r);
}

void ny_barrier_recheck(ny_sim_block *b) {
  for (int k = 0; k < NY_N_BARRIERS; k++) check(b, &b->barrier[k]);
}

static uint32_t operand(const ny_sim_warp *w, const ny_ptx_ins *i, int k, uint32_t lane, uint32_t otherwise) {
  return i->arg[k].kind == NY_ARG_NONE ? otherwise : NY_U32(k)[lane];
}

static void arrive(ny_sim_warp *w, const ny_ptx_ins *i, ny_barrier *r, uint32_t mask, uint32_t threads) {
  ny_sim_block *b = w->block;
  uint32_t first = (uint32_t)__builtin_ctz(mask);
  if (threads % NY_LANES)
    ny_find(w, i, first, NY_FIND_invalid, 0, 0, "%u threads, the count of a barrier, are not whole warps", threads);
  if (r->arrived && r->expected != threads && threads && r->expected)
    ny_find(w, i, first, NY_FIND_invalid, 0, 0, "this barrier counts %u threads, an earlier arrival counts %u", threads,
            r->expected);
  if (!r->arrived) r->and_all = true;
  r->arrived += NY_LANES;
  if (threads) r->expected = threads;
  if (i->data) {
    uint32_t p = ny_pred(w, &i->arg[i->n_arg - 1]) & mask;
    r->and_all = r->and_all && p == mask;
    r->or_any = r->or_any || p;
    r->count += (uint32_t)__builtin_popcount(p);
  }
  ny_shadow_release(w, NY_ALL_LANES, ny_shadow_clock(b, clock_key(b, r)));
}

/* Operand 0 of .red is its result; then barrier number and count. */
static int number_at(const ny_ptx_ins *i) { return i->data ? 1 : 0; }

static void report_divergence(ny_sim_warp *w, int p) {
  const ny_ptx_ins *code = w->block->grid->kernel->code;
  const ny_sim_path *q = &w->path[p], *o = &w->path[(p + 1) % w->n_paths];
  ny_sim_site other = ny_site(w, &code[o->pc], (uint32_t)__builtin_ctz(o->mask));
  ny_find_two(w, &code[q->pc], (uint32_t)__builtin_ctz(q->mask), &other, NY_FIND_divergent, q->barrier, 0,
              "lanes 0x%08x of a warp are at this barrier while lanes 0x%08x wait elsewhere", q->mask,
              w->live & ~q->mask);
}

void ny_barrier_settle(ny_sim_warp *w) {
  ny_sim_block *b = w->block;
  uint32_t came = 0;
  bool reported = false;
  for (int p = 0; p < w->n_paths; p++) {
    ny_sim_path *q = &w->path[p];
    if (q->wait != NY_WAIT_BARRIER) continue;
    const ny_ptx_ins *i = &b->grid->kernel->code[q->pc];
    if (i->bytes && q->mask != w->live && !reported) { /* bytes: .aligned, all lanes together */
      report_divergence(w, p);
      reported = true;
    }
    ny_barrier *r = &b->barrier[q->barrier];
    if (!(came >> q->barrier & 1)) /* the whole warp counts, once */
      arrive(w, i, r, q->mask, operand(w, i, number_at(i) + 1, (uint32_t)__builtin_ctz(q->mask), 0));
    came |= 1u << q->barrier;
    q->wait = NY_WAIT_ARRIVED;
    r->waiting |= 1u << w->index;
  }
  for (int k = 0; k < NY_N_BARRIERS; k++)
    if (came >> k & 1) check(b, &b->barrier[k]);
}

static bool barrier_number(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, uint32_t *out) {
  uint32_t lane = (uint32_t)__builtin_ctz(mask);
  *out = operand(w, i, number_at(i), lane, 0);
  if (*out < NY_N_BARRIERS) return true;
  ny_find(w, i, lane, NY_FIND_invalid, *out, 0, "there is no barrier %u", *out);
  return false;
}

static void x_bar_sync(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint32_t id;
  if (!barrier_number(w, i, mask, &id)) return;
  if (mask != w->active) ny_split(w, mask);
  ny_block_path(w, i, NY_WAIT_BARRIER, id, 0);
}

static void x_bar_arrive(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint32_t id;
  if (!ny_converged(w, i, mask, w->live) || !barrier_number(w, i, mask, &id)) return;
  ny_barrier *r = &w->block->barrier[id];
  arrive(w, i, r, mask, operand(w, i, 1, (uint32_t)__builtin_ctz(mask), 0));
  check(w->block, r);
}

static void waits_for(const ny_sim_warp *w, char *out, size_t n) {
  snprintf(out, n, "has not come");
  for (int p = 0; p < w->n_paths; p++) {
    const ny_sim_path *q = &w->path[p];
    if (q->wait == NY_WAIT_ARRIVED || q->wait == NY_WAIT_BARRIER)
      snprintf(out, n, "waits at barrier %u, PTX line %d", q->barrier,
               ny_stmt(w->block->grid, &w->block->grid->kernel->code[q->pc])->ptx_line);
  }
}

bool ny_barrier_stuck(ny_sim_block *b) {
  const ny_sim_warp *first = NULL, *other = NULL;
  for (uint32_t k = 0; k < b->n_warps; k++) {
    ny_sim_warp *w = &b->warp[k];
    if (w->state == NY_WARP_DONE || !w->n_paths) continue;
    if (!first)
      first = w;
    else if (!other && w->path[0].pc != first->path[0].pc)
      other = w;
  }
  if (!first) return false;
  char a[80], o[80] = "has ended";
  const ny_sim_path *q = &first->path[0];
  const ny_ptx_ins *i = &b->grid->kernel->code[q->pc];
  waits_for(first, a, sizeof a);
  if (other) waits_for(other, o, sizeof o);
  const ny_barrier *r = &b->barrier[q->barrier];
  ny_find((ny_sim_warp *)first, i, (uint32_t)__builtin_ctz(q->mask), NY_FIND_deadlock, q->barrier, 0,
          "no warp can go on: warp %u %s (%u threads have come), %s %u %s", first->index, a, r->arrived,
          other ? "warp" : "any other of", other ? other->index : b->n_warps, o);
  return true;
}

static bool fix_sync(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  (void)dc;
  i->bytes = 1; /* .aligned: all lanes of a warp, together */
  return true;
}
static bool fix_unaligned(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  (void)dc;
  i->bytes = i->opt[1] != 0;
  return true;
}
static bool fix_red(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  (void)dc;
  i->bytes = 1;
  i->data = i->sub + 1u;
  return true;
}
static bool fix_red_popc(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  (void)dc;
  i->bytes = 1;
  i->data = 3;
  return true;
}

const ny_ptx_row ny_rows_barrier[] = {
    {"bar.(cta)?.sync", "b b?", NY_CLS_sync, fix_sync, {x_bar_sync}},
    {"barrier.(cta)?.sync.(aligned)?", "b b?", NY_CLS_sync, fix_unaligned, {x_bar_sync}},
    {"bar.(cta)?.arrive", "b b", NY_CLS_sync, NULL, {x_bar_arrive}},
    {"barrier.(cta)?.arrive.(aligned)?", "b b", NY_CLS_sync, NULL, {x_bar_arrive}},
    {"bar.(cta)?.red.[and or].pred", "P b b? p", NY_CLS_sync, fix_red, {x_bar_sync, x_bar_sync}},
    {"barrier.(cta)?.red.[and or].(aligned)?.pred", "P b b? p", NY_CLS_sync, fix_red, {x_bar_sync, x_bar_sync}},
    {"bar.(cta)?.red.popc.u32", "B b b? p", NY_CLS_sync, fix_red_popc, {x_bar_sync}},
    {"barrier.(cta)?.red.popc.(aligned)?.u32", "B b b? p", NY_CLS_sync, fix_red_popc, {x_bar_sync}},
};
const size_t ny_n_rows_barrier = NY_COUNT(ny_rows_barrier);
