/* Expressions are evaluated in order into one table; then every size that the commands rely on is compared with the
 * room it has. */
#include "plan.h"
#include <string.h>

static bool floor_div(int64_t a, int64_t b, int64_t *quotient, int64_t *rest) {
  if (!b || (a == INT64_MIN && b == -1)) return false;
  *quotient = a / b;
  *rest = a % b;
  if (*rest && (*rest < 0) != (b < 0)) {
    --*quotient;
    *rest += b;
  }
  return true;
}

static bool eval_one(const ny_mod_expr *e, const int64_t *sym, const int64_t *val, int64_t *out) {
  int64_t a = e->op > NY_MX_SYMBOL ? val[e->a] : 0, b = e->op > NY_MX_SYMBOL && e->op != NY_MX_ALIGN ? val[e->b] : 0,
          unused;
  switch ((ny_mod_op)e->op) {
  case NY_MX_CONST: return *out = e->value, true;
  case NY_MX_SYMBOL: return *out = sym[e->value], true;
  case NY_MX_ADD: return !__builtin_add_overflow(a, b, out);
  case NY_MX_MUL: return !__builtin_mul_overflow(a, b, out);
  case NY_MX_DIV: return floor_div(a, b, out, &unused);
  case NY_MX_MOD: return floor_div(a, b, &unused, out);
  case NY_MX_MIN: return *out = a < b ? a : b, true;
  case NY_MX_MAX: return *out = a > b ? a : b, true;
  case NY_MX_LT: return *out = a < b, true;
  case NY_MX_ALIGN:
    return !__builtin_add_overflow(a, e->value - 1, &a) && floor_div(a, e->value, out, &unused) &&
           !__builtin_mul_overflow(*out, e->value, out);
  case NY_MX_COUNT: break;
  }
  return false;
}

nyb_status ny_plan_eval(const ny_mod *m, const int64_t *sym, int64_t *val, ny_diag *d) {
  for (uint32_t i = 0; i < m->n_exprs; i++) {
    if (eval_one(&m->expr[i], sym, val, &val[i])) continue;
    char names[256] = "";
    for (uint32_t k = 0; k < m->n_symbols; k++) {
      size_t n = strlen(names);
      snprintf(names + n, sizeof names - n, "%s%.40s=%lld", n ? ", " : "", m->symbol[k], (long long)sym[k]);
    }
    return ny_fail(d, NYB_E_SHAPE, NULL, "size expression %u overflows or divides by zero with %s", i, names);
  }
  return NYB_OK;
}

bool ny_plan_value_bytes(const ny_mod_value *v, const int64_t *val, uint64_t *out) {
  uint64_t n = 1;
  bool zero = false, over = false;
  for (uint32_t k = 0; k < v->rank; k++) {
    int64_t size = val[v->dim[k]];
    if (size < 0) return false;
    zero |= size == 0;
    over |= __builtin_mul_overflow(n, (uint64_t)size, &n);
  }
  if (zero) return *out = 0, true;
  *out = over ? UINT64_MAX : ny_fmt_bytes(v->fmt, n);
  return *out <= INT64_MAX;
}

/* ---- sizes against room */
static nyb_status too_big(ny_diag *d, const char *what, uint32_t i, int64_t need, uint64_t have) {
  return ny_fail(d, NYB_E_SHAPE, NULL, "%s %u needs %lld bytes, its memory has %llu", what, i, (long long)need,
                 (unsigned long long)have);
}

static nyb_status check_values(const ny_mod_value *v, uint32_t n, const char *what, const int64_t *val, ny_diag *d) {
  for (uint32_t i = 0; i < n; i++) {
    uint64_t bytes;
    if (ny_plan_value_bytes(&v[i], val, &bytes)) continue;
    for (uint32_t k = 0; k < v[i].rank; k++)
      if (val[v[i].dim[k]] < 0)
        return ny_fail(d, NYB_E_SHAPE, NULL, "%s \"%s\": dimension %u is %lld with these sizes", what, v[i].name, k,
                       (long long)val[v[i].dim[k]]);
    return ny_fail(d, NYB_E_SHAPE, NULL, "%s \"%s\" is too large with these sizes", what, v[i].name);
  }
  return NYB_OK;
}

static uint64_t room_of(const ny_mod *m, const ny_mod_buffer *b, const int64_t *val) {
  uint64_t room = 0;
  switch ((ny_mod_place)b->place) {
  case NY_MP_ARENA: return (uint64_t)val[m->arena];
  case NY_MP_WEIGHT: return m->segment[b->index].bytes;
  case NY_MP_INPUT: ny_plan_value_bytes(&m->input[b->index], val, &room); break;
  case NY_MP_OUTPUT: ny_plan_value_bytes(&m->output[b->index], val, &room); break;
  case NY_MP_COUNT: break;
  }
  return room;
}

static nyb_status check_buffer(const ny_mod *m, uint32_t i, const int64_t *val, ny_diag *d) {
  const ny_mod_buffer *b = &m->buffer[i];
  int64_t bytes = val[b->bytes], at = b->place <= NY_MP_WEIGHT ? val[b->offset] : 0;
  uint64_t room = room_of(m, b, val);
  if (bytes >= 0 && at >= 0 && at % 64 == 0 && (uint64_t)at <= room && (uint64_t)bytes <= room - (uint64_t)at)
    return NYB_OK;
  return ny_fail(d, NYB_E_SHAPE, NULL, "buffer %u: %lld bytes at %lld do not fit its memory of %llu bytes", i,
                 (long long)bytes, (long long)at, (unsigned long long)room);
}

static nyb_status room_for(const ny_mod *m, uint32_t command, uint32_t slot, int64_t need, const int64_t *val,
                           ny_diag *d) {
  int64_t have = val[m->buffer[m->command[command].buffer[slot]].bytes];
  return need > have ? too_big(d, "command", command, need, (uint64_t)have) : NYB_OK;
}

static nyb_status check_copy(const ny_mod *m, uint32_t i, int64_t trips, const int64_t *val, ny_diag *d) {
  int64_t bytes = val[m->command[i].bytes], total = bytes;
  if (bytes < 0) return too_big(d, "command", i, bytes, 0);
  if (m->command[i].stacked && __builtin_mul_overflow(bytes, trips, &total)) total = INT64_MAX;
  NY_TRY(room_for(m, i, 0, bytes, val, d));
  return room_for(m, i, 1, total, val, d);
}

/* A loop that nothing ends but its count, and whose count takes hours at least, would never be waited for. */
static nyb_status check_trips(const ny_mod_command *q, int64_t n, int64_t *total, ny_diag *d) {
  const int64_t most = INT64_C(1) << 36;
  if (q->n_buffers > 1) return NYB_OK;
  if (n && __builtin_mul_overflow(*total, n, total)) *total = INT64_MAX;
  if (*total <= most) return NYB_OK;
  return ny_fail(d, NYB_E_LIMIT, NULL,
                 "a loop would run %lld times (%lld with the loops around it), at most %lld are accepted", (long long)n,
                 (long long)*total, (long long)most);
}

/* trips: of the innermost loop around the commands; total: of all loops around them. */
static nyb_status check_commands(const ny_mod *m, uint32_t begin, uint32_t end, int64_t trips, int64_t total,
                                 const int64_t *val, ny_diag *d) {
  for (uint32_t i = begin; i < end; i++) {
    const ny_mod_command *q = &m->command[i];
    if (q->kind == NY_MC_LAUNCH && val[q->extent] < 0)
      return ny_fail(d, NYB_E_SHAPE, NULL, "kernel %s would run over %lld points", m->kernel[q->kernel].name,
                     (long long)val[q->extent]);
    if (q->kind == NY_MC_COPY) NY_TRY(check_copy(m, i, trips, val, d));
    if (q->kind == NY_MC_CHOOSE) {
      uint32_t middle = i + 1 + q->n_then, last = middle + q->n_else;
      bool yes = val[q->extent] != 0;
      NY_TRY(check_commands(m, yes ? i + 1 : middle, yes ? middle : last, trips, total, val, d));
      i = last - 1;
    }
    if (q->kind == NY_MC_IF) {
      NY_TRY(room_for(m, i, 0, 1, val, d));
      NY_TRY(check_commands(m, i + 1, i + 1 + q->n_then + q->n_else, trips, total, val, d));
      i += q->n_then + q->n_else;
    }
    if (q->kind == NY_MC_LOOP) {
      NY_TRY(room_for(m, i, 0, 8, val, d));
      if (q->n_buffers > 1) NY_TRY(room_for(m, i, 1, 1, val, d));
      int64_t n = val[q->extent] < 0 ? 0 : val[q->extent];
      int64_t inner = total;
      NY_TRY(check_trips(q, n, &inner, d));
      NY_TRY(check_commands(m, i + 1, i + 1 + q->n_then, n, inner, val, d));
      i += q->n_then;
    }
  }
  return NYB_OK;
}

nyb_status ny_plan_require(const ny_mod *m, uint32_t i, const int64_t *val, ny_diag *d) {
  const ny_mod_require *r = &m->require[i];
  if (val[r->a] == val[r->b]) return NYB_OK;
  return ny_fail(d, NYB_E_SHAPE, NULL, "%.800s, here they are %lld and %lld", r->text, (long long)val[r->a],
                 (long long)val[r->b]);
}

nyb_status ny_plan_requires(const ny_mod *m, const int64_t *val, ny_diag *d) {
  for (uint32_t i = 0; i < m->n_requires; i++)
    if (m->require[i].always) NY_TRY(ny_plan_require(m, i, val, d));
  return NYB_OK;
}

nyb_status ny_plan_check(const ny_mod *m, const int64_t *val, ny_diag *d) {
  if (val[m->arena] < 0) return too_big(d, "arena", 0, val[m->arena], 0);
  NY_TRY(check_values(m->input, m->n_inputs, "input", val, d));
  NY_TRY(check_values(m->output, m->n_outputs, "output", val, d));
  for (uint32_t i = 0; i < m->n_buffers; i++) NY_TRY(check_buffer(m, i, val, d));
  return check_commands(m, 0, m->n_commands, 0, 1, val, d);
}
