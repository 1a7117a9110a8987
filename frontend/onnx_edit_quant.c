/* An initializer becomes the expression that its codes stand for, under its own name. Names of what is added follow
   NVIDIA's exporter, which other tools look for. */
#include "onnx_edit.h"

#include <string.h>

static nyb_status bad(ny_edit *e, const char *name, const char *why) {
  return ny_fail(&e->cx->diag, NYB_E_ARGUMENT, NULL, "quantised \"%s\": %s", name, why);
}

static int64_t needed_opset(const ny_edit_quant *q) {
  ny_fmt c = q->codes.fmt, s = q->scale.fmt;
  if (ny_fmts[c].bits < 4) return 25;
  if (s == NY_f8e8m0) return 24;
  if (c == NY_f4e2m1 || (s != q->fmt && s != NY_f8e4m3) || q->tensor_scale.fmt) return 23;
  if (q->block || ny_fmts[c].bits < 8) return 21;
  return ny_is_float(c) ? 19 : 13;
}

static nyb_status check(ny_edit *e, const char *name, const ny_edit_quant *q) {
  const ny_edit_tensor *c = &q->codes, *s = &q->scale;
  if (ny_fmts[c->fmt].bits > 8 || !ny_fmts[c->fmt].bits || c->fmt == NY_bool) return bad(e, name, "no codes");
  if ((s->fmt == NY_f8e4m3) != (q->tensor_scale.fmt == NY_f32))
    return bad(e, name, "f8e4m3 scales come with an f32 tensor scale, others without");
  if (q->block < 0 || (q->block && (q->axis < 0 || q->axis >= c->rank || s->rank != c->rank)))
    return bad(e, name, "blocks without an axis, or scales of another rank");
  for (int i = 0; q->block && i < c->rank; i++) {
    int64_t want = i == q->axis ? c->dim[i] / q->block + (c->dim[i] % q->block != 0) : c->dim[i];
    if (s->dim[i] != want) return bad(e, name, "the scales do not fit the codes");
  }
  if (q->zero.fmt && (q->zero.fmt != c->fmt || ny_is_float(c->fmt)))
    return bad(e, name, "zero points in another format");
  int64_t n = 1, m = 1;
  for (int i = 0; i < c->rank; i++) n *= c->dim[i];
  for (int i = 0; i < q->rank; i++) m *= q->dim[i];
  return q->rank >= 0 && n != m ? bad(e, name, "its shape has another number of elements") : NYB_OK;
}

static ny_name put(ny_edit *e, const char *name, const char *suffix, const ny_edit_tensor *t) {
  ny_name s = ny_edit_fresh(e, ny_strf(&e->a, "%s_%s", name, suffix));
  ny_edit_set_init(e, NULL, s, t);
  return s;
}

static const char *code_suffix(ny_fmt f) { return f == NY_f4e2m1 ? "f4" : f == NY_f8e4m3 ? "f8" : ny_fmts[f].name; }

/* One node after the others, all in front of what is there. */
typedef struct chain {
  ny_edit *e;
  ny_edit_node *before;
  const char *name;
} chain;
static ny_edit_node *link(chain *c, const char *op, const char *a, const char *b, const char *z, const char *out) {
  const char *in[3] = {a, b, z}, *outs[1] = {out};
  return ny_edit_add_node(c->e, c->e->graph, c->before, "", op, ny_strf(&c->e->a, "%s_%s", c->name, op), in,
                          z   ? 3
                          : b ? 2
                              : 1,
                          outs, 1);
}

nyb_status ny_edit_quantize(ny_edit *e, const char *name, const ny_edit_quant *q) {
  chain c = {e, e->graph->first, name};
  bool reshaped = q->rank >= 0, turned = q->perm != NULL;
  if (!ny_edit_find_init(e, name)) return bad(e, name, "the model has no initializer of this name");
  NY_TRY(check(e, name, q));
  NY_TRY(ny_edit_raise_opset(e, needed_opset(q)));
  name = ny_intern(&e->cx->names, name);
  c.before = e->graph->first;
  ny_name scale = put(e, name, q->scale.fmt == NY_f8e4m3 ? "f8_scale" : "scale", &q->scale);
  if (q->tensor_scale.fmt) {
    ny_name whole = put(e, name, "f8_scale_f32_scale", &q->tensor_scale);
    ny_name product = ny_edit_fresh(e, ny_strf(&e->a, "%s_scale", name));
    link(&c, "DequantizeLinear", scale, whole, NULL, product);
    scale = product;
  }
  ny_name codes = put(e, name, code_suffix(q->codes.fmt), &q->codes);
  ny_name zero = q->zero.fmt ? put(e, name, "zero_point", &q->zero) : NULL;
  ny_name y = reshaped || turned ? ny_edit_fresh(e, ny_strf(&e->a, "%s_blocks", name)) : name;
  ny_edit_node *dq = link(&c, "DequantizeLinear", codes, scale, zero, y);
  if (q->block || q->scale.rank) ny_edit_set_int(e, dq, "axis", q->axis);
  if (q->block) ny_edit_set_int(e, dq, "block_size", q->block);
  ny_fmt natural = q->tensor_scale.fmt ? NY_f32 : q->scale.fmt;
  if (natural != q->fmt) ny_edit_set_int(e, dq, "output_dtype", ny_fmts[q->fmt].onnx);
  if (reshaped) {
    ny_name shape = ny_edit_add_ints(e, NULL, ny_strf(&e->a, "%s_shape", name), 1, q->dim, q->rank);
    ny_name z = turned ? ny_edit_fresh(e, ny_strf(&e->a, "%s_shaped", name)) : name;
    link(&c, "Reshape", y, shape, NULL, z);
    y = z;
  }
  if (turned) {
    int64_t perm[NY_MAX_RANK];
    int rank = reshaped ? q->rank : q->codes.rank;
    for (int i = 0; i < rank; i++) perm[i] = q->perm[i];
    ny_edit_set_ints(e, link(&c, "Transpose", y, NULL, NULL, name), "perm", perm, (uint32_t)rank);
  }
  ny_edit_drop_init(e, NULL, name);
  return NYB_OK;
}
