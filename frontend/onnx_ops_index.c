/* Gathers, scatters and what is built from them: OneHot, ReverseSequence, Compress, TensorScatter, MaxUnpool,
 * TfIdfVectorizer. */
#include "onnx.h"

#include <string.h>

static ny_value *gather_elements(ny_node *n, ny_value *x, ny_value *at, int axis) {
  const ny_type *t = ny_type_with_fmt(n->cx, at->type, ny_fmt_of(x));
  ny_op *op = ny_build(&n->b, NY_gather_elements, (ny_value *[]){x, at}, 2, &t, 1);
  if (!op) return NULL;
  op->attr[NY_AT(gather_elements, axis)].i = axis;
  return ny_done(n, op);
}

nyb_status ny_op_gather_elements(ny_node *n) {
  ny_value *x = ny_need(n, 0), *at = ny_need(n, 1);
  int axis;
  if (!x || !at || !ny_axis(n, ny_attr_int(n, "axis", 0), ny_rank(x), &axis)) return ny_failed(n);
  if (ny_rank(at) != ny_rank(x))
    return ny_node_fail(n, NYB_E_SHAPE, "indices of rank %d into rank %d", ny_rank(at), ny_rank(x));
  if (!ny_indices_fit(n, 1, ny_size(x, axis))) return ny_failed(n);
  return ny_out(n, 0, gather_elements(n, x, at, axis));
}

nyb_status ny_op_gather_nd(ny_node *n) {
  ny_value *x = ny_need(n, 0), *at = ny_need(n, 1);
  int64_t batch = ny_attr_int(n, "batch_dims", 0), width;
  if (!x || !at) return ny_failed(n);
  int r = ny_rank(x), q = ny_rank(at);
  if (q < 1 || batch < 0 || batch >= q || batch >= r)
    return ny_node_fail(n, NYB_E_SHAPE, "indices of rank %d into rank %d with %lld batch dims", q, r, (long long)batch);
  if (!ny_need_static(n, at, q - 1, "the last size of the indices", &width)) return ny_failed(n);
  if (width < 1 || width > r - batch || q - 1 + r - batch - width > NY_MAX_RANK)
    return ny_node_fail(n, NYB_E_SHAPE, "coordinates of %lld numbers into rank %d after %lld batch dims",
                        (long long)width, r, (long long)batch);
  if (!ny_coordinates_fit(n, 1, x, (int)batch, width)) return ny_failed(n);
  ny_dim shape[2 * NY_MAX_RANK];
  int rank = 0;
  for (int i = 0; i < q - 1; i++) shape[rank++] = ny_size(at, i);
  for (int i = (int)(batch + width); i < r; i++) shape[rank++] = ny_size(x, i);
  const ny_type *t = ny_tensor_type(n->cx, ny_fmt_of(x), rank, shape);
  ny_op *op = ny_build(&n->b, NY_gather_nd, (ny_value *[]){x, at}, 2, &t, 1);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(gather_nd, batch)].i = batch;
  return ny_out(n, 0, ny_done(n, op));
}

/* ONNX's reduction attribute in the IR's spelling; NULL after failing. */
static const char *reduction(ny_node *n) {
  const char *r = ny_attr_string(n, "reduction", "none");
  static const char *const map[][2] = {
      {"none", "set"}, {"add", "sum"}, {"mul", "prod"}, {"max", "max"}, {"min", "min"}};
  for (size_t i = 0; i < NY_COUNT(map); i++)
    if (!strcmp(r, map[i][0])) return ny_intern(&n->cx->names, map[i][1]);
  ny_node_fail(n, NYB_E_UNSUPPORTED, "reduction is \"%s\"", r);
  return NULL;
}

static ny_value *scatter_elements(ny_node *n, ny_value *x, ny_value *at, ny_value *with, int axis,
                                  const char *op_name) {
  ny_op *op = ny_build(&n->b, NY_scatter_elements, (ny_value *[]){x, at, with}, 3, &x->type, 1);
  if (!op) return NULL;
  op->attr[NY_AT(scatter_elements, axis)].i = axis;
  op->attr[NY_AT(scatter_elements, op)].s = ny_intern(&n->cx->names, op_name);
  return ny_done(n, op);
}

nyb_status ny_op_scatter_elements(ny_node *n) {
  ny_value *x = ny_need(n, 0), *at = ny_need(n, 1), *with = ny_need(n, 2);
  const char *op = reduction(n);
  int axis;
  if (!x || !at || !with || !op || !ny_axis(n, ny_attr_int(n, "axis", 0), ny_rank(x), &axis)) return ny_failed(n);
  if (ny_rank(at) != ny_rank(x) || ny_rank(with) != ny_rank(x))
    return ny_node_fail(n, NYB_E_SHAPE, "indices and updates of ranks %d and %d into rank %d", ny_rank(at),
                        ny_rank(with), ny_rank(x));
  if (!ny_indices_fit(n, 1, ny_size(x, axis))) return ny_failed(n);
  return ny_out(n, 0, scatter_elements(n, x, at, with, axis, op));
}

nyb_status ny_op_scatter_nd(ny_node *n) {
  ny_value *x = ny_need(n, 0), *at = ny_need(n, 1), *with = ny_need(n, 2);
  const char *how = reduction(n);
  int64_t width;
  if (!x || !at || !with || !how) return ny_failed(n);
  if (!ny_rank(at)) return ny_node_fail(n, NYB_E_SHAPE, "the indices are a scalar");
  if (!ny_need_static(n, at, ny_rank(at) - 1, "the last size of the indices", &width)) return ny_failed(n);
  if (!ny_coordinates_fit(n, 1, x, 0, width)) return ny_failed(n);
  ny_op *op = ny_build(&n->b, NY_scatter_nd, (ny_value *[]){x, at, with}, 3, &x->type, 1);
  if (!op) return ny_failed(n);
  op->attr[NY_AT(scatter_nd, op)].s = how;
  return ny_out(n, 0, ny_done(n, op));
}

/* depth x ... one-hot: position along the new axis equals the index, where a negative index counts from the end. */
nyb_status ny_op_one_hot(ny_node *n) {
  ny_value *at = ny_need(n, 0), *values = ny_need(n, 2);
  ny_dim depth;
  double d;
  int count, axis;
  if (!at || !values) return ny_failed(n);
  if (ny_try_dims(n, 1, &depth, 1, &count)) {
    if (count != 1) return ny_node_fail(n, NYB_E_SHAPE, "depth has %d elements, not 1", count);
  } else { /* any number format is allowed here */
    if (!ny_node_scalar(n, 1, 0, &d)) return ny_failed(n);
    if (!(d >= 0 && d < 2147483648.0)) return ny_node_fail(n, NYB_E_SHAPE, "depth is %g", d);
    depth = ny_dim_const(n->cx, (int64_t)d);
  }
  int rank = ny_rank(at) + 1;
  if (rank > NY_MAX_RANK || !ny_axis(n, ny_attr_int(n, "axis", -1), rank, &axis)) return ny_failed(n);
  ny_value *i = ny_unsqueeze_at(n, ny_cast_to(n, at, NY_i64), axis);
  ny_value *size = ny_b_dims(&n->b, &depth, 1, true);
  if (!i || !size) return ny_failed(n);
  i = ny_ew(n, NY_where, (ny_value *[]){ny_ew2s(n, NY_lt, i, 0), ny_ew2(n, NY_add, i, size), i}, 3);
  ny_dim shape[NY_MAX_RANK];
  for (int k = 0; k < rank; k++) shape[k] = k == axis ? depth : 1;
  ny_value *pos = ny_b_iota(&n->b, NY_i64, rank, shape, axis);
  ny_value *hit = pos && i ? ny_ew2(n, NY_eq, i, pos) : NULL;
  ny_value *off = ny_reshape_to(n, ny_slice_axis(n, values, 0, 0, 1), 0, NULL);
  ny_value *on = ny_reshape_to(n, ny_slice_axis(n, values, 0, 1, 1), 0, NULL);
  return hit && on && off ? ny_out(n, 0, ny_ew(n, NY_where, (ny_value *[]){hit, on, off}, 3)) : ny_failed(n);
}

nyb_status ny_op_reverse_sequence(ny_node *n) {
  ny_value *x = ny_need(n, 0), *len = ny_need(n, 1);
  int64_t batch = ny_attr_int(n, "batch_axis", 1), time = ny_attr_int(n, "time_axis", 0);
  if (!x || !len) return ny_failed(n);
  int rank = ny_rank(x);
  if (rank < 2 || batch < 0 || batch > 1 || time < 0 || time > 1 || batch == time || ny_rank(len) != 1)
    return ny_node_fail(n, NYB_E_SHAPE, "batch_axis %lld and time_axis %lld of rank %d", (long long)batch,
                        (long long)time, rank);
  if (!ny_numbers_fit(n, 1, 0, ny_dim_add(n->cx, ny_size(x, (int)time), 1), "length")) return ny_failed(n);
  ny_dim shape[NY_MAX_RANK], lens[NY_MAX_RANK];
  for (int i = 0; i < rank; i++) shape[i] = i == time ? ny_size(x, i) : 1, lens[i] = i == batch ? ny_size(x, i) : 1;
  ny_value *t = ny_b_iota(&n->b, NY_i64, rank, shape, (int)time);
  ny_value *l = ny_reshape_to(n, ny_cast_to(n, len, NY_i64), rank, lens);
  ny_value *inside = t && l ? ny_ew2(n, NY_lt, t, l) : NULL;
  ny_value *back = inside ? ny_ew2(n, NY_sub, ny_ew2s(n, NY_sub, l, 1), t) : NULL;
  ny_value *at = back ? ny_ew(n, NY_where, (ny_value *[]){inside, back, t}, 3) : NULL;
  at = at ? ny_b_broadcast(&n->b, at, rank, x->type->dim) : NULL;
  return at ? ny_out(n, 0, gather_elements(n, x, at, (int)time)) : ny_failed(n);
}

/* The condition decides the size of the result, so it must be known. */
nyb_status ny_op_compress(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_tensor c;
  int64_t count = 0, kept = 0;
  if (!x || !ny_need(n, 1)) return ny_failed(n);
  if (!ny_onnx_const(n, 1, &c))
    return ny_node_fail(n, NYB_E_UNSUPPORTED,
                        "the condition is not a constant: the size of the result depends on data");
  int axis = 0;
  if (!ny_attr_has(n, "axis")) {
    ny_dim all = ny_type_count(n->cx, x->type);
    x = ny_reshape_to(n, x, 1, &all);
    if (!x) return ny_failed(n);
  } else if (!ny_axis(n, ny_attr_int(n, "axis", 0), ny_rank(x), &axis)) {
    return ny_failed(n);
  }
  if (!ny_type_static_count(n->cx, c.type, &count)) return ny_failed(n);
  int64_t *at = NY_NEW_ARRAY(n->tmp, int64_t, count + 1);
  for (int64_t i = 0; i < count; i++)
    if (ny_get_i((ny_fmt)c.type->fmt, c.data, (uint64_t)i)) at[kept++] = i;
  ny_value *index = ny_const_ints(n, NY_i64, 1, &kept, at);
  return index ? ny_out(n, 0, ny_b_gather(&n->b, x, index, axis)) : ny_failed(n);
}

/* A cache with an update written from write_indices[batch] on along axis; positions beyond the end wrap when circular.
 */
nyb_status ny_op_tensor_scatter(ny_node *n) {
  ny_value *cache = ny_need(n, 0), *update = ny_need(n, 1), *start = ny_opt(n, 2);
  int axis;
  if (!cache || !update || !ny_axis(n, ny_attr_int(n, "axis", -2), ny_rank(cache), &axis)) return ny_failed(n);
  int rank = ny_rank(cache);
  if (ny_rank(update) != rank || axis == 0)
    return ny_node_fail(n, NYB_E_SHAPE, "update of rank %d into rank %d at axis %d", ny_rank(update), rank, axis);
  const char *mode = ny_attr_string(n, "mode", "linear");
  bool circular = !strcmp(mode, "circular");
  if (!circular && strcmp(mode, "linear")) return ny_node_fail(n, NYB_E_UNSUPPORTED, "mode is \"%s\"", mode);
  ny_dim shape[NY_MAX_RANK], lens[NY_MAX_RANK];
  for (int i = 0; i < rank; i++)
    shape[i] = i == axis ? ny_size(update, i) : 1, lens[i] = i == 0 ? ny_size(cache, 0) : 1;
  ny_value *at = ny_b_iota(&n->b, NY_i64, rank, shape, axis);
  if (at && start) at = ny_ew2(n, NY_add, at, ny_reshape_to(n, ny_cast_to(n, start, NY_i64), rank, lens));
  if (at && circular) {
    ny_dim size = ny_size(cache, axis);
    ny_value *limit = ny_b_dims(&n->b, &size, 1, true);
    at = limit ? ny_ew2(n, NY_mod, at, limit) : NULL;
  }
  at = at ? ny_b_broadcast(&n->b, at, rank, update->type->dim) : NULL;
  return at ? ny_out(n, 0, scatter_elements(n, cache, at, update, axis, "set")) : ny_failed(n);
}

/* Values go to flat positions of the tensor that the pooling window implies; output_shape may pad it at the end. */
nyb_status ny_op_max_unpool(ny_node *n) {
  ny_value *x = ny_need(n, 0), *at = ny_need(n, 1);
  int nk, np, ns;
  const int64_t *kernel = ny_attr_ints(n, "kernel_shape", &nk), *pads = ny_attr_ints(n, "pads", &np),
                *strides = ny_attr_ints(n, "strides", &ns);
  if (!x || !at) return ny_failed(n);
  int rank = ny_rank(x);
  if (nk != rank - 2 || (np && np != 2 * nk) || (ns && ns != nk))
    return ny_node_fail(n, NYB_E_SHAPE, "kernel_shape of %d numbers for rank %d", nk, rank);
  ny_dim shape[NY_MAX_RANK] = {ny_size(x, 0), ny_size(x, 1)}, total, flat, want[NY_MAX_RANK], lo[NY_MAX_RANK] = {0},
         hi[NY_MAX_RANK];
  for (int i = 0; i < nk; i++) {
    ny_dim span = ny_dim_mul(n->cx, ny_dim_sub(n->cx, ny_size(x, i + 2), 1), ny_dim_const(n->cx, ns ? strides[i] : 1));
    shape[i + 2] = ny_dim_add(n->cx, span, ny_dim_const(n->cx, kernel[i] - (np ? pads[i] + pads[nk + i] : 0)));
  }
  total = ny_type_count(n->cx, ny_tensor_type(n->cx, ny_fmt_of(x), rank, shape));
  flat = ny_type_count(n->cx, x->type);
  if (!ny_opt(n, 2) && !ny_numbers_fit(n, 1, 0, total, "index")) return ny_failed(n);
  ny_value *y = ny_full(n, ny_fmt_of(x), 1, &total, 0);
  y = y ? scatter_elements(n, y, ny_reshape_to(n, at, 1, &flat), ny_reshape_to(n, x, 1, &flat), 0, "set") : NULL;
  y = y ? ny_reshape_to(n, y, rank, shape) : NULL;
  if (!y || !ny_opt(n, 2)) return ny_out(n, 0, y);
  int count;
  if (!ny_node_dims(n, 2, want, NY_MAX_RANK, &count)) return ny_failed(n);
  if (count != rank) return ny_node_fail(n, NYB_E_SHAPE, "output_shape has %d numbers for rank %d", count, rank);
  for (int i = 0; i < rank; i++) hi[i] = ny_dim_sub(n->cx, want[i], shape[i]);
  return ny_out(n, 0, ny_b_pad(&n->b, y, NULL, lo, hi, NULL, "constant"));
}

/* ---- TfIdfVectorizer over integers: for every n-gram of the pool and every distance between its words, compare and
 * count. */
typedef struct grams {
  int size, count, *column; /* grams of this size, and where each is counted */
  int64_t *words;           /* [count][size] */
} grams;

/* Grams of one size; of equal ones only the last counts. */
static bool grams_of(ny_node *n, const int64_t *pool, int64_t len, int size, const int64_t *columns, int n_columns,
                     int first, grams *g) {
  int count = (int)(len / size);
  *g = (grams){.size = size,
               .column = NY_NEW_ARRAY(n->tmp, int, count + 1),
               .words = NY_NEW_ARRAY(n->tmp, int64_t, (size_t)(count + 1) * (size_t)size)};
  for (int i = 0; i < count; i++) {
    bool again = false;
    for (int j = i + 1; j < count && !again; j++)
      again = !memcmp(pool + (size_t)i * (size_t)size, pool + (size_t)j * (size_t)size, sizeof(int64_t) * (size_t)size);
    if (again) continue;
    if (first + i >= n_columns)
      return ny_node_fail(n, NYB_E_SHAPE, "ngram_indexes has %d entries, gram %d has none", n_columns, first + i),
             false;
    g->column[g->count] = (int)columns[first + i];
    memcpy(g->words + (size_t)g->count++ * (size_t)size, pool + (size_t)i * (size_t)size,
           sizeof(int64_t) * (size_t)size);
  }
  return true;
}

/* f32[rows, grams]: how often each gram occurs in x [rows, width] with its words `step` apart. */
static ny_value *count_grams(ny_node *n, ny_value *x, const grams *g, int64_t step) {
  int64_t width = 0, shape[3] = {1, 1, g->count};
  ny_dim_is_const(n->cx, ny_size(x, 1), &width);
  int64_t places = width - (g->size - 1) * step, *word = NY_NEW_ARRAY(n->tmp, int64_t, g->count);
  if (places <= 0) return ny_full(n, NY_f32, 2, (ny_dim[]){ny_size(x, 0), g->count}, 0);
  ny_value *all = NULL;
  for (int k = 0; k < g->size; k++) {
    for (int i = 0; i < g->count; i++) word[i] = g->words[(size_t)i * (size_t)g->size + (size_t)k];
    ny_value *c = ny_const_ints(n, NY_i64, 3, shape, word);
    ny_value *s = ny_slice_axis(n, x, 1, k * step, places);
    s = s ? ny_unsqueeze_at(n, s, 2) : NULL;
    ny_value *hit = c && s ? ny_ew2(n, NY_eq, s, c) : NULL;
    all = all && hit ? ny_ew2(n, NY_and, all, hit) : hit;
    if (!all) return NULL;
  }
  int axis = 1;
  all = ny_cast_to(n, all, NY_f32);
  return all ? ny_b_reduce(&n->b, "sum", all, &axis, 1, false) : NULL;
}

/* counts [rows, grams] into the columns of y. */
static ny_value *add_counts(ny_node *n, ny_value *y, ny_value *counts, const grams *g) {
  int64_t *at = NY_NEW_ARRAY(n->tmp, int64_t, g->count), shape[2] = {1, g->count};
  for (int i = 0; i < g->count; i++) at[i] = g->column[i];
  ny_value *index = ny_const_ints(n, NY_i64, 2, shape, at);
  index = index && counts ? ny_b_broadcast(&n->b, index, 2, counts->type->dim) : NULL;
  return index ? scatter_elements(n, y, index, counts, 1, "sum") : NULL;
}

static nyb_status tfidf_out(ny_node *n, ny_value *y, int rank, int64_t columns) {
  const char *mode = ny_attr_string(n, "mode", "");
  int nw;
  const double *w = ny_attr_floats(n, "weights", &nw);
  if (!strcmp(mode, "IDF")) {
    y = ny_cast_to(n, ny_ew2s(n, NY_gt, y, 0), NY_f32);
  } else if (strcmp(mode, "TF") && strcmp(mode, "TFIDF")) {
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "mode is \"%s\"", mode);
  }
  if (y && nw && strcmp(mode, "TF")) {
    if (nw != columns) return ny_node_fail(n, NYB_E_SHAPE, "%d weights for %lld columns", nw, (long long)columns);
    int64_t shape = nw;
    y = ny_ew2(n, NY_mul, y, ny_const_floats(n, NY_f32, 1, &shape, w));
  }
  return y ? ny_out(n, 0, rank == 1 ? ny_reshape_to(n, y, 1, &columns) : y) : ny_failed(n);
}

nyb_status ny_op_tfidf(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  int n_start, n_column, n_pool, n_words;
  const int64_t *start = ny_attr_ints(n, "ngram_counts", &n_start),
                *column = ny_attr_ints(n, "ngram_indexes", &n_column);
  const int64_t *pool = ny_attr_ints(n, "pool_int64s", &n_pool);
  ny_attr_strings(n, "pool_strings", &n_words);
  int64_t lo = ny_attr_int(n, "min_gram_length", 1), hi = ny_attr_int(n, "max_gram_length", 1),
          skip = ny_attr_int(n, "max_skip_count", 0), width;
  if (!x) return ny_failed(n);
  if (n_words || !ny_is_int(ny_fmt_of(x)))
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "n-grams of strings are not supported");
  if (ny_rank(x) < 1 || ny_rank(x) > 2 || skip < 0 || skip > 4096)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "rank %d with max_skip_count %lld", ny_rank(x), (long long)skip);
  int rank = ny_rank(x);
  int64_t columns = 0;
  for (int i = 0; i < n_column; i++) {
    if (column[i] < 0 || column[i] > (1 << 24))
      return ny_node_fail(n, NYB_E_SHAPE, "ngram_indexes holds %lld", (long long)column[i]);
    if (column[i] >= columns) columns = column[i] + 1;
  }
  if (rank == 1) x = ny_reshape_to(n, x, 2, (ny_dim[]){1, ny_size(x, 0)});
  if (!x || !ny_need_static(n, x, 1, "the number of words", &width)) return ny_failed(n);
  x = ny_cast_to(n, x, NY_i64);
  ny_value *y = x ? ny_full(n, NY_f32, 2, (ny_dim[]){ny_size(x, 0), columns}, 0) : NULL;
  int first = 0;
  for (int s = 1; s <= n_start && y; s++) {
    int64_t from = start[s - 1], to = s < n_start ? start[s] : n_pool;
    if (from < 0 || to < from || to > n_pool)
      return ny_node_fail(n, NYB_E_SHAPE, "ngram_counts %lld..%lld in a pool of %d", (long long)from, (long long)to,
                          n_pool);
    grams g;
    if (s >= lo && s <= hi && to - from >= s) {
      if (!grams_of(n, pool + from, to - from, s, column, n_column, first, &g)) return ny_failed(n);
      for (int64_t step = 1; step <= (s == 1 ? 1 : skip + 1) && y; step++)
        y = add_counts(n, y, count_grams(n, x, &g, step), &g);
    }
    first += (int)((to - from) / s);
  }
  return y ? tfidf_out(n, y, rank, columns) : ny_failed(n);
}
