/* Inside the reference evaluator: what its files share. Nothing outside ir/eval*.c includes this, except tests of its
   parts. Numbers: a float op computes in double and rounds once, to the format of its result, with no saturation;
   integers compute in int64 modulo 2^bits of the format (u64 as its bit pattern: compared, divided and shifted as
   unsigned); bool is 0 or 1. */
#ifndef NY_EVAL_H
#define NY_EVAL_H
#include "ir.h"

typedef struct ny_buf { /* storage of one or more values; freed with its last reference */
  struct ny_buf *next, **link;
  uint64_t bytes;
  uint32_t refs;
} ny_buf;
typedef struct ny_slot { /* what a value holds now; buf NULL: the data is borrowed (a blob, an input) */
  ny_tensor t;
  ny_buf *buf;
} ny_slot;
typedef struct ny_ev { /* one evaluation */
  ny_graph *g;
  ny_ctx *cx;
  ny_arena scratch; /* plans and bindings */
  ny_binding *env;
  size_t n_env, cap_env;
  uint64_t live, limit; /* bytes of buffers and temporaries */
  ny_buf *bufs, *tmps;
  ny_slot *slot;                      /* by value id; NULL when a single op is evaluated */
  ny_value **dies_first, **dies_next; /* values an op is the last to use: first by op id, next by value id */
  int depth;
} ny_ev;
typedef nyb_status ny_eval_fn(ny_ev *ev, const ny_op *op, const ny_tensor *in,
                              ny_tensor *out); /* out: types set, data allocated, not cleared */

/* eval_move.c */
ny_eval_fn ny_ev_reshape, ny_ev_transpose, ny_ev_broadcast, ny_ev_slice, ny_ev_pad, ny_ev_concat, ny_ev_gather,
    ny_ev_gather_elements, ny_ev_gather_nd, ny_ev_scatter_elements, ny_ev_scatter_nd;
/* eval_gen.c */
ny_eval_fn ny_ev_const, ny_ev_dims, ny_ev_iota, ny_ev_random, ny_ev_require, ny_ev_precision;
/* eval_map.c */
ny_eval_fn ny_ev_map, ny_ev_cast, ny_ev_dequantize;
/* eval_reduce.c, eval_rows.c */
ny_eval_fn ny_ev_reduce, ny_ev_argreduce, ny_ev_scan, ny_ev_topk, ny_ev_window, ny_ev_softmax, ny_ev_layer_norm,
    ny_ev_rms_norm;
/* eval_contract.c */
ny_eval_fn ny_ev_matmul, ny_ev_conv, ny_ev_attention;
/* eval_tile.c */
ny_eval_fn ny_ev_launch;

/* ---- eval.c: sizes, memory */
#define NY_EV_FAIL(ev, op, code, ...) ny_fail(&(ev)->cx->diag, (code), (op)->loc, __VA_ARGS__)
nyb_status ny_ev_dim(ny_ev *ev, const ny_op *op, ny_dim d, int64_t *out);
/* A list attribute as `n` numbers; an empty list gives `def` n times. */
nyb_status ny_ev_list(ny_ev *ev, const ny_op *op, int slot, int n, int64_t def, int64_t *out);
/* Room for n items, counted against the limit, freed after the op. NULL after ny_fail. Not cleared. */
void *ny_ev_tmp(ny_ev *ev, const ny_op *op, uint64_t n, size_t item);
/* An axis attribute made non-negative. */
nyb_status ny_ev_axis(ny_ev *ev, const ny_op *op, int64_t axis, int rank, int *out);
/* Fails unless `from` broadcasts to `to`. Type inference has shown it where sizes are known; here they all are. */
nyb_status ny_ev_fits(ny_ev *ev, const ny_op *op, const ny_type *from, const ny_type *to);

/* ---- eval_num.c: packed storage to and from double and int64, many at a time; shapes */
void ny_load_f(ny_fmt f, const void *p, uint64_t at, size_t n, double *out);
void ny_load_i(ny_fmt f, const void *p, uint64_t at, size_t n, int64_t *out);
void ny_store_f(ny_fmt f, void *p, uint64_t at, size_t n, const double *x);
void ny_store_i(ny_fmt f, void *p, uint64_t at, size_t n, const int64_t *x);
void ny_round_n(ny_fmt f, double *x, size_t n);
void ny_wrap_n(ny_fmt f, int64_t *x, size_t n);
void ny_copy_elems(ny_fmt f, void *to, uint64_t to_at, const void *from, uint64_t from_at,
                   uint64_t n);                      /* elements, without looking at them */
int64_t ny_f_to_i(ny_fmt f, double x);               /* truncates, saturates; NaN gives 0; bool is x != 0 */
double ny_i_to_f(ny_fmt from, int64_t x, ny_fmt to); /* such that one more rounding, to `to`, is right */
int64_t ny_count(const ny_type *t);                  /* of a static type whose storage exists */
void ny_strides(const ny_type *t, int64_t *s);
void ny_bcast_strides(const ny_type *from, int rank,
                      int64_t *s); /* 0 where a dimension stretches to a shape of `rank` */

enum { NY_ND_OPS = 4 };
typedef struct ny_nd { /* walks a shape in row-major order with up to four element offsets */
  int rank, n_ops;
  int64_t n[NY_MAX_RANK], i[NY_MAX_RANK], step[NY_ND_OPS][NY_MAX_RANK], at[NY_ND_OPS];
} ny_nd;
void ny_nd_init(ny_nd *it, int rank, const ny_dim *n, int n_ops);
bool ny_nd_next(ny_nd *it); /* false after the last element, when it stands at the first again */

/* ---- How two elements combine: rows of reduce, scan, scatter and store. NaN wins max and min. */
typedef enum ny_fold { NY_FOLD_set, NY_FOLD_sum, NY_FOLD_prod, NY_FOLD_max, NY_FOLD_min, NY_FOLD_none } ny_fold;
ny_fold ny_fold_of(const char *name);
double ny_fold_f(ny_fold o, double a, double b);
int64_t ny_fold_i(ny_fold o, ny_fmt f, int64_t a, int64_t b);
double ny_fold_first_f(ny_fold o, ny_fmt f);
int64_t ny_fold_first_i(ny_fold o, ny_fmt f);

/* ---- eval_map.c: an elementwise row made ready for operands of given formats, used on tensors and on tiles */
enum { NY_EW_CHUNK = 256 };
typedef enum ny_ew_class { NY_CLS_F, NY_CLS_I, NY_CLS_U /* u64 only */ } ny_ew_class;
typedef union ny_num {
  double f;
  int64_t i;
} ny_num;
typedef struct ny_ew {
  const ny_expr *x;
  ny_fmt fmt[3], t; /* of the operands; what arithmetic is done in */
  uint8_t *cls;     /* by node */
  ny_num *lane;     /* [node][NY_EW_CHUNK] */
} ny_ew;
uint64_t ny_ew_room(const ny_op *op); /* bytes of `room` below */
void ny_ew_init(ny_ew *w, const ny_op *op, const ny_fmt *fmt, void *room);
/* n <= NY_EW_CHUNK elements; a parameter's lane is in[i]. The result is not rounded yet and lives until the next call.
 */
const ny_num *ny_ew_run(ny_ew *w, const ny_num *const *in, size_t n);

void ny_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
nyb_status ny_kernel_run(ny_ev *ev, ny_graph *k, const ny_tensor *buffer, size_t n, size_t n_read_only,
                         const ny_loc *loc);
#endif
