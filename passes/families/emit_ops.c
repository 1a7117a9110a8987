/* One row an op kind that an expression may hold: the tile ops for its elements at given coordinates. Views only move
   coordinates; what cannot be moved affinely (a gather, the seam of a concat, the edge of a pad) becomes index tiles,
   clamped into range, and selects. */
#include <string.h>

#include "emit.h"

static ny_value *ew(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_value *in[3];
  for (int i = 0; i < op->n_in; i++) {
    ny_coord c[NY_MAX_RANK];
    ny_coord_broadcast(op->out[0]->type, at, ny_in(op, i)->type, c);
    in[i] = ny_emit_at(e, ny_in(op, i), c);
    if (!in[i]) return NULL;
  }
  ny_value *v = ny_b_ew(&e->b, (ny_kind)op->kind, in, op->n_in);
  if (v && ny_kinds[op->kind].n_attr) memcpy(v->def->attr, op->attr, sizeof *op->attr * ny_kinds[op->kind].n_attr);
  return v;
}

static ny_value *at_cast(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_value *x = ny_emit_at(e, ny_in(op, 0), at);
  if (!x) return NULL;
  x = ny_b_cast(&e->b, x, op->out[0]->type->fmt);
  if (x && x->def->kind == NY_cast) x->def->attr[NY_AT(cast, saturate)] = op->attr[NY_AT(cast, saturate)];
  return x;
}

static ny_value *at_dequantize(ny_emit *e, ny_op *op, const ny_coord *at) {
  const ny_type *t = op->out[0]->type;
  int64_t block = op->attr[NY_AT(dequantize, block)].i;
  int axis = ny_axis(op->attr[NY_AT(dequantize, axis)].i, t->rank);
  ny_value *in[3];
  for (int i = 0; i < op->n_in; i++) {
    ny_coord c[NY_MAX_RANK], part[2];
    ny_coord_broadcast(t, at, ny_in(op, i)->type, c);
    if (i && block && ny_in(op, i)->type->dim[axis] != 1) {
      ny_coord_split(e, at[axis], (ny_dim[]){ny_in(op, i)->type->dim[axis], block}, 2, part);
      c[axis] = part[0];
    }
    in[i] = ny_emit_at(e, ny_in(op, i), c);
    if (!in[i]) return NULL;
    in[i] = ny_emit_cast(e, in[i], NY_f32);
  }
  ny_value *x = op->n_in > 2 ? ny_b_ew2(&e->b, NY_sub, in[0], in[2]) : in[0];
  return ny_emit_cast(e, ny_b_ew2(&e->b, NY_mul, x, in[1]), (ny_fmt)t->fmt);
}

static ny_value *at_bitcast(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_value *x = ny_emit_at(e, ny_in(op, 0), at);
  if (!x) return NULL;
  const ny_type *t = ny_type_with_fmt(e->cx, x->type, op->out[0]->type->fmt);
  ny_op *b = ny_build(&e->b, NY_bitcast, &x, 1, &t, 1);
  return b ? b->out[0] : NULL;
}

static ny_value *at_reshape(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_value *x = ny_in(op, 0);
  if (!x->def) /* a buffer does not care how it is divided */
    return ny_emit_load(e, ny_kernel_in(e->k, (int)x->index), ny_coord_flat(e, op->out[0]->type, at));
  ny_coord c[NY_MAX_RANK];
  ny_coord_reshape(e, op->out[0]->type, at, x->type, c);
  return ny_emit_at(e, x, c);
}

static ny_value *at_transpose(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_coord c[NY_MAX_RANK];
  for (int i = 0; i < op->out[0]->type->rank; i++) c[op->attr[NY_AT(transpose, perm)].dims.v[i]] = at[i];
  return ny_emit_at(e, ny_in(op, 0), c);
}

static ny_value *at_broadcast(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_coord c[NY_MAX_RANK];
  ny_coord_broadcast(op->out[0]->type, at, ny_in(op, 0)->type, c);
  return ny_emit_at(e, ny_in(op, 0), c);
}

static ny_value *at_slice(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_coord c[NY_MAX_RANK];
  const ny_attr *start = &op->attr[NY_AT(slice, start)], *step = &op->attr[NY_AT(slice, step)];
  for (int i = 0; i < op->out[0]->type->rank; i++)
    c[i] = ny_coord_scale(e, at[i], start->dims.v[i], step->dims.n ? step->dims.v[i] : 1);
  return ny_emit_at(e, ny_in(op, 0), c);
}

/* ---- index arithmetic */
static ny_value *op2(ny_emit *e, ny_kind k, ny_value *a, ny_value *b) { return ny_b_ew2(&e->b, k, a, b); }

static ny_value *clamp(ny_emit *e, ny_value *i, ny_dim n) {
  ny_value *top = ny_emit_int(e, ny_dim_sub(e->cx, n, 1));
  ny_value *zero = ny_emit_int(e, 0);
  return op2(e, NY_max, op2(e, NY_min, i, top), zero);
}

static ny_coord clamped(ny_emit *e, ny_coord c, ny_dim n) {
  c = ny_coord_plain(e, c);
  if (ny_coord_scalar(&c)) {
    ny_dim top = ny_dim_sub(e->cx, n, 1);
    return ny_at_one(ny_dim_max(e->cx, ny_dim_min(e->cx, c.base, top), 0));
  }
  ny_coord out = ny_at_one(0);
  out.index = clamp(e, ny_emit_index(e, c), n);
  return out;
}

/* x where dim `n` is addressed by a clamped coordinate: reads nothing when it may be empty. */
static ny_value *guarded(ny_emit *e, ny_value *x, const ny_coord *at, ny_dim n) {
  int64_t k;
  if (ny_dim_is_const(e->cx, n, &k) && k > 0) return ny_emit_at(e, x, at);
  ny_dim saved = e->lim[0];
  ny_dim some = ny_dim_lt(e->cx, 0, n);
  e->lim[0] = ny_dim_mul(e->cx, saved == NY_ALL ? e->rows : saved, some);
  ny_value *v = ny_emit_at(e, x, at);
  e->lim[0] = saved;
  return v;
}

/* An index of any integer format: from the end when negative, then into range. */
static ny_value *user_index(ny_emit *e, ny_value *i, ny_dim n) {
  if (!i) return NULL;
  i = ny_emit_cast(e, i, NY_i64);
  ny_value *negative = op2(e, NY_lt, i, ny_emit_int(e, 0));
  return clamp(e, ny_b_where(&e->b, negative, op2(e, NY_add, i, ny_emit_int(e, n)), i), n);
}

static ny_coord at_index(ny_value *i) {
  ny_coord c = ny_at_one(0);
  c.index = i;
  return c;
}

/* ---- pad */
typedef struct padded {
  ny_coord c;       /* in the input, clamped */
  ny_value *inside; /* NULL: always */
} padded;

static ny_value *both(ny_emit *e, ny_value *a, ny_value *b) { return a && b ? op2(e, NY_and, a, b) : a ? a : b; }

static padded pad_constant(ny_emit *e, ny_coord c, ny_dim n, ny_dim lo, ny_dim hi, ny_dim gap) {
  ny_coord p = ny_coord_scale(e, c, ny_dim_sub(e->cx, 0, lo), 1);
  ny_value *inside = NULL;
  if (lo != 0 || gap != 0) {
    ny_value *zero = ny_emit_int(e, 0);
    inside = op2(e, NY_ge, ny_emit_index(e, p), zero);
  }
  if (gap != 0) {
    ny_value *period = ny_emit_int(e, ny_dim_add(e->cx, gap, 1)), *i = ny_emit_index(e, p);
    ny_value *zero = ny_emit_int(e, 0);
    inside = both(e, inside, op2(e, NY_eq, op2(e, NY_rem, i, period), zero));
    p = at_index(op2(e, NY_div, i, period));
  }
  if (hi != 0 || gap != 0) inside = both(e, inside, ny_emit_below(e, p, n));
  return (padded){clamped(e, p, n), inside};
}

static ny_coord pad_reflect(ny_emit *e, ny_coord p, ny_dim n) {
  ny_dim last = ny_dim_sub(e->cx, n, 1);
  ny_value *period = ny_emit_int(e, ny_dim_max(e->cx, ny_dim_mul(e->cx, last, 2), 1)), *i = ny_emit_index(e, p);
  ny_value *q = op2(e, NY_mod, i, period);
  ny_value *back = op2(e, NY_sub, period, q);
  return clamped(e, at_index(op2(e, NY_min, q, back)), n);
}

static ny_coord pad_by_mode(ny_emit *e, const char *mode, ny_coord c, ny_dim n, ny_dim lo) {
  ny_coord p = ny_coord_scale(e, c, ny_dim_sub(e->cx, 0, lo), 1);
  if (!strcmp(mode, "reflect")) return pad_reflect(e, p, n);
  if (!strcmp(mode, "wrap")) {
    ny_value *size = ny_emit_int(e, n);
    return at_index(op2(e, NY_mod, ny_emit_index(e, p), size));
  }
  return clamped(e, p, n);
}

static ny_value *at_pad(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_value *x = ny_in(op, 0), *inside = NULL;
  const ny_dim *lo = op->attr[NY_AT(pad, lo)].dims.v, *hi = op->attr[NY_AT(pad, hi)].dims.v;
  const ny_attr *gap = &op->attr[NY_AT(pad, interior)];
  const char *mode = op->attr[NY_AT(pad, mode)].s;
  ny_coord c[NY_MAX_RANK];
  ny_dim size = 1;
  for (int i = 0; i < x->type->rank; i++) {
    ny_dim n = x->type->dim[i], g = gap->dims.n ? gap->dims.v[i] : 0;
    c[i] = at[i];
    if (!lo[i] && !hi[i] && !g) continue;
    size = ny_dim_mul(e->cx, size, n);
    if (strcmp(mode, "constant") != 0) {
      c[i] = pad_by_mode(e, mode, at[i], n, lo[i]);
      continue;
    }
    padded p = pad_constant(e, at[i], n, lo[i], hi[i], g);
    c[i] = p.c;
    inside = both(e, inside, p.inside);
  }
  int64_t k;
  if (ny_dim_is_const(e->cx, size, &k) && k == 0 && strcmp(mode, "constant") == 0)
    return op->n_in > 1 ? ny_emit_at(e, ny_in(op, 1), NULL) : ny_emit_num(e, x->type->fmt, 0);
  ny_value *v = guarded(e, x, c, size);
  if (!inside || !v) return v;
  ny_value *fill = op->n_in > 1 ? ny_emit_at(e, ny_in(op, 1), NULL) : ny_emit_num(e, x->type->fmt, 0);
  return fill ? ny_b_where(&e->b, inside, v, fill) : NULL;
}

/* ---- concat */
static bool certainly_in(ny_emit *e, ny_coord c, ny_dim lo, ny_dim n) {
  int64_t at, from, size;
  return ny_coord_scalar(&c) && ny_dim_is_const(e->cx, c.base, &at) && ny_dim_is_const(e->cx, lo, &from) &&
         ny_dim_is_const(e->cx, n, &size) && at >= from && at < from + size;
}

static ny_value *at_concat(ny_emit *e, ny_op *op, const ny_coord *at) {
  int axis = ny_axis(op->attr[NY_AT(concat, axis)].i, op->out[0]->type->rank);
  ny_coord c[NY_MAX_RANK], x = ny_coord_plain(e, at[axis]);
  memcpy(c, at, sizeof *at * op->out[0]->type->rank);
  ny_value *v = NULL, *pos = NULL;
  ny_dim lo = 0;
  for (int i = 0; i < op->n_in; i++) {
    ny_value *in = ny_in(op, i);
    ny_dim n = in->type->dim[axis], here = lo;
    lo = ny_dim_add(e->cx, lo, n);
    if (n == 0) continue;
    ny_coord from = ny_coord_scale(e, x, ny_dim_sub(e->cx, 0, here), 1);
    bool sure = certainly_in(e, x, here, n) || op->n_in == 1;
    c[axis] = sure ? from : clamped(e, from, n);
    if (sure) return ny_emit_at(e, in, c);
    ny_value *piece = guarded(e, in, c, n);
    if (!piece) return NULL;
    if (!pos) pos = ny_emit_index(e, x);
    v = v ? ny_b_where(&e->b, op2(e, NY_ge, pos, ny_emit_int(e, here)), piece, v) : piece;
  }
  return v ? v : ny_emit_num(e, op->out[0]->type->fmt, 0);
}

/* ---- gathers */
static ny_value *at_gather(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_value *x = ny_in(op, 0), *index = ny_in(op, 1);
  int nx = x->type->rank, ni = index->type->rank, axis = ny_axis(op->attr[NY_AT(gather, axis)].i, nx);
  ny_value *i = user_index(e, ny_emit_at(e, index, at + axis), x->type->dim[axis]);
  if (!i) return NULL;
  ny_coord c[NY_MAX_RANK];
  for (int d = 0; d < nx; d++) c[d] = d < axis ? at[d] : d == axis ? at_index(i) : at[d - 1 + ni];
  return guarded(e, x, c, x->type->dim[axis]);
}

static ny_value *at_gather_elements(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_value *x = ny_in(op, 0);
  int axis = ny_axis(op->attr[NY_AT(gather_elements, axis)].i, x->type->rank);
  ny_value *i = user_index(e, ny_emit_at(e, ny_in(op, 1), at), x->type->dim[axis]);
  if (!i) return NULL;
  ny_coord c[NY_MAX_RANK];
  memcpy(c, at, sizeof *at * x->type->rank);
  c[axis] = at_index(i);
  return guarded(e, x, c, x->type->dim[axis]);
}

static ny_value *at_gather_nd(ny_emit *e, ny_op *op, const ny_coord *at) {
  ny_value *x = ny_in(op, 0), *index = ny_in(op, 1);
  int batch = (int)op->attr[NY_AT(gather_nd, batch)].i, ni = index->type->rank;
  int64_t width;
  if (!ny_dim_is_const(e->cx, index->type->dim[ni - 1], &width)) return NULL;
  ny_coord c[NY_MAX_RANK], ic[NY_MAX_RANK];
  if (ni > 1) memcpy(ic, at, sizeof *at * (size_t)(ni - 1));
  ny_dim size = 1;
  for (int d = 0; d < x->type->rank; d++) {
    if (d < batch)
      c[d] = at[d];
    else if (d >= batch + width)
      c[d] = at[ni - 1 + d - batch - width];
    if (d < batch || d >= batch + width) continue;
    ic[ni - 1] = ny_at_one(d - batch);
    ny_value *i = user_index(e, ny_emit_at(e, index, ic), x->type->dim[d]);
    if (!i) return NULL;
    size = ny_dim_mul(e->cx, size, x->type->dim[d]);
    c[d] = at_index(i);
  }
  return guarded(e, x, c, size);
}

/* ---- generators */
static ny_value *number(ny_emit *e, ny_fmt f, const void *data) {
  if (ny_is_float(f)) return ny_emit_num(e, f, ny_get_f(f, data, 0));
  int64_t i = ny_get_i(f, data, 0);
  if (f == NY_bool || (i >= 0 && i < (int64_t)1 << 52)) return ny_emit_num(e, f, (double)i);
  return ny_emit_cast(e, ny_emit_int(e, ny_dim_const(e->cx, i)), f);
}

bool ny_const_uniform(const ny_op *op) {
  const ny_blob *b = op->attr[NY_AT(const, data)].blob;
  const ny_type *t = op->out[0]->type;
  if (!b) return true;
  uint64_t n = 1, w = ny_fmts[t->fmt].bits / 8u;
  for (int i = 0; i < t->rank; i++) {
    if (t->dim[i] < 0 || (t->dim[i] && n > (uint64_t)INT64_MAX / (uint64_t)t->dim[i])) return false;
    n *= (uint64_t)t->dim[i];
  }
  if (n == 1) return true;
  if (n == 0 || !w || b->bytes < n * w) return false;
  return memcmp(b->data, b->data + w, (n - 1) * w) == 0;
}

static ny_value *at_const(ny_emit *e, ny_op *op, const ny_coord *at) {
  (void)at;
  ny_fmt f = (ny_fmt)op->out[0]->type->fmt;
  const ny_blob *b = op->attr[NY_AT(const, data)].blob;
  if (!b) return ny_emit_num(e, f, op->attr[NY_AT(const, splat)].f);
  return ny_const_uniform(op) ? number(e, f, b->data) : NULL;
}

static ny_value *at_dims(ny_emit *e, ny_op *op, const ny_coord *at) {
  const ny_attr *v = &op->attr[NY_AT(dims, v)];
  if (v->dims.n == 0) return ny_emit_int(e, 0);
  if (v->dims.n == 1) return ny_emit_int(e, v->dims.v[0]);
  ny_coord c = ny_coord_plain(e, at[0]);
  int64_t k;
  if (ny_coord_scalar(&c) && ny_dim_is_const(e->cx, c.base, &k) && k >= 0 && k < v->dims.n)
    return ny_emit_int(e, v->dims.v[k]);
  ny_value *pos = ny_emit_index(e, c), *x = ny_emit_int(e, v->dims.v[0]);
  for (uint32_t i = 1; i < v->dims.n; i++) {
    ny_value *here = ny_emit_int(e, v->dims.v[i]);
    x = ny_b_where(&e->b, op2(e, NY_eq, pos, ny_emit_int(e, i)), here, x);
  }
  return x;
}

static ny_value *at_iota(ny_emit *e, ny_op *op, const ny_coord *at) {
  return ny_emit_cast(e, ny_emit_index(e, at[ny_axis(op->attr[NY_AT(iota, axis)].i, op->out[0]->type->rank)]),
                      (ny_fmt)op->out[0]->type->fmt);
}

static ny_at_fn *const rows[NY_N_KINDS] = {
    [NY_cast] = at_cast,
    [NY_bitcast] = at_bitcast,
    [NY_dequantize] = at_dequantize,
    [NY_reshape] = at_reshape,
    [NY_transpose] = at_transpose,
    [NY_broadcast] = at_broadcast,
    [NY_slice] = at_slice,
    [NY_pad] = at_pad,
    [NY_concat] = at_concat,
    [NY_gather] = at_gather,
    [NY_gather_elements] = at_gather_elements,
    [NY_gather_nd] = at_gather_nd,
    [NY_const] = at_const,
    [NY_dims] = at_dims,
    [NY_iota] = at_iota,
};

ny_at_fn *ny_at_row_of(ny_kind k) { return ny_kinds[k].flags & NY_MAP ? ew : rows[k]; }
