/* Cells of the shadow: pages that begin with cells as large as their first access and are split when smaller ones come.
   A kernel that moves 16 bytes at a time pays for 16 bytes once, whatever else is in its text; lanes whose pieces lie
   side by side are looked up as one. */
#include "launch.h"
#include <string.h>

void ny_cells_split(const ny_cells *from, const ny_cells *to, size_t cell_bytes) {
  uint8_t *put = to->at;
  for (uint32_t c = 0; c < (uint32_t)NY_PAGE >> from->grain; c++)
    for (uint32_t k = 0; k < 1u << (from->grain - to->grain); k++, put += cell_bytes)
      memcpy(put, from->at + c * cell_bytes, cell_bytes);
}

/* Pieces of a strip are whole cells of one page each: powers of two at multiples of themselves. */
void ny_touch_strips(ny_touch *t) {
  uint32_t mask = t->mask, bytes = t->bytes;
  uint64_t any = 16 | bytes;
  bool joins = bytes <= 32 && !(bytes & (bytes - 1));
  ny_strip *s = NULL;
  t->n_strips = 0;
  NY_EACH_ACTIVE(l) {
    uint64_t a = t->addr[l];
    any |= a;
    if (s && joins && l == s->lane + s->n && !(s->addr & (bytes - 1))) {
      if (!s->same && a == s->addr + s->bytes) {
        s->n++;
        s->bytes += bytes;
        continue;
      }
      if (a == s->addr && (s->same || s->n == 1)) {
        s->n++;
        s->same = true;
        continue;
      }
    }
    s = &t->strip[t->n_strips++];
    *s = (ny_strip){a, bytes, bytes, l, 1, false};
  }
  t->grain = (uint32_t)__builtin_ctzll(any);
}
