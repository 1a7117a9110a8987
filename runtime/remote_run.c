/* One run on a device. Inputs are bound or staged, then the body (copies through the session's own memory and the
   module's commands) is queued; a body without control flow that comes a second time with the same sizes and addresses
   is captured as a graph, and from then on is one call. Conditions of an if or loop are read back. */
#include "remote.h"
#include <string.h>

/* Kernels load 16 bytes at once, and change elements of a few bits by atomics on words. */
static bool fits(const ny_remote_value *v) { return (uintptr_t)v->user % NY_REMOTE_ALIGN == 0 && v->bytes % 4 == 0; }

/* ---- values */
static ny_remote_way way_in(const struct ny_remote *r, const ny_remote_value *v) {
  if (v->on_device) return fits(v) ? NY_WAY_PLACE : r->facts->mapped ? NY_WAY_PINNED : NY_WAY_COPIED;
  if (r->facts->direct && !v->copied && fits(v)) return NY_WAY_PLACE;
  if (r->facts->mapped) return NY_WAY_PINNED;
  return v->bytes <= NY_REMOTE_SMALL ? NY_WAY_STAGED : NY_WAY_COPIED;
}

static nyb_status bind_input(nyb_session *s, uint32_t i, const nyb_tensor *t) {
  struct ny_remote *r = s->remote;
  ny_remote_value *v = &r->input[i];
  const void *p;
  NY_TRY(ny_session_input(s, i, t, &p, &v->bytes));
  v->user = (void *)(uintptr_t)p;
  v->on_device = t->device.type > 1;
  v->way = way_in(r, v);
  void **ptr = &s->ptr[s->mod->input[i].buffer];
  switch (v->way) {
  case NY_WAY_PLACE: *ptr = v->user; return NYB_OK;
  case NY_WAY_PINNED:
    *ptr = v->pinned.p;
    if (v->on_device) return ny_queue_download(r->queue, v->pinned.p, v->user, v->bytes, &s->diag);
    if (v->bytes) memcpy(v->pinned.p, v->user, (size_t)v->bytes);
    return NYB_OK;
  case NY_WAY_STAGED:
    *ptr = v->device.p;
    if (v->bytes) memcpy(v->pinned.p, v->user, (size_t)v->bytes);
    return NYB_OK;
  case NY_WAY_COPIED:
    *ptr = v->device.p;
    if (v->on_device) return ny_queue_copy(r->queue, v->device.p, v->user, v->bytes, &s->diag);
    return ny_queue_upload(r->queue, v->device.p, v->user, v->bytes, &s->diag);
  }
  return NYB_OK;
}

static ny_remote_way way_out(const struct ny_remote *r, const ny_remote_value *v, bool ours) {
  if (v->on_device) return fits(v) ? NY_WAY_PLACE : r->facts->mapped ? NY_WAY_PINNED : NY_WAY_COPIED;
  if (r->facts->mapped && (ours || (r->facts->direct && !v->copied && fits(v)))) return NY_WAY_PLACE;
  if (r->facts->mapped) return NY_WAY_PINNED;
  return ours ? NY_WAY_STAGED : NY_WAY_COPIED;
}

static nyb_status bind_output(nyb_session *s, uint32_t i, nyb_tensor *t) {
  struct ny_remote *r = s->remote;
  ny_remote_value *v = &r->output[i];
  NY_TRY(ny_session_output(s, i, t, &v->user));
  ny_plan_value_bytes(&s->mod->output[i], s->val, &v->bytes);
  v->on_device = t->device.type > 1;
  v->way = way_out(r, v, v->user == s->output[i].p);
  s->ptr[s->mod->output[i].buffer] = v->way == NY_WAY_PLACE    ? v->user
                                     : v->way == NY_WAY_PINNED ? s->output[i].p
                                                               : v->device.p;
  return NYB_OK;
}

/* What is not part of the body: results for memory of the caller that kernels cannot write. */
static nyb_status deliver(nyb_session *s) {
  struct ny_remote *r = s->remote;
  for (uint32_t i = 0; i < s->mod->n_outputs; i++) {
    ny_remote_value *v = &r->output[i];
    void *from = s->ptr[s->mod->output[i].buffer];
    if (v->way == NY_WAY_COPIED && v->on_device)
      NY_TRY(ny_queue_copy(r->queue, v->user, from, v->bytes, &s->diag));
    else if (v->way == NY_WAY_COPIED)
      NY_TRY(ny_queue_download(r->queue, v->user, from, v->bytes, &s->diag));
    else if (v->way == NY_WAY_PINNED && v->on_device)
      NY_TRY(ny_queue_upload(r->queue, v->user, from, v->bytes, &s->diag));
  }
  NY_TRY(ny_queue_wait(r->queue, &s->diag));
  for (uint32_t i = 0; i < s->mod->n_outputs; i++) {
    ny_remote_value *v = &r->output[i];
    if (v->way == NY_WAY_PINNED && !v->on_device && v->bytes) memcpy(v->user, s->output[i].p, (size_t)v->bytes);
  }
  return NYB_OK;
}

/* ---- commands */
static nyb_status launch_watched(nyb_session *s, const ny_launch *l) {
  struct ny_remote *r = s->remote;
  NY_TRY(ny_queue_wait(r->queue, &s->diag));
  NY_TRY(s->watch(s->watch_user, s, l, false));
  NY_TRY(ny_queue_launch(r->queue, r->program, l, &s->diag));
  NY_TRY(ny_queue_wait(r->queue, &s->diag));
  return s->watch(s->watch_user, s, l, true);
}

static nyb_status run_launch(nyb_session *s, const ny_mod_command *q) {
  struct ny_remote *r = s->remote;
  ny_diag *d = &s->diag;
  for (uint32_t i = 0; i < q->n_buffers; i++) {
    s->launch_ptr[i] = s->ptr[q->buffer[i]];
    r->launch_bytes[i] = (uint64_t)s->val[s->mod->buffer[q->buffer[i]].bytes];
  }
  for (uint32_t i = 0; i < q->n_dims; i++) s->launch_dim[i] = s->val[q->dim[i]];
  ny_launch l = {.kernel = q->kernel,
                 .n_buffers = q->n_buffers,
                 .n_dims = q->n_dims,
                 .buffer = s->launch_ptr,
                 .bytes = r->launch_bytes,
                 .dim = s->launch_dim,
                 .extent = s->val[q->extent]};
  if (s->watch) return launch_watched(s, &l);
  if (!s->time) return ny_queue_launch(r->queue, r->program, &l, d);
  double seconds;
  NY_TRY(ny_queue_mark(r->queue, 0, d));
  NY_TRY(ny_queue_launch(r->queue, r->program, &l, d));
  NY_TRY(ny_queue_mark(r->queue, 1, d));
  NY_TRY(ny_queue_seconds(r->queue, &seconds, d));
  s->time[q->kernel].seconds += seconds;
  s->time[q->kernel].calls++;
  return NYB_OK;
}

static nyb_status run_copy(nyb_session *s, const ny_mod_command *q, int64_t iteration) {
  int64_t bytes = s->val[q->bytes];
  char *to = (char *)s->ptr[q->buffer[1]] + (q->stacked ? iteration * bytes : 0);
  return ny_queue_copy(s->remote->queue, to, s->ptr[q->buffer[0]], (uint64_t)bytes, &s->diag);
}

/* A condition that is an input of the host is known without asking the device. */
static nyb_status is_true(nyb_session *s, uint32_t buffer, bool *out) {
  struct ny_remote *r = s->remote;
  const ny_mod_buffer *b = &s->mod->buffer[buffer];
  const uint8_t *flag = r->flag.p;
  if (b->place == NY_MP_INPUT && !r->input[b->index].on_device) {
    flag = r->input[b->index].user;
  } else {
    NY_TRY(ny_queue_download(r->queue, r->flag.p, s->ptr[buffer], 1, &s->diag));
    NY_TRY(ny_queue_wait(r->queue, &s->diag));
  }
  *out = *flag != 0;
  return NYB_OK;
}

static nyb_status run_commands(nyb_session *s, uint32_t begin, uint32_t end, int64_t iteration);

static nyb_status run_loop(nyb_session *s, uint32_t i) {
  const ny_mod_command *q = &s->mod->command[i];
  for (int64_t k = 0; k < s->val[q->extent]; k++) {
    bool yes = true;
    if (q->n_buffers > 1) NY_TRY(is_true(s, q->buffer[1], &yes));
    if (!yes) break;
    NY_TRY(ny_session_in_time(s));
    NY_TRY(ny_queue_set64(s->remote->queue, s->ptr[q->buffer[0]], k, &s->diag));
    NY_TRY(run_commands(s, i + 1, i + 1 + q->n_then, k));
  }
  return NYB_OK;
}

static nyb_status run_commands(nyb_session *s, uint32_t begin, uint32_t end, int64_t iteration) {
  for (uint32_t i = begin; i < end; i++) {
    const ny_mod_command *q = &s->mod->command[i];
    uint32_t middle = i + 1 + q->n_then, last = middle + q->n_else;
    bool yes;
    switch ((ny_mod_command_kind)q->kind) {
    case NY_MC_LAUNCH: NY_TRY(run_launch(s, q)); break;
    case NY_MC_COPY: NY_TRY(run_copy(s, q, iteration)); break;
    case NY_MC_CHECK: NY_TRY(ny_plan_require(s->mod, q->require, s->val, &s->diag)); break;
    case NY_MC_CHOOSE:
    case NY_MC_IF:
      if (q->kind == NY_MC_CHOOSE)
        yes = s->val[q->extent] != 0;
      else
        NY_TRY(is_true(s, q->buffer[0], &yes));
      NY_TRY(run_commands(s, yes ? i + 1 : middle, yes ? middle : last, iteration));
      i = last - 1;
      break;
    case NY_MC_LOOP:
      NY_TRY(run_loop(s, i));
      i = middle - 1;
      break;
    case NY_MC_COUNT: break;
    }
  }
  return NYB_OK;
}

/* ---- the body */
static nyb_status body(nyb_session *s) {
  struct ny_remote *r = s->remote;
  for (uint32_t i = 0; i < s->mod->n_inputs; i++) {
    ny_remote_value *v = &r->input[i];
    if (v->way == NY_WAY_STAGED) NY_TRY(ny_queue_upload(r->queue, v->device.p, v->pinned.p, v->bytes, &s->diag));
  }
  NY_TRY(run_commands(s, 0, s->mod->n_commands, 0));
  for (uint32_t i = 0; i < s->mod->n_outputs; i++) {
    ny_remote_value *v = &r->output[i];
    if (v->way == NY_WAY_STAGED) NY_TRY(ny_queue_download(r->queue, v->user, v->device.p, v->bytes, &s->diag));
  }
  return NYB_OK;
}

/* Addresses are multiples of 16, or the same in every run: their low bits have room for the way. */
static void make_key(nyb_session *s) {
  struct ny_remote *r = s->remote;
  const ny_mod *m = s->mod;
  int64_t *k = r->key;
  for (uint32_t i = 0; i < m->n_symbols; i++) *k++ = s->sym[i];
  for (uint32_t i = 0; i < m->n_inputs; i++)
    *k++ = (int64_t)((uintptr_t)s->ptr[m->input[i].buffer] | (unsigned)r->input[i].way);
  for (uint32_t i = 0; i < m->n_outputs; i++)
    *k++ = (int64_t)((uintptr_t)s->ptr[m->output[i].buffer] | (unsigned)r->output[i].way);
}

/* The run of this key, or the one to forget for it: the least recently used. */
static ny_remote_capture *find_capture(struct ny_remote *r) {
  ny_remote_capture *oldest = r->capture;
  for (int i = 0; i < NY_REMOTE_CAPTURES; i++) {
    ny_remote_capture *c = &r->capture[i];
    if (c->used && !memcmp(c->key, r->key, sizeof *r->key * r->n_key)) return c;
    if (c->used < oldest->used) oldest = c;
  }
  if (r->n_key) memcpy(oldest->key, r->key, sizeof *r->key * r->n_key);
  oldest->ready = false;
  oldest->used = 0;
  return oldest;
}

static nyb_status capture(nyb_session *s, ny_remote_capture *c) {
  struct ny_remote *r = s->remote;
  NY_TRY(ny_capture_begin(r->queue, &s->diag));
  nyb_status e = body(s);
  if (e) return ny_capture_abandon(r->queue), e;
  NY_TRY(ny_capture_end(r->queue, &c->graph, &s->diag));
  c->ready = true;
  return NYB_OK;
}

static nyb_status run_body(nyb_session *s) {
  struct ny_remote *r = s->remote;
  if (!r->straight || s->time || s->watch) return body(s);
  make_key(s);
  ny_remote_capture *c = find_capture(r);
  bool again = c->used != 0;
  c->used = ++r->runs;
  if (!again) return body(s);
  if (!c->ready) NY_TRY(capture(s, c));
  return ny_capture_run(r->queue, c->graph, &s->diag);
}

static nyb_status start(nyb_session *s, const nyb_tensor *in, nyb_tensor *out) {
  NY_TRY(ny_queue_begin(s->remote->queue, &s->diag));
  for (uint32_t i = 0; i < s->mod->n_inputs; i++) NY_TRY(bind_input(s, i, &in[i]));
  for (uint32_t i = 0; i < s->mod->n_outputs; i++) NY_TRY(bind_output(s, i, &out[i]));
  ny_session_views(s);
  NY_TRY(run_body(s));
  return deliver(s);
}

nyb_status ny_remote_run(nyb_session *s, const nyb_tensor *in, nyb_tensor *out) {
  nyb_status e = start(s, in, out);
  ny_diag ignored = {0};
  if (e) ny_queue_wait(s->remote->queue, &ignored); /* nothing may still read or write the caller's memory */
  ny_queue_end(s->remote->queue);
  return e;
}
