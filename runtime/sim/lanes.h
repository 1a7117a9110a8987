/* Handlers by the dozen: a macro makes a scalar function of an expression and the loop over lanes around it. T is the
   type of the operands, L that of the lanes; C computes without overflow being undefined. A narrow result is written
   zero-extended. */
#ifndef NY_SIM_LANES_H
#define NY_SIM_LANES_H
#include "ptx.h"
#include <math.h>
#include <string.h>

#define NY_NARROW(T, L, v) ((L)((L)(v) & (sizeof(T) < 4 ? (L)((1ull << (sizeof(T) % 8 * 8)) - 1) : (L)-1)))
#define NY_UNARY(name, T, CT, L, e)                                                                                     \
  static inline T f_##name(T a) {                                                                                        \
    typedef CT C;                                                                                                    \
    (void)(C)0; \
    return (T)(e);                                                                                                     \
  }                                                                     \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const L *pa = NY_LANES_OF(L, 1);                                                                                   \
    NY_MAP(L, NY_LANES_OF(L, 0), NY_NARROW(T, L, f_##name((T)pa[l])));                                                 \
  }
#define NY_BINARY(name, T, CT, L, e)                                                                                    \
  static inline T f_##name(T a, T b) { typedef CT C; (void)(C)0; return (T)(e); }                                                                \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const L *pa = NY_LANES_OF(L, 1), *pb = NY_LANES_OF(L, 2);                                                          \
    NY_MAP(L, NY_LANES_OF(L, 0), NY_NARROW(T, L, f_##name((T)pa[l], (T)pb[l])));                                       \
  }
#define NY_TERNARY(name, T, CT, L, e)                                                                                   \
  static inline T f_##name(T a, T b, T c) { typedef CT C; (void)(C)0; return (T)(e); }                                                           \
  static void name(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {                                               \
    const L *pa = NY_LANES_OF(L, 1), *pb = NY_LANES_OF(L, 2), *pc = NY_LANES_OF(L, 3);                                 \
    NY_MAP(L, NY_LANES_OF(L, 0), NY_NARROW(T, L, f_##name((T)pa[l], (T)pb[l], (T)pc[l])));                             \
  }
/* M(name_suffix, T, C, L, ...) for the integer types */
#define NY_INT16(M, op, e) M(op##_u16, uint16_t, uint32_t, uint32_t, e) M(op##_s16, int16_t, uint32_t, uint32_t, e)
#define NY_INT32(M, op, e) M(op##_u32, uint32_t, uint32_t, uint32_t, e) M(op##_s32, int32_t, uint32_t, uint32_t, e)
#define NY_INT64(M, op, e) M(op##_u64, uint64_t, uint64_t, uint64_t, e) M(op##_s64, int64_t, uint64_t, uint64_t, e)
#define NY_INTS(M, op, e) NY_INT16(M, op, e) NY_INT32(M, op, e) NY_INT64(M, op, e)
#define NY_SIX(op)                                                                                                     \
  { op##_u16, op##_u32, op##_u64, op##_s16, op##_s32, op##_s64 }
#define NY_SIX_TYPES "[u16 u32 u64 s16 s32 s64]"
#endif
