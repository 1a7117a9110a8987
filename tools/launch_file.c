/* Reading launch descriptions: one line, one fact; every mistake is named with its line. */
#include "launch_file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
  cli_launch *l;
  ny_diag *d;
  int line;
  char *word[16];
  int n;
} reader;

static nyb_status wrong(reader *r, const char *fmt, ...) NY_PRINTF(2, 3);
static nyb_status wrong(reader *r, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (!r->d->code) r->d->line = r->line, r->d->file = r->l->path;
  return ny_fail(r->d, NYB_E_PARSE, NULL, "%s", text);
}

static bool number(const char *s, uint64_t most, uint64_t *out) {
  char *end;
  errno = 0;
  *out = strtoull(s, &end, 0);
  return *s >= '0' && *s <= '9' && !*end && !errno && *out <= most;
}

/* ---- shape of the launch */
static nyb_status three(reader *r, uint32_t to[3]) {
  if (r->n < 2 || r->n > 4) return wrong(r, "%s takes one to three numbers", r->word[0]);
  for (int i = 0; i < 3; i++) {
    uint64_t v = 1;
    if (i + 1 < r->n && (!number(r->word[i + 1], INT32_MAX, &v) || !v))
      return wrong(r, "%s: \"%s\" is not a size from 1", r->word[0], r->word[i + 1]);
    to[i] = (uint32_t)v;
  }
  return NYB_OK;
}

static nyb_status one(reader *r, uint64_t least, uint64_t most, uint32_t *to) {
  uint64_t v;
  if (r->n != 2 || !number(r->word[1], most, &v) || v < least)
    return wrong(r, "%s takes a number from %llu to %llu", r->word[0], (unsigned long long)least,
                 (unsigned long long)most);
  *to = (uint32_t)v;
  return NYB_OK;
}

static nyb_status read_grid(reader *r) { return three(r, r->l->grid); }
static nyb_status read_block(reader *r) {
  NY_TRY(three(r, r->l->block));
  const uint32_t *b = r->l->block;
  uint64_t n = (uint64_t)b[0] * b[1];
  if (n > 1024 || n * b[2] > 1024) return wrong(r, "a block has at most 1024 threads, not %ux%ux%u", b[0], b[1], b[2]);
  return NYB_OK;
}
static nyb_status read_shared(reader *r) { return one(r, 0, 1 << 20, &r->l->shared); }
static nyb_status read_points(reader *r) { return one(r, 1, INT32_MAX, &r->l->points); }
static nyb_status name(reader *r, const char **to) {
  if (r->n != 2) return wrong(r, "%s takes one name", r->word[0]);
  *to = ny_strdup(&r->l->arena, r->word[1]);
  return NYB_OK;
}
static nyb_status read_kernel(reader *r) { return name(r, &r->l->kernel); }
static nyb_status read_text(reader *r) { return name(r, &r->l->text); }

/* ---- arguments */
static nyb_status new_arg(reader *r, cli_arg_kind kind, cli_launch_arg **out) {
  cli_launch *l = r->l;
  if (l->n_arg == CLI_MAX_LAUNCH_ARGS) return wrong(r, "more than %d arguments", CLI_MAX_LAUNCH_ARGS);
  NY_PUSH_ROOM(&l->arena, l->arg, l->n_arg, l->cap_arg);
  l->arg[l->n_arg] = (cli_launch_arg){.kind = kind, .same = l->n_arg, .tolerance = 1e-5};
  *out = &l->arg[l->n_arg++];
  return NYB_OK;
}

static const char *beside(reader *r, const char *file) {
  const char *slash = strrchr(r->l->path, '/');
  if (*file == '/' || !slash) return file;
  return ny_strf(&r->l->arena, "%.*s/%s", (int)(slash - r->l->path), r->l->path, file);
}

/* f32[4,64] */
static nyb_status read_type(reader *r, const char *text, nyb_value_info *v, int64_t shape[16]) {
  size_t n = strcspn(text, "[");
  ny_fmt f = ny_fmt_by_name(text, n);
  *v = (nyb_value_info){.dtype = f ? ny_module_dtype(f) : (nyb_dtype){0}};
  if (!v->dtype.bits || text[n] != '[') return wrong(r, "\"%s\" is not a type like f32[4,64]", text);
  const char *p = text + n + 1;
  while (*p && *p != ']') {
    char *end;
    errno = 0;
    if (v->ndim == 16) return wrong(r, "\"%s\" has more than 16 dimensions", text);
    shape[v->ndim] = strtoll(p, &end, 10);
    if (end == p || errno || shape[v->ndim++] < 0 || (*end != ',' && *end != ']'))
      return wrong(r, "\"%s\": bad size", text);
    p = end + (*end == ',');
  }
  if (strcmp(p, "]")) return wrong(r, "\"%s\": no closing ]", text);
  if (cli_bytes_of(v, shape) > (uint64_t)1 << 36) return wrong(r, "\"%s\" asks for too much memory", text);
  return NYB_OK;
}

/* A file, with the type it is said to have; NumPy's own says too little about formats it does not know. */
static nyb_status read_array(reader *r, const char *file, const char *type, cli_array *a) {
  nyb_value_info v;
  int64_t shape[16];
  ny_fmt f = NY_none;
  if (type) {
    NY_TRY(read_type(r, type, &v, shape));
    f = ny_module_format(v.dtype);
  }
  NY_TRY(cli_npy_read(beside(r, file), f, a, r->d));
  if (!type) return NYB_OK;
  if (cli_tensor_bytes(&a->t) != cli_bytes_of(&v, shape))
    return wrong(r, "%s has %llu bytes, %s takes %llu", file, (unsigned long long)cli_tensor_bytes(&a->t), type,
                 (unsigned long long)cli_bytes_of(&v, shape));
  a->t.dtype = v.dtype;
  a->t.ndim = v.ndim;
  memcpy(a->shape, shape, sizeof a->shape);
  return NYB_OK;
}

static bool tolerance(const char *s, double *out) {
  char *end;
  *out = strtod(s, &end);
  return end != s && !*end && *out >= 0;
}

static nyb_status options(reader *r, int from, const char *type, cli_launch_arg *a) {
  for (int i = from; i < r->n; i++) {
    const char *w = r->word[i];
    if (!strncmp(w, "expect=", 7) && !a->expect.memory)
      NY_TRY(read_array(r, w + 7, type, &a->expect));
    else if (strncmp(w, "tol=", 4) || !tolerance(w + 4, &a->tolerance))
      return wrong(r, "\"%s\" is neither expect=FILE.npy nor tol=NUMBER", w);
  }
  return NYB_OK;
}

static nyb_status read_out(reader *r) {
  cli_launch_arg *a;
  nyb_value_info v;
  int64_t shape[16];
  if (r->n < 3) return wrong(r, "out takes a file and a type like f32[4,64]");
  NY_TRY(new_arg(r, CLI_ARG_OUT, &a));
  a->name = ny_strdup(&r->l->arena, r->word[1]);
  NY_TRY(read_type(r, r->word[2], &v, shape));
  if (cli_array_new(&v, shape, &a->first)) return wrong(r, "no memory for %s", r->word[2]);
  return options(r, 3, r->word[2], a);
}

static nyb_status read_file(reader *r, cli_arg_kind kind) {
  cli_launch_arg *a;
  if (r->n < 2) return wrong(r, "%s takes a file", r->word[0]);
  NY_TRY(new_arg(r, kind, &a));
  a->name = ny_strdup(&r->l->arena, r->word[1]);
  const char *type = r->n > 2 && strchr(r->word[2], '[') ? r->word[2] : NULL;
  NY_TRY(read_array(r, a->name, type, &a->first));
  int rest = type ? 3 : 2;
  if (kind == CLI_ARG_IN && r->n > rest) return wrong(r, "nothing is expected of what is only read");
  return options(r, rest, type, a);
}
static nyb_status read_in(reader *r) { return read_file(r, CLI_ARG_IN); }
static nyb_status read_inout(reader *r) { return read_file(r, CLI_ARG_INOUT); }

static nyb_status read_same(reader *r) {
  cli_launch_arg *a;
  uint64_t k;
  if (r->n != 2 || !number(r->word[1], UINT32_MAX, &k) || k >= r->l->n_arg || !cli_arg_has_array(&r->l->arg[k]))
    return wrong(r, "same takes the number of an earlier argument that is an array, counted from 0");
  NY_TRY(new_arg(r, CLI_ARG_SAME, &a));
  a->same = (uint32_t)k;
  return NYB_OK;
}

static nyb_status read_value(reader *r) {
  cli_launch_arg *a;
  if (r->n != 3) return wrong(r, "value takes a format and a number");
  ny_fmt f = ny_fmt_by_name(r->word[1], strlen(r->word[1]));
  char *end = r->word[2];
  if (!f || ny_fmts[f].bits < 8 || ny_fmts[f].bits > 64 || strchr("QS", ny_fmts[f].kind))
    return wrong(r, "\"%s\" is not a format of a number", r->word[1]);
  NY_TRY(new_arg(r, CLI_ARG_VALUE, &a));
  a->fmt = f;
  errno = 0;
  if (ny_is_float(f))
    ny_put_f(f, a->value, 0, strtod(r->word[2], &end), false);
  else
    ny_put_i(f, a->value, 0,
             ny_fmts[f].kind == 'U' ? (int64_t)strtoull(r->word[2], &end, 0) : strtoll(r->word[2], &end, 0));
  return *end || errno ? wrong(r, "\"%s\" is not a number", r->word[2]) : NYB_OK;
}

static const struct {
  const char *name;
  nyb_status (*read)(reader *r);
} rows[] = {{"kernel", read_kernel}, {"grid", read_grid}, {"block", read_block}, {"shared", read_shared},
            {"points", read_points}, {"text", read_text}, {"in", read_in},       {"out", read_out},
            {"inout", read_inout},   {"same", read_same}, {"value", read_value}};

static nyb_status line(reader *r, char *text) {
  char *rest = NULL;
  text[strcspn(text, "#\r")] = 0;
  r->n = 0;
  for (char *w = strtok_r(text, " \t", &rest); w; w = strtok_r(NULL, " \t", &rest)) {
    if (r->n == (int)NY_COUNT(r->word)) return wrong(r, "more than %d words", r->n);
    r->word[r->n++] = w;
  }
  if (!r->n) return NYB_OK;
  for (size_t i = 0; i < NY_COUNT(rows); i++)
    if (!strcmp(rows[i].name, r->word[0])) return rows[i].read(r);
  return wrong(r, "\"%s\" is none of kernel, grid, block, shared, points, text, in, out, inout, same, value",
               r->word[0]);
}

/* Only now do the arguments stay where they are: their tensors point into them. */
static nyb_status working_copies(cli_launch *l, ny_diag *d) {
  for (uint32_t i = 0; i < l->n_arg; i++) {
    cli_launch_arg *a = &l->arg[i];
    if (!cli_arg_has_array(a)) continue;
    nyb_value_info v = {.dtype = a->first.t.dtype, .ndim = a->first.t.ndim};
    a->first.t.shape = a->first.shape;
    a->expect.t.shape = a->expect.shape;
    if (cli_array_new(&v, a->first.shape, &a->now)) return ny_fail(d, NYB_E_NOMEM, NULL, "%s: no memory", a->name);
  }
  cli_launch_reset(l);
  return NYB_OK;
}

nyb_status cli_launch_read(const char *path, cli_launch *l, ny_diag *d) {
  char *text, *rest = NULL;
  size_t n;
  *l = (cli_launch){.path = path};
  NY_TRY(ny_file_read(&l->arena, path, 1 << 20, &text, &n, d));
  reader r = {.l = l, .d = d};
  for (char *p = text; p; p = rest) {
    rest = strchr(p, '\n');
    if (rest) *rest++ = 0;
    r.line++;
    NY_TRY(line(&r, p));
  }
  r.line = 0;
  if (!l->grid[0]) return wrong(&r, "no line `grid`: how many blocks");
  if (!l->block[0]) return wrong(&r, "no line `block`: how many threads in a block");
  return working_copies(l, d);
}

void cli_launch_reset(cli_launch *l) {
  for (uint32_t i = 0; i < l->n_arg; i++)
    if (cli_arg_has_array(&l->arg[i]))
      memcpy(l->arg[i].now.memory, l->arg[i].first.memory, cli_tensor_bytes(&l->arg[i].first.t));
}

void cli_launch_free(cli_launch *l) {
  for (uint32_t i = 0; i < l->n_arg; i++) {
    cli_array_free(&l->arg[i].first);
    cli_array_free(&l->arg[i].now);
    cli_array_free(&l->arg[i].expect);
  }
  ny_arena_free(&l->arena);
}

/* ---- comparing */
static double at(ny_fmt f, const cli_array *a, int64_t i) {
  return ny_is_float(f) ? ny_get_f(f, a->memory, (uint64_t)i) : (double)ny_get_i(f, a->memory, (uint64_t)i);
}

double cli_launch_error(const cli_launch_arg *a) {
  ny_fmt f = ny_module_format(a->now.t.dtype), g = ny_module_format(a->expect.t.dtype);
  int64_t n = cli_count(&a->now.t);
  double worst = 0, most = 0;
  if (cli_count(&a->expect.t) != n || !f || !g) return INFINITY;
  for (int64_t i = 0; i < n; i++) {
    double p = at(f, &a->now, i), q = at(g, &a->expect, i);
    bool same = !ny_is_float(f) && !ny_is_float(g)
                    ? ny_get_i(f, a->now.memory, (uint64_t)i) == ny_get_i(g, a->expect.memory, (uint64_t)i)
                    : p == q || (isnan(p) && isnan(q));
    if (isfinite(q)) most = fmax(most, fabs(q));
    if (same) continue;
    if (p == q) worst = fmax(worst, 1); /* integers too large for double */
    if (!isfinite(p) || !isfinite(q)) return INFINITY;
    worst = fmax(worst, fabs(p - q));
  }
  return most > 0 ? worst / most : worst;
}

double cli_launch_verify(const cli_launch *l, bool *ok) {
  double worst = -1;
  *ok = true;
  for (uint32_t i = 0; i < l->n_arg; i++) {
    const cli_launch_arg *a = &l->arg[i];
    if (!a->expect.memory) continue;
    double e = cli_launch_error(a);
    *ok &= e <= a->tolerance;
    worst = fmax(worst, e);
  }
  return worst;
}
