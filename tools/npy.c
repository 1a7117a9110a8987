/* Tensors in NumPy's .npy files, and random ones. Formats NumPy lacks (bf16, 8- and 4-bit floats) are written as raw void or bytes:
   bf16 as '<V2', as ml_dtypes does. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct dtype_row {
  uint8_t code, bits;
  const char *npy, *name;
} dtype_row;
static const dtype_row rows[] = {
    {NYB_FLOAT, 64, "<f8", "f64"},       {NYB_FLOAT, 32, "<f4", "f32"},         {NYB_FLOAT, 16, "<f2", "f16"},
    {NYB_BFLOAT, 16, "<V2", "bf16"},     {NYB_INT, 64, "<i8", "i64"},           {NYB_INT, 32, "<i4", "i32"},
    {NYB_INT, 16, "<i2", "i16"},         {NYB_INT, 8, "|i1", "i8"},             {NYB_UINT, 64, "<u8", "u64"},
    {NYB_UINT, 32, "<u4", "u32"},        {NYB_UINT, 16, "<u2", "u16"},          {NYB_UINT, 8, "|u1", "u8"},
    {NYB_BOOL, 8, "|b1", "bool"},        {NYB_INT, 4, NULL, "i4"},              {NYB_UINT, 4, NULL, "u4"},
    {NYB_INT, 2, NULL, "i2"},            {NYB_UINT, 2, NULL, "u2"},             {NYB_FLOAT8_E4M3FN, 8, "|V1", "f8e4m3"},
    {NYB_FLOAT8_E5M2, 8, "|V1", "f8e5m2"}, {NYB_FLOAT8_E4M3FNUZ, 8, "|V1", "f8e4m3fnuz"},
    {NYB_FLOAT8_E5M2FNUZ, 8, "|V1", "f8e5m2fnuz"}, {NYB_FLOAT8_E8M0FNU, 8, "|V1", "f8e8m0"}, {NYB_FLOAT4_E2M1FN, 4, NULL, "f4e2m1"}};

static const dtype_row *row_of(nyb_dtype t) {
  for (size_t i = 0; i < NY_COUNT(rows); i++)
    if (rows[i].code == t.code && rows[i].bits == t.bits) return &rows[i];
  return NULL;
}

const char *cli_dtype_name(nyb_dtype t) {
  const dtype_row *r = row_of(t);
  return r ? r->name : "unknown";
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
  ny_fmt f = NY_none;
  for (int i = 1; i < NY_N_FMT && !f; i++)
    if (!strcmp(ny_fmts[i].name, cli_dtype_name(a->t.dtype))) f = (ny_fmt)i;
  uint64_t s = seed * 0x9e3779b97f4a7c15u + 1;
  int64_t n = cli_count(&a->t);
  for (int64_t i = 0; i < n && f; i++) {
    uint64_t r = splitmix(&s);
    if (ny_is_float(f)) {
      double u = ((double)(r >> 11) + 0.5) * 0x1p-53, v = (double)(splitmix(&s) >> 11) * 0x1p-53;
      ny_put_f(f, a->memory, (uint64_t)i, sqrt(-2 * log(u)) * cos(6.283185307179586 * v), true);
    } else ny_put_i(f, a->memory, (uint64_t)i, f == NY_bool ? (int64_t)(r >> 63) : (int64_t)(r % 10));
  }
}

/* The header is a Python dict literal: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } */
static nyb_status header(const char *h, cli_array *a, const char *path, ny_diag *d) {
  char descr[16] = "";
  const char *p = strstr(h, "'descr'"), *q;
  if (!p || !(p = strchr(p + 7, '\'')) || !(q = strchr(p + 1, '\'')) || (size_t)(q - p) > sizeof descr)
    return ny_fail(d, NYB_E_PARSE, NULL, "%s: not an array of a plain dtype", path);
  memcpy(descr, p + 1, (size_t)(q - p - 1));
  descr[q - p - 1] = 0;
  const dtype_row *r = NULL;
  for (size_t i = 0; i < NY_COUNT(rows) && !r; i++)
    if (rows[i].npy && !strcmp(rows[i].npy + (strlen(descr) < 3), descr)) r = &rows[i];
  if (!r) return ny_fail(d, NYB_E_UNSUPPORTED, NULL, "%s: dtype %s is not supported", path, descr);
  if (strstr(h, "'fortran_order': True")) return ny_fail(d, NYB_E_UNSUPPORTED, NULL, "%s: Fortran order; save it with numpy.ascontiguousarray", path);
  a->t = (nyb_tensor){.device = {1, 0}, .dtype = {r->code, r->bits, 1}, .shape = a->shape};
  p = strstr(h, "'shape'");
  if (!p || !(p = strchr(p, '('))) return ny_fail(d, NYB_E_PARSE, NULL, "%s: the header has no shape", path);
  for (p++; *p && *p != ')';) {
    char *end;
    long long v = strtoll(p, &end, 10);
    if (end == p || v < 0 || a->t.ndim == (int)NY_COUNT(a->shape)) return ny_fail(d, NYB_E_PARSE, NULL, "%s: bad shape", path);
    a->shape[a->t.ndim++] = v;
    for (p = end; *p == ',' || *p == ' ';) p++;
  }
  return NYB_OK;
}

static nyb_status read_all(FILE *f, cli_array *a, const char *path, ny_diag *d) {
  uint8_t pre[12];
  char h[4096];
  if (fread(pre, 1, 10, f) != 10 || memcmp(pre, "\x93NUMPY", 6)) return ny_fail(d, NYB_E_PARSE, NULL, "%s: not a .npy file", path);
  size_t n = pre[8] | (size_t)pre[9] << 8;
  if (pre[6] >= 2) {
    if (fread(pre + 10, 1, 2, f) != 2) return ny_fail(d, NYB_E_PARSE, NULL, "%s: truncated", path);
    n |= (size_t)pre[10] << 16 | (size_t)pre[11] << 24;
  }
  if (n >= sizeof h || fread(h, 1, n, f) != n) return ny_fail(d, NYB_E_PARSE, NULL, "%s: truncated or oversized header", path);
  h[n] = 0;
  NY_TRY(header(h, a, path, d));
  nyb_status s = memory(a);
  if (s) return ny_fail(d, s, NULL, "%s: its shape asks for too much memory", path);
  uint64_t bytes = cli_tensor_bytes(&a->t);
  if (fread(a->memory, 1, bytes, f) != bytes) return ny_fail(d, NYB_E_PARSE, NULL, "%s: the data ends before %llu bytes", path, (unsigned long long)bytes);
  return NYB_OK;
}

nyb_status cli_npy_read(const char *path, cli_array *out, ny_diag *d) {
  *out = (cli_array){0};
  FILE *f = fopen(path, "rb");
  if (!f) return ny_fail(d, NYB_E_IO, NULL, "%s: cannot open it", path);
  nyb_status s = read_all(f, out, path, d);
  fclose(f);
  return s;
}

nyb_status cli_npy_write(const char *path, const nyb_tensor *t, ny_diag *d) {
  const dtype_row *r = row_of(t->dtype);
  char h[512];
  int n = snprintf(h, sizeof h, "{'descr': '%s', 'fortran_order': False, 'shape': (", r && r->npy ? r->npy : "|u1");
  if (r && r->npy)
    for (int i = 0; i < t->ndim; i++) n += snprintf(h + n, sizeof h - (size_t)n, "%lld,%s", (long long)t->shape[i], i + 1 < t->ndim ? " " : "");
  else n += snprintf(h + n, sizeof h - (size_t)n, "%llu,", (unsigned long long)cli_tensor_bytes(t)); /* packed sub-byte elements */
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
