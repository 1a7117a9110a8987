/* The floor both halves of nybble stand on: arenas, interned names, diagnostics, number formats, files, host facts.
   Nothing here knows of graphs, modules or devices. */
#ifndef NY_BASE_H
#define NY_BASE_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "nybble/nybble.h"

#if defined(__GNUC__)
#define NY_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define NY_PRINTF(fmt, args)
#endif
#define NY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- arena.c: bump allocation; everything dies with the arena. Out of memory is a message on stderr and abort(). */
typedef struct ny_arena {
  struct ny_chunk *head;
  size_t used, total;
} ny_arena;
void *ny_alloc(ny_arena *a, size_t bytes); /* zeroed, 16-byte aligned */
void *ny_grow(ny_arena *a, void *old, size_t old_bytes, size_t new_bytes);
char *ny_strdup(ny_arena *a, const char *s);
char *ny_strndup(ny_arena *a, const char *s, size_t n);
char *ny_strf(ny_arena *a, const char *fmt, ...) NY_PRINTF(2, 3);
void ny_arena_free(ny_arena *a);
#define NY_NEW(arena, type) ((type *)ny_alloc((arena), sizeof(type)))
#define NY_NEW_ARRAY(arena, type, n) ((type *)ny_alloc((arena), sizeof(type) * (size_t)(n)))
/* Room for one more in a growable arena array `p` of `n` used and `cap` allocated elements. */
#define NY_PUSH_ROOM(arena, p, n, cap)                                                                                 \
  do {                                                                                                                 \
    if ((n) == (cap)) {                                                                                                \
      size_t old_cap_ = (size_t)(cap), new_cap_ = old_cap_ ? old_cap_ * 2 : 8;                                         \
      (p) = ny_grow((arena), (p), old_cap_ * sizeof *(p), new_cap_ * sizeof *(p));                                     \
      (cap) = (__typeof__(cap))new_cap_;                                                                               \
    }                                                                                                                  \
  } while (0)

/* ---- text.c: growable text, malloc'ed, for printers and emitters. */
typedef struct ny_text {
  char *s; /* always NUL-terminated once anything was appended */
  size_t n, cap;
} ny_text;
void ny_text_add(ny_text *t, const char *s);
void ny_text_addn(ny_text *t, const char *s, size_t n);
void ny_text_addf(ny_text *t, const char *fmt, ...) NY_PRINTF(2, 3);
void ny_text_double(ny_text *t, double x);    /* shortest decimal that reads back; inf, -inf, nan */
void ny_text_json(ny_text *t, const char *s); /* quoted and escaped */
void ny_text_free(ny_text *t);
bool ny_ends_with(const char *s, const char *suffix);

/* ---- names.c: interned strings: equality is pointer equality. */
typedef const char *ny_name;
typedef struct ny_names {
  ny_arena arena;
  const char **slot;
  size_t n, cap;
} ny_names;
ny_name ny_intern(ny_names *t, const char *s);
ny_name ny_internn(ny_names *t, const char *s, size_t n);
void ny_names_free(ny_names *t);

/* ---- diag.c: one diagnostic, written where the fault is; a small status travels up. */
typedef struct ny_loc { /* where in the user's world an op came from */
  ny_name node, op_type;
  uint32_t index;  /* position of the node in its graph */
  uint64_t offset; /* byte offset of the node in the model file */
} ny_loc;
typedef struct ny_diag {
  nyb_status code;
  ny_loc loc;
  bool has_loc;
  int line; /* of a text file; 0: none */
  const char *file, *pass;
  char message[1024];
} ny_diag;
/* Records the first failure only (a later one while unwinding does not hide the cause) and returns `code`. */
nyb_status ny_fail(ny_diag *d, nyb_status code, const ny_loc *loc, const char *fmt, ...) NY_PRINTF(4, 5);
void ny_diag_clear(ny_diag *d);
void ny_diag_print(const ny_diag *d, ny_text *out); /* `file: node 37 "name" (Conv): message` */
#define NY_TRY(e)                                                                                                      \
  do {                                                                                                                 \
    nyb_status ny_s_ = (e);                                                                                            \
    if (ny_s_) return ny_s_;                                                                                           \
  } while (0)

/* ---- format.c: the rows of formats.def. */
typedef enum ny_fmt {
  NY_none,
#define FMT(name, kind, bits, onnx) NY_##name,
#include "formats.def"
#undef FMT
  NY_N_FMT
} ny_fmt;
typedef struct ny_fmt_info {
  const char *name;
  char kind; /* 'F' 'I' 'U' 'B' 'S' */
  uint8_t bits;
  int onnx;
} ny_fmt_info;
extern const ny_fmt_info ny_fmts[NY_N_FMT];
ny_fmt ny_fmt_by_name(const char *s, size_t n); /* NY_none: no such format */
ny_fmt ny_fmt_by_onnx(int dtype);
static inline bool ny_is_float(ny_fmt f) { return ny_fmts[f].kind == 'F'; }
static inline bool ny_is_int(ny_fmt f) { return ny_fmts[f].kind == 'I' || ny_fmts[f].kind == 'U'; }
/* Bytes of `n` packed elements; UINT64_MAX on overflow. */
uint64_t ny_fmt_bytes(ny_fmt f, uint64_t n);

/* ---- number.c: scalar conversions; exact where the target holds the value, else round to nearest even.
   saturate: out-of-range becomes the largest finite value (ONNX Cast saturate=1), else inf or NaN as the format has.
   Element `i` of packed storage `p` (any alignment) as double or int64; and back. Floats of any format go through the
   double pair, integers and bool through the int64 pair (u64 as its bit pattern). Integer stores wrap modulo 2^bits. */
double ny_get_f(ny_fmt f, const void *p, uint64_t i);
int64_t ny_get_i(ny_fmt f, const void *p, uint64_t i);
void ny_put_f(ny_fmt f, void *p, uint64_t i, double x, bool saturate);
void ny_put_i(ny_fmt f, void *p, uint64_t i, int64_t x);
double ny_round_to(ny_fmt f, double x);  /* the value x has after being stored in f without saturation */
int64_t ny_wrap_to(ny_fmt f, int64_t x); /* the value x has after being stored in integer or bool format f */

/* ---- hash.c: content digests (SHA-256, FIPS 180-4) for cache keys and segments. */
typedef struct ny_sha256 {
  uint32_t state[8];
  uint64_t n;
  uint8_t block[64];
} ny_sha256;
void ny_sha256_init(ny_sha256 *h);
void ny_sha256_add(ny_sha256 *h, const void *p, size_t n);
void ny_sha256_end(ny_sha256 *h, uint8_t out[32]);
void ny_sha256_hex(const uint8_t digest[32], char out[65]);

/* ---- file.c */
typedef struct ny_map { /* a whole file mapped read-only */
  const uint8_t *data;
  uint64_t bytes;
  int fd;
} ny_map;
nyb_status ny_map_open(const char *path, ny_map *out, ny_diag *d);
void ny_map_close(ny_map *m);
/* Atomic write: a temporary file beside `path`, then fsync, rename. Between begin and commit write to ->f. */
typedef struct ny_new_file {
  FILE *f;
  char *path, *tmp;
} ny_new_file;
nyb_status ny_file_begin(const char *path, ny_new_file *out, ny_diag *d);
nyb_status ny_file_commit(ny_new_file *nf, ny_diag *d); /* on failure the temporary is removed */
void ny_file_abort(ny_new_file *nf);
nyb_status ny_file_read(ny_arena *a, const char *path, size_t limit, char **out, size_t *out_n, ny_diag *d);
/* $NYBBLE_CACHE, else $XDG_CACHE_HOME/nybble, else $HOME/.cache/nybble; created 0700. NULL when there is no usable
   place: not owned by us, or writable by others. */
const char *ny_cache_dir(ny_arena *a);
/* Made (0700) if missing; true when it is ours and nobody else may write there. */
bool ny_private_dir(const char *path);

/* ---- host.c: what this machine is. */
typedef struct ny_host_facts {
  int n_cpu; /* CPUs this process may use: its mask, and its container's quota */
  uint64_t mem_bytes, l1d, l2, l3;
  char cpu_name[64];
} ny_host_facts;
void ny_host_read(ny_host_facts *out);
double ny_now(void); /* monotonic seconds */
#endif
