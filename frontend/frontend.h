/* Model files into IR. The unit keeps its file mapped: weights are references into it. */
#ifndef NY_FRONTEND_H
#define NY_FRONTEND_H
#include "ir.h"

/* Reads a ModelProto. `dims` replaces symbols by constants. The unit has one graph; its inputs and outputs carry the
 * ONNX names. */
nyb_status ny_import_onnx(ny_ctx *cx, const char *path, const ny_binding *dims, size_t n, ny_unit **out);
/* The same from memory that outlives the unit; external data is refused. `name` is for diagnostics. */
nyb_status ny_import_onnx_memory(ny_ctx *cx, const void *data, size_t bytes, const char *name, const ny_binding *dims,
                                 size_t n, ny_unit **out);
#endif
