/* Loads and stores of every width, sign and vector through each space, addresses between spaces, hints. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_fidelity.h"

#define HEAD                                                                                                           \
  ".version 8.7\n.target sm_120a\n.address_size 64\n.global .align 16 .b8 table[1024];\n.const .align 16 .b8 "         \
  "words[8] = {1, 2, 3, 4, 5, 6, 7, 8};\n"                                                                             \
  ".visible .entry k(.param .u64 in, .param .u64 out)\n{\n.reg .b16 %h<40>;\n.reg .b32 %r<60>;\n.reg .b64 %rd<60>;\n"  \
  ".reg .pred %p<10>;\n.shared .align 32 .b8 buf[8192];\n.local .align 32 .b8 stack[64];\nld.param.u64 %rd50, [in];\n" \
  "ld.param.u64 %rd51, [out];\nmov.u32 %r50, %tid.x;\nmul.wide.u32 %rd52, %r50, 64;\nadd.s64 %rd50, %rd50, %rd52;\n"   \
  "add.s64 %rd51, %rd51, %rd52;\nmov.u32 %r51, buf;\nshl.b32 %r52, %r50, 6;\nadd.s32 %r51, %r51, %r52;\n"
enum { LANES = 64, SLOT = 64 };

static fidelity_status run(const char *text, void *in, size_t n_in, void *out, size_t n_out, char *why) {
  fidelity_buffer buffers[] = {{in, n_in}, {out, n_out}};
  return fidelity_run(text, buffers, 2, 1, LANES, why);
}

/* ---- ld and st */
typedef struct access {
  const char *space, *address; /* of the lane's slot */
} access;
static const access spaces[] = {{"global.", "%rd51"}, {"shared.", "%r51"}, {"local.", "stack"},
                                {"", "%rd51"},        {"", "%rd48"},       {"", "%rd49"}};
static const char *register_of(int bits) { return bits <= 16 ? "%h" : bits == 32 ? "%r" : "%rd"; }
static void vector(ny_text *t, int bits, int n) {
  if (n > 1) ny_text_add(t, "{");
  for (int i = 0; i < n; i++) ny_text_addf(t, "%s%s%d", i ? ", " : "", register_of(bits), i);
  if (n > 1) ny_text_add(t, "}");
}
/* A slot of n elements comes from `in`, goes through the space under test and back to `out` in 64 bits each, as the
   type widens it. */
static void test_width(const access *a, const char *type, int n) {
  int bits = ref_bits(type), bytes = bits / 8;
  if (n * bytes > 32 || (n == 8 && (bits != 32 || strcmp(a->space, "global.")))) return;
  static _Alignas(256) uint8_t in[LANES][SLOT], out[LANES][SLOT];
  for (int l = 0; l < LANES; l++)
    for (int b = 0; b < SLOT; b++) in[l][b] = (uint8_t)fidelity_random();
  char ld[64], st[64];
  const char *v = n == 1 ? "" : n == 2 ? "v2." : n == 4 ? "v4." : "v8.";
  snprintf(ld, sizeof ld, "ld.%s%s%s", a->space, v, type);
  snprintf(st, sizeof st, "st.%s%s%s", a->space, v, type);
  ny_text t = {0};
  ny_text_add(
      &t, HEAD
      "cvt.u64.u32 %rd47, %r51;\ncvta.shared.u64 %rd48, %rd47;\nmov.u64 %rd46, stack;\ncvta.local.u64 %rd49, %rd46;\n");
  ny_text_addf(&t, "ld.global.%s%s ", v, type);
  vector(&t, bits, n);
  ny_text_addf(&t, ", [%%rd50];\n%s [%s], ", st, a->address);
  vector(&t, bits, n);
  ny_text_add(&t, ";\n");
  for (int i = 0; i < n; i++)
    ny_text_addf(&t, "xor.b%d %s%d, %s%d, %s%d;\n", bits <= 16 ? 16 : bits, register_of(bits), i, register_of(bits), i,
                 register_of(bits), i);
  ny_text_addf(&t, "%s ", ld);
  vector(&t, bits, n);
  ny_text_addf(&t, ", [%s];\n", a->address);
  for (int i = 0; i < n; i++)
    ny_text_addf(&t, "st.global.b%d [%%rd51+%d], %s%d;\n", bits <= 16 ? 16 : bits,
                 32 + (bits <= 16 ? 2 * bytes : bytes) * i % 32, register_of(bits), i);
  ny_text_add(&t, "ret;\n}\n");
  char why[512] = "";
  fidelity_status s = run(t.s, in, sizeof in, out, sizeof out, why);
  int bad = 0, step = bits <= 16 ? 2 : bytes;
  for (int l = 0; s == RAN && l < LANES; l++)
    for (int i = 0; i < n; i++) {
      uint64_t want = 0, got = 0;
      memcpy(&want, in[l] + i * bytes, (size_t)bytes);
      if (bits == 8 && type[0] == 's') want = (uint16_t)(int8_t)want;
      memcpy(&got, out[l] + 32 + (bits <= 16 ? 2 * bytes : bytes) * i % 32, (size_t)step);
      bad += want != got;
    }
  fidelity_check(s != FAILED && !bad, "%s and %s with [%s]: %d values differ %s", st, ld, a->address, bad, why);
  covered(ld);
  covered(st);
  ny_text_free(&t);
}

/* ---- the address of one thing, seen from several spaces */
static void test_addresses(void) {
  static const char text[] = HEAD
      "cvt.u64.u32 %rd1, %r51;\ncvta.shared.u64 %rd2, %rd1;\ncvta.to.shared.u64 %rd3, %rd2;\nst.shared.b32 [%r51], "
      "77;\n"
      "ld.b32 %r1, [%rd2];\ncvt.u32.u64 %r2, %rd3;\nld.shared.b32 %r3, [%r2];\nst.global.b32 [%rd51], %r1;\n"
      "st.global.b32 [%rd51+4], %r3;\ncvta.to.global.u64 %rd4, %rd51;\nst.global.b32 [%rd4+8], 99;\n"
      "isspacep.shared %p1, %rd2;\nisspacep.global %p2, %rd51;\nisspacep.global %p3, %rd2;\nisspacep.shared %p4, "
      "%rd51;\n"
      "mov.u64 %rd7, stack;\ncvta.local.u64 %rd8, %rd7;\nisspacep.local %p5, %rd8;\nisspacep.local %p6, %rd2;\n"
      "selp.b32 %r4, 1, 0, %p1;\nselp.b32 %r5, 2, 0, %p2;\nselp.b32 %r6, 4, 0, %p3;\nselp.b32 %r7, 8, 0, %p4;\n"
      "selp.b32 %r8, 16, 0, %p5;\nselp.b32 %r9, 32, 0, %p6;\nor.b32 %r4, %r4, %r5;\nor.b32 %r4, %r4, %r6;\n"
      "or.b32 %r4, %r4, %r7;\nor.b32 %r4, %r4, %r8;\nor.b32 %r4, %r4, %r9;\nst.global.b32 [%rd51+12], %r4;\n"
      "mapa.shared::cluster.u32 %r10, %r51, 0;\nld.shared.b32 %r11, [%r10];\nst.global.b32 [%rd51+16], %r11;\n"
      "mov.u64 %rd9, table;\ncvta.global.u64 %rd10, %rd9;\nshl.b32 %r12, %r50, 2;\ncvt.u64.u32 %rd11, %r12;\n"
      "add.s64 %rd10, %rd10, %rd11;\nst.b32 [%rd10], %r50;\nadd.s64 %rd9, %rd9, %rd11;\nldu.global.b32 %r13, [%rd9];\n"
      "st.global.b32 [%rd51+20], %r13;\nld.const.b32 %r14, [words+4];\nst.global.b32 [%rd51+24], %r14;\nret;\n}\n";
  static _Alignas(256) uint32_t in[LANES][16], out[LANES][16];
  char why[512] = "";
  fidelity_status s = run(text, in, sizeof in, out, sizeof out, why);
  int bad = 0;
  for (uint32_t l = 0; s == RAN && l < LANES; l++) {
    const uint32_t want[] = {77, 77, 99, 1 | 2 | 16, 77, l, 0x08070605};
    for (int i = 0; i < 7; i++) bad += out[l][i] != want[i];
  }
  fidelity_check(s != FAILED && !bad, "addresses between spaces: %d values differ (%u %u %u %x %u %u %x) %s", bad,
                 out[1][0], out[1][1], out[1][2], out[1][3], out[1][4], out[1][5], out[1][6], why);
  static const char *const ops[] = {"cvta.shared.u64", "cvta.to.shared.u64", "isspacep.shared",
                                    "mapa.shared::cluster.u32", "ldu.global.b32"};
  for (size_t i = 0; i < NY_COUNT(ops); i++) covered(ops[i]);
}

/* ---- instructions that only advise: the words around them stay what they were */
static void test_hints(void) {
  static const char *const lines[][2] = {
      {"prefetch.global.L2", "prefetch.global.L2 [%rd50];"},
      {"prefetch.global.L2::evict_last", "prefetch.global.L2::evict_last [%rd50];"},
      {"prefetchu.L1", "prefetchu.L1 [%rd50];"},
      {"applypriority.global.L2::evict_normal", "applypriority.global.L2::evict_normal [%rd50], 128;"},
      {"membar.gl", "membar.gl;"},
      {"membar.proxy.alias", "membar.proxy.alias;"},
      {"fence.acq_rel.gpu", "fence.acq_rel.gpu;"},
      {"fence.sc.cta", "fence.sc.cta;"},
      {"fence.proxy.async", "fence.proxy.async;"},
      {"griddepcontrol.wait", "griddepcontrol.wait;"},
      {"griddepcontrol.launch_dependents", "griddepcontrol.launch_dependents;"},
      {"nanosleep.u32", "nanosleep.u32 20;"},
      {"pmevent", "pmevent 1;"},
      {"setmaxnreg.inc.sync.aligned.u32", "setmaxnreg.inc.sync.aligned.u32 64;"},
      {"discard.global.L2", "discard.global.L2 [table], 128;"},
  };
  static _Alignas(256) uint32_t in[LANES][16], out[LANES][16];
  for (size_t i = 0; i < NY_COUNT(lines); i++) {
    ny_text t = {0};
    ny_text_add(&t, HEAD "ld.global.b32 %r1, [%rd50];\n");
    ny_text_addf(&t, "%s\nst.global.b32 [%%rd51], %%r1;\nret;\n}\n", lines[i][1]);
    for (int l = 0; l < LANES; l++) in[l][0] = (uint32_t)fidelity_random();
    char why[512] = "";
    fidelity_status s = run(t.s, in, sizeof in, out, sizeof out, why);
    int bad = 0;
    for (int l = 0; s == RAN && l < LANES; l++) bad += in[l][0] != out[l][0];
    fidelity_check(s != FAILED && !bad, "%s: %d values differ %s", lines[i][0], bad, why);
    covered(lines[i][0]);
    ny_text_free(&t);
  }
}

void test_memory(void) {
  static const char *const types[] = {"b8",  "u8",  "s8",  "b16", "u16", "s16", "b32",
                                      "u32", "s32", "f32", "b64", "u64", "s64", "f64"};
  for (size_t s = 0; s < NY_COUNT(spaces); s++)
    for (size_t t = 0; t < NY_COUNT(types); t++)
      for (int n = 1; n <= 8; n *= 2) test_width(&spaces[s], types[t], n);
  test_addresses();
  test_hints();
}
