/* What a nyb_model is: a unit of IR and the context it reports to. */
#ifndef NY_MODEL_H
#define NY_MODEL_H
#include "codegen.h"
#include "context.h"

struct nyb_model {
  nyb_context *cx;
  ny_ctx *ir;
  ny_unit *unit;
  ny_arena results; /* of nyb_evaluate, until its next call */
};
/* The IR context keeps its own diagnostic; on failure it becomes the caller's. `file` (may be NULL) names the file when the diagnostic does not. */
nyb_status ny_model_hand_over(nyb_context *cx, ny_ctx *ir, const char *file, nyb_status s);
/* Options of the API as options of the passes; fails on an unknown target. */
nyb_status ny_model_pass_options(nyb_context *cx, const nyb_compile_options *in, ny_pass_options *out);
#endif
