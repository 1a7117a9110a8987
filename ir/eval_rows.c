/* Softmax and the norms: a row at a time in double, each result rounded once. */
#include "eval.h"

#include <inttypes.h>
#include <math.h>

/* exp(x - max) / sum(exp(x - max)). A row of -inf only, or one holding +inf or NaN, gives NaN, as the formula says. */
nyb_status ny_ev_softmax(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  const ny_type *t = in->type;
  ny_fmt f = (ny_fmt)t->fmt;
  int axis = 0;
  NY_TRY(ny_ev_axis(ev, op, op->attr[NY_AT(softmax, axis)].i, t->rank, &axis));
  int64_t n = t->dim[axis], outer = 1, inner = 1;
  for (int i = 0; i < axis; i++) outer *= t->dim[i];
  for (int i = axis + 1; i < t->rank; i++) inner *= t->dim[i];
  double *row = ny_ev_tmp(ev, op, (uint64_t)n, sizeof *row);
  if (!row) return ev->cx->diag.code;
  for (int64_t a = 0; a < outer; a++)
    for (int64_t b = 0; b < inner; b++) {
      double top = -HUGE_VAL, sum = 0;
      for (int64_t j = 0; j < n; j++) {
        ny_load_f(f, in->data, (uint64_t)((a * n + j) * inner + b), 1, &row[j]);
        top = ny_fold_f(NY_FOLD_max, top, row[j]);
      }
      for (int64_t j = 0; j < n; j++) sum += row[j] = exp(row[j] - top);
      for (int64_t j = 0; j < n; j++)
        row[j] /= sum, ny_store_f(f, out->data, (uint64_t)((a * n + j) * inner + b), 1, &row[j]);
    }
  return NYB_OK;
}

/* mean and variance over the row (variance about the mean, divided by the count); rms_norm takes the mean as 0. */
static nyb_status norm(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out, int64_t axis_attr, double eps,
                       bool centred) {
  const ny_type *t = in->type;
  int axis = 0;
  NY_TRY(ny_ev_axis(ev, op, axis_attr, t->rank, &axis));
  int64_t n = 1, count = ny_count(t);
  for (int i = axis; i < t->rank; i++) n *= t->dim[i];
  double *row = ny_ev_tmp(ev, op, (uint64_t)n, sizeof *row);
  if (!row) return ev->cx->diag.code;
  ny_nd it;
  ny_nd_init(&it, t->rank, t->dim, op->n_in - 1);
  for (int k = 1; k < op->n_in; k++) {
    NY_TRY(ny_ev_fits(ev, op, in[k].type, t));
    ny_bcast_strides(in[k].type, t->rank, it.step[k - 1]);
  }
  for (int64_t at = 0; at < count; at += n) {
    double mean = 0, var = 0;
    ny_load_f((ny_fmt)t->fmt, in->data, (uint64_t)at, (size_t)n, row);
    for (int64_t j = 0; centred && j < n; j++) mean += row[j];
    mean /= (double)n;
    for (int64_t j = 0; j < n; j++) row[j] -= mean, var += row[j] * row[j];
    double scale = 1 / sqrt(var / (double)n + eps);
    for (int64_t j = 0; j < n; j++, ny_nd_next(&it)) {
      row[j] *= scale;
      if (op->n_in > 1) row[j] *= ny_get_f((ny_fmt)in[1].type->fmt, in[1].data, (uint64_t)it.at[0]);
      if (op->n_in > 2) row[j] += ny_get_f((ny_fmt)in[2].type->fmt, in[2].data, (uint64_t)it.at[1]);
    }
    ny_store_f((ny_fmt)t->fmt, out->data, (uint64_t)at, (size_t)n, row);
  }
  return NYB_OK;
}

nyb_status ny_ev_layer_norm(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  return norm(ev, op, in, out, op->attr[NY_AT(layer_norm, axis)].i, op->attr[NY_AT(layer_norm, eps)].f, true);
}

nyb_status ny_ev_rms_norm(ny_ev *ev, const ny_op *op, const ny_tensor *in, ny_tensor *out) {
  return norm(ev, op, in, out, op->attr[NY_AT(rms_norm, axis)].i, op->attr[NY_AT(rms_norm, eps)].f, false);
}
