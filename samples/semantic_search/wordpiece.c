#include "wordpiece.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_WORD = 100 }; /* code points; a longer word is [UNK], as in BERT */

struct wordpiece {
  char *text;         /* the vocabulary file, lines ended by NUL */
  const char **token; /* open-addressing table */
  int32_t *id;
  size_t slots;
  int64_t cls, sep, unk;
};

static uint64_t hash(const char *s, size_t n) { /* FNV-1a */
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
  return h;
}

static size_t slot_of(const wordpiece *w, const char *s, size_t n) {
  size_t i = hash(s, n) & (w->slots - 1);
  while (w->token[i] && (strncmp(w->token[i], s, n) || w->token[i][n])) i = (i + 1) & (w->slots - 1);
  return i;
}

static int64_t find(const wordpiece *w, const char *s, size_t n) {
  size_t i = slot_of(w, s, n);
  return w->token[i] ? w->id[i] : -1;
}

static char *read_file(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  char *s = NULL;
  long n = -1;
  if (!fseek(f, 0, SEEK_END) && (n = ftell(f)) >= 0 && !fseek(f, 0, SEEK_SET) && (s = malloc((size_t)n + 1))) {
    size_t got = fread(s, 1, (size_t)n, f);
    s[got] = 0;
  }
  fclose(f);
  return s;
}

wordpiece *wordpiece_open(const char *vocab_path) {
  wordpiece *w = calloc(1, sizeof *w);
  if (!w || !(w->text = read_file(vocab_path))) return wordpiece_close(w), NULL;
  size_t lines = 1;
  for (const char *p = w->text; *p; p++) lines += *p == '\n';
  for (w->slots = 16; w->slots < 2 * lines; w->slots *= 2) {}
  w->token = calloc(w->slots, sizeof *w->token);
  w->id = calloc(w->slots, sizeof *w->id);
  if (!w->token || !w->id) return wordpiece_close(w), NULL;
  int32_t id = 0;
  for (char *line = w->text, *end; *line; line = end, id++) {
    end = strchr(line, '\n');
    if (end) *end++ = 0;
    else end = line + strlen(line);
    size_t n = strlen(line);
    if (n && line[n - 1] == '\r') line[--n] = 0;
    size_t i = slot_of(w, line, n);
    w->token[i] = line;
    w->id[i] = id;
  }
  w->cls = find(w, "[CLS]", 5), w->sep = find(w, "[SEP]", 5), w->unk = find(w, "[UNK]", 5);
  if (w->cls < 0 || w->sep < 0 || w->unk < 0) return wordpiece_close(w), NULL;
  return w;
}

void wordpiece_close(wordpiece *w) {
  if (!w) return;
  free(w->text);
  free(w->token);
  free(w->id);
  free(w);
}

static bool is_space(utf8proc_int32_t c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || utf8proc_category(c) == UTF8PROC_CATEGORY_ZS; }

static bool is_control(utf8proc_int32_t c) {
  utf8proc_category_t k = utf8proc_category(c);
  return c == 0 || c == 0xfffd || k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO || k == UTF8PROC_CATEGORY_CS;
}

static bool is_punctuation(utf8proc_int32_t c) { /* every ASCII symbol counts, as in BERT */
  if ((c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126)) return true;
  utf8proc_category_t k = utf8proc_category(c);
  return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

static bool is_cjk(utf8proc_int32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b81f) ||
         (c >= 0x2b820 && c <= 0x2ceaf) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

typedef struct output {
  int64_t *ids;
  size_t n, cap;
} output;

static void put(output *o, int64_t id) {
  if (o->n < o->cap) o->ids[o->n++] = id;
}

/* Greedy longest match; `start` marks code point boundaries inside the word. */
static void word_out(const wordpiece *w, output *o, const char *word, const size_t *start, size_t n) {
  int64_t piece[MAX_WORD];
  size_t n_piece = 0;
  char buf[MAX_WORD * 4 + 3] = "##";
  if (n > MAX_WORD) {
    put(o, w->unk);
    return;
  }
  for (size_t from = 0; from < n;) {
    size_t to = n;
    int64_t id = -1;
    for (; to > from && id < 0; to -= id < 0) {
      size_t bytes = start[to] - start[from];
      memcpy(buf + 2, word + start[from], bytes);
      id = from ? find(w, buf, bytes + 2) : find(w, buf + 2, bytes);
    }
    if (id < 0) {
      put(o, w->unk);
      return;
    }
    piece[n_piece++] = id;
    from = to;
  }
  for (size_t i = 0; i < n_piece; i++) put(o, piece[i]);
}

typedef struct current { /* the word being collected */
  char s[(MAX_WORD + 1) * 4];
  size_t start[MAX_WORD + 2], n;
} current;

static void flush(const wordpiece *w, output *o, current *c) {
  if (c->n) word_out(w, o, c->s, c->start, c->n);
  c->n = 0;
}

static void append(current *c, utf8proc_int32_t cp) {
  if (c->n > MAX_WORD) return; /* already too long: [UNK] */
  c->start[0] = 0;
  size_t at = c->start[c->n];
  c->start[++c->n] = at + (size_t)utf8proc_encode_char(cp, (utf8proc_uint8_t *)c->s + at);
}

/* One code point of the input: lower-cased, decomposed, its marks dropped. */
static void take(const wordpiece *w, output *o, current *word, utf8proc_int32_t cp) {
  if (is_space(cp)) flush(w, o, word);
  if (is_space(cp) || is_control(cp)) return;
  utf8proc_int32_t parts[32];
  int boundary = 0;
  utf8proc_ssize_t n = utf8proc_decompose_char(utf8proc_tolower(cp), parts, 32, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
  for (utf8proc_ssize_t i = 0; i < n && i < 32; i++) {
    if (utf8proc_category(parts[i]) == UTF8PROC_CATEGORY_MN) continue;
    bool alone = is_cjk(parts[i]) || is_punctuation(parts[i]);
    if (alone) flush(w, o, word);
    append(word, parts[i]);
    if (alone) flush(w, o, word);
  }
}

size_t wordpiece_encode(const wordpiece *w, const char *text, size_t bytes, int64_t *ids, size_t cap) {
  output o = {ids, 0, cap - 1}; /* room for [SEP] */
  current word = {.n = 0};
  put(&o, w->cls);
  for (size_t i = 0; i < bytes && o.n < o.cap;) {
    utf8proc_int32_t cp;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(bytes - i), &cp);
    if (n > 0) take(w, &o, &word, cp);
    i += n > 0 ? (size_t)n : 1;
  }
  flush(w, &o, &word);
  ids[o.n] = w->sep;
  return o.n + 1;
}
