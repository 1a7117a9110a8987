/* What the printer and the parser share. */
#ifndef NY_IR_TEXT_H
#define NY_IR_TEXT_H
#include "ir.h"

void ny_put_quoted(ny_text *out, const char *s);
/* At an opening quote; NULL on a syntax error, else *s is after the closing quote. */
ny_name ny_take_quoted(ny_ctx *cx, const char **s);
#endif
