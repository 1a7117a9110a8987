/* row: reductions over the same trailing dims and what is elementwise around them, a row at a time: softmax, norms,
   means. A value's stage is how many reductions lie above it; pass s runs over the columns and folds every reduction
   whose input has stage s; a last pass computes results that have columns. What has no columns is computed once between
   passes. A short row is one tile, so that nothing is computed twice; in a long one an expensive value that several
   passes need is kept in the result's own memory until the last pass replaces it, or else in scratch.
   On a GPU a row is a warp's or a block's and stays in registers as long as it fits; a very short one is a thread's. */
#include <string.h>

#include "gpu.h"

enum { MAX_FOLDS = 16, MAX_LOCAL = 65536, GPU_LOCAL = 32768, BARGAIN = 6 };
typedef struct row {
  ny_op *group;
  const ny_type *full; /* shape of what is reduced */
  int axis;            /* first reduced dim */
  int stages;
  ny_dim rows, count;
  int cols;
  bool gpu;
  struct {
    uint32_t id;
    int stage;
  } * slot; /* hash table by value id: ids run through the whole graph, a group has few */
  uint32_t n_slots;
  ny_coord at[NY_MAX_RANK];
  ny_fold_acc acc[MAX_FOLDS];
  ny_op *fold[MAX_FOLDS];
  int n_fold;
  int pass;       /* now */
  ny_value *keep; /* the kept value, or NULL */
  ny_value *buffer;
  bool in_result; /* buffer is the result's memory */
  int keep_pass;  /* that computes it */
} row;

static bool is_reduce(const ny_value *v) { return v->def && v->def->kind == NY_reduce; }

/* How many reductions lie before v, at a place that may be written once. Ids are stored plus one. */
static int *stage_at(const row *r, const ny_value *v) {
  uint32_t i = v->id * 2654435761u & (r->n_slots - 1);
  while (r->slot[i].id && r->slot[i].id != v->id + 1) i = (i + 1) & (r->n_slots - 1);
  r->slot[i].id = v->id + 1;
  return &r->slot[i].stage;
}

static void find_stages(ny_pass_cx *px, row *r, const ny_graph *k) {
  (void)k;
  uint32_t n = r->group->body[0]->n_arg;
  for (ny_op *op = r->group->body[0]->first; op; op = op->next) n += op->n_in + op->n_out;
  for (r->n_slots = 16; r->n_slots < 2 * n; r->n_slots *= 2) {}
  r->slot = ny_alloc(&px->scratch, r->n_slots * sizeof *r->slot);
  for (ny_op *op = r->group->body[0]->first; op; op = op->next) {
    int s = 0;
    for (int i = 0; i < op->n_in; i++) {
      int before = *stage_at(r, ny_in(op, i));
      s = before > s ? before : s;
    }
    if (op->kind == NY_reduce) s++;
    if (s > r->stages) r->stages = s;
    for (int i = 0; i < op->n_out; i++) *stage_at(r, op->out[i]) = s;
  }
}

static bool trailing(const ny_ctx *cx, const ny_op *op, const ny_type *full, int *axis) {
  bool gone[NY_MAX_RANK];
  int low = 0;
  if (!ny_reduced_dims(cx, op, gone)) return false;
  while (low < full->rank && !gone[low]) low++;
  for (int i = low; i < full->rank; i++)
    if (!gone[i]) return false;
  if (low == full->rank || (*axis >= 0 && *axis != low)) return false;
  *axis = low;
  return true;
}

static bool same_shape(const ny_type *a, const ny_type *b) {
  return a->rank == b->rank && memcmp(a->dim, b->dim, sizeof a->dim[0] * a->rank) == 0;
}

static bool read_group(const ny_ctx *cx, row *r) {
  int folds = 0;
  r->axis = -1;
  for (ny_op *op = r->group->body[0]->first; op; op = op->next) {
    if (op->kind != NY_reduce) continue;
    if (!r->full) r->full = ny_in(op, 0)->type;
    if (++folds > MAX_FOLDS || !same_shape(r->full, ny_in(op, 0)->type) || !trailing(cx, op, r->full, &r->axis))
      return false;
  }
  return r->full != NULL;
}

/* Does v vary along the columns? Coordinates of a value that does not, where that is clear from its shape. */
static bool has_columns(const row *r, const ny_value *v) {
  if (v->type->rank != r->full->rank) return v->type->rank > r->axis || !v->def;
  for (int i = r->axis; i < v->type->rank; i++)
    if (v->type->dim[i] != 1) return true;
  return false;
}

/* The row's coordinates for a value without columns: of full rank with ones, or with the reduced dims dropped. */
static bool row_at(const row *r, const ny_value *v, ny_coord *at) {
  ny_coord c[NY_MAX_RANK];
  for (int i = 0; i < r->full->rank; i++) c[i] = i < r->axis ? r->at[i] : ny_at_one(0);
  if (v->type->rank == r->full->rank) {
    ny_type t = *r->full;
    for (int i = r->axis; i < t.rank; i++) t.dim[i] = 1;
    ny_coord_broadcast(&t, c, v->type, at);
    return true;
  }
  if (v->type->rank != r->axis) return false;
  for (int i = 0; i < r->axis; i++)
    if (v->type->dim[i] != r->full->dim[i]) return false;
  memcpy(at, c, sizeof *at * (size_t)(r->axis ? r->axis : 1));
  return true;
}

static void column_at(ny_emit *e, const row *r, ny_dim lo, ny_coord *at) {
  memcpy(at, r->at, sizeof *at * (size_t)(r->axis ? r->axis : 1));
  ny_coord_split(e, ny_at_col(lo), r->full->dim + r->axis, r->full->rank - r->axis, at + r->axis);
}

/* ---- the kept value */
static int work(const ny_value *v, const row *r, int depth) {
  if (!v->def || depth > 64 || is_reduce(v)) return 1;
  if (!has_columns(r, v)) return 0;
  const ny_op *op = v->def;
  int n = ny_kinds[op->kind].flags & NY_MAP ? ny_expr_of((ny_kind)op->kind)->n : 1;
  for (int i = 0; i < op->n_in; i++) n += work(ny_in(op, i), r, depth + 1);
  return n > 1000 ? 1000 : n;
}

/* In which passes is v computed? A bit each; the last pass is bit `stages`. */
static unsigned passes_of(const row *r, const ny_value *v, int depth) {
  unsigned m = 0;
  if (depth > 64) return 0;
  for (const ny_use *u = v->uses; u; u = u->next) {
    const ny_op *op = u->user;
    if (op->kind == NY_yield)
      m |= 1u << r->stages;
    else if (op->kind == NY_reduce)
      m |= 1u << *stage_at(r, v);
    else if (has_columns(r, op->out[0]))
      m |= passes_of(r, op->out[0], depth + 1);
  }
  return m;
}

static void choose_kept(ny_emit *e, row *r) {
  int best = BARGAIN - 1;
  const ny_value *result = ny_in(ny_group_yield(r->group), 0);
  int64_t n;
  for (ny_op *op = r->group->body[0]->first; op; op = op->next) {
    if (op->n_out != 1 || !has_columns(r, op->out[0]) || !same_shape(op->out[0]->type, r->full)) continue;
    ny_value *v = op->out[0];
    unsigned m = passes_of(r, v, 0);
    int gain = (__builtin_popcount(m) - 1) * work(v, r, 0);
    bool in_result = result->type == v->type && ny_group_yield(r->group)->n_in == 1;
    bool fits = ny_dim_is_const(e->cx, r->count, &n) && n * ny_fmts[v->type->fmt].bits / 8 <= (r->gpu ? GPU_LOCAL : MAX_LOCAL) &&
                ny_fmts[v->type->fmt].bits >= 8;
    if (gain <= best || (!in_result && !fits) || v == result) continue;
    best = gain;
    r->keep = v;
    r->in_result = in_result;
    r->keep_pass = __builtin_ctz(m);
  }
  if (!r->keep) return;
  r->buffer = r->in_result ? ny_kernel_out(e, 0) : ny_emit_local(e, (ny_fmt)r->keep->type->fmt, r->count);
}

static ny_coord kept_at(ny_emit *e, const row *r, const ny_coord *at, ny_dim lo) {
  return r->in_result ? ny_coord_flat(e, r->full, at) : ny_at_col(lo);
}

static void fetch_kept(ny_emit *e, const row *r, const ny_coord *at, ny_dim lo) {
  if (!r->keep || r->pass < r->keep_pass) return;
  if (r->pass > r->keep_pass)
    ny_emit_know(e, r->keep, at, ny_emit_load(e, r->buffer, kept_at(e, r, at, lo)));
  else
    ny_emit_store(e, r->buffer, kept_at(e, r, at, lo), ny_emit_at(e, r->keep, at), NULL);
}

/* ---- passes */
static void fold_columns(ny_emit *e, void *user, ny_dim lo) {
  row *r = user;
  ny_coord at[NY_MAX_RANK];
  column_at(e, r, lo, at);
  fetch_kept(e, r, at, lo);
  for (int i = 0; i < r->n_fold; i++) ny_fold_add(e, &r->acc[i], ny_emit_at(e, ny_in(r->fold[i], 0), at));
}

static void store_columns(ny_emit *e, void *user, ny_dim lo) {
  row *r = user;
  ny_coord at[NY_MAX_RANK];
  const ny_op *yield = ny_group_yield(r->group);
  column_at(e, r, lo, at);
  fetch_kept(e, r, at, lo);
  for (int i = 0; i < yield->n_in; i++)
    if (has_columns(r, ny_in(yield, i))) ny_emit_result(e, i, at);
}

/* What has no columns and is now known, once for the row. */
static void between(ny_emit *e, row *r) {
  e->cols = 1;
  for (ny_op *op = r->group->body[0]->first; op; op = op->next) {
    ny_coord at[NY_MAX_RANK];
    if (op->n_out != 1 || op->kind == NY_reduce || op->kind == NY_const || *stage_at(r, op->out[0]) != r->pass)
      continue;
    if (r->pass == 0 || has_columns(r, op->out[0]) || !row_at(r, op->out[0], at)) continue;
    ny_emit_know(e, op->out[0], at, ny_emit_at(e, op->out[0], at));
  }
}

static void fold_pass(ny_emit *e, row *r) {
  r->n_fold = 0;
  for (ny_op *op = r->group->body[0]->first; op; op = op->next)
    if (op->kind == NY_reduce && *stage_at(r, ny_in(op, 0)) == r->pass) r->fold[r->n_fold++] = op;
  for (int i = 0; i < r->n_fold; i++) {
    const char *op = r->fold[i]->attr[NY_AT(reduce, op)].s;
    ny_fmt f = (ny_fmt)ny_in(r->fold[i], 0)->type->fmt;
    r->acc[i] = r->gpu && r->count == r->cols ? ny_fold_once(op, f) : ny_fold_open(e, op, f, r->count, r->cols);
  }
  ny_emit_columns(e, r->count, r->cols, fold_columns, r);
  for (int i = 0; i < r->n_fold; i++) {
    ny_coord at[NY_MAX_RANK];
    const ny_value *v = r->fold[i]->out[0];
    ny_value *t = ny_fold_close(e, &r->acc[i], (ny_fmt)v->type->fmt);
    if (!row_at(r, v, at))
      e->failed = true;
    else
      ny_emit_know(e, r->fold[i]->out[0], at, t);
  }
}

static void store_pass(ny_emit *e, row *r) {
  const ny_op *yield = ny_group_yield(r->group);
  bool wide = false;
  e->cols = 1;
  for (int i = 0; i < yield->n_in; i++) {
    ny_coord at[NY_MAX_RANK];
    wide |= has_columns(r, ny_in(yield, i));
    if (has_columns(r, ny_in(yield, i))) continue;
    if (row_at(r, ny_in(yield, i), at))
      ny_emit_result(e, i, at);
    else
      e->failed = true;
  }
  if (wide) ny_emit_columns(e, r->count, r->cols, store_columns, r);
}

/* A warp or a block a row. A row that does not fit in registers goes by in tiles. */
static void gpu_shape(ny_emit *e, row *r) {
  enum { EACH = 32, STEP = 8 }; /* elements of a thread: of a whole row, of a tile of a long one */
  int64_t n = ny_gpu_count(r->full, 0, r->axis, 1024);
  int v = ny_gpu_divides(e->cx, r->count, ny_gpu_vector(r->group));
  int t = (int)ny_knob(e->k, "threads", ny_gpu_row_threads(r->count, n, EACH, v));
  bool whole = r->count > 0 && r->count <= (int64_t)t * EACH;
  r->gpu = true;
  r->cols = (int)ny_knob(e->k, "cols", whole ? r->count : (int64_t)t * STEP);
  ny_knob_set(e->k, "cols", r->cols);
  if (t > 1) ny_gpu_threads(e->k, t, v);
}

nyb_status ny_lower_row(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  row r = {.group = group};
  ny_emit e;
  if (!read_group(k->cx, &r)) return NYB_E_UNSUPPORTED;
  ny_emit_begin(&e, px, group, k, &px->scratch);
  find_stages(px, &r, k);
  r.rows = r.count = 1;
  for (int i = 0; i < r.full->rank; i++)
    *(i < r.axis ? &r.rows : &r.count) = ny_dim_mul(e.cx, i < r.axis ? r.rows : r.count, r.full->dim[i]);
  ny_dim m = r.rows == 1 ? 0 : ny_emit_grid(&e, r.rows);
  ny_coord_split(&e, ny_at_one(m), r.full->dim, r.axis, r.at);
  int lanes = ny_vec_lanes(px, ny_sum_fmt((ny_fmt)r.full->fmt));
  int short_row = 8 * lanes;
  if (ny_on_gpu(px->target)) {
    gpu_shape(&e, &r);
  } else {
    r.cols = r.count > 0 && r.count <= short_row ? (int)r.count : 4 * lanes;
    r.cols = (int)ny_knob(k, "cols", r.cols);
    ny_knob_set(k, "cols", r.cols);
  }
  if (r.count != r.cols) choose_kept(&e, &r);
  for (r.pass = 0; r.pass < r.stages; r.pass++) {
    between(&e, &r);
    fold_pass(&e, &r);
  }
  between(&e, &r);
  store_pass(&e, &r);
  if (!r.keep) ny_emit_inplace(&e);
  int64_t cost = 1;
  for (ny_op *op = group->body[0]->first; op; op = op->next)
    cost += ny_kinds[op->kind].flags & NY_MAP ? ny_expr_of((ny_kind)op->kind)->n : 1;
  ny_emit_grain(&e, cost * (r.count > 0 && r.count < 1 << 20 ? r.count : 256) / lanes + 8);
  return ny_emit_finish(&e);
}
