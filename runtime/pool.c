/* Fork-join over one atomic countdown. A thread that lowers `left` by one owns that chunk, and only then reads what the
   job is; the caller waits until `done` counts every chunk. So it never waits for a worker that holds no chunk (one the
   system has descheduled, say), and a worker late for one job finds either nothing left or the next job, both of which
   are fine. The count goes down, not up: comparing with the number of chunks would mean reading the job before owning a
   part of it. */
#include "pool.h"
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ny_pool {
  /* The job: written by the caller while left is 0 and nothing is owned, read by owners of a chunk. */
  ny_task *task;
  void *user;
  int64_t n, chunk;
  uint32_t n_chunks;
  _Alignas(64) _Atomic uint32_t left; /* chunks nobody owns yet */
  _Alignas(64) _Atomic uint32_t done; /* chunks finished; the caller sleeps on it */
  _Atomic uint32_t waiting;           /* the caller sleeps or is about to */
  _Alignas(64) _Atomic uint32_t jobs; /* started so far; workers sleep on it */
  _Atomic uint32_t sleepers;
  _Atomic bool stop;
  int threads; /* including the caller */
  double spin; /* seconds */
  struct worker {
    ny_pool *pool;
    pthread_t id;
    int number;
  } worker[];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}
static void futex_wake(_Atomic uint32_t *word, uint32_t n) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb"); /* `yield` does nothing on most cores */
#endif
}

static bool own_chunk(ny_pool *p, uint32_t *which) {
  uint32_t left = atomic_load_explicit(&p->left, memory_order_relaxed);
  while (left)
    if (atomic_compare_exchange_weak_explicit(&p->left, &left, left - 1, memory_order_acquire, memory_order_relaxed)) {
      *which = p->n_chunks - left;
      return true;
    }
  return false;
}

static void work(ny_pool *p, int thread) {
  uint32_t which;
  while (own_chunk(p, &which)) {
    uint32_t n_chunks = p->n_chunks; /* after the count below the job may be gone */
    int64_t begin = (int64_t)which * p->chunk, end = p->n - begin < p->chunk ? p->n : begin + p->chunk;
    p->task(p->user, begin, end, thread);
    if (atomic_fetch_add(&p->done, 1) + 1 == n_chunks && atomic_load(&p->waiting)) futex_wake(&p->done, 1);
  }
}

/* True once there is something to do; false when `seconds` passed without. */
static bool spin(ny_pool *p, double seconds) {
  double end = 0;
  for (unsigned i = 0;; i++) {
    if (atomic_load_explicit(&p->left, memory_order_relaxed) || atomic_load_explicit(&p->stop, memory_order_relaxed))
      return true;
    if (i % 64 == 0) { /* the clock costs more than a look */
      double now = ny_now();
      if (i == 0) end = now + seconds;
      if (now >= end) return false;
    }
    relax();
  }
}

/* Registers as a sleeper before the last look: either that look sees a job, or its caller sees the sleeper. */
static void sleep_until_job(ny_pool *p) {
  atomic_fetch_add(&p->sleepers, 1);
  uint32_t seen = atomic_load(&p->jobs);
  if (!atomic_load(&p->left) && !atomic_load(&p->stop)) futex_wait(&p->jobs, seen);
  atomic_fetch_sub(&p->sleepers, 1);
}

static void *worker_main(void *arg) {
  struct worker *w = arg;
  ny_pool *p = w->pool;
  while (!atomic_load(&p->stop)) {
    work(p, w->number);
    if (p->spin <= 0 || !spin(p, p->spin)) sleep_until_job(p);
  }
  return NULL;
}

static void wait_done(ny_pool *p, uint32_t n_chunks) {
  for (int i = 0; i < 2000; i++) {
    if (atomic_load_explicit(&p->done, memory_order_acquire) == n_chunks) return;
    relax();
  }
  atomic_store(&p->waiting, 1);
  for (uint32_t done; (done = atomic_load(&p->done)) != n_chunks;) futex_wait(&p->done, done);
  atomic_store(&p->waiting, 0);
}

void ny_pool_run(ny_pool *p, ny_task *task, void *user, int64_t n, int64_t chunk) {
  if (n <= 0) return;
  if (chunk < 1) chunk = 1;
  if (n / chunk >= INT32_MAX) chunk = n / (1 << 20);
  if (n <= chunk || p->threads == 1) {
    task(user, 0, n, 0);
    return;
  }
  p->task = task;
  p->user = user;
  p->n = n;
  p->chunk = chunk;
  uint32_t n_chunks = p->n_chunks = (uint32_t)(n / chunk + (n % chunk != 0));
  atomic_store_explicit(&p->done, 0, memory_order_relaxed);
  atomic_store(&p->left, n_chunks); /* from here on the job is shared */
  atomic_fetch_add(&p->jobs, 1);
  uint32_t asleep = atomic_load(&p->sleepers);
  if (asleep) futex_wake(&p->jobs, asleep < n_chunks - 1 ? asleep : n_chunks - 1);
  work(p, 0);
  wait_done(p, n_chunks);
}

static int start_workers(ny_pool *p) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the program's business, not ours */
  int e = 0, i = 1;
  for (; i < p->threads; i++) {
    p->worker[i - 1] = (struct worker){.pool = p, .number = i};
    e = pthread_create(&p->worker[i - 1].id, NULL, worker_main, &p->worker[i - 1]);
    if (e) break;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  p->threads = i; /* those that exist, for ny_pool_free */
  return e;
}

nyb_status ny_pool_new(int threads, int spin_us, ny_pool **out, ny_diag *d) {
  *out = NULL;
  size_t bytes = sizeof(ny_pool) + sizeof(struct worker) * (size_t)threads;
  ny_pool *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
  if (!p) return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for a pool of %d threads", threads);
  memset(p, 0, bytes);
  p->threads = threads;
  p->spin = spin_us * 1e-6;
  int e = start_workers(p);
  if (e) {
    int got = p->threads;
    ny_pool_free(p);
    return ny_fail(d, NYB_E_LIMIT, NULL, "only %d of %d threads could be started: %s", got, threads, strerror(e));
  }
  *out = p;
  return NYB_OK;
}

void ny_pool_free(ny_pool *p) {
  if (!p) return;
  atomic_store(&p->stop, true);
  atomic_fetch_add(&p->jobs, 1);
  futex_wake(&p->jobs, INT32_MAX);
  for (int i = 1; i < p->threads; i++) pthread_join(p->worker[i - 1].id, NULL);
  free(p);
}
