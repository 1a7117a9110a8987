/* A graph's inputs and outputs in the shape the runtime describes those of a module, so that both can be fed by the
 * same code. */
#include "cli.h"

#include "model.h"
#include "module.h"

static nyb_value_info value_info(ny_unit *u, ny_name name, const ny_type *t) {
  int64_t *shape = NY_NEW_ARRAY(&u->arena, int64_t, t->rank + 1);
  const char **symbols = NY_NEW_ARRAY(&u->arena, const char *, t->rank + 1);
  for (int i = 0; i < t->rank; i++) {
    if (ny_dim_is_const(u->cx, t->dim[i], &shape[i])) continue;
    shape[i] = -1;
    ny_text text = {0};
    ny_dim_print(u->cx, t->dim[i], &text);
    symbols[i] = ny_strdup(&u->arena, text.s + (ny_dim_get(u->cx, t->dim[i])->kind == NY_DIM_SYM && text.s[0] == '?'));
    ny_text_free(&text);
  }
  return (nyb_value_info){name ? name : "", ny_module_dtype((ny_fmt)t->fmt), t->rank, shape, symbols};
}

void cli_signature(nyb_model *model, nyb_module_info *out) {
  ny_unit *u = model->unit;
  const ny_block *b = &u->first->body;
  const ny_op *ret = b->last;
  nyb_value_info *in = NY_NEW_ARRAY(&u->arena, nyb_value_info, b->n_arg + 1),
                 *res = NY_NEW_ARRAY(&u->arena, nyb_value_info, ret->n_in + 1);
  for (uint32_t i = 0; i < b->n_arg; i++) in[i] = value_info(u, b->arg[i]->name, b->arg[i]->type);
  const ny_attr *names = ny_attr_at(ret, NY_AT(ret, names));
  for (uint32_t i = 0; i < ret->n_in; i++)
    res[i] = value_info(u, i < names->names.n ? names->names.v[i] : ny_in(ret, (int)i)->name, ny_in(ret, (int)i)->type);
  *out = (nyb_module_info){.size = sizeof *out,
                           .name = u->first->name,
                           .n_inputs = b->n_arg,
                           .n_outputs = ret->n_in,
                           .inputs = in,
                           .outputs = res};
}
