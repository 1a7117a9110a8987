/* Raising the operator set of a model. Every definition that changed between two operator sets is in onnx_upgrade.def:
   most changes leave nodes of before as they are; for the others there is a rule here, which rewrites the node, or
   refuses it by name. Operators of other domains have versions of their own and stay. */
#include "onnx_edit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST = 7, NEWEST = 25, LEAST = 15 }; /* what is raised at all goes to LEAST: rules may use its operators */

typedef struct up { /* a node on its way */
  ny_edit *e;
  ny_edit_graph *g;
  ny_edit_node *n;
  int64_t version; /* whose change is being made */
} up;
typedef nyb_status rule(up *u);

static nyb_status refuse(up *u, const char *why) {
  const ny_edit_node *n = u->n;
  const char *name = *n->name ? n->name : n->n_out ? n->out[0] : "";
  return ny_fail(&u->e->cx->diag, NYB_E_UNSUPPORTED, NULL,
                 "node \"%s\" (%s) cannot be carried to operator set %lld: %s", name, n->op_type, (long long)u->version,
                 why);
}

/* Attributes that become inputs must have values of their own. */
static bool depends(const up *u, const char *name) {
  const ny_edit_attr *a = ny_edit_find_attr(u->n, name);
  return a && a->ref;
}
#define OWN(u, name)                                                                                                   \
  do {                                                                                                                 \
    if (depends(u, name)) return refuse(u, "attribute \"" name "\" is an argument of a function");                     \
  } while (0)

/* A constant for an input: an initializer, or a node where there are none. */
static ny_name constant(up *u, const char *stem, const ny_edit_tensor *t) {
  ny_edit *e = u->e;
  stem = ny_strf(&e->a, "%s_%s", u->n->n_out && *u->n->out[0] ? u->n->out[0] : u->n->op_type, stem);
  ny_name name = ny_edit_fresh(e, stem);
  if (!u->g->is_function) {
    ny_edit_set_init(e, u->g, name, t);
    return name;
  }
  const char *out[1] = {name};
  ny_edit_node *c = ny_edit_add_node(e, u->g, u->n, "", "Constant", ny_strf(&e->a, "%s_node", name), NULL, 0, out, 1);
  ny_edit_set_tensor(e, c, "value", t);
  return name;
}

static ny_name ints(up *u, const char *stem, int rank, const int64_t *v, int64_t count) {
  int64_t *copy = NY_NEW_ARRAY(&u->e->a, int64_t, count + 1);
  if (count) memcpy(copy, v, (size_t)count * sizeof *v);
  return constant(u, stem, &(ny_edit_tensor){.fmt = NY_i64, .rank = rank, .dim = {count}, .data = copy});
}

static ny_name floats(up *u, const char *stem, int rank, const float *v, int64_t count) {
  float *copy = NY_NEW_ARRAY(&u->e->a, float, count + 1);
  if (count) memcpy(copy, v, (size_t)count * sizeof *v);
  return constant(u, stem, &(ny_edit_tensor){.fmt = NY_f32, .rank = rank, .dim = {count}, .data = copy});
}

/* A number in the format of input 0, whatever that is. */
static ny_name number(up *u, const char *stem, double x) {
  float f = (float)x;
  ny_edit *e = u->e;
  const char *in[2] = {floats(u, stem, 0, &f, 1), u->n->in[0]};
  const char *out[1] = {ny_edit_fresh(e, ny_strf(&e->a, "%s_like", in[0]))};
  ny_edit_add_node(e, u->g, u->n, "", "CastLike", out[0], in, 2, out, 1);
  return out[0];
}

static const char *nothing(const up *u) { return ny_intern(&u->e->cx->names, ""); }

/* An attribute, a list of integers, becomes input i; absent stays absent. */
static nyb_status list_to_input(up *u, const char *attr, uint32_t i) {
  int64_t v[64];
  int count = ny_edit_attr_ints(u->n, attr, v, 64);
  if (depends(u, attr)) return refuse(u, "an attribute that becomes an input is an argument of a function");
  if (count > 64) return refuse(u, "an attribute has more than 64 entries");
  if (count > 0) ny_edit_set_in(u->e, u->n, i, ints(u, attr, 1, v, count));
  ny_edit_drop_attr(u->n, attr);
  return NYB_OK;
}

static nyb_status ny_up_refuse(up *u) { return refuse(u, "its meaning changed"); }

static nyb_status ny_up_one_output(up *u) {
  for (uint32_t i = 1; i < u->n->n_out; i++)
    if (*u->n->out[i] && ny_edit_graph_reads(u->g, u->n->out[i]))
      return refuse(u, "its further results are not what they were");
  if (u->n->n_out > 1) u->n->n_out = 1, u->n->changed = true;
  return NYB_OK;
}

static nyb_status ny_up_batch_norm_spatial(up *u) {
  if (depends(u, "spatial") || !ny_edit_attr_int(u->n, "spatial", 1)) return refuse(u, "spatial=0 is gone");
  ny_edit_drop_attr(u->n, "spatial");
  return NYB_OK;
}

static nyb_status ny_up_clip(up *u) {
  OWN(u, "min");
  OWN(u, "max");
  static const char *const side[] = {"min", "max"};
  for (uint32_t i = 0; i < 2; i++) {
    double x = ny_edit_attr_float(u->n, side[i], NAN);
    bool none = isnan(x) || fabs(x) >= 3.4e38; /* exporters write the largest number for no bound */
    if (!none) ny_edit_set_in(u->e, u->n, i + 1, number(u, side[i], x));
    ny_edit_drop_attr(u->n, side[i]);
  }
  return NYB_OK;
}

/* Nothing is dropped at inference, whatever the ratio. */
static nyb_status ny_up_dropout(up *u) { return ny_edit_drop_attr(u->n, "ratio"), NYB_OK; }

static nyb_status ny_up_pad(up *u) {
  OWN(u, "value");
  double x = ny_edit_attr_float(u->n, "value", 0);
  NY_TRY(list_to_input(u, "pads", 1));
  if (x != 0) ny_edit_set_in(u->e, u->n, 2, number(u, "value", x));
  ny_edit_drop_attr(u->n, "value");
  return NYB_OK;
}

/* The numbers of a FLOATS attribute; -1: absent or too many. */
static int float_list(const ny_edit_node *n, const char *name, float *out, int cap) {
  const ny_edit_attr *a = ny_edit_find_attr(n, name);
  int k = 0;
  if (!a || a->type != NY_ATTR_FLOATS || a->ref) return -1;
  ny_pb r = ny_pb_over(a->proto);
  while (ny_pb_next(&r)) {
    if (r.field != 7) continue;
    uint64_t count = r.wire == NY_PB_32 ? 1 : r.bytes.n / 4;
    if (count > (uint64_t)(cap - k)) return -1;
    if (r.wire == NY_PB_32) out[k++] = ny_pb_f32(r.value);
    for (uint64_t i = 0; r.wire == NY_PB_LEN && i < count; i++) memcpy(&out[k++], r.bytes.p + 4 * i, 4);
  }
  return k;
}

static nyb_status ny_up_upsample_scales(up *u) {
  float v[NY_MAX_RANK];
  int n = float_list(u->n, "scales", v, NY_MAX_RANK);
  if (n < 0) return refuse(u, "attribute \"scales\" is missing");
  ny_edit_set_in(u->e, u->n, 1, floats(u, "scales", 1, v, n));
  ny_edit_drop_attr(u->n, "scales");
  return NYB_OK;
}

static nyb_status rename_op(up *u, const char *op) {
  u->n->op_type = ny_intern(&u->e->cx->names, op);
  u->n->changed = true;
  return NYB_OK;
}
static nyb_status ny_up_upsample(up *u) { return rename_op(u, "Resize"); }
static nyb_status ny_up_scatter(up *u) { return rename_op(u, "ScatterElements"); }

static nyb_status ny_up_resize(up *u) {
  if (u->n->n_in < 2) return refuse(u, "input 1 is missing");
  ny_name scales = u->n->in[1];
  ny_edit_set_in(u->e, u->n, 2, scales);
  ny_edit_set_in(u->e, u->n, 1, nothing(u));
  ny_edit_set_string(u->e, u->n, "coordinate_transformation_mode", "asymmetric");
  ny_edit_set_string(u->e, u->n, "nearest_mode", "floor");
  return NYB_OK;
}
static nyb_status ny_up_resize_mode(up *u) {
  const char *mode = ny_edit_attr_string(u->e, u->n, "coordinate_transformation_mode", "");
  return strcmp(mode, "tf_half_pixel_for_nn") ? NYB_OK : refuse(u, "mode tf_half_pixel_for_nn is gone");
}

static nyb_status ny_up_slice(up *u) {
  int64_t v[1];
  bool axes = ny_edit_attr_ints(u->n, "axes", v, 1) > 0;
  NY_TRY(list_to_input(u, "starts", 1));
  NY_TRY(list_to_input(u, "ends", 2));
  return axes ? list_to_input(u, "axes", 3) : NYB_OK;
}

static nyb_status ny_up_axes(up *u) { return list_to_input(u, "axes", 1); }

static nyb_status ny_up_split(up *u) { return list_to_input(u, "split", 1); }
static nyb_status ny_up_split_count(up *u) {
  bool sizes = u->n->n_in > 1 && *u->n->in[1];
  if (!sizes) ny_edit_set_int(u->e, u->n, "num_outputs", u->n->n_out);
  return NYB_OK;
}

static nyb_status ny_up_top_k(up *u) {
  OWN(u, "k");
  int64_t k = ny_edit_attr_int(u->n, "k", -1);
  ny_edit_set_in(u->e, u->n, 1, ints(u, "k", 1, &k, 1));
  ny_edit_drop_attr(u->n, "k");
  return NYB_OK;
}

static nyb_status ny_up_roi_align(up *u) {
  ny_edit_set_string(u->e, u->n, "coordinate_transformation_mode", "output_half_pixel");
  return NYB_OK;
}

static nyb_status ny_up_grid_sample(up *u) {
  OWN(u, "mode");
  const char *mode = ny_edit_attr_string(u->e, u->n, "mode", "bilinear");
  if (!strcmp(mode, "bilinear")) ny_edit_set_string(u->e, u->n, "mode", "linear");
  if (!strcmp(mode, "bicubic")) ny_edit_set_string(u->e, u->n, "mode", "cubic");
  return NYB_OK;
}

static nyb_status ny_up_dft(up *u) {
  OWN(u, "axis");
  int64_t axis = ny_edit_attr_int(u->n, "axis", 1);
  if (u->n->n_in < 2) ny_edit_set_in(u->e, u->n, 1, nothing(u));
  ny_edit_set_in(u->e, u->n, 2, ints(u, "axis", 0, &axis, 1));
  ny_edit_drop_attr(u->n, "axis");
  return NYB_OK;
}

/* ---- Softmax and its relatives worked on all dims from `axis` on, as one. */
static int rank_of_type(ny_bytes type) { /* TypeProto { tensor_type 1 { shape 2 { dim 1 } } }; -1: not said */
  ny_bytes tensor = {0}, shape = {0};
  bool has_shape = false;
  uint64_t count[2];
  ny_pb r = ny_pb_over(type);
  while (ny_pb_next(&r))
    if (r.field == 1 && r.wire == NY_PB_LEN) tensor = r.bytes;
  r = ny_pb_over(tensor);
  while (ny_pb_next(&r))
    if (r.field == 2 && r.wire == NY_PB_LEN) shape = r.bytes, has_shape = true;
  return has_shape && ny_pb_count_fields(shape, count, 2) ? (int)count[1] : -1;
}

static int rank_of(const up *u, const char *name) {
  const ny_edit_graph *g = u->g;
  for (uint32_t i = 0; i < g->n_in; i++)
    if (!strcmp(g->in[i].name, name) && g->in[i].type.p) return rank_of_type(g->in[i].type);
  ny_pb r = ny_pb_over(g->proto);
  while (!g->is_function && ny_pb_next(&r)) {
    if (r.field != 12 && r.field != 13) continue;
    ny_bytes label = {0}, type = {0};
    ny_pb v = ny_pb_over(r.bytes);
    while (ny_pb_next(&v)) {
      if (v.field == 1) label = v.bytes;
      if (v.field == 2) type = v.bytes;
    }
    if (type.n && label.n == strlen(name) && !memcmp(label.p, name, label.n)) return rank_of_type(type);
  }
  return -1;
}

static nyb_status ny_up_softmax(up *u) {
  OWN(u, "axis");
  ny_edit *e = u->e;
  ny_edit_node *n = u->n;
  int64_t axis = ny_edit_attr_int(n, "axis", 1);
  int rank = rank_of(u, n->in[0]);
  if (rank < 0) rank = rank_of(u, n->out[0]);
  if (axis == -1 || (rank > 0 && axis == rank - 1)) {
    ny_edit_set_int(e, n, "axis", -1);
    return NYB_OK;
  }
  const char *x[1] = {n->in[0]}, *y = n->out[0];
  const char *shape[1] = {ny_edit_fresh(e, ny_strf(&e->a, "%s_shape", y))};
  const char *flat[1] = {ny_edit_fresh(e, ny_strf(&e->a, "%s_flat", y))};
  const char *soft[1] = {ny_edit_fresh(e, ny_strf(&e->a, "%s_rows", y))};
  ny_edit_add_node(e, u->g, n, "", "Shape", shape[0], x, 1, shape, 1);
  ny_edit_set_int(e, ny_edit_add_node(e, u->g, n, "", "Flatten", flat[0], x, 1, flat, 1), "axis", axis);
  const char *pair[2] = {soft[0], shape[0]}, *out[1] = {y};
  ny_edit_add_node(e, u->g, n->next, "", "Reshape", ny_strf(&e->a, "%s_back", y), pair, 2, out, 1);
  ny_edit_set_in(e, n, 0, flat[0]);
  n->out[0] = soft[0];
  ny_edit_set_int(e, n, "axis", -1);
  return NYB_OK;
}

/* ---- The walk */
static const struct row {
  const char *op;
  int version;
  rule *fn;
} rows[] = {
#define CHANGED(op, versions)
#define RULE(op, version, fn) {#op, version, ny_up_##fn},
#include "onnx_upgrade.def"
#undef CHANGED
#undef RULE
};

static rule *rule_of(const char *op, int64_t version) {
  for (size_t i = 0; i < NY_COUNT(rows); i++)
    if (rows[i].version == version && !strcmp(rows[i].op, op)) return rows[i].fn;
  return NULL;
}

static nyb_status raise_graph(ny_edit *e, ny_edit_graph *g, int64_t from, int64_t to) {
  for (ny_edit_node *n = g->first, *next; n; n = next) {
    next = n->next;
    for (uint32_t i = 0; i < n->n_attr; i++)
      for (uint32_t k = 0; k < n->attr[i].n_graph; k++) NY_TRY(raise_graph(e, n->attr[i].graph[k], from, to));
    if (*n->domain) continue;
    up u = {e, g, n, 0};
    for (u.version = from + 1; u.version <= to; u.version++) {
      rule *fn = rule_of(n->op_type, u.version);
      if (fn && (!n->n_in || !n->n_out)) return refuse(&u, "it has no inputs or no results");
      if (fn) NY_TRY(fn(&u));
    }
  }
  return NYB_OK;
}

static void raise_import(ny_opset *list, uint32_t n, int64_t version) {
  for (uint32_t i = 0; i < n; i++)
    if (!*list[i].domain && list[i].version < version) list[i].version = version;
}

static int64_t version_in(const ny_opset *list, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (!*list[i].domain) return list[i].version;
  return 0;
}

nyb_status ny_edit_raise_opset(ny_edit *e, int64_t version) {
  static const uint8_t ir[NEWEST + 1] = {[15] = 8, 8, 8, 8, 9, 9, 10, 10, 11, 12, 13};
  int64_t have = ny_edit_version(e, "");
  ny_diag *d = &e->cx->diag;
  if (have < version && version < LEAST) version = LEAST;
  if (version <= NEWEST && e->ir_version < ir[version]) { /* a newer operator set in an older file is not unheard of */
    e->ir_version = ir[version];
    e->new_opset = true;
  }
  if (have >= version) return NYB_OK;
  if (have < OLDEST || version > NEWEST)
    return ny_fail(d, NYB_E_UNSUPPORTED, NULL, "operator set %lld cannot be raised to %lld: sets %d to %d can",
                   (long long)have, (long long)version, (int)OLDEST, (int)NEWEST);
  NY_TRY(raise_graph(e, e->graph, have, version));
  for (uint32_t i = 0; i < e->n_function; i++) {
    struct ny_edit_function *f = &e->function[i];
    int64_t own = version_in(f->opset, f->n_opset);
    if (!own || own >= version) continue;
    if (own < OLDEST)
      return ny_fail(d, NYB_E_UNSUPPORTED, NULL, "function \"%s\" uses operator set %lld", f->name, (long long)own);
    NY_TRY(raise_graph(e, f->body, own, version));
    raise_import(f->opset, f->n_opset, version);
  }
  raise_import(e->opset, e->n_opset, version);
  e->new_opset = true;
  return NYB_OK;
}
