/* nybble kernels: one file a subcommand, and what they share. A folder of kernels holds for each NAME
     NAME.cu            the source that was run
     NAME.launch        how it was launched, see launch_file.h, and SHA-256 of that source
     NAME.<i>.npy       what argument i pointed to, and NAME.<i>.expect.npy, what it had become
     NAME.ptx           what NVRTC made of the source, and NAME.<arch>.cubin, for machines without NVRTC */
#ifndef NY_KERNELS_H
#define NY_KERNELS_H
#include "cuda_code.h"
#include "launch_file.h"

int kernels_dump(int argc, char **argv);
int kernels_replay(int argc, char **argv);
int kernels_pin(int argc, char **argv);

enum { KERNELS_MAX_SOURCE = 4 << 20, KERNELS_MAX_ARCHS = 16 };
/* As file names: a kernel's name may hold a slash. */
const char *kernels_path(ny_arena *a, const char *dir, const char *kernel, const char *suffix);
void kernels_digest(const char *text, char hex[65]);
nyb_status kernels_write(const char *path, const void *data, size_t n, ny_diag *d);

/* Compiles sources with NVRTC, several at a time. */
typedef struct kernels_job {
  const char *source, *name, *arch;
  ny_cuda_image image; /* to be freed */
  ny_diag diag;
} kernels_job;
void kernels_compile(kernels_job *job, size_t n);
/* "sm_80,sm_90a" in pieces; how many, or -1 when one is no architecture that has machine code. */
int kernels_archs(ny_arena *a, const char *list, const char *out[KERNELS_MAX_ARCHS]);
#endif
