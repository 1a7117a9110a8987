/* Small facts families share: number formats of sums, identities, vector lengths, grains, what a group holds. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "emit.h"

ny_op *ny_group_find(const ny_op *group, ny_kind k) {
  for (ny_op *op = group->body[0]->first; op; op = op->next)
    if (op->kind == k) return op;
  return NULL;
}

bool ny_reduced_dims(const ny_ctx *cx, const ny_op *reduce, bool gone[NY_MAX_RANK]) {
  const ny_attr *axes = &reduce->attr[NY_AT(reduce, axes)];
  int rank = ny_in(reduce, 0)->type->rank;
  for (int i = 0; i < NY_MAX_RANK; i++) gone[i] = false;
  for (uint32_t i = 0; i < axes->dims.n; i++) {
    int64_t a;
    if (!ny_dim_is_const(cx, axes->dims.v[i], &a) || a < -rank || a >= rank) return false;
    gone[ny_axis(a, rank)] = true;
  }
  return true;
}

ny_fmt ny_sum_fmt(ny_fmt f) {
  const ny_fmt_info *i = &ny_fmts[f];
  if (i->bits >= 32) return f;
  return i->kind == 'F' ? NY_f32 : i->kind == 'U' ? NY_u32 : NY_i32;
}

ny_kind ny_reduce_kind(const char *op) {
  static const struct {
    const char *name;
    ny_kind kind;
  } rows[] = {{"sum", NY_add}, {"prod", NY_mul}, {"max", NY_max}, {"min", NY_min}};
  for (size_t i = 0; i < NY_COUNT(rows); i++)
    if (!strcmp(op, rows[i].name)) return rows[i].kind;
  return NY_add;
}

double ny_reduce_identity(const char *op, ny_fmt f) {
  if (!strcmp(op, "sum")) return 0;
  if (!strcmp(op, "prod")) return 1;
  double sign = strcmp(op, "max") == 0 ? -1 : 1;
  const ny_fmt_info *i = &ny_fmts[f];
  if (i->kind == 'F') return sign * INFINITY;
  if (i->kind == 'U') return sign > 0 ? ldexp(1, i->bits) - (i->bits > 52 ? 2048 : 1) : 0;
  return sign > 0 ? ldexp(1, i->bits - 1) - (i->bits > 52 ? 1024 : 1) : -ldexp(1, i->bits - 1);
}

int ny_vec_lanes(const ny_pass_cx *px, ny_fmt f) {
  int bytes = px->target ? px->target->vec_bytes : 16, bits = ny_fmts[f].bits;
  int n = bits ? bytes * 8 / bits : 1;
  return n < 1 ? 1 : n;
}

void ny_emit_grain(ny_emit *e, int64_t ops_per_point) {
  enum { WORTH = 24000 };
  int64_t n = ops_per_point > 0 ? (WORTH + ops_per_point - 1) / ops_per_point : WORTH;
  ny_knob_set(e->k, "grain", n);
}

/* Only elementwise ops of the full shape lead from the input to the output, so that element i is read just before it is
   overwritten. What the input reaches is collected in the order of the body: a walk along the uses would visit a value
   once for every path to it. */
static bool only_same_element(ny_emit *e, const ny_value *v, const ny_value *result) {
  const ny_value **reached = NULL;
  size_t n = 0, cap = 0;
  NY_PUSH_ROOM(e->a, reached, n, cap);
  reached[n++] = v;
  for (const ny_op *op = e->group->body[0]->first; op && op->kind != NY_yield; op = op->next) {
    bool reads = false;
    for (int i = 0; i < op->n_in; i++)
      for (size_t k = 0; k < n && !reads; k++) reads = reached[k] == ny_in(op, i);
    if (!reads) continue;
    if (!(ny_kinds[op->kind].flags & NY_MAP) && op->kind != NY_cast && op->kind != NY_bitcast) return false;
    const ny_type *t = op->out[0]->type;
    if (t->rank != result->type->rank || memcmp(t->dim, result->type->dim, sizeof t->dim[0] * t->rank) != 0)
      return false;
    NY_PUSH_ROOM(e->a, reached, n, cap);
    reached[n++] = op->out[0];
  }
  return true;
}

void ny_emit_inplace(ny_emit *e) {
  const ny_op *yield = ny_group_yield(e->group);
  if (yield->n_in != 1) return;
  const ny_value *result = ny_in(yield, 0);
  ny_block *body = e->group->body[0];
  for (uint32_t i = 0; i < body->n_arg; i++) {
    if (body->arg[i]->type != result->type || !only_same_element(e, body->arg[i], result)) continue;
    ny_knob_set(e->k, "inplace", i);
    return;
  }
}
