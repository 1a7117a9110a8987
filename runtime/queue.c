/* A stream of one session: copies, launches, captures. Arguments of a launch are gathered in arrays made when the queue
   was opened. */
#include "cuda_device.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_GRID = INT32_MAX };
#define NARROW_LIMIT (((int64_t)1 << 31) - (1 << 24))

struct ny_queue {
  ny_device *dev;
  ny_cu_stream stream;
  ny_cu_event mark[2];
  void **param;
  int64_t *value; /* dims, then the extent */
  ny_sim_expected *expected;
  ny_device_scope scope; /* between begin and end */
};
struct ny_capture {
  ny_cu_exec exec;
};

nyb_status ny_queue_open(const ny_program *p, ny_queue **out, ny_diag *d) {
  *out = NULL;
  uint32_t n = p->most_args;
  size_t room = (sizeof(void *) + sizeof(int64_t) + sizeof(ny_sim_expected)) * n;
  ny_queue *q = calloc(1, sizeof *q + room);
  if (!q) return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for a queue");
  q->dev = p->dev;
  q->param = (void **)(q + 1);
  q->value = (int64_t *)(q->param + n);
  q->expected = (ny_sim_expected *)(q->value + n);
  const ny_cuda *cu = q->dev->cu;
  ny_device_scope scope;
  nyb_status s = ny_device_enter(q->dev, &scope, d);
  ny_cu_result r = s ? 0 : cu->stream_new(&q->stream, NY_CU_STREAM_NON_BLOCKING);
  for (int i = 0; i < 2 && !r && !s; i++) r = cu->event_new(&q->mark[i], 0);
  ny_device_leave(&scope);
  if (r) s = ny_cuda_fail(cu, r, d, "a stream of %s", q->dev->facts.name);
  if (s)
    ny_queue_close(q);
  else
    *out = q;
  return s;
}

void ny_queue_close(ny_queue *q) {
  ny_diag d = {0};
  if (!q) return;
  ny_queue_end(q);
  ny_device_scope scope;
  if (!ny_device_enter(q->dev, &scope, &d)) {
    for (int i = 0; i < 2; i++)
      if (q->mark[i]) q->dev->cu->event_free(q->mark[i]);
    if (q->stream) q->dev->cu->stream_free(q->stream);
  }
  ny_device_leave(&scope);
  free(q);
}

nyb_status ny_queue_begin(ny_queue *q, ny_diag *d) {
  ny_queue_end(q);
  return ny_device_enter(q->dev, &q->scope, d);
}
void ny_queue_end(ny_queue *q) { ny_device_leave(&q->scope); }

nyb_status ny_queue_wait(ny_queue *q, ny_diag *d) {
  NY_CU_TRY(q->dev->cu, d, stream_wait(q->stream), "the run on %s failed", q->dev->facts.name);
  return NYB_OK;
}

/* ---- copies */
nyb_status ny_queue_upload(ny_queue *q, void *to, const void *from, uint64_t bytes, ny_diag *d) {
  if (!bytes) return NYB_OK;
  NY_CU_TRY(q->dev->cu, d, upload(ny_cu_at(to), from, (size_t)bytes, q->stream), "a copy of %llu bytes to %s",
            (unsigned long long)bytes, q->dev->facts.name);
  return NYB_OK;
}

nyb_status ny_queue_download(ny_queue *q, void *to, const void *from, uint64_t bytes, ny_diag *d) {
  if (!bytes) return NYB_OK;
  NY_CU_TRY(q->dev->cu, d, download(to, ny_cu_at(from), (size_t)bytes, q->stream), "a copy of %llu bytes from %s",
            (unsigned long long)bytes, q->dev->facts.name);
  return NYB_OK;
}

/* Overlapping ranges are copied in pieces that do not overlap, from the end that is overwritten last. */
nyb_status ny_queue_copy(ny_queue *q, void *to, const void *from, uint64_t bytes, ny_diag *d) {
  const ny_cuda *cu = q->dev->cu;
  ny_cu_address t = ny_cu_at(to), f = ny_cu_at(from);
  uint64_t gap = t > f ? t - f : f - t, piece = gap < bytes ? gap : bytes;
  if (!gap) return NYB_OK;
  for (uint64_t done = 0; done < bytes; done += piece) {
    uint64_t n = bytes - done < piece ? bytes - done : piece, at = t < f ? done : bytes - done - n;
    NY_CU_TRY(cu, d, copy(t + at, f + at, (size_t)n, q->stream), "a copy of %llu bytes on %s", (unsigned long long)n,
              q->dev->facts.name);
  }
  return NYB_OK;
}

/* As two fills: they carry their value with them, so no memory of the host has to stay until they happen. */
nyb_status ny_queue_set64(ny_queue *q, void *to, int64_t value, ny_diag *d) {
  const ny_cuda *cu = q->dev->cu;
  ny_cu_address t = ny_cu_at(to);
  NY_CU_TRY(cu, d, fill32(t, (unsigned)((uint64_t)value & UINT32_MAX), 1, q->stream), "a loop counter");
  NY_CU_TRY(cu, d, fill32(t + 4, (unsigned)((uint64_t)value >> 32), 1, q->stream), "a loop counter");
  return NYB_OK;
}

/* ---- launches */
static nyb_status too_wide(const ny_mod_kernel *k, const char *what, int64_t n, ny_diag *d) {
  return ny_fail(d, NYB_E_LIMIT, NULL,
                 "kernel %.100s computes addresses with 32 bits and has %s of %lld, at most %lld are possible: compile "
                 "the model for this size (--dim)",
                 k->name, what, (long long)n, (long long)NARROW_LIMIT - 1);
}

static nyb_status check_sizes(const ny_mod_kernel *k, const ny_launch *l, ny_diag *d) {
  if (k->wide) return NYB_OK;
  for (uint32_t i = 0; i < l->n_buffers && i < k->n_bits; i++) {
    uint64_t n = l->bytes[i] / k->bits[i] * 8 + l->bytes[i] % k->bits[i] * 8 / k->bits[i];
    if (n >= (uint64_t)NARROW_LIMIT) return too_wide(k, "a buffer", (int64_t)n, d);
  }
  if (l->extent >= NARROW_LIMIT) return too_wide(k, "a grid", l->extent, d);
  for (uint32_t i = 0; i < l->n_dims; i++)
    if (l->dim[i] >= NARROW_LIMIT) return too_wide(k, "a size", l->dim[i], d);
  return NYB_OK;
}

/* The simulator holds the launch to the buffers of the model, not only to the allocation they lie in; up to a whole
   word, as kernels may count on: elements of a few bits are changed by atomics on words. */
static void expect(ny_queue *q, const ny_launch *l) {
  for (uint32_t i = 0; i < l->n_buffers; i++)
    q->expected[i] = (ny_sim_expected){l->buffer[i], (l->bytes[i] + 3) & ~(uint64_t)3};
  q->dev->expect(q->expected, l->n_buffers);
}

nyb_status ny_queue_launch(ny_queue *q, const ny_program *p, const ny_launch *l, ny_diag *d) {
  const ny_device_kernel *k = &p->kernel[l->kernel];
  uint32_t n = 0;
  if (l->extent <= 0) return NYB_OK;
  NY_TRY(check_sizes(k->row, l, d));
  int64_t grid = (l->extent - 1) / k->row->points + 1;
  if (grid > MAX_GRID)
    return ny_fail(d, NYB_E_LIMIT, NULL, "kernel %.100s would need %lld blocks, at most %d are possible", k->row->name,
                   (long long)grid, MAX_GRID);
  for (uint32_t i = 0; i < l->n_buffers; i++) q->param[n++] = (void *)(uintptr_t)&l->buffer[i];
  for (uint32_t i = 0; i < l->n_dims; i++) q->param[n++] = &q->value[i], q->value[i] = l->dim[i];
  q->value[l->n_dims] = l->extent;
  q->param[n++] = &q->value[l->n_dims];
  if (q->dev->expect) expect(q, l);
  NY_CU_TRY(q->dev->cu, d,
            launch(k->function, (unsigned)grid, 1, 1, k->row->block, 1, 1, k->row->shared, q->stream, q->param, NULL),
            "kernel %.100s (%lld blocks of %u threads, %u bytes of shared memory)", k->row->name, (long long)grid,
            k->row->block, k->row->shared);
  return NYB_OK;
}

nyb_status ny_queue_launch_raw(ny_queue *q, const ny_program *p, const ny_raw_launch *l, ny_diag *d) {
  const ny_device_kernel *k = &p->kernel[0];
  if (q->dev->expect) {
    for (uint32_t i = 0; i < l->n_ranges; i++) q->expected[i] = (ny_sim_expected){l->range[i], l->bytes[i]};
    q->dev->expect(q->expected, l->n_ranges);
  }
  NY_CU_TRY(q->dev->cu, d,
            launch(k->function, l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2], l->shared,
                   q->stream, (void **)(uintptr_t)l->param, NULL),
            "kernel %.100s (%u x %u x %u blocks of %u x %u x %u threads, %u bytes of shared memory)", k->row->name,
            l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2], l->shared);
  return NYB_OK;
}

nyb_status ny_queue_mark(ny_queue *q, int mark, ny_diag *d) {
  NY_CU_TRY(q->dev->cu, d, event_record(q->mark[mark], q->stream), "an event");
  return NYB_OK;
}

nyb_status ny_queue_seconds(ny_queue *q, double *out, ny_diag *d) {
  float ms = 0;
  NY_CU_TRY(q->dev->cu, d, event_wait(q->mark[1]), "the run on %s failed", q->dev->facts.name);
  NY_CU_TRY(q->dev->cu, d, event_ms(&ms, q->mark[0], q->mark[1]), "the time between two events");
  *out = (double)ms * 1e-3;
  return NYB_OK;
}

/* ---- captures */
nyb_status ny_capture_begin(ny_queue *q, ny_diag *d) {
  NY_CU_TRY(q->dev->cu, d, capture_begin(q->stream, NY_CU_CAPTURE_THREAD_LOCAL), "capturing a run");
  return NYB_OK;
}

void ny_capture_abandon(ny_queue *q) {
  ny_cu_graph graph = NULL;
  q->dev->cu->capture_end(q->stream, &graph);
  if (graph) q->dev->cu->graph_free(graph);
}

/* A graph of the same shape changes the executable one in place; any other gets a new one. */
static ny_cu_result make_exec(const ny_cuda *cu, ny_cu_graph graph, ny_capture *c) {
  ny_cu_update result;
  memset(&result, 0, sizeof result);
  if (c->exec && !cu->exec_update(c->exec, graph, &result)) return NY_CU_OK;
  if (c->exec) cu->exec_free(c->exec);
  c->exec = NULL;
  return cu->graph_make(&c->exec, graph, 0);
}

nyb_status ny_capture_end(ny_queue *q, ny_capture **capture, ny_diag *d) {
  const ny_cuda *cu = q->dev->cu;
  ny_cu_graph graph = NULL;
  NY_CU_TRY(cu, d, capture_end(q->stream, &graph), "capturing a run");
  if (!*capture) *capture = calloc(1, sizeof **capture);
  ny_cu_result r = *capture ? make_exec(cu, graph, *capture) : NY_CU_OUT_OF_MEMORY;
  cu->graph_free(graph);
  return r ? ny_cuda_fail(cu, r, d, "a graph of the run") : NYB_OK;
}

nyb_status ny_capture_run(ny_queue *q, ny_capture *c, ny_diag *d) {
  NY_CU_TRY(q->dev->cu, d, graph_launch(c->exec, q->stream), "the graph of the run");
  return NYB_OK;
}

void ny_capture_close(ny_device *dev, ny_capture *c) {
  ny_diag d = {0};
  if (!c) return;
  ny_device_scope scope;
  if (!ny_device_enter(dev, &scope, &d) && c->exec) dev->cu->exec_free(c->exec);
  ny_device_leave(&scope);
  free(c);
}
