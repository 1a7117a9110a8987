/* What the printer and the parser share, and the parser's cursor. */
#ifndef NY_IR_TEXT_H
#define NY_IR_TEXT_H
#include "ir.h"

enum {
  NY_TEXT_DEPTH = 64,  /* nested bodies */
  NY_TEXT_INLINE = 64, /* a constant of up to this many elements is written out */
};
size_t ny_word_length(const char *s); /* of the word s begins with; 0: none */
void ny_put_name(ny_text *out, const char *s);
void ny_put_quoted(ny_text *out, const char *s);
/* At an opening quote; NULL on a syntax error, else *s is after the closing quote. */
ny_name ny_take_quoted(ny_ctx *cx, const char **s);
void ny_put_blob_path(ny_text *out, const ny_unit *u,
                      const ny_blob *b); /* of a blob in a file, as it can be opened again */
void ny_put_base64(ny_text *out, const uint8_t *p, uint64_t n);
/* Can this type's elements be written as a list? */
bool ny_type_inline(const ny_type *t, int64_t *count);
void ny_put_element(ny_text *out, ny_fmt f, const void *data, uint64_t i);
void ny_put_rounded(ny_text *out, ny_fmt f, double x); /* the shortest decimal that becomes x in format f */

void ny_print_by_reference(const ny_unit *u, ny_text *out); /* blobs by id: only a reader that knows u can follow */

/* ---- The parser */
typedef struct ny_label { /* %name or %12, and what it stands for */
  ny_name name;
  bool number;
  ny_value *value;
} ny_label;
typedef struct ny_parser {
  ny_ctx *cx;
  ny_unit *unit;
  ny_graph *graph;
  const char *text, *s; /* NUL-terminated */
  const char *path;
  const ny_unit *like; /* whose blobs may be referred to, or NULL */
  int depth;
  ny_arena scratch;
  ny_label *slot;
  uint32_t n_slots, cap_slots;
  const ny_blob **blob;
  uint32_t n_blobs, cap_blobs;
  const ny_loc **locs;
  uint32_t n_locs, cap_locs;
  const char *data; /* the element list of the constant being read, or NULL */
} ny_parser;
nyb_status ny_p_fail(ny_parser *p, const char *fmt, ...) NY_PRINTF(2, 3);
void ny_p_space(ny_parser *p);
bool ny_p_take(ny_parser *p, char c);
nyb_status ny_p_expect(ny_parser *p, char c);
/* The word at the cursor, not taken; 0 when there is none. */
size_t ny_p_word(ny_parser *p);
bool ny_p_keyword(ny_parser *p, const char *word);
nyb_status ny_p_name(ny_parser *p, const char *what, ny_name *out); /* a word or a quoted string */
nyb_status ny_p_uint(ny_parser *p, uint64_t *out);                  /* decimal, or hexadecimal after 0x */
nyb_status ny_p_int(ny_parser *p, int64_t *out);
nyb_status ny_p_double(ny_parser *p, double *out);
nyb_status ny_p_dim(ny_parser *p, ny_dim *out);
nyb_status ny_p_type(ny_parser *p, const ny_type **out);
nyb_status ny_p_base64(ny_parser *p, uint8_t **out, uint64_t *n);
nyb_status ny_p_blob(ny_parser *p);             /* a declaration, after the word blob */
nyb_status ny_p_attrs(ny_parser *p, ny_op *op); /* key=value pairs */
nyb_status ny_p_data(ny_parser *p, ny_op *op);  /* after the types: what attributes could not be read without */
#endif
