/* Independent multiply-add chains in registers, enough of them to cover the latency. Written with vector extensions, so that each instruction set is
   one copy of the same loop; every chain is a variable of its own, because an array would be kept in memory. */
#include "peak.h"

#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

enum { CHAINS = 12 };
#define EACH(f) f(a) f(b) f(c) f(d) f(e) f(g) f(h) f(i) f(j) f(k) f(l) f(m)
#define START(v) v = x * (float)(__COUNTER__ + 1);
#define STEP(v) v = v * x + y;
#define ADD(v) sum += v;
#define PEAK(name, bytes, attr)                                                                                       \
  typedef float v_##name __attribute__((vector_size(bytes)));                                                         \
  attr static double name(long steps) {                                                                               \
    v_##name a, b, c, d, e, g, h, i, j, k, l, m, x = {0}, y = {0}, sum = {0};                                         \
    x += 0.999f, y += 0.5f;                                                                                           \
    EACH(START)                                                                                                       \
    double t = now();                                                                                                 \
    for (long s = 0; s < steps; s++) { EACH(STEP) }                                                                   \
    volatile float keep;                                                                                              \
    EACH(ADD)                                                                                                         \
    keep = sum[0];                                                                                                    \
    (void)keep;                                                                                                       \
    t = now() - t;                                                                                                    \
    return 2.0 * (double)CHAINS * (bytes / 4) * (double)steps / t;                                                            \
  }

#if defined(__x86_64__)
PEAK(wide, 64, __attribute__((target("avx512f,fma"))))
PEAK(mid, 32, __attribute__((target("avx2,fma"))))
PEAK(narrow, 16, )
double fma_peak(int vec_bytes) {
  enum { STEPS = 100000 };
  if (vec_bytes >= 64 && __builtin_cpu_supports("avx512f")) return wide(STEPS);
  return vec_bytes >= 32 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? mid(STEPS) : narrow(STEPS);
}
#else
PEAK(narrow, 16, )
double fma_peak(int vec_bytes) { return (void)vec_bytes, narrow(100000); }
#endif
