/* The text form and the verifier: exact round trips of files and of random graphs with hostile names, every kind of
   syntax error with its line, blobs in files, damaged bytes, and graphs broken by hand that ny_verify must refuse. */
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ir.h"
#include "test.h"

static uint64_t seed = 11;
static uint64_t draw(uint64_t n) { /* splitmix64 */
  uint64_t z = seed += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z ^ (z >> 31)) % n;
}

static void first_difference(const char *a, const char *b) {
  size_t i = 0;
  while (a[i] && a[i] == b[i]) i++;
  while (i && a[i - 1] != '\n') i--;
  fprintf(stderr, "  was %.*s\n  is  %.*s\n", (int)strcspn(a + i, "\n"), a + i, (int)strcspn(b + i, "\n"), b + i);
}

/* Reads in a fresh context and prints; *status tells why not. The caller frees the text. */
static ny_text reprint(const char *text, size_t n, const char *path, nyb_status *status) {
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u;
  ny_text out = {0};
  *status = ny_parse_unit(cx, text, n, path, &u);
  if (*status) {
    ny_diag_print(&cx->diag, &out);
  } else {
    ny_print_unit(u, &out);
    ny_unit_free(u);
  }
  ny_ctx_free(cx);
  return out;
}

static void files(void) {
  glob_t g;
  CHECK(!glob("tests/ir/*.nyt", 0, NULL, &g) && g.gl_pathc >= 2, "%s", "no texts in tests/ir");
  for (size_t i = 0; i < g.gl_pathc; i++) {
    ny_arena a = {0};
    ny_diag d = {0};
    char *text;
    size_t n;
    nyb_status s = ny_file_read(&a, g.gl_pathv[i], 1 << 20, &text, &n, &d);
    CHECK(!s, "%s: %s", g.gl_pathv[i], d.message);
    ny_text t = reprint(text, n, g.gl_pathv[i], &s);
    CHECK(!s, "%s", t.s);
    bool same = !s && !strcmp(t.s, text);
    CHECK(same, "%s prints differently", g.gl_pathv[i]);
    if (!same && !s) first_difference(text, t.s);
    ny_text_free(&t);
    ny_arena_free(&a);
  }
  globfree(&g);
}

static const struct {
  const char *text;
  int line;
  const char *message;
} errors[] = {
    {"", 1, "there is no graph"},
    {"\n\nblah", 3, "expected graph"},
    {"graph g(%x: f32[2]) {\n  ret %y\n}\n", 2, "%y is not defined"},
    {"graph g(%x: f32[2]) {\n  %y = add %x, %z : f32[2]\n  %z = neg %x : f32[2]\n  ret %y\n}\n", 2,
     "%z is not defined"},
    {"graph g(%x: f32[2], %x: f32[2]) {\n  ret\n}\n", 1, "%x is defined twice"},
    {"graph g(%x: f32[2]) {\n  %y = add %x, %x\n : f32[3]\n  ret %y\n}\n", 2, "declared f32[3] but is f32[2]"},
    {"graph g(%x: f33[2]) {\n  ret\n}\n", 1, "expected a type"},
    {"graph g(%x: f32[1,1,1,1,1,1,1,1,1]) {\n  ret\n}\n", 1, "more than 8 dimensions"},
    {"graph g(%x: f32[-2]) {\n  ret\n}\n", 1, "negative"},
    {"graph g(%x: f32[?S/0]) {\n  ret\n}\n", 1, "expected a size"},
    {"graph g(%x: f32[99999999999999999999]) {\n  ret\n}\n", 1, "expected a size"},
    {"graph g(%x: f32[2]) {\n  %y = frob %x : f32[2]\n  ret %y\n}\n", 2, "expected an operation"},
    {"graph g(%x: f32[2]) {\n  %y = add %x : f32[2]\n  ret %y\n}\n", 2, "add has 1 operands"},
    {"graph g(%x: f32[2]) {\n  neg %x\n  ret\n}\n", 2, "neg has 0 results"},
    {"graph g(%x: f32[2]) {\n  barrier\n  ret\n}\n", 2, "does not stand in a graph"},
    {"kernel g(%x: f32[2]@global) {\n  %y = iota : f32[2]\n  ret\n}\n", 2, "does not stand in a kernel"},
    {"graph g(%x: f32[2]) {\n  %y = softmax %x axs=1 : f32[2]\n  ret %y\n}\n", 2, "no such attribute"},
    {"graph g(%x: f32[2]) {\n  %y = softmax %x axis=0 axis=0 : f32[2]\n  ret %y\n}\n", 2, "given twice"},
    {"graph g(%x: f32[2]) {\n  %y = softmax %x axis=3 : f32[2]\n  ret %y\n}\n", 2,
     "axis 3 is outside a tensor of rank 1"},
    {"graph g(%x: f32[2]) {\n  %y = softmax %x axis=9223372036854775808 : f32[2]\n  ret %y\n}\n", 2, "too large"},
    {"graph g() {\n  %y = const data=[1,2,3] : f32[2]\n  ret %y\n}\n", 2, "expected ']'"},
    {"graph g() {\n  %y = const data=[300] : i8[1]\n  ret %y\n}\n", 2, "300 does not fit i8"},
    {"graph g() {\n  %y = const data=[x] : f32[1]\n  ret %y\n}\n", 2, "expected a number"},
    {"graph g() {\n  %y = const data=blob0 : f32[99]\n  ret %y\n}\n", 2, "blob 0 is not declared"},
    {"blob 0 = base64 \"AAA\"\ngraph g() {\n  ret\n}\n", 1, "base64 of 3 characters"},
    {"blob 0 = base64 \"AA*A\"\ngraph g() {\n  ret\n}\n", 1, "not one of its digits"},
    {"blob 1 = base64 \"AAAA\"\ngraph g() {\n  ret\n}\n", 1, "blob 0 comes next"},
    {"blob 0 = \"x.bin\"+0 bytes=1\ngraph g() {\n  ret\n}\n", 1, "need the path"},
    {"blob 0 = base64 \"AAAA\"\ngraph g() {\n  %y = const data=blob0 : f32[99]\n  ret %y\n}\n", 3,
     "needs 396 bytes, the data has 3"},
    {"graph g(%x: f32[2]) {\n  %y = neg %x : f32[2] loc(\"a\",\"b\",4294967296,0)\n  ret %y\n}\n", 2, "node index"},
    {"graph g(%x: f32[2]) {\n  %y = neg %x : f32[2] loc(\"a\",\"b\",1)\n  ret %y\n}\n", 2, "expected ','"},
    {"graph g(%\"open: f32[2]) {\n  ret\n}\n", 1, "expected a name"},
    {"graph g(%\"\\q\": f32[2]) {\n  ret\n}\n", 1, "expected a name"},
    {"graph g() {\n  ret\n}\ngraph g() {\n  ret\n}\n", 4, "two graphs named g"},
    {"graph g(%x: f32[2]) {\n  ret %x\n", 3, "expected an operation"},
    {"graph g(%x: f32[2], %c: bool[]) {\n  %y = if %c : f32[2] {\n    %z = neg %x : f32[2]\n    yield %z\n  } else {\n "
     "   yield %z\n  }\n"
     "  ret %y\n}\n",
     6, "%z is not visible"},
    {"graph g(%x: f32[2]) {\n  %y = group %x : f32[2] (%z: f32[2]) {\n    yield %x\n  }\n  ret %y\n}\n", 3,
     "%x is not visible"},
    {"graph g(%x: f32[2], %c: bool[]) {\n  %y = if %c : f32[2] {\n    yield %x\n  }\n  ret %y\n}\n", 5,
     "expected else"},
    {"graph g(%x: f32[2]) {\n  %y = neg %x : f32[2]\n}\n", 0, "does not end in ret"},
    {"graph g(%x: f32[2]) {\n  ret %x\n  ret %x\n}\n", 0, "is not the last op"},
    {"graph g(%x: f32[2]) {\n  %y = launch %x kernel=k : f32[2]\n  ret %y\n}\n", 0, "there is no kernel k"},
    {"kernel k(%x: f32[2]@global) {\n  barrier\n  grid var=i\n  ret\n}\n", 0, "stands behind other ops"},
    {"kernel k(%x: f32[2]@global) {\n  for hi=3 {\n  }\n  ret\n}\n", 0, "has no variable"},
};

static void bad_texts(void) {
  for (size_t i = 0; i < NY_COUNT(errors); i++) {
    ny_ctx *cx = ny_ctx_new();
    ny_unit *u;
    nyb_status s = ny_parse_unit(cx, errors[i].text, strlen(errors[i].text), NULL, &u);
    CHECK(s, "accepted: %s", errors[i].text);
    CHECK(strstr(cx->diag.message, errors[i].message), "\"%s\" instead of \"%s\" for %s", cx->diag.message,
          errors[i].message, errors[i].text);
    CHECK(cx->diag.line == errors[i].line, "line %d instead of %d: %s", cx->diag.line, errors[i].line,
          cx->diag.message);
    if (!s) ny_unit_free(u);
    ny_ctx_free(cx);
  }
  nyb_status s;
  ny_text t = reprint("graph g() {\n ret\n}\n\0x", 21, NULL, &s);
  CHECK(s == NYB_E_PARSE, "%s", "a NUL character was accepted");
  ny_text_free(&t);
}

/* ---- blobs in files */
static void write_file(const char *path, const void *p, size_t n) {
  FILE *f = fopen(path, "wb");
  CHECK(f && fwrite(p, 1, n, f) == n && !fclose(f), "cannot write %s", path);
}

static void file_blobs(void) {
  char dir[] = "/tmp/nybble-ir-test-XXXXXX", model[64], text_path[64];
  uint8_t bytes[1000];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7);
  CHECK(mkdtemp(dir), "%s", "no temporary folder");
  snprintf(model, sizeof model, "%s/m.bin", dir);
  snprintf(text_path, sizeof text_path, "%s/00.nyt", dir);
  write_file(model, bytes, sizeof bytes);
  static const char body[] = "\ngraph g() {\n  %w = const data=blob0 : f32[100]\n  ret %w\n}\n";
  static const struct {
    const char *head, *error;
  } cases[] = {{"blob 0 = \"m.bin\"+0x3 bytes=400\n", NULL},
               {"blob 0 = \"m.bin\"+0x259 bytes=400\n", "beyond its end"},
               {"blob 0 = \"m.bin\"+0xffffffffffffffff bytes=400\n", "beyond its end"},
               {"blob 0 = \"m.bin\"+0x0 bytes=404\n", "needs 400 bytes"},
               {"blob 0 = \"other.bin\"+0x0 bytes=400\n", "other.bin"}};
  for (size_t i = 0; i < NY_COUNT(cases); i++) {
    ny_text in = {0};
    nyb_status s;
    ny_text_addf(&in, "%s%s", cases[i].head, body);
    ny_text out = reprint(in.s, in.n, text_path, &s);
    CHECK(cases[i].error ? s && strstr(out.s, cases[i].error) : !s && !strcmp(in.s, out.s), "%s: %s", cases[i].head,
          out.s);
    ny_ctx *cx = ny_ctx_new();
    ny_unit *u;
    if (!cases[i].error && !ny_parse_unit(cx, in.s, in.n, text_path, &u)) {
      CHECK(!memcmp(u->first->body.first->attr[NY_AT(const, data)].blob->data, bytes + 3, 400), "%s",
            "other bytes than the file's");
      ny_unit_free(u);
    }
    ny_ctx_free(cx);
    ny_text_free(&in);
    ny_text_free(&out);
  }
  unlink(model);
  rmdir(dir);
}

/* A copy shares blobs with its original and prints the same; a module's graph reads no other file. */
static void copies(void) {
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = ny_unit_new(cx), *copy, *again;
  ny_graph *g = ny_graph_new(u, ny_intern(&cx->names, "g"), false);
  ny_builder b = {.g = g, .block = &g->body};
  static const float data[200];
  ny_dim n = 100;
  ny_value *v[2];
  for (int i = 0; i < 2; i++) {
    const ny_blob *blob = ny_blob_new(u, data + i * 50, 400, i ? ny_intern(&cx->names, "gone.onnx") : NULL, 7);
    v[i] = ny_b_const(&b, ny_tensor_type(cx, NY_f32, 1, &n), blob);
  }
  ny_build(&b, NY_ret, v, 2, NULL, 0);
  ny_text t = {0}, t2 = {0};
  u->folder = ny_intern(&cx->names, "models");
  ny_print_unit(u, &t);
  CHECK(strstr(t.s, "\"models/gone.onnx\"+0x7"), "%s", t.s);
  CHECK(!ny_unit_copy(u, &copy) && copy, "%s", cx->diag.message);
  CHECK(copy->first->body.first->attr[NY_AT(const, data)].blob->data == (const uint8_t *)data, "%s",
        "the copy has other bytes");
  ny_print_unit(copy, &t2);
  CHECK(!strcmp(t.s, t2.s), "%s", "a copy prints differently");
  ny_unit_free(copy);
  CHECK(!ny_parse_like(u, t.s, t.n, &again), "%s", cx->diag.message);
  ny_unit_free(again);
  CHECK(ny_parse_unit(cx, t.s, t.n, "/tmp/x.nyb", &again) && strstr(cx->diag.message, "a module names"), "%s",
        cx->diag.message);
  ny_text_free(&t);
  ny_text_free(&t2);
  ny_unit_free(u);
  ny_ctx_free(cx);
}

/* ---- random graphs */
static ny_name random_name(ny_ctx *cx) {
  static const char *const some[] = {"x",         "x",   "x_1",     "x_2",         "layer.0/w:0", "12",
                                     "",          "%",   "quo\"te", "back\\slash", "new\nline",   "\xff\xfe",
                                     "; comment", "ret", "if",      "\xe5\x90\x8d"};
  return draw(3) ? ny_intern(&cx->names, some[draw(NY_COUNT(some))]) : NULL;
}

typedef struct pool {
  ny_value *v[64];
  int n;
} pool;

static void pool_add(ny_ctx *cx, pool *p, ny_value *v) {
  if (!v || p->n == 64) return;
  if (v->def) v->name = random_name(cx);
  p->v[p->n++] = v;
}

static const ny_loc *random_loc(ny_unit *u) {
  if (draw(2)) return NULL;
  ny_loc *l = NY_NEW(&u->arena, ny_loc);
  ny_name node = random_name(u->cx);
  *l =
      (ny_loc){node ? node : ny_intern(&u->cx->names, "n"), ny_intern(&u->cx->names, "Op"), (uint32_t)draw(4), draw(3)};
  return l;
}

static void random_op(ny_builder *b, pool *p) {
  static const ny_kind unary[] = {NY_neg, NY_exp, NY_relu, NY_elu, NY_gelu},
                       binary[] = {NY_add, NY_mul, NY_max, NY_pow};
  ny_ctx *cx = b->g->cx;
  ny_value *x = p->v[draw((uint64_t)p->n)], *y = p->v[draw((uint64_t)p->n)], *v = NULL;
  b->loc = random_loc(b->g->unit);
  switch (draw(6)) {
  case 0: v = ny_b_ew1(b, unary[draw(NY_COUNT(unary))], x); break;
  case 1: v = ny_b_ew2(b, binary[draw(NY_COUNT(binary))], x, y); break;
  case 2: v = ny_b_scalar(b, NY_f32, (double)draw(1u << 20) / 1000.0 - 300); break;
  case 3: v = ny_b_reduce(b, draw(2) ? "sum" : "max", x, (int[]){-1}, 1, true); break;
  case 4: v = ny_b_transpose(b, x, (int[]){1, 0}); break;
  default: {
    ny_dim n = 70 + (int64_t)draw(3), d[2] = {n, 1};
    float *f = NY_NEW_ARRAY(&b->g->unit->arena, float, 80);
    for (int i = 0; i < 80; i++) f[i] = (float)draw(1000) / 7;
    v = ny_b_const(b, ny_tensor_type(cx, NY_f32, 2, d), ny_blob_new(b->g->unit, f, (uint64_t)n * 4, NULL, 0));
  }
  }
  if (v && v->def && v->def->kind == NY_elu) v->def->attr[NY_AT(elu, alpha)].f = (double)draw(100) / 8;
  if (v && v->type->rank == 2) pool_add(cx, p, v);
  if (cx->diag.code) { /* shapes that do not fit: the half-built op goes, the graph stays */
    ny_diag_clear(&cx->diag);
    ny_erase(b->block->last);
  }
}

static void random_if(ny_builder *b, pool *p, ny_value *cond) {
  ny_value *x = p->v[draw((uint64_t)p->n)];
  ny_op *op = ny_build(b, NY_if, &cond, 1, &x->type, 1);
  for (int i = 0; i < 2; i++) {
    ny_builder in = {.g = b->g, .block = op->body[i]};
    ny_value *y = ny_b_ew1(&in, i ? NY_neg : NY_tanh, x);
    y->name = random_name(b->g->cx);
    ny_build(&in, NY_yield, &y, 1, NULL, 0);
  }
  pool_add(b->g->cx, p, op->out[0]);
}

static void random_group(ny_builder *b, pool *p) {
  ny_value *x = p->v[draw((uint64_t)p->n)];
  ny_op *op = ny_build(b, NY_group, &x, 1, &x->type, 1);
  ny_value *a = ny_block_arg(b->g, op->body[0], x->type, random_name(b->g->cx));
  ny_builder in = {.g = b->g, .block = op->body[0]};
  a = ny_b_ew1(&in, NY_sqrt, a);
  ny_build(&in, NY_yield, &a, 1, NULL, 0);
  pool_add(b->g->cx, p, op->out[0]);
}

static void random_graphs(void) {
  for (int n = 0; n < 300; n++) {
    ny_ctx *cx = ny_ctx_new();
    ny_unit *u = ny_unit_new(cx);
    ny_graph *g = ny_graph_new(u, ny_intern(&cx->names, n % 3 ? "main" : "odd \"name\""), false);
    ny_builder b = {.g = g, .block = &g->body};
    pool p = {.n = 0};
    for (int i = 0; i < 3; i++) {
      ny_dim d[2] = {i == 1 ? 1 : ny_dim_sym(cx, ny_intern(&cx->names, "B")), i == 2 ? 1 : 4};
      pool_add(cx, &p, ny_block_arg(g, &g->body, ny_tensor_type(cx, NY_f32, 2, d), random_name(cx)));
    }
    ny_value *cond = ny_block_arg(g, &g->body, ny_tensor_type(cx, NY_bool, 0, NULL), random_name(cx));
    for (int i = 0; i < 25; i++) {
      random_op(&b, &p);
      if (draw(8) == 0) random_if(&b, &p, cond);
      if (draw(8) == 0) random_group(&b, &p);
    }
    b.loc = NULL;
    ny_build(&b, NY_ret, &p.v[p.n - 1], 1, NULL, 0);
    CHECK(!ny_verify_unit(u), "random graph %d: %s", n, cx->diag.message);
    ny_text t = {0};
    nyb_status s;
    ny_print_unit(u, &t);
    ny_text again = reprint(t.s, t.n, NULL, &s);
    CHECK(!s && !strcmp(t.s, again.s), "random graph %d: %s", n, s ? again.s : "prints differently");
    if (!s && strcmp(t.s, again.s)) first_difference(t.s, again.s);
    ny_text_free(&t);
    ny_text_free(&again);
    ny_unit_free(u);
    ny_ctx_free(cx);
  }
}

/* ---- damaged bytes: never a crash, and what still parses prints exactly */
static void damaged(void) {
  ny_arena a = {0};
  ny_diag d = {0};
  char *text;
  size_t n;
  CHECK(!ny_file_read(&a, "tests/ir/ops.nyt", 1 << 20, &text, &n, &d), "%s", d.message);
  static const char bits[] = "%\"[]{}()=,:;?/*-+<@ \n0129axf";
  for (int i = 0; i < 3000; i++) {
    char *copy = ny_strndup(&a, text, n);
    size_t m = n;
    for (uint64_t k = 1 + draw(3); k--;) {
      size_t at = (size_t)draw(m), len = (size_t)draw(30);
      if (draw(3) == 0)
        copy[at] = (char)draw(256);
      else if (draw(2))
        copy[at] = bits[draw(sizeof bits - 1)];
      else if (at + len < m) {
        memmove(copy + at, copy + at + len, m - at - len);
        m -= len;
      }
    }
    nyb_status s, s2;
    ny_text t = reprint(copy, m, NULL, &s), t2 = {0};
    if (s) {
      CHECK_EACH(t.n > 0, "%s", "an error without a message");
    } else {
      t2 = reprint(t.s, t.n, NULL, &s2);
      CHECK(!s2 && !strcmp(t.s, t2.s), "damaged text %d does not print exactly", i);
    }
    ny_text_free(&t);
    ny_text_free(&t2);
  }
  ny_arena_free(&a);
}

/* ---- the verifier */
static ny_unit *sample(ny_ctx *cx, ny_op *op[5]) {
  static const char text[] =
      "graph g(%x: f32[2], %c: bool[]) {\n  %a = neg %x : f32[2]\n  %b = add %a, %x : f32[2]\n"
      "  %d = if %c : f32[2] {\n    yield %a\n  } else {\n    %e = exp %b : f32[2]\n    yield %e\n  }\n  ret %d\n}\n";
  ny_unit *u;
  CHECK(!ny_parse_unit(cx, text, sizeof text - 1, NULL, &u), "%s", cx->diag.message);
  op[0] = u->first->body.first;
  for (int i = 1; i < 4; i++) op[i] = op[i - 1]->next;
  op[4] = op[2]->body[1]->first; /* exp */
  return u;
}

static void broken_graphs(void) {
  for (int i = 0; i < 15; i++) {
    ny_ctx *cx = ny_ctx_new();
    ny_op *op[5];
    ny_unit *u = sample(cx, op);
    ny_graph *g = u->first;
    ny_dim three = 3;
    switch (i) {
    case 0: break;                                  /* as it is: valid */
    case 1: ny_move(op[0], &g->body, op[2]); break; /* neg after its use */
    case 2: op[1]->out[0]->type = ny_tensor_type(cx, NY_f32, 1, &three); break;
    case 3: op[1]->in[0].val = op[1]->in[1].val; break; /* a use that its value does not know */
    case 4: ny_set_in(op[3], 0, op[4]->out[0]); break;  /* a value of an inner block */
    case 5: op[0]->out[0]->def = op[1]; break;
    case 6: g->body.last = op[2]; break;
    case 7: op[1]->prev = NULL; break;
    case 8: ny_erase(op[3]); break; /* no ret */
    case 9: op[2]->body[1]->parent = op[0]; break;
    case 10: ny_erase(op[2]->body[0]->last); break; /* no yield */
    case 11: op[4]->kind = NY_mma; break;
    case 12: op[0]->out[0]->id = op[1]->out[0]->id; break;
    case 13: op[2]->in[0].user = op[0]; break;
    case 14: g->arena_bytes = NY_DIM_INVALID; break;
    }
    nyb_status s = ny_verify(g);
    CHECK(i ? s == NYB_E_VERIFY : !s, "breakage %d gives %d: %s", i, s, cx->diag.message);
    if (i == 7) op[1]->prev = op[0];
    ny_unit_free(u);
    ny_ctx_free(cx);
  }
}

static void mutators(void) {
  ny_ctx *cx = ny_ctx_new();
  ny_op *op[5];
  ny_unit *u = sample(cx, op);
  ny_value *x = u->first->body.arg[0], *a = op[0]->out[0];
  CHECK(!ny_one_use(a) && ny_one_use(op[4]->out[0]), "%s", "use counts");
  ny_replace(a, x);
  CHECK(!a->uses && ny_in(op[1], 0) == x, "%s", "replace left a use");
  ny_erase(op[0]);
  CHECK(!ny_verify(u->first), "%s", cx->diag.message);
  ny_set_in(op[3], 0, op[1]->out[0]);
  ny_erase(op[2]); /* with its bodies, whose uses of %b go too */
  CHECK(ny_one_use(op[1]->out[0]) && !ny_verify(u->first), "%s", cx->diag.message);
  ny_text t = {0};
  ny_print_unit(u, &t);
  CHECK(!strcmp(t.s, "graph g(%x: f32[2], %c: bool[]) {\n  %b = add %x, %x : f32[2]\n  ret %b\n}\n"), "%s", t.s);
  ny_text_free(&t);
  ny_unit_free(u);
  ny_ctx_free(cx);
}

int main(void) {
  files();
  bad_texts();
  file_blobs();
  copies();
  random_graphs();
  damaged();
  broken_graphs();
  mutators();
  return test_end("ir_test");
}
