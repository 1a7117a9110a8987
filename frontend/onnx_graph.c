/* Importing the nodes of one graph: names in scope, constants, the operator table, and calls of the model's own
   functions, whose bodies are imported in place. */
#include <string.h>
#include "onnx_import.h"

ny_scope *ny_scope_new(ny_import *im, ny_scope *outer) {
  ny_scope *sc = NY_NEW(&im->a, ny_scope);
  sc->outer = outer;
  if (outer) {
    sc->opset = outer->opset;
    sc->n_opset = outer->n_opset;
    sc->depth = outer->depth + 1;
  }
  return sc;
}

ny_thing *ny_scope_find(ny_scope *sc, ny_name name) {
  for (; sc; sc = sc->outer) {
    const uint32_t *i = ny_name_find(&sc->names, name);
    if (i) return &sc->thing[*i];
  }
  return NULL;
}

nyb_status ny_scope_define(ny_import *im, ny_scope *sc, ny_name name, ny_thing t) {
  if (ny_name_find(&sc->names, name))
    return ny_fail(&im->cx->diag, NYB_E_PARSE, NULL, "\"%s\" is defined a second time", name);
  ny_name_put(&sc->names, &im->a, name, sc->n_thing);
  NY_PUSH_ROOM(&im->a, sc->thing, sc->n_thing, sc->cap_thing);
  sc->thing[sc->n_thing++] = t;
  return NYB_OK;
}

void ny_name_value(ny_import *im, ny_value *v, ny_name name) {
  if (v->name || !name || !*name || ny_name_find(&im->used_names, name)) return;
  ny_name_put(&im->used_names, &im->a, name, 0);
  v->name = name;
}

/* Those that something uses: a name nothing asks for is not even decoded. */
static void want_names(ny_import *im, const ny_onnx_graph *g, ny_name_map *wanted) {
  for (uint32_t k = 0; k < g->n_order; k++) {
    const ny_onnx_node *nd = &g->node[g->order[k]];
    for (uint32_t i = 0; i < nd->n_in; i++)
      if (nd->in[i]) ny_name_put(wanted, &im->a, nd->in[i], 0);
    for (uint32_t i = 0; i < nd->n_attr; i++)
      for (uint32_t j = 0; nd->attr[i].g && j < nd->attr[i].g->n_free; j++)
        ny_name_put(wanted, &im->a, nd->attr[i].g->free[j], 0);
  }
  for (uint32_t i = 0; i < g->n_out; i++) ny_name_put(wanted, &im->a, g->out[i].name, 0);
}

nyb_status ny_load_initializers(ny_import *im, ny_scope *sc, ny_onnx_graph *g) {
  ny_name_map wanted = {0};
  ny_name_map seen = {0};
  NY_TRY(ny_onnx_order(im->cx, &im->a, g));
  for (uint32_t i = 0; i < g->n_init; i++) {
    if (ny_name_find(&seen, g->init[i].name))
      return ny_fail(&im->cx->diag, NYB_E_PARSE, NULL, "initializer \"%s\" is given twice", g->init[i].name);
    ny_name_put(&seen, &im->a, g->init[i].name, 0);
  }
  want_names(im, g, &wanted);
  for (uint32_t i = 0; i < g->n_init; i++) {
    if (!ny_name_find(&wanted, g->init[i].name) || ny_name_find(&sc->names, g->init[i].name)) continue;
    ny_value *v = ny_file_tensor(im, g->init[i].proto, g->init[i].sparse, NULL);
    if (!v) return im->cx->diag.code;
    NY_TRY(ny_scope_define(im, sc, g->init[i].name, (ny_thing){.v = v}));
  }
  return NYB_OK;
}

static int64_t version_of(const ny_scope *sc, ny_name domain) {
  for (uint32_t i = 0; i < sc->n_opset; i++)
    if (sc->opset[i].domain == domain) return sc->opset[i].version;
  return 0;
}

static const ny_onnx_function *find_function(const ny_import *im, const ny_onnx_node *nd) {
  if (!ny_name_find(&im->fn_names, nd->op_type)) return NULL;
  for (uint32_t i = 0; i < im->model.n_function; i++) {
    const ny_onnx_function *f = &im->model.function[i];
    if (f->name == nd->op_type && f->domain == nd->domain && f->overload == nd->overload) return f;
  }
  return NULL;
}

static nyb_status find_inputs(ny_node *n) {
  for (int i = 0; i < n->n_in; i++) {
    if (!n->src->in[i]) continue;
    const ny_thing *t = ny_scope_find(n->scope, n->src->in[i]);
    if (!t) return ny_node_fail(n, NYB_E_PARSE, "input %d: no tensor is named \"%s\"", i, n->src->in[i]);
    n->in_thing[i] = *t;
    n->in[i] = t->v;
  }
  return NYB_OK;
}

static nyb_status define_outputs(ny_node *n) {
  ny_import *im = n->im;
  for (int i = 0; i < n->n_out; i++) {
    ny_name name = n->src->out[i];
    if (!name) continue;
    ny_thing t = n->out[i];
    if (!t.v && !t.list && !t.is_none)
      return ny_node_fail(n, NYB_E_UNSUPPORTED, "output %d (\"%s\") is not supported", i, name);
    if (t.v) {
      if (t.v->def) ny_name_value(im, t.v, name);
      t.v = ny_settle(im, &n->b, t.v);
    }
    NY_TRY(ny_scope_define(im, n->scope, name, t));
  }
  return im->cx->diag.code;
}

static nyb_status call_function(ny_node *n, const ny_onnx_function *f) {
  ny_import *im = n->im;
  ny_onnx_graph *body = (ny_onnx_graph *)(uintptr_t)&f->body;
  for (const ny_scope *sc = n->scope; sc; sc = sc->call ? sc->call->scope : sc->outer)
    if (sc->fn == f) return ny_node_fail(n, NYB_E_PARSE, "function \"%s\" calls itself", f->name);
  if (n->scope->depth >= NY_MAX_NESTING)
    return ny_node_fail(n, NYB_E_LIMIT, "functions are nested more than %d deep", (int)NY_MAX_NESTING);
  ny_scope *sc = ny_scope_new(im, NULL);
  *sc = (ny_scope){.opset = f->opset, .n_opset = f->n_opset, .fn = f, .call = n, .depth = n->scope->depth + 1};
  if (!f->n_opset) sc->opset = n->scope->opset, sc->n_opset = n->scope->n_opset;
  for (uint32_t i = 0; i < body->n_in; i++) {
    ny_thing t = i < (uint32_t)n->n_in ? n->in_thing[i] : (ny_thing){0};
    NY_TRY(ny_scope_define(im, sc, body->in[i].name, t));
  }
  NY_TRY(ny_import_nodes(im, n->b, sc, body));
  for (int i = 0; i < n->n_out; i++) {
    if (!n->src->out[i]) continue;
    const ny_thing *t = (uint32_t)i < body->n_out ? ny_scope_find(sc, body->out[i].name) : NULL;
    if (!t) return ny_node_fail(n, NYB_E_PARSE, "function \"%s\" has no output %d", f->name, i);
    n->out[i] = *t;
  }
  return NYB_OK;
}

static nyb_status build_node(ny_node *n) {
  ny_import *im = n->im;
  const ny_onnx_function *f = find_function(im, n->src);
  if (f) return call_function(n, f);
  const char *domain = *n->domain ? n->domain : "ai.onnx";
  const ny_onnx_row *row = ny_find_row(im, n->domain, n->op_type, n->version);
  if (!n->version && row && !strncmp(domain, "ai.onnx", 7))
    return ny_node_fail(n, NYB_E_PARSE, "the model does not say which version of domain %s it uses", domain);
  if (!row) return ny_node_fail(n, NYB_E_UNSUPPORTED, "operator %s of domain %s is not supported", n->op_type, domain);
  if (!n->version) n->version = 1; /* vendors' domains have had one version, and exporters forget to say so */
  if (n->version < row->first || n->version > row->last)
    return ny_node_fail(n, NYB_E_UNSUPPORTED,
                        "operator %s is supported from version %d to %d of domain %s; the model uses version %d",
                        n->op_type, row->first, row->last, domain, n->version);
  NY_TRY(ny_check_signature(n));
  for (int i = 0; i < row->n_required; i++)
    if (!ny_need(n, i)) return ny_failed(n);
  n->arg = row->arg;
  nyb_status s = row->build(n);
  return s ? s : im->cx->diag.code;
}

static bool in_function(const ny_scope *sc) {
  while (sc && !sc->fn) sc = sc->outer;
  return sc != NULL;
}

static nyb_status check_attributes(ny_node *n) {
  const ny_onnx_attr *a = n->src->attr;
  if (n->src->n_attr > 256) return ny_node_fail(n, NYB_E_LIMIT, "the node has %u attributes", n->src->n_attr);
  for (uint32_t i = 0; i < n->src->n_attr; i++) {
    for (uint32_t k = 0; k < i; k++)
      if (a[k].name == a[i].name) return ny_node_fail(n, NYB_E_PARSE, "attribute \"%s\" is given twice", a[i].name);
    if (a[i].ref && !in_function(n->scope))
      return ny_node_fail(n, NYB_E_PARSE,
                          "attribute \"%s\" refers to an attribute of a function, and there is none around it",
                          a[i].name);
  }
  return NYB_OK;
}

static nyb_status import_node(ny_import *im, ny_builder b, ny_scope *sc, const ny_onnx_node *src) {
  if (++im->n_nodes > NY_MAX_NODES)
    return ny_fail(&im->cx->diag, NYB_E_LIMIT, NULL, "the model has more than %d nodes with its functions in place",
                   (int)NY_MAX_NODES);
  ny_loc *loc = NY_NEW(&im->unit->arena, ny_loc);
  *loc = (ny_loc){.node = src->name, .op_type = src->op_type, .index = src->index, .offset = src->offset};
  b.loc = loc;
  int64_t version = version_of(sc, src->domain);
  ny_node *n = NY_NEW(&im->a, ny_node);
  *n = (ny_node){.im = im,
                 .cx = im->cx,
                 .unit = im->unit,
                 .b = b,
                 .name = src->name,
                 .op_type = src->op_type,
                 .domain = src->domain,
                 .version = version < 0 || version > 1000000 ? 0 : (int)version,
                 .n_in = (int)src->n_in,
                 .n_out = (int)src->n_out,
                 .src = src,
                 .scope = sc,
                 .tmp = &im->a};
  n->in = NY_NEW_ARRAY(&im->a, ny_value *, src->n_in + 1);
  n->in_thing = NY_NEW_ARRAY(&im->a, ny_thing, src->n_in + 1);
  n->out = NY_NEW_ARRAY(&im->a, ny_thing, src->n_out + 1);
  nyb_status s = check_attributes(n);
  if (!s) s = find_inputs(n);
  if (!s) s = build_node(n);
  if (s) {
    if (!im->cx->diag.has_loc) im->cx->diag.loc = *loc, im->cx->diag.has_loc = true;
    return s;
  }
  return define_outputs(n);
}

nyb_status ny_import_nodes(ny_import *im, ny_builder b, ny_scope *sc, ny_onnx_graph *g) {
  NY_TRY(ny_load_initializers(im, sc, g));
  for (uint32_t k = 0; k < g->n_order; k++) NY_TRY(import_node(im, b, sc, &g->node[g->order[k]]));
  return NYB_OK;
}

/* ---- Subgraphs */
int ny_graph_n_inputs(const ny_onnx_graph *g) { return (int)g->n_in; }
int ny_graph_n_outputs(const ny_onnx_graph *g) { return (int)g->n_out; }

nyb_status ny_inline_graph(ny_node *n, const ny_onnx_graph *g, const ny_thing *in, int n_in, ny_thing *out, int n_out) {
  ny_import *im = n->im;
  if (n->scope->depth >= NY_MAX_NESTING)
    return ny_node_fail(n, NYB_E_LIMIT, "bodies are nested more than %d deep", (int)NY_MAX_NESTING);
  if (n_in != (int)g->n_in || n_out != (int)g->n_out)
    return ny_node_fail(n, NYB_E_PARSE, "the body has %u inputs and %u outputs, not %d and %d", g->n_in, g->n_out, n_in,
                        n_out);
  ny_scope *sc = ny_scope_new(im, n->scope);
  for (int i = 0; i < n_in; i++) NY_TRY(ny_scope_define(im, sc, g->in[i].name, in[i]));
  NY_TRY(ny_import_nodes(im, n->b, sc, (ny_onnx_graph *)(uintptr_t)g));
  for (int i = 0; i < n_out; i++) {
    const ny_thing *t = ny_scope_find(sc, g->out[i].name);
    if (!t) return ny_node_fail(n, NYB_E_PARSE, "output %d of the body, \"%s\", is not computed", i, g->out[i].name);
    out[i] = *t;
  }
  return NYB_OK;
}
