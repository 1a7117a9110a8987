/* A session's side of a device: the queue, copies of inputs and outputs, captured runs. */
#ifndef NY_REMOTE_H
#define NY_REMOTE_H
#include "session.h"

enum {
  NY_REMOTE_ALIGN = 16,       /* of every buffer a kernel sees: widest load */
  NY_REMOTE_SMALL = 64 << 10, /* an input up to here passes through pinned memory, inside the captured run */
  NY_REMOTE_CAPTURES = 8,     /* runs kept: sets of sizes and addresses */
};

/* A run that was seen: sizes and addresses, and the graph once it came again. */
typedef struct ny_remote_capture {
  int64_t *key; /* n_key */
  ny_capture *graph;
  bool ready; /* the graph is of this key */
  uint64_t used;
} ny_remote_capture;

/* How an input gets to the device and an output from it. */
typedef enum ny_remote_way {
  NY_WAY_PLACE,  /* used where it is */
  NY_WAY_PINNED, /* through the session's pinned memory, where kernels use it */
  NY_WAY_STAGED, /* through pinned and device memory */
  NY_WAY_COPIED, /* between the caller's memory and device memory */
} ny_remote_way;
typedef struct ny_remote_value {
  ny_block_of_memory pinned, device; /* pinned: of an output, that is session.output */
  ny_remote_way way;
  void *user; /* where the caller has or wants it */
  uint64_t bytes;
  bool on_device; /* the caller's memory is */
  bool copied;    /* by a command of the module: then only memory that the driver knows will do */
} ny_remote_value;

struct ny_remote {
  ny_device *dev;
  const ny_device_facts *facts;
  ny_program *program;
  ny_queue *queue;
  ny_remote_value *input, *output;
  uint64_t *launch_bytes;
  ny_block_of_memory flag; /* one byte, pinned */
  bool straight;           /* no if, no loop: a run can be captured */
  uint32_t n_key;
  int64_t *key;
  ny_remote_capture capture[NY_REMOTE_CAPTURES];
  uint64_t runs;
};
#endif
