/* nybble compile, print and opt: the compiler as a tool. Each takes an .onnx file or .nyt text of any stage and resumes
 * after the stage it holds. */
#include "cli.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

typedef struct front_options {
  cli_dims dims;
  const char *from, *out, *target, *precision, *dump, *only, *until, *off;
  int optimize, verify, threads, no_ptx, source, strict;
} front_options;
#define FRONT_OPTIONS(o)                                                                                               \
  {"--from", CLI_STRING, &(o).from, "FILE", "resume from a dumped stage, given in place of a model"},                  \
      {"--dim", CLI_DIM, &(o).dims, "NAME=N", "replace a symbolic dimension by a number"},                             \
      {"--target", CLI_STRING, &(o).target, "T,U", "host (default), cpu, rows of `nybble ops --targets`"},             \
      {"--optimize", CLI_LEVEL, &(o).optimize, "N", "optimisation level 0 to 3 (default 2)"},                          \
      {"--precision", CLI_STRING, &(o).precision, "P", "operands of f32 products: f32 (default), tf32, bf16, f16"},    \
      {"--strict", CLI_FLAG, &(o).strict, NULL, "fail where packed weights would be unpacked"},                        \
      {"--only", CLI_STRING, &(o).only, "A,B", "run only these passes"},                                               \
      {"--until", CLI_STRING, &(o).until, "PASS", "stop after this pass"},                                             \
      {"--off", CLI_STRING, &(o).off, "A,B", "leave these passes out"},                                                \
      {"--dump", CLI_STRING, &(o).dump, "DIR", "write NN-pass.nyt of every stage and the code of every kernel"},       \
      {"--verify", CLI_FLAG, &(o).verify, NULL, "verify, print, re-read and compare after every pass"}, {              \
    "-o", CLI_STRING, &(o).out, "FILE", "where the result goes"                                                        \
  }

static nyb_compile_options compile_options(const front_options *o) {
  return (nyb_compile_options){.size = sizeof(nyb_compile_options),
                               .target = o->target,
                               .optimize = o->optimize,
                               .precision = o->precision,
                               .only = o->only,
                               .until = o->until,
                               .off = o->off,
                               .dump_dir = o->dump,
                               .verify_each = o->verify,
                               .threads = o->threads,
                               .no_ptx = o->no_ptx,
                               .with_source = o->source,
                               .strict = o->strict};
}

static int import(const front_options *o, const char *file, nyb_context **cx, nyb_model **model) {
  *cx = cli_open(NULL);
  nyb_import_options io = {.size = sizeof io, .dims = o->dims.v, .n_dims = o->dims.n};
  nyb_status s = nyb_import(*cx, file, &io, model);
  return s ? cli_error(*cx, s) : CLI_OK;
}

static const char *parse(const char *verb, const front_options *o, const cli_option *opt, size_t n_opt, int argc,
                         char **argv) {
  const char *file = NULL;
  if (!cli_parse(verb, opt, n_opt, argc, argv, &file, 0, 1) == !o->from)
    cli_usage(verb, "wants one model, or --from FILE");
  return file ? file : o->from;
}

int verb_compile(int argc, char **argv) {
  front_options o = {0};
  int json = 0;
  const cli_option opt[] = {FRONT_OPTIONS(o),
                            {"--threads", CLI_COUNT, &o.threads, "N", "threads of the compiler (default: all)"},
                            {"--no-ptx", CLI_FLAG, &o.no_ptx, NULL, "no PTX, which later CUDA devices compile"},
                            {"--with-source", CLI_FLAG, &o.source, NULL, "keep the CUDA source of every kernel"},
                            {"--json", CLI_FLAG, &json, NULL, "print what was done as JSON"}};
  const char *file = parse("compile", &o, opt, NY_COUNT(opt), argc, argv);
  if (!o.out) cli_usage("compile", "-o OUT.nyb is missing");
  nyb_context *cx;
  nyb_model *model = NULL;
  double t0 = ny_now(), t1 = t0;
  int bad = import(&o, file, &cx, &model);
  if (!bad) {
    t1 = ny_now();
    nyb_compile_options co = compile_options(&o);
    nyb_status s = nyb_compile(model, &co, o.out);
    if (s) bad = cli_error(cx, s);
  }
  double t2 = ny_now();
  cli_progress_end();
  if (!bad && json)
    printf("{\"import_s\":%.6f,\"compile_s\":%.6f}\n", t1 - t0, t2 - t1);
  else if (!bad)
    printf("%s: imported in %.0f ms, compiled in %.0f ms\n", o.out, (t1 - t0) * 1e3, (t2 - t1) * 1e3);
  nyb_model_close(model);
  nyb_close(cx);
  return bad;
}

static int text_out(nyb_context *cx, nyb_model *model, const char *out) {
  char *text;
  nyb_status s = nyb_print(model, &text);
  if (s) return cli_error(cx, s);
  ny_new_file nf;
  ny_diag d = {0};
  if (!out) {
    fputs(text, stdout);
  } else if (!ny_file_begin(out, &nf, &d)) {
    fputs(text, nf.f);
    ny_file_commit(&nf, &d);
  }
  nyb_free(text);
  return d.code ? cli_diag(&d) : CLI_OK;
}

/* print and opt differ in what runs by default: print stops after --stage, opt runs everything it is told to. */
static int passes_and_text(const front_options *o, const char *file, bool run) {
  nyb_context *cx;
  nyb_model *model = NULL;
  int bad = import(o, file, &cx, &model);
  if (!bad && run) {
    nyb_compile_options co = compile_options(o);
    nyb_status s = nyb_optimize(model, &co);
    if (s) bad = cli_error(cx, s);
  }
  cli_progress_end();
  if (!bad) bad = text_out(cx, model, o->out);
  nyb_model_close(model);
  nyb_close(cx);
  return bad;
}

int verb_print(int argc, char **argv) {
  front_options o = {0};
  const char *stage = NULL;
  const cli_option opt[] = {
      {"--stage", CLI_STRING, &stage, "PASS", "print the graph after this pass (default: as imported)"},
      FRONT_OPTIONS(o)};
  const char *file = parse("print", &o, opt, NY_COUNT(opt), argc, argv);
  if (stage) o.until = stage;
  return passes_and_text(&o, file, stage && strcmp(stage, "import"));
}

int verb_opt(int argc, char **argv) {
  front_options o = {0};
  const cli_option opt[] = {FRONT_OPTIONS(o)};
  return passes_and_text(&o, parse("opt", &o, opt, NY_COUNT(opt), argc, argv), true);
}
