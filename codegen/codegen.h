/* From a lowered unit to a module file. The LLVM back end is a plug-in (libnybble_llvm.so) opened on the first compilation, so that running never loads LLVM. */
#ifndef NY_CODEGEN_H
#define NY_CODEGEN_H
#include "passes.h"

/* Pre-linked machine code of all kernels: position independent, no external symbols, entry points at fixed offsets. malloc'ed. */
typedef struct ny_image {
  uint8_t *data;
  uint64_t bytes;
  uint64_t *entry;   /* per kernel */
  uint64_t *scratch; /* bytes of @shared scratch per thread */
  size_t n;
} ny_image;
typedef struct ny_codegen_pin { /* of a GPU: a kernel's source by hand, in place of the generated one */
  const char *kernel, *source;
  int block, points; /* as a ny_cuda_facts has them */
  uint32_t shared;
} ny_codegen_pin;
typedef struct ny_codegen_request {
  ny_graph *const *kernel;
  size_t n;
  const ny_target *target;
  int opt, threads;      /* threads of the compiler */
  const char *dump_dir;  /* <kernel>.ll and <kernel>.s; NULL: none */
  const ny_codegen_pin *pin;
  size_t n_pin;
  void (*progress)(void *user, const char *stage, double done);
  void *user;
} ny_codegen_request;

/* What the plug-in exports as nyb_codegen_plugin(). The plug-in carries its own copy of base and ir; it only reads the IR it is given. */
#define NY_CODEGEN_ABI (2000 + NY_N_KINDS) /* both sides must have the same op table */
typedef struct ny_codegen {
  int abi;
  nyb_status (*compile)(const ny_codegen_request *r, ny_image *out, ny_diag *d);
  /* Fills name ("host:znver4"), triple, cpu, features of this machine; strings live in static storage. */
  void (*host)(ny_target *out);
} ny_codegen;
nyb_status ny_codegen_open(const ny_codegen **out, ny_diag *d); /* dlopen once; the plug-in lies beside libnybble or the executable, or in $NYBBLE_PLUGIN_DIR */
void ny_image_free(ny_image *im);

/* targets.c: rows of targets.def. "host" asks the plug-in. The result lives as long as the process. */
extern const ny_target ny_targets[]; /* the rows; host is looked up when asked for */
extern const int ny_n_targets;
nyb_status ny_target_find(const char *name, const ny_target **out, ny_diag *d);
/* "cpu,sm_80,sm_90a": each once, in order. NULL: host. */
nyb_status ny_target_list(const char *names, ny_arena *a, const ny_target *const **out, size_t *n, ny_diag *d);
/* What to compile for a device: `asked` (NULL: the best there is), its cpu what NVRTC gives this device. Strings live in `a` or for ever. */
struct ny_device;
nyb_status ny_target_of_device(const struct ny_device *dev, const ny_target *asked, ny_arena *a, ny_target *out, ny_diag *d);

/* What becomes a program of a module: a unit after `place`, and its code: native for a CPU, else cuda. */
struct ny_cuda_code;
struct ny_cuda_image;
typedef struct ny_compiled {
  ny_unit *u;
  const ny_target *target;
  const ny_image *native;
  const struct ny_cuda_code *cuda;
  unsigned keep; /* of cuda: bits 1 << ny_mod_image_kind */
  const struct ny_cuda_image *portable_ptx; /* NULL, or per unit PTX of portable_arch in place of the target's own */
  const char *portable_arch;
} ny_compiled;

/* module_build.c, module_write.cc: programs -> file, atomically. All units belong to one context and come from the same graph.
   portable (may be NULL; changed by the call): the same model before `fuse`, which any target can compile again. Its large constants and const groups are the
   weights of the first program (equal text of a const group means equal bytes, so nothing is evaluated twice; contracts with another panel width keep meaning the
   same): each becomes a `const` whose blob is a segment of this very file, printed as `blob N = "."+offset bytes=n`, and the text is stored as Module.graph. */
nyb_status ny_module_write(const ny_compiled *part, size_t n, ny_unit *portable, const char *path, ny_diag *d);

/* compile.c: passes and code for each target, file. `keep`: which code of CUDA targets the file gets, bits 1 << ny_mod_image_kind; 0: cubin and PTX.
   ny_compile: for `options->target`, to run here; with a list `options->target` is not looked at. */
typedef struct ny_compile_targets {
  const ny_target *const *target;
  size_t n;
  unsigned keep;
  bool one_device; /* nothing for devices to come: the module runs here */
  const ny_codegen_pin *pin; /* for every CUDA target */
  size_t n_pin;
} ny_compile_targets;
nyb_status ny_compile(ny_unit *u, const ny_pass_options *options, int threads, const char *path);
nyb_status ny_compile_for(ny_unit *u, const ny_pass_options *options, const ny_compile_targets *targets, int threads, const char *path);
#endif
