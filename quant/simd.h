/* Sixteen floats at a time in plain C: what a compiler makes of it depends on the clone it is making. */
#ifndef NY_SIMD_H
#define NY_SIMD_H
#include <stdint.h>

typedef float v16 __attribute__((vector_size(64)));
typedef int32_t i16x __attribute__((vector_size(64)));

/* A sanitizer's run-time does not stand before the resolvers of clones run. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NY_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define NY_SANITIZED 1
#endif
#endif
#if defined(__x86_64__) && !defined(NY_SANITIZED)
#define NY_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NY_CLONES
#endif
#define NY_INLINE static inline __attribute__((always_inline))
#endif
