/* Reading rows: for the decoder and for tests that go through all of them. */
#ifndef NY_SIM_ROWS_H
#define NY_SIM_ROWS_H
#include "ptx.h"
typedef struct ny_ptx_match {
  const ny_ptx_row *row;
  uint8_t sub, opt[NY_MAX_OPT];
  const char *word[NY_MAX_OPT]; /* into the mnemonic */
  uint8_t n_word[NY_MAX_OPT];
  ny_ptx_type type; /* of [] */
} ny_ptx_match;
bool ny_row_match(const ny_ptx_row *row, const char *mnemonic, size_t n, ny_ptx_match *out);
typedef struct ny_row_item { /* one operand of a row */
  char letter;
  int count; /* -1: no vector, 0: +, else that many */
  bool optional, joined;
} ny_row_item;
const char *ny_row_item_next(const char *s, ny_row_item *out); /* the rest; NULL: no more */
#endif
