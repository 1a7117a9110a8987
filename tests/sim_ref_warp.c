/* Control flow, carries, and what lanes of a warp or a block do together. A case is a piece of PTX between a load of
   three words a lane (%r1 %r2 %r3) and a store of four (%r10 .. %r13), and a C function of all lanes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_fidelity.h"

enum { LANES = 96, WORDS = 4 };
#define HEAD                                                                                                           \
  ".version 8.7\n.target sm_120a\n.address_size 64\n"                                                                  \
  ".func (.param .b32 r) twice(.param .b32 a)\n{\n.reg .b32 %r<4>;\nld.param.b32 %r1, [a];\nadd.s32 %r2, %r1, %r1;\n"  \
  "st.param.b32 [r], %r2;\nret;\n}\n"                                                                                  \
  ".visible .entry k(.param .u64 in, .param .u64 out)\n{\n.reg .b32 %r<60>;\n.reg .b64 %rd<60>;\n.reg .pred %p<10>;\n" \
  ".shared .align 16 .b8 buf[1024];\n"                                                                                 \
  "ld.param.u64 %rd50, [in];\nld.param.u64 %rd51, [out];\nmov.u32 %r50, %tid.x;\nmul.wide.u32 %rd52, %r50, 16;\n"      \
  "add.s64 %rd50, %rd50, %rd52;\nadd.s64 %rd51, %rd51, %rd52;\nld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd50];\n"      \
  "mov.u32 %r51, %laneid;\nmov.u32 %r10, 0;\nmov.u32 %r11, 0;\nmov.u32 %r12, 0;\nmov.u32 %r13, 0;\n"                   \
  "setp.ne.s32 %p1, %r1, 0;\n"
#define TAIL "st.global.v4.b32 [%rd51], {%r10, %r11, %r12, %r13};\nret;\n}\n"
typedef uint32_t lane_words[LANES][WORDS];
typedef void effect(lane_words in, uint32_t l, uint32_t out[WORDS]);

static void run_case(const char *body, const char *ops, effect *want, int small) {
  static lane_words in, out;
  for (int l = 0; l < LANES; l++)
    for (int k = 0; k < WORDS; k++)
      in[l][k] = small ? (uint32_t)(fidelity_random() % (uint64_t)small) : (uint32_t)fidelity_random();
  ny_text t = {0};
  ny_text_addf(&t, "%s%s%s", HEAD, body, TAIL);
  fidelity_buffer buffers[] = {{in, sizeof in}, {out, sizeof out}};
  char why[512] = "";
  fidelity_status s = fidelity_run(t.s, buffers, 2, 1, LANES, why);
  int bad = 0;
  for (uint32_t l = 0; s == RAN && l < LANES; l++) {
    uint32_t expected[WORDS] = {0};
    want(in, l, expected);
    for (int k = 0; k < WORDS; k++)
      if (out[l][k] != expected[k] && !bad++)
        fprintf(stderr, "%s: lane %u word %d is %x, not %x\n", ops, l, k, out[l][k], expected[k]);
  }
  fidelity_check(s != FAILED && !bad, "%s: %d words differ %s", ops, bad, why);
  char copy[400], *rest = copy;
  snprintf(copy, sizeof copy, "%s", ops);
  for (char *op; (op = strsep(&rest, " "));) covered(op);
  ny_text_free(&t);
}

/* ---- carries: 96-bit sums, differences and products */
static void carries(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  __extension__ typedef unsigned __int128 big;
  big a = (big)in[l][2] << 64 | (big)in[l][1] << 32 | in[l][0],
      b = (big)in[l][0] << 64 | (big)in[l][3] << 32 | in[l][2];
  big s = a + b, d = a - b;
  out[0] = (uint32_t)(s >> 32) ^ (uint32_t)s;
  out[1] = (uint32_t)(s >> 64);
  out[2] = (uint32_t)(d >> 32) ^ (uint32_t)d;
  out[3] = (uint32_t)(d >> 64);
}
static void carries64(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  __extension__ typedef unsigned __int128 big;
  big a = (big)((uint64_t)in[l][1] << 32 | in[l][0]) << 64 | ((uint64_t)in[l][3] << 32 | in[l][2]);
  big s = a + a, d = s - (((big)1 << 64) | in[l][0]);
  out[0] = (uint32_t)(s >> 64), out[1] = (uint32_t)(s >> 96), out[2] = (uint32_t)(d >> 64),
  out[3] = (uint32_t)(d >> 96);
}
static void products(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  uint64_t a =
      (uint64_t)in[l][1] << 32 | in[l][0]; /* a * in[2] + in[3], 96 bits, then the product of highs with carry */
  __extension__ typedef unsigned __int128 big;
  big r = (big)a * in[l][2] + in[l][3];
  out[0] = (uint32_t)r, out[1] = (uint32_t)(r >> 32), out[2] = (uint32_t)(r >> 64);
  uint64_t x = (uint64_t)in[l][0] * in[l][1], low = (uint32_t)x + (uint64_t)in[l][3];
  out[3] = (uint32_t)((x >> 32) + in[l][2] + (low >> 32)) ^ (uint32_t)low;
}

/* ---- branches */
static void loop(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  uint32_t n = in[l][0] % 50, odd = 0, even = 0;
  for (uint32_t i = 0; i < n; i++) *(i & 1 ? &odd : &even) += i * 3;
  out[0] = odd, out[1] = even;
}
static void table(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  static const uint32_t value[] = {11, 22, 33, 44};
  out[0] = value[in[l][0] & 3];
  out[1] = out[0] + 5; /* after the paths have met again */
}
static void called(lane_words in, uint32_t l, uint32_t out[WORDS]) { out[0] = 2 * in[l][0]; }
static void left_early(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  if (in[l][0] & 1) out[0] = 0xabcd;
}

/* ---- shuffles */
static uint32_t shuffled(const char *mode, lane_words in, uint32_t l, uint32_t b, uint32_t c, bool *inside) {
  uint32_t lane = l & 31, warp = l - lane, clamp = c & 31, seg = c >> 8 & 31, max = (lane & seg) | (clamp & ~seg & 31);
  uint32_t min = lane & seg, j;
  b &= 31;
  if (mode[0] == 'u')
    j = lane - b, *inside = (int32_t)j >= (int32_t)max;
  else if (mode[0] == 'd')
    j = lane + b, *inside = j <= max;
  else if (mode[0] == 'b')
    j = lane ^ b, *inside = j <= max;
  else
    j = min | (b & ~seg & 31), *inside = j <= max;
  return in[warp + (*inside ? j : lane)][0];
}
#define SHUFFLE(name, mode, c)                                                                                         \
  static void name(lane_words in, uint32_t l, uint32_t out[WORDS]) {                                                   \
    bool inside;                                                                                                       \
    out[0] = shuffled(mode, in, l, in[0][1] & 31, c, &inside);                                                         \
    out[1] = inside;                                                                                                   \
  }
SHUFFLE(shuffle_up, "up", 0x1800)
SHUFFLE(shuffle_down, "down", 0x1f)
SHUFFLE(shuffle_bfly, "bfly", 0x101f)
static void shuffle_idx(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  bool inside;
  out[0] = shuffled("idx", in, l, in[l][1], 0x181f, &inside);
  out[1] = inside;
}

/* ---- votes, matches, reductions over a warp of which every lane takes part */
static uint32_t ballot(lane_words in, uint32_t l) {
  uint32_t r = 0;
  for (uint32_t k = 0; k < 32; k++) r |= (uint32_t)(in[(l & ~31u) + k][0] != 0) << k;
  return r;
}
static void votes(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  uint32_t b = ballot(in, l);
  out[0] = b == 0xffffffff, out[1] = b != 0, out[2] = b == 0 || b == 0xffffffff, out[3] = b;
}
static void half_votes(lane_words in, uint32_t l, uint32_t out[WORDS]) { /* odd and even lanes apart */
  uint32_t mine = l & 1 ? 0xaaaaaaaa : 0x55555555;
  out[0] = ballot(in, l) & mine;
  out[1] = mine;
}
static void matches(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  uint32_t same = 0;
  for (uint32_t k = 0; k < 32; k++) same |= (uint32_t)(in[(l & ~31u) + k][0] == in[l][0]) << k;
  out[0] = same;
  out[1] = same == 0xffffffff ? same : 0;
  out[2] = same == 0xffffffff;
  out[3] = same; /* of 64 bits whose high half is the same */
}
static void reductions(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  uint32_t add = 0, min = UINT32_MAX, x = 0, w = l & ~31u;
  int32_t max = INT32_MIN;
  for (uint32_t k = w; k < w + 32; k++) {
    add += in[k][0], x ^= in[k][2];
    min = in[k][1] < min ? in[k][1] : min;
    max = (int32_t)in[k][1] > max ? (int32_t)in[k][1] : max;
  }
  out[0] = add, out[1] = min, out[2] = (uint32_t)max, out[3] = x;
}
static void float_reductions(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  float least = INFINITY, most = 0;
  for (uint32_t k = l & ~31u; k < (l & ~31u) + 32; k++) {
    float v = (float)(int32_t)in[k][0] - 500;
    least = fminf(least, v), most = fmaxf(most, fabsf(v));
  }
  memcpy(&out[0], &least, 4);
  memcpy(&out[1], &most, 4);
}
static void elected(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  (void)in;
  out[1] = l & 31, out[2] = 0xffffffff; /* somebody, and one only: who is not said */
}

/* ---- blocks */
static void reversed(lane_words in, uint32_t l, uint32_t out[WORDS]) { out[0] = in[LANES - 1 - l][0]; }
static void block_votes(lane_words in, uint32_t l, uint32_t out[WORDS]) {
  (void)l;
  uint32_t n = 0;
  for (int k = 0; k < LANES; k++) n += in[k][0] != 0;
  out[0] = n, out[1] = n == LANES, out[2] = n != 0;
}

#define PUT(p, r) "selp.b32 " r ", 1, 0, " p ";\n"
#define ALL ", 0xffffffff;\n"
static void test_together(void) {
  run_case("mov.b32 %r5, %r2;\nshfl.sync.idx.b32 %r5, %r2, 0, 31, -1;\nmov.b32 %r20, %r2;\nld.param.u64 %rd1, "
           "[in];\nld.global.b32 %r20, [%rd1+4];\n"
           "shfl.sync.up.b32 %r10|%p2, %r1, %r20, 0x1800" ALL PUT("%p2", "%r11"),
           "shfl.sync.up.b32", shuffle_up, 0);
  run_case(
      "ld.param.u64 %rd1, [in];\nld.global.b32 %r20, [%rd1+4];\nshfl.sync.down.b32 %r10|%p2, %r1, %r20, 0x1f" ALL PUT(
          "%p2", "%r11"),
      "shfl.sync.down.b32", shuffle_down, 0);
  run_case("ld.param.u64 %rd1, [in];\nld.global.b32 %r20, [%rd1+4];\nshfl.bfly.b32 %r10|%p2, %r1, %r20, 0x101f;\n" PUT(
               "%p2", "%r11"),
           "shfl.bfly.b32", shuffle_bfly, 0);
  run_case("shfl.sync.idx.b32 %r10|%p2, %r1, %r2, 0x181f" ALL PUT("%p2", "%r11"), "shfl.sync.idx.b32", shuffle_idx, 0);
  for (int small = 1; small < 4; small++) {
    run_case(
        "vote.sync.all.pred %p2, %p1" ALL PUT("%p2", "%r10") "vote.sync.any.pred %p2, %p1" ALL PUT(
            "%p2", "%r11") "vote.sync.uni.pred %p2, %p1" ALL PUT("%p2", "%r12") "vote.sync.ballot.b32 %r13, %p1" ALL,
        "vote.sync.all.pred vote.sync.ballot.b32", votes, small);
    run_case("vote.all.pred %p2, %p1;\n" PUT("%p2", "%r10") "vote.any.pred %p2, %p1;\n" PUT(
                 "%p2", "%r11") "vote.uni.pred %p2, %p1;\n" PUT("%p2", "%r12") "vote.ballot.b32 %r13, %p1;\n",
             "vote.all.pred vote.ballot.b32", votes, small);
    run_case("bar.red.popc.u32 %r10, 0, %p1;\nbar.red.and.pred %p2, 0, %p1;\n" PUT(
                 "%p2", "%r11") "barrier.red.or.pred %p2, 1, 96, %p1;\n" PUT("%p2", "%r12"),
             "bar.red.popc.u32 bar.red.and.pred barrier.red.or.pred", block_votes, small);
    run_case("barrier.red.popc.u32 %r10, 0, %p1;\nbarrier.red.and.pred %p2, 0, %p1;\n" PUT(
                 "%p2", "%r11") "bar.red.or.pred %p2, 1, 96, %p1;\n" PUT("%p2", "%r12"),
             "barrier.red.popc.u32", block_votes, small);
  }
  run_case(
      "and.b32 %r20, %r51, 1;\nsetp.eq.s32 %p3, %r20, 0;\n@%p3 bra EVEN;\nvote.sync.ballot.b32 %r10, %p1, 0xaaaaaaaa;\n"
      "activemask.b32 %r11;\nbra MEET;\nEVEN:\nvote.sync.ballot.b32 %r10, %p1, 0x55555555;\nactivemask.b32 "
      "%r11;\nMEET:\n"
      "bar.warp.sync 0xffffffff;\n",
      "activemask.b32 bar.warp.sync", half_votes, 2);
  for (int small = 1; small < 6; small += 2)
    run_case("match.any.sync.b32 %r10, %r1" ALL "match.all.sync.b32 %r11|%p2, %r1" ALL PUT(
                 "%p2", "%r12") "mov.b64 %rd1, {%r1, 7};\nmatch.any.sync.b64 %r13, %rd1" ALL,
             "match.any.sync.b32 match.all.sync.b32", matches, small);
  run_case("redux.sync.add.u32 %r10, %r1" ALL "redux.sync.min.u32 %r11, %r2" ALL "redux.sync.max.s32 %r12, %r2" ALL
           "redux.sync.xor.b32 %r13, %r3" ALL,
           "redux.sync.add.u32 redux.sync.max.s32 redux.sync.xor.b32", reductions, 0);
  run_case("cvt.rn.f32.s32 %r20, %r1;\nsub.f32 %r20, %r20, 0f43FA0000;\nredux.sync.min.f32 %r10, %r20" ALL
           "redux.sync.max.abs.f32 %r11, %r20" ALL,
           "redux.sync.min.f32", float_reductions, 1000);
  run_case("elect.sync %r20|%p2" ALL "vote.sync.ballot.b32 %r21, %p2" ALL
           "popc.b32 %r22, %r21;\nsub.s32 %r10, %r22, 1;\n"
           "shfl.sync.idx.b32 %r23, %r51, %r20, 31" ALL
           "sub.s32 %r24, %r23, %r20;\nadd.s32 %r11, %r24, %r51;\nactivemask.b32 %r12;\n",
           "elect.sync", elected, 0);
}
static void test_blocks(void) {
  static const char *const barriers[][2] = {{"bar.sync 0;\n", "bar.sync"},
                                            {"barrier.sync 3, 96;\n", "barrier.sync"},
                                            {"barrier.cta.sync.aligned 0;\n", "barrier.cta.sync.aligned"}};
  for (size_t i = 0; i < NY_COUNT(barriers); i++) {
    ny_text t = {0};
    ny_text_addf(
        &t,
        "mov.u32 %%r20, buf;\nshl.b32 %%r21, %%r50, 2;\nadd.s32 %%r21, %%r20, %%r21;\nst.shared.b32 [%%r21], %%r1;\n%s"
        "sub.s32 %%r22, 95, %%r50;\nshl.b32 %%r22, %%r22, 2;\nadd.s32 %%r22, %%r20, %%r22;\nld.shared.b32 %%r10, "
        "[%%r22];\n",
        barriers[i][0]);
    run_case(t.s, barriers[i][1], reversed, 0);
    ny_text_free(&t);
  }
  /* Warps 1 and 2 store and arrive, warp 0 waits for both and passes on; then everybody meets. */
  static const char *const arrive[] = {"bar.arrive", "barrier.arrive"};
  for (size_t i = 0; i < NY_COUNT(arrive); i++) {
    ny_text t = {0};
    ny_text_addf(
        &t,
        "mov.u32 %%r20, buf;\nshl.b32 %%r21, %%r50, 2;\nadd.s32 %%r21, %%r20, %%r21;\nst.shared.b32 [%%r21], %%r1;\n"
        "setp.lt.u32 %%p2, %%r50, 32;\n@%%p2 bra FIRST;\n%s 5, 96;\nbra MEET;\nFIRST:\nbar.sync 5, "
        "96;\nMEET:\nbar.sync 0;\n"
        "sub.s32 %%r22, 95, %%r50;\nshl.b32 %%r22, %%r22, 2;\nadd.s32 %%r22, %%r20, %%r22;\nld.shared.b32 %%r10, "
        "[%%r22];\n",
        arrive[i]);
    run_case(t.s, arrive[i], reversed, 0);
    ny_text_free(&t);
  }
}
static void test_flow(void) {
  run_case(
      "add.cc.u32 %r20, %r1, %r3;\naddc.cc.u32 %r21, %r2, %r4;\naddc.u32 %r11, %r3, %r1;\nxor.b32 %r10, %r20, %r21;\n"
      "sub.cc.u32 %r20, %r1, %r3;\nsubc.cc.u32 %r21, %r2, %r4;\nsubc.u32 %r13, %r3, %r1;\nxor.b32 %r12, %r20, %r21;\n",
      "add.cc.u32 addc.u32 sub.cc.u32 subc.u32", carries, 0);
  run_case(
      "mov.b64 %rd1, {%r1, %r2};\nmov.b64 %rd2, {%r3, %r4};\nadd.cc.u64 %rd3, %rd2, %rd2;\naddc.u64 %rd4, %rd1, %rd1;\n"
      "mov.b64 {%r10, %r11}, %rd4;\ncvt.u64.u32 %rd5, %r1;\nsub.cc.u64 %rd6, %rd3, %rd5;\nsubc.u64 %rd7, %rd4, "
      "1;\nmov.b64 {%r12, %r13}, %rd7;\n",
      "addc.u64 subc.u64", carries64, 0);
  run_case("mad.lo.cc.u32 %r10, %r1, %r3, %r4;\nmadc.hi.cc.u32 %r20, %r1, %r3, 0;\naddc.u32 %r21, 0, 0;\n"
           "mad.lo.cc.u32 %r11, %r2, %r3, %r20;\nmadc.hi.u32 %r12, %r2, %r3, %r21;\n"
           "mad.lo.cc.u32 %r22, %r1, %r2, %r4;\nmadc.hi.u32 %r23, %r1, %r2, %r3;\nxor.b32 %r13, %r22, %r23;\n",
           "madc.hi.u32", products, 0);
  run_case("mov.u32 %r20, 0;\nmadc.lo.u32 %r21, 0, 0, 0;\nmul.lo.u32 %r20, %r1, 2;\nadd.cc.u32 %r22, -1, "
           "1;\nmadc.lo.u32 %r10, %r1, 2, -1;\n",
           "madc.lo.u32", called, 0);
  run_case("rem.u32 %r20, %r1, 50;\nmov.u32 %r21, 0;\nTOP:\nsetp.ge.u32 %p2, %r21, %r20;\n@%p2 bra END;\nmul.lo.u32 "
           "%r22, %r21, 3;\n"
           "and.b32 %r23, %r21, 1;\nsetp.eq.u32 %p3, %r23, 0;\n@%p3 bra EVEN;\nadd.u32 %r10, %r10, %r22;\nbra.uni "
           "NEXT;\nEVEN:\n"
           "add.u32 %r11, %r11, %r22;\nNEXT:\nadd.u32 %r21, %r21, 1;\nbra TOP;\nEND:\n",
           "bra.uni", loop, 0);
  run_case("and.b32 %r20, %r1, 3;\nTARGETS: .branchtargets C0, C1, C2, C3;\nbrx.idx %r20, TARGETS;\nC0:\nmov.u32 %r10, "
           "11;\nbra MEET;\nC1:\nmov.u32 %r10, 22;\nbra MEET;\n"
           "C2:\nmov.u32 %r10, 33;\nbra MEET;\nC3:\nmov.u32 %r10, 44;\nMEET:\nadd.u32 %r11, %r10, 5;\n",
           "brx.idx", table, 0);
  run_case("{\n.param .b32 a;\nst.param.b32 [a], %r1;\n.param .b32 b;\ncall.uni (b), twice, (a);\nld.param.b32 %r10, "
           "[b];\n}\n",
           "ret", called, 0);
  run_case("and.b32 %r20, %r1, 1;\nsetp.eq.u32 %p2, %r20, 1;\nst.global.v4.b32 [%rd51], {%r10, %r10, %r10, "
           "%r10};\n@!%p2 exit;\nmov.u32 %r10, 0xabcd;\n",
           "exit", left_early, 0);
}
/* What stops a kernel must be told. A device would be lost with it. */
static void test_traps(void) {
  if (!fidelity_simulated) return;
  static const char *const ops[] = {"trap", "brkpt"};
  for (size_t i = 0; i < NY_COUNT(ops); i++) {
    static lane_words in, out;
    ny_text t = {0};
    ny_text_addf(&t, "%s%s;\n%s", HEAD, ops[i], TAIL);
    fidelity_buffer buffers[] = {{in, sizeof in}, {out, sizeof out}};
    char why[512] = "";
    fidelity_check(fidelity_run(t.s, buffers, 2, 1, LANES, why) == FAILED, "%s: went on", ops[i]);
    covered(ops[i]);
    ny_text_free(&t);
  }
}
void test_warp(void) {
  test_flow();
  test_together();
  test_blocks();
  test_traps();
}
