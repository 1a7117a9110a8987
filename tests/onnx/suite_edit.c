/* Edits a ModelProto on the wire. Operators whose output shape depends on a value (axes, sizes, repeats) are given that
   value as a constant, which is what a user of such a model does; types of inputs become static. Everything else is
   copied as it is. */
#include <string.h>

#include "suite.h"

typedef struct bytes {
  ny_arena *a;
  uint8_t *p;
  size_t n, cap;
} bytes;

static void put(bytes *b, const void *p, size_t n) {
  while (b->n + n > b->cap) {
    size_t cap = b->cap ? b->cap * 2 : 256;
    b->p = ny_grow(b->a, b->p, b->cap, cap);
    b->cap = cap;
  }
  if (n) memcpy(b->p + b->n, p, n);
  b->n += n;
}
static void varint(bytes *b, uint64_t v) {
  do {
    uint8_t c = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
    put(b, &c, 1);
    v >>= 7;
  } while (v);
}
static void number(bytes *b, uint32_t field, uint64_t v) { varint(b, field << 3), varint(b, v); }
static void message(bytes *b, uint32_t field, const void *p, size_t n) {
  varint(b, field << 3 | 2), varint(b, n), put(b, p, n);
}
static void field_of(bytes *b, const ny_pb *r) {
  if (r->wire == NY_PB_LEN)
    message(b, r->field, r->bytes.p, (size_t)r->bytes.n);
  else if (r->wire == NY_PB_VARINT)
    number(b, r->field, r->value);
  else
    varint(b, r->field << 3 | r->wire),
        put(b, &r->value, r->wire == NY_PB_64 ? 8 : 4); /* little-endian hosts only, as all of ours */
}

static bool name_is(ny_bytes message_, uint32_t field, const char *name) {
  ny_pb r = ny_pb_over(message_);
  while (ny_pb_next(&r))
    if (r.field == field && r.wire == NY_PB_LEN)
      return r.bytes.n == strlen(name) && !memcmp(r.bytes.p, name, r.bytes.n);
  return false;
}

static void tensor(bytes *g, const suite_input *in) {
  bytes t = {.a = g->a};
  const ny_type *ty = in->t->type;
  uint64_t count = 1;
  for (int i = 0; i < ty->rank; i++) number(&t, 1, (uint64_t)ty->dim[i]), count *= (uint64_t)ty->dim[i];
  number(&t, 2, (uint64_t)ny_fmts[ty->fmt].onnx);
  message(&t, 8, in->name, strlen(in->name));
  message(&t, 9, in->t->data, (size_t)ny_fmt_bytes((ny_fmt)ty->fmt, count));
  message(g, 5, t.p, t.n);
}

static void value_info(bytes *g, const suite_input *in) {
  bytes shape = {.a = g->a}, ten = {.a = g->a}, type = {.a = g->a}, v = {.a = g->a};
  const ny_type *ty = in->t->type;
  for (int i = 0; i < ty->rank; i++) {
    bytes d = {.a = g->a};
    number(&d, 1, (uint64_t)ty->dim[i]);
    message(&shape, 1, d.p, d.n);
  }
  number(&ten, 1, (uint64_t)ny_fmts[ty->fmt].onnx);
  message(&ten, 2, shape.p, shape.n);
  message(&type, 1, ten.p, ten.n);
  message(&v, 1, in->name, strlen(in->name));
  message(&v, 2, type.p, type.n);
  message(g, 11, v.p, v.n);
}

static void graph(bytes *out, ny_bytes old, const suite_input *in, size_t n) {
  bytes g = {.a = out->a};
  ny_pb r = ny_pb_over(old);
  while (ny_pb_next(&r)) {
    const suite_input *hit = NULL;
    if (r.field == 11 && r.wire == NY_PB_LEN)
      for (size_t i = 0; i < n && !hit; i++)
        if (in[i].t && name_is(r.bytes, 1, in[i].name)) hit = &in[i];
    if (!hit)
      field_of(&g, &r);
    else if (hit->pin)
      tensor(&g, hit);
    else
      value_info(&g, hit);
  }
  message(out, 7, g.p, g.n);
}

ny_bytes suite_specialise(ny_arena *a, ny_bytes model, const suite_input *in, size_t n) {
  bytes out = {.a = a};
  ny_pb r = ny_pb_over(model);
  while (ny_pb_next(&r)) {
    if (r.field == 7 && r.wire == NY_PB_LEN)
      graph(&out, r.bytes, in, n);
    else
      field_of(&out, &r);
  }
  return (ny_bytes){out.p, out.n};
}

static char *text_field(ny_arena *a, ny_bytes message_, uint32_t field) {
  ny_pb r = ny_pb_over(message_);
  while (ny_pb_next(&r))
    if (r.field == field && r.wire == NY_PB_LEN) return ny_strndup(a, (const char *)r.bytes.p, (size_t)r.bytes.n);
  return ny_strdup(a, "");
}

static bool has_initializer(ny_bytes g, const char *name) {
  ny_pb r = ny_pb_over(g);
  while (ny_pb_next(&r))
    if (r.field == 5 && r.wire == NY_PB_LEN && name_is(r.bytes, 8, name)) return true;
  return false;
}

bool suite_inputs(ny_arena *a, ny_bytes model, const char ***name, size_t *n) {
  size_t cap = 0;
  *name = NULL, *n = 0;
  ny_pb m = ny_pb_over(model);
  while (ny_pb_next(&m)) {
    if (m.field != 7 || m.wire != NY_PB_LEN) continue;
    ny_pb r = ny_pb_over(m.bytes);
    while (ny_pb_next(&r)) {
      if (r.field != 11 || r.wire != NY_PB_LEN) continue;
      char *s = text_field(a, r.bytes, 1);
      if (has_initializer(m.bytes, s)) continue;
      NY_PUSH_ROOM(a, *name, *n, cap);
      (*name)[(*n)++] = s;
    }
    if (r.bad) return false;
  }
  return !m.bad;
}
