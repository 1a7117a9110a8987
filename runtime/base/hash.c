/* SHA-256. Weights of many GB are hashed, so the x86 SHA instructions are used where the CPU has them; the plain
   version is the definition and what every other machine runs. */
#include "base.h"
#include <stdatomic.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

static uint32_t big_endian(const uint8_t *p) {
  uint32_t x;
  memcpy(&x, p, 4);
  return __builtin_bswap32(x);
}

static void blocks_plain(uint32_t state[8], const uint8_t *p, size_t n_blocks) {
  for (; n_blocks; n_blocks--, p += 64) {
    uint32_t w[64], s[8];
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 16; i++) w[i] = big_endian(p + 4 * i);
    for (int i = 16; i < 64; i++) {
      uint32_t a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + (ror(a, 7) ^ ror(a, 18) ^ a >> 3) + w[i - 7] + (ror(b, 17) ^ ror(b, 19) ^ b >> 10);
    }
    for (int i = 0; i < 64; i += 8) {
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++) { /* the eight words rotate by name, not by moving */
#define S(k) s[((k)-j) & 7]
        uint32_t e = S(4), a = S(0);
        uint32_t t1 = S(7) + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & S(5)) ^ (~e & S(6))) + K[i + j] + w[i + j];
        S(3) += t1;
        S(7) = t1 + (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & S(1)) ^ (a & S(2)) ^ (S(1) & S(2)));
#undef S
      }
    }
    for (int i = 0; i < 8; i++) state[i] += s[i];
  }
}

#if defined(__x86_64__)
/* The instructions keep the state as (ABEF, CDGH) and do two rounds each on four schedule words at a time. */
__attribute__((target("sha,sse4.1"))) static void blocks_sha(uint32_t state[8], const uint8_t *p, size_t n_blocks) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  __m128i dcba = _mm_loadu_si128((const __m128i *)state), hgfe = _mm_loadu_si128((const __m128i *)(state + 4));
  __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
  __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
  for (; n_blocks; n_blocks--, p += 64) {
    __m128i before0 = abef, before1 = cdgh, w[4];
    for (int i = 0; i < 4; i++) w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + 16 * i)), swap);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      if (i >= 4) {
        __m128i t = _mm_add_epi32(_mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]),
                                  _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
        w[i & 3] = _mm_sha256msg2_epu32(t, w[(i + 3) & 3]);
      }
      __m128i k = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)(K + 4 * i)));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, k);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(k, 0x0e));
    }
    abef = _mm_add_epi32(abef, before0);
    cdgh = _mm_add_epi32(cdgh, before1);
  }
  __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

#include <cpuid.h>
static bool cpu_has_sha(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3)) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}
#endif

static void blocks(uint32_t state[8], const uint8_t *p, size_t n_blocks) {
#if defined(__x86_64__)
  static atomic_int has; /* 0: not looked yet */
  int h = atomic_load_explicit(&has, memory_order_relaxed);
  if (!h) atomic_store_explicit(&has, h = cpu_has_sha() ? 1 : 2, memory_order_relaxed);
  if (h == 1) {
    blocks_sha(state, p, n_blocks);
    return;
  }
#endif
  blocks_plain(state, p, n_blocks);
}

void ny_sha256_init(ny_sha256 *h) {
  static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  *h = (ny_sha256){0};
  memcpy(h->state, start, sizeof start);
}

void ny_sha256_add(ny_sha256 *h, const void *data, size_t n) {
  const uint8_t *p = data;
  size_t have = h->n % 64;
  h->n += n;
  if (have) {
    size_t take = n < 64 - have ? n : 64 - have;
    if (take) memcpy(h->block + have, p, take);
    p += take;
    n -= take;
    if (have + take < 64) return;
    blocks(h->state, h->block, 1);
  }
  blocks(h->state, p, n / 64);
  if (n % 64) memcpy(h->block, p + n / 64 * 64, n % 64);
}

void ny_sha256_end(ny_sha256 *h, uint8_t out[32]) {
  uint64_t bits = __builtin_bswap64(h->n * 8);
  static const uint8_t pad[64] = {0x80};
  ny_sha256_add(h, pad, 1 + (119 - h->n % 64) % 64);
  ny_sha256_add(h, &bits, 8);
  for (int i = 0; i < 8; i++) {
    uint32_t x = __builtin_bswap32(h->state[i]);
    memcpy(out + 4 * i, &x, 4);
  }
}

void ny_sha256_hex(const uint8_t digest[32], char out[65]) {
  for (int i = 0; i < 32; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}
