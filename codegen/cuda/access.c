/* Loads and stores of a group's loop. What does not depend on the element is computed before the loop: the thread's address and what is left of the limits from its
   position on. Elements adjacent in memory move 16 bytes at once, where the address allows it: proved from the offset (buffers begin at 256 bytes), else asked at
   run time. */
#include "emit.h"

#include <string.h>

typedef struct access { /* of one load or store */
  const ny_op *op;
  ny_fmt fmt;
  const cu_value *tile, *index;
  const cu_buffer *buf;
  ny_dim off, stride[2], istride;
  const ny_attr *lim;
  int in; /* the direction of chunks */
} access;

const ny_value *cu_access_tile(const ny_op *op) { return op->kind == NY_load ? op->out[0] : ny_in(op, 1); }

static access read_access(cu *c, const ny_op *op, const cu_layout *lay) {
  bool load = op->kind == NY_load;
  const ny_attr *a = op->attr;
  int at = load ? 1 : 2;
  access x = {.op = op, .fmt = (ny_fmt)ny_in(op, 0)->type->fmt, .tile = &c->value[cu_access_tile(op)->id], .in = lay->turned ? 0 : 1};
  x.buf = &c->buffer[c->value[ny_in(op, 0)->id].buffer];
  x.index = op->n_in > at ? &c->value[ny_in(op, at)->id] : NULL;
  x.off = a[load ? NY_AT(load, off) : NY_AT(store, off)].d;
  x.istride = a[load ? NY_AT(load, istride) : NY_AT(store, istride)].d;
  x.lim = &a[load ? NY_AT(load, lim) : NY_AT(store, lim)];
  const ny_attr *stride = &a[load ? NY_AT(load, stride) : NY_AT(store, stride)];
  x.stride[0] = stride->dims.v[0], x.stride[1] = stride->dims.v[1];
  return x;
}

static bool sub_byte(const access *x) { return ny_fmts[x->fmt].bits < 8; }

static bool is_set(const ny_op *op) { return op->kind == NY_load || !strcmp(op->attr[NY_AT(store, op)].s, "set"); }

static bool adjacent(const cu *c, const access *x) { /* along the direction of chunks */
  int64_t s;
  return x->tile->dim[x->in] > 1 && cu_const(c, x->stride[x->in], &s) && s == 1 && !(x->index && x->index->dim[x->in] > 1);
}

/* Every chunk of w elements begins at a multiple of w. */
static bool aligned(cu *c, const access *x, int w) {
  int out = 1 - x->in;
  return cu_divides(c, x->off, w) && (x->tile->dim[out] == 1 || cu_divides(c, x->stride[out], w)) && (!x->index || cu_divides(c, x->istride, w));
}

int cu_access_width(cu *c, const cu_layout *lay, const ny_op *op) {
  access x = read_access(c, op, lay);
  if (!adjacent(c, &x) || !is_set(op)) return 1;
  if (sub_byte(&x)) return aligned(c, &x, 8) ? 8 : 1;
  return 128 / ny_fmts[x.fmt].bits;
}

/* ---- before the loop */
static bool limited(const cu *c, const access *x, int d) { return x->lim->dims.n && !cu_at_least(c, x->lim->dims.v[d], x->tile->dim[d]); }

static struct cu_head *head_of(cu *c, const ny_op *op) {
  struct cu_head *h = &c->head[op->id];
  if (h->at) return h;
  h->at = cu_name(c, "q", NULL, op->id);
  h->left[0] = cu_name(c, "rows", NULL, op->id);
  h->left[1] = cu_name(c, "cols", NULL, op->id);
  return h;
}

void cu_load_head(cu *c, const cu_at *at, const ny_op *op) {
  const cu_layout *l = at->g->lay;
  access x = read_access(c, op, l);
  struct cu_head *h = head_of(c, op);
  const char *off = cu_dim_text(c, x.off);
  for (int d = 0; d < 2; d++)
    if (x.tile->dim[d] > 1) off = cu_plus(c, off, cu_times(c, cu_base(&l->d[d]), x.stride[d]));
  if (sub_byte(&x))
    cu_line(c, "const ix %s = %s;", h->at, off);
  else
    cu_line(c, "%s%s *%s = %s%s%s;", op->kind == NY_load ? "const " : "", cu_mem(x.fmt), h->at, x.buf->name, strcmp(off, "0") ? " + " : "",
            !strcmp(off, "0") ? "" : strpbrk(off, " ") ? CU_F(c, "(%s)", off) : off);
  for (int d = 0; d < 2; d++) {
    bool lim = limited(c, &x, d), guard = !cu_exact(&l->d[d], x.tile->dim[d]);
    if (!lim && !guard) continue;
    const char *n = CU_F(c, "%lld", (long long)x.tile->dim[d]), *e = lim ? cu_dim_text(c, x.lim->dims.v[d]) : n;
    if (lim && guard) e = CU_F(c, "NY_MIN(%s, %s)", e, n);
    cu_line(c, "const ix %s = %s%s;", h->left[d], e, x.tile->dim[d] > 1 && l->d[d].base ? CU_F(c, " - %s", l->d[d].base) : "");
  }
}

/* ---- in the loop */
typedef struct place { /* C texts of one chunk or element */
  const char *pos[2], *offset, *test; /* test: NULL when it surely exists */
} place;

static const char *both(cu *c, const char *a, const char *b) { return !a ? b : !b ? a : CU_F(c, "%s && %s", a, b); }

static const char *position(cu *c, const cu_at *at, const access *x, int d, bool lane) {
  const char *p = d ? at->j : at->i;
  if (x->tile->dim[d] == 1) return "0";
  if (lane && at->w > 1 && d == x->in) p = cu_plus(c, p, "k");
  return cu_place(c, &at->g->lay->d[d], p);
}

/* chunk: the test leaves out the direction of the chunk. */
static place place_of(cu *c, const cu_at *at, const access *x, bool chunk) {
  const cu_layout *l = at->g->lay;
  const struct cu_head *h = head_of(c, x->op);
  place p = {.offset = "0"};
  if (x->op->kind == NY_store) p.test = cu_one_of_groups(c, l);
  for (int d = 0; d < 2; d++) {
    p.pos[d] = position(c, at, x, d, !chunk);
    p.offset = cu_plus(c, p.offset, cu_times(c, p.pos[d], x->stride[d]));
    bool lim = limited(c, x, d), guard = !cu_exact(&l->d[d], x->tile->dim[d]);
    if ((lim || guard) && !(chunk && d == x->in)) p.test = both(c, p.test, CU_F(c, "%s < %s", p.pos[d], h->left[d]));
    if (x->op->kind == NY_store && x->tile->dim[d] == 1 && l->d[d].threads > 1) p.test = both(c, CU_F(c, "%s == 0", l->d[d].base), p.test);
  }
  if (x->index) {
    cu_at first = *at;
    if (chunk) first.w = 1;
    p.offset = cu_plus(c, p.offset, cu_times(c, CU_F(c, "(ix)%s", cu_ref(c, &first, x->index)), x->istride));
  }
  return p;
}

/* Limits that are multiples of the chunk leave all of it or nothing. */
static bool all_or_none(cu *c, const cu_at *at, const access *x) {
  bool lim = limited(c, x, x->in);
  return (!lim || cu_divides(c, x->lim->dims.v[x->in], at->w)) && x->tile->dim[x->in] % at->w == 0;
}

/* Elements of the chunk that exist; NULL: all, where p->test holds. With all_or_none the test says everything. */
static const char *left_of_chunk(cu *c, const cu_at *at, const access *x, place *p) {
  const cu_layout *l = at->g->lay;
  if (!limited(c, x, x->in) && cu_exact(&l->d[x->in], x->tile->dim[x->in])) return NULL;
  const char *left = head_of(c, x->op)->left[x->in], *pos = p->pos[x->in];
  if (all_or_none(c, at, x)) {
    p->test = both(c, p->test, CU_F(c, "%s < %s", pos, left));
    return NULL;
  }
  return strcmp(pos, "0") ? CU_F(c, "%s - %s", left, cu_paren(c, pos)) : left;
}

/* The count a load or copy is given, with the test in it. */
static const char *count_of(cu *c, const cu_at *at, const place *p, const char *n) {
  if (!n) n = CU_F(c, "%d", at->w);
  return p->test ? CU_F(c, "%s ? %s : 0", p->test, n) : n;
}

static const char *pointer(cu *c, const access *x, const place *p) {
  const char *q = head_of(c, x->op)->at;
  return strcmp(p->offset, "0") ? CU_F(c, "%s + %s", q, p->offset) : q;
}

static const char *element(cu *c, const access *x, const place *p) { /* in memory form */
  const char *q = head_of(c, x->op)->at;
  if (!sub_byte(x)) return CU_F(c, "%s[%s]", q, p->offset);
  c->uses |= CU_P_BITS;
  return CU_F(c, "ny_get<%d>(%s, %s)", ny_fmts[x->fmt].bits, x->buf->name, cu_plus(c, q, p->offset));
}

static const char *from_memory(cu *c, ny_fmt f, const char *m) {
  if (f == NY_bool) return CU_F(c, "%s != 0", m);
  if (!ny_is_int(f) || ny_fmts[f].bits >= 8) return m;
  c->uses |= CU_P_INT;
  return CU_F(c, "ny_%s(%s)", ny_fmts[f].name, m);
}

static bool movable(cu *c, const cu_at *at, const access *x) { /* as a vector */
  if (at->w == 1 || !adjacent(c, x) || !is_set(x->op)) return false;
  return sub_byte(x) ? at->w * ny_fmts[x->fmt].bits >= 8 && aligned(c, x, at->w) : true;
}

static void packed_load(cu *c, const cu_at *at, const access *x, const char *to) {
  place p = place_of(c, at, x, true);
  const char *n = left_of_chunk(c, at, x, &p), *q = cu_plus(c, head_of(c, x->op)->at, p.offset);
  int bits = ny_fmts[x->fmt].bits;
  c->uses |= CU_P_BITS;
  const char *whole = CU_F(c, "ny_unpack<%d, %d>(%s, %s + NY_DIV(%s, %d))", bits, at->w, to, x->buf->name, q, 8 / bits);
  if (n || p.test) n = count_of(c, at, &p, n);
  if (!n)
    cu_line(c, "%s;", whole);
  else
    cu_line(c, "if ((%s) >= %d) %s; else EACH(k, %d) %s[k] = k < (%s) ? ny_get<%d>(%s, %s + k) : 0;", n, at->w, whole, at->w, to, n, bits, x->buf->name, q);
}

static void vector_load(cu *c, const cu_at *at, const access *x, const char *to) {
  c->uses |= CU_P_VECTOR;
  if (sub_byte(x)) {
    packed_load(c, at, x, to);
    return;
  }
  int part = 128 / ny_fmts[x->fmt].bits;
  bool known = aligned(c, x, at->w < part ? at->w : part);
  place p = place_of(c, at, x, true);
  const char *n = left_of_chunk(c, at, x, &p);
  if (known && !n && !p.test)
    cu_line(c, "ny_load<%d>(%s, %s);", at->w, to, pointer(c, x, &p));
  else if (!n)
    cu_line(c, "ny_load_if<%d, %s>(%s, %s, %s);", at->w, known ? "true" : "false", to, pointer(c, x, &p), p.test ? p.test : "true");
  else
    cu_line(c, "ny_load_some<%d, %s>(%s, %s, %s);", at->w, known ? "true" : "false", to, pointer(c, x, &p), count_of(c, at, &p, n));
}

void cu_copy_line(cu *c, const cu_at *at, const ny_op *op, const char *to, const char *outside) {
  access x = read_access(c, op, at->g->lay);
  place p = place_of(c, at, &x, true);
  const char *n = left_of_chunk(c, at, &x, &p);
  cu_line(c, "%sny_copy<%d, %s>(%s, %s, %s);", outside ? CU_F(c, "if (%s) ", outside) : "", at->w, aligned(c, &x, at->w) ? "true" : "false", to, pointer(c, &x, &p),
          count_of(c, at, &p, n));
}

/* Where the registers of a chunk lie beside each other; NULL: they do not. */
static const char *row_of(cu *c, const cu_at *at, const cu_value *v) {
  if (v->literal) return NULL;
  if (!v->array && v->batch == c->batch && v->group == at->index) return v->name;
  cu_at first = *at;
  first.w = 1;
  return at->g->lay->turned ? NULL : CU_F(c, "&%s", cu_ref(c, &first, v));
}

void cu_load_body(cu *c, const cu_at *at, const ny_op *op) {
  access x = read_access(c, op, at->g->lay);
  cu_value *v = &c->value[op->out[0]->id];
  if (at->w > 1 && !v->array) cu_line(c, "%s %s[%d];", cu_reg(x.fmt), v->name, at->w);
  if (movable(c, at, &x)) {
    const char *to = row_of(c, at, v), *plain = from_memory(c, x.fmt, "m");
    bool direct = to && !strcmp(plain, "m");
    if (!direct) cu_line(c, "%s m%u[%d];", cu_mem(x.fmt), op->id, at->w);
    vector_load(c, at, &x, direct ? to : CU_F(c, "m%u", op->id));
    if (!direct) cu_line(c, "EACH(k, %d) %s = %s;", at->w, cu_ref(c, at, v), from_memory(c, x.fmt, CU_F(c, "m%u[k]", op->id)));
    return;
  }
  place p = place_of(c, at, &x, false);
  const char *m = from_memory(c, x.fmt, element(c, &x, &p)), *to = cu_ref(c, at, v);
  if (at->w == 1 && !v->array) to = CU_F(c, "const %s %s", cu_reg(x.fmt), v->name);
  if (p.test) m = CU_F(c, "%s ? %s : (%s)0", p.test, m, cu_reg(x.fmt));
  cu_line(c, "%s%s = %s;", at->w > 1 ? CU_F(c, "EACH(k, %d) ", at->w) : "", to, m);
}

static void vector_store(cu *c, const cu_at *at, const access *x) {
  int part = 128 / ny_fmts[x->fmt].bits, bits = ny_fmts[x->fmt].bits;
  bool known = sub_byte(x) || aligned(c, x, at->w < part ? at->w : part);
  place p = place_of(c, at, x, true);
  const char *n = left_of_chunk(c, at, x, &p), *from = x->fmt == NY_bool || (sub_byte(x) && !strcmp(cu_reg(x->fmt), "i8")) ? NULL : row_of(c, at, x->tile);
  c->uses |= CU_P_VECTOR | (sub_byte(x) ? CU_P_BITS : 0);
  if (!from) {
    from = CU_F(c, "m%u", x->op->id);
    cu_line(c, "%s %s[%d];", cu_mem(x->fmt), from, at->w);
    cu_line(c, "EACH(k, %d) %s[k] = (%s)%s;", at->w, from, cu_mem(x->fmt), cu_ref(c, at, x->tile));
  }
  const char *test = p.test ? CU_F(c, "if (%s) ", p.test) : "", *q = cu_plus(c, head_of(c, x->op)->at, p.offset);
  if (sub_byte(x)) {
    const char *whole = CU_F(c, "ny_pack<%d, %d>(%s + NY_DIV(%s, %d), %s)", bits, at->w, x->buf->name, q, 8 / bits, from);
    if (!n)
      cu_line(c, "%s%s;", test, whole);
    else
      cu_line(c, "%s{ if (%s >= %d) %s; else EACH(k, %d) if (k < (%s)) ny_put<%d>(%s, %s + k, %s[k]); }", test, n, at->w, whole, at->w, n, bits, x->buf->name, q, from);
  } else if (known && !n) {
    cu_line(c, "%sny_store<%d>(%s, %s);", test, at->w, pointer(c, x, &p), from);
  } else {
    cu_line(c, "%sny_store_some<%d, %s>(%s, %s, %s);", test, at->w, known ? "true" : "false", pointer(c, x, &p), from, n ? n : CU_F(c, "%d", at->w));
  }
}

void cu_store_body(cu *c, const cu_at *at, const ny_op *op) {
  access x = read_access(c, op, at->g->lay);
  if (movable(c, at, &x) && !(sub_byte(&x) && !x.buf->global && !x.buf->shared)) {
    vector_store(c, at, &x);
    return;
  }
  place p = place_of(c, at, &x, false);
  const char *how = op->attr[NY_AT(store, op)].s, *v = cu_ref(c, at, x.tile), *m = element(c, &x, &p);
  if (!is_set(op)) {
    const char *old = cu_decode(c, x.fmt, from_memory(c, x.fmt, m));
    v = cu_encode(c, x.fmt, cu_fold(c, how, x.fmt, old, cu_decode(c, x.fmt, v)), false);
  }
  const char *put = CU_F(c, "%s = (%s)(%s)", m, cu_mem(x.fmt), v);
  if (sub_byte(&x)) {
    bool own = !x.buf->global && !x.buf->shared;
    put = CU_F(c, "ny_put%s<%d>(%s, %s, (u8)(%s))", own ? "_own" : "", ny_fmts[x.fmt].bits, x.buf->name, cu_plus(c, head_of(c, op)->at, p.offset), v);
  }
  const char *each = at->w > 1 ? CU_F(c, "EACH(k, %d) ", at->w) : "", *test = p.test ? CU_F(c, "if (%s) ", p.test) : "";
  if (c->threads > 1 && x.index && !is_set(op)) { /* two threads may mean one element */
    cu_line(c, "for (int turn = 0; turn < %d; turn++) {", c->threads);
    cu_line(c, "  if (turn == tid) %s%s%s;", each, test, put);
    cu_line(c, "  NY_SYNC;");
    cu_line(c, "}");
    return;
  }
  cu_line(c, "%s%s%s;", each, test, put);
}

/* ---- order */
static bool one_to_one(const cu *c, const access *x) { /* no two elements of the tile share an address */
  int64_t s0 = 0, s1 = 0, rows = x->tile->dim[0], cols = x->tile->dim[1];
  bool k0 = cu_const(c, x->stride[0], &s0), k1 = cu_const(c, x->stride[1], &s1);
  if (rows > 1 && (!k0 || !s0)) return false;
  if (cols > 1 && (!k1 || !s1)) return false;
  if (rows == 1 || cols == 1) return true;
  s0 = s0 < 0 ? -s0 : s0, s1 = s1 < 0 ? -s1 : s1;
  return s0 >= s1 * cols || s1 >= s0 * rows;
}

/* A tile of one row or column is loaded by all threads of that direction, and stored by the first. */
static bool by_one(const cu *c, const cu_access *a) {
  if (a->lay == c->layout && c->facts->layout.wk > 1) return false;
  const cu_value *t = &c->value[cu_access_tile(a->op)->id];
  return (t->dim[0] > 1 || a->lay->d[0].threads == 1) && (t->dim[1] > 1 || a->lay->d[1].threads == 1);
}

bool cu_same_access(const cu *c, const cu_access *a, const cu_access *b) {
  if (!a->op || !b->op || a->lay != b->lay || (a->store != b->store && !by_one(c, a))) return false;
  access x = read_access((cu *)c, a->op, a->lay), y = read_access((cu *)c, b->op, b->lay);
  return x.tile->dim[0] == y.tile->dim[0] && x.tile->dim[1] == y.tile->dim[1] && !x.index && !y.index && x.off == y.off && x.stride[0] == y.stride[0] &&
         x.stride[1] == y.stride[1] && one_to_one(c, &x);
}

/* Whether a thread finds at an address only what it stored there itself: columns are adjacent, and an address tells which thread has it, as it does in both
   accesses and in every iteration. */
static bool by_columns(cu *c, const cu_access *a) {
  access x = read_access(c, a->op, a->lay);
  const cu_dim *rows = &a->lay->d[0], *cols = &a->lay->d[1];
  int64_t s;
  if (a->lay == c->layout && c->facts->layout.wk > 1) return false;
  if (x.index || x.tile->dim[1] == 1 || !cu_const(c, x.stride[1], &s) || s != 1 || cols->inner != 1) return false;
  if (x.tile->dim[0] > 1 && (rows->threads > 1 || !cu_divides(c, x.stride[0], cols->period))) return false;
  return a->steady;
}

bool cu_same_thread(cu *c, const cu_access *a, const cu_access *b) {
  if (!a->op || !b->op || a->lay != b->lay) return false;
  const cu_value *x = &c->value[cu_access_tile(a->op)->id], *y = &c->value[cu_access_tile(b->op)->id];
  if (a->store && b->store && x->dim[0] * x->dim[1] == 1 && y->dim[0] * y->dim[1] == 1) return true; /* the first thread's */
  if (a->base == NY_DIM_INVALID || b->base == NY_DIM_INVALID) return false;
  if (cu_same_access(c, a, b) && a->moves == 0 && b->moves == 0) return true;
  if (a->store != b->store && !(by_one(c, a) && by_one(c, b))) return false;
  ny_dim apart = ny_dim_sub(c->cx, a->base, b->base);
  return by_columns(c, a) && by_columns(c, b) && apart != NY_DIM_INVALID && cu_divides(c, apart, a->lay->d[1].period) &&
         (a->lay->d[0].threads == 1 || (x->dim[0] > 1 && y->dim[0] > 1));
}

/* Elements from an access's offset to its last one, when that is known and no index is in it; -1: not known. */
static int64_t extent(cu *c, const cu_access *a) {
  access x = read_access(c, a->op, a->lay);
  int64_t s0, s1;
  if (x.index || !cu_const(c, x.stride[0], &s0) || !cu_const(c, x.stride[1], &s1) || s0 < 0 || s1 < 0 || s0 > INT32_MAX || s1 > INT32_MAX) return -1;
  return (x.tile->dim[0] - 1) * s0 + (x.tile->dim[1] - 1) * s1;
}

bool cu_apart(cu *c, const cu_access *a, const cu_access *b) {
  if (!a->op || !b->op || a->buffer != b->buffer || a->moves != 0 || b->moves != 0) return false;
  ny_dim d = ny_dim_sub(c->cx, b->base, a->base);
  int64_t apart, to_a = extent(c, a), to_b = extent(c, b);
  if (d == NY_DIM_INVALID || !cu_const(c, d, &apart) || to_a < 0 || to_b < 0) return false;
  return apart > to_a || -apart > to_b;
}
