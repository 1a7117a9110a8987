/* The models, and what comes out of them. Compiled here from the text inside the program, with results by nyb_evaluate;
   or from a folder that --make has filled on another machine: NAME.nyb for several devices, NAME.cts with the runs. */
#include "cts.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern const char cts_models_text[];

cts_model *cts_models;
size_t cts_n_models;
const char *cts_modules;
static char folder[64];

/* ---- the text */
static const char *line_end(const char *p) {
  const char *end = strchr(p, '\n');
  return end ? end + 1 : p + strlen(p);
}

/* `N=1 M=3 | N=2 M=4` */
static void read_sizes(cts_model *m, const char *p, const char *end) {
  m->n_records = 0;
  while (p < end) {
    m->record = realloc(m->record, (m->n_records + 1) * sizeof *m->record);
    cts_record *r = &m->record[m->n_records++];
    *r = (cts_record){0};
    long long size;
    int used;
    while (r->n_dims < CTS_DIMS && sscanf(p, " %7[A-Z]=%lld%n", r->names[r->n_dims], &size, &used) == 2) {
      r->dims[r->n_dims++].size = size;
      p += used;
    }
    const char *bar = strchr(p, '|');
    p = bar && bar < end ? bar + 1 : end;
  }
}

static void add_model(const char *p, const char *end) {
  cts_models = realloc(cts_models, (cts_n_models + 1) * sizeof *cts_models);
  cts_model *m = &cts_models[cts_n_models++];
  *m = (cts_model){.record = calloc(1, sizeof *m->record), .n_records = 1};
  sscanf(p, ";; model %47[a-z0-9_]", m->name);
  m->text = strndup(p, (size_t)(end - p));
  for (p = line_end(p); *p == ';' || *p == '\n'; p = line_end(p)) {
    m->exact |= !strncmp(p, ";; exact", 8);
    m->special |= !strncmp(p, ";; special", 10);
    if (!strncmp(p, ";; sizes", 8)) read_sizes(m, p + 8, line_end(p));
  }
}

void cts_models_read(void) {
  const char *p = strstr(cts_models_text, "\n;; model "), *next;
  for (; p; p = next) {
    next = strstr(p + 1, "\n;; model ");
    add_model(p + 1, next ? next : p + strlen(p));
  }
  for (size_t i = 0; i < cts_n_models; i++) /* the rows do not move any more */
    for (size_t k = 0; k < cts_models[i].n_records; k++)
      for (size_t d = 0; d < cts_models[i].record[k].n_dims; d++)
        cts_models[i].record[k].dims[d].name = cts_models[i].record[k].names[d];
}

static void free_values(cts_value **v, size_t n) {
  for (size_t i = 0; *v && i < n; i++) cts_value_free(&(*v)[i]);
  free(*v);
  *v = NULL;
}

void cts_models_free(void) {
  for (size_t i = 0; i < cts_n_models; i++) {
    cts_model *m = &cts_models[i];
    for (size_t k = 0; k < m->n_records; k++) {
      free_values(&m->record[k].in, m->record[k].n_in);
      free_values(&m->record[k].out, m->record[k].n_out);
    }
    free(m->record);
    free(m->text);
    char path[160];
    snprintf(path, sizeof path, "%s/%s.nyt", folder, m->name);
    if (*folder) unlink(path);
  }
  free(cts_models);
  if (*folder) rmdir(folder);
}

cts_model *cts_model_find(const char *name) {
  for (size_t i = 0; i < cts_n_models; i++)
    if (!strcmp(cts_models[i].name, name)) return &cts_models[i];
  fprintf(stderr, "there is no model %s\n", name);
  exit(2);
}

static const char *text_file(const cts_model *m) {
  static char path[160];
  if (!*folder) {
    snprintf(folder, sizeof folder, "/tmp/nybble-cts-XXXXXX");
    if (!mkdtemp(folder)) exit(2);
  }
  snprintf(path, sizeof path, "%s/%s.nyt", folder, m->name);
  FILE *f = fopen(path, "w");
  if (!f || fputs(m->text, f) < 0 || fclose(f)) exit(2);
  return path;
}

/* ---- runs and their results */
static int64_t size_of(const cts_record *r, const nyb_value_info *v, int32_t k) {
  if (v->shape[k] >= 0) return v->shape[k];
  for (size_t i = 0; i < r->n_dims; i++)
    if (!strcmp(v->symbols[k] + (*v->symbols[k] == '?'), r->names[i])) return r->dims[i].size;
  fprintf(stderr, "%s: the size %s has no value\n", v->name, v->symbols[k]);
  exit(2);
}

static void make_inputs(const cts_model *m, cts_record *r, const nyb_module_info *info) {
  r->n_in = info->n_inputs;
  r->n_out = info->n_outputs;
  r->in = calloc(r->n_in + 1, sizeof *r->in);
  r->out = calloc(r->n_out + 1, sizeof *r->out);
  for (size_t i = 0; i < r->n_in; i++) {
    const nyb_value_info *v = &info->inputs[i];
    int64_t shape[CTS_RANK];
    for (int32_t k = 0; k < v->ndim && k < CTS_RANK; k++) shape[k] = size_of(r, v, k);
    cts_value_make(&r->in[i], v->dtype, v->ndim, shape, 0);
    cts_value_fill(&r->in[i], i + 1 + 100 * (uint64_t)(r - m->record), m->special);
  }
}

static void to_tensors(const cts_record *r, nyb_tensor *in) {
  for (size_t i = 0; i < r->n_in; i++) {
    in[i] = r->in[i].t;
    in[i].shape = r->in[i].shape;
  }
}

static bool evaluate(nyb_model *g, const cts_model *m, cts_record *r) {
  nyb_tensor in[CTS_VALUES], out[CTS_VALUES] = {{0}};
  to_tensors(r, in);
  if (!CHECK(!nyb_evaluate(g, in, r->n_in, out, r->n_out), "%s: %s", m->name, cts_why())) return false;
  for (size_t i = 0; i < r->n_out; i++) {
    cts_value_make(&r->out[i], out[i].dtype, out[i].ndim, out[i].shape, 0);
    if (r->out[i].bytes) memcpy(r->out[i].t.data, out[i].data, r->out[i].bytes);
  }
  return true;
}

static bool expect_here(cts_model *m, const nyb_module_info *info) {
  nyb_model *g = NULL;
  bool good = CHECK(info->n_inputs <= CTS_VALUES && info->n_outputs <= CTS_VALUES, "more values than there is room") &&
              CHECK(!nyb_import(cts_cx, text_file(m), NULL, &g), "%s: %s", m->name, cts_why());
  for (size_t k = 0; good && k < m->n_records; k++) {
    make_inputs(m, &m->record[k], info);
    good = evaluate(g, m, &m->record[k]);
  }
  nyb_model_close(g);
  return good;
}

/* ---- results in a file: the model's text, so that runs of another text are not taken for this one's, then the tensors
 * of every run */
typedef struct row {
  nyb_dtype dtype;
  int32_t ndim;
  int64_t shape[CTS_RANK];
} row;

static bool write_values(FILE *f, const cts_value *v, size_t n) {
  bool good = true;
  for (size_t i = 0; i < n; i++) {
    row w = {v[i].t.dtype, v[i].t.ndim, {0}};
    memcpy(w.shape, v[i].shape, sizeof w.shape);
    good &= fwrite(&w, sizeof w, 1, f) == 1 && fwrite(v[i].t.data, 1, v[i].bytes, f) == v[i].bytes;
  }
  return good;
}

static bool write_records(const cts_model *m, const char *path) {
  FILE *f = fopen(path, "wb");
  if (!f) return false;
  bool good = fwrite(m->text, 1, strlen(m->text) + 1, f) == strlen(m->text) + 1;
  for (size_t k = 0; good && k < m->n_records; k++) {
    const cts_record *r = &m->record[k];
    const uint64_t n[2] = {r->n_in, r->n_out};
    good = fwrite(n, sizeof n, 1, f) == 1 && write_values(f, r->in, r->n_in) && write_values(f, r->out, r->n_out);
  }
  return !fclose(f) && good;
}

static bool read_values(FILE *f, cts_value **v, size_t n) {
  *v = calloc(n + 1, sizeof **v);
  for (size_t i = 0; i < n; i++) {
    row w;
    if (fread(&w, sizeof w, 1, f) != 1 || w.ndim < 0 || w.ndim > CTS_RANK) return false;
    cts_value_make(&(*v)[i], w.dtype, w.ndim, w.shape, 0);
    if (fread((*v)[i].t.data, 1, (*v)[i].bytes, f) != (*v)[i].bytes) return false;
  }
  return true;
}

static bool read_records(cts_model *m, FILE *f) {
  size_t length = strlen(m->text) + 1;
  char *text = malloc(length);
  bool good = fread(text, 1, length, f) == length && !memcmp(text, m->text, length);
  free(text);
  for (size_t k = 0; good && k < m->n_records; k++) {
    cts_record *r = &m->record[k];
    uint64_t n[2];
    good = fread(n, sizeof n, 1, f) == 1 && n[0] <= CTS_VALUES && n[1] <= CTS_VALUES;
    if (!good) break;
    r->n_in = n[0], r->n_out = n[1];
    good = read_values(f, &r->in, r->n_in) && read_values(f, &r->out, r->n_out);
  }
  return good;
}

bool cts_model_expect(cts_model *m) {
  if (m->record->out) return true;
  char path[512];
  nyb_module_info info = {.size = sizeof info};
  if (cts_modules) {
    snprintf(path, sizeof path, "%s/%s.cts", cts_modules, m->name);
    FILE *f = fopen(path, "rb");
    bool good = f && read_records(m, f);
    if (f) fclose(f);
    return CHECK(good, "%s is not the results of this program's model: make the folder again", path);
  }
  nyb_module *module = cts_load(m->name);
  bool good = module && !nyb_module_describe(module, &info) && expect_here(m, &info);
  nyb_module_close(module);
  return good;
}

/* ---- modules */
static nyb_status load(const cts_model *m, nyb_module **out) {
  nyb_load_options o = {.size = sizeof o, .trust = 1, .device = cts_device};
  nyb_compile_options c = {.size = sizeof c, .device = cts_device};
  char path[512];
  *out = NULL;
  if (!cts_modules) return nyb_open_model(cts_cx, text_file(m), NULL, &c, out);
  snprintf(path, sizeof path, "%s/%s.nyb", cts_modules, m->name);
  return nyb_load(cts_cx, path, &o, out);
}

nyb_module *cts_load(const char *model) {
  nyb_module *m;
  CHECK(!load(cts_model_find(model), &m), "%s: %s", model, cts_why());
  return m;
}

const char *cts_missing(bool *compiler) {
  static char why[1200];
  nyb_module *m;
  nyb_status s = load(cts_model_find("bias"), &m);
  snprintf(why, sizeof why, "%s", s ? cts_why() : "");
  nyb_module_close(m);
  *compiler = s == NYB_E_IO && !cts_modules;
  return s ? why : NULL;
}

bool cts_make(const char *to, const char *target) {
  bool good = true;
  char path[512];
  mkdir(to, 0755);
  for (size_t i = 0; i < cts_n_models; i++) {
    cts_model *m = &cts_models[i];
    nyb_model *g = NULL;
    nyb_compile_options o = {.size = sizeof o, .target = target};
    nyb_load_options where = {.size = sizeof where, .trust = 1, .device = cts_device};
    nyb_module *module = NULL;
    nyb_module_info info = {.size = sizeof info};
    snprintf(path, sizeof path, "%s/%s.nyb", to, m->name);
    good &= CHECK(!nyb_import(cts_cx, text_file(m), NULL, &g) && !nyb_compile(g, &o, path) &&
                      !nyb_load(cts_cx, path, &where, &module) && !nyb_module_describe(module, &info),
                  "%s: %s", m->name, cts_why());
    nyb_model_close(g);
    snprintf(path, sizeof path, "%s/%s.cts", to, m->name);
    good &= module && expect_here(m, &info) && CHECK(write_records(m, path), "%s cannot be written", path);
    nyb_module_close(module);
  }
  return good;
}
