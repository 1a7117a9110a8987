/* The CUDA driver by dlopen: our own declarations of what we call, a table of function pointers filled from
   cuda_syms.def, and errors in words. No header or library of CUDA is needed to build, and none is loaded until a
   session asks for such a device. libnyb_cudasim.so fills the same table. */
#ifndef NY_CUDA_H
#define NY_CUDA_H
#include "base.h"

typedef int ny_cu_result, ny_cu_device;
typedef uint64_t ny_cu_address;
typedef struct CUctx_st *ny_cu_context;
typedef struct CUmod_st *ny_cu_module;
typedef struct CUfunc_st *ny_cu_function;
typedef struct CUstream_st *ny_cu_stream;
typedef struct CUevent_st *ny_cu_event;
typedef struct CUgraph_st *ny_cu_graph;
typedef struct CUgraphExec_st *ny_cu_exec;
typedef struct CUgraphNode_st *ny_cu_node;
typedef struct ny_cu_update { /* CUgraphExecUpdateResultInfo */
  int result;
  ny_cu_node node, from;
} ny_cu_update;

/* Of the driver's enumerations, what we use. */
enum {
  NY_CU_OK = 0,
  NY_CU_INVALID_VALUE = 1,
  NY_CU_OUT_OF_MEMORY = 2,
  NY_CU_NO_DEVICE = 100,
  NY_CU_INVALID_IMAGE = 200,
  NY_CU_NO_BINARY_FOR_GPU = 209,
  NY_CU_INVALID_PTX = 218,
  NY_CU_UNSUPPORTED_PTX_VERSION = 222,
  NY_CU_STREAM_NON_BLOCKING = 1,
  NY_CU_CAPTURE_THREAD_LOCAL = 1,
  NY_CU_HOST_PORTABLE_MAPPED = 1 | 2,
  NY_CU_JIT_INFO_LOG = 3,
  NY_CU_JIT_INFO_LOG_BYTES = 4,
  NY_CU_JIT_ERROR_LOG = 5,
  NY_CU_JIT_ERROR_LOG_BYTES = 6,
  NY_CU_FUNCTION_MAX_THREADS = 0,
  NY_CU_FUNCTION_SHARED = 1,
  NY_CU_FUNCTION_LOCAL = 3,
  NY_CU_FUNCTION_REGISTERS = 4,
  NY_CU_FUNCTION_MAX_DYNAMIC_SHARED = 8,
};
/* CU_ATTRIBUTE(name, number, what it says): device attributes that decide something or that doctor prints. */
#define NY_CU_ATTRIBUTES(CU_ATTRIBUTE)                                                                                 \
  CU_ATTRIBUTE(MAX_THREADS, 1, "threads of a block")                                                                   \
  CU_ATTRIBUTE(SHARED_BLOCK, 8, "shared memory of a block, bytes")                                                     \
  CU_ATTRIBUTE(WARP, 10, "threads of a warp")                                                                          \
  CU_ATTRIBUTE(CLOCK, 13, "clock, kHz")                                                                                \
  CU_ATTRIBUTE(PROCESSORS, 16, "multiprocessors")                                                                      \
  CU_ATTRIBUTE(INTEGRATED, 18, "integrated with the CPU's memory")                                                     \
  CU_ATTRIBUTE(MEMORY_CLOCK, 36, "memory clock, kHz")                                                                  \
  CU_ATTRIBUTE(MEMORY_BITS, 37, "memory bus, bits")                                                                    \
  CU_ATTRIBUTE(L2, 38, "L2 cache, bytes")                                                                              \
  CU_ATTRIBUTE(UNIFIED_ADDRESSES, 41, "one address space with the host")                                               \
  CU_ATTRIBUTE(MAJOR, 75, "compute capability, major")                                                                 \
  CU_ATTRIBUTE(MINOR, 76, "compute capability, minor")                                                                 \
  CU_ATTRIBUTE(SHARED_PROCESSOR, 81, "shared memory of a multiprocessor, bytes")                                       \
  CU_ATTRIBUTE(MANAGED, 83, "managed memory")                                                                          \
  CU_ATTRIBUTE(PAGEABLE, 88, "reads any memory of the process")                                                        \
  CU_ATTRIBUTE(CONCURRENT_MANAGED, 89, "managed memory together with the CPU")                                         \
  CU_ATTRIBUTE(SHARED_OPTIN, 97, "shared memory of a block on request, bytes")                                         \
  CU_ATTRIBUTE(HOST_REGISTER, 99, "registers host memory")                                                             \
  CU_ATTRIBUTE(HOST_PAGE_TABLES, 100, "by the host's page tables")                                                     \
  CU_ATTRIBUTE(DIRECT_MANAGED, 101, "the host reads managed memory in place")                                          \
  CU_ATTRIBUTE(GPU_DIRECT_RDMA, 116, "GPUDirect RDMA")                                                                 \
  CU_ATTRIBUTE(DMA_BUF, 124, "dma-buf")                                                                                \
  CU_ATTRIBUTE(TENSOR_MAPS, 127, "tensor maps (TMA)")
enum {
#define ROW(name, number, text) NY_CU_##name = number,
  NY_CU_ATTRIBUTES(ROW)
#undef ROW
};

typedef struct ny_cuda {
#define CU(name, symbol, parameters) ny_cu_result(*name) parameters;
#include "cuda_syms.def"
#undef CU
  void *library;
  char path[512]; /* as it was found */
  int version;    /* 13000: CUDA 13.0 */
  bool simulated;
} ny_cuda;

/* Opens and initialises the driver, once a process: libcuda.so.1, or the simulator, which lies where
   $NYBBLE_PLUGIN_DIR says or beside this library. It stays. */
nyb_status ny_cuda_open(bool simulated, const ny_cuda **out, ny_diag *d);
/* A function the library has beyond the table; NULL: it has not. */
void *ny_cuda_symbol(const ny_cuda *cu, const char *name);
/* NYB_E_DEVICE (or NYB_E_NOMEM): "what: CUDA_ERROR_X (700), its text". */
nyb_status ny_cuda_fail(const ny_cuda *cu, ny_cu_result r, ny_diag *d, const char *what, ...) NY_PRINTF(4, 5);
/* Calls a function of the table `cu` and returns from the caller on failure; `d` is the caller's ny_diag. */
#define NY_CU_TRY(cu, d, call, ...)                                                                                    \
  do {                                                                                                                 \
    ny_cu_result ny_r_ = (cu)->call;                                                                                   \
    if (ny_r_) return ny_cuda_fail((cu), ny_r_, (d), __VA_ARGS__);                                                     \
  } while (0)
#endif
