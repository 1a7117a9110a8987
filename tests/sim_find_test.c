/* What the simulator's checks find: a planted bug of every kind, named with its lines and threads, and correct kernels
   that synchronise in every way it knows, without a finding under every order of warps. */
#include "sim_fixture.h"

static _Alignas(4096) uint32_t x[4096];
static const char *const head =
    ".visible .entry k(.param .u64 x)\n{\n  .reg .b32 %r<20>; .reg .b64 %rd<10>; .reg .pred %p<8>; .reg .b16 %h<4>;\n"
    "  ld.param.u64 %rd9, [x]; mov.u32 %r19, %tid.x; mad.wide.u32 %rd8, %r19, 4, %rd9; mov.u32 %r18, dyn;\n"
    "  mad.lo.u32 %r17, %r19, 4, %r18; xor.b32 %r16, %r17, 4; mov.u32 %r15, %ctaid.x; and.b32 %r14, %r19, 31;\n";
enum { BODY_LINE = 10 }; /* of the PTX: four lines of PTX_HEAD, five of head, then the body */

static ny_sim_options checks_of(int run, uint32_t checks) {
  return (ny_sim_options){.order = (ny_sim_order)(run % 3),
                          .seed = (uint64_t)run,
                          .checks = checks,
                          .late_copies = run & 1,
                          .max_warp_ins = 2000000};
}

static bool load_body(ny_run *t, const char *body) {
  ny_text s = {0};
  ny_text_addf(&s, "%s%s\n ret;\n}\n", head, body);
  bool ok = load(t, s.s);
  CHECK_EACH(ok, "line %d: %s", t->d.line, t->d.message);
  ny_text_free(&s);
  if (ok) map(t, x, sizeof x, "x");
  return ok;
}

/* Each body has a bug of that kind at a line (0: the first of the body), with the other side at `other` (-1: none). */
static const struct ny_bug {
  const char *what;
  ny_sim_finding_kind kind;
  uint32_t blocks, threads;
  int line, other;
  const char *body;
} bugs[] = {
    {"no barrier between a write and a read", NY_FIND_race, 1, 64, 1, 0,
     "st.shared.u32 [%r17], %r19;\nld.shared.u32 %r0, [%r16];\n"},
    {"a shuffle is no barrier", NY_FIND_race, 1, 64, 1, 0,
     "st.shared.u32 [%r17], %r19;\nshfl.sync.bfly.b32 %r1, %r19, 1, 31, -1; ld.shared.u32 %r0, [%r16];\n"},
    {"no barrier between warps", NY_FIND_race, 1, 64, 2, 0,
     "st.shared.u32 [%r17], %r19;\nbar.warp.sync -1; xor.b32 %r1, %r17, 128;\nld.shared.u32 %r0, [%r1];\n"},
    {"two threads write one word", NY_FIND_race, 1, 64, 1, 0,
     "setp.eq.u32 %p0, %r14, 3; @%p0 st.shared.u32 [%r18], %r19;\n"
     "@!%p0 st.shared.u32 [%r18], 1;\n"},
    {"lanes store different values to one place", NY_FIND_race, 1, 32, 0, 0,
     "shr.u32 %r1, %r19, 1; mad.wide.u32 %rd0, %r1, 4, %rd9; st.global.u32 [%rd0], %r19;\n"},
    {"a read before a write without a barrier", NY_FIND_race, 1, 64, 2, 1,
     "st.shared.u32 [%r17], %r19; bar.sync 0;\nld.shared.u32 %r0, [%r16];\nst.shared.u32 [%r17], 5;\n"},
    {"half of a warp synchronises", NY_FIND_race, 1, 32, 3, 0,
     "st.shared.u32 [%r17], %r19;\nsetp.lt.u32 %p0, %r19, 16; @!%p0 bra L;\nbar.warp.sync 0xffff;\nL: ld.shared.u32 "
     "%r0, [%r16];\n"},
    {"an atomic and a plain write", NY_FIND_race, 1, 64, 1, 0,
     "setp.lt.u32 %p0, %r19, 32; @%p0 atom.shared.add.u32 %r0, [%r18], 1;\n@!%p0 st.shared.u32 [%r18], 2;\n"},
    {"a named barrier that counts too few", NY_FIND_race, 1, 128, 2, 0,
     "st.shared.u32 [%r17], %r19;\nshr.u32 %r1, %r19, 6; add.u32 %r1, %r1, 1; bar.sync %r1, 64;\n"
     "xor.b32 %r2, %r17, 256; ld.shared.u32 %r0, [%r2];\n"},
    {"a copy that is not waited for", NY_FIND_race, 1, 32, 2, 0,
     "cp.async.ca.shared.global [%r17], [%rd8], 4; cp.async.commit_group;\nbar.warp.sync -1;\nld.shared.u32 %r0, "
     "[%r17];\n"},
    {"a copy waited for without a barrier", NY_FIND_race, 1, 64, 2, -2,
     "cp.async.ca.shared.global [%r17], [%rd8], 4;\ncp.async.wait_all;\nld.shared.u32 %r0, [%r16];\n"},
    {"global memory without a barrier", NY_FIND_race, 1, 64, 1, 0,
     "st.global.u32 [%rd8], %r19; xor.b64 %rd0, %rd8, 128;\nld.global.u32 %r0, [%rd0];\n"},
    {"shared memory that nobody wrote", NY_FIND_uninit, 1, 32, 0, -1, "ld.shared.u32 %r0, [%r17];\n"},
    {"a tile of the block before", NY_FIND_uninit, 2, 32, 1, -1,
     "setp.eq.u32 %p0, %r15, 0; @%p0 st.shared.u32 [%r17], 1;\nld.shared.u32 %r0, [%r17];\n"},
    {"one past the end of a buffer", NY_FIND_bounds, 1, 32, 0, -1, "st.global.u32 [%rd8+16260], %r19;\n"},
    {"before a buffer", NY_FIND_bounds, 1, 32, 0, -1, "ld.global.u32 %r0, [%rd9+-4];\n"},
    {"past the shared memory", NY_FIND_bounds, 1, 32, 0, -1, "st.shared.v4.u32 [%r18+2048], {%r0, %r0, %r0, %r0};\n"},
    {"a wild pointer", NY_FIND_bounds, 1, 32, 0, -1, "mov.b64 %rd0, 8; ld.u32 %r0, [%rd0];\n"},
    {"a vector at an odd address", NY_FIND_misaligned, 1, 32, 0, -1, "ld.global.v2.u32 {%r0, %r1}, [%rd8];\n"},
    {"a misaligned shared store", NY_FIND_misaligned, 1, 32, 0, -1, "st.shared.u32 [%r17+2], 1;\n"},
    {"a barrier that half of a warp meets", NY_FIND_divergent, 1, 32, 1, 2,
     "setp.lt.u32 %p0, %r19, 16; @!%p0 bra L;\nbar.sync 0; bra E;\nL: bar.sync 0;\nE:\n"},
    {"a collective with lanes elsewhere", NY_FIND_divergent, 1, 32, -2, -1,
     "setp.lt.u32 %p0, %r19, 16; @!%p0 bra L;\nredux.sync.add.u32 %r0, %r19, -1; bra E;\nL: redux.sync.or.b32 %r0, "
     "%r19, -1;\nE:\n"},
    {"a barrier that one warp never meets", NY_FIND_deadlock, 1, 64, 1, -1,
     "setp.lt.u32 %p0, %r19, 32;\n@%p0 bar.sync 1, 96;\n"},
    {"two blocks write the same bytes", NY_FIND_cross, 2, 32, 0, 0, "st.global.u32 [%rd8], %r15;\n"},
    {"a block reads what another writes", NY_FIND_cross, 2, 32, 1, 0,
     "setp.eq.u32 %p0, %r15, 0; @%p0 st.global.u32 [%rd8], 1;\n@!%p0 ld.global.u32 %r0, [%rd8];\n"},
    {"a block writes what another has read", NY_FIND_cross, 2, 32, 1, 0,
     "setp.eq.u32 %p0, %r15, 0; @%p0 ld.global.u32 %r0, [%rd8];\n@!%p0 st.global.u32 [%rd8], 1;\n"},
    {"an atomic of one block, a plain write of another", NY_FIND_cross, 2, 32, 1, 0,
     "setp.eq.u32 %p0, %r15, 0; @%p0 red.global.add.u32 [%rd8], 1;\n@!%p0 st.global.u32 [%rd8], 1;\n"},
    {"a trap", NY_FIND_trap, 1, 32, 1, -1, "setp.eq.u32 %p0, %r19, 7;\n@%p0 trap;\n"},
    {"a loop without end", NY_FIND_limit, 1, 32, -2, -1, "L: bra L;\n"},
    {"a barrier that does not exist", NY_FIND_invalid, 1, 32, 0, -1, "mov.u32 %r0, 16; bar.sync %r0;\n"},
    {"a jump outside of its table", NY_FIND_invalid, 1, 32, 0, -1, "brx.idx %r19, T; T: .branchtargets A, B; A: B:\n"},
    {"a thread that is not in its own mask", NY_FIND_invalid, 1, 32, 0, -1,
     "redux.sync.add.u32 %r0, %r19, 0x7fffffff;\n"},
};

static void test_bug(const struct ny_bug *b) {
  ny_run t;
  if (load_body(&t, b->body)) {
    for (int run = 0; run < 6; run++) {
      uint64_t p = (uint64_t)(uintptr_t)x;
      launch(&t, b->blocks, b->threads, 2048, &p, checks_of(run, NY_SIM_ALL));
      const ny_sim_finding *f = found(&t, b->kind);
      CHECK(f && t.status == NYB_E_DEVICE, "%s, run %d: not found (%s)", b->what, run, t.d.message);
      if (!f) continue;
      /* Which of two sides is met first depends on the order. */
      bool one = b->line < -1 || f->at.ptx_line == BODY_LINE + b->line;
      bool other = b->other < 0 || f->other.ptx_line == BODY_LINE + b->other;
      bool swapped =
          b->other >= 0 && f->at.ptx_line == BODY_LINE + b->other && f->other.ptx_line == BODY_LINE + b->line;
      CHECK((one && other) || swapped, "%s, run %d: lines %d and %d: %s", b->what, run, f->at.ptx_line,
            f->other.ptx_line, f->text);
      CHECK(b->other == -1 || f->other.known, "%s: the other side is not known", b->what);
      CHECK(t.r.n_findings < 5, "%s, run %d: %u findings", b->what, run, t.r.n_findings);
    }
  }
  done(&t);
}

/* Correct kernels: nothing is found, under all checks and orders. */
static const struct ny_clean {
  const char *what;
  uint32_t blocks, threads;
  const char *body;
} clean[] = {
    {"barriers between phases", 3, 256,
     "mov.u32 %r5, 0;\nL: st.shared.u32 [%r17], %r5; bar.sync 0; xor.b32 %r1, %r17, 512; ld.shared.u32 %r0, [%r1];\n"
     "bar.sync 0; add.u32 %r5, %r5, 1; setp.lt.u32 %p0, %r5, 6; @%p0 bra L;\n"},
    {"warp barriers", 2, 64,
     "st.shared.u32 [%r17], %r19; bar.warp.sync -1; ld.shared.u32 %r0, [%r16]; bar.warp.sync -1;\n"
     "st.shared.u32 [%r17], %r0;\n"},
    {"halves of a warp by themselves", 1, 32,
     "st.shared.u32 [%r17], %r19; and.b32 %r1, %r19, 16; setp.ne.u32 %p0, %r1, 0; selp.b32 %r2, 0xffff0000, 0xffff, "
     "%p0;\n"
     "bar.warp.sync %r2; ld.shared.u32 %r0, [%r16];\n"},
    {"the same word read by all", 2, 128,
     "setp.eq.u32 %p0, %r19, 5; @%p0 st.shared.u32 [%r18], 3; bar.sync 0;\n"
     "ld.shared.u32 %r0, [%r18]; bar.sync 0; st.shared.u32 [%r17], %r0;\n"},
    {"shared atomics", 1, 128,
     "setp.eq.u32 %p0, %r19, 0; @%p0 st.shared.u32 [%r18], 0; bar.sync 0;\n"
     "atom.shared.add.u32 %r0, [%r18], 1; bar.sync 0; ld.shared.u32 %r1, [%r18];\n"},
    {"named barriers", 1, 128,
     "shr.u32 %r1, %r19, 6; add.u32 %r1, %r1, 1; st.shared.u32 [%r17], %r19; bar.sync %r1, 64;\n"
     "xor.b32 %r2, %r17, 128; ld.shared.u32 %r0, [%r2]; bar.sync 0; xor.b32 %r2, %r17, 256; ld.shared.u32 %r0, "
     "[%r2];\n"},
    {"producers and consumers", 1, 64,
     "setp.ge.u32 %p0, %r19, 32; mov.u32 %r5, 0; mad.lo.u32 %r6, %r14, 4, %r18; xor.b32 %r7, %r6, 64;\n"
     "L: @%p0 bra C; st.shared.u32 [%r6], %r5; bar.arrive 1, 64; bar.sync 2, 64; bra N;\n"
     "C: bar.sync 1, 64; ld.shared.u32 %r0, [%r7]; bar.arrive 2, 64;\n"
     "N: add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 5; @%p1 bra L;\n"},
    {"copies waited for", 2, 64,
     "cp.async.ca.shared.global [%r17], [%rd8], 4; cp.async.commit_group; cp.async.wait_group 0; bar.sync 0;\n"
     "xor.b32 %r1, %r17, 128; ld.shared.u32 %r0, [%r1];\n"},
    {"a thread reads its own copy", 1, 64,
     "cp.async.ca.shared.global [%r17], [%rd8], 4; cp.async.wait_all; ld.shared.u32 %r0, [%r17];\n"},
    {"global memory with a barrier", 1, 128,
     "st.global.u32 [%rd8], %r19; bar.sync 0; xor.b64 %rd0, %rd8, 256; ld.global.u32 %r0, [%rd0]; bar.sync 0;\n"
     "st.global.u32 [%rd0], %r0;\n"},
    {"blocks on their own parts", 4, 64,
     "mad.wide.u32 %rd0, %r15, 256, %rd8; ld.global.u32 %r0, [%rd0]; st.global.u32 [%rd0], %r0;\n"},
    {"atomics of all blocks", 4, 64, "red.global.add.u32 [%rd9], 1; atom.global.max.u32 %r0, [%rd9+4], %r19;\n"},
    {"the last block adds up", 4, 64,
     "mad.wide.u32 %rd0, %r15, 256, %rd8; st.global.u32 [%rd0+1024], %r19; membar.gl; bar.sync 0; setp.ne.u32 %p0, "
     "%r19, 0;\n"
     "@%p0 bra W; atom.global.inc.u32 %r1, [%rd9], 3; st.shared.u32 [%r18], %r1;\nW: bar.sync 0; ld.shared.u32 %r1, "
     "[%r18];\n"
     "setp.ne.u32 %p1, %r1, 3; @%p1 bra E; ld.global.u32 %r2, [%rd8+1024]; ld.global.u32 %r3, [%rd8+1280];\nE:\n"},
    {"lanes store the same value to one place", 1, 32, "st.shared.u32 [%r18], %r15; st.global.u32 [%rd9], 5;\n"},
    /* Blocks that wait for each other: they must all be there at once. */
    {"a barrier of the grid", 5, 64,
     "mad.wide.u32 %rd0, %r15, 256, %rd8; st.global.u32 [%rd0+1024], %r15; membar.gl; bar.sync 0; setp.ne.u32 %p0, "
     "%r19, 0;\n"
     "@%p0 bra W; atom.global.add.u32 %r1, [%rd9], 1;\nL: ld.acquire.gpu.global.u32 %r2, [%rd9]; setp.ne.u32 %p1, %r2, "
     "5;\n"
     "@%p1 bra L;\nW: bar.sync 0; add.u32 %r3, %r15, 1; rem.u32 %r3, %r3, 5; mad.wide.u32 %rd1, %r3, 256, %rd8;\n"
     "ld.global.u32 %r4, [%rd1+1024]; setp.ne.u32 %p2, %r4, %r3; @%p2 trap;\n"},
    {"a reduction over the block", 2, 256,
     "st.shared.u32 [%r17], %r19; mov.u32 %r1, 128;\nL: bar.sync 0; setp.ge.u32 %p0, %r19, %r1; @%p0 bra N;\n"
     "mad.lo.u32 %r2, %r1, 4, %r17; ld.shared.u32 %r3, [%r2]; ld.shared.u32 %r4, [%r17]; add.u32 %r3, %r3, %r4;\n"
     "st.shared.u32 [%r17], %r3;\nN: shr.u32 %r1, %r1, 1; setp.ne.u32 %p1, %r1, 0; @%p1 bra L;\n"},
    {"bytes side by side", 1, 64,
     "add.u32 %r1, %r18, %r19; cvt.u16.u32 %h0, %r19; st.shared.u8 [%r1], %h0; bar.sync 0;\n"
     "ld.shared.u8 %h1, [%r1+0]; and.b32 %r2, %r19, 60; add.u32 %r2, %r2, %r18; ld.shared.u32 %r3, [%r2];\n"},
};

static void test_clean(const struct ny_clean *c) {
  ny_run t;
  if (load_body(&t, c->body)) {
    for (int run = 0; run < 9; run++) {
      memset(x, 0, sizeof x);
      uint64_t p = (uint64_t)(uintptr_t)x;
      launch(&t, c->blocks, c->threads, 2048, &p, checks_of(run, NY_SIM_ALL));
      CHECK(t.status == NYB_OK && !t.r.n_findings, "%s, run %d: %s", c->what, run, t.d.message);
    }
  }
  done(&t);
}

/* Reports: the source line of .loc, the threads of both sides, the buffer by name. */
static void test_report(void) {
  ny_run t;
  bool ok = load(
      &t, ".visible .entry racy(.param .u64 x)\n{\n.reg .b32 %r<5>; .reg .b64 %rd;\n.loc 1 7 3\nmov.u32 %r0, dyn;\n"
          "mov.u32 %r1, %tid.x; mad.lo.u32 %r2, %r1, 4, %r0;\n.loc 1 8 0\nst.shared.u32 [%r2], %r1;\n.loc 1 9 0\n"
          "ld.shared.u32 %r3, [%r0];\nld.param.u64 %rd, [x]; st.global.u32 [%rd+4000000], %r3; ret;\n}\n"
          ".file 1 \"dir/some.cu\"\n.section .debug_str { .b8 1,2 $x: .b32 y }\n");
  CHECK(ok, "line %d: %s", t.d.line, t.d.message);
  if (ok) {
    map(&t, x, sizeof x, "activations");
    uint64_t p = (uint64_t)(uintptr_t)x;
    launch(&t, 1, 64, 256, &p, checks_of(0, NY_SIM_ALL));
    const ny_sim_finding *f = found(&t, NY_FIND_race), *o = found(&t, NY_FIND_bounds);
    CHECK(f && f->at.file && !strcmp(f->at.file, "dir/some.cu") && f->at.line == 9 && f->other.line == 8,
          "source lines");
    CHECK(f && f->at.thread[0] != 0 && f->other.thread[0] == 0 && f->address == 0 && f->bytes == 4, "threads");
    CHECK(o && strstr(o->text, "3983616 bytes after the 16384 bytes of \"activations\""), "%s", o ? o->text : "none");
    ny_text s = {0};
    if (f) ny_sim_print_finding(f, &s);
    CHECK(s.s && strstr(s.s, "data race in racy: read of 4 bytes") && strstr(s.s, "dir/some.cu:8"), "%s", s.s);
    ny_text_free(&s);
  }
  done(&t);
}

static void test_counters(void) {
  ny_run t;
  if (load_body(
          &t,
          "mad.lo.u32 %r1, %r14, 128, %r18; st.shared.u32 [%r17], 0; bar.sync 0; and.b32 %r1, %r1, 2047;\n"
          "ld.shared.u32 %r0, [%r1]; shl.b32 %r2, %r14, 3; add.u32 %r2, %r2, %r18; ld.shared.u32 %r0, [%r2];\n"
          "ld.shared.u32 %r0, [%r18]; ld.global.u32 %r3, [%rd8]; mad.wide.u32 %rd0, %r19, 60, %rd8;\n"
          "ld.global.u32 %r3, [%rd0]; mad.lo.u32 %r4, %r14, 16, %r18; ld.shared.v4.u32 {%r5,%r6,%r7,%r8}, [%r4];\n")) {
    uint64_t p = (uint64_t)(uintptr_t)x;
    launch(&t, 1, 32, 2048, &p, checks_of(0, NY_SIM_COUNT_MEMORY));
    const ny_sim_counters *c = &t.r.counters;
    CHECK(t.status == NYB_OK, "%s", t.d.message);
    /* a store, 16 words of one bank, 2 words a bank, one word, and 512 bytes */
    CHECK(c->shared_ops == 5 && c->shared_waves == 1 + 16 + 2 + 1 + 4, "%llu wavefronts of %llu",
          (unsigned long long)c->shared_waves, (unsigned long long)c->shared_ops);
    CHECK(c->global_ops == 2 && c->global_read_bytes == 256, "global %llu", (unsigned long long)c->global_ops);
    CHECK(c->global_sectors >= 4 + 32 && c->global_sectors <= 5 + 32, "%llu sectors",
          (unsigned long long)c->global_sectors);
    CHECK(c->barriers == 1 && c->warps == 1 && c->blocks == 1, "barriers");
    CHECK(c->warp_ins[NY_CLS_ld_shared] == 4 && c->thread_ins[NY_CLS_ld_shared] == 128, "loads");
  }
  done(&t);
}

int main(void) {
  for (size_t k = 0; k < NY_COUNT(bugs); k++) test_bug(&bugs[k]);
  for (size_t k = 0; k < NY_COUNT(clean); k++) test_clean(&clean[k]);
  test_report();
  test_counters();
  return test_end("sim_find_test");
}
