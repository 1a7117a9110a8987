/* What this machine is: CPUs this process may use, memory, caches, name. Where the kernel does not say, a small usual
   size is assumed, because the numbers only steer schedules. */
#include "base.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

double ny_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int cpus_allowed(void) {
  int n = 0;
  for (size_t cpus = 1024; cpus <= 1 << 16; cpus *= 2) { /* a mask too small for the kernel's is refused */
    cpu_set_t *set = CPU_ALLOC(cpus);
    if (!set) break;
    if (!sched_getaffinity(0, CPU_ALLOC_SIZE(cpus), set)) n = CPU_COUNT_S(CPU_ALLOC_SIZE(cpus), set);
    CPU_FREE(set);
    if (n) break;
  }
  return n > 0 ? n : 1;
}

/* A container may be given fewer CPUs by quota than its mask shows; more threads than that are stopped in the middle of
   their work. cgroup version 2 has "quota period" in one file, version 1 has two files; -1 or "max" is no quota. */
static int cpus_by_quota(void) {
  long long quota = -1, period = 0;
  FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
  if (f) {
    if (fscanf(f, "%lld %lld", &quota, &period) != 2) quota = -1;
    fclose(f);
  } else {
    FILE *q = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re"),
         *p = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
    if (!q || !p || fscanf(q, "%lld", &quota) != 1 || fscanf(p, "%lld", &period) != 1) quota = -1;
    if (q) fclose(q);
    if (p) fclose(p);
  }
  if (quota <= 0 || period <= 0 || quota / period >= 1 << 16) return 1 << 16;
  return (int)((quota + period - 1) / period);
}

static uint64_t cache_bytes(int sysconf_name, const char *index, uint64_t usual) {
  long n = sysconf(sysconf_name);
  if (n > 0) return (uint64_t)n;
  char path[96], text[32];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%s/size", index);
  FILE *f = fopen(path, "re");
  uint64_t bytes = 0;
  if (f && fgets(text, sizeof text, f)) {
    char *unit;
    bytes = strtoull(text, &unit, 10) << (*unit == 'K' ? 10 : *unit == 'M' ? 20 : 0);
  }
  if (f) fclose(f);
  return bytes ? bytes : usual;
}

static void cpu_name(char *out, size_t room) {
  char line[256];
  out[0] = 0;
  FILE *f = fopen("/proc/cpuinfo", "re");
  while (f && fgets(line, sizeof line, f)) {
    char *value = strchr(line, ':');
    if (strncmp(line, "model name", 10) || !value) continue;
    value += strspn(value, ": \t");
    value[strcspn(value, "\n")] = 0;
    snprintf(out, room, "%s", value);
    break;
  }
  if (f) fclose(f);
  struct utsname u;
  if (!out[0] && !uname(&u)) snprintf(out, room, "%.60s", u.machine);
}

void ny_host_read(ny_host_facts *out) {
  int allowed = cpus_allowed(), quota = cpus_by_quota();
  *out = (ny_host_facts){.n_cpu = allowed < quota ? allowed : quota};
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  out->mem_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
  out->l1d = cache_bytes(_SC_LEVEL1_DCACHE_SIZE, "0", 32 << 10);
  out->l2 = cache_bytes(_SC_LEVEL2_CACHE_SIZE, "2", 512 << 10);
  out->l3 = cache_bytes(_SC_LEVEL3_CACHE_SIZE, "3", 0);
  cpu_name(out->cpu_name, sizeof out->cpu_name);
}
