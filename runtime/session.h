/* A session: a module with memory and threads, or with memory and a queue of a device. session.c makes room, run.c
   binds tensors and executes on the CPU; remote.c and remote_run.c do the same for a device. */
#ifndef NY_SESSION_H
#define NY_SESSION_H
#include "block.h"
#include "plan.h"
#include "pool.h"

typedef struct ny_binding_site { /* the input dimension that gives a symbol its value */
  uint32_t input, dim;
  bool bound;
} ny_binding_site;
/* Called before and after every launch of a run, with the queue idle. */
typedef nyb_status ny_launch_watch(void *user, nyb_session *s, const ny_launch *l, bool after);
struct nyb_session {
  nyb_module *module;
  const ny_mod *mod;
  ny_arena rows; /* the tables below */
  int64_t *sym, *val;
  ny_binding_site *site;
  bool *named;  /* per symbol: the caller has given its size; the others count as 1 while memory is reserved */
  bool planned; /* val belongs to sym, fits the memory and is what the module requires */
  ny_block_of_memory arena, scratch, *output;
  uint64_t scratch_stride;
  int64_t (*out_shape)[NY_MOD_RANK];
  void **ptr;        /* per buffer of the module: where the session runs */
  void **launch_ptr; /* of the command being executed */
  int64_t *launch_dim;
  ny_pool *pool;
  int threads;
  nyb_kernel_time *time;  /* per kernel, or NULL */
  ny_launch_watch *watch; /* of launches on a device; NULL: none */
  void *watch_user;
  uint64_t max_bytes;
  double max_seconds, deadline; /* 0: none */
  struct ny_remote *remote;     /* NULL: the CPU */
  ny_diag diag;
};

/* Evaluates the expressions for s->sym and compares with the memory there is; with grow, makes room. With `compare`,
   the sizes must be what the module requires. */
nyb_status ny_session_plan(nyb_session *s, bool grow, bool compare);
/* For one block of the session: it has room already, or it is given room (grow), or it is an error. */
nyb_status ny_session_fit(nyb_session *s, ny_block_of_memory *b, uint64_t need, const char *what, bool grow);

/* ---- run.c, for remote_run.c too */
/* Memory of the host for an output, and the tensor's description. */
nyb_status ny_session_output(nyb_session *s, uint32_t i, nyb_tensor *t, void **address);
nyb_status ny_session_input(nyb_session *s, uint32_t i, const nyb_tensor *t, const void **address, uint64_t *bytes);
void ny_session_views(nyb_session *s); /* other buffers that stand for the same inputs and outputs */
nyb_status ny_session_in_time(nyb_session *s);

/* ---- remote.c. The module's device is not NULL. */
nyb_status ny_remote_open(nyb_session *s);
void ny_remote_close(nyb_session *s);
/* Buffers beside the arena, once s->val is known. */
nyb_status ny_remote_plan(nyb_session *s, bool grow);
uint64_t ny_remote_bytes(const nyb_session *s);
/* remote_run.c: the sizes are bound and compared. */
nyb_status ny_remote_run(nyb_session *s, const nyb_tensor *in, nyb_tensor *out);
#endif
