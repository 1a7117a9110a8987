/* Edits a model as it is told (for tests/onnx_edit.py): onnx_edit_tool IN OUT LIMIT [opset N | mul VALUE | add VALUE |
   nvfp4|mxfp4|int4|int8 NAME AXIS | conv NAME]... `mul` and `add` put numbers near 1 and 0 after a value; the
   quantisers round to nearest. */
#include "onnx_edit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static ny_arena a;

static ny_edit_tensor scalar(float x) {
  float *p = ny_alloc(&a, 4);
  *p = x;
  return (ny_edit_tensor){.fmt = NY_f32, .data = p};
}

static float element(const ny_edit_tensor *t, int64_t i) { return (float)ny_get_f(t->fmt, t->data, (uint64_t)i); }

/* Codes and scales of [outer, n, inner], blocks of n. */
typedef struct shape3 {
  int64_t outer, n, inner, block, blocks;
} shape3;

static void rounded(const ny_edit_tensor *w, ny_edit_quant *q, shape3 s, float top, float whole) {
  for (int64_t o = 0; o < s.outer; o++)
    for (int64_t i = 0; i < s.inner; i++)
      for (int64_t b = 0; b < s.blocks; b++) {
        int64_t last = (b + 1) * s.block < s.n ? (b + 1) * s.block : s.n, at = (o * s.blocks + b) * s.inner + i;
        float m = 0;
        for (int64_t k = b * s.block; k < last; k++) m = fmaxf(m, fabsf(element(w, (o * s.n + k) * s.inner + i)));
        float scale = m == 0 ? 1 : m / top / whole;
        if (q->scale.fmt == NY_f8e8m0) scale = exp2f(ceilf(log2f(scale)));
        ny_put_f(q->scale.fmt, (void *)(uintptr_t)q->scale.data, (uint64_t)at, (double)scale, true);
        scale = element(&q->scale, at) * whole;
        for (int64_t k = b * s.block; k < last; k++) {
          int64_t to = (o * s.n + k) * s.inner + i;
          float x = scale == 0 ? 0 : element(w, to) / scale;
          if (ny_is_float(q->codes.fmt))
            ny_put_f(q->codes.fmt, (void *)(uintptr_t)q->codes.data, (uint64_t)to, (double)x, true);
          else
            ny_put_i(q->codes.fmt, (void *)(uintptr_t)q->codes.data, (uint64_t)to, (int64_t)rintf(x));
        }
      }
}

static nyb_status quantize(ny_edit *e, const char *how, const char *name, int axis, bool conv) {
  static int last_first[] = {0, 3, 1, 2};
  ny_edit_tensor w;
  ny_edit_init *in = ny_edit_find_init(e, name);
  if (!in) return ny_fail(&e->cx->diag, NYB_E_ARGUMENT, NULL, "no initializer %s", name);
  NY_TRY(ny_edit_tensor_of(e, in, &w));
  if (conv) { /* [m, c, kh, kw] stored as [m, kh*kw*c] */
    float *p = ny_alloc(&a, (size_t)(w.dim[0] * w.dim[1] * w.dim[2] * w.dim[3]) * 4);
    int64_t hw = w.dim[2] * w.dim[3];
    for (int64_t m = 0; m < w.dim[0]; m++)
      for (int64_t c = 0; c < w.dim[1]; c++)
        for (int64_t k = 0; k < hw; k++) p[(m * hw + k) * w.dim[1] + c] = element(&w, (m * w.dim[1] + c) * hw + k);
    w.data = p;
  }
  bool nv = !strcmp(how, "nvfp4"), mx = !strcmp(how, "mxfp4"), i4 = !strcmp(how, "int4");
  ny_edit_quant q = {.axis = axis, .block = nv ? 16 : mx ? 32 : i4 ? 32 : 0, .fmt = w.fmt, .rank = -1};
  if (conv) {
    q.rank = 4, q.perm = last_first;
    memcpy(q.dim, (int64_t[]){w.dim[0], w.dim[2], w.dim[3], w.dim[1]}, 4 * sizeof *q.dim);
    w.rank = 2, w.dim[1] = w.dim[1] * w.dim[2] * w.dim[3];
  }
  shape3 s = {1, w.dim[axis], 1, q.block ? q.block : w.dim[axis], 0};
  for (int i = 0; i < axis; i++) s.outer *= w.dim[i];
  for (int i = axis + 1; i < w.rank; i++) s.inner *= w.dim[i];
  s.blocks = (s.n + s.block - 1) / s.block;
  float top = nv || mx ? 6 : i4 ? 7 : 127, whole = 1, m = 0;
  for (int64_t i = 0; i < s.outer * s.n * s.inner; i++) m = fmaxf(m, fabsf(element(&w, i)));
  if (nv) whole = m / 6 / 448, q.tensor_scale = scalar(whole);
  q.codes = w, q.scale = w;
  q.codes.fmt = nv || mx ? NY_f4e2m1 : i4 ? NY_i4 : NY_i8;
  q.scale.fmt = nv ? NY_f8e4m3 : mx ? NY_f8e8m0 : w.fmt;
  q.scale.dim[axis] = s.blocks;
  q.codes.data = ny_alloc(&a, (size_t)(s.outer * s.n * s.inner) + 8);
  q.scale.data = ny_alloc(&a, (size_t)(s.outer * s.blocks * s.inner) * 4 + 8);
  if (!strcmp(how, "int8")) { /* per slice of axis 0, the usual form: blocks are whole rows */
    if (axis != 1 || w.rank != 2) return ny_fail(&e->cx->diag, NYB_E_ARGUMENT, NULL, "int8 wants axis 1 of a matrix");
    q.axis = 0, q.scale.rank = 1;
  }
  rounded(&w, &q, s, top, whole);
  return ny_edit_quantize(e, name, &q);
}

static nyb_status step(ny_edit *e, char **v, int *used) {
  ny_edit_tensor t = scalar(!strcmp(v[0], "mul") ? 1.25f : 0.125f);
  *used = 2;
  if (!strcmp(v[0], "opset")) return ny_edit_raise_opset(e, atoi(v[1]));
  if (!strcmp(v[0], "mul")) return ny_edit_insert(e, v[1], "Mul", "factor", &t);
  if (!strcmp(v[0], "add")) return ny_edit_insert(e, v[1], "Add", "offset", &t);
  if (!strcmp(v[0], "mul_at")) { /* the last reader of a value */
    ny_edit_use *use;
    uint32_t n = ny_edit_uses(e, v[1], &use);
    t = scalar(1.25f);
    return n ? ny_edit_insert_at(e, use[n - 1].node, use[n - 1].input, "Mul", "factor", &t) : NYB_E_ARGUMENT;
  }
  if (!strcmp(v[0], "conv")) return quantize(e, "nvfp4", v[1], 1, true);
  *used = 3;
  return quantize(e, v[0], v[1], atoi(v[2]), false);
}

int main(int argc, char **argv) {
  ny_ctx *cx = ny_ctx_new();
  ny_edit *e = NULL;
  if (argc < 4) return 2;
  nyb_status s = ny_edit_open(cx, argv[1], &e);
  for (int i = 4, used = 0; !s && i + 1 < argc; i += used) s = step(e, argv + i, &used);
  if (!s) s = ny_edit_write(e, argv[2], strtoull(argv[3], NULL, 10));
  if (s) {
    ny_text t = {0};
    ny_diag_print(&cx->diag, &t);
    fprintf(stderr, "%s\n", t.s);
    ny_text_free(&t);
  }
  ny_edit_close(e);
  ny_arena_free(&a);
  ny_ctx_free(cx);
  return s ? 1 : 0;
}
