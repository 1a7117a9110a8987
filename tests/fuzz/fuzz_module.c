/* Any bytes as a .nyb: loaded or refused. Its code is never run here. */
#include "base.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  int fd = memfd_create("fuzz", 0);
  if (fd < 0 || write(fd, data, n) != (ssize_t)n) abort();
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  nyb_options options = {.size = sizeof options, .cache_dir = ""};
  nyb_load_options trust = {.size = sizeof trust, .trust = 1}; /* so that everything behind the trust question is reached */
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
  close(fd);
  return 0;
}
