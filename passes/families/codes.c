/* A matmul whose weights are codes of quantised numbers, packed by words (see pack.c). Weights are decoded to bytes by a table and multiplied as bytes,
   which is a machine's densest product. Activations become integers too: in every run of `sub` along k they are fixed-point numbers against the
   largest of the run, of 24 bits or as many as keep sums in 32, cut into three digits of eight bits. Every digit is one byte product; sums of a run are
   exact, and are put together and scaled once a run and column. So the result is as good as one of f32 products, at half their cost.
   Many rows are worth decoding a piece of a panel to f32 first: emit_many. A run with an infinity or a NaN gives NaN. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "contract.h"

enum { DIGITS = 3, MAX_ROWS = 8, SMALL = 8, LONGEST_RUN = 32, LINE = 64 };
typedef struct codes {
  const ny_op *op, *q;
  ny_value *x, *out, *scale, *outer, *zeros; /* outer: a scale of the scales; zeros: where they are not one number */
  ny_fmt fmt;
  ny_dim m;
  int64_t k, n, p, per, sub, block, runs; /* per: codes of a word; block 0: all of k */
  double mul, most;                       /* what makes codes integers; the largest activation as one */
  int64_t zero, offset;                   /* a byte is code * mul - zero + offset */
  ny_value *digit, *unit, *total;         /* scratch, by row: digits [3][runs*sub], the run's unit and its sum [runs] */
  int cols, rows;                         /* of a tile of sums */
} codes;

/* ---- what can be multiplied so */
static double number(ny_fmt f, int code) {
  uint8_t b = (uint8_t)code;
  return ny_is_float(f) ? ny_get_f(f, &b, 0) : (double)ny_get_i(f, &b, 0);
}

static bool uniform_int(const ny_value *v, int64_t *out) {
  if (!v->def || v->def->kind != NY_const || !ny_const_uniform(v->def)) return false;
  const ny_attr *data = &v->def->attr[NY_AT(const, data)];
  *out = data->blob ? ny_get_i((ny_fmt)v->type->fmt, data->blob->data, 0) : (int64_t)v->def->attr[NY_AT(const, splat)].f;
  return true;
}

/* Bytes, and how large sums get. */
static void read_bytes(codes *c, ny_dot8 how) {
  bool is_unsigned = ny_dot8_unsigned(how);
  double lo = 0, hi = 0;
  c->mul = c->fmt == NY_f4e2m1 ? 2 : 1;
  for (int i = 0; i < 1 << ny_fmts[c->fmt].bits; i++) {
    double w = number(c->fmt, i) * c->mul - (double)c->zero;
    lo = fmin(lo, w), hi = fmax(hi, w);
  }
  if (ny_fmts[c->fmt].bits == 8) /* bytes as they are, or with the top bit flipped: a step of 128 */
    c->offset = c->zero + (c->fmt == NY_i8 ? is_unsigned ? 128 : 0 : is_unsigned ? 0 : -128);
  else
    c->offset = is_unsigned && lo < 0 ? (int64_t)-lo : 0;
  c->most = fmin(127.0 * 65536, floor(2147483647.0 / (fmax(hi, -lo) * (double)c->sub)));
}

/* One number for every block and column, or for some of them. */
static bool good_part(const codes *c, const ny_value *v, int lead) {
  const ny_type *t = v->type;
  ny_dim blocks = c->block ? (c->k + c->block - 1) / c->block : 1;
  return (t->dim[lead] == 1 || t->dim[lead] == blocks) && t->dim[lead] >= 1 && t->dim[lead + 1] >= 1;
}

/* `lead`: the dim of k in what is dequantised. */
static bool read_codes(codes *c, const ny_target *t, const ny_op *op, const ny_op *q, int lead) {
  const ny_type *y = q->out[0]->type;
  static const int runs[] = {LONGEST_RUN, 16, 24, 8};
  c->op = op, c->q = q, c->x = ny_in(op, 0), c->out = op->out[0], c->scale = ny_in(q, 1);
  c->fmt = (ny_fmt)ny_in(q, 0)->type->fmt;
  int bits = ny_fmts[c->fmt].bits;
  bool bytes = c->fmt == NY_i8 || c->fmt == NY_u8, nibbles = bits == 4;
  if (t->dot8 == NY_DOT8_none || (!nibbles && (!bytes || t->dot8 == NY_DOT8_pairs))) return false;
  if (c->out->type->fmt != NY_f32 || !ny_is_float((ny_fmt)c->x->type->fmt) || c->x->type->fmt == NY_f64) return false;
  c->k = y->dim[lead], c->block = q->attr[NY_AT(dequantize, block)].i, c->per = 32 / bits;
  c->n = c->out->type->dim[c->out->type->rank - 1];
  if (c->k < 1 || c->k > 1 << 24 || c->n < 1) return false;
  if (c->block && ny_axis(q->attr[NY_AT(dequantize, axis)].i, y->rank) != lead) return false;
  for (size_t i = 0; i < NY_COUNT(runs) && !c->sub; i++)
    if (!c->block || c->block % runs[i] == 0) c->sub = runs[i];
  if (!c->sub) return false;
  c->runs = (c->k + c->sub - 1) / c->sub;
  for (int i = 1; i < q->n_in; i++)
    if (!good_part(c, ny_in(q, i), lead)) return false;
  if (q->n_in > 2 && !uniform_int(ny_in(q, 2), &c->zero)) c->zeros = ny_in(q, 2);
  if (c->zeros && ny_is_float((ny_fmt)c->zeros->type->fmt)) return false;
  const ny_op *s = c->scale->def;
  if (s && s->kind == NY_dequantize && s->n_in == 2 && !s->attr[NY_AT(dequantize, block)].i) {
    const ny_type *o = ny_in(s, 1)->type;
    bool one = true;
    for (int i = 0; i < o->rank; i++) one = one && o->dim[i] == 1;
    if (one) c->scale = ny_in(s, 0), c->outer = ny_in(s, 1);
  }
  read_bytes(c, t->dot8);
  return c->most >= 65536;
}

bool ny_codes_fit(const ny_target *t, const ny_op *op) {
  codes c = {0};
  if (op->kind != NY_matmul || ny_in(op, 1)->type->rank != 2 || !t || t->sm) return false;
  const ny_op *q = ny_in(op, 1)->def;
  return q && q->kind == NY_dequantize && read_codes(&c, t, op, q, 0);
}

/* The packed words behind the views. */
static bool by_words(const ny_value *v, int64_t per) {
  while (v->def && (ny_kinds[v->def->kind].flags & NY_VIEW)) v = ny_in(v->def, 0);
  const ny_type *t = v->type;
  return !v->def && (per == 8 ? t->rank == 5 && t->dim[3] == 4 && t->dim[4] == 2 : t->rank == 4 && t->dim[3] == 4);
}

/* ---- activations */
static ny_value *bits_of(ny_emit *e, ny_value *t, ny_fmt to) {
  if (!t) return NULL;
  const ny_type *type = ny_tile_type(e->cx, to, ny_tile_rows(t), ny_tile_cols(t));
  ny_op *op = ny_build(&e->b, NY_bitcast, &t, 1, &type, 1);
  return op ? op->out[0] : NULL;
}

static ny_value *with_number(ny_emit *e, ny_kind k, ny_value *t, double x) {
  if (!t) return NULL;
  ny_value *n = ny_emit_num(e, (ny_fmt)t->type->fmt, x);
  return n ? ny_b_ew2(&e->b, k, t, n) : NULL;
}

static void row_of(ny_emit *e, const ny_type *t, ny_dim row, ny_coord *at) { ny_coord_split(e, ny_at_row(row), t->dim, t->rank - 1, at); }

static void put(ny_emit *e, ny_value *buffer, ny_dim at, ny_value *t) { ny_emit_store(e, buffer, ny_at(at, 0, 1), t, NULL); }

/* Run b of a row: its unit, digits from the highest, and their sum. `have`: elements that exist. */
static void quantise_run(ny_emit *e, const codes *c, int slot, ny_dim row, ny_dim b, int64_t have) {
  ny_ctx *cx = e->cx;
  ny_coord at[NY_MAX_RANK];
  int64_t depth = c->runs * c->sub;
  ny_dim k = ny_dim_mul(cx, b, c->sub);
  e->rows = 1, e->cols = (int)c->sub, e->lim[0] = NY_ALL, e->lim[1] = have < c->sub ? have : NY_ALL;
  row_of(e, c->x->type, row, at);
  at[c->x->type->rank - 1] = ny_at_col(k);
  ny_value *x = ny_emit_cast(e, ny_emit_at(e, c->x, at), NY_f32);
  if (x) x = ny_emit_fill(e, x, 1, (int)c->sub);
  e->lim[1] = NY_ALL;
  /* as integers, infinity and NaN are the largest numbers, in this order; below 2^-100 nothing is resolved */
  ny_value *top = ny_emit_reduce(e, "max", with_number(e, NY_and, bits_of(e, x, NY_i32), 0x7fffffff), 1);
  top = bits_of(e, with_number(e, NY_max, top, (127.0 - 100) * (1 << 23)), NY_f32);
  if (!top) return;
  ny_value *most = ny_emit_num(e, NY_f32, c->most);
  ny_value *inv = ny_b_ew2(&e->b, NY_div, most, top);
  ny_value *rest = ny_emit_cast(e, ny_b_ew1(&e->b, NY_round, ny_b_ew2(&e->b, NY_mul, x, inv)), NY_i32);
  ny_value *total = c->total ? ny_emit_reduce(e, "sum", rest, 1) : NULL;
  for (int d = DIGITS - 1; d >= 0; d--) {
    ny_value *digit = ny_emit_cast(e, rest, NY_i8);
    put(e, c->digit, ny_dim_add(cx, (slot * DIGITS + d) * depth, k), digit);
    if (d) rest = with_number(e, NY_shr, ny_b_ew2(&e->b, NY_sub, rest, ny_emit_cast(e, digit, NY_i32)), 8);
  }
  e->cols = 1;
  put(e, c->unit, ny_dim_add(cx, slot * c->runs, b), with_number(e, NY_mul, top, 1 / c->most));
  if (total) put(e, c->total, ny_dim_add(cx, slot * c->runs, b), total);
}

static void quantise_row(ny_emit *e, const codes *c, int slot, ny_dim row) {
  int64_t full = c->k / c->sub;
  ny_dim b;
  if (full) {
    ny_loop l = ny_emit_for(e, 0, full, 1, 1, &b);
    quantise_run(e, c, slot, row, b, c->sub);
    ny_emit_end(e, l);
  }
  if (full < c->runs) quantise_run(e, c, slot, row, full, c->k - full * c->sub);
  ny_emit_forget(e);
}

static void scratch(ny_emit *e, codes *c, int rows) {
  c->digit = ny_emit_local(e, NY_i8, rows * DIGITS * c->runs * c->sub);
  c->unit = ny_emit_local(e, NY_f32, rows * c->runs);
  if (c->offset || c->zeros) c->total = ny_emit_local(e, NY_i32, rows * c->runs);
}

/* ---- sums */
typedef struct strip { /* columns of a panel, rows of the result */
  ny_dim panel, column;
  int rows, slot;
  ny_value *sum[MAX_ROWS];
} strip;

/* What a byte product takes of four rows of codes. */
static ny_value *bytes_of(ny_emit *e, const codes *c, ny_value *t) {
  bool is_unsigned = ny_dot8_unsigned(e->px->target->dot8);
  ny_fmt to = is_unsigned ? NY_u8 : NY_i8;
  if (!t) return NULL;
  if (ny_fmts[c->fmt].bits == 8) {
    if (c->fmt == to) return t;
    t = bits_of(e, t, to);
    return with_number(e, NY_xor, t, is_unsigned ? 128 : -128);
  }
  t = ny_emit_cast(e, t, NY_f32);
  if (c->mul != 1) t = with_number(e, NY_mul, t, c->mul);
  if (c->offset != c->zero) t = with_number(e, NY_add, t, (double)(c->offset - c->zero));
  return ny_emit_cast(e, t, to);
}

/* Scale or zero points of run b for the strip's columns. */
static ny_value *part(ny_emit *e, const codes *c, const strip *s, ny_value *v, ny_dim b) {
  ny_coord at[3] = {ny_at_one(v->type->dim[0] == 1 ? 0 : s->panel), ny_at_one(0), ny_at_col(s->column)};
  if (c->block && v->type->dim[1] != 1) at[1] = ny_at_one(ny_dim_div(e->cx, b, c->block / c->sub));
  if (v->type->dim[2] == 1) at[2] = ny_at_one(0);
  e->rows = 1, e->cols = c->cols;
  return ny_emit_cast(e, ny_emit_at(e, v, at), NY_f32);
}

static ny_value *one_of(ny_emit *e, ny_value *buffer, ny_dim at) {
  e->rows = e->cols = 1;
  return ny_emit_load(e, buffer, ny_at_one(at));
}

static void multiply_quad(ny_emit *e, const codes *c, const strip *s, ny_dim k, ny_value *acc[MAX_ROWS][DIGITS]) {
  ny_coord at[3] = {ny_at_one(s->panel), ny_at_row(k), ny_at_col(s->column)};
  int64_t depth = c->runs * c->sub;
  e->rows = 4, e->cols = c->cols;
  ny_value *w = bytes_of(e, c, ny_emit_at(e, ny_in(c->q, 0), at));
  e->rows = 1, e->cols = 4;
  for (int r = 0; r < s->rows; r++)
    for (int d = 0; d < DIGITS; d++)
      ny_emit_mma(e, acc[r][d], ny_emit_load(e, c->digit, ny_at_col(ny_dim_add(e->cx, ((s->slot + r) * DIGITS + d) * depth, k))), w);
}

/* The digits' sums become one number, are scaled and added up. */
static void finish_run(ny_emit *e, const codes *c, const strip *s, ny_dim b, ny_value *acc[MAX_ROWS][DIGITS]) {
  ny_value *scale = part(e, c, s, c->scale, b), *zero = c->zeros ? part(e, c, s, c->zeros, b) : NULL;
  for (int r = 0; r < s->rows; r++) {
    ny_dim at = ny_dim_add(e->cx, (s->slot + r) * c->runs, b);
    ny_value *high = with_number(e, NY_shl, acc[r][0], 16), *mid = with_number(e, NY_shl, acc[r][1], 8);
    ny_value *v = ny_b_ew2(&e->b, NY_add, ny_b_ew2(&e->b, NY_add, high, mid), acc[r][2]);
    v = ny_emit_cast(e, v, NY_f32);
    if (zero) {
      ny_value *total = ny_emit_cast(e, one_of(e, c->total, at), NY_f32);
      v = ny_b_ew2(&e->b, NY_sub, v, ny_b_ew2(&e->b, NY_mul, zero, total));
    }
    v = ny_b_ew2(&e->b, NY_mul, v, scale);
    e->cols = c->cols;
    ny_value *full = ny_emit_fill(e, v, 1, c->cols);
    ny_emit_mma(e, s->sum[r], one_of(e, c->unit, at), full);
  }
}

/* What will be read a good while later: the machine's own guess stops at the gaps that arithmetic leaves. */
static void ahead(ny_emit *e, const codes *c, const strip *s, ny_dim b) {
  int64_t bytes = ny_knob(e->k, "ahead", getenv("AH") ? atoi(getenv("AH")) : 8192), of_run = c->sub * c->cols * ny_fmts[c->fmt].bits / 8;
  if (bytes <= 0) return;
  ny_knob_set(e->k, "ahead", bytes);
  ny_value *v = ny_in(c->q, 0);
  while (v->def) v = ny_in(v->def, 0);
  ny_value *codes_in = ny_kernel_in(e->k, (int)v->index);
  int64_t bits = ny_fmts[c->fmt].bits, words = (c->k + c->per - 1) / c->per;
  ny_dim at = ny_dim_add(e->cx, ny_dim_mul(e->cx, s->panel, words * c->per * c->p), ny_dim_mul(e->cx, b, c->sub * c->p));
  at = ny_dim_add(e->cx, ny_dim_add(e->cx, at, bytes * 8 / bits), ny_dim_mul(e->cx, s->column, c->per));
  for (int64_t w = 0; w < (c->cols == c->p ? 1 : c->sub / c->per); w++) {
    ny_op *op = ny_build(&e->b, NY_prefetch, &codes_in, 1, NULL, 0);
    if (!op) return;
    op->attr[NY_AT(prefetch, off)].d = ny_dim_add(e->cx, at, w * c->p * c->per);
    op->attr[NY_AT(prefetch, n)].i = (c->cols == c->p ? of_run : c->cols * 4) * 8 / bits;
  }
  v = c->scale;
  if (v->def || v->type->dim[1] == 1 || v->type->dim[2] == 1) return;
  ny_value *scale_in = ny_kernel_in(e->k, (int)v->index);
  ny_op *op = ny_build(&e->b, NY_prefetch, &scale_in, 1, NULL, 0);
  if (!op) return;
  int64_t each = ny_fmts[v->type->fmt].bits / 8, stretch = c->block ? c->block / c->sub : 1;
  at = ny_dim_mul(e->cx, ny_dim_add(e->cx, ny_dim_mul(e->cx, s->panel, v->type->dim[1]), ny_dim_div(e->cx, b, stretch)), c->p);
  op->attr[NY_AT(prefetch, off)].d = ny_dim_add(e->cx, at, bytes * each * c->p / (of_run * stretch));
  op->attr[NY_AT(prefetch, n)].i = c->cols;
}

static void run(ny_emit *e, const codes *c, const strip *s, ny_dim b, int64_t words) {
  ny_value *acc[MAX_ROWS][DIGITS];
  ahead(e, c, s, b);
  for (int r = 0; r < s->rows; r++)
    for (int d = 0; d < DIGITS; d++) {
      acc[r][d] = ny_emit_tile(e, NY_i32, 1, c->cols, 0);
      if (d < DIGITS - 1 || !c->offset) continue;
      ny_value *total = one_of(e, c->total, ny_dim_add(e->cx, (s->slot + r) * c->runs, b));
      ny_emit_set(e, acc[r][d], with_number(e, NY_mul, total, (double)-c->offset));
    }
  for (int64_t k = 0; k < words * c->per; k += 4) multiply_quad(e, c, s, ny_dim_add(e->cx, ny_dim_mul(e->cx, b, c->sub), k), acc);
  finish_run(e, c, s, b, acc);
}

static ny_dim column_limit(ny_emit *e, const codes *c, const strip *s) {
  if (c->n % c->p == 0) return NY_ALL;
  ny_dim first = ny_dim_add(e->cx, ny_dim_mul(e->cx, s->panel, c->p), s->column);
  return ny_dim_sub(e->cx, c->n, first);
}

static void results(ny_emit *e, const codes *c, const strip *s, ny_dim row) {
  ny_value *outer = c->outer ? ny_emit_cast(e, ny_emit_at(e, c->outer, (ny_coord[]){ny_at_one(0), ny_at_one(0), ny_at_one(0)}), NY_f32) : NULL;
  for (int r = 0; r < s->rows; r++) {
    ny_coord at[NY_MAX_RANK];
    ny_value *y = s->sum[r];
    e->rows = 1, e->cols = c->cols, e->lim[0] = NY_ALL, e->lim[1] = column_limit(e, c, s);
    if (c->mul != 1) y = with_number(e, NY_mul, y, 1 / c->mul);
    if (outer) y = ny_b_ew2(&e->b, NY_mul, y, outer);
    row_of(e, c->out->type, ny_dim_add(e->cx, row, r), at);
    at[c->out->type->rank - 1] = ny_at_col(ny_dim_add(e->cx, ny_dim_mul(e->cx, s->panel, c->p), s->column));
    ny_emit_epilogue(e, c->out, at, y);
    e->lim[1] = NY_ALL;
  }
}

/* Columns of a panel for some rows whose digits are in scratch. */
static void emit_strip(ny_emit *e, const codes *c, strip *s, ny_dim row) {
  int64_t full = c->k / c->sub, left = c->k - full * c->sub;
  ny_dim b;
  e->lim[0] = e->lim[1] = NY_ALL;
  for (int r = 0; r < s->rows; r++) s->sum[r] = ny_emit_tile(e, NY_f32, 1, c->cols, 0);
  if (full) {
    ny_loop l = ny_emit_for(e, 0, full, 1, (int)ny_knob(e->k, "ku", 1), &b);
    run(e, c, s, b, c->sub / c->per);
    ny_emit_end(e, l);
  }
  if (left) run(e, c, s, full, (left + c->per - 1) / c->per);
  results(e, c, s, row);
}

static void emit_panel(ny_emit *e, const codes *c, ny_dim panel, int64_t rows, ny_dim row) {
  strip s = {.panel = panel};
  ny_loop l = {0};
  if (c->cols < c->p) {
    l = ny_emit_for(e, 0, c->p / c->cols, 1, 1, &s.column);
    s.column = ny_dim_mul(e->cx, s.column, c->cols);
  }
  for (; s.slot < rows; s.slot += s.rows) {
    s.rows = (int)(rows - s.slot < c->rows ? rows - s.slot : c->rows);
    emit_strip(e, c, &s, ny_dim_add(e->cx, row, s.slot));
  }
  if (c->cols < c->p) ny_emit_end(e, l);
}

/* ---- schedules */
/* Sums of every digit and their total, a vector of bytes, a digit of each kind and the table stay in registers. */
static void pick_tile(ny_emit *e, codes *c, int64_t rows) {
  int lanes = ny_vec_lanes(e->px, NY_f32), regs = e->px->target->n_vregs;
  int most = (regs - DIGITS - 4) / (DIGITS + 1), v = (int)(c->p / lanes);
  int r = (int)(rows < most ? rows : most);
  if (r < 1) r = 1;
  r = (int)((rows + (rows + r - 1) / r - 1) / ((rows + r - 1) / r)); /* evenly */
  while (v > 1 && (v * r > most || c->p % (v * lanes))) v--;
  c->rows = (int)ny_knob(e->k, "mr", r), c->cols = (int)ny_knob(e->k, "nr", v * lanes);
  ny_knob_set(e->k, "mr", c->rows), ny_knob_set(e->k, "nr", c->cols);
}

/* A grid point takes several panels, so that making digits is a small part of its work. */
static void emit_few(ny_emit *e, codes *c, int64_t rows) {
  int64_t panels = (c->n + c->p - 1) / c->p, threads = e->px->target->threads > 0 ? e->px->target->threads : 1, in_point = getenv("PP") ? atoi(getenv("PP")) : panels / (4 * threads);
  in_point = ny_knob(e->k, "panels", in_point < 1 ? 1 : in_point > 64 ? 64 : in_point);
  ny_knob_set(e->k, "panels", in_point);
  ny_dim point = ny_emit_grid(e, (panels + in_point - 1) / in_point), i;
  scratch(e, c, (int)rows);
  for (int r = 0; r < rows; r++) quantise_row(e, c, r, r);
  ny_dim first = ny_dim_mul(e->cx, point, in_point);
  ny_dim count = panels % in_point ? ny_dim_min(e->cx, in_point, ny_dim_sub(e->cx, panels, first)) : in_point;
  ny_loop l = ny_emit_for(e, 0, count, 1, 1, &i);
  emit_panel(e, c, ny_dim_add(e->cx, first, i), rows, 0);
  ny_emit_end(e, l);
  ny_emit_grain(e, ny_work(rows * c->p * in_point, c->k) / 16);
}

nyb_status ny_codes_matmul(ny_emit *e, const ny_op *op) {
  codes c = {0};
  const ny_op *q = ny_in(op, 1)->def;
  int64_t packed = ny_attr_at(op, NY_AT(matmul, packed))->i;
  if (packed < 1 || !q || q->kind != NY_dequantize || ny_in(op, 1)->type->rank != 3 || !read_codes(&c, e->px->target, op, q, 1)) return NYB_E_UNSUPPORTED;
  if (!by_words(ny_in(q, 0), c.per) || packed % ny_vec_lanes(e->px, NY_f32)) return NYB_E_UNSUPPORTED;
  c.p = packed, c.m = 1;
  for (int i = 0; i < c.out->type->rank - 1; i++) c.m = ny_dim_mul(e->cx, c.m, c.out->type->dim[i]);
  if (c.m < 1 || c.m > SMALL) return NYB_E_UNSUPPORTED;
  pick_tile(e, &c, c.m);
  emit_few(e, &c, c.m);
  return ny_emit_finish(e);
}
