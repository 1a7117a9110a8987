/* Multiply-adds a second of one core: the yardstick of the kernel benchmark. */
#ifndef NY_PEAK_H
#define NY_PEAK_H
double fma_peak(int vec_bytes); /* FLOP/s over about half a millisecond, with vectors of at most so many bytes */
#endif
