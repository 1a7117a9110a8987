/* Graphs. Nodes run in the order in which they were added, which every dependency of a capture goes along with. */
#include "driver.h"
#include <stdlib.h>
#include <string.h>

void drv_graph_add(ny_cu_graph g, ny_cu_node node) {
  if (g->n == g->cap) {
    g->cap = g->cap ? 2 * g->cap : 16;
    g->node = drv_need(realloc(g->node, g->cap * sizeof *g->node));
  }
  g->node[g->n++] = node;
}

void drv_graph_delete(ny_cu_graph g) {
  for (size_t i = 0; i < g->n; i++) drv_node_free(g->node[i]);
  free(g->node);
  drv_object_free(g);
}

void drv_exec_delete(ny_cu_exec e) {
  for (size_t i = 0; i < e->n; i++) drv_node_free(e->node[i]);
  free(e->node);
  drv_object_free(e);
}

/* ---- graphs */
ny_cu_result cuGraphCreate(ny_cu_graph *out, unsigned flags) {
  DRV_ENTER;
  if (!out || flags) return DRV_INVALID_VALUE;
  *out = drv_object_new(sizeof **out, DRV_GRAPH, cx);
  return DRV_SUCCESS;
}

ny_cu_result cuGraphDestroy(ny_cu_graph graph) {
  DRV_ENTER;
  DRV_CHECK(graph, DRV_GRAPH);
  drv_graph_delete(graph);
  return DRV_SUCCESS;
}

ny_cu_result cuGraphClone(ny_cu_graph *out, ny_cu_graph graph) {
  DRV_ENTER;
  DRV_CHECK(graph, DRV_GRAPH);
  if (!out) return DRV_INVALID_VALUE;
  *out = drv_object_new(sizeof **out, DRV_GRAPH, cx);
  for (size_t i = 0; i < graph->n; i++) drv_graph_add(*out, drv_node_copy(graph->node[i], cx));
  return DRV_SUCCESS;
}

ny_cu_result cuGraphGetNodes(ny_cu_graph graph, ny_cu_node *nodes, size_t *n) {
  DRV_ENTER;
  DRV_CHECK(graph, DRV_GRAPH);
  if (!n) return DRV_INVALID_VALUE;
  for (size_t i = 0; nodes && i < *n; i++) nodes[i] = i < graph->n ? graph->node[i] : NULL;
  *n = graph->n;
  return DRV_SUCCESS;
}

ny_cu_result cuGraphNodeGetType(ny_cu_node node, int *type) {
  DRV_ENTER;
  DRV_CHECK(node, DRV_NODE);
  if (!type) return DRV_INVALID_VALUE;
  *type = (int)node->work;
  return DRV_SUCCESS;
}

ny_cu_result cuGraphAddKernelNode_v2(ny_cu_node *out, ny_cu_graph graph, const ny_cu_node *after, size_t n_after,
                                     const ny_cu_kernel_params *params) {
  DRV_ENTER;
  DRV_CHECK(graph, DRV_GRAPH);
  if (!out || !params || (n_after && !after)) return DRV_INVALID_VALUE;
  for (size_t i = 0; i < n_after; i++) DRV_CHECK(after[i], DRV_NODE);
  ny_cu_node n = drv_node_new(DRV_LAUNCH, cx);
  ny_cu_result r = drv_launch_fill(n, params);
  if (r) {
    drv_node_free(n);
    return r;
  }
  drv_graph_add(graph, n);
  *out = n;
  return DRV_SUCCESS;
}

ny_cu_result cuGraphKernelNodeGetParams_v2(ny_cu_node node, ny_cu_kernel_params *params) {
  DRV_ENTER;
  DRV_CHECK(node, DRV_NODE);
  if (!params || node->work != DRV_LAUNCH) return DRV_INVALID_VALUE;
  *params =
      (ny_cu_kernel_params){.function = node->function, .shared = node->shared, .param = node->pointers, .context = cx};
  memcpy(params->grid, node->grid, sizeof node->grid);
  memcpy(params->block, node->block, sizeof node->block);
  return DRV_SUCCESS;
}

/* The old arguments stay until the new ones are known to be right: the new may point into the old. */
static ny_cu_result set_params(ny_cu_node node, const ny_cu_kernel_params *params) {
  struct CUgraphNode_st next = {.o = node->o, .work = DRV_LAUNCH, .origin = node->origin};
  ny_cu_result r = drv_launch_fill(&next, params);
  if (r) {
    free(next.param);
    free(next.pointers);
    return r;
  }
  free(node->param);
  free(node->pointers);
  free(node->range);
  *node = next;
  return DRV_SUCCESS;
}

ny_cu_result cuGraphKernelNodeSetParams_v2(ny_cu_node node, const ny_cu_kernel_params *params) {
  DRV_ENTER;
  DRV_CHECK(node, DRV_NODE);
  if (!params || node->work != DRV_LAUNCH) return DRV_INVALID_VALUE;
  return set_params(node, params);
}

/* ---- executable graphs */
static void take_nodes(ny_cu_exec e, ny_cu_graph graph, ny_cu_context cx) {
  e->n = graph->n;
  e->node = drv_need(calloc(graph->n + 1, sizeof *e->node));
  for (size_t i = 0; i < e->n; i++) e->node[i] = drv_node_copy(graph->node[i], cx);
}

ny_cu_result cuGraphInstantiateWithFlags(ny_cu_exec *out, ny_cu_graph graph, unsigned long long flags) {
  DRV_ENTER;
  DRV_CHECK(graph, DRV_GRAPH);
  if (!out || flags > 15) return DRV_INVALID_VALUE;
  *out = drv_object_new(sizeof **out, DRV_EXEC, cx);
  take_nodes(*out, graph, cx);
  return DRV_SUCCESS;
}

ny_cu_result cuGraphExecDestroy(ny_cu_exec exec) {
  DRV_ENTER;
  DRV_CHECK(exec, DRV_EXEC);
  drv_exec_delete(exec);
  return DRV_SUCCESS;
}

ny_cu_result cuGraphUpload(ny_cu_exec exec, ny_cu_stream stream) {
  DRV_ENTER;
  DRV_CHECK(exec, DRV_EXEC);
  return drv_stream_ok(stream) ? DRV_SUCCESS : DRV_INVALID_HANDLE;
}

ny_cu_result cuGraphLaunch(ny_cu_exec exec, ny_cu_stream stream) {
  DRV_ENTER;
  DRV_CHECK(exec, DRV_EXEC);
  if (!drv_stream_ok(stream)) return DRV_INVALID_HANDLE;
  ny_cu_result r = DRV_SUCCESS;
  drv_total.graph_launches++;
  for (size_t i = 0; i < exec->n && !r; i++) r = drv_submit(stream, drv_node_copy(exec->node[i], cx), cx);
  return r;
}

ny_cu_result cuGraphExecKernelNodeSetParams_v2(ny_cu_exec exec, ny_cu_node node, const ny_cu_kernel_params *params) {
  DRV_ENTER;
  DRV_CHECK(exec, DRV_EXEC);
  if (!params) return DRV_INVALID_VALUE;
  for (size_t i = 0; i < exec->n; i++)
    if (exec->node[i]->origin == node && exec->node[i]->work == DRV_LAUNCH) return set_params(exec->node[i], params);
  return DRV_INVALID_VALUE;
}

/* The same kinds of nodes in the same order; a launch may change everything but its kernel's module, as on hardware a
   function of another context or with other attributes may not come in. */
static int obstacle(const struct CUgraphExec_st *e, ny_cu_graph g) {
  if (e->n != g->n) return 2; /* CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED */
  for (size_t i = 0; i < e->n; i++) {
    if (e->node[i]->work != g->node[i]->work) return 3; /* ..._NODE_TYPE_CHANGED */
    if (e->node[i]->work == DRV_LAUNCH && e->node[i]->function->module != g->node[i]->function->module)
      return 4; /* ..._FUNCTION_CHANGED */
  }
  return 0;
}

ny_cu_result cuGraphExecUpdate_v2(ny_cu_exec exec, ny_cu_graph graph, ny_cu_update *result) {
  DRV_ENTER;
  DRV_CHECK(exec, DRV_EXEC);
  DRV_CHECK(graph, DRV_GRAPH);
  if (!result) return DRV_INVALID_VALUE;
  *result = (ny_cu_update){.result = obstacle(exec, graph)};
  if (result->result) return DRV_GRAPH_EXEC_UPDATE_FAILURE;
  for (size_t i = 0; i < exec->n; i++) drv_node_free(exec->node[i]);
  free(exec->node);
  take_nodes(exec, graph, cx);
  drv_total.exec_updates++;
  return DRV_SUCCESS;
}
