/* Buffers, launches and the comparison. Launch outputs of the main graph get buffers; other ops (constants, views left at graph level) are evaluated. */
#include "exec.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "nybble/kernel.h"

enum { GUARD = 256, FILL = 0xFF };

static uint8_t *guarded(exec *x, uint64_t bytes, const char *name) {
  uint64_t room = (bytes + 63) / 64 * 64; /* the guard begins right behind the last byte */
  uint8_t *p = ny_alloc(&x->arena, room + 2 * GUARD + 64);
  p += 64 - (uintptr_t)p % 64;
  memset(p, FILL, room + 2 * GUARD);
  NY_PUSH_ROOM(&x->arena, x->guard, x->n_guard, x->cap_guard);
  x->guard[x->n_guard++] = (struct exec_guard){p, bytes, name};
  return p + GUARD;
}

const char *exec_guards(const exec *x) {
  for (size_t g = 0; g < x->n_guard; g++) {
    const uint8_t *p = x->guard[g].base;
    size_t end = GUARD + x->guard[g].bytes;
    for (size_t i = 0; i < GUARD; i++)
      if (p[i] != FILL || p[end + i] != FILL) return x->guard[g].name ? x->guard[g].name : "(unnamed)";
  }
  return NULL;
}

const ny_type *exec_static(ny_ctx *cx, const ny_type *t, const ny_binding *env, size_t n_env) {
  ny_type s = *t;
  for (int i = 0; i < t->rank; i++) {
    int64_t v = 0;
    if (!ny_dim_eval(cx, t->dim[i], env, n_env, &v)) return NULL;
    s.dim[i] = v;
  }
  return ny_type_get(cx, s);
}

static ny_tensor *value(exec *x, const ny_value *v) { return &x->value[v->id]; }

static nyb_status room(exec *x, const ny_value *v) {
  ny_ctx *cx = x->unit->cx;
  const ny_type *t = exec_static(cx, v->type, x->env, x->n_env);
  int64_t bytes;
  if (!t || !ny_dim_is_const(cx, ny_type_bytes(cx, t), &bytes))
    return ny_fail(&cx->diag, NYB_E_SHAPE, NULL, "a value has no size for these symbols");
  *value(x, v) = (ny_tensor){t, guarded(x, (uint64_t)bytes, v->name)};
  return NYB_OK;
}

static size_t kernel_index(const exec *x, ny_name name) {
  for (size_t i = 0; i < x->n_kernel; i++)
    if (x->kernel[i]->name == name) return i;
  return SIZE_MAX;
}

static nyb_status launch(exec *x, const ny_op *op) {
  ny_ctx *cx = x->unit->cx;
  size_t at = kernel_index(x, ny_attr_at(op, NY_AT(launch, kernel))->s), n = (size_t)op->n_in + op->n_out;
  if (at == SIZE_MAX) return ny_fail(&cx->diag, NYB_E_VERIFY, op->loc, "a launch names a kernel that is not there");
  exec_step *s = &x->step[x->n_step++];
  *s = (exec_step){.kernel = x->kernel[at], .n_buffer = n};
  s->buffer = NY_NEW_ARRAY(&x->arena, void *, n + 1);
  s->tensor = NY_NEW_ARRAY(&x->arena, ny_tensor, n + 1);
  for (int i = 0; i < op->n_out; i++) NY_TRY(room(x, op->out[i]));
  for (size_t i = 0; i < n; i++) {
    s->tensor[i] = *value(x, i < op->n_in ? ny_in(op, (int)i) : op->out[i - op->n_in]);
    s->tensor[i].type = exec_static(cx, s->kernel->body.arg[i]->type, x->env, x->n_env);
    s->buffer[i] = s->tensor[i].data;
  }
  ny_name *symbol;
  size_t n_symbol;
  ny_kernel_symbols(s->kernel, &x->arena, &symbol, &n_symbol);
  s->dim = NY_NEW_ARRAY(&x->arena, int64_t, n_symbol + 1);
  for (size_t i = 0; i < n_symbol; i++)
    if (!ny_dim_eval(cx, ny_dim_sym(cx, symbol[i]), x->env, x->n_env, &s->dim[i]))
      return ny_fail(&cx->diag, NYB_E_ARGUMENT, op->loc, "symbol %s has no value", symbol[i]);
  if (!ny_dim_eval(cx, ny_kernel_extent(s->kernel), x->env, x->n_env, &s->extent))
    return ny_fail(&cx->diag, NYB_E_SHAPE, op->loc, "a kernel has no extent for these symbols");
  if (!x->code) return NYB_OK;
  uint8_t *entry = (uint8_t *)x->code + x->image.entry[at];
  memcpy(&s->fn, &entry, sizeof entry);
  if (x->image.scratch[at]) s->scratch = guarded(x, x->image.scratch[at], s->kernel->name);
  return NYB_OK;
}

static nyb_status evaluate(exec *x, ny_graph *g, ny_op *op) {
  ny_tensor in[64], out[64];
  if (op->n_in > 64 || op->n_out > 64) return ny_fail(&g->cx->diag, NYB_E_UNSUPPORTED, op->loc, "too many operands");
  for (int i = 0; i < op->n_in; i++) in[i] = *value(x, ny_in(op, i));
  NY_TRY(ny_eval_op(g, op, in, &x->arena, out));
  for (int i = 0; i < op->n_out; i++) {
    NY_TRY(room(x, op->out[i]));
    ny_tensor *t = value(x, op->out[i]);
    memcpy(t->data, out[i].data, ny_fmt_bytes((ny_fmt)t->type->fmt, (uint64_t)ny_type_count(g->cx, t->type)));
  }
  return NYB_OK;
}

static nyb_status compile(exec *x, const ny_target *target, const char *dump) {
  ny_diag *d = &x->unit->cx->diag;
  const ny_codegen *cg;
  NY_TRY(ny_codegen_open(&cg, d));
  ny_codegen_request r = {.kernel = x->kernel, .n = x->n_kernel, .target = target, .opt = 2, .threads = 1, .dump_dir = dump};
  NY_TRY(cg->compile(&r, &x->image, d));
  x->code_bytes = (x->image.bytes + 4095) / 4096 * 4096;
  x->code = mmap(NULL, x->code_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (x->code == MAP_FAILED) return ny_fail(d, NYB_E_NOMEM, NULL, "no memory for code");
  memcpy(x->code, x->image.data, x->image.bytes);
  if (mprotect(x->code, x->code_bytes, PROT_READ | PROT_EXEC)) return ny_fail(d, NYB_E_IO, NULL, "code cannot be made executable");
  return NYB_OK;
}

nyb_status exec_open(exec *x, ny_unit *u, const ny_target *target, const ny_binding *env, size_t n_env, const ny_tensor *in, size_t n_in, const char *dump) {
  *x = (exec){.unit = u, .env = env, .n_env = n_env};
  ny_graph *main = u->first;
  size_t n_kernel = 0, n_op = 0;
  for (ny_graph *g = u->first; g; g = g->next) n_kernel += g->kernel;
  x->kernel = NY_NEW_ARRAY(&x->arena, ny_graph *, n_kernel + 1);
  for (ny_graph *g = u->first; g; g = g->next)
    if (g->kernel) x->kernel[x->n_kernel++] = g;
  if (target) NY_TRY(compile(x, target, dump));
  for (ny_op *op = main->body.first; op; op = op->next) n_op++;
  x->value = NY_NEW_ARRAY(&x->arena, ny_tensor, main->next_value + 1);
  x->step = NY_NEW_ARRAY(&x->arena, exec_step, n_op + 1);
  for (uint32_t i = 0; i < main->body.n_arg && i < n_in; i++) {
    NY_TRY(room(x, main->body.arg[i]));
    ny_tensor *t = value(x, main->body.arg[i]);
    memcpy(t->data, in[i].data, ny_fmt_bytes((ny_fmt)t->type->fmt, (uint64_t)ny_type_count(u->cx, t->type)));
  }
  for (ny_op *op = main->body.first; op; op = op->next) {
    if (op->kind == NY_launch) NY_TRY(launch(x, op));
    else if (op->kind == NY_reshape || op->kind == NY_bitcast) /* another name of the buffer */
      *value(x, op->out[0]) = (ny_tensor){exec_static(u->cx, op->out[0]->type, env, n_env), value(x, ny_in(op, 0))->data};
    else if (op->kind != NY_ret) NY_TRY(evaluate(x, main, op));
  }
  return NYB_OK;
}

static void call(const exec_step *s, int64_t begin, int64_t end) {
  nyb_dispatch d = {.buffer = s->buffer, .dim = s->dim, .scratch = s->scratch};
  if (begin < end) s->fn(&d, begin, end);
}

nyb_status exec_run(exec *x) {
  for (size_t i = 0; i < x->n_step; i++) {
    exec_step *s = &x->step[i];
    if (!s->fn) {
      NY_TRY(ny_eval_kernel((ny_graph *)s->kernel, s->tensor, s->n_buffer, x->env, x->n_env));
      continue;
    }
    call(s, 0, s->extent / 3);
    call(s, s->extent / 3, s->extent);
  }
  return NYB_OK;
}

void exec_fast(exec *x) {
  for (size_t i = 0; i < x->n_step; i++) call(&x->step[i], 0, x->step[i].extent);
}

ny_tensor exec_result(const exec *x, size_t i) { return *value((exec *)x, ny_in(x->unit->first->body.last, (int)i)); }

void exec_close(exec *x) {
  if (x->code && x->code != MAP_FAILED) munmap(x->code, x->code_bytes);
  if (x->image.data) ny_image_free(&x->image);
  ny_arena_free(&x->arena);
}

static double uniform(uint32_t *s) {
  *s ^= *s << 13, *s ^= *s >> 17, *s ^= *s << 5;
  return (double)(*s >> 8) / (1 << 24);
}

ny_tensor exec_random(ny_ctx *cx, ny_arena *a, const ny_type *t, const ny_binding *env, size_t n_env, uint32_t seed) {
  const ny_type *s = exec_static(cx, t, env, n_env);
  if (!s) return (ny_tensor){0};
  uint64_t n = (uint64_t)ny_type_count(cx, s);
  ny_fmt f = (ny_fmt)s->fmt;
  ny_tensor out = {s, ny_alloc(a, ny_fmt_bytes(f, n) + 16)};
  uint32_t state = seed * 2654435761u + 1;
  for (uint64_t i = 0; i < n; i++) {
    double x = uniform(&state) + uniform(&state) + uniform(&state) + uniform(&state) - 2; /* near enough to a normal distribution */
    if (ny_is_float(f)) ny_put_f(f, out.data, i, x * 1.7, false);
    else ny_put_i(f, out.data, i, (int64_t)(x * 20));
  }
  return out;
}

static double get(ny_fmt f, const void *p, uint64_t i) { return ny_is_float(f) ? ny_get_f(f, p, i) : (double)ny_get_i(f, p, i); }

double exec_error(ny_tensor a, ny_tensor b) {
  ny_fmt f = (ny_fmt)a.type->fmt;
  uint64_t n = 1;
  double top = 0, worst = 0;
  if (a.type != b.type) return 1;
  for (int i = 0; i < a.type->rank; i++) n *= (uint64_t)a.type->dim[i];
  for (uint64_t i = 0; i < n; i++) {
    double x = get(f, a.data, i), y = get(f, b.data, i);
    if (isnan(x) != isnan(y) || (isinf(y) && x != y)) return 1;
    if (!isfinite(y)) continue;
    if (fabs(y) > top) top = fabs(y);
    if (!(fabs(x - y) <= worst)) worst = fabs(x - y);
  }
  return worst > 0 ? worst / (top > 0 ? top : 1) : 0;
}
