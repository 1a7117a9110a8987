/* Instructions over the lanes of a warp: shuffles, votes, matches, reductions. Each lane names the lanes that take
   part; the path waits until all of those are here, and lanes with the same mask act together. None but bar.warp.sync
   promises anything about memory, so none else is an edge for the race check. */
#include "lanes.h"

typedef struct ny_groups {
  uint32_t n, mask[NY_LANES];
} ny_groups;

/* Lanes of mask by what operand k says; false: the path waits, nothing must be done. */
static bool groups(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask, int k, ny_groups *g) {
  const uint32_t *member = NY_U32(k);
  uint32_t want[NY_LANES];
  g->n = 0;
  for (uint32_t left = mask; left;) {
    uint32_t m = member[__builtin_ctz(left)], same = 0;
    for (uint32_t rest = left; rest; rest &= rest - 1) {
      uint32_t l = (uint32_t)__builtin_ctz(rest);
      same |= member[l] == m ? 1u << l : 0;
    }
    want[g->n] = m;
    g->mask[g->n++] = same;
    left &= ~same;
  }
  for (uint32_t n = 0; n < g->n; n++)
    if (want[n] & w->live & ~g->mask[n] && !ny_converged(w, i, mask, want[n] | mask)) return false;
  for (uint32_t n = 0; n < g->n; n++) {
    if (g->mask[n] & ~want[n])
      ny_find(w, i, (uint32_t)__builtin_ctz(g->mask[n] & ~want[n]), NY_FIND_invalid, want[n], 0,
              "a thread that runs this instruction is not in its mask 0x%08x", want[n]);
  }
  return true;
}

/* ---- shfl d|p, a, b, c, members; sub: up down bfly idx */
static uint32_t shuffle_from(int mode, uint32_t lane, uint32_t b, uint32_t c, bool *in) {
  uint32_t seg = c >> 8 & 31, low = lane & seg, high = low | (c & 31 & ~seg);
  b &= 31;
  int32_t j = mode == 0   ? (int32_t)lane - (int32_t)b
              : mode == 1 ? (int32_t)(lane + b)
              : mode == 2 ? (int32_t)(lane ^ b)
                          : (int32_t)(low | (b & ~seg));
  *in = mode == 0 ? j >= (int32_t)high : j <= (int32_t)high;
  return *in ? (uint32_t)j : lane;
}
static void shuffle(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const uint32_t *a = NY_U32(2), *b = NY_U32(3), *c = NY_U32(4);
  uint32_t v[NY_LANES], p = 0;
  for (uint32_t l = 0; l < NY_LANES; l++) {
    bool in;
    v[l] = a[shuffle_from(i->sub, l, b[l], c[l], &in) & 31];
    p |= in ? 1u << l : 0;
  }
  NY_MAP(uint32_t, NY_U32(0), v[l]);
  if (i->arg[1].kind == NY_ARG_PRED) ny_set_pred(w, &i->arg[1], mask, p);
}
static void shfl_sync(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  ny_groups g;
  if (groups(w, i, mask, 5, &g)) shuffle(w, i, mask);
}

/* ---- vote p, a, members; sub: all any uni ballot */
static void vote(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  uint32_t p = ny_pred(w, &i->arg[1]) & mask;
  if (i->sub == 3) {
    NY_MAP(uint32_t, NY_U32(0), p);
    return;
  }
  bool yes = i->sub == 0 ? p == mask : i->sub == 1 ? p != 0 : p == mask || p == 0;
  ny_set_pred(w, &i->arg[0], mask, yes ? NY_ALL_LANES : 0);
}
static void vote_sync(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  ny_groups g;
  if (!groups(w, i, mask, 2, &g)) return;
  for (uint32_t n = 0; n < g.n; n++) vote(w, i, g.mask[n]);
}

/* ---- match d|p, a, members */
static uint64_t value(const ny_sim_warp *w, const ny_ptx_arg *a, uint32_t l) {
  return a->width == 8 ? ((const uint64_t *)ny_lanes(w, a))[l] : ((const uint32_t *)ny_lanes(w, a))[l];
}
static uint32_t equal_to(const ny_sim_warp *w, const ny_ptx_arg *a, uint32_t mask, uint64_t v) {
  uint32_t same = 0;
  NY_EACH_ACTIVE(l) same |= value(w, a, l) == v ? 1u << l : 0;
  return same;
}
static void match_any(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  ny_groups g;
  if (!groups(w, i, mask, 2, &g)) return;
  uint32_t v[NY_LANES] = {0};
  for (uint32_t n = 0; n < g.n; n++)
    for (uint32_t l = 0; l < NY_LANES; l++)
      if (g.mask[n] >> l & 1) v[l] = equal_to(w, &i->arg[1], g.mask[n], value(w, &i->arg[1], l));
  NY_MAP(uint32_t, NY_U32(0), v[l]);
}
static void match_all(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  ny_groups g;
  if (!groups(w, i, mask, 3, &g)) return;
  for (uint32_t n = 0; n < g.n; n++) {
    mask = g.mask[n];
    uint32_t same = equal_to(w, &i->arg[2], mask, value(w, &i->arg[2], (uint32_t)__builtin_ctz(mask)));
    uint32_t v = same == mask ? mask : 0;
    NY_MAP(uint32_t, NY_U32(0), v);
    if (i->arg[1].kind == NY_ARG_PRED) ny_set_pred(w, &i->arg[1], mask, v ? NY_ALL_LANES : 0);
  }
}

/* ---- redux d, a, members */
enum { ADD_U, MIN_U, MAX_U, ADD_S, MIN_S, MAX_S, AND, OR, XOR };
static uint32_t combine(int op, uint32_t a, uint32_t b) {
  switch (op) {
  case MIN_U: return a < b ? a : b;
  case MAX_U: return a > b ? a : b;
  case MIN_S: return (int32_t)a < (int32_t)b ? a : b;
  case MAX_S: return (int32_t)a > (int32_t)b ? a : b;
  case AND: return a & b;
  case OR: return a | b;
  case XOR: return a ^ b;
  default: return a + b;
  }
}
static void redux(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  ny_groups g;
  if (!groups(w, i, mask, 2, &g)) return;
  const uint32_t *a = NY_U32(1);
  for (uint32_t n = 0; n < g.n; n++) {
    uint32_t first = (uint32_t)__builtin_ctz(g.mask[n]), v = a[first];
    mask = g.mask[n] & ~(1u << first);
    NY_EACH_ACTIVE(l) v = combine((int)i->data, v, a[l]);
    mask = g.mask[n];
    NY_MAP(uint32_t, NY_U32(0), v);
  }
}
/* opt: abs, NaN; sub: min max of f32 */
static void redux_f32(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  ny_groups g;
  if (!groups(w, i, mask, 2, &g)) return;
  const float *a = NY_F32(1);
  for (uint32_t n = 0; n < g.n; n++) {
    mask = g.mask[n];
    bool some = false, nan = false;
    float v = 0;
    NY_EACH_ACTIVE(l) {
      float x = i->opt[0] ? fabsf(a[l]) : a[l];
      if (x != x) {
        nan = true;
        continue;
      }
      bool less = x < v || (x == v && signbit(x));
      if (!some || (i->sub ? !less : less)) v = x;
      some = true;
    }
    uint32_t bits = 0x7fffffff;
    if (some && !(nan && i->opt[1])) memcpy(&bits, &v, sizeof bits);
    NY_MAP(uint32_t, NY_U32(0), bits);
  }
}
static bool fix_redux_u(ny_ptx_decoder *dc, ny_ptx_ins *i) { return (void)dc, i->data = ADD_U + i->sub, true; }
static bool fix_redux_s(ny_ptx_decoder *dc, ny_ptx_ins *i) { return (void)dc, i->data = ADD_S + i->sub, true; }
static bool fix_redux_b(ny_ptx_decoder *dc, ny_ptx_ins *i) { return (void)dc, i->data = AND + i->sub, true; }

/* ---- who is here */
static void activemask(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) { NY_MAP(uint32_t, NY_U32(0), mask); }
static void elect(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) { /* d|p, members: the lowest lane */
  ny_groups g;
  if (!groups(w, i, mask, 2, &g)) return;
  for (uint32_t n = 0; n < g.n; n++) {
    mask = g.mask[n];
    uint32_t leader = (uint32_t)__builtin_ctz(mask);
    NY_MAP(uint32_t, NY_U32(0), leader);
    ny_set_pred(w, &i->arg[1], mask, 1u << leader);
  }
}
static void bar_warp(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  ny_groups g;
  if (!groups(w, i, mask, 0, &g)) return;
  for (uint32_t n = 0; n < g.n; n++) ny_shadow_warp_sync(w, g.mask[n]);
}

#define S NY_CLS_shuffle
const ny_ptx_row ny_rows_collective[] = {
    {"shfl.sync.[up down bfly idx].b32", "B |P? b b b b", S, NULL, {shfl_sync, shfl_sync, shfl_sync, shfl_sync}},
    {"shfl.[up down bfly idx].b32", "B |P? b b b", S, NULL, {shuffle, shuffle, shuffle, shuffle}},
    {"vote.sync.[all any uni].pred", "P p b", S, NULL, {vote_sync, vote_sync, vote_sync}},
    {"vote.sync.[- - - ballot].b32", "B p b", S, NULL, {NULL, NULL, NULL, vote_sync}},
    {"vote.[all any uni].pred", "P p", S, NULL, {vote, vote, vote}},
    {"vote.[- - - ballot].b32", "B p", S, NULL, {NULL, NULL, NULL, vote}},
    {"match.any.sync.[b32 b64]", "B t b", S, NULL, {match_any, match_any}},
    {"match.all.sync.[b32 b64]", "B |P? t b", S, NULL, {match_all, match_all}},
    {"redux.sync.[add min max].u32", "B b b", S, fix_redux_u, {redux, redux, redux}},
    {"redux.sync.[add min max].s32", "B b b", S, fix_redux_s, {redux, redux, redux}},
    {"redux.sync.[and or xor].b32", "B b b", S, fix_redux_b, {redux, redux, redux}},
    {"redux.sync.[min max].(abs)?.(NaN)?.f32", "F f b", S, NULL, {redux_f32, redux_f32}},
    {"activemask.b32", "B", S, NULL, {activemask}},
    {"elect.sync", "B |P b", S, NULL, {elect}},
    {"bar.warp.sync", "b", NY_CLS_sync, NULL, {bar_warp}},
};
const size_t ny_n_rows_collective = NY_COUNT(ny_rows_collective);
