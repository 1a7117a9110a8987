/* What a nyb_context holds, shared by the runtime and the compiler half of the library. A call that fails leaves its
   diagnostic in `diag`; nyb_last_error renders it. */
#ifndef NY_CONTEXT_H
#define NY_CONTEXT_H
#include "base.h"
#include <pthread.h>

struct nyb_context {
  ny_diag diag;
  nyb_options options;
  const char *cache_dir; /* NULL: no cache */
  ny_arena arena;        /* strings of the options */
  ny_arena names;        /* strings `diag` points to, see ny_context_keep_names */
  pthread_mutex_t lock;  /* sessions on other threads report through ny_context_report */
  nyb_error error;
  ny_text text;
};

/* Copies the strings that cx->diag points to into the context, because their owner is about to go. `file` (may be NULL)
   names the file when the diagnostic does not. */
void ny_context_keep_names(nyb_context *cx, const char *file);
/* Makes `d` the context's last failure and returns its code; may be called from any thread. Strings are copied. */
nyb_status ny_context_report(nyb_context *cx, const ny_diag *d);

/* Tells the caller's warning function, if there is one. */
void ny_context_warn(const nyb_context *cx, const char *fmt, ...) NY_PRINTF(2, 3);

/* ---- trust.c: this user vouches for a module it compiled. The token is a file named after the digest of the module's
   description, which holds the digest of its code: neither the code nor how it is called can change without losing
   trust. */
nyb_status ny_trust_file(nyb_context *cx, const char *path);
#endif
