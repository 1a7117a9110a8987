/* An elementwise row's expression text as a DAG of scalar ops. The text is C with C's precedences; equal subexpressions
   become one node, so that what the evaluator, the LLVM emitter and any later back end walk is already free of repeated
   work. Every row is parsed at the first call: about sixty short strings, a few microseconds. A malformed row is our
   own bug, so it aborts with the row's name and the place. */
#include "ir.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

enum { MAX_NODES = 128, MAX_DEPTH = 64, POOL = 4096 };

typedef struct parser {
  ny_kind kind;
  const char *start, *s;
  int depth, n;
  ny_snode node[MAX_NODES];
} parser;

static const struct {
  const char *spelling;
  uint8_t level, op; /* a higher level binds tighter */
} binary[] = {
    /* longer spellings first, so that "<=" is not read as "<" */
    {"||", 1, NY_S_lor}, {"&&", 2, NY_S_land}, {"==", 6, NY_S_eq},  {"!=", 6, NY_S_ne}, {"<=", 7, NY_S_le},
    {">=", 7, NY_S_ge},  {"<<", 8, NY_S_shl},  {">>", 8, NY_S_shr}, {"|", 3, NY_S_or},  {"^", 4, NY_S_xor},
    {"&", 5, NY_S_and},  {"<", 7, NY_S_lt},    {">", 7, NY_S_gt},   {"+", 9, NY_S_add}, {"-", 9, NY_S_sub},
    {"*", 10, NY_S_mul}, {"/", 10, NY_S_div},  {"%", 10, NY_S_rem},
};
enum { LOWEST = 1 };

static const struct {
  const char *spelling;
  uint8_t arity;
} scalar_rows[NY_N_SCALARS] = {
#define SCALAR(name, arity, kinds, text) {text, arity},
#include "scalars.def"
#undef SCALAR
};

static ny_snode pool[POOL];
static ny_expr table[NY_N_KINDS];
static once_flag parsed = ONCE_FLAG_INIT;

static _Noreturn void bad_row(const parser *p, const char *why) {
  fprintf(stderr, "nybble: ops.def, row %s: %s at \"%s\" in \"%s\"\n", ny_kinds[p->kind].name, why, p->s, p->start);
  abort();
}

static uint16_t node(parser *p, int op, int a, int b, int c, double x) {
  for (int i = 0; i < p->n; i++) {
    const ny_snode *m = &p->node[i];
    if (m->op == op && m->a == a && m->b == b && m->c == c && memcmp(&m->x, &x, sizeof x) == 0) return (uint16_t)i;
  }
  if (p->n == MAX_NODES) bad_row(p, "too many nodes");
  p->node[p->n] = (ny_snode){.op = (uint8_t)op, .a = (uint16_t)a, .b = (uint16_t)b, .c = (uint16_t)c, .x = x};
  return (uint16_t)p->n++;
}

static void skip(parser *p) {
  while (isspace((unsigned char)*p->s)) p->s++;
}

static bool eat(parser *p, char c) {
  skip(p);
  if (*p->s != c) return false;
  p->s++;
  return true;
}

static void need(parser *p, char c) {
  if (!eat(p, c)) bad_row(p, c == ')' ? "expected )" : c == ':' ? "expected :" : "expected (");
}

static uint16_t ternary(parser *p);

static uint16_t call(parser *p, const char *name, size_t n) {
  int op = 0, arg[3] = {0};
  while (op < NY_N_SCALARS && !(strlen(scalar_rows[op].spelling) == n && !memcmp(scalar_rows[op].spelling, name, n)))
    op++;
  if (op == NY_N_SCALARS) bad_row(p, "unknown function");
  need(p, '(');
  for (int i = 0; i < scalar_rows[op].arity; i++) {
    if (i && !eat(p, ',')) bad_row(p, "too few arguments");
    arg[i] = ternary(p);
  }
  need(p, ')');
  return node(p, op, arg[0], arg[1], arg[2], 0);
}

static uint16_t word(parser *p) {
  const char *w = p->s;
  const ny_kind_info *k = &ny_kinds[p->kind];
  while (isalnum((unsigned char)*p->s) || *p->s == '_') p->s++;
  size_t n = (size_t)(p->s - w);
  skip(p);
  if (*p->s == '(') return call(p, w, n);
  if (n == 1 && *w >= 'a' && *w < 'a' + k->min_in) return node(p, NY_S_param, *w - 'a', 0, 0, 0);
  for (int i = 0; i < k->n_attr; i++)
    if (strlen(k->attr[i].name) == n && !memcmp(k->attr[i].name, w, n)) return node(p, NY_S_attr, i, 0, 0, 0);
  bad_row(p, "neither a parameter nor an attribute before");
}

static bool at_number(const parser *p) { return isdigit((unsigned char)*p->s) || *p->s == '.'; }

static uint16_t number(parser *p, double sign) {
  char *end;
  double x = strtod(p->s, &end);
  if (end == p->s) bad_row(p, "malformed number");
  p->s = end;
  return node(p, NY_S_num, 0, 0, 0, sign * x);
}

static uint16_t unary(parser *p) {
  if (++p->depth > MAX_DEPTH) bad_row(p, "nested too deeply");
  uint16_t r;
  skip(p);
  if (eat(p, '-')) {
    skip(p);
    r = at_number(p) ? number(p, -1) : node(p, NY_S_neg, unary(p), 0, 0, 0);
  } else if (eat(p, '!')) {
    r = node(p, NY_S_lnot, unary(p), 0, 0, 0);
  } else if (eat(p, '~')) {
    r = node(p, NY_S_inv, unary(p), 0, 0, 0);
  } else if (eat(p, '(')) {
    r = ternary(p);
    need(p, ')');
  } else if (at_number(p)) {
    r = number(p, 1);
  } else if (isalpha((unsigned char)*p->s)) {
    r = word(p);
  } else {
    bad_row(p, "expected an operand");
  }
  p->depth--;
  return r;
}

static uint16_t binary_from(parser *p, int level) {
  uint16_t l = unary(p);
  for (;;) {
    skip(p);
    size_t i = 0;
    while (i < NY_COUNT(binary) && strncmp(p->s, binary[i].spelling, strlen(binary[i].spelling))) i++;
    if (i == NY_COUNT(binary) || binary[i].level < level) return l;
    p->s += strlen(binary[i].spelling);
    l = node(p, binary[i].op, l, binary_from(p, binary[i].level + 1), 0, 0);
  }
}

static uint16_t ternary(parser *p) {
  uint16_t c = binary_from(p, LOWEST);
  if (!eat(p, '?')) return c;
  uint16_t x = ternary(p);
  need(p, ':');
  return node(p, NY_S_select, c, x, ternary(p), 0);
}

static void parse_rows(void) {
  static parser p;
  size_t used = 0;
  for (int k = 0; k < NY_N_KINDS; k++) {
    if (!(ny_kinds[k].flags & NY_MAP)) continue;
    p = (parser){.kind = (ny_kind)k, .start = ny_kinds[k].text, .s = ny_kinds[k].text};
    uint16_t root = ternary(&p);
    skip(&p);
    if (*p.s) bad_row(&p, "unexpected text");
    if (root != p.n - 1)
      bad_row(&p, "the result is not the last node"); /* impossible: a result contains all nodes before it */
    if (used + (size_t)p.n > POOL) bad_row(&p, "POOL in scalar.c is too small");
    memcpy(&pool[used], p.node, (size_t)p.n * sizeof *p.node);
    table[k] = (ny_expr){&pool[used], (uint16_t)p.n};
    used += (size_t)p.n;
  }
}

const ny_expr *ny_expr_of(ny_kind k) {
  call_once(&parsed, parse_rows);
  return &table[k];
}
