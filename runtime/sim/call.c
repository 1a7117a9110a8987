/* Calls of device functions. There is no recursion, so every function has its own registers and its own part of each
   thread's frame; a call copies parameters within that frame and leaves its return address in a register of the callee.
 */
#include "call.h"
#include "decode.h"
#include "launch.h"
#include <string.h>

/* ---- decoding */
static uint64_t pack_copy(uint64_t to, uint64_t from, uint64_t bytes) { return to << 40 | from << 16 | bytes; }

static bool frame_address(ny_ptx_decoder *dc, const ny_opd *o, uint32_t *out) {
  if (o->kind != NY_OPD_SYMBOL || o->sym->space != NY_PARAM || o->sym->is_entry_param)
    return ny_ptx_bad(dc, "arguments of calls must be .param variables");
  *out = (uint32_t)o->sym->address + dc->at->frame_base;
  return true;
}

static bool emit_copies(ny_ptx_decoder *dc, const ny_ptx_ins *like, const ny_placed *callee, const ny_opd *list,
                        bool is_return) {
  uint32_t n = is_return ? callee->f->n_rets : callee->f->n_params, have = list ? list->n : 0;
  if (n != have) return ny_ptx_bad(dc, "%u arguments where \"%s\" has %u", have, callee->f->name, n);
  for (uint32_t k = 0; k < n; k++) {
    const ny_symbol *formal = is_return ? callee->f->ret[k] : callee->f->param[k];
    uint32_t there = (uint32_t)formal->address + callee->frame_base, here = 0;
    if (!frame_address(dc, &list->elem[k], &here)) return false;
    if (list->elem[k].sym->bytes != formal->bytes)
      return ny_ptx_bad(dc, "an argument of %llu bytes for \"%s\" of %llu",
                        (unsigned long long)list->elem[k].sym->bytes, formal->name, (unsigned long long)formal->bytes);
    ny_ptx_ins copy = *like;
    copy.exec = ny_x_copy_frame;
    copy.cls = NY_CLS_move;
    copy.data = is_return ? pack_copy(here, there, formal->bytes) : pack_copy(there, here, formal->bytes);
    ny_decode_emit(dc, &copy);
  }
  return true;
}

/* printf and assert are functions of the device library: their arguments are addresses in .param variables. */
static bool emit_builtin(ny_ptx_decoder *dc, ny_ptx_ins *i, ny_name name, const ny_opd *ret, const ny_opd *args) {
  bool print = !strcmp(name, "vprintf");
  if (!print && strcmp(name, "__assertfail")) return ny_ptx_bad(dc, "the function \"%s\" is not defined", name);
  if (!args || args->n < (print ? 2u : 3u)) return ny_ptx_bad(dc, "arguments of \"%s\" are missing", name);
  uint32_t at[5] = {0}; /* the arguments, then the result + 1 */
  for (uint32_t k = 0; k < args->n && k < 4; k++)
    if (!frame_address(dc, &args->elem[k], &at[k])) return false;
  if (ret && ret->n) {
    if (!frame_address(dc, &ret->elem[0], &at[4])) return false;
    at[4]++;
  }
  uint32_t *keep = ny_ptx_alloc(dc, sizeof at);
  memcpy(keep, at, sizeof at);
  i->data = (uint64_t)(uintptr_t)keep;
  i->exec = print ? ny_x_vprintf : ny_x_assertfail;
  i->cls = NY_CLS_special;
  ny_decode_emit(dc, i);
  return true;
}

bool ny_decode_call(ny_ptx_decoder *dc) {
  const ny_opd *o = dc->raw->opd, *end = o + dc->raw->n_opd, *ret = NULL, *args = NULL;
  if (o < end && o->kind == NY_OPD_LIST) ret = o++;
  if (o >= end || o->kind != NY_OPD_NAME) return ny_ptx_bad(dc, "calls through a pointer are not supported");
  ny_name name = o++->name;
  if (o < end && o->kind == NY_OPD_LIST) args = o++;
  if (o < end) return ny_ptx_bad(dc, "calls through a prototype are not supported");
  ny_ptx_ins i = {.cls = NY_CLS_control, .stmt = dc->raw->stmt};
  if (!ny_decode_guard(dc, &i)) return false;
  const ny_placed *callee = ny_decode_find(dc, name);
  if (!callee) return emit_builtin(dc, &i, name, ret, args);
  if (!emit_copies(dc, &i, callee, args, false)) return false;
  ny_ptx_ins call = i;
  call.exec = ny_x_call;
  call.target = callee->entry;
  call.data = callee->return_reg;
  ny_decode_emit(dc, &call);
  return emit_copies(dc, &i, callee, ret, true);
}

/* ---- running */
static uint8_t *frame(const ny_sim_warp *w, uint32_t lane) {
  return w->local + (size_t)lane * w->block->grid->kernel->frame_bytes;
}

void ny_x_copy_frame(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint64_t to = i->data >> 40, from = i->data >> 16 & 0xffffff, bytes = i->data & 0xffff;
  NY_EACH_ACTIVE(l) memcpy(frame(w, l) + to, frame(w, l) + from, bytes);
}

void ny_x_call(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint32_t *ret = (uint32_t *)(void *)(w->bank[NY_BANK_REG] + i->data), pc = w->pc;
  NY_MAP(uint32_t, ret, pc);
  ny_go(w, mask, i->target);
}

void ny_x_ret(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *ret = (const uint32_t *)(const void *)(w->bank[NY_BANK_REG] + i->target);
  for (;;) { /* lanes called from one place return together */
    uint32_t to = ret[__builtin_ctz(mask)], same = 0;
    NY_EACH_ACTIVE(l) same |= ret[l] == to ? 1u << l : 0;
    if (same == mask) break;
    ny_leave(w, same, to);
    mask &= ~same;
  }
  ny_go(w, mask, ret[__builtin_ctz(mask)]);
}

void ny_x_exit(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  (void)i;
  w->live &= ~mask;
  w->active &= ~mask;
  if (!w->active) w->limit = 0;
}

static uint64_t argument(const ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, int k) {
  const uint32_t *at = (const uint32_t *)(uintptr_t)i->data;
  uint64_t v;
  memcpy(&v, frame(w, lane) + at[k], sizeof v);
  return v;
}

/* A string of the kernel: in memory it may read, ended by 0, not longer than `n`. */
static bool read_string(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t lane, uint64_t addr, char *out, size_t n) {
  for (size_t k = 0; k < n; k++) {
    const uint8_t *p = ny_access_one(w, i, lane, NY_GENERIC, addr + k, 1, 1, NY_READ);
    if (!p) return false;
    out[k] = (char)*p;
    if (!*p) return true;
  }
  out[n - 1] = 0;
  return true;
}

typedef struct ny_printing {
  ny_sim_warp *w;
  const ny_ptx_ins *i;
  uint32_t lane;
  uint64_t args;
  ny_text out;
} ny_printing;

/* The next argument; each is aligned to its size and at least 4 bytes. */
static bool next_argument(ny_printing *p, uint32_t bytes, uint64_t *out) {
  p->args = (p->args + bytes - 1) / bytes * bytes;
  const uint8_t *at = ny_access_one(p->w, p->i, p->lane, NY_GENERIC, p->args, bytes, bytes, NY_READ);
  *out = 0;
  if (at) memcpy(out, at, bytes);
  p->args += bytes;
  return at != NULL;
}

/* One conversion, `spec` without its length modifiers; `wide`: it had l or ll. */
static bool convert(ny_printing *p, char *spec, size_t n, char conv, bool wide) {
  uint64_t v;
  char text[1024];
  bool is_float = strchr("aAeEfFgG", conv) != NULL, is_string = conv == 's', is_pointer = conv == 'p';
  uint32_t bytes = is_float || is_string || is_pointer || wide ? 8 : 4;
  if (!next_argument(p, bytes, &v)) return false;
  if (!is_float && !is_string && !is_pointer && conv != 'c') memcpy(spec + n, "ll", 2), n += 2;
  spec[n++] = conv;
  spec[n] = 0;
  if (is_float) {
    double f;
    memcpy(&f, &v, sizeof f);
    snprintf(text, sizeof text, spec, f);
  } else if (is_string) {
    char s[512];
    if (!read_string(p->w, p->i, p->lane, v, s, sizeof s)) return false;
    snprintf(text, sizeof text, spec, s);
  } else if (is_pointer) {
    snprintf(text, sizeof text, spec, (void *)(uintptr_t)v);
  } else if (conv == 'c') {
    snprintf(text, sizeof text, spec, (int)v);
  } else {
    bool is_signed = conv == 'd' || conv == 'i';
    snprintf(text, sizeof text, spec, is_signed && !wide ? (long long)(int32_t)v : (long long)v);
  }
  ny_text_add(&p->out, text);
  return true;
}

static bool format(ny_printing *p, const char *f) {
  while (*f) {
    size_t plain = strcspn(f, "%");
    ny_text_addn(&p->out, f, plain);
    f += plain;
    if (!*f) break;
    f++;
    if (*f == '%') {
      ny_text_add(&p->out, "%");
      f++;
      continue;
    }
    char spec[64] = "%";
    size_t n = 1;
    bool wide = false;
    for (; *f && strchr("-+ #0123456789.*hlzjt", *f) && n < 40; f++) {
      uint64_t v;
      if (*f == '*') {
        if (!next_argument(p, 4, &v)) return false;
        n += (size_t)snprintf(spec + n, 12, "%d", (int)v);
      } else if (strchr("hlzjt", *f)) {
        wide = wide || *f != 'h';
      } else {
        spec[n++] = *f;
      }
    }
    if (!*f || !strchr("diouxXcsaAeEfFgGp", *f)) return true; /* what it means is not defined */
    if (!convert(p, spec, n, *f++, wide)) return false;
  }
  return true;
}

void ny_x_vprintf(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const ny_sim_options *o = &w->block->grid->launch->options;
  const uint32_t *at = (const uint32_t *)(uintptr_t)i->data;
  NY_EACH_ACTIVE(l) {
    char f[1024];
    ny_printing p = {.w = w, .i = i, .lane = l, .args = argument(w, i, l, 1)};
    int32_t result = -1;
    if (read_string(w, i, l, argument(w, i, l, 0), f, sizeof f) && format(&p, f)) result = 0;
    if (at[4]) memcpy(frame(w, l) + at[4] - 1, &result, sizeof result);
    if (o->print)
      o->print(o->print_user, p.out.s ? p.out.s : "", p.out.n);
    else
      fwrite(p.out.s ? p.out.s : "", 1, p.out.n, stdout);
    ny_text_free(&p.out);
  }
}

void ny_x_assertfail(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint32_t l = (uint32_t)__builtin_ctz(mask), line;
  char what[160] = "", file[80] = "";
  const uint32_t *at = (const uint32_t *)(uintptr_t)i->data;
  memcpy(&line, frame(w, l) + at[2], sizeof line);
  read_string(w, i, l, argument(w, i, l, 0), what, sizeof what);
  read_string(w, i, l, argument(w, i, l, 1), file, sizeof file);
  ny_find(w, i, l, NY_FIND_trap, 0, 0, "assertion \"%s\" failed at %s:%u", what, file, line);
  w->block->grid->stop = true;
  w->limit = 0;
  w->fuel = 0;
}
