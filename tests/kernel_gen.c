/* A unit of one kernel: grid points own 2048 elements of each output and a shared buffer; ops load from inputs, from
   what was stored, from mutable tiles that change between reads, inside loops and out. Every address stays inside the
   point's part of its buffer. */
#include "kernel_gen.h"

enum { MAX_VALUES = 64, PART = 2048 };
typedef struct tile {
  int id, rows, cols;
  bool integer, mutable;
} tile;
typedef struct gen {
  ny_text *s;
  uint32_t state;
  tile v[MAX_VALUES];
  int n, next, depth, loops, budget;
} gen;

static const int rows_menu[] = {1, 1, 1, 2, 5, 8, 16}, cols_menu[] = {1, 3, 8, 16, 20, 33, 64, 100};

static uint32_t draw(gen *g, uint32_t n) {
  g->state ^= g->state << 13, g->state ^= g->state >> 17, g->state ^= g->state << 5;
  return (g->state >> 3) % n;
}

static void indent(gen *g) {
  for (int i = 0; i <= g->depth; i++) ny_text_add(g->s, "  ");
}

static const char *fmt(bool integer) { return integer ? "i32" : "f32"; }

static tile *new_tile(gen *g, bool integer, int rows, int cols) {
  tile *t = &g->v[g->n++];
  *t = (tile){g->next++, rows, cols, integer, false};
  return t;
}

static void type_of(gen *g, const tile *t) { ny_text_addf(g->s, " : %s[%d,%d]\n", fmt(t->integer), t->rows, t->cols); }

/* off, stride: inside 2048 elements for rows x cols <= 1600. */
static void address(gen *g, int rows, int cols, bool own) {
  bool turned = draw(g, 4) == 0;
  int s0 = turned ? 1 : cols + (int)draw(g, 3), s1 = turned ? rows + (int)draw(g, 2) : 1;
  int last = (rows - 1) * s0 + (cols - 1) * s1, off = (int)draw(g, 8);
  if (last + off + 8 >= PART) s0 = turned ? 1 : cols, s1 = turned ? rows : 1, off = 0;
  if (!own && draw(g, 5) == 0 && rows > 1) s0 = 0;
  if (!own && draw(g, 7) == 0) s1 = 0;
  ny_text_addf(g->s, " off=?g*%d", PART);
  if (g->loops && last + off + 8 < PART) ny_text_addf(g->s, "+?i%d%%7", (int)draw(g, (uint32_t)g->loops));
  ny_text_addf(g->s, "+%d stride=[%d,%d]", off, s0, s1);
  if (draw(g, 4) == 0)
    ny_text_addf(g->s, " lim=[%d,%d]", 1 + (int)draw(g, (uint32_t)rows), (int)draw(g, (uint32_t)cols + 2));
}

static const char *buffer(gen *g, bool integer, bool store) {
  static const char *const name[2][3] = {{"c", "p", "a"}, {"d", "q", "b"}};
  return name[integer][draw(g, store ? 2 : 3)];
}

static void gen_load(gen *g) {
  tile *t = new_tile(g, draw(g, 2), rows_menu[draw(g, 7)], cols_menu[draw(g, 8)]);
  indent(g);
  ny_text_addf(g->s, "%%v%d = load %%%s", t->id, buffer(g, t->integer, false));
  address(g, t->rows, t->cols, false);
  type_of(g, t);
}

static const tile *any(gen *g, int integer) { /* -1: either */
  for (int tries = 0; tries < 40; tries++) {
    const tile *t = &g->v[draw(g, (uint32_t)g->n)];
    if (integer < 0 || t->integer == (bool)integer) return t;
  }
  return NULL;
}

static bool fits(int a, int b) { return a == b || a == 1 || b == 1; }
static int larger(int a, int b) { return a > b ? a : b; }

static void gen_ew(gen *g) {
  static const char *const two[2][6] = {{"add", "sub", "mul", "max", "min", "sub"},
                                        {"add", "sub", "mul", "max", "xor", "and"}};
  static const char *const one[2][4] = {{"neg", "abs", "relu", "sign"}, {"neg", "abs", "relu", "inv"}};
  const tile *p = any(g, -1), *q = any(g, p->integer);
  tile a = *p, b = q ? *q : *p;
  indent(g);
  if (!q || !fits(a.rows, b.rows) || !fits(a.cols, b.cols) || draw(g, 4) == 0) {
    tile *t = new_tile(g, a.integer, a.rows, a.cols);
    ny_text_addf(g->s, "%%v%d = %s %%v%d", t->id, one[a.integer][draw(g, 4)], a.id);
    type_of(g, t);
    return;
  }
  int rows = larger(a.rows, b.rows), cols = larger(a.cols, b.cols);
  if (draw(g, 5) == 0) {
    ny_text_addf(g->s, "%%m%d = lt %%v%d, %%v%d : bool[%d,%d]\n", g->next, a.id, b.id, rows, cols);
    indent(g);
    tile *t = new_tile(g, a.integer, rows, cols);
    ny_text_addf(g->s, "%%v%d = where %%m%d, %%v%d, %%v%d", t->id, t->id, a.id, b.id);
    type_of(g, t);
    return;
  }
  tile *t = new_tile(g, a.integer, rows, cols);
  ny_text_addf(g->s, "%%v%d = %s %%v%d, %%v%d", t->id, two[a.integer][draw(g, 6)], a.id, b.id);
  type_of(g, t);
}

static void gen_store(gen *g) {
  const tile *t = any(g, -1);
  indent(g);
  ny_text_addf(g->s, "store %%%s, %%v%d", buffer(g, t->integer, true), t->id);
  address(g, t->rows, t->cols, true);
  ny_text_add(g->s, t->integer && draw(g, 4) == 0 ? " op=sum\n" : draw(g, 5) == 0 ? " op=max\n" : "\n");
}

static void gen_tile(gen *g) {
  tile *t = new_tile(g, draw(g, 2), rows_menu[draw(g, 7)], cols_menu[draw(g, 8)]);
  t->mutable = true;
  indent(g);
  ny_text_addf(g->s, "%%v%d = tile fill=%d", t->id, (int)draw(g, 5) - 2);
  type_of(g, t);
}

static void gen_set(gen *g) {
  for (int tries = 0; tries < 60; tries++) {
    const tile *t = any(g, -1), *v = any(g, t->integer);
    if (!t->mutable || !v || (v->rows != t->rows && v->rows != 1) || (v->cols != t->cols && v->cols != 1)) continue;
    indent(g);
    ny_text_addf(g->s, "set %%v%d, %%v%d\n", t->id, v->id);
    return;
  }
}

static void gen_reduce(gen *g) {
  const tile *p = any(g, -1);
  tile a = *p;
  uint32_t axes = 1 + draw(g, 3);
  static const char *const names[] = {"", "0", "1", "0,1"}, *const ops[] = {"max", "min", "sum", "sum"};
  tile *t = new_tile(g, a.integer, axes & 1 ? 1 : a.rows, axes & 2 ? 1 : a.cols);
  indent(g);
  ny_text_addf(g->s, "%%v%d = reduce %%v%d op=%s axes=[%s] keep=1", t->id, a.id, ops[draw(g, a.integer ? 4 : 2)],
               names[axes]);
  type_of(g, t);
}

static void gen_mma(gen *g) { /* of fresh loads, or of whatever integer tile fits */
  int m = rows_menu[draw(g, 7)], k = rows_menu[draw(g, 7)], n = cols_menu[draw(g, 8)], id[3];
  const int shape[3][2] = {{m, n}, {m, k}, {k, n}};
  for (int i = 0; i < 3; i++) {
    tile *t = new_tile(g, true, shape[i][0], shape[i][1]);
    id[i] = t->id;
    t->mutable = i == 0;
    indent(g);
    ny_text_addf(g->s, i ? "%%v%d = load %%%s" : "%%v%d = tile", t->id, buffer(g, true, false));
    if (i) address(g, t->rows, t->cols, false);
    type_of(g, t);
  }
  if (draw(g, 2)) {
    tile *t = new_tile(g, true, m, k);
    indent(g);
    ny_text_addf(g->s, "%%v%d = mul %%v%d, %%v%d", t->id, id[1], id[1]);
    type_of(g, t);
    id[1] = t->id;
  }
  indent(g);
  ny_text_addf(g->s, "mma %%v%d, %%v%d, %%v%d\n", id[0], id[1], id[2]);
}

static void gen_block(gen *g, int ops) {
  for (int i = 0; i < ops && g->n < MAX_VALUES - 8 && g->budget-- > 0; i++) {
    uint32_t what = draw(g, 20);
    if (what < 3)
      gen_load(g);
    else if (what < 9)
      gen_ew(g);
    else if (what < 12)
      gen_store(g);
    else if (what < 13)
      gen_tile(g);
    else if (what < 16)
      gen_set(g);
    else if (what < 17)
      gen_reduce(g);
    else if (what < 18)
      gen_mma(g);
    else if (g->depth < 3) {
      int outer = g->n;
      indent(g);
      ny_text_addf(g->s, "for var=i%d lo=%d hi=%d step=%d unroll=%d {\n", g->loops, (int)draw(g, 3), (int)draw(g, 9),
                   1 + (int)draw(g, 2), 1 + (int)draw(g, 3));
      g->depth++, g->loops++;
      gen_block(g, 3 + (int)draw(g, 6));
      g->depth--, g->loops--;
      g->n = outer;
      indent(g);
      ny_text_add(g->s, "}\n");
    }
  }
}

void kernel_gen(ny_text *out, uint32_t seed) {
  gen g = {.s = out, .state = seed * 2654435761u + 1, .budget = 60};
  int n = 3 * PART;
  ny_text_addf(out,
               "graph main(%%a: f32[%d], %%b: i32[%d]) {\n  %%c, %%d = launch %%a, %%b kernel=k : f32[%d], i32[%d]\n  "
               "ret %%c, %%d\n}\n\n",
               n, n, n, n);
  ny_text_addf(out,
               "kernel k(%%a: f32[%d]@global, %%b: i32[%d]@global, %%c: f32[%d]@global, %%d: i32[%d]@global) {\n  grid "
               "var=g extent=3\n",
               n, n, n, n);
  /* shared buffers: a point's own, so addressed like the rest, and defined before they are read */
  ny_text_addf(out, "  %%p = local : f32[%d]@shared\n  %%q = local : i32[%d]@shared\n", n, n);
  ny_text_addf(out,
               "  for var=z hi=%d {\n    %%zp = load %%a off=?g*%d+?z stride=[0,0] : f32[1,1]\n    store %%p, %%zp "
               "off=?g*%d+?z stride=[0,0]\n",
               PART, PART, PART);
  ny_text_addf(
      out,
      "    %%zq = load %%b off=?g*%d+?z stride=[0,0] : i32[1,1]\n    store %%q, %%zq off=?g*%d+?z stride=[0,0]\n  }\n",
      PART, PART);
  for (int i = 0; i < 3; i++) gen_load(&g);
  gen_block(&g, 40);
  for (int i = 0; i < 3; i++) gen_store(&g);
  ny_text_add(out, "  ret\n}\n");
}
