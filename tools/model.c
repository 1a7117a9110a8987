/* Opening a model for run, bench and inspect: compile or load, make inputs, make a session that fits them. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* Some models can only be compiled for sizes that are known, because what they do depends on them. Then the sizes of the inputs given are used. */
static bool bind_inputs(const cli_model_options *o, cli_dims *dims) {
  *dims = o->dims;
  for (size_t k = 0; k < o->inputs.n; k++) {
    cli_array a;
    ny_diag d = {0};
    if (cli_npy_read(o->inputs.value[k], &a, &d)) return false;
    for (int axis = 0; axis < a.t.ndim && dims->n < CLI_MAX_DIMS; axis++) {
      char name[300];
      if (snprintf(name, sizeof name, "%s@%d", o->inputs.name[k], axis) < (int)sizeof name) dims->v[dims->n++] = (nyb_dim){strdup(name), a.shape[axis]};
    }
    cli_array_free(&a);
  }
  return o->inputs.n > 0;
}

static int open_module(const char *path, const cli_model_options *o, cli_model *m) {
  nyb_options co = {.size = sizeof co, .cache_dir = o->no_cache ? "" : NULL};
  m->cx = o->no_cache ? NULL : cli_open();
  if (!m->cx && nyb_open(&co, &m->cx)) return cli_fail("out of memory");
  nyb_import_options io = {.size = sizeof io, .dims = o->dims.v, .n_dims = o->dims.n};
  nyb_compile_options cc = {.size = sizeof cc, .target = o->target, .optimize = o->optimize, .dump_dir = o->dump, .threads = o->threads};
  cli_dims known;
  double t0 = ny_now();
  size_t len = strlen(path);
  nyb_status s;
  if (o->evaluate) {
    s = nyb_import(m->cx, path, &io, &m->model);
    if (!s) cli_signature(m->model, &m->info);
    return s ? cli_error(m->cx, s) : CLI_OK;
  }
  if (o->trust && len > 4 && !strcmp(path + len - 4, ".nyb")) {
    nyb_load_options lo = {.size = sizeof lo, .trust = 1};
    s = nyb_load(m->cx, path, &lo, &m->module);
  } else s = nyb_open_model(m->cx, path, &io, &cc, &m->module);
  if ((s == NYB_E_UNSUPPORTED || s == NYB_E_SHAPE) && bind_inputs(o, &known)) {
    io = (nyb_import_options){.size = sizeof io, .dims = known.v, .n_dims = known.n};
    s = nyb_open_model(m->cx, path, &io, &cc, &m->module);
    if (!s) fprintf(stderr, "nybble: compiled for the sizes of these inputs only\n");
  }
  if (s) return cli_error(m->cx, s);
  m->open_s = ny_now() - t0;
  cli_progress_end();
  m->info.size = sizeof m->info;
  return nyb_module_describe(m->module, &m->info) ? cli_error(m->cx, NYB_E_INTERNAL) : CLI_OK;
}

static int64_t bound(const cli_dims *d, const char *name) {
  for (size_t i = 0; i < d->n; i++)
    if (!strcmp(d->v[i].name, name)) return d->v[i].size;
  return -1;
}

/* Files first: their shapes bind symbols that random inputs then follow. */
static int read_inputs(const cli_model_options *o, cli_model *m, cli_dims *dims) {
  for (size_t k = 0; k < o->inputs.n; k++) {
    size_t i = 0;
    while (i < m->info.n_inputs && strcmp(m->info.inputs[i].name, o->inputs.name[k])) i++;
    if (i == m->info.n_inputs) return cli_fail("the model has no input %s", o->inputs.name[k]);
    ny_diag d = {0};
    if (cli_npy_read(o->inputs.value[k], &m->in[i], &d)) return cli_fail("%s", d.message);
    const nyb_value_info *v = &m->info.inputs[i];
    for (int a = 0; a < v->ndim && a < m->in[i].t.ndim; a++)
      if (v->symbols[a] && bound(dims, v->symbols[a]) < 0 && dims->n < CLI_MAX_DIMS)
        dims->v[dims->n++] = (nyb_dim){v->symbols[a], m->in[i].shape[a]};
  }
  return CLI_OK;
}

/* Bytes a session and its random inputs may take; 0: what the machine has. A model of a few bytes can ask for terabytes. */
static uint64_t memory_limit(const cli_model_options *o, const cli_model *m) {
  uint64_t given = 0;
  if (o->memory > 0) return (uint64_t)o->memory << 20;
  if (!o->careful) return 0;
  for (size_t i = 0; i < m->info.n_inputs; i++)
    if (m->in[i].memory) given += cli_tensor_bytes(&m->in[i].t);
  uint64_t likely = m->info.file_bytes < UINT64_MAX >> 8 ? 64 * m->info.file_bytes : UINT64_MAX >> 2, least = 256 << 20;
  return (likely > least ? likely : least) + 16 * given;
}

static int random_inputs(const cli_model_options *o, cli_model *m, cli_dims *dims, uint64_t limit) {
  uint64_t total = 0;
  for (size_t i = 0; i < m->info.n_inputs; i++) {
    if (m->in[i].memory) continue;
    const nyb_value_info *v = &m->info.inputs[i];
    int64_t shape[16];
    for (int a = 0; a < v->ndim && a < 16; a++) {
      shape[a] = v->shape[a];
      if (shape[a] >= 0) continue;
      shape[a] = bound(dims, v->symbols[a]);
      if (shape[a] >= 0) continue;
      shape[a] = 1;
      if (dims->n == CLI_MAX_DIMS) return cli_fail("more than %d symbols", CLI_MAX_DIMS);
      dims->v[dims->n++] = (nyb_dim){v->symbols[a], 1};
      fprintf(stderr, "nybble: %s = 1 (set it with --dim %s=N)\n", v->symbols[a], v->symbols[a]);
    }
    uint64_t bytes = cli_bytes_of(v, shape);
    if (limit && (bytes > limit || (total += bytes) > limit))
      return cli_fail("input %s: the random inputs take more than %llu MB; allow more with --max-memory MB", v->name, (unsigned long long)(limit >> 20));
    if (cli_array_new(v, shape, &m->in[i])) return cli_fail("input %s: its shape asks for too much memory", v->name);
    cli_array_random(&m->in[i], (uint64_t)o->seed + i);
  }
  return CLI_OK;
}

int cli_model_open(const char *path, const cli_model_options *o, cli_model *m) {
  *m = (cli_model){0};
  int bad = open_module(path, o, m);
  if (bad) return bad;
  m->in = calloc(m->info.n_inputs + 1, sizeof *m->in);
  m->in_t = calloc(m->info.n_inputs + 1, sizeof *m->in_t);
  m->out_t = calloc(m->info.n_outputs + 1, sizeof *m->out_t);
  if (!m->in || !m->in_t || !m->out_t) return cli_fail("out of memory");
  cli_dims dims = o->dims;
  if ((bad = read_inputs(o, m, &dims))) return bad;
  uint64_t limit = memory_limit(o, m);
  if ((bad = random_inputs(o, m, &dims, limit))) return bad;
  for (size_t i = 0; i < m->info.n_inputs; i++) {
    m->in_t[i] = m->in[i].t;
    m->in_t[i].shape = m->in[i].shape;
  }
  if (o->evaluate) return CLI_OK;
  size_t n = 0; /* a symbol that was bound at import is none of the module's any more */
  for (size_t i = 0; i < dims.n; i++)
    for (size_t k = 0; k < m->info.n_symbols; k++)
      if (!strcmp(dims.v[i].name, m->info.symbols[k])) dims.v[n++] = dims.v[i];
  dims.n = n;
  nyb_session_options so = {.size = sizeof so, .threads = o->threads, .dims = dims.v, .n_dims = dims.n, .profile = o->profile, .max_bytes = limit, .max_seconds = o->seconds};
  nyb_status s = nyb_session_open(m->module, &so, &m->session);
  return s ? cli_error(m->cx, s) : CLI_OK;
}

nyb_status cli_model_run(cli_model *m) {
  if (m->session) return nyb_run(m->session, m->in_t, m->info.n_inputs, m->out_t, m->info.n_outputs);
  for (size_t i = 0; i < m->info.n_outputs; i++) m->out_t[i].data = NULL;
  return nyb_evaluate(m->model, m->in_t, m->info.n_inputs, m->out_t, m->info.n_outputs);
}

void cli_model_close(cli_model *m) {
  nyb_model_close(m->model);
  nyb_session_close(m->session);
  for (size_t i = 0; m->in && i < m->info.n_inputs; i++) cli_array_free(&m->in[i]);
  free(m->in);
  free(m->in_t);
  free(m->out_t);
  nyb_module_close(m->module);
  nyb_close(m->cx);
}
