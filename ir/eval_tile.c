/* Runs a tile program over concrete buffers: one grid point after the other, each op on whole tiles held as double or
   int64 and rounded to the tile's format after every op. Nothing is trusted: an access outside its buffer is an error
   naming kernel, op, offset and size, a store to an operand of the launch likewise. Memory that nobody wrote reads as
   all ones (NaN, -1), so that a kernel which forgets an element shows. */
#include "eval.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_NEST = 64 };

typedef struct cell { /* what a value of the kernel is: a tile, or a buffer */
  ny_num *x;
  char *data;
  int64_t rows, cols, count; /* count: elements of a buffer */
  ny_fmt fmt;
  bool read_only;
} cell;
typedef struct prepared { /* an elementwise op made ready; shared between ops that do not differ */
  ny_kind kind;
  const ny_op *op; /* of the attributes, or NULL */
  ny_fmt fmt[3];
  ny_ew ew;
  struct prepared *next;
} prepared;
typedef struct machine {
  ny_ev *ev;
  ny_graph *k;
  const ny_loc *loc; /* of the launch */
  ny_arena arena;
  cell *cell;            /* by value id */
  prepared *ready, **of; /* of: by op id */
  ny_binding *env;
  size_t n_env, n_outer, cap_env;
  ny_num *spare[3]; /* stretched operands: room for the largest tile each */
  uint8_t *bits;
  uint64_t largest;
  int depth;
} machine;
typedef nyb_status tile_fn(machine *m, ny_op *op);

static const ny_loc *where(const machine *m, const ny_op *op) { return op->loc ? op->loc : m->loc; }

#define FAIL(m, op, code, fmt, ...)                                                                                    \
  ny_fail(&(m)->k->cx->diag, code, where(m, op), "kernel %s, %s: " fmt, (m)->k->name ? (m)->k->name : "?",             \
          ny_kinds[(op)->kind].name, __VA_ARGS__)

static nyb_status dim(machine *m, const ny_op *op, ny_dim d, int64_t *out) {
  if (d >= 0) return *out = d, NYB_OK;
  if (d != NY_DIM_INVALID && ny_dim_eval(m->k->cx, d, m->env, m->n_env, out)) return NYB_OK;
  ny_text t = {0};
  if (d != NY_DIM_INVALID) ny_dim_print(m->k->cx, d, &t);
  nyb_status s = FAIL(m, op, NYB_E_INTERNAL, "%s has no value here", t.s ? t.s : "(an invalid size)");
  ny_text_free(&t);
  return s;
}

static cell *in(const machine *m, const ny_op *op, int i) { return &m->cell[ny_in(op, i)->id]; }
static cell *result(const machine *m, const ny_op *op) { return &m->cell[op->out[0]->id]; }
static size_t size_of(const cell *c) { return (size_t)(c->rows * c->cols); }

static void rounded(cell *c) {
  if (ny_is_float(c->fmt))
    ny_round_n(c->fmt, &c->x->f, size_of(c));
  else
    ny_wrap_n(c->fmt, &c->x->i, size_of(c));
}

/* A tile's elements stretched to rows x cols; `room` is used only when it is not that shape already. */
static const ny_num *stretched(const cell *c, int64_t rows, int64_t cols, ny_num *room) {
  if (c->rows == rows && c->cols == cols) return c->x;
  for (int64_t r = 0; r < rows; r++) {
    const ny_num *row = c->x + (c->rows == 1 ? 0 : r * c->cols);
    for (int64_t j = 0; j < cols; j++) room[r * cols + j] = row[c->cols == 1 ? 0 : j];
  }
  return room;
}

/* ---- Access to buffers */
typedef struct access {
  cell *b;
  const ny_num *index;                             /* stretched to the tile, or NULL */
  int64_t off, s0, s1, istride, rows, cols, width; /* rows, cols: inside the limits; width: of the tile */
} access;

static nyb_status out_of_range(machine *m, const ny_op *op, const access *a, int64_t at) {
  const ny_value *v = ny_in(op, 0);
  return FAIL(m, op, NYB_E_INTERNAL, "offset %" PRId64 " of buffer %s, which has %" PRId64 " elements", at,
              v->name ? v->name : "(unnamed)", a->b->count);
}

static bool element_at(const access *a, int64_t r, int64_t c, int64_t *at) {
  int64_t x = 0, y = 0, z = 0;
  bool bad = __builtin_mul_overflow(r, a->s0, &x) || __builtin_mul_overflow(c, a->s1, &y) ||
             __builtin_add_overflow(x, y, &x) || __builtin_add_overflow(x, a->off, &x);
  if (a->index)
    bad =
        bad || __builtin_mul_overflow(a->index[r * a->width + c].i, a->istride, &z) || __builtin_add_overflow(x, z, &x);
  *at = bad ? INT64_MIN : x;
  return !bad && x >= 0 && x < a->b->count;
}

/* Reads the attributes and checks every element that will be touched. An affine access is within range when its four
 * corners are. */
static nyb_status access_read(machine *m, const ny_op *op, ny_dim off, const ny_attr *stride, const ny_attr *lim,
                              ny_dim istride, const cell *tile, const cell *index, access *a) {
  *a = (access){.b = in(m, op, 0), .rows = tile->rows, .cols = tile->cols, .width = tile->cols};
  NY_TRY(dim(m, op, off, &a->off));
  NY_TRY(dim(m, op, stride->dims.v[0], &a->s0));
  NY_TRY(dim(m, op, stride->dims.v[1], &a->s1));
  if (lim->dims.n) {
    int64_t lr = 0, lc = 0;
    NY_TRY(dim(m, op, lim->dims.v[0], &lr));
    NY_TRY(dim(m, op, lim->dims.v[1], &lc));
    a->rows = lr < 0 ? 0 : lr < a->rows ? lr : a->rows;
    a->cols = lc < 0 ? 0 : lc < a->cols ? lc : a->cols;
  }
  if (!a->rows || !a->cols) return NYB_OK;
  int64_t at = 0;
  if (index) {
    NY_TRY(dim(m, op, istride, &a->istride));
    a->index = stretched(index, tile->rows, tile->cols, m->spare[2]);
    for (int64_t r = 0; r < a->rows; r++)
      for (int64_t c = 0; c < a->cols; c++)
        if (!element_at(a, r, c, &at)) return out_of_range(m, op, a, at);
    return NYB_OK;
  }
  for (int corner = 0; corner < 4; corner++)
    if (!element_at(a, corner & 1 ? a->rows - 1 : 0, corner & 2 ? a->cols - 1 : 0, &at))
      return out_of_range(m, op, a, at);
  return NYB_OK;
}

/* Of an element that was checked; modulo 2^64, so that the order of the sum does not matter. */
static int64_t at_of(const access *a, int64_t r, int64_t c) {
  uint64_t at = (uint64_t)a->off + (uint64_t)r * (uint64_t)a->s0 + (uint64_t)c * (uint64_t)a->s1;
  return (int64_t)(a->index ? at + (uint64_t)a->index[r * a->width + c].i * (uint64_t)a->istride : at);
}

static void get(ny_fmt f, const void *p, int64_t at, size_t n, ny_num *out) {
  if (ny_is_float(f))
    ny_load_f(f, p, (uint64_t)at, n, &out->f);
  else
    ny_load_i(f, p, (uint64_t)at, n, &out->i);
}

static void put(ny_fmt f, void *p, int64_t at, size_t n, const ny_num *x) {
  if (ny_is_float(f))
    ny_store_f(f, p, (uint64_t)at, n, &x->f);
  else
    ny_store_i(f, p, (uint64_t)at, n, &x->i);
}

static nyb_status run_load(machine *m, ny_op *op) {
  access a;
  cell *t = result(m, op);
  NY_TRY(access_read(m, op, op->attr[NY_AT(load, off)].d, &op->attr[NY_AT(load, stride)], &op->attr[NY_AT(load, lim)],
                     op->attr[NY_AT(load, istride)].d, t, op->n_in > 1 ? in(m, op, 1) : NULL, &a));
  if (a.rows < t->rows || a.cols < t->cols) memset(t->x, 0, size_of(t) * sizeof *t->x);
  for (int64_t r = 0; r < a.rows; r++) {
    ny_num *row = t->x + r * t->cols;
    if (a.s1 == 1 && !a.index)
      get(t->fmt, a.b->data, at_of(&a, r, 0), (size_t)a.cols, row);
    else
      for (int64_t c = 0; c < a.cols; c++) get(t->fmt, a.b->data, at_of(&a, r, c), 1, row + c);
  }
  return NYB_OK;
}

static nyb_status run_store(machine *m, ny_op *op) {
  access a;
  cell *t = in(m, op, 1);
  ny_fold o = ny_fold_of(op->attr[NY_AT(store, op)].s);
  NY_TRY(access_read(m, op, op->attr[NY_AT(store, off)].d, &op->attr[NY_AT(store, stride)],
                     &op->attr[NY_AT(store, lim)], op->attr[NY_AT(store, istride)].d, t,
                     op->n_in > 2 ? in(m, op, 2) : NULL, &a));
  if (a.b->read_only)
    return FAIL(m, op, NYB_E_INTERNAL, "buffer %s is an operand, not a result",
                ny_in(op, 0)->name ? ny_in(op, 0)->name : "(unnamed)");
  for (int64_t r = 0; r < a.rows; r++) {
    const ny_num *row = t->x + r * t->cols;
    if (a.s1 == 1 && !a.index && o == NY_FOLD_set) {
      put(t->fmt, a.b->data, at_of(&a, r, 0), (size_t)a.cols, row);
      continue;
    }
    for (int64_t c = 0; c < a.cols; c++) {
      ny_num x = row[c], old = {0};
      int64_t at = at_of(&a, r, c);
      if (o != NY_FOLD_set) get(t->fmt, a.b->data, at, 1, &old);
      if (ny_is_float(t->fmt))
        x.f = ny_fold_f(o, old.f, x.f);
      else
        x.i = ny_fold_i(o, t->fmt, old.i, x.i);
      put(t->fmt, a.b->data, at, 1, &x);
    }
  }
  return NYB_OK;
}

/* ---- Tiles */
static nyb_status run_local(machine *m, ny_op *op) {
  cell *c = result(m, op);
  memset(c->data, 0xff, ny_fmt_bytes(c->fmt, (uint64_t)c->count));
  return NYB_OK;
}

static nyb_status run_tile(machine *m, ny_op *op) {
  cell *c = result(m, op);
  double fill = op->attr[NY_AT(tile, fill)].f;
  ny_num x = {.i = 0};
  if (ny_is_float(c->fmt))
    x.f = ny_round_to(c->fmt, fill);
  else
    x.i = ny_f_to_i(c->fmt, fill);
  for (size_t i = 0; i < size_of(c); i++) c->x[i] = x;
  return NYB_OK;
}

static nyb_status run_set(machine *m, ny_op *op) {
  cell *t = in(m, op, 0);
  const ny_num *x = stretched(in(m, op, 1), t->rows, t->cols, m->spare[0]);
  memmove(t->x, x, size_of(t) * sizeof *x);
  return NYB_OK;
}

static nyb_status run_index(machine *m, ny_op *op) {
  cell *t = result(m, op);
  int64_t off = 0, s0 = 0, s1 = 0;
  NY_TRY(dim(m, op, op->attr[NY_AT(index, off)].d, &off));
  NY_TRY(dim(m, op, op->attr[NY_AT(index, stride)].dims.v[0], &s0));
  NY_TRY(dim(m, op, op->attr[NY_AT(index, stride)].dims.v[1], &s1));
  for (int64_t r = 0; r < t->rows; r++)
    for (int64_t c = 0; c < t->cols; c++)
      t->x[r * t->cols + c].i = (int64_t)((uint64_t)off + (uint64_t)r * (uint64_t)s0 + (uint64_t)c * (uint64_t)s1);
  return NYB_OK;
}

/* One mma sums in double (or modulo 2^64) and rounds once, to the tile's format. Products with scales are exact there too. */
static void run_scaled_mma(cell *t, const cell *a, const cell *b, const cell *sb, const cell *sa, int64_t block) {
  for (int64_t r = 0; r < t->rows; r++)
    for (int64_t k = 0; k < a->cols; k++) {
      double x = a->x[r * a->cols + k].f * (sa ? sa->x[r * sa->cols + k / block].f : 1);
      for (int64_t j = 0; j < t->cols; j++) t->x[r * t->cols + j].f += x * b->x[k * b->cols + j].f * sb->x[k / block * sb->cols + j].f;
    }
}

static nyb_status run_mma(machine *m, ny_op *op) {
  cell *t = in(m, op, 0), *a = in(m, op, 1), *b = in(m, op, 2);
  if (op->n_in > 3) {
    run_scaled_mma(t, a, b, in(m, op, 3), op->n_in > 4 ? in(m, op, 4) : NULL, op->attr[NY_AT(mma, block)].i);
    rounded(t);
    return NYB_OK;
  }
  for (int64_t r = 0; r < t->rows; r++)
    for (int64_t k = 0; k < a->cols; k++) {
      ny_num *c = t->x + r * t->cols, x = a->x[r * a->cols + k];
      const ny_num *y = b->x + k * b->cols;
      if (ny_is_float(t->fmt))
        for (int64_t j = 0; j < t->cols; j++) c[j].f += x.f * y[j].f;
      else
        for (int64_t j = 0; j < t->cols; j++) c[j].i = (int64_t)((uint64_t)c[j].i + (uint64_t)x.i * (uint64_t)y[j].i);
    }
  rounded(t);
  return NYB_OK;
}

static nyb_status run_reduce(machine *m, ny_op *op) {
  cell *t = result(m, op), *x = in(m, op, 0);
  const ny_attr *axes = &op->attr[NY_AT(reduce, axes)];
  ny_fold o = ny_fold_of(op->attr[NY_AT(reduce, op)].s);
  bool gone[2] = {false, false}, fl = ny_is_float(x->fmt);
  for (uint32_t i = 0; i < axes->dims.n; i++) {
    int64_t a = 0;
    NY_TRY(dim(m, op, axes->dims.v[i], &a));
    if (a < -2 || a > 1) return FAIL(m, op, NYB_E_VERIFY, "axis %" PRId64 " of a tile", a);
    gone[a < 0 ? a + 2 : a] = true;
  }
  int64_t s1 = gone[1] ? 0 : 1, s0 = gone[0] ? 0 : gone[1] ? 1 : x->cols;
  ny_num first = {.i = 0};
  if (fl)
    first.f = ny_fold_first_f(o, x->fmt);
  else
    first.i = ny_fold_first_i(o, x->fmt);
  for (size_t i = 0; i < size_of(t); i++) t->x[i] = first;
  for (int64_t r = 0; r < x->rows; r++)
    for (int64_t c = 0; c < x->cols; c++) {
      ny_num *to = t->x + r * s0 + c * s1, v = x->x[r * x->cols + c];
      if (fl)
        to->f = ny_fold_f(o, to->f, v.f);
      else
        to->i = ny_fold_i(o, x->fmt, to->i, v.i);
    }
  rounded(t);
  return NYB_OK;
}

static nyb_status run_cast(machine *m, ny_op *op) {
  cell *t = result(m, op), *x = in(m, op, 0);
  bool narrow = op->attr[NY_AT(cast, saturate)].i && ny_fmts[t->fmt].bits <= 8 && ny_is_float(t->fmt),
       from_float = ny_is_float(x->fmt);
  for (size_t i = 0; i < size_of(t); i++) {
    ny_num v = x->x[i];
    if (ny_is_float(t->fmt))
      t->x[i].f = from_float ? v.f : ny_i_to_f(x->fmt, v.i, t->fmt);
    else
      t->x[i].i = from_float ? ny_f_to_i(t->fmt, v.f) : v.i;
    if (!narrow) continue;
    ny_put_f(t->fmt, m->bits, 0, t->x[i].f, true);
    t->x[i].f = ny_get_f(t->fmt, m->bits, 0);
  }
  rounded(t);
  return NYB_OK;
}

static nyb_status run_bitcast(machine *m, ny_op *op) {
  cell *t = result(m, op), *x = in(m, op, 0);
  if (ny_fmt_bytes(t->fmt, size_of(t)) != ny_fmt_bytes(x->fmt, size_of(x)))
    return FAIL(m, op, NYB_E_VERIFY, "the widths differ%s", "");
  put(x->fmt, m->bits, 0, size_of(x), x->x);
  get(t->fmt, m->bits, 0, size_of(t), t->x);
  return NYB_OK;
}

static prepared *prepare(machine *m, ny_op *op) {
  prepared want = {
      .kind = (ny_kind)op->kind, .op = ny_kinds[op->kind].n_attr ? op : NULL, .fmt = {NY_none, NY_none, NY_none}};
  for (int i = 0; i < op->n_in; i++) want.fmt[i] = in(m, op, i)->fmt;
  for (prepared *p = m->ready; p; p = p->next)
    if (p->kind == want.kind && p->op == want.op && !memcmp(p->fmt, want.fmt, sizeof want.fmt)) return p;
  prepared *p = NY_NEW(&m->arena, prepared);
  *p = want;
  ny_ew_init(&p->ew, op, p->fmt, ny_alloc(&m->arena, ny_ew_room(op)));
  p->next = m->ready;
  return m->ready = p;
}

static nyb_status run_map(machine *m, ny_op *op) {
  cell *t = result(m, op);
  const ny_num *x[3] = {0}, *lane[3] = {0};
  if (!m->of[op->id]) m->of[op->id] = prepare(m, op);
  for (int i = 0; i < op->n_in; i++) x[i] = stretched(in(m, op, i), t->rows, t->cols, m->spare[i]);
  for (size_t at = 0, all = size_of(t); at < all; at += NY_EW_CHUNK) {
    size_t n = all - at < NY_EW_CHUNK ? all - at : NY_EW_CHUNK;
    for (int i = 0; i < op->n_in; i++) lane[i] = x[i] + at;
    memcpy(t->x + at, ny_ew_run(&m->of[op->id]->ew, lane, n), n * sizeof *t->x);
  }
  rounded(t);
  return NYB_OK;
}

/* ---- Control */
static nyb_status run_block(machine *m, ny_block *b);

static void push(machine *m, ny_name var, int64_t v) {
  NY_PUSH_ROOM(&m->arena, m->env, m->n_env, m->cap_env);
  m->env[m->n_env++] = (ny_binding){var, v};
}

static nyb_status run_for(machine *m, ny_op *op) {
  int64_t lo = 0, hi = 0, step = 0;
  NY_TRY(dim(m, op, op->attr[NY_AT(for, lo)].d, &lo));
  NY_TRY(dim(m, op, op->attr[NY_AT(for, hi)].d, &hi));
  NY_TRY(dim(m, op, op->attr[NY_AT(for, step)].d, &step));
  if (step <= 0 || m->depth >= MAX_NEST)
    return FAIL(m, op, NYB_E_VERIFY, "step %" PRId64 ", %d loops deep", step, m->depth);
  size_t slot = m->n_env;
  nyb_status s = NYB_OK;
  push(m, op->attr[NY_AT(for, var)].s, lo);
  m->depth++;
  for (int64_t i = lo; i < hi && !s; i = hi - i > step ? i + step : hi) {
    m->env[slot].value = i;
    s = run_block(m, op->body[0]);
  }
  m->depth--;
  m->n_env = slot;
  return s;
}

/* The called kernel sees the same memory under its own types; every call is a machine of its own. */
static nyb_status run_call(machine *m, ny_op *op) {
  ny_graph *k = ny_callee(m->k, op);
  if (!k || k->body.n_arg != op->n_in || ny_kernel_calls(k))
    return FAIL(m, op, NYB_E_VERIFY, "%s cannot be called so", k ? k->name : "a kernel that is not there");
  ny_tensor *buffer = NY_NEW_ARRAY(&m->arena, ny_tensor, op->n_in + 1);
  for (int i = 0; i < op->n_in; i++) {
    const cell *c = in(m, op, i);
    ny_type t = *k->body.arg[i]->type;
    for (int d = 0; d < t.rank; d++) NY_TRY(dim(m, op, t.dim[d], &t.dim[d]));
    buffer[i] = (ny_tensor){ny_type_get(m->k->cx, t), c->data};
    if (!c->data || ny_fmt_bytes((ny_fmt)t.fmt, (uint64_t)ny_count(buffer[i].type)) > ny_fmt_bytes(c->fmt, (uint64_t)c->count))
      return FAIL(m, op, NYB_E_VERIFY, "operand %d is smaller than the buffer of %s", i, k->name);
    if (c->read_only && ny_kernel_stores(k, (uint32_t)i))
      return FAIL(m, op, NYB_E_VERIFY, "%s stores to operand %d, which is an input", k->name, i);
  }
  ny_ev *ev = m->ev;
  ny_binding *env = ev->env;
  size_t n_env = ev->n_env;
  ev->env = m->env, ev->n_env = m->n_env; /* symbols are the caller's */
  nyb_status s = ny_kernel_run(ev, k, buffer, op->n_in, 0, where(m, op));
  ev->env = env, ev->n_env = n_env;
  return s;
}

static nyb_status nothing(machine *m, ny_op *op) { return (void)m, (void)op, NYB_OK; }

static tile_fn *const tile_fns[NY_N_KINDS] = {
#define OP(name, level, min_in, max_in, n_out, n_body, flags, infer, text)
#define EW(name, n_in, types, expr) [NY_##name] = run_map,
#define ATTR(op, name, kind, def)
#include "ops.def"
#undef OP
#undef EW
#undef ATTR
    [NY_for] = run_for,         [NY_local] = run_local,
    [NY_tile] = run_tile,       [NY_set] = run_set,
    [NY_load] = run_load,       [NY_store] = run_store,
    [NY_index] = run_index,     [NY_mma] = run_mma,
    [NY_cast] = run_cast,       [NY_reduce] = run_reduce,
    [NY_bitcast] = run_bitcast, [NY_barrier] = nothing, /* one grid point is run by one thread */
    [NY_call] = run_call,
    [NY_prefetch] = nothing,
};

static nyb_status run_block(machine *m, ny_block *b) {
  for (ny_op *op = b->first; op && !(ny_kinds[op->kind].flags & NY_TERM); op = op->next) {
    if (op->kind == NY_grid) continue;
    if (!tile_fns[op->kind]) return FAIL(m, op, NYB_E_VERIFY, "not an op of the tile level%s", "");
    NY_TRY(tile_fns[op->kind](m, op));
  }
  return NYB_OK;
}

static nyb_status run_grid(machine *m, ny_op *op) {
  if (!op || op->kind != NY_grid) return run_block(m, &m->k->body);
  int64_t n = 0;
  NY_TRY(dim(m, op, op->attr[NY_AT(grid, extent)].d, &n));
  if (m->depth >= MAX_NEST) return FAIL(m, op, NYB_E_VERIFY, "%d grid dimensions", m->depth);
  size_t slot = m->n_env;
  nyb_status s = NYB_OK;
  push(m, op->attr[NY_AT(grid, var)].s, 0);
  m->depth++;
  for (int64_t i = 0; i < n && !s; i++) {
    m->env[slot].value = i;
    s = run_grid(m, op->next);
  }
  m->depth--;
  m->n_env = slot;
  return s;
}

/* ---- Set-up: a cell for every value, in one allocation that counts against the limit */
typedef struct sizes {
  machine *m;
  uint64_t tiles, locals; /* elements; bytes */
  ny_num *tile;
  char *local;
} sizes;

static bool shape(const ny_type *t, cell *c) {
  if (t->rank > 2) return false;
  c->fmt = (ny_fmt)t->fmt;
  c->rows = t->rank > 1 ? t->dim[0] : 1, c->cols = t->rank ? t->dim[t->rank - 1] : 1;
  return c->rows > 0 && c->cols > 0 && c->rows <= 1 << 20 && c->cols <= 1 << 20 && ny_fmts[c->fmt].bits;
}

static uint64_t local_bytes(const machine *m, const ny_type *t, int64_t *count) {
  bool ok =
      ny_type_static_count(m->k->cx, t, count) && *count >= 0 && ny_fmts[t->fmt].bits;
  return ok ? (ny_fmt_bytes((ny_fmt)t->fmt, (uint64_t)*count) + 15) / 16 * 16 : UINT64_MAX;
}

static nyb_status measure(void *user, ny_op *op) {
  sizes *s = user;
  for (int i = 0; i < op->n_in; i++) {
    bool buffer = op->kind == NY_call || (i == 0 && (op->kind == NY_load || op->kind == NY_store || op->kind == NY_prefetch));
    if (buffer == (in(s->m, op, i)->rows > 0))
      return FAIL(s->m, op, NYB_E_VERIFY, "operand %d is not a %s", i, buffer ? "buffer" : "tile");
  }
  for (int i = 0; i < op->n_out; i++) {
    const ny_type *t = op->out[i]->type;
    cell *c = &s->m->cell[op->out[i]->id];
    bool fits;
    if (op->kind == NY_local) {
      uint64_t bytes = local_bytes(s->m, t, &c->count);
      c->fmt = (ny_fmt)t->fmt;
      fits = bytes < UINT64_MAX / 2 && !__builtin_add_overflow(s->locals, bytes, &s->locals);
    } else {
      fits = shape(t, c) && !__builtin_add_overflow(s->tiles, size_of(c), &s->tiles);
      if (fits && size_of(c) > s->m->largest) s->m->largest = size_of(c);
    }
    if (!fits)
      return FAIL(s->m, op, NYB_E_VERIFY, "result %d is neither a tile nor a buffer the evaluator can hold", i);
  }
  return NYB_OK;
}

static nyb_status assign(void *user, ny_op *op) {
  sizes *s = user;
  for (int i = 0; i < op->n_out; i++) {
    cell *c = &s->m->cell[op->out[i]->id];
    if (op->kind == NY_local) {
      int64_t count = 0;
      c->data = s->local;
      s->local += local_bytes(s->m, op->out[i]->type, &count);
    } else {
      c->x = s->tile;
      s->tile += size_of(c);
    }
  }
  return NYB_OK;
}

static nyb_status set_up(machine *m, const ny_tensor *buffer, size_t n, size_t n_read_only) {
  ny_block *b = &m->k->body;
  sizes s = {.m = m};
  if (!b->first || n != b->n_arg)
    return ny_fail(&m->k->cx->diag, NYB_E_INTERNAL, m->loc, "kernel %s takes %u buffers, %zu are given", m->k->name,
                   b->n_arg, n);
  m->cell = NY_NEW_ARRAY(&m->arena, cell, m->k->next_value + 1);
  m->of = NY_NEW_ARRAY(&m->arena, prepared *, m->k->next_op + 1);
  for (size_t i = 0; i < n; i++) {
    if (buffer[i].type->fmt != b->arg[i]->type->fmt)
      return ny_fail(&m->k->cx->diag, NYB_E_TYPE, m->loc, "kernel %s: buffer %zu holds %s, not %s", m->k->name, i,
                     ny_fmts[buffer[i].type->fmt].name, ny_fmts[b->arg[i]->type->fmt].name);
    m->cell[b->arg[i]->id] = (cell){.data = buffer[i].data,
                                    .count = ny_count(buffer[i].type),
                                    .fmt = (ny_fmt)buffer[i].type->fmt,
                                    .read_only = i < n_read_only};
    for (int d = 0; d < buffer[i].type->rank && buffer[i].type->rank == b->arg[i]->type->rank; d++) {
      ny_dim e = b->arg[i]->type->dim[d];
      int64_t known = 0;
      if (e < 0 && ny_dim_get(m->k->cx, e)->kind == NY_DIM_SYM && !ny_dim_eval(m->k->cx, e, m->env, m->n_env, &known))
        push(m, ny_dim_get(m->k->cx, e)->name, buffer[i].type->dim[d]);
    }
  }
  NY_TRY(ny_walk(b, measure, &s));
  uint64_t room = m->largest < UINT64_MAX / 64 ? s.tiles + 3 * m->largest : UINT64_MAX;
  s.tile = ny_ev_tmp(m->ev, b->first, room, sizeof *s.tile);
  s.local = s.tile ? ny_ev_tmp(m->ev, b->first, s.locals, 1) : NULL;
  m->bits = s.local ? ny_ev_tmp(m->ev, b->first, m->largest * 8 + 8, 1) : NULL;
  if (!m->bits) return m->k->cx->diag.code;
  for (int i = 0; i < 3; i++) m->spare[i] = s.tile + s.tiles + (uint64_t)i * m->largest;
  return ny_walk(b, assign, &s);
}

nyb_status ny_kernel_run(ny_ev *ev, ny_graph *k, const ny_tensor *buffer, size_t n, size_t n_read_only,
                         const ny_loc *loc) {
  machine m = {.ev = ev, .k = k, .loc = loc};
  if (!k->kernel) return ny_fail(&k->cx->diag, NYB_E_VERIFY, loc, "%s is not a kernel", k->name);
  for (size_t i = 0; i < ev->n_env; i++) push(&m, ev->env[i].sym, ev->env[i].value);
  nyb_status s = set_up(&m, buffer, n, n_read_only);
  if (!s) s = run_grid(&m, k->body.first);
  ny_arena_free(&m.arena);
  return s;
}

/* Results start as all ones; see above. */
nyb_status ny_ev_launch(ny_ev *ev, const ny_op *op, const ny_tensor *operand, ny_tensor *out) {
  ny_name name = op->attr[NY_AT(launch, kernel)].s;
  ny_graph *k = name ? ny_unit_find(ev->g->unit, name) : NULL;
  size_t n = (size_t)op->n_in + op->n_out;
  if (!k) return NY_EV_FAIL(ev, op, NYB_E_VERIFY, "launch: the unit has no kernel %s", name ? name : "(unnamed)");
  ny_tensor *buffer = ny_ev_tmp(ev, op, n, sizeof *buffer);
  if (!buffer) return ev->cx->diag.code;
  for (size_t i = 0; i < n; i++) buffer[i] = i < op->n_in ? operand[i] : out[i - op->n_in];
  for (int i = 0; i < op->n_out; i++)
    memset(out[i].data, 0xff, ny_fmt_bytes((ny_fmt)out[i].type->fmt, (uint64_t)ny_count(out[i].type)));
  return ny_kernel_run(ev, k, buffer, n, op->n_in, op->loc);
}
