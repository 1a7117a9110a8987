/* A unit becomes a module file: for each target passes and machine code, then the file. The graph is copied (through
   its text) after `tidy`, the last stage that holds nothing of the target but panel widths: that copy goes into the
   file so that another machine, or one that does not trust our code, can compile it again. */
#include "codegen.h"
#include "cuda_code.h"
#include "module.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PORTABLE_STAGE "tidy"

typedef struct part { /* of one target */
  ny_compiled c;
  ny_image native;
  ny_cuda_code cuda;
  ny_cuda_image *later; /* PTX for devices to come, by unit */
} part;
typedef struct job {
  const ny_pass_options *options;
  const ny_compile_targets *targets;
  int threads;
  ny_diag *d;
  ny_arena a;
} job;

static nyb_status to_portable(ny_unit *u, const ny_pass_options *options, ny_unit **out) {
  ny_pass_options first = *options;
  int stop = ny_pass_index(PORTABLE_STAGE), done = u->done ? ny_pass_index(u->done) : -1;
  if (done > stop || options->until || options->only)
    return NYB_OK; /* resumed later than that: nothing portable is left */
  first.until = PORTABLE_STAGE;
  NY_TRY(ny_run_passes(u, &first));
  return ny_unit_copy(u, out);
}

static nyb_status lower(ny_unit *u, const ny_pass_options *options) {
  NY_TRY(ny_run_passes(u, options));
  if (u->done && !strcmp(u->done, ny_passes[ny_n_passes - 1].name)) return NYB_OK;
  return ny_fail(&u->cx->diag, NYB_E_ARGUMENT, NULL,
                 "the graph stopped after pass %s: a module needs all passes up to %s", u->done ? u->done : "import",
                 ny_passes[ny_n_passes - 1].name);
}

/* ---- code */
/* PTX for an architecture without a suffix, which every later device takes; the module gets it from the newest target
 * that has one. */
static nyb_status add_later(job *j, part *p) {
  p->later = calloc(p->cuda.n_image + 1, sizeof *p->later);
  if (!p->later) return ny_fail(j->d, NYB_E_NOMEM, NULL, "no memory for PTX");
  const char *arch = ny_strf(&j->a, "compute_%d", p->c.target->sm);
  for (size_t i = 0; i < p->cuda.n_image; i++)
    NY_TRY(ny_cuda_compile_source(p->cuda.image[i].source, ny_strf(&j->a, "%s_unit%zu", arch, i), arch, &p->later[i],
                                  j->d));
  p->c.portable_ptx = p->later;
  p->c.portable_arch = arch;
  return NYB_OK;
}

static nyb_status generate(job *j, part *p, const char *dump_dir) {
  ny_graph **kernel;
  size_t n;
  ny_unit_kernels(p->c.u, &j->a, &kernel, &n);
  const ny_pass_options *o = j->options;
  ny_codegen_request r = {.kernel = kernel,
                          .n = n,
                          .target = p->c.target,
                          .opt = o->opt,
                          .threads = j->threads,
                          .dump_dir = dump_dir,
                          .pin = j->targets->pin,
                          .n_pin = j->targets->n_pin,
                          .progress = o->progress,
                          .user = o->user};
  if (ny_on_gpu(p->c.target)) {
    p->c.cuda = &p->cuda;
    return ny_cuda_compile(&r, &p->cuda, j->d);
  }
  const ny_codegen *cg;
  p->c.native = &p->native;
  NY_TRY(ny_codegen_open(&cg, j->d));
  return cg->compile(&r, &p->native, j->d);
}

/* ---- targets */
static bool has_suffix(const ny_target *t) { return strchr("af", t->cpu[strlen(t->cpu) - 1]) != NULL; }

static size_t newest(const ny_compile_targets *t) {
  size_t best = t->n;
  for (size_t i = 0; i < t->n; i++)
    if (t->target[i]->sm && (best == t->n || t->target[i]->sm > t->target[best]->sm)) best = i;
  return best;
}

/* With several targets each dumps into a folder of its own. */
static const char *dump_dir_of(job *j, size_t i) {
  const char *dir = j->options->dump_dir;
  if (!dir || j->targets->n == 1) return dir;
  mkdir(dir, 0777);
  return ny_strf(&j->a, "%s/%s", dir, j->targets->target[i]->name);
}

static nyb_status make_part(job *j, part *p, size_t i, ny_unit **portable) {
  const ny_compile_targets *t = j->targets;
  ny_pass_options o = *j->options;
  o.target = p->c.target = t->target[i];
  o.dump_dir = dump_dir_of(j, i);
  p->c.keep = t->keep ? t->keep : 1 << NY_MI_CUBIN | 1 << NY_MI_PTX;
  if (!i) NY_TRY(to_portable(p->c.u, &o, portable));
  NY_TRY(lower(p->c.u, &o));
  NY_TRY(generate(j, p, o.dump_dir));
  bool later = i == newest(t) && has_suffix(o.target) && p->c.keep & 1 << NY_MI_PTX && !t->one_device;
  return later ? add_later(j, p) : NYB_OK;
}

static void free_part(part *p) {
  ny_image_free(&p->native);
  for (size_t i = 0; p->later && i < p->cuda.n_image; i++) ny_cuda_image_free(&p->later[i]);
  free(p->later);
  if (p->c.cuda) ny_cuda_code_free(&p->cuda);
}

/* Copies are made before the first target's passes change the unit. */
static nyb_status make_parts(job *j, ny_unit *u, part *p, const char *path) {
  size_t n = j->targets->n;
  ny_unit *portable = NULL;
  ny_compiled *c = NY_NEW_ARRAY(&j->a, ny_compiled, n);
  nyb_status s = NYB_OK;
  p[0].c.u = u;
  for (size_t i = 1; i < n && !s; i++) s = ny_unit_copy(u, &p[i].c.u);
  for (size_t i = 0; i < n && !s; i++) s = make_part(j, &p[i], i, &portable);
  for (size_t i = 0; i < n; i++) c[i] = p[i].c;
  if (!s) s = ny_module_write(c, n, portable, path, j->d);
  if (portable) ny_unit_free(portable);
  for (size_t i = 1; i < n; i++)
    if (p[i].c.u) ny_unit_free(p[i].c.u);
  return s;
}

nyb_status ny_compile_for(ny_unit *u, const ny_pass_options *options, const ny_compile_targets *targets, int threads,
                          const char *path) {
  if (!targets->n || targets->n > NY_MOD_MAX_PROGRAMS)
    return ny_fail(&u->cx->diag, NYB_E_ARGUMENT, NULL, "%zu targets, 1 to %d are expected", targets->n,
                   NY_MOD_MAX_PROGRAMS);
  job j = {.options = options, .targets = targets, .threads = threads, .d = &u->cx->diag};
  part *p = NY_NEW_ARRAY(&j.a, part, targets->n);
  nyb_status s = make_parts(&j, u, p, path);
  for (size_t i = 0; i < targets->n; i++) free_part(&p[i]);
  ny_arena_free(&j.a);
  return s;
}

nyb_status ny_compile(ny_unit *u, const ny_pass_options *options, int threads, const char *path) {
  ny_compile_targets one = {.target = &options->target, .n = 1, .one_device = true};
  return ny_compile_for(u, options, &one, threads, path);
}
