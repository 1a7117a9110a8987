/* Dimension expressions as i64 arithmetic. A sum is added up from the terms of the outermost loops inwards, so that
   loop-invariant code motion lifts every partial sum out of the loops it does not depend on. Divisions round down;
   where the operands are provably not negative they are plain unsigned divisions. A small interval analysis proves
   signs and limits. */
#include "llvm.h"

#include <string.h>

enum { MAX_TERMS = 96 };

void ny_low_var(ny_low *l, ny_name name, val v, int64_t lo, int64_t hi, int depth) {
  NY_PUSH_ROOM(&l->arena, l->var, l->n_var, l->cap_var);
  l->var[l->n_var++] = (ny_lvar){name, v, lo, hi, depth, 0};
}

static const ny_lvar *find(const ny_low *l, ny_name name) {
  for (uint32_t i = l->n_var; i-- > 0;)
    if (l->var[i].name == name) return &l->var[i];
  return NULL;
}

int ny_low_depth(const ny_low *l, ny_dim d) {
  if (d >= 0) return 0;
  const ny_dim_node *n = ny_dim_get(l->cx, d);
  if (n->kind == NY_DIM_CONST) return 0;
  if (n->kind == NY_DIM_SYM) {
    const ny_lvar *v = find(l, n->name);
    return v ? v->depth : 0;
  }
  int a = ny_low_depth(l, n->a), b = ny_low_depth(l, n->b);
  return a > b ? a : b;
}

/* ---- intervals */
typedef struct span {
  int64_t lo, hi;
} span;
static const span unknown = {INT64_MIN, INT64_MAX};

static int64_t sum(int64_t a, int64_t b, int64_t none) {
  int64_t r;
  return a == none || b == none || __builtin_add_overflow(a, b, &r) ? none : r;
}

static span span_mul(span a, span b) {
  int64_t p[4];
  if (a.lo == INT64_MIN || b.lo == INT64_MIN) return unknown;
  if (a.lo >= 0 && b.lo >= 0) { /* an unknown upper end leaves the lower one */
    if (__builtin_mul_overflow(a.lo, b.lo, &p[0])) return unknown;
    bool open = a.hi == INT64_MAX || b.hi == INT64_MAX || __builtin_mul_overflow(a.hi, b.hi, &p[1]);
    return (span){p[0], open ? INT64_MAX : p[1]};
  }
  if (a.hi == INT64_MAX || b.hi == INT64_MAX) {
    /* only one sign of the open side matters: a constant factor flips or keeps it */
    if (a.lo == a.hi && a.lo < 0 && b.lo >= 0 && !__builtin_mul_overflow(a.lo, b.lo, &p[0]))
      return (span){INT64_MIN, p[0]};
    if (b.lo == b.hi && b.lo < 0 && a.lo >= 0 && !__builtin_mul_overflow(a.lo, b.lo, &p[0]))
      return (span){INT64_MIN, p[0]};
    return unknown;
  }
  if (__builtin_mul_overflow(a.lo, b.lo, &p[0]) || __builtin_mul_overflow(a.lo, b.hi, &p[1]) ||
      __builtin_mul_overflow(a.hi, b.lo, &p[2]) || __builtin_mul_overflow(a.hi, b.hi, &p[3]))
    return unknown;
  span r = {p[0], p[0]};
  for (int i = 1; i < 4; i++) {
    if (p[i] < r.lo) r.lo = p[i];
    if (p[i] > r.hi) r.hi = p[i];
  }
  return r;
}

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b && (a < 0) != (b < 0)); }

static span range(const ny_low *l, ny_dim d) {
  int64_t c;
  if (ny_dim_is_const(l->cx, d, &c)) return (span){c, c};
  const ny_dim_node *n = ny_dim_get(l->cx, d);
  if (n->kind == NY_DIM_SYM) {
    const ny_lvar *v = find(l, n->name);
    return v ? (span){v->lo, v->hi} : unknown;
  }
  span a = range(l, n->a), b = range(l, n->b);
  switch (n->kind) {
  case NY_DIM_ADD: return (span){sum(a.lo, b.lo, INT64_MIN), sum(a.hi, b.hi, INT64_MAX)};
  case NY_DIM_MUL: return span_mul(a, b);
  case NY_DIM_DIV:
    if (b.lo != b.hi || b.lo <= 0) return a.lo >= 0 && b.lo >= 0 ? (span){0, a.hi} : unknown;
    return (span){a.lo == INT64_MIN ? a.lo : floor_div(a.lo, b.lo), a.hi == INT64_MAX ? a.hi : floor_div(a.hi, b.lo)};
  case NY_DIM_MOD: return b.lo > 0 ? (span){0, b.hi == INT64_MAX ? b.hi : b.hi - 1} : unknown;
  case NY_DIM_MIN: return (span){a.lo < b.lo ? a.lo : b.lo, a.hi < b.hi ? a.hi : b.hi};
  case NY_DIM_MAX: return (span){a.lo > b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi};
  case NY_DIM_LT: return (span){0, 1};
  default: return unknown;
  }
}

void ny_low_range(const ny_low *l, ny_dim d, int64_t *lo, int64_t *hi) {
  span s = range(l, d);
  *lo = s.lo, *hi = s.hi;
}

bool ny_low_at_least(const ny_low *l, ny_dim d, int64_t n) {
  for (uint32_t i = 0; i < l->n_known; i++)
    if (l->known[i].d == d && l->known[i].at_least >= n) return true;
  return range(l, d).lo >= n;
}

/* ---- code */
typedef struct terms {
  struct {
    ny_dim d;
    const ny_lvar *var; /* coef * var, without the variable's constant part; NULL: d */
    int64_t coef;
  } t[MAX_TERMS];
  int n;
  int64_t constant, by; /* by: what terms without a variable are divided by, or 0 */
} terms;

static bool is_var(const ny_low *l, ny_dim d, const ny_lvar **out) {
  const ny_dim_node *n = d < 0 ? ny_dim_get(l->cx, d) : NULL;
  return n && n->kind == NY_DIM_SYM && (*out = find(l, n->name)) != NULL;
}

static bool flatten(const ny_low *l, ny_dim d, terms *t) {
  int64_t c = 1;
  if (ny_dim_is_const(l->cx, d, &c)) {
    t->constant = (int64_t)((uint64_t)t->constant + (uint64_t)c);
    return true;
  }
  const ny_dim_node *n = ny_dim_get(l->cx, d);
  if (n->kind == NY_DIM_ADD) return flatten(l, n->a, t) && flatten(l, n->b, t);
  if (t->n == MAX_TERMS) return false;
  const ny_lvar *v = NULL;
  c = 1;
  if (n->kind == NY_DIM_MUL && ny_dim_is_const(l->cx, n->a, &c))
    (void)is_var(l, n->b, &v);
  else if (n->kind == NY_DIM_MUL && ny_dim_is_const(l->cx, n->b, &c))
    (void)is_var(l, n->a, &v);
  else
    (void)is_var(l, d, &v);
  if (v) t->constant = (int64_t)((uint64_t)t->constant + (uint64_t)c * (uint64_t)v->add);
  t->t[t->n].d = d;
  t->t[t->n].var = v;
  t->t[t->n++].coef = c;
  return true;
}

static val at_depth(ny_low *l, const terms *t, int depth) {
  val s = NULL;
  for (int i = 0; i < t->n; i++) {
    const ny_lvar *var = t->t[i].var;
    if ((var ? var->depth : ny_low_depth(l, t->t[i].d)) != depth) continue;
    val v = !var && t->by       ? LLVMBuildExactSDiv(l->x->b, ny_low_dim(l, t->t[i].d), ny_ci(l->x->i64, t->by), "")
            : !var              ? ny_low_dim(l, t->t[i].d)
            : t->t[i].coef == 1 ? var->v
                                : LLVMBuildNSWMul(l->x->b, var->v, ny_ci(l->x->i64, t->t[i].coef), "");
    s = s ? LLVMBuildNSWAdd(l->x->b, s, v, "") : v;
  }
  return s;
}

static val add_up(ny_low *l, ny_dim d) {
  terms t = {.n = 0};
  if (!flatten(l, d, &t)) { /* too many terms to sort: as written */
    const ny_dim_node *n = ny_dim_get(l->cx, d);
    return LLVMBuildNSWAdd(l->x->b, ny_low_dim(l, n->a), ny_low_dim(l, n->b), "");
  }
  val s = NULL;
  for (int depth = 0; depth <= l->depth; depth++) {
    val v = at_depth(l, &t, depth);
    if (v) s = s ? LLVMBuildNSWAdd(l->x->b, s, v, "") : v;
  }
  return t.constant ? LLVMBuildNSWAdd(l->x->b, s, ny_ci(l->x->i64, t.constant), "") : s;
}

/* The compiler has no say about a divisor known only at run time: by zero gives zero instead of a trap. */
static val divide(ny_low *l, const ny_dim_node *n) {
  ny_lx *x = l->x;
  val a = ny_low_dim(l, n->a), b = ny_low_dim(l, n->b), zero = ny_ci(x->i64, 0);
  span sa = range(l, n->a), sb = range(l, n->b);
  bool mod = n->kind == NY_DIM_MOD;
  val safe = sb.lo > 0 || sb.hi < 0 ? b : ny_sel(x, ny_ic(x, LLVMIntEQ, b, zero), ny_ci(x->i64, 1), b);
  if (sa.lo >= 0 && sb.lo >= 0) return mod ? NY_B(URem, x, a, safe) : NY_B(UDiv, x, a, safe);
  val r = NY_B(SRem, x, a, safe);
  val fix = NY_B(And, x, ny_ic(x, LLVMIntNE, r, zero), ny_ic(x, LLVMIntSLT, NY_B(Xor, x, r, safe), zero));
  if (mod) return ny_sel(x, fix, NY_B(Add, x, r, safe), r);
  return NY_B(Sub, x, NY_B(SDiv, x, a, safe), LLVMBuildZExt(x->b, fix, x->i64, ""));
}

static val compute(ny_low *l, ny_dim d) {
  ny_lx *x = l->x;
  const ny_dim_node *n = ny_dim_get(l->cx, d);
  switch (n->kind) {
  case NY_DIM_SYM: {
    const ny_lvar *v = find(l, n->name);
    if (v) return v->add ? LLVMBuildNSWAdd(x->b, v->v, ny_ci(x->i64, v->add), "") : v->v;
    l->failed = ny_fail(l->diag, NYB_E_VERIFY, NULL, "kernel %s: ?%s is neither a symbol nor a loop variable here",
                        l->k->name, n->name);
    return ny_ci(x->i64, 0);
  }
  case NY_DIM_ADD: return add_up(l, d);
  case NY_DIM_MUL: return LLVMBuildNSWMul(x->b, ny_low_dim(l, n->a), ny_low_dim(l, n->b), "");
  case NY_DIM_DIV:
  case NY_DIM_MOD: return divide(l, n);
  case NY_DIM_MIN: return ny_bin(x, "llvm.smin", ny_low_dim(l, n->a), ny_low_dim(l, n->b));
  case NY_DIM_MAX: return ny_bin(x, "llvm.smax", ny_low_dim(l, n->a), ny_low_dim(l, n->b));
  default: return LLVMBuildZExt(x->b, ny_ic(x, LLVMIntSLT, ny_low_dim(l, n->a), ny_low_dim(l, n->b)), x->i64, "");
  }
}

val ny_low_dim(ny_low *l, ny_dim d) {
  int64_t c;
  if (ny_dim_is_const(l->cx, d, &c)) return ny_ci(l->x->i64, c);
  for (uint32_t i = l->n_dim; i-- > 0;)
    if (l->dim[i].d == d) return l->dim[i].v;
  val v = compute(l, d);
  NY_PUSH_ROOM(&l->arena, l->dim, l->n_dim, l->cap_dim);
  l->dim[l->n_dim].d = d;
  l->dim[l->n_dim++].v = v;
  return v;
}

val ny_low_gep(ny_low *l, typ e, val p, ny_dim d) {
  terms t = {.n = 0};
  if (!flatten(l, d, &t)) return ny_gep(l->x, e, p, ny_low_dim(l, d));
  for (int depth = 0; depth <= l->depth; depth++) {
    val v = at_depth(l, &t, depth);
    if (v) p = ny_gep(l->x, e, p, v);
  }
  return ny_gepc(l->x, e, p, t.constant);
}

val ny_low_gep_part(ny_low *l, typ e, val p, ny_dim d, int64_t more, int64_t per, int64_t *left) {
  terms t = {.n = 0};
  if (!flatten(l, d, &t)) return NULL;
  t.by = per;
  for (int i = 0; i < t.n; i++) {
    if (t.t[i].var ? t.t[i].coef % per != 0 : !ny_dim_divides(l->cx, t.t[i].d, per)) return NULL;
    t.t[i].coef /= per;
  }
  int64_t whole = floor_div(t.constant + more, per);
  *left = t.constant + more - whole * per;
  for (int depth = 0; depth <= l->depth; depth++) {
    val v = at_depth(l, &t, depth);
    if (v) p = ny_gep(l->x, e, p, v);
  }
  return ny_gepc(l->x, e, p, whole);
}
