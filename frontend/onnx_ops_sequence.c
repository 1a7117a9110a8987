/* Sequences and optionals. Neither exists in the IR: a sequence is a list of values known at import and an optional is
   there or not, so these operators only pass values on. Positions must be constants. */
#include "onnx.h"

enum { MAX_ITEMS = 4096 };

static ny_list *new_list(ny_node *n, int count, ny_fmt f) {
  if (count > MAX_ITEMS)
    return ny_refuse_value(n, NYB_E_LIMIT, "a sequence of %d items; at most %d are supported", count, (int)MAX_ITEMS);
  ny_list *l = NY_NEW(n->tmp, ny_list);
  *l = (ny_list){.item = NY_NEW_ARRAY(n->tmp, ny_thing, count + 1), .n = count, .fmt = f};
  return l;
}

static nyb_status out_list(ny_node *n, int i, ny_list *l) {
  return l ? ny_out_thing(n, i, (ny_thing){.list = l}) : ny_failed(n);
}

static const ny_list *need_list(ny_node *n, int i) {
  if (i < n->n_in && n->in_thing[i].list) return n->in_thing[i].list;
  return ny_refuse_value(n, NYB_E_TYPE, "input %d must be a sequence", i);
}

/* The position in input i, counted from the end when negative; `def` when absent. Below `limit`. */
static bool position(ny_node *n, int i, int64_t size, int64_t def, int64_t limit, int *out) {
  int64_t at;
  if (!ny_node_int(n, i, def, &at)) return false;
  if (at < 0) at += size;
  *out = (int)at;
  if (at >= 0 && at < limit) return true;
  return ny_refuse(n, NYB_E_SHAPE, "position %lld in a sequence of %lld", (long long)at, (long long)size);
}

nyb_status ny_op_sequence_empty(ny_node *n) {
  ny_fmt f;
  return ny_attr_fmt(n, "dtype", NY_f32, &f) ? out_list(n, 0, new_list(n, 0, f)) : ny_failed(n);
}

nyb_status ny_op_sequence_construct(ny_node *n) {
  ny_list *l = new_list(n, n->n_in, NY_none);
  for (int i = 0; i < n->n_in && l; i++) {
    if (!ny_need(n, i)) return ny_failed(n);
    l->item[i] = n->in_thing[i];
    l->fmt = ny_fmt_of(n->in[i]);
  }
  return out_list(n, 0, l);
}

nyb_status ny_op_sequence_at(ny_node *n) {
  const ny_list *l = need_list(n, 0);
  int at;
  if (!l || !ny_need(n, 1) || !position(n, 1, l->n, 0, l->n, &at)) return ny_failed(n);
  return ny_out_thing(n, 0, l->item[at]);
}

nyb_status ny_op_sequence_insert(ny_node *n) {
  const ny_list *l = need_list(n, 0);
  ny_value *v = ny_need(n, 1);
  int at;
  if (!l || !v || !position(n, 2, l->n, l->n, l->n + 1, &at)) return ny_failed(n);
  ny_list *y = new_list(n, l->n + 1, ny_fmt_of(v));
  for (int i = 0; y && i < y->n; i++) y->item[i] = i < at ? l->item[i] : i == at ? n->in_thing[1] : l->item[i - 1];
  return out_list(n, 0, y);
}

nyb_status ny_op_sequence_erase(ny_node *n) {
  const ny_list *l = need_list(n, 0);
  int at;
  if (!l || !position(n, 1, l->n, l->n - 1, l->n, &at)) return ny_failed(n);
  ny_list *y = new_list(n, l->n - 1, l->fmt);
  for (int i = 0; y && i < y->n; i++) y->item[i] = l->item[i < at ? i : i + 1];
  return out_list(n, 0, y);
}

nyb_status ny_op_sequence_length(ny_node *n) {
  const ny_list *l = need_list(n, 0);
  if (!l) return ny_failed(n);
  int64_t count = l->n;
  return ny_out(n, 0, ny_const_ints(n, NY_i64, 0, NULL, &count));
}

nyb_status ny_op_concat_from_sequence(ny_node *n) {
  const ny_list *l = need_list(n, 0);
  bool stack = ny_attr_int(n, "new_axis", 0) != 0;
  int axis;
  if (!l) return ny_failed(n);
  if (!l->n) return ny_node_fail(n, NYB_E_SHAPE, "an empty sequence has nothing to concatenate");
  ny_value **v = NY_NEW_ARRAY(n->tmp, ny_value *, l->n);
  for (int i = 0; i < l->n; i++) {
    if (!l->item[i].v) return ny_node_fail(n, NYB_E_TYPE, "item %d of the sequence is not a tensor", i);
    if (!ny_attr_axis(n, 0, ny_rank(l->item[i].v) + stack, &axis)) return ny_failed(n);
    v[i] = stack ? ny_unsqueeze_at(n, l->item[i].v, axis) : l->item[i].v;
    if (!v[i] || ny_rank(v[i]) != ny_rank(v[0]))
      return v[i] ? ny_node_fail(n, NYB_E_SHAPE, "items have different ranks") : ny_failed(n);
    for (int k = 0; k < ny_rank(v[i]); k++)
      if (k != axis && !ny_unify(n, ny_size(v[i], k), ny_size(v[0], k), "dims of items to concatenate"))
        return ny_failed(n);
  }
  return ny_out(n, 0, ny_b_concat(&n->b, v, l->n, axis));
}

/* Sizes of the pieces: equal ones (the last may be smaller) for a number, as given for a list. */
static int piece_sizes(ny_node *n, int64_t size, int64_t *piece, bool *scalar) {
  ny_value *split = ny_opt(n, 1);
  int64_t given[MAX_ITEMS], step = 1, sum = 0;
  int count = 0;
  *scalar = !split || ny_rank(split) == 0;
  if (split && !ny_node_ints(n, 1, given, MAX_ITEMS, &count)) return -1;
  if (*scalar) {
    if (split) step = count ? given[0] : 0;
    if (step < 1 || size / step >= MAX_ITEMS)
      return ny_node_fail(n, NYB_E_SHAPE, "pieces of %lld from %lld", (long long)step, (long long)size), -1;
    for (count = 0; sum < size; sum += step) piece[count++] = size - sum < step ? size - sum : step;
    return count;
  }
  for (int i = 0; i < count; i++) {
    if (given[i] < 0 || given[i] > size - sum)
      return ny_node_fail(n, NYB_E_SHAPE, "pieces exceed the size %lld", (long long)size), -1;
    sum += piece[i] = given[i];
  }
  return sum == size
             ? count
             : (ny_node_fail(n, NYB_E_SHAPE, "pieces add up to %lld, not %lld", (long long)sum, (long long)size), -1);
}

nyb_status ny_op_split_to_sequence(ny_node *n) {
  ny_value *x = n->in[0];
  int64_t size, piece[MAX_ITEMS], start = 0;
  int axis;
  bool scalar;
  if (!ny_attr_axis(n, 0, ny_rank(x), &axis) || !ny_need_static(n, x, axis, "the size to split", &size))
    return ny_failed(n);
  int count = piece_sizes(n, size, piece, &scalar);
  ny_list *l = count < 0 ? NULL : new_list(n, count, ny_fmt_of(x));
  bool squeeze = !ny_opt(n, 1) && !ny_attr_int(n, "keepdims", 1);
  for (int i = 0; l && i < count; start += piece[i++]) {
    ny_value *v = ny_slice_axis(n, x, axis, start, piece[i]);
    if (squeeze) v = ny_squeeze_at(n, v, axis);
    if (!v) return ny_failed(n);
    l->item[i] = (ny_thing){.v = v};
  }
  return out_list(n, 0, l);
}

/* The body once an item; inputs that are not sequences are the same each time. */
nyb_status ny_op_sequence_map(ny_node *n) {
  const ny_list *first = need_list(n, 0);
  const ny_onnx_graph *g = ny_attr_graph(n, "body");
  if (!first || !g) return g || !first ? ny_failed(n) : ny_node_fail(n, NYB_E_PARSE, "the body is missing");
  int n_out = ny_graph_n_outputs(g);
  if (ny_graph_n_inputs(g) != n->n_in || n_out < n->n_out)
    return ny_node_fail(n, NYB_E_SHAPE, "the body takes %d inputs, %d are given", ny_graph_n_inputs(g), n->n_in);
  ny_thing *in = NY_NEW_ARRAY(n->tmp, ny_thing, n->n_in + 1), *out = NY_NEW_ARRAY(n->tmp, ny_thing, n_out + 1);
  ny_list **l = NY_NEW_ARRAY(n->tmp, ny_list *, n_out + 1);
  for (int k = 0; k < n->n_out; k++)
    if (!(l[k] = new_list(n, first->n, NY_none))) return ny_failed(n);
  for (int i = 0; i < first->n; i++) {
    for (int k = 0; k < n->n_in; k++) {
      const ny_list *list = n->in_thing[k].list;
      if (list && list->n != first->n)
        return ny_node_fail(n, NYB_E_SHAPE, "sequences of %d and %d items", first->n, list->n);
      in[k] = list ? list->item[i] : n->in_thing[k];
    }
    NY_TRY(ny_inline_graph(n, g, in, n->n_in, out, n_out));
    for (int k = 0; k < n->n_out; k++) {
      l[k]->item[i] = out[k];
      if (out[k].v) l[k]->fmt = ny_fmt_of(out[k].v);
    }
  }
  for (int k = 0; k < n->n_out; k++) NY_TRY(out_list(n, k, l[k]));
  return NYB_OK;
}

static bool present(const ny_node *n) { return n->n_in > 0 && (n->in_thing[0].v || n->in_thing[0].list); }

nyb_status ny_op_optional(ny_node *n) {
  return ny_out_thing(n, 0, present(n) ? n->in_thing[0] : (ny_thing){.is_none = true});
}

nyb_status ny_op_optional_has(ny_node *n) {
  int64_t has = present(n);
  return ny_out(n, 0, ny_const_ints(n, NY_bool, 0, NULL, &has));
}

nyb_status ny_op_optional_get(ny_node *n) {
  if (!present(n)) return ny_node_fail(n, NYB_E_SHAPE, "the optional is empty");
  return ny_out_thing(n, 0, n->in_thing[0]);
}
