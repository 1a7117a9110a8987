/* How an mma of several threads goes through shared memory. */
#ifndef NY_CUDA_MMA_H
#define NY_CUDA_MMA_H
#include "emit.h"

typedef struct cu_operand {
  cu_value *v;
  bool own;      /* nothing else uses it: computed in a layout for staging */
  bool k_inner;  /* lies with k adjacent: a as [m][ld], b as [n][ld]; else [k][ld] */
  bool copied;   /* a load that cp.async can do */
  int64_t outer, inner, ld; /* elements of a stage: outer rows of ld */
  int area;      /* buffer, -1 before it is made */
  int mask, every;   /* 16-byte unit u of row r lies at u ^ (r / every & mask); mask 0: rows are padded instead */
  const char *place;
  ny_fmt kept; /* format in shared memory */
} cu_operand;
typedef struct cu_codes { /* codes.c: the right operand is codes of blocks with scales */
  const ny_op *load[4];   /* of codes and of scales; with `both`, of a and b, then their scales */
  int64_t lds[4];         /* with `both`: elements from one row of these to the next */
  bool both;              /* the left operand is codes too: scaled.c */
  int64_t ld, ld_scale;   /* from one column to the next */
  int64_t rows;           /* of the left operand */
  int block, terms;       /* that share a scale; that the left operand is cut into */
  bool exponents;         /* scales are f8e8m0, else f8e4m3 */
  bool stacked;           /* all terms are rows of one fragment */
  bool through;           /* sums meet in shared memory */
  int mt, nt, chunks;     /* fragments of sums along rows and columns; runs of codes a thread takes a step */
  const char *name;       /* C: the sums */
} cu_codes;
typedef struct cu_mma_plan {
  const ny_op *op;
  cu_value *t;
  cu_operand in[2];
  ny_fmt sum;           /* the arithmetic's */
  const char *tensor;   /* name of the tensor-core product, or NULL */
  cu_codes *codes;      /* or NULL */
  int k_step;           /* of one product */
  int stages;           /* of shared memory */
  const char *stage;    /* C: the stage that is read, or NULL: there is one */
} cu_mma_plan;

/* mma.c */
void cu_mma_prepare(cu *c, const ny_block *b); /* layouts of operands, before anything is emitted */
cu_mma_plan *cu_mma_plan_of(cu *c, const ny_op *op);
void cu_mma_areas(cu *c, cu_mma_plan *p, int stages);
void cu_mma_compute(cu *c, const cu_mma_plan *p);
/* Where 16-byte unit `unit` of row `row` begins, in elements. */
const char *cu_unit_place(cu *c, const cu_operand *o, const char *row, const char *unit);
const char *cu_stage_base(cu *c, const cu_mma_plan *p, int which, const char *stage); /* pointer to a stage */
/* tensor.c */
const char *cu_tensor_kind(const cu *c, const cu_mma_plan *p, int *k_step);
void cu_tensor_compute(cu *c, const cu_mma_plan *p);
/* codes.c: in this order, fetch and compute in the loop */
void cu_codes_prepare(cu *c, cu_mma_plan *p);
void cu_codes_open(cu *c, const cu_mma_plan *p);
void cu_codes_fetch(cu *c, const cu_mma_plan *p, bool first);
void cu_codes_compute(cu *c, const cu_mma_plan *p);
void cu_codes_advance(cu *c, const cu_mma_plan *p);
void cu_codes_close(cu *c, const cu_mma_plan *p);
static inline int cu_staged(const cu_mma_plan *p) { return p->codes ? 1 : 2; } /* operands that go through shared memory */
/* scaled.c: where both operands are codes */
void cu_scaled_prepare(cu *c, cu_mma_plan *p, cu_codes *q);
void cu_scaled_open(cu *c, const cu_mma_plan *p);
void cu_scaled_copy(cu *c, const cu_mma_plan *p, const char *stage); /* by cp.async */
void cu_scaled_compute(cu *c, const cu_mma_plan *p);
/* pipeline.c: the loop of a sum, staged ahead; false: it is another kind of loop */
bool cu_pipeline(cu *c, const ny_op *op);
#endif
