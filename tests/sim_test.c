/* The simulator as a whole: control flow, calls, collectives, barriers, memory spaces, printf, and that bad text is
   refused with a reason. What the checks find is in sim_find_test. */
#include "sim_fixture.h"

static const ny_sim_options all_checks = {.checks = NY_SIM_ALL};

/* out[tid] of a kernel `k(.param .u64 out)` whose body leaves its result in %r0 (and %rd9 is out + 4 tid) */
static bool run_body_text(ny_run *t, const char *before, const char *body, uint32_t threads, uint32_t *out) {
  ny_text s = {0};
  ny_text_addf(&s, "%s\n.visible .entry k(.param .u64 out)\n{\n", before);
  ny_text_add(&s, "  .reg .b32 %r<20>; .reg .b64 %rd<10>; .reg .pred %p<8>; .reg .f32 %f<8>;\n"
                  "  ld.param.u64 %rd9, [out]; mov.u32 %r19, %tid.x; mad.wide.u32 %rd9, %r19, 4, %rd9;\n");
  ny_text_addf(&s, "%s\n  st.global.u32 [%%rd9], %%r0;\n  ret;\n}\n", body);
  bool ok = load(t, s.s);
  CHECK(ok, "line %d: %s", t->d.line, t->d.message);
  ny_text_free(&s);
  if (!ok) return false;
  uint64_t p = (uint64_t)(uintptr_t)out;
  map(t, out, threads * 4, "out");
  launch(t, 1, threads, 4096, &p, all_checks);
  CHECK(t->status == NYB_OK, "%s", t->d.message);
  return true;
}
static uint32_t out[1024];
#define BODY(before, text, threads, ...)                                                                               \
  do {                                                                                                                 \
    ny_run t;                                                                                                          \
    memset(out, 0xcd, sizeof out);                                                                                     \
    if (run_body_text(&t, before, text, threads, out)) {                                                               \
      int wrong = -1;                                                                                                  \
      for (int i = (threads)-1; i >= 0; i--)                                                                           \
        if (out[i] != (uint32_t)(__VA_ARGS__)) wrong = i;                                                              \
      int i = wrong < 0 ? 0 : wrong;                                                                                   \
      CHECK(wrong < 0, "thread %d has %u and not %u in:\n%s", i, out[i], (uint32_t)(__VA_ARGS__), text);               \
    }                                                                                                                  \
    done(&t);                                                                                                          \
  } while (0)

static uint32_t collatz(uint32_t n) {
  uint32_t c = 0;
  for (; n > 1; c++) n = n & 1 ? 3 * n + 1 : n / 2;
  return c;
}

static void test_control(void) {
  BODY("",
       "mov.u32 %r1, %r19; mov.u32 %r0, 0;\n"
       "L: setp.le.u32 %p0, %r1, 1; @%p0 bra D; add.u32 %r0, %r0, 1; and.b32 %r2, %r1, 1; setp.ne.u32 %p1, %r2, 0;\n"
       "@%p1 bra ODD; shr.u32 %r1, %r1, 1; bra L;\nODD: mad.lo.u32 %r1, %r1, 3, 1; bra L;\nD:",
       200, collatz((uint32_t)i));
  /* Scopes, as inline assembly makes them: the same names twice. */
  BODY("",
       "mov.u32 %r0, 0; { .reg .pred p; .reg .b32 x; setp.lt.u32 p, %r19, 5; mov.u32 x, 7; @p bra E; mov.u32 x, 9;\n"
       "E: add.u32 %r0, %r0, x; }\n{ .reg .pred p; .reg .b32 x; setp.lt.u32 p, %r19, 3; mov.u32 x, 100; @!p bra E;\n"
       "mov.u32 x, 200; E: add.u32 %r0, %r0, x; }",
       64, (i < 5 ? 7 : 9) + (i < 3 ? 200 : 100));
  BODY("",
       "and.b32 %r1, %r19, 3; brx.idx %r1, T;\nT: .branchtargets A, B, A, C;\n"
       "A: mov.u32 %r0, 10; bra.uni Z;\nB: mov.u32 %r0, 20; bra.uni Z;\nC: mov.u32 %r0, 30;\nZ: add.u32 %r0, %r0, %r1;",
       70, (int[]){10, 20, 10, 30}[i & 3] + (i & 3));
  /* Threads that are done before the others. */
  BODY("", "setp.gt.u32 %p0, %r19, 40; mov.u32 %r0, 1; @%p0 st.global.u32 [%rd9], 77; @%p0 exit; bar.sync 0;", 96,
       i > 40 ? 77 : 1);
  /* A lock that the lanes of a warp take one after another. */
  BODY(".global .align 4 .u32 lock; .global .align 4 .u32 sum;",
       "TRY: atom.global.cas.b32 %r1, [lock], 0, 1; setp.ne.u32 %p0, %r1, 0; @%p0 bra TRY;\n"
       "ld.volatile.global.u32 %r2, [sum]; add.u32 %r0, %r2, 1; st.volatile.global.u32 [sum], %r0; membar.gl;\n"
       "atom.global.exch.b32 %r3, [lock], 0; setp.lt.u32 %p1, %r0, 65; selp.u32 %r0, 1, 0, %p1;",
       64, 1);
}

static void test_calls(void) {
  BODY(".func (.param .b32 r) twice(.param .b32 a) { .reg .b32 %r<3>; ld.param.b32 %r1, [a]; add.u32 %r2, %r1, %r1;\n"
       " st.param.b32 [r], %r2; ret; }\n"
       ".func (.param .b32 r) odd(.param .b32 a, .param .align 4 .b8 s[8]) { .reg .b32 %r<5>; .reg .pred %p;\n"
       " ld.param.b32 %r1, [a]; and.b32 %r2, %r1, 1; setp.eq.u32 %p, %r2, 0; @%p bra EVEN;\n"
       " { .param .b32 x; .param .b32 y; st.param.b32 [x], %r1; call.uni (y), twice, (x); ld.param.b32 %r3, [y]; }\n"
       " st.param.b32 [r], %r3; ret;\nEVEN: ld.param.b32 %r4, [s+4]; st.param.b32 [r], %r4; ret; }",
       "{ .param .b32 x; .param .align 4 .b8 s[8]; .param .b32 y; st.param.b32 [x], %r19; st.param.b32 [s+4], 5;\n"
       "call (y), odd, (x, s); ld.param.b32 %r0, [y]; }",
       80, i & 1 ? 2 * i : 5);
  BODY(".visible .func v(.param .b64 a) { .reg .b64 %d; .reg .b32 %r; ld.param.b64 %d, [a]; ld.u32 %r, [%d];\n"
       " add.u32 %r, %r, 1; st.u32 [%d], %r; }",
       ".local .align 8 .b8 depot[16]; mov.u64 %rd0, depot; cvta.local.u64 %rd1, %rd0; st.local.u32 [%rd0+8], %r19;\n"
       "add.u64 %rd2, %rd1, 8; isspacep.local %p0, %rd2; isspacep.shared %p1, %rd2;\n"
       "{ .param .b64 x; st.param.b64 [x], %rd2; call.uni v, (x); } ld.local.u32 %r0, [%rd0+8];\n"
       "@!%p0 mov.u32 %r0, 0; @%p1 mov.u32 %r0, 0;",
       50, i + 1);
}

static void test_collectives(void) {
  BODY("", "shfl.sync.bfly.b32 %r0, %r19, 5, 31, -1;", 64, i ^ 5);
  BODY("", "shfl.sync.down.b32 %r0|%p0, %r19, 3, 31, -1; @!%p0 mov.u32 %r0, 99;", 64, (i & 31) < 29 ? i + 3 : 99);
  BODY("", "shfl.sync.up.b32 %r0|%p0, %r19, 1, 0, -1; @!%p0 mov.u32 %r0, 99;", 32, i ? i - 1 : 99);
  BODY("", "shfl.sync.idx.b32 %r0, %r19, 2, 0x1807, -1;", 32, (i & 24) + 2);
  BODY("", "shfl.sync.bfly.b32 %r0, %r19, 8, 0x1807, -1;", 32, (i ^ 8) <= ((i & 24) | 7) ? i ^ 8 : i); /* leaves its group */
  BODY("", "setp.lt.u32 %p0, %r19, 10; vote.sync.ballot.b32 %r0, %p0, -1;", 32, 0x3ff);
  BODY("",
       "setp.lt.u32 %p0, %r19, 10; vote.sync.any.pred %p1, %p0, -1; vote.sync.all.pred %p2, %p0, -1;\n"
       "vote.sync.uni.pred %p3, !%p2, -1; selp.u32 %r0, 1, 0, %p1; @%p2 add.u32 %r0, %r0, 2; @%p3 add.u32 %r0, %r0, 4;",
       64, i < 32 ? 5 : 4);
  BODY("", "and.b32 %r1, %r19, 3; match.any.sync.b32 %r0, %r1, -1;", 32, 0x11111111u << (i & 3));
  BODY("", "match.all.sync.b32 %r0|%p0, %r19, -1; @!%p0 add.u32 %r0, %r0, 3;", 32, 3);
  BODY("", "redux.sync.add.u32 %r0, %r19, -1;", 32, 31 * 16);
  BODY("", "sub.s32 %r1, %r19, 7; redux.sync.min.s32 %r0, %r1, -1;", 32, -7);
  BODY("", "redux.sync.xor.b32 %r0, %r19, -1; redux.sync.max.u32 %r1, %r19, -1; add.u32 %r0, %r0, %r1;", 32, 31);
  BODY("",
       "cvt.rn.f32.u32 %f0, %r19; sub.f32 %f0, %f0, 0f41200000; redux.sync.min.f32 %f1, %f0, -1;\n"
       "redux.sync.max.abs.f32 %f2, %f0, -1; add.f32 %f1, %f1, %f2; cvt.rzi.s32.f32 %r0, %f1;",
       32, 11);
  BODY("", "elect.sync %r0|%p0, -1; @%p0 add.u32 %r0, %r0, 5;", 32, i ? 0 : 5);
  BODY("",
       "setp.lt.u32 %p0, %r19, 7; mov.u32 %r0, 1; @%p0 bra A; activemask.b32 %r0; bra B; A: activemask.b32 %r0; B:", 32,
       i < 7 ? 0x7f : 0xffffff80);
  /* Halves with masks of their own, in code that both run. */
  BODY("",
       "and.b32 %r1, %r19, 16; setp.ne.u32 %p0, %r1, 0; selp.b32 %r2, 0xffff0000, 0xffff, %p0;\n"
       "redux.sync.add.u32 %r0, %r19, %r2;",
       32, i < 16 ? 120 : 376);
  /* Lanes that come to a collective at different times. */
  BODY("",
       "mov.u32 %r1, %r19; mov.u32 %r0, 0;\nL: setp.eq.u32 %p0, %r1, 0; @%p0 bra D; sub.u32 %r1, %r1, 1; bra L;\n"
       "D: redux.sync.add.u32 %r0, %r19, -1;",
       32, 496);
}

static void test_barriers(void) {
  const char *rotate =
      "mov.u32 %r1, dyn; mad.lo.u32 %r2, %r19, 4, %r1; st.shared.u32 [%r2], %r19; bar.sync 0;\n"
      "add.u32 %r3, %r19, 33; rem.u32 %r3, %r3, 128; mad.lo.u32 %r3, %r3, 4, %r1; ld.shared.u32 %r0, [%r3];";
  BODY("", rotate, 128, (i + 33) % 128);
  BODY("",
       "setp.lt.u32 %p0, %r19, 50; bar.red.popc.u32 %r0, 1, %p0; bar.red.or.pred %p1, 0, %p0;\n"
       "bar.red.and.pred %p2, 0, %p0; @%p1 add.u32 %r0, %r0, 100; @%p2 add.u32 %r0, %r0, 1000;",
       128, 150);
  /* Half of the block produces, the other half consumes; named barriers with counts. */
  BODY("",
       "mov.u32 %r1, dyn; and.b32 %r2, %r19, 31; mad.lo.u32 %r3, %r2, 4, %r1; mov.u32 %r0, 5;\n"
       "setp.ge.u32 %p0, %r19, 32; @%p0 bra CONSUME; st.shared.u32 [%r3], %r2; bar.arrive 2, 64; bra END;\n"
       "CONSUME: bar.sync 2, 64; xor.b32 %r4, %r3, 4; ld.shared.u32 %r0, [%r4]; END:",
       64, i < 32 ? 5 : (i & 31) ^ 1);
  BODY("", "barrier.sync 3; barrier.cta.sync.aligned 3; bar.warp.sync -1; mov.u32 %r0, 1;", 256, 1);
}

static void test_spaces(void) {
  BODY(".const .align 4 .u32 table[4] = {11, 22, 33, 44}; .global .align 8 .u64 where = table;",
       "and.b32 %r1, %r19, 3; ld.global.u64 %rd0, [where]; mad.wide.u32 %rd1, %r1, 4, %rd0; ld.const.u32 %r0, [%rd1];\n"
       "ld.const.u32 %r2, [table+4]; add.u32 %r0, %r0, %r2; ld.u32 %r3, [%rd1]; add.u32 %r0, %r0, %r3;",
       40, 22 + 22 * ((i & 3) + 1));
  BODY(".global .align 4 .f32 pi[2] = {0f40490FDB, 1.5};",
       "ld.global.v2.f32 {%f0, %f1}, [pi]; mul.f32 %f0, %f0, %f1; cvt.rzi.u32.f32 %r0, %f0;", 8, 4);
  BODY("",
       ".shared .align 16 .b8 own[512]; mov.u32 %r1, own; mov.u32 %r2, dyn; sub.u32 %r3, %r2, %r1;\n"
       "mad.lo.u32 %r4, %r19, 16, %r1; st.shared.v4.b32 [%r4], {%r19, %r3, %r19, %r19}; ld.shared.v2.u32 {%r5, %r6}, "
       "[%r4];\n"
       "cvt.u64.u32 %rd0, %r4; cvta.shared.u64 %rd1, %rd0; ld.u32 %r7, [%rd1+8]; add.u32 %r0, %r7, %r6;",
       32, i + 512);
  BODY("",
       "st.global.u32 [%rd9], 0xfffffff0; ld.global.s8 %rd1, [%rd9]; ld.global.s8 %r1, [%rd9]; ld.global.u8 %r2, "
       "[%rd9];\n"
       "cvt.u32.u64 %r3, %rd1; add.u32 %r0, %r1, %r2; add.u32 %r0, %r0, %r3;",
       4, -16 + 240 - 16);
  BODY("", ".reg .b16 %h; st.global.u32 [%rd9], 0xf0; ld.global.s8 %h, [%rd9]; cvt.u32.u16 %r0, %h;", 4, 0xfff0);
  BODY("",
       "mov.u32 %r0, %ntid.x; mov.u32 %r1, %laneid; mov.u32 %r2, %warpid; mad.lo.u32 %r1, %r2, 32, %r1;\n"
       "add.u32 %r0, %r0, %r1; mov.u32 %r3, %lanemask_lt; popc.b32 %r3, %r3; add.u32 %r0, %r0, %r3;\n"
       "mov.u64 %rd0, %clock64; mov.u32 %r4, %clock; mov.u32 %r5, %dynamic_smem_size; add.u32 %r0, %r0, %r5;",
       64, 64 + i + (i & 31) + 4096);
}

static void test_printf(void) {
  ny_run t;
  bool ok = load(
      &t,
      ".global .align 1 .b8 fmt[30] = {105,61,37,100,32,120,61,37,46,50,102,32,115,61,37,115,32,37,108,108,117,"
      "37,37,10,0};\n.global .align 1 .b8 word[3] = {104, 105, 0};\n"
      ".extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);\n"
      ".visible .entry k() { .local .align 8 .b8 depot[32]; .reg .b64 %rd<6>; .reg .b32 %r<4>;\n"
      "mov.u64 %rd0, depot; mov.u32 %r0, %tid.x; sub.s32 %r0, %r0, 1; st.local.u32 [%rd0], %r0;\n"
      "mov.b64 %rd1, 0d4002000000000000; st.local.b64 [%rd0+8], %rd1; mov.u64 %rd2, word; cvta.global.u64 %rd2, %rd2;\n"
      "st.local.u64 [%rd0+16], %rd2; mov.b64 %rd4, 12345678901; st.local.u64 [%rd0+24], %rd4;\n"
      "cvta.local.u64 %rd3, %rd0; mov.u64 %rd5, fmt; cvta.global.u64 %rd5, %rd5;\n"
      "{ .param .b64 a; st.param.b64 [a], %rd5; .param .b64 b; st.param.b64 [b], %rd3; .param .b32 z;\n"
      "call.uni (z), vprintf, (a, b); ld.param.b32 %r1, [z]; } ret; }");
  CHECK(ok, "line %d: %s", t.d.line, t.d.message);
  if (ok) {
    launch(&t, 1, 2, 0, NULL, all_checks);
    CHECK(t.status == NYB_OK, "%s", t.d.message);
    CHECK(t.printed.s && !strcmp(t.printed.s, "i=-1 x=2.25 s=hi 12345678901%\ni=0 x=2.25 s=hi 12345678901%\n"),
          "printed %s", t.printed.s);
  }
  done(&t);
}

static void test_refused(void) {
  static const struct {
    const char *text, *part;
    nyb_status status;
    int line;
  } bad[] = {
      {".visible .entry k() { .reg .b32 %r<2>;\n frobnicate.u32 %r0, %r1; }", "frobnicate", NYB_E_UNSUPPORTED, 6},
      {".visible .entry k() { .reg .b32 %r<2>;\n add.f8 %r0, %r1, %r1; }", "form of add", NYB_E_UNSUPPORTED, 6},
      {".visible .entry k() { .reg .b32 %r<2>; add.u32 %r0, %r1; }", "operand 3 is missing", NYB_E_UNSUPPORTED, 5},
      {".visible .entry k() { .reg .b64 %r<2>; add.u32 %r0, %r1, %r1; }", "too wide", NYB_E_UNSUPPORTED, 5},
      {".visible .entry k() { .reg .b32 %r<2>; add.u32 %r0, %r7, 1; }", "no register \"%r7\"", NYB_E_PARSE, 5},
      {".visible .entry k() { bra NOWHERE; }", "no label \"NOWHERE\"", NYB_E_UNSUPPORTED, 5},
      {".visible .entry k() { ret;", "ends inside", NYB_E_PARSE, 5},
      {".func f() { call f; ret; }\n.visible .entry k() { call f; ret; }", "recursion", NYB_E_UNSUPPORTED, 5},
      {".visible .entry k() { call unknown; ret; }", "not defined", NYB_E_UNSUPPORTED, 5},
      {".global .u32 x = {1, 2};", "more initial values", NYB_E_PARSE, 5},
      {".global .align 3 .u32 x;", "power of two", NYB_E_PARSE, 5},
      {".global .b8 x[99999999999999999999];", "", NYB_E_PARSE, 5},
      {"hello", "directive", NYB_E_PARSE, 5},
  };
  for (size_t k = 0; k < NY_COUNT(bad); k++) {
    ny_run t;
    bool ok = load(&t, bad[k].text);
    CHECK(!ok && t.status == bad[k].status, "status %d of %s", t.status, bad[k].text);
    CHECK(strstr(t.d.message, bad[k].part) && t.d.line == bad[k].line, "line %d: %s", t.d.line, t.d.message);
    done(&t);
  }
}

static void test_launch_refused(void) {
  ny_run t;
  CHECK(
      load(&t,
           ".visible .entry k(.param .u32 a, .param .align 16 .b8 s[32], .param .u64 b)\n.maxntid 64, 1, 1\n{ ret; }"),
      "%s", t.d.message);
  const ny_sim_kernel_info *k = ny_sim_kernel(t.m, 0);
  CHECK(k->n_params == 3 && k->param_bytes == 56 && k->param[1].offset == 16 && k->param[2].offset == 48, "parameters");
  CHECK(k->max_threads[0] == 64 && ny_sim_target(t.m) == 100, "directives");
  uint64_t params[7] = {0};
  launch(&t, 1, 65, 0, params, all_checks);
  CHECK(t.status == NYB_E_ARGUMENT, "more threads than .maxntid");
  launch(&t, 1, 64, 0, params, all_checks);
  CHECK(t.status == NYB_OK, "%s", t.d.message);
  launch(&t, 0, 64, 0, params, all_checks);
  CHECK(t.status == NYB_E_ARGUMENT, "an empty grid");
  CHECK(ny_sim_map(t.mem, params, 16, "a", false, NULL) == NYB_OK, "map");
  CHECK(ny_sim_map(t.mem, (char *)params + 8, 16, "b", false, NULL) == NYB_E_ARGUMENT, "overlap");
  ny_sim_range r;
  CHECK(ny_sim_find(t.mem, (char *)params + 15, &r) && !strcmp(r.name, "a"), "find");
  CHECK(!ny_sim_find(t.mem, (char *)params + 16, &r), "past the end");
  CHECK(ny_sim_unmap(t.mem, params) && !ny_sim_unmap(t.mem, params), "unmap");
  done(&t);
}

int main(void) {
  test_control();
  test_calls();
  test_collectives();
  test_barriers();
  test_spaces();
  test_printf();
  test_refused();
  test_launch_refused();
  return test_end("sim_test");
}
