/* The parser's cursor: white space and comments, words, numbers, dimensions, types. The text is NUL-terminated, so
   looking one character ahead is always safe; a NUL inside it ends it early and is an error there. */
#include <locale.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

nyb_status ny_p_fail(ny_parser *p, const char *fmt, ...) {
  ny_diag *d = &p->cx->diag;
  if (d->code) return d->code;
  char s[600];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(s, sizeof s, fmt, ap);
  va_end(ap);
  size_t n = strcspn(p->s, "\n");
  return ny_fail(d, NYB_E_PARSE, NULL, "%s%s%.*s%s", s, n ? " at `" : " at the end of the line", (int)(n < 24 ? n : 24),
                 p->s, n ? "`" : "");
}

void ny_p_space(ny_parser *p) {
  for (;; p->s++) {
    if (*p->s == ';') p->s += strcspn(p->s, "\n");
    if (*p->s != ' ' && *p->s != '\n' && *p->s != '\t' && *p->s != '\r') return;
  }
}

bool ny_p_take(ny_parser *p, char c) {
  ny_p_space(p);
  if (*p->s != c || !c) return false;
  p->s++;
  return true;
}

nyb_status ny_p_expect(ny_parser *p, char c) { return ny_p_take(p, c) ? NYB_OK : ny_p_fail(p, "expected '%c'", c); }

size_t ny_p_word(ny_parser *p) {
  ny_p_space(p);
  return ny_word_length(p->s);
}

bool ny_p_keyword(ny_parser *p, const char *word) {
  size_t n = ny_p_word(p);
  if (n != strlen(word) || memcmp(p->s, word, n)) return false;
  p->s += n;
  return true;
}

nyb_status ny_p_name(ny_parser *p, const char *what, ny_name *out) {
  size_t n = ny_p_word(p);
  if (n) {
    *out = ny_internn(&p->cx->names, p->s, n);
    p->s += n;
    return NYB_OK;
  }
  *out = ny_take_quoted(p->cx, &p->s);
  return *out ? NYB_OK : ny_p_fail(p, "expected %s", what);
}

static int digit_of(char c, int base) {
  int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
  return d < base ? d : -1;
}

nyb_status ny_p_uint(ny_parser *p, uint64_t *out) {
  ny_p_space(p);
  int base = p->s[0] == '0' && p->s[1] == 'x' ? 16 : 10;
  const char *s = p->s + (base == 16 ? 2 : 0), *begin = s;
  uint64_t v = 0;
  for (; digit_of(*s, base) >= 0; s++)
    if (__builtin_mul_overflow(v, (uint64_t)base, &v) || __builtin_add_overflow(v, (uint64_t)digit_of(*s, base), &v))
      return ny_p_fail(p, "the number is too large");
  if (s == begin) return ny_p_fail(p, "expected a number");
  p->s = s;
  *out = v;
  return NYB_OK;
}

nyb_status ny_p_int(ny_parser *p, int64_t *out) {
  bool minus = ny_p_take(p, '-');
  uint64_t v;
  NY_TRY(ny_p_uint(p, &v));
  if (v > (uint64_t)INT64_MAX + minus) return ny_p_fail(p, "the number is too large");
  *out = (int64_t)(minus ? 0 - v : v);
  return NYB_OK;
}

nyb_status ny_p_double(ny_parser *p, double *out) {
  static const struct {
    const char *word;
    double value;
  } words[] = {{"nan", __builtin_nan("")}, {"inf", __builtin_inf()}, {"-inf", -__builtin_inf()}};
  ny_p_space(p);
  for (size_t i = 0; i < NY_COUNT(words); i++) {
    bool minus = words[i].word[0] == '-';
    size_t n = strlen(words[i].word);
    if (strncmp(p->s, words[i].word, n) || ny_word_length(p->s + minus) + minus != n) continue;
    p->s += n;
    *out = words[i].value;
    return NYB_OK;
  }
  char s[80];
  size_t n = strspn(p->s, "+-0123456789.eE"), k = 0;
  if (!n || n > 60) return ny_p_fail(p, "expected a number");
  const char *point = localeconv()->decimal_point; /* the program that holds us may have set a locale */
  for (size_t i = 0; i < n; i++) {
    if (p->s[i] != '.')
      s[k++] = p->s[i];
    else
      for (const char *c = point; *c && k < sizeof s - 2; c++) s[k++] = *c;
    if (k >= sizeof s - 2) return ny_p_fail(p, "the number is too long");
  }
  s[k] = 0;
  char *end;
  *out = strtod(s, &end);
  if (*end) return ny_p_fail(p, "expected a number");
  p->s += n;
  return NYB_OK;
}

nyb_status ny_p_dim(ny_parser *p, ny_dim *out) {
  ny_p_space(p);
  const char *at = p->s;
  *out = ny_dim_parse(p->cx, &p->s);
  if (*out != NY_DIM_INVALID) return NYB_OK;
  p->s = at;
  return ny_p_fail(p, "expected a size (or it overflows)");
}

static nyb_status type_suffix(ny_parser *p, ny_type *t) {
  if (!ny_p_take(p, '@')) return NYB_OK;
  if (ny_p_keyword(p, "global"))
    t->space = NY_GLOBAL;
  else if (ny_p_keyword(p, "shared"))
    t->space = NY_SHARED;
  else
    return ny_p_fail(p, "expected global or shared");
  return NYB_OK;
}

nyb_status ny_p_type(ny_parser *p, const ny_type **out) {
  size_t n = ny_p_word(p);
  ny_fmt f = n ? ny_fmt_by_name(p->s, n) : NY_none;
  if (f == NY_none) return ny_p_fail(p, "expected a type");
  p->s += n;
  ny_type t = {.fmt = (uint8_t)f};
  NY_TRY(ny_p_expect(p, '['));
  while (!ny_p_take(p, ']')) {
    if (t.rank) NY_TRY(ny_p_expect(p, ','));
    if (t.rank == NY_MAX_RANK) return ny_p_fail(p, "more than %d dimensions", NY_MAX_RANK);
    int64_t lo, hi;
    NY_TRY(ny_p_dim(p, &t.dim[t.rank]));
    ny_dim_bounds(p->cx, t.dim[t.rank++], &lo, &hi);
    if (hi < 0) return ny_p_fail(p, "a size is negative");
  }
  NY_TRY(type_suffix(p, &t));
  *out = ny_type_get(p->cx, t);
  return NYB_OK;
}
