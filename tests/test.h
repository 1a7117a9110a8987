/* What every test program shares: counted checks that go on after a failure, and the summary line. */
#ifndef NY_TEST_H
#define NY_TEST_H
#include <stdio.h>

static int n_passed, n_failed;

#define CHECK(cond, ...)                                                                                               \
  do {                                                                                                                 \
    if (cond) {                                                                                                        \
      n_passed++;                                                                                                      \
    } else if (n_failed++ < 20) {                                                                                      \
      fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond);                                                       \
      fprintf(stderr, __VA_ARGS__);                                                                                    \
      fprintf(stderr, "\n");                                                                                           \
    }                                                                                                                  \
  } while (0)

static int test_end(const char *name) {
  printf("%s: %d passed, %d failed\n", name, n_passed, n_failed);
  return n_failed != 0;
}
#endif
