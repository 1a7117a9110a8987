/* nybble inspect: what a model holds, without running it. */
#include "cli.h"
#include "verbs.h"

#include "device.h"
#include "model.h"

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

/* ---- programs */
static uint64_t code_bytes(const ny_mod *q, int kind) {
  uint64_t n = kind < 0 ? q->code.bytes : 0;
  for (uint32_t i = 0; i < q->n_images; i++)
    if (kind < 0 || q->image[i].kind == kind) n += q->image[i].code.bytes;
  return n;
}

static const char *const kind_name[] = {[NY_MI_CUBIN] = "cubin", [NY_MI_PTX] = "PTX", [NY_MI_SOURCE] = "source"};

/* Images of a kind have one architecture. */
static const char *arch_of(const ny_mod *q, int kind) {
  for (uint32_t i = 0; i < q->n_images; i++)
    if (q->image[i].kind == kind) return q->image[i].arch;
  return NULL;
}

/* Launches of a program, each branch counted: as its commands stand, and where launches are merged in sizes that are small, both ways. */
typedef struct tally_of_launches {
  uint32_t n, merged; /* with launches merged; of them, those of kernels of calls */
  uint32_t alone;     /* without */
} tally_of_launches;

static tally_of_launches launches_of(const ny_mod *q) {
  tally_of_launches t = {0};
  for (uint32_t i = 0; i < q->n_commands; i++) {
    const ny_mod_command *c = &q->command[i];
    if (c->kind == NY_MC_CHOOSE) {
      t.n += c->n_then;
      t.merged += c->n_then;
      t.alone += c->n_else;
      i += c->n_then + c->n_else;
    } else if (c->kind == NY_MC_LAUNCH) {
      t.n++;
      t.alone++;
      t.merged += !strcmp(q->kernel[c->kernel].family, "merged");
    }
  }
  return t;
}

static void program_json(ny_text *t, const ny_mod *q, bool first) {
  ny_text_add(t, first ? "{\"target\":" : ",{\"target\":");
  ny_text_json(t, q->target);
  tally_of_launches l = launches_of(q);
  ny_text_addf(t, ",\"kernels\":%u,\"launches\":%u,\"merged_launches\":%u,\"launches_at_large_sizes\":%u,\"code_bytes\":%llu,\"images\":[",
               q->n_kernels, l.n, l.merged, l.alone, (unsigned long long)code_bytes(q, -1));
  for (int kind = 0, n = 0; kind < NY_MI_COUNT; kind++) {
    const char *arch = arch_of(q, kind);
    if (!arch) continue;
    ny_text_addf(t, "%s{\"kind\":\"%s\",\"arch\":", n++ ? "," : "", kind_name[kind]);
    ny_text_json(t, arch);
    ny_text_addf(t, ",\"bytes\":%llu}", (unsigned long long)code_bytes(q, kind));
  }
  ny_text_add(t, "]}");
}

static void program_line(ny_text *t, const ny_mod *q, bool first) {
  char c[32];
  tally_of_launches l = launches_of(q);
  ny_text_addf(t, "  %-8s %s: %u kernels, %u launches", first ? "targets" : "", q->target, q->n_kernels, l.n);
  if (l.alone != l.n) ny_text_addf(t, " (%u where sizes are too large for merged ones)", l.alone);
  ny_text_addf(t, ", code %s", cli_bytes((double)code_bytes(q, -1), c));
  const char *comma = " (";
  for (int kind = 0; kind < NY_MI_COUNT; kind++) {
    const char *arch = arch_of(q, kind);
    if (!arch) continue;
    ny_text_addf(t, "%s%s %s %s", comma, kind_name[kind], arch, cli_bytes((double)code_bytes(q, kind), c));
    comma = ", ";
  }
  ny_text_add(t, q->n_images ? ")\n" : "\n");
}

static void kernel_lines(ny_text *t, const ny_mod *q) {
  for (uint32_t i = 0; i < q->n_kernels; i++) {
    const ny_mod_kernel *k = &q->kernel[i];
    ny_text_addf(t, "  %-8s %-10s %s%s%s%s", i ? "" : "code", k->family, k->name, *k->note ? " [" : "", k->note,
                 *k->note ? "]" : "");
    if (q->sm) {
      ny_text_addf(t, " {block=%u,points=%u", k->block, k->points);
      if (k->shared) ny_text_addf(t, ",shared=%u", k->shared);
      ny_text_add(t, k->wide ? ",wide}" : "}");
    }
    ny_text_add(t, "\n");
  }
}

static void precision_rows(ny_text *t, const ny_mod *q, bool json) {
  if (json) ny_text_add(t, ",\"precision\":[");
  for (uint32_t i = 0; i < q->n_precision; i++) {
    const ny_mod_precision *p = &q->precision[i];
    const char *const field[] = {p->node, p->op, p->asked, p->done, p->why};
    static const char *const name[] = {"node", "op", "asked", "done", "why"};
    if (!json)
      ny_text_addf(t, "  %-8s %s (%s): %s asked, %s done%s%s\n", i ? "" : "precision", *p->node ? p->node : "?", p->op,
                   p->asked, p->done, *p->why ? ": " : "", p->why);
    for (size_t k = 0; json && k < NY_COUNT(field); k++) {
      ny_text_addf(t, "%s\"%s\":", k ? "," : i ? ",{" : "{", name[k]);
      ny_text_json(t, field[k]);
    }
    if (json) ny_text_add(t, "}");
  }
  ny_text_add(t, json ? "]" : q->n_precision ? "           all other products as asked\n" : "  precision all products as asked\n");
}

/* What a device would run of this file; false: nothing, and d says why. */
static bool choose(nyb_module *m, const char *device, ny_diag *d) {
  ny_device *dev;
  if (ny_device_open(device, &dev, d)) return false;
  ny_device_needs needs = ny_device_wants(dev);
  bool ok = !ny_module_select(m, &needs, d);
  ny_device_close(dev);
  return ok;
}

static void module_json(ny_text *t, const nyb_module *m, const nyb_module_info *in, const char *device) {
  ny_text_add(t, "{\"name\":");
  ny_text_json(t, in->name);
  ny_text_add(t, ",\"target\":");
  ny_text_json(t, m->mod.target);
  ny_text_addf(t, ",\"kernels\":%u,\"weight_bytes\":%llu,\"code_bytes\":%llu,\"file_bytes\":%llu", m->mod.n_kernels,
               (unsigned long long)in->weight_bytes, (unsigned long long)code_bytes(&m->mod, -1),
               (unsigned long long)in->file_bytes);
  ny_text_add(t, ",\"device\":");
  ny_text_json(t, device);
  ny_text_add(t, ",\"choice\":");
  m->why ? ny_text_json(t, m->why) : ny_text_add(t, "null");
  ny_text_add(t, ",\"programs\":[");
  for (uint32_t i = 0; i < m->n_programs; i++) program_json(t, &m->program[i], !i);
  ny_text_add(t, "]");
}

static void module_text(ny_text *t, const nyb_module *m, const nyb_module_info *in, const char *device,
                        const char *why_not) {
  char w[32], f[32];
  ny_text_addf(t, "%s\n  made by  %s\n", in->name, m->mod.producer);
  for (uint32_t i = 0; i < m->n_programs; i++) program_line(t, &m->program[i], !i);
  ny_text_addf(t, "  runs     on %s: %s\n", device, m->why ? m->why : why_not);
  ny_text_addf(t, "  weights  %s, file %s\n", cli_bytes((double)in->weight_bytes, w),
               cli_bytes((double)in->file_bytes, f));
}

static int module_report(const char *path, const char *device, bool verify, bool precision, bool json) {
  nyb_context *cx = cli_open(NULL);
  nyb_module *m;
  nyb_module_info in = {.size = sizeof in};
  ny_diag d = {0}, not = {0};
  if (ny_module_open(cx, path, &m, &d) || nyb_module_describe(m, &in) || (verify && ny_module_check_digests(m, &d)))
    return cli_diag(&d);
  choose(m, device, &not );
  if (!device) device = "cpu";
  ny_text t = {0};
  json ? module_json(&t, m, &in, device) : module_text(&t, m, &in, device, not .message);
  values(&t, "inputs", in.inputs, in.n_inputs, json);
  values(&t, "outputs", in.outputs, in.n_outputs, json);
  if (precision)
    precision_rows(&t, &m->mod, json);
  else if (!json)
    kernel_lines(&t, &m->mod);
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
  const char *file, *device = NULL;
  int bad = CLI_OK, json = 0, verify = 0, precision = 0;
  cli_dims dims = {0};
  const cli_option opt[] = {
      {"--dim", CLI_DIM, &dims, "NAME=N", "replace a symbolic dimension by a number"},
      {"--device", CLI_STRING, &device, "D",
       "of a .nyb: what cpu (default), cuda[:N] or sim[:PROFILE] would run of it"},
      {"--verify", CLI_FLAG, &verify, NULL, "of a .nyb: read the whole file and compare every segment with its digest"},
      {"--precision", CLI_FLAG, &precision, NULL, "of a .nyb: what its products do with their operands, beside what was asked"},
      {"--json", CLI_FLAG, &json, NULL, "the same as JSON"}};
  cli_parse("inspect", opt, NY_COUNT(opt), argc, argv, &file, 1, 1);
  if (ny_ends_with(file, ".nyb")) return module_report(file, device, verify, precision, json);
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
