/* Coordinates: what turns "this tile of the iteration space" into "these elements of that buffer". Flattened dimensions
   are kept as quotient and remainder of one expression as long as possible, because a buffer that has all of them in
   order only needs the expression itself. */
#include <string.h>

#include "emit.h"

static bool constant(ny_ctx *cx, ny_dim d, int64_t *v) { return ny_dim_is_const(cx, d, v); }
static bool same_x(const ny_coord *p, const ny_coord *q) {
  return p->base == q->base && p->rs == q->rs && p->cs == q->cs && p->index == q->index;
}
bool ny_coord_same(const ny_coord *p, const ny_coord *q) {
  return same_x(p, q) && p->div == q->div && p->mod == q->mod;
}
bool ny_coord_quotient(const ny_coord *c) { return c->div != 1 || c->mod != 0; }
bool ny_coord_scalar(const ny_coord *c) { return !c->index && !c->rs && !c->cs; }

/* True when base + [0, span) stays inside one block of `block` elements. */
static bool one_block(ny_emit *e, const ny_coord *c, ny_dim block) {
  int64_t rs, cs, b;
  if (c->index || !constant(e->cx, c->rs, &rs) || !constant(e->cx, c->cs, &cs) || rs < 0 || cs < 0 || rs > 1 << 20 ||
      cs > 1 << 20)
    return false;
  int64_t span = rs * (e->rows - 1) + cs * (e->cols - 1) + 1;
  if (!constant(e->cx, block, &b)) {
    for (int64_t g = 1; g <= 4096; g *= 2) /* a symbolic block: some power of two may divide both */
      if (g >= span && ny_dim_divides(e->cx, block, g) && ny_dim_divides(e->cx, c->base, g)) return true;
    return false;
  }
  int64_t at;
  if (b > 0 && constant(e->cx, ny_dim_mod(e->cx, c->base, b), &at) && at + span <= b) return true;
  for (int64_t parts = 1; parts <= 4096 && b / parts >= span; parts++) /* a part of the block that base is a multiple of */
    if (b % parts == 0 && ny_dim_divides(e->cx, c->base, b / parts)) return true;
  return false;
}

static bool divides_by(ny_emit *e, ny_dim d, ny_dim k) {
  int64_t v;
  return d == 0 || (constant(e->cx, k, &v) && v > 0 && ny_dim_divides(e->cx, d, v));
}

ny_coord ny_coord_simplify(ny_emit *e, ny_coord c) {
  ny_ctx *cx = e->cx;
  if (e->rows == 1) c.rs = 0;
  if (e->cols == 1) c.cs = 0;
  if (ny_coord_scalar(&c)) {
    if (c.div != 1) c.base = ny_dim_div(cx, c.base, c.div);
    if (c.mod != 0) c.base = ny_dim_mod(cx, c.base, c.mod);
    return ny_at_one(c.base);
  }
  if (c.div != 1 && !c.index) {
    if (one_block(e, &c, c.div)) {
      c.base = ny_dim_div(cx, c.base, c.div);
      c.rs = c.cs = 0, c.div = 1;
    } else if (divides_by(e, c.base, c.div) && divides_by(e, c.rs, c.div) && divides_by(e, c.cs, c.div)) {
      c.base = ny_dim_div(cx, c.base, c.div), c.rs = ny_dim_div(cx, c.rs, c.div), c.cs = ny_dim_div(cx, c.cs, c.div);
      c.div = 1;
    }
  }
  if (c.div == 1 && c.mod != 0 && !c.index && one_block(e, &c, c.mod)) {
    c.base = ny_dim_mod(cx, c.base, c.mod);
    c.mod = 0;
  }
  return c;
}

static ny_value *index_op(ny_emit *e, const ny_coord *c) {
  const ny_type *t = ny_tile_type(e->cx, NY_i64, c->rs ? e->rows : 1, c->cs ? e->cols : 1);
  ny_op *op = ny_build(&e->b, NY_index, NULL, 0, &t, 1);
  if (!op) return NULL;
  op->attr[NY_AT(index, off)].d = c->base;
  op->attr[NY_AT(index, stride)] = ny_dims_attr(e->k, (ny_dim[]){c->rs, c->cs}, 2);
  return op->out[0];
}

ny_value *ny_emit_index(ny_emit *e, ny_coord c) {
  c = ny_coord_simplify(e, c);
  ny_value *v = c.index;
  if (!v || c.base || c.rs || c.cs) {
    ny_value *x = index_op(e, &c);
    v = v ? ny_b_ew2(&e->b, NY_add, x, v) : x;
  }
  if (c.div != 1) v = ny_b_ew2(&e->b, NY_div, v, ny_emit_int(e, c.div));
  if (c.mod != 0) v = ny_b_ew2(&e->b, NY_rem, v, ny_emit_int(e, c.mod));
  return v;
}

ny_coord ny_coord_plain(ny_emit *e, ny_coord c) {
  c = ny_coord_simplify(e, c);
  if (!ny_coord_quotient(&c)) return c;
  ny_coord p = ny_at_one(0);
  p.index = ny_emit_index(e, c);
  return p;
}

ny_coord ny_coord_scale(ny_emit *e, ny_coord c, ny_dim add, ny_dim mul) {
  ny_ctx *cx = e->cx;
  if (add == 0 && mul == 1) return c;
  c = ny_coord_plain(e, c);
  c.base = ny_dim_add(cx, add, ny_dim_mul(cx, c.base, mul));
  c.rs = ny_dim_mul(cx, c.rs, mul), c.cs = ny_dim_mul(cx, c.cs, mul);
  if (c.index && mul != 1) c.index = ny_b_ew2(&e->b, NY_mul, c.index, ny_emit_int(e, mul));
  return c;
}

typedef struct term {
  ny_coord c;
  ny_dim stride;
} term;

/* (x/(d*m) [% n]) * (s*m) + (x/d % m) * s  =  (x/d [% m*n]) * s */
static bool join(ny_ctx *cx, term *outer, const term *inner) {
  if (!inner->c.mod || !same_x(&outer->c, &inner->c)) return false;
  if (outer->c.div != ny_dim_mul(cx, inner->c.div, inner->c.mod)) return false;
  if (outer->stride != ny_dim_mul(cx, inner->stride, inner->c.mod)) return false;
  outer->c.mod = outer->c.mod ? ny_dim_mul(cx, outer->c.mod, inner->c.mod) : 0;
  outer->c.div = inner->c.div;
  outer->stride = inner->stride;
  return true;
}

static int join_all(ny_ctx *cx, term *t, int n) {
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++)
      if (i != j && join(cx, &t[i], &t[j])) {
        t[j] = t[--n];
        i = -1;
        break;
      }
  return n;
}

static ny_coord sum_terms(ny_emit *e, const term *t, int n) {
  ny_coord f = ny_at_one(0);
  for (int i = 0; i < n; i++) {
    ny_coord c = ny_coord_scale(e, t[i].c, 0, t[i].stride);
    c = ny_coord_plain(e, c);
    f.base = ny_dim_add(e->cx, f.base, c.base);
    f.rs = ny_dim_add(e->cx, f.rs, c.rs), f.cs = ny_dim_add(e->cx, f.cs, c.cs);
    if (c.index) f.index = f.index ? ny_b_ew2(&e->b, NY_add, f.index, c.index) : c.index;
  }
  return f;
}

static ny_coord flat(ny_emit *e, const ny_dim *dims, int n, const ny_coord *at) {
  term t[NY_MAX_RANK];
  int nt = 0;
  ny_dim stride = 1;
  for (int i = n - 1; i >= 0; i--) {
    if (dims[i] != 1) t[nt++] = (term){at[i], stride};
    stride = ny_dim_mul(e->cx, stride, dims[i]);
  }
  nt = join_all(e->cx, t, nt);
  if (nt == 1 && t[0].stride == 1) return t[0].c;
  return sum_terms(e, t, nt);
}

ny_coord ny_coord_flat(ny_emit *e, const ny_type *t, const ny_coord *at) { return flat(e, t->dim, t->rank, at); }

/* x / stride % size, of a coordinate that may itself be a quotient. */
static ny_coord part(ny_emit *e, ny_coord x, ny_dim stride, ny_dim size, bool first) {
  ny_ctx *cx = e->cx;
  if (stride == 1 && first) return x;
  if (x.mod) { /* (X/d % m) / s % t  =  X/(d*s) % t  when s*t divides m, as it does for the dims of one factored size */
    ny_dim m = ny_dim_mul(cx, stride, size);
    if (m != x.mod && ny_dim_mod(cx, x.mod, m) != 0)
      x = ny_coord_plain(e, x);
    else
      first = false;
  }
  x.div = ny_dim_mul(cx, x.div, stride);
  x.mod = first ? 0 : size;
  return x;
}

void ny_coord_split(ny_emit *e, ny_coord x, const ny_dim *sizes, int n, ny_coord *out) {
  ny_dim stride = 1;
  int lead = 0;
  while (lead < n && sizes[lead] == 1) lead++;
  for (int i = n - 1; i >= 0; i--) {
    out[i] = sizes[i] == 1 ? ny_at_one(0) : part(e, x, stride, sizes[i], i == lead);
    stride = ny_dim_mul(e->cx, stride, sizes[i]);
  }
}

void ny_coord_broadcast(const ny_type *from, const ny_coord *at, const ny_type *to, ny_coord *out) {
  int shift = from->rank - to->rank;
  for (int i = 0; i < to->rank; i++) {
    ny_dim have = to->dim[i], want = from->dim[i + shift];
    out[i] = have == 1 && want != 1 ? ny_at_one(0) : at[i + shift];
    if (have != want && have != 1) out[i].mod = have; /* symbols decide when running: the size is 1 or the result's */
  }
}

/* Matches runs of dims with equal products: from[i0..i1) and to[j0..j1). Unit dims were dropped by the caller. */
static bool next_run(ny_ctx *cx, const ny_dim *from, int n, int *i1, const ny_dim *to, int m, int *j1) {
  int i0 = *i1, j0 = *j1;
  ny_dim p = 1;
  for (int i = i0; i < n; i++) {
    p = ny_dim_mul(cx, p, from[i]);
    ny_dim q = 1;
    for (int j = j0; j < m; j++) {
      q = ny_dim_mul(cx, q, to[j]);
      if (p != q) continue;
      *i1 = i + 1, *j1 = j + 1;
      return true;
    }
  }
  *i1 = n, *j1 = m;
  return i0 < n || j0 < m;
}

static int squeeze(const ny_type *t, ny_dim *dims, int *where) {
  int n = 0;
  for (int i = 0; i < t->rank; i++)
    if (t->dim[i] != 1) dims[n] = t->dim[i], where[n++] = i;
  return n;
}

void ny_coord_reshape(ny_emit *e, const ny_type *from, const ny_coord *at, const ny_type *to, ny_coord *out) {
  ny_dim fd[NY_MAX_RANK], td[NY_MAX_RANK];
  int fw[NY_MAX_RANK], tw[NY_MAX_RANK];
  int n = squeeze(from, fd, fw), m = squeeze(to, td, tw);
  ny_coord src[NY_MAX_RANK], dst[NY_MAX_RANK];
  for (int i = 0; i < n; i++) src[i] = at[fw[i]];
  for (int i = 0; i < to->rank; i++) out[i] = ny_at_one(0);
  for (int i = 0, j = 0; i < n || j < m;) {
    int i0 = i, j0 = j;
    if (!next_run(e->cx, fd, n, &i, td, m, &j)) break;
    if (i == i0 || j == j0) continue; /* left over: sizes that are 1 whenever there is an element */
    if (i - i0 == 1 && j - j0 == 1)
      dst[j0] = src[i0];
    else
      ny_coord_split(e, flat(e, fd + i0, i - i0, src + i0), td + j0, j - j0, dst + j0);
    for (int q = j0; q < j; q++) out[tw[q]] = dst[q];
  }
}

/* The one user chain from `from` to `to` is followed; other users do not matter. */
bool ny_coord_forward(ny_emit *e, ny_value *from, const ny_coord *at, ny_value *to, ny_coord *out) {
  ny_coord cur[NY_MAX_RANK], next[NY_MAX_RANK];
  if (from == to) {
    memcpy(out, at, sizeof *at * from->type->rank);
    return true;
  }
  if (e->depth > NY_EMIT_DEPTH) return false;
  for (ny_use *u = from->uses; u; u = u->next) {
    ny_op *op = u->user;
    if (op->kind == NY_yield || !op->n_out) continue;
    const ny_type *ft = from->type, *t = op->out[0]->type;
    memcpy(cur, at, sizeof *at * ft->rank);
    if (ny_kinds[op->kind].flags & NY_MAP || op->kind == NY_cast || op->kind == NY_bitcast) {
      if (t->rank != ft->rank || memcmp(t->dim, ft->dim, sizeof t->dim[0] * t->rank) != 0) continue;
      memcpy(next, cur, sizeof cur);
    } else if (op->kind == NY_transpose) {
      for (int i = 0; i < t->rank; i++) next[i] = cur[op->attr[NY_AT(transpose, perm)].dims.v[i]];
    } else if (op->kind == NY_reshape) {
      ny_coord_reshape(e, ft, cur, t, next);
    } else {
      continue;
    }
    e->depth++;
    bool found = ny_coord_forward(e, op->out[0], next, to, out);
    e->depth--;
    if (found) return true;
  }
  return false;
}
