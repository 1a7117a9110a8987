/* What the rule files of canon share. A rule returns what replaces op's one result, of the same type, or NULL. */
#ifndef NY_CANON_H
#define NY_CANON_H
#include "rewrite.h"

typedef ny_value *ny_rule_fn(ny_builder *b, ny_op *op, bool fast);
enum { NY_ANY_OP = NY_N_KINDS, NY_CONST_OP = NY_N_KINDS + 1 /* one number everywhere */, NY_MAP_OP = NY_N_KINDS + 2 };
typedef struct ny_rule {
  int kind, in0, in1; /* op, op of input 0, op of input 1 */
  ny_rule_fn *rewrite;
  bool fast; /* changes float results: only under --fast */
} ny_rule;
extern const ny_rule ny_view_rules[];
extern const int ny_n_view_rules;
extern const ny_rule ny_code_rules[];
extern const int ny_n_code_rules;
#endif
