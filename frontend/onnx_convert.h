/* Quantised weights of a model from one dialect of ONNX to another. Codes and scales keep their values; what the new
   dialect cannot say is refused by node, or stays as it is where that is standard ONNX. */
#ifndef NY_ONNX_CONVERT_H
#define NY_ONNX_CONVERT_H
#include "onnx_edit.h"

typedef struct ny_dialect {
  const char *name, *text;
  nyb_status (*convert)(ny_edit *e, uint32_t *changed); /* how many nodes it rewrote */
} ny_dialect;
extern const ny_dialect ny_dialects[];
extern const int ny_n_dialects;
const ny_dialect *ny_dialect_by_name(const char *name); /* NULL: none */

nyb_status ny_convert_standard(ny_edit *e, uint32_t *changed);
nyb_status ny_convert_trt(ny_edit *e, uint32_t *changed);
nyb_status ny_convert_microsoft(ny_edit *e, uint32_t *changed); /* onnx_convert_ms.c */

/* ---- For the converters */
nyb_status ny_convert_refuse(ny_edit *e, const ny_edit_node *n, const char *fmt, ...) NY_PRINTF(3, 4);
/* The tensor of input i, which must be an initializer of the main graph; fails otherwise. */
nyb_status ny_convert_init(ny_edit *e, const ny_edit_node *n, uint32_t i, ny_edit_tensor *out);
static inline bool ny_convert_has(const ny_edit_node *n, uint32_t i) { return i < n->n_in && *n->in[i]; }
int64_t ny_convert_count(const ny_edit_tensor *t);
/* A copy of integer codes in another format, `add` added to each; rows of `have` elements cut to `keep`. */
ny_edit_tensor ny_convert_codes(ny_edit *e, const ny_edit_tensor *t, int64_t have, int64_t keep, ny_fmt f, int64_t add);
/* The same bytes as another type. */
ny_edit_tensor ny_convert_as(const ny_edit_tensor *t, ny_fmt f, int rank, const int64_t *dim);
#endif
