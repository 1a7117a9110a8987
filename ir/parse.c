/* Text to unit: recursive descent over graphs, blocks and ops (docs/ir.md has the grammar). Values must be defined
   before they are used, so one pass suffices; each op's declared types are compared with inference as soon as it is
   complete, and the error carries its line. Nothing here trusts the text: it is fuzzed. */
#include <string.h>

#include "text.h"

/* ---- labels */
static uint32_t find(const ny_parser *p, ny_name name, bool number) {
  uint32_t i = (uint32_t)((((uintptr_t)name >> 4) + number) * 2654435761u) & (p->cap_slots - 1);
  while (p->slot[i].name && (p->slot[i].name != name || p->slot[i].number != number)) i = (i + 1) & (p->cap_slots - 1);
  return i;
}

static void grow_slots(ny_parser *p) {
  ny_label *old = p->slot;
  uint32_t n = p->cap_slots;
  p->cap_slots = n ? n * 2 : 256;
  p->slot = NY_NEW_ARRAY(&p->scratch, ny_label, p->cap_slots);
  for (uint32_t i = 0; i < n; i++)
    if (old[i].name) p->slot[find(p, old[i].name, old[i].number)] = old[i];
}

static nyb_status label(ny_parser *p, ny_label *out) {
  NY_TRY(ny_p_expect(p, '%'));
  *out = (ny_label){0};
  if (*p->s < '0' || *p->s > '9') {
    if (*p->s == ' ' || *p->s == '\n') return ny_p_fail(p, "expected a name after %%");
    return ny_p_name(p, "a name after %", &out->name);
  }
  size_t n = strspn(p->s, "0123456789");
  if (n > 10) return ny_p_fail(p, "the number of the value is too large");
  out->number = true;
  out->name = ny_internn(&p->cx->names, p->s, n);
  p->s += n;
  return NYB_OK;
}

static nyb_status define(ny_parser *p, const ny_label *l, ny_value *v) {
  if (p->n_slots * 2 >= p->cap_slots) grow_slots(p);
  uint32_t i = find(p, l->name, l->number);
  if (p->slot[i].name) return ny_p_fail(p, "%%%.100s is defined twice", l->name);
  p->slot[i] = (ny_label){l->name, l->number, v};
  p->n_slots++;
  if (!l->number) v->name = l->name;
  return NYB_OK;
}

/* Seen from block b: defined in it or in one around it, up to the group that b belongs to. */
static bool visible(const ny_value *v, const ny_block *b) {
  const ny_block *home = v->def ? v->def->parent : v->arg_of;
  for (;; b = b->parent->parent) {
    if (b == home) return true;
    if (!b->parent || b->parent->kind == NY_group) return false;
  }
}

static nyb_status operand(ny_parser *p, const ny_block *b, ny_value **out) {
  ny_label l;
  NY_TRY(label(p, &l));
  uint32_t i = p->cap_slots ? find(p, l.name, l.number) : 0;
  *out = p->cap_slots ? p->slot[i].value : NULL;
  if (!*out) return ny_p_fail(p, "%%%.100s is not defined before this use", l.name);
  return visible(*out, b) ? NYB_OK : ny_p_fail(p, "%%%.100s is not visible here", l.name);
}

/* ---- parts of an op */
static nyb_status arguments(ny_parser *p, ny_block *b) {
  if (ny_p_take(p, ')')) return NYB_OK;
  do {
    ny_label l;
    const ny_type *t;
    ny_p_space(p);
    NY_TRY(label(p, &l));
    NY_TRY(ny_p_expect(p, ':'));
    NY_TRY(ny_p_type(p, &t));
    NY_TRY(define(p, &l, ny_block_arg(p->graph, b, t, NULL)));
  } while (ny_p_take(p, ','));
  return ny_p_expect(p, ')');
}

static const ny_loc *share_loc(ny_parser *p, const ny_loc *l) {
  if (p->n_locs * 2 >= p->cap_locs) {
    const ny_loc **old = p->locs;
    uint32_t n = p->cap_locs;
    p->cap_locs = n ? n * 2 : 128;
    p->locs = NY_NEW_ARRAY(&p->scratch, const ny_loc *, p->cap_locs);
    p->n_locs = 0;
    for (uint32_t i = 0; i < n; i++)
      if (old[i]) share_loc(p, old[i]);
  }
  uint64_t h = ((uintptr_t)l->node >> 4) * 31 + ((uintptr_t)l->op_type >> 4) + l->index * 0x9e3779b1u + l->offset;
  uint32_t i = (uint32_t)(h * 0x9e3779b97f4a7c15u >> 32) & (p->cap_locs - 1);
  for (; p->locs[i]; i = (i + 1) & (p->cap_locs - 1)) {
    const ny_loc *x = p->locs[i];
    if (x->node == l->node && x->op_type == l->op_type && x->index == l->index && x->offset == l->offset) return x;
  }
  p->n_locs++;
  return p->locs[i] = l;
}

static nyb_status location(ny_parser *p, ny_op *op) {
  ny_loc l = {0};
  uint64_t index;
  if (!ny_p_keyword(p, "loc")) return NYB_OK;
  NY_TRY(ny_p_expect(p, '('));
  NY_TRY(ny_p_name(p, "a node name", &l.node));
  NY_TRY(ny_p_expect(p, ','));
  NY_TRY(ny_p_name(p, "an operator type", &l.op_type));
  NY_TRY(ny_p_expect(p, ','));
  NY_TRY(ny_p_uint(p, &index));
  NY_TRY(ny_p_expect(p, ','));
  NY_TRY(ny_p_uint(p, &l.offset));
  NY_TRY(ny_p_expect(p, ')'));
  if (index > UINT32_MAX) return ny_p_fail(p, "node index %llu is too large", (unsigned long long)index);
  l.index = (uint32_t)index;
  ny_loc *copy = NY_NEW(&p->unit->arena, ny_loc);
  *copy = l;
  op->loc = share_loc(p, copy);
  return NYB_OK;
}

static nyb_status types(ny_parser *p, ny_op *op) {
  for (int i = 0; i < op->n_out; i++) {
    NY_TRY(ny_p_expect(p, i ? ',' : ':'));
    NY_TRY(ny_p_type(p, &op->out[i]->type));
  }
  return NYB_OK;
}

/* ---- ops */
typedef struct lists { /* of the op being read; freed with it, nested ops have their own */
  ny_label *out;
  ny_value **in;
  uint32_t n_out, cap_out, n_in, cap_in;
} lists;

static nyb_status results(ny_parser *p, lists *l) {
  ny_p_space(p);
  if (*p->s != '%') return NYB_OK;
  do {
    NY_PUSH_ROOM(&p->scratch, l->out, l->n_out, l->cap_out);
    ny_p_space(p);
    NY_TRY(label(p, &l->out[l->n_out++]));
  } while (ny_p_take(p, ','));
  return ny_p_expect(p, '=');
}

static nyb_status operands(ny_parser *p, const ny_block *b, lists *l) {
  ny_p_space(p);
  if (*p->s != '%') return NYB_OK;
  do {
    NY_PUSH_ROOM(&p->scratch, l->in, l->n_in, l->cap_in);
    ny_p_space(p);
    NY_TRY(operand(p, b, &l->in[l->n_in++]));
  } while (ny_p_take(p, ','));
  return NYB_OK;
}

static nyb_status check_counts(ny_parser *p, ny_kind kind, const lists *l, const char *begin) {
  const ny_kind_info *k = &ny_kinds[kind];
  const char *end = p->s;
  p->s = begin; /* errors name the line the op starts on */
  if (l->n_in < k->min_in || (k->max_in != 255 && l->n_in > k->max_in) || l->n_in > UINT16_MAX)
    return ny_p_fail(p, "%s has %u operands", k->name, l->n_in);
  if ((k->n_out != 255 && l->n_out != k->n_out) || l->n_out > UINT16_MAX)
    return ny_p_fail(p, "%s has %u results", k->name, l->n_out);
  if (!(k->level & (p->graph->kernel ? NY_TILE : NY_GRAPH)))
    return ny_p_fail(p, "%s does not stand in a %s", k->name, p->graph->kernel ? "kernel" : "graph");
  p->s = end;
  return NYB_OK;
}

static nyb_status check_types(ny_parser *p, ny_op *op) {
  ny_infer_fn *infer = ny_kinds[op->kind].infer;
  for (int i = 0; infer && (i < op->n_out || !i); i++) {
    const ny_type *t = infer(p->graph, op, i);
    if (!t) return p->cx->diag.code;
    if (!op->n_out || t == op->out[i]->type) continue;
    ny_text a = {0}, b = {0};
    ny_type_print(p->cx, op->out[i]->type, &a);
    ny_type_print(p->cx, t, &b);
    nyb_status s = ny_fail(&p->cx->diag, NYB_E_TYPE, op->loc, "%s: result %d is declared %s but is %s",
                           ny_kinds[op->kind].name, i, a.s, b.s);
    ny_text_free(&a);
    ny_text_free(&b);
    return s;
  }
  return NYB_OK;
}

static nyb_status block(ny_parser *p, ny_block *b);

static nyb_status bodies(ny_parser *p, ny_op *op) {
  for (int i = 0; i < op->n_body; i++) {
    if (i && !ny_p_keyword(p, "else")) return ny_p_fail(p, "expected else and another body");
    if (ny_p_take(p, '(')) NY_TRY(arguments(p, op->body[i]));
    NY_TRY(block(p, op->body[i]));
  }
  return NYB_OK;
}

static nyb_status operation(ny_parser *p, ny_block *b) {
  lists l = {0};
  NY_TRY(results(p, &l));
  ny_p_space(p);
  const char *begin = p->s;
  size_t n = ny_p_word(p);
  ny_kind kind = n ? ny_kind_by_name(p->s, n) : NY_N_KINDS;
  if (kind == NY_N_KINDS) return ny_p_fail(p, "expected an operation");
  p->s += n;
  const char *line_end = p->s + strcspn(p->s, "\n");
  ny_p_space(p);
  if (p->s <= line_end) NY_TRY(operands(p, b, &l)); /* a % on the next line is the next op's result */
  NY_TRY(check_counts(p, kind, &l, begin));
  ny_op *op = ny_op_new(p->graph, b, kind, l.in, (int)l.n_in, NULL, (int)l.n_out);
  NY_TRY(ny_p_attrs(p, op));
  NY_TRY(types(p, op));
  NY_TRY(ny_p_data(p, op));
  NY_TRY(location(p, op));
  NY_TRY(bodies(p, op));
  for (uint32_t i = 0; i < l.n_out; i++) NY_TRY(define(p, &l.out[i], op->out[i]));
  const char *end = p->s;
  p->s = begin;
  NY_TRY(check_types(p, op));
  p->s = end;
  return NYB_OK;
}

static nyb_status block(ny_parser *p, ny_block *b) {
  if (++p->depth > NY_TEXT_DEPTH) return ny_p_fail(p, "bodies are nested more than %d deep", NY_TEXT_DEPTH);
  NY_TRY(ny_p_expect(p, '{'));
  while (!ny_p_take(p, '}')) NY_TRY(operation(p, b));
  p->depth--;
  return NYB_OK;
}

/* ---- the unit */
static nyb_status knobs(ny_parser *p) {
  ny_graph *g = p->graph;
  uint32_t cap = 0;
  do {
    ny_name name;
    int64_t value;
    ny_p_space(p);
    NY_TRY(ny_p_name(p, "the name of a knob", &name));
    NY_TRY(ny_p_expect(p, '='));
    NY_TRY(ny_p_int(p, &value));
    NY_PUSH_ROOM(&g->arena, g->knob, g->n_knob, cap);
    g->knob[g->n_knob].name = name;
    g->knob[g->n_knob++].value = value;
  } while (ny_p_take(p, ','));
  return ny_p_expect(p, ']');
}

static nyb_status graph(ny_parser *p, bool kernel) {
  ny_name name;
  NY_TRY(ny_p_name(p, "the name of the graph", &name));
  if (ny_unit_find(p->unit, name)) return ny_p_fail(p, "there are two graphs named %.100s", name);
  p->graph = ny_graph_new(p->unit, name, kernel);
  p->n_slots = p->cap_slots = 0;
  NY_TRY(ny_p_expect(p, '('));
  NY_TRY(arguments(p, &p->graph->body));
  if (ny_p_keyword(p, "family")) {
    NY_TRY(ny_p_expect(p, '='));
    NY_TRY(ny_p_name(p, "the name of a family", &p->graph->family));
  }
  if (ny_p_take(p, '[')) NY_TRY(knobs(p));
  if (ny_p_keyword(p, "arena")) {
    NY_TRY(ny_p_expect(p, '='));
    NY_TRY(ny_p_dim(p, &p->graph->arena_bytes));
  }
  return block(p, &p->graph->body);
}

/* The comment "; nybble stage=fuse" on the first line. */
static void read_stage(ny_parser *p) {
  static const char mark[] = "; nybble stage=";
  if (strncmp(p->s, mark, sizeof mark - 1)) return;
  p->s += sizeof mark - 1;
  size_t n = ny_p_word(p);
  if (n) p->unit->done = ny_internn(&p->cx->names, p->s, n);
  p->s += n;
}

static nyb_status unit(ny_parser *p) {
  read_stage(p);
  for (;;) {
    if (ny_p_keyword(p, "blob"))
      NY_TRY(ny_p_blob(p));
    else if (ny_p_keyword(p, "graph"))
      NY_TRY(graph(p, false));
    else if (ny_p_keyword(p, "kernel"))
      NY_TRY(graph(p, true));
    else
      break;
  }
  ny_p_space(p);
  if (*p->s) return ny_p_fail(p, "expected graph, kernel or blob");
  return p->unit->first ? NYB_OK : ny_p_fail(p, "there is no graph");
}

static int line_of(const ny_parser *p) {
  int line = 1;
  for (const char *s = p->text; s < p->s && line < INT32_MAX; s++) line += *s == '\n';
  return line;
}

static nyb_status parse(ny_ctx *cx, const char *text, size_t n, const char *path, const ny_unit *like, ny_unit **out) {
  ny_parser p = {.cx = cx, .path = path, .like = like};
  *out = NULL;
  p.text = p.s = ny_strndup(&p.scratch, text, n);
  p.unit = ny_unit_new(cx);
  nyb_status s =
      strlen(p.text) == n ? unit(&p) : ny_fail(&cx->diag, NYB_E_PARSE, NULL, "the text holds a NUL character");
  if (s && !cx->diag.line) cx->diag.line = line_of(&p);
  if (!s) s = ny_verify_unit(p.unit);
  if (s && path && !cx->diag.file) cx->diag.file = ny_intern(&cx->names, path);
  ny_arena_free(&p.scratch);
  if (s)
    ny_unit_free(p.unit);
  else
    *out = p.unit;
  return s;
}

nyb_status ny_parse_unit(ny_ctx *cx, const char *text, size_t n, const char *path, ny_unit **out) {
  return parse(cx, text, n, path, NULL, out);
}

nyb_status ny_parse_like(const ny_unit *u, const char *text, size_t n, ny_unit **out) {
  return parse(u->cx, text, n, NULL, u, out);
}

nyb_status ny_unit_copy(const ny_unit *u, ny_unit **out) {
  ny_text t = {0};
  ny_print_by_reference(u, &t);
  nyb_status s = parse(u->cx, t.s, t.n, NULL, u, out);
  if (!s) (*out)->folder = u->folder;
  ny_text_free(&t);
  return s;
}
