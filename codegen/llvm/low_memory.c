/* Loads and stores of one piece of a tile: plain vectors where columns are adjacent, one element and a splat where they
   coincide, an element at a time (or a gather) elsewhere. Limits become masks where the machine has them, else a branch
   around a short loop over the lanes that exist. Elements outside a limit are neither read nor written: a load then
   reads a zero of our own. */
#include "llvm.h"

typedef struct place { /* of a piece in a buffer */
  ny_low *l;
  ny_fmt fmt;
  typ e; /* element in memory */
  int align, lanes;
  val ptr;             /* of the piece's first element; sub-byte: of the buffer */
  val off;             /* sub-byte: element offset of the piece's first element */
  val step;            /* elements from lane to lane, when `stride` says symbolic */
  int64_t stride;      /* constant step, or STEP_SYMBOLIC */
  val index;           /* per lane element offsets, or NULL */
  val row_in, lane_in; /* i1: the row exists; per lane: the column exists. NULL: all */
  val room;            /* columns of the piece that exist, when lane_in */
  bool even;           /* sub-byte: provably begins on a byte */
} place;
enum { STEP_SYMBOLIC = INT32_MIN };

static bool sub_byte(ny_fmt f) { return ny_fmts[f].bits < 8; }
static int per_byte(ny_fmt f) { return 8 / ny_fmts[f].bits; }
static val i64c(const ny_low *l, int64_t v) { return ny_ci(l->x->i64, v); }

/* ---- limits */
static void limits(place *p, const ny_attr *lim, ny_lat at) {
  ny_low *l = p->l;
  ny_lx *x = l->x;
  if (!lim->dims.n) return;
  ny_dim rows = lim->dims.v[0], cols = lim->dims.v[1];
  if (at.drow || !ny_low_at_least(l, rows, at.row + 1)) {
    val r = at.drow ? LLVMBuildNSWAdd(x->b, at.drow, i64c(l, at.row), "") : i64c(l, at.row);
    p->row_in = ny_ic(x, LLVMIntSLT, r, ny_low_dim(l, rows));
  }
  if (at.dcol || !ny_low_at_least(l, cols, at.col + at.lanes)) {
    val c = at.dcol ? LLVMBuildNSWAdd(x->b, at.dcol, i64c(l, at.col), "") : i64c(l, at.col);
    val room = LLVMBuildNSWSub(x->b, ny_low_dim(l, cols), c, "");
    if (at.lanes == 1) {
      p->lane_in = ny_ic(x, LLVMIntSGT, room, i64c(l, 0));
    } else { /* 0 to lanes fits 16 bits, and so do compares */
      room = ny_bin(x, "llvm.smin", ny_bin(x, "llvm.smax", room, i64c(l, 0)), i64c(l, at.lanes));
      p->room = room;
      typ st = ny_vec(x->i16, at.lanes);
      val n = ny_splat(x, LLVMBuildTrunc(x->b, room, x->i16, ""), at.lanes);
      p->lane_in = ny_ic(x, LLVMIntULT, ny_iota(st), n);
    }
  }
}

/* A limit that the whole tile is inside needs no test whatever piece it is. */
static bool tile_inside(const ny_low *l, const ny_attr *lim, const ny_value *tile) {
  return !lim->dims.n || (ny_low_at_least(l, lim->dims.v[0], tile->type->dim[0]) &&
                          ny_low_at_least(l, lim->dims.v[1], tile->type->dim[1]));
}

static val mask_of(const place *p) { /* NULL: everything exists */
  if (!p->row_in) return p->lane_in;
  val r = ny_splat(p->l->x, p->row_in, p->lanes);
  return p->lane_in ? NY_B(And, p->l->x, r, p->lane_in) : r;
}

/* ---- addresses */
static val scaled(ny_low *l, int at, val dyn, ny_dim stride, int64_t *constant) {
  int64_t s;
  ny_lx *x = l->x;
  if (ny_dim_is_const(l->cx, stride, &s)) {
    *constant += at * s;
    return dyn && s ? LLVMBuildNSWMul(x->b, dyn, i64c(l, s), "") : NULL;
  }
  if (!dyn && !at) return NULL;
  val n = dyn ? LLVMBuildNSWAdd(x->b, dyn, i64c(l, at), "") : i64c(l, at);
  return LLVMBuildNSWMul(x->b, n, ny_low_dim(l, stride), "");
}

static void index_of(place *p, ny_value *index, ny_dim istride, ny_lat at, val *scalar) {
  ny_low *l = p->l;
  ny_lx *x = l->x;
  bool per_lane = l->info[index->id].cols > 1 && at.lanes > 1;
  if (!per_lane) at.lanes = 1;
  val i = ny_convert(x, (ny_fmt)index->type->fmt, NY_i64, ny_eval(l, index, at), false);
  int64_t s;
  if (!ny_dim_is_const(l->cx, istride, &s) || s != 1)
    i = LLVMBuildNSWMul(x->b, i, ny_splat(x, ny_low_dim(l, istride), at.lanes), "");
  if (per_lane)
    p->index = i;
  else
    *scalar = i;
}

static place place_of(ny_low *l, const ny_op *op, const ny_value *tile, ny_lat at) {
  bool load = op->kind == NY_load;
  const ny_attr *a = op->attr;
  const ny_attr *off = &a[load ? NY_AT(load, off) : NY_AT(store, off)],
                *stride = &a[load ? NY_AT(load, stride) : NY_AT(store, stride)],
                *lim = &a[load ? NY_AT(load, lim) : NY_AT(store, lim)],
                *istride = &a[load ? NY_AT(load, istride) : NY_AT(store, istride)];
  ny_lx *x = l->x;
  ny_value *buffer = ny_in(op, 0), *index = op->n_in > (load ? 1 : 2) ? ny_in(op, load ? 1 : 2) : NULL;
  ny_fmt f = (ny_fmt)buffer->type->fmt;
  place p = {.l = l, .fmt = f, .e = ny_mem_type(x, f), .lanes = at.lanes};
  p.align = sub_byte(f) ? 1 : ny_fmts[f].bits / 8;
  if (!ny_dim_is_const(l->cx, stride->dims.v[1], &p.stride))
    p.stride = STEP_SYMBOLIC, p.step = ny_low_dim(l, stride->dims.v[1]);
  if (!tile_inside(l, lim, tile)) limits(&p, lim, at);
  int64_t c = 0;
  val scalar = NULL, dyn[3];
  dyn[0] = scaled(l, at.row, at.drow, stride->dims.v[0], &c);
  dyn[1] = scaled(l, at.col, at.dcol, stride->dims.v[1], &c);
  if (index) index_of(&p, index, istride->d, at, &scalar);
  dyn[2] = scalar;
  val base = l->info[buffer->id].base;
  if (sub_byte(f)) {
    int64_t s0 = 0;
    p.even = !scalar && ny_dim_divides(l->cx, off->d, per_byte(f)) && c % per_byte(f) == 0 &&
             (!at.drow || (ny_dim_is_const(l->cx, stride->dims.v[0], &s0) && s0 % per_byte(f) == 0)) &&
             (!at.dcol || p.stride == 1) && (!at.row || ny_dim_is_const(l->cx, stride->dims.v[0], NULL));
    p.off = LLVMBuildNSWAdd(x->b, ny_low_dim(l, off->d), i64c(l, c), "");
    for (int i = 0; i < 3; i++)
      if (dyn[i]) p.off = LLVMBuildNSWAdd(x->b, p.off, dyn[i], "");
    p.ptr = base;
    return p;
  }
  p.ptr = ny_low_gep(l, p.e, base, off->d);
  for (int i = 0; i < 3; i++)
    if (dyn[i]) p.ptr = ny_gep(x, p.e, p.ptr, dyn[i]);
  p.ptr = ny_gepc(x, p.e, p.ptr, c);
  return p;
}

/* ---- one element */
static val lane_offset(const place *p, int lane) { /* elements from the piece's first */
  ny_lx *x = p->l->x;
  val o =
      p->stride == STEP_SYMBOLIC ? LLVMBuildNSWMul(x->b, p->step, i64c(p->l, lane), "") : i64c(p->l, lane * p->stride);
  return p->index ? LLVMBuildNSWAdd(x->b, o, ny_lane(x, p->index, lane), "") : o;
}

typedef struct element {
  val ptr, shift; /* shift: i8, of a sub-byte element in its byte, else NULL */
} element;
static element element_at(const place *p, val offset) {
  ny_lx *x = p->l->x;
  if (!sub_byte(p->fmt)) return (element){ny_gep(x, p->e, p->ptr, offset), NULL};
  int per = per_byte(p->fmt), log = per == 4 ? 2 : 1;
  val at = LLVMBuildNSWAdd(x->b, p->off, offset, "");
  val in = LLVMBuildTrunc(x->b, NY_B(And, x, at, i64c(p->l, per - 1)), x->i8, "");
  return (element){ny_gep(x, x->i8, p->ptr, NY_B(AShr, x, at, i64c(p->l, log))),
                   NY_B(Mul, x, in, ny_ci(x->i8, ny_fmts[p->fmt].bits))};
}

static val widen(ny_lx *x, ny_fmt f, val byte) { /* a sub-byte code in the low bits to its register form */
  if (f == NY_f4e2m1) return NY_B(And, x, byte, ny_ci(LLVMTypeOf(byte), 15));
  return ny_wrap(x, f, byte);
}

static val from_memory(ny_lx *x, ny_fmt f, val m) {
  return f == NY_bool ? ny_ic(x, LLVMIntNE, m, ny_ci(LLVMTypeOf(m), 0)) : m;
}

static val to_memory(ny_lx *x, ny_fmt f, val r) {
  return f == NY_bool ? LLVMBuildZExt(x->b, r, ny_like(r, x->i8), "") : r;
}

static val lane_in(const place *p, int lane) {
  ny_lx *x = p->l->x;
  val c = p->lane_in ? ny_lane(x, p->lane_in, lane) : NULL;
  return !c ? p->row_in : p->row_in ? NY_B(And, x, p->row_in, c) : c;
}

static val load_element(const place *p, val offset, val in) { /* in memory form, sub-byte: widened */
  ny_lx *x = p->l->x;
  element e = element_at(p, offset);
  if (in) e.ptr = ny_sel(x, in, e.ptr, p->l->zeros);
  val v = ny_ld(x, p->e, e.ptr, (unsigned)p->align);
  return e.shift ? widen(x, p->fmt, NY_B(LShr, x, v, e.shift)) : v;
}

static void store_element(const place *p, val offset, val v) {
  ny_lx *x = p->l->x;
  element e = element_at(p, offset);
  if (e.shift) {
    val m = ny_ci(x->i8, (1 << ny_fmts[p->fmt].bits) - 1);
    val old = NY_B(And, x, ny_ld(x, x->i8, e.ptr, 1), LLVMBuildNot(x->b, NY_B(Shl, x, m, e.shift), ""));
    v = NY_B(Or, x, old, NY_B(Shl, x, NY_B(And, x, v, m), e.shift));
  }
  ny_st(x, v, e.ptr, (unsigned)p->align);
}

/* ---- vectors of adjacent elements */
static val load_packed_bytes(const place *p) { /* whole bytes of 2 or 4 elements each, spread over the lanes */
  ny_lx *x = p->l->x;
  int per = per_byte(p->fmt), log = per == 4 ? 2 : 1, bytes = p->lanes / per;
  val b = ny_ld(x, ny_vec(x->i8, bytes), ny_gep(x, x->i8, p->ptr, NY_B(AShr, x, p->off, i64c(p->l, log))), 1);
  val at[256], shift[256];
  for (int i = 0; i < p->lanes; i++)
    at[i] = ny_ci(x->i32, i / per), shift[i] = ny_ci(x->i8, i % per * ny_fmts[p->fmt].bits);
  if (bytes == 1)
    b = ny_splat(x, b, p->lanes);
  else
    b = LLVMBuildShuffleVector(x->b, b, LLVMGetPoison(LLVMTypeOf(b)), LLVMConstVector(at, (unsigned)p->lanes), "");
  return widen(x, p->fmt, NY_B(LShr, x, b, LLVMConstVector(shift, (unsigned)p->lanes)));
}

static void store_packed_bytes(const place *p, val v) {
  ny_lx *x = p->l->x;
  int bits = ny_fmts[p->fmt].bits, per = 8 / bits, log = per == 4 ? 2 : 1, bytes = p->lanes / per;
  v = NY_B(And, x, v, ny_ci(LLVMTypeOf(v), (1 << bits) - 1));
  val sum = NULL;
  for (int k = 0; k < per; k++) {
    val at[256];
    for (int i = 0; i < bytes; i++) at[i] = ny_ci(x->i32, i * per + k);
    val part = LLVMBuildShuffleVector(x->b, v, LLVMGetPoison(LLVMTypeOf(v)), LLVMConstVector(at, (unsigned)bytes), "");
    part = NY_B(Shl, x, part, ny_ci(LLVMTypeOf(part), k * bits));
    sum = sum ? NY_B(Or, x, sum, part) : part;
  }
  ny_st(x, sum, ny_gep(x, x->i8, p->ptr, NY_B(AShr, x, p->off, i64c(p->l, log))), 1);
}

static bool masks_are_cheap(const place *p) {
  int bits = ny_fmts[p->fmt].bits;
  if (!p->l->x->target->masked) return false;
  return bits >= 8 && p->lanes > 1;
}

static val lanes_that_exist(const place *p) {
  val n = p->room ? p->room : i64c(p->l, p->lanes);
  return p->row_in ? ny_sel(p->l->x, p->row_in, n, i64c(p->l, 0)) : n;
}

/* Copies the lanes that exist through the stack, one by one: for machines without masks, off the common path. */
static val load_lanes_that_exist(const place *p) {
  ny_lx *x = p->l->x;
  typ vt = ny_vec(p->e, p->lanes);
  val tmp = ny_slot(x, vt, 1, 64);
  ny_st(x, LLVMConstNull(vt), tmp, 64);
  ny_lloop loop;
  ny_loop_begin(x, &loop, i64c(p->l, 0), lanes_that_exist(p), i64c(p->l, 1), true);
  ny_st(x, ny_ld(x, p->e, ny_gep(x, p->e, p->ptr, loop.iv), (unsigned)p->align), ny_gep(x, p->e, tmp, loop.iv),
        (unsigned)p->align);
  ny_loop_end(x, &loop);
  return ny_ld(x, vt, tmp, 64);
}

static void store_lanes_that_exist(const place *p, val v) {
  ny_lx *x = p->l->x;
  val tmp = ny_slot(x, LLVMTypeOf(v), 1, 64);
  ny_st(x, v, tmp, 64);
  ny_lloop loop;
  ny_loop_begin(x, &loop, i64c(p->l, 0), lanes_that_exist(p), i64c(p->l, 1), true);
  ny_st(x, ny_ld(x, p->e, ny_gep(x, p->e, tmp, loop.iv), (unsigned)p->align), ny_gep(x, p->e, p->ptr, loop.iv),
        (unsigned)p->align);
  ny_loop_end(x, &loop);
}

static val whole(const place *p) {
  val n = p->room ? ny_ic(p->l->x, LLVMIntEQ, p->room, i64c(p->l, p->lanes)) : NULL;
  return !n ? p->row_in : p->row_in ? NY_B(And, p->l->x, p->row_in, n) : n;
}

static val load_adjacent(const place *p) {
  ny_lx *x = p->l->x;
  typ vt = ny_vec(p->e, p->lanes);
  val mask = mask_of(p);
  if (!mask) return ny_ld(x, vt, p->ptr, (unsigned)p->align);
  if (masks_are_cheap(p)) {
    typ over[2] = {vt, x->ptr};
    val arg[4] = {p->ptr, ny_ci(x->i32, p->align), mask, LLVMConstNull(vt)};
    return ny_call(x, "llvm.masked.load", over, 2, arg, 4);
  }
  ny_lif f;
  ny_if_begin(x, &f, whole(p));
  ny_if_else(x, &f, ny_ld(x, vt, p->ptr, (unsigned)p->align));
  return ny_if_end(x, &f, load_lanes_that_exist(p));
}

static void store_adjacent(const place *p, val v) {
  ny_lx *x = p->l->x;
  val mask = mask_of(p);
  if (!mask) {
    ny_st(x, v, p->ptr, (unsigned)p->align);
  } else if (masks_are_cheap(p)) {
    typ over[2] = {LLVMTypeOf(v), x->ptr};
    val arg[4] = {v, p->ptr, ny_ci(x->i32, p->align), mask};
    ny_call(x, "llvm.masked.store", over, 2, arg, 4);
  } else {
    ny_lif f;
    ny_if_begin(x, &f, whole(p));
    ny_st(x, v, p->ptr, (unsigned)p->align);
    ny_if_else(x, &f, NULL);
    store_lanes_that_exist(p, v);
    ny_if_end(x, &f, NULL);
  }
}

/* ---- pieces */
static bool gathers(const place *p) {
  int bits = ny_fmts[p->fmt].bits;
  return p->l->x->avx512 && (bits == 32 || bits == 64) && p->lanes >= 4;
}

static val gather(const place *p) {
  ny_lx *x = p->l->x;
  typ wide = ny_vec(x->i64, p->lanes), vt = ny_vec(p->e, p->lanes);
  val step = p->step ? ny_splat(x, p->step, p->lanes) : ny_ci(wide, p->stride);
  val off = NY_B(Mul, x, ny_iota(wide), step);
  if (p->index) off = NY_B(Add, x, off, p->index);
  val mask = mask_of(p);
  typ over[2] = {vt, ny_vec(x->ptr, p->lanes)};
  val arg[4] = {LLVMBuildGEP2(x->b, p->e, p->ptr, &off, 1, ""), ny_ci(x->i32, p->align),
                mask ? mask : ny_ci(ny_vec(x->i1, p->lanes), 1), LLVMConstNull(vt)};
  return ny_call(x, "llvm.masked.gather", over, 2, arg, 4);
}

val ny_low_load(ny_low *l, const ny_op *op, ny_lat at) {
  ny_lx *x = l->x;
  place p = place_of(l, op, op->out[0], at);
  bool adjacent = p.stride == 1 && !p.index;
  if (p.lanes == 1) return from_memory(x, p.fmt, load_element(&p, i64c(l, 0), lane_in(&p, 0)));
  if (p.stride == 0 && !p.index) {
    val v = ny_splat(x, from_memory(x, p.fmt, load_element(&p, i64c(l, 0), p.lane_in ? lane_in(&p, 0) : p.row_in)),
                     p.lanes);
    return p.lane_in ? ny_sel(x, p.lane_in, v, LLVMConstNull(LLVMTypeOf(v))) : v;
  }
  if (adjacent && !sub_byte(p.fmt)) return from_memory(x, p.fmt, load_adjacent(&p));
  if (adjacent && p.even && p.lanes >= per_byte(p.fmt) && !mask_of(&p)) return load_packed_bytes(&p);
  val word = ny_fmts[p.fmt].bits <= 8 ? ny_low_load_words(l, op, at) : NULL;
  if (word) return from_memory(x, p.fmt, word);
  if (gathers(&p)) return from_memory(x, p.fmt, gather(&p));
  val v = LLVMGetPoison(ny_vec(p.e, p.lanes));
  for (int i = 0; i < p.lanes; i++) v = ny_with_lane(x, v, i, load_element(&p, lane_offset(&p, i), lane_in(&p, i)));
  return from_memory(x, p.fmt, v);
}

static void put_element(const place *p, ny_lfold fold, int lane, val v) {
  ny_lx *x = p->l->x;
  val in = lane_in(p, lane), offset = lane_offset(p, lane);
  ny_lif f;
  if (in) ny_if_begin(x, &f, in);
  if (fold != NY_LF_set) {
    val old = ny_decode(x, p->fmt, from_memory(x, p->fmt, load_element(p, offset, NULL)));
    v = ny_lfold_step(x, fold, p->fmt, old, ny_decode(x, p->fmt, v));
    v = ny_is_float(p->fmt) ? ny_encode(x, p->fmt, v, false) : v;
  }
  store_element(p, offset, to_memory(x, p->fmt, v));
  if (!in) return;
  ny_if_else(x, &f, NULL);
  ny_if_end(x, &f, NULL);
}

void ny_low_store(ny_low *l, const ny_op *op, ny_lat at, val v) {
  ny_lx *x = l->x;
  place p = place_of(l, op, ny_in(op, 1), at);
  ny_lfold fold = ny_lfold_of(op->attr[NY_AT(store, op)].s);
  bool adjacent = p.stride == 1 && !p.index && p.lanes > 1;
  if (adjacent && !sub_byte(p.fmt)) {
    if (fold != NY_LF_set) {
      val old = ny_decode(x, p.fmt, from_memory(x, p.fmt, load_adjacent(&p)));
      v = ny_lfold_step(x, fold, p.fmt, old, ny_decode(x, p.fmt, v));
      v = ny_is_float(p.fmt) ? ny_encode(x, p.fmt, v, false) : v;
    }
    store_adjacent(&p, to_memory(x, p.fmt, v));
  } else if (adjacent && p.even && p.lanes >= per_byte(p.fmt) && fold == NY_LF_set && !mask_of(&p)) {
    store_packed_bytes(&p, v);
  } else {
    for (int i = 0; i < p.lanes; i++) put_element(&p, fold, i, ny_lane(x, v, i));
  }
}

/* ---- columns: adjacent rows of a tile that are adjacent in memory */
bool ny_low_columns_adjacent(const ny_low *l, const ny_op *op, const ny_value *tile) {
  bool load = op->kind == NY_load;
  const ny_attr *a = op->attr, *stride = &a[load ? NY_AT(load, stride) : NY_AT(store, stride)],
                *lim = &a[load ? NY_AT(load, lim) : NY_AT(store, lim)];
  int64_t s0 = 0, s1 = 2;
  if (op->n_in > (load ? 1 : 2) || sub_byte((ny_fmt)tile->type->fmt) || tile->type->dim[0] < 4 ||
      tile->type->dim[1] < 4)
    return false;
  if (!ny_dim_is_const(l->cx, stride->dims.v[0], &s0) || s0 != 1) return false;
  (void)ny_dim_is_const(l->cx, stride->dims.v[1], &s1);
  return s1 != 0 && s1 != 1 && (l->x->target->masked || tile_inside(l, lim, tile));
}

/* The place of n rows of one column as if they were adjacent lanes. */
static place column(ny_low *l, const ny_op *op, const ny_value *tile, ny_lat at, int n) {
  const ny_attr *lim = &op->attr[op->kind == NY_load ? NY_AT(load, lim) : NY_AT(store, lim)];
  place p = place_of(l, op, tile, at), rows = p;
  p.lanes = n;
  p.stride = 1;
  p.row_in = p.lane_in; /* what was one column is now all there is */
  p.lane_in = p.room = NULL;
  if (tile_inside(l, lim, tile)) return p;
  rows.row_in = rows.lane_in = NULL;
  ny_lat turned = {.col = at.row, .lanes = n, .dcol = at.drow};
  ny_attr one = *lim;
  ny_dim d[2] = {1, lim->dims.v[0]};
  one.dims.v = d;
  limits(&rows, &one, turned);
  p.lane_in = rows.lane_in, p.room = rows.room;
  return p;
}

val ny_low_load_column(ny_low *l, const ny_op *op, ny_lat at, int n) {
  place p = column(l, op, op->out[0], at, n);
  return from_memory(l->x, p.fmt, load_adjacent(&p));
}

void ny_low_store_column(ny_low *l, const ny_op *op, ny_lat at, int n, val v) {
  place p = column(l, op, ny_in(op, 1), at, n);
  store_adjacent(&p, to_memory(l->x, p.fmt, v));
}

val ny_low_index(ny_low *l, const ny_op *op, ny_lat at) {
  ny_lx *x = l->x;
  const ny_attr *stride = &op->attr[NY_AT(index, stride)];
  int64_t c = 0;
  val row = scaled(l, at.row, at.drow, stride->dims.v[0], &c), col = scaled(l, at.col, at.dcol, stride->dims.v[1], &c);
  val s = ny_low_dim(l, op->attr[NY_AT(index, off)].d);
  if (row) s = LLVMBuildNSWAdd(x->b, s, row, "");
  if (col) s = LLVMBuildNSWAdd(x->b, s, col, "");
  if (c) s = LLVMBuildNSWAdd(x->b, s, i64c(l, c), "");
  if (at.lanes == 1) return s;
  val step = ny_splat(x, ny_low_dim(l, stride->dims.v[1]), at.lanes);
  return NY_B(Add, x, ny_splat(x, s, at.lanes), NY_B(Mul, x, ny_iota(LLVMTypeOf(step)), step));
}

/* A line is fetched once, however the elements lie in it; an address outside the buffer does no harm. */
void ny_low_prefetch(ny_low *l, const ny_op *op) {
  ny_lx *x = l->x;
  const ny_linfo *f = &l->info[ny_in(op, 0)->id];
  int bits = ny_fmts[f->fmt].bits;
  int64_t left, bytes = op->attr[NY_AT(prefetch, n)].i * bits / 8;
  ny_dim off = op->attr[NY_AT(prefetch, off)].d;
  val p = bits < 8 ? ny_low_gep_part(l, x->i8, f->base, off, 0, 8 / bits, &left) : ny_low_gep(l, ny_mem_type(x, f->fmt), f->base, off);
  for (int64_t at = 0; p && at < bytes; at += 64)
    ny_call(x, "llvm.prefetch", &x->ptr, 1, (val[]){ny_gepc(x, x->i8, p, at), ny_ci(x->i32, 0), ny_ci(x->i32, 3), ny_ci(x->i32, 1)}, 4);
}

/* Instructions of one piece, for the choice between straight code and a loop. */
int ny_low_access_cost(const ny_low *l, const ny_op *op, const ny_value *tile) {
  bool load = op->kind == NY_load;
  const ny_attr *a = op->attr;
  const ny_attr *stride = &a[load ? NY_AT(load, stride) : NY_AT(store, stride)],
                *lim = &a[load ? NY_AT(load, lim) : NY_AT(store, lim)];
  const ny_value *index = op->n_in > (load ? 1 : 2) ? ny_in(op, load ? 1 : 2) : NULL;
  int64_t cols = tile->type->dim[1], s = 2;
  int lanes = cols < l->W ? (int)cols : l->W;
  bool known = ny_dim_is_const(l->cx, stride->dims.v[1], &s), spread = index && index->type->dim[1] > 1;
  int each = !spread && known && (s == 1 || s == 0) ? 1 : ny_low_columns_adjacent(l, op, tile) ? 6 : 2 * lanes;
  if (sub_byte((ny_fmt)tile->type->fmt)) each *= 4;
  return each + (lim->dims.n ? l->x->target->masked ? 2 : 8 : 0);
}

/* ---- whole tiles on the stack */
val ny_low_array(ny_low *l, const ny_linfo *f) {
  typ e = f->fmt == NY_bool ? l->x->i8 : ny_reg_type(l->x, f->fmt);
  l->stack_bytes += (uint64_t)f->rows * (uint64_t)f->cols * (f->fmt == NY_bool ? 1u : (ny_fmts[f->fmt].bits + 7u) / 8u);
  return ny_slot(l->x, e, (int64_t)f->rows * f->cols, 64);
}

val ny_array_ptr(ny_low *l, const ny_linfo *f, ny_lat at) {
  ny_lx *x = l->x;
  typ e = f->fmt == NY_bool ? x->i8 : ny_reg_type(x, f->fmt);
  val p = f->array;
  if (at.drow) p = ny_gep(x, e, p, LLVMBuildNSWMul(x->b, at.drow, i64c(l, f->cols), ""));
  if (at.dcol) p = ny_gep(x, e, p, at.dcol);
  return ny_gepc(x, e, p, (int64_t)at.row * f->cols + at.col);
}

val ny_array_load(ny_low *l, const ny_linfo *f, ny_lat at) {
  typ e = f->fmt == NY_bool ? l->x->i8 : ny_reg_type(l->x, f->fmt);
  return from_memory(l->x, f->fmt,
                     ny_ld(l->x, ny_vec(e, at.lanes), ny_array_ptr(l, f, at), (ny_fmts[f->fmt].bits + 7u) / 8u));
}

void ny_array_store(ny_low *l, const ny_linfo *f, ny_lat at, val v) {
  ny_st(l->x, to_memory(l->x, f->fmt, v), ny_array_ptr(l, f, at), (ny_fmts[f->fmt].bits + 7u) / 8u);
}
