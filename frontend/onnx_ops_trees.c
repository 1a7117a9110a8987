/* Tree ensembles: all trees of all rows walk down one level at a time. Nodes and leaves share one index space, a leaf
   leads to itself, so a walk is `depth` gathers; then each position's row of target weights is added up. TreeEnsemble
   (ai.onnx.ml 5) and TreeEnsembleRegressor. */
#include "onnx.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NODES = 1 << 22, MAX_DEPTH = 1024, MEMBER = 6, N_MODES };
typedef struct forest {
  int64_t n, n_roots, n_targets, depth; /* n: nodes and leaves */
  int64_t *feature, *yes, *no, *root;
  uint8_t *mode, *missing; /* missing: NaN goes the way of yes */
  double *split, *weight;  /* weight: [n][n_targets], `none` where a leaf says nothing */
  double none;
  int64_t member_width;
  double *member; /* [n][member_width], padded with NaN */
} forest;

static bool alloc_forest(ny_node *n, forest *f) {
  if (f->n < 1 || f->n > MAX_NODES || f->n_targets < 1 || f->n_targets > MAX_NODES / f->n)
    return ny_refuse(n, NYB_E_LIMIT, "%lld nodes with %lld targets", (long long)f->n, (long long)f->n_targets);
  f->feature = NY_NEW_ARRAY(n->tmp, int64_t, f->n), f->yes = NY_NEW_ARRAY(n->tmp, int64_t, f->n),
  f->no = NY_NEW_ARRAY(n->tmp, int64_t, f->n);
  f->mode = NY_NEW_ARRAY(n->tmp, uint8_t, f->n), f->missing = NY_NEW_ARRAY(n->tmp, uint8_t, f->n);
  f->split = NY_NEW_ARRAY(n->tmp, double, f->n), f->weight = NY_NEW_ARRAY(n->tmp, double, f->n * f->n_targets);
  for (int64_t i = 0; i < f->n; i++) f->yes[i] = f->no[i] = i;
  for (int64_t i = 0; i < f->n * f->n_targets; i++) f->weight[i] = f->none;
  return true;
}

/* Levels below the roots, walked breadth first; fails on a cycle. */
static bool measure(ny_node *n, forest *f) {
  uint8_t *seen = NY_NEW_ARRAY(n->tmp, uint8_t, f->n);
  int64_t *now = NY_NEW_ARRAY(n->tmp, int64_t, f->n + f->n_roots),
          *next = NY_NEW_ARRAY(n->tmp, int64_t, f->n + f->n_roots), count = 0;
  for (int64_t i = 0; i < f->n_roots; i++) {
    if (f->root[i] < 0 || f->root[i] >= f->n)
      return ny_refuse(n, NYB_E_SHAPE, "a tree starts at node %lld of %lld", (long long)f->root[i], (long long)f->n);
    if (!seen[f->root[i]]) now[count++] = f->root[i], seen[f->root[i]] = 1;
  }
  for (f->depth = 0; count; f->depth++) {
    int64_t more = 0;
    for (int64_t i = 0; i < count; i++) {
      int64_t to[2] = {f->yes[now[i]], f->no[now[i]]};
      for (int k = 0; k < 2; k++) {
        if (to[k] < 0 || to[k] >= f->n)
          return ny_refuse(n, NYB_E_SHAPE, "a branch leads to node %lld of %lld", (long long)to[k], (long long)f->n);
        bool leaf = f->yes[to[k]] == to[k] && f->no[to[k]] == to[k];
        if (to[k] == now[i] || (k && to[1] == to[0]) || leaf) continue;
        if (seen[to[k]])
          return ny_refuse(n, NYB_E_SHAPE, "node %lld is reached twice: the trees are not trees", (long long)to[k]);
        seen[to[k]] = 1;
        next[more++] = to[k];
      }
    }
    int64_t *swap = now;
    now = next, next = swap, count = more;
    if (f->depth > MAX_DEPTH) return ny_refuse(n, NYB_E_LIMIT, "trees deeper than %d", (int)MAX_DEPTH);
  }
  return true;
}

static ny_value *any_member(ny_node *n, const forest *f, ny_value *x, ny_value *at) {
  int64_t shape[2] = {f->n, f->member_width};
  ny_value *m = ny_b_gather(&n->b, ny_const_floats(n, ny_fmt_of(x), 2, shape, f->member), at, 0);
  ny_value *hit = ny_cast_to(n, ny_ew2(n, NY_eq, ny_unsqueeze_at(n, x, 2), m), NY_u8);
  return ny_cast_to(n, ny_b_reduce(&n->b, "max", hit, (int[]){2}, 1, false), NY_bool);
}

/* Whether each tree of each row takes the yes branch at node `at` [rows, trees]; x: that node's feature. */
static ny_value *decide(ny_node *n, const forest *f, ny_value *x, ny_value *at) {
  static const ny_kind kind[] = {NY_le, NY_lt, NY_ge, NY_gt, NY_eq, NY_ne};
  bool used[N_MODES] = {false}, missing = false;
  for (int64_t i = 0; i < f->n; i++) used[f->mode[i]] |= f->yes[i] != i, missing |= f->missing[i] != 0;
  ny_value *split = ny_b_gather(&n->b, ny_const_floats(n, ny_fmt_of(x), 1, &f->n, f->split), at, 0);
  ny_value *mode = ny_b_gather(&n->b, ny_const_data(n, NY_u8, 1, &f->n, f->mode), at, 0), *yes = NULL;
  for (int m = 0; m < N_MODES; m++) {
    if (!used[m]) continue;
    ny_value *c = m == MEMBER ? any_member(n, f, x, at) : ny_ew2(n, kind[m], x, split);
    yes = yes ? ny_where(n, ny_ew2s(n, NY_eq, mode, m), c, yes) : c;
  }
  if (missing) {
    ny_value *tracks = ny_cast_to(n, ny_b_gather(&n->b, ny_const_data(n, NY_u8, 1, &f->n, f->missing), at, 0), NY_bool);
    yes = ny_ew2(n, NY_or, yes, ny_ew2(n, NY_and, tracks, ny_ew1(n, NY_isnan, x)));
  }
  return yes;
}

/* [rows, targets]: what the leaves reached add up to. op: sum, min or max. */
static ny_value *walk(ny_node *n, const forest *f, ny_value *x, const char *op) {
  int64_t one_row[2] = {1, f->n_roots}, table[2] = {f->n, f->n_targets};
  ny_dim shape[2] = {ny_size(x, 0), f->n_roots};
  ny_value *at = ny_b_broadcast(&n->b, ny_const_ints(n, NY_i64, 2, one_row, f->root), 2, shape);
  ny_value *feature = ny_const_ints(n, NY_i64, 1, &f->n, f->feature), *yes = ny_const_ints(n, NY_i64, 1, &f->n, f->yes),
           *no = ny_const_ints(n, NY_i64, 1, &f->n, f->no);
  for (int64_t d = 0; d < f->depth && at; d++) {
    ny_value *v = ny_gather_elements(n, x, ny_b_gather(&n->b, feature, at, 0), 1);
    ny_value *go = v ? decide(n, f, v, at) : NULL;
    if (!go) break; /* no node has branches */
    at = ny_where(n, go, ny_b_gather(&n->b, yes, at, 0), ny_b_gather(&n->b, no, at, 0));
  }
  ny_value *w = ny_b_gather(&n->b, ny_const_floats(n, ny_fmt_of(x), 2, table, f->weight), at, 0);
  return ny_b_reduce(&n->b, op, w, (int[]){1}, 1, false);
}

static nyb_status finish(ny_node *n, forest *f, int aggregate, const double *base, int post) {
  static const char *const op[] = {"sum", "sum", "min", "max"};
  ny_value *x = n->in[0];
  int64_t width;
  if (ny_rank(x) != 2) return ny_node_fail(n, NYB_E_SHAPE, "the input has rank %d, not 2", ny_rank(x));
  if (!measure(n, f) || !ny_need_static(n, x, 1, "the number of features", &width)) return ny_failed(n);
  for (int64_t i = 0; i < f->n; i++)
    if (f->feature[i] < 0 || f->feature[i] >= width)
      return ny_node_fail(n, NYB_E_SHAPE, "feature %lld of %lld", (long long)f->feature[i], (long long)width);
  if (!ny_is_float(ny_fmt_of(x))) x = ny_cast_to(n, x, NY_f32);
  ny_value *y = x ? walk(n, f, x, op[aggregate]) : NULL;
  if (aggregate == 0) y = ny_ew2s(n, NY_div, y, (double)f->n_roots);
  if (aggregate >= 2) y = ny_where(n, ny_ew1(n, NY_isinf, y), ny_num(n, y, 0), y);
  if (y && base) y = ny_ew2(n, NY_add, y, ny_const_floats(n, ny_fmt_of(y), 1, &f->n_targets, base));
  if (post == 2) y = ny_ew1(n, NY_sigmoid, y);
  if (post == 1) y = ny_softmax(n, y, 1);
  return ny_out(n, 0, y);
}

static const double *tensor_numbers(ny_node *n, const char *name, int64_t want, int64_t *got) {
  ny_tensor t;
  ny_value *v = ny_attr_has(n, name) ? ny_attr_tensor(n, name) : NULL;
  *got = 0;
  if (!v) return NULL;
  if (!ny_value_const(n, v, &t) || !ny_type_static_count(n->cx, t.type, got)) return NULL;
  if (want >= 0 && *got != want)
    return ny_refuse_value(n, NYB_E_SHAPE, "%s has %lld elements, not %lld", name, (long long)*got, (long long)want);
  double *out = NY_NEW_ARRAY(n->tmp, double, *got + 1);
  for (int64_t i = 0; i < *got; i++) out[i] = ny_number(&t, i);
  return out;
}

static const int64_t *ints_of(ny_node *n, const char *name, int64_t want) {
  int count;
  const int64_t *v = ny_attr_ints(n, name, &count);
  if (count != want)
    return ny_refuse_value(n, NYB_E_SHAPE, "%s has %d elements, not %lld", name, count, (long long)want);
  return v;
}

/* What a leaf that says nothing adds to: average, sum, min, max. */
static double neutral(int aggregate) { return aggregate < 2 ? 0 : aggregate == 2 ? INFINITY : -INFINITY; }

/* Sets for the member nodes, in their order, each ended by NaN. */
static bool read_members(ny_node *n, forest *f) {
  int64_t count, at = 0, widest = 1;
  const double *v = tensor_numbers(n, "membership_values", -1, &count);
  for (int64_t i = 0, run = 0; i < count; i++) run = isnan(v[i]) ? 0 : run + 1, widest = run > widest ? run : widest;
  if (widest > MAX_NODES / f->n) return ny_refuse(n, NYB_E_LIMIT, "sets of %lld members", (long long)widest);
  f->member_width = widest;
  f->member = NY_NEW_ARRAY(n->tmp, double, f->n *widest);
  for (int64_t i = 0; i < f->n * widest; i++) f->member[i] = NAN;
  for (int64_t i = 0; i < f->n; i++) {
    if (f->mode[i] != MEMBER) continue;
    for (int64_t k = 0; at < count && !isnan(v[at]); k++) f->member[i * widest + k] = v[at++];
    if (at++ >= count) return ny_refuse(n, NYB_E_SHAPE, "membership_values end before the sets do");
  }
  return true;
}

nyb_status ny_op_tree_ensemble(ny_node *n) {
  int n_nodes, n_leaves, n_roots, n_missing;
  const int64_t *feature = ny_attr_ints(n, "nodes_featureids", &n_nodes),
                *target = ny_attr_ints(n, "leaf_targetids", &n_leaves),
                *roots = ny_attr_ints(n, "tree_roots", &n_roots);
  const int64_t *missing = ny_attr_ints(n, "nodes_missing_value_tracks_true", &n_missing);
  const int64_t *yes = ints_of(n, "nodes_truenodeids", n_nodes), *no = ints_of(n, "nodes_falsenodeids", n_nodes);
  const int64_t *yes_leaf = ints_of(n, "nodes_trueleafs", n_nodes), *no_leaf = ints_of(n, "nodes_falseleafs", n_nodes);
  int64_t got, aggregate = ny_attr_int(n, "aggregate_function", 1), post = ny_attr_int(n, "post_transform", 0);
  const double *split = tensor_numbers(n, "nodes_splits", n_nodes, &got),
               *mode = tensor_numbers(n, "nodes_modes", n_nodes, &got),
               *weight = tensor_numbers(n, "leaf_weights", n_leaves, &got);
  if (!yes || !no || !yes_leaf || !no_leaf || !split || !mode || !weight || !n_roots)
    return n->cx->diag.code ? ny_failed(n) : ny_node_fail(n, NYB_E_SHAPE, "the trees lack nodes, leaves or roots");
  if (aggregate < 0 || aggregate > 3 || post < 0 || post > 2)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "aggregate_function %lld with post_transform %lld", (long long)aggregate,
                        (long long)post);
  forest f = {.n = (int64_t)n_nodes + n_leaves,
              .n_roots = n_roots,
              .n_targets = ny_attr_int(n, "n_targets", 1),
              .none = neutral((int)aggregate)};
  if (!alloc_forest(n, &f)) return ny_failed(n);
  f.root = NY_NEW_ARRAY(n->tmp, int64_t, n_roots);
  memcpy(f.root, roots, sizeof *roots * (size_t)n_roots);
  for (int i = 0; i < n_nodes; i++) {
    if (!(mode[i] >= 0 && mode[i] < (double)N_MODES))
      return ny_node_fail(n, NYB_E_UNSUPPORTED, "node %d has mode %g", i, mode[i]);
    if (yes[i] < 0 || no[i] < 0 || yes[i] >= (yes_leaf[i] ? n_leaves : n_nodes) ||
        no[i] >= (no_leaf[i] ? n_leaves : n_nodes))
      return ny_node_fail(n, NYB_E_SHAPE, "node %d branches to %lld and %lld", i, (long long)yes[i], (long long)no[i]);
    f.feature[i] = feature[i], f.split[i] = split[i], f.mode[i] = (uint8_t)mode[i],
    f.missing[i] = missing && i < n_missing && missing[i];
    f.yes[i] = yes[i] + (yes_leaf[i] ? n_nodes : 0), f.no[i] = no[i] + (no_leaf[i] ? n_nodes : 0);
  }
  for (int i = 0; i < n_leaves; i++) {
    if (target[i] < 0 || target[i] >= f.n_targets)
      return ny_node_fail(n, NYB_E_SHAPE, "leaf %d is for target %lld of %lld", i, (long long)target[i],
                          (long long)f.n_targets);
    f.weight[(n_nodes + i) * f.n_targets + target[i]] = weight[i];
  }
  return read_members(n, &f) ? finish(n, &f, (int)aggregate, NULL, (int)post) : ny_failed(n);
}

/* ---- TreeEnsembleRegressor: nodes are named by (tree, id) */
typedef struct named {
  int64_t tree, id, at;
} named;
static int by_name(const void *a, const void *b) {
  const named *x = a, *y = b;
  if (x->tree != y->tree) return x->tree < y->tree ? -1 : 1;
  return x->id < y->id ? -1 : x->id > y->id;
}

static int64_t lookup(const named *all, int64_t n, int64_t tree, int64_t id) {
  const named key = {.tree = tree, .id = id}, *hit = bsearch(&key, all, (size_t)n, sizeof *all, by_name);
  return hit ? hit->at : -1;
}

static int choice(const char *s, const char *const *names, int n) {
  for (int i = 0; i < n; i++)
    if (!strcmp(s, names[i])) return i;
  return -1;
}

/* Nodes of the forest, and its roots: nodes that no branch leads to. */
static bool read_named(ny_node *n, forest *f, named *all) {
  static const char *const modes[] = {"BRANCH_LEQ", "BRANCH_LT",  "BRANCH_GTE", "BRANCH_GT",
                                      "BRANCH_EQ",  "BRANCH_NEQ", "LEAF"};
  int n_modes, n_values, n_missing;
  const char *const *mode = ny_attr_strings(n, "nodes_modes", &n_modes);
  const double *value = ny_attr_floats(n, "nodes_values", &n_values);
  const int64_t *feature = ints_of(n, "nodes_featureids", f->n), *yes = ints_of(n, "nodes_truenodeids", f->n),
                *no = ints_of(n, "nodes_falsenodeids", f->n);
  const int64_t *missing = ny_attr_ints(n, "nodes_missing_value_tracks_true", &n_missing);
  if (!feature || !yes || !no) return false;
  if (n_modes != f->n || n_values != f->n)
    return ny_refuse(n, NYB_E_SHAPE, "%d modes and %d values for %lld nodes", n_modes, n_values, (long long)f->n);
  uint8_t *inner = NY_NEW_ARRAY(n->tmp, uint8_t, f->n);
  for (int64_t k = 0; k < f->n; k++) {
    int64_t i = all[k].at;
    int m = choice(mode[i], modes, 7);
    if (m < 0) return ny_refuse(n, NYB_E_UNSUPPORTED, "node mode \"%s\"", mode[i]);
    if (m == 6) continue;
    int64_t a = lookup(all, f->n, all[k].tree, yes[i]), b = lookup(all, f->n, all[k].tree, no[i]);
    if (a < 0 || b < 0)
      return ny_refuse(n, NYB_E_SHAPE, "tree %lld has no node %lld", (long long)all[k].tree,
                       (long long)(a < 0 ? yes[i] : no[i]));
    f->mode[i] = (uint8_t)m, f->feature[i] = feature[i], f->split[i] = value[i],
    f->missing[i] = missing && i < n_missing && missing[i];
    f->yes[i] = a, f->no[i] = b;
    inner[a] = inner[b] = 1;
  }
  f->root = NY_NEW_ARRAY(n->tmp, int64_t, f->n);
  for (int64_t i = 0; i < f->n; i++)
    if (!inner[i]) f->root[f->n_roots++] = i;
  return f->n_roots > 0 || ny_refuse(n, NYB_E_SHAPE, "the trees have no roots");
}

nyb_status ny_op_tree_regressor(ny_node *n) {
  int n_nodes, n_weights, n_base;
  const int64_t *tree = ny_attr_ints(n, "nodes_treeids", &n_nodes), *id = ints_of(n, "nodes_nodeids", n_nodes);
  const double *weight = ny_attr_floats(n, "target_weights", &n_weights),
               *base = ny_attr_floats(n, "base_values", &n_base);
  const int64_t *t_tree = ints_of(n, "target_treeids", n_weights), *t_id = ints_of(n, "target_nodeids", n_weights),
                *t_to = ints_of(n, "target_ids", n_weights);
  int aggregate = ny_attr_choice(n, "aggregate_function", "SUM", "AVERAGE|SUM|MIN|MAX"),
      post = ny_attr_choice(n, "post_transform", "NONE", "NONE|SOFTMAX|LOGISTIC");
  if (!id || !t_tree || !t_id || !t_to || aggregate < 0 || post < 0)
    return n->cx->diag.code ? ny_failed(n) : ny_node_fail(n, NYB_E_SHAPE, "the trees have no nodes or no targets");
  if (ny_attr_has(n, "nodes_values_as_tensor"))
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "nodes_values_as_tensor is not supported");
  forest f = {.n = n_nodes, .n_targets = ny_attr_int(n, "n_targets", 1), .none = neutral(aggregate)};
  if (!alloc_forest(n, &f)) return ny_failed(n);
  if (n_base && n_base != f.n_targets)
    return ny_node_fail(n, NYB_E_SHAPE, "%d base values for %lld targets", n_base, (long long)f.n_targets);
  named *all = NY_NEW_ARRAY(n->tmp, named, n_nodes);
  for (int i = 0; i < n_nodes; i++) all[i] = (named){tree[i], id[i], i};
  qsort(all, (size_t)n_nodes, sizeof *all, by_name);
  if (!read_named(n, &f, all)) return ny_failed(n);
  for (int i = 0; i < n_weights; i++) {
    int64_t at = lookup(all, f.n, t_tree[i], t_id[i]);
    if (at < 0 || t_to[i] < 0 || t_to[i] >= f.n_targets)
      return ny_node_fail(n, NYB_E_SHAPE, "weight %d is for target %lld of node %lld", i, (long long)t_to[i],
                          (long long)t_id[i]);
    double *w = &f.weight[at * f.n_targets + t_to[i]];
    *w = *w == f.none ? weight[i] : *w + weight[i];
  }
  return finish(n, &f, aggregate, n_base ? base : NULL, post);
}
