/* Writing an edited model. Messages are put together as runs of bytes (pb_write.c), so weights go from the mapped file
   to the new one. Data leaves the model for a file beside it when some of it was outside before, or when protobuf could
   not hold it. */
#include "onnx_edit.h"

#include <string.h>

enum { LEAVES = 1024, PAGE = 4096, MAX_DEPTH = 48 };
#define PROTOBUF_MAX UINT64_C(0x7fffffff)

typedef struct outside { /* data that goes to the file beside the model */
  const void *data;
  uint64_t bytes, offset;
} outside;
typedef struct writer {
  ny_edit *e;
  bool external, met_external; /* data goes outside; some was there before */
  ny_name location;
  outside *part;
  uint32_t n_part, cap_part;
  uint64_t end;
} writer;

/* ---- Tensors: TensorProto { dims 1, data_type 2, name 8, raw_data 9, external_data 13, data_location 14 } */
static void entry(ny_pb_out *o, const char *key, const char *value) {
  ny_pb_out kv = {.a = o->a};
  ny_pb_put_text(&kv, 1, key);
  ny_pb_put_text(&kv, 2, value);
  ny_pb_put_msg(o, 13, &kv);
}

static void put_outside(writer *w, ny_pb_out *o, const void *data, uint64_t bytes) {
  uint64_t align = bytes < PAGE ? 64 : PAGE, at = (w->end + align - 1) / align * align;
  NY_PUSH_ROOM(o->a, w->part, w->n_part, w->cap_part);
  w->part[w->n_part++] = (outside){data, bytes, at};
  w->end = at + bytes;
  entry(o, "location", w->location);
  entry(o, "offset", ny_strf(o->a, "%llu", (unsigned long long)at));
  entry(o, "length", ny_strf(o->a, "%llu", (unsigned long long)bytes));
  ny_pb_put_int(o, 14, 1);
}

static uint64_t bytes_of(const ny_edit_tensor *t) {
  uint64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= (uint64_t)t->dim[i];
  return ny_fmt_bytes(t->fmt, n);
}

static void put_new_tensor(writer *w, ny_pb_out *o, const ny_edit_init *in) {
  const ny_edit_tensor *t = &in->tensor;
  uint64_t bytes = bytes_of(t);
  for (int i = 0; i < t->rank; i++) ny_pb_put_int(o, 1, t->dim[i]);
  ny_pb_put_int(o, 2, ny_fmts[t->fmt].onnx);
  ny_pb_put_text(o, 8, in->name);
  if (w->external && bytes >= LEAVES)
    put_outside(w, o, t->data, bytes);
  else
    ny_pb_put_bytes(o, 9, (ny_bytes){t->data, bytes});
}

static bool is_external(ny_bytes proto) {
  bool yes = false;
  ny_pb r = ny_pb_over(proto);
  while (ny_pb_next(&r))
    if (r.field == 14) yes = r.value == 1;
  return yes;
}

static bool holds_data(uint32_t field) {
  return (field >= 4 && field <= 7) || (field >= 9 && field <= 11) || field == 13 || field == 14;
}

/* A tensor as it was read, its data moved outside when that is where data goes. */
static nyb_status put_tensor(writer *w, ny_pb_out *o, uint32_t field, ny_bytes proto) {
  ny_edit *e = w->e;
  ny_onnx_tensor t;
  bool was = is_external(proto);
  w->met_external |= was;
  if (!w->external || (!was && proto.n < LEAVES)) {
    ny_pb_put_bytes(o, field, proto);
    return NYB_OK;
  }
  nyb_status s = ny_onnx_tensor_read(e->cx, &e->files, proto, &t);
  if (s && was) return s;
  if (s) { /* not of a kind that nybble reads: left as it is */
    ny_diag_clear(&e->cx->diag);
    ny_pb_put_bytes(o, field, proto);
    return NYB_OK;
  }
  ny_pb_out out = {.a = o->a};
  ny_pb r = ny_pb_over(proto);
  for (const uint8_t *start = r.p; ny_pb_next(&r); start = r.p)
    if (!holds_data(r.field)) ny_pb_put_ref(&out, (ny_bytes){start, (uint64_t)(r.p - start)});
  put_outside(w, &out, t.data, t.bytes);
  ny_pb_put_msg(o, field, &out);
  return NYB_OK;
}

/* ---- Nodes and graphs */
static nyb_status put_graph(writer *w, ny_pb_out *o, const ny_edit_graph *g, int depth);

static nyb_status put_attr(writer *w, ny_pb_out *o, const ny_edit_attr *a, int depth) {
  ny_pb_out out = {.a = o->a};
  uint32_t k = 0;
  if (!a->n_graph && a->type != NY_ATTR_TENSOR && a->type != NY_ATTR_TENSORS) {
    ny_pb_put_bytes(o, 5, a->proto);
    return NYB_OK;
  }
  ny_pb r = ny_pb_over(a->proto);
  for (const uint8_t *start = r.p; ny_pb_next(&r); start = r.p) {
    bool nested = r.field == 6 || r.field == 11, tensor = (r.field == 5 || r.field == 10) && r.wire == NY_PB_LEN;
    if (nested && k < a->n_graph) {
      ny_pb_out body = {.a = o->a};
      NY_TRY(put_graph(w, &body, a->graph[k++], depth + 1));
      ny_pb_put_msg(&out, r.field, &body);
    } else if (tensor) {
      NY_TRY(put_tensor(w, &out, r.field, r.bytes));
    } else {
      ny_pb_put_ref(&out, (ny_bytes){start, (uint64_t)(r.p - start)});
    }
  }
  ny_pb_put_msg(o, 5, &out);
  return NYB_OK;
}

static bool plain(const ny_edit_node *n) { /* nothing in it can have changed */
  for (uint32_t i = 0; i < n->n_attr; i++)
    if (n->attr[i].n_graph || n->attr[i].type == NY_ATTR_TENSOR || n->attr[i].type == NY_ATTR_TENSORS) return false;
  return !n->changed && n->field.p;
}

static nyb_status put_node(writer *w, ny_pb_out *o, uint32_t field, const ny_edit_node *n, int depth) {
  ny_pb_out out = {.a = o->a};
  uint32_t k = 0;
  if (plain(n)) {
    ny_pb_put_ref(o, n->field);
    return NYB_OK;
  }
  ny_pb r = ny_pb_over(n->proto);
  if (!n->changed) {
    for (const uint8_t *start = r.p; ny_pb_next(&r); start = r.p) {
      if (r.field == 5)
        NY_TRY(put_attr(w, &out, &n->attr[k++], depth));
      else
        ny_pb_put_ref(&out, (ny_bytes){start, (uint64_t)(r.p - start)});
    }
  } else {
    for (uint32_t i = 0; i < n->n_in; i++) ny_pb_put_text(&out, 1, n->in[i]);
    for (uint32_t i = 0; i < n->n_out; i++) ny_pb_put_text(&out, 2, n->out[i]);
    if (*n->name) ny_pb_put_text(&out, 3, n->name);
    ny_pb_put_text(&out, 4, n->op_type);
    for (; k < n->n_attr; k++) NY_TRY(put_attr(w, &out, &n->attr[k], depth));
    if (*n->domain) ny_pb_put_text(&out, 7, n->domain);
    for (const uint8_t *start = r.p; n->proto.p && ny_pb_next(&r); start = r.p)
      if (r.field > 7 || r.field == 6) ny_pb_put_ref(&out, (ny_bytes){start, (uint64_t)(r.p - start)});
  }
  ny_pb_put_msg(o, field, &out);
  return NYB_OK;
}

static nyb_status put_nodes(writer *w, ny_pb_out *o, const ny_edit_graph *g, int depth) {
  for (const ny_edit_node *n = g->first; n; n = n->next) NY_TRY(put_node(w, o, g->is_function ? 7 : 1, n, depth));
  return NYB_OK;
}

static nyb_status put_sparse(writer *w, ny_pb_out *o, ny_bytes proto) {
  ny_pb_out out = {.a = o->a};
  ny_pb r = ny_pb_over(proto);
  for (const uint8_t *start = r.p; ny_pb_next(&r); start = r.p) {
    bool tensor = (r.field == 1 || r.field == 2) && r.wire == NY_PB_LEN;
    if (tensor && is_external(r.bytes))
      NY_TRY(put_tensor(w, &out, r.field, r.bytes));
    else
      ny_pb_put_ref(&out, (ny_bytes){start, (uint64_t)(r.p - start)});
  }
  ny_pb_put_msg(o, 15, &out);
  return NYB_OK;
}

static nyb_status put_inits(writer *w, ny_pb_out *o, const ny_edit_graph *g, bool sparse) {
  for (const ny_edit_init *in = g->init; in; in = in->next) {
    ny_pb_out out = {.a = o->a};
    if (in->dropped || in->sparse != sparse) continue;
    if (sparse) {
      NY_TRY(put_sparse(w, o, in->proto));
    } else if (in->proto.p) {
      if (!w->external && in->field.p && !is_external(in->proto))
        ny_pb_put_ref(o, in->field);
      else
        NY_TRY(put_tensor(w, o, 5, in->proto));
    } else {
      put_new_tensor(w, &out, in);
      ny_pb_put_msg(o, 5, &out);
    }
  }
  return NYB_OK;
}

static bool dropped_input(const ny_edit_graph *g, ny_bytes info) {
  ny_bytes name = {0};
  ny_pb r = ny_pb_over(info);
  while (ny_pb_next(&r))
    if (r.field == 1) name = r.bytes;
  for (uint32_t i = 0; i < g->n_dropped_in; i++)
    if (strlen(g->dropped_in[i]) == name.n && !memcmp(g->dropped_in[i], name.p, name.n)) return true;
  return false;
}

/* Fields stand in their old order; nodes and initializers all stand where the first of them stood. */
static nyb_status put_graph(writer *w, ny_pb_out *o, const ny_edit_graph *g, int depth) {
  bool nodes = false, inits = false, sparse = false;
  uint32_t node_field = g->is_function ? 7 : 1;
  if (depth > MAX_DEPTH) return ny_fail(&w->e->cx->diag, NYB_E_LIMIT, NULL, "graphs are nested too deep");
  ny_pb r = ny_pb_over(g->proto);
  for (const uint8_t *start = r.p; ny_pb_next(&r); start = r.p) {
    if (r.field == node_field) {
      if (!nodes) NY_TRY(put_nodes(w, o, g, depth));
      nodes = true;
    } else if (r.field == 5 && !g->is_function) {
      if (!inits) NY_TRY(put_inits(w, o, g, false));
      inits = true;
    } else if (r.field == 15 && !g->is_function) {
      if (!sparse) NY_TRY(put_inits(w, o, g, true));
      sparse = true;
    } else if (g->is_function || r.field != 11 || !dropped_input(g, r.bytes)) {
      ny_pb_put_ref(o, (ny_bytes){start, (uint64_t)(r.p - start)});
    }
  }
  if (!nodes) NY_TRY(put_nodes(w, o, g, depth));
  return inits ? NYB_OK : put_inits(w, o, g, false);
}

/* ---- The model: ModelProto { ir_version 1, graph 7, opset_import 8, functions 25 } */
static void put_opsets(ny_pb_out *o, uint32_t field, const ny_opset *list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    ny_pb_out id = {.a = o->a};
    ny_pb_put_text(&id, 1, list[i].domain);
    ny_pb_put_int(&id, 2, list[i].version);
    ny_pb_put_msg(o, field, &id);
  }
}

static nyb_status put_function(writer *w, ny_pb_out *o, struct ny_edit_function *f) {
  ny_pb_out all = {.a = o->a}, out = {.a = o->a};
  NY_TRY(put_graph(w, &all, f->body, 0));
  ny_pb r = ny_pb_over(ny_pb_joined(&all));
  bool opsets = false;
  for (const uint8_t *start = r.p; ny_pb_next(&r); start = r.p) {
    if (r.field != 9 || !w->e->new_opset)
      ny_pb_put_ref(&out, (ny_bytes){start, (uint64_t)(r.p - start)});
    else if (!opsets)
      put_opsets(&out, 9, f->opset, f->n_opset), opsets = true;
  }
  ny_pb_put_msg(o, 25, &out);
  return NYB_OK;
}

static nyb_status put_model(writer *w, ny_pb_out *o) {
  ny_edit *e = w->e;
  bool opsets = false, version = false;
  uint32_t k = 0;
  ny_pb r = ny_pb_over(e->files.file);
  for (const uint8_t *start = r.p; ny_pb_next(&r); start = r.p) {
    if (r.field == 7) {
      ny_pb_out g = {.a = o->a};
      NY_TRY(put_graph(w, &g, e->graph, 0));
      ny_pb_put_msg(o, 7, &g);
    } else if (r.field == 25) {
      NY_TRY(put_function(w, o, &e->function[k++]));
    } else if (r.field == 1 && e->new_opset) {
      if (!version) ny_pb_put_int(o, 1, e->ir_version);
      version = true;
    } else if (r.field == 8 && e->new_opset) {
      if (!opsets) put_opsets(o, 8, e->opset, e->n_opset);
      opsets = true;
    } else {
      ny_pb_put_ref(o, (ny_bytes){start, (uint64_t)(r.p - start)});
    }
  }
  if (e->new_opset && !version) ny_pb_put_int(o, 1, e->ir_version);
  return NYB_OK;
}

/* ---- Files */
static nyb_status write_parts(writer *w, const char *path) {
  ny_diag *d = &w->e->cx->diag;
  ny_new_file f;
  uint64_t at = 0;
  static const char zeros[PAGE];
  if (!w->n_part) return NYB_OK;
  NY_TRY(ny_file_begin(path, &f, d));
  for (uint32_t i = 0; i < w->n_part; i++) {
    const outside *p = &w->part[i];
    fwrite(zeros, 1, p->offset - at, f.f);
    fwrite(p->data, 1, p->bytes, f.f);
    at = p->offset + p->bytes;
  }
  return ny_file_commit(&f, d);
}

static nyb_status write_model(const ny_pb_out *o, const char *path, ny_diag *d) {
  ny_new_file f;
  NY_TRY(ny_file_begin(path, &f, d));
  ny_pb_write(o, f.f); /* what goes wrong is remembered in the stream, and found at the commit */
  return ny_file_commit(&f, d);
}

nyb_status ny_edit_write(ny_edit *e, const char *path, uint64_t inline_limit) {
  ny_diag *d = &e->cx->diag;
  ny_arena a = {0};
  const char *slash = strrchr(path, '/');
  writer w = {.e = e};
  ny_pb_out o = {.a = &a};
  NY_TRY(ny_edit_sort(e));
  if (!inline_limit || inline_limit > PROTOBUF_MAX) inline_limit = PROTOBUF_MAX;
  nyb_status s = put_model(&w, &o);
  if (!s && (w.met_external || o.n > inline_limit)) {
    o = (ny_pb_out){.a = &a};
    w = (writer){.e = e, .external = true, .location = ny_strf(&a, "%s.data", slash ? slash + 1 : path)};
    s = put_model(&w, &o);
    if (!s && o.n > PROTOBUF_MAX)
      s = ny_fail(d, NYB_E_LIMIT, NULL, "%s: the model has %llu bytes without its weights, more than protobuf can hold",
                  path, (unsigned long long)o.n);
  }
  if (!s) s = write_parts(&w, ny_strf(&a, "%s.data", path));
  if (!s) s = write_model(&o, path, d);
  ny_arena_free(&a);
  return s;
}
