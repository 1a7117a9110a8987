/* The prelude's text: prelude.cuh, embedded when nybble is built. Its parts begin with a line `//@ N`; a source gets those it uses. */
#include "emit.h"

#include <stdlib.h>
#include <string.h>

extern const char ny_cuda_prelude_text[];

void ny_cuda_prelude(uint32_t uses, ny_text *out) {
  if (uses & CU_P_BITS) uses |= CU_P_VECTOR;
  for (const char *p = ny_cuda_prelude_text; *p;) {
    char *end;
    uint32_t part = (uint32_t)strtoul(p + 4, &end, 10); /* after "//@ " */
    const char *body = end + 1, *next = strstr(body, "//@ ");
    if (!next) next = body + strlen(body);
    if (!part || (uses & part)) ny_text_addn(out, body, (size_t)(next - body));
    p = next;
  }
}
