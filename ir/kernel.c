/* Facts of a kernel that code generation, the module writer and the runtime must agree on: which symbols it reads and
   in what order, how many grid points it has, how much scratch its `local` buffers take, which kernels need code. */
#include "ir.h"

typedef struct scan {
  const ny_graph *k;
  ny_arena *a;
  ny_name *sym, *bound;
  size_t n_sym, cap_sym, n_bound, cap_bound;
} scan;

/* A symbol is the kernel's unless a loop around its use binds it. */
static void note(scan *s, ny_dim d) {
  ny_name *used = NULL;
  size_t n = 0, cap = 0;
  ny_dim_symbols(s->k->cx, d, &used, &n, &cap, s->a);
  for (size_t i = 0; i < n; i++) {
    bool known = false;
    for (size_t j = 0; j < s->n_bound; j++) known |= s->bound[j] == used[i];
    for (size_t j = 0; j < s->n_sym; j++) known |= s->sym[j] == used[i];
    if (known) continue;
    NY_PUSH_ROOM(s->a, s->sym, s->n_sym, s->cap_sym);
    s->sym[s->n_sym++] = used[i];
  }
}

static void note_attrs(scan *s, const ny_op *op) {
  const ny_kind_info *ki = &ny_kinds[op->kind];
  for (int i = 0; i < ki->n_attr; i++) {
    if (ki->attr[i].kind == NY_DIM) note(s, op->attr[i].d);
    if (ki->attr[i].kind == NY_DIMS)
      for (uint32_t j = 0; j < op->attr[i].dims.n; j++) note(s, op->attr[i].dims.v[j]);
  }
}

static void bind(scan *s, ny_name var) {
  NY_PUSH_ROOM(s->a, s->bound, s->n_bound, s->cap_bound);
  s->bound[s->n_bound++] = var;
}

static void scan_kernel(scan *s, const ny_graph *k);
static void scan_block(scan *s, const ny_block *b) {
  size_t outer = s->n_bound;
  for (const ny_op *op = b->first; op; op = op->next) {
    note_attrs(s, op);
    const ny_graph *callee = op->kind == NY_call ? ny_callee(s->k, op) : NULL;
    if (callee && !ny_kernel_calls(callee)) scan_kernel(s, callee);
    size_t before = s->n_bound;
    if (op->kind == NY_grid) bind(s, op->attr[NY_AT(grid, var)].s), before++;
    if (op->kind == NY_for) bind(s, op->attr[NY_AT(for, var)].s);
    for (int i = 0; i < op->n_body; i++) scan_block(s, op->body[i]);
    s->n_bound = before;
  }
  s->n_bound = outer;
}

/* Buffer types come first: what a caller passes fixes their symbols. */
static void scan_kernel(scan *s, const ny_graph *k) {
  for (uint32_t i = 0; i < k->body.n_arg; i++)
    for (int d = 0; d < k->body.arg[i]->type->rank; d++) note(s, k->body.arg[i]->type->dim[d]);
  scan_block(s, &k->body);
}

void ny_kernel_symbols(const ny_graph *k, ny_arena *a, ny_name **out, size_t *n) {
  scan s = {.k = k, .a = a};
  scan_kernel(&s, k);
  *out = s.sym;
  *n = s.n_sym;
}

ny_dim ny_kernel_extent(const ny_graph *k) {
  ny_dim e = 1;
  for (const ny_op *op = k->body.first; op; op = op->next)
    if (op->kind == NY_grid) e = ny_dim_mul(k->cx, e, op->attr[NY_AT(grid, extent)].d);
  return e;
}

static uint64_t local_bytes(const ny_graph *k, const ny_block *b) {
  uint64_t sum = 0;
  for (const ny_op *op = b->first; op; op = op->next) {
    int64_t n = 0;
    if (op->kind == NY_local && ny_type_static_count(k->cx, op->out[0]->type, &n))
      sum += (ny_fmt_bytes((ny_fmt)op->out[0]->type->fmt, (uint64_t)n) + 63) & ~(uint64_t)63;
    for (int i = 0; i < op->n_body; i++) sum += local_bytes(k, op->body[i]);
  }
  return sum;
}

uint64_t ny_kernel_local_bytes(const ny_graph *k) { return local_bytes(k, &k->body); }

/* ---- kernels of calls */
bool ny_kernel_calls(const ny_graph *k) { return k->body.first && k->body.first->kind == NY_call; }

ny_graph *ny_callee(const ny_graph *k, const ny_op *call) {
  ny_name name = call->attr[NY_AT(call, kernel)].s;
  ny_graph *c = name ? ny_unit_find(k->unit, name) : NULL;
  return c && c->kernel ? c : NULL;
}

static bool block_stores(const ny_graph *k, const ny_block *b, const ny_value *v) {
  for (const ny_op *op = b->first; op; op = op->next) {
    if (op->kind == NY_store && ny_in(op, 0) == v) return true;
    const ny_graph *c = op->kind == NY_call ? ny_callee(k, op) : NULL;
    for (uint32_t i = 0; c && !ny_kernel_calls(c) && i < op->n_in && i < c->body.n_arg; i++)
      if (ny_in(op, (int)i) == v && ny_kernel_stores(c, i)) return true;
    for (int i = 0; i < op->n_body; i++)
      if (block_stores(k, op->body[i], v)) return true;
  }
  return false;
}

bool ny_kernel_stores(const ny_graph *k, uint32_t arg) { return block_stores(k, &k->body, k->body.arg[arg]); }

typedef struct needs { /* by kernel name */
  const ny_unit *u;
  ny_arena *a;
  ny_name *launched, *called;
  size_t n_launched, cap_launched, n_called, cap_called;
} needs;

static bool among(const ny_name *list, size_t n, ny_name name) {
  for (size_t i = 0; i < n; i++)
    if (list[i] == name) return true;
  return false;
}

static void launch_needs(needs *s, ny_name name) {
  if (among(s->launched, s->n_launched, name)) return;
  NY_PUSH_ROOM(s->a, s->launched, s->n_launched, s->cap_launched);
  s->launched[s->n_launched++] = name;
}

static nyb_status op_needs(void *user, ny_op *op) {
  needs *s = user;
  if (op->kind == NY_call) {
    NY_PUSH_ROOM(s->a, s->called, s->n_called, s->cap_called);
    s->called[s->n_called++] = op->attr[NY_AT(call, kernel)].s;
  }
  if (op->kind != NY_launch) return NYB_OK;
  const ny_graph *k = ny_unit_find((ny_unit *)(uintptr_t)s->u, op->attr[NY_AT(launch, kernel)].s);
  launch_needs(s, op->attr[NY_AT(launch, kernel)].s);
  if (!k || op->attr[NY_AT(launch, fits)].d == 1) return NYB_OK;
  for (const ny_op *c = k->body.first; c; c = c->next)
    if (c->kind == NY_call) launch_needs(s, c->attr[NY_AT(call, kernel)].s);
  return NYB_OK;
}

void ny_unit_kernels(const ny_unit *u, ny_arena *a, ny_graph ***out, size_t *n) {
  needs s = {.u = u, .a = a};
  size_t all = 0;
  for (ny_graph *g = u->first; g; g = g->next, all++) ny_walk(&g->body, op_needs, &s);
  *out = NY_NEW_ARRAY(a, ny_graph *, all + 1);
  *n = 0;
  for (ny_graph *g = u->first; g; g = g->next) {
    bool only_called = among(s.called, s.n_called, g->name) && !among(s.launched, s.n_launched, g->name);
    if (g->kernel && !only_called) (*out)[(*n)++] = g;
  }
}
