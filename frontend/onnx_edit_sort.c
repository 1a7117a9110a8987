/* Nodes in topological order. A walk from each node to what it needs, by a stack of its own, because a chain may be as
   long as the graph. */
#include "onnx_edit.h"

#include <string.h>

typedef struct needs { /* names that a node reads, its bodies' included */
  ny_name *name;
  uint32_t n, cap;
} needs;
typedef struct sorter {
  ny_edit *e;
  ny_name_map from; /* value -> node that gives it */
  ny_edit_node **node;
  needs *need;
  uint8_t *state; /* 0: not seen, 1: on the stack, 2: placed */
  uint32_t n, n_out;
  ny_edit_node **out;
} sorter;

static void add(sorter *s, needs *d, ny_name v) {
  if (!*v) return;
  NY_PUSH_ROOM(&s->e->a, d->name, d->n, d->cap);
  d->name[d->n++] = v;
}

static void collect(sorter *s, needs *d, const ny_edit_node *n) {
  for (uint32_t i = 0; i < n->n_in; i++) add(s, d, n->in[i]);
  for (uint32_t i = 0; i < n->n_attr; i++)
    for (uint32_t k = 0; k < n->attr[i].n_graph; k++) {
      const ny_edit_graph *g = n->attr[i].graph[k];
      for (const ny_edit_node *m = g->first; m; m = m->next) collect(s, d, m);
      for (uint32_t j = 0; j < g->n_out; j++) add(s, d, g->out[j].name);
    }
}

/* The next node that `at` still needs, or NULL. A body's own names have no node outside. */
static uint32_t *next_need(sorter *s, uint32_t at) {
  needs *d = &s->need[at];
  while (d->n) {
    uint32_t *i = ny_name_find(&s->from, d->name[--d->n]);
    if (i && *i != at && s->state[*i] != 2) return i;
  }
  return NULL;
}

static nyb_status place(sorter *s, uint32_t root, uint32_t *stack) {
  uint32_t depth = 0;
  if (s->state[root]) return NYB_OK;
  stack[depth++] = root;
  s->state[root] = 1;
  while (depth) {
    uint32_t at = stack[depth - 1], *i = next_need(s, at);
    if (!i) {
      s->state[at] = 2;
      s->out[s->n_out++] = s->node[at];
      depth--;
    } else if (s->state[*i]) {
      return ny_fail(&s->e->cx->diag, NYB_E_PARSE, NULL, "node \"%s\" needs its own result", s->node[*i]->name);
    } else {
      s->state[*i] = 1;
      stack[depth++] = *i;
    }
  }
  return NYB_OK;
}

nyb_status ny_edit_sort(ny_edit *e) {
  ny_edit_graph *g = e->graph;
  sorter s = {.e = e};
  for (ny_edit_node *n = g->first; n; n = n->next) s.n++;
  s.node = NY_NEW_ARRAY(&e->a, ny_edit_node *, s.n + 1);
  s.out = NY_NEW_ARRAY(&e->a, ny_edit_node *, s.n + 1);
  s.need = NY_NEW_ARRAY(&e->a, needs, s.n + 1);
  s.state = NY_NEW_ARRAY(&e->a, uint8_t, s.n + 1);
  uint32_t i = 0, *stack = NY_NEW_ARRAY(&e->a, uint32_t, s.n + 1);
  for (ny_edit_node *n = g->first; n; n = n->next, i++) {
    s.node[i] = n;
    for (uint32_t k = 0; k < n->n_out; k++)
      if (*n->out[k]) ny_name_put(&s.from, &e->a, n->out[k], i);
    collect(&s, &s.need[i], n);
  }
  for (i = 0; i < s.n; i++) NY_TRY(place(&s, i, stack));
  g->first = g->last = NULL;
  for (i = 0; i < s.n; i++) {
    ny_edit_node *n = s.out[i];
    n->prev = g->last, n->next = NULL;
    *(g->last ? &g->last->next : &g->first) = n;
    g->last = n;
  }
  return NYB_OK;
}
