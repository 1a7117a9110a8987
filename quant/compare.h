/* Two models of the same layers beside one another: how far their results are apart, and what of that each layer brings in. */
#ifndef NY_COMPARE_H
#define NY_COMPARE_H
#include "qmodel.h"

/* Squares of the second model's error, relative to the squares of the first one's values; negative: not known. */
typedef struct ny_error {
  double all;     /* with everything before it */
  double own;     /* with inputs as the first model has them: its weights */
  double inputs;  /* with its own weights: what its inputs bring */
  double weights; /* of the weights themselves; of these: */
  double scales;  /* would go if each block had its best scale */
} ny_error;
typedef struct ny_pair { /* a product or convolution of both, or a result of the models */
  const char *name, *kind;
  const char *scheme[2]; /* of the weights: "f32", "f4e2m1/16" */
  ny_error error;
} ny_pair;
typedef struct ny_comparison {
  ny_pair *result, *layer;
  size_t n_result, n_layer;
  size_t unmatched; /* layers of either model without a partner */
} ny_comparison;
/* Runs both on every sample; results only unless `layers`. What is compared lives in a. */
nyb_status ny_compare(nyb_model *one, nyb_model *other, const ny_samples *s, bool layers, int threads, ny_arena *a, ny_comparison *out);
#endif
