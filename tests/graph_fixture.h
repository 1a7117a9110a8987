/* One graph under construction with data for its inputs, and its evaluation: what tests of the IR's meaning share. */
#ifndef NY_GRAPH_FIXTURE_H
#define NY_GRAPH_FIXTURE_H
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir.h"
#include "test.h"

enum { FX_MAX = 8 };
typedef struct fx {
  ny_ctx *cx;
  ny_unit *u;
  ny_builder b;
  ny_arena a;
  ny_tensor in[FX_MAX], out[FX_MAX];
  size_t n_in;
  uint64_t seed, limit;
} fx;

static inline uint64_t fx_random(uint64_t *seed) { /* splitmix64 */
  uint64_t z = *seed += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
static inline double fx_uniform(uint64_t *seed, double lo, double hi) {
  return lo + (hi - lo) * (double)(fx_random(seed) >> 11) * 0x1p-53;
}

static inline fx fx_new(void) {
  fx f = {.cx = ny_ctx_new(), .seed = 1, .limit = (uint64_t)1 << 30};
  f.u = ny_unit_new(f.cx);
  ny_graph *g = ny_graph_new(f.u, ny_intern(&f.cx->names, "main"), false);
  f.b = (ny_builder){.g = g, .block = &g->body};
  return f;
}

static inline void fx_free(fx *f) {
  ny_arena_free(&f->a);
  ny_unit_free(f->u);
  ny_ctx_free(f->cx);
}

static inline int64_t fx_count(const ny_type *t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= t->dim[i];
  return n;
}

/* An input of the declared type whose data has the shape given; x: its elements, NULL: random in -2 .. 2 (floats) or -5
 * .. 5. */
static inline ny_value *fx_sym_in(fx *f, const ny_type *declared, const ny_type *t, const double *x) {
  int64_t n = fx_count(t);
  ny_fmt fmt = (ny_fmt)t->fmt;
  ny_tensor *in = &f->in[f->n_in++];
  *in = (ny_tensor){t, ny_alloc(&f->a, ny_fmt_bytes(fmt, (uint64_t)n) + 1)};
  for (int64_t i = 0; i < n; i++) {
    double v = x ? x[i] : ny_is_float(fmt) ? fx_uniform(&f->seed, -2, 2) : floor(fx_uniform(&f->seed, -5, 6));
    if (ny_is_float(fmt))
      ny_put_f(fmt, in->data, (uint64_t)i, v, false);
    else
      ny_put_i(fmt, in->data, (uint64_t)i, (int64_t)v);
  }
  return ny_block_arg(f->b.g, &f->b.g->body, declared, NULL);
}
#define FX_IN(f, fmt, x, ...)                                                                                          \
  fx_in((f), (fmt), (int)NY_COUNT(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__}, (x)) /* rank >= 1 */
static inline ny_value *fx_in(fx *f, ny_fmt fmt, int rank, const int64_t *shape, const double *x) {
  const ny_type *t = ny_tensor_type(f->cx, fmt, rank, shape);
  return fx_sym_in(f, t, t, x);
}

/* Appends an op with one result of the declared type (NULL: inferred after the caller has set attributes, by fx_infer).
 */
static inline ny_op *fx_op(fx *f, ny_kind k, ny_value *const *in, int n, const ny_type *t) {
  return ny_build(&f->b, k, in, n, &t, 1);
}
static inline ny_value *fx_infer(fx *f, ny_op *op) { return op && !ny_infer_op(f->b.g, op) ? op->out[0] : NULL; }
static inline void fx_list(fx *f, ny_op *op, int slot, const int64_t *v, size_t n) {
  op->attr[slot] = ny_dims_attr(f->b.g, v, n);
}

static inline nyb_status fx_run(fx *f, ny_value *const *v, int n) {
  if (!f->cx->diag.code && ny_build(&f->b, NY_ret, v, n, NULL, 0))
    ny_eval_graph(f->b.g, f->in, f->n_in, &f->a, f->limit, f->out, (size_t)n);
  return f->cx->diag.code;
}
static inline double fx_get(const ny_tensor *t, int64_t i) {
  ny_fmt fmt = (ny_fmt)t->type->fmt;
  return ny_is_float(fmt) ? ny_get_f(fmt, t->data, (uint64_t)i) : (double)ny_get_i(fmt, t->data, (uint64_t)i);
}
/* The value's tensor, or an empty one after a counted failure. */
static inline const ny_tensor *fx_result(fx *f, ny_value *v, const char *what) {
  nyb_status s = fx_run(f, &v, 1);
  CHECK(!s, "%s: %s", what, f->cx->diag.message);
  return s ? NULL : &f->out[0];
}
#endif
