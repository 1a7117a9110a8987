/* Contexts, errors and names of statuses: the part of the API that both libraries have. */
#include "context.h"
#include <stdlib.h>
#include <string.h>

NYB_API const char *nyb_version(void) { return NYB_VERSION; }

NYB_API const char *nyb_status_text(nyb_status s) {
  static const char *const text[] = {
#define STATUS(name, text) text,
#include "nybble/status.def"
#undef STATUS
  };
  return s >= 0 && s < NYB_STATUS_COUNT ? text[s] : "unknown status";
}

static void copy_options(nyb_context *cx, const nyb_options *o) {
  size_t size = o ? o->size : 0;
  if (size) memcpy(&cx->options, o, size < sizeof cx->options ? size : sizeof cx->options);
  cx->options.size = sizeof cx->options;
}

NYB_API nyb_status nyb_open(const nyb_options *options, nyb_context **out_cx) {
  if (!out_cx) return NYB_E_ARGUMENT;
  *out_cx = NULL;
  nyb_context *cx = calloc(1, sizeof *cx);
  if (!cx) return NYB_E_NOMEM;
  copy_options(cx, options);
  if (pthread_mutex_init(&cx->lock, NULL)) {
    free(cx);
    return NYB_E_NOMEM;
  }
  const char *dir = cx->options.cache_dir;
  if (!dir)
    cx->cache_dir = ny_cache_dir(&cx->arena);
  else if (*dir && ny_private_dir(dir))
    cx->cache_dir = ny_strdup(&cx->arena, dir);
  if (!cx->cache_dir && (!dir || *dir)) ny_context_warn(cx, "no usable cache folder: compiled models will not be kept");
  cx->options.cache_dir = cx->cache_dir;
  *out_cx = cx;
  return NYB_OK;
}

NYB_API void nyb_close(nyb_context *cx) {
  if (!cx) return;
  pthread_mutex_destroy(&cx->lock);
  ny_text_free(&cx->text);
  ny_arena_free(&cx->names);
  ny_arena_free(&cx->arena);
  free(cx);
}

void ny_context_warn(const nyb_context *cx, const char *fmt, ...) {
  char text[1200];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (cx->options.warning) cx->options.warning(cx->options.user, text);
}

/* ---- errors */
static const char *keep(ny_arena *a, const char *s) { return s ? ny_strdup(a, s) : NULL; }

void ny_context_keep_names(nyb_context *cx, const char *file) {
  ny_arena old = cx->names; /* the strings may already be ours */
  cx->names = (ny_arena){0};
  cx->diag.file = keep(&cx->names, cx->diag.file ? cx->diag.file : file);
  cx->diag.pass = keep(&cx->names, cx->diag.pass);
  cx->diag.loc.node = keep(&cx->names, cx->diag.loc.node);
  cx->diag.loc.op_type = keep(&cx->names, cx->diag.loc.op_type);
  ny_arena_free(&old);
}

nyb_status ny_context_report(nyb_context *cx, const ny_diag *d) {
  if (!d->code) return NYB_OK;
  pthread_mutex_lock(&cx->lock);
  cx->diag = *d;
  ny_context_keep_names(cx, NULL);
  pthread_mutex_unlock(&cx->lock);
  return d->code;
}

NYB_API const nyb_error *nyb_last_error(const nyb_context *const_cx) {
  nyb_context *cx = (nyb_context *)const_cx; /* rendering is a cache */
  if (!cx) return NULL;
  pthread_mutex_lock(&cx->lock);
  const ny_diag *d = &cx->diag;
  bool failed = d->code != NYB_OK, node = failed && d->has_loc && (d->loc.node || d->loc.op_type);
  if (failed) {
    cx->text.n = 0;
    ny_diag_print(d, &cx->text);
    cx->error = (nyb_error){.code = d->code,
                            .message = d->message,
                            .text = cx->text.s,
                            .node_name = node ? d->loc.node : NULL,
                            .op_type = node ? d->loc.op_type : NULL,
                            .node_index = node ? (int64_t)d->loc.index : -1,
                            .file_offset = node ? (int64_t)d->loc.offset : -1,
                            .pass = d->pass};
  }
  pthread_mutex_unlock(&cx->lock);
  return failed ? &cx->error : NULL;
}
