/* The device conformance test: what include/nybble/nybble.h promises, held to a device. Nothing here or in the cases
   includes another header of nybble's, so that what passes is what an embedder gets. */
#ifndef NY_CTS_H
#define NY_CTS_H
#include <nybble/nybble.h>
#include <stdbool.h>
#include <stdio.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- main.c */
typedef struct cts_case {
  const char *name;
  void (*run)(void);
} cts_case;
extern const cts_case cts_tensors[], cts_sessions[], cts_flow[], cts_resources[]; /* each ends with a name of NULL */
extern nyb_context *cts_cx;
extern const char *cts_device; /* as nyb_load_options.device */
bool cts_fail(const char *file, int line, const char *condition, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Counts a failure of the running case, from any thread; true when the condition holds. */
#define CHECK(cond, ...) ((cond) ? true : cts_fail(__FILE__, __LINE__, #cond, __VA_ARGS__))
#define MUST(cond, ...)                                                                                                \
  do {                                                                                                                 \
    if (!CHECK(cond, __VA_ARGS__)) return;                                                                             \
  } while (0)
const char *cts_why(void); /* the context's last error */
/* `got` is `want`, so is the code of the last error, and its message has the part. */
bool cts_refused(nyb_status got, nyb_status want, const char *part);
bool cts_on_cpu(void);

/* ---- values.c: tensors of any format that crosses the API, without the help of what is tested */
enum { CTS_RANK = 8, CTS_GUARD = 64 };
typedef struct cts_value {
  nyb_tensor t;
  int64_t shape[CTS_RANK];
  size_t bytes;
} cts_value;
uint64_t cts_bytes(nyb_dtype t, const int64_t *shape, int32_t ndim);
/* Data at `shift` bytes past a multiple of 64, with a guard behind it. */
void cts_value_make(cts_value *v, nyb_dtype t, int32_t ndim, const int64_t *shape, size_t shift);
void cts_value_free(cts_value *v);
bool cts_value_guarded(const cts_value *v); /* nothing was written behind it */
/* Numbers that depend on the seed only; special: NaN, infinities, zeros and denormals among them. */
void cts_value_fill(cts_value *v, uint64_t seed, bool special);
/* Formats, shapes and numbers. Says where they differ. */
bool cts_value_same(const nyb_tensor *got, const cts_value *want, bool exact, const char *what);
bool cts_known(nyb_dtype t); /* a format that crosses the API */

/* ---- models.c */
enum { CTS_DIMS = 4, CTS_VALUES = 48 };
typedef struct cts_record { /* one run: sizes, inputs, what comes out */
  nyb_dim dims[CTS_DIMS];
  char names[CTS_DIMS][8];
  size_t n_dims, n_in, n_out;
  cts_value *in, *out;
} cts_record;
typedef struct cts_model {
  char name[48];
  char *text;
  bool exact, special;
  cts_record *record;
  size_t n_records;
} cts_model;
extern cts_model *cts_models;
extern size_t cts_n_models;
extern const char *cts_modules; /* a folder of compiled modules, or NULL: models are compiled here */
void cts_models_read(void);     /* the text inside the program */
void cts_models_free(void);
cts_model *cts_model_find(const char *name);
bool cts_model_expect(cts_model *m); /* fills in what it needs of the records */
nyb_module *cts_load(const char *model);
bool cts_make(const char *folder, const char *target);
/* Why no model can be loaded, and whether that is for want of a compiler; NULL: one can. */
const char *cts_missing(bool *compiler);

/* ---- help for the cases */
nyb_session *cts_open(nyb_module *m, const nyb_dim *dims, size_t n, const nyb_session_options *more);
nyb_status cts_run(nyb_session *s, const cts_record *r, nyb_tensor *out);
bool cts_results(const cts_model *m, const cts_record *r, const nyb_tensor *out);
/* The model `bias`: y[n,6] = relu(x + b), known without an evaluator. */
typedef struct cts_bias {
  cts_value x, b, y;
  nyb_tensor in[2], out[1];
} cts_bias;
void cts_bias_make(cts_bias *v, int64_t n, size_t shift);
void cts_bias_free(cts_bias *v);
bool cts_bias_right(const cts_bias *v); /* what out[0] points to */
nyb_status cts_bias_run(nyb_session *s, cts_bias *v);

/* ---- driver.c: memory of the device, as another program of the same process would take it */
bool cts_driver_open(nyb_device_id *id); /* after a module was loaded there; false on the CPU */
void cts_driver_close(void);
void *cts_driver_alloc(size_t bytes);
void cts_driver_free(void *p);
void cts_driver_upload(void *to, const void *from, size_t bytes);
void cts_driver_download(void *to, const void *from, size_t bytes);
uint64_t cts_driver_used(void); /* bytes of device memory */
bool cts_driver_simulated(void);
uint64_t cts_driver_objects(void); /* handles alive, of a simulated device */
#endif
