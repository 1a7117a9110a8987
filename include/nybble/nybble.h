/* nybble: compile ONNX models ahead of time or at load, and run them.
   Two libraries share this header. libnybble_rt loads and runs compiled modules (.nyb); libnybble adds import, passes
   and code generation. Every function returns a nyb_status; on failure nyb_last_error() tells the whole story. Handles
   are opaque and owned by the caller, who closes each with its own close function; closing NULL does nothing. A context
   and what was opened from it belong to one thread at a time, unless a function says otherwise. Option structs start
   with their size: initialise them with {.size = sizeof x}; zero means default, and so does NULL in place of them. */
#ifndef NYBBLE_H
#define NYBBLE_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NYB_VERSION "0.1.0"
#if defined(__GNUC__)
#define NYB_API __attribute__((visibility("default")))
#else
#define NYB_API
#endif

/* 0 is success. The rows of status.def, with their texts. */
typedef enum nyb_status {
#define STATUS(name, text) NYB_##name,
#include "nybble/status.def"
#undef STATUS
  NYB_STATUS_COUNT
} nyb_status;

typedef struct nyb_context nyb_context; /* last error, cache folder, options */
typedef struct nyb_model nyb_model;     /* a graph, at any stage of compilation (libnybble) */
typedef struct nyb_module nyb_module;   /* a loaded .nyb */
typedef struct nyb_session nyb_session; /* a module with memory and threads, ready to run */

/* ---- Tensors: the layout of DLPack's DLTensor, so either may be cast to the other. */
/* DLDataTypeCode, DLPack 1.1 */
typedef enum nyb_dtype_code {
  NYB_INT = 0,
  NYB_UINT = 1,
  NYB_FLOAT = 2,
  NYB_BFLOAT = 4,
  NYB_BOOL = 6,
  NYB_FLOAT8_E4M3FN = 10,
  NYB_FLOAT8_E4M3FNUZ = 11,
  NYB_FLOAT8_E5M2 = 12,
  NYB_FLOAT8_E5M2FNUZ = 13,
  NYB_FLOAT8_E8M0FNU = 14,
  NYB_FLOAT4_E2M1FN = 17
} nyb_dtype_code;
/* DLDataType. */
typedef struct nyb_dtype {
  uint8_t code, bits;
  uint16_t lanes; /* 1; sub-byte elements are packed, first element in the low bits */
} nyb_dtype;
typedef struct nyb_device_id {
  int32_t type,
      id; /* DLDevice: type 1 is the CPU, 0 counts as 1; type 2 (CUDA) where the session's device has this id */
} nyb_device_id;
/* Owns nothing: data, shape and strides are the caller's unless a function says otherwise. */
typedef struct nyb_tensor {
  void *data; /* aligned to its elements, from byte_offset on */
  nyb_device_id device;
  int32_t ndim;
  nyb_dtype dtype;
  int64_t *shape;
  int64_t *strides; /* in elements; NULL: row-major and dense, the only layout accepted */
  uint64_t byte_offset;
} nyb_tensor;

/* ---- Context */
/* Both functions may be NULL, and may use their strings until they return. progress comes from one thread at a time,
   which may be one of the compiler's; warning from the thread that calls. */
typedef struct nyb_options {
  size_t size;
  const char *cache_dir; /* NULL: $NYBBLE_CACHE, $XDG_CACHE_HOME/nybble or $HOME/.cache/nybble; "": no cache */
  void (*progress)(void *user, const char *stage, double done); /* done: 0 to 1 */
  void (*warning)(void *user, const char *text);
  void *user;
} nyb_options;
/* Opens a context. A cache folder that cannot be used is a warning, not a failure. */
NYB_API nyb_status nyb_open(const nyb_options *options, nyb_context **out_cx);
/* After everything that was opened from it. */
NYB_API void nyb_close(nyb_context *cx);

typedef struct nyb_error {
  nyb_status code;
  const char *message;   /* one sentence, with the numbers in it */
  const char *text;      /* the message with file, node and pass in front, as a tool would print it */
  const char *node_name; /* ONNX node, or NULL */
  const char *op_type;   /* ONNX operator, or NULL */
  int64_t node_index;    /* position in its graph, or -1 */
  int64_t file_offset;   /* of the node in the model file, or -1 */
  const char *pass;      /* compiler pass, or NULL */
} nyb_error;
/* The last failure on this context, or NULL. Valid until the next call on the context. */
NYB_API const nyb_error *nyb_last_error(const nyb_context *cx);
/* A few words for a status, static; from any thread. */
NYB_API const char *nyb_status_text(nyb_status s);
/* NYB_VERSION of the library that runs, static; from any thread. */
NYB_API const char *nyb_version(void);

/* A symbolic dimension and the size it is given. */
typedef struct nyb_dim {
  const char *name;
  int64_t size;
} nyb_dim;

/* ---- Compiler (libnybble) */
typedef struct nyb_import_options {
  size_t size;
  const nyb_dim *dims; /* symbols replaced by constants during import */
  size_t n_dims;
} nyb_import_options;
/* Reads an .onnx or .nyt file, or the portable graph of a .nyb. The file (and external data beside it) stays mapped
 * while the model is open; weights are not copied. */
NYB_API nyb_status nyb_import(nyb_context *cx, const char *path, const nyb_import_options *options,
                              nyb_model **out_model);
/* An ONNX model from memory, which must outlive the model. External data is refused. */
NYB_API nyb_status nyb_import_memory(nyb_context *cx, const void *data, size_t bytes, const nyb_import_options *options,
                                     nyb_model **out_model);
/* Before its context; modules compiled from it live on. */
NYB_API void nyb_model_close(nyb_model *model);

typedef struct nyb_compile_options {
  size_t size;
  /* "host" (default), or one row of codegen/targets.def or several, separated by commas: "cpu,sm_80,sm_90a". "cpu" is
     the row that nearly every machine of this one's architecture runs: x86-64-v3 or aarch64. */
  const char *target;
  int optimize;                   /* -O level plus one; 0: default (2) */
  const char *only, *until, *off; /* comma-separated passes */
  const char *dump_dir;           /* writes NN-pass.nyt and the generated code of every kernel */
  int verify_each;                /* verify, print, re-read and compare after every pass */
  int threads;                    /* of the compiler; 0: all */
  const char
      *device; /* nyb_open_model: where the module will run, as in nyb_load_options; it decides the default target */
  const char *precision; /* of the operands of f32 products, sums stay f32: "f32" (default), "tf32" (tensor cores only,
                            elsewhere f32), "bf16", "f16" */
  int no_ptx;  /* of CUDA targets keep machine code only, so no later device can run the file as it is */
  int with_source; /* and keep the CUDA source of every kernel */
  int strict; /* quantised weights that no kernel reads as codes, so that they would be unpacked, are NYB_E_UNSUPPORTED */
} nyb_compile_options;
/* Runs the graph-level and tile-level passes in place, as far as options->until says. */
NYB_API nyb_status nyb_optimize(nyb_model *model, const nyb_compile_options *options);
/* Prints the graph as .nyt text, the exact inverse of nyb_import of such a file. *out_text is released with nyb_free.
 */
NYB_API nyb_status nyb_print(nyb_model *model, char **out_text);
/* Releases what nyb_print gave; NULL is allowed. */
NYB_API void nyb_free(void *p);
/* Compiles to a .nyb file, written atomically, that this user's nyb_load then trusts. Passes that already ran are not
   run again: the model is left as its last stage. */
NYB_API nyb_status nyb_compile(nyb_model *model, const nyb_compile_options *options, const char *out_path);
/* Compiles at load: .onnx and .nyt through the on-disk cache (the second call compiles nothing), .nyb directly. With
   dump_dir or verify_each it always compiles. */
NYB_API nyb_status nyb_open_model(nyb_context *cx, const char *path, const nyb_import_options *import_options,
                                  const nyb_compile_options *compile_options, nyb_module **out_module);
/* Runs the reference evaluator: slow, and the definition of what every op means. The tensors are those of nyb_run;
   results whose data the caller leaves NULL live until the next evaluation of this model. */
NYB_API nyb_status nyb_evaluate(nyb_model *model, const nyb_tensor *in, size_t n_in, nyb_tensor *out, size_t n_out);

/* ---- Modules (libnybble_rt) */
typedef struct nyb_load_options {
  size_t size;
  int trust;          /* run native code that neither this user's cache nor a key vouches for */
  const char *device; /* "cpu" (default), "cuda", "cuda:N", "sim", "sim:PROFILE": where the module's sessions run */
} nyb_load_options;
/* Maps a .nyb. Structure is always verified; a damaged or hostile file is an error, never a crash. Native code that is
   not trusted gives NYB_E_TRUST: nyb_open_model then compiles the portable graph in the same file instead. */
NYB_API nyb_status nyb_load(nyb_context *cx, const char *path, const nyb_load_options *options,
                            nyb_module **out_module);
/* After its sessions. */
NYB_API void nyb_module_close(nyb_module *module);

typedef struct nyb_value_info { /* an input or output */
  const char *name;
  nyb_dtype dtype;
  int32_t ndim;
  const int64_t *shape;       /* -1 where the size is symbolic */
  const char *const *symbols; /* per dimension: the symbol or expression as text, or NULL where it is a number */
} nyb_value_info;
typedef struct nyb_module_info {
  size_t size; /* set by the caller */
  const char *name, *target;
  size_t n_inputs, n_outputs, n_kernels, n_symbols;
  const nyb_value_info *inputs, *outputs;
  const char *const *symbols;
  uint64_t weight_bytes, code_bytes, file_bytes;
  const char *device, *choice; /* where it runs, and which code of the file was chosen for that, in words */
} nyb_module_info;
/* Fills *out; what it points to lives as long as the module. From any thread. */
NYB_API nyb_status nyb_module_describe(const nyb_module *module, nyb_module_info *out);

/* ---- Sessions (libnybble_rt) */
typedef struct nyb_session_options {
  size_t size;
  int threads;         /* 0: every CPU this process may use */
  int spin_us;         /* how long idle workers spin before they park; 0: 50, negative: never */
  const nyb_dim *dims; /* largest sizes to make room for; a symbol not named here counts as 1 until prepared */
  size_t n_dims;
  int profile;        /* keep the time spent in each kernel, see nyb_session_profile */
  uint64_t max_bytes; /* for activations, results and scratch together; 0: the memory of this machine, or what the
                         device has free */
  double max_seconds; /* a run whose loops take longer ends with NYB_E_LIMIT; 0: no limit */
} nyb_session_options;
/* All memory a run needs is taken here and in nyb_session_prepare, never in nyb_run. The module must outlive the
 * session. */
NYB_API nyb_status nyb_session_open(nyb_module *module, const nyb_session_options *options, nyb_session **out_session);
/* Makes room for these sizes too (memory only grows, and moves: pointers from earlier runs end here). Not during a run.
 */
NYB_API nyb_status nyb_session_prepare(nyb_session *session, const nyb_dim *dims, size_t n_dims);
/* Ends its threads; results in its memory end with it. Not during a run. */
NYB_API void nyb_session_close(nyb_session *session);
/* Runs the model. `in` in the order of nyb_module_info. For an output with data == NULL the session provides memory,
   valid until the next run; otherwise the result is written to data, which must hold it (64-byte alignment avoids a
   copy). shape and ndim of `out` are always set, to memory of the session. Allocates nothing (a device's driver may):
   sizes beyond what was prepared give NYB_E_SHAPE. On a device tensors may be on the CPU or there; results are complete
   when it returns. One run at a time per session; sessions run concurrently. */
NYB_API nyb_status nyb_run(nyb_session *session, const nyb_tensor *in, size_t n_in, nyb_tensor *out, size_t n_out);

typedef struct nyb_session_stats {
  size_t size; /* set by the caller */
  uint64_t arena_bytes, scratch_bytes, weight_bytes;
  int threads;
} nyb_session_stats;
/* What the session holds now: activations and its own results, scratch of all threads, weights (mapped, shared). */
NYB_API nyb_status nyb_session_describe(const nyb_session *session, nyb_session_stats *out);

typedef struct nyb_kernel_time {
  const char *name, *family;
  uint64_t calls;
  double seconds; /* wall time, all threads together */
} nyb_kernel_time;
/* What each kernel of the module took since the session was opened with options.profile; *out_n is 0 without it. The
   rows live as long as the session. Not during a run. */
NYB_API nyb_status nyb_session_profile(const nyb_session *session, const nyb_kernel_time **out_times, size_t *out_n);

#ifdef __cplusplus
}
#endif
#endif
