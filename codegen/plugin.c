/* Opens the LLVM back end on the first compilation: $NYBBLE_PLUGIN_DIR, else the folder of the library or program this code is in, else where the
   loader looks. */
#include "codegen.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PLUGIN "libnybble_llvm.so"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const ny_codegen *codegen;
static ny_diag why;

static void *open_in(const char *dir, size_t n) {
  char path[4096];
  if (snprintf(path, sizeof path, "%.*s/" PLUGIN, (int)n, dir) >= (int)sizeof path) return NULL;
  return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void *open_plugin(void) {
  const char *dir = getenv("NYBBLE_PLUGIN_DIR");
  if (dir && *dir) return open_in(dir, strlen(dir));
  Dl_info here;
  const char *slash = dladdr((void *)(uintptr_t)open_plugin, &here) && here.dli_fname ? strrchr(here.dli_fname, '/') : NULL;
  void *h = slash ? open_in(here.dli_fname, (size_t)(slash - here.dli_fname)) : NULL;
  return h ? h : dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
}

static void open_once(void) {
  void *h = open_plugin();
  if (!h) {
    ny_fail(&why, NYB_E_DEVICE, NULL, "the code generator cannot be opened (%s); set NYBBLE_PLUGIN_DIR to the folder of " PLUGIN, dlerror());
    return;
  }
  const ny_codegen *(*get)(void);
  *(void **)&get = dlsym(h, "nyb_codegen_plugin");
  const ny_codegen *cg = get ? get() : NULL;
  if (!cg || cg->abi != NY_CODEGEN_ABI) ny_fail(&why, NYB_E_DEVICE, NULL, PLUGIN " is of another version of nybble");
  else codegen = cg;
}

nyb_status ny_codegen_open(const ny_codegen **out, ny_diag *d) {
  pthread_once(&once, open_once);
  if (!codegen) return ny_fail(d, why.code, NULL, "%s", why.message);
  *out = codegen;
  return NYB_OK;
}

void ny_image_free(ny_image *im) {
  free(im->data);
  free(im->entry);
  free(im->scratch);
  *im = (ny_image){0};
}
