/* nybble quantize: f32 weights become codes and block scales; a table says what that costs, layer by layer. */
#include "cli.h"
#include "qmodel.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
  cli_dims dims;
  const char *out, *format, *recipe, *calib, *embeddings, *layers;
  int threads, json, weights_only, least, samples;
  double bits, max_error, damping;
} options;

static void row(const ny_layer *l, ny_text *t, bool json) {
  const ny_weight *w = &l->weight;
  double bits = l->skip ? 32 : ny_scheme_bits(l->scheme, w->k);
  if (!json) {
    ny_text_addf(t, "%-48.48s %6lld x %-6lld ", l->name, (long long)w->n, (long long)w->k);
    if (l->skip)
      ny_text_addf(t, "stays: %s\n", l->skip);
    else
      ny_text_addf(t, "%-7s %5.2f %10.3g %10.3g%s%s\n", l->scheme->name, bits, l->q.mse, l->q.error,
                   l->uncalibrated ? "  " : "", l->uncalibrated ? l->uncalibrated : "");
    return;
  }
  ny_text_add(t, "{\"name\":");
  ny_text_json(t, l->name);
  ny_text_addf(t, ",\"op\":\"%s\",\"outputs\":%lld,\"inputs\":%lld,\"bits\":%.4f", ny_kinds[l->op->kind].name,
               (long long)w->n, (long long)w->k, bits);
  if (l->skip) {
    ny_text_add(t, ",\"skipped\":");
    ny_text_json(t, l->skip);
  } else
    ny_text_addf(t, ",\"scheme\":\"%s\",\"weight_error\":%.9g,\"output_error\":%.9g,\"calibrated\":%s,\"seconds\":%.3f",
                 l->scheme->name, l->q.mse, l->q.error, l->uncalibrated ? "false" : "true", l->seconds);
  ny_text_add(t, "}");
}

static void report(const ny_layers *ls, const options *o, double seconds) {
  ny_text t = {0};
  double bits = 0, elements = 0;
  size_t n = 0;
  for (size_t i = 0; i < ls->n; i++) {
    const ny_layer *l = &ls->v[i];
    double e = (double)l->weight.n * (double)l->weight.k;
    if (l->skip) continue;
    n++, elements += e, bits += e * ny_scheme_bits(l->scheme, l->weight.k);
  }
  if (o->json)
    ny_text_addf(&t, "{\"seconds\":%.3f,\"quantized\":%zu,\"weights\":%.0f,\"bits\":%.4f,\"layers\":[", seconds, n,
                 elements, elements > 0 ? bits / elements : 0);
  else
    ny_text_addf(&t, "%-48s %6s   %-6s %-7s %5s %10s %10s\n", "weight", "out", "in", "scheme", "bits", "error",
                 "on data");
  for (size_t i = 0; i < ls->n; i++) {
    if (o->json && i) ny_text_add(&t, ",\n");
    row(&ls->v[i], &t, o->json);
  }
  if (o->json)
    ny_text_add(&t, "]}\n");
  else
    ny_text_addf(&t, "\n%s: %zu of %zu weights, %.0f elements at %.3f bits, in %.1f s\n", o->out, n, ls->n, elements,
                 elements > 0 ? bits / elements : 0, seconds);
  fputs(t.s, stdout);
  ny_text_free(&t);
}

static int write_text(nyb_context *cx, nyb_model *m, const char *path) {
  char *text;
  nyb_status s = nyb_print(m, &text);
  if (s) return cli_error(cx, s);
  ny_new_file nf;
  ny_diag d = {0};
  if (!ny_file_begin(path, &nf, &d)) {
    fputs(text, nf.f);
    ny_file_commit(&nf, &d);
  }
  nyb_free(text);
  return d.code ? cli_diag(&d) : CLI_OK;
}

static int write_model(nyb_context *cx, nyb_model *m, ny_layers *ls, const char *from, const options *o) {
  bool onnx = ny_ends_with(o->out, ".onnx");
  nyb_status st = onnx ? ny_quantized_export(m, ls, from, o->out) : ny_quantized_apply(m, ls);
  if (st || onnx) return st ? cli_error(cx, st) : CLI_OK;
  if (ny_ends_with(o->out, ".nyt")) return write_text(cx, m, o->out);
  nyb_compile_options co = {.size = sizeof co, .threads = o->threads};
  nyb_status s = nyb_compile(m, &co, o->out);
  return s ? cli_error(cx, s) : CLI_OK;
}

static int quantize(const char *file, options *o, nyb_context *cx, nyb_model *m, cli_samples *samples, ny_arena *a) {
  ny_diag d = {0};
  ny_host_facts host;
  nyb_module_info info = {.size = sizeof info};
  ny_layers ls;
  ny_host_read(&host);
  cli_signature(m, &info);
  if (o->calib && cli_samples_read(o->calib, &info, samples, &d)) return cli_diag(&d);
  size_t n = o->samples && (size_t)o->samples < samples->n ? (size_t)o->samples : samples->n;
  const char *glob[CLI_MAX_DIMS];
  ny_quantize_options q = {.format = o->format,
                           .recipe = o->recipe,
                           .embeddings = o->embeddings,
                           .glob = glob,
                           .least = o->least,
                           .damping = o->damping,
                           .bits = o->bits,
                           .max_error = o->max_error,
                           .threads = o->threads ? o->threads : host.n_cpu,
                           .samples = {n, samples->n_in, samples->in}};
  for (char *s = ny_strdup(a, o->layers ? o->layers : ""), *save = NULL;
       q.n_glob < CLI_MAX_DIMS && (s = strtok_r(s, ",", &save)); s = NULL)
    glob[q.n_glob++] = s;
  double t0 = ny_now();
  nyb_status s = ny_quantize_model(m, &q, a, &ls);
  cli_progress_end();
  if (s) return cli_error(cx, s);
  double t1 = ny_now();
  int bad = write_model(cx, m, &ls, file, o);
  if (!bad) report(&ls, o, t1 - t0);
  ny_layers_free(&ls);
  return bad;
}

int verb_quantize(int argc, char **argv) {
  options o = {.format = "nvfp4", .embeddings = "none", .least = 1024};
  const cli_option opt[] = {
      {"-o", CLI_STRING, &o.out, "FILE",
       "where the result goes: .onnx, .nyb (compiled for this machine) or .nyt (text)"},
      {"--format", CLI_STRING, &o.format, "F", "nvfp4 (default), mxfp4, int4, mxfp8, fp8, int8"},
      {"--weights-only", CLI_FLAG, &o.weights_only, NULL, "activations stay as they are (default)"},
      {"--calib", CLI_STRING, &o.calib, "PATH",
       "calibration data: an .npz with an array an input, or a folder of them"},
      {"--samples", CLI_COUNT, &o.samples, "N", "use the first N samples (default: all)"},
      {"--recipe", CLI_STRING, &o.recipe, "R", "how scales and codes are chosen (default: the best the data allows)"},
      {"--damping", CLI_NUMBER, &o.damping, "X", "added to Hessians, as a part of their mean diagonal (default 0.05)"},
      {"--bits", CLI_NUMBER, &o.bits, "B", "mixed precision: layers that hurt get 8 bits, B a weight on average"},
      {"--max-error", CLI_NUMBER, &o.max_error, "E", "mixed precision: until the results' relative squared error is E"},
      {"--layers", CLI_STRING, &o.layers, "GLOB,..", "only weights of these names"},
      {"--embeddings", CLI_STRING, &o.embeddings, "F", "format of tables that are gathered from (default: none)"},
      {"--least", CLI_COUNT, &o.least, "N", "leave weights of fewer elements as they are (default 1024)"},
      {"--dim", CLI_DIM, &o.dims, "NAME=N", "replace a symbolic dimension by a number"},
      {"--threads", CLI_COUNT, &o.threads, "N", "threads (default: all)"},
      {"--json", CLI_FLAG, &o.json, NULL, "the table as JSON"}};
  const char *file;
  cli_parse("quantize", opt, NY_COUNT(opt), argc, argv, &file, 1, 1);
  if (!o.out) cli_usage("quantize", "-o FILE is missing");
  if (!ny_ends_with(o.out, ".nyb") && !ny_ends_with(o.out, ".nyt") && !ny_ends_with(o.out, ".onnx"))
    cli_usage("quantize", "-o %s: wants a .onnx, .nyb or .nyt file", o.out);
  if (ny_ends_with(o.out, ".onnx") && (!ny_ends_with(file, ".onnx") || o.dims.n))
    cli_usage("quantize", "-o %s: only an .onnx file, with its sizes as they are, is written as one", o.out);
  nyb_context *cx = cli_open(NULL);
  nyb_model *m = NULL;
  cli_samples samples = {0};
  ny_arena a = {0};
  nyb_import_options io = {.size = sizeof io, .dims = o.dims.v, .n_dims = o.dims.n};
  nyb_status s = nyb_import(cx, file, &io, &m);
  int bad = s ? cli_error(cx, s) : quantize(file, &o, cx, m, &samples, &a);
  nyb_model_close(m);
  cli_samples_free(&samples);
  ny_arena_free(&a);
  nyb_close(cx);
  return bad;
}
