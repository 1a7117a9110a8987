/* Barriers. A thread that reads what another one stored, or overwrites what another one reads or stored, waits first: the accesses since the last barrier are
   remembered, and one that meets an earlier one of the same memory, which is not surely its own, puts a barrier before itself. A loop's body is emitted again with
   what its end leaves behind until that adds nothing. */
#include "emit.h"

#include <string.h>

void cu_barrier(cu *c) {
  if (c->threads > 1) cu_line(c, "NY_SYNC;");
  c->pending.n = 0;
}

static bool same(const cu_access *a, const cu_access *b) {
  return a->buffer == b->buffer && a->store == b->store && a->op == b->op && a->base == b->base && a->moves == b->moves;
}

static void add(cu *c, const cu_access *a) {
  cu_pending *p = &c->pending;
  for (int i = 0; i < p->n; i++)
    if (same(&p->at[i], a)) return;
  NY_PUSH_ROOM(&c->arena, p->at, p->n, p->cap);
  p->at[p->n++] = *a;
}

static void place(cu *c, cu_access *a) {
  a->base = a->moves = NY_DIM_INVALID;
  if (!a->op) return;
  ny_dim off = a->op->attr[a->op->kind == NY_load ? NY_AT(load, off) : NY_AT(store, off)].d, base = off;
  for (uint32_t i = c->n_grid; i < c->n_limit && base != NY_DIM_INVALID; i++) base = ny_dim_subst(c->cx, base, c->limit[i].sym, 0);
  a->base = base;
  a->moves = base == NY_DIM_INVALID ? base : ny_dim_sub(c->cx, off, base);
  a->steady = a->moves != NY_DIM_INVALID && cu_divides(c, a->moves, a->lay->d[1].period);
}

static bool hazard(cu *c, const cu_access *a) {
  const cu_buffer *b = &c->buffer[a->buffer];
  for (int i = 0; i < c->pending.n; i++) {
    const cu_access *o = &c->pending.at[i];
    if (c->buffer[o->buffer].alias == b->alias && (o->store || a->store) && !cu_same_thread(c, o, a) && !cu_apart(c, o, a)) return true;
  }
  return false;
}

/* What happens at once: the barrier one of them needs comes before all of them. */
void cu_touch_all(cu *c, cu_access *a, int n) {
  bool wait = false;
  if (c->threads == 1) return;
  for (int i = 0; i < n; i++) {
    if (!c->buffer[a[i].buffer].written) continue;
    place(c, &a[i]);
    wait = wait || hazard(c, &a[i]);
  }
  if (wait) cu_barrier(c);
  for (int i = 0; i < n; i++)
    if (c->buffer[a[i].buffer].written) add(c, &a[i]);
}

void cu_touch(cu *c, const cu_access *access) {
  cu_access a = *access;
  cu_touch_all(c, &a, 1);
}

int cu_area(cu *c, const char *name, ny_fmt f, uint32_t bytes) {
  int i = cu_new_buffer(c, NULL, f, name);
  c->buffer[i].shared = c->buffer[i].written = true;
  c->buffer[i].offset = c->shared;
  c->shared += (bytes + 127) & ~127u;
  return i;
}

/* ---- loops */
static int64_t gcd(int64_t a, int64_t b) {
  while (b) {
    int64_t t = a % b;
    a = b, b = t;
  }
  return a < 0 ? -a : a;
}

void cu_bind(cu *c, const ny_op *op) {
  const ny_attr *a = op->attr;
  int64_t lo, hi, none, step = 0, first = 0;
  cu_range(c, a[NY_AT(for, lo)].d, &lo, &none);
  cu_range(c, a[NY_AT(for, hi)].d, &none, &hi);
  if (hi != INT64_MAX && hi != INT64_MIN) hi--;
  bool known = cu_const(c, a[NY_AT(for, step)].d, &step) && cu_const(c, a[NY_AT(for, lo)].d, &first);
  cu_push(c, a[NY_AT(for, var)].s, lo, hi, known ? gcd(step, first) : 1);
}

static void head(cu *c, const ny_op *op) {
  const ny_attr *a = op->attr;
  const char *v = cu_var(c, a[NY_AT(for, var)].s), *lo = cu_dim_text(c, a[NY_AT(for, lo)].d), *hi = cu_dim_text(c, a[NY_AT(for, hi)].d);
  int64_t step = 0, first, last, unroll = a[NY_AT(for, unroll)].i;
  bool known = cu_const(c, a[NY_AT(for, step)].d, &step) && cu_const(c, a[NY_AT(for, lo)].d, &first) && cu_const(c, a[NY_AT(for, hi)].d, &last);
  if (step < 1 && cu_const(c, a[NY_AT(for, step)].d, &step))
    cu_fail(c, op, NYB_E_VERIFY, "loop over ?%s has step %lld, not a positive number", a[NY_AT(for, var)].s, (long long)step);
  if (unroll > 1 && known && (last - first + step - 1) / step <= unroll)
    cu_line(c, "#pragma unroll");
  else
    cu_line(c, "#pragma unroll %lld", unroll > 1 ? (long long)(unroll > 64 ? 64 : unroll) : 1);
  cu_line(c, "for (ix %s = %s; %s < %s; %s += %s) {", v, lo, v, hi, v, cu_dim_text(c, a[NY_AT(for, step)].d));
}

static cu_pending copy(cu *c, const cu_pending *p) {
  cu_pending q = {NY_NEW_ARRAY(&c->arena, cu_access, p->n + 1), p->n, p->n + 1};
  if (p->n) memcpy(q.at, p->at, (size_t)p->n * sizeof *q.at);
  return q;
}

void cu_loop(cu *c, const ny_op *op) {
  head(c, op);
  uint32_t outer = c->n_limit;
  size_t text = c->body.n;
  for (cu_pending before = copy(c, &c->pending);; before = copy(c, &c->pending)) {
    c->body.n = text;
    c->pending = copy(c, &before);
    cu_bind(c, op);
    c->indent++;
    cu_block(c, op->body[0]);
    c->indent--;
    c->n_limit = outer;
    /* what held before the loop holds after it too: it may not run at all */
    for (int i = 0; i < before.n; i++) add(c, &before.at[i]);
    if (c->pending.n == before.n || c->failed) break;
  }
  cu_line(c, "}");
}
