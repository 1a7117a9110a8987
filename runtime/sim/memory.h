/* What a launch takes from the address space. */
#ifndef NY_SIM_MEMORY_H
#define NY_SIM_MEMORY_H
#include "sim.h"
/* All ranges and `more` (the module's variables), by address; malloc'ed. Returns how many. */
uint32_t ny_sim_memory_snapshot(ny_sim_memory *m, const ny_sim_range *more, uint32_t n_more, ny_sim_range **out);
#endif
