/* Reductions: every thread folds what it holds, then the threads of a direction fold their results: by shuffles inside a warp, through shared memory between warps.
   All of them get the result. */
#include "emit.h"

#include <string.h>

static const char *sum_of(cu *c, const cu_value *v) { return strcmp(cu_num(v->fmt), cu_reg(v->fmt)) ? CU_F(c, "s_%s", v->name) : v->name; }
static int64_t held_of(const cu_value *v) { return v->held[0] * v->held[1]; }
static const char *fold_name(const ny_op *op) { return op->attr[NY_AT(reduce, op)].s; }

static const char *item(cu *c, const cu_value *v, const char *i) {
  return held_of(v) == 1 ? sum_of(c, v) : CU_F(c, "%s[%s]", sum_of(c, v), i);
}

static const char *each(cu *c, const cu_value *v) { return held_of(v) == 1 ? "" : CU_F(c, "EACH(e, %lld) ", (long long)held_of(v)); }

void cu_reduce_head(cu *c, const cu_at *at, const ny_op *op) {
  (void)at;
  const cu_value *v = &c->value[op->out[0]->id];
  cu_line(c, "%s%s = %s;", each(c, v), item(c, v, "e"), cu_fold_first(c, fold_name(op), v->fmt));
}

void cu_reduce_body(cu *c, const cu_at *at, const ny_op *op) {
  const cu_value *v = &c->value[op->out[0]->id], *x = &c->value[ny_in(op, 0)->id];
  const cu_layout *l = at->g->lay;
  const char *test = NULL, *pos[2] = {at->i, at->j};
  for (int d = 0; d < 2; d++) {
    if (cu_exact(&l->d[d], at->g->dim[d])) continue;
    const char *p = at->w > 1 && d == 1 ? strcmp(pos[d], "0") ? CU_F(c, "%s + k", pos[d]) : "k" : pos[d];
    const char *t = CU_F(c, "%s + %s < %lld", cu_base(&l->d[d]), cu_place(c, &l->d[d], p), (long long)at->g->dim[d]);
    test = test ? CU_F(c, "%s && %s", test, t) : t;
  }
  const char *s = item(c, v, cu_index(c, at, v)), *n = cu_decode(c, x->fmt, cu_ref(c, at, x));
  cu_line(c, "%s%s%s = %s;", at->w > 1 ? CU_F(c, "EACH(k, %d) ", at->w) : "", test ? CU_F(c, "if (%s) ", test) : "", s, cu_fold(c, fold_name(op), v->fmt, s, n));
}

/* The bits of a thread's number that tell the threads of one direction apart. */
static int bits_of(const cu *c, int d) {
  const ny_cuda_layout *f = &c->facts->layout;
  if (f->mma) return d ? 3 | (f->wn - 1) << 5 : 28 | ((f->wm * f->wn - 1) & ~(f->wn - 1)) << 5;
  return d ? f->tc - 1 : (f->threads - 1) & ~(f->tc - 1);
}

static void between_warps(cu *c, const ny_op *op, const cu_value *v, int lanes, int warps) {
  int per = lanes == 31 ? 1 : 32, shift = __builtin_ctz((unsigned)warps), count = (warps >> shift) + 1;
  int64_t n = held_of(v);
  const char *type = cu_num(v->fmt), *red = cu_name(c, "red", NULL, v->v->id), *slot = per == 1 ? "" : CU_F(c, " * 32 + tid %% 32");
  int size = !strcmp(type, "double") || ny_fmts[v->fmt].bits == 64 ? 8 : 4;
  uint64_t bytes = (uint64_t)(c->threads / 32 * per) * (uint64_t)n * (unsigned)size;
  if (bytes > c->scratch_bytes) c->scratch_bytes = (uint32_t)bytes;
  cu_access a = {.buffer = c->scratch, .store = true, .lay = c->layout};
  cu_touch(c, &a);
  cu_line(c, "%s *const %s = (%s *)ny_scratch;", type, red, type);
  cu_line(c, "%s%s%s[(tid / 32%s) * %lld + %s] = %s;", lanes ? CU_F(c, "if ((tid & %d) == 0) ", lanes) : "", each(c, v), red, slot, (long long)n, n == 1 ? "0" : "e", item(c, v, "e"));
  a.store = false;
  cu_touch(c, &a);
  cu_line(c, "%s%s = %s;", each(c, v), item(c, v, "e"), cu_fold_first(c, fold_name(op), v->fmt));
  cu_line(c, "EACH(w, %d) %s{", count, each(c, v));
  const char *from = per == 1 ? "" : CU_F(c, " * 32 + (tid %% 32 & %d)", 31 & ~lanes);
  const char *other = CU_F(c, "%s[((tid / 32 & %d | w << %d)%s) * %lld + %s]", red, ~warps & 31, shift, from, (long long)n, n == 1 ? "0" : "e");
  cu_line(c, "  %s = %s;", item(c, v, "e"), cu_fold(c, fold_name(op), v->fmt, item(c, v, "e"), other));
  cu_line(c, "}");
}

void cu_reduce_tail(cu *c, const cu_at *at, const ny_op *op) {
  const cu_value *v = &c->value[op->out[0]->id];
  int bits = 0;
  for (int d = 0; d < 2 && c->threads > 1; d++)
    if (v->dim[d] == 1 && at->g->dim[d] > 1) bits |= bits_of(c, d);
  for (int b = 1; b < 32; b *= 2) {
    if (!(bits & b)) continue;
    c->uses |= CU_P_SHUFFLE;
    const char *s = item(c, v, "e");
    cu_line(c, "%s%s = %s;", each(c, v), s, cu_fold(c, fold_name(op), v->fmt, s, CU_F(c, "ny_shuffle(%s, %d)", s, b)));
  }
  if (bits >> 5) between_warps(c, op, v, bits & 31, bits >> 5);
  if (sum_of(c, v) != v->name) cu_line(c, "%s%s%s = %s;", each(c, v), v->name, held_of(v) > 1 ? "[e]" : "", cu_encode(c, v->fmt, item(c, v, "e"), false));
}
