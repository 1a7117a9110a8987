/* The CUDA back end: a tile program becomes CUDA C (one self-contained text without headers), NVRTC makes PTX and cubins of it.
   NVRTC is opened with dlopen, on the first compilation; nothing here needs a GPU or a driver.

   ---- What runs a kernel
   extern "C" __global__ void <symbol>(T0 *b0, ..., long long d0, ..., long long n)
   One pointer per kernel argument (inputs, then outputs; every buffer begins at a multiple of 256 bytes and its memory ends at a multiple of 4),
   the symbols' values in ny_kernel_symbols order, then the number of grid points, which is ny_kernel_extent. Launched with
   ceil(n / points) blocks of `block` threads and `shared` bytes of dynamic shared memory. n = 0: nothing is launched.
   With index = 32, a launch with more than 2^31 - 2^24 elements in a buffer, or a symbol or n above that, is an error.

   ---- Threads and layouts (knobs of the kernel)
   `threads` T (1, 32, 64, .. 1024; a power of two) run a grid point. T = 1 takes every tile program. T = 32: one warp a point, several points a
   block. T >= 64: one block a point. `tpb`: threads of a block for T <= 32 (default 256).
   With T > 1 tiles are spread over the threads of the point, all in one layout:
     simt (knobs tr, u, v): tr * tc = T; row(i) = (i/u)*(tr*u) + (tid/tc)*u + i%u, col(j) = (j/v)*(tc*v) + (tid%tc)*v + j%v.
          Not set: u = 1; v = 16 bytes of the kernel's widest buffer format, less for narrow tiles; tr as the narrowest tile with
          columns leaves threads to spare, 1 when all tiles have one row.
     mma (knobs wm, wn; wm * wn * wk = T / 32 warps, wk (1) groups of which hold the same and take turns in sums of codes): the accumulators of m16n8 tensor-core instructions,
          row(i) = (i/2)*(16*wm) + (warp/wn)*16 + lane/4 + 8*(i%2), col(j) = (j/2)*(8*wn) + (warp%wn)*8 + lane%4*2 + j%2.
   A dim of size 1 is held by every thread of its direction. A size that is no multiple of the period is guarded.
   Scatters (stores with an index tile) with T > 1 must not hit one element from two threads unless op is sum, prod, max or min.
   `local` buffers are dynamic shared memory (T > 1; per point) or the thread's own memory (T = 1). Barriers are inserted where threads of a
   point read or overwrite what another one stored; a `barrier` op adds one.

   ---- mma with T > 1
   Operands are staged in shared memory: a[m,k] and b[k,n] may be any expression. An operand used by nothing but its mma is computed in a
   layout of its own, so that all threads load adjacent elements whatever the shape. Where both operands are loads (casts allowed to the same
   width) straight in the body of a `for` without other statements on shared memory, they are staged `stages` (knob, default 2) deep ahead by
   cp.async when they are whole and 16-byte aligned, else through registers. Accumulators are f32, f64 or integers; in the mma layout
   bf16 x bf16, f16 x f16 and i8/u8 x i8/u8 operands go to the tensor cores (m multiple of 16*wm, n of 8*wn, k of 16, for bytes of 32), f32
   operands too when the knob tf32 is 1; everything else is multiplied by FFMA or IMAD.
   With scales, b is f4e2m1 that lies by rows along k, in steps of 128 * wk: see codes.c. */
#ifndef NY_CUDA_CODE_H
#define NY_CUDA_CODE_H
#include "codegen.h"

typedef struct ny_cuda_layout { /* of the tiles of a kernel; threads = 1: tr = tc = 1 and a thread holds all */
  bool mma;
  int threads;
  int tr, u, tc, v; /* simt */
  int wm, wn, wk;   /* mma */
} ny_cuda_layout;

enum { NY_CUDA_SYMBOL = 200 };
typedef struct ny_cuda_facts { /* what a launcher must know */
  char symbol[NY_CUDA_SYMBOL]; /* the entry point: the kernel's name as a C identifier that is not CUDA's own */
  int block;       /* threads of a block */
  int points;      /* grid points a block computes */
  uint32_t shared; /* dynamic shared memory of a block, in bytes */
  int index;       /* bits of the kernel's index arithmetic: 32 or 64 */
  int n_symbol;    /* long long arguments before n */
  uint32_t inplace; /* 1 + the input that output 0 may overwrite; 0: none */
  ny_cuda_layout layout;
} ny_cuda_facts;

/* source.c: appends one .cu: header comment, schedule, prelude, code. Reads the graph; its context must not be used by others meanwhile. */
nyb_status ny_cuda_source(const ny_graph *kernel, const ny_target *target, ny_text *out, ny_cuda_facts *facts, ny_diag *d);
/* Without the prelude, to put several kernels into one unit; `uses` gathers the parts of the prelude that they need. */
nyb_status ny_cuda_body(const ny_graph *kernel, const ny_target *target, ny_text *out, uint32_t *uses, ny_cuda_facts *facts, ny_diag *d);
void ny_cuda_prelude(uint32_t uses, ny_text *out);

/* ---- nvrtc.c: looked for at $NYBBLE_NVRTC (a file), as libnvrtc.so.13 and .12, in /usr/local/cuda*'s lib64, and in the wheel nvidia-cuda-nvrtc of
   $VIRTUAL_ENV, of a .venv beside or above this program, and of the user's and system's Python. Opened once, thread-safe. */
typedef struct ny_nvrtc {
  int major, minor;
  const char *path; /* as it was opened */
} ny_nvrtc;
nyb_status ny_nvrtc_open(const ny_nvrtc **out, ny_diag *d);
bool ny_nvrtc_supports(int sm); /* after a successful open: this NVRTC knows the architecture */
typedef struct ny_nvrtc_result { /* malloc'ed */
  char *ptx, *log;
  uint8_t *cubin; /* NULL for arch "compute_NN" */
  size_t ptx_bytes, cubin_bytes;
} ny_nvrtc_result;
/* arch: "sm_90a" gives PTX and cubin, "compute_90" PTX. name: of the unit in messages and -lineinfo. An error shows the log against the source's lines;
   the log's whole text is in out->log then too. */
nyb_status ny_nvrtc_compile(const char *source, const char *name, const char *arch, const char *const *option, int n_option, ny_nvrtc_result *out, ny_diag *d);
void ny_nvrtc_free(ny_nvrtc_result *r);

/* ---- pool.c: all kernels of a module. Small ones share a unit (NVRTC starts up once for them), units are compiled by r->threads threads, and each unit is
   looked for first in the cache on disk (<cache>/cuda/<digest of source, options and NVRTC's version>). r->dump_dir gets <kernel>.cu and, once compiled, <kernel>.ptx. */
typedef struct ny_cuda_image { /* one unit: an image to load, of one kernel or several */
  char *source, *ptx;
  uint8_t *cubin;
  size_t source_bytes, ptx_bytes, cubin_bytes;
  bool cached;
  double seconds; /* of its compilation; of reading it when cached */
} ny_cuda_image;
typedef struct ny_cuda_kernel { /* by r->kernel's order */
  uint32_t image;
  bool pinned;
  ny_cuda_facts facts;
} ny_cuda_kernel;
typedef struct ny_cuda_code {
  ny_cuda_image *image;
  ny_cuda_kernel *kernel;
  size_t n_image, n;
  size_t n_cached; /* images that came from the cache */
} ny_cuda_code;
nyb_status ny_cuda_compile(const ny_codegen_request *r, ny_cuda_code *out, ny_diag *d);
/* A source text that is there already (a module's, an edited one), for a target; through the cache too. */
nyb_status ny_cuda_compile_source(const char *source, const char *name, const char *arch, ny_cuda_image *out, ny_diag *d);
void ny_cuda_code_free(ny_cuda_code *c);
/* pin.c: the pin's source has the kernel, with the parameters of the generated text. */
nyb_status ny_cuda_pin_check(const ny_codegen_pin *pin, const char *generated, const char *symbol, ny_diag *d);
void ny_cuda_image_free(ny_cuda_image *im);
#endif
