/* Protobuf wire format, read in place. A message is a range of bytes; a reader walks its fields and never allocates, so
   a model's weights stay where the file was mapped. Nesting is the caller's: each level opens a reader over one field's
   bytes and bounds its own depth. */
#ifndef NY_PB_H
#define NY_PB_H
#include "base.h"

typedef struct ny_bytes {
  const uint8_t *p;
  uint64_t n;
} ny_bytes;

typedef enum ny_pb_wire { NY_PB_VARINT = 0, NY_PB_64 = 1, NY_PB_LEN = 2, NY_PB_32 = 5 } ny_pb_wire;
typedef struct ny_pb {
  const uint8_t *p, *end;
  uint32_t field, wire;
  uint64_t value; /* of a varint or fixed-size field */
  ny_bytes bytes; /* of a length-delimited field */
  bool bad;       /* the bytes were not a message; p stands at the fault */
} ny_pb;

ny_pb ny_pb_over(ny_bytes b);
/* The next field; false at the end and when malformed (then ->bad). Groups, long retired, are malformed. */
bool ny_pb_next(ny_pb *r);
bool ny_pb_varint(const uint8_t **p, const uint8_t *end, uint64_t *out);
/* Elements of a repeated number: of this field, packed (a whole list) or not (one). */
uint64_t ny_pb_count_numbers(const ny_pb *r, ny_pb_wire element);
/* How often fields 0..n-1 occur; false when malformed. */
bool ny_pb_count_fields(ny_bytes b, uint64_t *count, uint32_t n);

/* ---- pb_write.c: a message being made, as runs of bytes: what is copied from a file stays where it is mapped until
   the message is written. Made in an arena; a child that was put is used up. */
typedef struct ny_pb_run {
  const uint8_t *p;
  uint64_t n;
  struct ny_pb_run *next;
} ny_pb_run;
typedef struct ny_pb_out {
  struct ny_arena *a;
  ny_pb_run *first, *last;
  uint64_t n;    /* bytes */
  uint8_t *room; /* where small pieces are copied, and what is left there */
  uint32_t left;
} ny_pb_out;
void ny_pb_put(ny_pb_out *o, const void *p, uint64_t n); /* copied */
void ny_pb_put_ref(ny_pb_out *o, ny_bytes b);            /* must stay until the message is written */
void ny_pb_put_varint(ny_pb_out *o, uint64_t v);
void ny_pb_put_int(ny_pb_out *o, uint32_t field, int64_t v);
void ny_pb_put_f32(ny_pb_out *o, uint32_t field, float v);
void ny_pb_put_bytes(ny_pb_out *o, uint32_t field, ny_bytes b); /* by reference */
void ny_pb_put_text(ny_pb_out *o, uint32_t field, const char *s);
void ny_pb_put_msg(ny_pb_out *o, uint32_t field, ny_pb_out *child);
bool ny_pb_write(const ny_pb_out *o, FILE *f);
ny_bytes ny_pb_joined(const ny_pb_out *o); /* in one piece, in the arena */

float ny_pb_f32(uint64_t bits);
double ny_pb_f64(uint64_t bits);
#endif
