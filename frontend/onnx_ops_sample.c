/* Sampling at computed positions: GridSample, DeformConv, RoiAlign, AffineGrid. An image is laid out [batch, positions,
   channels]; a sample is the sum over its taps (1 nearest, 2 linear, 4 cubic an axis) of a gathered row times a weight.
 */
#include "onnx.h"
#include "onnx_conv.h"

#include <math.h>
#include <string.h>

enum { MAX_AXES = 3 };
typedef enum padding { ZEROS, BORDER, REFLECTION } padding;
typedef struct image {
  ny_value *rows; /* [batch, positions, channels] */
  int axes, taps;
  int64_t size[MAX_AXES];
  double lo[MAX_AXES], hi[MAX_AXES]; /* what reflects */
  padding pad;
} image;

static ny_value *clamp(ny_node *n, ny_value *x, double lo, double hi) {
  return ny_ew2s(n, NY_min, ny_ew2s(n, NY_max, x, lo), hi);
}

/* x folded back and forth between lo and hi. */
static ny_value *reflect(ny_node *n, ny_value *x, double lo, double hi) {
  double span = hi - lo;
  if (!(span > 0)) return clamp(n, x, lo, hi);
  ny_value *d = ny_ew1(n, NY_abs, ny_ew2s(n, NY_sub, x, lo));
  ny_value *m = ny_ew2s(n, NY_rem, d, 2 * span);
  ny_value *back = ny_ew2(n, NY_sub, ny_num(n, m, 2 * span), m);
  return ny_ew2s(n, NY_add, ny_ew2(n, NY_min, m, back), lo);
}

/* A coordinate outside the image, before the taps are taken. */
static ny_value *inside(ny_node *n, const image *im, ny_value *x, int axis) {
  double lo = im->lo[axis], hi = im->hi[axis];
  if (im->pad == ZEROS || !x) return x;
  ny_value *out = ny_ew2(n, NY_or, ny_ew2s(n, NY_lt, x, lo), ny_ew2s(n, NY_gt, x, hi));
  ny_value *with = im->pad == BORDER ? clamp(n, x, 0, (double)(im->size[axis] - 1)) : reflect(n, x, lo, hi);
  return ny_where(n, out, with, x);
}

/* Weight of tap t for a fraction in 0..1. */
static ny_value *tap_weight(ny_node *n, ny_value *frac, int taps, int t) {
  if (taps == 1 || !frac) return NULL;
  ny_value *one = ny_num(n, frac, 1), *rest = ny_ew2(n, NY_sub, one, frac);
  if (taps == 2) return t ? frac : rest;
  const double a = -0.75;
  ny_value *d = t == 0 ? ny_ew2s(n, NY_add, frac, 1) : t == 1 ? frac : t == 2 ? rest : ny_ew2s(n, NY_add, rest, 1);
  if (t == 1 || t == 2) { /* ((a+2) d - (a+3)) d^2 + 1 */
    ny_value *p = ny_ew2s(n, NY_sub, ny_ew2s(n, NY_mul, d, a + 2), a + 3);
    return ny_ew2s(n, NY_add, ny_ew2(n, NY_mul, ny_ew2(n, NY_mul, p, d), d), 1);
  }
  ny_value *p = ny_ew2s(n, NY_sub, ny_ew2s(n, NY_mul, d, a), 5 * a); /* ((a d - 5a) d + 8a) d - 4a */
  p = ny_ew2s(n, NY_add, ny_ew2(n, NY_mul, p, d), 8 * a);
  return ny_ew2s(n, NY_sub, ny_ew2(n, NY_mul, p, d), 4 * a);
}

typedef struct tap {
  ny_value *at, *valid, *weight; /* i64 position; bool or NULL; NULL: 1 */
} tap;

static bool taps_of(ny_node *n, const image *im, ny_value *x, int axis, tap out[4]) {
  x = inside(n, im, x, axis);
  ny_value *low = im->taps == 1 ? x : ny_ew1(n, NY_floor, x);
  ny_value *frac = im->taps == 1 ? NULL : ny_ew2(n, NY_sub, x, low);
  double last = (double)(im->size[axis] - 1);
  for (int t = 0; t < im->taps; t++) {
    ny_value *i = ny_ew2s(n, NY_add, low, im->taps == 4 ? t - 1 : t);
    out[t] = (tap){.weight = tap_weight(n, frac, im->taps, t)};
    if (im->pad == ZEROS) out[t].valid = ny_ew2(n, NY_and, ny_ew2s(n, NY_ge, i, 0), ny_ew2s(n, NY_le, i, last));
    if (im->pad == REFLECTION) i = ny_ew1(n, NY_trunc, reflect(n, i, im->lo[axis], im->hi[axis]));
    out[t].at = ny_cast_to(n, clamp(n, i, 0, last), NY_i64);
    if (!out[t].at) return false;
  }
  return true;
}

/* The row at position `at` [batch, points] of each image: [batch, points, channels]. */
static ny_value *rows_at(ny_node *n, const image *im, ny_value *at) {
  ny_op *op = ny_op_of(n, NY_gather_nd, (ny_value *[]){im->rows, ny_unsqueeze_at(n, at, 2)}, 2);
  if (op) op->attr[NY_AT(gather_nd, batch)].i = 1;
  return ny_infer(n, op);
}

static ny_value *both(ny_node *n, ny_kind k, ny_value *a, ny_value *b) {
  return a && b ? ny_ew2(n, k, a, b) : a ? a : b;
}

/* Samples at coord[axis] [batch, points], in pixels: [batch, points, channels]. */
static ny_value *sample(ny_node *n, const image *im, ny_value *const *coord) {
  tap taps[MAX_AXES][4];
  int combos = 1;
  ny_value *sum = NULL;
  for (int i = 0; i < im->axes; i++, combos *= im->taps)
    if (!taps_of(n, im, coord[i], i, taps[i])) return NULL;
  for (int c = 0; c < combos; c++) {
    ny_value *at = NULL, *valid = NULL, *weight = NULL;
    for (int i = 0, rest = c; i < im->axes; i++, rest /= im->taps) {
      const tap *t = &taps[i][rest % im->taps];
      at = at ? ny_ew2(n, NY_add, ny_ew2s(n, NY_mul, at, (double)im->size[i]), t->at) : t->at;
      valid = both(n, NY_and, valid, t->valid);
      weight = both(n, NY_mul, weight, t->weight);
    }
    ny_value *v = rows_at(n, im, at);
    if (valid) v = ny_where(n, ny_unsqueeze_at(n, valid, 2), v, ny_num(n, v, 0));
    if (v && weight) v = ny_ew2(n, NY_mul, v, ny_cast_to(n, ny_unsqueeze_at(n, weight, 2), ny_fmt_of(v)));
    if (!v) return NULL;
    sum = both(n, NY_add, sum, v);
  }
  return sum;
}

/* [n, c, sizes...] -> [n, positions, c] */
static ny_value *rows_of(ny_node *n, ny_value *x) {
  ny_dim many = ny_product(n, x->type->dim + 2, ny_rank(x) - 2);
  x = ny_reshape_to(n, x, 3, (ny_dim[]){ny_size(x, 0), ny_size(x, 1), many});
  return ny_b_transpose(&n->b, x, (int[]){0, 2, 1});
}

static bool read_mode(ny_node *n, image *im) {
  static const int taps[] = {1, 2, 2, 4, 4};
  int pad = ny_attr_choice(n, "padding_mode", "zeros", "zeros|border|reflection");
  int mode =
      ny_attr_choice(n, "mode", n->version < 20 ? "bilinear" : "linear", "nearest|linear|bilinear|cubic|bicubic");
  if (pad < 0 || mode < 0) return false;
  im->pad = (padding)pad;
  im->taps = taps[mode];
  return true;
}

nyb_status ny_op_grid_sample(ny_node *n) {
  ny_value *x = n->in[0], *grid = n->in[1], *coord[MAX_AXES];
  image im = {0};
  bool corners = ny_attr_int(n, "align_corners", 0) != 0;
  if (!read_mode(n, &im)) return ny_failed(n);
  im.axes = ny_rank(x) - 2;
  int64_t width;
  if (im.axes < 1 || im.axes > MAX_AXES || ny_rank(grid) != ny_rank(x))
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "an input of rank %d with a grid of rank %d", ny_rank(x), ny_rank(grid));
  if (!ny_need_static(n, grid, im.axes + 1, "the width of the grid", &width)) return ny_failed(n);
  if (width != im.axes)
    return ny_node_fail(n, NYB_E_SHAPE, "grid points of %lld numbers for %d axes", (long long)width, im.axes);
  for (int i = 0; i < im.axes; i++) {
    if (!ny_need_static(n, x, i + 2, "a size to sample", &im.size[i])) return ny_failed(n);
    if (im.size[i] < 1) return ny_node_fail(n, NYB_E_SHAPE, "axis %d to sample is empty", i + 2);
    im.lo[i] = corners ? 0 : -0.5;
    im.hi[i] = (double)im.size[i] - (corners ? 1 : 0.5);
  }
  ny_dim points = ny_product(n, grid->type->dim + 1, im.axes), shape[NY_MAX_RANK] = {ny_size(x, 0), ny_size(x, 1)};
  for (int i = 0; i < im.axes; i++) shape[i + 2] = ny_size(grid, i + 1);
  ny_value *g = ny_reshape_to(n, grid, 3, (ny_dim[]){ny_size(grid, 0), points, im.axes});
  g = ny_cast_to(n, g, ny_wide(ny_fmt_of(grid)));
  if (!g) return ny_failed(n);
  for (int i = 0; i < im.axes; i++) { /* the last axis comes first in a grid point */
    ny_value *v = ny_ew2s(n, NY_add, ny_squeeze_at(n, ny_slice_axis(n, g, 2, im.axes - 1 - i, 1), 2), 1);
    double size = (double)im.size[i];
    v = corners ? ny_ew2s(n, NY_mul, ny_ew2s(n, NY_mul, v, 0.5), size - 1)
                : ny_ew2s(n, NY_mul, ny_ew2s(n, NY_sub, ny_ew2s(n, NY_mul, v, size), 1), 0.5);
    coord[i] = im.taps == 1 ? ny_ew1(n, NY_round, v) : v;
  }
  im.rows = rows_of(n, x);
  return ny_out(n, 0, ny_reshape_to(n, ny_matrix_transpose(n, sample(n, &im, coord)), im.axes + 2, shape));
}

/* ---- DeformConv: sample every kernel position at its offset, then one matmul a group */
typedef struct deform {
  ny_window w;
  int64_t c, m, size[2], out[2], group, og;
} deform;

static bool deform_of(ny_node *n, deform *d) {
  const ny_value *x = n->in[0], *w = n->in[1], *offset = n->in[2];
  d->group = ny_attr_int(n, "group", 1), d->og = ny_attr_int(n, "offset_group", 1);
  if (ny_rank(x) != 4 || ny_rank(w) != 4 || ny_rank(offset) != 4)
    return ny_refuse(n, NYB_E_UNSUPPORTED, "only images of two dimensions are supported");
  if (!ny_need_static(n, x, 1, "the number of channels", &d->c) ||
      !ny_need_static(n, w, 0, "the number of filters", &d->m))
    return false;
  for (int i = 0; i < 2; i++)
    if (!ny_need_static(n, x, i + 2, "the size of the image", &d->size[i]) ||
        !ny_need_static(n, w, i + 2, "the kernel", &d->w.kernel[i]) ||
        !ny_need_static(n, offset, i + 2, "the size of the offsets", &d->out[i]))
      return false;
  d->w.spatial = 2;
  if (!ny_window_lists(n, &d->w)) return false;
  bool ok = d->group > 0 && d->og > 0 && d->c % d->group == 0 && d->c % d->og == 0 && d->m % d->group == 0 &&
            d->size[0] > 0 && d->size[1] > 0;
  return ok || ny_refuse(n, NYB_E_SHAPE, "%lld channels in %lld groups and %lld offset groups", (long long)d->c,
                         (long long)d->group, (long long)d->og);
}

/* Pixel coordinates on one axis: [batch*og, k*k*out*out]. */
static ny_value *deform_coord(ny_node *n, const deform *d, ny_value *offset, int axis, ny_dim points) {
  int64_t kk = d->w.kernel[0] * d->w.kernel[1], cells = d->out[0] * d->out[1], shape[4] = {1, kk, d->out[0], d->out[1]};
  double *base = NY_NEW_ARRAY(n->tmp, double, kk *cells + 1);
  for (int64_t i = 0; i < kk * cells; i++) {
    int64_t k = i / cells, o = i % cells;
    int64_t ki = axis ? k % d->w.kernel[1] : k / d->w.kernel[1], oi = axis ? o % d->out[1] : o / d->out[1];
    base[i] = (double)(oi * d->w.stride[axis] - d->w.lo[axis] + ki * d->w.dilation[axis]);
  }
  ny_dim batch = ny_dim_mul(n->cx, ny_size(offset, 0), ny_dim_const(n->cx, d->og));
  ny_value *o = ny_reshape_to(n, offset, 5, (ny_dim[]){batch, kk, 2, d->out[0], d->out[1]});
  o = ny_squeeze_at(n, ny_slice_axis(n, o, 2, axis, 1), 2);
  ny_value *at = ny_ew2(n, NY_add, o, ny_const_floats(n, ny_fmt_of(offset), 4, shape, base));
  return ny_reshape_to(n, at, 2, (ny_dim[]){batch, points});
}

nyb_status ny_op_deform_conv(ny_node *n) {
  ny_value *x = n->in[0], *offset = n->in[2], *bias = ny_opt(n, 3), *mask = ny_opt(n, 4);
  deform d = {0};
  if (!deform_of(n, &d)) return ny_failed(n);
  int64_t kk = d.w.kernel[0] * d.w.kernel[1], cells = d.out[0] * d.out[1], cg = d.c / d.group, co = d.c / d.og;
  ny_dim N = ny_size(x, 0), batch = ny_dim_mul(n->cx, N, ny_dim_const(n->cx, d.og)), points = kk * cells;
  image im = {.axes = 2, .taps = 2, .pad = ZEROS, .size = {d.size[0], d.size[1]}};
  im.rows = ny_reshape_to(n, x, 3, (ny_dim[]){batch, co, d.size[0] * d.size[1]});
  im.rows = ny_matrix_transpose(n, im.rows);
  ny_value *coord[2] = {deform_coord(n, &d, offset, 0, points), deform_coord(n, &d, offset, 1, points)};
  ny_value *v = sample(n, &im, coord);
  if (mask) v = ny_ew2(n, NY_mul, v, ny_reshape_to(n, mask, 3, (ny_dim[]){batch, points, 1}));
  v = ny_matrix_transpose(n, v); /* [n*og, c/og, kk*cells] */
  v = ny_reshape_to(n, v, 4, (ny_dim[]){N, d.group, cg * kk, cells});
  ny_value *f = ny_reshape_to(n, n->in[1], 3, (ny_dim[]){d.group, d.m / d.group, cg * kk});
  ny_value *y = ny_reshape_to(n, ny_b_matmul(&n->b, f, v), 4, (ny_dim[]){N, d.m, d.out[0], d.out[1]});
  return ny_out(n, 0, bias ? ny_ew2(n, NY_add, y, ny_along(n, bias, 1, 4)) : y);
}

/* ---- RoiAlign: a fixed number of samples a bin; each is bilinear, clamped to the image, 0 when far outside */
typedef struct roi_axis {
  ny_value *low, *high, *frac, *valid; /* [rois, bins*samples] */
} roi_axis;

static bool roi_axis_of(ny_node *n, ny_value *rois, int column, int64_t size, int64_t bins, int64_t samples,
                        roi_axis *a) {
  bool half = n->version >= 16 &&
              !ny_attr_choice(n, "coordinate_transformation_mode", "half_pixel", "half_pixel|output_half_pixel");
  double scale = ny_attr_float(n, "spatial_scale", 1), offset = half ? 0.5 : 0;
  int64_t many = bins * samples, shape[2] = {1, many};
  double *at = NY_NEW_ARRAY(n->tmp, double, many + 1);
  for (int64_t i = 0; i < many; i++) at[i] = (double)(i / samples) + ((double)(i % samples) + 0.5) / (double)samples;
  ny_value *from = ny_ew2s(n, NY_sub, ny_ew2s(n, NY_mul, ny_slice_axis(n, rois, 1, column, 1), scale), offset);
  ny_value *to = ny_ew2s(n, NY_sub, ny_ew2s(n, NY_mul, ny_slice_axis(n, rois, 1, column + 2, 1), scale), offset);
  ny_value *span = ny_ew2(n, NY_sub, to, from);
  if (!half) span = ny_ew2s(n, NY_max, span, 1);
  ny_value *bin = ny_ew2s(n, NY_div, span, (double)bins);
  ny_value *x = ny_ew2(n, NY_add, from, ny_ew2(n, NY_mul, bin, ny_const_floats(n, ny_fmt_of(rois), 2, shape, at)));
  a->valid = ny_ew2(n, NY_and, ny_ew2s(n, NY_ge, x, -1), ny_ew2s(n, NY_le, x, (double)size));
  x = clamp(n, x, 0, (double)(size - 1));
  a->low = ny_ew1(n, NY_floor, x);
  a->frac = ny_ew2(n, NY_sub, x, a->low);
  a->high = ny_ew2s(n, NY_min, ny_ew2s(n, NY_add, a->low, 1), (double)(size - 1));
  return a->valid && a->high && a->frac;
}

/* One corner of every sample: rows [rois, ys, xs, c] times weight. */
static ny_value *roi_corner(ny_node *n, ny_value *rows, ny_value *base, const roi_axis *y, const roi_axis *x,
                            int64_t width, int corner) {
  ny_value *iy = ny_unsqueeze_at(n, ny_cast_to(n, corner & 2 ? y->high : y->low, NY_i64), 2);
  ny_value *ix = ny_unsqueeze_at(n, ny_cast_to(n, corner & 1 ? x->high : x->low, NY_i64), 1);
  ny_value *wy = corner & 2 ? y->frac : ny_ew2(n, NY_sub, ny_num(n, y->frac, 1), y->frac);
  ny_value *wx = corner & 1 ? x->frac : ny_ew2(n, NY_sub, ny_num(n, x->frac, 1), x->frac);
  ny_value *at = ny_ew2(n, NY_add, ny_ew2(n, NY_add, ny_ew2s(n, NY_mul, iy, (double)width), ix), base);
  ny_value *w = ny_ew2(n, NY_mul, ny_unsqueeze_at(n, wy, 2), ny_unsqueeze_at(n, wx, 1));
  ny_value *valid = ny_ew2(n, NY_and, ny_unsqueeze_at(n, y->valid, 2), ny_unsqueeze_at(n, x->valid, 1));
  w = ny_where(n, valid, w, ny_num(n, w, 0));
  return ny_ew2(n, NY_mul, ny_b_gather(&n->b, rows, at, 0), ny_unsqueeze_at(n, w, 3));
}

nyb_status ny_op_roi_align(ny_node *n) {
  ny_value *x = n->in[0], *rois = n->in[1], *which = n->in[2];
  int64_t oh = ny_attr_int(n, "output_height", 1), ow = ny_attr_int(n, "output_width", 1),
          s = ny_attr_int(n, "sampling_ratio", 0), h, w;
  int max = ny_attr_choice(n, "mode", "avg", "avg|max");
  if (ny_rank(x) != 4 || ny_rank(rois) != 2 || oh < 1 || ow < 1 || oh > 4096 || ow > 4096 || s > 64)
    return ny_node_fail(n, NYB_E_SHAPE, "output %lld x %lld of rank %d", (long long)oh, (long long)ow, ny_rank(x));
  if (s < 1) return ny_node_fail(n, NYB_E_UNSUPPORTED, "sampling_ratio 0 makes the number of samples depend on data");
  if (max < 0 || !ny_need_static(n, x, 2, "the height", &h) || !ny_need_static(n, x, 3, "the width", &w))
    return ny_failed(n);
  roi_axis ya, xa;
  if (!roi_axis_of(n, rois, 1, h, oh, s, &ya) || !roi_axis_of(n, rois, 0, w, ow, s, &xa)) return ny_failed(n);
  ny_dim many = ny_dim_mul(n->cx, ny_size(x, 0), ny_dim_const(n->cx, h * w)), r = ny_size(rois, 0), c = ny_size(x, 1);
  ny_value *rows = ny_b_transpose(&n->b, x, (int[]){0, 2, 3, 1}), *sum = NULL;
  rows = ny_reshape_to(n, rows, 2, (ny_dim[]){many, c});
  ny_value *base = ny_ew2s(n, NY_mul, ny_cast_to(n, which, NY_i64), (double)(h * w));
  base = ny_reshape_to(n, base, 3, (ny_dim[]){r, 1, 1});
  for (int i = 0; i < 4; i++) {
    ny_value *v = roi_corner(n, rows, base, &ya, &xa, w, i);
    sum = i ? ny_ew2(n, max ? NY_max : NY_add, sum, v) : v;
  }
  sum = ny_reshape_to(n, sum, 6, (ny_dim[]){r, oh, s, ow, s, c});
  ny_value *y = ny_b_reduce(&n->b, max ? "max" : "sum", sum, (int[]){2, 4}, 2, false);
  if (!max) y = ny_ew2s(n, NY_div, y, (double)(s * s));
  return ny_out(n, 0, ny_b_transpose(&n->b, y, (int[]){0, 3, 1, 2}));
}

/* ---- AffineGrid: theta times the homogeneous coordinates of every cell, in f64 because they cancel around 0 */
nyb_status ny_op_affine_grid(ny_node *n) {
  ny_value *theta = n->in[0];
  int64_t size[5];
  int count;
  bool corners = ny_attr_int(n, "align_corners", 0) != 0;
  if (!ny_node_ints(n, 1, size, 5, &count)) return ny_failed(n);
  if (count < 4 || ny_rank(theta) != 3)
    return ny_node_fail(n, NYB_E_SHAPE, "size has %d numbers, theta rank %d", count, ny_rank(theta));
  int axes = count - 2;
  int64_t cells = 1;
  for (int i = 2; i < count; i++) {
    if (size[i] < 1 || size[i] > 1 << 16 || cells > (1 << 26) / size[i])
      return ny_node_fail(n, NYB_E_LIMIT, "a grid of %lld on axis %d", (long long)size[i], i);
    cells *= size[i];
  }
  int64_t shape[2] = {cells, axes + 1};
  double *at = NY_NEW_ARRAY(n->tmp, double, cells *(axes + 1));
  for (int64_t i = 0; i < cells; i++) {
    int64_t rest = i;
    for (int a = axes - 1; a >= 0; a--) { /* the last axis is x, the first coordinate */
      int64_t k = size[a + 2];
      double step = corners ? 2.0 / (double)(k - 1) : 2.0 / (double)k;
      at[i * (axes + 1) + (axes - 1 - a)] = (corners ? -1 : -1 + step / 2) + (rest % k ? (double)(rest % k) * step : 0);
      rest /= k;
    }
    at[i * (axes + 1) + axes] = 1;
  }
  ny_value *grid = ny_const_floats(n, NY_f64, 2, shape, at);
  ny_value *y = ny_b_matmul(&n->b, grid, ny_matrix_transpose(n, ny_cast_to(n, theta, NY_f64)));
  ny_dim out[5] = {ny_size(theta, 0)};
  for (int i = 0; i < axes; i++) out[i + 1] = size[i + 2];
  out[axes + 1] = axes;
  return ny_out(n, 0, ny_reshape_to(n, ny_cast_to(n, y, ny_fmt_of(theta)), axes + 2, out));
}
