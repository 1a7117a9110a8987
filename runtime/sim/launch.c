/* A launch: blocks one after another, their warps in the order asked for. Nothing is shared with other launches but the
   module, which does not change, and the memory that both were given. */
#include "launch.h"
#include "memory.h"
#include <stdlib.h>
#include <string.h>

nyb_status ny_sim_load(const char *ptx, size_t n, const char *file, ny_sim_module **out, ny_diag *d) {
  ny_sim_module *m = calloc(1, sizeof *m);
  if (!m) return ny_fail(d, NYB_E_NOMEM, NULL, "out of memory");
  m->file = ny_strdup(&m->arena, file ? file : "PTX");
  nyb_status s = ny_ptx_parse(m, ptx, n, d);
  if (!s) s = ny_ptx_decode(m, d);
  if (s) {
    if (d && d->file == m->file) d->file = file;
    ny_sim_unload(m);
    return s;
  }
  *out = m;
  return NYB_OK;
}

void ny_sim_unload(ny_sim_module *m) {
  if (!m) return;
  ny_names_free(&m->names);
  ny_arena_free(&m->arena);
  free(m);
}

int ny_sim_kernel_count(const ny_sim_module *m) { return (int)m->n_kernels; }
int ny_sim_kernel_index(const ny_sim_module *m, const char *name) {
  for (uint32_t k = 0; k < m->n_kernels; k++)
    if (!strcmp(m->kernel[k].info.name, name)) return (int)k;
  return -1;
}
const ny_sim_kernel_info *ny_sim_kernel(const ny_sim_module *m, int kernel) { return &m->kernel[kernel].info; }
int ny_sim_variable_count(const ny_sim_module *m) { return (int)m->n_variables; }
const ny_sim_variable *ny_sim_variable_at(const ny_sim_module *m, int i) { return &m->variable[i]; }
int ny_sim_target(const ny_sim_module *m) { return m->target; }

/* ---- checks before anything runs */
static nyb_status check(const ny_sim_launch *l, const ny_ptx_kernel *k, ny_diag *d) {
  uint64_t threads = (uint64_t)l->block[0] * l->block[1];
  if (threads <= 1024) threads *= l->block[2];
  if (!threads || threads > 1024)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s: a block of %ux%ux%u threads is not from 1 to 1024", k->info.name,
                   l->block[0], l->block[1], l->block[2]);
  if (!l->grid[0] || !l->grid[1] || !l->grid[2] || l->grid[0] > INT32_MAX || l->grid[1] > 65535 || l->grid[2] > 65535)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s: a grid of %ux%ux%u blocks", k->info.name, l->grid[0], l->grid[1],
                   l->grid[2]);
  const uint32_t *most = k->info.max_threads;
  if (most[0] && threads > (uint64_t)most[0] * most[1] * most[2])
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s: %llu threads a block, but it was compiled for at most %u",
                   k->info.name, (unsigned long long)threads, most[0] * most[1] * most[2]);
  if (l->dynamic_shared > 1 << 20)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s: %u bytes of dynamic shared memory", k->info.name, l->dynamic_shared);
  if (k->info.param_bytes && !l->params) return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s: no parameters", k->info.name);
  return NYB_OK;
}

/* ---- blocks */
enum { MAX_PLACES = 512 };
static bool make_block(ny_sim_grid *g, ny_sim_block *b) {
  const ny_sim_launch *l = g->launch;
  const ny_ptx_kernel *k = g->kernel;
  b->grid = g;
  b->n_threads = l->block[0] * l->block[1] * l->block[2];
  b->n_warps = (b->n_threads + NY_LANES - 1) / NY_LANES;
  b->static_shared = k->info.static_shared;
  b->shared_bytes = k->info.static_shared + l->dynamic_shared;
  b->shared = aligned_alloc(1024, (b->shared_bytes + 1024u) & ~1023u);
  b->warp = calloc(b->n_warps, sizeof *b->warp);
  b->barrier = calloc(NY_N_BARRIERS, sizeof *b->barrier);
  if (!b->shared || !b->warp || !b->barrier) return false;
  for (uint32_t n = 0; n < b->n_warps; n++) {
    ny_sim_warp *w = &b->warp[n];
    w->block = b;
    w->index = n;
    uint32_t left = b->n_threads - n * NY_LANES;
    w->init = left >= NY_LANES ? NY_ALL_LANES : (1u << left) - 1;
    w->bank[NY_BANK_REG] = aligned_alloc(64, (k->reg_bytes + 63u) & ~63u);
    w->bank[NY_BANK_CONST] = k->constants;
    w->bank[NY_BANK_SPECIAL] = calloc(ny_n_specials, NY_SPECIAL_BYTES);
    w->pred = calloc(k->n_preds, sizeof *w->pred);
    w->local = calloc(NY_LANES, k->frame_bytes ? k->frame_bytes : 1);
    if (!w->bank[NY_BANK_REG] || !w->bank[NY_BANK_SPECIAL] || !w->pred || !w->local) return false;
    memset(w->bank[NY_BANK_REG], 0, k->reg_bytes);
    w->pred[NY_PRED_TRUE] = NY_ALL_LANES;
  }
  if (l->options.checks & (NY_SIM_RACES | NY_SIM_UNINIT | NY_SIM_CROSS_BLOCK))
    b->shadow = ny_shadow_new(b, l->options.checks);
  return true;
}

static void free_block(ny_sim_block *b) {
  for (uint32_t n = 0; b->warp && n < b->n_warps; n++) {
    free(b->warp[n].bank[NY_BANK_REG]);
    free(b->warp[n].bank[NY_BANK_SPECIAL]);
    free(b->warp[n].pred);
    free(b->warp[n].local);
  }
  ny_shadow_free(b->shadow);
  free(b->shared);
  free(b->warp);
  free(b->barrier);
}

/* The lanes of the special registers; those that say where a block is change with it. */
static void fill_specials(ny_sim_warp *w, bool first) {
  for (uint32_t s = 0; s < ny_n_specials; s++) {
    const ny_special *x = &ny_specials[s];
    if (x->dynamic || (!first && !strstr(x->name, "ctaid") && !strstr(x->name, "clusterid"))) continue;
    uint8_t *at = w->bank[NY_BANK_SPECIAL] + s * NY_SPECIAL_BYTES;
    for (uint32_t lane = 0; lane < NY_LANES; lane++) {
      uint64_t v = x->value(w, lane);
      memcpy(at + lane * x->width, &v, x->width);
    }
  }
}

static uint64_t random_next(ny_sim_grid *g) { /* xorshift64* */
  g->rng ^= g->rng >> 12;
  g->rng ^= g->rng << 25;
  g->rng ^= g->rng >> 27;
  return g->rng * 0x2545f4914f6cdd1du >> 16;
}

/* The next warp after `last` that can run, in the order of the launch; -1: none. */
static int choose(ny_sim_grid *g, const ny_sim_block *b, int last) {
  int n = (int)b->n_warps;
  ny_sim_order order = g->launch->options.order;
  int start = order == NY_SIM_RANDOM ? (int)(random_next(g) % (uint64_t)n) : last;
  for (int k = 1; k <= n; k++) {
    int w = order == NY_SIM_REVERSE ? (start - k + 2 * n) % n : (start + k) % n;
    if (b->warp[w].state == NY_WARP_READY) return w;
  }
  return -1;
}

static bool all_done(const ny_sim_block *b) {
  for (uint32_t k = 0; k < b->n_warps; k++)
    if (b->warp[k].state != NY_WARP_DONE) return false;
  return true;
}

static bool poll(ny_sim_block *b) {
  for (int k = 0; k < NY_N_EXT; k++)
    if (b->ext[k].poll && b->ext[k].poll(b, b->ext[k].p)) return true;
  return false;
}

static void out_of_fuel(ny_sim_grid *g, ny_sim_warp *w) {
  ny_find(w, &g->kernel->code[w->pc], 0, NY_FIND_limit, 0, 0,
          "the launch has run %llu warp instructions and has not ended", (unsigned long long)g->clocks);
  g->stop = true;
}

/* False: every warp that can run only polls memory that other blocks may write. */
enum { TURN = 1 << 16 };
static bool run_block(ny_sim_grid *g, ny_sim_block *b) {
  for (uint32_t polling = 0; !g->stop && polling <= 2 * b->n_warps;) {
    int n = choose(g, b, b->last_warp);
    if (n < 0) {
      if (all_done(b)) return true;
      if (poll(b)) continue;
      ny_barrier_stuck(b);
      g->stop = true;
      return true;
    }
    ny_sim_warp *w = &b->warp[n];
    uint64_t before = g->clocks;
    w->polls = 0;
    ny_warp_run(w, g->launch->options.order == NY_SIM_RANDOM ? 1 + (int32_t)(random_next(g) % 200) : TURN);
    uint64_t ran = g->clocks - before;
    if (w->state == NY_WARP_DONE) ny_barrier_recheck(b);
    polling = w->polls >= NY_POLLS || (w->polls && ran < 200) ? polling + 1 : 0;
    if (ran >= g->fuel) out_of_fuel(g, w);
    g->fuel -= ran < g->fuel ? ran : g->fuel;
    b->last_warp = n;
  }
  return g->stop;
}

static void begin_block(ny_sim_grid *g, ny_sim_block *b, uint64_t number) {
  const ny_sim_launch *l = g->launch;
  b->linear = number;
  b->index[0] = (uint32_t)(number % l->grid[0]);
  b->index[1] = (uint32_t)(number / l->grid[0] % l->grid[1]);
  b->index[2] = (uint32_t)(number / l->grid[0] / l->grid[1]);
  b->last_warp = l->options.order == NY_SIM_REVERSE ? 0 : -1;
  memset(b->shared, 0xa5, b->shared_bytes); /* what nobody wrote is not 0 */
  memset(b->barrier, 0, NY_N_BARRIERS * sizeof *b->barrier);
  for (uint32_t w = 0; w < b->n_warps; w++) {
    fill_specials(&b->warp[w], !b->used);
    ny_warp_start(&b->warp[w]);
  }
  b->used = b->running = true;
  if (b->shadow) ny_shadow_begin(b);
}

static void end_block(ny_sim_grid *g, ny_sim_block *b) {
  for (int k = 0; k < NY_N_EXT; k++)
    if (b->ext[k].end) b->ext[k].end(b, b->ext[k].p);
  memset(b->ext, 0, sizeof b->ext);
  b->running = false;
  g->count.blocks++;
  g->count.warps += b->n_warps;
}

/* Blocks run one after another in one place. Where a block waits for others, as at a barrier of the whole grid, the
   next ones begin in places of their own, and all that run have turns. */
static nyb_status run_grid(ny_sim_grid *g, ny_sim_block *place, uint32_t *n_places, ny_diag *d) {
  const ny_sim_launch *l = g->launch;
  uint64_t n = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2], next = 0, alive = 0;
  for (uint32_t at = 0; !g->stop && (next < n || alive);) {
    uint32_t k = 0;
    while (next < n && k < *n_places && place[k].running) k++;
    if (next < n && k < MAX_PLACES && (k < *n_places || alive == *n_places)) {
      if (k == *n_places) {
        ++*n_places;
        if (!make_block(g, &place[k]))
          return ny_fail(d, NYB_E_NOMEM, NULL, "%s: no memory for %u blocks of %u threads with %u registers",
                         g->kernel->info.name, k + 1, place[k].n_threads, g->kernel->info.n_regs);
      }
      begin_block(g, &place[k], next++);
      alive++;
      at = k;
    } else {
      do at = (at + 1) % *n_places;
      while (!place[at].running);
    }
    if (!run_block(g, &place[at])) continue;
    end_block(g, &place[at]);
    alive--;
  }
  for (uint32_t k = 0; k < *n_places; k++)
    if (place[k].running) end_block(g, &place[k]);
  return NYB_OK;
}

static void add_up(const ny_sim_grid *g, ny_sim_result *r) {
  ny_sim_counters *c = &r->counters;
  for (uint32_t i = 0; i < g->kernel->n_code; i++) {
    c->warp_ins[g->kernel->code[i].cls] += g->hit[i].warps;
    c->thread_ins[g->kernel->code[i].cls] += g->hit[i].threads;
  }
  c->shared_ops += g->count.shared_ops;
  c->shared_waves += g->count.shared_waves;
  c->global_ops += g->count.global_ops;
  c->global_sectors += g->count.global_sectors;
  c->global_read_bytes += g->count.global_read_bytes;
  c->global_write_bytes += g->count.global_write_bytes;
  c->barriers += g->count.barriers;
  c->blocks += g->count.blocks;
  c->warps += g->count.warps;
}

nyb_status ny_sim_run(const ny_sim_launch *l, ny_sim_result *r, ny_diag *d) {
  if (l->kernel < 0 || (uint32_t)l->kernel >= l->module->n_kernels)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "there is no kernel %d", l->kernel);
  const ny_ptx_kernel *k = &l->module->kernel[l->kernel];
  NY_TRY(check(l, k, d));
  double start = ny_now();
  ny_sim_grid g = {.launch = l, .module = l->module, .kernel = k};
  g.fuel = l->options.max_warp_ins ? l->options.max_warp_ins : 1ull << 34;
  g.rng = (l->options.seed + 1) * 0x9e3779b97f4a7c15u | 1;
  g.findings = ny_findings_new(l->options.max_findings);
  g.hit = calloc(k->n_code, sizeof *g.hit);
  g.n_ranges = ny_sim_memory_snapshot(l->memory, l->module->range, l->module->n_variables, &g.range);
  if (l->options.checks & (NY_SIM_RACES | NY_SIM_CROSS_BLOCK)) g.global_shadow = ny_shadow_global_new(&g);
  ny_sim_block *place = calloc(MAX_PLACES, sizeof *place);
  uint32_t n_places = 0;
  nyb_status s;
  if (g.findings && g.hit && place)
    s = run_grid(&g, place, &n_places, d);
  else
    s = ny_fail(d, NYB_E_NOMEM, NULL, "%s: out of memory", k->info.name);
  if (!s) add_up(&g, r);
  uint32_t before = r->n_findings;
  if (g.findings) ny_findings_move(g.findings, r);
  for (uint32_t p = 0; p < n_places; p++) free_block(&place[p]);
  free(place);
  ny_shadow_global_free(g.global_shadow);
  free(g.hit);
  free(g.range);
  r->seconds += ny_now() - start;
  if (s || r->n_findings == before) return s;
  ny_text t = {0};
  ny_sim_print_finding(&r->finding[before], &t);
  s = ny_fail(d, NYB_E_DEVICE, NULL, "%s", t.s);
  ny_text_free(&t);
  return s;
}
