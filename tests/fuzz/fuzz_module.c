/* Any bytes as a .nyb: loaded or refused. The header is made to fit what follows it, digest included, because a fuzzer
   never guesses a digest and everything of interest lies behind it. Code is never run here. */
#include "module.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void fit_header(uint8_t *file, uint64_t n) {
  uint64_t at, bytes;
  if (n < 64) return;
  memcpy(file, "NYBMOD01", 8);
  memcpy(&at, file + 8, 8);
  at = at < n ? at / 8 * 8 : 64;
  if (at < 64) at = 64;
  if (at > n) at = n / 8 * 8;
  bytes = n - at;
  memcpy(file + 8, &at, 8);
  memcpy(file + 16, &bytes, 8);
  memcpy(file + 24, &n, 8);
  ny_sha256 h;
  ny_sha256_init(&h);
  ny_sha256_add(&h, file + at, (size_t)bytes);
  ny_sha256_end(&h, file + 32);
}

static void load(const char *path) {
  nyb_options options = {.size = sizeof options, .cache_dir = ""};
  nyb_load_options trust = {.size = sizeof trust,
                            .trust = 1}; /* so that everything behind the trust question is reached */
  nyb_context *cx;
  nyb_module *m = NULL;
  nyb_session *session = NULL;
  if (nyb_open(&options, &cx)) abort();
  nyb_status s = nyb_load(cx, path, &trust, &m);
  if (s && !nyb_last_error(cx)) abort();
  if (!s) {
    nyb_session_options one = {.size = sizeof one, .threads = 1};
    if (!nyb_session_open(m, &one, &session)) nyb_session_close(session);
    nyb_module_close(m);
  }
  nyb_close(cx);
}

/* What devices would choose of it, and the text and machine code they would get. */
static void choose(const char *path) {
  static const uint32_t capability[] = {80, 90, 121};
  nyb_options options = {.size = sizeof options, .cache_dir = ""};
  nyb_context *cx;
  nyb_module *m = NULL;
  ny_diag d = {0};
  if (nyb_open(&options, &cx)) abort();
  if (!ny_module_open(cx, path, &m, &d)) {
    for (int i = 0; i < 6; i++) {
      ny_device_needs needs = {
          .sm = capability[i / 2], .cubin = i % 2, .ptx = true, .shared = 99 << 10, .name = "a device"};
      ny_diag_clear(&d);
      if (ny_module_select(m, &needs, &d)) continue;
      for (uint32_t u = 0; u < m->mod.n_units; u++) {
        const void *code;
        if (m->image[u] >= m->mod.n_images || m->mod.image[m->image[u]].unit != u) abort();
        if (ny_module_image(m, &m->mod.image[m->image[u]], &code, &d) && !d.message[0]) abort();
      }
    }
    nyb_module_close(m);
  } else if (!d.message[0])
    abort();
  nyb_close(cx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  int fd = memfd_create("fuzz", 0);
  uint8_t *copy = malloc(n + 1);
  if (fd < 0 || !copy) abort();
  if (n) memcpy(copy, data, n);
  fit_header(copy, n);
  if (write(fd, copy, n) != (ssize_t)n) abort();
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  load(path);
  choose(path);
  free(copy);
  close(fd);
  return 0;
}
