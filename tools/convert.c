/* nybble convert: ONNX to ONNX. What it is not asked to change stays byte for byte. */
#include "cli.h"
#include "verbs.h"

#include "onnx_convert.h"

#include <string.h>

static const ny_dialect *dialect_of(const char *name) {
  const ny_dialect *d = ny_dialect_by_name(name);
  ny_text t = {0};
  for (int i = 0; i < ny_n_dialects && !d; i++) ny_text_addf(&t, "%s%s", i ? ", " : "", ny_dialects[i].name);
  if (!d) cli_usage("convert", "--to %s: wants one of %s", name, t.s);
  return d;
}

static nyb_status convert(ny_ctx *cx, const char *from, const char *to, const ny_dialect *d, int opset, bool outside,
                          uint32_t *changed) {
  ny_edit *e;
  NY_TRY(ny_edit_open(cx, from, &e));
  nyb_status s = opset ? ny_edit_raise_opset(e, opset) : NYB_OK;
  if (!s && d) s = d->convert(e, changed);
  if (!s) s = ny_edit_write(e, to, outside ? 1 : 0);
  if (!s && !d) fprintf(stderr, "operator set %lld\n", (long long)ny_edit_version(e, ""));
  ny_edit_close(e);
  return s;
}

int verb_convert(int argc, char **argv) {
  const char *file, *to = NULL, *out = NULL;
  int opset = 0, outside = 0;
  const cli_option opt[] = {
      {"--to", CLI_STRING, &to, "DIALECT", "standard, trt or microsoft: how quantised weights are spelled"},
      {"--opset", CLI_COUNT, &opset, "N", "raise the operator set to at least this"},
      {"--external", CLI_FLAG, &outside, NULL, "put tensors into OUT.onnx.data"},
      {"-o", CLI_STRING, &out, "OUT.onnx", "where the result goes"}};
  cli_parse("convert", opt, NY_COUNT(opt), argc, argv, &file, 1, 1);
  if (!out) cli_usage("convert", "wants -o OUT.onnx");
  const ny_dialect *d = to ? dialect_of(to) : NULL;
  ny_ctx *cx = ny_ctx_new();
  uint32_t changed = 0;
  nyb_status s = convert(cx, file, out, d, opset, outside != 0, &changed);
  int code = s ? cli_diag(&cx->diag) : CLI_OK;
  if (!s && d) fprintf(stderr, "%u nodes converted to %s\n", changed, d->text);
  ny_ctx_free(cx);
  return code;
}
