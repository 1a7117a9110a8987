/* What every test program shares: counted checks that go on after a failure, and the summary line. */
#ifndef NY_TEST_H
#define NY_TEST_H
#include <stdio.h>

static int n_passed, n_failed;

/* `first`: whether a condition that holds is one more passed test. */
#define TEST_(cond, text, first, ...)                                                                                  \
  do {                                                                                                                 \
    if (cond) {                                                                                                        \
      n_passed += (first);                                                                                             \
    } else if (n_failed++ < 20) {                                                                                      \
      fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, text);                                                        \
      fprintf(stderr, __VA_ARGS__);                                                                                    \
      fprintf(stderr, "\n");                                                                                           \
    }                                                                                                                  \
  } while (0)
#define CHECK(cond, ...) TEST_(cond, #cond, 1, __VA_ARGS__)
/* A statement about each element, code or byte of many: one test, however many there are. */
#define CHECK_EACH(cond, ...)                                                                                                \
  do {                                                                                                                 \
    static int met_;                                                                                                   \
    TEST_(cond, #cond, !met_++, __VA_ARGS__);                                                                          \
  } while (0)

static int test_end(const char *name) {
  printf("%s: %d passed, %d failed\n", name, n_passed, n_failed);
  return n_failed != 0;
}
#endif
