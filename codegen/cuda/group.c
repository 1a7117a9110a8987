/* Ops become groups, groups become loops. Ops over tiles of one shape whose elements do not depend on one another's neighbours share a loop over the elements a thread
   holds; values that only live inside are scalars, the others arrays, which NVRTC keeps in registers because register loops are unrolled. An op goes to the earliest
   group of its shape that everything it needs precedes: operands, the tile it assigns, and accesses to the same memory. A batch of groups ends at loops and mma. */
#include "emit.h"

#include <string.h>

enum { MAX_UNROLLED = 64, MAX_CODE = 6000, MAX_WIDTH = 16 };

static cu_value *val(cu *c, const ny_value *v) { return &c->value[v->id]; }

/* ---- which group */
static void space_of(cu *c, const ny_op *op, int64_t dim[2], const cu_layout **lay) {
  const ny_value *v = op->kind == NY_store ? ny_in(op, 1) : op->kind == NY_set || op->kind == NY_reduce ? ny_in(op, 0) : op->out[0];
  const cu_value *t = val(c, v);
  dim[0] = t->dim[0], dim[1] = t->dim[1], *lay = op->n_out && op->kind != NY_reduce ? t->lay : c->layout;
}

static bool same_space(const cu_group *g, const int64_t dim[2], const cu_layout *lay) {
  return g->dim[0] == dim[0] && g->dim[1] == dim[1] && g->lay == lay;
}

/* The first group that may read v, given the shape it reads it in. */
static int after_value(cu *c, const cu_value *v, const int64_t dim[2]) {
  if (v->batch != c->batch || v->group < 0) return 0;
  const cu_group *g = &c->group[v->group];
  bool elementwise = v->dim[0] == dim[0] && v->dim[1] == dim[1] && g->dim[0] == dim[0] && g->dim[1] == dim[1] && !v->reduced;
  return elementwise ? v->group : v->group + 1;
}

static int after_memory(cu *c, const cu_access *a) {
  int at = 0;
  for (int i = 0; i < c->n_access; i++) {
    const cu_access *b = &c->access[i];
    if (!(a->store || b->store) || c->buffer[a->buffer].alias != c->buffer[b->buffer].alias) continue;
    int g = cu_same_access(c, a, b) ? b->group : b->group + 1;
    if (g > at) at = g;
  }
  return at;
}

static int max_of(int a, int b) { return a > b ? a : b; }

/* Reads of a tile come before its next assignment: in the same loop when they read the same elements. */
static int after_readers(cu *c, const cu_value *t) {
  int at = 0;
  if (t->batch == c->batch && t->group >= 0) at = t->group;
  for (int g = 0; g < c->n_group; g++)
    for (int m = 0; m < c->group[g].n; m++) {
      const ny_op *op = c->group[g].member[m].op;
      const cu_value *staged = c->group[g].member[m].value;
      bool reads = staged == t;
      for (int i = 0; op && i < op->n_in; i++) reads |= val(c, ny_in(op, i)) == t && !(op->kind == NY_set && i == 0);
      bool elementwise = c->group[g].dim[0] == t->dim[0] && c->group[g].dim[1] == t->dim[1];
      if (reads) at = max_of(at, elementwise ? g : g + 1);
    }
  return at;
}

/* Everything from group `at` on moves up by one. */
static void make_room(cu *c, int at) {
  for (int g = c->n_group; g > at; g--) {
    c->group[g] = c->group[g - 1];
    for (int m = 0; m < c->group[g].n; m++) {
      const ny_op *op = c->group[g].member[m].op;
      cu_value *v = !op ? NULL : op->n_out ? val(c, op->out[0]) : op->kind == NY_set ? val(c, ny_in(op, 0)) : NULL;
      if (v && v->group == g - 1) v->group = g;
    }
  }
  for (int i = 0; i < c->n_access; i++) c->access[i].group += c->access[i].group >= at;
}

/* A group of fewer elements goes before larger ones where it may, so that those are not cut in two for what they read of it. */
static int group_for(cu *c, int from, const int64_t dim[2], const cu_layout *lay) {
  for (int g = from; g < c->n_group; g++)
    if (same_space(&c->group[g], dim, lay)) return g;
  NY_PUSH_ROOM(&c->arena, c->group, c->n_group, c->cap_group);
  int at = from;
  while (at < c->n_group && c->group[at].dim[0] * c->group[at].dim[1] <= dim[0] * dim[1]) at++;
  make_room(c, at);
  c->group[at] = (cu_group){.dim = {dim[0], dim[1]}, .lay = lay};
  c->n_group++;
  return at;
}

static void join(cu *c, int g, cu_member m) {
  cu_group *to = &c->group[g];
  NY_PUSH_ROOM(&c->arena, to->member, to->n, to->cap);
  to->member[to->n++] = m;
}

static void remember(cu *c, cu_access a) {
  NY_PUSH_ROOM(&c->arena, c->access, c->n_access, c->cap_access);
  c->access[c->n_access++] = a;
}

void cu_add(cu *c, const ny_op *op) {
  int64_t dim[2];
  const cu_layout *lay;
  if (op->n_out && (val(c, op->out[0])->dead || val(c, op->out[0])->literal)) return;
  space_of(c, op, dim, &lay);
  bool memory = op->kind == NY_load || op->kind == NY_store;
  int at = 0;
  for (int i = memory ? 1 : 0; i < op->n_in; i++)
    if (!(op->kind == NY_set && i == 0)) at = max_of(at, after_value(c, val(c, ny_in(op, i)), dim));
  cu_access a = {.buffer = memory ? val(c, ny_in(op, 0))->buffer : -1, .store = op->kind == NY_store, .op = op, .lay = lay};
  if (memory) at = max_of(at, after_memory(c, &a));
  if (op->kind == NY_set) at = max_of(at, after_readers(c, val(c, ny_in(op, 0))));
  if (op->kind == NY_tile) at = max_of(at, after_readers(c, val(c, op->out[0])));
  int g = group_for(c, at, dim, lay);
  join(c, g, (cu_member){.op = op});
  a.group = g;
  if (memory) remember(c, a);
  cu_value *to = op->kind == NY_set ? val(c, ny_in(op, 0)) : op->n_out ? val(c, op->out[0]) : NULL;
  if (to) to->group = g, to->batch = c->batch;
}

void cu_add_stage(cu *c, cu_value *v, int area, const char *place, const ny_op *user, ny_fmt as, int terms) {
  int g = group_for(c, after_value(c, v, v->dim), v->dim, v->lay);
  join(c, g, (cu_member){.what = CU_STAGE, .value = v, .area = area, .place = place, .user = user, .as = as, .terms = terms});
}

/* ---- which values are arrays */
static void find_arrays(cu *c, int gi) {
  cu_group *g = &c->group[gi];
  for (int m = 0; m < g->n; m++) {
    const ny_op *op = g->member[m].op;
    if (!op || !op->n_out) continue;
    cu_value *v = val(c, op->out[0]);
    v->array = v->mutated || op->kind == NY_reduce;
    for (const ny_use *u = v->v->uses; u && !v->array; u = u->next) {
      bool inside = false;
      for (int k = 0; k < g->n && !inside; k++) inside = g->member[k].op == u->user || (g->member[k].value == v && g->member[k].user == u->user);
      v->array = !inside;
    }
  }
}

static int64_t held_of(const cu_value *v) { return v->held[0] * v->held[1]; }

static const char *type_of(const cu_value *v) { return v->narrow ? "ix" : cu_reg(v->fmt); }

/* A reduction gathers numbers; where its format is narrower they become the value at the end. */
static void declare(cu *c, const cu_group *g) {
  for (int m = 0; m < g->n; m++) {
    const ny_op *op = g->member[m].op;
    if (!op || !op->n_out) continue;
    cu_value *v = val(c, op->out[0]);
    if (!v->array) continue;
    const char *size = held_of(v) > 1 ? CU_F(c, "[%lld]", (long long)held_of(v)) : "";
    cu_line(c, "%s %s%s;", type_of(v), v->name, size);
    if (op->kind == NY_reduce && strcmp(cu_num(v->fmt), cu_reg(v->fmt))) cu_line(c, "%s s_%s%s;", cu_num(v->fmt), v->name, size);
  }
}

/* ---- references */
static const char *scaled(cu *c, const char *i, int64_t by) {
  if (!strcmp(i, "0")) return i;
  return by == 1 ? i : CU_F(c, "%s * %lld", cu_paren(c, i), (long long)by);
}

const char *cu_index(cu *c, const cu_at *at, const cu_value *v) {
  const char *pos[2] = {at->i, at->j};
  int in = at->g->lay->turned ? 0 : 1;
  if (at->w > 1) pos[in] = cu_plus(c, pos[in], "k");
  for (int d = 0; d < 2; d++)
    if (v->dim[d] == 1) pos[d] = "0";
  return cu_plus(c, scaled(c, pos[0], v->held[1]), pos[1]);
}

static bool constant_place(const char *s) { return !strcmp(s, "0"); }

const char *cu_ref(cu *c, const cu_at *at, const cu_value *v) {
  if (v->literal) return cu_fill(c, v->fmt, v->v->def->attr[NY_AT(tile, fill)].f);
  if (v->array || v->batch != c->batch || v->group != at->index) {
    const char *i = cu_index(c, at, v);
    return held_of(v) == 1 ? v->name : CU_F(c, "%s[%s]", v->name, constant_place(i) ? "0" : i);
  }
  return at->w > 1 ? CU_F(c, "%s[k]", v->name) : v->name;
}

/* The place to write v's element k to, declared if it lives in the loop only. */
static const char *target(cu *c, const cu_at *at, cu_value *v) {
  if (v->array) return cu_ref(c, at, v);
  return at->w > 1 ? CU_F(c, "%s[k]", v->name) : CU_F(c, "const %s %s", type_of(v), v->name);
}

static void assign(cu *c, const cu_at *at, cu_value *v, const char *x) {
  if (at->w > 1 && !v->array) cu_line(c, "%s %s[%d];", type_of(v), v->name, at->w);
  if (at->w > 1)
    cu_line(c, "EACH(k, %d) %s = %s;", at->w, target(c, at, v), x);
  else
    cu_line(c, "%s = %s;", target(c, at, v), x);
}

/* ---- bodies */
static void index_body(cu *c, const cu_at *at, const ny_op *op) {
  const cu_layout *l = at->g->lay;
  cu_value *to = val(c, op->out[0]);
  const char *wide = to->narrow ? "" : "(i64)", *pos[2] = {at->i, at->j}, *s = NULL;
  ny_dim off = op->attr[NY_AT(index, off)].d;
  int64_t v;
  int in = l->turned ? 0 : 1;
  if (!cu_const(c, off, &v) || v) s = CU_F(c, "%s%s", wide, to->narrow ? cu_dim_text(c, off) : cu_paren(c, cu_dim_text(c, off)));
  for (int d = 0; d < 2; d++) {
    ny_dim by = op->attr[NY_AT(index, stride)].dims.v[d];
    if ((cu_const(c, by, &v) && v == 0) || at->g->dim[d] == 1) continue;
    const char *p = cu_place(c, &l->d[d], at->w > 1 && d == in ? cu_plus(c, pos[d], "k") : pos[d]), *t = NULL;
    p = cu_plus(c, cu_base(&l->d[d]), p);
    if (!to->narrow) p = CU_F(c, "(i64)%s", cu_paren(c, p));
    t = cu_times(c, p, by);
    s = s ? CU_F(c, "%s + %s", s, t) : t;
  }
  assign(c, at, to, s ? s : to->narrow ? "0" : "0ll");
}

/* Four columns of x, two places apart from one to the next: see codes.c. */
static void stage_terms(cu *c, const cu_at *at, const cu_member *m, const char *test, const char *x) {
  const cu_layout *l = at->g->lay;
  const char *pos[2] = {at->i, at->j}, *each = at->w > 1 ? CU_F(c, "EACH(k, %d) ", at->w) : "", *k = at->w > 1 ? "[2 * k]" : "[0]";
  for (int d = 0; d < 2; d++) pos[d] = at->g->dim[d] == 1 ? "0" : cu_plus(c, cu_base(&l->d[d]), cu_place(c, &l->d[d], pos[d]));
  cu_line(c, "%s{", test ? CU_F(c, "if (%s) ", test) : "");
  for (int e = 0; e < m->terms; e++)
    cu_line(c, "  u16 *const to%d = %s + %s;", e, c->buffer[m->area].name, CU_F(c, m->place, CU_F(c, "%s + %lld", pos[0], (long long)(e * at->g->dim[0])), pos[1]));
  if (m->terms == 1) {
    cu_line(c, "  %sto0%s = %s;", each, k, x);
  } else {
    cu_line(c, "  %s{", each);
    cu_line(c, "    u16 term[%d];", m->terms);
    cu_line(c, "    ny_terms<%d>(term, %s);", m->terms, cu_decode(c, m->value->fmt, x));
    for (int e = 0; e < m->terms; e++) cu_line(c, "    to%d%s = term[%d];", e, k, e);
    cu_line(c, "  }");
  }
  cu_line(c, "}");
}

static void stage_body(cu *c, const cu_at *at, const cu_member *m) {
  const cu_layout *l = at->g->lay;
  const char *pos[2] = {at->i, at->j}, *test = cu_one_of_groups(c, l);
  int in = l->turned ? 0 : 1;
  for (int d = 0; d < 2; d++) {
    pos[d] = cu_plus(c, cu_base(&l->d[d]), cu_place(c, &l->d[d], at->w > 1 && d == in ? cu_plus(c, pos[d], "k") : pos[d]));
    const char *t = NULL;
    if (at->g->dim[d] == 1 && l->d[d].threads > 1)
      t = CU_F(c, "%s == 0", l->d[d].base), pos[d] = "0";
    else if (!cu_exact(&l->d[d], at->g->dim[d]))
      t = CU_F(c, "%s < %lld", pos[d], (long long)at->g->dim[d]);
    if (t) test = test ? CU_F(c, "%s && %s", test, t) : t;
  }
  const char *x = cu_ref(c, at, m->value);
  if (m->terms) {
    stage_terms(c, at, m, test, x);
    return;
  }
  cu_line(c, "%s%s%s[%s] = %s;", at->w > 1 ? CU_F(c, "EACH(k, %d) ", at->w) : "", test ? CU_F(c, "if (%s) ", test) : "", c->buffer[m->area].name,
          CU_F(c, m->place, pos[0], pos[1]), cu_cast(c, m->value->fmt, m->as, x, false));
}

static void map_body(cu *c, const cu_at *at, const ny_op *op) {
  const char *in[3] = {NULL};
  cu_value *to = val(c, op->out[0]);
  for (int i = 0; i < op->n_in; i++) in[i] = cu_ref(c, at, val(c, ny_in(op, i)));
  ny_fmt from = op->n_in ? (ny_fmt)ny_in(op, 0)->type->fmt : NY_none;
  if (op->kind == NY_tile)
    assign(c, at, to, cu_fill(c, to->fmt, op->attr[NY_AT(tile, fill)].f));
  else if (op->kind == NY_cast)
    assign(c, at, to, cu_cast(c, from, to->fmt, in[0], op->attr[NY_AT(cast, saturate)].i != 0));
  else if (op->kind == NY_bitcast)
    assign(c, at, to, cu_bitcast(c, from, to->fmt, in[0]));
  else
    assign(c, at, to, cu_row(c, op, in));
}

static void member_body(cu *c, const cu_at *at, const cu_member *m) {
  if (m->what == CU_STAGE) {
    stage_body(c, at, m);
    return;
  }
  switch (m->op->kind) {
  case NY_load: cu_load_body(c, at, m->op); break;
  case NY_store: cu_store_body(c, at, m->op); break;
  case NY_index: index_body(c, at, m->op); break;
  case NY_reduce: cu_reduce_body(c, at, m->op); break;
  case NY_set: assign(c, at, val(c, ny_in(m->op, 0)), cu_ref(c, at, val(c, ny_in(m->op, 1)))); break;
  default: map_body(c, at, m->op);
  }
}

/* ---- one group */
static int width_of(cu *c, const cu_group *g) {
  const cu_dim *d = &g->lay->d[g->lay->turned ? 0 : 1];
  int64_t held = cu_held(d, g->dim[g->lay->turned ? 0 : 1]);
  int w = 1;
  for (int m = 0; m < g->n; m++) {
    const ny_op *op = g->member[m].op;
    if (op && (op->kind == NY_load || op->kind == NY_store)) w = max_of(w, cu_access_width(c, g->lay, op));
    if (g->member[m].terms) return g->lay->turned || held % 4 || d->v % 4 || d->inner != 1 ? 1 : 4;
  }
  if (w > MAX_WIDTH) w = MAX_WIDTH;
  while (w > 1 && (held % w || (d->threads > 1 && (d->v % w || d->inner != 1)))) w /= 2;
  return w;
}

static int cost_of(const cu_group *g) {
  int n = 0;
  for (int m = 0; m < g->n; m++) {
    const ny_op *op = g->member[m].op;
    n += op && (ny_kinds[op->kind].flags & NY_MAP) ? cu_row_cost(op) : 3;
  }
  return n;
}

static void loop_line(cu *c, const char *var, int64_t n, int step, bool unroll) {
  cu_line(c, unroll ? "#pragma unroll" : "#pragma unroll 1");
  cu_line(c, "for (int %s = 0; %s < %lld; %s%s) {", var, var, (long long)n, var, step == 1 ? "++" : CU_F(c, " += %d", step));
  c->indent++;
}

static void heads(cu *c, const cu_at *at) {
  for (int m = 0; m < at->g->n; m++) {
    const ny_op *op = at->g->member[m].op;
    if (op && (op->kind == NY_load || op->kind == NY_store)) cu_load_head(c, at, op);
    if (op && op->kind == NY_reduce) cu_reduce_head(c, at, op);
  }
}

static void emit_group(cu *c, int gi) {
  cu_group *g = &c->group[gi];
  int64_t n[2] = {cu_held(&g->lay->d[0], g->dim[0]), cu_held(&g->lay->d[1], g->dim[1])};
  int in = g->lay->turned ? 0 : 1, w = width_of(c, g), loops = 0;
  cu_at at = {.g = g, .index = gi, .i = "0", .j = "0", .w = w};
  bool unroll = n[0] * n[1] * cost_of(g) <= MAX_CODE && (n[0] * n[1] <= MAX_UNROLLED || c->threads > 1);
  declare(c, g);
  bool scope = false;
  for (int m = 0; m < g->n; m++) {
    const ny_op *op = g->member[m].op;
    scope |= op && (op->kind == NY_load || op->kind == NY_store || (op->n_out && !val(c, op->out[0])->array));
  }
  if (scope) cu_line(c, "{"), c->indent++;
  heads(c, &at);
  const char *var[2] = {"i", "j"};
  for (int q = 0; q < 2; q++) {
    int d = q == 0 ? 1 - in : in;
    if (n[d] / (d == in ? w : 1) == 1) continue;
    loop_line(c, var[d], n[d], d == in ? w : 1, unroll);
    *(d ? &at.j : &at.i) = var[d];
    loops++;
  }
  for (int m = 0; m < g->n; m++) member_body(c, &at, &g->member[m]);
  for (; loops; loops--) c->indent--, cu_line(c, "}");
  if (scope) c->indent--, cu_line(c, "}");
  for (int m = 0; m < g->n; m++)
    if (g->member[m].op && g->member[m].op->kind == NY_reduce) cu_reduce_tail(c, &at, g->member[m].op);
}

static void touch_group(cu *c, int gi) {
  const cu_group *g = &c->group[gi];
  cu_access *a = NY_NEW_ARRAY(&c->arena, cu_access, c->n_access + g->n + 1);
  int n = 0;
  for (int i = 0; i < c->n_access; i++)
    if (c->access[i].group == gi) a[n++] = c->access[i];
  for (int m = 0; m < g->n; m++)
    if (g->member[m].what == CU_STAGE) a[n++] = (cu_access){.buffer = g->member[m].area, .store = true, .lay = c->layout};
  cu_touch_all(c, a, n);
}

void cu_flush(cu *c) {
  for (int g = 0; g < c->n_group; g++) find_arrays(c, g);
  for (int g = 0; g < c->n_group; g++) {
    touch_group(c, g);
    emit_group(c, g);
  }
  c->n_group = c->n_access = 0;
  c->batch++;
}
