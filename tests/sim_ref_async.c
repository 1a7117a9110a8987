/* Asynchronous copies and mbarriers: kernels whose result depends on every wait, with copies that land at once and with
   copies that land as late as they may; and the same kernels without a wait, which must be found out. */
#include <stdio.h>
#include <string.h>

#include "sim.h"
#include "sim_fidelity.h"

#define HEAD                                                                                                           \
  ".version 8.7\n.target sm_120a\n.address_size 64\n"                                                                  \
  ".visible .entry k(.param .u64 in, .param .u64 out)\n{\n.reg .b32 %r<60>;\n.reg .b64 %rd<60>;\n.reg .pred %p<10>;\n" \
  ".shared .align 128 .b8 buf[16384];\n.shared .align 8 .b64 bar[4];\nld.param.u64 %rd50, [in];\n"                     \
  "ld.param.u64 %rd51, [out];\nmov.u32 %r50, %tid.x;\nmul.wide.u32 %rd52, %r50, 16;\nadd.s64 %rd0, %rd50, %rd52;\n"    \
  "add.s64 %rd1, %rd51, %rd52;\nmov.u32 %r51, buf;\nshl.b32 %r52, %r50, 4;\nadd.s32 %r53, %r51, %r52;\n"               \
  "mov.u32 %r54, bar;\n"
/* The other end of the block's data: what another thread copied. */
#define OUT                                                                                                            \
  "xor.b32 %r55, %r52, 2032;\nadd.s32 %r56, %r51, %r55;\nld.shared.v4.b32 {%r40, %r41, %r42, %r43}, [%r56];\n"         \
  "st.global.v4.b32 [%rd1], {%r40, %r41, %r42, %r43};\nret;\n}\n"
#define CLEAR "st.shared.v4.b32 [%r53], {0, 0, 0, 0};\nbar.sync 0;\n"
enum { THREADS = 128, BYTES = THREADS * 16 };

static void set_late(bool late) {
  if (fidelity_simulated) ((ny_sim_options *)fidelity_device.self)->late_copies = late;
}
typedef enum outcome { RIGHT, WRONG, FOUND } outcome; /* WRONG: other bytes, FOUND: a finding */
/* in, reversed by 16 bytes, is what comes out; `have`: bytes of each 16 that are copied, the others are 0. */
static outcome run(const char *text, int have, char *why) {
  static _Alignas(256) uint8_t in[BYTES], out[BYTES];
  for (int i = 0; i < BYTES; i++) in[i] = (uint8_t)(fidelity_random() | 1);
  memset(out, 0xee, sizeof out);
  fidelity_buffer buffers[] = {{in, sizeof in}, {out, sizeof out}};
  fidelity_status s = fidelity_run(text, buffers, 2, 1, THREADS, why);
  if (s != RAN) return s == REFUSED ? RIGHT : FOUND;
  for (int i = 0; i < BYTES; i++) {
    int from = (THREADS - 1 - i / 16) * 16 + i % 16;
    if (out[i] != (i % 16 < have ? in[from] : 0)) return WRONG;
  }
  return RIGHT;
}
static void expect(const char *name, const char *body, int have) {
  ny_text t = {0};
  ny_text_addf(&t, "%s%s", HEAD, body);
  for (int late = 0; late < 2; late++) {
    char why[512] = "";
    set_late(late);
    outcome o = run(t.s, have, why);
    fidelity_check(o == RIGHT, "%s, copies land %s: %s%s", name, late ? "late" : "early",
                   o == WRONG ? "wrong bytes" : "", why);
  }
  set_late(false);
  ny_text_free(&t);
}
/* A kernel that forgot something: wrong bytes when copies land late, and a finding in both. */
static void expect_found(const char *name, const char *body) {
  if (!fidelity_simulated) return;
  ny_text t = {0};
  ny_text_addf(&t, "%s%s", HEAD, body);
  ny_sim_options *options = fidelity_device.self;
  for (int late = 0; late < 2; late++) {
    char why[512] = "";
    set_late(late);
    fidelity_check(run(t.s, 16, why) == FOUND, "%s, copies land %s: nothing was found", name, late ? "late" : "early");
  }
  uint32_t checks = options->checks;
  options->checks = 0;
  char why[512] = "";
  fidelity_check(run(t.s, 16, why) != RIGHT, "%s, copies land late: the bytes are right all the same", name);
  options->checks = checks;
  set_late(false);
  ny_text_free(&t);
}

static void test_groups(void) {
  static const char *const hints[] = {"", ".L2::64B", ".L2::128B", ".L2::256B"};
  ny_text t = {0};
  for (int h = 0; h < 4; h++) {
    t.n = 0;
    ny_text_addf(&t, "%scp.async.cg.shared.global%s [%%r53], [%%rd0], 16;\ncp.async.commit_group;\n", CLEAR, hints[h]);
    ny_text_add(&t, "cp.async.wait_group 0;\nbar.sync 0;\n" OUT);
    expect("cp.async.cg", t.s, 16);
  }
  for (int size = 4; size <= 16; size *= 2) {
    t.n = 0;
    ny_text_add(&t, CLEAR);
    for (int at = 0; at < 16; at += size)
      ny_text_addf(&t, "cp.async.ca.shared::cta.global [%%r53+%d], [%%rd0+%d], %d;\n", at, at, size);
    ny_text_add(&t, "cp.async.wait_all;\nbar.sync 0;\n" OUT);
    expect("cp.async.ca", t.s, 16);
  }
  for (int have = 0; have <= 16; have += 4) { /* what the source does not have is zero */
    t.n = 0;
    ny_text_addf(&t, "mov.u32 %%r1, %d;\ncp.async.cg.shared.global [%%r53], [%%rd0], 16, %%r1;\n", have);
    ny_text_add(&t, "cp.async.wait_all;\nbar.sync 0;\n" OUT);
    expect("cp.async with a source size", t.s, have);
  }
  ny_text_free(&t);
  expect("cp.async that ignores its source",
         "setp.eq.s32 %p1, %r50, %r50;\ncp.async.cg.shared.global [%r53], [%rd0], 16, "
         "%p1;\ncp.async.wait_all;\nbar.sync 0;\n" OUT,
         0);
  expect("cp.async with a policy",
         "createpolicy.fractional.L2::evict_last.b64 %rd5, 1.0;\n"
         "cp.async.cg.shared.global.L2::cache_hint [%r53], [%rd0], 16, %rd5;\ncp.async.wait_all;\nbar.sync 0;\n" OUT,
         16);
  /* Two groups: the older one holds the bytes, the younger one overwrites other memory. */
  expect("cp.async.wait_group 1",
         "cp.async.cg.shared.global [%r53], [%rd0], 16;\ncp.async.commit_group;\n"
         "cp.async.cg.shared.global [%r53+4096], [%rd0], 16;\ncp.async.commit_group;\n"
         "cp.async.wait_group 1;\nbar.sync 0;\n" OUT,
         16);
  expect_found("no wait",
               CLEAR "cp.async.cg.shared.global [%r53], [%rd0], 16;\ncp.async.commit_group;\nbar.sync 0;\n" OUT);
  expect_found("a wait for the wrong group",
               CLEAR "cp.async.cg.shared.global [%r53], [%rd0], 16;\ncp.async.commit_group;\ncp.async.wait_group "
                     "1;\nbar.sync 0;\n" OUT);
  expect_found("a wait without a commit",
               CLEAR "cp.async.cg.shared.global [%r53], [%rd0], 16;\ncp.async.wait_group 0;\nbar.sync 0;\n" OUT);
  static const char *const ran[] = {"cp.async.cg.shared.global", "cp.async.cg.shared.global.L2::cache_hint",
                                    "cp.async.commit_group",     "cp.async.wait_group",
                                    "cp.async.wait_all",         "createpolicy.fractional.L2::evict_last.b64"};
  for (size_t i = 0; i < NY_COUNT(ran); i++) covered(ran[i]);
}

#define INIT(count)                                                                                                    \
  "setp.ne.s32 %p1, %r50, 0;\n@%p1 bra READY;\nmbarrier.init.shared.b64 [%r54], " count ";\n"                          \
  "fence.mbarrier_init.release.cluster;\nREADY:\nbar.sync 0;\n"
#define WAIT_PARITY "WAIT:\nmbarrier.try_wait.parity.shared.b64 %p2, [%r54], 0;\n@%p2 bra DONE;\nbra WAIT;\nDONE:\n"
static void test_barriers(void) {
  expect("mbarrier of ordinary stores",
         INIT("128") "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd0];\nst.shared.v4.b32 [%r53], {%r1, %r2, %r3, %r4};\n"
                     "mbarrier.arrive.shared.b64 %rd5, [%r54];\n"
                     "WAIT:\nmbarrier.test_wait.shared.b64 %p2, [%r54], %rd5;\n@%p2 bra DONE;\nbra WAIT;\nDONE:\n" OUT,
         16);
  expect(
      "mbarrier in generic addresses, try_wait with a time",
      INIT("256") "cvt.u64.u32 %rd6, %r54;\ncvta.shared.u64 %rd7, %rd6;\nld.global.v4.b32 {%r1, %r2, %r3, %r4}, "
                  "[%rd0];\n"
                  "st.shared.v4.b32 [%r53], {%r1, %r2, %r3, %r4};\nmbarrier.arrive.release.cta.b64 %rd5, [%rd7], 2;\n"
                  "WAIT:\nmbarrier.try_wait.acquire.cta.b64 %p2, [%rd7], %rd5, 1000;\n@%p2 bra DONE;\nbra "
                  "WAIT;\nDONE:\n" OUT,
      16);
  expect(
      "mbarrier of cp.async",
      INIT("128") CLEAR
      "cp.async.cg.shared.global [%r53], [%rd0], 16;\ncp.async.mbarrier.arrive.noinc.shared.b64 [%r54];\n" WAIT_PARITY
          OUT,
      16);
  expect("mbarrier of cp.async that counts itself",
         INIT("128") CLEAR
         "cp.async.cg.shared.global [%r53], [%rd0], 16;\ncp.async.mbarrier.arrive.shared.b64 [%r54];\n"
         "mbarrier.arrive.shared.b64 %rd5, [%r54];\n" WAIT_PARITY OUT,
         16);
}
static void test_bulk(void) {
  expect(
      "bulk copy in",
      INIT("1") CLEAR
      "@%p1 bra WAIT;\nmbarrier.arrive.expect_tx.shared.b64 %rd5, [%r54], 2048;\n"
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r51], [%rd50], 2048, [%r54];\n" WAIT_PARITY
          OUT,
      16);
  expect("bulk copies with expect_tx of their own",
         INIT("1") CLEAR
         "@%p1 bra WAIT;\nmbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r54], 1024;\n"
         "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r54], 1024;\n"
         "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r51], [%rd50], 1024, [%r54];\n"
         "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r51+1024], [%rd50+1024], 1024, [%r54];\n"
         "mbarrier.arrive.shared.b64 %rd5, [%r54];\n" WAIT_PARITY OUT,
         16);
  expect("complete_tx by hand",
         INIT("1") CLEAR
         "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd0];\nst.shared.v4.b32 [%r53], {%r1, %r2, %r3, %r4};\nbar.sync 0;\n"
         "@%p1 bra WAIT;\nmbarrier.arrive.expect_tx.shared.b64 _, [%r54], 16;\n"
         "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r54], 16;\n" WAIT_PARITY OUT,
         16);
  expect("bulk copy out",
         "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd0];\nxor.b32 %r55, %r52, 2032;\nadd.s32 %r56, %r51, %r55;\n"
         "st.shared.v4.b32 [%r56], {%r1, %r2, %r3, %r4};\nfence.proxy.async.shared::cta;\nbar.sync 0;\nsetp.ne.s32 "
         "%p1, %r50, 0;\n@%p1 bra DONE;\n"
         "cp.async.bulk.prefetch.L2.global [%rd51], 2048;\ncp.async.bulk.global.shared::cta.bulk_group [%rd51], "
         "[%r51], 2048;\n"
         "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;\ncp.async.bulk.wait_group 0;\nDONE:\nret;\n}\n",
         16);
}
static void test_phases(void) {
  /* Two phases, the second with half of the arrivals because every thread but 64 dropped out. */
  expect("arrive_drop",
         INIT("128") "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd0];\nst.shared.v4.b32 [%r53], {%r1, %r2, %r3, %r4};\n"
                     "setp.ge.s32 %p3, %r50, 64;\n@%p3 bra DROP;\nmbarrier.arrive.shared.b64 %rd5, [%r54];\nbra WAIT;\n"
                     "DROP:\nmbarrier.arrive_drop.shared.b64 %rd5, [%r54];\n" WAIT_PARITY
                     "@%p3 bra WAIT2;\nmbarrier.arrive.shared.b64 %rd5, [%r54];\n"
                     "WAIT2:\nmbarrier.test_wait.parity.shared.b64 %p2, [%r54], 1;\n@%p2 bra DONE2;\nbra "
                     "WAIT2;\nDONE2:\n" OUT,
         16);
  expect_found("bulk copy that nobody waits for",
               INIT("1") CLEAR "@%p1 bra GO;\nmbarrier.arrive.expect_tx.shared.b64 %rd5, [%r54], 2048;\n"
                               "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r51], [%rd50], "
                               "2048, [%r54];\nGO:\nbar.sync 0;\n" OUT);
  expect_found("a wait for the phase before", INIT("1") CLEAR
               "@%p1 bra GO;\nmbarrier.arrive.expect_tx.shared.b64 %rd5, [%r54], 2048;\n"
               "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r51], [%rd50], 2048, [%r54];\nGO:\n"
               "WAIT:\nmbarrier.try_wait.parity.shared.b64 %p2, [%r54], 1;\n@!%p2 bra WAIT;\n" OUT);
  expect_found("no mbarrier", CLEAR WAIT_PARITY OUT);
  expect_found(
      "more bytes expected than come", INIT("1") CLEAR
      "@%p1 bra WAIT;\nmbarrier.arrive.expect_tx.shared.b64 %rd5, [%r54], 2064;\n"
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r51], [%rd50], 2048, [%r54];\n" WAIT_PARITY
          OUT);
  static const char *const ran[] = {"mbarrier.init.shared.b64",
                                    "mbarrier.arrive.shared.b64",
                                    "mbarrier.test_wait.shared.b64",
                                    "mbarrier.try_wait.acquire.cta.b64",
                                    "mbarrier.try_wait.parity.shared.b64",
                                    "mbarrier.test_wait.parity.shared.b64",
                                    "mbarrier.arrive_drop.shared.b64",
                                    "mbarrier.expect_tx.relaxed.cta.shared::cta.b64",
                                    "mbarrier.complete_tx.relaxed.cta.shared::cta.b64",
                                    "cp.async.mbarrier.arrive.noinc.shared.b64",
                                    "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes",
                                    "cp.async.bulk.global.shared::cta.bulk_group",
                                    "cp.async.bulk.commit_group",
                                    "cp.async.bulk.wait_group.read",
                                    "cp.async.bulk.prefetch.L2.global",
                                    "fence.mbarrier_init.release.cluster",
                                    "fence.proxy.async.shared::cta"};
  for (size_t i = 0; i < NY_COUNT(ran); i++) covered(ran[i]);
}

/* The count that a state holds, and memory used again after mbarrier.inval. */
static void test_state(void) {
  static const char text[] =
      HEAD "setp.ne.s32 %p1, %r50, 0;\n@%p1 bra END;\nmbarrier.init.shared.b64 [%r54], 7;\n"
           "mbarrier.arrive.noComplete.release.cta.shared::cta.b64 %rd5, [%r54], 2;\nmbarrier.arrive.shared.b64 %rd6, "
           "[%r54];\n"
           "mbarrier.pending_count.b64 %r1, %rd5;\nmbarrier.pending_count.b64 %r2, %rd6;\nmbarrier.inval.shared.b64 "
           "[%r54];\n"
           "mbarrier.init.shared.b64 [%r54], 3;\nmbarrier.arrive.shared.b64 %rd7, [%r54];\nmbarrier.pending_count.b64 "
           "%r3, %rd7;\n"
           "st.global.b32 [%rd51], %r1;\nst.global.b32 [%rd51+4], %r2;\nst.global.b32 [%rd51+8], %r3;\nEND:\nret;\n}\n";
  uint32_t in[16] = {0}, out[16] = {0};
  fidelity_buffer buffers[] = {{in, sizeof in}, {out, sizeof out}};
  char why[512] = "";
  fidelity_status s = fidelity_run(text, buffers, 2, 1, 32, why);
  fidelity_check(s == REFUSED || (s == RAN && out[0] == 7 && out[1] == 5 && out[2] == 3),
                 "mbarrier.pending_count: %u %u %u %s", out[0], out[1], out[2], why);
  covered("mbarrier.pending_count.b64");
  covered("mbarrier.inval.shared.b64");
}

void test_async(void) {
  test_groups();
  test_barriers();
  test_bulk();
  test_phases();
  test_state();
}
