/* tile: each group becomes a kernel through its family, and a launch of it. Kernels whose text is the same but for the
   name are one kernel. A group that its family does not take is opened again and its ops are lowered one by one. */
#include <string.h>

#include "rewrite.h"

typedef struct made { /* a kernel and its text without the name */
  ny_graph *k;
  char *text;
  size_t n;
  struct made *next;
} made;
typedef struct taken {
  ny_name base;
  int n;
  struct taken *next;
} taken;
enum { SLOTS = 1024 };
typedef struct tiler {
  ny_pass_cx *px;
  ny_graph *g;
  made *slot[SLOTS];
  taken *names[SLOTS];
  ny_op **group;
  size_t n, cap;
  bool changed;
} tiler;

static const ny_type *buffer_type(ny_ctx *cx, const ny_type *t) {
  ny_type b = *t;
  b.space = NY_GLOBAL;
  return ny_type_get(cx, b);
}

static ny_graph *empty_kernel(tiler *s, const ny_op *group, const char *family) {
  ny_graph *k = ny_graph_new(s->g->unit, ny_intern(&s->g->cx->names, "k"), true);
  const ny_block *body = group->body[0];
  for (uint32_t i = 0; i < body->n_arg; i++) ny_block_arg(k, &k->body, buffer_type(s->g->cx, body->arg[i]->type), NULL);
  for (int i = 0; i < group->n_out; i++) ny_block_arg(k, &k->body, buffer_type(s->g->cx, group->out[i]->type), NULL);
  k->family = ny_intern(&s->g->cx->names, family);
  return k;
}

static nyb_status try_family(tiler *s, ny_op *group, const char *name, ny_graph **out) {
  const ny_family *f = ny_family_by_name(name);
  if (!f) return NYB_E_UNSUPPORTED;
  ny_graph *k = empty_kernel(s, group, name);
  ny_arena keep = s->px->scratch; /* what a family needs is needed no longer than for this group */
  s->px->scratch = (ny_arena){0};
  nyb_status st = f->lower(s->px, group, k);
  ny_arena_free(&s->px->scratch);
  s->px->scratch = keep;
  if (!st)
    *out = k;
  else
    ny_graph_drop(k);
  return st;
}

/* The op that decides which families may take the group. */
static const ny_op *leader(const ny_op *group) {
  for (const ny_op *op = group->body[0]->first; op; op = op->next)
    if (ny_family_led_by((ny_kind)op->kind, 0)) return op;
  return NULL;
}

static nyb_status lower(tiler *s, ny_op *group, ny_graph **out) {
  const ny_op *lead = leader(group);
  nyb_status st = NYB_E_UNSUPPORTED;
  if (!lead) return try_family(s, group, "map", out);
  for (int i = 0; st == NYB_E_UNSUPPORTED && !s->g->cx->diag.code; i++) {
    const char *f = ny_family_led_by((ny_kind)lead->kind, i);
    if (!f) break;
    st = try_family(s, group, f, out);
  }
  return st;
}

/* How many kernels have this name with a number behind it. */
static int *times_taken(tiler *s, ny_name base) {
  taken **slot = &s->names[(uintptr_t)base / 16 % SLOTS];
  for (taken *t = *slot; t; t = t->next)
    if (t->base == base) return &t->n;
  taken *t = NY_NEW(&s->px->scratch, taken);
  *t = (taken){base, 0, *slot};
  *slot = t;
  return &t->n;
}

static void name_part(ny_text *t, const char *part) {
  if (t->n < 60) ny_text_addf(t, "_%s", part);
}

/* family, what is in it, and the format of the result: map_add_gelu_f32. */
static ny_name descriptive(tiler *s, const ny_op *group, const ny_graph *k) {
  ny_text t = {0};
  ny_text_add(&t, k->family);
  int named = 0;
  bool any = false;
  for (const ny_op *op = group->body[0]->first; op; op = op->next) any |= ny_is_map(op);
  for (const ny_op *op = group->body[0]->first; op && named < 3; op = op->next) {
    if (op->kind == NY_yield || op->kind == NY_const || !strcmp(ny_kinds[op->kind].name, k->family)) continue;
    if ((any || named) && !ny_is_map(op)) continue;
    if (op->prev && op->prev->kind == op->kind) continue;
    name_part(&t, ny_kinds[op->kind].name);
    named++;
  }
  if (group->n_out) name_part(&t, ny_fmts[group->out[0]->type->fmt].name);
  ny_name base = ny_intern(&s->g->cx->names, t.s), name = base;
  for (int *used = times_taken(s, base); ny_unit_find(s->g->unit, name);) {
    t.n = 0;
    ny_text_addf(&t, "%s_%d", base, ++*used + 1);
    name = ny_intern(&s->g->cx->names, t.s);
  }
  ny_text_free(&t);
  return name;
}

static uint64_t hash(const char *s, size_t n) {
  uint64_t h = 1469598103934665603u;
  for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 1099511628211u;
  return h;
}

/* k, or an equal kernel made before. */
static ny_graph *shared(tiler *s, const ny_op *group, ny_graph *k) {
  ny_text t = {0};
  ny_print_graph(k, &t);
  made **slot = &s->slot[hash(t.s, t.n) % SLOTS];
  for (made *m = *slot; m; m = m->next)
    if (m->n == t.n && !memcmp(m->text, t.s, t.n)) {
      ny_text_free(&t);
      ny_graph_drop(k);
      return m->k;
    }
  made *m = NY_NEW(&s->px->scratch, made);
  *m = (made){k, ny_strndup(&s->px->scratch, t.s, t.n), t.n, *slot};
  *slot = m;
  ny_text_free(&t);
  k->name = ny_intern(&s->g->cx->names, "");
  k->name = descriptive(s, group, k);
  return k;
}

static void launch(tiler *s, ny_op *group, ny_graph *k) {
  ny_value **in = NY_NEW_ARRAY(&s->px->scratch, ny_value *, group->n_in + 1);
  const ny_type **out = NY_NEW_ARRAY(&s->px->scratch, const ny_type *, group->n_out + 1);
  for (int i = 0; i < group->n_in; i++) in[i] = ny_in(group, i);
  for (int i = 0; i < group->n_out; i++) out[i] = group->out[i]->type;
  ny_builder b = ny_before(s->g, group);
  ny_op *l = ny_build(&b, NY_launch, in, group->n_in, out, group->n_out);
  if (!l) return;
  l->attr[NY_AT(launch, kernel)].s = k->name;
  for (int i = 0; i < group->n_out; i++) {
    l->out[i]->name = group->out[i]->name;
    ny_replace(group->out[i], l->out[i]);
  }
  ny_erase(group);
}

static size_t count_ops(const ny_op *group, ny_op **only) {
  size_t n = 0;
  for (ny_op *op = group->body[0]->first; op; op = op->next)
    if (op->kind != NY_yield && !(op->n_out && ny_travels(op->out[0]))) *only = op, n++;
  return n;
}

static nyb_status no_family(tiler *s, const ny_op *op) {
  ny_text t = {0};
  if (op && op->n_out) ny_type_print(s->g->cx, op->out[0]->type, &t);
  nyb_status st =
      ny_fail(&s->g->cx->diag, NYB_E_UNSUPPORTED, op ? op->loc : NULL, "no kernel family takes %s giving %s",
              op ? ny_kinds[op->kind].name : "an empty group", t.s ? t.s : "nothing");
  ny_text_free(&t);
  return st;
}

static nyb_status tile_group(tiler *s, ny_op *group);

static nyb_status one_by_one(tiler *s, ny_op *group) {
  ny_op *before = group->prev, *end = group->next;
  ny_block *block = group->parent;
  ny_group_open(s->g, group);
  for (ny_op *op = before ? before->next : block->first, *next; op && op != end; op = next) {
    next = op->next;
    if (ny_travels(op->out[0]) || op->kind == NY_reshape || op->kind == NY_bitcast) continue;
    ny_op *one = ny_group_new(s->g, &op, 1, NULL, 0, ny_family_of_op(op), op->loc);
    NY_TRY(tile_group(s, one));
  }
  return NYB_OK;
}

/* Kernels carry no locations, so a failure inside a family is given the group's. */
static nyb_status blame(tiler *s, const ny_op *group) {
  ny_diag *d = &s->g->cx->diag;
  if (!d->has_loc && group->loc) d->loc = *group->loc, d->has_loc = true;
  return d->code;
}

static nyb_status tile_group(tiler *s, ny_op *group) {
  ny_graph *k = NULL;
  nyb_status st = lower(s, group, &k);
  if (!st) st = ny_note_precision(s->px, group, k);
  if (!st) {
    launch(s, group, shared(s, group, k));
    return s->g->cx->diag.code;
  }
  if (s->g->cx->diag.code) return blame(s, group);
  ny_op *only = NULL;
  size_t n = count_ops(group, &only);
  return n > 1 ? one_by_one(s, group) : no_family(s, only);
}

static nyb_status collect(void *user, ny_op *op) {
  tiler *s = user;
  if (op->kind != NY_group || ny_is_const_group(op)) return NYB_OK;
  NY_PUSH_ROOM(&s->px->scratch, s->group, s->n, s->cap);
  s->group[s->n++] = op;
  return NYB_OK;
}

nyb_status ny_pass_tile(ny_pass_cx *px, ny_graph *g, bool *changed) {
  tiler s = {.px = px, .g = g};
  NY_TRY(ny_walk(&g->body, collect, &s));
  for (size_t i = 0; i < s.n; i++) {
    NY_TRY(tile_group(&s, s.group[i]));
    if (px->opt->progress && i % 16 == 0) px->opt->progress(px->opt->user, "tile", (double)i / (double)s.n);
  }
  ny_drop_dead(&g->body);
  *changed = *changed || s.n != 0;
  return NYB_OK;
}
