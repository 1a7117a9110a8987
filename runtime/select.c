/* Which program of a file a device runs, and which image of each of its units. Machine code for exactly this device
   comes first, then that for its family, then PTX, which the driver compiles; of several of a kind the one for the
   newest device. */
#include "module.h"
#include <stdlib.h>
#include <string.h>

/* ---- architectures */
bool ny_cuda_arch_parse(const char *s, ny_cuda_arch *out) {
  static const char *const prefix[] = {"compute_", "sm_"};
  for (int real = 0; real < 2; real++) {
    size_t n = strlen(prefix[real]);
    if (strncmp(s, prefix[real], n)) continue;
    uint32_t sm = 0;
    const char *p = s + n;
    while (*p >= '0' && *p <= '9' && p - s - (ptrdiff_t)n < 4) sm = sm * 10 + (uint32_t)(*p++ - '0');
    *out = (ny_cuda_arch){.sm = sm, .suffix = *p, .real = real};
    return sm >= 10 && (!*p || ((*p == 'a' || *p == 'f') && !p[1]));
  }
  return false;
}

int ny_cuda_arch_fit(const ny_cuda_arch *a, uint32_t sm) {
  if (a->sm > sm) return 0;
  int near = (int)a->sm, native = a->real ? 1 << 20 : 0;
  switch (a->suffix) {
  case 'a': return a->sm == sm ? native + near + (3 << 16) : 0;
  case 'f': return a->sm / 10 == sm / 10 ? native + near + (2 << 16) : 0;
  default: return !a->real || a->sm / 10 == sm / 10 ? native + near + (1 << 16) : 0;
  }
}

/* ---- processors */
static const char *missing_feature(const ny_mod *m) {
  for (uint32_t i = 0; i < m->n_features; i++)
    if (!ny_cpu_has(m->feature[i])) return m->feature[i];
  return NULL;
}

/* Code made on such a machine, then the highest level, then the longest list of features. */
static int cpu_fit(const ny_mod *m) {
  if (m->sm || strcmp(m->arch, ny_cpu_arch()) || missing_feature(m)) return 0;
  const char *level = strstr(m->target, "-v");
  int n = m->n_features < 1000 ? (int)m->n_features : 1000;
  return 1 + n + (strncmp(m->target, "host", 4) ? 0 : 1 << 20) + (level ? 1024 * atoi(level + 2) % (1 << 19) : 0);
}

/* ---- images */
static bool takes(const ny_device_needs *d, const ny_mod_image *o) {
  return (o->kind == NY_MI_CUBIN && d->cubin) || (o->kind == NY_MI_PTX && d->ptx);
}

static int image_fit(const ny_device_needs *d, const ny_mod_image *o) {
  ny_cuda_arch arch;
  return takes(d, o) && ny_cuda_arch_parse(o->arch, &arch) ? ny_cuda_arch_fit(&arch, d->sm) : 0;
}

static bool enough_shared(const ny_mod *m, const ny_device_needs *d) {
  for (uint32_t i = 0; i < m->n_kernels; i++)
    if (m->kernel[i].shared > d->shared) return false;
  return true;
}

/* Fills best[unit]; the fit of the worst served unit, 0 where one finds nothing. */
static int choose_images(const ny_mod *m, const ny_device_needs *d, uint32_t *best) {
  int worst = 1 << 30;
  if (!m->sm || !enough_shared(m, d)) return 0;
  for (uint32_t i = 0; i < m->n_images;) {
    int most = 0;
    uint32_t unit = m->image[i].unit;
    for (; i < m->n_images && m->image[i].unit == unit; i++) {
      int fit = image_fit(d, &m->image[i]);
      if (fit <= most) continue;
      most = fit;
      best[unit] = i;
    }
    if (most < worst) worst = most;
  }
  /* without kernels there is nothing that could not run */
  return worst;
}

/* ---- the choice */
static nyb_status nothing_fits(const nyb_module *m, const ny_device_needs *device, ny_diag *d) {
  char have[400] = "";
  ny_host_facts host;
  const char *name = device->name;
  if (!name) { /* reading the CPU's takes longer than a load */
    ny_host_read(&host);
    name = host.cpu_name;
  }
  for (uint32_t i = 0; i < m->n_programs; i++) {
    const ny_mod *q = &m->program[i];
    size_t n = strlen(have);
    bool foreign = !q->sm && strcmp(q->arch, ny_cpu_arch());
    snprintf(have + n, sizeof have - n, "%s%.60s%s%.20s%s", i ? ", " : "", q->target, foreign ? " (" : "",
             foreign ? q->arch : "", foreign ? ")" : "");
    for (uint32_t k = 0; k < q->n_images && q->image[k].unit == 0; k++) {
      n = strlen(have);
      if (q->image[k].kind == NY_MI_PTX) snprintf(have + n, sizeof have - n, " (PTX %.30s)", q->image[k].arch);
    }
  }
  const char *lacks = m->n_programs == 1 && !device->sm && !strcmp(m->program->arch, ny_cpu_arch())
                          ? missing_feature(m->program)
                          : NULL;
  if (lacks)
    return ny_fail(d, NYB_E_TARGET, NULL, "the module was built for %s and needs %s, which this CPU (%s) lacks", have,
                   lacks, name);
  return ny_fail(d, NYB_E_TARGET, NULL, "the module was built for %s; nothing of it runs on %s%s", have, name,
                 device->sm && !device->cubin ? ", which takes PTX only" : "");
}

static const char *reason(nyb_module *m, const ny_device_needs *device, const uint32_t *image) {
  const ny_mod *q = &m->mod;
  if (!q->sm) return ny_strf(&m->arena, "code for %s", q->target);
  if (!q->n_images) return ny_strf(&m->arena, "program for %s, which has no kernels", q->target);
  const ny_mod_image *o = &q->image[image[0]];
  return ny_strf(&m->arena, "%s %s of the program for %s, on %s", o->kind == NY_MI_CUBIN ? "cubin" : "PTX", o->arch,
                 q->target, device->name);
}

nyb_status ny_module_select(nyb_module *m, const ny_device_needs *device, ny_diag *d) {
  const ny_mod *chosen = NULL;
  uint32_t *image = NULL;
  int most = 0;
  for (uint32_t i = 0; i < m->n_programs; i++) {
    const ny_mod *q = &m->program[i];
    uint32_t *best = NY_NEW_ARRAY(&m->arena, uint32_t, q->n_units + 1);
    int fit = device->sm ? choose_images(q, device, best) : cpu_fit(q);
    if (fit <= most) continue;
    most = fit;
    chosen = q;
    image = best;
  }
  if (!chosen) return nothing_fits(m, device, d);
  m->mod = *chosen;
  m->image = image;
  m->why = reason(m, device, image);
  return NYB_OK;
}
