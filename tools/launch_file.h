/* A launch description: what a kernel is started with, as a small text file that people write and `nybble kernels dump`
   makes.

     kernel rmsnorm                       the entry point; may be left out where the file has only one
     grid 4 1 1                           blocks; y and z default to 1
     block 128                            threads of a block
     shared 4096                          bytes of dynamic shared memory, default 0
     in x.npy                             then the arguments in order: a pointer to an array that is read
     out y.npy f32[4,64]                  a pointer to room for a result
     inout z.npy                          a pointer to an array that is read and changed
     same 0                               a pointer to the array of argument 0
     value i64 5                          a number
   `in` and `inout` may name the type too, for formats that NumPy lacks. `out` and `inout` may end in `expect=FILE.npy`
   and `tol=1e-3`: what the result must be, relative to its largest element. Files are looked for beside the
   description. `#` starts a comment. Of a kernel of a model there is also points 8                             grid
   points that a block computes text 9f86d081...                     SHA-256 of the source this was recorded with: an
   edited one is known by it */
#ifndef NY_LAUNCH_FILE_H
#define NY_LAUNCH_FILE_H
#include "cli.h"

enum { CLI_MAX_LAUNCH_ARGS = NY_MOD_MAX_ARGS };
typedef enum cli_arg_kind { CLI_ARG_IN, CLI_ARG_OUT, CLI_ARG_INOUT, CLI_ARG_SAME, CLI_ARG_VALUE } cli_arg_kind;
typedef struct cli_launch_arg {
  cli_arg_kind kind;
  ny_fmt fmt;       /* of a value */
  uint8_t value[8]; /* its bytes */
  uint32_t same;    /* the argument whose array this is; itself for an array of its own */
  const char *name; /* the file as it is written in the description */
  cli_array first;  /* what the array holds before the launch; zeros for `out` */
  cli_array now;    /* what the kernel gets */
  cli_array expect; /* memory NULL: none */
  double tolerance;
} cli_launch_arg;
typedef struct cli_launch {
  ny_arena arena;
  const char *path, *kernel, *text; /* NULL: not named */
  uint32_t grid[3], block[3], shared, points;
  cli_launch_arg *arg;
  uint32_t n_arg, cap_arg;
} cli_launch;

/* What it refers to is read too. Free it, also after a failure. */
nyb_status cli_launch_read(const char *path, cli_launch *out, ny_diag *d);
void cli_launch_free(cli_launch *l);
/* Arrays hold again what they held before the launch. */
void cli_launch_reset(cli_launch *l);
static inline bool cli_arg_has_array(const cli_launch_arg *a) { return a->kind <= CLI_ARG_INOUT; }
static inline bool cli_arg_is_result(const cli_launch_arg *a) {
  return a->kind == CLI_ARG_OUT || a->kind == CLI_ARG_INOUT;
}
/* Largest difference from what is expected, over the largest expected element; infinite where shape, NaN or infinity
   differ. */
double cli_launch_error(const cli_launch_arg *a);
/* The same for all results: the largest that is expected somewhere, and whether each is within its tolerance. -1: none
   is expected. */
double cli_launch_verify(const cli_launch *l, bool *ok);
#endif
