/* The rows of targets.def, and this machine. */
#include "codegen.h"
#include "device.h"

#include <string.h>
#include <threads.h>

const ny_target ny_targets[] = {
#define TARGET(n, t, c, f, vec, regs, mask, two, dot, l1, l2k)                                                         \
  {.name = #n,                                                                                                         \
   .triple = t,                                                                                                        \
   .cpu = c,                                                                                                           \
   .features = f,                                                                                                      \
   .vec_bytes = vec,                                                                                                   \
   .n_vregs = regs,                                                                                                    \
   .masked = mask,                                                                                                     \
   .no_fma = two,                                                                                                      \
   .dot8 = NY_DOT8_##dot,                                                                                              \
   .l1d = (l1)*1024,                                                                                                   \
   .l2 = (l2k)*1024,                                                                                                   \
   .threads = 4},
#define CUDA_TARGET(n, cc, shared_k, l2k)                                                                              \
  {.name = #n,                                                                                                         \
   .triple = "nvptx64-nvidia-cuda",                                                                                    \
   .cpu = #n,                                                                                                          \
   .features = "",                                                                                                     \
   .vec_bytes = 16,                                                                                                    \
   .n_vregs = 64,                                                                                                      \
   .masked = true,                                                                                                     \
   .l1d = (shared_k)*1024,                                                                                             \
   .l2 = (l2k)*1024,                                                                                                   \
   .threads = 1,                                                                                                       \
   .sm = cc,                                                                                                           \
   .shared = (shared_k)*1024,                                                                                          \
   .fp4 = (cc) >= 120 && sizeof #n > sizeof "sm_120"}, /* not without a suffix */
#include "targets.def"
#undef TARGET
#undef CUDA_TARGET
};
const int ny_n_targets = (int)NY_COUNT(ny_targets);

static ny_target host;
static nyb_status host_status;
static ny_diag host_diag;
static once_flag host_once = ONCE_FLAG_INIT;

static void read_host(void) {
  const ny_codegen *cg;
  host_status = ny_codegen_open(&cg, &host_diag);
  if (!host_status) cg->host(&host);
  /* without it LLVM would call functions for floor and round */
  if (!host_status && host.no_fma && !strstr(host.features, "+sse4.2"))
    host_status =
        ny_fail(&host_diag, NYB_E_TARGET, NULL, "this CPU (%s) lacks SSE4.2, which compiled kernels use", host.cpu);
}

/* Of "cpu": what nearly every machine of this architecture runs. */
#if defined(__x86_64__)
#define COMMON_CPU "x86-64-v3"
#else
#define COMMON_CPU "aarch64"
#endif

static const ny_target *row(const char *name) {
  for (size_t i = 0; i < NY_COUNT(ny_targets); i++)
    if (!strcmp(ny_targets[i].name, name)) return &ny_targets[i];
  return NULL;
}

/* sm_120 is no row: NVRTC would refuse the instructions that such a device is bought for. */
static nyb_status unknown(const char *name, ny_diag *d) {
  char longer[2][80], known[512] = "host, cpu";
  snprintf(longer[0], sizeof longer[0], "%.70sf", name);
  snprintf(longer[1], sizeof longer[1], "%.70sa", name);
  if (row(longer[0]))
    return ny_fail(d, NYB_E_TARGET, NULL,
                   "target \"%s\" would leave out what only a family has, its FP4 instructions above all: use %s, "
                   "which runs on the whole family%s%s%s",
                   name, longer[0], row(longer[1]) ? ", or " : "", row(longer[1]) ? longer[1] : "",
                   row(longer[1]) ? " for this chip alone" : "");
  for (size_t i = 0; i < NY_COUNT(ny_targets); i++) {
    size_t n = strlen(known);
    snprintf(known + n, sizeof known - n, ", %s", ny_targets[i].name);
  }
  return ny_fail(d, NYB_E_TARGET, NULL, "unknown target \"%s\"; known are: %s", name, known);
}

nyb_status ny_target_find(const char *name, const ny_target **out, ny_diag *d) {
  if (!name || !strcmp(name, "host")) {
    call_once(&host_once, read_host);
    if (host_status) return ny_fail(d, host_status, NULL, "%s", host_diag.message);
    *out = &host;
    return NYB_OK;
  }
  *out = row(strcmp(name, "cpu") ? name : COMMON_CPU);
  return *out ? NYB_OK : unknown(name, d);
}

nyb_status ny_target_list(const char *names, ny_arena *a, const ny_target *const **out, size_t *n, ny_diag *d) {
  const ny_target **list = NULL;
  size_t cap = 0;
  *n = 0;
  for (const char *p = names && *names ? names : "host";;) {
    size_t len = strcspn(p, ","), i = 0;
    const ny_target *t;
    NY_TRY(ny_target_find(ny_strndup(a, p, len), &t, d));
    while (i < *n && list[i] != t) i++;
    if (i == *n) {
      NY_PUSH_ROOM(a, list, *n, cap);
      list[(*n)++] = t;
    }
    if (!p[len]) break;
    p += len + 1;
  }
  *out = list;
  return NYB_OK;
}

static const ny_target *row_for(uint32_t sm) {
  const ny_target *best = NULL;
  int most = 0;
  for (size_t i = 0; i < NY_COUNT(ny_targets); i++) {
    ny_cuda_arch arch;
    if (!ny_targets[i].sm || !ny_cuda_arch_parse(ny_targets[i].cpu, &arch)) continue;
    int fit =
        ny_cuda_arch_fit(&arch, sm) - (arch.suffix == 'a' && arch.sm >= 100 ? 2 << 16 : 0); /* rather the family */
    arch.real = false; /* of no family that is known: PTX for the newest common ground */
    if (fit <= 0) fit = ny_cuda_arch_fit(&arch, sm);
    if (fit <= most) continue;
    most = fit;
    best = &ny_targets[i];
  }
  return best;
}

/* The simulator takes PTX, so nothing is assembled for it. */
nyb_status ny_target_of_device(const ny_device *dev, const ny_target *asked, ny_arena *a, ny_target *out, ny_diag *d) {
  const ny_device_facts *f = ny_device_describe(dev);
  const ny_target *t = asked ? asked : row_for(f->sm);
  if (!t || !t->sm)
    return ny_fail(d, NYB_E_TARGET, NULL, "nothing is compiled for %s (compute capability %u.%u)%s%s", f->name,
                   f->sm / 10, f->sm % 10, t ? ": it does not run code for " : "", t ? t->name : "");
  *out = *t;
  if (f->simulated) out->cpu = ny_strf(a, "compute_%s", t->cpu + strlen("sm_"));
  return NYB_OK;
}
