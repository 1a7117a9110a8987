/* Cases of the ONNX backend suite: import, run, compare with the recorded outputs under the case's tolerances. A case
   that the importer says is not supported is skipped with its reason; a wrong number, shape, type, a crash or a
   time-out is a failure. */
#include "suite.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "onnx_model.h"

enum { MAX_IO = 64, MAX_SETS = 16 };
typedef struct io {
  suite_value *in, *out;
  size_t n_in, n_out; /* given and recorded; the model may have more */
} io;
typedef struct suite_one {
  const char *dir;
  ny_ctx *cx;
  ny_unit *holder; /* of the tensors read */
  ny_arena a;
  ny_bytes model;
  double rtol, atol;
  suite_value *in, *out; /* of the model */
  size_t n_in, n_out;
  io set[MAX_SETS];
  int n_sets;
  suite_result *r;
} suite_one;

static bool give_up(suite_one *c, suite_verdict v, const char *fmt, ...) NY_PRINTF(3, 4);
static bool give_up(suite_one *c, suite_verdict v, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  c->r->verdict = v;
  vsnprintf(c->r->why, sizeof c->r->why, fmt, ap);
  va_end(ap);
  for (char *p = c->r->why; *p; p++)
    if (*p == '\n') *p = ' ';
  return false;
}

static bool read_file(suite_one *c, const char *path, ny_bytes *out) {
  char *text;
  size_t n;
  if (ny_file_read(&c->a, path, (size_t)1 << 31, &text, &n, &c->cx->diag)) return false;
  *out = (ny_bytes){(const uint8_t *)text, n};
  return true;
}

static bool read_tensor(suite_one *c, ny_bytes proto, ny_tensor *out) {
  uint64_t budget = UINT64_C(1) << 31;
  ny_onnx_files files = {.unit = c->holder, .file = proto, .budget = &budget};
  ny_onnx_tensor t;
  if (ny_onnx_tensor_read(c->cx, &files, proto, &t) || t.fmt == NY_str || t.fmt == NY_none) {
    ny_diag_clear(&c->cx->diag);
    return false;
  }
  ny_dim dim[NY_MAX_RANK];
  for (int i = 0; i < t.rank; i++) dim[i] = t.dim[i];
  out->type = ny_tensor_type(c->cx, t.fmt, t.rank, dim);
  out->data = ny_alloc(&c->a, (size_t)t.bytes + 16);
  if (t.bytes) memcpy(out->data, t.data, (size_t)t.bytes);
  return true;
}

/* SequenceProto: tensors in field 3. Anything else in it is refused. */
static bool read_list(suite_one *c, ny_bytes proto, suite_value *v) {
  size_t cap = 0;
  ny_pb r = ny_pb_over(proto);
  v->kind = SUITE_SEQUENCE, v->fmt = NY_f32;
  while (ny_pb_next(&r)) {
    if (r.field <= 2) continue;
    ny_tensor t;
    if (r.field != 3 || r.wire != NY_PB_LEN || !read_tensor(c, r.bytes, &t)) return false;
    NY_PUSH_ROOM(&c->a, v->item, v->n, cap);
    v->item[v->n++] = t;
  }
  return !r.bad;
}

/* OptionalProto: a tensor in field 3 or a sequence in field 5, or neither. */
static bool read_optional(suite_one *c, ny_bytes proto, suite_value *v) {
  ny_pb r = ny_pb_over(proto);
  v->kind = SUITE_NOTHING;
  while (ny_pb_next(&r)) {
    if (r.field == 5 && r.wire == NY_PB_LEN) return read_list(c, r.bytes, v);
    if (r.field != 3 || r.wire != NY_PB_LEN) continue;
    v->kind = SUITE_TENSOR, v->n = 1, v->item = NY_NEW(&c->a, ny_tensor);
    return read_tensor(c, r.bytes, v->item);
  }
  return !r.bad;
}

static bool read_side(suite_one *c, const char *set, const char *side, const suite_value *of, size_t n_of,
                      suite_value **out, size_t *n) {
  struct stat st;
  *out = NY_NEW_ARRAY(&c->a, suite_value, n_of + 1);
  for (*n = 0; *n < MAX_IO; ++*n) {
    const char *path = ny_strf(&c->a, "%s/%s_%zu.pb", set, side, *n);
    ny_bytes file;
    if (stat(path, &st)) return true;
    if (*n >= n_of) return give_up(c, SUITE_SKIP, "%s %zu is given, the model has %zu", side, *n, n_of);
    suite_value *v = &(*out)[*n];
    *v = of[*n];
    bool ok = read_file(c, path, &file);
    if (ok && v->is_optional)
      ok = read_optional(c, file, v);
    else if (ok && v->is_list)
      ok = read_list(c, file, v);
    else if (ok)
      v->n = 1, v->item = NY_NEW(&c->a, ny_tensor), ok = read_tensor(c, file, v->item);
    if (!ok) return give_up(c, SUITE_SKIP, "%s %zu is not made of tensors that are supported", side, *n);
  }
  return give_up(c, SUITE_SKIP, "more than %d %ss", (int)MAX_IO, side);
}

static bool read_case(suite_one *c) {
  ny_bytes json;
  struct stat st;
  if (!read_file(c, ny_strf(&c->a, "%s/model.onnx", c->dir), &c->model))
    return give_up(c, SUITE_FAIL, "model.onnx cannot be read");
  c->rtol = 1e-3, c->atol = 1e-7;
  if (read_file(c, ny_strf(&c->a, "%s/data.json", c->dir), &json)) {
    char *s = ny_strndup(&c->a, (const char *)json.p, (size_t)json.n), *p;
    if ((p = strstr(s, "\"rtol\":"))) c->rtol = strtod(p + 7, NULL);
    if ((p = strstr(s, "\"atol\":"))) c->atol = strtod(p + 7, NULL);
  }
  ny_diag_clear(&c->cx->diag);
  if (!suite_values(&c->a, c->model, 11, &c->in, &c->n_in) || !suite_values(&c->a, c->model, 12, &c->out, &c->n_out))
    return give_up(c, SUITE_FAIL, "model.onnx is not a protobuf message");
  for (; c->n_sets < MAX_SETS; c->n_sets++) {
    const char *set = ny_strf(&c->a, "%s/test_data_set_%d", c->dir, c->n_sets);
    if (stat(set, &st)) break;
    io *s = &c->set[c->n_sets];
    if (!read_side(c, set, "input", c->in, c->n_in, &s->in, &s->n_in)) return false;
    if (!read_side(c, set, "output", c->out, c->n_out, &s->out, &s->n_out)) return false;
  }
  return c->n_sets > 0 || give_up(c, SUITE_FAIL, "no test data");
}

/* ---- Import, with as little help as possible */
static bool may_pin(suite_one *c, const suite_value *v, int level) {
  if (v->kind != SUITE_TENSOR || !v->item) return false;
  const ny_type *t = v->item->type;
  int64_t count = 0;
  bool ints = ny_is_int((ny_fmt)t->fmt) || t->fmt == NY_bool;
  if (!ny_type_static_count(c->cx, t, &count) || count > 64) return false;
  return level >= 3 || (level >= 2 && ints && t->rank <= 1);
}

static ny_unit *import(suite_one *c, int level) {
  const io *s = &c->set[0];
  bool edit = level > 0;
  for (size_t i = 0; i < s->n_in; i++) {
    s->in[i].pin = may_pin(c, &s->in[i], level);
    edit |= s->in[i].kind != SUITE_TENSOR || s->in[i].is_optional;
  }
  for (size_t i = 0; i < s->n_out; i++) edit |= s->out[i].kind == SUITE_SEQUENCE;
  ny_bytes model = edit ? suite_specialise(&c->a, c->cx, c->model, s->in, s->n_in, s->out, s->n_out) : c->model;
  ny_unit *u = NULL;
  ny_diag_clear(&c->cx->diag);
  if (ny_import_onnx_memory(c->cx, model.p, (size_t)model.n, "model.onnx", NULL, 0, &u)) return NULL;
  return u;
}

static const char *diag_text(suite_one *c) {
  ny_text t = {0};
  ny_diag_print(&c->cx->diag, &t);
  char *s = ny_strdup(&c->a, t.s ? t.s : "?");
  ny_text_free(&t);
  return s;
}

static ny_unit *import_somehow(suite_one *c) {
  const char *first = NULL;
  for (int level = 0; level <= 3; level++) {
    if (level >= 2 && c->n_sets > 1) break; /* constants come from one data set, sequences are as long as in it */
    ny_unit *u = import(c, level);
    c->r->level = level;
    if (u) return u;
    nyb_status s = c->cx->diag.code;
    if (s != NYB_E_UNSUPPORTED && s != NYB_E_SHAPE) {
      give_up(c, SUITE_FAIL, "import: %s", diag_text(c));
      return NULL;
    }
    first = diag_text(c);
  }
  give_up(c, SUITE_SKIP, "%s", first);
  return NULL;
}

/* ---- Comparison */
static bool same_number(double got, double want, double rtol, double atol) {
  if (isnan(got) || isnan(want)) return isnan(got) && isnan(want);
  if (got == want) return true;
  if (isinf(got) || isinf(want)) return false;
  return fabs(got - want) <= atol + rtol * fabs(want);
}

static bool compare(suite_one *c, const ny_tensor *got, const ny_tensor *want, size_t which) {
  if (got->type != want->type) {
    ny_text t = {0};
    ny_text_addf(&t, "output %zu is ", which);
    ny_type_print(c->cx, got->type, &t);
    ny_text_add(&t, ", expected ");
    ny_type_print(c->cx, want->type, &t);
    give_up(c, SUITE_FAIL, "%s", t.s);
    ny_text_free(&t);
    return false;
  }
  ny_fmt f = (ny_fmt)want->type->fmt;
  int64_t count = 0, wrong = 0, at = -1;
  double rtol = f == NY_bf16 ? fmax(c->rtol, 0x1p-6)
                             : c->rtol; /* two units in the last place, as the onnx package's own runner allows */
  ny_type_static_count(c->cx, want->type, &count);
  for (int64_t i = 0; i < count; i++) {
    uint64_t k = (uint64_t)i;
    bool ok = ny_is_float(f) ? same_number(ny_get_f(f, got->data, k), ny_get_f(f, want->data, k), rtol, c->atol)
                             : ny_get_i(f, got->data, k) == ny_get_i(f, want->data, k);
    if (!ok && !wrong++) at = i;
  }
  if (!wrong) return true;
  uint64_t k = (uint64_t)at;
  if (ny_is_float(f))
    return give_up(c, SUITE_FAIL, "output %zu: %lld of %lld differ, first [%lld]: %.9g, expected %.9g", which,
                   (long long)wrong, (long long)count, (long long)at, ny_get_f(f, got->data, k),
                   ny_get_f(f, want->data, k));
  return give_up(c, SUITE_FAIL, "output %zu: %lld of %lld differ, first [%lld]: %lld, expected %lld", which,
                 (long long)wrong, (long long)count, (long long)at, (long long)ny_get_i(f, got->data, k),
                 (long long)ny_get_i(f, want->data, k));
}

/* The next results of the graph against one recorded value. */
static bool compare_value(suite_one *c, const suite_value *v, const ny_tensor **got, size_t which) {
  for (size_t i = 0; i < v->n; i++, ++*got)
    if (!compare(c, *got, &v->item[i], which)) return false;
  if (v->kind != SUITE_SEQUENCE) return true;
  int64_t n = ny_get_i(NY_i64, (*got)++->data, 0);
  return n == (int64_t)v->n ||
         give_up(c, SUITE_FAIL, "output %zu has %lld items, expected %zu", which, (long long)n, v->n);
}

static bool run_set(suite_one *c, ny_unit *u, const io *s, suite_run *run, void *user) {
  ny_tensor in[MAX_IO], out[MAX_IO] = {0};
  size_t n_in = 0, n_out = 0;
  for (size_t i = 0; i < s->n_in; i++)
    for (size_t k = 0; k < s->in[i].n && n_in < MAX_IO && !s->in[i].pin; k++) in[n_in++] = s->in[i].item[k];
  for (size_t i = 0; i < s->n_out; i++) n_out += s->out[i].n + (s->out[i].kind == SUITE_SEQUENCE);
  if (n_in != u->first->body.n_arg)
    return give_up(c, SUITE_FAIL, "the graph takes %u inputs, %zu are given", u->first->body.n_arg, n_in);
  const ny_op *ret = u->first->body.last;
  if (ret->n_in < n_out || ret->n_in > MAX_IO)
    return give_up(c, SUITE_FAIL, "the graph gives %d results, %zu are expected", ret->n_in, n_out);
  if (run(user, u, in, n_in, &c->a, out, ret->n_in)) {
    bool unsupported = c->cx->diag.code == NYB_E_UNSUPPORTED;
    return give_up(c, unsupported ? SUITE_SKIP : SUITE_FAIL, "run: %s", diag_text(c));
  }
  const ny_tensor *got = out;
  for (size_t i = 0; i < s->n_out; i++)
    if (!compare_value(c, &s->out[i], &got, i)) return false;
  return true;
}

nyb_status suite_evaluate(void *user, ny_unit *u, const ny_tensor *in, size_t n_in, ny_arena *a, ny_tensor *out,
                          size_t n_out) {
  (void)user;
  return ny_eval_graph(u->first, in, n_in, a, UINT64_C(6) << 30, out, n_out);
}

/* Imports and runs one case in this process. */
static void run_case(const char *dir, suite_run *run, void *user, suite_result *out) {
  suite_one *c = calloc(1, sizeof *c);
  *out = (suite_result){.verdict = SUITE_FAIL};
  if (!c) return;
  c->dir = dir, c->r = out, c->cx = ny_ctx_new();
  c->holder = ny_unit_new(c->cx);
  ny_unit *u = read_case(c) ? import_somehow(c) : NULL;
  if (u && ny_verify_unit(u))
    give_up(c, SUITE_FAIL, "verify: %s", diag_text(c));
  else if (u) {
    int passed = 0;
    while (passed < c->n_sets && run_set(c, u, &c->set[passed], run, user)) passed++;
    if (passed == c->n_sets) out->verdict = SUITE_PASS;
  }
  if (u) ny_unit_free(u);
  ny_unit_free(c->holder);
  ny_arena_free(&c->a);
  ny_ctx_free(c->cx);
  free(c);
}

/* ---- Folders: one process a case, so that a crash is a failure of that case */
typedef struct child {
  pid_t pid;
  int fd;
  char *dir;
} child;
typedef struct pool {
  const suite_options *o;
  suite_count *count;
  child running[64];
  int n;
  char *skip; /* the list, or NULL */
} pool;

/* The reason of a line `CASE: reason`, or NULL. */
static const char *listed_reason(const pool *p, const char *name) {
  size_t n = strlen(name);
  for (const char *s = p->skip; s && *s; s = strchr(s, '\n') ? strchr(s, '\n') + 1 : NULL)
    if (!strncmp(s, name, n) && s[n] == ':') return s + n + 1 + strspn(s + n + 1, " ");
  return NULL;
}

static void judge_by_list(const pool *p, const char *name, suite_result *r) {
  const char *reason = listed_reason(p, name);
  if (reason && r->verdict == SUITE_PASS) {
    r->verdict = SUITE_FAIL;
    snprintf(r->why, sizeof r->why, "it passes: its line in the skip list must go");
  } else if (reason && r->verdict != SUITE_CRASH) {
    r->verdict = SUITE_SKIP;
    snprintf(r->why, sizeof r->why, "%.*s", (int)strcspn(reason, "\n"), reason);
  } else if (!reason && r->verdict == SUITE_SKIP) {
    r->verdict = SUITE_FAIL;
  }
}

static void report(pool *p, const char *dir, suite_result *r) {
  static const char *const word[] = {"PASS", "FAIL", "SKIP", "FAIL"};
  static const char *const help[] = {"", " (with shapes)", " (with integer inputs as constants)",
                                     " (with inputs as constants)"};
  suite_count *c = p->count;
  const char *name = strrchr(dir, '/') ? strrchr(dir, '/') + 1 : dir;
  if (p->skip) judge_by_list(p, name, r);
  if (r->verdict == SUITE_PASS)
    c->passed++;
  else if (r->verdict == SUITE_SKIP)
    c->skipped++;
  else
    c->failed++;
  if (r->verdict == SUITE_PASS)
    printf("PASS %s%s\n", name, help[r->level & 3]);
  else
    printf("%s %s: %s\n", word[r->verdict], name, r->why);
}

static void finish_one(pool *p) {
  suite_result r = {.verdict = SUITE_FAIL};
  child c = p->running[0];
  ssize_t got = read(c.fd, &r, sizeof r);
  int status = 0;
  close(c.fd);
  waitpid(c.pid, &status, 0);
  if (got != (ssize_t)sizeof r) {
    r = (suite_result){.verdict = SUITE_CRASH};
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
      snprintf(r.why, sizeof r.why, "more than %d s", p->o->seconds);
    else if (WIFSIGNALED(status))
      snprintf(r.why, sizeof r.why, "crash: signal %d", WTERMSIG(status));
    else
      snprintf(r.why, sizeof r.why, "the process ended with %d", WEXITSTATUS(status));
  }
  report(p, c.dir, &r);
  free(c.dir);
  memmove(p->running, p->running + 1, sizeof p->running[0] * (size_t)--p->n);
}

static void start(pool *p, const char *dir) {
  int fd[2];
  int limit = p->o->jobs < 1 ? 1 : p->o->jobs > 64 ? 64 : p->o->jobs;
  while (p->n >= limit) finish_one(p);
  fflush(stdout);
  if (pipe(fd)) return;
  pid_t pid = fork();
  if (pid == 0) {
    suite_result r;
    alarm((unsigned)p->o->seconds);
    run_case(dir, p->o->run, p->o->user, &r);
    ssize_t n = write(fd[1], &r, sizeof r);
    _exit(n == (ssize_t)sizeof r ? 0 : 1);
  }
  close(fd[1]);
  if (pid < 0) {
    close(fd[0]);
    return;
  }
  p->running[p->n++] = (child){pid, fd[0], strdup(dir)};
}

static void folder(pool *p, const char *dir, int depth) {
  char path[4096];
  struct stat st;
  struct dirent **list;
  snprintf(path, sizeof path, "%s/model.onnx", dir);
  if (!stat(path, &st)) {
    start(p, dir);
    return;
  }
  int n = depth < 4 ? scandir(dir, &list, NULL, alphasort) : 0;
  for (int i = 0; i < n; i++) {
    if (list[i]->d_name[0] != '.' && snprintf(path, sizeof path, "%s/%s", dir, list[i]->d_name) < (int)sizeof path &&
        !stat(path, &st) && S_ISDIR(st.st_mode))
      folder(p, path, depth + 1);
    free(list[i]);
  }
  if (n > 0) free(list);
}

void suite_folder(const char *dir, const suite_options *o, suite_count *count) {
  pool p = {.o = o, .count = count};
  ny_arena a = {0};
  ny_diag d = {0};
  size_t n;
  if (o->skip && ny_file_read(&a, o->skip, 1 << 20, &p.skip, &n, &d)) {
    printf("FAIL %s: %s\n", dir, d.message); /* without its list a run says nothing */
    count->failed++;
    return;
  }
  suite_count before = *count;
  folder(&p, dir, 0);
  while (p.n) finish_one(&p);
  if (!memcmp(&before, count, sizeof before)) {
    printf("FAIL %s: holds no test case\n", dir);
    count->failed++;
  }
  ny_arena_free(&a);
}
