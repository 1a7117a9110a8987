/* Findings: one for each kind and pair of instructions, counted; the first occurrence gives the details. */
#include "launch.h"
#include <stdlib.h>
#include <string.h>

struct ny_sim_findings {
  ny_sim_finding *f;
  struct {
    uint32_t at, other;
  } * key; /* statements */
  uint32_t n, cap, limit;
};

static const char *const class_text[NY_N_CLS] = {
#define CLASS(name, text) text,
    NY_SIM_CLASSES(CLASS)
#undef CLASS
};
const char *ny_sim_class_text(ny_sim_class c) { return class_text[c]; }

static const char *const finding_text[NY_N_FIND] = {
#define FINDING(name, text) text,
    NY_SIM_FINDINGS(FINDING)
#undef FINDING
};
const char *ny_sim_finding_text(ny_sim_finding_kind k) { return finding_text[k]; }

struct ny_sim_findings *ny_findings_new(uint32_t limit) {
  struct ny_sim_findings *s = calloc(1, sizeof *s);
  if (s) s->limit = limit ? limit : 32;
  return s;
}

void ny_findings_move(struct ny_sim_findings *s, ny_sim_result *r) {
  if (s->n) {
    ny_sim_finding *all = realloc(r->finding, (r->n_findings + (size_t)s->n) * sizeof *all);
    if (all) {
      memcpy(all + r->n_findings, s->f, s->n * sizeof *all);
      r->finding = all;
      r->n_findings += s->n;
    }
  }
  free(s->f);
  free(s->key);
  free(s);
}

void ny_sim_result_free(ny_sim_result *r) {
  free(r->finding);
  *r = (ny_sim_result){0};
}

ny_sim_site ny_site_of(const ny_sim_grid *g, uint64_t block, uint32_t thread, uint32_t pc) {
  const ny_sim_launch *l = g->launch;
  const ny_ptx_stmt *s = ny_stmt(g, &g->kernel->code[pc]);
  ny_sim_site out = {.known = true, .ptx_line = s->ptx_line};
  if (s->place) out.file = s->place->file, out.line = s->place->line, out.from = s->place->from;
  out.block[0] = (uint32_t)(block % l->grid[0]);
  out.block[1] = (uint32_t)(block / l->grid[0] % l->grid[1]);
  out.block[2] = (uint32_t)(block / l->grid[0] / l->grid[1]);
  out.thread[0] = thread % l->block[0];
  out.thread[1] = thread / l->block[0] % l->block[1];
  out.thread[2] = thread / l->block[0] / l->block[1];
  return out;
}

ny_sim_site ny_site(const ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane) {
  return ny_site_of(w->block->grid, w->block->linear, w->index * NY_LANES + lane, ny_pc_of(w, i));
}

static ny_sim_finding *add(ny_sim_grid *g, ny_sim_finding_kind kind, uint32_t at, uint32_t other) {
  struct ny_sim_findings *s = g->findings;
  for (uint32_t k = 0; k < s->n; k++)
    if (s->f[k].kind == kind && s->key[k].at == at && s->key[k].other == other) {
      s->f[k].count++;
      return NULL;
    }
  if (s->n == s->cap) {
    uint32_t cap = s->cap ? s->cap * 2 : 16;
    void *f = realloc(s->f, cap * sizeof *s->f), *key = f ? realloc(s->key, cap * sizeof *s->key) : NULL;
    if (f) s->f = f;
    if (key) s->key = key;
    if (!key) return NULL;
    s->cap = cap;
  }
  s->key[s->n].at = at;
  s->key[s->n].other = other;
  s->f[s->n] = (ny_sim_finding){.kind = kind, .kernel = g->kernel->info.name, .count = 1};
  if (s->n + 1 >= s->limit) g->stop = true;
  return &s->f[s->n++];
}

static void fill(ny_sim_finding *f, const ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, uint64_t address,
                 uint32_t bytes, const char *fmt, va_list ap) NY_PRINTF(7, 0);
static void fill(ny_sim_finding *f, const ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, uint64_t address,
                 uint32_t bytes, const char *fmt, va_list ap) {
  f->at = ny_site(w, i, lane);
  f->address = address;
  f->bytes = bytes;
  vsnprintf(f->text, sizeof f->text, fmt, ap);
}

void ny_find(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, ny_sim_finding_kind kind, uint64_t address,
             uint32_t bytes, const char *fmt, ...) {
  ny_sim_finding *f = add(w->block->grid, kind, i->stmt, UINT32_MAX);
  if (!f) return;
  va_list ap;
  va_start(ap, fmt);
  fill(f, w, i, lane, address, bytes, fmt, ap);
  va_end(ap);
}

void ny_find_two(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, const ny_sim_site *other, ny_sim_finding_kind kind,
                 uint64_t address, uint32_t bytes, const char *fmt, ...) {
  ny_sim_finding *f = add(w->block->grid, kind, i->stmt, (uint32_t)other->ptx_line);
  if (!f) return;
  f->other = *other;
  va_list ap;
  va_start(ap, fmt);
  fill(f, w, i, lane, address, bytes, fmt, ap);
  va_end(ap);
}

void ny_nearest(const ny_sim_grid *g, uint64_t addr, char *out, size_t n) {
  const ny_sim_range *best = NULL;
  uint64_t best_d = UINT64_MAX;
  for (uint32_t k = 0; k < g->n_ranges; k++) {
    const ny_sim_range *r = &g->range[k];
    uint64_t d = addr < r->base ? r->base - addr : addr - r->base < r->bytes ? 0 : addr - r->base - r->bytes;
    if (d < best_d) best = r, best_d = d;
  }
  if (!best)
    snprintf(out, n, "no memory is mapped");
  else if (addr >= best->base && addr - best->base < best->bytes)
    snprintf(out, n, "byte %llu of the %llu bytes of \"%s\"", (unsigned long long)(addr - best->base),
             (unsigned long long)best->bytes, best->name);
  else
    snprintf(out, n, "%llu bytes %s the %llu bytes of \"%s\"", (unsigned long long)best_d,
             addr < best->base ? "before" : "after", (unsigned long long)best->bytes, best->name);
}

static void print_site(const ny_sim_site *s, const char *what, ny_text *out) {
  ny_text_addf(out, "  %s ", what);
  if (s->file) ny_text_addf(out, "%s:%d, ", s->file, s->line);
  for (const ny_sim_place *p = s->from; p; p = p->from) ny_text_addf(out, "inlined in line %d, ", p->line);
  ny_text_addf(out, "PTX line %d, block (%u,%u,%u) thread (%u,%u,%u)\n", s->ptx_line, s->block[0], s->block[1],
               s->block[2], s->thread[0], s->thread[1], s->thread[2]);
}

void ny_sim_print_finding(const ny_sim_finding *f, ny_text *out) {
  ny_text_addf(out, "%s in %s: %s", ny_sim_finding_text(f->kind), f->kernel, f->text);
  if (f->count > 1) ny_text_addf(out, " (%llu times)", (unsigned long long)f->count);
  ny_text_add(out, "\n");
  print_site(&f->at, "at", out);
  if (f->other.known) print_site(&f->other, "and", out);
}
