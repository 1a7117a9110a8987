/* Makes room on a device. What an input or output needs beside itself follows from how the device reaches the host's
   memory; all of it is taken here, so that a run allocates nothing. */
#include "remote.h"
#include <stdlib.h>

static void make_rows(nyb_session *s, struct ny_remote *r) {
  const ny_mod *m = s->mod;
  uint32_t most = 0;
  for (uint32_t i = 0; i < m->n_kernels; i++)
    if (m->kernel[i].n_buffers > most) most = m->kernel[i].n_buffers;
  r->input = NY_NEW_ARRAY(&s->rows, ny_remote_value, m->n_inputs);
  r->output = NY_NEW_ARRAY(&s->rows, ny_remote_value, m->n_outputs);
  r->launch_bytes = NY_NEW_ARRAY(&s->rows, uint64_t, most);
  r->straight = true;
  for (uint32_t i = 0; i < m->n_commands; i++)
    r->straight &= m->command[i].kind != NY_MC_IF && m->command[i].kind != NY_MC_LOOP;
  r->n_key = m->n_symbols + m->n_inputs + m->n_outputs;
  r->key = NY_NEW_ARRAY(&s->rows, int64_t, r->n_key);
  for (int i = 0; i < NY_REMOTE_CAPTURES; i++) r->capture[i].key = NY_NEW_ARRAY(&s->rows, int64_t, r->n_key);
}

/* Kernels follow any pointer on some devices, the driver's copies and fills do not. */
static void find_copied(nyb_session *s, struct ny_remote *r) {
  const ny_mod *m = s->mod;
  for (uint32_t i = 0; i < m->n_commands; i++) {
    const ny_mod_command *q = &m->command[i];
    for (uint32_t k = 0; q->kind != NY_MC_LAUNCH && k < q->n_buffers; k++) {
      const ny_mod_buffer *b = &m->buffer[q->buffer[k]];
      if (b->place == NY_MP_INPUT) r->input[b->index].copied = true;
      if (b->place == NY_MP_OUTPUT) r->output[b->index].copied = true;
    }
  }
}

/* Pages of the host do as staging where kernels follow any pointer: they cost nothing until they are touched. */
static void choose_kinds(nyb_session *s, struct ny_remote *r) {
  ny_block_of_memory device = {.kind = NY_BLOCK_DEVICE, .device = r->dev},
                     pinned = {.kind = NY_BLOCK_PINNED, .device = r->dev};
  s->arena = device;
  r->flag = pinned;
  for (uint32_t i = 0; i < s->mod->n_inputs; i++) {
    r->input[i].pinned = r->facts->direct && !r->input[i].copied ? (ny_block_of_memory){.kind = NY_BLOCK_HOST} : pinned;
    r->input[i].device = device;
  }
  for (uint32_t i = 0; i < s->mod->n_outputs; i++) {
    s->output[i] = pinned;
    r->output[i].device = device;
  }
}

nyb_status ny_remote_open(nyb_session *s) {
  struct ny_remote *r = NY_NEW(&s->rows, struct ny_remote);
  s->remote = r;
  r->dev = s->module->device;
  r->facts = ny_device_describe(r->dev);
  r->program = s->module->resident;
  make_rows(s, r);
  find_copied(s, r);
  choose_kinds(s, r);
  NY_TRY(ny_block_grow(&r->flag, 64, "a flag", &s->diag));
  return ny_queue_open(r->program, &r->queue, &s->diag);
}

void ny_remote_close(nyb_session *s) {
  struct ny_remote *r = s->remote;
  if (!r) return;
  for (int i = 0; i < NY_REMOTE_CAPTURES; i++) ny_capture_close(r->dev, r->capture[i].graph);
  ny_queue_close(r->queue);
  ny_block_free(&r->flag);
  for (uint32_t i = 0; i < s->mod->n_inputs; i++) {
    ny_block_free(&r->input[i].pinned);
    ny_block_free(&r->input[i].device);
  }
  for (uint32_t i = 0; i < s->mod->n_outputs; i++) ny_block_free(&r->output[i].device);
}

static uint64_t at_least_one(const ny_mod_value *v, const int64_t *val) {
  uint64_t bytes = 0;
  ny_plan_value_bytes(v, val, &bytes);
  return bytes ? bytes : 1;
}

/* Where kernels use the host's memory in place, the other side of a value is not needed. */
nyb_status ny_remote_plan(nyb_session *s, bool grow) {
  struct ny_remote *r = s->remote;
  const ny_mod *m = s->mod;
  for (uint32_t i = 0; i < m->n_inputs; i++) {
    uint64_t bytes = at_least_one(&m->input[i], s->val), small = bytes < NY_REMOTE_SMALL ? bytes : NY_REMOTE_SMALL;
    NY_TRY(ny_session_fit(s, &r->input[i].pinned, r->facts->mapped ? bytes : small, "input memory", grow));
    if (!r->facts->mapped) NY_TRY(ny_session_fit(s, &r->input[i].device, bytes, "input memory", grow));
  }
  for (uint32_t i = 0; i < m->n_outputs && !r->facts->mapped; i++)
    NY_TRY(ny_session_fit(s, &r->output[i].device, at_least_one(&m->output[i], s->val), "output memory", grow));
  for (int i = 0; grow && i < NY_REMOTE_CAPTURES; i++) /* memory may have moved */
    r->capture[i].used = 0, r->capture[i].ready = false;
  return NYB_OK;
}

uint64_t ny_remote_bytes(const nyb_session *s) {
  const struct ny_remote *r = s->remote;
  uint64_t bytes = 0;
  if (!r) return 0;
  for (uint32_t i = 0; i < s->mod->n_inputs; i++) bytes += r->input[i].pinned.mapped + r->input[i].device.mapped;
  for (uint32_t i = 0; i < s->mod->n_outputs; i++) bytes += r->output[i].device.mapped;
  return bytes;
}
