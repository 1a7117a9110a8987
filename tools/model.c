/* Opening a model for run and bench: compile or load, make inputs, make a session that fits them. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* Some models can only be compiled for sizes that are known, because what they do depends on them. Then the sizes of
 * the inputs given are used. */
static bool bind_inputs(const cli_model_options *o, cli_dims *dims) {
  *dims = o->dims;
  for (size_t k = 0; k < o->inputs.n; k++) {
    cli_array a;
    ny_diag d = {0};
    if (cli_npy_read(o->inputs.value[k], NY_none, &a, &d)) return false;
    for (int axis = 0; axis < a.t.ndim && dims->n < CLI_MAX_DIMS; axis++) {
      char name[300];
      if (snprintf(name, sizeof name, "%s@%d", o->inputs.name[k], axis) < (int)sizeof name)
        dims->v[dims->n++] = (nyb_dim){strdup(name), a.shape[axis]};
    }
    cli_array_free(&a);
  }
  return o->inputs.n > 0;
}

static nyb_status open_for(const char *path, const cli_dims *dims, cli_model *m) {
  const cli_model_options *o = m->o;
  nyb_import_options io = {.size = sizeof io, .dims = dims->v, .n_dims = dims->n};
  nyb_compile_options co = {.size = sizeof co,
                            .target = o->target,
                            .optimize = o->optimize,
                            .precision = o->precision,
                            .off = o->off,
                            .dump_dir = o->dump,
                            .threads = o->threads,
                            .device = o->device};
  nyb_load_options trust = {.size = sizeof trust, .trust = 1, .device = o->device};
  if (o->evaluate) return nyb_import(m->cx, path, &io, &m->model);
  if (o->trust && ny_ends_with(path, ".nyb")) {
    nyb_status s = nyb_load(m->cx, path, &trust, &m->module);
    if (s != NYB_E_TARGET) return s;
  }
  return nyb_open_model(m->cx, path, &io, &co, &m->module);
}

static int open_model(const char *path, cli_model *m) {
  cli_dims known;
  double t0 = ny_now();
  m->cx = cli_open(m->o->no_cache ? "" : NULL);
  nyb_status s = open_for(path, &m->o->dims, m);
  if ((s == NYB_E_UNSUPPORTED || s == NYB_E_SHAPE) && bind_inputs(m->o, &known)) {
    s = open_for(path, &known, m);
    if (!s) fprintf(stderr, "nybble: compiled for the sizes of these inputs only\n");
  }
  if (s) return cli_error(m->cx, s);
  m->open_s = ny_now() - t0;
  cli_progress_end();
  m->info.size = sizeof m->info;
  if (m->model)
    cli_signature(m->model, &m->info);
  else
    nyb_module_describe(m->module, &m->info);
  return CLI_OK;
}

static int64_t bound(const cli_dims *d, const char *name) {
  for (size_t i = 0; i < d->n; i++)
    if (!strcmp(d->v[i].name, name)) return d->v[i].size;
  return -1;
}

/* Files first: their shapes bind symbols that random inputs then follow. */
static int read_inputs(cli_model *m) {
  const cli_pairs *given = &m->o->inputs;
  cli_dims *dims = &m->dims;
  for (size_t k = 0; k < given->n; k++) {
    size_t i = 0;
    while (i < m->info.n_inputs && strcmp(m->info.inputs[i].name, given->name[k])) i++;
    if (i == m->info.n_inputs) return cli_fail("the model has no input %s", given->name[k]);
    const nyb_value_info *v = &m->info.inputs[i];
    ny_diag d = {0};
    if (cli_npy_read(given->value[k], ny_module_format(v->dtype), &m->in[i], &d)) return cli_diag(&d);
    for (int a = 0; a < v->ndim && a < m->in[i].t.ndim; a++)
      if (v->symbols[a] && bound(dims, v->symbols[a]) < 0 && dims->n < CLI_MAX_DIMS)
        dims->v[dims->n++] = (nyb_dim){v->symbols[a], m->in[i].shape[a]};
  }
  return CLI_OK;
}

/* Bytes a session and its random inputs may take; 0: what the machine has. A model of a few bytes can ask for
 * terabytes. */
static uint64_t memory_limit(const cli_model *m) {
  uint64_t given = 0;
  if (m->o->memory > 0) return (uint64_t)m->o->memory << 20;
  if (!m->o->careful) return 0;
  for (size_t i = 0; i < m->info.n_inputs; i++)
    if (m->in[i].memory) given += cli_tensor_bytes(&m->in[i].t);
  uint64_t likely = m->info.file_bytes < UINT64_MAX >> 8 ? 64 * m->info.file_bytes : UINT64_MAX >> 2, least = 256 << 20;
  return (likely > least ? likely : least) + 16 * given;
}

static int random_inputs(cli_model *m) {
  cli_dims *dims = &m->dims;
  uint64_t total = 0;
  for (size_t i = 0; i < m->info.n_inputs; i++) {
    if (m->in[i].memory) continue;
    const nyb_value_info *v = &m->info.inputs[i];
    int64_t shape[16];
    for (int a = 0; a < v->ndim && a < 16; a++) {
      shape[a] = v->shape[a] < 0 ? bound(dims, v->symbols[a]) : v->shape[a];
      if (shape[a] >= 0) continue;
      shape[a] = 1;
      if (dims->n == CLI_MAX_DIMS) return cli_fail("more than %d symbols", CLI_MAX_DIMS);
      dims->v[dims->n++] = (nyb_dim){v->symbols[a], 1};
      fprintf(stderr, "nybble: %s = 1 (set it with --dim %s=N)\n", v->symbols[a], v->symbols[a]);
    }
    uint64_t bytes = cli_bytes_of(v, shape);
    if (m->max_bytes && (bytes > m->max_bytes || (total += bytes) > m->max_bytes))
      return cli_fail("input %s: the random inputs take more than %llu MB; allow more with --max-memory MB", v->name,
                      (unsigned long long)(m->max_bytes >> 20));
    if (cli_array_new(v, shape, &m->in[i])) return cli_fail("input %s: its shape asks for too much memory", v->name);
    cli_array_random(&m->in[i], (uint64_t)m->o->seed + i);
  }
  return CLI_OK;
}

int cli_model_open(const char *path, const cli_model_options *o, cli_model *m) {
  *m = (cli_model){.o = o, .dims = o->dims};
  int bad = open_model(path, m);
  if (bad) return bad;
  m->in = calloc(m->info.n_inputs + 1, sizeof *m->in);
  m->in_t = calloc(m->info.n_inputs + 1, sizeof *m->in_t);
  m->out_t = calloc(m->info.n_outputs + 1, sizeof *m->out_t);
  if (!m->in || !m->in_t || !m->out_t) return cli_fail("out of memory");
  if ((bad = read_inputs(m))) return bad;
  m->max_bytes = memory_limit(m);
  if ((bad = random_inputs(m))) return bad;
  for (size_t i = 0; i < m->info.n_inputs; i++) {
    m->in_t[i] = m->in[i].t;
    m->in_t[i].shape = m->in[i].shape;
  }
  return m->module ? cli_model_session(m, false) : CLI_OK;
}

int cli_model_session(cli_model *m, bool profile) {
  cli_dims dims = {0}; /* a symbol that was bound at import is none of the module's any more */
  for (size_t i = 0; i < m->dims.n; i++)
    for (size_t k = 0; k < m->info.n_symbols; k++)
      if (!strcmp(m->dims.v[i].name, m->info.symbols[k])) dims.v[dims.n++] = m->dims.v[i];
  nyb_session_options so = {.size = sizeof so,
                            .threads = m->o->threads,
                            .dims = dims.v,
                            .n_dims = dims.n,
                            .profile = profile,
                            .max_bytes = m->max_bytes,
                            .max_seconds = m->o->seconds};
  nyb_session_close(m->session);
  memset(m->out_t, 0, m->info.n_outputs * sizeof *m->out_t); /* the old session's memory */
  nyb_status s = nyb_session_open(m->module, &so, &m->session);
  return s ? cli_error(m->cx, s) : CLI_OK;
}

nyb_status cli_model_run(cli_model *m) {
  if (m->session) return nyb_run(m->session, m->in_t, m->info.n_inputs, m->out_t, m->info.n_outputs);
  for (size_t i = 0; i < m->info.n_outputs; i++) m->out_t[i].data = NULL;
  return nyb_evaluate(m->model, m->in_t, m->info.n_inputs, m->out_t, m->info.n_outputs);
}

const char *cli_device(const cli_model *m) { return m->info.device ? m->info.device : "cpu"; }

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
