/* nybble diff: two models on the same data: their results, and with --layers what each product and convolution has to do with the difference. */
#include "cli.h"
#include "compare.h"
#include "verbs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
  cli_dims dims;
  const char *data;
  int samples, layers, threads, json, seed;
} options;

/* ---- inputs made here, for want of data */
static int random_samples(const options *o, const nyb_module_info *info, cli_samples *s, cli_array **made) {
  *made = calloc(info->n_inputs + 1, sizeof **made);
  *s = (cli_samples){.n = 1, .n_in = info->n_inputs};
  s->in = NY_NEW_ARRAY(&s->a, nyb_tensor, info->n_inputs + 1);
  if (!*made) return cli_fail("out of memory");
  for (size_t i = 0; i < info->n_inputs; i++) {
    const nyb_value_info *v = &info->inputs[i];
    for (int k = 0; k < v->ndim; k++)
      if (v->shape[k] < 0) return cli_fail("input %s: dimension %d is %s: give it a size with --dim, or data with --data", v->name, k, v->symbols[k]);
    if (cli_array_new(v, v->shape, &(*made)[i])) return cli_fail("no memory for input %s", v->name);
    cli_array_random(&(*made)[i], (uint64_t)o->seed + i);
    s->in[i] = (*made)[i].t;
  }
  return CLI_OK;
}

/* ---- the table */
static void percent(ny_text *t, double squares) {
  if (squares < 0)
    ny_text_addf(t, " %10s", "-");
  else
    ny_text_addf(t, " %10.3g", sqrt(squares));
}

static void json_number(ny_text *t, const char *name, double squares) {
  if (squares < 0 || !isfinite(squares))
    ny_text_addf(t, ",\"%s\":null", name);
  else
    ny_text_addf(t, ",\"%s\":%.9g", name, sqrt(squares));
}

static void rows(ny_text *t, const char *title, const ny_pair *p, size_t n, bool layer, bool json) {
  if (json) ny_text_addf(t, "\"%s\":[", title);
  for (size_t i = 0; i < n; i++) {
    const ny_error *e = &p[i].error;
    double elements = e->weights < 0 || e->scales < 0 ? -1 : e->weights - e->scales;
    if (json) {
      ny_text_add(t, i ? ",\n{\"name\":" : "{\"name\":");
      ny_text_json(t, p[i].name);
      if (layer) ny_text_addf(t, ",\"op\":\"%s\",\"from\":\"%s\",\"to\":\"%s\"", p[i].kind, p[i].scheme[0], p[i].scheme[1]);
      json_number(t, "error", e->all);
      if (layer) {
        json_number(t, "own", e->own), json_number(t, "inputs", e->inputs), json_number(t, "weights", e->weights);
        json_number(t, "elements", elements), json_number(t, "scales", e->scales);
      }
      ny_text_add(t, "}");
      continue;
    }
    ny_text_addf(t, "%-44.44s", p[i].name);
    if (layer) ny_text_addf(t, " %-7s %-10s", p[i].kind, p[i].scheme[1]);
    percent(t, e->all);
    if (layer) percent(t, e->own), percent(t, e->inputs), percent(t, e->weights), percent(t, elements), percent(t, e->scales);
    ny_text_add(t, "\n");
  }
  if (json) ny_text_add(t, "]");
}

static void report(const ny_comparison *c, const options *o, size_t n) {
  ny_text t = {0};
  if (o->json) ny_text_addf(&t, "{\"samples\":%zu,", n);
  else ny_text_addf(&t, "relative error (root of squares), %zu sample%s\n%-44s %10s\n", n, n == 1 ? "" : "s", "result", "error");
  rows(&t, "results", c->result, c->n_result, false, o->json);
  if (o->layers && o->json) ny_text_add(&t, ",");
  if (o->layers && !o->json)
    ny_text_addf(&t, "\n%-44s %-7s %-10s %10s %10s %10s %10s %10s %10s\n", "layer", "op", "weights", "error", "own", "by inputs", "weights", "elements", "scales");
  if (o->layers) rows(&t, "layers", c->layer, c->n_layer, true, o->json);
  if (o->layers && o->json) ny_text_addf(&t, ",\"unmatched\":%zu", c->unmatched);
  if (o->layers && !o->json && c->unmatched) ny_text_addf(&t, "\n%zu layers of one model have none alike in the other\n", c->unmatched);
  if (o->json) ny_text_add(&t, "}\n");
  fputs(t.s, stdout);
  ny_text_free(&t);
}

static int diff(nyb_context *cx, nyb_model *const *m, const options *o, cli_samples *s, cli_array **made) {
  nyb_module_info info = {.size = sizeof info};
  ny_diag d = {0};
  cli_signature(m[0], &info);
  if (o->data && cli_samples_read(o->data, &info, s, &d)) return cli_diag(&d);
  int bad = o->data ? CLI_OK : random_samples(o, &info, s, made);
  if (bad) return bad;
  size_t n = o->samples && (size_t)o->samples < s->n ? (size_t)o->samples : s->n;
  ny_host_facts host;
  ny_host_read(&host);
  ny_samples samples = {n, s->n_in, s->in};
  ny_arena a = {0};
  ny_comparison c;
  nyb_status st = ny_compare(m[0], m[1], &samples, o->layers != 0, o->threads ? o->threads : host.n_cpu, &a, &c);
  cli_progress_end();
  if (st)
    bad = cli_error(cx, st);
  else
    report(&c, o, n);
  ny_arena_free(&a);
  return bad;
}

int verb_diff(int argc, char **argv) {
  options o = {0};
  const cli_option opt[] = {{"--layers", CLI_FLAG, &o.layers, NULL, "every product and convolution: what its inputs, the elements and the scales of its weights bring"},
                            {"--data", CLI_STRING, &o.data, "PATH", "an .npz with an array an input, or a folder of them (default: random inputs)"},
                            {"--samples", CLI_COUNT, &o.samples, "N", "use the first N samples (default: all)"},
                            {"--seed", CLI_COUNT, &o.seed, "N", "of random inputs (default 0)"},
                            {"--dim", CLI_DIM, &o.dims, "NAME=N", "replace a symbolic dimension by a number"},
                            {"--threads", CLI_COUNT, &o.threads, "N", "threads (default: all)"},
                            {"--json", CLI_FLAG, &o.json, NULL, "the tables as JSON"}};
  const char *file[2];
  cli_parse("diff", opt, NY_COUNT(opt), argc, argv, file, 2, 2);
  nyb_context *cx = cli_open(NULL);
  nyb_model *m[2] = {NULL, NULL};
  cli_samples samples = {0};
  cli_array *made = NULL;
  nyb_import_options io = {.size = sizeof io, .dims = o.dims.v, .n_dims = o.dims.n};
  nyb_status s = NYB_OK;
  for (int i = 0; i < 2 && !s; i++) s = nyb_import(cx, file[i], &io, &m[i]);
  int bad = s ? cli_error(cx, s) : diff(cx, m, &o, &samples, &made);
  for (int i = 0; i < 2; i++) nyb_model_close(m[i]);
  for (size_t i = 0; made && i < samples.n_in; i++) cli_array_free(&made[i]);
  free(made);
  cli_samples_free(&samples);
  nyb_close(cx);
  return bad;
}
