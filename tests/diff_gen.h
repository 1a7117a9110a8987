/* Seeded random graphs whose results can be compared between the evaluator, the passes and compiled code. Every value
   carries a bound on its magnitude and on the error that another legal order of float operations may cause; ops that
   jump (floor, comparisons, casts to integers, positions of extremes) are only applied to values that are exact. So a
   difference beyond the bound is a bug, not noise. */
#ifndef NY_DIFF_GEN_H
#define NY_DIFF_GEN_H
#include "ir.h"

typedef struct diff_options {
  uint64_t seed;
  int ops;      /* to aim for; a few more are made as helpers */
  bool symbols; /* some input dims are ?N and ?M */
  bool control; /* if and loop */
  bool wide;    /* also f64, f16, bf16, small and unsigned integers; else f32, i64, i32, bool */
} diff_options;

enum { DIFF_MAX_OUT = 12, DIFF_MAX_IN = 16 };
typedef struct diff_case {
  ny_unit *u;
  ny_graph *g;
  int n_in, n_out;
  double in_mag[DIFF_MAX_IN]; /* inputs are uniform in -mag .. mag */
  double err[DIFF_MAX_OUT];   /* absolute; 0: exact */
  ny_binding env[2];          /* what ?N and ?M are */
  size_t n_env;
} diff_case;

/* A verified unit with one graph. False after a diagnostic, which is a bug of the generator or of inference. */
bool diff_generate(ny_ctx *cx, const diff_options *o, diff_case *out);
/* Concrete random inputs, made from `seed`. */
void diff_inputs(const diff_case *c, uint64_t seed, ny_arena *a, ny_tensor *in);
/* Equal within err; NaN equals NaN. On false `why` says where. */
bool diff_same(const ny_tensor *want, const ny_tensor *got, double err, char why[200]);

/* ---- Between diff_gen.c and diff_ops.c */
typedef struct diff_val {
  ny_value *v;
  double mag, err;
  bool exact;
} diff_val;
enum { DIFF_POOL = 256 };
typedef struct diff_gen {
  diff_case *c;
  const diff_options *o;
  ny_ctx *cx;
  ny_builder b;
  uint64_t seed;
  diff_val pool[DIFF_POOL];
  int n;
} diff_gen;
typedef enum diff_class { DIFF_FLOAT = 1, DIFF_INT = 2, DIFF_BOOL = 4, DIFF_NUMBER = 3, DIFF_ANY = 7 } diff_class;

uint64_t diff_rand(diff_gen *g, uint64_t n); /* 0 .. n-1 */
static inline bool diff_one_in(diff_gen *g, uint64_t n) { return diff_rand(g, n) == 0; }
int64_t diff_size(const diff_gen *g, ny_dim d); /* what it is in this case */
int64_t diff_count(const diff_gen *g, const ny_type *t);
bool diff_static(const ny_type *t, int from); /* dims from.. are numbers */
double diff_eps(ny_fmt f);
/* A value of the pool of one of the classes and at least the rank, or NULL. exact: only those. */
const diff_val *diff_pick(diff_gen *g, diff_class c, int min_rank, bool exact);
diff_val diff_const(diff_gen *g, ny_fmt f, int rank, const ny_dim *shape, double mag);
/* Something that broadcasts against x, of its format. */
diff_val diff_partner(diff_gen *g, const diff_val *x, bool exact);
/* Offers a result: kept if it could be built and its bounds are tame. The rounding of its own op is added here. */
void diff_keep(diff_gen *g, ny_value *v, double mag, double err, bool exact);

typedef void diff_production(diff_gen *g);
extern diff_production *const diff_tensor_ops[]; /* diff_ops.c, ends with NULL */
#endif
