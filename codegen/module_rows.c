/* A placed graph as rows: dimensions become expressions, values buffers, ops commands. A value is a row of its own only
   where bytes begin; reshapes and bitcasts are other names of their input's. */
#include <string.h>

#include "module_build.h"

/* ---- expressions: one row an interned dimension */
static uint32_t push_expr(ny_module_builder *b, ny_mod_op op, uint32_t x, uint32_t y, int64_t value) {
  NY_PUSH_ROOM(&b->a, b->m.expr, b->m.n_exprs, b->cap_exprs);
  b->m.expr[b->m.n_exprs] = (ny_mod_expr){(uint8_t)op, (int32_t)x, (int32_t)y, value};
  return b->m.n_exprs++;
}

static struct ny_dim_slot *dim_slot(struct ny_dim_slot *t, uint32_t cap, ny_dim d) {
  uint64_t h = (uint64_t)d * 0x9e3779b97f4a7c15u;
  uint32_t i = (uint32_t)(h >> 32) & (cap - 1);
  while (t[i].row && t[i].d != d) i = (i + 1) & (cap - 1);
  return &t[i];
}

static void remember(ny_module_builder *b, ny_dim d, uint32_t row) {
  if (b->n_dims * 2 >= b->cap_dims) {
    uint32_t cap = b->cap_dims ? b->cap_dims * 2 : 256;
    struct ny_dim_slot *t = NY_NEW_ARRAY(&b->a, struct ny_dim_slot, cap);
    for (uint32_t i = 0; i < b->cap_dims; i++)
      if (b->dim[i].row) *dim_slot(t, cap, b->dim[i].d) = b->dim[i];
    b->dim = t;
    b->cap_dims = cap;
  }
  *dim_slot(b->dim, b->cap_dims, d) = (struct ny_dim_slot){d, row + 1};
  b->n_dims++;
}

static uint32_t symbol(ny_module_builder *b, ny_name name) {
  for (uint32_t i = 0; i < b->m.n_symbols; i++)
    if (!strcmp(b->m.symbol[i], name)) return i;
  const char **list = (const char **)(uintptr_t)b->m.symbol;
  NY_PUSH_ROOM(&b->a, list, b->m.n_symbols, b->cap_symbols);
  list[b->m.n_symbols] = name;
  b->m.symbol = list;
  return b->m.n_symbols++;
}

uint32_t ny_row_number(ny_module_builder *b, int64_t v) { return ny_row_expr(b, ny_dim_const(b->cx, v)); }

uint32_t ny_row_expr(ny_module_builder *b, ny_dim d) {
  static const uint8_t op_of[] = {
      [NY_DIM_ADD] = NY_MX_ADD, [NY_DIM_MUL] = NY_MX_MUL, [NY_DIM_DIV] = NY_MX_DIV, [NY_DIM_MOD] = NY_MX_MOD,
      [NY_DIM_MIN] = NY_MX_MIN, [NY_DIM_MAX] = NY_MX_MAX, [NY_DIM_LT] = NY_MX_LT};
  if (d == NY_DIM_INVALID) {
    ny_fail(b->d, NYB_E_LIMIT, NULL, "a size of the graph cannot be expressed: it overflows");
    return UINT32_MAX;
  }
  struct ny_dim_slot *known = b->cap_dims ? dim_slot(b->dim, b->cap_dims, d) : NULL;
  if (known && known->row) return known->row - 1;
  int64_t value;
  uint32_t row;
  if (ny_dim_is_const(b->cx, d, &value)) {
    row = push_expr(b, NY_MX_CONST, UINT32_MAX, UINT32_MAX, value);
  } else {
    const ny_dim_node n = *ny_dim_get(b->cx, d);
    if (n.kind == NY_DIM_SYM) {
      row = push_expr(b, NY_MX_SYMBOL, UINT32_MAX, UINT32_MAX, symbol(b, n.name));
    } else {
      uint32_t x = ny_row_expr(b, n.a), y = ny_row_expr(b, n.b);
      if (x == UINT32_MAX || y == UINT32_MAX) return UINT32_MAX;
      row = push_expr(b, (ny_mod_op)op_of[n.kind], x, y, 0);
    }
  }
  remember(b, d, row);
  return row;
}

/* ---- buffers */
uint32_t ny_row_buffer(ny_module_builder *b, ny_mod_place place, uint32_t index, ny_dim offset, const ny_type *t) {
  uint32_t bytes = ny_row_expr(b, ny_type_bytes(b->cx, t)), at = ny_row_expr(b, offset);
  NY_PUSH_ROOM(&b->a, b->m.buffer, b->m.n_buffers, b->cap_buffers);
  b->m.buffer[b->m.n_buffers] = (ny_mod_buffer){(uint8_t)place, index, at, bytes};
  return b->m.n_buffers++;
}

static void own(ny_module_builder *b, const ny_value *v, uint32_t buffer) { b->buffer_of[v->id] = buffer + 1; }

static nyb_status buffer_of(ny_module_builder *b, const ny_op *user, const ny_value *v, uint32_t *out) {
  if (!b->buffer_of[v->id])
    return ny_fail(b->d, NYB_E_INTERNAL, user->loc, "%s reads a value of %s that has no memory",
                   ny_kinds[user->kind].name, v->def ? ny_kinds[v->def->kind].name : "an argument");
  *out = b->buffer_of[v->id] - 1;
  return NYB_OK;
}

static nyb_status offset_at(ny_module_builder *b, const ny_op *op, int slot, int i, ny_dim *out) {
  const ny_attr *a = &op->attr[slot];
  if ((uint32_t)i >= a->dims.n)
    return ny_fail(b->d, NYB_E_VERIFY, op->loc, "%s has no place for result %d: it was not through `place`",
                   ny_kinds[op->kind].name, i);
  *out = a->dims.v[i];
  return NYB_OK;
}

static nyb_status result_buffer(ny_module_builder *b, const ny_op *op, int slot, int i, const ny_value *v) {
  ny_dim off = 0;
  NY_TRY(offset_at(b, op, slot, i, &off));
  if (off != ny_dim_const(b->cx, -1)) return own(b, v, ny_row_buffer(b, NY_MP_ARENA, 0, off, v->type)), NYB_OK;
  if (op->parent->parent || b->output_of[v->id] < 0)
    return ny_fail(b->d, NYB_E_INTERNAL, op->loc, "a result is placed in an output that it is not");
  own(b, v, ny_row_buffer(b, NY_MP_OUTPUT, (uint32_t)b->output_of[v->id], 0, v->type));
  return NYB_OK;
}

/* ---- commands */
static uint32_t command(ny_module_builder *b, ny_mod_command_kind kind, uint32_t n_buffers, uint32_t n_dims) {
  NY_PUSH_ROOM(&b->a, b->m.command, b->m.n_commands, b->cap_commands);
  b->m.command[b->m.n_commands] = (ny_mod_command){.kind = (uint8_t)kind,
                                                   .n_buffers = n_buffers,
                                                   .n_dims = n_dims,
                                                   .buffer = NY_NEW_ARRAY(&b->a, uint32_t, n_buffers),
                                                   .dim = NY_NEW_ARRAY(&b->a, uint32_t, n_dims)};
  return b->m.n_commands++;
}
static uint32_t *buffers(ny_module_builder *b, uint32_t i) { return (uint32_t *)(uintptr_t)b->m.command[i].buffer; }

static void copy(ny_module_builder *b, uint32_t from, uint32_t to, const ny_type *t, bool stacked) {
  const ny_mod_buffer *x = &b->m.buffer[from], *y = &b->m.buffer[to];
  if (!stacked && x->place == y->place && x->index == y->index && x->offset == y->offset) return;
  uint32_t i = command(b, NY_MC_COPY, 2, 0);
  buffers(b, i)[0] = from;
  buffers(b, i)[1] = to;
  b->m.command[i].bytes = ny_row_expr(b, ny_type_bytes(b->cx, t));
  b->m.command[i].stacked = stacked;
}

static nyb_status find_kernel(ny_module_builder *b, const ny_op *op, ny_name name, uint32_t *out) {
  for (uint32_t i = 0; i < b->m.n_kernels; i++)
    if (b->kernel[i]->name == name) return *out = i, NYB_OK;
  return ny_fail(b->d, NYB_E_VERIFY, op->loc, "there is no kernel %s", name ? name : "(none)");
}

static int64_t knob(const ny_graph *k, const char *name, int64_t def) {
  for (uint32_t i = 0; i < k->n_knob; i++)
    if (!strcmp(k->knob[i].name, name)) return k->knob[i].value;
  return def;
}

static void launch_row(ny_module_builder *b, uint32_t k, const uint32_t *buffer) {
  const ny_graph *kernel = b->kernel[k];
  ny_name *sym;
  size_t n_sym;
  ny_kernel_symbols(kernel, &b->a, &sym, &n_sym);
  uint32_t c = command(b, NY_MC_LAUNCH, kernel->body.n_arg, (uint32_t)n_sym);
  for (uint32_t i = 0; i < kernel->body.n_arg; i++) buffers(b, c)[i] = buffer[i];
  for (size_t i = 0; i < n_sym; i++)
    ((uint32_t *)(uintptr_t)b->m.command[c].dim)[i] = ny_row_expr(b, ny_dim_sym(b->cx, sym[i]));
  b->m.command[c].kernel = k;
  b->m.command[c].extent = ny_row_expr(b, ny_kernel_extent(kernel));
  b->m.command[c].grain = ny_row_number(b, knob(kernel, "grain", 1));
}

/* The kernels that a kernel of calls calls, each by a launch of its own. */
static nyb_status one_by_one(ny_module_builder *b, const ny_op *op, const ny_graph *calls, const uint32_t *buffer) {
  for (const ny_op *c = calls->body.first; c; c = c->next) {
    uint32_t k = 0, *part = NY_NEW_ARRAY(&b->a, uint32_t, c->n_in + 1);
    if (c->kind != NY_call) continue;
    NY_TRY(find_kernel(b, op, c->attr[NY_AT(call, kernel)].s, &k));
    for (int i = 0; i < c->n_in; i++) part[i] = buffer[ny_in(c, i)->index];
    launch_row(b, k, part);
  }
  return NYB_OK;
}

static nyb_status add_launch(ny_module_builder *b, ny_op *op) {
  uint32_t k = 0, *buffer = NY_NEW_ARRAY(&b->a, uint32_t, op->n_in + op->n_out + 1);
  NY_TRY(find_kernel(b, op, op->attr[NY_AT(launch, kernel)].s, &k));
  const ny_graph *kernel = b->kernel[k];
  if ((uint32_t)(op->n_in + op->n_out) != kernel->body.n_arg)
    return ny_fail(b->d, NYB_E_VERIFY, op->loc, "kernel %s takes %u buffers, its launch has %d", kernel->name,
                   kernel->body.n_arg, op->n_in + op->n_out);
  for (int i = 0; i < op->n_out; i++) NY_TRY(result_buffer(b, op, NY_AT(launch, off), i, op->out[i]));
  for (int i = 0; i < op->n_in; i++) NY_TRY(buffer_of(b, op, ny_in(op, i), &buffer[i]));
  for (int i = 0; i < op->n_out; i++) NY_TRY(buffer_of(b, op, op->out[i], &buffer[op->n_in + i]));
  ny_dim fits = op->attr[NY_AT(launch, fits)].d;
  if (fits == 1) return launch_row(b, k, buffer), NYB_OK;
  uint32_t c = command(b, NY_MC_CHOOSE, 0, 0);
  b->m.command[c].extent = ny_row_expr(b, fits);
  launch_row(b, k, buffer);
  b->m.command[c].n_then = b->m.n_commands - c - 1;
  NY_TRY(one_by_one(b, op, kernel, buffer));
  b->m.command[c].n_else = b->m.n_commands - c - 1 - b->m.command[c].n_then;
  return NYB_OK;
}

static nyb_status add_block(ny_module_builder *b, ny_block *block, const uint32_t *to, int n_carried);

static nyb_status add_if(ny_module_builder *b, ny_op *op) {
  uint32_t *to = NY_NEW_ARRAY(&b->a, uint32_t, op->n_out), c = command(b, NY_MC_IF, 1, 0);
  NY_TRY(buffer_of(b, op, ny_in(op, 0), &buffers(b, c)[0]));
  for (int i = 0; i < op->n_out; i++) {
    NY_TRY(result_buffer(b, op, NY_AT(if, off), i, op->out[i]));
    NY_TRY(buffer_of(b, op, op->out[i], &to[i]));
  }
  NY_TRY(add_block(b, op->body[0], to, op->n_out));
  b->m.command[c].n_then = b->m.n_commands - c - 1;
  NY_TRY(add_block(b, op->body[1], to, op->n_out));
  b->m.command[c].n_else = b->m.n_commands - c - 1 - b->m.command[c].n_then;
  return NYB_OK;
}

static nyb_status add_loop(ny_module_builder *b, ny_op *op) {
  uint32_t *to = NY_NEW_ARRAY(&b->a, uint32_t, op->n_out), counter = 0, from = 0;
  ny_block *body = op->body[0];
  NY_TRY(result_buffer(b, op, NY_AT(loop, off), 0, body->arg[0]));
  NY_TRY(buffer_of(b, op, body->arg[0], &counter));
  for (int i = 0; i < op->n_out; i++) {
    NY_TRY(result_buffer(b, op, NY_AT(loop, off), i + 1, op->out[i]));
    NY_TRY(buffer_of(b, op, op->out[i], &to[i]));
    if (i >= op->n_in) continue;
    NY_TRY(buffer_of(b, op, ny_in(op, i), &from));
    copy(b, from, to[i], ny_in(op, i)->type, false);
    own(b, body->arg[i + 1], to[i]);
  }
  bool cond = op->attr[NY_AT(loop, cond)].i != 0;
  uint32_t c = command(b, NY_MC_LOOP, cond ? 2 : 1, 0);
  buffers(b, c)[0] = counter;
  if (cond) buffers(b, c)[1] = to[0];
  uint32_t extent = ny_row_expr(b, op->attr[NY_AT(loop, trip)].d);
  NY_TRY(add_block(b, body, to, op->n_in));
  b->m.command[c].extent = extent;
  b->m.command[c].n_then = b->m.n_commands - c - 1;
  return NYB_OK;
}

/* Results of a body: the first n_plain are copied to their place, the rest stacked. */
static nyb_status add_yield(ny_module_builder *b, const ny_op *op, const uint32_t *to, int n_plain) {
  for (int i = 0; i < op->n_in; i++) {
    uint32_t from = 0;
    NY_TRY(buffer_of(b, op, ny_in(op, i), &from));
    copy(b, from, to[i], ny_in(op, i)->type, i >= n_plain);
  }
  return NYB_OK;
}

static nyb_status add_ret(ny_module_builder *b, ny_op *op) {
  for (int i = 0; i < op->n_in; i++) {
    uint32_t from = 0;
    NY_TRY(buffer_of(b, op, ny_in(op, i), &from));
    copy(b, from, b->m.output[i].buffer, ny_in(op, i)->type, false);
  }
  return NYB_OK;
}

static nyb_status add_alias(ny_module_builder *b, ny_op *op) {
  uint32_t x = 0;
  NY_TRY(buffer_of(b, op, ny_in(op, 0), &x));
  own(b, op->out[0], x);
  return NYB_OK;
}

/* node "x" (Add): sizes that broadcast: ?S and min(?S,512) must be equal */
static const char *require_text(ny_module_builder *b, const ny_op *op) {
  const ny_attr *at = op->attr;
  ny_text t = {0}, x = {0}, y = {0};
  ny_dim_print(b->cx, at[NY_AT(require, a)].d, &x);
  ny_dim_print(b->cx, at[NY_AT(require, b)].d, &y);
  if (op->loc && op->loc->op_type)
    ny_text_addf(&t, "node \"%.200s\" (%.60s): ", op->loc->node ? op->loc->node : "", op->loc->op_type);
  ny_name what = at[NY_AT(require, text)].s;
  ny_text_addf(&t, "%.100s: %.180s and %.180s must be equal", what ? what : "sizes", x.s, y.s);
  const char *s = ny_strdup(&b->a, t.s);
  ny_text_free(&t);
  ny_text_free(&x);
  ny_text_free(&y);
  return s;
}

static nyb_status add_require(ny_module_builder *b, ny_op *op) {
  bool always = !op->parent->parent;
  NY_PUSH_ROOM(&b->a, b->m.require, b->m.n_requires, b->cap_requires);
  ny_mod_require r = {.text = require_text(b, op), .always = always};
  r.a = ny_row_expr(b, op->attr[NY_AT(require, a)].d);
  r.b = ny_row_expr(b, op->attr[NY_AT(require, b)].d);
  b->m.require[b->m.n_requires] = r;
  if (!always) b->m.command[command(b, NY_MC_CHECK, 0, 0)].require = b->m.n_requires;
  b->m.n_requires++;
  return b->d->code;
}

static nyb_status add_precision(ny_module_builder *b, ny_op *op) {
  const ny_loc *loc = op->loc;
  const ny_attr *at = op->attr;
  ny_name asked = at[NY_AT(precision, asked)].s, done = at[NY_AT(precision, done)].s, why = at[NY_AT(precision, why)].s;
  NY_PUSH_ROOM(&b->a, b->m.precision, b->m.n_precision, b->cap_precision);
  b->m.precision[b->m.n_precision++] = (ny_mod_precision){.node = loc && loc->node ? loc->node : "",
                                                          .op = loc && loc->op_type ? loc->op_type : "",
                                                          .asked = asked ? asked : "",
                                                          .done = done ? done : "",
                                                          .why = why ? why : ""};
  return NYB_OK;
}

static nyb_status add_constant(ny_module_builder *b,
                               ny_op *op) { /* in the file already: ny_rows_build gave it a buffer */
  if (op->kind == NY_const || ny_is_const_group(op)) return NYB_OK;
  return ny_fail(b->d, NYB_E_UNSUPPORTED, op->loc, "a group of family %s was not lowered to a kernel",
                 op->attr[NY_AT(group, family)].s ? op->attr[NY_AT(group, family)].s : "(none)");
}

typedef nyb_status add_fn(ny_module_builder *b, ny_op *op);
static add_fn *const adders[NY_N_KINDS] = {
    [NY_launch] = add_launch, [NY_if] = add_if,           [NY_loop] = add_loop,
    [NY_ret] = add_ret,       [NY_require] = add_require, [NY_reshape] = add_alias,
    [NY_bitcast] = add_alias, [NY_const] = add_constant,  [NY_group] = add_constant,
    [NY_precision] = add_precision};

static nyb_status add_block(ny_module_builder *b, ny_block *block, const uint32_t *to, int n_plain) {
  for (ny_op *op = block->first; op; op = op->next) {
    if (op->kind == NY_yield)
      NY_TRY(add_yield(b, op, to, n_plain));
    else if (adders[op->kind])
      NY_TRY(adders[op->kind](b, op));
    else
      return ny_fail(b->d, NYB_E_UNSUPPORTED, op->loc, "%s was not lowered to a kernel", ny_kinds[op->kind].name);
  }
  return NYB_OK;
}

/* ---- the graph's own values */
static ny_mod_value value_row(ny_module_builder *b, const char *name, const ny_type *t, uint32_t buffer) {
  ny_mod_value v = {.name = name, .fmt = (ny_fmt)t->fmt, .rank = t->rank, .buffer = buffer};
  for (int i = 0; i < t->rank; i++) {
    v.dim[i] = ny_row_expr(b, t->dim[i]);
    if (ny_dim_is_const(b->cx, t->dim[i], NULL)) continue;
    ny_text text = {0};
    ny_dim_print(b->cx, t->dim[i], &text);
    bool plain = ny_dim_get(b->cx, t->dim[i])->kind == NY_DIM_SYM;
    v.text[i] = ny_strdup(&b->a, text.s + (plain && text.s[0] == '?'));
    ny_text_free(&text);
  }
  return v;
}

static const char *name_or(ny_module_builder *b, ny_name name, const char *what, uint32_t i) {
  return name && *name ? name : ny_strf(&b->a, "%s%u", what, i);
}

/* First of all, so that every program of a file begins with the same expressions and buffers. */
static void add_values(ny_module_builder *b, const ny_op *ret) {
  const ny_block *body = &b->g->body;
  const ny_attr *names = &ret->attr[NY_AT(ret, names)];
  b->m.n_inputs = body->n_arg;
  b->m.n_outputs = ret->n_in;
  b->m.input = NY_NEW_ARRAY(&b->a, ny_mod_value, body->n_arg);
  b->m.output = NY_NEW_ARRAY(&b->a, ny_mod_value, ret->n_in);
  for (uint32_t i = 0; i < body->n_arg; i++) {
    const ny_value *v = body->arg[i];
    b->m.input[i] = value_row(b, name_or(b, v->name, "input", i), v->type, i);
  }
  for (uint32_t i = 0; i < ret->n_in; i++) {
    const ny_value *v = ny_in(ret, (int)i);
    const char *name = name_or(b, i < names->names.n ? names->names.v[i] : v->name, "output", i);
    b->m.output[i] = value_row(b, name, v->type, body->n_arg + i);
  }
  for (uint32_t i = 0; i < body->n_arg; i++)
    own(b, body->arg[i], ny_row_buffer(b, NY_MP_INPUT, i, 0, body->arg[i]->type));
  for (uint32_t i = 0; i < ret->n_in; i++) {
    const ny_value *root = ny_in(ret, (int)i);
    ny_row_buffer(b, NY_MP_OUTPUT, i, 0, root->type);
    while (root->def && (root->def->kind == NY_reshape || root->def->kind == NY_bitcast)) root = ny_in(root->def, 0);
    b->output_of[root->id] = (int)i;
  }
}

/* A size that no input fixes would be a guess at run time. */
static nyb_status check_symbols(ny_module_builder *b) {
  for (uint32_t s = 0; s < b->m.n_symbols; s++) {
    bool bound = false;
    for (uint32_t i = 0; i < b->m.n_inputs && !bound; i++)
      for (uint32_t k = 0; k < b->m.input[i].rank; k++) {
        const ny_mod_expr *e = &b->m.expr[b->m.input[i].dim[k]];
        bound |= e->op == NY_MX_SYMBOL && e->value == s;
      }
    if (!bound)
      return ny_fail(b->d, NYB_E_UNSUPPORTED, NULL,
                     "the size ?%s is not a dimension of any input: it depends on data; give it with --dim %s=N",
                     b->m.symbol[s], b->m.symbol[s]);
  }
  return NYB_OK;
}

nyb_status ny_rows_build(ny_module_builder *b) {
  const ny_op *ret = b->g->body.last;
  if (!ret || ret->kind != NY_ret)
    return ny_fail(b->d, NYB_E_VERIFY, NULL, "graph %s does not end in ret", b->g->name ? b->g->name : "");
  b->buffer_of = NY_NEW_ARRAY(&b->a, uint32_t, b->g->next_value + 1);
  b->output_of = NY_NEW_ARRAY(&b->a, int, b->g->next_value + 1);
  memset(b->output_of, -1, sizeof(int) * (b->g->next_value + 1));
  add_values(b, ret);
  for (size_t i = 0; i < b->n_weights; i++) {
    const ny_weight *w = &b->weight[i];
    const ny_value *v = w->op->out[0];
    uint32_t segment = w->at.segment == UINT32_MAX ? b->store->small : w->at.segment;
    own(b, v, ny_row_buffer(b, NY_MP_WEIGHT, segment, ny_dim_const(b->cx, (int64_t)w->at.offset), v->type));
  }
  NY_TRY(add_block(b, &b->g->body, NULL, 0));
  b->m.arena = ny_row_expr(b, b->g->arena_bytes);
  NY_TRY(check_symbols(b));
  return b->d->code;
}
