/* Tensors that cross the API: where they may lie, what is refused, and that a session goes on after it has refused. */
#include "cts.h"
#include <string.h>

static const nyb_dtype f32 = {NYB_FLOAT, 32, 1};

void cts_bias_make(cts_bias *v, int64_t n, size_t shift) {
  const int64_t x[2] = {n, 6}, b[1] = {6};
  cts_value_make(&v->x, f32, 2, x, shift);
  cts_value_make(&v->b, f32, 1, b, shift);
  cts_value_make(&v->y, f32, 2, x, shift);
  cts_value_fill(&v->x, (uint64_t)n + 7, false);
  cts_value_fill(&v->b, 3, false);
  v->in[0] = v->x.t, v->in[0].shape = v->x.shape;
  v->in[1] = v->b.t, v->in[1].shape = v->b.shape;
  v->out[0] = (nyb_tensor){0};
}

void cts_bias_free(cts_bias *v) {
  cts_value_free(&v->x);
  cts_value_free(&v->b);
  cts_value_free(&v->y);
}

static const float *at(const nyb_tensor *t) { return (const float *)((const char *)t->data + t->byte_offset); }

bool cts_bias_right(const cts_bias *v) {
  const nyb_tensor *o = &v->out[0];
  if (!CHECK(o->data && o->ndim == 2 && o->shape[0] == v->x.shape[0] && o->shape[1] == 6, "the shape")) return false;
  for (int64_t i = 0; i < v->x.shape[0] * 6; i++) {
    float sum = at(&v->x.t)[i] + at(&v->b.t)[i % 6], want = sum < 0 ? 0 : sum;
    if (!CHECK(at(o)[i] == want, "element %lld is %g instead of %g", (long long)i, (double)at(o)[i], (double)want))
      return false;
  }
  return true;
}

nyb_status cts_bias_run(nyb_session *s, cts_bias *v) { return nyb_run(s, v->in, 2, v->out, 1); }

/* ---- a session of `bias` for 64 rows, and what is done with it */
static void with_session(void (*body)(nyb_session *, cts_bias *)) {
  nyb_module *m = cts_load("bias");
  nyb_session *s = m ? cts_open(m, &(nyb_dim){"N", 64}, 1, NULL) : NULL;
  cts_bias v;
  cts_bias_make(&v, 64, 0);
  if (s) body(s, &v);
  cts_bias_free(&v);
  nyb_session_close(s);
  nyb_module_close(m);
}

static void still_works(nyb_session *s, cts_bias *v) {
  cts_bias again;
  (void)v;
  cts_bias_make(&again, 5, 0);
  for (int i = 0; i < 2; i++) CHECK(!cts_bias_run(s, &again) && cts_bias_right(&again), "%s", cts_why());
  cts_bias_free(&again);
}

/* ---- memory of the caller: any address that is a multiple of an element */
static void addresses_of(nyb_session *s, cts_bias *v) {
  (void)v;
  for (size_t shift = 0; shift <= 68; shift += 4)
    for (int64_t n = 1; n <= 64; n += 21) {
      cts_bias c;
      cts_bias_make(&c, n, shift);
      c.out[0] = c.y.t;
      for (int again = 0; again < 3; again++) {
        MUST(!cts_bias_run(s, &c), "%s", cts_why());
        CHECK(c.out[0].data == c.y.t.data && c.out[0].byte_offset == shift && c.out[0].device.type == 1, "moved");
        CHECK(cts_bias_right(&c) && cts_value_guarded(&c.y), "%lld rows at %zu", (long long)n, shift);
        memset((char *)c.y.t.data + shift, 0x77, c.y.bytes);
        float *first = (float *)((char *)c.x.t.data + shift); /* a later run reads what is there now */
        *first += 1;
      }
      CHECK(cts_value_guarded(&c.x) && cts_value_guarded(&c.b), "an input was written");
      cts_bias_free(&c);
    }
}
static void addresses(void) { with_session(addresses_of); }

/* Results change their place from run to run, and come back. */
static void places_of(nyb_session *s, cts_bias *v) {
  cts_value y[3];
  for (int i = 0; i < 3; i++) cts_value_make(&y[i], f32, 2, v->x.shape, (size_t)i * 4);
  for (int i = 0; i < 12; i++) {
    v->out[0] = i % 4 == 3 ? (nyb_tensor){0} : y[i % 4].t;
    MUST(!cts_bias_run(s, v), "%s", cts_why());
    CHECK(cts_bias_right(v), "place %d", i % 4);
    *(float *)v->x.t.data += 0.5f;
  }
  nyb_tensor before = v->out[0];
  MUST(!cts_bias_run(s, v), "%s", cts_why());
  CHECK(v->out[0].data == before.data && cts_bias_right(v), "a tensor of the run before may be handed in again");
  for (int i = 0; i < 3; i++) {
    CHECK(cts_value_guarded(&y[i]), "something is written beside a result");
    cts_value_free(&y[i]);
  }
}
static void places(void) { with_session(places_of); }

/* ---- refusals, with the name of the tensor */
static void formats_of(nyb_session *s, cts_bias *v) {
  v->in[0].dtype.bits = 64;
  cts_refused(cts_bias_run(s, v), NYB_E_TYPE, "\"x\"");
  v->in[0].dtype = (nyb_dtype){NYB_INT, 32, 1};
  cts_refused(cts_bias_run(s, v), NYB_E_TYPE, "\"x\"");
  v->in[0].dtype = (nyb_dtype){NYB_FLOAT, 32, 4};
  cts_refused(cts_bias_run(s, v), NYB_E_TYPE, "\"x\"");
  v->in[0].dtype = f32;
  v->out[0] = v->y.t;
  v->out[0].dtype = (nyb_dtype){NYB_BFLOAT, 16, 1};
  cts_refused(cts_bias_run(s, v), NYB_E_TYPE, "\"y\"");
  still_works(s, v);
}
static void wrong_formats(void) { with_session(formats_of); }

static void shapes_of(nyb_session *s, cts_bias *v) {
  v->in[1].shape[0] = 5;
  cts_refused(cts_bias_run(s, v), NYB_E_SHAPE, "\"b\"");
  v->in[1].shape[0] = 6;
  v->in[0].ndim = 1;
  cts_refused(cts_bias_run(s, v), NYB_E_SHAPE, "\"x\"");
  v->in[0].ndim = 2;
  v->in[0].shape[0] = -4;
  cts_refused(cts_bias_run(s, v), NYB_E_SHAPE, "\"x\"");
  v->in[0].shape[0] = 64;
  v->in[0].shape[1] = 7;
  cts_refused(cts_bias_run(s, v), NYB_E_SHAPE, "\"x\"");
  v->in[0].shape[1] = 6;
  v->in[0].shape[0] = 65;
  cts_refused(cts_bias_run(s, v), NYB_E_SHAPE, "prepare");
  v->in[0].shape[0] = INT64_MAX / 8;
  cts_refused(cts_bias_run(s, v), NYB_E_SHAPE, "");
  v->in[0].shape[0] = 64;
  CHECK(!cts_bias_run(s, v), "%s", cts_why());
  v->in[0].shape[0] = 5; /* a refused run's sizes are not taken for planned ones */
  v->in[1].shape[0] = 5;
  cts_refused(cts_bias_run(s, v), NYB_E_SHAPE, "\"b\"");
  v->in[1].shape[0] = 6;
  v->out[0] = (nyb_tensor){0};
  CHECK(!cts_bias_run(s, v) && v->out[0].shape[0] == 5, "%s", cts_why());
  still_works(s, v);
}
static void wrong_shapes(void) { with_session(shapes_of); }

static void calls_of(nyb_session *s, cts_bias *v) {
  cts_refused(nyb_run(s, v->in, 1, v->out, 1), NYB_E_ARGUMENT, "inputs");
  cts_refused(nyb_run(s, v->in, 2, v->out, 0), NYB_E_ARGUMENT, "outputs");
  CHECK(nyb_run(NULL, v->in, 2, v->out, 1) == NYB_E_ARGUMENT, "no session");
  CHECK(nyb_run(s, NULL, 2, v->out, 1) == NYB_E_ARGUMENT, "no inputs");
  CHECK(nyb_run(s, v->in, 2, NULL, 1) == NYB_E_ARGUMENT, "no outputs");
  void *data = v->in[0].data;
  v->in[0].data = NULL;
  cts_refused(cts_bias_run(s, v), NYB_E_ARGUMENT, "\"x\"");
  v->in[0].data = (char *)data + 2;
  cts_refused(cts_bias_run(s, v), NYB_E_ARGUMENT, "aligned");
  v->in[0].data = data;
  v->in[0].byte_offset = 1;
  cts_refused(cts_bias_run(s, v), NYB_E_ARGUMENT, "aligned");
  v->in[0].byte_offset = 0;
  v->out[0] = v->y.t;
  v->out[0].byte_offset = 3;
  cts_refused(cts_bias_run(s, v), NYB_E_ARGUMENT, "aligned");
  int64_t *shape = v->in[0].shape;
  v->in[0].shape = NULL;
  cts_refused(cts_bias_run(s, v), NYB_E_ARGUMENT, "\"x\"");
  v->in[0].shape = shape;
  CHECK(cts_value_guarded(&v->y), "a refused run writes nothing");
  still_works(s, v);
}
static void wrong_calls(void) { with_session(calls_of); }

static void strides_of(nyb_session *s, cts_bias *v) {
  int64_t wide[2] = {12, 1}, turned[2] = {1, 64}, dense[2] = {6, 1}, odd[2] = {77, 1};
  v->in[0].strides = wide;
  cts_refused(cts_bias_run(s, v), NYB_E_ARGUMENT, "strided");
  v->in[0].strides = turned;
  cts_refused(cts_bias_run(s, v), NYB_E_ARGUMENT, "strided");
  v->in[0].strides = dense;
  CHECK(!cts_bias_run(s, v) && cts_bias_right(v), "%s", cts_why());
  cts_bias one;
  cts_bias_make(&one, 1, 0);
  one.in[0].strides = odd; /* of a dimension of one, any stride is the right one */
  CHECK(!cts_bias_run(s, &one) && cts_bias_right(&one), "%s", cts_why());
  one.in[0].shape[0] = 0;
  one.in[0].data = NULL;
  CHECK(!cts_bias_run(s, &one) && one.out[0].shape[0] == 0 && one.out[0].shape[1] == 6, "nothing: %s", cts_why());
  cts_bias_free(&one);
}
static void strides(void) { with_session(strides_of); }

static void room_of(nyb_session *s, cts_bias *v) {
  int64_t small[2] = {63, 6}, more[2] = {70, 6}, flat[1] = {64 * 6};
  v->out[0] = v->y.t;
  v->out[0].shape = small;
  cts_refused(cts_bias_run(s, v), NYB_E_SHAPE, "\"y\"");
  v->out[0].shape = more; /* it holds more than is written: the result says how much */
  CHECK(!cts_bias_run(s, v) && cts_bias_right(v) && v->out[0].shape != more, "%s", cts_why());
  v->out[0] = v->y.t;
  v->out[0].ndim = 1;
  v->out[0].shape = flat;
  CHECK(!cts_bias_run(s, v) && cts_bias_right(v), "as many bytes in another shape: %s", cts_why());
  v->out[0] = (nyb_tensor){.data = v->y.t.data}; /* and with nothing said of it */
  CHECK(!cts_bias_run(s, v) && cts_bias_right(v) && cts_value_guarded(&v->y), "%s", cts_why());
}
static void room(void) { with_session(room_of); }

/* ---- tensors on a device */
static void elsewhere_of(nyb_session *s, cts_bias *v) {
  v->in[0].device = (nyb_device_id){10, 0};
  cts_refused(cts_bias_run(s, v), NYB_E_DEVICE, "\"x\"");
  v->in[0].device = (nyb_device_id){2, 77};
  cts_refused(cts_bias_run(s, v), NYB_E_DEVICE, "\"x\"");
  v->in[0].device = (nyb_device_id){0, 0};
  v->in[1].device = (nyb_device_id){1, 5};
  CHECK(!cts_bias_run(s, v) && cts_bias_right(v), "0 and 1 are the CPU: %s", cts_why());
  v->out[0] = v->y.t;
  v->out[0].device = (nyb_device_id){2, 77};
  cts_refused(cts_bias_run(s, v), NYB_E_DEVICE, "\"y\"");
  still_works(s, v);
}
static void other_devices(void) { with_session(elsewhere_of); }

static void run_there(nyb_session *s, cts_bias *v, nyb_device_id id, char *in, char *out, size_t shift) {
  cts_value back;
  cts_value_make(&back, f32, 2, v->x.shape, 0);
  v->in[0] = (nyb_tensor){in, id, 2, f32, v->x.shape, NULL, shift};
  v->out[0] = (nyb_tensor){.data = out, .device = id, .byte_offset = shift};
  for (int again = 0; again < 3; again++) {
    cts_driver_upload(in + shift, v->x.t.data, v->x.bytes);
    if (!CHECK(!cts_bias_run(s, v), "%s", cts_why())) break;
    CHECK(v->out[0].data == out && v->out[0].device.type == 2 && v->out[0].device.id == id.id, "it stays there");
    cts_driver_download(back.t.data, out + shift, v->x.bytes);
    nyb_tensor there = v->out[0];
    v->out[0].data = back.t.data;
    v->out[0].byte_offset = 0;
    cts_bias_right(v);
    v->out[0] = there;
    *(float *)v->x.t.data += 1;
  }
  cts_value_free(&back);
}

static void there_of(nyb_session *s, cts_bias *v) {
  nyb_device_id id;
  if (!cts_driver_open(&id)) return;
  char *in = cts_driver_alloc(v->x.bytes + 64), *out = cts_driver_alloc(v->x.bytes + 64);
  for (size_t shift = 0; shift <= 32; shift += 4) run_there(s, v, id, in, out, shift);
  cts_driver_free(in);
  cts_driver_free(out);
  v->in[0] = v->x.t;
  v->in[0].shape = v->x.shape;
  still_works(s, v);
}
static void device_tensors(void) { with_session(there_of); }

/* ---- memory of the session moves under inputs and results that stay where they are */
typedef struct fixed {
  const cts_record *r;
  nyb_tensor in[CTS_VALUES], out[CTS_VALUES];
  cts_value mine[CTS_VALUES];
  void *there[CTS_VALUES][2];
} fixed;

static void fixed_make(fixed *f, const cts_record *r, bool device, nyb_device_id id) {
  *f = (fixed){.r = r};
  for (size_t i = 0; i < r->n_in; i++) {
    f->in[i] = r->in[i].t;
    f->in[i].shape = (int64_t *)r->in[i].shape;
    if (!device) continue;
    f->in[i].data = f->there[i][0] = cts_driver_alloc(r->in[i].bytes + 1);
    f->in[i].device = id;
    cts_driver_upload(f->in[i].data, r->in[i].t.data, r->in[i].bytes);
  }
  for (size_t i = 0; i < r->n_out; i++) {
    cts_value_make(&f->mine[i], r->out[i].t.dtype, r->out[i].t.ndim, r->out[i].shape, 0);
    if (device) f->there[i][1] = cts_driver_alloc(r->out[i].bytes + 1);
  }
}

static void fixed_run(fixed *f, nyb_session *s, const cts_model *m, nyb_device_id id) {
  for (size_t i = 0; i < f->r->n_out; i++) {
    f->out[i] = f->mine[i].t;
    if (f->there[i][1]) f->out[i] = (nyb_tensor){.data = f->there[i][1], .device = id};
  }
  MUST(!nyb_run(s, f->in, f->r->n_in, f->out, f->r->n_out), "%s", cts_why());
  for (size_t i = 0; i < f->r->n_out; i++) {
    if (f->there[i][1]) cts_driver_download(f->mine[i].t.data, f->there[i][1], f->mine[i].bytes);
    f->out[i].data = f->mine[i].t.data;
  }
  cts_results(m, f->r, f->out);
}

static void fixed_free(fixed *f) {
  for (size_t i = 0; i < CTS_VALUES; i++) {
    cts_value_free(&f->mine[i]);
    for (int k = 0; k < 2; k++)
      if (f->there[i][k]) cts_driver_free(f->there[i][k]);
  }
}

static void moved_on(cts_model *m, nyb_module *module, bool device, nyb_device_id id) {
  const cts_record *r = &m->record[1];
  nyb_dim more[] = {{"B", 2}, {"S", 24}};
  nyb_session *s = cts_open(module, r->dims, r->n_dims, NULL);
  fixed f;
  MUST(s, "no session");
  fixed_make(&f, r, device, id);
  for (int round = 0; round < 4; round++) {
    for (int again = 0; again < 3; again++) fixed_run(&f, s, m, id);
    more[0].size *= 2, more[1].size *= 2;
    CHECK(!nyb_session_prepare(s, more, 2), "%s", cts_why());
  }
  fixed_free(&f);
  nyb_session_close(s);
}

static void moved_memory(void) {
  cts_model *m = cts_model_find("network");
  nyb_module *module = cts_model_expect(m) ? cts_load("network") : NULL;
  nyb_device_id id = {1, 0};
  MUST(module, "no module");
  moved_on(m, module, false, id);
  if (cts_driver_open(&id)) moved_on(m, module, true, id);
  nyb_module_close(module);
}

/* ---- one session's result is another's input */
static void handed_on_of(nyb_session *s, cts_bias *v) {
  nyb_module *m = cts_load("bias");
  nyb_session *other = m ? cts_open(m, &(nyb_dim){"N", 64}, 1, NULL) : NULL;
  cts_bias next;
  cts_bias_make(&next, 64, 0);
  for (int i = 0; other && i < 4; i++) {
    MUST(!cts_bias_run(s, v) && cts_bias_right(v), "%s", cts_why());
    next.in[0] = v->out[0];
    MUST(!cts_bias_run(other, &next), "%s", cts_why());
    memcpy(next.x.t.data, v->out[0].data, next.x.bytes);
    CHECK(cts_bias_right(&next), "the second of two sessions");
    *(float *)v->x.t.data += 1;
  }
  cts_bias_free(&next);
  nyb_session_close(other);
  nyb_module_close(m);
}
static void handed_on(void) { with_session(handed_on_of); }

const cts_case cts_tensors[] = {{"caller_addresses", addresses},
                                {"caller_places", places},
                                {"caller_room", room},
                                {"wrong_formats", wrong_formats},
                                {"wrong_shapes", wrong_shapes},
                                {"wrong_calls", wrong_calls},
                                {"strides", strides},
                                {"other_devices", other_devices},
                                {"device_tensors", device_tensors},
                                {"moved_memory", moved_memory},
                                {"handed_on", handed_on},
                                {NULL, NULL}};
