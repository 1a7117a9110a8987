/* Result types: what inference computes for symbolic sizes, what it refuses, and shapes that a model computes with
   tensor ops, followed as expressions. Cases are texts: the parser compares every declared type with inference. */
#include <string.h>

#include "ir.h"
#include "test.h"

#define HEAD                                                                                                           \
  "graph g(%x: f32[?B,?S,4], %y: f32[?B,1,4], %i: i64[?N], %u: f32[2,3], %v: f32[3,5], %h: f16[2,3], %c: bool[], %one: f32[1,1], "     \
  "%k: i64[2,2], %q: f4e2m1[3,40], %qs: f8e4m3[3,3], %m: f32[?B,?H,?W,6], %z: i8[2,3]) {\n  "
#define KERNEL                                                                                                         \
  "kernel g(%b: f32[?S,4]@global, %i: i64[?S]@global) {\n  %t = tile : f32[4,8]\n  %r = tile : f32[1,8]\n  "

static const struct {
  const char *head, *op, *error; /* error NULL: accepted */
} cases[] = {
    {HEAD, "%0 = add %x, %y : f32[?B,?S,4]", NULL},
    {HEAD, "%0 = add %u, %v : f32[2,3]", "cannot be shown to match"},
    {HEAD, "%0 = add %u, %h : f32[2,3]", "operands are f32 and f16"},
    {HEAD, "%0 = exp %i : i64[?N]", "not defined for i64[?N]"},
    {HEAD, "%0 = not %u : f32[2,3]", "not defined for"},
    {HEAD, "%0 = where %u, %u, %u : f32[2,3]", "not bool"},
    {HEAD, "%0 = where %c, %u, %u : f32[2,3]", NULL},
    {HEAD, "%0 = isnan %x : bool[?B,?S,4]", NULL},
    {HEAD, "%0 = reshape %x : f32[?B,?S*4]", NULL},
    {HEAD, "%0 = reshape %x : f32[?B*?S*2,2]", NULL},
    {HEAD, "%0 = reshape %u : f32[7]", "6 elements do not fit f32[7]"},
    {HEAD, "%0 = reshape %x : f32[?Z]", NULL}, /* cannot be disproved */
    {HEAD, "%0 = reshape %x : f16[?B,?S,4]", "is declared f16"},
    {HEAD, "%0 = transpose %x perm=[0,0,1] : f32[?B,?B,?S]", "not a permutation"},
    {HEAD, "%0 = dequantize %q, %qs axis=1 block=16 : f32[3,40]", NULL},
    {HEAD, "%0 = dequantize %z, %one : f32[2,3]", NULL},
    {HEAD, "%0 = dequantize %q, %qs axis=1 block=8 : f32[3,40]", "dimension 1 of the scale is 3 for 40 elements in blocks of 8"},
    {HEAD, "%0 = dequantize %q, %qs axis=1 : f32[3,40]", "dimension 1 of the scale is 3 for 40 elements"},
    {HEAD, "%0 = dequantize %q, %qs axis=2 block=16 : f32[3,40]", "axis"},
    {HEAD, "%0 = dequantize %q, %qs axis=1 block=-1 : f32[3,40]", "blocks of -1"},
    {HEAD, "%0 = dequantize %q, %z axis=1 block=16 : f32[3,40]", "the scale is i8[2,3]"},
    {HEAD, "%0 = dequantize %q, %qs, %z axis=1 block=16 : f32[3,40]", "dimension 0 of the zero point is 2 for 3 elements"},
    {HEAD, "%0 = dequantize %q, %qs axis=1 block=16 : i8[3,40]", "i8"},
    {HEAD, "%0 = broadcast %y : f32[2,?B,?S,4]", NULL},
    {HEAD, "%0 = broadcast %u : f32[2,4]", "does not broadcast"},
    {HEAD, "%0 = slice %u start=[0,1] : f32[2,2]", NULL},
    {HEAD, "%0 = slice %u start=[0,1] : f32[2,3]", "dimension 1 of size 3 is read from 1 to 3"},
    {HEAD, "%0 = slice %u start=[1,2] step=[-1,-2] : f32[2,2]", NULL},
    {HEAD, "%0 = slice %u start=[0,0] step=[1,0] : f32[2,3]", "step 1 is 0"},
    {HEAD, "%0 = slice %x start=[0,0,4] : f32[?B,?S,1]", "is read from 4"},
    {HEAD, "%0 = slice %x start=[0,0,4] : f32[?B,?S,0]", NULL},
    {HEAD, "%0 = slice %x start=[0,-1,0] : f32[?B,1,4]", "is read from -1"},
    {HEAD, "%0 = pad %u lo=[1,0] hi=[?S,0] : f32[?S+3,3]", NULL},
    {HEAD, "%0 = pad %u lo=[-1,0] hi=[0,0] : f32[1,3]", "negative padding"},
    {HEAD, "%0 = pad %u lo=[1,0] hi=[0,0] interior=[1,0] mode=edge : f32[4,3]", "interior padding"},
    {HEAD, "%0 = concat %x, %y, %x axis=1 : f32[?B,?S*2+1,4]", NULL},
    {HEAD, "%0 = concat %u, %v : f32[5,3]", "differ outside axis 0"},
    {HEAD, "%0 = gather %x, %k axis=1 : f32[?B,2,2,4]", NULL},
    {HEAD, "%0 = gather %x, %u axis=1 : f32[?B,2,3,4]", "not integers"},
    {HEAD, "%0 = gather_nd %u, %k : f32[2]", NULL},
    {HEAD, "%0 = gather_nd %x, %i : f32[4]", "does not end in a coordinate"},
    {HEAD, "%0 = scatter_elements %u, %k, %u : f32[2,3]", "updates"},
    {HEAD, "%0 = scatter_elements %k, %k, %k op=mean : i64[2,2]", "not one of its modes"},
    {HEAD, "%0 = gather_elements %u, %k axis=0 : f32[2,2]", NULL},
    {HEAD, "%0 = reduce %x axes=[1,-2] : f32[?B,4]", "named twice"},
    {HEAD, "%0 = reduce %c axes=[] : bool[]", "not a numeric format"},
    {HEAD, "%0 = argreduce %x op=sum axis=1 : i64[?B,4]", "not one of its modes"},
    {HEAD, "%0, %1 = topk %u : f32[2,4], i64[2,4]", "4 of 3 elements"},
    {HEAD, "%0 = matmul %u, %v : f32[2,5]", NULL},
    {HEAD, "%0 = matmul %u, %u : f32[2,3]", "inner dimensions are 3 and 2"},
    {HEAD, "%0 = matmul %u, %h : f32[2,3]", "inner dimensions are 3 and 2"},
    {HEAD, "%0 = matmul %u, %q : f32[2,40]", NULL},
    {HEAD, "%0 = matmul %u, %z : f32[2,3]", "do not multiply"},
    {HEAD, "%w = const : f32[5,32]\n  %0 = matmul %u, %w packed=-1 : f32[2,5]", NULL},
    {HEAD, "%0 = matmul %u, %u packed=-1 : f32[2,2]", "filled up inner dimensions are 32 and 3"},
    {HEAD, "%0 = matmul %u, %m packed=-1 : f32[2,2]", "with packed=-1"},
    {HEAD, "%0 = window %m size=[1,2,2,1] stride=[1,2,2,1] : f32[?B,?H/2,?W/2,6]", NULL},
    {HEAD, "%0 = window %u size=[1,4] : f32[2,0]", "does not fit size 3"},
    {HEAD, "%0 = window %u size=[1,?B] : f32[2,1]", "must be numbers"},
    {HEAD, "%w = const : f32[3,3,6,9]\n  %0 = conv %m, %w kernel=[3,3] : f32[?B,?H-2,?W-2,9]", NULL},
    {HEAD, "%w = const : f32[3,3,5,9]\n  %0 = conv %m, %w kernel=[3,3] : f32[?B,?H-2,?W-2,9]", "do not fit"},
    {HEAD, "%w = const : f32[3,3,6,9]\n  %0 = conv %m, %w kernel=[3] : f32[?B,?H-2,?W-2,9]", "entries for input"},
    {HEAD, "%w = const : f32[3,3,3,9]\n  %0 = conv %m, %w kernel=[3,3] group=2 : f32[?B,?H-2,?W-2,9]", "do not fit"},
    {HEAD, "%0 = softmax %i : i64[?N]", "not a float format"},
    {HEAD, "%0 = layer_norm %x, %u axis=-1 : f32[?B,?S,4]", "input 1 is f32[2,3]"},
    {HEAD, "%0 = bitcast %u : f16[2,3]", "differ in width"},
    {HEAD, "%0 = iota axis=2 : f32[2,3]", "outside a tensor of rank 2"},
    {HEAD, "%0 = const : f32[?B]", "not the type of a constant"},
    {HEAD, "%0 = const : f32[9223372036854775807]", "too large"},
    {HEAD, "%0 = if %c : f32[2,3] {\n  yield %u\n} else {\n  yield %v\n}", "f32[2,3] in one body and f32[3,5]"},
    {HEAD, "%0 = loop %u trip=4 : f32[2,3] (%1: i64[], %2: f32[3,5]) {\n  yield %2\n}",
     "f32[2,3] outside and f32[3,5]"},
    {HEAD, "%0 = loop %u trip=4 cond=1 : f32[2,3] (%1: i64[], %2: f32[2,3]) {\n  yield %2\n}", "first carried value"},
    {HEAD, "%0 = reduce %x op=max axes=[0,1,2] keep=1 : f32[1,1,1]", NULL},
    {KERNEL, "%0 = load %b off=0 stride=[4,1] : f32[4,8]", NULL},
    {KERNEL, "%0 = load %b off=0 stride=[4] : f32[4,8]", "1 strides"},
    {KERNEL, "%0 = load %b off=0 stride=[4,1] : f16[4,8]", "is declared f16"},
    {KERNEL, "%0 = load %t stride=[4,1] : f32[4,8]", "not a buffer"},
    {KERNEL, "%0 = load %b stride=[4,1] : f32[?S,8]", "not a tile"},
    {KERNEL, "%0 = load %b, %t stride=[4,1] : f32[4,8]", "index f32[4,8]"},
    {KERNEL, "%0 = add %t, %r : f32[4,8]", NULL},
    {KERNEL, "%0 = add %t, %b : f32[4,8]", "load it"},
    {KERNEL, "%0 = add %t, %r : f32[4,8]\n  set %0, %t", "not the result of `tile`"},
    {KERNEL, "set %r, %t", "does not fit the tile"},
    {KERNEL, "%0 = reduce %t axes=[0] : f32[8]", "two-dimensional"},
    {KERNEL, "%a = tile : f32[4,2]\n  %c = tile : f32[2,8]\n  mma %t, %a, %c, %r block=2", NULL},
    {KERNEL, "%a = tile : f32[4,2]\n  %c = tile : f32[2,8]\n  mma %t, %a, %c, %c block=2", "scales f32[2,8] of blocks of 2 for f32[2,8]"},
    {KERNEL, "%a = tile : f32[4,2]\n  %c = tile : f32[2,8]\n  %s = tile : f32[4,1]\n  mma %t, %a, %c, %r, %s block=2", NULL},
    {KERNEL, "%a = tile : f32[4,2]\n  %c = tile : f32[2,8]\n  mma %t, %a, %c, %c, %a block=0", "blocks of 0"},
    {KERNEL, "mma %t, %t, %r", "f32[4,8] += f32[4,8] * f32[1,8]"},
    {KERNEL, "%0 = local : f32[4]", "@shared"},
};

static void check_case(size_t i) {
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = NULL;
  ny_text t = {0};
  ny_text_addf(&t, "%s%s\n  ret\n}\n", cases[i].head, cases[i].op);
  nyb_status s = ny_parse_unit(cx, t.s, t.n, NULL, &u);
  if (cases[i].error)
    CHECK(s && strstr(cx->diag.message, cases[i].error), "%s: %s", cases[i].op, s ? cx->diag.message : "accepted");
  else
    CHECK(!s, "%s: %s", cases[i].op, cx->diag.message);
  if (!s) ny_unit_free(u);
  ny_text_free(&t);
  ny_ctx_free(cx);
}

/* ---- shapes that the model computes */
static const struct {
  const char *ops, *values; /* the last op's elements; NULL: not known */
} shapes[] = {
    {"%r = dims v=[?B,?S,4] : i64[3]", "?B ?S 4"},
    {"%r = const data=[3,-1] : i64[2]", "3 -1"},
    {"%r = const splat=7 : i64[3]", "7 7 7"},
    {"%r = const splat=0.5 : f32[]", NULL},
    {"%d = dims v=[?B,?S,4] : i64[3]\n  %i = const splat=1 : i64[]\n  %r = gather %d, %i : i64[]", "?S"},
    {"%d = dims v=[?B,?S,4] : i64[3]\n  %i = const data=[-1,0] : i64[2]\n  %r = gather %d, %i : i64[2]", "4 ?B"},
    {"%d = dims v=[?B,?S,4] : i64[3]\n  %r = slice %d start=[2] step=[-2] : i64[2]", "4 ?B"},
    {"%d = dims v=[?B,?S] : i64[2]\n  %c = const splat=2 : i64[1]\n  %r = concat %d, %c : i64[3]", "?B ?S 2"},
    {"%d = dims v=[?B,?S] : i64[2]\n  %c = const splat=2 : i64[]\n  %r = mul %d, %c : i64[2]", "?B*2 ?S*2"},
    {"%d = dims v=[?B,?S] : i64[2]\n  %r = reduce %d op=prod axes=[0] : i64[]", "?B*?S"},
    {"%d = dims v=[?S] : i64[1]\n  %e = cast %d : i32[1]\n  %c = const splat=16 : i32[]\n  %r = div %e, %c : i32[1]",
     "?S/16"},
    {"%d = dims v=[?S] : i64[1]\n  %c = const splat=-1 : i64[]\n  %e = eq %d, %c : bool[1]\n  %f = const splat=9 : "
     "i64[1]\n"
     "  %r = where %e, %f, %d : i64[1]",
     "?S"},
    {"%d = dims v=[?S] : i64[1]\n  %e = cast %d : f32[1]\n  %r = cast %e : i64[1]", NULL},
    {"%d = dims v=[?S] : i64[1]\n  %e = cast %d : i8[1]\n  %r = cast %e : i64[1]", NULL},
    {"%c = const data=[200] : i64[1]\n  %e = cast %c : i8[1]\n  %r = cast %e : i64[1]", "-56"},
    {"%d = dims v=[?S] : i64[]\n  %r = broadcast %d : i64[3]", "?S ?S ?S"},
    {"%d = dims v=[?B,?S] : i64[2]\n  %e = reshape %d : i64[2,1]\n  %f = transpose %e perm=[1,0] : i64[1,2]\n"
     "  %g = reduce %f op=sum axes=[0] : i64[2]\n  %r = neg %g : i64[2]",
     "-?B -?S"},
    {"%d = dims v=[?S] : i64[]\n  %c = const splat=512 : i64[]\n  %r = min %d, %c : i64[]", "min(?S,512)"},
    {"%i = iota : i64[3]\n  %d = dims v=[?S] : i64[]\n  %r = add %i, %d : i64[3]", "?S ?S+1 ?S+2"},
    {"%d = dims v=[?S] : i64[]\n  %c = const splat=4 : i64[]\n  %a = lt %d, %c : bool[]\n  %r = cast %a : i64[]",
     "?S<4"},
    {"%r = add %n, %n : i64[2]", NULL}, /* an input is not known */
};

static void check_shape(size_t i) {
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = NULL;
  ny_text t = {0}, got = {0};
  ny_dim v[64];
  int n;
  ny_text_addf(&t, "graph g(%%x: f32[?B,?S,4], %%n: i64[2]) {\n  %s\n  ret %%r\n}\n", shapes[i].ops);
  nyb_status s = ny_parse_unit(cx, t.s, t.n, NULL, &u);
  CHECK(!s, "%s: %s", shapes[i].ops, cx->diag.message);
  bool known = !s && ny_symbolic_values(u->first, ny_in(u->first->body.last, 0), v, 64, &n);
  ny_text_add(&got, "");
  for (int k = 0; known && k < n; k++) {
    ny_text_add(&got, k ? " " : "");
    ny_dim_print(cx, v[k], &got);
  }
  CHECK(known == (shapes[i].values != NULL) && (!known || !strcmp(got.s, shapes[i].values)), "%s gives %s",
        shapes[i].ops, got.s);
  if (!s) ny_unit_free(u);
  ny_text_free(&t);
  ny_text_free(&got);
  ny_ctx_free(cx);
}

/* A chain longer than any model's: bounded, not known, no crash. */
static void long_chain(void) {
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = ny_unit_new(cx);
  ny_graph *g = ny_graph_new(u, ny_intern(&cx->names, "g"), false);
  ny_builder b = {.g = g, .block = &g->body};
  ny_value *v = ny_b_dims(&b, (ny_dim[]){1, 2}, 2, false);
  for (int i = 0; i < 100000; i++) v = ny_b_ew2(&b, NY_add, v, v);
  ny_dim out[2];
  int n;
  CHECK(v && !ny_symbolic_values(g, v, out, 2, &n), "%s", "a chain of 100000 ops");
  ny_unit_free(u);
  ny_ctx_free(cx);
}

/* The table is consistent with itself. */
static void table(void) {
  for (int k = 0; k < NY_N_KINDS; k++) {
    const ny_kind_info *i = &ny_kinds[k];
    CHECK(i->name && ny_kind_by_name(i->name, strlen(i->name)) == (ny_kind)k, "row %d", k);
    CHECK(i->level && i->min_in <= i->max_in && i->n_attr <= 31, "%s", i->name);
    CHECK(!(i->flags & NY_MAP) || (i->flags & NY_PURE && ny_expr_of((ny_kind)k)), "%s", i->name);
    for (int a = 0; a < i->n_attr; a++) CHECK(i->attr[a].name && i->attr[a].name[0], "%s attribute %d", i->name, a);
  }
  CHECK(ny_kinds[NY_conv].n_attr == 5 && !strcmp(ny_kinds[NY_conv].attr[NY_AT(conv, group)].name, "group"), "%s",
        "slots of conv");
  CHECK(ny_kinds[NY_conv].attr[NY_AT(conv, group)].def == 1 && !ny_kinds[NY_group].attr[0].def_name, "%s", "defaults");
  CHECK(!strcmp(ny_kinds[NY_pad].attr[NY_AT(pad, mode)].def_name, "constant"), "%s", "default of a name");
  CHECK(ny_kinds[NY_add].flags & NY_COMMUTES && !(ny_kinds[NY_sub].flags & NY_COMMUTES), "%s", "commuting rows");
  CHECK(ny_kind_by_name("ad", 2) == NY_N_KINDS && ny_kind_by_name("", 0) == NY_N_KINDS, "%s", "names that are not");
}

int main(void) {
  for (size_t i = 0; i < NY_COUNT(cases); i++) check_case(i);
  for (size_t i = 0; i < NY_COUNT(shapes); i++) check_shape(i);
  long_chain();
  table();
  return test_end("infer_test");
}
