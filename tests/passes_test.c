/* The pipeline itself: the order that passes.def demands, selection, dumps, resuming, and scale: a plan or a fusion
 * that takes quadratic time would show. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "passes.h"
#include "test.h"

static const ny_target target = {
    .name = "test", .vec_bytes = 32, .n_vregs = 16, .l1d = 32 << 10, .l2 = 1 << 20, .threads = 2};

static void order(void) {
  static const struct {
    const char *later, *earlier;
  } rows[] = {
#define PASS(name, before, after, opt, text)
#define AFTER(later, earlier, why) {#later, #earlier},
#include "passes.def"
#undef PASS
#undef AFTER
  };
  for (size_t i = 0; i < NY_COUNT(rows); i++)
    CHECK(ny_pass_index(rows[i].later) > ny_pass_index(rows[i].earlier) && ny_pass_index(rows[i].earlier) >= 0,
          "%s after %s", rows[i].later, rows[i].earlier);
}

static void families(void) {
  for (int k = 0; k < NY_N_KINDS; k++)
    for (int i = 0; ny_family_led_by((ny_kind)k, i); i++)
      CHECK(ny_family_by_name(ny_family_led_by((ny_kind)k, i)), "%s is led by no family", ny_kinds[k].name);
}

static ny_unit *parse(ny_ctx *cx, const char *text) {
  ny_unit *u = NULL;
  nyb_status s = ny_parse_unit(cx, text, strlen(text), NULL, &u);
  CHECK(!s, "%s", cx->diag.message);
  return u;
}

static const char small[] = "graph g(%x: f32[2,4]) {\n  %a = neg %x : f32[2,4]\n  %b = neg %a : f32[2,4]\n  %c = exp "
                            "%b : f32[2,4]\n  ret %c\n}\n";

static void selection(void) {
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = parse(cx, small);
  ny_pass_options o = {.target = &target, .opt = 2, .only = "canon,nosuch"};
  CHECK(ny_run_passes(u, &o) == NYB_E_ARGUMENT && strstr(cx->diag.message, "nosuch"), "%s", cx->diag.message);
  ny_diag_clear(&cx->diag);
  o.only = NULL, o.until = "fold", o.off = "canon";
  CHECK(!ny_run_passes(u, &o) && !strcmp(u->done, "fold"), "stopped at %s", u->done ? u->done : "nothing");
  CHECK(u->first->body.first->kind == NY_neg, "canon was off");
  o.until = o.off = NULL, o.only = "canon";
  CHECK(!ny_run_passes(u, &o), "%s", cx->diag.message);
  CHECK(u->first->body.first->kind == NY_neg, "a pass that lies behind does not run again");
  ny_unit_free(u);
  ny_ctx_free(cx);
}

static bool exists(const char *dir, const char *name, const char *content) {
  ny_arena a = {0};
  ny_diag d = {0};
  char *text = NULL;
  size_t n = 0;
  bool ok = !ny_file_read(&a, ny_strf(&a, "%s/%s", dir, name), 1 << 20, &text, &n, &d) && strstr(text, content);
  ny_arena_free(&a);
  return ok;
}

static void dumps(void) {
  char dir[] = "/tmp/nybble-passes-XXXXXX";
  CHECK(mkdtemp(dir), "no temporary folder");
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = parse(cx, small);
  ny_pass_options o = {.target = &target, .opt = 2, .dump_dir = dir, .verify_each = true};
  CHECK(!ny_run_passes(u, &o), "%s", cx->diag.message);
  CHECK(exists(dir, "00-import.nyt", "neg"), "00-import.nyt");
  CHECK(exists(dir, "01-shape.nyt", "stage=shape"), "01-shape.nyt");
  CHECK(exists(dir, "02-canon.nyt", "stage=canon"), "02-canon.nyt");
  ny_unit_free(u);
  ny_ctx_free(cx);
  char rm[64];
  snprintf(rm, sizeof rm, "rm -r %s", dir);
  CHECK(!system(rm), "the folder goes");
}

/* n layers that all stay alive to the end, of symbolic size: the worst case of place. */
static void scale(void) {
  enum { LAYERS = 1500 };
  ny_text t = {0};
  ny_text_add(&t, "graph g(%x: f32[?N,64]) {\n  %b0 = softmax %x : f32[?N,64]\n");
  for (int i = 1; i < LAYERS; i++)
    ny_text_addf(&t, "  %%a%d = exp %%b%d : f32[?N,64]\n  %%b%d = softmax %%a%d : f32[?N,64]\n", i, i - 1, i, i);
  ny_text_add(&t, "  %s0 = add %b0, %b1 : f32[?N,64]\n");
  for (int i = 1; i < LAYERS - 1; i++) ny_text_addf(&t, "  %%s%d = add %%s%d, %%b%d : f32[?N,64]\n", i, i - 1, i + 1);
  ny_text_addf(&t, "  ret %%s%d\n}\n", LAYERS - 2);
  ny_ctx *cx = ny_ctx_new();
  ny_unit *u = parse(cx, t.s);
  ny_pass_options o = {.target = &target, .opt = 2};
  double start = ny_now();
  CHECK(!ny_run_passes(u, &o), "%s", cx->diag.message);
  CHECK(ny_now() - start < 30, "%d layers took %.1f s", LAYERS, ny_now() - start);
  ny_unit_free(u);
  ny_ctx_free(cx);
  ny_text_free(&t);
}

int main(void) {
  order();
  families();
  selection();
  dumps();
  scale();
  return test_end("passes_test");
}
