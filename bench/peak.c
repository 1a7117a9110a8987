/* Independent multiply-add chains in registers, enough of them to cover the latency. Written with vector extensions, so that each instruction set is
   one copy of the same loop. */
#include "peak.h"

#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#define PEAK(name, bytes, chains, attr)                                                                                       \
  typedef float v_##name __attribute__((vector_size(bytes)));                                                         \
  attr static double name(long steps) {                                                                               \
    v_##name a[chains], x = {0}, y = {0};                                                                             \
    for (int i = 0; i < chains; i++) a[i] = (v_##name){(float)i};                                                     \
    x += 0.999f, y += 0.5f;                                                                                           \
    double t = now();                                                                                                 \
    for (long s = 0; s < steps; s++) {                                                                                \
      for (int i = 0; i < chains; i++) a[i] = a[i] * x + y;                                                           \
    }                                                                                                                 \
    t = now() - t;                                                                                                    \
    for (int i = 1; i < chains; i++) a[0] += a[i];                                                                    \
    volatile float keep = a[0][0];                                                                                    \
    (void)keep;                                                                                                       \
    return 2.0 * chains * (bytes / 4) * (double)steps / t;                                                            \
  }

#if defined(__x86_64__)
PEAK(wide, 64, 24, __attribute__((target("avx512f,fma"))))
PEAK(mid, 32, 12, __attribute__((target("avx2,fma"))))
PEAK(narrow, 16, 12, )
double fma_peak(void) {
  enum { STEPS = 60000 };
  if (__builtin_cpu_supports("avx512f")) return wide(STEPS);
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? mid(STEPS) : narrow(STEPS);
}
#else
PEAK(narrow, 16, 24, )
double fma_peak(void) { return narrow(120000); }
#endif
