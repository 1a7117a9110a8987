/* PTX tokens. A mnemonic with its modifiers is one word, so are %tid.x and $L__BB0_1; "::" belongs to a word, ":" ends
 * it. */
#include "parse.h"
#include <stdlib.h>
#include <string.h>

static bool starts_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' || c == '%' || c == '.';
}
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool in_word(char c) { return starts_word(c) || is_digit(c); }

static void skip_blank(ny_lex *x) {
  while (x->s < x->end) {
    char c = *x->s;
    if (c == '\n') x->next_line++;
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      x->s++;
    } else if (c == '/' && x->s + 1 < x->end && x->s[1] == '/') {
      while (x->s < x->end && *x->s != '\n') x->s++;
    } else if (c == '/' && x->s + 1 < x->end && x->s[1] == '*') {
      x->s += 2;
      while (x->s < x->end && !(*x->s == '*' && x->s + 1 < x->end && x->s[1] == '/'))
        if (*x->s++ == '\n') x->next_line++;
      x->s += x->end - x->s < 2 ? x->end - x->s : 2;
    } else {
      return;
    }
  }
}

static void word(ny_lex *x) {
  const char *s = x->s;
  while (s < x->end) {
    if (in_word(*s))
      s++;
    else if (*s == ':' && s + 2 < x->end && s[1] == ':' && in_word(s[2]))
      s += 2;
    else
      break;
  }
  x->s = s;
  x->kind = NY_TOK_WORD;
}

static int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Digits of a base; false: none, or too large for 64 bits. */
static bool digits(ny_lex *x, unsigned base) {
  uint64_t v = 0;
  const char *from = x->s;
  for (; x->s < x->end; x->s++) {
    int h = hex_digit(*x->s);
    if (h < 0 || (unsigned)h >= base) break;
    if (v > (UINT64_MAX - (unsigned)h) / base) return false;
    v = v * base + (unsigned)h;
  }
  x->value = (int64_t)v;
  return x->s > from;
}

static bool is_decimal_float(const ny_lex *x) {
  const char *s = x->s;
  while (s < x->end && is_digit(*s)) s++;
  return s < x->end && (*s == '.' || *s == 'e' || *s == 'E');
}

static bool decimal_float(ny_lex *x) {
  char copy[64];
  size_t n = 0;
  while (x->s < x->end && n < sizeof copy - 1) {
    char c = *x->s, before = n ? copy[n - 1] : 0;
    bool sign = (c == '-' || c == '+') && (before == 'e' || before == 'E');
    if (!is_digit(c) && c != '.' && c != 'e' && c != 'E' && !sign) break;
    copy[n++] = c;
    x->s++;
  }
  copy[n] = 0;
  char *end;
  double v = strtod(copy, &end);
  memcpy(&x->value, &v, sizeof v);
  x->width = 8;
  x->kind = NY_TOK_FLOAT;
  return *end == 0;
}

static bool number(ny_lex *x) {
  char c = x->s + 1 < x->end ? x->s[1] : 0;
  x->kind = NY_TOK_INT;
  if (*x->s == '0' && (c == 'f' || c == 'F' || c == 'd' || c == 'D')) {
    x->kind = NY_TOK_FLOAT;
    x->width = c == 'f' || c == 'F' ? 4 : 8;
    x->s += 2;
    const char *from = x->s;
    return digits(x, 16) && x->s - from == 2 * x->width;
  }
  bool ok;
  if (*x->s == '0' && (c == 'x' || c == 'X')) {
    x->s += 2;
    ok = digits(x, 16);
  } else if (*x->s == '0' && (c == 'b' || c == 'B')) {
    x->s += 2;
    ok = digits(x, 2);
  } else if (is_decimal_float(x)) {
    return decimal_float(x);
  } else {
    ok = digits(x, *x->s == '0' && is_digit(c) ? 8 : 10);
  }
  if (x->s < x->end && *x->s == 'U') x->s++;
  return ok && !(x->s < x->end && in_word(*x->s) && *x->s != '.');
}

static bool string(ny_lex *x) {
  x->s++;
  x->text = x->s;
  while (x->s < x->end && *x->s != '"' && *x->s != '\n') x->s += *x->s == '\\' && x->s + 1 < x->end ? 2 : 1;
  if (x->s >= x->end || *x->s != '"') return false;
  x->n = (size_t)(x->s - x->text);
  x->s++;
  x->kind = NY_TOK_STRING;
  return true;
}

void ny_lex_next(ny_lex *x) {
  skip_blank(x);
  x->line = x->next_line;
  x->text = x->s;
  if (x->s >= x->end) {
    x->kind = NY_TOK_END;
    x->n = 0;
    return;
  }
  char c = *x->s;
  if (c == '"') {
    if (!string(x)) x->kind = NY_TOK_BAD;
    return;
  }
  if (is_digit(c)) {
    if (!number(x)) x->kind = NY_TOK_BAD;
  } else if (starts_word(c)) {
    word(x);
  } else {
    x->kind = NY_TOK_PUNCT;
    x->punct = c;
    x->s++;
  }
  x->n = (size_t)(x->s - x->text);
}

bool ny_lex_is(const ny_lex *x, const char *w) {
  return x->kind == NY_TOK_WORD && strlen(w) == x->n && !memcmp(w, x->text, x->n);
}
