/* ONNX models for tests, written field by field: a message is a growing run of bytes, put into its parent when it is complete. */
#ifndef NY_ONNX_MAKE_H
#define NY_ONNX_MAKE_H
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct msg {
  uint8_t *p;
  size_t n, cap;
} msg;
static void put_bytes(msg *m, const void *p, size_t n) {
  if (m->n + n > m->cap) m->p = realloc(m->p, m->cap = (m->n + n) * 2 + 64);
  if (n) memcpy(m->p + m->n, p, n);
  m->n += n;
}
static void put_varint(msg *m, uint64_t v) {
  do {
    uint8_t b = (uint8_t)(v & 0x7f);
    v >>= 7;
    if (v) b |= 0x80;
    put_bytes(m, &b, 1);
  } while (v);
}
static void put_int(msg *m, uint32_t field, int64_t v) {
  put_varint(m, field << 3);
  put_varint(m, (uint64_t)v);
}
static void put_len(msg *m, uint32_t field, const void *p, size_t n) {
  put_varint(m, field << 3 | 2);
  put_varint(m, n);
  put_bytes(m, p, n);
}
static void put_text(msg *m, uint32_t field, const char *s) { put_len(m, field, s, strlen(s)); }
static void put_msg(msg *m, uint32_t field, msg child) { /* the child is used up */
  put_len(m, field, child.p, child.n);
  free(child.p);
}

/* "a,,b": names between commas, an empty one left out */
static void put_names(msg *m, uint32_t field, const char *names) {
  while (*names) {
    size_t n = strcspn(names, ",");
    put_len(m, field, names, n);
    names += n;
    if (*names) names++;
  }
}
static msg attr_int(const char *name, int64_t v) {
  msg a = {0};
  put_text(&a, 1, name);
  put_int(&a, 3, v);
  put_int(&a, 20, 2);
  return a;
}
static msg attr_ref(const char *name, const char *ref, int type) {
  msg a = {0};
  put_text(&a, 1, name);
  put_text(&a, 21, ref);
  put_int(&a, 20, type);
  return a;
}
static msg attr_graph(const char *name, msg g) {
  msg a = {0};
  put_text(&a, 1, name);
  put_msg(&a, 6, g);
  put_int(&a, 20, 5);
  return a;
}
/* Attributes follow, ended by an empty message. */
static msg make_node(const char *op, const char *in, const char *out, ...) {
  static int serial;
  msg n = {0};
  char name[64];
  va_list ap;
  put_names(&n, 1, in);
  put_names(&n, 2, out);
  snprintf(name, sizeof name, "%s_%d", op, serial++);
  put_text(&n, 3, name);
  put_text(&n, 4, op);
  va_start(ap, out);
  for (msg a = va_arg(ap, msg); a.p; a = va_arg(ap, msg)) put_msg(&n, 5, a);
  va_end(ap);
  return n;
}
#define NONE ((msg){0})
#define NODE(g, op, in, out, ...) put_msg(g, 1, make_node(op, in, out, __VA_ARGS__))

/* "N,4,": a number, a symbol, or nothing between commas; NULL: a scalar */
static msg make_type(int dtype, const char *dims) {
  msg shape = {0}, tensor = {0}, type = {0};
  for (const char *s = dims; s; s = strchr(s, ',') ? strchr(s, ',') + 1 : NULL) {
    msg d = {0};
    size_t n = strcspn(s, ",");
    if (n && s[0] >= '0' && s[0] <= '9') put_int(&d, 1, atoll(s));
    else if (n) put_len(&d, 2, s, n);
    put_msg(&shape, 1, d);
  }
  put_int(&tensor, 1, dtype);
  put_msg(&tensor, 2, shape);
  put_msg(&type, 1, tensor);
  return type;
}
static void put_value(msg *g, uint32_t field, const char *name, int dtype, const char *dims) {
  msg v = {0};
  put_text(&v, 1, name);
  put_msg(&v, 2, make_type(dtype, dims));
  put_msg(g, field, v);
}
#define INPUT(g, name, dims) put_value(g, 11, name, 1, dims)
#define OUTPUT(g, name, dims) put_value(g, 12, name, 1, dims)

/* A tensor without data: the caller adds it. */
static msg make_tensor(const char *name, int dtype, int rank, const int64_t *dims) {
  msg t = {0};
  for (int i = 0; i < rank; i++) put_int(&t, 1, dims[i]);
  put_int(&t, 2, dtype);
  put_text(&t, 8, name);
  return t;
}
static msg raw_tensor(const char *name, int dtype, int rank, const int64_t *dims, const void *data, size_t bytes) {
  msg t = make_tensor(name, dtype, rank, dims);
  put_len(&t, 9, data, bytes);
  return t;
}
static msg int_list(const char *name, int n, const int64_t *v) { return raw_tensor(name, 7, 1, (int64_t[]){n}, v, (size_t)n * 8); }
static msg make_opset(const char *domain, int64_t version) {
  msg o = {0};
  put_text(&o, 1, domain);
  put_int(&o, 2, version);
  return o;
}
static msg make_model(msg graph, int64_t opset) {
  msg m = {0};
  put_int(&m, 1, 8);
  put_msg(&m, 7, graph);
  put_msg(&m, 8, make_opset("", opset));
  return m;
}
#endif
