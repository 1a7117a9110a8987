/* What was asked of the operands of a kernel and what it does with them, as a `precision` op beside its launch, so that
   nothing is narrowed, widened or unpacked silently. Contractions whose products are in the format of their operands, and
   whatever reads no codes, have nothing to tell. */
#include <string.h>

#include "rewrite.h"

static const struct {
  const char *name;
  ny_fmt code, scale;
  int block;
} schemes[] = {
#define SCHEME(name, code, block, scale, tensor, text) {#name, NY_##code, NY_##scale, block},
#include "schemes.def"
#undef SCHEME
};

/* The scales themselves, below a tensor scale. */
static ny_fmt scale_format(const ny_op *q) {
  const ny_op *under = ny_def(ny_in(q, 1), NY_dequantize);
  return (ny_fmt)ny_in(under ? under : q, under ? 0 : 1)->type->fmt;
}

/* "nvfp4", or what has no name of its own: "u4/32". */
static void add_scheme(ny_text *t, const ny_op *q) {
  ny_fmt code = (ny_fmt)ny_in(q, 0)->type->fmt, scale = scale_format(q);
  int64_t block = q->attr[NY_AT(dequantize, block)].i;
  for (size_t i = 0; i < NY_COUNT(schemes); i++)
    if (schemes[i].code == code && schemes[i].scale == scale && schemes[i].block == block && block) {
      ny_text_add(t, schemes[i].name);
      return;
    }
  ny_text_add(t, ny_fmts[code].name);
  if (block) ny_text_addf(t, "/%lld", (long long)block);
}

/* What a value is before views and rounding: a dequantize, or the value itself. */
static const ny_value *origin(const ny_value *v) {
  while (v->def && (v->def->kind == NY_reshape || v->def->kind == NY_transpose || v->def->kind == NY_broadcast ||
                    v->def->kind == NY_slice))
    v = ny_in(v->def, 0);
  return v;
}

static void add_operand(ny_text *t, const ny_value *v) {
  const ny_value *o = origin(v);
  if (ny_def(o, NY_dequantize)) add_scheme(t, o->def);
  else ny_text_add(t, ny_fmts[v->type->fmt].name);
}

static const ny_op *contraction(const ny_op *group) {
  for (const ny_op *op = group->body[0]->first; op; op = op->next)
    if (op->kind == NY_matmul || op->kind == NY_conv || op->kind == NY_attention) return op;
  return NULL;
}

static const ny_op *first_codes(const ny_op *group) {
  for (const ny_op *op = group->body[0]->first; op; op = op->next)
    if (op->kind == NY_dequantize) return op;
  return NULL;
}

/* The products of a kernel as they are computed: "bf16 x bf16 + f32", each once. */
typedef struct products {
  ny_text t;
  bool tf32, plain; /* plain: both operands as the op has them */
  ny_fmt fmt;       /* of the op's operands */
  uint32_t seen[4];
  int n;
} products;

static nyb_status see(void *user, ny_op *op) {
  products *p = user;
  if (op->kind != NY_mma) return NYB_OK;
  ny_fmt f[3];
  for (int i = 0; i < 3; i++) f[i] = (ny_fmt)ny_in(op, i)->type->fmt;
  p->plain = p->plain && !p->tf32 && f[1] == p->fmt && f[2] == p->fmt;
  uint32_t key = (uint32_t)f[0] | (uint32_t)f[1] << 8 | (uint32_t)f[2] << 16;
  for (int i = 0; i < p->n; i++)
    if (p->seen[i] == key) return NYB_OK;
  if (p->n == NY_COUNT(p->seen)) return NYB_OK;
  p->seen[p->n++] = key;
  ny_text_addf(&p->t, "%s%s x %s + %s", p->n > 1 ? ", " : "", p->tf32 && f[1] == NY_f32 ? "tf32" : ny_fmts[f[1]].name,
               p->tf32 && f[2] == NY_f32 ? "tf32" : ny_fmts[f[2]].name, ny_fmts[f[0]].name);
  return NYB_OK;
}

/* Floats made of a whole packed constant, on every run, for want of a kernel that reads its codes. */
static bool unpacks(const ny_op *group) {
  for (const ny_op *op = group->body[0]->first; op; op = op->next) {
    const ny_value *codes = op->kind == NY_dequantize ? ny_in(op, 0) : NULL;
    if (!codes || codes->arg_of != group->body[0] || !ny_one_use(op->out[0]) || op->out[0]->uses->user->kind != NY_yield) continue;
    const ny_op *from = ny_in(group, (int)codes->index)->def;
    if (from && (from->kind == NY_const || ny_is_const_group(from))) return true;
  }
  return false;
}

static const char *reason(const ny_pass_cx *px, const ny_op *group, const ny_op *op, const ny_graph *k, bool plain) {
  if (!op) return unpacks(group) ? "no kernel reads these codes: floats are made on every run" : "codes are decoded as they are read";
  bool f32 = ny_in(op, 0)->type->fmt == NY_f32;
  if (px->opt->precision == NY_PRECISION_tf32 && f32 && !ny_knob(k, "tf32", 0))
    return ny_on_gpu(px->target) ? "this shape does not go through tensor cores" : "a CPU has no TF32";
  if (ny_def(ny_in(op, 0), NY_dequantize)) return "tensor cores multiply codes";
  if (first_codes(group)) return "codes are decoded as they are read";
  return plain ? NULL : "this target multiplies wider numbers";
}

nyb_status ny_note_precision(ny_pass_cx *px, const ny_op *group, const ny_graph *k) {
  const ny_op *op = contraction(group), *q = first_codes(group);
  if (!op && !q) return NYB_OK;
  ny_text asked = {0};
  products done = {.tf32 = ny_knob(k, "tf32", 0) != 0, .plain = !q, .fmt = op ? (ny_fmt)ny_in(op, 0)->type->fmt : NY_none};
  if (op) {
    for (int i = 0; i < (op->kind == NY_attention ? 3 : 2); i++) {
      if (i) ny_text_add(&asked, " x ");
      add_operand(&asked, ny_in(op, i));
    }
    ny_walk((ny_block *)&k->body, see, &done);
    if (!done.n) ny_text_add(&done.t, ny_fmts[op->out[0]->type->fmt].name); /* products and sums element by element */
  } else {
    add_scheme(&asked, q);
    ny_text_add(&done.t, ny_fmts[q->out[0]->type->fmt].name);
  }
  const char *why = reason(px, group, op, k, done.plain);
  ny_graph *g = px->unit->first;
  ny_builder b = ny_before(g, (ny_op *)group);
  nyb_status s = NYB_OK;
  if (!op && px->opt->strict && unpacks(group))
    s = ny_fail(&g->cx->diag, NYB_E_UNSUPPORTED, group->loc, "%s becomes %s: %s (--strict)", asked.s, done.t.s, why);
  ny_op *note = s || (done.plain && !why) ? NULL : ny_build(&b, NY_precision, NULL, 0, NULL, 0);
  if (note) {
    note->attr[NY_AT(precision, asked)].s = ny_intern(&g->cx->names, asked.s);
    note->attr[NY_AT(precision, done)].s = ny_intern(&g->cx->names, done.t.s ? done.t.s : "");
    if (why) note->attr[NY_AT(precision, why)].s = ny_intern(&g->cx->names, why);
  }
  ny_text_free(&asked);
  ny_text_free(&done.t);
  return s;
}
