/* mma: [m,n] += a[m,k] * b[k,n]. One thread alone multiplies its arrays. Threads together put both operands into shared memory, as they lie in global memory where
   that is known, and each takes what its accumulators need. An operand that only its mma uses is computed in a layout made for that. */
#include "mma.h"

#include <string.h>

enum { MAX_STRAIGHT = 2048, MAX_REGISTERS = 512, PAD = 16 /* bytes: rows of shared memory start at other banks */ };

static cu_value *val(cu *c, const ny_value *v) { return &c->value[v->id]; }

/* Floats multiply in f32, or f64 where one operand is; integers modulo the accumulator's width. */
static ny_fmt arithmetic(const cu_value *t, const cu_value *a, const cu_value *b) {
  if (!ny_is_float(t->fmt)) return t->fmt;
  return t->fmt == NY_f64 || a->fmt == NY_f64 || b->fmt == NY_f64 ? NY_f64 : NY_f32;
}

static const char *number(cu *c, ny_fmt f, ny_fmt from, const char *x) { return cu_cast(c, from, f, x, false); }

static const char *step(cu *c, const cu_value *t, ny_fmt f, const char *acc, const char *a, const char *b) {
  if (ny_is_float(f)) return CU_F(c, "ny_fma(%s, %s, %s)", a, b, acc);
  c->uses |= CU_P_INT;
  const char *s = CU_F(c, "ny_fma((%s)%s, (%s)%s, %s)", cu_reg(f), a, cu_reg(f), b, acc);
  return ny_fmts[t->fmt].bits < 8 ? CU_F(c, "ny_%s(%s)", ny_fmts[t->fmt].name, s) : s;
}

static const char *at(cu *c, const cu_value *v, const char *i, const char *j) {
  if (v->literal) return cu_fill(c, v->fmt, v->v->def->attr[NY_AT(tile, fill)].f);
  if (v->held[0] * v->held[1] == 1) return v->name;
  if (v->held[0] == 1) return CU_F(c, "%s[%s]", v->name, j);
  return v->held[1] == 1 ? CU_F(c, "%s[%s]", v->name, i) : CU_F(c, "%s[%s * %lld + %s]", v->name, cu_paren(c, i), (long long)v->held[1], j);
}

static void loop(cu *c, const char *var, int64_t n, bool unroll) {
  cu_line(c, unroll ? "#pragma unroll" : "#pragma unroll 1");
  cu_line(c, "for (int %s = 0; %s < %lld; %s++) {", var, var, (long long)n, var);
  c->indent++;
}

static void close_loops(cu *c, int n) {
  for (; n; n--) c->indent--, cu_line(c, "}");
}

/* ---- one thread */
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

/* ---- plans */
static bool one_user(const ny_value *v, const ny_op *user) {
  for (const ny_use *u = v->uses; u; u = u->next)
    if (u->user != user) return false;
  return true;
}

/* Whether v and all it is computed from serve nothing but `user`. */
static bool is_own(const cu *c, const ny_value *v, const ny_op *user) {
  const ny_op *op = v->def;
  const cu_value *f = &c->value[v->id];
  if (f->literal) return true;
  if (f->mutated || !one_user(v, user) || (op->kind != NY_load && op->kind != NY_index && op->kind != NY_cast && op->kind != NY_bitcast && !(ny_kinds[op->kind].flags & NY_MAP)))
    return false;
  for (int i = op->kind == NY_load ? 1 : 0; i < op->n_in; i++)
    if (!is_own(c, ny_in(op, i), op)) return false;
  return true;
}

static void move_to(cu *c, const ny_value *v, const cu_layout *l) {
  const ny_op *op = v->def;
  cu_value *f = val(c, v);
  if (f->literal) return;
  f->lay = l;
  f->held[0] = cu_held(&l->d[0], f->dim[0]);
  f->held[1] = cu_held(&l->d[1], f->dim[1]);
  for (int i = op->kind == NY_load ? 1 : 0; i < op->n_in; i++) move_to(c, ny_in(op, i), l);
}

/* The load that brings most of what v is made of. */
static const ny_op *main_load(const cu *c, const ny_value *v) {
  const ny_op *op = v->def;
  if (!op || c->value[v->id].literal) return NULL;
  if (op->kind == NY_load) return op;
  const ny_op *best = NULL;
  for (int i = 0; i < op->n_in && (op->kind == NY_cast || op->kind == NY_bitcast || (ny_kinds[op->kind].flags & NY_MAP)); i++) {
    const cu_value *x = &c->value[ny_in(op, i)->id];
    const ny_op *l = x->dim[0] == c->value[v->id].dim[0] && x->dim[1] == c->value[v->id].dim[1] ? main_load(c, ny_in(op, i)) : NULL;
    if (l) best = l;
  }
  return best;
}

static bool runs_along(const cu *c, const ny_op *load, int d) {
  int64_t s;
  return load && cu_const(c, load->attr[NY_AT(load, stride)].dims.v[d], &s) && s == 1;
}

/* No index tile, or one from before the loop that says where rows are, not elements beside each other. */
static bool found_before(const cu *c, const ny_op *load, int along) {
  if (load->n_in == 1) return true;
  const ny_value *x = ny_in(load, 1);
  return x->def->parent != load->parent && c->value[x->id].dim[along] == 1;
}

static cu_operand operand(cu *c, const ny_op *op, int which) {
  cu_operand o = {.v = val(c, ny_in(op, 1 + which)), .area = -1};
  o.kept = o.v->fmt;
  const ny_op *load = main_load(c, o.v->v);
  int k_dim = which ? 0 : 1; /* of its tile */
  int64_t k = o.v->dim[k_dim], other = o.v->dim[1 - k_dim];
  o.own = is_own(c, o.v->v, op);
  /* without a load to follow: a by rows, b by columns' k, which suits both multipliers */
  o.k_inner = load ? runs_along(c, load, k_dim) || (which == 0 && !runs_along(c, load, 1 - k_dim)) : which == 0;
  if (k == 1) o.k_inner = false;
  int along = o.k_inner ? k_dim : 1 - k_dim;
  o.copied = load && load == o.v->v->def && o.own && found_before(c, load, along) && runs_along(c, load, along) && ny_fmts[o.v->fmt].bits >= 8 && o.v->fmt != NY_bool;
  o.outer = o.k_inner ? other : k, o.inner = o.k_inner ? k : other;
  return o;
}

static int size_of(const cu_operand *o) { return ny_fmts[o->kept].bits > 8 ? ny_fmts[o->kept].bits / 8 : 1; }

/* Turns that a quarter of a warp takes to read 16 bytes each of the rows that its accumulators want. */
static int turns(const cu *c, int which, int64_t row_bytes, int mask) {
  const ny_cuda_layout *f = &c->facts->layout;
  int64_t unit[8];
  int most = 1;
  for (int lane = 0; lane < 8; lane++) {
    int t = which ? lane % (f->mma ? 4 : f->tc) : lane / (f->mma ? 4 : f->tc), v = f->mma ? which ? 2 : 1 : which ? f->v : f->u, same = 0;
    unit[lane] = (int64_t)t * v * row_bytes / 16 + (mask ? t & mask : 0);
    for (int i = 0; i < lane; i++) {
      if (unit[i] == unit[lane]) { /* one read serves both */
        same = 0;
        break;
      }
      same += unit[i] % 8 == unit[lane] % 8;
    }
    if (same + 1 > most) most = same + 1;
  }
  return most;
}

const char *cu_unit_place(cu *c, const cu_operand *o, const char *row, const char *unit) {
  int n = 16 / size_of(o);
  if (!o->mask) return CU_F(c, "%s * %lld + %s * %d", cu_paren(c, row), (long long)o->ld, cu_paren(c, unit), n);
  const char *key = o->every > 1 ? CU_F(c, "%s / %d & %d", cu_paren(c, row), o->every, o->mask) : CU_F(c, "%s & %d", cu_paren(c, row), o->mask);
  return CU_F(c, "%s * %lld + (%s ^ %s) * %d", cu_paren(c, row), (long long)o->ld, cu_paren(c, unit), cu_paren(c, key), n);
}

/* What is read at once are rows of one unit: either rows are padded, so that they start at different banks, or their units change places. The latter takes no room and
   copies arrive without conflicts too; but one by one, it pays only where padding does not help. */
static void arrange(cu *c, cu_mma_plan *p, int which) {
  cu_operand *o = &p->in[which];
  const cu_dim *d = &c->layout->d[which];
  int size = size_of(o), units = (int)(o->inner * size / 16), row = (which == 0) == o->k_inner ? 1 : 2;
  bool even = o->inner * size % 16 == 0 && (units & (units - 1)) == 0 && units > 1 && o->outer > 1;
  int mask = (units < 8 ? units : 8) - 1;
  o->ld = o->outer == 1 ? o->inner : (o->inner * size + 15) / 16 * 16 / size + PAD / size;
  if (even && p->tensor && (o->k_inner || p->k_step > 8))
    o->mask = mask, o->every = units < 8 ? 8 / units : 1;
  else if (even && !p->tensor && o->k_inner && d->inner == 1 && turns(c, which, o->inner * size, mask) < turns(c, which, o->ld * size, 0))
    o->mask = mask, o->every = d->v;
  if (o->mask) o->ld = o->inner;
  const char *r = CU_F(c, "(%%%d$s)", row), *col = CU_F(c, "(%%%d$s)", 3 - row);
  if (o->mask)
    o->place = CU_F(c, "%s + %s %%%% %d", cu_unit_place(c, o, r, CU_F(c, "%s / %d", col, 16 / size)), col, 16 / size);
  else
    o->place = CU_F(c, "%s * %lld + %s", r, (long long)o->ld, col);
}

static void settle(cu *c, cu_mma_plan *p, int which) {
  cu_operand *o = &p->in[which];
  int size = size_of(o);
  if (p->tensor && size == 1 && !o->k_inner) { /* bytes cannot be turned when fragments are read */
    o->k_inner = true, o->copied = false;
    int64_t t = o->outer;
    o->outer = o->inner, o->inner = t;
  }
  if (!p->codes) arrange(c, p, which);
  if (!o->own || o->v->literal) return;
  const ny_op *load = main_load(c, o->v->v);
  bool turned = runs_along(c, load, 0) && !runs_along(c, load, 1);
  int bits = ny_fmts[load ? load->out[0]->type->fmt : o->v->fmt].bits;
  move_to(c, o->v->v, cu_stage_layout(c, o->v->dim[0], o->v->dim[1], load ? 128 / bits : 1, turned));
}

static void prepare(cu *c, const ny_op *op) {
  cu_mma_plan *p = NY_NEW(&c->arena, cu_mma_plan);
  c->plan[op->id] = p;
  *p = (cu_mma_plan){.op = op, .t = val(c, ny_in(op, 0)), .in = {operand(c, op, 0), operand(c, op, 1)}};
  p->sum = arithmetic(p->t, p->in[0].v, p->in[1].v);
  if (op->n_in > 3)
    cu_codes_prepare(c, p);
  else
    p->tensor = cu_tensor_kind(c, p, &p->k_step);
  for (int i = 0; i < cu_staged(p) && !(p->codes && p->codes->both); i++) settle(c, p, i);
}

void cu_mma_prepare(cu *c, const ny_block *b) {
  for (const ny_op *op = b->first; op; op = op->next) {
    if (op->kind == NY_mma && c->threads > 1) prepare(c, op);
    for (int i = 0; i < op->n_body; i++) cu_mma_prepare(c, op->body[i]);
  }
}

cu_mma_plan *cu_mma_plan_of(cu *c, const ny_op *op) { return c->plan[op->id]; }

void cu_mma_areas(cu *c, cu_mma_plan *p, int stages) {
  if (p->in[0].area >= 0) return;
  p->stages = stages;
  for (int i = 0; i < cu_staged(p); i++) {
    cu_operand *o = &p->in[i];
    uint64_t bytes = (uint64_t)stages * (uint64_t)(o->outer * o->ld) * (unsigned)size_of(o);
    if (bytes > 1 << 24) {
      cu_fail(c, p->op, NYB_E_LIMIT, "an operand takes %llu bytes of shared memory", (unsigned long long)bytes);
      return;
    }
    o->area = cu_area(c, cu_name(c, i ? "sb" : "sa", NULL, p->op->id), o->kept, (uint32_t)bytes);
  }
}

const char *cu_stage_base(cu *c, const cu_mma_plan *p, int which, const char *stage) {
  const cu_operand *o = &p->in[which];
  const char *name = c->buffer[o->area].name;
  return p->stages > 1 && stage ? CU_F(c, "%s + %s * %lld", name, stage, (long long)(o->outer * o->ld)) : name;
}

/* ---- several threads, multiplied one by one */
/* Numbers of one operand for k = q .. q + kw - 1: along the other direction, as the accumulators lie. */
static void take(cu *c, const cu_mma_plan *p, int which, int kw) {
  const cu_operand *o = &p->in[which];
  const cu_dim *d = &c->layout->d[which];
  const char *i = which ? "j" : "i", *to = which ? "y" : "x", *from = which ? "gb" : "ga";
  int64_t size = o->k_inner ? o->outer : o->inner, held = cu_held(d, size);
  const char *pos = size == 1 ? "0" : CU_F(c, "%s + %s", cu_base(d), cu_place(c, d, i));
  if (!cu_exact(d, size)) pos = CU_F(c, "(%s < %lld ? %s : 0)", pos, (long long)size, pos);
  const char *reg = cu_reg(o->v->fmt), *num = cu_num(p->sum);
  bool same = o->v->fmt == p->sum;
  cu_line(c, "%s %s[%lld];", num, to, (long long)(held * kw));
  if (o->k_inner) {
    cu_line(c, "EACH(%s, %lld) {", i, (long long)held);
    cu_line(c, "  %s g[%d];", reg, kw);
    c->uses |= CU_P_VECTOR;
    const char *place = o->mask ? CU_F(c, "%s + q %% %d", cu_unit_place(c, o, pos, CU_F(c, "q / %d", 16 / size_of(o))), 16 / size_of(o))
                                : CU_F(c, "%s * %lld + q", cu_paren(c, pos), (long long)o->ld);
    cu_line(c, "  ny_load<%d>(g, %s + %s);", kw, from, place);
    cu_line(c, "  EACH(k, %d) %s[%s * %d + k] = %s;", kw, to, i, kw, number(c, p->sum, o->v->fmt, "g[k]"));
    cu_line(c, "}");
    return;
  }
  int w = d->inner == 1 && d->threads > 1 && cu_exact(d, size) && size > 1 ? d->v : 1; /* adjacent for a thread */
  if (w > 1 && same) {
    c->uses |= CU_P_VECTOR;
    cu_line(c, "EACH(k, %d) EACH(g, %lld) { const int %s = g * %d; ny_load<%d>(&%s[k * %lld + %s], %s + (q + k) * %lld + %s); }", kw, (long long)(held / w), i, w, w, to,
            (long long)held, i, from, (long long)o->ld, pos);
    return;
  }
  cu_line(c, "EACH(k, %d) EACH(%s, %lld) %s[k * %lld + %s] = %s;", kw, i, (long long)held, to, (long long)held, i,
          number(c, p->sum, o->v->fmt, CU_F(c, "%s[(q + k) * %lld + %s]", from, (long long)o->ld, pos)));
}

static void plain_compute(cu *c, const cu_mma_plan *p) {
  const cu_value *t = p->t;
  int64_t k = p->in[0].v->dim[1], rows = t->held[0], cols = t->held[1];
  int kw = 1;
  if (p->in[0].k_inner || p->in[1].k_inner)
    for (kw = rows * cols >= 16 || p->in[0].mask || p->in[1].mask ? 4 : 1; k % kw; kw /= 2) {}
  for (int i = 0; i < 2; i++) /* what is spread over the banks lies together for 16 bytes */
    while (p->in[i].mask && kw > 16 / size_of(&p->in[i])) kw /= 2;
  bool unroll = rows * cols * k <= MAX_STRAIGHT;
  for (int i = 0; i < 2; i++) cu_line(c, "const %s *const %s = %s;", cu_reg(p->in[i].v->fmt), i ? "gb" : "ga", cu_stage_base(c, p, i, p->stage));
  if (unroll)
    cu_line(c, "#pragma unroll");
  else
    cu_line(c, "#pragma unroll %d", kw > 1 ? 1 : rows * cols >= 16 ? 4 : 8);
  cu_line(c, "for (int q = 0; q < %lld; q += %d) {", (long long)k, kw);
  c->indent++;
  take(c, p, 0, kw);
  take(c, p, 1, kw);
  const char *acc = at(c, t, "i", "j"), *x = p->in[0].k_inner ? CU_F(c, "x[i * %d + k]", kw) : CU_F(c, "x[k * %lld + i]", (long long)rows),
             *y = p->in[1].k_inner ? CU_F(c, "y[j * %d + k]", kw) : CU_F(c, "y[k * %lld + j]", (long long)cols);
  cu_line(c, "EACH(k, %d) EACH(i, %lld) EACH(j, %lld) %s = %s;", kw, (long long)rows, (long long)cols, acc,
          cu_cast(c, p->sum, t->fmt, step(c, t, p->sum, number(c, p->sum, t->fmt, acc), x, y), false));
  close_loops(c, 1);
}

void cu_mma_compute(cu *c, const cu_mma_plan *p) {
  cu_line(c, "{");
  c->indent++;
  if (p->codes && p->codes->both)
    cu_scaled_compute(c, p);
  else if (p->codes)
    cu_codes_compute(c, p);
  else if (p->tensor)
    cu_tensor_compute(c, p);
  else
    plain_compute(c, p);
  c->indent--;
  cu_line(c, "}");
}

static void together(cu *c, cu_mma_plan *p) {
  cu_mma_areas(c, p, 1);
  if (c->failed) return;
  for (int i = 0; i < 2; i++) cu_add_stage(c, p->in[i].v, p->in[i].area, p->in[i].place, p->op, p->in[i].v->fmt, 0);
  cu_flush(c);
  cu_access a[2] = {{.buffer = p->in[0].area, .lay = c->layout}, {.buffer = p->in[1].area, .lay = c->layout}};
  cu_touch_all(c, a, 2);
  cu_mma_compute(c, p);
}

void cu_mma(cu *c, const ny_op *op) {
  if (op->n_in > 3) {
    cu_fail(c, op, NYB_E_UNSUPPORTED, "a product by codes stands alone in a loop, with room for two stages in shared memory");
    return;
  }
  if (c->threads > 1) {
    together(c, cu_mma_plan_of(c, op));
    return;
  }
  cu_flush(c);
  alone(c, val(c, ny_in(op, 0)), val(c, ny_in(op, 1)), val(c, ny_in(op, 2)));
}
