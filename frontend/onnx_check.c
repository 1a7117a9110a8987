/* What can be said against a node before or beside its builder: more inputs, outputs or attributes than its operator
   has, and constant indices or lengths outside what they index. At run time an index from data is clamped; one that is
   wrong for every input is an error of the model. */
#include <string.h>
#include "onnx_import.h"

static const struct schema {
  const char *op;
  uint8_t n_in, n_out;
  const char *attrs;
} schemas[] = {
#define SCHEMA(op, n_in, n_out, attrs) {#op, n_in, n_out, attrs},
#include "onnx_schema.def"
#undef SCHEMA
};

static const struct schema *schema_of(const char *op) {
  size_t lo = 0, hi = NY_COUNT(schemas); /* rows are in order */
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    int c = strcmp(op, schemas[mid].op);
    if (!c) return &schemas[mid];
    if (c < 0)
      hi = mid;
    else
      lo = mid + 1;
  }
  return NULL;
}

static bool has_word(const char *words, const char *w) {
  size_t n = strlen(w);
  for (const char *p = words; n && (p = strstr(p, w)) != NULL; p += n)
    if ((p == words || p[-1] == ' ') && (p[n] == ' ' || !p[n])) return true;
  return false;
}

nyb_status ny_check_signature(ny_node *n) {
  const struct schema *s = *n->domain ? NULL : schema_of(n->op_type);
  if (!s) return NYB_OK;
  if (s->n_in < 255 && n->n_in > s->n_in)
    return ny_node_fail(n, NYB_E_PARSE, "the node has %d inputs, the operator takes %d at most", n->n_in, s->n_in);
  if (s->n_out < 255 && n->n_out > s->n_out)
    return ny_node_fail(n, NYB_E_PARSE, "the node has %d outputs, the operator gives %d at most", n->n_out, s->n_out);
  for (uint32_t i = 0; i < n->src->n_attr; i++)
    if (!has_word(s->attrs, n->src->attr[i].name))
      return ny_node_fail(n, NYB_E_PARSE, "the operator has no attribute \"%.100s\"", n->src->attr[i].name);
  return NYB_OK;
}

/* Elements first, first+step, ... of input i. */
static bool in_range(ny_node *n, int i, int64_t first, int64_t step, int64_t lo, int64_t hi, const char *what) {
  ny_tensor t;
  int64_t count;
  if (!ny_onnx_const(n, i, &t) || !ny_is_int((ny_fmt)t.type->fmt) || !ny_type_static_count(n->cx, t.type, &count))
    return true;
  for (int64_t k = first; k < count; k += step) {
    int64_t v = ny_get_i((ny_fmt)t.type->fmt, t.data, (uint64_t)k);
    if (v >= lo && v < hi) continue;
    return ny_refuse(n, NYB_E_SHAPE, "%s %lld is outside %lld..%lld", what, (long long)v, (long long)lo,
                     (long long)(hi - 1));
  }
  return true;
}

bool ny_numbers_fit(ny_node *n, int i, int64_t lo, ny_dim hi, const char *what) {
  int64_t limit;
  return !ny_dim_is_const(n->cx, hi, &limit) || in_range(n, i, 0, 1, lo, limit, what);
}

bool ny_coordinates_fit(ny_node *n, int i, const ny_value *x, int axis, int64_t width) {
  for (int64_t k = 0; k < width && axis + k < ny_rank(x); k++) {
    int64_t limit;
    if (!ny_static_size(x, axis + (int)k, &limit)) continue;
    if (!in_range(n, i, k, width, -limit, limit, "index")) return false;
  }
  return true;
}
