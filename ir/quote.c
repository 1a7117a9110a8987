/* Quoted names of the text form: any bytes in, printable ASCII out, and back. Names come from models and may hold anything but NUL. */
#include "text.h"

void ny_put_quoted(ny_text *out, const char *s) {
  ny_text_add(out, "\"");
  for (const unsigned char *c = (const unsigned char *)s; *c; c++) {
    if (*c == '"' || *c == '\\') ny_text_addf(out, "\\%c", *c);
    else if (*c >= 32 && *c < 127) ny_text_addf(out, "%c", *c);
    else ny_text_addf(out, "\\x%02x", *c);
  }
  ny_text_add(out, "\"");
}

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

ny_name ny_take_quoted(ny_ctx *cx, const char **s) {
  const char *c = *s;
  ny_text t = {0};
  ny_name name = NULL;
  if (*c++ != '"') return NULL;
  ny_text_add(&t, "");
  for (; *c && *c != '"' && *c != '\n'; c++) {
    char one = *c;
    if (one == '\\') {
      one = *++c;
      if (one == 'x') {
        int hi = hex(c[1]), lo = hi < 0 ? -1 : hex(c[2]);
        if (lo < 0 || hi + lo == 0) break;
        one = (char)(hi * 16 + lo);
        c += 2;
      } else if (one != '"' && one != '\\') {
        break;
      }
    }
    ny_text_addn(&t, &one, 1);
  }
  if (*c == '"') {
    name = ny_internn(&cx->names, t.n ? t.s : "", t.n);
    *s = c + 1;
  }
  ny_text_free(&t);
  return name;
}
