/* Tensor-core products as pure functions of fragments: mma.sync, and wmma over it. A fragment is words[register][lane];
   an f64 register is two words, low first. Layouts are those of the PTX ISA's "Matrix fragments for mma"; one formula
   covers all of them (mma.c). */
#ifndef NY_SIM_MMA_H
#define NY_SIM_MMA_H
#include <stdbool.h>
#include <stdint.h>

typedef enum ny_mma_type {
  NY_MMA_none,
  NY_MMA_f16,
  NY_MMA_bf16,
  NY_MMA_tf32,
  NY_MMA_f32,
  NY_MMA_f64,
  NY_MMA_e4m3,
  NY_MMA_e5m2,
  NY_MMA_e2m3,
  NY_MMA_e3m2,
  NY_MMA_e2m1,
  NY_MMA_s8,
  NY_MMA_u8,
  NY_MMA_s4,
  NY_MMA_u4,
  NY_MMA_s32,
  NY_MMA_ue8m0,
  NY_MMA_ue4m3,
  NY_N_MMA
} ny_mma_type;
typedef enum ny_mma_kind { NY_MMA_PLAIN, NY_MMA_F8F6F4, NY_MMA_MXF8F6F4, NY_MMA_MXF4, NY_MMA_MXF4NVF4 } ny_mma_kind;

typedef struct ny_mma {
  uint8_t m, n, k;
  ny_mma_kind kind;
  ny_mma_type a, b, c, d;
  uint8_t scales; /* along k for one row of A or column of B: 0 none, 1, 2, 4 */
  ny_mma_type scale;
  bool satfinite; /* integers clamp instead of wrapping */
} ny_mma;
typedef const uint32_t (*ny_words)[32];
typedef struct ny_mma_regs {
  ny_words a, b, c;
  uint32_t (*d)[32];                 /* may be c */
  const uint32_t *scale_a, *scale_b; /* [lane] */
  uint8_t byte_a, thread_a, byte_b, thread_b;
} ny_mma_regs;

/* NULL, or what PTX does not have about it: one phrase. */
const char *ny_mma_check(const ny_mma *m);
/* 32-bit words (registers; two for each f64) of the fragment of matrix 'a', 'b', 'c' or 'd'. */
int ny_mma_words(const ny_mma *m, char matrix);

/* D = A * B + C. Products are exact. Sums: integers exact; f64 a chain of fma in the order of k; block-scaled kinds and
   anything with a scale in double, rounded once; the rest in float, C first, then the products in a fixed order, each
   step rounded to nearest. Silicon aligns the products of a step to the largest exponent and truncates, in an order and
   with guard bits that are not documented: between it and this |difference| <= (k + 2) * 2^-22 * (|c| + sum of |a * b|)
   for an f32 result, plus half a last place where the result is f16. A NaN result is the canonical one. */
void ny_mma_run(const ny_mma *m, const ny_mma_regs *r);

/* wmma: PTX leaves its fragments opaque, so that any layout serves; these are made of mma.sync fragments. Element
   (row, column) of the `i`th element of fragment register `reg` in `lane`. Shapes: m16n16k16 of f16, bf16, s8, u8 and
   m16n16k8 of tf32. f16 operands have eight registers: the last four repeat the first. */
const char *ny_wmma_check(const ny_mma *m);
int ny_wmma_words(const ny_mma *m, char matrix);
void ny_wmma_at(const ny_mma *m, char matrix, int reg, int i, int lane, int *row, int *col);
void ny_wmma_run(const ny_mma *m, const ny_mma_regs *r);
#endif
