/* References of f16 and bf16 arithmetic, scalar and packed: exact sums and products, rounded by search. */
#include <math.h>
#include <string.h>

#include "sim_fidelity.h"

static void single_of(const ref_op *op, char type[16]) {
  strcpy(type, op->type);
  char *x2 = strstr(type, "x2");
  if (x2) *x2 = 0;
}
static uint64_t flushed(const ref_op *op, const char *type, uint64_t code) {
  return ref_has(op, "ftz") ? ref_flush(type, code) : code;
}
static uint64_t finished(const ref_op *op, const char *type, uint64_t code) {
  code = flushed(op, type, code);
  uint64_t one = ref_round(type, (exact){1, 0}, NEAREST, false);
  if (ref_has(op, "sat")) {
    if (ref_is_nan(type, code) || !(ref_value(type, code) > 0)) return 0;
    return ref_value(type, code) > 1 ? one : code;
  }
  if (ref_has(op, "relu")) return ref_is_nan(type, code) ? ref_nan(type) : code & 0x8000 ? 0 : code;
  return code;
}
static uint64_t minmax(const ref_op *op, const char *type, uint64_t a, uint64_t b) {
  bool max = !strcmp(op->word[0], "max"), na = ref_is_nan(type, a), nb = ref_is_nan(type, b);
  if ((na && nb) || (ref_has(op, "NaN") && (na || nb))) return ref_nan(type);
  uint64_t sign = (a ^ b) & 0x8000;
  bool magnitude = ref_has(op, "xorsign");
  if (magnitude) a &= 0x7fff, b &= 0x7fff;
  wide x = ref_value(type, a), y = ref_value(type, b);
  uint64_t r = na ? b : nb ? a : x == y ? (max ? a & b : a | b) : (x < y) != max ? a : b;
  if (!na && !nb && x == y && x != 0) r = a;
  return magnitude ? (r & 0x7fff) | sign : r;
}
static ref_status element(const ref_op *op, const char *type, const uint64_t in[3], uint64_t *out) {
  uint64_t a = flushed(op, type, in[0]), b = flushed(op, type, in[1]), c = flushed(op, type, in[2]);
  wide x = ref_value(type, a), y = ref_value(type, b), z = ref_value(type, c);
  const char *name = op->word[0];
  exact r;
  if (ref_has(op, "xorsign") != ref_has(op, "abs") && strcmp(name, "abs")) return REF_UNKNOWN;
  if (!strcmp(name, "add"))
    r = exact_sum(x, y);
  else if (!strcmp(name, "sub"))
    r = exact_sum(x, -y);
  else if (!strcmp(name, "mul"))
    r = (exact){x * y, 0};
  else if (!strcmp(name, "fma"))
    r = exact_sum(x * y, z);
  else if (!strcmp(name, "ex2"))
    r = (exact){(wide)exp2((double)x), 0};
  else if (!strcmp(name, "tanh"))
    r = (exact){(wide)tanh((double)x), 0};
  else {
    if (!strcmp(name, "neg"))
      *out = a ^ 0x8000;
    else if (!strcmp(name, "abs"))
      *out = a & 0x7fff;
    else
      *out = minmax(op, type, a, b);
    *out = finished(op, type, *out);
    return REF_OK;
  }
  *out = finished(op, type, ref_round(type, r, NEAREST, false));
  return REF_OK;
}
static ref_status arithmetic(const ref_op *op, ref_io *io) {
  char type[16];
  single_of(op, type);
  int halves = strstr(op->type, "x2") ? 2 : 1;
  io->out[0] = 0;
  for (int h = 0; h < halves; h++) {
    uint64_t in[3], out = 0;
    for (int k = 0; k < 3; k++) in[k] = io->in[k] >> 16 * h & 0xffff;
    ref_status s = element(op, type, in, &out);
    if (s != REF_OK) return s;
    io->out[0] |= out << 16 * h;
  }
  return REF_OK;
}

/* An f16 or bf16 operand, the rest f32. */
static ref_status mixed(const ref_op *op, ref_io *io) {
  wide a = ref_value(op->type, io->in[0]);
  bool fma = !strcmp(op->word[0], "fma");
  wide c = ref_value("f32", io->in[fma ? 2 : 1]);
  if (fma) a *= ref_value(op->type, io->in[1]);
  if (!strcmp(op->word[0], "sub")) c = -c;
  uint64_t r = ref_round("f32", exact_sum(a, c), ref_direction(op), false);
  if (ref_has(op, "sat")) {
    wide x = ref_value("f32", r);
    r = !(x > 0) ? 0 : x > 1 ? 0x3f800000 : r;
  }
  io->out[0] = r;
  return a == 0 && c == 0 && signbit((double)a) != signbit((double)c) ? REF_SKIP : REF_OK; /* -0 when rounding down */
}
static ref_status any(const ref_op *op, ref_io *io) {
  bool is_mixed = !strcmp(op->type2, "f32");
  return is_mixed ? mixed(op, io) : arithmetic(op, io);
}

/* ---- comparisons */
static bool holds(const char *cmp, wide x, wide y) {
  bool unordered = x != x || y != y, u = cmp[2] == 'u';
  if (!strcmp(cmp, "num")) return !unordered;
  if (!strcmp(cmp, "nan")) return unordered;
  if (unordered) return u;
  if (!strncmp(cmp, "eq", 2)) return x == y;
  if (!strncmp(cmp, "ne", 2)) return x != y;
  if (!strncmp(cmp, "lt", 2)) return x < y;
  if (!strncmp(cmp, "le", 2)) return x <= y;
  return !strncmp(cmp, "gt", 2) ? x > y : x >= y;
}
static bool combined(const ref_op *op, bool is, uint64_t p) {
  if (ref_has(op, "and")) return is && (p & 1);
  if (ref_has(op, "or")) return is || (p & 1);
  return ref_has(op, "xor") ? is != (p & 1) : is;
}
static void halves_hold(const ref_op *op, const ref_io *io, bool out[2]) {
  char type[16];
  single_of(op, type);
  for (int h = 0; h < 2; h++)
    out[h] = holds(op->word[1], ref_value(type, flushed(op, type, io->in[0] >> 16 * h & 0xffff)),
                   ref_value(type, flushed(op, type, io->in[1] >> 16 * h & 0xffff)));
}
static ref_status setp(const ref_op *op, ref_io *io) {
  bool is[2], packed = strstr(op->type, "x2");
  halves_hold(op, io, is);
  io->in[2] = (uint32_t)io->in[2] != 0;
  io->out[0] = combined(op, is[0], io->in[2]);
  io->out[1] = combined(op, packed ? is[1] : !is[0], io->in[2]);
  return REF_OK;
}
static ref_status set(const ref_op *op, ref_io *io) {
  const char *to = op->type2;
  bool is[2], packed = strstr(op->type, "x2"), wide_result = strstr(to, "x2");
  bool whole = !strcmp(to, "u32") || !strcmp(to, "s32");
  if (packed ? !wide_result && !whole : wide_result) return REF_UNKNOWN;
  halves_hold(op, io, is);
  io->in[2] = (uint32_t)io->in[2] != 0;
  uint64_t low = combined(op, is[0], io->in[2]), high = combined(op, is[1], io->in[2]);
  uint64_t one = !strncmp(to, "f16", 3) ? 0x3c00 : !strncmp(to, "bf16", 4) ? 0x3f80 : 0xffff;
  if (packed)
    io->out[0] = low * one | high * one << 16;
  else if (!strcmp(to, "f32"))
    io->out[0] = low * 0x3f800000;
  else
    io->out[0] = low * (whole ? 0xffffffff : one);
  return REF_OK;
}

#define HALVES " f16 f16x2 bf16 bf16x2 "
const ref_entry ref_half[] = {
    {"add|sub|mul|fma|min|max|neg|abs", HALVES, any, 0, 0},
    {"ex2|tanh", " f16 f16x2 ", arithmetic, 0x1p-9, 0x1p-24},
    {"ex2|tanh", " bf16 bf16x2 ", arithmetic, 0x1p-7, 0x1p-126},
    {"setp", HALVES, setp, 0, 0},
    {"set", HALVES, set, 0, 0},
    {0},
};
