/* TypeProto -> formats and sizes, and the symbols sizes are made of. A name from the model becomes a symbol of that
   name; a size without a name gets one from its input and axis. Sizes the user bound, and equations found by an earlier
   attempt, are put in here. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "onnx_import.h"

static ny_name clean(ny_import *im, const char *s) {
  char buf[128];
  size_t n = 0;
  bool any = false;
  for (; *s && n < sizeof buf - 1; s++) {
    bool ok = isalnum((unsigned char)*s) || *s == '_' || *s == '.';
    any |= isalnum((unsigned char)*s) != 0;
    buf[n++] = ok ? *s : '_';
  }
  buf[n] = 0;
  return any ? ny_intern(&im->cx->names, buf) : NULL;
}

static bool taken(const ny_import *im, ny_name s) {
  for (uint32_t i = 0; i < im->n_sym_of; i++)
    if (im->sym_of[i] == s) return true;
  return false;
}

/* The symbol that stands for `key`: the same for the same key in every attempt, and different for different keys. */
static ny_name symbol_for(ny_import *im, ny_name key, ny_name wanted, bool ours) {
  const uint32_t *known = ny_name_find(&im->sanitised, key);
  if (known) return im->sym_of[*known];
  ny_name s = wanted;
  for (int k = 2; taken(im, s); k++) s = ny_intern(&im->cx->names, ny_strf(&im->a, "%s_%d", wanted, k));
  ny_name_put(&im->sanitised, &im->a, key, im->n_sym_of);
  NY_PUSH_ROOM(&im->a, im->sym_of, im->n_sym_of, im->cap_sym_of);
  im->sym_of[im->n_sym_of++] = s;
  ny_name_put(&im->symbols, &im->a, s, ours);
  return s;
}

ny_dim ny_assumed(const ny_import *im, ny_dim d) {
  for (uint32_t i = 0; i < im->n_eq; i++)
    if (!im->eq[i].sym && im->eq[i].from == d) d = im->eq[i].to;
  return d;
}

static ny_dim size_of_symbol(ny_import *im, ny_name s) {
  for (size_t i = 0; i < im->n_dims; i++)
    if (!strcmp(im->dims[i].sym, s)) return ny_dim_const(im->cx, im->dims[i].value);
  ny_dim d = ny_dim_sym(im->cx, s);
  for (uint32_t i = 0; i < im->n_eq; i++)
    if (im->eq[i].sym) d = ny_dim_subst(im->cx, d, im->eq[i].sym, im->eq[i].to);
  return d;
}

static ny_dim missing_size(ny_import *im, ny_name stem, int axis) {
  ny_name clean_stem = clean(im, stem);
  ny_name key = ny_intern(&im->cx->names, ny_strf(&im->a, "\x01%s\x01%d", stem, axis));
  ny_name wanted = ny_intern(&im->cx->names, ny_strf(&im->a, "%s_%d", clean_stem ? clean_stem : "dim", axis));
  return size_of_symbol(im, symbol_for(im, key, wanted, true));
}

/* Every `sym` (or the size `from`) becomes `to` in the next attempt. */
static bool equation(ny_import *im, const ny_loc *loc, ny_name sym, ny_dim from, ny_dim to) {
  NY_PUSH_ROOM(&im->a, im->eq, im->n_eq, im->cap_eq);
  im->eq[im->n_eq++] = (ny_equation){.sym = sym, .from = from, .to = to, .loc = loc};
  im->restart = true;
  ny_fail(&im->cx->diag, NYB_E_INTERNAL, NULL, "sizes were found equal; the import starts again");
  return false;
}

static nyb_status malformed(ny_import *im, ny_name stem) {
  return ny_fail(&im->cx->diag, NYB_E_PARSE, NULL, "the type of \"%s\" is malformed", stem);
}

/* INPUT@AXIS binds a size that has no name, or whose name other sizes share. */
static const ny_binding *bound_axis(const ny_import *im, ny_name stem, int axis) {
  for (size_t i = 0; i < im->n_dims; i++) {
    const char *at = strrchr(im->dims[i].sym, '@');
    if (at && (size_t)(at - im->dims[i].sym) == strlen(stem) && !strncmp(im->dims[i].sym, stem, strlen(stem)) &&
        atoi(at + 1) == axis)
      return &im->dims[i];
  }
  return NULL;
}

static nyb_status apply_bound(ny_import *im, ny_name stem, int axis, ny_dim *size) {
  const ny_binding *b = bound_axis(im, stem, axis);
  int64_t v;
  if (!b) return NYB_OK;
  if (!ny_dim_is_const(im->cx, *size, &v))
    return equation(im, NULL, ny_dim_get(im->cx, *size)->name, 0, ny_dim_const(im->cx, b->value)), im->cx->diag.code;
  if (v == b->value) return NYB_OK;
  return ny_fail(&im->cx->diag, NYB_E_SHAPE, NULL, "input \"%s\" has size %lld on axis %d, not %lld", stem,
                 (long long)v, axis, (long long)b->value);
}

/* A Dimension: dim_value 1, dim_param 2. */
static nyb_status dimension(ny_import *im, ny_bytes proto, ny_name stem, int axis, ny_dim *out) {
  ny_name param = NULL;
  int64_t value = -1;
  bool has_value = false;
  ny_pb r = ny_pb_over(proto);
  while (ny_pb_next(&r)) {
    if (r.field == 1 && r.wire == NY_PB_VARINT) value = (int64_t)r.value, has_value = true;
    if (r.field == 2 && r.wire == NY_PB_LEN && r.bytes.n && r.bytes.n < 4096 && !memchr(r.bytes.p, 0, r.bytes.n))
      param = ny_internn(&im->cx->names, (const char *)r.bytes.p, r.bytes.n);
  }
  if (r.bad) return malformed(im, stem);
  ny_name cleaned = param ? clean(im, param) : NULL;
  if (has_value && value > (INT64_C(1) << 40))
    return ny_fail(&im->cx->diag, NYB_E_LIMIT, NULL, "\"%s\" has a size of %lld on axis %d", stem, (long long)value,
                   axis);
  if (has_value && value >= 0)
    *out = ny_dim_const(im->cx, value);
  else if (cleaned)
    *out = size_of_symbol(im, symbol_for(im, param, cleaned, false));
  else
    *out = missing_size(im, stem, axis);
  return apply_bound(im, stem, axis, out);
}

static nyb_status shape(ny_import *im, ny_bytes proto, ny_name stem, ny_onnx_type *out) {
  ny_pb r = ny_pb_over(proto);
  out->rank = 0;
  while (ny_pb_next(&r)) {
    if (r.field != 1 || r.wire != NY_PB_LEN) continue;
    if (out->rank == NY_MAX_RANK)
      return ny_fail(&im->cx->diag, NYB_E_UNSUPPORTED, NULL, "\"%s\" has more than %d dimensions", stem,
                     (int)NY_MAX_RANK);
    NY_TRY(dimension(im, r.bytes, stem, out->rank, &out->dim[out->rank]));
    out->rank++;
  }
  return r.bad ? malformed(im, stem) : NYB_OK;
}

static nyb_status tensor_type(ny_import *im, ny_bytes proto, ny_name stem, ny_onnx_type *out) {
  ny_pb r = ny_pb_over(proto);
  while (ny_pb_next(&r)) {
    if (r.field == 1 && r.wire == NY_PB_VARINT) out->fmt = ny_fmt_by_onnx(r.value < 1000 ? (int)r.value : 0);
    if (r.field == 2 && r.wire == NY_PB_LEN) NY_TRY(shape(im, r.bytes, stem, out));
  }
  return r.bad ? malformed(im, stem) : NYB_OK;
}

static nyb_status type(ny_import *im, ny_bytes proto, ny_name stem, int depth, ny_onnx_type *out) {
  if (depth > 8) return malformed(im, stem);
  ny_pb r = ny_pb_over(proto);
  while (ny_pb_next(&r)) {
    if (r.wire != NY_PB_LEN) continue;
    if (r.field == 1) NY_TRY(tensor_type(im, r.bytes, stem, out));
    if (r.field == 5 || r.field == 7 || r.field == 8) out->other = true;
    if (r.field != 4 && r.field != 9) continue;
    if (r.field == 4)
      out->sequence = true;
    else
      out->optional = true;
    ny_pb inner = ny_pb_over(r.bytes);
    while (ny_pb_next(&inner))
      if (inner.field == 1 && inner.wire == NY_PB_LEN) NY_TRY(type(im, inner.bytes, stem, depth + 1, out));
    if (inner.bad) return malformed(im, stem);
  }
  return r.bad ? malformed(im, stem) : NYB_OK;
}

nyb_status ny_onnx_type_read(ny_import *im, ny_bytes proto, ny_name stem, ny_onnx_type *out) {
  *out = (ny_onnx_type){.rank = -1};
  return type(im, proto, stem, 0, out);
}

ny_fmt ny_onnx_elem_type(ny_bytes proto) {
  ny_fmt f = NY_none;
  ny_pb r = ny_pb_over(proto);
  while (ny_pb_next(&r)) {
    if (r.field != 1 || r.wire != NY_PB_LEN) continue;
    ny_pb t = ny_pb_over(r.bytes);
    while (ny_pb_next(&t))
      if (t.field == 1 && t.wire == NY_PB_VARINT) f = ny_fmt_by_onnx(t.value < 1000 ? (int)t.value : 0);
  }
  return f;
}

/* ---- Equal sizes */
nyb_status ny_assume(ny_node *n, ny_dim from, ny_dim to) {
  if (!ny_try_unify(n, from, to) && !n->cx->diag.code) equation(n->im, n->b.loc, NULL, from, to);
  return n->cx->diag.code;
}

static ny_name pure_symbol(const ny_import *im, ny_dim d) {
  if (d >= 0) return NULL;
  const ny_dim_node *x = ny_dim_get(im->cx, d);
  return x->kind == NY_DIM_SYM && ny_name_find(&im->symbols, x->name) ? x->name : NULL;
}

static bool named_by_us(const ny_import *im, ny_name s) {
  const uint32_t *ours = ny_name_find(&im->symbols, s);
  return ours && *ours;
}

/* d == c for d = k*?s: the value of ?s. */
static bool solve_product(ny_import *im, ny_dim d, int64_t c, ny_name *sym, int64_t *value) {
  ny_name *list = NULL;
  size_t n = 0, cap = 0;
  ny_dim_symbols(im->cx, d, &list, &n, &cap, &im->a);
  if (n != 1) return false;
  int64_t k = 0;
  ny_dim s = ny_dim_sym(im->cx, list[0]), q = ny_dim_div(im->cx, d, s);
  if (!ny_dim_is_const(im->cx, q, &k) || k <= 0 || ny_dim_mul(im->cx, q, s) != d || c % k) return false;
  *sym = list[0];
  *value = c / k;
  return true;
}

static bool is_min_with(const ny_import *im, ny_dim d, ny_dim part) {
  if (d >= 0) return false;
  const ny_dim_node *x = ny_dim_get(im->cx, d);
  return x->kind == NY_DIM_MIN && (x->a == part || x->b == part);
}

bool ny_try_unify(ny_node *n, ny_dim a, ny_dim b) {
  ny_import *im = n->im;
  if (a == NY_DIM_INVALID || b == NY_DIM_INVALID) return ny_refuse(n, NYB_E_SHAPE, "a size has more than 63 bits or divides by zero");
  if (a == b) return true;
  if (im->cx->diag.code) return false;
  ny_name sa = pure_symbol(im, a), sb = pure_symbol(im, b);
  if (sa && sb && !named_by_us(im, sa) && named_by_us(im, sb)) sa = NULL;
  if (sa && !ny_dim_uses(im->cx, b, sa)) return equation(im, n->b.loc, sa, 0, b);
  if (sb && !ny_dim_uses(im->cx, a, sb)) return equation(im, n->b.loc, sb, 0, a);
  if (is_min_with(im, a, b)) return equation(im, n->b.loc, NULL, a, b);
  if (is_min_with(im, b, a)) return equation(im, n->b.loc, NULL, b, a);
  int64_t c, value;
  ny_name sym;
  bool found = (ny_dim_is_const(im->cx, b, &c) && solve_product(im, a, c, &sym, &value)) ||
               (ny_dim_is_const(im->cx, a, &c) && solve_product(im, b, c, &sym, &value));
  return found && ny_name_find(&im->symbols, sym) ? equation(im, n->b.loc, sym, 0, ny_dim_const(im->cx, value)) : false;
}

bool ny_unify(ny_node *n, ny_dim a, ny_dim b, const char *what) {
  if (ny_try_unify(n, a, b)) return true;
  if (n->cx->diag.code) return false;
  ny_text t = {0};
  ny_dim_print(n->cx, a, &t);
  ny_text_add(&t, " and ");
  ny_dim_print(n->cx, b, &t);
  ny_node_fail(n, NYB_E_SHAPE, "%s: sizes %s must be equal", what, t.s);
  ny_text_free(&t);
  return false;
}
