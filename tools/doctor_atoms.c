/* See doctor_atoms.h. A kernel is PTX text for one warp, so the driver's assembler is all it takes: no NVRTC. Every
   lane has 64 bytes of input and 64 of output. Inputs are small numbers, whose products and sums are exact however a
   tensor core adds, so everything is compared bit by bit. tests/sim_fidelity goes through all instructions with all
   inputs. */
#include "doctor_atoms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 32, LANE_BYTES = 64, WORDS = LANE_BYTES / 4, BYTES = LANES * LANE_BYTES };
typedef uint32_t lanes[LANES][WORDS];

typedef struct product { /* of mma: m16n8 */
  const char *mnemonic;
  ny_fmt format, acc;
  int width, k; /* bits of an element in a register; depth */
  int scales;   /* along the depth; 0: none */
  ny_fmt scale;
} product;
typedef struct atom {
  const char *name;
  int sm;    /* from this compute capability (times ten) on; consumer Blackwell only: 120 */
  int below; /* and below this one; 0: no limit */
  int ptx;   /* version of the text, times ten */
  const char *body;
  void (*fill)(const struct atom *a, lanes in);
  void (*want)(const struct atom *a, lanes in, lanes out);
  const product *mma;
} atom;

static uint32_t state;
static uint32_t next(void) {
  state ^= state << 13, state ^= state >> 17, state ^= state << 5;
  return state;
}

/* ---- inputs */
static void fill_bits(const atom *a, lanes in) {
  (void)a;
  for (int l = 0; l < LANES; l++)
    for (int i = 0; i < WORDS; i++) in[l][i] = next();
}
static void fill_floats(const atom *a, lanes in) {
  (void)a;
  for (int l = 0; l < LANES; l++)
    for (int i = 0; i < WORDS; i++) {
      double x = ldexp(1 + (double)(next() >> 9) / (1 << 23), (int)(next() % 12) - 6);
      ny_put_f(NY_f32, in[l], (uint64_t)i, next() & 1 ? x : -x, false);
    }
}
static uint32_t small_code(ny_fmt f, int width) {
  uint32_t code = 0;
  int v = (int)(next() % 7) - 3;
  if (f == NY_f4e2m1) return next() & 15;
  if (!ny_is_float(f)) return (uint32_t)v & 0xff;
  ny_put_f(f, &code, 0, v, false);
  return width < 32 ? code & ((1u << width) - 1) : code;
}
static void fill_product(const atom *a, lanes in) {
  const product *p = a->mma;
  for (int l = 0; l < LANES; l++) {
    for (int r = 0; r < 6; r++)
      for (int i = 0; i < 32 / p->width; i++) in[l][r] |= small_code(p->format, p->width) << p->width * i;
    for (int r = 6; r < 10; r++) in[l][r] = p->acc == NY_i32 ? (uint32_t)-5 : small_code(NY_f32, 32);
    for (int r = 10; r < 12; r++)
      for (int i = 0; i < 4; i++) /* 0.5, 1 or 2 */
        in[l][r] |= (p->scale == NY_f8e8m0 ? 126 + next() % 3 : 0x30 + 8 * (next() % 3)) << 8 * i;
  }
}

/* ---- what must come out */
static void want_copy(const atom *a, lanes in, lanes out) {
  (void)a;
  for (int l = 0; l < LANES; l++) memcpy(out[l], in[l ^ 1], (size_t)((l ^ 1) % 5) * 4);
}
static void want_matrix(const atom *a, lanes in, lanes out) {
  bool turned = strstr(a->body, ".trans") != NULL;
  for (int l = 0; l < LANES; l++)
    for (int m = 0; m < 4; m++)
      for (int i = 0; i < 2; i++) {
        int row = turned ? l % 4 * 2 + i : l / 4, col = turned ? l / 4 : l % 4 * 2 + i;
        uint16_t v;
        memcpy(&v, (const uint8_t *)in[m * 8 + row] + 2 * col, 2);
        out[l][m] |= (uint32_t)v << 16 * i;
      }
}
static double element(const product *p, uint32_t reg, int i) {
  uint32_t code = p->width < 32 ? reg >> p->width * i & ((1u << p->width) - 1) : reg;
  if (p->format == NY_i8) return (int8_t)code;
  return ny_get_f(p->format, &code, 0);
}
/* A's (row, col) is in the lanes and registers as B's (col, row) is, with eight rows more in the odd registers. */
static double left(const product *p, lanes in, int row, int k) {
  int per = 32 / p->width;
  return element(p, in[row % 8 * 4 + k % (4 * per) / per][row / 8 + k / (4 * per) * 2], k % per);
}
static double right(const product *p, lanes in, int k, int col) {
  int per = 32 / p->width;
  return element(p, in[col * 4 + k % (4 * per) / per][4 + k / (4 * per)], k % per);
}
static double scale(const product *p, lanes in, int lane, int reg, int k) {
  if (!p->scales) return 1;
  uint8_t code = (uint8_t)(in[lane][reg] >> 8 * (k / (p->k / p->scales)));
  return ny_get_f(p->scale, &code, 0);
}
static void want_product(const atom *a, lanes in, lanes out) {
  const product *p = a->mma;
  for (int l = 0; l < LANES; l++)
    for (int r = 0; r < 4; r++) {
      int row = l / 4 + r / 2 * 8, col = l % 4 * 2 + r % 2;
      double sum = p->acc == NY_i32 ? (int32_t)in[l][6 + r] : ny_get_f(NY_f32, &in[l][6 + r], 0);
      for (int k = 0; k < p->k; k++)
        sum += left(p, in, row, k) * right(p, in, k, col) * scale(p, in, row % 8 * 4 + row / 8, 10, k) *
               scale(p, in, col * 4, 11, k);
      if (p->acc == NY_i32)
        out[l][r] = (uint32_t)(int32_t)sum;
      else
        ny_put_f(NY_f32, out[l], (uint64_t)r, sum, false);
    }
}
static void want_shuffle(const atom *a, lanes in, lanes out) {
  (void)a;
  for (int l = 0; l < LANES; l++) {
    out[l][0] = in[l ^ 5][0];
    out[l][1] = in[9][0];
    out[l][2] = in[l < 3 ? l : l - 3][0];
    for (int k = 0; k < LANES; k++) out[l][3] |= in[k][0] >> 31 << k;
  }
}
static void want_round(const atom *a, lanes in, lanes out) {
  (void)a;
  for (int l = 0; l < LANES; l++) {
    ny_put_f(NY_bf16, &out[l][0], 0, ny_get_f(NY_f32, in[l], 0), false);
    ny_put_f(NY_f16, &out[l][1], 0, ny_get_f(NY_f32, in[l], 0), false);
    out[l][2] = (in[l][0] + 0x1000) & ~0x1fffu;
    out[l][3] = l % 4 == 0 ? 0x7fffffff : in[l][ny_get_f(NY_f32, in[l], 0) < ny_get_f(NY_f32, in[l], 1)];
  }
}
static void want_f8(const atom *a, lanes in, lanes out) {
  (void)a;
  for (int l = 0; l < LANES; l++)
    for (uint64_t i = 0; i < 2; i++) {
      ny_put_f(NY_f8e4m3, &out[l][0], i, ny_get_f(NY_f32, in[l], i), true);
      ny_put_f(NY_f16, &out[l][1], i, ny_get_f(NY_f8e4m3, &out[l][0], i), true);
    }
}
static void want_f4(const atom *a, lanes in, lanes out) {
  (void)a;
  for (int l = 0; l < LANES; l++)
    for (uint64_t i = 0; i < 8; i++) ny_put_f(NY_f4e2m1, &out[l][0], i, ny_get_f(NY_f32, in[l], i), true);
}
static void fill_scales(const atom *a, lanes in) {
  fill_floats(a, in);
  for (int l = 0; l < LANES; l++)
    for (int i = 0; i < WORDS; i++) in[l][i] &= l % 8 ? 0x7fffffff : 0x7f800000;
}
static void want_scales(const atom *a, lanes in, lanes out) {
  (void)a;
  for (int l = 0; l < LANES; l++)
    for (int i = 0; i < 2; i++) {
      uint32_t exponent = in[l][i] >> 23 & 255, above = (in[l][i] & 0x7fffff) != 0;
      out[l][0] |= (exponent + above) << 8 * i;
      out[l][1] |= exponent << 8 * i;
    }
}
static void want_atomics(const atom *a, lanes in, lanes out) {
  (void)a;
  int32_t top = INT32_MIN;
  double sum = 0;
  for (int l = 0; l < LANES; l++) {
    uint32_t w = in[l][0];
    out[0][0] += w;
    sum += w & 255;
    top = (int32_t)w > top ? (int32_t)w : top;
    out[0][4] += w & 255;
  }
  ny_put_f(NY_f32, &out[0][1], 0, sum, false);
  out[0][2] = (uint32_t)top;
  out[0][3] = UINT32_MAX;
  out[0][5] = out[0][0];
}
static void want_bulk(const atom *a, lanes in, lanes out) {
  (void)a;
  for (int l = 0; l < LANES; l++) memcpy(out[l], (const uint8_t *)in + 32 * l, 32);
}

/* ---- kernels. Registers: r63 lane, r62 shared memory, r60 the lane's 16 bytes of it, rd0 and rd1 in and out, rd2 and
   rd3 the lane's. */
static const char head[] =
    ".visible .entry k(.param .u64 in, .param .u64 out)\n{\n.reg .b32 %r<64>;\n.reg .b64 %rd<16>;\n.reg .b16 %h<16>;\n"
    ".reg .f32 %f<16>;\n.reg .b8 %c<8>;\n.reg .pred %p<8>;\n.shared .align 128 .b8 s[2048];\n.shared .align 8 .b64 "
    "bar;\n"
    "ld.param.u64 %rd0, [in];\nld.param.u64 %rd1, [out];\nmov.u32 %r63, %tid.x;\nmul.wide.u32 %rd9, %r63, 64;\n"
    "add.s64 %rd2, %rd0, %rd9;\nadd.s64 %rd3, %rd1, %rd9;\nmov.u32 %r62, s;\nshl.b32 %r61, %r63, 4;\n"
    "add.u32 %r60, %r62, %r61;\n";
#define TO_SHARED "ld.global.v4.b32 {%r0, %r1, %r2, %r3}, [%rd2];\nst.shared.v4.b32 [%r60], {%r0, %r1, %r2, %r3};\n"
#define OUT4 "st.global.v4.b32 [%rd3], {%r0, %r1, %r2, %r3};\n"
#define LDMATRIX(trans)                                                                                                \
  TO_SHARED "bar.warp.sync -1;\nldmatrix.sync.aligned.m8n8.x4" trans ".shared.b16 {%r0, %r1, %r2, %r3}, "              \
            "[%r60];\n" OUT4
static const char cp_async[] =
    "rem.u32 %r0, %r63, 5;\nshl.b32 %r0, %r0, 2;\ncp.async.cg.shared.global [%r60], [%rd2], 16, %r0;\n"
    "cp.async.commit_group;\ncp.async.wait_group 0;\nbar.warp.sync -1;\nxor.b32 %r0, %r61, 16;\nadd.u32 %r0, %r0, "
    "%r62;\n"
    "ld.shared.v4.b32 {%r0, %r1, %r2, %r3}, [%r0];\n" OUT4;
static const char shuffle[] =
    "ld.global.b32 %r4, [%rd2];\nshfl.sync.bfly.b32 %r0, %r4, 5, 31, -1;\nshfl.sync.idx.b32 %r1, %r4, 9, 31, -1;\n"
    "shfl.sync.up.b32 %r2, %r4, 3, 0, -1;\nsetp.lt.s32 %p0, %r4, 0;\nvote.sync.ballot.b32 %r3, %p0, -1;\n" OUT4;
static const char rounding[] =
    "ld.global.v2.f32 {%f0, %f1}, [%rd2];\ncvt.rn.bf16.f32 %h0, %f0;\ncvt.rn.f16.f32 %h1, %f0;\ncvt.u32.u16 %r0, %h0;\n"
    "cvt.u32.u16 %r1, %h1;\ncvt.rna.tf32.f32 %r2, %f0;\nand.b32 %r4, %r63, 3;\nsetp.eq.u32 %p0, %r4, 0;\n"
    "selp.f32 %f1, 0f7FC00001, %f1, %p0;\nmax.NaN.f32 %f2, %f0, %f1;\nmov.b32 %r3, %f2;\n" OUT4;
static const char f8[] =
    "ld.global.v2.f32 {%f0, %f1}, [%rd2];\ncvt.rn.satfinite.e4m3x2.f32 %h0, %f1, %f0;\ncvt.rn.f16x2.e4m3x2 %r1, %h0;\n"
    "cvt.u32.u16 %r0, %h0;\nst.global.v2.b32 [%rd3], {%r0, %r1};\n";
static const char f4[] =
    "ld.global.v4.f32 {%f0, %f1, %f2, %f3}, [%rd2];\nld.global.v4.f32 {%f4, %f5, %f6, %f7}, [%rd2+16];\n"
    "cvt.rn.satfinite.e2m1x2.f32 %c0, %f1, %f0;\ncvt.rn.satfinite.e2m1x2.f32 %c1, %f3, %f2;\n"
    "cvt.rn.satfinite.e2m1x2.f32 %c2, %f5, %f4;\ncvt.rn.satfinite.e2m1x2.f32 %c3, %f7, %f6;\n"
    "mov.b32 %r0, {%c0, %c1, %c2, %c3};\nst.global.b32 [%rd3], %r0;\n";
static const char scales[] =
    "ld.global.v2.f32 {%f0, %f1}, [%rd2];\ncvt.rp.satfinite.ue8m0x2.f32 %h0, %f1, %f0;\n"
    "cvt.rz.satfinite.ue8m0x2.f32 %h1, %f1, %f0;\ncvt.u32.u16 %r0, %h0;\ncvt.u32.u16 %r1, %h1;\n"
    "st.global.v2.b32 [%rd3], {%r0, %r1};\n";
static const char atomics[] =
    "ld.global.b32 %r0, [%rd2];\nand.b32 %r1, %r0, 255;\ncvt.rn.f32.u32 %f0, %r1;\nred.global.add.u32 [%rd1], %r0;\n"
    "red.global.add.f32 [%rd1+4], %f0;\natom.global.max.s32 %r3, [%rd1+8], %r0;\nmov.u32 %r4, 1;\n"
    "shl.b32 %r4, %r4, %r63;\nred.global.or.b32 [%rd1+12], %r4;\nld.volatile.global.u32 %r5, [%rd1+16];\n"
    "L: add.u32 %r6, %r5, %r1;\natom.global.cas.b32 %r7, [%rd1+16], %r5, %r6;\nsetp.ne.u32 %p0, %r7, %r5;\n"
    "mov.u32 %r5, %r7;\n@%p0 bra L;\nsetp.eq.u32 %p1, %r63, 0;\n@%p1 st.shared.u32 [%r62], 0;\nbar.warp.sync -1;\n"
    "red.shared.add.u32 [%r62], %r0;\nbar.warp.sync -1;\nld.shared.u32 %r8, [%r62];\n@%p1 st.global.u32 [%rd1+20], "
    "%r8;\n";
static const char bulk[] =
    "setp.eq.u32 %p0, %r63, 0;\nmov.u32 %r1, bar;\n@%p0 mbarrier.init.shared.b64 [%r1], 1;\n"
    "fence.proxy.async.shared::cta;\nbar.warp.sync -1;\n"
    "@%p0 mbarrier.arrive.expect_tx.shared.b64 %rd4, [%r1], 1024;\n"
    "@%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r62], [%rd0], 1024, [%r1];\n"
    "W: mbarrier.try_wait.parity.shared.b64 %p1, [%r1], 0;\n@!%p1 bra W;\nadd.u32 %r60, %r60, %r61;\n"
    "ld.shared.v4.b32 {%r0, %r1, %r2, %r3}, [%r60];\nld.shared.v4.b32 {%r4, %r5, %r6, %r7}, [%r60+16];\n" OUT4
    "st.global.v4.b32 [%rd3+16], {%r4, %r5, %r6, %r7};\n";

#define MMA "mma.sync.aligned."
static const product bf16 = {MMA "m16n8k16.row.col.f32.bf16.bf16.f32", NY_bf16, NY_f32, 16, 16, 0, 0};
static const product f16 = {MMA "m16n8k16.row.col.f32.f16.f16.f32", NY_f16, NY_f32, 16, 16, 0, 0};
static const product tf32 = {MMA "m16n8k8.row.col.f32.tf32.tf32.f32", NY_f32, NY_f32, 32, 8, 0, 0};
static const product int8 = {MMA "m16n8k32.row.col.s32.s8.s8.s32", NY_i8, NY_i32, 8, 32, 0, 0};
static const product e4m3 = {MMA "m16n8k32.row.col.f32.e4m3.e4m3.f32", NY_f8e4m3, NY_f32, 8, 32, 0, 0};
static const product mxf4 = {MMA "m16n8k64.row.col.kind::mxf4.block_scale.scale_vec::2X.f32.e2m1.e2m1.f32.ue8m0",
                             NY_f4e2m1,
                             NY_f32,
                             4,
                             64,
                             2,
                             NY_f8e8m0};
static const product nvf4 = {MMA "m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::4X.f32.e2m1.e2m1.f32.ue4m3",
                             NY_f4e2m1,
                             NY_f32,
                             4,
                             64,
                             4,
                             NY_f8e4m3};
#define PRODUCT(name, sm, below, ptx, p)                                                                               \
  { name, sm, below, ptx, NULL, fill_product, want_product, p }
static const atom atoms[] = {
    {"shuffle and vote", 80, 0, 70, shuffle, fill_bits, want_shuffle, NULL},
    {"rounding to bf16, f16, tf32", 80, 0, 70, rounding, fill_floats, want_round, NULL},
    {"atomics", 80, 0, 70, atomics, fill_bits, want_atomics, NULL},
    {"cp.async", 80, 0, 70, cp_async, fill_bits, want_copy, NULL},
    {"ldmatrix", 80, 0, 70, LDMATRIX(""), fill_bits, want_matrix, NULL},
    {"ldmatrix.trans", 80, 0, 70, LDMATRIX(".trans"), fill_bits, want_matrix, NULL},
    PRODUCT("mma bf16", 80, 0, 70, &bf16),
    PRODUCT("mma f16", 80, 0, 70, &f16),
    PRODUCT("mma tf32", 80, 0, 70, &tf32),
    PRODUCT("mma int8", 80, 0, 70, &int8),
    PRODUCT("mma e4m3", 89, 0, 84, &e4m3),
    PRODUCT("mma mxf4", 120, 130, 87, &mxf4),
    PRODUCT("mma mxf4nvf4", 120, 130, 87, &nvf4),
    {"cvt e4m3", 89, 0, 81, f8, fill_floats, want_f8, NULL},
    {"cvt e2m1", 100, 0, 86, f4, fill_floats, want_f4, NULL},
    {"cvt ue8m0", 100, 0, 86, scales, fill_scales, want_scales, NULL},
    {"bulk copy and mbarrier", 90, 0, 80, bulk, fill_bits, want_bulk, NULL},
};
const char *const doctor_verdicts[] = {"ok", "wrong", "not on this device", "failed"};

/* ---- text */
static void mma_body(const product *p, ny_text *t) {
  int n = p->scales ? 12 : 10;
  for (int i = 0; i < n; i++) ny_text_addf(t, "ld.global.b32 %%r%d, [%%rd2+%d];\n", i, 4 * i);
  ny_text_addf(t, "%s {%%r20, %%r21, %%r22, %%r23}, {%%r0, %%r1, %%r2, %%r3}, {%%r4, %%r5}, {%%r6, %%r7, %%r8, %%r9}",
               p->mnemonic);
  if (p->scales) {
    ny_text_add(t, ", {%r10}, {%h0, %h1}, {%r11}, {%h0, %h1};\n");
  } else {
    ny_text_add(t, ";\n");
  }
  for (int i = 0; i < 4; i++) ny_text_addf(t, "st.global.b32 [%%rd3+%d], %%r%d;\n", 4 * i, 20 + i);
}
/* The first version of PTX that has the target, and the target: what an architecture has for itself is wanted too. */
static int target_of(uint32_t sm, char out[16]) {
  static const int since[][2] = {{80, 70},  {86, 71},  {87, 74},  {89, 78},  {90, 80}, {100, 86},
                                 {101, 86}, {103, 88}, {110, 90}, {120, 87}, {121, 88}};
  snprintf(out, 16, "sm_%u%s", sm, sm >= 90 ? "a" : "");
  for (size_t i = 0; i < NY_COUNT(since); i++)
    if (since[i][0] == (int)sm) return since[i][1];
  return 90;
}
static void text_of(const atom *a, uint32_t sm, ny_text *t) {
  char target[16];
  int version = target_of(sm, target);
  if (a->ptx > version) version = a->ptx;
  ny_text_addf(t, ".version %d.%d\n.target %s\n.address_size 64\n%s", version / 10, version % 10, target, head);
  if (a->mma && a->mma->scales) ny_text_add(t, "mov.b16 %h0, 0;\nmov.b16 %h1, 0;\n");
  if (a->mma)
    mma_body(a->mma, t);
  else
    ny_text_add(t, a->body);
  ny_text_add(t, "ret;\n}\n");
}

/* ---- running */
typedef struct bench {
  ny_device *dev;
  ny_program *program;
  ny_queue *queue;
  void *memory[2];
} bench;

static nyb_status launch(bench *b, lanes in, lanes out, ny_diag *d) {
  NY_TRY(ny_queue_open(b->program, &b->queue, d));
  NY_TRY(ny_queue_begin(b->queue, d));
  for (int i = 0; i < 2; i++) NY_TRY(ny_device_alloc(b->dev, BYTES, "a test", &b->memory[i], d));
  void *param[] = {&b->memory[0], &b->memory[1]};
  uint64_t bytes[] = {BYTES, BYTES};
  ny_raw_launch l = {
      .grid = {1, 1, 1}, .block = {LANES, 1, 1}, .param = param, .range = b->memory, .bytes = bytes, .n_ranges = 2};
  NY_TRY(ny_queue_upload(b->queue, b->memory[0], in, BYTES, d));
  NY_TRY(ny_queue_upload(b->queue, b->memory[1], out, BYTES, d));
  NY_TRY(ny_queue_launch_raw(b->queue, b->program, &l, d));
  NY_TRY(ny_queue_download(b->queue, out, b->memory[1], BYTES, d));
  return ny_queue_wait(b->queue, d);
}

static nyb_status run(ny_device *dev, const atom *a, lanes in, lanes out, ny_diag *d) {
  bench b = {.dev = dev};
  ny_text t = {0};
  ny_mod_kernel row = {.name = a->name, .symbol = "k", .n_buffers = 2, .block = LANES, .points = 1};
  text_of(a, ny_device_describe(dev)->sm, &t);
  nyb_status s = ny_program_of_image(dev, t.s, &row, &b.program, d);
  if (!s) s = launch(&b, in, out, d);
  for (int i = 0; i < 2; i++) ny_device_free(dev, b.memory[i]);
  ny_queue_close(b.queue);
  ny_program_close(b.program);
  ny_text_free(&t);
  return s;
}

static void judge(const atom *a, lanes in, lanes got, doctor_atom *out) {
  static lanes want;
  int bad = 0;
  memset(want, 0, sizeof want);
  a->want(a, in, want);
  for (int l = 0; l < LANES; l++)
    for (int i = 0; i < WORDS; i++)
      if (got[l][i] != want[l][i] && !bad++)
        snprintf(out->why, sizeof out->why, "lane %d word %d is 0x%08x, not 0x%08x", l, i, got[l][i], want[l][i]);
  out->verdict = bad ? DOCTOR_WRONG : DOCTOR_OK;
}

static void one(ny_device *dev, const atom *a, doctor_atom *out) {
  static lanes in, got;
  ny_diag d = {0};
  int sm = (int)ny_device_describe(dev)->sm;
  *out = (doctor_atom){.name = a->name, .verdict = DOCTOR_ABSENT};
  if (sm < a->sm || (a->below && sm >= a->below)) {
    if (a->below)
      snprintf(out->why, sizeof out->why, "only capability %d.x has it", a->sm / 10);
    else
      snprintf(out->why, sizeof out->why, "capability %d.%d and later have it", a->sm / 10, a->sm % 10);
    return;
  }
  memset(in, 0, sizeof in);
  memset(got, 0, sizeof got);
  state = 12345;
  a->fill(a, in);
  out->verdict = DOCTOR_FAILED;
  if (run(dev, a, in, got, &d))
    snprintf(out->why, sizeof out->why, "%.390s", d.message);
  else
    judge(a, in, got, out);
}

size_t doctor_atoms(ny_device *dev, doctor_atom *out, size_t room) {
  size_t n = 0;
  for (; n < NY_COUNT(atoms) && n < room; n++) one(dev, &atoms[n], &out[n]);
  return n;
}
