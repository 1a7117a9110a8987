/* Products of codes by codes with scales of blocks on both sides, as the tensor cores of sm_120 take them: 64 elements along k are 32 bytes, which is what 16 of bf16
   are, so fragments are read from shared memory in the same way. Codes go there as they lie, 128 bytes of a row a step, their 16-byte units exchanged by row; scales
   beside them, 4 bytes for a product's 64 elements. A tile has whole fragments of rows: what is not there is copied as zeros. */
#include "mma.h"

enum { STEP = 256 /* codes along k of a step */, ROW = STEP / 2 /* their bytes */, EACH_K = 64 /* of a product */ };

static cu_value *val(cu *c, const ny_value *v) { return &c->value[v->id]; }

/* Bytes of a row's scales in a step. */
static int scale_bytes(const cu_codes *q) { return STEP / q->block; }
static int rows_of(const cu *c, const cu_codes *q, int which) { return which ? q->nt * 8 * c->facts->layout.wn : q->mt * 16 * c->facts->layout.wm; }

/* Where the parts of a stage begin: codes of a, of b, scales of a, of b. */
static int part(const cu *c, const cu_codes *q, int n) {
  int at = 0;
  for (int i = 0; i < n; i++) at += rows_of(c, q, i % 2) * (i < 2 ? ROW : scale_bytes(q));
  return at;
}

static nyb_status refuse(cu *c, const ny_op *op, const char *why) { return cu_fail(c, op, NYB_E_UNSUPPORTED, "a product of codes needs %s", why); }

/* A load with elements adjacent along k, whole bytes apart along the other direction. */
static bool lies_by_rows(cu *c, const ny_value *v, int k, int unit, int64_t *ld) {
  const ny_op *op = v->def;
  int64_t s;
  if (op->kind != NY_load || op->n_in > 1) return false;
  const ny_attr *stride = &op->attr[NY_AT(load, stride)];
  bool one = c->value[v->id].dim[1 - k] == 1;
  *ld = 0;
  return cu_const(c, stride->dims.v[k], &s) && s == 1 && ((cu_const(c, stride->dims.v[1 - k], ld) && *ld % unit == 0) || one) && cu_divides(c, op->attr[NY_AT(load, off)].d, unit);
}

void cu_scaled_prepare(cu *c, cu_mma_plan *p, cu_codes *q) {
  const ny_op *op = p->op;
  const ny_cuda_layout *f = &c->facts->layout;
  const cu_value *v[4] = {p->in[0].v, p->in[1].v, val(c, ny_in(op, 4)), val(c, ny_in(op, 3))};
  q->block = (int)op->attr[NY_AT(mma, block)].i;
  q->exponents = v[2]->fmt == NY_f8e8m0;
  q->both = true, q->terms = 1;
  bool pair = v[2]->fmt == v[3]->fmt && ((q->block == 16 && v[2]->fmt == NY_f8e4m3) || (q->block == 32 && q->exponents));
  if (!c->target->fp4) {
    refuse(c, op, "a target with tensor cores for them (sm_120a, sm_120f, sm_121a, sm_121f)");
  } else if (!f->mma || f->wk != 1 || c->threads < 64 || !pair || v[0]->fmt != NY_f4e2m1 || v[1]->fmt != NY_f4e2m1 || p->t->fmt != NY_f32) {
    refuse(c, op, "f4e2m1, scales f8e4m3 of 16 or f8e8m0 of 32, sums in f32, in the layout of tensor cores");
  } else if (v[0]->dim[1] != STEP || p->t->dim[1] % (16 * f->wn)) {
    refuse(c, op, "steps of 256 along k and pairs of fragments along columns");
  } else {
    for (int i = 0; i < 4; i++) {
      q->load[i] = v[i]->v->def;
      if (!lies_by_rows(c, v[i]->v, i % 2 ? 0 : 1, i < 2 ? 2 : 1, &q->lds[i])) {
        refuse(c, op, "codes and scales that lie by rows of whole bytes");
        return;
      }
      c->value[v[i]->v->id].dead = true;
    }
    p->codes = q;
    q->rows = v[0]->dim[0];
    q->mt = (int)((q->rows + 16 * f->wm - 1) / (16 * f->wm)), q->nt = (int)(p->t->dim[1] / (8 * f->wn));
    q->through = q->rows == 1;
    q->name = cu_name(c, "s", NULL, op->id);
    p->in[0].kept = NY_u8, p->in[0].ld = 1, p->in[0].outer = part(c, q, 4);
  }
}

void cu_scaled_open(cu *c, const cu_mma_plan *p) {
  const cu_codes *q = p->codes;
  c->uses |= CU_P_MMA | CU_P_SCALED | CU_P_ASYNC | CU_P_VECTOR;
  cu_line(c, "float %s[%d];", q->name, q->mt * q->nt * 4);
  cu_line(c, "EACH(e, %d) %s[e] = 0.0f;", q->mt * q->nt * 4, q->name);
  cu_line(c, "const int lane_%s = tid %% 32%s;", q->name, q->through ? CU_F(c, ", group_%s = 0", q->name) : "");
}

/* Copies `width` bytes at a time of the rows of part n of a stage. */
static void copy_part(cu *c, const cu_mma_plan *p, int n, const char *stage) {
  const cu_codes *q = p->codes;
  const ny_op *load = q->load[n];
  bool codes = n < 2;
  int k = n % 2 ? 0 : 1, rows = rows_of(c, q, n % 2), bytes = codes ? ROW : scale_bytes(q), per = codes ? 2 : 1;
  int64_t row_bytes = q->lds[n] / per, have = c->value[load->out[0]->id].dim[1 - k];
  int width = codes || (bytes == 16 && row_bytes % 16 == 0) ? 16 : bytes == 8 && row_bytes % 8 == 0 ? 8 : 4;
  bool known = row_bytes % width == 0 && cu_divides(c, load->attr[NY_AT(load, off)].d, width * per);
  int units = bytes / width, total = rows * units;
  const ny_attr *lim = &load->attr[NY_AT(load, lim)];
  const char *off = cu_dim_text(c, load->attr[NY_AT(load, off)].d), *left = NULL, *count = CU_F(c, "%lld", (long long)have);
  if (lim->dims.n && !cu_at_least(c, lim->dims.v[1 - k], have)) count = cu_dim_text(c, lim->dims.v[1 - k]);
  if (lim->dims.n && !cu_at_least(c, lim->dims.v[k], bytes * per)) left = cu_dim_text(c, lim->dims.v[k]);
  cu_line(c, "{");
  c->indent++;
  cu_line(c, "const u8 *const from = %s + %s;", c->buffer[val(c, ny_in(load, 0))->buffer].name, per == 2 ? CU_F(c, "NY_DIV(%s, 2)", off) : CU_F(c, "(%s)", off));
  cu_line(c, "u8 *const into = %s + %d;", cu_stage_base(c, p, 0, stage), part(c, q, n));
  bool fewer = have < rows || (lim->dims.n && !cu_at_least(c, lim->dims.v[1 - k], have));
  if (fewer) cu_line(c, "const ix rows = %s;", count);
  if (left) cu_line(c, "const ix left = %s;", per == 2 ? CU_F(c, "NY_DIV(%s + 1, 2)", left) : left);
  cu_line(c, "EACH(i, %d) {", (total + c->threads - 1) / c->threads);
  c->indent++;
  cu_line(c, "const int e = i * THREADS + tid, row = e / %d, unit = e %% %d;", units, units);
  const char *some = left ? CU_F(c, "(int)ny_least<ix>(%d, left - unit * %d)", width, width) : CU_F(c, "%d", width);
  if (fewer) some = CU_F(c, "row < rows ? %s : 0", some);
  const char *where = codes ? "(unit ^ row % 8)" : "unit";
  cu_line(c, "%sny_copy<%d, %s>(into + row * %d + %s * %d, from + row * (ix)%lld + unit * %d, %s);", total % c->threads ? CU_F(c, "if (e < %d) ", total) : "", width,
          known ? "true" : "false", bytes, where, width, (long long)row_bytes, width, some);
  c->indent--;
  cu_line(c, "}");
  c->indent--;
  cu_line(c, "}");
}

void cu_scaled_copy(cu *c, const cu_mma_plan *p, const char *stage) {
  for (int n = 0; n < 4; n++) copy_part(c, p, n, stage);
}

void cu_scaled_compute(cu *c, const cu_mma_plan *p) {
  const cu_codes *q = p->codes;
  const ny_cuda_layout *f = &c->facts->layout;
  int scales = EACH_K / q->block, each = scale_bytes(q);
  cu_line(c, "const u8 *const at = %s;", cu_stage_base(c, p, 0, p->stage));
  cu_line(c, "const int lane = lane_%s, wi = tid / 32 / %d, wj = tid / 32 %% %d;", q->name, f->wn, f->wn);
  cu_line(c, "EACH(q, %d) {", STEP / EACH_K);
  c->indent++;
  cu_line(c, "u32 x[%d], y[%d], sx[%d], sy[%d];", 4 * q->mt, 2 * q->nt, q->mt, q->nt);
  cu_line(c, "EACH(i, %d) {", q->mt);
  cu_line(c, "  const int row = i * %d + wi * 16;", 16 * f->wm);
  cu_line(c, "  ny_fragment4(&x[4 * i], at + (row + lane %% 16) * %d + ((q * 2 + lane / 16) ^ lane %% 8) * 16);", ROW);
  cu_line(c, "  sx[i] = *(const u%d *)(at + %d + (row + lane / 4 + lane %% 2 * 8) * %d + q * %d);", 8 * scales, part(c, q, 2), each, scales);
  cu_line(c, "}");
  cu_line(c, "EACH(j, %d) ny_fragment4(&y[4 * j], at + %d + ((2 * j + lane / 16) * %d + wj * 8 + lane %% 8) * %d + ((q * 2 + lane / 8 %% 2) ^ lane %% 8) * 16);", q->nt / 2, part(c, q, 1), 8 * f->wn,
          ROW);
  cu_line(c, "EACH(j, %d) sy[j] = *(const u%d *)(at + %d + (j * %d + wj * 8 + lane / 4) * %d + q * %d);", q->nt, 8 * scales, part(c, q, 3), 8 * f->wn, each, scales);
  cu_line(c, "EACH(i, %d) EACH(j, %d) {", q->mt, q->nt);
  cu_line(c, "  float *const t = &%s[(i * %d + j) * 4];", q->name, q->nt);
  cu_line(c, "  ny_mma_%s(t[0], t[1], t[2], t[3], &x[4 * i], &y[2 * j], sx[i], sy[j]);", q->exponents ? "mxf4" : "nvf4");
  cu_line(c, "}");
  c->indent--;
  cu_line(c, "}");
}
