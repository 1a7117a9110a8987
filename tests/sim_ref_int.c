/* References of integer, bit and move instructions: 128-bit arithmetic and loops over bits. */
#include <stdlib.h>
#include <string.h>

#include "sim_fidelity.h"

__extension__ typedef __int128 big;
__extension__ typedef unsigned __int128 ubig;

static int bits_of(const char *type) { return atoi(type + 1); }
static uint64_t low(uint64_t x, int bits) { return bits >= 64 ? x : x & (((uint64_t)1 << bits) - 1); }
static big value(const char *type, uint64_t x) {
  int bits = bits_of(type);
  x = low(x, bits);
  return type[0] == 's' && x >> (bits - 1) & 1 ? (big)x - ((big)1 << bits) : (big)x;
}
static bool is(const ref_op *op, const char *name) { return !strcmp(op->word[0], name); }

/* ---- one result from the values of three operands */
static big clamp32(big x) { return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x; }
/* The half of a product that the instruction wants; unsigned 64-bit ones need all of 128 bits. */
static big part(const ref_op *op, big a, big b, int bits) {
  if (op->type[0] == 'u') {
    ubig product = (ubig)a * (ubig)b;
    return (big)(uint64_t)(ref_has(op, "hi") ? product >> bits : product);
  }
  return ref_has(op, "hi") ? a * b >> bits : (big)(int64_t)(uint64_t)((ubig)a * (ubig)b);
}
static big low24(const ref_op *op, uint64_t x) {
  uint64_t v = low(x, 24);
  return op->type[0] == 's' && v >> 23 ? (big)v - (1 << 24) : (big)v;
}
static ref_status arithmetic(const ref_op *op, ref_io *io) {
  const char *t = op->type;
  int bits = bits_of(t);
  big a = value(t, io->in[0]), b = value(t, io->in[1]), c = value(t, io->in[2]), r = 0;
  if (is(op, "add"))
    r = a + b;
  else if (is(op, "sub"))
    r = a - b;
  else if (is(op, "mul"))
    r = part(op, a, b, bits);
  else if (is(op, "mad") && ref_has(op, "wide"))
    r = a * b + value(t[0] == 's' ? "s64" : "u64", io->in[2]);
  else if (is(op, "mad"))
    r = part(op, a, b, bits) + c;
  else if (is(op, "mul24") || is(op, "mad24"))
    r = part(op, low24(op, io->in[0]), low24(op, io->in[1]), 16) + (is(op, "mad24") ? c : 0);
  else if (is(op, "sad"))
    r = (a < b ? b - a : a - b) + c;
  else if (is(op, "min"))
    r = a < b ? a : b;
  else if (is(op, "max"))
    r = a < b ? b : a;
  else if (is(op, "neg"))
    r = -a;
  else if (is(op, "abs"))
    r = a < 0 ? -a : a;
  else if (!b || (t[0] == 's' && b == -1 && a == -((big)1 << (bits - 1))))
    return REF_SKIP;
  else
    r = is(op, "div") ? a / b : a % b;
  if (ref_has(op, "sat")) r = clamp32(r);
  if (ref_has(op, "relu") && r < 0) r = 0;
  io->out[0] = (uint64_t)r;
  return REF_OK;
}
static ref_status carry(const ref_op *op, ref_io *io) { /* the first of a chain: no carry comes in */
  if (is(op, "addc") || is(op, "subc") || is(op, "madc")) return REF_UNKNOWN; /* test_warp has chains */
  return arithmetic(op, io);
}
static ref_status int_any(const ref_op *op, ref_io *io) {
  return ref_has(op, "cc") ? carry(op, io) : arithmetic(op, io);
}
static ref_status pairs(const ref_op *op, ref_io *io) {
  io->out[0] = 0;
  for (int h = 0; h < 2; h++) {
    const char *t = op->type[0] == 's' ? "s16" : "u16";
    big a = value(t, io->in[0] >> 16 * h), b = value(t, io->in[1] >> 16 * h);
    big r = is(op, "add") ? a + b : (a < b) == is(op, "min") ? a : b;
    if (ref_has(op, "relu") && r < 0) r = 0;
    io->out[0] |= low((uint64_t)r, 16) << 16 * h;
  }
  return REF_OK;
}
static ref_status dot(const ref_op *op, ref_io *io) {
  bool four = is(op, "dp4a"), hi = ref_has(op, "hi"), sa = op->type2[0] == 's', sb = op->type[0] == 's';
  big r = (big)io->in[2];
  for (int k = 0; k < (four ? 4 : 2); k++) {
    big a = four ? value(sa ? "s8" : "u8", io->in[0] >> 8 * k) : value(sa ? "s16" : "u16", io->in[0] >> 16 * k);
    r += a * value(sb ? "s8" : "u8", io->in[1] >> 8 * (k + (hi ? 2 : 0)));
  }
  io->out[0] = (uint64_t)r;
  return REF_OK;
}

/* ---- bits */
static ref_status logic(const ref_op *op, ref_io *io) {
  bool pred = !strcmp(op->type, "pred");
  uint64_t a = io->in[0], b = io->in[1];
  if (pred) a = (uint32_t)a != 0, b = (uint32_t)b != 0;
  io->out[0] = is(op, "and") ? a & b : is(op, "or") ? a | b : is(op, "xor") ? a ^ b : is(op, "not") ? ~a : 0;
  if (is(op, "cnot")) io->out[0] = !low(a, bits_of(op->type));
  return REF_OK;
}
static ref_status shift(const ref_op *op, ref_io *io) {
  int bits = bits_of(op->type);
  uint32_t by = (uint32_t)io->in[1];
  if (is(op, "shl"))
    io->out[0] = by >= (uint32_t)bits ? 0 : io->in[0] << by;
  else
    io->out[0] = (uint64_t)(value(op->type, io->in[0]) >> (by > 64 ? 64 : by));
  return REF_OK;
}
static ref_status funnel(const ref_op *op, ref_io *io) {
  uint64_t x = io->in[1] << 32 | low(io->in[0], 32);
  uint32_t by = (uint32_t)io->in[2];
  by = ref_has(op, "wrap") ? by & 31 : by > 32 ? 32 : by;
  io->out[0] = ref_has(op, "l") ? (by == 32 ? x : x << by >> 32) : x >> by;
  if (ref_has(op, "l") && by == 32) io->out[0] = low(io->in[0], 32);
  return REF_OK;
}
static ref_status lut(const ref_op *op, ref_io *io) {
  uint64_t r = 0;
  for (int b = 0; b < 32; b++) {
    int k = (int)(io->in[0] >> b & 1) * 4 + (int)(io->in[1] >> b & 1) * 2 + (int)(io->in[2] >> b & 1);
    r |= (uint64_t)(op->imm[0] >> k & 1) << b;
  }
  io->out[0] = r;
  bool p = (uint32_t)io->in[3] != 0;
  io->out[1] = ref_has(op, "and") ? r && p : r || p;
  return REF_OK;
}
static ref_status permute(const ref_op *op, ref_io *io) {
  uint64_t x = io->in[1] << 32 | low(io->in[0], 32), r = 0;
  static const char *const modes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
  static const uint8_t table[6][4][4] = {/* bytes 3 2 1 0 for each control value, as the manual prints them */
                                         {{3, 2, 1, 0}, {4, 3, 2, 1}, {5, 4, 3, 2}, {6, 5, 4, 3}},
                                         {{5, 6, 7, 0}, {6, 7, 0, 1}, {7, 0, 1, 2}, {0, 1, 2, 3}},
                                         {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}},
                                         {{3, 2, 1, 0}, {3, 2, 1, 1}, {3, 2, 2, 2}, {3, 3, 3, 3}},
                                         {{0, 0, 0, 0}, {1, 1, 1, 0}, {2, 2, 1, 0}, {3, 2, 1, 0}},
                                         {{1, 0, 1, 0}, {3, 2, 3, 2}, {1, 0, 1, 0}, {3, 2, 3, 2}}};
  int mode = -1;
  for (int k = 0; k < 6; k++)
    if (ref_has(op, modes[k])) mode = k;
  for (int b = 0; b < 4; b++) {
    int c = (int)(io->in[2] >> 4 * b & 15);
    int from = mode < 0 ? c & 7 : table[mode][io->in[2] & 3][3 - b];
    uint64_t byte = x >> 8 * from & 255;
    if (mode < 0 && c & 8) byte = byte & 128 ? 255 : 0;
    r |= byte << 8 * b;
  }
  io->out[0] = r;
  return REF_OK;
}
static ref_status field(const ref_op *op, ref_io *io) {
  int msb = bits_of(op->type) - 1;
  bool insert = is(op, "bfi");
  uint32_t pos = io->in[insert ? 2 : 1] & 255, len = io->in[insert ? 3 : 2] & 255;
  uint64_t a = io->in[0], r = insert ? io->in[1] : 0;
  if (insert) {
    for (uint32_t i = 0; i < len && pos + i <= (uint32_t)msb; i++)
      r = (r & ~((uint64_t)1 << (pos + i))) | (a >> i & 1) << (pos + i);
  } else {
    uint32_t last = pos + len - 1 < (uint32_t)msb ? pos + len - 1 : (uint32_t)msb;
    uint64_t sign = op->type[0] == 'u' || !len ? 0 : a >> last & 1;
    for (uint32_t i = 0; i <= (uint32_t)msb; i++)
      r |= (i < len && pos + i <= (uint32_t)msb ? a >> (pos + i) & 1 : sign) << i;
  }
  io->out[0] = r;
  return REF_OK;
}
static ref_status mask_bits(const ref_op *op, ref_io *io) { /* bmsk: ones from bit a, b of them */
  uint64_t a = low(io->in[0], 32), b = low(io->in[1], 32), r = 0;
  if (ref_has(op, "wrap")) a &= 31, b &= 31;
  if (a < 32)
    for (uint64_t i = a; i < 32 && i < a + b; i++) r |= (uint64_t)1 << i;
  io->out[0] = r;
  return REF_OK;
}
static ref_status extend(const ref_op *op, ref_io *io) {
  uint64_t a = low(io->in[0], 32), n = low(io->in[1], 32);
  if (ref_has(op, "wrap")) n &= 31;
  if (n >= 32) n = 32;
  uint64_t r = n ? low(a, (int)n) : 0;
  if (op->type[0] == 's' && n && n < 32 && r >> (n - 1) & 1) r |= ~(((uint64_t)1 << n) - 1);
  io->out[0] = r;
  return REF_OK;
}
static ref_status count(const ref_op *op, ref_io *io) {
  int bits = bits_of(op->type), ones = 0, zeros = 0, top = -1;
  uint64_t a = low(io->in[0], bits), reversed = 0;
  if (is(op, "bfind") && op->type[0] == 's' && a >> (bits - 1)) a = low(~a, bits);
  for (int b = 0; b < bits; b++) {
    uint64_t bit = a >> b & 1;
    ones += (int)bit;
    reversed |= bit << (bits - 1 - b);
    zeros = bit ? 0 : zeros + 1;
    if (bit) top = b;
  }
  if (ref_has(op, "shiftamt") && top >= 0) top = bits - 1 - top;
  io->out[0] = is(op, "popc")   ? (uint64_t)ones
               : is(op, "clz")  ? (uint64_t)zeros
               : is(op, "brev") ? reversed
                                : (uint64_t)top;
  return REF_OK;
}
static ref_status find_nth(const ref_op *op, ref_io *io) {
  (void)op;
  uint32_t mask = (uint32_t)io->in[0], base = (uint32_t)io->in[1];
  int32_t offset = (int32_t)io->in[2];
  if (base > 31) return REF_SKIP;
  io->out[0] = 0xffffffff;
  if (!offset) {
    if (mask >> base & 1) io->out[0] = base;
    return REF_OK;
  }
  int64_t left = (offset < 0 ? -(int64_t)offset : offset) - 1;
  for (int pos = (int)base; pos >= 0 && pos<32; pos += offset> 0 ? 1 : -1)
    if (mask >> pos & 1 && !left--) {
      io->out[0] = (uint64_t)pos;
      break;
    }
  return REF_OK;
}

/* ---- comparisons and selection of integers */
static bool holds(const ref_op *op, big a, big b) {
  const char *c = op->word[1];
  if (!strcmp(c, "eq")) return a == b;
  if (!strcmp(c, "ne")) return a != b;
  if (!strcmp(c, "lt") || !strcmp(c, "lo")) return a < b;
  if (!strcmp(c, "le") || !strcmp(c, "ls")) return a <= b;
  return !strcmp(c, "gt") || !strcmp(c, "hi") ? a > b : a >= b;
}
static ref_status compare(const ref_op *op, ref_io *io) {
  const char *c = op->word[1], *t = op->type;
  bool unsigned_only = !strcmp(c, "lo") || !strcmp(c, "ls") || !strcmp(c, "hi") || !strcmp(c, "hs");
  bool ordered = strcmp(c, "eq") && strcmp(c, "ne");
  static const char known[] = " eq ne lt le gt ge lo ls hi hs ";
  const char *at = strstr(known, c);
  if (!at || at[strlen(c)] != ' ' || ref_has(op, "ftz")) return REF_UNKNOWN;
  if ((unsigned_only && t[0] != 'u') || (t[0] == 'b' && ordered)) return REF_UNKNOWN;
  bool r = holds(op, value(t, io->in[0]), value(t, io->in[1])), p = (uint32_t)io->in[2] != 0, n = !r;
  if (ref_has(op, "and")) r = r && p, n = n && p;
  if (ref_has(op, "or")) r = r || p, n = n || p;
  if (ref_has(op, "xor")) r = r != p, n = n != p;
  io->out[0] = r;
  io->out[1] = n;
  if (is(op, "set")) io->out[0] = !r ? 0 : !strcmp(op->type2, "f32") ? 0x3f800000 : 0xffffffff;
  return REF_OK;
}
static ref_status select_one(const ref_op *op, ref_io *io) {
  (void)op;
  io->out[0] = (uint32_t)io->in[2] ? io->in[0] : io->in[1];
  return REF_OK;
}
static ref_status select_sign(const ref_op *op, ref_io *io) {
  bool first = !strcmp(op->type, "f32") ? ref_value("f32", io->in[2]) >= 0 : (int32_t)io->in[2] >= 0;
  if (ref_has(op, "ftz") && !strcmp(op->type, "f32")) first = ref_value("f32", ref_flush("f32", io->in[2])) >= 0;
  io->out[0] = first ? io->in[0] : io->in[1];
  return REF_OK;
}
static ref_status clamp_to(const ref_op *op, const char *t, uint64_t x, uint64_t *out) {
  (void)op;
  big v = value("s32", x), max = ((big)1 << (bits_of(t) - (t[0] == 's'))) - 1, min = t[0] == 's' ? -max - 1 : 0;
  *out = low((uint64_t)(v > max ? max : v < min ? min : v), bits_of(t));
  return REF_OK;
}
/* cvt.pack: a above b, and for bytes above what is left of c. */
static ref_status pack(const ref_op *op, ref_io *io) {
  bool bytes = !strcmp(op->type, "b32");
  const char *t = op->word[3];
  int bits = bits_of(t);
  uint64_t a, b;
  clamp_to(op, t, io->in[0], &a);
  clamp_to(op, t, io->in[1], &b);
  io->out[0] = (bytes ? io->in[2] << 2 * bits : 0) | a << bits | b;
  return REF_OK;
}
static ref_status pack_or_none(const ref_op *op, ref_io *io) {
  return ref_has(op, "pack") ? pack(op, io) : REF_UNKNOWN;
}

#define SIX " u16 s16 u32 s32 u64 s64 "
#define ANY " b16 b32 b64 u16 s16 u32 s32 u64 s64 "
const ref_entry ref_int[] = {
    {"add|sub|mul|mad|mul24|mad24|div|rem|min|max|neg|abs|sad", SIX " b32 b64 ", int_any, 0, 0},
    {"addc|subc|madc", NULL, carry, 0, 0},
    {"add|min|max", " u16x2 s16x2 ", pairs, 0, 0},
    {"dp4a|dp2a", NULL, dot, 0, 0},
    {"and|or|xor|not|cnot", NULL, logic, 0, 0},
    {"shl|shr", NULL, shift, 0, 0},
    {"shf", NULL, funnel, 0, 0},
    {"lop3", NULL, lut, 0, 0},
    {"prmt", NULL, permute, 0, 0},
    {"bfe|bfi", NULL, field, 0, 0},
    {"bmsk", NULL, mask_bits, 0, 0},
    {"szext", NULL, extend, 0, 0},
    {"popc|clz|brev|bfind", NULL, count, 0, 0},
    {"fns", NULL, find_nth, 0, 0},
    {"setp|set", ANY, compare, 0, 0},
    {"selp", NULL, select_one, 0, 0},
    {"slct", NULL, select_sign, 0, 0},
    {"cvt", NULL, pack_or_none, 0, 0},
    {0},
};

/* ---- moves: vectors of smaller registers in one, or back */
static ref_status move(const ref_op *op, ref_io *io) {
  io->out[0] = !strcmp(op->type, "pred") ? (uint32_t)io->in[0] != 0 : io->in[0];
  return REF_OK;
}
const ref_entry ref_move[] = {{"mov", NULL, move, 0, 0}, {0}};
