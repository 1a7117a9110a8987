/* Which nodes of a graph to import, and in which order. Nodes whose results nothing needs are left out; the others keep
   the file's order where that is already topological, else each comes after what it needs, what the bodies inside it
   capture included. */
#include "onnx_model.h"
#include <string.h>

static uint32_t slot_of(const ny_name_map *m, ny_name key) {
  uint64_t h = (uint64_t)(uintptr_t)key * 0x9e3779b97f4a7c15u;
  uint32_t i = (uint32_t)(h >> 32) & (m->cap - 1);
  while (m->key[i] && m->key[i] != key) i = (i + 1) & (m->cap - 1);
  return i;
}

uint32_t *ny_name_find(const ny_name_map *m, ny_name key) {
  if (!m->cap) return NULL;
  uint32_t i = slot_of(m, key);
  return m->key[i] ? &m->val[i] : NULL;
}

uint32_t *ny_name_put(ny_name_map *m, ny_arena *a, ny_name key, uint32_t val) {
  if (m->n * 4 >= m->cap * 3) {
    ny_name_map bigger = {.cap = m->cap ? m->cap * 2 : 16};
    bigger.key = NY_NEW_ARRAY(a, ny_name, bigger.cap);
    bigger.val = NY_NEW_ARRAY(a, uint32_t, bigger.cap);
    for (uint32_t i = 0; i < m->cap; i++)
      if (m->key[i]) *ny_name_put(&bigger, a, m->key[i], 0) = m->val[i];
    *m = bigger;
  }
  uint32_t i = slot_of(m, key);
  if (!m->key[i]) {
    m->key[i] = key;
    m->val[i] = val;
    m->n++;
  }
  return &m->val[i];
}

/* Names a node depends on, one after the other: its inputs, then what its bodies capture. NULL at the end. */
typedef struct walker {
  const ny_onnx_node *node;
  uint32_t i, attr, k;
} walker;
static ny_name next_need(walker *w) {
  while (w->i < w->node->n_in) {
    ny_name s = w->node->in[w->i++];
    if (s) return s;
  }
  for (; w->attr < w->node->n_attr; w->attr++, w->k = 0) {
    const ny_onnx_graph *g = w->node->attr[w->attr].g;
    if (g && w->k < g->n_free) return g->free[w->k++];
  }
  return NULL;
}

static void add_free(ny_arena *a, ny_onnx_graph *g, ny_name_map *known, uint32_t *cap, ny_name s) {
  if (!s || ny_name_find(known, s)) return;
  ny_name_put(known, a, s, 0);
  NY_PUSH_ROOM(a, g->free, g->n_free, *cap);
  g->free[g->n_free++] = s;
}

/* Depth is bounded by the reader. */
static void find_free(ny_arena *a, ny_onnx_graph *g) {
  if (g->free_known) return;
  g->free_known = true;
  ny_name_map known = {0};
  uint32_t cap = 0;
  for (uint32_t i = 0; i < g->n_in; i++) ny_name_put(&known, a, g->in[i].name, 0);
  for (uint32_t i = 0; i < g->n_init; i++) ny_name_put(&known, a, g->init[i].name, 0);
  for (uint32_t i = 0; i < g->n_node; i++)
    for (uint32_t j = 0; j < g->node[i].n_out; j++)
      if (g->node[i].out[j]) ny_name_put(&known, a, g->node[i].out[j], 0);
  for (uint32_t i = 0; i < g->n_node; i++) {
    for (uint32_t j = 0; j < g->node[i].n_attr; j++)
      if (g->node[i].attr[j].g) find_free(a, g->node[i].attr[j].g);
    walker w = {.node = &g->node[i]};
    for (ny_name s = next_need(&w); s; s = next_need(&w)) add_free(a, g, &known, &cap, s);
  }
  for (uint32_t i = 0; i < g->n_out; i++) add_free(a, g, &known, &cap, g->out[i].name);
}

static ny_loc loc_of(const ny_onnx_node *nd) {
  return (ny_loc){.node = nd->name, .op_type = nd->op_type, .index = nd->index, .offset = nd->offset};
}

static nyb_status find_makers(ny_ctx *cx, ny_arena *a, const ny_onnx_graph *g, ny_name_map *maker) {
  for (uint32_t i = 0; i < g->n_node; i++)
    for (uint32_t j = 0; j < g->node[i].n_out; j++) {
      ny_name s = g->node[i].out[j];
      if (!s) continue;
      if (ny_name_find(maker, s)) {
        ny_loc loc = loc_of(&g->node[i]);
        return ny_fail(&cx->diag, NYB_E_PARSE, &loc, "tensor \"%s\" is produced a second time", s);
      }
      ny_name_put(maker, a, s, i);
    }
  return NYB_OK;
}

static void mark_live(const ny_onnx_graph *g, const ny_name_map *maker, uint8_t *live, uint32_t *stack) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->n_out; i++) {
    const uint32_t *m = ny_name_find(maker, g->out[i].name);
    if (m && !live[*m]) live[*m] = 1, stack[n++] = *m;
  }
  while (n) {
    walker w = {.node = &g->node[stack[--n]]};
    for (ny_name s = next_need(&w); s; s = next_need(&w)) {
      const uint32_t *m = ny_name_find(maker, s);
      if (m && !live[*m]) live[*m] = 1, stack[n++] = *m;
    }
  }
}

/* Depth-first over live nodes in file order; live[i]: 1 waiting, 2 on the path, 3 done. */
static nyb_status sort_live(ny_ctx *cx, ny_arena *a, ny_onnx_graph *g, const ny_name_map *maker, uint8_t *live) {
  walker *path = NY_NEW_ARRAY(a, walker, g->n_node);
  for (uint32_t root = 0; root < g->n_node; root++) {
    if (live[root] != 1) continue;
    uint32_t n = 0;
    path[n++] = (walker){.node = &g->node[root]};
    live[root] = 2;
    while (n) {
      walker *top = &path[n - 1];
      ny_name s = next_need(top);
      if (!s) {
        live[top->node->index] = 3;
        g->order[g->n_order++] = top->node->index;
        n--;
        continue;
      }
      const uint32_t *m = ny_name_find(maker, s);
      if (!m || live[*m] == 3) continue;
      if (live[*m] == 2) {
        ny_loc loc = loc_of(&g->node[*m]);
        return ny_fail(&cx->diag, NYB_E_PARSE, &loc, "the graph has a cycle through tensor \"%s\"", s);
      }
      live[*m] = 2;
      path[n++] = (walker){.node = &g->node[*m]};
    }
  }
  return NYB_OK;
}

nyb_status ny_onnx_order(ny_ctx *cx, ny_arena *a, ny_onnx_graph *g) {
  if (g->order) return NYB_OK;
  find_free(a, g);
  ny_name_map maker = {0};
  NY_TRY(find_makers(cx, a, g, &maker));
  uint8_t *live = NY_NEW_ARRAY(a, uint8_t, g->n_node + 1);
  uint32_t *order = NY_NEW_ARRAY(a, uint32_t, g->n_node + 1);
  mark_live(g, &maker, live, order);
  memset(order, 0, sizeof *order * (g->n_node + 1));
  g->order = order;
  return sort_live(cx, a, g, &maker, live);
}
