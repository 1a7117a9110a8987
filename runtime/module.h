/* A module as plain C: what module_read.cc makes of a verified flatbuffer and module_write.cc makes a flatbuffer of.
   Everything a reader hands out has been checked: indices are in range, expressions use earlier rows only, segments lie
   inside the file, commands nest. */
#ifndef NY_MODULE_H
#define NY_MODULE_H
#include "context.h"
#include "nybble/kernel.h"

enum {
  NY_MOD_VERSION = 2,
  NY_MOD_HEADER = 64,
  NY_MOD_PAGE = 4096,
  NY_MOD_RANK = 8,
  NY_MOD_DEPTH = 64, /* nesting of if and loop */
  NY_MOD_MAX_ROWS = 1 << 20,
  NY_MOD_MAX_ARGS = 4096, /* buffers or dims of one kernel */
};
#define NY_MOD_MAX_FLATBUFFER ((uint64_t)1 << 28)

typedef enum ny_mod_op {
  NY_MX_CONST,
  NY_MX_SYMBOL,
  NY_MX_ADD,
  NY_MX_MUL,
  NY_MX_DIV,
  NY_MX_MOD,
  NY_MX_MIN,
  NY_MX_MAX,
  NY_MX_LT,
  NY_MX_ALIGN,
  NY_MX_COUNT
} ny_mod_op;
typedef enum ny_mod_place { NY_MP_ARENA, NY_MP_WEIGHT, NY_MP_INPUT, NY_MP_OUTPUT, NY_MP_COUNT } ny_mod_place;
typedef enum ny_mod_command_kind {
  NY_MC_LAUNCH,
  NY_MC_COPY,
  NY_MC_IF,
  NY_MC_LOOP,
  NY_MC_CHECK,
  NY_MC_COUNT
} ny_mod_command_kind;

typedef struct ny_mod_expr {
  uint8_t op; /* ny_mod_op */
  int32_t a, b;
  int64_t value;
} ny_mod_expr;
typedef struct ny_mod_segment {
  uint64_t offset, bytes;
  uint8_t digest[32];
} ny_mod_segment;
typedef struct ny_mod_buffer {
  uint8_t place; /* ny_mod_place */
  uint32_t index;
  uint32_t offset, bytes; /* expressions; offset: of arena and weight buffers, a multiple of 64 */
} ny_mod_buffer;
typedef struct ny_mod_value {
  const char *name;
  ny_fmt fmt;
  uint32_t rank;
  uint32_t dim[NY_MOD_RANK];     /* expressions */
  const char *text[NY_MOD_RANK]; /* NULL where the size is a number */
  uint32_t buffer;
} ny_mod_value;
typedef struct ny_mod_kernel {
  const char *name, *family, *note;
  uint64_t entry, scratch;
  uint32_t n_buffers, n_dims;
} ny_mod_kernel;
typedef struct ny_mod_command {
  uint8_t kind; /* ny_mod_command_kind */
  bool stacked;
  uint32_t kernel, n_buffers, n_dims;
  const uint32_t *buffer;        /* indices of buffers */
  const uint32_t *dim;           /* expressions */
  uint32_t extent, grain, bytes; /* expressions */
  uint32_t n_then, n_else;
  uint32_t require; /* of a check: its row */
} ny_mod_command;
typedef struct ny_mod_require {
  uint32_t a, b; /* expressions that must be equal */
  const char *text;
  bool always; /* else where a check says so */
} ny_mod_require;

typedef struct ny_mod {
  const char *name, *producer, *target, *arch;
  const char *const *feature;
  const char *const *symbol;
  ny_mod_expr *expr;
  ny_mod_value *input, *output;
  ny_mod_buffer *buffer;
  ny_mod_kernel *kernel;
  ny_mod_command *command;
  ny_mod_require *require;
  ny_mod_segment *segment;
  uint32_t n_features, n_symbols, n_exprs, n_inputs, n_outputs, n_buffers, n_kernels, n_commands, n_requires,
      n_segments;
  uint32_t arena; /* expression */
  ny_mod_segment code, graph;
} ny_mod;

/* module_read.cc: `fb` (8-byte aligned) holds the flatbuffer that lies at `fb_at` in a file of `file_bytes` bytes. Rows
   live in `a`, strings stay in `fb`. */
nyb_status ny_module_read(const void *fb, uint64_t fb_at, uint64_t fb_bytes, uint64_t file_bytes, ny_arena *a,
                          ny_mod *out, ny_diag *d);

/* module_check.c: everything the flatbuffer verifier does not know. */
nyb_status ny_module_check(const ny_mod *m, uint64_t fb_at, uint64_t fb_bytes, uint64_t file_bytes, ny_diag *d);

/* ---- A loaded module */
struct nyb_module {
  nyb_context *cx;
  ny_arena arena;
  ny_map map;
  char *path;
  uint64_t *fb; /* a private copy: what was verified cannot change underneath us */
  uint8_t fb_digest[32];
  ny_mod mod;
  uint8_t *code; /* private executable copy, or NULL */
  uint64_t code_bytes;
  nyb_module_info info;
};
/* module.c: maps and verifies; code is neither trusted nor executable yet. Used by tools that inspect. `path` becomes
 * d->file. */
nyb_status ny_module_open(nyb_context *cx, const char *path, nyb_module **out, ny_diag *d);
/* Compares every segment with its digest (reads the whole file). */
nyb_status ny_module_check_digests(const nyb_module *m, ny_diag *d);
nyb_dtype ny_module_dtype(ny_fmt f);  /* 0 bits: does not cross the API */
ny_fmt ny_module_format(nyb_dtype t); /* NY_none: no such */

/* run.c: without strides, or with those it would have anyway. */
bool ny_tensor_dense(const nyb_tensor *t);

/* features.c: does this CPU have it (LLVM spelling)? The second names the architecture as a triple does. */
bool ny_cpu_has(const char *feature);
const char *ny_cpu_arch(void);

/* trust.c */
bool ny_trusted(const nyb_context *cx, const uint8_t digest[32]);
#endif
