/* nyb_evaluate: the reference evaluator behind the same contract as nyb_run. */
#include "model.h"

#include "module.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t memory_limit = (uint64_t)16 << 30;

static nyb_status take_input(nyb_model *m, ny_diag *d, const nyb_tensor *in, size_t i, ny_tensor *out) {
  ny_fmt f = ny_module_format(in->dtype);
  if (!f || in->ndim < 0 || in->ndim > NY_MAX_RANK || !ny_tensor_dense(in))
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "input %zu: only dense tensors of up to %d dimensions and a known dtype", i,
                   NY_MAX_RANK);
  ny_dim dims[NY_MAX_RANK];
  for (int a = 0; a < in->ndim; a++)
    if ((dims[a] = in->shape[a]) < 0)
      return ny_fail(d, NYB_E_SHAPE, NULL, "input %zu: dimension %d is %lld", i, a, (long long)in->shape[a]);
  out->type = ny_tensor_type(m->ir, f, in->ndim, dims);
  out->data = (char *)in->data + in->byte_offset;
  return NYB_OK;
}

static nyb_status give_output(nyb_model *m, ny_diag *d, const ny_tensor *r, size_t i, nyb_tensor *out) {
  uint64_t bytes;
  int64_t n;
  if (!ny_type_static_count(m->ir, r->type, &n) ||
      (bytes = ny_fmt_bytes((ny_fmt)r->type->fmt, (uint64_t)n)) == UINT64_MAX)
    return ny_fail(d, NYB_E_INTERNAL, NULL, "output %zu has no size", i);
  out->ndim = r->type->rank;
  out->dtype = ny_module_dtype((ny_fmt)r->type->fmt);
  out->device = (nyb_device_id){1, 0};
  out->shape = NY_NEW_ARRAY(&m->results, int64_t, out->ndim + 1);
  for (int a = 0; a < out->ndim; a++) out->shape[a] = r->type->dim[a];
  if (out->data)
    memcpy((char *)out->data + out->byte_offset, r->data, bytes);
  else
    out->data = r->data;
  return NYB_OK;
}

NYB_API nyb_status nyb_evaluate(nyb_model *model, const nyb_tensor *in, size_t n_in, nyb_tensor *out, size_t n_out) {
  if (!model || (!in && n_in) || (!out && n_out)) return NYB_E_ARGUMENT;
  ny_graph *g = model->unit->first;
  ny_diag *d = &model->cx->diag;
  ny_diag_clear(d);
  ny_arena_free(&model->results);
  if (n_in != g->body.n_arg || n_out != g->body.last->n_in)
    return ny_fail(d, NYB_E_ARGUMENT, NULL, "the model has %u inputs and %u outputs, not %zu and %zu", g->body.n_arg,
                   (unsigned)g->body.last->n_in, n_in, n_out);
  ny_tensor *ti = NY_NEW_ARRAY(&model->results, ny_tensor, n_in + 1),
            *to = NY_NEW_ARRAY(&model->results, ny_tensor, n_out + 1);
  for (size_t i = 0; i < n_in; i++) NY_TRY(take_input(model, d, &in[i], i, &ti[i]));
  NY_TRY(ny_model_hand_over(model->cx, model->ir, NULL,
                            ny_eval_graph(g, ti, n_in, &model->results, memory_limit, to, n_out)));
  for (size_t i = 0; i < n_out; i++) NY_TRY(give_output(model, d, &to[i], i, &out[i]));
  return NYB_OK;
}
