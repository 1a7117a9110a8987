/* Writing a module file: segments are streamed first, each named by its digest and stored once; the description comes
 * last. */
#ifndef NY_MODULE_FILE_H
#define NY_MODULE_FILE_H
#include "module.h"

typedef struct ny_module_file {
  ny_new_file nf;
  uint64_t at; /* bytes written */
  ny_arena a;
  ny_mod_segment *segment; /* weights */
  uint32_t n_segments, cap_segments;
  uint8_t *small; /* constants too small for pages of their own share a segment, the last */
  uint64_t n_small, cap_small;
  struct ny_small_constant {
    uint64_t offset, bytes, hash;
  } * entry;
  uint32_t n_entries, cap_entries;
  ny_diag *d;
} ny_module_file;
typedef struct ny_weight_place {
  uint32_t segment;
  uint64_t offset; /* in the segment */
} ny_weight_place;

nyb_status ny_module_file_begin(const char *path, ny_module_file *out, ny_diag *d);
/* Equal bytes get the same place. Segment UINT32_MAX: among the small constants, whose segment is known at the end. */
nyb_status ny_module_file_weight(ny_module_file *f, const void *data, uint64_t bytes, ny_weight_place *out);
/* Ends the weights: after this f->segment is complete and small constants lie in segment *small (UINT32_MAX: none). */
nyb_status ny_module_file_weights_end(ny_module_file *f, uint32_t *small);
nyb_status ny_module_file_segment(ny_module_file *f, const void *data, uint64_t bytes,
                                  ny_mod_segment *out); /* code, graph */
/* Writes the description of n programs (weight segments are f's) and the header, and commits; or, in any case, leaves
 * nothing behind. */
nyb_status ny_module_file_end(ny_module_file *f, ny_mod *program, uint32_t n);
void ny_module_file_abort(ny_module_file *f);

/* module_write.cc: rows as a flatbuffer, malloc'ed; NULL when memory is short. n_shared: the first expressions of every
 * program, which are the same. */
uint8_t *ny_module_pack(const ny_mod *program, uint32_t n, uint32_t n_shared, uint64_t *bytes);
#endif
