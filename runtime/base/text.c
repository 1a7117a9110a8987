/* Growable text for printers and emitters: malloc'ed, because it may outlive every arena, and always NUL-terminated. */
#include "base.h"
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void reserve(ny_text *t, size_t more) {
  if (t->cap - t->n > more) return;
  size_t cap = t->cap ? t->cap : 256;
  while (cap - t->n <= more) {
    if (cap > SIZE_MAX / 2) abort();
    cap *= 2;
  }
  char *s = realloc(t->s, cap);
  if (!s) {
    fprintf(stderr, "nybble: out of memory (%zu bytes of text)\n", cap);
    abort();
  }
  t->s = s;
  t->cap = cap;
}

void ny_text_addn(ny_text *t, const char *s, size_t n) {
  reserve(t, n);
  if (n) memcpy(t->s + t->n, s, n);
  t->n += n;
  t->s[t->n] = 0;
}

void ny_text_add(ny_text *t, const char *s) { ny_text_addn(t, s, strlen(s)); }

void ny_text_addf(ny_text *t, const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  reserve(t, 64);
  int n = vsnprintf(t->s + t->n, t->cap - t->n, fmt, ap);
  if (n > 0 && (size_t)n >= t->cap - t->n) {
    reserve(t, (size_t)n);
    vsnprintf(t->s + t->n, t->cap - t->n, fmt, again);
  }
  if (n > 0) t->n += (size_t)n;
  t->s[t->n] = 0;
  va_end(again);
  va_end(ap);
}

void ny_text_double(ny_text *t, double x) {
  if (x != x) {
    ny_text_add(t, "nan");
    return;
  }
  if (isinf(x)) {
    ny_text_add(t, x < 0 ? "-inf" : "inf");
    return;
  }
  char s[40];
  /* A decimal of up to 15 digits survives a trip through double, so 15 finds every short one; denormals hold fewer
   * digits. */
  for (int digits = fabs(x) < 2.3e-308 ? 1 : 15; digits <= 17; digits++) {
    snprintf(s, sizeof s, "%.*g", digits, x);
    if (strtod(s, NULL) == x) break;
  }
  const char *point = localeconv()->decimal_point, *at = strstr(s, point);
  if (at && strcmp(point, ".")) { /* the program that holds us may have set a locale */
    ny_text_addn(t, s, (size_t)(at - s));
    ny_text_add(t, ".");
    ny_text_add(t, at + strlen(point));
  } else {
    ny_text_add(t, s);
  }
}

void ny_text_json(ny_text *t, const char *s) {
  ny_text_add(t, "\"");
  for (; *s; s++) {
    unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\')
      ny_text_addf(t, "\\%c", c);
    else if (c == '\n')
      ny_text_add(t, "\\n");
    else if (c == '\t')
      ny_text_add(t, "\\t");
    else if (c < 0x20 || c == 0x7f)
      ny_text_addf(t, "\\u%04x", c);
    else
      ny_text_addn(t, s, 1);
  }
  ny_text_add(t, "\"");
}

bool ny_ends_with(const char *s, const char *suffix) {
  size_t n = strlen(s), k = strlen(suffix);
  return n >= k && !strcmp(s + n - k, suffix);
}

void ny_text_free(ny_text *t) {
  free(t->s);
  *t = (ny_text){0};
}
