/* Trust is a file in this user's cache, named after the digest of a module's description. The description holds the
   digest of the code, so a token vouches for the code and for how it is called: known code with other buffer sizes
   would be as dangerous as unknown code. */
#include "module.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *token_path(ny_arena *a, const nyb_context *cx, const uint8_t digest[32]) {
  char hex[65];
  ny_sha256_hex(digest, hex);
  return ny_strf(a, "%s/trust/%s", cx->cache_dir, hex);
}

bool ny_trusted(const nyb_context *cx, const uint8_t digest[32]) {
  if (!cx->cache_dir) return false;
  ny_arena a = {0};
  struct stat st;
  bool ours = ny_private_dir(cx->cache_dir) && ny_private_dir(ny_strf(&a, "%s/trust", cx->cache_dir)) &&
              !lstat(token_path(&a, cx, digest), &st) && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
              !(st.st_mode & 022);
  ny_arena_free(&a);
  return ours;
}

static nyb_status write_token(const nyb_context *cx, ny_arena *a, const nyb_module *m, ny_diag *d) {
  const char *dir = ny_strf(a, "%s/trust", cx->cache_dir);
  if (!ny_private_dir(cx->cache_dir) || !ny_private_dir(dir))
    return ny_fail(d, NYB_E_IO, NULL, "%s is not a folder that only this user can write to", dir);
  ny_new_file nf;
  NY_TRY(ny_file_begin(token_path(a, cx, m->fb_digest), &nf, d));
  fprintf(nf.f, "%s %s\n", m->mod.target, m->mod.name);
  fchmod(fileno(nf.f), 0600);
  return ny_file_commit(&nf, d);
}

nyb_status ny_trust_file(nyb_context *cx, const char *path) {
  ny_diag d = {0};
  ny_arena a = {0};
  nyb_module *m = NULL;
  nyb_status s =
      cx->cache_dir ? NYB_OK : ny_fail(&d, NYB_E_IO, NULL, "%s: there is no cache folder to note the trust in", path);
  if (!s) s = ny_module_open(cx, path, &m, &d);
  if (!s) s = write_token(cx, &a, m, &d);
  nyb_module_close(m);
  ny_arena_free(&a);
  return s ? ny_context_report(cx, &d) : NYB_OK;
}
