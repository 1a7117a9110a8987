/* A session: a module with memory and threads. session.c makes room, run.c binds tensors and executes. */
#ifndef NY_SESSION_H
#define NY_SESSION_H
#include "plan.h"
#include "pool.h"

typedef struct ny_block_of_memory { /* page-aligned, grows only by being replaced */
  void *p;
  uint64_t bytes; /* asked for: what fits must not depend on the size of a page */
  uint64_t mapped;
} ny_block_of_memory;
typedef struct ny_binding_site { /* the input dimension that gives a symbol its value */
  uint32_t input, dim;
  bool bound;
} ny_binding_site;
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
  void **ptr;        /* per buffer of the module */
  void **launch_ptr; /* of the command being executed */
  int64_t *launch_dim;
  ny_pool *pool;
  int threads;
  nyb_kernel_time *time; /* per kernel, or NULL */
  uint64_t max_bytes;
  double max_seconds, deadline; /* 0: none */
  ny_diag diag;
};

/* Evaluates the expressions for s->sym and compares with the memory there is; with grow, makes room. With `compare`, the
   sizes must be what the module requires. */
nyb_status ny_session_plan(nyb_session *s, bool grow, bool compare);
#endif
