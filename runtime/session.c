/* Sessions: everything a run needs is allocated here. Sizes are evaluated for the largest dimensions the caller names;
   a run with others evaluates the same tables again and only compares. */
#include "session.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 1024 };

/* ---- planning */
static nyb_status too_small(nyb_session *s, const char *what, uint64_t need, uint64_t have) {
  return ny_fail(&s->diag, NYB_E_SHAPE, NULL,
                 "these sizes need %llu bytes of %s, the session has %llu: prepare it for them first",
                 (unsigned long long)need, what, (unsigned long long)have);
}

nyb_status ny_session_fit(nyb_session *s, ny_block_of_memory *b, uint64_t need, const char *what, bool grow) {
  if (need <= b->bytes) return NYB_OK;
  return grow ? ny_block_grow(b, need, what, &s->diag) : too_small(s, what, need, b->bytes);
}

static void place_buffers(nyb_session *s) {
  const uint8_t *file = s->module->map.data;
  for (uint32_t i = 0; i < s->mod->n_buffers; i++) {
    const ny_mod_buffer *b = &s->mod->buffer[i];
    if (b->place == NY_MP_ARENA) s->ptr[i] = (char *)s->arena.p + s->val[b->offset];
    if (b->place != NY_MP_WEIGHT) continue;
    const uint8_t *segment =
        s->remote ? ny_program_weights(s->module->resident, b->index) : file + s->mod->segment[b->index].offset;
    s->ptr[i] = (void *)(uintptr_t)(segment + s->val[b->offset]);
  }
}

/* Before anything is taken: memory that is only promised kills the process when it is touched. */
static nyb_status within_limit(nyb_session *s) {
  const ny_mod *m = s->mod;
  uint64_t total = (uint64_t)s->val[m->arena] + s->scratch.bytes;
  for (uint32_t i = 0; i < m->n_outputs; i++) {
    uint64_t bytes = 0;
    ny_plan_value_bytes(&m->output[i], s->val, &bytes);
    if (__builtin_add_overflow(total, bytes, &total)) total = UINT64_MAX;
  }
  if (total <= s->max_bytes) return NYB_OK;
  return ny_fail(
      &s->diag, NYB_E_LIMIT, NULL,
      "activations and results need %llu MB with these sizes; the session may take %llu MB (max_bytes, --max-memory)",
      (unsigned long long)(total >> 20), (unsigned long long)(s->max_bytes >> 20));
}

nyb_status ny_session_plan(nyb_session *s, bool grow, bool compare) {
  const ny_mod *m = s->mod;
  s->planned = false;
  NY_TRY(ny_plan_eval(m, s->sym, s->val, &s->diag));
  if (compare) NY_TRY(ny_plan_requires(m, s->val, &s->diag));
  NY_TRY(ny_plan_check(m, s->val, &s->diag));
  if (grow) NY_TRY(within_limit(s));
  NY_TRY(ny_session_fit(s, &s->arena, (uint64_t)s->val[m->arena] + 1, "activation memory", grow)); /* never NULL */
  for (uint32_t i = 0; i < m->n_outputs; i++) {
    uint64_t bytes = 0;
    ny_plan_value_bytes(&m->output[i], s->val, &bytes);
    NY_TRY(ny_session_fit(s, &s->output[i], bytes ? bytes : 1, "output memory", grow));
    for (uint32_t k = 0; k < m->output[i].rank; k++) s->out_shape[i][k] = s->val[m->output[i].dim[k]];
  }
  if (s->remote) NY_TRY(ny_remote_plan(s, grow));
  place_buffers(s);
  s->planned = compare;
  return NYB_OK;
}

/* Sizes nobody gave yet are no ground for a refusal. */
static nyb_status plan_named(nyb_session *s) {
  bool all = true;
  for (uint32_t i = 0; i < s->mod->n_symbols; i++) all &= s->named[i];
  return ny_session_plan(s, true, all);
}

/* ---- opening */
static void find_sites(nyb_session *s) {
  const ny_mod *m = s->mod;
  for (uint32_t i = 0; i < m->n_inputs; i++)
    for (uint32_t k = 0; k < m->input[i].rank; k++) {
      const ny_mod_expr *e = &m->expr[m->input[i].dim[k]];
      if (e->op == NY_MX_SYMBOL && !s->site[e->value].bound) s->site[e->value] = (ny_binding_site){i, k, true};
    }
}

static void make_tables(nyb_session *s) {
  const ny_mod *m = s->mod;
  uint32_t buffers = 0, dims = 0;
  for (uint32_t i = 0; i < m->n_kernels; i++) {
    const ny_mod_kernel *k = &m->kernel[i];
    if (k->n_buffers > buffers) buffers = k->n_buffers;
    if (k->n_dims > dims) dims = k->n_dims;
    if (k->scratch > s->scratch_stride) s->scratch_stride = k->scratch;
  }
  /* A page and a line apart, so that the threads' scratch does not fall into the same cache sets. */
  if (s->scratch_stride) s->scratch_stride = ((s->scratch_stride + 4095) & ~(uint64_t)4095) + 64;
  s->sym = NY_NEW_ARRAY(&s->rows, int64_t, m->n_symbols);
  s->val = NY_NEW_ARRAY(&s->rows, int64_t, m->n_exprs);
  s->named = NY_NEW_ARRAY(&s->rows, bool, m->n_symbols);
  s->site = NY_NEW_ARRAY(&s->rows, ny_binding_site, m->n_symbols);
  s->output = NY_NEW_ARRAY(&s->rows, ny_block_of_memory, m->n_outputs);
  s->out_shape = ny_alloc(&s->rows, sizeof *s->out_shape * m->n_outputs);
  s->ptr = NY_NEW_ARRAY(&s->rows, void *, m->n_buffers);
  s->launch_ptr = NY_NEW_ARRAY(&s->rows, void *, buffers);
  s->launch_dim = NY_NEW_ARRAY(&s->rows, int64_t, dims);
  for (uint32_t i = 0; i < m->n_symbols; i++) s->sym[i] = 1;
  find_sites(s);
}

static void start_profile(nyb_session *s) {
  s->time = NY_NEW_ARRAY(&s->rows, nyb_kernel_time, s->mod->n_kernels + 1);
  for (uint32_t i = 0; i < s->mod->n_kernels; i++)
    s->time[i] = (nyb_kernel_time){.name = s->mod->kernel[i].name, .family = s->mod->kernel[i].family};
}

static nyb_status set_dims(nyb_session *s, const nyb_dim *dims, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint32_t k = 0;
    const char *name = dims[i].name ? dims[i].name : "";
    if (*name == '?') name++; /* as it is printed */
    while (k < s->mod->n_symbols && strcmp(s->mod->symbol[k], name)) k++;
    if (k == s->mod->n_symbols)
      return ny_fail(&s->diag, NYB_E_ARGUMENT, NULL, "the module has no dimension named %s", name);
    if (dims[i].size < 0)
      return ny_fail(&s->diag, NYB_E_ARGUMENT, NULL, "dimension %s cannot be %lld", name, (long long)dims[i].size);
    s->sym[k] = dims[i].size;
    s->named[k] = true;
  }
  return NYB_OK;
}

static nyb_status start_threads(nyb_session *s, const nyb_session_options *o) {
  uint64_t scratch;
  if (__builtin_mul_overflow(s->scratch_stride, (uint64_t)s->threads, &scratch)) scratch = UINT64_MAX;
  if (scratch > s->max_bytes)
    return ny_fail(&s->diag, NYB_E_LIMIT, NULL,
                   "scratch memory of %d threads needs %llu MB; the session may take %llu MB", s->threads,
                   (unsigned long long)(scratch >> 20), (unsigned long long)(s->max_bytes >> 20));
  NY_TRY(ny_block_grow(&s->scratch, scratch, "scratch memory", &s->diag));
  NY_TRY(plan_named(s));
  return ny_pool_new(s->threads, o->spin_us ? o->spin_us < 0 ? 0 : o->spin_us : 50, &s->pool, &s->diag);
}

static nyb_status start_device(nyb_session *s, const nyb_session_options *o) {
  const char *source;
  s->threads = 1;
  if (!o->max_bytes) NY_TRY(ny_device_room(s->module->device, &s->max_bytes, &source, &s->diag));
  NY_TRY(ny_remote_open(s));
  return plan_named(s);
}

static nyb_status fill(nyb_session *s, const nyb_session_options *o) {
  ny_host_facts host;
  ny_host_read(&host);
  if (o->threads < 0 || o->threads > MAX_THREADS)
    return ny_fail(&s->diag, NYB_E_ARGUMENT, NULL, "a session has 1 to %d threads, not %d", MAX_THREADS, o->threads);
  if (s->mod->code.bytes && !s->module->code)
    return ny_fail(&s->diag, NYB_E_TRUST, NULL, "the module's code was not loaded");
  s->max_bytes = o->max_bytes ? o->max_bytes : host.mem_bytes ? host.mem_bytes : UINT64_MAX;
  s->max_seconds = o->max_seconds > 0 ? o->max_seconds : 0;
  s->threads = o->threads ? o->threads : host.n_cpu < MAX_THREADS ? host.n_cpu : MAX_THREADS;
  make_tables(s);
  NY_TRY(set_dims(s, o->dims, o->n_dims));
  return s->module->device ? start_device(s, o) : start_threads(s, o);
}

NYB_API nyb_status nyb_session_open(nyb_module *module, const nyb_session_options *options, nyb_session **out_session) {
  if (!module || !out_session) return NYB_E_ARGUMENT;
  *out_session = NULL;
  nyb_session_options o = {0};
  if (options) memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
  nyb_session *s = calloc(1, sizeof *s);
  if (!s) return NYB_E_NOMEM;
  s->module = module;
  s->mod = &module->mod;
  s->diag.file = module->path;
  nyb_status r = fill(s, &o);
  if (!r && o.profile) start_profile(s);
  if (r) {
    ny_context_report(module->cx, &s->diag);
    nyb_session_close(s);
    return r;
  }
  *out_session = s;
  return NYB_OK;
}

NYB_API nyb_status nyb_session_prepare(nyb_session *session, const nyb_dim *dims, size_t n_dims) {
  if (!session || (n_dims && !dims)) return NYB_E_ARGUMENT;
  ny_diag_clear(&session->diag);
  nyb_status r = set_dims(session, dims, n_dims);
  if (!r) r = plan_named(session);
  return r ? ny_context_report(session->module->cx, &session->diag) : NYB_OK;
}

NYB_API void nyb_session_close(nyb_session *session) {
  if (!session) return;
  ny_pool_free(session->pool);
  ny_block_free(&session->arena);
  ny_block_free(&session->scratch);
  for (uint32_t i = 0; session->output && i < session->mod->n_outputs; i++) ny_block_free(&session->output[i]);
  ny_remote_close(session);
  ny_arena_free(&session->rows);
  free(session);
}

NYB_API nyb_status nyb_session_describe(const nyb_session *session, nyb_session_stats *out) {
  if (!session || !out || !out->size) return NYB_E_ARGUMENT;
  uint64_t outputs = 0;
  for (uint32_t i = 0; i < session->mod->n_outputs; i++) outputs += session->output[i].mapped;
  nyb_session_stats all = {.size = out->size,
                           .arena_bytes = session->arena.mapped + outputs + ny_remote_bytes(session),
                           .scratch_bytes = session->scratch.mapped,
                           .weight_bytes = session->module->info.weight_bytes,
                           .threads = session->threads};
  memcpy(out, &all, out->size < sizeof all ? out->size : sizeof all);
  return NYB_OK;
}

NYB_API nyb_status nyb_session_profile(const nyb_session *session, const nyb_kernel_time **out_times, size_t *out_n) {
  if (!session || !out_times || !out_n) return NYB_E_ARGUMENT;
  *out_times = session->time;
  *out_n = session->time ? session->mod->n_kernels : 0;
  return NYB_OK;
}
