/* A small module built by hand: three kernels in assembly, symbolic sizes, a weight, a branch and a loop. What tests of
   the runtime load, run and damage. Include once. */
#ifndef NY_MODULE_FIXTURE_H
#define NY_MODULE_FIXTURE_H
#include "module.h"
#include "module_file.h"
#include <string.h>

/* add: c[i] = a[i] + b[i] (f32). count: i64 out[i] = dim[0] + i, by way of the scratch memory. less: bool out[i] = a[i]
 * < dim[0] (i64). */
extern const uint8_t fx_code[], fx_add[], fx_count[], fx_less[], fx_code_end[];
#if defined(__x86_64__)
__asm__(".pushsection .rodata\n.balign 16\n.globl fx_code, fx_add, fx_count, fx_less, fx_code_end\nfx_code:\nfx_add:\n"
        "mov (%rdi),%rax\nmov (%rax),%rcx\nmov 8(%rax),%r8\nmov 16(%rax),%r9\n"
        "1: cmp %rdx,%rsi\njge 2f\nmovss (%rcx,%rsi,4),%xmm0\naddss (%r8,%rsi,4),%xmm0\nmovss %xmm0,(%r9,%rsi,4)\ninc "
        "%rsi\njmp 1b\n2: ret\n"
        ".balign 16\nfx_count:\n"
        "mov (%rdi),%rax\nmov (%rax),%rcx\nmov 8(%rdi),%r8\nmov (%r8),%r8\nmov 16(%rdi),%r9\n"
        "1: cmp %rdx,%rsi\njge 2f\nlea (%r8,%rsi),%r10\nmov %r10,(%r9)\nmov (%r9),%r11\nmov %r11,(%rcx,%rsi,8)\ninc "
        "%rsi\njmp 1b\n2: ret\n"
        ".balign 16\nfx_less:\n"
        "mov (%rdi),%rax\nmov (%rax),%rcx\nmov 8(%rax),%r9\nmov 8(%rdi),%r8\nmov (%r8),%r8\n"
        "1: cmp %rdx,%rsi\njge 2f\nxor %r10d,%r10d\ncmp %r8,(%rcx,%rsi,8)\nsetl %r10b\nmov %r10b,(%r9,%rsi)\ninc "
        "%rsi\njmp 1b\n2: ret\n"
        "fx_code_end:\n.popsection\n");
#elif defined(__aarch64__)
__asm__(
    ".pushsection .rodata\n.balign 16\n.globl fx_code, fx_add, fx_count, fx_less, fx_code_end\nfx_code:\nfx_add:\n"
    "ldr x3,[x0]\nldp x4,x5,[x3]\nldr x6,[x3,#16]\n"
    "1: cmp x1,x2\nb.ge 2f\nldr s0,[x4,x1,lsl #2]\nldr s1,[x5,x1,lsl #2]\nfadd s0,s0,s1\nstr s0,[x6,x1,lsl #2]\nadd "
    "x1,x1,#1\nb 1b\n2: ret\n"
    ".balign 16\nfx_count:\n"
    "ldr x3,[x0]\nldr x4,[x3]\nldr x5,[x0,#8]\nldr x5,[x5]\nldr x6,[x0,#16]\n"
    "1: cmp x1,x2\nb.ge 2f\nadd x7,x5,x1\nstr x7,[x6]\nldr x8,[x6]\nstr x8,[x4,x1,lsl #3]\nadd x1,x1,#1\nb 1b\n2: ret\n"
    ".balign 16\nfx_less:\n"
    "ldr x3,[x0]\nldp x4,x6,[x3]\nldr x5,[x0,#8]\nldr x5,[x5]\n"
    "1: cmp x1,x2\nb.ge 2f\nldr x7,[x4,x1,lsl #3]\ncmp x7,x5\ncset w8,lt\nstrb w8,[x6,x1]\nadd x1,x1,#1\nb 1b\n2: ret\n"
    "fx_code_end:\n.popsection\n");
#endif

enum { FX_WEIGHTS = 4096 }; /* floats: too large to be packed with the small constants */
enum { FX_A, FX_B, FX_FLAG, FX_N_IN };
enum { FX_SUM, FX_TWICE, FX_COUNT, FX_CHOSEN, FX_WEIGHT, FX_N_OUT };

typedef struct fx_module {
  ny_mod m;
  ny_mod_expr expr[64];
  ny_mod_value in[FX_N_IN], out[FX_N_OUT];
  ny_mod_buffer buffer[32];
  ny_mod_kernel kernel[3];
  ny_mod_command command[16];
  ny_mod_require require[2];
  uint32_t list[16][4];
  const char *feature[1], *symbol[1];
} fx_module;

static uint32_t fx_expr(fx_module *f, ny_mod_op op, int32_t a, int32_t b, int64_t value) {
  f->expr[f->m.n_exprs] = (ny_mod_expr){(uint8_t)op, a, b, value};
  return f->m.n_exprs++;
}
static uint32_t fx_number(fx_module *f, int64_t v) { return fx_expr(f, NY_MX_CONST, -1, -1, v); }

static uint32_t fx_buffer(fx_module *f, ny_mod_place place, uint32_t index, uint32_t offset, uint32_t bytes) {
  f->buffer[f->m.n_buffers] = (ny_mod_buffer){(uint8_t)place, index, offset, bytes};
  return f->m.n_buffers++;
}

static ny_mod_command *fx_command(fx_module *f, ny_mod_command_kind kind, uint32_t n, const uint32_t *buffers) {
  uint32_t i = f->m.n_commands++;
  for (uint32_t k = 0; k < n; k++) f->list[i][k] = buffers[k];
  f->command[i] = (ny_mod_command){.kind = (uint8_t)kind, .n_buffers = n, .buffer = f->list[i]};
  return &f->command[i];
}
#define FX_BUFFERS(...)                                                                                                \
  (sizeof((uint32_t[]){__VA_ARGS__}) / 4), (const uint32_t[]) { __VA_ARGS__ }

static void fx_launch(fx_module *f, uint32_t kernel, uint32_t extent, uint32_t grain, uint32_t n,
                      const uint32_t *buffers, const uint32_t *dim) {
  ny_mod_command *q = fx_command(f, NY_MC_LAUNCH, n, buffers);
  q->kernel = kernel;
  q->extent = extent;
  q->grain = grain;
  q->dim = dim;
  q->n_dims = dim ? 1 : 0;
}

static void fx_copy(fx_module *f, uint32_t from, uint32_t to, uint32_t bytes, bool stacked) {
  ny_mod_command *q = fx_command(f, NY_MC_COPY, FX_BUFFERS(from, to));
  q->bytes = bytes;
  q->stacked = stacked;
}

static ny_mod_value fx_value(const char *name, ny_fmt fmt, uint32_t rank, uint32_t dim, const char *text,
                             uint32_t buffer) {
  return (ny_mod_value){.name = name, .fmt = fmt, .rank = rank, .dim = {dim}, .text = {text}, .buffer = buffer};
}

/* Inputs a, b: f32[?N], flag: bool[]. Outputs sum = a + b; twice = sum sum (stacked by a loop that ends when its
   condition fails after two rounds); count[i] = 3 + i; chosen = flag ? a : b; weight = w + w. */
/* Of an element of each buffer of the kernels: what a program for a device says too. */
__attribute__((unused)) static const uint8_t fx_bits[3][3] = {{32, 32, 32}, {64}, {64, 8}};
static void fx_build(fx_module *f) {
  static uint32_t three, two;
  memset(f, 0, sizeof *f);
  f->symbol[0] = "N";
  uint32_t n = fx_expr(f, NY_MX_SYMBOL, -1, -1, 0), one = fx_number(f, 1), four = fx_number(f, 4),
           eight = fx_number(f, 8);
  uint32_t zero = fx_number(f, 0), at64 = fx_number(f, 64), at128 = fx_number(f, 128), grain = fx_number(f, 16);
  uint32_t bytes = fx_expr(f, NY_MX_MUL, (int32_t)n, (int32_t)four, 0),
           long_bytes = fx_expr(f, NY_MX_MUL, (int32_t)n, (int32_t)eight, 0);
  uint32_t twice = fx_expr(f, NY_MX_ADD, (int32_t)n, (int32_t)n, 0),
           twice_bytes = fx_expr(f, NY_MX_MUL, (int32_t)twice, (int32_t)four, 0);
  uint32_t room = fx_expr(f, NY_MX_ALIGN, (int32_t)bytes, -1, 64), weights = fx_number(f, FX_WEIGHTS),
           weight_bytes = fx_number(f, FX_WEIGHTS * 4);
  three = fx_number(f, 3);
  two = fx_number(f, 1);
  uint32_t trips = fx_number(f, 2);
  f->m.arena = fx_expr(f, NY_MX_ADD, (int32_t)room, (int32_t)at128, 0);
  uint32_t a = fx_buffer(f, NY_MP_INPUT, FX_A, 0, bytes), b = fx_buffer(f, NY_MP_INPUT, FX_B, 0, bytes),
           flag = fx_buffer(f, NY_MP_INPUT, FX_FLAG, 0, one);
  uint32_t o_sum = fx_buffer(f, NY_MP_OUTPUT, FX_SUM, 0, bytes),
           o_twice = fx_buffer(f, NY_MP_OUTPUT, FX_TWICE, 0, twice_bytes);
  uint32_t o_count = fx_buffer(f, NY_MP_OUTPUT, FX_COUNT, 0, long_bytes),
           o_chosen = fx_buffer(f, NY_MP_OUTPUT, FX_CHOSEN, 0, bytes);
  uint32_t o_weight = fx_buffer(f, NY_MP_OUTPUT, FX_WEIGHT, 0, weight_bytes),
           w = fx_buffer(f, NY_MP_WEIGHT, 0, zero, weight_bytes);
  uint32_t counter = fx_buffer(f, NY_MP_ARENA, 0, zero, eight), cond = fx_buffer(f, NY_MP_ARENA, 0, at64, one);
  uint32_t sum = fx_buffer(f, NY_MP_ARENA, 0, at128, bytes);
  uint32_t small = fx_buffer(f, NY_MP_WEIGHT, 1, at64, eight); /* the i64 number 0, second of the small constants */
  f->in[FX_A] = fx_value("a", NY_f32, 1, n, "?N", a);
  f->in[FX_B] = fx_value("b", NY_f32, 1, n, "?N", b);
  f->in[FX_FLAG] = fx_value("flag", NY_bool, 0, 0, NULL, flag);
  f->out[FX_SUM] = fx_value("sum", NY_f32, 1, n, "?N", o_sum);
  f->out[FX_TWICE] = fx_value("twice", NY_f32, 1, twice, "?N*2", o_twice);
  f->out[FX_COUNT] = fx_value("count", NY_i64, 1, n, "?N", o_count);
  f->out[FX_CHOSEN] = fx_value("chosen", NY_f32, 1, n, "?N", o_chosen);
  f->out[FX_WEIGHT] = fx_value("weight", NY_f32, 1, weights, NULL, o_weight);
  f->kernel[0] = (ny_mod_kernel){
      .name = "add", .family = "map", .note = "", .entry = (uint64_t)(fx_add - fx_code), .n_buffers = 3};
  f->kernel[1] = (ny_mod_kernel){.name = "count",
                                 .family = "map",
                                 .note = "",
                                 .entry = (uint64_t)(fx_count - fx_code),
                                 .scratch = 8,
                                 .n_buffers = 1,
                                 .n_dims = 1};
  f->kernel[2] = (ny_mod_kernel){
      .name = "less", .family = "map", .note = "", .entry = (uint64_t)(fx_less - fx_code), .n_buffers = 2, .n_dims = 1};
  ny_mod_command *choose = fx_command(f, NY_MC_CHOOSE, 0, NULL); /* one way to add or the other */
  choose->extent = fx_expr(f, NY_MX_LT, (int32_t)n, (int32_t)fx_number(f, 1000), 0);
  choose->n_then = choose->n_else = 1;
  fx_launch(f, 0, n, grain, FX_BUFFERS(a, b, sum), NULL);
  fx_launch(f, 0, n, grain, FX_BUFFERS(b, a, sum), NULL);
  fx_copy(f, sum, o_sum, bytes, false);
  fx_launch(f, 1, n, grain, FX_BUFFERS(o_count), &three);
  fx_launch(f, 0, weights, grain, FX_BUFFERS(w, w, o_weight), NULL);
  ny_mod_command *branch = fx_command(f, NY_MC_IF, FX_BUFFERS(flag));
  branch->n_then = branch->n_else = 1;
  fx_copy(f, a, o_chosen, bytes, false);
  fx_copy(f, b, o_chosen, bytes, false);
  fx_launch(f, 2, one, grain, FX_BUFFERS(small, cond), &three); /* true */
  ny_mod_command *loop = fx_command(f, NY_MC_LOOP, FX_BUFFERS(counter, cond));
  loop->extent = trips;
  loop->n_then = 3;
  fx_command(f, NY_MC_CHECK, 0, NULL)->require = 1;
  fx_copy(f, sum, o_twice, bytes, true);
  fx_launch(f, 2, one, grain, FX_BUFFERS(counter, cond), &two); /* counter < 1: false after the second round */
  uint32_t most = fx_expr(f, NY_MX_MIN, (int32_t)n, (int32_t)fx_number(f, 400000), 0);
  f->require[0] = (ny_mod_require){n, most, "node \"sum\" (Add): ?N and min(?N,400000) must be equal", true};
  f->require[1] = (ny_mod_require){n, fx_expr(f, NY_MX_MAX, (int32_t)n, (int32_t)zero, 0), "never wrong", false};
  f->m.require = f->require;
  f->m.n_requires = 2;
  f->m.name = "fixture";
  f->m.producer = "test";
  f->m.target = "test-target";
  f->m.arch = ny_cpu_arch();
  f->m.expr = f->expr;
  f->m.input = f->in;
  f->m.output = f->out;
  f->m.buffer = f->buffer;
  f->m.kernel = f->kernel;
  f->m.command = f->command;
  f->m.feature = f->feature;
  f->m.symbol = f->symbol;
  f->m.n_symbols = 1;
  f->m.n_inputs = FX_N_IN;
  f->m.n_outputs = FX_N_OUT;
  f->m.n_kernels = 3;
}

static nyb_status fx_write_weights(ny_module_file *out, ny_diag *d) {
  static float weights[FX_WEIGHTS];
  for (int i = 0; i < FX_WEIGHTS; i++) weights[i] = (float)i;
  ny_weight_place big, again, first, second;
  uint32_t small;
  int64_t numbers[2] = {7, 0};
  NY_TRY(ny_module_file_weight(out, weights, sizeof weights, &big));
  NY_TRY(ny_module_file_weight(out, weights, sizeof weights, &again));
  NY_TRY(ny_module_file_weight(out, &numbers[0], 8, &first));
  NY_TRY(ny_module_file_weight(out, &numbers[1], 8, &second));
  NY_TRY(ny_module_file_weight(out, &numbers[0], 8, &first));
  NY_TRY(ny_module_file_weights_end(out, &small));
  if (big.segment != 0 || again.segment != 0 || first.offset != 0 || second.offset != 64 || small != 1)
    return ny_fail(d, NYB_E_INTERNAL, NULL, "weights are not shared as expected");
  return NYB_OK;
}

static nyb_status fx_write(fx_module *f, const char *path, ny_diag *d) {
  ny_module_file file;
  NY_TRY(ny_module_file_begin(path, &file, d));
  NY_TRY(fx_write_weights(&file, d));
  NY_TRY(ny_module_file_segment(&file, fx_code, (uint64_t)(fx_code_end - fx_code), &f->m.code));
  return ny_module_file_end(&file, &f->m, 1);
}
#endif
