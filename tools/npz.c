/* NumPy's .npz: a zip archive of .npy files. Only the central directory is believed, and every offset and size in it is
   checked before it is used; what a member says it inflates to is a promise it must keep exactly. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { EOCD = 22, EOCD_COMMENT = 65535, LOCATOR = 20, ENTRY = 46, LOCAL = 30, MAX_ARRAYS = 1 << 20 };

typedef struct zip {
  const char *path;
  ny_map map;
  ny_diag *d;
} zip;
typedef struct member {
  uint64_t packed, size, offset, name_bytes;
  const char *name;
  unsigned method, flags;
} member;

static uint64_t le(const uint8_t *p, int n) {
  uint64_t v = 0;
  for (int i = n - 1; i >= 0; i--) v = v << 8 | p[i];
  return v;
}

static nyb_status bad(const zip *z, const char *what) {
  return ny_fail(z->d, NYB_E_PARSE, NULL, "%s: %s", z->path, what);
}

static bool inside(const zip *z, uint64_t at, uint64_t n) { return at <= z->map.bytes && n <= z->map.bytes - at; }

/* Where the directory is and how many entries it has, from the end of the file; its 64-bit form where the short one is
 * full. */
static nyb_status directory(const zip *z, uint64_t *at, uint64_t *count) {
  const uint8_t *p = z->map.data;
  uint64_t n = z->map.bytes, end = n;
  for (uint64_t back = EOCD; back <= n && back <= EOCD + EOCD_COMMENT && end == n; back++)
    if (le(p + n - back, 4) == 0x06054b50 && back == EOCD + le(p + n - back + 20, 2)) end = n - back;
  if (end == n) return bad(z, "not an .npz file");
  *count = le(p + end + 10, 2), *at = le(p + end + 16, 4);
  if (*count != 0xffff && *at != 0xffffffff) return NYB_OK;
  if (end < LOCATOR || le(p + end - LOCATOR, 4) != 0x07064b50) return bad(z, "its directory is damaged");
  uint64_t wide = le(p + end - LOCATOR + 8, 8);
  if (!inside(z, wide, 56) || le(p + wide, 4) != 0x06064b50) return bad(z, "its directory is damaged");
  *count = le(p + wide + 32, 8), *at = le(p + wide + 48, 8);
  return NYB_OK;
}

/* Sizes that do not fit 32 bits stand in an extra field, in this order. */
static nyb_status widen(const zip *z, const uint8_t *extra, uint64_t n, member *m) {
  uint64_t *field[] = {&m->size, &m->packed, &m->offset};
  for (uint64_t at = 0; at + 4 <= n;) {
    uint64_t id = le(extra + at, 2), len = le(extra + at + 2, 2), p = at + 4;
    if (len > n - p) return bad(z, "an extra field is damaged");
    for (int i = 0; id == 1 && i < 3; i++) {
      if (*field[i] != 0xffffffff) continue;
      if (p + 8 > at + 4 + len) return bad(z, "an extra field is damaged");
      *field[i] = le(extra + p, 8);
      p += 8;
    }
    at += 4 + len;
  }
  return NYB_OK;
}

static nyb_status entry(const zip *z, uint64_t *at, member *m) {
  if (!inside(z, *at, ENTRY) || le(z->map.data + *at, 4) != 0x02014b50) return bad(z, "its directory is damaged");
  const uint8_t *p = z->map.data + *at;
  uint64_t extra = le(p + 30, 2), comment = le(p + 32, 2);
  *m = (member){.packed = le(p + 20, 4),
                .size = le(p + 24, 4),
                .offset = le(p + 42, 4),
                .name_bytes = le(p + 28, 2),
                .name = (const char *)p + ENTRY,
                .method = (unsigned)le(p + 10, 2),
                .flags = (unsigned)le(p + 8, 2)};
  if (!inside(z, *at, ENTRY + m->name_bytes + extra + comment)) return bad(z, "its directory is damaged");
  *at += ENTRY + m->name_bytes + extra + comment;
  return widen(z, p + ENTRY + m->name_bytes, extra, m);
}

static nyb_status inflate_all(const zip *z, const member *m, const uint8_t *from, uint8_t *to) {
  z_stream s = {0};
  if (m->packed > UINT32_MAX || m->size > UINT32_MAX)
    return bad(z, "a compressed array is larger than 4 GB: save it with numpy.savez");
  if (inflateInit2(&s, -MAX_WBITS) != Z_OK) return bad(z, "zlib cannot start");
  s.next_in = (uint8_t *)(uintptr_t)from, s.avail_in = (uInt)m->packed;
  s.next_out = to, s.avail_out = (uInt)m->size;
  int r = inflate(&s, Z_FINISH);
  bool whole = r == Z_STREAM_END && s.total_out == m->size;
  inflateEnd(&s);
  return whole ? NYB_OK : bad(z, "a compressed array is damaged");
}

static nyb_status read_member(const zip *z, const member *m, const char *name, cli_array *out) {
  const uint8_t *p = z->map.data;
  if (!inside(z, m->offset, LOCAL) || le(p + m->offset, 4) != 0x04034b50)
    return bad(z, "an array is not where the directory says");
  uint64_t data = m->offset + LOCAL + le(p + m->offset + 26, 2) + le(p + m->offset + 28, 2);
  if (!inside(z, data, m->packed)) return bad(z, "an array ends after the file");
  if (m->flags & 1) return bad(z, "an array is encrypted");
  if (m->method == 0)
    return m->packed == m->size ? cli_npy_read_bytes(p + data, m->size, name, NY_none, out, z->d)
                                : bad(z, "an array has two sizes");
  if (m->method != 8) return bad(z, "an array is compressed in another way than by deflate");
  if (m->size / 1032 > m->packed) return bad(z, "an array promises more than its bytes can hold"); /* deflate's limit */
  uint8_t *room = malloc(m->size + 1);
  if (!room)
    return ny_fail(z->d, NYB_E_NOMEM, NULL, "%s: no memory for an array of %llu bytes", z->path,
                   (unsigned long long)m->size);
  nyb_status s = inflate_all(z, m, p + data, room);
  if (!s) s = cli_npy_read_bytes(room, m->size, name, NY_none, out, z->d);
  free(room);
  return s;
}

static nyb_status read_all(const zip *z, cli_npz *out) {
  uint64_t at = 0, count = 0;
  NY_TRY(directory(z, &at, &count));
  if (count > MAX_ARRAYS) return bad(z, "it has too many arrays");
  out->array = calloc(count + 1, sizeof *out->array);
  out->name = calloc(count + 1, sizeof *out->name);
  if (!out->array || !out->name) return ny_fail(z->d, NYB_E_NOMEM, NULL, "out of memory");
  for (uint64_t i = 0; i < count; i++) {
    member m;
    NY_TRY(entry(z, &at, &m));
    size_t n = m.name_bytes > 4 && !memcmp(m.name + m.name_bytes - 4, ".npy", 4) ? m.name_bytes - 4 : m.name_bytes;
    if (!(out->name[out->n] = strndup(m.name, n))) return ny_fail(z->d, NYB_E_NOMEM, NULL, "out of memory");
    out->n++;
    NY_TRY(read_member(z, &m, out->name[out->n - 1], &out->array[out->n - 1]));
  }
  return NYB_OK;
}

nyb_status cli_npz_read(const char *path, cli_npz *out, ny_diag *d) {
  zip z = {.path = path, .d = d};
  *out = (cli_npz){0};
  NY_TRY(ny_map_open(path, &z.map, d));
  nyb_status s = read_all(&z, out);
  ny_map_close(&z.map);
  if (s) cli_npz_free(out);
  return s;
}

void cli_npz_free(cli_npz *z) {
  for (size_t i = 0; i < z->n; i++) {
    cli_array_free(&z->array[i]);
    free(z->name[i]);
  }
  free(z->array), free(z->name);
  *z = (cli_npz){0};
}
