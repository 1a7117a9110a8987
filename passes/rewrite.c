/* What passes share: recognising constants, replacing, cloning, comparing ops, walking blocks. */
#include "rewrite.h"

#include <math.h>
#include <string.h>

ny_builder ny_before(ny_graph *g, ny_op *op) {
  return (ny_builder){.g = g, .block = op->parent, .before = op, .loc = op->loc};
}

static const ny_op *const_of(const ny_value *v) {
  for (int i = 0; i < 8 && v->def && v->def->kind == NY_broadcast; i++) v = ny_in(v->def, 0);
  return ny_def(v, NY_const);
}

static bool uniform_bytes(const ny_op *c, uint64_t *n_elements) {
  const ny_type *t = c->out[0]->type;
  const ny_blob *b = c->attr[NY_AT(const, data)].blob;
  uint64_t n = 1, w = ny_fmts[t->fmt].bits / 8u;
  for (int i = 0; i < t->rank; i++) {
    if (t->dim[i] < 0 || (t->dim[i] && n > (uint64_t)INT64_MAX / (uint64_t)t->dim[i])) return false;
    n *= (uint64_t)t->dim[i];
  }
  *n_elements = n;
  if (!b || n == 1) return true;
  return n && w && b->bytes >= n * w && memcmp(b->data, b->data + w, (n - 1) * w) == 0;
}

bool ny_is_uniform(const ny_value *v) {
  const ny_op *c = const_of(v);
  uint64_t n;
  return c && uniform_bytes(c, &n);
}

bool ny_uniform(const ny_value *v, double *x) {
  const ny_op *c = const_of(v);
  uint64_t n;
  if (!c || !uniform_bytes(c, &n)) return false;
  ny_fmt f = (ny_fmt)c->out[0]->type->fmt;
  const ny_blob *b = c->attr[NY_AT(const, data)].blob;
  if (!b) {
    *x = c->attr[NY_AT(const, splat)].f;
    return true;
  }
  if (ny_is_float(f)) {
    *x = ny_get_f(f, b->data, 0);
    return true;
  }
  if (!ny_is_int(f) && f != NY_bool) return false;
  int64_t i = ny_get_i(f, b->data, 0);
  if (i > (int64_t)1 << 53 || i < -((int64_t)1 << 53)) return false;
  *x = (double)i;
  return true;
}

ny_value *ny_b_splat(ny_builder *b, const ny_type *t, double x) {
  int64_t n;
  if (!ny_type_static_count(b->g->cx, t, &n)) return NULL;
  if ((x == 0 && signbit(x)) || ny_fmts[t->fmt].kind == 'S') return NULL;
  ny_op *op = ny_build(b, NY_const, NULL, 0, &t, 1);
  if (!op) return NULL;
  op->attr[NY_AT(const, splat)].f = x;
  return op->out[0];
}

/* A constant expression costs time and memory when the module is written, so it may not be much larger than the
   constants it is made of. What holds for an expression holds for its parts. */
typedef struct cone {
  double leaves, work; /* elements */
} cone;

static double elements(const ny_value *v) {
  double n = 1;
  for (int i = 0; i < v->type->rank; i++) n *= v->type->dim[i] < 0 ? 1e30 : (double)v->type->dim[i];
  return n;
}

static double work_of(const ny_op *op) {
  double n = elements(op->out[0]), product = 1;
  for (int i = 0; i < op->n_in; i++) n = fmax(n, elements(ny_in(op, i))), product *= fmax(1, elements(ny_in(op, i)));
  bool multiplies = op->kind == NY_matmul || op->kind == NY_conv || op->kind == NY_attention;
  return !multiplies ? op->kind == NY_window ? 64 * n : n : sqrt(product * fmax(1, elements(op->out[0])));
}

static bool constant(const ny_value *v, int depth, int *visits, cone *c) {
  const double fixed = 1 << 22, most = 8, most_work = 64;
  const ny_op *op = v->def;
  if (!op || depth > 64 || op->n_body || !ny_is_pure(op) || op->kind == NY_launch || --*visits < 0) return false;
  if (op->kind == NY_const) {
    if (op->attr[NY_AT(const, data)].blob) c->leaves += elements(v);
    return true;
  }
  if (op->n_in == 0 || op->kind == NY_broadcast)
    return false; /* dims, iota and stretching are cheaper computed than read */
  if (op->kind == NY_dequantize) return false; /* quantised weights stay codes */
  cone own = {0, work_of(op)};
  for (int i = 0; i < op->n_in; i++)
    if (!constant(ny_in(op, i), depth + 1, visits, &own)) return false;
  c->leaves += own.leaves, c->work += own.work;
  return elements(v) <= fixed + most * own.leaves && own.work <= fixed + most_work * own.leaves;
}

bool ny_is_constant(const ny_value *v) {
  cone c = {0};
  int visits = 256;
  return constant(v, 0, &visits, &c);
}

bool ny_same_shape(const ny_type *a, const ny_type *b) {
  return a->rank == b->rank && memcmp(a->dim, b->dim, sizeof a->dim[0] * a->rank) == 0;
}

void ny_replace_op(ny_op *op, ny_value *v) {
  if (!v->name && v->def) v->name = op->out[0]->name;
  ny_replace(op->out[0], v);
  ny_erase(op);
}

ny_op *ny_clone(ny_graph *g, ny_block *b, ny_op *before, const ny_op *op, ny_value *const *in) {
  const ny_type *out[16];
  for (int i = 0; i < op->n_out && i < 16; i++) out[i] = op->out[i]->type;
  ny_op *c = ny_op_new(g, b, (ny_kind)op->kind, in, op->n_in, out, op->n_out);
  if (ny_kinds[op->kind].n_attr) memcpy(c->attr, op->attr, sizeof *op->attr * ny_kinds[op->kind].n_attr);
  c->loc = op->loc;
  if (before) ny_move(c, b, before);
  return c;
}

static bool same_blob(const ny_blob *a, const ny_blob *b) {
  if (a == b) return true;
  return a && b && a->bytes == b->bytes && (a->data == b->data || memcmp(a->data, b->data, a->bytes) == 0);
}

static bool same_attr(const ny_attr_info *info, const ny_attr *a, const ny_attr *b) {
  switch (info->kind) {
  case NY_I64: return a->i == b->i;
  case NY_F64: return memcmp(&a->f, &b->f, sizeof a->f) == 0;
  case NY_NAME: return a->s == b->s || (a->s && b->s && !strcmp(a->s, b->s));
  case NY_DIM: return a->d == b->d;
  case NY_DIMS:
    return a->dims.n == b->dims.n && (!a->dims.n || !memcmp(a->dims.v, b->dims.v, a->dims.n * sizeof *a->dims.v));
  case NY_NAMES:
    return a->names.n == b->names.n &&
           (!a->names.n || !memcmp(a->names.v, b->names.v, a->names.n * sizeof *a->names.v));
  case NY_BLOB: return same_blob(a->blob, b->blob);
  }
  return false;
}

bool ny_same_attrs(const ny_op *a, const ny_op *b) {
  const ny_kind_info *ki = &ny_kinds[a->kind];
  for (int i = 0; i < ki->n_attr; i++)
    if (!same_attr(&ki->attr[i], &a->attr[i], &b->attr[i])) return false;
  return true;
}

bool ny_same_op(const ny_op *a, const ny_op *b) {
  if (a->kind != b->kind || a->n_in != b->n_in || a->n_out != b->n_out || a->n_body || b->n_body) return false;
  for (int i = 0; i < a->n_in; i++)
    if (ny_in(a, i) != ny_in(b, i)) return false;
  for (int i = 0; i < a->n_out; i++)
    if (a->out[i]->type != b->out[i]->type) return false;
  return ny_same_attrs(a, b);
}

static uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * 0x9e3779b97f4a7c15u;
  return h ^ h >> 29;
}

static uint64_t blob_hash(const ny_blob *b) {
  uint64_t h = b->bytes;
  for (uint64_t i = 0; i < b->bytes && i < 256; i++) h = mix(h, b->data[i]);
  return h;
}

uint64_t ny_op_hash(const ny_op *op) {
  const ny_kind_info *ki = &ny_kinds[op->kind];
  uint64_t h = mix(op->kind, op->n_in);
  for (int i = 0; i < op->n_in; i++) h = mix(h, ny_in(op, i)->id);
  for (int i = 0; i < op->n_out; i++) h = mix(h, (uintptr_t)op->out[i]->type);
  for (int i = 0; i < ki->n_attr; i++) {
    const ny_attr *a = &op->attr[i];
    if (ki->attr[i].kind == NY_I64 || ki->attr[i].kind == NY_DIM) h = mix(h, (uint64_t)a->i);
    if (ki->attr[i].kind == NY_DIMS)
      for (uint32_t j = 0; j < a->dims.n; j++) h = mix(h, (uint64_t)a->dims.v[j]);
    if (ki->attr[i].kind == NY_BLOB && a->blob) h = mix(h, blob_hash(a->blob));
  }
  return h;
}

nyb_status ny_each_block(ny_block *b, void *user, ny_block_fn *fn) {
  NY_TRY(fn(user, b));
  for (ny_op *op = b->first; op; op = op->next)
    for (int i = 0; i < op->n_body; i++) NY_TRY(ny_each_block(op->body[i], user, fn));
  return NYB_OK;
}

static bool unused(const ny_op *op) {
  for (int i = 0; i < op->n_out; i++)
    if (op->out[i]->uses) return false;
  return true;
}

bool ny_drop_dead(ny_block *b) {
  bool changed = false;
  for (ny_op *op = b->last, *prev; op; op = prev) {
    prev = op->prev;
    if ((ny_is_pure(op) || op->kind == NY_random) && unused(op)) {
      ny_erase(op);
      changed = true;
      continue;
    }
    for (int i = 0; i < op->n_body; i++) changed |= ny_drop_dead(op->body[i]);
  }
  return changed;
}
