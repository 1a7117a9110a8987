/* A module as plain C: what module_read.cc makes of a verified flatbuffer and module_write.cc makes a flatbuffer of.
   Everything a reader hands out has been checked: indices are in range, expressions use earlier rows only, segments lie
   inside the file, commands nest. A file holds several programs, one a target; a ny_mod is one of them together with
   what all share (names, symbols, inputs and outputs, weights, the portable graph). */
#ifndef NY_MODULE_H
#define NY_MODULE_H
#include "context.h"
#include "nybble/kernel.h"

enum {
  NY_MOD_VERSION = 4,
  NY_MOD_HEADER = 64,
  NY_MOD_PAGE = 4096,
  NY_MOD_RANK = 8,
  NY_MOD_DEPTH = 64, /* nesting of if and loop */
  NY_MOD_MAX_ROWS = 1 << 20,
  NY_MOD_MAX_ARGS = 4096, /* buffers or dims of one kernel */
  NY_MOD_MAX_PROGRAMS = 32,
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
  NY_MC_CHOOSE,
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
  uint32_t n_buffers, n_dims;
  uint64_t entry, scratch; /* CPU: where in the code, bytes of scratch memory a thread */
  /* CUDA: extern "C" void symbol(buffers..., long long dims..., long long points) in the images of its unit */
  const char *symbol;
  uint32_t unit;
  uint32_t block;  /* threads of a block */
  uint32_t points; /* grid points of a block: the grid has ceil(extent / points) blocks */
  uint32_t shared; /* bytes of dynamic shared memory */
  bool wide;       /* index arithmetic has 64 bits; else no buffer and no size may reach 2^31 - 2^24 elements */
  const uint8_t *bits; /* of an element of each buffer */
  uint32_t n_bits;     /* n_buffers */
} ny_mod_kernel;
/* Code of a CUDA program. The kernels of a unit are in each of its images: one of them is loaded. */
typedef enum ny_mod_image_kind { NY_MI_CUBIN, NY_MI_PTX, NY_MI_SOURCE, NY_MI_COUNT } ny_mod_image_kind;
typedef struct ny_mod_image {
  uint8_t kind;     /* ny_mod_image_kind */
  const char *arch; /* of a cubin "sm_90a", of PTX and source "compute_80" */
  uint32_t unit;
  ny_mod_segment code;
} ny_mod_image;
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

typedef struct ny_mod_precision { /* none is NULL */
  const char *node, *op, *asked, *done, *why;
} ny_mod_precision;

typedef struct ny_mod {
  /* of the file */
  const char *name, *producer;
  const char *const *symbol;
  ny_mod_value *input, *output; /* their dimensions are the same rows of every program's expressions */
  ny_mod_segment *segment;      /* weights */
  ny_mod_segment graph;
  uint32_t n_symbols, n_inputs, n_outputs, n_segments;
  /* of the program */
  const char *target, *arch; /* arch: as a target triple starts */
  uint32_t sm;               /* CUDA: compute capability times ten; 0: a CPU's */
  const char *const *feature;
  ny_mod_expr *expr;
  ny_mod_buffer *buffer;
  ny_mod_kernel *kernel;
  ny_mod_command *command;
  ny_mod_require *require;
  ny_mod_image *image; /* CUDA */
  ny_mod_precision *precision;
  ny_mod_segment code; /* CPU */
  uint32_t n_features, n_exprs, n_buffers, n_kernels, n_commands, n_requires, n_images, n_units, n_precision;
  uint32_t arena; /* expression */
} ny_mod;

/* module_read.cc: `fb` (8-byte aligned) holds the flatbuffer that lies at `fb_at` in a file of `file_bytes` bytes. Rows
   live in `a`, strings stay in `fb`. */
nyb_status ny_module_read(const void *fb, uint64_t fb_at, uint64_t fb_bytes, uint64_t file_bytes, ny_arena *a,
                          ny_mod **out, uint32_t *out_n, ny_diag *d);

/* module_check.c: everything the flatbuffer verifier does not know. n_shared: how many expressions are the module's,
   the first of every program. */
nyb_status ny_module_check(const ny_mod *program, uint32_t n, uint32_t n_shared, uint64_t fb_at, uint64_t fb_bytes,
                           uint64_t file_bytes, ny_diag *d);

/* ---- A loaded module */
struct nyb_module {
  nyb_context *cx;
  ny_arena arena;
  ny_map map;
  char *path;
  uint64_t *fb; /* a private copy: what was verified cannot change underneath us */
  uint8_t fb_digest[32];
  ny_mod *program; /* of the file */
  uint32_t n_programs;
  ny_mod mod;                  /* the one chosen for the device; after ny_module_open the first */
  const uint32_t *image;       /* of a chosen CUDA program, by unit: which of mod.image to load */
  const char *why;             /* the choice in words: "cubin sm_120f of the program for sm_120f, on NVIDIA GB10" */
  struct ny_device *device;    /* NULL: this CPU */
  struct ny_program *resident; /* kernels and weights on the device */
  uint8_t *code;               /* private executable copy of a CPU program's, or NULL */
  uint64_t code_bytes;
  nyb_module_info info;
};
/* module.c: maps and verifies; code is neither trusted nor executable yet. Used by tools that inspect. `path` becomes
 * d->file. */
nyb_status ny_module_open(nyb_context *cx, const char *path, nyb_module **out, ny_diag *d);
/* The bytes of an image, compared with their digest, in the mapped file. Text ends in a zero byte. That the module is
 * trusted was asked when it was loaded. */
nyb_status ny_module_image(nyb_module *m, const ny_mod_image *image, const void **out, ny_diag *d);
/* Compares every segment with its digest (reads the whole file). */
nyb_status ny_module_check_digests(const nyb_module *m, ny_diag *d);
nyb_dtype ny_module_dtype(ny_fmt f);  /* 0 bits: does not cross the API */
ny_fmt ny_module_format(nyb_dtype t); /* NY_none: no such */

/* select.c: which program and images of a module a device runs. */
typedef struct ny_cuda_arch { /* "sm_90a", "compute_120f", "compute_80" */
  uint32_t sm;                /* compute capability times ten */
  char suffix;                /* a: this capability only, f: its family from here on, 0: all later ones */
  bool real;                  /* machine code (sm_): without a suffix of one major capability only */
} ny_cuda_arch;
bool ny_cuda_arch_parse(const char *s, ny_cuda_arch *out);
/* How well code for `arch` suits a device of capability sm; 0: it does not run there. */
int ny_cuda_arch_fit(const ny_cuda_arch *arch, uint32_t sm);
/* A CPU program: sm 0. */
typedef struct ny_device_needs {
  uint32_t sm;      /* compute capability times ten; 0: this CPU */
  bool cubin, ptx;  /* what the device takes (the simulator: PTX only) */
  uint64_t shared;  /* dynamic shared memory that a block may have */
  const char *name; /* for messages: "NVIDIA GB10"; NULL: this CPU */
} ny_device_needs;
/* Fills mod, image and why. NYB_E_TARGET says what the file has and what the device needs. */
nyb_status ny_module_select(nyb_module *m, const ny_device_needs *device, ny_diag *d);

/* run.c: without strides, or with those it would have anyway. */
bool ny_tensor_dense(const nyb_tensor *t);

/* features.c: does this CPU have it (LLVM spelling)? The second names the architecture as a triple does. */
bool ny_cpu_has(const char *feature);
const char *ny_cpu_arch(void);

/* trust.c */
bool ny_trusted(const nyb_context *cx, const uint8_t digest[32]);
#endif
