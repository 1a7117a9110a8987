/* Multiply-adds a second of one core, with the widest vectors it has: the yardstick of the kernel benchmark. */
#ifndef NY_PEAK_H
#define NY_PEAK_H
double fma_peak(void); /* FLOP/s over about half a millisecond */
#endif
