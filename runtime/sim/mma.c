/* A fragment is decoded into a plain matrix once, the product runs over plain matrices with eight columns side by side,
   and the result is put back. One formula gives every layout: with e elements in a register, g = lane / 4 and
   t = lane % 4, register q of A holds row g + 8 * (q % 2), columns t * e .. + e - 1 + 4 * e * (q / 2); register q of B
   holds rows t * e .. + 4 * e * q of column g; C and D hold row g + 8 * (i / 2), column 2 * t + i % 2.
   The plain matrices have k and the columns in an order that makes four neighbouring lanes four neighbouring elements:
   k = t * e + i + 4 * e * h stands at (h * e + i) * 4 + t, column n at n % 2 * 4 + n / 2. */
#include "mma.h"
#include "narrow.h"
#include <assert.h>
#include <math.h>

enum { MAX_M = 16, MAX_N = 8, MAX_K = 64 };
typedef struct product {
  float a[MAX_M][MAX_K], b[MAX_K][MAX_N], c[MAX_M][MAX_N];
} product;
typedef float four __attribute__((vector_size(16)));
typedef struct row8 { /* a row of B, C or D: every target has vectors of four */
  four low, high;
} row8;

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
/* Integers as floats as well: at most 64 products of 2^16, all sums are exact. */
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
  case NY_MMA_s8: return (float)((int32_t)(code ^ 0x80) - 0x80);
  case NY_MMA_s4: return (float)((int32_t)(code ^ 8) - 8);
  default: return (float)(int32_t)code;
  }
}

#define INLINE static inline __attribute__((always_inline))
/* Element i of each lane's register. */
INLINE void widen(float v[32], const uint32_t words[32], ny_mma_type t, int w, int i) {
  uint32_t mask = w == 32 ? ~0u : (1u << w) - 1;
  for (int lane = 0; lane < 32; lane++) v[lane] = element(t, w, words[lane] >> (w * i) & mask);
}
/* The two below are copied for each type, so that the switch on it is outside of the loops. */
INLINE void fill_a(product *p, ny_words words, int n_words, ny_mma_type t, int w) {
  float v[32];
  for (int q = 0, e = 32 / w; q < n_words; q++)
    for (int i = 0; i < e; i++) {
      widen(v, words[q], t, w, i);
      for (int g = 0; g < 8; g++) memcpy(&p->a[g + 8 * (q & 1)][((q >> 1) * e + i) * 4], &v[4 * g], 4 * sizeof *v);
    }
}
INLINE void fill_b(product *p, ny_words words, int n_words, ny_mma_type t, int w) {
  float v[32];
  for (int q = 0, e = 32 / w; q < n_words; q++)
    for (int i = 0; i < e; i++) {
      widen(v, words[q], t, w, i);
      for (int row = 0; row < 4; row++)
        for (int g = 0; g < 8; g++) p->b[(q * e + i) * 4 + row][(g & 1) * 4 + (g >> 1)] = v[4 * g + row];
    }
}
#define FOR_TYPES(FILL, n_words, t, w)                                                                                 \
  switch (t) {                                                                                                         \
  case NY_MMA_f16: FILL(p, words, n_words, NY_MMA_f16, 16); break;                                                     \
  case NY_MMA_bf16: FILL(p, words, n_words, NY_MMA_bf16, 16); break;                                                   \
  case NY_MMA_tf32: FILL(p, words, n_words, NY_MMA_tf32, 32); break;                                                   \
  case NY_MMA_e4m3: FILL(p, words, n_words, NY_MMA_e4m3, 8); break;                                                    \
  case NY_MMA_e5m2: FILL(p, words, n_words, NY_MMA_e5m2, 8); break;                                                    \
  case NY_MMA_e2m3: FILL(p, words, n_words, NY_MMA_e2m3, 8); break;                                                    \
  case NY_MMA_e3m2: FILL(p, words, n_words, NY_MMA_e3m2, 8); break;                                                    \
  case NY_MMA_s8: FILL(p, words, n_words, NY_MMA_s8, 8); break;                                                        \
  case NY_MMA_u8: FILL(p, words, n_words, NY_MMA_u8, 8); break;                                                        \
  case NY_MMA_s4: FILL(p, words, n_words, NY_MMA_s4, 4); break;                                                        \
  case NY_MMA_u4: FILL(p, words, n_words, NY_MMA_u4, 4); break;                                                        \
  case NY_MMA_e2m1:                                                                                                    \
    if ((w) == 4)                                                                                                      \
      FILL(p, words, n_words, NY_MMA_e2m1, 4);                                                                         \
    else                                                                                                               \
      FILL(p, words, n_words, NY_MMA_e2m1, 8);                                                                         \
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
  float v[32];
  for (int i = 0; i < m->m / 4; i++) {
    if (m->c == NY_MMA_f16)
      widen(v, c[i >> 1], NY_MMA_f16, 16, i & 1);
    else if (m->c == NY_MMA_s32)
      memset(v, 0, sizeof v); /* added last: encode_d */
    else
      memcpy(v, c[i], sizeof v);
    for (int g = 0; g < 8; g++) memcpy(&p->c[g + 8 * (i >> 1)][4 * (i & 1)], &v[4 * g], 4 * sizeof *v);
  }
}

static uint32_t integer_sum(const ny_mma *m, uint32_t c, float products) {
  int64_t x = (int64_t)(int32_t)c + (int32_t)products;
  if (m->satfinite) x = x < INT32_MIN ? INT32_MIN : x > INT32_MAX ? INT32_MAX : x;
  return (uint32_t)x;
}
static void encode_d(const product *p, const ny_mma *m, ny_words c, uint32_t (*d)[32]) {
  float v[32];
  for (int i = 0; i < m->m / 4; i++) {
    for (int g = 0; g < 8; g++) memcpy(&v[4 * g], &p->c[g + 8 * (i >> 1)][4 * (i & 1)], 4 * sizeof *v);
    if (m->d == NY_MMA_s32)
      for (int l = 0; l < 32; l++) d[i][l] = integer_sum(m, c[i][l], v[l]);
    else if (m->d == NY_MMA_f16)
      for (int l = 0; l < 32; l++)
        d[i >> 1][l] = i & 1 ? (d[i >> 1][l] & 0xffff) | ny_narrow_f16(v[l]) << 16 : ny_narrow_f16(v[l]);
    else
      for (int l = 0; l < 32; l++) {
        uint32_t u = ny_f32_bits(v[l]);
        d[i][l] = (u & 0x7fffffff) > 0x7f800000 ? 0x7fffffff : u;
      }
  }
}

/* ---- products */
INLINE row8 load8(const float *p) {
  row8 v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE void add_product(row8 *sum, float a, const row8 *b) {
  sum->low += a * b->low;
  sum->high += a * b->high;
}
/* Four rows at a time, for the sums to stay in registers. */
static void multiply(product *p, const ny_mma *m) {
  for (int row = 0; row < m->m; row += 4) {
    row8 s0 = load8(p->c[row]), s1 = load8(p->c[row + 1]), s2 = load8(p->c[row + 2]), s3 = load8(p->c[row + 3]);
    for (int k = 0; k < m->k; k++) {
      row8 b = load8(p->b[k]);
      add_product(&s0, p->a[row][k], &b);
      add_product(&s1, p->a[row + 1][k], &b);
      add_product(&s2, p->a[row + 2][k], &b);
      add_product(&s3, p->a[row + 3][k], &b);
    }
    const row8 sums[4] = {s0, s1, s2, s3};
    memcpy(p->c[row], sums, sizeof sums);
  }
}

static double scale_of(const ny_mma *m, uint32_t word, int byte) {
  uint32_t code = word >> 8 * byte & 0xff;
  return m->scale == NY_MMA_ue8m0 ? ny_ue8m0_decode(code) : (double)ny_widen_e4m3(code & 0x7f);
}
/* Sums of the products of scale block s for four rows: exact where products have 8 bits or less, else rounded as any
   f32 sum. Of four blocks each takes two of the four lanes of a quad (t / 2) in half of the registers; of two, or one,
   neighbouring places. */
INLINE void block_sums(const product *p, const ny_mma *m, int row, int s, row8 sum[4]) {
  bool quads = m->scales == 4;
  int block = m->k / m->scales, from = quads ? (s >> 1) * 32 + (s & 1) * 2 : s * block;
  int to = quads ? from + 32 : from + block, step = quads ? 4 : 2;
  row8 s0 = {{0}, {0}}, s1 = s0, s2 = s0, s3 = s0;
  for (int pair = from; pair < to; pair += step)
    for (int k = pair; k < pair + 2; k++) {
      row8 b = load8(p->b[k]);
      add_product(&s0, p->a[row][k], &b);
      add_product(&s1, p->a[row + 1][k], &b);
      add_product(&s2, p->a[row + 2][k], &b);
      add_product(&s3, p->a[row + 3][k], &b);
    }
  sum[0] = s0, sum[1] = s1, sum[2] = s2, sum[3] = s3;
}
/* The scales of row r of A are in lane 4 * (r % 8) + r / 8 of the half of each quad that thread_a names, those of
   column c of B in lane 4 * c + thread_b; the `scales` bytes from the byte selector on are those of successive blocks.
 */
static void multiply_scaled(product *p, const ny_mma *m, const ny_mma_regs *regs) {
  double scale_b[4][MAX_N];
  for (int s = 0; s < m->scales; s++)
    for (int col = 0; col < MAX_N; col++)
      scale_b[s][(col & 1) * 4 + (col >> 1)] = scale_of(m, regs->scale_b[4 * col + regs->thread_b], regs->byte_b + s);
  for (int first = 0; first < m->m; first += 4) {
    double sum[4][MAX_N];
    for (int r = 0; r < 4; r++)
      for (int col = 0; col < MAX_N; col++) sum[r][col] = (double)p->c[first + r][col];
    for (int s = 0; s < m->scales; s++) {
      float part[4][MAX_N];
      row8 products[4];
      block_sums(p, m, first, s, products);
      memcpy(part, products, sizeof part);
      for (int r = 0; r < 4; r++) {
        int row = first + r;
        double scale_a = scale_of(m, regs->scale_a[4 * (row % 8) + 2 * regs->thread_a + row / 8], regs->byte_a + s);
        for (int col = 0; col < MAX_N; col++) sum[r][col] += (double)part[r][col] * (scale_a * scale_b[s][col]);
      }
    }
    for (int r = 0; r < 4; r++)
      for (int col = 0; col < MAX_N; col++) p->c[first + r][col] = (float)sum[r][col];
  }
}

static double f64_at(ny_words words, int reg, int lane) {
  return ny_f64_of((uint64_t)words[2 * reg + 1][lane] << 32 | words[2 * reg][lane]);
}

static void run_f64(const ny_mma *m, const ny_mma_regs *r) {
  double a[MAX_M][16], b[16][MAX_N], c[MAX_M][MAX_N];
  for (int lane = 0; lane < 32; lane++) {
    int g = lane >> 2, t = lane & 3;
    for (int q = 0; q < m->m * m->k / 32; q++) a[g + 8 * (q & 1)][t + 4 * (q >> 1)] = f64_at(r->a, q, lane);
    for (int q = 0; q < m->k / 4; q++) b[t + 4 * q][g] = f64_at(r->b, q, lane);
    for (int i = 0; i < m->m / 4; i++) c[c_row(i, lane)][c_col(i, lane)] = f64_at(r->c, i, lane);
  }
  for (int row = 0; row < m->m; row++)
    for (int col = 0; col < MAX_N; col++)
      for (int k = 0; k < m->k; k++) c[row][col] = fma(a[row][k], b[k][col], c[row][col]);
  for (int lane = 0; lane < 32; lane++)
    for (int i = 0; i < m->m / 4; i++) {
      double x = c[c_row(i, lane)][c_col(i, lane)];
      uint64_t u = isnan(x) ? 0x7ff8000000000000 : ny_f64_bits(x);
      r->d[2 * i][lane] = (uint32_t)u;
      r->d[2 * i + 1][lane] = (uint32_t)(u >> 32);
    }
}

void ny_mma_run(const ny_mma *m, const ny_mma_regs *r) {
  if (m->a == NY_MMA_f64) {
    run_f64(m, r);
    return;
  }
  product p;
  decode_a(&p, m, r->a);
  decode_b(&p, m, r->b);
  decode_c(&p, m, r->c);
  if (m->scales)
    multiply_scaled(&p, m, r);
  else
    multiply(&p, m);
  encode_d(&p, m, r->c, r->d);
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
