/* Signals: DFT and STFT as one product with a matrix of cosines, window functions, the mel matrix. The matrices are
 * constants, so lengths must be. */
#include "onnx.h"

#include <math.h>

static const double pi = 3.14159265358979323846;
enum { MAX_MATRIX = 1 << 24 };

typedef struct dft {
  int64_t len, in, out;    /* transform length; samples used and given */
  int in_parts, out_parts; /* 1 real, 2 complex */
  bool inverse, onesided;
} dft;

/* Row (sample, part), column (result, part). The angle is reduced as integers so that it is exact. */
static ny_value *dft_matrix(ny_node *n, const dft *d, ny_fmt f) {
  int64_t rows = d->in * d->in_parts, cols = d->out * d->out_parts, shape[2] = {rows, cols};
  if (d->len < 1 || d->in < 0 || d->len > MAX_MATRIX || rows > MAX_MATRIX || cols > MAX_MATRIX ||
      rows * cols > MAX_MATRIX)
    return ny_refuse_value(n, NYB_E_LIMIT, "a transform of length %lld is too long for its matrix", (long long)d->len);
  double *m = NY_NEW_ARRAY(n->tmp, double, rows *cols + 1), scale = d->inverse ? 1 / (double)d->len : 1;
  for (int64_t r = 0; r < d->in; r++)
    for (int64_t c = 0; c < d->out; c++) {
      double angle = 2 * pi * (double)(r * c % d->len) / (double)d->len * (d->inverse ? 1 : -1);
      bool mirrored = d->inverse && d->onesided && r != 0 && 2 * r != d->len; /* stands for its conjugate too */
      bool real = d->inverse && d->onesided && !mirrored;
      double re = cos(angle) * scale * (mirrored ? 2 : 1), im = real ? 0 : sin(angle) * scale * (mirrored ? 2 : 1);
      double *at = m + r * d->in_parts * cols + c * d->out_parts;
      at[0] = re;
      if (d->out_parts == 2) at[1] = im;
      if (d->in_parts == 2) at[cols] = -im;
      if (d->in_parts == 2 && d->out_parts == 2) at[cols + 1] = re;
    }
  return ny_const_floats(n, f, 2, shape, m);
}

/* x [..., samples, parts] -> [..., results, parts] */
static ny_value *transformed(ny_node *n, ny_value *x, const dft *d) {
  int rank = ny_rank(x);
  ny_fmt f = ny_fmt_of(x), wide = f == NY_f64 ? f : NY_f32;
  ny_dim flat[NY_MAX_RANK], shape[NY_MAX_RANK];
  x = ny_slice_axis(n, x, rank - 2, 0, d->in);
  if (!x) return NULL;
  for (int i = 0; i < rank; i++) flat[i] = shape[i] = ny_size(x, i);
  flat[rank - 2] = d->in * d->in_parts;
  shape[rank - 2] = d->out, shape[rank - 1] = d->out_parts;
  x = ny_cast_to(n, ny_reshape_to(n, x, rank - 1, flat), wide);
  if (x && rank == 2) x = ny_unsqueeze_at(n, x, 0);
  ny_value *y = ny_b_matmul(&n->b, x, dft_matrix(n, d, wide));
  return ny_cast_to(n, ny_reshape_to(n, y, rank, shape), f);
}

/* Length and parts from the size of the signal; `want` <= 0 when the length is not given. */
static bool dft_of(ny_node *n, const ny_value *x, int axis, int64_t want, dft *d) {
  int64_t size, parts;
  if (!ny_need_static(n, x, axis, "the length of the signal", &size) ||
      !ny_need_static(n, x, ny_rank(x) - 1, "the last dimension", &parts))
    return false;
  if (parts != 1 && parts != 2)
    return ny_refuse(n, NYB_E_SHAPE, "the last dimension is %lld, not 1 or 2", (long long)parts);
  bool irfft = d->inverse && d->onesided;
  d->len = want > 0 ? want : irfft ? 2 * (size - 1) : size;
  int64_t half = d->len / 2 + 1, most = irfft ? half : d->len;
  d->in = size < most ? size : most;
  d->out = d->onesided && !d->inverse ? half : d->len;
  d->in_parts = (int)parts;
  d->out_parts = irfft ? 1 : 2;
  return d->len > 0 || ny_refuse(n, NYB_E_SHAPE, "a transform of length %lld", (long long)d->len);
}

nyb_status ny_op_dft(ny_node *n) {
  ny_value *x = n->in[0];
  dft d = {.inverse = ny_attr_int(n, "inverse", 0) != 0, .onesided = ny_attr_int(n, "onesided", 0) != 0};
  int64_t len, at = ny_attr_int(n, "axis", 1);
  int axis, rank = ny_rank(x);
  if (!ny_node_int(n, 1, 0, &len) || (n->version >= 20 && !ny_node_int(n, 2, -2, &at))) return ny_failed(n);
  if (!ny_axis(n, at, rank, &axis)) return ny_failed(n);
  if (rank < 2 || axis == rank - 1)
    return ny_node_fail(n, NYB_E_SHAPE, "axis %d of rank %d is not a signal axis", axis, rank);
  if (!dft_of(n, x, axis, len, &d)) return ny_failed(n);
  ny_value *y = transformed(n, ny_move_axis(n, x, axis, rank - 2), &d);
  return ny_out(n, 0, ny_move_axis(n, y, rank - 2, axis));
}

nyb_status ny_op_stft(ny_node *n) {
  ny_value *x = n->in[0], *window = ny_opt(n, 2);
  int64_t step, len = 0, size;
  dft d = {.onesided = ny_attr_int(n, "onesided", 1) != 0};
  if (ny_rank(x) != 3) return ny_node_fail(n, NYB_E_SHAPE, "the signal has rank %d, not 3", ny_rank(x));
  if (window && ny_rank(window) != 1)
    return ny_node_fail(n, NYB_E_SHAPE, "the window has rank %d, not 1", ny_rank(window));
  if (!ny_node_int(n, 1, 0, &step) || !ny_need_static(n, x, 1, "the length of the signal", &size) ||
      (window && !ny_need_static(n, window, 0, "the length of the window", &len)))
    return ny_failed(n);
  if (!ny_node_int(n, 3, len ? len : size, &len)) return ny_failed(n);
  if (step < 1 || len < 1 || len > size)
    return ny_node_fail(n, NYB_E_SHAPE, "frames of %lld every %lld in %lld samples", (long long)len, (long long)step,
                        (long long)size);
  int64_t frames = (size - len) / step + 1, shape[2] = {frames, len};
  if (frames > MAX_MATRIX / len)
    return ny_node_fail(n, NYB_E_LIMIT, "%lld frames of %lld samples", (long long)frames, (long long)len);
  int64_t *at = NY_NEW_ARRAY(n->tmp, int64_t, frames * len);
  for (int64_t i = 0; i < frames * len; i++) at[i] = i / len * step + i % len;
  ny_value *f = ny_b_gather(&n->b, x, ny_const_ints(n, NY_i64, 2, shape, at), 1);
  if (window) f = ny_ew2(n, NY_mul, f, ny_reshape_to(n, window, 2, (ny_dim[]){len, 1}));
  if (!f || !dft_of(n, f, 2, len, &d)) return ny_failed(n);
  return ny_out(n, 0, transformed(n, f, &d));
}

/* a - b cos(2 pi i / N) + c cos(4 pi i / N). arg: 0 Hann, 1 Hamming, 2 Blackman. */
nyb_status ny_op_window(ny_node *n) {
  static const double coef[][3] = {{0.5, 0.5, 0}, {25.0 / 46, 21.0 / 46, 0}, {0.42, 0.5, 0.08}};
  int64_t size;
  ny_fmt f;
  if (!ny_node_int(n, 0, 0, &size) || !ny_attr_fmt(n, "output_datatype", NY_f32, &f)) return ny_failed(n);
  if (size < 0 || size > MAX_MATRIX) return ny_node_fail(n, NYB_E_SHAPE, "a window of %lld samples", (long long)size);
  double *w = NY_NEW_ARRAY(n->tmp, double, size + 1), len = (double)(ny_attr_int(n, "periodic", 1) ? size : size - 1);
  const double *c = coef[n->arg];
  for (int64_t i = 0; i < size; i++)
    w[i] = c[0] - c[1] * cos(2 * pi * (double)i / len) + c[2] * cos(4 * pi * (double)i / len);
  ny_value *y = ny_const_floats(n, NY_f64, 1, &size, w);
  return ny_out(n, 0, ny_cast_to(n, y, f));
}

/* Triangles between neighbouring mel frequencies, as bins of the spectrum. */
static bool mel_fill(double *m, int64_t bins, int64_t mels, const int64_t *at) {
  for (int64_t i = 0; i < mels; i++) {
    int64_t lo = at[i], mid = at[i + 1], hi = at[i + 2];
    if (lo < 0 || hi > bins || mid >= bins || mid < lo || hi < mid) return false;
    if (mid == lo)
      m[mid * mels + i] = 1;
    else
      for (int64_t j = lo; j <= mid; j++) m[j * mels + i] = (double)(j - lo) / (double)(mid - lo);
    for (int64_t j = mid; j < hi; j++) m[j * mels + i] = (double)(hi - j) / (double)(hi - mid);
  }
  return true;
}

nyb_status ny_op_mel_weights(ny_node *n) {
  double in[5];
  ny_fmt f;
  for (int i = 0; i < 5; i++)
    if (!ny_node_scalar(n, i, 0, &in[i])) return ny_failed(n);
  if (!ny_attr_fmt(n, "output_datatype", NY_f32, &f)) return ny_failed(n);
  if (!(in[0] >= 1 && in[0] < 65536 && in[1] >= 1 && in[1] < 65536 && in[2] > 0 && in[3] >= 0 && in[4] > in[3]))
    return ny_node_fail(n, NYB_E_SHAPE, "%g mel bins of a transform of %g at %g Hz from %g to %g Hz", in[0], in[1],
                        in[2], in[3], in[4]);
  int64_t mels = (int64_t)in[0], len = (int64_t)in[1], bins = len / 2 + 1, shape[2] = {bins, mels};
  if (bins > MAX_MATRIX / mels)
    return ny_node_fail(n, NYB_E_LIMIT, "a matrix of %lld x %lld", (long long)bins, (long long)mels);
  double lo = 2595 * log1p(in[3] / 700) / log(10), hi = 2595 * log1p(in[4] / 700) / log(10),
         step = (hi - lo) / (double)(mels + 2);
  int64_t *at = NY_NEW_ARRAY(n->tmp, int64_t, mels + 2);
  for (int64_t i = 0; i < mels + 2; i++)
    at[i] = (int64_t)floor((double)(len + 1) * (700 * expm1(((double)i * step + lo) / 2595 * log(10))) / in[2]);
  double *m = NY_NEW_ARRAY(n->tmp, double, bins *mels);
  if (!mel_fill(m, bins, mels, at))
    return ny_node_fail(n, NYB_E_SHAPE, "%g Hz lies beyond the %lld bins of the spectrum", in[4], (long long)bins);
  ny_value *y = ny_const_floats(n, NY_f64, 2, shape, m);
  return ny_out(n, 0, ny_cast_to(n, y, f));
}
