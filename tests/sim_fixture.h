/* What tests of the simulator share: one kernel of PTX text, run once, its findings and counters. */
#ifndef NY_SIM_FIXTURE_H
#define NY_SIM_FIXTURE_H
#include "sim.h"
#include "test.h"
#include <stdlib.h>
#include <string.h>

typedef struct ny_run {
  ny_sim_module *m;
  ny_sim_memory *mem;
  ny_sim_result r;
  ny_diag d;
  nyb_status status;
  ny_text printed;
} ny_run;
#define PTX_HEAD ".version 8.6\n.target sm_100a\n.address_size 64\n.extern .shared .align 16 .b8 dyn[];\n"

static void keep_text(void *user, const char *s, size_t n) { ny_text_addn(user, s, n); }

static bool load(ny_run *t, const char *ptx) {
  *t = (ny_run){0};
  t->mem = ny_sim_memory_new();
  ny_text all = {0};
  if (strncmp(ptx, ".version", 8)) ny_text_add(&all, PTX_HEAD);
  ny_text_add(&all, ptx);
  t->status = ny_sim_load(all.s, all.n, "test.ptx", &t->m, &t->d);
  ny_text_free(&all);
  return t->status == NYB_OK;
}
static void map(ny_run *t, const void *p, uint64_t bytes, const char *name) {
  CHECK_EACH(ny_sim_map(t->mem, p, bytes, name, false, NULL) == NYB_OK, "%s cannot be mapped", name);
}
/* `threads` in a block, `shared` dynamic bytes, pointers and numbers of 8 bytes as parameters. */
static void launch(ny_run *t, uint32_t blocks, uint32_t threads, uint32_t shared, const uint64_t *params,
                   ny_sim_options o) {
  ny_sim_result_free(&t->r);
  ny_diag_clear(&t->d);
  ny_text_free(&t->printed);
  t->printed = (ny_text){0};
  o.print = keep_text;
  o.print_user = &t->printed;
  ny_sim_launch l = {t->m, 0, {blocks, 1, 1}, {threads, 1, 1}, shared, params, t->mem, o};
  t->status = ny_sim_run(&l, &t->r, &t->d);
}
static void done(ny_run *t) {
  ny_sim_result_free(&t->r);
  ny_sim_unload(t->m);
  ny_sim_memory_free(t->mem);
  ny_text_free(&t->printed);
}
static inline const ny_sim_finding *found(const ny_run *t, ny_sim_finding_kind k) {
  for (uint32_t i = 0; i < t->r.n_findings; i++)
    if (t->r.finding[i].kind == k) return &t->r.finding[i];
  return NULL;
}
#endif
