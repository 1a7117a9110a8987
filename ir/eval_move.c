/* Ops whose results are elements of their inputs: views, padding, concatenation, gathers and scatters. Elements are
   moved without being looked at (only a scatter that combines does arithmetic), in the longest contiguous runs there
   are. Indices come from data: they are brought into range as ops.def says, and indexing an empty dimension is an
   error. */
#include "eval.h"

#include <inttypes.h>
#include <string.h>

#define FMT(t) ((ny_fmt)(t).type->fmt)

/* to[i..] = from[base + i*step..] over the shape of `to`. */
static void strided(const ny_tensor *to, const void *from, int64_t base, const int64_t *step) {
  const ny_type *t = to->type;
  int outer = t->rank;
  int64_t run = 1, count = ny_count(t);
  while (outer && (t->dim[outer - 1] == 1 || step[outer - 1] == run)) run *= t->dim[--outer];
  if (!count) return;
  ny_nd it;
  ny_nd_init(&it, outer, t->dim, 1);
  memcpy(it.step[0], step, (size_t)outer * sizeof *step);
  for (int64_t at = 0; at < count; at += run, ny_nd_next(&it))
    ny_copy_elems((ny_fmt)t->fmt, to->data, (uint64_t)at, from, (uint64_t)(base + it.at[0]), (uint64_t)run);
}

nyb_status ny_ev_reshape(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  int64_t a = ny_count(in->type), b = ny_count(out->type);
  uint64_t bytes = ny_fmt_bytes(FMT(*out), (uint64_t)b);
  if (ny_fmt_bytes(FMT(*in), (uint64_t)a) != bytes || (a != b && op->kind == NY_reshape))
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "%s: %" PRId64 " elements become %" PRId64, ny_kinds[op->kind].name, a, b);
  memcpy(out->data, in->data, bytes);
  return NYB_OK;
}

nyb_status ny_ev_transpose(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  int rank = out->type->rank;
  int64_t own[NY_MAX_RANK], perm[NY_MAX_RANK], step[NY_MAX_RANK];
  NY_TRY(ny_ev_list(ev, op, NY_AT(transpose, perm), rank, 0, perm));
  ny_strides(in->type, own);
  unsigned seen = 0;
  for (int i = 0; i < rank; i++) {
    if (in->type->rank != rank || perm[i] < 0 || perm[i] >= rank || (seen >> perm[i] & 1) ||
        in->type->dim[perm[i]] != out->type->dim[i])
      return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "transpose: result dim %d is not input dim %" PRId64, i, perm[i]);
    seen |= 1u << perm[i];
    step[i] = own[perm[i]];
  }
  strided(out, in->data, 0, step);
  return NYB_OK;
}

nyb_status ny_ev_broadcast(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  int64_t step[NY_MAX_RANK];
  NY_TRY(ny_ev_fits(ev, op, in->type, out->type));
  ny_bcast_strides(in->type, out->type->rank, step);
  strided(out, in->data, 0, step);
  return NYB_OK;
}

nyb_status ny_ev_slice(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  int rank = in->type->rank;
  if (out->type->rank != rank)
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "slice: rank %d becomes %d", rank, out->type->rank);
  int64_t start[NY_MAX_RANK], step[NY_MAX_RANK], own[NY_MAX_RANK], base = 0;
  NY_TRY(ny_ev_list(ev, op, NY_AT(slice, start), rank, 0, start));
  NY_TRY(ny_ev_list(ev, op, NY_AT(slice, step), rank, 1, step));
  ny_strides(in->type, own);
  if (!ny_count(out->type)) return NYB_OK;
  for (int i = 0; i < rank; i++) {
    int64_t n = in->type->dim[i], last = 0;
    if (__builtin_mul_overflow(out->type->dim[i] - 1, step[i], &last) ||
        __builtin_add_overflow(last, start[i], &last) || start[i] < 0 || start[i] >= n || last < 0 || last >= n)
      return NY_EV_FAIL(ev, op, NYB_E_SHAPE,
                        "slice: dim %d of size %" PRId64 " has no elements %" PRId64 " to %" PRId64, i, n, start[i],
                        last);
    base += start[i] * own[i];
    step[i] = out->type->dim[i] == 1 ? 0 : step[i] * own[i];
  }
  strided(out, in->data, base, step);
  return NYB_OK;
}

enum { PAD_constant, PAD_edge, PAD_reflect, PAD_wrap, PAD_none };

/* Which element of a dim of n lies at o, before padding; -1: none, the fill. */
static int64_t pad_source(int mode, int64_t n, int64_t o, int64_t lo, int64_t interior) {
  int64_t i = 0;
  if (!n || __builtin_sub_overflow(o, lo, &i)) return -1;
  if (mode == PAD_edge) return i < 0 ? 0 : i < n ? i : n - 1;
  if (mode == PAD_wrap) return (i % n + n) % n;
  if (mode == PAD_reflect) {
    int64_t p = n > 1 ? 2 * (n - 1) : 1;
    i = (i % p + p) % p;
    return i < n ? i : p - i;
  }
  if (i < 0 || i % (interior + 1)) return -1;
  return i / (interior + 1) < n ? i / (interior + 1) : -1;
}

static nyb_status pad_maps(ny_ev *ev, const ny_op *op, const ny_tensor *in, const ny_tensor *out, int64_t **map) {
  static const char *const names[] = {"constant", "edge", "reflect", "wrap"};
  int64_t lo[NY_MAX_RANK], interior[NY_MAX_RANK];
  int rank = in->type->rank, mode = 0;
  ny_name m = op->attr[NY_AT(pad, mode)].s;
  while (mode < PAD_none && (!m || strcmp(m, names[mode]))) mode++;
  if (mode == PAD_none || out->type->rank != rank)
    return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "pad: mode %s, rank %d becomes %d", m ? m : "?", rank, out->type->rank);
  NY_TRY(ny_ev_list(ev, op, NY_AT(pad, lo), rank, 0, lo));
  NY_TRY(ny_ev_list(ev, op, NY_AT(pad, interior), rank, 0, interior));
  for (int d = 0; d < rank; d++) {
    if (interior[d] < 0 || interior[d] == INT64_MAX || (mode && interior[d]))
      return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "pad: interior %" PRId64 " in dim %d with mode %s", interior[d], d,
                        names[mode]);
    map[d] = ny_ev_tmp(ev, op, (uint64_t)out->type->dim[d], sizeof **map);
    if (!map[d]) return ev->cx->diag.code;
    for (int64_t o = 0; o < out->type->dim[d]; o++)
      map[d][o] = pad_source(mode, in->type->dim[d], o, lo[d], interior[d]);
  }
  return NYB_OK;
}

/* Writes the row of the last dim that starts at `at`: runs from the input, the fill elsewhere. */
static void pad_row(const ny_tensor *in, const ny_tensor *out, const int64_t *map, int64_t n, int64_t at, int64_t base,
                    const ny_tensor *fill) {
  ny_fmt f = FMT(*out);
  for (int64_t o = 0, run = 1; o < n; o += run) {
    int64_t s = base < 0 ? -1 : map[o];
    for (run = 1; s >= 0 && o + run < n && map[o + run] == s + run;) run++;
    if (s >= 0)
      ny_copy_elems(f, out->data, (uint64_t)(at + o), in->data, (uint64_t)(base + s), (uint64_t)run);
    else
      ny_copy_elems(f, out->data, (uint64_t)(at + o), fill->data, 0, 1);
  }
}

nyb_status ny_ev_pad(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  int64_t *map[NY_MAX_RANK], own[NY_MAX_RANK], count = ny_count(out->type);
  NY_TRY(pad_maps(ev, op, in, out, map));
  uint64_t zero = 0;
  ny_tensor fill = {.data = op->n_in > 1 ? in[1].data : &zero};
  int last = out->type->rank - 1;
  if (last < 0) ny_copy_elems(FMT(*out), out->data, 0, in->data, 0, 1);
  if (last < 0 || !count) return NYB_OK;
  ny_strides(in->type, own);
  ny_nd it;
  ny_nd_init(&it, last, out->type->dim, 0);
  for (int64_t at = 0, n = out->type->dim[last]; at < count; at += n, ny_nd_next(&it)) {
    int64_t base = 0;
    for (int d = 0; d < last && base >= 0; d++) base = map[d][it.i[d]] < 0 ? -1 : base + map[d][it.i[d]] * own[d];
    pad_row(in, out, map[last], n, at, base, &fill);
  }
  return NYB_OK;
}

/* Sizes before and after a dim. */
static int64_t span(const ny_type *t, int from, int to) {
  int64_t n = 1;
  for (int i = from; i < to; i++) n *= t->dim[i];
  return n;
}

nyb_status ny_ev_concat(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  int axis = 0, rank = out->type->rank;
  NY_TRY(ny_ev_axis(ev, op, op->attr[NY_AT(concat, axis)].i, rank, &axis));
  int64_t outer = span(out->type, 0, axis), row = span(out->type, axis, rank), at = 0;
  for (int k = 0; k < op->n_in; k++) {
    const ny_type *t = in[k].type;
    int64_t run = t->rank == rank ? span(t, axis, rank) : -1;
    if (run < 0 || span(t, 0, axis) != outer || span(t, axis + 1, rank) != span(out->type, axis + 1, rank) ||
        run > row - at)
      return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "concat: input %d does not fit the result", k);
    for (int64_t o = 0; o < outer; o++)
      ny_copy_elems(FMT(*out), out->data, (uint64_t)(o * row + at), in[k].data, (uint64_t)(o * run), (uint64_t)run);
    at += run;
  }
  if (at != row)
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "concat: inputs fill %" PRId64 " of %" PRId64 " elements", at, row);
  return NYB_OK;
}

/* Element `at` of an index tensor as a position in a dim of n > 0. */
static int64_t index_at(const ny_tensor *index, int64_t at, int64_t n) {
  int64_t i = ny_get_i(FMT(*index), index->data, (uint64_t)at);
  if (FMT(*index) == NY_u64 && i < 0) return n - 1;
  if (i < 0) i += n;
  return i < 0 ? 0 : i < n ? i : n - 1;
}

static nyb_status need_elements(ny_ev *ev, const ny_op *op, const ny_type *t, int dim, const ny_type *index) {
  if (t->dim[dim] > 0 || !ny_count(index)) return NYB_OK;
  return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "%s: %" PRId64 " indices into dim %d, which is empty", ny_kinds[op->kind].name,
                    ny_count(index), dim);
}

nyb_status ny_ev_gather(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  const ny_type *x = in[0].type;
  int axis = 0;
  NY_TRY(ny_ev_axis(ev, op, op->attr[NY_AT(gather, axis)].i, x->rank, &axis));
  NY_TRY(need_elements(ev, op, x, axis, in[1].type));
  int64_t outer = span(x, 0, axis), n = x->dim[axis], run = span(x, axis + 1, x->rank), m = ny_count(in[1].type);
  if (outer * m * run != ny_count(out->type))
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "gather: the result has another size");
  for (int64_t o = 0; o < outer; o++)
    for (int64_t j = 0; j < m; j++)
      ny_copy_elems(FMT(*out), out->data, (uint64_t)((o * m + j) * run), in[0].data,
                    (uint64_t)((o * n + index_at(&in[1], j, n)) * run), (uint64_t)run);
  return NYB_OK;
}

/* Walks the index tensor of gather_elements and scatter_elements: at[0] is the position in x when the axis is left out.
 */
static nyb_status elements_walk(ny_ev *ev, const ny_op *op, int64_t axis_attr, const ny_tensor *in, ny_nd *it,
                                int *axis, int64_t *step) {
  const ny_type *x = in[0].type, *index = in[1].type;
  NY_TRY(ny_ev_axis(ev, op, axis_attr, x->rank, axis));
  NY_TRY(need_elements(ev, op, x, *axis, index));
  bool ok = x->rank == index->rank;
  for (int d = 0; ok && d < x->rank; d++) ok = d == *axis || index->dim[d] <= x->dim[d];
  if (!ok)
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "%s: the index reaches outside the data beside its axis",
                      ny_kinds[op->kind].name);
  ny_nd_init(it, index->rank, index->dim, 1);
  ny_strides(x, it->step[0]);
  *step = it->step[0][*axis];
  it->step[0][*axis] = 0;
  return NYB_OK;
}

nyb_status ny_ev_gather_elements(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  ny_nd it;
  int axis = 0;
  int64_t step = 0, n = ny_count(in[1].type);
  NY_TRY(elements_walk(ev, op, op->attr[NY_AT(gather_elements, axis)].i, in, &it, &axis, &step));
  if (ny_count(out->type) != n)
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "gather_elements: the result has not the size of the index");
  for (int64_t i = 0; i < n; i++, ny_nd_next(&it))
    ny_copy_elems(FMT(*out), out->data, (uint64_t)i, in[0].data,
                  (uint64_t)(it.at[0] + index_at(&in[1], i, in[0].type->dim[axis]) * step), 1);
  return NYB_OK;
}

/* Position in x of the coordinate of k entries that starts at `at` in the index, the entries applying to dims from
 * `first`. */
static int64_t coordinate(const ny_tensor *x, const ny_tensor *index, int64_t at, int64_t k, int first) {
  int64_t s[NY_MAX_RANK], p = 0;
  ny_strides(x->type, s);
  for (int j = 0; j < k; j++) p += index_at(index, at + j, x->type->dim[first + j]) * s[first + j];
  return p;
}

static nyb_status nd_sizes(ny_ev *ev, const ny_op *op, const ny_tensor *in, int64_t batch, int64_t *k, int64_t *run) {
  const ny_type *x = in[0].type, *index = in[1].type;
  *k = index->rank ? index->dim[index->rank - 1] : -1;
  if (*k < 0 || batch < 0 || batch >= index->rank || *k > x->rank - batch)
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "%s: coordinates of %" PRId64 " after %" PRId64 " batch dims into rank %d",
                      ny_kinds[op->kind].name, *k, batch, x->rank);
  for (int j = 0; j < *k; j++) NY_TRY(need_elements(ev, op, x, (int)batch + j, index));
  *run = span(x, (int)(batch + *k), x->rank);
  return NYB_OK;
}

nyb_status ny_ev_gather_nd(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  int64_t batch = op->attr[NY_AT(gather_nd, batch)].i, k = 0, run = 0;
  NY_TRY(nd_sizes(ev, op, in, batch, &k, &run));
  const ny_type *x = in[0].type, *index = in[1].type;
  int64_t outer = span(x, 0, (int)batch), each = span(index, (int)batch, index->rank - 1),
          block = span(x, (int)batch, x->rank);
  if (span(index, 0, (int)batch) != outer || outer * each * run != ny_count(out->type))
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "gather_nd: batch dims differ or the result has another size");
  for (int64_t o = 0; o < outer; o++)
    for (int64_t j = 0; j < each; j++)
      ny_copy_elems(FMT(*out), out->data, (uint64_t)((o * each + j) * run), in[0].data,
                    (uint64_t)(o * block + coordinate(&in[0], &in[1], (o * each + j) * k, k, (int)batch)),
                    (uint64_t)run);
  return NYB_OK;
}

static void fold_into(ny_fold o, ny_fmt f, void *to, int64_t at, const void *from, int64_t from_at, int64_t n) {
  if (o == NY_FOLD_set) {
    ny_copy_elems(f, to, (uint64_t)at, from, (uint64_t)from_at, (uint64_t)n);
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    uint64_t t = (uint64_t)(at + i), s = (uint64_t)(from_at + i);
    if (ny_is_float(f))
      ny_put_f(f, to, t, ny_fold_f(o, ny_get_f(f, to, t), ny_get_f(f, from, s)), false);
    else
      ny_put_i(f, to, t, ny_fold_i(o, f, ny_get_i(f, to, t), ny_get_i(f, from, s)));
  }
}

static nyb_status scatter_begin(ny_ev *ev, const ny_op *op, ny_name name, const ny_tensor *in, ny_tensor *out,
                                ny_fold *o) {
  *o = ny_fold_of(name);
  if (*o == NY_FOLD_none || ny_count(in->type) != ny_count(out->type) || FMT(in[2]) != FMT(*out))
    return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "%s: op %s, or the result is unlike the data", ny_kinds[op->kind].name,
                      name ? name : "?");
  memcpy(out->data, in->data, ny_fmt_bytes(FMT(*out), (uint64_t)ny_count(out->type)));
  return NYB_OK;
}

/* In order, each step rounded to the format: with duplicate indices the last `set` wins. */
nyb_status ny_ev_scatter_elements(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  ny_fold o = NY_FOLD_set;
  ny_nd it;
  int axis = 0;
  int64_t step = 0, n = ny_count(in[1].type);
  NY_TRY(scatter_begin(ev, op, op->attr[NY_AT(scatter_elements, op)].s, in, out, &o));
  NY_TRY(elements_walk(ev, op, op->attr[NY_AT(scatter_elements, axis)].i, in, &it, &axis, &step));
  if (ny_count(in[2].type) != n)
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "scatter_elements: %" PRId64 " indices, %" PRId64 " updates", n,
                      ny_count(in[2].type));
  for (int64_t i = 0; i < n; i++, ny_nd_next(&it))
    fold_into(o, FMT(*out), out->data, it.at[0] + index_at(&in[1], i, in[0].type->dim[axis]) * step, in[2].data, i, 1);
  return NYB_OK;
}

nyb_status ny_ev_scatter_nd(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  ny_fold o = NY_FOLD_set;
  int64_t k = 0, run = 0;
  NY_TRY(scatter_begin(ev, op, op->attr[NY_AT(scatter_nd, op)].s, in, out, &o));
  NY_TRY(nd_sizes(ev, op, in, 0, &k, &run));
  int64_t n = span(in[1].type, 0, in[1].type->rank - 1);
  if (ny_count(in[2].type) != n * run)
    return NY_EV_FAIL(ev, op, NYB_E_SHAPE, "scatter_nd: %" PRId64 " slices of %" PRId64 ", but %" PRId64 " updates", n,
                      run, ny_count(in[2].type));
  for (int64_t i = 0; i < n; i++)
    fold_into(o, FMT(*out), out->data, coordinate(&in[0], &in[1], i * k, k, 0), in[2].data, i * run, run);
  return NYB_OK;
}
