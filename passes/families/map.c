/* map: every element of the result is an expression of the inputs. The result's dims become rows (grid) and columns (lanes). Neighbouring dims are merged
   as long as every access stays as cheap as it was: the merge is tried, and the index tiles and strided accesses it would cost are counted. A grid
   point is a run of columns of one row, or several rows where they are short. Where an input's columns are apart but adjacent along another dim (a
   transpose), that dim gives the tile its rows, so that the back end can turn square blocks. A concat stores its pieces one after the other. */
#include <string.h>

#include "family.h"

typedef struct space { /* the result's dims, merged: runs of them from the outside in */
  int first[NY_MAX_RANK + 1], n;
  ny_dim size[NY_MAX_RANK];
} space;
typedef struct map {
  ny_op *group;
  const ny_type *t;
  ny_value *v; /* what is stored: the result, or an input of the concat that it is */
  int axis;    /* of that concat */
  ny_dim lo;   /* first position of the piece there */
  space s;
  int64_t cost;
  int lanes, cols, rows;
  int turn; /* the run that gives a tile TURN rows, or -1 */
} map;
enum { TURN = 16 };

static space split_space(const ny_type *t) {
  space s = {.n = 0};
  for (int i = 0; i < t->rank; i++) {
    if (t->dim[i] == 1 && s.n) continue; /* rides with its neighbour */
    s.first[s.n] = s.n ? i : 0;
    s.size[s.n++] = t->dim[i];
  }
  if (!s.n) s.first[s.n] = 0, s.size[s.n++] = 1;
  if (s.n > 1 && s.size[0] == 1) { /* a leading run of ones joins the next */
    for (int i = 1; i < s.n; i++) s.first[i - 1] = i == 1 ? 0 : s.first[i], s.size[i - 1] = s.size[i];
    s.n--;
  }
  s.first[s.n] = t->rank;
  return s;
}

static space merged(ny_ctx *cx, const space *s, int i) { /* runs i and i+1 */
  space m = *s;
  m.size[i] = ny_dim_mul(cx, s->size[i], s->size[i + 1]);
  for (int j = i + 1; j < s->n; j++) m.first[j] = s->first[j + 1], m.size[j] = s->size[j + 1];
  m.n--;
  return m;
}

/* Coordinates of the result's dims from those of the runs. */
static void spread(ny_emit *e, const map *m, const ny_coord *run, ny_coord *at) {
  for (int i = 0; i < m->s.n; i++)
    ny_coord_split(e, run[i], m->t->dim + m->s.first[i], m->s.first[i + 1] - m->s.first[i], at + m->s.first[i]);
}

static void store_tile(ny_emit *e, const map *m, const ny_coord *run) {
  ny_coord at[NY_MAX_RANK];
  spread(e, m, run, at);
  ny_value *t = ny_emit_at(e, m->v, at);
  if (m->axis >= 0) at[m->axis].base = ny_dim_add(e->cx, at[m->axis].base, m->lo);
  ny_emit_out(e, 0, at, t);
}

/* What a schedule costs: one tile in a kernel of its own. */
static void probe(ny_pass_cx *px, const map *m, ny_graph *like, uint32_t *n_index, uint32_t *n_strided) {
  ny_graph *k = ny_graph_new(like->unit, like->name, true);
  ny_emit e;
  bool turned = m->turn >= 0;
  for (uint32_t i = 0; i < like->body.n_arg; i++) ny_block_arg(k, &k->body, like->body.arg[i]->type, NULL);
  ny_emit_begin(&e, px, m->group, k, &px->scratch);
  ny_coord run[NY_MAX_RANK];
  for (int i = 0; i < m->s.n - 1; i++) {
    run[i] = ny_at_one(ny_emit_grid(&e, m->s.size[i]));
    if (i == m->turn) run[i] = ny_at_row(ny_dim_mul(e.cx, run[i].base, TURN));
  }
  if (turned) e.rows = TURN;
  e.cols = 16;
  ny_dim last = ny_emit_grid(&e, ny_dim_ceildiv(e.cx, m->s.size[m->s.n - 1], 16));
  run[m->s.n - 1] = ny_at_col(ny_dim_mul(e.cx, last, 16));
  store_tile(&e, m, run);
  *n_index = e.n_index, *n_strided = e.n_strided - (turned ? e.n_turned : 0);
  ny_graph_drop(k);
}

/* The run along which everything that is apart in the columns is adjacent, or -1. */
static int find_turn(ny_pass_cx *px, const map *m, ny_graph *k) {
  uint32_t index, strided, more_index, left;
  map tried = *m;
  if (m->s.n < 2 || ny_fmts[m->t->fmt].bits < 8 || (m->s.size[m->s.n - 1] >= 0 && m->s.size[m->s.n - 1] < 4)) return -1;
  probe(px, m, k, &index, &strided);
  if (!strided) return -1;
  for (tried.turn = m->s.n - 2; tried.turn >= 0; tried.turn--) {
    ny_dim n = m->s.size[tried.turn];
    if (n >= 0 && n < TURN) continue;
    probe(px, &tried, k, &more_index, &left);
    if (!left && more_index <= index) return tried.turn;
  }
  return -1;
}

static void merge_dims(ny_pass_cx *px, map *m, ny_graph *k) {
  uint32_t index, strided;
  m->s = split_space(m->t);
  while (m->s.n > 1 && ny_fmts[m->t->fmt].bits < 8) m->s = merged(k->cx, &m->s, 0); /* two grid points must not share a byte */
  if (m->axis >= 0) return;
  probe(px, m, k, &index, &strided);
  bool turns = find_turn(px, m, k) >= 0; /* then the columns stay a dim of their own */
  for (int i = m->s.n - 2 - turns; i >= 0; i--) {
    map tried = *m;
    uint32_t more_index, more_strided;
    tried.s = merged(k->cx, &m->s, i);
    probe(px, &tried, k, &more_index, &more_strided);
    if (more_index <= index && more_strided <= strided && (!turns || find_turn(px, &tried, k) >= 0)) m->s = tried.s;
  }
}

static int64_t cost_of(const ny_op *group) {
  int64_t n = 1;
  for (const ny_op *op = group->body[0]->first; op; op = op->next) {
    if (op->kind == NY_yield) break;
    n += ny_kinds[op->kind].flags & NY_MAP ? ny_expr_of((ny_kind)op->kind)->n : 1;
  }
  return n;
}

static int64_t at_most(ny_dim d, int64_t symbolic) { return d >= 0 ? d : symbolic; }

/* Columns [lo, hi) of one row: whole tiles in a loop, then what is left. */
static void columns(ny_emit *e, const map *m, ny_coord *run, ny_dim lo, ny_dim count) {
  int last = m->s.n - 1;
  ny_dim var, whole = ny_dim_mul(e->cx, ny_dim_div(e->cx, count, m->cols), m->cols), rest = ny_dim_sub(e->cx, count, whole);
  e->cols = m->cols;
  if (whole == m->cols) {
    run[last] = ny_at_col(lo);
    store_tile(e, m, run);
  } else if (whole != 0) {
    ny_loop l = ny_emit_for(e, 0, ny_dim_div(e->cx, count, m->cols), 1, 1, &var);
    run[last] = ny_at_col(ny_dim_add(e->cx, lo, ny_dim_mul(e->cx, var, m->cols))); /* known to be a multiple */
    store_tile(e, m, run);
    ny_emit_end(e, l);
  }
  if (rest == 0) return;
  if (rest > 0) {
    e->cols = (int)rest;
    run[last] = ny_at_col(ny_dim_add(e->cx, lo, whole));
    store_tile(e, m, run);
    return;
  }
  ny_loop l = ny_emit_for(e, 0, ny_dim_lt(e->cx, 0, rest), 1, 1, &var);
  e->lim[1] = rest;
  run[last] = ny_at_col(ny_dim_add(e->cx, lo, whole));
  store_tile(e, m, run);
  e->lim[1] = NY_ALL;
  ny_emit_end(e, l);
}

/* The same of every row: of a single one, or of TURN rows of the run that is turned, and its last few one by one. */
static void all_rows(ny_emit *e, const map *m, ny_coord *run, ny_dim lo, ny_dim count) {
  if (m->turn < 0) {
    columns(e, m, run, lo, count);
    return;
  }
  ny_ctx *cx = e->cx;
  ny_dim n = m->s.size[m->turn], first = ny_dim_mul(cx, run[m->turn].base, TURN), unused, r, whole = 1;
  bool always = ny_dim_divides(cx, n, TURN);
  ny_loop l;
  if (!always) {
    whole = ny_dim_lt(cx, ny_dim_add(cx, first, TURN - 1), n);
    l = ny_emit_for(e, 0, whole, 1, 1, &unused);
  }
  e->rows = TURN;
  run[m->turn] = ny_at_row(first);
  columns(e, m, run, lo, count);
  e->rows = 1;
  if (always) return;
  ny_emit_end(e, l);
  l = ny_emit_for(e, 0, ny_dim_mul(cx, ny_dim_sub(cx, 1, whole), ny_dim_sub(cx, n, first)), 1, 1, &r);
  run[m->turn] = ny_at_one(ny_dim_add(cx, first, r));
  columns(e, m, run, lo, count);
  ny_emit_end(e, l);
}

/* Long rows are cut into runs of columns that are grid points of their own. */
static void rows_of_columns(ny_emit *e, map *m) {
  enum { RUN = 4096 };
  int last = m->s.n - 1;
  ny_coord run[NY_MAX_RANK];
  ny_dim n = m->s.size[last];
  int64_t block = ny_knob(e->k, "block", RUN / m->cols * m->cols);
  if (block < m->cols) block = m->cols;
  int64_t high = m->turn < 0 ? 1 : TURN;
  for (int i = 0; i < last; i++)
    run[i] = ny_at_one(ny_emit_grid(e, i == m->turn ? ny_dim_ceildiv(e->cx, m->s.size[i], TURN) : m->s.size[i]));
  if (n >= 0 && n <= block) {
    all_rows(e, m, run, 0, n);
    ny_emit_grain(e, high * m->cost * n / m->lanes + 8);
    return;
  }
  ny_knob_set(e->k, "block", block);
  ny_dim lo = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, n, block)), block);
  ny_dim left = ny_dim_sub(e->cx, n, lo);
  all_rows(e, m, run, lo, n % block == 0 && n > 0 ? block : ny_dim_min(e->cx, left, block));
  ny_emit_grain(e, high * m->cost * (block < at_most(n, 512) ? block : at_most(n, 512)) / m->lanes + 8);
}

/* Short rows: a tile of several whole rows; the last tile may be partial. */
static void short_rows(ny_emit *e, map *m) {
  int last = m->s.n - 1, row = last - 1;
  ny_coord run[NY_MAX_RANK];
  ny_dim n = m->s.size[row];
  for (int i = 0; i < row; i++) run[i] = ny_at_one(ny_emit_grid(e, m->s.size[i]));
  ny_dim r0 = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, n, m->rows)), m->rows);
  e->cols = m->cols, e->rows = m->rows;
  if (!(n >= 0 && n % m->rows == 0)) e->lim[0] = ny_dim_sub(e->cx, n, r0);
  run[row] = ny_at_row(r0);
  run[last] = ny_at_col(0);
  store_tile(e, m, run);
  e->lim[0] = NY_ALL;
  ny_emit_grain(e, m->cost * m->rows * m->cols / m->lanes + 8);
}

static void pick_tile(ny_pass_cx *px, map *m, ny_graph *k) {
  ny_fmt f = (ny_fmt)m->t->fmt;
  ny_dim n = m->s.size[m->s.n - 1];
  m->lanes = ny_vec_lanes(px, ny_fmts[f].bits < 32 ? NY_f32 : f);
  int cols = (int)ny_knob(k, "cols", m->cost > 60 ? m->lanes : m->lanes * 2);
  if (cols < 1) cols = 1;
  m->cols = n >= 1 && n < cols ? (int)n : cols;
  m->rows = 1;
  ny_dim above = m->s.n > 1 ? m->s.size[m->s.n - 2] : 1;
  if (n >= 1 && n < m->lanes && above != 1) {
    m->rows = (int)(m->lanes / n);
    if (above >= 1 && above < m->rows) m->rows = (int)above;
    m->cols = (int)n;
  }
}

static nyb_status lower_one(ny_pass_cx *px, map *m, ny_graph *k) {
  ny_emit e;
  m->turn = -1;
  merge_dims(px, m, k);
  pick_tile(px, m, k);
  if (m->rows == 1) m->turn = find_turn(px, m, k);
  if (m->turn >= 0) m->cols = m->cols > m->lanes ? m->lanes : m->cols;
  ny_knob_set(k, "cols", m->cols);
  ny_emit_begin(&e, px, m->group, k, &px->scratch);
  if (m->rows > 1) short_rows(&e, m);
  else rows_of_columns(&e, m);
  ny_emit_inplace(&e);
  return ny_emit_finish(&e);
}

nyb_status ny_lower_map(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  const ny_op *yield = group->body[0]->last;
  if (yield->n_in != 1) return NYB_E_UNSUPPORTED;
  map m = {.group = group, .v = ny_in(yield, 0), .t = ny_in(yield, 0)->type, .axis = -1, .cost = cost_of(group)};
  return lower_one(px, &m, k);
}
