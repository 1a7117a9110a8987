/* Cells of the shadow: pages that begin with cells as large as their first access and are split when smaller ones come.
   A kernel that moves 16 bytes at a time pays for 16 bytes once, whatever else is in its text. */
#include "launch.h"
#include <string.h>

uint32_t ny_cells_grain(uint32_t mask, const uint64_t addr[NY_LANES], uint64_t bytes) {
  uint64_t any = 16 | bytes;
  NY_EACH_ACTIVE(l) any |= addr[l];
  return (uint32_t)__builtin_ctzll(any);
}

void ny_cells_split(const ny_cells *from, const ny_cells *to, size_t cell_bytes) {
  uint8_t *put = to->at;
  for (uint32_t c = 0; c < (uint32_t)NY_PAGE >> from->grain; c++)
    for (uint32_t k = 0; k < 1u << (from->grain - to->grain); k++, put += cell_bytes)
      memcpy(put, from->at + c * cell_bytes, cell_bytes);
}
