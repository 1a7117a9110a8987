/* Files: read-only maps, bounded reads, atomic writes, and the per-user cache folder. A writer works on a temporary
   file beside the target, so a reader sees the old content or the new, never a part. */
#include "base.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static nyb_status open_regular(const char *path, int *fd, uint64_t *bytes, ny_diag *d) {
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* not to hang on a FIFO before fstat can refuse it */
  if (*fd < 0) return ny_fail(d, NYB_E_IO, NULL, "cannot open %s: %s", path, strerror(errno));
  struct stat st;
  if (fstat(*fd, &st) || !S_ISREG(st.st_mode)) {
    close(*fd);
    return ny_fail(d, NYB_E_IO, NULL, "%s is not a regular file", path);
  }
  *bytes = (uint64_t)st.st_size;
  return NYB_OK;
}

nyb_status ny_map_open(const char *path, ny_map *out, ny_diag *d) {
  *out = (ny_map){.fd = -1};
  int fd;
  uint64_t bytes;
  NY_TRY(open_regular(path, &fd, &bytes, d));
  void *p = (void *)""; /* mmap refuses length 0 */
  if (bytes) p = bytes > SIZE_MAX ? MAP_FAILED : mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  if (p == MAP_FAILED) {
    int e = errno;
    close(fd);
    return ny_fail(d, NYB_E_IO, NULL, "cannot map %s (%llu bytes): %s", path, (unsigned long long)bytes, strerror(e));
  }
  *out = (ny_map){p, bytes, fd};
  return NYB_OK;
}

void ny_map_close(ny_map *m) {
  if (m->bytes) munmap((void *)m->data, (size_t)m->bytes);
  if (m->data && m->fd >= 0) close(m->fd);
  *m = (ny_map){.fd = -1};
}

nyb_status ny_file_read(ny_arena *a, const char *path, size_t limit, char **out, size_t *out_n, ny_diag *d) {
  int fd;
  uint64_t bytes;
  NY_TRY(open_regular(path, &fd, &bytes, d));
  if (bytes > limit) {
    close(fd);
    return ny_fail(d, NYB_E_LIMIT, NULL, "%s has %llu bytes, the limit here is %zu", path, (unsigned long long)bytes,
                   limit);
  }
  char *s = ny_alloc(a, (size_t)bytes + 1);
  size_t n = 0;
  ssize_t got = 0;
  while (n < bytes && ((got = read(fd, s + n, (size_t)bytes - n)) > 0 || (got < 0 && errno == EINTR)))
    if (got > 0) n += (size_t)got;
  int e = errno;
  close(fd);
  if (got < 0) return ny_fail(d, NYB_E_IO, NULL, "cannot read %s: %s", path, strerror(e));
  s[n] = 0; /* shorter than fstat said when another program truncated it meanwhile */
  *out = s;
  if (out_n) *out_n = n;
  return NYB_OK;
}

/* ---- atomic writes */
static int open_beside(const char *path, char *tmp, size_t room) {
  static atomic_uint serial;
  int fd = -1;
  for (int tries = 0; fd < 0 && tries < 100; tries++) {
    snprintf(tmp, room, "%s.%ld-%u.tmp", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (errno != EEXIST) break;
  }
  return fd;
}

nyb_status ny_file_begin(const char *path, ny_new_file *out, ny_diag *d) {
  *out = (ny_new_file){0};
  size_t room = strlen(path) + 64;
  char *tmp = malloc(room), *copy = strdup(path);
  int fd = -1;
  struct stat st;
  if (tmp && copy && !stat(path, &st) && !S_ISREG(st.st_mode)) { /* a device or a pipe is written to, never replaced */
    free(tmp);
    tmp = NULL;
    fd = open(path, O_RDWR | O_CLOEXEC);
  } else if (tmp && copy) {
    fd = open_beside(path, tmp, room);
  }
  FILE *f = fd >= 0 ? fdopen(fd, "w+b") : NULL;
  if (!f) {
    int e = copy && errno ? errno : ENOMEM;
    if (fd >= 0) close(fd);
    if (fd >= 0 && tmp) unlink(tmp);
    free(tmp);
    free(copy);
    return ny_fail(d, NYB_E_IO, NULL, "cannot write %s: %s", path, strerror(e));
  }
  *out = (ny_new_file){f, copy, tmp};
  return NYB_OK;
}

void ny_file_abort(ny_new_file *nf) {
  if (nf->f) fclose(nf->f);
  if (nf->tmp) unlink(nf->tmp);
  free(nf->tmp);
  free(nf->path);
  *nf = (ny_new_file){0};
}

nyb_status ny_file_commit(ny_new_file *nf, ny_diag *d) {
  bool ok = !ferror(nf->f) && !fflush(nf->f) && (!nf->tmp || !fsync(fileno(nf->f)));
  int e = errno;
  ok = !fclose(nf->f) && ok;
  nf->f = NULL;
  if (ok && nf->tmp && rename(nf->tmp, nf->path)) {
    e = errno;
    ok = false;
  }
  nyb_status s = ok ? NYB_OK : ny_fail(d, NYB_E_IO, NULL, "cannot write %s: %s", nf->path, strerror(e));
  if (ok) {
    free(nf->tmp);
    nf->tmp = NULL; /* it is the file now */
  }
  ny_file_abort(nf);
  return s;
}

/* ---- cache folder */
static bool make_folders(char *path) {
  for (char *s = path + 1;; s++) {
    if (*s && *s != '/') continue;
    char c = *s;
    *s = 0;
    int r = mkdir(path, 0700);
    int e = errno;
    *s = c;
    if (r && e != EEXIST) return false;
    if (!c) return true;
  }
}

bool ny_private_dir(const char *path) {
  char *copy = strdup(path);
  bool made = copy && *copy && make_folders(copy);
  free(copy);
  struct stat st;
  return made && !stat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022);
}

const char *ny_cache_dir(ny_arena *a) {
  const char *own = getenv("NYBBLE_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  char *path;
  if (own && *own)
    path = ny_strdup(a, own);
  else if (xdg && *xdg == '/')
    path = ny_strf(a, "%s/nybble", xdg); /* relative ones are invalid by its specification */
  else if (home && *home)
    path = ny_strf(a, "%s/.cache/nybble", home);
  else
    return NULL;
  return ny_private_dir(path) ? path : NULL;
}
