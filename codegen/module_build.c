/* A lowered unit becomes a module file: constants are streamed, then code and the portable graph, then the rows that
 * say how to run it. */
#include <string.h>

#include "module_build.h"

/* ---- constants of the graph */
typedef struct collector {
  ny_module_builder *b;
  ny_weight *w;
  size_t n, cap;
} collector;

static nyb_status collect(void *user, ny_op *op) {
  collector *c = user;
  bool in_group = op->parent->parent && op->parent->parent->kind == NY_group;
  if (in_group || (op->kind != NY_const && !ny_is_const_group(op)) || !op->out[0]->uses) return NYB_OK;
  NY_PUSH_ROOM(&c->b->a, c->w, c->n, c->cap);
  c->w[c->n].op = op;
  return ny_weight_store(c->b, c->b->g, op, &c->w[c->n++].at);
}

/* ---- names */
static void add_feature(ny_module_builder *b, const char *name, size_t n) {
  const char **list = (const char **)(uintptr_t)b->m.feature;
  NY_PUSH_ROOM(&b->a, list, b->m.n_features, b->cap_features);
  list[b->m.n_features++] = ny_strndup(&b->a, name, n);
  b->m.feature = list;
}

/* What the code needs of a CPU: the level its row is made for, and the row's own list. This machine's list is complete
 * by itself. */
static void add_features(ny_module_builder *b) {
  const char *s = b->target->features, *cpu = b->target->cpu;
  if (cpu && *cpu && strncmp(b->target->name, "host", 4)) add_feature(b, cpu, strlen(cpu));
  while (s && *s) {
    size_t n = strcspn(s, ",");
    if (*s == '+' && n > 1) add_feature(b, s + 1, n - 1);
    s += n + (s[n] == ',');
  }
}

static void add_head(ny_module_builder *b) {
  const char *triple = b->target->triple ? b->target->triple : "";
  b->m.name = b->g->name ? b->g->name : "";
  b->m.producer = "nybble " NYB_VERSION;
  b->m.target = b->target->name;
  b->m.arch = ny_strndup(&b->a, triple, strcspn(triple, "-"));
  add_features(b);
}

static const char *note_of(ny_module_builder *b, const ny_graph *k) {
  ny_text t = {0};
  for (uint32_t i = 0; i < k->n_knob; i++)
    ny_text_addf(&t, "%s%s=%lld", i ? "," : "", k->knob[i].name, (long long)k->knob[i].value);
  const char *s = ny_strdup(&b->a, t.s ? t.s : "");
  ny_text_free(&t);
  return s;
}

/* In the order in which the code generator was given them: as they stand in the unit. */
static nyb_status add_kernels(ny_module_builder *b) {
  size_t n = 0;
  for (ny_graph *k = b->u->first; k; k = k->next) n += k->kernel;
  if (n != b->code->n)
    return ny_fail(b->d, NYB_E_INTERNAL, NULL, "code of %zu kernels for a unit of %zu", b->code->n, n);
  b->kernel = NY_NEW_ARRAY(&b->a, ny_graph *, n);
  b->m.kernel = NY_NEW_ARRAY(&b->a, ny_mod_kernel, n);
  for (ny_graph *k = b->u->first; k; k = k->next) {
    if (!k->kernel) continue;
    uint32_t i = b->m.n_kernels++;
    ny_name *sym;
    size_t n_sym;
    ny_kernel_symbols(k, &b->a, &sym, &n_sym);
    b->kernel[i] = k;
    b->m.kernel[i] = (ny_mod_kernel){.name = k->name,
                                     .family = k->family,
                                     .note = note_of(b, k),
                                     .entry = b->code->entry[i],
                                     .scratch = b->code->scratch[i],
                                     .n_buffers = k->body.n_arg,
                                     .n_dims = (uint32_t)n_sym};
  }
  return NYB_OK;
}

/* ---- the call */
static nyb_status write_segments(ny_module_builder *b, ny_unit *portable, const ny_weight *w, size_t n) {
  NY_TRY(ny_module_file_weights_end(&b->file, &b->small));
  if (b->code->bytes) NY_TRY(ny_module_file_segment(&b->file, b->code->data, b->code->bytes, &b->m.code));
  if (!portable) return NYB_OK;
  ny_text t = {0};
  nyb_status s = ny_portable_text(b, portable, w, n, &t);
  if (!s) s = ny_module_file_segment(&b->file, t.s, t.n, &b->m.graph);
  ny_text_free(&t);
  return s;
}

static nyb_status build(ny_module_builder *b, ny_unit *portable) {
  collector c = {.b = b};
  ny_weight *kept = NULL;
  size_t n_kept = 0;
  NY_TRY(ny_walk(&b->g->body, collect, &c));
  if (portable) NY_TRY(ny_portable_store(b, portable, &kept, &n_kept));
  NY_TRY(write_segments(b, portable, kept, n_kept));
  add_head(b);
  NY_TRY(add_kernels(b));
  NY_TRY(ny_rows_build(b, c.w, c.n));
  b->m.segment = b->file.segment;
  b->m.n_segments = b->file.n_segments;
  return NYB_OK;
}

nyb_status ny_module_write(ny_unit *u, const ny_target *target, const ny_image *code, ny_unit *portable,
                           const char *path, ny_diag *d) {
  if (!u->first || u->first->kernel) return ny_fail(d, NYB_E_ARGUMENT, NULL, "the unit has no graph to compile");
  ny_module_builder b = {.u = u, .g = u->first, .cx = u->cx, .target = target, .code = code, .d = d};
  NY_TRY(ny_module_file_begin(path, &b.file, d));
  nyb_status s = build(&b, portable);
  if (s)
    ny_module_file_abort(&b.file);
  else
    s = ny_module_file_end(&b.file, &b.m);
  ny_arena_free(&b.a);
  return s;
}
