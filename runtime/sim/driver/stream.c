/* Streams and events. Work is done in the order in which it was queued, over all streams: one of the orders a device
   may choose. With queue=late it is done only when somebody waits, so that a host which reads a result too early reads
   nothing. A stream that is captured hands its work to a graph. */
#include "driver.h"
#include <stdlib.h>
#include <string.h>

static ny_cu_node first, *last = &first;          /* queued, not done */
static struct CUstream_st default_streams[3];     /* NULL, legacy, of the thread: none of them can be captured */
static _Thread_local ny_cu_stream capturing_here; /* the last that this thread began to capture */

/* ---- work */
ny_cu_node drv_node_new(drv_work work, ny_cu_context cx) {
  ny_cu_node n = drv_object_new(sizeof *n, DRV_NODE, cx);
  n->work = work;
  return n;
}

static void *duplicate(const void *p, size_t bytes) {
  return p ? memcpy(drv_need(malloc(bytes ? bytes : 1)), p, bytes) : NULL;
}

/* Pointers to the parameters, from the packed block. */
static void point(ny_cu_node n) {
  const ny_sim_kernel_info *k = n->function->info;
  n->pointers = drv_need(calloc(k->n_params + 1, sizeof *n->pointers));
  for (uint32_t i = 0; i < k->n_params; i++) n->pointers[i] = n->param + k->param[i].offset;
}

ny_cu_node drv_node_copy(const struct CUgraphNode_st *from, ny_cu_context cx) {
  ny_cu_node n = drv_node_new(from->work, cx);
  drv_object o = n->o;
  *n = *from;
  n->o = o;
  n->next = NULL;
  n->origin = (ny_cu_node)(uintptr_t)from;
  n->range = duplicate(from->range, sizeof *from->range * from->n_ranges);
  n->staged = duplicate(from->staged, (size_t)from->bytes);
  if (from->work == DRV_LAUNCH) {
    n->param = duplicate(from->param, from->function->info->param_bytes);
    point(n);
  }
  return n;
}

void drv_node_free(ny_cu_node n) {
  free(n->param);
  free(n->pointers);
  free(n->range);
  free(n->staged);
  drv_object_free(n);
}

static void run_fill(ny_cu_node n) {
  uint8_t *p = (uint8_t *)(uintptr_t)n->to;
  for (uint64_t i = 0; i < n->bytes; i += n->width) memcpy(p + i, &n->value, n->width);
  drv_total.fills++;
}

static void run_copy(ny_cu_node n) {
  memcpy((void *)(uintptr_t)n->to, n->staged ? n->staged : (void *)(uintptr_t)n->from, n->bytes);
  drv_total.copies++;
  drv_total.copied_bytes += n->bytes;
}

/* Memory may have been given back since the work was captured. */
static bool gone(ny_cu_node n) {
  bool there =
      (!n->to_ours || drv_memory_holds(n->to, n->bytes)) && (!n->from_ours || drv_memory_holds(n->from, n->bytes));
  if (!there && !drv_opt.quiet)
    fprintf(stderr, "libnyb_cudasim: error: a copy or fill of memory that was given back\n");
  return !there;
}

ny_cu_result drv_node_run(ny_cu_node n) {
  ny_cu_context cx = n->o.context;
  if (cx->sticky) return cx->sticky;
  if (gone(n)) return cx->sticky = DRV_ILLEGAL_ADDRESS;
  drv_memory_open();
  switch (n->work) {
  case DRV_LAUNCH: return cx->sticky = drv_launch_run(n);
  case DRV_COPY: run_copy(n); break;
  case DRV_FILL: run_fill(n); break;
  case DRV_CALL: n->call(n->user); break;
  case DRV_RECORD:
    n->event->recorded = true;
    n->event->time = ny_now();
    break;
  case DRV_EMPTY: break;
  }
  return DRV_SUCCESS;
}

ny_cu_result drv_flush(void) {
  ny_cu_result r = DRV_SUCCESS;
  while (first) {
    ny_cu_node n = first;
    first = n->next;
    if (!first) last = &first;
    ny_cu_result one = drv_node_run(n);
    if (!r) r = one;
    drv_node_free(n);
  }
  return r;
}

ny_cu_result drv_submit(ny_cu_stream stream, ny_cu_node n, ny_cu_context cx) {
  (void)cx;
  if (drv_capturing(stream)) {
    drv_graph_add(stream->capture, n);
    return DRV_SUCCESS;
  }
  if (drv_opt.late) {
    *last = n;
    last = &n->next;
    return DRV_SUCCESS;
  }
  ny_cu_result r = drv_node_run(n);
  drv_node_free(n);
  return r;
}

/* ---- streams */
bool drv_stream_ok(ny_cu_stream stream) {
  return (uintptr_t)stream < NY_COUNT(default_streams) || drv_is(stream, DRV_STREAM);
}

/* A stream that joined a capture by an event leaves it when the capture ends. */
bool drv_capturing(ny_cu_stream stream) {
  if (!drv_is(stream, DRV_STREAM) || !stream->capture) return false;
  ny_cu_stream o = stream->origin;
  bool on = o == stream || (drv_is(o, DRV_STREAM) && o->capture == stream->capture);
  if (!on) stream->capture = NULL;
  return on;
}

static struct CUstream_st *stream_at(ny_cu_stream s) {
  return (uintptr_t)s < NY_COUNT(default_streams) ? &default_streams[(uintptr_t)s] : s;
}

bool drv_capture_forbids(ny_cu_context cx) {
  ny_cu_stream s = capturing_here;
  if (!s || !drv_capturing(s) || s->o.context != cx) return false;
  s->capture->broken = true;
  return true;
}

#define NEED_STREAM(s)                                                                                                 \
  do {                                                                                                                 \
    if (!drv_stream_ok(s)) return DRV_INVALID_HANDLE;                                                                  \
  } while (0)

ny_cu_result cuStreamCreateWithPriority(ny_cu_stream *out, unsigned flags, int priority) {
  DRV_ENTER;
  if (!out || flags > 1) return DRV_INVALID_VALUE;
  *out = drv_object_new(sizeof **out, DRV_STREAM, cx);
  (*out)->flags = flags;
  (*out)->priority = priority < -5 ? -5 : priority > 0 ? 0 : priority;
  return DRV_SUCCESS;
}
ny_cu_result cuStreamCreate(ny_cu_stream *out, unsigned flags) { return cuStreamCreateWithPriority(out, flags, 0); }

ny_cu_result cuStreamDestroy_v2(ny_cu_stream stream) {
  DRV_ENTER;
  DRV_CHECK(stream, DRV_STREAM);
  ny_cu_result r = drv_flush();
  if (stream->capture && stream->origin == stream) drv_graph_delete(stream->capture);
  drv_object_free(stream);
  return r;
}

/* Waiting is when the host may look: from here on device memory is out of its reach again. */
static ny_cu_result wait_all(void) {
  ny_cu_result r = drv_flush();
  drv_memory_close();
  return r;
}

ny_cu_result cuStreamSynchronize(ny_cu_stream stream) {
  DRV_ENTER;
  NEED_STREAM(stream);
  if (drv_capturing(stream)) {
    stream->capture->broken = true;
    return DRV_STREAM_CAPTURE_UNSUPPORTED;
  }
  return wait_all();
}

ny_cu_result cuStreamQuery(ny_cu_stream stream) {
  DRV_ENTER;
  NEED_STREAM(stream);
  if (drv_capturing(stream)) return DRV_STREAM_CAPTURE_UNSUPPORTED;
  return wait_all();
}

ny_cu_result cuCtxSynchronize(void) {
  DRV_ENTER;
  if (drv_capture_forbids(cx)) return DRV_STREAM_CAPTURE_UNSUPPORTED;
  return wait_all();
}

ny_cu_result cuStreamGetCtx(ny_cu_stream stream, ny_cu_context *out) {
  DRV_ENTER;
  NEED_STREAM(stream);
  if (!out) return DRV_INVALID_VALUE;
  *out = stream_at(stream) == stream ? stream->o.context : cx;
  return DRV_SUCCESS;
}
ny_cu_result cuStreamGetFlags(ny_cu_stream stream, unsigned *flags) {
  DRV_ENTER;
  NEED_STREAM(stream);
  if (!flags) return DRV_INVALID_VALUE;
  *flags = stream_at(stream)->flags;
  return DRV_SUCCESS;
}
ny_cu_result cuStreamGetPriority(ny_cu_stream stream, int *priority) {
  DRV_ENTER;
  NEED_STREAM(stream);
  if (!priority) return DRV_INVALID_VALUE;
  *priority = stream_at(stream)->priority;
  return DRV_SUCCESS;
}

/* ---- capture */
ny_cu_result cuStreamBeginCapture_v2(ny_cu_stream stream, int mode) {
  DRV_ENTER;
  NEED_STREAM(stream);
  if (mode < 0 || mode > 2) return DRV_INVALID_VALUE;
  if (!drv_is(stream, DRV_STREAM)) return DRV_STREAM_CAPTURE_UNSUPPORTED;
  if (drv_capturing(stream)) return DRV_INVALID_VALUE;
  stream->capture = drv_object_new(sizeof *stream->capture, DRV_GRAPH, cx);
  stream->origin = stream;
  capturing_here = stream;
  return DRV_SUCCESS;
}

ny_cu_result cuStreamEndCapture(ny_cu_stream stream, ny_cu_graph *out) {
  DRV_ENTER;
  DRV_CHECK(stream, DRV_STREAM);
  if (!out || !drv_capturing(stream)) return DRV_INVALID_VALUE;
  if (stream->origin != stream) return DRV_STREAM_CAPTURE_UNMATCHED;
  ny_cu_graph g = stream->capture;
  stream->capture = NULL;
  stream->origin = NULL;
  drv_total.captures++;
  *out = NULL;
  if (g->broken) {
    drv_graph_delete(g);
    return DRV_STREAM_CAPTURE_INVALIDATED;
  }
  *out = g;
  return DRV_SUCCESS;
}

ny_cu_result cuStreamIsCapturing(ny_cu_stream stream, int *status) {
  DRV_ENTER;
  NEED_STREAM(stream);
  if (!status) return DRV_INVALID_VALUE;
  *status = !drv_capturing(stream) ? 0 : stream->capture->broken ? 2 : 1;
  return DRV_SUCCESS;
}

ny_cu_result cuThreadExchangeStreamCaptureMode(int *mode) {
  static _Thread_local int now;
  if (!mode || *mode < 0 || *mode > 2) return DRV_INVALID_VALUE;
  int before = now;
  now = *mode;
  *mode = before;
  return DRV_SUCCESS;
}

/* ---- events */
ny_cu_result cuEventCreate(ny_cu_event *out, unsigned flags) {
  DRV_ENTER;
  if (!out || flags > 7) return DRV_INVALID_VALUE;
  *out = drv_object_new(sizeof **out, DRV_EVENT, cx);
  (*out)->flags = flags;
  return DRV_SUCCESS;
}

ny_cu_result cuEventDestroy_v2(ny_cu_event event) {
  DRV_ENTER;
  DRV_CHECK(event, DRV_EVENT);
  ny_cu_result r = drv_flush();
  drv_object_free(event);
  return r;
}

ny_cu_result cuEventRecordWithFlags(ny_cu_event event, ny_cu_stream stream, unsigned flags) {
  DRV_ENTER;
  DRV_CHECK(event, DRV_EVENT);
  NEED_STREAM(stream);
  if (flags > 1) return DRV_INVALID_VALUE;
  if (drv_capturing(stream) && !flags) { /* an edge of the graph, which its order has already */
    event->capture = stream->capture;
    event->origin = stream->origin;
    return DRV_SUCCESS;
  }
  event->capture = NULL;
  event->recorded = false;
  ny_cu_node n = drv_node_new(DRV_RECORD, cx);
  n->event = event;
  return drv_submit(stream, n, cx);
}
ny_cu_result cuEventRecord(ny_cu_event event, ny_cu_stream stream) { return cuEventRecordWithFlags(event, stream, 0); }

ny_cu_result cuStreamWaitEvent(ny_cu_stream stream, ny_cu_event event, unsigned flags) {
  DRV_ENTER;
  NEED_STREAM(stream);
  DRV_CHECK(event, DRV_EVENT);
  if (flags > 1) return DRV_INVALID_VALUE;
  if (!event->capture || !drv_is(event->capture, DRV_GRAPH) || !drv_capturing(event->origin)) return DRV_SUCCESS;
  if (!drv_is(stream, DRV_STREAM)) return DRV_STREAM_CAPTURE_UNSUPPORTED;
  if (drv_capturing(stream) && stream->capture != event->capture) return DRV_STREAM_CAPTURE_UNMATCHED;
  stream->capture = event->capture;
  stream->origin = event->origin;
  return DRV_SUCCESS;
}

ny_cu_result cuEventSynchronize(ny_cu_event event) {
  DRV_ENTER;
  DRV_CHECK(event, DRV_EVENT);
  return wait_all();
}
ny_cu_result cuEventQuery(ny_cu_event event) { return cuEventSynchronize(event); }

ny_cu_result cuEventElapsedTime(float *ms, ny_cu_event start, ny_cu_event end) {
  DRV_ENTER;
  DRV_CHECK(start, DRV_EVENT);
  DRV_CHECK(end, DRV_EVENT);
  if (!ms) return DRV_INVALID_VALUE;
  if (start->flags & 2 || end->flags & 2) return DRV_INVALID_HANDLE; /* made without timing */
  if (!start->recorded || !end->recorded) return drv_opt.late ? DRV_NOT_READY : DRV_INVALID_HANDLE;
  *ms = (float)((end->time - start->time) * 1e3);
  return DRV_SUCCESS;
}

ny_cu_result cuLaunchHostFunc(ny_cu_stream stream, void (*call)(void *user), void *user) {
  DRV_ENTER;
  NEED_STREAM(stream);
  if (!call) return DRV_INVALID_VALUE;
  ny_cu_node n = drv_node_new(DRV_CALL, cx);
  n->call = call;
  n->user = user;
  return drv_submit(stream, n, cx);
}
