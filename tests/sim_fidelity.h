/* Each instruction row of the simulator against a reference of its own. A reference is a C function from operand bits
   to result bits that shares no code with the simulator; what cannot be one (memory, whole warps) has a test of its own
   that marks the rows it ran. The kernels are PTX text and buffers, run by a `fidelity_runner`: the simulator here, a
   driver on a machine with a device. */
#ifndef SIM_FIDELITY_H
#define SIM_FIDELITY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rows.h"

/* ---- running */
typedef struct fidelity_buffer {
  void *data;
  size_t bytes;
} fidelity_buffer;
typedef enum fidelity_status { RAN, REFUSED, FAILED } fidelity_status; /* REFUSED: no such instruction */
typedef struct fidelity_runner {
  void *self;
  /* Kernel `k` of the text with the buffers' addresses as its 64-bit parameters. `why` has 512 bytes. */
  fidelity_status (*run)(void *self, const char *ptx, const fidelity_buffer *buffer, int n, uint32_t blocks,
                         uint32_t threads, char *why);
} fidelity_runner;
extern fidelity_runner fidelity_device;
/* REFUSED only on a device: the simulator takes all that the tests have written. */
fidelity_status fidelity_run(const char *ptx, const fidelity_buffer *buffer, int n, uint32_t blocks, uint32_t threads,
                             char *why);
/* False on a device: it reports no findings, and has not every instruction. */
extern bool fidelity_simulated;
bool fidelity_driver_open(const char *library); /* sim_fidelity_cuda.c; false: no driver or no device, said on stderr */
int fidelity_driver_skipped(void);              /* kernels that its assembler refused */
extern const fidelity_runner fidelity_driver;

/* ---- mnemonics */
enum { MAX_WORDS = 24, MAX_IN = 8, MAX_OUT = 8, MAX_OPERANDS = 24 };
typedef struct ref_op {
  char text[160];
  char word[MAX_WORDS][32]; /* of the mnemonic */
  int n_words;
  const char *type, *type2; /* the last word that is a type, the one before it; "" */
  const ny_ptx_row *row;
  int64_t imm[4]; /* values of `i` operands */
  int n_in;       /* operands that are read: those that may be missing are, or are not */
} ref_op;
bool ref_has(const ref_op *op, const char *word);
void ref_read(ref_op *op, const char *mnemonic);

/* ---- references */
typedef enum ref_status { REF_UNKNOWN, REF_SKIP, REF_OK } ref_status; /* SKIP: undefined for these inputs */
typedef struct ref_io {
  uint64_t in[MAX_IN], out[MAX_OUT];
} ref_io;
typedef ref_status ref_fn(const ref_op *op, ref_io *io);
typedef struct ref_entry {
  const char *first; /* the first word, "|"-separated alternatives */
  const char *types; /* last types that it is for, blank-separated with blanks around; NULL: any */
  ref_fn *fn;
  double rel, abs; /* > 0: results are floats that differ by no more than abs + rel * |reference| */
} ref_entry;
extern const ref_entry ref_int[], ref_float[], ref_half[], ref_convert[], ref_move[]; /* each ends with a NULL first */

/* Tests of their own: they call covered() for each mnemonic that they ran. */
void covered(const char *mnemonic);
void fidelity_check(bool ok, const char *fmt, ...) NY_PRINTF(2, 3); /* one more test, passed or failed */
void test_values(void);                                             /* of the references themselves */
void test_tensor(void);
void test_scaled(void);
void test_matrix(void);
void test_atomic(void);
void test_async(void);
void test_memory(void);
void test_warp(void);

/* ---- values (sim_ref_value.c): floats of any format as exact numbers; the reference's own formulas. */
#if __LDBL_MANT_DIG__ == 113
typedef long double wide;
#else
__extension__ typedef __float128 wide;
#endif
typedef struct exact { /* hi + lo, |lo| at most half a last place of hi; nan and inf in hi */
  wide hi, lo;
} exact;
exact exact_sum(wide a, wide b);
typedef enum direction { NEAREST, ZERO, DOWN, UP, AWAY } direction; /* AWAY: to nearest, ties away from zero */
direction ref_direction(const ref_op *op);
wide ref_value(const char *type, uint64_t code);
uint64_t ref_round(const char *type, exact x, direction d, bool satfinite);
uint64_t ref_nan(const char *type); /* the canonical one */
bool ref_is_nan(const char *type, uint64_t code);
int ref_bits(const char *type);
bool ref_is_float(const char *type);
double ref_double(const char *type, uint64_t code);
uint64_t ref_flush(const char *type, uint64_t code);

/* ---- numbers to put in */
uint64_t fidelity_random(void);
uint64_t fidelity_value(const char *type, uint32_t k); /* the k-th special value, then random ones */
uint32_t fidelity_specials(const char *type);
#endif
