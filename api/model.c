/* The compiler half of the public API: import, passes, text, evaluation, compilation. */
#include "model.h"

#include "frontend.h"
#include "module.h"

#include <stdlib.h>
#include <string.h>

nyb_status ny_model_hand_over(nyb_context *cx, ny_ctx *ir, const char *file, nyb_status s) {
  if (s) {
    cx->diag = ir->diag;
    if (!cx->diag.code) ny_fail(&cx->diag, s, NULL, "%s", nyb_status_text(s));
    ny_context_keep_names(cx, file);
  }
  return s;
}

static nyb_status bind(nyb_context *cx, ny_ctx *ir, const nyb_import_options *o, ny_binding **out, size_t *n) {
  *n = o ? o->n_dims : 0;
  *out = NY_NEW_ARRAY(&ir->arena, ny_binding, *n + 1);
  for (size_t i = 0; i < *n; i++) {
    if (!o->dims[i].name || o->dims[i].size < 0)
      return ny_fail(&cx->diag, NYB_E_ARGUMENT, NULL, "dimension %s: size %lld",
                     o->dims[i].name ? o->dims[i].name : "(null)", (long long)o->dims[i].size);
    (*out)[i] = (ny_binding){ny_intern(&ir->names, o->dims[i].name), o->dims[i].size};
  }
  return NYB_OK;
}

static nyb_status wrap(nyb_context *cx, ny_ctx *ir, ny_unit *u, nyb_model **out) {
  nyb_model *m = calloc(1, sizeof *m);
  if (!m) return ny_fail(&cx->diag, NYB_E_NOMEM, NULL, "out of memory");
  *m = (nyb_model){.cx = cx, .ir = ir, .unit = u};
  *out = m;
  return NYB_OK;
}

static nyb_status parse_text(ny_ctx *ir, const char *text, size_t bytes, const char *path, const ny_binding *dims,
                             size_t n, ny_unit **out) {
  NY_TRY(ny_parse_unit(ir, text, bytes, path, out));
  nyb_status s = n ? ny_bind_unit(*out, dims, n) : NYB_OK;
  if (s) {
    ny_unit_free(*out);
    *out = NULL;
  }
  return s;
}

static nyb_status import_text(ny_ctx *ir, const char *path, const ny_binding *dims, size_t n, ny_unit **out) {
  ny_arena a = {0};
  char *text;
  size_t bytes;
  nyb_status s = ny_file_read(&a, path, (size_t)1 << 31, &text, &bytes, &ir->diag);
  if (!s) s = parse_text(ir, text, bytes, path, dims, n, out);
  ny_arena_free(&a);
  return s;
}

/* The portable graph of a module. It may come from a stranger, so it may read no other file than its own. */
static nyb_status import_module(nyb_context *cx, ny_ctx *ir, const char *path, const ny_binding *dims, size_t n,
                                ny_unit **out) {
  nyb_module *m;
  NY_TRY(ny_module_open(cx, path, &m, &ir->diag));
  const ny_mod_segment *g = &m->mod.graph;
  nyb_status s = g->bytes ? parse_text(ir, (const char *)m->map.data + g->offset, g->bytes, path, dims, n, out)
                          : ny_fail(&ir->diag, NYB_E_UNSUPPORTED, NULL,
                                    "%s holds no portable graph, so it cannot be compiled again", path);
  nyb_module_close(m);
  for (uint32_t i = 0; !s && i < (*out)->n_maps; i++)
    if (strcmp((*out)->map_names[i], path))
      s = ny_fail(&ir->diag, NYB_E_VERIFY, NULL, "the graph in %s asks for another file, %s", path,
                  (*out)->map_names[i]);
  if (s && *out) ny_unit_free(*out);
  return s;
}

/* Without a path the model is in memory. */
static nyb_status read_model(nyb_context *cx, ny_ctx *ir, const char *path, const void *data, size_t bytes,
                             const ny_binding *dims, size_t n, ny_unit **out) {
  if (!path) return ny_import_onnx_memory(ir, data, bytes, "memory", dims, n, out);
  if (ny_ends_with(path, ".nyt")) return import_text(ir, path, dims, n, out);
  if (ny_ends_with(path, ".nyb")) return import_module(cx, ir, path, dims, n, out);
  return ny_import_onnx(ir, path, dims, n, out);
}

static nyb_status import(nyb_context *cx, const char *path, const void *data, size_t bytes,
                         const nyb_import_options *options, nyb_model **out) {
  ny_diag_clear(&cx->diag);
  *out = NULL;
  ny_ctx *ir = ny_ctx_new();
  ny_binding *dims;
  size_t n;
  ny_unit *u = NULL;
  nyb_status s = bind(cx, ir, options, &dims, &n);
  if (!s) s = ny_model_hand_over(cx, ir, path ? path : "memory", read_model(cx, ir, path, data, bytes, dims, n, &u));
  if (!s) s = wrap(cx, ir, u, out);
  if (s) ny_ctx_free(ir);
  return s;
}

NYB_API nyb_status nyb_import(nyb_context *cx, const char *path, const nyb_import_options *options,
                              nyb_model **out_model) {
  return cx && path && out_model ? import(cx, path, NULL, 0, options, out_model) : NYB_E_ARGUMENT;
}

NYB_API nyb_status nyb_import_memory(nyb_context *cx, const void *data, size_t bytes, const nyb_import_options *options,
                                     nyb_model **out_model) {
  return cx && (data || !bytes) && out_model ? import(cx, NULL, data, bytes, options, out_model) : NYB_E_ARGUMENT;
}

NYB_API void nyb_model_close(nyb_model *model) {
  if (!model) return;
  ny_arena_free(&model->results);
  ny_unit_free(model->unit);
  ny_ctx_free(model->ir);
  free(model);
}

nyb_compile_options ny_compile_options(const nyb_compile_options *given) {
  nyb_compile_options o = {.size = sizeof o};
  if (given) memcpy(&o, given, given->size < sizeof o ? given->size : sizeof o);
  return o;
}

static nyb_status pass_options(nyb_context *cx, const nyb_compile_options *in, ny_pass_options *out) {
  *out = (ny_pass_options){.opt = in->optimize ? in->optimize - 1 : 2,
                           .only = in->only,
                           .until = in->until,
                           .off = in->off,
                           .dump_dir = in->dump_dir,
                           .verify_each = in->verify_each,
                           .strict = in->strict != 0,
                           .progress = cx->options.progress,
                           .user = cx->options.user};
  return ny_precision_find(in->precision, &out->precision, &cx->diag);
}

NYB_API nyb_status nyb_optimize(nyb_model *model, const nyb_compile_options *options) {
  if (!model) return NYB_E_ARGUMENT;
  ny_diag *d = &model->cx->diag;
  ny_diag_clear(d);
  nyb_compile_options o = ny_compile_options(options);
  ny_pass_options po;
  NY_TRY(pass_options(model->cx, &o, &po));
  if (o.target && strchr(o.target, ','))
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "a graph is optimised for one target, not for %s", o.target);
  NY_TRY(ny_target_find(o.target ? o.target : "host", &po.target, d));
  return ny_model_hand_over(model->cx, model->ir, NULL, ny_run_passes(model->unit, &po));
}

NYB_API nyb_status nyb_print(nyb_model *model, char **out_text) {
  if (!model || !out_text) return NYB_E_ARGUMENT;
  ny_text t = {0};
  ny_print_unit(model->unit, &t);
  *out_text = t.s;
  return NYB_OK;
}

NYB_API void nyb_free(void *p) { free(p); }

nyb_status ny_model_compile(nyb_model *model, const nyb_compile_options *options, const ny_target *only,
                            const char *out_path) {
  nyb_context *cx = model->cx;
  ny_diag_clear(&cx->diag);
  ny_diag_clear(&model->ir->diag);
  nyb_compile_options o = ny_compile_options(options);
  ny_pass_options po;
  NY_TRY(pass_options(cx, &o, &po));
  ny_arena a = {0};
  ny_compile_targets t = {.target = &only, .n = 1, .one_device = only != NULL};
  nyb_status s = only ? NYB_OK : ny_target_list(o.target, &a, &t.target, &t.n, &cx->diag);
  t.keep = 1u << NY_MI_CUBIN | (o.no_ptx ? 0 : 1u << NY_MI_PTX) | (o.with_source ? 1u << NY_MI_SOURCE : 0);
  if (!s) s = ny_model_hand_over(cx, model->ir, NULL, ny_compile_for(model->unit, &po, &t, o.threads, out_path));
  ny_arena_free(&a);
  return s;
}

void ny_model_vouch(nyb_context *cx, const char *path) {
  if (!cx->cache_dir || !ny_trust_file(cx, path)) return;
  ny_context_warn(cx, "%s will need --trust: %s", path, cx->diag.message);
  ny_diag_clear(&cx->diag);
}

NYB_API nyb_status nyb_compile(nyb_model *model, const nyb_compile_options *options, const char *out_path) {
  if (!model || !out_path) return NYB_E_ARGUMENT;
  NY_TRY(ny_model_compile(model, options, NULL, out_path));
  ny_model_vouch(model->cx, out_path);
  return NYB_OK;
}
