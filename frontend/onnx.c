/* ModelProto -> ny_unit. The graph is built in one walk over the nodes. When two symbolic sizes turn out to be the
   same, one is replaced by the other and the walk starts again, so that every type is right from its first op on; each
   restart removes a symbol. */
#include "frontend.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "onnx_import.h"

enum { FIRST_IR = 3, LAST_IR = 14, LAST_OPSET = NY_OPSET_MAX, MAX_FUNCTIONS = 10000 };

static nyb_status check_model(ny_import *im) {
  const ny_onnx_model *m = &im->model;
  ny_diag *d = &im->cx->diag;
  if (m->ir_version < FIRST_IR || m->ir_version > LAST_IR)
    return ny_fail(d, NYB_E_UNSUPPORTED, NULL, "ONNX IR version %lld is not supported (%d to %d are)",
                   (long long)m->ir_version, (int)FIRST_IR, (int)LAST_IR);
  if (m->n_function > MAX_FUNCTIONS)
    return ny_fail(d, NYB_E_LIMIT, NULL, "the model has %u functions, more than %d", m->n_function, (int)MAX_FUNCTIONS);
  if (!m->n_opset) return ny_fail(d, NYB_E_PARSE, NULL, "the model imports no operator set");
  for (uint32_t i = 0; i < m->n_opset; i++)
    if (!*m->opset[i].domain && (m->opset[i].version < 1 || m->opset[i].version > LAST_OPSET))
      return ny_fail(d, NYB_E_UNSUPPORTED, NULL, "operator set %lld is not supported (1 to %d are)",
                     (long long)m->opset[i].version, (int)LAST_OPSET);
  return NYB_OK;
}

static nyb_status bad_input(ny_import *im, ny_name name, const char *what) {
  return ny_fail(&im->cx->diag, NYB_E_UNSUPPORTED, NULL, "input \"%s\" %s", name, what);
}

static nyb_status add_input(ny_import *im, ny_scope *sc, const ny_onnx_value *in) {
  ny_onnx_type t;
  NY_TRY(ny_onnx_type_read(im, in->type, in->name, &t));
  if (t.sequence) return bad_input(im, in->name, "is a sequence; a graph takes tensors");
  if (t.other) return bad_input(im, in->name, "is a map, sparse or opaque; a graph takes tensors");
  if (t.fmt == NY_str) return bad_input(im, in->name, "holds strings, which are not supported");
  if (t.fmt == NY_none) return bad_input(im, in->name, "has no element type that is supported");
  if (t.rank < 0) return bad_input(im, in->name, "has no shape, so its rank is not known");
  ny_value *v = ny_block_arg(im->g, &im->g->body, ny_tensor_type(im->cx, t.fmt, t.rank, t.dim), in->name);
  ny_name_put(&im->used_names, &im->a, in->name, 0);
  return ny_scope_define(im, sc, in->name, (ny_thing){.v = v});
}

static nyb_status add_inputs(ny_import *im, ny_scope *sc) {
  const ny_onnx_graph *g = im->model.graph;
  ny_name_map inits = {0};
  for (uint32_t i = 0; i < g->n_init; i++) ny_name_put(&inits, &im->a, g->init[i].name, 0);
  for (uint32_t i = 0; i < g->n_in; i++)
    if (!ny_name_find(&inits, g->in[i].name)) NY_TRY(add_input(im, sc, &g->in[i]));
  return NYB_OK;
}

/* INPUT@AXIS of an input there is. */
static bool names_axis(const ny_import *im, const char *s) {
  const char *at = strrchr(s, '@');
  const ny_block *b = &im->g->body;
  for (uint32_t i = 0; at && i < b->n_arg; i++) {
    size_t n = strlen(b->arg[i]->name);
    if ((size_t)(at - s) == n && !strncmp(s, b->arg[i]->name, n)) return (unsigned)atoi(at + 1) < b->arg[i]->type->rank;
  }
  return false;
}

static nyb_status check_dims(ny_import *im) {
  for (size_t i = 0; i < im->n_dims; i++) {
    ny_name s = ny_intern(&im->cx->names, im->dims[i].sym);
    if (ny_name_find(&im->symbols, s) || names_axis(im, s)) continue;
    ny_text t = {0};
    for (uint32_t k = 0; k < im->n_sym_of; k++) ny_text_addf(&t, "%s%s", k ? ", " : " It has ", im->sym_of[k]);
    nyb_status st =
        ny_fail(&im->cx->diag, NYB_E_ARGUMENT, NULL, "the model has no size named \"%s\".%.600s", s, t.s ? t.s : "");
    ny_text_free(&t);
    return st;
  }
  return NYB_OK;
}

/* The declared shape of a result is not compared: exporters leave stale ones, and sessions report the computed one. */
static nyb_status check_result(ny_import *im, const ny_onnx_value *out, const ny_value *v) {
  ny_fmt declared = ny_onnx_elem_type(out->type);
  if (declared == NY_none || declared == ny_fmt_of(v)) return NYB_OK;
  return ny_fail(&im->cx->diag, NYB_E_TYPE, NULL, "graph output \"%s\" is declared %s but is %s", out->name,
                 ny_fmts[declared].name, ny_fmts[ny_fmt_of(v)].name);
}

static nyb_status add_results(ny_import *im, ny_scope *sc) {
  const ny_onnx_graph *g = im->model.graph;
  ny_builder b = {.g = im->g, .block = &im->g->body};
  ny_value **v = NY_NEW_ARRAY(&im->a, ny_value *, g->n_out + 1);
  ny_name *names = NY_NEW_ARRAY(&im->g->arena, ny_name, g->n_out + 1);
  if (!g->n_out) return ny_fail(&im->cx->diag, NYB_E_PARSE, NULL, "the graph has no outputs");
  if (g->n_out > UINT16_MAX) return ny_fail(&im->cx->diag, NYB_E_LIMIT, NULL, "the graph has %u outputs", g->n_out);
  for (uint32_t i = 0; i < g->n_out; i++) {
    const ny_thing *t = ny_scope_find(sc, g->out[i].name);
    if (!t)
      return ny_fail(&im->cx->diag, NYB_E_PARSE, NULL, "graph output \"%s\" is not computed by any node",
                     g->out[i].name);
    if (!t->v)
      return ny_fail(&im->cx->diag, NYB_E_UNSUPPORTED, NULL,
                     "graph output \"%s\" is a sequence or an empty optional; results are tensors", g->out[i].name);
    NY_TRY(check_result(im, &g->out[i], t->v));
    v[i] = t->v;
    names[i] = g->out[i].name;
  }
  ny_op *ret = ny_build(&b, NY_ret, v, (int)g->n_out, NULL, 0);
  if (!ret) return im->cx->diag.code;
  ret->attr[NY_AT(ret, names)].names.v = names;
  ret->attr[NY_AT(ret, names)].names.n = g->n_out;
  return NYB_OK;
}

/* From the last op to the first, so that one pass finds every op whose results nothing uses. */
static void drop_unused(ny_block *b) {
  for (ny_op *op = b->last, *prev; op; op = prev) {
    prev = op->prev;
    bool used = !(ny_kinds[op->kind].flags & NY_PURE);
    for (int i = 0; i < op->n_out && !used; i++) used = op->out[i]->uses != NULL;
    if (used) {
      for (int i = 0; i < op->n_body; i++) drop_unused(op->body[i]);
    } else {
      ny_erase(op);
    }
  }
}

static void new_attempt(ny_import *im) {
  ny_name name = *im->model.graph->name ? im->model.graph->name : ny_intern(&im->cx->names, "main");
  im->g = ny_graph_new(im->unit, name, false);
  im->restart = false;
  im->last_const = NULL;
  im->n_nodes = 0;
  im->used_names = (ny_name_map){0};
  im->known = NULL;
  im->known_state = NULL;
  im->cap_known = 0;
  im->const_depth = 0;
  for (uint32_t i = 0; i < im->n_cached; i++) im->cached[i].v = NULL;
}

static nyb_status attempt(ny_import *im) {
  new_attempt(im);
  ny_scope *sc = ny_scope_new(im, NULL);
  sc->opset = im->model.opset;
  sc->n_opset = im->model.n_opset;
  NY_TRY(add_inputs(im, sc));
  NY_TRY(check_dims(im));
  ny_builder b = {.g = im->g, .block = &im->g->body};
  NY_TRY(ny_import_nodes(im, b, sc, im->model.graph));
  NY_TRY(add_results(im, sc));
  if (im->cx->diag.code) return im->cx->diag.code;
  drop_unused(&im->g->body);
  return ny_require_types(im);
}

static nyb_status name_functions(ny_import *im) {
  for (uint32_t i = 0; i < im->model.n_function; i++) {
    const ny_onnx_function *f = &im->model.function[i],
                           *g = &im->model.function[*ny_name_put(&im->fn_names, &im->a, f->name, i)];
    if (f != g && f->domain == g->domain && f->overload == g->overload)
      return ny_fail(&im->cx->diag, NYB_E_PARSE, NULL, "function \"%s\" is defined twice", f->name);
  }
  return NYB_OK;
}

static nyb_status import_all(ny_import *im) {
  NY_TRY(ny_onnx_read(im->cx, &im->a, im->files.file, &im->model));
  NY_TRY(check_model(im));
  ny_rows_open(im);
  NY_TRY(name_functions(im));
  for (;;) {
    nyb_status s = attempt(im);
    if (!im->restart) return s;
    if (++im->n_restarts > NY_MAX_RESTARTS) {
      ny_diag_clear(&im->cx->diag);
      return ny_fail(&im->cx->diag, NYB_E_LIMIT, NULL,
                     "more than %d sizes had to be replaced; give sizes with --dim NAME=N", (int)NY_MAX_RESTARTS);
    }
    ny_diag_clear(&im->cx->diag);
    ny_graph_drop(im->g);
  }
}

static nyb_status import_unit(ny_import *im, ny_unit *u, ny_unit **out) {
  im->unit = im->files.unit = u;
  im->budget = (UINT64_C(256) << 20) + im->files.file.n;
  im->files.budget = &im->budget;
  nyb_status s = import_all(im);
  ny_arena_free(&im->a);
  if (s)
    ny_unit_free(u);
  else
    *out = u;
  return s;
}

nyb_status ny_import_onnx_memory(ny_ctx *cx, const void *data, size_t bytes, const char *name, const ny_binding *dims,
                                 size_t n, ny_unit **out) {
  ny_import im = {.cx = cx, .dims = dims, .n_dims = n};
  *out = NULL;
  cx->diag.file = name ? ny_intern(&cx->names, name) : NULL;
  im.files.file = (ny_bytes){data, bytes};
  return import_unit(&im, ny_unit_new(cx), out);
}

nyb_status ny_import_onnx(ny_ctx *cx, const char *path, const ny_binding *dims, size_t n, ny_unit **out) {
  ny_import im = {.cx = cx, .dims = dims, .n_dims = n};
  const char *slash = strrchr(path, '/');
  ny_map m;
  *out = NULL;
  cx->diag.file = ny_intern(&cx->names, path);
  NY_TRY(ny_map_open(path, &m, &cx->diag));
  ny_unit *u = ny_unit_new(cx);
  uint32_t names_cap = 0;
  im.files.file_name = ny_intern(&cx->names, slash ? slash + 1 : path);
  im.files.folder = slash ? (slash == path ? "/" : ny_internn(&cx->names, path, (size_t)(slash - path))) : ".";
  u->folder = im.files.folder;
  im.files.file = (ny_bytes){m.data, m.bytes};
  NY_PUSH_ROOM(&u->arena, u->map_names, u->n_maps, names_cap);
  NY_PUSH_ROOM(&u->arena, u->maps, u->n_maps, u->cap_maps);
  u->map_names[0] = im.files.file_name;
  u->maps[u->n_maps++] = m;
  return import_unit(&im, u, out);
}
