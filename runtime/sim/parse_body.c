/* PTX text, the level of a function body: declarations, labels, scopes as inline assembly makes them, instructions. */
#include "parse.h"
#include <stdlib.h>
#include <string.h>

static const ny_reg_decl *find_reg(ny_parser *p, ny_name name, uint32_t *off_or_pred) {
  size_t n = strlen(name), k = n;
  while (k > 0 && name[k - 1] >= '0' && name[k - 1] <= '9') k--;
  ny_name prefix = k < n && n - k < 8 ? ny_internn(&p->m->names, name, k) : NULL;
  uint32_t number = prefix ? (uint32_t)strtoul(name + k, NULL, 10) : 0;
  for (uint32_t i = p->n_regs; i-- > 0;) {
    const ny_reg_decl *r = &p->reg[i];
    if (!r->count && r->name == name) {
      *off_or_pred = r->off;
      return r;
    }
    if (prefix && r->name == prefix && number < r->count) {
      *off_or_pred = r->off + (r->width ? number * r->width * NY_LANES : number);
      return r;
    }
  }
  return NULL;
}

static bool declare_regs(ny_parser *p) {
  ny_ptx_type type;
  if (ny_lex_is(&p->x, ".v2") || ny_lex_is(&p->x, ".v4")) return ny_parse_bad(p, "vector registers are not supported");
  if (!ny_parse_type(p, &type)) return false;
  uint32_t bits = ny_ptx_types[type].bits;
  if (bits > 64) return ny_parse_bad(p, "registers of %u bits are not supported", bits);
  uint8_t width = bits == 1 ? 0 : bits == 64 ? 8 : 4;
  do {
    ny_reg_decl r = {.width = width, .scope = p->scope, .half = bits <= 16};
    uint64_t count = 0;
    if (!(r.name = ny_parse_name(p))) return false;
    if (ny_parse_take(p, '<') && (!ny_parse_count(p, 1 << 20, &count) || !ny_parse_punct(p, '>'))) return false;
    r.count = (uint32_t)count;
    uint32_t n = r.count ? r.count : 1;
    r.off = width ? p->f->reg_bytes : p->f->n_preds;
    if (width) {
      if ((uint64_t)p->f->reg_bytes + (uint64_t)n * width * NY_LANES > 1 << 30)
        return ny_parse_bad(p, "more than 1 GiB of registers");
      p->f->reg_bytes += n * width * NY_LANES;
      p->f->n_regs += n;
    } else {
      p->f->n_preds += n;
    }
    NY_PUSH_ROOM(&p->m->arena, p->reg, p->n_regs, p->cap_regs);
    p->reg[p->n_regs++] = r;
  } while (ny_parse_take(p, ','));
  return ny_parse_punct(p, ';');
}

/* ---- operands */
enum { MAX_ELEMENTS = 32 };
static bool operand(ny_parser *p, ny_opd *o, int depth);

static bool list(ny_parser *p, ny_opd *o, char close, int depth) {
  ny_opd e[MAX_ELEMENTS];
  o->n = 0;
  if (depth > 3) return ny_parse_bad(p, "operands nested too deep");
  if (!ny_parse_take(p, close)) {
    do {
      if (o->n == MAX_ELEMENTS) return ny_parse_bad(p, "more than %d elements in an operand", MAX_ELEMENTS);
      if (!operand(p, &e[o->n], depth + 1)) return false;
      o->n++;
    } while (ny_parse_take(p, ','));
    if (!ny_parse_punct(p, close)) return false;
  }
  o->elem = NY_NEW_ARRAY(&p->m->arena, ny_opd, o->n ? o->n : 1);
  memcpy(o->elem, e, o->n * sizeof *e);
  return true;
}

static bool offset(ny_parser *p, int64_t *imm) {
  while (p->x.kind == NY_TOK_PUNCT && (p->x.punct == '+' || p->x.punct == '-')) {
    bool minus = p->x.punct == '-';
    ny_lex_next(&p->x);
    if (ny_parse_take(p, '-')) minus = !minus;
    if (p->x.kind != NY_TOK_INT) return ny_parse_bad(p, "an offset must be a number");
    uint64_t v = (uint64_t)p->x.value;
    *imm = (int64_t)((uint64_t)*imm + (minus ? 0 - v : v));
    ny_lex_next(&p->x);
  }
  return true;
}

static bool memory(ny_parser *p, ny_opd *o, int depth) {
  ny_opd base;
  if (depth > 3) return ny_parse_bad(p, "operands nested too deep");
  if (!operand(p, &base, depth + 1)) return false;
  o->kind = NY_OPD_MEM;
  o->imm = 0;
  o->n = 0;
  if (base.kind == NY_OPD_INT) {
    o->imm = base.imm;
  } else if (base.kind == NY_OPD_REG || base.kind == NY_OPD_SYMBOL) {
    o->imm = base.imm;
    base.imm = 0;
    o->n = 1;
    o->elem = NY_NEW(&p->m->arena, ny_opd);
    *o->elem = base;
  } else {
    return ny_parse_bad(p, "an address must begin with a register, a variable or a number");
  }
  if (ny_parse_take(p, ',')) return ny_parse_bad(p, "tensor and texture coordinates are not supported");
  return offset(p, &o->imm) && ny_parse_punct(p, ']');
}

static bool literal(ny_parser *p, ny_opd *o) {
  bool minus = ny_parse_take(p, '-');
  uint64_t v = (uint64_t)p->x.value;
  if (p->x.kind == NY_TOK_INT) {
    o->kind = NY_OPD_INT;
    o->imm = (int64_t)(minus ? 0 - v : v);
  } else if (p->x.kind == NY_TOK_FLOAT) {
    o->kind = NY_OPD_FLOAT;
    o->width = p->x.width;
    o->imm = (int64_t)(minus ? v ^ (p->x.width == 4 ? 0x80000000u : 0x8000000000000000u) : v);
  } else {
    return ny_parse_bad(p, "\"%.*s\" is not an operand", p->x.n > 40 ? 40 : (int)p->x.n, p->x.text);
  }
  ny_lex_next(&p->x);
  return true;
}

static bool named(ny_parser *p, ny_opd *o) {
  int special = p->x.text[0] == '%' ? ny_special_by_name(p->x.text, p->x.n) : -1;
  ny_name name = ny_parse_name(p);
  const ny_reg_decl *r = find_reg(p, name, &o->off);
  o->name = name;
  if (r) {
    o->kind = r->width ? NY_OPD_REG : NY_OPD_PRED;
    o->width = r->width;
    o->half = r->half;
  } else if (special >= 0) {
    o->kind = NY_OPD_SPECIAL;
    o->off = (uint32_t)special;
    o->width = ny_specials[special].width;
  } else if (!strcmp(name, "_")) {
    o->kind = NY_OPD_SINK;
  } else if (!strcmp(name, "WARP_SZ")) {
    o->kind = NY_OPD_INT;
    o->imm = NY_LANES;
  } else if ((o->sym = ny_parse_find_symbol(p, name))) {
    o->kind = NY_OPD_SYMBOL;
    return offset(p, &o->imm);
  } else if (name[0] == '%') {
    return ny_parse_bad(p, "no register \"%s\" is declared, and no special register has that name", name);
  } else {
    o->kind = NY_OPD_NAME;
  }
  return true;
}

static bool operand(ny_parser *p, ny_opd *o, int depth) {
  *o = (ny_opd){0};
  if (ny_parse_take(p, '{')) {
    o->kind = NY_OPD_VECTOR;
    return list(p, o, '}', depth);
  }
  if (ny_parse_take(p, '(')) {
    o->kind = NY_OPD_LIST;
    return list(p, o, ')', depth);
  }
  if (ny_parse_take(p, '[')) return memory(p, o, depth);
  if (ny_parse_take(p, '!')) o->negated = true;
  return p->x.kind == NY_TOK_WORD ? named(p, o) : literal(p, o);
}

/* ---- statements */
static bool parse_guard(ny_parser *p, ny_raw *r) {
  if (!ny_parse_take(p, '@')) return true;
  if (!operand(p, &r->guard, 0)) return false;
  r->guarded = true;
  return r->guard.kind == NY_OPD_PRED || ny_parse_bad(p, "a guard must be a predicate");
}

/* The statement's text on one line, for messages. */
static const char *statement_text(ny_parser *p, const char *from, const char *to) {
  char *out = ny_alloc(&p->m->arena, (size_t)(to - from) + 1), *o = out;
  for (const char *s = from; s < to; s++) {
    bool blank = *s == ' ' || *s == '\t' || *s == '\n' || *s == '\r';
    if (!blank)
      *o++ = *s;
    else if (o > out && o[-1] != ' ')
      *o++ = ' ';
  }
  return out;
}

static uint32_t add_statement(ny_parser *p, const char *from, const char *to, int line) {
  ny_sim_module *m = p->m;
  NY_PUSH_ROOM(&m->arena, m->stmt, m->n_stmts, m->cap_stmts);
  m->stmt[m->n_stmts] = (ny_ptx_stmt){statement_text(p, from, to), p->loc ? &p->loc->place : NULL, line};
  return m->n_stmts++;
}

static bool parse_instruction(ny_parser *p) {
  ny_raw r = {.scope = p->scope, .used = p->used_bytes};
  p->used_bytes = 0;
  const char *from = p->x.text;
  int line = p->x.line;
  if (!parse_guard(p, &r)) return false;
  if (p->x.kind != NY_TOK_WORD) return ny_parse_bad(p, "\"%.*s\" is not an instruction", (int)p->x.n, p->x.text);
  r.op = ny_strndup(&p->m->arena, p->x.text, p->x.n);
  r.n_op = (uint32_t)p->x.n;
  ny_lex_next(&p->x);
  ny_opd o[MAX_ELEMENTS];
  while (!(p->x.kind == NY_TOK_PUNCT && p->x.punct == ';')) {
    if (r.n_opd == MAX_ELEMENTS) return ny_parse_bad(p, "more than %d operands", MAX_ELEMENTS);
    bool joined = r.n_opd && ny_parse_take(p, '|');
    if (r.n_opd && !joined && !ny_parse_punct(p, ',')) return false;
    if (!operand(p, &o[r.n_opd], 0)) return false;
    o[r.n_opd++].joined = joined;
  }
  r.stmt = add_statement(p, from, p->x.text, line);
  ny_lex_next(&p->x);
  r.opd = NY_NEW_ARRAY(&p->m->arena, ny_opd, r.n_opd ? r.n_opd : 1);
  memcpy(r.opd, o, r.n_opd * sizeof *o);
  NY_PUSH_ROOM(&p->m->arena, p->f->raw, p->f->n_raw, p->f->cap_raw);
  p->f->raw[p->f->n_raw++] = r;
  return true;
}

static bool parse_place(ny_parser *p, ny_ptx_loc *l) {
  uint64_t file, line, column;
  if (!ny_parse_count(p, 4095, &file) || !ny_parse_count(p, INT32_MAX, &line) ||
      !ny_parse_count(p, UINT32_MAX, &column))
    return false;
  *l = (ny_ptx_loc){.place.line = (int)line, .file = (uint32_t)file, .column = (uint32_t)column};
  return true;
}

/* The call's own .loc comes shortly before: its chain is the caller's. */
static const ny_sim_place *inlined_from(ny_parser *p, const ny_ptx_loc *call) {
  ny_ptx_loc *l = p->loc;
  for (int far = 0; l && far < 32; l = l->before, far++)
    if (l->place.line == call->place.line && l->column == call->column && l->file == call->file) return &l->place;
  ny_ptx_loc *own = NY_NEW(&p->m->arena, ny_ptx_loc);
  *own = *call;
  own->before = p->loc;
  p->loc = own;
  return &own->place;
}

bool ny_parse_loc(ny_parser *p) {
  ny_ptx_loc *l = NY_NEW(&p->m->arena, ny_ptx_loc), call;
  uint64_t offset;
  if (!parse_place(p, l)) return false;
  while (ny_parse_take(p, ',')) { /* , function_name label [+ n], inlined_at file line column */
    bool inlined = ny_lex_is(&p->x, "inlined_at");
    if (!ny_parse_name(p)) return false;
    if (inlined) {
      if (!parse_place(p, &call)) return false;
      l->place.from = inlined_from(p, &call);
    } else if (!ny_parse_name(p) || (ny_parse_take(p, '+') && !ny_parse_count(p, UINT32_MAX, &offset))) {
      return false;
    }
  }
  l->before = p->loc;
  p->loc = l;
  return true;
}

static bool parse_targets(ny_parser *p) {
  if (!p->f->n_labels) return ny_parse_bad(p, ".branchtargets without a label");
  ny_label *l = &p->f->label[p->f->n_labels - 1];
  ny_name t[1024];
  do {
    if (l->n_targets == NY_COUNT(t)) return ny_parse_bad(p, "more than %zu branch targets", NY_COUNT(t));
    if (!(t[l->n_targets] = ny_parse_name(p))) return false;
    l->n_targets++;
  } while (ny_parse_take(p, ','));
  l->target = NY_NEW_ARRAY(&p->m->arena, ny_name, l->n_targets);
  memcpy(l->target, t, l->n_targets * sizeof *t);
  return ny_parse_punct(p, ';');
}

static void add_label(ny_parser *p, const char *s, size_t n) {
  ny_func *f = p->f;
  NY_PUSH_ROOM(&p->m->arena, f->label, f->n_labels, f->cap_labels);
  f->label[f->n_labels++] = (ny_label){.name = ny_internn(&p->m->names, s, n), .scope = p->scope, .at = f->n_raw};
}

static void open_scope(ny_parser *p, uint32_t parent) {
  ny_func *f = p->f;
  NY_PUSH_ROOM(&p->m->arena, f->scope, f->n_scopes, f->cap_scopes);
  f->scope[f->n_scopes] = (ny_scope){parent};
  p->scope = f->n_scopes++;
}

/* Names of a scope end with it; the registers keep their places, one after the other. */
static void close_scope(ny_parser *p) {
  while (p->n_regs && p->reg[p->n_regs - 1].scope == p->scope) p->n_regs--;
  while (p->n_locals && p->local[p->n_locals - 1].scope == p->scope) p->n_locals--;
  p->scope = p->f->scope[p->scope].parent;
}

static bool skip_statement(ny_parser *p) {
  while (!ny_parse_take(p, ';')) {
    if (p->x.kind == NY_TOK_END) return ny_parse_bad(p, "the text ends inside of a statement");
    ny_lex_next(&p->x);
  }
  return true;
}

/* NVRTC widens loads over bytes that nobody asked for, and says so. */
static bool parse_pragma(ny_parser *p) {
  static const char used[] = "used_bytes_mask ";
  if (p->x.kind == NY_TOK_STRING && p->x.n > sizeof used - 1 && !memcmp(p->x.text, used, sizeof used - 1))
    p->used_bytes = (uint32_t)strtoul(p->x.text + sizeof used - 1, NULL, 0); /* ends at the closing quote */
  return skip_statement(p);
}

static bool parse_directive(ny_parser *p) {
  if (ny_parse_word(p, ".reg")) return declare_regs(p);
  if (ny_parse_word(p, ".loc")) return ny_parse_loc(p);
  if (ny_parse_word(p, ".local")) return ny_parse_variable(p, NY_LOCAL, false);
  if (ny_parse_word(p, ".shared")) return ny_parse_variable(p, NY_SHARED, false);
  if (ny_parse_word(p, ".param")) return ny_parse_variable(p, NY_PARAM, false);
  if (ny_parse_word(p, ".branchtargets")) return parse_targets(p);
  if (ny_parse_word(p, ".pragma")) return parse_pragma(p);
  if (ny_lex_is(&p->x, ".callprototype")) return skip_statement(p);
  return ny_parse_bad(p, "\"%.*s\" is not a directive of a body", (int)p->x.n, p->x.text);
}

/* A word followed by a colon; the lexer has it as one token, so looking ahead is looking at a character. */
static bool is_label(const ny_parser *p) {
  const char *s = p->x.s;
  while (s < p->x.end && (*s == ' ' || *s == '\t')) s++;
  return p->x.kind == NY_TOK_WORD && s < p->x.end && *s == ':';
}

bool ny_parse_body(ny_parser *p) {
  open_scope(p, UINT32_MAX);
  for (int depth = 1; depth;) {
    bool ok = true;
    if (p->x.kind == NY_TOK_END) return ny_parse_bad(p, "the text ends inside of \"%s\"", p->f->name);
    if (ny_parse_take(p, '{')) {
      if (++depth > 64) return ny_parse_bad(p, "scopes nested more than 64 deep");
      open_scope(p, p->scope);
    } else if (ny_parse_take(p, '}')) {
      close_scope(p);
      depth--;
    } else if (ny_parse_take(p, ';')) {
    } else if (is_label(p)) {
      add_label(p, p->x.text, p->x.n);
      ny_lex_next(&p->x);
      ok = ny_parse_punct(p, ':');
    } else if (p->x.kind == NY_TOK_WORD && p->x.text[0] == '.') {
      ok = parse_directive(p);
    } else {
      ok = parse_instruction(p);
    }
    if (!ok) return false;
  }
  return true;
}
