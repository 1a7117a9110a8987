/* A device that sessions run on when it is not this process's CPU: memory, kernels, a queue of work, captured graphs.
   One implementation so far, over the table of the CUDA driver, which the simulator fills too. NULL stands for the CPU
   wherever a device may be either. Device memory is named by plain pointers that only the device follows.
   Opening, loading and allocating belong to one thread at a time; queues of different sessions run concurrently. */
#ifndef NY_DEVICE_H
#define NY_DEVICE_H
#include "module.h"

typedef struct ny_device ny_device;
typedef struct ny_queue ny_queue;     /* work in order; owned by one session */
typedef struct ny_capture ny_capture; /* a recorded queue, ready to be run again as a whole */
typedef struct ny_program ny_program; /* a module's kernels and weights on a device */

typedef struct ny_device_facts {
  char name[96];    /* NVIDIA GB10 */
  char spelled[32]; /* cuda:0, sim:gb10: opens it again */
  nyb_device_id id; /* of tensors on it */
  uint32_t sm;      /* compute capability times ten */
  int processors;
  uint64_t l2, shared; /* bytes; shared: of a block on request */
  bool simulated, integrated;
  bool pageable, host_page_tables; /* kernels follow any pointer of the process; through the host's own page tables */
  bool mapped;                     /* policy: kernels use the host's pinned memory in place */
  bool direct;                     /* policy: and any other memory of the process */
  const char *policy;              /* the two in words, with the reason */
} ny_device_facts;

/* name: "cpu" or NULL (*out is NULL), "cuda", "cuda:N", "sim", "sim:PROFILE". The same device opened twice is one
   object, counted. */
nyb_status ny_device_open(const char *name, ny_device **out, ny_diag *d);
void ny_device_close(ny_device *dev);
const ny_device_facts *ny_device_describe(const ny_device *dev);
/* For ny_module_select. */
ny_device_needs ny_device_wants(const ny_device *dev);
/* What may still be allocated, and where that number is from ("MemAvailable", "cuMemGetInfo"). */
nyb_status ny_device_room(ny_device *dev, uint64_t *free_bytes, const char **source, ny_diag *d);

/* ---- memory. `what` is for messages: "activation memory". */
nyb_status ny_device_alloc(ny_device *dev, uint64_t bytes, const char *what, void **out, ny_diag *d);
void ny_device_free(ny_device *dev, void *p);
/* Memory of the host that the device copies from and to fast, and reads and writes in place. */
nyb_status ny_device_host_alloc(ny_device *dev, uint64_t bytes, const char *what, void **out, ny_diag *d);
void ny_device_host_free(ny_device *dev, void *p);

/* ---- programs: loads the images that were selected and uploads the weights, once a module. */
nyb_status ny_program_open(ny_device *dev, nyb_module *m, ny_program **out, ny_diag *d);
/* For tools: one kernel of an image in memory (a cubin, or PTX that ends in a zero byte) that belongs to no module. Its
   row must live as long. */
nyb_status ny_program_of_image(ny_device *dev, const void *image, const ny_mod_kernel *row, ny_program **out,
                               ny_diag *d);
void ny_program_close(ny_program *p);
/* Device address of a weight segment. */
void *ny_program_weights(const ny_program *p, uint32_t segment);
uint64_t ny_program_weight_bytes(const ny_program *p);

/* ---- queues. What is queued has happened after ny_queue_wait. Nothing here allocates, the driver aside. */
nyb_status ny_queue_open(const ny_program *p, ny_queue **out, ny_diag *d);
void ny_queue_close(ny_queue *q);
/* Around what a thread does with it in a run: in between, the thread's CUDA context is the device's. */
nyb_status ny_queue_begin(ny_queue *q, ny_diag *d);
void ny_queue_end(ny_queue *q);
nyb_status ny_queue_wait(ny_queue *q, ny_diag *d);
nyb_status ny_queue_upload(ny_queue *q, void *to, const void *from, uint64_t bytes, ny_diag *d);
nyb_status ny_queue_download(ny_queue *q, void *to, const void *from, uint64_t bytes, ny_diag *d);
nyb_status ny_queue_copy(ny_queue *q, void *to, const void *from, uint64_t bytes, ny_diag *d); /* may overlap */
nyb_status ny_queue_set64(ny_queue *q, void *to, int64_t value, ny_diag *d);
typedef struct ny_launch {
  uint32_t kernel; /* of the module */
  uint32_t n_buffers, n_dims;
  void *const *buffer;
  const uint64_t *bytes; /* of each buffer: the simulator holds the kernel to them */
  const int64_t *dim;
  int64_t extent;
} ny_launch;
nyb_status ny_queue_launch(ny_queue *q, const ny_program *p, const ny_launch *l, ny_diag *d);
/* The same for a kernel of ny_program_of_image, arguments in any order: param points to each, range to the memory it
   may touch. */
typedef struct ny_raw_launch {
  uint32_t grid[3], block[3], shared;
  void *const *param;
  void *const *range;
  const uint64_t *bytes;
  uint32_t n_ranges; /* at most as many as arguments */
} ny_raw_launch;
nyb_status ny_queue_launch_raw(ny_queue *q, const ny_program *p, const ny_raw_launch *l, ny_diag *d);
/* Wall time on the device between two marks, after a wait. Marks 0 and 1. */
nyb_status ny_queue_mark(ny_queue *q, int mark, ny_diag *d);
nyb_status ny_queue_seconds(ny_queue *q, double *out, ny_diag *d);
/* Between begin and end everything queued is recorded instead of done; *capture is made, or changed if there is one. */
nyb_status ny_capture_begin(ny_queue *q, ny_diag *d);
nyb_status ny_capture_end(ny_queue *q, ny_capture **capture, ny_diag *d);
void ny_capture_abandon(ny_queue *q); /* after a failure in between */
nyb_status ny_capture_run(ny_queue *q, ny_capture *c, ny_diag *d);
void ny_capture_close(ny_device *dev, ny_capture *c);

/* ---- for doctor: every device there is, with the reason where there is none. */
typedef struct ny_device_list {
  int n;
  char spelled[16][32];
  int driver_version;
  char library[512];
} ny_device_list;
nyb_status ny_device_find(bool simulated, ny_device_list *out, ny_diag *d);
/* An attribute of NY_CU_ATTRIBUTES; -1 where the driver does not know it. */
int ny_device_attribute(const ny_device *dev, int attribute);
/* A function of the driver's library; NULL: it has none of that name. What the simulator offers beside the driver. */
void *ny_device_symbol(const ny_device *dev, const char *name);
#endif
