/* The special registers, one row each. */
#include "parse.h"
#include "launch.h"
#include <string.h>

#define FIXED(fn, e)                                                                                                   \
  static uint64_t fn(const ny_sim_warp *w, uint32_t lane) {                                                            \
    (void)w, (void)lane;                                                                                               \
    return e;                                                                                                          \
  }
#define LAUNCH w->block->grid->launch
FIXED(tid_x, (w->index * NY_LANES + lane) % LAUNCH->block[0])
FIXED(tid_y, (w->index * NY_LANES + lane) / LAUNCH->block[0] % LAUNCH->block[1])
FIXED(tid_z, (w->index * NY_LANES + lane) / LAUNCH->block[0] / LAUNCH->block[1])
FIXED(ntid_x, LAUNCH->block[0])
FIXED(ntid_y, LAUNCH->block[1])
FIXED(ntid_z, LAUNCH->block[2])
FIXED(ctaid_x, w->block->index[0])
FIXED(ctaid_y, w->block->index[1])
FIXED(ctaid_z, w->block->index[2])
FIXED(nctaid_x, LAUNCH->grid[0])
FIXED(nctaid_y, LAUNCH->grid[1])
FIXED(nctaid_z, LAUNCH->grid[2])
FIXED(laneid, lane)
FIXED(warpid, w->index)
FIXED(nwarpid, w->block->n_warps)
FIXED(zero, 0)
FIXED(one, 1)
FIXED(mask_eq, 1u << lane)
FIXED(mask_lt, (1u << lane) - 1)
FIXED(mask_le, (2u << lane) - 1)
FIXED(mask_gt, ~((2u << lane) - 1))
FIXED(mask_ge, ~((1u << lane) - 1))
FIXED(dynamic_shared, LAUNCH->dynamic_shared)
FIXED(total_shared, w->block->shared_bytes)
FIXED(clock_now, ny_clock(w->block->grid))
FIXED(clock_high, ny_clock(w->block->grid) >> 32)
FIXED(timer, ny_clock(w->block->grid))

const ny_special ny_specials[] = {
    {"%tid.x", 4, false, tid_x},
    {"%tid.y", 4, false, tid_y},
    {"%tid.z", 4, false, tid_z},
    {"%ntid.x", 4, false, ntid_x},
    {"%ntid.y", 4, false, ntid_y},
    {"%ntid.z", 4, false, ntid_z},
    {"%ctaid.x", 4, false, ctaid_x},
    {"%ctaid.y", 4, false, ctaid_y},
    {"%ctaid.z", 4, false, ctaid_z},
    {"%nctaid.x", 4, false, nctaid_x},
    {"%nctaid.y", 4, false, nctaid_y},
    {"%nctaid.z", 4, false, nctaid_z},
    {"%laneid", 4, false, laneid},
    {"%warpid", 4, false, warpid},
    {"%nwarpid", 4, false, nwarpid},
    {"%smid", 4, false, zero},
    {"%nsmid", 4, false, one},
    {"%gridid", 8, false, one},
    {"%lanemask_eq", 4, false, mask_eq},
    {"%lanemask_lt", 4, false, mask_lt},
    {"%lanemask_le", 4, false, mask_le},
    {"%lanemask_gt", 4, false, mask_gt},
    {"%lanemask_ge", 4, false, mask_ge},
    {"%dynamic_smem_size", 4, false, dynamic_shared},
    {"%total_smem_size", 4, false, total_shared},
    {"%aggr_smem_size", 4, false, total_shared},
    {"%reserved_smem_offset_begin", 4, false, zero},
    {"%reserved_smem_offset_end", 4, false, zero},
    /* A launch without clusters is clusters of one block each. */
    {"%clusterid.x", 4, false, ctaid_x},
    {"%clusterid.y", 4, false, ctaid_y},
    {"%clusterid.z", 4, false, ctaid_z},
    {"%nclusterid.x", 4, false, nctaid_x},
    {"%nclusterid.y", 4, false, nctaid_y},
    {"%nclusterid.z", 4, false, nctaid_z},
    {"%cluster_ctaid.x", 4, false, zero},
    {"%cluster_ctaid.y", 4, false, zero},
    {"%cluster_ctaid.z", 4, false, zero},
    {"%cluster_nctaid.x", 4, false, one},
    {"%cluster_nctaid.y", 4, false, one},
    {"%cluster_nctaid.z", 4, false, one},
    {"%cluster_ctarank", 4, false, zero},
    {"%cluster_nctarank", 4, false, one},
    {"%clock", 4, true, clock_now},
    {"%clock_hi", 4, true, clock_high},
    {"%clock64", 8, true, clock_now},
    {"%globaltimer", 8, true, timer},
    {"%globaltimer_lo", 4, true, timer},
    {"%globaltimer_hi", 4, true, clock_high},
};
const uint32_t ny_n_specials = NY_COUNT(ny_specials);

int ny_special_by_name(const char *s, size_t n) {
  for (uint32_t i = 0; i < ny_n_specials; i++)
    if (strlen(ny_specials[i].name) == n && !memcmp(ny_specials[i].name, s, n)) return (int)i;
  return -1;
}
