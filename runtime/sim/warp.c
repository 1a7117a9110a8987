/* One warp: 32 lanes in lockstep, as paths of lanes that are at the same instruction. The path at the lowest address
   runs until it meets the next one, which is where structured code comes together again; a path that has run very long
   while others wait gives them a turn, so that a lane spinning on what another lane must do does not hang. */
#include "launch.h"

enum { PATH_TURN = 4096 };

const uint32_t ny_lane_bit[NY_LANES] = {1u,       1u << 1,  1u << 2,  1u << 3,  1u << 4,  1u << 5,  1u << 6,  1u << 7,
                                        1u << 8,  1u << 9,  1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15,
                                        1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21, 1u << 22, 1u << 23,
                                        1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31};

uint32_t ny_pc_of(const ny_sim_warp *w, const ny_ptx_ins *i) { return (uint32_t)(i - w->block->grid->kernel->code); }

void ny_warp_start(ny_sim_warp *w) {
  w->pc = w->block->grid->kernel->entry;
  w->n_paths = 0;
  w->active = w->live = w->init;
  w->limit = UINT32_MAX;
  w->state = NY_WARP_READY;
  w->wait = NY_WAIT_NONE;
  w->forced = false;
}

static void remove_path(ny_sim_warp *w, int k) {
  w->n_paths--;
  for (int j = k; j < w->n_paths; j++) w->path[j] = w->path[j + 1];
}

/* Adds lanes to the paths that do not run; those at the same place in the same state become one. */
static void push(ny_sim_warp *w, ny_sim_path p) {
  for (int k = 0; k < w->n_paths; k++) {
    ny_sim_path *q = &w->path[k];
    if (q->pc == p.pc && q->wait == p.wait && q->barrier == p.barrier) {
      q->mask |= p.mask;
      q->want |= p.want;
      return;
    }
  }
  w->path[w->n_paths++] = p;
}

static void set_limit(ny_sim_warp *w) {
  w->limit = UINT32_MAX;
  for (int k = 0; k < w->n_paths; k++)
    if (w->path[k].wait == NY_WAIT_NONE && w->path[k].pc > w->pc && w->path[k].pc < w->limit) w->limit = w->path[k].pc;
}

static void short_turn(ny_sim_warp *w) {
  if (w->fuel <= PATH_TURN) return;
  w->budget += w->fuel - PATH_TURN;
  w->fuel = PATH_TURN;
}

void ny_go(ny_sim_warp *w, uint32_t mask, uint32_t target) {
  if (mask == w->active) {
    w->pc = target;
    if (w->n_paths) set_limit(w);
    return;
  }
  if (!mask) return;
  ny_sim_path rest = {.pc = w->pc, .mask = w->active & ~mask}, go = {.pc = target, .mask = mask};
  bool first = target < w->pc;
  push(w, first ? rest : go);
  w->pc = first ? go.pc : rest.pc;
  w->active = first ? go.mask : rest.mask;
  set_limit(w);
  short_turn(w);
}

void ny_leave(ny_sim_warp *w, uint32_t mask, uint32_t target) {
  push(w, (ny_sim_path){.pc = target, .mask = mask});
  w->active &= ~mask;
  if (w->active)
    set_limit(w);
  else
    w->limit = 0;
}

void ny_split(ny_sim_warp *w, uint32_t mask) {
  push(w, (ny_sim_path){.pc = w->pc, .mask = w->active & ~mask});
  w->active = mask;
}

void ny_block_path(ny_sim_warp *w, const ny_ptx_ins *i, ny_wait why, uint32_t barrier, uint32_t want) {
  w->pc = ny_pc_of(w, i);
  w->wait = (uint8_t)why;
  w->barrier = (uint8_t)barrier;
  w->want = want;
  w->limit = 0;
}

bool ny_converged(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, uint32_t want) {
  if (!(want & w->live & ~mask)) return true;
  if (w->forced) {
    w->forced = false;
    return true;
  }
  /* A predicate may keep active lanes away; they go on, the others wait for those that are still to come. */
  if (w->active != mask) ny_split(w, mask);
  ny_block_path(w, i, NY_WAIT_WARP, 0, want);
  return false;
}

void ny_yield(ny_sim_warp *w) {
  w->yielded = true;
  w->fuel = 0;
  w->budget = 0;
}

/* No path is ready: a collective whose lanes have all come, or have all gone, can run. */
static bool release_collective(ny_sim_warp *w) {
  uint32_t waiting = 0;
  bool only = true;
  for (int k = 0; k < w->n_paths; k++) {
    ny_sim_path *p = &w->path[k];
    if (p->wait != NY_WAIT_WARP) {
      only = false;
      continue;
    }
    waiting |= p->mask;
    if (p->want & w->live & ~p->mask) continue;
    p->wait = NY_WAIT_NONE;
    return true;
  }
  if (!waiting) return false;
  /* Lanes wait for each other at different collectives, or for lanes at a barrier. */
  for (int k = 0; k < w->n_paths; k++) {
    ny_sim_path *p = &w->path[k];
    if (p->wait != NY_WAIT_WARP) continue;
    const ny_ptx_ins *i = &w->block->grid->kernel->code[p->pc];
    if (only || (p->want & ~waiting & w->live)) {
      uint32_t absent = p->want & w->live & ~p->mask;
      ny_find(w, i, (uint32_t)__builtin_ctz(p->mask), NY_FIND_divergent, 0, 0,
              "lanes 0x%08x run this instruction, and lanes 0x%08x of its mask 0x%08x are elsewhere", p->mask, absent,
              p->want);
    }
    p->wait = NY_WAIT_NONE;
    w->forced = true;
    return true;
  }
  return false;
}

static bool any_ready(const ny_sim_warp *w) {
  for (int k = 0; k < w->n_paths; k++)
    if (w->path[k].wait == NY_WAIT_NONE) return true;
  return false;
}

/* Chooses the path that runs next; false: the warp cannot go on now. */
static bool next_path(ny_sim_warp *w, bool forced_turn) {
  if (w->active)
    push(w, (ny_sim_path){.pc = w->pc, .mask = w->active, .wait = w->wait, .barrier = w->barrier, .want = w->want});
  w->active = w->want = 0;
  w->wait = NY_WAIT_NONE;
  w->barrier = 0;
  if (w->block->grid->stop) return false;
  while (!any_ready(w)) {
    if (!w->n_paths) {
      w->state = NY_WARP_DONE;
      return false;
    }
    if (release_collective(w)) continue;
    ny_barrier_settle(w);
    if (!any_ready(w)) {
      w->state = NY_WARP_WAITING;
      return false;
    }
  }
  int best = -1;
  for (int k = 0; k < w->n_paths; k++) {
    if (w->path[k].wait != NY_WAIT_NONE) continue;
    if (best < 0 || (!forced_turn && w->path[k].pc < w->path[best].pc)) best = k;
  }
  w->pc = w->path[best].pc;
  w->active = w->path[best].mask;
  remove_path(w, best);
  set_limit(w);
  if (w->n_paths) short_turn(w);
  return true;
}

/* False: the turn of this warp is over. */
static bool go_on(ny_sim_warp *w) {
  bool event = w->pc >= w->limit;
  if (event && !next_path(w, false)) return false;
  if (w->fuel > 0) return true;
  if (w->budget <= 0) return false;
  w->fuel = w->n_paths && w->budget > PATH_TURN ? PATH_TURN : w->budget;
  w->budget -= w->fuel;
  return event || !w->n_paths || next_path(w, true);
}

void ny_warp_run(ny_sim_warp *w, int32_t quantum) {
  const ny_ptx_ins *code = w->block->grid->kernel->code;
  struct ny_hit *hit = w->block->grid->hit;
  uint64_t ran = 0;
  w->fuel = quantum;
  w->budget = 0;
  if (w->n_paths) short_turn(w);
  bool other_path = w->yielded && w->n_paths; /* what the path that polls waits for may be for another one to do */
  w->yielded = false;
  if ((!w->active || other_path) && !next_path(w, other_path)) return;
  for (;;) {
    if ((w->pc >= w->limit || w->fuel <= 0) && !go_on(w)) break;
    const ny_ptx_ins *i = &code[w->pc];
    uint32_t mask = w->active & (w->pred[i->guard] ^ i->flip);
    hit[w->pc].warps++;
    hit[w->pc].threads += mask == NY_ALL_LANES ? NY_LANES : (uint32_t)__builtin_popcount(mask);
    w->pc++;
    w->fuel--;
    ran++;
    if (mask) i->exec(w, i, mask);
  }
  w->block->grid->clocks += ran;
}
