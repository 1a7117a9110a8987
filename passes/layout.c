/* layout: transposes sink through what does not care about the order of dims (elementwise ops, reductions, concat, pad,
   slice, window, softmax) until they meet their inverse or reach something that does care. A convolution stands between
   a transpose to channels last and one back, so a network of them ends up channels last throughout. A reshape likewise
   sinks through elementwise ops with numbers, so that those reach the contraction before it. It terminates because
   every step moves a view towards the results. */
#include <string.h>

#include "family.h"
#include "rewrite.h"

static int perm_at(const ny_op *t, int i) { return (int)t->attr[NY_AT(transpose, perm)].dims.v[i]; }
static bool same_perm(const ny_op *a, const ny_op *b) { return ny_same_attrs(a, b); }
static void inverse_of(const ny_op *t, int *inv) {
  for (int i = 0; i < t->out[0]->type->rank; i++) inv[perm_at(t, i)] = i;
}

/* v, which broadcasts to the rank of t's result, in the order of t's input; dry: only whether that is free. */
static bool reordered(ny_builder *b, const ny_op *t, ny_value *v, bool dry, ny_value **out) {
  int rank = t->out[0]->type->rank, inv[NY_MAX_RANK], last = -1;
  if (v->def && v->def->kind == NY_transpose && v->type->rank == rank && same_perm(v->def, t)) {
    *out = ny_in(v->def, 0);
    return true;
  }
  ny_dim full[NY_MAX_RANK];
  int lead = rank - v->type->rank;
  if (lead < 0) return false;
  if (v->type->rank == 0) return *out = v, true;
  for (int i = 0; i < rank; i++) full[i] = i < lead ? 1 : v->type->dim[i - lead];
  bool still = true;
  inverse_of(t, inv);
  for (int i = 0; i < rank; i++) {
    if (full[inv[i]] == 1) continue;
    still = still && inv[i] > last;
    last = inv[i];
  }
  if (!still && !ny_is_constant(v) && !ny_def(v, NY_dequantize)) return false;
  if (dry) return true;
  v = ny_b_reshape(b, v, rank, full);
  *out = v ? ny_b_transpose(b, v, inv) : NULL;
  return *out != NULL;
}

/* The transpose among the inputs that the others can follow; NULL: none. */
static ny_op *common(ny_builder *b, ny_op *op) {
  ny_op *t = NULL;
  ny_value *v;
  for (int i = 0; i < op->n_in && !t; i++)
    if (ny_in(op, i)->type->rank == op->out[0]->type->rank) t = ny_def(ny_in(op, i), NY_transpose);
  for (int i = 0; t && i < op->n_in; i++)
    if (!reordered(b, t, ny_in(op, i), true, &v)) t = NULL;
  return t;
}

static ny_value *put_back(ny_builder *b, const ny_op *t, ny_value *v) {
  int perm[NY_MAX_RANK];
  for (int i = 0; i < t->out[0]->type->rank; i++) perm[i] = perm_at(t, i);
  return v ? ny_b_transpose(b, v, perm) : NULL;
}

static ny_value *sink_map(ny_builder *b, ny_op *op) {
  ny_op *t = common(b, op);
  ny_value *in[3];
  if (!t) return NULL;
  for (int i = 0; i < op->n_in; i++)
    if (!reordered(b, t, ny_in(op, i), false, &in[i])) return NULL;
  ny_value *v;
  if (op->kind == NY_cast)
    v = ny_b_cast(b, in[0], (ny_fmt)op->out[0]->type->fmt);
  else
    v = ny_b_ew(b, (ny_kind)op->kind, in, op->n_in);
  size_t n = ny_kinds[op->kind].n_attr;
  if (n && v && v->def && v->def->kind == op->kind) memcpy(v->def->attr, op->attr, n * sizeof *op->attr);
  return put_back(b, t, v);
}

static ny_value *sink_concat(ny_builder *b, ny_op *op) {
  ny_op *t = common(b, op);
  int rank = op->out[0]->type->rank;
  if (!t) return NULL;
  ny_value **in = NY_NEW_ARRAY(&b->g->arena, ny_value *, op->n_in);
  for (int i = 0; i < op->n_in; i++)
    if (!reordered(b, t, ny_in(op, i), false, &in[i])) return NULL;
  return put_back(b, t, ny_b_concat(b, in, op->n_in, perm_at(t, ny_axis(op->attr[NY_AT(concat, axis)].i, rank))));
}

/* The same op on the transpose's input, its per-dim lists in that order. */
static ny_value *relisted(ny_builder *b, ny_op *op, const ny_op *t, const int *slot, int n_slot) {
  int rank = t->out[0]->type->rank;
  ny_type type = *op->out[0]->type;
  ny_value *in[2] = {ny_in(t, 0), op->n_in > 1 ? ny_in(op, 1) : NULL};
  for (int i = 0; i < rank; i++) type.dim[perm_at(t, i)] = op->out[0]->type->dim[i];
  const ny_type *want = ny_type_get(b->g->cx, type);
  ny_op *c = ny_build(b, (ny_kind)op->kind, in, op->n_in, &want, 1);
  if (!c) return NULL;
  if (ny_kinds[op->kind].n_attr) memcpy(c->attr, op->attr, sizeof *op->attr * ny_kinds[op->kind].n_attr);
  for (int s = 0; s < n_slot; s++) {
    const ny_attr *a = &op->attr[slot[s]];
    ny_dim v[NY_MAX_RANK];
    if (!a->dims.n) continue;
    for (int i = 0; i < rank; i++) v[perm_at(t, i)] = a->dims.v[i];
    c->attr[slot[s]] = ny_dims_attr(b->g, v, (size_t)rank);
  }
  return ny_infer_op(b->g, c) ? NULL : put_back(b, t, c->out[0]);
}

static ny_value *sink_pad(ny_builder *b, ny_op *op) {
  static const int slot[] = {NY_AT(pad, lo), NY_AT(pad, hi), NY_AT(pad, interior)};
  ny_op *t = ny_def(ny_in(op, 0), NY_transpose);
  return t ? relisted(b, op, t, slot, 3) : NULL;
}
static ny_value *sink_slice(ny_builder *b, ny_op *op) {
  static const int slot[] = {NY_AT(slice, start), NY_AT(slice, step)};
  ny_op *t = ny_def(ny_in(op, 0), NY_transpose);
  return t ? relisted(b, op, t, slot, 2) : NULL;
}
static ny_value *sink_window(ny_builder *b, ny_op *op) {
  static const int slot[] = {NY_AT(window, size), NY_AT(window, stride), NY_AT(window, dilation)};
  ny_op *t = ny_def(ny_in(op, 0), NY_transpose);
  return t ? relisted(b, op, t, slot, 3) : NULL;
}
static ny_value *sink_softmax(ny_builder *b, ny_op *op) {
  ny_op *t = ny_def(ny_in(op, 0), NY_transpose);
  ny_value *v = t ? relisted(b, op, t, NULL, 0) : NULL;
  if (v)
    ny_in(v->def, 0)->def->attr[NY_AT(softmax, axis)].i =
        perm_at(t, ny_axis(op->attr[NY_AT(softmax, axis)].i, t->out[0]->type->rank));
  return v;
}

static ny_value *sink_reduce(ny_builder *b, ny_op *op) {
  ny_op *t = ny_def(ny_in(op, 0), NY_transpose);
  bool gone[NY_MAX_RANK], keep = op->attr[NY_AT(reduce, keep)].i != 0;
  if (!t || !ny_reduced_dims(b->g->cx, op, gone)) return NULL;
  int rank = t->out[0]->type->rank, axes[NY_MAX_RANK], n = 0, at[NY_MAX_RANK], left = 0, perm[NY_MAX_RANK], m = 0;
  bool below[NY_MAX_RANK] = {false};
  for (int i = 0; i < rank; i++)
    if (gone[i]) below[axes[n++] = perm_at(t, i)] = true;
  ny_value *v = ny_b_reduce(b, op->attr[NY_AT(reduce, op)].s, ny_in(t, 0), axes, n, keep);
  if (keep || !v) return put_back(b, t, v);
  for (int i = 0; i < rank; i++)
    if (!below[i]) at[i] = left++;
  for (int i = 0; i < rank; i++)
    if (!gone[i]) perm[m++] = at[perm_at(t, i)];
  return ny_b_transpose(b, v, perm);
}

/* Runs of dims with equal products, y's and the result's: run r is y's dims [from[r], from[r+1]) and the result's
   [to[r], to[r+1]). A 1 of the result joins the run before it, a 1 of y likewise. -1: there are none but the whole. */
static int match_runs(ny_ctx *cx, const ny_type *y, const ny_type *out, int *from, int *to) {
  int n = 0, i = 0, j = 0;
  while (i < y->rank && j < out->rank) {
    from[n] = i, to[n++] = j;
    ny_dim p = y->dim[i++], q = out->dim[j++];
    while (p != q) {
      int64_t lo, hi, unused;
      ny_dim_bounds(cx, ny_dim_sub(cx, p, q), &lo, &unused);
      ny_dim_bounds(cx, ny_dim_sub(cx, q, p), &hi, &unused);
      bool more_from = hi >= 0 || p == 1, more_to = lo >= 0 || q == 1;
      if (more_from && !more_to && i < y->rank)
        p = ny_dim_mul(cx, p, y->dim[i++]);
      else if (more_to && j < out->rank)
        q = ny_dim_mul(cx, q, out->dim[j++]);
      else
        return -1;
    }
    while (i < y->rank && y->dim[i] == 1 && !(j < out->rank && out->dim[j] == 1)) i++;
    while (j < out->rank && out->dim[j] == 1 && !(i < y->rank && y->dim[i] == 1)) j++;
  }
  from[n] = y->rank, to[n] = out->rank;
  return i == y->rank && j == out->rank ? n : -1;
}

/* A reshape that only splits dims, or merges dims that lie side by side below the transpose too, happens below it. */
static ny_value *sink_by_reshape(ny_builder *b, ny_op *op) {
  ny_op *t = ny_def(ny_in(op, 0), NY_transpose);
  const ny_type *out = op->out[0]->type;
  int from[NY_MAX_RANK + 1], to[NY_MAX_RANK + 1], start[NY_MAX_RANK], perm[NY_MAX_RANK], at = 0;
  ny_dim dims[NY_MAX_RANK];
  int runs = t ? match_runs(b->g->cx, t->out[0]->type, out, from, to) : -1;
  if (runs <= 1) return NULL;
  for (int r = 0; r < runs; r++)
    for (int i = from[r] + 1; i < from[r + 1]; i++)
      if (perm_at(t, i) != perm_at(t, i - 1) + 1) return NULL;
  for (int d = 0; d < t->out[0]->type->rank; d++) /* runs in the order below */
    for (int r = 0; r < runs; r++) {
      if (perm_at(t, from[r]) != d) continue;
      start[r] = at;
      for (int j = to[r]; j < to[r + 1]; j++) dims[at++] = out->dim[j];
    }
  for (int r = 0; r < runs; r++)
    for (int j = to[r]; j < to[r + 1]; j++) perm[j] = start[r] + j - to[r];
  ny_value *v = ny_b_reshape(b, ny_in(t, 0), out->rank, dims);
  return v ? ny_b_transpose(b, v, perm) : NULL;
}

static ny_value *sink_broadcast(ny_builder *b, ny_op *op) {
  ny_op *t = ny_def(ny_in(op, 0), NY_transpose);
  const ny_type *out = op->out[0]->type;
  ny_dim dims[NY_MAX_RANK];
  if (!t || t->out[0]->type->rank != out->rank) return NULL;
  for (int i = 0; i < out->rank; i++) dims[perm_at(t, i)] = out->dim[i];
  return put_back(b, t, ny_b_broadcast(b, ny_in(t, 0), out->rank, dims));
}

/* An elementwise op of one reshaped value and numbers is the reshaped op. */
static ny_value *sink_reshape(ny_builder *b, ny_op *op) {
  ny_value *in[3], *x = NULL;
  for (int i = 0; i < op->n_in; i++) {
    ny_op *r = ny_def(ny_in(op, i), NY_reshape);
    bool number = ny_in(op, i)->type->rank == 0 && ny_is_uniform(ny_in(op, i));
    if (!number && (!r || x || !ny_same_shape(r->out[0]->type, op->out[0]->type))) return NULL;
    in[i] = number ? ny_in(op, i) : (x = ny_in(r, 0));
  }
  if (!x || !x->def || ny_is_constant(x) || !ny_one_use(x)) return NULL;
  ny_value *v;
  if (op->kind == NY_cast)
    v = ny_b_cast(b, x, (ny_fmt)op->out[0]->type->fmt);
  else
    v = ny_b_ew(b, (ny_kind)op->kind, in, op->n_in);
  if (!v) return NULL;
  if (v->def->kind == op->kind && ny_kinds[op->kind].n_attr)
    memcpy(v->def->attr, op->attr, sizeof *op->attr * ny_kinds[op->kind].n_attr);
  return ny_b_reshape(b, v, op->out[0]->type->rank, op->out[0]->type->dim);
}

static ny_value *sink(ny_builder *b, ny_op *op) {
  static ny_value *(*const rows[NY_N_KINDS])(ny_builder *, ny_op *) = {
      [NY_cast] = sink_map,      [NY_concat] = sink_concat,      [NY_pad] = sink_pad,
      [NY_slice] = sink_slice,   [NY_window] = sink_window,      [NY_softmax] = sink_softmax,
      [NY_reduce] = sink_reduce, [NY_reshape] = sink_by_reshape, [NY_broadcast] = sink_broadcast,
  };
  if (op->n_out != 1) return NULL;
  ny_value *v = ny_is_map(op) ? sink_map(b, op) : rows[op->kind] ? rows[op->kind](b, op) : NULL;
  return v || !ny_is_ew(op) ? v : sink_reshape(b, op);
}

typedef struct state {
  ny_graph *g;
  bool changed;
} state;

static nyb_status visit(void *user, ny_op *op) {
  state *s = user;
  ny_builder b = ny_before(s->g, op);
  ny_value *v = sink(&b, op);
  if (v && v->type == op->out[0]->type) {
    ny_replace_op(op, v);
    s->changed = true;
  }
  return s->g->cx->diag.code;
}

ny_pass_fn ny_pass_canon;

nyb_status ny_pass_layout(ny_pass_cx *px, ny_graph *g, bool *changed) {
  enum { ROUNDS = 16 };
  for (int i = 0; i < ROUNDS; i++) {
    state s = {g, false};
    NY_TRY(ny_walk(&g->body, visit, &s));
    ny_drop_dead(&g->body);
    if (!s.changed) break;
    NY_TRY(ny_pass_canon(px, g, changed));
    *changed = true;
  }
  return NYB_OK;
}
