/* Rows of inputs as a weight meets them: those of a product as they are, those of a convolution window by window in the
 * order of its weight. */
#include <stdlib.h>
#include <string.h>

#include "qmodel.h"

enum { CHUNK = 512 };
typedef struct windows {
  int rank; /* spatial */
  int64_t in[NY_MAX_RANK], out[NY_MAX_RANK], kernel[NY_MAX_RANK], stride[NY_MAX_RANK], dilation[NY_MAX_RANK];
  int64_t channels, images, per_image; /* windows of an image */
} windows;

static int64_t entry(const ny_attr *list, int i) { return list->dims.n ? list->dims.v[i] : 1; }

static bool windows_of(const ny_layer *l, const nyb_tensor *x, windows *w) {
  const ny_op *op = l->op;
  *w = (windows){.rank = x->ndim - 2, .channels = x->shape[x->ndim - 1], .images = x->shape[0], .per_image = 1};
  int64_t k = w->channels;
  for (int i = 0; i < w->rank; i++) {
    w->in[i] = x->shape[i + 1];
    w->kernel[i] = entry(&op->attr[NY_AT(conv, kernel)], i);
    w->stride[i] = entry(&op->attr[NY_AT(conv, stride)], i);
    w->dilation[i] = entry(&op->attr[NY_AT(conv, dilation)], i);
    w->out[i] = (w->in[i] - w->dilation[i] * (w->kernel[i] - 1) - 1) / w->stride[i] + 1;
    if (w->out[i] < 0) w->out[i] = 0;
    w->per_image *= w->out[i];
    k *= w->kernel[i];
  }
  return k == l->weight.k;
}

/* Window number t of the tensor, tap by tap. */
static void window(const windows *w, const float *x, int64_t t, float *out) {
  int64_t at[NY_MAX_RANK], tap[NY_MAX_RANK] = {0}, rest = t % w->per_image, image = w->channels, taps = 1;
  for (int i = w->rank - 1; i >= 0; i--) {
    at[i] = rest % w->out[i] * w->stride[i];
    rest /= w->out[i];
    image *= w->in[i];
    taps *= w->kernel[i];
  }
  x += t / w->per_image * image;
  for (int64_t n = 0; n < taps; n++, out += w->channels) {
    int64_t p = 0;
    for (int i = 0; i < w->rank; i++) p = p * w->in[i] + at[i] + tap[i] * w->dilation[i];
    memcpy(out, x + p * w->channels, sizeof *out * (size_t)w->channels);
    for (int i = w->rank - 1; i >= 0 && ++tap[i] == w->kernel[i]; i--) tap[i] = 0;
  }
}

static nyb_status add_windows(ny_stats *s, ny_pool *pool, const ny_layer *l, const nyb_tensor *f, const nyb_tensor *q,
                              ny_diag *d) {
  windows w;
  if (!windows_of(l, f, &w))
    return ny_fail(d, NYB_E_INTERNAL, l->op->loc, "a convolution meets inputs of another size");
  float *room = malloc(sizeof *room * CHUNK * 2 * (size_t)s->k);
  if (!room) return ny_fail(d, NYB_E_NOMEM, NULL, "out of memory");
  float *rq = room + CHUNK * s->k;
  int64_t total = w.images * w.per_image;
  for (int64_t t = 0; t < total; t += CHUNK) {
    int64_t n = total - t < CHUNK ? total - t : CHUNK;
    for (int64_t i = 0; i < n; i++) {
      window(&w, f->data, t + i, room + i * s->k);
      if (q) window(&w, q->data, t + i, rq + i * s->k);
    }
    ny_stats_add(s, pool, q ? rq : room, q ? room : NULL, n);
  }
  free(room);
  return NYB_OK;
}

nyb_status ny_stats_add_layer(ny_stats *s, ny_pool *pool, const ny_layer *l, const nyb_tensor *f, const nyb_tensor *q,
                              ny_diag *d) {
  if (l->op->kind == NY_conv) return add_windows(s, pool, l, f, q, d);
  int64_t rows = 1;
  for (int i = 0; i + 1 < f->ndim; i++) rows *= f->shape[i];
  if (!f->ndim || f->shape[f->ndim - 1] != s->k)
    return ny_fail(d, NYB_E_INTERNAL, l->op->loc, "a product meets inputs of another size");
  for (int64_t t = 0; t < rows; t += CHUNK) { /* sums of f32 stay short */
    int64_t n = rows - t < CHUNK ? rows - t : CHUNK;
    const float *x = (const float *)f->data + t * s->k;
    ny_stats_add(s, pool, q ? (const float *)q->data + t * s->k : x, q ? x : NULL, n);
  }
  return NYB_OK;
}
