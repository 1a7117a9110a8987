/* The base layer against independent definitions: number formats by brute force over every code, SHA-256 by its
 * published vectors. */
#include "base.h"
#include "test.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- narrow floats: an independent decoder (by ldexp, from the published layouts) and nearest-value search */
typedef struct narrow {
  ny_fmt fmt;
  int bits, exp, man, bias;
  bool sign, inf; /* inf: top exponent is inf and NaN */
  int nan;        /* code of the only NaN, else -1: none, -2: by inf, -3: 0x7f and 0xff */
} narrow;
static const narrow narrows[] = {
    {NY_f16, 16, 5, 10, 15, true, true, -2},       {NY_bf16, 16, 8, 7, 127, true, true, -2},
    {NY_f8e4m3, 8, 4, 3, 7, true, false, -3},      {NY_f8e4m3fnuz, 8, 4, 3, 8, true, false, 0x80},
    {NY_f8e5m2, 8, 5, 2, 15, true, true, -2},      {NY_f8e5m2fnuz, 8, 5, 2, 16, true, false, 0x80},
    {NY_f8e8m0, 8, 8, 0, 127, false, false, 0xff}, {NY_f4e2m1, 4, 2, 1, 1, true, false, -1},
};

static double value_of(const narrow *w, int code) {
  if (!w->sign) return code == w->nan ? (double)NAN : ldexp(1, code - w->bias);
  int top = 1 << (w->bits - 1), s = code & top, e = (code & (top - 1)) >> w->man, m = code & ((1 << w->man) - 1);
  if (code == w->nan || (w->nan == -3 && (code & 0x7f) == 0x7f)) return (double)NAN;
  if (w->inf && e == (1 << w->exp) - 1) return m ? (double)NAN : s ? (double)-INFINITY : (double)INFINITY;
  double x = e ? ldexp((1 << w->man) + m, e - w->bias - w->man) : ldexp(m, 1 - w->bias - w->man);
  return s ? -x : x;
}

static bool same(double a, double b) { return (a != a && b != b) || (a == b && !signbit(a) == !signbit(b)); }

static double stored(ny_fmt f, double x, bool saturate) {
  uint8_t b[8] = {0};
  ny_put_f(f, b, 0, x, saturate);
  return ny_get_f(f, b, 0);
}

/* Between two neighbours lo < hi: the middle goes to the even code, everything else to the nearer. */
static void check_gap(const narrow *w, double lo, double hi, double even) {
  double mid = lo / 2 + hi / 2;
  CHECK_EACH(same(stored(w->fmt, mid, false), even), "%s: %a -> %a", ny_fmts[w->fmt].name, mid, stored(w->fmt, mid, false));
  CHECK_EACH(stored(w->fmt, nextafter(mid, -INFINITY), false) == lo, "%s below %a", ny_fmts[w->fmt].name, mid);
  CHECK_EACH(stored(w->fmt, nextafter(mid, INFINITY), false) == hi, "%s above %a", ny_fmts[w->fmt].name, mid);
}

static void check_narrow(const narrow *w) {
  const char *name = ny_fmts[w->fmt].name;
  double max = 0;
  int max_code = 0;
  for (int code = 0; code < 1 << w->bits; code++) {
    uint8_t b[2] = {(uint8_t)code, (uint8_t)(code >> 8)}, again[2] = {0, 0};
    double want = value_of(w, code), got = ny_get_f(w->fmt, b, 0);
    CHECK_EACH(same(got, want), "%s code %x: %a, not %a", name, code, got, want);
    ny_put_f(w->fmt, again, 0, want, false);
    CHECK_EACH(want != want || !memcmp(b, again, 2), "%s code %x came back as %x", name, code, again[0] | again[1] << 8);
    if (isfinite(want) && want > max) max = want, max_code = code;
  }
  for (int code = 0; code < max_code; code++) { /* positive codes are ordered */
    double lo = value_of(w, code), hi = value_of(w, code + 1);
    bool lo_even = w->man && !(code & 1); /* e8m0 has significand 1 below and 2 above */
    check_gap(w, lo, hi, lo_even ? lo : hi);
    if (w->sign && code) check_gap(w, -hi, -lo, lo_even ? -lo : -hi);
  }
  double past = w->man ? max + (max - value_of(w, max_code - 1)) : 2 * max, over = (max + past) / 2;
  double out = w->inf ? (double)INFINITY : w->nan == -1 ? max : (double)NAN;
  CHECK(stored(w->fmt, nextafter(over, 0), false) == max, "%s just below overflow", name);
  CHECK(same(stored(w->fmt, nextafter(over, INFINITY), false), out), "%s just above overflow", name);
  CHECK(same(stored(w->fmt, INFINITY, false), out), "%s inf", name);
  CHECK(stored(w->fmt, INFINITY, true) == max && stored(w->fmt, 1e300, true) == max, "%s saturates", name);
  if (w->sign)
    CHECK(stored(w->fmt, -INFINITY, true) == -max && stored(w->fmt, -1e300, true) == -max, "%s saturates", name);
  if (w->nan != -1) CHECK(isnan(stored(w->fmt, NAN, true)) && isnan(stored(w->fmt, NAN, false)), "%s NaN", name);
  if (w->sign) CHECK(same(stored(w->fmt, -0.0, false), w->nan == 0x80 ? 0.0 : -0.0), "%s -0", name);
  if (w->sign) CHECK(stored(w->fmt, 5e-324, false) == 0, "%s tiny", name);
}

static void check_integers(void) {
  static const int64_t samples[] = {0,
                                    1,
                                    -1,
                                    7,
                                    8,
                                    -8,
                                    -9,
                                    15,
                                    16,
                                    127,
                                    128,
                                    255,
                                    256,
                                    -128,
                                    -129,
                                    65535,
                                    65536,
                                    INT32_MAX,
                                    (int64_t)INT32_MAX + 1,
                                    UINT32_MAX,
                                    (int64_t)UINT32_MAX + 1,
                                    INT64_MAX,
                                    INT64_MIN};
  for (int f = NY_i64; f <= NY_bool; f++) {
    uint8_t room[64];
    for (size_t i = 0; i < NY_COUNT(samples); i++) {
      int64_t x = samples[i], want = ny_wrap_to((ny_fmt)f, x), bits = ny_fmts[f].bits;
      memset(room, 0xa5, sizeof room);
      ny_put_i((ny_fmt)f, room, 3, x);
      CHECK(ny_get_i((ny_fmt)f, room, 3) == want, "%s %lld", ny_fmts[f].name, (long long)x);
      if (bits >= 8)
        for (int k = 0; k < (int)sizeof room; k++)
          CHECK_EACH(k / (bits / 8) == 3 || room[k] == 0xa5, "%s touched byte %d", ny_fmts[f].name, k);
      if (f == NY_bool)
        CHECK(want == (x != 0), "bool");
      else if (bits < 64)
        CHECK((((uint64_t)want - (uint64_t)x) & (((uint64_t)1 << bits) - 1)) == 0, "%s wraps", ny_fmts[f].name);
    }
  }
  uint8_t nibbles[2] = {0};
  for (uint64_t i = 0; i < 4; i++) ny_put_i(NY_u4, nibbles, i, (int64_t)i + 1);
  CHECK(nibbles[0] == 0x21 && nibbles[1] == 0x43, "first element in the low bits: %x %x", nibbles[0], nibbles[1]);
  CHECK(ny_fmt_bytes(NY_i4, 3) == 2 && ny_fmt_bytes(NY_u2, 5) == 2 && ny_fmt_bytes(NY_f32, 5) == 20, "packed sizes");
  CHECK(ny_fmt_bytes(NY_f32, UINT64_MAX / 2) == UINT64_MAX && ny_fmt_bytes(NY_i8, UINT64_MAX / 4) == UINT64_MAX / 4,
        "overflow");
}

/* ---- digests */
static void digest(const char *what, const void *p, size_t n, size_t step, const char *want) {
  ny_sha256 h;
  ny_sha256_init(&h);
  for (size_t i = 0; i < n; i += step) ny_sha256_add(&h, (const char *)p + i, n - i < step ? n - i : step);
  uint8_t d[32];
  char hex[65];
  ny_sha256_end(&h, d);
  ny_sha256_hex(d, hex);
  CHECK(!strcmp(hex, want), "sha256(%s) = %s", what, hex);
}

static void check_digests(void) {
  digest("", "", 0, 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  digest("abc", "abc", 3, 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const char *two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  digest("two blocks", two, 56, 56, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  size_t n = 1000000;
  char *a = malloc(n);
  memset(a, 'a', n);
  static const size_t steps[] = {1, 63, 64, 65, 1000, 1000000};
  for (size_t i = 0; i < NY_COUNT(steps); i++)
    digest("million a", a, n, steps[i], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  free(a);
}

/* ---- text, names, arena, diagnostics, files */
static void check_text(void) {
  ny_text t = {0};
  static const double xs[] = {0,        0.1,  1e22, 5e-324, 1.7976931348623157e308, 1.0 / 3, 123456789.125,
                              2.5e-310, -0.0, 1,    100};
  for (size_t i = 0; i < NY_COUNT(xs); i++) {
    t.n = 0;
    ny_text_double(&t, xs[i]);
    CHECK(same(strtod(t.s, NULL), xs[i]), "%s is not %a", t.s, xs[i]);
  }
  t.n = 0;
  ny_text_double(&t, 5e-324);
  ny_text_add(&t, " ");
  ny_text_double(&t, 0.1);
  ny_text_add(&t, " ");
  ny_text_double(&t, -INFINITY);
  CHECK(!strcmp(t.s, "5e-324 0.1 -inf"), "%s", t.s);
  t.n = 0;
  ny_text_json(&t, "a\"\\\n\x01z");
  CHECK(!strcmp(t.s, "\"a\\\"\\\\\\n\\u0001z\""), "%s", t.s);
  t.n = 0;
  for (int i = 0; i < 1000; i++) ny_text_addf(&t, "%d,", i);
  CHECK(t.n == 3890 && !strcmp(t.s + 3886, "999,"), "%zu", t.n);
  ny_text_free(&t);
}

static void check_names(void) {
  ny_names t = {0};
  char s[32];
  const char *first[2000];
  for (int i = 0; i < 2000; i++) snprintf(s, sizeof s, "name %d", i), first[i] = ny_intern(&t, s);
  for (int i = 0; i < 2000; i++) {
    snprintf(s, sizeof s, "name %d!", i);
    CHECK_EACH(ny_internn(&t, s, strlen(s) - 1) == first[i], "%s", s);
  }
  CHECK(t.n == 2000 && ny_intern(&t, "") == ny_internn(&t, "x", 0), "%zu", t.n);
  ny_names_free(&t);
}

static void check_arena(void) {
  ny_arena a = {0};
  int *p = NULL;
  uint32_t n = 0, cap = 0;
  for (int i = 0; i < 100000; i++) {
    NY_PUSH_ROOM(&a, p, n, cap);
    p[n++] = i;
    if (i % 97 == 0) memset(ny_alloc(&a, (size_t)i), 0xff, (size_t)i);
  }
  for (int i = 0; i < 100000; i++) CHECK_EACH(p[i] == i, "%d", i);
  const char *z = ny_alloc(&a, 5000);
  for (int i = 0; i < 5000; i++) CHECK_EACH(!z[i] && (uintptr_t)z % 16 == 0, "not zeroed");
  CHECK(!strcmp(ny_strf(&a, "%d-%s", 5, "x"), "5-x"), "strf");
  ny_arena_free(&a);
}

static void check_diag(void) {
  ny_diag d = {.file = "m.onnx"};
  ny_loc loc = {"conv1", "Conv", 37, 99};
  CHECK(ny_fail(&d, NYB_E_SHAPE, &loc, "size %d", 3) == NYB_E_SHAPE, "code");
  CHECK(ny_fail(&d, NYB_E_TYPE, NULL, "later") == NYB_E_TYPE && d.code == NYB_E_SHAPE, "the first failure stays");
  ny_text t = {0};
  ny_diag_print(&d, &t);
  CHECK(!strcmp(t.s, "m.onnx: node 37 \"conv1\" (Conv): size 3"), "%s", t.s);
  ny_text_free(&t);
}

static void check_files(void) {
  char folder[] = "/tmp/nybble-base-XXXXXX", path[64];
  CHECK(mkdtemp(folder) != NULL, "%s", folder);
  snprintf(path, sizeof path, "%s/file", folder);
  ny_diag d = {0};
  ny_new_file nf;
  CHECK(!ny_file_begin(path, &nf, &d) && access(path, F_OK), "nothing before commit");
  CHECK(!ny_file_commit(&nf, &d), "%s", d.message);
  ny_map m;
  CHECK(!ny_map_open(path, &m, &d) && m.bytes == 0 && m.data, "empty map");
  ny_map_close(&m);
  CHECK(!ny_file_begin(path, &nf, &d) && fputs("hello", nf.f) >= 0 && !ny_file_commit(&nf, &d), "rewrite");
  CHECK(!ny_file_begin(path, &nf, &d) && fputs("rubbish", nf.f) >= 0, "abandon");
  ny_file_abort(&nf);
  ny_arena a = {0};
  char *s;
  size_t n;
  CHECK(!ny_file_read(&a, path, 5, &s, &n, &d) && n == 5 && !strcmp(s, "hello"), "%s", d.message);
  CHECK(ny_file_read(&a, path, 4, &s, &n, &d) == NYB_E_LIMIT, "limit");
  CHECK(!ny_map_open(path, &m, &d) && m.bytes == 5 && !memcmp(m.data, "hello", 5), "map");
  ny_map_close(&m);
  CHECK(ny_map_open(folder, &m, &d) == NYB_E_IO && ny_map_open("/nonexistent/x", &m, &d) == NYB_E_IO, "not files");
  unlink(path);
  struct stat st;
  CHECK(!mkfifo(path, 0600) && !ny_file_begin(path, &nf, &d) && fputs("hello", nf.f) >= 0 && !ny_file_commit(&nf, &d),
        "a pipe is written to: %s", d.message);
  CHECK(!stat(path, &st) && S_ISFIFO(st.st_mode), "and stays a pipe");
  unlink(path);
  snprintf(path, sizeof path, "%s/a/b", folder);
  setenv("NYBBLE_CACHE", path, 1);
  const char *cache = ny_cache_dir(&a);
  CHECK(cache && !strcmp(cache, path), "cache folder is made");
  chmod(path, 0777);
  CHECK(!ny_cache_dir(&a), "writable by others");
  rmdir(path);
  path[strlen(path) - 2] = 0;
  rmdir(path);
  CHECK(!rmdir(folder), "no temporary left behind");
  ny_arena_free(&a);
}

int main(void) {
  for (size_t i = 0; i < NY_COUNT(narrows); i++) check_narrow(&narrows[i]);
  check_integers();
  check_digests();
  check_text();
  check_names();
  check_arena();
  check_diag();
  check_files();
  ny_host_facts h;
  ny_host_read(&h);
  CHECK(h.n_cpu > 0 && h.mem_bytes > 0 && h.l1d > 0 && h.l2 > 0, "host facts");
  return test_end("base");
}
