/* Rounding 16 rows of a weight: scales, GPTQ, coordinate descent. Rows do not know of each other, so a row is a lane.
   All of it is one function to the compiler, made for several processors. */
#include <math.h>
#include <string.h>

#include "quant.h"
#include "simd.h"

int64_t ny_blocks_count(const ny_blocks *b) {
  return b->run > 0 ? b->k / b->run * ((b->run + b->size - 1) / b->size) : 0;
}
int64_t ny_blocks_start(const ny_blocks *b, int64_t i) {
  int64_t per = (b->run + b->size - 1) / b->size;
  return i / per * b->run + i % per * b->size;
}
int ny_blocks_len(const ny_blocks *b, int64_t i) {
  int64_t per = (b->run + b->size - 1) / b->size, left = b->run - i % per * b->size;
  return left < b->size ? (int)left : b->size;
}

/* to = from where a < b. Vectors go by address: how they are passed by value depends on the processor. */
NY_INLINE void blend(v16 *to, const v16 *from, const v16 *a, const v16 *b) {
  i16x t, f, mask = *a < *b;
  memcpy(&t, to, sizeof t), memcpy(&f, from, sizeof f);
  t = (f & mask) | (t & ~mask);
  memcpy(to, &t, sizeof t);
}

NY_INLINE void snap(v16 *y, const ny_grid *g) {
  i16x bits, sign, a, p;
  v16 x, m, max = {0}, floor = {0};
  max += g->max, floor += g->floor;
  memcpy(&bits, y, sizeof bits);
  sign = bits & INT32_MIN;
  a = bits & INT32_MAX;
  memcpy(&x, &a, sizeof x);
  blend(&x, &max, &max, &x);
  memcpy(&p, &x, sizeof p);
  p &= 0x7f800000;
  memcpy(&m, &p, sizeof m);
  blend(&m, &floor, &m, &floor);
  m *= g->unit;
  x = (x + m) - m;
  memcpy(&a, &x, sizeof a);
  a |= sign;
  memcpy(y, &a, sizeof a);
}

typedef struct tried { /* a block rounded with one scale a lane */
  v16 r[NY_MAX_BLOCK], e[NY_MAX_BLOCK], loss;
} tried;

NY_INLINE void with_feed(const ny_panel *p, int64_t at, int n, const v16 *w, const v16 *s, tried *t) {
  v16 x[NY_MAX_BLOCK], inv = 1 / *s;
  for (int j = 0; j < n; j++) x[j] = w[j];
  t->loss = (v16){0};
  for (int j = 0; j < n; j++) {
    const float *u = p->u + (at + j) * p->blocks.k + at;
    v16 y = x[j] * inv;
    snap(&y, &p->scheme->grid);
    t->r[j] = y * *s;
    v16 e = (x[j] - t->r[j]) / u[j];
    t->e[j] = e;
    t->loss += e * e;
    for (int i = j + 1; i < n; i++) x[i] -= e * u[i];
  }
}

/* d^T H d: twice the upper triangle less the diagonal. */
NY_INLINE void by_hessian(const ny_panel *p, int64_t at, int n, tried *t) {
  t->loss = (v16){0};
  for (int j = 0; j < n; j++) {
    const float *h = p->h + (at + j) * p->blocks.k + at;
    v16 sum = t->e[j] * (0.5f * h[j]);
    for (int i = j + 1; i < n; i++) sum += t->e[i] * h[i];
    t->loss += 2 * sum * t->e[j];
  }
}

NY_INLINE void alone(const ny_panel *p, int64_t at, int n, const v16 *w, const v16 *s, tried *t) {
  t->loss = (v16){0};
  for (int j = 0; j < n; j++) {
    v16 y = w[j] / *s; /* a product with 1/s would break ties by its own rounding */
    snap(&y, &p->scheme->grid);
    t->r[j] = y * *s;
    t->e[j] = w[j] - t->r[j];
    t->loss += t->e[j] * t->e[j];
  }
  if (p->recipe->by == NY_BY_HESSIAN && p->h) by_hessian(p, at, n, t);
}

/* Rounds the block with each candidate and keeps the best of each lane. */
NY_INLINE void pick(const ny_panel *p, int64_t at, int n, int n_cand, const float (*cand)[NY_LANES], v16 *s,
                    tried *best) {
  const v16 *w = (const v16 *)(const void *)p->w + at;
  bool feed = p->recipe->by == NY_BY_LOSS && p->u;
  tried t;
  for (int c = 0; c < n_cand; c++) {
    v16 sc;
    memcpy(&sc, cand[c], sizeof sc);
    if (feed)
      with_feed(p, at, n, w, &sc, &t);
    else
      alone(p, at, n, w, &sc, &t);
    if (!c) {
      *best = t, *s = sc;
      continue;
    }
    blend(s, &sc, &t.loss, &best->loss);
    for (int j = 0; j < n; j++)
      blend(&best->r[j], &t.r[j], &t.loss, &best->loss), blend(&best->e[j], &t.e[j], &t.loss, &best->loss);
    blend(&best->loss, &t.loss, &t.loss, &best->loss);
  }
  if (p->recipe->feed && p->u && !feed) with_feed(p, at, n, w, s, best);
}

/* to[j] -= sum of e[i] * rows[i][j]: the one loop where the time goes. */
NY_INLINE void subtract(v16 *to, int64_t lo, int64_t hi, const v16 *e, int n, const float *rows, int64_t ld) {
  int64_t j = lo;
  for (; j + 4 <= hi; j += 4) {
    v16 a = to[j], b = to[j + 1], c = to[j + 2], d = to[j + 3];
    for (int i = 0; i < n; i++) {
      const float *u = rows + i * ld + j;
      v16 x = e[i];
      a -= x * u[0], b -= x * u[1], c -= x * u[2], d -= x * u[3];
    }
    to[j] = a, to[j + 1] = b, to[j + 2] = c, to[j + 3] = d;
  }
  for (; j < hi; j++)
    for (int i = 0; i < n; i++) to[j] -= e[i] * rows[i * ld + j];
}

NY_INLINE void largest(const v16 *w, int64_t n, v16 *out) {
  v16 max = {0};
  for (int64_t j = 0; j < n; j++) {
    v16 neg = -w[j];
    blend(&max, &w[j], &max, &w[j]), blend(&max, &neg, &max, &neg);
  }
  *out = max;
}

/* One scale a row: chosen before anything is rounded. */
NY_INLINE void row_scale(const ny_panel *p, v16 *out) {
  float cand[NY_MAX_CANDIDATES][NY_LANES], amax[NY_LANES];
  const v16 *w = (const v16 *)(const void *)p->w;
  v16 max, best = {0};
  largest(w, p->blocks.k, &max);
  memcpy(amax, &max, sizeof amax);
  int n = ny_candidates_of(p->scheme, p->recipe->candidates, p->ts, amax, cand);
  for (int c = 0; c < n; c++) {
    v16 s, loss = {0};
    memcpy(&s, cand[c], sizeof s);
    for (int64_t j = 0; j < p->blocks.k; j++) {
      v16 y = w[j] / s;
      snap(&y, &p->scheme->grid);
      y = w[j] - y * s;
      loss += y * y;
    }
    if (!c)
      best = loss, *out = s;
    else
      blend(out, &s, &loss, &best), blend(&best, &loss, &loss, &best);
  }
}

NY_INLINE void blocks(const ny_panel *p) {
  float cand[NY_MAX_CANDIDATES][NY_LANES], amax[NY_LANES];
  v16 *w = (v16 *)(void *)p->w, *r = (v16 *)(void *)p->r, *s = (v16 *)(void *)p->s, whole = {0};
  if (!p->scheme->block) row_scale(p, &whole);
  for (int64_t b = 0, n_blocks = ny_blocks_count(&p->blocks); b < n_blocks; b++) {
    int64_t at = ny_blocks_start(&p->blocks, b);
    int n = ny_blocks_len(&p->blocks, b), n_cand = 1;
    tried best;
    if (p->scheme->block) {
      v16 max;
      largest(w + at, n, &max);
      memcpy(amax, &max, sizeof amax);
      n_cand = ny_candidates_of(p->scheme, p->recipe->candidates, p->ts, amax, cand);
    } else
      memcpy(cand[0], &whole, sizeof whole);
    pick(p, at, n, n_cand, (const float(*)[NY_LANES])cand, &s[b], &best);
    for (int j = 0; j < n; j++) r[at + j] = best.r[j];
    if (p->recipe->feed && p->u) subtract(w, at + n, p->blocks.k, best.e, n, p->u + at * p->blocks.k, p->blocks.k);
  }
}

NY_INLINE bool any(const v16 *x) {
  int32_t all = 0;
  i16x m = *x != 0;
  for (int l = 0; l < NY_LANES; l++) all |= m[l];
  return all != 0;
}

/* Cyclic coordinate descent: each code becomes the best one given all others. t holds the weights as they were, g = (t
 * - r) H. */
NY_INLINE void descend(const ny_panel *p) {
  const int64_t k = p->blocks.k;
  v16 *r = (v16 *)(void *)p->r, *g = (v16 *)(void *)p->g, *s = (v16 *)(void *)p->s;
  const v16 *t = (const v16 *)(const void *)p->t;
  for (int64_t j = 0; j < k; j++) g[j] = (v16){0};
  for (int64_t j = 0; j < k; j++) {
    v16 d = r[j] - t[j];
    subtract(g, 0, k, &d, 1, p->h + j * k, k);
  }
  for (int pass = 0; pass < p->recipe->descent; pass++) {
    int64_t changed = 0;
    for (int64_t b = 0, n_blocks = ny_blocks_count(&p->blocks); b < n_blocks; b++) {
      int64_t at = ny_blocks_start(&p->blocks, b);
      for (int64_t j = at; j < at + ny_blocks_len(&p->blocks, b); j++) {
        v16 y = (r[j] + g[j] / p->h[j * k + j]) / s[b];
        snap(&y, &p->scheme->grid);
        y *= s[b];
        v16 d = y - r[j];
        if (!any(&d)) continue;
        r[j] = y;
        changed++;
        subtract(g, 0, k, &d, 1, p->h + j * k, k);
      }
    }
    if (!changed) break;
  }
}

NY_CLONES void ny_panel_quantize(ny_panel *p) {
  bool down = p->recipe->descent && p->h;
  if (down) memcpy(p->t, p->w, sizeof(float) * NY_LANES * (size_t)p->blocks.k);
  blocks(p);
  if (down) descend(p);
}

NY_CLONES double ny_panel_quadratic(const float *h, int64_t k, const float *x, float *room) {
  v16 *g = (v16 *)(void *)room;
  const v16 *d = (const v16 *)(const void *)x;
  double sum = 0;
  for (int64_t j = 0; j < k; j++) g[j] = (v16){0};
  for (int64_t j = 0; j < k; j++) subtract(g, 0, k, &d[j], 1, h + j * k, k);
  for (int64_t j = 0; j < k; j++)
    for (int l = 0; l < NY_LANES; l++) sum -= (double)g[j][l] * (double)d[j][l];
  return sum;
}
