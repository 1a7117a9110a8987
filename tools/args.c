/* Options of a verb: a table of name, kind and place. Both `--name value` and `--name=value` are understood. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void help(const char *verb, const cli_option *opt, size_t n_opt) {
  for (int i = 0; i < cli_n_verbs; i++)
    if (!strcmp(cli_verbs[i].name, verb)) {
      printf("usage: nybble %s %s\n%s\n\n", verb, cli_verbs[i].args, cli_verbs[i].text);
    }
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

static int usage(const char *verb, const char *what, const char *arg) {
  fprintf(stderr, "nybble %s: %s: %s (see nybble %s --help)\n", verb, arg, what, verb);
  return CLI_USAGE;
}

/* NAME=VALUE split at the last '=': tensor names may hold one. */
static bool split(const char *s, char **name, const char **value) {
  const char *eq = strrchr(s, '=');
  if (!eq || eq == s || !eq[1]) return false;
  *name = strndup(s, (size_t)(eq - s)); /* lives as long as the process, like argv */
  *value = eq + 1;
  return *name != NULL;
}

static int take(const char *verb, const cli_option *o, const char *value) {
  int64_t v;
  char *name;
  const char *rest;
  switch (o->kind) {
  case CLI_FLAG: *(int *)o->to = 1; return 0;
  case CLI_STRING: *(const char **)o->to = value; return 0;
  case CLI_INT:
    if (!integer(value, &v) || v < INT32_MIN || v > INT32_MAX) return usage(verb, "wants an integer", o->name);
    *(int *)o->to = (int)v;
    return 0;
  case CLI_DIM: {
    cli_dims *d = o->to;
    if (!split(value, &name, &rest) || !integer(rest, &v) || v < 0) return usage(verb, "wants NAME=N with N >= 0", o->name);
    if (d->n == CLI_MAX_DIMS) return usage(verb, "given too often", o->name);
    d->v[d->n++] = (nyb_dim){name, v};
    return 0;
  }
  case CLI_PAIR: {
    cli_pairs *p = o->to;
    if (!split(value, &name, &rest)) return usage(verb, "wants NAME=FILE", o->name);
    if (p->n == CLI_MAX_DIMS) return usage(verb, "given too often", o->name);
    p->name[p->n] = name;
    p->value[p->n++] = rest;
    return 0;
  }
  }
  return 0;
}

int cli_parse(const char *verb, const cli_option *opt, size_t n_opt, int argc, char **argv, const char **file, int cap, int *n_file) {
  *n_file = 0;
  for (int i = 0; i < argc; i++) {
    const char *a = argv[i];
    if (!strcmp(a, "--help") || !strcmp(a, "-h")) return help(verb, opt, n_opt), -1;
    if (a[0] != '-' || !a[1]) {
      if (*n_file == cap) return usage(verb, "one file too many", a);
      file[(*n_file)++] = a;
      continue;
    }
    size_t n = strcspn(a, "=");
    const cli_option *o = NULL;
    for (size_t k = 0; k < n_opt && !o; k++)
      if (strlen(opt[k].name) == n && !strncmp(opt[k].name, a, n)) o = &opt[k];
    if (!o) return usage(verb, "unknown option", a);
    const char *value = a[n] ? a + n + 1 : NULL;
    if (o->kind == CLI_FLAG && value) return usage(verb, "takes no value", o->name);
    if (o->kind != CLI_FLAG && !value) {
      if (i + 1 == argc) return usage(verb, "wants a value", a);
      value = argv[++i];
    }
    int bad = take(verb, o, value);
    if (bad) return bad;
  }
  return 0;
}
