/* Which elements of a tile a thread holds. A layout is separable: rows and columns are spread independently, so a value of one row or one column is simply held by
   every thread of that direction, and broadcasting needs no communication. */
#include "emit.h"

#include <string.h>

int64_t cu_held(const cu_dim *d, int64_t size) {
  if (size == 1) return 1;
  if (d->threads == 1) return size;
  return (size + d->period - 1) / d->period * d->v;
}

bool cu_exact(const cu_dim *d, int64_t size) { return size == 1 || d->threads == 1 || size % d->period == 0; }

const char *cu_base(const cu_dim *d) { return d->base ? d->base : "0"; }

const char *cu_place(cu *c, const cu_dim *d, const char *i) {
  if (d->threads == 1 || (d->v * d->inner == d->period && d->inner == 1)) return i;
  if (!strcmp(i, "0")) return i;
  i = cu_paren(c, i);
  if (d->v == 1) return CU_F(c, "%s * %d", i, d->period);
  if (d->inner == 1) return CU_F(c, "%s / %d * %d + %s %% %d", i, d->v, d->period, i, d->v);
  return CU_F(c, "%s / %d * %d + %s %% %d * %d", i, d->v, d->period, i, d->v, d->inner);
}

static int64_t power_below(int64_t n) {
  int64_t p = 1;
  while (p * 2 <= n) p *= 2;
  return p;
}

static bool is_power(int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

/* The largest tile decides, by its shape: as many threads along columns as have something to do, the others along rows. */
typedef struct shapes {
  int64_t rows, cols;
  int widest; /* bytes of a buffer's element */
} shapes;

static void look(const cu *c, const ny_block *b, shapes *s) {
  for (const ny_op *op = b->first; op; op = op->next) {
    for (int i = 0; i < op->n_out; i++) {
      const ny_type *t = op->out[i]->type;
      if (t->space == NY_VALUE && t->rank == 2 && t->dim[0] * t->dim[1] > s->rows * s->cols) s->rows = t->dim[0], s->cols = t->dim[1];
    }
    if ((op->kind == NY_load || op->kind == NY_store) && ny_fmts[ny_in(op, 0)->type->fmt].bits / 8 > s->widest)
      s->widest = ny_fmts[ny_in(op, 0)->type->fmt].bits / 8;
    for (int i = 0; i < op->n_body; i++) look(c, op->body[i], s);
  }
}

static void spread(cu_layout *l, int tr, int u, int tc, int v) {
  l->d[0] = (cu_dim){tr, u, 1, tr * u, NULL};
  l->d[1] = (cu_dim){tc, v, 1, tc * v, NULL};
}

static void simt(cu *c, ny_cuda_layout *f) {
  shapes s = {1, 1, 1};
  look(c, &c->k->body, &s);
  int64_t v = ny_knob(c->k, "v", 0), tr = ny_knob(c->k, "tr", 0), u = ny_knob(c->k, "u", 1);
  if (!v) {
    v = 16 / s.widest;
    while (v > 1 && (v * 2 > s.cols || (s.rows == 1 && s.cols < v * f->threads))) v /= 2;
  }
  if (!tr) {
    int64_t tc = power_below(s.cols > v ? (s.cols + v - 1) / v : 1);
    if (tc * v < s.cols) tc *= 2;
    if (tc > f->threads) tc = f->threads;
    tr = s.rows == 1 ? 1 : f->threads / tc;
    if (tr > s.rows) tr = power_below(s.rows);
  }
  if (!is_power(v) || !is_power(u) || !is_power(tr) || v > 64 || u > 64 || tr > f->threads) {
    cu_fail(c, NULL, NYB_E_VERIFY, "knobs tr=%lld, u=%lld, v=%lld are no powers of two that fit %d threads", (long long)tr, (long long)u, (long long)v, f->threads);
    tr = u = v = 1;
  }
  f->tr = (int)tr, f->u = (int)u, f->tc = f->threads / (int)tr, f->v = (int)v;
  spread(c->layout, f->tr, f->u, f->tc, f->v);
}

static void fragments(cu *c, ny_cuda_layout *f, int64_t wm, int64_t wn, int64_t wk) {
  if (!is_power(wm) || !is_power(wn) || !is_power(wk) || wm > 32 || wn > 32 || wk > 32 || wm * wn * wk * 32 != f->threads) {
    cu_fail(c, NULL, NYB_E_VERIFY, "knobs wm=%lld, wn=%lld, wk=%lld are not the warps of %d threads", (long long)wm, (long long)wn, (long long)wk, f->threads);
    wm = wn = wk = 1;
  }
  f->mma = true, f->wm = (int)wm, f->wn = (int)wn, f->wk = (int)wk;
  c->layout->d[0] = (cu_dim){8 * f->wm, 2, 8, 16 * f->wm, NULL};
  c->layout->d[1] = (cu_dim){4 * f->wn, 2, 1, 8 * f->wn, NULL};
}

void cu_choose_layout(cu *c) {
  ny_cuda_layout *f = &c->facts->layout;
  int64_t t = ny_knob(c->k, "threads", 1), wm = ny_knob(c->k, "wm", 0);
  *f = (ny_cuda_layout){.threads = 1, .tr = 1, .u = 1, .tc = 1, .v = 1, .wk = 1};
  c->layout = NY_NEW(&c->arena, cu_layout);
  spread(c->layout, 1, 1, 1, 1);
  if (!is_power(t) || t > 1024 || (t > 1 && t < 32)) {
    cu_fail(c, NULL, NYB_E_VERIFY, "knob threads=%lld is none of 1, 32, 64, .. 1024", (long long)t);
    return;
  }
  c->threads = f->threads = (int)t;
  if (t == 1) return;
  if (wm)
    fragments(c, f, wm, ny_knob(c->k, "wn", 1), ny_knob(c->k, "wk", 1));
  else
    simt(c, f);
  c->layout->d[0].base = c->layout->d[0].threads > 1 ? "r0" : NULL;
  c->layout->d[1].base = c->layout->d[1].threads > 1 ? "c0" : NULL;
}

/* For an operand that goes straight into shared memory: `vec` adjacent elements a thread, neighbours beside each other along the adjacent direction. */
const cu_layout *cu_stage_layout(cu *c, int64_t rows, int64_t cols, int vec, bool turned) {
  int64_t in = turned ? rows : cols, v = vec;
  while (v > 1 && in % v) v /= 2;
  int64_t t_in = power_below((in + v - 1) / v);
  if (t_in > c->threads) t_in = c->threads;
  int t_out = c->threads / (int)t_in;
  cu_layout want = {.turned = turned};
  if (turned)
    spread(&want, (int)t_in, (int)v, t_out, 1);
  else
    spread(&want, t_out, 1, (int)t_in, (int)v);
  for (int i = 0; i < c->n_others; i++) {
    const cu_layout *o = c->others[i];
    if (o->turned == want.turned && o->d[0].threads == want.d[0].threads && o->d[0].v == want.d[0].v && o->d[1].v == want.d[1].v) return o;
  }
  if (c->n_others == (int)NY_COUNT(c->others)) return c->layout;
  cu_layout *l = NY_NEW(&c->arena, cu_layout);
  *l = want;
  l->id = ++c->n_others;
  c->others[l->id - 1] = l;
  if (l->d[0].threads > 1) l->d[0].base = CU_F(c, "r%d", l->id);
  if (l->d[1].threads > 1) l->d[1].base = CU_F(c, "c%d", l->id);
  return l;
}

static void base_line(cu *c, const cu_dim *d, const char *t) {
  if (d->base) cu_line(c, "const int %s = %s%s;", d->base, t, d->v > 1 ? CU_F(c, " * %d", d->v) : "");
}

void cu_layout_lines(cu *c, const cu_layout *l, const char *tid) {
  const ny_cuda_layout *f = &c->facts->layout;
  if (l == c->layout && f->mma) {
    if (f->wk > 1) tid = CU_F(c, "(%s %% %d)", tid, 32 * f->wm * f->wn);
    cu_line(c, "const int r0 = %s / 32 / %d * 16 + %s %% 32 / 4;", tid, f->wn, tid);
    cu_line(c, "const int c0 = %s / 32 %% %d * 8 + %s %% 4 * 2;", tid, f->wn, tid);
    return;
  }
  /* the direction whose elements are adjacent has the adjacent threads */
  int in = l->turned ? 0 : 1;
  base_line(c, &l->d[1 - in], CU_F(c, "%s / %d", tid, l->d[in].threads));
  base_line(c, &l->d[in], l->d[1 - in].threads > 1 ? CU_F(c, "(%s %% %d)", tid, l->d[in].threads) : tid);
}

const char *cu_one_of_groups(cu *c, const cu_layout *l) {
  const ny_cuda_layout *f = &c->facts->layout;
  return l == c->layout && f->mma && f->wk > 1 ? CU_F(c, "tid < %d", 32 * f->wm * f->wn) : NULL;
}
