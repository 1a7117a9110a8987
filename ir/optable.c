/* ops.def as tables: kinds, their attribute schemas, and lookup by name. */
#include <string.h>

#include "infer.h"

/* The words of ops.def. */
enum {
  PURE = NY_PURE,
  VIEW = NY_VIEW,
  TERM = NY_TERM,
  GRAPH = NY_GRAPH,
  TILE = NY_TILE,
  BOTH = NY_BOTH,
};

/* clang-format off */
/* One struct of bytes a kind, closed by the next row: its size is the number of attributes and one. */
#define OP(name, level, min_in, max_in, n_out, n_body, flags, infer, text) char end_##name; }; struct attrs_##name {
#define EW(name, n_in, types, expr) char end_##name; }; struct attrs_##name {
#define ATTR(op, name, kind, def) char at_##name;
struct attrs_of_nothing {
#include "ops.def"
  char end;
};
#undef OP
#undef EW
#undef ATTR

/* Defaults by kind of attribute; the NAME `none` is NULL. */
#define NAME_IS_none ~, NULL
#define SECOND(a, b, ...) b
#define PICK(...) SECOND(__VA_ARGS__, 0)
#define DEFAULT_NAME(d) .def_name = PICK(NAME_IS_##d, #d)
#define DEFAULT_I64(d) .def = (double)(d)
#define DEFAULT_F64(d) .def = (double)(d)
#define DEFAULT_DIM(d) .def = (double)(d)
#define DEFAULT_NAMES(d) .def_name = NULL
#define DEFAULT_DIMS(d) .def_name = NULL
#define DEFAULT_BLOB(d) .def_name = NULL
static const ny_attr_info attrs[NY_N_ATTRS + 1] = {
#define OP(name, level, min_in, max_in, n_out, n_body, flags, infer, text)
#define EW(name, n_in, types, expr)
#define ATTR(op, name_, kind_, def_) [NY_ATG_##op##_##name_] = {.name = #name_, .kind = NY_##kind_, DEFAULT_##kind_(def_)},
#include "ops.def"
#undef OP
#undef EW
#undef ATTR
};

/* The order of operands does not matter to these, not even to NaN and the sign of zero. */
#define COMMUTES_add ~, NY_COMMUTES
#define COMMUTES_mul ~, NY_COMMUTES
#define COMMUTES_eq ~, NY_COMMUTES
#define COMMUTES_ne ~, NY_COMMUTES
#define COMMUTES_and ~, NY_COMMUTES
#define COMMUTES_or ~, NY_COMMUTES
#define COMMUTES_xor ~, NY_COMMUTES

#define ny_infer_none NULL
#define N_ATTR(op) (sizeof(struct attrs_##op) - 1)
const ny_kind_info ny_kinds[NY_N_KINDS] = {
#define OP(name_, level_, min_, max_, out_, body_, flags_, infer_, text_)                                    \
  [NY_##name_] = {.name = #name_, .text = text_, .level = level_, .min_in = min_, .max_in = max_,            \
                  .n_out = out_, .n_body = body_, .flags = flags_, .n_attr = (uint16_t)N_ATTR(name_),        \
                  .attr = attrs + NY_AT0_##name_, .infer = ny_infer_##infer_},
#define EW(name_, n_in_, types_, expr_)                                                                      \
  [NY_##name_] = {.name = #name_, .text = #expr_, .level = BOTH, .min_in = n_in_, .max_in = n_in_,           \
                  .n_out = 1, .flags = NY_PURE | NY_MAP | PICK(COMMUTES_##name_, 0), .ew = NY_EW_##types_,                               \
                  .n_attr = (uint16_t)N_ATTR(name_), .attr = attrs + NY_AT0_##name_, .infer = ny_infer_ew},
#define ATTR(op, name, kind, def)
#include "ops.def"
#undef OP
#undef EW
#undef ATTR
};
/* clang-format on */

ny_kind ny_kind_by_name(const char *s, size_t n) {
  for (int k = 0; k < NY_N_KINDS; k++)
    if (ny_kinds[k].name[0] == s[0] && strlen(ny_kinds[k].name) == n && !memcmp(ny_kinds[k].name, s, n))
      return (ny_kind)k;
  return NY_N_KINDS;
}
