/* The ONNX backend suite as folders: CASE/model.onnx, CASE/data.json, CASE/test_data_set_N/{input,output}_M.pb. How a
   case is executed is the caller's: the evaluator here, the compiled path in test.c. */
#ifndef NY_SUITE_H
#define NY_SUITE_H
#include "frontend.h"
#include "pb.h"

/* Runs the one graph of `u`; results live in `a`. On failure the context's diagnostic tells why. */
typedef nyb_status suite_run(void *user, ny_unit *u, const ny_tensor *in, size_t n_in, ny_arena *a, ny_tensor *out,
                             size_t n_out);
typedef enum suite_verdict { SUITE_PASS, SUITE_FAIL, SUITE_SKIP, SUITE_CRASH } suite_verdict;
typedef struct suite_result {
  suite_verdict verdict;
  int level; /* what import needed: 0 nothing, 1 shapes, 2 small integer vectors as constants, 3 all small inputs */
  char why[1000];
} suite_result;

typedef struct suite_options {
  suite_run *run;
  void *user;
  int jobs, seconds; /* processes at a time; time limit of a case */
  const char *skip;  /* file of `CASE: reason` lines, or NULL: see below */
} suite_options;
typedef struct suite_count {
  int passed, failed, skipped;
} suite_count;
/* Every case in or under `dir`, each in a process of its own. With a skip list, exactly what it names may not pass:
   such a case is counted as skipped, for the reason the list gives; if it passes, or another one does not, or it
   crashes, that is a failure. No case at all is one too. */
void suite_folder(const char *dir, const suite_options *o, suite_count *count);
suite_run suite_evaluate; /* the reference evaluator */

/* suite_edit.c: the model with static shapes for its inputs, some inputs made constants, and tensors for inputs and
   outputs that are sequences or optionals: a sequence x of n tensors becomes inputs x#0..x#n-1 and a SequenceConstruct
   node, a sequence result its items and its length. */
typedef enum suite_kind { SUITE_TENSOR, SUITE_SEQUENCE, SUITE_NOTHING } suite_kind; /* NOTHING: an empty optional */
typedef struct suite_value {
  const char *name;
  suite_kind kind;
  ny_tensor *item; /* one for a tensor; NULL before it is read */
  size_t n;
  ny_fmt fmt;                /* of an empty sequence */
  bool pin;                  /* an input to be made a constant */
  bool is_optional, is_list; /* its type in the model */
} suite_value;
ny_bytes suite_specialise(ny_arena *a, ny_ctx *cx, ny_bytes model, const suite_value *in, size_t n_in,
                          const suite_value *out, size_t n_out);
/* The graph's inputs that have no initializer (field 11), or its outputs (12): names and types. */
bool suite_values(ny_arena *a, ny_bytes model, uint32_t field, suite_value **v, size_t *n);
#endif
