/* NVRTC, opened where the user has it: a toolkit's or the PyPI wheel's, without either's headers. One program object a compilation, so any number of threads may
   compile. The few functions used have not changed since CUDA 11.1. */
#include "cuda_code.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <unistd.h>

typedef void *program;
static struct {
  int (*version)(int *, int *);
  int (*archs_n)(int *);
  int (*archs)(int *);
  const char *(*error)(int);
  int (*create)(program *, const char *, const char *, int, const char *const *, const char *const *);
  int (*destroy)(program *);
  int (*compile)(program, int, const char *const *);
  int (*log_size)(program, size_t *);
  int (*log)(program, char *);
  int (*ptx_size)(program, size_t *);
  int (*ptx)(program, char *);
  int (*cubin_size)(program, size_t *);
  int (*cubin)(program, char *);
} api;
static const struct {
  const char *name;
  void *at;
} symbols[] = {
    {"nvrtcVersion", &api.version},           {"nvrtcGetNumSupportedArchs", &api.archs_n}, {"nvrtcGetSupportedArchs", &api.archs},
    {"nvrtcGetErrorString", &api.error},      {"nvrtcCreateProgram", &api.create},         {"nvrtcDestroyProgram", &api.destroy},
    {"nvrtcCompileProgram", &api.compile},    {"nvrtcGetProgramLogSize", &api.log_size},   {"nvrtcGetProgramLog", &api.log},
    {"nvrtcGetPTXSize", &api.ptx_size},       {"nvrtcGetPTX", &api.ptx},                   {"nvrtcGetCUBINSize", &api.cubin_size},
    {"nvrtcGetCUBIN", &api.cubin},
};
static ny_nvrtc found;
static ny_diag failure;
static int arch[64], n_arch;
static once_flag opened = ONCE_FLAG_INIT;

/* ---- where it may be */
typedef struct hunt {
  ny_arena a;
  void *handle;
  const char *refused; /* why one that exists did not load */
} hunt;

static bool try_file(hunt *h, const char *path) {
  if (h->handle || (strchr(path, '/') && access(path, R_OK))) return h->handle != NULL;
  h->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (h->handle)
    found.path = strdup(path); /* for the life of the process */
  else if (strchr(path, '/'))
    h->refused = ny_strdup(&h->a, dlerror());
  return h->handle != NULL;
}

static bool try_folder(hunt *h, const char *folder) {
  static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
  for (size_t i = 0; i < NY_COUNT(names); i++)
    if (try_file(h, ny_strf(&h->a, "%s/%s", folder, names[i]))) return true;
  return false;
}

/* Every entry of `folder` that begins with `prefix`, highest name first; `below` is what lies in it. */
static void try_matches(hunt *h, const char *folder, const char *prefix, void (*visit)(hunt *, const char *)) {
  struct dirent **entry = NULL;
  int n = h->handle ? 0 : scandir(folder, &entry, NULL, alphasort);
  for (int i = n; i-- > 0;) {
    if (!h->handle && !strncmp(entry[i]->d_name, prefix, strlen(prefix))) visit(h, ny_strf(&h->a, "%s/%s", folder, entry[i]->d_name));
    free(entry[i]);
  }
  if (n >= 0) free(entry);
}

static void toolkit(hunt *h, const char *root) {
  if (!try_folder(h, ny_strf(&h->a, "%s/lib64", root))) try_folder(h, ny_strf(&h->a, "%s/lib", root));
}

static void wheel(hunt *h, const char *python) { /* <prefix>/lib/python3.x */
  static const char *const sub[] = {"site-packages/nvidia/cu13/lib", "site-packages/nvidia/cuda_nvrtc/lib", "dist-packages/nvidia/cu13/lib",
                                    "dist-packages/nvidia/cuda_nvrtc/lib"};
  for (size_t i = 0; i < NY_COUNT(sub); i++) try_folder(h, ny_strf(&h->a, "%s/%s", python, sub[i]));
}

static void prefix(hunt *h, const char *root) {
  if (root && *root) try_matches(h, ny_strf(&h->a, "%s/lib", root), "python3", wheel);
}

/* .venv beside the program (an installation's, a build tree's) and up to four folders above it. Not where the user stands: that would load a library of
   whatever folder. */
static void beside(hunt *h) {
  char *dir = realpath("/proc/self/exe", NULL);
  for (int up = 0; dir && up < 5; up++) {
    char *slash = strrchr(dir, '/');
    if (!slash || slash == dir) break;
    *slash = 0;
    prefix(h, ny_strf(&h->a, "%s/.venv", dir));
    prefix(h, ny_strf(&h->a, "%s/build/venv", dir));
  }
  free(dir);
}

static void look(hunt *h) {
  const char *env = getenv("NYBBLE_NVRTC"), *home = getenv("HOME"), *cuda = getenv("CUDA_HOME");
  if (env && *env) {
    try_file(h, env);
    return;
  }
  if (cuda && *cuda) toolkit(h, cuda);
  prefix(h, getenv("VIRTUAL_ENV"));
  beside(h);
  if (!h->handle) try_file(h, "libnvrtc.so.13");
  if (!h->handle) try_file(h, "libnvrtc.so.12");
  try_matches(h, "/usr/local", "cuda", toolkit);
  if (home) prefix(h, ny_strf(&h->a, "%s/.local", home));
  prefix(h, "/usr/local");
  prefix(h, "/usr");
}

/* NVRTC opens its companion by name alone, and finds it beside itself unless a sanitizer stands between them and the loader: once loaded, it is found. */
static void preload(const char *path, int major, int minor) {
  char name[4096];
  const char *slash = strrchr(path, '/');
  if (slash && snprintf(name, sizeof name, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(slash - path), path, major, minor) < (int)sizeof name)
    dlopen(name, RTLD_NOW | RTLD_LOCAL);
}

static void open_once(void) {
  hunt h = {.handle = NULL};
  look(&h);
  const char *env = getenv("NYBBLE_NVRTC");
  if (!h.handle && env && *env)
    ny_fail(&failure, NYB_E_IO, NULL, "$NYBBLE_NVRTC is %s, which does not load: %s", env, h.refused ? h.refused : "no such file");
  else if (!h.handle)
    ny_fail(&failure, NYB_E_IO, NULL,
            "NVRTC, the CUDA compiler, is not on this machine%s%s: install it with `pip install nvidia-cuda-nvrtc` (into $VIRTUAL_ENV or a .venv beside nybble), or a "
            "CUDA toolkit, or name its libnvrtc.so in $NYBBLE_NVRTC",
            h.refused ? "; one does not load: " : "", h.refused ? h.refused : "");
  for (size_t i = 0; h.handle && i < NY_COUNT(symbols); i++) {
    void *f = dlsym(h.handle, symbols[i].name);
    if (!f && !failure.code) ny_fail(&failure, NYB_E_IO, NULL, "%s has no %s: NVRTC 11.1 or later is needed", found.path, symbols[i].name);
    memcpy(symbols[i].at, &f, sizeof f);
  }
  ny_arena_free(&h.a);
  if (failure.code) return;
  api.version(&found.major, &found.minor);
  preload(found.path, found.major, found.minor);
  if (api.archs_n(&n_arch) || n_arch > (int)NY_COUNT(arch) || api.archs(arch)) n_arch = 0;
}

nyb_status ny_nvrtc_open(const ny_nvrtc **out, ny_diag *d) {
  call_once(&opened, open_once);
  if (failure.code) return ny_fail(d, failure.code, NULL, "%s", failure.message);
  *out = &found;
  return NYB_OK;
}

bool ny_nvrtc_supports(int sm) {
  for (int i = 0; i < n_arch; i++)
    if (arch[i] == sm) return true;
  return false;
}

/* ---- compilation */
static char *read_log(program p) {
  size_t n = 0;
  if (api.log_size(p, &n)) return strdup("");
  char *log = calloc(1, n + 1);
  if (log) api.log(p, log);
  return log;
}

/* The first error in the log, and the line of the source it means. */
static void explain(const char *source, const char *name, const char *log, const char *why, ny_diag *d) {
  const char *at = strstr(log, ": error:"), *begin = at;
  if (!at) at = begin = strstr(log, "error");
  while (begin && begin > log && begin[-1] != '\n') begin--;
  const char *end = begin ? strchr(begin, '\n') : NULL;
  const char *paren = begin ? strchr(begin, '(') : NULL;
  long line = paren && paren < at ? strtol(paren + 1, NULL, 10) : 0;
  const char *s = source;
  for (long i = 1; i < line && s; i++) s = strchr(s, '\n') ? strchr(s, '\n') + 1 : NULL;
  int n = s && line ? (int)strcspn(s, "\n") : 0;
  if (!begin)
    ny_fail(d, NYB_E_INTERNAL, NULL, "NVRTC refuses %s: %s. %.300s", name, why, log);
  else
    ny_fail(d, NYB_E_INTERNAL, NULL, "NVRTC refuses %s: %.*s%s%.*s", name, end ? (int)(end - begin) : 200, begin, n ? " in the line: " : "", n > 300 ? 300 : n, n ? s : "");
  if (d && !d->line) d->line = (int)line;
}

static nyb_status take(program p, int (*size)(program, size_t *), int (*get)(program, char *), char **out, size_t *bytes, ny_diag *d) {
  size_t n = 0;
  int e = size(p, &n);
  char *s = e ? NULL : calloc(1, n + 1);
  if (!e && s) e = get(p, s);
  if (e || !s) {
    free(s);
    return ny_fail(d, NYB_E_INTERNAL, NULL, "NVRTC does not give its result: %s", e ? api.error(e) : "no memory");
  }
  *out = s;
  *bytes = n;
  return NYB_OK;
}

nyb_status ny_nvrtc_compile(const char *source, const char *name, const char *target, const char *const *option, int n_option, ny_nvrtc_result *out, ny_diag *d) {
  const ny_nvrtc *n;
  *out = (ny_nvrtc_result){0};
  NY_TRY(ny_nvrtc_open(&n, d));
  const char *options[32];
  char arch_option[64];
  int count = 0;
  snprintf(arch_option, sizeof arch_option, "--gpu-architecture=%s", target);
  options[count++] = arch_option;
  for (int i = 0; i < n_option && count < (int)NY_COUNT(options); i++) options[count++] = option[i];
  char path[300]; /* of the unit in debug information: NVRTC would put the folder the user stands in before a relative one */
  snprintf(path, sizeof path, "/nybble/%s", name);
  program p = NULL;
  int e = api.create(&p, source, path, 0, NULL, NULL);
  if (e) return ny_fail(d, NYB_E_INTERNAL, NULL, "NVRTC makes no program of %s: %s", name, api.error(e));
  e = api.compile(p, count, options);
  out->log = read_log(p);
  nyb_status s = NYB_OK;
  if (e) {
    explain(source, name, out->log ? out->log : "", api.error(e), d);
    s = NYB_E_INTERNAL;
  }
  if (!s) s = take(p, api.ptx_size, api.ptx, &out->ptx, &out->ptx_bytes, d);
  if (!s && !strncmp(target, "sm_", 3)) s = take(p, api.cubin_size, api.cubin, (char **)&out->cubin, &out->cubin_bytes, d);
  if (!s && out->ptx_bytes && !out->ptx[out->ptx_bytes - 1]) out->ptx_bytes--; /* NVRTC counts the terminator */
  api.destroy(&p);
  return s;
}

void ny_nvrtc_free(ny_nvrtc_result *r) {
  free(r->ptx);
  free(r->log);
  free(r->cubin);
  *r = (ny_nvrtc_result){0};
}
