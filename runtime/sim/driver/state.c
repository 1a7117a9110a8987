/* The lock, the table of live handles, options and what is told to tests and tools. */
#include "driver.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

drv_options drv_opt = {.sim = {.checks = NY_SIM_ALL}, .protect = true};
nyb_cudasim_totals drv_total;
bool drv_started;
static pthread_mutex_t lock;
static pthread_once_t lock_once = PTHREAD_ONCE_INIT;
static _Thread_local ny_cu_context current;

/* A kernel's printf or a host function may call the driver again. */
static void make_lock(void) {
  pthread_mutexattr_t a;
  pthread_mutexattr_init(&a);
  pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&lock, &a);
  pthread_mutexattr_destroy(&a);
}
void drv_lock(void) {
  pthread_once(&lock_once, make_lock);
  pthread_mutex_lock(&lock);
}
void drv_unlock(int *unused) {
  (void)unused;
  pthread_mutex_unlock(&lock);
}

/* A context that is gone is nobody's. */
ny_cu_context *drv_current(void) {
  if (current && !drv_is(current, DRV_CONTEXT)) current = NULL;
  return &current;
}

void *drv_need(void *p) {
  if (p) return p;
  fputs("libnyb_cudasim: out of memory\n", stderr);
  abort();
}

/* ---- handles: open addressing, by address */
static void **slot;
static size_t n_slots, n_live;

static size_t place(const void *p) {
  size_t i = ((uintptr_t)p >> 4) * (size_t)0x9E3779B97F4A7C15u >> 20 & (n_slots - 1);
  while (slot[i] && slot[i] != p) i = (i + 1) & (n_slots - 1);
  return i;
}

static void grow(void) {
  void **old = slot;
  size_t n = n_slots;
  n_slots = n ? 2 * n : 256;
  slot = drv_need(calloc(n_slots, sizeof *slot));
  for (size_t i = 0; i < n; i++)
    if (old[i]) slot[place(old[i])] = old[i];
  free(old);
}

void drv_object_adopt(void *p) {
  if (2 * (n_live + 1) > n_slots) grow();
  slot[place(p)] = p;
  n_live++;
}

/* Those behind it move up, so that no search ends too early. */
void drv_object_forget(void *p) {
  size_t i = place(p);
  if (!slot[i]) return;
  slot[i] = NULL;
  n_live--;
  for (size_t k = (i + 1) & (n_slots - 1); slot[k]; k = (k + 1) & (n_slots - 1)) {
    void *q = slot[k];
    slot[k] = NULL;
    slot[place(q)] = q;
  }
}

void *drv_object_new(size_t bytes, drv_kind kind, ny_cu_context cx) {
  drv_object *o = drv_need(calloc(1, bytes));
  *o = (drv_object){kind, cx};
  drv_object_adopt(o);
  drv_total.objects++;
  return o;
}

void drv_object_free(void *p) {
  drv_object_forget(p);
  drv_total.objects--;
  free(p);
}

bool drv_is(const void *p, drv_kind kind) {
  if (!p || !n_slots) return false;
  void *q = slot[place(p)];
  return q && ((drv_object *)q)->kind == kind;
}

void *drv_object_of(ny_cu_context cx, drv_kind kind) {
  for (size_t i = 0; i < n_slots; i++) {
    drv_object *o = slot[i];
    if (o && o->context == cx && o->kind == kind) return o;
  }
  return NULL;
}

/* ---- options */
static bool set_order(const char *v) {
  drv_opt.sim.seed = 0;
  if (!strcmp(v, "forward")) return drv_opt.sim.order = NY_SIM_FORWARD, true;
  if (!strcmp(v, "reverse")) return drv_opt.sim.order = NY_SIM_REVERSE, true;
  if (strncmp(v, "random", 6) || (v[6] && v[6] != ':')) return false;
  drv_opt.sim.order = NY_SIM_RANDOM;
  drv_opt.sim.seed = v[6] ? strtoull(v + 7, NULL, 10) : 1;
  return true;
}

static bool set_checks(const char *v) {
  static const struct {
    const char *name;
    uint32_t bits;
  } row[] = {{"all", NY_SIM_ALL},           {"none", 0},
             {"races", NY_SIM_RACES},       {"uninit", NY_SIM_UNINIT},
             {"cross", NY_SIM_CROSS_BLOCK}, {"memory", NY_SIM_COUNT_MEMORY}};
  uint32_t bits = 0;
  while (*v) {
    size_t n = strcspn(v, ","), i = 0;
    while (i < NY_COUNT(row) && (strncmp(row[i].name, v, n) || row[i].name[n])) i++;
    if (i == NY_COUNT(row)) return false;
    bits |= row[i].bits;
    v += n + (v[n] == ',');
  }
  drv_opt.sim.checks = bits;
  return true;
}

/* One of two words: true is the first. */
static bool set_bool(const char *v, const char *yes, const char *no, bool *out) {
  if (strcmp(v, yes) && strcmp(v, no)) return false;
  *out = !strcmp(v, yes);
  return true;
}

static bool set(const char *name, const char *v) {
  if (!strcmp(name, "order")) return set_order(v);
  if (!strcmp(name, "checks")) return set_checks(v);
  if (!strcmp(name, "copies")) return set_bool(v, "late", "early", &drv_opt.sim.late_copies);
  if (!strcmp(name, "queue")) return set_bool(v, "late", "now", &drv_opt.late);
  if (!strcmp(name, "protect")) return set_bool(v, "on", "off", &drv_opt.protect);
  if (!strcmp(name, "report")) return set_bool(v, "off", "on", &drv_opt.quiet);
  return false;
}

int nyb_cudasim_set(const char *name, const char *value) {
  DRV_HOLD;
  if (!name || !value) return -1;
  if (!strcmp(name, "queue")) drv_flush();
  if (!strcmp(name, "protect")) drv_memory_open();
  return set(name, value) ? 0 : -1;
}

static void from_environment(void) {
  static const char *const name[][2] = {{"NYB_CUDASIM_ORDER", "order"},     {"NYB_CUDASIM_CHECKS", "checks"},
                                        {"NYB_CUDASIM_COPIES", "copies"},   {"NYB_CUDASIM_QUEUE", "queue"},
                                        {"NYB_CUDASIM_PROTECT", "protect"}, {"NYB_CUDASIM_REPORT", "report"}};
  for (size_t i = 0; i < NY_COUNT(name); i++) {
    const char *v = getenv(name[i][0]);
    if (v && *v && !set(name[i][1], v)) fprintf(stderr, "libnyb_cudasim: %s=%s is not understood\n", name[i][0], v);
  }
}

ny_cu_result cuInit(unsigned flags) {
  DRV_HOLD;
  if (flags) return DRV_INVALID_VALUE;
  if (!drv_started) from_environment();
  drv_started = true;
  return DRV_SUCCESS;
}

void nyb_cudasim_count(nyb_cudasim_totals *out) {
  DRV_HOLD;
  *out = drv_total;
}

/* ---- errors */
static const struct {
  int number;
  const char *name, *text;
} errors[] = {
#define CU_ERROR(name, number, text) {number, number ? "CUDA_ERROR_" #name : "CUDA_SUCCESS", text},
#include "errors.def"
#undef CU_ERROR
};

static int find_error(ny_cu_result status) {
  for (int i = 0; i < (int)NY_COUNT(errors); i++)
    if (errors[i].number == status) return i;
  return -1;
}

ny_cu_result cuGetErrorString(ny_cu_result status, const char **text) {
  int i = find_error(status);
  if (!text) return DRV_INVALID_VALUE;
  *text = i < 0 ? NULL : errors[i].text;
  return i < 0 ? DRV_INVALID_VALUE : DRV_SUCCESS;
}

ny_cu_result cuGetErrorName(ny_cu_result status, const char **text) {
  int i = find_error(status);
  if (!text) return DRV_INVALID_VALUE;
  *text = i < 0 ? NULL : errors[i].name;
  return i < 0 ? DRV_INVALID_VALUE : DRV_SUCCESS;
}

/* ---- functions by name */
static const struct {
  const char *name;
  void (*p)(void);
} functions[] = {
#define CU(name, symbol, parameters) {#symbol, (void (*)(void))symbol},
#include "cuda_syms.def"
#include "driver_syms.def"
#undef CU
};

/* As the driver does, a name stands for its newest version. */
ny_cu_result cuGetProcAddress_v2(const char *symbol, void **out, int version, uint64_t flags, int *status) {
  (void)version;
  (void)flags;
  if (!symbol || !out) return DRV_INVALID_VALUE;
  size_t n = strlen(symbol);
  int best = -1;
  *out = NULL;
  for (size_t i = 0; i < NY_COUNT(functions); i++) {
    const char *rest = strncmp(functions[i].name, symbol, n) ? NULL : functions[i].name + n;
    if (!rest || (*rest && (strncmp(rest, "_v", 2) || rest[3]))) continue;
    if (best >= 0 && strlen(functions[i].name) < strlen(functions[best].name)) continue;
    best = (int)i;
  }
  if (status) *status = best < 0; /* CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND */
  if (best < 0) return DRV_NOT_FOUND;
  memcpy(out, &functions[best].p, sizeof *out);
  return DRV_SUCCESS;
}

ny_cu_result cuProfilerStart(void) { return DRV_SUCCESS; }
ny_cu_result cuProfilerStop(void) { return DRV_SUCCESS; }
