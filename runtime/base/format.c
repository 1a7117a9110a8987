/* The rows of formats.def as a table, and the storage arithmetic that follows from them. */
#include "base.h"
#include <string.h>

const ny_fmt_info ny_fmts[NY_N_FMT] = {
    [NY_none] = {.name = "none"},
#define FMT(name, kind, bits, onnx) [NY_##name] = {#name, #kind[0], bits, onnx},
#include "formats.def"
#undef FMT
};

ny_fmt ny_fmt_by_name(const char *s, size_t n) {
  for (int f = NY_none + 1; f < NY_N_FMT; f++)
    if (strlen(ny_fmts[f].name) == n && !memcmp(ny_fmts[f].name, s, n)) return (ny_fmt)f;
  return NY_none;
}

ny_fmt ny_fmt_by_onnx(int dtype) {
  for (int f = NY_none + 1; f < NY_N_FMT; f++)
    if (dtype > 0 && ny_fmts[f].onnx == dtype) return (ny_fmt)f;
  return NY_none;
}

uint64_t ny_fmt_bytes(ny_fmt f, uint64_t n) {
  const ny_fmt_info *i = &ny_fmts[f];
  uint64_t bits;
  if (__builtin_mul_overflow(n, (uint64_t)i->bits, &bits)) {
    /* Sizes near 2^64 bits are still countable in bytes when elements are whole bytes. */
    uint64_t bytes;
    return i->bits % 8 || __builtin_mul_overflow(n, (uint64_t)i->bits / 8, &bytes) ? UINT64_MAX : bytes;
  }
  return bits / 8 + (bits % 8 != 0);
}
