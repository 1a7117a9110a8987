/* Products by packed weights: an mma whose right operand is codes of 4 bits with scales of blocks along k, in the layout of tensor cores. Codes are never staged or
   widened: a thread loads 16 bytes of a row of them, 32 adjacent along k, a step ahead, and turns them into bf16 fragments in registers. That is exact: a code times
   an e4m3 scale has at most 6 significant bits. Which k a fragment's place means is free as long as both operands agree, so x lies in shared memory in the order in
   which the codes come out: those of a word in pairs (0,4) (1,5) (2,6) (3,7). x is cut into bf16 terms that add up to it exactly: one of bf16, two of f16, three of f32.
   Few rows of x stand with all their terms in one fragment and are added at the end, as are the sums of the knob `wk` groups of warps, which take turns along k. */
#include "mma.h"

#include <string.h>

enum { CHUNK = 128 /* codes along k that four lanes take at once */, RUN = 32 /* of them a lane's */ };

static cu_value *val(cu *c, const ny_value *v) { return &c->value[v->id]; }

static nyb_status refuse(cu *c, const ny_op *op, const char *why) { return cu_fail(c, op, NYB_E_UNSUPPORTED, "a product by codes needs %s", why); }

static int terms_of(ny_fmt f) { return f == NY_bf16 ? 1 : f == NY_f16 ? 2 : f == NY_f32 ? 3 : 0; }

/* A load straight from memory, rows adjacent along k: `ld` elements from one column to the next. */
static bool rows_of_codes(cu *c, const ny_value *v, int run, int64_t *ld) {
  const ny_op *op = v->def;
  int64_t s;
  if (op->kind != NY_load || op->n_in > 1) return false;
  const ny_attr *stride = &op->attr[NY_AT(load, stride)];
  return cu_const(c, stride->dims.v[0], &s) && s == 1 && cu_const(c, stride->dims.v[1], ld) && *ld % run == 0 && cu_divides(c, op->attr[NY_AT(load, off)].d, run);
}

static nyb_status check(cu *c, const cu_mma_plan *p, cu_codes *q) {
  const ny_op *op = p->op;
  const ny_cuda_layout *f = &c->facts->layout;
  const cu_value *codes = p->in[1].v, *scales = val(c, ny_in(op, 3));
  int64_t k = p->in[0].v->dim[1];
  q->block = (int)op->attr[NY_AT(mma, block)].i;
  q->terms = terms_of(p->in[0].v->fmt);
  q->exponents = scales->fmt == NY_f8e8m0;
  if (!f->mma || c->threads < 64) return refuse(c, op, "the layout of tensor cores and at least two warps");
  if (codes->fmt != NY_f4e2m1 || p->t->fmt != NY_f32 || !q->terms) return refuse(c, op, "codes in f4e2m1, sums in f32, and f32, f16 or bf16");
  if (!(q->block == 16 && scales->fmt == NY_f8e4m3) && !(q->block == 32 && q->exponents)) return refuse(c, op, "blocks of 16 with scales in f8e4m3, or of 32 in f8e8m0");
  if (k % (CHUNK * f->wk) || p->t->dim[1] % (8 * f->wn)) return refuse(c, op, "whole steps of 128 along k");
  if (!rows_of_codes(c, codes->v, RUN, &q->ld) || !rows_of_codes(c, scales->v, RUN / q->block, &q->ld_scale)) return refuse(c, op, "codes and scales that lie by rows");
  return NYB_OK;
}

/* Element (row, col) of x in shared memory: 16-byte units change places so that eight lanes that read at once meet eight banks. */
static const char *x_place(cu *c, int64_t k) {
  return CU_F(c, "(%%1$s) * %lld + ((%%2$s) / 8 ^ (%%2$s) / 64 %%%% 2 ^ (%%1$s) %%%% 4 * 2) * 8 + (%%2$s) %%%% 4 * 2 + (%%2$s) / 4 %%%% 2", (long long)k);
}

void cu_codes_prepare(cu *c, cu_mma_plan *p) {
  const ny_cuda_layout *f = &c->facts->layout;
  cu_codes *q = NY_NEW(&c->arena, cu_codes);
  if (p->op->n_in > 4) {
    cu_scaled_prepare(c, p, q);
    return;
  }
  if (check(c, p, q)) return;
  p->codes = q;
  cu_operand *x = &p->in[0];
  q->load[0] = p->in[1].v->v->def, q->load[1] = val(c, ny_in(p->op, 3))->v->def;
  p->in[1].v->dead = val(c, ny_in(p->op, 3))->dead = true; /* they go from memory into fragments */
  q->rows = x->v->dim[0];
  q->stacked = q->terms > 1 && q->rows * q->terms <= 16 && f->wm == 1;
  int64_t all = q->stacked ? q->rows * q->terms : q->rows;
  q->mt = (int)((all + 16 * f->wm - 1) / (16 * f->wm));
  q->nt = (int)(p->t->dim[1] / (8 * f->wn));
  q->chunks = (int)(x->v->dim[1] / (CHUNK * f->wk));
  q->through = f->wk > 1 || q->stacked || q->rows == 1;
  q->name = cu_name(c, "s", NULL, p->op->id);
  x->k_inner = true, x->copied = false;
  x->outer = q->rows * q->terms, x->inner = x->ld = x->v->dim[1];
  x->place = x_place(c, x->inner);
  x->kept = NY_bf16;
}

static const char *offset_of(cu *c, const ny_op *load) { return cu_dim_text(c, load->attr[NY_AT(load, off)].d); }

/* Which columns exist, when not all of the tile do; the same along k. */
static const char *limit_of(cu *c, const ny_op *load, int d, int64_t size) {
  const ny_attr *lim = &load->attr[NY_AT(load, lim)];
  return lim->dims.n && !cu_at_least(c, lim->dims.v[d], size) ? cu_dim_text(c, lim->dims.v[d]) : NULL;
}

static const char *buffer_of(cu *c, const ny_op *load) { return c->buffer[val(c, ny_in(load, 0))->buffer].name; }

/* Sums, and the codes and scales at hand. */
void cu_codes_open(cu *c, const cu_mma_plan *p) {
  const cu_codes *q = p->codes;
  const ny_cuda_layout *f = &c->facts->layout;
  c->uses |= CU_P_MMA | CU_P_CODES | CU_P_HALF | CU_P_NARROW;
  cu_line(c, "float %s[%d];", q->name, q->mt * q->nt * 4);
  cu_line(c, "EACH(e, %d) %s[e] = 0.0f;", q->mt * q->nt * 4, q->name);
  cu_line(c, "uint4 w_%s[%d], v_%s[%d];", q->name, q->nt * q->chunks, q->name, q->nt * q->chunks);
  cu_line(c, "u32 ws_%s[%d], vs_%s[%d];", q->name, q->nt * q->chunks, q->name, q->nt * q->chunks);
  cu_line(c, "const int lane_%s = tid %% 32, group_%s = tid / %d;", q->name, q->name, 32 * f->wm * f->wn);
  cu_line(c, "const int column_%s = tid / 32 %% %d * 8 + lane_%s / 4, first_%s = group_%s * %d + lane_%s %% 4 * %d;", q->name, f->wn, q->name, q->name, q->name, CHUNK, q->name, RUN);
}

/* Loads those of the step in scope into v (at first: w). */
void cu_codes_fetch(cu *c, const cu_mma_plan *p, bool first) {
  const cu_codes *q = p->codes;
  const ny_cuda_layout *f = &c->facts->layout;
  const char *to = first ? "w" : "v", *s = q->name, *codes = buffer_of(c, q->load[0]), *scales = buffer_of(c, q->load[1]);
  int64_t k = p->in[0].v->dim[1];
  const char *left = limit_of(c, q->load[0], 0, k), *columns = limit_of(c, q->load[0], 1, p->t->dim[1]), *test = NULL;
  cu_line(c, "{");
  c->indent++;
  cu_line(c, "const u8 *const codes = %s + NY_DIV(%s + first_%s + column_%s * (ix)%lld, 2);", codes, offset_of(c, q->load[0]), s, s, (long long)q->ld);
  cu_line(c, "const u8 *const scales = %s + (%s + first_%s / %d + column_%s * (ix)%lld);", scales, offset_of(c, q->load[1]), s, q->block, s, (long long)q->ld_scale);
  if (columns) cu_line(c, "const ix columns = %s - column_%s;", columns, s), test = CU_F(c, "j * %d < columns", 8 * f->wn);
  if (left) cu_line(c, "const ix left = %s - first_%s;", left, s), test = CU_F(c, "h * %d < left%s%s", CHUNK * f->wk, test ? " && " : "", test ? test : "");
  cu_line(c, "EACH(h, %d) EACH(j, %d) {", q->chunks, q->nt);
  c->indent++;
  if (test) cu_line(c, "%s_%s[h * %d + j] = make_uint4(0, 0, 0, 0), %ss_%s[h * %d + j] = 0;", to, s, q->nt, to, s, q->nt);
  const char *each = test ? CU_F(c, "if (%s) ", test) : "";
  cu_line(c, "%s%s_%s[h * %d + j] = *(const uint4 *)(codes + h * %d + j * %lldll);", each, to, s, q->nt, CHUNK * f->wk / 2, (long long)(q->ld * 4 * f->wn));
  cu_line(c, "%s%ss_%s[h * %d + j] = *(const %s *)(scales + h * %d + j * %lldll);", each, to, s, q->nt, q->block == 16 ? "u16" : "u8", CHUNK * f->wk / q->block,
          (long long)(q->ld_scale * 8 * f->wn));
  c->indent--;
  cu_line(c, "}");
  c->indent--;
  cu_line(c, "}");
}

void cu_codes_advance(cu *c, const cu_mma_plan *p) {
  const cu_codes *q = p->codes;
  cu_line(c, "EACH(e, %d) w_%s[e] = v_%s[e], ws_%s[e] = vs_%s[e];", q->nt * q->chunks, q->name, q->name, q->name, q->name);
}

/* The unit of x at row i * 16 of plane e, 8 elements; `more`: 8 rows below. Rows that do not exist read the first again: nobody looks at their sums. */
static void x_unit(cu *c, const cu_mma_plan *p, const char *name, int more) {
  const cu_codes *q = p->codes;
  const ny_cuda_layout *f = &c->facts->layout;
  int64_t rows = q->stacked ? q->rows * q->terms : q->rows;
  const char *row = CU_F(c, "i * %d + warp / %d * 16 + lane / 4%s", 16 * f->wm, f->wn, more ? " + 8" : "");
  cu_line(c, "int %s = %s;", name, row);
  if (rows % (16 * f->wm)) cu_line(c, "if (%s >= %lld) %s = 0;", name, (long long)rows, name);
  if (!q->stacked && q->terms > 1) cu_line(c, "%s += e * %lld;", name, (long long)q->rows);
}

void cu_codes_compute(cu *c, const cu_mma_plan *p) {
  const cu_codes *q = p->codes;
  const ny_cuda_layout *f = &c->facts->layout;
  int planes = q->stacked ? 1 : q->terms;
  bool both = (q->stacked ? q->rows * q->terms : q->rows) > 8;
  const char *s = q->name;
  int64_t k = p->in[0].inner;
  cu_line(c, "const u16 *const ga = %s;", cu_stage_base(c, p, 0, p->stage));
  cu_line(c, "const int lane = lane_%s, warp = tid / 32 %% %d;", s, f->wm * f->wn);
  cu_line(c, "EACH(h, %d) {", q->chunks);
  c->indent++;
  cu_line(c, "u32 m[%d];", 2 * q->nt);
  cu_line(c, "EACH(j, %d) ny_scales_%s(m + 2 * j, ws_%s[h * %d + j]);", q->nt, q->exponents ? "e8m0" : "e4m3", s, q->nt);
  cu_line(c, "EACH(q, 4) {");
  c->indent++;
  cu_line(c, "const int unit = h * %d + group_%s * 16 + lane %% 4 * 4 + q;", 16 * f->wk, s);
  cu_line(c, "uint4 x[%d], y[%d];", planes * q->mt, planes * q->mt);
  cu_line(c, "EACH(e, %d) EACH(i, %d) {", planes, q->mt);
  c->indent++;
  for (int more = 0; more <= both; more++) {
    x_unit(c, p, more ? "under" : "row", more);
    const char *r = more ? "under" : "row";
    cu_line(c, "%s[e * %d + i] = *(const uint4 *)(ga + %s * %lld + (unit ^ unit / 8 %% 2 ^ %s %% 4 * 2) * 8);", more ? "y" : "x", q->mt, r, (long long)k, r);
  }
  if (!both) cu_line(c, "y[e * %d + i] = make_uint4(0, 0, 0, 0);", q->mt);
  c->indent--;
  cu_line(c, "}");
  cu_line(c, "EACH(j, %d) {", q->nt);
  c->indent++;
  cu_line(c, "u32 b[4];");
  cu_line(c, "const uint4 w = w_%s[h * %d + j];", s, q->nt);
  cu_line(c, "ny_decode_%s(b, q == 0 ? w.x : q == 1 ? w.y : q == 2 ? w.z : w.w, m[2 * j + q / 2]);", q->exponents ? "e8m0" : "e4m3");
  cu_line(c, "EACH(e, %d) EACH(i, %d) {", planes, q->mt);
  cu_line(c, "  const uint4 u = x[e * %d + i], v = y[e * %d + i];", q->mt, q->mt);
  cu_line(c, "  const u32 a[8] = {u.x, v.x, u.y, v.y, u.z, v.z, u.w, v.w};");
  cu_line(c, "  float *const t = &%s[(i * %d + j) * 4];", s, q->nt);
  cu_line(c, "  ny_mma_bf16(t[0], t[1], t[2], t[3], a, b);");
  cu_line(c, "  ny_mma_bf16(t[0], t[1], t[2], t[3], a + 4, b + 2);");
  cu_line(c, "}");
  for (int i = 0; i < 3; i++) c->indent--, cu_line(c, "}");
}

/* A unit's sums go through shared memory where several threads have parts of them, or one has what another holds of the tile. */
static void gather(cu *c, const cu_mma_plan *p, const char *factor) {
  const cu_codes *q = p->codes;
  const ny_cuda_layout *f = &c->facts->layout;
  const cu_value *t = p->t;
  int64_t rows = q->stacked ? q->rows * q->terms : q->rows, n = t->dim[1], all = rows * n;
  const char *s = q->name, *area = cu_name(c, "sum", NULL, p->op->id);
  cu_access a = {.buffer = cu_area(c, area, NY_f32, (uint32_t)(all * 4 * f->wk)), .store = true, .lay = c->layout};
  cu_touch(c, &a);
  cu_line(c, "EACH(i, %d) EACH(j, %d) EACH(e, 4) {", q->mt, q->nt);
  cu_line(c, "  const int row = i * %d + tid / 32 %% %d / %d * 16 + lane_%s / 4 + e / 2 * 8, column = j * %d + tid / 32 %% %d * 8 + lane_%s %% 4 * 2 + e %% 2;", 16 * f->wm, f->wm * f->wn,
          f->wn, s, 8 * f->wn, f->wn, s);
  cu_line(c, "  if (row < %lld) %s[group_%s * %lld + row * %lld + column] = %s[(i * %d + j) * 4 + e];", (long long)rows, area, s, (long long)all, (long long)n, s, q->nt);
  cu_line(c, "}");
  a.store = false;
  cu_touch(c, &a);
  const char *row = t->dim[0] == 1 ? "0" : cu_plus(c, cu_base(&c->layout->d[0]), cu_place(c, &c->layout->d[0], "i"));
  cu_line(c, "EACH(i, %lld) EACH(j, %lld) {", (long long)t->held[0], (long long)t->held[1]);
  cu_line(c, "  const int row = %s, column = %s;", row, cu_plus(c, cu_base(&c->layout->d[1]), cu_place(c, &c->layout->d[1], "j")));
  cu_line(c, "  float sum = 0.0f;");
  cu_line(c, "  if (row < %lld) EACH(g, %d) EACH(e, %d) sum += %s[g * %lld + (row + e * %lld) * %lld + column];", (long long)q->rows, f->wk, q->stacked ? q->terms : 1, area, (long long)all,
          (long long)q->rows, (long long)n);
  cu_line(c, "  %s[i * %lld + j] += sum%s;", t->name, (long long)t->held[1], factor);
  cu_line(c, "}");
}

void cu_codes_close(cu *c, const cu_mma_plan *p) {
  const cu_codes *q = p->codes;
  const cu_value *t = p->t;
  const char *factor = q->exponents || q->both ? "" : " * 256.0f"; /* ny_decode_e4m3 */
  if (q->through)
    gather(c, p, factor);
  else
    cu_line(c, "EACH(i, %lld) EACH(j, %lld) %s[i * %lld + j] += %s[(i / 2 * %d + j / 2) * 4 + i %% 2 * 2 + j %% 2]%s;", (long long)t->held[0], (long long)t->held[1], t->name,
            (long long)t->held[1], q->name, q->nt, factor);
}
