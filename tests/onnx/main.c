/* onnx_suite [-v] [-j N] [-t SECONDS] [-k KNOWN] FOLDER...: the backend suite (or one case, or any folder of cases) through the reference
   evaluator. KNOWN lists cases that may fail, with reasons. Exits 1 when a case fails. */
#include <stdlib.h>
#include <string.h>

#include "suite.h"

static int usage(void) {
  fprintf(stderr, "usage: onnx_suite [-v] [-j N] [-t SECONDS] [-k KNOWN] FOLDER...\n");
  return 2;
}

int main(int argc, char **argv) {
  suite_options o = {.run = suite_evaluate, .jobs = 2, .seconds = 120};
  suite_count c = {0};
  int i = 1;
  for (; i < argc && argv[i][0] == '-'; i++) {
    char flag = argv[i][1];
    if (flag == 'v') {
      o.verbose = true;
      continue;
    }
    if (!flag || !strchr("jtk", flag) || i + 1 >= argc) return usage();
    const char *value = argv[++i];
    if (flag == 'j') o.jobs = atoi(value);
    if (flag == 't') o.seconds = atoi(value);
    if (flag == 'k') o.known = value;
  }
  if (i == argc) return usage();
  for (; i < argc; i++) suite_folder(argv[i], &o, &c);
  printf("import needed: nothing %d, shapes %d, integer inputs %d, other inputs %d\n", c.level[0], c.level[1], c.level[2], c.level[3]);
  printf("onnx_suite: %d passed, %d failed, %d skipped\n", c.passed, c.failed, c.skipped);
  return c.failed != 0;
}
