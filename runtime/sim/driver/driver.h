/* The inside of the simulated driver. One lock is held by whatever call is in progress, launches included, so that
   nothing here is concurrent. Handles are pointers to the structs below, and looked up in a table before they are
   followed. */
#ifndef NY_DRIVER_H
#define NY_DRIVER_H
#include "cuda.h"
#include "cudasim.h"

typedef struct ny_cu_kernel_params { /* CUDA_KERNEL_NODE_PARAMS_v2 */
  ny_cu_function function;
  unsigned grid[3], block[3], shared;
  void **param, **extra;
  ny_cu_function kernel;
  ny_cu_context context;
} ny_cu_kernel_params;
typedef struct ny_cu_launch_config { /* CUlaunchConfig */
  unsigned grid[3], block[3], shared;
  ny_cu_stream stream;
  const void *attribute;
  unsigned n_attributes;
} ny_cu_launch_config;

#define CU(name, symbol, parameters) NYB_API ny_cu_result symbol parameters;
#include "cuda_syms.def"
#include "driver_syms.def"
#undef CU

/* Statuses by name: DRV_INVALID_VALUE. */
enum {
#define CU_ERROR(name, number, text) DRV_##name = number,
#include "errors.def"
#undef CU_ERROR
};
enum { DRV_VERSION = 13000, DRV_MAX_THREADS = 1024, DRV_PLAIN_SHARED = 48 << 10 };

typedef enum drv_kind {
  DRV_ANY,
  DRV_CONTEXT,
  DRV_MODULE,
  DRV_FUNCTION,
  DRV_STREAM,
  DRV_EVENT,
  DRV_GRAPH,
  DRV_NODE,
  DRV_EXEC
} drv_kind;
typedef struct drv_object {
  drv_kind kind;
  struct CUctx_st *context;
} drv_object;

struct CUctx_st {
  drv_object o;
  int device, uses;
  bool primary;
  unsigned flags;
  ny_cu_result sticky; /* a launch failed: nothing works any more */
};
struct CUfunc_st {
  drv_object o;
  struct CUmod_st *module;
  int index;
  int dynamic; /* shared bytes allowed */
  const ny_sim_kernel_info *info;
};
struct CUmod_st {
  drv_object o;
  ny_sim_module *sim;
  struct CUfunc_st *function; /* one a kernel */
  int n;
};

typedef enum drv_work {
  DRV_LAUNCH = 0,
  DRV_COPY = 1,
  DRV_FILL = 2,
  DRV_CALL = 3,
  DRV_EMPTY = 5,
  DRV_RECORD = 7
} drv_work; /* CUgraphNodeType */
struct CUgraphNode_st {
  drv_object o;
  drv_work work;
  struct CUgraphNode_st *origin; /* in an executable graph: the node it was made from */
  struct CUgraphNode_st *next;   /* waiting to be done */
  /* launch */
  struct CUfunc_st *function;
  unsigned grid[3], block[3], shared;
  uint8_t *param;  /* packed */
  void **pointers; /* to each of them: what GetParams gives */
  nyb_cudasim_range *range;
  unsigned n_ranges;
  /* copy, fill */
  ny_cu_address to, from;
  uint64_t bytes;
  bool to_ours, from_ours; /* memory of the driver, which must still be there */
  void *staged;            /* the source, copied when the work was queued; or NULL */
  unsigned value, width;
  struct CUevent_st *event;
  void (*call)(void *user);
  void *user;
};
struct CUgraph_st {
  drv_object o;
  ny_cu_node *node;
  size_t n, cap;
  bool broken; /* something was called that a capture does not allow */
};
struct CUgraphExec_st {
  drv_object o;
  ny_cu_node *node;
  size_t n;
};
struct CUstream_st {
  drv_object o;
  unsigned flags;
  int priority;
  struct CUgraph_st *capture; /* being captured into; it belongs to `origin` */
  struct CUstream_st *origin;
};
struct CUevent_st {
  drv_object o;
  unsigned flags;
  bool recorded;
  double time;
  struct CUgraph_st *capture; /* where it was last recorded, in a capture */
  struct CUstream_st *origin;
};

/* ---- state.c */
typedef struct drv_options {
  ny_sim_options sim;
  bool late, protect, quiet;
} drv_options;
extern drv_options drv_opt;
extern nyb_cudasim_totals drv_total;
extern bool drv_started;
void drv_lock(void);
void drv_unlock(int *unused);
ny_cu_context *drv_current(void); /* this thread's */
/* Holds the lock until the end of the scope. */
#define DRV_HOLD                                                                                                       \
  __attribute__((cleanup(drv_unlock))) int drv_hold_ = (drv_lock(), 0);                                                \
  (void)drv_hold_
/* The same, and returns unless there is a context in which calls still work: `cx`. */
#define DRV_ENTER                                                                                                      \
  DRV_HOLD;                                                                                                            \
  if (!drv_started) return DRV_NOT_INITIALIZED;                                                                        \
  ny_cu_context cx = *drv_current();                                                                                   \
  if (!cx) return DRV_INVALID_CONTEXT;                                                                                 \
  if (cx->sticky) return cx->sticky
void *drv_object_new(size_t bytes, drv_kind kind, ny_cu_context cx); /* zeroed; aborts without memory */
void drv_object_free(void *p);
void drv_object_adopt(void *p); /* an object inside another allocation is known too */
void drv_object_forget(void *p);
bool drv_is(const void *p, drv_kind kind);
/* Any object of a context, to be freed with it; NULL: none left. */
void *drv_object_of(ny_cu_context cx, drv_kind kind);
void *drv_need(void *p); /* aborts on NULL */
#define DRV_CHECK(p, kind)                                                                                             \
  do {                                                                                                                 \
    if (!drv_is(p, kind)) return DRV_INVALID_HANDLE;                                                                   \
  } while (0)

/* ---- device.c */
uint64_t drv_memory_of(int device);
int drv_attribute_of(int device, int attribute); /* -1: not one */
bool drv_follows_any_pointer(int device);

/* ---- memory.c */
typedef enum drv_memory_kind {
  DRV_DEVICE_MEMORY,
  DRV_HOST_MEMORY,
  DRV_MANAGED_MEMORY,
  DRV_REGISTERED_MEMORY
} drv_memory_kind;
typedef struct drv_memory {
  uint64_t at, bytes, mapped;
  drv_memory_kind kind;
  ny_cu_context context;
  unsigned flags;
} drv_memory;
const drv_memory *drv_memory_find(uint64_t p); /* that p lies in */
bool drv_memory_holds(uint64_t p, uint64_t bytes);
bool drv_memory_at(size_t i, drv_memory *out); /* all of them, by address */
void drv_memory_open(void);                    /* the simulator may touch device memory */
void drv_memory_close(void);                   /* the host may not */
void drv_memory_end(ny_cu_context cx);         /* with its context */

/* ---- stream.c */
/* Does the work, or leaves it for later, or adds it to the graph that the stream is captured into. Takes the node. */
ny_cu_result drv_submit(ny_cu_stream stream, ny_cu_node node, ny_cu_context cx);
bool drv_stream_ok(ny_cu_stream stream); /* a stream or one of the default streams */
bool drv_capturing(ny_cu_stream stream);
/* What may not be called while this thread captures: breaks the capture. */
bool drv_capture_forbids(ny_cu_context cx);
ny_cu_result drv_flush(void); /* everything queued is done */
ny_cu_node drv_node_new(drv_work work, ny_cu_context cx);
ny_cu_node drv_node_copy(const struct CUgraphNode_st *from, ny_cu_context cx);
void drv_node_free(ny_cu_node node);
ny_cu_result drv_node_run(ny_cu_node node);

/* ---- launch.c */
ny_cu_result drv_launch_run(ny_cu_node node);
/* Checks the shape, packs the arguments. */
ny_cu_result drv_launch_fill(ny_cu_node node, const ny_cu_kernel_params *p);
void drv_expect_take(ny_cu_node node); /* what nyb_cudasim_expect said goes with this launch */

/* ---- graph.c */
void drv_graph_add(ny_cu_graph g, ny_cu_node node);
void drv_graph_delete(ny_cu_graph g);
void drv_exec_delete(ny_cu_exec e);
void drv_module_delete(ny_cu_module m);
#endif
