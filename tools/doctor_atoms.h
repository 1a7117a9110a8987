/* The instructions that CUDA kernels are built of, one small kernel each, run on a device and compared with what the
   host computes. */
#ifndef DOCTOR_ATOMS_H
#define DOCTOR_ATOMS_H
#include "device.h"

typedef enum doctor_verdict { DOCTOR_OK, DOCTOR_WRONG, DOCTOR_ABSENT, DOCTOR_FAILED } doctor_verdict;
typedef struct doctor_atom {
  const char *name;
  doctor_verdict verdict;
  char why[400]; /* "" when ok */
} doctor_atom;
extern const char *const doctor_verdicts[]; /* "ok", "wrong", "not on this device", "failed" */

/* All of them; returns how many. A kernel that fails may take the device's context with it: those after it fail too. */
size_t doctor_atoms(ny_device *dev, doctor_atom *out, size_t room);
#endif
