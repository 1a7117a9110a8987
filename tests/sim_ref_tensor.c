/* mma.sync against a plain matrix product: where an element of A, B, C and D sits in the registers is worked out from
   the matrices' side, as the PTX ISA draws its figures, and sums are exact. Integers and special values must agree to
   the bit, floats within the bound that mma.h states. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_fidelity.h"

enum { CASES = 48, M = 16, N = 8, K = 64, REGS = 24 };
typedef struct product {
  const char *text; /* the mnemonic */
  int m, n, k;
  const char *a, *b, *cd;
  int width_a, width_b; /* bits that an element takes in a register */
  int scales;           /* along k; 0: none */
  const char *scale;
} product;
typedef struct matrices {
  uint64_t a[M][K], b[K][N], c[M][N];
  uint8_t sa[M][4], sb[N][4];
} matrices;

static int registers(int elements, int width) { return elements * width / (32 * (width == 64 ? 64 : 32)); }
static void put(uint64_t reg[REGS], int at, int width, int i, uint64_t code) { reg[at] |= code << width * i; }

/* Lane, register and place in it of A's (row, col); B's element (k, n) sits as A's (n, k) of a matrix of 8 rows. */
static void place(int row, int col, int width, int *lane, int *reg, int *i) {
  int per = width == 64 ? 1 : 32 / width, quad = 4 * per; /* columns that four lanes hold in one register */
  *lane = row % 8 * 4 + col % quad / per;
  *reg = row / 8 + col / quad * 2;
  *i = col % per;
}
static void place_c(int row, int col, int *lane, int *reg) {
  *lane = row % 8 * 4 + col / 2;
  *reg = row / 8 * 2 + col % 2;
}
/* fp4 and fp6 in bytes: fp4 in the middle four bits. */
static uint64_t contained(const char *type, int width, uint64_t code) {
  return width == 8 && !strcmp(type, "e2m1") ? code << 2 : code;
}

/* ---- operands */
static bool is_int(const char *type) { return type[0] == 's' || type[0] == 'u'; }
static uint64_t random_code(const char *type, bool wild) {
  if (is_int(type)) return fidelity_random() & ((1u << atoi(type + 1)) - 1);
  int bits = ref_bits(type);
  uint64_t mask = bits == 64 ? ~(uint64_t)0 : ((uint64_t)1 << bits) - 1, r = fidelity_random();
  if (wild && r % 8 == 0) return fidelity_value(type, (uint32_t)(r >> 8) % 30) & mask;
  if (bits <= 8)
    return wild || (type[0] == 'e' && bits < 8) ? r & mask : r & mask & ~(mask >> 1 & ~(mask >> 2)); /* below 2 */
  exact x = {((wide)(int64_t)(r >> 8 & 0xffffff) - 0x800000) / 0x200000, 0};
  return ref_round(type, x, NEAREST, true);
}
static void make(const product *p, matrices *x, int number) {
  bool wild = number % 4 == 3;
  memset(x, 0, sizeof *x);
  for (int r = 0; r < p->m; r++)
    for (int k = 0; k < p->k; k++) x->a[r][k] = random_code(p->a, wild);
  for (int k = 0; k < p->k; k++)
    for (int c = 0; c < p->n; c++) x->b[k][c] = random_code(p->b, wild);
  for (int r = 0; r < p->m; r++)
    for (int c = 0; c < p->n; c++) {
      uint64_t far = number % 2 ? 0x7ffffff0 : 0x80000010;
      x->c[r][c] = !strcmp(p->cd, "s32") ? (fidelity_random() % 2 ? far : (uint32_t)fidelity_random())
                                         : random_code(p->cd, wild);
    }
  for (int r = 0; r < M; r++)
    for (int s = 0; s < 4; s++) {
      uint64_t v = fidelity_random();
      bool nan = wild && v % 64 == 0, exponent = p->scale && !strcmp(p->scale, "ue8m0");
      x->sa[r][s] = nan ? (exponent ? 255 : 127) : (uint8_t)(exponent ? 120 + v % 16 : v & 0x7f);
      x->sb[r % N][s] = (uint8_t)(exponent ? 118 + (v >> 8) % 16 : (v >> 8) % 0x7f);
    }
}

/* ---- the reference */
static wide element_value(const char *type, uint64_t code) {
  if (!is_int(type)) return ref_value(type, code);
  int bits = atoi(type + 1);
  return type[0] == 's' && code >> (bits - 1) & 1 ? (wide)code - ((uint64_t)1 << bits) : (wide)code;
}
static wide scale_value(const product *p, uint8_t code) {
  if (!strcmp(p->scale, "ue8m0")) return code == 255 ? (wide)NAN : (wide)ldexp(1, code - 127);
  return ref_value("e4m3", code);
}
static wide size_of(wide v) { return v - v != 0 ? 0 : v < 0 ? -v : v; }
/* The exact result and the sum of finite magnitudes. */
static wide sum_of(const product *p, const matrices *x, int r, int c, wide *size) {
  wide s = element_value(p->cd, x->c[r][c]);
  *size = size_of(s);
  for (int k = 0; k < p->k; k++) {
    wide v = element_value(p->a, x->a[r][k]) * element_value(p->b, x->b[k][c]);
    if (p->scales) {
      int block = k / (p->k / p->scales);
      v *= scale_value(p, x->sa[r][block]) * scale_value(p, x->sb[c][block]);
    }
    s += v;
    *size += size_of(v);
  }
  return s;
}
static bool agrees_int(const product *p, wide s, uint64_t got) {
  int64_t want = (int64_t)s;
  if (strstr(p->text, "satfinite")) want = want > INT32_MAX ? INT32_MAX : want < INT32_MIN ? INT32_MIN : want;
  return (uint32_t)want == (uint32_t)got;
}
static bool agrees(const product *p, wide s, wide size, uint64_t got) {
  if (!strcmp(p->cd, "s32")) return agrees_int(p, s, got);
  if (s != s) return !strcmp(p->cd, "f64") ? ref_is_nan("f64", got) : got == ref_nan(p->cd);
  wide d = ref_value(p->cd, got), max = (wide)(!strcmp(p->cd, "f16")   ? 65504
                                               : !strcmp(p->cd, "f32") ? 3.4e38
                                                                       : 1.7e308);
  if (size > max) return true; /* a partial sum may have overflowed */
  if (s - s != 0) return d == s;
  wide unit = !strcmp(p->cd, "f64") ? (wide)0x1p-52 : (wide)0x1p-22, off = d > s ? d - s : s - d;
  wide bound = (p->k + 2) * unit * size;
  if (!strcmp(p->cd, "f16")) bound += (s < 0 ? -s : s) * (wide)0x1p-11 + (wide)0x1p-25;
  return off <= bound + (wide)1e-45;
}

/* ---- running */
static int count_of(const product *p, char which) {
  if (which == 'a') return registers(p->m * p->k, p->width_a);
  if (which == 'b') return registers(p->n * p->k, p->width_b);
  return registers(p->m * p->n, !strcmp(p->cd, "f16") ? 16 : !strcmp(p->cd, "f64") ? 64 : 32);
}
static void list(ny_text *t, const char *prefix, int first, int n) {
  ny_text_add(t, "{");
  for (int i = 0; i < n; i++) ny_text_addf(t, "%s%s%d", i ? ", " : "", prefix, first + i);
  ny_text_add(t, "}");
}
static void kernel(ny_text *t, const product *p, const int selector[4]) {
  bool f64 = !strcmp(p->cd, "f64");
  const char *prefix = f64 ? "%rd" : "%r";
  int na = count_of(p, 'a'), nb = count_of(p, 'b'), nc = count_of(p, 'c'), n = na + nb + nc + (p->scales ? 2 : 0);
  ny_text_addf(
      t,
      ".version 8.7\n.target sm_120a\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out)\n{\n"
      ".reg .b32 %%r<60>;\n.reg .b64 %%rd<60>;\n.reg .b16 %%h<4>;\nld.param.u64 %%rd50, [in];\nld.param.u64 %%rd51, "
      "[out];\n"
      "mov.u32 %%r50, %%ctaid.x;\nmov.u32 %%r51, %%tid.x;\nmad.lo.s32 %%r52, %%r50, 32, %%r51;\n"
      "mul.wide.u32 %%rd52, %%r52, %d;\nadd.s64 %%rd50, %%rd50, %%rd52;\nadd.s64 %%rd51, %%rd51, %%rd52;\n",
      REGS * 8);
  for (int i = 0; i < n; i++) ny_text_addf(t, "ld.global.b%d %s%d, [%%rd50+%d];\n", f64 ? 64 : 32, prefix, i, 8 * i);
  if (p->scales) ny_text_addf(t, "mov.b16 %%h0, %d;\nmov.b16 %%h1, %d;\n", selector[0], selector[1]);
  ny_text_addf(t, "%s ", p->text);
  list(t, prefix, 30, nc);
  ny_text_add(t, ", ");
  list(t, prefix, 0, na);
  ny_text_add(t, ", ");
  list(t, prefix, na, nb);
  ny_text_add(t, ", ");
  list(t, prefix, na + nb, nc);
  if (p->scales)
    ny_text_addf(t, ", {%%r%d}, {%%h0, %%h1}, %%r%d, {%d, %d}", na + nb + nc, na + nb + nc + 1, selector[2],
                 selector[3]);
  ny_text_add(t, ";\n");
  for (int i = 0; i < nc; i++)
    ny_text_addf(t, "st.global.b%d [%%rd51+%d], %s%d;\n", f64 ? 64 : 32, 8 * i, prefix, 30 + i);
  ny_text_add(t, "ret;\n}\n");
}
static void to_registers(const product *p, const matrices *x, const int selector[4], uint64_t reg[32][REGS]) {
  int na = count_of(p, 'a'), nb = count_of(p, 'b'), nc = count_of(p, 'c'), lane, q, i, half = !strcmp(p->cd, "f16");
  for (int l = 0; l < 32; l++) memset(reg[l], 0, sizeof reg[l]);
  for (int r = 0; r < p->m; r++)
    for (int k = 0; k < p->k; k++) {
      place(r, k, p->width_a, &lane, &q, &i);
      uint64_t code = x->a[r][k];
      /* tf32 sits in the high bits of a register; those below must not matter. */
      if (!strcmp(p->a, "tf32")) code = code << 13 | (fidelity_random() & 0x1fff);
      put(reg[lane], q, p->width_a, i, contained(p->a, p->width_a, code));
    }
  for (int k = 0; k < p->k; k++)
    for (int c = 0; c < p->n; c++) {
      place(c, k, p->width_b, &lane, &q, &i);
      uint64_t code = !strcmp(p->b, "tf32") ? x->b[k][c] << 13 : x->b[k][c];
      put(reg[lane], na + q / 2, p->width_b, i, contained(p->b, p->width_b, code));
    }
  for (int r = 0; r < p->m; r++)
    for (int c = 0; c < p->n; c++) {
      place_c(r, c, &lane, &q);
      put(reg[lane], na + nb + (half ? q / 2 : q), 16, half ? q % 2 : 0, x->c[r][c]);
    }
  if (!p->scales) return;
  /* Lanes and bytes that the selectors do not name hold rubbish. */
  for (int l = 0; l < 32; l++)
    for (int s = 0; s < 2; s++) reg[l][na + nb + nc + s] = fidelity_random() & 0xffffffff;
  for (int r = 0; r < M + N; r++) {
    bool is_a = r < M;
    int row = is_a ? r : r - M, at = is_a ? 4 * (row % 8) + 2 * selector[1] + row / 8 : 4 * row + selector[3];
    uint64_t *word = &reg[at][na + nb + nc + !is_a];
    for (int s = 0; s < p->scales; s++) {
      int shift = 8 * (selector[is_a ? 0 : 2] + s);
      *word = (*word & ~((uint64_t)255 << shift)) | (uint64_t)(is_a ? x->sa[row][s] : x->sb[row][s]) << shift;
    }
  }
}
static uint32_t check(const product *p, const matrices *x, uint64_t reg[32][REGS]) {
  uint32_t bad = 0;
  bool half = !strcmp(p->cd, "f16");
  for (int r = 0; r < p->m; r++)
    for (int c = 0; c < p->n; c++) {
      int lane, q;
      place_c(r, c, &lane, &q);
      uint64_t got = half ? reg[lane][q / 2] >> 16 * (q % 2) & 0xffff : reg[lane][q];
      wide size, s = sum_of(p, x, r, c, &size);
      if (!agrees(p, s, size, got) && !bad++)
        fprintf(stderr, "%s: row %d column %d is %llx = %g, not %g\n", p->text, r, c, (unsigned long long)got,
                strcmp(p->cd, "s32") ? ref_double(p->cd, got) : (double)(int32_t)got, (double)s);
    }
  return bad;
}
static void test_product(const product *p, const int selector[4]) {
  matrices *x = calloc(CASES, sizeof *x);
  uint64_t(*in)[32][REGS] = calloc(CASES, sizeof *in), (*out)[32][REGS] = calloc(CASES, sizeof *out);
  if (!x || !in || !out) abort();
  for (int i = 0; i < CASES; i++) {
    make(p, &x[i], i);
    to_registers(p, &x[i], selector, in[i]);
  }
  ny_text t = {0};
  kernel(&t, p, selector);
  fidelity_buffer buffers[] = {{in, CASES * sizeof *in}, {out, CASES * sizeof *out}};
  char why[512] = "";
  fidelity_status s = fidelity_run(t.s, buffers, 2, CASES, 32, why);
  uint32_t bad = 0;
  for (int i = 0; s == RAN && i < CASES; i++) bad += check(p, &x[i], out[i]);
  fidelity_check(s != FAILED && !bad, "%s: %u results differ %s", p->text, bad, why);
  if (s == RAN) covered(p->text);
  ny_text_free(&t);
  free(x);
  free(in);
  free(out);
}

#define S "mma.sync.aligned."
static const product products[] = {
    {S "m16n8k8.row.col.f16.f16.f16.f16", 16, 8, 8, "f16", "f16", "f16", 16, 16, 0, NULL},
    {S "m16n8k16.row.col.f16.f16.f16.f16", 16, 8, 16, "f16", "f16", "f16", 16, 16, 0, NULL},
    {S "m16n8k8.row.col.f32.f16.f16.f32", 16, 8, 8, "f16", "f16", "f32", 16, 16, 0, NULL},
    {S "m16n8k16.row.col.f32.f16.f16.f32", 16, 8, 16, "f16", "f16", "f32", 16, 16, 0, NULL},
    {S "m16n8k8.row.col.f32.bf16.bf16.f32", 16, 8, 8, "bf16", "bf16", "f32", 16, 16, 0, NULL},
    {S "m16n8k16.row.col.f32.bf16.bf16.f32", 16, 8, 16, "bf16", "bf16", "f32", 16, 16, 0, NULL},
    {S "m16n8k4.row.col.f32.tf32.tf32.f32", 16, 8, 4, "tf32", "tf32", "f32", 32, 32, 0, NULL},
    {S "m16n8k8.row.col.f32.tf32.tf32.f32", 16, 8, 8, "tf32", "tf32", "f32", 32, 32, 0, NULL},
    {S "m8n8k4.row.col.f64.f64.f64.f64", 8, 8, 4, "f64", "f64", "f64", 64, 64, 0, NULL},
    {S "m16n8k4.row.col.f64.f64.f64.f64", 16, 8, 4, "f64", "f64", "f64", 64, 64, 0, NULL},
    {S "m16n8k8.row.col.f64.f64.f64.f64", 16, 8, 8, "f64", "f64", "f64", 64, 64, 0, NULL},
    {S "m16n8k16.row.col.f64.f64.f64.f64", 16, 8, 16, "f64", "f64", "f64", 64, 64, 0, NULL},
    {S "m8n8k16.row.col.s32.s8.u8.s32", 8, 8, 16, "s8", "u8", "s32", 8, 8, 0, NULL},
    {S "m16n8k16.row.col.s32.u8.s8.s32", 16, 8, 16, "u8", "s8", "s32", 8, 8, 0, NULL},
    {S "m16n8k32.row.col.s32.s8.s8.s32", 16, 8, 32, "s8", "s8", "s32", 8, 8, 0, NULL},
    {S "m16n8k32.row.col.satfinite.s32.s8.s8.s32", 16, 8, 32, "s8", "s8", "s32", 8, 8, 0, NULL},
    {S "m16n8k32.row.col.satfinite.s32.u8.u8.s32", 16, 8, 32, "u8", "u8", "s32", 8, 8, 0, NULL},
    {S "m8n8k32.row.col.s32.s4.u4.s32", 8, 8, 32, "s4", "u4", "s32", 4, 4, 0, NULL},
    {S "m16n8k32.row.col.satfinite.s32.u4.s4.s32", 16, 8, 32, "u4", "s4", "s32", 4, 4, 0, NULL},
    {S "m16n8k64.row.col.s32.s4.s4.s32", 16, 8, 64, "s4", "s4", "s32", 4, 4, 0, NULL},
    {S "m16n8k16.row.col.f16.e4m3.e5m2.f16", 16, 8, 16, "e4m3", "e5m2", "f16", 8, 8, 0, NULL},
    {S "m16n8k16.row.col.f32.e5m2.e4m3.f32", 16, 8, 16, "e5m2", "e4m3", "f32", 8, 8, 0, NULL},
    {S "m16n8k32.row.col.f32.e4m3.e4m3.f32", 16, 8, 32, "e4m3", "e4m3", "f32", 8, 8, 0, NULL},
    {S "m16n8k32.row.col.f16.e5m2.e5m2.f16", 16, 8, 32, "e5m2", "e5m2", "f16", 8, 8, 0, NULL},
    {S "kind::f8f6f4.m16n8k32.row.col.f32.e2m1.e2m1.f32", 16, 8, 32, "e2m1", "e2m1", "f32", 8, 8, 0, NULL},
    {S "kind::f8f6f4.m16n8k32.row.col.f32.e3m2.e2m3.f32", 16, 8, 32, "e3m2", "e2m3", "f32", 8, 8, 0, NULL},
    {S "m16n8k32.row.col.kind::f8f6f4.f32.e4m3.e2m1.f32", 16, 8, 32, "e4m3", "e2m1", "f32", 8, 8, 0, NULL},
    {S "m16n8k32.row.col.kind::f8f6f4.f16.e2m3.e5m2.f16", 16, 8, 32, "e2m3", "e5m2", "f16", 8, 8, 0, NULL},
};
#define MX8 "kind::mxf8f6f4.block_scale"
#define MX4 "kind::mxf4.block_scale"
#define NV4 "kind::mxf4nvf4.block_scale"
static const product scaled[] = {
    {S MX8 ".scale_vec::1X.m16n8k32.row.col.f32.e4m3.e4m3.f32.ue8m0", 16, 8, 32, "e4m3", "e4m3", "f32", 8, 8, 1,
     "ue8m0"},
    {S MX8 ".m16n8k32.row.col.f32.e2m1.e5m2.f32.ue8m0", 16, 8, 32, "e2m1", "e5m2", "f32", 8, 8, 1, "ue8m0"},
    {S "m16n8k32.row.col." MX8 ".scale_vec::1X.f32.e3m2.e2m3.f32.ue8m0", 16, 8, 32, "e3m2", "e2m3", "f32", 8, 8, 1,
     "ue8m0"},
    {S MX4 ".scale_vec::2X.m16n8k64.row.col.f32.e2m1.e2m1.f32.ue8m0", 16, 8, 64, "e2m1", "e2m1", "f32", 4, 4, 2,
     "ue8m0"},
    {S MX4 ".m16n8k64.row.col.f32.e2m1.e2m1.f32.ue8m0", 16, 8, 64, "e2m1", "e2m1", "f32", 4, 4, 2, "ue8m0"},
    {S NV4 ".scale_vec::2X.m16n8k64.row.col.f32.e2m1.e2m1.f32.ue8m0", 16, 8, 64, "e2m1", "e2m1", "f32", 4, 4, 2,
     "ue8m0"},
    {S NV4 ".scale_vec::4X.m16n8k64.row.col.f32.e2m1.e2m1.f32.ue4m3", 16, 8, 64, "e2m1", "e2m1", "f32", 4, 4, 4,
     "ue4m3"},
    {S "m16n8k64.row.col." NV4 ".scale_vec::4X.f32.e2m1.e2m1.f32.ue4m3", 16, 8, 64, "e2m1", "e2m1", "f32", 4, 4, 4,
     "ue4m3"},
};

void test_tensor(void) {
  static const int none[4] = {0};
  for (size_t i = 0; i < NY_COUNT(products); i++) test_product(&products[i], none);
}
void test_scaled(void) {
  for (size_t i = 0; i < NY_COUNT(scaled); i++)
    for (int k = 0; k < 4; k++) { /* every byte and thread that a selector may name */
      int step = scaled[i].scales;
      int selector[4] = {k * step % 4, k % 2, (3 - k) * step % 4, k};
      test_product(&scaled[i], selector);
    }
}
