/* The importer on models made byte by byte: names and locations, tensor encodings, files outside the model's folder,
   functions, control flow, symbolic sizes, and one clear diagnostic for each way a model can be wrong. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontend.h"
#include "onnx_make.h"
#include "pb.h"
#include "test.h"

static ny_ctx *cx;
static char tmp[64];

static uint8_t *kept[256]; /* models live as long as what was imported from them */
static int n_kept;

static ny_unit *import_dims(msg m, const ny_binding *dims, size_t n) {
  ny_unit *u = NULL;
  if (n_kept < 256) kept[n_kept++] = m.p;
  ny_diag_clear(&cx->diag);
  if (ny_import_onnx_memory(cx, m.p, m.n, "test", dims, n, &u)) return NULL;
  nyb_status s = ny_verify_unit(u);
  CHECK(!s, "%s", cx->diag.message);
  return u;
}
static ny_unit *import(msg m) { return import_dims(m, NULL, 0); }

static void fails(msg m, nyb_status code, const char *text) {
  ny_unit *u = import(m);
  CHECK(!u && cx->diag.code == code && strstr(cx->diag.message, text), "status %d, message \"%s\", not \"%s\"",
        u ? 0 : cx->diag.code, u ? "" : cx->diag.message, text);
  ny_unit_free(u);
}

static bool printed(ny_unit *u, const char *part) {
  ny_text t = {0};
  ny_print_unit(u, &t);
  bool found = strstr(t.s, part) != NULL;
  if (!found) fprintf(stderr, "%s", t.s);
  ny_text_free(&t);
  return found;
}

/* Imports, and looks for a line of the text. */
static void gives(msg m, const char *part) {
  ny_unit *u = import(m);
  CHECK(u && printed(u, part), "%s: %s", part, cx->diag.message);
  ny_unit_free(u);
}

static msg one_node(const char *op, const char *in) { /* x f32[2,3] -> y */
  msg g = {0};
  NODE(&g, op, in, "y", NONE);
  INPUT(&g, "x", "2,3");
  OUTPUT(&g, "y", "2,3");
  return g;
}

static void test_wire(void) {
  const uint8_t good[] = {0x08, 0x96, 0x01, 0x12, 0x02, 'h', 'i', 0x1d, 1, 0, 0, 0}, cut[] = {0x12, 0x05, 'a'},
                group[] = {0x0b, 0x0c};
  ny_pb r = ny_pb_over((ny_bytes){good, sizeof good});
  CHECK(ny_pb_next(&r) && r.field == 1 && r.value == 150, "varint");
  CHECK(ny_pb_next(&r) && r.field == 2 && r.bytes.n == 2 && r.bytes.p == good + 5, "bytes in place");
  CHECK(ny_pb_next(&r) && r.field == 3 && r.value == 1, "fixed");
  CHECK(!ny_pb_next(&r) && !r.bad, "end");
  r = ny_pb_over((ny_bytes){cut, sizeof cut});
  CHECK(!ny_pb_next(&r) && r.bad, "a length beyond the end");
  r = ny_pb_over((ny_bytes){group, sizeof group});
  CHECK(!ny_pb_next(&r) && r.bad, "groups");
  uint8_t longest[11];
  memset(longest, 0xff, sizeof longest);
  const uint8_t *p = longest;
  uint64_t v;
  CHECK(!ny_pb_varint(&p, longest + sizeof longest, &v), "a varint of 11 bytes");
  ny_unit *u = NULL;
  CHECK(ny_import_onnx_memory(cx, "", 0, "empty", NULL, 0, &u) && !u, "an empty file");
  for (size_t n = 0; n < 200; n++) { /* every prefix of a model is an error or, at whole fields, a model */
    msg m = make_model(one_node("Relu", "x"), 17);
    if (n < m.n) m.n = n;
    ny_diag_clear(&cx->diag);
    nyb_status s = ny_import_onnx_memory(cx, m.p, m.n, "prefix", NULL, 0, &u);
    CHECK(s ? !u : u != NULL, "prefix of %zu bytes", n);
    ny_unit_free(u);
    free(m.p);
    u = NULL;
  }
}

static void test_structure(void) {
  gives(make_model(one_node("Relu", "x"), 17), "%y = relu %x : f32[2,3]");
  fails(make_model(one_node("Frobnicate", "x"), 17), NYB_E_UNSUPPORTED,
        "operator Frobnicate of domain ai.onnx is not supported");
  CHECK(cx->diag.has_loc && !strcmp(cx->diag.loc.op_type, "Frobnicate") && cx->diag.loc.index == 0 &&
            cx->diag.loc.offset > 0,
        "location");
  fails(make_model(one_node("Relu", "z"), 17), NYB_E_PARSE, "no tensor is named \"z\"");
  fails(make_model(one_node("Gelu", "x"), 17), NYB_E_UNSUPPORTED, "supported from version 20 to 28");
  fails(make_model(one_node("Relu", "x"), 29), NYB_E_UNSUPPORTED, "operator set 29");
  fails(make_model(one_node("Add", "x"), 17), NYB_E_PARSE, "input 1 is missing");
  msg g = {0};
  NODE(&g, "Neg", "b", "y", NONE);
  NODE(&g, "Exp", "a", "b", NONE);
  NODE(&g, "Relu", "x", "a", NONE);
  NODE(&g, "Frobnicate", "x", "nobody", NONE);
  INPUT(&g, "x", "4");
  OUTPUT(&g, "y", "4");
  gives(make_model(g, 17), "%y = neg %b"); /* unsorted, and what nothing needs is not looked at */
  g = NONE;
  NODE(&g, "Neg", "b", "a", NONE);
  NODE(&g, "Exp", "a", "b", NONE);
  OUTPUT(&g, "b", "4");
  fails(make_model(g, 17), NYB_E_PARSE, "cycle");
  CHECK(cx->diag.has_loc, "a cycle names a node");
  g = one_node("Relu", "x");
  NODE(&g, "Neg", "x", "y", NONE);
  fails(make_model(g, 17), NYB_E_PARSE, "produced a second time");
  g = NONE;
  NODE(&g, "Relu", "x", "y", NONE);
  INPUT(&g, "x", "2");
  put_value(&g, 12, "y", 7, "2");
  fails(make_model(g, 17), NYB_E_TYPE, "declared i64 but is f32");
}

static msg tensor_model(msg init) { /* y = the initializer c */
  msg g = {0};
  NODE(&g, "Identity", "c", "y", NONE);
  put_msg(&g, 5, init);
  put_text(&g, 2, "g");
  msg y = {0};
  put_text(&y, 1, "y");
  put_msg(&g, 12, y);
  return make_model(g, 25);
}

/* The initializer must come out as these values. */
static void holds(msg init, ny_fmt f, int n, const double *want) {
  ny_unit *u = import(tensor_model(init));
  CHECK(u, "%s: %s", ny_fmts[f].name, cx->diag.message);
  if (!u) return;
  ny_arena a = {0};
  ny_tensor out;
  CHECK(!ny_eval_graph(u->first, NULL, 0, &a, 1 << 20, &out, 1) && out.type->fmt == f, "%s", ny_fmts[f].name);
  for (int i = 0; i < n && !cx->diag.code; i++) {
    double got = ny_is_float(f) ? ny_get_f(f, out.data, (uint64_t)i) : (double)ny_get_i(f, out.data, (uint64_t)i);
    CHECK(got == want[i], "%s element %d: %g, not %g", ny_fmts[f].name, i, got, want[i]);
  }
  ny_arena_free(&a);
  ny_unit_free(u);
}

static msg listed(int dtype, uint32_t field, int n, const int64_t *v, bool packed) {
  msg t = make_tensor("c", dtype, 1, (int64_t[]){n}), list = {0};
  int numbers = dtype >= 21 && dtype <= 23 ? (n + 1) / 2 : dtype == 25 || dtype == 26 ? (n + 3) / 4 : n;
  for (int i = 0; i < numbers; i++) {
    if (packed)
      put_varint(&list, (uint64_t)v[i]);
    else
      put_int(&t, field, v[i]);
  }
  if (packed) put_msg(&t, field, list);
  return t;
}

static void test_tensors(void) {
  const float f[3] = {1.5f, -2, 0.25f};
  const double fd[3] = {1.5, -2, 0.25};
  holds(raw_tensor("c", 1, 1, (int64_t[]){3}, f, 12), NY_f32, 3, fd);
  msg t = make_tensor("c", 1, 1, (int64_t[]){3});
  put_len(&t, 4, f, 12);
  holds(t, NY_f32, 3, fd); /* packed float_data */
  t = make_tensor("c", 1, 1, (int64_t[]){3});
  for (int i = 0; i < 3; i++) put_varint(&t, 4 << 3 | 5), put_bytes(&t, &f[i], 4);
  holds(t, NY_f32, 3, fd); /* one field a number */
  for (int packed = 0; packed < 2; packed++) {
    holds(listed(7, 7, 2, (int64_t[]){-5, 1ll << 40}, packed), NY_i64, 2, (double[]){-5, (double)(1ll << 40)});
    holds(listed(6, 5, 2, (int64_t[]){-5, 7}, packed), NY_i32, 2, (double[]){-5, 7});
    holds(listed(3, 5, 2, (int64_t[]){-5, 127}, packed), NY_i8, 2, (double[]){-5, 127});
    holds(listed(9, 5, 3, (int64_t[]){0, 1, 1}, packed), NY_bool, 3, (double[]){0, 1, 1});
    holds(listed(13, 11, 1, (int64_t[]){77}, packed), NY_u64, 1, (double[]){77});
    holds(listed(10, 5, 2, (int64_t[]){0x3c00, 0xc000}, packed), NY_f16, 2, (double[]){1, -2});
    holds(listed(16, 5, 2, (int64_t[]){0x3f80, 0xc000}, packed), NY_bf16, 2, (double[]){1, -2});
    holds(listed(17, 5, 2, (int64_t[]){0x38, 0xc0}, packed), NY_f8e4m3, 2, (double[]){1, -2});
    holds(listed(22, 5, 3, (int64_t[]){0xf1, 0x07}, packed), NY_i4, 3, (double[]){1, -1, 7});
    holds(listed(21, 5, 3, (int64_t[]){0xf1, 0x07}, packed), NY_u4, 3, (double[]){1, 15, 7});
    holds(listed(23, 5, 2, (int64_t[]){0xa2}, packed), NY_f4e2m1, 2, (double[]){1, -1});
    holds(listed(26, 5, 4, (int64_t[]){0xe4}, packed), NY_i2, 4, (double[]){0, 1, -2, -1});
  }
  holds(raw_tensor("c", 9, 1, (int64_t[]){3}, "\0\1\7", 3), NY_bool, 3,
        (double[]){0, 1, 1}); /* any byte but 0 is true */
  holds(raw_tensor("c", 1, 1, (int64_t[]){0}, "", 0), NY_f32, 0, fd);
  fails(tensor_model(raw_tensor("c", 1, 1, (int64_t[]){4}, f, 12)), NYB_E_PARSE,
        "holds 12 bytes of raw data but its shape needs 16");
  fails(tensor_model(raw_tensor("c", 1, 1, (int64_t[]){-1}, f, 12)), NYB_E_PARSE, "negative");
  fails(tensor_model(make_tensor("c", 1, 2, (int64_t[]){1ll << 30, 1ll << 30})), NYB_E_LIMIT, "2^48");
  fails(tensor_model(make_tensor("c", 1, 1, (int64_t[]){5})), NYB_E_PARSE, "holds 0 numbers");
  fails(tensor_model(make_tensor("c", 8, 1, (int64_t[]){5})), NYB_E_UNSUPPORTED, "strings");
  fails(tensor_model(listed(1, 7, 2, (int64_t[]){1, 2}, true)), NYB_E_PARSE, "wrong list");
}

/* Weights stay where the file has them. */
static void test_in_place(void) {
  static float w[1024];
  msg m = tensor_model(raw_tensor("c", 1, 1, (int64_t[]){1024}, w, sizeof w));
  ny_unit *u = import(m);
  CHECK(u && u->blobs, "%s", cx->diag.message);
  for (const ny_blob *b = u ? u->blobs : NULL; b; b = b->next)
    if (b->bytes == sizeof w)
      CHECK(b->data > m.p && b->data < m.p + m.n && b->offset == (uint64_t)(b->data - m.p), "the blob was copied");
  ny_unit_free(u);
}

/* An initializer that is also an input is a constant (IR version 3 lists all of them). */
static void test_listed_input(void) {
  msg g = {0};
  NODE(&g, "Add", "x,c", "y", NONE);
  INPUT(&g, "x", "3");
  INPUT(&g, "c", "3");
  OUTPUT(&g, "y", "3");
  put_msg(&g, 5, raw_tensor("c", 1, 1, (int64_t[]){3}, (float[]){1, 2, 3}, 12));
  gives(make_model(g, 9), "(%x: f32[3])");
}

/* ---- External data */
static void save(const char *name, const void *p, size_t n) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", tmp, name);
  FILE *f = fopen(path, "wb");
  CHECK(f && fwrite(p, 1, n, f) == n, "%s", path);
  if (f) fclose(f);
}

static nyb_status external(const char *location, const char *offset, const char *length, ny_unit **u) {
  const char *entry[3][2] = {{"location", location}, {"offset", offset}, {"length", length}};
  char path[256];
  msg t = make_tensor("c", 1, 1, (int64_t[]){3});
  for (int i = 0; i < 3; i++) {
    msg e = {0};
    put_text(&e, 1, entry[i][0]);
    put_text(&e, 2, entry[i][1]);
    if (*entry[i][1])
      put_msg(&t, 13, e);
    else
      free(e.p);
  }
  put_int(&t, 14, 1);
  msg m = tensor_model(t);
  save("model/m.onnx", m.p, m.n);
  free(m.p);
  snprintf(path, sizeof path, "%s/model/m.onnx", tmp);
  ny_diag_clear(&cx->diag);
  *u = NULL;
  return ny_import_onnx(cx, path, NULL, 0, u);
}

static void refused(const char *location, const char *offset, const char *length, const char *text) {
  ny_unit *u;
  nyb_status s = external(location, offset, length, &u);
  CHECK(s && strstr(cx->diag.message, text), "%s: %s, not %s", location, s ? cx->diag.message : "accepted", text);
  ny_unit_free(u);
}

static void test_external(void) {
  const float w[4] = {0, 1, 2, 3};
  char from[256], to[256];
  ny_unit *u;
  snprintf(from, sizeof from, "%s/model", tmp);
  mkdir(from, 0700);
  snprintf(from, sizeof from, "%s/model/sub", tmp);
  mkdir(from, 0700);
  save("outside.bin", w, sizeof w);
  save("model/w.bin", w, sizeof w);
  save("model/sub/w.bin", w, sizeof w);
  snprintf(from, sizeof from, "%s/outside.bin", tmp);
  snprintf(to, sizeof to, "%s/model/hard.bin", tmp);
  CHECK(!link(from, to), "link");
  snprintf(to, sizeof to, "%s/model/soft.bin", tmp);
  CHECK(!symlink(from, to), "symlink");
  snprintf(to, sizeof to, "%s/model/away", tmp);
  CHECK(!symlink(tmp, to), "symlink");
  CHECK(!external("w.bin", "4", "12", &u), "%s", cx->diag.message);
  CHECK(u && u->blobs && u->blobs->file && !strcmp(u->blobs->file, "w.bin") && u->blobs->offset == 4,
        "the blob names its file");
  ny_unit_free(u);
  CHECK(!external("sub/w.bin", "", "12", &u), "%s", cx->diag.message);
  ny_unit_free(u);
  refused("../outside.bin", "0", "12", "plain names below the model's folder");
  refused("sub/../../outside.bin", "0", "12", "plain names");
  refused("./w.bin", "0", "12", "plain names");
  refused(from, "0", "12", "plain names"); /* absolute */
  refused("soft.bin", "0", "12", "symbolic link");
  refused("away/outside.bin", "0", "12", "refused");
  refused("hard.bin", "0", "12", "hard link");
  refused("sub", "0", "12", "not a regular file");
  refused("missing.bin", "0", "12", "refused");
  refused("w.bin", "8", "12", "has 8 bytes after offset 8");
  refused("w.bin", "1000", "12", "starts at byte 1000");
  refused("w.bin", "99999999999999999999", "12", "offset");
  refused("w.bin", "-4", "12", "offset");
  refused("w.bin", "0", "8", "8 bytes of external data but its shape needs 12");
  refused("", "0", "12", "no location");
}

/* ---- Functions, control flow, symbols */
static msg function(const char *name, const char *in, const char *out, msg *node, msg *attribute) {
  msg f = {0};
  put_text(&f, 1, name);
  put_names(&f, 4, in);
  put_names(&f, 5, out);
  if (attribute) put_msg(&f, 11, *attribute);
  put_bytes(&f, node->p, node->n);
  free(node->p);
  put_msg(&f, 9, make_opset("", 17));
  put_msg(&f, 9, make_opset("local", 1));
  put_text(&f, 10, "local");
  return f;
}

static msg call(const char *op, msg attribute) {
  msg n = make_node(op, "x", "y", attribute, NONE);
  put_text(&n, 7, "local");
  return n;
}

static msg function_model(msg callee, msg f1, msg f2) {
  msg g = {0};
  put_msg(&g, 1, callee);
  INPUT(&g, "x", "2,3");
  OUTPUT(&g, "y", NULL);
  msg m = make_model(g, 17);
  put_msg(&m, 8, make_opset("local", 1));
  put_msg(&m, 25, f1);
  if (f2.p) put_msg(&m, 25, f2);
  return m;
}

static msg inner_body(const char *op) { /* a call of local::op inside a function, passing its attribute on */
  msg body = {0}, n = make_node(op, "p", "q", attr_ref("which", "axis", 2), NONE);
  put_text(&n, 7, "local");
  put_msg(&body, 7, n);
  return body;
}

static void test_functions(void) {
  msg body = {0}, def = attr_int("which", 1);
  put_msg(&body, 7, make_node("Softmax", "a", "b", attr_ref("axis", "which", 2), NONE));
  msg leaf = function("leaf", "a", "b", &body, &def), outer_body = inner_body("leaf");
  msg outer = function("outer", "p", "q", &outer_body, NULL), copy = {0};
  put_bytes(&copy, leaf.p, leaf.n);
  gives(function_model(call("outer", attr_int("axis", 0)), leaf, outer), "softmax %x axis=0");
  gives(function_model(call("leaf", NONE), copy, NONE), "softmax %x");
  msg self = inner_body("self");
  fails(function_model(call("self", NONE), function("self", "p", "q", &self, NULL), NONE), NYB_E_PARSE, "calls itself");
}

static msg branch(const char *op, const char *in, const char *out) {
  msg g = {0}, v = {0};
  NODE(&g, op, in, out, NONE);
  put_text(&v, 1, out);
  put_msg(&g, 12, v);
  return g;
}

static void test_control(void) {
  msg g = {0};
  NODE(&g, "If", "c", "y", attr_graph("then_branch", branch("Relu", "x", "t")),
       attr_graph("else_branch", branch("Neg", "x", "e")), NONE);
  INPUT(&g, "x", "N");
  put_value(&g, 11, "c", 9, NULL);
  OUTPUT(&g, "y", "N");
  gives(make_model(g, 17), "= if %c : f32[?N]");
  msg fixed = {0};
  NODE(&fixed, "Shape", "x", "s", NONE);
  NODE(&fixed, "Equal", "s,two", "c", NONE);
  NODE(&fixed, "If", "c", "y", attr_graph("then_branch", branch("Relu", "x", "t")),
       attr_graph("else_branch", branch("Frobnicate", "x", "e")), NONE);
  INPUT(&fixed, "x", "2");
  OUTPUT(&fixed, "y", "2");
  put_msg(&fixed, 5, int_list("two", 1, (int64_t[]){2}));
  gives(make_model(fixed, 17), "relu %x"); /* the other branch is not even looked at */
  msg body = {0}, loop = {0};
  NODE(&body, "Identity", "go", "go_on", NONE);
  NODE(&body, "Add", "h,x", "next", NONE);
  put_value(&body, 11, "i", 7, NULL);
  put_value(&body, 11, "go", 9, NULL);
  INPUT(&body, "h", "N");
  put_value(&body, 12, "go_on", 9, NULL);
  OUTPUT(&body, "next", "N");
  NODE(&loop, "Loop", "trip,,x", "y", attr_graph("body", body), NONE);
  INPUT(&loop, "x", "N");
  OUTPUT(&loop, "y", "N");
  put_msg(&loop, 5, int_list("trip", 1, (int64_t[]){9}));
  gives(make_model(loop, 17), "= loop %x trip=9");
}

static msg two_inputs(const char *a, const char *b) {
  msg g = {0};
  NODE(&g, "Add", "x,z", "y", NONE);
  INPUT(&g, "x", a);
  INPUT(&g, "z", b);
  OUTPUT(&g, "y", NULL);
  return make_model(g, 17);
}

static void test_symbols(void) {
  gives(two_inputs("N,4", "N,4"), "(%x: f32[?N,4], %z: f32[?N,4])");
  gives(two_inputs("N,4", "batch size,4"), "f32[?"); /* two names, one size */
  gives(two_inputs(",4", "N,4"), "(%x: f32[?N,4], %z: f32[?N,4])");
  gives(two_inputs(",4", ",1"), "(%x: f32[?");
  gives(two_inputs("N,4", "7,4"), "(%x: f32[7,4], %z: f32[7,4])");
  fails(two_inputs("3,4", "7,4"), NYB_E_SHAPE, "3 and 7 do not broadcast");
  ny_binding dims[1] = {{ny_intern(&cx->names, "N"), 5}};
  ny_unit *u = import_dims(two_inputs("N,4", "N,4"), dims, 1);
  CHECK(u && printed(u, "%x: f32[5,4]"), "%s", cx->diag.message);
  ny_unit_free(u);
  dims[0].sym = ny_intern(&cx->names, "Q");
  u = import_dims(two_inputs("N,4", "M,4"), dims, 1);
  CHECK(!u && cx->diag.code == NYB_E_ARGUMENT && strstr(cx->diag.message, "It has N, M"), "%s", cx->diag.message);
  msg g = {0};
  NODE(&g, "Reshape", "x,s", "y", NONE);
  INPUT(&g, "x", "N,4");
  put_value(&g, 11, "s", 7, "2");
  OUTPUT(&g, "y", NULL);
  fails(make_model(g, 17), NYB_E_UNSUPPORTED, "input 1 (\"s\") depends on data");
}

static msg attr_ints(const char *name, int64_t v) { /* a list of one */
  msg a = {0};
  put_text(&a, 1, name);
  put_int(&a, 8, v);
  put_int(&a, 20, 7);
  return a;
}

/* The first four of x, and something that wants them to be another number. */
static msg first_four(const char *op, const char *in, msg attribute) {
  msg g = {0};
  NODE(&g, "Slice", "x", "s", attr_ints("starts", 0), attr_ints("ends", 4), NONE);
  NODE(&g, op, in, "y", attribute, NONE);
  INPUT(&g, "x", "N");
  INPUT(&g, "six", "6");
  OUTPUT(&g, "y", NULL);
  return make_model(g, 9);
}

/* What cannot be shown is required of the sizes, naming the node; what cannot be is refused. */
static void test_requirements(void) {
  gives(first_four("Add", "s,x", NONE), "require a=min(?N,4) b=?N text=\"sizes that have to fit\" loc(\"Add_");
  gives(first_four("Squeeze", "s", attr_ints("axes", 0)), "require a=min(?N,4) b=1 text=\"a dimension to be squeezed\"");
  fails(first_four("Add", "s,six", NONE), NYB_E_SHAPE, "sizes that have to fit: min(?N,4) and 6 must be equal");
  ny_binding dims[1] = {{ny_intern(&cx->names, "N"), 3}};
  ny_unit *u = import_dims(first_four("Add", "s,x", NONE), dims, 1);
  CHECK(u && u->first->body.first->kind == NY_add, "numbers leave nothing to require");
  ny_unit_free(u);
  msg g = {0};
  NODE(&g, "Gather", "x,at", "y", NONE);
  INPUT(&g, "x", "N,2");
  OUTPUT(&g, "y", NULL);
  put_msg(&g, 5, int_list("at", 2, (int64_t[]){5, -2}));
  gives(make_model(g, 17), "require a=?N b=max(?N,6) text=\"a size that holds the indices\" loc(\"Gather_");
  msg table = {0};
  NODE(&table, "Shape", "x", "shape", NONE);
  NODE(&table, "Squeeze", "shape", "len", NONE);
  NODE(&table, "Range", "zero,len,one", "at", NONE);
  NODE(&table, "Gather", "rows,at", "y", NONE);
  INPUT(&table, "x", "N");
  INPUT(&table, "rows", "512,2");
  OUTPUT(&table, "y", NULL);
  put_msg(&table, 5, raw_tensor("zero", 7, 0, NULL, (int64_t[]){0}, 8));
  put_msg(&table, 5, raw_tensor("one", 7, 0, NULL, (int64_t[]){1}, 8));
  gives(make_model(table, 17), "require a=512 b=max(?N,512) text=\"a size that holds the positions\" loc(\"Gather_");
  msg body = {0}, other = branch("Neg", "x", "e"), v = {0}, h = {0};
  NODE(&body, "Slice", "x", "s", attr_ints("starts", 0), attr_ints("ends", 4), NONE);
  NODE(&body, "Add", "s,x", "t", NONE);
  put_text(&v, 1, "t");
  put_msg(&body, 12, v);
  NODE(&h, "If", "c", "y", attr_graph("then_branch", body), attr_graph("else_branch", other), NONE);
  INPUT(&h, "x", "N");
  put_value(&h, 11, "c", 9, NULL);
  OUTPUT(&h, "y", NULL);
  gives(make_model(h, 9), "    require a=min(?N,4) b=?N"); /* where it is needed, not before */
}

static void test_nesting(void) {
  msg g = branch("Relu", "x", "y");
  for (int i = 0; i < 60; i++) {
    msg outer = {0}, v = {0};
    NODE(&outer, "If", "c", "y", attr_graph("then_branch", g), NONE);
    put_text(&v, 1, "y");
    put_msg(&outer, 12, v);
    g = outer;
  }
  fails(make_model(g, 17), NYB_E_LIMIT, "nested more than");
}

int main(void) {
  cx = ny_ctx_new();
  snprintf(tmp, sizeof tmp, "/tmp/nybble-import-XXXXXX");
  CHECK(mkdtemp(tmp), "mkdtemp");
  test_wire();
  test_structure();
  test_tensors();
  test_in_place();
  test_listed_input();
  test_external();
  test_functions();
  test_control();
  test_symbols();
  test_requirements();
  test_nesting();
  char command[128];
  snprintf(command, sizeof command, "rm -r %s", tmp);
  CHECK(!system(command), "clean up");
  ny_ctx_free(cx);
  while (n_kept) free(kept[--n_kept]);
  return test_end("import_test");
}
