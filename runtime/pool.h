/* A fork-join thread pool of one session. The caller takes part; several pools may be busy at once; jobs do not nest.
 */
#ifndef NY_POOL_H
#define NY_POOL_H
#include "base.h"

typedef struct ny_pool ny_pool;
/* Works on items [begin, end); `thread` is 0 for the caller and 1.. for workers. */
typedef void ny_task(void *user, int64_t begin, int64_t end, int thread);
/* threads includes the caller. spin_us: how long an idle worker spins before it sleeps; 0: never spins. */
nyb_status ny_pool_new(int threads, int spin_us, ny_pool **out, ny_diag *d);
void ny_pool_free(ny_pool *p);
/* Calls task over [0, n) in pieces of `chunk` items and returns when all are done. Allocates nothing. */
void ny_pool_run(ny_pool *p, ny_task *task, void *user, int64_t n, int64_t chunk);
#endif
