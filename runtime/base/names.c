/* Interned strings: an open-addressed table over an arena. Names never leave before the table does, so pointers stay
 * valid. */
#include "base.h"
#include <stdlib.h>
#include <string.h>

static uint64_t hash_of(const char *s, size_t n) {
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
  return h ^ h >> 29;
}

static size_t find(const ny_names *t, const char *s, size_t n) {
  size_t i = hash_of(s, n) & (t->cap - 1);
  while (t->slot[i] && (strncmp(t->slot[i], s, n) || t->slot[i][n])) i = (i + 1) & (t->cap - 1);
  return i;
}

static void grow(ny_names *t) {
  ny_names old = *t;
  t->cap = old.cap ? old.cap * 2 : 256;
  t->slot = calloc(t->cap, sizeof *t->slot);
  if (!t->slot) {
    fprintf(stderr, "nybble: out of memory (%zu names)\n", t->cap);
    abort();
  }
  for (size_t i = 0; i < old.cap; i++)
    if (old.slot[i]) t->slot[find(t, old.slot[i], strlen(old.slot[i]))] = old.slot[i];
  free(old.slot);
}

ny_name ny_internn(ny_names *t, const char *s, size_t n) {
  size_t len = n ? strnlen(s, n) : 0; /* a name ends at its first NUL */
  if (t->n * 4 >= t->cap * 3) grow(t);
  size_t i = find(t, s, len);
  if (!t->slot[i]) {
    t->slot[i] = ny_strndup(&t->arena, s, len);
    t->n++;
  }
  return t->slot[i];
}

ny_name ny_intern(ny_names *t, const char *s) { return ny_internn(t, s, strlen(s)); }

void ny_names_free(ny_names *t) {
  free(t->slot);
  ny_arena_free(&t->arena);
  *t = (ny_names){0};
}
