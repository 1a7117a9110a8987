/* What the decoder's files share. */
#ifndef NY_SIM_DECODE_H
#define NY_SIM_DECODE_H
#include "parse.h"
#include "rows.h"

typedef struct ny_fix { /* a label operand whose instruction is not yet known */
  uint32_t ins;
  uint32_t scope;
  ny_name name;
} ny_fix;
typedef struct ny_placed { /* a function of a kernel's image */
  const ny_func *f;
  uint32_t entry, reg_base, pred_base, frame_base, return_reg;
  bool open; /* being placed: meeting it again is recursion */
} ny_placed;
struct ny_ptx_decoder {
  ny_sim_module *m;
  ny_diag *d;
  nyb_status status;
  ny_ptx_kernel *k;
  const ny_placed *at; /* the function being decoded */
  const ny_raw *raw;
  ny_ptx_match match;
  ny_placed placed[256];
  uint32_t n_placed;
  uint32_t cap_code, cap_constants;
  uint32_t *slot; /* open addressing: constant pool offset + 1 by (value, width) */
  uint32_t n_slots;
  ny_ptx_match *known; /* by interned mnemonic */
  ny_name *known_name;
  uint32_t n_known;
  uint32_t *start; /* of the current function: instruction index by raw index */
  ny_fix *fix;
  uint32_t n_fixes, cap_fixes;
};
bool ny_decode_args(ny_ptx_decoder *dc, ny_ptx_ins *i);                     /* operands.c */
uint32_t ny_decode_constant(ny_ptx_decoder *dc, uint64_t v, uint8_t width); /* its offset in the pool */
bool ny_decode_guard(ny_ptx_decoder *dc, ny_ptx_ins *i);
/* Lets the registers of the function just decoded share places; returns the bytes that are left of `bytes` at base. */
uint32_t ny_decode_registers(ny_ptx_decoder *dc, uint32_t base, uint32_t bytes); /* registers.c */
bool ny_decode_call(ny_ptx_decoder *dc);                                         /* call.c */
ny_ptx_ins *ny_decode_emit(ny_ptx_decoder *dc, const ny_ptx_ins *i);             /* a copy at the end of the code */
const ny_placed *ny_decode_find(const ny_ptx_decoder *dc, ny_name name);
#endif
