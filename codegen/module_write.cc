/* Rows of module.h as a flatbuffer: the mirror of module_read.cc. */
#include "module_generated.h"

#include <cstdlib>
#include <cstring>
#include <new>

extern "C" {
#include "module_file.h"
}

namespace {

using namespace nyb::fb;
using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;
using flatbuffers::String;
template <typename T> using Vector = flatbuffers::Vector<T>;

Segment segment(const ny_mod_segment &s) {
  uint8_t b[32];
  std::memcpy(b, s.digest, 32);
  return Segment(s.offset, s.bytes, Digest(flatbuffers::span<const uint8_t, 32>(b, 32)));
}

Offset<Vector<Offset<String>>> strings(FlatBufferBuilder &fbb, const char *const *s, uint32_t n) {
  std::vector<Offset<String>> out;
  for (uint32_t i = 0; i < n; i++) out.push_back(fbb.CreateSharedString(s[i] ? s[i] : ""));
  return fbb.CreateVector(out);
}

Offset<Vector<Offset<Value>>> values(FlatBufferBuilder &fbb, const ny_mod_value *v, uint32_t n) {
  std::vector<Offset<Value>> out;
  for (uint32_t i = 0; i < n; i++) {
    auto name = fbb.CreateSharedString(v[i].name ? v[i].name : "");
    auto format = fbb.CreateSharedString(ny_fmts[v[i].fmt].name);
    auto dims = fbb.CreateVector(v[i].dim, v[i].rank);
    auto text = strings(fbb, v[i].text, v[i].rank);
    out.push_back(CreateValue(fbb, name, format, dims, text));
  }
  return fbb.CreateVector(out);
}

Offset<Vector<Offset<Kernel>>> kernels(FlatBufferBuilder &fbb, const ny_mod *m) {
  std::vector<Offset<Kernel>> out;
  for (uint32_t i = 0; i < m->n_kernels; i++) {
    const ny_mod_kernel &k = m->kernel[i];
    auto name = fbb.CreateSharedString(k.name ? k.name : ""), family = fbb.CreateSharedString(k.family ? k.family : "");
    auto note = fbb.CreateSharedString(k.note ? k.note : "");
    auto symbol = k.symbol ? fbb.CreateSharedString(k.symbol) : 0;
    auto bits = k.n_bits ? fbb.CreateVector(k.bits, k.n_bits) : 0;
    out.push_back(CreateKernel(fbb, name, family, note, k.n_buffers, k.n_dims, k.entry, k.scratch, symbol, k.unit,
                               k.block, k.points, k.shared, k.wide, bits));
  }
  return fbb.CreateVector(out);
}

Offset<Vector<Offset<Command>>> commands(FlatBufferBuilder &fbb, const ny_mod *m) {
  std::vector<Offset<Command>> out;
  for (uint32_t i = 0; i < m->n_commands; i++) {
    const ny_mod_command &c = m->command[i];
    auto buffers = fbb.CreateVector(c.buffer, c.n_buffers), dims = fbb.CreateVector(c.dim, c.n_dims);
    out.push_back(CreateCommand(fbb, static_cast<CommandKind>(c.kind), c.kernel, buffers, dims, c.extent, c.grain,
                                c.bytes, c.stacked, c.n_then, c.n_else, c.require));
  }
  return fbb.CreateVector(out);
}

Offset<Vector<Offset<Require>>> requires_of(FlatBufferBuilder &fbb, const ny_mod *m) {
  std::vector<Offset<Require>> out;
  for (uint32_t i = 0; i < m->n_requires; i++) {
    const ny_mod_require &r = m->require[i];
    auto text = fbb.CreateSharedString(r.text ? r.text : "");
    out.push_back(CreateRequire(fbb, r.a, r.b, text, r.always));
  }
  return fbb.CreateVector(out);
}

Offset<Vector<Offset<Image>>> images(FlatBufferBuilder &fbb, const ny_mod *m) {
  std::vector<Offset<Image>> out;
  for (uint32_t i = 0; i < m->n_images; i++) {
    const ny_mod_image &o = m->image[i];
    auto arch = fbb.CreateSharedString(o.arch);
    Segment code = segment(o.code);
    out.push_back(CreateImage(fbb, static_cast<ImageKind>(o.kind), arch, o.unit, &code));
  }
  return fbb.CreateVector(out);
}

Offset<Vector<Offset<Precision>>> precision(FlatBufferBuilder &fbb, const ny_mod *m) {
  std::vector<Offset<Precision>> out;
  for (uint32_t i = 0; i < m->n_precision; i++) {
    const ny_mod_precision &p = m->precision[i];
    auto node = fbb.CreateSharedString(p.node), op = fbb.CreateSharedString(p.op);
    auto asked = fbb.CreateSharedString(p.asked), done = fbb.CreateSharedString(p.done), why = fbb.CreateSharedString(p.why);
    out.push_back(CreatePrecision(fbb, node, op, asked, done, why));
  }
  return fbb.CreateVector(out);
}

Offset<Vector<const Expr *>> exprs(FlatBufferBuilder &fbb, const ny_mod *m, uint32_t begin, uint32_t end) {
  std::vector<Expr> out;
  for (uint32_t i = begin; i < end; i++)
    out.emplace_back(static_cast<ExprOp>(m->expr[i].op), m->expr[i].a, m->expr[i].b, m->expr[i].value);
  return fbb.CreateVectorOfStructs(out);
}

Offset<Program> program(FlatBufferBuilder &fbb, const ny_mod *m, uint32_t n_shared) {
  std::vector<Buffer> buffers;
  for (uint32_t i = 0; i < m->n_buffers; i++) {
    const ny_mod_buffer &b = m->buffer[i];
    buffers.emplace_back(static_cast<Place>(b.place), b.index, b.offset, b.bytes);
  }
  Segment code = segment(m->code);
  auto target = fbb.CreateSharedString(m->target ? m->target : ""),
       arch = fbb.CreateSharedString(m->arch ? m->arch : "");
  auto features = strings(fbb, m->feature, m->n_features);
  auto fb_exprs = exprs(fbb, m, n_shared, m->n_exprs);
  auto fb_buffers = fbb.CreateVectorOfStructs(buffers);
  auto fb_kernels = kernels(fbb, m);
  auto fb_commands = commands(fbb, m);
  auto fb_requires = requires_of(fbb, m);
  auto fb_images = images(fbb, m);
  auto fb_precision = precision(fbb, m);
  ProgramBuilder b(fbb);
  b.add_target(target);
  b.add_arch(arch);
  b.add_sm(m->sm);
  b.add_features(features);
  b.add_exprs(fb_exprs);
  b.add_arena(m->arena);
  b.add_buffers(fb_buffers);
  b.add_kernels(fb_kernels);
  b.add_commands(fb_commands);
  b.add_requirements(fb_requires);
  b.add_code(&code);
  b.add_images(fb_images);
  b.add_precision(fb_precision);
  return b.Finish();
}

Offset<Module> module(FlatBufferBuilder &fbb, const ny_mod *m, uint32_t n, uint32_t n_shared) {
  std::vector<Segment> segments;
  for (uint32_t i = 0; i < m->n_segments; i++) segments.push_back(segment(m->segment[i]));
  Segment graph = segment(m->graph);
  auto name = fbb.CreateSharedString(m->name ? m->name : ""),
       producer = fbb.CreateSharedString(m->producer ? m->producer : "");
  auto symbols = strings(fbb, m->symbol, m->n_symbols);
  auto fb_exprs = exprs(fbb, m, 0, n_shared);
  auto inputs = values(fbb, m->input, m->n_inputs), outputs = values(fbb, m->output, m->n_outputs);
  std::vector<Offset<Program>> programs;
  for (uint32_t i = 0; i < n; i++) programs.push_back(program(fbb, &m[i], n_shared));
  auto fb_programs = fbb.CreateVector(programs);
  auto fb_segments = fbb.CreateVectorOfStructs(segments);
  ModuleBuilder b(fbb);
  b.add_version(NY_MOD_VERSION);
  b.add_abi(NYB_KERNEL_ABI);
  b.add_name(name);
  b.add_producer(producer);
  b.add_symbols(symbols);
  b.add_exprs(fb_exprs);
  b.add_inputs(inputs);
  b.add_outputs(outputs);
  b.add_programs(fb_programs);
  b.add_segments(fb_segments);
  b.add_graph(&graph);
  return b.Finish();
}

} // namespace

extern "C" uint8_t *ny_module_pack(const ny_mod *program, uint32_t n, uint32_t n_shared, uint64_t *bytes) {
  try {
    FlatBufferBuilder fbb(1 << 16);
    FinishModuleBuffer(fbb, module(fbb, program, n, n_shared));
    *bytes = fbb.GetSize();
    void *out = std::malloc(*bytes);
    if (out) std::memcpy(out, fbb.GetBufferPointer(), *bytes);
    return static_cast<uint8_t *>(out);
  } catch (const std::bad_alloc &) { return nullptr; }
}
