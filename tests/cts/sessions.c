/* Modules and sessions: what is said of them, sizes that change, several of them at once. */
#include "cts.h"
#include <pthread.h>
#include <string.h>

/* ---- what a module says of itself */
static void describe(void) {
  nyb_module *m = cts_load("concat");
  nyb_module_info i = {.size = sizeof i}, part = {.size = offsetof(nyb_module_info, target)};
  MUST(m && !nyb_module_describe(m, &i), "no module");
  CHECK(!strncmp(i.device, cts_device, strlen(cts_device)), "it says that it is on %s", i.device);
  CHECK(i.choice && strlen(i.choice) > 5 && i.target && *i.target, "which code was chosen");
  CHECK(i.n_inputs == 4 && i.n_outputs == 2 && i.n_symbols == 2, "%zu inputs, %zu outputs, %zu symbols", i.n_inputs,
        i.n_outputs, i.n_symbols);
  CHECK(i.n_kernels > 0 && i.code_bytes > 0 && i.file_bytes > i.code_bytes, "kernels and bytes");
  const nyb_value_info *x = &i.inputs[0], *a = &i.outputs[0];
  CHECK(!strcmp(x->name, "x") && x->ndim == 3 && x->dtype.code == NYB_FLOAT && x->dtype.bits == 32, "x");
  CHECK(x->shape[0] == -1 && x->shape[1] == -1 && x->shape[2] == 3 && !x->symbols[2], "its shape");
  CHECK(!strcmp(x->symbols[0], "B") && !strcmp(x->symbols[1], "S") && !strcmp(a->symbols[1], "?S+4"), "its symbols");
  CHECK(i.outputs[1].dtype.code == NYB_INT && i.outputs[1].dtype.bits == 4, "the format of b");
  CHECK(!nyb_module_describe(m, &part) && part.name && !part.target,
        "an older caller's struct is filled as far as it goes");
  CHECK(nyb_module_describe(m, NULL) == NYB_E_ARGUMENT && nyb_module_describe(NULL, &i) == NYB_E_ARGUMENT, "nothing");
  nyb_module_close(m);
}

static void device_names(void) {
  nyb_load_options o = {.size = sizeof o, .trust = 1};
  const char *const wrong[] = {"gpu", "cpu:1", "tpu:3", "simulator", "CUDA", "cuda0"};
  nyb_module *m = NULL;
  for (size_t i = 0; i < COUNT(wrong); i++) {
    o.device = wrong[i];
    nyb_compile_options c = {.size = sizeof c, .device = wrong[i]};
    CHECK(nyb_load(cts_cx, "/nonexistent.nyb", &o, &m) && !m, "%s is no device", wrong[i]);
    CHECK(nyb_open_model(cts_cx, "/nonexistent.nyt", NULL, &c, &m) && !m, "%s is no device", wrong[i]);
  }
  o.device = cts_device;
  cts_refused(nyb_load(cts_cx, "/nonexistent.nyb", &o, &m), NYB_E_IO, "nonexistent");
}

/* ---- sizes */
static bool run_of(nyb_session *s, int64_t n) {
  cts_bias v;
  cts_bias_make(&v, n, 0);
  bool good = CHECK(!cts_bias_run(s, &v), "%lld rows: %s", (long long)n, cts_why()) && cts_bias_right(&v);
  cts_bias_free(&v);
  return good;
}

static nyb_status status_of(nyb_session *s, int64_t n) {
  cts_bias v;
  cts_bias_make(&v, n, 0);
  nyb_status e = cts_bias_run(s, &v);
  cts_bias_free(&v);
  return e;
}

static void sizes(void) {
  static const int64_t row[] = {1, 127, 129, 1000, 3333, 129, 0, 1000, 3333, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  nyb_module *m = cts_load("bias");
  MUST(m, "no module");
  nyb_session *s = cts_open(m, &(nyb_dim){"N", 3333}, 1, NULL);
  for (int round = 0; s && round < 3; round++)
    for (size_t i = 0; i < COUNT(row); i++)
      for (int again = 0; again < 3; again++) MUST(run_of(s, row[i]), "round %d", round);
  nyb_session_close(s);
  nyb_module_close(m);
}

static void prepare(void) {
  nyb_module *m = cts_load("bias");
  MUST(m, "no module");
  nyb_session *s = cts_open(m, NULL, 0, NULL);
  MUST(s, "no session");
  run_of(s, 1); /* a symbol that is not named counts as 1 */
  run_of(s, 0);
  cts_refused(status_of(s, 2000), NYB_E_SHAPE, "prepare");
  nyb_dim more = {"N", 2000}, less = {"?N", 3}, other = {"M", 3}, negative = {"N", -1}, huge = {"N", INT64_MAX / 4};
  CHECK(!nyb_session_prepare(s, &more, 1), "%s", cts_why());
  run_of(s, 2000);
  CHECK(!nyb_session_prepare(s, &less, 1), "%s", cts_why());
  run_of(s, 2000);
  run_of(s, 3);
  cts_refused(nyb_session_prepare(s, &other, 1), NYB_E_ARGUMENT, "M");
  cts_refused(nyb_session_prepare(s, &negative, 1), NYB_E_ARGUMENT, "-1");
  cts_refused(nyb_session_prepare(s, &huge, 1), NYB_E_SHAPE, "");
  CHECK(nyb_session_prepare(s, NULL, 1) == NYB_E_ARGUMENT && nyb_session_prepare(NULL, &more, 1) == NYB_E_ARGUMENT,
        "null arguments");
  run_of(s, 1999);
  run_of(s, 2000);
  cts_refused(status_of(s, 2400), NYB_E_SHAPE, "prepare"); /* a refused size has made no room */
  nyb_session_close(s);
  nyb_module_close(m);
}

static void wrong_options(void) {
  nyb_module *m = cts_load("bias");
  nyb_session *s = NULL;
  MUST(m, "no module");
  nyb_dim other = {"M", 3}, negative = {"N", -1};
  nyb_session_options o = {.size = sizeof o, .dims = &other, .n_dims = 1};
  cts_refused(nyb_session_open(m, &o, &s), NYB_E_ARGUMENT, "M");
  o.dims = &negative;
  cts_refused(nyb_session_open(m, &o, &s), NYB_E_ARGUMENT, "-1");
  o = (nyb_session_options){.size = sizeof o, .threads = -1};
  cts_refused(nyb_session_open(m, &o, &s), NYB_E_ARGUMENT, "threads");
  CHECK(!s, "there is no session");
  CHECK(nyb_session_open(m, NULL, NULL) == NYB_E_ARGUMENT && nyb_session_open(NULL, NULL, &s) == NYB_E_ARGUMENT,
        "null arguments");
  CHECK(!nyb_session_open(m, NULL, &s), "options are optional: %s", cts_why());
  run_of(s, 1);
  nyb_session_close(s);
  nyb_session_close(NULL);
  nyb_module_close(m);
  nyb_module_close(NULL);
}

/* ---- several at once */
static void sessions(void) {
  nyb_module *m = cts_load("bias");
  nyb_session *s[4] = {0};
  MUST(m, "no module");
  for (int i = 0; i < 4; i++) s[i] = cts_open(m, &(nyb_dim){"N", 100 * (i + 1)}, 1, NULL);
  for (int round = 0; round < 4; round++)
    for (int i = 0; i < 4; i++) run_of(s[(i + round) % 4], 100 * ((i + round) % 4 + 1) - round);
  nyb_session_close(s[1]);
  run_of(s[0], 50);
  run_of(s[3], 400);
  nyb_session_close(s[0]);
  nyb_session_close(s[3]);
  run_of(s[2], 300);
  nyb_session_close(s[2]);
  nyb_module_close(m);
}

typedef struct use {
  cts_model *m;
  nyb_module *module;
  nyb_session *s;
} use;

static bool use_open(use *u, const char *name) {
  *u = (use){.m = cts_model_find(name)};
  u->module = cts_model_expect(u->m) ? cts_load(name) : NULL;
  u->s = u->module ? cts_open(u->module, NULL, 0, NULL) : NULL;
  for (size_t k = 0; u->s && k < u->m->n_records; k++)
    CHECK(!nyb_session_prepare(u->s, u->m->record[k].dims, u->m->record[k].n_dims), "%s", cts_why());
  return u->s != NULL;
}

static bool use_run(const use *u, size_t k) {
  nyb_tensor out[CTS_VALUES] = {{0}};
  const cts_record *r = &u->m->record[k % u->m->n_records];
  return CHECK(!cts_run(u->s, r, out), "%s: %s", u->m->name, cts_why()) && cts_results(u->m, r, out);
}

static void use_close(use *u) {
  nyb_session_close(u->s);
  nyb_module_close(u->module);
}

static const char *const several[] = {"matmul", "weights", "reduce_rows", "loop", "softmax", "weights"};

static void modules(void) {
  use u[COUNT(several)];
  for (size_t i = 0; i < COUNT(several); i++) MUST(use_open(&u[i], several[i]), "%s", several[i]);
  for (size_t k = 0; k < 5; k++)
    for (size_t i = 0; i < COUNT(several); i++) use_run(&u[(i * 5 + k) % COUNT(several)], k + i);
  use_close(&u[1]); /* the last of them is another load of the same file */
  for (size_t k = 0; k < 3; k++) use_run(&u[5], k);
  for (size_t i = 0; i < COUNT(several); i++)
    if (i != 1) use_close(&u[i]);
}

static void *often(void *user) {
  for (size_t k = 0; k < 24; k++)
    if (!use_run(user, k / 3)) break;
  return NULL;
}

/* Modules of their own, and two sessions of one. */
static void threads(void) {
  use u[COUNT(several)];
  pthread_t t[COUNT(several)];
  for (size_t i = 0; i < COUNT(several); i++) MUST(use_open(&u[i], several[i]), "%s", several[i]);
  nyb_session_close(u[5].s);
  u[5].s = cts_open(u[1].module, &(nyb_dim){"N", 29}, 1, NULL);
  for (size_t i = 0; i < COUNT(several); i++) MUST(!pthread_create(&t[i], NULL, often, &u[i]), "a thread");
  for (size_t i = 0; i < COUNT(several); i++) pthread_join(t[i], NULL);
  nyb_session_close(u[5].s);
  u[5].s = NULL;
  for (size_t i = 0; i < COUNT(several); i++) use_close(&u[i]);
}

/* A session may be used by one thread after another. */
static void *once(void *user) {
  use_run(user, 0);
  use_run(user, 1);
  return NULL;
}
static void thread_after_thread(void) {
  use u;
  MUST(use_open(&u, "network"), "no session");
  for (int i = 0; i < 4; i++) {
    pthread_t t;
    MUST(!pthread_create(&t, NULL, once, &u), "a thread");
    pthread_join(t, NULL);
    once(&u);
  }
  use_close(&u);
}

const cts_case cts_sessions[] = {{"describe", describe},
                                 {"device_names", device_names},
                                 {"sizes", sizes},
                                 {"prepare", prepare},
                                 {"wrong_options", wrong_options},
                                 {"sessions", sessions},
                                 {"modules", modules},
                                 {"threads", threads},
                                 {"thread_after_thread", thread_after_thread},
                                 {NULL, NULL}};
