/* Every scalar instruction of the simulator against C, over edge values and random bits; and that no row of its tables
   is without such a test or named below as tested elsewhere. */
#include "rows.h"
#include "test.h"
#include <ctype.h>
#include <fenv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t u64;
typedef int64_t s64;
typedef uint32_t u32;
typedef int32_t s32;
typedef int8_t s8;

/* ---- what the expressions of sim_ops.def are made of */
static u32 U(u64 v) { return (u32)v; }
static s32 S(u64 v) { return (s32)(u32)v; }
static uint16_t H(u64 v) { return (uint16_t)v; }
static int16_t SH(u64 v) { return (int16_t)v; }
static float F(u64 v) {
  u32 u = (u32)v;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static double D_(u64 v) {
  double f;
  memcpy(&f, &v, 8);
  return f;
}
static u64 fb(float f) {
  u32 u;
  memcpy(&u, &f, 4);
  return isnan(f) ? 0x7fffffff : u;
}
static u64 db(double f) {
  u64 u;
  memcpy(&u, &f, 8);
  return isnan(f) ? 0x7fffffffffffffff : u;
}
static s64 clamp(s64 v, s64 low, s64 high) { return v < low ? low : v > high ? high : v; }
static u64 high_product(u64 a, u64 b) {
  u64 al = U(a), ah = a >> 32, bl = U(b), bh = b >> 32, mid = ah * bl + (al * bl >> 32), mid2 = al * bh + U(mid);
  return ah * bh + (mid >> 32) + (mid2 >> 32);
}
static s64 element(u32 v, int bits, int k, int is_signed) {
  s64 e = v >> (bits * k) & ((1u << bits) - 1);
  return is_signed && e >> (bits - 1) ? e - (1 << bits) : e;
}
static s64 dot(u32 a, u32 b, int bits_a, int bits_b, int sa, int sb, int from) {
  s64 sum = 0;
  for (int k = 0; k < 32 / bits_a; k++) sum += element(a, bits_a, k, sa) * element(b, bits_b, k + from, sb);
  return sum;
}
static u64 funnel(u32 lo, u32 hi, u32 n, int left) {
  u32 v[64];
  for (u32 k = 0; k < 64; k++) v[k] = k < 32 ? lo >> k & 1 : hi >> (k - 32) & 1;
  u64 r = 0;
  for (u32 k = 0; k < 32; k++) {
    u32 at = left ? 32 + k - n : k + n;
    r |= (u64)(at < 64 ? v[at] : 0) << k;
  }
  return r;
}
static u64 permute(u32 a, u32 b, u32 sel) {
  u64 r = 0;
  for (int k = 0; k < 4; k++) {
    u32 s = sel >> 4 * k & 15, byte = (s & 4 ? b : a) >> 8 * (s & 3) & 255;
    if (s & 8) byte = byte & 128 ? 255 : 0;
    r |= (u64)byte << 8 * k;
  }
  return r;
}
/* As the PTX manual writes bfe: bit by bit. */
static u64 field(u64 a, u32 width, int is_signed, u64 pos, u64 len) {
  u64 last = pos + len - 1 < width - 1 ? pos + len - 1 : width - 1;
  u64 sign = is_signed && len ? a >> last & 1 : 0, r = 0;
  for (u32 k = 0; k < width; k++) r |= (k < len && pos + k < width ? a >> (pos + k) & 1 : sign) << k;
  return r;
}
static u64 insert(u64 a, u64 b, u32 width, u64 pos, u64 len) {
  for (u64 k = 0; k < len && pos + k < width; k++)
    b = (b & ~(1ull << (pos + k))) | (k < 64 ? a >> k & 1 : 0) << (pos + k);
  return b;
}
static u64 reverse(u64 v) {
  u64 r = 0;
  for (int k = 0; k < 64; k++) r |= (v >> k & 1) << (63 - k);
  return r;
}
static u64 bits(u64 v) {
  u64 n = 0;
  for (; v; v >>= 1) n += v & 1;
  return n;
}
static u64 highest(u64 v) {
  int n = -1;
  for (; v; v >>= 1) n++;
  return (u64)(s64)n;
}
static u64 nth(u32 v, u64 base, s32 n) {
  if (n == 0) return v >> base & 1 ? base : 0xffffffff;
  s32 left = abs(n);
  for (s64 k = (s64)base; k >= 0 && k<32; k += n> 0 ? 1 : -1)
    if (v >> k & 1 && !--left) return (u64)k;
  return 0xffffffff;
}
static float ftz(float f) { return fpclassify(f) == FP_SUBNORMAL ? copysignf(0, f) : f; }
static double ftzd(double f) { return fpclassify(f) == FP_SUBNORMAL ? copysign(0, f) : f; }
static float sat(float f) { return isnan(f) || f <= 0 ? 0 : f > 1 ? 1 : f; }
static float rounded(int mode, char op, float a, float b) {
  volatile float x = a, y = b, r;
  fesetround(mode);
  r = op == '+' ? x + y : op == '*' ? x * y : x / y;
  fesetround(FE_TONEAREST);
  return r;
}
static float double_to_float(double v, int mode) {
  volatile double x = v;
  volatile float r;
  fesetround(mode);
  r = (float)x;
  fesetround(FE_TONEAREST);
  return r;
}
static float integer_to_float(u64 v, int up) { /* by hand: 24 bits and what is cut off */
  int n = 0;
  bool lost = false;
  while (v >> 24) lost |= v & 1, v >>= 1, n++;
  if (up && lost) v++;
  return ldexpf((float)v, n);
}
static float less(float a, float b, int min) {
  if (isnan(a) || isnan(b)) return isnan(a) ? b : a;
  if (a == b) return !!signbit(a) == min ? a : b;
  return (a < b) == min ? a : b;
}
static double lessd(double a, double b, int min) {
  if (isnan(a) || isnan(b)) return isnan(a) ? b : a;
  if (a == b) return !!signbit(a) == min ? a : b;
  return (a < b) == min ? a : b;
}
static u64 xorsign(float a, float b) {
  float r = less(fabsf(a), fabsf(b), 0);
  return isnan(r) ? 0x7fffffff : fb(signbit(a) != signbit(b) ? -r : r);
}
static double upper(double v) {
  u64 u;
  memcpy(&u, &v, 8);
  u &= ~0xffffffffull;
  memcpy(&v, &u, 8);
  return ftzd(v);
}
static s64 to_int(double v, double (*round)(double), s64 low, s64 high) {
  if (isnan(v)) return 0;
  v = round(v);
  return v < (double)low ? low : v > (double)high ? high : (s64)v;
}
static s64 to_long(double v) {
  if (isnan(v)) return INT64_MIN;
  return v >= 0x1p63 ? INT64_MAX : v <= -0x1p63 ? INT64_MIN : (s64)v;
}

#define OP(name, text, signature, e)                                                                                   \
  static u64 ref_##name(u64 a, u64 b, u64 c) {                                                                         \
    (void)a, (void)b, (void)c;                                                                                         \
    return (u64)(e);                                                                                                   \
  }
#include "sim_ops.def"
#undef OP
static const struct ny_op {
  const char *name, *text, *signature;
  u64 (*ref)(u64, u64, u64);
} ops[] = {
#define OP(name, text, signature, e) {#name, text, signature, ref_##name},
#include "sim_ops.def"
#undef OP
};

/* ---- one kernel an instruction: o[i] = f(a[i], b[i], c[i]) */
static void load_operand(ny_text *t, char kind, char name, int at) {
  ny_text_addf(t, "  ld.global.u64 %%t, [%%in+%d];\n", at);
  switch (kind) {
  case 'h': ny_text_addf(t, "  cvt.u16.u64 %%h%c, %%t;\n", name); break;
  case 'w': ny_text_addf(t, "  cvt.u32.u64 %%w%c, %%t;\n", name); break;
  case 'l': ny_text_addf(t, "  mov.b64 %%l%c, %%t;\n", name); break;
  default: ny_text_addf(t, "  and.b64 %%t, %%t, 1;\n  setp.ne.u64 %%p%c, %%t, 0;\n", name);
  }
}
static void substitute(ny_text *t, const char *s, const char *signature) {
  for (char before = ' '; *s; before = *s++) {
    const char *letters = "DABC", *at = strchr(letters, *s);
    bool alone = at && !isalnum((unsigned char)before) && !isalnum((unsigned char)s[1]);
    if (!alone || (*s == 'D' ? 0 : !signature[1])) {
      ny_text_addn(t, s, 1);
      continue;
    }
    char kind = *s == 'D' ? signature[0] : signature[1 + (at - letters)];
    ny_text_addf(t, "%%%c%c", kind, *s);
  }
}
static void kernel(ny_text *t, const struct ny_op *op) {
  ny_text_addf(t, ".visible .entry %s(.param .u64 in, .param .u64 out)\n{\n", op->name);
  ny_text_add(t,
              "  .reg .b16 %hA,%hB,%hC,%hD; .reg .b32 %wA,%wB,%wC,%wD,%i; .reg .b64 %lA,%lB,%lC,%lD,%in,%out,%t,%o;\n"
              "  .reg .pred %pA,%pB,%pC,%pD;\n"
              "  ld.param.u64 %in, [in]; ld.param.u64 %out, [out]; mov.u32 %i, %tid.x;\n"
              "  mad.wide.u32 %in, %i, 24, %in; mad.wide.u32 %out, %i, 8, %out;\n");
  for (int k = 0; op->signature[2 + k]; k++) load_operand(t, op->signature[2 + k], (char)('A' + k), 8 * k);
  ny_text_add(t, "  ");
  substitute(t, op->text, op->signature);
  switch (op->signature[0]) {
  case 'h': ny_text_add(t, "\n  cvt.u64.u16 %o, %hD;\n"); break;
  case 'w': ny_text_add(t, "\n  cvt.u64.u32 %o, %wD;\n"); break;
  case 'l': ny_text_add(t, "\n  mov.b64 %o, %lD;\n"); break;
  default: ny_text_add(t, "\n  selp.u64 %o, 1, 0, %pD;\n");
  }
  ny_text_add(t, "  st.global.u64 [%out], %o;\n  ret;\n}\n");
}

/* ---- inputs */
static u64 state = 88172645463325252u;
static u64 random_bits(void) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}
static u64 input(void) {
  static const u64 edge[] = {0,
                             1,
                             2,
                             31,
                             32,
                             33,
                             63,
                             64,
                             0x7f,
                             0x80,
                             0xff,
                             0x7fff,
                             0x8000,
                             0xffff,
                             0x7fffff,
                             0x800000,
                             0x7fffffff,
                             0x80000000,
                             0x80000001,
                             0xffffffff,
                             0x3f800000,
                             0xbf800000,
                             0x4f000000,
                             0xcf000000,
                             0x7f800000,
                             0xff800000,
                             0x7fc00000,
                             0x7f7fffff,
                             0x3f000000,
                             0x40200000,
                             0x7fffffffffffffff,
                             0x8000000000000000,
                             0x3ff0000000000000,
                             0x7ff0000000000000,
                             0xfff0000000000000,
                             0x7ff8000000000000,
                             0x41dfffffffc00000,
                             0x43e0000000000000,
                             UINT64_MAX};
  u64 r = random_bits();
  if (r % 3 == 0) return edge[(r >> 8) % NY_COUNT(edge)];
  if (r % 3 == 1) return random_bits() >> (r >> 8 & 63);
  if (r & 0x100) return random_bits();
  float f = ldexpf((float)(s32)random_bits(), -(int)(r >> 16 & 31) - 10); /* floats of common sizes */
  double d = (double)f * 1.0000001;
  u64 u;
  memcpy(&u, &d, 8);
  return r & 0x200 ? u : fb(f);
}

static bool near_enough(const struct ny_op *op, u64 got, u64 want) {
  if (got == want) return true;
  if (op->signature[0] == 'l' && strstr(op->text, "f64") && isnan(D_(got)) && isnan(D_(want))) return true;
  if (!strstr(op->text, ".approx") || strstr(op->text, "f64")) return false;
  float g = F(got), w = F(want); /* the bound that PTX states, or better: 2 units */
  return fabsf(g - w) <= 2 * 0x1p-23f * fabsf(w);
}

enum { N = 1024 };
static void test_ops(void) {
  ny_text t = {0};
  ny_text_add(&t, ".version 8.6\n.target sm_100a\n.address_size 64\n");
  for (size_t k = 0; k < NY_COUNT(ops); k++) kernel(&t, &ops[k]);
  ny_diag d = {0};
  ny_sim_module *m = NULL;
  nyb_status s = ny_sim_load(t.s, t.n, "ops.ptx", &m, &d);
  CHECK(s == NYB_OK, "line %d: %s", d.line, d.message);
  if (s) return;
  u64 *in = malloc(N * 24), *out = malloc(N * 8);
  ny_sim_memory *mem = ny_sim_memory_new();
  ny_sim_map(mem, in, N * 24, "in", true, &d);
  ny_sim_map(mem, out, N * 8, "out", false, &d);
  const void *params[2] = {in, out};
  for (size_t k = 0; k < NY_COUNT(ops); k++) {
    for (int i = 0; i < 3 * N; i++) in[i] = input();
    /* An odd number of threads: both the way for full warps and the one for some lanes. */
    ny_sim_launch l = {m, ny_sim_kernel_index(m, ops[k].name), {1, 1, 1}, {N - 13, 1, 1}, 0, params, mem, {0}};
    ny_sim_result r = {0};
    ny_diag_clear(&d);
    memset(out, 0xee, N * 8);
    CHECK(ny_sim_run(&l, &r, &d) == NYB_OK, "%s: %s", ops[k].name, d.message);
    int wrong = -1;
    for (int i = 0; i < N - 13 && wrong < 0; i++)
      if (!near_enough(&ops[k], out[i], ops[k].ref(in[3 * i], in[3 * i + 1], in[3 * i + 2]))) wrong = i;
    CHECK(wrong < 0, "%s of %llx, %llx, %llx is %llx and not %llx", ops[k].text, (unsigned long long)in[3 * wrong],
          (unsigned long long)in[3 * wrong + 1], (unsigned long long)in[3 * wrong + 2], (unsigned long long)out[wrong],
          (unsigned long long)ops[k].ref(in[3 * wrong], in[3 * wrong + 1], in[3 * wrong + 2]));
    CHECK_EACH(out[N - 13] == 0xeeeeeeeeeeeeeeee, "%s: a thread that is not there wrote", ops[k].name);
    ny_sim_result_free(&r);
  }
  ny_sim_unload(m);
  ny_sim_memory_free(mem);
  ny_text_free(&t);
  free(in);
  free(out);
}

/* ---- no row without a test: each mnemonic in the texts above marks the row it means */
static bool marked[64][128];
static void mark(const char *s, size_t n) {
  ny_ptx_match m;
  for (size_t t = 0; t < ny_ptx_n_tables; t++)
    for (size_t r = 0; r < *ny_ptx_tables[t].n && r < 128; r++)
      if (ny_row_match(&ny_ptx_tables[t].row[r], s, n, &m)) {
        marked[t][r] = true;
        return;
      }
}
static void test_rows(void) {
  static const char *const topics[] = {"int", "bits", "float", "compare", "move", "convert"};
  static const char *const elsewhere[] = {"cvta", "isspacep", "mapa"}; /* sim_test */
  for (size_t k = 0; k < NY_COUNT(ops); k++)
    for (const char *s = ops[k].text; *s;) {
      size_t n = strcspn(s, " ;{}");
      if (n) mark(s, n);
      s += n;
      while (*s && strchr(" ;{}", *s)) s++;
    }
  for (size_t t = 0; t < ny_ptx_n_tables; t++) {
    bool scalar = false;
    for (size_t k = 0; k < NY_COUNT(topics); k++) scalar = scalar || !strcmp(ny_ptx_tables[t].topic, topics[k]);
    for (size_t r = 0; scalar && r < *ny_ptx_tables[t].n; r++) {
      bool other = false;
      for (size_t k = 0; k < NY_COUNT(elsewhere); k++)
        other = other || !strncmp(ny_ptx_tables[t].row[r].pattern, elsewhere[k], strlen(elsewhere[k]));
      CHECK(other || marked[t][r], "the row \"%s\" has no test", ny_ptx_tables[t].row[r].pattern);
    }
  }
}

int main(void) {
  test_ops();
  test_rows();
  return test_end("sim_ops_test");
}
