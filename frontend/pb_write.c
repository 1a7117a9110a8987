/* The wire writer. A message is a chain of runs: small pieces are copied into rooms, large ones are ranges of a mapped
   file, and neighbours in memory become one run, so that what a program leaves alone is written as it was read. */
#include "pb.h"
#include <string.h>

enum { ROOM = 240, COPY_BELOW = 24 };

static void add_run(ny_pb_out *o, const uint8_t *p, uint64_t n) {
  o->n += n;
  if (o->last && o->last->p + o->last->n == p) {
    o->last->n += n;
    return;
  }
  ny_pb_run *r = NY_NEW(o->a, ny_pb_run);
  *r = (ny_pb_run){p, n, NULL};
  if (o->last)
    o->last->next = r;
  else
    o->first = r;
  o->last = r;
}

void ny_pb_put(ny_pb_out *o, const void *p, uint64_t n) {
  if (!n) return;
  if (n > o->left) {
    o->left = (uint32_t)(n > ROOM ? n : ROOM);
    o->room = ny_alloc(o->a, o->left);
  }
  memcpy(o->room, p, n);
  add_run(o, o->room, n);
  o->room += n;
  o->left -= (uint32_t)n;
}

void ny_pb_put_ref(ny_pb_out *o, ny_bytes b) {
  bool next = o->last && o->last->p + o->last->n == b.p;
  if (b.n < COPY_BELOW && !next)
    ny_pb_put(o, b.p, b.n);
  else
    add_run(o, b.p, b.n);
}

void ny_pb_put_varint(ny_pb_out *o, uint64_t v) {
  uint8_t b[10];
  int n = 0;
  do b[n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
  while (v >>= 7);
  ny_pb_put(o, b, (uint64_t)n);
}

static void tag(ny_pb_out *o, uint32_t field, ny_pb_wire w) { ny_pb_put_varint(o, (uint64_t)field << 3 | w); }

void ny_pb_put_int(ny_pb_out *o, uint32_t field, int64_t v) {
  tag(o, field, NY_PB_VARINT);
  ny_pb_put_varint(o, (uint64_t)v);
}

void ny_pb_put_f32(ny_pb_out *o, uint32_t field, float v) {
  uint8_t b[4];
  uint32_t u;
  memcpy(&u, &v, 4);
  for (int i = 0; i < 4; i++) b[i] = (uint8_t)(u >> (8 * i));
  tag(o, field, NY_PB_32);
  ny_pb_put(o, b, 4);
}

void ny_pb_put_bytes(ny_pb_out *o, uint32_t field, ny_bytes b) {
  tag(o, field, NY_PB_LEN);
  ny_pb_put_varint(o, b.n);
  if (b.n) ny_pb_put_ref(o, b);
}

void ny_pb_put_text(ny_pb_out *o, uint32_t field, const char *s) {
  tag(o, field, NY_PB_LEN);
  ny_pb_put_varint(o, strlen(s));
  ny_pb_put(o, s, strlen(s));
}

void ny_pb_put_msg(ny_pb_out *o, uint32_t field, ny_pb_out *child) {
  tag(o, field, NY_PB_LEN);
  ny_pb_put_varint(o, child->n);
  if (!child->n) return;
  if (o->last)
    o->last->next = child->first;
  else
    o->first = child->first;
  o->last = child->last;
  o->n += child->n;
  o->room = child->room; /* the run at the end may grow only in its own room */
  o->left = child->left;
}

bool ny_pb_write(const ny_pb_out *o, FILE *f) {
  for (const ny_pb_run *r = o->first; r; r = r->next)
    if (fwrite(r->p, 1, r->n, f) != r->n) return false;
  return true;
}

ny_bytes ny_pb_joined(const ny_pb_out *o) {
  uint8_t *p = ny_alloc(o->a, o->n + 1);
  uint64_t at = 0;
  for (const ny_pb_run *r = o->first; r; at += r->n, r = r->next) memcpy(p + at, r->p, r->n);
  return (ny_bytes){p, o->n};
}
