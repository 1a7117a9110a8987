/* Loading: map the file, copy and verify its description, then, once target and trust allow it, copy the code into
   private executable memory and compare its digest there. Both are copies because a mapped file can be changed by
   others after we looked. */
#include "device.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const struct {
  uint8_t fmt;
  nyb_dtype t;
} dtypes[] = {
    {NY_f64, {NYB_FLOAT, 64, 1}},
    {NY_f32, {NYB_FLOAT, 32, 1}},
    {NY_f16, {NYB_FLOAT, 16, 1}},
    {NY_bf16, {NYB_BFLOAT, 16, 1}},
    {NY_f8e4m3, {NYB_FLOAT8_E4M3FN, 8, 1}},
    {NY_f8e4m3fnuz, {NYB_FLOAT8_E4M3FNUZ, 8, 1}},
    {NY_f8e5m2, {NYB_FLOAT8_E5M2, 8, 1}},
    {NY_f8e5m2fnuz, {NYB_FLOAT8_E5M2FNUZ, 8, 1}},
    {NY_f8e8m0, {NYB_FLOAT8_E8M0FNU, 8, 1}},
    {NY_f4e2m1, {NYB_FLOAT4_E2M1FN, 4, 1}},
    {NY_i64, {NYB_INT, 64, 1}},
    {NY_i32, {NYB_INT, 32, 1}},
    {NY_i16, {NYB_INT, 16, 1}},
    {NY_i8, {NYB_INT, 8, 1}},
    {NY_i4, {NYB_INT, 4, 1}},
    {NY_i2, {NYB_INT, 2, 1}},
    {NY_u64, {NYB_UINT, 64, 1}},
    {NY_u32, {NYB_UINT, 32, 1}},
    {NY_u16, {NYB_UINT, 16, 1}},
    {NY_u8, {NYB_UINT, 8, 1}},
    {NY_u4, {NYB_UINT, 4, 1}},
    {NY_u2, {NYB_UINT, 2, 1}},
    {NY_bool, {NYB_BOOL, 8, 1}},
};

nyb_dtype ny_module_dtype(ny_fmt f) {
  for (size_t i = 0; i < NY_COUNT(dtypes); i++)
    if (dtypes[i].fmt == f) return dtypes[i].t;
  return (nyb_dtype){0, 0, 0};
}

ny_fmt ny_module_format(nyb_dtype t) {
  for (size_t i = 0; i < NY_COUNT(dtypes); i++)
    if (dtypes[i].t.code == t.code && dtypes[i].t.bits == t.bits) return (ny_fmt)dtypes[i].fmt;
  return NY_none;
}

/* ---- the file */
static uint64_t number_at(const uint8_t *p) {
  uint64_t x;
  memcpy(&x, p, 8);
  return x;
}

static void digest_of(const void *p, uint64_t bytes, uint8_t out[32]) {
  ny_sha256 h;
  ny_sha256_init(&h);
  ny_sha256_add(&h, p, (size_t)bytes);
  ny_sha256_end(&h, out);
}

static nyb_status read_description(nyb_module *m, ny_diag *d) {
  const uint8_t *h = m->map.data;
  if (m->map.bytes < NY_MOD_HEADER || memcmp(h, "NYBMOD01", 8))
    return ny_fail(d, NYB_E_PARSE, NULL, "not a nybble module");
  uint64_t at = number_at(h + 8), bytes = number_at(h + 16), file = number_at(h + 24);
  if (file != m->map.bytes)
    return ny_fail(d, NYB_E_PARSE, NULL, "the file has %llu bytes, its header says %llu",
                   (unsigned long long)m->map.bytes, (unsigned long long)file);
  if (at < NY_MOD_HEADER || at % 8 || at > file || bytes > file - at || bytes > NY_MOD_MAX_FLATBUFFER)
    return ny_fail(d, NYB_E_PARSE, NULL,
                   "the module description (%llu bytes at %llu) does not lie in the file of %llu bytes",
                   (unsigned long long)bytes, (unsigned long long)at, (unsigned long long)file);
  m->fb = malloc((size_t)bytes + 8);
  if (!m->fb)
    return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for a module description of %llu bytes", (unsigned long long)bytes);
  memcpy(m->fb, h + at, (size_t)bytes);
  digest_of(m->fb, bytes, m->fb_digest);
  if (memcmp(m->fb_digest, h + 32, 32))
    return ny_fail(d, NYB_E_PARSE, NULL, "the module description does not match its digest");
  NY_TRY(ny_module_read(m->fb, at, bytes, file, &m->arena, &m->program, &m->n_programs, d));
  m->mod = m->program[0];
  return NYB_OK;
}

/* ---- what callers see */
static const nyb_value_info *describe(nyb_module *m, const ny_mod_value *v, uint32_t n) {
  nyb_value_info *out = NY_NEW_ARRAY(&m->arena, nyb_value_info, n);
  for (uint32_t i = 0; i < n; i++) {
    int64_t *shape = NY_NEW_ARRAY(&m->arena, int64_t, v[i].rank);
    const char **symbols = NY_NEW_ARRAY(&m->arena, const char *, v[i].rank);
    for (uint32_t k = 0; k < v[i].rank; k++) {
      const ny_mod_expr *e = &m->mod.expr[v[i].dim[k]];
      shape[k] = e->op == NY_MX_CONST ? e->value : -1;
      if (e->op == NY_MX_SYMBOL)
        symbols[k] = m->mod.symbol[e->value];
      else if (e->op != NY_MX_CONST)
        symbols[k] = v[i].text[k] ? v[i].text[k] : "?";
    }
    out[i] = (nyb_value_info){v[i].name, ny_module_dtype(v[i].fmt), (int32_t)v[i].rank, shape, symbols};
  }
  return out;
}

static uint64_t code_bytes(const ny_mod *q) {
  uint64_t n = q->code.bytes;
  for (uint32_t i = 0; i < q->n_images; i++) n += q->image[i].code.bytes;
  return n;
}

static void fill_info(nyb_module *m) {
  const ny_mod *q = &m->mod;
  uint64_t weights = 0;
  for (uint32_t i = 0; i < q->n_segments; i++)
    weights += q->segment[i].bytes; /* each at most the file: 2^20 of them do not overflow */
  m->info = (nyb_module_info){.size = sizeof m->info,
                              .name = q->name,
                              .target = q->target,
                              .n_inputs = q->n_inputs,
                              .n_outputs = q->n_outputs,
                              .n_kernels = q->n_kernels,
                              .n_symbols = q->n_symbols,
                              .inputs = describe(m, q->input, q->n_inputs),
                              .outputs = describe(m, q->output, q->n_outputs),
                              .symbols = q->symbol,
                              .weight_bytes = weights,
                              .code_bytes = code_bytes(q),
                              .file_bytes = m->map.bytes};
}

nyb_status ny_module_open(nyb_context *cx, const char *path, nyb_module **out, ny_diag *d) {
  *out = NULL;
  nyb_module *m = calloc(1, sizeof *m);
  if (!m) return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for a module");
  m->cx = cx;
  m->map.fd = -1;
  m->path = ny_strdup(&m->arena, path);
  nyb_status s = ny_map_open(path, &m->map, d);
  if (!s) {
    d->file = path; /* what the map could not say names the file itself */
    s = read_description(m, d);
  }
  if (s) {
    nyb_module_close(m);
    return s;
  }
  fill_info(m);
  *out = m;
  return NYB_OK;
}

NYB_API void nyb_module_close(nyb_module *module) {
  if (!module) return;
  if (module->resident) ny_program_close(module->resident);
  ny_device_close(module->device);
  if (module->code) munmap(module->code, (size_t)module->code_bytes);
  ny_map_close(&module->map);
  free(module->fb);
  ny_arena_free(&module->arena);
  free(module);
}

NYB_API nyb_status nyb_module_describe(const nyb_module *module, nyb_module_info *out) {
  if (!module || !out || !out->size) return NYB_E_ARGUMENT;
  size_t size = out->size;
  memcpy(out, &module->info, size < sizeof *out ? size : sizeof *out);
  out->size = size;
  return NYB_OK;
}

static nyb_status check_digest(const nyb_module *m, const char *what, uint32_t i, const ny_mod_segment *s, ny_diag *d) {
  uint8_t got[32];
  digest_of(m->map.data + s->offset, s->bytes, got);
  if (!memcmp(got, s->digest, 32)) return NYB_OK;
  return ny_fail(d, NYB_E_PARSE, NULL, "%s %u (%llu bytes at %llu) does not match its digest", what, i,
                 (unsigned long long)s->bytes, (unsigned long long)s->offset);
}

nyb_status ny_module_check_digests(const nyb_module *m, ny_diag *d) {
  for (uint32_t i = 0; i < m->mod.n_segments; i++) NY_TRY(check_digest(m, "weight", i, &m->mod.segment[i], d));
  for (uint32_t i = 0; i < m->n_programs; i++) {
    const ny_mod *q = &m->program[i];
    if (q->code.bytes) NY_TRY(check_digest(m, "code", i, &q->code, d));
    for (uint32_t k = 0; k < q->n_images; k++) NY_TRY(check_digest(m, "image", k, &q->image[k].code, d));
  }
  return m->mod.graph.bytes ? check_digest(m, "graph", 0, &m->mod.graph, d) : NYB_OK;
}

/* ---- native code */
static nyb_status load_code(nyb_module *m, ny_diag *d) {
  const ny_mod_segment *s = &m->mod.code;
  if (!s->bytes) return NYB_OK;
  uint8_t got[32];
  void *p = mmap(NULL, (size_t)s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for %llu bytes of code: %s", (unsigned long long)s->bytes,
                   strerror(errno));
  m->code = p;
  m->code_bytes = s->bytes;
  memcpy(p, m->map.data + s->offset, (size_t)s->bytes);
  digest_of(p, s->bytes, got);
  if (memcmp(got, s->digest, 32)) return ny_fail(d, NYB_E_PARSE, NULL, "the code does not match its digest");
  if (mprotect(p, (size_t)s->bytes, PROT_READ | PROT_EXEC))
    return ny_fail(d, NYB_E_TRUST, NULL, "this system does not let us run code from memory: %s", strerror(errno));
  __builtin___clear_cache((char *)p, (char *)p + s->bytes);
  return NYB_OK;
}

nyb_status ny_module_image(nyb_module *m, const ny_mod_image *image, const void **out, ny_diag *d) {
  uint32_t i = (uint32_t)(image - m->mod.image);
  NY_TRY(check_digest(m, "image", i, &image->code, d));
  const char *p = (const char *)m->map.data + image->code.offset;
  if (image->kind != NY_MI_CUBIN && p[image->code.bytes - 1])
    return ny_fail(d, NYB_E_PARSE, NULL, "image %u is text that does not end", i);
  *out = p;
  return NYB_OK;
}

static void tell_choice(nyb_module *m) {
  m->info.target = m->mod.target;
  m->info.n_kernels = m->mod.n_kernels;
  m->info.code_bytes = code_bytes(&m->mod);
  m->info.device = m->device ? ny_device_describe(m->device)->spelled : "cpu";
  m->info.choice = m->why;
}

/* GPU code is as much trusted as the CPU's: it reads and writes what its addresses say. */
static nyb_status make_native(nyb_module *m, const nyb_load_options *o, ny_diag *d) {
  NY_TRY(ny_device_open(o->device, &m->device, d));
  ny_device_needs needs = ny_device_wants(m->device);
  NY_TRY(ny_module_select(m, &needs, d));
  tell_choice(m);
  if (!o->trust && (m->mod.code.bytes || m->mod.n_images) && !ny_trusted(m->cx, m->fb_digest))
    return ny_fail(d, NYB_E_TRUST, NULL,
                   "the native code was not compiled by this user; ask for trust to run it, or open the file as a "
                   "model to compile its graph");
  return m->device ? ny_program_open(m->device, m, &m->resident, d) : load_code(m, d);
}

NYB_API nyb_status nyb_load(nyb_context *cx, const char *path, const nyb_load_options *options,
                            nyb_module **out_module) {
  if (!cx || !path || !out_module) return NYB_E_ARGUMENT;
  *out_module = NULL;
  ny_diag d = {0};
  nyb_module *m = NULL;
  nyb_status s = ny_module_open(cx, path, &m, &d);
  nyb_load_options o = {0};
  if (options) memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
  if (!s) s = make_native(m, &o, &d);
  if (s) {
    nyb_module_close(m);
    return ny_context_report(cx, &d);
  }
  *out_module = m;
  return NYB_OK;
}
