/* Changing a model that was read for editing: nodes, attributes, initializers, values put between others. */
#include "onnx_edit.h"

#include <string.h>

static ny_name intern(ny_edit *e, const char *s) { return ny_intern(&e->cx->names, s); }

ny_name ny_edit_fresh(ny_edit *e, const char *stem) {
  ny_name s = intern(e, stem);
  for (int i = 1; !*s || ny_name_find(&e->names, s); i++) s = intern(e, ny_strf(&e->a, "%s_%d", stem, i));
  ny_name_put(&e->names, &e->a, s, 0);
  return s;
}

static void link_before(ny_edit_graph *g, ny_edit_node *n, ny_edit_node *before) {
  n->next = before;
  n->prev = before ? before->prev : g->last;
  *(n->prev ? &n->prev->next : &g->first) = n;
  *(before ? &before->prev : &g->last) = n;
}

static ny_name *names_of(ny_edit *e, const char *const *list, uint32_t n) {
  ny_name *out = NY_NEW_ARRAY(&e->a, ny_name, n + 1);
  for (uint32_t i = 0; i < n; i++) {
    out[i] = intern(e, list[i]);
    if (*out[i]) ny_name_put(&e->names, &e->a, out[i], 0);
  }
  return out;
}

ny_edit_node *ny_edit_add_node(ny_edit *e, ny_edit_graph *g, ny_edit_node *before, const char *domain, const char *op,
                               const char *name, const char *const *in, uint32_t n_in, const char *const *out,
                               uint32_t n_out) {
  ny_edit_node *n = NY_NEW(&e->a, ny_edit_node);
  *n = (ny_edit_node){.name = ny_edit_fresh(e, name),
                      .op_type = intern(e, op),
                      .domain = intern(e, domain),
                      .in = names_of(e, in, n_in),
                      .out = names_of(e, out, n_out),
                      .n_in = n_in,
                      .n_out = n_out,
                      .changed = true,
                      .graph = g};
  link_before(g, n, before);
  return n;
}

void ny_edit_drop_node(ny_edit_node *n) {
  *(n->prev ? &n->prev->next : &n->graph->first) = n->next;
  *(n->next ? &n->next->prev : &n->graph->last) = n->prev;
  n->prev = n->next = NULL;
}

void ny_edit_set_in(ny_edit *e, ny_edit_node *n, uint32_t i, const char *name) {
  if (i >= n->n_in) {
    ny_name *grown = NY_NEW_ARRAY(&e->a, ny_name, i + 2);
    for (uint32_t k = 0; k <= i; k++) grown[k] = k < n->n_in ? n->in[k] : intern(e, "");
    n->in = grown, n->n_in = i + 1;
  }
  n->in[i] = intern(e, name);
  n->changed = true;
}

/* ---- Attributes: AttributeProto { name 1, f 2, i 3, s 4, t 5, floats 7, ints 8, type 20 } */
void ny_edit_drop_attr(ny_edit_node *n, const char *name) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < n->n_attr; i++)
    if (strcmp(n->attr[i].name, name)) n->attr[kept++] = n->attr[i];
  n->changed |= kept != n->n_attr;
  n->n_attr = kept;
}

static ny_pb_out open_attr(ny_edit *e, const char *name) {
  ny_pb_out o = {.a = &e->a};
  ny_pb_put_text(&o, 1, name);
  return o;
}

static void set_attr(ny_edit *e, ny_edit_node *n, const char *name, ny_onnx_attr_type type, ny_pb_out *o) {
  ny_pb_put_int(o, 20, type);
  ny_edit_drop_attr(n, name);
  ny_edit_attr *grown = NY_NEW_ARRAY(&e->a, ny_edit_attr, n->n_attr + 2);
  if (n->n_attr) memcpy(grown, n->attr, n->n_attr * sizeof *grown);
  grown[n->n_attr++] = (ny_edit_attr){.name = intern(e, name), .type = type, .proto = ny_pb_joined(o)};
  n->attr = grown;
  n->changed = true;
}

void ny_edit_set_int(ny_edit *e, ny_edit_node *n, const char *name, int64_t v) {
  ny_pb_out o = open_attr(e, name);
  ny_pb_put_int(&o, 3, v);
  set_attr(e, n, name, NY_ATTR_INT, &o);
}
void ny_edit_set_ints(ny_edit *e, ny_edit_node *n, const char *name, const int64_t *v, uint32_t count) {
  ny_pb_out o = open_attr(e, name);
  for (uint32_t i = 0; i < count; i++) ny_pb_put_int(&o, 8, v[i]);
  set_attr(e, n, name, NY_ATTR_INTS, &o);
}
void ny_edit_set_float(ny_edit *e, ny_edit_node *n, const char *name, double v) {
  ny_pb_out o = open_attr(e, name);
  ny_pb_put_f32(&o, 2, (float)v);
  set_attr(e, n, name, NY_ATTR_FLOAT, &o);
}
void ny_edit_set_string(ny_edit *e, ny_edit_node *n, const char *name, const char *v) {
  ny_pb_out o = open_attr(e, name);
  ny_pb_put_text(&o, 4, v);
  set_attr(e, n, name, NY_ATTR_STRING, &o);
}
void ny_edit_set_tensor(ny_edit *e, ny_edit_node *n, const char *name, const ny_edit_tensor *t) {
  ny_pb_out o = open_attr(e, name), tensor = {.a = &e->a};
  uint64_t count = 1;
  for (int i = 0; i < t->rank; i++) {
    ny_pb_put_int(&tensor, 1, t->dim[i]);
    count *= (uint64_t)t->dim[i];
  }
  ny_pb_put_int(&tensor, 2, ny_fmts[t->fmt].onnx);
  ny_pb_put_bytes(&tensor, 9, (ny_bytes){t->data, ny_fmt_bytes(t->fmt, count)});
  ny_pb_put_msg(&o, 5, &tensor);
  set_attr(e, n, name, NY_ATTR_TENSOR, &o);
}

/* ---- Initializers */
static ny_edit_init *init_of(ny_edit_graph *g, const char *name) {
  for (ny_edit_init *in = g->init; in; in = in->next)
    if (!in->dropped && !strcmp(in->name, name)) return in;
  return NULL;
}

void ny_edit_set_init(ny_edit *e, ny_edit_graph *g, const char *name, const ny_edit_tensor *t) {
  if (!g) g = e->graph;
  ny_edit_init *in = init_of(g, name);
  if (!in) {
    in = NY_NEW(&e->a, ny_edit_init);
    in->name = intern(e, name);
    ny_name_put(&e->names, &e->a, in->name, 0);
    *(g->last_init ? &g->last_init->next : &g->init) = in;
    g->last_init = in;
  }
  in->proto = in->field = (ny_bytes){NULL, 0};
  in->sparse = false;
  in->tensor = *t;
}

ny_name ny_edit_add_ints(ny_edit *e, ny_edit_graph *g, const char *stem, int rank, const int64_t *v, int64_t count) {
  ny_edit_tensor t = {.fmt = NY_i64, .rank = rank, .dim = {count}};
  int64_t *copy = NY_NEW_ARRAY(&e->a, int64_t, count + 1);
  if (count) memcpy(copy, v, (size_t)count * sizeof *v);
  t.data = copy;
  ny_name name = ny_edit_fresh(e, stem);
  ny_edit_set_init(e, g, name, &t);
  return name;
}

void ny_edit_drop_init(ny_edit *e, ny_edit_graph *g, const char *name) {
  if (!g) g = e->graph;
  ny_edit_init *in = init_of(g, name);
  if (!in) return;
  in->dropped = true;
  for (uint32_t i = 0; i < g->n_in; i++) {
    if (strcmp(g->in[i].name, name)) continue;
    NY_PUSH_ROOM(&e->a, g->dropped_in, g->n_dropped_in, g->cap_dropped_in);
    g->dropped_in[g->n_dropped_in++] = g->in[i].name;
  }
}

void ny_edit_drop_unread(ny_edit *e, const char *name) {
  ny_edit_use *use;
  if (!ny_edit_is_output(e, name) && !ny_edit_uses(e, name, &use)) ny_edit_drop_init(e, NULL, name);
}

void ny_edit_import_domain(ny_edit *e, const char *domain, int64_t version) {
  if (ny_edit_version(e, domain)) return;
  NY_PUSH_ROOM(&e->a, e->opset, e->n_opset, e->cap_opset);
  e->opset[e->n_opset++] = (ny_opset){intern(e, domain), version};
  e->new_opset = true;
}

/* ---- Between values */
static nyb_status refuse(ny_edit *e, const char *value, const char *why) {
  return ny_fail(&e->cx->diag, NYB_E_UNSUPPORTED, NULL, "value \"%s\" %s", value, why);
}

static ny_name add_operand(ny_edit *e, const char *stem, const ny_edit_tensor *t) {
  ny_name name = ny_edit_fresh(e, stem);
  ny_edit_set_init(e, NULL, name, t);
  return name;
}

/* Its readers read `with` instead. */
static nyb_status redirect(ny_edit *e, const char *value, const char *with) {
  ny_edit_use *use;
  uint32_t n = ny_edit_uses(e, value, &use);
  for (uint32_t i = 0; i < n; i++)
    if (use[i].input < 0) return refuse(e, value, "is an input of the model that a body of If, Loop or Scan reads");
  for (uint32_t i = 0; i < n; i++) ny_edit_set_in(e, use[i].node, (uint32_t)use[i].input, with);
  return NYB_OK;
}

nyb_status ny_edit_insert(ny_edit *e, const char *value, const char *op, const char *stem, const ny_edit_tensor *t) {
  ny_edit_node *from = ny_edit_producer(e, value);
  const char *in[2], *out[1];
  if (!from) {
    bool is_input = ny_edit_find_init(e, value) != NULL;
    for (uint32_t i = 0; i < e->graph->n_in; i++) is_input |= !strcmp(e->graph->in[i].name, value);
    if (!is_input) return refuse(e, value, "is not in the main graph");
    if (ny_edit_is_output(e, value)) return refuse(e, value, "is an input and an output of the model");
    out[0] = ny_edit_fresh(e, stem);
    NY_TRY(redirect(e, value, out[0]));
    in[0] = value;
  } else {
    ny_name raw = ny_edit_fresh(e, ny_strf(&e->a, "%s_before_%s", value, stem));
    for (uint32_t i = 0; i < from->n_out; i++)
      if (!strcmp(from->out[i], value)) from->out[i] = raw;
    from->changed = true;
    in[0] = raw, out[0] = value;
  }
  in[1] = add_operand(e, stem, t);
  ny_edit_add_node(e, e->graph, from ? from->next : e->graph->first, "", op, stem, in, 2, out, 1);
  return NYB_OK;
}

nyb_status ny_edit_insert_at(ny_edit *e, ny_edit_node *reader, int input, const char *op, const char *stem,
                             const ny_edit_tensor *t) {
  if (input < 0 || (uint32_t)input >= reader->n_in || !*reader->in[input])
    return ny_fail(&e->cx->diag, NYB_E_ARGUMENT, NULL, "node \"%s\" has no input %d", reader->name, input);
  const char *in[2] = {reader->in[input], add_operand(e, stem, t)},
             *out[1] = {ny_edit_fresh(e, ny_strf(&e->a, "%s_out", stem))};
  ny_edit_add_node(e, reader->graph, reader, "", op, stem, in, 2, out, 1);
  ny_edit_set_in(e, reader, (uint32_t)input, out[0]);
  return NYB_OK;
}
