/* Facts of a kernel that code generation, the module writer and the runtime must agree on: which symbols it reads and
   in what order, how many grid points it has, how much scratch its `local` buffers take. */
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

static void scan_block(scan *s, const ny_block *b) {
  size_t outer = s->n_bound;
  for (const ny_op *op = b->first; op; op = op->next) {
    note_attrs(s, op);
    size_t before = s->n_bound;
    if (op->kind == NY_grid) bind(s, op->attr[NY_AT(grid, var)].s), before++;
    if (op->kind == NY_for) bind(s, op->attr[NY_AT(for, var)].s);
    for (int i = 0; i < op->n_body; i++) scan_block(s, op->body[i]);
    s->n_bound = before;
  }
  s->n_bound = outer;
}

/* Buffer types come first: what a caller passes fixes their symbols. */
void ny_kernel_symbols(const ny_graph *k, ny_arena *a, ny_name **out, size_t *n) {
  scan s = {.k = k, .a = a};
  for (uint32_t i = 0; i < k->body.n_arg; i++)
    for (int d = 0; d < k->body.arg[i]->type->rank; d++) note(&s, k->body.arg[i]->type->dim[d]);
  scan_block(&s, &k->body);
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
