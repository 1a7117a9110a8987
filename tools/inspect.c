/* nybble inspect: what a model holds, without running it. */
#include "cli.h"
#include "verbs.h"

#include "model.h"
#include "module.h"

#include <stdlib.h>
#include <string.h>

static void values(ny_text *t, const char *title, const nyb_value_info *v, size_t n, bool json) {
  if (json) ny_text_addf(t, ",\"%s\":[", title);
  for (size_t i = 0; i < n; i++) {
    if (json) {
      ny_text_add(t, i ? ",{\"name\":" : "{\"name\":");
      ny_text_json(t, v[i].name);
      ny_text_addf(t, ",\"dtype\":\"%s\",\"shape\":[", ny_fmts[ny_module_format(v[i].dtype)].name);
    } else
      ny_text_addf(t, "  %-8s %s : %s[", i ? "" : title, v[i].name, ny_fmts[ny_module_format(v[i].dtype)].name);
    for (int d = 0; d < v[i].ndim; d++) {
      if (d) ny_text_add(t, ",");
      if (!v[i].symbols[d])
        ny_text_addf(t, "%lld", (long long)v[i].shape[d]);
      else if (json)
        ny_text_json(t, v[i].symbols[d]);
      else
        ny_text_add(t, v[i].symbols[d]);
    }
    ny_text_add(t, json ? "]}" : "]\n");
  }
  if (json) ny_text_add(t, "]");
}

static int module_report(const char *path, bool verify, bool json) {
  nyb_context *cx = cli_open(NULL);
  nyb_module *m;
  nyb_module_info in = {.size = sizeof in};
  ny_diag d = {0};
  if (ny_module_open(cx, path, &m, &d) || nyb_module_describe(m, &in) || (verify && ny_module_check_digests(m, &d)))
    return cli_diag(&d);
  ny_text t = {0};
  char w[32], c[32], f[32];
  if (json) {
    ny_text_add(&t, "{\"name\":");
    ny_text_json(&t, in.name);
    ny_text_addf(&t, ",\"target\":\"%s\",\"kernels\":%zu,\"weight_bytes\":%llu,\"code_bytes\":%llu,\"file_bytes\":%llu",
                 in.target, in.n_kernels, (unsigned long long)in.weight_bytes, (unsigned long long)in.code_bytes,
                 (unsigned long long)in.file_bytes);
  } else
    ny_text_addf(&t, "%s\n  made by  %s\n  target   %s\n  kernels  %zu, code %s\n  weights  %s, file %s\n", in.name,
                 m->mod.producer, in.target, in.n_kernels, cli_bytes((double)in.code_bytes, c),
                 cli_bytes((double)in.weight_bytes, w), cli_bytes((double)in.file_bytes, f));
  values(&t, "inputs", in.inputs, in.n_inputs, json);
  values(&t, "outputs", in.outputs, in.n_outputs, json);
  for (uint32_t i = 0; !json && i < m->mod.n_kernels; i++) {
    const ny_mod_kernel *k = &m->mod.kernel[i];
    ny_text_addf(&t, "  %-8s %-10s %s%s%s%s\n", i ? "" : "code", k->family, k->name, *k->note ? " [" : "", k->note,
                 *k->note ? "]" : "");
  }
  if (json)
    ny_text_add(&t, "}\n");
  else if (verify)
    ny_text_add(&t, "every segment matches its digest\n");
  fputs(t.s, stdout);
  ny_text_free(&t);
  nyb_module_close(m);
  nyb_close(cx);
  return CLI_OK;
}

typedef struct tally {
  uint64_t ops[NY_N_KINDS], total;
} tally;

static nyb_status count(void *user, ny_op *op) {
  tally *c = user;
  c->ops[op->kind]++;
  c->total++;
  return NYB_OK;
}

static void graph_report(nyb_model *m, bool json) {
  ny_graph *g = m->unit->first;
  tally c = {0};
  ny_walk(&g->body, count, &c);
  uint64_t blob_bytes = 0;
  for (const ny_blob *b = m->unit->blobs; b; b = b->next) blob_bytes += b->bytes;
  nyb_module_info in;
  cli_signature(m, &in);
  ny_text t = {0};
  char w[32];
  if (json) {
    ny_text_add(&t, "{\"name\":");
    ny_text_json(&t, in.name ? in.name : "");
    ny_text_addf(&t, ",\"ops\":%llu,\"weight_bytes\":%llu", (unsigned long long)c.total,
                 (unsigned long long)blob_bytes);
  } else
    ny_text_addf(&t, "%s\n  ops      %llu\n  weights  %s\n", in.name ? in.name : "", (unsigned long long)c.total,
                 cli_bytes((double)blob_bytes, w));
  values(&t, "inputs", in.inputs, in.n_inputs, json);
  values(&t, "outputs", in.outputs, in.n_outputs, json);
  ny_text_add(&t, json ? ",\"kinds\":{" : "  kinds   ");
  const char *comma = "";
  for (int k = 0; k < NY_N_KINDS; k++) {
    if (!c.ops[k]) continue;
    ny_text_addf(&t, json ? "%s\"%s\":%llu" : "%s %s:%llu", json ? comma : "", ny_kinds[k].name,
                 (unsigned long long)c.ops[k]);
    comma = ",";
  }
  ny_text_add(&t, json ? "}}\n" : "\n");
  fputs(t.s, stdout);
  ny_text_free(&t);
}

int verb_inspect(int argc, char **argv) {
  const char *file;
  int bad = CLI_OK, json = 0, verify = 0;
  cli_dims dims = {0};
  const cli_option opt[] = {
      {"--dim", CLI_DIM, &dims, "NAME=N", "replace a symbolic dimension by a number"},
      {"--verify", CLI_FLAG, &verify, NULL, "of a .nyb: read the whole file and compare every segment with its digest"},
      {"--json", CLI_FLAG, &json, NULL, "the same as JSON"}};
  cli_parse("inspect", opt, NY_COUNT(opt), argc, argv, &file, 1, 1);
  if (ny_ends_with(file, ".nyb")) return module_report(file, verify, json);
  nyb_context *cx = cli_open(NULL);
  nyb_import_options io = {.size = sizeof io, .dims = dims.v, .n_dims = dims.n};
  nyb_model *m = NULL;
  nyb_status s = nyb_import(cx, file, &io, &m);
  cli_progress_end();
  if (s)
    bad = cli_error(cx, s);
  else
    graph_report(m, json);
  nyb_model_close(m);
  nyb_close(cx);
  return bad;
}
