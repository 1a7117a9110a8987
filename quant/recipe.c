/* Rows of recipes.def, and recipes made of them: "joint+bias+asym". */
#include <string.h>

#include "quant.h"

typedef struct base {
  const char *name, *text;
  ny_recipe r;
} base;
static const base bases[] = {
#define BASE(name, cand, how, fed, down, text)                                                                         \
  {#name, text, {.candidates = NY_CAND_##cand, .by = NY_BY_##how, .feed = fed, .descent = down, .damping = 0.05}},
#define EXTRA(name, text)
#include "recipes.def"
#undef BASE
#undef EXTRA
};

static bool extra(ny_recipe *r, const char *s, size_t n) {
#define BASE(name, cand, how, fed, down, text)
#define EXTRA(name, text)                                                                                              \
  if (n == sizeof #name - 1 && !memcmp(s, #name, n)) return r->name = true;
#include "recipes.def"
#undef BASE
#undef EXTRA
  return false;
}

nyb_status ny_recipe_parse(const char *text, ny_recipe *out, ny_diag *d) {
  bool first = true;
  for (const char *s = text;; first = false) {
    size_t n = strcspn(s, "+"), i = 0;
    while (first && i < NY_COUNT(bases) && (strlen(bases[i].name) != n || memcmp(bases[i].name, s, n))) i++;
    if (first ? i == NY_COUNT(bases) : !extra(out, s, n))
      return ny_fail(d, NYB_E_ARGUMENT, NULL, "recipe %s: %.*s is no %s (docs/quantization.md lists them)", text,
                     (int)n, s, first ? "recipe" : "addition to a recipe");
    if (first) *out = bases[i].r;
    if (!s[n]) return NYB_OK;
    s += n + 1;
  }
}

bool ny_recipe_needs_data(const ny_recipe *r) {
  return r->feed || r->by == NY_BY_HESSIAN || r->by == NY_BY_LOSS || r->bias || r->asym;
}
