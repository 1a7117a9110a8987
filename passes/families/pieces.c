/* concat and constant pad as the last op of a map: the result is stored piece by piece, each piece a plain run of
   elements, instead of choosing between pieces element by element. A row is the concat's axis, or the last padded dim,
   with all dims inside it; the dims outside are the grid, and those of them that are padded decide by condition whether
   the row holds elements or only fill. What is fused before the pad is computed only where there are elements.
   On a GPU a grid point is a vector that lies in one piece, and finds out in which. */
#include <string.h>

#include "gpu.h"

typedef struct pieces {
  ny_op *op;
  const ny_type *t;
  int axis, cols;
  ny_dim inner, length;       /* elements of one position of the axis, and of a row */
  ny_dim first, block;        /* the part of the row this grid point stores; block 0: all */
  ny_coord at[NY_MAX_RANK];   /* outer dims of the result */
  ny_coord from[NY_MAX_RANK]; /* and of the piece */
  ny_value *v;                /* of the piece; NULL: fill */
  ny_dim lo, start;           /* where the piece begins in the row; first element of it that is stored */
  ny_dim gap;                 /* pad: interior of the axis */
  ny_dim pos;                 /* position along the axis, when the inner elements of one are stored at a time */
  int vector; /* on a GPU: elements of a grid point; else 0 */
  bool nested; /* always so: an operand that lacks one of the row's dims would need its remainder for every element */
} pieces;

static ny_value *fill_value(ny_emit *e, const pieces *p) {
  if (p->op->n_in > 1) return ny_emit_at(e, ny_in(p->op, 1), NULL);
  return ny_emit_num(e, (ny_fmt)p->t->fmt, 0);
}

static void put(ny_emit *e, pieces *p, ny_coord in_row, ny_value *v) {
  ny_coord at[NY_MAX_RANK];
  memcpy(at, p->at, sizeof at);
  ny_coord_split(e, in_row, p->t->dim + p->axis, p->t->rank - p->axis, at + p->axis);
  ny_emit_out(e, 0, at, v);
}

/* Elements of a piece that lie one after the other both in it and in the row. */
static void run_columns(ny_emit *e, void *user, ny_dim lo) {
  pieces *p = user;
  ny_dim i = ny_dim_add(e->cx, p->start, lo);
  ny_value *v;
  if (p->v) {
    ny_coord from[NY_MAX_RANK];
    memcpy(from, p->from, sizeof from);
    ny_coord_split(e, ny_at_col(ny_dim_add(e->cx, i, ny_dim_mul(e->cx, p->pos, p->inner))), p->v->type->dim + p->axis,
                   p->t->rank - p->axis, from + p->axis);
    v = ny_emit_at(e, p->v, from);
  } else {
    v = fill_value(e, p);
  }
  put(e, p, ny_at_col(ny_dim_add(e->cx, p->lo, i)), v);
}

/* The inner elements of one position of the axis at a time; in the result positions lie `step` apart, the first at
 * `lo`. */
static void by_position(ny_emit *e, pieces *p, ny_value *v, ny_dim lo, ny_dim step) {
  ny_dim pos;
  ny_loop l = ny_emit_for(e, 0, v->type->dim[p->axis], 1, 1, &pos);
  p->v = v, p->pos = pos, p->start = 0;
  p->lo = ny_dim_mul(e->cx, ny_dim_add(e->cx, lo, ny_dim_mul(e->cx, pos, step)), p->inner);
  ny_emit_columns(e, p->inner, p->inner > 0 && p->inner < p->cols ? (int)p->inner : p->cols, run_columns, p);
  ny_emit_end(e, l);
  p->pos = 0;
}

/* The point's vector, if it lies here. */
static void run_vector(ny_emit *e, pieces *p, ny_value *v, ny_dim lo, ny_dim n) {
  ny_ctx *cx = e->cx;
  if (n == 0) return;
  ny_dim from = ny_dim_lt(cx, ny_dim_sub(cx, lo, 1), p->first), to = ny_dim_lt(cx, p->first, ny_dim_add(cx, lo, n));
  p->v = v, p->lo = lo, p->start = ny_dim_sub(cx, p->first, lo), p->pos = 0;
  e->cols = p->vector;
  ny_loop l = ny_gpu_if(e, ny_dim_mul(cx, from, to));
  run_columns(e, p, 0);
  ny_emit_end(e, l);
}

static void run(ny_emit *e, pieces *p, ny_value *v, ny_dim lo, ny_dim n) {
  ny_ctx *cx = e->cx;
  if (p->vector) {
    run_vector(e, p, v, lo, n);
    return;
  }
  if (v && p->nested) {
    by_position(e, p, v, ny_dim_div(cx, lo, p->inner), 1);
    return;
  }
  p->v = v, p->lo = lo, p->start = 0, p->pos = 0;
  if (n == 0) return;
  if (p->block) {
    p->start = ny_dim_max(cx, ny_dim_sub(cx, p->first, lo), 0);
    ny_dim end = ny_dim_min(cx, ny_dim_sub(cx, ny_dim_add(cx, p->first, p->block), lo), n);
    n = ny_dim_max(cx, ny_dim_sub(cx, end, p->start), 0);
  }
  int cols = n > 0 && n < p->cols ? (int)n : p->cols;
  ny_emit_columns(e, n, cols, run_columns, p);
}

static ny_dim product(ny_ctx *cx, const ny_type *t, int from, int to) {
  ny_dim n = 1;
  for (int i = from; i < to; i++) n = ny_dim_mul(cx, n, t->dim[i]);
  return n;
}

static void open_grid(ny_emit *e, pieces *p, bool may_block) {
  enum { FEW = 16, LONG = 16384 };
  ny_dim outer = product(e->cx, p->t, 0, p->axis);
  ny_dim m = outer == 1 ? 0 : ny_emit_grid(e, outer);
  ny_coord_split(e, ny_at_one(m), p->t->dim, p->axis, p->at);
  memcpy(p->from, p->at, sizeof p->at);
  if (p->vector) {
    p->first = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, p->length, p->vector)), p->vector);
    return;
  }
  bool few = outer >= 0 && outer < FEW, may_be_long = p->length < 0 || p->length > LONG;
  if (!may_block || p->nested || !few || !may_be_long) return;
  p->block = LONG;
  p->first = ny_dim_mul(e->cx, ny_emit_grid(e, ny_dim_ceildiv(e->cx, p->length, LONG)), LONG);
}

static void grain(ny_emit *e, const pieces *p, int64_t cost) {
  int64_t n = p->block > 0 ? p->block : p->length >= 0 && p->length < 1 << 24 ? p->length : 512;
  ny_emit_grain(e, n * cost / (p->cols > 1 ? p->cols / 2 : 1) + 16);
}

static nyb_status lower_concat(ny_pass_cx *px, ny_op *group, ny_graph *k, pieces *p, int64_t cost);
static nyb_status lower_pad(ny_pass_cx *px, ny_op *group, ny_graph *k, pieces *p, int64_t cost);

/* Elements that lie one after the other in the row do not in a piece. */
static bool dear(const ny_emit *e, const pieces *p) {
  if (p->vector) return p->vector > 1 && (e->n_index || e->n_strided);
  return e->n_index && !p->nested && p->inner != 1;
}

/* Flat runs turned out dear: once more, position by position. */
static nyb_status again(ny_pass_cx *px, ny_op *group, ny_graph *k, const pieces *p, int64_t cost) {
  pieces fresh = {.op = p->op, .t = p->t, .cols = p->cols, .vector = p->vector ? 1 : 0, .nested = !p->vector};
  while (k->body.last) ny_erase(k->body.last);
  return p->op->kind == NY_concat ? lower_concat(px, group, k, &fresh, cost) : lower_pad(px, group, k, &fresh, cost);
}

static nyb_status lower_concat(ny_pass_cx *px, ny_op *group, ny_graph *k, pieces *p, int64_t cost) {
  ny_emit e;
  ny_emit_begin(&e, px, group, k, &px->scratch);
  p->axis = ny_axis(p->op->attr[NY_AT(concat, axis)].i, p->t->rank);
  p->inner = product(e.cx, p->t, p->axis + 1, p->t->rank);
  p->length = ny_dim_mul(e.cx, p->inner, p->t->dim[p->axis]);
  for (int i = 0; i < p->op->n_in && p->vector > 1; i++)
    p->vector = ny_gpu_divides(e.cx, ny_dim_mul(e.cx, p->inner, ny_in(p->op, i)->type->dim[p->axis]), p->vector);
  open_grid(&e, p, true);
  ny_dim lo = 0;
  for (int i = 0; i < p->op->n_in; i++) {
    ny_value *v = ny_in(p->op, i);
    ny_dim n = ny_dim_mul(e.cx, p->inner, v->type->dim[p->axis]);
    run(&e, p, v, lo, n);
    lo = ny_dim_add(e.cx, lo, n);
  }
  grain(&e, p, cost);
  if (dear(&e, p)) return again(px, group, k, p, cost);
  return ny_emit_finish(&e);
}

static ny_dim list_at(const ny_attr *a, int i) { return a->dims.n ? a->dims.v[i] : 0; }

/* Does this row hold elements? 0 or 1; sets the coordinates in the input. */
static ny_dim row_holds(ny_emit *e, pieces *p) {
  ny_ctx *cx = e->cx;
  const ny_attr *a = p->op->attr;
  ny_dim holds = 1;
  for (int i = 0; i < p->axis; i++) {
    ny_dim lo = list_at(&a[NY_AT(pad, lo)], i), hi = list_at(&a[NY_AT(pad, hi)], i),
           gap = list_at(&a[NY_AT(pad, interior)], i);
    if (!lo && !hi && !gap) continue;
    ny_dim n = ny_in(p->op, 0)->type->dim[i], c = p->at[i].base, step = ny_dim_add(cx, gap, 1);
    if (p->at[i].div != 1) c = ny_dim_div(cx, c, p->at[i].div);
    if (p->at[i].mod) c = ny_dim_mod(cx, c, p->at[i].mod);
    c = ny_dim_sub(cx, c, lo);
    ny_dim q = ny_dim_div(cx, c, step);
    holds = ny_dim_mul(cx, holds, ny_dim_lt(cx, ny_dim_const(cx, -1), q));
    holds = ny_dim_mul(cx, holds, ny_dim_lt(cx, q, n));
    if (gap) holds = ny_dim_mul(cx, holds, ny_dim_lt(cx, ny_dim_mod(cx, c, step), 1));
    p->from[i] = ny_at_one(q);
  }
  return holds;
}

static void filled_row(ny_emit *e, pieces *p) {
  ny_ctx *cx = e->cx;
  const ny_attr *a = p->op->attr;
  ny_dim lo = list_at(&a[NY_AT(pad, lo)], p->axis), hi = list_at(&a[NY_AT(pad, hi)], p->axis),
         n = ny_in(p->op, 0)->type->dim[p->axis];
  if (p->gap) {
    run(e, p, NULL, 0, p->length);
    by_position(e, p, ny_in(p->op, 0), lo, ny_dim_add(cx, p->gap, 1));
    return;
  }
  ny_dim left = ny_dim_mul(cx, lo, p->inner), middle = ny_dim_mul(cx, n, p->inner);
  run(e, p, NULL, 0, left);
  run(e, p, ny_in(p->op, 0), left, middle);
  run(e, p, NULL, ny_dim_add(cx, left, middle), ny_dim_mul(cx, hi, p->inner));
}

static bool natural(ny_ctx *cx, const ny_attr *a) {
  for (uint32_t i = 0; i < a->dims.n; i++) {
    int64_t lo, hi;
    ny_dim_bounds(cx, a->dims.v[i], &lo, &hi);
    if (lo < 0) return false;
  }
  return true;
}

static nyb_status lower_pad(ny_pass_cx *px, ny_op *group, ny_graph *k, pieces *p, int64_t cost) {
  const ny_attr *a = p->op->attr;
  ny_emit e;
  ny_dim var;
  if (strcmp(a[NY_AT(pad, mode)].s, "constant") != 0 || !natural(k->cx, &a[NY_AT(pad, lo)]) ||
      !natural(k->cx, &a[NY_AT(pad, hi)]))
    return NYB_E_UNSUPPORTED;
  for (p->axis = p->t->rank - 1; p->axis >= 0; p->axis--)
    if (list_at(&a[NY_AT(pad, lo)], p->axis) || list_at(&a[NY_AT(pad, hi)], p->axis) ||
        list_at(&a[NY_AT(pad, interior)], p->axis))
      break;
  if (p->axis < 0) return NYB_E_UNSUPPORTED;
  p->gap = list_at(&a[NY_AT(pad, interior)], p->axis);
  if (p->vector && p->gap) return NYB_E_UNSUPPORTED; /* a thread finds its element by division */
  ny_emit_begin(&e, px, group, k, &px->scratch);
  p->inner = product(e.cx, p->t, p->axis + 1, p->t->rank);
  p->length = ny_dim_mul(e.cx, p->inner, p->t->dim[p->axis]);
  if (p->vector > 1)
    for (int i = 0; i < 2; i++)
      p->vector = ny_gpu_divides(
          e.cx, ny_dim_mul(e.cx, p->inner, i ? list_at(&a[NY_AT(pad, lo)], p->axis) : ny_in(p->op, 0)->type->dim[p->axis]),
          ny_gpu_divides(e.cx, p->length, p->vector));
  open_grid(&e, p, false);
  ny_dim holds = row_holds(&e, p);
  if (holds == 1) {
    filled_row(&e, p);
  } else {
    ny_loop l = ny_emit_for(&e, 0, holds, 1, 1, &var);
    filled_row(&e, p);
    ny_emit_end(&e, l);
    l = ny_emit_for(&e, 0, ny_dim_sub(e.cx, 1, holds), 1, 1, &var);
    run(&e, p, NULL, 0, p->length);
    ny_emit_end(&e, l);
  }
  grain(&e, p, cost);
  if (dear(&e, p)) return again(px, group, k, p, cost);
  return ny_emit_finish(&e);
}

nyb_status ny_lower_pieces(ny_pass_cx *px, ny_op *group, ny_graph *k, int64_t cost) {
  ny_value *v = ny_in(ny_group_yield(group), 0);
  pieces p = {.op = v->def, .t = v->type};
  if (!v->def || ny_fmts[v->type->fmt].bits < 8 || v->type->rank == 0) return NYB_E_UNSUPPORTED;
  p.cols = ny_vec_lanes(px, (ny_fmt)v->type->fmt) * 2;
  if (ny_on_gpu(px->target)) p.vector = ny_gpu_vector(group);
  if (p.op->kind == NY_concat) return lower_concat(px, group, k, &p, cost);
  return p.op->kind == NY_pad ? lower_pad(px, group, k, &p, cost) : NYB_E_UNSUPPORTED;
}
