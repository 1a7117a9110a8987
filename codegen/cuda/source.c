/* One kernel from tile program to text: facts of its values, the header comment, the signature, which grid point a thread works on, and the ops in order. */
#include "mma.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

nyb_status cu_fail(cu *c, const ny_op *op, nyb_status s, const char *fmt, ...) {
  char why[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  if (!c->failed)
    c->failed = ny_fail(c->diag, s, op ? op->loc : NULL, "kernel %s: %s%s%s", c->k->name ? c->k->name : "?", op ? ny_kinds[op->kind].name : "", op ? ": " : "", why);
  return c->failed;
}

void cu_line(cu *c, const char *fmt, ...) {
  char *s;
  va_list ap;
  va_start(ap, fmt);
  int n = vasprintf(&s, fmt, ap);
  va_end(ap);
  if (n < 0) abort();
  for (int i = 0; i < c->indent && s[0] != '#'; i++) ny_text_add(&c->body, "  ");
  ny_text_addn(&c->body, s, (size_t)n);
  ny_text_add(&c->body, "\n");
  free(s);
}

int cu_new_buffer(cu *c, ny_value *v, ny_fmt f, const char *name) {
  NY_PUSH_ROOM(&c->arena, c->buffer, c->n_buffer, c->cap_buffer);
  c->buffer[c->n_buffer] = (cu_buffer){.v = v, .fmt = f, .name = name, .alias = c->n_buffer};
  return c->n_buffer++;
}

/* ---- facts */
static bool stores_to(const ny_block *b, const ny_value *v) {
  for (const ny_op *op = b->first; op; op = op->next) {
    if (op->kind == NY_store && ny_in(op, 0) == v) return true;
    for (int i = 0; i < op->n_body; i++)
      if (stores_to(op->body[i], v)) return true;
  }
  return false;
}

static void arguments(cu *c) {
  const ny_block *b = &c->k->body;
  int64_t in = ny_knob(c->k, "inplace", -1), n;
  int first = -1;
  for (uint32_t i = 0; i < b->n_arg; i++) {
    ny_value *v = b->arg[i];
    int at = cu_new_buffer(c, v, (ny_fmt)v->type->fmt, cu_name(c, "b_", v->name, v->id));
    c->value[v->id].buffer = at;
    c->buffer[at].global = true;
    c->buffer[at].written = ny_kernel_stores(c->k, i);
    if (c->buffer[at].written && first < 0) first = at;
    if (ny_type_static_count(c->cx, v->type, &n) && n >= ((int64_t)1 << 31) - (1 << 24)) c->wide = true;
  }
  if (in < 0 || in >= b->n_arg || first < 0 || in == first) return;
  c->buffer[first].alias = c->buffer[in].alias = first;
  c->buffer[in].written = true; /* by way of the other */
  c->facts->inplace = 1 + (uint32_t)in;
}

static bool mutates(const ny_op *op, const ny_value *v) { return (op->kind == NY_set || op->kind == NY_mma) && ny_in(op, 0) == v; }

static bool quiet(const ny_op *op) { /* no effect but its result */
  return op->n_out && op->kind != NY_local;
}

/* Indices fit 32 bits where buffers and sizes do; arithmetic on them may not. */
static bool narrow_index(const cu *c, const ny_op *op, const ny_value *v) {
  int64_t lo, hi, by;
  if (op->kind != NY_index) return false;
  cu_range(c, op->attr[NY_AT(index, off)].d, &lo, &hi);
  if ((lo != INT64_MIN && lo < INT32_MIN / 2) || (hi != INT64_MAX && hi > INT32_MAX / 2)) return false;
  for (int d = 0; d < 2; d++)
    if (cu_const(c, op->attr[NY_AT(index, stride)].dims.v[d], &by) && (by > INT32_MAX / NY_CU_MAX_TILE || by < INT32_MIN / NY_CU_MAX_TILE)) return false;
  for (const ny_use *u = v->uses; u; u = u->next) {
    const ny_op *user = u->user;
    bool compares = (ny_kinds[user->kind].flags & NY_MAP) && ny_kinds[user->kind].ew == NY_EW_CMP, indexes = user->kind == NY_load || (user->kind == NY_store && ny_in(user, 1) != v);
    if (!compares && !indexes && user->kind != NY_cast) return false;
  }
  return true;
}

static nyb_status tile_facts(cu *c, const ny_op *op, ny_value *v) {
  cu_value *f = &c->value[v->id];
  const ny_type *t = v->type;
  *f = (cu_value){.v = v, .fmt = (ny_fmt)t->fmt, .name = cu_name(c, v->name ? "t_" : "v", v->name, v->id), .lay = c->layout, .group = -1, .buffer = -1};
  if (t->rank != 2 || !cu_const(c, t->dim[0], &f->dim[0]) || !cu_const(c, t->dim[1], &f->dim[1]) || f->dim[0] < 1 || f->dim[1] < 1 || f->dim[0] > NY_CU_MAX_TILE ||
      f->dim[1] > NY_CU_MAX_TILE || f->dim[0] * f->dim[1] > NY_CU_MAX_TILE)
    return cu_fail(c, op, NYB_E_LIMIT, "a tile must be [rows, cols] of constant size and at most %d elements", NY_CU_MAX_TILE);
  if (ny_fmts[f->fmt].kind == 'S') return cu_fail(c, op, NYB_E_UNSUPPORTED, "no tiles of strings");
  f->dead = quiet(op) && !v->uses;
  f->reduced = op->kind == NY_reduce;
  f->narrow = narrow_index(c, op, v);
  for (const ny_use *u = v->uses; u; u = u->next) f->mutated |= mutates(u->user, v);
  f->literal = op->kind == NY_tile && !f->mutated;
  return NYB_OK;
}

static nyb_status values(cu *c, const ny_block *b) {
  for (const ny_op *op = b->first; op; op = op->next) {
    for (int i = 0; i < op->n_out; i++) {
      ny_value *v = op->out[i];
      int64_t n = 0;
      if (op->kind != NY_local) {
        NY_TRY(tile_facts(c, op, v));
        continue;
      }
      if (!ny_type_static_count(c->cx, v->type, &n)) return cu_fail(c, op, NYB_E_VERIFY, "a buffer without constant size");
      int at = cu_new_buffer(c, v, (ny_fmt)v->type->fmt, cu_name(c, "b_", v->name, v->id));
      c->value[v->id].buffer = at;
      c->buffer[at].shared = c->threads > 1;
      c->buffer[at].written = stores_to(&c->k->body, v);
      c->buffer[at].offset = c->shared;
      if (c->threads > 1) c->shared += (uint32_t)((ny_fmt_bytes((ny_fmt)v->type->fmt, (uint64_t)n) + 127) & ~(uint64_t)127);
    }
    for (int i = 0; i < op->n_body; i++) NY_TRY(values(c, op->body[i]));
  }
  return NYB_OK;
}

/* Ops whose results nobody uses go, and then those that only they used. */
static bool used(const cu *c, const ny_value *v) {
  for (const ny_use *u = v->uses; u; u = u->next)
    if (!u->user->n_out || !c->value[u->user->out[0]->id].dead) return true;
  return false;
}

static void last_to_first(cu *c, const ny_block *b) {
  for (const ny_op *op = b->last; op; op = op->prev) {
    for (int i = op->n_body; i-- > 0;) last_to_first(c, op->body[i]);
    for (int i = 0; i < op->n_out && op->kind != NY_local; i++) {
      cu_value *f = &c->value[op->out[i]->id];
      if (quiet(op) && !f->dead) f->dead = !used(c, op->out[i]);
      f->held[0] = cu_held(&f->lay->d[0], f->dim[0]);
      f->held[1] = cu_held(&f->lay->d[1], f->dim[1]);
    }
  }
}

/* ---- blocks */
void cu_block(cu *c, const ny_block *b) {
  for (const ny_op *op = b->first; op && !c->failed; op = op->next) {
    switch (op->kind) {
    case NY_grid:
    case NY_ret:
    case NY_yield:
    case NY_prefetch: /* enough threads run for their loads to overlap */
    case NY_local: break;
    case NY_barrier:
      cu_flush(c);
      cu_barrier(c);
      break;
    case NY_mma: cu_mma(c, op); break;
    case NY_for:
      cu_flush(c);
      if (!cu_pipeline(c, op)) cu_loop(c, op);
      break;
    default: cu_add(c, op);
    }
  }
  cu_flush(c);
}

/* ---- the grid */
static void grid(cu *c) {
  const ny_op *op[16];
  int n = 0;
  for (const ny_op *o = c->k->body.first; o; o = o->next) {
    if (o->kind != NY_grid) continue;
    if (n == (int)NY_COUNT(op)) {
      cu_fail(c, o, NYB_E_LIMIT, "more than 16 grid dimensions");
      return;
    }
    op[n++] = o;
  }
  const char *rest = "point";
  for (int i = n; i-- > 0;) {
    ny_dim extent = op[i]->attr[NY_AT(grid, extent)].d;
    const char *v = cu_var(c, op[i]->attr[NY_AT(grid, var)].s), *e = cu_dim_text(c, extent);
    cu_line(c, "const ix %s = %s;", v, i ? CU_F(c, "NY_MOD(%s, %s)", rest, e) : rest);
    if (i) rest = CU_F(c, "NY_DIV(%s, %s)", rest, cu_paren(c, e));
    if (i && n > 2) {
      cu_line(c, "const ix rest%d = %s;", i, rest);
      rest = CU_F(c, "rest%d", i);
    }
  }
  for (int i = 0; i < n; i++) {
    int64_t lo, hi;
    cu_range(c, op[i]->attr[NY_AT(grid, extent)].d, &lo, &hi);
    cu_push(c, op[i]->attr[NY_AT(grid, var)].s, 0, hi == INT64_MAX || hi < 1 ? INT64_MAX : hi - 1, 1);
  }
  c->n_grid = c->n_limit;
}

/* ---- the whole text */
static void symbol_of(const ny_graph *k, char out[NY_CUDA_SYMBOL]) {
  const char *name = k->name && *k->name ? k->name : "kernel";
  /* built-in functions have names of one word, and reserved ones begin with an underscore */
  bool plain = isalpha((unsigned char)*name) && strchr(name, '_') && strncmp(name, "ny_", 3);
  snprintf(out, NY_CUDA_SYMBOL, "%s%s", plain ? "" : "k_", name);
  for (char *s = out; *s; s++)
    if (!isalnum((unsigned char)*s)) *s = '_';
}

static void schedule(const cu *c, ny_text *t) {
  const ny_graph *k = c->k;
  const ny_cuda_layout *l = &c->facts->layout;
  if (k->n_knob) ny_text_add(t, "// schedule:");
  for (uint32_t i = 0; i < k->n_knob; i++) ny_text_addf(t, " %s=%lld", k->knob[i].name, (long long)k->knob[i].value);
  if (ny_kernel_calls(k)) return;
  ny_text_addf(t, "%s// a grid point is run by %d thread%s", k->n_knob ? "\n" : "", l->threads, l->threads > 1 ? "s" : "");
  if (l->mma)
    ny_text_addf(t, " as %d x %d warps of tensor-core fragments", l->wm, l->wn);
  else if (l->threads > 1)
    ny_text_addf(t, ": %d rows of %d, which hold %d x %d adjacent elements", l->tr, l->tc, l->u, l->v);
}

void cu_header(cu *c, ny_text *t) {
  const ny_graph *k = c->k;
  const ny_cuda_facts *f = c->facts;
  ny_text_addf(t, "// %s: family %s, for %s\n", k->name ? k->name : "?", k->family ? k->family : "none", c->target->name);
  schedule(c, t);
  if (c->part_of) {
    ny_text_add(t, "\n");
    return;
  }
  ny_text_add(t, "\n// grid points: ");
  ny_dim_print(k->cx, ny_kernel_extent(k), t);
  ny_text_addf(t, "; grid: points / %d; block: %d; dynamic shared bytes: %u; indices: %d bits\n", f->points, f->block, f->shared, f->index);
  for (uint32_t i = 0; i < k->body.n_arg; i++) {
    const ny_value *v = k->body.arg[i];
    ny_text_addf(t, "//   %s: ", c->buffer[c->value[v->id].buffer].name);
    ny_type_print(k->cx, v->type, t);
    ny_text_add(t, "\n");
  }
}

/* How the threads of a grid point wait for one another. */
const char *cu_sync_text(cu *c) {
  if (c->threads == 32) return "__syncwarp()";
  if (!c->part_of || c->threads == c->part_of) return "__syncthreads()";
  c->uses |= CU_P_PART;
  return "ny_sync_part(1 + (int)threadIdx.x / THREADS, THREADS)";
}

static void buffers(cu *c, ny_text *t) {
  for (uint32_t i = 0; i < c->k->body.n_arg; i++) {
    const cu_buffer *b = &c->buffer[c->value[c->k->body.arg[i]->id].buffer];
    bool alone = b->alias == (int)i && !(c->facts->inplace && c->buffer[c->facts->inplace - 1].alias == (int)i);
    bool stores = ny_kernel_stores(c->k, i);
    /* where kernels are called, one may read what another has written: only what none writes is read-only */
    if (c->part_of || (stores && ny_kernel_calls(c->k))) alone = false;
    ny_text_addf(t, "%s%s *%s%s, ", stores ? "" : "const ", cu_mem(b->fmt), alone ? "__restrict__ " : "", b->name);
  }
  for (size_t i = 0; i < c->n_sym; i++) ny_text_addf(t, "i64 a_%s, ", cu_var(c, c->sym[i]));
}

void cu_signature(cu *c, ny_text *t) {
  ny_text_addf(t, "#define ix %s\n#define ux %s\n#define THREADS %d\n#define BLOCK %d\n#define POINTS (BLOCK / THREADS)\n", c->wide ? "i64" : "i32", c->wide ? "u64" : "u32", c->threads,
               c->facts->block);
  if (c->threads > 1) ny_text_addf(t, "#define NY_SYNC %s\n", cu_sync_text(c));
  if (c->part_of)
    ny_text_addf(t, "NY_DEV void %s(", c->facts->symbol);
  else
    ny_text_addf(t, "extern \"C\" __global__ void __launch_bounds__(BLOCK) %s(", c->facts->symbol);
  buffers(c, t);
  ny_text_add(t, c->part_of ? "const ix point, u8 *const smem) {\n" : "i64 n) {\n");
}

static void local_lines(cu *c, ny_text *t) {
  if (c->shared && !c->part_of) {
    ny_text_add(t, "  extern __shared__ __align__(1024) u8 ny_smem[];\n");
    ny_text_addf(t, "  u8 *const smem = ny_smem%s;\n", c->threads > 32 || c->facts->points == 1 ? "" : CU_F(c, " + (int)threadIdx.x / THREADS * %u", c->shared));
  }
  for (int i = 0; i < c->n_buffer; i++) {
    const cu_buffer *b = &c->buffer[i];
    int64_t count = 0;
    if (b->global || (i == c->scratch && !c->scratch_bytes)) continue;
    if (b->shared) {
      const char *type = b->v ? cu_mem(b->fmt) : cu_reg(b->fmt); /* what is staged is what registers hold */
      ny_text_addf(t, "  %s *const %s = (%s *)(smem + %u);\n", type, b->name, type, b->offset);
      continue;
    }
    ny_type_static_count(c->cx, b->v->type, &count);
    uint64_t n = ny_fmts[b->fmt].bits < 8 ? ny_fmt_bytes(b->fmt, (uint64_t)count) : (uint64_t)count;
    ny_text_addf(t, "  __align__(16) %s %s[%llu];\n", cu_mem(b->fmt), b->name, (unsigned long long)(n ? n : 1));
  }
}

static void place_of_thread(cu *c) {
  if (c->part_of) {
    if (c->threads > 1) cu_line(c, "const int tid = (int)threadIdx.x%s;", c->threads < c->part_of ? " % THREADS" : "");
    return;
  }
  const char *where = c->threads == 1 ? "(ix)blockIdx.x * POINTS + (ix)threadIdx.x" : c->threads == 32 ? "(ix)blockIdx.x * POINTS + (ix)threadIdx.x / THREADS" : "(ix)blockIdx.x";
  cu_line(c, "const ix point = %s;", where);
  if (c->threads <= 32) cu_line(c, "if (point >= n) return;");
  if (c->threads > 1) cu_line(c, "const int tid = (int)threadIdx.x%s;", c->threads == 32 ? " % THREADS" : "");
}

static void opening(cu *c) {
  place_of_thread(c);
  for (size_t i = 0; i < c->n_sym; i++) cu_line(c, "const ix %s = (ix)a_%s;", cu_var(c, c->sym[i]), cu_var(c, c->sym[i]));
  grid(c);
}

static void code(cu *c) {
  c->indent = 1;
  opening(c);
  size_t head = c->body.n; /* layouts of staged operands are known only afterwards */
  cu_block(c, &c->k->body);
  ny_text text = c->body;
  c->body = (ny_text){0};
  ny_text_addn(&c->body, text.s, head);
  if (c->scratch_bytes) c->buffer[c->scratch].offset = c->shared, c->shared += (c->scratch_bytes + 127) & ~127u;
  if (c->threads > 1) cu_layout_lines(c, c->layout, "tid");
  for (int i = 0; i < c->n_others; i++) cu_layout_lines(c, c->others[i], "tid");
  ny_text_addn(&c->body, text.s + head, text.n - head);
  ny_text_free(&text);
}

static void emit(cu *c, ny_text *out) {
  code(c);
  c->facts->shared = c->shared * (uint32_t)(c->threads > 32 || c->part_of ? 1 : c->threads == 32 ? c->facts->points : 0);
  if (c->facts->shared > c->target->shared && c->target->shared)
    cu_fail(c, NULL, NYB_E_LIMIT, "a block needs %u bytes of shared memory, %s has %llu", c->facts->shared, c->target->name, (unsigned long long)c->target->shared);
  cu_header(c, out);
  bool space = c->functions.n || c->part_of;
  if (space) ny_text_addf(out, "namespace of_%s {\n", c->facts->symbol);
  if (c->functions.n) ny_text_addn(out, c->functions.s, c->functions.n);
  cu_signature(c, out);
  local_lines(c, out);
  ny_text_addn(out, c->body.s, c->body.n);
  if (space) ny_text_add(out, "}\n");
  cu_close(out);
}

void cu_close(ny_text *out) { ny_text_add(out, "}\n#undef ix\n#undef ux\n#undef THREADS\n#undef BLOCK\n#undef POINTS\n#undef NY_SYNC\n"); }

static void prepare(cu *c) {
  const ny_graph *k = c->k;
  c->value = NY_NEW_ARRAY(&c->arena, cu_value, k->next_value + 1);
  c->head = NY_NEW_ARRAY(&c->arena, struct cu_head, k->next_op + 1);
  c->plan = NY_NEW_ARRAY(&c->arena, cu_mma_plan *, k->next_op + 1);
  for (uint32_t i = 0; i <= k->next_value; i++) c->value[i].buffer = -1;
  ny_kernel_symbols(k, &c->arena, &c->sym, &c->n_sym);
  c->facts->n_symbol = (int)c->n_sym;
  symbol_of(k, c->facts->symbol);
  cu_choose_layout(c);
  arguments(c);
  if (c->failed || values(c, &k->body)) return;
  last_to_first(c, &k->body);
  cu_mma_prepare(c, &k->body);
  if (c->threads > 1) {
    c->scratch = cu_new_buffer(c, NULL, NY_u8, "ny_scratch");
    c->buffer[c->scratch].shared = c->buffer[c->scratch].written = true;
  }
  int64_t block = ny_knob(k, "tpb", 256);
  c->facts->index = c->wide ? 64 : 32;
  if (ny_kernel_calls(k)) {
    c->facts->block = block < 32 || block > 1024 || (block & (block - 1)) ? 256 : (int)block;
    c->facts->points = 1;
    return;
  }
  if (block < c->threads || block < 32 || block > 1024 || block % 32) block = c->threads > 256 ? c->threads : 256;
  c->facts->block = c->threads > 32 ? c->threads : (int)block;
  c->facts->points = c->facts->block / c->threads;
}

static nyb_status finish(cu *c) {
  if (!c->failed && c->cx->diag.code) cu_fail(c, NULL, c->cx->diag.code, "%s", c->cx->diag.message);
  ny_text_free(&c->body);
  ny_text_free(&c->functions);
  ny_arena_free(&c->arena);
  return c->failed;
}

nyb_status ny_cuda_body(const ny_graph *kernel, const ny_target *target, ny_text *out, uint32_t *uses, ny_cuda_facts *facts, ny_diag *d) {
  *facts = (ny_cuda_facts){.block = 256, .points = 256};
  cu c = {.k = kernel, .cx = kernel->cx, .target = target, .diag = d, .facts = facts, .threads = 1, .scratch = -1};
  prepare(&c);
  if (!c.failed) ny_kernel_calls(kernel) ? cu_calls(&c, out) : emit(&c, out);
  *uses |= c.uses;
  return finish(&c);
}

nyb_status cu_part(const cu *caller, const ny_graph *kernel, const char *symbol, ny_text *out, uint32_t *uses, ny_cuda_facts *facts) {
  *facts = (ny_cuda_facts){.block = caller->facts->block};
  cu c = {.k = kernel, .cx = kernel->cx, .target = caller->target, .diag = caller->diag, .facts = facts, .threads = 1, .scratch = -1, .part_of = caller->facts->block};
  prepare(&c);
  snprintf(facts->symbol, sizeof facts->symbol, "%s", symbol);
  facts->block = c.part_of;
  if (!c.failed && (c.wide || c.threads > c.part_of))
    cu_fail(&c, NULL, NYB_E_UNSUPPORTED, "%s: it cannot be called by a block of %d threads with 32-bit indices", c.wide ? "it has buffers of 2^31 elements" : "too many threads", c.part_of);
  if (!c.failed) emit(&c, out);
  *uses |= c.uses;
  return finish(&c);
}

nyb_status ny_cuda_source(const ny_graph *kernel, const ny_target *target, ny_text *out, ny_cuda_facts *facts, ny_diag *d) {
  ny_text body = {0};
  uint32_t uses = 0;
  nyb_status s = ny_cuda_body(kernel, target, &body, &uses, facts, d);
  if (!s) {
    ny_cuda_prelude(uses, out);
    ny_text_addn(out, body.s, body.n);
  }
  ny_text_free(&body);
  return s;
}
