/* Branches, the end of threads, and instructions that only wait or order. */
#include "call.h"
#include "decode.h"
#include "launch.h"

static void x_bra(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) { ny_go(w, mask, i->target); }

/* brx.idx: data is the list of targets, its length first */
static void x_brx(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *list = (const uint32_t *)(uintptr_t)i->data, *at = NY_U32(0);
  uint32_t ok = 0;
  NY_EACH_ACTIVE(l) {
    if (at[l] < list[0])
      ok |= 1u << l;
    else
      ny_find(w, i, l, NY_FIND_invalid, at[l], 0, "branch %u of a table of %u", at[l], list[0]);
  }
  if (ok != mask) ny_x_exit(w, i, mask & ~ok);
  for (mask = ok; mask;) {
    uint32_t to = list[1 + at[__builtin_ctz(mask)]], same = 0;
    NY_EACH_ACTIVE(l) same |= list[1 + at[l]] == to ? 1u << l : 0;
    if (same == mask) {
      ny_go(w, mask, to);
      break;
    }
    ny_leave(w, same, to);
    mask &= ~same;
  }
}

static void x_trap(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  ny_find(w, i, (uint32_t)__builtin_ctz(mask), NY_FIND_trap, 0, 0, "the kernel ran %s",
          ny_stmt(w->block->grid, i)->text);
  w->block->grid->stop = true;
  w->limit = 0;
  w->fuel = 0;
}

static void x_nothing(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) { (void)w, (void)i, (void)mask; }
static void x_wait(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  (void)i, (void)mask;
  ny_yield(w);
}

static bool fix_bra(ny_ptx_decoder *dc, ny_ptx_ins *i) { return (void)dc, i->flow = NY_FLOW_BRANCH, true; }
static bool fix_brx(ny_ptx_decoder *dc, ny_ptx_ins *i) { return (void)dc, i->flow = NY_FLOW_TABLE, true; }
static bool fix_end(ny_ptx_decoder *dc, ny_ptx_ins *i) { return (void)dc, i->flow = NY_FLOW_END, true; }
static bool fix_ret(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  i->flow = NY_FLOW_END;
  i->target = dc->at->return_reg;
  if (dc->at->f->is_entry) i->exec = ny_x_exit;
  return true;
}

#define FENCE "(sync_restrict::shared::cta sync_restrict::shared::cluster)?"
const ny_ptx_row ny_rows_control[] = {
    {"bra.(uni)?", "n", NY_CLS_control, fix_bra, {x_bra}},
    {"brx.idx.(uni)?", "b n", NY_CLS_control, fix_brx, {x_brx}},
    {"ret.(uni)?", "", NY_CLS_control, fix_ret, {ny_x_ret}},
    {"exit", "", NY_CLS_control, fix_end, {ny_x_exit}},
    {"trap", "", NY_CLS_control, NULL, {x_trap}},
    {"brkpt", "", NY_CLS_control, NULL, {x_trap}},
    {"nanosleep.u32", "b", NY_CLS_sync, NULL, {x_wait}},
    {"pmevent.(mask)?", "i", NY_CLS_sync, NULL, {x_nothing}},
    {"membar.(cta gl sys)", "", NY_CLS_sync, NULL, {x_nothing}},
    {"membar.proxy.(alias)", "", NY_CLS_sync, NULL, {x_nothing}},
    {"fence.(sc acq_rel acquire release)?." FENCE ".(cta cluster gpu sys)", "", NY_CLS_sync, NULL, {x_nothing}},
    {"fence.mbarrier_init.release.cluster", "", NY_CLS_sync, NULL, {x_nothing}},
    {"fence.proxy.(alias async async.global async.shared::cta async::generic)", "", NY_CLS_sync, NULL, {x_nothing}},
    {"fence.proxy.async.(global shared::cta shared::cluster)", "", NY_CLS_sync, NULL, {x_nothing}},
    {"prefetch.(global local)?.(L1 L2)", "m", NY_CLS_special, NULL, {x_nothing}},
    {"prefetch.global.(L2::evict_last L2::evict_normal)", "m", NY_CLS_special, NULL, {x_nothing}},
    {"prefetchu.L1", "m", NY_CLS_special, NULL, {x_nothing}},
    {"applypriority.(global)?.L2::evict_normal", "m i", NY_CLS_special, NULL, {x_nothing}},
    {"discard.(global)?.L2", "m i", NY_CLS_special, NULL, {x_nothing}},
    {"griddepcontrol.(launch_dependents wait)", "", NY_CLS_sync, NULL, {x_nothing}},
    {"setmaxnreg.(inc dec).sync.aligned.u32", "i", NY_CLS_sync, NULL, {x_nothing}},
};
const size_t ny_n_rows_control = NY_COUNT(ny_rows_control);
