/* The command line: finds the verb. `nybble MODEL` alone compiles, runs and prints a table. */
#include "cli.h"
#include "verbs.h"

#include <string.h>

const cli_verb cli_verbs[] = {
#define VERB(name, args, text) {#name, args, text, verb_##name},
#include "verbs.def"
#undef VERB
};
const int cli_n_verbs = (int)NY_COUNT(cli_verbs);

static int help(FILE *to) {
  fputs("nybble " NYB_VERSION ": compiles and runs ONNX models\n\nusage: nybble MODEL           compile, run on random "
                              "inputs, print a table\n       nybble VERB [arguments]\n\n",
        to);
  for (int i = 0; i < cli_n_verbs; i++) fprintf(to, "  %-8s %s\n", cli_verbs[i].name, cli_verbs[i].text);
  fputs("\nnybble VERB --help lists the options of a verb. Exit codes: 0 success, 1 failure, 2 wrong command line.\n",
        to);
  return to == stdout ? CLI_OK : CLI_USAGE;
}

static bool is_model(const char *s) {
  return ny_ends_with(s, ".onnx") || ny_ends_with(s, ".nyt") || ny_ends_with(s, ".nyb");
}

int main(int argc, char **argv) {
  if (argc < 2) return help(stderr);
  const char *v = argv[1];
  if (!strcmp(v, "--help") || !strcmp(v, "-h") || !strcmp(v, "help")) return help(stdout);
  if (!strcmp(v, "--version")) return printf("nybble %s\n", nyb_version()), CLI_OK;
  for (int i = 0; i < cli_n_verbs; i++)
    if (!strcmp(v, cli_verbs[i].name)) return cli_verbs[i].run(argc - 2, argv + 2);
  if (is_model(v)) return verb_run(argc - 1, argv + 1);
  fprintf(stderr, "nybble: %s is neither a verb nor a model file\n\n", v);
  return help(stderr);
}
