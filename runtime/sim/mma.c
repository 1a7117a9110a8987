/* A fragment is decoded into a plain matrix once, the product runs over plain matrices with eight columns side by side,
   and the result is put back. One formula gives every layout: with e elements in a register, g = lane / 4 and
   t = lane % 4, register q of A holds row g + 8 * (q % 2), columns t * e .. + e - 1 + 4 * e * (q / 2); register q of B
   holds rows t * e .. + 4 * e * q of column g; C and D hold row g + 8 * (i / 2), column 2 * t + i % 2. */
#include "mma.h"
#include "narrow.h"
#include <assert.h>
#include <math.h>

enum { MAX_M = 16, MAX_N = 8, MAX_K = 64 };
typedef struct product {
  union {
    float f[MAX_M][MAX_K];
    int32_t i[MAX_M][MAX_K];
    double d[MAX_M][16];
  } a;
  union {
    float f[MAX_K][MAX_N];
    int32_t i[MAX_K][MAX_N];
    double d[16][MAX_N];
  } b;
  union {
    float f[MAX_M][MAX_N];
    int64_t i[MAX_M][MAX_N];
    double d[MAX_M][MAX_N];
  } c;
} product;

/* ---- element widths */
/* Bits an element takes in a register: fp4 and fp6 sit in bytes unless the kind packs two fp4 in one. */
static int width(const ny_mma *m, ny_mma_type t) {
  switch (t) {
  case NY_MMA_f64: return 64;
  case NY_MMA_f32:
  case NY_MMA_s32:
  case NY_MMA_tf32: return 32;
  case NY_MMA_f16:
  case NY_MMA_bf16: return 16;
  case NY_MMA_s4:
  case NY_MMA_u4: return 4;
  case NY_MMA_e2m1: return m->kind == NY_MMA_MXF4 || m->kind == NY_MMA_MXF4NVF4 ? 4 : 8;
  default: return 8;
  }
}

int ny_mma_words(const ny_mma *m, char matrix) {
  int elements = matrix == 'a' ? m->m * m->k : matrix == 'b' ? m->n * m->k : m->m * m->n;
  ny_mma_type t = matrix == 'a' ? m->a : matrix == 'b' ? m->b : matrix == 'c' ? m->c : m->d;
  return elements * width(m, t) / (32 * 32);
}

/* ---- which combinations exist */
typedef struct form {
  ny_mma_kind kind;
  const char *a, *b, *cd; /* lists of types; b NULL: the same type as a */
  uint8_t shapes[5][3];
} form;
static const char *const names[NY_N_MMA] = {"",     "f16",  "bf16", "tf32", "f32", "f64", "e4m3", "e5m2",  "e2m3",
                                            "e3m2", "e2m1", "s8",   "u8",   "s4",  "u4",  "s32",  "ue8m0", "ue4m3"};
static const form forms[] = {
    {NY_MMA_PLAIN, " f16 ", NULL, " f16 f32 ", {{16, 8, 8}, {16, 8, 16}}},
    {NY_MMA_PLAIN, " bf16 ", NULL, " f32 ", {{16, 8, 8}, {16, 8, 16}}},
    {NY_MMA_PLAIN, " tf32 ", NULL, " f32 ", {{16, 8, 4}, {16, 8, 8}}},
    {NY_MMA_PLAIN, " e4m3 e5m2 ", " e4m3 e5m2 ", " f16 f32 ", {{16, 8, 16}, {16, 8, 32}}},
    {NY_MMA_PLAIN, " f64 ", NULL, " f64 ", {{8, 8, 4}, {16, 8, 4}, {16, 8, 8}, {16, 8, 16}}},
    {NY_MMA_PLAIN, " s8 u8 ", " s8 u8 ", " s32 ", {{8, 8, 16}, {16, 8, 16}, {16, 8, 32}}},
    {NY_MMA_PLAIN, " s4 u4 ", " s4 u4 ", " s32 ", {{8, 8, 32}, {16, 8, 32}, {16, 8, 64}}},
    {NY_MMA_F8F6F4, " e4m3 e5m2 e3m2 e2m3 e2m1 ", " e4m3 e5m2 e3m2 e2m3 e2m1 ", " f16 f32 ", {{16, 8, 32}}},
    {NY_MMA_MXF8F6F4, " e4m3 e5m2 e3m2 e2m3 e2m1 ", " e4m3 e5m2 e3m2 e2m3 e2m1 ", " f32 ", {{16, 8, 32}}},
    {NY_MMA_MXF4, " e2m1 ", NULL, " f32 ", {{16, 8, 64}}},
    {NY_MMA_MXF4NVF4, " e2m1 ", NULL, " f32 ", {{16, 8, 64}}},
};

static bool listed(const char *list, ny_mma_type t) {
  size_t n = strlen(names[t]);
  for (const char *s = n ? list : ""; (s = strstr(s, names[t])); s += n)
    if (s[-1] == ' ' && s[n] == ' ') return true;
  return false;
}

static const char *check_scales(const ny_mma *m) {
  bool scaled = m->kind == NY_MMA_MXF8F6F4 || m->kind == NY_MMA_MXF4 || m->kind == NY_MMA_MXF4NVF4;
  if (!scaled) return m->scales ? "block scales without a block-scaled kind" : NULL;
  if (m->kind == NY_MMA_MXF8F6F4 && (m->scales != 1 || m->scale != NY_MMA_ue8m0)) return "mxf8f6f4 scales but 1X ue8m0";
  if (m->kind == NY_MMA_MXF4 && (m->scales != 2 || m->scale != NY_MMA_ue8m0)) return "mxf4 scales but 2X ue8m0";
  if (m->kind == NY_MMA_MXF4NVF4 &&
      !((m->scales == 2 && m->scale == NY_MMA_ue8m0) || (m->scales == 4 && m->scale == NY_MMA_ue4m3)))
    return "mxf4nvf4 scales but 2X ue8m0 and 4X ue4m3";
  return NULL;
}

const char *ny_mma_check(const ny_mma *m) {
  const char *problem = "these operand types";
  for (unsigned i = 0; i < sizeof forms / sizeof *forms; i++) {
    const form *f = &forms[i];
    if (f->kind != m->kind || !listed(f->a, m->a) || !listed(f->b ? f->b : f->a, m->b)) continue;
    problem = "these accumulator types";
    if (!listed(f->cd, m->c) || !listed(f->cd, m->d)) continue;
    problem = "this shape";
    for (int s = 0; s < 5; s++)
      if (f->shapes[s][0] == m->m && f->shapes[s][1] == m->n && f->shapes[s][2] == m->k) return check_scales(m);
  }
  return problem;
}

/* ---- decoding fragments */
static inline float element(ny_mma_type t, int w, uint32_t code) {
  switch (t) {
  case NY_MMA_f16: return ny_widen_f16(code);
  case NY_MMA_bf16: return ny_widen_bf16(code);
  case NY_MMA_tf32: return ny_f32_of(code & 0xffffe000); /* the unit reads no more than 19 bits */
  case NY_MMA_e4m3: return ny_widen_e4m3(code);
  case NY_MMA_e5m2: return ny_widen_e5m2(code);
  case NY_MMA_e2m3: return ny_widen_e2m3(code);
  case NY_MMA_e3m2: return ny_widen_e3m2(code);
  case NY_MMA_e2m1: return ny_widen_e2m1(w == 8 ? code >> 2 : code); /* in a byte: bits 5 to 2 */
  default: return ny_f32_of(code);
  }
}

static inline int32_t integer(ny_mma_type t, uint32_t code) {
  switch (t) {
  case NY_MMA_s8: return (int8_t)code;
  case NY_MMA_s4: return (int32_t)(code ^ 8) - 8;
  default: return (int32_t)code;
  }
}

#define INLINE static inline __attribute__((always_inline))
/* The two loops below are copied for each type, so that the switch on it is outside of them. */
INLINE void fill_a(product *p, ny_words words, int n_words, ny_mma_type t, int w, bool whole) {
  int e = 32 / w;
  uint32_t mask = w == 32 ? ~0u : (1u << w) - 1;
  for (int q = 0; q < n_words; q++)
    for (int lane = 0; lane < 32; lane++) {
      int row = (lane >> 2) + 8 * (q & 1), col = (lane & 3) * e + 4 * e * (q >> 1);
      for (int i = 0; i < e; i++) {
        uint32_t code = words[q][lane] >> (w * i) & mask;
        if (whole)
          p->a.i[row][col + i] = integer(t, code);
        else
          p->a.f[row][col + i] = element(t, w, code);
      }
    }
}
INLINE void fill_b(product *p, ny_words words, int n_words, ny_mma_type t, int w, bool whole) {
  int e = 32 / w;
  uint32_t mask = w == 32 ? ~0u : (1u << w) - 1;
  for (int q = 0; q < n_words; q++)
    for (int lane = 0; lane < 32; lane++) {
      int row = (lane & 3) * e + 4 * e * q, col = lane >> 2;
      for (int i = 0; i < e; i++) {
        uint32_t code = words[q][lane] >> (w * i) & mask;
        if (whole)
          p->b.i[row + i][col] = integer(t, code);
        else
          p->b.f[row + i][col] = element(t, w, code);
      }
    }
}
#define FOR_TYPES(FILL, n_words, t, w)                                                                                 \
  switch (t) {                                                                                                         \
  case NY_MMA_f16: FILL(p, words, n_words, NY_MMA_f16, 16, false); break;                                              \
  case NY_MMA_bf16: FILL(p, words, n_words, NY_MMA_bf16, 16, false); break;                                            \
  case NY_MMA_tf32: FILL(p, words, n_words, NY_MMA_tf32, 32, false); break;                                            \
  case NY_MMA_e4m3: FILL(p, words, n_words, NY_MMA_e4m3, 8, false); break;                                             \
  case NY_MMA_e5m2: FILL(p, words, n_words, NY_MMA_e5m2, 8, false); break;                                             \
  case NY_MMA_e2m3: FILL(p, words, n_words, NY_MMA_e2m3, 8, false); break;                                             \
  case NY_MMA_e3m2: FILL(p, words, n_words, NY_MMA_e3m2, 8, false); break;                                             \
  case NY_MMA_s8: FILL(p, words, n_words, NY_MMA_s8, 8, true); break;                                                  \
  case NY_MMA_u8: FILL(p, words, n_words, NY_MMA_u8, 8, true); break;                                                  \
  case NY_MMA_s4: FILL(p, words, n_words, NY_MMA_s4, 4, true); break;                                                  \
  case NY_MMA_u4: FILL(p, words, n_words, NY_MMA_u4, 4, true); break;                                                  \
  case NY_MMA_e2m1:                                                                                                    \
    if ((w) == 4)                                                                                                      \
      FILL(p, words, n_words, NY_MMA_e2m1, 4, false);                                                                  \
    else                                                                                                               \
      FILL(p, words, n_words, NY_MMA_e2m1, 8, false);                                                                  \
    break;                                                                                                             \
  default: assert(false); break;                                                                                       \
  }

static void decode_a(product *p, const ny_mma *m, ny_words words) {
  int n = ny_mma_words(m, 'a');
  FOR_TYPES(fill_a, n, m->a, width(m, m->a))
}
static void decode_b(product *p, const ny_mma *m, ny_words words) {
  int n = ny_mma_words(m, 'b');
  FOR_TYPES(fill_b, n, m->b, width(m, m->b))
}

/* Register i of an f32 or s32 accumulator; half registers hold two neighbours of a row. */
static inline int c_row(int i, int lane) { return (lane >> 2) + 8 * (i >> 1); }
static inline int c_col(int i, int lane) { return 2 * (lane & 3) + (i & 1); }

static void decode_c(product *p, const ny_mma *m, ny_words c) {
  int n = m->m / 4;
  for (int i = 0; i < n; i++)
    for (int lane = 0; lane < 32; lane++) {
      int row = c_row(i, lane), col = c_col(i, lane);
      if (m->c == NY_MMA_s32)
        p->c.i[row][col] = (int32_t)c[i][lane];
      else if (m->c == NY_MMA_f16)
        p->c.f[row][col] = ny_widen_f16(c[i >> 1][lane] >> 16 * (i & 1) & 0xffff);
      else
        p->c.f[row][col] = ny_f32_of(c[i][lane]);
    }
}

static void encode_d(const product *p, const ny_mma *m, uint32_t (*d)[32]) {
  int n = m->m / 4;
  for (int i = 0; i < n; i++)
    for (int lane = 0; lane < 32; lane++) {
      int row = c_row(i, lane), col = c_col(i, lane);
      if (m->d == NY_MMA_s32) {
        int64_t x = p->c.i[row][col];
        if (m->satfinite) x = x < INT32_MIN ? INT32_MIN : x > INT32_MAX ? INT32_MAX : x;
        d[i][lane] = (uint32_t)x;
      } else if (m->d == NY_MMA_f16) {
        uint32_t code = ny_narrow_f16(p->c.f[row][col]);
        d[i >> 1][lane] = i & 1 ? (d[i >> 1][lane] & 0xffff) | code << 16 : code;
      } else {
        uint32_t u = ny_f32_bits(p->c.f[row][col]);
        d[i][lane] = (u & 0x7fffffff) > 0x7f800000 ? 0x7fffffff : u;
      }
    }
}

/* ---- products */
static void multiply_float(product *p, const ny_mma *m) {
  for (int row = 0; row < m->m; row++) {
    float sum[MAX_N];
    memcpy(sum, p->c.f[row], sizeof sum);
    for (int k = 0; k < m->k; k++)
      for (int col = 0; col < MAX_N; col++) sum[col] += p->a.f[row][k] * p->b.f[k][col];
    memcpy(p->c.f[row], sum, sizeof sum);
  }
}

static void multiply_int(product *p, const ny_mma *m) {
  for (int row = 0; row < m->m; row++) {
    int32_t sum[MAX_N] = {0}; /* at most 64 products of 2^16 */
    for (int k = 0; k < m->k; k++)
      for (int col = 0; col < MAX_N; col++) sum[col] += p->a.i[row][k] * p->b.i[k][col];
    for (int col = 0; col < MAX_N; col++) p->c.i[row][col] += sum[col];
  }
}

static double scale_of(const ny_mma *m, uint32_t word, int byte) {
  uint32_t code = word >> 8 * byte & 0xff;
  return m->scale == NY_MMA_ue8m0 ? ny_ue8m0_decode(code) : (double)ny_widen_e4m3(code & 0x7f);
}

/* The scales of row r of A are in lane 4 * (r % 8) + r / 8 of the half of each quad that thread_a names, those of
   column c of B in lane 4 * c + thread_b; the `scales` bytes from the byte selector on are those of successive blocks.
 */
static void multiply_scaled(product *p, const ny_mma *m, const ny_mma_regs *r) {
  int block = m->k / m->scales;
  for (int row = 0; row < m->m; row++) {
    double sum[MAX_N];
    for (int col = 0; col < MAX_N; col++) sum[col] = (double)p->c.f[row][col];
    for (int s = 0; s < m->scales; s++) {
      float part[MAX_N] = {0}; /* exact: at most 64 products of 16 bits within f32's 24, or rounded as an f32 sum is */
      for (int k = s * block; k < (s + 1) * block; k++)
        for (int col = 0; col < MAX_N; col++) part[col] += p->a.f[row][k] * p->b.f[k][col];
      double scale_a = scale_of(m, r->scale_a[4 * (row % 8) + 2 * r->thread_a + row / 8], r->byte_a + s);
      for (int col = 0; col < MAX_N; col++)
        sum[col] += (double)part[col] * (scale_a * scale_of(m, r->scale_b[4 * col + r->thread_b], r->byte_b + s));
    }
    for (int col = 0; col < MAX_N; col++) p->c.f[row][col] = (float)sum[col];
  }
}

static double f64_at(ny_words words, int reg, int lane) {
  return ny_f64_of((uint64_t)words[2 * reg + 1][lane] << 32 | words[2 * reg][lane]);
}

static void run_f64(product *p, const ny_mma *m, const ny_mma_regs *r) {
  for (int lane = 0; lane < 32; lane++) {
    int g = lane >> 2, t = lane & 3;
    for (int q = 0; q < m->m * m->k / 32; q++) {
      int row = g + 8 * (q & 1), col = t + 4 * (q >> 1);
      p->a.d[row][col] = f64_at(r->a, q, lane);
    }
    for (int q = 0; q < m->k / 4; q++) p->b.d[t + 4 * q][g] = f64_at(r->b, q, lane);
    for (int i = 0; i < m->m / 4; i++) p->c.d[c_row(i, lane)][c_col(i, lane)] = f64_at(r->c, i, lane);
  }
  for (int row = 0; row < m->m; row++)
    for (int col = 0; col < MAX_N; col++)
      for (int k = 0; k < m->k; k++) p->c.d[row][col] = fma(p->a.d[row][k], p->b.d[k][col], p->c.d[row][col]);
  for (int lane = 0; lane < 32; lane++)
    for (int i = 0; i < m->m / 4; i++) {
      double x = p->c.d[c_row(i, lane)][c_col(i, lane)];
      uint64_t u = isnan(x) ? 0x7ff8000000000000 : ny_f64_bits(x);
      r->d[2 * i][lane] = (uint32_t)u;
      r->d[2 * i + 1][lane] = (uint32_t)(u >> 32);
    }
}

void ny_mma_run(const ny_mma *m, const ny_mma_regs *r) {
  product p;
  if (m->a == NY_MMA_f64) {
    run_f64(&p, m, r);
    return;
  }
  decode_a(&p, m, r->a);
  decode_b(&p, m, r->b);
  decode_c(&p, m, r->c);
  if (m->c == NY_MMA_s32)
    multiply_int(&p, m);
  else if (m->scales)
    multiply_scaled(&p, m, r);
  else
    multiply_float(&p, m);
  encode_d(&p, m, r->d);
}

/* ---- wmma: n = 16 is two products of n = 8 over the same A */
static ny_mma half_of(const ny_mma *m) {
  ny_mma half = *m;
  half.n = 8;
  return half;
}

const char *ny_wmma_check(const ny_mma *m) {
  if (m->m != 16 || m->n != 16 || m->kind != NY_MMA_PLAIN) return "this shape";
  ny_mma half = half_of(m);
  if (m->k != (m->a == NY_MMA_tf32 ? 8 : 16) || m->a != m->b) return "this shape";
  return m->a == NY_MMA_e4m3 || m->a == NY_MMA_e5m2 || m->a == NY_MMA_f64 ? "these operand types" : ny_mma_check(&half);
}

int ny_wmma_words(const ny_mma *m, char matrix) {
  ny_mma half = half_of(m);
  if (matrix == 'a') return m->a == NY_MMA_f16 ? 8 : ny_mma_words(&half, 'a');
  if (matrix == 'b') return m->b == NY_MMA_f16 ? 8 : 2 * ny_mma_words(&half, 'b');
  return 2 * ny_mma_words(&half, matrix);
}

void ny_wmma_at(const ny_mma *m, char matrix, int reg, int i, int lane, int *row, int *col) {
  ny_mma half = half_of(m);
  int w = width(m, matrix == 'a' ? m->a : matrix == 'b' ? m->b : matrix == 'c' ? m->c : m->d), e = 32 / w;
  int g = lane >> 2, t = lane & 3;
  if (matrix == 'a') {
    reg %= ny_mma_words(&half, 'a');
    *row = g + 8 * (reg & 1);
    *col = t * e + 4 * e * (reg >> 1) + i;
    return;
  }
  int per = ny_mma_words(&half, matrix), q = reg % per, side = reg / per % 2;
  if (matrix == 'b') {
    *row = t * e + 4 * e * q + i;
    *col = g + 8 * side;
    return;
  }
  int at = q * e + i;
  *row = c_row(at, lane);
  *col = c_col(at, lane) + 8 * side;
}

void ny_wmma_run(const ny_mma *m, const ny_mma_regs *r) {
  ny_mma half = half_of(m);
  int b = ny_mma_words(&half, 'b'), c = ny_mma_words(&half, 'c'), d = ny_mma_words(&half, 'd');
  for (int side = 0; side < 2; side++) {
    ny_mma_regs part = *r;
    part.b += side * b;
    part.c += side * c;
    part.d += side * d;
    ny_mma_run(&half, &part);
  }
}
