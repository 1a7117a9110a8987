/* TensorProto -> packed storage. raw_data and little-endian packed lists are used where they lie in the mapped file;
   varint lists are decoded into the unit's arena after their length has been compared with the shape, so a few bytes
   can never ask for many. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "onnx_model.h"

enum {
  F_DIMS = 1,
  F_TYPE = 2,
  F_FLOAT = 4,
  F_INT32 = 5,
  F_INT64 = 7,
  F_NAME = 8,
  F_RAW = 9,
  F_DOUBLE = 10,
  F_UINT64 = 11,
  F_EXTERNAL = 13,
  F_WHERE = 14
};
enum { MAX_COUNT_LOG2 = 48 };

typedef struct tensor_scan { /* what a first walk over the message finds */
  int dtype, n_dims;
  bool external, has_raw;
  ny_bytes raw, chunk; /* chunk: the last list of numbers */
  uint64_t n_chunks, n_numbers;
  uint32_t list; /* field of the numbers */
  const char *location;
  int64_t offset, length;
} tensor_scan;

static nyb_status bad(ny_ctx *cx, const ny_onnx_tensor *t, const char *what) {
  return ny_fail(&cx->diag, NYB_E_PARSE, NULL, "tensor \"%s\": malformed %s", t->name ? t->name : "", what);
}

static nyb_status add_dim(ny_ctx *cx, ny_onnx_tensor *t, tensor_scan *s, uint64_t v) {
  if (s->n_dims >= NY_MAX_RANK)
    return ny_fail(&cx->diag, NYB_E_UNSUPPORTED, NULL, "tensor \"%s\" has more than %d dimensions",
                   t->name ? t->name : "", (int)NY_MAX_RANK);
  if ((int64_t)v < 0) return bad(cx, t, "shape: a size is negative");
  t->dim[s->n_dims++] = (int64_t)v;
  return NYB_OK;
}

static nyb_status dims_field(ny_ctx *cx, ny_onnx_tensor *t, tensor_scan *s, const ny_pb *r) {
  if (r->wire == NY_PB_VARINT) return add_dim(cx, t, s, r->value);
  if (r->wire != NY_PB_LEN) return bad(cx, t, "shape");
  const uint8_t *p = r->bytes.p, *end = p + r->bytes.n;
  while (p < end) {
    uint64_t v;
    if (!ny_pb_varint(&p, end, &v)) return bad(cx, t, "shape");
    NY_TRY(add_dim(cx, t, s, v));
  }
  return NYB_OK;
}

static ny_pb_wire element_wire(uint32_t field) {
  return field == F_FLOAT ? NY_PB_32 : field == F_DOUBLE ? NY_PB_64 : NY_PB_VARINT;
}

static bool whole_int(const char *s, int64_t *out) {
  char *end = NULL;
  if (*s < '0' || *s > '9') return false;
  errno = 0;
  *out = strtoll(s, &end, 10);
  return !*end && !errno;
}

static nyb_status external_entry(ny_ctx *cx, ny_onnx_tensor *t, tensor_scan *s, ny_bytes b) {
  const char *key = "", *value = "";
  ny_pb r = ny_pb_over(b);
  while (ny_pb_next(&r)) {
    if (r.field > 2) continue;
    if (r.wire != NY_PB_LEN || r.bytes.n > 4096 || (r.bytes.n && memchr(r.bytes.p, 0, r.bytes.n)))
      return bad(cx, t, "external data entry");
    const char *text = ny_internn(&cx->names, r.bytes.n ? (const char *)r.bytes.p : "", r.bytes.n);
    if (r.field == 1)
      key = text;
    else
      value = text;
  }
  if (r.bad) return bad(cx, t, "external data entry");
  if (!strcmp(key, "location")) s->location = value;
  if (!strcmp(key, "offset") && !whole_int(value, &s->offset)) return bad(cx, t, "external data offset");
  if (!strcmp(key, "length") && !whole_int(value, &s->length)) return bad(cx, t, "external data length");
  return NYB_OK;
}

static nyb_status scan_field(ny_ctx *cx, ny_onnx_tensor *t, tensor_scan *s, const ny_pb *r) {
  switch (r->field) {
  case F_DIMS: return dims_field(cx, t, s, r);
  case F_TYPE: s->dtype = r->value < 1000 ? (int)r->value : 0; return NYB_OK;
  case F_FLOAT:
  case F_INT32:
  case F_INT64:
  case F_DOUBLE:
  case F_UINT64:
    if (r->wire != NY_PB_LEN && r->wire != element_wire(r->field)) return bad(cx, t, "data");
    if (s->list && s->list != r->field) return bad(cx, t, "data: more than one kind of list");
    s->list = r->field;
    s->chunk = r->bytes;
    s->n_chunks++;
    s->n_numbers += ny_pb_count_numbers(r, element_wire(r->field));
    return NYB_OK;
  case F_NAME:
    if (r->wire != NY_PB_LEN || r->bytes.n > 1 << 16) return bad(cx, t, "name");
    t->name = ny_internn(&cx->names, r->bytes.n ? (const char *)r->bytes.p : "", r->bytes.n);
    return NYB_OK;
  case F_RAW:
    if (r->wire != NY_PB_LEN) return bad(cx, t, "raw data");
    s->has_raw = true;
    s->raw = r->bytes;
    return NYB_OK;
  case F_EXTERNAL: return r->wire == NY_PB_LEN ? external_entry(cx, t, s, r->bytes) : bad(cx, t, "external data entry");
  case F_WHERE: s->external = r->value == 1; return NYB_OK;
  default: return NYB_OK;
  }
}

static nyb_status check_type(ny_ctx *cx, ny_onnx_tensor *t, const tensor_scan *s) {
  const char *name = t->name ? t->name : "";
  t->fmt = ny_fmt_by_onnx(s->dtype);
  t->rank = s->n_dims;
  if (s->dtype == 14 || s->dtype == 15)
    return ny_fail(&cx->diag, NYB_E_UNSUPPORTED, NULL, "tensor \"%s\" is complex, which is not supported", name);
  if (t->fmt == NY_str)
    return ny_fail(&cx->diag, NYB_E_UNSUPPORTED, NULL, "tensor \"%s\" holds strings, which are not supported", name);
  if (t->fmt == NY_none)
    return ny_fail(&cx->diag, NYB_E_PARSE, NULL, "tensor \"%s\" has unknown data type %d", name, s->dtype);
  t->count = 1;
  bool empty = false;
  for (int i = 0; i < t->rank; i++) empty |= t->dim[i] == 0;
  for (int i = 0; i < t->rank && !empty; i++) {
    if (t->dim[i] > (INT64_C(1) << MAX_COUNT_LOG2) / (int64_t)t->count)
      return ny_fail(&cx->diag, NYB_E_LIMIT, NULL, "tensor \"%s\" has more than 2^%d elements", name,
                     (int)MAX_COUNT_LOG2);
    t->count *= (uint64_t)t->dim[i];
  }
  if (empty) t->count = 0;
  t->bytes = ny_fmt_bytes(t->fmt, t->count);
  return NYB_OK;
}

static nyb_status size_error(ny_ctx *cx, const ny_onnx_tensor *t, uint64_t have, const char *unit, uint64_t want) {
  return ny_fail(&cx->diag, NYB_E_PARSE, NULL, "tensor \"%s\" holds %" PRIu64 " %s but its shape needs %" PRIu64,
                 t->name ? t->name : "", have, unit, want);
}

/* A bool is any byte in a file and 0 or 1 here. */
static void clean_bools(ny_onnx_files *f, ny_onnx_tensor *t) {
  uint64_t i = 0;
  while (i < t->bytes && t->data[i] < 2) i++;
  if (i == t->bytes) return;
  uint8_t *p = ny_alloc(&f->unit->arena, t->bytes);
  for (i = 0; i < t->bytes; i++) p[i] = t->data[i] != 0;
  t->data = p;
  t->file = NULL;
}

static nyb_status use_range(ny_ctx *cx, ny_onnx_files *f, ny_onnx_tensor *t, const uint8_t *p, uint64_t n,
                            const char *from) {
  if (n != t->bytes) return size_error(cx, t, n, from, t->bytes);
  t->data = n ? p : (const uint8_t *)"";
  if (n && p >= f->file.p && p < f->file.p + f->file.n) {
    t->file = f->file_name;
    t->offset = (uint64_t)(p - f->file.p);
  }
  if (t->fmt == NY_bool) clean_bools(f, t);
  return NYB_OK;
}

static nyb_status read_external(ny_ctx *cx, ny_onnx_files *f, ny_onnx_tensor *t, const tensor_scan *s) {
  const uint8_t *p = NULL;
  uint64_t n = 0;
  if (!s->location || !*s->location) return bad(cx, t, "external data: no location");
  int64_t length = s->length >= 0 ? s->length : (int64_t)t->bytes;
  NY_TRY(ny_onnx_external(cx, f, s->location, s->offset, length, NULL, &p, &n));
  NY_TRY(use_range(cx, f, t, p, n, "bytes of external data"));
  if (t->data == p) {
    t->file = ny_intern(&cx->names, s->location);
    t->offset = (uint64_t)s->offset;
  }
  return NYB_OK;
}

static void put(ny_onnx_tensor *t, uint8_t *out, uint32_t field, uint64_t i, uint64_t bits) {
  ny_fmt f = t->fmt;
  if (field == F_FLOAT)
    ny_put_f(f, out, i, (double)ny_pb_f32(bits), false);
  else if (field == F_DOUBLE)
    ny_put_f(f, out, i, ny_pb_f64(bits), false);
  else if (ny_fmts[f].bits < 8)
    out[i] = (uint8_t)bits; /* a byte of packed elements */
  else if (!ny_is_float(f))
    ny_put_i(f, out, i, (int64_t)(f == NY_bool ? bits != 0 : bits));
  else if (ny_fmts[f].bits == 16)
    out[2 * i] = (uint8_t)bits, out[2 * i + 1] = (uint8_t)(bits >> 8);
  else
    out[i] = (uint8_t)bits;
}

static uint64_t next_number(const uint8_t **p, const uint8_t *end, ny_pb_wire w) {
  uint64_t v = 0;
  if (w == NY_PB_VARINT) {
    if (!ny_pb_varint(p, end, &v)) *p = end;
    return v;
  }
  int bytes = w == NY_PB_32 ? 4 : 8;
  if (end - *p < bytes) {
    *p = end;
    return 0;
  }
  for (int i = bytes - 1; i >= 0; i--) v = v << 8 | (*p)[i];
  *p += bytes;
  return v;
}

/* Which list a format may lie in, by the comments of TensorProto. */
static bool list_fits(ny_fmt f, uint32_t field) {
  switch (field) {
  case F_FLOAT: return f == NY_f32;
  case F_DOUBLE: return f == NY_f64;
  case F_INT64: return f == NY_i64;
  case F_UINT64: return f == NY_u64 || f == NY_u32;
  default: return f != NY_f32 && f != NY_f64 && f != NY_i64 && f != NY_u64 && f != NY_u32;
  }
}

static nyb_status read_list(ny_ctx *cx, ny_onnx_files *f, ny_bytes proto, ny_onnx_tensor *t, const tensor_scan *s) {
  uint64_t want = ny_fmts[t->fmt].bits < 8 ? t->bytes : t->count, i = 0;
  ny_pb_wire w = element_wire(s->list);
  if (!list_fits(t->fmt, s->list))
    return ny_fail(&cx->diag, NYB_E_PARSE, NULL, "tensor \"%s\" of %s keeps its data in the wrong list (field %u)",
                   t->name ? t->name : "", ny_fmts[t->fmt].name, s->list);
  if (s->n_numbers != want) return size_error(cx, t, s->n_numbers, "numbers", want);
  if (s->n_chunks == 1 && s->chunk.p && w != NY_PB_VARINT) return use_range(cx, f, t, s->chunk.p, s->chunk.n, "bytes");
  uint8_t *out = ny_alloc(&f->unit->arena, t->bytes + 8);
  ny_pb r = ny_pb_over(proto);
  while (ny_pb_next(&r)) {
    if (r.field != s->list) continue;
    if (r.wire != NY_PB_LEN) {
      if (i < want) put(t, out, s->list, i++, r.value);
      continue;
    }
    const uint8_t *p = r.bytes.p, *end = p + r.bytes.n;
    while (p < end && i < want) put(t, out, s->list, i++, next_number(&p, end, w));
  }
  t->data = out;
  return NYB_OK;
}

nyb_status ny_onnx_tensor_read(ny_ctx *cx, ny_onnx_files *f, ny_bytes proto, ny_onnx_tensor *out) {
  tensor_scan s = {.length = -1};
  *out = (ny_onnx_tensor){0};
  ny_pb r = ny_pb_over(proto);
  while (ny_pb_next(&r)) NY_TRY(scan_field(cx, out, &s, &r));
  if (r.bad) return bad(cx, out, "message");
  NY_TRY(check_type(cx, out, &s));
  if ((s.external && (s.raw.n || s.list)) || (s.raw.n && s.list))
    return bad(cx, out, "data: it lies in more than one place");
  if (s.external) return read_external(cx, f, out, &s);
  if (s.has_raw) return use_range(cx, f, out, s.raw.p, s.raw.n, "bytes of raw data");
  if (s.list) return read_list(cx, f, proto, out, &s);
  if (out->count) return size_error(cx, out, 0, "numbers", out->count);
  out->data = (const uint8_t *)"";
  return NYB_OK;
}

/* ---- Sparse tensors become dense: values at linear indices [n] or coordinates [n, rank]. */
static nyb_status scatter(ny_ctx *cx, ny_onnx_tensor *t, const ny_onnx_tensor *values, const ny_onnx_tensor *index,
                          uint8_t *out) {
  bool linear = index->rank == 1;
  uint64_t n = values->count, bits = ny_fmts[t->fmt].bits;
  for (uint64_t k = 0; k < n; k++) {
    uint64_t at = 0;
    for (int d = 0; d < (linear ? 1 : t->rank); d++) {
      int64_t i = ny_get_i(NY_i64, index->data, linear ? k : k * (uint64_t)t->rank + (uint64_t)d);
      int64_t size = linear ? (int64_t)t->count : t->dim[d];
      if (i < 0 || i >= size)
        return ny_fail(&cx->diag, NYB_E_PARSE, NULL, "sparse tensor \"%s\": index %lld is outside %lld",
                       t->name ? t->name : "", (long long)i, (long long)size);
      at = at * (uint64_t)size + (uint64_t)i;
    }
    memcpy(out + at * (bits / 8), values->data + k * (bits / 8), bits / 8);
  }
  return NYB_OK;
}

nyb_status ny_onnx_sparse_read(ny_ctx *cx, ny_onnx_files *f, ny_bytes proto, ny_onnx_tensor *out) {
  ny_onnx_tensor values = {0}, index = {0};
  tensor_scan s = {0};
  *out = (ny_onnx_tensor){0};
  ny_bytes part[2] = {{NULL, 0}, {NULL, 0}};
  ny_pb r = ny_pb_over(proto);
  while (ny_pb_next(&r)) {
    if (r.field == 3)
      NY_TRY(dims_field(cx, out, &s, &r));
    else if ((r.field == 1 || r.field == 2) && r.wire == NY_PB_LEN)
      part[r.field - 1] = r.bytes;
  }
  if (r.bad) return bad(cx, out, "sparse tensor");
  NY_TRY(ny_onnx_tensor_read(cx, f, part[0], &values));
  NY_TRY(ny_onnx_tensor_read(cx, f, part[1], &index));
  out->name = values.name;
  s.dtype = ny_fmts[values.fmt].onnx;
  NY_TRY(check_type(cx, out, &s));
  uint64_t per = index.rank == 1 ? 1 : (uint64_t)out->rank;
  bool ok = values.rank == 1 && index.fmt == NY_i64 && (index.rank == 1 || index.rank == 2) &&
            index.count == values.count * per;
  if (!ok || ny_fmts[values.fmt].bits < 8) return bad(cx, out, "sparse tensor");
  if (out->bytes > *f->budget)
    return ny_fail(&cx->diag, NYB_E_LIMIT, NULL, "sparse tensor \"%s\" has %" PRIu64 " bytes when dense", out->name,
                   out->bytes);
  *f->budget -= out->bytes;
  uint8_t *dense = ny_alloc(&f->unit->arena, out->bytes + 1);
  NY_TRY(scatter(cx, out, &values, &index, dense));
  out->data = dense;
  return NYB_OK;
}
