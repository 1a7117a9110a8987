/* CPU features by their LLVM names, read from the hardware: a module lists what its code needs and is refused where
   that is missing. A feature that has no row here counts as missing, so a new one can only lead to a refusal, never to
   an illegal instruction. */
#include "module.h"
#include <string.h>

typedef struct level {
  const char *name, *features; /* separated by one space */
} level;

static bool has_feature(const char *name);

/* The features of a level, whatever their number. */
static bool has_all(const char *list) {
  char name[32];
  for (size_t n; *list; list += n + (list[n] == ' ')) {
    n = strcspn(list, " ");
    if (n >= sizeof name) return false;
    memcpy(name, list, n);
    name[n] = 0;
    if (!has_feature(name)) return false;
  }
  return true;
}

static bool has_level(const level *l, size_t n, const char *name, bool *known) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(l[i].name, name)) return *known = true, has_all(l[i].features);
  return *known = false;
}

#if defined(__x86_64__)
#include <cpuid.h>

#define V2 "64bit cmov cx8 fxsr sse sse2 cx16 sahf popcnt sse3 ssse3 sse4.1 sse4.2"
#define V3 V2 " avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave"
static const level levels[] = {
    {"x86-64", "64bit cmov cx8 fxsr sse sse2"},
    {"x86-64-v2", V2},
    {"x86-64-v3", V3},
    {"x86-64-v4", V3 " avx512f avx512bw avx512cd avx512dq avx512vl"},
};

typedef struct feature {
  const char *name;
  uint32_t leaf;
  uint8_t sub, reg /* 0 to 3: a, b, c, d */, bit,
      state /* 1: needs the ymm state enabled by the system, 2: zmm, 3: tiles */;
} feature;

static const feature features[] = {
    {"cx8", 1, 0, 3, 8, 0},
    {"cmov", 1, 0, 3, 15, 0},
    {"mmx", 1, 0, 3, 23, 0},
    {"fxsr", 1, 0, 3, 24, 0},
    {"sse", 1, 0, 3, 25, 0},
    {"sse2", 1, 0, 3, 26, 0},
    {"sse3", 1, 0, 2, 0, 0},
    {"pclmul", 1, 0, 2, 1, 0},
    {"ssse3", 1, 0, 2, 9, 0},
    {"fma", 1, 0, 2, 12, 1},
    {"cx16", 1, 0, 2, 13, 0},
    {"sse4.1", 1, 0, 2, 19, 0},
    {"sse4.2", 1, 0, 2, 20, 0},
    {"crc32", 1, 0, 2, 20, 0},
    {"movbe", 1, 0, 2, 22, 0},
    {"popcnt", 1, 0, 2, 23, 0},
    {"aes", 1, 0, 2, 25, 0},
    {"xsave", 1, 0, 2, 26, 0},
    {"avx", 1, 0, 2, 28, 1},
    {"f16c", 1, 0, 2, 29, 1},
    {"rdrnd", 1, 0, 2, 30, 0},
    {"64bit", 0x80000001, 0, 3, 29, 0},
    {"sahf", 0x80000001, 0, 2, 0, 0},
    {"lzcnt", 0x80000001, 0, 2, 5, 0},
    {"sse4a", 0x80000001, 0, 2, 6, 0},
    {"prfchw", 0x80000001, 0, 2, 8, 0},
    {"xop", 0x80000001, 0, 2, 11, 1},
    {"lwp", 0x80000001, 0, 2, 15, 0},
    {"fma4", 0x80000001, 0, 2, 16, 1},
    {"tbm", 0x80000001, 0, 2, 21, 0},
    {"mwaitx", 0x80000001, 0, 2, 29, 0},
    {"clzero", 0x80000008, 0, 1, 0, 0},
    {"rdpru", 0x80000008, 0, 1, 4, 0},
    {"wbnoinvd", 0x80000008, 0, 1, 9, 0},
    {"fsgsbase", 7, 0, 1, 0, 0},
    {"sgx", 7, 0, 1, 2, 0},
    {"bmi", 7, 0, 1, 3, 0},
    {"avx2", 7, 0, 1, 5, 1},
    {"bmi2", 7, 0, 1, 8, 0},
    {"invpcid", 7, 0, 1, 10, 0},
    {"rtm", 7, 0, 1, 11, 0},
    {"avx512f", 7, 0, 1, 16, 2},
    {"evex512", 7, 0, 1, 16, 2},
    {"avx512dq", 7, 0, 1, 17, 2},
    {"rdseed", 7, 0, 1, 18, 0},
    {"adx", 7, 0, 1, 19, 0},
    {"avx512ifma", 7, 0, 1, 21, 2},
    {"clflushopt", 7, 0, 1, 23, 0},
    {"clwb", 7, 0, 1, 24, 0},
    {"avx512cd", 7, 0, 1, 28, 2},
    {"sha", 7, 0, 1, 29, 0},
    {"avx512bw", 7, 0, 1, 30, 2},
    {"avx512vl", 7, 0, 1, 31, 2},
    {"avx512vbmi", 7, 0, 2, 1, 2},
    {"pku", 7, 0, 2, 4, 0},
    {"waitpkg", 7, 0, 2, 5, 0},
    {"avx512vbmi2", 7, 0, 2, 6, 2},
    {"shstk", 7, 0, 2, 7, 0},
    {"gfni", 7, 0, 2, 8, 0},
    {"vaes", 7, 0, 2, 9, 1},
    {"vpclmulqdq", 7, 0, 2, 10, 1},
    {"avx512vnni", 7, 0, 2, 11, 2},
    {"avx512bitalg", 7, 0, 2, 12, 2},
    {"avx512vpopcntdq", 7, 0, 2, 14, 2},
    {"rdpid", 7, 0, 2, 22, 0},
    {"kl", 7, 0, 2, 23, 0},
    {"cldemote", 7, 0, 2, 25, 0},
    {"movdiri", 7, 0, 2, 27, 0},
    {"movdir64b", 7, 0, 2, 28, 0},
    {"enqcmd", 7, 0, 2, 29, 0},
    {"uintr", 7, 0, 3, 5, 0},
    {"avx512vp2intersect", 7, 0, 3, 8, 2},
    {"serialize", 7, 0, 3, 14, 0},
    {"tsxldtrk", 7, 0, 3, 16, 0},
    {"pconfig", 7, 0, 3, 18, 0},
    {"amx-bf16", 7, 0, 3, 22, 3},
    {"avx512fp16", 7, 0, 3, 23, 2},
    {"amx-tile", 7, 0, 3, 24, 3},
    {"amx-int8", 7, 0, 3, 25, 3},
    {"sha512", 7, 1, 0, 0, 1},
    {"sm3", 7, 1, 0, 1, 1},
    {"sm4", 7, 1, 0, 2, 1},
    {"raoint", 7, 1, 0, 3, 0},
    {"avxvnni", 7, 1, 0, 4, 1},
    {"avx512bf16", 7, 1, 0, 5, 2},
    {"cmpccxadd", 7, 1, 0, 7, 0},
    {"hreset", 7, 1, 0, 22, 0},
    {"avxifma", 7, 1, 0, 23, 1},
    {"amx-fp16", 7, 1, 0, 21, 3},
    {"avxvnniint8", 7, 1, 3, 4, 1},
    {"avxneconvert", 7, 1, 3, 5, 1},
    {"amx-complex", 7, 1, 3, 8, 3},
    {"avxvnniint16", 7, 1, 3, 10, 1},
    {"prefetchi", 7, 1, 3, 14, 0},
    {"usermsr", 7, 1, 3, 15, 0},
    {"xsaveopt", 0xd, 1, 0, 0, 0},
    {"xsavec", 0xd, 1, 0, 1, 0},
    {"xsaves", 0xd, 1, 0, 3, 0},
    {"ptwrite", 0x14, 0, 1, 4, 0},
};

static bool leaf(uint32_t number, uint32_t sub, uint32_t out[4]) {
  return __get_cpuid_count(number, sub, &out[0], &out[1], &out[2], &out[3]);
}

/* Wide registers also need the system to save them. */
static bool state_enabled(unsigned state) {
  static const uint32_t need[] = {0, 0x6, 0xe6, 0x60000};
  uint32_t r[4], low, high;
  if (!state) return true;
  if (!leaf(1, 0, r) || !(r[2] & bit_OSXSAVE)) return false;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & need[state]) == need[state];
}

static bool has_feature(const char *name) {
  for (size_t i = 0; i < NY_COUNT(features); i++) {
    const feature *f = &features[i];
    uint32_t r[4];
    if (!strcmp(f->name, name)) return leaf(f->leaf, f->sub, r) && (r[f->reg] >> f->bit & 1) && state_enabled(f->state);
  }
  return false;
}

const char *ny_cpu_arch(void) { return "x86_64"; }

#elif defined(__aarch64__)
#include <sys/auxv.h>

#define V9                                                                                                             \
  "neon fp-armv8 crc lse rdm rcpc fullfp16 fp16fml dotprod jsconv complxnum i8mm bf16" /* Armv9.0 without SVE */
static const level levels[] = {{"generic", "neon fp-armv8"}, {"neoverse-v2", V9}, {"cortex-x925", V9}};

typedef struct feature {
  const char *name;
  uint8_t word, bit; /* of AT_HWCAP (0) or AT_HWCAP2 (1) */
} feature;

static const feature features[] = {
    {"fp-armv8", 0, 0},   {"neon", 0, 1},     {"aes", 0, 3},       {"pmull", 0, 4}, {"sha2", 0, 6},
    {"crc", 0, 7},        {"lse", 0, 8},      {"fullfp16", 0, 10}, {"rdm", 0, 12},  {"jsconv", 0, 13},
    {"complxnum", 0, 14}, {"rcpc", 0, 15},    {"sha3", 0, 21},     {"sm4", 0, 19},  {"dotprod", 0, 20},
    {"sve", 0, 22},       {"fp16fml", 0, 23}, {"sve2", 1, 1},      {"i8mm", 1, 13}, {"bf16", 1, 14},
    {"v8a", 0, 1},
};

static bool has_feature(const char *name) {
  unsigned long word[2] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2)};
  for (size_t i = 0; i < NY_COUNT(features); i++)
    if (!strcmp(features[i].name, name)) return word[features[i].word] >> features[i].bit & 1;
  return false;
}

const char *ny_cpu_arch(void) { return "aarch64"; }

#else

static const level levels[] = {{"", ""}};
static bool has_feature(const char *name) { return (void)name, false; }
const char *ny_cpu_arch(void) { return "unknown"; }

#endif

bool ny_cpu_has(const char *name) {
  bool known, all = has_level(levels, NY_COUNT(levels), name, &known);
  return known ? all : has_feature(name);
}
