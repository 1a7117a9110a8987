/* Names, numbers and bytes of the text form, both ways. Names come from models and may hold any bytes but NUL: odd ones
   are quoted in printable ASCII. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

size_t ny_word_length(const char *s) {
  size_t n = 0;
  for (;; n++) {
    bool letter = (s[n] >= 'A' && s[n] <= 'Z') || (s[n] >= 'a' && s[n] <= 'z') || s[n] == '_' || s[n] == '.';
    if (!letter && !(n && s[n] >= '0' && s[n] <= '9')) return n;
  }
}

void ny_put_name(ny_text *out, const char *s) {
  if (*s && !s[ny_word_length(s)])
    ny_text_add(out, s);
  else
    ny_put_quoted(out, s);
}

void ny_put_quoted(ny_text *out, const char *s) {
  ny_text_add(out, "\"");
  for (const unsigned char *c = (const unsigned char *)s; *c; c++) {
    if (*c == '"' || *c == '\\')
      ny_text_addf(out, "\\%c", *c);
    else if (*c >= 32 && *c < 127)
      ny_text_addn(out, (const char *)c, 1);
    else
      ny_text_addf(out, "\\x%02x", *c);
  }
  ny_text_add(out, "\"");
}

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* After a backslash; 0 on a syntax error. */
static char take_escape(const char **s) {
  const char *c = *s;
  if (*c == '"' || *c == '\\') {
    *s = c + 1;
    return *c;
  }
  int hi = *c == 'x' ? hex(c[1]) : -1, lo = hi < 0 ? -1 : hex(c[2]);
  if (lo < 0) return 0;
  *s = c + 3;
  return (char)(hi * 16 + lo);
}

ny_name ny_take_quoted(ny_ctx *cx, const char **s) {
  const char *c = *s;
  ny_text t = {0};
  ny_name name = NULL;
  if (*c++ != '"') return NULL;
  ny_text_add(&t, "");
  while (*c && *c != '"' && *c != '\n') {
    char one = *c++;
    if (one == '\\' && !(one = take_escape(&c))) break;
    ny_text_addn(&t, &one, 1);
  }
  if (*c == '"') {
    name = ny_internn(&cx->names, t.s, t.n);
    *s = c + 1;
  }
  ny_text_free(&t);
  return name;
}

void ny_put_blob_path(ny_text *out, const ny_unit *u, const ny_blob *b) {
  bool own = !strcmp(b->file, "."), bare = own || *b->file == '/' || !u->folder || !strcmp(u->folder, ".");
  if (!bare) ny_text_addf(out, "%s%s", u->folder, u->folder[strlen(u->folder) - 1] == '/' ? "" : "/");
  ny_text_add(out, b->file);
}

static const char digits64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void ny_put_base64(ny_text *out, const uint8_t *p, uint64_t n) {
  char line[1024];
  size_t k = 0;
  for (uint64_t i = 0; i < n; i += 3) {
    uint32_t v = (uint32_t)p[i] << 16;
    if (i + 1 < n) v |= (uint32_t)p[i + 1] << 8;
    if (i + 2 < n) v |= p[i + 2];
    line[k++] = digits64[v >> 18];
    line[k++] = digits64[v >> 12 & 63];
    line[k++] = i + 1 < n ? digits64[v >> 6 & 63] : '=';
    line[k++] = i + 2 < n ? digits64[v & 63] : '=';
    if (k == sizeof line || i + 3 >= n) {
      ny_text_addn(out, line, k);
      k = 0;
    }
  }
}

static int value64(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

nyb_status ny_p_base64(ny_parser *p, uint8_t **out, uint64_t *n) {
  if (*p->s != '"') return ny_p_fail(p, "expected base64 in quotes");
  const char *s = p->s + 1;
  size_t length = strcspn(s, "\""), groups = length / 4;
  size_t pad = length >= 4 ? (size_t)(s[length - 1] == '=') + (s[length - 2] == '=' && s[length - 1] == '=') : 0;
  if (!s[length] || length % 4) return ny_p_fail(p, "base64 of %zu characters is not whole", length);
  uint8_t *data = NY_NEW_ARRAY(&p->unit->arena, uint8_t, groups * 3 + 1);
  for (size_t i = 0; i < groups; i++) {
    uint32_t v = 0;
    for (size_t k = 0; k < 4; k++) {
      size_t at = i * 4 + k;
      int d = at >= length - pad ? 0 : value64(s[at]);
      if (d < 0) return ny_p_fail(p, "character %zu of base64 is not one of its digits", at);
      v = v << 6 | (uint32_t)d;
    }
    data[i * 3] = (uint8_t)(v >> 16);
    data[i * 3 + 1] = (uint8_t)(v >> 8);
    data[i * 3 + 2] = (uint8_t)v;
  }
  p->s = s + length + 1;
  *out = data;
  *n = groups * 3 - pad;
  return NYB_OK;
}

bool ny_type_inline(const ny_type *t, int64_t *count) {
  char kind = ny_fmts[t->fmt].kind;
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) {
    if (t->dim[i] < 0 || t->dim[i] > NY_TEXT_INLINE) return false; /* a size 0 elsewhere does not matter enough */
    n *= t->dim[i];
    if (n > NY_TEXT_INLINE) return false;
  }
  *count = n;
  return kind == 'F' || kind == 'I' || kind == 'U' || kind == 'B';
}

void ny_put_rounded(ny_text *out, ny_fmt f, double x) {
  double v = x;
  if (ny_is_float(f) && f != NY_f64 && isfinite(x)) {
    for (int digits = 0; digits <= 16; digits++) {
      char s[48];
      snprintf(s, sizeof s, "%.*e", digits, x);
      v = strtod(s, NULL);
      if (ny_round_to(f, v) == x) break;
      v = x;
    }
  }
  ny_text_double(out, v);
}

void ny_put_element(ny_text *out, ny_fmt f, const void *data, uint64_t i) {
  if (ny_is_float(f))
    ny_put_rounded(out, f, ny_get_f(f, data, i));
  else if (f == NY_u64)
    ny_text_addf(out, "%llu", (unsigned long long)ny_get_i(f, data, i));
  else
    ny_text_addf(out, "%lld", (long long)ny_get_i(f, data, i));
}
