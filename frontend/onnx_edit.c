/* Reading a model for editing, and looking around in it. Only names and what holds names is taken apart: nodes, the
   graphs inside them, functions; everything else is kept as ranges of the mapped file. */
#include "onnx_edit.h"

#include <string.h>

enum { MAX_DEPTH = 48, NAME_BYTES = 1 << 16 };

static nyb_status malformed(ny_edit *e, const uint8_t *at, const char *what) {
  return ny_fail(&e->cx->diag, NYB_E_PARSE, NULL, "malformed %s at byte %llu of the model", what,
                 (unsigned long long)(at - e->files.file.p));
}

static nyb_status text(ny_edit *e, const ny_pb *r, ny_name *out) {
  if (r->wire != NY_PB_LEN || r->bytes.n > NAME_BYTES || (r->bytes.n && memchr(r->bytes.p, 0, r->bytes.n)))
    return malformed(e, r->p, "name");
  *out = ny_internn(&e->cx->names, r->bytes.n ? (const char *)r->bytes.p : "", r->bytes.n);
  return NYB_OK;
}

static void note(ny_edit *e, ny_name s) {
  if (s && *s) ny_name_put(&e->names, &e->a, s, 0);
}

static ny_name standard(ny_edit *e, ny_name domain) {
  return strcmp(domain, "ai.onnx") ? domain : ny_intern(&e->cx->names, "");
}

static nyb_status graph(ny_edit *e, ny_bytes b, bool function, int depth, ny_edit_graph **out);

static nyb_status attribute(ny_edit *e, ny_bytes b, int depth, ny_edit_attr *at) {
  uint64_t count[12];
  if (!ny_pb_count_fields(b, count, 12)) return malformed(e, b.p, "attribute");
  *at = (ny_edit_attr){.proto = b, .name = ny_intern(&e->cx->names, "")};
  at->graph = NY_NEW_ARRAY(&e->a, ny_edit_graph *, count[6] + count[11] + 1);
  ny_pb r = ny_pb_over(b);
  while (ny_pb_next(&r)) {
    if (r.field == 1) NY_TRY(text(e, &r, &at->name));
    if (r.field == 20) at->type = (ny_onnx_attr_type)(r.value <= NY_ATTR_TYPE_PROTOS ? r.value : 0);
    if (r.field == 21) NY_TRY(text(e, &r, &at->ref));
    if (r.field != 6 && r.field != 11) continue;
    if (r.wire != NY_PB_LEN || depth >= MAX_DEPTH) return malformed(e, r.p, "nested graph");
    NY_TRY(graph(e, r.bytes, false, depth + 1, &at->graph[at->n_graph++]));
  }
  return NYB_OK;
}

static nyb_status node_field(ny_edit *e, const ny_pb *r, int depth, ny_edit_node *n) {
  switch (r->field) {
  case 1: NY_TRY(text(e, r, &n->in[n->n_in])); return note(e, n->in[n->n_in++]), NYB_OK;
  case 2: NY_TRY(text(e, r, &n->out[n->n_out])); return note(e, n->out[n->n_out++]), NYB_OK;
  case 3: NY_TRY(text(e, r, &n->name)); return note(e, n->name), NYB_OK;
  case 4: return text(e, r, &n->op_type);
  case 5:
    if (r->wire != NY_PB_LEN) return malformed(e, r->p, "attribute");
    return attribute(e, r->bytes, depth, &n->attr[n->n_attr++]);
  case 7: NY_TRY(text(e, r, &n->domain)); return n->domain = standard(e, n->domain), NYB_OK;
  default: return NYB_OK;
  }
}

static nyb_status node(ny_edit *e, ny_bytes b, ny_bytes field, int depth, ny_edit_graph *g) {
  uint64_t count[6];
  ny_edit_node *n = NY_NEW(&e->a, ny_edit_node);
  if (!ny_pb_count_fields(b, count, 6)) return malformed(e, b.p, "node");
  *n = (ny_edit_node){.proto = b, .field = field, .graph = g, .prev = g->last};
  n->name = n->op_type = n->domain = ny_intern(&e->cx->names, "");
  n->in = NY_NEW_ARRAY(&e->a, ny_name, count[1] + 1);
  n->out = NY_NEW_ARRAY(&e->a, ny_name, count[2] + 1);
  n->attr = NY_NEW_ARRAY(&e->a, ny_edit_attr, count[5] + 1);
  ny_pb r = ny_pb_over(b);
  while (ny_pb_next(&r)) NY_TRY(node_field(e, &r, depth, n));
  for (uint32_t i = 0; i < n->n_attr; i++)
    for (uint32_t k = 0; k < n->attr[i].n_graph; k++) n->attr[i].graph[k]->owner = n;
  *(g->last ? &g->last->next : &g->first) = n;
  g->last = n;
  return NYB_OK;
}

static nyb_status value(ny_edit *e, ny_bytes b, ny_onnx_value *v) {
  ny_pb r = ny_pb_over(b);
  v->name = ny_intern(&e->cx->names, "");
  while (ny_pb_next(&r)) {
    if (r.field == 1) NY_TRY(text(e, &r, &v->name));
    if (r.field == 2) v->type = r.bytes;
  }
  note(e, v->name);
  return r.bad ? malformed(e, r.p, "value") : NYB_OK;
}

/* A tensor's name is its field 8; a sparse one is named by its values, field 1. */
static nyb_status initializer(ny_edit *e, ny_bytes b, ny_bytes field, bool sparse, ny_edit_graph *g) {
  ny_edit_init *in = NY_NEW(&e->a, ny_edit_init);
  *in = (ny_edit_init){.proto = b, .field = field, .sparse = sparse, .name = ny_intern(&e->cx->names, "")};
  ny_bytes named = b;
  ny_pb s = ny_pb_over(b);
  while (sparse && ny_pb_next(&s))
    if (s.field == 1) named = s.bytes;
  ny_pb r = ny_pb_over(named);
  while (ny_pb_next(&r))
    if (r.field == 8) NY_TRY(text(e, &r, &in->name));
  if (s.bad || r.bad) return malformed(e, b.p, "initializer");
  note(e, in->name);
  *(g->last_init ? &g->last_init->next : &g->init) = in;
  g->last_init = in;
  return NYB_OK;
}

static nyb_status graph_field(ny_edit *e, const ny_pb *r, ny_bytes field, int depth, ny_edit_graph *g) {
  bool fn = g->is_function, part = r->wire == NY_PB_LEN;
  if (r->field == (fn ? 7u : 1u)) return part ? node(e, r->bytes, field, depth, g) : malformed(e, r->p, "node");
  if (fn && r->field == 4) return text(e, r, &g->in[g->n_in++].name);
  if (fn && r->field == 5) return text(e, r, &g->out[g->n_out++].name);
  if (fn) return NYB_OK;
  bool known = r->field == 2 || r->field == 5 || r->field == 11 || r->field == 12 || r->field == 15;
  if (known && !part) return malformed(e, r->p, "graph");
  if (r->field == 2) return text(e, r, &g->name);
  if (r->field == 11) return value(e, r->bytes, &g->in[g->n_in++]);
  if (r->field == 12) return value(e, r->bytes, &g->out[g->n_out++]);
  if (r->field == 5 || r->field == 15) return initializer(e, r->bytes, field, r->field == 15, g);
  return NYB_OK;
}

static nyb_status graph(ny_edit *e, ny_bytes b, bool function, int depth, ny_edit_graph **out) {
  uint64_t count[13];
  ny_edit_graph *g = *out = NY_NEW(&e->a, ny_edit_graph);
  if (!ny_pb_count_fields(b, count, 13)) return malformed(e, b.n ? b.p : e->files.file.p, "graph");
  *g = (ny_edit_graph){.proto = b, .is_function = function, .name = ny_intern(&e->cx->names, "")};
  g->in = NY_NEW_ARRAY(&e->a, ny_onnx_value, count[function ? 4 : 11] + 1);
  g->out = NY_NEW_ARRAY(&e->a, ny_onnx_value, count[function ? 5 : 12] + 1);
  ny_pb r = ny_pb_over(b);
  for (const uint8_t *start = r.p; ny_pb_next(&r); start = r.p)
    NY_TRY(graph_field(e, &r, (ny_bytes){start, (uint64_t)(r.p - start)}, depth, g));
  return NYB_OK;
}

static nyb_status opset(ny_edit *e, const ny_pb *outer, ny_opset **list, uint32_t *n, uint32_t *cap) {
  ny_opset o = {.domain = ny_intern(&e->cx->names, "")};
  if (outer->wire != NY_PB_LEN) return malformed(e, outer->p, "opset import");
  ny_pb r = ny_pb_over(outer->bytes);
  while (ny_pb_next(&r)) {
    if (r.field == 1) NY_TRY(text(e, &r, &o.domain));
    if (r.field == 2) o.version = (int64_t)r.value;
  }
  o.domain = standard(e, o.domain);
  NY_PUSH_ROOM(&e->a, *list, *n, *cap);
  (*list)[(*n)++] = o;
  return NYB_OK;
}

static nyb_status function(ny_edit *e, const ny_pb *outer) {
  struct ny_edit_function *f = &e->function[e->n_function++];
  if (outer->wire != NY_PB_LEN) return malformed(e, outer->p, "function");
  f->proto = outer->bytes;
  f->name = f->domain = ny_intern(&e->cx->names, "");
  ny_pb r = ny_pb_over(outer->bytes);
  while (ny_pb_next(&r)) {
    if (r.field == 1) NY_TRY(text(e, &r, &f->name));
    if (r.field == 10) NY_TRY(text(e, &r, &f->domain));
    if (r.field == 9) NY_TRY(opset(e, &r, &f->opset, &f->n_opset, &f->cap_opset));
  }
  return graph(e, outer->bytes, true, 0, &f->body);
}

static nyb_status model(ny_edit *e) {
  uint64_t count[26];
  if (!ny_pb_count_fields(e->files.file, count, 26)) return malformed(e, e->files.file.p, "model");
  e->function = NY_NEW_ARRAY(&e->a, struct ny_edit_function, count[25] + 1);
  ny_pb r = ny_pb_over(e->files.file);
  while (ny_pb_next(&r)) {
    if (r.field == 1) e->ir_version = (int64_t)r.value;
    if (r.field == 8) NY_TRY(opset(e, &r, &e->opset, &e->n_opset, &e->cap_opset));
    if (r.field == 25) NY_TRY(function(e, &r));
    if (r.field != 7) continue;
    if (r.wire != NY_PB_LEN || e->graph) return malformed(e, r.p, "graph");
    NY_TRY(graph(e, r.bytes, false, 0, &e->graph));
  }
  return e->graph ? NYB_OK : ny_fail(&e->cx->diag, NYB_E_PARSE, NULL, "the file holds no ONNX graph");
}

/* The unit keeps the map, if there is one, and what external data is mapped. */
static nyb_status open_file(ny_ctx *cx, ny_bytes file, const ny_map *m, const char *path, ny_edit **out) {
  const char *slash = strrchr(path, '/');
  uint32_t names_cap = 0;
  ny_arena a = {0};
  ny_edit *e = NY_NEW(&a, ny_edit);
  e->a = a, e->cx = cx, e->unit = ny_unit_new(cx);
  e->budget = (UINT64_C(256) << 20) + file.n;
  e->files = (ny_onnx_files){.unit = e->unit, .file = file, .budget = &e->budget};
  if (m) {
    ny_unit *u = e->unit;
    u->folder = slash ? (slash == path ? "/" : ny_internn(&cx->names, path, (size_t)(slash - path))) : ".";
    NY_PUSH_ROOM(&u->arena, u->map_names, u->n_maps, names_cap);
    NY_PUSH_ROOM(&u->arena, u->maps, u->n_maps, u->cap_maps);
    u->map_names[0] = e->files.file_name = ny_intern(&cx->names, slash ? slash + 1 : path);
    u->maps[u->n_maps++] = *m;
    e->files.folder = u->folder;
  }
  nyb_status s = model(e);
  if (s)
    ny_edit_close(e);
  else
    *out = e;
  return s;
}

nyb_status ny_edit_open_memory(ny_ctx *cx, const void *data, size_t bytes, const char *name, ny_edit **out) {
  *out = NULL;
  cx->diag.file = name ? ny_intern(&cx->names, name) : NULL;
  return open_file(cx, (ny_bytes){data, bytes}, NULL, name ? name : "", out);
}

nyb_status ny_edit_open(ny_ctx *cx, const char *path, ny_edit **out) {
  ny_map m;
  *out = NULL;
  cx->diag.file = ny_intern(&cx->names, path);
  NY_TRY(ny_map_open(path, &m, &cx->diag));
  return open_file(cx, (ny_bytes){m.data, m.bytes}, &m, path, out);
}

void ny_edit_close(ny_edit *e) {
  if (!e) return;
  ny_unit_free(e->unit);
  ny_arena a = e->a; /* the edit itself lies in it */
  ny_arena_free(&a);
}

/* ---- Looking */
int64_t ny_edit_version(const ny_edit *e, const char *domain) {
  for (uint32_t i = 0; i < e->n_opset; i++)
    if (!strcmp(e->opset[i].domain, domain)) return e->opset[i].version;
  return 0;
}

ny_edit_init *ny_edit_find_init(const ny_edit *e, const char *name) {
  for (ny_edit_init *in = e->graph->init; in; in = in->next)
    if (!in->dropped && !strcmp(in->name, name)) return in;
  return NULL;
}

nyb_status ny_edit_tensor_of(ny_edit *e, const ny_edit_init *in, ny_edit_tensor *out) {
  ny_onnx_tensor t;
  *out = in->tensor;
  if (!in->proto.p) return NYB_OK;
  NY_TRY(in->sparse ? ny_onnx_sparse_read(e->cx, &e->files, in->proto, &t)
                    : ny_onnx_tensor_read(e->cx, &e->files, in->proto, &t));
  *out = (ny_edit_tensor){.fmt = t.fmt, .rank = t.rank, .data = t.data};
  memcpy(out->dim, t.dim, sizeof out->dim);
  return NYB_OK;
}

ny_edit_node *ny_edit_producer(const ny_edit *e, const char *value_name) {
  for (ny_edit_node *n = e->graph->first; n; n = n->next)
    for (uint32_t i = 0; i < n->n_out; i++)
      if (*n->out[i] && !strcmp(n->out[i], value_name)) return n;
  return NULL;
}

bool ny_edit_body_reads(const ny_edit_node *n, const char *name) {
  for (uint32_t i = 0; i < n->n_attr; i++)
    for (uint32_t k = 0; k < n->attr[i].n_graph; k++)
      if (ny_edit_graph_reads(n->attr[i].graph[k], name)) return true;
  return false;
}

/* Names of a body differ from those around it, so reading the name means reading the outer value. */
bool ny_edit_graph_reads(const ny_edit_graph *g, const char *name) {
  for (uint32_t i = 0; i < g->n_out; i++)
    if (!strcmp(g->out[i].name, name)) return true;
  for (const ny_edit_node *n = g->first; n; n = n->next) {
    for (uint32_t i = 0; i < n->n_in; i++)
      if (!strcmp(n->in[i], name)) return true;
    if (ny_edit_body_reads(n, name)) return true;
  }
  return false;
}

uint32_t ny_edit_uses(ny_edit *e, const char *name, ny_edit_use **out) {
  uint32_t n = 0, cap = 0;
  *out = NULL;
  for (ny_edit_node *nd = e->graph->first; nd; nd = nd->next) {
    bool body = ny_edit_body_reads(nd, name);
    for (uint32_t i = 0; i < nd->n_in + body; i++) {
      if (i < nd->n_in && strcmp(nd->in[i], name)) continue;
      NY_PUSH_ROOM(&e->a, *out, n, cap);
      (*out)[n++] = (ny_edit_use){nd, i < nd->n_in ? (int)i : -1};
    }
  }
  return n;
}

bool ny_edit_is_output(const ny_edit *e, const char *name) {
  for (uint32_t i = 0; i < e->graph->n_out; i++)
    if (!strcmp(e->graph->out[i].name, name)) return true;
  return false;
}

/* ---- Attributes */
const ny_edit_attr *ny_edit_find_attr(const ny_edit_node *n, const char *name) {
  for (uint32_t i = 0; i < n->n_attr; i++)
    if (!strcmp(n->attr[i].name, name)) return &n->attr[i];
  return NULL;
}

/* The last occurrence of a field of an attribute of this type. */
static bool field_of(const ny_edit_node *n, const char *name, ny_onnx_attr_type type, uint32_t field, ny_pb *out) {
  const ny_edit_attr *a = ny_edit_find_attr(n, name);
  bool found = false;
  if (!a || a->type != type || a->ref) return false;
  ny_pb r = ny_pb_over(a->proto);
  while (ny_pb_next(&r))
    if (r.field == field) *out = r, found = true;
  return found;
}

int64_t ny_edit_attr_int(const ny_edit_node *n, const char *name, int64_t def) {
  ny_pb r;
  return field_of(n, name, NY_ATTR_INT, 3, &r) ? (int64_t)r.value : def;
}
double ny_edit_attr_float(const ny_edit_node *n, const char *name, double def) {
  ny_pb r;
  return field_of(n, name, NY_ATTR_FLOAT, 2, &r) ? (double)ny_pb_f32(r.value) : def;
}
const char *ny_edit_attr_string(ny_edit *e, const ny_edit_node *n, const char *name, const char *def) {
  ny_pb r;
  if (!field_of(n, name, NY_ATTR_STRING, 4, &r)) return def;
  return ny_internn(&e->cx->names, r.bytes.n ? (const char *)r.bytes.p : "", r.bytes.n);
}

int ny_edit_attr_ints(const ny_edit_node *n, const char *name, int64_t *out, int cap) {
  const ny_edit_attr *a = ny_edit_find_attr(n, name);
  int k = 0;
  if (!a || a->type != NY_ATTR_INTS || a->ref) return -1;
  ny_pb r = ny_pb_over(a->proto);
  while (ny_pb_next(&r)) {
    if (r.field != 8) continue;
    if (r.wire != NY_PB_LEN) { /* one number */
      if (k < cap) out[k] = (int64_t)r.value;
      k++;
      continue;
    }
    ny_pb list = ny_pb_over(r.bytes);
    uint64_t v;
    for (; list.p < list.end && ny_pb_varint(&list.p, list.end, &v); k++)
      if (k < cap) out[k] = (int64_t)v;
  }
  return k;
}
