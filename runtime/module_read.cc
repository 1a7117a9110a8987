/* The only place that knows flatbuffers: verifies the buffer with tight limits, then copies it into the plain rows of
   module.h. No exceptions, no RTTI, nothing of the C++ library at run time. What the rows mean is checked in
   module_check.c. */
#include "module_generated.h"

#include <cstring>

extern "C" {
#include "module.h"
}

namespace {

using namespace nyb::fb;

template <typename T> uint32_t count(const flatbuffers::Vector<T> *v) { return v ? v->size() : 0; }
template <typename T> T *rows(ny_arena *a, uint32_t n) { return static_cast<T *>(ny_alloc(a, sizeof(T) * size_t{n})); }
const char *text(const flatbuffers::String *s) { return s ? s->c_str() : ""; }

const char *const *strings(const flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>> *v, ny_arena *a,
                           uint32_t *n) {
  *n = count(v);
  const char **out = rows<const char *>(a, *n);
  for (uint32_t i = 0; i < *n; i++) out[i] = v->Get(i)->c_str();
  return out;
}

/* Used in place: many rows may share one long vector, so copies could grow without bound. */
const uint32_t *numbers(const flatbuffers::Vector<uint32_t> *v, uint32_t *n) {
  static_assert(FLATBUFFERS_LITTLEENDIAN, "");
  *n = count(v);
  return v ? v->data() : nullptr;
}

/* Row i of a vector of structs. The verifier does not look at the alignment of such rows, so they are copied out byte
 * by byte. */
template <typename T> T row(const flatbuffers::Vector<const T *> *v, uint32_t i) {
  T out;
  std::memcpy(static_cast<void *>(&out), v->Data() + size_t{i} * sizeof(T), sizeof(T));
  return out;
}

ny_mod_segment segment(const Segment *s) {
  ny_mod_segment out = {};
  if (!s) return out;
  out.offset = s->offset();
  out.bytes = s->bytes();
  for (unsigned i = 0; i < 32; i++) out.digest[i] = s->digest().b()->Get(i);
  return out;
}

nyb_status value(const Value *v, ny_mod_value *out, ny_diag *d) {
  out->name = text(v->name());
  out->fmt = ny_fmt_by_name(text(v->format()), v->format() ? v->format()->size() : 0);
  if (ny_module_dtype(out->fmt).bits == 0)
    return ny_fail(d, NYB_E_PARSE, nullptr, "value %.80s has format %.20s, which cannot cross the API", out->name,
                   text(v->format()));
  out->rank = count(v->dims());
  if (out->rank > NY_MOD_RANK || count(v->text()) > out->rank)
    return ny_fail(d, NYB_E_PARSE, nullptr, "value %.80s has rank %u and %u texts, the limit is %d", out->name,
                   out->rank, count(v->text()), int{NY_MOD_RANK});
  for (uint32_t i = 0; i < out->rank; i++) {
    out->dim[i] = v->dims()->Get(i);
    bool named = i < count(v->text()) && v->text()->Get(i)->size();
    out->text[i] = named ? v->text()->Get(i)->c_str() : nullptr;
  }
  return NYB_OK;
}

/* Buffers begin with the inputs, then the outputs. */
nyb_status values(const flatbuffers::Vector<flatbuffers::Offset<Value>> *v, uint32_t first, ny_arena *a,
                  ny_mod_value **out, uint32_t *n, ny_diag *d) {
  *n = count(v);
  *out = rows<ny_mod_value>(a, *n);
  for (uint32_t i = 0; i < *n; i++) {
    NY_TRY(value(v->Get(i), &(*out)[i], d));
    (*out)[i].buffer = first + i;
  }
  return NYB_OK;
}

void kernels(const Program *m, ny_arena *a, ny_mod *out) {
  out->n_kernels = count(m->kernels());
  out->kernel = rows<ny_mod_kernel>(a, out->n_kernels);
  for (uint32_t i = 0; i < out->n_kernels; i++) {
    const Kernel *k = m->kernels()->Get(i);
    ny_mod_kernel *o = &out->kernel[i];
    o->name = text(k->name());
    o->family = text(k->family());
    o->note = text(k->note());
    o->entry = k->entry();
    o->scratch = k->scratch();
    o->n_buffers = k->n_buffers();
    o->n_dims = k->n_dims();
    o->symbol = text(k->symbol());
    o->unit = k->unit();
    o->block = k->block();
    o->points = k->points();
    o->shared = k->shared();
    o->wide = k->wide();
    o->bits = k->bits() ? k->bits()->data() : nullptr;
    o->n_bits = count(k->bits());
  }
}

void commands(const Program *m, ny_arena *a, ny_mod *out) {
  out->n_commands = count(m->commands());
  out->command = rows<ny_mod_command>(a, out->n_commands);
  for (uint32_t i = 0; i < out->n_commands; i++) {
    const Command *c = m->commands()->Get(i);
    ny_mod_command *o = &out->command[i];
    o->kind = static_cast<uint8_t>(c->kind());
    o->stacked = c->stacked();
    o->kernel = c->kernel();
    o->buffer = numbers(c->buffers(), &o->n_buffers);
    o->dim = numbers(c->dims(), &o->n_dims);
    o->extent = c->extent();
    o->grain = c->grain();
    o->bytes = c->bytes();
    o->n_then = c->n_then();
    o->n_else = c->n_else();
    o->require = c->require();
  }
}

void requires_of(const Program *m, ny_arena *a, ny_mod *out) {
  out->n_requires = count(m->requirements());
  out->require = rows<ny_mod_require>(a, out->n_requires);
  for (uint32_t i = 0; i < out->n_requires; i++) {
    const Require *r = m->requirements()->Get(i);
    out->require[i] = {r->a(), r->b(), text(r->text()), r->always()};
  }
}

void precision(const Program *m, ny_arena *a, ny_mod *out) {
  out->n_precision = count(m->precision());
  out->precision = rows<ny_mod_precision>(a, out->n_precision);
  for (uint32_t i = 0; i < out->n_precision; i++) {
    const Precision *p = m->precision()->Get(i);
    out->precision[i] = {text(p->node()), text(p->op()), text(p->asked()), text(p->done()), text(p->why())};
  }
}

void images(const Program *m, ny_arena *a, ny_mod *out) {
  out->n_images = count(m->images());
  out->image = rows<ny_mod_image>(a, out->n_images);
  for (uint32_t i = 0; i < out->n_images; i++) {
    const Image *o = m->images()->Get(i);
    out->image[i] = {static_cast<uint8_t>(o->kind()), text(o->arch()), o->unit(), segment(o->code())};
  }
  out->n_units = out->n_images ? out->image[out->n_images - 1].unit + 1 : 0;
}

using Exprs = flatbuffers::Vector<const Expr *>;

/* Those of the module, then the program's own. */
void exprs(const Exprs *shared, const Exprs *own, ny_arena *a, ny_mod *out) {
  uint32_t n = 0;
  out->n_exprs = count(shared) + count(own);
  out->expr = rows<ny_mod_expr>(a, out->n_exprs);
  for (const Exprs *v : {shared, own})
    for (uint32_t i = 0; i < count(v); i++) {
      const Expr e = row(v, i);
      out->expr[n++] = {static_cast<uint8_t>(e.op()), e.a(), e.b(), e.value()};
    }
}

void buffers(const Program *m, ny_arena *a, ny_mod *out) {
  out->n_buffers = count(m->buffers());
  out->buffer = rows<ny_mod_buffer>(a, out->n_buffers);
  for (uint32_t i = 0; i < out->n_buffers; i++) {
    const Buffer b = row(m->buffers(), i);
    out->buffer[i] = {static_cast<uint8_t>(b.place()), b.index(), b.offset(), b.bytes()};
  }
}

void segments(const Module *m, ny_arena *a, ny_mod *out) {
  out->n_segments = count(m->segments());
  out->segment = rows<ny_mod_segment>(a, out->n_segments);
  for (uint32_t i = 0; i < out->n_segments; i++) {
    const Segment s = row(m->segments(), i);
    out->segment[i] = segment(&s);
  }
}

/* Programs may share their vectors, so what counts is the sum. */
bool too_many(const Module *m) {
  enum { FEATURES, EXPRS, BUFFERS, KERNELS, COMMANDS, REQUIREMENTS, IMAGES, PRECISION, N };
  uint64_t sum[N] = {};
  for (uint32_t i = 0; i < count(m->programs()); i++) {
    const Program *p = m->programs()->Get(i);
    sum[FEATURES] += count(p->features());
    sum[EXPRS] += uint64_t{count(m->exprs())} + count(p->exprs());
    sum[BUFFERS] += count(p->buffers());
    sum[KERNELS] += count(p->kernels());
    sum[COMMANDS] += count(p->commands());
    sum[REQUIREMENTS] += count(p->requirements());
    sum[IMAGES] += count(p->images());
    sum[PRECISION] += count(p->precision());
  }
  bool over = count(m->symbols()) > NY_MOD_MAX_ROWS || count(m->inputs()) > NY_MOD_MAX_ROWS ||
              count(m->outputs()) > NY_MOD_MAX_ROWS || count(m->segments()) > NY_MOD_MAX_ROWS;
  for (uint64_t x : sum) over |= x > NY_MOD_MAX_ROWS;
  return over;
}

void program(const Module *m, const Program *p, ny_arena *a, ny_mod *out) {
  out->target = text(p->target());
  out->arch = text(p->arch());
  out->sm = p->sm();
  out->feature = strings(p->features(), a, &out->n_features);
  exprs(m->exprs(), p->exprs(), a, out);
  buffers(p, a, out);
  kernels(p, a, out);
  commands(p, a, out);
  requires_of(p, a, out);
  images(p, a, out);
  precision(p, a, out);
  out->arena = p->arena();
  out->code = segment(p->code());
}

nyb_status verify(const void *fb, uint64_t bytes, ny_diag *d) {
  flatbuffers::Verifier::Options limits;
  limits.max_depth = 8;
  limits.max_tables = 4 * NY_MOD_MAX_ROWS;
  flatbuffers::Verifier verifier(static_cast<const uint8_t *>(fb), bytes, limits);
  if (!VerifyModuleBuffer(verifier)) return ny_fail(d, NYB_E_PARSE, nullptr, "the module description is damaged");
  const Module *m = GetModule(fb);
  if (m->version() != NY_MOD_VERSION)
    return ny_fail(d, NYB_E_UNSUPPORTED, nullptr, "the module has format version %u, this build reads %d", m->version(),
                   int{NY_MOD_VERSION});
  if (m->abi() != NYB_KERNEL_ABI)
    return ny_fail(d, NYB_E_TARGET, nullptr, "the module's kernels have ABI %u, this build calls %d", m->abi(),
                   NYB_KERNEL_ABI);
  if (count(m->programs()) < 1 || count(m->programs()) > NY_MOD_MAX_PROGRAMS)
    return ny_fail(d, NYB_E_PARSE, nullptr, "the module holds %u programs, 1 to %d are expected", count(m->programs()),
                   int{NY_MOD_MAX_PROGRAMS});
  if (too_many(m))
    return ny_fail(d, NYB_E_LIMIT, nullptr, "the module has a table of more than %d rows", int{NY_MOD_MAX_ROWS});
  return NYB_OK;
}

} // namespace

extern "C" nyb_status ny_module_read(const void *fb, uint64_t fb_at, uint64_t fb_bytes, uint64_t file_bytes,
                                     ny_arena *a, ny_mod **out, uint32_t *out_n, ny_diag *d) {
  *out = nullptr;
  *out_n = 0;
  if (fb_bytes < 16 || fb_bytes > NY_MOD_MAX_FLATBUFFER)
    return ny_fail(d, NYB_E_PARSE, nullptr,
                   "the module description has %llu bytes, more than 15 and at most %llu are expected",
                   static_cast<unsigned long long>(fb_bytes), static_cast<unsigned long long>(NY_MOD_MAX_FLATBUFFER));
  NY_TRY(verify(fb, fb_bytes, d));
  const Module *m = GetModule(fb);
  ny_mod shared = {};
  shared.name = text(m->name());
  shared.producer = text(m->producer());
  shared.symbol = strings(m->symbols(), a, &shared.n_symbols);
  segments(m, a, &shared);
  shared.graph = segment(m->graph());
  NY_TRY(values(m->inputs(), 0, a, &shared.input, &shared.n_inputs, d));
  NY_TRY(values(m->outputs(), shared.n_inputs, a, &shared.output, &shared.n_outputs, d));
  uint32_t n = count(m->programs());
  ny_mod *all = rows<ny_mod>(a, n);
  for (uint32_t i = 0; i < n; i++) {
    all[i] = shared;
    program(m, m->programs()->Get(i), a, &all[i]);
  }
  NY_TRY(ny_module_check(all, n, count(m->exprs()), fb_at, fb_bytes, file_bytes, d));
  *out = all;
  *out_n = n;
  return NYB_OK;
}
