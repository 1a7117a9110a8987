/* mma.sync and wmma.mma: rows that gather fragments from registers for mma.c. A row fixes how many registers each
   operand has; the words of the mnemonic say the rest. */
#include "tensor.h"
#include "mma.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ny_whole_warp(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  if (!ny_converged(w, i, mask, NY_ALL_LANES)) return false;
  if (mask != NY_ALL_LANES)
    ny_find(w, i, (uint32_t)__builtin_ctz(mask), NY_FIND_invalid, 0, 0,
            "a warp-wide instruction with %d of 32 threads: the others have exited or were never there",
            __builtin_popcount(mask));
  return true;
}

void ny_get_words(const ny_sim_warp *w, const ny_ptx_ins *i, int first, int n, uint32_t (*to)[NY_LANES]) {
  for (int k = 0, at = 0; k < n; k++) {
    const ny_ptx_arg *a = &i->arg[first + k];
    if (a->width == 4) {
      memcpy(to[at++], ny_lanes(w, a), sizeof to[0]);
      continue;
    }
    const uint64_t *from = ny_lanes(w, a);
    for (int l = 0; l < NY_LANES; l++) to[at][l] = (uint32_t)from[l], to[at + 1][l] = (uint32_t)(from[l] >> 32);
    at += 2;
  }
}

void ny_put_words(ny_sim_warp *w, const ny_ptx_ins *i, int first, int n, const uint32_t (*from)[NY_LANES],
                  uint32_t mask) {
  for (int k = 0, at = 0; k < n; k++) {
    if (i->arg[first + k].width == 4) {
      uint32_t *to = NY_U32(first + k);
      NY_MAP(uint32_t, to, from[at][l]);
      at++;
    } else {
      uint64_t *to = NY_U64(first + k);
      NY_MAP(uint64_t, to, (uint64_t)from[at + 1][l] << 32 | from[at][l]);
      at += 2;
    }
  }
}

/* ---- what a mnemonic says */
typedef struct tensor_op {
  ny_mma mma;
  uint8_t n[4]; /* registers of d, a, b, c */
} tensor_op;

static ny_mma_type type_of(const char *word) {
  static const char *const names[NY_N_MMA] = {"",     "f16",  "bf16", "tf32", "f32", "f64", "e4m3", "e5m2",  "e2m3",
                                              "e3m2", "e2m1", "s8",   "u8",   "s4",  "u4",  "s32",  "ue8m0", "ue4m3"};
  for (int t = 1; t < NY_N_MMA; t++)
    if (!strcmp(names[t], word)) return (ny_mma_type)t;
  return NY_MMA_none;
}
static ny_mma_kind kind_of(const char *word) {
  static const char *const names[] = {"", "f8f6f4", "mxf8f6f4", "mxf4", "mxf4nvf4"};
  for (int k = 1; k < 5; k++)
    if (!strcmp(names[k], word + strlen("kind::"))) return (ny_mma_kind)k;
  return NY_MMA_PLAIN;
}

/* Types come in the order d, a, b, c, scale; wmma.mma of f16 writes only d and c. */
static bool read_words(ny_ptx_decoder *dc, ny_mma *m) {
  ny_mma_type type[5] = {0};
  int n = 0;
  bool block_scale = false;
  for (int g = 0; g < NY_MAX_OPT; g++) {
    const char *word = ny_ptx_word(dc, g);
    if (!word || !*word) continue;
    unsigned shape[3];
    if (sscanf(word, "m%un%uk%u", &shape[0], &shape[1], &shape[2]) == 3)
      m->m = (uint8_t)shape[0], m->n = (uint8_t)shape[1], m->k = (uint8_t)shape[2];
    else if (!strncmp(word, "kind::", 6))
      m->kind = kind_of(word);
    else if (!strncmp(word, "scale_vec::", 11))
      m->scales = (uint8_t)atoi(word + 11);
    else if (!strcmp(word, "block_scale"))
      block_scale = true;
    else if (!strcmp(word, "satfinite"))
      m->satfinite = true;
    else if (type_of(word) && n < 5)
      type[n++] = type_of(word);
  }
  if (n == 2) type[3] = type[1], type[1] = type[2] = NY_MMA_f16;
  m->d = type[0], m->a = type[1], m->b = type[2], m->c = type[3], m->scale = type[4];
  if (block_scale && !m->scales) m->scales = m->kind == NY_MMA_MXF8F6F4 ? 1 : m->kind == NY_MMA_MXF4 ? 2 : 0;
  return block_scale == (m->scale != NY_MMA_none) || ny_ptx_bad(dc, "block_scale and a scale type go together");
}

static uint8_t registers(const ny_mma *m, int words) { return (uint8_t)(m->a == NY_MMA_f64 ? words / 2 : words); }
static bool fix_mma(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  tensor_op *op = ny_ptx_alloc(dc, sizeof *op);
  ny_mma *m = &op->mma;
  if (!read_words(dc, m)) return false;
  const char *problem = m->c == m->d ? ny_mma_check(m) : "accumulators of two types";
  if (problem) return ny_ptx_bad(dc, "mma does not have %s", problem);
  for (int k = 0; k < 4; k++) op->n[k] = registers(m, ny_mma_words(m, "dabc"[k]));
  i->data = (uint64_t)(uintptr_t)op;
  return true;
}
static bool fix_wmma(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  tensor_op *op = ny_ptx_alloc(dc, sizeof *op);
  if (!read_words(dc, &op->mma)) return false;
  const char *problem = ny_wmma_check(&op->mma);
  if (problem) return ny_ptx_bad(dc, "wmma is simulated without %s", problem);
  for (int k = 0; k < 4; k++) op->n[k] = (uint8_t)ny_wmma_words(&op->mma, "dabc"[k]);
  i->data = (uint64_t)(uintptr_t)op;
  return true;
}

/* ---- running */
enum { MAX_WORDS = 16 }; /* of one matrix: A of f64 m16n8k16 */
static void run(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask,
                void (*product)(const ny_mma *m, const ny_mma_regs *r)) {
  if (!ny_whole_warp(w, i, mask)) return;
  const tensor_op *op = (const tensor_op *)(uintptr_t)i->data;
  uint32_t a[MAX_WORDS][NY_LANES], b[MAX_WORDS][NY_LANES], c[MAX_WORDS][NY_LANES], d[MAX_WORDS][NY_LANES];
  int at = op->n[0];
  ny_get_words(w, i, at, op->n[1], a);
  ny_get_words(w, i, at += op->n[1], op->n[2], b);
  ny_get_words(w, i, at += op->n[2], op->n[3], c);
  at += op->n[3];
  ny_mma_regs r = {.a = (ny_words)a, .b = (ny_words)b, .c = (ny_words)c, .d = d};
  if (op->mma.scales) { /* scale_a, {byte, thread}, scale_b, {byte, thread}: the selectors are the same in all lanes */
    uint32_t first = (uint32_t)__builtin_ctz(mask);
    r.scale_a = NY_U32(at), r.scale_b = NY_U32(at + 3);
    uint32_t byte_a = NY_U32(at + 1)[first], thread_a = NY_U32(at + 2)[first];
    uint32_t byte_b = NY_U32(at + 4)[first], thread_b = NY_U32(at + 5)[first];
    uint32_t step = op->mma.scales; /* 1X takes any byte, 2X bytes 0 and 2, 4X byte 0 */
    if (byte_a % step || byte_a + step > 4 || byte_b % step || byte_b + step > 4 || thread_a > 1 || thread_b > 3) {
      ny_find(w, i, first, NY_FIND_invalid, 0, 0, "scale selectors {%u, %u} and {%u, %u} are out of range", byte_a,
              thread_a, byte_b, thread_b);
      return;
    }
    r.byte_a = (uint8_t)byte_a, r.thread_a = (uint8_t)thread_a;
    r.byte_b = (uint8_t)byte_b, r.thread_b = (uint8_t)thread_b;
  }
  product(&op->mma, &r);
  ny_put_words(w, i, 0, op->n[0], (ny_words)d, mask);
}
static void mma(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) { run(w, i, mask, ny_mma_run); }
static void wmma(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) { run(w, i, mask, ny_wmma_run); }

#define MMA "mma.sync.aligned."
#define RC ".row.col."
#define KIND "(kind::f8f6f4)?."
#define F8 "(e4m3 e5m2)"
#define F864 "(e4m3 e5m2 e3m2 e2m3 e2m1)"
/* The kind stands before the shape or after the layouts: both are written. */
#define SCALED_BEFORE(kinds, shape, types)                                                                             \
  MMA "(" kinds ").(block_scale).(scale_vec::1X scale_vec::2X scale_vec::4X)?.(" shape ")" RC "(f32)." types           \
      ".(f32).(ue8m0 ue4m3)"
#define SCALED_AFTER(kinds, shape, types)                                                                              \
  MMA "(" shape ")" RC "(" kinds ").(block_scale).(scale_vec::1X scale_vec::2X scale_vec::4X)?.(f32)." types           \
      ".(f32).(ue8m0 ue4m3)"
#define MX8 "kind::mxf8f6f4"
#define MX4 "kind::mxf4 kind::mxf4nvf4"
#define SCALES " b1 h2 b1 h2"
#define WMMA "wmma.mma.sync.aligned.(row col).(row col)."
#define TENSOR(pattern, operands)                                                                                      \
  {                                                                                                                    \
    pattern, operands, NY_CLS_tensor, fix_mma, { mma }                                                                 \
  }
#define TENSOR_W(pattern, operands)                                                                                    \
  {                                                                                                                    \
    pattern, operands, NY_CLS_tensor, fix_wmma, { wmma }                                                               \
  }
const ny_ptx_row ny_rows_tensor[] = {
    TENSOR(MMA "(m16n8k8)" RC "(f16).(f16).(f16).(f16)", "B2 b2 b1 b2"),
    TENSOR(MMA "(m16n8k16)" RC "(f16).(f16).(f16).(f16)", "B2 b4 b2 b2"),
    TENSOR(MMA "(m16n8k8)" RC "(f32).(f16 bf16).(f16 bf16).(f32)", "B4 b2 b1 b4"),
    TENSOR(MMA "(m16n8k16)" RC "(f32).(f16 bf16).(f16 bf16).(f32)", "B4 b4 b2 b4"),
    TENSOR(MMA "(m16n8k4)" RC "(f32).(tf32).(tf32).(f32)", "B4 b2 b1 b4"),
    TENSOR(MMA "(m16n8k8)" RC "(f32).(tf32).(tf32).(f32)", "B4 b4 b2 b4"),
    TENSOR(MMA "(m8n8k4)" RC "(f64).(f64).(f64).(f64)", "L2 l1 l1 l2"),
    TENSOR(MMA "(m16n8k4)" RC "(f64).(f64).(f64).(f64)", "L4 l2 l1 l4"),
    TENSOR(MMA "(m16n8k8)" RC "(f64).(f64).(f64).(f64)", "L4 l4 l2 l4"),
    TENSOR(MMA "(m16n8k16)" RC "(f64).(f64).(f64).(f64)", "L4 l8 l4 l4"),
    TENSOR(MMA "(m8n8k16)" RC "(satfinite)?.(s32).(s8 u8).(s8 u8).(s32)", "B2 b1 b1 b2"),
    TENSOR(MMA "(m16n8k16)" RC "(satfinite)?.(s32).(s8 u8).(s8 u8).(s32)", "B4 b2 b1 b4"),
    TENSOR(MMA "(m16n8k32)" RC "(satfinite)?.(s32).(s8 u8).(s8 u8).(s32)", "B4 b4 b2 b4"),
    TENSOR(MMA "(m8n8k32)" RC "(satfinite)?.(s32).(s4 u4).(s4 u4).(s32)", "B2 b1 b1 b2"),
    TENSOR(MMA "(m16n8k32)" RC "(satfinite)?.(s32).(s4 u4).(s4 u4).(s32)", "B4 b2 b1 b4"),
    TENSOR(MMA "(m16n8k64)" RC "(satfinite)?.(s32).(s4 u4).(s4 u4).(s32)", "B4 b4 b2 b4"),
    TENSOR(MMA "(m16n8k16)" RC "(f16)." F8 "." F8 ".(f16)", "B2 b2 b1 b2"),
    TENSOR(MMA "(m16n8k16)" RC "(f32)." F8 "." F8 ".(f32)", "B4 b2 b1 b4"),
    TENSOR(MMA KIND "(m16n8k32)" RC KIND "(f16)." F864 "." F864 ".(f16)", "B2 b4 b2 b2"),
    TENSOR(MMA KIND "(m16n8k32)" RC KIND "(f32)." F864 "." F864 ".(f32)", "B4 b4 b2 b4"),
    TENSOR(SCALED_BEFORE(MX8, "m16n8k32", F864 "." F864), "B4 b4 b2 b4" SCALES),
    TENSOR(SCALED_AFTER(MX8, "m16n8k32", F864 "." F864), "B4 b4 b2 b4" SCALES),
    TENSOR(SCALED_BEFORE(MX4, "m16n8k64", "(e2m1).(e2m1)"), "B4 b4 b2 b4" SCALES),
    TENSOR(SCALED_AFTER(MX4, "m16n8k64", "(e2m1).(e2m1)"), "B4 b4 b2 b4" SCALES),
    TENSOR_W(WMMA "(m16n16k16).(f32).(f32)", "B8 b8 b8 b8"),
    TENSOR_W(WMMA "(m16n16k16).(f16).(f16)", "B4 b8 b8 b4"),
    TENSOR_W(WMMA "(m16n16k16).(f32).(f16)", "B8 b8 b8 b4"),
    TENSOR_W(WMMA "(m16n16k16).(f16).(f32)", "B4 b8 b8 b8"),
    TENSOR_W(WMMA "(m16n16k16).(f32).(bf16).(bf16).(f32)", "B8 b4 b4 b8"),
    TENSOR_W(WMMA "(m16n16k8).(f32).(tf32).(tf32).(f32)", "B8 b4 b4 b8"),
    TENSOR_W(WMMA "(m16n16k16).(s32).(s8).(s8).(s32).(satfinite)?", "B8 b2 b2 b8"),
    TENSOR_W(WMMA "(m16n16k16).(s32).(u8).(u8).(s32).(satfinite)?", "B8 b2 b2 b8"),
};
const size_t ny_n_rows_tensor = NY_COUNT(ny_rows_tensor);
