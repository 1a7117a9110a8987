/* What the flatbuffer verifier does not know: that indices are in range, expressions use earlier rows, segments lie
   inside the file and commands nest. After this the runtime indexes without looking again; sizes depend on symbols and
   are checked when those are known. */
#include "module.h"
#include <string.h>

typedef struct check {
  const ny_mod *m;
  uint32_t n_shared; /* expressions that are the module's */
  uint64_t fb_at, fb_bytes, file_bytes;
  ny_diag *d;
} check;

static nyb_status bad_index(check *c, const char *what, uint64_t row, const char *field, uint64_t got, uint64_t n) {
  return ny_fail(c->d, NYB_E_PARSE, NULL, "%s %llu: %s is %llu, the module has %llu", what, (unsigned long long)row,
                 field, (unsigned long long)got, (unsigned long long)n);
}

#define IN_RANGE(what, row, field, got, n)                                                                             \
  do {                                                                                                                 \
    if ((got) >= (n)) return bad_index(c, what, row, field, got, n);                                                   \
  } while (0)

/* ---- expressions */
static nyb_status check_expr(check *c, uint32_t i) {
  const ny_mod_expr *e = &c->m->expr[i];
  if (e->op >= NY_MX_COUNT) return bad_index(c, "expression", i, "operator", e->op, NY_MX_COUNT);
  bool uses_a = e->op != NY_MX_CONST && e->op != NY_MX_SYMBOL, uses_b = uses_a && e->op != NY_MX_ALIGN;
  if ((uses_a && (e->a < 0 || e->a >= (int64_t)i)) || (uses_b && (e->b < 0 || e->b >= (int64_t)i)))
    return ny_fail(c->d, NYB_E_PARSE, NULL, "expression %u uses rows %d and %d, only earlier ones exist", i, e->a,
                   e->b);
  if (e->op == NY_MX_SYMBOL && (e->value < 0 || e->value >= c->m->n_symbols))
    return ny_fail(c->d, NYB_E_PARSE, NULL, "expression %u names symbol %lld, the module has %u", i,
                   (long long)e->value, c->m->n_symbols);
  if (e->op == NY_MX_ALIGN && e->value <= 0)
    return ny_fail(c->d, NYB_E_PARSE, NULL, "expression %u aligns to %lld", i, (long long)e->value);
  return NYB_OK;
}

/* ---- segments */
static nyb_status check_segment(check *c, const char *what, uint64_t row, const ny_mod_segment *s) {
  bool inside = s->offset % NY_MOD_PAGE == 0 && s->offset >= NY_MOD_HEADER && s->offset <= c->file_bytes &&
                s->bytes <= c->file_bytes - s->offset;
  bool apart = inside && (s->offset + s->bytes <= c->fb_at || s->offset >= c->fb_at + c->fb_bytes);
  if (apart) return NYB_OK;
  return ny_fail(c->d, NYB_E_PARSE, NULL,
                 "%s %llu: %llu bytes at %llu do not lie page-aligned beside the description in the file of %llu bytes",
                 what, (unsigned long long)row, (unsigned long long)s->bytes, (unsigned long long)s->offset,
                 (unsigned long long)c->file_bytes);
}

/* ---- buffers and values */
static nyb_status check_buffer(check *c, uint32_t i) {
  const ny_mod_buffer *b = &c->m->buffer[i];
  IN_RANGE("buffer", i, "size", b->bytes, c->m->n_exprs);
  switch ((ny_mod_place)b->place) {
  case NY_MP_ARENA: IN_RANGE("buffer", i, "offset", b->offset, c->m->n_exprs); return NYB_OK;
  case NY_MP_WEIGHT:
    IN_RANGE("buffer", i, "segment", b->index, c->m->n_segments);
    IN_RANGE("buffer", i, "offset", b->offset, c->m->n_exprs);
    return NYB_OK;
  case NY_MP_INPUT: IN_RANGE("buffer", i, "input", b->index, c->m->n_inputs); return NYB_OK;
  case NY_MP_OUTPUT: IN_RANGE("buffer", i, "output", b->index, c->m->n_outputs); return NYB_OK;
  case NY_MP_COUNT: break;
  }
  return bad_index(c, "buffer", i, "place", b->place, NY_MP_COUNT);
}

static nyb_status check_values(check *c, const char *what, const ny_mod_value *v, uint32_t n, ny_mod_place place) {
  for (uint32_t i = 0; i < n; i++) {
    for (uint32_t k = 0; k < v[i].rank; k++) IN_RANGE(what, i, "dimension", v[i].dim[k], c->n_shared);
    IN_RANGE(what, i, "buffer", v[i].buffer, c->m->n_buffers);
    const ny_mod_buffer *b = &c->m->buffer[v[i].buffer];
    if (b->place != place || b->index != i)
      return ny_fail(c->d, NYB_E_PARSE, NULL, "%s %u \"%.80s\" is in buffer %u, which is not its own", what, i,
                     v[i].name, v[i].buffer);
  }
  return NYB_OK;
}

/* ---- kernels and commands */
static bool identifier(const char *s) {
  size_t n = strlen(s);
  for (size_t i = 0; i < n; i++) {
    bool letter = s[i] == '_' || s[i] == '$' || (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z');
    if (!letter && (!i || s[i] < '0' || s[i] > '9')) return false;
  }
  return n > 0 && n < 1024;
}

static nyb_status check_cuda_kernel(check *c, uint32_t i, const ny_mod_kernel *k) {
  IN_RANGE("kernel", i, "unit", k->unit, c->m->n_units);
  if (!identifier(k->symbol))
    return ny_fail(c->d, NYB_E_PARSE, NULL, "kernel %u: \"%.80s\" cannot be the name of a function", i, k->symbol);
  if (k->block < 1 || k->block > 1024 || k->points < 1 || k->points > k->block)
    return ny_fail(c->d, NYB_E_PARSE, NULL,
                   "kernel %u: a block of %u threads for %u grid points; 1 to 1024 threads and at most one point for "
                   "each are expected",
                   i, k->block, k->points);
  IN_RANGE("kernel", i, "shared memory", k->shared, (uint64_t)(1 << 20) + 1);
  if (k->n_bits != k->n_buffers)
    return ny_fail(c->d, NYB_E_PARSE, NULL, "kernel %u: the sizes of %u elements for %u buffers", i, k->n_bits,
                   k->n_buffers);
  for (uint32_t b = 0; b < k->n_bits; b++)
    if (k->bits[b] < 1 || k->bits[b] > 128)
      return ny_fail(c->d, NYB_E_PARSE, NULL, "kernel %u: elements of %u bits in buffer %u", i, k->bits[b], b);
  return NYB_OK;
}

static nyb_status check_kernel(check *c, uint32_t i) {
  const ny_mod_kernel *k = &c->m->kernel[i];
  IN_RANGE("kernel", i, "number of buffers", k->n_buffers, NY_MOD_MAX_ARGS + 1);
  IN_RANGE("kernel", i, "number of dimensions", k->n_dims, NY_MOD_MAX_ARGS + 1);
  if (c->m->sm) return check_cuda_kernel(c, i, k);
  IN_RANGE("kernel", i, "entry", k->entry, c->m->code.bytes);
  IN_RANGE("kernel", i, "scratch size", k->scratch, ((uint64_t)1 << 40) + 1);
  return NYB_OK;
}

/* Every unit in its turn, so that there is code for each. */
static nyb_status check_image(check *c, uint32_t i) {
  const ny_mod_image *o = &c->m->image[i];
  uint32_t before = i ? o[-1].unit : UINT32_MAX;
  ny_cuda_arch arch;
  IN_RANGE("image", i, "kind", o->kind, NY_MI_COUNT);
  if (o->unit != before && o->unit != before + 1)
    return ny_fail(c->d, NYB_E_PARSE, NULL, "image %u is of unit %u, which is not next", i, o->unit);
  if (!ny_cuda_arch_parse(o->arch, &arch) || arch.real != (o->kind == NY_MI_CUBIN))
    return ny_fail(c->d, NYB_E_PARSE, NULL, "image %u: \"%.40s\" is no architecture of such code", i, o->arch);
  if (!o->code.bytes) return ny_fail(c->d, NYB_E_PARSE, NULL, "image %u is empty", i);
  return check_segment(c, "image", i, &o->code);
}

static nyb_status check_code(check *c) {
  const ny_mod *m = c->m;
  if (m->sm ? m->code.bytes : m->n_images)
    return ny_fail(c->d, NYB_E_PARSE, NULL, "the program for %.80s holds code of another kind", m->target);
  if (m->code.bytes) NY_TRY(check_segment(c, "code", 0, &m->code));
  for (uint32_t i = 0; i < m->n_images; i++) NY_TRY(check_image(c, i));
  return NYB_OK;
}

static bool writable(const check *c, uint32_t buffer) {
  uint8_t p = c->m->buffer[buffer].place;
  return p == NY_MP_ARENA || p == NY_MP_OUTPUT;
}

static nyb_status check_launch(check *c, uint32_t i, const ny_mod_command *q) {
  IN_RANGE("command", i, "kernel", q->kernel, c->m->n_kernels);
  const ny_mod_kernel *k = &c->m->kernel[q->kernel];
  if (q->n_buffers != k->n_buffers || q->n_dims != k->n_dims)
    return ny_fail(c->d, NYB_E_PARSE, NULL,
                   "command %u gives kernel %.80s %u buffers and %u dimensions, it takes %u and %u", i, k->name,
                   q->n_buffers, q->n_dims, k->n_buffers, k->n_dims);
  for (uint32_t j = 0; j < q->n_dims; j++) IN_RANGE("command", i, "dimension", q->dim[j], c->m->n_exprs);
  IN_RANGE("command", i, "extent", q->extent, c->m->n_exprs);
  IN_RANGE("command", i, "grain", q->grain, c->m->n_exprs);
  return NYB_OK;
}

static nyb_status check_plain(check *c, uint32_t i, bool in_loop) {
  const ny_mod_command *q = &c->m->command[i];
  if (q->kind >= NY_MC_COUNT) return bad_index(c, "command", i, "kind", q->kind, NY_MC_COUNT);
  for (uint32_t j = 0; j < q->n_buffers; j++) IN_RANGE("command", i, "buffer", q->buffer[j], c->m->n_buffers);
  if (q->kind == NY_MC_LAUNCH) return check_launch(c, i, q);
  if (q->kind == NY_MC_CHECK) {
    IN_RANGE("command", i, "requirement", q->require, c->m->n_requires);
    return NYB_OK;
  }
  if (q->kind == NY_MC_CHOOSE) {
    IN_RANGE("command", i, "condition", q->extent, c->m->n_exprs);
    return NYB_OK;
  }
  uint32_t least = q->kind == NY_MC_COPY ? 2 : 1, most = q->kind == NY_MC_IF ? 1 : 2;
  if (q->n_buffers < least || q->n_buffers > most)
    return ny_fail(c->d, NYB_E_PARSE, NULL, "command %u has %u buffers, %u to %u are expected", i, q->n_buffers, least,
                   most);
  if (q->kind == NY_MC_COPY) {
    IN_RANGE("command", i, "size", q->bytes, c->m->n_exprs);
    if (!writable(c, q->buffer[1]))
      return ny_fail(c->d, NYB_E_PARSE, NULL, "command %u copies to a buffer that is not writable", i);
    if (q->stacked && !in_loop) return ny_fail(c->d, NYB_E_PARSE, NULL, "command %u stacks results outside a loop", i);
  }
  if (q->kind == NY_MC_LOOP) {
    IN_RANGE("command", i, "trip count", q->extent, c->m->n_exprs);
    if (!writable(c, q->buffer[0]))
      return ny_fail(c->d, NYB_E_PARSE, NULL, "command %u counts in a buffer that is not writable", i);
  }
  return NYB_OK;
}

static nyb_status check_require(check *c, uint32_t i) {
  IN_RANGE("requirement", i, "size", c->m->require[i].a, c->m->n_exprs);
  IN_RANGE("requirement", i, "size", c->m->require[i].b, c->m->n_exprs);
  return NYB_OK;
}

/* A body must end inside the body that holds it. */
static nyb_status check_commands(check *c, uint32_t begin, uint32_t end, int depth, bool in_loop) {
  if (depth > NY_MOD_DEPTH)
    return ny_fail(c->d, NYB_E_LIMIT, NULL, "command %u is nested more than %d deep", begin, NY_MOD_DEPTH);
  for (uint32_t i = begin; i < end; i++) {
    NY_TRY(check_plain(c, i, in_loop));
    const ny_mod_command *q = &c->m->command[i];
    if (q->kind != NY_MC_IF && q->kind != NY_MC_LOOP && q->kind != NY_MC_CHOOSE) continue;
    uint64_t n_then = q->n_then, n_else = q->kind != NY_MC_LOOP ? q->n_else : 0;
    if (n_then + n_else > end - i - 1)
      return ny_fail(c->d, NYB_E_PARSE, NULL, "command %u has bodies of %u and %u commands, only %u follow", i,
                     q->n_then, q->n_else, end - i - 1);
    uint32_t middle = i + 1 + (uint32_t)n_then, last = middle + (uint32_t)n_else;
    bool loop = in_loop || q->kind == NY_MC_LOOP;
    NY_TRY(check_commands(c, i + 1, middle, depth + 1, loop));
    NY_TRY(check_commands(c, middle, last, depth + 1, loop));
    i = last - 1;
  }
  return NYB_OK;
}

static nyb_status check_program(check *c) {
  const ny_mod *m = c->m;
  for (uint32_t i = 0; i < m->n_exprs; i++) NY_TRY(check_expr(c, i));
  NY_TRY(check_code(c));
  IN_RANGE("arena", 0, "size", m->arena, m->n_exprs);
  for (uint32_t i = 0; i < m->n_buffers; i++) NY_TRY(check_buffer(c, i));
  NY_TRY(check_values(c, "input", m->input, m->n_inputs, NY_MP_INPUT));
  NY_TRY(check_values(c, "output", m->output, m->n_outputs, NY_MP_OUTPUT));
  for (uint32_t i = 0; i < m->n_kernels; i++) NY_TRY(check_kernel(c, i));
  for (uint32_t i = 0; i < m->n_requires; i++) NY_TRY(check_require(c, i));
  return check_commands(c, 0, m->n_commands, 0, false);
}

nyb_status ny_module_check(const ny_mod *program, uint32_t n, uint32_t n_shared, uint64_t fb_at, uint64_t fb_bytes,
                           uint64_t file_bytes, ny_diag *d) {
  check c = {program, n_shared, fb_at, fb_bytes, file_bytes, d};
  for (uint32_t i = 0; i < program->n_segments; i++) NY_TRY(check_segment(&c, "segment", i, &program->segment[i]));
  if (program->graph.bytes) NY_TRY(check_segment(&c, "graph", 0, &program->graph));
  for (uint32_t i = 0; i < n; i++) {
    c.m = &program[i];
    NY_TRY(check_program(&c));
  }
  return NYB_OK;
}
