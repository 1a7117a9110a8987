/* A quantised model as ONNX: the file that was read, with DequantizeLinear of codes and scales where a weight was, and
   what the corrections add to biases. The graph keeps weights as its kernels want them; here they go back through the
   transposes that led there. */
#include <string.h>

#include "onnx_edit.h"
#include "qmodel.h"

static int64_t count(const ny_plain *t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= t->dim[i];
  return n;
}

static void copy_element(ny_fmt f, const uint8_t *from, int64_t i, uint8_t *to, int64_t k) {
  if (ny_fmts[f].bits >= 8) {
    size_t n = ny_fmts[f].bits / 8u;
    memcpy(to + (size_t)k * n, from + (size_t)i * n, n);
    return;
  }
  unsigned x = from[i / 2] >> (i % 2 * 4) & 15; /* four bits are the only others that schemes have */
  to[k / 2] = (uint8_t)(k % 2 ? (to[k / 2] & 15) | x << 4 : x);
}

/* What the transpose by perm made t from. */
static void turn_back(ny_arena *a, ny_plain *t, const ny_dim *perm) {
  ny_plain o = *t;
  int64_t at[NY_MAX_RANK] = {0}, s = 1, n = count(t);
  for (int i = 0; i < t->rank; i++) o.dim[perm[i]] = t->dim[i];
  o.axis = (int)perm[t->axis];
  uint8_t *data = ny_alloc(a, ny_fmt_bytes(t->fmt, (uint64_t)n) + 1);
  /* In the order of the result, so that the halves of a byte are written one after the other. */
  int64_t from_stride[NY_MAX_RANK], of[NY_MAX_RANK];
  for (int i = t->rank - 1; i >= 0; i--) from_stride[i] = s, s *= t->dim[i];
  for (int i = 0; i < t->rank; i++) of[perm[i]] = from_stride[i];
  for (int64_t k = 0; k < n; k++) {
    int64_t i = 0;
    for (int d = 0; d < t->rank; d++) i += at[d] * of[d];
    copy_element(t->fmt, t->data, i, data, k);
    for (int d = t->rank - 1; d >= 0 && ++at[d] == o.dim[d]; d--) at[d] = 0;
  }
  o.data = data;
  *t = o;
}

/* Dims of 1 come and go; the others keep their order. Where each dim of `to` comes from, -1: a new 1. False: it is
 * another reshape. */
static bool ones_only(const ny_type *from, const ny_type *to, int *map) {
  int k = 0;
  for (int i = 0; i < to->rank; i++) {
    map[i] = -1;
    if (to->dim[i] == 1) continue;
    while (k < from->rank && from->dim[k] == 1) k++;
    if (k == from->rank || from->dim[k] != to->dim[i]) return false;
    map[i] = k++;
  }
  while (k < from->rank && from->dim[k] == 1) k++;
  return k == from->rank;
}

static void reshape_back(ny_plain *t, const int *map, int rank) {
  ny_plain o = *t;
  int where = -1;
  o.rank = rank;
  for (int i = 0; i < rank; i++) {
    o.dim[i] = map[i] < 0 ? 1 : t->dim[map[i]];
    if (map[i] == t->axis) where = i;
  }
  if (where >= 0) o.axis = where;
  *t = o;
}

/* Codes and scales back to how the constant stands in the file. NULL: its name; else the reason why not. */
static const char *back(ny_arena *a, const ny_layer *l, ny_plain *codes, ny_plain *scales, const char **name) {
  const ny_value *v = l->w;
  for (; v->def->kind != NY_const; v = ny_in(v->def, 0)) {
    int map[NY_MAX_RANK];
    if (v->def->kind == NY_transpose) {
      const ny_dim *perm = v->def->attr[NY_AT(transpose, perm)].dims.v;
      turn_back(a, codes, perm), turn_back(a, scales, perm);
    } else if (v->def->kind == NY_reshape && ones_only(v->type, ny_in(v->def, 0)->type, map)) {
      int rank = ny_in(v->def, 0)->type->rank;
      reshape_back(codes, map, rank), reshape_back(scales, map, rank);
    } else
      return "it is a part of what the file holds, or computed from it";
  }
  *name = v->name;
  return v->name ? NULL : "it has no name";
}

static ny_edit_tensor edit_tensor(const ny_plain *t) {
  ny_edit_tensor e = {.fmt = t->fmt, .rank = t->rank, .data = t->data};
  memcpy(e.dim, t->dim, sizeof e.dim);
  return e;
}

/* Constants made by nodes become initializers first. */
static bool as_initializer(ny_edit *e, const char *name, const ny_edit_tensor *t) {
  if (ny_edit_find_init(e, name)) return true;
  ny_edit_node *n = ny_edit_producer(e, name);
  if (!n || strcmp(n->op_type, "Constant")) return false;
  ny_edit_drop_node(n);
  ny_edit_set_init(e, NULL, name, t);
  return true;
}

static nyb_status put_weight(ny_edit *e, ny_arena *a, ny_layer *l) {
  const ny_quantized *q = &l->q;
  const char *name = l->name;
  ny_plain codes, scales;
  ny_layer_codes(l, a, &codes), ny_layer_scales(l, a, &scales);
  const char *why = back(a, l, &codes, &scales, &name);
  ny_edit_quant put = {
      .codes = edit_tensor(&codes), .axis = codes.axis, .block = q->scheme->block, .fmt = NY_f32, .rank = -1};
  if (!why && !as_initializer(e, name, &put.codes)) why = "it is no initializer of the model's graph";
  if (why) {
    l->lost = why;
    return NYB_OK;
  }
  if (!q->scheme->block) { /* one scale an output: the dim that is not 1 */
    int64_t n = count(&scales);
    for (int i = 0; i < scales.rank; i++)
      if (scales.dim[i] == n) put.axis = i;
    scales.rank = 1, scales.dim[0] = n;
  }
  put.scale = edit_tensor(&scales);
  if (q->scheme->tensor) put.tensor_scale = (ny_edit_tensor){.fmt = NY_f32, .rank = 0, .data = &q->ts};
  return ny_edit_quantize(e, name, &put);
}

/* ---- corrections */
static ny_edit_node *node_of(ny_edit *e, const ny_layer *l) {
  const ny_loc *loc = l->op->loc;
  uint32_t i = 0;
  for (ny_edit_node *n = e->graph->first; n && loc; n = n->next, i++)
    if (n->n_out && !strcmp(n->op_type, loc->op_type) &&
        (*n->name ? loc->node && !strcmp(n->name, loc->node) : i == loc->index))
      return n;
  return NULL;
}

/* The bias a node has already, when nobody else reads it. */
static bool into_bias(ny_edit *e, ny_arena *a, const char *name, const float *more, int64_t n) {
  ny_edit_init *in = name && *name ? ny_edit_find_init(e, name) : NULL;
  ny_edit_tensor t;
  ny_edit_use *use;
  if (!in || ny_edit_uses(e, name, &use) != 1 || ny_edit_tensor_of(e, in, &t) || t.fmt != NY_f32) return false;
  int64_t have = 1;
  for (int i = 0; i < t.rank; i++) have *= t.dim[i];
  if (have != n || !t.rank || t.dim[t.rank - 1] != n) return false;
  float *sum = NY_NEW_ARRAY(a, float, n);
  memcpy(sum, t.data, (size_t)n * sizeof *sum);
  for (int64_t i = 0; i < n; i++) sum[i] += more[i];
  t.data = sum;
  ny_edit_set_init(e, NULL, name, &t);
  return true;
}

static nyb_status put_bias(ny_edit *e, ny_arena *a, ny_layer *l, ny_edit_node *n) {
  if (!n)
    return ny_fail(
        &e->cx->diag, NYB_E_UNSUPPORTED, l->op->loc,
        "weight %s: its node is not in the model's graph, so no bias can be corrected: choose a recipe without bias",
        l->name);
  bool conv = l->op->kind == NY_conv;
  if ((conv || !strcmp(n->op_type, "Gemm")) && n->n_in > 2 && into_bias(e, a, n->in[2], l->q.bias, l->q.n))
    return NYB_OK;
  float *copy = NY_NEW_ARRAY(a, float, l->q.n);
  memcpy(copy, l->q.bias, (size_t)l->q.n * sizeof *copy);
  ny_edit_tensor t = {.fmt = NY_f32, .rank = 1, .dim = {l->q.n}, .data = copy};
  if (conv) {
    t.rank = l->w->type->rank; /* [1, m, 1, 1] */
    for (int i = 0; i < t.rank; i++) t.dim[i] = i == 1 ? l->q.n : 1;
  }
  ny_edit_use *use;
  uint32_t uses = ny_edit_uses(e, n->out[0], &use);
  if (!conv && uses == 1 && use[0].input >= 0 && !strcmp(use[0].node->op_type, "Add") &&
      into_bias(e, a, use[0].node->in[1 - use[0].input], copy, l->q.n))
    return NYB_OK;
  return ny_edit_insert(e, n->out[0], "Add", ny_strf(a, "%s_correction", l->name), &t);
}

static nyb_status export(ny_edit *e, ny_arena *a, ny_layers *ls, const char *to) {
  ny_edit_node **node = NY_NEW_ARRAY(a, ny_edit_node *, ls->n + 1);
  for (size_t i = 0; i < ls->n; i++) node[i] = node_of(e, &ls->v[i]); /* before positions change */
  for (size_t i = 0; i < ls->n; i++)
    if (ls->v[i].q.r) NY_TRY(put_weight(e, a, &ls->v[i]));
  for (size_t i = 0; i < ls->n; i++)
    if (ls->v[i].q.bias && !ls->v[i].lost) NY_TRY(put_bias(e, a, &ls->v[i], node[i]));
  return ny_edit_write(e, to, 0);
}

nyb_status ny_quantized_export(nyb_model *m, ny_layers *ls, const char *from, const char *to) {
  ny_edit *e;
  ny_arena a = {0};
  ny_ctx *cx = m->ir;
  nyb_status s = ny_edit_open(cx, from, &e);
  if (!s) {
    s = export(e, &a, ls, to);
    ny_edit_close(e);
  }
  ny_arena_free(&a);
  return ny_model_hand_over(m->cx, cx, from, s);
}
