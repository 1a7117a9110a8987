/* Running a graph piece by piece over all calibration samples. A piece is compiled as a module of its own whose inputs
   are the model's inputs, what earlier pieces left, and the weights that are quantised by now: so the same module gives
   values as the original has them and as the quantised model has them, and the whole model is run once or twice
   altogether, not once a layer. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "segment.h"

static void drop_wire(ny_runner *r, ny_wire *w) {
  for (size_t i = 0; i < r->s->n; i++) {
    if (w->f && w->f[i].data) free(w->f[i].data);
    if (w->q && w->q[i].data) free(w->q[i].data);
  }
}

static uint64_t tensor_bytes(const nyb_tensor *t) {
  uint64_t n = t->dtype.bits;
  for (int i = 0; i < t->ndim; i++) n *= (uint64_t)t->shape[i];
  return (n + 7) / 8;
}

/* ---- what is needed at a place */
static bool needed(const ny_layers *ls, const ny_value *v, uint32_t from, uint32_t to) {
  for (const ny_use *u = v->uses; u; u = u->next) {
    uint32_t at = ny_layers_place(ls, u->user);
    if (at >= from && at < to && ls->op[at]->kind != NY_ret) return true;
  }
  return false;
}

static size_t live_at(const ny_layers *ls, uint32_t place, ny_arena *a, ny_wire **out) {
  size_t n = 0, cap = 0;
  *out = NULL;
  for (uint32_t p = 0; p < place; p++)
    for (int i = 0; i < ls->op[p]->n_out; i++) {
      ny_value *v = ls->op[p]->out[i];
      if (ls->constant[v->id] || !needed(ls, v, place, UINT32_MAX)) continue;
      NY_PUSH_ROOM(a, *out, n, cap);
      (*out)[n++] = (ny_wire){.v = v};
    }
  return n;
}

/* ---- the graph of a ny_piece */
static ny_value *copied(const ny_piece *p, const ny_value *v) {
  if (!v->def) return p->copy->first->body.arg[v->index];
  uint32_t at = p->r->ls->place[v->def->id];
  return p->with_bias[at] ? p->with_bias[at] : p->op[at]->out[v->index];
}

static ny_value *input(ny_piece *p, const ny_type *t, const char *stem, size_t i) {
  ny_graph *g = p->copy->first;
  return ny_block_arg(g, &g->body, t, ny_intern(&g->cx->names, ny_strf(&p->a, "%s_%zu", stem, i)));
}

static void take_weights(ny_piece *p, uint32_t from, uint32_t to) {
  ny_layers *ls = p->r->ls;
  for (size_t i = 0; i < ls->n; i++) {
    ny_layer *l = &ls->v[i];
    if (!(p->probe ? l->weight.w && !l->skip : l->q.r != NULL) || l->w->def->parent != &ls->g->body ||
        !needed(ls, l->w, from, to))
      continue;
    ny_replace(copied(p, l->w), input(p, l->w->type, "weight", p->n_weight));
    p->weight[p->n_weight++] = l;
  }
}

static void take_biases(ny_piece *p, uint32_t from, uint32_t to) {
  ny_layers *ls = p->r->ls;
  ny_graph *g = p->copy->first;
  for (size_t i = 0; i < ls->n; i++) {
    ny_layer *l = &ls->v[i];
    uint32_t at = ls->place[l->at->id];
    if (!(p->probe ? l->weight.w && !l->skip && l->x : l->q.bias != NULL) || l->op != l->at || at < from || at >= to)
      continue;
    ny_dim n = l->weight.n;
    ny_value *y = p->op[at]->out[0], *b = input(p, ny_tensor_type(g->cx, NY_f32, 1, &n), "bias", p->n_bias);
    ny_builder build = {.g = g, .block = &g->body, .before = p->op[at]->next};
    ny_value *sum = ny_b_ew2(&build, NY_add, y, b);
    if (!sum) return;
    ny_replace(y, sum);
    ny_set_in(sum->def, 0, y);
    p->with_bias[at] = sum;
    p->bias[p->n_bias++] = l;
  }
}

static void take_results(ny_piece *p) {
  ny_graph *g = p->copy->first;
  ny_erase(g->body.last);
  ny_value **v = NY_NEW_ARRAY(&p->a, ny_value *, p->n_out + 1);
  ny_name *name = NY_NEW_ARRAY(&g->arena, ny_name, p->n_out + 1);
  for (size_t i = 0; i < p->n_out; i++) {
    v[i] = copied(p, p->out[i].v);
    name[i] = ny_intern(&g->cx->names, ny_strf(&p->a, "result_%zu", i));
  }
  ny_op *ret = ny_op_new(g, &g->body, NY_ret, v, (int)p->n_out, NULL, 0);
  ret->attr[NY_AT(ret, names)].names.v = name;
  ret->attr[NY_AT(ret, names)].names.n = (uint32_t)p->n_out;
}

nyb_status ny_piece_graph(ny_piece *p, uint32_t to) {
  ny_runner *r = p->r;
  NY_TRY(ny_unit_copy(r->ls->g->unit, &p->copy));
  ny_graph *g = p->copy->first;
  p->op = NY_NEW_ARRAY(&p->a, ny_op *, r->ls->n_op + 1);
  p->with_bias = NY_NEW_ARRAY(&p->a, ny_value *, r->ls->n_op + 1);
  p->weight = NY_NEW_ARRAY(&p->a, ny_layer *, r->ls->n + 1);
  p->bias = NY_NEW_ARRAY(&p->a, ny_layer *, r->ls->n + 1);
  uint32_t n = 0;
  for (ny_op *op = g->body.first; op; op = op->next) p->op[n++] = op;
  for (size_t i = 0; i < r->n_wire; i++) {
    ny_value *v = copied(p, r->wire[i].v);
    ny_replace(v, input(p, v->type, "wire", i));
  }
  if (p->both) take_weights(p, r->place, to), take_biases(p, r->place, to);
  if (!p->probe) take_results(p);
  ny_drop_dead(&g->body);
  return g->cx->diag.code ? g->cx->diag.code : ny_verify(g);
}

/* ---- compiled and run */
static void largest_dims(const ny_piece *p, nyb_dim *dims, size_t *n) {
  const ny_samples *s = p->r->s;
  const ny_graph *g = p->r->ls->g;
  nyb_module_info info = {.size = sizeof info};
  nyb_module_describe(p->module, &info);
  for (size_t k = 0; k < info.n_symbols; k++) {
    int64_t most = -1;
    for (size_t j = 0; j < s->n_in; j++)
      for (int a = 0; a < g->body.arg[j]->type->rank; a++) {
        ny_dim d = g->body.arg[j]->type->dim[a];
        if (d >= 0 || ny_dim_get(g->cx, d)->kind != NY_DIM_SYM || strcmp(ny_dim_get(g->cx, d)->name, info.symbols[k]))
          continue;
        for (size_t i = 0; i < s->n; i++)
          if (s->in[i * s->n_in + j].shape[a] > most) most = s->in[i * s->n_in + j].shape[a];
      }
    if (most >= 0) dims[(*n)++] = (nyb_dim){info.symbols[k], most};
  }
}

nyb_status ny_piece_compile(ny_piece *p) {
  nyb_context *cx = p->r->cx;
  const char *dir = getenv("TMPDIR");
  char *path = ny_strf(&p->a, "%s/nybble-XXXXXX", dir && *dir ? dir : "/tmp");
  int fd = mkstemp(path);
  if (fd < 0) return ny_fail(&cx->diag, NYB_E_IO, NULL, "%s: cannot create it", path);
  close(fd);
  nyb_model m = {.cx = cx, .ir = p->copy->cx, .unit = p->copy};
  nyb_compile_options co = {.size = sizeof co, .threads = p->r->threads};
  nyb_load_options lo = {.size = sizeof lo, .trust = 1};
  void (*progress)(void *, const char *, double) = cx->options.progress;
  cx->options.progress = NULL; /* it is the layers that count */
  nyb_status s = ny_model_compile(&m, &co, NULL, path);
  cx->options.progress = progress;
  if (!s) s = nyb_load(cx, path, &lo, &p->module);
  unlink(path);
  if (s) return s;
  nyb_module_info info = {.size = sizeof info};
  nyb_module_describe(p->module, &info);
  nyb_dim *dims = NY_NEW_ARRAY(&p->a, nyb_dim, info.n_symbols + 1);
  nyb_session_options so = {.size = sizeof so, .threads = p->r->threads, .dims = dims};
  largest_dims(p, dims, &so.n_dims);
  return nyb_session_open(p->module, &so, &p->session);
}

static nyb_status keep(ny_piece *p, const nyb_tensor *from, nyb_tensor *to) {
  ny_runner *r = p->r;
  uint64_t bytes = tensor_bytes(from);
  *to = *from;
  to->shape = NY_NEW_ARRAY(&r->a, int64_t, from->ndim + 1);
  memcpy(to->shape, from->shape, sizeof *to->shape * (size_t)from->ndim);
  r->bytes += bytes;
  if (r->bytes > r->limit || posix_memalign(&to->data, 64, bytes + 64)) {
    to->data = NULL;
    return ny_fail(&r->cx->diag, NYB_E_LIMIT, NULL,
                   "the calibration data takes more than %llu MB between two layers: give fewer samples",
                   (unsigned long long)(r->limit >> 20));
  }
  memcpy(to->data, (const char *)from->data + from->byte_offset, bytes);
  to->byte_offset = 0;
  return NYB_OK;
}

static nyb_tensor floats(const float *data, const ny_type *t, int64_t n, int64_t *shape) {
  for (int i = 0; t && i < t->rank; i++) shape[i] = t->dim[i];
  if (!t) shape[0] = n;
  return (nyb_tensor){.data = (void *)(uintptr_t)data,
                      .device = {1, 0},
                      .ndim = t ? t->rank : 1,
                      .dtype = {NYB_FLOAT, 32, 1},
                      .shape = shape};
}

nyb_status ny_piece_run(ny_piece *p, size_t i, bool quantised, const float *const *weight, const float *const *bias,
                        nyb_tensor *out, size_t n_out) {
  ny_runner *r = p->r;
  const ny_samples *s = r->s;
  size_t n_in = s->n_in + r->n_wire + p->n_weight + p->n_bias, at = 0;
  ny_arena a = {0};
  nyb_tensor *in = NY_NEW_ARRAY(&a, nyb_tensor, n_in + 1);
  int64_t *shape = NY_NEW_ARRAY(&a, int64_t, (p->n_weight + p->n_bias + 1) * NY_MAX_RANK);
  for (size_t j = 0; j < s->n_in; j++) in[at++] = s->in[i * s->n_in + j];
  for (size_t j = 0; j < r->n_wire; j++)
    in[at++] = quantised && r->wire[j].q && r->wire[j].q[i].data ? r->wire[j].q[i] : r->wire[j].f[i];
  for (size_t j = 0; j < p->n_weight; j++, shape += NY_MAX_RANK)
    in[at++] = floats(weight[j], p->weight[j]->w->type, 0, shape);
  for (size_t j = 0; j < p->n_bias; j++, shape += NY_MAX_RANK)
    in[at++] = floats(bias[j], NULL, p->bias[j]->weight.n, shape);
  memset(out, 0, sizeof *out * n_out);
  nyb_status st = nyb_run(p->session, in, n_in, out, n_out);
  ny_arena_free(&a);
  return st;
}

void ny_piece_weights(ny_piece *p, bool quantised, const float **weight, const float **bias) {
  int64_t most = 1;
  for (size_t j = 0; j < p->n_bias; j++) most = p->bias[j]->weight.n > most ? p->bias[j]->weight.n : most;
  const float *zeros = NY_NEW_ARRAY(&p->a, float, most);
  for (size_t j = 0; j < p->n_weight; j++) weight[j] = quantised ? p->weight[j]->q.r : p->weight[j]->weight.w;
  for (size_t j = 0; j < p->n_bias; j++) bias[j] = quantised ? p->bias[j]->q.bias : zeros;
}

static nyb_status run_all(ny_piece *p, bool quantised) {
  const ny_samples *s = p->r->s;
  const float **w = NY_NEW_ARRAY(&p->a, const float *, p->n_weight + 1),
              **b = NY_NEW_ARRAY(&p->a, const float *, p->n_bias + 1);
  nyb_tensor *out = NY_NEW_ARRAY(&p->a, nyb_tensor, p->n_out + 1);
  ny_piece_weights(p, quantised, w, b);
  for (size_t j = 0; j < p->n_out; j++)
    *(quantised ? &p->out[j].q : &p->out[j].f) = NY_NEW_ARRAY(&p->r->a, nyb_tensor, s->n);
  for (size_t i = 0; i < s->n; i++) {
    NY_TRY(ny_piece_run(p, i, quantised, w, b, out, p->n_out));
    for (size_t j = 0; j < p->n_out; j++) NY_TRY(keep(p, &out[j], quantised ? &p->out[j].q[i] : &p->out[j].f[i]));
  }
  return NYB_OK;
}

/* A wire that goes on moves; what is not needed any more goes. */
static void hand_on(ny_runner *r, ny_piece *p, ny_wire *next, size_t n) {
  for (size_t i = 0; i < r->n_wire; i++) {
    size_t k = 0;
    while (k < n && next[k].v != r->wire[i].v) k++;
    if (k < n) {
      next[k] = r->wire[i];
      continue;
    }
    for (size_t j = 0; j < r->s->n; j++) {
      if (r->wire[i].f[j].data) r->bytes -= tensor_bytes(&r->wire[i].f[j]);
      if (r->wire[i].q && r->wire[i].q[j].data) r->bytes -= tensor_bytes(&r->wire[i].q[j]);
    }
    drop_wire(r, &r->wire[i]);
  }
  for (size_t j = 0; j < p->n_out; j++)
    for (size_t k = 0; k < n; k++)
      if (next[k].v == p->out[j].v) next[k] = p->out[j];
  r->wire = next;
  r->n_wire = n;
}

void ny_piece_free(ny_piece *p) {
  nyb_session_close(p->session);
  nyb_module_close(p->module);
  if (p->copy) ny_unit_free(p->copy);
  ny_arena_free(&p->a);
}

/* Results of a piece: what is needed after it and no wire holds yet. */
static void choose_results(ny_piece *p, const ny_wire *next, size_t n) {
  p->out = NY_NEW_ARRAY(&p->a, ny_wire, n + 1);
  for (size_t i = 0; i < n; i++)
    if (!ny_runner_wire(p->r, next[i].v)) p->out[p->n_out++] = next[i];
}

nyb_status ny_runner_advance(ny_runner *r, uint32_t place, bool both) {
  ny_piece p = {.r = r, .both = both};
  ny_wire *next;
  if (place <= r->place) return NYB_OK;
  size_t n = live_at(r->ls, place, &r->a, &next);
  choose_results(&p, next, n);
  nyb_status s = NYB_OK;
  if (p.n_out) {
    ny_ctx *ir = r->ls->g->cx;
    s = ny_model_hand_over(r->cx, ir, NULL, ny_piece_graph(&p, place));
    if (!s) s = ny_piece_compile(&p);
    if (!s) s = run_all(&p, false);
    if (!s && both) s = run_all(&p, true);
  }
  if (!s)
    hand_on(r, &p, next, n);
  else
    for (size_t j = 0; j < p.n_out; j++)
      if (p.out[j].f) drop_wire(r, &p.out[j]);
  r->place = place;
  ny_piece_free(&p);
  return s;
}

const ny_wire *ny_runner_wire(const ny_runner *r, const ny_value *v) {
  for (size_t i = 0; i < r->n_wire; i++)
    if (r->wire[i].v == v) return &r->wire[i];
  return NULL;
}

nyb_status ny_runner_new(nyb_context *cx, ny_layers *ls, const ny_samples *s, int threads, ny_runner **out) {
  ny_host_facts host;
  ny_host_read(&host);
  *out = calloc(1, sizeof **out);
  if (!*out) return ny_fail(&cx->diag, NYB_E_NOMEM, NULL, "out of memory");
  **out = (ny_runner){.cx = cx, .ls = ls, .s = s, .threads = threads, .limit = host.mem_bytes / 4};
  return NYB_OK;
}

void ny_runner_free(ny_runner *r) {
  if (!r) return;
  for (size_t i = 0; i < r->n_wire; i++) drop_wire(r, &r->wire[i]);
  ny_arena_free(&r->a);
  free(r);
}
