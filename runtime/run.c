/* One run: symbols are bound from the shapes of the inputs, every dimension is compared, buffers get their addresses,
   commands are executed in order. Nothing here allocates, and nothing takes a lock unless the run fails. */
#include "session.h"
#include <string.h>

/* ---- tensors */
bool ny_tensor_dense(const nyb_tensor *t) {
  if (!t->strides) return true;
  int64_t step = 1;
  bool ok = true;
  for (int32_t k = t->ndim - 1; k >= 0; k--) {
    if (t->shape[k] == 0) return true;
    ok &= t->shape[k] == 1 || t->strides[k] == step;
    if (__builtin_mul_overflow(step, t->shape[k], &step)) return false;
  }
  return ok;
}

static nyb_status check_device(nyb_session *s, const char *what, const ny_mod_value *v, nyb_device_id where) {
  const ny_device_facts *f = s->module->device ? ny_device_describe(s->module->device) : NULL;
  if (where.type == 0 || where.type == 1 || (f && where.type == f->id.type && where.id == f->id.id)) return NYB_OK;
  if (!f)
    return ny_fail(&s->diag, NYB_E_DEVICE, NULL, "%s \"%s\" is on device type %d, only the CPU (1) is supported", what,
                   v->name, where.type);
  return ny_fail(&s->diag, NYB_E_DEVICE, NULL,
                 "%s \"%s\" is on device type %d, number %d; only the CPU (1) and %s (%d, number %d) are supported",
                 what, v->name, where.type, where.id, f->spelled, f->id.type, f->id.id);
}

static nyb_status check_tensor(nyb_session *s, const char *what, const ny_mod_value *v, const nyb_tensor *t) {
  nyb_dtype want = ny_module_dtype(v->fmt);
  ny_diag *d = &s->diag;
  NY_TRY(check_device(s, what, v, t->device));
  if (t->dtype.code != want.code || t->dtype.bits != want.bits || t->dtype.lanes > 1)
    return ny_fail(d, NYB_E_TYPE, NULL,
                   "%s \"%s\" has dtype code %d, %d bits, %d lanes; %s is code %d, %d bits, 1 lane", what, v->name,
                   t->dtype.code, t->dtype.bits, t->dtype.lanes, ny_fmts[v->fmt].name, want.code, want.bits);
  if (t->ndim != (int32_t)v->rank)
    return ny_fail(d, NYB_E_SHAPE, NULL, "%s \"%s\" has %d dimensions, %u are expected", what, v->name, t->ndim,
                   v->rank);
  if (t->ndim && !t->shape) return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s \"%s\" has no shape", what, v->name);
  for (int32_t k = 0; k < t->ndim; k++)
    if (t->shape[k] < 0)
      return ny_fail(d, NYB_E_SHAPE, NULL, "%s \"%s\": dimension %d is %lld", what, v->name, k, (long long)t->shape[k]);
  if (!ny_tensor_dense(t))
    return ny_fail(d, NYB_E_ARGUMENT, NULL,
                   "%s \"%s\" is strided: only dense row-major tensors are accepted, make it contiguous", what,
                   v->name);
  return NYB_OK;
}

static nyb_status check_address(nyb_session *s, const char *what, const ny_mod_value *v, const void *p) {
  uint64_t align = ny_fmts[v->fmt].bits < 16 ? 1 : ny_fmts[v->fmt].bits / 8;
  if ((uintptr_t)p % align == 0) return NYB_OK;
  return ny_fail(&s->diag, NYB_E_ARGUMENT, NULL,
                 "%s \"%s\" is at address %p, which is not aligned to its elements of %llu bytes", what, v->name, p,
                 (unsigned long long)align);
}

/* ---- symbols */
static bool bind_symbols(nyb_session *s, const nyb_tensor *in) {
  const ny_mod *m = s->mod;
  bool changed = !s->planned;
  for (uint32_t k = 0; k < m->n_symbols; k++) {
    if (!s->site[k].bound) continue;
    int64_t now = in[s->site[k].input].shape[s->site[k].dim];
    changed |= s->sym[k] != now;
    s->sym[k] = now;
  }
  return changed;
}

static nyb_status wrong_dim(nyb_session *s, uint32_t i, uint32_t k, int64_t got, int64_t want) {
  const ny_mod_value *v = &s->mod->input[i];
  const ny_mod_expr *e = &s->mod->expr[v->dim[k]];
  char why[256] = "";
  if (e->op == NY_MX_SYMBOL && s->site[e->value].bound) {
    ny_binding_site b = s->site[e->value];
    snprintf(why, sizeof why, ": ?%.80s is dimension %u of input \"%.80s\"", s->mod->symbol[e->value], b.dim,
             s->mod->input[b.input].name);
  } else if (v->text[k]) {
    snprintf(why, sizeof why, " (%.200s)", v->text[k]);
  }
  return ny_fail(&s->diag, NYB_E_SHAPE, NULL, "input \"%s\": dimension %u is %lld, %lld is expected%s", v->name, k,
                 (long long)got, (long long)want, why);
}

/* Plain symbols and numbers, before anything is evaluated with sizes that may contradict each other. */
static nyb_status compare_plain(nyb_session *s, const nyb_tensor *in) {
  for (uint32_t i = 0; i < s->mod->n_inputs; i++)
    for (uint32_t k = 0; k < s->mod->input[i].rank; k++) {
      const ny_mod_expr *e = &s->mod->expr[s->mod->input[i].dim[k]];
      if (e->op > NY_MX_SYMBOL) continue;
      int64_t want = e->op == NY_MX_CONST ? e->value : s->sym[e->value];
      if (in[i].shape[k] != want) return wrong_dim(s, i, k, in[i].shape[k], want);
    }
  return NYB_OK;
}

static nyb_status compare_all(nyb_session *s, const nyb_tensor *in) {
  for (uint32_t i = 0; i < s->mod->n_inputs; i++)
    for (uint32_t k = 0; k < s->mod->input[i].rank; k++) {
      int64_t want = s->val[s->mod->input[i].dim[k]];
      if (in[i].shape[k] != want) return wrong_dim(s, i, k, in[i].shape[k], want);
    }
  return NYB_OK;
}

/* ---- outputs */
static nyb_status check_room(nyb_session *s, uint32_t i, const nyb_tensor *t, uint64_t need) {
  if (!t->shape || t->shape == s->out_shape[i]) return NYB_OK; /* the caller vouches for the size */
  const ny_mod_value *v = &s->mod->output[i];
  uint64_t n = 1;
  for (int32_t k = 0; k < t->ndim; k++)
    if (t->shape[k] < 0 || __builtin_mul_overflow(n, (uint64_t)t->shape[k], &n)) return NYB_OK;
  uint64_t have = ny_fmt_bytes(v->fmt, n);
  return have >= need ? NYB_OK
                      : ny_fail(&s->diag, NYB_E_SHAPE, NULL, "output \"%s\" needs %llu bytes, its tensor holds %llu",
                                v->name, (unsigned long long)need, (unsigned long long)have);
}

nyb_status ny_session_output(nyb_session *s, uint32_t i, nyb_tensor *t, void **address) {
  const ny_mod_value *v = &s->mod->output[i];
  nyb_dtype want = ny_module_dtype(v->fmt);
  uint64_t bytes = 0;
  ny_plan_value_bytes(v, s->val, &bytes);
  bool ours = !t->data || t->data == s->output[i].p; /* a tensor of the previous run may be handed in again */
  if (ours) {
    t->data = s->output[i].p;
    t->byte_offset = 0;
    t->device = (nyb_device_id){1, 0};
  } else {
    if (!t->device.type) t->device = (nyb_device_id){1, 0};
    NY_TRY(check_device(s, "output", v, t->device));
    if (t->dtype.bits && (t->dtype.code != want.code || t->dtype.bits != want.bits))
      return ny_fail(&s->diag, NYB_E_TYPE, NULL, "output \"%s\" has dtype code %d, %d bits; %s is code %d, %d bits",
                     v->name, t->dtype.code, t->dtype.bits, ny_fmts[v->fmt].name, want.code, want.bits);
    NY_TRY(check_room(s, i, t, bytes));
  }
  *address = (char *)t->data + t->byte_offset;
  NY_TRY(check_address(s, "output", v, *address));
  t->dtype = want;
  t->ndim = (int32_t)v->rank;
  t->shape = s->out_shape[i];
  t->strides = NULL;
  return NYB_OK;
}

nyb_status ny_session_input(nyb_session *s, uint32_t i, const nyb_tensor *t, const void **address, uint64_t *bytes) {
  const ny_mod_value *v = &s->mod->input[i];
  *address = t->data ? (const char *)t->data + t->byte_offset : NULL;
  ny_plan_value_bytes(v, s->val, bytes);
  if (!t->data && *bytes) return ny_fail(&s->diag, NYB_E_ARGUMENT, NULL, "input \"%s\" has no data", v->name);
  return check_address(s, "input", v, *address);
}

void ny_session_views(nyb_session *s) {
  const ny_mod *m = s->mod;
  for (uint32_t i = 0; i < m->n_buffers; i++) {
    const ny_mod_buffer *b = &m->buffer[i];
    if (b->place == NY_MP_INPUT) s->ptr[i] = s->ptr[m->input[b->index].buffer];
    if (b->place == NY_MP_OUTPUT) s->ptr[i] = s->ptr[m->output[b->index].buffer];
  }
}

static nyb_status bind_buffers(nyb_session *s, const nyb_tensor *in, nyb_tensor *out) {
  const ny_mod *m = s->mod;
  for (uint32_t i = 0; i < m->n_inputs; i++) {
    const void *p;
    uint64_t bytes = 0;
    NY_TRY(ny_session_input(s, i, &in[i], &p, &bytes));
    s->ptr[m->input[i].buffer] = (void *)(uintptr_t)p;
  }
  for (uint32_t i = 0; i < m->n_outputs; i++) NY_TRY(ny_session_output(s, i, &out[i], &s->ptr[m->output[i].buffer]));
  ny_session_views(s);
  return NYB_OK;
}

/* ---- commands */
typedef struct launch {
  const nyb_session *s;
  nyb_kernel_fn *fn;
} launch;

static void launch_part(void *user, int64_t begin, int64_t end, int thread) {
  const launch *l = user;
  const nyb_session *s = l->s;
  nyb_dispatch d = {.buffer = s->launch_ptr,
                    .dim = s->launch_dim,
                    .thread = thread,
                    .scratch = s->scratch_stride ? (char *)s->scratch.p + s->scratch_stride * (uint64_t)thread : NULL};
  l->fn(&d, begin, end);
}

static void run_launch(nyb_session *s, const ny_mod_command *q) {
  const ny_mod_kernel *k = &s->mod->kernel[q->kernel];
  for (uint32_t i = 0; i < q->n_buffers; i++) s->launch_ptr[i] = s->ptr[q->buffer[i]];
  for (uint32_t i = 0; i < q->n_dims; i++) s->launch_dim[i] = s->val[q->dim[i]];
  int64_t n = s->val[q->extent], grain = s->val[q->grain], chunk = n / (4 * (int64_t)s->threads);
  launch l = {s, (nyb_kernel_fn *)(uintptr_t)(s->module->code + k->entry)};
  double start = s->time ? ny_now() : 0;
  ny_pool_run(s->pool, launch_part, &l, n, chunk > grain ? chunk : grain);
  if (!s->time) return;
  s->time[q->kernel].seconds += ny_now() - start;
  s->time[q->kernel].calls++;
}

typedef struct copy {
  char *to;
  const char *from;
} copy;

static void copy_part(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const copy *c = user;
  memcpy(c->to + begin, c->from + begin, (size_t)(end - begin));
}

static void run_copy(nyb_session *s, const ny_mod_command *q, int64_t iteration) {
  int64_t bytes = s->val[q->bytes], piece = 256 << 10;
  copy c = {(char *)s->ptr[q->buffer[1]] + (q->stacked ? iteration * bytes : 0), s->ptr[q->buffer[0]]};
  uintptr_t to = (uintptr_t)c.to, from = (uintptr_t)c.from;
  if (!bytes || to == from) return;
  bool apart = to + (uintptr_t)bytes <= from || from + (uintptr_t)bytes <= to;
  if (apart && bytes >= 4 * piece)
    ny_pool_run(s->pool, copy_part, &c, bytes, piece);
  else
    memmove(c.to, c.from, (size_t)bytes);
}

static bool is_true(const nyb_session *s, uint32_t buffer) { return *(const uint8_t *)s->ptr[buffer] != 0; }

nyb_status ny_session_in_time(nyb_session *s) {
  if (s->deadline <= 0 || ny_now() <= s->deadline) return NYB_OK;
  return ny_fail(&s->diag, NYB_E_LIMIT, NULL, "the run was stopped in a loop after %g seconds", s->max_seconds);
}

static nyb_status run_commands(nyb_session *s, uint32_t begin, uint32_t end, int64_t iteration) {
  for (uint32_t i = begin; i < end; i++) {
    const ny_mod_command *q = &s->mod->command[i];
    uint32_t middle = i + 1 + q->n_then, last = middle + q->n_else;
    bool yes;
    switch ((ny_mod_command_kind)q->kind) {
    case NY_MC_LAUNCH: run_launch(s, q); break;
    case NY_MC_COPY: run_copy(s, q, iteration); break;
    case NY_MC_CHECK: NY_TRY(ny_plan_require(s->mod, q->require, s->val, &s->diag)); break;
    case NY_MC_CHOOSE:
    case NY_MC_IF:
      yes = q->kind == NY_MC_CHOOSE ? s->val[q->extent] != 0 : is_true(s, q->buffer[0]);
      NY_TRY(run_commands(s, yes ? i + 1 : middle, yes ? middle : last, iteration));
      i = last - 1;
      break;
    case NY_MC_LOOP:
      for (int64_t k = 0; k < s->val[q->extent] && (q->n_buffers < 2 || is_true(s, q->buffer[1])); k++) {
        NY_TRY(ny_session_in_time(s));
        memcpy(s->ptr[q->buffer[0]], &k, sizeof k);
        NY_TRY(run_commands(s, i + 1, middle, k));
      }
      i = middle - 1;
      break;
    case NY_MC_COUNT: break;
    }
  }
  return NYB_OK;
}

static nyb_status run(nyb_session *s, const nyb_tensor *in, size_t n_in, nyb_tensor *out, size_t n_out) {
  const ny_mod *m = s->mod;
  if (n_in != m->n_inputs || n_out != m->n_outputs)
    return ny_fail(&s->diag, NYB_E_ARGUMENT, NULL,
                   "the module takes %u inputs and gives %u outputs, the call has %zu and %zu", m->n_inputs,
                   m->n_outputs, n_in, n_out);
  for (uint32_t i = 0; i < m->n_inputs; i++) NY_TRY(check_tensor(s, "input", &m->input[i], &in[i]));
  bool changed = bind_symbols(s, in);
  NY_TRY(compare_plain(s, in));
  if (changed) NY_TRY(ny_session_plan(s, false, true));
  NY_TRY(compare_all(s, in));
  s->deadline = s->max_seconds > 0 ? ny_now() + s->max_seconds : 0;
  if (s->remote) return ny_remote_run(s, in, out);
  NY_TRY(bind_buffers(s, in, out));
  return run_commands(s, 0, m->n_commands, 0);
}

NYB_API nyb_status nyb_run(nyb_session *session, const nyb_tensor *in, size_t n_in, nyb_tensor *out, size_t n_out) {
  if (!session || (n_in && !in) || (n_out && !out)) return NYB_E_ARGUMENT;
  ny_diag_clear(&session->diag);
  nyb_status r = run(session, in, n_in, out, n_out);
  if (r) {
    session->planned = false; /* sizes may have been half bound */
    ny_context_report(session->module->cx, &session->diag);
  }
  return r;
}
