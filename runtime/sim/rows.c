/* Types by name, the tables of all topics, and how a row's pattern is compared with a mnemonic. */
#include "rows.h"
#include <string.h>

const ny_ptx_type_info ny_ptx_types[NY_N_T] = {{"", 0, 0},
#define NY_PTX_TYPE_(name, bits, kind) {#name, bits, kind},
                                               NY_PTX_TYPES(NY_PTX_TYPE_)
#undef NY_PTX_TYPE_
};

ny_ptx_type ny_ptx_type_by_name(const char *s, size_t n) {
  for (int t = 1; t < NY_N_T; t++)
    if (strlen(ny_ptx_types[t].name) == n && !memcmp(ny_ptx_types[t].name, s, n)) return (ny_ptx_type)t;
  return NY_T_none;
}

#define TABLE(topic)                                                                                                   \
  extern const ny_ptx_row ny_rows_##topic[];                                                                           \
  extern const size_t ny_n_rows_##topic;
#include "ptx_ops.def"
#undef TABLE
const ny_ptx_table ny_ptx_tables[] = {
#define TABLE(topic) {#topic, ny_rows_##topic, &ny_n_rows_##topic},
#include "ptx_ops.def"
#undef TABLE
};
const size_t ny_ptx_n_tables = NY_COUNT(ny_ptx_tables);

/* The length of the next modifier of an instruction, up to the dot. */
static size_t span(const char *s, const char *end, char stop) {
  const char *e = s;
  while (e < end && *e != '.' && *e != stop) e++;
  return (size_t)(e - s);
}

/* The 1-based alternative of a group "a b c" that `s` is; 0: none. */
static uint8_t alternative(const char *g, const char *close, const char *s, size_t n) {
  uint8_t k = 1;
  while (g < close) {
    const char *e = g;
    while (e < close && *e != ' ') e++;
    if ((size_t)(e - g) == n && !memcmp(g, s, n)) return k;
    g = e < close ? e + 1 : e;
    k++;
  }
  return 0;
}

bool ny_row_match(const ny_ptx_row *row, const char *s, size_t n, ny_ptx_match *out) {
  const char *p = row->pattern, *end = s + n;
  int groups = 0;
  *out = (ny_ptx_match){.row = row};
  while (*p) {
    size_t len = span(s, end, 0);
    bool taken;
    if (*p == '(' || *p == '[') {
      const char *close = strchr(p, *p == '(' ? ')' : ']');
      uint8_t k = len ? alternative(p + 1, close, s, len) : 0;
      if (*p == '(') {
        bool optional = close[1] == '?';
        out->word[groups] = k ? s : "";
        out->n_word[groups] = k ? (uint8_t)len : 0;
        out->opt[groups++] = k;
        if (!k && !optional) return false;
        p = close + 1 + optional;
      } else {
        if (!k) return false;
        out->sub = (uint8_t)(k - 1);
        out->type = ny_ptx_type_by_name(s, len);
        p = close + 1;
      }
      taken = k != 0;
    } else {
      size_t want = strcspn(p, ".");
      if (want != len || memcmp(p, s, len)) return false;
      p += want;
      taken = true;
    }
    if (taken) s += len + (s + len < end);
    if (*p == '.') p++;
  }
  return s >= end;
}

const char *ny_row_item_next(const char *s, ny_row_item *out) {
  while (*s == ' ') s++;
  if (!*s) return NULL;
  *out = (ny_row_item){.count = -1};
  if (*s == '|') out->joined = true, s++;
  out->letter = *s++;
  if (*s == '+') out->count = 0, s++;
  if (*s >= '0' && *s <= '9') {
    out->count = 0;
    while (*s >= '0' && *s <= '9') out->count = out->count * 10 + (*s++ - '0');
  }
  if (*s == '?') out->optional = true, s++;
  return s;
}
