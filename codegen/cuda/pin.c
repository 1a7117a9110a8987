/* A kernel's source by hand in place of the generated one. It runs where the generated one would, so it must take the
   same arguments: the types of both parameter lists are compared, names and qualifiers are the author's. */
#include "cuda_code.h"

#include <ctype.h>
#include <string.h>

static bool of_name(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* The list of the entry point `symbol`: what lies between its parentheses. */
static const char *parameters(const char *text, const char *symbol, size_t *n) {
  size_t len = strlen(symbol);
  for (const char *s = strstr(text, "__global__"); s; s = strstr(s + 1, "__global__")) {
    const char *end = s + strcspn(s, ";{");
    for (const char *p = strstr(s, symbol); p && p < end; p = strstr(p + 1, symbol)) {
      const char *open = p + len + strspn(p + len, " \t\n");
      const char *close = *open == '(' ? strchr(open, ')') : NULL;
      if (of_name(p[-1]) || !close) continue;
      *n = (size_t)(close - open - 1);
      return open + 1;
    }
  }
  return NULL;
}

/* `const float *__restrict__ x` -> "float *": qualifiers go, and the name, which is the last of several words. */
static void add_type(ny_text *t, const char *s, size_t n) {
  static const char *const qualifiers[] = {"const", "volatile", "restrict", "__restrict__", "__restrict"};
  static const char *const spelled[][2] = {{"i64", "long long"}, {"u64", "unsigned long long"}, {"i32", "int"}, {"u32", "unsigned int"},
                                           {"i16", "short"}, {"u16", "unsigned short"}, {"i8", "signed char"}, {"u8", "unsigned char"}};
  const char *word[16];
  size_t len[16], words = 0;
  for (size_t i = 0; i < n;) {
    size_t k = 0;
    while (i + k < n && of_name(s[i + k])) k++;
    if (!k) k = 1;
    bool skip = isspace((unsigned char)s[i]);
    for (size_t q = 0; q < NY_COUNT(qualifiers); q++) skip |= k == strlen(qualifiers[q]) && !strncmp(s + i, qualifiers[q], k);
    if (!skip && words < NY_COUNT(word)) word[words] = s + i, len[words++] = k;
    i += k;
  }
  if (words > 1 && of_name(*word[words - 1])) words--;
  for (size_t w = 0; w < words; w++) {
    const char *as = NULL;
    for (size_t q = 0; q < NY_COUNT(spelled); q++)
      if (len[w] == strlen(spelled[q][0]) && !strncmp(word[w], spelled[q][0], len[w])) as = spelled[q][1];
    if (w) ny_text_add(t, " ");
    as ? ny_text_add(t, as) : ny_text_addn(t, word[w], len[w]);
  }
}

static bool types(const char *text, const char *symbol, ny_text *t) {
  size_t n = 0;
  const char *s = parameters(text, symbol, &n);
  for (size_t i = 0; s && i <= n;) {
    size_t k = 0;
    while (i + k < n && s[i + k] != ',') k++;
    if (i) ny_text_add(t, ", ");
    add_type(t, s + i, k);
    i += k + 1;
  }
  return s != NULL;
}

nyb_status ny_cuda_pin_check(const ny_codegen_pin *pin, const char *generated, const char *symbol, ny_diag *d) {
  ny_text want = {0}, have = {0};
  nyb_status s = NYB_OK;
  types(generated, symbol, &want);
  if (!types(pin->source, symbol, &have))
    s = ny_fail(d, NYB_E_ARGUMENT, NULL, "the source given for kernel %s has no `extern \"C\" __global__ void %s(`", pin->kernel, symbol);
  else if (!want.s || !have.s || strcmp(want.s, have.s))
    s = ny_fail(d, NYB_E_ARGUMENT, NULL, "the source given for kernel %s takes (%.400s), the model calls it with (%.400s)", pin->kernel, have.s ? have.s : "",
                want.s ? want.s : "");
  ny_text_free(&want);
  ny_text_free(&have);
  return s;
}
