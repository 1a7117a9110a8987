/* A thin layer over the LLVM C API: types, constants, vectors, loops and conditions, in the few forms that the lowering
   uses. Functions carry "no-builtins" and no unwind tables: an image must not need memset or an unwinder. */
#include "llvm.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define EACH_TYPE(c)                                                                                                   \
  x->i1 = LLVMInt1TypeInContext(c), x->i8 = LLVMInt8TypeInContext(c), x->i16 = LLVMInt16TypeInContext(c);              \
  x->i32 = LLVMInt32TypeInContext(c), x->i64 = LLVMInt64TypeInContext(c), x->i128 = LLVMInt128TypeInContext(c);        \
  x->f16 = LLVMHalfTypeInContext(c), x->f32 = LLVMFloatTypeInContext(c), x->f64 = LLVMDoubleTypeInContext(c);          \
  x->ptr = LLVMPointerTypeInContext(c, 0), x->vd = LLVMVoidTypeInContext(c)

nyb_status ny_lx_open(ny_lx *x, const ny_target *t, int opt, const char *name, ny_diag *d) {
  *x = (ny_lx){.target = t};
  LLVMTargetRef target;
  char *why = NULL;
  if (LLVMGetTargetFromTriple(t->triple, &target, &why)) {
    nyb_status s = ny_fail(d, NYB_E_TARGET, NULL, "target %s: LLVM does not know \"%s\": %s", t->name, t->triple, why);
    LLVMDisposeMessage(why);
    return s;
  }
  /* level 0 of the code generator is six times slower code, so the lowest here is 1 */
  LLVMCodeGenOptLevel level = opt > 1 ? LLVMCodeGenLevelDefault : LLVMCodeGenLevelLess;
  x->tm = LLVMCreateTargetMachine(target, t->triple, t->cpu, t->features, level, LLVMRelocPIC, LLVMCodeModelSmall);
  x->c = LLVMContextCreate();
  x->m = LLVMModuleCreateWithNameInContext(name, x->c);
  x->b = LLVMCreateBuilderInContext(x->c);
  EACH_TYPE(x->c);
  LLVMSetTarget(x->m, t->triple);
  LLVMTargetDataRef td = LLVMCreateTargetDataLayout(x->tm);
  LLVMSetModuleDataLayout(x->m, td);
  LLVMDisposeTargetData(td);
  x->x86 = !strncmp(t->triple, "x86_64", 6);
  x->avx512 = x->x86 && t->vec_bytes == 64;
  return NYB_OK;
}

void ny_lx_close(ny_lx *x) {
  if (x->b) LLVMDisposeBuilder(x->b);
  if (x->m) LLVMDisposeModule(x->m);
  if (x->c) LLVMContextDispose(x->c);
  if (x->tm) LLVMDisposeTargetMachine(x->tm);
}

static void text_attr(ny_lx *x, val f, const char *k, const char *v) {
  LLVMAddAttributeAtIndex(f, LLVMAttributeFunctionIndex,
                          LLVMCreateStringAttribute(x->c, k, (unsigned)strlen(k), v, (unsigned)strlen(v)));
}

void ny_lx_attr(ny_lx *x, val f, int index, const char *name, uint64_t v) {
  unsigned id = LLVMGetEnumAttributeKindForName(name, strlen(name));
  assert(id);
  LLVMAddAttributeAtIndex(f, (LLVMAttributeIndex)index, LLVMCreateEnumAttribute(x->c, id, v));
}

bool ny_lx_has(const ny_lx *x, const char *feature) {
  size_t n = strlen(feature);
  for (const char *p = x->target->features; (p = strstr(p, feature)); p++)
    if (p > x->target->features && p[-1] == '+' && (p[n] == ',' || !p[n])) return true;
  return false;
}

val ny_lx_function(ny_lx *x, const char *name, const typ *args, int n, bool internal) {
  typ t = LLVMFunctionType(x->vd, (typ *)(uintptr_t)args, (unsigned)n, 0);
  val f = LLVMAddFunction(x->m, name, t);
  if (internal) LLVMSetLinkage(f, LLVMInternalLinkage);
  text_attr(x, f, "target-cpu", x->target->cpu);
  if (x->target->features[0]) text_attr(x, f, "target-features", x->target->features);
  text_attr(x, f, "no-builtins", "");
  if (x->avx512) {
    text_attr(x, f, "prefer-vector-width", "512");
    text_attr(x, f, "min-legal-vector-width", "512");
  }
  ny_lx_attr(x, f, (int)LLVMAttributeFunctionIndex, "nounwind", 0);
  x->fn = f;
  x->entry = LLVMAppendBasicBlockInContext(x->c, f, "entry");
  LLVMPositionBuilderAtEnd(x->b, LLVMAppendBasicBlockInContext(x->c, f, "body"));
  return f;
}

int ny_lanes(val v) {
  typ t = LLVMTypeOf(v);
  return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? (int)LLVMGetVectorSize(t) : 1;
}

typ ny_elem(typ t) { return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t; }
typ ny_like(val v, typ e) { return ny_vec(e, ny_lanes(v)); }

static val spread(typ t, val e) {
  if (LLVMGetTypeKind(t) != LLVMVectorTypeKind) return e;
  val v[256];
  unsigned n = LLVMGetVectorSize(t);
  assert(n <= NY_COUNT(v));
  for (unsigned i = 0; i < n; i++) v[i] = e;
  return LLVMConstVector(v, n);
}

val ny_ci(typ t, int64_t v) { return spread(t, LLVMConstInt(ny_elem(t), (uint64_t)v, 1)); }
val ny_cf(typ t, double v) { return spread(t, LLVMConstReal(ny_elem(t), v)); }

val ny_splat(ny_lx *x, val s, int n) {
  if (n == 1) return s;
  typ t = ny_vec(LLVMTypeOf(s), n);
  if (LLVMIsConstant(s)) return spread(t, s);
  val one = LLVMBuildInsertElement(x->b, LLVMGetPoison(t), s, ny_ci(x->i64, 0), "");
  return LLVMBuildShuffleVector(x->b, one, LLVMGetPoison(t), LLVMConstNull(ny_vec(x->i32, n)), "");
}

val ny_call(ny_lx *x, const char *intrinsic, const typ *over, int n_over, const val *arg, int n) {
  unsigned id = LLVMLookupIntrinsicID(intrinsic, strlen(intrinsic));
  assert(id);
  typ *o = (typ *)(uintptr_t)over;
  val f = LLVMGetIntrinsicDeclaration(x->m, id, o, (size_t)n_over);
  return LLVMBuildCall2(x->b, LLVMIntrinsicGetType(x->c, id, o, (size_t)n_over), f, (val *)(uintptr_t)arg, (unsigned)n,
                        "");
}

val ny_un(ny_lx *x, const char *intrinsic, val a) {
  typ t = LLVMTypeOf(a);
  return ny_call(x, intrinsic, &t, 1, &a, 1);
}

val ny_bin(ny_lx *x, const char *intrinsic, val a, val b) {
  typ t = LLVMTypeOf(a);
  return ny_call(x, intrinsic, &t, 1, (val[]){a, b}, 2);
}

val ny_fma(ny_lx *x, val a, val b, val c) {
  if (x->target->no_fma) return NY_B(FAdd, x, NY_B(FMul, x, a, b), c); /* llvm.fma would call a library */
  typ t = LLVMTypeOf(a);
  return ny_call(x, "llvm.fma", &t, 1, (val[]){a, b, c}, 3);
}

val ny_any(ny_lx *x, val mask) { return ny_lanes(mask) == 1 ? mask : ny_un(x, "llvm.vector.reduce.or", mask); }

static val pick(ny_lx *x, val a, val b, int from, int n) {
  val at[256];
  assert(n <= (int)NY_COUNT(at));
  for (int i = 0; i < n; i++) at[i] = ny_ci(x->i32, from + i);
  return LLVMBuildShuffleVector(x->b, a, b, LLVMConstVector(at, (unsigned)n), "");
}

val ny_part(ny_lx *x, val v, int at, int n) {
  if (n == ny_lanes(v)) return v;
  return n == 1 ? ny_lane(x, v, at) : pick(x, v, LLVMGetPoison(LLVMTypeOf(v)), at, n);
}

val ny_join(ny_lx *x, val a, val b) {
  if (ny_lanes(a) > 1) return pick(x, a, b, 0, 2 * ny_lanes(a));
  val v = LLVMGetPoison(ny_vec(LLVMTypeOf(a), 2));
  return ny_with_lane(x, ny_with_lane(x, v, 0, a), 1, b);
}

val ny_lane(ny_lx *x, val v, int i) {
  return ny_lanes(v) == 1 ? v : LLVMBuildExtractElement(x->b, v, ny_ci(x->i64, i), "");
}

val ny_with_lane(ny_lx *x, val v, int i, val s) {
  return ny_lanes(v) == 1 ? s : LLVMBuildInsertElement(x->b, v, s, ny_ci(x->i64, i), "");
}

val ny_iota(typ t) {
  if (LLVMGetTypeKind(t) != LLVMVectorTypeKind) return ny_ci(t, 0);
  val v[256];
  unsigned n = LLVMGetVectorSize(t);
  assert(n <= NY_COUNT(v));
  for (unsigned i = 0; i < n; i++) v[i] = LLVMConstInt(ny_elem(t), i, 0);
  return LLVMConstVector(v, n);
}

val ny_gep(ny_lx *x, typ e, val p, val i) { return LLVMBuildGEP2(x->b, e, p, &i, 1, ""); }
val ny_gepc(ny_lx *x, typ e, val p, int64_t i) { return i ? ny_gep(x, e, p, ny_ci(x->i64, i)) : p; }

val ny_ld(ny_lx *x, typ t, val p, unsigned align) {
  val v = LLVMBuildLoad2(x->b, t, p, "");
  LLVMSetAlignment(v, align);
  return v;
}

void ny_st(ny_lx *x, val v, val p, unsigned align) { LLVMSetAlignment(LLVMBuildStore(x->b, v, p), align); }

val ny_slot(ny_lx *x, typ t, int64_t n, unsigned align) {
  blk here = LLVMGetInsertBlock(x->b);
  LLVMPositionBuilderAtEnd(x->b, x->entry);
  val p = n == 1 ? LLVMBuildAlloca(x->b, t, "") : LLVMBuildAlloca(x->b, LLVMArrayType2(t, (uint64_t)n), "");
  LLVMSetAlignment(p, align);
  LLVMPositionBuilderAtEnd(x->b, here);
  return p;
}

blk ny_block_new(ny_lx *x, const char *name) { return LLVMAppendBasicBlockInContext(x->c, x->fn, name); }

void ny_loop_begin(ny_lx *x, ny_lloop *l, val lo, val hi, val step, bool check) {
  *l = (ny_lloop){.hi = hi, .step = step, .body = ny_block_new(x, "loop"), .exit = ny_block_new(x, "done")};
  blk before = LLVMGetInsertBlock(x->b);
  if (check)
    LLVMBuildCondBr(x->b, ny_ic(x, LLVMIntSLT, lo, hi), l->body, l->exit);
  else
    LLVMBuildBr(x->b, l->body);
  LLVMPositionBuilderAtEnd(x->b, l->body);
  l->iv = LLVMBuildPhi(x->b, LLVMTypeOf(lo), "");
  LLVMAddIncoming(l->iv, &lo, &before, 1);
}

void ny_loop_end(ny_lx *x, ny_lloop *l) {
  blk latch = LLVMGetInsertBlock(x->b);
  val next = LLVMBuildNSWAdd(x->b, l->iv, l->step, "");
  LLVMBuildCondBr(x->b, ny_ic(x, LLVMIntSLT, next, l->hi), l->body, l->exit);
  LLVMAddIncoming(l->iv, &next, &latch, 1);
  LLVMPositionBuilderAtEnd(x->b, l->exit);
}

void ny_if_begin(ny_lx *x, ny_lif *f, val c) {
  blk then = ny_block_new(x, "then");
  *f = (ny_lif){.other = ny_block_new(x, "else"), .end = ny_block_new(x, "end")};
  LLVMBuildCondBr(x->b, c, then, f->other);
  LLVMPositionBuilderAtEnd(x->b, then);
}

void ny_if_else(ny_lx *x, ny_lif *f, val then_value) {
  f->then_value = then_value;
  f->then_end = LLVMGetInsertBlock(x->b);
  LLVMBuildBr(x->b, f->end);
  LLVMPositionBuilderAtEnd(x->b, f->other);
}

val ny_if_end(ny_lx *x, ny_lif *f, val else_value) {
  blk else_end = LLVMGetInsertBlock(x->b);
  LLVMBuildBr(x->b, f->end);
  LLVMPositionBuilderAtEnd(x->b, f->end);
  if (!else_value) return NULL;
  val phi = LLVMBuildPhi(x->b, LLVMTypeOf(else_value), "");
  LLVMAddIncoming(phi, &f->then_value, &f->then_end, 1);
  LLVMAddIncoming(phi, &else_value, &else_end, 1);
  return phi;
}
