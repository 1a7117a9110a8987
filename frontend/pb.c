/* The wire reader. Every length is compared with what is left before it is used, so a reader can point only inside its
 * message. */
#include "pb.h"
#include <string.h>

ny_pb ny_pb_over(ny_bytes b) {
  static const uint8_t empty[1];
  const uint8_t *p = b.n ? b.p : empty;
  return (ny_pb){.p = p, .end = p + b.n};
}

bool ny_pb_varint(const uint8_t **p, const uint8_t *end, uint64_t *out) {
  uint64_t v = 0;
  const uint8_t *q = *p;
  for (int shift = 0; shift < 64 && q < end; shift += 7) {
    uint8_t byte = *q++;
    v |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) {
      *p = q;
      *out = v;
      return true;
    }
  }
  return false;
}

static bool fixed(ny_pb *r, int bytes) {
  if (r->end - r->p < bytes) return false;
  r->value = 0;
  for (int i = bytes - 1; i >= 0; i--) r->value = r->value << 8 | r->p[i];
  r->p += bytes;
  return true;
}

static bool payload(ny_pb *r) {
  switch (r->wire) {
  case NY_PB_VARINT: return ny_pb_varint(&r->p, r->end, &r->value);
  case NY_PB_64: return fixed(r, 8);
  case NY_PB_32: return fixed(r, 4);
  case NY_PB_LEN:
    if (!ny_pb_varint(&r->p, r->end, &r->value) || r->value > (uint64_t)(r->end - r->p)) return false;
    r->bytes = (ny_bytes){r->p, r->value};
    r->p += r->value;
    return true;
  default: return false;
  }
}

bool ny_pb_next(ny_pb *r) {
  if (r->bad || r->p == r->end) return false;
  uint64_t key = 0;
  r->bytes = (ny_bytes){NULL, 0};
  if (!ny_pb_varint(&r->p, r->end, &key) || key >> 3 == 0 || key >> 3 > 0x1fffffff) {
    r->bad = true;
    return false;
  }
  r->field = (uint32_t)(key >> 3);
  r->wire = (uint32_t)(key & 7);
  r->bad = !payload(r);
  return !r->bad;
}

uint64_t ny_pb_count_numbers(const ny_pb *r, ny_pb_wire element) {
  if (r->wire != NY_PB_LEN) return 1;
  if (element == NY_PB_32) return r->bytes.n / 4;
  if (element == NY_PB_64) return r->bytes.n / 8;
  uint64_t n = 0;
  for (uint64_t i = 0; i < r->bytes.n; i++) n += r->bytes.p[i] < 0x80;
  return n;
}

bool ny_pb_count_fields(ny_bytes b, uint64_t *count, uint32_t n) {
  memset(count, 0, n * sizeof *count);
  ny_pb r = ny_pb_over(b);
  while (ny_pb_next(&r))
    if (r.field < n) count[r.field]++;
  return !r.bad;
}

float ny_pb_f32(uint64_t bits) {
  uint32_t low = (uint32_t)bits;
  float f;
  memcpy(&f, &low, sizeof f);
  return f;
}

double ny_pb_f64(uint64_t bits) {
  double f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
