/* mma: [m,n] += a[m,k] * b[k,n]. One thread alone multiplies its arrays. Threads together put both operands into shared memory, a with its rows adjacent, and each
   takes what its accumulators need. */
#include "emit.h"

#include <string.h>

enum { MAX_STRAIGHT = 2048, MAX_REGISTERS = 512 };

static const char *at(cu *c, const cu_value *v, const char *i, const char *j) {
  if (v->literal) return cu_fill(c, v->fmt, v->v->def->attr[NY_AT(tile, fill)].f);
  if (v->held[0] * v->held[1] == 1) return v->name;
  if (v->held[0] == 1) return CU_F(c, "%s[%s]", v->name, j);
  return v->held[1] == 1 ? CU_F(c, "%s[%s]", v->name, i) : CU_F(c, "%s[(%s) * %lld + %s]", v->name, i, (long long)v->held[1], j);
}

/* Floats multiply in f32, or f64 where one operand is; integers modulo the accumulator's width. */
static ny_fmt arithmetic(const cu_value *t, const cu_value *a, const cu_value *b) {
  if (!ny_is_float(t->fmt)) return t->fmt;
  return t->fmt == NY_f64 || a->fmt == NY_f64 || b->fmt == NY_f64 ? NY_f64 : NY_f32;
}

static const char *number(cu *c, ny_fmt f, ny_fmt from, const char *x) { return cu_cast(c, from, f, x, false); }

/* bool and narrow integers are added up as they are and wrapped to the accumulator. */
static const char *step(cu *c, const cu_value *t, ny_fmt f, const char *acc, const char *a, const char *b) {
  if (ny_is_float(f)) return CU_F(c, "ny_fma(%s, %s, %s)", a, b, acc);
  c->uses |= CU_P_INT;
  const char *s = CU_F(c, "ny_fma((%s)%s, (%s)%s, %s)", cu_reg(f), a, cu_reg(f), b, acc);
  return ny_fmts[t->fmt].bits < 8 ? CU_F(c, "ny_%s(%s)", ny_fmts[t->fmt].name, s) : s;
}

static void loop(cu *c, const char *var, int64_t n, bool unroll) {
  cu_line(c, unroll ? "#pragma unroll" : "#pragma unroll 1");
  cu_line(c, "for (int %s = 0; %s < %lld; %s++) {", var, var, (long long)n, var);
  c->indent++;
}

static void close_loops(cu *c, int n) {
  for (; n; n--) c->indent--, cu_line(c, "}");
}

static void alone(cu *c, const cu_value *t, const cu_value *a, const cu_value *b) {
  int64_t m = t->dim[0], n = t->dim[1], k = a->dim[1];
  bool straight = m * n * k <= MAX_STRAIGHT, registers = m * n <= MAX_REGISTERS;
  ny_fmt f = arithmetic(t, a, b);
  const char *acc = at(c, t, "i", "j");
  bool plain = !strcmp(cu_num(t->fmt), cu_reg(t->fmt)) && (!ny_is_float(f) || f == t->fmt);
  if (plain) {
    loop(c, "q", k, straight);
    loop(c, "i", m, straight || registers);
    loop(c, "j", n, straight || registers);
    cu_line(c, "%s = %s;", acc, step(c, t, f, acc, number(c, f, a->fmt, at(c, a, "i", "q")), number(c, f, b->fmt, at(c, b, "q", "j"))));
    close_loops(c, 3);
    return;
  }
  /* the accumulator's format is narrower than the sum: rounded once */
  loop(c, "i", m, straight);
  loop(c, "j", n, straight);
  cu_line(c, "%s s = %s;", cu_num(f), number(c, f, t->fmt, acc));
  loop(c, "q", k, straight);
  cu_line(c, "s = %s;", step(c, t, f, "s", number(c, f, a->fmt, at(c, a, "i", "q")), number(c, f, b->fmt, at(c, b, "q", "j"))));
  close_loops(c, 1);
  cu_line(c, "%s = %s;", acc, cu_cast(c, f, t->fmt, "s", false));
  close_loops(c, 2);
}

/* ---- several threads */
static int area_of(cu *c, const ny_op *op, int which, ny_fmt f, int64_t elements) {
  int *slot = &c->area[op->id * 2 + (uint32_t)which];
  uint64_t bytes = ny_fmt_bytes(f, (uint64_t)elements);
  if (ny_fmts[f].bits < 8) bytes = (uint64_t)elements;
  if (!*slot) *slot = 1 + cu_area(c, cu_name(c, which ? "sb" : "sa", NULL, op->id), f, (uint32_t)bytes);
  return *slot - 1;
}

static void together(cu *c, const ny_op *op, cu_value *t, cu_value *a, cu_value *b) {
  int64_t m = t->dim[0], n = t->dim[1], k = a->dim[1], rows = t->held[0], cols = t->held[1];
  const cu_layout *l = c->layout;
  ny_fmt f = arithmetic(t, a, b);
  /* a lies as [k][m], so that adjacent rows of a thread are one load; the odd bytes spread its columns over the banks */
  int64_t lda = m + (m > 1 ? 4 : 0);
  int sa = area_of(c, op, 0, a->fmt, k * lda), sb = area_of(c, op, 1, b->fmt, k * n);
  cu_add_stage(c, a, sa, CU_F(c, "(%%2$s) * %lld + %%1$s", (long long)lda), op, a->fmt);
  cu_add_stage(c, b, sb, CU_F(c, "(%%1$s) * %lld + %%2$s", (long long)n), op, b->fmt);
  cu_flush(c);
  cu_touch(c, &(cu_access){.buffer = sa, .lay = l});
  cu_touch(c, &(cu_access){.buffer = sb, .lay = l});
  bool unroll = rows * cols * k <= MAX_STRAIGHT;
  const char *num = cu_num(f), *name[2] = {c->buffer[sa].name, c->buffer[sb].name};
  cu_line(c, unroll ? "#pragma unroll" : "#pragma unroll %d", rows * cols >= 16 ? 4 : 8);
  cu_line(c, "for (int q = 0; q < %lld; q++) {", (long long)k);
  c->indent++;
  const char *pi = cu_place(c, &l->d[0], "i"), *pj = cu_place(c, &l->d[1], "j"), *ri = m == 1 ? "0" : CU_F(c, "%s + %s", cu_base(&l->d[0]), pi),
             *cj = n == 1 ? "0" : CU_F(c, "%s + %s", cu_base(&l->d[1]), pj);
  if (!cu_exact(&l->d[0], m)) ri = CU_F(c, "(%s < %lld ? %s : 0)", ri, (long long)m, ri);
  if (!cu_exact(&l->d[1], n)) cj = CU_F(c, "(%s < %lld ? %s : 0)", cj, (long long)n, cj);
  cu_line(c, "%s x[%lld], y[%lld];", num, (long long)rows, (long long)cols);
  cu_line(c, "EACH(i, %lld) x[i] = %s;", (long long)rows, number(c, f, a->fmt, CU_F(c, "%s[q * %lld + %s]", name[0], (long long)lda, ri)));
  cu_line(c, "EACH(j, %lld) y[j] = %s;", (long long)cols, number(c, f, b->fmt, CU_F(c, "%s[q * %lld + %s]", name[1], (long long)n, cj)));
  const char *acc = at(c, t, "i", "j");
  cu_line(c, "EACH(i, %lld) EACH(j, %lld) %s = %s;", (long long)rows, (long long)cols, acc, cu_cast(c, f, t->fmt, step(c, t, f, number(c, f, t->fmt, acc), "x[i]", "y[j]"), false));
  close_loops(c, 1);
}

void cu_mma(cu *c, const ny_op *op) {
  cu_value *t = &c->value[ny_in(op, 0)->id], *a = &c->value[ny_in(op, 1)->id], *b = &c->value[ny_in(op, 2)->id];
  if (c->threads > 1) {
    together(c, op, t, a, b);
    return;
  }
  cu_flush(c);
  alone(c, t, a, b);
}
