/* What the parser makes of PTX text and the decoder turns into instructions: names are resolved, rows are not yet
 * known. */
#ifndef NY_SIM_PARSE_H
#define NY_SIM_PARSE_H
#include "ptx.h"

typedef struct ny_symbol {
  ny_name name;
  ny_ptx_space space;
  uint64_t bytes,
      address; /* address: shared, local, param: offset (shared ones per kernel, decode.c); global, const: host */
  uint32_t align;
  bool is_extern, is_entry_param;
} ny_symbol;

typedef enum ny_opd_kind {
  NY_OPD_REG,     /* off: in the function's registers */
  NY_OPD_PRED,    /* off: number in the function's predicates */
  NY_OPD_INT,     /* imm */
  NY_OPD_FLOAT,   /* imm: bits; width 4 or 8 */
  NY_OPD_SYMBOL,  /* sym + imm */
  NY_OPD_SPECIAL, /* off: index of a special register */
  NY_OPD_NAME,    /* a label or function */
  NY_OPD_SINK,    /* _ */
  NY_OPD_VECTOR,  /* elem[n] */
  NY_OPD_LIST,    /* (a, b) of a call */
  NY_OPD_MEM      /* [elem[0] + imm], n = 0: [imm] */
} ny_opd_kind;
typedef struct ny_opd {
  uint8_t kind, width;
  bool negated, joined, half; /* !p; written after |; REG of 16 bits */
  uint32_t off, n;
  int64_t imm;
  const ny_symbol *sym;
  ny_name name;
  struct ny_opd *elem;
} ny_opd;

typedef struct ny_raw { /* an instruction as written */
  ny_opd guard;         /* kind PRED when guarded */
  bool guarded;
  const char *op; /* mnemonic with modifiers, n_op characters */
  uint32_t n_op, n_opd;
  ny_opd *opd;
  uint32_t stmt, scope;
  uint32_t used; /* bytes of a load that the compiler says it wanted, a bit each; 0: all */
} ny_raw;
typedef struct ny_label {
  ny_name name;
  uint32_t scope, at; /* index of an instruction in the body */
  ny_name *target;    /* .branchtargets: its list */
  uint32_t n_targets;
} ny_label;
typedef struct ny_scope {
  uint32_t parent; /* UINT32_MAX: none */
} ny_scope;
typedef struct ny_func {
  ny_name name;
  bool is_entry, has_body;
  ny_symbol **param, **ret; /* formals */
  uint32_t n_params, cap_params, n_rets, cap_rets, param_bytes;
  uint32_t max_threads[3];
  ny_raw *raw;
  uint32_t n_raw, cap_raw;
  ny_label *label;
  uint32_t n_labels, cap_labels;
  ny_scope *scope;
  uint32_t n_scopes, cap_scopes;
  uint32_t reg_bytes, n_regs, n_preds, frame_bytes;
} ny_func;

typedef struct ny_ptx_kernel {
  ny_sim_kernel_info info;
  ny_ptx_ins *code;
  uint32_t n_code, entry;
  uint8_t *constants;
  uint32_t constant_bytes, reg_bytes, n_preds, frame_bytes;
} ny_ptx_kernel;
struct ny_sim_module {
  ny_arena arena;
  ny_names names;
  const char *file;
  int target;
  ny_symbol **symbol; /* of the module */
  uint32_t n_symbols, cap_symbols;
  ny_func **func;
  uint32_t n_funcs, cap_funcs;
  ny_ptx_stmt *stmt;
  uint32_t n_stmts, cap_stmts;
  ny_ptx_kernel *kernel;
  uint32_t n_kernels;
  ny_sim_variable *variable;
  ny_sim_range *range; /* of the variables */
  uint32_t n_variables, cap_variables;
};
nyb_status ny_ptx_parse(ny_sim_module *m, const char *text, size_t n, ny_diag *d); /* parse.c */
nyb_status ny_ptx_decode(ny_sim_module *m, ny_diag *d);                            /* decode.c */

/* ---- special.c: special registers. Those that do not change while a block runs are lanes; the others are read by mov.
 */
typedef struct ny_special {
  const char *name;
  uint8_t width; /* bytes of a lane */
  bool dynamic;
  uint64_t (*value)(const ny_sim_warp *w, uint32_t lane);
} ny_special;
extern const ny_special ny_specials[];
extern const uint32_t ny_n_specials;
int ny_special_by_name(const char *s, size_t n); /* -1: none */
enum { NY_SPECIAL_BYTES = 32 * 8 };

/* ---- lex.c */
typedef enum ny_tok {
  NY_TOK_END,
  NY_TOK_WORD,
  NY_TOK_INT,
  NY_TOK_FLOAT,
  NY_TOK_STRING,
  NY_TOK_PUNCT,
  NY_TOK_BAD
} ny_tok;
typedef struct ny_lex {
  const char *s, *end; /* what follows the token */
  const char *text;    /* the token */
  size_t n;
  ny_tok kind;
  char punct;    /* PUNCT */
  uint8_t width; /* FLOAT: 4 or 8 */
  int64_t value; /* INT; FLOAT: its bits */
  int line;      /* of the token */
  int next_line;
} ny_lex;
void ny_lex_next(ny_lex *x);
bool ny_lex_is(const ny_lex *x, const char *word);

/* ---- parse.c and parse_body.c share this */
typedef struct ny_reg_decl { /* %r<10> or one name */
  ny_name name;
  uint32_t count, scope, off; /* count 0: a single name */
  uint8_t width;              /* 0: predicate */
  bool half;
} ny_reg_decl;
typedef struct ny_local_symbol {
  ny_symbol *sym;
  uint32_t scope;
} ny_local_symbol;
typedef struct ny_reloc { /* an initialiser that is an address */
  uint8_t *at;
  ny_name name;
  int64_t add;
  uint32_t bytes;
} ny_reloc;
typedef struct ny_ptx_loc {
  ny_sim_place place;
  uint32_t file, column; /* file: its number; the names come at the end of the text */
  struct ny_ptx_loc *before;
} ny_ptx_loc;
typedef struct ny_parser {
  ny_lex x;
  ny_sim_module *m;
  ny_diag *d;
  nyb_status status;
  ny_func *f; /* whose body it is */
  uint32_t scope;
  ny_reg_decl *reg;
  uint32_t n_regs, cap_regs;
  ny_local_symbol *local;
  uint32_t n_locals, cap_locals;
  ny_reloc *reloc;
  uint32_t n_relocs, cap_relocs;
  const char **file; /* by number */
  uint32_t n_files;
  struct ny_ptx_loc *loc; /* the last .loc, with those before it */
  uint32_t used_bytes; /* of the next instruction: .pragma "used_bytes_mask n" */
} ny_parser;
bool ny_parse_bad(ny_parser *p, const char *fmt, ...) NY_PRINTF(2, 3); /* false */
bool ny_parse_punct(ny_parser *p, char c);                             /* that and on, or an error */
bool ny_parse_take(ny_parser *p, char c);                              /* on if it is that */
bool ny_parse_word(ny_parser *p, const char *w);                       /* on if it is that word */
ny_name ny_parse_name(ny_parser *p);                                   /* NULL: error */
bool ny_parse_count(ny_parser *p, uint64_t limit, uint64_t *out);      /* a number from 0 to limit */
/* `.align N .type name[dims] = init` after the space; of the function when inside of one. */
bool ny_parse_variable(ny_parser *p, ny_ptx_space space, bool is_extern);
bool ny_parse_type(ny_parser *p, ny_ptx_type *out); /* ".u32" */
bool ny_parse_body(ny_parser *p);                   /* after { , through the } */
bool ny_parse_loc(ny_parser *p);
const ny_symbol *ny_parse_find_symbol(ny_parser *p, ny_name name);
bool ny_parse_skip_block(ny_parser *p);
#endif
