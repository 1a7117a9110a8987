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

static void initializer(bytes *g, const char *name, const ny_tensor *in) {
  bytes t = {.a = g->a};
  const ny_type *ty = in->type;
  uint64_t count = 1;
  for (int i = 0; i < ty->rank; i++) number(&t, 1, (uint64_t)ty->dim[i]), count *= (uint64_t)ty->dim[i];
  number(&t, 2, (uint64_t)ny_fmts[ty->fmt].onnx);
  message(&t, 8, name, strlen(name));
  message(&t, 9, in->data, (size_t)ny_fmt_bytes((ny_fmt)ty->fmt, count));
  message(g, 5, t.p, t.n);
}

static void value_info(bytes *g, uint32_t field, const char *name, const ny_tensor *in) {
  bytes shape = {.a = g->a}, ten = {.a = g->a}, type = {.a = g->a}, v = {.a = g->a};
  const ny_type *ty = in->type;
  for (int i = 0; i < ty->rank; i++) {
    bytes d = {.a = g->a};
    number(&d, 1, (uint64_t)ty->dim[i]);
    message(&shape, 1, d.p, d.n);
  }
  number(&ten, 1, (uint64_t)ny_fmts[ty->fmt].onnx);
  message(&ten, 2, shape.p, shape.n);
  message(&type, 1, ten.p, ten.n);
  message(&v, 1, name, strlen(name));
  message(&v, 2, type.p, type.n);
  message(g, field, v.p, v.n);
}

static void int_attr(bytes *node, const char *name, int64_t value) {
  bytes a = {.a = node->a};
  message(&a, 1, name, strlen(name));
  number(&a, 3, (uint64_t)value);
  number(&a, 20, 2); /* INT */
  message(node, 5, a.p, a.n);
}

static void node(bytes *g, const char *op, char *const *in, size_t n_in, const char *out, const char *attr,
                 int64_t value) {
  bytes b = {.a = g->a};
  for (size_t i = 0; i < n_in; i++) message(&b, 1, in[i], strlen(in[i]));
  message(&b, 2, out, strlen(out));
  message(&b, 4, op, strlen(op));
  if (attr) int_attr(&b, attr, value);
  message(g, 1, b.p, b.n);
}

static char **item_names(ny_arena *a, const suite_value *v) {
  char **s = NY_NEW_ARRAY(a, char *, v->n + 1);
  for (size_t i = 0; i < v->n; i++) s[i] = ny_strf(a, "%s#%zu", v->name, i);
  return s;
}

static void input(bytes *g, const suite_value *v) {
  if (v->kind == SUITE_TENSOR) {
    if (v->pin)
      initializer(g, v->name, v->item);
    else
      value_info(g, 11, v->name, v->item);
    return;
  }
  if (v->kind == SUITE_NOTHING) {
    node(g, "Optional", NULL, 0, v->name, NULL, 0);
    return;
  }
  char **s = item_names(g->a, v);
  for (size_t i = 0; i < v->n; i++) value_info(g, 11, s[i], &v->item[i]);
  if (v->n)
    node(g, "SequenceConstruct", s, v->n, v->name, NULL, 0);
  else
    node(g, "SequenceEmpty", NULL, 0, v->name, "dtype", ny_fmts[v->fmt].onnx);
}

/* A sequence result: its items, then its length. */
static void output_list(bytes *g, ny_ctx *cx, const suite_value *v) {
  char **s = item_names(g->a, v), *len = ny_strf(g->a, "%s#n", v->name);
  const ny_tensor scalar = {.type = ny_tensor_type(cx, NY_i64, 0, NULL)};
  for (size_t i = 0; i < v->n; i++) {
    char *at = ny_strf(g->a, "%s#at%zu", v->name, i);
    node(g, "Constant", NULL, 0, at, "value_int", (int64_t)i);
    node(g, "SequenceAt", (char *[]){(char *)(uintptr_t)v->name, at}, 2, s[i], NULL, 0);
    value_info(g, 12, s[i], &v->item[i]);
  }
  node(g, "SequenceLength", (char *[]){(char *)(uintptr_t)v->name}, 1, len, NULL, 0);
  value_info(g, 12, len, &scalar);
}

static const suite_value *among(const suite_value *v, size_t n, ny_bytes info) {
  for (size_t i = 0; i < n; i++)
    if ((v[i].item || v[i].kind != SUITE_TENSOR) && name_is(info, 1, v[i].name)) return &v[i];
  return NULL;
}

static void graph(bytes *to, ny_bytes old, ny_ctx *cx, const suite_value *in, size_t n_in, const suite_value *out,
                  size_t n_out) {
  bytes g = {.a = to->a};
  ny_pb r = ny_pb_over(old);
  while (ny_pb_next(&r)) {
    bool value = (r.field == 11 || r.field == 12) && r.wire == NY_PB_LEN;
    const suite_value *hit = !value ? NULL : r.field == 11 ? among(in, n_in, r.bytes) : among(out, n_out, r.bytes);
    if (hit && r.field == 11)
      input(&g, hit);
    else if (hit && hit->kind == SUITE_SEQUENCE)
      output_list(&g, cx, hit);
    else
      field_of(&g, &r);
  }
  message(to, 7, g.p, g.n);
}

ny_bytes suite_specialise(ny_arena *a, ny_ctx *cx, ny_bytes model, const suite_value *in, size_t n_in,
                          const suite_value *out, size_t n_out) {
  bytes to = {.a = a};
  ny_pb r = ny_pb_over(model);
  while (ny_pb_next(&r)) {
    if (r.field == 7 && r.wire == NY_PB_LEN)
      graph(&to, r.bytes, cx, in, n_in, out, n_out);
    else
      field_of(&to, &r);
  }
  return (ny_bytes){to.p, to.n};
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

static ny_bytes sub(ny_bytes m, uint32_t field) {
  ny_pb r = ny_pb_over(m);
  while (ny_pb_next(&r))
    if (r.field == field && r.wire == NY_PB_LEN) return r.bytes;
  return (ny_bytes){0};
}

/* TypeProto: optional_type 9, sequence_type 4, tensor_type 1; each holds its element type in field 1. */
static void read_type(ny_bytes type, suite_value *v) {
  ny_bytes inner = sub(type, 9);
  if (inner.p) v->is_optional = true, type = sub(inner, 1);
  v->is_list = sub(type, 4).p != NULL;
}

bool suite_values(ny_arena *a, ny_bytes model, uint32_t field, suite_value **v, size_t *n) {
  size_t cap = 0;
  *v = NULL, *n = 0;
  ny_pb m = ny_pb_over(model);
  while (ny_pb_next(&m)) {
    if (m.field != 7 || m.wire != NY_PB_LEN) continue;
    ny_pb r = ny_pb_over(m.bytes);
    while (ny_pb_next(&r)) {
      if (r.field != field || r.wire != NY_PB_LEN) continue;
      suite_value x = {.name = text_field(a, r.bytes, 1)};
      if (field == 11 && has_initializer(m.bytes, x.name)) continue;
      read_type(sub(r.bytes, 2), &x);
      NY_PUSH_ROOM(a, *v, *n, cap);
      (*v)[(*n)++] = x;
    }
    if (r.bad) return false;
  }
  return !m.bad;
}
