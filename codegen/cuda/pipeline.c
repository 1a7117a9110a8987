/* The loop of a sum: a `for` whose body only makes the operands of one mma. While one stage is multiplied, the next ones are on their way: by cp.async into several
   stages where both operands are plain loads, else through registers into the other one of two. */
#include "mma.h"

#include <string.h>

/* Counts what is in the body besides the mma and what only it uses; the mma must be there once. */
static const ny_op *only_mma(cu *c, const ny_op *op) {
  const ny_op *mma = NULL;
  for (const ny_op *o = op->body[0]->first; o; o = o->next) {
    if (o->kind == NY_yield) continue;
    if (o->kind == NY_mma) {
      if (mma) return NULL;
      mma = o;
    } else if (o->n_body || !o->n_out || o->kind == NY_reduce || o->kind == NY_local || c->value[o->out[0]->id].mutated) {
      return NULL;
    }
  }
  return mma;
}

typedef struct around { /* the loop's C texts */
  const char *var, *lo, *hi, *step;
} around;

static around texts(cu *c, const ny_op *op) {
  const ny_attr *a = op->attr;
  return (around){cu_var(c, a[NY_AT(for, var)].s), cu_dim_text(c, a[NY_AT(for, lo)].d), cu_dim_text(c, a[NY_AT(for, hi)].d), cu_dim_text(c, a[NY_AT(for, step)].d)};
}

/* They stay as stored to from here on: whoever writes them next waits. */
static void touch_areas(cu *c, const cu_mma_plan *p) {
  cu_access a[2] = {{.buffer = p->in[0].area, .store = true, .lay = c->layout}, {.buffer = p->in[1].area, .store = true, .lay = c->layout}};
  cu_touch_all(c, a, cu_staged(p));
}

static void open(cu *c, const char *what) { cu_line(c, "%s", what), c->indent++; }
static void close_brace(cu *c) { c->indent--, cu_line(c, "}"); }

/* ---- cp.async */
/* A 16-byte copy for each chunk of the operand's layout. */
static void copy_operand(cu *c, cu_mma_plan *p, int which, const char *stage) {
  const cu_operand *o = &p->in[which];
  const cu_layout *l = o->v->lay;
  int in = l->turned ? 0 : 1, w = l->d[in].v;
  cu_group g = {.dim = {o->v->dim[0], o->v->dim[1]}, .lay = l};
  cu_at at = {.g = &g, .index = -2, .i = "0", .j = "0", .w = w};
  open(c, "{");
  cu_load_head(c, &at, o->v->v->def);
  const char *var[2] = {"i", "j"};
  int loops = 0;
  for (int q = 0; q < 2; q++) {
    int d = q ? in : 1 - in;
    int64_t n = cu_held(&l->d[d], o->v->dim[d]);
    if (n / (d == in ? w : 1) == 1) continue;
    cu_line(c, "#pragma unroll");
    open(c, CU_F(c, "for (int %s = 0; %s < %lld; %s%s) {", var[d], var[d], (long long)n, var[d], d == in && w > 1 ? CU_F(c, " += %d", w) : "++"));
    *(d ? &at.j : &at.i) = var[d];
    loops++;
  }
  const char *pos[2];
  for (int d = 0; d < 2; d++) pos[d] = o->v->dim[d] == 1 ? "0" : cu_plus(c, cu_base(&l->d[d]), cu_place(c, &l->d[d], d ? at.j : at.i));
  const char *outside = NULL; /* threads beyond the tile have no place to put anything */
  for (int d = 0; d < 2; d++) {
    const char *t = o->v->dim[d] == 1 && l->d[d].threads > 1 ? CU_F(c, "%s == 0", l->d[d].base) : cu_exact(&l->d[d], o->v->dim[d]) ? NULL : CU_F(c, "%s < %lld", pos[d], (long long)o->v->dim[d]);
    if (t) outside = outside ? CU_F(c, "%s && %s", outside, t) : t;
  }
  cu_copy_line(c, &at, o->v->v->def, CU_F(c, "%s + %s", cu_stage_base(c, p, which, stage), CU_F(c, o->place, pos[0], pos[1])), outside);
  for (; loops; loops--) close_brace(c);
  close_brace(c);
}

static void copy_operands(cu *c, cu_mma_plan *p, const char *stage) {
  if (p->codes) cu_scaled_copy(c, p, stage);
  for (int i = 0; i < 2 && !p->codes; i++) copy_operand(c, p, i, stage);
}

static bool copyable(const cu_operand *o) {
  const cu_layout *l = o->v->lay;
  int in = l->turned ? 0 : 1;
  int bytes = l->d[in].v * ny_fmts[o->v->fmt].bits / 8;
  return o->copied && (bytes == 16 || bytes == 8 || bytes == 4) && (l->d[in].threads > 1 || o->v->dim[in] == l->d[in].v) && o->ld * ny_fmts[o->v->fmt].bits / 8 % bytes == 0;
}

static void by_copies(cu *c, cu_mma_plan *p, const around *a) {
  int s = p->stages;
  const char *st = cu_name(c, "stage", NULL, p->op->id), *next = cu_name(c, "next", NULL, p->op->id);
  c->uses |= CU_P_ASYNC | CU_P_VECTOR;
  touch_areas(c, p);
  if (p->codes) cu_scaled_open(c, p);
  cu_line(c, "#pragma unroll");
  open(c, CU_F(c, "for (int s = 0; s < %d; s++) {", s - 1));
  cu_line(c, "const ix %s = %s;", a->var, cu_plus(c, a->lo, CU_F(c, "s * %s", cu_paren(c, a->step))));
  open(c, CU_F(c, "if (%s < %s) {", a->var, a->hi));
  copy_operands(c, p, "s");
  close_brace(c);
  cu_line(c, "ny_commit();");
  close_brace(c);
  cu_line(c, "int %s = 0;", st);
  cu_line(c, "#pragma unroll 1");
  open(c, CU_F(c, "for (ix %s = %s; %s < %s; %s += %s) {", a->var, a->lo, a->var, a->hi, a->var, a->step));
  cu_line(c, "ny_wait<%d>();", s - 2);
  cu_line(c, "NY_SYNC;");
  cu_line(c, "const ix %s = %s + %d * %s;", next, a->var, s - 1, cu_paren(c, a->step));
  open(c, CU_F(c, "if (%s < %s) {", next, a->hi));
  cu_line(c, "const int to = %s == 0 ? %d : %s - 1;", st, s - 1, st);
  cu_line(c, "const ix %s = %s;", a->var, next);
  copy_operands(c, p, "to");
  close_brace(c);
  cu_line(c, "ny_commit();");
  p->stage = st;
  cu_mma_compute(c, p);
  cu_line(c, "%s = %s == %d ? 0 : %s + 1;", st, st, s - 1, st);
  close_brace(c);
  cu_line(c, "ny_wait<0>();");
  if (p->codes) cu_codes_close(c, p);
}

/* ---- through registers */
static void operands(cu *c, const ny_op *op) {
  for (const ny_op *o = op->body[0]->first; o; o = o->next)
    if (o->n_out) cu_add(c, o);
  cu_flush(c);
}

/* The values are arrays by now; a batch of their own puts them into shared memory. */
static void put(cu *c, const cu_mma_plan *p, const char *stage) {
  for (int i = 0; i < cu_staged(p); i++) {
    const cu_operand *o = &p->in[i];
    const char *place = stage ? CU_F(c, "%s * %lld + %s", cu_paren(c, stage), (long long)(o->outer * o->ld), o->place) : o->place;
    cu_add_stage(c, o->v, o->area, place, p->op, o->kept, p->codes ? p->codes->terms : 0);
  }
  cu_pending held = c->pending; /* the barrier at the loop's top covers these */
  c->pending.n = 0;
  cu_flush(c);
  c->pending = held;
}

static void by_registers(cu *c, cu_mma_plan *p, const ny_op *op, const around *a) {
  const char *st = cu_name(c, "stage", NULL, p->op->id), *next = cu_name(c, "next", NULL, p->op->id);
  touch_areas(c, p);
  if (p->codes) cu_codes_open(c, p);
  open(c, CU_F(c, "if (%s < %s) {", a->lo, a->hi));
  cu_line(c, "const ix %s = %s;", a->var, a->lo);
  if (p->codes) cu_codes_fetch(c, p, true);
  operands(c, op);
  put(c, p, NULL);
  close_brace(c);
  cu_line(c, "int %s = 0;", st);
  cu_line(c, "#pragma unroll 1");
  open(c, CU_F(c, "for (ix %s = %s; %s < %s; %s += %s) {", a->var, a->lo, a->var, a->hi, a->var, a->step));
  cu_line(c, "NY_SYNC;");
  cu_line(c, "const ix %s = %s + %s < %s ? %s + %s : %s; // the last one again: nobody reads it", next, a->var, a->step, a->hi, a->var, a->step, a->var);
  if (p->codes) {
    open(c, CU_F(c, "if (%s != %s) {", next, a->var));
    cu_line(c, "const ix %s = %s;", a->var, next);
    cu_codes_fetch(c, p, false);
    close_brace(c);
  }
  open(c, "{");
  cu_line(c, "const ix %s = %s;", a->var, next);
  operands(c, op);
  p->stage = st;
  cu_mma_compute(c, p);
  if (p->codes) cu_codes_advance(c, p);
  put(c, p, CU_F(c, "%s ^ 1", st));
  close_brace(c);
  cu_line(c, "%s ^= 1;", st);
  close_brace(c);
  if (p->codes) cu_codes_close(c, p);
}

/* ---- which */
static bool reads_what_is_written(cu *c, const ny_op *op) {
  for (const ny_op *o = op->body[0]->first; o; o = o->next)
    if (o->kind == NY_load && c->buffer[c->value[ny_in(o, 0)->id].buffer].written) return true;
  return false;
}

static uint64_t stage_bytes(const cu_mma_plan *p) {
  uint64_t n = 0;
  for (int i = 0; i < cu_staged(p); i++) n += (uint64_t)(p->in[i].outer * p->in[i].ld) * (ny_fmts[p->in[i].kept].bits > 8 ? ny_fmts[p->in[i].kept].bits / 8u : 1u);
  return n;
}

bool cu_pipeline(cu *c, const ny_op *op) {
  const ny_op *mma = c->threads > 1 ? only_mma(c, op) : NULL;
  int64_t step, wanted = ny_knob(c->k, "stages", 2);
  if (!mma || wanted < 2 || reads_what_is_written(c, op) || !cu_const(c, op->attr[NY_AT(for, step)].d, &step) || step < 1) return false;
  cu_mma_plan *p = cu_mma_plan_of(c, mma);
  for (int i = 0; i < cu_staged(p); i++) /* made outside of the loop: nothing to fetch ahead */
    if ((p->in[i].v->literal && !p->codes) || p->in[i].v->v->def->parent != op->body[0]) return false;
  if (mma->n_in > 3 && !p->codes) return true; /* refused already */
  bool copies = p->codes ? p->codes->both : copyable(&p->in[0]) && copyable(&p->in[1]);
  uint64_t room = c->target->shared / (uint64_t)(c->threads > 32 ? 1 : c->facts->points), have = c->shared + 4096, each = stage_bytes(p);
  int stages = copies ? (int)(wanted > 8 ? 8 : wanted) : 2;
  while (stages > 1 && p->in[0].area < 0 && have + each * (unsigned)stages > room) stages--;
  if (p->in[0].area >= 0) stages = p->stages;
  if (stages < 2) return false;
  cu_mma_areas(c, p, stages);
  if (c->failed) return true;
  around a = texts(c, op);
  uint32_t outer = c->n_limit;
  cu_bind(c, op);
  if (copies)
    by_copies(c, p, &a);
  else
    by_registers(c, p, op, &a);
  c->n_limit = outer;
  p->stage = NULL;
  return true;
}
