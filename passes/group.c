/* Groups: what becomes one kernel. A group sees only its body arguments, so what it reads is made an argument, or
 * copied in when it is free to compute. */
#include <string.h>

#include "rewrite.h"

bool ny_travels(const ny_value *v) {
  const ny_op *op = v->def;
  if (!op) return false;
  return op->kind == NY_dims || op->kind == NY_iota || (op->kind == NY_const && ny_is_uniform(v));
}

/* A contraction reads its weights as bytes even where they are one number: as it would any others. */
static bool travels_into(const ny_value *v, const ny_op *user) {
  bool weights = (user->kind == NY_matmul || user->kind == NY_conv) && v->type->rank >= 2;
  return ny_travels(v) && !(weights && v->def->kind == NY_const);
}

const char *ny_family_of_op(const ny_op *op) {
  const char *f = ny_family_led_by((ny_kind)op->kind, 0);
  return f ? f : "map";
}

typedef struct maker {
  ny_graph *g;
  ny_arena a;
  ny_block *body;
  ny_value **outer, **inner; /* values from outside and what stands for them in the body */
  size_t n, cap, cap_inner;
  ny_value **arg; /* those that are arguments */
  size_t n_arg, cap_arg;
} maker;

static ny_value *lookup(const maker *m, const ny_value *v) {
  for (size_t i = 0; i < m->n; i++)
    if (m->outer[i] == v) return m->inner[i];
  return NULL;
}

static void map_to(maker *m, ny_value *outer, ny_value *inner) {
  size_t n = m->n;
  NY_PUSH_ROOM(&m->a, m->outer, m->n, m->cap);
  NY_PUSH_ROOM(&m->a, m->inner, n, m->cap_inner);
  m->outer[m->n] = outer;
  m->inner[m->n++] = inner;
}

static bool in_body(const maker *m, const ny_value *v) {
  return v->def ? v->def->parent == m->body : v->arg_of == m->body;
}

static ny_value *bring_in(maker *m, ny_value *v, const ny_op *user) {
  if (in_body(m, v)) return v;
  ny_value *w = lookup(m, v);
  if (w) return w;
  if (travels_into(v, user)) {
    w = ny_clone(m->g, m->body, m->body->first, v->def, NULL)->out[0];
  } else {
    w = ny_block_arg(m->g, m->body, v->type, NULL);
    NY_PUSH_ROOM(&m->a, m->arg, m->n_arg, m->cap_arg);
    m->arg[m->n_arg++] = v;
  }
  map_to(m, v, w);
  return w;
}

static void localise(maker *m, ny_op *op) {
  for (int i = 0; i < op->n_in; i++) {
    ny_value *v = bring_in(m, ny_in(op, i), op);
    if (v != ny_in(op, i)) ny_set_in(op, i, v);
  }
}

static void clone_in(maker *m, const ny_op *op) {
  ny_op *c =
      ny_clone(m->g, m->body, NULL, op,
               (ny_value *[]){ny_in(op, 0), op->n_in > 1 ? ny_in(op, 1) : NULL, op->n_in > 2 ? ny_in(op, 2) : NULL});
  localise(m, c);
  map_to(m, op->out[0], c->out[0]);
}

static bool used_outside(const ny_value *v, const ny_block *body) {
  for (const ny_use *u = v->uses; u; u = u->next)
    if (u->user->parent != body) return true;
  return false;
}

/* Moves the uses of v outside the body to w. */
static void redirect(ny_value *v, const ny_block *body, ny_value *w) {
  for (ny_use *u = v->uses, *next; u; u = next) {
    next = u->next;
    if (u->user->parent != body) ny_set_in(u->user, (int)(u - u->user->in), w);
  }
}

ny_op *ny_group_new(ny_graph *g, ny_op *const *ops, int n, ny_op *const *clone, int n_clone, const char *family,
                    const ny_loc *loc) {
  ny_op *last = ops[n - 1], *after = last->next;
  ny_block *block = last->parent;
  maker m = {.g = g};
  /* The body is filled first, because the group's inputs are known only then; it moves into the op at the end. */
  ny_op *holder = ny_op_new(g, block, NY_group, NULL, 0, NULL, 0);
  m.body = holder->body[0];
  for (int i = 0; i < n_clone; i++) clone_in(&m, clone[i]);
  for (int i = 0; i < n; i++) {
    ny_move(ops[i], m.body, NULL);
    localise(&m, ops[i]);
  }
  ny_value **out = NULL;
  size_t n_out = 0, cap = 0;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < ops[i]->n_out; j++)
      if (used_outside(ops[i]->out[j], m.body)) {
        NY_PUSH_ROOM(&m.a, out, n_out, cap);
        out[n_out++] = ops[i]->out[j];
      }
  const ny_type **types = NY_NEW_ARRAY(&m.a, const ny_type *, n_out + 1);
  for (size_t i = 0; i < n_out; i++) types[i] = out[i]->type;
  ny_op *group = ny_op_new(g, block, NY_group, m.arg, (int)m.n_arg, types, (int)n_out);
  if (after) ny_move(group, block, after);
  group->loc = loc;
  group->attr[NY_AT(group, family)].s = ny_intern(&g->cx->names, family);
  for (size_t i = 0; i < n_out; i++) {
    group->out[i]->name = out[i]->name;
    out[i]->name = NULL;
    redirect(out[i], m.body, group->out[i]);
  }
  ny_op_new(g, m.body, NY_yield, out, (int)n_out, NULL, 0);
  group->body[0] = m.body;
  m.body->parent = group;
  holder->n_body = 0;
  ny_erase(holder);
  ny_arena_free(&m.a);
  return group;
}

void ny_group_open(ny_graph *g, ny_op *group) {
  (void)g;
  ny_block *body = group->body[0];
  for (uint32_t i = 0; i < body->n_arg; i++) ny_replace(body->arg[i], ny_in(group, (int)i));
  while (body->first && body->first->kind != NY_yield) ny_move(body->first, group->parent, group);
  for (int i = 0; i < group->n_out; i++) ny_replace(group->out[i], ny_in(body->last, i));
  ny_erase(group);
}

/* ---- constants */
bool ny_is_const_group(const ny_op *op) {
  return op->kind == NY_group && op->attr[NY_AT(group, family)].s && !strcmp(op->attr[NY_AT(group, family)].s, "const");
}

/* Does this use need v as bytes in memory, rather than as part of a constant expression or copied into a group? */
static bool needs_bytes(const ny_use *u, bool cones) {
  const ny_op *op = u->user;
  bool plain = op->n_out && !op->n_body;
  if (travels_into(u->val, op) && plain && op->kind != NY_reshape && op->kind != NY_bitcast) return false;
  return !cones || !plain || !ny_is_constant(op->out[0]);
}

typedef struct cones {
  ny_pass_cx *px;
  ny_graph *g;
  ny_op **root;
  size_t n, cap;
  bool fold;
} cones;

static nyb_status collect(void *user, ny_op *op) {
  cones *s = user;
  if (op->n_out != 1 || op->n_body || (op->parent->parent && op->parent->parent->kind == NY_group)) return NYB_OK;
  bool is_const = op->kind == NY_const;
  if (!(s->fold ? ny_is_constant(op->out[0]) : is_const)) return NYB_OK;
  bool wanted = false;
  for (const ny_use *u = op->out[0]->uses; u && !wanted; u = u->next) wanted = needs_bytes(u, s->fold);
  if (!wanted) return NYB_OK;
  NY_PUSH_ROOM(&s->px->scratch, s->root, s->n, s->cap);
  s->root[s->n++] = op;
  return NYB_OK;
}

/* Copies the expression of op into b. `seen` pairs originals with copies. */
static ny_value *copy_cone(cones *s, ny_block *b, ny_value *v, ny_value ***seen, size_t *n, size_t *cap) {
  for (size_t i = 0; i + 1 < *n; i += 2)
    if ((*seen)[i] == v) return (*seen)[i + 1];
  ny_value **in = NY_NEW_ARRAY(&s->px->scratch, ny_value *, v->def->n_in + 1);
  for (int i = 0; i < v->def->n_in; i++) in[i] = copy_cone(s, b, ny_in(v->def, i), seen, n, cap);
  ny_value *c = ny_clone(s->g, b, NULL, v->def, in)->out[0];
  ny_value *pair[2] = {v, c};
  for (int i = 0; i < 2; i++) {
    NY_PUSH_ROOM(&s->px->scratch, *seen, *n, *cap);
    (*seen)[(*n)++] = pair[i];
  }
  return c;
}

/* Uses that want the number itself keep it; the others read the group's result. */
static void hand_over(ny_op *op, ny_op *group, bool fold) {
  for (ny_use *u = op->out[0]->uses, *next; u; u = next) {
    next = u->next;
    if (u->user != group && needs_bytes(u, fold)) ny_set_in(u->user, (int)(u - u->user->in), group->out[0]);
  }
}

static ny_op *wrap(cones *s, ny_op *op) {
  const ny_type *t = op->out[0]->type;
  ny_block *main = &s->g->body;
  ny_op *group = ny_op_new(s->g, main, NY_group, NULL, 0, &t, 1);
  ny_move(group, main, main->first);
  group->loc = op->loc;
  group->attr[NY_AT(group, family)].s = ny_intern(&s->g->cx->names, "const");
  ny_value **seen = NULL;
  size_t n = 0, cap = 0;
  ny_value *v = copy_cone(s, group->body[0], op->out[0], &seen, &n, &cap);
  ny_op_new(s->g, group->body[0], NY_yield, &v, 1, NULL, 0);
  group->out[0]->name = op->out[0]->name;
  op->out[0]->name = NULL;
  hand_over(op, group, s->fold);
  return group;
}

ny_value *ny_hold_constant(ny_pass_cx *px, ny_graph *g, ny_value *v) {
  cones s = {.px = px, .g = g, .fold = true};
  return v && v->def && ny_is_constant(v) ? wrap(&s, v->def)->out[0] : v;
}

nyb_status ny_group_constants(ny_pass_cx *px, ny_graph *g, bool *changed) {
  cones s = {.px = px, .g = g, .fold = px->opt->opt >= 1};
  NY_TRY(ny_walk(&g->body, collect, &s));
  for (size_t i = 0; i < s.n; i++) wrap(&s, s.root[i]);
  if (s.n) *changed = true;
  ny_drop_dead(&g->body);
  return NYB_OK;
}
