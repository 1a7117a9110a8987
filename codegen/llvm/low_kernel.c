/* One kernel: facts about its values, the functions, the grid.
   The entry point has the ABI of kernel.h and only unpacks the dispatch; the body is a function of its own whose
   pointer parameters can say that they do not alias. A range [begin, end) of the flattened grid is walked by nested
   loops with carries: one division a dimension at its start, none after it, and what depends on outer dimensions only
   is computed in their loops. */
#include "llvm.h"

#include <assert.h>
#include <string.h>

enum { MAX_TILE = 1 << 16, MAX_STACK = 1 << 19, MAX_COST = 5000, MAX_DIM_NESTING = 16 };

static nyb_status fail(ny_low *l, const ny_op *op, nyb_status s, const char *why) {
  return l->failed = ny_fail(l->diag, s, op ? op->loc : NULL, "kernel %s: %s%s%s", l->k->name,
                             op ? ny_kinds[op->kind].name : "", op ? ": " : "", why);
}

/* ---- program order */
typedef struct listing {
  const ny_op **op;
  uint32_t n, cap;
} listing;

static void number(ny_low *l, const ny_block *b, listing *all) {
  for (const ny_op *op = b->first; op; op = op->next) {
    NY_PUSH_ROOM(&l->arena, all->op, all->n, all->cap);
    l->order[op->id].first = all->n;
    all->op[all->n++] = op;
    for (int i = 0; i < op->n_body; i++) number(l, op->body[i], all);
    l->order[op->id].last = all->n - 1;
  }
}

static uint64_t
new_bit(ny_low *l) { /* beyond 63 resources they share the last bit: more order than needed, never less */
  uint64_t bit = (uint64_t)1 << l->next_bit;
  if (l->next_bit < 63) l->next_bit++;
  return bit;
}

/* ---- facts about values */
static bool mutates(const ny_op *op, const ny_value *v) {
  return (op->kind == NY_set || op->kind == NY_mma) && ny_in(op, 0) == v;
}

/* A tile with one assignment, in its own block, and read only after it, is a name for what it is assigned. */
static ny_value *single_set(const ny_low *l, const ny_value *v) {
  const ny_op *set = NULL;
  for (const ny_use *u = v->uses; u; u = u->next) {
    if (!mutates(u->user, v)) continue;
    if (set || u->user->kind == NY_mma || u->user->parent != v->def->parent || ny_in(u->user, 1) == v) return NULL;
    set = u->user;
  }
  if (!set) return NULL;
  for (const ny_use *u = v->uses; u; u = u->next)
    if (u->user != set && l->order[u->user->id].first < l->order[set->id].first) return NULL;
  return ny_in(set, 1);
}

static void slots(ny_low *l, ny_linfo *f) {
  f->slot = NY_NEW_ARRAY(&l->arena, val, f->rows * f->pieces);
  for (int r = 0, i = 0; r < f->rows; r++)
    for (int c = 0; c < f->cols;) {
      int lanes = ny_piece_lanes(l, f->cols, c);
      unsigned n = (f->fmt == NY_bool ? 1u : (ny_fmts[f->fmt].bits + 7u) / 8u) * (unsigned)lanes;
      f->slot[i++] = ny_slot(l->x, ny_vec(ny_reg_type(l->x, f->fmt), lanes), 1, n > 64 ? 64 : n);
      c += lanes;
    }
}

static void tile_facts(ny_low *l, ny_linfo *f) {
  for (const ny_use *u = f->v->uses; u; u = u->next)
    if (mutates(u->user, f->v)) f->mutated = true, f->by_mma |= u->user->kind == NY_mma;
  f->alias = single_set(l, f->v);
  if (f->alias) {
    const ny_linfo *a = &l->info[f->alias->id];
    f->cost = a->state == NY_L_LAZY ? a->cost : 1;
    f->reads = a->reads;
  }
  if (!f->mutated || f->alias) return;
  int n = f->rows * f->pieces, regs = l->x->target->n_vregs;
  f->reads = new_bit(l);
  f->cost = 1;
  if (n <= (f->by_mma ? 3 * regs : regs / 2)) {
    f->state = NY_L_SLOT;
    slots(l, f);
  } else {
    f->state = NY_L_ARRAY;
    f->array = ny_low_array(l, f);
  }
}

static void lazy_facts(ny_low *l, const ny_op *op, ny_linfo *f) {
  int cost = 0;
  for (int i = 0; i < op->n_in; i++) {
    const ny_linfo *in = &l->info[ny_in(op, i)->id];
    f->reads |= in->reads;
    cost += in->state == NY_L_LAZY ? in->cost : 1;
  }
  int narrow = ny_fmts[f->fmt].bits < 32 && ny_is_float(f->fmt) ? 6 : 0;
  if (op->kind == NY_load)
    cost += ny_low_access_cost(l, op, f->v) - 1;
  else if (op->kind == NY_index)
    cost += 2;
  else if (op->kind == NY_cast)
    cost += 2 + narrow;
  else if (ny_kinds[op->kind].flags & NY_MAP)
    cost += ny_row_cost((ny_kind)op->kind) + narrow;
  f->cost = cost > MAX_COST ? MAX_COST : cost;
}

static nyb_status value_facts(ny_low *l, const ny_op *op, ny_value *v) {
  ny_linfo *f = &l->info[v->id];
  f->v = v;
  f->memo = -1;
  f->fmt = (ny_fmt)v->type->fmt;
  int64_t rows, cols;
  if (v->type->rank != 2 || !ny_dim_is_const(l->cx, v->type->dim[0], &rows) ||
      !ny_dim_is_const(l->cx, v->type->dim[1], &cols) || rows < 1 || cols < 1 || rows > MAX_TILE || cols > MAX_TILE ||
      rows * cols > MAX_TILE)
    return fail(l, op, NYB_E_LIMIT, "a tile must be [rows, cols] of constant size and at most 65536 elements");
  if (ny_fmts[f->fmt].kind == 'S')
    return fail(l, op, NYB_E_UNSUPPORTED, "no tiles of strings");
  f->rows = (int)rows, f->cols = (int)cols;
  for (int c = 0; c < f->cols; f->pieces++) c += ny_piece_lanes(l, f->cols, c);
  f->state = op->kind == NY_reduce ? NY_L_FIXED : NY_L_LAZY;
  if (op->kind == NY_tile)
    tile_facts(l, f);
  else if (op->kind != NY_reduce)
    lazy_facts(l, op, f);
  return NYB_OK;
}

static void last_uses(ny_low *l, const listing *all) {
  for (uint32_t i = all->n; i-- > 0;)
    for (int o = 0; o < all->op[i]->n_out; o++) {
      ny_linfo *f = &l->info[all->op[i]->out[o]->id];
      for (const ny_use *u = f->v->uses; u; u = u->next) {
        uint32_t last = l->order[u->user->id].first;
        const ny_linfo *out = u->user->n_out ? &l->info[u->user->out[0]->id] : NULL;
        if (u->user->kind == NY_set && l->info[ny_in(u->user, 0)->id].alias) out = &l->info[ny_in(u->user, 0)->id];
        if (out && out->last > last) last = out->last;
        if (last > f->last) f->last = last;
      }
    }
}

/* Lanes of a piece: as many as a register has of the commonest width of the kernel's numbers, f32 and its kin first. */
static int lanes_of(ny_low *l, const listing *all) {
  int has[9] = {0};
  for (uint32_t i = 0; i < all->n; i++)
    for (int o = 0; o < all->op[i]->n_out; o++) {
      const ny_type *t = all->op[i]->out[o]->type;
      if (t->space != NY_VALUE) continue;
      int bytes = ny_is_float((ny_fmt)t->fmt) && t->fmt != NY_f64 ? 4 : (ny_fmts[t->fmt].bits + 7) / 8;
      if (all->op[i]->kind == NY_index) bytes = 0;
      has[bytes] = 1;
    }
  int bytes = has[4] ? 4 : has[8] ? 8 : has[2] ? 2 : has[1] ? 1 : 8;
  return l->x->target->vec_bytes / bytes;
}

/* ---- aliasing */
static void find_aliases(ny_low *l, const listing *all) {
  uint64_t in = 0;
  for (uint32_t i = 0; i < l->k->n_knob; i++) {
    int64_t which = l->k->knob[i].value;
    if (!strcmp(l->k->knob[i].name, "inplace") && which >= 0 && which < l->k->body.n_arg)
      in = l->info[l->k->body.arg[which]->id].reads;
  }
  const ny_value *first = NULL; /* output 0 */
  for (uint32_t i = 0; i < all->n; i++) {
    const ny_value *b = all->op[i]->kind == NY_store ? ny_in(all->op[i], 0) : NULL;
    if (b && b->arg_of && (!first || b->index < first->index)) first = b;
  }
  if (in && first) l->aliased = in | l->info[first->id].reads;
}

static void buffers(ny_low *l, const listing *all) {
  const ny_graph *k = l->k;
  for (uint32_t i = 0; i < k->body.n_arg; i++) {
    ny_value *v = k->body.arg[i];
    l->info[v->id] = (ny_linfo){.v = v, .fmt = (ny_fmt)v->type->fmt, .reads = new_bit(l), .memo = -1};
  }
  for (uint32_t i = 0; i < all->n; i++) {
    if (all->op[i]->kind != NY_local) continue;
    ny_value *v = all->op[i]->out[0];
    NY_PUSH_ROOM(&l->arena, l->local, l->n_local, l->cap_local);
    l->local[l->n_local++] = v;
    l->info[v->id] = (ny_linfo){.v = v, .fmt = (ny_fmt)v->type->fmt, .reads = new_bit(l), .memo = -1};
  }
  find_aliases(l, all);
}

static nyb_status values(ny_low *l, const listing *all) {
  for (uint32_t i = 0; i < all->n; i++)
    if (all->op[i]->kind == NY_mma && all->op[i]->n_in > 3) return fail(l, all->op[i], NYB_E_UNSUPPORTED, "no products with scales on a CPU");
  for (uint32_t i = 0; i < all->n; i++)
    for (int o = 0; o < all->op[i]->n_out; o++)
      if (all->op[i]->kind != NY_local) NY_TRY(value_facts(l, all->op[i], all->op[i]->out[o]));
  last_uses(l, all);
  return NYB_OK;
}

/* ---- functions */
static void close_entry(ny_lx *x) {
  LLVMPositionBuilderAtEnd(x->b, x->entry);
  LLVMBuildBr(x->b, LLVMGetNextBasicBlock(x->entry));
}

static void entry_point(ny_low *l, const char *symbol, val body, typ body_type) {
  ny_lx *x = l->x;
  const ny_graph *k = l->k;
  val f = ny_lx_function(x, symbol, (typ[]){x->ptr, x->i64, x->i64}, 3, false);
  LLVMSetVisibility(f, LLVMHiddenVisibility);
  val d = LLVMGetParam(f, 0), *arg = NY_NEW_ARRAY(&l->arena, val, k->body.n_arg + l->n_local + l->n_sym + 2);
  val buffer = ny_ld(x, x->ptr, d, 8), dim = ny_ld(x, x->ptr, ny_gepc(x, x->i64, d, 1), 8),
      scratch = ny_ld(x, x->ptr, ny_gepc(x, x->i64, d, 2), 8);
  unsigned n = 0;
  for (uint32_t i = 0; i < k->body.n_arg; i++) arg[n++] = ny_ld(x, x->ptr, ny_gepc(x, x->ptr, buffer, i), 8);
  int64_t at = 0;
  for (uint32_t i = 0; i < l->n_local; i++) {
    int64_t count = 0;
    ny_type_static_count(l->cx, l->local[i]->type, &count);
    arg[n++] = ny_gepc(x, x->i8, scratch, at);
    at += (int64_t)((ny_fmt_bytes((ny_fmt)l->local[i]->type->fmt, (uint64_t)count) + 63) & ~(uint64_t)63);
  }
  for (size_t i = 0; i < l->n_sym; i++) arg[n++] = ny_ld(x, x->i64, ny_gepc(x, x->i64, dim, (int64_t)i), 8);
  arg[n++] = LLVMGetParam(f, 1);
  arg[n++] = LLVMGetParam(f, 2);
  LLVMBuildCall2(x->b, body_type, body, arg, n, "");
  LLVMBuildRetVoid(x->b);
  close_entry(x);
}

static val open_body(ny_low *l, const char *symbol, typ *type, int *n_ptr) {
  ny_lx *x = l->x;
  const ny_graph *k = l->k;
  size_t n = 0;
  typ *arg = NY_NEW_ARRAY(&l->arena, typ, k->body.n_arg + l->n_local + l->n_sym + 2);
  for (uint32_t i = 0; i < k->body.n_arg + l->n_local; i++) arg[n++] = x->ptr;
  *n_ptr = (int)n;
  for (size_t i = 0; i < l->n_sym + 2; i++) arg[n++] = x->i64;
  *type = LLVMFunctionType(x->vd, arg, (unsigned)n, 0);
  val f = ny_lx_function(x, ny_strf(&l->arena, "%s.%s", symbol, k->name), arg, (int)n, true);
  ny_lx_attr(x, f, (int)LLVMAttributeFunctionIndex, "noinline", 0);
  for (int i = 0; i < *n_ptr; i++) {
    ny_value *v = i < (int)k->body.n_arg ? k->body.arg[i] : l->local[i - (int)k->body.n_arg];
    if (!(l->info[v->id].reads & l->aliased)) ny_lx_attr(x, f, i + 1, "noalias", 0);
    ny_lx_attr(x, f, i + 1, "nocapture", 0);
    if (v->def) ny_lx_attr(x, f, i + 1, "align", 64);
    l->info[v->id].base = LLVMGetParam(f, (unsigned)i);
  }
  for (size_t i = 0; i < l->n_sym; i++)
    ny_low_var(l, l->sym[i], LLVMGetParam(f, (unsigned)*n_ptr + (unsigned)i), 0, INT64_MAX, 0);
  return f;
}

/* ---- the grid */
typedef struct grid {
  const ny_op *op[MAX_DIM_NESTING];
  int n;
  val extent[MAX_DIM_NESTING], at[MAX_DIM_NESTING], left; /* slots: the index to go on from, points still to do */
  blk done;
} grid;

static void bind(ny_low *l, const grid *g, int i, val v) {
  int64_t lo, hi;
  ny_low_range(l, g->op[i]->attr[NY_AT(grid, extent)].d, &lo, &hi);
  ny_low_var(l, g->op[i]->attr[NY_AT(grid, var)].s, v, 0, hi == INT64_MAX || hi < 1 ? INT64_MAX : hi - 1, ++l->depth);
}

/* ---- what every point would do alike */
typedef struct alike {
  ny_low *l;
  ny_name var;   /* the grid's */
  const ny_op *end; /* of the part in question, in the kernel's block */
  uint64_t fills; /* buffers it stores to */
} alike;

static bool depends(alike *a, ny_dim d) {
  ny_name *sym = NULL;
  size_t n = 0, cap = 0;
  bool found = false;
  ny_dim_symbols(a->l->cx, d, &sym, &n, &cap, &a->l->arena);
  for (size_t i = 0; i < n; i++) found |= sym[i] == a->var;
  return found;
}

static bool same_for_all(alike *a, const ny_op *op) {
  const ny_kind_info *ki = &ny_kinds[op->kind];
  for (int i = 0; i < ki->n_attr; i++) {
    if (ki->attr[i].kind == NY_DIM && depends(a, op->attr[i].d)) return false;
    for (uint32_t j = 0; ki->attr[i].kind == NY_DIMS && j < op->attr[i].dims.n; j++)
      if (depends(a, op->attr[i].dims.v[j])) return false;
  }
  if (op->kind == NY_store) {
    if (!ny_in(op, 0)->def) return false; /* no scratch buffer */
    a->fills |= a->l->info[ny_in(op, 0)->id].reads;
  }
  for (const ny_op *in = op->n_body ? op->body[0]->first : NULL; in; in = in->next)
    if (!same_for_all(a, in)) return false;
  return true;
}

static bool disturbs(const alike *a, const ny_op *op) {
  if (op->kind == NY_store && (a->l->info[ny_in(op, 0)->id].reads & a->fills)) return true;
  if ((op->kind == NY_set || op->kind == NY_mma) && a->l->order[ny_in(op, 0)->def->id].first < a->l->order[a->end->id].first) return true;
  for (const ny_op *in = op->n_body ? op->body[0]->first : NULL; in; in = in->next)
    if (disturbs(a, in)) return true;
  return false;
}

/* Where the kernel begins by filling scratch with what does not depend on the grid point, a range of points does so once: the op after that part. */
static const ny_op *common_part(ny_low *l, const grid *g) {
  const ny_op *first = l->k->body.first;
  while (first && first->kind == NY_grid) first = first->next;
  if (g->n != 1 || !first) return first;
  alike a = {.l = l, .var = g->op[0]->attr[NY_AT(grid, var)].s};
  const ny_op *end = first;
  for (const ny_op *op = first; op && op->next && same_for_all(&a, op); op = op->next)
    if (op->kind == NY_for || op->kind == NY_store) end = op->next;
  a.end = end;
  for (const ny_op *op = end; op; op = op->next)
    if (disturbs(&a, op)) return first;
  return end;
}

static void innermost(ny_low *l, grid *g, val from, val to) {
  ny_lloop loop;
  const ny_op *rest = common_part(l, g);
  ny_low_ops(l, l->k->body.first, rest);
  ny_loop_begin(l->x, &loop, from, to, ny_ci(l->x->i64, 1), false);
  ny_lmark m = ny_low_enter(l);
  if (g->n) bind(l, g, g->n - 1, loop.iv);
  ny_low_ops(l, rest, NULL);
  ny_low_leave(l, m);
  l->depth = g->n ? g->n - 1 : 0;
  ny_loop_end(l->x, &loop);
}

/* Dimension i from where it stands to its extent, or until no points are left. */
static void dimension(ny_low *l, grid *g, int i) {
  ny_lx *x = l->x;
  typ t = x->i64;
  val from = ny_ld(x, t, g->at[i], 8), left;
  if (i == g->n - 1) {
    left = ny_ld(x, t, g->left, 8);
    val n = ny_bin(x, "llvm.smin", LLVMBuildNSWSub(x->b, g->extent[i], from, ""), left);
    ny_st(x, LLVMBuildNSWSub(x->b, left, n, ""), g->left, 8);
    innermost(l, g, from, LLVMBuildNSWAdd(x->b, from, n, ""));
    ny_st(x, ny_ci(t, 0), g->at[i], 8);
    return;
  }
  blk top = ny_block_new(x, "outer"), next = ny_block_new(x, "carry"), exit = ny_block_new(x, "full"),
      before = LLVMGetInsertBlock(x->b);
  LLVMBuildBr(x->b, top);
  LLVMPositionBuilderAtEnd(x->b, top);
  val iv = LLVMBuildPhi(x->b, t, "");
  LLVMAddIncoming(iv, &from, &before, 1);
  ny_lmark m = ny_low_enter(l);
  bind(l, g, i, iv);
  dimension(l, g, i + 1);
  ny_low_leave(l, m);
  l->depth = i;
  left = ny_ld(x, t, g->left, 8);
  LLVMBuildCondBr(x->b, ny_ic(x, LLVMIntSGT, left, ny_ci(t, 0)), next, g->done);
  LLVMPositionBuilderAtEnd(x->b, next);
  val more = LLVMBuildNSWAdd(x->b, iv, ny_ci(t, 1), "");
  LLVMAddIncoming(iv, &more, &next, 1);
  LLVMBuildCondBr(x->b, ny_ic(x, LLVMIntSLT, more, g->extent[i]), top, exit);
  LLVMPositionBuilderAtEnd(x->b, exit);
  ny_st(x, ny_ci(t, 0), g->at[i], 8);
}

static nyb_status lower_grid(ny_low *l, val begin, val end) {
  ny_lx *x = l->x;
  grid g = {.n = 0};
  for (const ny_op *op = l->k->body.first; op; op = op->next) {
    if (op->kind != NY_grid) continue;
    if (g.n == MAX_DIM_NESTING) return fail(l, op, NYB_E_LIMIT, "more than 16 grid dimensions");
    g.op[g.n++] = op;
  }
  g.done = ny_block_new(x, "end");
  blk some = ny_block_new(x, "some");
  LLVMBuildCondBr(x->b, ny_ic(x, LLVMIntSLT, begin, end), some, g.done);
  LLVMPositionBuilderAtEnd(x->b, some);
  if (g.n < 2) {
    innermost(l, &g, begin, end);
  } else {
    for (int i = 0; i < g.n; i++)
      g.extent[i] = ny_low_dim(l, g.op[i]->attr[NY_AT(grid, extent)].d), g.at[i] = ny_slot(x, x->i64, 1, 8);
    g.left = ny_slot(x, x->i64, 1, 8);
    ny_st(x, LLVMBuildNSWSub(x->b, end, begin, ""), g.left, 8);
    val rest = begin;
    for (int i = g.n - 1; i >= 0; i--) {
      ny_st(x, i ? NY_B(URem, x, rest, g.extent[i]) : rest, g.at[i], 8);
      if (i) rest = NY_B(UDiv, x, rest, g.extent[i]);
    }
    dimension(l, &g, 0);
  }
  LLVMBuildBr(x->b, g.done);
  LLVMPositionBuilderAtEnd(x->b, g.done);
  LLVMBuildRetVoid(x->b);
  return l->failed;
}

static nyb_status lower(ny_low *l, const char *symbol) {
  ny_lx *x = l->x;
  listing all = {0};
  if (ny_kernel_calls(l->k)) return fail(l, l->k->body.first, NYB_E_UNSUPPORTED, "kernels of calls are for GPUs; without pass merge there are none");
  ny_kernel_symbols(l->k, &l->arena, &l->sym, &l->n_sym);
  l->info = NY_NEW_ARRAY(&l->arena, ny_linfo, l->k->next_value + 1);
  l->order = NY_NEW_ARRAY(&l->arena, ny_lspan, l->k->next_op + 1);
  number(l, &l->k->body, &all);
  l->W = lanes_of(l, &all);
  buffers(l, &all);
  typ type;
  int n_ptr;
  val body = open_body(l, symbol, &type, &n_ptr); /* before the values: mutable tiles are slots of it */
  NY_TRY(values(l, &all));
  l->zeros = ny_slot(x, x->i64, 1, 8);
  ny_st(x, ny_ci(x->i64, 0), l->zeros, 8);
  unsigned n = LLVMCountParams(body);
  NY_TRY(lower_grid(l, LLVMGetParam(body, n - 2), LLVMGetParam(body, n - 1)));
  close_entry(x);
  if (l->stack_bytes > MAX_STACK) return fail(l, NULL, NYB_E_LIMIT, "its tiles need more than 512 KiB of stack");
  entry_point(l, symbol, body, type);
  return l->failed;
}

nyb_status ny_lower_kernel(ny_lx *x, const ny_graph *k, const char *symbol, ny_diag *d) {
  ny_low l = {.x = x, .k = k, .cx = k->cx, .diag = d};
  nyb_status s = lower(&l, symbol);
  ny_arena_free(&l.arena);
  return s;
}
