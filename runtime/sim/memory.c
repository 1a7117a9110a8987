/* The mapped ranges: an array by address under a lock. A launch copies it once, so that looking an address up while
   kernels run takes no lock. */
#include "memory.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct ny_sim_memory {
  pthread_mutex_t lock;
  ny_sim_range *range;
  size_t n, cap;
};

static void *must(void *p) {
  if (p) return p;
  fputs("nybble: out of memory\n", stderr);
  abort();
}

ny_sim_memory *ny_sim_memory_new(void) {
  ny_sim_memory *m = must(calloc(1, sizeof *m));
  pthread_mutex_init(&m->lock, NULL);
  return m;
}

void ny_sim_memory_free(ny_sim_memory *m) {
  if (!m) return;
  free(m->range);
  pthread_mutex_destroy(&m->lock);
  free(m);
}

/* The number of ranges that start at or below p. */
static size_t below(const ny_sim_range *r, size_t n, uint64_t p) {
  size_t lo = 0;
  while (lo < n) {
    size_t mid = lo + (n - lo) / 2;
    if (r[mid].base <= p)
      lo = mid + 1;
    else
      n = mid;
  }
  return lo;
}

nyb_status ny_sim_map(ny_sim_memory *m, const void *p, uint64_t bytes, const char *name, bool read_only, ny_diag *d) {
  uint64_t base = (uint64_t)(uintptr_t)p;
  if (!bytes || base + bytes < base)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "a range of %llu bytes cannot be mapped", (unsigned long long)bytes);
  pthread_mutex_lock(&m->lock);
  size_t at = below(m->range, m->n, base);
  const ny_sim_range *clash = NULL;
  if (at && base - m->range[at - 1].base < m->range[at - 1].bytes) clash = &m->range[at - 1];
  if (at < m->n && m->range[at].base - base < bytes) clash = &m->range[at];
  nyb_status s = NYB_OK;
  if (clash) {
    s = ny_fail(d, NYB_E_ARGUMENT, NULL, "the range %p + %llu overlaps \"%s\" at 0x%llx", p, (unsigned long long)bytes,
                clash->name, (unsigned long long)clash->base);
  } else {
    if (m->n == m->cap) {
      m->cap = m->cap ? m->cap * 2 : 64;
      m->range = must(realloc(m->range, m->cap * sizeof *m->range));
    }
    memmove(m->range + at + 1, m->range + at, (m->n - at) * sizeof *m->range);
    m->range[at] = (ny_sim_range){.base = base, .bytes = bytes, .read_only = read_only};
    snprintf(m->range[at].name, sizeof m->range[at].name, "%s", name ? name : "a buffer");
    m->n++;
  }
  pthread_mutex_unlock(&m->lock);
  return s;
}

bool ny_sim_unmap(ny_sim_memory *m, const void *p) {
  uint64_t base = (uint64_t)(uintptr_t)p;
  pthread_mutex_lock(&m->lock);
  size_t at = below(m->range, m->n, base);
  bool found = at && m->range[at - 1].base == base;
  if (found) {
    memmove(m->range + at - 1, m->range + at, (m->n - at) * sizeof *m->range);
    m->n--;
  }
  pthread_mutex_unlock(&m->lock);
  return found;
}

bool ny_sim_find(ny_sim_memory *m, const void *p, ny_sim_range *out) {
  uint64_t base = (uint64_t)(uintptr_t)p;
  pthread_mutex_lock(&m->lock);
  size_t at = below(m->range, m->n, base);
  bool found = at && base - m->range[at - 1].base < m->range[at - 1].bytes;
  if (found) *out = m->range[at - 1];
  pthread_mutex_unlock(&m->lock);
  return found;
}

uint32_t ny_sim_memory_snapshot(ny_sim_memory *m, const ny_sim_range *more, uint32_t n_more, ny_sim_range **out) {
  pthread_mutex_lock(&m->lock);
  ny_sim_range *r = must(malloc((m->n + n_more + 1) * sizeof *r));
  size_t n = m->n;
  if (n) memcpy(r, m->range, n * sizeof *r);
  pthread_mutex_unlock(&m->lock);
  for (uint32_t i = 0; i < n_more; i++) {
    size_t at = below(r, n, more[i].base);
    memmove(r + at + 1, r + at, (n - at) * sizeof *r);
    r[at] = more[i];
    n++;
  }
  *out = r;
  return (uint32_t)n;
}
