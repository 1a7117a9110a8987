/* Quantisation of weights: numbers only, no graphs. A weight is W[n, k], n outputs by k inputs, with any strides;
   blocks of inputs share a scale. What is known of the inputs is H = X^T X over the calibration rows. recipes.def says
   what decides, schemes.def how the result is stored. */
#ifndef NY_QUANT_H
#define NY_QUANT_H
#include "base.h"
#include "pool.h"

/* ---- scheme.c: the rows of schemes.def */
typedef struct ny_grid { /* the numbers codes stand for: a step of 2^e times `unit` around 2^e, e at least floor's, up
                            to max */
  float unit, floor, max;
} ny_grid;
typedef struct ny_scheme {
  const char *name, *text;
  ny_fmt code, scale;
  int block; /* 0: a whole row */
  bool tensor;
  ny_grid grid;
} ny_scheme;
extern const ny_scheme ny_schemes[];
extern const int ny_n_schemes;
const ny_scheme *ny_scheme_by_name(const char *name); /* NULL: none */
double ny_scheme_bits(const ny_scheme *s, int64_t k); /* a weight, scales included, in rows of k */
float ny_snap(const ny_grid *g, float x);             /* to the nearest number of the grid, ties to even */

/* ---- recipe.c */
typedef enum ny_candidates { NY_CAND_RTN, NY_CAND_FOUR, NY_CAND_SWEEP } ny_candidates;
typedef enum ny_choice { NY_BY_NONE, NY_BY_MSE, NY_BY_HESSIAN, NY_BY_LOSS } ny_choice;
typedef struct ny_recipe {
  ny_candidates candidates;
  ny_choice by;
  bool feed, bias, asym;
  int descent;
  double damping; /* of H, as a part of its mean diagonal */
} ny_recipe;
nyb_status ny_recipe_parse(const char *text, ny_recipe *out, ny_diag *d);
bool ny_recipe_needs_data(const ny_recipe *r);

/* ---- block.c: scale candidates, and everything that is done to 16 rows at a time */
enum { NY_LANES = 16, NY_MAX_CANDIDATES = 16, NY_MAX_BLOCK = 32 };
typedef struct ny_blocks { /* blocks start anew every `run` inputs: the channels of one tap of a convolution */
  int64_t k, run;
  int size; /* of a block */
} ny_blocks;
int64_t ny_blocks_count(const ny_blocks *b);
int64_t ny_blocks_start(const ny_blocks *b, int64_t i);
int ny_blocks_len(const ny_blocks *b, int64_t i);
/* Effective scales (tensor scale included) to try for blocks whose largest magnitudes are amax; out[c][lane]. Returns
 * how many. */
int ny_candidates_of(const ny_scheme *s, ny_candidates how, float ts, const float amax[NY_LANES],
                     float (*out)[NY_LANES]);
typedef struct ny_panel { /* 16 rows, inputs outermost: [k][16] */
  const ny_scheme *scheme;
  const ny_recipe *recipe;
  ny_blocks blocks;
  float ts;
  const float *u, *h; /* k*k, or NULL: inverse factor and H, damped */
  float *w, *r, *s;   /* in: weights (changed); out: rounded, effective scales [block][16] */
  float *g, *t;       /* room: [k][16] each */
} ny_panel;
void ny_panel_quantize(ny_panel *p);
/* The sum over the 16 rows of x H x^T; x and room are [k][16]. */
double ny_panel_quadratic(const float *h, int64_t k, const float *x, float *room);

/* ---- matrix.c */
/* c[i][j] += sum over t of a[t][i] * b[t][j] for i < m, j < n; sums of at most `rows` products are f32. symmetric: only
 * j >= i - 16. */
void ny_atb(ny_pool *pool, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t rows, int64_t m, int64_t n,
            bool symmetric, double *c, int64_t ldc);
/* U with inverse(h) = U^T U, upper triangular; h is n*n, symmetric, changed. False: it is not positive definite. */
bool ny_inverse_factor(ny_pool *pool, double *h, int64_t n, float *out_u);

/* ---- solve.c */
typedef struct ny_stats { /* of the inputs of one weight */
  int64_t k, rows;
  double *h;               /* k*k, upper triangle: sum of q q^T, q as the quantised layers before give them */
  double *cross;           /* k*k, or NULL: sum of (f-q)^T q, f as the original gives them */
  double *mean_q, *mean_f; /* sums */
} ny_stats;
nyb_status ny_stats_new(int64_t k, bool asym, ny_stats *out, ny_diag *d);
void ny_stats_free(ny_stats *s);
void ny_stats_add(ny_stats *s, ny_pool *pool, const float *q, const float *f /* NULL: the same */, int64_t rows);

typedef struct ny_factor { /* what layers with the same inputs share */
  int64_t k;
  float *h, *u;            /* damped */
  float *shift;            /* k*k, or NULL: what asymmetric calibration adds to W^T is shift^T W^T */
  double *mean_q, *mean_f; /* NULL without bias correction */
} ny_factor;
nyb_status ny_factor_new(const ny_stats *s, const ny_recipe *r, ny_pool *pool, ny_factor *out, ny_diag *d);
void ny_factor_free(ny_factor *f);

typedef struct ny_weight { /* n outputs, k inputs: element (i, j) at w[i * n_stride + j * k_stride] */
  const char *name;
  const float *w;
  int64_t n, k, run, n_stride, k_stride;
} ny_weight;
typedef struct ny_quantized {
  const ny_scheme *scheme;
  int64_t n, k, n_blocks;
  ny_blocks blocks;
  float ts;
  float *scale;      /* effective, [block][n] */
  float *r;          /* what the codes stand for, strides of the weight */
  float *bias;       /* to be added to the outputs, or NULL */
  double mse, error; /* of the weights and of the outputs, relative; error is mse without data */
} ny_quantized;
/* f may be NULL where the recipe does without data. Scheme and recipe outlive the result. */
nyb_status ny_quantize(const ny_weight *w, const ny_scheme *scheme, const ny_recipe *recipe, const ny_factor *f,
                       ny_pool *pool, ny_quantized *out, ny_diag *d);
void ny_quantized_free(ny_quantized *q);
/* Packed storage, in the strides of the weight (dense): codes of all n*k elements, block scales [..block..] with the
 * same order of dimensions. */
void ny_quantized_codes(const ny_quantized *q, const ny_weight *w, uint8_t *out);
void ny_quantized_scales(const ny_quantized *q, const ny_weight *w, uint8_t *out);
#endif
