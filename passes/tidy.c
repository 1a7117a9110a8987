/* tidy: what the passes before it left behind, cleaned up before ops are grouped: canon, cse and dce until nothing
 * changes. */
#include "rewrite.h"

ny_pass_fn ny_pass_canon, ny_pass_cse, ny_pass_dce, ny_pass_fold;

nyb_status ny_pass_tidy(ny_pass_cx *px, ny_graph *g, bool *changed) {
  for (int round = 0; round < 4; round++) {
    bool again = false;
    NY_TRY(ny_pass_canon(px, g, &again));
    if (px->opt->opt >= 1) NY_TRY(ny_pass_fold(px, g, &again));
    if (px->opt->opt >= 1) NY_TRY(ny_pass_cse(px, g, &again));
    NY_TRY(ny_pass_dce(px, g, &again));
    *changed |= again;
    if (!again) break;
  }
  return NYB_OK;
}
