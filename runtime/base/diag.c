/* One diagnostic, written where the fault is. Callers only pass the status up; the first failure wins, because what
   fails while unwinding is a consequence. */
#include "base.h"
#include <string.h>

nyb_status ny_fail(ny_diag *d, nyb_status code, const ny_loc *loc, const char *fmt, ...) {
  if (!d || d->code) return code;
  d->code = code;
  d->has_loc = loc != NULL;
  if (loc) d->loc = *loc;
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(d->message, sizeof d->message, fmt, ap);
  va_end(ap);
  if (n < 0) d->message[0] = 0;
  if (n >= (int)sizeof d->message) memcpy(d->message + sizeof d->message - 4, "...", 4);
  return code;
}

void ny_diag_clear(ny_diag *d) {
  /* file and pass say where we are, not what failed: they stay. */
  d->code = NYB_OK;
  d->has_loc = false;
  d->loc = (ny_loc){0};
  d->line = 0;
  d->message[0] = 0;
}

void ny_diag_print(const ny_diag *d, ny_text *out) {
  if (d->file) {
    ny_text_add(out, d->file);
    if (d->line > 0) ny_text_addf(out, ":%d", d->line);
    ny_text_add(out, ": ");
  } else if (d->line > 0) {
    ny_text_addf(out, "line %d: ", d->line);
  }
  if (d->pass) ny_text_addf(out, "pass %s: ", d->pass);
  if (d->has_loc && (d->loc.node || d->loc.op_type)) {
    ny_text_addf(out, "node %u", d->loc.index);
    if (d->loc.node && d->loc.node[0]) ny_text_addf(out, " \"%s\"", d->loc.node);
    if (d->loc.op_type && d->loc.op_type[0]) ny_text_addf(out, " (%s)", d->loc.op_type);
    ny_text_add(out, ": ");
  }
  ny_text_add(out, d->message);
}
