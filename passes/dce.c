/* dce: drops pure ops that nothing uses. */
#include "rewrite.h"

nyb_status ny_pass_dce(ny_pass_cx *px, ny_graph *g, bool *changed) {
  (void)px;
  *changed |= ny_drop_dead(&g->body);
  return NYB_OK;
}
