/* cse: one op for equal pure ops and equal requirements. An op inside a body may be replaced by one outside it, never
 * the other way round. */
#include "rewrite.h"

typedef struct entry {
  ny_op *op;
  uint64_t hash;
  struct entry *next;
} entry;
typedef struct scope {
  entry **slot;
  size_t n;
  ny_arena *a;
  bool changed;
} scope;

static bool visible(const ny_block *from, const ny_block *b) {
  for (; from; from = from->parent ? from->parent->parent : NULL)
    if (from == b) return true;
  return false;
}

/* The same demand twice, whatever it is made for: the first to be met stays. */
static bool again(const ny_op *a, const ny_op *b) {
  const ny_attr *x = a->attr, *y = b->attr;
  return a->kind == NY_require && b->kind == NY_require && x[NY_AT(require, a)].d == y[NY_AT(require, a)].d &&
         x[NY_AT(require, b)].d == y[NY_AT(require, b)].d;
}

static ny_op *find(scope *s, ny_op *op, uint64_t hash) {
  for (entry *e = s->slot[hash % s->n]; e; e = e->next)
    if (e->hash == hash && (again(e->op, op) || ny_same_op(e->op, op)) && visible(op->parent, e->op->parent))
      return e->op;
  return NULL;
}

static void merge(scope *s, ny_block *b) {
  for (ny_op *op = b->first, *next; op; op = next) {
    next = op->next;
    for (int i = 0; i < op->n_body; i++)
      if (op->kind != NY_group) merge(s, op->body[i]);
    if (op->kind == NY_dequantize) continue; /* every reader decodes for itself */
    if (op->kind != NY_require && (!ny_is_pure(op) || op->n_body || !op->n_out)) continue;
    uint64_t h = ny_op_hash(op);
    ny_op *same = find(s, op, h);
    if (same) {
      for (int i = 0; i < op->n_out; i++) ny_replace(op->out[i], same->out[i]);
      ny_erase(op);
      s->changed = true;
      continue;
    }
    entry *e = NY_NEW(s->a, entry);
    *e = (entry){op, h, s->slot[h % s->n]};
    s->slot[h % s->n] = e;
  }
}

nyb_status ny_pass_cse(ny_pass_cx *px, ny_graph *g, bool *changed) {
  scope s = {.n = g->next_op + 64u, .a = &px->scratch};
  s.slot = NY_NEW_ARRAY(s.a, entry *, s.n);
  merge(&s, &g->body);
  *changed |= s.changed;
  return NYB_OK;
}
