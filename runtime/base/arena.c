/* Bump allocation in a list of growing chunks; nothing is freed before the whole arena is. `used` counts bytes taken
   from the head chunk, `total` what the system gave. A request larger than a chunk gets one of its own behind the head,
   which stays in use. */
#include "base.h"
#include <stdlib.h>
#include <string.h>

enum { FIRST_CHUNK = 1 << 14, LARGEST_CHUNK = 1 << 20 };

struct ny_chunk {
  struct ny_chunk *next;
  size_t bytes; /* of data */
  _Alignas(16) unsigned char data[];
};

_Noreturn static void out_of_memory(size_t bytes) {
  fprintf(stderr, "nybble: out of memory (%zu bytes)\n", bytes);
  abort();
}

static struct ny_chunk *chunk_new(ny_arena *a, size_t bytes) {
  struct ny_chunk *c = bytes > SIZE_MAX - sizeof *c ? NULL : calloc(1, sizeof *c + bytes);
  if (!c) out_of_memory(bytes);
  c->bytes = bytes;
  a->total += bytes;
  return c;
}

void *ny_alloc(ny_arena *a, size_t bytes) {
  if (bytes > SIZE_MAX - 16) out_of_memory(bytes);
  bytes = bytes ? (bytes + 15) & ~(size_t)15 : 16;
  if (a->head && bytes <= a->head->bytes - a->used) {
    void *p = a->head->data + a->used;
    a->used += bytes;
    return p;
  }
  size_t usual = a->total < FIRST_CHUNK ? FIRST_CHUNK : a->total < LARGEST_CHUNK ? a->total : LARGEST_CHUNK;
  if (a->head && bytes > usual / 4) {
    struct ny_chunk *own = chunk_new(a, bytes);
    own->next = a->head->next;
    a->head->next = own;
    return own->data;
  }
  struct ny_chunk *c = chunk_new(a, bytes > usual ? bytes : usual);
  c->next = a->head;
  a->head = c;
  a->used = bytes;
  return c->data;
}

void *ny_grow(ny_arena *a, void *old, size_t old_bytes, size_t new_bytes) {
  size_t old_room = old ? (old_bytes ? (old_bytes + 15) & ~(size_t)15 : 16) : 0;
  if (old && new_bytes <= old_room) return old;
  /* The last allocation of the head chunk grows in place. */
  if (old && a->head && (unsigned char *)old + old_room == a->head->data + a->used) {
    size_t more = ((new_bytes + 15) & ~(size_t)15) - old_room;
    if (new_bytes <= SIZE_MAX - 16 && more <= a->head->bytes - a->used) {
      a->used += more;
      return old;
    }
  }
  void *p = ny_alloc(a, new_bytes);
  if (old_bytes) memcpy(p, old, old_bytes < new_bytes ? old_bytes : new_bytes);
  return p;
}

char *ny_strndup(ny_arena *a, const char *s, size_t n) {
  char *p = ny_alloc(a, n + 1);
  if (n) memcpy(p, s, n);
  p[n] = 0;
  return p;
}

char *ny_strdup(ny_arena *a, const char *s) { return ny_strndup(a, s, strlen(s)); }

char *ny_strf(ny_arena *a, const char *fmt, ...) {
  char small[256];
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  int n = vsnprintf(small, sizeof small, fmt, ap);
  char *p = ny_alloc(a, n < 0 ? 1 : (size_t)n + 1);
  if (n > 0 && (size_t)n < sizeof small)
    memcpy(p, small, (size_t)n);
  else if (n > 0)
    vsnprintf(p, (size_t)n + 1, fmt, again);
  va_end(again);
  va_end(ap);
  return p;
}

void ny_arena_free(ny_arena *a) {
  for (struct ny_chunk *c = a->head, *next; c; c = next) {
    next = c->next;
    free(c);
  }
  *a = (ny_arena){0};
}
