/* Register tiles of contractions. Sums stay in registers over the whole sum axis, so the only choice is the shape of the tile: it must fit the
   register file, waste little at the edges, and not walk more rows than the first cache has ways when rows are a multiple of 4096 bytes apart
   (their lines all fall into one set). Between tiles that fit, speed hardly differs; waste decides. */
#include "contract.h"

#include <string.h>

enum { LINE_SETS = 4096 }; /* bytes a cache way covers: rows this far apart share a set */
enum { ROWS_CAP = 10 };    /* twenty sums hide the latency of any multiply-add pipe; more rows only lengthen the code */

int ny_rows_max(const ny_target *t, int vectors) {
  int fit = (t->n_vregs - vectors - 1 - t->no_fma) / (vectors > 0 ? vectors : 1); /* without fma a product has a register of its own */
  return fit < 1 ? 1 : fit > ROWS_CAP ? ROWS_CAP : fit;
}

int ny_rows_pick(const ny_target *t, ny_dim extent, int vectors, int64_t stride) {
  int max = ny_rows_max(t, vectors), ways = (int)(t->l1d / LINE_SETS);
  if (ways > 2 && stride >= LINE_SETS && stride % LINE_SETS == 0 && max > ways) max = ways;
  if (extent < 0) return max >= 8 ? 8 : max;
  if (extent <= max) return extent > 0 ? (int)extent : 1;
  int best = max;
  double least = 0;
  for (int r = max; r > max / 2; r--) {
    double cost = (double)((extent + r - 1) / r) * (r + 0.4); /* a row of vectors loaded for every step of every tile */
    if (r == max || cost < least) best = r, least = cost;
  }
  return best;
}

/* Cycles to compute rows x cols with tiles of v vectors, a step of the sum at a time: two multiply-adds a cycle, loads (some of which miss the first
   cache) beside them, and no step shorter than the latency of its sums. */
static double tile_cost(const ny_target *t, ny_dim rows, int64_t cols, int v, int lanes) {
  int r = ny_rows_pick(t, rows, v, 0);
  double panels = (double)((cols + (int64_t)v * lanes - 1) / ((int64_t)v * lanes));
  double tiles = rows < 0 ? 1024.0 / r : (double)((rows + r - 1) / r);
  double step = 0.5 * r * v, loads = 0.7 * (r + v) + 0.02 * v;
  if (loads > step) step = loads;
  return panels * tiles * ((step > 4.5 ? step : 4.5) + 0.2 + 0.02 * v);
}

int ny_vectors_pick(const ny_target *t, ny_dim rows, ny_dim cols, int lanes) {
  int most = t->n_vregs >= 32 ? 4 : 3;
  if (cols < 0) return t->n_vregs >= 32 ? 3 : 2;
  if (rows == 1) most = lanes < 8 ? 8 : 64 / lanes; /* one sum a vector: the wider the panel, the longer the streams from memory */
  int best = 1;
  double least = 0;
  for (int v = 1; v <= most; v++) {
    double cost = tile_cost(t, rows, cols, v, lanes);
    if (v == 1 || cost < least) best = v, least = cost;
  }
  return best;
}

static int lanes_of(const ny_target *t, ny_fmt f) {
  int bytes = ny_fmts[ny_sum_fmt(f)].bits / 8;
  return bytes > 0 && t->vec_bytes > bytes ? t->vec_bytes / bytes : 1;
}

int ny_row_dim(const ny_type *out) {
  int d = out->rank - 2;
  while (d > 1 && out->dim[d] == 1) d--;
  return d > 1 || out->dim[1] != 1 ? d : out->rank - 2;
}

int64_t ny_pack_width(const ny_target *t, const ny_op *op) {
  const ny_type *x = ny_in(op, 0)->type, *w = ny_in(op, 1)->type;
  const ny_type *out = op->out[0]->type;
  int lanes = lanes_of(t, (ny_fmt)out->fmt);
  if (ny_on_gpu(t)) return 0; /* blocks read rows of weights as they lie */
  for (int i = 0; i < w->rank; i++)
    if (w->dim[i] <= 0) return 0;
  ny_dim rows = 1, cols = out->dim[out->rank - 1];
  if (op->kind == NY_matmul) {
    if (w->rank != 2 || ny_attr_at(op, NY_AT(matmul, packed))->i) return 0;
    if (ny_codes_fit(t, op)) { /* the same panels for one row and for many */
      int64_t most = t->n_vregs >= 32 ? 4 : 2, all = (cols + lanes - 1) / lanes;
      return (all < most ? all : most) * lanes;
    }
    for (int i = 0; i < x->rank - 1 && rows >= 0; i++) rows = x->dim[i] < 0 || rows > INT32_MAX ? -1 : rows * x->dim[i];
  } else if (op->kind == NY_conv) {
    int64_t group = ny_attr_at(op, NY_AT(conv, group))->i;
    if (ny_attr_at(op, NY_AT(conv, packed))->i || group < 1 || cols % group) return 0;
    cols /= group;
    if (group > 1 && cols == 1 && w->dim[w->rank - 2] == 1) return 0; /* depthwise: channels are the columns as they lie */
    rows = out->dim[ny_row_dim(out)];
  } else {
    return 0;
  }
  return (int64_t)ny_vectors_pick(t, rows < 0 ? -1 : rows, cols, lanes) * lanes;
}

/* ---- codes */
static bool one_number(const ny_type *t) {
  for (int i = 0; i < t->rank; i++)
    if (t->dim[i] != 1) return false;
  return true;
}

ny_value *ny_block_scales(const ny_op *q, ny_value **factor) {
  ny_value *s = ny_in(q, 1);
  const ny_op *under = s->def && s->def->kind == NY_dequantize ? s->def : NULL;
  *factor = under && under->n_in == 2 && one_number(ny_in(under, 1)->type) ? ny_in(under, 1) : NULL;
  if (*factor) s = ny_in(under, 0);
  return s->type->fmt == NY_f8e4m3 || s->type->fmt == NY_f8e8m0 ? s : NULL;
}

bool ny_scaled_takes(const ny_target *t, const ny_op *op) {
  const ny_op *x = ny_in(op, 0)->def, *w = ny_in(op, 1)->def;
  if (!ny_on_gpu(t) || !t->fp4 || op->kind != NY_matmul || ny_attr_at(op, NY_AT(matmul, packed))->i != -1) return false;
  if (!x || !w || x->kind != NY_dequantize || w->kind != NY_dequantize || x->n_in != 2 || ny_in(x, 0)->type->fmt != NY_f4e2m1) return false;
  ny_value *unused, *sx = ny_block_scales(x, &unused), *sw = ny_block_scales(w, &unused);
  const ny_type *c = ny_in(x, 0)->type;
  int64_t block = ny_attr_at(x, NY_AT(dequantize, block))->i, axis = ny_attr_at(x, NY_AT(dequantize, axis))->i, k = c->dim[c->rank - 1];
  if (!sx || !sw || sx->type->fmt != sw->type->fmt || block != ny_attr_at(w, NY_AT(dequantize, block))->i || (axis != -1 && axis != c->rank - 1)) return false;
  for (int i = 0; i < c->rank - 1; i++)
    if (sx->type->dim[i] != c->dim[i]) return false;
  return k > 0 && k % 2 == 0 && sx->type->dim[c->rank - 1] == (k + block - 1) / block;
}

/* ---- rows */
ny_rows ny_rows_of(ny_ctx *cx, ny_dim extent, int rows) {
  ny_rows r = {extent, 0, rows, false};
  int64_t lo, hi;
  ny_dim_bounds(cx, extent, &lo, &hi);
  ny_dim h = rows;
  if (extent >= 0 && extent < rows) {
    r.rows = extent > 0 ? (int)extent : 1;
    r.tiles = extent > 0;
  } else if (lo >= rows || ny_dim_divides(cx, extent, rows)) {
    r.tiles = ny_dim_ceildiv(cx, extent, h);
  } else {
    ny_dim small = ny_dim_lt(cx, extent, h), big = ny_dim_sub(cx, 1, small);
    r.both = true;
    r.tiles = ny_dim_add(cx, ny_dim_mul(cx, big, ny_dim_ceildiv(cx, extent, h)), ny_dim_mul(cx, small, extent));
  }
  return r;
}

static ny_dim tile_row(ny_ctx *cx, const ny_rows *r, ny_dim index) {
  ny_dim row = ny_dim_mul(cx, index, r->rows);
  if (ny_dim_divides(cx, r->extent, r->rows)) return row;
  return ny_dim_min(cx, row, ny_dim_sub(cx, r->extent, r->rows));
}

void ny_rows_emit(ny_emit *e, const ny_rows *r, ny_dim index, ny_rows_body *body, void *user) {
  if (!r->both) {
    body(e, user, r->rows, tile_row(e->cx, r, index));
    return;
  }
  ny_dim small = ny_dim_lt(e->cx, r->extent, r->rows), unused;
  ny_loop l = ny_emit_for(e, 0, ny_dim_sub(e->cx, 1, small), 1, 1, &unused);
  body(e, user, r->rows, tile_row(e->cx, r, index));
  ny_emit_end(e, l);
  l = ny_emit_for(e, 0, small, 1, 1, &unused);
  body(e, user, 1, index);
  ny_emit_end(e, l);
}

/* ---- tiles */
void ny_emit_mma(ny_emit *e, ny_value *sum, ny_value *a, ny_value *b) {
  if (!a || !b || !sum) return;
  if (a && ny_tile_rows(a) < ny_tile_rows(sum)) a = ny_emit_fill(e, a, ny_tile_rows(sum), ny_tile_cols(a));
  if (b && ny_tile_cols(b) < ny_tile_cols(sum)) b = ny_emit_fill(e, b, ny_tile_rows(b), ny_tile_cols(sum));
  if (a && b) ny_build(&e->b, NY_mma, (ny_value *[]){sum, a, b}, 3, NULL, 0);
}

static bool same_dims(const ny_type *a, const ny_type *b) {
  return a->rank == b->rank && !memcmp(a->dim, b->dim, sizeof a->dim[0] * a->rank);
}

/* Coordinates of op's result from those of its operand number i; false when they do not follow. */
static bool follow(ny_emit *e, const ny_op *op, int i, const ny_coord *at, ny_coord *out) {
  const ny_type *from = ny_in(op, i)->type, *to = op->out[0]->type;
  if (ny_kinds[op->kind].flags & NY_MAP || op->kind == NY_cast || op->kind == NY_bitcast) {
    if (!same_dims(from, to)) return false;
    memcpy(out, at, sizeof *at * to->rank);
  } else if (op->kind == NY_transpose) {
    for (int d = 0; d < to->rank; d++) out[d] = at[op->attr[NY_AT(transpose, perm)].dims.v[d]];
  } else if (op->kind == NY_reshape) {
    ny_coord_reshape(e, from, at, to, out);
  } else {
    return false;
  }
  return true;
}

/* Everything that follows from `of` gets its coordinates in the order of the body; views get their operand's tile, because going back through a
   view does not always give the very coordinates it was reached by. */
void ny_emit_epilogue(ny_emit *e, ny_value *of, const ny_coord *at, ny_value *sum) {
  const ny_op *yield = ny_group_yield(e->group);
  ny_value *t = ny_emit_cast(e, sum, (ny_fmt)of->type->fmt);
  if (!t) return;
  uint32_t n = 0;
  for (const ny_op *op = of->def; op; op = op->next)
    for (int o = 0; o < op->n_out; o++) n = op->out[o]->id >= n ? op->out[o]->id + 1 : n;
  const ny_coord **known = NY_NEW_ARRAY(e->a, const ny_coord *, n);
  known[of->id] = at;
  ny_emit_know(e, of, at, t);
  for (const ny_op *op = of->def->next; op && op != yield; op = op->next) {
    ny_coord *to = NY_NEW_ARRAY(e->a, ny_coord, NY_MAX_RANK);
    for (int i = 0; i < op->n_in && op->n_out == 1; i++) {
      const ny_value *x = ny_in(op, i);
      if (x->id >= n || !known[x->id] || !follow(e, op, i, known[x->id], to)) continue;
      known[op->out[0]->id] = to;
      if (!(ny_kinds[op->kind].flags & NY_VIEW)) break;
      ny_value *tile = ny_emit_at(e, ny_in(op, i), known[x->id]);
      if (tile) ny_emit_know(e, op->out[0], to, tile);
      break;
    }
  }
  for (int i = 0; i < yield->n_in; i++) {
    const ny_value *r = ny_in(yield, i);
    if (r->id < n && known[r->id]) ny_emit_result(e, i, known[r->id]);
    else e->failed = true;
  }
}

bool ny_emit_is_strided(ny_emit *e, ny_value *v, const ny_coord *at, int rows, int cols) {
  uint32_t strided = e->n_strided, index = e->n_index;
  ny_op *last = e->b.block->last;
  e->rows = rows, e->cols = cols, e->lim[0] = e->lim[1] = NY_ALL;
  ny_emit_at(e, v, at);
  bool yes = e->n_strided > strided || e->n_index > index;
  ny_emit_forget(e);
  while (e->b.block->last != last) ny_erase(e->b.block->last);
  e->n_strided = strided, e->n_index = index;
  return yes;
}
