/* What the schedules for GPUs share. A grid point is run by one thread and stores one vector of 16 bytes, or by a warp or a block of its own (the knob
   `threads`) with its tiles spread over them. Consecutive points are consecutive threads and the last grid op varies fastest, so columns come last. */
#ifndef NY_GPU_H
#define NY_GPU_H
#include "contract.h"

enum { NY_WARP = 32, NY_GPU_BLOCK = 1024 /* most threads of a block */ };

/* Elements in 16 bytes of the widest format that the group reads or writes, at least 1; of results narrower than a byte as many as make whole words,
   because that is what threads store. */
int ny_gpu_vector(const ny_op *group);
/* The largest power of two up to `most` that provably divides n. */
int ny_gpu_divides(ny_ctx *cx, ny_dim n, int most);
/* Opens the last grid op, over tiles of e->cols = cols columns, and calls body for the point's tile: whole ones, and with a limit what is left. */
void ny_gpu_columns(ny_emit *e, ny_dim n, int cols, ny_columns_fn *body, void *user);
/* Names the threads of a grid point and the vector each of them holds of a row. */
void ny_gpu_threads(ny_graph *k, int64_t threads, int64_t vector);
/* Loads of neighbouring iterations overlap on a GPU only where its loop is unrolled: n there, 1 elsewhere. */
static inline int ny_gpu_unroll(const ny_emit *e, int n) { return ny_on_gpu(e->px->target) ? n : 1; }
/* v, a tile of e->rows x e->cols, with zeros beyond the limit of an axis: loads have them there already, other expressions do not. */
ny_value *ny_gpu_masked(ny_emit *e, ny_value *v, int axis);
/* An `if`: a loop that runs once or not at all. */
ny_loop ny_gpu_if(ny_emit *e, ny_dim holds);
/* Multiprocessors of a device of this kind. */
int ny_gpu_processors(const ny_target *t);
/* Product of dims [from, to) where they are numbers; a symbol counts as `symbolic`. */
int64_t ny_gpu_count(const ny_type *t, int from, int to, int64_t symbolic);
/* Threads for a row of n elements (negative: symbolic) where there are `rows` rows: the fewest that hold it, more where rows are few. 1: a thread takes
   a row. `each`: elements a thread may hold; `vector`: of them adjacent. */
int ny_gpu_row_threads(ny_dim n, int64_t rows, int each, int vector);

/* The templates of contractions; the emit has begun. NYB_E_UNSUPPORTED: not for them. */
nyb_status ny_gpu_matmul(ny_emit *e, const ny_op *op); /* op: matmul, or a conv with kernel and strides of 1 and one group */
nyb_status ny_gpu_conv(ny_emit *e, const ny_op *op);
nyb_status ny_gpu_attention(ny_emit *e, const ny_op *op);
#endif
