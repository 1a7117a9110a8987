/* Sliding windows: what convolutions and pools share. Spatial lists have one entry per dim after batch and channel. */
#ifndef NY_ONNX_CONV_H
#define NY_ONNX_CONV_H
#include "onnx.h"

typedef struct ny_window {
  int spatial;
  int64_t kernel[NY_MAX_RANK], stride[NY_MAX_RANK], dilation[NY_MAX_RANK];
  ny_dim lo[NY_MAX_RANK], hi[NY_MAX_RANK];
  bool same; /* auto_pad SAME_* */
} ny_window;
/* Strides, dilations, pads and auto_pad; ->kernel is set by the caller. x is [n, c, spatial..]. */
bool ny_window_read(ny_node *n, const ny_value *x, ny_window *w);
/* Strides, dilations and pads only; ->spatial and ->kernel are set by the caller. */
bool ny_window_lists(ny_node *n, ny_window *w);
/* The attribute kernel_shape of a node whose input is x, and all of the above. */
bool ny_window_of_shape(ny_node *n, const ny_value *x, ny_window *w);
ny_value *ny_channels_last(ny_node *n, ny_value *x);
ny_value *ny_channels_first(ny_node *n, ny_value *x);
/* x channels last; interior may be NULL; fill NULL: zero. */
ny_value *ny_pad_spatial(ny_node *n, ny_value *x, const ny_dim *lo, const ny_dim *hi, const ny_dim *interior,
                         ny_value *fill);
/* The node's attributes applied to these inputs; channels first. Input and weights may be integers. */
ny_value *ny_conv(ny_node *n, ny_value *x, ny_value *w, ny_value *bias);
/* The op alone: x channels last and padded, w [k.., c/group, m]. */
ny_value *ny_conv_op(ny_node *n, ny_value *x, ny_value *w, const ny_window *win, const int64_t *stride, int64_t group);
/* The window op: lists have an entry for each dim of x. */
ny_value *ny_window_op(ny_node *n, const char *op, ny_value *x, const ny_dim *size, const ny_dim *stride,
                       const ny_dim *dilation);
#endif
