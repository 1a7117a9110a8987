/* A part of a graph as a module of its own: what segment.c and probe.c share. */
#ifndef NY_SEGMENT_H
#define NY_SEGMENT_H
#include "qmodel.h"

struct ny_runner {
  nyb_context *cx;
  ny_layers *ls;
  const ny_samples *s;
  int threads;
  uint32_t place;
  ny_wire *wire;
  size_t n_wire;
  ny_arena a; /* shapes */
  uint64_t bytes, limit;
};
typedef struct ny_piece {
  ny_runner *r;
  ny_unit *copy;
  ny_arena a;
  ny_op **op; /* of the copy, in the original's order */
  ny_wire *out;
  size_t n_out;
  ny_value **with_bias;      /* by place: the result of an op once a bias is added, or NULL */
  ny_layer **weight, **bias; /* layers whose weights and biases are inputs */
  size_t n_weight, n_bias;
  nyb_module *module;
  nyb_session *session;
  bool both;  /* weights are inputs */
  bool probe; /* those of all layers, and the results are the model's */
} ny_piece;
/* The graph from where the runner stands up to, not including, place `to`. */
nyb_status ny_piece_graph(ny_piece *p, uint32_t to);
nyb_status ny_piece_compile(ny_piece *p);
/* The weights and biases as they were, or quantised. */
void ny_piece_weights(ny_piece *p, bool quantised, const float **weight, const float **bias);
/* Inputs of sample i: the model's, wires, weights and biases. */
nyb_status ny_piece_run(ny_piece *p, size_t i, bool quantised, const float *const *weight, const float *const *bias,
                        nyb_tensor *out, size_t n_out);
void ny_piece_free(ny_piece *p);
#endif
