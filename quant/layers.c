/* The weights of a graph that can be quantised: constant operands of products, convolutions and gathers, also those in
   bodies (the weights of LSTM and GRU). What is not taken says why. */
#include <string.h>

#include "qmodel.h"

static bool static_dims(const ny_value *v, int64_t *d) {
  for (int i = 0; i < v->type->rank; i++)
    if ((d[i] = v->type->dim[i]) < 0) return false;
  return true;
}

/* ---- what does not depend on inputs */
static void mark(ny_layers *ls, ny_block *b) {
  for (ny_op *op = b->first; op; op = op->next) {
    bool all = ny_is_pure(op) && !op->n_body && op->n_out;
    for (int i = 0; i < op->n_in; i++) all = all && ls->constant[ny_in(op, i)->id];
    for (int i = 0; i < op->n_out; i++) ls->constant[op->out[i]->id] = all;
    for (int i = 0; i < op->n_body; i++) mark(ls, op->body[i]);
  }
}

static bool holds_dequantize(const ny_value *v, int depth) {
  if (!v->def || depth > 32) return false;
  if (v->def->kind == NY_dequantize) return true;
  for (int i = 0; i < v->def->n_in; i++)
    if (holds_dequantize(ny_in(v->def, i), depth + 1)) return true;
  return false;
}

/* The name people know it by: the initializer's. */
static const char *name_of(const ny_layers *ls, const ny_layer *l) {
  const ny_value *v = l->w;
  for (int depth = 0; v->def && depth < 32; depth++) {
    if (v->def->kind == NY_const && v->name) return v->name;
    if (v->def->n_in != 1) break;
    v = ny_in(v->def, 0);
  }
  const ny_loc *loc = l->op->loc;
  if (loc && loc->node && *loc->node) return loc->node;
  return ny_strf(ls->a, "%s at %u", ny_kinds[l->op->kind].name, ls->place[l->at->id]);
}

/* ---- shapes: outputs, inputs, strides */
static const char *shape_matmul(ny_layer *l, const int64_t *d) {
  ny_weight *w = &l->weight;
  if (l->w->type->rank != 2) return "a stack of matrices";
  if (l->op->attr[NY_AT(matmul, packed)].i) return "packed already";
  w->k = w->run = d[0], w->n = d[1], w->k_stride = d[1], w->n_stride = 1;
  l->x = ny_in(l->op, 0);
  return NULL;
}

static const char *shape_conv(ny_layer *l, const int64_t *d) {
  ny_weight *w = &l->weight;
  int r = l->w->type->rank;
  if (l->op->attr[NY_AT(conv, packed)].i) return "packed already";
  if (l->op->attr[NY_AT(conv, group)].i != 1) return "a grouped convolution";
  w->k = 1;
  for (int i = 0; i + 1 < r; i++) w->k *= d[i];
  w->run = d[r - 2], w->n = d[r - 1], w->k_stride = d[r - 1], w->n_stride = 1;
  l->x = ny_in(l->op, 0);
  return NULL;
}

static const char *shape_gather(ny_layer *l, const int64_t *d) {
  ny_weight *w = &l->weight;
  if (l->w->type->rank != 2 || l->op->attr[NY_AT(gather, axis)].i) return "no table of rows";
  w->n = d[0], w->k = w->run = d[1], w->k_stride = 1, w->n_stride = d[1];
  l->uncalibrated = "a table";
  return NULL;
}

static const struct {
  ny_kind kind;
  int operand;
  const char *(*shape)(ny_layer *l, const int64_t *d);
} weighted[] = {{NY_matmul, 1, shape_matmul}, {NY_conv, 1, shape_conv}, {NY_gather, 0, shape_gather}};

/* The same views of the same constant, written twice: tied weights, one of each in every product. */
static bool same_views(const ny_value *a, const ny_value *b, int depth) {
  if (a == b) return true;
  if (depth > 32 || !a->def || !b->def || a->type != b->type || a->def->n_in != 1 || b->def->n_in != 1) return false;
  if (a->def->kind != b->def->kind || !ny_same_attrs(a->def, b->def)) return false;
  return same_views(ny_in(a->def, 0), ny_in(b->def, 0), depth + 1);
}

static void add(ny_layers *ls, ny_op *op, ny_op *at, ny_value *w, size_t how) {
  int64_t d[NY_MAX_RANK];
  for (size_t i = 0; i < ls->n; i++) {
    if (!same_views(ls->v[i].w, w, 0)) continue;
    if (ls->v[i].w->def->parent == &ls->g->body) ny_set_in(op, weighted[how].operand, ls->v[i].w);
    return; /* the first user decides */
  }
  ny_layer l = {.op = op, .at = at, .w = w};
  if (!static_dims(w, d))
    l.skip = "its size is symbolic";
  else if (w->type->fmt != NY_f32 || holds_dequantize(w, 0))
    l.skip = holds_dequantize(w, 0) ? "quantised already" : "not f32";
  else
    l.skip = weighted[how].shape(&l, d);
  if (!l.skip && (l.weight.k < 1 || l.weight.n < 1)) l.skip = "empty";
  if (op != at) l.uncalibrated = "in the body of an if or a loop";
  l.name = l.weight.name = name_of(ls, &l);
  NY_PUSH_ROOM(ls->a, ls->v, ls->n, ls->cap);
  ls->v[ls->n++] = l;
}

static void find(ny_layers *ls, ny_block *b, ny_op *at) {
  for (ny_op *op = b->first; op; op = op->next) {
    ny_op *top = at ? at : op;
    for (size_t i = 0; i < NY_COUNT(weighted); i++) {
      if (op->kind != weighted[i].kind) continue;
      ny_value *w = ny_in(op, weighted[i].operand);
      bool table = op->kind == NY_gather && w->type->fmt != NY_f32;
      if (ls->constant[w->id] && !table) add(ls, op, top, w, i);
    }
    for (int i = 0; i < op->n_body; i++) find(ls, op->body[i], top);
  }
}

nyb_status ny_layers_find(ny_graph *g, ny_arena *a, ny_layers *out) {
  *out = (ny_layers){.g = g, .a = a};
  out->constant = NY_NEW_ARRAY(a, bool, g->next_value + 1);
  out->place = NY_NEW_ARRAY(a, uint32_t, g->next_op + 1);
  out->op = NY_NEW_ARRAY(a, ny_op *, g->next_op + 1);
  for (ny_op *op = g->body.first; op; op = op->next) {
    out->place[op->id] = out->n_op;
    out->op[out->n_op++] = op;
  }
  mark(out, &g->body);
  find(out, &g->body, NULL);
  return NYB_OK;
}

uint32_t ny_layers_place(const ny_layers *ls, const ny_op *op) {
  while (op->parent != &ls->g->body) op = op->parent->parent;
  return ls->place[op->id];
}

/* ---- numbers */
static nyb_status compute(ny_layers *ls, ny_value *v, ny_arena *a, int depth, ny_tensor *out) {
  ny_tensor in[4];
  ny_op *op = v->def;
  if (depth > 32 || op->n_in > (int)NY_COUNT(in) || op->n_out != 1)
    return ny_fail(&ls->g->cx->diag, NYB_E_UNSUPPORTED, op->loc, "a weight takes too many steps to compute");
  for (int i = 0; i < op->n_in; i++) NY_TRY(compute(ls, ny_in(op, i), a, depth + 1, &in[i]));
  const ny_blob *blob = op->kind == NY_const ? op->attr[NY_AT(const, data)].blob : NULL;
  if (blob && (uintptr_t)blob->data % 8 == 0) {
    *out = (ny_tensor){v->type, (void *)(uintptr_t)blob->data};
    return NYB_OK;
  }
  return ny_eval_op(ls->g, op, in, a, out);
}

nyb_status ny_layer_compute(ny_layers *ls, ny_value *v, ny_arena *a, ny_tensor *out) { return compute(ls, v, a, 0, out); }

nyb_status ny_layer_load(ny_layers *ls, ny_layer *l, ny_arena *a) {
  ny_tensor t;
  if (l->weight.w) return NYB_OK;
  NY_TRY(compute(ls, l->w, a, 0, &t));
  l->weight.w = t.data;
  return NYB_OK;
}
