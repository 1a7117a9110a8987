/* Types, interned per context: two types are equal when their pointers are. */
#include <string.h>

#include "ir.h"

static uint64_t hash_type(const ny_type *t) {
  uint64_t h = (uint64_t)t->fmt | (uint64_t)t->rank << 8 | (uint64_t)t->space << 16;
  for (int i = 0; i < t->rank; i++) {
    h = (h ^ (uint64_t)t->dim[i]) * 0x9e3779b97f4a7c15u;
    h ^= h >> 31;
  }
  return h;
}

static bool same_type(const ny_type *x, const ny_type *y) {
  return x->fmt == y->fmt && x->rank == y->rank && x->space == y->space &&
         !memcmp(x->dim, y->dim, sizeof *x->dim * x->rank);
}

static void grow_slots(ny_ctx *cx) {
  uint32_t cap = cx->cap_type_slots ? cx->cap_type_slots * 2 : 128;
  cx->type_slots = NY_NEW_ARRAY(&cx->arena, uint32_t, cap);
  cx->cap_type_slots = cap;
  for (uint32_t i = 0; i < cx->n_types; i++) {
    uint64_t s = hash_type(cx->types[i]) & (cap - 1);
    while (cx->type_slots[s]) s = (s + 1) & (cap - 1);
    cx->type_slots[s] = i + 1;
  }
}

const ny_type *ny_type_get(ny_ctx *cx, ny_type t) {
  for (int i = t.rank; i < NY_MAX_RANK; i++) t.dim[i] = 0;
  if (cx->n_types * 2 >= cx->cap_type_slots) grow_slots(cx);
  uint64_t mask = cx->cap_type_slots - 1, s = hash_type(&t) & mask;
  for (; cx->type_slots[s]; s = (s + 1) & mask)
    if (same_type(cx->types[cx->type_slots[s] - 1], &t)) return cx->types[cx->type_slots[s] - 1];
  ny_type *copy = NY_NEW(&cx->arena, ny_type);
  *copy = t;
  NY_PUSH_ROOM(&cx->arena, cx->types, cx->n_types, cx->cap_types);
  cx->types[cx->n_types++] = copy;
  cx->type_slots[s] = cx->n_types;
  return copy;
}

const ny_type *ny_tensor_type(ny_ctx *cx, ny_fmt fmt, int rank, const ny_dim *dims) {
  ny_type t = {.fmt = (uint8_t)fmt, .rank = (uint8_t)rank, .space = NY_VALUE};
  for (int i = 0; i < rank; i++) t.dim[i] = dims[i];
  return ny_type_get(cx, t);
}

const ny_type *ny_type_with_fmt(ny_ctx *cx, const ny_type *t, ny_fmt fmt) {
  ny_type n = *t;
  n.fmt = (uint8_t)fmt;
  return ny_type_get(cx, n);
}

ny_dim ny_type_count(ny_ctx *cx, const ny_type *t) {
  ny_dim n = 1;
  for (int i = 0; i < t->rank; i++) n = ny_dim_mul(cx, n, t->dim[i]);
  return n;
}

ny_dim ny_type_bytes(ny_ctx *cx, const ny_type *t) {
  const ny_fmt_info *f = &ny_fmts[t->fmt];
  ny_dim n = ny_type_count(cx, t);
  int64_t v;
  if (ny_dim_is_const(cx, n, &v)) {
    uint64_t bytes = v < 0 ? UINT64_MAX : ny_fmt_bytes((ny_fmt)t->fmt, (uint64_t)v);
    return bytes > INT64_MAX ? NY_DIM_INVALID : (ny_dim)bytes;
  }
  return f->bits % 8 ? ny_dim_ceildiv(cx, ny_dim_mul(cx, n, f->bits), 8) : ny_dim_mul(cx, n, f->bits / 8);
}

bool ny_type_static_count(const ny_ctx *cx, const ny_type *t, int64_t *out) {
  int64_t n = 1, d;
  for (int i = 0; i < t->rank; i++)
    if (!ny_dim_is_const(cx, t->dim[i], &d) || __builtin_mul_overflow(n, d, &n)) return false;
  *out = n;
  return true;
}

void ny_type_print(const ny_ctx *cx, const ny_type *t, ny_text *out) {
  static const char *const spaces[] = {[NY_VALUE] = "", [NY_GLOBAL] = "@global", [NY_SHARED] = "@shared"};
  ny_text_addf(out, "%s[", ny_fmts[t->fmt].name);
  for (int i = 0; i < t->rank; i++) {
    if (i) ny_text_add(out, ",");
    ny_dim_print(cx, t->dim[i], out);
  }
  ny_text_add(out, "]");
  ny_text_add(out, spaces[t->space]);
}

bool ny_broadcast_shape(ny_ctx *cx, const ny_type *a, const ny_type *b, int *rank, ny_dim out[NY_MAX_RANK]) {
  *rank = a->rank > b->rank ? a->rank : b->rank;
  for (int i = 0; i < *rank; i++) {
    int ia = i - (*rank - a->rank), ib = i - (*rank - b->rank);
    ny_dim x = ia < 0 ? 1 : a->dim[ia], y = ib < 0 ? 1 : b->dim[ib];
    bool known_x = ny_dim_is_const(cx, x, NULL), known_y = ny_dim_is_const(cx, y, NULL);
    if (x == y || y == 1)
      out[i] = x;
    else if (x == 1)
      out[i] = y;
    else if (known_x != known_y) {
      out[i] = known_x ? x : y; /* the other is 1 or the same; evaluation checks */
      if (cx->assumed) cx->assumed(cx->assumed_user, x, y);
    } else
      return false;
  }
  return true;
}
