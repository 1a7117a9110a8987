/* A linker for exactly what the code generator emits: relocatable ELF64 objects become one flat, position independent
   image. Code of all objects comes first, then their constants, so that an image is mapped read-execute as a whole; no
   writable data, no global offset table, nothing external. Offsets are relative to an image loaded at a 4 KiB boundary,
   which the page-relative addresses of AArch64 need. */
#include "llvm.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096, MAX_SECTIONS = 4096 };
#define NOWHERE UINT64_MAX

typedef struct section {
  const Elf64_Shdr *h;
  uint64_t at; /* in the image, or NOWHERE */
} section;
typedef struct object {
  const uint8_t *p;
  size_t bytes;
  int machine, n;
  section *s;
  const char *names; /* of sections */
  const Elf64_Sym *sym;
  size_t n_sym;
  const char *sym_names;
  size_t sym_names_n;
} object;
typedef struct linker {
  object *obj;
  size_t n;
  uint8_t *image;
  uint64_t bytes;
  const char *const *symbol, *const *label;
  size_t n_symbol;
  ny_diag *d;
  ny_arena arena;
} linker;

static nyb_status broken(linker *l, const char *why) {
  return ny_fail(l->d, NYB_E_INTERNAL, NULL, "linking kernels: %s", why);
}

static bool inside(const object *o, uint64_t off, uint64_t n) { return off <= o->bytes && n <= o->bytes - off; }

static nyb_status open_object(linker *l, const ny_object *in, object *o) {
  const Elf64_Ehdr *e = (const void *)in->data;
  *o = (object){.p = in->data, .bytes = in->bytes};
  if (in->bytes < sizeof *e || memcmp(e->e_ident, "\177ELF\2\1", 6) || e->e_type != ET_REL)
    return broken(l, "not a relocatable ELF object");
  if (e->e_machine != EM_X86_64 && e->e_machine != EM_AARCH64) return broken(l, "an object for an unknown machine");
  o->machine = e->e_machine;
  o->n = e->e_shnum;
  if (o->n > MAX_SECTIONS || e->e_shstrndx >= o->n || !inside(o, e->e_shoff, (uint64_t)o->n * sizeof(Elf64_Shdr)))
    return broken(l, "bad section table");
  const Elf64_Shdr *sh = (const void *)(in->data + e->e_shoff);
  o->s = NY_NEW_ARRAY(&l->arena, section, o->n);
  o->names = (const char *)in->data + sh[e->e_shstrndx].sh_offset;
  for (int i = 0; i < o->n; i++) {
    o->s[i] = (section){&sh[i], NOWHERE};
    if (sh[i].sh_type != SHT_NOBITS && !inside(o, sh[i].sh_offset, sh[i].sh_size))
      return broken(l, "a section outside its object");
    if (sh[i].sh_type != SHT_SYMTAB || sh[i].sh_link >= (unsigned)o->n) continue;
    o->sym = (const void *)(in->data + sh[i].sh_offset);
    o->n_sym = sh[i].sh_size / sizeof *o->sym;
    o->sym_names = (const char *)in->data + sh[sh[i].sh_link].sh_offset;
    o->sym_names_n = sh[sh[i].sh_link].sh_size;
  }
  return o->sym ? NYB_OK : broken(l, "an object without symbols");
}

/* ---- layout: code, then constants */
static bool wanted(const object *o, const section *s, bool code) {
  uint64_t f = s->h->sh_flags;
  if (!(f & SHF_ALLOC) || !s->h->sh_size || s->h->sh_type == SHT_X86_64_UNWIND ||
      !strncmp(o->names + s->h->sh_name, ".eh_frame", 9))
    return false;
  return !!(f & SHF_EXECINSTR) == code;
}

static nyb_status lay_out(linker *l) {
  for (int code = 1; code >= 0; code--)
    for (size_t i = 0; i < l->n; i++)
      for (int k = 0; k < l->obj[i].n; k++) {
        section *s = &l->obj[i].s[k];
        if (!wanted(&l->obj[i], s, code)) continue;
        if (s->h->sh_flags & SHF_WRITE || s->h->sh_type == SHT_NOBITS) return broken(l, "a kernel with writable data");
        uint64_t align = s->h->sh_addralign ? s->h->sh_addralign : 1;
        if (align & (align - 1) || align > PAGE || s->h->sh_size > (uint64_t)1 << 30 || l->bytes > (uint64_t)1 << 31)
          return broken(l, "a section that is too large or oddly aligned");
        if (code && align < 64) align = 64;
        l->bytes = (l->bytes + align - 1) & ~(align - 1);
        s->at = l->bytes;
        l->bytes += s->h->sh_size;
      }
  l->bytes = (l->bytes + 63) & ~(uint64_t)63;
  l->image = calloc(1, l->bytes ? l->bytes : 1);
  if (!l->image)
    return ny_fail(l->d, NYB_E_NOMEM, NULL, "no memory for %llu bytes of code", (unsigned long long)l->bytes);
  for (size_t i = 0; i < l->n; i++)
    for (int k = 0; k < l->obj[i].n; k++) {
      section *s = &l->obj[i].s[k];
      if (s->at != NOWHERE) memcpy(l->image + s->at, l->obj[i].p + s->h->sh_offset, s->h->sh_size);
    }
  return NYB_OK;
}

/* ---- symbols */
static const char *name_of(const object *o, const Elf64_Sym *s) {
  return s->st_name < o->sym_names_n ? o->sym_names + s->st_name : "";
}

static uint64_t place_of(const object *o, const Elf64_Sym *s) {
  if (s->st_shndx == SHN_UNDEF || s->st_shndx >= o->n || o->s[s->st_shndx].at == NOWHERE) return NOWHERE;
  return o->s[s->st_shndx].at + s->st_value;
}

/* The kernel whose code holds offset `at` of section `shndx`: entry points are k<i>, bodies k<i>.<name>. */
static const char *kernel_at(const linker *l, const object *o, unsigned shndx, uint64_t at) {
  for (size_t i = 0; i < o->n_sym; i++) {
    const Elf64_Sym *s = &o->sym[i];
    if (s->st_shndx != shndx || ELF64_ST_TYPE(s->st_info) != STT_FUNC || at < s->st_value ||
        at - s->st_value >= s->st_size)
      continue;
    const char *n = name_of(o, s);
    for (size_t k = 0; k < l->n_symbol; k++) {
      size_t len = strlen(l->symbol[k]);
      if (!strncmp(n, l->symbol[k], len) && (!n[len] || n[len] == '.')) return l->label[k];
    }
    return n;
  }
  return "?";
}

/* ---- relocations */
static bool fits32(int64_t v) { return v == (int32_t)v; }

static bool relocate_x86(uint8_t *p, uint32_t type, int64_t s_plus_a, int64_t at) {
  int64_t v = s_plus_a - at;
  switch (type) {
  case R_X86_64_PC32:
  case R_X86_64_PLT32: return fits32(v) ? memcpy(p, &(int32_t){(int32_t)v}, 4), true : false;
  case R_X86_64_PC64: return memcpy(p, &v, 8), true;
  default: return false;
  }
}

static bool relocate_a64(uint8_t *p, uint32_t type, int64_t to, int64_t at) {
  uint32_t w;
  memcpy(&w, p, 4);
  int64_t v = to - at, low = to & (PAGE - 1);
  int shift = 0;
  switch (type) {
  case R_AARCH64_CALL26:
  case R_AARCH64_JUMP26:
    if (v & 3 || v >= (int64_t)1 << 27 || v < -((int64_t)1 << 27)) return false;
    w = (w & 0xfc000000u) | ((uint32_t)(v >> 2) & 0x3ffffffu);
    break;
  case R_AARCH64_ADR_PREL_PG_HI21: {
    int64_t pages = (to >> 12) - (at >> 12);
    if (pages >= 1 << 20 || pages < -(1 << 20)) return false;
    w = (w & 0x9f00001fu) | ((uint32_t)(pages & 3) << 29) | ((uint32_t)(pages >> 2 & 0x7ffff) << 5);
    break;
  }
  case R_AARCH64_LDST128_ABS_LO12_NC: shift++; /* fallthrough */
  case R_AARCH64_LDST64_ABS_LO12_NC: shift++;  /* fallthrough */
  case R_AARCH64_LDST32_ABS_LO12_NC: shift++;  /* fallthrough */
  case R_AARCH64_LDST16_ABS_LO12_NC: shift++;  /* fallthrough */
  case R_AARCH64_LDST8_ABS_LO12_NC:
  case R_AARCH64_ADD_ABS_LO12_NC: w |= (uint32_t)(low >> shift) << 10; break;
  case R_AARCH64_PREL32:
    if (!fits32(v)) return false;
    w = (uint32_t)v;
    break;
  case R_AARCH64_PREL64: return memcpy(p, &v, 8), true;
  default: return false;
  }
  memcpy(p, &w, 4);
  return true;
}

static nyb_status relocate(linker *l, const object *o, const section *rel) {
  unsigned target = rel->h->sh_info;
  if (target >= (unsigned)o->n || o->s[target].at == NOWHERE) return NYB_OK;
  const Elf64_Rela *r = (const void *)(o->p + rel->h->sh_offset);
  for (size_t i = 0; i < rel->h->sh_size / sizeof *r; i++) {
    size_t si = ELF64_R_SYM(r[i].r_info);
    uint32_t type = (uint32_t)ELF64_R_TYPE(r[i].r_info);
    if (si >= o->n_sym || r[i].r_offset + 8 > o->s[target].h->sh_size + 4)
      return broken(l, "a relocation outside its section");
    const Elf64_Sym *s = &o->sym[si];
    uint64_t to = place_of(o, s), at = o->s[target].at + r[i].r_offset;
    if (to == NOWHERE)
      return ny_fail(l->d, NYB_E_INTERNAL, NULL,
                     "kernel %s calls %s, but kernels call nothing: code generation must spell it out",
                     kernel_at(l, o, target, r[i].r_offset), name_of(o, s));
    int64_t sum = (int64_t)to + r[i].r_addend;
    bool ok = o->machine == EM_X86_64 ? relocate_x86(l->image + at, type, sum, (int64_t)at)
                                      : relocate_a64(l->image + at, type, sum, (int64_t)at);
    if (!ok)
      return ny_fail(l->d, NYB_E_INTERNAL, NULL,
                     "kernel %s: relocation %u to %s is not position independent or out of reach",
                     kernel_at(l, o, target, r[i].r_offset), type, name_of(o, s));
  }
  return NYB_OK;
}

static nyb_status find_entries(linker *l, ny_image *out) {
  for (size_t k = 0; k < l->n_symbol; k++) out->entry[k] = NOWHERE;
  for (size_t i = 0; i < l->n; i++)
    for (size_t j = 0; j < l->obj[i].n_sym; j++) {
      const Elf64_Sym *s = &l->obj[i].sym[j];
      const char *n = name_of(&l->obj[i], s);
      if (ELF64_ST_TYPE(s->st_info) != STT_FUNC || n[0] != 'k') continue;
      char *rest;
      unsigned long k = strtoul(n + 1, &rest, 10);
      if (!*rest && k < l->n_symbol) out->entry[k] = place_of(&l->obj[i], s);
    }
  for (size_t k = 0; k < l->n_symbol; k++)
    if (out->entry[k] == NOWHERE) return ny_fail(l->d, NYB_E_INTERNAL, NULL, "kernel %s has no code", l->label[k]);
  return NYB_OK;
}

static nyb_status link_all(linker *l, const ny_object *in, ny_image *out) {
  for (size_t i = 0; i < l->n; i++) NY_TRY(open_object(l, &in[i], &l->obj[i]));
  NY_TRY(lay_out(l));
  for (size_t i = 0; i < l->n; i++)
    for (int k = 0; k < l->obj[i].n; k++)
      if (l->obj[i].s[k].h->sh_type == SHT_RELA) NY_TRY(relocate(l, &l->obj[i], &l->obj[i].s[k]));
  return find_entries(l, out);
}

nyb_status ny_link(const ny_object *obj, size_t n_obj, const char *const *symbol, const char *const *label, size_t n,
                   ny_image *out, ny_diag *d) {
  linker l = {.n = n_obj, .symbol = symbol, .label = label, .n_symbol = n, .d = d};
  l.obj = NY_NEW_ARRAY(&l.arena, object, n_obj);
  nyb_status s = link_all(&l, obj, out);
  if (s)
    free(l.image);
  else
    out->data = l.image, out->bytes = l.bytes;
  ny_arena_free(&l.arena);
  return s;
}
