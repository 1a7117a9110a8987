/* Codes of quantised weights. Their packed form puts the codes of 32 / bits neighbours along k into one word, and the
   words of neighbouring columns side by side: a register of words is a register of columns. So the lane of a word holds
   what a dot product of bytes wants, and an element of a column is a shift away. Whatever an expression makes of a code
   of four bits is a table of sixteen entries: it is computed here, once, and looked up by a shuffle. */
#include "llvm.h"

#include <math.h>

enum { CODES = 16, MOST_DEPTH = 8, WORD = 32 };
typedef struct table {
  const ny_op *load;
  double entry[CODES];
} table;

/* ---- tables */
/* x as a value of format f; false where it would not be one number everywhere. */
static bool stored(ny_fmt f, double *x) {
  uint64_t bits = 0;
  if (ny_is_float(f)) {
    ny_put_f(f, &bits, 0, *x, false);
    *x = ny_get_f(f, &bits, 0);
    return true;
  }
  *x = trunc(*x);
  if (!(fabs(*x) < 1e9)) return false;
  ny_put_i(f, &bits, 0, (int64_t)*x);
  return (double)ny_get_i(f, &bits, 0) == *x;
}

static bool entries(const ny_low *l, const ny_value *v, table *t, double *out, int depth) {
  const ny_op *op = v->def;
  ny_fmt f = (ny_fmt)v->type->fmt;
  double b[CODES];
  if (!op || depth > MOST_DEPTH || l->info[v->id].state != NY_L_LAZY || l->info[v->id].mutated) return false;
  bool two = op->kind == NY_add || op->kind == NY_sub || op->kind == NY_mul;
  if (op->kind == NY_load) {
    if (ny_fmts[f].bits != 4 || (t->load && t->load != op)) return false;
    t->load = op;
    for (uint8_t i = 0; i < CODES; i++) out[i] = ny_is_float(f) ? ny_get_f(f, &i, 0) : (double)ny_get_i(f, &i, 0);
    return true;
  }
  if (op->kind == NY_tile)
    for (int i = 0; i < CODES; i++) out[i] = op->attr[NY_AT(tile, fill)].f;
  else if ((op->kind != NY_cast && !two) || !entries(l, ny_in(op, 0), t, out, depth + 1) ||
           (two && !entries(l, ny_in(op, 1), t, b, depth + 1)))
    return false;
  for (int i = 0; i < CODES; i++) {
    if (two) out[i] = op->kind == NY_add ? out[i] + b[i] : op->kind == NY_sub ? out[i] - b[i] : out[i] * b[i];
    if (!stored(f, &out[i])) return false;
  }
  return true;
}

static bool table_of(ny_low *l, ny_value *v, table *t) {
  ny_linfo *f = &l->info[v->id];
  *t = (table){0};
  if (f->no_table) return false;
  f->no_table = !entries(l, v, t, t->entry, 0) || !t->load;
  return !f->no_table;
}

/* ---- words */
/* The words with the elements (at.row, at.col ..) of a load, which lie *up bits up; NULL: columns are not a word apart.
 * `apart`: from row to row, in elements; 0: whatever. */
static val words(ny_low *l, const ny_op *load, ny_lat at, int64_t apart, int *up) {
  ny_lx *x = l->x;
  const ny_attr *a = load->attr;
  const ny_value *buffer = ny_in(load, 0);
  int bits = ny_fmts[buffer->type->fmt].bits;
  int64_t s0 = 0, s1 = 0, left = 0, count = 0;
  if (load->n_in > 1 || a[NY_AT(load, lim)].dims.n || bits > 8 || at.drow || at.dcol) return NULL;
  if (!ny_dim_is_const(l->cx, a[NY_AT(load, stride)].dims.v[0], &s0) ||
      !ny_dim_is_const(l->cx, a[NY_AT(load, stride)].dims.v[1], &s1) || s1 != WORD / bits || (apart && s0 != apart))
    return NULL;
  if (!ny_type_static_count(l->cx, buffer->type, &count) || count % s1) return NULL; /* the last word would reach beyond the end */
  val p = ny_low_gep_part(l, x->i32, l->info[buffer->id].base, a[NY_AT(load, off)].d, at.row * s0 + at.col * s1, s1, &left);
  if (!p) return NULL;
  *up = (int)left * bits;
  return ny_ld(x, ny_vec(x->i32, at.lanes), p, 1);
}

val ny_low_load_words(ny_low *l, const ny_op *load, ny_lat at) {
  int up = 0;
  ny_lx *x = l->x;
  ny_fmt f = (ny_fmt)load->out[0]->type->fmt;
  val w = words(l, load, at, 0, &up);
  if (!w) return NULL;
  w = LLVMBuildTrunc(x->b, NY_B(LShr, x, w, ny_ci(LLVMTypeOf(w), up)), ny_like(w, x->i8), "");
  return ny_fmts[f].bits == 8 ? w : f == NY_f4e2m1 ? NY_B(And, x, w, ny_ci(LLVMTypeOf(w), 15)) : ny_wrap(x, f, w);
}

/* ---- lookups */
static val constant8(ny_lx *x, const table *t, int n) {
  val v[64];
  for (int i = 0; i < n; i++) v[i] = ny_ci(x->i8, (int64_t)t->entry[i % CODES]);
  return LLVMConstVector(v, (unsigned)n);
}

/* Bytes by the low four bits of bytes; what the upper bits are does not matter. */
static val lookup8(ny_lx *x, const table *t, val index) {
  int n = ny_lanes(index);
  val tab = constant8(x, t, n);
  bool wide = ny_lx_has(x, "avx512vbmi");
  if (x->x86 && wide) {
    const char *name = n == 64 ? "llvm.x86.avx512.permvar.qi.512" : n == 32 ? "llvm.x86.avx512.permvar.qi.256" : "llvm.x86.avx512.permvar.qi.128";
    return ny_call(x, name, NULL, 0, (val[]){tab, index}, 2);
  }
  index = NY_B(And, x, index, ny_ci(LLVMTypeOf(index), 15));
  if (!x->x86) {
    typ t16 = LLVMTypeOf(index);
    return ny_call(x, "llvm.aarch64.neon.tbl1", &t16, 1, (val[]){tab, index}, 2);
  }
  const char *name = n == 64 ? "llvm.x86.avx512.pshuf.b.512" : n == 32 ? "llvm.x86.avx2.pshuf.b" : "llvm.x86.ssse3.pshuf.b.128";
  return ny_call(x, name, NULL, 0, (val[]){tab, index}, 2);
}

static val constant32(ny_lx *x, const table *t, int from, int n) {
  val v[CODES];
  for (int i = 0; i < n; i++) v[i] = ny_cf(x->f32, t->entry[from + i]);
  return LLVMConstVector(v, (unsigned)n);
}

val ny_low_lookup(ny_low *l, ny_value *v, ny_lat at) {
  ny_lx *x = l->x;
  table t;
  int up = 0, n = at.lanes;
  bool full = x->x86 && ((n == 16 && x->target->vec_bytes == 64) || (n == 8 && x->target->vec_bytes >= 32));
  if (v->type->fmt != NY_f32 || !full || !table_of(l, v, &t)) return NULL;
  val w = words(l, t.load, at, 0, &up);
  if (!w) return NULL;
  if (up) w = NY_B(LShr, x, w, ny_ci(LLVMTypeOf(w), up));
  if (n == 16) return ny_call(x, "llvm.x86.avx512.permvar.sf.512", NULL, 0, (val[]){constant32(x, &t, 0, 16), w}, 2);
  val low = ny_call(x, "llvm.x86.avx2.permps", NULL, 0, (val[]){constant32(x, &t, 0, 8), w}, 2);
  val high = ny_call(x, "llvm.x86.avx2.permps", NULL, 0, (val[]){constant32(x, &t, 8, 8), w}, 2);
  val top = NY_B(Shl, x, w, ny_ci(LLVMTypeOf(w), 28)); /* the fourth bit becomes the sign, which a blend goes by */
  return ny_sel(x, ny_ic(x, LLVMIntSLT, top, ny_ci(LLVMTypeOf(w), 0)), high, low);
}

/* ---- products of bytes */
/* Four rows of at.lanes columns as one register: the rows of a column are the bytes of a lane. */
static val quads(ny_low *l, ny_value *v, ny_lat at) {
  ny_lx *x = l->x;
  const ny_op *op = v->def;
  ny_lat key = at;
  key.lanes = -at.lanes; /* not a piece of columns */
  val b = ny_low_recall(l, v, key);
  if (b || !op) return b;
  table t;
  int up = 0;
  typ bytes = ny_vec(x->i8, 4 * at.lanes);
  if (op->kind == NY_load && ny_fmts[v->type->fmt].bits == 8) {
    b = words(l, op, at, 1, &up);
    b = b && !up ? ny_bits(x, b, bytes) : NULL;
  } else if (op->kind == NY_bitcast && ny_fmts[ny_in(op, 0)->type->fmt].bits == 8) {
    b = quads(l, ny_in(op, 0), at);
  } else if (op->kind == NY_xor && ny_in(op, 1)->def && ny_in(op, 1)->def->kind == NY_tile && !l->info[ny_in(op, 1)->id].mutated) {
    b = quads(l, ny_in(op, 0), at);
    if (b) b = NY_B(Xor, x, b, ny_ci(bytes, (int64_t)ny_in(op, 1)->def->attr[NY_AT(tile, fill)].f));
  } else if (table_of(l, v, &t)) {
    b = words(l, t.load, at, 2, &up);
    b = b && up <= 4 ? ny_bits(x, b, bytes) : NULL;
    if (b && up) b = NY_B(LShr, x, b, ny_ci(bytes, up));
    if (b) b = lookup8(x, &t, b);
  }
  if (b) ny_low_keep(l, v, key, b);
  return b;
}

static val dot_pairs(ny_lx *x, val sum, val w, val a) {
  int n = ny_lanes(sum);
  const char *ub = n == 16 ? "llvm.x86.avx512.pmaddubs.w.512" : n == 8 ? "llvm.x86.avx2.pmadd.ub.sw" : "llvm.x86.ssse3.pmadd.ub.sw.128";
  const char *wd = n == 16 ? "llvm.x86.avx512.pmaddw.d.512" : n == 8 ? "llvm.x86.avx2.pmadd.wd" : "llvm.x86.sse2.pmadd.wd";
  val p = ny_call(x, ub, NULL, 0, (val[]){w, a}, 2);
  return NY_B(Add, x, sum, ny_call(x, wd, NULL, 0, (val[]){p, ny_ci(LLVMTypeOf(p), 1)}, 2));
}

static val dot_long(ny_lx *x, val sum, val w, val a) {
  typ t8 = ny_vec(x->i16, 8), over[2] = {ny_vec(x->i32, 4), t8};
  val part[2];
  for (int i = 0; i < 2; i++) part[i] = ny_call(x, "llvm.aarch64.neon.smull", &t8, 1, (val[]){ny_part(x, w, 8 * i, 8), ny_part(x, a, 8 * i, 8)}, 2);
  val two = ny_call(x, "llvm.aarch64.neon.addp", &t8, 1, part, 2);
  return NY_B(Add, x, sum, ny_call(x, "llvm.aarch64.neon.saddlp", over, 2, &two, 1));
}

/* sum's lanes += w's four bytes of a lane times a's. */
static val dot8(ny_lx *x, val sum, val w, val a) {
  int n = ny_lanes(sum);
  val bytes = ny_bits(x, a, LLVMTypeOf(w));
  switch (x->target->dot8) {
  case NY_DOT8_mixed: {
    const char *name = n == 16 ? "llvm.x86.avx512.vpdpbusd.512" : n == 8 ? "llvm.x86.avx512.vpdpbusd.256" : "llvm.x86.avx512.vpdpbusd.128";
    return ny_call(x, name, NULL, 0, (val[]){sum, ny_bits(x, w, LLVMTypeOf(sum)), a}, 3);
  }
  case NY_DOT8_pairs: return dot_pairs(x, sum, w, bytes);
  case NY_DOT8_signed: {
    typ over[2] = {LLVMTypeOf(sum), LLVMTypeOf(w)};
    return ny_call(x, "llvm.aarch64.neon.sdot", over, 2, (val[]){sum, w, bytes}, 3);
  }
  default: return dot_long(x, sum, w, bytes);
  }
}

/* Bytes that saturate on the way are not summed by pairs. */
static bool fits_pairs(ny_low *l, ny_value *b) {
  table t;
  if (l->x->target->dot8 != NY_DOT8_pairs) return true;
  if (!table_of(l, b, &t)) return false;
  for (int i = 0; i < CODES; i++)
    if (t.entry[i] > 127) return false;
  return true;
}

/* Four bytes of a row, on every lane. */
static val spread_row(ny_low *l, const ny_op *load, int row, int k, int lanes) {
  ny_lx *x = l->x;
  int64_t s0 = 0;
  (void)ny_dim_is_const(l->cx, load->attr[NY_AT(load, stride)].dims.v[0], &s0);
  val p = ny_low_gep(l, x->i8, l->info[ny_in(load, 0)->id].base, load->attr[NY_AT(load, off)].d);
  return ny_splat(x, ny_ld(x, x->i32, ny_gepc(x, x->i8, p, row * s0 + k), 1), lanes);
}

static bool adjacent_bytes(const ny_low *l, const ny_value *a) {
  const ny_op *op = a->def;
  int64_t s0, s1;
  return op && op->kind == NY_load && op->n_in == 1 && l->info[a->id].state == NY_L_LAZY && !op->attr[NY_AT(load, lim)].dims.n &&
         ny_dim_is_const(l->cx, op->attr[NY_AT(load, stride)].dims.v[0], &s0) && ny_dim_is_const(l->cx, op->attr[NY_AT(load, stride)].dims.v[1], &s1) &&
         s1 == 1;
}

bool ny_low_dot(ny_low *l, const ny_op *mma) {
  ny_value *acc = ny_in(mma, 0), *a = ny_in(mma, 1), *b = ny_in(mma, 2);
  const ny_linfo *f = &l->info[acc->id];
  int depth = l->info[a->id].cols, widest = l->x->target->vec_bytes / 4;
  ny_dot8 how = l->x->target->dot8;
  if (how == NY_DOT8_none || acc->type->fmt != NY_i32 || a->type->fmt != NY_i8 || depth % 4 || depth > 64 || l->W != widest) return false;
  if (b->type->fmt != (ny_dot8_unsigned(how) ? NY_u8 : NY_i8) || !adjacent_bytes(l, a) || !fits_pairs(l, b)) return false;
  for (int c = 0, n; c < f->cols; c += n) /* all of it or nothing */
    if ((n = ny_piece_lanes(l, f->cols, c)) != widest || !quads(l, b, (ny_lat){.col = c, .lanes = n})) return false;
  for (int k = 0; k < depth; k += 4)
    for (int c = 0; c < f->cols; c += widest) {
      val w = quads(l, b, (ny_lat){.row = k, .col = c, .lanes = widest});
      for (int r = 0; r < f->rows; r++) {
        ny_lat at = {.row = r, .col = c, .lanes = widest};
        ny_tile_put(l, f, at, dot8(l->x, ny_tile_get(l, f, at), w, spread_row(l, a->def, r, k, widest)));
      }
    }
  return true;
}
