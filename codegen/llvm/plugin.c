/* The plug-in's door: kernels in, one image out. Kernels are dealt to modules of a few each, in order; threads take
   modules as they become free, each with its own LLVM context and target machine; objects are linked in order. So the
   image does not depend on the number of threads. */
#include "llvm.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/Error.h>
#include <llvm-c/Target.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { PER_MODULE = 4, MAX_THREADS = 64 };
/* Just enough to promote the slots, clean up and hoist. No vectoriser, no unroller, and nothing that would invent calls
 * (loop idioms). */
static const char passes[] = "function(sroa,early-cse,instcombine<no-verify-fixpoint>,loop-mssa(licm),early-cse)";

typedef struct job {
  const ny_codegen_request *r;
  size_t n_modules;
  LLVMMemoryBufferRef *object;
  ny_diag *diag; /* of every module */
  const char **symbol;
  _Atomic size_t next, done;
  _Atomic bool failed;
  pthread_mutex_t progress;
} job;

static void initialise(void) {
  LLVMInitializeX86TargetInfo(), LLVMInitializeX86Target(), LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter(), LLVMInitializeX86AsmParser();
  LLVMInitializeAArch64TargetInfo(), LLVMInitializeAArch64Target(), LLVMInitializeAArch64TargetMC();
  LLVMInitializeAArch64AsmPrinter(), LLVMInitializeAArch64AsmParser();
}

/* ---- one module */
static nyb_status check(ny_lx *x, const char *name, ny_diag *d) {
  char *why = NULL;
  nyb_status s = NYB_OK;
  if (LLVMVerifyModule(x->m, LLVMReturnStatusAction, &why))
    s = ny_fail(d, NYB_E_INTERNAL, NULL, "code of kernel %s is malformed: %s", name, why);
  LLVMDisposeMessage(why);
  return s;
}

static nyb_status optimise(ny_lx *x, ny_diag *d) {
  LLVMPassBuilderOptionsRef o = LLVMCreatePassBuilderOptions();
  LLVMErrorRef e = LLVMRunPasses(x->m, passes, x->tm, o);
  LLVMDisposePassBuilderOptions(o);
  if (!e) return NYB_OK;
  char *why = LLVMGetErrorMessage(e);
  nyb_status s = ny_fail(d, NYB_E_INTERNAL, NULL, "LLVM passes: %s", why);
  LLVMDisposeErrorMessage(why);
  return s;
}

static nyb_status emit(ny_lx *x, LLVMCodeGenFileType what, LLVMMemoryBufferRef *out, ny_diag *d) {
  char *why = NULL;
  if (!LLVMTargetMachineEmitToMemoryBuffer(x->tm, x->m, what, &why, out)) return NYB_OK;
  nyb_status s = ny_fail(d, NYB_E_INTERNAL, NULL, "LLVM code generation: %s", why);
  LLVMDisposeMessage(why);
  return s;
}

static nyb_status write_text(ny_arena *a, const char *dir, const char *name, const char *suffix, const char *p,
                             size_t n, ny_diag *d) {
  char *safe = ny_strdup(a, name);
  for (char *c = safe; *c; c++)
    if (*c == '/' || *c == '\\') *c = '_';
  ny_new_file f;
  NY_TRY(ny_file_begin(ny_strf(a, "%s/%s.%s", dir, safe, suffix), &f, d));
  fwrite(p, 1, n, f.f);
  return ny_file_commit(&f, d);
}

/* A kernel alone in a module, so that its files hold nothing else. */
static nyb_status dump(const job *j, size_t k, ny_diag *d) {
  const ny_codegen_request *r = j->r;
  ny_arena a = {0};
  ny_lx x;
  nyb_status s = ny_lx_open(&x, r->target, r->opt, r->kernel[k]->name, d);
  if (!s) s = ny_lower_kernel(&x, r->kernel[k], j->symbol[k], d);
  if (!s) s = optimise(&x, d);
  if (!s) {
    char *text = LLVMPrintModuleToString(x.m);
    s = write_text(&a, r->dump_dir, r->kernel[k]->name, "ll", text, strlen(text), d);
    LLVMDisposeMessage(text);
  }
  LLVMMemoryBufferRef code = NULL;
  if (!s) s = emit(&x, LLVMAssemblyFile, &code, d);
  if (!s)
    s = write_text(&a, r->dump_dir, r->kernel[k]->name, "s", LLVMGetBufferStart(code), LLVMGetBufferSize(code), d);
  if (code) LLVMDisposeMemoryBuffer(code);
  ny_lx_close(&x);
  ny_arena_free(&a);
  return s;
}

static nyb_status build_module(job *j, size_t m, ny_diag *d) {
  const ny_codegen_request *r = j->r;
  ny_lx x;
  nyb_status s = ny_lx_open(&x, r->target, r->opt, "kernels", d);
  for (size_t k = m * PER_MODULE; !s && k < r->n && k < (m + 1) * PER_MODULE; k++) {
    s = ny_lower_kernel(&x, r->kernel[k], j->symbol[k], d);
    if (!s) s = check(&x, r->kernel[k]->name, d);
    if (!s && r->dump_dir) s = dump(j, k, d);
  }
  if (!s) s = optimise(&x, d);
  if (!s) s = emit(&x, LLVMObjectFile, &j->object[m], d);
  ny_lx_close(&x);
  return s;
}

static void *work(void *user) {
  job *j = user;
  for (size_t m; (m = atomic_fetch_add(&j->next, 1)) < j->n_modules;) {
    if (atomic_load(&j->failed)) break;
    if (build_module(j, m, &j->diag[m])) atomic_store(&j->failed, true);
    size_t done = atomic_fetch_add(&j->done, 1) + 1;
    if (!j->r->progress) continue;
    pthread_mutex_lock(&j->progress);
    j->r->progress(j->r->user, "code", (double)done / (double)j->n_modules);
    pthread_mutex_unlock(&j->progress);
  }
  return NULL;
}

/* ---- all of them */
static void run(job *j) {
  pthread_t thread[MAX_THREADS];
  int want = j->r->threads, n = 0;
  if (want < 1) {
    ny_host_facts h;
    ny_host_read(&h);
    want = h.n_cpu;
  }
  if (want > MAX_THREADS) want = MAX_THREADS;
  if ((size_t)want > j->n_modules) want = (int)j->n_modules;
  for (; n < want - 1; n++)
    if (pthread_create(&thread[n], NULL, work, j)) break;
  work(j);
  while (n > 0) pthread_join(thread[--n], NULL);
}

static nyb_status finish(job *j, ny_arena *a, ny_image *out, ny_diag *d) {
  const ny_codegen_request *r = j->r;
  for (size_t m = 0; m < j->n_modules; m++) /* the first failure in program order, whichever thread met it */
    if (j->diag[m].code) {
      *d = j->diag[m];
      return d->code;
    }
  ny_object *obj = NY_NEW_ARRAY(a, ny_object, j->n_modules);
  const char **label = NY_NEW_ARRAY(a, const char *, r->n);
  for (size_t m = 0; m < j->n_modules; m++)
    obj[m] = (ny_object){(const uint8_t *)LLVMGetBufferStart(j->object[m]), LLVMGetBufferSize(j->object[m])};
  for (size_t k = 0; k < r->n; k++) {
    label[k] = r->kernel[k]->name;
    out->scratch[k] = ny_kernel_local_bytes(r->kernel[k]);
  }
  return ny_link(obj, j->n_modules, j->symbol, label, r->n, out, d);
}

static nyb_status compile(const ny_codegen_request *r, ny_image *out, ny_diag *d) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, initialise);
  *out = (ny_image){.n = r->n};
  ny_arena a = {0};
  job j = {.r = r, .n_modules = (r->n + PER_MODULE - 1) / PER_MODULE, .progress = PTHREAD_MUTEX_INITIALIZER};
  j.object = NY_NEW_ARRAY(&a, LLVMMemoryBufferRef, j.n_modules + 1);
  j.diag = NY_NEW_ARRAY(&a, ny_diag, j.n_modules + 1);
  j.symbol = NY_NEW_ARRAY(&a, const char *, r->n + 1);
  for (size_t k = 0; k < r->n; k++) j.symbol[k] = ny_strf(&a, "k%zu", k);
  out->entry = calloc(r->n + 1, sizeof *out->entry);
  out->scratch = calloc(r->n + 1, sizeof *out->scratch);
  nyb_status s = NYB_OK;
  if (!out->entry || !out->scratch) {
    s = ny_fail(d, NYB_E_NOMEM, NULL, "no memory for the entries of %zu kernels", r->n);
  } else {
    run(&j);
    s = finish(&j, &a, out, d);
  }
  for (size_t m = 0; m < j.n_modules; m++)
    if (j.object[m]) LLVMDisposeMemoryBuffer(j.object[m]);
  if (s) {
    free(out->entry);
    free(out->scratch);
    *out = (ny_image){0};
  }
  ny_arena_free(&a);
  return s;
}

/* ---- this machine */
static bool has(const char *features, const char *f) {
  size_t n = strlen(f);
  for (const char *p = features; (p = strstr(p, f)); p++)
    if (p > features && p[-1] == '+' && (p[n] == ',' || !p[n])) return true;
  return false;
}

static void host(ny_target *out) {
  static char name[128], triple[128], cpu[64], features[4096];
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&lock);
  char *t = LLVMGetDefaultTargetTriple(), *c = LLVMGetHostCPUName(), *f = LLVMGetHostCPUFeatures();
  snprintf(triple, sizeof triple, "%s", t);
  snprintf(cpu, sizeof cpu, "%s", c);
  snprintf(features, sizeof features, "%s", f);
  snprintf(name, sizeof name, "host:%s", cpu);
  LLVMDisposeMessage(t), LLVMDisposeMessage(c), LLVMDisposeMessage(f);
  ny_host_facts h;
  ny_host_read(&h);
  *out = (ny_target){
      .name = name, .triple = triple, .cpu = cpu, .features = features, .l1d = h.l1d, .l2 = h.l2, .threads = h.n_cpu};
  bool x86 = !strncmp(triple, "x86_64", 6), avx512 = x86 && has(features, "avx512f") && has(features, "avx512bw") &&
                                                     has(features, "avx512vl") && has(features, "avx512dq");
  bool avx2 = x86 && has(features, "avx2") && has(features, "fma") && has(features, "f16c");
  out->vec_bytes = avx512 ? 64 : avx2 ? 32 : 16;
  out->no_fma = x86 && !avx512 && !avx2;
  out->n_vregs = avx512 || !x86 ? 32 : 16;
  out->masked = avx512;
  bool vnni = has(features, "avx512vnni") && avx512;
  out->dot8 = x86 ? (vnni || has(features, "avxvnni") ? NY_DOT8_mixed : NY_DOT8_pairs)
                  : has(features, "dotprod") ? NY_DOT8_signed : NY_DOT8_long;
  pthread_mutex_unlock(&lock);
}

const ny_codegen *nyb_codegen_plugin(void);
__attribute__((visibility("default"))) const ny_codegen *nyb_codegen_plugin(void) {
  static const ny_codegen me = {NY_CODEGEN_ABI, compile, host};
  return &me;
}
