/* atom and red. Lanes take their turn in order, so that one warp's conflicting lanes give a result that some order of
   the device gives too. Scope and semantics change nothing here: a launch runs on one thread, and the race check takes
   every atomic as an edge. */
#include "narrow.h"
#include "ptx.h"
#include <math.h>

typedef enum atomic_op { ADD, MIN, MAX, INC, DEC, AND, OR, XOR, EXCH, CAS } atomic_op;
/* The order of [] in all rows below. */
typedef enum atomic_type { U32, S32, B32, U64, S64, B64, F32, F64, F16, F16X2, BF16, BF16X2, B16 } atomic_type;
#define TYPES "[u32 s32 b32 u64 s64 b64 f32 f64 f16 f16x2 bf16 bf16x2 b16]"
static const uint8_t type_bytes[] = {4, 4, 4, 8, 8, 8, 4, 8, 2, 4, 2, 4, 2};
enum { N_TYPES = 13 };

typedef struct atomic {
  atomic_op op;
  atomic_type type;
  uint8_t space, n; /* n: elements of a vector */
  bool result;
} atomic;

/* ---- one element */
static uint64_t apply_int(atomic_op op, uint64_t old, uint64_t b, int bits, bool is_signed) {
  int unused = 64 - bits;
  old = old << unused >> unused;
  b = b << unused >> unused;
  int64_t so = (int64_t)(old << unused) >> unused, sb = (int64_t)(b << unused) >> unused;
  bool less = is_signed ? so < sb : old < b;
  switch (op) {
  case ADD: return old + b;
  case MIN: return less ? old : b;
  case MAX: return less ? b : old;
  case INC: return old >= b ? 0 : old + 1;
  case DEC: return !old || old > b ? b : old - 1;
  case AND: return old & b;
  case OR: return old | b;
  case XOR: return old ^ b;
  default: return b;
  }
}
static uint32_t apply_half(atomic_op op, uint32_t old, uint32_t b, bool bf) {
  float x = bf ? ny_widen_bf16(old) : ny_widen_f16(old), y = bf ? ny_widen_bf16(b) : ny_widen_f16(b);
  if (op == ADD) return bf ? ny_narrow_bf16(x + y) : ny_narrow_f16(x + y); /* rounding twice is once: half.c */
  if (isnan(x) || isnan(y)) return isnan(x) && isnan(y) ? 0x7fff : isnan(x) ? b : old;
  bool less = x < y || (x == y && signbit(x));
  return less == (op == MIN) ? old : b;
}
/* Additions of f32 flush subnormals on their way through global memory's units, not in shared memory. */
static uint32_t add_f32(uint32_t old, uint32_t b, bool flush) {
  if (flush) {
    old = old & 0x7f800000 ? old : old & 0x80000000;
    b = b & 0x7f800000 ? b : b & 0x80000000;
  }
  float sum = ny_f32_of(old) + ny_f32_of(b);
  uint32_t u = isnan(sum) ? 0x7fffffff : ny_f32_bits(sum);
  return flush && !(u & 0x7f800000) ? u & 0x80000000 : u;
}
static uint64_t apply(const atomic *x, uint64_t old, uint64_t b, bool global) {
  switch (x->type) {
  case F32:
    if (x->op == ADD) return add_f32((uint32_t)old, (uint32_t)b, global);
    return b; /* exch */
  case F64: {
    double sum = ny_f64_of(old) + ny_f64_of(b);
    return x->op != ADD ? b : isnan(sum) ? 0x7ff8000000000000 : ny_f64_bits(sum);
  }
  case F16:
  case BF16: return apply_half(x->op, (uint32_t)old, (uint32_t)b & 0xffff, x->type == BF16);
  case F16X2:
  case BF16X2:
    return apply_half(x->op, old & 0xffff, b & 0xffff, x->type == BF16X2) |
           (uint64_t)apply_half(x->op, (uint32_t)old >> 16, (uint32_t)b >> 16, x->type == BF16X2) << 16;
  default: return apply_int(x->op, old, b, 8 * type_bytes[x->type], x->type == S32 || x->type == S64);
  }
}

/* ---- handlers */
static uint64_t lane_of(const ny_sim_warp *w, const ny_ptx_ins *i, int k, uint32_t l) {
  return i->arg[k].width == 8 ? NY_U64(k)[l] : NY_U32(k)[l];
}

/* Where the results begin (0), the address, the first source. */
static void run(ny_sim_warp *w, const ny_ptx_ins *i, uint32_t mask) {
  const atomic *x = (const atomic *)(uintptr_t)i->data;
  int results = x->result ? x->n : 0, source = results + 1;
  uint32_t bytes = type_bytes[x->type];
  uint64_t addr[NY_LANES];
  uint8_t *p[NY_LANES];
  ny_addresses(w, i, results, addr);
  mask = ny_access(w, i, mask, (ny_ptx_space)x->space, addr, bytes * x->n, 0, NY_READ | NY_WRITE | NY_ATOMIC, p);
  NY_EACH_ACTIVE(l) {
    bool global = x->space == NY_GLOBAL || (x->space == NY_GENERIC && (addr[l] & NY_WINDOW_MASK) != NY_SHARED_WINDOW);
    for (int e = 0; e < x->n; e++) {
      uint64_t old = 0, b = lane_of(w, i, source + e, l), to;
      memcpy(&old, p[l] + (uint32_t)e * bytes, bytes);
      if (x->op == CAS)
        to = (old ^ b) << (64 - 8 * bytes) ? old : lane_of(w, i, source + 1, l);
      else
        to = apply(x, old, b, global);
      memcpy(p[l] + (uint32_t)e * bytes, &to, bytes);
      if (x->result && i->arg[e].width == 8)
        NY_U64(e)[l] = old;
      else if (x->result)
        NY_U32(e)[l] = (uint32_t)old;
    }
  }
}

static bool allowed(const atomic *x) {
  switch (x->type) {
  case U32: return x->op <= DEC || x->op >= EXCH; /* exchanges of .u32 are .b32 in the manual, and taken as well */
  case S32:
  case U64:
  case S64: return x->op <= MAX || x->op >= EXCH;
  case B32:
  case B64: return x->op >= AND;
  case F32:
  case F64: return x->op == ADD || x->op >= EXCH;
  case B16: return x->op == CAS;
  default: return x->op <= MAX;
  }
}
static bool fix_atomic(ny_ptx_decoder *dc, ny_ptx_ins *i) {
  static const char *const ops[] = {"add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"};
  atomic *x = ny_ptx_alloc(dc, sizeof *x);
  *x = (atomic){.n = 1, .type = (atomic_type)i->sub, .space = NY_GENERIC};
  x->result = ny_ptx_row_of(dc)->pattern[0] == 'a';
  for (int g = 0; g < NY_MAX_OPT; g++) {
    const char *word = ny_ptx_word(dc, g);
    if (!word || !*word) continue;
    for (size_t k = 0; k < NY_COUNT(ops); k++)
      if (!strcmp(ops[k], word)) x->op = (atomic_op)k;
    if (!strncmp(word, "shared", 6)) x->space = NY_SHARED;
    if (!strcmp(word, "global")) x->space = NY_GLOBAL;
    if (word[0] == 'v' && word[1] && !word[2]) x->n = (uint8_t)(word[1] - '0');
  }
  bool wide = x->n > 1;
  if (wide && (x->type < F32 || x->type == F64 || x->type == B16 || (x->type == F32 && x->op != ADD)))
    return ny_ptx_bad(dc, "vectors of atomics are f32 additions or of f16 and bf16");
  if (!allowed(x)) return ny_ptx_bad(dc, "this operation has no such type");
  if (wide && i->vec != x->n) return ny_ptx_bad(dc, "%u registers where %u are meant", i->vec, x->n);
  if (wide && x->n * type_bytes[x->type] > 16) return ny_ptx_bad(dc, "a vector of more than 16 bytes");
  i->space = x->space;
  i->bytes = type_bytes[x->type];
  i->vec = 0;
  i->data = (uint64_t)(uintptr_t)x;
  return true;
}

#define SEM "(relaxed acquire release acq_rel)?."
#define SCOPE "(cta cluster gpu sys)?."
#define SPACE "(global shared shared::cta shared::cluster)?."
#define OP "(add min max inc dec and or xor exch)."
#define HALF_OP "(add min max)."
#define HINT "(L2::cache_hint)?."
#define ALL                                                                                                            \
  { run, run, run, run, run, run, run, run, run, run, run, run, run }
_Static_assert((int)N_TYPES <= (int)NY_MAX_HANDLERS, "a handler for each type");
const ny_ptx_row ny_rows_atomic[] = {
    {"atom." SEM SCOPE SPACE OP "(noftz)?." HINT TYPES, "T m t l?", NY_CLS_atomic, fix_atomic, ALL},
    {"atom." SEM SCOPE SPACE "(cas)." TYPES, "T m t t", NY_CLS_atomic, fix_atomic, ALL},
    {"red." SEM SCOPE SPACE OP "(noftz)?." HINT TYPES, "m t l?", NY_CLS_atomic, fix_atomic, ALL},
    {"atom." SEM SCOPE SPACE HALF_OP "(noftz)?." HINT "(v2 v4 v8)." TYPES, "T+ m t+ l?", NY_CLS_atomic, fix_atomic,
     ALL},
    {"red." SEM SCOPE SPACE HALF_OP "(noftz)?." HINT "(v2 v4 v8)." TYPES, "m t+ l?", NY_CLS_atomic, fix_atomic, ALL},
};
const size_t ny_n_rows_atomic = NY_COUNT(ny_rows_atomic);
