/* Calibration data. An archive has an array for every input of the model: of the input's rank, and it is one sample, or
   of one rank more, and its first dimension counts samples. A folder has archives, or, for a model of one input,
   arrays. */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static nyb_tensor *room_for(cli_samples *s) {
  if (s->n == s->cap) {
    size_t cap = s->cap ? s->cap * 2 : 64;
    s->in = ny_grow(&s->a, s->in, s->cap * s->n_in * sizeof *s->in, cap * s->n_in * sizeof *s->in);
    s->cap = cap;
  }
  return s->in + s->n++ * s->n_in;
}

static nyb_status check(const char *path, const nyb_value_info *v, const nyb_tensor *t, int lead, ny_diag *d) {
  if (memcmp(&t->dtype, &v->dtype, sizeof t->dtype))
    return ny_fail(d, NYB_E_TYPE, NULL, "%s: input %s is of type %s, the array of %s", path, v->name,
                   ny_fmts[ny_module_format(v->dtype)].name, ny_fmts[ny_module_format(t->dtype)].name);
  for (int i = 0; i < v->ndim; i++)
    if (v->shape[i] >= 0 && v->shape[i] != t->shape[lead + i])
      return ny_fail(d, NYB_E_SHAPE, NULL, "%s: dimension %d of input %s is %lld, that of the array %lld", path, i,
                     v->name, (long long)v->shape[i], (long long)t->shape[lead + i]);
  return NYB_OK;
}

/* For each input its array in z, and how many samples they hold. */
static nyb_status match(const char *path, const cli_npz *z, const nyb_module_info *info, const cli_array **of,
                        int *lead, int64_t *count, ny_diag *d) {
  for (size_t i = 0; i < info->n_inputs; i++) {
    const nyb_value_info *v = &info->inputs[i];
    size_t k = 0;
    while (k < z->n && strcmp(z->name[k], v->name) && !(info->n_inputs == 1 && z->n == 1)) k++;
    if (k == z->n) return ny_fail(d, NYB_E_ARGUMENT, NULL, "%s: it has no array %s", path, v->name);
    of[i] = &z->array[k];
    int more = of[i]->t.ndim - v->ndim;
    if (more < 0 || more > 1)
      return ny_fail(d, NYB_E_SHAPE, NULL, "%s: the array for input %s has %d dimensions, %d or %d are expected", path,
                     v->name, of[i]->t.ndim, v->ndim, v->ndim + 1);
    int64_t n = more ? of[i]->shape[0] : 1;
    if (i && (more != *lead || n != *count))
      return ny_fail(d, NYB_E_SHAPE, NULL, "%s: arrays of %lld and %lld samples", path, (long long)*count,
                     (long long)n);
    *lead = more, *count = n;
    nyb_tensor t = of[i]->t;
    t.shape = (int64_t *)(uintptr_t)of[i]->shape;
    NY_TRY(check(path, v, &t, more, d));
  }
  return NYB_OK;
}

static nyb_status take(const char *path, const cli_npz *z, const nyb_module_info *info, cli_samples *s, ny_diag *d) {
  const cli_array **of = NY_NEW_ARRAY(&s->a, const cli_array *, info->n_inputs + 1);
  int lead = 0;
  int64_t count = 0;
  NY_TRY(match(path, z, info, of, &lead, &count, d));
  for (int64_t k = 0; k < count; k++) {
    nyb_tensor *in = room_for(s);
    for (size_t i = 0; i < info->n_inputs; i++) {
      in[i] = of[i]->t;
      in[i].shape = (int64_t *)(uintptr_t)of[i]->shape + lead;
      in[i].ndim -= lead;
      uint64_t bytes = cli_tensor_bytes(&in[i]);
      if (in[i].dtype.bits < 8 && count > 1)
        return ny_fail(d, NYB_E_UNSUPPORTED, NULL, "%s: samples of packed elements: one file each, please", path);
      in[i].data = (char *)in[i].data + (uint64_t)k * bytes;
    }
  }
  return NYB_OK;
}

static nyb_status read_file(const char *path, const nyb_module_info *info, cli_samples *s, ny_diag *d) {
  NY_PUSH_ROOM(&s->a, s->file, s->n_file, s->cap_file);
  cli_npz *z = &s->file[s->n_file];
  if (ny_ends_with(path, ".npy")) {
    z->array = calloc(1, sizeof *z->array), z->name = calloc(1, sizeof *z->name);
    if (!z->array || !z->name) return ny_fail(d, NYB_E_NOMEM, NULL, "out of memory");
    s->n_file++, z->n = 1;
    NY_TRY(cli_npy_read(path, NY_none, z->array, d));
  } else {
    NY_TRY(cli_npz_read(path, z, d));
    s->n_file++;
  }
  return take(path, z, info, s, d);
}

static int is_data(const struct dirent *e) {
  return ny_ends_with(e->d_name, ".npz") || ny_ends_with(e->d_name, ".npy");
}

static nyb_status read_folder(const char *path, const nyb_module_info *info, cli_samples *s, ny_diag *d) {
  struct dirent **e;
  int n = scandir(path, &e, is_data, alphasort);
  nyb_status st = n < 0 ? ny_fail(d, NYB_E_IO, NULL, "%s: %s", path, strerror(errno)) : NYB_OK;
  for (int i = 0; i < n; i++) {
    if (!st) st = read_file(ny_strf(&s->a, "%s/%s", path, e[i]->d_name), info, s, d);
    free(e[i]);
  }
  if (n >= 0) free(e);
  return st;
}

nyb_status cli_samples_read(const char *path, const nyb_module_info *info, cli_samples *out, ny_diag *d) {
  struct stat st;
  *out = (cli_samples){.n_in = info->n_inputs};
  if (stat(path, &st)) return ny_fail(d, NYB_E_IO, NULL, "%s: %s", path, strerror(errno));
  NY_TRY(S_ISDIR(st.st_mode) ? read_folder(path, info, out, d) : read_file(path, info, out, d));
  return out->n ? NYB_OK : ny_fail(d, NYB_E_ARGUMENT, NULL, "%s: no samples", path);
}

void cli_samples_free(cli_samples *s) {
  for (size_t i = 0; i < s->n_file; i++) cli_npz_free(&s->file[i]);
  ny_arena_free(&s->a);
}
