/* Contexts, units, blobs and graphs: who owns what. A context holds names, dimensions and types and outlives its units;
   a unit holds blobs and mapped files; a graph holds its ops. Nothing is freed singly. */
#include <stdlib.h>
#include <string.h>

#include "ir.h"

ny_ctx *ny_ctx_new(void) {
  ny_ctx *cx = calloc(1, sizeof *cx);
  if (!cx) abort();
  return cx;
}

void ny_ctx_free(ny_ctx *cx) {
  if (!cx) return;
  ny_arena_free(&cx->arena);
  ny_names_free(&cx->names);
  free(cx);
}

ny_unit *ny_unit_new(ny_ctx *cx) {
  ny_unit *u = calloc(1, sizeof *u);
  if (!u) abort();
  u->cx = cx;
  return u;
}

void ny_unit_free(ny_unit *u) {
  if (!u) return;
  while (u->first) ny_graph_drop(u->first);
  for (uint32_t i = 0; i < u->n_maps; i++) ny_map_close(&u->maps[i]);
  ny_arena_free(&u->arena);
  free(u);
}

ny_graph *ny_graph_new(ny_unit *u, ny_name name, bool kernel) {
  ny_graph *g = calloc(1, sizeof *g);
  if (!g) abort();
  g->cx = u->cx;
  g->unit = u;
  g->name = name;
  g->kernel = kernel;
  if (u->last)
    u->last->next = g;
  else
    u->first = g;
  u->last = g;
  return g;
}

void ny_graph_drop(ny_graph *g) {
  ny_unit *u = g->unit;
  ny_graph *before = NULL, **link = &u->first;
  while (*link != g) {
    before = *link;
    link = &before->next;
  }
  *link = g->next;
  if (u->last == g) u->last = before;
  ny_arena_free(&g->arena);
  free(g);
}

ny_graph *ny_unit_find(ny_unit *u, ny_name name) {
  ny_graph *g = u->first;
  while (g && g->name != name) g = g->next;
  return g;
}

const ny_blob *ny_blob_new(ny_unit *u, const void *data, uint64_t bytes, ny_name file, uint64_t offset) {
  ny_blob *b = NY_NEW(&u->arena, ny_blob);
  *b = (ny_blob){.data = data, .bytes = bytes, .file = file, .offset = offset, .next = u->blobs, .id = u->n_blobs++};
  u->blobs = b;
  return b;
}

nyb_status ny_unit_map(ny_unit *u, const char *path, const ny_map **out) {
  ny_name name = ny_intern(&u->cx->names, path);
  for (uint32_t i = 0; i < u->n_maps; i++) {
    if (u->map_names[i] != name) continue;
    *out = &u->maps[i];
    return NYB_OK;
  }
  ny_map m;
  NY_TRY(ny_map_open(path, &m, &u->cx->diag));
  if (u->n_maps == u->cap_maps) { /* two arrays share one capacity */
    uint32_t cap = u->cap_maps ? u->cap_maps * 2 : 4;
    u->maps = ny_grow(&u->arena, u->maps, u->cap_maps * sizeof *u->maps, cap * sizeof *u->maps);
    u->map_names = ny_grow(&u->arena, u->map_names, u->cap_maps * sizeof *u->map_names, cap * sizeof *u->map_names);
    u->cap_maps = cap;
  }
  u->map_names[u->n_maps] = name;
  u->maps[u->n_maps] = m;
  *out = &u->maps[u->n_maps++];
  return NYB_OK;
}
