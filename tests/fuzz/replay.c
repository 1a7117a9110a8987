/* Runs a fuzz target over files, for compilers without libFuzzer and for kept crashes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    FILE *f = fopen(argv[i], "rb");
    if (!f) return fprintf(stderr, "%s: cannot open it\n", argv[i]), 1;
    uint8_t *data = malloc(1 << 24);
    size_t n = data ? fread(data, 1, 1 << 24, f) : 0;
    fclose(f);
    LLVMFuzzerTestOneInput(data, n);
    free(data);
  }
  return printf("fuzz replay: %d passed, 0 failed\n", argc - 1), 0;
}
