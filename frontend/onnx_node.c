/* What builders ask of their node: inputs, results, attributes, and integers from either. */
#include <stdlib.h>
#include <string.h>
#include "onnx_import.h"

static void fail(ny_node *n, nyb_status code, const char *fmt, va_list ap) {
  char buf[512];
  vsnprintf(buf, sizeof buf, fmt, ap);
  ny_fail(&n->cx->diag, code, n->b.loc, "%s", buf);
}

/* One failure for each kind of result. */
#define FAIL_WITH(type, name, result)                                                                                  \
  type name(ny_node *n, nyb_status code, const char *fmt, ...) {                                                       \
    va_list ap;                                                                                                        \
    va_start(ap, fmt);                                                                                                 \
    fail(n, code, fmt, ap);                                                                                            \
    va_end(ap);                                                                                                        \
    return result;                                                                                                     \
  }
FAIL_WITH(nyb_status, ny_node_fail, n->cx->diag.code)
FAIL_WITH(bool, ny_refuse, false)
FAIL_WITH(void *, ny_refuse_value, NULL)

nyb_status ny_failed(ny_node *n) {
  return n->cx->diag.code ? n->cx->diag.code : ny_node_fail(n, NYB_E_INTERNAL, "the builder failed without saying why");
}

nyb_status ny_out_thing(ny_node *n, int i, ny_thing t) {
  if (!t.v && !t.list && !t.is_none) return ny_failed(n);
  if (i < n->n_out) n->out[i] = t;
  return NYB_OK;
}
nyb_status ny_out(ny_node *n, int i, ny_value *v) { return ny_out_thing(n, i, (ny_thing){.v = v}); }
bool ny_wanted(const ny_node *n, int i) { return i < n->n_out && n->src->out[i]; }

ny_value *ny_need(ny_node *n, int i) {
  ny_value *v = ny_opt(n, i);
  if (!v && !n->cx->diag.code) {
    bool other = i < n->n_in && (n->in_thing[i].list || n->in_thing[i].is_none);
    ny_node_fail(n, other ? NYB_E_TYPE : NYB_E_PARSE, other ? "input %d must be a tensor" : "input %d is missing", i);
  }
  return v;
}

/* ---- Attributes. Inside a function an attribute may refer to one of the call, which may itself refer further out. */
static const ny_onnx_attr *in_list(const ny_onnx_attr *list, uint32_t n, ny_name name) {
  for (uint32_t i = 0; i < n; i++)
    if (list[i].name == name) return &list[i];
  return NULL;
}

static const ny_onnx_attr *resolve(const ny_onnx_attr *a, const ny_scope *sc) {
  while (a && a->ref) {
    while (sc && !sc->fn) sc = sc->outer;
    if (!sc) return NULL;
    ny_name wanted = a->ref;
    a = in_list(sc->call->src->attr, sc->call->src->n_attr, wanted);
    if (!a) return in_list(sc->fn->attr_default, sc->fn->n_attr_default, wanted);
    sc = sc->call->scope;
  }
  return a;
}

static const ny_onnx_attr *lookup(ny_node *n, const char *name) {
  const ny_onnx_attr *a = in_list(n->src->attr, n->src->n_attr, ny_intern(&n->cx->names, name));
  return resolve(a, n->scope);
}

bool ny_attr_has(ny_node *n, const char *name) { return lookup(n, name) != NULL; }

const ny_onnx_attr *ny_find_attr(ny_node *n, const char *name, ny_onnx_attr_type type) {
  static const char *const what[] = {"undefined",      "float", "int",     "string",  "tensor", "graph",
                                     "floats",         "ints",  "strings", "tensors", "graphs", "sparse tensor",
                                     "sparse tensors", "type",  "types"};
  const ny_onnx_attr *a = lookup(n, name);
  if (!a || a->type == type) return a;
  return ny_refuse_value(n, NYB_E_PARSE, "attribute \"%s\" has type %s, not %s", name, what[a->type], what[type]);
}

int64_t ny_attr_int(ny_node *n, const char *name, int64_t def) {
  const ny_onnx_attr *a = ny_find_attr(n, name, NY_ATTR_INT);
  return a ? a->i : def;
}
double ny_attr_float(ny_node *n, const char *name, double def) {
  const ny_onnx_attr *a = ny_find_attr(n, name, NY_ATTR_FLOAT);
  return a ? a->f : def;
}
const char *ny_attr_string(ny_node *n, const char *name, const char *def) {
  const ny_onnx_attr *a = ny_find_attr(n, name, NY_ATTR_STRING);
  return a ? a->s : def;
}
const int64_t *ny_attr_ints(ny_node *n, const char *name, int *count) {
  const ny_onnx_attr *a = ny_find_attr(n, name, NY_ATTR_INTS);
  *count = a && a->n < INT32_MAX ? (int)a->n : 0;
  return *count ? a->ints : NULL;
}
const double *ny_attr_floats(ny_node *n, const char *name, int *count) {
  const ny_onnx_attr *a = ny_find_attr(n, name, NY_ATTR_FLOATS);
  *count = a && a->n < INT32_MAX ? (int)a->n : 0;
  return *count ? a->floats : NULL;
}
const char *const *ny_attr_strings(ny_node *n, const char *name, int *count) {
  const ny_onnx_attr *a = ny_find_attr(n, name, NY_ATTR_STRINGS);
  *count = a && a->n < INT32_MAX ? (int)a->n : 0;
  return *count ? a->strings : NULL;
}
int ny_attr_choice(ny_node *n, const char *name, const char *def, const char *choices) {
  const char *s = ny_attr_string(n, name, def);
  int i = 0;
  for (const char *c = choices;; c++, i++) {
    size_t len = strcspn(c, "|");
    if (strlen(s) == len && !strncmp(s, c, len)) return i;
    if (!*(c += len)) break;
  }
  ny_node_fail(n, NYB_E_UNSUPPORTED, "attribute \"%s\" is \"%s\", not one of %s", name, s, choices);
  return -1;
}
bool ny_attr_list(ny_node *n, const char *name, int64_t count, const int64_t **out) {
  int have;
  *out = ny_attr_ints(n, name, &have);
  if (!*out || have == count) return !n->cx->diag.code;
  return ny_refuse(n, NYB_E_SHAPE, "attribute \"%s\" has %d entries, not %lld", name, have, (long long)count);
}
ny_value *ny_attr_tensor(ny_node *n, const char *name) {
  const ny_onnx_attr *a = lookup(n, name);
  if (a && a->type == NY_ATTR_SPARSE_TENSOR) return ny_file_tensor(n->im, a->bytes, true, n->b.loc);
  a = ny_find_attr(n, name, NY_ATTR_TENSOR);
  return a ? ny_file_tensor(n->im, a->bytes, false, n->b.loc) : NULL;
}
const ny_onnx_graph *ny_attr_graph(ny_node *n, const char *name) {
  const ny_onnx_attr *a = ny_find_attr(n, name, NY_ATTR_GRAPH);
  return a ? a->g : NULL;
}
bool ny_attr_fmt(ny_node *n, const char *name, ny_fmt def, ny_fmt *out) {
  int64_t dtype = ny_attr_int(n, name, 0);
  if (def == NY_none && !ny_attr_has(n, name)) return ny_refuse(n, NYB_E_PARSE, "attribute \"%s\" is missing", name);
  *out = dtype ? ny_fmt_by_onnx(dtype > 0 && dtype < 1000 ? (int)dtype : 0) : def;
  if (*out == NY_str)
    ny_node_fail(n, NYB_E_UNSUPPORTED, "strings are not supported");
  else if (*out == NY_none)
    ny_node_fail(n, NYB_E_UNSUPPORTED, "attribute \"%s\": data type %lld is not supported", name, (long long)dtype);
  return *out != NY_none && *out != NY_str;
}

/* ---- Sizes */
bool ny_static_size(const ny_value *v, int axis, int64_t *out) {
  ny_dim d = v->type->dim[axis];
  if (d < 0) return false;
  *out = d;
  return true;
}

bool ny_need_static(ny_node *n, const ny_value *v, int axis, const char *what, int64_t *out) {
  if (ny_static_size(v, axis, out)) return true;
  ny_text t = {0};
  ny_dim_print(n->cx, v->type->dim[axis], &t);
  ny_node_fail(n, NYB_E_UNSUPPORTED, "%s must be known at import but is %s: give its symbols sizes (--dim NAME=N)",
               what, t.s);
  ny_text_free(&t);
  return false;
}

bool ny_axis(ny_node *n, int64_t axis, int rank, int *out) {
  if (axis < -rank || axis >= rank)
    return ny_refuse(n, NYB_E_SHAPE, "axis %lld is outside a tensor of rank %d", (long long)axis, rank);
  *out = (int)(axis < 0 ? axis + rank : axis);
  return true;
}
bool ny_attr_axis(ny_node *n, int64_t def, int rank, int *out) {
  return ny_axis(n, ny_attr_int(n, "axis", def), rank, out);
}
bool ny_axis_once(ny_node *n, int64_t axis, int rank, uint32_t *seen, int *out) {
  if (!ny_axis(n, axis, rank, out)) return false;
  if (*seen >> *out & 1) return ny_refuse(n, NYB_E_SHAPE, "axis %d is listed twice", *out);
  *seen |= 1u << *out;
  return true;
}
ny_dim ny_product(ny_node *n, const ny_dim *d, int count) {
  ny_dim p = 1;
  for (int i = 0; i < count; i++) p = ny_dim_mul(n->cx, p, d[i]);
  return p;
}

/* ---- Integers from inputs */
static bool const_ints(ny_node *n, const ny_tensor *t, int64_t *out, int cap, int *count) {
  int64_t k = 0;
  ny_fmt f = (ny_fmt)t->type->fmt;
  if (!ny_type_static_count(n->cx, t->type, &k) || k > cap || ny_is_float(f)) return false;
  for (int64_t i = 0; i < k; i++) out[i] = ny_get_i(f, t->data, (uint64_t)i);
  *count = (int)k;
  return true;
}

bool ny_try_dims(ny_node *n, int i, ny_dim *out, int cap, int *count) {
  ny_tensor t;
  ny_value *v = ny_opt(n, i);
  if (!v || n->cx->diag.code) return false;
  if (!ny_value_const(n, v, &t)) return v->type->rank <= 1 && ny_symbolic_values(n->im->g, v, out, cap, count);
  if (!const_ints(n, &t, out, cap, count)) return false;
  for (int k = 0; k < *count; k++) out[k] = ny_dim_const(n->cx, out[k] == INT64_MIN ? INT64_MIN + 1 : out[k]);
  return true;
}

bool ny_node_dims(ny_node *n, int i, ny_dim *out, int cap, int *count) {
  ny_value *v = ny_need(n, i);
  if (!v) return false;
  if (ny_try_dims(n, i, out, cap, count)) return true;
  return ny_refuse(
      n, NYB_E_UNSUPPORTED,
      "input %d (\"%s\") depends on data, so sizes are not known at import; fixing sizes (--dim NAME=N) may help", i,
      n->src->in[i]);
}

/* ny_node_dims and ny_node_ints take lists of any length up to `cap`; here it is one number. */
static bool is_one(ny_node *n, int i, int count) {
  return count == 1 || ny_refuse(n, NYB_E_SHAPE, "input %d (\"%s\") has %d elements, not 1", i, n->src->in[i], count);
}
bool ny_node_dim(ny_node *n, int i, ny_dim *out) {
  int count;
  return ny_node_dims(n, i, out, 1, &count) && is_one(n, i, count);
}
bool ny_node_int(ny_node *n, int i, int64_t def, int64_t *out) {
  int count;
  *out = def;
  return !ny_opt(n, i) || (ny_node_ints(n, i, out, 1, &count) && is_one(n, i, count));
}

bool ny_node_ints(ny_node *n, int i, int64_t *out, int cap, int *count) {
  ny_tensor t;
  if (!ny_need(n, i)) return false;
  if (ny_onnx_const(n, i, &t) && const_ints(n, &t, out, cap, count)) return true;
  return ny_refuse(
      n, NYB_E_UNSUPPORTED,
      "input %d (\"%s\") must be a constant list of at most %d integers; fixing sizes (--dim NAME=N) may help", i,
      n->src->in[i], cap);
}

double ny_number(const ny_tensor *t, int64_t i) {
  ny_fmt f = (ny_fmt)t->type->fmt;
  return ny_is_float(f) ? ny_get_f(f, t->data, (uint64_t)i) : (double)ny_get_i(f, t->data, (uint64_t)i);
}

bool ny_node_floats(ny_node *n, int i, double *out, int cap, int *count) {
  ny_tensor t;
  int64_t k;
  *count = 0;
  if (!ny_opt(n, i)) return !n->cx->diag.code;
  if (!ny_onnx_const(n, i, &t) || !ny_type_static_count(n->cx, t.type, &k) || k > cap)
    return ny_refuse(n, NYB_E_UNSUPPORTED, "input %d (\"%s\") must be at most %d constant numbers", i, n->src->in[i],
                     cap);
  while (*count < k) out[*count] = ny_number(&t, *count), ++*count;
  return true;
}

bool ny_node_scalar(ny_node *n, int i, double def, double *out) {
  int count;
  *out = def;
  return !ny_opt(n, i) || (ny_node_floats(n, i, out, 1, &count) && is_one(n, i, count));
}

bool ny_ints_or_attr(ny_node *n, int i, const char *attr, int64_t *out, int cap, int *count) {
  *count = -1;
  if (i >= 0 && ny_opt(n, i)) return ny_node_ints(n, i, out, cap, count);
  if (!ny_attr_has(n, attr)) return !n->cx->diag.code;
  const int64_t *v = ny_attr_ints(n, attr, count);
  if (*count > cap)
    return ny_refuse(n, NYB_E_UNSUPPORTED, "attribute \"%s\" has %d entries, more than %d", attr, *count, cap);
  if (*count) memcpy(out, v, (size_t)*count * sizeof *v);
  return !n->cx->diag.code;
}

bool ny_axes_or_attr(ny_node *n, int i, const char *attr, int rank, int *axes, int *count) {
  int64_t list[NY_MAX_RANK];
  uint32_t seen = 0;
  int a = 0;
  if (!ny_ints_or_attr(n, i, attr, list, NY_MAX_RANK, count)) return false;
  if (*count < 0) return true;
  for (int k = 0; k < *count; k++)
    if (!ny_axis_once(n, list[k], rank, &seen, &a)) return false;
  *count = 0;
  for (a = 0; a < rank; a++)
    if (seen >> a & 1) axes[(*count)++] = a;
  return true;
}
