/* nybble kernels: kernels of a model, taken out, tried alone and put back. */
#include "kernels.h"
#include "verbs.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { MAX_THREADS = 16 };

const char *kernels_path(ny_arena *a, const char *dir, const char *kernel, const char *suffix) {
  size_t n = strlen(dir) + 1;
  char *path = ny_strf(a, "%s/%s.%s", dir, kernel, suffix);
  for (char *p = path + n; *p; p++)
    if (*p == '/' || *p == '\\') *p = '_';
  return path;
}

void kernels_digest(const char *text, char hex[65]) {
  uint8_t digest[32];
  ny_sha256 h;
  ny_sha256_init(&h);
  ny_sha256_add(&h, text, strlen(text));
  ny_sha256_end(&h, digest);
  ny_sha256_hex(digest, hex);
}

nyb_status kernels_write(const char *path, const void *data, size_t n, ny_diag *d) {
  ny_new_file f;
  NY_TRY(ny_file_begin(path, &f, d));
  fwrite(data, 1, n, f.f);
  return ny_file_commit(&f, d);
}

int kernels_archs(ny_arena *a, const char *list, const char *out[KERNELS_MAX_ARCHS]) {
  int n = 0;
  ny_cuda_arch arch;
  while (list && *list) {
    size_t len = strcspn(list, ",");
    if (n == KERNELS_MAX_ARCHS) return -1;
    out[n] = ny_strndup(a, list, len);
    if (!ny_cuda_arch_parse(out[n], &arch) || !arch.real) return -1;
    n++;
    list += len + (list[len] == ',');
  }
  return n;
}

/* ---- compiling */
typedef struct crew {
  kernels_job *job;
  size_t n;
  atomic_size_t next;
} crew;

static void *work(void *user) {
  crew *c = user;
  for (size_t i; (i = atomic_fetch_add(&c->next, 1)) < c->n;) {
    kernels_job *j = &c->job[i];
    ny_cuda_compile_source(j->source, j->name, j->arch, &j->image, &j->diag);
  }
  return NULL;
}

void kernels_compile(kernels_job *job, size_t n) {
  crew c = {.job = job, .n = n};
  pthread_t thread[MAX_THREADS];
  ny_host_facts host;
  int want, have = 0;
  ny_host_read(&host);
  want = host.n_cpu < MAX_THREADS ? host.n_cpu : MAX_THREADS;
  for (; have < want - 1 && (size_t)have + 1 < n; have++)
    if (pthread_create(&thread[have], NULL, work, &c)) break;
  work(&c);
  while (have > 0) pthread_join(thread[--have], NULL);
}

/* ---- subcommands */
static const struct {
  const char *name, *args, *text;
  int (*run)(int argc, char **argv);
} subs[] = {
    {"dump", "MODEL DIR",
     "run the model once on a device; every kernel, its launch, its arguments and results as files", kernels_dump},
    {"replay", "DIR [NAME...]", "compile, check against the recorded results and time each of them", kernels_replay},
    {"pin", "MODEL DIR -o OUT.nyb", "compile the model with those kernels of the folder that were edited", kernels_pin},
};

int verb_kernels(int argc, char **argv) {
  for (size_t i = 0; i < NY_COUNT(subs) && argc; i++)
    if (!strcmp(argv[0], subs[i].name)) return subs[i].run(argc - 1, argv + 1);
  bool help = argc && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"));
  FILE *to = help ? stdout : stderr;
  fputs("usage: nybble kernels dump|replay|pin ...\n\n", to);
  for (size_t i = 0; i < NY_COUNT(subs); i++)
    fprintf(to, "  %-6s %-22s %s\n", subs[i].name, subs[i].args, subs[i].text);
  fputs("\nnybble kernels dump --help and so on list the options.\n", to);
  return help ? CLI_OK : CLI_USAGE;
}
