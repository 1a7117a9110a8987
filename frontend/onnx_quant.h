/* What builders of quantised operators share: codes that a file keeps as plain bytes, and blocks along an axis.
   onnx_quant.c. */
#ifndef NY_ONNX_QUANT_H
#define NY_ONNX_QUANT_H
#include "onnx.h"

/* v with its bits read as format f of the same width: a constant stays one, over the same bytes. */
ny_value *ny_reinterpret(ny_node *n, ny_value *v, ny_fmt f);
/* Constant input i, bytes that hold codes of format f, low bits first: the same bytes as a tensor of this shape. `what`
   is for messages. */
ny_value *ny_codes(ny_node *n, int i, ny_fmt f, int rank, const int64_t *shape, const char *what);
/* Input i must be a constant with this many elements, whatever its shape: reshaped, the constant itself when it can be.
 */
ny_value *ny_shaped(ny_node *n, int i, int rank, const int64_t *shape, const char *what);
/* The unsigned format of 2, 4 or 8 bits; NY_none after failing. */
ny_fmt ny_code_format(ny_node *n, const char *attr, int64_t def);
bool ny_block_size(ny_node *n, int64_t def, int64_t *out);    /* attribute block_size, at least 1 */
ny_value *ny_splat(ny_node *n, ny_fmt f, int rank, double x); /* of shape [1, ..] */
/* x w^T (w [out, in]) in x's format, plus a bias of x's last dim unless NULL. */
ny_value *ny_linear(ny_node *n, ny_value *x, ny_value *w, ny_value *bias);

/* x cut into blocks along an axis, in f32: [outer, n, block, inner], the last block filled up with zeros. */
typedef struct ny_blocks {
  ny_value *x;
  const ny_value *of;
  int axis;
  int64_t n, block, size;
} ny_blocks;
bool ny_blocks_of(ny_node *n, ny_value *x, int axis, int64_t block, ny_blocks *out);
ny_value *ny_blocks_amax(ny_node *n, const ny_blocks *b); /* [outer, n, 1, inner] */
ny_value *ny_blocks_scales(ny_node *n, const ny_blocks *b,
                           ny_value *s);                               /* [outer, n, 1, inner] -> as a scale of `of` */
ny_value *ny_blocks_join(ny_node *n, const ny_blocks *b, ny_value *y); /* [outer, n, block, inner] -> `of`'s shape */
/* x / s, 0 where s is 0, in codes of format f. */
ny_value *ny_blocks_quantized(ny_node *n, const ny_blocks *b, ny_value *s, ny_fmt f);
/* Exponents of |x| as f8e8m0, rounded up, to nearest or down (mode 0, 1, 2). onnx_ops_math.c. */
ny_value *ny_to_e8m0(ny_node *n, ny_value *x, int mode, bool saturate);
/* Input i with as many dimensions as x, as a scale or zero point of a dequantize; NULL when it is absent or fails. */
ny_value *ny_scale_of(ny_node *n, ny_value *x, int i, int axis, int64_t block);
#endif
