/* Quantisation of models: which weights there are, what the calibration data says of their inputs, and the graph with
 * codes in their place. */
#ifndef NY_QUANT_MODEL_H
#define NY_QUANT_MODEL_H
#include "model.h"
#include "quant.h"
#include "rewrite.h"

/* ---- layers.c */
enum { NY_MAX_TRIALS = 4 };
typedef struct ny_layer { /* a weight and the first op that uses it */
  ny_op *op;              /* matmul, conv, gather */
  ny_value *w;            /* its weight: a constant, or views of one */
  ny_value *x;            /* what meets it; NULL: indices */
  ny_op *at;              /* op itself, or the if or loop of the graph that it stands in */
  const char *name;
  ny_weight weight;         /* .w is NULL until ny_layer_load */
  const char *skip;         /* why it stays as it is; NULL: it does not */
  const char *uncalibrated; /* why no data is known of its inputs; NULL: they may be */
  const ny_scheme *scheme;
  ny_recipe recipe;
  ny_quantized q;
  const char *lost; /* why ONNX cannot say it */
  double seconds;
  struct ny_trial { /* what quantising it alone does to the model's results: squared error, relative */
    const ny_scheme *scheme;
    double error;
  } trial[NY_MAX_TRIALS];
  int n_trial, choice;
} ny_layer;
typedef struct ny_layers {
  ny_graph *g;
  ny_arena *a;
  ny_layer *v;
  size_t n, cap;
  bool *constant;        /* by value id: does not depend on the model's inputs */
  ny_op **op;            /* of the graph's block, in order */
  uint32_t n_op, *place; /* place: by op id */
} ny_layers;
nyb_status ny_layers_find(ny_graph *g, ny_arena *a, ny_layers *out);
nyb_status ny_layer_compute(ny_layers *ls, ny_value *v, ny_arena *a, ny_tensor *out); /* a constant expression, into a */
nyb_status ny_layer_load(ny_layers *ls, ny_layer *l, ny_arena *a); /* the weight's numbers, into a */
uint32_t ny_layers_place(const ny_layers *ls,
                         const ny_op *op); /* of the op of the graph's block that op is or stands in */

/* ---- segment.c: a part of the graph as a module of its own, run on every sample */
typedef struct ny_samples { /* the caller's; tensors in the order of the graph's inputs */
  size_t n, n_in;
  const nyb_tensor *in; /* [n][n_in] */
} ny_samples;
typedef struct ny_wire { /* a value for every sample: as the original model has it and, once layers before are
                            quantised, as the quantised one has it */
  ny_value *v;
  nyb_tensor *f, *q; /* [n samples]; q[i].data NULL: as f */
} ny_wire;
typedef struct ny_runner ny_runner;
nyb_status ny_runner_new(nyb_context *cx, ny_layers *ls, const ny_samples *s, int threads, ny_runner **out);
void ny_runner_free(ny_runner *r);
/* Runs the graph from where it stands up to, not including, `place`, with layers that are quantised both as they were
   and quantised (both: false: only as they were). What is needed later is kept. */
nyb_status ny_runner_advance(ny_runner *r, uint32_t place, bool both);
const ny_wire *ny_runner_wire(const ny_runner *r, const ny_value *v); /* after an advance to a user of v */

/* ---- probe.c */
typedef struct ny_probe ny_probe;
nyb_status ny_probe_new(nyb_context *cx, ny_layers *ls, const ny_samples *s, int threads,
                        ny_probe **out); /* weights are loaded; to be freed after a failure too */
void ny_probe_free(ny_probe *p);
nyb_status ny_probe_error(ny_probe *p, const ny_layer *l, const ny_quantized *q, double *out);

/* ---- budget.c: from trials to schemes. bits a weight, or error of the results; 0: not limited by it. */
void ny_budget_spend(ny_layers *ls, double bits, double max_error);

/* ---- calibrate.c */
/* Adds the rows that x gives layer l: of f (and q, where it differs). */
nyb_status ny_stats_add_layer(ny_stats *s, ny_pool *pool, const ny_layer *l, const nyb_tensor *f, const nyb_tensor *q,
                              ny_diag *d);

/* ---- apply.c: codes in place of weights, in the graph */
typedef struct ny_plain { /* a tensor of any format, dense; axis: blocks run along it */
  ny_fmt fmt;
  int rank, axis;
  int64_t dim[NY_MAX_RANK];
  uint8_t *data;
} ny_plain;
void ny_layer_codes(const ny_layer *l, ny_arena *a, ny_plain *out);
void ny_layer_scales(const ny_layer *l, ny_arena *a, ny_plain *out);
nyb_status ny_quantized_apply(nyb_model *m, ny_layers *ls);

/* ---- export.c: the file `from`, quantised, as ONNX. Weights that cannot stand in it so stay, with the reason in
 * .lost. */
nyb_status ny_quantized_export(nyb_model *m, ny_layers *ls, const char *from, const char *to);

/* ---- quantize.c */
typedef struct ny_quantize_options {
  const char *format, *recipe; /* recipe NULL: the best that the data allows */
  const char *embeddings;      /* scheme of tables that are gathered from, "none" */
  const char *const *glob;     /* layers; none: all */
  size_t n_glob;
  int64_t least;          /* weights of fewer elements stay */
  double damping;         /* 0: the recipe's */
  double bits, max_error; /* a budget, or 0 */
  int threads;
  ny_samples samples;
} ny_quantize_options;
/* Finds and quantises; out_layers live in a and hold the results until they are freed. */
nyb_status ny_quantize_model(nyb_model *m, const ny_quantize_options *o, ny_arena *a, ny_layers *out_layers);
void ny_layers_free(ny_layers *ls);
#endif
