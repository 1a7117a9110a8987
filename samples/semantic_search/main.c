/* Semantic search: ranks the paragraphs of text files by meaning. The sentence encoder runs through nybble, the tokenizer is in wordpiece.c.
   usage: semantic_search MODEL(.onnx|.nyb) VOCAB.txt QUERY FILE... */
#include "wordpiece.h"

#include <nybble/nybble.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_TOKENS = 128, BATCH = 8, TOP = 5, MIN_PARAGRAPH = 40 };

typedef struct passage {
  char *text;
  const char *file;
  int line;
  float score;
} passage;
typedef struct corpus {
  passage *p;
  size_t n, cap;
} corpus;
typedef struct encoder {
  nyb_context *cx;
  nyb_module *module;
  nyb_session *session;
  wordpiece *words;
  int64_t width;
} encoder;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int failed(nyb_context *cx) {
  const nyb_error *e = nyb_last_error(cx);
  return fprintf(stderr, "semantic_search: %s\n", e ? e->text : "out of memory"), 1;
}

static int add(corpus *c, const char *text, size_t n, const char *file, int line) {
  if (c->n == c->cap) {
    c->cap = c->cap ? 2 * c->cap : 64;
    passage *p = realloc(c->p, c->cap * sizeof *p);
    if (!p) return 1;
    c->p = p;
  }
  char *copy = strndup(text, n);
  if (!copy) return 1;
  c->p[c->n++] = (passage){copy, file, line, 0};
  return 0;
}

/* Paragraphs are separated by blank lines. */
static int read_paragraphs(corpus *c, const char *file) {
  FILE *f = fopen(file, "r");
  if (!f) return fprintf(stderr, "semantic_search: cannot open %s\n", file), 1;
  char line[4096], para[16384];
  size_t n = 0;
  int at = 0, start = 1, bad = 0;
  while (!bad && fgets(line, sizeof line, f)) {
    at++;
    size_t k = strlen(line);
    if (line[strspn(line, " \t\r\n")] == 0) {
      if (n >= MIN_PARAGRAPH) bad = add(c, para, n, file, start);
      n = 0;
    } else if (n + k < sizeof para) {
      if (!n) start = at;
      memcpy(para + n, line, k);
      n += k;
    }
  }
  if (!bad && n >= MIN_PARAGRAPH) bad = add(c, para, n, file, start);
  fclose(f);
  return bad;
}

/* Encodes up to BATCH texts, padded to the longest; rows of `out` are unit vectors. */
static int encode(encoder *e, const passage *p, size_t n, float *out) {
  static int64_t tokens[BATCH][MAX_TOKENS], ids[BATCH * MAX_TOKENS], mask[BATCH * MAX_TOKENS];
  size_t len[BATCH], longest = 0;
  for (size_t i = 0; i < n; i++) {
    len[i] = wordpiece_encode(e->words, p[i].text, strlen(p[i].text), tokens[i], MAX_TOKENS);
    if (len[i] > longest) longest = len[i];
  }
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < longest; k++) {
      ids[i * longest + k] = k < len[i] ? tokens[i][k] : 0;
      mask[i * longest + k] = k < len[i];
    }
  int64_t shape[2] = {(int64_t)n, (int64_t)longest}, out_shape[2] = {(int64_t)n, e->width};
  nyb_tensor in[2] = {{ids, {1, 0}, 2, {NYB_INT, 64, 1}, shape, NULL, 0}, {mask, {1, 0}, 2, {NYB_INT, 64, 1}, shape, NULL, 0}};
  nyb_tensor result = {out, {1, 0}, 2, {NYB_FLOAT, 32, 1}, out_shape, NULL, 0};
  return nyb_run(e->session, in, 2, &result, 1) ? failed(e->cx) : 0;
}

static int open_encoder(encoder *e, const char *model, const char *vocab) {
  if (nyb_open(NULL, &e->cx)) return 1;
  nyb_dim room[] = {{"B", BATCH}, {"S", MAX_TOKENS}};
  nyb_session_options so = {.size = sizeof so, .dims = room, .n_dims = 2};
  nyb_module_info info = {.size = sizeof info};
  if (nyb_open_model(e->cx, model, NULL, NULL, &e->module) || nyb_module_describe(e->module, &info)) return failed(e->cx);
  if (info.n_inputs != 2 || info.n_outputs != 1 || info.outputs[0].ndim != 2)
    return fprintf(stderr, "semantic_search: %s is not a sentence encoder (ids and mask in, one vector out)\n", model), 1;
  e->width = info.outputs[0].shape[1];
  if (nyb_session_open(e->module, &so, &e->session)) return failed(e->cx);
  e->words = wordpiece_open(vocab);
  if (!e->words) return fprintf(stderr, "semantic_search: %s is not a WordPiece vocabulary\n", vocab), 1;
  return 0;
}

static int by_score(const void *a, const void *b) {
  float x = ((const passage *)a)->score, y = ((const passage *)b)->score;
  return x < y ? 1 : x > y ? -1 : 0;
}

static int rank(encoder *e, corpus *c, char *query) {
  size_t width = (size_t)e->width;
  float *q = malloc((BATCH + 1) * width * sizeof *q), *rows = q + width;
  passage qp = {.text = query};
  if (!q || encode(e, &qp, 1, q)) return free(q), 1;
  double t0 = now();
  for (size_t i = 0; i < c->n; i += BATCH) {
    size_t n = c->n - i < BATCH ? c->n - i : BATCH;
    if (encode(e, c->p + i, n, rows)) return free(q), 1;
    for (size_t k = 0; k < n; k++)
      for (size_t d = 0; d < width; d++) c->p[i + k].score += q[d] * rows[k * width + d];
  }
  double seconds = now() - t0;
  qsort(c->p, c->n, sizeof *c->p, by_score);
  printf("\"%s\": %zu paragraphs encoded in %.0f ms\n", query, c->n, seconds * 1e3);
  for (size_t i = 0; i < c->n && i < TOP; i++) {
    int n = (int)strcspn(c->p[i].text, "\n");
    printf("  %.3f  %s:%d  %.*s\n", (double)c->p[i].score, c->p[i].file, c->p[i].line, n > 90 ? 90 : n, c->p[i].text);
  }
  free(q);
  return 0;
}

int main(int argc, char **argv) {
  if (argc < 5) return fprintf(stderr, "usage: semantic_search MODEL VOCAB.txt QUERY FILE...\n"), 2;
  encoder e = {0};
  corpus c = {0};
  int bad = open_encoder(&e, argv[1], argv[2]);
  for (int i = 4; !bad && i < argc; i++) bad = read_paragraphs(&c, argv[i]);
  if (!bad) bad = rank(&e, &c, argv[3]);
  for (size_t i = 0; i < c.n; i++) free(c.p[i].text);
  free(c.p);
  wordpiece_close(e.words);
  nyb_session_close(e.session);
  nyb_module_close(e.module);
  nyb_close(e.cx);
  return bad;
}
