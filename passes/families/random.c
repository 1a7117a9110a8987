/* random: Philox4x32-10 by element number, the same words and roundings as the evaluator (eval_gen.c defines them). All
   four words of a counter are made in every lane and one is taken, so no lane depends on another. Words live in u64
   lanes: a product of two needs 64 bits. */
#include <math.h>
#include <string.h>

#include "gpu.h"

typedef struct gen {
  uint64_t seed;
  bool wide, normal;
  ny_fmt f;
} gen;

static ny_value *op2(ny_emit *e, ny_kind k, ny_value *a, ny_value *b) { return ny_b_ew2(&e->b, k, a, b); }
static ny_value *number(ny_emit *e, uint64_t x) {
  return ny_emit_cast(e, ny_emit_int(e, ny_dim_const(e->cx, (int64_t)x)), NY_u64);
}
static ny_value *low(ny_emit *e, ny_value *v) { return op2(e, NY_and, v, number(e, UINT32_MAX)); }
static ny_value *high(ny_emit *e, ny_value *v) { return op2(e, NY_shr, v, number(e, 32)); }

/* Word j of the stream, for a u64 tile of j. */
static ny_value *word(ny_emit *e, const gen *g, ny_value *j) {
  ny_value *block = op2(e, NY_shr, j, number(e, 2)), *zero = number(e, 0);
  ny_value *c[4] = {low(e, block), high(e, block), zero, zero};
  uint32_t k0 = (uint32_t)g->seed, k1 = (uint32_t)(g->seed >> 32);
  for (int round = 0; round < 10; round++, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
    ny_value *p0 = op2(e, NY_mul, c[0], number(e, 0xd2511f53u)), *p1 = op2(e, NY_mul, c[2], number(e, 0xcd9e8d57u));
    ny_value *key0 = number(e, k0), *n0 = op2(e, NY_xor, op2(e, NY_xor, high(e, p1), c[1]), key0);
    ny_value *key1 = number(e, k1), *n2 = op2(e, NY_xor, op2(e, NY_xor, high(e, p0), c[3]), key1);
    c[0] = n0, c[1] = low(e, p1), c[2] = n2, c[3] = low(e, p0);
  }
  ny_value *which = op2(e, NY_and, j, number(e, 3)), *w = c[3];
  for (int i = 2; i >= 0; i--) w = ny_b_where(&e->b, op2(e, NY_eq, which, number(e, (uint64_t)i)), c[i], w);
  return w;
}

/* The random bits of element n (u64 tile) as f64, or as f32 where 24 bits are enough. */
static ny_value *bits(ny_emit *e, const gen *g, ny_value *n, ny_fmt as) {
  if (!g->wide) {
    ny_value *eight = number(e, 8);
    return ny_emit_cast(e, op2(e, NY_shr, word(e, g, n), eight), as);
  }
  ny_value *j = op2(e, NY_add, n, n), *second = word(e, g, op2(e, NY_add, j, number(e, 1))), *half = number(e, 32);
  ny_value *w = op2(e, NY_or, op2(e, NY_shl, word(e, g, j), half), second);
  return ny_emit_cast(e, op2(e, NY_shr, w, number(e, 11)), as);
}

static ny_value *scaled(ny_emit *e, const gen *g, ny_value *b) {
  return op2(e, NY_mul, b, ny_emit_num(e, (ny_fmt)b->type->fmt, ldexp(1, g->wide ? -53 : -24)));
}

static ny_value *uniform(ny_emit *e, const gen *g, ny_value *n) {
  ny_value *b = bits(e, g, n, g->wide ? NY_f64 : NY_f32);
  return b ? ny_emit_cast(e, scaled(e, g, b), g->f) : NULL;
}

static ny_value *normal(ny_emit *e, const gen *g, ny_value *n) {
  ny_value *one = number(e, 1), *odd = op2(e, NY_eq, op2(e, NY_and, n, one), one);
  ny_value *first = op2(e, NY_sub, n, op2(e, NY_and, n, one));
  ny_value *a = bits(e, g, first, NY_f64), *b = bits(e, g, op2(e, NY_or, n, one), NY_f64);
  if (!a || !b) return NULL;
  ny_value *u = scaled(e, g, op2(e, NY_add, a, ny_emit_num(e, NY_f64, 1)));
  ny_value *circle = ny_emit_num(e, NY_f64, 6.283185307179586476925286766559), *v = op2(e, NY_mul, scaled(e, g, b), circle);
  ny_value *minus2 = ny_emit_num(e, NY_f64, -2), *r = ny_b_ew1(&e->b, NY_sqrt, op2(e, NY_mul, ny_b_ew1(&e->b, NY_log, u), minus2));
  ny_value *cosine = ny_b_ew1(&e->b, NY_cos, v), *turn = ny_b_where(&e->b, odd, ny_b_ew1(&e->b, NY_sin, v), cosine);
  return ny_emit_cast(e, op2(e, NY_mul, r, turn), g->f);
}

typedef struct part {
  const gen *g;
  ny_dim first;
} part;

static void columns(ny_emit *e, void *user, ny_dim lo) {
  const part *p = user;
  ny_coord at = ny_at_col(ny_dim_add(e->cx, p->first, lo));
  ny_value *n = ny_emit_cast(e, ny_emit_index(e, at), NY_u64);
  ny_emit_store(e, ny_kernel_out(e, 0), at, p->g->normal ? normal(e, p->g, n) : uniform(e, p->g, n), NULL);
}

nyb_status ny_lower_random(ny_pass_cx *px, ny_op *group, ny_graph *k) {
  enum { BLOCK = 256 };
  ny_op *op = ny_group_find(group, NY_random);
  ny_emit e;
  if (!op || ny_group_yield(group)->n_in != 1 || ny_in(ny_group_yield(group), 0) != op->out[0])
    return NYB_E_UNSUPPORTED;
  gen g = {.seed = (uint64_t)op->attr[NY_AT(random, seed)].i, .f = (ny_fmt)op->out[0]->type->fmt};
  g.wide = g.f == NY_f64;
  g.normal = !strcmp(op->attr[NY_AT(random, dist)].s, "normal");
  ny_emit_begin(&e, px, group, k, &px->scratch);
  ny_dim n = ny_type_count(e.cx, op->out[0]->type);
  if (ny_on_gpu(px->target)) {
    part all = {&g, 0};
    ny_gpu_columns(&e, n, ny_fmts[g.f].bits < 8 ? 32 / ny_fmts[g.f].bits : 1, columns, &all);
    return ny_emit_finish(&e);
  }
  ny_dim first = ny_dim_mul(e.cx, ny_emit_grid(&e, ny_dim_ceildiv(e.cx, n, BLOCK)), BLOCK);
  part p = {&g, first};
  ny_emit_columns(&e, ny_dim_min(e.cx, ny_dim_sub(e.cx, n, first), BLOCK), ny_vec_lanes(px, NY_u64), columns, &p);
  ny_emit_grain(&e, BLOCK * 40);
  return ny_emit_finish(&e);
}
