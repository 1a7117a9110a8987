/* Operators that rearrange: Tile, DepthToSpace and back, CenterCropPad, Col2Im. */
#include "onnx.h"
#include "onnx_conv.h"

/* x `times` times in a row along axis. */
static ny_value *tile_axis(ny_node *n, ny_value *x, int axis, ny_dim times) {
  ny_type t = *x->type;
  ny_dim before = ny_product(n, t.dim, axis), after = ny_product(n, t.dim + axis, t.rank - axis);
  t.dim[axis] = ny_dim_mul(n->cx, t.dim[axis], times);
  ny_value *y = ny_reshape_to(n, x, 3, (ny_dim[]){before, 1, after});
  return ny_reshape_to(n, ny_b_broadcast(&n->b, y, 3, (ny_dim[]){before, times, after}), t.rank, t.dim);
}

nyb_status ny_op_tile(ny_node *n) {
  ny_value *x = n->in[0];
  ny_dim times[NY_MAX_RANK];
  int count;
  if (!ny_node_dims(n, 1, times, NY_MAX_RANK, &count)) return ny_failed(n);
  if (count != ny_rank(x)) return ny_node_fail(n, NYB_E_SHAPE, "%d repeats for a tensor of rank %d", count, ny_rank(x));
  for (int i = 0; i < count && x; i++) {
    int64_t k;
    if (ny_dim_is_const(n->cx, times[i], &k) && k < 0)
      return ny_node_fail(n, NYB_E_SHAPE, "repeats hold %lld", (long long)k);
    if (times[i] != 1) x = tile_axis(n, x, i, times[i]);
  }
  return ny_out(n, 0, x);
}

/* The block size, which must divide what is split into blocks: channels, or sizes of the image; 0 after failing. */
static int64_t block_of(ny_node *n, const ny_value *x, int first, int last, bool squared) {
  int64_t b = ny_attr_int(n, "blocksize", 0), size;
  if (ny_rank(x) != 4 || b < 1 || b > 1 << 20)
    return ny_refuse(n, NYB_E_SHAPE, "blocksize %lld for a tensor of rank %d", (long long)b, ny_rank(x));
  for (int i = first; i <= last; i++) {
    if (!ny_need_static(n, x, i, "a size that is split into blocks", &size)) return 0;
    if (size % (squared ? b * b : b))
      return ny_refuse(n, NYB_E_SHAPE, "size %lld on axis %d does not split into blocks of %lld x %lld",
                       (long long)size, i, (long long)b, (long long)b);
  }
  return b;
}

nyb_status ny_op_depth_to_space(ny_node *n) {
  ny_value *x = n->in[0];
  int64_t b = block_of(n, x, 1, 1, true);
  int crd = ny_attr_choice(n, "mode", "DCR", "DCR|CRD");
  if (!b || crd < 0) return ny_failed(n);
  ny_dim N = ny_size(x, 0), h = ny_size(x, 2), w = ny_size(x, 3), depth = ny_size(x, 1) / (b * b);
  ny_value *y = ny_reshape_to(n, x, 6, crd ? (ny_dim[]){N, depth, b, b, h, w} : (ny_dim[]){N, b, b, depth, h, w});
  y = ny_b_transpose(&n->b, y, crd ? (int[]){0, 1, 4, 2, 5, 3} : (int[]){0, 3, 4, 1, 5, 2});
  return ny_out(n, 0, ny_reshape_to(n, y, 4, (ny_dim[]){N, depth, ny_dim_mul(n->cx, h, b), ny_dim_mul(n->cx, w, b)}));
}

nyb_status ny_op_space_to_depth(ny_node *n) {
  ny_value *x = n->in[0];
  int64_t b = block_of(n, x, 2, 3, false);
  int crd = ny_attr_choice(n, "mode", "DCR", "DCR|CRD");
  if (!b || crd < 0) return ny_failed(n);
  ny_dim N = ny_size(x, 0), c = ny_size(x, 1), h = ny_size(x, 2) / b, w = ny_size(x, 3) / b;
  ny_value *y = ny_reshape_to(n, x, 6, (ny_dim[]){N, c, h, b, w, b});
  y = ny_b_transpose(&n->b, y, crd ? (int[]){0, 1, 3, 5, 2, 4} : (int[]){0, 3, 5, 1, 2, 4});
  return ny_out(n, 0, ny_reshape_to(n, y, 4, (ny_dim[]){N, ny_dim_mul(n->cx, c, b * b), h, w}));
}

/* Crops or zero-pads each axis around its middle; an odd element goes to the end. */
nyb_status ny_op_center_crop_pad(ny_node *n) {
  ny_value *x = n->in[0];
  ny_dim want[NY_MAX_RANK];
  int count, n_axes;
  const int64_t *axes = ny_attr_ints(n, "axes", &n_axes);
  if (!ny_node_dims(n, 1, want, NY_MAX_RANK, &count)) return ny_failed(n);
  int rank = ny_rank(x);
  if (count != (n_axes ? n_axes : rank))
    return ny_node_fail(n, NYB_E_SHAPE, "%d sizes for %d axes", count, n_axes ? n_axes : rank);
  ny_dim lo[NY_MAX_RANK] = {0}, hi[NY_MAX_RANK] = {0}, start[NY_MAX_RANK] = {0}, size[NY_MAX_RANK];
  for (int i = 0; i < rank; i++) size[i] = ny_size(x, i);
  for (int i = 0; i < count; i++) {
    int a;
    int64_t have, to;
    if (!ny_axis(n, n_axes ? axes[i] : i, rank, &a)) return ny_failed(n);
    if (want[i] == ny_size(x, a)) continue;
    if (!ny_need_static(n, x, a, "the size to crop or pad", &have)) return ny_failed(n);
    if (!ny_dim_is_const(n->cx, want[i], &to) || to < 0)
      return ny_node_fail(n, NYB_E_UNSUPPORTED, "the size wanted on axis %d is not a constant", a);
    if (to < have)
      start[a] = (have - to) / 2, size[a] = to;
    else
      lo[a] = (to - have) / 2, hi[a] = to - have - (to - have) / 2;
  }
  x = ny_b_slice(&n->b, x, start, NULL, size);
  return ny_out(n, 0, ny_b_pad(&n->b, x, NULL, lo, hi, NULL, "constant"));
}

/* ---- Col2Im: for each position in the block, its columns are spread by the strides into an image; the images add up.
 */
typedef struct im {
  ny_window w; /* w.kernel is the block */
  int64_t image[NY_MAX_RANK], padded[NY_MAX_RANK], cols[NY_MAX_RANK];
  int64_t n_block, n_cols;
} im;

static bool im_of(ny_node *n, im *m) {
  enum { MOST = 1 << 20 };
  int count, r;
  if (!ny_node_ints(n, 1, m->image, NY_MAX_RANK - 2, &r) || !ny_node_ints(n, 2, m->w.kernel, NY_MAX_RANK - 2, &count))
    return false;
  if (count != r || r < 1)
    return ny_refuse(n, NYB_E_SHAPE, "image_shape and block_shape have %d and %d sizes", r, count);
  m->w.spatial = r;
  m->n_block = m->n_cols = 1;
  for (int i = 0; i < r; i++)
    if (m->image[i] < 0 || m->image[i] > MOST || m->w.kernel[i] < 1 || m->w.kernel[i] > 256)
      return ny_refuse(n, NYB_E_SHAPE, "image %lld, block %lld on axis %d", (long long)m->image[i],
                       (long long)m->w.kernel[i], i);
  if (!ny_window_lists(n, &m->w)) return false;
  for (int i = 0; i < r; i++) {
    m->padded[i] = m->image[i] + m->w.lo[i] + m->w.hi[i];
    int64_t room = m->padded[i] - (m->w.dilation[i] * (m->w.kernel[i] - 1) + 1);
    if (room < 0) return ny_refuse(n, NYB_E_SHAPE, "the block does not fit the image on axis %d", i);
    m->cols[i] = room / m->w.stride[i] + 1;
    if (m->cols[i] > MOST) return ny_refuse(n, NYB_E_LIMIT, "%lld columns on axis %d", (long long)m->cols[i], i);
    m->n_block *= m->w.kernel[i], m->n_cols *= m->cols[i];
    if (m->n_block > 4096 || m->n_cols > 1 << 24)
      return ny_refuse(n, NYB_E_LIMIT, "a block of %lld elements", (long long)m->n_block);
  }
  return true;
}

/* The columns of block element `at` ([N, C, cols...]) placed in the padded image. */
static ny_value *placed(ny_node *n, const im *m, ny_value *x, int64_t at) {
  ny_dim lo[NY_MAX_RANK] = {0}, hi[NY_MAX_RANK] = {0}, gap[NY_MAX_RANK] = {0}, shape[NY_MAX_RANK] = {0};
  if (!x) return NULL;
  shape[0] = ny_size(x, 0), shape[1] = ny_size(x, 1);
  for (int i = m->w.spatial - 1; i >= 0; at /= m->w.kernel[i--]) {
    gap[i + 2] = m->w.stride[i] - 1;
    lo[i + 2] = at % m->w.kernel[i] * m->w.dilation[i];
    hi[i + 2] = m->padded[i] - lo[i + 2] - ((m->cols[i] - 1) * m->w.stride[i] + 1);
    shape[i + 2] = m->cols[i];
  }
  return ny_b_pad(&n->b, ny_reshape_to(n, x, m->w.spatial + 2, shape), NULL, lo, hi, gap, "constant");
}

nyb_status ny_op_col2im(ny_node *n) {
  ny_value *x = n->in[0], *sum = NULL;
  im m = {0};
  int64_t planes, cols;
  if (ny_rank(x) != 3) return ny_node_fail(n, NYB_E_SHAPE, "the input has rank %d, not 3", ny_rank(x));
  if (!im_of(n, &m) || !ny_need_static(n, x, 1, "the number of planes", &planes) ||
      !ny_need_static(n, x, 2, "the number of columns", &cols))
    return ny_failed(n);
  if (planes % m.n_block || cols != m.n_cols)
    return ny_node_fail(n, NYB_E_SHAPE, "%lld x %lld columns do not fit blocks of %lld and %lld places",
                        (long long)planes, (long long)cols, (long long)m.n_block, (long long)m.n_cols);
  x = ny_reshape_to(n, x, 4, (ny_dim[]){ny_size(x, 0), planes / m.n_block, m.n_block, cols});
  for (int64_t k = 0; k < m.n_block; k++) {
    ny_value *part = placed(n, &m, ny_squeeze_at(n, ny_slice_axis(n, x, 2, k, 1), 2), k);
    sum = k ? ny_ew2(n, NY_add, sum, part) : part;
  }
  if (!sum) return ny_failed(n);
  ny_dim start[NY_MAX_RANK] = {0}, size[NY_MAX_RANK] = {ny_size(sum, 0), ny_size(sum, 1)};
  for (int i = 0; i < m.w.spatial; i++) start[i + 2] = m.w.lo[i], size[i + 2] = m.image[i];
  return ny_out(n, 0, ny_b_slice(&n->b, sum, start, NULL, size));
}
