// Shared definitions of the vector loops: function multiversioning, element types, exp.
//
// A kernel is written once as an always-inlined loop over elements whose type is a constant argument. The body of the
// parallel loop, cloned by CK_KERNEL, calls it once for each type, and the compiler vectorizes every clone separately.
#pragma once
#include "ckernels.h"

#include <string.h>

// The highest x86-64 level to compile for. A lower level shows on a newer processor how the code runs on an older one:
// `make test-unit LEVEL=3`.
#ifndef CK_LEVEL
#define CK_LEVEL 4
#endif
#if !defined(__x86_64__) || CK_LEVEL < 3
#define CK_KERNEL
#elif CK_LEVEL == 3
#define CK_KERNEL __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define CK_KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#define CK_INLINE static inline __attribute__((always_inline))

/// Placed before a loop with independent iterations (an output may be one of the inputs). The width is explicit because
/// the compiler otherwise prefers 256 bits.
#define CK_LOOP _Pragma("clang loop vectorize(assume_safety) vectorize_width(16) interleave_count(2)")
/// The same for short loops over channels: not unrolled, so that the remainder is only C mod 16 elements.
#define CK_CHANNELS _Pragma("clang loop vectorize(assume_safety) vectorize_width(16) interleave_count(1)")

/// Calls `call` with the element type as the constant T; the second macro provides the constant ADD: whether there is
/// an addend.
#define CK_BY_TYPE(dtype, call)                                                                            \
    do {                                                                                                   \
        if ((dtype) == CK_BF16) {                                                                          \
            enum { T = CK_BF16 };                                                                          \
            call;                                                                                          \
        } else {                                                                                           \
            enum { T = CK_F32 };                                                                           \
            call;                                                                                          \
        }                                                                                                  \
    } while (0)
#define CK_BY_TYPE_AND_FLAG(dtype, flag, call)                                                             \
    do {                                                                                                   \
        if (flag) {                                                                                        \
            enum { FLAG = 1 };                                                                             \
            CK_BY_TYPE(dtype, call);                                                                       \
        } else {                                                                                           \
            enum { FLAG = 0 };                                                                             \
            CK_BY_TYPE(dtype, call);                                                                       \
        }                                                                                                  \
    } while (0)

/// Number of elements below which a second thread does not pay off.
enum { CK_GRAIN = 16384 };

CK_INLINE long ck_min(long a, long b) { return a < b ? a : b; }
CK_INLINE long ck_max(long a, long b) { return a > b ? a : b; }

CK_INLINE size_t ck_size(ck_dtype T) { return T == CK_BF16 ? 2 : 4; }
/// Address of element i; NULL for NULL.
CK_INLINE const void *ck_at(ck_dtype T, const void *p, long i) {
    return p ? (const char *)p + (size_t)i * ck_size(T) : p;
}
CK_INLINE void *ck_at_mutable(ck_dtype T, void *p, long i) { return (char *)p + (size_t)i * ck_size(T); }

CK_INLINE float ck_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

CK_INLINE uint32_t ck_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/// bf16 is the upper half of an fp32. Rounds to nearest, ties to even; NaN propagates.
CK_INLINE uint16_t ck_to_bf16(float value) {
    uint32_t bits = ck_bits(value);
    uint32_t rounded = bits + 0x7FFF + ((bits >> 16) & 1);
    return (uint16_t)((value != value ? bits | 0x400000 : rounded) >> 16);
}

CK_INLINE float ck_load(ck_dtype T, const void *p, long i) {
    return T == CK_BF16 ? ck_from_bits((uint32_t)((const uint16_t *)p)[i] << 16) : ((const float *)p)[i];
}

CK_INLINE void ck_store(ck_dtype T, void *p, long i, float value) {
    if (T == CK_BF16)
        ((uint16_t *)p)[i] = ck_to_bf16(value);
    else
        ((float *)p)[i] = value;
}

/// exp(x) = 2ⁿ·exp(r), x = n·ln 2 + r: a minimax polynomial in r, and n is added to the exponent. With fused
/// multiply-add the relative error is 1.2e-7 for |x| < 20 and 3e-7 at the limits; without, it is 1e-6. Saturates at
/// exp(−87) and exp(88), so the result is never 0, infinite or denormal; NaN propagates; exp(0) = 1.
CK_INLINE float ck_exp(float x) {
    const float magic = 12582912.0f + 127;  // 1.5·2²³ + 127: n + 127 ends up in the low bits of a sum
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + magic, n = shifted - magic, r = x - n * 0.693147182f;
    float p = 1.381454011e-3f;
    p = p * r + 8.368745111e-3f;
    p = p * r + 4.166839079e-2f;
    p = p * r + 1.666652040e-1f;
    p = p * r + 4.999999343e-1f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * ck_from_bits(ck_bits(shifted) << 23);
}

CK_INLINE float ck_sigmoid(float x) { return 1.0f / (1.0f + ck_exp(-x)); }
/// d (x·sigmoid(x)) / dx
CK_INLINE float ck_silu_slope(float x) {
    float s = ck_sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}
