/* The container: a header, 4 KiB-aligned segments, the description. Everything streams to a temporary file; the header
 * is written last. */
#include "module_file.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL = 8 << 10, SMALL_ALIGN = 64 };

static nyb_status put(ny_module_file *f, const void *data, uint64_t bytes) {
  if (bytes && fwrite(data, 1, (size_t)bytes, f->nf.f) != bytes)
    return ny_fail(f->d, NYB_E_IO, NULL, "cannot write %s: %s", f->nf.path, strerror(errno));
  f->at += bytes;
  return NYB_OK;
}

static nyb_status pad_to(ny_module_file *f, uint64_t align) {
  static const uint8_t zero[NY_MOD_PAGE];
  uint64_t rest = f->at % align;
  return rest ? put(f, zero, align - rest) : NYB_OK;
}

nyb_status ny_module_file_begin(const char *path, ny_module_file *out, ny_diag *d) {
  *out = (ny_module_file){.d = d};
  NY_TRY(ny_file_begin(path, &out->nf, d));
  static const uint8_t header[NY_MOD_HEADER];
  nyb_status s = put(out, header, sizeof header);
  if (s) ny_module_file_abort(out);
  return s;
}

void ny_module_file_abort(ny_module_file *f) {
  ny_file_abort(&f->nf);
  ny_arena_free(&f->a);
}

nyb_status ny_module_file_segment(ny_module_file *f, const void *data, uint64_t bytes, ny_mod_segment *out) {
  ny_sha256 h;
  NY_TRY(pad_to(f, NY_MOD_PAGE));
  out->offset = f->at;
  out->bytes = bytes;
  ny_sha256_init(&h);
  ny_sha256_add(&h, data, (size_t)bytes);
  ny_sha256_end(&h, out->digest);
  return put(f, data, bytes);
}

/* ---- weights */
static uint64_t hash_of(const uint8_t *p, uint64_t n) {
  uint64_t h = 0xcbf29ce484222325u;
  for (uint64_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
  return h;
}

static void add_small(ny_module_file *f, const void *data, uint64_t bytes, ny_weight_place *out) {
  uint64_t hash = hash_of(data, bytes);
  out->segment = UINT32_MAX;
  for (uint32_t i = 0; i < f->n_entries; i++) {
    const struct ny_small_constant *e = &f->entry[i];
    if (e->hash != hash || e->bytes != bytes || memcmp(f->small + e->offset, data, (size_t)bytes)) continue;
    out->offset = e->offset;
    return;
  }
  /* An empty constant takes room too, so that the segment it refers to exists. */
  uint64_t room = ((bytes ? bytes : 1) + SMALL_ALIGN - 1) / SMALL_ALIGN * SMALL_ALIGN;
  if (f->n_small + room > f->cap_small) {
    uint64_t cap = f->cap_small ? 2 * f->cap_small : 4 * SMALL;
    f->small = ny_grow(&f->a, f->small, (size_t)f->n_small, (size_t)cap);
    f->cap_small = cap;
  }
  memcpy(f->small + f->n_small, data, (size_t)bytes);
  NY_PUSH_ROOM(&f->a, f->entry, f->n_entries, f->cap_entries);
  f->entry[f->n_entries++] = (struct ny_small_constant){f->n_small, bytes, hash};
  out->offset = f->n_small;
  f->n_small += room;
}

static nyb_status add_segment(ny_module_file *f, const void *data, uint64_t bytes, uint32_t *out) {
  ny_mod_segment s;
  NY_PUSH_ROOM(&f->a, f->segment, f->n_segments, f->cap_segments);
  *out = f->n_segments;
  NY_TRY(ny_module_file_segment(f, data, bytes, &s));
  f->segment[f->n_segments++] = s;
  return NYB_OK;
}

nyb_status ny_module_file_weight(ny_module_file *f, const void *data, uint64_t bytes, ny_weight_place *out) {
  *out = (ny_weight_place){0};
  if (bytes <= SMALL) return add_small(f, data, bytes, out), NYB_OK;
  ny_sha256 h;
  uint8_t digest[32];
  ny_sha256_init(&h);
  ny_sha256_add(&h, data, (size_t)bytes);
  ny_sha256_end(&h, digest);
  for (uint32_t i = 0; i < f->n_segments; i++)
    if (f->segment[i].bytes == bytes && !memcmp(f->segment[i].digest, digest, 32)) return out->segment = i, NYB_OK;
  NY_TRY(pad_to(f, NY_MOD_PAGE));
  NY_PUSH_ROOM(&f->a, f->segment, f->n_segments, f->cap_segments);
  ny_mod_segment *s = &f->segment[f->n_segments];
  *s = (ny_mod_segment){.offset = f->at, .bytes = bytes};
  memcpy(s->digest, digest, 32);
  out->segment = f->n_segments++;
  return put(f, data, bytes);
}

nyb_status ny_module_file_weights_end(ny_module_file *f, uint32_t *small) {
  *small = UINT32_MAX;
  return f->n_small ? add_segment(f, f->small, f->n_small, small) : NYB_OK;
}

/* ---- the end */
static bool same_values(const ny_mod_value *a, const ny_mod_value *b, uint32_t n, uint32_t *n_shared) {
  bool same = true;
  for (uint32_t i = 0; i < n; i++) {
    same &=
        a[i].fmt == b[i].fmt && a[i].rank == b[i].rank && a[i].buffer == b[i].buffer && !strcmp(a[i].name, b[i].name);
    for (uint32_t k = 0; same && k < a[i].rank; k++) {
      same = a[i].dim[k] == b[i].dim[k];
      if (a[i].dim[k] >= *n_shared) *n_shared = a[i].dim[k] + 1;
    }
  }
  return same;
}

static bool same_expr(const ny_mod_expr *a, const ny_mod_expr *b) {
  return a->op == b->op && a->a == b->a && a->b == b->b && a->value == b->value;
}

/* Programs of a file have one signature. How many expressions it takes goes to *n_shared. */
static bool same_signature(const ny_mod *a, const ny_mod *b, uint32_t *n_shared) {
  bool same = a->n_symbols == b->n_symbols && a->n_inputs == b->n_inputs && a->n_outputs == b->n_outputs &&
              same_values(a->input, b->input, a->n_inputs, n_shared) &&
              same_values(a->output, b->output, a->n_outputs, n_shared) && *n_shared <= a->n_exprs &&
              *n_shared <= b->n_exprs;
  for (uint32_t i = 0; same && i < a->n_symbols; i++) same = !strcmp(a->symbol[i], b->symbol[i]);
  for (uint32_t i = 0; same && i < *n_shared; i++) same = same_expr(&a->expr[i], &b->expr[i]);
  for (uint32_t i = 0; same && i < a->n_inputs; i++) same = a->input[i].buffer == i;
  for (uint32_t i = 0; same && i < a->n_outputs; i++) same = a->output[i].buffer == a->n_inputs + i;
  return same;
}

static nyb_status write_description(ny_module_file *f, ny_mod *m, uint32_t n) {
  uint64_t bytes;
  uint32_t n_shared = 0;
  for (uint32_t i = 0; i < n; i++) {
    m[i].segment = f->segment;
    m[i].n_segments = f->n_segments;
    if (!same_signature(&m[0], &m[i], &n_shared))
      return ny_fail(f->d, NYB_E_INTERNAL, NULL, "the programs for %s and %s have different inputs and outputs",
                     m[0].target, m[i].target);
  }
  uint8_t *fb = ny_module_pack(m, n, n_shared, &bytes);
  if (!fb) return ny_fail(f->d, NYB_E_NOMEM, NULL, "no memory for the description of the module");
  uint8_t header[NY_MOD_HEADER] = "NYBMOD01";
  nyb_status s =
      bytes > NY_MOD_MAX_FLATBUFFER
          ? ny_fail(f->d, NYB_E_LIMIT, NULL, "the description of the module has %llu bytes, the limit is %llu",
                    (unsigned long long)bytes, (unsigned long long)NY_MOD_MAX_FLATBUFFER)
          : pad_to(f, 64);
  uint64_t at = f->at, file = at + bytes;
  ny_sha256 h;
  ny_sha256_init(&h);
  ny_sha256_add(&h, fb, (size_t)bytes);
  ny_sha256_end(&h, header + 32);
  memcpy(header + 8, &at, 8);
  memcpy(header + 16, &bytes, 8);
  memcpy(header + 24, &file, 8);
  if (!s) s = put(f, fb, bytes);
  free(fb);
  if (!s && fseek(f->nf.f, 0, SEEK_SET))
    s = ny_fail(f->d, NYB_E_IO, NULL, "cannot write %s: %s", f->nf.path, strerror(errno));
  return s ? s : put(f, header, sizeof header);
}

nyb_status ny_module_file_end(ny_module_file *f, ny_mod *program, uint32_t n) {
  nyb_status s = write_description(f, program, n);
  if (!s) s = ny_file_commit(&f->nf, f->d);
  ny_module_file_abort(f);
  return s;
}
