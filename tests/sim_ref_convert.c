/* References of cvt: between scalars of any two types, and to and from the packed narrow ones. */
#include <math.h>
#include <string.h>

#include "sim_fidelity.h"

static bool is_signed(const char *type) { return type[0] == 's'; }
static bool is_integer(const char *type) {
  return (type[0] == 's' || (type[0] == 'u' && type[1] != 'e')) && !strstr(type, "x2");
}
static wide scalar_value(const char *type, uint64_t u) {
  if (!is_integer(type)) return ref_value(type, u);
  int bits = ref_bits(type);
  uint64_t low = bits == 64 ? u : u & (((uint64_t)1 << bits) - 1);
  if (is_signed(type) && low >> (bits - 1) & 1)
    return (wide)low - (bits == 64 ? (wide)18446744073709551616.0 : (wide)((uint64_t)1 << bits));
  return (wide)low;
}
/* Floor and friends for numbers up to 2^112. */
static wide whole(wide x, char how) {
  wide size = x < 0 ? -x : x, big = (wide)5192296858534827628530496329220096.0; /* 2^112 */
  if (!(size < big)) return x;
  wide near = (size + big) - big, down = near > size ? near - 1 : near, r; /* adding rounds to nearest even */
  bool frac = down != size, negative = signbit((double)x);
  if (how == 'n')
    r = near;
  else
    r = how == 'z' || !frac ? down : how == (negative ? 'm' : 'p') ? down + 1 : down;
  return negative ? -r : r;
}
static uint64_t to_integer(const char *type, const char *from, wide x) {
  int bits = ref_bits(type);
  uint64_t all = bits == 64 ? ~(uint64_t)0 : ((uint64_t)1 << bits) - 1, top = (uint64_t)1 << (bits - 1);
  if (x != x) return bits == 64 || !strcmp(from, "f64") ? top : 0;
  wide min = is_signed(type) ? -(wide)top : 0, max = is_signed(type) ? (wide)(top - 1) : (wide)all;
  if (x < min) return is_signed(type) ? top : 0;
  if (x > max) return is_signed(type) ? top - 1 : all;
  return x < 0 ? (0 - (uint64_t)-x) & all : (uint64_t)x;
}
static char integral(const ref_op *op) {
  for (int i = 1; i < op->n_words; i++)
    if (op->word[i][0] == 'r' && op->word[i][2] == 'i' && !op->word[i][3]) return op->word[i][1];
  return 0;
}
static bool rounds(const ref_op *op) {
  return ref_has(op, "rn") || ref_has(op, "rz") || ref_has(op, "rm") || ref_has(op, "rp");
}
static uint64_t relu(const ref_op *op, const char *type, uint64_t code) {
  if (!ref_has(op, "relu") || ref_is_nan(type, code)) return code;
  return code >> (ref_bits(type) - 1) & 1 ? 0 : code;
}

/* What PTX has no rounding for, or none without one, is not an instruction. */
static bool exists(const ref_op *op, const char *to, const char *from) {
  bool ints = is_integer(to) && is_integer(from), floats = !is_integer(to) && !is_integer(from);
  if (ints) return !integral(op) && !rounds(op) && !ref_has(op, "ftz");
  if (is_integer(to)) return integral(op) != 0 && !ref_has(op, "sat");
  if (is_integer(from)) return rounds(op) && !ref_has(op, "ftz");
  if (ref_has(op, "ftz") && strcmp(to, "f32") && strcmp(from, "f32")) return false;
  if (!strcmp(to, from)) return floats && !rounds(op);
  bool widens = ref_bits(to) > ref_bits(from);
  return integral(op) == 0 && (widens ? !rounds(op) : rounds(op));
}
static ref_status scalar(const ref_op *op, ref_io *io) {
  const char *to = op->type2, *from = op->type;
  if (!*to || !exists(op, to, from)) return REF_UNKNOWN;
  uint64_t in = io->in[0];
  bool ftz = ref_has(op, "ftz"), sat = ref_has(op, "sat");
  if (ftz && !strcmp(from, "f32")) in = ref_flush(from, in);
  wide x = scalar_value(from, in);
  if (is_integer(to)) {
    /* Where the manual's value for a NaN goes through a 32-bit unit on its way, nothing is certain. */
    if (x != x && !strcmp(from, "f64") && ref_bits(to) < 32) return REF_SKIP;
    if (is_integer(from) && !sat)
      io->out[0] = (uint64_t)(x < 0 ? 0 - (uint64_t)-x : (uint64_t)x);
    else
      io->out[0] = to_integer(to, from, is_integer(from) ? x : whole(x, integral(op)));
    return REF_OK;
  }
  if (integral(op)) x = whole(x, integral(op));
  if (sat) x = x > 0 ? (x > 1 ? 1 : x) : 0;
  uint64_t r = ref_round(to, (exact){x, 0}, ref_direction(op), ref_has(op, "satfinite"));
  if (x != x && !strcmp(to, "f32") && !strcmp(from, "bf16")) r = in << 16; /* a move */
  if (ftz && !strcmp(to, "f32")) r = ref_flush(to, r);
  io->out[0] = relu(op, to, r);
  return REF_OK;
}

/* ---- packed: the first operand is the high half */
static void element_of(const char *packed, char type[16]) {
  strcpy(type, packed);
  char *x2 = strstr(type, "x2");
  if (x2) *x2 = 0;
}
static uint64_t ue8m0(const ref_op *op, wide x) {
  bool sat = ref_has(op, "satfinite");
  if (x != x) return 255;
  double a = fabs((double)x);
  if (isinf(a)) return sat ? 254 : 255;
  int e = 0;
  while (e < 254 && ldexp(1, e + 1 - 127) <= a) e++; /* 2^(e-127) <= a, or e = 0 */
  if (ref_has(op, "rp") && ldexp(1, e - 127) < a) e++;
  return e > 254 ? (sat ? 254 : 255) : (uint64_t)e;
}
static uint64_t narrow(const ref_op *op, const char *to, wide x) {
  if (!strcmp(to, "ue8m0")) return ue8m0(op, x);
  return relu(op, to, ref_round(to, (exact){x, 0}, ref_direction(op), ref_has(op, "satfinite")));
}
static ref_status packed(const ref_op *op, ref_io *io) {
  char to[16], from[16];
  element_of(op->type2, to);
  element_of(op->type, from);
  bool pair = strstr(op->type, "x2"), from_scale = !strcmp(from, "ue8m0");
  int bits = from_scale ? 8 : ref_bits(from), out_bits = !strcmp(to, "ue8m0") || to[0] == 'e' ? 8 : 16;
  if (!strcmp(to, "e2m1")) out_bits = 4;
  if (bits == 6) bits = 8;
  io->out[0] = 0;
  for (int h = 0; h < 2; h++) {
    uint64_t code = pair ? io->in[0] >> bits * h & ((1u << bits) - 1) : io->in[1 - h];
    if (!strcmp(from, "e2m3") || !strcmp(from, "e3m2")) code &= 0x3f;
    wide x = !from_scale ? ref_value(from, code) : code == 255 ? (wide)NAN : (wide)ldexp(1, (int)code - 127);
    io->out[0] |= narrow(op, to, x) << out_bits * h;
  }
  return REF_OK;
}
static ref_status cvt(const ref_op *op, ref_io *io) {
  if (strstr(op->type2, "x2")) return packed(op, io);
  if (!strcmp(op->type2, "tf32")) {
    wide x = ref_value("f32", io->in[0]);
    uint64_t code = ref_round("tf32", (exact){x, 0}, ref_direction(op), ref_has(op, "satfinite"));
    io->out[0] = x != x ? 0x7fffffff : relu(op, "tf32", code) << 13;
    return REF_OK;
  }
  return scalar(op, io);
}
const ref_entry ref_convert[] = {{"cvt", NULL, cvt, 0, 0}, {0}};
