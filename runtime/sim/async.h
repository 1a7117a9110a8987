/* Copies under way, and the mbarriers that count them. A copy's bytes move when it is issued or, with late_copies, only
   when somebody has waited for it: a kernel that forgets to wait sees stale data in one of the two. For the race check
   a copy is in flight until the wait in both. */
#ifndef NY_SIM_ASYNC_H
#define NY_SIM_ASYNC_H
#include "ptx.h"

/* ---- mbarrier.c: the object is the 8 bytes in shared memory themselves. */
/* Arrivals and transaction bytes from copies that land; `offset` in shared memory was checked when they were issued. */
void ny_mbarrier_arrive(ny_sim_block *b, uint32_t offset);
void ny_mbarrier_complete_tx(ny_sim_block *b, uint32_t offset, uint32_t bytes);
/* The offset of the mbarrier that operand k names in this lane, or UINT32_MAX after a finding. */
uint32_t ny_mbarrier_at(ny_sim_warp *w, const ny_ptx_ins *i, int k, uint32_t lane);

/* ---- async.c */
/* Everything that will arrive at this mbarrier has happened: its copies land. */
void ny_async_settle(ny_sim_block *b, uint32_t offset);
#endif
