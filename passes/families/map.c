/* map: every element of the result is an expression of the inputs. The result's dims become rows (grid) and columns
   (lanes). Neighbouring dims are merged as long as every access stays as cheap as it was: the merge is tried, and the
   index tiles and strided accesses it would cost are counted. A grid point is a run of columns of one row, or several
   rows where they are short. Where an input lies the other way round (a transpose), a tile is a square of rows and
   columns, so that it is read along its rows and turned in registers.
   On a GPU a grid point is one vector of 16 bytes, or one element where rows are not multiples of it or elements lie
   apart; a square is a block's, and what lies the other way round goes through shared memory. */
#include <string.h>

#include "gpu.h"

nyb_status ny_lower_pieces(ny_pass_cx *px, ny_op *group, ny_graph *k, int64_t cost); /* pieces.c */

typedef struct space { /* the result's dims, merged: runs of them from the outside in */
  int first[NY_MAX_RANK + 1], n;
  ny_dim size[NY_MAX_RANK];
} space;
typedef struct map {
  ny_op *group;
  const ny_type *t;
  ny_value *v;
  space s;
  int64_t cost;
  int lanes, cols, rows;
  int vector; /* on a GPU: elements of a grid point; else 0 */
  int turned; /* the run whose elements are rows of a square tile, or -1 */
  ny_coord run[NY_MAX_RANK];
} map;

static space split_space(const ny_type *t) {
  space s = {.n = 0};
  for (int i = 0; i < t->rank; i++) {
    if (t->dim[i] == 1) continue; /* rides with the dim before it */
    s.first[s.n] = s.n ? i : 0;
    s.size[s.n++] = t->dim[i];
  }
  if (!s.n) s.size[s.n++] = 1;
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

static void store_tile(ny_emit *e, const map *m) {
  ny_coord at[NY_MAX_RANK];
  for (int i = 0; i < m->s.n; i++)
    ny_coord_split(e, m->run[i], m->t->dim + m->s.first[i], m->s.first[i + 1] - m->s.first[i], at + m->s.first[i]);
  ny_emit_result(e, 0, at);
}

static int tile_cols(const ny_pass_cx *px, const map *m) {
  if (m->vector) return m->vector;
  ny_fmt f = (ny_fmt)m->t->fmt;
  int lanes = ny_vec_lanes(px, ny_fmts[f].bits < 32 ? NY_f32 : f);
  return m->turned >= 0 || m->cost > 60 ? lanes : lanes * 2;
}

/* What a schedule costs: one tile in a kernel of its own. */
static void probe(ny_pass_cx *px, const map *m, ny_graph *like, uint32_t *n_index, uint32_t *n_strided) {
  ny_graph *k = ny_graph_new(like->unit, like->name, true);
  map p = *m;
  ny_emit e;
  for (uint32_t i = 0; i < like->body.n_arg; i++) ny_block_arg(k, &k->body, like->body.arg[i]->type, NULL);
  ny_emit_begin(&e, px, m->group, k, &px->scratch);
  int last = m->s.n - 1;
  for (int i = 0; i < last; i++) p.run[i] = ny_at_one(ny_emit_grid(&e, m->s.size[i]));
  e.cols = tile_cols(px, m); /* the width that will be used: what lies inside one row of a dim at half of it may not at all of it */
  p.run[last] = ny_at_col(ny_dim_mul(e.cx, ny_emit_grid(&e, ny_dim_ceildiv(e.cx, m->s.size[last], e.cols)), e.cols));
  if (m->turned >= 0) {
    e.rows = 16;
    p.run[m->turned] = ny_at_row(p.run[m->turned].base);
  }
  store_tile(&e, &p);
  *n_index = e.n_index, *n_strided = e.n_strided;
  if (m->turned >= 0) { /* then: how many of them lie along the rows */
    uint32_t n = 0;
    for (ny_op *op = k->body.first; op; op = op->next)
      if (op->kind == NY_load && op->n_in == 1) {
        const ny_dim *s = op->attr[NY_AT(load, stride)].dims.v;
        n += s[0] == 1 && s[1] != 1 && s[1] != 0;
      }
    *n_strided = n;
  }
  ny_graph_drop(k);
}

/* The run along which most of what is apart in the columns is adjacent, and how many loads that is. */
static uint32_t best_turn(ny_pass_cx *px, const map *m, ny_graph *k, int *run) {
  uint32_t most = 0, index, along;
  for (int i = 0; i < m->s.n - 1; i++) {
    map tried = *m;
    tried.turned = i;
    probe(px, &tried, k, &index, &along);
    if (along > most) most = along, *run = i;
  }
  return most;
}

/* Merges from the inside out. Where a turn is possible, the columns stay a dim of their own and the others merge only
 * if it still is. */
static void merge_dims(ny_pass_cx *px, map *m, ny_graph *k) {
  uint32_t index, strided, turns = 0;
  int run = -1;
  m->s = split_space(m->t);
  m->turned = -1;
  while (m->s.n > 1 && ny_fmts[m->t->fmt].bits < 8)
    m->s = merged(k->cx, &m->s, 0); /* two grid points must not share a byte */
  probe(px, m, k, &index, &strided);
  if (strided) turns = best_turn(px, m, k, &run);
  for (int i = m->s.n - 2 - (turns > 0); i >= 0; i--) {
    map tried = *m;
    uint32_t more_index, more_strided;
    tried.s = merged(k->cx, &m->s, i);
    probe(px, &tried, k, &more_index, &more_strided);
    if (more_index > index || more_strided > strided) continue;
    if (!turns || best_turn(px, &tried, k, &run) == turns) m->s = tried.s;
  }
  if (turns && best_turn(px, m, k, &run)) m->turned = run;
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

typedef struct part {
  map *m;
  ny_dim first;
} part;

static void columns(ny_emit *e, void *user, ny_dim lo) {
  part *p = user;
  p->m->run[p->m->s.n - 1] = ny_at_col(ny_dim_add(e->cx, p->first, lo));
  store_tile(e, p->m);
}

/* Long rows are cut into runs of columns that are grid points of their own. */
static void rows_of_columns(ny_emit *e, map *m) {
  enum { RUN = 4096 };
  int last = m->s.n - 1;
  ny_dim n = m->s.size[last], count = n;
  int64_t block = ny_knob(e->k, "block", RUN / m->cols * m->cols);
  part p = {m, 0};
  if (block < m->cols) block = m->cols;
  for (int i = 0; i < last; i++) m->run[i] = ny_at_one(ny_emit_grid(e, m->s.size[i]));
  if (n < 0 || n > block) {
    ny_knob_set(e->k, "block", block);
    p.first = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, n, block)), block);
    count = n > 0 && n % block == 0 ? block : ny_dim_min(e->cx, ny_dim_sub(e->cx, n, p.first), block);
  }
  ny_emit_columns(e, count, m->cols, columns, &p);
  int64_t each = at_most(n, 512) < block ? at_most(n, 512) : block;
  ny_emit_grain(e, m->cost * each / m->lanes + 8);
}

/* Short rows: a tile of several whole rows; the last tile may be partial. */
static void short_rows(ny_emit *e, map *m) {
  int last = m->s.n - 1, row = last - 1;
  ny_dim n = m->s.size[row];
  for (int i = 0; i < row; i++) m->run[i] = ny_at_one(ny_emit_grid(e, m->s.size[i]));
  ny_dim r0 = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, n, m->rows)), m->rows);
  e->cols = m->cols, e->rows = m->rows;
  if (!(n >= 0 && n % m->rows == 0)) e->lim[0] = ny_dim_sub(e->cx, n, r0);
  m->run[row] = ny_at_row(r0);
  m->run[last] = ny_at_col(0);
  store_tile(e, m);
  e->lim[0] = NY_ALL;
  ny_emit_grain(e, m->cost * m->rows * m->cols / m->lanes + 8);
}

static void square(ny_emit *e, void *user, int rows, ny_dim row) {
  map *m = user;
  part p = {m, 0};
  e->rows = rows;
  m->run[m->turned] = ny_at_row(row);
  ny_emit_columns(e, m->s.size[m->s.n - 1], m->cols, columns, &p);
  e->rows = 1;
}

static void squares(ny_emit *e, map *m) {
  ny_rows r = ny_rows_of(e->cx, m->s.size[m->turned], m->rows);
  for (int i = 0; i < m->s.n - 1; i++)
    if (i != m->turned) m->run[i] = ny_at_one(ny_emit_grid(e, m->s.size[i]));
  ny_rows_emit(e, &r, ny_emit_grid(e, r.tiles), square, m);
  ny_emit_grain(e, m->cost * m->rows * at_most(m->s.size[m->s.n - 1], 128) / m->lanes * 2 + 8);
}

static void pick_tile(ny_pass_cx *px, map *m, ny_graph *k) {
  ny_fmt f = (ny_fmt)m->t->fmt;
  ny_dim n = m->s.size[m->s.n - 1], above = m->s.n > 1 ? m->s.size[m->s.n - 2] : 1;
  m->lanes = ny_vec_lanes(px, ny_fmts[f].bits < 32 ? NY_f32 : f);
  int cols = (int)ny_knob(k, "cols", tile_cols(px, m));
  if (cols < 1) cols = 1;
  m->cols = n >= 1 && n < cols ? (int)n : cols;
  m->rows = 1;
  if (m->turned >= 0) {
    m->rows = m->lanes;
  } else if (n >= 1 && n < m->lanes && above != 1) {
    m->rows = (int)(m->lanes / n);
    if (above >= 1 && above < m->rows) m->rows = (int)above;
    m->cols = (int)n;
  }
  ny_knob_set(k, "cols", m->cols);
  if (m->rows > 1) ny_knob_set(k, "rows", m->rows);
}

/* ---- on a GPU */
enum { SQUARE = 32, SQUARE_MIN = 12 /* smaller dims leave most of a square empty */ };

static bool worth_square(ny_dim n) { return n < 0 || n >= SQUARE_MIN; }

/* A block's square: 32 x 32, of which a warp holds a row at a time. */
static void block_squares(ny_emit *e, map *m) {
  int last = m->s.n - 1;
  ny_dim n = m->s.size[last], above = m->s.size[m->turned];
  for (int i = 0; i < last; i++)
    if (i != m->turned) m->run[i] = ny_at_one(ny_emit_grid(e, m->s.size[i]));
  ny_dim r0 = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, above, SQUARE)), SQUARE);
  ny_dim c0 = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, n, SQUARE)), SQUARE);
  e->rows = e->cols = SQUARE;
  if (!ny_dim_divides(e->cx, above, SQUARE)) e->lim[0] = ny_dim_sub(e->cx, above, r0);
  if (!ny_dim_divides(e->cx, n, SQUARE)) e->lim[1] = ny_dim_sub(e->cx, n, c0);
  m->run[m->turned] = ny_at_row(r0);
  m->run[last] = ny_at_col(c0);
  e->stage_turned = true;
  store_tile(e, m);
  e->lim[0] = e->lim[1] = NY_ALL;
  ny_gpu_threads(e->k, 256, 1);
  ny_knob_set(e->k, "tr", 256 / SQUARE);
  ny_knob_set(e->k, "u", 1);
}

static void vector_columns(ny_emit *e, void *user, ny_dim lo) {
  map *m = user;
  m->run[m->s.n - 1] = ny_at_col(lo);
  store_tile(e, m);
}

/* Where rows are no multiple of a vector, or elements lie apart, a thread has one element: neighbours are neighbours. */
static int thread_columns(ny_pass_cx *px, const map *m, ny_graph *k) {
  uint32_t index, strided;
  int least = ny_fmts[m->t->fmt].bits < 8 ? 8 / ny_fmts[m->t->fmt].bits : 1;
  if (least > 1) return m->vector;
  probe(px, m, k, &index, &strided);
  if (index || strided) return 1;
  return m->s.n == 1 ? m->vector : ny_gpu_divides(k->cx, m->s.size[m->s.n - 1], m->vector);
}

static nyb_status lower_gpu(ny_pass_cx *px, map *m, ny_graph *k) {
  ny_emit e;
  m->vector = ny_gpu_vector(m->group);
  merge_dims(px, m, k);
  if (m->turned >= 0 && !(worth_square(m->s.size[m->turned]) && worth_square(m->s.size[m->s.n - 1]))) m->turned = -1;
  int cols = m->turned >= 0 ? SQUARE : thread_columns(px, m, k);
  ny_emit_begin(&e, px, m->group, k, &px->scratch);
  if (m->turned >= 0) {
    block_squares(&e, m);
  } else {
    for (int i = 0; i < m->s.n - 1; i++) m->run[i] = ny_at_one(ny_emit_grid(&e, m->s.size[i]));
    ny_gpu_columns(&e, m->s.size[m->s.n - 1], (int)ny_knob(k, "cols", cols), vector_columns, m);
  }
  ny_emit_inplace(&e);
  return ny_emit_finish(&e);
}

nyb_status ny_lower_map(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  const ny_op *yield = group->body[0]->last;
  if (yield->n_in != 1) return NYB_E_UNSUPPORTED;
  map m = {.group = group, .v = ny_in(yield, 0), .t = ny_in(yield, 0)->type, .cost = cost_of(group)};
  nyb_status st = ny_lower_pieces(px, group, k, m.cost);
  if (st != NYB_E_UNSUPPORTED || k->cx->diag.code) return st;
  if (ny_on_gpu(px->target)) return lower_gpu(px, &m, k);
  ny_emit e;
  merge_dims(px, &m, k);
  pick_tile(px, &m, k);
  ny_emit_begin(&e, px, group, k, &px->scratch);
  if (m.turned >= 0)
    squares(&e, &m);
  else if (m.rows > 1)
    short_rows(&e, &m);
  else
    rows_of_columns(&e, &m);
  if (m.turned < 0 || ny_dim_divides(k->cx, m.s.size[m.turned], m.rows))
    ny_emit_inplace(&e); /* tiles that overlap read twice */
  return ny_emit_finish(&e);
}
