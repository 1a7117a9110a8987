/* One weight: its target, 16 rows at a time through block.c, and what came of it. Layers with the same inputs share a
 * factor. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant.h"

static void *zeroed(size_t n, size_t size) {
  void *p = NULL;
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes) || posix_memalign(&p, 64, bytes + 64)) return NULL;
  return memset(p, 0, bytes + 64);
}
#define ZEROED(type, n) ((type *)zeroed((size_t)(n), sizeof(type)))

static nyb_status no_memory(ny_diag *d, const char *what, int64_t k) {
  return ny_fail(d, NYB_E_NOMEM, NULL, "out of memory: %s of %lld inputs", what, (long long)k);
}

/* ---- statistics */
nyb_status ny_stats_new(int64_t k, bool asym, ny_stats *out, ny_diag *d) {
  *out = (ny_stats){.k = k, .h = ZEROED(double, k *k), .cross = asym ? ZEROED(double, k *k) : NULL};
  out->mean_q = ZEROED(double, k), out->mean_f = ZEROED(double, k);
  if (out->h && (out->cross || !asym) && out->mean_q && out->mean_f) return NYB_OK;
  ny_stats_free(out);
  return no_memory(d, "calibration", k);
}

void ny_stats_free(ny_stats *s) {
  free(s->h), free(s->cross), free(s->mean_q), free(s->mean_f);
  *s = (ny_stats){0};
}

static void add_means(const float *x, int64_t rows, int64_t k, double *sum) {
  for (int64_t t = 0; t < rows; t++)
    for (int64_t j = 0; j < k; j++) sum[j] += (double)x[t * k + j];
}

void ny_stats_add(ny_stats *s, ny_pool *pool, const float *q, const float *f, int64_t rows) {
  const int64_t k = s->k;
  s->rows += rows;
  add_means(q, rows, k, s->mean_q);
  add_means(f ? f : q, rows, k, s->mean_f);
  ny_atb(pool, q, k, q, k, rows, k, k, true, s->h, k);
  float *diff = f && s->cross ? ZEROED(float, rows *k) : NULL;
  if (!diff) return; /* without a difference there is nothing to add; without memory the shift is only weaker */
  for (int64_t i = 0; i < rows * k; i++) diff[i] = f[i] - q[i];
  ny_atb(pool, diff, k, q, k, rows, k, k, false, s->cross, k);
  free(diff);
}

/* ---- factor */
static void centre(const ny_stats *s, double *h, double *cross) {
  const int64_t k = s->k;
  double n = s->rows ? (double)s->rows : 1;
  for (int64_t i = 0; i < k; i++)
    for (int64_t j = 0; j < k; j++) {
      h[i * k + j] -= s->mean_q[i] * s->mean_q[j] / n;
      if (cross) cross[i * k + j] -= (s->mean_f[i] - s->mean_q[i]) * s->mean_q[j] / n;
    }
}

/* Inputs that are never there get the mean of the others, so that they hurt nobody. */
static void damp(double *h, int64_t k, double part) {
  double mean = 0;
  for (int64_t i = 0; i < k; i++) mean += h[i * k + i] / (double)k;
  if (!(mean > 0)) mean = 1;
  for (int64_t i = 0; i < k; i++) {
    double *x = &h[i * k + i];
    *x = (*x > 1e-10 * mean ? *x : mean) + part * mean;
  }
}

/* D inverse(H): U gives it in two products, D transposed. */
static bool shift_of(ny_factor *f, const double *cross, ny_pool *pool) {
  const int64_t k = f->k;
  float *ut = ZEROED(float, k *k), *dt = ZEROED(float, k *k);
  double *z = ZEROED(double, k *k), *m = ZEROED(double, k *k);
  bool ok = ut && dt && z && m && (f->shift = ZEROED(float, k *k));
  for (int64_t i = 0; ok && i < k; i++)
    for (int64_t j = 0; j < k; j++) ut[j * k + i] = f->u[i * k + j], dt[j * k + i] = (float)cross[i * k + j];
  if (ok) {
    ny_atb(pool, ut, k, dt, k, k, k, k, false, z, k);
    for (int64_t i = 0; i < k * k; i++) dt[i] = (float)z[i];
    ny_atb(pool, dt, k, f->u, k, k, k, k, false, m, k);
    for (int64_t i = 0; i < k * k; i++) f->shift[i] = (float)m[i];
  }
  free(ut), free(dt), free(z), free(m);
  return ok;
}

static double *means(const double *sum, const ny_stats *s) {
  double *m = ZEROED(double, s->k);
  for (int64_t i = 0; m && i < s->k; i++) m[i] = sum[i] / (double)(s->rows ? s->rows : 1);
  return m;
}

nyb_status ny_factor_new(const ny_stats *s, const ny_recipe *r, ny_pool *pool, ny_factor *out, ny_diag *d) {
  const int64_t k = s->k;
  bool asym = r->asym && s->cross, ok = true;
  double *h = ZEROED(double, k *k), *cross = asym ? ZEROED(double, k *k) : NULL;
  *out = (ny_factor){.k = k, .h = ZEROED(float, k *k), .u = ZEROED(float, k *k)};
  if (r->bias) out->mean_q = means(s->mean_q, s), out->mean_f = means(s->mean_f, s);
  if (!h || (asym && !cross) || !out->h || !out->u || (r->bias && !(out->mean_q && out->mean_f))) {
    free(h), free(cross);
    ny_factor_free(out);
    return no_memory(d, "calibration", k);
  }
  for (int64_t i = 0; i < k; i++)
    for (int64_t j = i; j < k; j++) h[i * k + j] = h[j * k + i] = s->h[i * k + j];
  if (asym) memcpy(cross, s->cross, sizeof *cross * (size_t)(k * k));
  if (r->bias) centre(s, h, cross);
  damp(h, k, r->damping);
  for (int64_t i = 0; i < k * k; i++) out->h[i] = (float)h[i];
  bool definite = ny_inverse_factor(pool, h, k, out->u);
  if (definite && asym) ok = shift_of(out, cross, pool);
  free(h), free(cross);
  if (definite && ok) return NYB_OK;
  ny_factor_free(out);
  return definite
             ? no_memory(d, "calibration", k)
             : ny_fail(
                   d, NYB_E_ARGUMENT, NULL,
                   "the calibration data has values that are no numbers, or too large, where %lld inputs meet a weight",
                   (long long)k);
}

void ny_factor_free(ny_factor *f) {
  free(f->h), free(f->u), free(f->shift), free(f->mean_q), free(f->mean_f);
  *f = (ny_factor){0};
}

/* ---- one weight */
typedef struct job {
  const ny_weight *w;
  const ny_recipe *recipe;
  const ny_factor *f;
  ny_quantized *q;
  const double *shift; /* [k][n], or NULL */
  struct sums {
    double d2, w2, dh, wh;
  } * sums; /* per panel */
  bool failed;
} job;

static float original(const ny_weight *w, int64_t i, int64_t j) { return w->w[i * w->n_stride + j * w->k_stride]; }

static float target(const job *q, int64_t i, int64_t j) {
  float x = original(q->w, i, j);
  return q->shift ? x + (float)q->shift[j * q->w->n + i] : x;
}

/* Rows past the end are zeros. */
static void fill(const job *q, int64_t row, float *w) {
  for (int64_t j = 0; j < q->w->k; j++)
    for (int l = 0; l < NY_LANES; l++) w[j * NY_LANES + l] = row + l < q->w->n ? target(q, row + l, j) : 0;
}

static void store(const job *q, int64_t row, const ny_panel *p) {
  const ny_weight *w = q->w;
  int64_t n = w->n - row < NY_LANES ? w->n - row : NY_LANES;
  for (int64_t j = 0; j < w->k; j++)
    for (int l = 0; l < n; l++) q->q->r[(row + l) * w->n_stride + j * w->k_stride] = p->r[j * NY_LANES + l];
  for (int64_t b = 0; b < q->q->n_blocks; b++)
    for (int l = 0; l < n; l++) q->q->scale[b * w->n + row + l] = p->s[b * NY_LANES + l];
  for (int l = 0; q->q->bias && l < n; l++) {
    double sum = 0;
    for (int64_t j = 0; j < w->k; j++)
      sum += (double)original(w, row + l, j) * q->f->mean_f[j] - (double)p->r[j * NY_LANES + l] * q->f->mean_q[j];
    q->q->bias[row + l] = (float)sum;
  }
}

/* How far from the weights as they were: of them, and of the outputs. */
static void measure(const job *q, int64_t row, ny_panel *p) {
  struct sums *s = &q->sums[row / NY_LANES];
  for (int64_t j = 0; j < q->w->k; j++)
    for (int l = 0; l < NY_LANES; l++) {
      float *w = &p->w[j * NY_LANES + l], *d = &p->t[j * NY_LANES + l];
      *w = row + l < q->w->n ? original(q->w, row + l, j) : 0;
      *d = *w - p->r[j * NY_LANES + l];
      s->w2 += (double)*w * (double)*w, s->d2 += (double)*d * (double)*d;
    }
  if (!p->h) return;
  s->dh = ny_panel_quadratic(p->h, q->w->k, p->t, p->g);
  s->wh = ny_panel_quadratic(p->h, q->w->k, p->w, p->g);
}

static void panels(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  job *q = user;
  const int64_t k = q->w->k, line = k * NY_LANES;
  float *room = ZEROED(float, line * 5 + NY_LANES * ny_blocks_count(&q->q->blocks));
  if (!room) {
    __atomic_store_n(&q->failed, true, __ATOMIC_RELAXED);
    return;
  }
  for (int64_t i = begin; i < end; i++) {
    ny_panel p = {.scheme = q->q->scheme,
                  .recipe = q->recipe,
                  .blocks = q->q->blocks,
                  .ts = q->q->ts,
                  .u = q->f ? q->f->u : NULL,
                  .h = q->f ? q->f->h : NULL,
                  .w = room,
                  .r = room + line,
                  .g = room + 2 * line,
                  .t = room + 3 * line,
                  .s = room + 4 * line};
    fill(q, i * NY_LANES, p.w);
    ny_panel_quantize(&p);
    store(q, i * NY_LANES, &p);
    measure(q, i * NY_LANES, &p);
  }
  free(room);
}

static nyb_status check(const ny_weight *w, ny_diag *d) {
  for (int64_t i = 0; i < w->n; i++)
    for (int64_t j = 0; j < w->k; j++)
      if (!isfinite(original(w, i, j)))
        return ny_fail(d, NYB_E_ARGUMENT, NULL, "weight %s: element (%lld, %lld) is %g, which has no quantised form",
                       w->name, (long long)i, (long long)j, (double)original(w, i, j));
  return NYB_OK;
}

static float tensor_scale(const job *q) {
  const ny_scheme *s = q->q->scheme;
  float amax = 0;
  if (!s->tensor) return 1;
  for (int64_t i = 0; i < q->w->n; i++)
    for (int64_t j = 0; j < q->w->k; j++) amax = fmaxf(amax, fabsf(target(q, i, j)));
  /* With the choice between 6 and 4, scales may be half again as large as usual. */
  float top = q->recipe->candidates == NY_CAND_FOUR ? 256 : 448;
  float ts = (float)((double)amax / ((double)s->grid.max * (double)top));
  return ts >= 0x1p-126f ? ts : 1;
}

static void finish(job *q, int64_t n_panels) {
  struct sums t = {0};
  for (int64_t i = 0; i < n_panels; i++)
    t.d2 += q->sums[i].d2, t.w2 += q->sums[i].w2, t.dh += q->sums[i].dh, t.wh += q->sums[i].wh;
  q->q->mse = t.w2 > 0 ? t.d2 / t.w2 : 0;
  q->q->error = t.wh > 0 ? t.dh / t.wh : q->q->mse;
}

static double *shift_for(const ny_weight *w, const ny_factor *f, ny_pool *pool) {
  float *wt = ZEROED(float, w->k * w->n);
  double *out = ZEROED(double, w->k * w->n);
  for (int64_t j = 0; wt && j < w->k; j++)
    for (int64_t i = 0; i < w->n; i++) wt[j * w->n + i] = original(w, i, j);
  if (wt && out) ny_atb(pool, f->shift, w->k, wt, w->n, w->k, w->k, w->n, false, out, w->n);
  free(wt);
  return out;
}

nyb_status ny_quantize(const ny_weight *w, const ny_scheme *scheme, const ny_recipe *recipe, const ny_factor *f,
                       ny_pool *pool, ny_quantized *out, ny_diag *d) {
  *out = (ny_quantized){.scheme = scheme,
                        .n = w->n,
                        .k = w->k,
                        .blocks = {w->k, scheme->block ? w->run : w->k, scheme->block ? scheme->block : NY_MAX_BLOCK}};
  if (ny_recipe_needs_data(recipe) && !f)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "weight %s: this recipe needs calibration data", w->name);
  NY_TRY(check(w, d));
  int64_t n_panels = (w->n + NY_LANES - 1) / NY_LANES, n_blocks = ny_blocks_count(&out->blocks);
  out->n_blocks = scheme->block ? n_blocks : 1;
  out->scale = ZEROED(float, n_blocks * w->n), out->r = ZEROED(float, w->n * w->k);
  job q = {w, recipe, f, out, f && f->shift ? shift_for(w, f, pool) : NULL, ZEROED(struct sums, n_panels), false};
  if (recipe->bias) out->bias = ZEROED(float, w->n);
  bool ok = out->scale && out->r && q.sums && (!recipe->bias || out->bias) && (!f || !f->shift || q.shift);
  if (ok) {
    out->ts = tensor_scale(&q);
    ny_pool_run(pool, panels, &q, n_panels, 1);
    finish(&q, n_panels);
  }
  free(q.sums), free((void *)(uintptr_t)q.shift);
  if (ok && !q.failed) return NYB_OK;
  ny_quantized_free(out);
  return no_memory(d, "a weight", w->k);
}

void ny_quantized_free(ny_quantized *q) {
  free(q->scale), free(q->r), free(q->bias);
  q->scale = q->r = q->bias = NULL;
}

static int64_t block_of(const ny_quantized *q, int64_t j) {
  int64_t per = (q->blocks.run + q->blocks.size - 1) / q->blocks.size;
  return q->scheme->block ? j / q->blocks.run * per + j % q->blocks.run / q->blocks.size : 0;
}

void ny_quantized_codes(const ny_quantized *q, const ny_weight *w, uint8_t *out) {
  ny_fmt f = q->scheme->code;
  for (int64_t i = 0; i < q->n; i++)
    for (int64_t j = 0; j < q->k; j++) {
      int64_t at = i * w->n_stride + j * w->k_stride;
      float x = ny_snap(&q->scheme->grid, q->r[at] / q->scale[block_of(q, j) * q->n + i]);
      if (ny_is_float(f))
        ny_put_f(f, out, (uint64_t)at, (double)x, true);
      else
        ny_put_i(f, out, (uint64_t)at, (int64_t)x);
    }
}

void ny_quantized_scales(const ny_quantized *q, const ny_weight *w, uint8_t *out) {
  bool inputs_first = w->n_stride == 1;
  for (int64_t b = 0; b < q->n_blocks; b++)
    for (int64_t i = 0; i < q->n; i++)
      ny_put_f(q->scheme->scale, out, (uint64_t)(inputs_first ? b * q->n + i : i * q->n_blocks + b),
               (double)(q->scale[b * q->n + i] / q->ts), true);
}
