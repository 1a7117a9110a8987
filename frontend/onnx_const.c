/* What is known at import: constants of the file, and values computed from constants alone. The IR has no shape
   tensors, so the integers a model computes for Reshape, Slice and the like must be settled here: small integer results
   become `const` or `dims` at once, which keeps every later question one step deep however long the chain that computed
   them. */
#include <string.h>
#include "onnx_import.h"

enum { MAX_CONST_BYTES = 1 << 20, MAX_CONST_DEPTH = 96, MAX_SETTLED = 64, MAX_WORK = 1 << 28 };

ny_value *ny_const_value(ny_import *im, const ny_type *t, const ny_blob *blob, const ny_loc *loc) {
  ny_builder b = {.g = im->g, .block = &im->g->body, .loc = loc};
  b.before = im->last_const ? im->last_const->next : im->g->body.first;
  ny_value *v = ny_b_const(&b, t, blob);
  if (v) im->last_const = v->def;
  return v;
}

static const ny_type *static_type(ny_import *im, ny_fmt f, int rank, const int64_t *shape) {
  ny_dim d[NY_MAX_RANK];
  for (int i = 0; i < rank; i++) d[i] = ny_dim_const(im->cx, shape[i]);
  return ny_tensor_type(im->cx, f, rank, d);
}

ny_value *ny_file_tensor(ny_import *im, ny_bytes proto, bool sparse, const ny_loc *loc) {
  static const uint8_t none[1];
  ny_name key = (ny_name)(const void *)(proto.n ? proto.p : none);
  uint32_t *found = ny_name_find(&im->tensors, key);
  if (!found) {
    ny_cached c = {0};
    nyb_status s = sparse ? ny_onnx_sparse_read(im->cx, &im->files, proto, &c.t)
                          : ny_onnx_tensor_read(im->cx, &im->files, proto, &c.t);
    if (s) {
      if (loc && !im->cx->diag.has_loc) im->cx->diag.loc = *loc, im->cx->diag.has_loc = true;
      return NULL;
    }
    c.blob = ny_blob_new(im->unit, c.t.data, c.t.bytes, c.t.file, c.t.offset);
    found = ny_name_put(&im->tensors, &im->a, key, im->n_cached);
    NY_PUSH_ROOM(&im->a, im->cached, im->n_cached, im->cap_cached);
    im->cached[im->n_cached++] = c;
  }
  ny_cached *c = &im->cached[*found];
  if (!c->v) {
    c->v = ny_const_value(im, static_type(im, c->t.fmt, c->t.rank, c->t.dim), c->blob, loc);
    if (c->v && c->t.name && *c->t.name) ny_name_value(im, c->v, c->t.name);
  }
  return c->v;
}

ny_value *ny_const_data(ny_node *n, ny_fmt f, int rank, const int64_t *shape, const void *data) {
  const ny_type *t = static_type(n->im, f, rank, shape);
  int64_t count = 0;
  if (!ny_type_static_count(n->cx, t, &count)) {
    ny_node_fail(n, NYB_E_LIMIT, "a constant of this size cannot be made");
    return NULL;
  }
  uint64_t bytes = ny_fmt_bytes(f, (uint64_t)count);
  if (bytes > n->im->budget) {
    ny_node_fail(n, NYB_E_LIMIT, "constants made during import need more memory than the model's size justifies");
    return NULL;
  }
  n->im->budget -= bytes;
  void *copy = ny_alloc(&n->unit->arena, bytes + 1);
  memcpy(copy, data, bytes);
  return ny_const_value(n->im, t, ny_blob_new(n->unit, copy, bytes, NULL, 0), n->b.loc);
}

static int64_t count_of(int rank, const int64_t *shape) {
  int64_t c = 1;
  for (int i = 0; i < rank; i++) c *= shape[i];
  return c;
}

ny_value *ny_const_floats(ny_node *n, ny_fmt f, int rank, const int64_t *shape, const double *data) {
  int64_t count = count_of(rank, shape);
  void *p = ny_alloc(n->tmp, ny_fmt_bytes(f, (uint64_t)count) + 1);
  for (int64_t i = 0; i < count; i++) {
    if (ny_is_float(f))
      ny_put_f(f, p, (uint64_t)i, data[i], false);
    else
      ny_put_i(f, p, (uint64_t)i, (int64_t)data[i]);
  }
  return ny_const_data(n, f, rank, shape, p);
}

ny_value *ny_const_ints(ny_node *n, ny_fmt f, int rank, const int64_t *shape, const int64_t *data) {
  int64_t count = count_of(rank, shape);
  void *p = ny_alloc(n->tmp, ny_fmt_bytes(f, (uint64_t)count) + 1);
  for (int64_t i = 0; i < count; i++) {
    if (ny_is_float(f))
      ny_put_f(f, p, (uint64_t)i, (double)data[i], false);
    else
      ny_put_i(f, p, (uint64_t)i, data[i]);
  }
  return ny_const_data(n, f, rank, shape, p);
}

/* ---- Values computed from constants */
static void *scratch_copy(ny_import *im, const ny_type *t, const void *data) {
  int64_t count = 0;
  ny_type_static_count(im->cx, t, &count);
  uint64_t bytes = ny_fmt_bytes((ny_fmt)t->fmt, (uint64_t)count);
  void *p = ny_alloc(&im->a, bytes + 1);
  if (data) memcpy(p, data, bytes);
  return p;
}

static bool splat_value(ny_import *im, const ny_op *op, const ny_type *t, ny_tensor *out) {
  int64_t count = 0;
  ny_type_static_count(im->cx, t, &count);
  double x = op->attr[NY_AT(const, splat)].f;
  out->type = t;
  out->data = scratch_copy(im, t, NULL);
  for (int64_t i = 0; i < count; i++) {
    if (ny_is_float((ny_fmt)t->fmt))
      ny_put_f((ny_fmt)t->fmt, out->data, (uint64_t)i, x, false);
    else
      ny_put_i((ny_fmt)t->fmt, out->data, (uint64_t)i, (int64_t)x);
  }
  return true;
}

static bool dims_value(ny_import *im, const ny_op *op, const ny_type *t, ny_tensor *out) {
  const ny_attr *at = &op->attr[NY_AT(dims, v)];
  out->type = t;
  out->data = ny_alloc(&im->a, at->dims.n * 8 + 1);
  for (uint32_t i = 0; i < at->dims.n; i++) {
    int64_t x;
    if (!ny_dim_is_const(im->cx, at->dims.v[i], &x)) return false;
    ny_put_i(NY_i64, out->data, i, x);
  }
  return true;
}

static bool known_value(ny_import *im, ny_value *v, ny_tensor *out);

/* Work is bounded for the whole import: elements read and written, and products where sizes multiply. */
static bool affordable(ny_import *im, const ny_op *op, const ny_value *v) {
  int64_t n = 0, read = 0, product = 1;
  ny_type_static_count(im->cx, v->type, &n);
  bool picks = op->kind == NY_gather || op->kind == NY_slice || op->kind == NY_gather_nd;
  for (int i = 0; i < op->n_in; i++) {
    int64_t k = 0;
    if (!ny_type_static_count(im->cx, ny_in(op, i)->type, &k)) return false;
    read += picks && i == 0 ? 0 : k;
    if (__builtin_mul_overflow(product, k ? k : 1, &product)) product = INT64_MAX;
  }
  bool multiplies = op->kind == NY_matmul || op->kind == NY_conv || op->kind == NY_attention || op->kind == NY_window;
  if (multiplies) read = product;
  if (read > MAX_WORK || (im->work += (uint64_t)(n + read)) > MAX_WORK) return false;
  return true;
}

static bool evaluate(ny_import *im, ny_op *op, ny_value *v, ny_tensor *out) {
  ny_tensor in[16], res[4];
  if (!affordable(im, op, v)) return false;
  if (op->n_body || !(ny_kinds[op->kind].flags & NY_PURE) || op->n_in > NY_COUNT(in) || op->n_out > NY_COUNT(res))
    return false;
  for (int i = 0; i < op->n_in; i++)
    if (!known_value(im, ny_in(op, i), &in[i])) return false;
  memset(res, 0, sizeof res);
  if (ny_eval_op(im->g, op, in, &im->a, res)) {
    ny_diag_clear(&im->cx->diag);
    return false;
  }
  *out = res[v->index];
  return true;
}

static bool compute(ny_import *im, ny_value *v, ny_tensor *out) {
  ny_op *op = v->def;
  int64_t count;
  if (!op || !ny_type_static_count(im->cx, v->type, &count)) return false;
  if (op->kind == NY_const && op->attr[NY_AT(const, data)].blob) {
    *out = (ny_tensor){v->type, (void *)(uintptr_t)op->attr[NY_AT(const, data)].blob->data};
    return true;
  }
  uint64_t bytes = ny_fmt_bytes((ny_fmt)v->type->fmt, (uint64_t)count);
  if (bytes > MAX_CONST_BYTES || bytes > im->budget) return false;
  im->budget -= bytes;
  if (op->kind == NY_const) return splat_value(im, op, v->type, out);
  if (op->kind == NY_dims) return dims_value(im, op, v->type, out);
  return evaluate(im, op, v, out);
}

static bool known_value(ny_import *im, ny_value *v, ny_tensor *out) {
  if (v->id >= im->cap_known) {
    uint32_t cap = v->id * 2 + 64;
    im->known = ny_grow(&im->a, im->known, im->cap_known * sizeof *im->known, cap * sizeof *im->known);
    im->known_state = ny_grow(&im->a, im->known_state, im->cap_known, cap);
    im->cap_known = cap;
  }
  if (!im->known_state[v->id]) {
    if (im->const_depth >= MAX_CONST_DEPTH) return false;
    ny_tensor t = {0};
    im->const_depth++;
    bool ok = compute(im, v, &t);
    im->const_depth--;
    im->known[v->id] = t;
    im->known_state[v->id] = ok ? 1 : 2;
  }
  *out = im->known[v->id];
  return im->known_state[v->id] == 1;
}

bool ny_value_const(ny_node *n, ny_value *v, ny_tensor *out) {
  return v && !n->cx->diag.code && known_value(n->im, v, out);
}
bool ny_onnx_const(ny_node *n, int i, ny_tensor *out) { return ny_value_const(n, ny_opt(n, i), out); }

static bool all_const(ny_import *im, const ny_dim *d, int n) {
  for (int i = 0; i < n; i++)
    if (!ny_dim_is_const(im->cx, d[i], NULL)) return false;
  return true;
}

/* Leaves v as it is when it is not small, not integral or not known. */
ny_value *ny_settle(ny_import *im, ny_builder *b, ny_value *v) {
  ny_fmt f = (ny_fmt)v->type->fmt;
  int64_t count;
  if (!v->def || v->def->kind == NY_const || v->def->kind == NY_dims || !(ny_is_int(f) || f == NY_bool)) return v;
  if (!ny_type_static_count(im->cx, v->type, &count) || count > MAX_SETTLED || im->cx->diag.code) return v;
  ny_tensor t;
  if (known_value(im, v, &t)) {
    uint64_t bytes = ny_fmt_bytes(f, (uint64_t)count);
    void *copy = ny_alloc(&im->unit->arena, bytes + 1);
    memcpy(copy, t.data, bytes);
    ny_value *c = ny_const_value(im, v->type, ny_blob_new(im->unit, copy, bytes, NULL, 0), v->def->loc);
    return c ? c : v;
  }
  ny_dim d[MAX_SETTLED];
  int n = 0;
  bool short_list = f == NY_i64 && v->type->rank <= 1;
  if (!short_list || !ny_symbolic_values(im->g, v, d, MAX_SETTLED, &n) || all_const(im, d, n)) return v;
  ny_value *dims = ny_b_dims(b, d, n, v->type->rank == 0);
  return dims ? dims : v;
}
