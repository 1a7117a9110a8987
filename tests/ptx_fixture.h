/* The kernels of module_fixture.h as PTX, one grid point a thread, and a few with a fault. */
#ifndef NY_PTX_FIXTURE_H
#define NY_PTX_FIXTURE_H

/* The number of the thread in %rd0 (i64). */
#define PTX_INDEX                                                                                                      \
  "  mov.u32 %r1, %ctaid.x;\n  mov.u32 %r2, %ntid.x;\n  mov.u32 %r3, %tid.x;\n  mad.lo.s32 %r4, %r1, %r2, %r3;\n"      \
  "  cvt.s64.s32 %rd0, %r4;\n"
#define PTX_REGISTERS                                                                                                  \
  "  .reg .pred %p<3>;\n  .reg .b16 %rs<4>;\n  .reg .b32 %r<8>;\n  .reg .f32 %f<4>;\n  .reg .b64 %rd<16>;\n"
#define PTX_HEADER ".version 8.0\n.target sm_80\n.address_size 64\n"

/* add(a, b, c, n): c[i] = a[i] + b[i] */
#define PTX_ADD                                                                                                        \
  ".visible .entry add(.param .u64 add_a, .param .u64 add_b, .param .u64 add_c, .param .u64 add_n)\n{\n" PTX_REGISTERS \
  "  ld.param.u64 %rd1, [add_a];\n  ld.param.u64 %rd2, [add_b];\n  ld.param.u64 %rd3, [add_c];\n"                      \
  "  ld.param.u64 %rd4, [add_n];\n" PTX_INDEX "  setp.ge.s64 %p1, %rd0, %rd4;\n  @%p1 bra $L_add;\n"                   \
  "  cvta.to.global.u64 %rd5, %rd1;\n  cvta.to.global.u64 %rd6, %rd2;\n  cvta.to.global.u64 %rd7, %rd3;\n"             \
  "  shl.b64 %rd8, %rd0, 2;\n  add.s64 %rd9, %rd5, %rd8;\n  add.s64 %rd10, %rd6, %rd8;\n"                              \
  "  add.s64 %rd11, %rd7, %rd8;\n  ld.global.f32 %f1, [%rd9];\n  ld.global.f32 %f2, [%rd10];\n"                        \
  "  add.f32 %f3, %f1, %f2;\n  st.global.f32 [%rd11], %f3;\n$L_add:\n  ret;\n}\n"

/* count(out, base, n): out[i] = base + i */
#define PTX_COUNT                                                                                                      \
  ".visible .entry count(.param .u64 count_o, .param .u64 count_d, .param .u64 count_n)\n{\n" PTX_REGISTERS            \
  "  ld.param.u64 %rd1, [count_o];\n  ld.param.u64 %rd2, [count_d];\n  ld.param.u64 %rd3, [count_n];\n" PTX_INDEX      \
  "  setp.ge.s64 %p1, %rd0, %rd3;\n  @%p1 bra $L_count;\n  cvta.to.global.u64 %rd4, %rd1;\n"                           \
  "  shl.b64 %rd5, %rd0, 3;\n  add.s64 %rd6, %rd4, %rd5;\n  add.s64 %rd7, %rd0, %rd2;\n"                               \
  "  st.global.u64 [%rd6], %rd7;\n$L_count:\n  ret;\n}\n"

/* less(a, out, limit, n): out[i] = a[i] < limit */
#define PTX_LESS                                                                                                       \
  ".visible .entry less(.param .u64 less_a, .param .u64 less_o, .param .u64 less_d, .param .u64 "                      \
  "less_n)\n{\n" PTX_REGISTERS                                                                                         \
  "  ld.param.u64 %rd1, [less_a];\n  ld.param.u64 %rd2, [less_o];\n  ld.param.u64 %rd3, [less_d];\n"                   \
  "  ld.param.u64 %rd4, [less_n];\n" PTX_INDEX "  setp.ge.s64 %p1, %rd0, %rd4;\n  @%p1 bra $L_less;\n"                 \
  "  cvta.to.global.u64 %rd5, %rd1;\n  cvta.to.global.u64 %rd6, %rd2;\n  shl.b64 %rd7, %rd0, 3;\n"                     \
  "  add.s64 %rd8, %rd5, %rd7;\n  ld.global.u64 %rd9, [%rd8];\n  setp.lt.s64 %p2, %rd9, %rd3;\n"                       \
  "  selp.u32 %r5, 1, 0, %p2;\n  add.s64 %rd10, %rd6, %rd0;\n  st.global.u8 [%rd10], %r5;\n$L_less:\n  ret;\n}\n"

/* over(a, b, c, n): add without looking at n, so it runs past the end */
#define PTX_OVER                                                                                                       \
  ".visible .entry over(.param .u64 over_a, .param .u64 over_b, .param .u64 over_c, .param .u64 "                      \
  "over_n)\n{\n" PTX_REGISTERS "  ld.param.u64 %rd1, [over_a];\n  ld.param.u64 %rd3, [over_c];\n" PTX_INDEX            \
  "  cvta.to.global.u64 %rd5, %rd1;\n  cvta.to.global.u64 %rd7, %rd3;\n  shl.b64 %rd8, %rd0, 2;\n"                     \
  "  add.s64 %rd9, %rd5, %rd8;\n  add.s64 %rd11, %rd7, %rd8;\n  ld.global.f32 %f1, [%rd9];\n"                          \
  "  st.global.f32 [%rd11], %f1;\n  ret;\n}\n"

/* share(out): out[tid] = the neighbour's tid, through dynamic shared memory */
#define PTX_SHARE                                                                                                      \
  ".extern .shared .align 16 .b8 room[];\n.visible .entry share(.param .u64 share_o)\n{\n" PTX_REGISTERS               \
  "  ld.param.u64 %rd1, [share_o];\n  cvta.to.global.u64 %rd2, %rd1;\n  mov.u32 %r1, %tid.x;\n"                        \
  "  mov.u32 %r2, %ntid.x;\n  shl.b32 %r3, %r1, 2;\n  mov.u32 %r4, room;\n  add.s32 %r5, %r4, %r3;\n"                  \
  "  st.shared.u32 [%r5], %r1;\n  bar.sync 0;\n  xor.b32 %r6, %r1, 1;\n  shl.b32 %r6, %r6, 2;\n"                       \
  "  add.s32 %r6, %r4, %r6;\n  ld.shared.u32 %r7, [%r6];\n  cvt.u64.u32 %rd3, %r3;\n  add.s64 %rd4, %rd2, %rd3;\n"     \
  "  st.global.u32 [%rd4], %r7;\n  ret;\n}\n"

#define PTX_ALL PTX_HEADER PTX_ADD PTX_COUNT PTX_LESS PTX_OVER PTX_SHARE
#endif
