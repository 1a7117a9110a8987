/* Graphs as text. Values get their labels first: a name that an earlier value has taken gets a number behind it, so a
   text always reads back to the same graph; values without names are numbered as they appear. */
#include <string.h>

#include "text.h"

typedef struct printer {
  ny_ctx *cx;
  ny_text *out;
  ny_arena scratch;
  ny_name *label;   /* by value id; NULL: numbered */
  uint32_t *number; /* by value id */
  uint32_t next;
  ny_name *taken;   /* set of labels and of names to come */
  uint32_t *suffix; /* beside taken: the last number tried behind that name, or TO_COME */
  uint32_t cap;
  uint32_t *blob_number; /* by blob id, one more than the number; 0: none yet */
  const ny_blob **blobs;
  uint32_t n_blobs, cap_blobs;
} printer;

#define TO_COME UINT32_MAX /* the name of a value not printed yet */

static uint32_t find(const printer *p, ny_name n) {
  uint32_t i = (uint32_t)(((uintptr_t)n >> 4) * 2654435761u) & (p->cap - 1);
  while (p->taken[i] && p->taken[i] != n) i = (i + 1) & (p->cap - 1);
  return i;
}

/* ---- labels, in the order of the text */
static void each_value(printer *p, const ny_block *b, void (*visit)(printer *, const ny_value *)) {
  for (uint32_t i = 0; i < b->n_arg; i++) visit(p, b->arg[i]);
  for (const ny_op *op = b->first; op; op = op->next) {
    for (int i = 0; i < op->n_out; i++) visit(p, op->out[i]);
    for (int i = 0; i < op->n_body; i++) each_value(p, op->body[i], visit);
  }
}

static void reserve_name(printer *p, const ny_value *v) {
  if (!v->name) return;
  uint32_t i = find(p, v->name);
  p->taken[i] = v->name;
  p->suffix[i] = TO_COME;
}

static void choose_label(printer *p, const ny_value *v) {
  if (!v->name) {
    p->number[v->id] = p->next++;
    return;
  }
  uint32_t at = find(p, v->name);
  p->label[v->id] = v->name;
  if (p->suffix[at] == TO_COME) {
    p->suffix[at] = 0;
    return;
  }
  ny_name name;
  do {
    name = ny_intern(&p->cx->names, ny_strf(&p->scratch, "%s_%u", v->name, ++p->suffix[at]));
  } while (p->taken[find(p, name)]);
  p->taken[find(p, name)] = name;
  p->label[v->id] = name;
}

static void label_values(printer *p, const ny_graph *g) {
  p->cap = 16;
  while (p->cap < g->next_value * 4) p->cap *= 2;
  p->taken = NY_NEW_ARRAY(&p->scratch, ny_name, p->cap);
  p->suffix = NY_NEW_ARRAY(&p->scratch, uint32_t, p->cap);
  p->label = NY_NEW_ARRAY(&p->scratch, ny_name, g->next_value + 1);
  p->number = NY_NEW_ARRAY(&p->scratch, uint32_t, g->next_value + 1);
  p->next = 0;
  each_value(p, &g->body, reserve_name);
  each_value(p, &g->body, choose_label);
}

static void put_value(printer *p, const ny_value *v) {
  ny_text_add(p->out, "%");
  if (p->label[v->id])
    ny_put_name(p->out, p->label[v->id]);
  else
    ny_text_addf(p->out, "%u", p->number[v->id]);
}

/* ---- attributes */
static uint32_t blob_number(printer *p, const ny_blob *b) {
  if (!p->blob_number[b->id]) {
    NY_PUSH_ROOM(&p->scratch, p->blobs, p->n_blobs, p->cap_blobs);
    p->blobs[p->n_blobs++] = b;
    p->blob_number[b->id] = p->n_blobs;
  }
  return p->blob_number[b->id] - 1;
}

static void put_data(printer *p, const ny_op *op, const ny_blob *b) {
  const ny_type *t = op->out[0]->type;
  int64_t n;
  if (!ny_type_inline(t, &n)) {
    ny_text_addf(p->out, "blob%u", blob_number(p, b));
    return;
  }
  ny_text_add(p->out, "[");
  for (int64_t i = 0; i < n; i++) {
    if (i) ny_text_add(p->out, ",");
    ny_put_element(p->out, (ny_fmt)t->fmt, b->data, (uint64_t)i);
  }
  ny_text_add(p->out, "]");
}

static bool is_default(const ny_attr_info *i, const ny_attr *a) {
  switch (i->kind) {
  case NY_I64: return a->i == (int64_t)i->def;
  case NY_F64: return !memcmp(&a->f, &i->def, sizeof a->f);
  case NY_NAME: return !a->s || (i->def_name && !strcmp(a->s, i->def_name));
  case NY_NAMES: return !a->names.n;
  case NY_DIM: return a->d == (ny_dim)i->def; /* no default is negative */
  case NY_DIMS: return !a->dims.n;
  default: return !a->blob;
  }
}

static void put_list(printer *p, const ny_attr_info *i, const ny_attr *a) {
  uint32_t n = i->kind == NY_DIMS ? a->dims.n : a->names.n;
  ny_text_add(p->out, "[");
  for (uint32_t k = 0; k < n; k++) {
    if (k) ny_text_add(p->out, ",");
    if (i->kind == NY_DIMS)
      ny_dim_print(p->cx, a->dims.v[k], p->out);
    else
      ny_put_name(p->out, a->names.v[k] ? a->names.v[k] : "");
  }
  ny_text_add(p->out, "]");
}

static void put_attr(printer *p, const ny_op *op, const ny_attr_info *i, const ny_attr *a) {
  if (is_default(i, a)) return;
  ny_text_addf(p->out, " %s=", i->name);
  switch (i->kind) {
  case NY_I64: ny_text_addf(p->out, "%lld", (long long)a->i); break;
  case NY_F64: ny_put_rounded(p->out, op->kind == NY_const ? (ny_fmt)op->out[0]->type->fmt : NY_f64, a->f); break;
  case NY_NAME: ny_put_name(p->out, a->s); break;
  case NY_DIM: ny_dim_print(p->cx, a->d, p->out); break;
  case NY_BLOB: put_data(p, op, a->blob); break;
  default: put_list(p, i, a);
  }
}

/* ---- ops */
static void put_loc(printer *p, const ny_loc *l) {
  if (!l) return;
  ny_text_add(p->out, " loc(");
  ny_put_quoted(p->out, l->node ? l->node : "");
  ny_text_add(p->out, ",");
  ny_put_quoted(p->out, l->op_type ? l->op_type : "");
  ny_text_addf(p->out, ",%u,%llu)", l->index, (unsigned long long)l->offset);
}

static void put_args(printer *p, const ny_block *b) {
  ny_text_add(p->out, "(");
  for (uint32_t i = 0; i < b->n_arg; i++) {
    if (i) ny_text_add(p->out, ", ");
    put_value(p, b->arg[i]);
    ny_text_add(p->out, ": ");
    ny_type_print(p->cx, b->arg[i]->type, p->out);
  }
  ny_text_add(p->out, ")");
}

static void put_block(printer *p, const ny_block *b, int indent);

static void put_op(printer *p, const ny_op *op, int indent) {
  const ny_kind_info *k = &ny_kinds[op->kind];
  ny_text_addf(p->out, "%*s", indent, "");
  for (int i = 0; i < op->n_out; i++) {
    if (i) ny_text_add(p->out, ", ");
    put_value(p, op->out[i]);
  }
  ny_text_addf(p->out, "%s%s", op->n_out ? " = " : "", k->name);
  for (int i = 0; i < op->n_in; i++) {
    ny_text_add(p->out, i ? ", " : " ");
    put_value(p, ny_in(op, i));
  }
  for (int i = 0; i < k->n_attr; i++) put_attr(p, op, &k->attr[i], &op->attr[i]);
  for (int i = 0; i < op->n_out; i++) {
    ny_text_add(p->out, i ? ", " : " : ");
    if (op->out[i]->type)
      ny_type_print(p->cx, op->out[i]->type, p->out);
    else
      ny_text_add(p->out, "untyped"); /* a graph under construction, printed in a debugger */
  }
  put_loc(p, op->loc);
  for (int i = 0; i < op->n_body; i++) {
    ny_text_add(p->out, i ? " else " : " ");
    if (op->body[i]->n_arg) {
      put_args(p, op->body[i]);
      ny_text_add(p->out, " ");
    }
    put_block(p, op->body[i], indent);
  }
  ny_text_add(p->out, "\n");
}

static void put_block(printer *p, const ny_block *b, int indent) {
  ny_text_add(p->out, "{\n");
  for (const ny_op *op = b->first; op; op = op->next) put_op(p, op, indent + 2);
  ny_text_addf(p->out, "%*s}", indent, "");
}

static void put_graph(printer *p, const ny_graph *g) {
  label_values(p, g);
  ny_text_add(p->out, g->kernel ? "kernel " : "graph ");
  ny_put_name(p->out, g->name ? g->name : "");
  put_args(p, &g->body);
  if (g->family) {
    ny_text_add(p->out, " family=");
    ny_put_name(p->out, g->family);
  }
  for (uint32_t i = 0; i < g->n_knob; i++) {
    ny_text_add(p->out, i ? "," : " [");
    ny_put_name(p->out, g->knob[i].name);
    ny_text_addf(p->out, "=%lld%s", (long long)g->knob[i].value, i + 1 == g->n_knob ? "]" : "");
  }
  if (g->arena_bytes) {
    ny_text_add(p->out, " arena=");
    ny_dim_print(p->cx, g->arena_bytes, p->out);
  }
  ny_text_add(p->out, " ");
  put_block(p, &g->body, 0);
  ny_text_add(p->out, "\n");
}

static printer start(ny_ctx *cx, const ny_unit *u, ny_text *out) {
  printer p = {.cx = cx, .out = out};
  p.blob_number = NY_NEW_ARRAY(&p.scratch, uint32_t, u->n_blobs + 1);
  ny_text_add(out, "");
  return p;
}

void ny_print_graph(const ny_graph *g, ny_text *out) {
  printer p = start(g->cx, g->unit, out);
  put_graph(&p, g);
  ny_arena_free(&p.scratch);
}

static void put_blob(const ny_unit *u, const ny_blob *b, uint32_t number, bool by_reference, ny_text *out) {
  ny_text_addf(out, "blob %u = ", number);
  if (by_reference) {
    ny_text_addf(out, "same %u\n", b->id);
    return;
  }
  if (b->file) {
    ny_text path = {0};
    ny_put_blob_path(&path, u, b);
    ny_put_quoted(out, path.s);
    ny_text_free(&path);
    ny_text_addf(out, "+0x%llx bytes=%llu\n", (unsigned long long)b->offset, (unsigned long long)b->bytes);
    return;
  }
  ny_text_add(out, "base64 \"");
  ny_put_base64(out, b->data, b->bytes);
  ny_text_add(out, "\"\n");
}

static void print_unit(const ny_unit *u, bool by_reference, ny_text *out) {
  ny_text body = {0};
  printer p = start(u->cx, u, &body);
  for (const ny_graph *g = u->first; g; g = g->next) {
    if (g != u->first) ny_text_add(&body, "\n");
    put_graph(&p, g);
  }
  if (u->done) ny_text_addf(out, "; nybble stage=%s\n", u->done);
  for (uint32_t i = 0; i < p.n_blobs; i++) put_blob(u, p.blobs[i], i, by_reference, out);
  if (p.n_blobs) ny_text_add(out, "\n");
  ny_text_addn(out, body.s, body.n);
  ny_text_free(&body);
  ny_arena_free(&p.scratch);
}

void ny_print_unit(const ny_unit *u, ny_text *out) { print_unit(u, false, out); }
void ny_print_by_reference(const ny_unit *u, ny_text *out) { print_unit(u, true, out); }
