/* From parsed statements to instructions: one image a kernel, device functions it calls in front of it, so that lanes
   still inside of a call are at lower addresses and go first. */
#include "decode.h"
#include "call.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

bool ny_ptx_bad(ny_ptx_decoder *dc, const char *fmt, ...) {
  if (dc->status) return false;
  char text[400];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  const ny_ptx_stmt *s = dc->raw ? &dc->m->stmt[dc->raw->stmt] : NULL;
  if (dc->d && !dc->d->code) dc->d->file = dc->m->file, dc->d->line = s ? s->ptx_line : 0;
  dc->status = ny_fail(dc->d, NYB_E_UNSUPPORTED, NULL, "\"%s\" in \"%s\": %s", s ? s->text : "", dc->at->f->name, text);
  return false;
}
const ny_ptx_row *ny_ptx_row_of(const ny_ptx_decoder *dc) { return dc->match.row; }
const char *ny_ptx_word(const ny_ptx_decoder *dc, int g) {
  if (!dc->match.opt[g]) return "";
  return ny_internn(&dc->m->names, dc->match.word[g], dc->match.n_word[g]);
}
void *ny_ptx_alloc(ny_ptx_decoder *dc, size_t bytes) { return ny_alloc(&dc->m->arena, bytes); }

/* ---- rows */
/* Rows by the first word of their mnemonic would need an index; remembering what each mnemonic matched needs none. */
static bool search(ny_ptx_decoder *dc) {
  bool known = false;
  size_t word = strcspn(dc->raw->op, ".");
  for (size_t t = 0; t < ny_ptx_n_tables; t++)
    for (size_t r = 0; r < *ny_ptx_tables[t].n; r++) {
      const ny_ptx_row *row = &ny_ptx_tables[t].row[r];
      if (ny_row_match(row, dc->raw->op, dc->raw->n_op, &dc->match)) return true;
      known = known || (strcspn(row->pattern, ".") == word && !memcmp(row->pattern, dc->raw->op, word));
    }
  return ny_ptx_bad(dc, known ? "this form of %.*s is not supported" : "the instruction %.*s is not supported",
                    (int)word, dc->raw->op);
}

static bool find_row(ny_ptx_decoder *dc) {
  ny_name op = ny_internn(&dc->m->names, dc->raw->op, dc->raw->n_op);
  uint32_t h = (uint32_t)((uintptr_t)op >> 4) * 2654435761u % dc->n_known;
  for (uint32_t tries = 0; tries < 8; tries++, h = (h + 1) % dc->n_known) {
    if (dc->known_name[h] == op) {
      dc->match = dc->known[h];
      return true;
    }
    if (dc->known_name[h]) continue;
    if (!search(dc)) return false;
    for (int g = 0; g < NY_MAX_OPT; g++) /* words outlive this statement */
      if (dc->match.opt[g]) dc->match.word[g] = op + (dc->match.word[g] - dc->raw->op);
    dc->known_name[h] = op;
    dc->known[h] = dc->match;
    return true;
  }
  return search(dc);
}

ny_ptx_ins *ny_decode_emit(ny_ptx_decoder *dc, const ny_ptx_ins *i) {
  NY_PUSH_ROOM(&dc->m->arena, dc->k->code, dc->k->n_code, dc->cap_code);
  ny_ptx_ins *out = &dc->k->code[dc->k->n_code++];
  *out = *i;
  return out;
}

static bool add_label_fix(ny_ptx_decoder *dc) {
  for (uint32_t k = 0; k < dc->raw->n_opd; k++) {
    if (dc->raw->opd[k].kind != NY_OPD_NAME) continue;
    NY_PUSH_ROOM(&dc->m->arena, dc->fix, dc->n_fixes, dc->cap_fixes);
    dc->fix[dc->n_fixes++] = (ny_fix){dc->k->n_code, dc->raw->scope, dc->raw->opd[k].name};
    return true;
  }
  return true;
}

static bool decode_one(ny_ptx_decoder *dc) {
  if (!strncmp(dc->raw->op, "call", 4) && (dc->raw->op[4] == '.' || !dc->raw->op[4])) return ny_decode_call(dc);
  if (!find_row(dc)) return false;
  const ny_ptx_row *row = dc->match.row;
  ny_ptx_ins i = {
      .exec = row->exec[dc->match.sub], .sub = dc->match.sub, .cls = (uint8_t)row->cls, .stmt = dc->raw->stmt};
  memcpy(i.opt, dc->match.opt, sizeof i.opt);
  if (!ny_decode_guard(dc, &i) || !ny_decode_args(dc, &i)) return false;
  if (row->fix && !row->fix(dc, &i)) return dc->status ? false : ny_ptx_bad(dc, "this form is not supported");
  if (!i.exec) return ny_ptx_bad(dc, "this form is not supported");
  if (!add_label_fix(dc)) return false;
  ny_decode_emit(dc, &i);
  return true;
}

/* ---- labels */
static const ny_label *find_label(const ny_func *f, ny_name name, uint32_t scope) {
  for (; scope != UINT32_MAX; scope = f->scope[scope].parent)
    for (uint32_t i = 0; i < f->n_labels; i++)
      if (f->label[i].name == name && f->label[i].scope == scope) return &f->label[i];
  return NULL;
}

static bool resolve_labels(ny_ptx_decoder *dc) {
  const ny_func *f = dc->at->f;
  for (uint32_t k = 0; k < dc->n_fixes; k++) {
    const ny_fix *x = &dc->fix[k];
    ny_ptx_ins *i = &dc->k->code[x->ins];
    const ny_label *l = find_label(f, x->name, x->scope);
    if (!l) return ny_ptx_bad(dc, "there is no label \"%s\"", x->name);
    i->target = dc->start[l->at];
    if (!l->n_targets) continue;
    uint32_t *list = ny_ptx_alloc(dc, (l->n_targets + 1) * sizeof *list);
    list[0] = l->n_targets;
    for (uint32_t t = 0; t < l->n_targets; t++) {
      const ny_label *to = find_label(f, l->target[t], l->scope);
      if (!to) return ny_ptx_bad(dc, "there is no label \"%s\"", l->target[t]);
      list[t + 1] = dc->start[to->at];
    }
    i->data = (uint64_t)(uintptr_t)list;
  }
  return true;
}

/* ---- functions */
const ny_placed *ny_decode_find(const ny_ptx_decoder *dc, ny_name name) {
  for (uint32_t i = 0; i < dc->n_placed; i++)
    if (dc->placed[i].f->name == name) return &dc->placed[i];
  return NULL;
}

static const ny_func *function(const ny_sim_module *m, ny_name name) {
  for (uint32_t i = 0; i < m->n_funcs; i++)
    if (m->func[i]->name == name) return m->func[i];
  return NULL;
}

static bool place(ny_ptx_decoder *dc, const ny_func *f, int depth);

static bool place_callees(ny_ptx_decoder *dc, const ny_func *f, int depth) {
  for (uint32_t k = 0; k < f->n_raw; k++) {
    const ny_raw *r = &f->raw[k];
    if (strncmp(r->op, "call", 4)) continue;
    for (uint32_t o = 0; o < r->n_opd; o++) {
      const ny_func *g = r->opd[o].kind == NY_OPD_NAME ? function(dc->m, r->opd[o].name) : NULL;
      if (!g || !g->has_body) continue;
      dc->raw = r;
      const ny_placed *p = ny_decode_find(dc, g->name);
      if (p && p->open) return ny_ptx_bad(dc, "recursion is not supported");
      if (!p && !place(dc, g, depth + 1)) return false;
    }
  }
  return true;
}

static uint32_t round16(uint32_t n) { return (n + 15) & ~15u; }

static bool place(ny_ptx_decoder *dc, const ny_func *f, int depth) {
  if (dc->n_placed == NY_COUNT(dc->placed) || depth > 64) return ny_ptx_bad(dc, "too many device functions");
  ny_placed *p = &dc->placed[dc->n_placed++];
  ny_ptx_kernel *k = dc->k;
  *p = (ny_placed){.f = f, .open = true};
  dc->at = p;
  if (!place_callees(dc, f, depth)) return false;
  p->return_reg = k->reg_bytes;
  p->reg_base = k->reg_bytes + NY_LANES * 4;
  p->pred_base = k->n_preds;
  p->frame_base = k->frame_bytes;
  if ((uint64_t)p->reg_base + f->reg_bytes > 1 << 30) return ny_ptx_bad(dc, "more than 1 GiB of registers");
  k->n_preds += f->n_preds - NY_N_PRED_FIXED;
  k->frame_bytes = round16(k->frame_bytes + f->frame_bytes);
  k->info.n_regs += f->n_regs;
  dc->at = p;
  dc->n_fixes = 0;
  dc->start = NY_NEW_ARRAY(&dc->m->arena, uint32_t, f->n_raw + 1);
  p->entry = k->n_code;
  if (f->is_entry) k->entry = p->entry;
  for (uint32_t r = 0; r < f->n_raw; r++) {
    dc->raw = &f->raw[r];
    dc->start[r] = k->n_code;
    if (!decode_one(dc)) return false;
  }
  dc->start[f->n_raw] = k->n_code;
  ny_ptx_ins end = {.exec = f->is_entry ? ny_x_exit : ny_x_ret, .cls = NY_CLS_control, .target = p->return_reg};
  end.stmt = f->n_raw ? f->raw[f->n_raw - 1].stmt : 0;
  end.flow = NY_FLOW_END;
  ny_decode_emit(dc, &end);
  p->open = false;
  if (!resolve_labels(dc)) return false;
  k->reg_bytes = p->reg_base + ny_decode_registers(dc, p->reg_base, f->reg_bytes);
  return true;
}

/* ---- shared variables: those that the kernel or its callees name, in order of use; the dynamic part begins after
 * them. */
static void place_shared(ny_ptx_kernel *k, const ny_opd *o, ny_symbol ***seen, uint32_t *n, uint32_t *cap,
                         ny_arena *a) {
  for (uint32_t e = 0; e < o->n; e++) place_shared(k, &o->elem[e], seen, n, cap, a);
  ny_symbol *s = (ny_symbol *)o->sym;
  if (o->kind != NY_OPD_SYMBOL || s->space != NY_SHARED) return;
  for (uint32_t i = 0; i < *n; i++)
    if ((*seen)[i] == s) return;
  NY_PUSH_ROOM(a, *seen, *n, *cap);
  (*seen)[(*n)++] = s;
  if (s->is_extern) return;
  s->address = (k->info.static_shared + s->align - 1) / s->align * s->align;
  k->info.static_shared = (uint32_t)(s->address + s->bytes);
}

static bool layout_shared(ny_ptx_decoder *dc, const ny_func *entry) {
  ny_symbol **seen = NULL;
  uint32_t n = 0, cap = 0;
  /* Every function counts as called: the figure may be a little high, addresses stay right. */
  for (uint32_t f = 0; f < dc->m->n_funcs; f++) {
    if (dc->m->func[f]->is_entry && dc->m->func[f] != entry) continue;
    for (uint32_t r = 0; r < dc->m->func[f]->n_raw; r++)
      for (uint32_t o = 0; o < dc->m->func[f]->raw[r].n_opd; o++)
        place_shared(dc->k, &dc->m->func[f]->raw[r].opd[o], &seen, &n, &cap, &dc->m->arena);
  }
  uint32_t align = 16;
  for (uint32_t i = 0; i < n; i++)
    if (seen[i]->is_extern && seen[i]->align > align) align = seen[i]->align;
  if (dc->k->info.static_shared > 1 << 20) return ny_ptx_bad(dc, "more than 1 MiB of shared memory");
  uint32_t dynamic = (dc->k->info.static_shared + align - 1) / align * align;
  bool any = false;
  for (uint32_t i = 0; i < n; i++)
    if (seen[i]->is_extern) seen[i]->address = dynamic, any = true;
  if (any) dc->k->info.static_shared = dynamic;
  return true;
}

static void describe(ny_sim_module *m, ny_ptx_kernel *k, const ny_func *f) {
  ny_sim_param *p = NY_NEW_ARRAY(&m->arena, ny_sim_param, f->n_params ? f->n_params : 1);
  for (uint32_t i = 0; i < f->n_params; i++)
    p[i] = (ny_sim_param){(uint32_t)f->param[i]->address, (uint32_t)f->param[i]->bytes, f->param[i]->align};
  k->info.name = f->name;
  k->info.param = p;
  k->info.n_params = f->n_params;
  k->info.param_bytes = f->param_bytes;
  memcpy(k->info.max_threads, f->max_threads, sizeof f->max_threads);
}

static bool decode_kernel(ny_ptx_decoder *dc, const ny_func *f) {
  ny_ptx_kernel *k = dc->k;
  describe(dc->m, k, f);
  k->n_preds = NY_N_PRED_FIXED;
  k->reg_bytes = NY_LANES * 8; /* the scratch register */
  dc->n_placed = dc->cap_code = dc->cap_constants = 0;
  dc->n_slots = 0;
  dc->slot = NULL;
  dc->raw = NULL;
  dc->placed[0] = (ny_placed){.f = f};
  dc->at = dc->placed;
  if (!layout_shared(dc, f) || !place(dc, f, 0)) return false;
  k->info.local_bytes = k->frame_bytes;
  k->info.n_ins = k->n_code;
  return true;
}

nyb_status ny_ptx_decode(ny_sim_module *m, ny_diag *d) {
  for (uint32_t i = 0; i < m->n_funcs; i++) m->n_kernels += m->func[i]->is_entry && m->func[i]->has_body;
  m->kernel = NY_NEW_ARRAY(&m->arena, ny_ptx_kernel, m->n_kernels ? m->n_kernels : 1);
  ny_ptx_decoder *dc = calloc(1, sizeof *dc);
  if (!dc) return ny_fail(d, NYB_E_NOMEM, NULL, "out of memory");
  *dc = (ny_ptx_decoder){.m = m, .d = d, .n_known = 1021};
  dc->known = NY_NEW_ARRAY(&m->arena, ny_ptx_match, dc->n_known);
  dc->known_name = NY_NEW_ARRAY(&m->arena, ny_name, dc->n_known);
  uint32_t n = 0;
  for (uint32_t i = 0; i < m->n_funcs && !dc->status; i++) {
    if (!m->func[i]->is_entry || !m->func[i]->has_body) continue;
    dc->k = &m->kernel[n++];
    if (!decode_kernel(dc, m->func[i]) && !dc->status) ny_ptx_bad(dc, "it could not be decoded");
  }
  nyb_status s = dc->status;
  free(dc);
  return s;
}
