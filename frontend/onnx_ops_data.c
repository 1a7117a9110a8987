/* Operators whose result has a size that depends on data. Sizes of the IR are known at import, so these are computed
 * there, from constants. */
#include "onnx.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Input i as a constant, with its number of elements. */
static bool data_of(ny_node *n, int i, ny_tensor *t, int64_t *count) {
  if (ny_onnx_const(n, i, t)) return ny_type_static_count(n->cx, t->type, count);
  return ny_refuse(n, NYB_E_UNSUPPORTED, "input %d is not a constant: the size of the result depends on data", i);
}

/* Coordinates of the elements that are not 0, one column each. */
nyb_status ny_op_non_zero(ny_node *n) {
  ny_tensor t;
  int64_t count, found = 0;
  if (!data_of(n, 0, &t, &count)) return ny_failed(n);
  int rank = t.type->rank;
  for (int64_t i = 0; i < count; i++) found += ny_number(&t, i) != 0;
  int64_t *at = NY_NEW_ARRAY(n->tmp, int64_t, found * rank + 1), k = 0, shape[2] = {rank, found};
  for (int64_t i = 0; i < count; i++) {
    if (ny_number(&t, i) == 0) continue;
    int64_t rest = i;
    for (int d = rank - 1; d >= 0; rest /= t.type->dim[d--]) at[d * found + k] = rest % t.type->dim[d];
    k++;
  }
  return ny_out(n, 0, ny_const_ints(n, NY_i64, 2, shape, at));
}

/* ---- Unique: slices along the axis (or elements), sorted by value; equal ones keep the first */
typedef struct slices {
  const ny_tensor *t;
  int64_t outer, size, inner; /* elements before, along and after the axis */
  int64_t *order;
} slices;

static int compare_number(const ny_tensor *t, int64_t a, int64_t b) {
  ny_fmt f = (ny_fmt)t->type->fmt;
  if (ny_is_float(f)) {
    double x = ny_get_f(f, t->data, (uint64_t)a), y = ny_get_f(f, t->data, (uint64_t)b);
    return x < y || (!isnan(x) && isnan(y)) ? -1 : x > y || (isnan(x) && !isnan(y)) ? 1 : 0; /* NaN last */
  }
  int64_t x = ny_get_i(f, t->data, (uint64_t)a), y = ny_get_i(f, t->data, (uint64_t)b);
  if (f == NY_u64) return (uint64_t)x < (uint64_t)y ? -1 : (uint64_t)x > (uint64_t)y;
  return x < y ? -1 : x > y;
}

static int compare_slices(const slices *s, int64_t a, int64_t b) {
  for (int64_t o = 0; o < s->outer; o++)
    for (int64_t i = 0; i < s->inner; i++) {
      int c = compare_number(s->t, (o * s->size + a) * s->inner + i, (o * s->size + b) * s->inner + i);
      if (c) return c;
    }
  return 0;
}

/* A merge sort: stable, and it needs no state outside. */
static void sort_slices(const slices *s, int64_t *v, int64_t *tmp, int64_t n) {
  if (n < 2) return;
  int64_t half = n / 2;
  sort_slices(s, v, tmp, half);
  sort_slices(s, v + half, tmp, n - half);
  memcpy(tmp, v, sizeof *v * (size_t)half);
  for (int64_t i = 0, j = half, k = 0; i < half; k++)
    v[k] = j < n && compare_slices(s, v[j], tmp[i]) < 0 ? v[j++] : tmp[i++];
}

nyb_status ny_op_unique(ny_node *n) {
  ny_tensor t;
  int64_t count, kept = 0;
  int axis = 0;
  bool flat = !ny_attr_has(n, "axis"), sorted = ny_attr_int(n, "sorted", 1) != 0;
  if (!data_of(n, 0, &t, &count) || (!flat && !ny_axis(n, ny_attr_int(n, "axis", 0), t.type->rank, &axis)))
    return ny_failed(n);
  slices s = {.t = &t, .outer = 1, .size = flat ? count : t.type->dim[axis], .inner = 1};
  for (int i = 0; i < t.type->rank && !flat; i++) {
    if (i < axis) s.outer *= t.type->dim[i];
    if (i > axis) s.inner *= t.type->dim[i];
  }
  size_t room = (size_t)s.size + 1;
  int64_t *order = NY_NEW_ARRAY(n->tmp, int64_t, room), *tmp = NY_NEW_ARRAY(n->tmp, int64_t, room),
          *first = NY_NEW_ARRAY(n->tmp, int64_t, room);
  int64_t *group = NY_NEW_ARRAY(n->tmp, int64_t, room), *many = NY_NEW_ARRAY(n->tmp, int64_t, room),
          *rank = NY_NEW_ARRAY(n->tmp, int64_t, room);
  for (int64_t i = 0; i < s.size; i++) order[i] = i;
  sort_slices(&s, order, tmp, s.size);
  for (int64_t i = 0; i < s.size; i++) {
    if (!i || compare_slices(&s, order[i - 1], order[i]))
      first[kept++] = order[i]; /* the sort is stable: the first of its kind */
    group[order[i]] = kept - 1;
    many[kept - 1]++;
  }
  for (int64_t i = 0; i < kept; i++) { /* place of group i in the result */
    rank[i] = i;
    for (int64_t j = 0; !sorted && j < kept; j++) rank[i] = (j ? rank[i] : 0) + (first[j] < first[i]);
  }
  int64_t *index = tmp, *counts = order;
  for (int64_t i = 0; i < s.size; i++) group[i] = rank[group[i]];
  for (int64_t i = 0; i < kept; i++) index[rank[i]] = first[i];
  for (int64_t i = 0; i < kept; i++) counts[rank[i]] = many[i];
  ny_value *x = n->in[0], *at = ny_const_ints(n, NY_i64, 1, &kept, index);
  if (flat) x = ny_reshape_to(n, x, 1, &count);
  NY_TRY(ny_out(n, 0, ny_b_gather(&n->b, x, at, axis)));
  if (ny_wanted(n, 1)) NY_TRY(ny_out(n, 1, at));
  if (ny_wanted(n, 2)) NY_TRY(ny_out(n, 2, ny_const_ints(n, NY_i64, 1, &s.size, group)));
  return ny_wanted(n, 3) ? ny_out(n, 3, ny_const_ints(n, NY_i64, 1, &kept, counts)) : NYB_OK;
}

/* ---- NonMaxSuppression */
typedef struct box {
  double lo[2], hi[2];
} box;

static box box_at(const ny_tensor *t, int64_t i, bool centre) {
  double v[4];
  for (int k = 0; k < 4; k++) v[k] = ny_number(t, i * 4 + k);
  if (centre) return (box){{v[0] - v[2] / 2, v[1] - v[3] / 2}, {v[0] + v[2] / 2, v[1] + v[3] / 2}};
  return (box){{fmin(v[0], v[2]), fmin(v[1], v[3])}, {fmax(v[0], v[2]), fmax(v[1], v[3])}};
}

/* Intersection over union in f32, the format of boxes: a case may sit on the threshold. */
static float overlap(box a, box b) {
  float side[2], area_a = 1, area_b = 1;
  for (int k = 0; k < 2; k++) {
    side[k] = (float)(fmin(a.hi[k], b.hi[k]) - fmax(a.lo[k], b.lo[k]));
    if (!(side[k] > 0)) return 0;
    area_a *= (float)(a.hi[k] - a.lo[k]), area_b *= (float)(b.hi[k] - b.lo[k]);
  }
  float both = side[0] * side[1], all = area_a + area_b - both;
  return area_a > 0 && area_b > 0 && all > 0 ? both / all : 0;
}

typedef struct nms {
  ny_tensor boxes, scores;
  int64_t n_boxes, most;
  double iou, least;
  bool centre;
} nms;

/* The boxes chosen for one class, best score first. */
static int64_t choose(const nms *m, int64_t batch, int64_t row, int64_t *chosen, bool *dead) {
  int64_t count = 0;
  for (int64_t i = 0; i < m->n_boxes; i++) dead[i] = !(ny_number(&m->scores, row * m->n_boxes + i) > m->least);
  while (count < m->most) {
    int64_t best = -1;
    for (int64_t i = 0; i < m->n_boxes; i++)
      if (!dead[i] &&
          (best < 0 || ny_number(&m->scores, row * m->n_boxes + i) > ny_number(&m->scores, row * m->n_boxes + best)))
        best = i;
    if (best < 0) break;
    dead[best] = true;
    bool free_ = true;
    box b = box_at(&m->boxes, batch * m->n_boxes + best, m->centre);
    for (int64_t k = 0; k < count && free_; k++)
      free_ = !(overlap(b, box_at(&m->boxes, batch * m->n_boxes + chosen[k], m->centre)) > (float)m->iou);
    if (free_) chosen[count++] = best;
  }
  return count;
}

nyb_status ny_op_nms(ny_node *n) {
  nms m = {.centre = ny_attr_int(n, "center_point_box", 0) != 0};
  int64_t nb, ns;
  double most;
  if (!data_of(n, 0, &m.boxes, &nb) || !data_of(n, 1, &m.scores, &ns)) return ny_failed(n);
  const ny_type *bt = m.boxes.type, *st = m.scores.type;
  if (bt->rank != 3 || st->rank != 3 || bt->dim[2] != 4 || bt->dim[0] != st->dim[0] || bt->dim[1] != st->dim[2])
    return ny_node_fail(n, NYB_E_SHAPE, "boxes must be [batch, boxes, 4] and scores [batch, classes, boxes]");
  if (!ny_node_scalar(n, 2, 0, &most) || !ny_node_scalar(n, 3, 0, &m.iou) || !ny_node_scalar(n, 4, -INFINITY, &m.least))
    return ny_failed(n);
  m.n_boxes = bt->dim[1];
  m.most = most > (double)m.n_boxes ? m.n_boxes : most > 0 ? (int64_t)most : 0;
  int64_t rows = st->dim[0] * st->dim[1], total = 0, shape[2] = {0, 3};
  int64_t *out = NY_NEW_ARRAY(n->tmp, int64_t, (size_t)(rows * m.most) * 3 + 1),
          *chosen = NY_NEW_ARRAY(n->tmp, int64_t, m.n_boxes + 1);
  bool *dead = NY_NEW_ARRAY(n->tmp, bool, m.n_boxes + 1);
  for (int64_t r = 0; r < rows; r++) {
    int64_t count = choose(&m, r / st->dim[1], r, chosen, dead);
    for (int64_t k = 0; k < count; k++, total++)
      out[total * 3] = r / st->dim[1], out[total * 3 + 1] = r % st->dim[1], out[total * 3 + 2] = chosen[k];
  }
  shape[0] = total;
  return ny_out(n, 0, ny_const_ints(n, NY_i64, 2, shape, out));
}
