/* nybble ops: the tables nybble is made of: targets, ops, passes, kernel families, ONNX operators. */
#include "cli.h"
#include "verbs.h"

#include "codegen.h"

static const struct {
  const char *domain, *name, *since;
} operators[] = {
    /* one row a meaning: what an operator means may change with the opset */
#define ONNX(domain, op, first, last, required, builder, arg) {domain, op, #first "+"},
#include "onnx_ops.def"
#undef ONNX
};

static const char *level_name(int level) { return level == NY_GRAPH ? "graph" : level == NY_TILE ? "tile" : "both"; }

static void row(bool json, bool first, const char *name, const char *kind, const char *text) {
  if (!json) {
    printf("  %-20s %-6s %s\n", name, kind, text);
    return;
  }
  ny_text t = {0};
  ny_text_add(&t, first ? "{\"name\":" : ",{\"name\":");
  ny_text_json(&t, name);
  ny_text_add(&t, ",\"kind\":");
  ny_text_json(&t, kind);
  ny_text_add(&t, ",\"text\":");
  ny_text_json(&t, text);
  ny_text_add(&t, "}");
  fputs(t.s, stdout);
  ny_text_free(&t);
}

static void title(bool json, const char *name, bool first) {
  if (json)
    printf("%s\"%s\":[", first ? "{" : "],", name);
  else
    printf("%s%s\n", first ? "" : "\n", name);
}

int verb_ops(int argc, char **argv) {
  int json = 0, targets = 0;
  const cli_option opt[] = {{"--targets", CLI_FLAG, &targets, NULL, "only the targets"},
                            {"--json", CLI_FLAG, &json, NULL, "the tables as JSON"}};
  cli_parse("ops", opt, NY_COUNT(opt), argc, argv, NULL, 0, 0);
  title(json, "targets", true);
  for (int i = 0; i < ny_n_targets; i++) row(json, !i, ny_targets[i].name, "", ny_targets[i].features);
  if (!targets) {
    title(json, "ops", false);
    for (int k = 0; k < NY_N_KINDS; k++)
      row(json, !k, ny_kinds[k].name, ny_kinds[k].flags & NY_MAP ? "map" : level_name(ny_kinds[k].level),
          ny_kinds[k].text);
    title(json, "passes", false);
    for (int i = 0; i < ny_n_passes; i++) row(json, !i, ny_passes[i].name, "", ny_passes[i].text);
    title(json, "families", false);
    for (int i = 0; i < ny_n_families; i++) row(json, !i, ny_families[i].name, "", ny_families[i].text);
    title(json, "operators", false);
    for (size_t i = 0; i < NY_COUNT(operators); i++)
      row(json, !i, operators[i].name, operators[i].since, operators[i].domain);
  }
  if (json) puts("]}");
  return CLI_OK;
}
