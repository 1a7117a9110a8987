/* TfIdfVectorizer over integers: for every n-gram of the pool and every distance between its words, compare and count.
 */
#include "onnx.h"

#include <string.h>

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
      return ny_refuse(n, NYB_E_SHAPE, "ngram_indexes has %d entries, gram %d has none", n_columns, first + i);
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
    ny_value *s = ny_unsqueeze_at(n, ny_slice_axis(n, x, 1, k * step, places), 2);
    ny_value *hit = ny_ew2(n, NY_eq, s, ny_const_ints(n, NY_i64, 3, shape, word));
    all = k ? ny_ew2(n, NY_and, all, hit) : hit;
  }
  return ny_b_reduce(&n->b, "sum", ny_cast_to(n, all, NY_f32), (int[]){1}, 1, false);
}

/* counts [rows, grams] into the columns of y. */
static ny_value *add_counts(ny_node *n, ny_value *y, ny_value *counts, const grams *g) {
  int64_t *at = NY_NEW_ARRAY(n->tmp, int64_t, g->count), shape[2] = {1, g->count};
  for (int i = 0; i < g->count; i++) at[i] = g->column[i];
  if (!counts) return NULL;
  ny_value *index = ny_expand_like(n, ny_const_ints(n, NY_i64, 2, shape, at), counts);
  return ny_scatter_elements(n, y, index, counts, 1, "sum");
}

static nyb_status tfidf_out(ny_node *n, ny_value *y, int rank, int64_t columns) {
  enum { TF, IDF, TFIDF };
  int mode = ny_attr_choice(n, "mode", "", "TF|IDF|TFIDF"), nw;
  const double *w = ny_attr_floats(n, "weights", &nw);
  if (mode == IDF) y = ny_cast_to(n, ny_ew2s(n, NY_gt, y, 0), NY_f32);
  if (nw && mode != TF) {
    if (nw != columns) return ny_node_fail(n, NYB_E_SHAPE, "%d weights for %lld columns", nw, (long long)columns);
    y = ny_ew2(n, NY_mul, y, ny_const_floats(n, NY_f32, 1, &columns, w));
  }
  return ny_out(n, 0, rank == 1 ? ny_reshape_to(n, y, 1, &columns) : y);
}

nyb_status ny_op_tfidf(ny_node *n) {
  ny_value *x = n->in[0];
  int n_start, n_column, n_pool, n_words;
  const int64_t *start = ny_attr_ints(n, "ngram_counts", &n_start),
                *column = ny_attr_ints(n, "ngram_indexes", &n_column);
  const int64_t *pool = ny_attr_ints(n, "pool_int64s", &n_pool);
  ny_attr_strings(n, "pool_strings", &n_words);
  int64_t lo = ny_attr_int(n, "min_gram_length", 1), hi = ny_attr_int(n, "max_gram_length", 1),
          skip = ny_attr_int(n, "max_skip_count", 0), width;
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
  if (!x) return ny_failed(n);
  ny_value *y = ny_full(n, NY_f32, 2, (ny_dim[]){ny_size(x, 0), columns}, 0);
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
  return tfidf_out(n, y, rank, columns);
}
