/* The emit helper's state: kernel structure, the table of tiles already made, loads and stores.
   A tile may be used again in its own block and in blocks inside it, so an entry remembers the block it was made in. */
#include "emit.h"

#include <string.h>

struct ny_known {
  ny_value *v, *tile;
  ny_block *block;
  ny_known *next;
  int rows, cols;
  ny_dim lim[2];
  bool fixed; /* made known by the family */
  ny_coord at[];
};
enum { SLOTS = 256 };

static void use_symbols(ny_emit *e, ny_dim d) { ny_dim_symbols(e->cx, d, &e->used, &e->n_used, &e->cap_used, e->a); }

static void attr_symbols(ny_emit *e, const ny_op *op) {
  const ny_kind_info *ki = &ny_kinds[op->kind];
  for (int i = 0; i < ki->n_attr; i++) {
    if (ki->attr[i].kind == NY_DIM) use_symbols(e, op->attr[i].d);
    if (ki->attr[i].kind == NY_DIMS)
      for (uint32_t j = 0; j < op->attr[i].dims.n; j++) use_symbols(e, op->attr[i].dims.v[j]);
  }
  for (int o = 0; o < op->n_out; o++)
    for (int d = 0; d < op->out[o]->type->rank; d++) use_symbols(e, op->out[o]->type->dim[d]);
}

void ny_emit_begin(ny_emit *e, ny_pass_cx *px, ny_op *group, ny_graph *k, ny_arena *scratch) {
  *e = (ny_emit){
      .px = px, .cx = k->cx, .group = group, .k = k, .rows = 1, .cols = 1, .lim = {NY_ALL, NY_ALL}, .a = scratch};
  e->b = (ny_builder){.g = k, .block = &k->body}; /* no locations: equal kernels of different nodes are shared */
  e->n_known_slots = SLOTS;
  e->known = NY_NEW_ARRAY(scratch, ny_known *, SLOTS);
  for (uint32_t i = 0; i < k->body.n_arg; i++)
    for (int d = 0; d < k->body.arg[i]->type->rank; d++) use_symbols(e, k->body.arg[i]->type->dim[d]);
  for (ny_op *op = group->body[0]->first; op; op = op->next) attr_symbols(e, op);
}

nyb_status ny_emit_finish(ny_emit *e) {
  if (e->cx->diag.code) return e->cx->diag.code;
  if (e->failed) return NYB_E_UNSUPPORTED;
  ny_build(&e->b, NY_ret, NULL, 0, NULL, 0);
  return e->cx->diag.code;
}

/* Names are the same in equal kernels, so that those are shared, and none is a symbol of the model. */
static ny_dim new_var(ny_emit *e, ny_name *name) {
  for (;;) {
    char text[24];
    snprintf(text, sizeof text, "i%d", e->next_var++);
    *name = ny_intern(&e->cx->names, text);
    bool taken = false;
    for (size_t i = 0; i < e->n_used; i++) taken |= e->used[i] == *name;
    if (!taken) return ny_dim_sym(e->cx, *name);
  }
}

ny_dim ny_emit_grid(ny_emit *e, ny_dim extent) {
  ny_name name;
  ny_dim var = new_var(e, &name);
  ny_op *op = ny_build(&e->b, NY_grid, NULL, 0, NULL, 0);
  if (!op) return 0;
  op->attr[NY_AT(grid, var)].s = name;
  op->attr[NY_AT(grid, extent)].d = extent;
  return var;
}

ny_loop ny_emit_for(ny_emit *e, ny_dim lo, ny_dim hi, ny_dim step, int unroll, ny_dim *var) {
  ny_name name;
  *var = new_var(e, &name);
  ny_loop l = {ny_build(&e->b, NY_for, NULL, 0, NULL, 0), e->b.block};
  if (!l.op) return l;
  l.op->attr[NY_AT(for, var)].s = name;
  l.op->attr[NY_AT(for, lo)].d = lo;
  l.op->attr[NY_AT(for, hi)].d = hi;
  l.op->attr[NY_AT(for, step)].d = step;
  l.op->attr[NY_AT(for, unroll)].i = unroll;
  e->b.block = l.op->body[0];
  return l;
}

void ny_emit_end(ny_emit *e, ny_loop l) {
  if (l.op) e->b.block = l.outer;
}

const ny_type *ny_tile_type(ny_ctx *cx, ny_fmt f, ny_dim rows, ny_dim cols) {
  return ny_tensor_type(cx, f, 2, (ny_dim[]){rows, cols});
}

ny_value *ny_emit_tile(ny_emit *e, ny_fmt f, int rows, int cols, double fill) {
  const ny_type *t = ny_tile_type(e->cx, f, rows, cols);
  ny_op *op = ny_build(&e->b, NY_tile, NULL, 0, &t, 1);
  if (!op) return NULL;
  op->attr[NY_AT(tile, fill)].f = fill;
  return op->out[0];
}

void ny_emit_set(ny_emit *e, ny_value *tile, ny_value *v) {
  if (tile && v) ny_build(&e->b, NY_set, (ny_value *[]){tile, v}, 2, NULL, 0);
}

ny_value *ny_emit_num(ny_emit *e, ny_fmt f, double x) { return ny_emit_tile(e, f, 1, 1, x); }

ny_value *ny_emit_int(ny_emit *e, ny_dim d) {
  const ny_type *t = ny_tile_type(e->cx, NY_i64, 1, 1);
  ny_op *op = ny_build(&e->b, NY_index, NULL, 0, &t, 1);
  if (!op) return NULL;
  op->attr[NY_AT(index, off)].d = d;
  op->attr[NY_AT(index, stride)] = ny_dims_attr(e->k, (ny_dim[]){0, 0}, 2);
  return op->out[0];
}

ny_value *ny_emit_below(ny_emit *e, ny_coord at, ny_dim n) {
  ny_value *limit = ny_emit_int(e, n);
  return ny_b_ew2(&e->b, NY_lt, ny_emit_index(e, at), limit);
}

ny_value *ny_emit_cast(ny_emit *e, ny_value *t, ny_fmt f) {
  return !t || t->type->fmt == f ? t : ny_b_cast(&e->b, t, f);
}

ny_value *ny_emit_reduce(ny_emit *e, const char *op, ny_value *t, int axis) {
  return t ? ny_b_reduce(&e->b, op, t, &axis, 1, true) : NULL;
}

ny_value *ny_emit_fill(ny_emit *e, ny_value *t, int rows, int cols) {
  if (!t || (ny_tile_rows(t) == rows && ny_tile_cols(t) == cols)) return t;
  ny_value *full = ny_emit_tile(e, t->type->fmt, rows, cols, 0);
  ny_emit_set(e, full, t);
  return full;
}

ny_value *ny_emit_local(ny_emit *e, ny_fmt f, ny_dim n) {
  ny_type t = {.fmt = (uint8_t)f, .rank = 1, .space = NY_SHARED, .dim = {n}};
  const ny_type *type = ny_type_get(e->cx, t);
  ny_op *op = ny_build(&e->b, NY_local, NULL, 0, &type, 1);
  return op ? op->out[0] : NULL;
}

static int extent(const ny_emit *e, const ny_coord *c, int axis) {
  int n = axis ? e->cols : e->rows;
  if (axis ? c->cs != 0 : c->rs != 0) return n;
  return c->index && c->index->type->dim[axis] != 1 ? n : 1;
}

static ny_attr limits(ny_emit *e, int rows, int cols) {
  if (e->lim[0] == NY_ALL && e->lim[1] == NY_ALL) return ny_dims_attr(e->k, NULL, 0);
  ny_dim r = e->lim[0] == NY_ALL ? e->rows : e->lim[0], c = e->lim[1] == NY_ALL ? e->cols : e->lim[1];
  if (rows == 1) r = ny_dim_min(e->cx, ny_dim_max(e->cx, r, 0), 1);
  if (cols == 1) c = ny_dim_min(e->cx, ny_dim_max(e->cx, c, 0), 1);
  return ny_dims_attr(e->k, (ny_dim[]){r, c}, 2);
}

/* The tile is read with rows and columns exchanged, so that neighbouring threads read neighbours, and put into scratch the
   right way round. Rows of the scratch lie one element further apart: a column is then in different memory banks. */
static ny_value *load_turned(ny_emit *e, ny_value *buffer, ny_coord at) {
  int rows = e->rows, cols = e->cols;
  ny_dim lim[2] = {e->lim[0], e->lim[1]};
  ny_value *local = ny_emit_local(e, (ny_fmt)buffer->type->fmt, (ny_dim)rows * (cols + 1));
  e->stage_turned = false;
  e->rows = cols, e->cols = rows, e->lim[0] = lim[1], e->lim[1] = lim[0];
  ny_value *t = ny_emit_load(e, buffer, ny_at(at.base, at.cs, at.rs));
  e->lim[0] = e->lim[1] = NY_ALL;
  ny_emit_store(e, local, ny_at(0, 1, cols + 1), t, NULL);
  e->rows = rows, e->cols = cols;
  t = ny_emit_load(e, local, ny_at(0, cols + 1, 1));
  e->lim[0] = lim[0], e->lim[1] = lim[1];
  e->stage_turned = true;
  return t;
}

ny_value *ny_emit_load(ny_emit *e, ny_value *buffer, ny_coord at) {
  at = ny_coord_plain(e, at);
  if (e->stage_turned && !at.index && at.rs == 1 && at.cs != 1 && at.cs != 0 && ny_fmts[buffer->type->fmt].bits >= 8)
    return load_turned(e, buffer, at);
  int rows = extent(e, &at, 0), cols = extent(e, &at, 1);
  const ny_type *t = ny_tile_type(e->cx, buffer->type->fmt, rows, cols);
  ny_op *op = ny_build(&e->b, NY_load, (ny_value *[]){buffer, at.index}, at.index ? 2 : 1, &t, 1);
  if (!op) return NULL;
  op->attr[NY_AT(load, off)].d = at.base;
  op->attr[NY_AT(load, stride)] = ny_dims_attr(e->k, (ny_dim[]){at.rs, at.cs}, 2);
  op->attr[NY_AT(load, lim)] = limits(e, rows, cols);
  if (at.index && (ny_tile_cols(at.index) != 1 || ny_tile_rows(at.index) != 1)) e->n_index++;
  if (cols > 1 && at.cs != 1) e->n_strided++;
  if (cols > 1 && at.cs != 1 && rows > 1 && at.rs == 1 && !at.index) e->n_turned++;
  return op->out[0];
}

void ny_emit_store(ny_emit *e, ny_value *buffer, ny_coord at, ny_value *t, const char *how) {
  if (!t) return;
  at = ny_coord_plain(e, at);
  if (at.cs != 1 && e->cols > 1) e->n_strided++;
  if (at.index && e->cols > 1) e->n_index++;
  t = ny_emit_fill(e, t, extent(e, &at, 0) > ny_tile_rows(t) ? e->rows : ny_tile_rows(t),
                   extent(e, &at, 1) > ny_tile_cols(t) ? e->cols : ny_tile_cols(t));
  ny_value *in[3] = {buffer, t, at.index};
  ny_op *op = ny_build(&e->b, NY_store, in, at.index ? 3 : 2, NULL, 0);
  if (!op) return;
  op->attr[NY_AT(store, off)].d = at.base;
  op->attr[NY_AT(store, stride)] = ny_dims_attr(e->k, (ny_dim[]){at.rs, at.cs}, 2);
  op->attr[NY_AT(store, lim)] = limits(e, ny_tile_rows(t), ny_tile_cols(t));
  if (how) op->attr[NY_AT(store, op)].s = ny_intern(&e->cx->names, how);
}

/* ---- known tiles */
static bool inside(const ny_block *b, const ny_block *of) {
  for (; b; b = b->parent ? b->parent->parent : NULL)
    if (b == of) return true;
  return false;
}

static ny_known **slot(ny_emit *e, const ny_value *v) { return &e->known[v->id % e->n_known_slots]; }

static ny_value *find(ny_emit *e, ny_value *v, const ny_coord *at) {
  for (ny_known *k = *slot(e, v); k; k = k->next) {
    if (k->v != v || !inside(e->b.block, k->block)) continue;
    if (!k->fixed && (k->rows != e->rows || k->cols != e->cols || k->lim[0] != e->lim[0] || k->lim[1] != e->lim[1]))
      continue;
    bool same = true;
    for (int i = 0; i < v->type->rank && same; i++) {
      if (ny_coord_same(&k->at[i], &at[i])) continue;
      ny_coord p = ny_coord_simplify(e, k->at[i]), q = ny_coord_simplify(e, at[i]);
      same = ny_coord_same(&p, &q);
    }
    if (same) return k->tile;
  }
  return NULL;
}

static void remember(ny_emit *e, ny_value *v, const ny_coord *at, ny_value *tile, bool fixed) {
  size_t n = v->type->rank;
  ny_known *k = ny_alloc(e->a, sizeof *k + n * sizeof *at);
  *k = (ny_known){v, tile, e->b.block, *slot(e, v), e->rows, e->cols, {e->lim[0], e->lim[1]}, fixed};
  if (n) memcpy(k->at, at, n * sizeof *at);
  *slot(e, v) = k;
}

void ny_emit_know(ny_emit *e, ny_value *v, const ny_coord *at, ny_value *tile) { remember(e, v, at, tile, true); }

void ny_emit_forget(ny_emit *e) {
  for (uint32_t i = 0; i < e->n_known_slots; i++)
    for (ny_known **p = &e->known[i]; *p;)
      if ((*p)->fixed)
        p = &(*p)->next;
      else
        *p = (*p)->next;
}

ny_value *ny_emit_at(ny_emit *e, ny_value *v, const ny_coord *at) {
  if (e->failed || e->cx->diag.code) return NULL;
  ny_value *t = find(e, v, at);
  if (t) return t;
  if (!v->def) {
    t = ny_emit_load(e, ny_kernel_in(e->k, (int)v->index), ny_coord_flat(e, v->type, at));
  } else {
    ny_at_fn *row = ny_at_row_of((ny_kind)v->def->kind);
    if (!row || e->depth >= NY_EMIT_DEPTH) e->failed = true;
    if (e->failed) return NULL;
    e->depth++;
    t = row(e, v->def, at);
    e->depth--;
  }
  if (!t) {
    e->failed = true;
    return NULL;
  }
  remember(e, v, at, t, false);
  return t;
}

void ny_emit_out(ny_emit *e, int i, const ny_coord *at, ny_value *t) {
  ny_value *buffer = ny_kernel_out(e, i);
  ny_emit_store(e, buffer, ny_coord_flat(e, buffer->type, at), t, NULL);
}

void ny_emit_result(ny_emit *e, int i, const ny_coord *at) {
  ny_emit_out(e, i, at, ny_emit_at(e, ny_in(ny_group_yield(e->group), i), at));
}
