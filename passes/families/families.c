/* The family table, and the named integers of a kernel. */
#include <string.h>

#include "family.h"

#define FAMILY(name, text) ny_lower_fn ny_lower_##name;
#define LEAD(op, family)
#include "families.def"
#undef FAMILY
#undef LEAD

const ny_family ny_families[] = {
#define FAMILY(name, text) {#name, text, ny_lower_##name},
#define LEAD(op, family)
#include "families.def"
#undef FAMILY
#undef LEAD
};
const int ny_n_families = NY_COUNT(ny_families);

const ny_family *ny_family_by_name(const char *name) {
  for (int i = 0; i < ny_n_families; i++)
    if (name && !strcmp(ny_families[i].name, name)) return &ny_families[i];
  return NULL;
}

const char *ny_family_led_by(ny_kind k, int i) {
  static const struct {
    ny_kind op;
    const char *family;
  } rows[] = {
#define FAMILY(name, text)
#define LEAD(op, family) {NY_##op, #family},
#include "families.def"
#undef FAMILY
#undef LEAD
  };
  for (size_t r = 0; r < NY_COUNT(rows); r++)
    if (rows[r].op == k && i-- == 0) return rows[r].family;
  return NULL;
}

void ny_knob_set(ny_graph *k, const char *name, int64_t value) {
  ny_name n = ny_intern(&k->cx->names, name);
  for (uint32_t i = 0; i < k->n_knob; i++)
    if (k->knob[i].name == n) {
      k->knob[i].value = value;
      return;
    }
  k->knob = ny_grow(&k->arena, k->knob, k->n_knob * sizeof *k->knob, (k->n_knob + 1u) * sizeof *k->knob);
  k->knob[k->n_knob].name = n;
  k->knob[k->n_knob++].value = value;
}

int64_t ny_knob(const ny_graph *k, const char *name, int64_t def) {
  for (uint32_t i = 0; i < k->n_knob; i++)
    if (!strcmp(k->knob[i].name, name)) return k->knob[i].value;
  return def;
}
