/* A model, layer after layer: in the order of the graph, those with the same inputs together, so that the inputs of
 * each are what the layers before leave. */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "qmodel.h"

typedef struct work {
  nyb_context *cx;
  const ny_quantize_options *o;
  ny_layers *ls;
  ny_pool *pool;
  ny_runner *runner;
  ny_arena *a;
  ny_recipe recipe, blind;         /* blind: for layers whose inputs are not known */
  const ny_scheme *scheme, *table; /* table NULL: tables stay */
  size_t done, total;
  bool any;        /* layer is quantised */
  ny_probe *probe; /* while layers are tried */
} work;

/* ---- what is done with each layer */
static bool wanted(const ny_quantize_options *o, const char *name) {
  bool hit = !o->n_glob;
  for (size_t i = 0; i < o->n_glob && !hit; i++) hit = !fnmatch(o->glob[i], name, 0);
  return hit;
}

static void decide(work *w, ny_layer *l) {
  const ny_quantize_options *o = w->o;
  bool table = l->op->kind == NY_gather;
  if (l->skip) return;
  l->scheme = table ? w->table : w->scheme;
  if (!wanted(o, l->name))
    l->skip = "not asked for";
  else if (!l->scheme)
    l->skip = "a table";
  else if (l->weight.n * l->weight.k < o->least)
    l->skip = "too small to matter";
  if (!o->samples.n && !l->uncalibrated) l->uncalibrated = "no calibration data";
  l->recipe = l->uncalibrated ? w->blind : w->recipe;
}

static nyb_status choose(work *w) {
  ny_diag *d = &w->cx->diag;
  const ny_quantize_options *o = w->o;
  const char *recipe = o->recipe ? o->recipe : o->samples.n ? "joint+asym+bias" : "sweep";
  w->scheme = ny_scheme_by_name(o->format);
  if (!w->scheme) return ny_fail(d, NYB_E_ARGUMENT, NULL, "format %s: there is no such scheme", o->format);
  if (o->embeddings && strcmp(o->embeddings, "none") && !(w->table = ny_scheme_by_name(o->embeddings)))
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "embeddings as %s: there is no such scheme", o->embeddings);
  NY_TRY(ny_recipe_parse(recipe, &w->recipe, d));
  NY_TRY(ny_recipe_parse("sweep", &w->blind, d));
  if (!ny_recipe_needs_data(&w->recipe)) w->blind = w->recipe;
  if (ny_recipe_needs_data(&w->recipe) && !o->samples.n)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "recipe %s needs calibration data", recipe);
  if ((o->bits > 0 || o->max_error > 0) && !o->samples.n)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "mixed precision needs calibration data: what hurts is measured on it");
  if (o->damping > 0) w->recipe.damping = o->damping;
  for (size_t i = 0; i < w->ls->n; i++) {
    decide(w, &w->ls->v[i]);
    w->total += !w->ls->v[i].skip;
  }
  return NYB_OK;
}

/* ---- calibration */
static bool same_inputs(const ny_layer *a, const ny_layer *b) {
  if (a->skip || b->skip || a->uncalibrated || b->uncalibrated || a->x != b->x || a->op->kind != b->op->kind ||
      a->weight.k != b->weight.k)
    return false;
  if (a->op->kind != NY_conv) return true;
  for (int i = NY_AT(conv, kernel); i <= NY_AT(conv, dilation); i++) {
    const ny_attr *p = &a->op->attr[i], *q = &b->op->attr[i];
    if (p->dims.n != q->dims.n || (p->dims.n && memcmp(p->dims.v, q->dims.v, sizeof *p->dims.v * p->dims.n)))
      return false;
  }
  return true;
}

/* The inputs of the model itself are nobody's result. */
static void inputs_of(const work *w, const ny_layer *l, size_t i, const nyb_tensor **f, const nyb_tensor **q) {
  const ny_samples *s = &w->o->samples;
  const ny_wire *wire = ny_runner_wire(w->runner, l->x);
  *q = NULL;
  if (!wire) {
    *f = &s->in[i * s->n_in + l->x->index];
    return;
  }
  *f = &wire->f[i];
  if (wire->q && wire->q[i].data) *q = &wire->q[i];
}

static nyb_status factor(work *w, ny_layer *l, ny_factor *out) {
  ny_stats st;
  ny_diag *d = &w->cx->diag;
  const ny_recipe *r = &l->recipe;
  NY_TRY(ny_runner_advance(w->runner, w->ls->place[l->at->id], r->asym && w->any && !w->probe));
  NY_TRY(ny_stats_new(l->weight.k, r->asym && !w->probe, &st, d));
  nyb_status s = NYB_OK;
  for (size_t i = 0; i < w->o->samples.n && !s; i++) {
    const nyb_tensor *f, *q;
    inputs_of(w, l, i, &f, &q);
    s = ny_stats_add_layer(&st, w->pool, l, f, q, d);
  }
  if (!s) s = ny_factor_new(&st, r, w->pool, out, d);
  ny_stats_free(&st);
  return s;
}

/* The scheme asked for, and what a layer that hurts gets instead. */
static nyb_status try_schemes(work *w, ny_layer *l, const ny_factor *f) {
  static const char *const other[] = {"mxfp8", "int8"};
  l->n_trial = 0;
  for (size_t i = 0; i <= NY_COUNT(other); i++) {
    const ny_scheme *s = i ? ny_scheme_by_name(other[i - 1]) : l->scheme;
    ny_quantized q;
    if (i && s == l->scheme) continue;
    NY_TRY(ny_quantize(&l->weight, s, &l->recipe, f, w->pool, &q, &w->cx->diag));
    l->trial[l->n_trial].scheme = s;
    nyb_status st = ny_probe_error(w->probe, l, &q, &l->trial[l->n_trial++].error);
    ny_quantized_free(&q);
    NY_TRY(st);
  }
  return NYB_OK;
}

static nyb_status one(work *w, ny_layer *l, const ny_factor *f) {
  double t0 = ny_now();
  nyb_status s = ny_layer_load(w->ls, l, w->a);
  if (s) return ny_model_hand_over(w->cx, w->ls->g->cx, NULL, s);
  NY_TRY(w->probe ? try_schemes(w, l, f)
                  : ny_quantize(&l->weight, l->scheme, &l->recipe, f, w->pool, &l->q, &w->cx->diag));
  l->seconds += ny_now() - t0;
  w->done++, w->any = !w->probe;
  if (w->cx->options.progress)
    w->cx->options.progress(w->cx->options.user, l->name, (double)w->done / (double)w->total);
  return NYB_OK;
}

static bool done_with(const work *w, const ny_layer *l) {
  return l->skip || (w->probe ? l->n_trial > 0 : l->q.r != NULL);
}

static nyb_status together(work *w, size_t first) {
  ny_layer *lead = &w->ls->v[first];
  ny_factor f = {0};
  double t0 = ny_now();
  bool data = !lead->uncalibrated && ny_recipe_needs_data(&lead->recipe);
  if (data) NY_TRY(factor(w, lead, &f));
  lead->seconds = ny_now() - t0;
  nyb_status s = one(w, lead, data ? &f : NULL);
  for (size_t i = first + 1; i < w->ls->n && !s && data; i++)
    if (!done_with(w, &w->ls->v[i]) && same_inputs(lead, &w->ls->v[i])) s = one(w, &w->ls->v[i], &f);
  ny_factor_free(&f);
  return s;
}

static nyb_status all_layers(work *w) {
  if (w->o->samples.n) NY_TRY(ny_runner_new(w->cx, w->ls, &w->o->samples, w->o->threads, &w->runner));
  for (size_t i = 0; i < w->ls->n; i++)
    if (!done_with(w, &w->ls->v[i])) NY_TRY(together(w, i));
  ny_runner_free(w->runner);
  w->runner = NULL;
  return NYB_OK;
}

/* Every layer alone first, then the budget decides. */
static nyb_status mix(work *w) {
  for (size_t i = 0; i < w->ls->n; i++)
    if (!w->ls->v[i].skip)
      NY_TRY(ny_model_hand_over(w->cx, w->ls->g->cx, NULL, ny_layer_load(w->ls, &w->ls->v[i], w->a)));
  NY_TRY(ny_probe_new(w->cx, w->ls, &w->o->samples, w->o->threads, &w->probe));
  w->total *= 2;
  NY_TRY(all_layers(w));
  ny_probe_free(w->probe);
  w->probe = NULL;
  ny_budget_spend(w->ls, w->o->bits, w->o->max_error);
  return NYB_OK;
}

static nyb_status run(work *w) {
  NY_TRY(choose(w));
  NY_TRY(ny_pool_new(w->o->threads, 50, &w->pool, &w->cx->diag));
  if (w->o->bits > 0 || w->o->max_error > 0) NY_TRY(mix(w));
  return all_layers(w);
}

nyb_status ny_quantize_model(nyb_model *m, const ny_quantize_options *o, ny_arena *a, ny_layers *out) {
  work w = {.cx = m->cx, .o = o, .ls = out, .a = a};
  ny_diag_clear(&m->cx->diag);
  nyb_status s = ny_layers_find(m->unit->first, a, out);
  if (!s) s = run(&w);
  ny_probe_free(w.probe);
  ny_runner_free(w.runner);
  ny_pool_free(w.pool);
  if (s) ny_layers_free(out);
  return s;
}

void ny_layers_free(ny_layers *ls) {
  for (size_t i = 0; i < ls->n; i++) ny_quantized_free(&ls->v[i].q);
}
