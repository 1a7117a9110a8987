/* Random tile programs whose result is the same to the bit however they are compiled: float ops round once and have one
 * answer, sums are of integers. */
#ifndef NY_KERNEL_GEN_H
#define NY_KERNEL_GEN_H
#include "base.h"
void kernel_gen(ny_text *out, uint32_t seed);
#endif
