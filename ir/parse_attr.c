/* Attributes, constant data and blob declarations. */
#include <string.h>
#include <unistd.h>

#include "text.h"

/* ---- blobs: bytes in a file that is mapped again, or in the text itself */
/* A module may come from a stranger, so its graph reads no file but its own. */
static nyb_status open_file(ny_parser *p, ny_name file, const ny_map **map) {
  const char *slash = p->path ? strrchr(p->path, '/') : NULL, *path = file;
  if (!p->path) return ny_p_fail(p, "blobs in files need the path of this text");
  if (!strcmp(file, ".")) return ny_unit_map(p->unit, p->path, map);
  if (ny_ends_with(p->path, ".nyb")) return ny_p_fail(p, "a module names the file %s beside itself", file);
  if (*file != '/' && slash) { /* beside this text, else as it was opened */
    char *beside = ny_strf(&p->scratch, "%.*s/%s", (int)(slash - p->path), p->path, file);
    if (!access(beside, F_OK)) path = beside;
  }
  return ny_unit_map(p->unit, path, map);
}

static const ny_blob *find_like(const ny_parser *p, ny_name file, uint64_t offset, uint64_t bytes) {
  const ny_blob *b = p->like ? p->like->blobs : NULL;
  ny_text path = {0};
  for (; b; b = b->next) {
    if (!b->file || b->offset != offset || b->bytes != bytes) continue;
    path.n = 0;
    ny_put_blob_path(&path, p->like, b);
    if (!strcmp(path.s, file)) break;
  }
  ny_text_free(&path);
  return b;
}

static nyb_status file_blob(ny_parser *p, const ny_blob **out) {
  ny_name file = ny_take_quoted(p->cx, &p->s);
  uint64_t offset, bytes;
  if (!file || !*file) return ny_p_fail(p, "expected base64 or a file name in quotes");
  NY_TRY(ny_p_expect(p, '+'));
  NY_TRY(ny_p_uint(p, &offset));
  if (!ny_p_keyword(p, "bytes")) return ny_p_fail(p, "expected bytes=");
  NY_TRY(ny_p_expect(p, '='));
  NY_TRY(ny_p_uint(p, &bytes));
  const ny_blob *like = find_like(p, file, offset, bytes);
  if (like) {
    *out = ny_blob_new(p->unit, like->data, bytes, file, offset);
    return NYB_OK;
  }
  const ny_map *map;
  NY_TRY(open_file(p, file, &map));
  if (offset > map->bytes || bytes > map->bytes - offset)
    return ny_p_fail(p, "%s has %llu bytes; %llu at offset %llu are beyond its end", file,
                     (unsigned long long)map->bytes, (unsigned long long)bytes, (unsigned long long)offset);
  *out = ny_blob_new(p->unit, map->data + offset, bytes, file, offset);
  return NYB_OK;
}

/* `same 7`: blob 7 of the unit that is being copied. */
static nyb_status same_blob(ny_parser *p, const ny_blob **out) {
  uint64_t id;
  NY_TRY(ny_p_uint(p, &id));
  const ny_blob *b = p->like ? p->like->blobs : NULL;
  while (b && b->id != id) b = b->next;
  if (!b) return ny_p_fail(p, "there is no other unit with a blob %llu", (unsigned long long)id);
  *out = ny_blob_new(p->unit, b->data, b->bytes, b->file, b->offset);
  return NYB_OK;
}

nyb_status ny_p_blob(ny_parser *p) {
  uint64_t number;
  const ny_blob *b = NULL;
  NY_TRY(ny_p_uint(p, &number));
  if (number != p->n_blobs)
    return ny_p_fail(p, "blob %llu where blob %u comes next", (unsigned long long)number, p->n_blobs);
  NY_TRY(ny_p_expect(p, '='));
  if (ny_p_keyword(p, "base64")) {
    uint8_t *data;
    uint64_t n;
    ny_p_space(p);
    NY_TRY(ny_p_base64(p, &data, &n));
    b = ny_blob_new(p->unit, data, n, NULL, 0);
  } else if (ny_p_keyword(p, "same")) {
    NY_TRY(same_blob(p, &b));
  } else {
    NY_TRY(file_blob(p, &b));
  }
  NY_PUSH_ROOM(&p->scratch, p->blob, p->n_blobs, p->cap_blobs);
  p->blob[p->n_blobs++] = b;
  return NYB_OK;
}

/* ---- constant data */
static nyb_status element(ny_parser *p, ny_fmt f, uint8_t *data, uint64_t i) {
  if (ny_is_float(f)) {
    double x;
    NY_TRY(ny_p_double(p, &x));
    ny_put_f(f, data, i, x, false);
    return NYB_OK;
  }
  int64_t v;
  if (f == NY_u64) {
    uint64_t u;
    NY_TRY(ny_p_uint(p, &u));
    v = (int64_t)u;
  } else {
    NY_TRY(ny_p_int(p, &v));
  }
  ny_put_i(f, data, i, v);
  return ny_get_i(f, data, i) == v ? NYB_OK : ny_p_fail(p, "%lld does not fit %s", (long long)v, ny_fmts[f].name);
}

static nyb_status inline_data(ny_parser *p, const ny_type *t, const ny_blob **out) {
  int64_t n;
  if (!ny_type_inline(t, &n)) return ny_p_fail(p, "a list of elements cannot fill this type");
  uint64_t bytes = ny_fmt_bytes((ny_fmt)t->fmt, (uint64_t)n);
  uint8_t *data = NY_NEW_ARRAY(&p->unit->arena, uint8_t, bytes + 1);
  NY_TRY(ny_p_expect(p, '['));
  for (int64_t i = 0; i < n; i++) {
    if (i) NY_TRY(ny_p_expect(p, ','));
    NY_TRY(element(p, (ny_fmt)t->fmt, data, (uint64_t)i));
  }
  NY_TRY(ny_p_expect(p, ']'));
  *out = ny_blob_new(p->unit, data, bytes, NULL, 0);
  return NYB_OK;
}

/* Elements need the type, which comes after the attributes: a list is passed over at first. */
static nyb_status pass_data(ny_parser *p, ny_attr *a) {
  uint64_t number;
  ny_p_space(p);
  if (*p->s == '[') {
    p->data = p->s;
    p->s += strcspn(p->s, "]");
    return ny_p_expect(p, ']');
  }
  if (strncmp(p->s, "blob", 4)) return ny_p_fail(p, "expected a list of elements or the name of a blob");
  p->s += 4;
  NY_TRY(ny_p_uint(p, &number));
  if (number >= p->n_blobs) return ny_p_fail(p, "blob %llu is not declared", (unsigned long long)number);
  a->blob = p->blob[number];
  return NYB_OK;
}

nyb_status ny_p_data(ny_parser *p, ny_op *op) {
  if (op->kind != NY_const) return NYB_OK;
  ny_fmt f = (ny_fmt)op->out[0]->type->fmt;
  double *splat = &op->attr[NY_AT(const, splat)].f;
  if (ny_is_float(f) && !p->data && !op->attr[NY_AT(const, data)].blob) *splat = ny_round_to(f, *splat); /* else not looked at: f8e8m0 has no 0 */
  if (!p->data) return NYB_OK;
  const char *back = p->s;
  p->s = p->data;
  p->data = NULL;
  NY_TRY(inline_data(p, op->out[0]->type, &op->attr[NY_AT(const, data)].blob));
  p->s = back;
  return NYB_OK;
}

/* ---- attributes */
static nyb_status list(ny_parser *p, ny_attr_kind kind, ny_attr *a) {
  ny_arena *arena = &p->graph->arena;
  uint32_t cap = 0;
  NY_TRY(ny_p_expect(p, '['));
  if (kind == NY_DIMS)
    a->dims.n = 0;
  else
    a->names.n = 0;
  for (bool first = true; !ny_p_take(p, ']'); first = false) {
    if (!first) NY_TRY(ny_p_expect(p, ','));
    if (kind == NY_DIMS) {
      NY_PUSH_ROOM(arena, a->dims.v, a->dims.n, cap);
      NY_TRY(ny_p_dim(p, &a->dims.v[a->dims.n++]));
    } else {
      NY_PUSH_ROOM(arena, a->names.v, a->names.n, cap);
      NY_TRY(ny_p_name(p, "a name", &a->names.v[a->names.n++]));
    }
  }
  return NYB_OK;
}

static nyb_status value(ny_parser *p, ny_attr_kind kind, ny_attr *a) {
  switch (kind) {
  case NY_I64: return ny_p_int(p, &a->i);
  case NY_F64: return ny_p_double(p, &a->f);
  case NY_NAME: return ny_p_name(p, "a name", &a->s);
  case NY_DIM: return ny_p_dim(p, &a->d);
  case NY_BLOB: return pass_data(p, a);
  default: return list(p, kind, a);
  }
}

nyb_status ny_p_attrs(ny_parser *p, ny_op *op) {
  const ny_kind_info *k = &ny_kinds[op->kind];
  uint32_t seen = 0;
  p->data = NULL;
  for (size_t n; (n = ny_p_word(p)) && p->s[n] == '=';) {
    int i = 0;
    while (i < k->n_attr && (strlen(k->attr[i].name) != n || memcmp(k->attr[i].name, p->s, n))) i++;
    if (i == k->n_attr) return ny_p_fail(p, "%s has no such attribute", k->name);
    if (seen >> i & 1) return ny_p_fail(p, "%s is given twice", k->attr[i].name);
    seen |= 1u << i;
    p->s += n + 1;
    NY_TRY(value(p, k->attr[i].kind, &op->attr[i]));
  }
  return NYB_OK;
}
