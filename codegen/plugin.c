/* Opens the LLVM plug-in: beside the library or program this code is in, or where $NYBBLE_PLUGIN_DIR says. Once opened
 * it stays. */
#include "codegen.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

static const ny_codegen *plugin;
static ny_diag failure;
static once_flag opened = ONCE_FLAG_INIT;

#define FILE_NAME "libnybble_llvm.so"

/* The folder of the object file that holds this function. */
static char *own_folder(ny_arena *a) {
  Dl_info info;
  if (!dladdr((const void *)(uintptr_t)&plugin, &info) || !info.dli_fname) return NULL;
  char *real = realpath(info.dli_fname, NULL), *slash = real ? strrchr(real, '/') : NULL;
  char *folder = slash ? ny_strndup(a, real, (size_t)(slash - real)) : NULL;
  free(real);
  return folder;
}

static void *try_open(ny_arena *a, const char *folder, const char *below) {
  if (!folder || !*folder) return NULL;
  void *h = dlopen(ny_strf(a, "%s/%s" FILE_NAME, folder, below), RTLD_NOW | RTLD_LOCAL);
  const char *why = h ? NULL : dlerror();
  if (!h && !failure.code && why && !strstr(why, "No such file"))
    ny_fail(&failure, NYB_E_IO, NULL, "the LLVM back end does not load: %s", why);
  return h;
}

static void open_plugin(void) {
  ny_arena a = {0};
  const char *env = getenv("NYBBLE_PLUGIN_DIR"), *own = own_folder(&a);
  void *h = try_open(&a, env, "");
  if (!h) h = try_open(&a, own, "");
  if (!h) h = try_open(&a, own, "../"); /* a test program in its folder of the build tree */
  if (!h) h = try_open(&a, own, "../lib/");
  const ny_codegen *(*get)(void) = NULL;
  if (h) *(void **)&get = dlsym(h, "nyb_codegen_plugin");
  const ny_codegen *found = get ? get() : NULL;
  if (found && found->abi == NY_CODEGEN_ABI)
    plugin = found, ny_diag_clear(&failure);
  else if (h)
    ny_fail(&failure, NYB_E_IO, NULL, FILE_NAME " is of another version");
  else
    ny_fail(&failure, NYB_E_IO, NULL,
            FILE_NAME " is neither beside this program nor in $NYBBLE_PLUGIN_DIR; without it nothing can be compiled");
  ny_arena_free(&a);
}

nyb_status ny_codegen_open(const ny_codegen **out, ny_diag *d) {
  call_once(&opened, open_plugin);
  if (!plugin) return ny_fail(d, failure.code, NULL, "%s", failure.message);
  *out = plugin;
  return NYB_OK;
}

void ny_image_free(ny_image *im) {
  free(im->data);
  free(im->entry);
  free(im->scratch);
  *im = (ny_image){0};
}
