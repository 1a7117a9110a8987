/* The operator table: the rows of onnx_ops.def in a hash table by name. */
#include <string.h>
#include "onnx_import.h"

static const ny_onnx_row rows[] = {
#define ONNX(domain, op, first, last, required, builder, arg) {domain, op, first, last, required, ny_op_##builder, arg},
#include "onnx_ops.def"
#undef ONNX
};
enum { SLOTS = 2048 };
_Static_assert(NY_COUNT(rows) < SLOTS * 3 / 4, "the operator table needs more slots");

static uint32_t hash(const char *s) {
  uint32_t h = 2166136261u;
  for (; *s; s++) h = (h ^ (uint8_t)*s) * 16777619u;
  return h & (SLOTS - 1);
}

void ny_rows_open(ny_import *im) {
  im->rows = NY_NEW_ARRAY(&im->a, const ny_onnx_row *, SLOTS);
  for (size_t i = 0; i < NY_COUNT(rows); i++) {
    uint32_t h = hash(rows[i].op);
    while (im->rows[h]) h = (h + 1) & (SLOTS - 1);
    im->rows[h] = &rows[i];
  }
}

/* The row for this version; else any row of the operator, so that the caller can say which versions there are. */
const ny_onnx_row *ny_find_row(const ny_import *im, const char *domain, const char *op, int64_t version) {
  const ny_onnx_row *other = NULL;
  for (uint32_t h = hash(op); im->rows[h]; h = (h + 1) & (SLOTS - 1)) {
    const ny_onnx_row *r = im->rows[h];
    if (strcmp(r->op, op) || strcmp(r->domain, domain)) continue;
    if (version >= r->first && version <= r->last) return r;
    other = r;
  }
  return other;
}
