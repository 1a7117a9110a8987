/* External tensor data. A model may come from a stranger, so its `location` is a path inside the model's own folder and
   nothing else: every component is opened by itself without following links, and a file with a second name (a hard link
   could point anywhere) is refused. Files are mapped once and stay mapped as long as the unit. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "onnx_model.h"

enum { MAX_PATH = 1024, MAX_FILES = 4096 };

/* An open file below `folder`, or -1 with *why set. */
static int open_below(const char *folder, const char *location, const char **why) {
  char part[256];
  int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  *why = strerror(errno);
  const char *p = location;
  while (dir >= 0) {
    const char *slash = strchr(p, '/');
    size_t n = slash ? (size_t)(slash - p) : strlen(p);
    if (n == 0 || n >= sizeof part || (n == 1 && *p == '.') || (n == 2 && p[0] == '.' && p[1] == '.')) {
      *why = "the path must consist of plain names below the model's folder";
      close(dir);
      return -1;
    }
    memcpy(part, p, n);
    part[n] = 0;
    int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | (slash ? O_DIRECTORY : 0);
    int next = openat(dir, part, flags);
    *why = errno == ELOOP ? "it is a symbolic link" : strerror(errno);
    close(dir);
    if (!slash) return next;
    dir = next;
    p = slash + 1;
  }
  return -1;
}

static const char *check_file(int fd, struct stat *st) {
  if (fstat(fd, st)) return strerror(errno);
  if (!S_ISREG(st->st_mode)) return "it is not a regular file";
  if (st->st_nlink > 1) return "it is a hard link (the file has other names)";
  /* A hole of gigabytes costs an attacker nothing and a compiler hours. */
  if (st->st_size > (64 << 20) && st->st_blocks < st->st_size / 512 / 1024)
    return "the file is a hole, with hardly any data in it";
  return NULL;
}

static nyb_status refuse(ny_ctx *cx, const ny_loc *loc, const char *location, const char *why) {
  return ny_fail(&cx->diag, NYB_E_IO, loc, "external data \"%s\" is refused: %s", location, why);
}

static nyb_status map_file(ny_ctx *cx, ny_onnx_files *f, const char *location, const ny_loc *loc, ny_map *out) {
  struct stat st;
  const char *why = NULL;
  int fd = open_below(f->folder, location, &why);
  if (fd < 0) return refuse(cx, loc, location, why);
  why = check_file(fd, &st);
  void *p = NULL;
  if (!why && st.st_size > 0) {
    p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) why = strerror(errno);
  }
  close(fd);
  if (why) return refuse(cx, loc, location, why);
  *out = (ny_map){.data = p, .bytes = (uint64_t)st.st_size, .fd = -1};
  return NYB_OK;
}

static nyb_status find_file(ny_ctx *cx, ny_onnx_files *f, const char *location, const ny_loc *loc, const ny_map **out) {
  ny_unit *u = f->unit;
  ny_name name = ny_intern(&cx->names, location);
  for (uint32_t i = 0; i < u->n_maps; i++)
    if (u->map_names[i] == name && name != f->file_name) {
      *out = &u->maps[i];
      return NYB_OK;
    }
  if (u->n_maps >= MAX_FILES)
    return ny_fail(&cx->diag, NYB_E_LIMIT, loc, "more than %d external files", (int)MAX_FILES);
  ny_map m;
  NY_TRY(map_file(cx, f, location, loc, &m));
  uint32_t names_cap = u->cap_maps;
  NY_PUSH_ROOM(&u->arena, u->map_names, u->n_maps, names_cap);
  NY_PUSH_ROOM(&u->arena, u->maps, u->n_maps, u->cap_maps);
  u->map_names[u->n_maps] = name;
  u->maps[u->n_maps] = m;
  *out = &u->maps[u->n_maps++];
  return NYB_OK;
}

nyb_status ny_onnx_external(ny_ctx *cx, ny_onnx_files *f, const char *location, int64_t offset, int64_t length,
                            const ny_loc *loc, const uint8_t **data, uint64_t *bytes) {
  const ny_map *m = NULL;
  if (!f->folder) return refuse(cx, loc, location, "the model was read from memory");
  if (strlen(location) > MAX_PATH) return refuse(cx, loc, "...", "the path is too long");
  NY_TRY(find_file(cx, f, location, loc, &m));
  if (offset < 0 || (uint64_t)offset > m->bytes)
    return ny_fail(&cx->diag, NYB_E_PARSE, loc, "external data \"%s\" starts at byte %lld but has %llu bytes", location,
                   (long long)offset, (unsigned long long)m->bytes);
  uint64_t left = m->bytes - (uint64_t)offset, want = length < 0 ? left : (uint64_t)length;
  if (want > left)
    return ny_fail(&cx->diag, NYB_E_PARSE, loc, "external data \"%s\" has %llu bytes after offset %lld, not %lld",
                   location, (unsigned long long)left, (long long)offset, (long long)length);
  *data = m->data ? m->data + offset : (const uint8_t *)"";
  *bytes = want;
  return NYB_OK;
}
