/* Cast, CastLike and BitCast. The IR's cast saturates where ONNX leaves the result open; two targets need more:
   integers of 2 and 4 bits keep the low bits of a wider integer, and e8m0 has rounding modes of its own. */
#include "onnx.h"

#include <string.h>

/* Exponents only: f32 bits, rounded as the mode says, sign dropped. Infinity and NaN are NaN. */
static ny_value *to_e8m0(ny_node *n, ny_value *x, bool saturate) {
  const char *mode = ny_attr_string(n, "round_mode", "up");
  bool up = !strcmp(mode, "up"), nearest = !strcmp(mode, "nearest");
  if (!up && !nearest && strcmp(mode, "down"))
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "round_mode is \"%s\"", mode), NULL;
  x = ny_cast_to(n, x, NY_f32);
  if (!x) return NULL;
  const ny_type *t = ny_type_with_fmt(n->cx, x->type, NY_u32), *bt = ny_type_with_fmt(n->cx, x->type, NY_f8e8m0);
  ny_op *raw = ny_build(&n->b, NY_bitcast, &x, 1, &t, 1);
  if (!raw) return NULL;
  ny_value *e = ny_ew2s(n, NY_and, ny_ew2s(n, NY_shr, raw->out[0], 23), 255),
           *frac = ny_ew2s(n, NY_and, raw->out[0], 0x7fffff);
  ny_value *more = ny_ew2s(n, NY_gt, frac, nearest ? 0x400000 : 0);
  if (nearest) { /* a tie goes up, except to the smallest normal number */
    ny_value *tie = ny_ew2(n, NY_and, ny_ew2s(n, NY_eq, frac, 0x400000), ny_ew2s(n, NY_gt, e, 0));
    more = ny_ew2(n, NY_or, more, tie);
  }
  if (up || nearest) {
    ny_value *room = ny_ew2s(n, NY_lt, e, saturate ? 254 : 255);
    e = ny_ew2(n, NY_add, e, ny_cast_to(n, ny_ew2(n, NY_and, more, room), NY_u32));
  }
  e = ny_cast_to(n, e, NY_u8);
  ny_op *y = ny_build(&n->b, NY_bitcast, &e, 1, &bt, 1);
  return ny_done(n, y);
}

static nyb_status cast(ny_node *n, ny_value *x, ny_fmt f) {
  bool saturate = ny_attr_int(n, "saturate", 1) != 0, from_float = ny_is_float(ny_fmt_of(x));
  if (f == ny_fmt_of(x)) return ny_out(n, 0, x);
  if (f == NY_f8e8m0) return ny_out(n, 0, to_e8m0(n, x, saturate));
  if (from_float && ny_is_int(f) && ny_fmts[f].bits < 8) x = ny_cast_to(n, x, NY_i32);
  ny_value *y = ny_cast_to(n, x, f);
  if (y && !saturate && ny_is_float(f) && ny_fmts[f].bits <= 8) y->def->attr[NY_AT(cast, saturate)].i = 0;
  return ny_out(n, 0, y);
}

nyb_status ny_op_cast(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_fmt f;
  return x && ny_attr_fmt(n, "to", NY_none, &f) ? cast(n, x, f) : ny_failed(n);
}

nyb_status ny_op_cast_like(ny_node *n) {
  ny_value *x = ny_need(n, 0), *like = ny_need(n, 1);
  return x && like ? cast(n, x, ny_fmt_of(like)) : ny_failed(n);
}

nyb_status ny_op_bitcast(ny_node *n) {
  ny_value *x = ny_need(n, 0);
  ny_fmt f;
  if (!x || !ny_attr_fmt(n, "to", NY_none, &f)) return ny_failed(n);
  if (ny_fmts[f].bits != ny_fmts[ny_fmt_of(x)].bits)
    return ny_node_fail(n, NYB_E_UNSUPPORTED, "BitCast from %s to %s changes the width", ny_fmts[ny_fmt_of(x)].name,
                        ny_fmts[f].name);
  if (f == ny_fmt_of(x)) return ny_out(n, 0, x);
  const ny_type *t = ny_type_with_fmt(n->cx, x->type, f);
  ny_op *op = ny_build(&n->b, NY_bitcast, &x, 1, &t, 1);
  return ny_out(n, 0, ny_done(n, op));
}
