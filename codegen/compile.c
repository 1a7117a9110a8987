/* A unit becomes a module file: passes, machine code, file. The graph is copied (through its text) after `tidy`, the last stage that holds
   nothing of the target but panel widths: that copy goes into the file so that another machine, or one that does not trust our code, can compile it again. */
#include "codegen.h"

#include <stdlib.h>
#include <string.h>

#define PORTABLE_STAGE "tidy"

static nyb_status to_portable(ny_unit *u, const ny_pass_options *options, ny_unit **out) {
  ny_pass_options first = *options;
  int stop = ny_pass_index(PORTABLE_STAGE), done = u->done ? ny_pass_index(u->done) : -1;
  if (done > stop || options->until || options->only) return NYB_OK; /* resumed later than that: nothing portable is left */
  first.until = PORTABLE_STAGE;
  NY_TRY(ny_run_passes(u, &first));
  return ny_unit_copy(u, out);
}

static nyb_status build(ny_unit *u, const ny_pass_options *options, int threads, ny_unit *portable, const char *path) {
  const ny_codegen *cg;
  ny_diag *d = &u->cx->diag;
  NY_TRY(ny_codegen_open(&cg, d));
  size_t n = 0;
  for (ny_graph *g = u->first; g; g = g->next) n += g->kernel;
  ny_graph **kernel = NY_NEW_ARRAY(&u->arena, ny_graph *, n + 1);
  n = 0;
  for (ny_graph *g = u->first; g; g = g->next)
    if (g->kernel) kernel[n++] = g;
  ny_codegen_request r = {.kernel = kernel, .n = n, .target = options->target, .opt = options->opt, .threads = threads,
                          .dump_dir = options->dump_dir, .progress = options->progress, .user = options->user};
  ny_image image = {0};
  NY_TRY(cg->compile(&r, &image, d));
  nyb_status s = ny_module_write(u, options->target, &image, portable, path, d);
  ny_image_free(&image);
  return s;
}

nyb_status ny_compile(ny_unit *u, const ny_pass_options *options, int threads, const char *path) {
  ny_unit *portable = NULL;
  nyb_status s = to_portable(u, options, &portable);
  if (!s) s = ny_run_passes(u, options);
  if (!s && (!u->done || strcmp(u->done, ny_passes[ny_n_passes - 1].name)))
    s = ny_fail(&u->cx->diag, NYB_E_ARGUMENT, NULL, "the graph stopped after pass %s: a module needs all passes up to %s", u->done ? u->done : "import", ny_passes[ny_n_passes - 1].name);
  if (!s) s = build(u, options, threads, portable, path);
  if (portable) ny_unit_free(portable);
  return s;
}
