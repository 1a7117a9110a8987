/* Resize and Upsample, its name before opset 10, one axis after the other. Each result is a weighted sum of `taps`
   neighbours along the axis: positions and weights are computed by IR ops from an iota, in f64, and fold to constants
   where sizes are static. Nearest by a whole factor is a broadcast and costs nothing. */
#include <math.h>
#include <string.h>
#include "onnx.h"

typedef enum coord {
  HALF_PIXEL,
  ASYMMETRIC,
  PYTORCH_HALF_PIXEL,
  ALIGN_CORNERS,
  TF_CROP,
  HALF_PIXEL_SYMMETRIC,
  TF_HALF_PIXEL_NN
} coord;
typedef enum near { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL } near;
typedef struct axis_spec {
  bool active;
  ny_dim out;
  double scale; /* 0: out / in, known only when running */
  double roi_start, roi_end;
} axis_spec;
typedef struct resize {
  ny_node *n;
  coord coord;
  near near;
  bool nearest, cubic, antialias, exclude;
  double cubic_a, extrapolation;
  axis_spec axis[NY_MAX_RANK];
} resize;

static ny_value *as_f64(ny_node *n, ny_dim d) {
  int64_t c;
  if (ny_dim_is_const(n->cx, d, &c)) return ny_b_scalar(&n->b, NY_f64, (double)c);
  return ny_cast_to(n, ny_dim_value(n, d), NY_f64);
}

static ny_value *ratio_of(const resize *r, const axis_spec *a, ny_dim in) {
  if (a->scale > 0) return ny_b_scalar(&r->n->b, NY_f64, a->scale);
  return ny_ew2(r->n, NY_div, as_f64(r->n, a->out), as_f64(r->n, in));
}

static ny_value *half_pixel(ny_node *n, ny_value *i, ny_value *scale) {
  return ny_ew2s(n, NY_add, ny_ew2(n, NY_div, ny_ew2s(n, NY_add, i, 0.5), scale), -0.5);
}

static ny_value *crop_position(const resize *r, const axis_spec *a, ny_dim in, ny_value *i) {
  ny_node *n = r->n;
  ny_value *last = ny_ew2s(n, NY_add, as_f64(n, in), -1),
           *steps = ny_ew2s(n, NY_max, ny_ew2s(n, NY_add, as_f64(n, a->out), -1), 1);
  if (a->out == 1)
    return ny_ew2(n, NY_add, ny_ew2s(n, NY_mul, i, 0), ny_ew2s(n, NY_mul, last, 0.5 * (a->roi_start + a->roi_end)));
  ny_value *slope = ny_ew2(n, NY_div, ny_ew2s(n, NY_mul, last, a->roi_end - a->roi_start), steps);
  return ny_ew2(n, NY_add, ny_ew2(n, NY_mul, i, slope), ny_ew2s(n, NY_mul, last, a->roi_start));
}

/* Where result i lies on the input axis. */
static ny_value *position(const resize *r, const axis_spec *a, ny_dim in) {
  ny_node *n = r->n;
  ny_value *i = ny_b_iota(&n->b, NY_f64, 1, &a->out, 0), *scale = ratio_of(r, a, in), *length = as_f64(n, in);
  ny_value *exact = ny_ew2(n, NY_mul, scale, length); /* the result's length before rounding down */
  switch (r->coord) {
  case HALF_PIXEL: return half_pixel(n, i, scale);
  case ASYMMETRIC: return ny_ew2(n, NY_div, i, scale);
  case PYTORCH_HALF_PIXEL: return a->out == 1 ? ny_ew2s(n, NY_mul, i, 0) : half_pixel(n, i, scale);
  case TF_HALF_PIXEL_NN: return ny_ew2(n, NY_div, ny_ew2s(n, NY_add, i, 0.5), scale);
  case TF_CROP: return crop_position(r, a, in, i);
  case ALIGN_CORNERS: {
    if (a->out == 1) return ny_ew2s(n, NY_mul, i, 0);
    ny_value *num = ny_ew2(n, NY_mul, i, ny_ew2s(n, NY_add, length, -1));
    return ny_ew2(n, NY_div, num, ny_ew2s(n, NY_add, exact, -1));
  }
  default: {
    ny_value *adjust = ny_ew2(n, NY_div, as_f64(n, a->out), exact), *center = ny_ew2s(n, NY_mul, length, 0.5);
    ny_value *offset = ny_ew2(n, NY_sub, center, ny_ew2(n, NY_mul, center, adjust));
    return ny_ew2(n, NY_add, offset, half_pixel(n, i, scale));
  }
  }
}

/* base + k as an index into the axis, held inside it; *inside tells where it was. */
static ny_value *tap_index(ny_node *n, ny_value *base, int k, ny_dim in, ny_value **inside) {
  ny_value *at = ny_ew2s(n, NY_add, base, k), *last = ny_ew2s(n, NY_add, as_f64(n, in), -1);
  ny_value *held = ny_ew2(n, NY_min, ny_ew2s(n, NY_max, at, 0), last);
  if (inside) *inside = ny_ew2(n, NY_eq, at, held);
  return ny_cast_to(n, held, NY_i64);
}

static ny_value *nearest_index(const resize *r, ny_value *x, ny_dim in) {
  ny_node *n = r->n;
  ny_value *at = r->near == PREFER_FLOOR  ? ny_ew1(n, NY_ceil, ny_ew2s(n, NY_add, x, -0.5))
                 : r->near == PREFER_CEIL ? ny_ew1(n, NY_floor, ny_ew2s(n, NY_add, x, 0.5))
                                          : ny_ew1(n, r->near == FLOOR ? NY_floor : NY_ceil, x);
  return tap_index(n, at, 0, in, NULL);
}

/* The kernel at distance d >= 0: a triangle, or Keys' cubic (1981). */
static ny_value *kernel_at(const resize *r, ny_value *d) {
  ny_node *n = r->n;
  if (!r->cubic) return ny_ew2s(n, NY_max, ny_ew2(n, NY_sub, ny_num(n, d, 1), d), 0);
  double a = r->cubic_a;
  ny_value *d2 = ny_ew2(n, NY_mul, d, d), *d3 = ny_ew2(n, NY_mul, d2, d);
  ny_value *near_part =
      ny_ew2s(n, NY_add, ny_ew2(n, NY_sub, ny_ew2s(n, NY_mul, d3, a + 2), ny_ew2s(n, NY_mul, d2, a + 3)), 1);
  ny_value *far_part = ny_ew2(n, NY_sub, ny_ew2s(n, NY_mul, d3, a), ny_ew2s(n, NY_mul, d2, 5 * a));
  far_part = ny_ew2s(n, NY_add, ny_ew2(n, NY_add, far_part, ny_ew2s(n, NY_mul, d, 8 * a)), -4 * a);
  ny_value *is_near = ny_ew2s(n, NY_le, d, 1), *is_far = ny_ew2s(n, NY_lt, d, 2), *zero = ny_num(n, d, 0);
  return ny_where(n, is_near, near_part, ny_where(n, is_far, far_part, zero));
}

enum { MAX_TAPS = 128 };
typedef struct taps {
  ny_value *index[MAX_TAPS], *weight[MAX_TAPS];
  int n;
} taps;

static bool make_taps(const resize *r, const axis_spec *a, ny_value *x, ny_dim in, taps *t) {
  ny_node *n = r->n;
  double shrink = r->antialias && a->scale > 0 && a->scale < 1 ? a->scale : 1;
  double reach = r->cubic ? 2 : 1;
  int start = (int)floor(-reach / shrink) + 1;
  t->n = 2 - 2 * start;
  if (t->n > MAX_TAPS)
    return ny_refuse(n, NYB_E_UNSUPPORTED, "antialiasing over %d neighbours, more than %d", t->n, (int)MAX_TAPS);
  ny_value *base = ny_ew2s(n, NY_add, ny_ew1(n, NY_ceil, x), -1), *part = ny_ew2(n, NY_sub, x, base), *sum = NULL;
  for (int k = 0; k < t->n; k++) {
    ny_value *inside, *off = ny_ew1(n, NY_abs, ny_ew2(n, NY_sub, ny_num(n, part, start + k), part));
    t->index[k] = tap_index(n, base, start + k, in, &inside);
    t->weight[k] = kernel_at(r, ny_ew2s(n, NY_mul, off, shrink));
    if (r->exclude) t->weight[k] = ny_where(n, inside, t->weight[k], ny_num(n, part, 0));
    sum = k ? ny_ew2(n, NY_add, sum, t->weight[k]) : t->weight[k];
  }
  bool normalise = r->exclude || shrink != 1;
  for (int k = 0; k < t->n && normalise; k++) t->weight[k] = ny_ew2(n, NY_div, t->weight[k], sum);
  return !n->cx->diag.code;
}

static ny_value *weighted(const resize *r, ny_value *v, int axis, const taps *t) {
  ny_node *n = r->n;
  ny_value *acc = NULL;
  for (int k = 0; k < t->n; k++) {
    ny_value *index = ny_fold(n, t->index[k]), *w = ny_fold(n, ny_cast_to(n, t->weight[k], ny_fmt_of(v)));
    ny_value *term = ny_ew2(n, NY_mul, ny_b_gather(&n->b, v, index, axis), ny_along(n, w, axis, ny_rank(v)));
    acc = k ? ny_ew2(n, NY_add, acc, term) : term;
  }
  return acc;
}

/* Whether nearest picks i / factor for every i: then each element is repeated. */
static bool repeats(const resize *r, const axis_spec *a) {
  double f = a->scale;
  if (!r->nearest || f < 1 || f != floor(f) || f > 1 << 20) return false;
  if (r->coord == ASYMMETRIC) return r->near == FLOOR || (r->near == PREFER_FLOOR && f == 2);
  return r->coord == HALF_PIXEL && (r->near == PREFER_FLOOR || r->near == PREFER_CEIL);
}

static ny_value *repeat(ny_node *n, ny_value *v, int axis, const axis_spec *a) {
  ny_dim d[NY_MAX_RANK + 1], s[NY_MAX_RANK];
  int rank = ny_rank(v);
  if (rank + 1 > NY_MAX_RANK) return NULL;
  for (int i = 0; i < rank; i++) s[i] = ny_size(v, i);
  for (int i = 0; i <= rank; i++)
    d[i] = i <= axis ? s[i] : i == axis + 1 ? ny_dim_const(n->cx, (int64_t)a->scale) : s[i - 1];
  ny_value *wide = ny_unsqueeze_at(n, v, axis + 1);
  s[axis] = a->out;
  return ny_reshape_to(n, ny_b_broadcast(&n->b, wide, rank + 1, d), rank, s);
}

static ny_value *one_axis(const resize *r, ny_value *v, int axis) {
  const axis_spec *a = &r->axis[axis];
  ny_node *n = r->n;
  ny_dim in = ny_size(v, axis);
  if (repeats(r, a) && ny_rank(v) < NY_MAX_RANK &&
      a->out == ny_dim_mul(n->cx, in, ny_dim_const(n->cx, (int64_t)a->scale)))
    return repeat(n, v, axis, a);
  ny_value *x = position(r, a, in), *y;
  if (!x) return NULL;
  if (r->nearest) {
    y = ny_b_gather(&n->b, v, ny_fold(n, nearest_index(r, x, in)), axis);
  } else {
    taps t = {.n = 0};
    y = make_taps(r, a, x, in, &t) ? weighted(r, v, axis, &t) : NULL;
  }
  if (r->coord != TF_CROP || !y) return y;
  ny_value *last = ny_ew2s(n, NY_add, as_f64(n, in), -1);
  ny_value *inside = ny_ew2(n, NY_and, ny_ew2s(n, NY_ge, x, 0), ny_ew2(n, NY_le, x, last));
  return ny_where(n, ny_along(n, ny_fold(n, inside), axis, ny_rank(y)), y, ny_num(n, y, r->extrapolation));
}

/* ---- Reading the node */
static bool read_modes(ny_node *n, resize *r) {
  bool first = n->version < 11; /* before there were modes: asymmetric, rounding down */
  int c = ny_attr_choice(n, "coordinate_transformation_mode", first ? "asymmetric" : "half_pixel",
                         "half_pixel|asymmetric|pytorch_half_pixel|align_corners|tf_crop_and_resize|"
                         "half_pixel_symmetric|tf_half_pixel_for_nn");
  int k = ny_attr_choice(n, "nearest_mode", first ? "floor" : "round_prefer_floor",
                         "round_prefer_floor|round_prefer_ceil|floor|ceil");
  int m = ny_attr_choice(n, "mode", "nearest", "nearest|linear|cubic");
  if (c < 0 || k < 0 || m < 0) return false;
  r->coord = (coord)c;
  r->near = (near)k;
  r->nearest = m == 0;
  r->cubic = m == 2;
  r->antialias = ny_attr_int(n, "antialias", 0) != 0;
  r->exclude = ny_attr_int(n, "exclude_outside", 0) != 0;
  r->cubic_a = ny_attr_float(n, "cubic_coeff_a", -0.75);
  r->extrapolation = ny_attr_float(n, "extrapolation_value", 0);
  return !n->cx->diag.code;
}

/* floor(size * scale) as an expression: scale must be a fraction with a small denominator when the size is a symbol. */
static bool scaled_size(ny_node *n, ny_dim in, double scale, ny_dim *out) {
  int64_t c;
  if (ny_dim_is_const(n->cx, in, &c)) {
    double v = floor((double)c * (double)(float)scale);
    if (!(v >= 0 && v < 1e12)) return ny_refuse(n, NYB_E_SHAPE, "scale %g of size %lld", scale, (long long)c);
    *out = ny_dim_const(n->cx, (int64_t)v);
    return true;
  }
  for (int64_t q = 1; q <= 64; q++) {
    double p = scale * (double)q;
    if (p != floor(p) || p > 1e9 || p <= 0) continue;
    *out = ny_dim_div(n->cx, ny_dim_mul(n->cx, in, ny_dim_const(n->cx, (int64_t)p)), ny_dim_const(n->cx, q));
    return true;
  }
  return ny_refuse(n, NYB_E_UNSUPPORTED, "scale %g of a size that is not known at import (--dim NAME=N)", scale);
}

/* not_larger, not_smaller: one scale for all axes. */
static bool keep_ratio(ny_node *n, ny_value *x, resize *r, const int *axes, int count, bool smaller) {
  double best = 0;
  int64_t in, want;
  for (int i = 0; i < count; i++) {
    if (!ny_need_static(n, x, axes[i], "a size whose ratio is kept", &in)) return false;
    if (!ny_dim_is_const(n->cx, r->axis[axes[i]].out, &want) || in < 1)
      return ny_refuse(n, NYB_E_UNSUPPORTED, "keeping the aspect ratio needs constant sizes");
    double s = (double)want / (double)in;
    best = i == 0 || (smaller ? s < best : s > best) ? s : best;
  }
  for (int i = 0; i < count; i++) {
    ny_static_size(x, axes[i], &in);
    r->axis[axes[i]].scale = best;
    r->axis[axes[i]].out = ny_dim_const(n->cx, (int64_t)floor(best * (double)in + 0.5));
  }
  return true;
}

/* Scales are an attribute of Upsample until opset 8, then input 1, then input 2 beside roi. */
static bool read_scales(ny_node *n, double *scale, int *count) {
  if (n->version >= 9) return ny_node_floats(n, n->version < 11 ? 1 : 2, scale, NY_MAX_RANK, count);
  const double *s = ny_attr_floats(n, "scales", count);
  if (*count > NY_MAX_RANK) return ny_refuse(n, NYB_E_SHAPE, "%d scales", *count);
  if (s) memcpy(scale, s, sizeof *s * (size_t)*count);
  return !n->cx->diag.code;
}

static bool read_sizes(ny_node *n, ny_value *x, resize *r, const int *axes, int count) {
  enum { STRETCH, NOT_LARGER, NOT_SMALLER };
  double scale[NY_MAX_RANK];
  ny_dim size[NY_MAX_RANK];
  int n_scale = 0, n_size = 0;
  int policy = ny_attr_choice(n, "keep_aspect_ratio_policy", "stretch", "stretch|not_larger|not_smaller");
  if (policy < 0 || !read_scales(n, scale, &n_scale)) return false;
  if (!n_scale && n->version >= 11 && !ny_node_dims(n, 3, size, NY_MAX_RANK, &n_size)) return false;
  if ((n_scale ? n_scale : n_size) != count)
    return ny_refuse(n, NYB_E_SHAPE, "%d scales and %d sizes for %d axes", n_scale, n_size, count);
  for (int i = 0; i < count; i++) {
    axis_spec *a = &r->axis[axes[i]];
    ny_dim in = ny_size(x, axes[i]);
    int64_t ci, co;
    double part = r->coord == TF_CROP ? a->roi_end - a->roi_start : 1;
    a->active = true;
    if (n_scale) {
      a->scale = scale[i];
      if (!scaled_size(n, in, scale[i] * part, &a->out)) return false;
    } else {
      a->out = size[i];
      if (ny_dim_is_const(n->cx, in, &ci) && ny_dim_is_const(n->cx, a->out, &co) && ci > 0)
        a->scale = (double)co / (double)ci;
    }
  }
  return n_scale || policy == STRETCH || keep_ratio(n, x, r, axes, count, policy == NOT_LARGER);
}

nyb_status ny_op_resize(ny_node *n) {
  ny_value *x = n->in[0];
  resize r = {.n = n};
  int64_t list[NY_MAX_RANK];
  int axes[NY_MAX_RANK], n_axes, n_roi = 0;
  double roi[2 * NY_MAX_RANK];
  if (!read_modes(n, &r) || !ny_ints_or_attr(n, -1, "axes", list, NY_MAX_RANK, &n_axes)) return ny_failed(n);
  int count = n_axes < 0 ? ny_rank(x) : n_axes;
  for (int i = 0; i < count; i++)
    if (!ny_axis(n, n_axes < 0 ? i : list[i], ny_rank(x), &axes[i])) return ny_failed(n);
  if (r.coord == TF_CROP) {
    if (!ny_node_floats(n, 1, roi, 2 * NY_MAX_RANK, &n_roi)) return ny_failed(n);
    if (n_roi != 2 * count) return ny_node_fail(n, NYB_E_SHAPE, "%d numbers in roi for %d axes", n_roi, count);
    for (int i = 0; i < count; i++) r.axis[axes[i]].roi_start = roi[i], r.axis[axes[i]].roi_end = roi[i + count];
  }
  if (!read_sizes(n, x, &r, axes, count)) return ny_failed(n);
  ny_fmt f = ny_fmt_of(x);
  ny_value *v = r.nearest || ny_is_float(f) ? x : ny_cast_to(n, x, NY_f32);
  for (int i = 0; i < ny_rank(x) && v; i++) {
    const axis_spec *a = &r.axis[i];
    bool whole = a->out == ny_size(x, i) && (a->scale == 0 || a->scale == 1);
    if (a->active && !(whole && r.coord != TF_CROP)) v = one_axis(&r, v, i);
  }
  return ny_out(n, 0, ny_cast_to(n, v, f));
}
