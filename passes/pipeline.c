/* Runs the rows of passes.def over a unit: which ones, in what order, with what checks and dumps between them. */
#include <string.h>
#include <sys/stat.h>

#include "rewrite.h"

#define PASS(name, before, after, opt, text) ny_pass_fn ny_pass_##name;
#define AFTER(later, earlier, why)
#include "passes.def"
#undef PASS
#undef AFTER

const ny_pass_info ny_passes[] = {
#define PASS(name, before, after, opt, text) {#name, text, NY_##before, NY_##after, opt, ny_pass_##name},
#define AFTER(later, earlier, why)
#include "passes.def"
#undef PASS
#undef AFTER
};
const int ny_n_passes = NY_COUNT(ny_passes);

int ny_pass_index(const char *name) {
  for (int i = 0; i < ny_n_passes; i++)
    if (name && !strcmp(ny_passes[i].name, name)) return i;
  return -1;
}

nyb_status ny_precision_find(const char *name, ny_precision *out, ny_diag *d) {
  static const char *const names[] = {"f32", "tf32", "bf16", "f16"};
  *out = NY_PRECISION_f32;
  if (!name) return NYB_OK;
  for (size_t i = 0; i < NY_COUNT(names); i++)
    if (!strcmp(names[i], name)) return *out = (ny_precision)i, NYB_OK;
  return ny_fail(d, NYB_E_ARGUMENT, NULL, "unknown precision \"%s\"; known are f32, tf32, bf16, f16", name);
}

/* Is `name` one of the comma-separated names of `list`? */
static bool listed(const char *list, const char *name) {
  size_t n = strlen(name);
  for (const char *p = list; p && *p;) {
    size_t len = strcspn(p, ",");
    if (len == n && !memcmp(p, name, n)) return true;
    p += len + (p[len] == ',');
  }
  return false;
}

static nyb_status check_list(ny_diag *d, const char *option, const char *list) {
  for (const char *p = list; p && *p;) {
    size_t len = strcspn(p, ",");
    bool known = false;
    for (int i = 0; i < ny_n_passes; i++)
      known |= strlen(ny_passes[i].name) == len && !memcmp(ny_passes[i].name, p, len);
    if (!known) return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s: there is no pass named %.*s", option, (int)len, p);
    p += len + (p[len] == ',');
  }
  return NYB_OK;
}

static bool selected(const ny_pass_options *o, const ny_pass_info *p) {
  if (o->only) return listed(o->only, p->name);
  return o->opt >= p->opt && !listed(o->off, p->name);
}

static nyb_status verify_pass(ny_unit *u) {
  NY_TRY(ny_verify_unit(u));
  ny_text once = {0}, twice = {0};
  ny_print_unit(u, &once);
  ny_unit *again = NULL;
  nyb_status s = ny_parse_like(u, once.s, once.n, &again);
  if (!s) {
    ny_print_unit(again, &twice);
    if (once.n != twice.n || memcmp(once.s, twice.s, once.n) != 0)
      s = ny_fail(&u->cx->diag, NYB_E_VERIFY, NULL, "the printed graph reads back differently");
    ny_unit_free(again);
  }
  ny_text_free(&once);
  ny_text_free(&twice);
  return s;
}

/* A pass that changed nothing is dumped as well: any of the files can be edited and fed back. */
static nyb_status dump(ny_unit *u, const char *dir, int number, const char *name) {
  ny_diag *d = &u->cx->diag;
  ny_text t = {0};
  ny_print_unit(u, &t);
  ny_arena a = {0};
  ny_new_file f;
  mkdir(dir, 0777);
  nyb_status s = ny_file_begin(ny_strf(&a, "%s/%02d-%s.nyt", dir, number, name), &f, d);
  if (!s) {
    fwrite(t.s, 1, t.n, f.f);
    s = ny_file_commit(&f, d);
  }
  ny_text_free(&t);
  ny_arena_free(&a);
  return s;
}

static nyb_status run_one(ny_unit *u, const ny_pass_options *o, int index) {
  const ny_pass_info *p = &ny_passes[index];
  bool changed = false;
  nyb_status s = NYB_OK;
  for (ny_graph *g = u->first, *next; g && !s; g = next) {
    next = g->next;
    if (g->kernel) continue;
    ny_pass_cx px = {.unit = u, .opt = o, .target = o->target};
    s = p->run(&px, g, &changed);
    if (!s) s = u->cx->diag.code;
    ny_arena_free(&px.scratch);
  }
  if (!s) u->done = p->name;
  if (!s && o->verify_each) s = verify_pass(u);
  if (!s && o->dump_dir) s = dump(u, o->dump_dir, index + 1, p->name);
  if (s && !u->cx->diag.pass) u->cx->diag.pass = p->name;
  return s;
}

nyb_status ny_run_passes(ny_unit *u, const ny_pass_options *o) {
  ny_diag *d = &u->cx->diag;
  NY_TRY(check_list(d, "only", o->only));
  NY_TRY(check_list(d, "until", o->until));
  NY_TRY(check_list(d, "off", o->off));
  int first = u->done ? ny_pass_index(u->done) + 1 : 0, last = o->until ? ny_pass_index(o->until) : ny_n_passes - 1;
  if (o->verify_each) NY_TRY(verify_pass(u));
  if (o->dump_dir && !first) NY_TRY(dump(u, o->dump_dir, 0, "import"));
  for (int i = first; i <= last; i++) {
    if (!selected(o, &ny_passes[i])) continue;
    if (o->progress) o->progress(o->user, ny_passes[i].name, (double)(i - first) / (last - first + 1));
    NY_TRY(run_one(u, o, i));
  }
  return NYB_OK;
}
