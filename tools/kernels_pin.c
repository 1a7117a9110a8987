/* nybble kernels pin: the kernels of a folder whose text was edited go into a module in place of the generated ones. */
#include "kernels.h"
#include "model.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

typedef struct pins {
  const char *dir, *target, *off;
  ny_arena arena;
  ny_codegen_pin *pin;
  size_t n, cap;
} pins;

/* "// NAME: family F, for TARGET": what the folder was dumped for, and a kernel's name as the model has it. */
static nyb_status read_header(pins *p, const char *file, const char *text, const char **name, ny_diag *d) {
  const char *s = strstr(text, ": family "), *start = s, *target = s ? strstr(s, ", for ") : NULL;
  while (start && start > text && start[-1] != '\n') start--;
  if (!target || strncmp(start, "// ", 3))
    return ny_fail(d, NYB_E_PARSE, NULL, "%s has lost its line `// NAME: family F, for TARGET`", file);
  *name = ny_strndup(&p->arena, start + 3, (size_t)(s - start - 3));
  target += strlen(", for ");
  if (!p->target) p->target = ny_strndup(&p->arena, target, strcspn(target, " \n"));
  return NYB_OK;
}

/* The launch that was recorded must be what this source would be launched with in a model. */
static nyb_status check_launch(const cli_launch *l, ny_diag *d) {
  const cli_launch_arg *last = l->n_arg ? &l->arg[l->n_arg - 1] : NULL;
  if (!l->points || !last || last->kind != CLI_ARG_VALUE || last->fmt != NY_i64)
    return ny_fail(d, NYB_E_PARSE, NULL, "%s: not the launch of a model's kernel", l->path);
  int64_t n = ny_get_i(NY_i64, last->value, 0);
  if (l->grid[1] != 1 || l->grid[2] != 1 || l->block[1] != 1 || l->block[2] != 1 || n < 1 ||
      (n - 1) / l->points + 1 != l->grid[0])
    return ny_fail(d, NYB_E_ARGUMENT, NULL,
                   "%s: in a model the grid is points / %u blocks in one dimension: for %lld points %lld, not %u; "
                   "change `points` with the grid",
                   l->path, l->points, (long long)n, (long long)((n - 1) / l->points + 1), l->grid[0]);
  if (l->block[0] < l->points)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s: a block of %u threads for %u points, at most one each is expected",
                   l->path, l->block[0], l->points);
  return NYB_OK;
}

static nyb_status add(pins *p, const char *base, ny_diag *d) {
  char *text, hex[65];
  size_t n;
  cli_launch l;
  const char *file = kernels_path(&p->arena, p->dir, base, "cu"), *name = NULL;
  NY_TRY(ny_file_read(&p->arena, file, KERNELS_MAX_SOURCE, &text, &n, d));
  nyb_status s = cli_launch_read(kernels_path(&p->arena, p->dir, base, "launch"), &l, d);
  kernels_digest(text, hex);
  bool edited = !s && l.text && strcmp(l.text, hex) != 0;
  if (edited) s = check_launch(&l, d);
  if (edited && !s) s = read_header(p, file, text, &name, d);
  if (edited && !s) {
    NY_PUSH_ROOM(&p->arena, p->pin, p->n, p->cap);
    p->pin[p->n++] = (ny_codegen_pin){
        .kernel = name, .source = text, .block = (int)l.block[0], .points = (int)l.points, .shared = l.shared};
  }
  cli_launch_free(&l);
  return s;
}

static int find(pins *p) {
  struct dirent *e;
  ny_diag d = {0};
  DIR *dir = opendir(p->dir);
  if (!dir) return cli_fail("%s: cannot read the folder", p->dir);
  while (!d.code && (e = readdir(dir)))
    if (ny_ends_with(e->d_name, ".launch"))
      add(p, ny_strndup(&p->arena, e->d_name, strlen(e->d_name) - strlen(".launch")), &d);
  closedir(dir);
  if (d.code) return cli_diag(&d);
  return p->n ? CLI_OK : cli_fail("%s: no kernel was edited", p->dir);
}

static nyb_status compile(nyb_context *cx, nyb_model *m, const pins *p, int optimize, const char *out) {
  ny_arena a = {0};
  ny_compile_targets t = {.pin = p->pin, .n_pin = p->n};
  ny_pass_options po = {.opt = optimize ? optimize - 1 : 2, .off = p->off, .progress = cx->options.progress, .user = cx->options.user};
  nyb_status s = ny_target_list(p->target, &a, &t.target, &t.n, &cx->diag);
  bool gpu = false;
  for (size_t i = 0; i < t.n && !s; i++) gpu |= ny_on_gpu(t.target[i]);
  if (!s && !gpu) s = ny_fail(&cx->diag, NYB_E_ARGUMENT, NULL, "target %s has no CUDA kernels", p->target);
  if (!s) s = ny_model_hand_over(cx, m->ir, NULL, ny_compile_for(m->unit, &po, &t, 0, out));
  if (!s) ny_model_vouch(cx, out);
  ny_arena_free(&a);
  return s;
}

static int work(pins *p, const char *model, const cli_dims *dims, int optimize, const char *out) {
  int bad = find(p);
  if (bad) return bad;
  nyb_context *cx = cli_open(NULL);
  nyb_import_options io = {.size = sizeof io, .dims = dims->v, .n_dims = dims->n};
  nyb_model *m = NULL;
  nyb_status s = nyb_import(cx, model, &io, &m);
  if (!s) s = compile(cx, m, p, optimize, out);
  cli_progress_end();
  if (s) bad = cli_error(cx, s);
  for (size_t i = 0; i < p->n && !bad; i++) printf("pinned %s\n", p->pin[i].kernel);
  if (!bad) printf("%s: %zu pinned, for %s\n", out, p->n, p->target);
  nyb_model_close(m);
  nyb_close(cx);
  return bad;
}

int kernels_pin(int argc, char **argv) {
  pins p = {0};
  cli_dims dims = {0};
  const char *file[2], *out = NULL;
  int optimize = 0;
  const cli_option opt[] = {
      {"--dim", CLI_DIM, &dims, "NAME=N", "replace a symbolic dimension by a number, as for the dump"},
      {"--optimize", CLI_LEVEL, &optimize, "N", "optimisation level 0 to 3 (default 2), as for the dump"},
      {"--off", CLI_STRING, &p.off, "A,B", "leave these passes out, as for the dump"},
      {"--target", CLI_STRING, &p.target, "T,U", "default: what the kernels were dumped for"},
      {"-o", CLI_STRING, &out, "FILE", "the module"}};
  int n = cli_parse("kernels", opt, NY_COUNT(opt), argc, argv, file, 1, 2);
  if (n != 2 || !out) cli_usage("kernels", "pin wants a model, a folder and -o OUT.nyb");
  p.dir = file[1];
  int bad = work(&p, file[0], &dims, optimize, out);
  ny_arena_free(&p.arena);
  return bad;
}
