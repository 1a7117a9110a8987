/* Composites of IR ops that several operators are made of. An operator of ONNX that is another one with a little around
   it is built from these, so that what the passes recognise is spelled in one way. */
#include "onnx.h"

ny_value *ny_gather_elements(ny_node *n, ny_value *x, ny_value *at, int axis) {
  ny_op *op = ny_op_of(n, NY_gather_elements, (ny_value *[]){x, at}, 2);
  if (op) op->attr[NY_AT(gather_elements, axis)].i = axis;
  return ny_infer(n, op);
}

ny_value *ny_scatter_elements(ny_node *n, ny_value *x, ny_value *at, ny_value *with, int axis, const char *how) {
  ny_op *op = ny_op_of(n, NY_scatter_elements, (ny_value *[]){x, at, with}, 3);
  if (!op) return NULL;
  op->attr[NY_AT(scatter_elements, axis)].i = axis;
  op->attr[NY_AT(scatter_elements, op)].s = ny_intern(&n->cx->names, how);
  return ny_infer(n, op);
}

ny_value *ny_arg_reduce(ny_node *n, ny_value *x, const char *how, int axis, bool last) {
  ny_op *op = ny_op_of(n, NY_argreduce, &x, 1);
  if (!op) return NULL;
  op->attr[NY_AT(argreduce, op)].s = ny_intern(&n->cx->names, how);
  op->attr[NY_AT(argreduce, axis)].i = axis;
  op->attr[NY_AT(argreduce, last)].i = last;
  return ny_infer(n, op);
}

ny_value *ny_mean(ny_node *n, ny_value *x, const int *axes, int count, bool keep) {
  ny_value *sum = ny_b_reduce(&n->b, "sum", x, axes, count, keep), *number;
  ny_dim d = 1;
  int64_t c;
  if (!sum) return NULL;
  for (int i = 0; i < count; i++) d = ny_dim_mul(n->cx, d, ny_size(x, axes[i]));
  if (ny_dim_is_const(n->cx, d, &c))
    number = ny_num(n, x, (double)c);
  else
    number = ny_cast_to(n, ny_dim_value(n, d), ny_fmt_of(x));
  return ny_ew2(n, NY_div, sum, number);
}

ny_value *ny_softmax(ny_node *n, ny_value *x, int axis) {
  ny_op *op = ny_op_of(n, NY_softmax, &x, 1);
  if (op) op->attr[NY_AT(softmax, axis)].i = axis == ny_rank(x) - 1 ? -1 : axis;
  return ny_infer(n, op);
}

ny_value *ny_log_softmax(ny_node *n, ny_value *x, int axis) {
  if (!x) return NULL;
  ny_fmt f = ny_fmt_of(x);
  x = ny_cast_to(n, x, ny_wide(f));
  ny_value *d = ny_ew2(n, NY_sub, x, ny_b_reduce(&n->b, "max", x, &axis, 1, true));
  ny_value *s = ny_b_reduce(&n->b, "sum", ny_ew1(n, NY_exp, d), &axis, 1, true);
  return ny_cast_to(n, ny_ew2(n, NY_sub, d, ny_ew1(n, NY_log, s)), f);
}

ny_value *ny_split_heads(ny_node *n, ny_value *x, int64_t heads) {
  int64_t hidden;
  if (!x) return NULL;
  if (ny_rank(x) != 3 || heads <= 0)
    return ny_refuse_value(n, NYB_E_SHAPE,
                           "a tensor of rank %d with %lld heads where [batch, time, heads * size] is needed",
                           ny_rank(x), (long long)heads);
  if (!ny_need_static(n, x, 2, "the hidden size", &hidden)) return NULL;
  if (hidden % heads)
    return ny_refuse_value(n, NYB_E_SHAPE, "a hidden size of %lld does not split into %lld heads", (long long)hidden,
                           (long long)heads);
  return ny_reshape_to(n, x, 4, (ny_dim[]){ny_size(x, 0), ny_size(x, 1), heads, hidden / heads});
}

/* ---- Loops. The types of what is stacked are not known before the body stands: ny_loop_end infers them. */
enum { MAX_RESULTS = 128 };

bool ny_loop_begin(ny_node *n, ny_dim trip, ny_value *const *init, int n_carried, int n_stacked, ny_loop *l,
                   ny_value **carried) {
  const ny_type *types[MAX_RESULTS], *i64 = ny_tensor_type(n->cx, NY_i64, 0, NULL);
  if (n_carried + n_stacked > MAX_RESULTS)
    return ny_refuse(n, NYB_E_LIMIT, "a loop of more than %d values", (int)MAX_RESULTS);
  for (int i = 0; i < n_carried + n_stacked; i++) types[i] = i < n_carried && init[i] ? init[i]->type : i64;
  l->op = ny_build(&n->b, NY_loop, init, n_carried, types, n_carried + n_stacked);
  if (!l->op) return false;
  l->op->attr[NY_AT(loop, trip)].d = trip;
  l->outer = n->b;
  n->b.block = l->op->body[0];
  n->b.before = NULL;
  l->i = ny_block_arg(n->b.g, n->b.block, i64, NULL);
  for (int i = 0; i < n_carried; i++) carried[i] = ny_block_arg(n->b.g, n->b.block, types[i], NULL);
  return true;
}

bool ny_loop_end(ny_node *n, ny_loop *l, ny_value *const *next) {
  ny_op *yield = ny_build(&n->b, NY_yield, next, l->op->n_out, NULL, 0);
  n->b = l->outer;
  return yield && !ny_infer_op(n->b.g, l->op);
}
