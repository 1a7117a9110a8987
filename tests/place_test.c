/* Memory plans of random graphs, walked as the runtime would: every launch takes possession of its results' bytes, and
   what anyone reads must still belong to the value it is. So a plan in which two live buffers touch, or a loop's copies
   overtake each other, is caught, whatever way it was made. */
#include <stdlib.h>
#include <string.h>

#include "diff_gen.h"
#include "passes.h"
#include "test.h"

enum { NOWHERE = -1, GRANULE = 16 };
typedef struct spot { /* where a value's bytes are */
  int64_t off, bytes;
  uint32_t tag;
} spot;
typedef struct walker {
  ny_graph *g;
  const diff_case *c;
  spot *at;        /* by value id */
  uint32_t *owner; /* by granule of the arena */
  int64_t arena;
  uint32_t next_tag;
  uint64_t seed;
  bool ok;
} walker;

static int64_t number(walker *w, ny_dim d) {
  int64_t v = -1;
  if (!ny_dim_eval(w->g->cx, d, w->c->env, w->c->n_env, &v)) w->ok = false;
  return v;
}

static void claim(walker *w, const ny_value *v, ny_dim off) {
  spot s = {number(w, off), number(w, ny_type_bytes(w->g->cx, v->type)), ++w->next_tag};
  w->at[v->id] = s;
  if (s.off == NOWHERE) return;
  bool inside = s.off >= 0 && s.off % 64 == 0 && s.bytes >= 0 && s.off + s.bytes <= w->arena;
  CHECK_EACH(inside, "seed %llu: [%lld, +%lld) in an arena of %lld", (unsigned long long)w->seed, (long long)s.off,
        (long long)s.bytes, (long long)w->arena);
  if (!inside) w->ok = false;
  for (int64_t b = s.off; inside && b < s.off + s.bytes; b += GRANULE) w->owner[b / GRANULE] = s.tag;
}

static void need(walker *w, const ny_value *v) {
  spot s = w->at[v->id];
  if (s.off == NOWHERE || !w->ok) return;
  for (int64_t b = s.off; b < s.off + s.bytes && w->ok; b += GRANULE)
    if (w->owner[b / GRANULE] != s.tag) w->ok = false;
  CHECK_EACH(w->ok, "seed %llu: bytes of value %u at %lld were overwritten before they were read",
        (unsigned long long)w->seed, v->id, (long long)s.off);
}

static void walk(walker *w, ny_block *b);

static void one_loop(walker *w, ny_op *op) {
  ny_block *body = op->body[0];
  const ny_dim *off = op->attr[NY_AT(loop, off)].dims.v;
  for (int i = 0; i < op->n_in; i++) need(w, ny_in(op, i));
  for (int i = 0; i < op->n_out; i++) claim(w, op->out[i], off[i + 1]);
  for (int round = 0; round < 2; round++) {
    claim(w, body->arg[0], off[0]);
    for (int i = 0; i < op->n_in; i++) w->at[body->arg[i + 1]->id] = w->at[op->out[i]->id];
    walk(w, body);
    for (int i = 0; i < body->last->n_in && w->ok; i++) { /* copied one after the other */
      need(w, ny_in(body->last, i));
      if (i < op->n_in && w->at[ny_in(body->last, i)->id].tag != w->at[op->out[i]->id].tag)
        claim(w, op->out[i], off[i + 1]);
    }
  }
}

static void one_if(walker *w, ny_op *op) {
  const ny_dim *off = op->attr[NY_AT(if, off)].dims.v;
  need(w, ny_in(op, 0));
  for (int branch = 0; branch < 2; branch++) {
    walk(w, op->body[branch]);
    for (int i = 0; i < op->n_out && w->ok; i++) {
      need(w, ny_in(op->body[branch]->last, i));
      claim(w, op->out[i], off[i]);
    }
  }
}

/* Results may lie only on the input whose memory the kernel may take over. */
static void one_launch(walker *w, ny_op *op) {
  const ny_graph *k = ny_unit_find(w->c->u, op->attr[NY_AT(launch, kernel)].s);
  int64_t inplace = k ? ny_knob(k, "inplace", -1) : -1;
  for (int i = 0; i < op->n_in; i++) need(w, ny_in(op, i));
  for (int i = 0; i < op->n_out; i++) claim(w, op->out[i], op->attr[NY_AT(launch, off)].dims.v[i]);
  for (int i = 0; i < op->n_in; i++)
    if (i != inplace) need(w, ny_in(op, i));
}

static void walk(walker *w, ny_block *b) {
  for (ny_op *op = b->first; op && w->ok; op = op->next) {
    if (op->kind == NY_reshape || op->kind == NY_bitcast) w->at[op->out[0]->id] = w->at[ny_in(op, 0)->id];
    if (op->kind == NY_loop) one_loop(w, op);
    if (op->kind == NY_if) one_if(w, op);
    if (op->kind == NY_ret)
      for (int i = 0; i < op->n_in; i++) need(w, ny_in(op, i));
    if (op->kind == NY_launch) one_launch(w, op);
  }
}

static void one(uint64_t seed) {
  static const ny_target target = {
      .name = "test", .vec_bytes = 32, .n_vregs = 16, .l1d = 32 << 10, .l2 = 1 << 20, .threads = 2};
  ny_ctx *cx = ny_ctx_new();
  ny_arena a = {0};
  diff_case c;
  diff_options o = {
      .seed = seed, .ops = 8 + (int)(seed % 60), .symbols = seed % 2 == 1, .control = seed % 3 == 2, .wide = true};
  bool made = diff_generate(cx, &o, &c);
  CHECK(made, "seed %llu makes no graph", (unsigned long long)seed);
  ny_pass_options po = {.target = &target, .opt = (int)(seed % 3)};
  nyb_status s = made ? ny_run_passes(c.u, &po) : NYB_E_INTERNAL;
  CHECK(!s, "seed %llu: %s", (unsigned long long)seed, cx->diag.message);
  if (!s) {
    walker w = {.g = c.u->first, .c = &c, .seed = seed, .ok = true};
    w.arena = number(&w, w.g->arena_bytes);
    w.at = NY_NEW_ARRAY(&a, spot, w.g->next_value + 1);
    for (uint32_t i = 0; i <= w.g->next_value; i++) w.at[i].off = NOWHERE;
    w.owner = NY_NEW_ARRAY(&a, uint32_t, w.arena / GRANULE + 8);
    walk(&w, &w.g->body);
    CHECK(w.ok, "seed %llu", (unsigned long long)seed);
  }
  ny_unit_free(c.u);
  ny_arena_free(&a);
  ny_ctx_free(cx);
}

int main(int argc, char **argv) {
  uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, n = argc > 2 ? strtoull(argv[2], NULL, 10) : 400;
  for (uint64_t seed = first; seed < first + n; seed++) one(seed);
  return test_end("place_test");
}
