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
/* The IR context keeps its own diagnostic; on failure it becomes the caller's. `file` (may be NULL) names the file when
 * the diagnostic does not. */
nyb_status ny_model_hand_over(nyb_context *cx, ny_ctx *ir, const char *file, nyb_status s);
/* All of them: callers may be older than this library. */
nyb_compile_options ny_compile_options(const nyb_compile_options *given);
/* nyb_compile without vouching for the module: for files that nobody opens again. May be called again after a failure.
   only: NULL, or a target in place of the options', for a device that is here. */
nyb_status ny_model_compile(nyb_model *model, const nyb_compile_options *options, const ny_target *only,
                            const char *out_path);
/* This user compiled it: nyb_load will trust it. What stands in the way of that is a warning. */
void ny_model_vouch(nyb_context *cx, const char *path);
#endif
