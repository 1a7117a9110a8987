/* onnx_suite [-v] [-j N] [-t SECONDS] FOLDER...: the backend suite (or one case, or any folder of cases) through the
   reference evaluator. The folders are written by the suite's own generator; docs/testing says how. Exits 1 when a case
   fails. */
#include <stdlib.h>
#include <string.h>

#include "suite.h"

int main(int argc, char **argv) {
  suite_options o = {.run = suite_evaluate, .jobs = 2, .seconds = 120};
  suite_count c = {0};
  int folders = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "-v"))
      o.verbose = true;
    else if (!strcmp(argv[i], "-j") && i + 1 < argc)
      o.jobs = atoi(argv[++i]);
    else if (!strcmp(argv[i], "-t") && i + 1 < argc)
      o.seconds = atoi(argv[++i]);
    else
      suite_folder(argv[i], &o, &c), folders++;
  }
  if (!folders) return fprintf(stderr, "usage: onnx_suite [-v] [-j N] [-t SECONDS] FOLDER...\n"), 2;
  printf("import needed: nothing %d, shapes %d, integer inputs %d, float inputs %d\n", c.level[0], c.level[1],
         c.level[2], c.level[3]);
  printf("onnx_suite: %d passed, %d failed, %d skipped\n", c.passed, c.failed, c.skipped);
  return c.failed != 0;
}
