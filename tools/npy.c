/* Tensors in NumPy's .npy files, and random ones. Formats NumPy lacks (bf16, 8- and 4-bit floats) are written as raw
   void or bytes: bf16 as '<V2', as ml_dtypes does. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const npy_name[NY_N_FMT] =
    {/* NULL: packed, written as bytes */
     [NY_f64] = "<f8",        [NY_f32] = "<f4",        [NY_f16] = "<f2",   [NY_bf16] = "<V2",   [NY_i64] = "<i8",
     [NY_i32] = "<i4",        [NY_i16] = "<i2",        [NY_i8] = "|i1",    [NY_u64] = "<u8",    [NY_u32] = "<u4",
     [NY_u16] = "<u2",        [NY_u8] = "|u1",         [NY_bool] = "|b1",  [NY_f8e4m3] = "|V1", [NY_f8e5m2] = "|V1",
     [NY_f8e4m3fnuz] = "|V1", [NY_f8e5m2fnuz] = "|V1", [NY_f8e8m0] = "|V1"};

/* NumPy may leave out the byte order, and of raw bytes it knows none. */
static bool is_named(ny_fmt f, const char *descr) {
  const char *name = npy_name[f];
  return name && (!strcmp(name, descr) || !strcmp(name + 1, descr + (*descr == '|')));
}

/* Raw bytes are what the model takes them for. */
static ny_fmt format_of_npy(const char *descr, ny_fmt expected) {
  if (is_named(expected, descr)) return expected;
  for (int f = 1; f < NY_N_FMT; f++)
    if (is_named((ny_fmt)f, descr)) return (ny_fmt)f;
  return NY_none;
}

int64_t cli_count(const nyb_tensor *t) {
  int64_t n = 1;
  for (int i = 0; i < t->ndim; i++)
    if (__builtin_mul_overflow(n, t->shape[i], &n) || n < 0) return -1;
  return n;
}

uint64_t cli_tensor_bytes(const nyb_tensor *t) { return ((uint64_t)cli_count(t) * t->dtype.bits + 7) / 8; }

static nyb_status memory(cli_array *a) {
  int64_t n = cli_count(&a->t);
  if (n < 0 || n > INT64_MAX / 64) return NYB_E_LIMIT;
  size_t bytes = (cli_tensor_bytes(&a->t) + 64 + 63) / 64 * 64;
  a->memory = aligned_alloc(64, bytes);
  if (!a->memory) return NYB_E_NOMEM;
  memset(a->memory, 0, bytes);
  a->t.data = a->memory;
  return NYB_OK;
}

uint64_t cli_bytes_of(const nyb_value_info *v, const int64_t *shape) {
  nyb_tensor t = {.ndim = v->ndim, .dtype = v->dtype, .shape = (int64_t *)(uintptr_t)shape};
  int64_t n = cli_count(&t);
  return n < 0 || n > INT64_MAX / 64 ? UINT64_MAX : cli_tensor_bytes(&t);
}

nyb_status cli_array_new(const nyb_value_info *v, const int64_t *shape, cli_array *out) {
  *out = (cli_array){.t = {.device = {1, 0}, .ndim = v->ndim, .dtype = v->dtype}};
  if (v->ndim > (int)NY_COUNT(out->shape)) return NYB_E_LIMIT;
  if (v->ndim) memcpy(out->shape, shape, (size_t)v->ndim * sizeof *shape);
  out->t.shape = out->shape;
  return memory(out);
}

void cli_array_free(cli_array *a) { free(a->memory); }

static uint64_t splitmix(uint64_t *s) { /* Steele, Lea, Flood 2014 */
  uint64_t z = (*s += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void cli_array_random(cli_array *a, uint64_t seed) {
  ny_fmt f = ny_module_format(a->t.dtype);
  uint64_t s = seed * 0x9e3779b97f4a7c15u + 1;
  int64_t n = cli_count(&a->t);
  for (int64_t i = 0; i < n && f; i++) {
    uint64_t r = splitmix(&s);
    if (ny_is_float(f)) {
      double u = ((double)(r >> 11) + 0.5) * 0x1p-53, v = (double)(splitmix(&s) >> 11) * 0x1p-53;
      ny_put_f(f, a->memory, (uint64_t)i, sqrt(-2 * log(u)) * cos(6.283185307179586 * v), true);
    } else
      ny_put_i(f, a->memory, (uint64_t)i, f == NY_bool ? (int64_t)(r >> 63) : (int64_t)(r % 10));
  }
}

/* The header is a Python dict literal: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } */
static nyb_status header(const char *h, ny_fmt expected, cli_array *a, const char *path, ny_diag *d) {
  char descr[16] = "";
  const char *p = strstr(h, "'descr'"), *q;
  if (!p || !(p = strchr(p + 7, '\'')) || !(q = strchr(p + 1, '\'')) || (size_t)(q - p) > sizeof descr)
    return ny_fail(d, NYB_E_PARSE, NULL, "%s: not an array of a plain dtype", path);
  memcpy(descr, p + 1, (size_t)(q - p - 1));
  descr[q - p - 1] = 0;
  ny_fmt f = format_of_npy(descr, expected);
  if (!f) return ny_fail(d, NYB_E_UNSUPPORTED, NULL, "%s: dtype %s is not supported", path, descr);
  if (strstr(h, "'fortran_order': True"))
    return ny_fail(d, NYB_E_UNSUPPORTED, NULL, "%s: Fortran order; save it with numpy.ascontiguousarray", path);
  a->t = (nyb_tensor){.device = {1, 0}, .dtype = ny_module_dtype(f), .shape = a->shape};
  p = strstr(h, "'shape'");
  if (!p || !(p = strchr(p, '('))) return ny_fail(d, NYB_E_PARSE, NULL, "%s: the header has no shape", path);
  for (p++; *p && *p != ')';) {
    char *end;
    long long v = strtoll(p, &end, 10);
    if (end == p || v < 0 || a->t.ndim == (int)NY_COUNT(a->shape))
      return ny_fail(d, NYB_E_PARSE, NULL, "%s: bad shape", path);
    a->shape[a->t.ndim++] = v;
    for (p = end; *p == ',' || *p == ' ';) p++;
  }
  return NYB_OK;
}

static nyb_status read_all(FILE *f, ny_fmt expected, cli_array *a, const char *path, ny_diag *d) {
  uint8_t pre[12];
  char h[4096];
  if (fread(pre, 1, 10, f) != 10 || memcmp(pre, "\x93NUMPY", 6))
    return ny_fail(d, NYB_E_PARSE, NULL, "%s: not a .npy file", path);
  size_t n = pre[8] | (size_t)pre[9] << 8;
  if (pre[6] >= 2) {
    if (fread(pre + 10, 1, 2, f) != 2) return ny_fail(d, NYB_E_PARSE, NULL, "%s: truncated", path);
    n |= (size_t)pre[10] << 16 | (size_t)pre[11] << 24;
  }
  if (n >= sizeof h || fread(h, 1, n, f) != n)
    return ny_fail(d, NYB_E_PARSE, NULL, "%s: truncated or oversized header", path);
  h[n] = 0;
  NY_TRY(header(h, expected, a, path, d));
  nyb_status s = memory(a);
  if (s) return ny_fail(d, s, NULL, "%s: its shape asks for too much memory", path);
  uint64_t bytes = cli_tensor_bytes(&a->t);
  if (fread(a->memory, 1, bytes, f) != bytes)
    return ny_fail(d, NYB_E_PARSE, NULL, "%s: the data ends before %llu bytes", path, (unsigned long long)bytes);
  return NYB_OK;
}

nyb_status cli_npy_read(const char *path, ny_fmt expected, cli_array *out, ny_diag *d) {
  *out = (cli_array){0};
  FILE *f = fopen(path, "rb");
  if (!f) return ny_fail(d, NYB_E_IO, NULL, "cannot open %s: %s", path, strerror(errno));
  nyb_status s = read_all(f, expected, out, path, d);
  fclose(f);
  return s;
}

nyb_status cli_npy_read_bytes(const void *data, size_t bytes, const char *name, ny_fmt expected, cli_array *out,
                              ny_diag *d) {
  *out = (cli_array){0};
  FILE *f = bytes ? fmemopen((void *)(uintptr_t)data, bytes, "rb") : NULL;
  if (!f) return ny_fail(d, NYB_E_PARSE, NULL, "%s: not a .npy file", name);
  nyb_status s = read_all(f, expected, out, name, d);
  fclose(f);
  return s;
}

nyb_status cli_npy_write(const char *path, const nyb_tensor *t, ny_diag *d) {
  const char *descr = npy_name[ny_module_format(t->dtype)];
  char h[512];
  int n = snprintf(h, sizeof h, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr ? descr : "|u1");
  if (descr)
    for (int i = 0; i < t->ndim; i++)
      n += snprintf(h + n, sizeof h - (size_t)n, "%lld,%s", (long long)t->shape[i], i + 1 < t->ndim ? " " : "");
  else
    n += snprintf(h + n, sizeof h - (size_t)n, "%llu,",
                  (unsigned long long)cli_tensor_bytes(t)); /* packed sub-byte elements */
  n += snprintf(h + n, sizeof h - (size_t)n, "), }");
  while ((n + 11) % 64) h[n++] = ' ';
  h[n++] = '\n';
  ny_new_file nf;
  NY_TRY(ny_file_begin(path, &nf, d));
  uint8_t pre[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)(n & 255), (uint8_t)(n >> 8)};
  fwrite(pre, 1, sizeof pre, nf.f);
  fwrite(h, 1, (size_t)n, nf.f);
  fwrite((const char *)t->data + t->byte_offset, 1, cli_tensor_bytes(t), nf.f);
  return ny_file_commit(&nf, d);
}
