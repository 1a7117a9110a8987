/* Matrices between memory and fragments: ldmatrix, stmatrix, movmatrix, and wmma.load and wmma.store. A row of an
   ldmatrix matrix is 16 bytes at the address that one lane gives; the rows are read into plain arrays first, so that
   every shape is a formula over [row][byte]. */
#include "mma.h"
#include "tensor.h"
#include <stdio.h>
#include <string.h>

enum { ROW = 16, MAX_ROWS = 32 };
typedef uint8_t row_bytes[MAX_ROWS][ROW];

/* opt: 0 the number, 1 .trans or nothing, 2 the space, 3 a source format; the same groups in every row below. */
enum { OPT_NUM, OPT_TRANS, OPT_SPACE, OPT_FORMAT };
enum { PACKED_6 = 1, PACKED_4 = 2 };
static int number_of(const ny_ptx_ins *i) { return 1 << (i->opt[OPT_NUM] - 1); } /* x1, x2, x4 */
static ny_ptx_space space_of(const ny_ptx_ins *i) { return i->opt[OPT_SPACE] ? NY_SHARED : NY_GENERIC; }

static bool fix_vector(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  int want = number_of(i);
  return i->vec == want || ny_ptx_bad(dc, "%d registers where %d matrices are moved", i->vec, want);
}
static bool fix_untransposed(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  return i->opt[OPT_TRANS] ? ny_ptx_bad(dc, "m8n16 has no .trans") : fix_vector(dc, i);
}
static bool fix_vector2(ny_ptx_decoder *dc, ny_ptx_ins *i) { /* m16n16: two registers a matrix */
  int want = 2 * number_of(i);
  return i->vec == want || ny_ptx_bad(dc, "%d registers where %d are loaded", i->vec, want);
}

static uint32_t rows_mask(int rows) { return rows == 32 ? NY_ALL_LANES : (1u << rows) - 1; }

/* The generic window of shared memory is resolved by ny_access; another kind of memory is refused there as well. */
static void load_rows(ny_sim_warp *w, const ny_ptx_ins *i, int k, int rows, row_bytes to) {
  uint64_t addr[NY_LANES];
  uint8_t *p[NY_LANES];
  ny_addresses(w, i, k, addr);
  uint32_t mask = rows_mask(rows) & w->init;
  uint32_t ok = ny_access(w, i, mask, space_of(i), addr, ROW, ROW, NY_READ, p);
  memset(to, 0, sizeof(row_bytes));
  for (int r = 0; r < rows; r++)
    if (ok >> r & 1) memcpy(to[r], p[r], ROW);
}
static void store_rows(ny_sim_warp *w, const ny_ptx_ins *i, int k, int rows, row_bytes from) {
  uint64_t addr[NY_LANES];
  uint8_t *p[NY_LANES];
  ny_addresses(w, i, k, addr);
  uint32_t mask = rows_mask(rows) & w->init;
  uint32_t ok = ny_access(w, i, mask, space_of(i), addr, ROW, ROW, NY_WRITE, p);
  for (int r = 0; r < rows; r++)
    if (ok >> r & 1) memcpy(p[r], from[r], ROW);
}
static uint32_t half_at(row_bytes m, int row, int col) { return m[row][2 * col] | (uint32_t)m[row][2 * col + 1] << 8; }
static void put_half(row_bytes m, int row, int col, uint32_t x) {
  m[row][2 * col] = (uint8_t)x;
  m[row][2 * col + 1] = (uint8_t)(x >> 8);
}

/* b4x16_p64: 16 nibbles in the first 8 bytes; b6x16_p32: 16 times 6 bits in the first 12. Each becomes a byte. */
static void unpack(row_bytes m, int rows, int format) {
  int bits = format == PACKED_4 ? 4 : 6;
  for (int r = 0; format && r < rows; r++) {
    uint8_t packed[ROW + 1];
    memcpy(packed, m[r], ROW);
    packed[ROW] = 0;
    for (int e = 0; e < 16; e++) {
      int at = e * bits;
      uint32_t two = packed[at / 8] | (uint32_t)packed[at / 8 + 1] << 8;
      m[r][e] = (uint8_t)(two >> at % 8 & ((1u << bits) - 1));
    }
  }
}

/* m8n8.b16: lane l holds columns 2t, 2t + 1 of row g (g = l / 4, t = l % 4); transposed: rows 2t, 2t + 1 of column g.
 */
static void ldmatrix(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  if (!ny_whole_warp(w, i, mask)) return;
  row_bytes m;
  int n = number_of(i);
  load_rows(w, i, n, 8 * n, m);
  for (int q = 0; q < n; q++) {
    uint32_t v[NY_LANES], *d = NY_U32(q);
    for (int l = 0; l < NY_LANES; l++) {
      int g = l >> 2, t = l & 3;
      if (i->opt[OPT_TRANS])
        v[l] = half_at(m, 8 * q + 2 * t, g) | half_at(m, 8 * q + 2 * t + 1, g) << 16;
      else
        memcpy(&v[l], &m[8 * q + g][4 * t], 4);
    }
    NY_MAP(uint32_t, d, v[l]);
  }
}

/* m8n16: a register is bytes 4t .. 4t + 3 of row g, each an unpacked element in the low bits. */
static void ldmatrix_m8n16(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  if (!ny_whole_warp(w, i, mask)) return;
  row_bytes m;
  int n = number_of(i);
  load_rows(w, i, n, 8 * n, m);
  unpack(m, 8 * n, i->opt[OPT_FORMAT]);
  for (int q = 0; q < n; q++) {
    uint32_t v[NY_LANES], *d = NY_U32(q);
    for (int l = 0; l < NY_LANES; l++) memcpy(&v[l], &m[8 * q + (l >> 2)][4 * (l & 3)], 4);
    NY_MAP(uint32_t, d, v[l]);
  }
}

/* m16n16.trans: two registers a matrix: rows 4t .. 4t + 3 of column g, and of column g + 8. */
static void ldmatrix_m16n16(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  if (!ny_whole_warp(w, i, mask)) return;
  row_bytes m;
  int n = number_of(i);
  load_rows(w, i, 2 * n, 16 * n, m);
  unpack(m, 16 * n, i->opt[OPT_FORMAT]);
  for (int q = 0; q < 2 * n; q++) {
    uint32_t v[NY_LANES], *d = NY_U32(q);
    for (int l = 0; l < NY_LANES; l++) {
      int row = 16 * (q >> 1) + 4 * (l & 3), col = (l >> 2) + 8 * (q & 1);
      v[l] = m[row][col] | (uint32_t)m[row + 1][col] << 8 | (uint32_t)m[row + 2][col] << 16 |
             (uint32_t)m[row + 3][col] << 24;
    }
    NY_MAP(uint32_t, d, v[l]);
  }
}

static void stmatrix(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  if (!ny_whole_warp(w, i, mask)) return;
  row_bytes m;
  int n = number_of(i);
  for (int q = 0; q < n; q++) {
    const uint32_t *a = NY_U32(1 + q);
    for (int l = 0; l < NY_LANES; l++) {
      int g = l >> 2, t = l & 3;
      if (i->opt[OPT_TRANS]) {
        put_half(m, 8 * q + 2 * t, g, a[l]);
        put_half(m, 8 * q + 2 * t + 1, g, a[l] >> 16);
      } else {
        memcpy(&m[8 * q + g][4 * t], &a[l], 4);
      }
    }
  }
  store_rows(w, i, 0, 8 * n, m);
}

/* m16n8.trans.b8: bytes of a register are (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1) of a 16 x 8 matrix whose
   columns are the rows in memory. */
static void stmatrix_m16n8(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  if (!ny_whole_warp(w, i, mask)) return;
  row_bytes m;
  int n = number_of(i);
  for (int q = 0; q < n; q++) {
    const uint32_t *a = NY_U32(1 + q);
    for (int l = 0; l < NY_LANES; l++)
      for (int b = 0; b < 4; b++) m[8 * q + 2 * (l & 3) + (b & 1)][(l >> 2) + 8 * (b >> 1)] = (uint8_t)(a[l] >> 8 * b);
  }
  store_rows(w, i, 0, 8 * n, m);
}

static void movmatrix(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  if (!ny_whole_warp(w, i, mask)) return;
  const uint32_t *a = NY_U32(1);
  row_bytes m;
  for (int l = 0; l < NY_LANES; l++) memcpy(&m[l >> 2][4 * (l & 3)], &a[l], 4);
  uint32_t v[NY_LANES], *d = NY_U32(0);
  for (int l = 0; l < NY_LANES; l++) v[l] = half_at(m, 2 * (l & 3), l >> 2) | half_at(m, 2 * (l & 3) + 1, l >> 2) << 16;
  NY_MAP(uint32_t, d, v[l]);
}

/* ---- wmma.load and wmma.store */
typedef struct wmma_access {
  ny_mma mma;
  char matrix;
  uint8_t n, bits; /* registers; bits of an element */
  bool columns;    /* column-major in memory */
  bool pairs;      /* the elements of a register lie next to each other in memory */
  uint8_t space;
} wmma_access;

static const struct wmma_type {
  const char *name;
  ny_mma_type a, c;
  uint8_t bits;
} wmma_types[] = {{"f16", NY_MMA_f16, NY_MMA_f16, 16},   {"bf16", NY_MMA_bf16, NY_MMA_f32, 16},
                  {"tf32", NY_MMA_tf32, NY_MMA_f32, 32}, {"f32", NY_MMA_f16, NY_MMA_f32, 32},
                  {"s8", NY_MMA_s8, NY_MMA_s32, 8},      {"u8", NY_MMA_u8, NY_MMA_s32, 8},
                  {"s32", NY_MMA_s8, NY_MMA_s32, 32}};

/* The groups of a row: matrix, layout, shape, space, type. What the accumulator's partners are does not matter here. */
static bool fix_wmma(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  wmma_access *x = ny_ptx_alloc(dc, sizeof *x);
  x->matrix = *ny_ptx_word(dc, 0);
  x->columns = !strcmp(ny_ptx_word(dc, 1), "col");
  unsigned m, n, k;
  if (sscanf(ny_ptx_word(dc, 2), "m%un%uk%u", &m, &n, &k) != 3) return ny_ptx_bad(dc, "a wmma shape is mNnNkN");
  x->mma = (ny_mma){.m = (uint8_t)m, .n = (uint8_t)n, .k = (uint8_t)k};
  x->space = i->opt[3] == 0 ? NY_GENERIC : i->opt[3] == 1 ? NY_GLOBAL : NY_SHARED;
  const char *type = ny_ptx_word(dc, 4);
  bool accumulator = x->matrix == 'c' || x->matrix == 'd';
  for (size_t t = 0; t < NY_COUNT(wmma_types); t++)
    if (!strcmp(wmma_types[t].name, type)) {
      x->mma.a = x->mma.b = wmma_types[t].a;
      x->mma.c = x->mma.d = wmma_types[t].c;
      x->bits = wmma_types[t].bits;
    }
  if (accumulator && k == 8) x->mma.a = x->mma.b = NY_MMA_tf32;
  const char *problem = ny_wmma_check(&x->mma);
  if (problem) return ny_ptx_bad(dc, "wmma is simulated without %s", problem);
  x->n = (uint8_t)ny_wmma_words(&x->mma, x->matrix);
  if (i->vec != x->n) return ny_ptx_bad(dc, "%d registers where the fragment has %d", i->vec, x->n);
  /* Elements of a register are neighbours along k in A and B, along the row in C and D. */
  x->pairs = (x->matrix == 'b') == x->columns;
  i->data = (uint64_t)(uintptr_t)x;
  return true;
}

/* Byte offset of element e of register reg in lane l from the matrix's start. */
static uint64_t wmma_offset(const wmma_access *x, int reg, int e, int l, uint32_t stride) {
  int row, col;
  ny_wmma_at(&x->mma, x->matrix, reg, e, l, &row, &col);
  uint64_t slow = (uint64_t)(x->columns ? col : row), fast = (uint64_t)(x->columns ? row : col);
  return (slow * stride + fast) * x->bits / 8;
}

/* Without a stride the matrix is dense. Its own alignment, and that of its rows, are part of the instruction. */
static uint32_t wmma_stride(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, int k, const uint64_t *addr) {
  const wmma_access *x = (const wmma_access *)(uintptr_t)i->data;
  uint32_t first = (uint32_t)__builtin_ctz(mask);
  int rows = x->matrix == 'b' ? x->mma.k : x->mma.m, cols = x->matrix == 'a' ? x->mma.k : x->mma.n;
  uint32_t stride = i->arg[k].kind == NY_ARG_NONE ? (uint32_t)(x->columns ? rows : cols) : NY_U32(k)[first];
  if (stride * x->bits / 8 % 16 || addr[first] % 32)
    ny_find(w, i, first, NY_FIND_misaligned, addr[first], 32,
            "wmma needs an address that is a multiple of 32 and a stride that is a multiple of 16 bytes, not %u",
            stride * x->bits / 8);
  return stride;
}

static uint32_t wmma_piece(const wmma_access *x, ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask,
                           const uint64_t base[NY_LANES], uint32_t stride, int reg, int e, uint32_t how,
                           uint8_t *p[NY_LANES]) {
  uint64_t addr[NY_LANES];
  for (int l = 0; l < NY_LANES; l++) addr[l] = base[l] + wmma_offset(x, reg, e, l, stride);
  uint32_t bytes = x->pairs ? 4 : x->bits / 8u;
  return ny_access(w, i, mask, (ny_ptx_space)x->space, addr, bytes, bytes, how, p);
}

static void wmma_load(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  if (!ny_whole_warp(w, i, mask)) return;
  const wmma_access *x = (const wmma_access *)(uintptr_t)i->data;
  uint64_t addr[NY_LANES];
  ny_addresses(w, i, x->n, addr);
  uint32_t stride = wmma_stride(w, i, mask, x->n + 1, addr), bytes = x->pairs ? 4 : x->bits / 8u;
  for (int reg = 0; reg < x->n; reg++) {
    uint32_t v[NY_LANES] = {0}, *d = NY_U32(reg);
    for (uint32_t e = 0; e < 4 / bytes; e++) {
      uint8_t *p[NY_LANES];
      uint32_t ok = wmma_piece(x, w, i, mask, addr, stride, reg, (int)e, NY_READ, p);
      for (int l = 0; l < NY_LANES; l++)
        if (ok >> l & 1) memcpy((char *)&v[l] + e * bytes, p[l], bytes);
    }
    NY_MAP(uint32_t, d, v[l]);
  }
}

static void wmma_store(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  if (!ny_whole_warp(w, i, mask)) return;
  const wmma_access *x = (const wmma_access *)(uintptr_t)i->data;
  uint64_t addr[NY_LANES];
  ny_addresses(w, i, 0, addr);
  uint32_t stride = wmma_stride(w, i, mask, x->n + 1, addr), bytes = x->pairs ? 4 : x->bits / 8u;
  for (int reg = 0; reg < x->n; reg++) {
    const uint32_t *v = NY_U32(1 + reg);
    for (uint32_t e = 0; e < 4 / bytes; e++) {
      uint8_t *p[NY_LANES];
      uint32_t ok = wmma_piece(x, w, i, mask, addr, stride, reg, (int)e, NY_WRITE, p);
      for (int l = 0; l < NY_LANES; l++)
        if (ok >> l & 1) memcpy(p[l], (const char *)&v[l] + e * bytes, bytes);
    }
  }
}

#define SPACE ".(shared shared::cta)?."
#define X1_2_4 "(x1 x2 x4)"
#define WMMA_SPACE ".(global shared shared::cta)?."
const ny_ptx_row ny_rows_matrix[] = {
    {"ldmatrix.sync.aligned.m8n8." X1_2_4 ".(trans)?" SPACE "b16", "B+ m", NY_CLS_ld_shared, fix_vector, {ldmatrix}},
    {"ldmatrix.sync.aligned.m8n16." X1_2_4 ".(trans)?" SPACE "b8x16.(b6x16_p32 b4x16_p64)",
     "B+ m",
     NY_CLS_ld_shared,
     fix_untransposed,
     {ldmatrix_m8n16}},
    {"ldmatrix.sync.aligned.m16n16.(x1 x2).(trans)" SPACE "b8",
     "B+ m",
     NY_CLS_ld_shared,
     fix_vector2,
     {ldmatrix_m16n16}},
    {"ldmatrix.sync.aligned.m16n16.(x1 x2).(trans)" SPACE "b8x16.(b6x16_p32 b4x16_p64)",
     "B+ m",
     NY_CLS_ld_shared,
     fix_vector2,
     {ldmatrix_m16n16}},
    {"stmatrix.sync.aligned.m8n8." X1_2_4 ".(trans)?" SPACE "b16", "m b+", NY_CLS_st_shared, fix_vector, {stmatrix}},
    {"stmatrix.sync.aligned.m16n8." X1_2_4 ".(trans)" SPACE "b8",
     "m b+",
     NY_CLS_st_shared,
     fix_vector,
     {stmatrix_m16n8}},
    {"movmatrix.sync.aligned.m8n8.trans.b16", "B b", NY_CLS_shuffle, NULL, {movmatrix}},
    {"wmma.load.(a b).sync.aligned.(row col).(m16n16k16 m16n16k8)" WMMA_SPACE "(f16 bf16 tf32 s8 u8)",
     "B+ m b?",
     NY_CLS_ld_shared,
     fix_wmma,
     {wmma_load}},
    {"wmma.load.(c).sync.aligned.(row col).(m16n16k16 m16n16k8)" WMMA_SPACE "(f16 f32 s32)",
     "B+ m b?",
     NY_CLS_ld_shared,
     fix_wmma,
     {wmma_load}},
    {"wmma.store.(d).sync.aligned.(row col).(m16n16k16 m16n16k8)" WMMA_SPACE "(f16 f32 s32)",
     "m b+ b?",
     NY_CLS_st_shared,
     fix_wmma,
     {wmma_store}},
};
const size_t ny_n_rows_matrix = NY_COUNT(ny_rows_matrix);
