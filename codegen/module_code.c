/* The code of a program: segments of the file, and the rows that say what it needs and where its kernels begin. */
#include <string.h>

#include "cuda_code.h"
#include "module_build.h"

/* ---- what a CPU must have */
typedef struct features {
  ny_module_builder *b;
  uint32_t cap;
} features;

static void add_feature(features *f, const char *name, size_t n) {
  ny_module_builder *b = f->b;
  const char **list = (const char **)(uintptr_t)b->m.feature;
  NY_PUSH_ROOM(&b->a, list, b->m.n_features, f->cap);
  list[b->m.n_features++] = ny_strndup(&b->a, name, n);
  b->m.feature = list;
}

/* The level its row is made for, and the row's own list. This machine's list is complete by itself. */
static void add_features(ny_module_builder *b) {
  features f = {.b = b};
  const char *s = b->p->target->features, *cpu = b->p->target->cpu;
  if (cpu && *cpu && strncmp(b->p->target->name, "host", 4)) add_feature(&f, cpu, strlen(cpu));
  while (s && *s) {
    size_t n = strcspn(s, ",");
    if (*s == '+' && n > 1) add_feature(&f, s + 1, n - 1);
    s += n + (s[n] == ',');
  }
}

static void add_target(ny_module_builder *b) {
  const ny_target *t = b->p->target;
  const char *triple = t->triple ? t->triple : "";
  b->m.target = t->name;
  b->m.arch = ny_strndup(&b->a, triple, strcspn(triple, "-"));
  b->m.sm = (uint32_t)t->sm;
  if (!t->sm) add_features(b);
}

/* ---- kernels, in the order in which the code generator was given them: as they stand in the unit */
static const char *note_of(ny_module_builder *b, const ny_graph *k, bool pinned) {
  ny_text t = {0};
  for (uint32_t i = 0; i < k->n_knob; i++)
    ny_text_addf(&t, "%s%s=%lld", i ? "," : "", k->knob[i].name, (long long)k->knob[i].value);
  for (const ny_op *op = ny_kernel_calls(k) ? k->body.first : NULL; op; op = op->next)
    if (op->kind == NY_call)
      ny_text_addf(&t, "%s%s", op->prev ? "+" : t.n ? ",calls=" : "calls=", op->attr[NY_AT(call, kernel)].s);
  if (pinned) ny_text_add(&t, t.n ? ",pinned" : "pinned");
  const char *s = ny_strdup(&b->a, t.s ? t.s : "");
  ny_text_free(&t);
  return s;
}

static void cuda_entry(ny_module_builder *b, const ny_graph *k, const ny_cuda_kernel *c, ny_mod_kernel *out) {
  uint8_t *bits = NY_NEW_ARRAY(&b->a, uint8_t, k->body.n_arg + 1);
  for (uint32_t i = 0; i < k->body.n_arg; i++) bits[i] = ny_fmts[k->body.arg[i]->type->fmt].bits;
  out->bits = bits;
  out->n_bits = k->body.n_arg;
  out->symbol = ny_strdup(&b->a, c->facts.symbol);
  out->unit = c->image;
  out->block = (uint32_t)c->facts.block;
  out->points = (uint32_t)c->facts.points;
  out->shared = c->facts.shared;
  out->wide = c->facts.index == 64;
}

static nyb_status add_kernels(ny_module_builder *b) {
  const ny_compiled *p = b->p;
  size_t n, have = p->cuda ? p->cuda->n : p->native->n;
  ny_unit_kernels(b->u, &b->a, &b->kernel, &n);
  if (n != have) return ny_fail(b->d, NYB_E_INTERNAL, NULL, "code of %zu kernels for a unit of %zu", have, n);
  b->m.kernel = NY_NEW_ARRAY(&b->a, ny_mod_kernel, n);
  for (size_t at = 0; at < n; at++) {
    const ny_graph *k = b->kernel[at];
    uint32_t i = b->m.n_kernels++;
    ny_name *sym;
    size_t n_sym;
    ny_kernel_symbols(k, &b->a, &sym, &n_sym);
    b->m.kernel[i] = (ny_mod_kernel){.name = k->name,
                                     .family = k->family,
                                     .note = note_of(b, k, p->cuda && p->cuda->kernel[i].pinned),
                                     .n_buffers = k->body.n_arg,
                                     .n_dims = (uint32_t)n_sym};
    if (p->cuda)
      cuda_entry(b, k, &p->cuda->kernel[i], &b->m.kernel[i]);
    else {
      b->m.kernel[i].entry = p->native->entry[i];
      b->m.kernel[i].scratch = p->native->scratch[i];
    }
  }
  return NYB_OK;
}

nyb_status ny_code_rows(ny_module_builder *b) {
  add_target(b);
  return add_kernels(b);
}

/* ---- segments */
static nyb_status add_image(ny_module_builder *b, ny_mod_image_kind kind, const char *arch, uint32_t unit,
                            const void *data, size_t bytes) {
  if (!data || !bytes) return NYB_OK;
  ny_mod_image *o = &b->m.image[b->m.n_images++];
  *o = (ny_mod_image){.kind = (uint8_t)kind, .arch = arch, .unit = unit};
  return ny_module_file_segment(&b->store->file, data, bytes, &o->code);
}

/* "sm_90a" -> "compute_90a", which a target may be already */
static const char *virtual_arch(ny_module_builder *b, const char *real) {
  return strncmp(real, "sm_", 3) ? real : ny_strf(&b->a, "compute_%s", real + 3);
}

/* Text keeps its final zero: that is how the driver reads it. */
static nyb_status store_images(ny_module_builder *b) {
  const ny_cuda_code *c = b->p->cuda;
  const char *real = b->p->target->cpu, *base = virtual_arch(b, real);
  b->m.image = NY_NEW_ARRAY(&b->a, ny_mod_image, c->n_image * NY_MI_COUNT + 1);
  b->m.n_units = (uint32_t)c->n_image;
  for (uint32_t i = 0; i < c->n_image; i++) {
    const ny_cuda_image *o = &c->image[i];
    const ny_cuda_image *later = b->p->portable_ptx ? &b->p->portable_ptx[i] : NULL;
    uint32_t before = b->m.n_images;
    if (b->p->keep & 1 << NY_MI_CUBIN) NY_TRY(add_image(b, NY_MI_CUBIN, real, i, o->cubin, o->cubin_bytes));
    if (later)
      NY_TRY(add_image(b, NY_MI_PTX, b->p->portable_arch, i, later->ptx, strlen(later->ptx) + 1));
    else if (b->p->keep & 1 << NY_MI_PTX && o->ptx)
      NY_TRY(add_image(b, NY_MI_PTX, base, i, o->ptx, strlen(o->ptx) + 1));
    if (b->p->keep & 1 << NY_MI_SOURCE && o->source)
      NY_TRY(add_image(b, NY_MI_SOURCE, base, i, o->source, strlen(o->source) + 1));
    if (b->m.n_images == before)
      return ny_fail(b->d, NYB_E_INTERNAL, NULL, "the compiler gave no code for unit %u of %s", i, real);
  }
  return NYB_OK;
}

nyb_status ny_code_store(ny_module_builder *b) {
  if (b->p->cuda) return store_images(b);
  const ny_image *im = b->p->native;
  return im->bytes ? ny_module_file_segment(&b->store->file, im->data, im->bytes, &b->m.code) : NYB_OK;
}
