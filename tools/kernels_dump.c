/* nybble kernels dump: a run on a device is watched; the first launch of every kernel becomes files. What a kernel's
   arguments are is read from its text: formats from the comment above it, what it writes from the signature. */
#include "kernels.h"
#include "remote.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct argument { /* a buffer of the launch at hand */
  ny_fmt fmt;
  int64_t shape[NY_MOD_RANK];
  int ndim;
  bool written;
  uint32_t same; /* the earlier argument with the same memory, or itself */
  bool whole;    /* whatever it held before, the kernel writes all of it */
  cli_array before, after;
} argument;
typedef struct dump {
  cli_model m;
  const char *dir, *cubins;
  ny_arena arena;
  const char **source; /* per kernel; NULL: not launched so far */
  uint32_t current;    /* the kernel whose results are waited for */
  argument *arg;
  uint32_t n_arg;
  ny_text lines; /* of its arguments */
  ny_diag d;
} dump;

static const ny_mod *mod_of(const dump *u) { return u->m.session->mod; }
static const ny_mod_kernel *kernel_of(const dump *u, uint32_t k) { return &mod_of(u)->kernel[k]; }
static const char *path_of(dump *u, uint32_t k, const char *suffix) {
  return kernels_path(&u->arena, u->dir, kernel_of(u, k)->name, suffix);
}

/* ---- what the text says */
static nyb_status no_text(dump *u, uint32_t k) {
  return ny_fail(&u->d, NYB_E_INTERNAL, NULL, "the text of kernel %s does not say what its arguments are",
                 kernel_of(u, k)->name);
}

/* The parameters of the entry point; NULL: not found. */
static const char *signature(dump *u, uint32_t k, const char *text) {
  const char *s = strstr(text, "extern \"C\" __global__"), *symbol = kernel_of(u, k)->symbol;
  s = s && symbol ? strstr(s, ny_strf(&u->arena, " %s(", symbol)) : NULL;
  return s ? s + strlen(symbol) + 2 : NULL;
}

/* The value of a symbol: the kernel's parameters are its buffers, then a number a symbol, a_i_<name>. */
static int64_t symbol_value(const char *parameters, const char *name, size_t n, const ny_launch *l) {
  const char *end = strchr(parameters, ')'), *p = parameters;
  for (uint32_t i = 0; i < l->n_buffers + l->n_dims && p && p < end; i++, p = strchr(p, ',')) {
    p += *p == ',';
    if (i < l->n_buffers) continue;
    const char *at = strstr(p, "a_i_");
    if (at && at < end && !strncmp(at + 4, name, n) && !isalnum((unsigned char)at[4 + n]) && at[4 + n] != '_')
      return l->dim[i - l->n_buffers];
  }
  return -1;
}

/* `f32[?N,384]@global`: what is not a number or a symbol leaves a flat array. */
static void read_shape(const char *type, const char *parameters, const ny_launch *l, uint32_t i, argument *a) {
  size_t n = strcspn(type, "[");
  uint64_t bits = 1;
  a->fmt = ny_fmt_by_name(type, n);
  if (!a->fmt || !ny_module_dtype(a->fmt).bits) a->fmt = NY_u8;
  const char *p = type + n + (type[n] == '[');
  while (*p && *p != ']' && *p != '\n' && a->ndim < NY_MOD_RANK) {
    size_t len = strcspn(p, ",]\n");
    char *end = (char *)(uintptr_t)p;
    int64_t v = *p == '?' ? symbol_value(parameters, p + 1, len - 1, l) : strtoll(p, &end, 10);
    if (v < 0 || (*p != '?' && end != p + len) || __builtin_mul_overflow(bits, (uint64_t)v, &bits)) {
      bits = 0;
      break;
    }
    a->shape[a->ndim++] = v;
    p += len + (p[len] == ',');
  }
  uint32_t each = ny_fmts[a->fmt].bits;
  if (bits < UINT64_MAX / 64 && (bits * each + 7) / 8 == l->bytes[i]) return;
  a->ndim = 1;
  a->shape[0] = (int64_t)(l->bytes[i] * 8 / each);
  if (each >= 8 && l->bytes[i] * 8 % each) a->fmt = NY_u8, a->shape[0] = (int64_t)l->bytes[i];
}

static nyb_status read_text(dump *u, uint32_t k, const char *text, const ny_launch *l) {
  const char *p = signature(u, k, text), *comment = strstr(text, "\n// grid points: ");
  if (!p || !comment) return no_text(u, k);
  const char *parameters = p;
  for (uint32_t i = 0; i < l->n_buffers; i++) {
    argument *a = &u->arg[i];
    *a = (argument){.same = i};
    comment = strchr(comment + 1, '\n');
    const char *type = comment && !strncmp(comment, "\n//   ", 6) ? strstr(comment, ": ") : NULL;
    if (!type || !p) return no_text(u, k);
    read_shape(type + 2, parameters, l, i, a);
    a->written = strncmp(p, "const ", 6) != 0;
    p = strchr(p, ',');
    if (p) p += 2;
  }
  return NYB_OK;
}

/* Arguments that are the same memory, of which one is written, must stay so. */
static nyb_status find_same(dump *u, uint32_t k, const ny_launch *l) {
  for (uint32_t i = 0; i < l->n_buffers; i++)
    for (uint32_t j = 0; j < i; j++) {
      uintptr_t p = (uintptr_t)l->buffer[i], q = (uintptr_t)l->buffer[j];
      bool apart = p >= q + l->bytes[j] || q >= p + l->bytes[i];
      if (apart || (!u->arg[i].written && !u->arg[j].written && (p != q || l->bytes[i] != l->bytes[j]))) continue;
      if (p != q || l->bytes[i] != l->bytes[j])
        return ny_fail(&u->d, NYB_E_UNSUPPORTED, NULL, "kernel %s: arguments %u and %u overlap in part",
                       kernel_of(u, k)->name, j, i);
      argument *first = &u->arg[u->arg[j].same];
      u->arg[i].same = u->arg[j].same;
      first->written |= u->arg[i].written;
      break;
    }
  return NYB_OK;
}

/* ---- memory */
static uint64_t bytes_of(const cli_array *a) { return cli_tensor_bytes(&a->t); }

static nyb_status fetch(dump *u, nyb_session *s, const ny_launch *l, uint32_t i, cli_array *out) {
  const argument *a = &u->arg[i];
  nyb_value_info v = {.dtype = ny_module_dtype(a->fmt), .ndim = a->ndim};
  if (cli_array_new(&v, a->shape, out)) return ny_fail(&u->d, NYB_E_NOMEM, NULL, "no memory for an argument");
  out->t.shape = out->shape;
  NY_TRY(ny_queue_download(s->remote->queue, out->memory, l->buffer[i], bytes_of(out), &u->d));
  return ny_queue_wait(s->remote->queue, &u->d);
}

static nyb_status put(dump *u, nyb_session *s, const ny_launch *l, uint32_t i, const void *from) {
  NY_TRY(ny_queue_upload(s->remote->queue, l->buffer[i], from, bytes_of(&u->arg[i].after), &u->d));
  return ny_queue_wait(s->remote->queue, &u->d);
}

/* Launched once more on memory that held something else: the results do not depend on what was there before when every
   bit comes out again. */
static nyb_status try_again(dump *u, nyb_session *s, const ny_launch *l) {
  struct ny_remote *r = s->remote;
  for (uint32_t i = 0; i < l->n_buffers; i++) {
    argument *a = &u->arg[i];
    uint64_t n = a->before.memory ? bytes_of(&a->before) : 0;
    if (a->same != i || !a->written) continue;
    for (uint64_t k = 0; k < n; k++) ((uint8_t *)a->before.memory)[k] ^= 0x5a;
    NY_TRY(put(u, s, l, i, a->before.memory));
    for (uint64_t k = 0; k < n; k++) ((uint8_t *)a->before.memory)[k] ^= 0x5a;
  }
  NY_TRY(ny_queue_launch(r->queue, r->program, l, &u->d));
  NY_TRY(ny_queue_wait(r->queue, &u->d));
  for (uint32_t i = 0; i < l->n_buffers; i++) {
    argument *a = &u->arg[i];
    cli_array again = {0};
    if (a->same != i || !a->written) continue;
    nyb_status e = fetch(u, s, l, i, &again);
    if (!e) a->whole = !memcmp(again.memory, a->after.memory, bytes_of(&again));
    if (!e && !a->whole) e = put(u, s, l, i, a->after.memory);
    cli_array_free(&again);
    NY_TRY(e);
  }
  return NYB_OK;
}

/* ---- files */
static nyb_status save(dump *u, const ny_launch *l, uint32_t i, const char *suffix, const cli_array *array) {
  char part[32];
  snprintf(part, sizeof part, "%u.%s", i, suffix);
  return cli_npy_write(path_of(u, l->kernel, part), &array->t, &u->d);
}

/* Results on other devices differ by how they round sums and approximate functions; whole numbers do not. */
static double tolerance_of(ny_fmt f) {
  if (!ny_is_float(f)) return 0;
  return f == NY_f64 ? 1e-10 : f == NY_f32 ? 1e-4 : f == NY_f16 ? 5e-3 : f == NY_bf16 ? 2e-2 : 0.13;
}

static void type_text(ny_text *t, const argument *a) {
  ny_text_addf(t, "%s[", ny_fmts[a->fmt].name);
  for (int i = 0; i < a->ndim; i++) ny_text_addf(t, "%s%lld", i ? "," : "", (long long)a->shape[i]);
  ny_text_add(t, "]");
}

static const char *file_name(const char *path) { return strrchr(path, '/') + 1; }

static void argument_line(dump *u, const ny_launch *l, uint32_t i) {
  const argument *a = &u->arg[i];
  ny_text *t = &u->lines;
  char part[48];
  if (a->same != i) {
    ny_text_addf(t, "same %u\n", a->same);
    return;
  }
  snprintf(part, sizeof part, "%u.npy", i);
  ny_text_addf(t, "%s %s ", !a->written ? "in" : a->whole ? "out" : "inout", file_name(path_of(u, l->kernel, part)));
  type_text(t, a);
  snprintf(part, sizeof part, "%u.expect.npy", i);
  if (a->written) ny_text_addf(t, " expect=%s tol=%g", file_name(path_of(u, l->kernel, part)), tolerance_of(a->fmt));
  ny_text_add(t, "\n");
}

static nyb_status write_launch(dump *u, const ny_launch *l) {
  const ny_mod_kernel *k = kernel_of(u, l->kernel);
  char hex[65];
  ny_text t = {0};
  kernels_digest(u->source[l->kernel], hex);
  ny_text_addf(&t, "kernel %s\ngrid %lld\nblock %u\nshared %u\npoints %u\ntext %s\n", k->symbol,
               (long long)((l->extent - 1) / k->points + 1), k->block, k->shared, k->points, hex);
  ny_text_add(&t, u->lines.s ? u->lines.s : "");
  for (uint32_t i = 0; i < l->n_dims; i++) ny_text_addf(&t, "value i64 %lld\n", (long long)l->dim[i]);
  ny_text_addf(&t, "value i64 %lld # grid points\n", (long long)l->extent);
  nyb_status e = kernels_write(path_of(u, l->kernel, "launch"), t.s, t.n, &u->d);
  ny_text_free(&t);
  return e;
}

/* ---- watching */
static void forget(dump *u) {
  for (uint32_t i = 0; i < u->n_arg; i++) {
    cli_array_free(&u->arg[i].before);
    cli_array_free(&u->arg[i].after);
  }
  u->n_arg = 0;
}

static nyb_status before(dump *u, nyb_session *s, const ny_launch *l) {
  char *text;
  size_t n;
  u->current = UINT32_MAX;
  if (l->extent <= 0 || u->source[l->kernel]) return NYB_OK;
  NY_TRY(ny_file_read(&u->arena, path_of(u, l->kernel, "cu"), KERNELS_MAX_SOURCE, &text, &n, &u->d));
  forget(u);
  u->n_arg = l->n_buffers;
  u->arg = NY_NEW_ARRAY(&u->arena, argument, l->n_buffers + 1);
  NY_TRY(read_text(u, l->kernel, text, l));
  NY_TRY(find_same(u, l->kernel, l));
  for (uint32_t i = 0; i < l->n_buffers; i++)
    if (u->arg[i].same == i) NY_TRY(fetch(u, s, l, i, &u->arg[i].before));
  u->source[l->kernel] = text;
  u->current = l->kernel;
  return NYB_OK;
}

static nyb_status after(dump *u, nyb_session *s, const ny_launch *l) {
  if (l->kernel != u->current) return NYB_OK;
  bool in_place = false;
  for (uint32_t i = 0; i < l->n_buffers; i++) {
    argument *a = &u->arg[i];
    if (a->same == i && a->written) NY_TRY(fetch(u, s, l, i, &a->after));
    in_place |= a->same != i && u->arg[a->same].written;
  }
  if (!in_place) NY_TRY(try_again(u, s, l));
  ny_text_free(&u->lines);
  for (uint32_t i = 0; i < l->n_buffers; i++) {
    const argument *a = &u->arg[i];
    if (a->same == i && !a->whole) NY_TRY(save(u, l, i, "npy", &a->before));
    if (a->same == i && a->written) NY_TRY(save(u, l, i, "expect.npy", &a->after));
    argument_line(u, l, i);
  }
  return write_launch(u, l);
}

static nyb_status watch(void *user, nyb_session *s, const ny_launch *l, bool is_after) {
  dump *u = user;
  nyb_status e = is_after ? after(u, s, l) : before(u, s, l);
  return e ? ny_fail(&s->diag, e, NULL, "%s", u->d.message) : NYB_OK;
}

/* ---- code for machines without NVRTC: a kernel's own, while the compiler's dump has that of its unit */
static nyb_status add_code(dump *u, const char *const *arch, int n_arch) {
  const ny_mod *q = mod_of(u);
  size_t per = (size_t)n_arch + 1, n = 0;
  kernels_job *job = NY_NEW_ARRAY(&u->arena, kernels_job, q->n_kernels * per + 1);
  uint32_t *kernel = NY_NEW_ARRAY(&u->arena, uint32_t, q->n_kernels * per + 1);
  /* without the target's suffix: later devices take it too */
  const char *digits = q->target + strcspn(q->target, "0123456789");
  const char *ptx = ny_strf(&u->arena, "compute_%.*s", (int)strspn(digits, "0123456789"), digits);
  for (uint32_t k = 0; k < q->n_kernels; k++)
    for (size_t i = 0; i < per && u->source[k]; i++) {
      kernel[n] = k;
      job[n++] = (kernels_job){.source = u->source[k],
                               .name = ny_strf(&u->arena, "%s.cu", q->kernel[k].symbol),
                               .arch = i ? arch[i - 1] : ptx};
    }
  kernels_compile(job, n);
  for (size_t i = 0; i < n; i++) {
    const ny_cuda_image *im = &job[i].image;
    const char *suffix = im->cubin ? ny_strf(&u->arena, "%s.cubin", job[i].arch) : "ptx";
    if (job[i].diag.code && !u->d.code) u->d = job[i].diag;
    if (!u->d.code)
      kernels_write(path_of(u, kernel[i], suffix), im->cubin ? (const char *)im->cubin : im->ptx,
                    im->cubin ? im->cubin_bytes : im->ptx_bytes, &u->d);
    ny_cuda_image_free(&job[i].image);
  }
  return u->d.code;
}

/* A kernel that the run did not need has no launch: its text alone would only be in the way. */
static int finish(dump *u) {
  const ny_mod *q = mod_of(u);
  uint32_t seen = 0;
  for (uint32_t k = 0; k < q->n_kernels; k++) {
    if (u->source[k]) {
      printf("%s\n", q->kernel[k].name);
      seen++;
      continue;
    }
    remove(path_of(u, k, "cu"));
    remove(path_of(u, k, "ptx"));
  }
  printf("%u of %u kernels of %s, recorded on %s\n", seen, q->n_kernels, q->target, cli_device(&u->m));
  return CLI_OK;
}

static int run(dump *u) {
  const char *arch[KERNELS_MAX_ARCHS];
  int n_arch = kernels_archs(&u->arena, u->cubins, arch);
  if (n_arch < 0) cli_usage("kernels", "--cubin %s: wants architectures like sm_90a", u->cubins);
  if (!u->m.session || !u->m.session->remote) return cli_fail("kernels are recorded on cuda or sim");
  u->source = NY_NEW_ARRAY(&u->arena, const char *, mod_of(u)->n_kernels + 1);
  u->m.session->watch = watch;
  u->m.session->watch_user = u;
  nyb_status e = cli_model_run(&u->m);
  if (e) return cli_error(u->m.cx, e);
  return add_code(u, arch, n_arch) ? cli_diag(&u->d) : finish(u);
}

int kernels_dump(int argc, char **argv) {
  cli_model_options o = {.device = "sim"};
  const char *file[2];
  dump *u = calloc(1, sizeof *u);
  if (!u) return cli_fail("out of memory");
  const cli_option opt[] = {CLI_MODEL_OPTIONS(o),
                            {"--cubin", CLI_STRING, &u->cubins, "A,B", "machine code too: sm_80, sm_90a, ..."}};
  int n = cli_parse("kernels", opt, NY_COUNT(opt), argc, argv, file, 1, 2);
  if (n != 2 || ny_ends_with(file[0], ".nyb")) cli_usage("kernels", "dump wants a model (.onnx or .nyt) and a folder");
  if (o.evaluate) cli_usage("kernels", "the evaluator has no kernels");
  if (mkdir(file[1], 0777) && errno != EEXIST) return cli_fail("%s: cannot create it: %s", file[1], strerror(errno));
  o.dump = u->dir = file[1];
  int bad = cli_model_open(file[0], &o, &u->m);
  if (!bad) bad = run(u);
  forget(u);
  cli_model_close(&u->m);
  ny_text_free(&u->lines);
  ny_arena_free(&u->arena);
  free(u);
  return bad;
}
