/* What libnyb_cudasim.so exports beside the CUDA driver API: which device is which, how launches are run, and what was
   found. Looked up by dlsym, or linked by a test. */
#ifndef NYB_CUDASIM_H
#define NYB_CUDASIM_H
#include "sim.h"

/* The ordinal of a profile (gb10, h100, rtx5090; "": the first); -1: there is none. And back. */
NYB_API int nyb_cudasim_device(const char *profile);
NYB_API const char *nyb_cudasim_profile(int ordinal);

/* How launches run from now on, in every thread. 0, or -1 for an unknown name or value. Each is also read from the
   environment when the driver starts, as NYB_CUDASIM_ORDER and so on.
     order   forward, reverse, random:SEED    in which warps take turns
     checks  all, none, or a list: races,uninit,cross,memory
     copies  early, late    when asynchronous copies of a kernel land
     queue   now, late      work of a stream is done when it is queued, or when somebody waits for it
     protect on, off        device memory of a separate device cannot be touched by the host
     report  on, off        findings are printed to stderr */
NYB_API int nyb_cudasim_set(const char *name, const char *value);

/* The next launch of this thread may touch these ranges and nothing else. */
typedef struct nyb_cudasim_range {
  const void *p;
  uint64_t bytes;
} nyb_cudasim_range;
NYB_API int nyb_cudasim_expect(const nyb_cudasim_range *range, unsigned n);

typedef struct nyb_cudasim_kernel { /* everything launched under one name */
  const char *name;
  uint64_t launches, findings;
  double seconds;
  ny_sim_counters counters;
} nyb_cudasim_kernel;
typedef struct nyb_cudasim_totals {
  uint64_t launches, findings;
  uint64_t copies, copied_bytes, fills;
  uint64_t graph_launches, captures, exec_updates;
  uint64_t allocated, most_allocated; /* bytes of device memory, now and at most */
  uint64_t objects, leaked;           /* handles alive; lost with their context */
} nyb_cudasim_totals;
NYB_API void nyb_cudasim_count(nyb_cudasim_totals *out);
NYB_API unsigned nyb_cudasim_kernels(const nyb_cudasim_kernel **out); /* until the next launch or reset */
/* The findings so far as text, at most `room` bytes with the NUL; returns the length of all of it. */
NYB_API size_t nyb_cudasim_findings(char *text, size_t room);
NYB_API void nyb_cudasim_reset(void); /* counters and findings to nothing */
#endif
