/* Products on tensor cores. The layout of the kernel's tiles is that of the accumulators, so only the operands need gathering: pieces of 8 rows of 16 bytes by ldmatrix,
   turned on the way where k is not what lies adjacent. The 8 rows of a piece are in different banks: see arrange in mma.c. */
#include "mma.h"

#include <string.h>

static bool is_byte(ny_fmt f) { return f == NY_i8 || f == NY_u8; }

const char *cu_tensor_kind(const cu *c, const cu_mma_plan *p, int *k_step) {
  static const char *const bytes[2][2] = {{"i8i8", "i8u8"}, {"u8i8", "u8u8"}};
  const ny_cuda_layout *f = &c->facts->layout;
  ny_fmt a = p->in[0].v->fmt, b = p->in[1].v->fmt, t = p->t->fmt;
  const char *name = NULL;
  if (!f->mma) return NULL;
  if (t == NY_f32 && a == b && (a == NY_bf16 || a == NY_f16))
    name = ny_fmts[a].name, *k_step = 16;
  else if (t == NY_f32 && a == NY_f32 && b == NY_f32 && ny_knob(c->k, "tf32", 0))
    name = "tf32", *k_step = 8;
  else if (t == NY_i32 && is_byte(a) && is_byte(b))
    name = bytes[a == NY_u8][b == NY_u8], *k_step = 32;
  if (!name || p->t->dim[0] % (16 * f->wm) || p->t->dim[1] % (8 * f->wn) || p->in[0].v->dim[1] % *k_step) return NULL;
  return name;
}

/* Elements in 16 bytes, which is half of what a product takes of k. */
static int half(const cu_mma_plan *p) { return p->k_step / 2; }

/* A: rows of the 16 x k_step piece at block i, k at q. */
static void take_a(cu *c, const cu_mma_plan *p, int blocks) {
  const cu_operand *o = &p->in[0];
  int wm = c->facts->layout.wm, wn = c->facts->layout.wn;
  cu_line(c, "u32 x[%d];", 4 * blocks);
  if (o->k_inner) {
    const char *row = CU_F(c, "i * %d + warp / %d * 16 + lane %% 16", 16 * wm, wn), *unit = CU_F(c, "q / %d + lane / 16", half(p));
    cu_line(c, "EACH(i, %d) ny_fragment4(&x[4 * i], ga + %s);", blocks, cu_unit_place(c, o, row, unit));
  } else if (p->k_step == 16) {
    const char *unit = CU_F(c, "i * %d + warp / %d * 2 + lane / 8 %% 2", 2 * wm, wn);
    cu_line(c, "EACH(i, %d) ny_fragment4_turned(&x[4 * i], ga + %s);", blocks, cu_unit_place(c, o, "q + lane / 16 * 8 + lane % 8", unit));
  } else { /* tf32: no turning of 4-byte elements */
    cu_line(c, "EACH(i, %d) EACH(e, 4) x[4 * i + e] = __float_as_uint(ga[(q + lane %% 4 + e / 2 * 4) * %lld + i * %d + warp / %d * 16 + lane / 4 + e %% 2 * 8]);", blocks,
            (long long)o->ld, 16 * wm, wn);
  }
}

static void take_b(cu *c, const cu_mma_plan *p, int blocks) {
  const cu_operand *o = &p->in[1];
  int wn = c->facts->layout.wn, pair = blocks % 2 ? 1 : 2;
  cu_line(c, "u32 y[%d];", 2 * blocks);
  const char *turned = o->k_inner ? "" : "_turned", *block = pair == 2 ? "(2 * j + lane / 16)" : "j";
  if (!o->k_inner && p->k_step == 8) {
    cu_line(c, "EACH(j, %d) EACH(e, 2) y[2 * j + e] = __float_as_uint(gb[(q + lane %% 4 + e * 4) * %lld + j * %d + warp %% %d * 8 + lane / 4]);", blocks, (long long)o->ld, 8 * wn, wn);
    return;
  }
  const char *row = o->k_inner ? CU_F(c, "%s * %d + warp %% %d * 8 + lane %% 8", block, 8 * wn, wn) : "q + lane / 8 % 2 * 8 + lane % 8";
  const char *unit = o->k_inner ? CU_F(c, "q / %d + lane / 8 %% 2", half(p)) : CU_F(c, "%s * %d + warp %% %d", block, wn, wn);
  cu_line(c, "EACH(j, %d) ny_fragment%d%s(&y[%d * j], gb + %s);", blocks / pair, 2 * pair, turned, 2 * pair, cu_unit_place(c, o, row, unit));
}

void cu_tensor_compute(cu *c, const cu_mma_plan *p) {
  const cu_value *t = p->t;
  int bi = (int)t->held[0] / 2, bj = (int)t->held[1] / 2;
  int64_t k = p->in[0].v->dim[1];
  c->uses |= CU_P_MMA;
  for (int i = 0; i < 2; i++) cu_line(c, "const %s *const %s = %s;", cu_reg(p->in[i].v->fmt), i ? "gb" : "ga", cu_stage_base(c, p, i, p->stage));
  cu_line(c, "const int lane = tid %% 32, warp = tid / 32;");
  cu_line(c, "#pragma unroll");
  cu_line(c, "for (int q = 0; q < %lld; q += %d) {", (long long)k, p->k_step);
  c->indent++;
  take_a(c, p, bi);
  take_b(c, p, bj);
  if (p->k_step == 8) {
    cu_line(c, "EACH(e, %d) x[e] = ny_tf32(x[e]);", 4 * bi);
    cu_line(c, "EACH(e, %d) y[e] = ny_tf32(y[e]);", 2 * bj);
  }
  cu_line(c, "EACH(i, %d) EACH(j, %d) {", bi, bj);
  cu_line(c, "  %s *const s = &%s[i * %lld + 2 * j];", cu_reg(t->fmt), t->name, (long long)(2 * t->held[1]));
  cu_line(c, "  ny_mma_%s(s[0], s[1], s[%lld], s[%lld], &x[4 * i], &y[2 * j]);", p->tensor, (long long)t->held[1], (long long)t->held[1] + 1);
  cu_line(c, "}");
  c->indent--;
  cu_line(c, "}");
}
