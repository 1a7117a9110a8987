/* The few dense products and the factorisation that calibration needs: A^T B in tiles of 6 by 16 with f32 sums, and a
 * Cholesky factorisation in double. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant.h"
#include "simd.h"

enum { MR = 6, TILE_ROWS = 256, NB = 48 };

typedef struct atb_job {
  const float *a, *b;
  double *c;
  int64_t lda, ldb, ldc, rows, m, n;
  bool symmetric;
} atb_job;

NY_INLINE void tile(const atb_job *q, int64_t i, int64_t j, int64_t lo, int64_t hi, float (*out)[16]) {
  v16 acc[MR] = {{0}};
  for (int64_t t = lo; t < hi; t++) {
    const float *a = q->a + t * q->lda + i;
    v16 b;
    memcpy(&b, q->b + t * q->ldb + j, sizeof b);
    for (int r = 0; r < MR; r++) acc[r] += b * a[r];
  }
  memcpy(out, acc, sizeof acc);
}

/* At the edges. */
static void part(const atb_job *q, int64_t i, int64_t j, int64_t lo, int64_t hi, float (*out)[16]) {
  int64_t m = q->m - i < MR ? q->m - i : MR, n = q->n - j < 16 ? q->n - j : 16;
  memset(out, 0, sizeof(float) * MR * 16);
  for (int64_t t = lo; t < hi; t++)
    for (int64_t r = 0; r < m; r++)
      for (int64_t c = 0; c < n; c++) out[r][c] += q->a[t * q->lda + i + r] * q->b[t * q->ldb + j + c];
}

static void add_tile(const atb_job *q, int64_t i, int64_t j, float (*out)[16]) {
  int64_t m = q->m - i < MR ? q->m - i : MR, n = q->n - j < 16 ? q->n - j : 16;
  for (int64_t r = 0; r < m; r++)
    for (int64_t c = 0; c < n; c++) q->c[(i + r) * q->ldc + j + c] += (double)out[r][c];
}

NY_CLONES static void atb_rows(const atb_job *q, int64_t begin, int64_t end) {
  float out[MR][16];
  for (int64_t lo = 0; lo < q->rows; lo += TILE_ROWS) {
    int64_t hi = lo + TILE_ROWS < q->rows ? lo + TILE_ROWS : q->rows;
    for (int64_t i = begin * MR; i < end * MR && i < q->m; i += MR)
      for (int64_t j = q->symmetric ? i / 16 * 16 : 0; j < q->n; j += 16) {
        if (i + MR <= q->m && j + 16 <= q->n)
          tile(q, i, j, lo, hi, out);
        else
          part(q, i, j, lo, hi, out);
        add_tile(q, i, j, out);
      }
  }
}

static void atb_task(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  atb_rows(user, begin, end);
}

void ny_atb(ny_pool *pool, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t rows, int64_t m, int64_t n,
            bool symmetric, double *c, int64_t ldc) {
  atb_job q = {a, b, c, lda, ldb, ldc, rows, m, n, symmetric};
  ny_pool_run(pool, atb_task, &q, (m + MR - 1) / MR, 4);
}

/* ---- Cholesky: L L^T = A, in place, lower; blocks of NB columns, the rows below in parallel. */
typedef struct factor_job {
  double *a, *inv;
  int64_t n, at, width;
} factor_job;

static bool diagonal(double *a, int64_t n, int64_t at, int64_t width) {
  for (int64_t j = at; j < at + width; j++) {
    double d = a[j * n + j];
    for (int64_t t = at; t < j; t++) d -= a[j * n + t] * a[j * n + t];
    if (!(d > 0) || !isfinite(d)) return false;
    a[j * n + j] = d = sqrt(d);
    for (int64_t i = j + 1; i < at + width; i++) {
      double x = a[i * n + j];
      for (int64_t t = at; t < j; t++) x -= a[i * n + t] * a[j * n + t];
      a[i * n + j] = x / d;
    }
  }
  return true;
}

static void below(const factor_job *q, int64_t i) {
  double *row = q->a + i * q->n;
  for (int64_t j = q->at; j < q->at + q->width; j++) {
    const double *l = q->a + j * q->n;
    double x = row[j];
    for (int64_t t = q->at; t < j; t++) x -= row[t] * l[t];
    row[j] = x / l[j];
  }
}
static void below_task(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const factor_job *q = user;
  for (int64_t i = begin; i < end; i++) below(q, q->at + q->width + i);
}

/* Rows after the block lose its part: row i, columns up to i. `inv` holds the block transposed, so that columns are
 * vectors. */
NY_CLONES static void trailing(const factor_job *q, int64_t i) {
  int64_t first = q->at + q->width;
  double *row = q->a + i * q->n;
  const double *l = row + q->at;
  for (int64_t t = 0; t < q->width; t += 4) {
    const double *b = q->inv + t * q->n;
    for (int64_t j = first; j <= i; j++)
      row[j] -= l[t] * b[j] + l[t + 1] * b[q->n + j] + l[t + 2] * b[2 * q->n + j] + l[t + 3] * b[3 * q->n + j];
  }
}
static void trailing_task(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const factor_job *q = user;
  for (int64_t i = begin; i < end; i++) trailing(q, q->at + q->width + i);
}

static bool cholesky(ny_pool *pool, double *a, int64_t n, double *room) {
  for (int64_t at = 0; at < n; at += NB) {
    factor_job q = {a, room, n, at, n - at < NB ? n - at : NB};
    if (!diagonal(a, n, at, q.width)) return false;
    int64_t left = n - at - q.width;
    if (!left) return true;
    ny_pool_run(pool, below_task, &q, left, 16);
    for (int64_t i = at + q.width; i < n; i++)
      for (int64_t t = 0; t < NB; t++) room[t * n + i] = a[i * n + at + t];
    ny_pool_run(pool, trailing_task, &q, left, 8);
  }
  return true;
}

/* ---- inverse of L, 8 columns at a time: rows below the diagonal by forward substitution */
enum { COLUMNS = 8 };
typedef struct inverse_job {
  const double *l;
  float *u;
  int64_t n;
} inverse_job;

NY_CLONES static void inverse_columns(const inverse_job *q, int64_t c, double *x) {
  const int64_t n = q->n;
  memset(x, 0, sizeof *x * (size_t)(n * COLUMNS));
  for (int64_t i = c; i < n; i++) {
    double sum[COLUMNS] = {0};
    const double *l = q->l + i * n;
    for (int64_t t = c; t < i; t++)
      for (int v = 0; v < COLUMNS; v++) sum[v] += l[t] * x[t * COLUMNS + v];
    for (int v = 0; v < COLUMNS; v++) x[i * COLUMNS + v] = ((c + v == i) - sum[v]) / l[i];
  }
  /* U is the inverse with rows and columns in reverse, as H was. */
  for (int64_t i = c; i < n; i++)
    for (int v = 0; v < COLUMNS && c + v < n; v++) q->u[(n - 1 - i) * n + (n - 1 - c - v)] = (float)x[i * COLUMNS + v];
}
static void inverse_task(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const inverse_job *q = user;
  double *x = malloc(sizeof *x * (size_t)(q->n * COLUMNS));
  if (!x) abort(); /* as an arena would */
  for (int64_t i = begin; i < end; i++) inverse_columns(q, i * COLUMNS, x);
  free(x);
}

bool ny_inverse_factor(ny_pool *pool, double *h, int64_t n, float *out_u) {
  /* Rows and columns in reverse, which is the array in reverse: H = V V^T with V upper, and U = inverse(V). */
  for (int64_t i = 0, j = n * n - 1; i < j; i++, j--) {
    double x = h[i];
    h[i] = h[j], h[j] = x;
  }
  double *room = malloc(sizeof *room * (size_t)(n * NB));
  if (!room) abort();
  bool ok = cholesky(pool, h, n, room);
  free(room);
  if (!ok) return false;
  memset(out_u, 0, sizeof *out_u * (size_t)(n * n));
  inverse_job q = {h, out_u, n};
  ny_pool_run(pool, inverse_task, &q, (n + COLUMNS - 1) / COLUMNS, 1);
  return true;
}
