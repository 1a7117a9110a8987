/* A kernel of calls: one block runs the grid points of one kernel after the other. Each called kernel is a function of a grid point (cu_part), written once however often it
   is called; the block's threads go through its points, as many at once as there are threads for. Between two calls stands a barrier of the block when the second touches what
   the first wrote, writes what it read, or both use shared memory. Arguments of one launch are different memory, so a buffer's name says what is touched. */
#include "emit.h"

#include <string.h>

enum {
  MAX_PARTS = 15,       /* barriers of a block, less the one of all its threads */
  MAX_SHARED = 96 << 10 /* for points that run beside one another: what a block has on every device, so that PTX for an older one runs on all later ones */
};

typedef struct part {
  const ny_graph *k;
  ny_cuda_facts facts;
  struct part *next;
} part;
typedef struct calls {
  cu *c;
  part *parts;
  ny_text text; /* of the parts */
  int n_parts;
  bool *read, *wrote; /* since the last barrier, by argument */
  bool shared;
} calls;

static const part *part_of(calls *s, const ny_op *op) {
  const ny_graph *k = ny_callee(s->c->k, op);
  if (!k || ny_kernel_calls(k) || k->body.n_arg != op->n_in) {
    cu_fail(s->c, op, NYB_E_VERIFY, "%s cannot be called so", k ? k->name : "a kernel that is not there");
    return NULL;
  }
  for (const part *p = s->parts; p; p = p->next)
    if (p->k == k) return p;
  part *p = NY_NEW(&s->c->arena, part);
  const char *symbol = cu_name(s->c, "part_", k->name, 0);
  nyb_status failed = cu_part(s->c, k, symbol, &s->text, &s->c->uses, &p->facts);
  if (failed && !s->c->failed) s->c->failed = failed;
  p->k = k;
  p->next = s->parts;
  s->parts = p;
  return failed ? NULL : p;
}

/* ---- barriers */
static uint32_t argument(const ny_op *op, int i) { return ny_in(op, i)->index; }

static bool has_to_wait(const calls *s, const ny_op *op, const part *p) {
  bool wait = s->shared && p->facts.shared;
  for (int i = 0; i < op->n_in; i++) {
    uint32_t a = argument(op, i);
    wait = wait || s->wrote[a] || (s->read[a] && ny_kernel_stores(p->k, (uint32_t)i));
  }
  return wait;
}

static void barrier(calls *s, const ny_op *op, const part *p) {
  uint32_t n = s->c->k->body.n_arg;
  if (has_to_wait(s, op, p)) {
    cu_line(s->c, "__syncthreads();");
    memset(s->read, 0, n * sizeof *s->read);
    memset(s->wrote, 0, n * sizeof *s->wrote);
    s->shared = false;
  }
  for (int i = 0; i < op->n_in; i++) *(ny_kernel_stores(p->k, (uint32_t)i) ? &s->wrote[argument(op, i)] : &s->read[argument(op, i)]) = true;
  s->shared |= p->facts.shared != 0;
}

/* ---- a call */
/* A node's name may be anything. */
static const char *readable(cu *c, const char *s) {
  char *t = ny_strndup(&c->arena, s, strnlen(s, 80));
  for (char *p = t; *p; p++)
    if (*p < ' ' || *p > '~' || *p == '\\') *p = '_';
  return t;
}

static void comment(cu *c, const ny_op *op, int number) {
  const ny_loc *l = op->loc;
  const char *from = l && l->op_type ? CU_F(c, ": %s \"%s\"", readable(c, l->op_type), l->node ? readable(c, l->node) : "") : "";
  cu_line(c, "// %d. %s%s", number, ny_callee(c->k, op)->name, from);
}

static const char *arguments(cu *c, const ny_op *op, const part *p, const char *smem) {
  ny_text t = {0};
  for (int i = 0; i < op->n_in; i++) {
    const ny_type *want = p->k->body.arg[i]->type;
    const cu_buffer *b = &c->buffer[c->value[ny_in(op, i)->id].buffer];
    bool same = !strcmp(cu_mem((ny_fmt)want->fmt), cu_mem(b->fmt));
    if (!same) ny_text_addf(&t, "(%s%s *)", ny_kernel_stores(p->k, (uint32_t)i) ? "" : "const ", cu_mem((ny_fmt)want->fmt));
    ny_text_addf(&t, "%s, ", b->name);
  }
  ny_name *sym;
  size_t n;
  ny_kernel_symbols(p->k, &c->arena, &sym, &n);
  for (size_t i = 0; i < n; i++) ny_text_addf(&t, "a_%s, ", cu_var(c, sym[i]));
  ny_text_addf(&t, "point, %s", smem);
  const char *s = ny_strdup(&c->arena, t.s);
  ny_text_free(&t);
  return s;
}

/* Points that run beside one another. */
static int at_once(cu *c, const part *p) {
  int t = p->facts.layout.threads;
  int64_t n = c->facts->block / t, room = p->facts.shared ? (int64_t)(MAX_SHARED / p->facts.shared) : n, points;
  if (t > 32 && n > MAX_PARTS) n = MAX_PARTS;
  if (t > 1 && ny_dim_is_const(c->cx, ny_kernel_extent(p->k), &points) && points > 0 && points < n) n = points;
  if (room < n) n = room;
  return n < 1 ? 1 : (int)n;
}

static void call(calls *s, const ny_op *op, const part *p) {
  cu *c = s->c;
  int t = p->facts.layout.threads, n = at_once(c, p);
  uint32_t room = p->facts.shared;
  int64_t points = INT64_MAX;
  ny_dim extent = ny_kernel_extent(p->k);
  if (!ny_dim_is_const(c->cx, extent, &points)) points = INT64_MAX;
  if (room && room * (uint32_t)n > c->shared) c->shared = room * (uint32_t)n;
  const char *first = t == 1 ? "(ix)threadIdx.x" : t == c->facts->block ? "0" : CU_F(c, "(ix)threadIdx.x / %d", t);
  const char *smem = !room ? "nullptr" : n == 1 ? "ny_smem" : CU_F(c, "ny_smem + (int)threadIdx.x / %d * %u", t, room);
  if (n * t < c->facts->block) cu_line(c, "if (threadIdx.x < %d)", n * t);
  cu_line(c, "#pragma unroll 1");
  cu_line(c, "for (ix point = %s; point < %s; point += %d) {", first, cu_dim_text(c, extent), n);
  c->indent++;
  cu_line(c, "of_%s::%s(%s);", p->facts.symbol, p->facts.symbol, arguments(c, op, p, smem));
  if (room && points > n) {
    cu like = {.threads = t, .part_of = c->facts->block};
    const char *sync = t == 32 || t == c->facts->block ? cu_sync_text(&like) : CU_F(c, "ny_sync_part(1 + (int)threadIdx.x / %d, %d)", t, t);
    cu_line(c, "%s; // before its shared memory is used again", sync);
  }
  c->indent--;
  cu_line(c, "}");
}

/* ---- the text */
static void lines(calls *s) {
  cu *c = s->c;
  int number = 0;
  c->indent = 1;
  for (size_t i = 0; i < c->n_sym; i++) cu_line(c, "const ix %s = (ix)a_%s;", cu_var(c, c->sym[i]), cu_var(c, c->sym[i]));
  for (const ny_op *op = c->k->body.first; op && !c->failed; op = op->next) {
    if (op->kind != NY_call) continue;
    const part *p = part_of(s, op);
    if (!p) return;
    barrier(s, op, p);
    comment(c, op, ++number);
    call(s, op, p);
  }
}

void cu_calls(cu *c, ny_text *out) {
  calls s = {.c = c};
  s.read = NY_NEW_ARRAY(&c->arena, bool, c->k->body.n_arg + 1);
  s.wrote = NY_NEW_ARRAY(&c->arena, bool, c->k->body.n_arg + 1);
  lines(&s);
  c->facts->shared = c->shared;
  if (!c->failed) {
    cu_header(c, out);
    ny_text_addf(out, "namespace of_%s {\n", c->facts->symbol);
    if (s.text.n) ny_text_addn(out, s.text.s, s.text.n);
    cu_signature(c, out);
    if (c->shared) ny_text_add(out, "  extern __shared__ __align__(1024) u8 ny_smem[];\n");
    ny_text_addn(out, c->body.s, c->body.n);
    ny_text_add(out, "}\n");
    cu_close(out);
  }
  ny_text_free(&s.text);
}
