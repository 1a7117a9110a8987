/* The numbers of quantisation against arithmetic of their own: plain doubles, one row at a time, every candidate tried,
 * and what must hold of any result. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant.h"
#include "test.h"

enum { MAX_K = 160, MAX_N = 48 };
static ny_pool *pool;
static ny_diag diag;
static uint64_t seed = 1;

static double uniform(void) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return ((double)(seed >> 11) + 0.5) * 0x1p-53;
}
static float normal(void) { return (float)(sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform())); }

/* Inputs whose columns are related, as those of a model are. */
static void inputs(float *x, int rows, int k) {
  for (int t = 0; t < rows; t++)
    for (int j = 0; j < k; j++) x[t * k + j] = (j ? 0.7f * x[t * k + j - 1] : 0) + normal() + (j % 7 == 3 ? 2.0f : 0);
}

static void weights(float *w, int n, int k) {
  for (int i = 0; i < n * k; i++) w[i] = normal() * (i % k % 11 == 5 ? 4.0f : 0.3f);
}

static ny_recipe recipe(const char *text) {
  ny_recipe r = {0};
  ny_diag d = {0};
  CHECK_EACH(!ny_recipe_parse(text, &r, &d), "%s", d.message);
  return r;
}

/* ---- grids and scales */
static void test_grids(void) {
  for (int s = 0; s < ny_n_schemes; s++) {
    const ny_scheme *q = &ny_schemes[s];
    for (int i = 0; i < 200000; i++) {
      float x = i & 1 ? (float)(uniform() * 2 - 1) * q->grid.max * 1.1f : (float)(i - 100000) / 1024;
      double want = ny_is_float(q->code) ? 0 : rint(fmax(-q->grid.max, fmin(q->grid.max, x)));
      if (ny_is_float(q->code)) {
        uint8_t b[1] = {0};
        ny_put_f(q->code, b, 0, (double)x, true);
        want = ny_get_f(q->code, b, 0);
      }
      CHECK_EACH((double)ny_snap(&q->grid, x) == want, "%s: %g gives %g, not %g", q->name, (double)x,
                 (double)ny_snap(&q->grid, x), want);
    }
  }
}

static double amax_of(const float *w, int n) {
  double m = 0;
  for (int i = 0; i < n; i++) m = fmax(m, fabs((double)w[i]));
  return m;
}

/* NVFP4 and MXFP4 as their definitions read. */
static void reference_rtn(const ny_scheme *s, const float *w, int n, int k, int run, float *r) {
  float ts = (float)(amax_of(w, n * k) / (6.0 * 448.0));
  for (int i = 0; i < n; i++)
    for (int tap = 0; tap < k; tap += run)
      for (int at = 0; at < run; at += s->block) {
        const float *b = w + i * k + tap + at;
        int len = run - at < s->block ? run - at : s->block;
        float amax = (float)amax_of(b, len), scale = 1;
        if (s->tensor && amax > 0) {
          uint8_t byte[1] = {0};
          ny_put_f(NY_f8e4m3, byte, 0, fmin(fmax((double)(amax / (6 * ts)), 0x1p-9), 448), true);
          scale = (float)ny_get_f(NY_f8e4m3, byte, 0) * ts;
        } else if (amax > 0)
          scale = (float)exp2(floor(log2((double)amax)) - 2);
        for (int j = 0; j < len; j++) {
          uint8_t byte[1] = {0};
          ny_put_f(NY_f4e2m1, byte, 0, (double)(b[j] / scale), true);
          r[i * k + tap + at + j] = (float)ny_get_f(NY_f4e2m1, byte, 0) * scale;
        }
      }
}

static void test_rtn(void) {
  static const int shapes[][3] = {{3, 16, 16},  {48, 160, 160}, {17, 120, 120}, {5, 1, 1},
                                  {16, 90, 30}, {7, 33, 33},    {2, 27, 3}};
  static const char *const names[] = {"nvfp4", "mxfp4"};
  static float w[MAX_N * MAX_K], want[MAX_N * MAX_K];
  for (size_t i = 0; i < NY_COUNT(shapes) * 2; i++) {
    const int *sh = shapes[i / 2], n = sh[0], k = sh[1];
    const ny_scheme *s = ny_scheme_by_name(names[i % 2]);
    weights(w, n, k);
    for (int j = 0; j < k && j < 16 && n > 1; j++) w[k + j] = 0; /* a block of zeros */
    reference_rtn(s, w, n, k, sh[2], want);
    ny_weight wt = {"w", w, n, k, sh[2], k, 1};
    ny_recipe r = recipe("rtn");
    ny_quantized q;
    CHECK(!ny_quantize(&wt, s, &r, NULL, pool, &q, &diag), "%s", diag.message);
    int bad = 0;
    for (int j = 0; j < n * k; j++) bad += q.r[j] != want[j];
    CHECK(!bad, "%s [%d,%d]: %d of %d weights differ", s->name, n, k, bad, n * k);
    ny_quantized_free(&q);
  }
}

/* Codes and scales, read as dequantize reads them, are exactly r. */
static void read_back(const ny_quantized *q, const ny_weight *w, const char *name) {
  static uint8_t codes[MAX_N * MAX_K * 4], scales[MAX_N * MAX_K * 4];
  memset(codes, 0xa5, sizeof codes);
  ny_quantized_codes(q, w, codes);
  ny_quantized_scales(q, w, scales);
  int bad = 0;
  int64_t per = (q->blocks.run + q->blocks.size - 1) / q->blocks.size;
  for (int64_t i = 0; i < w->n; i++)
    for (int64_t j = 0; j < w->k; j++) {
      int64_t b = q->scheme->block ? j / q->blocks.run * per + j % q->blocks.run / q->blocks.size : 0,
              at = i * w->n_stride + j * w->k_stride;
      int64_t sat = w->n_stride == 1 ? b * w->n + i : i * q->n_blocks + b;
      float s = (float)ny_get_f(q->scheme->scale, scales, (uint64_t)sat) * q->ts;
      double c = ny_is_float(q->scheme->code) ? ny_get_f(q->scheme->code, codes, (uint64_t)at)
                                              : (double)ny_get_i(q->scheme->code, codes, (uint64_t)at);
      bad += (float)c * s != q->r[at];
    }
  CHECK(!bad, "%s, %s: %d weights read back wrong", q->scheme->name, name, bad);
}

static void test_storage(void) {
  static float w[MAX_N * MAX_K], x[600 * MAX_K];
  static const char *const names[] = {"rtn", "four_six", "sweep", "joint+bias"};
  const int n = 21, k = 100;
  weights(w, n, k);
  for (int j = 0; j < 32; j++) w[j] = 0;
  inputs(x, 600, k);
  ny_stats st;
  ny_stats_new(k, false, &st, &diag);
  ny_stats_add(&st, pool, x, NULL, 600);
  for (int s = 0; s < ny_n_schemes; s++)
    for (size_t i = 0; i < NY_COUNT(names) * 2; i++) {
      ny_recipe r = recipe(names[i / 2]);
      ny_factor f;
      CHECK_EACH(!ny_factor_new(&st, &r, pool, &f, &diag), "%s", diag.message);
      ny_weight wt = {"w", w, n, k, i & 1 ? 50 : k, i & 2 ? 1 : k, i & 2 ? n : 1};
      ny_quantized q;
      CHECK_EACH(!ny_quantize(&wt, &ny_schemes[s], &r, &f, pool, &q, &diag), "%s", diag.message);
      read_back(&q, &wt, names[i / 2]);
      ny_quantized_free(&q);
      ny_factor_free(&f);
    }
  ny_stats_free(&st);
}

/* ---- matrices */
static void test_matrices(void) {
  static const int sizes[] = {1, 2, 15, 16, 47, 48, 49, 97, 150};
  for (size_t z = 0; z < NY_COUNT(sizes); z++) {
    int k = sizes[z], rows = 2 * k + 3;
    float *x = malloc(sizeof *x * (size_t)(rows * k)), *u = malloc(sizeof *u * (size_t)(k * k));
    double *h = calloc((size_t)(k * k), sizeof *h), *keep = calloc((size_t)(k * k), sizeof *h), worst = 0, apart = 0;
    inputs(x, rows, k);
    ny_atb(pool, x, k, x, k, rows, k, k, true, h, k);
    for (int i = 0; i < k; i++)
      for (int j = i; j < k; j++) {
        double sum = 0;
        for (int t = 0; t < rows; t++) sum += (double)x[t * k + i] * (double)x[t * k + j];
        worst = fmax(worst, fabs(sum - h[i * k + j]) / (1 + fabs(sum)));
        keep[i * k + j] = keep[j * k + i] = h[i * k + j] = h[j * k + i] = sum + (i == j);
      }
    CHECK(worst < 1e-4, "%d: a^T b is off by %g", k, worst);
    CHECK(ny_inverse_factor(pool, h, k, u), "%d: not positive definite", k);
    for (int i = 0; i < k; i++)
      for (int j = 0; j < k; j++) { /* U H U^T = 1 */
        double sum = 0;
        for (int a = 0; a < k; a++)
          for (int b = 0; b < k; b++) sum += (double)u[i * k + a] * keep[a * k + b] * (double)u[j * k + b];
        apart = fmax(apart, fabs(sum - (i == j)));
        if (j < i) apart = fmax(apart, fabs((double)u[i * k + j]) * 1e9);
      }
    CHECK(apart < 1e-3, "%d: U H U^T is off by %g", k, apart);
    free(x), free(u), free(h), free(keep);
  }
  double bad[4] = {1, 2, 2, 1};
  float u[4];
  CHECK(!ny_inverse_factor(pool, bad, 2, u), "an indefinite matrix was factored");
}

/* ---- GPTQ as in the paper, one row, doubles; scales tried one after the other by the loss of the block */
static double plain_block(const ny_scheme *s, const double *w, const float *u, int k, int at, int len, double scale,
                          double *r, double *e) {
  double x[NY_MAX_BLOCK], loss = 0;
  for (int j = 0; j < len; j++) x[j] = w[at + j];
  for (int j = 0; j < len; j++) {
    r[j] = (double)ny_snap(&s->grid, (float)(x[j] / scale)) * scale;
    e[j] = (x[j] - r[j]) / (double)u[(at + j) * k + at + j];
    loss += e[j] * e[j];
    for (int i = j + 1; i < len; i++) x[i] -= e[j] * (double)u[(at + j) * k + at + i];
  }
  return loss;
}

static double plain_row(const ny_scheme *s, const float *row, float ts, const float *u, int k, double *out) {
  double w[MAX_K], total = 0;
  for (int j = 0; j < k; j++) w[j] = (double)row[j];
  for (int at = 0; at < k; at += s->block) {
    int len = k - at < s->block ? k - at : s->block;
    double r[NY_MAX_BLOCK], e[NY_MAX_BLOCK], best = INFINITY, be[NY_MAX_BLOCK] = {0};
    float amax[NY_LANES] = {0}, cand[NY_MAX_CANDIDATES][NY_LANES];
    for (int j = 0; j < len; j++) amax[0] = fmaxf(amax[0], (float)fabs(w[at + j]));
    int n = ny_candidates_of(s, NY_CAND_SWEEP, ts, amax, cand);
    for (int c = 0; c < n; c++) {
      double loss = plain_block(s, w, u, k, at, len, (double)cand[c][0], r, e);
      if (loss >= best) continue;
      best = loss;
      memcpy(be, e, sizeof be), memcpy(out + at, r, sizeof *r * (size_t)len);
    }
    total += best;
    for (int j = at + len; j < k; j++)
      for (int i = 0; i < len; i++) w[j] -= be[i] * (double)u[(at + i) * k + j];
  }
  return total;
}

static double loss_of(const float *w, const double *r, const float *h, int k) {
  double sum = 0;
  for (int i = 0; i < k; i++)
    for (int j = 0; j < k; j++) sum += ((double)w[i] - r[i]) * (double)h[i * k + j] * ((double)w[j] - r[j]);
  return sum;
}

static void test_gptq(const char *name) {
  static float w[MAX_N * MAX_K], x[900 * MAX_K];
  const int n = 37, k = 88;
  const ny_scheme *s = ny_scheme_by_name(name);
  weights(w, n, k), inputs(x, 900, k);
  ny_stats st;
  ny_stats_new(k, false, &st, &diag);
  ny_stats_add(&st, pool, x, NULL, 400), ny_stats_add(&st, pool, x + 400 * k, NULL, 500);
  ny_recipe once = recipe("joint"), rtn = recipe("rtn"), full = recipe("joint");
  once.descent = 0, full.descent = 50;
  ny_factor f;
  CHECK(!ny_factor_new(&st, &once, pool, &f, &diag), "%s", diag.message);
  ny_weight wt = {"w", w, n, k, k, k, 1};
  ny_quantized q, plain, down;
  CHECK(!ny_quantize(&wt, s, &once, &f, pool, &q, &diag), "%s", diag.message);
  CHECK(!ny_quantize(&wt, s, &rtn, &f, pool, &plain, &diag), "%s", diag.message);
  CHECK(!ny_quantize(&wt, s, &full, &f, pool, &down, &diag), "%s", diag.message);
  int same = 0, stuck = 0;
  for (int i = 0; i < n; i++) {
    double r[MAX_K], mine[MAX_K], theory = plain_row(s, w + i * k, q.ts, f.u, k, r);
    for (int j = 0; j < k; j++) mine[j] = (double)q.r[i * k + j];
    double a = loss_of(w + i * k, r, f.h, k), b = loss_of(w + i * k, mine, f.h, k);
    CHECK_EACH(fabs(a - theory) < 1e-3 * a, "%s: the loss of row %d is %g, its blocks say %g", name, i, a, theory);
    CHECK_EACH(b < a * 1.05, "%s row %d: loss %g, the plain one %g", name, i, b, a);
    same += fabs(a - b) < 1e-3 * a; /* a tie broken otherwise changes what follows */
    for (int j = 0; j < k; j++) mine[j] = (double)down.r[i * k + j];
    double at = loss_of(w + i * k, mine, f.h, k);
    for (int j = 0; j < k; j++) { /* no code can be changed for the better */
      double was = mine[j], sc = (double)down.scale[j / s->block * n + i];
      for (int c = -6; c <= 6; c++) {
        mine[j] = (double)ny_snap(&s->grid, (float)c) * sc;
        stuck += loss_of(w + i * k, mine, f.h, k) < at * (1 - 1e-4);
      }
      mine[j] = was;
    }
  }
  CHECK(same >= n - 3, "%s: %d of %d rows as GPTQ one row at a time", name, same, n);
  CHECK(!stuck, "%s: coordinate descent left %d codes that could be better", name, stuck);
  CHECK(down.error < q.error && q.error < 0.6 * plain.error, "%s: errors %g, %g, nearest %g", name, down.error, q.error,
        plain.error);
  ny_quantized_free(&q), ny_quantized_free(&plain), ny_quantized_free(&down);
  ny_factor_free(&f), ny_stats_free(&st);
}

/* With bias and asymmetric calibration: outputs on the quantised inputs against the original's. */
static double output_error(const float *w, const float *r, const float *bias, const float *xq, const float *xf,
                           int rows, int n, int k, double *mean) {
  double sum = 0, off = 0;
  for (int i = 0; i < n; i++) {
    double m = 0;
    for (int t = 0; t < rows; t++) {
      double d = bias ? -(double)bias[i] : 0;
      for (int j = 0; j < k; j++)
        d += (double)w[i * k + j] * (double)xf[t * k + j] - (double)r[i * k + j] * (double)xq[t * k + j];
      sum += d * d, m += d;
    }
    off = fmax(off, fabs(m / rows));
  }
  *mean = off;
  return sum;
}

static void test_extras(void) {
  static float w[MAX_N * MAX_K], xf[700 * MAX_K], xq[700 * MAX_K];
  static const char *const names[] = {"joint", "joint+bias", "joint+asym", "joint+asym+bias"};
  const int n = 24, k = 64, rows = 700;
  double err[4], mean[4];
  weights(w, n, k), inputs(xf, rows, k);
  for (int i = 0; i < rows * k; i++) xq[i] = 0.9f * xf[i] + 0.2f * normal() + 0.1f;
  ny_stats st;
  ny_stats_new(k, true, &st, &diag);
  ny_stats_add(&st, pool, xq, xf, rows);
  for (int i = 0; i < 4; i++) {
    ny_recipe r = recipe(names[i]);
    ny_factor f;
    ny_quantized q;
    ny_weight wt = {"w", w, n, k, k, k, 1};
    CHECK_EACH(!ny_factor_new(&st, &r, pool, &f, &diag), "%s", diag.message);
    CHECK_EACH(!ny_quantize(&wt, ny_scheme_by_name("nvfp4"), &r, &f, pool, &q, &diag), "%s", diag.message);
    err[i] = output_error(w, q.r, q.bias, xq, xf, rows, n, k, &mean[i]);
    ny_quantized_free(&q), ny_factor_free(&f);
  }
  CHECK(mean[1] < 1e-3 && mean[3] < 1e-3 && mean[0] > 1e-2, "mean errors %g %g %g %g", mean[0], mean[1], mean[2],
        mean[3]);
  CHECK(err[1] < err[0] && err[2] < 0.9 * err[0] && err[3] < err[2], "errors %g %g %g %g", err[0], err[1], err[2],
        err[3]);
  ny_stats_free(&st);
}

static void test_refused(void) {
  float w[32] = {0};
  ny_weight wt = {"layer7.weight", w, 2, 16, 16, 16, 1};
  ny_recipe r = recipe("sweep"), needs = recipe("joint");
  ny_quantized q;
  CHECK(!ny_quantize(&wt, ny_scheme_by_name("nvfp4"), &r, NULL, pool, &q, &diag) && q.mse == 0, "a weight of zeros: %s",
        diag.message);
  ny_quantized_free(&q);
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 3; i++) {
    ny_diag d = {0};
    w[20] = bad[i];
    CHECK(ny_quantize(&wt, ny_scheme_by_name("nvfp4"), &r, NULL, pool, &q, &d) == NYB_E_ARGUMENT &&
              strstr(d.message, "layer7.weight: element (1, 4)"),
          "%s", d.message);
  }
  ny_diag d = {0};
  w[20] = 1;
  CHECK(ny_quantize(&wt, ny_scheme_by_name("nvfp4"), &needs, NULL, pool, &q, &d) == NYB_E_ARGUMENT,
        "joint without data");
  static const char *const texts[] = {"", "jont", "joint+", "joint+sweep", "bias", "joint+bias+"};
  for (size_t i = 0; i < NY_COUNT(texts); i++) {
    ny_diag e = {0};
    CHECK(ny_recipe_parse(texts[i], &r, &e) == NYB_E_ARGUMENT, "%s was taken for a recipe", texts[i]);
  }
}

/* Tiny, huge and subnormal weights keep their order of magnitude. */
static void test_extremes(void) {
  static float w[MAX_N * MAX_K];
  static const float by[] = {1e-42f, 1e-30f, 1e-4f, 1e30f, 1e37f};
  for (size_t b = 0; b < NY_COUNT(by); b++)
    for (int s = 0; s < ny_n_schemes; s++) {
      ny_recipe r = recipe("sweep");
      ny_quantized q;
      weights(w, 4, 64);
      for (int i = 0; i < 4 * 64; i++) w[i] *= by[b];
      ny_weight wt = {"w", w, 4, 64, 64, 64, 1};
      CHECK_EACH(!ny_quantize(&wt, &ny_schemes[s], &r, NULL, pool, &q, &diag), "%s", diag.message);
      bool finite = true;
      for (int i = 0; i < 4 * 64; i++) finite = finite && isfinite(q.r[i]);
      bool narrow = ny_schemes[s].scale == NY_f16 || by[b] < 1e-37f;
      CHECK_EACH(finite && (narrow || q.mse < 0.15), "%s at %g: error %g", ny_schemes[s].name, (double)by[b], q.mse);
      ny_quantized_free(&q);
    }
}

int main(void) {
  if (ny_pool_new(3, 0, &pool, &diag)) return 1;
  test_grids();
  test_rtn();
  test_storage();
  test_matrices();
  test_gptq("nvfp4"), test_gptq("mxfp4"), test_gptq("int4");
  test_extras();
  test_refused();
  test_extremes();
  ny_pool_free(pool);
  return test_end("quant_test");
}
