/* Errors, progress and numbers for people. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool drawn; /* a progress line stands on the terminal */
static double last_drawn;

static void progress(void *user, const char *stage, double done) {
  (void)user;
  double now = ny_now();
  if (now - last_drawn < 0.1) return;
  last_drawn = now;
  drawn = true;
  fprintf(stderr, "\r\033[K%3d%% %s", (int)(done * 100), stage);
  fflush(stderr);
}

void cli_progress_end(void) {
  if (drawn) fputs("\r\033[K", stderr);
  drawn = false;
}

static void warning(void *user, const char *text) {
  (void)user;
  cli_progress_end();
  fprintf(stderr, "nybble: warning: %s\n", text);
}

nyb_context *cli_open(const char *cache_dir) {
  nyb_options o = {.size = sizeof o, .cache_dir = cache_dir, .warning = warning};
  if (isatty(STDERR_FILENO)) o.progress = progress;
  last_drawn = ny_now() + 0.5; /* short work draws nothing */
  nyb_context *cx;
  nyb_status s = nyb_open(&o, &cx);
  if (s) {
    fprintf(stderr, "nybble: %s\n", nyb_status_text(s));
    exit(CLI_FAILED);
  }
  return cx;
}

int cli_error(nyb_context *cx, nyb_status s) {
  const nyb_error *e = nyb_last_error(cx);
  return cli_fail("%s", e && *e->text ? e->text : nyb_status_text(s));
}

int cli_diag(const ny_diag *d) {
  ny_text t = {0};
  ny_diag_print(d, &t);
  cli_fail("%s", t.s);
  ny_text_free(&t);
  return CLI_FAILED;
}

int cli_fail(const char *fmt, ...) {
  cli_progress_end();
  va_list ap;
  va_start(ap, fmt);
  fputs("nybble: ", stderr);
  vfprintf(stderr, fmt, ap);
  fputc('\n', stderr);
  va_end(ap);
  return CLI_FAILED;
}

const char *cli_bytes(double n, char buf[32]) {
  static const char *const unit[] = {"B", "KB", "MB", "GB", "TB"};
  int u = 0;
  while (n >= 1000 && u < 4) n /= 1000, u++;
  snprintf(buf, 32, u ? "%.1f %s" : "%.0f %s", n, unit[u]);
  return buf;
}
