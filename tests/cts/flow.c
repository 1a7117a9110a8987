/* Control flow and requirements: which branch, how often, and that a run which a model does not allow says why. */
#include "cts.h"
#include <string.h>

static const nyb_dtype f32 = {NYB_FLOAT, 32, 1}, boolean = {NYB_BOOL, 8, 1}, i64 = {NYB_INT, 64, 1};

static nyb_tensor tensor(void *data, nyb_dtype t, int32_t ndim, int64_t *shape) {
  return (nyb_tensor){data, {1, 0}, ndim, t, shape, NULL, 0};
}

/* ---- branches: any byte but 0 is true */
static void branches(void) {
  static const uint8_t flags[] = {0, 1, 0, 1, 1, 0, 255, 2};
  nyb_module *m = cts_load("branch");
  nyb_session *s = m ? cts_open(m, &(nyb_dim){"N", 9}, 1, NULL) : NULL;
  float x[9] = {-2, 1, 0, 3};
  int64_t n = 9;
  for (size_t i = 0; s && i < COUNT(flags); i++) {
    uint8_t c = flags[i], d = 0;
    nyb_tensor in[3] = {tensor(x, f32, 1, &n), tensor(&c, boolean, 0, NULL), tensor(&d, boolean, 0, NULL)},
               out[2] = {{0}};
    MUST(!nyb_run(s, in, 3, out, 2), "%s", cts_why());
    const float *z = out[0].data, *y = out[1].data;
    for (int k = 0; k < 9; k++) {
      float want = c ? x[k] : -x[k];
      CHECK(y[k] == want && z[k] == want + x[k], "flag %d: element %d is %g", c, k, (double)y[k]);
    }
  }
  nyb_session_close(s);
  nyb_module_close(m);
}

/* ---- a loop that its condition ends: y = x * 2^rounds */
static void rounds(void) {
  nyb_module *m = cts_load("while");
  nyb_session *s = m ? cts_open(m, &(nyb_dim){"N", 5}, 1, NULL) : NULL;
  float x[5] = {1, -1, 0.5f, 3, 0};
  int64_t n = 5;
  for (int64_t most = -1; s && most < 13; most++) {
    int64_t want = most < 2    ? 1
                   : most > 10 ? 9
                               : most - 1; /* the body runs before the first test, nine times at most */
    nyb_tensor in[2] = {tensor(x, f32, 1, &n), tensor(&most, i64, 0, NULL)}, out[3] = {{0}};
    MUST(!nyb_run(s, in, 2, out, 3), "%s", cts_why());
    const float *y = out[0].data;
    CHECK(*(int64_t *)out[1].data == want + 1, "%lld rounds instead of %lld", (long long)*(int64_t *)out[1].data - 1,
          (long long)want);
    for (int k = 0; k < 5; k++) CHECK(y[k] == x[k] * (float)(1 << want), "element %d is %g", k, (double)y[k]);
    CHECK(*(uint8_t *)out[2].data == (want + 1 < most), "the condition");
  }
  nyb_session_close(s);
  nyb_module_close(m);
}

/* ---- requirements */
static nyb_status run_of(nyb_session *s, int64_t n, uint8_t c, float *first) {
  float x[16 * 6];
  int64_t shape[2] = {n, 6};
  for (int i = 0; i < 16 * 6; i++) x[i] = (float)i + 1;
  nyb_tensor in[2] = {tensor(x, f32, 2, shape), tensor(&c, boolean, 0, NULL)}, out[1] = {{0}};
  nyb_status e = nyb_run(s, in, 2, out, 1);
  *first = e ? 0 : *(float *)out[0].data;
  return e;
}

static const char halves[] = "node \"cut\" (Split): halves: (?N/2)*2 and ?N must be equal, here they are 6 and 7";
static const char quarters[] = "node \"cut 4\" (Split): quarters: ?N%4 and 0 must be equal, here they are 2 and 0";

static void requirements(void) {
  nyb_module *m = cts_load("require");
  nyb_session *s = m ? cts_open(m, NULL, 0, NULL) : NULL; /* without sizes nothing is wrong yet */
  nyb_dim n = {"N", 7};
  float y;
  MUST(s, "no session");
  cts_refused(run_of(s, 1, 0, &y), NYB_E_SHAPE, "here they are 0 and 1"); /* but 1, which unnamed sizes count as, is */
  cts_refused(nyb_session_prepare(s, &n, 1), NYB_E_SHAPE, halves);
  n.size = 8;
  CHECK(!nyb_session_prepare(s, &n, 1) && !run_of(s, 8, 1, &y) && y == 1, "%s", cts_why());
  for (int i = 0; i < 2; i++) cts_refused(run_of(s, 7, 0, &y), NYB_E_SHAPE, halves);
  CHECK(!run_of(s, 6, 0, &y) && y == -1, "the branch with a requirement is not taken: %s", cts_why());
  for (int i = 0; i < 2; i++) cts_refused(run_of(s, 6, 1, &y), NYB_E_SHAPE, quarters);
  CHECK(!run_of(s, 4, 1, &y) && y == 1, "a session survives its errors: %s", cts_why());
  nyb_session_close(s);
  s = NULL;
  n.size = 7;
  nyb_session_options o = {.size = sizeof o, .dims = &n, .n_dims = 1};
  cts_refused(nyb_session_open(m, &o, &s), NYB_E_SHAPE, halves);
  CHECK(!s, "there is no session");
  nyb_module_close(m);
}

const cts_case cts_flow[] = {{"branches", branches}, {"rounds", rounds}, {"requirements", requirements}, {NULL, NULL}};
