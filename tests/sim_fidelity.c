/* Goes through every row of the simulator's tables, spells out instructions that it matches, runs each on special and
   random operands and compares with the reference in sim_ref_*.c. A row that nothing covered is a failure: an
   instruction cannot be added without a reference. */
#include "sim_fidelity.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static int n_passed, n_failed;
void fidelity_check(bool ok, const char *fmt, ...) {
  n_passed += ok;
  if (ok || n_failed++ >= 40) return;
  va_list ap;
  va_start(ap, fmt);
  vfprintf(stderr, fmt, ap);
  va_end(ap);
  fprintf(stderr, "\n");
}

/* ---- the simulator as a runner */
static fidelity_status run_simulated(void *self, const char *ptx, const fidelity_buffer *buffer, int n, uint32_t blocks,
                                     uint32_t threads, char *why) {
  const ny_sim_options *options = self;
  ny_diag d = {0};
  ny_sim_module *m = NULL;
  if (ny_sim_load(ptx, strlen(ptx), "fidelity", &m, &d)) {
    snprintf(why, 512, "%.500s", d.message);
    return d.code == NYB_E_UNSUPPORTED ? REFUSED : FAILED;
  }
  ny_sim_memory *memory = ny_sim_memory_new();
  uint64_t param[8];
  for (int i = 0; i < n; i++) {
    param[i] = (uint64_t)(uintptr_t)buffer[i].data;
    if (ny_sim_map(memory, buffer[i].data, buffer[i].bytes, NULL, false, &d)) abort();
  }
  ny_sim_launch l = {.module = m,
                     .kernel = 0,
                     .grid = {blocks, 1, 1},
                     .block = {threads, 1, 1},
                     .params = param,
                     .memory = memory,
                     .options = *options};
  ny_sim_result r = {0};
  nyb_status s = ny_sim_run(&l, &r, &d);
  if (s) snprintf(why, 512, "%.500s", d.message);
  ny_sim_result_free(&r);
  ny_sim_memory_free(memory);
  ny_sim_unload(m);
  return s ? FAILED : RAN;
}
static ny_sim_options options = {.checks = NY_SIM_ALL}; /* tests may change them for a while */
fidelity_runner fidelity_device = {&options, run_simulated};
bool fidelity_simulated = true;

fidelity_status fidelity_run(const char *ptx, const fidelity_buffer *buffer, int n, uint32_t blocks, uint32_t threads,
                             char *why) {
  fidelity_status s = fidelity_device.run(fidelity_device.self, ptx, buffer, n, blocks, threads, why);
  return s == REFUSED && fidelity_simulated ? FAILED : s;
}

/* ---- mnemonics */
bool ref_has(const ref_op *op, const char *word) {
  for (int i = 1; i < op->n_words; i++)
    if (!strcmp(op->word[i], word)) return true;
  return false;
}
static bool is_type(const char *word) { return ref_bits(word) != 0 || ny_ptx_type_by_name(word, strlen(word)); }
void ref_read(ref_op *op, const char *mnemonic) {
  *op = (ref_op){.type = "", .type2 = ""};
  snprintf(op->text, sizeof op->text, "%s", mnemonic);
  const char *s = mnemonic;
  while (*s && op->n_words < MAX_WORDS) {
    size_t n = strcspn(s, ".");
    snprintf(op->word[op->n_words++], sizeof op->word[0], "%.*s", (int)n, s);
    s += n + (s[n] == '.');
  }
  for (int i = 1; i < op->n_words; i++)
    if (is_type(op->word[i])) op->type2 = op->type, op->type = op->word[i];
}

/* ---- coverage */
typedef struct row_state {
  const ny_ptx_row *row;
  bool covered;
} row_state;
static row_state rows[2000];
static size_t n_rows;
static void list_rows(void) {
  for (size_t t = 0; t < ny_ptx_n_tables; t++)
    for (size_t r = 0; r < *ny_ptx_tables[t].n && n_rows < NY_COUNT(rows); r++)
      rows[n_rows++] = (row_state){&ny_ptx_tables[t].row[r], false};
}
static row_state *row_of(const char *mnemonic) { /* the first that fits, as the decoder takes it */
  ny_ptx_match m;
  for (size_t i = 0; i < n_rows; i++)
    if (ny_row_match(rows[i].row, mnemonic, strlen(mnemonic), &m)) return &rows[i];
  return NULL;
}
void covered(const char *mnemonic) {
  row_state *r = row_of(mnemonic);
  fidelity_check(r != NULL, "no row has %s", mnemonic);
  if (r) r->covered = true;
}

/* ---- operands of a row as PTX */
typedef struct operand {
  char letter;
  const char *type; /* of the values put in, and of results */
  int bits, count;  /* count 0: no vector, and where any length will do */
  bool writes, joined;
} operand;
typedef struct form {
  operand o[MAX_OPERANDS];
  int n, n_in, n_out;
} form;

static const char *wider(const char *type) {
  static const char *const pairs[][2] = {
      {"u16", "u32"}, {"s16", "s32"}, {"u32", "u64"}, {"s32", "s64"}, {"b32", "b64"}};
  for (size_t i = 0; i < NY_COUNT(pairs); i++)
    if (!strcmp(pairs[i][0], type)) return pairs[i][1];
  return "b64";
}
/* An operand of any width: the result of a conversion has the type before the last, its source the last. */
static const char *any_type(const ref_op *op, bool writes) {
  const char *t = writes && *op->type2 ? op->type2 : op->type;
  return *t ? t : "b32";
}
static bool operand_of(const ref_op *op, const ny_ptx_match *m, const ny_row_item *it, operand *o) {
  *o = (operand){.letter = it->letter, .count = it->count > 0 ? it->count : 0, .joined = it->joined};
  o->writes = it->letter >= 'A' && it->letter <= 'Z';
  const char *type = m->type ? ny_ptx_types[m->type].name : op->type;
  switch (o->writes ? it->letter + 'a' - 'A' : it->letter) {
  case 't': o->type = type; break;
  case 'w': o->type = wider(type); break;
  case 'h': o->type = ref_bits(op->type) == 16 ? op->type : "b16"; break;
  case 'b': o->type = ref_bits(op->type) == 32 ? op->type : ref_bits(op->type2) == 32 ? op->type2 : "b32"; break;
  case 'l': o->type = ref_bits(op->type) == 64 ? op->type : "b64"; break;
  case 'f': o->type = "f32"; break;
  case 'x': o->type = any_type(op, o->writes); break;
  case 'p': o->type = "pred"; break;
  case 'i': o->type = "b32"; break;
  default: return false; /* addresses and labels: not here */
  }
  o->bits = ref_bits(o->type);
  return true;
}
/* `all`: with the operands that may be missing. */
static bool form_of(const ref_op *op, const ny_ptx_match *m, bool all, form *f) {
  *f = (form){.n = 0};
  ny_row_item it;
  for (const char *s = op->row->operands; (s = ny_row_item_next(s, &it));) {
    if (it.optional && !all) continue;
    if (f->n == MAX_OPERANDS || !operand_of(op, m, &it, &f->o[f->n])) return false;
    int n = it.count > 0 ? it.count : 1;
    if (it.letter != 'i') *(f->o[f->n].writes ? &f->n_out : &f->n_in) += n;
    f->n++;
  }
  return f->n_in <= MAX_IN && f->n_out <= MAX_OUT;
}

static void add_registers(ny_text *t) {
  ny_text_add(t,
              ".version 8.7\n.target sm_120a\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out)\n{\n"
              ".reg .b8 %c<40>;\n.reg .b16 %h<40>;\n.reg .b32 %r<60>;\n.reg .b64 %rd<60>;\n.reg .pred %p<40>;\n"
              "ld.param.u64 %rd40, [in];\nld.param.u64 %rd41, [out];\nmov.u32 %r40, %ctaid.x;\nmov.u32 %r41, %ntid.x;\n"
              "mov.u32 %r42, %tid.x;\nmad.lo.s32 %r43, %r40, %r41, %r42;\nmul.wide.u32 %rd42, %r43, 64;\n"
              "add.s64 %rd40, %rd40, %rd42;\nadd.s64 %rd41, %rd41, %rd42;\n");
}
static const char *prefix(int bits) {
  return bits == 1 ? "%p" : bits == 8 ? "%c" : bits == 16 ? "%h" : bits == 64 ? "%rd" : "%r";
}
static void add_load(ny_text *t, int bits, int reg, int at) {
  if (bits == 1) {
    ny_text_addf(t, "ld.global.b32 %%r50, [%%rd40+%d];\nsetp.ne.s32 %%p%d, %%r50, 0;\n", 8 * at, reg);
  } else if (bits == 8) {
    ny_text_addf(t, "ld.global.b16 %%h38, [%%rd40+%d];\nmov.b16 {%%c%d, %%c39}, %%h38;\n", 8 * at, reg);
  } else {
    ny_text_addf(t, "ld.global.b%d %s%d, [%%rd40+%d];\n", bits, prefix(bits), reg, 8 * at);
  }
}
static void add_store(ny_text *t, int bits, int reg, int at) {
  if (bits == 1) {
    ny_text_addf(t, "selp.b32 %%r50, 1, 0, %%p%d;\nst.global.b32 [%%rd41+%d], %%r50;\n", reg, 8 * at);
  } else if (bits == 8) {
    ny_text_addf(t, "mov.b16 %%h38, {%%c%d, 0};\nst.global.b16 [%%rd41+%d], %%h38;\n", reg, 8 * at);
  } else {
    ny_text_addf(t, "st.global.b%d [%%rd41+%d], %s%d;\n", bits, 8 * at, prefix(bits), reg);
  }
}
static void add_operand(ny_text *t, const operand *o, int *reg, int *imm, const ref_op *op) {
  if (o->letter == 'i') {
    ny_text_addf(t, "%lld", (long long)op->imm[(*imm)++]);
    return;
  }
  int n = o->count ? o->count : 1;
  if (o->count) ny_text_add(t, "{");
  for (int k = 0; k < n; k++) ny_text_addf(t, "%s%s%d", k ? ", " : "", prefix(o->bits), (*reg)++);
  if (o->count) ny_text_add(t, "}");
}
static void kernel_text(ny_text *t, const ref_op *op, const form *f) {
  add_registers(t);
  int reg = 0, in = 0, out = 0, imm = 0;
  for (int k = 0; k < f->n; k++)
    for (int e = 0, n = f->o[k].count ? f->o[k].count : 1; e < n && f->o[k].letter != 'i'; e++, reg++)
      if (!f->o[k].writes) add_load(t, f->o[k].bits, reg, in++);
  reg = 0;
  ny_text_addf(t, "%s ", op->text);
  for (int k = 0; k < f->n; k++) {
    if (k) ny_text_add(t, f->o[k].joined ? "|" : ", ");
    add_operand(t, &f->o[k], &reg, &imm, op);
  }
  ny_text_add(t, ";\n");
  reg = 0;
  for (int k = 0; k < f->n; k++)
    for (int e = 0, n = f->o[k].count ? f->o[k].count : 1; e < n && f->o[k].letter != 'i'; e++, reg++)
      if (f->o[k].writes) add_store(t, f->o[k].bits, reg, out++);
  ny_text_add(t, "ret;\n}\n");
}

/* ---- one instruction */
static const char *type_at(const form *f, bool writes, int n) {
  for (int k = 0; k < f->n; k++) {
    if (f->o[k].writes != writes || f->o[k].letter == 'i') continue;
    n -= f->o[k].count ? f->o[k].count : 1;
    if (n < 0) return f->o[k].type;
  }
  return "b32";
}
static uint64_t mask_of(int bits) { return bits >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << bits) - 1; }

enum { LANES = 1024, EXHAUSTIVE = 65536 };
static void fill(const form *f, uint64_t (*in)[8], uint32_t n) {
  uint32_t count[MAX_IN], all = 1;
  for (int k = 0; k < f->n_in; k++) {
    count[k] = fidelity_specials(type_at(f, false, k));
    all = all > n ? all : all * count[k];
  }
  bool whole = f->n_in == 1 && n == EXHAUSTIVE;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t at = all <= n / 2 ? i : (uint32_t)(fidelity_random() % (all ? all : 1));
    for (int k = 0; k < f->n_in; k++) {
      const char *type = type_at(f, false, k);
      bool special = all <= n / 2 ? i < all : i < n / 2;
      uint32_t which = special ? at % count[k] : UINT32_MAX;
      at /= count[k];
      in[i][k] = whole ? i : fidelity_value(type, which) & mask_of(ref_bits(type));
    }
  }
}
static bool close_to(const char *type, uint64_t got, uint64_t want, const ref_entry *e) {
  char single[16];
  snprintf(single, sizeof single, "%s", type);
  size_t n = strlen(single);
  bool packed = n > 2 && !strcmp(single + n - 2, "x2");
  if (packed) single[n - 2] = 0;
  if (!ref_is_float(single)) return got == want;
  int bits = ref_bits(single);
  for (int at = 0; at < ref_bits(type); at += bits) {
    uint64_t g = got >> at & mask_of(bits), r = want >> at & mask_of(bits);
    if (g == r) continue;
    double x = ref_double(single, g), y = ref_double(single, r);
    /* What is in a NaN of f64 is not specified. */
    if (isnan(x) && isnan(y) && (e->rel > 0 || e->abs > 0 || bits == 64)) continue;
    if (!(fabs(x - y) <= e->abs + e->rel * fabs(y)) || (e->rel <= 0 && e->abs <= 0)) return false;
  }
  return true;
}
static void compare(const ref_op *op, const ref_entry *e, const form *f, uint64_t (*in)[8], uint64_t (*out)[8],
                    uint32_t n) {
  uint32_t bad = 0, known = 0;
  for (uint32_t i = 0; i < n; i++) {
    ref_io io = {{0}, {0}};
    memcpy(io.in, in[i], sizeof(uint64_t) * (size_t)f->n_in);
    if (e->fn(op, &io) != REF_OK) continue;
    known++;
    for (int k = 0; k < f->n_out; k++) {
      const char *type = type_at(f, true, k);
      uint64_t want = io.out[k] & mask_of(ref_bits(type)), got = out[i][k] & mask_of(ref_bits(type));
      if (close_to(type, got, want, e) || bad++) continue;
      fprintf(stderr, "%s: result %d of %llx %llx %llx %llx is %llx, not %llx\n", op->text, k,
              (unsigned long long)in[i][0], (unsigned long long)in[i][1], (unsigned long long)in[i][2],
              (unsigned long long)in[i][3], (unsigned long long)got, (unsigned long long)want);
    }
  }
  fidelity_check(!bad && known, "%s: %u of %u results differ", op->text, bad, known);
}
static bool run_one(const ref_op *op, const ref_entry *e, const form *f) {
  uint32_t n = f->n_in == 1 && ref_bits(type_at(f, false, 0)) == 16 ? EXHAUSTIVE : LANES;
  uint64_t(*in)[8] = calloc(n, sizeof *in), (*out)[8] = calloc(n, sizeof *out);
  if (!in || !out) abort();
  fill(f, in, n);
  ny_text t = {0};
  kernel_text(&t, op, f);
  fidelity_buffer buffers[] = {{in, n * sizeof *in}, {out, n * sizeof *out}};
  char why[512] = "";
  fidelity_status s = fidelity_device.run(fidelity_device.self, t.s, buffers, 2, n / 256, 256, why);
  if (s == RAN) compare(op, e, f, in, out, n);
  fidelity_check(s != FAILED, "%s: %s", op->text, why);
  if (s == REFUSED && getenv("FIDELITY_VERBOSE")) fprintf(stderr, "%s\n", why);
  ny_text_free(&t);
  free(in);
  free(out);
  return s == RAN;
}

/* ---- finding the reference */
static bool among(const char *list, const char *word, char separator) {
  size_t n = strlen(word);
  for (const char *s = list; s; s = (s = strchr(s, separator)) ? s + 1 : NULL)
    if (!strncmp(s, word, n) && (!s[n] || s[n] == separator)) return true;
  return false;
}
/* The first entry that has an opinion: several share a name where rounded and approximate forms differ. */
static const ref_entry *reference(const ref_op *op) {
  const ref_entry *const tables[] = {ref_int, ref_float, ref_half, ref_convert, ref_move};
  for (size_t t = 0; t < NY_COUNT(tables); t++)
    for (const ref_entry *e = tables[t]; e->first; e++)
      if (among(e->first, op->word[0], '|') && (!e->types || among(e->types, op->type, ' '))) {
        ref_io probe = {{0}, {0}};
        if (e->fn(op, &probe) != REF_UNKNOWN) return e;
      }
  return NULL;
}

/* ---- spelling out a pattern: the n-th choice of each group */
typedef struct group {
  char word[24][32];
  int n;
  bool optional;
} group;
typedef struct pattern {
  group g[32];
  int n;
} pattern;
static void split(const char *s, pattern *p) {
  p->n = 0;
  while (*s) {
    group *g = &p->g[p->n++];
    *g = (group){.n = 0};
    if (*s == '(' || *s == '[') {
      const char *end = strchr(s, *s == '(' ? ')' : ']');
      for (s++; s < end;) {
        size_t n = strcspn(s, " )]");
        snprintf(g->word[g->n++], sizeof g->word[0], "%.*s", (int)n, s);
        s += n + (s[n] == ' ');
      }
      s = end + 1;
      if (*s == '?') g->optional = true, s++;
    } else {
      size_t n = strcspn(s, ".");
      snprintf(g->word[g->n++], sizeof g->word[0], "%.*s", (int)n, s);
      s += n;
    }
    if (*s == '.') s++;
  }
}
static void spell(const pattern *p, uint64_t choice, bool random, char *out, size_t size) {
  size_t n = 0;
  out[0] = 0;
  for (int k = 0; k < p->n; k++) {
    uint64_t ways = (uint64_t)(p->g[k].n + p->g[k].optional);
    uint64_t c = random ? fidelity_random() % ways : choice % ways;
    choice /= ways;
    if ((int)c == p->g[k].n) continue;
    n += (size_t)snprintf(out + n, size - n, "%s%s", n ? "." : "", p->g[k].word[c]);
  }
}
static bool try_form(ref_op *op, const form *f) {
  static const int64_t luts[] = {0, 0x80, 0xe8, 0x96, 0xca, 0x3c, 0xfe, 0x6a};
  bool ran = false, has_imm = strchr(op->row->operands, 'i') != NULL;
  const ref_entry *e = reference(op);
  for (size_t k = 0; e && k < (has_imm ? NY_COUNT(luts) : 1); k++) {
    op->imm[0] = luts[k];
    ran |= run_one(op, e, f);
  }
  return ran;
}
static bool try_one(row_state *r, const char *mnemonic) {
  ref_op op;
  ref_read(&op, mnemonic);
  op.row = r->row;
  ny_ptx_match m;
  if (row_of(mnemonic) != r || !ny_row_match(r->row, mnemonic, strlen(mnemonic), &m)) return false;
  bool ran = false, optional = strchr(r->row->operands, '?') != NULL;
  for (int all = 1; all >= !optional; all--) {
    form f;
    if (!form_of(&op, &m, all, &f)) continue;
    op.n_in = f.n_in;
    ran |= try_form(&op, &f);
  }
  return ran;
}
static void try_row(row_state *r) {
  pattern p;
  split(r->row->pattern, &p);
  uint64_t ways = 1;
  for (int k = 0; k < p.n; k++) ways *= (uint64_t)(p.g[k].n + p.g[k].optional);
  enum { MOST = 160 };
  for (uint64_t c = 0; c < (ways < MOST ? ways : MOST); c++) {
    char mnemonic[160];
    spell(&p, c, ways > MOST, mnemonic, sizeof mnemonic);
    if (try_one(r, mnemonic)) r->covered = true;
  }
}

static void test_whole_warps(void) {
  options.checks = NY_SIM_ALL;
  test_values();
  test_tensor();
  test_scaled();
  test_matrix();
  test_atomic();
  test_async();
  test_memory();
  test_warp();
}

/* sim_fidelity [PATTERN]: only rows that begin with it. sim_fidelity --driver LIBRARY: on that driver's device. */
int main(int argc, char **argv) {
  bool driver = argc == 3 && !strcmp(argv[1], "--driver");
  const char *only = argc == 2 ? argv[1] : NULL;
  if (driver) {
    if (!fidelity_driver_open(argv[2])) return 77;
    fidelity_device = fidelity_driver;
    fidelity_simulated = false;
  }
  list_rows();
  options.checks = 0; /* each thread works for itself */
  for (size_t i = 0; i < n_rows; i++)
    if (!only || !strncmp(rows[i].row->pattern, only, strlen(only))) try_row(&rows[i]);
  if (!only) test_whole_warps();
  for (size_t i = 0; !only && fidelity_simulated && i < n_rows; i++)
    fidelity_check(rows[i].covered, "no reference ran for \"%s\" \"%s\"", rows[i].row->pattern, rows[i].row->operands);
  if (driver) printf("%d kernels are not for this device\n", fidelity_driver_skipped());
  printf("sim_fidelity: %d passed, %d failed\n", n_passed, n_failed);
  return n_failed != 0;
}
