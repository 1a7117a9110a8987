/* What quantising one layer does to the results of the whole model: the model once more, with all weights as inputs, so
   that one module answers for every layer and every scheme. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "segment.h"

enum { PROBE_SAMPLES = 8 };
struct ny_probe {
  ny_runner *r;
  ny_piece p;
  const float **w, **b; /* as they were */
  size_t n_out, n, sample[PROBE_SAMPLES];
  float **want; /* [n][n_out]; NULL: not of f32 */
};

static int64_t count(const nyb_tensor *t) {
  int64_t n = 1;
  for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
  return n;
}

static nyb_status reference(ny_probe *q) {
  nyb_tensor *out = NY_NEW_ARRAY(&q->p.a, nyb_tensor, q->n_out + 1);
  for (size_t i = 0; i < q->n; i++) {
    NY_TRY(ny_piece_run(&q->p, q->sample[i], false, q->w, q->b, out, q->n_out));
    for (size_t j = 0; j < q->n_out; j++) {
      if (out[j].dtype.code != NYB_FLOAT || out[j].dtype.bits != 32) continue;
      size_t n = (size_t)count(&out[j]);
      q->want[i * q->n_out + j] = NY_NEW_ARRAY(&q->p.a, float, n + 1);
      memcpy(q->want[i * q->n_out + j], out[j].data, n * sizeof(float));
    }
  }
  return NYB_OK;
}

static nyb_status open_probe(ny_probe *q) {
  ny_layers *ls = q->r->ls;
  size_t n = q->r->s->n;
  q->n = n < PROBE_SAMPLES ? n : PROBE_SAMPLES;
  for (size_t i = 0; i < q->n; i++) q->sample[i] = i * n / q->n;
  q->n_out = ls->g->body.last->n_in;
  NY_TRY(ny_model_hand_over(q->r->cx, ls->g->cx, NULL, ny_piece_graph(&q->p, ls->n_op)));
  NY_TRY(ny_piece_compile(&q->p));
  q->w = NY_NEW_ARRAY(&q->p.a, const float *, q->p.n_weight + 1);
  q->b = NY_NEW_ARRAY(&q->p.a, const float *, q->p.n_bias + 1);
  q->want = NY_NEW_ARRAY(&q->p.a, float *, q->n * q->n_out + 1);
  ny_piece_weights(&q->p, false, q->w, q->b);
  return reference(q);
}

nyb_status ny_probe_new(nyb_context *cx, ny_layers *ls, const ny_samples *s, int threads, ny_probe **out) {
  *out = calloc(1, sizeof **out);
  if (!*out) return ny_fail(&cx->diag, NYB_E_NOMEM, NULL, "out of memory");
  NY_TRY(ny_runner_new(cx, ls, s, threads, &(*out)->r));
  (*out)->p = (ny_piece){.r = (*out)->r, .both = true, .probe = true};
  return open_probe(*out);
}

void ny_probe_free(ny_probe *p) {
  if (!p) return;
  ny_piece_free(&p->p);
  ny_runner_free(p->r);
  free(p);
}

static void compare(const nyb_tensor *t, const float *want, double *d2, double *y2) {
  const float *have = t->data;
  int64_t n = want ? count(t) : 0;
  for (int64_t i = 0; i < n; i++) {
    double d = (double)have[i] - (double)want[i];
    *d2 += d * d, *y2 += (double)want[i] * (double)want[i];
  }
}

nyb_status ny_probe_error(ny_probe *p, const ny_layer *l, const ny_quantized *q, double *out) {
  ny_arena a = {0};
  nyb_tensor *t = NY_NEW_ARRAY(&a, nyb_tensor, p->n_out + 1);
  const float **w = NY_NEW_ARRAY(&a, const float *, p->p.n_weight + 1),
              **b = NY_NEW_ARRAY(&a, const float *, p->p.n_bias + 1);
  for (size_t j = 0; j < p->p.n_weight; j++) w[j] = p->p.weight[j] == l ? q->r : p->w[j];
  for (size_t j = 0; j < p->p.n_bias; j++) b[j] = p->p.bias[j] == l && q->bias ? q->bias : p->b[j];
  double *d2 = NY_NEW_ARRAY(&a, double, p->n_out + 1), *y2 = NY_NEW_ARRAY(&a, double, p->n_out + 1);
  nyb_status s = NYB_OK;
  for (size_t i = 0; i < p->n && !s; i++) {
    s = ny_piece_run(&p->p, p->sample[i], true, w, b, t, p->n_out);
    for (size_t j = 0; j < p->n_out && !s; j++) compare(&t[j], p->want[i * p->n_out + j], &d2[j], &y2[j]);
  }
  double sum = 0, n = 0;
  for (size_t j = 0; j < p->n_out; j++)
    if (y2[j] > 0) sum += d2[j] / y2[j], n++;
  *out = n > 0 && isfinite(sum) ? sum / n : 0;
  ny_arena_free(&a);
  return s;
}
