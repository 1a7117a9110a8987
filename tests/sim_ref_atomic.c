/* atom and red: each lane on memory of its own against a reference of the operation, then all lanes on one place, where
   the old values must be those of some order. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_fidelity.h"

enum { LANES = 256, SLOT = 64, OLD = 16 }; /* bytes of a lane: memory, then what atom returned */
#define HEAD                                                                                                           \
  ".version 8.7\n.target sm_120a\n.address_size 64\n"                                                                  \
  ".visible .entry k(.param .u64 in, .param .u64 out)\n{\n.reg .b16 %h<40>;\n.reg .b32 %r<60>;\n.reg .b64 %rd<60>;\n"  \
  ".reg .pred %p<4>;\n.shared .align 16 .b8 buf[16384];\nld.param.u64 %rd50, [in];\nld.param.u64 %rd51, [out];\n"      \
  "mov.u32 %r50, %tid.x;\nmul.wide.u32 %rd52, %r50, 64;\nadd.s64 %rd50, %rd50, %rd52;\nadd.s64 %rd51, %rd51, %rd52;\n" \
  "mov.u32 %r51, buf;\nshl.b32 %r52, %r50, 6;\nadd.s32 %r51, %r51, %r52;\n"

/* ---- the operation on one element */
static void single_of(const char *type, char out[16]) {
  strcpy(out, type);
  char *x2 = strstr(out, "x2");
  if (x2) *x2 = 0;
}
static uint64_t low(uint64_t x, int bits) { return bits >= 64 ? x : x & (((uint64_t)1 << bits) - 1); }
static uint64_t float_op(const char *op, const char *t, uint64_t old, uint64_t b, bool flush) {
  if (!strcmp(op, "exch")) return b;
  if (flush) old = ref_flush(t, old), b = ref_flush(t, b);
  wide x = ref_value(t, old), y = ref_value(t, b);
  if (!strcmp(op, "add")) {
    uint64_t r = ref_round(t, exact_sum(x, y), NEAREST, false);
    return flush ? ref_flush(t, r) : r;
  }
  bool max = !strcmp(op, "max");
  if (x != x || y != y) return x != x && y != y ? ref_nan(t) : x != x ? b : old;
  if (x == y) return max ? old & b : old | b;
  return (x < y) != max ? old : b;
}
static uint64_t int_op(const char *op, const char *t, uint64_t old, uint64_t b) {
  int bits = ref_bits(t);
  uint64_t top = (uint64_t)1 << (bits - 1), flip = t[0] == 's' ? top : 0; /* order of signed: flip the sign bit */
  bool less = (old ^ flip) < (b ^ flip);
  if (!strcmp(op, "add")) return old + b;
  if (!strcmp(op, "min")) return less ? old : b;
  if (!strcmp(op, "max")) return less ? b : old;
  if (!strcmp(op, "inc")) return old >= b ? 0 : old + 1;
  if (!strcmp(op, "dec")) return old == 0 || old > b ? b : old - 1;
  if (!strcmp(op, "and")) return old & b;
  if (!strcmp(op, "or")) return old | b;
  return !strcmp(op, "xor") ? old ^ b : b;
}
static uint64_t apply(const char *op, const char *type, uint64_t old, uint64_t b, uint64_t c, bool global) {
  char t[16];
  single_of(type, t);
  if (!strcmp(op, "cas")) return old == b ? c : old;
  if (!ref_is_float(t)) return low(int_op(op, type, old, b), ref_bits(type));
  uint64_t r = 0;
  for (int at = 0, bits = ref_bits(t); at < ref_bits(type); at += bits)
    r |= float_op(op, t, low(old >> at, bits), low(b >> at, bits), global && !strcmp(t, "f32")) << at;
  return r;
}

/* ---- one instruction */
typedef struct atomic {
  char mnemonic[120];
  const char *op, *type, *space;
  int n; /* elements */
  bool red;
} atomic;
static const char *reg_of(int bits) { return bits == 16 ? "%h" : bits == 64 ? "%rd" : "%r"; }
static void element_list(ny_text *t, const atomic *x, int first) {
  const char *reg = reg_of(ref_bits(x->type));
  if (x->n == 1) {
    ny_text_addf(t, "%s%d", reg, first);
    return;
  }
  ny_text_add(t, "{");
  for (int i = 0; i < x->n; i++) ny_text_addf(t, "%s%s%d", i ? ", " : "", reg, first + i);
  ny_text_add(t, "}");
}
static void kernel(ny_text *t, const atomic *x) {
  int bits = ref_bits(x->type);
  const char *reg = reg_of(bits);
  bool shared = !strncmp(x->space, "shared", 6), generic = !*x->space;
  ny_text_add(t, HEAD);
  for (int e = 0; e < x->n; e++)
    for (int k = 0; k < 3; k++)
      ny_text_addf(t, "ld.global.b%d %s%d, [%%rd50+%d];\n", bits, reg, 8 * k + e, 16 * k + e * bits / 8);
  for (int e = 0; shared && e < x->n; e++)
    ny_text_addf(t, "st.shared.b%d [%%r51+%d], %s%d;\n", bits, e * bits / 8, reg, e);
  ny_text_addf(t, "%s ", x->mnemonic);
  if (!x->red) {
    element_list(t, x, 24);
    ny_text_add(t, ", ");
  }
  ny_text_addf(t, "[%s], ", shared ? "%r51" : generic ? "%rd51" : "%rd51");
  element_list(t, x, 8);
  if (!strcmp(x->op, "cas")) {
    ny_text_add(t, ", ");
    element_list(t, x, 16);
  }
  ny_text_add(t, ";\n");
  for (int e = 0; shared && e < x->n; e++)
    ny_text_addf(t, "ld.shared.b%d %s%d, [%%r51+%d];\nst.global.b%d [%%rd51+%d], %s%d;\n", bits, reg, 32 + e,
                 e * bits / 8, bits, e * bits / 8, reg, 32 + e);
  for (int e = 0; !x->red && e < x->n; e++)
    ny_text_addf(t, "st.global.b%d [%%rd51+%d], %s%d;\n", bits, OLD + e * bits / 8, reg, 24 + e);
  ny_text_add(t, "ret;\n}\n");
}
static uint64_t load(const uint8_t *p, int bits) {
  uint64_t x = 0;
  memcpy(&x, p, (size_t)bits / 8);
  return x;
}
static int differences(const atomic *x, uint8_t (*in)[SLOT], uint8_t (*out)[SLOT]) {
  int bits = ref_bits(x->type), bad = 0;
  bool global = strncmp(x->space, "shared", 6) != 0;
  for (int l = 0; l < LANES; l++)
    for (int e = 0; e < x->n; e++) {
      int at = e * bits / 8;
      uint64_t old = load(in[l] + at, bits), b = load(in[l] + 16 + at, bits), c = load(in[l] + 32 + at, bits);
      uint64_t want = apply(x->op, x->type, old, b, c, global), got = load(out[l] + at, bits);
      if (want != got || (!x->red && load(out[l] + OLD + at, bits) != old)) {
        if (!bad++)
          fprintf(stderr, "%s: %llx with %llx is %llx, not %llx\n", x->mnemonic, (unsigned long long)old,
                  (unsigned long long)b, (unsigned long long)got, (unsigned long long)want);
      }
    }
  return bad;
}
static void test_one(const atomic *x) {
  static _Alignas(256) uint8_t in[LANES][SLOT], out[LANES][SLOT];
  int bits = ref_bits(x->type);
  for (int l = 0; l < LANES; l++)
    for (int k = 0; k < 3; k++)
      for (int e = 0; e < x->n; e++) {
        uint64_t v = fidelity_value(x->type, (uint32_t)fidelity_random() % 60);
        if (k == 1 && !strcmp(x->op, "cas") && l % 2) v = load(in[l] + e * bits / 8, bits);
        memcpy(in[l] + 16 * k + e * bits / 8, &v, (size_t)bits / 8);
      }
  memcpy(out, in, sizeof out); /* global memory begins with the initial values */
  ny_text t = {0};
  kernel(&t, x);
  fidelity_buffer buffers[] = {{in, sizeof in}, {out, sizeof out}};
  char why[512] = "";
  fidelity_status s = fidelity_run(t.s, buffers, 2, 1, LANES, why);
  int bad = s == RAN ? differences(x, in, out) : 0;
  fidelity_check(s != FAILED && !bad, "%s: %d results differ %s", x->mnemonic, bad, why);
  covered(x->mnemonic);
  ny_text_free(&t);
}

/* ---- all lanes on one counter */
static void test_contended(const char *space, const char *address) {
  static _Alignas(256) uint8_t in[SLOT], out[LANES][SLOT];
  memset(out, 0, sizeof out);
  ny_text t = {0};
  ny_text_add(&t, HEAD);
  ny_text_addf(&t,
               "ld.param.u64 %%rd1, [in];\nmov.u32 %%r1, buf;\nsetp.ne.s32 %%p1, %%r50, 0;\n@%%p1 bra GO;\n"
               "st.shared.b32 [%%r1], 0;\nGO:\nbar.sync 0;\natom.%s.add.u32 %%r2, [%s], 3;\nst.global.b32 [%%rd51], "
               "%%r2;\nret;\n}\n",
               space, address);
  memset(in, 0, sizeof in);
  fidelity_buffer buffers[] = {{in, sizeof in}, {out, sizeof out}};
  char why[512] = "";
  fidelity_status s = fidelity_run(t.s, buffers, 2, 1, LANES, why);
  bool seen[LANES] = {false};
  int bad = 0;
  for (int l = 0; s == RAN && l < LANES; l++) {
    uint64_t v = load(out[l], 32);
    bad += v % 3 || v / 3 >= LANES || seen[v / 3];
    if (v / 3 < LANES) seen[v / 3] = true;
  }
  fidelity_check(s != FAILED && !bad, "atom.%s.add on one place: %d old values are wrong %s", space, bad, why);
  ny_text_free(&t);
}

void test_atomic(void) {
  static const struct {
    const char *op, *types;
  } ops[] = {{"add", "u32 s32 u64 f32 f64"},
             {"min", "u32 s32 u64 s64"},
             {"max", "u32 s32 u64 s64"},
             {"inc", "u32"},
             {"dec", "u32"},
             {"and", "b32 b64"},
             {"or", "b32 b64"},
             {"xor", "b32 b64"},
             {"exch", "b32 b64"},
             {"cas", "b32 b64 b16"},
             {"add.noftz", "f16 f16x2 bf16 bf16x2"}};
  static const char *const spaces[] = {"global", "shared", ""};
  static const char *const sems[] = {"", "relaxed.gpu.", "acq_rel.cta.", "release.sys."};
  int n = 0;
  for (size_t o = 0; o < NY_COUNT(ops); o++)
    for (size_t s = 0; s < NY_COUNT(spaces); s++)
      for (int red = 0; red < 2; red++) {
        char types[64], *rest = types;
        snprintf(types, sizeof types, "%s", ops[o].types);
        for (char *type; (type = strsep(&rest, " "));) {
          atomic x = {.op = strcmp(ops[o].op, "add.noftz") ? ops[o].op : "add",
                      .type = type,
                      .space = spaces[s],
                      .n = 1,
                      .red = red};
          if (red && (!strcmp(x.op, "cas") || !strcmp(x.op, "exch"))) continue;
          snprintf(x.mnemonic, sizeof x.mnemonic, "%s.%s%s%s%s.%s", red ? "red" : "atom", sems[n++ % (red ? 2 : 4)],
                   x.space, *x.space ? "." : "", ops[o].op, type);
          test_one(&x);
        }
      }
  static const struct {
    const char *op, *type;
    int n;
  } vectors[] = {{"add", "f32", 2},        {"add", "f32", 4},         {"add.noftz", "f16", 8},
                 {"max.noftz", "bf16", 4}, {"min.noftz", "f16x2", 4}, {"add.noftz", "bf16x2", 2}};
  for (size_t v = 0; v < NY_COUNT(vectors); v++)
    for (int red = 0; red < 2; red++) {
      char op[8];
      snprintf(op, sizeof op, "%.3s", vectors[v].op);
      atomic x = {.op = op, .type = vectors[v].type, .space = "global", .n = vectors[v].n, .red = red};
      snprintf(x.mnemonic, sizeof x.mnemonic, "%s.global.%s.v%d.%s", red ? "red" : "atom", vectors[v].op, x.n, x.type);
      test_one(&x);
    }
  test_contended("global", "%rd1");
  test_contended("shared", "%r1");
}
