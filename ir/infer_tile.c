/* The tile level: values are [rows, cols] tiles of constant size, buffers live in a space. */
#include "infer.h"

static const ny_type *in_type(const ny_op *op, int i) { return ny_in(op, i)->type; }

static bool is_tile(ny_graph *g, const ny_op *op, const ny_type *t) {
  int64_t r, c;
  if (t && t->space == NY_VALUE && t->rank == 2 && ny_dim_is_const(g->cx, t->dim[0], &r) &&
      ny_dim_is_const(g->cx, t->dim[1], &c) && r > 0 && c > 0)
    return true;
  ny_bad_type(g, op, "%s is not a tile", ny_type_str(g, t));
  return false;
}

static bool is_buffer(ny_graph *g, const ny_op *op, const ny_type *t) {
  if (t->space != NY_VALUE) return true;
  ny_bad_type(g, op, "%s is not a buffer", ny_type_str(g, t));
  return false;
}

static bool fits_tile(const ny_type *x, const ny_type *t) {
  return (x->dim[0] == 1 || x->dim[0] == t->dim[0]) && (x->dim[1] == 1 || x->dim[1] == t->dim[1]);
}

/* The strides, limits and index tile that load and store share. */
static bool good_access(ny_graph *g, const ny_op *op, const ny_attr *stride, const ny_attr *lim, int index,
                        const ny_type *tile) {
  if (stride->dims.n != 2 || (lim->dims.n && lim->dims.n != 2)) {
    ny_bad_type(g, op, "%u strides and %u limits for a tile of rank 2", stride->dims.n, lim->dims.n);
    return false;
  }
  if (index >= op->n_in) return true;
  const ny_type *x = in_type(op, index);
  if (!is_tile(g, op, x)) return false;
  if (ny_is_int((ny_fmt)x->fmt) && fits_tile(x, tile)) return true;
  ny_bad_type(g, op, "index %s for the tile %s", ny_type_str(g, x), ny_type_str(g, tile));
  return false;
}

const ny_type *ny_infer_local(ny_graph *g, ny_op *op, int out) {
  const ny_type *t = op->out[out]->type;
  int64_t n;
  if (t && t->space == NY_SHARED && ny_type_static_count(g->cx, t, &n)) return t;
  return ny_bad_type(g, op, "%s is not a buffer of constant size @shared", ny_type_str(g, t));
}

const ny_type *ny_infer_tile(ny_graph *g, ny_op *op, int out) {
  return is_tile(g, op, op->out[out]->type) ? op->out[out]->type : NULL;
}

static bool is_mutable(ny_graph *g, const ny_op *op) {
  const ny_value *v = ny_in(op, 0);
  if (v->def && v->def->kind == NY_tile) return true;
  ny_bad_type(g, op, "its first operand is not the result of `tile`");
  return false;
}

const ny_type *ny_infer_set(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *t = in_type(op, 0), *x = in_type(op, 1);
  if (!is_mutable(g, op) || !is_tile(g, op, t) || !is_tile(g, op, x)) return NULL;
  if (x->fmt == t->fmt && fits_tile(x, t)) return t;
  return ny_bad_type(g, op, "%s does not fit the tile %s", ny_type_str(g, x), ny_type_str(g, t));
}

const ny_type *ny_infer_load(ny_graph *g, ny_op *op, int out) {
  const ny_type *t = op->out[out]->type;
  if (!is_buffer(g, op, in_type(op, 0)) || !is_tile(g, op, t)) return NULL;
  if (!good_access(g, op, &op->attr[NY_AT(load, stride)], &op->attr[NY_AT(load, lim)], 1, t)) return NULL;
  return ny_type_with_fmt(g->cx, t, (ny_fmt)in_type(op, 0)->fmt);
}

const ny_type *ny_infer_prefetch(ny_graph *g, ny_op *op, int out) {
  (void)out;
  int64_t n = op->attr[NY_AT(prefetch, n)].i;
  if (!is_buffer(g, op, in_type(op, 0))) return NULL;
  if (n > 0 && n <= 1 << 20) return in_type(op, 0);
  return ny_bad_type(g, op, "%lld elements ahead", (long long)n);
}

const ny_type *ny_infer_store(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *b = in_type(op, 0), *t = in_type(op, 1);
  if (!is_buffer(g, op, b) || !is_tile(g, op, t)) return NULL;
  if (!ny_is_choice(g, op, op->attr[NY_AT(store, op)].s, ny_scatter_ops, 5)) return NULL;
  if (!good_access(g, op, &op->attr[NY_AT(store, stride)], &op->attr[NY_AT(store, lim)], 2, t)) return NULL;
  if (b->fmt == t->fmt) return t;
  return ny_bad_type(g, op, "a tile of %s into a buffer of %s", ny_fmts[t->fmt].name, ny_fmts[b->fmt].name);
}

const ny_type *ny_infer_index(ny_graph *g, ny_op *op, int out) {
  const ny_type *t = op->out[out]->type;
  if (!is_tile(g, op, t)) return NULL;
  if (op->attr[NY_AT(index, stride)].dims.n != 2) return ny_bad_type(g, op, "a tile of rank 2 needs two strides");
  return ny_type_with_fmt(g->cx, t, NY_i64);
}

/* Scales of operand `which`: as many along k as there are blocks. */
static bool scales_fit(ny_graph *g, const ny_op *op, int which, const ny_type *operand) {
  const ny_type *s = in_type(op, which);
  int64_t block = op->attr[NY_AT(mma, block)].i;
  int k = which == 3 ? 0 : 1;
  if (!is_tile(g, op, s)) return false;
  return block > 0 && ny_is_float((ny_fmt)s->fmt) && ny_is_float((ny_fmt)operand->fmt) && s->dim[1 - k] == operand->dim[1 - k] &&
         s->dim[k] == ny_dim_ceildiv(g->cx, operand->dim[k], block);
}

const ny_type *ny_infer_mma(ny_graph *g, ny_op *op, int out) {
  (void)out;
  const ny_type *c = in_type(op, 0), *a = in_type(op, 1), *b = in_type(op, 2);
  if (!is_mutable(g, op) || !is_tile(g, op, c) || !is_tile(g, op, a) || !is_tile(g, op, b)) return NULL;
  for (int i = 3; i < op->n_in; i++)
    if (!scales_fit(g, op, i, i == 3 ? b : a))
      return ny_bad_type(g, op, "scales %s of blocks of %lld for %s", ny_type_str(g, in_type(op, i)),
                         (long long)op->attr[NY_AT(mma, block)].i, ny_type_str(g, i == 3 ? b : a));
  if (a->dim[1] == b->dim[0] && a->dim[0] == c->dim[0] && b->dim[1] == c->dim[1] &&
      ny_is_float((ny_fmt)a->fmt) == ny_is_float((ny_fmt)b->fmt) &&
      ny_is_float((ny_fmt)c->fmt) == ny_is_float((ny_fmt)a->fmt))
    return c;
  return ny_bad_type(g, op, "%s += %s * %s", ny_type_str(g, c), ny_type_str(g, a), ny_type_str(g, b));
}
