/* Compile at load. A module is cached under a digest of everything it depends on: the bytes of the model and of its
   external data, the options, the target, the build of nybble, and NVRTC's version where it compiled. Reading gigabytes
   to compute that digest would cost more than the load, so an index remembers it by the files' path, size, inode and
   change time; a file that changed misses the index and is read again. A cache that cannot be written to is no reason
   to fail: what was to go there goes to a temporary file.

   <cache>/index/<digest of path and options>   dependencies and the module's digest
   <cache>/modules/<digest>.nyb */
#include "cuda_code.h"
#include "device.h"
#include "model.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct entry { /* of one nyb_open_model */
  nyb_context *cx;
  ny_arena a;
  const char *path, *dir, *options, *index;
  const nyb_import_options *import;
  const nyb_compile_options *compile; /* never NULL */
  const char *device_name;            /* NULL: this CPU */
  ny_device *device;                  /* open while the module is made, so that it need not be opened twice */
  ny_target target;                   /* of the device */
} entry;

static void digest_text(const char *s, char hex[65]) {
  ny_sha256 h;
  uint8_t d[32];
  ny_sha256_init(&h);
  ny_sha256_add(&h, s, strlen(s));
  ny_sha256_end(&h, d);
  ny_sha256_hex(d, hex);
}

/* Which build made it: a rebuilt library must not meet its predecessor's modules. */
static const char *build_id(ny_arena *a) {
  Dl_info info;
  struct stat st;
  if (!dladdr((void *)(uintptr_t)build_id, &info) || !info.dli_fname || stat(info.dli_fname, &st)) return NYB_VERSION;
  return ny_strf(a, "%s %lld %lld.%09ld", NYB_VERSION, (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                 st.st_mtim.tv_nsec);
}

/* This machine's processor, from the kernel: asking LLVM would load it, and a cached start must not. */
static void describe_host(ny_text *t) {
  char *line = NULL;
  size_t cap = 0;
  FILE *f = fopen("/proc/cpuinfo", "r");
  while (f && getline(&line, &cap, f) > 0 && line[0] != '\n') /* up to the end of the first processor */
    if (!strncmp(line, "model name", 10) || !strncmp(line, "flags", 5) || !strncmp(line, "Features", 8) ||
        !strncmp(line, "CPU ", 4))
      ny_text_add(t, line);
  free(line);
  if (f) fclose(f);
}

/* ---- devices */
static nyb_status open_device(entry *e) {
  if (!e->device_name) return NYB_OK;
  const ny_target *asked = NULL;
  ny_diag *d = &e->cx->diag;
  NY_TRY(ny_device_open(e->device_name, &e->device, d));
  if (e->compile->target) NY_TRY(ny_target_find(e->compile->target, &asked, d));
  return ny_target_of_device(e->device, asked, &e->a, &e->target, d);
}

static const ny_target *only_target(const entry *e) { return e->device ? &e->target : NULL; }

static nyb_status load(const entry *e, const char *path, bool trust, nyb_module **out) {
  nyb_load_options o = {.size = sizeof o, .trust = trust, .device = e->device_name};
  return nyb_load(e->cx, path, &o, out);
}

static void describe_options(entry *e) {
  const nyb_compile_options *c = e->compile;
  const char *target = e->device ? e->target.cpu : c->target ? c->target : "host";
  ny_text t = {0};
  ny_text_addf(&t, "%s\n%s O%d %s only=%s off=%s\n", build_id(&e->a), target, c->optimize,
               c->precision ? c->precision : "", c->only ? c->only : "", c->off ? c->off : "");
  if (strstr(target, "host")) describe_host(&t);
  for (size_t i = 0; e->import && i < e->import->n_dims; i++)
    ny_text_addf(&t, "%s=%lld\n", e->import->dims[i].name, (long long)e->import->dims[i].size);
  e->options = ny_strdup(&e->a, t.s);
  ny_text_free(&t);
}

static const char *module_path(entry *e, const char *hex) { return ny_strf(&e->a, "%s/modules/%s.nyb", e->dir, hex); }

static const char *stamp(entry *e, const char *path) {
  struct stat st;
  if (stat(path, &st)) return NULL;
  return ny_strf(&e->a, "%lld %lld %lld.%09ld", (long long)st.st_size, (long long)st.st_ino,
                 (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

/* The module an index entry names, when every file it depends on is as it was. Lines: "<stamp>\t<path>", then
 * "module\t<hex>". */
static const char *look_up(entry *e) {
  char *text, *line, *save = NULL;
  size_t n;
  ny_diag quiet = {0};
  if (ny_file_read(&e->a, e->index, 1 << 20, &text, &n, &quiet)) return NULL;
  for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    char *tab = strchr(line, '\t');
    if (!tab) return NULL;
    *tab++ = 0;
    if (!strcmp(line, "module"))
      return strlen(tab) == 64 && strspn(tab, "0123456789abcdef") == 64 ? module_path(e, tab) : NULL;
    const char *now = stamp(e, tab);
    bool optional = *line == '?'; /* a compiler that is gone takes nothing with it */
    if (now ? strcmp(now, line + optional) != 0 : !optional) return NULL;
  }
  return NULL;
}

static nyb_status add_file(entry *e, ny_sha256 *h, const char *path, const void *data, uint64_t bytes, ny_text *index) {
  char *full = realpath(path, NULL); /* the next start may stand elsewhere */
  const char *s = full && !strchr(full, '\n') ? stamp(e, full) : NULL;
  ny_sha256_add(h, &bytes, sizeof bytes);
  ny_sha256_add(h, data, bytes);
  if (s) ny_text_addf(index, "%s\t%s\n", s, full);
  free(full);
  return s ? NYB_OK : NYB_E_IO; /* not indexable */
}

static void add_compiler(entry *e, ny_sha256 *h, ny_text *index) {
  const ny_nvrtc *n;
  ny_diag quiet = {0};
  if (!e->device || ny_nvrtc_open(&n, &quiet)) return;
  ny_sha256_add(h, &n->major, sizeof n->major);
  ny_sha256_add(h, &n->minor, sizeof n->minor);
  const char *s = *n->path == '/' && !strchr(n->path, '\n') ? stamp(e, n->path) : NULL;
  if (s) ny_text_addf(index, "?%s\t%s\n", s, n->path);
}

static const char *mapped_path(entry *e, const ny_unit *u, uint32_t i) {
  const char *name = u->map_names[i];
  return u->folder && *name != '/' ? ny_strf(&e->a, "%s/%s", u->folder, name) : name;
}

static nyb_status content_key(entry *e, const ny_unit *u, char hex[65], ny_text *index) {
  ny_sha256 h;
  uint8_t d[32];
  bool main_file = false;
  ny_sha256_init(&h);
  ny_sha256_add(&h, e->options, strlen(e->options));
  for (uint32_t i = 0; i < u->n_maps; i++) {
    const char *path = mapped_path(e, u, i);
    main_file |= !strcmp(path, e->path);
    NY_TRY(add_file(e, &h, path, u->maps[i].data, u->maps[i].bytes, index));
  }
  if (!main_file) { /* text without blobs is not mapped by its unit */
    ny_map m;
    ny_diag quiet = {0};
    NY_TRY(ny_map_open(e->path, &m, &quiet));
    nyb_status s = add_file(e, &h, e->path, m.data, m.bytes, index);
    ny_map_close(&m);
    NY_TRY(s);
  }
  add_compiler(e, &h, index);
  ny_sha256_end(&h, d);
  ny_sha256_hex(d, hex);
  ny_text_addf(index, "module\t%s\n", hex);
  return NYB_OK;
}

/* The index is a convenience: failing to write it costs the next start some time and is no error. */
static void write_index(entry *e, const char *text) {
  ny_new_file nf;
  ny_diag quiet = {0};
  if (ny_file_begin(e->index, &nf, &quiet)) return;
  fputs(text, nf.f);
  ny_file_commit(&nf, &quiet);
}

/* No cache folder: the module lives in a temporary file that is unlinked once mapped. */
static nyb_status without_cache(entry *e, nyb_model *m, nyb_module **out) {
  const char *dir = getenv("TMPDIR");
  char *path = ny_strf(&e->a, "%s/nybble-XXXXXX", dir && *dir ? dir : "/tmp");
  int fd = mkstemp(path);
  if (fd < 0) return ny_fail(&e->cx->diag, NYB_E_IO, NULL, "%s: cannot create it: %s", path, strerror(errno));
  close(fd);
  nyb_status s = ny_model_compile(m, e->compile, only_target(e), path);
  if (!s) s = load(e, path, true, out);
  unlink(path);
  return s;
}

static nyb_status into_cache(entry *e, nyb_model *m, const char *path, nyb_module **out) {
  nyb_status s = ny_model_compile(m, e->compile, only_target(e), path);
  if (!s) {
    ny_model_vouch(e->cx, path);
    return load(e, path, true, out);
  }
  if (s != NYB_E_IO) return s;
  ny_context_warn(e->cx, "the compiled model is not kept: %s", e->cx->diag.message);
  return without_cache(e, m, out);
}

static nyb_status with_cache(entry *e, nyb_model *m, nyb_module **out) {
  char hex[65];
  ny_text index = {0};
  nyb_status s = NYB_OK;
  if (content_key(e, m->unit, hex, &index)) {
    s = without_cache(e, m, out);
  } else {
    const char *path = module_path(e, hex);
    if (access(path, R_OK) || load(e, path, false, out)) s = into_cache(e, m, path, out);
    if (!s) write_index(e, index.s);
  }
  ny_text_free(&index);
  return s;
}

static nyb_status open_source(entry *e, nyb_module **out) {
  if (e->dir) {
    const char *hit = look_up(e);
    if (hit && !access(hit, R_OK) && !load(e, hit, false, out)) return NYB_OK;
  }
  nyb_model *m;
  NY_TRY(nyb_import(e->cx, e->path, e->import, &m));
  nyb_status s = e->dir ? with_cache(e, m, out) : without_cache(e, m, out);
  nyb_model_close(m);
  return s;
}

static nyb_status prepare(entry *e) {
  const nyb_compile_options *c = e->compile;
  bool watched = c->dump_dir || c->verify_each; /* then it is the compilation that is asked for */
  e->dir = watched ? NULL : e->cx->cache_dir;
  describe_options(e);
  if (!e->dir) return NYB_OK;
  if ((mkdir(ny_strf(&e->a, "%s/index", e->dir), 0700) && errno != EEXIST) ||
      (mkdir(ny_strf(&e->a, "%s/modules", e->dir), 0700) && errno != EEXIST))
    e->dir = NULL;
  char hex[65], *full = realpath(e->path, NULL);
  if (!full) return ny_fail(&e->cx->diag, NYB_E_IO, NULL, "%s: %s", e->path, strerror(errno));
  digest_text(ny_strf(&e->a, "%s\n%s", full, e->options), hex);
  free(full);
  e->index = ny_strf(&e->a, "%s/index/%s", e->dir ? e->dir : "", hex);
  return NYB_OK;
}

static nyb_status open_model(entry *e, nyb_module **out) {
  if (ny_ends_with(e->path, ".nyb")) {
    nyb_status s = load(e, e->path, false, out);
    if (s != NYB_E_TRUST && s != NYB_E_TARGET) return s;
  }
  NY_TRY(open_device(e));
  NY_TRY(prepare(e));
  return open_source(e, out);
}

NYB_API nyb_status nyb_open_model(nyb_context *cx, const char *path, const nyb_import_options *import_options,
                                  const nyb_compile_options *compile_options, nyb_module **out_module) {
  if (!cx || !path || !out_module) return NYB_E_ARGUMENT;
  ny_diag_clear(&cx->diag);
  *out_module = NULL;
  nyb_compile_options all = ny_compile_options(compile_options);
  entry e = {.cx = cx, .path = path, .import = import_options, .compile = &all};
  if (all.device && *all.device && strcmp(all.device, "cpu")) e.device_name = all.device;
  nyb_status s = open_model(&e, out_module);
  if (s && !cx->diag.code) ny_fail(&cx->diag, s, NULL, "%s", nyb_status_text(s));
  ny_device_close(e.device);
  ny_arena_free(&e.a);
  return s;
}
