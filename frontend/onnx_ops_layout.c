/* Operators that rearrange: Tile, DepthToSpace and back, CenterCropPad, Col2Im, Upsample. */
#include "onnx.h"

#include <math.h>
#include <string.h>

/* Product of the sizes from..to. */
static ny_dim span(ny_node *n, const ny_value *x, int from, int to) {
  ny_dim p = 1;
  for (int i = from; i < to; i++) p = ny_dim_mul(n->cx, p, ny_size(x, i));
  return p;
}

/* x `times` times in a row along axis. */
static ny_value *tile_axis(ny_node *n, ny_value *x, int axis, ny_dim times) {
  ny_type t = *x->type;
  ny_dim before = span(n, x, 0, axis), after = span(n, x, axis, ny_rank(x));
  t.dim[axis] = ny_dim_mul(n->cx, t.dim[axis], times);
  ny_value *y = ny_reshape_to(n, x, 3, (ny_dim[]){before, 1, after});
  y = y ? ny_b_broadcast(&n->b, y, 3, (ny_dim[]){before, times, after}) : NULL;
  return y ? ny_reshape_to(n, y, t.rank, t.dim) : NULL;
}

nyb_status ny_op_tile(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_dim times[NY_MAX_RANK];
  int count;
  if (!x || !ny_node_dims(n, 1, times, NY_MAX_RANK, &count)) return ny_failed(n);
  if (count != ny_rank(x)) return ny_node_fail(n, NYB_E_SHAPE, "%d repeats for a tensor of rank %d", count, ny_rank(x));
  for (int i = 0; i < count && x; i++) {
    int64_t k;
    if (ny_dim_is_const(n->cx, times[i], &k) && k < 0)
      return ny_node_fail(n, NYB_E_SHAPE, "repeats hold %lld", (long long)k);
    if (times[i] != 1) x = tile_axis(n, x, i, times[i]);
  }
  return ny_out(n, 0, x);
}

static bool block_of(ny_node *n, const ny_value *x, int64_t *block) {
  *block = ny_attr_int(n, "blocksize", 0);
  if (ny_rank(x) == 4 && *block > 0 && *block < 1 << 20) return true;
  ny_node_fail(n, NYB_E_SHAPE, "blocksize %lld for a tensor of rank %d", (long long)*block, ny_rank(x));
  return false;
}

nyb_status ny_op_depth_to_space(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int64_t b, c;
  if (!x || !block_of(n, x, &b) || !ny_need_static(n, x, 1, "the number of channels", &c)) return ny_failed(n);
  if (c % (b * b))
    return ny_node_fail(n, NYB_E_SHAPE, "%lld channels do not split into blocks of %lld x %lld", (long long)c,
                        (long long)b, (long long)b);
  ny_dim N = ny_size(x, 0), h = ny_size(x, 2), w = ny_size(x, 3), depth = c / (b * b);
  bool crd = !strcmp(ny_attr_string(n, "mode", "DCR"), "CRD");
  ny_value *y = crd ? ny_reshape_to(n, x, 6, (ny_dim[]){N, depth, b, b, h, w})
                    : ny_reshape_to(n, x, 6, (ny_dim[]){N, b, b, depth, h, w});
  y = y ? ny_b_transpose(&n->b, y, crd ? (int[]){0, 1, 4, 2, 5, 3} : (int[]){0, 3, 4, 1, 5, 2}) : NULL;
  ny_dim bd = ny_dim_const(n->cx, b);
  return y ? ny_out(n, 0,
                    ny_reshape_to(n, y, 4, (ny_dim[]){N, depth, ny_dim_mul(n->cx, h, bd), ny_dim_mul(n->cx, w, bd)}))
           : ny_failed(n);
}

nyb_status ny_op_space_to_depth(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int64_t b, h, w;
  if (!x || !block_of(n, x, &b) || !ny_need_static(n, x, 2, "the height", &h) ||
      !ny_need_static(n, x, 3, "the width", &w))
    return ny_failed(n);
  if (h % b || w % b)
    return ny_node_fail(n, NYB_E_SHAPE, "%lld x %lld does not split into blocks of %lld", (long long)h, (long long)w,
                        (long long)b);
  ny_dim N = ny_size(x, 0), c = ny_size(x, 1);
  bool crd = !strcmp(ny_attr_string(n, "mode", "DCR"), "CRD");
  ny_value *y = ny_reshape_to(n, x, 6, (ny_dim[]){N, c, h / b, b, w / b, b});
  y = y ? ny_b_transpose(&n->b, y, crd ? (int[]){0, 1, 3, 5, 2, 4} : (int[]){0, 3, 5, 1, 2, 4}) : NULL;
  return y ? ny_out(
                 n, 0,
                 ny_reshape_to(n, y, 4, (ny_dim[]){N, ny_dim_mul(n->cx, c, ny_dim_const(n->cx, b * b)), h / b, w / b}))
           : ny_failed(n);
}

/* Crops or zero-pads each axis around its middle; an odd element goes to the end. */
nyb_status ny_op_center_crop_pad(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_dim want[NY_MAX_RANK];
  int count, n_axes;
  const int64_t *axes = ny_attr_ints(n, "axes", &n_axes);
  if (!x || !ny_node_dims(n, 1, want, NY_MAX_RANK, &count)) return ny_failed(n);
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
  return x ? ny_out(n, 0, ny_b_pad(&n->b, x, NULL, lo, hi, NULL, "constant")) : ny_failed(n);
}

/* ---- Col2Im: for each position in the block, its columns are spread by the strides into an image; the images add up.
 */
typedef struct im {
  int rank; /* spatial dims */
  int64_t image[NY_MAX_RANK], block[NY_MAX_RANK], stride[NY_MAX_RANK], dilation[NY_MAX_RANK], lo[NY_MAX_RANK],
      hi[NY_MAX_RANK], cols[NY_MAX_RANK];
  int64_t n_block, n_cols;
} im;

static bool im_of(ny_node *n, im *m) {
  int count, ns, nd, np;
  const int64_t *s = ny_attr_ints(n, "strides", &ns), *d = ny_attr_ints(n, "dilations", &nd),
                *p = ny_attr_ints(n, "pads", &np);
  if (!ny_node_ints(n, 1, m->image, NY_MAX_RANK - 2, &m->rank) ||
      !ny_node_ints(n, 2, m->block, NY_MAX_RANK - 2, &count))
    return false;
  int r = m->rank;
  if (count != r || (ns && ns != r) || (nd && nd != r) || (np && np != 2 * r) || r < 1)
    return ny_node_fail(n, NYB_E_SHAPE, "image_shape and block_shape have %d and %d sizes", r, count), false;
  m->n_block = m->n_cols = 1;
  for (int i = 0; i < r; i++) {
    m->stride[i] = ns ? s[i] : 1, m->dilation[i] = nd ? d[i] : 1, m->lo[i] = np ? p[i] : 0,
    m->hi[i] = np ? p[r + i] : 0;
    bool sane =
        m->image[i] >= 0 && m->block[i] > 0 && m->stride[i] > 0 && m->dilation[i] > 0 && m->lo[i] >= 0 && m->hi[i] >= 0;
    int64_t limit = 1 << 20;
    if (!sane || m->image[i] > limit || m->block[i] > 256 || m->stride[i] > limit || m->dilation[i] > limit ||
        m->lo[i] > limit || m->hi[i] > limit)
      return ny_node_fail(n, NYB_E_SHAPE, "image %lld, block %lld on axis %d", (long long)m->image[i],
                          (long long)m->block[i], i),
             false;
    int64_t room = m->image[i] + m->lo[i] + m->hi[i] - (m->dilation[i] * (m->block[i] - 1) + 1);
    if (room < 0) return ny_node_fail(n, NYB_E_SHAPE, "the block does not fit the image on axis %d", i), false;
    m->cols[i] = room / m->stride[i] + 1;
    m->n_block *= m->block[i], m->n_cols *= m->cols[i];
    if (m->n_block > 4096 || m->n_cols > 1 << 24)
      return ny_node_fail(n, NYB_E_LIMIT, "a block of %lld elements", (long long)m->n_block), false;
  }
  return true;
}

/* The columns of block element `at` ([N, C, cols...]) placed in the padded image. */
static ny_value *placed(ny_node *n, const im *m, ny_value *x, int64_t at) {
  ny_dim lo[NY_MAX_RANK] = {0}, hi[NY_MAX_RANK] = {0}, gap[NY_MAX_RANK] = {0},
         shape[NY_MAX_RANK] = {ny_size(x, 0), ny_size(x, 1)};
  for (int i = m->rank - 1; i >= 0; i--) {
    int64_t k = at % m->block[i];
    at /= m->block[i];
    gap[i + 2] = m->stride[i] - 1;
    lo[i + 2] = k * m->dilation[i];
    hi[i + 2] = m->image[i] + m->lo[i] + m->hi[i] - lo[i + 2] - ((m->cols[i] - 1) * m->stride[i] + 1);
    shape[i + 2] = m->cols[i];
  }
  ny_value *y = ny_reshape_to(n, x, m->rank + 2, shape);
  return y ? ny_b_pad(&n->b, y, NULL, lo, hi, gap, "constant") : NULL;
}

nyb_status ny_op_col2im(ny_node *n) {
  ny_value *x = ny_need(n, 0), *sum = NULL;
  im m;
  int64_t planes, cols;
  if (!x || !im_of(n, &m)) return ny_failed(n);
  if (ny_rank(x) != 3 || !ny_need_static(n, x, 1, "the number of planes", &planes) ||
      !ny_need_static(n, x, 2, "the number of columns", &cols))
    return ny_rank(x) == 3 ? ny_failed(n) : ny_node_fail(n, NYB_E_SHAPE, "the input has rank %d, not 3", ny_rank(x));
  if (planes % m.n_block || cols != m.n_cols)
    return ny_node_fail(n, NYB_E_SHAPE, "%lld x %lld columns do not fit blocks of %lld and %lld places",
                        (long long)planes, (long long)cols, (long long)m.n_block, (long long)m.n_cols);
  x = ny_reshape_to(n, x, 4, (ny_dim[]){ny_size(x, 0), planes / m.n_block, m.n_block, cols});
  for (int64_t k = 0; k < m.n_block && x; k++) {
    ny_value *part = placed(n, &m, ny_squeeze_at(n, ny_slice_axis(n, x, 2, k, 1), 2), k);
    sum = sum && part ? ny_ew2(n, NY_add, sum, part) : part;
    if (!sum) return ny_failed(n);
  }
  if (!sum) return ny_failed(n);
  ny_dim start[NY_MAX_RANK] = {0}, size[NY_MAX_RANK] = {ny_size(sum, 0), ny_size(sum, 1)};
  for (int i = 0; i < m.rank; i++) start[i + 2] = m.lo[i], size[i + 2] = m.image[i];
  return ny_out(n, 0, ny_b_slice(&n->b, sum, start, NULL, size));
}

/* ---- Upsample: output i reads input i/scale, rounded down or interpolated. */
static ny_value *upsample_axis(ny_node *n, ny_value *x, int axis, double scale, bool linear) {
  int64_t have;
  if (!ny_need_static(n, x, axis, "a size to scale", &have)) return NULL;
  double exact = floor((double)have * scale);
  if (!(scale > 0) || !(exact < 1 << 24))
    return ny_node_fail(n, NYB_E_SHAPE, "scale %g of size %lld", scale, (long long)have), NULL;
  int64_t want = (int64_t)exact, shape[NY_MAX_RANK];
  int64_t *lo = NY_NEW_ARRAY(n->tmp, int64_t, want + 1), *hi = NY_NEW_ARRAY(n->tmp, int64_t, want + 1);
  double *part = NY_NEW_ARRAY(n->tmp, double, want + 1);
  for (int64_t i = 0; i < want; i++) {
    double at = fmin((double)i / scale, (double)(have - 1));
    lo[i] = (int64_t)at, part[i] = at - (double)lo[i];
    hi[i] = lo[i] + 1 < have ? lo[i] + 1 : lo[i];
  }
  ny_value *a = ny_const_ints(n, NY_i64, 1, &want, lo);
  a = a ? ny_b_gather(&n->b, x, a, axis) : NULL;
  if (!linear || !a) return a;
  for (int i = 0; i < ny_rank(x); i++) shape[i] = i == axis ? want : 1;
  ny_value *b = ny_const_ints(n, NY_i64, 1, &want, hi), *w = ny_const_floats(n, ny_fmt_of(x), ny_rank(x), shape, part);
  b = b ? ny_b_gather(&n->b, x, b, axis) : NULL;
  return a && b && w ? ny_ew2(n, NY_add, a, ny_ew2(n, NY_mul, ny_ew2(n, NY_sub, b, a), w)) : NULL;
}

nyb_status ny_op_upsample(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  const char *mode = ny_attr_string(n, "mode", "nearest");
  double scale[NY_MAX_RANK];
  int count;
  if (!x) return ny_failed(n);
  bool linear = !strcmp(mode, "linear") || !strcmp(mode, "bilinear");
  if (!linear && strcmp(mode, "nearest")) return ny_node_fail(n, NYB_E_UNSUPPORTED, "mode is \"%s\"", mode);
  if (n->version < 9) {
    const double *s = ny_attr_floats(n, "scales", &count);
    for (int i = 0; i < count && i < NY_MAX_RANK; i++) scale[i] = s[i];
  } else {
    ny_tensor t;
    int64_t k = 0;
    if (!ny_need(n, 1)) return ny_failed(n);
    if (!ny_onnx_const(n, 1, &t) || !ny_type_static_count(n->cx, t.type, &k))
      return ny_node_fail(n, NYB_E_UNSUPPORTED, "the scales are not constants");
    count = k > NY_MAX_RANK ? NY_MAX_RANK + 1 : (int)k;
    for (int i = 0; i < count && i < NY_MAX_RANK; i++) scale[i] = ny_get_f((ny_fmt)t.type->fmt, t.data, (uint64_t)i);
  }
  if (count != ny_rank(x)) return ny_node_fail(n, NYB_E_SHAPE, "%d scales for rank %d", count, ny_rank(x));
  for (int i = 0; i < count && x; i++)
    if (scale[i] != 1) x = upsample_axis(n, x, i, scale[i], linear);
  return ny_out(n, 0, x);
}
