/* ModelProto bytes -> the structs of onnx_model.h. Lists are counted before they are allocated, nesting is bounded, and
   all memory comes out of a budget that is a multiple of the file's size, so no file can make the reader take more than
   it brings. */
#include "onnx_model.h"
#include <string.h>

enum { MAX_DEPTH = 48, NAME_MAX_BYTES = 1 << 16 };
typedef struct reader {
  ny_ctx *cx;
  ny_arena *a;
  const uint8_t *base;
  uint64_t budget;
  int depth;
} reader;

static nyb_status malformed(reader *rd, const uint8_t *at, const char *what) {
  return ny_fail(&rd->cx->diag, NYB_E_PARSE, NULL, "malformed %s at byte %llu of the model", what,
                 (unsigned long long)(at - rd->base));
}

static void *take(reader *rd, uint64_t n, size_t size) {
  static const char empty[64];
  if (n == 0) return (void *)(uintptr_t)empty;
  if (n > rd->budget / size) {
    ny_fail(&rd->cx->diag, NYB_E_LIMIT, NULL, "the model's structure needs more memory than its size justifies");
    return NULL;
  }
  rd->budget -= n * size;
  return ny_alloc(rd->a, (size_t)n * size);
}

static nyb_status text(reader *rd, const ny_pb *r, ny_name *out) {
  if (r->wire != NY_PB_LEN || r->bytes.n > NAME_MAX_BYTES || (r->bytes.n && memchr(r->bytes.p, 0, r->bytes.n)))
    return malformed(rd, r->p, "name");
  *out = ny_internn(&rd->cx->names, (const char *)r->bytes.p, r->bytes.n);
  return NYB_OK;
}

/* A repeated number appended to list[*n...]; the list has room for all of them. */
static nyb_status numbers(reader *rd, const ny_pb *r, ny_pb_wire element, int64_t *ints, double *floats, uint32_t *n) {
  if (r->wire != NY_PB_LEN) {
    if (r->wire != element) return malformed(rd, r->p, "number list");
    if (ints)
      ints[(*n)++] = (int64_t)r->value;
    else
      floats[(*n)++] = (double)ny_pb_f32(r->value);
    return NYB_OK;
  }
  const uint8_t *p = r->bytes.p, *end = p + r->bytes.n;
  while (p < end) {
    uint64_t v = 0;
    if (element == NY_PB_VARINT) {
      if (!ny_pb_varint(&p, end, &v)) return malformed(rd, p, "integer list");
      ints[(*n)++] = (int64_t)v;
    } else {
      if (end - p < 4) return malformed(rd, p, "float list");
      for (int i = 3; i >= 0; i--) v = v << 8 | p[i];
      p += 4;
      floats[(*n)++] = (double)ny_pb_f32(v);
    }
  }
  return NYB_OK;
}

static nyb_status graph(reader *rd, ny_bytes b, ny_onnx_graph *g);

static nyb_status list_room(reader *rd, ny_bytes b, ny_onnx_attr *at) {
  uint64_t n_float = 0, n_int = 0, n_str = 0;
  ny_pb r = ny_pb_over(b);
  while (ny_pb_next(&r)) {
    if (r.field == 7) n_float += ny_pb_count_numbers(&r, NY_PB_32);
    if (r.field == 8) n_int += ny_pb_count_numbers(&r, NY_PB_VARINT);
    if (r.field == 9) n_str++;
  }
  if (r.bad) return malformed(rd, r.p, "attribute");
  if (n_float + n_int + n_str > UINT32_MAX) return malformed(rd, r.p, "attribute list");
  at->floats = take(rd, n_float, sizeof *at->floats);
  at->ints = take(rd, n_int, sizeof *at->ints);
  at->strings = take(rd, n_str, sizeof *at->strings);
  return at->floats && at->ints && at->strings ? NYB_OK : rd->cx->diag.code;
}

static nyb_status copy_string(reader *rd, const ny_pb *r, const char **out) {
  if (r->wire != NY_PB_LEN) return malformed(rd, r->p, "string");
  char *s = take(rd, r->bytes.n + 1, 1);
  if (!s) return rd->cx->diag.code;
  if (r->bytes.n) memcpy(s, r->bytes.p, r->bytes.n);
  *out = s;
  return NYB_OK;
}

static nyb_status subgraph(reader *rd, const ny_pb *r, ny_onnx_attr *at) {
  if (r->wire != NY_PB_LEN) return malformed(rd, r->p, "subgraph");
  if (rd->depth >= MAX_DEPTH)
    return ny_fail(&rd->cx->diag, NYB_E_LIMIT, NULL, "graphs are nested more than %d deep", (int)MAX_DEPTH);
  if (!(at->g = take(rd, 1, sizeof *at->g))) return rd->cx->diag.code;
  rd->depth++;
  nyb_status s = graph(rd, r->bytes, at->g);
  rd->depth--;
  return s;
}

typedef struct attr_lists {
  uint32_t n_float, n_int, n_str;
} attr_lists;

static nyb_status attr_field(reader *rd, const ny_pb *r, ny_onnx_attr *at, attr_lists *l) {
  switch (r->field) {
  case 1: return text(rd, r, &at->name);
  case 2:
    if (r->wire != NY_PB_32) return malformed(rd, r->p, "attribute");
    at->f = (double)ny_pb_f32(r->value);
    return NYB_OK;
  case 3:
    if (r->wire != NY_PB_VARINT) return malformed(rd, r->p, "attribute");
    at->i = (int64_t)r->value;
    return NYB_OK;
  case 4: at->bytes = r->bytes; return copy_string(rd, r, &at->s);
  case 5:
  case 14:
  case 22:
    if (r->wire != NY_PB_LEN) return malformed(rd, r->p, "attribute");
    at->bytes = r->bytes;
    return NYB_OK;
  case 6: return subgraph(rd, r, at);
  case 7: return numbers(rd, r, NY_PB_32, NULL, at->floats, &l->n_float);
  case 8: return numbers(rd, r, NY_PB_VARINT, at->ints, NULL, &l->n_int);
  case 9: return copy_string(rd, r, &at->strings[l->n_str++]);
  case 20: at->type = (ny_onnx_attr_type)(r->value <= NY_ATTR_TYPE_PROTOS ? r->value : 0); return NYB_OK;
  case 21: return text(rd, r, &at->ref);
  default: return NYB_OK;
  }
}

static nyb_status attribute(reader *rd, ny_bytes b, ny_onnx_attr *at) {
  attr_lists l = {0};
  NY_TRY(list_room(rd, b, at));
  ny_pb r = ny_pb_over(b);
  while (ny_pb_next(&r)) NY_TRY(attr_field(rd, &r, at, &l));
  if (!at->name) return malformed(rd, b.p, "attribute without a name");
  if (at->ref && !*at->ref) at->ref = NULL;
  if (!at->s) at->s = "";
  at->n = at->type == NY_ATTR_FLOATS ? l.n_float : at->type == NY_ATTR_INTS ? l.n_int : l.n_str;
  if (at->type == NY_ATTR_GRAPH && !at->g && !at->ref) return malformed(rd, b.p, "graph attribute");
  return NYB_OK;
}

static nyb_status node_field(reader *rd, const ny_pb *r, ny_onnx_node *nd) {
  switch (r->field) {
  case 1: {
    ny_name *slot = &nd->in[nd->n_in++];
    NY_TRY(text(rd, r, slot));
    if (!**slot) *slot = NULL;
    return NYB_OK;
  }
  case 2: {
    ny_name *slot = &nd->out[nd->n_out++];
    NY_TRY(text(rd, r, slot));
    if (!**slot) *slot = NULL;
    return NYB_OK;
  }
  case 3: return text(rd, r, &nd->name);
  case 4: return text(rd, r, &nd->op_type);
  case 5:
    if (r->wire != NY_PB_LEN) return malformed(rd, r->p, "attribute");
    return attribute(rd, r->bytes, &nd->attr[nd->n_attr++]);
  case 7: return text(rd, r, &nd->domain);
  case 8: return text(rd, r, &nd->overload);
  default: return NYB_OK;
  }
}

static nyb_status node(reader *rd, ny_bytes b, ny_onnx_node *nd, uint32_t index) {
  uint64_t count[6];
  if (!ny_pb_count_fields(b, count, 6)) return malformed(rd, b.p, "node");
  nd->in = take(rd, count[1], sizeof *nd->in);
  nd->out = take(rd, count[2], sizeof *nd->out);
  nd->attr = take(rd, count[5], sizeof *nd->attr);
  if (!nd->in || !nd->out || !nd->attr) return rd->cx->diag.code;
  nd->index = index;
  nd->offset = b.n ? (uint64_t)(b.p - rd->base) : 0;
  nd->name = nd->op_type = nd->domain = nd->overload = ny_intern(&rd->cx->names, "");
  ny_pb r = ny_pb_over(b);
  while (ny_pb_next(&r)) NY_TRY(node_field(rd, &r, nd));
  if (!strcmp(nd->domain, "ai.onnx")) nd->domain = ny_intern(&rd->cx->names, "");
  if (!*nd->op_type) return malformed(rd, b.p, "node without an operator");
  return NYB_OK;
}

static nyb_status value_info(reader *rd, const ny_pb *outer, ny_onnx_value *v) {
  if (outer->wire != NY_PB_LEN) return malformed(rd, outer->p, "value");
  ny_pb r = ny_pb_over(outer->bytes);
  while (ny_pb_next(&r)) {
    if (r.field == 1) NY_TRY(text(rd, &r, &v->name));
    if (r.field == 2) v->type = r.bytes;
  }
  if (r.bad) return malformed(rd, r.p, "value");
  if (!v->name || !*v->name) return malformed(rd, outer->p, "value without a name");
  return NYB_OK;
}

/* Only the name is looked at: TensorProto.name is field 8; a SparseTensorProto is named by its values, field 1. */
static nyb_status initializer(reader *rd, const ny_pb *outer, bool sparse, ny_onnx_init *out) {
  if (outer->wire != NY_PB_LEN) return malformed(rd, outer->p, "initializer");
  out->proto = outer->bytes;
  out->sparse = sparse;
  ny_bytes named = outer->bytes;
  if (sparse) {
    ny_pb s = ny_pb_over(outer->bytes);
    named = (ny_bytes){NULL, 0};
    while (ny_pb_next(&s))
      if (s.field == 1) named = s.bytes;
    if (s.bad) return malformed(rd, s.p, "sparse initializer");
  }
  ny_pb r = ny_pb_over(named);
  while (ny_pb_next(&r))
    if (r.field == 8) NY_TRY(text(rd, &r, &out->name));
  if (r.bad) return malformed(rd, r.p, "initializer");
  if (!out->name || !*out->name) return malformed(rd, outer->p, "initializer without a name");
  return NYB_OK;
}

static nyb_status graph_field(reader *rd, const ny_pb *r, ny_onnx_graph *g) {
  switch (r->field) {
  case 1:
    if (r->wire != NY_PB_LEN) return malformed(rd, r->p, "node");
    NY_TRY(node(rd, r->bytes, &g->node[g->n_node], g->n_node));
    g->n_node++;
    return NYB_OK;
  case 2: return text(rd, r, &g->name);
  case 5: return initializer(rd, r, false, &g->init[g->n_init++]);
  case 15: return initializer(rd, r, true, &g->init[g->n_init++]);
  case 11: return value_info(rd, r, &g->in[g->n_in++]);
  case 12: return value_info(rd, r, &g->out[g->n_out++]);
  default: return NYB_OK;
  }
}

static nyb_status graph(reader *rd, ny_bytes b, ny_onnx_graph *g) {
  uint64_t count[16];
  if (!ny_pb_count_fields(b, count, 16)) return malformed(rd, b.p ? b.p : rd->base, "graph");
  g->node = take(rd, count[1], sizeof *g->node);
  g->init = take(rd, count[5] + count[15], sizeof *g->init);
  g->in = take(rd, count[11], sizeof *g->in);
  g->out = take(rd, count[12], sizeof *g->out);
  if (!g->node || !g->init || !g->in || !g->out) return rd->cx->diag.code;
  g->name = ny_intern(&rd->cx->names, "");
  ny_pb r = ny_pb_over(b);
  while (ny_pb_next(&r)) NY_TRY(graph_field(rd, &r, g));
  return NYB_OK;
}

static nyb_status opset(reader *rd, const ny_pb *outer, ny_opset *out) {
  if (outer->wire != NY_PB_LEN) return malformed(rd, outer->p, "opset import");
  out->domain = ny_intern(&rd->cx->names, "");
  ny_pb r = ny_pb_over(outer->bytes);
  while (ny_pb_next(&r)) {
    if (r.field == 1) NY_TRY(text(rd, &r, &out->domain));
    if (r.field == 2) out->version = (int64_t)r.value;
  }
  if (r.bad) return malformed(rd, r.p, "opset import");
  if (!strcmp(out->domain, "ai.onnx")) out->domain = ny_intern(&rd->cx->names, "");
  return NYB_OK;
}

static nyb_status function_field(reader *rd, const ny_pb *r, ny_onnx_function *f) {
  ny_onnx_graph *g = &f->body;
  switch (r->field) {
  case 1: return text(rd, r, &f->name);
  case 4: return text(rd, r, &g->in[g->n_in++].name);
  case 5: return text(rd, r, &g->out[g->n_out++].name);
  case 6: return text(rd, r, &f->attr_name[f->n_attr_name++]);
  case 7:
    if (r->wire != NY_PB_LEN) return malformed(rd, r->p, "node");
    NY_TRY(node(rd, r->bytes, &g->node[g->n_node], g->n_node));
    g->n_node++;
    return NYB_OK;
  case 9: return opset(rd, r, &f->opset[f->n_opset++]);
  case 10: return text(rd, r, &f->domain);
  case 11:
    if (r->wire != NY_PB_LEN) return malformed(rd, r->p, "attribute");
    return attribute(rd, r->bytes, &f->attr_default[f->n_attr_default++]);
  case 13: return text(rd, r, &f->overload);
  default: return NYB_OK;
  }
}

static nyb_status function(reader *rd, const ny_pb *outer, ny_onnx_function *f) {
  uint64_t count[12];
  if (outer->wire != NY_PB_LEN || !ny_pb_count_fields(outer->bytes, count, 12))
    return malformed(rd, outer->p, "function");
  ny_onnx_graph *g = &f->body;
  g->in = take(rd, count[4], sizeof *g->in);
  g->out = take(rd, count[5], sizeof *g->out);
  g->node = take(rd, count[7], sizeof *g->node);
  f->attr_name = take(rd, count[6], sizeof *f->attr_name);
  f->attr_default = take(rd, count[11], sizeof *f->attr_default);
  f->opset = take(rd, count[9], sizeof *f->opset);
  if (!g->in || !g->out || !g->node || !f->attr_name || !f->attr_default || !f->opset) return rd->cx->diag.code;
  f->name = f->domain = f->overload = g->name = ny_intern(&rd->cx->names, "");
  ny_pb r = ny_pb_over(outer->bytes);
  while (ny_pb_next(&r)) NY_TRY(function_field(rd, &r, f));
  if (!strcmp(f->domain, "ai.onnx")) f->domain = ny_intern(&rd->cx->names, "");
  return NYB_OK;
}

static nyb_status model_field(reader *rd, const ny_pb *r, ny_onnx_model *m) {
  switch (r->field) {
  case 1: m->ir_version = (int64_t)r->value; return NYB_OK;
  case 2: return text(rd, r, &m->producer);
  case 7:
    if (r->wire != NY_PB_LEN || m->graph) return malformed(rd, r->p, "graph");
    if (!(m->graph = take(rd, 1, sizeof *m->graph))) return rd->cx->diag.code;
    return graph(rd, r->bytes, m->graph);
  case 8: return opset(rd, r, &m->opset[m->n_opset++]);
  case 25: return function(rd, r, &m->function[m->n_function++]);
  default: return NYB_OK;
  }
}

nyb_status ny_onnx_read(ny_ctx *cx, ny_arena *a, ny_bytes file, ny_onnx_model *out) {
  reader rd = {
      .cx = cx, .a = a, .base = file.p, .budget = file.n > UINT64_MAX / 64 ? UINT64_MAX : (64u << 20) + file.n * 24};
  uint64_t count[26];
  *out = (ny_onnx_model){0};
  if (!ny_pb_count_fields(file, count, 26)) return malformed(&rd, file.p, "model: this is not a protobuf message");
  out->opset = take(&rd, count[8], sizeof *out->opset);
  out->function = take(&rd, count[25], sizeof *out->function);
  if (!out->opset || !out->function) return cx->diag.code;
  ny_pb r = ny_pb_over(file);
  while (ny_pb_next(&r)) NY_TRY(model_field(&rd, &r, out));
  if (!out->graph) return ny_fail(&cx->diag, NYB_E_PARSE, NULL, "the file holds no ONNX graph");
  return NYB_OK;
}
