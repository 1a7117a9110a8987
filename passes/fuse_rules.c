/* Which op may join which cluster. */
#include <string.h>

#include "family.h"
#include "fuse.h"

int ny_op_cost(const ny_op *op) {
  static const uint8_t heavy[NY_N_SCALARS] = {
      [NY_S_div] = 4,         [NY_S_rem] = 8,  [NY_S_sqrt] = 4,  [NY_S_exp] = 10,  [NY_S_log] = 12,  [NY_S_log1p] = 14,
      [NY_S_sin] = 20,        [NY_S_cos] = 20, [NY_S_asin] = 20, [NY_S_acos] = 20, [NY_S_atan] = 20, [NY_S_tanh] = 14,
      [NY_S_sinh_small] = 10, [NY_S_erf] = 20, [NY_S_erfc] = 24, [NY_S_pow] = 30,
  };
  if (op->kind == NY_cast) return 1;
  if (op->kind == NY_dequantize) return op->n_in;
  if (!ny_is_map(op)) return 0;
  const ny_expr *e = ny_expr_of((ny_kind)op->kind);
  int cost = 0;
  for (int i = 0; i < e->n; i++) {
    int s = e->node[i].op;
    if (s == NY_S_param || s == NY_S_attr || s == NY_S_num) continue;
    cost += heavy[s] ? heavy[s] : 1;
  }
  return cost;
}

bool ny_is_expression(const ny_op *op) {
  static const bool yes[NY_N_KINDS] = {
      [NY_cast] = true,      [NY_bitcast] = true,         [NY_reshape] = true,
      [NY_transpose] = true, [NY_broadcast] = true,       [NY_slice] = true,
      [NY_pad] = true,       [NY_concat] = true,          [NY_gather] = true,
      [NY_gather_nd] = true, [NY_gather_elements] = true, [NY_dims] = true,
      [NY_iota] = true,      [NY_dequantize] = true,
  };
  return ny_is_map(op) || yes[op->kind];
}

static const ny_type *space_of(const ny_cluster *c) { return c->seed->out[0]->type; }

bool ny_accept_epilogue(const ny_fuse *f, const ny_cluster *c, const ny_op *op) {
  (void)f;
  if (op->n_out != 1) return false;
  if (op->kind == NY_transpose)
    return c->seed->kind == NY_attention && ny_in(op, 0)->def && ny_fuse_has(f, c, ny_in(op, 0)->def);
  return ny_is_ew(op) && ny_same_shape(op->out[0]->type, space_of(c));
}

/* A frame of zeros that a depthwise convolution on a GPU may check for itself: its coordinates are single numbers there. */
static bool checks_frame(const ny_fuse *f, const ny_cluster *c, const ny_op *op) {
  const ny_op *seed = c->seed;
  const ny_attr *gap = &op->attr[NY_AT(pad, interior)];
  if (!ny_on_gpu(f->px->target) || seed->kind != NY_conv || ny_in(seed, 0) != op->out[0] || !ny_depthwise_takes(seed)) return false;
  for (uint32_t i = 0; i < gap->dims.n; i++)
    if (gap->dims.v[i]) return false;
  return op->n_in == 1 && !strcmp(op->attr[NY_AT(pad, mode)].s, "constant");
}

/* Serves the queries of an attention alone: they are read once a block. */
static bool leads_to_queries(const ny_cluster *c, const ny_op *op) {
  for (const ny_value *v = op->out[0]; ny_one_use(v);) {
    const ny_op *user = v->uses->user;
    if (user == c->seed) return v->uses == &user->in[0];
    if (user->n_out != 1 || user->n_in != 1) return false;
    v = user->out[0];
  }
  return false;
}

static bool attention_reads(const ny_cluster *c, const ny_op *op) {
  if (op->kind == NY_slice || op->kind == NY_reshape || op->kind == NY_broadcast) return true;
  return ny_is_ew(op) && op->n_in == 2 && ny_op_cost(op) <= 2 && (ny_is_uniform(ny_in(op, 0)) || ny_is_uniform(ny_in(op, 1))) && leads_to_queries(c, op);
}

/* Codes that become the weights of a contraction: they are decoded as they are read, also through the views that say how
   they are packed. Where tensor cores multiply codes, both operands. */
static bool leads_to_weights(const ny_fuse *f, const ny_cluster *c, const ny_op *op) {
  bool view = (ny_kinds[op->kind].flags & NY_VIEW) != 0;
  for (const ny_use *u = op->out[0]->uses; u && ny_one_use(u->val); u = u->user->out[0]->uses) {
    if (u->user == c->seed) return !view && (u == &c->seed->in[1] || ny_scaled_takes(f->px->target, c->seed));
    if (u->user->kind == NY_dequantize) return view || u == &u->user->in[1];
    if (!view || !(ny_kinds[u->user->kind].flags & NY_VIEW)) return false;
  }
  return false;
}

/* Attention turns its operands round anyway, and an unpacked matmul copies a right operand whose columns are not
   adjacent. On a GPU attention reads parts of a larger tensor, and heads that several queries share, where they lie. */
bool ny_accept_operand(const ny_fuse *f, const ny_cluster *c, const ny_op *op) {
  if (op->kind == NY_pad) return checks_frame(f, c, op);
  if (op->kind == NY_dequantize) return leads_to_weights(f, c, op);
  if ((ny_kinds[op->kind].flags & NY_VIEW) && ny_is_constant(op->out[0]) && leads_to_weights(f, c, op)) return true;
  bool attends = c->seed->kind == NY_attention;
  if (attends && ny_on_gpu(f->px->target) && attention_reads(c, op)) return true;
  if (op->kind != NY_transpose) return false;
  return attends || (c->seed->kind == NY_matmul && !c->seed->attr[NY_AT(matmul, packed)].i);
}

/* The first reduced dim where all from there on are reduced, or -1. */
static int lowest_axis(const ny_ctx *cx, const ny_op *reduce) {
  bool gone[NY_MAX_RANK];
  int rank = ny_in(reduce, 0)->type->rank, low = 0;
  if (!ny_reduced_dims(cx, reduce, gone)) return -1;
  while (low < rank && !gone[low]) low++;
  for (int i = low; i < rank; i++)
    if (!gone[i]) return -1;
  return low < rank ? low : -1;
}

bool ny_row_axes(const ny_ctx *cx, const ny_op *reduce) { return lowest_axis(cx, reduce) >= 0; }

/* The rows' own shape (the reduced dims 1) or the full one. */
static bool row_or_full(const ny_type *t, const ny_type *full, int axis) {
  if (t->rank != full->rank) return false;
  bool is_full = true, is_row = true;
  for (int i = 0; i < t->rank; i++) {
    is_full = is_full && t->dim[i] == full->dim[i];
    is_row = is_row && t->dim[i] == (i < axis ? full->dim[i] : 1);
  }
  return is_full || is_row;
}

static bool dropped_row(const ny_type *t, const ny_type *full, int axis) {
  if (t->rank != axis) return false;
  for (int i = 0; i < axis; i++)
    if (t->dim[i] != full->dim[i]) return false;
  return true;
}

bool ny_accept_row(const ny_fuse *f, const ny_cluster *c, const ny_op *op) {
  if (op->n_out != 1) return false;
  const ny_type *full = ny_in(c->seed, 0)->type, *t = op->out[0]->type;
  int axis = lowest_axis(f->g->cx, c->seed);
  if (op->kind == NY_reduce) return lowest_axis(f->g->cx, op) == axis && ny_same_shape(ny_in(op, 0)->type, full);
  if (op->kind == NY_broadcast) return ny_same_shape(t, full);
  if (op->kind == NY_reshape)
    return row_or_full(t, full, axis) && !ny_same_shape(t, full) && dropped_row(ny_in(op, 0)->type, full, axis);
  return ny_is_ew(op) && (row_or_full(t, full, axis) || dropped_row(t, full, axis));
}

bool ny_accept_row_input(const ny_fuse *f, const ny_cluster *c, const ny_op *op) {
  (void)f;
  const ny_type *full = ny_in(c->seed, 0)->type;
  if (op->n_out != 1) return false;
  if (ny_same_shape(op->out[0]->type, full)) return ny_is_ew(op);
  return ny_is_ew(op) && ny_op_cost(op) <= 2;
}

/* Elements of the result for each one of the operand: more than 1 means computing it again and again. */
static bool expands(const ny_fuse *f, const ny_cluster *c, const ny_op *op) {
  ny_dim n = ny_type_count(f->g->cx, op->out[0]->type);
  for (const ny_use *u = op->out[0]->uses; u; u = u->next) {
    if (!ny_fuse_has(f, c, u->user)) continue;
    ny_dim m = ny_type_count(f->g->cx, u->user->out[0]->type);
    int64_t lo, hi;
    ny_dim_bounds(f->g->cx, ny_dim_sub(f->g->cx, n, m), &lo, &hi);
    if (n != m && lo < 0) return true;
  }
  return false;
}

static bool tiny(const ny_fuse *f, const ny_op *op) {
  int64_t n;
  return ny_type_static_count(f->g->cx, op->out[0]->type, &n) && n <= 64;
}

static int cost_above(const ny_fuse *f, const ny_cluster *c) {
  int cost = 0;
  (void)f;
  for (size_t i = 0; i < c->n; i++) cost += ny_op_cost(c->member[i]);
  return cost;
}

bool ny_accept_map(const ny_fuse *f, const ny_cluster *c, const ny_op *op) {
  if (!ny_is_expression(op) || op->n_out != 1 || op->kind == NY_reshape) return false;
  if (tiny(f, op)) return true;
  if (op->kind == NY_concat)
    return false; /* the pieces are stored one by one; inside an expression every piece would be computed everywhere */
  if (c->seed->kind == NY_concat && op->kind == NY_pad) return false;
  if (ny_op_cost(op) > 2 && expands(f, c, op)) return false;
  return cost_above(f, c) + ny_op_cost(op) < 400;
}

static bool cheap(const ny_fuse *f, const ny_op *op) {
  return op->kind == NY_broadcast || op->kind == NY_slice || op->kind == NY_cast || tiny(f, op);
}

void ny_fuse_cheap(ny_fuse *f, ny_cluster *c) {
  size_t n = c->n;
  for (size_t i = 0; i < n; i++)
    for (int j = 0; j < c->member[i]->n_in; j++) {
      ny_op *p = ny_in(c->member[i], j)->def;
      if (!p || !ny_fuse_free(f, p) || p->n_body || ny_travels(p->out[0]) || !ny_is_expression(p) ||
          p->kind == NY_reshape)
        continue;
      if (p->n_in > 2 || p->kind == NY_concat || !cheap(f, p)) continue;
      bool have = false;
      for (size_t k = 0; k < c->n_clone; k++) have |= c->clone[k] == p;
      if (have || c->n_clone >= 16) continue;
      NY_PUSH_ROOM(&f->px->scratch, c->clone, c->n_clone, c->cap_clone);
      c->clone[c->n_clone++] = p;
    }
}
