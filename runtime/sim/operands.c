/* Operands of an instruction: what was written against what its row wants. Immediates, addresses of variables and
   special registers all become lanes. */
#include "decode.h"
#include <string.h>

static uint32_t *bucket(ny_ptx_decoder *dc, uint64_t v) {
  if (!dc->n_slots) {
    dc->n_slots = 4096;
    dc->slot = NY_NEW_ARRAY(&dc->m->arena, uint32_t, dc->n_slots);
  }
  return &dc->slot[(v * 0x9e3779b97f4a7c15u) >> 52];
}

/* In front of a constant's lanes stand its width and the next of its bucket's chain. */
uint32_t ny_decode_constant(ny_ptx_decoder *dc, uint64_t v, uint8_t width) {
  ny_ptx_kernel *k = dc->k;
  uint32_t bytes = (uint32_t)width * NY_LANES, *head = bucket(dc, v), next;
  for (uint32_t off = *head; off; off = next) {
    const uint8_t *p = k->constants + off - 1;
    uint64_t have = 0;
    memcpy(&have, p, width);
    if (have == v && p[-8] == width) return off - 1;
    memcpy(&next, p - 4, 4);
  }
  while (k->constant_bytes + 64 + bytes > dc->cap_constants) {
    uint32_t cap = dc->cap_constants ? dc->cap_constants * 2 : 16384;
    k->constants = ny_grow(&dc->m->arena, k->constants, dc->cap_constants, cap);
    dc->cap_constants = cap;
  }
  uint32_t at = k->constant_bytes + 64;
  uint8_t *p = k->constants + at;
  memcpy(p - 4, head, 4);
  p[-8] = width;
  *head = at + 1;
  for (int l = 0; l < NY_LANES; l++) memcpy(p + l * width, &v, width);
  k->constant_bytes = at + bytes;
  return at;
}

bool ny_decode_guard(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  i->guard = NY_PRED_TRUE;
  if (!dc->raw->guarded) return true;
  i->guard = dc->at->pred_base + dc->raw->guard.off - NY_N_PRED_FIXED;
  i->flip = dc->raw->guard.negated ? NY_ALL_LANES : 0;
  return true;
}

static uint64_t symbol_address(const ny_ptx_decoder *dc, const ny_symbol *s) {
  bool in_frame = s->space == NY_LOCAL || (s->space == NY_PARAM && !s->is_entry_param);
  return s->address + (in_frame ? dc->at->frame_base : 0);
}

static uint64_t float_bits(const ny_opd *o, uint32_t bits) {
  if (bits == 64 && o->width == 4) {
    uint32_t u = (uint32_t)o->imm;
    float f;
    memcpy(&f, &u, 4);
    double v = (double)f;
    uint64_t out;
    memcpy(&out, &v, 8);
    return out;
  }
  if (bits == 32 && o->width == 8) {
    double v;
    memcpy(&v, &o->imm, 8);
    float f = (float)v;
    uint32_t out;
    memcpy(&out, &f, 4);
    return out;
  }
  return (uint64_t)o->imm;
}

static bool constant(ny_ptx_decoder *dc, ny_ptx_arg *a, const ny_opd *o, uint32_t bits, bool is_float) {
  uint64_t v = (uint64_t)o->imm;
  if (o->kind == NY_OPD_FLOAT) {
    if (!is_float && bits != o->width * 8u) return ny_ptx_bad(dc, "a float where %u bits are expected", bits);
    if (is_float || bits >= 32) v = float_bits(o, bits);
  } else if (is_float && v) {
    return ny_ptx_bad(dc, "the integer %lld where a float is expected", (long long)v);
  }
  if (bits < 64) v &= (1ull << bits) - 1;
  uint8_t width = bits > 32 ? 8 : 4;
  *a = (ny_ptx_arg){
      .kind = NY_ARG_LANES, .bank = NY_BANK_CONST, .width = width, .flags = NY_ARG_UNIFORM, .imm = (int64_t)v};
  a->off = ny_decode_constant(dc, v, width);
  return true;
}

static bool symbol(ny_ptx_decoder *dc, ny_ptx_arg *a, const ny_opd *o, uint32_t bits) {
  if (o->sym->space == NY_PARAM && !o->sym->is_entry_param)
    return ny_ptx_bad(dc, "the address of a device function's parameter is not supported");
  uint64_t v = symbol_address(dc, o->sym) + (uint64_t)o->imm;
  if (bits < 32 || (bits < 64 && v >> 32)) return ny_ptx_bad(dc, "an address does not fit %u bits", bits);
  ny_opd imm = {.kind = NY_OPD_INT, .imm = (int64_t)v};
  return constant(dc, a, &imm, bits, false);
}

static bool memory(ny_ptx_decoder *dc, ny_ptx_arg *a, const ny_opd *o) {
  *a = (ny_ptx_arg){.kind = NY_ARG_MEM, .bank = NY_BANK_CONST, .width = 8, .imm = o->imm, .flags = NY_ARG_UNIFORM};
  uint64_t v = 0;
  if (o->n) {
    const ny_opd *b = &o->elem[0];
    if (b->kind == NY_OPD_REG) {
      a->bank = NY_BANK_REG;
      a->width = b->width;
      a->off = b->off + dc->at->reg_base;
      a->flags = 0;
      return true;
    }
    v = symbol_address(dc, b->sym);
    if (b->sym->space == NY_PARAM && !b->sym->is_entry_param) a->flags |= NY_ARG_FRAME;
  }
  a->imm = (int64_t)(v + (uint64_t)o->imm);
  a->off = ny_decode_constant(dc, 0, 8); /* base 0: the whole address is in imm */
  return true;
}

static bool lanes(ny_ptx_decoder *dc, ny_ptx_arg *a, const ny_opd *o, uint32_t bits, bool is_float, bool writes) {
  uint8_t width = bits > 32 ? 8 : 4;
  *a = (ny_ptx_arg){.kind = NY_ARG_LANES, .bank = NY_BANK_REG, .width = width};
  if (o->kind == NY_OPD_REG) {
    if (bits && o->width != width)
      return ny_ptx_bad(dc, "register \"%s\" is %s wide for %u bits", o->name, o->width > width ? "too" : "not", bits);
    a->width = o->width;
    a->off = o->off + dc->at->reg_base;
    if (o->half) a->flags |= NY_ARG_HALF;
    return true;
  }
  if (o->kind == NY_OPD_SINK && writes) {
    a->off = 0;
    a->width = bits ? width : 8;
    return true;
  }
  if (writes) return ny_ptx_bad(dc, "the destination is not a register");
  if (o->kind == NY_OPD_SPECIAL) {
    if (ny_specials[o->off].dynamic && strncmp(dc->match.row->pattern, "mov.", 4))
      return ny_ptx_bad(dc, "\"%s\" can only be read by mov", o->name);
    a->bank = NY_BANK_SPECIAL;
    a->off = o->off * NY_SPECIAL_BYTES;
    a->width = o->width;
    return o->width == width || !bits || ny_ptx_bad(dc, "\"%s\" has %u bits", o->name, o->width * 8u);
  }
  if (o->kind == NY_OPD_INT || o->kind == NY_OPD_FLOAT) return constant(dc, a, o, bits ? bits : 64, is_float);
  if (o->kind == NY_OPD_SYMBOL) return symbol(dc, a, o, bits ? bits : 64);
  return ny_ptx_bad(dc, "an operand is not a value");
}

static bool predicate(ny_ptx_decoder *dc, ny_ptx_arg *a, const ny_opd *o, bool writes) {
  *a = (ny_ptx_arg){.kind = NY_ARG_PRED, .flags = o->negated ? NY_ARG_NOT : 0};
  if (o->kind == NY_OPD_SINK && writes)
    a->off = NY_PRED_SCRATCH;
  else if (o->kind == NY_OPD_PRED)
    a->off = o->off + dc->at->pred_base - NY_N_PRED_FIXED;
  else if (o->kind == NY_OPD_INT && !writes) {
    a->off = NY_PRED_TRUE;
    if (!o->imm) a->flags ^= NY_ARG_NOT;
  } else
    return ny_ptx_bad(dc, "an operand is not a predicate");
  return true;
}

static bool is_written(char letter) { return letter >= 'A' && letter <= 'Z'; }

static bool one(ny_ptx_decoder *dc, ny_ptx_arg *a, const ny_opd *o, char letter) {
  const ny_ptx_type_info *t = &ny_ptx_types[dc->match.type];
  bool writes = is_written(letter);
  if (o->negated && o->kind != NY_OPD_PRED) return ny_ptx_bad(dc, "'!' before an operand that is no predicate");
  switch (letter) {
  case 't':
  case 'T':
    if (t->kind == 'p') return predicate(dc, a, o, writes);
    return lanes(dc, a, o, t->bits, t->kind == 'f', writes);
  case 'w':
  case 'W': return lanes(dc, a, o, t->bits * 2u, t->kind == 'f', writes);
  case 'h':
  case 'H': return lanes(dc, a, o, 16, false, writes);
  case 'b':
  case 'B': return lanes(dc, a, o, 32, false, writes);
  case 'l':
  case 'L': return lanes(dc, a, o, 64, false, writes);
  case 'f':
  case 'F': return lanes(dc, a, o, 32, true, writes);
  case 'x':
    return lanes(dc, a, o, o->kind == NY_OPD_REG || o->kind == NY_OPD_SPECIAL ? 0 : t->bits, t->kind == 'f', false);
  case 'X': return lanes(dc, a, o, 0, false, true);
  case 'p':
  case 'P': return predicate(dc, a, o, writes);
  case 'q': return o->kind == NY_OPD_PRED ? predicate(dc, a, o, false) : lanes(dc, a, o, 32, false, false);
  case 'm': return o->kind == NY_OPD_MEM ? memory(dc, a, o) : ny_ptx_bad(dc, "an operand is not an address");
  case 'i':
    if (o->kind != NY_OPD_INT) return ny_ptx_bad(dc, "an operand must be a constant");
    *a = (ny_ptx_arg){.kind = NY_ARG_IMM, .imm = o->imm};
    return true;
  default:
    if (o->kind != NY_OPD_NAME) return ny_ptx_bad(dc, "an operand is not a label");
    *a = (ny_ptx_arg){.kind = NY_ARG_IMM};
    return true;
  }
}

enum { MAX_ARGS = 96 };
static bool vector(ny_ptx_decoder *dc, ny_ptx_ins *i, ny_ptx_arg *a, const ny_opd *o, const ny_row_item *it) {
  const ny_opd *e = o->kind == NY_OPD_VECTOR ? o->elem : o;
  uint32_t n = o->kind == NY_OPD_VECTOR ? o->n : 1;
  if (it->count > 0 && n != (uint32_t)it->count)
    return ny_ptx_bad(dc, "an operand has %u elements instead of %d", n, it->count);
  if (i->n_arg + n > MAX_ARGS) return ny_ptx_bad(dc, "too many operands");
  if (!it->count && !i->vec) i->vec = (uint8_t)n;
  for (uint32_t k = 0; k < n; k++) {
    if (!one(dc, &a[i->n_arg], &e[k], it->letter)) return false;
    if (is_written(it->letter)) a[i->n_arg].flags |= NY_ARG_WRITTEN;
    if (o->kind == NY_OPD_VECTOR) a[i->n_arg].flags |= NY_ARG_VECTOR;
    i->n_arg++;
  }
  return true;
}

/* Operands that must follow: an optional one in front of them is there only if more are written. */
static uint32_t still_wanted(const char *s) {
  ny_row_item it;
  uint32_t n = 0;
  while ((s = ny_row_item_next(s, &it))) n += !it.optional;
  return n;
}

bool ny_decode_args(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  ny_ptx_arg a[MAX_ARGS];
  ny_row_item it;
  uint32_t o = 0;
  for (const char *s = dc->match.row->operands; (s = ny_row_item_next(s, &it));) {
    bool there = o < dc->raw->n_opd && dc->raw->opd[o].joined == it.joined;
    if (it.optional && !it.joined && dc->raw->n_opd - o <= still_wanted(s)) there = false;
    if (!there) {
      if (!it.optional) return ny_ptx_bad(dc, "operand %u is missing", o + 1);
      if (i->n_arg == MAX_ARGS) return ny_ptx_bad(dc, "too many operands");
      a[i->n_arg++] = (ny_ptx_arg){.kind = NY_ARG_NONE};
      continue;
    }
    const ny_opd *w = &dc->raw->opd[o++];
    if (it.count >= 0) {
      if (!vector(dc, i, a, w, &it)) return false;
    } else {
      if (i->n_arg == MAX_ARGS) return ny_ptx_bad(dc, "too many operands");
      if (!one(dc, &a[i->n_arg], w, it.letter)) return false;
      if (is_written(it.letter)) a[i->n_arg].flags |= NY_ARG_WRITTEN;
      i->n_arg++;
    }
  }
  if (o < dc->raw->n_opd) return ny_ptx_bad(dc, "it has %u operands instead of %u", dc->raw->n_opd, o);
  ny_ptx_arg *keep = ny_ptx_alloc(dc, (i->n_arg ? i->n_arg : 1) * sizeof *a);
  memcpy(keep, a, i->n_arg * sizeof *a);
  i->arg = keep;
  return true;
}
