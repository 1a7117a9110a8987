/* ldmatrix, stmatrix, movmatrix and wmma against matrices in plain arrays. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_fidelity.h"

#define HEAD                                                                                                           \
  ".version 8.7\n.target sm_120a\n.address_size 64\n"                                                                  \
  ".visible .entry k(.param .u64 in, .param .u64 out)\n{\n.reg .b32 %r<60>;\n.reg .b64 %rd<20>;\n"                     \
  ".shared .align 128 .b8 buf[2048];\nld.param.u64 %rd0, [in];\nld.param.u64 %rd1, [out];\nmov.u32 %r40, %tid.x;\n"
enum { ROWS = 32, ROW = 16 };

/* Row r of the matrices lies in slot (5 r + 3) % 32 of buf, so that an address that is not used is not right by
   accident. %r41: the address of this lane's slot. */
static void add_slots(ny_text *t, bool fill) {
  ny_text_add(t, "mad.lo.s32 %r42, %r40, 5, 3;\nand.b32 %r42, %r42, 31;\nshl.b32 %r42, %r42, 4;\nmov.u32 %r43, buf;\n"
                 "add.s32 %r41, %r43, %r42;\n");
  if (fill)
    ny_text_add(
        t,
        "mul.wide.u32 %rd2, %r40, 16;\nadd.s64 %rd3, %rd0, %rd2;\nld.global.v4.b32 {%r44, %r45, %r46, %r47}, [%rd3];\n"
        "st.shared.v4.b32 [%r41], {%r44, %r45, %r46, %r47};\nbar.warp.sync 0xffffffff;\n");
}
static void add_registers(ny_text *t, int n) {
  ny_text_add(t, "{");
  for (int i = 0; i < n; i++) ny_text_addf(t, "%s%%r%d", i ? ", " : "", i);
  ny_text_add(t, "}");
}

/* ---- ldmatrix: what register q, byte b of lane l must be, from rows[32][16] */
typedef uint8_t row_bytes[ROWS][ROW];
typedef struct load {
  const char *text;
  int registers;
  char shape; /* 8: m8n8, w: m8n16, s: m16n16 */
  bool trans;
  int packed; /* bits of an element; 8: as it is */
} load;
static uint8_t element(row_bytes m, int row, int e, int bits) {
  uint32_t v = 0;
  for (int b = 0; b < bits; b++) {
    int at = e * bits + b;
    v |= (uint32_t)(m[row][at / 8] >> at % 8 & 1) << b;
  }
  return (uint8_t)v;
}
static uint8_t loaded(const load *x, row_bytes m, int l, int q, int b) {
  int group = l / 4, quad = l % 4;
  if (x->shape == 's') { /* column `group`, or 8 further on, of the q / 2-th matrix: four rows of it */
    int row = q / 2 * 16 + quad * 4 + b, col = group + q % 2 * 8;
    return element(m, row, col, x->packed);
  }
  if (x->shape == 'w') return element(m, q * 8 + group, quad * 4 + b, x->packed);
  int row = q * 8 + (x->trans ? quad * 2 + b / 2 : group), col = x->trans ? group : quad * 2 + b / 2;
  return m[row][col * 2 + b % 2];
}
static void test_load(const load *x) {
  row_bytes m;
  for (int r = 0; r < ROWS; r++)
    for (int b = 0; b < ROW; b++) m[r][b] = (uint8_t)fidelity_random();
  ny_text t = {0};
  ny_text_add(&t, HEAD);
  add_slots(&t, true);
  ny_text_addf(&t, "%s ", x->text);
  add_registers(&t, x->registers);
  ny_text_add(&t, ", [%r41];\n");
  for (int q = 0; q < x->registers; q++)
    ny_text_addf(&t, "mul.wide.u32 %%rd2, %%r40, 16;\nadd.s64 %%rd3, %%rd1, %%rd2;\nst.global.b32 [%%rd3+%d], %%r%d;\n",
                 4 * q, q);
  ny_text_add(&t, "ret;\n}\n");
  static _Alignas(256) uint8_t out[32][4][4];
  fidelity_buffer buffers[] = {{m, sizeof m}, {out, sizeof out}};
  char why[512] = "";
  fidelity_status s = fidelity_run(t.s, buffers, 2, 1, 32, why);
  int bad = 0;
  for (int l = 0; s == RAN && l < 32; l++)
    for (int q = 0; q < x->registers; q++)
      for (int b = 0; b < 4; b++) bad += out[l][q][b] != loaded(x, m, l, q, b);
  fidelity_check(s != FAILED && !bad, "%s: %d bytes differ %s", x->text, bad, why);
  covered(x->text);
  ny_text_free(&t);
}

/* ---- stmatrix: the same places, written; and movmatrix */
typedef struct store {
  const char *text;
  int registers;
  bool trans, bytes;
} store;
static void test_store(const store *x) {
  static _Alignas(256) uint8_t in[32][4][4], out[ROWS][ROW];
  for (int l = 0; l < 32; l++)
    for (int q = 0; q < 4; q++)
      for (int b = 0; b < 4; b++) in[l][q][b] = (uint8_t)fidelity_random();
  memset(out, 0, sizeof out);
  ny_text t = {0};
  ny_text_add(&t, HEAD);
  add_slots(&t, false);
  ny_text_add(&t, "mul.wide.u32 %rd2, %r40, 16;\nadd.s64 %rd3, %rd0, %rd2;\n");
  for (int q = 0; q < 4; q++) ny_text_addf(&t, "ld.global.b32 %%r%d, [%%rd3+%d];\n", q, 4 * q);
  ny_text_addf(&t, "%s [%%r41], ", x->text);
  add_registers(&t, x->registers);
  ny_text_addf(&t, ";\nbar.warp.sync 0xffffffff;\nsetp.ge.u32 %%p1, %%r40, %d;\n@%%p1 bra DONE;\n", 8 * x->registers);
  ny_text_add(&t, "ld.shared.v4.b32 {%r44, %r45, %r46, %r47}, [%r41];\nadd.s64 %rd3, %rd1, %rd2;\n"
                  "st.global.v4.b32 [%rd3], {%r44, %r45, %r46, %r47};\nDONE:\nret;\n}\n");
  char *regs = strstr(t.s, ".reg .b32");
  ny_text with = {0};
  ny_text_addn(&with, t.s, (size_t)(regs - t.s));
  ny_text_addf(&with, ".reg .pred %%p<4>;\n%s", regs);
  fidelity_buffer buffers[] = {{in, sizeof in}, {out, sizeof out}};
  char why[512] = "";
  fidelity_status s = fidelity_run(with.s, buffers, 2, 1, 32, why);
  int bad = 0;
  for (int l = 0; s == RAN && l < 32; l++)
    for (int q = 0; q < x->registers; q++)
      for (int b = 0; b < 4; b++) {
        int group = l / 4, quad = l % 4, row, at;
        if (x->bytes) {
          row = q * 8 + quad * 2 + b % 2, at = group + b / 2 * 8;
        } else {
          row = q * 8 + (x->trans ? quad * 2 + b / 2 : group);
          at = 2 * (x->trans ? group : quad * 2 + b / 2) + b % 2;
        }
        bad += out[row][at] != in[l][q][b];
      }
  fidelity_check(s != FAILED && !bad, "%s: %d bytes differ %s", x->text, bad, why);
  covered(x->text);
  ny_text_free(&t);
  ny_text_free(&with);
}
static void test_move(void) {
  uint32_t in[32], out[32] = {0};
  for (int l = 0; l < 32; l++) in[l] = (uint32_t)fidelity_random();
  static const char text[] = HEAD "mul.wide.u32 %rd2, %r40, 4;\nadd.s64 %rd3, %rd0, %rd2;\nld.global.b32 %r0, [%rd3];\n"
                                  "movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r0;\nadd.s64 %rd3, %rd1, "
                                  "%rd2;\nst.global.b32 [%rd3], %r1;\nret;\n}\n";
  fidelity_buffer buffers[] = {{in, sizeof in}, {out, sizeof out}};
  char why[512] = "";
  fidelity_status s = fidelity_run(text, buffers, 2, 1, 32, why);
  int bad = 0;
  for (int r = 0; r < 8; r++)
    for (int c = 0; c < 8; c++) { /* element (r, c) of the input is (c, r) of the output */
      uint32_t x = in[r * 4 + c / 2] >> c % 2 * 16 & 0xffff, y = out[c * 4 + r / 2] >> r % 2 * 16 & 0xffff;
      bad += x != y;
    }
  fidelity_check(s != FAILED && !bad, "movmatrix: %d elements differ %s", bad, why);
  covered("movmatrix.sync.aligned.m8n8.trans.b16");
}

/* ---- wmma: load, multiply, store; only memory is looked at */
typedef struct wmma {
  const char *type, *c, *d, *middle; /* middle: types of wmma.mma */
  int k, ra, rc, rd;                 /* registers of A and B, of C, of D */
} wmma;
static size_t size_of(const char *type) {
  return !strcmp(type, "s8") || !strcmp(type, "u8") ? 1 : !strcmp(type, "f16") || !strcmp(type, "bf16") ? 2 : 4;
}
static wide at(const uint8_t *p, const char *type, int i) {
  uint64_t code = 0;
  memcpy(&code, p + (size_t)i * size_of(type), size_of(type));
  if (!strcmp(type, "s8")) return (wide)(int8_t)code;
  if (!strcmp(type, "u8")) return (wide)(uint8_t)code;
  if (!strcmp(type, "s32")) return (wide)(int32_t)code;
  return !strcmp(type, "tf32") ? ref_value("f32", code & 0xffffe000) : ref_value(type, code);
}
static void fill(uint8_t *p, const char *type, int n) {
  for (int i = 0; i < n; i++) {
    wide v = ((wide)(int64_t)(fidelity_random() % 2001) - 1000) / 256;
    uint64_t code = type[0] == 's' || type[0] == 'u'
                        ? fidelity_random() >> 40
                        : ref_round(!strcmp(type, "tf32") ? "f32" : type, (exact){v, 0}, NEAREST, true);
    memcpy(p + (size_t)i * size_of(type), &code, size_of(type));
  }
}
static void wmma_line(ny_text *t, const char *op, const char *layout, const wmma *x, const char *type, const char *regs,
                      const char *address, int stride, char *mnemonic, size_t n) {
  bool stores = !strncmp(op, "wmma.store", 10);
  snprintf(mnemonic, n, "%s.sync.aligned.%s.m16n16k%d.global.%s", op, layout, x->k, type);
  if (stores)
    ny_text_addf(t, "%s [%s], %s, %d;\n", mnemonic, address, regs, stride);
  else
    ny_text_addf(t, "%s %s, [%s], %d;\n", mnemonic, regs, address, stride);
}
static void range(char *out, size_t n, int first, int count) {
  size_t at = (size_t)snprintf(out, n, "{");
  for (int i = 0; i < count; i++) at += (size_t)snprintf(out + at, n - at, "%s%%r%d", i ? ", " : "", first + i);
  snprintf(out + at, n - at, "}");
}
enum { STRIDE = 32, BYTES = 16 * STRIDE * 4 };
static void test_wmma(const wmma *x, bool col_a, bool col_b, bool col_c) {
  static _Alignas(256) uint8_t in[3][BYTES], out[BYTES];
  fill(in[0], x->type, 16 * STRIDE);
  fill(in[1], x->type, 16 * STRIDE);
  fill(in[2], x->c, 16 * STRIDE);
  char a[200], b[200], c[200], d[200], op[4][100], mma[160];
  range(a, sizeof a, 0, x->ra), range(b, sizeof b, 8, x->ra), range(c, sizeof c, 16, x->rc),
      range(d, sizeof d, 24, x->rd);
  const char *la = col_a ? "col" : "row", *lb = col_b ? "col" : "row", *lc = col_c ? "col" : "row";
  ny_text t = {0};
  ny_text_add(&t, HEAD);
  ny_text_addf(&t, "add.s64 %%rd2, %%rd0, %d;\nadd.s64 %%rd3, %%rd0, %d;\n", BYTES, 2 * BYTES);
  wmma_line(&t, "wmma.load.a", la, x, x->type, a, "%rd0", STRIDE, op[0], 100);
  wmma_line(&t, "wmma.load.b", lb, x, x->type, b, "%rd2", STRIDE, op[1], 100);
  wmma_line(&t, "wmma.load.c", lc, x, x->c, c, "%rd3", STRIDE, op[2], 100);
  snprintf(mma, sizeof mma, "wmma.mma.sync.aligned.%s.%s.m16n16k%d.%s", la, lb, x->k, x->middle);
  ny_text_addf(&t, "%s %s, %s, %s, %s;\n", mma, d, a, b, c);
  wmma_line(&t, "wmma.store.d", lc, x, x->d, d, "%rd1", STRIDE, op[3], 100);
  ny_text_add(&t, "ret;\n}\n");
  fidelity_buffer buffers[] = {{in, sizeof in}, {out, sizeof out}};
  char why[512] = "";
  fidelity_status s = fidelity_run(t.s, buffers, 2, 1, 32, why);
  int bad = 0;
  for (int r = 0; s == RAN && r < 16; r++)
    for (int n = 0; n < 16; n++) {
      int ic = col_c ? n * STRIDE + r : r * STRIDE + n;
      wide sum = at(in[2], x->c, ic), size = sum < 0 ? -sum : sum;
      for (int k = 0; k < x->k; k++) {
        wide v = at(in[0], x->type, col_a ? k * STRIDE + r : r * STRIDE + k) *
                 at(in[1], x->type, col_b ? n * STRIDE + k : k * STRIDE + n);
        sum += v;
        size += v < 0 ? -v : v;
      }
      wide got = at(out, x->d, ic), off = got < sum ? sum - got : got - sum;
      wide bound = !strcmp(x->d, "s32") ? 0 : (x->k + 2) * (wide)0x1p-22 * size;
      if (!strcmp(x->d, "f16")) bound += (sum < 0 ? -sum : sum) * (wide)0x1p-11;
      bad += off > bound;
    }
  fidelity_check(s != FAILED && !bad, "%s: %d results differ %s", mma, bad, why);
  for (int k = 0; k < 4; k++) covered(op[k]);
  covered(mma);
  ny_text_free(&t);
}

#define L "ldmatrix.sync.aligned."
#define ST "stmatrix.sync.aligned."
void test_matrix(void) {
  static const load loads[] = {
      {L "m8n8.x1.shared.b16", 1, '8', false, 8},
      {L "m8n8.x2.shared::cta.b16", 2, '8', false, 8},
      {L "m8n8.x4.shared.b16", 4, '8', false, 8},
      {L "m8n8.x1.trans.shared.b16", 1, '8', true, 8},
      {L "m8n8.x2.trans.shared.b16", 2, '8', true, 8},
      {L "m8n8.x4.trans.shared.b16", 4, '8', true, 8},
      {L "m8n16.x1.shared.b8x16.b4x16_p64", 1, 'w', false, 4},
      {L "m8n16.x2.shared.b8x16.b6x16_p32", 2, 'w', false, 6},
      {L "m8n16.x4.shared.b8x16.b4x16_p64", 4, 'w', false, 4},
      {L "m8n16.x4.shared.b8x16.b6x16_p32", 4, 'w', false, 6},
      {L "m16n16.x1.trans.shared.b8", 2, 's', true, 8},
      {L "m16n16.x2.trans.shared.b8", 4, 's', true, 8},
      {L "m16n16.x1.trans.shared.b8x16.b4x16_p64", 2, 's', true, 4},
      {L "m16n16.x2.trans.shared.b8x16.b6x16_p32", 4, 's', true, 6},
  };
  static const store stores[] = {
      {ST "m8n8.x1.shared.b16", 1, false, false},         {ST "m8n8.x2.shared.b16", 2, false, false},
      {ST "m8n8.x4.shared.b16", 4, false, false},         {ST "m8n8.x4.trans.shared.b16", 4, true, false},
      {ST "m16n8.x1.trans.shared.b8", 1, true, true},     {ST "m16n8.x2.trans.shared.b8", 2, true, true},
      {ST "m16n8.x4.trans.shared::cta.b8", 4, true, true}};
  static const wmma products[] = {{"f16", "f32", "f32", "f32.f32", 16, 8, 8, 8},
                                  {"f16", "f16", "f16", "f16.f16", 16, 8, 4, 4},
                                  {"f16", "f16", "f32", "f32.f16", 16, 8, 4, 8},
                                  {"f16", "f32", "f16", "f16.f32", 16, 8, 8, 4},
                                  {"bf16", "f32", "f32", "f32.bf16.bf16.f32", 16, 4, 8, 8},
                                  {"tf32", "f32", "f32", "f32.tf32.tf32.f32", 8, 4, 8, 8},
                                  {"s8", "s32", "s32", "s32.s8.s8.s32", 16, 2, 8, 8},
                                  {"u8", "s32", "s32", "s32.u8.u8.s32", 16, 2, 8, 8},
                                  {"s8", "s32", "s32", "s32.s8.s8.s32.satfinite", 16, 2, 8, 8}};
  for (size_t i = 0; i < NY_COUNT(loads); i++) test_load(&loads[i]);
  for (size_t i = 0; i < NY_COUNT(stores); i++) test_store(&stores[i]);
  test_move();
  for (size_t i = 0; i < NY_COUNT(products); i++)
    for (int layouts = 0; layouts < 8; layouts++) test_wmma(&products[i], layouts & 1, layouts & 2, layouts & 4);
}
