/* The thread pool: every item exactly once, at many sizes, with spinning and sleeping workers, and several pools at
 * once. */
#include "pool.h"
#include "test.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct job {
  uint8_t *seen; /* plain on purpose: a thread sanitizer sees any item given out twice */
  int threads;
  atomic_int bad;
} job;

static void mark(void *user, int64_t begin, int64_t end, int thread) {
  job *j = user;
  if (begin >= end || thread < 0 || thread >= j->threads) atomic_fetch_add(&j->bad, 1);
  for (int64_t i = begin; i < end; i++) j->seen[i]++;
}

static uint32_t next(uint32_t *seed) { return *seed = *seed * 1664525 + 1013904223; }

static int stress(int threads, int spin_us, int jobs, uint32_t seed) {
  enum { MOST = 3000 };
  uint8_t *seen = malloc(MOST);
  ny_pool *p;
  ny_diag d = {0};
  if (ny_pool_new(threads, spin_us, &p, &d)) return -1;
  job j = {.seen = seen, .threads = threads};
  int bad = 0;
  for (int k = 0; k < jobs; k++) {
    int64_t n = next(&seed) % (k % 3 ? 40 : MOST), chunk = next(&seed) % 20;
    memset(seen, 0, MOST);
    ny_pool_run(p, mark, &j, n, chunk);
    for (int64_t i = 0; i < MOST; i++) bad += seen[i] != (i < n);
    if (next(&seed) % 64 == 0) nanosleep(&(struct timespec){0, 100000}, NULL); /* lets workers fall asleep */
  }
  bad += atomic_load(&j.bad);
  ny_pool_free(p);
  free(seen);
  return bad;
}

static void *other_pool(void *seed) { return (void *)(intptr_t)stress(3, 20, 1500, *(uint32_t *)seed); }

static void sum(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  int64_t s = 0;
  for (int64_t i = begin; i < end; i++) s += i;
  atomic_fetch_add((_Atomic int64_t *)user, s);
}

int main(void) {
  static const int spins[] = {0, 5, 200};
  for (int threads = 1; threads <= 8; threads++)
    for (size_t k = 0; k < NY_COUNT(spins); k++) {
      int bad = stress(threads, spins[k], 1000, (uint32_t)(threads * 7 + (int)k));
      CHECK(bad == 0, "%d threads, spin %d: %d", threads, spins[k], bad);
    }
  pthread_t id[3];
  uint32_t seed[3] = {1, 2, 3};
  for (int i = 0; i < 3; i++) CHECK(!pthread_create(&id[i], NULL, other_pool, &seed[i]), "create");
  for (int i = 0; i < 3; i++) {
    void *bad;
    pthread_join(id[i], &bad);
    CHECK(!bad, "pools at once: %d", (int)(intptr_t)bad);
  }
  ny_pool *p;
  ny_diag d = {0};
  CHECK(!ny_pool_new(4, 50, &p, &d), "%s", d.message);
  _Atomic int64_t total = 0;
  int64_t n = (int64_t)1 << 22;
  ny_pool_run(p, sum, &total, n, 1);
  CHECK(total == n * (n - 1) / 2, "many chunks");
  total = 0;
  ny_pool_run(p, sum, &total, n, INT64_MAX);
  CHECK(total == n * (n - 1) / 2, "one chunk");
  for (int i = 0; i < 1000; i++) { /* pools that never ran and pools that just ran must stop */
    ny_pool *q;
    CHECK_EACH(!ny_pool_new(3, i % 2 ? 0 : 10, &q, &d), "%s", d.message);
    if (i % 3) ny_pool_run(q, sum, &total, 100, 1);
    ny_pool_free(q);
  }
  ny_pool_free(p);
  return test_end("pool");
}
