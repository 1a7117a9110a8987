/* Tensor ops of the evaluator against brute force on small shapes: movement, reductions, contractions, control flow,
   symbols, and the errors it must give instead of reading out of range. */
#include "graph_fixture.h"

static double at(const ny_tensor *t, int64_t a, int64_t b, int64_t c, int64_t d) {
  const ny_dim *n = t->type->dim;
  int64_t i[4] = {a, b, c, d}, p = 0;
  for (int k = 0; k < t->type->rank; k++) p = p * n[k] + i[k];
  return fx_get(t, p);
}
#define AT(t, ...) at4((t), (int64_t[4]){__VA_ARGS__})
static double at4(const ny_tensor *t, const int64_t *i) { return at(t, i[0], i[1], i[2], i[3]); }
static bool near(double a, double b) { return (a != a && b != b) || a == b || fabs(a - b) <= 1e-5 * (1 + fabs(b)); }

/* Calls back for every index of a shape of rank <= 4. */
#define EACH(t, i)                                                                                                     \
  for (int64_t i[4] = {0}, n_##i = fx_count((t)->type), k_##i = 0; k_##i < n_##i; k_##i++, next((t)->type, i))
static void next(const ny_type *t, int64_t *i) {
  for (int d = t->rank - 1; d >= 0 && ++i[d] == t->dim[d]; d--) i[d] = 0;
}

static void test_views(void) {
  fx f = fx_new();
  ny_value *x = FX_IN(&f, NY_f32, NULL, 3, 4, 5);
  const ny_tensor *in = &f.in[0];
  ny_value *v[5];
  v[0] = ny_b_transpose(&f.b, x, (int[]){2, 0, 1});
  v[1] = ny_b_slice(&f.b, x, (ny_dim[]){2, 1, 0}, (ny_dim[]){ny_dim_const(f.cx, -1), 2, 3}, (ny_dim[]){3, 2, 2});
  v[2] = ny_b_reshape(&f.b, x, 2, (ny_dim[]){6, 10});
  v[3] = ny_b_broadcast(&f.b, ny_b_slice(&f.b, x, (ny_dim[]){0, 0, 0}, NULL, (ny_dim[]){1, 4, 1}), 4,
                        (ny_dim[]){2, 3, 4, 5});
  v[4] = ny_b_concat(&f.b, (ny_value *[]){x, v[0] ? ny_b_transpose(&f.b, v[0], (int[]){1, 2, 0}) : NULL, x}, 3, 1);
  nyb_status s = fx_run(&f, v, 5);
  CHECK(!s, "views: %s", f.cx->diag.message);
  if (!s) {
    EACH(&f.out[0], i) CHECK_EACH(at4(&f.out[0], i) == AT(in, i[1], i[2], i[0]), "transpose");
    EACH(&f.out[1], i) CHECK_EACH(at4(&f.out[1], i) == AT(in, 2 - i[0], 1 + 2 * i[1], 3 * i[2]), "slice");
    for (int64_t i = 0; i < 60; i++) CHECK(fx_get(&f.out[2], i) == fx_get(in, i), "reshape");
    EACH(&f.out[3], i) CHECK_EACH(at4(&f.out[3], i) == AT(in, 0, i[2], 0), "broadcast");
    EACH(&f.out[4], i) CHECK_EACH(at4(&f.out[4], i) == AT(in, i[0], i[1] % 4, i[2]), "concat");
  }
  fx_free(&f);
}

static double padded(const ny_tensor *x, int mode, int64_t i, int64_t j) {
  int64_t p[2] = {i - 2, j - 1};
  for (int d = 0; d < 2; d++) {
    int64_t n = x->type->dim[d];
    if (mode == 0 && (p[d] < 0 || p[d] >= n)) return 7;
    if (mode == 1) p[d] = p[d] < 0 ? 0 : p[d] >= n ? n - 1 : p[d];
    if (mode == 2) p[d] = p[d] < 0 ? -p[d] : p[d] >= n ? 2 * (n - 1) - p[d] : p[d];
    if (mode == 3) p[d] = (p[d] + n) % n;
  }
  return AT(x, p[0], p[1]);
}

static void test_pad(void) {
  static const char *const modes[] = {"constant", "edge", "reflect", "wrap"};
  for (int m = 0; m < 4; m++) {
    fx f = fx_new();
    ny_value *x = FX_IN(&f, NY_i4, NULL, 3, 5), *seven = ny_b_scalar(&f.b, NY_i4, 7);
    const ny_tensor *t =
        fx_result(&f, ny_b_pad(&f.b, x, seven, (ny_dim[]){2, 1}, (ny_dim[]){1, 3}, NULL, modes[m]), "pad");
    if (t)
      EACH(t, i) CHECK_EACH(at4(t, i) == padded(&f.in[0], m, i[0], i[1]), "pad %s at %d %d", modes[m], (int)i[0], (int)i[1]);
    fx_free(&f);
  }
  fx f = fx_new(); /* interior */
  ny_value *x = FX_IN(&f, NY_f32, NULL, 4);
  const ny_tensor *t = fx_result(&f, ny_b_pad(&f.b, x, NULL, (ny_dim[]){1}, (ny_dim[]){0}, (ny_dim[]){2}, NULL), "pad");
  for (int64_t i = 0; t && i < fx_count(t->type); i++)
    CHECK(fx_get(t, i) == (i >= 1 && (i - 1) % 3 == 0 ? fx_get(&f.in[0], (i - 1) / 3) : 0), "interior pad");
  CHECK(t && fx_count(t->type) == 11, "size of an interior pad");
  fx_free(&f);
}

static ny_value *op2(fx *f, ny_kind k, ny_value *const *in, int n, int axis_slot, int64_t axis) {
  ny_op *op = fx_op(f, k, in, n, NULL);
  if (op && axis_slot >= 0) op->attr[axis_slot].i = axis;
  return fx_infer(f, op);
}

static int64_t clamp_index(int64_t i, int64_t n) { return i < 0 ? (i + n < 0 ? 0 : i + n) : i >= n ? n - 1 : i; }

static void test_gather(void) {
  fx f = fx_new();
  static const double index[] = {0, 3, -1, 1, -9, 9};
  static const double coord[] = {0, 1, 2, -1, 1, 3};
  ny_value *x = FX_IN(&f, NY_i16, NULL, 3, 4, 2), *i = FX_IN(&f, NY_i64, index, 2, 3),
           *e = FX_IN(&f, NY_i32, NULL, 2, 4, 2), *c = FX_IN(&f, NY_i64, coord, 3, 2);
  ny_value *v[4] = {
      ny_b_gather(&f.b, x, i, 1), op2(&f, NY_gather_elements, (ny_value *[]){x, e}, 2, NY_AT(gather_elements, axis), 0),
      op2(&f, NY_gather_nd, (ny_value *[]){x, c}, 2, -1, 0),
      op2(&f, NY_gather_nd,
          (ny_value *[]){x, ny_b_reshape(&f.b, ny_b_slice(&f.b, c, (ny_dim[]){0, 0}, NULL, (ny_dim[]){3, 1}), 2,
                                         (ny_dim[]){3, 1})},
          2, NY_AT(gather_nd, batch), 1)};
  nyb_status s = fx_run(&f, v, 4);
  CHECK(!s, "gather: %s", f.cx->diag.message);
  const ny_tensor *d = &f.in[0];
  if (!s) {
    EACH(&f.out[0], k)
    CHECK(at4(&f.out[0], k) == AT(d, k[0], clamp_index((int64_t)index[k[1] * 3 + k[2]], 4), k[3]), "gather");
    EACH(&f.out[1], k)
    CHECK(at4(&f.out[1], k) == AT(d, clamp_index((int64_t)at4(&f.in[2], k), 3), k[1], k[2]), "gather_elements");
    EACH(&f.out[2], k)
    CHECK(at4(&f.out[2], k) ==
              AT(d, clamp_index((int64_t)coord[k[0] * 2], 3), clamp_index((int64_t)coord[k[0] * 2 + 1], 4), k[1]),
          "gather_nd");
    EACH(&f.out[3], k)
    CHECK(at4(&f.out[3], k) == AT(d, k[0], clamp_index((int64_t)coord[k[0] * 2], 4), k[1]), "gather_nd with batch");
  }
  fx_free(&f);
}

static void test_scatter(void) {
  static const char *const how[] = {"set", "sum", "prod", "max", "min"};
  static const double index[] = {0, 2, 2, -1, 1, 0}, row[] = {2, 0, 2};
  for (int o = 0; o < 5; o++) {
    fx f = fx_new();
    ny_value *x = FX_IN(&f, NY_f32, NULL, 3, 4), *i = FX_IN(&f, NY_i64, index, 3, 2),
             *u = FX_IN(&f, NY_f32, NULL, 3, 2), *r = FX_IN(&f, NY_i64, row, 3, 1), *w = FX_IN(&f, NY_f32, NULL, 3, 4);
    ny_op *e = fx_op(&f, NY_scatter_elements, (ny_value *[]){x, i, u}, 3, x->type),
          *n = fx_op(&f, NY_scatter_nd, (ny_value *[]){x, r, w}, 3, x->type);
    e->attr[NY_AT(scatter_elements, axis)].i = 1;
    e->attr[NY_AT(scatter_elements, op)].s = n->attr[NY_AT(scatter_nd, op)].s = ny_intern(&f.cx->names, how[o]);
    nyb_status s = fx_run(&f, (ny_value *[]){e->out[0], n->out[0]}, 2);
    CHECK(!s, "scatter: %s", f.cx->diag.message);
    double a[12], b[12];
    for (int k = 0; k < 12; k++) a[k] = b[k] = fx_get(&f.in[0], k);
    for (int k = 0; k < 6 + 12; k++) {
      bool el = k < 6;
      double v = fx_get(&f.in[el ? 2 : 4], el ? k : k - 6);
      double *t = el ? &a[k / 2 * 4 + clamp_index((int64_t)index[k], 4)] : &b[(int)row[(k - 6) / 4] * 4 + (k - 6) % 4];
      *t = o == 0   ? v
           : o == 1 ? (double)(float)(*t + v)
           : o == 2 ? (double)(float)(*t * v)
           : o == 3 ? fmax(*t, v)
                    : fmin(*t, v);
    }
    for (int k = 0; k < 12 && !s; k++)
      CHECK(fx_get(&f.out[0], k) == a[k] && fx_get(&f.out[1], k) == b[k], "scatter %s, element %d", how[o], k);
    fx_free(&f);
  }
}

static double fold(int o, double a, double b) {
  return o == 0 ? a + b : o == 1 ? a * b : o == 2 ? (a > b ? a : b) : a < b ? a : b;
}
static const char *const folds[] = {"sum", "prod", "max", "min"};
static const double starts[] = {0, 1, (double)-INFINITY, (double)INFINITY};

static void test_reduce(void) {
  for (int o = 0; o < 4; o++)
    for (int mask = 1; mask < 8; mask++) {
      fx f = fx_new();
      ny_value *x = FX_IN(&f, o & 1 ? NY_f64 : NY_f32, NULL, 3, 4, 5);
      int axes[3], n = 0;
      for (int d = 0; d < 3; d++)
        if (mask >> d & 1) axes[n++] = d;
      const ny_tensor *t = fx_result(&f, ny_b_reduce(&f.b, folds[o], x, axes, n, true), "reduce");
      double want[60];
      for (int i = 0; i < 60; i++) want[i] = starts[o];
      EACH(&f.in[0], i) {
        double *w = &want[(mask & 1 ? 0 : i[0]) * 20 + (mask & 2 ? 0 : i[1]) * 5 + (mask & 4 ? 0 : i[2])];
        *w = fold(o, *w, at4(&f.in[0], i));
      }
      if (t) EACH(t, i) CHECK_EACH(near(at4(t, i), want[i[0] * 20 + i[1] * 5 + i[2]]), "%s over %d", folds[o], mask);
      fx_free(&f);
    }
  static const double v[] = {1, (double)NAN, 3, -2}, bytes[] = {100, 100, -3, 2};
  fx f = fx_new();
  ny_value *x = FX_IN(&f, NY_f16, v, 2, 2), *i = FX_IN(&f, NY_i8, bytes, 2, 2);
  ny_value *r[3] = {ny_b_reduce(&f.b, "max", x, (int[]){1}, 1, false),
                    ny_b_reduce(&f.b, "sum", i, (int[]){0, 1}, 2, false),
                    ny_b_reduce(&f.b, "min", FX_IN(&f, NY_i8, NULL, 0, 2), (int[]){0}, 1, false)};
  nyb_status s = fx_run(&f, r, 3);
  CHECK(!s && isnan(fx_get(&f.out[0], 0)) && fx_get(&f.out[0], 1) == 3, "NaN wins max: %s", f.cx->diag.message);
  CHECK(!s && fx_get(&f.out[1], 0) == -57, "an i8 sum wraps");
  CHECK(!s && fx_get(&f.out[2], 0) == 127, "an empty min is the highest value");
  fx_free(&f);
}

static void test_scan_topk(void) {
  for (int mode = 0; mode < 16; mode++) {
    fx f = fx_new();
    int o = mode & 3;
    bool exclusive = mode & 4, reverse = mode & 8;
    ny_value *x = FX_IN(&f, NY_f64, NULL, 2, 5, 3);
    ny_op *op = fx_op(&f, NY_scan, &x, 1, x->type);
    op->attr[NY_AT(scan, op)].s = ny_intern(&f.cx->names, folds[o]);
    op->attr[NY_AT(scan, axis)].i = 1;
    op->attr[NY_AT(scan, exclusive)].i = exclusive;
    op->attr[NY_AT(scan, reverse)].i = reverse;
    const ny_tensor *t = fx_result(&f, op->out[0], "scan");
    if (t) EACH(t, i) {
        double w = starts[o];
        for (int64_t k = 0; k < 5; k++)
          if (reverse ? k > i[1] || (k == i[1] && !exclusive) : k < i[1] || (k == i[1] && !exclusive))
            w = fold(o, w, AT(&f.in[0], i[0], k, i[2]));
        CHECK_EACH(near(at4(t, i), w), "scan mode %d", mode);
      }
    fx_free(&f);
  }
  static const double v[] = {3, 1, (double)NAN, 3, -1, 0, -0.0, 5};
  static const double want[2][4] = {{2, 7, 0, 3}, {4, 5, 6, 1}};
  for (int largest = 0; largest < 2; largest++) {
    fx f = fx_new();
    ny_value *x = FX_IN(&f, NY_f32, v, 8);
    const ny_type *t[2] = {ny_tensor_type(f.cx, NY_f32, 1, (ny_dim[]){4}),
                           ny_tensor_type(f.cx, NY_i64, 1, (ny_dim[]){4})};
    ny_op *op = ny_build(&f.b, NY_topk, &x, 1, t, 2);
    op->attr[NY_AT(topk, largest)].i = largest;
    nyb_status s = fx_run(&f, op->out, 2);
    for (int i = 0; i < 4; i++)
      CHECK(!s && fx_get(&f.out[1], i) == want[!largest][i], "topk %d: index %g", largest,
            s ? -1 : fx_get(&f.out[1], i));
    fx_free(&f);
  }
  static const double ints[] = {4, 7, 7, 2, 2, 9};
  fx f = fx_new();
  ny_value *x = FX_IN(&f, NY_i32, ints, 2, 3), *r[2];
  for (int last = 0; last < 2; last++) {
    ny_op *op = fx_op(&f, NY_argreduce, &x, 1, NULL);
    op->attr[NY_AT(argreduce, axis)].i = 1;
    op->attr[NY_AT(argreduce, last)].i = last;
    if (last) op->attr[NY_AT(argreduce, op)].s = ny_intern(&f.cx->names, "min");
    r[last] = fx_infer(&f, op);
  }
  nyb_status s = fx_run(&f, r, 2);
  CHECK(!s && fx_get(&f.out[0], 0) == 1 && fx_get(&f.out[0], 1) == 2 && fx_get(&f.out[1], 0) == 0 &&
            fx_get(&f.out[1], 1) == 1,
        "argreduce: %s", f.cx->diag.message);
  fx_free(&f);
}

static void test_window(void) {
  for (int o = 0; o < 2; o++) {
    fx f = fx_new();
    ny_value *x = FX_IN(&f, NY_f32, NULL, 2, 9, 7, 3);
    ny_op *op = fx_op(&f, NY_window, &x, 1, NULL);
    op->attr[NY_AT(window, op)].s = ny_intern(&f.cx->names, o ? "max" : "sum");
    fx_list(&f, op, NY_AT(window, size), (ny_dim[]){1, 3, 2, 1}, 4);
    fx_list(&f, op, NY_AT(window, stride), (ny_dim[]){1, 2, 1, 1}, 4);
    fx_list(&f, op, NY_AT(window, dilation), (ny_dim[]){1, 2, 3, 1}, 4);
    const ny_tensor *t = fx_result(&f, fx_infer(&f, op), "window");
    if (t) EACH(t, i) {
        double w = o ? (double)-INFINITY : 0;
        for (int64_t k = 0; k < 6; k++)
          w = fold(o ? 2 : 0, w, AT(&f.in[0], i[0], i[1] * 2 + k / 2 * 2, i[2] + k % 2 * 3, i[3]));
        CHECK(near(at4(t, i), w), "window");
      }
    fx_free(&f);
  }
}

static void test_rows(void) {
  fx f = fx_new();
  ny_value *x = FX_IN(&f, NY_f32, NULL, 3, 4, 5), *scale = FX_IN(&f, NY_f32, NULL, 4, 5),
           *bias = FX_IN(&f, NY_f32, NULL, 5);
  ny_op *sm = fx_op(&f, NY_softmax, &x, 1, x->type),
        *ln = fx_op(&f, NY_layer_norm, (ny_value *[]){x, scale, bias}, 3, x->type),
        *rn = fx_op(&f, NY_rms_norm, &x, 1, x->type);
  sm->attr[NY_AT(softmax, axis)].i = 1;
  ln->attr[NY_AT(layer_norm, axis)].i = 1;
  nyb_status s = fx_run(&f, (ny_value *[]){sm->out[0], ln->out[0], rn->out[0]}, 3);
  CHECK(!s, "rows: %s", f.cx->diag.message);
  const ny_tensor *d = &f.in[0];
  if (!s) EACH(d, i) {
      double sum = 0, mean = 0, var = 0, square = 0;
      for (int64_t k = 0; k < 4; k++) sum += exp(AT(d, i[0], k, i[2]));
      for (int64_t k = 0; k < 20; k++) mean += fx_get(d, i[0] * 20 + k) / 20;
      for (int64_t k = 0; k < 20; k++) var += pow(fx_get(d, i[0] * 20 + k) - mean, 2) / 20;
      for (int64_t k = 0; k < 5; k++) square += pow(AT(d, i[0], i[1], k), 2) / 5;
      CHECK(near(at4(&f.out[0], i), exp(at4(d, i)) / sum), "softmax");
      CHECK(near(at4(&f.out[1], i),
                 (at4(d, i) - mean) / sqrt(var + 1e-5) * AT(&f.in[1], i[1], i[2]) + fx_get(&f.in[2], i[2])),
            "layer_norm");
      CHECK(near(at4(&f.out[2], i), at4(d, i) / sqrt(square + 1e-5)), "rms_norm");
    }
  fx_free(&f);
}

/* Codes in blocks of 4 along the middle dim, the last block short; scales shared along the first. */
static void test_dequantize(void) {
  for (int zeros = 0; zeros < 2; zeros++) {
    fx f = fx_new();
    ny_value *x = FX_IN(&f, zeros ? NY_u4 : NY_f4e2m1, NULL, 2, 10, 3), *s = FX_IN(&f, NY_f8e4m3, NULL, 1, 3, 3),
             *z = FX_IN(&f, NY_u4, NULL, 2, 3, 1);
    ny_value *y = ny_b_dequantize(&f.b, NY_f32, x, s, zeros ? z : NULL, 1, 4);
    const ny_tensor *t = fx_result(&f, y, "dequantize");
    if (t) EACH(t, i) {
        double zero = zeros ? AT(&f.in[2], i[0], i[1] / 4, 0) : 0;
        CHECK_EACH(at4(t, i) == (at4(&f.in[0], i) - zero) * AT(&f.in[1], 0, i[1] / 4, i[2]), "dequantize");
      }
    fx_free(&f);
  }
}

static void test_matmul(void) {
  for (int packed = 0; packed < 2; packed++)
    for (int ints = 0; ints < 2; ints++) {
      fx f = fx_new();
      int64_t m = 19, k = 7, n = 10, p = 4;
      ny_fmt in = ints ? NY_i8 : NY_f32, to = ints ? NY_i32 : NY_f32;
      ny_value *x = FX_IN(&f, in, NULL, 2, 1, m, k),
               *y = packed ? FX_IN(&f, in, NULL, 3, k, p) : FX_IN(&f, in, NULL, 3, k, n);
      const ny_type *t = ny_tensor_type(f.cx, to, packed ? 4 : 4, (ny_dim[]){2, packed ? 1 : 3, m, n});
      ny_op *op = fx_op(&f, NY_matmul, (ny_value *[]){x, y}, 2, t);
      op->attr[NY_AT(matmul, packed)].i = packed ? p : 0;
      const ny_tensor *r = fx_result(&f, fx_infer(&f, op), "matmul");
      if (r) EACH(r, i) {
          double w = 0;
          for (int64_t j = 0; j < k; j++)
            w += AT(&f.in[0], i[0], 0, i[2], j) *
                 (packed ? AT(&f.in[1], i[3] / p, j, i[3] % p) : AT(&f.in[1], i[1], j, i[3]));
          CHECK_EACH(ints ? at4(r, i) == w : near(at4(r, i), w), "matmul packed %d", packed);
        }
      fx_free(&f);
    }
}

static void test_conv(void) {
  for (int mode = 0; mode < 6; mode++) {
    fx f = fx_new();
    int64_t g = mode >= 4 ? 6 : mode >= 2 ? 2 : 1, c = 6 / g, m = 12 / g, p = 5, panels = (m + p - 1) / p;
    bool packed = mode & 1;
    ny_value *x = FX_IN(&f, NY_f32, NULL, 2, 9, 8, 6),
             *w = packed ? FX_IN(&f, NY_f32, NULL, g, panels, 6 * c, p) : FX_IN(&f, NY_f32, NULL, 3, 2, c, 12);
    const ny_type *t = ny_tensor_type(f.cx, NY_f32, 4, (ny_dim[]){2, 4, 5, 12});
    ny_op *op = fx_op(&f, NY_conv, (ny_value *[]){x, w}, 2, t);
    fx_list(&f, op, NY_AT(conv, kernel), (ny_dim[]){3, 2}, 2);
    fx_list(&f, op, NY_AT(conv, stride), (ny_dim[]){2, 1}, 2);
    fx_list(&f, op, NY_AT(conv, dilation), (ny_dim[]){1, 3}, 2);
    op->attr[NY_AT(conv, group)].i = g;
    op->attr[NY_AT(conv, packed)].i = packed ? p : 0;
    const ny_tensor *r = fx_result(&f, fx_infer(&f, op), "conv");
    if (r) EACH(r, i) {
        double sum = 0;
        int64_t gr = i[3] / m, j = i[3] % m;
        for (int64_t k = 0; k < 6 * c; k++) {
          int64_t tap = k / c, ch = k % c;
          double wt = packed ? AT(&f.in[1], gr, j / p, k, j % p) : AT(&f.in[1], tap / 2, tap % 2, ch, i[3]);
          sum += wt * AT(&f.in[0], i[0], i[1] * 2 + tap / 2, i[2] + tap % 2 * 3, gr * c + ch);
        }
        CHECK_EACH(near(at4(r, i), sum), "conv mode %d", mode);
      }
    fx_free(&f);
  }
}

static void test_attention(void) {
  for (int mode = 0; mode < 3; mode++) {
    fx f = fx_new();
    ny_value *in[4] = {FX_IN(&f, NY_f32, NULL, 2, 3, 4, 5), FX_IN(&f, NY_f32, NULL, 2, 3, 6, 5),
                       FX_IN(&f, NY_f32, NULL, 2, 3, 6, 2), FX_IN(&f, NY_f32, NULL, 2, 1, 1, 6)};
    const ny_type *t = ny_tensor_type(f.cx, NY_f32, 4, (ny_dim[]){2, 3, 4, 2});
    ny_op *op = fx_op(&f, NY_attention, in, mode == 1 ? 4 : 3, t);
    op->attr[NY_AT(attention, scale)].f = 0.5;
    op->attr[NY_AT(attention, causal)].i = mode == 2;
    const ny_tensor *r = fx_result(&f, op->out[0], "attention");
    if (r) EACH(r, i) {
        double sum = 0, w = 0;
        for (int64_t j = 0; j < 6; j++) {
          double s = mode == 1 ? AT(&f.in[3], i[0], 0, 0, j) : 0;
          for (int64_t d = 0; d < 5; d++) s += 0.5 * AT(&f.in[0], i[0], i[1], i[2], d) * AT(&f.in[1], i[0], i[1], j, d);
          if (mode == 2 && j > i[2]) continue;
          sum += exp(s), w += exp(s) * AT(&f.in[2], i[0], i[1], j, i[3]);
        }
        CHECK(near(at4(r, i), w / sum), "attention mode %d", mode);
      }
    fx_free(&f);
  }
}

int main(void) {
  test_views();
  test_pad();
  test_gather();
  test_scatter();
  test_reduce();
  test_scan_topk();
  test_window();
  test_rows();
  test_dequantize();
  test_matmul();
  test_conv();
  test_attention();
  return test_end("eval_ops_test");
}
