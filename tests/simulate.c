/* See simulate.h. A launch's arguments are packed as the ABI says: a pointer a buffer, a number a symbol, the number of grid points. */
#include "simulate.h"

#include <stdlib.h>
#include <string.h>

#include "passes.h"

bool simulate_available(ny_diag *why) {
  const ny_nvrtc *n;
  return ny_nvrtc_open(&n, why) == NYB_OK;
}

static void set_knobs(ny_graph *k, const simulate_schedule *s) {
  const struct {
    const char *name;
    int value;
  } knob[] = {{"tr", s->tr}, {"u", s->u}, {"v", s->v}, {"wm", s->wm}, {"wn", s->wn}};
  k->n_knob = 0;
  if (s->threads > 1) ny_knob_set(k, "threads", s->threads);
  for (size_t i = 0; i < NY_COUNT(knob); i++)
    if (knob[i].value) ny_knob_set(k, knob[i].name, knob[i].value);
}

/* Of one launch: each buffer once, however many arguments it is. */
static nyb_status map_buffers(ny_sim_memory *m, const exec_step *s, ny_diag *d) {
  for (size_t i = 0; i < s->n_buffer; i++) {
    bool known = false;
    for (size_t k = 0; k < i; k++) known |= s->buffer[k] == s->buffer[i];
    int64_t n = 0;
    if (known || !ny_type_static_count(s->kernel->cx, s->tensor[i].type, &n) || !n) continue;
    uint64_t bytes = (ny_fmt_bytes((ny_fmt)s->tensor[i].type->fmt, (uint64_t)n) + 3) & ~(uint64_t)3;
    NY_TRY(ny_sim_map(m, s->buffer[i], bytes, s->kernel->body.arg[i]->name, false, d));
  }
  return NYB_OK;
}

nyb_status simulate_launch(const exec_step *s, const ny_cuda_facts *f, const ny_sim_module *module, const ny_sim_options *options, ny_sim_result *r, ny_diag *d) {
  int k = ny_sim_kernel_index(module, f->symbol);
  if (k < 0) return ny_fail(d, NYB_E_INTERNAL, NULL, "the module has no kernel %s", f->symbol);
  if (s->extent < 1) return NYB_OK;
  uint64_t *arg = calloc(s->n_buffer + (size_t)f->n_symbol + 1, sizeof *arg);
  if (!arg) abort();
  for (size_t i = 0; i < s->n_buffer; i++) arg[i] = (uint64_t)(uintptr_t)s->buffer[i];
  for (int i = 0; i < f->n_symbol; i++) arg[s->n_buffer + (size_t)i] = (uint64_t)s->dim[i];
  arg[s->n_buffer + (size_t)f->n_symbol] = (uint64_t)s->extent;
  ny_sim_memory *m = ny_sim_memory_new();
  nyb_status status = map_buffers(m, s, d);
  ny_sim_launch l = {.module = module,
                     .kernel = k,
                     .grid = {(uint32_t)((s->extent + f->points - 1) / f->points), 1, 1},
                     .block = {(uint32_t)f->block, 1, 1},
                     .dynamic_shared = f->shared,
                     .params = arg,
                     .memory = m,
                     .options = *options};
  if (!status) status = ny_sim_run(&l, r, d);
  ny_sim_memory_free(m);
  free(arg);
  return status;
}

static nyb_status launch(const exec_step *s, const ny_cuda_facts *f, const ny_sim_module *module, ny_diag *d) {
  const ny_sim_options options = {.order = NY_SIM_RANDOM, .seed = 1, .checks = NY_SIM_ALL, .late_copies = true};
  ny_sim_result r = {0};
  nyb_status status = simulate_launch(s, f, module, &options, &r, d);
  if (r.n_findings) {
    ny_text t = {0};
    ny_sim_print_finding(&r.finding[0], &t);
    status = ny_fail(d, NYB_E_DEVICE, NULL, "%u findings, the first: %s", r.n_findings, t.s);
    ny_text_free(&t);
  }
  ny_sim_result_free(&r);
  return status;
}

nyb_status simulate_run(exec *x, const ny_target *target, const simulate_schedule *how, bool compile_only, ny_diag *d) {
  ny_cuda_code code;
  ny_codegen_request r = {.kernel = x->kernel, .n = x->n_kernel, .target = target, .opt = 2, .threads = 4};
  for (size_t i = 0; i < x->n_kernel && how->threads; i++) set_knobs(x->kernel[i], how);
  NY_TRY(ny_cuda_compile(&r, &code, d));
  nyb_status s = NYB_OK;
  ny_sim_module **module = calloc(code.n_image + 1, sizeof *module);
  if (!module) abort();
  for (size_t i = 0; i < code.n_image && !s && !compile_only; i++) s = ny_sim_load(code.image[i].ptx, code.image[i].ptx_bytes, "kernel.ptx", &module[i], d);
  for (size_t i = 0; i < x->n_step && !s && !compile_only; i++) {
    size_t k = 0;
    while (x->kernel[k] != x->step[i].kernel) k++;
    s = launch(&x->step[i], &code.kernel[k].facts, module[code.kernel[k].image], d);
  }
  for (size_t i = 0; i < code.n_image; i++)
    if (module[i]) ny_sim_unload(module[i]);
  free(module);
  ny_cuda_code_free(&code);
  return s;
}
