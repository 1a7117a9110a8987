/* Constants become bytes in the file. A plain constant is written straight from the mapped model; a const group is
   evaluated, written and freed, one at a time. A group met again (in the portable graph) is recognised by its text and
   not evaluated again. */
#include <string.h>

#include "module_build.h"

/* ---- the text of a constant */
static void put_blob(ny_text *t, const ny_blob *b) {
  if (!b) return;
  if (b->file) {
    ny_text_addf(t, "%s+%llu:%llu", b->file, (unsigned long long)b->offset, (unsigned long long)b->bytes);
    return;
  }
  ny_sha256 h;
  uint8_t digest[32];
  char hex[65];
  ny_sha256_init(&h);
  ny_sha256_add(&h, b->data, (size_t)b->bytes);
  ny_sha256_end(&h, digest);
  ny_sha256_hex(digest, hex);
  ny_text_add(t, hex);
}

static void put_attr(ny_ctx *cx, ny_text *t, ny_attr_kind kind, const ny_attr *a) {
  switch (kind) {
  case NY_I64: ny_text_addf(t, "%lld", (long long)a->i); break;
  case NY_F64: ny_text_double(t, a->f); break;
  case NY_NAME: ny_text_add(t, a->s ? a->s : ""); break;
  case NY_NAMES:
    for (uint32_t i = 0; i < a->names.n; i++) ny_text_addf(t, "%s,", a->names.v[i]);
    break;
  case NY_DIM: ny_dim_print(cx, a->d, t); break;
  case NY_DIMS:
    for (uint32_t i = 0; i < a->dims.n; i++) ny_dim_print(cx, a->dims.v[i], t), ny_text_add(t, ",");
    break;
  case NY_BLOB: put_blob(t, a->blob); break;
  }
  ny_text_add(t, " ");
}

/* Position of v's op in its block: names do not matter. */
static int position(const ny_value *v) {
  int n = 0;
  for (const ny_op *op = v->def; op && op->prev; op = op->prev) n++;
  return n;
}

static void put_op(ny_ctx *cx, ny_text *t, const ny_op *op) {
  ny_text_addf(t, "%s ", ny_kinds[op->kind].name);
  for (int i = 0; i < op->n_in; i++) ny_text_addf(t, "%%%d.%u ", position(ny_in(op, i)), ny_in(op, i)->index);
  for (int i = 0; i < ny_kinds[op->kind].n_attr; i++) put_attr(cx, t, ny_kinds[op->kind].attr[i].kind, &op->attr[i]);
  for (int i = 0; i < op->n_out; i++) ny_type_print(cx, op->out[i]->type, t);
  ny_text_add(t, "\n");
}

static void key_of(ny_ctx *cx, const ny_op *op, uint8_t digest[32]) {
  ny_text t = {0};
  if (op->kind == NY_group)
    for (const ny_op *q = op->body[0]->first; q; q = q->next) put_op(cx, &t, q);
  else
    put_op(cx, &t, op);
  ny_sha256 h;
  ny_sha256_init(&h);
  ny_sha256_add(&h, t.s, t.n);
  ny_sha256_end(&h, digest);
  ny_text_free(&t);
}

/* ---- bytes */
/* The blob of a constant, or of a group that only yields one. */
static const ny_blob *plain(const ny_op *op) {
  if (op->kind == NY_group) op = ny_in(op->body[0]->last, 0)->def;
  return op && op->kind == NY_const ? op->attr[NY_AT(const, data)].blob : NULL;
}

static nyb_status evaluate(ny_module_builder *b, ny_graph *g, ny_op *op, uint64_t bytes, ny_weight_place *out) {
  ny_arena a = {0};
  ny_tensor t;
  nyb_status s = ny_eval_op(g, op, NULL, &a, &t);
  if (s && g->cx->diag.code && b->d != &g->cx->diag) ny_fail(b->d, s, op->loc, "%s", g->cx->diag.message);
  if (!s) s = ny_module_file_weight(&b->store->file, t.data, bytes, out);
  ny_arena_free(&a);
  return s;
}

nyb_status ny_weight_store(ny_module_builder *b, ny_graph *g, ny_op *op, ny_weight_place *out) {
  const ny_type *t = op->out[0]->type;
  int64_t bytes;
  if (op->n_out != 1 || !ny_dim_is_const(g->cx, ny_type_bytes(g->cx, t), &bytes))
    return ny_fail(b->d, NYB_E_SHAPE, op->loc, "a constant must have a size that is a number");
  ny_weight_key k;
  key_of(g->cx, op, k.digest);
  for (uint32_t i = 0; i < b->store->n_keys; i++)
    if (!memcmp(b->store->key[i].digest, k.digest, 32)) return *out = b->store->key[i].at, NYB_OK;
  const ny_blob *blob = plain(op);
  if (blob && blob->bytes < (uint64_t)bytes)
    return ny_fail(b->d, NYB_E_VERIFY, op->loc, "a constant of %lld bytes has only %llu", (long long)bytes,
                   (unsigned long long)blob->bytes);
  if (blob)
    NY_TRY(ny_module_file_weight(&b->store->file, blob->data, (uint64_t)bytes, out));
  else
    NY_TRY(evaluate(b, g, op, (uint64_t)bytes, out));
  k.at = *out;
  NY_PUSH_ROOM(&b->store->a, b->store->key, b->store->n_keys, b->store->cap_keys);
  b->store->key[b->store->n_keys++] = k;
  return NYB_OK;
}

uint64_t ny_weight_offset(const ny_module_builder *b, ny_weight_place at) {
  return b->store->file.segment[at.segment == UINT32_MAX ? b->store->small : at.segment].offset + at.offset;
}
