/* What the handlers of warp-wide matrix instructions share. */
#ifndef NY_SIM_TENSOR_H
#define NY_SIM_TENSOR_H
#include "ptx.h"

/* True once the whole warp is at this .aligned instruction; false: return at once. Lanes that have exited are a
   finding: what the instruction does without them is undefined. */
bool ny_whole_warp(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask);
/* Operands first .. first + n - 1 as 32-bit words, a 64-bit register as two, and back. */
void ny_get_words(const ny_sim_warp *w, const ny_ptx_ins *i, int first, int n, uint32_t (*to)[NY_LANES]);
void ny_put_words(ny_sim_warp *w, const ny_ptx_ins *i, int first, int n, const uint32_t (*from)[NY_LANES],
                  uint32_t mask);
#endif
