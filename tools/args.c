/* Options of a verb: a table of name, kind and place. Both `--name value` and `--name=value` are understood. Help and
   mistakes end the program here, so that a verb only sees a command line it can work with. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void help(const char *verb, const cli_option *opt, size_t n_opt) {
  for (int i = 0; i < cli_n_verbs; i++)
    if (!strcmp(cli_verbs[i].name, verb))
      printf("usage: nybble %s %s\n%s\n\n", verb, cli_verbs[i].args, cli_verbs[i].text);
  for (size_t i = 0; i < n_opt; i++) {
    char left[64];
    snprintf(left, sizeof left, "%s%s%s", opt[i].name, opt[i].arg ? " " : "", opt[i].arg ? opt[i].arg : "");
    printf("  %-24s %s\n", left, opt[i].text);
  }
}

static bool integer(const char *s, int64_t *out) {
  char *end;
  errno = 0;
  long long v = strtoll(s, &end, 10);
  *out = v;
  return *s && !*end && !errno;
}

void cli_usage(const char *verb, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  fprintf(stderr, "nybble %s: ", verb);
  vfprintf(stderr, fmt, ap);
  fprintf(stderr, " (see nybble %s --help)\n", verb);
  va_end(ap);
  exit(CLI_USAGE);
}

static ny_arena names; /* live as long as the process, like argv */

/* NAME=VALUE split at the last '=': tensor names may hold one. */
static bool split(const char *s, char **name, const char **value) {
  const char *eq = strrchr(s, '=');
  if (!eq || eq == s || !eq[1]) return false;
  *name = ny_strndup(&names, s, (size_t)(eq - s));
  *value = eq + 1;
  return true;
}

static void take(const char *verb, const cli_option *o, const char *value) {
  int64_t v;
  char *name;
  const char *rest;
  cli_dims *dims = o->to;
  cli_pairs *pairs = o->to;
  switch (o->kind) {
  case CLI_FLAG: *(int *)o->to = 1; break;
  case CLI_STRING: *(const char **)o->to = value; break;
  case CLI_COUNT:
    if (!integer(value, &v) || v < 0 || v > INT32_MAX) cli_usage(verb, "%s: wants a number from 0", o->name);
    *(int *)o->to = (int)v;
    break;
  case CLI_NUMBER: {
    char *end;
    *(double *)o->to = strtod(value, &end);
    if (!*value || *end || !(*(double *)o->to >= 0) || *(double *)o->to > 1e300)
      cli_usage(verb, "%s: wants a number from 0", o->name);
    break;
  }
  case CLI_LEVEL:
    if (!integer(value, &v) || v < 0 || v > 3) cli_usage(verb, "%s: wants 0, 1, 2 or 3", o->name);
    *(int *)o->to = (int)v + 1;
    break;
  case CLI_DIM:
    if (!split(value, &name, &rest) || !integer(rest, &v) || v < 0)
      cli_usage(verb, "%s: wants NAME=N with N >= 0", o->name);
    if (dims->n == CLI_MAX_DIMS) cli_usage(verb, "%s: given more than %d times", o->name, CLI_MAX_DIMS);
    dims->v[dims->n++] = (nyb_dim){name, v};
    break;
  case CLI_PAIR:
    if (!split(value, &name, &rest)) cli_usage(verb, "%s: wants NAME=FILE", o->name);
    if (pairs->n == CLI_MAX_DIMS) cli_usage(verb, "%s: given more than %d times", o->name, CLI_MAX_DIMS);
    pairs->name[pairs->n] = name;
    pairs->value[pairs->n++] = rest;
    break;
  }
}

static const cli_option *find(const cli_option *opt, size_t n_opt, const char *name, size_t n) {
  for (size_t i = 0; i < n_opt; i++)
    if (strlen(opt[i].name) == n && !strncmp(opt[i].name, name, n)) return &opt[i];
  return NULL;
}

int cli_parse(const char *verb, const cli_option *opt, size_t n_opt, int argc, char **argv, const char **file,
              int least, int most) {
  int n_file = 0;
  for (int i = 0; i < argc; i++) {
    const char *a = argv[i];
    if (!strcmp(a, "--help") || !strcmp(a, "-h")) help(verb, opt, n_opt), exit(CLI_OK);
    if (a[0] != '-' || !a[1]) {
      if (n_file == most) cli_usage(verb, "%s: one file too many", a);
      file[n_file++] = a;
      continue;
    }
    size_t n = strcspn(a, "=");
    const cli_option *o = find(opt, n_opt, a, n);
    if (!o) cli_usage(verb, "%s: unknown option", a);
    const char *value = a[n] ? a + n + 1 : NULL;
    if (o->kind == CLI_FLAG && value) cli_usage(verb, "%s: takes no value", o->name);
    if (o->kind != CLI_FLAG && !value && i + 1 == argc) cli_usage(verb, "%s: wants a value", a);
    take(verb, o, o->kind == CLI_FLAG || value ? value : argv[++i]);
  }
  if (n_file < least) cli_usage(verb, "no file or folder given");
  return n_file;
}
