/* Number formats for another program to judge (tests/formats.py): `formats_tool decode FORMAT` writes the value of
   every code, `encode FORMAT` reads f32 (integer formats: i32) and writes a code for each in one byte, or two, through
   packed storage; `saturate` does the same with saturation. */
#include "base.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 16 };

static int decode(ny_fmt f) {
  int bits = ny_fmts[f].bits;
  uint8_t *codes = calloc((size_t)1 << bits, 2);
  if (!codes) return 1;
  for (uint32_t c = 0; c < 1u << bits; c++) {
    if (bits >= 8)
      memcpy(codes + c * (unsigned)bits / 8, &c, (size_t)bits / 8);
    else
      codes[c / (8u / bits)] |= (uint8_t)(c << c % (8u / bits) * bits);
  }
  for (uint64_t c = 0; c < (uint64_t)1 << bits; c++) {
    double x = ny_is_float(f) ? ny_get_f(f, codes, c) : (double)ny_get_i(f, codes, c);
    fwrite(&x, sizeof x, 1, stdout);
  }
  free(codes);
  return 0;
}

static int encode(ny_fmt f, bool saturate) {
  static uint32_t in[CHUNK];
  static uint8_t packed[CHUNK * 2], out[CHUNK * 2];
  int bits = ny_fmts[f].bits;
  size_t n, width = bits > 8 ? 2 : 1;
  while ((n = fread(in, 4, CHUNK, stdin)) > 0) {
    memset(packed, 0xa5, sizeof packed); /* neighbours in a byte must stay */
    for (size_t i = 0; i < n; i++) {
      float x;
      int32_t k;
      memcpy(&x, &in[i], 4);
      memcpy(&k, &in[i], 4);
      if (ny_is_float(f))
        ny_put_f(f, packed, i, (double)x, saturate);
      else
        ny_put_i(f, packed, i, k);
    }
    for (size_t i = 0; i < n; i++) {
      unsigned per = bits < 8 ? 8u / bits : 1;
      if (bits < 8)
        out[i] = (uint8_t)(packed[i / per] >> i % per * bits & ((1u << bits) - 1));
      else
        memcpy(out + i * width, packed + i * width, width);
    }
    if (fwrite(out, width, n, stdout) != n) return 1;
  }
  return 0;
}

int main(int argc, char **argv) {
  ny_fmt f = argc > 2 ? ny_fmt_by_name(argv[2], strlen(argv[2])) : NY_none;
  if (f == NY_none || ny_fmts[f].bits > 16 || ny_fmts[f].kind == 'S') return 2;
  return !strcmp(argv[1], "decode") ? decode(f) : encode(f, !strcmp(argv[1], "saturate"));
}
