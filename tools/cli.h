/* What the verbs of the command line share: options, errors, progress, tensors in .npy files. Exit codes: 0 success, 1
   the work failed, 2 the command line is wrong. Results go to stdout, progress and errors to stderr. */
#ifndef NY_CLI_H
#define NY_CLI_H
#include "module.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_MAX_DIMS = 64, CLI_MAX_ARGS = 4096 };

/* ---- args.c */
typedef enum cli_kind {
  CLI_FLAG,   /* int: 1 */
  CLI_COUNT,  /* int, from 0 */
  CLI_LEVEL,  /* int: an optimisation level plus one, as nyb_compile_options has it */
  CLI_NUMBER, /* double, from 0 */
  CLI_STRING, /* const char * */
  CLI_DIM,    /* cli_dims */
  CLI_PAIR    /* cli_pairs */
} cli_kind;
typedef struct cli_dims { /* --dim NAME=N, repeated */
  nyb_dim v[CLI_MAX_DIMS];
  size_t n;
} cli_dims;
typedef struct cli_pairs { /* --input NAME=FILE, repeated */
  const char *name[CLI_MAX_DIMS], *value[CLI_MAX_DIMS];
  size_t n;
} cli_pairs;
typedef struct cli_option {
  const char *name; /* "--threads" */
  cli_kind kind;
  void *to;
  const char *arg, *text;
} cli_option;
typedef struct cli_verb {
  const char *name, *args, *text;
  int (*run)(int argc, char **argv);
} cli_verb;
extern const cli_verb cli_verbs[];
extern const int cli_n_verbs;
/* Reads options; what is none goes to `file`, from `least` to `most` of them. Returns how many; ends the program after
   --help and after a mistake. */
int cli_parse(const char *verb, const cli_option *opt, size_t n_opt, int argc, char **argv, const char **file,
              int least, int most);
_Noreturn void cli_usage(const char *verb, const char *fmt, ...) NY_PRINTF(2, 3);

/* ---- report.c */
int cli_error(nyb_context *cx, nyb_status s); /* prints the last error, returns CLI_FAILED */
int cli_diag(const ny_diag *d);               /* the same for what has no context */
int cli_fail(const char *fmt, ...) NY_PRINTF(1, 2);
nyb_context *cli_open(const char *cache_dir); /* with progress on a terminal; ends the program on failure */
void cli_progress_end(void);
const char *cli_bytes(double n, char buf[32]); /* 12.3 MB */

/* ---- npy.c: NumPy's array format, version 1.0 and 2.0, C order, little endian */
typedef struct cli_array {
  nyb_tensor t;
  int64_t shape[16];
  void *memory;
} cli_array;
nyb_status cli_npy_read(const char *path, ny_fmt expected, cli_array *out,
                        ny_diag *d); /* expected: among formats NumPy cannot tell apart */
nyb_status cli_npy_read_bytes(const void *data, size_t bytes, const char *name, ny_fmt expected, cli_array *out,
                              ny_diag *d);
nyb_status cli_npy_write(const char *path, const nyb_tensor *t, ny_diag *d);
void cli_array_free(cli_array *a);
int64_t cli_count(const nyb_tensor *t); /* elements */
uint64_t cli_tensor_bytes(const nyb_tensor *t);
/* Memory for a value of these sizes, 64-byte aligned, zeroed. */
nyb_status cli_array_new(const nyb_value_info *v, const int64_t *shape, cli_array *out);
uint64_t cli_bytes_of(const nyb_value_info *v, const int64_t *shape); /* UINT64_MAX: cannot be addressed */
/* Seeded: floats are normal, integers 0 to 9, bools fair. */
void cli_array_random(cli_array *a, uint64_t seed);

/* ---- npz.c: archives of arrays, stored or deflated */
typedef struct cli_npz {
  cli_array *array;
  char **name; /* without .npy */
  size_t n;
} cli_npz;
nyb_status cli_npz_read(const char *path, cli_npz *out, ny_diag *d);
void cli_npz_free(cli_npz *z);

/* ---- samples.c: calibration data: one .npz, or a folder of .npz (and .npy where there is one input) */
typedef struct cli_samples {
  ny_arena a;
  cli_npz *file;
  size_t n_file, cap_file, n, cap, n_in;
  nyb_tensor *in; /* [n][n_in] */
} cli_samples;
nyb_status cli_samples_read(const char *path, const nyb_module_info *info, cli_samples *out, ny_diag *d);
void cli_samples_free(cli_samples *s);

/* ---- model.c: what run and bench do first */
typedef struct cli_model_options {
  cli_dims dims;
  cli_pairs inputs;
  const char *device, *target, *precision, *off, *dump;
  int threads, optimize, trust, seed, no_cache, evaluate;
  int memory, seconds; /* --max-memory MB, --max-seconds; 0: not given */
  bool careful;        /* without --max-memory: only what the size of model and inputs makes likely */
} cli_model_options;
#define CLI_MODEL_OPTIONS(o)                                                                                           \
  {"--dim", CLI_DIM, &(o).dims, "NAME=N", "size of a symbolic dimension; INPUT@AXIS=N for one without a name"},        \
      {"--input", CLI_PAIR, &(o).inputs, "NAME=FILE.npy", "an input; random where none is given"},                     \
      {"--threads", CLI_COUNT, &(o).threads, "N", "threads (default: all)"},                                           \
      {"--seed", CLI_COUNT, &(o).seed, "N", "of random inputs (default 0)"},                                           \
      {"--optimize", CLI_LEVEL, &(o).optimize, "N", "optimisation level 0 to 3 (default 2)"},                          \
      {"--device", CLI_STRING, &(o).device, "D", "cpu (default), cuda[:N], sim[:gb10|h100|rtx5090]"},                  \
      {"--target", CLI_STRING, &(o).target, "T", "a row of `nybble ops --targets` (default: the device's)"},           \
      {"--precision", CLI_STRING, &(o).precision, "P", "operands of f32 products: f32 (default), tf32, bf16, f16"},    \
      {"--off", CLI_STRING, &(o).off, "A,B", "leave these passes out"},                                                \
      {"--trust", CLI_FLAG, &(o).trust, NULL, "run native code from a .nyb this user did not compile"},                \
      {"--no-cache", CLI_FLAG, &(o).no_cache, NULL, "compile again"},                                                  \
      {"--max-memory", CLI_COUNT, &(o).memory, "MB", "for activations, results and random inputs"},                    \
      {"--max-seconds", CLI_COUNT, &(o).seconds, "N", "stop a run whose loops take longer"}, {                         \
    "--evaluate", CLI_FLAG, &(o).evaluate, NULL, "use the reference evaluator: slow, and what every op means"          \
  }
typedef struct cli_model {
  const cli_model_options *o;
  nyb_context *cx;
  nyb_model *model; /* with --evaluate; else module and session */
  nyb_module *module;
  nyb_session *session;
  nyb_module_info info;
  uint64_t max_bytes; /* of the session, and of its random inputs; 0: what the machine has */
  cli_dims dims;      /* what symbols are bound to: by the options, then by the inputs */
  cli_array *in;
  nyb_tensor *in_t, *out_t;
  double open_s; /* compile or load */
} cli_model;
/* Opens a model, makes its inputs and a session that fits them. The options must outlive the model. */
int cli_model_open(const char *path, const cli_model_options *o, cli_model *out);
int cli_model_session(cli_model *m, bool profile); /* a new session in place of the one there is */
nyb_status cli_model_run(cli_model *m);
const char *cli_device(const cli_model *m); /* where it runs: "cpu", "cuda:0" */
/* signature.c: the inputs and outputs of a graph as nyb_module_describe gives those of a module. Lives as long as the
 * model. */
void cli_signature(nyb_model *model, nyb_module_info *out);
void cli_model_close(cli_model *m);
#endif
