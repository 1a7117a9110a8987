/* PTX text, the level of a module: directives, variables, kernels and device functions. Bodies are in parse_body.c. */
#include "parse.h"
#include <stdarg.h>
#include <string.h>

bool ny_parse_bad(ny_parser *p, const char *fmt, ...) {
  if (p->status) return false;
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (p->d && !p->d->code) p->d->line = p->x.line, p->d->file = p->m->file;
  p->status = ny_fail(p->d, NYB_E_PARSE, NULL, "%s", text);
  return false;
}

static bool unexpected(ny_parser *p, const char *want) {
  int n = p->x.n > 60 ? 60 : (int)p->x.n;
  if (p->x.kind == NY_TOK_END) return ny_parse_bad(p, "the text ends where %s is expected", want);
  return ny_parse_bad(p, "\"%.*s\" where %s is expected", n, p->x.text, want);
}

bool ny_parse_take(ny_parser *p, char c) {
  if (p->x.kind != NY_TOK_PUNCT || p->x.punct != c) return false;
  ny_lex_next(&p->x);
  return true;
}

bool ny_parse_punct(ny_parser *p, char c) {
  if (ny_parse_take(p, c)) return true;
  return unexpected(p, (char[]){'\'', c, '\'', 0});
}

bool ny_parse_word(ny_parser *p, const char *w) {
  if (!ny_lex_is(&p->x, w)) return false;
  ny_lex_next(&p->x);
  return true;
}

ny_name ny_parse_name(ny_parser *p) {
  if (p->x.kind != NY_TOK_WORD) return unexpected(p, "a name"), NULL;
  ny_name n = ny_internn(&p->m->names, p->x.text, p->x.n);
  ny_lex_next(&p->x);
  return n;
}

bool ny_parse_count(ny_parser *p, uint64_t limit, uint64_t *out) {
  if (p->x.kind != NY_TOK_INT) return unexpected(p, "a number");
  if ((uint64_t)p->x.value > limit)
    return ny_parse_bad(p, "%.*s is more than %llu", (int)p->x.n, p->x.text, (unsigned long long)limit);
  *out = (uint64_t)p->x.value;
  ny_lex_next(&p->x);
  return true;
}

bool ny_parse_type(ny_parser *p, ny_ptx_type *out) {
  if (p->x.kind == NY_TOK_WORD && p->x.text[0] == '.' && p->x.n > 1) {
    *out = ny_ptx_type_by_name(p->x.text + 1, p->x.n - 1);
    if (*out) {
      ny_lex_next(&p->x);
      return true;
    }
  }
  return unexpected(p, "a type");
}

/* Everything up to the brace that closes the one already taken; sections hold debug data that nobody needs. */
bool ny_parse_skip_block(ny_parser *p) {
  for (int depth = 1; depth; ny_lex_next(&p->x)) {
    if (p->x.kind == NY_TOK_END) return unexpected(p, "'}'");
    if (p->x.kind == NY_TOK_PUNCT) depth += (p->x.punct == '{') - (p->x.punct == '}');
  }
  return true;
}

const ny_symbol *ny_parse_find_symbol(ny_parser *p, ny_name name) {
  for (uint32_t i = p->n_locals; i-- > 0;)
    if (p->local[i].sym->name == name) return p->local[i].sym;
  for (uint32_t i = 0; i < p->m->n_symbols; i++)
    if (p->m->symbol[i]->name == name) return p->m->symbol[i];
  return NULL;
}

/* ---- variables */
enum { MAX_VARIABLE = 1 << 30, MAX_ALIGN = 1 << 16 };

static bool parse_align(ny_parser *p, uint32_t *align) {
  uint64_t v = 0;
  if (!ny_parse_count(p, MAX_ALIGN, &v)) return false;
  if (!v || (v & (v - 1))) return ny_parse_bad(p, "alignment %llu is not a power of two", (unsigned long long)v);
  *align = (uint32_t)v;
  return true;
}

static bool parse_dims(ny_parser *p, uint64_t *count, bool *open) {
  *open = false;
  while (ny_parse_take(p, '[')) {
    if (ny_parse_take(p, ']')) {
      *open = true;
      continue;
    }
    uint64_t n;
    if (!ny_parse_count(p, MAX_VARIABLE, &n) || !ny_parse_punct(p, ']')) return false;
    *count *= n;
    if (*count > MAX_VARIABLE) return ny_parse_bad(p, "a variable of more than %d elements", MAX_VARIABLE);
  }
  return true;
}

typedef struct ny_init {
  uint8_t *at, *end;
  uint32_t bytes;
  bool is_float;
} ny_init;

static bool add_reloc(ny_parser *p, ny_init *in, bool generic) {
  ny_name name = ny_parse_name(p);
  if (!name) return false;
  if (generic && !ny_parse_punct(p, ')')) return false;
  int64_t add = 0;
  if (ny_parse_take(p, '+')) {
    uint64_t v;
    if (!ny_parse_count(p, INT64_MAX, &v)) return false;
    add = (int64_t)v;
  }
  if (in->bytes != 8) return ny_parse_bad(p, "an address of %u bytes as an initial value", in->bytes);
  NY_PUSH_ROOM(&p->m->arena, p->reloc, p->n_relocs, p->cap_relocs);
  p->reloc[p->n_relocs++] = (ny_reloc){in->at, name, add, in->bytes};
  return true;
}

static bool parse_number(ny_parser *p, ny_init *in) {
  bool minus = ny_parse_take(p, '-');
  int64_t v = p->x.value;
  if (p->x.kind == NY_TOK_FLOAT) {
    double f = 0;
    float g;
    if (p->x.width == 8)
      memcpy(&f, &v, 8);
    else
      memcpy(&g, &v, 4), f = (double)g;
    if (minus) f = -f;
    g = (float)f;
    if (in->bytes == 4)
      memcpy(in->at, &g, 4);
    else if (in->bytes == 8)
      memcpy(in->at, &f, 8);
    else
      return ny_parse_bad(p, "a float as the initial value of %u bytes", in->bytes);
  } else if (p->x.kind == NY_TOK_INT) {
    if (minus) v = (int64_t)(0 - (uint64_t)v);
    memcpy(in->at, &v, in->bytes);
  } else {
    return unexpected(p, "an initial value");
  }
  ny_lex_next(&p->x);
  return true;
}

static bool parse_init(ny_parser *p, ny_init *in, int depth) {
  if (ny_parse_take(p, '{')) {
    if (depth > 8) return ny_parse_bad(p, "initial values nested more than 8 deep");
    if (ny_parse_take(p, '}')) return true;
    do {
      if (!parse_init(p, in, depth + 1)) return false;
    } while (ny_parse_take(p, ','));
    return ny_parse_punct(p, '}');
  }
  if (in->at + in->bytes > in->end) return ny_parse_bad(p, "more initial values than the variable has room for");
  bool ok;
  if (ny_parse_word(p, "generic"))
    ok = ny_parse_punct(p, '(') && add_reloc(p, in, true);
  else if (p->x.kind == NY_TOK_WORD)
    ok = add_reloc(p, in, false);
  else
    ok = parse_number(p, in);
  in->at += in->bytes;
  return ok;
}

static void place_global(ny_parser *p, ny_symbol *s) {
  uint64_t bytes = s->bytes ? s->bytes : 1;
  uint8_t *at = ny_alloc(&p->m->arena, bytes + 256 + s->align);
  uint64_t align = s->align > 256 ? s->align : 256;
  s->address = ((uint64_t)(uintptr_t)at + align - 1) / align * align;
  ny_sim_module *m = p->m;
  uint32_t cap = m->cap_variables;
  NY_PUSH_ROOM(&m->arena, m->variable, m->n_variables, m->cap_variables);
  if (cap != m->cap_variables)
    m->range = ny_grow(&m->arena, m->range, cap * sizeof *m->range, m->cap_variables * sizeof *m->range);
  ny_sim_range *r = &m->range[m->n_variables];
  *r = (ny_sim_range){.base = s->address, .bytes = bytes, .read_only = s->space == NY_CONST};
  snprintf(r->name, sizeof r->name, "%s", s->name);
  m->variable[m->n_variables++] =
      (ny_sim_variable){s->name, (void *)(uintptr_t)s->address, s->bytes, s->space == NY_CONST};
}

static void add_symbol(ny_parser *p, ny_symbol *s) {
  if (p->f) {
    NY_PUSH_ROOM(&p->m->arena, p->local, p->n_locals, p->cap_locals);
    p->local[p->n_locals++] = (ny_local_symbol){s, p->scope};
  } else {
    NY_PUSH_ROOM(&p->m->arena, p->m->symbol, p->m->n_symbols, p->m->cap_symbols);
    p->m->symbol[p->m->n_symbols++] = s;
  }
}

static bool parse_declaration(ny_parser *p, ny_symbol *s, uint32_t *element, bool *open) {
  uint64_t count = 1, vec = 1;
  ny_ptx_type type;
  for (;;) {
    if (ny_parse_word(p, ".align")) {
      if (!parse_align(p, &s->align)) return false;
    } else if (ny_parse_word(p, ".v2")) {
      vec = 2;
    } else if (ny_parse_word(p, ".v4")) {
      vec = 4;
    } else if (ny_lex_is(&p->x, ".attribute")) {
      ny_lex_next(&p->x);
      if (!ny_parse_punct(p, '(') || !ny_parse_name(p) || !ny_parse_punct(p, ')')) return false;
    } else {
      break;
    }
  }
  if (!ny_parse_type(p, &type)) return false;
  *element = ny_ptx_types[type].bits / 8;
  if (!*element) return ny_parse_bad(p, "a predicate is not a variable");
  while (ny_parse_word(p, ".ptr") || ny_parse_word(p, ".global") || ny_parse_word(p, ".const") ||
         ny_parse_word(p, ".shared") || ny_parse_word(p, ".local"))
    ;
  uint32_t pointee;
  if (ny_parse_word(p, ".align") && !parse_align(p, &pointee)) return false;
  if (!(s->name = ny_parse_name(p)) || !parse_dims(p, &count, open)) return false;
  s->bytes = count * *element * vec;
  if (!s->align) s->align = *element * (uint32_t)vec;
  return true;
}

bool ny_parse_variable(ny_parser *p, ny_ptx_space space, bool is_extern) {
  ny_symbol *s = NY_NEW(&p->m->arena, ny_symbol);
  uint32_t element;
  do {
    bool open;
    s->space = space, s->is_extern = is_extern;
    if (!parse_declaration(p, s, &element, &open)) return false;
    if (open) s->bytes = 0;
    if (is_extern && space != NY_SHARED) return ny_parse_bad(p, "the variable \"%s\" is defined elsewhere", s->name);
    if (space == NY_GLOBAL || space == NY_CONST) {
      if (open) return ny_parse_bad(p, "the size of \"%s\" is missing", s->name);
      place_global(p, s);
    }
    if (space == NY_LOCAL || space == NY_PARAM) { /* in the frame of the function */
      s->address = (p->f->frame_bytes + s->align - 1) / s->align * s->align;
      if (s->address + s->bytes > 1 << 24) return ny_parse_bad(p, "more than 16 MiB of local memory a thread");
      p->f->frame_bytes = (uint32_t)(s->address + s->bytes);
    }
    add_symbol(p, s);
    if (ny_parse_take(p, '=')) {
      if (space != NY_GLOBAL && space != NY_CONST)
        return ny_parse_bad(p, "\"%s\" cannot have an initial value", s->name);
      uint8_t *at = (uint8_t *)(uintptr_t)s->address;
      if (!parse_init(p, &(ny_init){at, at + s->bytes, element, false}, 0)) return false;
    }
    s = NY_NEW(&p->m->arena, ny_symbol);
  } while (ny_parse_take(p, ',') && p->x.kind == NY_TOK_WORD && p->x.text[0] == '.');
  return ny_parse_punct(p, ';');
}

/* ---- functions */
static bool parse_formals(ny_parser *p, ny_func *f, bool is_return) {
  if (ny_parse_take(p, ')')) return true;
  do {
    if (!ny_parse_word(p, ".param")) {
      if (ny_lex_is(&p->x, ".reg")) return ny_parse_bad(p, "parameters in registers are not supported");
      return unexpected(p, ".param");
    }
    ny_symbol *s = NY_NEW(&p->m->arena, ny_symbol);
    uint32_t element;
    bool open;
    if (!parse_declaration(p, s, &element, &open)) return false;
    s->space = NY_PARAM;
    s->is_entry_param = f->is_entry;
    uint32_t *bytes = f->is_entry ? &f->param_bytes : &f->frame_bytes;
    s->address = ((uint64_t)*bytes + s->align - 1) / s->align * s->align;
    if (s->address + s->bytes > 32764) return ny_parse_bad(p, "more than 32764 bytes of parameters");
    *bytes = (uint32_t)(s->address + s->bytes);
    if (is_return) {
      NY_PUSH_ROOM(&p->m->arena, f->ret, f->n_rets, f->cap_rets);
      f->ret[f->n_rets++] = s;
    } else {
      NY_PUSH_ROOM(&p->m->arena, f->param, f->n_params, f->cap_params);
      f->param[f->n_params++] = s;
    }
    add_symbol(p, s);
  } while (ny_parse_take(p, ','));
  return ny_parse_punct(p, ')');
}

static bool parse_three(ny_parser *p, uint32_t *v) {
  for (int k = 0; k < 3; k++) {
    uint64_t n;
    if (!ny_parse_count(p, 1024, &n)) return false;
    v[k] = (uint32_t)n;
    if (!ny_parse_take(p, ',')) break;
  }
  return true;
}

/* Performance and linkage directives between the parameters and the body; only .maxntid and .reqntid matter here. */
static bool parse_directives(ny_parser *p, ny_func *f) {
  while (p->x.kind == NY_TOK_WORD && p->x.text[0] == '.') {
    bool threads = ny_lex_is(&p->x, ".maxntid") || ny_lex_is(&p->x, ".reqntid");
    bool pragma = ny_lex_is(&p->x, ".pragma");
    ny_lex_next(&p->x);
    uint32_t ignored[3], *v = threads ? f->max_threads : ignored;
    if (pragma) {
      while (p->x.kind == NY_TOK_STRING || (p->x.kind == NY_TOK_PUNCT && p->x.punct == ',')) ny_lex_next(&p->x);
      if (!ny_parse_punct(p, ';')) return false;
    } else if (p->x.kind == NY_TOK_INT) {
      if (threads) v[0] = v[1] = v[2] = 1;
      if (!parse_three(p, v)) return false;
    }
  }
  return true;
}

static ny_func *find_func(ny_sim_module *m, ny_name name) {
  for (uint32_t i = 0; i < m->n_funcs; i++)
    if (m->func[i]->name == name) return m->func[i];
  return NULL;
}

static bool parse_function(ny_parser *p, bool is_entry) {
  ny_func *f = NY_NEW(&p->m->arena, ny_func);
  f->is_entry = is_entry;
  p->f = f;
  p->n_locals = p->n_regs = p->scope = 0;
  f->n_preds = NY_N_PRED_FIXED;
  f->reg_bytes = 0;
  if (!is_entry && ny_parse_take(p, '(') && !parse_formals(p, f, true)) return false;
  if (!(f->name = ny_parse_name(p))) return false;
  if (ny_parse_take(p, '(') && !parse_formals(p, f, false)) return false;
  if (!parse_directives(p, f)) return false;
  if (ny_parse_take(p, '{')) {
    f->has_body = true;
    if (!ny_parse_body(p)) return false;
  } else if (!ny_parse_punct(p, ';')) {
    return false;
  }
  p->f = NULL;
  p->n_locals = 0;
  ny_func *old = find_func(p->m, f->name);
  if (old && old->has_body && f->has_body) return ny_parse_bad(p, "\"%s\" is defined twice", f->name);
  if (old) {
    if (f->has_body) *old = *f;
    return true;
  }
  NY_PUSH_ROOM(&p->m->arena, p->m->func, p->m->n_funcs, p->m->cap_funcs);
  p->m->func[p->m->n_funcs++] = f;
  return true;
}

/* ---- the module */
static bool parse_target(ny_parser *p) {
  do {
    ny_name t = ny_parse_name(p);
    if (!t) return false;
    int sm;
    if (sscanf(t, "sm_%d", &sm) == 1) p->m->target = sm;
  } while (ny_parse_take(p, ','));
  return true;
}

static bool parse_file(ny_parser *p) {
  uint64_t number, ignored;
  if (!ny_parse_count(p, 4095, &number)) return false;
  if (p->x.kind != NY_TOK_STRING) return unexpected(p, "a file name");
  if (number >= p->n_files) {
    p->file = ny_grow(&p->m->arena, p->file, p->n_files * sizeof *p->file, (number + 1) * sizeof *p->file);
    p->n_files = (uint32_t)number + 1;
  }
  p->file[number] = ny_strndup(&p->m->arena, p->x.text, p->x.n);
  ny_lex_next(&p->x);
  while (ny_parse_take(p, ','))
    if (!ny_parse_count(p, UINT64_MAX, &ignored)) return false;
  return true;
}

static bool parse_top(ny_parser *p) {
  uint64_t number;
  bool is_extern = false;
  for (;;) {
    if (ny_parse_word(p, ".extern"))
      is_extern = true;
    else if (!ny_parse_word(p, ".visible") && !ny_parse_word(p, ".weak") && !ny_parse_word(p, ".common"))
      break;
  }
  if (ny_parse_word(p, ".version")) {
    if (p->x.kind != NY_TOK_FLOAT) return unexpected(p, "a version");
    ny_lex_next(&p->x);
    return true;
  }
  if (ny_parse_word(p, ".target")) return parse_target(p);
  if (ny_parse_word(p, ".address_size")) {
    if (!ny_parse_count(p, 64, &number)) return false;
    return number == 64 || ny_parse_bad(p, "only 64-bit addresses are supported");
  }
  if (ny_parse_word(p, ".global")) return ny_parse_variable(p, NY_GLOBAL, is_extern);
  if (ny_parse_word(p, ".const")) return ny_parse_variable(p, NY_CONST, is_extern);
  if (ny_parse_word(p, ".shared")) return ny_parse_variable(p, NY_SHARED, is_extern);
  if (ny_parse_word(p, ".entry")) return parse_function(p, true);
  if (ny_parse_word(p, ".func")) return parse_function(p, false);
  if (ny_parse_word(p, ".file")) return parse_file(p);
  if (ny_parse_word(p, ".loc")) return ny_parse_loc(p);
  if (ny_lex_is(&p->x, ".pragma")) return parse_directives(p, NULL);
  if (ny_parse_word(p, ".section")) {
    if (!ny_parse_name(p)) return false;
    return ny_parse_punct(p, '{') && ny_parse_skip_block(p);
  }
  return unexpected(p, "a directive");
}

static bool resolve(ny_parser *p) {
  for (uint32_t i = 0; i < p->n_relocs; i++) {
    const ny_symbol *s = ny_parse_find_symbol(p, p->reloc[i].name);
    if (!s || (s->space != NY_GLOBAL && s->space != NY_CONST))
      return ny_parse_bad(p, "the address of \"%s\", an initial value, is not known", p->reloc[i].name);
    uint64_t v = s->address + (uint64_t)p->reloc[i].add;
    memcpy(p->reloc[i].at, &v, sizeof v);
  }
  for (ny_ptx_loc *l = p->loc; l; l = l->before)
    if (l->file < p->n_files) l->place.file = p->file[l->file];
  return true;
}

nyb_status ny_ptx_parse(ny_sim_module *m, const char *text, size_t n, ny_diag *d) {
  ny_parser p = {.m = m, .d = d, .x = {.s = text, .end = text + n, .next_line = 1}};
  ny_lex_next(&p.x);
  while (p.x.kind != NY_TOK_END && !p.status)
    if (!parse_top(&p) && !p.status) ny_parse_bad(&p, "the text is not PTX");
  if (!p.status) resolve(&p);
  return p.status;
}
